package raftgroup

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup/datadir"
	"github.com/proa-kv/proa/raftgroup/engine"
	"github.com/proa-kv/proa/raftgroup/placement"
)

// clusterView is what is known of the cluster at one moment.
type clusterView struct {
	node    *Node
	now     int64
	reports *placement.Reports
	nodes   map[uint64]*picture // of the members
}

// ClusterStatus returns the whole cluster as this node knows it.
func (n *Node) ClusterStatus() command.ClusterStatus {
	cm := n.cmap.Load()
	n.members.mu.Lock()
	leftOut := n.leftOutBy
	n.members.mu.Unlock()
	s := command.ClusterStatus{Cluster: datadir.ClusterText(n.dir.Cluster), Engine: n.dir.Engine.String(), Asked: n.id, MetaLeader: n.Leader(n.meta()), LeftOutBy: leftOut}
	s.Epoch, s.ReplicationFactor, s.Standalone = cm.Epoch, cm.Cluster.Replicas, cm.Standalone()
	now := n.clock.Boot()
	v := clusterView{n, now, n.reports(now), make(map[uint64]*picture)}
	for i := range cm.Nodes {
		if row := &cm.Nodes[i]; !row.Removed {
			p := n.known.get(row.ID)
			v.nodes[row.ID] = &p
		}
	}
	leaders := make(map[uint64]int)
	for k := range n.views {
		shard := (k + n.meta()) % len(n.views) // the meta group first
		i := v.shardInfo(shard, &cm.Shards[shard])
		leaders[i.Leader]++
		s.Shards = append(s.Shards, i)
	}
	for i := range cm.Nodes {
		if row := &cm.Nodes[i]; !row.Removed {
			s.Nodes = append(s.Nodes, v.nodeInfo(row, leaders[row.ID]))
		}
	}
	for i := range s.Nodes {
		if row, ok := cm.Node(s.Nodes[i].ID); ok {
			s.Nodes[i].Replace = v.replacement(cm, &row, &s)
		}
	}
	health := s.Assess()
	s.Health = &health
	return s
}

// replacement says what becomes of the replicas of a node that is not up; nil
// for one that is, or that has not joined. It is what the leader of the meta
// group does (see plan), as far as can be seen from here.
func (v *clusterView) replacement(cm *placement.Map, row *placement.Node, s *command.ClusterStatus) *command.Replacement {
	if !row.Member() || v.state(row.ID) == command.NodeUp {
		return nil
	}
	r := &command.Replacement{InMillis: -1}
	for shard := range cm.Shards[:v.node.meta()] {
		if _, on := cm.Shards[shard].On(row.ID); !on {
			continue
		}
		r.Shards++
		led := s.Shards[shard+1].Leader != 0 // the meta group is the first
		if s.MetaLeader != 0 && led && v.hasRoom(cm, shard) {
			r.Rebuildable++
		}
	}
	after := v.node.opt.ReplaceAfter
	switch {
	case r.Rebuildable == 0:
	case row.Removing:
		r.InMillis = 0
	case after > 0:
		r.InMillis = max(after-v.silentToLeader(row.ID, s.MetaLeader), 0).Milliseconds()
	}
	return r
}

// hasRoom reports whether some node can take a further replica of a shard.
func (v *clusterView) hasRoom(cm *placement.Map, shard int) bool {
	return slices.ContainsFunc(cm.Nodes, func(o placement.Node) bool {
		if _, on := cm.Shards[shard].On(o.ID); on || !o.Member() || o.Removing || v.node.dir.GaveUp(o.ID) {
			return false
		}
		return v.state(o.ID) == command.NodeUp && !v.reports.Shards[shard].MayHold(o.ID)
	})
}

// silentToLeader returns for how long the leader of the meta group has received
// nothing of a node: no longer than the leader runs.
func (v *clusterView) silentToLeader(node, leader uint64) time.Duration {
	silent := v.silent(node)
	if p := v.nodes[leader]; p != nil && leader != v.node.id && p.fresh(v.now) {
		silent = min(silent, time.Duration(p.about.Uptime)*time.Second)
	}
	return silent
}

// silent returns for how long nothing has come from a node.
func (v *clusterView) silent(node uint64) time.Duration {
	if node == v.node.id {
		return 0
	}
	return time.Duration(v.now - max(v.nodes[node].heard, v.node.startedAt))
}

func (v *clusterView) state(node uint64) string {
	p := v.nodes[node]
	silent := v.silent(node)
	switch {
	case silent > placement.DownAfter:
		return command.NodeDown
	case node == v.node.id || !p.lost && silent <= time.Duration(v.node.known.suspect):
		return command.NodeUp
	}
	return command.NodeSuspect
}

