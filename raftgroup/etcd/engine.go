package etcd

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/internal/lograte"
	"github.com/proa-kv/proa/raftgroup/datadir"
	"github.com/proa-kv/proa/raftgroup/engine"
)

// Engine is the engine made of etcd's raft: one group for each shard, and one loop
// over all of them, whose passes end in one write of the log.
type Engine struct {
	*engine.Resources
	timing
	host      engine.Host
	groups    []*group     // by shard, the meta group last
	raftLog   lograte.Line // see raftLogger
	damageLog lograte.Line

	replayed atomic.Uint64 // entries that Open carried out

	readyLoop
	crossShard
}

// New returns an engine whose groups have no replicas yet. Log and store of r may still be
// missing; the node puts them there as it opens them.
func New(r *engine.Resources, host engine.Host) *Engine {
	e := &Engine{Resources: r, timing: newTiming(&r.Timing), host: host, raftLog: lograte.Line{Burst: raftLinesMax}}
	e.readyLoop.engine, e.crossShard.engine = e, e
	e.applier = engine.NewApplier(r.Shards + 1)
	for shard := range r.Shards + 1 {
		g := newGroup(shard)
		g.logger = r.ShardLogger(shard)
		e.groups = append(e.groups, g)
	}
	return e
}

// Open opens the replicas; see engine.Engine.
func (e *Engine) Open(b engine.Beginning) error {
	if err := datadir.CheckEtcdLog(e.Log); err != nil {
		return err
	}
	e.filling, e.spareWrite = &writeSet{loop: &e.readyLoop, log: e.Log.NewWrite(), number: 1}, &writeSet{loop: &e.readyLoop, log: e.Log.NewWrite()}
	if b == engine.Restarted {
		// Before the end a leader may have been promised not to vote.
		e.votesFrom = e.started + e.leaseMax()
	}
	for _, g := range e.groups {
		g.log = e.Log.Group(uint64(g.shard))
	}
	for _, g := range e.groups {
		if err := g.resume(e); err != nil {
			return fmt.Errorf("%s: %w", e.ShardName(g.shard), err)
		}
		if g.node != nil && g.onlyVoter() {
			if err := e.guard(g.node.Campaign); err != nil {
				return err
			}
		}
	}
	for _, g := range e.groups {
		e.schedule.addMessages(g) // each is looked at
	}
	e.schedule.request(messagesDue)
	for e.Acquire() {
		e.Run()
	}
	return nil
}

// Close ends everything that waits; see engine.Engine.
func (e *Engine) Close(ctx context.Context) error {
	// Take the pass for good: nothing may run any more.
	for e.schedule.writing() || !e.schedule.resume() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: a pass is still running", engine.ErrUnwritten)
		case <-time.After(time.Millisecond):
		}
	}
	e.serve(e.schedule.take(urgentDue))
	for _, g := range e.groups {
		g.Resign()
		e.applier.Finish(g.drainInflight(), command.TimedOut)
	}
	e.dropAcross()
	return nil
}

// WriteRest writes what Close has left; see engine.Engine.
func (e *Engine) WriteRest() error {
	if e.filling == nil || e.filling.log.Empty() {
		return nil
	}
	return e.Log.Save(e.filling.log, true)
}

// Propose queues a command; see engine.Engine.
func (e *Engine) Propose(shard int, c *command.Command, done command.Completer, tag command.Tag) error {
	g := e.groups[shard]
	wake, err := g.enqueue(e, c, engine.Completion{Sink: done, Tag: tag})
	if wake {
		e.schedule.addCommands(g)
	}
	return err
}

// Tick has the next pass advance Raft's clock. A simulator that owns the time calls it
// in place of the driver.
func (e *Engine) Tick() { e.schedule.request(tickDue) }

// TickInterval is how long a tick takes now.
func (e *Engine) TickInterval() time.Duration { return e.interval(e.State.Is(engine.Alone)) }

// Post has f called by the conductor, soon.
func (e *Engine) Post(f func()) {
	e.schedule.addPosted(f)
	e.host.Kick()
}

// Wake has a pass run, soon, although nothing is due.
func (e *Engine) Wake() {
	e.schedule.request(messagesDue)
	e.host.Kick()
}

// CutLog has the next pass cut the log.
func (e *Engine) CutLog() { e.schedule.request(truncateDue) }

