package dragonboat

import (
	"cmp"
	"encoding/binary"
	"errors"
	"log/slog"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lni/dragonboat/v4"
	"github.com/lni/dragonboat/v4/client"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup/engine"
)

// shard is one shard on this node. It exists for every shard of the cluster; a replica
// need not be here. Its parts own what they need for themselves; each knows the shard, of
// which its methods are a part.
type shard struct {
	engine      *Engine
	number      int
	id          uint64 // dragonboat's number of it
	logger      *slog.Logger
	engine.View // for any thread

	proposals
	reads
	replica
	membership
}

func newShard(e *Engine, number int) *shard {
	s := &shard{engine: e, number: number, id: shardID(number), logger: e.ShardLogger(number)}
	s.proposals.shard, s.reads.shard, s.replica.shard, s.membership.shard = s, s, s, s
	s.reads.wanted = make(chan struct{}, 1)
	s.pending = s.pendingChanges
	return s
}

// dragonboat's shards count from 1.
func shardID(number int) uint64 { return uint64(number) + 1 }

// proposals has a shard's commands on their way from the queue to the state machine.
type proposals struct {
	shard *shard
	queue engine.Queue

	// Belongs to the conductor.
	taking      []engine.Batch
	session     *client.Session
	listedLarge bool // on the pass's list of shards with large commands
	sweeping    atomic.Bool

	mu       sync.Mutex
	last     uint64 // number of the last proposal
	inflight []*proposed
}

// proposed is a proposal without an outcome so far.
type proposed struct {
	number uint64
	tick   uint64 // when
	term   uint64
	bytes  int
	done   []engine.Completion
	state  *dragonboat.RequestState // nil: dragonboat has not taken it yet
	ended  atomic.Bool
}

// nameBytes is the length of what stands behind the commands of a proposal and says whose
// it is: the number of a start of a node, and that of the proposal.
const nameBytes = 16

// appendName names a proposal.
func appendName(dst []byte, start, number uint64) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, start)
	return binary.LittleEndian.AppendUint64(dst, number)
}

// errUnnamed says that an entry is too short to be a proposal of an engine.
var errUnnamed = errors.New("an entry has no name")

// cutName takes the name off a proposal.
func cutName(cmd []byte) (entry []byte, start, number uint64, err error) {
	at := len(cmd) - nameBytes
	if at < 0 {
		return nil, 0, 0, errUnnamed
	}
	return cmd[:at:at], binary.LittleEndian.Uint64(cmd[at:]), binary.LittleEndian.Uint64(cmd[at+8:]), nil
}

// enqueue copies c into the queue. It returns whether the pass has to be notified.
func (ps *proposals) enqueue(c *command.Command, done engine.Completion) (wake bool, err error) {
	lim := ps.shard.engine.Limits
	size := c.EncodedBytesMax()
	switch {
	case size > lim.EntryBytes:
		return false, command.ErrTooLarge
	case size <= engine.LargeBytes:
		return ps.queue.Add(c, size, done, lim)
	case !ps.queue.RoomForLarge(size, lim):
		return false, command.ErrBusy
	}
	b := engine.Batch{
		Data: c.AppendTo(command.AppendEntryHeader(make([]byte, 0, command.EntryHeaderBytes+size+nameBytes))),
		Done: []engine.Completion{done},
	}
	if c.PatienceMillis != 0 {
		b.Until = ps.shard.engine.Clock.Boot() + int64(c.PatienceMillis)*int64(time.Millisecond)
	}
	return ps.queue.AddLarge(b), nil
}

// propose turns the queue into proposals.
func (ps *proposals) propose() {
	if ps.shard.transfer.holds() {
		return // the queue goes to the next leader, or goes on here; see requeue
	}
	ps.taking = ps.queue.Take(ps.taking[:0], nil)
	for i := range ps.taking {
		ps.proposeBatch(ps.taking[i])
	}
	clear(ps.taking)
}

