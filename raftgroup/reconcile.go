package raftgroup

import (
	"cmp"
	"errors"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/proa-kv/proa/raftgroup/datadir"
	"github.com/proa-kv/proa/raftgroup/placement"
)

// wanted reports whether the map wants this very replica here. A node without
// a map gets it with its replica of the meta group. One that had such a replica
// and lost it has a map that is out of date, and gets the present one with the
// next replica, of an incarnation that the old map does not know.
func (ms *members) wanted(shard int, replica uint64) bool {
	cm := ms.cmap.Load()
	meta := shard == ms.node.meta()
	if !cm.Begun() {
		return meta
	}
	r, ok := cm.Replica(shard, ms.node.id)
	return ok && r.ID() == replica || meta && placement.IncarnationOf(replica) > cm.Shards[shard].Incarnation
}

// shardRow returns where the replicas of a shard must be: at first where the
// founders have put them.
func (ms *members) shardRow(shard int) placement.Shard {
	if cm := ms.cmap.Load(); cm.Begun() {
		return cm.Shards[shard]
	}
	return ms.node.dir.FirstShards()[shard]
}

// considerRetiring removes the replica of a shard if the map wants none here and its
// group knows it no more: the leader's report says so. That its own configuration
// does is not enough. The leader may have crashed since, and have to ask for
// this replica's vote once more; see applyConfChange. One whose state is lost goes as
// soon as map and group know it no more.
func (co *controller) considerRetiring(shard int, cm *placement.Map) error {
	n := co.node
	r := n.replica(shard)
	row, ok := cm.Replica(shard, n.id)
	switch {
	case cm.Begun() && r.lost != 0:
		if ok && row.ID() == r.lost || !n.known.excludes(shard, r.lost, 0) {
			return nil
		}
		return n.retire(shard)
	case r.id == 0 || r.role == roleLeader:
		return nil
	case r.down || co.mapIsOld(shard, &r, cm):
	case !cm.Begun() || ok && row.ID() == r.id:
		return nil
	}
	if !n.known.excludes(shard, r.id, n.views[shard].Term.Load()) {
		return nil
	}
	return n.retire(shard)
}

// mapIsOld reports whether the map cannot say whether this replica is wanted: that
// of the meta group may have been removed before it learned of it. A leader that
// knows a newer row than the map has, and excludes the replica, then has the word;
// the map that came with the replica's snapshot is not older than the row that wanted it.
func (co *controller) mapIsOld(shard int, r *replicaState, cm *placement.Map) bool {
	if shard != co.node.meta() || r.applied <= datadir.StartIndex {
		return false
	}
	s, ok := co.node.known.leading(shard)
	return ok && s.Row > cm.Version(shard)
}

// reconcile brings a shard's configuration one step nearer to what the map
// says: learners first, then, when they have caught up, voters in one joint
// change with the ones that go.
func (co *controller) reconcile(shard int) {
	n, cm, r := co.node, co.node.cmap.Load(), co.node.replica(shard)
	if !cm.Begun() || r.role != roleLeader || inJoint(r.conf) || r.handing {
		return
	}
	want := &cm.Shards[shard]
	if len(want.Replicas) == 0 {
		return
	}
	change, leave := co.nextChange(shard, &r, want)
	if leave {
		successors := co.soundSuccessors(shard)
		if to := cmp.Or(placement.Successor(successors, co.candidates(successors)), co.removedSuccessor(shard, &r, want)); to != 0 {
			n.transferLeadership(shard, to)
		}
		return
	}
	if len(change.Changes) == 0 {
		return
	}
	logger := n.shardLogger(shard)
	logger.Info("changing the Raft configuration", "change", raftpb.ConfChangesToString(change.Changes))
	if err := n.changeConfiguration(shard, change); err != nil && !errors.Is(err, raft.ErrProposalDropped) {
		logger.Warn("cannot change the Raft configuration", "error", err)
	}
}

// nextChange returns the next step towards want, if one is possible now, or
// says that this leader has to go first.
func (co *controller) nextChange(shard int, r *replicaState, want *placement.Shard) (change raftpb.ConfChangeV2, leave bool) {
	single := func(t raftpb.ConfChangeType, id uint64) raftpb.ConfChangeV2 {
		return raftpb.ConfChangeV2{Changes: []raftpb.ConfChangeSingle{{Type: t, NodeID: id}}}
	}
	members := confMembers(r.conf)
	wanted := make(map[uint64]placement.Replica)
	var promote []uint64
	ready := true
	for _, w := range want.Replicas {
		wanted[w.ID()] = w
		switch {
		case !slices.Contains(members, w.ID()):
			return single(raftpb.ConfChangeAddLearnerNode, w.ID()), false
		case w.Learner || isVoter(r.conf, w.ID()):
		case co.caughtUp(shard, w.ID()):
			promote = append(promote, w.ID())
		default:
			ready = false
		}
	}
	for _, id := range r.conf.Learners {
		if _, ok := wanted[id]; !ok {
			return single(raftpb.ConfChangeRemoveNode, id), false
		}
	}
	if !ready {
		return change, false
	}
	for _, id := range promote {
		change.Changes = append(change.Changes, raftpb.ConfChangeSingle{Type: raftpb.ConfChangeAddNode, NodeID: id})
	}
	for _, id := range r.conf.Voters {
		w, ok := wanted[id]
		switch {
		case ok && !w.Learner:
		case id == r.id:
			leave = len(r.conf.Voters)+len(promote) > 1
		case ok:
			change.Changes = append(change.Changes, raftpb.ConfChangeSingle{Type: raftpb.ConfChangeAddLearnerNode, NodeID: id})
		default:
			change.Changes = append(change.Changes, raftpb.ConfChangeSingle{Type: raftpb.ConfChangeRemoveNode, NodeID: id})
		}
	}
	return change, leave && len(change.Changes) == 0
}

// caughtUp reports whether a learner could vote at once: its node is up, and it
// lacks few entries.
func (co *controller) caughtUp(shard int, id uint64) bool {
	return co.node.known.alive(placement.NodeOf(id), co.node.clock.Boot()) && co.node.engine.caughtUp(shard, id)
}

// removedSuccessor returns a voter that the map wants and whose node is to be
// removed from the cluster. Nobody hands over to such a node, but for a leader
// that the map does not want and that has nobody else: otherwise two nodes that
// are removed at a time, and each of which holds a shard up for the other, would
// never go.
func (co *controller) removedSuccessor(shard int, r *replicaState, want *placement.Shard) uint64 {
	cm := co.node.cmap.Load()
	for _, w := range want.Replicas {
		row, ok := cm.Node(w.Node)
		if !ok || !row.Removing || w.Learner || w.ID() == r.id || !isVoter(r.conf, w.ID()) || !co.caughtUp(shard, w.ID()) {
			continue
		}
		if _, reason := co.node.known.mayLead(w.Node, co.node.clock.Boot(), false); reason == "" {
			return w.ID()
		}
	}
	return 0
}
