package raftgroup

import (
	"encoding/json"
	"slices"
	"sync"
	"time"

	"go.etcd.io/raft/v3"

	"github.com/proa-kv/proa/command"
)

const (
	reportEvery = time.Second

	// suspectAfter and downAfter are how long a node has not been heard of
	// when it is called suspect and down. Nodes report every second, and
	// their groups beat more often.
	suspectHeartbeats = 3
	downAfter         = 10 * time.Second
)

// report is what each node tells all others every second.
type report struct {
	Node        uint64        `json:"node"`
	Peer        string        `json:"peer"`
	Client      string        `json:"client"`
	Version     string        `json:"version"`
	Leaving     bool          `json:"leaving,omitempty"` // is stopping
	Slow        bool          `json:"slow,omitempty"`
	ClockOff    bool          `json:"clock_off,omitempty"` // the wall clock is too far from the others'
	Wall        uint64        `json:"wall_ms,omitempty"`   // the wall clock, Unix time in ms
	Time        uint64        `json:"time_ms,omitempty"`   // the cluster's time; 0: not known
	Offset      int64         `json:"offset_ms,omitempty"` // by how much the wall clock is ahead
	FsyncMicros float64       `json:"fsync_us"`
	LogBytes    int64         `json:"log_bytes"`
	DiskUsed    int64         `json:"disk_used"`
	DiskFree    int64         `json:"disk_free"`
	Uptime      int64         `json:"uptime_s"`
	Shards      []shardReport `json:"shards"`
}

// shardReport is about one replica. Its leader also tells the configuration.
type shardReport struct {
	Shard   int      `json:"s"`
	Replica uint64   `json:"r"`
	Role    string   `json:"o"`
	Leader  uint64   `json:"l"` // node
	Term    uint64   `json:"t"`
	Commit  uint64   `json:"c"`
	Applied uint64   `json:"a"`
	Members []uint64 `json:"m,omitempty"` // replicas
	// Learners are those of the members that do not vote.
	Learners []uint64 `json:"n,omitempty"`
	Settled  bool     `json:"e,omitempty"` // the configuration is what the map wants
	Row      uint64   `json:"v,omitempty"` // version of the map's row with which Settled was found
}

// reportTable is what is known of the other nodes.
type reportTable struct {
	mu      sync.Mutex
	nodes   map[uint64]*reported
	suspect int64 // ns
}

type reported struct {
	report
	heard   int64 // Clock.Boot of the last sign of life
	clocks  clockHistory
	leaders int // shards it leads, and those on their way to it
}

func (t *reportTable) entry(node uint64) *reported {
	r := t.nodes[node]
	if r == nil {
		if t.nodes == nil {
			t.nodes = make(map[uint64]*reported)
		}
		r = &reported{}
		t.nodes[node] = r
	}
	return r
}

// heard notes a sign of life. It reports whether the node had been silent for
// long, or was not known.
func (t *reportTable) heard(node uint64, now int64) (back bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.entry(node)
	back = e.heard == 0 || now-e.heard > t.suspect
	e.heard = now
	return back
}

// take takes in a report. It returns what heard does.
func (t *reportTable) take(r report, now int64) (back bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.entry(r.Node)
	back = e.heard == 0 || now-e.heard > t.suspect
	e.report, e.heard, e.leaders = r, now, 0
	if r.Wall != 0 {
		boot := now / int64(time.Microsecond)
		e.clocks.add(clockReading{wall: wallMicros(r.Wall) - boot, time: wallMicros(r.Time) - boot, has: r.Time != 0})
	}
	for i := range r.Shards {
		if r.Shards[i].Role == roleLeader {
			e.leaders++
		}
	}
	return back
}

func (t *reportTable) forget(node uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.nodes, node)
}

// get returns what is known of a node.
func (t *reportTable) get(node uint64) (reported, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r := t.nodes[node]; r != nil {
		return *r, true
	}
	return reported{}, false
}

// mayLead returns how many groups a node leads and whether it can be given
// more; without well, also where its disk stalls or its clock is off.
func (t *reportTable) mayLead(node uint64, now int64, well bool) (leaders int, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.nodes[node]
	if r == nil || r.Node == 0 || r.Leaving || well && (r.Slow || r.ClockOff) || now-r.heard > t.suspect {
		return 0, false
	}
	return r.leaders, true
}

// alive reports whether a node has been heard of lately.
func (t *reportTable) alive(node uint64, now int64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.nodes[node]
	return r != nil && now-r.heard <= t.suspect
}

