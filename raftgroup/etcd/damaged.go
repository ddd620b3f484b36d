package etcd

import (
	"errors"
	"log/slog"

	"go.etcd.io/raft/v3"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup/datadir"
	"github.com/proa-kv/proa/raftgroup/engine"
	"github.com/proa-kv/proa/raftgroup/placement"
	"github.com/proa-kv/proa/storage"
)

// # Damaged replicas
//
// A file of the state may be damaged. A replica that meets that cannot carry out
// the entries of its shard as the others do, so where there are others it breaks
// down: it is read no more and applies nothing, but keeps its log and its vote,
// so that the shard is as safe as before, and gives its leadership away. Its
// reports say so (shardReport.Damaged). The meta group's leader then replaces it
// in the map (placement.Plan), on this node or on another, as if the node had left;
// its successor, of another incarnation, gets a snapshot. So nothing is asked of
// what has been damaged but what its log has.
//
// A replica whose state is lost as a whole (storage.Lost) cannot even be opened,
// since the configuration of its group is part of the state. It votes no more.
//
// A replica that is the only one serves what it can, and refuses the rest:
// command.ErrDamaged.

// replicaDamage says whether a group's replica here is out of use.
type replicaDamage struct {
	group *group
	// Belongs to the pass.
	down      bool   // breakDown has been called
	lost      uint64 // the replica whose state is lost, and which is not open for that; 0: none
	lostTried uint64 // tick at which discardLost was tried last
	skipped   uint64 // index of the last entry that was not applied because the replica is down
}

// breakDown puts the replica out of use, whose state is damaged, unless there is
// no other. For the pass.
func (rd *replicaDamage) breakDown(e *Engine) {
	if rd.group.node == nil || rd.down || !rd.group.Broken.Load() && !e.Store.Damaged(rd.group.shard) {
		return // what was damaged may have been an earlier replica
	}
	if rd.group.onlyMember() {
		if rd.group.Broken.Load() { // there were others when it was read
			rd.recovered()
			rd.group.Held.Store(true)
			rd.group.Leads.Store(rd.group.state == raft.StateLeader)
		}
		return
	}
	rd.down = true
	rd.group.Condemn()
	rd.group.voidLease()
	rd.group.logger.Error("replica's state is damaged: stopped serving it; it will be replaced by a copy of another replica", "incarnation", placement.IncarnationOf(rd.group.id))
	rd.group.dropSnapshots()
	for _, p := range rd.group.inflight {
		e.applier.Finish(p.done, command.TimedOut)
	}
	rd.group.inflight = nil
	rd.group.takeAll()
	rd.group.refuseTaken(e)
	rd.group.takeReads()
	e.applier.Finish(rd.group.rounds.waiting, command.Dropped)
	rd.group.rounds.waiting = nil
	for i := range rd.group.rounds.list {
		e.applier.Finish(rd.group.rounds.list[i].barriers, command.Dropped)
		rd.group.rounds.list[i].barriers = nil
	}
	e.host.ReplicaDown()
}

// recovered says that the replica's state is sound again.
func (rd *replicaDamage) recovered() {
	rd.down = false
	rd.group.Broken.Store(false)
}

// stopDamaged takes in that the state machine has stopped some of the shards that
// entries were carried out of.
func (l *readyLoop) stopDamaged(from, to int) {
	for i := from; i < to; i++ {
		a := &l.applies[i]
		g := a.group
		if !l.engine.Store.Stopped(g.shard) || a.index <= l.engine.Store.Applied(g.shard) {
			continue
		}
		l.applier.Settle(i, command.TimedOut) // others will carry it out
		a.group = nil
		g.breakDown(l.engine)
	}
}

