package raftgroup

import (
	"errors"
	"slices"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftlog"
	"github.com/proa-kv/proa/storage"
)

// applying is a committed entry on its way into the state machine.
type applying struct {
	group       *group
	index, term uint64
	data        []byte
	conf        *raftpb.ConfState // that the entry made, nil where it made none
	confBytes   []byte
	alone       bool         // no other replica carries it out
	mark        bool         // the replicas compare their states here
	done        []completion // nil where the entry was proposed elsewhere or before a restart
}

// writeSet is a log write with what may be told when it is durable. One is
// filled by the pass while another is being written.
type writeSet struct {
	node     *Node
	log      *raftlog.Write
	number   uint64 // one higher than that of the set before
	answers  []answer
	mustSync bool
}

// Pending reports whether a pass has something to do.
func (n *Node) Pending() bool { return n.schedule.due() }

// Acquire makes the caller the one thread that runs the pass, if there is
// something to do and no other thread does it. While the log is written commands
// wait, to join one next entry; messages do not. After true the caller must call
// Prepare, as in Run. After false nothing need be done: the thread that runs the
// pass, or writes the log, will see what is due.
func (n *Node) Acquire() bool { return n.schedule.acquire() }

// Run runs one commit, which the caller has acquired, for a node whose outcomes
// need no further step; a server puts its own steps between (server.Server.commit).
// The caller should then try Acquire again: what became due during the commit found
// nobody to run it.
func (n *Node) Run() {
	w := n.Prepare()
	if w != nil {
		w.Sync()
	}
	if n.Deliver(w) {
		n.Release()
	}
}

// Prepare takes in messages, ticks and finished writes, applies what has been
// committed, makes log entries of the queued commands, and sends messages to other
// nodes. It returns the write of the log that must be made durable, having given up
// the pass; or nil, and the caller still runs the pass.
func (n *Node) Prepare() command.Write {
	if w := n.pass(); w != nil {
		return w
	}
	return nil
}

// Sync makes the write durable: one log write, one fdatasync. The caller does not
// run the pass meanwhile; other threads may, for messages.
func (w *writeSet) Sync() { w.node.commit(w) }

// Deliver applies what Raft has committed since the write is durable, and passes
// outcomes to those who wait for them. It returns true if the caller runs the pass,
// also without a write, and must call Release: commands that arrive while replies
// are written then join one next entry, instead of several small ones. Otherwise
// another thread runs the pass, and delivers.
func (n *Node) Deliver(w command.Write) bool {
	if w == nil {
		return true
	}
	if !n.schedule.resume() {
		return false
	}
	n.serve(n.schedule.take(urgentDue))
	n.sendCommits()
	n.noteLeft()
	return true
}

// Release gives up the pass.
func (n *Node) Release() { n.schedule.release() }

// Kick has the node's own driver run a pass, for callers that must not block.
func (n *Node) Kick() {
	select {
	case n.kick <- struct{}{}:
	default:
	}
}

// post has f called by the next pass.
func (n *Node) post(f func()) {
	n.schedule.addPosted(f)
	n.Kick()
}

// pass does everything there is to do and returns the write that has to be
// made durable, if any. With a write under way it leaves the queues alone:
// what is in them joins one next entry.
func (n *Node) pass() *writeSet {
	n.passes.Add(1)
	writing := n.schedule.writing()
	n.serve(n.schedule.take(urgentDue | commandsDue))
	if n.state.is(failed) {
		return nil
	}
	if writing {
		n.sendCommits()
		n.noteLeft()
		return nil
	}
	if err := n.guard(n.proposeAll); err != nil {
		n.fail(err)
		n.abandon()
		return nil
	}
	n.sendCommits()
	return n.takeWrite()
}

// serve takes in messages, finished writes and other work that is due, applies what
// has been committed, and delivers outcomes.
func (n *Node) serve(work uint32) {
	if !n.state.is(failed) {
		if err := n.guard(func() error { return n.serveWork(work) }); err != nil {
			n.fail(err)
		}
	}
	if n.state.is(failed) {
		n.abandon()
	} else {
		n.readmit()
	}
}

