package etcd

import (
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup/engine"
	"github.com/proa-kv/proa/raftlog"
	"github.com/proa-kv/proa/storage"
)

// readyLoop is the work of all groups of a node, pass by pass. Any thread adds work to
// its schedule; one thread at a time runs a pass, to which all else belongs: what one
// pass has under way, and what the next goes on with.
type readyLoop struct {
	engine   *Engine
	schedule schedule

	passes, fsyncs, fsyncNanos atomic.Uint64

	touched             []*group
	filling, spareWrite *writeSet
	durable             uint64 // number of the last writeSet that is
	applier             *engine.Applier
	applies             []applying // the applier's entries
	deferred            []*group   // have commands that wait for the round under way
	withLarge           []*group   // have large commands, in the order of their turns
	large               largeEntry
	replicating         []*group // have, or had, entries that wait for other nodes
	replicatingSince    int64    // the last entries, on Clock.Boot
	withCommits         []*group // have messages kept back, see group.send
	ticks               uint64
	roundSeq            uint64
}

// applying is a committed entry on its way into the state machine.
type applying struct {
	group       *group
	index, term uint64
	conf        *raftpb.ConfState // that the entry made, nil where it made none
	mark        bool              // the replicas compare their states here
}

// writeSet is a log write with what may be sent when it is durable. One is
// filled by the pass while another is being written.
type writeSet struct {
	loop     *readyLoop
	log      *raftlog.Write
	number   uint64 // one higher than that of the set before
	answers  []answer
	mustSync bool
}

// Pending reports whether a pass has something to do.
func (l *readyLoop) Pending() bool { return l.schedule.due() }

// Acquire makes the caller the one thread that runs the pass; see engine.Committer.
func (l *readyLoop) Acquire() bool { return l.schedule.acquire() }

// Run runs one group commit, which the caller has acquired.
func (l *readyLoop) Run() {
	w := l.Prepare()
	if w != nil {
		w.Sync()
	}
	if l.Deliver(w) {
		l.Release()
	}
}

// Prepare takes in messages, ticks and finished writes, applies what has been
// committed, makes log entries of the queued commands, and sends messages to other
// nodes. With a write to be made durable it has given up the pass.
func (l *readyLoop) Prepare() command.Write {
	if w := l.pass(); w != nil {
		return w
	}
	return nil
}

// Sync makes the write durable: one log write, one fdatasync. The caller does not
// run the pass meanwhile; other threads may, for messages.
func (w *writeSet) Sync() { w.loop.writeLog(w) }

// Deliver applies what Raft has committed since the write is durable, and passes
// outcomes to those who wait for them, unless another thread runs the pass, and does so.
func (l *readyLoop) Deliver(w command.Write) bool {
	if w == nil {
		return true
	}
	if !l.schedule.resume() {
		return false
	}
	l.serve(l.schedule.take(urgentDue))
	l.sendCommits()
	l.noteLeft()
	return true
}

// Release gives up the pass.
func (l *readyLoop) Release() { l.schedule.release() }

// pass does everything there is to do and returns the write that has to be
// made durable, if any. With a write under way it leaves the queues alone:
// what is in them joins one next entry.
func (l *readyLoop) pass() *writeSet {
	l.passes.Add(1)
	writing := l.schedule.writing()
	l.serve(l.schedule.take(urgentDue | commandsDue))
	if l.engine.State.Is(engine.Failed) {
		return nil
	}
	if writing {
		l.sendCommits()
		l.noteLeft()
		return nil
	}
	if err := l.guard(l.proposeAll); err != nil {
		l.engine.host.Fail(err)
		l.abandon()
		return nil
	}
	l.sendCommits()
	return l.takeWrite()
}

// serve takes in messages, finished writes and other work that is due, applies what
// has been committed, and delivers outcomes.
func (l *readyLoop) serve(work uint32) {
	if !l.engine.State.Is(engine.Failed) {
		if err := l.guard(func() error { return l.serveWork(work) }); err != nil {
			l.engine.host.Fail(err)
		}
	}
	if l.engine.State.Is(engine.Failed) {
		l.abandon()
	} else {
		l.engine.Growing.Readmit(l.engine.Store)
	}
}

// guard calls f, and returns the log's failure where f panics because of it: Raft
// knows no other answer to a log that cannot be read.
func (l *readyLoop) guard(f func() error) (err error) {
	defer func() {
		if failure := l.engine.Log.Err(); failure != nil {
			if what := recover(); what != nil {
				l.engine.Logger.Debug("raft cannot continue", "panic", what)
				err = failure
			}
		}
	}()
	return f()
}

