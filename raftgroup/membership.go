package raftgroup

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup/datadir"
	"github.com/proa-kv/proa/raftgroup/placement"
	"github.com/proa-kv/proa/raftlog"
)

// reconcileTicks is how often a leader compares its group's configuration with
// the cluster's map when nothing has changed.
const reconcileTicks = 20

// caughtUpEntries is how far a learner may be behind to become a voter.
const caughtUpEntries = 256

// membership is who belongs to a group: its Raft configuration, and its way to what the
// map says. It belongs to the pass.
type membership struct {
	group       *group
	conf        raftpb.ConfState // of the last entry collected for apply
	confWrite   uint64           // number of the writeSet that says it is committed
	departure   uint64           // number of the writeSet that says this replica is no member; 0: none does
	removal     uint64           // number of the writeSet that makes the log forget the last replica
	reconcileAt int              // ticks until the configuration is compared with the map
}

// openReplica makes the group's Raft node from its log.
func (g *group) openReplica(n *Node, id uint64, applied uint64) error {
	hs, _, err := g.log.InitialState()
	if err != nil {
		return err
	}
	conf, err := datadir.Configuration(n.store, g.log, g.shard)
	if err != nil {
		return err
	}
	last, err := g.log.LastIndex()
	if err != nil {
		return err
	}
	g.id, g.conf, g.last = id, conf, last
	g.vote, g.voteTerm = hs.Vote, hs.Term
	at := max(applied, min(datadir.StartIndex, last))
	g.at = applyPoint{index: at, conf: &conf}
	if g.at.term, err = g.log.Term(at); err != nil {
		return fmt.Errorf("entry %d: %w", at, err)
	}
	g.term.Store(hs.Term)
	g.lastStamp.Store(n.store.LastStamp(g.shard))
	g.prop = raftpb.Message{Type: raftpb.MsgProp, From: id}
	g.storage = &groupStorage{g.log, n, g, at, conf}
	g.node, err = raft.NewRawNode(&raft.Config{
		ID:                        id,
		ElectionTick:              n.electionTicks,
		HeartbeatTick:             n.electionTicks - 1, // rounds are the heartbeats; see Node.tickInterval
		Storage:                   g.storage,
		Applied:                   at,
		AsyncStorageWrites:        true,
		MaxSizePerMsg:             1 << 20,
		MaxCommittedSizePerReady:  16 << 20,
		MaxUncommittedEntriesSize: uncommittedBytesMax,
		MaxInflightMsgs:           256,
		CheckQuorum:               true,
		PreVote:                   true,
		DisableProposalForwarding: true,
		StepDownOnRemoval:         true,
		Logger:                    &raftLogger{g.logger, &n.raftLog},
	})
	if err != nil {
		return err
	}
	g.state = raft.StateFollower
	g.leader.Store(0)
	g.rounds.restart()
	g.fresh.Store(0)
	g.sole.Store(g.onlyMember())
	g.recovered()
	g.held.Store(true)
	return nil
}

// uncommittedBytesMax bounds what a leader takes in without a majority.
const uncommittedBytesMax = 256 << 20

// beget makes an empty replica for a message that wants one here, if the
// cluster's map does. It votes for nobody until it holds a snapshot, so it has
// nothing to remember until then.
func (g *group) beget(n *Node, m *raftpb.Message) error {
	switch m.Type {
	case raftpb.MsgApp, raftpb.MsgSnap:
	case raftpb.MsgHeartbeat:
		if m.Commit > 0 {
			return nil // it is for one that has acknowledged entries, and has been removed
		}
	default:
		return nil
	}
	if !g.wanted(n, m.To) || m.To == g.lost {
		return nil
	}
	if g.lost != 0 {
		return g.discardLost(n)
	}
	if n.durable < g.removal {
		return nil // the log has the earlier one yet; the leader says it again
	}
	g.logger.Info("replica created on this node", "incarnation", placement.IncarnationOf(m.To))
	return g.openReplica(n, m.To, 0)
}