// roomPoll is how often MakeRoom looks whether another thread runs passes.
const roomPoll = time.Millisecond

// MakeRoom has the log cut now. It runs passes if nobody else does.
func (e *Engine) MakeRoom() {
	if !e.schedule.writing() { // the node is being opened, and runs no passes yet
		e.cutOpening()
		return
	}
	cut := make(chan struct{})
	e.schedule.request(truncateDue)
	e.Post(func() { close(cut) })
	for !e.State.Is(engine.Failed) {
		e.host.Drive()
		select {
		case <-cut:
			return
		case <-time.After(roomPoll):
		}
	}
}

// cutOpening cuts the log of groups that are not yet open.
func (e *Engine) cutOpening() {
	for shard, g := range e.groups {
		if upTo := e.Store.Durable(shard); g.log != nil && upTo > datadir.StartIndex && !e.Store.Lost(shard) {
			e.Log.Truncate(g.log, upTo)
		}
	}
}

// Views returns what any thread may know of each shard, for the engine's life.
func (e *Engine) Views() (views []*engine.View) {
	for _, g := range e.groups {
		views = append(views, &g.View)
	}
	return views
}

// Counters counts since the start.
func (e *Engine) Counters() engine.Counters {
	return engine.Counters{
		Passes: e.passes.Load(), Fsyncs: e.fsyncs.Load(), FsyncNanos: e.fsyncNanos.Load(),
		Entries: e.replayed.Load(), Damaged: e.applier.Damaged.Load(),
	}
}

// ShardCounters returns those of one shard.
func (e *Engine) ShardCounters(shard int) engine.ShardCounters {
	g := e.groups[shard]
	first, _ := g.log.FirstIndex()
	last, _ := g.log.LastIndex()
	return engine.ShardCounters{First: first, Last: last, Queued: g.queue.Len()}
}

// Replica describes the replica of a shard; see engine.Conductor.
func (e *Engine) Replica(shard int) engine.Replica {
	g := e.groups[shard]
	r := engine.Replica{Lost: g.lost, Down: g.down, Conf: configuration(&g.conf)}
	if g.node == nil {
		return r
	}
	r.ID, r.Role, r.Applied = g.id, g.role(), g.at.index
	r.Durable, r.Handing, r.NoLease = g.confWrite <= e.durable, g.transfer.holds(), g.rounds.voided
	return r
}

// Successors returns the voters that could lead a shard at once.
func (e *Engine) Successors(shard int) []uint64 { return e.groups[shard].successors() }

// CaughtUp reports whether a replica lacks few entries, and no snapshot.
func (e *Engine) CaughtUp(shard int, replica uint64) bool {
	return e.groups[shard].caughtUp(replica)
}

// TransferLeadership begins to hand the leadership of a shard over.
func (e *Engine) TransferLeadership(shard int, to uint64) { e.groups[shard].beginTransfer(e, to) }

// ChangeConfiguration proposes a change of a shard's configuration.
func (e *Engine) ChangeConfiguration(shard int, c engine.Changes) error {
	if err := e.groups[shard].node.ProposeConfChange(confChange(c)); !errors.Is(err, raft.ErrProposalDropped) {
		return err
	}
	return nil
}

// Retire removes the replica of a shard; see engine.Conductor.
func (e *Engine) Retire(shard int) error {
	g := e.groups[shard]
	switch {
	case g.lost != 0:
		return g.discardLost(e)
	case g.node == nil:
		return nil
	}
	return g.depart(e)
}

// BreakDown puts the replica of a shard out of use if its state is damaged; see
// engine.Conductor.
func (e *Engine) BreakDown(shard int) { e.groups[shard].breakDown(e) }

// Applying returns the index of the entry whose outcomes are being delivered.
func (e *Engine) Applying(shard int) uint64 { return e.applier.Index(shard) }

// mapApplied has the control plane take in new rows of the meta group, and the leaders
// compare their configurations with them.
func (e *Engine) mapApplied() error {
	for _, g := range e.groups {
		g.reconcileAt = 0
	}
	return e.host.MapApplied()
}

// role is what the replica does in its group.
func (g *group) role() string {
	switch {
	case g.state == raft.StateLeader:
		return engine.RoleLeader
	case !isVoter(&g.conf, g.id):
		return engine.RoleLearner
	case g.state == raft.StateFollower:
		return engine.RoleFollower
	}
	return engine.RoleCandidate
}
