package raftgroup

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/internal/lograte"
	"github.com/proa-kv/proa/raftgroup/datadir"
)

// etcdEngine is the engine made of etcd's raft: one group for each shard, and one loop
// over all of them, whose passes end in one write of the log.
type etcdEngine struct {
	*resources
	host    engineHost
	groups  []*group     // by shard, the meta group last
	raftLog lograte.Line // see raftLogger

	replayed atomic.Uint64 // entries that Open carried out

	readyLoop
	crossShard
}

// newEtcdEngine returns an engine whose groups have no replicas yet. It adds their
// views to r.
func newEtcdEngine(r *resources, host engineHost) *etcdEngine {
	e := &etcdEngine{resources: r, host: host, raftLog: lograte.Line{Burst: raftLinesMax}}
	e.readyLoop.engine, e.crossShard.engine = e, e
	for shard := range r.shards + 1 {
		g := newGroup(shard)
		g.logger = r.shardLogger(shard)
		e.groups = append(e.groups, g)
		r.views = append(r.views, &g.view)
	}
	return e
}

// Open opens the replicas; see engine.
func (e *etcdEngine) Open(restarted bool) error {
	e.filling, e.spareWrite = &writeSet{loop: &e.readyLoop, log: e.log.NewWrite(), number: 1}, &writeSet{loop: &e.readyLoop, log: e.log.NewWrite()}
	if restarted {
		// Before the end a leader may have been promised not to vote.
		e.votesFrom = e.startedAt + e.leaseMax()
	}
	for _, g := range e.groups {
		g.log = e.log.Group(uint64(g.shard))
	}
	for _, g := range e.groups {
		if err := g.resume(e); err != nil {
			return fmt.Errorf("%s: %w", e.shardName(g.shard), err)
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
	e.runAll()
	return nil
}

// Close ends everything that waits; see engine.
func (e *etcdEngine) Close(ctx context.Context) error {
	// Take the pass for good: nothing may run any more.
	for e.schedule.writing() || !e.schedule.resume() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: a pass is still running", ErrUnwritten)
		case <-time.After(time.Millisecond):
		}
	}
	e.serve(e.schedule.take(urgentDue))
	for _, g := range e.groups {
		g.resign()
		e.finish(g.drainInflight(), command.TimedOut)
	}
	e.dropAcross()
	return nil
}

func (e *etcdEngine) writeRest() error {
	if e.filling == nil || e.filling.log.Empty() {
		return nil
	}
	return e.log.Save(e.filling.log, true)
}

// Propose queues a command; see engine.
func (e *etcdEngine) Propose(shard int, c *command.Command, done command.Completer, tag command.Tag) error {
	g := e.groups[shard]
	wake, err := g.enqueue(e, c, completion{done, tag})
	if wake {
		e.schedule.addCommands(g)
	}
	return err
}

// Tick has the next pass advance Raft's clock. A simulator that owns the time calls it
// in place of the driver.
func (e *etcdEngine) Tick() { e.schedule.request(tickDue) }

// tickInterval is how long a tick takes now.
func (e *etcdEngine) tickInterval() time.Duration { return e.interval(e.state.is(alone)) }

func (e *etcdEngine) post(f func()) {
	e.schedule.addPosted(f)
	e.host.Kick()
}

func (e *etcdEngine) wake() {
	e.schedule.request(messagesDue)
	e.host.Kick()
}

func (e *etcdEngine) cutLog() { e.schedule.request(truncateDue) }

// roomPoll is how often makeRoom looks whether another thread runs passes.
const roomPoll = time.Millisecond

// makeRoom runs passes if nobody else does.
func (e *etcdEngine) makeRoom() {
	if !e.schedule.writing() { // the node is being opened, and runs no passes yet
		e.cutOpening()
		return
	}
	cut := make(chan struct{})
	e.schedule.request(truncateDue)
	e.post(func() { close(cut) })
	for !e.state.is(failed) {
		e.host.Drive()
		select {
		case <-cut:
			return
		case <-time.After(roomPoll):
		}
	}
}

// cutOpening cuts the log of groups that are not yet open.
func (e *etcdEngine) cutOpening() {
	for shard, g := range e.groups {
		if upTo := e.store.Durable(shard); g.log != nil && upTo > datadir.StartIndex && !e.store.Lost(shard) {
			e.log.Truncate(g.log, upTo)
		}
	}
}

func (e *etcdEngine) counters() engineCounters {
	return engineCounters{e.passes.Load(), e.fsyncs.Load(), e.fsyncNanos.Load(), e.replayed.Load(), e.replayDamaged.Load()}
}

func (e *etcdEngine) shardCounters(shard int) shardCounters {
	g := e.groups[shard]
	first, _ := g.log.FirstIndex()
	last, _ := g.log.LastIndex()
	return shardCounters{first, last, g.queue.len()}
}

func (e *etcdEngine) replica(shard int) replicaState {
	g := e.groups[shard]
	r := replicaState{lost: g.lost, down: g.down, conf: &g.conf}
	if g.node == nil {
		return r
	}
	r.id, r.role, r.applied = g.id, g.role(), g.at.index
	r.durable, r.handing, r.noLease = g.confWrite <= e.durable, g.transfer.holds(), g.rounds.voided
	return r
}

func (e *etcdEngine) successors(shard int) []uint64 { return e.groups[shard].successors() }

func (e *etcdEngine) caughtUp(shard int, replica uint64) bool {
	return e.groups[shard].caughtUp(replica)
}

func (e *etcdEngine) transferLeadership(shard int, to uint64) { e.groups[shard].beginTransfer(e, to) }

func (e *etcdEngine) changeConfiguration(shard int, c raftpb.ConfChangeV2) error {
	return e.groups[shard].node.ProposeConfChange(c)
}

func (e *etcdEngine) retire(shard int) error {
	g := e.groups[shard]
	switch {
	case g.lost != 0:
		return g.discardLost(e)
	case g.node == nil:
		return nil
	}
	return g.depart(e)
}

func (e *etcdEngine) breakDown(shard int) { e.groups[shard].breakDown(e) }

func (e *etcdEngine) applying(shard int) uint64 { return e.groups[shard].applying }

// mapApplied has the control plane take in new rows of the meta group, and the leaders
// compare their configurations with them.
func (e *etcdEngine) mapApplied() error {
	for _, g := range e.groups {
		g.reconcileAt = 0
	}
	return e.host.mapApplied()
}

// role is what the replica does in its group.
func (g *group) role() string {
	switch {
	case g.state == raft.StateLeader:
		return roleLeader
	case !isVoter(&g.conf, g.id):
		return roleLearner
	case g.state == raft.StateFollower:
		return roleFollower
	}
	return roleCandidate
}
