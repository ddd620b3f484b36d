package dragonboat

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/lni/dragonboat/v4"
	"github.com/lni/dragonboat/v4/config"
	pb "github.com/lni/dragonboat/v4/raftpb"
	"github.com/lni/dragonboat/v4/statemachine"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup/datadir"
	"github.com/proa-kv/proa/raftgroup/engine"
	"github.com/proa-kv/proa/raftgroup/placement"
	"github.com/proa-kv/proa/storage"
)

// replica is the replica of a shard on this node, from its beginning to its end. It
// belongs to the conductor, but for the atomic fields.
type replica struct {
	shard     *shard
	replicaID atomic.Uint64 // 0: none is open
	runs      atomic.Bool   // dragonboat runs it, and the engine knows
	down      atomic.Bool   // nothing is applied: the state is damaged

	user     dragonboat.INodeUser
	isDown   bool          // breakDown has put it out of use
	doubtful bool          // it may have to be put out of use: whether there are others is not known yet
	unloaded chan struct{} // closed when dragonboat has let go of the state machine
	found    uint64        // what the log has, before it is opened
	joined   bool          // found was not one of the first members
	changing bool          // the keeper is starting or ending it
	lost     uint64        // the replica whose state is lost, and which is not open for that; 0: none
	retired  uint64        // the last replica with a state that was removed here since the start; 0: none

	considering atomic.Bool // a message for a replica that is not here is being looked at
	receiving   atomic.Bool // a snapshot; see incoming
}

// examine finds out what log and store have of each shard, finishes what a crash has cut
// off, and refuses what does not fit together.
func (e *Engine) examine() error {
	infos, err := e.db.ListNodeInfo()
	if err != nil {
		return err
	}
	for _, info := range infos {
		s := e.shardOf(info.ShardID)
		if s == nil {
			return fmt.Errorf("the raft log has a replica of shard %d, the cluster has %d", info.ShardID-1, len(e.shards)-1)
		}
		departing := e.db.Departing(info.ShardID, info.ReplicaID)
		if departing && !e.Store.Lost(s.number) {
			s.logger.Info("deleting the remains of a removed replica")
			if err := e.Store.RemoveShard(s.number); err != nil {
				return err
			}
		}
		if departing {
			if err := e.db.RemoveNodeData(info.ShardID, info.ReplicaID); err != nil {
				return err
			}
			continue
		}
		if s.found != 0 {
			return fmt.Errorf("%s: the raft log has two replicas, %x and %x", e.ShardName(s.number), s.found, info.ReplicaID)
		}
		b, err := e.db.GetBootstrapInfo(info.ShardID, info.ReplicaID)
		if err != nil {
			return err
		}
		s.found, s.joined = info.ReplicaID, b.Join
	}
	for _, s := range e.shards {
		if err := s.compare(); err != nil {
			return err
		}
	}
	return nil
}

// compare compares what the store has of the shard with the log.
func (s *shard) compare() error {
	e := s.engine
	applied := e.Store.Applied(s.number)
	first, last := e.db.Range(s.id, s.found)
	if e.Store.Lost(s.number) || applied == 0 && s.found == 0 {
		return nil
	}
	covered, err := e.covered(s)
	switch {
	case err != nil:
		return err
	case s.found == 0, applied > last, max(applied, covered)+1 < first:
		return fmt.Errorf("%w: the state of %s is at entry %d, the log holds %d to %d; "+datadir.RejoinOrRestore, datadir.ErrLogMissing, e.ShardName(s.number), applied, first, last)
	}
	e.replayed.Add(last - max(applied, covered))
	return nil
}

// covered returns the index of the snapshot that the log begins behind; entries before it
// need not be in the log. The state has it, or dragonboat has its data in a file, and
// installs them as it starts the replica. Otherwise, and if the file is not there, it is an
// error.
func (e *Engine) covered(s *shard) (index uint64, err error) {
	if s.found == 0 {
		return 0, nil
	}
	snapshot, err := e.db.GetSnapshot(s.id, s.found)
	applied := e.Store.Applied(s.number)
	switch {
	case err != nil || snapshot.Index == 0 || applied >= snapshot.OnDiskIndex:
		return snapshot.Index, err
	case snapshot.Dummy:
		return 0, fmt.Errorf("%w: the state of %s is at entry %d, and was durable up to %d; "+datadir.RejoinOrRestore, datadir.ErrLogMissing, e.ShardName(s.number), applied, snapshot.OnDiskIndex)
	}
	if _, err := e.files.FS.Stat(snapshot.Filepath); err != nil {
		return 0, fmt.Errorf("%w: a snapshot of %s was received and not installed yet, and its file cannot be read: %w; "+datadir.RejoinOrRestore, datadir.ErrLogMissing, e.ShardName(s.number), err)
	}
	return snapshot.Index, nil
}

