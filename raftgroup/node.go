package raftgroup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftlog"
	"github.com/proa-kv/proa/storage"
)

const (
	// DefaultShards is the number of shards of a new data directory.
	DefaultShards = 8
	// ShardsMax bounds the number of shards.
	ShardsMax = 1024

	// startIndex and startTerm are where every group's log begins: an index
	// above zero, so that "the first configuration" is a log position like
	// any other.
	startIndex = 1
	startTerm  = 1

	slots = 16384

	// sweepRows bounds the rows one Sweep removes, and so the pause it makes.
	sweepRows = 1000
)

// Transport carries Raft messages to other nodes. Send must not block; a
// message it cannot deliver it drops. The message belongs to the transport.
type Transport interface {
	Send(shard int, m raftpb.Message)
}

// Alone is the transport of a node without peers: it drops everything.
type Alone struct{}

// Send drops m.
func (Alone) Send(int, raftpb.Message) {}

// Options configure a Node. Zero values mean the defaults given.
type Options struct {
	Dir    string // data directory; created where missing
	FS     vfs.FS // the real file system
	ID     uint64 // of this node; what the directory says, or 1 for a new one
	Shards int    // what the directory says, or DefaultShards for a new one

	QueueDepth    int           // commands queued per shard before ErrBusy; 4096
	BatchOpsMax   int           // commands in one entry; 1000
	BatchBytesMax int           // bytes of one entry, unless one command alone is larger; 1 MiB
	LogBytesMax   int64         // log size at which the state is flushed so that the log can be cut; 512 MiB
	SegmentBytes  int64         // of the log; raftlog's default
	LogCacheBytes int64         // recent entries kept in memory; raftlog's default
	FlushEvery    time.Duration // the state is made durable at least this often while it changes; 0: only as memory and log size demand
	Heartbeat     time.Duration // between heartbeats; 150 ms
	ElectionMin   time.Duration // shortest election timeout; 300 ms. Raft draws from [ElectionMin, 2×ElectionMin)

	BlockCacheBytes  int64 // Pebble's; storage's default
	RowCacheBytes    int64 // storage's default
	MemTableBytes    int64 // storage's default
	SessionRetention time.Duration

	Clock     Clock     // SystemClock
	Transport Transport // Alone
	Logger    *slog.Logger
}

type limits struct {
	queueOps   int
	queueBytes int
	batchOps   int
	batchBytes int
	entryBytes int
	logBytes   int64
}

