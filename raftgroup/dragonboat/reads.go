package dragonboat

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup/engine"
)

// # Reads that are not older than anything acknowledged
//
// A round asks a majority whether this replica's leader still leads, and ends when the
// replica has applied what was committed then (dragonboat's ReadIndex). One is under way at
// a time; reads that come meanwhile share the next. On a leader a round also makes a lease:
// until it ends no other leader can be elected, and reads are answered at once.
//
// Why the lease is safe (R2). A voter that has answered a heartbeat of the round, at any
// moment after the round began, grants no vote until its clock has ticked electionTicks
// times, unless the leader itself has asked for it (a transfer): CheckQuorum. dragonboat's
// ticks come from one ticker and are queued with the messages, in order, so those that a
// stalled node catches up with in a bunch were due before the heartbeat came. Two ticks are
// taken off: the first may have been due already, the last may come early by as much as the
// one before was late. The drift that is allowed for comes off too. A voter that restarts
// has forgotten its promise: this node's keeps requests for votes out for as long as a
// lease can last (messages.go). A leader that hands its leadership over has no lease for
// the rest of the term. A leader counts itself among those that promise; it votes for
// another only after it has stepped down, and the first message that says so ends the lease
// before it is sent (noteTerm). A round that ended after the replica has stepped down may
// have been the next leader's, and makes no lease. A leader that is the only voter needs no majority: its lease ends
// before it asks for another voter (membership.go), and lasts forever otherwise.
//
// The lease is looked at after the value has been read (raftgroup.Node.ReadCached).

// reads has those who wait for a round of a shard. Its fields up to the blank line may be
// used by any thread.
type reads struct {
	shard  *shard
	wanted chan struct{} // capacity 1: somebody waits, or the lease is to be renewed
	spoken atomic.Uint64 // the highest term of a message that this replica has sent
	mu     sync.Mutex
	list   []engine.Completion

	// Belong to the conductor.
	renewed uint64 // tick of the last round that was asked for the lease's sake
	voided  bool   // no lease in this term any more
}

// add adds a read that waits for a round. The error is ErrBusy.
func (r *reads) add(done engine.Completion) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.list) >= r.shard.engine.Limits.QueueOps {
		return command.ErrBusy
	}
	r.list = append(r.list, done)
	r.ask()
	return nil
}

// ask has a round begin.
func (r *reads) ask() {
	select {
	case r.wanted <- struct{}{}:
	default:
	}
}

func (r *reads) take() []engine.Completion {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := r.list
	r.list = nil
	return list
}

// drop tells those who wait that there will be no round.
func (r *reads) drop() { r.shard.engine.finish(r.take(), command.Dropped) }

// run asks, round by round, until ctx ends.
func (r *reads) run(ctx context.Context) {
	e := r.shard.engine
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.wanted:
		}
		waiting, replica := r.take(), r.shard.replicaID.Load()
		sent, term, confirmed := r.round(ctx)
		outcome := command.Dropped
		if confirmed {
			outcome = command.Applied
		}
		led := term != 0 && r.leads() == term // else the round was the next leader's
		e.post(func() {
			if confirmed && r.shard.replicaID.Load() == replica {
				r.shard.Fresh.Store(max(r.shard.Fresh.Load(), sent))
				if led {
					r.lease(sent, term)
				}
			}
			e.finish(waiting, outcome)
		})
		e.host.Drive()
	}
}

// leads returns the term that the replica here leads by what dragonboat says, 0 if it does
// not. It says so before it acts as a follower.
func (r *reads) leads() uint64 {
	leader, term, known, err := r.shard.engine.nh.GetLeaderID(r.shard.id)
	if err != nil || !known || leader != r.shard.replicaID.Load() {
		return 0
	}
	return term
}

// round asks until an answer has come and the replica is as new, for as long as it may take
// to find another leader. It returns when it began to ask for the answer, in which term this
// replica led then, and whether there is one.
//
// What is lost as the leadership changes hands, or comes to a leader that has committed
// nothing yet, is not answered at all, so it is asked again: after an interval of heartbeats
// at first.
func (r *reads) round(ctx context.Context) (sent int64, term uint64, confirmed bool) {
	e := r.shard.engine
	end := e.Clock.Boot() + int64(2*e.rtt*time.Duration(e.electionTicks))
	for patience := e.rtt * time.Duration(e.heartbeatTicks); ; patience *= 2 {
		sent, term = e.Clock.Boot(), r.leads()
		left := time.Duration(end - sent)
		if left <= 0 || !r.shard.Held.Load() {
			return sent, term, false
		}
		if r.confirm(max(min(patience, left), e.rtt)) {
			return sent, term, true
		}
		select {
		case <-ctx.Done():
			return sent, term, false
		case <-time.After(e.rtt): // there may have been no leader to ask
		}
	}
}

// confirm asks once.
func (r *reads) confirm(patience time.Duration) bool {
	e := r.shard.engine
	state, err := e.nh.ReadIndex(r.shard.id, patience)
	if err != nil {
		return false
	}
	result := <-state.ResultC()
	state.Release()
	return result.Completed() && !e.failed()
}

// lease takes in that a round that began at a moment, in a term that this replica led, has
// been answered. For the conductor.
func (r *reads) lease(sent int64, term uint64) {
	s := r.shard
	if term != s.Term.Load() {
		return
	}
	switch {
	case !s.Leads.Load() || r.voided:
	case s.conf.OnlyVoter(s.replicaID.Load()) && !s.adding:
		s.Lease.Store(engine.LeaseForever)
	case s.confKnown:
		s.Lease.Store(sent + s.engine.leaseNanos)
	}
	if s.spoken.Load() > term {
		s.Lease.Store(0) // see noteTerm
	}
}

// noteTerm takes in the term of a message before it is sent. One of a later term than that
// of the lease says that the replica here has stepped down, and may have voted: whoever
// hears it may do what the lease rules out.
func (s *shard) noteTerm(term uint64) {
	for {
		known := s.spoken.Load()
		if term <= known {
			return
		}
		if s.spoken.CompareAndSwap(known, term) {
			break
		}
	}
	if term > s.Term.Load() {
		s.Lease.Store(0)
	}
}

// voidLease ends the lease for the rest of the term.
func (r *reads) voidLease() {
	r.voided = true
	r.shard.Lease.Store(0)
}

// renew asks for a round where the lease needs one, and where the replica is to know how
// old it is (View.Fresh): that of a leader by its lease, that of a follower whenever stale
// reads have asked for it, and rarely otherwise, since each round costs messages of all
// replicas.
func (r *reads) renew() {
	const rarely = 8
	e, s := r.shard.engine, r.shard
	interval := e.heartbeatTicks
	switch {
	case !s.Held.Load(), s.Lease.Load() == engine.LeaseForever:
		return
	case s.Leads.Load() && !r.voided, s.Fresh.Load() == 0:
	case !s.Aged.Load():
		interval *= rarely
	}
	if e.pass.ticks < r.renewed+interval {
		return
	}
	r.renewed = e.pass.ticks
	s.Aged.Store(false)
	r.ask()
}