// openLost keeps in mind that the state of the replica here is lost. The log says
// what it has voted and acknowledged, and is kept until the replica is replaced.
func (rd *replicaDamage) openLost(e *Engine) error {
	_, conf, err := rd.group.log.InitialState() // the first one, which has this replica as later ones do
	if err != nil {
		return err
	}
	rd.group.Broken.Store(true)
	e.State.Set(engine.Damaged)
	row := e.host.ShardRow(rd.group.shard)
	r, wanted := row.On(e.Node)
	if rd.lost = datadir.ReplicaOf(&conf, e.Node); rd.lost == 0 {
		rd.lost = r.ID()
	}
	rd.group.Sole.Store(wanted && len(row.Replicas) == 1)
	text := "replica's state is damaged: it will be replaced by a copy of another replica"
	if rd.group.Sole.Load() {
		text = "shard's state is damaged and there is no other replica: the shard is not served"
	}
	rd.group.logger.Error(text, "incarnation", placement.IncarnationOf(rd.lost))
	return nil
}

// discardLost clears away what is left of a lost replica, if that is possible now.
func (rd *replicaDamage) discardLost(e *Engine) error {
	if rd.lostTried == e.ticks {
		return nil
	}
	rd.lostTried = e.ticks
	if ok, err := rd.removeState(e); !ok || err != nil {
		return err
	}
	rd.group.removeLog(e)
	rd.group.retired, rd.lost = rd.lost, 0
	rd.group.Sole.Store(false)
	rd.recovered()
	return nil
}

// removeState removes the state of the replica. It returns false where that is not
// possible now, because a shard beside it is damaged at the edge.
func (rd *replicaDamage) removeState(e *Engine) (bool, error) {
	if ok, err := rd.freeEdges(e); !ok {
		return false, err
	}
	return true, e.Store.RemoveShard(rd.group.shard)
}

// freeEdges makes sure that the shard can be cut out of the state. Where the same
// block of a file of it and of the shard beside it is damaged they go together, if
// the other is out of use as well. It returns false where that is not possible now.
func (rd *replicaDamage) freeEdges(e *Engine) (bool, error) {
	err := e.Store.CheckEdges(rd.group.shard)
	if !errors.Is(err, storage.ErrDamaged) {
		return err == nil, err
	}
	outOfUse := func(shard int) bool {
		return shard >= 0 && shard < len(e.groups) && e.groups[shard].Broken.Load() && !e.groups[shard].Sole.Load()
	}
	first, last := rd.group.shard, rd.group.shard
	for outOfUse(first - 1) {
		first--
	}
	for outOfUse(last + 1) {
		last++
	}
	if first < last {
		err = e.Store.GiveUp(first, last)
	}
	if errors.Is(err, storage.ErrDamaged) {
		e.damageLog.Log(rd.group.logger, slog.LevelWarn, "cannot remove the shard's state yet", "error", err)
		return false, nil
	}
	return err == nil, err
}

// truncateDown keeps a replica that is down from holding on to the log for good,
// where it cannot be replaced for long: what it would have to apply after a restart
// is cut off, and with it its state, so that it is lost then.
func (rd *replicaDamage) truncateDown(e *Engine) {
	if e.Log.SizeBytes() <= e.Limits.LogBytes || rd.skipped <= datadir.StartIndex {
		return
	}
	if !e.Store.Lost(rd.group.shard) {
		ok, err := rd.freeEdges(e)
		if ok && !e.Store.Lost(rd.group.shard) {
			err = e.Store.GiveUp(rd.group.shard, rd.group.shard)
		}
		if err != nil {
			e.host.Fail(err)
		}
		if !ok || err != nil {
			return
		}
		rd.group.logger.Warn("damaged replica was not replaced in time, and its log must be truncated; after a restart the replica will not vote")
	}
	e.Log.Truncate(rd.group.log, rd.skipped)
}

// leadsBroken reports whether the replica leads although it is out of use: then
// it has nothing to do but to bring its group where another can lead.
func (rd *replicaDamage) leadsBroken() bool { return rd.down && rd.group.state == raft.StateLeader }