func (o *Options) ensureDefaults() {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	setDefault(&o.QueueDepth, 4096)
	setDefault(&o.BatchOpsMax, 1000)
	setDefault(&o.BatchBytesMax, 1<<20)
	setDefault(&o.LogBytesMax, 512<<20)
	setDefault(&o.Heartbeat, 150*time.Millisecond)
	setDefault(&o.ElectionMin, 300*time.Millisecond)
	if o.Clock == nil {
		o.Clock = SystemClock{}
	}
	if o.Transport == nil {
		o.Transport = Alone{}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// Replay says what opening a node had to catch up with.
type Replay struct {
	Log     raftlog.Recovery
	Entries uint64        // entries the state machine did not hold
	Elapsed time.Duration // from opening the log until every shard served
}

// Node is all shards of one server. Open makes one, Start gives it a driver
// goroutine, Close ends it. Propose, the reads and Status may be called from
// any goroutine between Open and Close.
type Node struct {
	id       uint64
	identity Identity
	opt      Options
	lim      limits
	clock    Clock
	logger   *slog.Logger
	lock     io.Closer

	log       *raftlog.Log
	store     *storage.Store
	transport Transport
	groups    []*group
	replay    Replay
	tick      time.Duration

	pending     atomic.Bool // a pass has something to do
	running     atomic.Bool // a thread is running passes
	tickDue     atomic.Bool
	truncateDue atomic.Bool
	flushing    atomic.Bool
	stopped     atomic.Bool
	failed      atomic.Bool
	failure     chan error // receives the first failure; capacity 1
	afterPass   func()

	mu    sync.Mutex
	dirty []*group

	// Belongs to the pass.
	ready    []*group
	write    *raftlog.Write
	mustSync bool
	applies  []applying
	entries  []storage.Entry
	spares   [][]completion

	passes, fsyncs, fsyncNanos atomic.Uint64

	kick   chan struct{}
	cancel context.CancelFunc
	done   chan struct{}
}

// Open opens the node's data directory, recovers its log, replays what the
// state machine had not made durable, and returns once every shard that needs
// no other node serves. It starts no goroutine of its own.
//
// Errors wrap ErrInUse, ErrOtherNode, ErrOtherShards, ErrDataFormat,
// ErrBadDirectory, raftlog.ErrCorrupt or what the file system said.
func Open(o Options) (*Node, error) {
	o.ensureDefaults()
	if o.Shards < 0 || o.Shards > ShardsMax {
		return nil, fmt.Errorf("%d shards asked for, 1 to %d are possible", o.Shards, ShardsMax)
	}
	n := &Node{
		opt: o, clock: o.Clock, logger: o.Logger, transport: o.Transport,
		lim: limits{
			queueOps: o.QueueDepth, queueBytes: 64 << 20,
			batchOps: o.BatchOpsMax, batchBytes: o.BatchBytesMax, entryBytes: 48 << 20,
			logBytes: o.LogBytesMax,
		},
		tick:    tickInterval(&o),
		failure: make(chan error, 1),
		kick:    make(chan struct{}, 1),
	}
	if err := n.open(); err != nil {
		return nil, errors.Join(advise(err, o.Dir), n.closeStores())
	}
	return n, nil
}

func (n *Node) open() (err error) {
	o := &n.opt
	if err := prepareDir(o.FS, o.Dir); err != nil {
		return err
	}
	if n.lock, err = lockDir(o.FS, o.Dir); err != nil {
		return err
	}
	if n.identity, err = claim(o.FS, o.Dir, o.ID, o.Shards); err != nil {
		return err
	}
	n.id = n.identity.Node
	if err := n.openStores(); err != nil {
		return err
	}
	return n.openGroups()
}

func (n *Node) openStores() (err error) {
	o := &n.opt
	start := time.Now()
	n.log, n.replay.Log, err = raftlog.Open(raftlog.Options{
		Dir: o.FS.PathJoin(o.Dir, logDir), FS: o.FS, SegmentBytes: o.SegmentBytes, CacheBytes: o.LogCacheBytes, Logger: o.Logger,
	})
	if err != nil {
		return fmt.Errorf("opening the log: %w", err)
	}
	n.store, err = storage.Open(storage.Options{
		Dir: o.FS.PathJoin(o.Dir, stateDir), FS: o.FS, Shards: n.identity.Shards,
		BlockCacheBytes: o.BlockCacheBytes, RowCacheBytes: o.RowCacheBytes, MemTableBytes: o.MemTableBytes,
		SessionRetention: o.SessionRetention, Logger: o.Logger,
		OnFlush: n.flushed, OnFatal: n.fail,
	})
	if err != nil {
		return fmt.Errorf("opening the state: %w", err)
	}
	n.replay.Elapsed = time.Since(start)
	return nil
}

// openGroups begins or resumes every group's log, elects this node where it is
// the only voter, and runs passes until all is applied.
func (n *Node) openGroups() error {
	start := time.Now()
	n.write = n.log.NewWrite()
	if err := n.bootstrap(); err != nil {
		return err
	}
	for shard := range n.identity.Shards {
		g, err := n.openGroup(shard)
		if err != nil {
			return fmt.Errorf("shard %d: %w", shard, err)
		}
		n.groups = append(n.groups, g)
	}
	for _, g := range n.groups {
		last, err := g.log.LastIndex()
		if err != nil {
			return err
		}
		n.replay.Entries += last - max(n.store.Applied(g.shard), startIndex)
		if v := g.conf.Voters; len(v) == 1 && v[0] == n.id {
			if err := g.node.Campaign(); err != nil {
				return err
			}
		}
		g.dirty = true
		n.markDirty(g)
	}
	for n.Acquire() {
		n.Run()
	}
	n.replay.Elapsed += time.Since(start)
	select {
	case err := <-n.failure:
		return err
	default:
		return nil
	}
}

// bootstrap gives every group of a new directory its first configuration: this
// node as the only voter. The identity remembers that it was done, so that a
// log that has vanished later is noticed instead of begun again.
func (n *Node) bootstrap() error {
	begun := make(map[uint64]bool)
	for _, id := range n.log.Groups() {
		begun[id] = true
	}
	if n.identity.Initialized {
		for shard := range n.identity.Shards {
			if !begun[uint64(shard)] {
				return fmt.Errorf("%w: %s holds nothing for shard %d; restore the directory from a backup", ErrLogMissing, n.opt.FS.PathJoin(n.opt.Dir, logDir), shard)
			}
		}
		return nil
	}
	for shard := range n.identity.Shards {
		g := n.log.Group(uint64(shard))
		n.write.SetStart(g, startIndex, startTerm, &raftpb.ConfState{Voters: []uint64{n.id}})
		n.write.Append(g, raftpb.HardState{Term: startTerm, Commit: startIndex}, nil)
	}
	if err := n.log.Commit(n.write, true); err != nil {
		return err
	}
	n.identity.Initialized = true
	return writeIdentity(n.opt.FS, n.opt.Dir, n.identity)
}

func (n *Node) openGroup(shard int) (*group, error) {
	g := &group{shard: shard, log: n.log.Group(uint64(shard))}
	applied := n.store.Applied(shard)
	hs, conf, err := g.log.InitialState()
	if err != nil {
		return nil, err
	}
	first, err := g.log.FirstIndex()
	if err != nil {
		return nil, err
	}
	last, err := g.log.LastIndex()
	if err != nil {
		return nil, err
	}
	if applied > last || max(applied, startIndex)+1 < first {
		return nil, fmt.Errorf("%w: the state is at entry %d, the log holds %d to %d; restore the directory from a backup", ErrLogMissing, applied, first, last)
	}
	g.conf = conf
	g.last = last
	g.vote, g.voteTerm = hs.Vote, hs.Term
	g.lastStamp.Store(n.store.LastStamp(shard))
	g.prop = raftpb.Message{Type: raftpb.MsgProp, From: n.id}
	g.node, err = raft.NewRawNode(&raft.Config{
		ID:                        n.id,
		ElectionTick:              max(int(n.opt.ElectionMin/n.tick), 2),
		HeartbeatTick:             max(int(n.opt.Heartbeat/n.tick), 1),
		Storage:                   resumed{g.log, max(applied, startIndex)},
		Applied:                   max(applied, startIndex),
		AsyncStorageWrites:        true,
		MaxSizePerMsg:             1 << 20,
		MaxCommittedSizePerReady:  16 << 20,
		MaxInflightMsgs:           256,
		CheckQuorum:               true,
		PreVote:                   true,
		DisableProposalForwarding: true,
		Logger:                    &raftLogger{n.logger.With("shard", shard)},
	})
	return g, err
}

// resumed is a group's log whose commit index is at least what the state
// machine has applied: the commit index is written lazily and may be behind.
type resumed struct {
	*raftlog.Group
	applied uint64
}

// InitialState returns the group's hard state and configuration.
func (r resumed) InitialState() (raftpb.HardState, raftpb.ConfState, error) {
	hs, cs, err := r.Group.InitialState()
	hs.Commit = max(hs.Commit, r.applied)
	return hs, cs, err
}

// tickInterval is the granularity of Raft's logical clock: a third of the
// heartbeat, so that election timeouts spread. A node without peers has nobody
// to beat for and ticks with the heartbeat: each tick wakes a thread, and the
// Go scheduler's watchdog stays alert for milliseconds after it.
func tickInterval(o *Options) time.Duration {
	if _, alone := o.Transport.(Alone); alone {
		return o.Heartbeat
	}
	return max(min(o.Heartbeat/3, o.ElectionMin/6), 5*time.Millisecond)
}

// Start starts the driver goroutine: it makes Raft's clock tick and runs
// passes that nobody else runs.
func (n *Node) Start() {
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel = cancel
	n.done = make(chan struct{})
	go n.drive(ctx)
}

func (n *Node) drive(ctx context.Context) {
	defer close(n.done)
	t := time.NewTicker(n.tick)
	defer t.Stop()
	var flush <-chan time.Time
	if n.opt.FlushEvery > 0 {
		f := time.NewTicker(n.opt.FlushEvery)
		defer f.Stop()
		flush = f.C
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			n.Tick()
		case <-flush:
			n.flushState()
		case <-n.kick:
		}
		for n.Acquire() {
			n.Run()
		}
	}
}

// flushState has the state machine make durable what it holds, unless a flush
// that was asked for is still under way.
func (n *Node) flushState() {
	if n.flushing.CompareAndSwap(false, true) {
		if err := n.store.FlushAsync(); err != nil {
			n.fail(err)
		}
	}
}

// Tick makes Raft's clock advance by one at the next pass. It stands in for
// the driver where a simulator owns the time.
func (n *Node) Tick() {
	n.tickDue.Store(true)
	n.pending.Store(true)
}

// AfterPass sets a function that is called after each pass, by the thread that
// ran it, once all its outcomes have been delivered. It must be set before
// Start and before the first Propose.
func (n *Node) AfterPass(f func()) { n.afterPass = f }

// Failure delivers the error after which the node must stop: its disk failed,
// or an entry could not be carried out. Nothing is acknowledged after it.
func (n *Node) Failure() <-chan error { return n.failure }

func (n *Node) fail(err error) {
	if n.failed.Swap(true) {
		return
	}
	for _, g := range n.groups {
		g.serving.Store(false)
	}
	n.logger.Error("storage failed, the node stops", "error", err)
	n.failure <- err
	n.pending.Store(true) // a pass will tell everything that waits
	n.Kick()
}

func (n *Node) flushed() {
	n.flushing.Store(false)
	n.truncateDue.Store(true)
	n.pending.Store(true)
}

// Close ends the node: commands that wait hear their outcome, then log and
// state are made durable and closed. The context bounds the wait for a running
// pass.
func (n *Node) Close(ctx context.Context) error {
	n.stopped.Store(true)
	if n.cancel != nil {
		n.cancel()
		<-n.done
	}
	// Take the pass for good: nothing may run any more.
	for !n.running.CompareAndSwap(false, true) {
		select {
		case <-ctx.Done():
			return fmt.Errorf("a pass is still running: %w", ctx.Err())
		case <-time.After(time.Millisecond):
		}
	}
	for n.pending.Swap(false) {
		n.pass()
	}
	for _, g := range n.groups {
		g.serving.Store(false)
	}
	return n.closeStores()
}

func (n *Node) closeStores() error {
	var errs []error
	if n.store != nil {
		errs = append(errs, n.store.Close())
	}
	if n.log != nil {
		if !n.failed.Load() && n.write != nil && !n.write.Empty() {
			errs = append(errs, n.log.Commit(n.write, true))
		}
		errs = append(errs, n.log.Close())
	}
	if n.lock != nil {
		errs = append(errs, n.lock.Close())
	}
	return errors.Join(errs...)
}

// Propose hands a command to its shard. The command is copied; its outcome
// goes to done, exactly once and from any thread, unless Propose returns an
// error: ErrBusy, ErrNotLeader, ErrStopped, ErrFailed or ErrTooLarge, after
// which nothing happened. The caller should then see to it that a pass runs:
// by Acquire and Run, or by Kick.
func (n *Node) Propose(shard int, c *command.Command, done command.Completer, tag command.Tag) error {
	if n.failed.Load() {
		return command.ErrFailed
	}
	if n.stopped.Load() {
		return command.ErrStopped
	}
	g := n.groups[shard]
	if !g.serving.Load() {
		return command.ErrNotLeader
	}
	wake, err := g.enqueue(c, completion{done, tag}, &n.lim)
	if wake {
		n.markDirty(g)
	}
	return err
}
