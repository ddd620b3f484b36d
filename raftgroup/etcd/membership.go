package etcd

import (
	"errors"
	"fmt"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup/datadir"
	"github.com/proa-kv/proa/raftgroup/engine"
	"github.com/proa-kv/proa/raftgroup/placement"
	"github.com/proa-kv/proa/raftlog"
)

// reconcileTicks is how often a leader compares its group's configuration with
// the cluster's map when nothing has changed.
const reconcileTicks = 20

// caughtUpEntries is how far a learner may be behind to become a voter.
const caughtUpEntries = 256

// membership is who belongs to a group, its Raft configuration. It belongs to the pass.
type membership struct {
	group       *group
	conf        raftpb.ConfState // of the last entry collected for apply
	confWrite   uint64           // number of the writeSet that says it is committed
	departure   uint64           // number of the writeSet that says this replica is no member; 0: none does
	removal     uint64           // number of the writeSet that makes the log forget the last replica
	retired     uint64           // the last replica with a state that was removed here since the start; 0: none
	reconcileAt int              // ticks until the configuration is compared with the map
}

// openReplica makes the group's Raft node from its log.
func (g *group) openReplica(e *Engine, id uint64, applied uint64) error {
	hs, _, err := g.log.InitialState()
	if err != nil {
		return err
	}
	conf, err := datadir.Configuration(e.Store, g.log, g.shard)
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
	g.Term.Store(hs.Term)
	g.LastStamp.Store(e.Store.LastStamp(g.shard))
	g.prop = raftpb.Message{Type: raftpb.MsgProp, From: id}
	g.storage = &groupStorage{g.log, e, g, at, conf}
	g.node, err = raft.NewRawNode(&raft.Config{
		ID:                        id,
		ElectionTick:              e.electionTicks,
		HeartbeatTick:             e.electionTicks - 1, // rounds are the heartbeats; see Engine.TickInterval
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
		Logger:                    &raftLogger{g.logger, &e.raftLog},
	})
	if err != nil {
		return err
	}
	g.state = raft.StateFollower
	g.Leader.Store(0)
	g.rounds.restart()
	g.Fresh.Store(0)
	g.Sole.Store(g.onlyMember())
	g.recovered()
	g.Held.Store(true)
	return nil
}

// uncommittedBytesMax bounds what a leader takes in without a majority.
const uncommittedBytesMax = 256 << 20

// beget makes an empty replica for a message that wants one here, if the
// cluster's map does. It votes for nobody until it holds a snapshot, so it has
// nothing to remember until then.
func (g *group) beget(e *Engine, m *raftpb.Message) error {
	switch m.Type {
	case raftpb.MsgApp, raftpb.MsgSnap:
	case raftpb.MsgHeartbeat:
		if m.Commit > 0 {
			return nil // it is for one that has acknowledged entries, and has been removed
		}
	default:
		return nil
	}
	if !e.host.Wanted(g.shard, m.To) || m.To == g.lost || placement.IncarnationOf(m.To) <= placement.IncarnationOf(g.retired) {
		return nil // the map may not know yet that it has been removed
	}
	if g.lost != 0 {
		return g.discardLost(e)
	}
	if e.durable < g.removal {
		return nil // the log has the earlier one yet; the leader says it again
	}
	g.logger.Info("replica created on this node", "incarnation", placement.IncarnationOf(m.To))
	return g.openReplica(e, m.To, 0)
}

