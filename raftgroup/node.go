package raftgroup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup/datadir"
	"github.com/proa-kv/proa/raftgroup/engine"
	"github.com/proa-kv/proa/raftgroup/placement"
	"github.com/proa-kv/proa/raftlog"
	"github.com/proa-kv/proa/storage"
)

const slots = 16384

// Transport carries what nodes send each other: what their engines do, and what their
// control planes do. Report is called by one thread at a time and must not block.
type Transport interface {
	engine.Transport
	// Report sends a report, at most 64 KiB, to a node, and reports whether it
	// is on its way; the transport counts those that are not.
	Report(node uint64, body []byte) bool
	// Version returns the version of the peer protocol spoken with a node, 0
	// without a connection.
	Version(node uint64) uint16
	// Call asks another node, whose Call answers. The error wraps call.ErrNotAsked
	// where the question was certainly not sent.
	Call(ctx context.Context, node uint64, verb string, body []byte) ([]byte, error)
	// Forward opens a stream to another node's server.
	Forward(ctx context.Context, node uint64) (net.Conn, error)
	// SetPeer says at which address a node is, RemovePeer that it is no more.
	SetPeer(node uint64, address string)
	RemovePeer(node uint64)
}

// Alone is the transport of a node that can have no peers.
type Alone struct{}

var errAlone = errors.New("this node has no peers: listen.peer is off")

// Send drops m.
func (Alone) Send(uint64, uint32, *raftpb.Message) {}

// Transmit does nothing.
func (Alone) Transmit() {}

// SendFrame fails.
func (Alone) SendFrame(uint64, []byte) error { return errAlone }

// Connected fails.
func (Alone) Connected(uint64) error { return errAlone }

// SendSnapshot fails.
func (Alone) SendSnapshot(_ uint64, s engine.OutgoingSnapshot) { s.Done(errAlone) }

// Report does nothing.
func (Alone) Report(uint64, []byte) bool { return false }

// Version returns 0.
func (Alone) Version(uint64) uint16 { return 0 }

// Call fails.
func (Alone) Call(context.Context, uint64, string, []byte) ([]byte, error) { return nil, errAlone }

// Forward fails.
func (Alone) Forward(context.Context, uint64) (net.Conn, error) { return nil, errAlone }

// SetPeer does nothing.
func (Alone) SetPeer(uint64, string) {}

// RemovePeer does nothing.
func (Alone) RemovePeer(uint64) {}

// Expel does nothing.
func (Alone) Expel(uint64, error) {}

// Options configure a Node. Zero values mean the defaults given.
type Options struct {
	Dir    string // data directory; created where missing
	FS     vfs.FS // the real file system
	ID     uint64 // of this node; what the directory says, or 1 for a new one
	Shards int    // what the directory says, or DefaultShards for a new one
	Engine string // as placement.ParseEngine reads it; what the directory says, or etcd for a new one

	QueueDepth    int           // commands queued per shard before ErrBusy; 4096
	BatchOpsMax   int           // commands in one entry; 1000
	BatchBytesMax int           // bytes of one entry, unless one command alone is larger; 1 MiB
	LogTrailing   int           // entries kept for followers that are behind, while the log is below LogBytesMax; 5000
	LogBytesMax   int64         // log size at which the state is flushed so that the log can be cut; 512 MiB
	SegmentBytes  int64         // of the log; raftlog's default
	LogCacheBytes int64         // recent entries kept in memory; raftlog's default
	LogBuffered   bool          // the log is written by way of the page cache
	FlushEvery    time.Duration // the state is made durable at least this often while it changes; 0: only as memory and log size demand
	Heartbeat     time.Duration // between heartbeats; 150 ms
	ElectionMin   time.Duration // shortest election timeout; 300 ms. Raft draws from [ElectionMin, 2×ElectionMin)
	ClockOffset   time.Duration // a node whose wall clock is further from the others' leads nothing; 500 ms
	ClockDrift    float64       // how much faster one node's clock may run than another's: 0.02 is 2 %; leases are shorter by it
	Timeout       time.Duration // a command not decided after it is answered TimedOut; 30 s
	SlowDisk      time.Duration // a log write that takes longer makes the node give its leaderships away; 500 ms
	ReplaceAfter  time.Duration // the replicas of a node gone for longer are rebuilt elsewhere; 0: never

	BalanceLeaders bool // spread the leaders evenly

	JoinToken     string // that the node was given to join a cluster, or to found one; empty: none
	PeerAddress   string // of this node, for the others
	ClientAddress string
	RedisAddress  string // for clients of the Redis protocol; empty: they are not served
	Version       string // of the program

	BlockCacheBytes  int64 // Pebble's; storage's default
	RowCacheBytes    int64 // storage's default
	MemtableBytes    int64 // storage's default
	OpenFiles        int   // storage's default
	SessionRetention time.Duration

	Clock     engine.Clock // engine.SystemClock
	Transport Transport    // Alone
	Logger    *slog.Logger
}

