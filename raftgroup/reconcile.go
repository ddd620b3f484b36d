package raftgroup

import (
	"cmp"
	"slices"

	"github.com/proa-kv/proa/raftgroup/datadir"
	"github.com/proa-kv/proa/raftgroup/engine"
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
// this replica's vote once more; see applyConfChange. What the leader said before the
// replica came to be here does not count: it may not have been a member yet, and may have
// confirmed entries since. One whose state is lost goes as
// soon as map and group know it no more.
func (co *controller) considerRetiring(shard int, cm *placement.Map) error {
	n := co.node
	r := n.engine.Replica(shard)
	here := &co.here[shard]
	if here.replica != r.ID {
		here.replica, here.since = r.ID, n.clock.Boot()
	}
	row, ok := cm.Replica(shard, n.id)
	switch {
	case cm.Begun() && r.Lost != 0:
		if ok && row.ID() == r.Lost || !n.known.excludes(shard, r.Lost, 0, 0, -1) {
			return nil
		}
		return n.engine.Retire(shard)
	case r.ID == 0 || r.Role == engine.RoleLeader:
		return nil
	case r.Down || co.mapIsOld(shard, &r, cm):
	case !cm.Begun() || ok && row.ID() == r.ID:
		return nil
	}
	if v := n.views[shard]; !n.known.excludes(shard, r.ID, v.Term.Load(), v.Committed.Load(), here.since) {
		return nil
	}
	return n.engine.Retire(shard)
}

// mapIsOld reports whether the map cannot say whether this replica is wanted: that
// of the meta group may have been removed before it learned of it. A leader that
// knows a newer row than the map has, and excludes the replica, then has the word;
// the map that came with the replica's snapshot is not older than the row that wanted it.
func (co *controller) mapIsOld(shard int, r *engine.Replica, cm *placement.Map) bool {
	if shard != co.node.meta() || r.Applied <= datadir.StartIndex {
		return false
	}
	s, ok := co.node.known.leading(shard)
	return ok && s.Row > cm.Version(shard)
}

// reconcile brings a shard's configuration one step nearer to what the map
// says: learners first, then, when they have caught up, voters in one joint
// change with the ones that go.
func (co *controller) reconcile(shard int) {
	n, cm, r := co.node, co.node.cmap.Load(), co.node.engine.Replica(shard)
	if !cm.Begun() || r.Role != engine.RoleLeader || r.Conf.Joint() || r.Handing {
		return
	}
	want := &cm.Shards[shard]
	if len(want.Replicas) == 0 {
		return
	}
	change, leave := co.nextChange(shard, &r, want)
	if leave {
		successors := co.soundSuccessors(shard)
		if to := cmp.Or(placement.Successor(successors, co.candidates(successors)), co.leavingSuccessor(shard, &r, want)); to != 0 {
			n.engine.TransferLeadership(shard, to)
		}
		return
	}
	if len(change) == 0 {
		return
	}
	logger := n.shardLogger(shard)
	logger.Info("changing the Raft configuration", "change", change.String())
	if err := n.engine.ChangeConfiguration(shard, change); err != nil {
		logger.Warn("cannot change the Raft configuration", "error", err)
	}
}

// nextChange returns the next step towards want, if one is possible now, or
// says that this leader has to go first.
func (co *controller) nextChange(shard int, r *engine.Replica, want *placement.Shard) (change engine.Changes, leave bool) {
	single := func(id uint64, to engine.Membership) engine.Changes { return engine.Changes{{Replica: id, To: to}} }
	members := r.Conf.Members()
	wanted := make(map[uint64]placement.Replica)
	var promote []uint64
	ready := true
	for _, w := range want.Replicas {
		wanted[w.ID()] = w
		switch {
		case !slices.Contains(members, w.ID()):
			return single(w.ID(), engine.Learner), false
		case w.Learner || r.Conf.Votes(w.ID()):
		case co.caughtUp(shard, w.ID()):
			promote = append(promote, w.ID())
		default:
			ready = false
		}
	}
	for _, id := range r.Conf.Learners {
		if _, ok := wanted[id]; !ok {
			return single(id, engine.Removed), false
		}
	}
	if !ready {
		return change, false
	}
	for _, id := range promote {
		change = append(change, engine.Change{Replica: id, To: engine.Voter})
	}
	for _, id := range r.Conf.Voters {
		w, ok := wanted[id]
		switch {
		case ok && !w.Learner:
		case id == r.ID:
			leave = len(r.Conf.Voters)+len(promote) > 1
		case ok:
			change = append(change, engine.Change{Replica: id, To: engine.Learner})
		default:
			change = append(change, engine.Change{Replica: id, To: engine.Removed})
		}
	}
	return change, leave && len(change) == 0
}

// settled reports whether a configuration is what the map wants.
func settled(c *engine.Configuration, want *placement.Shard) bool {
	if c.Joint() || len(want.Replicas) != len(c.Members()) {
		return false
	}
	for _, r := range want.Replicas {
		if c.Votes(r.ID()) == r.Learner {
			return false
		}
	}
	return true
}

// caughtUp reports whether a learner could vote at once: its node is up, and it
// lacks few entries.
func (co *controller) caughtUp(shard int, id uint64) bool {
	return co.node.known.alive(placement.NodeOf(id), co.node.clock.Boot()) && co.node.engine.CaughtUp(shard, id)
}

// leavingSuccessor returns a voter that the map wants and whose node is to be
// removed from the cluster, or drained. Nobody hands over to such a node, but for a
// leader that the map does not want and that has nobody else: otherwise two nodes that
// are removed at a time, and each of which holds a shard up for the other, would
// never go, nor one of which the only successor is drained.
func (co *controller) leavingSuccessor(shard int, r *engine.Replica, want *placement.Shard) uint64 {
	cm := co.node.cmap.Load()
	for _, w := range want.Replicas {
		row, ok := cm.Node(w.Node)
		if !ok || !row.Removing && !row.Draining || w.Learner || w.ID() == r.ID || !r.Conf.Votes(w.ID()) || !co.caughtUp(shard, w.ID()) {
			continue
		}
		if _, reason := co.node.known.mayLead(w.Node, co.node.clock.Boot(), false); reason == "" {
			return w.ID()
		}
	}
	return 0
}