// retire removes the replica and all it holds.
func (mb *membership) retire(e *Engine) error {
	if err := e.apply(); err != nil {
		return err
	}
	mb.group.Held.Store(false)
	mb.group.Resign()
	// First the state goes, then the log, which remembers what was voted and
	// says by now that this replica is no member: so what a crash leaves in
	// between is known for a remnant, see resume.
	if ok, err := mb.group.removeState(e); !ok || err != nil {
		return err // a later tick tries again
	}
	mb.group.logger.Info("removing replica from this node", "incarnation", placement.IncarnationOf(mb.group.id))
	mb.group.dropSnapshots()
	if mb.group.receiving != nil {
		mb.group.receiving.end()
	}
	for _, p := range mb.group.inflight {
		e.applier.Finish(p.done, command.TimedOut)
	}
	mb.group.inflight = nil
	if mb.group.at.index > 0 { // else a report from before its creation may have excluded it: it may be wanted yet
		mb.retired = mb.group.id
	}
	mb.group.node, mb.group.storage, mb.group.id = nil, nil, 0
	mb.conf, mb.group.at, mb.group.last, mb.departure = raftpb.ConfState{}, applyPoint{}, 0, 0
	mb.group.Leader.Store(0)
	mb.group.answers = mb.group.answers[:0]
	mb.group.Sole.Store(false)
	mb.group.recovered()
	mb.removeLog(e)
	return nil
}

// removeLog makes the log forget the replica.
func (mb *membership) removeLog(e *Engine) {
	e.filling.log.Remove(mb.group.log)
	e.filling.mustSync = true
	mb.removal = e.filling.number
}

// tickAbsent is a tick of a shard without a replica here: who leads it is known
// from reports only.
func (g *group) tickAbsent(e *Engine) {
	g.Leader.Store(e.host.LeaderOf(g.shard))
}

// depart removes the replica, which its group knows no more, once it is durable that
// it is no member.
func (mb *membership) depart(e *Engine) error {
	if mb.departure == 0 {
		conf := without(&mb.conf, mb.group.id)
		e.filling.log.SetConfState(mb.group.log, &conf)
		e.filling.mustSync = true
		mb.departure = e.filling.number
	}
	if e.durable < mb.departure || mb.group.receiving != nil && !mb.group.receiving.begun.Load() {
		return nil // a later tick goes on
	}
	return mb.retire(e)
}

// reconcile has the configuration of a leader's group compared with the map now and
// then, and when either has changed.
func (mb *membership) reconcile(e *Engine) {
	if mb.reconcileAt--; mb.reconcileAt > 0 {
		return
	}
	mb.reconcileAt = reconcileTicks
	if mb.onlyMember() && e.Store.Damaged(mb.group.shard) {
		return // it cannot be copied
	}
	e.host.Reconcile(mb.group.shard)
}

// caughtUp reports whether a replica lacks few entries, and no snapshot: Raft may take one
// that has nothing for one that follows, and one that has no configuration does not vote.
func (mb *membership) caughtUp(id uint64) (ok bool) {
	first, err := mb.group.log.FirstIndex()
	if err != nil {
		return false
	}
	mb.group.node.WithProgress(func(peer uint64, _ raft.ProgressType, pr tracker.Progress) {
		if peer == id {
			ok = pr.State == tracker.StateReplicate && pr.Match > 0 && pr.Match+1 >= first && pr.Match+caughtUpEntries >= mb.group.last
		}
	})
	return ok
}

// truncate cuts the log behind what the state machine holds durably, but keeps
// some entries for followers that are a little behind, while there is room.
func (g *group) truncate(e *Engine) {
	if g.down {
		g.truncateDown(e)
		return
	}
	upTo := e.Store.Durable(g.shard)
	if e.Log.SizeBytes() <= e.Limits.LogBytes && !e.State.Is(engine.Alone) && !e.Log.Short() {
		upTo -= min(upTo, e.Limits.LogTrailing)
		for _, s := range g.sending {
			upTo = min(upTo, s.msg.Snapshot.Metadata.Index)
		}
	}
	if upTo > datadir.StartIndex && upTo <= g.at.index {
		e.Log.Truncate(g.log, upTo)
	}
}