// anyMayLead reports whether some other node can be given leaderships.
func (t *reportTable) anyMayLead(now int64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range t.nodes {
		if r.Node != 0 && !r.Leaving && !r.Slow && !r.ClockOff && now-r.heard <= t.suspect {
			return true
		}
	}
	return false
}

// countLeader counts a leadership that is on its way to node.
func (t *reportTable) countLeader(node uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r := t.nodes[node]; r != nil {
		r.leaders++
	}
}

// leading returns the newest report about shard by a node that leads it.
func (t *reportTable) leading(shard int) (node uint64, s shardReport, ok bool) {
	for id, r := range t.nodes {
		for i := range r.Shards {
			x := &r.Shards[i]
			if x.Shard == shard && x.Role == roleLeader && (!ok || x.Term > s.Term) {
				node, s, ok = id, *x, true
			}
		}
	}
	return node, s, ok
}

// leaderOf returns the node that reports that it leads shard.
func (t *reportTable) leaderOf(shard int) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	node, _, _ := t.leading(shard)
	return node
}

// excludes reports whether the leader of shard, in term or later, says that
// replica is no member.
func (t *reportTable) excludes(shard int, replica, term uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, s, ok := t.leading(shard)
	if !ok || s.Term < term || len(s.Members) == 0 {
		return false
	}
	for _, id := range s.Members {
		if id == replica {
			return false
		}
	}
	return true
}

const (
	roleLeader      = "leader"
	roleUnreachable = "unreachable" // in status only
	roleFollower    = "follower"
	roleLearner     = "learner"
	roleCandidate   = "candidate"
)

func (g *group) role() string {
	switch {
	case g.state == raft.StateLeader:
		return roleLeader
	case !isVoter(&g.conf, g.id):
		return roleLearner
	case g.state == raft.StateFollower:
		return roleFollower
	}
	return roleCandidate
}

// ownReport describes this node. For the pass.
func (n *Node) ownReport() report {
	cm := n.cmap.Load()
	r := report{
		Node: n.id, Peer: n.opt.PeerAddress, Client: n.opt.ClientAddress, Version: n.opt.Version,
		Leaving: n.leaving.Load(), Slow: n.slow.Load(), FsyncMicros: n.fsyncRecent(), LogBytes: n.log.SizeBytes(),
		ClockOff: n.clockOff.Load(), Offset: n.clockOffset.Load(), Wall: n.clock.NowMillis(),
		DiskUsed: n.diskUsed.Load(), DiskFree: n.diskFree.Load(), Uptime: int64(time.Duration(n.clock.Boot() - n.startedAt).Seconds()),
	}
	for _, g := range n.groups {
		if g.node == nil {
			continue
		}
		s := shardReport{
			Shard: g.shard, Replica: g.id, Role: g.role(), Leader: g.leader.Load(), Term: g.term.Load(),
			Commit: g.committed.Load(), Applied: g.at.index,
		}
		if g.state == raft.StateLeader && g.confWrite <= n.durable {
			s.Members = confMembers(&g.conf)
			s.Learners = g.conf.Learners
			if cm.begun() {
				s.Settled, s.Row = g.settled(&cm.shards[g.shard]), cm.rowVersion(g.shard)
			}
		}
		r.Shards = append(r.Shards, s)
	}
	return r
}

// settled reports whether the configuration is what the map wants.
func (g *group) settled(want *shardRow) bool {
	if inJoint(&g.conf) || len(want.Replicas) != len(confMembers(&g.conf)) {
		return false
	}
	for _, r := range want.Replicas {
		if isVoter(&g.conf, r.id()) == r.Learner {
			return false
		}
	}
	return true
}

// sendReport tells the other nodes about this one.
func (n *Node) sendReport() {
	r := n.ownReport()
	n.mu.Lock()
	n.own = r
	n.mu.Unlock()
	if n.alone.Load() {
		return
	}
	if n.time.agreed.Load() {
		r.Time = n.time.now()
	}
	b, err := json.Marshal(&r)
	if err != nil {
		n.logger.Error("making a report", "error", err)
		return
	}
	n.transport.Report(b)
}

// ReceiveReport takes in another node's report. One that makes no sense is
// dropped.
func (n *Node) ReceiveReport(from uint64, body []byte) {
	var r report
	if err := json.Unmarshal(body, &r); err != nil || r.Node != from {
		n.logger.Warn("a report makes no sense", "from", from, "error", err)
		return
	}
	if n.reports.take(r, n.clock.Boot()) {
		n.greetDue.Store(true)
	}
}