// wanted reports whether the map wants this very replica here. A node without
// a map gets it with its replica of the meta group. One that had such a replica
// and lost it has a map that is out of date, and gets the present one with the
// next replica, of an incarnation that the old map does not know.
func (g *group) wanted(n *Node, id uint64) bool {
	cm := n.cmap.Load()
	meta := g.shard == n.meta()
	if !cm.Begun() {
		return meta
	}
	r, ok := cm.Replica(g.shard, n.id)
	return ok && r.ID() == id || meta && placement.IncarnationOf(id) > cm.Shards[g.shard].Incarnation
}

// retire removes the replica and all it holds.
func (mb *membership) retire(n *Node) error {
	if err := n.apply(); err != nil {
		return err
	}
	mb.group.held.Store(false)
	mb.group.leads.Store(false)
	mb.group.lease.Store(0)
	// First the state goes, then the log, which remembers what was voted and
	// says by now that this replica is no member: so what a crash leaves in
	// between is known for a remnant, see resume.
	if ok, err := mb.group.removeState(n); !ok || err != nil {
		return err // a later tick tries again
	}
	mb.group.logger.Info("removing replica from this node", "incarnation", placement.IncarnationOf(mb.group.id))
	mb.group.dropSnapshots()
	if mb.group.receiving != nil {
		mb.group.receiving.end()
	}
	for _, p := range mb.group.inflight {
		n.finish(p.done, command.TimedOut)
	}
	mb.group.inflight = nil
	mb.group.node, mb.group.storage, mb.group.id = nil, nil, 0
	mb.conf, mb.group.at, mb.group.last, mb.departure = raftpb.ConfState{}, applyPoint{}, 0, 0
	mb.group.leader.Store(0)
	mb.group.answers = mb.group.answers[:0]
	mb.group.sole.Store(false)
	mb.group.recovered()
	mb.removeLog(n)
	return nil
}

// removeLog makes the log forget the replica.
func (mb *membership) removeLog(n *Node) {
	n.filling.log.Remove(mb.group.log)
	n.filling.mustSync = true
	mb.removal = n.filling.number
}

// tickAbsent is a tick of a shard without a replica here: who leads it is known
// from reports only.
func (g *group) tickAbsent(n *Node) {
	g.leader.Store(n.known.leaderOf(g.shard, n.clock.Boot()))
}

// considerRetiring removes the replica if the map wants none here and its group
// knows it no more: the leader's report says so. That its own configuration
// does is not enough. The leader may have crashed since, and have to ask for
// this replica's vote once more; see applyConfChange.
func (mb *membership) considerRetiring(n *Node, cm *placement.Map) error {
	if cm.Begun() && mb.group.lost != 0 {
		return mb.group.tendLost(n, cm)
	}
	if mb.group.node == nil || mb.group.state == raft.StateLeader {
		return nil
	}
	if !mb.group.down && !mb.mapIsOld(n, cm) {
		if r, ok := cm.Replica(mb.group.shard, n.id); !cm.Begun() || ok && r.ID() == mb.group.id {
			return nil
		}
	}
	if !n.known.excludes(mb.group.shard, mb.group.id, mb.group.term.Load()) {
		return nil
	}
	if mb.departure == 0 {
		conf := without(&mb.conf, mb.group.id)
		n.filling.log.SetConfState(mb.group.log, &conf)
		n.filling.mustSync = true
		mb.departure = n.filling.number
	}
	if n.durable < mb.departure || mb.group.receiving != nil && !mb.group.receiving.begun.Load() {
		return nil // a later tick goes on
	}
	return mb.retire(n)
}

// mapIsOld reports whether the map cannot say whether this replica is wanted: that
// of the meta group may have been removed before it learned of it. A leader that
// knows a newer row than the map has, and excludes the replica, then has the word;
// the map that came with the replica's snapshot is not older than the row that wanted it.
func (mb *membership) mapIsOld(n *Node, cm *placement.Map) bool {
	if mb.group.shard != n.meta() || mb.group.at.index <= datadir.StartIndex {
		return false
	}
	s, ok := n.known.leading(mb.group.shard)
	return ok && s.Row > cm.Version(mb.group.shard)
}