func (v *clusterView) nodeInfo(row *placement.Node, leaders int) command.NodeInfo {
	i := command.NodeInfo{
		ID: row.ID, Peer: row.Peer, Client: row.Client, Version: row.Version, Draining: row.Draining, Removing: row.Removing,
		State: command.NodeExpected, Stale: true, AgeMillis: -1,
	}
	if row.UID == 0 {
		return i
	}
	p := v.nodes[row.ID]
	i.State, i.LastSeenMillis = v.state(row.ID), v.silent(row.ID).Milliseconds()
	i.Stale = !p.fresh(v.now)
	if age, ok := p.age(v.now); ok {
		i.AgeMillis = age.Milliseconds()
	}
	a := &p.about
	i.Exposed = a.Exposed
	i.Slow, i.ClockOff, i.ClockOffset, i.DamagedFiles = a.Slow, a.ClockOff, a.Offset, int(min(a.Damaged, math.MaxInt32))
	i.FsyncMicros, i.LogBytes, i.DiskUsedBytes, i.DiskFreeBytes, i.UptimeSeconds = a.FsyncMicros, a.LogBytes, a.DiskUsed, a.DiskFree, a.Uptime
	i.Leaders = leaders
	for k := range p.shards {
		if p.shards[k].Replica != 0 {
			i.Replicas++
		}
	}
	return i
}

// shardInfo puts together what the nodes have reported of a shard. Of a node
// that is down that is old: what has been given up there is left out.
//
// The leader is the newest of those that say so of themselves, and whose word
// is fresh; also where others have heard of a newer term already, because who
// leads in that one has not reported yet. Where the former leader has said that
// it follows another, that one has until its next report to say so itself.
func (v *clusterView) shardInfo(shard int, row *placement.Shard) command.ShardInfo {
	i := command.ShardInfo{Shard: shard, Desired: row.Nodes(), Voters: row.VotingNodes(), Moving: true, State: command.ShardUnknown}
	if shard == v.node.meta() {
		i.Shard = command.MetaShard
	} else {
		first, last := slotRange(shard, v.node.meta())
		i.Slots = slotText(first, last)
	}
	led := uint64(0) // the newest term of which a leader is known
	for node, p := range v.nodes {
		if shard >= len(p.shards) || p.shards[shard].Replica == 0 {
			continue
		}
		x, state := &p.shards[shard], v.state(node)
		if state == command.NodeDown && !slices.Contains(i.Desired, node) {
			continue
		}
		r := command.ReplicaInfo{Node: node, Role: x.Role, Applied: x.Applied, Follows: x.Leader, Stale: !p.fresh(v.now), Damaged: x.Damaged, Behind: x.Behind}
		if r.Stale && state != command.NodeUp {
			r.Role = roleUnreachable
		}
		i.Replicas = append(i.Replicas, r)
		i.Commit, i.Term = max(i.Commit, x.Commit), max(i.Term, x.Term)
		if !r.Stale && x.Role == engine.RoleLeader && x.Term > led {
			led, i.Leader, i.Moving, i.State = x.Term, node, !x.Settled, command.ShardLed
			i.NewLeader = v.recent(x)
			if len(x.Members) > 0 {
				i.Voters = x.votingNodes()
			}
		}
	}
	if i.Leader == 0 {
		i.Leader = v.announced(shard, i.Term)
		switch i.NewLeader = i.Leader != 0; {
		case i.NewLeader:
			i.State = command.ShardLed
		case v.leaderless(shard, row):
			i.State = command.ShardLeaderless
		}
	}
	slices.SortFunc(i.Replicas, func(a, b command.ReplicaInfo) int { return cmp.Compare(a.Node, b.Node) })
	for k := range i.Replicas {
		if r := &i.Replicas[k]; r.Node != i.Leader { // the leader's two figures are of two moments
			r.Lag = i.Commit - min(i.Commit, r.Applied)
		}
	}
	return i
}

// recent reports whether the role, leader and term that a replica's report names
// are so new that reports of other nodes, as old as they may be, can be from before.
func (v *clusterView) recent(x *shardReport) bool {
	return v.now-x.since <= int64(staleAfter)
}

// announced returns the leader of the newest term that another replica has begun to
// follow a moment ago, while that leader's node has yet to say so; 0: none.
func (v *clusterView) announced(shard int, term uint64) uint64 {
	for node, p := range v.nodes {
		if shard >= len(p.shards) || !p.fresh(v.now) {
			continue
		}
		x := &p.shards[shard]
		if x.Replica == 0 || x.Term != term || x.Leader == 0 || x.Leader == node || !v.recent(x) {
			continue
		}
		leader := v.nodes[x.Leader]
		if leader != nil && leader.fresh(v.now) && v.state(x.Leader) == command.NodeUp && shard < len(leader.shards) && leader.shards[shard].Replica != 0 {
			return x.Leader
		}
	}
	return 0
}

// leaderless reports whether a shard of which no leader is known has none, as
// far as can be seen from here: a majority of its voters either say that they
// have none, or are not to be reached.
func (v *clusterView) leaderless(shard int, row *placement.Shard) bool {
	voters, without := 0, 0
	for _, r := range row.Replicas {
		if r.Learner {
			continue
		}
		voters++
		p := v.nodes[r.Node]
		switch {
		case p == nil:
		case v.state(r.Node) != command.NodeUp:
			without++
		case p.fresh(v.now):
			without++
		}
	}
	return voters > 0 && without > voters/2 && !v.followed(shard)
}

// followed reports whether some replica says that it follows a leader: one that
// cannot be reached from here may still serve. A learner does not count, it
// would not notice the leader's end.
func (v *clusterView) followed(shard int) bool {
	for _, p := range v.nodes {
		if shard < len(p.shards) && p.fresh(v.now) {
			if s := &p.shards[shard]; s.Replica != 0 && s.Role != engine.RoleLearner && s.Leader != 0 {
				return true
			}
		}
	}
	return false
}