// ClusterStatus returns the whole cluster as this node knows it.
func (n *Node) ClusterStatus() command.ClusterStatus {
	cm := n.cmap.Load()
	s := command.ClusterStatus{Cluster: clusterText(n.identity.Cluster), Asked: n.id, MetaLeader: n.Leader(n.meta())}
	all := map[uint64]reported{n.id: n.ownReported()}
	if cm == nil {
		cm = &clusterMap{shards: make([]shardRow, len(n.groups))}
	}
	s.Epoch = cm.epoch
	now := n.clock.Boot()
	for i := range cm.nodes {
		row := &cm.nodes[i]
		if row.Removed {
			continue
		}
		r, ok := all[row.ID]
		if !ok {
			if r, ok = n.reports.get(row.ID); ok {
				all[row.ID] = r
			}
		}
		s.Nodes = append(s.Nodes, n.nodeInfo(row, &r, now))
	}
	for k := range n.groups {
		shard := (k + n.meta()) % len(n.groups) // the meta group first
		s.Shards = append(s.Shards, n.shardInfo(shard, &cm.shards[shard], all, now))
	}
	return s
}

// ownReported is this node's own report, as it is now where it can be told
// without a pass.
func (n *Node) ownReported() reported {
	n.mu.Lock()
	r := reported{report: n.own, heard: n.clock.Boot()}
	n.mu.Unlock()
	if r.Node == 0 { // before the first one
		r.report = report{Node: n.id, Peer: n.opt.PeerAddress, Client: n.opt.ClientAddress, Version: n.opt.Version}
	}
	for i := range r.Shards {
		if r.Shards[i].Role == roleLeader {
			r.leaders++
		}
	}
	return r
}

func (n *Node) nodeInfo(row *nodeRow, r *reported, now int64) command.NodeInfo {
	i := command.NodeInfo{
		ID: row.ID, Peer: row.Peer, Client: row.Client, Version: row.Version, Draining: row.Draining, Removing: row.Removing,
		Slow: r.Slow, ClockOff: r.ClockOff, ClockOffset: r.Offset, Leaders: r.leaders, Replicas: len(r.Shards), FsyncMicros: r.FsyncMicros, LogBytes: r.LogBytes,
		DiskUsedBytes: r.DiskUsed, DiskFreeBytes: r.DiskFree, UptimeSeconds: r.Uptime,
	}
	silent := now - max(r.heard, n.startedAt)
	if row.ID != n.id {
		i.LastSeenMillis = silent / int64(time.Millisecond)
	}
	switch {
	case row.UID == 0:
		i.State, i.LastSeenMillis = command.NodeExpected, 0
	case row.ID == n.id || silent <= n.reports.suspect:
		i.State = command.NodeUp
	case silent <= int64(downAfter):
		i.State = command.NodeSuspect
	default:
		i.State = command.NodeDown
	}
	return i
}

// shardInfo puts together what the nodes have reported of a shard. Of a node
// that is down that is old: what has been given up there is left out. The leader
// is the newest of those that said so of themselves, also where others have
// heard of a newer term already: who leads in that one has not reported yet.
func (n *Node) shardInfo(shard int, row *shardRow, all map[uint64]reported, now int64) command.ShardInfo {
	i := command.ShardInfo{Shard: shard, Desired: row.nodes(), Moving: true}
	if shard == n.meta() {
		i.Shard = command.MetaShard
	} else {
		first, last := n.slotRange(shard)
		i.Slots = slotText(first, last)
	}
	led := uint64(0) // the newest term of which a leader is known
	for node, r := range all {
		down := node != n.id && now-max(r.heard, n.startedAt) > int64(downAfter)
		if down && !slices.Contains(i.Desired, node) {
			continue
		}
		for k := range r.Shards {
			if x := &r.Shards[k]; x.Shard == shard {
				role := x.Role
				if down {
					role = roleUnreachable
				}
				i.Replicas = append(i.Replicas, command.ReplicaInfo{Node: node, Role: role, Applied: x.Applied})
				i.Commit = max(i.Commit, x.Commit)
				if role == roleLeader && x.Term > led {
					led, i.Leader, i.Moving = x.Term, node, !x.Settled
				}
				i.Term = max(i.Term, x.Term)
			}
		}
	}
	sortReplicas(i.Replicas)
	for k := range i.Replicas {
		i.Replicas[k].Lag = i.Commit - min(i.Commit, i.Replicas[k].Applied)
	}
	return i
}