// open opens the replica that the log has, or the first one of a new cluster.
func (s *shard) open(b engine.Beginning) error {
	e := s.engine
	switch row := e.host.ShardRow(s.number); {
	case e.Store.Lost(s.number):
		return s.openLost()
	case s.found != 0:
		return s.begin(s.found, nil, s.joined)
	case b == engine.Founds:
		members := make(map[uint64]string)
		own := uint64(0)
		for _, r := range row.Replicas {
			if r.Learner {
				continue // the leader adds it
			}
			members[r.ID()] = target(r.ID())
			if r.Node == e.Node {
				own = r.ID()
			}
		}
		if own != 0 {
			return s.begin(own, members, false)
		}
	}
	return nil
}

// begin starts a replica, and takes it over.
func (s *shard) begin(id uint64, members map[uint64]string, join bool) error {
	s.expect(id)
	started, err := s.start(id, members, join)
	if err == nil {
		s.adopt(started)
	}
	return err
}

// started is a replica that dragonboat runs, and the engine does not know yet.
type started struct {
	id       uint64
	user     dragonboat.INodeUser
	unloaded chan struct{}
}

// start has dragonboat run a replica. It may wait for the disk.
func (s *shard) start(id uint64, members map[uint64]string, join bool) (r started, err error) {
	defer recovered("cannot start a replica", &err)
	e := s.engine
	r = started{id: id, unloaded: make(chan struct{})}
	c := config.Config{
		ShardID: s.id, ReplicaID: id, IsNonVoting: join,
		ElectionRTT: e.electionTicks, HeartbeatRTT: e.heartbeatTicks,
		CheckQuorum: true, PreVote: true,
		SnapshotEntries: 0, CompactionOverhead: e.Limits.LogTrailing, // see cutter
	}
	create := func(uint64, uint64) statemachine.IOnDiskStateMachine { return machine{s, r.unloaded} }
	if err := e.nh.StartOnDiskReplica(members, join, create, c); err != nil {
		return r, err
	}
	r.user, err = e.nh.GetNodeUser(s.id)
	return r, err
}

// expect has the shard know a replica that is about to be started: what dragonboat tells
// of it is heard from the first moment.
func (s *shard) expect(id uint64) {
	s.engine.backlogs.forget(s)
	s.leaderReplica, s.leaderless = 0, 0
	s.led.Store(nil)
	s.votes.Store(false)
	s.doubtful = false
	s.conf, s.confKnown = engine.Configuration{}, false
	s.Leader.Store(0)
	s.Fresh.Store(0)
	s.Announced.Store(0)
	s.LastStamp.Store(s.engine.Store.LastStamp(s.number))
	s.Applied.Store(s.engine.Store.Applied(s.number))
	s.replicaID.Store(id)
}

// adopt takes a replica over that dragonboat runs.
func (s *shard) adopt(r started) {
	s.user, s.unloaded, s.session = r.user, r.unloaded, s.engine.nh.GetNoOPSession(s.id)
	s.runs.Store(true)
	s.recoveredState()
	s.Held.Store(true)
}

// awaitsOnlyItself reports whether the shard's only replica is here and does not serve yet.
func (s *shard) awaitsOnlyItself() bool {
	row := s.engine.host.ShardRow(s.number)
	return s.replicaID.Load() != 0 && len(row.Replicas) == 1 && row.Replicas[0].ID() == s.replicaID.Load() &&
		s.Lease.Load() != engine.LeaseForever
}

// consider looks at a message to a replica that is not here. For any thread.
func (s *shard) consider(m *pb.Message) {
	switch m.Type {
	case pb.Replicate, pb.InstallSnapshot:
	case pb.Heartbeat:
		if m.Commit > 0 {
			return // it is for one that has acknowledged entries, and has been removed
		}
	default:
		return
	}
	if id := m.To; s.considering.CompareAndSwap(false, true) {
		s.engine.Post(func() {
			defer s.considering.Store(false)
			s.beget(id)
		})
	}
}