// proposeBatch makes a proposal. It returns nil where that was refused, which those who
// wait know then.
func (ps *proposals) proposeBatch(b engine.Batch) *proposed {
	s := ps.shard
	if !s.Leads.Load() || s.user == nil {
		ps.refuse([]engine.Batch{b})
		return nil
	}
	stamp := s.Now(s.engine.Time.Now())
	command.SealEntry(b.Data, cmp.Or(b.Stamp, stamp), len(b.Done))
	s.LastStamp.Store(max(stamp, s.LastStamp.Load()))
	return ps.submit(b.Data, b.Done)
}

// touch proposes an entry without commands: what was committed before is applied with it.
func (ps *proposals) touch() {
	if s := ps.shard; s.Leads.Load() && s.user != nil {
		ps.submit(nil, nil)
	}
}

// submit hands a proposal to dragonboat.
func (ps *proposals) submit(data []byte, done []engine.Completion) *proposed {
	s := ps.shard
	p := &proposed{tick: s.engine.pass.ticks, term: s.Term.Load(), bytes: len(data), done: done}
	ps.mu.Lock()
	ps.last++
	p.number = ps.last
	ps.inflight = append(ps.inflight, p)
	ps.mu.Unlock()
	data = appendName(data, s.engine.start, p.number)
	state, err := s.user.Propose(ps.session, data, s.engine.Timing.Timeout)
	ps.queue.Reuse(data, nil) // dragonboat has copied it
	ps.mu.Lock()
	p.state = state
	ps.mu.Unlock()
	if err != nil && ps.remove(p) {
		s.engine.finish(p.done, command.Dropped) // it was not taken
		p.ended.Store(true)
		return nil
	}
	return p
}

// resolve returns what waits for the proposal of a number, if it was made here.
func (ps *proposals) resolve(number uint64) *proposed {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for i, p := range ps.inflight {
		if p.number == number {
			ps.inflight = slices.Delete(ps.inflight, i, i+1)
			return p
		}
	}
	return nil
}

// remove takes p from what is in flight, and reports whether it was there.
func (ps *proposals) remove(p *proposed) bool { return ps.resolve(p.number) == p }

// expire ends the wait for proposals of which dragonboat knows that nothing will come, and
// for those that have been under way for too long. Those of a term that has ended may be
// in the log of the next leader: they are given the time of an election to be committed, and
// large ones a tick more for each MiB.
func (ps *proposals) expire() {
	s := ps.shard
	var ended []*proposed
	var outcomes []command.Outcome
	ps.mu.Lock()
	ps.inflight = slices.DeleteFunc(ps.inflight, func(p *proposed) bool {
		outcome := ps.outcome(p, s.engine.pass.ticks, s.Term.Load())
		if outcome == command.Applied {
			return false
		}
		ended, outcomes = append(ended, p), append(outcomes, outcome)
		return true
	})
	ps.mu.Unlock()
	for i, p := range ended {
		p.ended.Store(true)
		s.engine.finish(p.done, outcomes[i])
	}
}

// outcome returns what is to be told of a proposal that has not been applied; Applied if
// nothing is. ps.mu must be held.
func (ps *proposals) outcome(p *proposed, tick, term uint64) command.Outcome {
	e := ps.shard.engine
	if p.state == nil {
		return command.Applied
	}
	select {
	case r := <-p.state.ResultC():
		switch {
		case r.Completed(): // it is on its way from the state machine
		case r.Dropped(), r.Rejected():
			return command.Dropped
		default:
			return command.TimedOut
		}
	default:
	}
	age := tick - p.tick
	if age > e.requestTicks || p.term != term && age > e.electionTicks+uint64(p.bytes>>20) {
		return command.TimedOut
	}
	return command.Applied
}

