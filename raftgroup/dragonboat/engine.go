package dragonboat

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup/datadir"
	"github.com/proa-kv/proa/raftgroup/dragonboat/logdb"
	"github.com/proa-kv/proa/raftgroup/engine"
)

// Engine is the engine made of dragonboat.
type Engine struct {
	*engine.Resources
	timing
	host   engine.Host
	start  uint64 // number of this start of the node
	shards []*shard
	db     *logdb.DB
	ended  bool // Close has done its work

	pass
	replies
	nodeHost
	keeper
	cutter
	backlogs backlogs

	// applying is held by who changes the state of shards: the apply worker, or who
	// installs or removes the state of one. It guards applier.
	applying sync.Mutex
	applier  *engine.Applier

	fsyncs, fsyncNanos atomic.Uint64
	replayed           atomic.Uint64
}

var _ engine.Engine = (*Engine)(nil)

// New returns an engine without replicas. Log and store of r may still be missing; the
// node puts them there as it opens them. dir is the directory for dragonboat's files.
func New(r *engine.Resources, host engine.Host, files Files) *Engine {
	e := &Engine{
		Resources: r, timing: newTiming(&r.Timing, r.Shards+1), host: host, start: datadir.NewID(),
		applier: engine.NewApplier(r.Shards + 1),
	}
	e.pass.engine, e.replies.engine, e.nodeHost.engine, e.keeper.engine, e.cutter.engine = e, e, e, e, e
	e.upTo = make([]uint64, r.Shards+1)
	e.backlogs.engine, e.backlogs.max, e.backlogs.shards = e, backlogBytesMax, make([]backlog, r.Shards+1)
	e.nodeHost.files, e.nodeHost.watch = files, watcher{e}
	e.nodeHost.ctx, e.nodeHost.cancel = context.WithCancel(r.Context)
	for number := range r.Shards + 1 {
		e.shards = append(e.shards, newShard(e, number))
	}
	return e
}

// shardOf returns the shard that dragonboat knows by a number; nil where there is none.
func (e *Engine) shardOf(id uint64) *shard {
	if id == 0 || id > uint64(len(e.shards)) {
		return nil
	}
	return e.shards[id-1]
}

// openPoll is how often Open looks whether the shards serve, and Close whether dragonboat's
// workers have ended.
const openPoll = time.Millisecond

// Open opens the replicas, and waits until those that need no other node serve; see
// engine.Engine.
func (e *Engine) Open(b engine.Beginning) error {
	err := e.open(b)
	if err != nil {
		_ = e.Close(context.Background())
	}
	return err
}

func (e *Engine) open(b engine.Beginning) (err error) {
	if e.db, err = logdb.New(e.Log); err != nil {
		return err
	}
	if b == engine.Restarted {
		e.votesFrom = e.started + e.leaseMax() // before the end a leader may have been promised not to vote
	}
	e.opening.Store(true)
	defer e.opening.Store(false)
	if err := e.examine(); err != nil {
		return err
	}
	if err := e.startHost(); err != nil {
		return err
	}
	e.keeper.run()
	for _, s := range e.shards {
		e.background(s.reads.run)
		if err := s.open(b); err != nil {
			return fmt.Errorf("%s: %w", e.ShardName(s.number), err)
		}
	}
	e.awaitAlone()
	return nil
}

// awaitAlone has this node elected where it holds the only replica, and waits until what
// the state machine lacks has been carried out there.
func (e *Engine) awaitAlone() {
	deadline := time.Now().Add(e.Timing.Timeout)
	for turn := 0; time.Now().Before(deadline) && !e.State.Is(engine.Failed); turn++ {
		waiting := false
		for _, s := range e.shards {
			if !s.awaitsOnlyItself() {
				continue
			}
			waiting = true
			if turn%int(max(e.rtt/openPoll, 1)) == 0 && s.conf.OnlyVoter(s.replicaID.Load()) {
				e.electNow(s)
			}
		}
		e.runAll()
		if !waiting {
			return
		}
		time.Sleep(openPoll)
	}
}