// beget starts an empty replica for a message that wants one here, if the cluster's map
// does.
func (s *shard) beget(id uint64) {
	e := s.engine
	if s.changing || s.replicaID.Load() != 0 || !e.host.Wanted(s.number, id) || id == s.lost || placement.IncarnationOf(id) <= placement.IncarnationOf(s.retired) {
		return
	}
	if s.lost != 0 {
		s.discardLost()
		return
	}
	s.expect(id)
	s.changing = e.keeper.do(func() {
		r, err := s.start(id, nil, true)
		e.Post(func() {
			s.changing = false
			switch {
			case errors.Is(err, dragonboat.ErrClosed):
			case errors.Is(err, dragonboat.ErrReplicaRemoved):
				// It was here and had nothing, and a report from before its creation excluded
				// it. dragonboat makes none of the same number again, so it is replaced.
				s.replicaID.Store(0)
				s.lost = id
				s.Broken.Store(true)
			case err != nil:
				e.host.Fail(fmt.Errorf("%s: %w", e.ShardName(s.number), err))
			default:
				s.logger.Info("replica created on this node", "incarnation", placement.IncarnationOf(id))
				s.adopt(r)
			}
		})
	})
	if !s.changing {
		s.replicaID.Store(0)
	}
}

// Retire removes the replica of a shard; see engine.Conductor.
func (e *Engine) Retire(number int) error {
	s := e.shards[number]
	switch {
	case s.changing:
	case s.lost != 0:
		s.discardLost()
	case s.replicaID.Load() != 0:
		s.retire()
	}
	return nil
}

// retire removes the replica and all it holds.
func (s *shard) retire() {
	e := s.engine
	id, unloaded, applied := s.replicaID.Load(), s.unloaded, e.Store.Applied(s.number) > 0
	s.changing = e.keeper.do(func() {
		err := s.remove(id, unloaded)
		e.Post(func() { s.retiredNow(id, applied, err) })
	})
	if !s.changing {
		return
	}
	s.logger.Info("removing replica from this node", "incarnation", placement.IncarnationOf(id))
	s.Held.Store(false)
	s.Resign()
	s.runs.Store(false)
	s.user = nil
	s.endAll(command.TimedOut)
	s.refuseQueued()
	s.reads.drop()
}

// retiredNow takes in that the keeper has removed a replica, or could not.
func (s *shard) retiredNow(id uint64, applied bool, err error) {
	s.changing = false
	s.replicaID.Store(0)
	s.Leader.Store(0)
	s.Sole.Store(false)
	s.conf, s.confKnown, s.leaderReplica = engine.Configuration{}, false, 0
	switch {
	case errors.Is(err, storage.ErrDamaged): // a shard beside it is damaged at the edge: a later tick tries again
		s.lost = id
		s.Broken.Store(true)
	case err != nil && !errors.Is(err, dragonboat.ErrClosed):
		s.engine.host.Fail(fmt.Errorf("%s: %w", s.engine.ShardName(s.number), err))
	default:
		s.lost = 0
		if applied { // else a report from before its creation may have excluded it
			s.retired = id
		}
		s.recoveredState()
	}
}

// removePoll is how often remove looks whether dragonboat has let go of a replica.
const removePoll = 5 * time.Millisecond

// remove ends a replica and removes its state and its log. For the keeper. First the log
// says that the replica departs, so that what a crash leaves is known for a remnant.
func (s *shard) remove(id uint64, unloaded <-chan struct{}) (err error) {
	defer recovered("cannot remove a replica", &err)
	e := s.engine
	if unloaded != nil {
		if err := e.nh.StopReplica(s.id, id); err != nil && !errors.Is(err, dragonboat.ErrShardNotFound) {
			return err
		}
		select {
		case <-unloaded:
		case <-e.ctx.Done():
			return dragonboat.ErrClosed
		}
	}
	if err := s.freeEdges(); err != nil {
		return err
	}
	if err := e.db.Depart(s.id, id); err != nil {
		return err
	}
	e.applying.Lock()
	err = e.Store.RemoveShard(s.number)
	e.applying.Unlock()
	if err != nil {
		return err
	}
	for {
		err := e.nh.RemoveData(s.id, id)
		if !errors.Is(err, dragonboat.ErrShardNotStopped) {
			return err
		}
		select {
		case <-time.After(removePoll):
		case <-e.ctx.Done():
			return dragonboat.ErrClosed
		}
	}
}