// endAll ends the wait for all proposals.
func (ps *proposals) endAll(o command.Outcome) {
	ps.mu.Lock()
	all := ps.inflight
	ps.inflight = nil
	ps.mu.Unlock()
	for _, p := range all {
		p.ended.Store(true)
		ps.shard.engine.finish(p.done, o)
	}
}

// inflightMax bounds a shard's proposals under way. What is queued meanwhile goes in one: on
// a slow disk, or to distant nodes, each costs dragonboat several times what one more command
// in it does, and it refuses some where they are too many.
const inflightMax = 16

// full reports whether as many proposals are under way as may be.
func (ps *proposals) full() bool {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	return len(ps.inflight) >= inflightMax
}

// waits reports whether proposals are under way.
func (ps *proposals) waits() bool {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	return len(ps.inflight) > 0
}

// refuse tells those who wait that their commands had no effect and never will.
func (ps *proposals) refuse(batches []engine.Batch) {
	for i := range batches {
		ps.shard.engine.finish(batches[i].Done, command.Dropped)
	}
}

// refuseQueued empties the queues: what is queued goes to the new leader, by way of the
// client.
func (ps *proposals) refuseQueued() {
	ps.refuse(ps.queue.Take(nil, nil))
	ps.refuse(ps.queue.TakeLarge(nil, math.MaxInt))
}

// requeue has the next pass look at commands that a transfer has held up.
func (ps *proposals) requeue() {
	if ps.queue.IsListed() {
		ps.shard.engine.addCommands(ps.shard)
	}
}

// noteLarge puts the shard, if it has large commands, on the list of those that wait for
// their turn.
func (ps *proposals) noteLarge() {
	if p := &ps.shard.engine.pass; ps.queue.HasLarge() && !ps.listedLarge {
		ps.listedLarge = true
		p.withLarge = append(p.withLarge, ps.shard)
	}
}

// dropOverdue takes the large commands out that have waited too long.
func (ps *proposals) dropOverdue() {
	for _, b := range ps.queue.TakeOverdue(ps.shard.engine.Clock.Boot()) {
		ps.shard.engine.finish(b.Done, command.Overdue)
	}
}

// sweepRows bounds the rows one Sweep removes, and so the pause it makes.
const sweepRows = 1000

// sweep proposes the removal of rows and sessions whose time has come.
func (ps *proposals) sweep(now uint64) {
	s := ps.shard
	if !s.engine.Store.SweepDue(s.number, s.Now(now)) || !ps.sweeping.CompareAndSwap(false, true) {
		return
	}
	sweep := s.engine.Store.SweepCommand(sweepRows)
	wake, err := ps.enqueue(&sweep, engine.Completion{Sink: (*sweeper)(ps)})
	if err != nil {
		ps.sweeping.Store(false)
	}
	if wake {
		s.engine.addCommands(s)
	}
}

// sweeper hears that a sweep has been carried out.
type sweeper proposals

// Complete allows the next sweep.
func (s *sweeper) Complete(command.Tag, command.Outcome, *command.Result) { s.sweeping.Store(false) }

// tick is one step of the shard's time.
func (s *shard) tick(now uint64) {
	if !s.runs.Load() {
		s.Leader.Store(s.engine.host.LeaderOf(s.number))
		return
	}
	s.watchLeader()
	s.expire()
	s.dropOverdue()
	s.continueTransfer()
	s.learnMembers()
	if s.doubtful {
		s.breakDown()
	}
	if s.Leads.Load() {
		s.sweep(now)
		s.catchUp()
	}
	s.renew()
	if s.leading() { // one that is out of use too: it brings the group where another can lead
		s.callLearners()
		s.reconcile()
	}
}

// catchUp has the state machine see the last entry of the log, where that is one that is
// none of its business: the first of a term, or a change of the configuration. Reads
// compare its index with what other replicas have been told (raftgroup.Node.current).
func (s *shard) catchUp() {
	if !s.waits() && s.engine.Store.Applied(s.number) < s.Announced.Load() {
		s.touch()
	}
}