// reconcile brings the group's configuration one step nearer to what the map
// says: learners first, then, when they have caught up, voters in one joint
// change with the ones that go.
func (mb *membership) reconcile(n *Node) {
	if mb.reconcileAt--; mb.reconcileAt > 0 {
		return
	}
	mb.reconcileAt = reconcileTicks
	cm := n.cmap.Load()
	if mb.onlyMember() && n.store.Damaged(mb.group.shard) {
		return // it cannot be copied
	}
	if !cm.Begun() || mb.group.state != raft.StateLeader || inJoint(&mb.conf) || mb.group.transfer.holds() {
		return
	}
	want := &cm.Shards[mb.group.shard]
	if len(want.Replicas) == 0 {
		return
	}
	change, leave := mb.nextChange(n, want)
	if leave {
		successors := mb.group.successors(n)
		if to := cmp.Or(placement.Successor(successors, n.candidates(successors)), mb.group.removedSuccessor(n, want)); to != 0 {
			mb.group.beginTransfer(n, to)
		}
		return
	}
	if len(change.Changes) == 0 {
		return
	}
	mb.group.logger.Info("changing the Raft configuration", "change", raftpb.ConfChangesToString(change.Changes))
	if err := mb.group.node.ProposeConfChange(change); err != nil && !errors.Is(err, raft.ErrProposalDropped) {
		mb.group.logger.Warn("cannot change the Raft configuration", "error", err)
	}
}