func (o *Options) ensureDefaults() {
	setDefault(&o.QueueDepth, 4096)
	setDefault(&o.BatchOpsMax, 1000)
	setDefault(&o.BatchBytesMax, 1<<20)
	setDefault(&o.LogBytesMax, 512<<20)
	setDefault(&o.Heartbeat, 150*time.Millisecond)
	setDefault(&o.ElectionMin, 300*time.Millisecond)
	setDefault(&o.LogTrailing, 5000)
	setDefault(&o.Timeout, 30*time.Second)
	setDefault(&o.SlowDisk, 500*time.Millisecond)
	setDefault(&o.ClockOffset, 500*time.Millisecond)
	if o.Clock == nil {
		o.Clock = engine.SystemClock{}
	}
	if o.Transport == nil {
		o.Transport = Alone{}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

// Room returns about how many bytes a node with these options needs on its disk
// to start: for two segments of its log, and for what it replays into its state.
func (o *Options) Room() int64 {
	segment, recent := o.segmentBytes(), o.recentBytes()
	return 2 * (segment + recent)
}

// RoomMin returns the free bytes without which a node with these options cannot
// start on a new directory: those of the first segment of its log.
func (o *Options) RoomMin() int64 { return o.segmentBytes() }

func (o *Options) segmentBytes() int64 {
	segment := o.SegmentBytes
	setDefault(&segment, raftlog.SegmentBytesDefault)
	return segment
}

func (o *Options) recentBytes() int64 {
	recent := o.MemtableBytes
	setDefault(&recent, storage.MemtableBytesDefault)
	return recent
}

// keepFree is what the log leaves of the disk: a segment, or what the store has in memory.
func (o *Options) keepFree() int64 { return min(o.segmentBytes(), o.recentBytes()) }

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

	// Damaged is how many operations could not be carried out again, because
	// rows that they need are damaged. Where they changed other rows as well,
	// those changes are missing.
	Damaged uint64
}

// resources are what the parts of a node share.
type resources struct {
	id     uint64
	shards int // without the meta group
	dir    *datadir.Dir
	opt    Options
	lim    engine.Limits
	clock  engine.Clock
	logger *slog.Logger

	log       *raftlog.Log
	store     *storage.Store
	transport Transport
	views     []*engine.View // the engine's, by shard, the meta group last

	startedAt int64 // Clock.Boot
	time      engine.ClusterTime
	state     engine.Conditions
	growing   engine.Growth // commands under way that make much of little
	lent      engine.Resources

	ctx        context.Context // ends with Close
	cancel     context.CancelFunc
	background sync.WaitGroup
}

// meta is the number of the meta group.
func (r *resources) meta() int { return r.shards }

// shardLogger logs about a shard.
func (r *resources) shardLogger(shard int) *slog.Logger {
	return engine.ShardLogger(r.logger, shard, r.shards)
}

func (r *resources) shardName(shard int) string { return placement.ShardName(shard, r.shards) }

// noteMark logs that the data directory could not be marked as of no more use.
func (r *resources) noteMark(err error) {
	if err != nil {
		r.logger.Error("cannot mark the data directory", "error", err)
	}
}

// The engine as a driver and as the transport see it.
type (
	committer = engine.Committer
	receiver  = engine.Receiver
)

// Node is all shards of one server. Open makes one, Start gives it a driver
// goroutine, Close ends it. Propose, the reads and Status may be called from
// any goroutine between Open and Close.
//
// It is the cluster's control plane on this node, and the server's way to the engine,
// which runs the Raft groups.
type Node struct {
	resources
	engine engine.Engine
	committer
	receiver

	replay  Replay
	exposed bool       // see SetExposed
	failure chan error // receives the first failure; capacity 1

	// The parts that own what they need for themselves; each knows the node, of
	// which its methods are a part.
	driver
	members
	reportExchange
	controller
	admin
	timekeeper
	diskWatch
}

// Open opens the node's data directory, recovers its log, replays what the
// state machine had not made durable, and returns once every shard that needs
// no other node serves. It starts no goroutine of its own.
//
// Errors wrap ErrInUse, ErrOtherNode, ErrOtherShards, ErrOtherEngine, ErrDataFormat,
// ErrBadDirectory, raftlog.ErrCorrupt or what the file system said.
func Open(o Options) (*Node, error) {
	o.ensureDefaults()
	n := &Node{failure: make(chan error, 1)}
	n.opt, n.clock, n.logger, n.transport, n.startedAt = o, o.Clock, o.Logger, o.Transport, o.Clock.Boot()
	n.lim = engine.Limits{
		QueueOps: o.QueueDepth, QueueBytes: 64 << 20, LogTrailing: uint64(o.LogTrailing),
		BatchOps: o.BatchOpsMax, BatchBytes: o.BatchBytesMax, EntryBytes: 48 << 20, TurnBytes: 64 << 20, GrowthBytes: command.ValueBytesMax,
		LogBytes: o.LogBytesMax,
	}
	n.members = members{node: n, movedPeers: make(map[uint64]movedPeer), peers: make(map[uint64]bool)}
	n.admin = admin{node: n, checksums: checksumTurns{turn: make(chan struct{}, 1)}}
	n.reportExchange.node, n.controller.node, n.timekeeper.node, n.diskWatch.node = n, n, n, n
	n.known.suspect = int64(max(suspectHeartbeats*o.Heartbeat, staleAfter))
	n.reporting.run = datadir.NewID()
	n.driver = driver{node: n, kick: make(chan struct{}, 1), done: make(chan struct{})}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	if err := n.open(); err != nil {
		return nil, errors.Join(datadir.Advise(err, o.FS, o.Dir, o.Room()), n.closeStores(context.Background()))
	}
	return n, nil
}

func (n *Node) open() (err error) {
	o := &n.opt
	asked := datadir.Asked{Node: o.ID, Shards: o.Shards, Engine: o.Engine}
	if n.dir, err = datadir.Open(o.FS, o.Dir, asked, 0, o.Logger); err != nil {
		return err
	}
	if n.dir.Cluster == 0 {
		if err := n.dir.FoundAlone(datadir.Member{Peer: o.PeerAddress, Client: o.ClientAddress, Redis: o.RedisAddress}, asked, o.Logger); err != nil {
			return fmt.Errorf("%w %s: %w", datadir.ErrBadDirectory, o.Dir, err)
		}
	}
	n.id, n.shards = n.dir.Node, n.dir.Shards
	n.openEngine() // there is something to fail as soon as the stores are open
	n.marks = make([]marks, len(n.views))
	if err := n.openStores(); err != nil {
		return err
	}
	if err := n.dir.Begin(o.Logger); err != nil {
		return err
	}
	n.run = placement.Run{Generation: n.dir.Generation, Number: n.reporting.run, Began: n.log.Position()}
	if n.runs, err = n.dir.OpenRuns(o.Logger); err != nil {
		return err
	}
	if err := n.openGroups(); err != nil {
		return err
	}
	n.log.Prepare() // last, so that what a start must write has the room of a small disk
	return nil
}

// openEngine makes the engine of the directory, whose groups have no replicas yet.
func (n *Node) openEngine() {
	o := &n.opt
	n.lent = engine.Resources{
		Node: n.id, Shards: n.shards, Limits: &n.lim, Transport: n.transport, Clock: n.clock, Logger: n.logger,
		Timing: engine.Timing{Heartbeat: o.Heartbeat, ElectionMin: o.ElectionMin, Timeout: o.Timeout, ClockDrift: o.ClockDrift, Started: n.startedAt},
		Time:   &n.time, State: &n.state, Growing: &n.growing, Context: n.ctx,
	}
	n.engine = n.newEngine()
	n.committer, n.receiver, n.views = n.engine, n.engine, n.engine.Views()
	n.here = make([]residence, len(n.views))
}

func (n *Node) openStores() (err error) {
	o := &n.opt
	start := time.Now()
	l := n.dir.LogOptions(n.dir.FS, n.dir.Path)
	l.SegmentBytes, l.CacheBytes, l.Buffered, l.Logger = o.SegmentBytes, o.LogCacheBytes, o.LogBuffered, o.Logger
	l.KeepFree, l.OnNoSpace, l.MakeRoom = o.keepFree(), n.logShort, n.makeLogRoom
	if n.log, n.replay.Log, err = raftlog.Open(l); err != nil {
		return fmt.Errorf("opening the log: %w", n.dir.Explain(err))
	}
	n.lent.Log = n.log // the log may ask the engine for room from now on
	if r := &n.replay.Log; r.Groups > 0 && !r.Closed {
		n.logger.Warn("node was not shut down cleanly; its log is complete up to synced_at", "synced_at", r.SyncedAt.UTC(), "torn_bytes", r.TornBytes)
	}
	s := n.dir.StateOptions(n.dir.FS, n.dir.Path)
	s.BlockCacheBytes, s.RowCacheBytes, s.MemtableBytes, s.OpenFiles = o.BlockCacheBytes, o.RowCacheBytes, o.MemtableBytes, o.OpenFiles
	s.SessionRetention, s.Logger, s.OnFlush, s.OnFatal, s.OnDamage = o.SessionRetention, o.Logger, n.flushed, n.fail, n.noteDamage
	if n.store, err = storage.Open(s); err != nil {
		return fmt.Errorf("opening the state: %w", n.dir.Explain(err))
	}
	n.lent.Store = n.store
	stamp := uint64(0)
	for shard := range n.dir.Shards + 1 {
		stamp = max(stamp, n.store.LastStamp(shard))
	}
	n.time.Begin(n.clock, stamp)
	n.replay.Elapsed = time.Since(start)
	return nil
}

// openGroups has the engine open the replicas, with what the directory says of the
// cluster, until the log or another node says more.
func (n *Node) openGroups() error {
	start := time.Now()
	beginning := n.beginning()
	if err := n.dir.Bootstrap(n.log, n.replay.Log.Segments); err != nil {
		return err
	}
	n.state.Put(engine.Alone, len(n.dir.Members) <= 1)
	for _, m := range n.dir.Members {
		if m.ID != n.id && !n.dir.GaveUp(m.ID) {
			n.transport.SetPeer(m.ID, m.Peer)
			n.peers[m.ID] = true
		}
	}
	if err := n.mapApplied(); err != nil { // the replicas need it
		return err
	}
	if err := n.engine.Open(beginning); err != nil {
		return n.dir.Explain(err)
	}
	if err := n.groupsOpened(); err != nil {
		n.cancel()
		return errors.Join(err, n.engine.Close(context.Background()))
	}
	n.replay.Elapsed += time.Since(start)
	return nil
}

// groupsOpened takes in that the engine has opened its replicas.
func (n *Node) groupsOpened() error {
	if err := n.dir.Begun(); err != nil {
		return err
	}
	n.keepTime()                    // who belongs to the cluster is known from the log
	for shard, v := range n.views { // what was replayed may be ahead of the clock
		v.Keep(n.store.LastStamp(shard), n.time.Now())
	}
	n.observe()
	c := n.engine.Counters()
	n.replay.Entries, n.replay.Damaged = c.Entries, c.Damaged
	if c.Damaged > 0 {
		n.logger.Error("could not replay operations from the log because rows they need are damaged; their other changes are missing too", "operations", c.Damaged)
	}
	select {
	case err := <-n.failure:
		return err
	default:
		return nil
	}
}

// beginning says how the node comes to be opened.
func (n *Node) beginning() engine.Beginning {
	switch {
	case n.dir.Initialized:
		return engine.Restarted
	case n.dir.Founder:
		return engine.Founds
	}
	return engine.Joins
}

// SetClientAddress says where clients reach this node, where that was not known
// before it listened. It must be called before Start.
func (n *Node) SetClientAddress(address string) { n.opt.ClientAddress = address }

// ClientAddress is where clients reach this node, as it is sent to others.
func (n *Node) ClientAddress() string { return n.opt.ClientAddress }

// SetExposed says that the node accepts clients from the network without access
// control, so that the cluster's status can say so. It must be called before Start.
func (n *Node) SetExposed() { n.exposed = true }

// SetRedisAddress says where clients of the Redis protocol reach this node. It
// must be called before Start.
func (n *Node) SetRedisAddress(address string) { n.opt.RedisAddress = address }

// Flush has the state machine begin to make durable what it holds, so that the log
// behind it can be cut, unless a flush that was asked for is still under way.
func (n *Node) Flush() {
	if n.state.Set(flushing) {
		if err := n.store.FlushAsync(); err != nil {
			n.fail(err)
		}
	}
}

// Failure delivers the error after which the node must stop: its disk failed,
// or an entry could not be carried out. Nothing is acknowledged after it.
func (n *Node) Failure() <-chan error { return n.failure }

func (n *Node) fail(err error) {
	if !n.state.Set(engine.Failed) {
		return
	}
	for _, v := range n.views {
		v.Resign()
	}
	err = datadir.AdviseStopped(err, n.opt.Dir)
	if errors.Is(err, datadir.ErrRemoved) {
		n.logger.Warn("node stops", "reason", err)
	} else {
		n.logger.Error("node stops because of a fatal error", "error", err)
	}
	n.failure <- err
	n.engine.Wake() // a pass ends everything that waits
}

func (n *Node) flushed() {
	n.state.Clear(flushing)
	n.engine.CutLog()
}

// Leave hands all leaderships over, before the node stops, and returns when
// that is done, or when nobody can take them, or when ctx ends.
func (n *Node) Leave(ctx context.Context) error {
	n.state.Set(leaving)
	n.engine.Post(func() {
		n.sendReports()
		n.balance()
	})
	return n.await(ctx, func() bool {
		if n.state.Is(engine.Alone) || n.state.Is(engine.Failed) || n.leadsNone() || !n.canHandOver() {
			return true
		}
		n.engine.Post(n.balance)
		return false
	})
}

// Close ends the node: commands that wait get their outcome, then log and
// state are made durable and closed. The context bounds the wait for a running
// pass and for the state; ErrUnwritten says that it ended before.
func (n *Node) Close(ctx context.Context) error {
	n.state.Set(engine.Stopped)
	// What waits is carried out, as far as that needs nobody else.
	for n.Pending() && ctx.Err() == nil {
		if n.Acquire() {
			n.Run()
			continue
		}
		select { // somebody else runs a pass
		case <-ctx.Done():
		case <-time.After(time.Millisecond):
		}
	}
	n.cancel()
	if n.driving {
		select {
		case <-n.done:
		case <-ctx.Done():
			return fmt.Errorf("%w: a pass is still running", engine.ErrUnwritten)
		}
	}
	if err := n.engine.Close(ctx); err != nil {
		return err
	}
	return n.closeStores(ctx)
}

// saveRuns writes what is known of other nodes, as the node stops.
func (ms *members) saveRuns() {
	if ms.runs == nil || !ms.node.state.Is(engine.Stopped) || !ms.runs.Dirty() {
		return
	}
	if err := ms.runs.Save(); err != nil {
		ms.node.logger.Warn("cannot write the file that records other nodes' runs", "error", err)
	}
}

// closeStores closes state and log. The state has until ctx ends.
func (n *Node) closeStores(ctx context.Context) error {
	var errs []error
	unwritten := false
	if n.store != nil {
		closed := make(chan error, 1)
		go func() {
			n.background.Wait()
			n.saveRuns()
			closed <- n.store.Close()
		}()
		select {
		case err := <-closed:
			errs = append(errs, err)
		case <-ctx.Done():
			unwritten = true
		}
	}
	if n.log != nil {
		if !n.state.Is(engine.Failed) {
			errs = append(errs, n.engine.WriteRest())
		}
		errs = append(errs, n.log.Close())
	}
	if n.dir != nil && !unwritten {
		errs = append(errs, n.dir.Close())
	}
	if err := errors.Join(errs...); err != nil || !unwritten {
		return err
	}
	return engine.ErrUnwritten
}

// Propose hands a command to its shard. The command is copied; its outcome
// goes to done, exactly once and from any thread, unless Propose returns an
// error: ErrBusy, ErrNotLeader, ErrNoQuorum, ErrStopped, ErrFailed or
// ErrTooLarge, after which nothing happened. The caller should then see to it
// that a pass runs: by Acquire and Run, or by Kick.
func (n *Node) Propose(shard int, c *command.Command, done command.Completer, tag command.Tag) error {
	if shard < 0 || shard >= n.meta() {
		return fmt.Errorf("%w: no shard %d", command.ErrInvalid, shard)
	}
	if !n.state.Is(engine.Upgraded) {
		var err error
		if c, err = c.Plain(); err != nil {
			return err
		}
	}
	return n.propose(shard, c, done, tag)
}

// propose is Propose for any shard, the meta group too.
func (n *Node) propose(shard int, c *command.Command, done command.Completer, tag command.Tag) error {
	if err := n.state.Unusable(); err != nil {
		return err
	}
	if v := n.views[shard]; !v.Leads.Load() {
		return v.Refusal()
	}
	waiting, admitted := n.growing.Admit(n.store, &n.lim, shard, c, engine.Completion{Sink: done, Tag: tag})
	if !admitted {
		return command.ErrBusy
	}
	err := n.engine.Propose(shard, c, waiting.Sink, waiting.Tag)
	if err != nil {
		n.growing.Withdraw(waiting)
	}
	return err
}

// ProposeAcross is Propose for commands over several shards; see engine.Engine.
func (n *Node) ProposeAcross(shardOf func(key []byte) int, c *command.Command, done command.Completer, tag command.Tag) error {
	return n.engine.ProposeAcross(shardOf, c, done, tag)
}

// ReadIndex has done completed once the replica here has applied all that was acknowledged
// before the call; see engine.Engine.
func (n *Node) ReadIndex(shard int, done command.Completer, tag command.Tag) error {
	return n.engine.ReadIndex(shard, done, tag)
}

// Tick has the next pass advance Raft's clock. A simulator that owns the time calls it
// in place of the driver.
func (n *Node) Tick() { n.engine.Tick() }

// noteDamage takes in that something of a shard's state has been found damaged. It
// is called by the store, from a goroutine of it.
func (n *Node) noteDamage(shard int) {
	n.state.Set(engine.Damaged)
	n.engine.Post(func() {
		n.engine.BreakDown(shard)
		n.observe()
	})
}
