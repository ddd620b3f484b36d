package etcd

import (
	"math"
	"slices"
	"time"

	"go.etcd.io/raft/v3"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup/engine"
)

// Large commands.
//
// A command of several megabytes takes the log as long as thousands of small
// ones, and fills a memtable, which then has to be flushed before
// another is full. If such commands went with all others, everybody would wait
// for each of them. So they queue by themselves: one of a node's goes at a time,
// as an entry of its own, and only when the state machine has room for it. Small
// commands go on past them. One that has waited for longer than its client does
// is taken out: nothing happened.
//
// So a large command and a small one of the same shard may change places. Who
// needs an order waits for the outcome of the first (docs/protocol.md, Order).

// enqueueLarge is enqueue for a large command of size bytes at most. The copy is
// made without the lock: it takes milliseconds.
func (ps *proposals) enqueueLarge(e *Engine, c *command.Command, done engine.Completion, size int) (wake bool, err error) {
	if !ps.queue.RoomForLarge(size, e.Limits) {
		return false, command.ErrBusy
	}
	b := engine.Batch{
		Data: c.AppendTo(command.AppendEntryHeader(make([]byte, 0, command.EntryHeaderBytes+size))),
		Done: []engine.Completion{done},
	}
	if c.PatienceMillis != 0 {
		b.Until = e.Clock.Boot() + int64(c.PatienceMillis)*int64(time.Millisecond)
	}
	return ps.queue.AddLarge(b), nil
}

// dropOverdue takes the large commands out that have waited too long: their outcome
// is Overdue.
func (ps *proposals) dropOverdue(e *Engine) {
	for _, b := range ps.queue.TakeOverdue(e.Clock.Boot()) {
		e.applier.Finish(b.Done, command.Overdue)
	}
}

// takeAll empties all queues into g.taking.
func (ps *proposals) takeAll() {
	ps.take(nil)
	ps.taking = ps.queue.TakeLarge(ps.taking, math.MaxInt)
}

// noteLarge puts g, if it has large commands, on the node's list of those that
// wait for their turn. It comes after take: a command that is queued before take
// says nothing of it (see group.dirty), and is seen here.
func (ps *proposals) noteLarge(e *Engine) {
	if ps.queue.HasLarge() && !ps.listedLarge {
		ps.listedLarge = true
		e.withLarge = append(e.withLarge, ps.group)
	}
}

// largeEntry is the large command that was proposed last.
type largeEntry struct {
	group       *group // nil: none
	index, term uint64
}

// landed reports whether it has been applied, or is another leader's business.
func (e *largeEntry) landed() bool {
	g := e.group
	return g == nil || g.at.index >= e.index || g.node == nil || g.state != raft.StateLeader || g.Term.Load() != e.term
}

// largeDue reports whether a large command can go. Where it only needs room, the
// state machine hurries to make some, and calls flushed.
func (l *readyLoop) largeDue() bool {
	if len(l.withLarge) == 0 || !l.large.landed() {
		return false
	}
	return l.engine.Store.Room(l.withLarge[0].queue.NextLarge())
}

// proposeLarge makes an entry of the large command whose turn it is, if it can
// go: each group's in turn.
func (l *readyLoop) proposeLarge() error {
	for range len(l.withLarge) {
		g := l.withLarge[0]
		g.dropOverdue(l.engine)
		switch {
		case !g.queue.HasLarge():
		case g.node == nil || g.state != raft.StateLeader:
			g.taking = g.queue.TakeLarge(g.taking, math.MaxInt)
			g.refuseTaken(l.engine)
		case g.transfer.holds():
		case !l.largeDue():
			return nil
		default:
			return l.proposeLargeOf(g)
		}
		l.rotateLarge()
	}
	return nil
}

func (l *readyLoop) proposeLargeOf(g *group) error {
	if err := g.collect(l.engine); err != nil { // so that the index is known
		return err
	}
	if g.node == nil || g.state != raft.StateLeader {
		return nil // it has changed just now, and its queues are empty
	}
	g.taking = g.queue.TakeLarge(g.taking, 1)
	_ = g.proposeTaken(l.engine) // those who were refused have their outcome
	l.rotateLarge()
	if k := len(g.inflight); k > 0 && g.inflight[k-1].index == g.last+1 {
		l.large = largeEntry{g, g.last + 1, g.Term.Load()}
	}
	if !slices.Contains(l.touched, g) {
		l.touch(g)
	}
	return nil
}

// rotateLarge takes the first group off the list.
func (l *readyLoop) rotateLarge() {
	g := l.withLarge[0]
	l.withLarge = slices.Delete(l.withLarge, 0, 1)
	g.listedLarge = false
	g.noteLarge(l.engine)
}