func (l *readyLoop) serveWork(work uint32) error {
	l.touched = l.touched[:0]
	if err := l.takeWritten(); err != nil {
		return err
	}
	for _, g := range l.schedule.takeMessages() {
		if err := g.takeInbox(l.engine); err != nil {
			return err
		}
		g.takeReads()
		l.touch(g)
	}
	if work&tickDue != 0 {
		l.tickAll()
	}
	if work&truncateDue != 0 {
		l.truncate()
	}
	l.runPosted()
	return l.processReady()
}

// processReady goes on until the touched groups have nothing ready any more, and
// sends what they have to say.
func (l *readyLoop) processReady() error {
	for again := true; again; {
		again = false
		for _, g := range l.touched {
			g.ask(l.engine)
			if err := g.collect(l.engine); err != nil {
				return err
			}
		}
		l.engine.Transport.Transmit() // before the write: both are under way together
		if err := l.apply(); err != nil {
			return err
		}
		if err := l.respondWithoutWrite(); err != nil {
			return err
		}
		for _, g := range l.touched {
			if err := g.respond(l.engine); err != nil {
				return err
			}
			g.closeRounds(l.engine)
			g.continueTransfer(l.engine)
			again = again || (g.node != nil && g.node.HasReady())
		}
	}
	return nil
}

func (l *readyLoop) sendResponses(w *writeSet) error {
	for i := range w.answers {
		a := &w.answers[i]
		if a.group.node == nil || a.group.id != a.replica {
			continue // the replica has left meanwhile
		}
		if err := a.group.passOn(l.engine, &a.m); err != nil {
			return err
		}
		if k := len(l.touched); k == 0 || l.touched[k-1] != a.group {
			l.touch(a.group)
		}
	}
	clear(w.answers)
	w.answers = w.answers[:0]
	return nil
}

// proposeAll turns the queues into entries and sends them.
func (l *readyLoop) proposeAll() error {
	l.deferred = append(l.deferred, l.schedule.takeCommands()...)
	if !l.engine.Time.Agreed.Load() || l.defers() {
		return nil
	}
	l.engine.Time.Publish() // the machine may have been suspended since the last tick
	if err := l.engine.takeAcross(); err != nil {
		return err
	}
	if len(l.deferred) == 0 && !l.largeDue() {
		return nil
	}
	l.touched = append(l.touched[:0], l.deferred...)
	l.deferred = l.deferred[:0]
	for _, g := range l.touched {
		if err := g.collect(l.engine); err != nil { // so that the indexes of new entries are known
			return err
		}
		if err := g.propose(l.engine); err != nil {
			return err
		}
		g.noteLarge(l.engine)
	}
	if err := l.proposeLarge(); err != nil {
		return err
	}
	l.replicatingSince = l.engine.Clock.Boot()
	return l.processReady()
}

// What is queued while entries are on their way to other nodes waits for them
// to be committed, and goes in one next round, unless it is this much, or they
// take this long. A round costs every node a write, an fsync and a few
// messages; waiting for it costs half a round.
const (
	deferOpsMax   = 256
	deferBytesMax = 256 << 10
	deferMax      = 2 * time.Millisecond
)

// defers reports whether what is queued is to wait for the round under way.
func (l *readyLoop) defers() bool {
	if !l.replicates() || time.Duration(l.engine.Clock.Boot()-l.replicatingSince) > deferMax {
		return false
	}
	for _, g := range l.deferred {
		if g.queue.Holds(deferOpsMax, deferBytesMax) {
			return false
		}
	}
	return true
}

// replicates reports whether entries of this node wait for other nodes.
func (l *readyLoop) replicates() bool {
	l.replicating = slices.DeleteFunc(l.replicating, func(g *group) bool { return len(g.inflight) == 0 || g.state != raft.StateLeader })
	return len(l.replicating) > 0
}

// touch has processReady look at g.
func (l *readyLoop) touch(g *group) { l.touched = append(l.touched, g) }

// takeWrite returns what has been filled if it must be durable now, and begins
// another. Without anything that must be durable it leaves the records to the
// next write.
func (l *readyLoop) takeWrite() *writeSet {
	w := l.filling
	if !w.mustSync {
		return nil
	}
	l.filling = l.spareWrite
	l.filling.number = w.number + 1
	l.spareWrite = nil
	l.schedule.beginWrite()
	return w
}

// writeLog makes a write durable. It is called without the pass.
func (l *readyLoop) writeLog(w *writeSet) {
	start := time.Now()
	err := l.engine.Log.Save(w.log, true)
	took := time.Since(start)
	if err != nil {
		l.engine.host.Fail(err)
	} else {
		l.fsyncNanos.Add(uint64(took))
		l.fsyncs.Add(1)
		l.engine.host.NoteFsync(took)
	}
	l.schedule.addWritten(w)
}

// noteLeft has another pass run if there is something that this one had to
// leave because a write was under way.
func (l *readyLoop) noteLeft() {
	if l.filling.mustSync || len(l.deferred) > 0 || l.engine.acrossDue() || l.largeDue() {
		l.schedule.request(commandsDue)
	}
}