// resume opens the replica that the log holds, and finishes an installation
// that was cut off between state and log.
func (g *group) resume(e *Engine) error {
	if e.Store.Lost(g.shard) {
		return g.openLost(e)
	}
	if meta, ok := e.Store.Installed(g.shard); ok {
		if err := g.adoptInstalled(e, meta.Index, meta.Term, meta.Conf); err != nil {
			return err
		}
	}
	applied := e.Store.Applied(g.shard)
	conf, err := datadir.Configuration(e.Store, g.log, g.shard)
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
	id := datadir.ReplicaOf(&conf, e.Node)
	if id == 0 {
		return g.discardRemnant(e, applied, last, &conf)
	}
	if applied > last || max(applied, datadir.StartIndex)+1 < first {
		return fmt.Errorf("%w: the state is at entry %d, the log holds %d to %d; "+datadir.RejoinOrRestore, datadir.ErrLogMissing, applied, first, last)
	}
	e.replayed.Add(last - max(applied, min(datadir.StartIndex, last)))
	return g.openReplica(e, id, applied)
}

// adoptInstalled has the log begin where an installed snapshot ends, if it does
// not know of it yet.
func (g *group) adoptInstalled(e *Engine, index, term uint64, conf []byte) error {
	if at, err := g.log.Term(index); err == nil && at == term || errors.Is(err, raft.ErrCompacted) {
		return nil // known, or left behind
	}
	var cs raftpb.ConfState
	if err := cs.Unmarshal(conf); err != nil {
		return fmt.Errorf("%w: configuration of an installed snapshot: %v", raftlog.ErrCorrupt, err)
	}
	e.filling.log.SetStart(g.log, index, term, &cs)
	return e.Log.Save(e.filling.log, true)
}

// discardRemnant clears away what is left of a replica that is no member of its
// group: one that was being removed, or that never got a snapshot.
func (g *group) discardRemnant(e *Engine, applied, last uint64, conf *raftpb.ConfState) error {
	if len(conf.Voters) == 0 && applied > 0 {
		return fmt.Errorf("%w: the state is at entry %d, the log has no entries of the shard; "+datadir.RejoinOrRestore, datadir.ErrLogMissing, applied)
	}
	if applied == 0 && last == 0 && len(conf.Voters) == 0 {
		return nil
	}
	g.logger.Info("deleting the remains of a removed replica")
	if err := e.Store.RemoveShard(g.shard); err != nil {
		return err
	}
	e.filling.log.Remove(g.log)
	return e.Log.Save(e.filling.log, true)
}

func (mb *membership) applyConfChange(e *Engine, entry *raftpb.Entry) error {
	cc, err := decodeConfChange(entry)
	if err == nil {
		err = checkConfChange(&mb.conf, cc)
	}
	if err != nil {
		return fmt.Errorf("%s: configuration change at %d: %w", e.ShardName(mb.group.shard), entry.Index, err)
	}
	mb.conf = *mb.group.node.ApplyConfChange(cc)
	mb.reconcileAt = 0
	// That it is committed must not be forgotten once a replica that has left
	// is not asked for its vote any more: without it, those that stay might not
	// be a majority of the configuration before.
	hs := raftpb.HardState{Term: mb.group.voteTerm, Vote: mb.group.vote, Commit: max(mb.group.Committed.Load(), entry.Index)}
	e.filling.log.Append(mb.group.log, hs, nil)
	e.filling.mustSync = true
	mb.confWrite = e.filling.number
	mb.group.Sole.Store(mb.onlyMember())
	if !mb.onlyVoter() && mb.group.Lease.Load() == engine.LeaseForever {
		mb.group.Lease.Store(0) // before anybody else can learn that it may be elected
	}
	mb.group.leaseAlone()
	return nil
}

// onlyVoter reports whether nobody but this replica can be elected.
func (mb *membership) onlyVoter() bool {
	c := configuration(&mb.conf)
	return c.OnlyVoter(mb.group.id)
}

// onlyMember reports whether there is no other replica, nor will be by what is
// committed.
func (mb *membership) onlyMember() bool {
	c := configuration(&mb.conf)
	return c.OnlyMember(mb.group.id)
}
