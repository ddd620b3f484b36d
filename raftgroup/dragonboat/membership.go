package dragonboat

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lni/dragonboat/v4"
	"github.com/lni/dragonboat/v4/raftio"
	pb "github.com/lni/dragonboat/v4/raftpb"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup/dragonboat/transport"
	"github.com/proa-kv/proa/raftgroup/engine"
	"github.com/proa-kv/proa/raftgroup/placement"
)

// reconcileTicks is how often a leader compares its group's configuration with the
// cluster's map when nothing has changed.
const reconcileTicks = 10

// caughtUpEntries is how far a replica may be behind to become a voter, or to lead.
const caughtUpEntries = 256

// membership is who belongs to a shard's group, and who leads it. It belongs to the
// conductor, but for what mu guards.
//
// dragonboat changes one member at a time; what the control plane wants in one step is done
// step by step, those that come first. It does not say how far other replicas are: that is
// seen in their answers (watcher).
type membership struct {
	shard         *shard
	conf          engine.Configuration
	confKnown     bool                     // conf is complete: a leader has asked for it since the last change
	confAsked     bool                     // the answer is on its way
	reconcileAt   int                      // ticks until the configuration is compared with the map
	change        *dragonboat.RequestState // nil: none is under way
	adding        bool                     // a second voter has been asked for in this term
	leaderReplica uint64
	leaderless    int    // ticks
	calledAt      uint64 // tick of callLearners
	transfer      transfer

	// For any thread:
	led     atomic.Pointer[raftio.LeaderInfo] // who leads
	pending func() int                        // pendingChanges
	votes   atomic.Bool                       // the replica here votes
	sent    transport.Sent
	changes transport.Changes // that the replica here was sent
	// since when, and when last, a leader has said that more is confirmed here than there is,
	// on Clock.Boot
	behindSince, behindLast atomic.Int64

	mu          sync.Mutex
	matches     map[uint64]match // by replica: what was confirmed to this one as the leader of matchesTerm
	matchesTerm uint64
}

// match is what a replica has confirmed, and when it has answered last, on Clock.Boot.
type match struct {
	index    uint64
	answered int64
}

// transfer is a leadership on its way to another replica. Commands stay in the queue until
// it is done, and what was proposed before is carried out first.
type transfer struct {
	to    uint64 // replica; 0: none under way
	until uint64 // tick at which it is given up
	asked bool
}

// holds reports whether commands have to wait.
func (t *transfer) holds() bool { return t.to != 0 }

// leading reports whether the replica here is its group's leader.
func (s *shard) leading() bool {
	id := s.replicaID.Load()
	return id != 0 && s.leaderReplica == id
}

// changeLeader takes in who leads, and in which term.
func (s *shard) changeLeader(info raftio.LeaderInfo) {
	if info.ReplicaID != s.replicaID.Load() || info.Term < s.Term.Load() && s.Term.Load() != 0 && info.Term != 0 {
		return
	}
	led, term := s.leading(), s.Term.Load()
	s.Term.Store(info.Term)
	if known := s.led.Load(); known != nil && known.LeaderID != 0 && info.Term > known.Term {
		s.Committed.Store(s.Applied.Load()) // what an earlier leader has said may have been wrong
	}
	s.leaderReplica = info.LeaderID
	s.led.Store(&info)
	s.Leader.Store(placement.NodeOf(info.LeaderID))
	if info.LeaderID != 0 {
		s.leaderless = 0
		s.NoQuorum.Store(false)
	}
	if led && s.leading() && term == info.Term {
		return
	}
	if led {
		s.Resign()
		s.transfer = transfer{}
		s.refuseQueued()
	}
	if !s.leading() {
		return
	}
	s.logger.Debug("leads now", "term", info.Term)
	s.voided, s.adding, s.change = false, false, nil
	s.confKnown, s.confAsked = false, false
	s.reconcileAt, s.renewed = 0, 0
	s.Leads.Store(!s.Broken.Load())
	s.learnMembers()
	s.ask()
	s.touch()
}

// watchLeader counts how long there has been no leader.
func (s *shard) watchLeader() {
	if s.leaderReplica != 0 {
		return
	}
	if s.leaderless++; s.leaderless == 2*int(s.engine.electionTicks) {
		s.NoQuorum.Store(true)
		s.endAll(command.TimedOut)
		s.reads.drop()
	}
}