// guard calls f, and returns the log's failure where f panics because of it: Raft
// knows no other answer to a log that cannot be read.
func (n *Node) guard(f func() error) (err error) {
	defer func() {
		if failure := n.log.Err(); failure != nil {
			if what := recover(); what != nil {
				n.logger.Debug("raft cannot continue", "panic", what)
				err = failure
			}
		}
	}()
	return f()
}

func (n *Node) serveWork(work uint32) error {
	n.touched = n.touched[:0]
	if err := n.takeWritten(); err != nil {
		return err
	}
	for _, g := range n.schedule.takeMessages() {
		if err := g.takeInbox(n); err != nil {
			return err
		}
		g.takeReads()
		n.touch(g)
	}
	if work&tickDue != 0 {
		n.tickAll()
	}
	if work&truncateDue != 0 {
		n.truncate()
	}
	n.runPosted()
	return n.processReady()
}

// processReady goes on until the touched groups have nothing ready any more, and
// sends what they have to say.
func (n *Node) processReady() error {
	for again := true; again; {
		again = false
		for _, g := range n.touched {
			g.ask(n)
			if err := g.collect(n); err != nil {
				return err
			}
		}
		n.transport.Flush() // before the write: both are under way together
		if err := n.apply(); err != nil {
			return err
		}
		if err := n.respondWithoutWrite(); err != nil {
			return err
		}
		for _, g := range n.touched {
			if err := g.respond(n); err != nil {
				return err
			}
			g.closeRounds(n)
			g.continueTransfer(n)
			again = again || (g.node != nil && g.node.HasReady())
		}
	}
	return nil
}

func (n *Node) sendResponses(w *writeSet) error {
	for i := range w.answers {
		a := &w.answers[i]
		if a.group.node == nil || a.group.id != a.replica {
			continue // the replica has left meanwhile
		}
		if err := a.group.tell(n, &a.m); err != nil {
			return err
		}
		if k := len(n.touched); k == 0 || n.touched[k-1] != a.group {
			n.touch(a.group)
		}
	}
	clear(w.answers)
	w.answers = w.answers[:0]
	return nil
}