// nextChange returns the next step towards want, if one is possible now, or
// says that this leader has to go first.
func (mb *membership) nextChange(n *Node, want *placement.Shard) (change raftpb.ConfChangeV2, leave bool) {
	single := func(t raftpb.ConfChangeType, id uint64) raftpb.ConfChangeV2 {
		return raftpb.ConfChangeV2{Changes: []raftpb.ConfChangeSingle{{Type: t, NodeID: id}}}
	}
	members := confMembers(&mb.conf)
	wanted := make(map[uint64]placement.Replica)
	var promote []uint64
	ready := true
	for _, r := range want.Replicas {
		wanted[r.ID()] = r
		switch {
		case !slices.Contains(members, r.ID()):
			return single(raftpb.ConfChangeAddLearnerNode, r.ID()), false
		case r.Learner || isVoter(&mb.conf, r.ID()):
		case mb.caughtUp(n, r.ID()):
			promote = append(promote, r.ID())
		default:
			ready = false
		}
	}
	for _, id := range mb.conf.Learners {
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
	for _, id := range mb.conf.Voters {
		r, ok := wanted[id]
		switch {
		case ok && !r.Learner:
		case id == mb.group.id:
			leave = len(mb.conf.Voters)+len(promote) > 1
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
func (mb *membership) caughtUp(n *Node, id uint64) bool {
	if !n.known.alive(placement.NodeOf(id), n.clock.Boot()) {
		return false
	}
	ok := false
	mb.group.node.WithProgress(func(peer uint64, _ raft.ProgressType, pr tracker.Progress) {
		if peer == id {
			ok = pr.State == tracker.StateReplicate && pr.Match+caughtUpEntries >= mb.group.last
		}
	})
	return ok
}

// truncate cuts the log behind what the state machine holds durably, but keeps
// some entries for followers that are a little behind, while there is room.
func (g *group) truncate(n *Node) {
	if g.down {
		g.truncateDown(n)
		return
	}
	upTo := n.store.Durable(g.shard)
	if n.log.SizeBytes() <= n.lim.logBytes && !n.state.is(alone) && !n.log.Short() {
		upTo -= min(upTo, n.lim.logTrailing)
		for _, s := range g.sending {
			upTo = min(upTo, s.msg.Snapshot.Metadata.Index)
		}
	}
	if upTo > datadir.StartIndex && upTo <= g.at.index {
		n.log.Truncate(g.log, upTo)
	}
}

// resume opens the replica that the log holds, and finishes an installation
// that was cut off between state and log.
func (g *group) resume(n *Node) error {
	if n.store.Lost(g.shard) {
		return g.openLost(n)
	}
	if meta, ok := n.store.Installed(g.shard); ok {
		if err := g.adoptInstalled(n, meta.Index, meta.Term, meta.Conf); err != nil {
			return err
		}
	}
	applied := n.store.Applied(g.shard)
	conf, err := datadir.Configuration(n.store, g.log, g.shard)
	if err != nil {
		return err
	}
	first, err := g.log.FirstIndex()
	if err != nil {
		return err
	}
	last, err := g.log.LastIndex()
	if err != nil {
		return err
	}
	id := datadir.ReplicaOf(&conf, n.id)
	if id == 0 {
		return g.discardRemnant(n, applied, last, &conf)
	}
	if applied > last || max(applied, datadir.StartIndex)+1 < first {
		return fmt.Errorf("%w: the state is at entry %d, the log holds %d to %d; "+datadir.RejoinOrRestore, datadir.ErrLogMissing, applied, first, last)
	}
	n.replay.Entries += last - max(applied, min(datadir.StartIndex, last))
	return g.openReplica(n, id, applied)
}

// adoptInstalled has the log begin where an installed snapshot ends, if it does
// not know of it yet.
func (g *group) adoptInstalled(n *Node, index, term uint64, conf []byte) error {
	if at, err := g.log.Term(index); err == nil && at == term || errors.Is(err, raft.ErrCompacted) {
		return nil // known, or left behind
	}
	var cs raftpb.ConfState
	if err := cs.Unmarshal(conf); err != nil {
		return fmt.Errorf("%w: configuration of an installed snapshot: %v", raftlog.ErrCorrupt, err)
	}
	n.filling.log.SetStart(g.log, index, term, &cs)
	return n.log.Save(n.filling.log, true)
}

// discardRemnant clears away what is left of a replica that is no member of its
// group: one that was being removed, or that never got a snapshot.
func (g *group) discardRemnant(n *Node, applied, last uint64, conf *raftpb.ConfState) error {
	if len(conf.Voters) == 0 && applied > 0 {
		return fmt.Errorf("%w: the state is at entry %d, the log has no entries of the shard; "+datadir.RejoinOrRestore, datadir.ErrLogMissing, applied)
	}
	if applied == 0 && last == 0 && len(conf.Voters) == 0 {
		return nil
	}
	g.logger.Info("deleting the remains of a removed replica")
	if err := n.store.RemoveShard(g.shard); err != nil {
		return err
	}
	n.filling.log.Remove(g.log)
	return n.log.Save(n.filling.log, true)
}

func (mb *membership) applyConfChange(n *Node, e *raftpb.Entry) error {
	cc, err := decodeConfChange(e)
	if err == nil {
		err = checkConfChange(&mb.conf, cc)
	}
	if err != nil {
		return fmt.Errorf("%s: configuration change at %d: %w", n.shardName(mb.group.shard), e.Index, err)
	}
	mb.conf = *mb.group.node.ApplyConfChange(cc)
	mb.reconcileAt = 0
	// That it is committed must not be forgotten once a replica that has left
	// is not asked for its vote any more: without it, those that stay might not
	// be a majority of the configuration before.
	hs := raftpb.HardState{Term: mb.group.voteTerm, Vote: mb.group.vote, Commit: max(mb.group.committed.Load(), e.Index)}
	n.filling.log.Append(mb.group.log, hs, nil)
	n.filling.mustSync = true
	mb.confWrite = n.filling.number
	mb.group.sole.Store(mb.onlyMember())
	if !mb.onlyVoter() && mb.group.lease.Load() == leaseForever {
		mb.group.lease.Store(0) // before anybody else can learn that it may be elected
	}
	mb.group.leaseAlone()
	return nil
}

// onlyVoter reports whether nobody but this replica can be elected.
func (mb *membership) onlyVoter() bool {
	return len(mb.conf.Voters) == 1 && mb.conf.Voters[0] == mb.group.id && !inJoint(&mb.conf)
}

// onlyMember reports whether there is no other replica, nor will be by what is
// committed.
func (mb *membership) onlyMember() bool {
	return mb.onlyVoter() && len(mb.conf.Learners) == 0 && len(mb.conf.LearnersNext) == 0
}