// respondWithoutWrite sends the answers that need no write, because all it waits for is durable.
func (l *readyLoop) respondWithoutWrite() error {
	w := l.filling
	if w.mustSync || len(w.answers) == 0 || l.schedule.writing() {
		return nil
	}
	return l.sendResponses(w)
}

// takeWritten gives Raft, or other nodes, the answers that waited for a write.
func (l *readyLoop) takeWritten() error {
	w := l.schedule.takeWritten()
	if w == nil {
		return nil
	}
	if err := l.sendResponses(w); err != nil {
		return err
	}
	w.mustSync = false
	l.durable = w.number
	l.spareWrite = w
	if l.engine.Log.SizeBytes() > l.engine.Limits.LogBytes {
		// The log may only be cut behind what the state machine holds
		// durably; see flushed and truncate.
		l.engine.host.Flush()
	}
	return nil
}

// apply carries out what has been committed. Outcomes are delivered from within.
func (l *readyLoop) apply() error {
	l.groupParts()
	from := 0
	for i := range l.applies {
		if l.applies[i].mark || i == len(l.applies)-1 {
			if err := l.applyRange(from, i+1); err != nil {
				return err
			}
			from = i + 1
		}
	}
	l.forgetApplies()
	return nil
}

// forgetApplies empties the list; commands that have no outcome get Lost.
func (l *readyLoop) forgetApplies() {
	l.applier.Reset(command.Lost)
	clear(l.applies)
	l.applies = l.applies[:0]
}

// groupParts puts the parts of commands over several shards in front, so that
// they are carried out in one step. They are at the front of their groups' logs;
// those that are not are from before a restart.
func (l *readyLoop) groupParts() {
	front := 0
	for i := range l.applies {
		a := &l.applies[i]
		entry := l.applier.Entry(i)
		if a.index != a.group.at.index+1 || !command.IsPart(entry.Data) {
			continue
		}
		entry.Together = true
		toFront(l.applies[front : i+1])
		l.applier.Advance(i, front)
		front++
	}
}

// toFront moves the last element before the others.
func toFront[T any](s []T) {
	last := s[len(s)-1]
	copy(s[1:], s)
	s[0] = last
}

func (l *readyLoop) applyRange(from, to int) error {
	err := l.applier.Apply(l.engine.Store, from, to)
	if errors.Is(err, storage.ErrDamaged) {
		l.stopDamaged(from, to)
		err = nil
	}
	if err != nil {
		return err
	}
	meta := false
	for i := from; i < to; i++ {
		a := &l.applies[i]
		g := a.group
		if g == nil {
			continue // see stopDamaged
		}
		g.at.index, g.at.term = a.index, a.term
		g.leaseAlone()
		if a.conf != nil {
			g.at.conf = a.conf
		}
		l.applier.Settle(i, command.Lost) // all have theirs
		if a.mark {
			l.engine.host.MarkApplied(g.shard, a.index)
		}
		g.Applied.Store(a.index)
		meta = meta || (g.shard == l.engine.Meta() && len(l.applier.Entry(i).Data) > 0)
		g.noteFresh()
	}
	if meta {
		return l.engine.mapApplied()
	}
	return nil
}

func (l *readyLoop) runPosted() {
	posted := l.schedule.takePosted()
	for _, f := range posted {
		f()
	}
	if len(posted) > 0 {
		l.touched = append(l.touched[:0], l.engine.groups...)
	}
}

// tickAll advances Raft's logical clock and does what is due with it.
func (l *readyLoop) tickAll() {
	l.ticks++
	l.engine.host.KeepTime()
	now := l.engine.Time.Now()
	for _, g := range l.engine.groups {
		g.Keep(l.engine.Store.LastStamp(g.shard), now)
		g.tick(l.engine, now)
	}
	l.touched = append(l.touched[:0], l.engine.groups...)
	l.engine.host.TickCluster()
}

// truncate cuts every group's log behind what the state machine holds durably.
func (l *readyLoop) truncate() {
	for _, g := range l.engine.groups {
		if g.node != nil {
			g.truncate(l.engine)
		}
	}
}

// abandon ends everything that waits: its outcome will not be known here.
// What was only queued definitely did not happen.
func (l *readyLoop) abandon() {
	l.forgetApplies()
	l.schedule.takeCommands()
	l.engine.dropAcross()
	for _, g := range l.engine.groups {
		for _, p := range g.inflight {
			l.applier.Finish(p.done, command.Lost)
		}
		g.inflight = nil
		g.takeAll()
		g.refuseTaken(l.engine)
		g.takeReads()
		g.rounds.restart()
		l.applier.Finish(g.rounds.waiting, command.Dropped)
		g.rounds.waiting = nil
	}
}
