package raftgroup

import (
	"time"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/storage"
)

// applying is a committed entry on its way into the state machine.
type applying struct {
	group *group
	index uint64
	data  []byte
	done  []completion // nil where the entry was proposed elsewhere or before a restart
}

// Pending reports whether a pass has something to do.
func (n *Node) Pending() bool { return n.pending.Load() }

// Acquire makes the caller the one thread that runs passes, if there is
// something to do and no other thread is at it. After true the caller must
// call Run. After false nothing need be done: whoever runs passes now will see
// what is pending.
func (n *Node) Acquire() bool {
	return n.pending.Load() && n.running.CompareAndSwap(false, true)
}

// Run runs one pass and gives up what Acquire gave. It waits for the disk.
// When all outcomes have been delivered it calls what AfterPass was given,
// still as the one thread that runs passes: commands that arrive while the
// replies of a pass are written join one next pass, instead of several small
// ones. The caller should then try Acquire again: what became pending during
// the pass found nobody to run it.
func (n *Node) Run() {
	n.pending.Store(false)
	n.pass()
	if n.afterPass != nil {
		n.afterPass()
	}
	n.running.Store(false)
}

// Kick has the node's own driver run a pass, for callers that must not block.
func (n *Node) Kick() {
	select {
	case n.kick <- struct{}{}:
	default:
	}
}

func (n *Node) pass() {
	if n.failed.Load() {
		n.abandon()
		return
	}
	if err := n.tryPass(); err != nil {
		n.fail(err)
		n.abandon()
	}
}

func (n *Node) tryPass() error {
	ready := n.takeDirty()
	if n.tickDue.Swap(false) {
		n.tickAll()
		ready = append(ready[:0], n.groups...)
	}
	if n.truncateDue.Swap(false) {
		n.truncate()
	}
	for _, g := range ready {
		if err := g.collect(n); err != nil {
			return err
		}
		g.propose(n)
	}
	for len(ready) > 0 {
		for _, g := range ready {
			if err := g.collect(n); err != nil {
				return err
			}
		}
		if err := n.commit(); err != nil {
			return err
		}
		if err := n.apply(); err != nil {
			return err
		}
		still := ready[:0]
		for _, g := range ready {
			if err := g.respond(n); err != nil {
				return err
			}
			if g.node.HasReady() {
				still = append(still, g)
			}
		}
		ready = still
	}
	n.passes.Add(1)
	return nil
}

// commit writes what the pass has gathered. Without anything that must be
// durable now it leaves the records to the next write.
func (n *Node) commit() error {
	if !n.mustSync {
		return nil
	}
	n.mustSync = false
	start := time.Now()
	if err := n.log.Commit(n.write, true); err != nil {
		return err
	}
	n.fsyncNanos.Add(uint64(time.Since(start)))
	n.fsyncs.Add(1)
	if n.log.SizeBytes() > n.lim.logBytes {
		// The log may only be cut behind what the state machine holds
		// durably; see flushed and truncate.
		n.flushState()
	}
	return nil
}

func (n *Node) addApply(a applying) {
	n.applies = append(n.applies, a)
	n.entries = append(n.entries, storage.Entry{Shard: a.group.shard, Index: a.index, Data: a.data})
}

// apply carries out what has been committed. Outcomes are delivered by
// Deliver, below, from within store.Apply.
func (n *Node) apply() error {
	if len(n.applies) == 0 {
		return nil
	}
	if err := n.store.Apply(n.entries, (*deliverer)(n)); err != nil {
		return err
	}
	for i := range n.applies {
		if d := n.applies[i].done; d != nil {
			n.putBack(d)
		}
	}
	clear(n.applies)
	clear(n.entries)
	n.applies, n.entries = n.applies[:0], n.entries[:0]
	return nil
}

// deliverer is the Node as the state machine sees it.
type deliverer Node

// Deliver passes the outcome of one command on to whoever proposed it.
func (d *deliverer) Deliver(entry, cmd int, r *command.Result) {
	a := &d.applies[entry]
	if cmd >= len(a.done) {
		return
	}
	c := &a.done[cmd]
	c.sink.Complete(c.tag, command.Applied, r)
	c.sink = nil // heard; see abandon
}

// finish tells completions an outcome other than Applied.
func (n *Node) finish(done []completion, o command.Outcome) {
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

func (n *Node) takeDirty() []*group {
	n.mu.Lock()
	n.dirty, n.ready = n.ready[:0], n.dirty
	n.mu.Unlock()
	return n.ready
}

func (n *Node) markDirty(g *group) {
	n.mu.Lock()
	n.dirty = append(n.dirty, g)
	n.mu.Unlock()
	n.pending.Store(true)
}

// tickAll advances Raft's logical clock and lets leaders propose what is due.
func (n *Node) tickAll() {
	now := n.clock.NowMillis()
	for _, g := range n.groups {
		g.node.Tick()
		if g.serving.Load() && !g.sweeping && n.store.SweepDue(g.shard, max(now, g.lastStamp.Load())) {
			g.sweeping = true
			sweep := n.store.SweepCommand(sweepRows)
			if _, err := g.enqueue(&sweep, completion{sink: (*sweeper)(g)}, &n.lim); err != nil {
				g.sweeping = false
			}
		}
	}
}

// sweeper hears that a sweep has been carried out.
type sweeper group

// Complete allows the next sweep.
func (s *sweeper) Complete(command.Tag, command.Outcome, *command.Result) { s.sweeping = false }

// truncate cuts every group's log behind what the state machine holds durably.
func (n *Node) truncate() {
	for _, g := range n.groups {
		if d := n.store.Durable(g.shard); d > startIndex {
			n.log.Truncate(g.log, d)
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
	n.takeDirty()
	for _, g := range n.groups {
		for _, p := range g.inflight {
			n.finish(p.done, command.Lost)
		}
		g.inflight = nil
		g.take(nil)
		for _, b := range g.taking {
			n.finish(b.done, command.Dropped)
		}
		clear(g.taking)
	}
}