// proposeAll turns the queues into entries and sends them.
func (n *Node) proposeAll() error {
	n.deferred = append(n.deferred, n.schedule.takeCommands()...)
	if n.awaitsTime() || n.defers() {
		return nil
	}
	n.time.publish() // the machine may have been suspended since the last tick
	if err := n.takeAcross(); err != nil {
		return err
	}
	if len(n.deferred) == 0 && !n.largeDue() {
		return nil
	}
	n.touched = append(n.touched[:0], n.deferred...)
	n.deferred = n.deferred[:0]
	for _, g := range n.touched {
		if err := g.collect(n); err != nil { // so that the indexes of new entries are known
			return err
		}
		if err := g.propose(n); err != nil {
			return err
		}
		g.noteLarge(n)
	}
	if err := n.proposeLarge(); err != nil {
		return err
	}
	n.replicatingSince = n.clock.Boot()
	return n.processReady()
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
func (n *Node) defers() bool {
	if !n.replicates() || time.Duration(n.clock.Boot()-n.replicatingSince) > deferMax {
		return false
	}
	for _, g := range n.deferred {
		if g.queue.holds(deferOpsMax, deferBytesMax) {
			return false
		}
	}
	return true
}

// replicates reports whether entries of this node wait for other nodes.
func (n *Node) replicates() bool {
	n.replicating = slices.DeleteFunc(n.replicating, func(g *group) bool { return len(g.inflight) == 0 || g.state != raft.StateLeader })
	return len(n.replicating) > 0
}

// touch has processReady look at g.
func (n *Node) touch(g *group) { n.touched = append(n.touched, g) }

// takeWrite returns what has been filled if it must be durable now, and begins
// another. Without anything that must be durable it leaves the records to the
// next write.
func (n *Node) takeWrite() *writeSet {
	w := n.filling
	if !w.mustSync {
		return nil
	}
	n.filling = n.spareWrite
	n.filling.number = w.number + 1
	n.spareWrite = nil
	n.schedule.beginWrite()
	return w
}

// commit makes a write durable. It is called without the pass.
func (n *Node) commit(w *writeSet) {
	start := time.Now()
	err := n.log.Commit(w.log, true)
	took := time.Since(start)
	if err != nil {
		n.fail(err)
	} else {
		n.fsyncNanos.Add(uint64(took))
		n.fsyncs.Add(1)
		n.noteFsync(took)
	}
	n.schedule.addWritten(w)
}

// noteLeft has another pass run if there is something that this one had to
// leave because a write was under way.
func (n *Node) noteLeft() {
	if n.filling.mustSync || len(n.deferred) > 0 || n.acrossDue() || n.largeDue() {
		n.schedule.request(commandsDue)
	}
}

// respondWithoutWrite tells what needs no write, because all it waits for is durable.
func (n *Node) respondWithoutWrite() error {
	w := n.filling
	if w.mustSync || len(w.answers) == 0 || n.schedule.writing() {
		return nil
	}
	return n.sendResponses(w)
}

// takeWritten tells Raft, or other nodes, what waited for a write.
func (n *Node) takeWritten() error {
	w := n.schedule.takeWritten()
	if w == nil {
		return nil
	}
	if err := n.sendResponses(w); err != nil {
		return err
	}
	w.mustSync = false
	n.durable = w.number
	n.spareWrite = w
	if n.log.SizeBytes() > n.lim.logBytes {
		// The log may only be cut behind what the state machine holds
		// durably; see flushed and truncate.
		n.flushState()
	}
	return nil
}

func (n *Node) addApply(a applying) {
	n.applies = append(n.applies, a)
	n.entries = append(n.entries, storage.Entry{Shard: a.group.shard, Index: a.index, Data: a.data, Conf: a.confBytes, Term: a.term, Alone: a.alone})
}

// apply carries out what has been committed. Outcomes are delivered by
// Deliver, below, from within store.Apply.
func (n *Node) apply() error {
	n.groupParts()
	from := 0
	for i := range n.applies {
		if n.applies[i].mark || i == len(n.applies)-1 {
			if err := n.applyRange(from, i+1); err != nil {
				return err
			}
			from = i + 1
		}
	}
	clear(n.applies)
	clear(n.entries)
	n.applies, n.entries = n.applies[:0], n.entries[:0]
	return nil
}

// groupParts puts the parts of commands over several shards in front, so that
// they are carried out in one step. They are at the front of their groups' logs;
// those that are not are from before a restart.
func (n *Node) groupParts() {
	front := 0
	for i := range n.applies {
		a := &n.applies[i]
		if a.index != a.group.at.index+1 || !command.IsPart(a.data) {
			continue
		}
		n.entries[i].Together = true
		toFront(n.applies[front : i+1])
		toFront(n.entries[front : i+1])
		front++
	}
}

// toFront moves the last element before the others.
func toFront[T any](s []T) {
	last := s[len(s)-1]
	copy(s[1:], s)
	s[0] = last
}

func (n *Node) applyRange(from, to int) error {
	n.applyBase = from
	n.applyCalls++
	err := n.store.Apply(n.entries[from:to], (*deliverer)(n))
	if errors.Is(err, storage.ErrDamaged) {
		n.stopDamaged(from, to)
		err = nil
	}
	if err != nil {
		return err
	}
	meta := false
	for i := from; i < to; i++ {
		a := &n.applies[i]
		g := a.group
		if g == nil {
			continue // see stopDamaged
		}
		g.at.index, g.at.term = a.index, a.term
		g.leaseAlone()
		if a.conf != nil {
			g.at.conf = a.conf
		}
		if a.done != nil {
			n.putBack(a.done)
			a.done = nil
		}
		if a.mark {
			g.takeMark(n)
		}
		g.marks.passed.Store(a.index)
		meta = meta || (g.shard == n.meta() && len(a.data) > 0)
		g.noteFresh()
	}
	if meta {
		return n.refreshMap()
	}
	return nil
}

// deliverer is the Node as the state machine sees it.
type deliverer Node

// Deliver passes the outcome of one command on to whoever proposed it.
func (d *deliverer) Deliver(entry, cmd int, r *command.Result) {
	a := &d.applies[d.applyBase+entry]
	if a.alone && a.done == nil {
		d.replayDamaged += damagedOps(r)
	}
	if cmd >= len(a.done) {
		return
	}
	a.group.applying = a.index
	c := &a.done[cmd]
	c.sink.Complete(c.tag, command.Applied, r)
	c.sink = nil // heard; see abandon
}

// finish tells completions an outcome other than Applied.
func (n *Node) finish(done []completion, o command.Outcome) {
	if len(done) == 0 {
		return
	}
	for i := range done {
		if done[i].sink != nil {
			done[i].sink.Complete(done[i].tag, o, nil)
		}
	}
	n.putBack(done)
}

// putBack keeps a slice of completions for a later batch; recycle hands it out.
func (n *Node) putBack(d []completion) {
	clear(d)
	if len(n.spares) < 4*len(n.groups) {
		n.spares = append(n.spares, d[:0])
	}
}

func (n *Node) recycle() []completion {
	if len(n.spares) == 0 {
		return nil
	}
	d := n.spares[len(n.spares)-1]
	n.spares = n.spares[:len(n.spares)-1]
	return d
}

func (n *Node) runPosted() {
	posted := n.schedule.takePosted()
	for _, f := range posted {
		f()
	}
	if len(posted) > 0 {
		n.touched = append(n.touched[:0], n.groups...)
	}
}

// tickAll advances Raft's logical clock and does what is due with it.
func (n *Node) tickAll() {
	n.ticks++
	n.keepTime()
	now := n.time.now()
	for _, g := range n.groups {
		g.keepTime(n, now)
		g.tick(n, now)
	}
	n.touched = append(n.touched[:0], n.groups...)
	n.watchDisk()
	n.tickCluster()
}

// tick is one step of the group's time.
func (g *group) tick(n *Node, now uint64) {
	if g.node == nil {
		g.tickAbsent(n)
		return
	}
	g.node.Tick()
	if g.leader.Load() == 0 {
		if g.leaderless++; g.leaderless == 2*n.electionTicks {
			g.loseQuorum(n)
		}
	}
	if before := n.ticks - min(n.ticks, n.requestTicks); before > 0 {
		g.expireInflight(n, before)
	}
	g.dropOverdue(n)
	if g.leads.Load() {
		g.sweep(n, now)
	}
	if g.leads.Load() || g.leadsBroken() {
		g.reconcile(n)
	}
}

// loseQuorum says that the shard has had no leader for so long that it will
// not have one soon.
func (g *group) loseQuorum(n *Node) {
	g.noQuorum.Store(true)
	for _, p := range g.inflight {
		n.finish(p.done, command.TimedOut)
	}
	g.inflight = nil
}

// sweep proposes the removal of rows and sessions whose time has come.
func (g *group) sweep(n *Node, now uint64) {
	if g.sweeping || !n.store.SweepDue(g.shard, g.now(now)) {
		return
	}
	g.sweeping = true
	sweep := n.store.SweepCommand(sweepRows)
	wake, err := g.enqueue(n, &sweep, completion{sink: (*sweeper)(g)})
	if err != nil {
		g.sweeping = false
	}
	if wake {
		n.schedule.addCommands(g)
	}
}

// sweeper hears that a sweep has been carried out.
type sweeper group

// Complete allows the next sweep.
func (s *sweeper) Complete(command.Tag, command.Outcome, *command.Result) { s.sweeping = false }

// truncate cuts every group's log behind what the state machine holds durably.
func (n *Node) truncate() {
	for _, g := range n.groups {
		if g.node != nil {
			g.truncate(n)
		}
	}
}

// abandon tells everything that waits that its outcome will not be known here.
// What was only queued definitely did not happen.
func (n *Node) abandon() {
	for i := range n.applies {
		n.finish(n.applies[i].done, command.Lost)
	}
	clear(n.applies)
	n.applies, n.entries = n.applies[:0], n.entries[:0]
	n.schedule.takeCommands()
	n.dropAcross()
	for _, g := range n.groups {
		for _, p := range g.inflight {
			n.finish(p.done, command.Lost)
		}
		g.inflight = nil
		g.takeAll()
		g.refuseTaken(n)
		g.takeReads()
		g.rounds.restart()
		n.finish(g.rounds.waiting, command.Dropped)
		g.rounds.waiting = nil
	}
}
