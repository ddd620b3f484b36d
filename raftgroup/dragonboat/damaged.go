package dragonboat

import (
	"errors"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup/engine"
	"github.com/proa-kv/proa/raftgroup/placement"
	"github.com/proa-kv/proa/storage"
)

// # Damaged replicas
//
// As with etcd's engine (raftgroup/etcd/damaged.go): a replica whose state is damaged is
// read no more and carries out nothing, but dragonboat goes on with it, so that it keeps
// its log and its vote until the meta group's leader has replaced it. One whose state is
// lost as a whole (storage.Lost) is not started, and does not vote. The only replica of a
// shard serves what it can.

// openLost keeps in mind that the state of the replica here is lost. The log says what it
// has voted and acknowledged, and is kept until the replica is replaced.
func (s *shard) openLost() error {
	e := s.engine
	s.Broken.Store(true)
	e.State.Set(engine.Damaged)
	row := e.host.ShardRow(s.number)
	r, wanted := row.On(e.Node)
	if s.lost = s.found; s.lost == 0 {
		s.lost = r.ID()
	}
	s.Sole.Store(wanted && len(row.Replicas) == 1)
	text := "replica's state is damaged: it will be replaced by a copy of another replica"
	if s.Sole.Load() {
		text = "shard's state is damaged and there is no other replica: the shard is not served"
	}
	s.logger.Error(text, "incarnation", placement.IncarnationOf(s.lost))
	return nil
}

// discardLost clears away what is left of a lost replica.
func (s *shard) discardLost() {
	if id := s.lost; !s.changing {
		s.changing = s.engine.keeper.do(func() {
			err := s.remove(id, nil)
			s.engine.Post(func() { s.retiredNow(id, true, err) })
		})
	}
}

// BreakDown puts the replica of a shard out of use if its state is damaged; see
// engine.Conductor.
func (e *Engine) BreakDown(number int) { e.shards[number].breakDown() }

// breakDown puts the replica out of use, whose state is damaged, unless there is no other.
// Whether there is one a follower knows, and a leader that has asked for the members; else
// a later tick tries again.
func (s *shard) breakDown() {
	e := s.engine
	s.doubtful = false
	if s.replicaID.Load() == 0 || s.isDown || !s.Broken.Load() && !e.Store.Damaged(s.number) {
		return
	}
	if s.leaderReplica == 0 || s.leading() && !s.confKnown {
		s.doubtful = true
		return
	}
	if s.conf.OnlyMember(s.replicaID.Load()) {
		if s.Broken.Load() { // there were others when it was read
			s.recoveredState()
			s.Held.Store(true)
			s.Leads.Store(s.leading())
		}
		return
	}
	s.isDown = true
	s.down.Store(true)
	s.Condemn()
	s.voidLease()
	s.logger.Error("replica's state is damaged: stopped serving it; it will be replaced by a copy of another replica", "incarnation", placement.IncarnationOf(s.replicaID.Load()))
	s.endAll(command.TimedOut)
	s.refuseQueued()
	s.reads.drop()
	e.host.ReplicaDown()
}

// recoveredState says that the replica's state is sound again.
func (s *shard) recoveredState() {
	s.isDown = false
	s.down.Store(false)
	s.Broken.Store(false)
}

// outOfUse reports whether nothing that the shard's state has is needed any more. For any
// thread that has applying locked.
func (s *shard) outOfUse() bool {
	return s.Broken.Load() && !s.Sole.Load() && (s.down.Load() || s.replicaID.Load() == 0)
}

// freeEdges makes sure that the shard can be cut out of the state. Where the same block of
// a file of it and of the shard beside it is damaged they go together, if the other is out
// of use as well, else the error is ErrDamaged. It waits for the disk.
func (s *shard) freeEdges() error {
	e := s.engine
	err := e.Store.CheckEdges(s.number)
	if !errors.Is(err, storage.ErrDamaged) {
		return err
	}
	e.applying.Lock()
	defer e.applying.Unlock()
	first, last := s.number, s.number
	for first > 0 && e.shards[first-1].outOfUse() {
		first--
	}
	for last+1 < len(e.shards) && e.shards[last+1].outOfUse() {
		last++
	}
	if first == last {
		return err
	}
	return e.Store.GiveUp(first, last)
}

// giveUp gives up the state of a replica that is down, so that what it would have to carry
// out after a restart may be cut off: it holds on to the log for good otherwise, where it
// cannot be replaced for long. It waits for the disk.
func (s *shard) giveUp() (err error) {
	e := s.engine
	if err := s.freeEdges(); err != nil {
		return err
	}
	e.applying.Lock()
	defer e.applying.Unlock()
	if e.Store.Lost(s.number) || !s.outOfUse() {
		return nil
	}
	s.logger.Warn("damaged replica was not replaced in time, and its log must be truncated; after a restart the replica will not vote")
	return e.Store.GiveUp(s.number, s.number)
}