// Close ends everything that waits; see engine.Engine.
func (e *Engine) Close(ctx context.Context) error {
	if e.ended {
		return nil
	}
	e.cancel()
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		e.closeHost()
	}()
	for open := true; open; {
		select {
		case <-closed:
			open = false
		case <-time.After(openPoll):
			e.runAll() // dragonboat's workers may wait for it
		case <-ctx.Done():
			return fmt.Errorf("%w: dragonboat's workers are still running", engine.ErrUnwritten)
		}
	}
	for !e.seize() {
		select {
		case <-time.After(openPoll):
		case <-ctx.Done():
			return fmt.Errorf("%w: a pass is still running", engine.ErrUnwritten)
		}
	}
	e.ended = true
	e.runPosted()
	e.abandonWith(command.TimedOut)
	return nil
}

// WriteRest has nothing to write: the log database has written it as it was closed.
func (e *Engine) WriteRest() error { return nil }

// Propose queues a command; see engine.Engine.
func (e *Engine) Propose(shard int, c *command.Command, done command.Completer, tag command.Tag) error {
	s := e.shards[shard]
	wake, err := s.enqueue(c, engine.Completion{Sink: done, Tag: tag})
	if wake {
		e.addCommands(s)
	}
	return err
}

// ProposeAcross refuses: entries of different shards are not applied together.
func (e *Engine) ProposeAcross(func([]byte) int, *command.Command, command.Completer, command.Tag) error {
	return command.ErrApart
}

// ReadIndex has done completed once the replica here has applied all that was acknowledged
// before the call; see engine.Engine.
func (e *Engine) ReadIndex(shard int, done command.Completer, tag command.Tag) error {
	if err := e.State.Unusable(); err != nil {
		return err
	}
	s := e.shards[shard]
	switch {
	case s.Broken.Load() && s.Sole.Load():
		return command.ErrDamaged
	case !s.Held.Load():
		return command.ErrNotLeader
	case s.NoQuorum.Load():
		return command.ErrNoQuorum
	}
	return s.reads.add(engine.Completion{Sink: done, Tag: tag})
}

// Tick has the next pass do what is due with a tick. dragonboat has a clock of its own.
func (e *Engine) Tick() { e.request(tickDue) }

// TickInterval is how long a tick takes now.
func (e *Engine) TickInterval() time.Duration { return e.interval(e.State.Is(engine.Alone)) }

// Post has f called by the conductor, soon.
func (e *Engine) Post(f func()) {
	e.post(f)
	e.host.Kick()
}

// Wake has a pass run, soon.
func (e *Engine) Wake() {
	e.request(repliesDue)
	e.host.Kick()
}

// Views returns what any thread may know of each shard, for the engine's life.
func (e *Engine) Views() (views []*engine.View) {
	for _, s := range e.shards {
		views = append(views, &s.View)
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
	s := e.shards[shard]
	c := engine.ShardCounters{Queued: s.queue.Len()}
	if e.db != nil {
		c.First, c.Last = e.db.Range(s.id, s.replicaID.Load())
	}
	return c
}

// Applying returns the index of the entry whose outcomes are being delivered.
func (e *Engine) Applying(shard int) uint64 { return e.applier.Index(shard) }

// finish completes commands that have no outcome yet, and has a pass write the replies.
func (e *Engine) finish(done []engine.Completion, o command.Outcome) {
	for i := range done {
		if done[i].Sink != nil {
			done[i].Sink.Complete(done[i].Tag, o, nil)
			done[i].Sink = nil
		}
	}
	if len(done) > 0 {
		e.request(repliesDue)
	}
}

// abandon ends everything that waits: its outcome will not be known here.
func (e *Engine) abandon() { e.abandonWith(command.Lost) }

func (e *Engine) abandonWith(o command.Outcome) {
	e.takeCommands()
	for _, s := range e.shards {
		s.Resign()
		s.endAll(o)
		s.refuseQueued()
		s.reads.drop()
	}
}

// errOtherEngine says what comes to a node of another engine.
var errOtherEngine = errors.New("the node's Raft engine is another (raft.engine): all nodes of a cluster must have the same")

// Receive refuses a message of another engine.
func (e *Engine) Receive(from uint64, _ uint32, _ raftpb.Message) {
	e.Transport.Expel(from, errOtherEngine)
}

// ReceiveDone has nothing to do: dragonboat's workers go on by themselves.
func (e *Engine) ReceiveDone(from uint64) { e.host.Heard(from) }

// Unreachable says that messages to a node may have been lost.
func (e *Engine) Unreachable(node uint64) { e.host.Lost(node) }