// confChanged takes in that the configuration has changed. What a follower is told has the
// voters only.
func (s *shard) confChanged() {
	if s.engine.ctx.Err() != nil {
		return // dragonboat may have ended
	}
	id := s.replicaID.Load()
	s.confKnown = false
	s.reconcileAt = 0
	for _, info := range s.engine.nh.GetNodeHostInfo(dragonboat.NodeHostInfoOption{SkipLogInfo: true}).ShardInfoList {
		if info.ShardID != s.id || info.ReplicaID != id || info.Pending {
			continue
		}
		s.conf = engine.Configuration{}
		for r := range info.Replicas {
			s.conf.Voters = append(s.conf.Voters, r)
		}
		slices.Sort(s.conf.Voters)
		s.votes.Store(!info.IsNonVoting)
		if info.IsNonVoting {
			s.conf.Learners = []uint64{id}
		}
	}
	if s.Lease.Load() == engine.LeaseForever && !s.conf.OnlyVoter(id) {
		s.Lease.Store(0)
	}
	s.Sole.Store(false) // until it is known
	s.learnMembers()
}

// membersTimeout bounds the wait for the members.
const membersTimeout = time.Second

// learnMembers asks for all members. Only a leader that reaches a majority gets an answer.
func (s *shard) learnMembers() {
	if s.confKnown || s.confAsked || !s.leading() {
		return
	}
	s.confAsked = true
	e := s.engine
	id, term := s.replicaID.Load(), s.Term.Load()
	e.background(func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, membersTimeout)
		defer cancel()
		m, err := e.nh.SyncGetShardMembership(ctx, s.id)
		e.Post(func() {
			s.confAsked = false
			if err != nil || id != s.replicaID.Load() || term != s.Term.Load() {
				return // a later tick asks again
			}
			s.takeMembers(m)
		})
	})
}

// takeMembers takes over who belongs to the group.
func (s *shard) takeMembers(m *dragonboat.Membership) {
	conf := engine.Configuration{}
	for id := range m.Nodes {
		conf.Voters = append(conf.Voters, id)
	}
	for id := range m.NonVotings {
		conf.Learners = append(conf.Learners, id)
	}
	slices.Sort(conf.Voters)
	slices.Sort(conf.Learners)
	s.conf, s.confKnown = conf, true
	if s.change == nil {
		s.adding = false
	}
	s.Sole.Store(conf.OnlyMember(s.replicaID.Load()))
	s.ask() // the lease depends on it
}

// reconcile has the configuration compared with the map now and then.
func (s *shard) reconcile() {
	s.endChange()
	if s.reconcileAt--; s.reconcileAt > 0 || !s.confKnown || s.change != nil {
		return
	}
	s.reconcileAt = reconcileTicks
	if s.conf.OnlyMember(s.replicaID.Load()) && s.engine.Store.Damaged(s.number) {
		return // it cannot be copied
	}
	s.engine.host.Reconcile(s.number)
}

// endChange looks whether the change that was asked for has ended.
func (s *shard) endChange() {
	if s.change == nil {
		return
	}
	select {
	case r := <-s.change.ResultC():
		if !r.Completed() {
			s.logger.Debug("configuration was not changed", "rejected", r.Rejected(), "timeout", r.Timeout())
		}
		s.change = nil
		s.confKnown = false
		s.learnMembers()
	default:
	}
}

// errDemotion says what dragonboat cannot do.
var errDemotion = fmt.Errorf("a voter cannot become a learner with raft.engine dragonboat")

// ChangeConfiguration begins the first step of a change; see engine.Conductor.
func (e *Engine) ChangeConfiguration(number int, cs engine.Changes) (err error) {
	s := e.shards[number]
	if !s.leading() || s.change != nil || len(cs) == 0 {
		return nil
	}
	c := cs[0]
	if i := slices.IndexFunc(cs, func(c engine.Change) bool { return c.To == engine.Voter }); i >= 0 {
		c = cs[i]
	}
	timeout := e.Timing.Timeout
	switch {
	case c.To == engine.Voter:
		s.adding = true
		s.Lease.CompareAndSwap(engine.LeaseForever, 0) // before anybody else can learn that it may be elected
		s.change, err = e.nh.RequestAddReplica(s.id, c.Replica, target(c.Replica), 0, timeout)
	case c.To == engine.Removed:
		s.change, err = e.nh.RequestDeleteReplica(s.id, c.Replica, 0, timeout)
	case s.conf.Votes(c.Replica):
		return errDemotion
	default:
		s.change, err = e.nh.RequestAddNonVoting(s.id, c.Replica, target(c.Replica), 0, timeout)
	}
	if err != nil {
		s.change = nil
	}
	return err
}

// Replica describes the replica of a shard; see engine.Conductor. A configuration is
// durable as soon as it is known (see logdb), and may be another one while a change is under
// way: what Committed counts already, conf has only when the change has ended.
func (e *Engine) Replica(number int) engine.Replica {
	s := e.shards[number]
	r := engine.Replica{Lost: s.lost, Down: s.isDown, Conf: s.conf}
	if r.ID = s.replicaID.Load(); r.ID == 0 || s.changing {
		r.ID = 0
		return r
	}
	r.Role, r.Applied = s.role(), s.Applied.Load()
	r.Durable, r.Handing, r.NoLease = s.confKnown && s.change == nil, s.transfer.holds(), s.voided && s.leading()
	return r
}

