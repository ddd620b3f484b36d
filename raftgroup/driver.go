package raftgroup

import (
	"sync/atomic"
	"time"
)

// driver makes Raft's clock tick, and runs the group commits that nobody else runs.
type driver struct {
	node    *Node
	drive   atomic.Pointer[func()] // see Start; nil before it
	kick    chan struct{}          // capacity 1: a group commit may be due
	driving bool                   // the goroutine has been started
	done    chan struct{}          // closed when it has ended
}

// Start starts the driver goroutine: it makes Raft's clock tick and runs commits
// that nobody else runs. drive runs commits until none is due: server.Server.Drive,
// or nil for a node without a server, whose outcomes need no further step.
func (d *driver) Start(drive func()) {
	if drive == nil {
		drive = d.runAll
	}
	d.drive.Store(&drive)
	d.driving = true
	go d.loop()
	d.node.background.Go(d.node.recordSynced)
}

// runAll is Drive for a node without a server.
func (d *driver) runAll() {
	for d.node.Acquire() {
		d.node.Run()
	}
}

// Drive runs commits until none is due, or another thread runs them. Whoever has
// handed messages to the node calls it. Before Start the thread that opens the node is the
// only one to run any: what is due then waits for it, or for Start.
func (d *driver) Drive() {
	if drive := d.drive.Load(); drive != nil {
		(*drive)()
		return
	}
	d.Kick()
}

// loop is the driver goroutine.
func (d *driver) loop() {
	defer close(d.done)
	n := d.node
	interval := n.engine.TickInterval()
	t := time.NewTicker(interval)
	defer t.Stop()
	measured := time.Time{}
	var flush <-chan time.Time
	if n.opt.FlushEvery > 0 {
		f := time.NewTicker(n.opt.FlushEvery)
		defer f.Stop()
		flush = f.C
	}
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-t.C:
			n.Tick()
			if time.Since(measured) > measureEvery {
				measured = time.Now()
				n.measureDisk()
			}
			n.remember()
			if want := n.engine.TickInterval(); want != interval {
				interval = want
				t.Reset(interval)
			}
		case <-flush:
			n.Flush()
		case <-d.kick:
		}
		d.Drive()
	}
}

// Kick has the node's own driver run a pass, for callers that must not block.
func (d *driver) Kick() {
	select {
	case d.kick <- struct{}{}:
	default:
	}
}