// role is what the replica does in its group.
func (s *shard) role() string {
	switch {
	case s.leading():
		return engine.RoleLeader
	case !s.conf.Votes(s.replicaID.Load()):
		return engine.RoleLearner
	case s.leaderReplica != 0:
		return engine.RoleFollower
	}
	return engine.RoleCandidate
}

// Successors returns the voters that could lead a shard at once.
func (e *Engine) Successors(number int) (voters []uint64) {
	s := e.shards[number]
	for _, id := range s.conf.Voters {
		if id != s.replicaID.Load() && e.CaughtUp(number, id) {
			voters = append(voters, id)
		}
	}
	return voters
}

// CaughtUp reports whether a replica lacks few entries, and no snapshot.
func (e *Engine) CaughtUp(number int, replica uint64) bool {
	s := e.shards[number]
	first, last := e.db.Range(s.id, s.replicaID.Load())
	m := s.matchOf(s.Term.Load(), replica)
	silent := time.Duration(e.Clock.Boot() - m.answered)
	return m.index > 0 && m.index+1 >= first && m.index+caughtUpEntries >= last && silent <= e.rtt*time.Duration(e.electionTicks)
}

// noteMatch takes in that a replica has answered this one as the leader of a term, and what
// it has confirmed: what was confirmed to an earlier leader may be gone. The answer may come
// before changeLeader, and be the only one that confirms anything for a long time. For any
// thread.
func (mb *membership) noteMatch(term, replica, index uint64, now int64) {
	mb.mu.Lock()
	defer mb.mu.Unlock()
	if term < mb.matchesTerm {
		return
	}
	if term > mb.matchesTerm || mb.matches == nil {
		mb.matches, mb.matchesTerm = make(map[uint64]match), term
	}
	mb.matches[replica] = match{max(mb.matches[replica].index, index), now}
}

// matchOf is what a replica has confirmed in a term, zero if nothing. For any thread.
func (mb *membership) matchOf(term, replica uint64) match {
	mb.mu.Lock()
	defer mb.mu.Unlock()
	if term != mb.matchesTerm {
		return match{}
	}
	return mb.matches[replica]
}

// callLearners sends heartbeats to learners that have not answered one for a while.
// dragonboat sends them none while reads wait to be confirmed: where that takes as long as
// an interval of heartbeats, or if a group has shrunk to one voter meanwhile, which no read
// of before is confirmed to any more, a learner would hear nothing. It would not come to be,
// nor would it be sent again what was lost.
func (s *shard) callLearners() {
	e := s.engine
	if len(s.conf.Learners) == 0 || e.pass.ticks < s.calledAt+e.heartbeatTicks {
		return
	}
	s.calledAt = e.pass.ticks
	now, patience := e.Clock.Boot(), int64(2*e.rtt*time.Duration(e.heartbeatTicks))
	for _, id := range s.conf.Learners {
		m := s.matchOf(s.Term.Load(), id)
		if now-m.answered > patience {
			_ = e.wire.Send(placement.NodeOf(id), []pb.Message{{
				Type: pb.Heartbeat, ShardID: s.id, From: s.replicaID.Load(), To: id,
				Term: s.Term.Load(), Commit: min(m.index, s.Applied.Load()),
			}})
		}
	}
}

// noteCommit takes in up to where entries are committed. For any thread.
func (s *shard) noteCommit(index uint64) {
	for {
		known := s.Committed.Load()
		if index <= known || s.Committed.CompareAndSwap(known, index) {
			return
		}
	}
}

// TransferLeadership begins to hand the leadership of a shard over.
func (e *Engine) TransferLeadership(number int, to uint64) {
	s := e.shards[number]
	if !s.leading() || s.transfer.holds() || to == s.replicaID.Load() {
		return
	}
	s.logger.Debug("leadership transfer begins", "to", placement.NodeOf(to))
	s.voidLease()
	s.transfer = transfer{to: to, until: e.pass.ticks + e.electionTicks + 1} // dragonboat gives it up then
	s.continueTransfer()
}

// continueTransfer takes the next step of a transfer, if one is under way.
func (s *shard) continueTransfer() {
	e := s.engine
	t := &s.transfer
	switch {
	case !t.holds():
	case e.pass.ticks >= t.until:
		s.logger.Debug("leadership transfer failed", "to", placement.NodeOf(t.to))
		*t = transfer{}
		s.requeue()
	case !t.asked && (!s.waits() || e.State.Is(engine.Slow)):
		t.asked = e.nh.RequestLeaderTransfer(s.id, t.to) == nil
	}
}
