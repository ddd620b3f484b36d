package dragonboat

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	pb "github.com/lni/dragonboat/v4/raftpb"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/proa-kv/proa/bufpool"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/internal/leaktest"
	"github.com/proa-kv/proa/raftgroup/dragonboat/transport"
	"github.com/proa-kv/proa/raftgroup/engine"
	"github.com/proa-kv/proa/raftgroup/placement"
	"github.com/proa-kv/proa/raftlog"
	"github.com/proa-kv/proa/storage"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// Nothing here is in virtual time: dragonboat has threads and clocks of its own.

const testShards = 2 // and the meta group

var errCut = errors.New("cut off")

// disk is a disk that can lose power. A MemFS that is cloned waits for itself where a Link
// is under way.
type disk struct {
	*vfs.MemFS
	linking sync.RWMutex
	free    atomic.Uint64 // bytes; 0: it does not say
}

func newDisk() *disk { return &disk{MemFS: vfs.NewCrashableMem()} }

func (d *disk) GetDiskUsage(path string) (vfs.DiskUsage, error) {
	if free := d.free.Load(); free > 0 {
		return vfs.DiskUsage{AvailBytes: free}, nil
	}
	return d.MemFS.GetDiskUsage(path)
}

func (d *disk) Link(from, to string) error {
	d.linking.RLock()
	defer d.linking.RUnlock()
	return d.MemFS.Link(from, to)
}

// crashed returns what is left when the power goes now.
func (d *disk) crashed() *disk {
	d.linking.Lock()
	defer d.linking.Unlock()
	return &disk{MemFS: d.CrashClone(vfs.CrashCloneCfg{})}
}

// cluster is the engines of some nodes, in one process, on disks that can lose power. Its
// map is what the test says it is.
type cluster struct {
	t     testing.TB
	mu    sync.Mutex
	nodes map[uint64]*node
	disks map[uint64]*disk
	rows  map[int]placement.Shard
	cut   map[uint64]bool // nodes that hear nobody, and that nobody hears

	unconfirming atomic.Bool  // no read is confirmed by another node
	unconfirmed  atomic.Int64 // confirmations that were kept out
}

func newCluster(t testing.TB, nodes ...uint64) *cluster {
	c := &cluster{t: t, nodes: make(map[uint64]*node), disks: make(map[uint64]*disk), rows: make(map[int]placement.Shard), cut: make(map[uint64]bool)}
	for shard := range testShards + 1 {
		row := placement.Shard{Incarnation: 1}
		for _, id := range nodes {
			row.Replicas = append(row.Replicas, placement.Replica{Node: id, Incarnation: 1})
		}
		c.rows[shard] = row
	}
	for _, id := range nodes {
		c.disks[id] = newDisk()
	}
	c.startAll(engine.Founds)
	t.Cleanup(func() {
		for _, id := range c.running() {
			c.settled(c.node(id))
			c.stop(id)
		}
	})
	return c
}

func (c *cluster) running() []uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(maps.Keys(c.nodes))
}

// startAll starts the nodes that do not run.
func (c *cluster) startAll(b engine.Beginning) {
	var wg sync.WaitGroup
	for id := range c.disks {
		if c.node(id) == nil {
			wg.Go(func() { c.start(id, b) })
		}
	}
	wg.Wait()
}

func (c *cluster) node(id uint64) *node {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nodes[id]
}

func (c *cluster) isCut(id uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cut[id]
}

func (c *cluster) setCut(id uint64, cut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut[id] = cut
}

func (c *cluster) row(shard int) placement.Shard {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rows[shard]
}

// setRow changes the map.
func (c *cluster) setRow(shard int, row placement.Shard) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rows[shard] = row
}

// node is an engine, and the control plane that it sees.
type node struct {
	*Engine
	c       *cluster
	id      uint64
	disk    *disk
	log     *raftlog.Log
	store   *storage.Store
	cancel  context.CancelFunc
	kick    chan struct{}
	opened  atomic.Bool
	driver  sync.WaitGroup
	failure atomic.Pointer[error]
	marks   atomic.Uint64

	stall   sync.RWMutex // the step worker waits for it when it has saved something
	stalled atomic.Int64 // how often it had to
}

const testDir = "/node"

func (c *cluster) start(id uint64, b engine.Beginning) {
	c.t.Helper()
	n, err := c.open(id, b, c.disks[id])
	if err != nil {
		c.t.Error(err)
		return
	}
	c.mu.Lock()
	c.nodes[id] = n
	c.mu.Unlock()
}

func (c *cluster) open(id uint64, b engine.Beginning, disk *disk) (_ *node, err error) {
	n := &node{c: c, id: id, disk: disk, kick: make(chan struct{}, 1)}
	for _, dir := range []string{testDir, disk.PathJoin(testDir, "raft"), disk.PathJoin(testDir, "state")} {
		if err := errors.Join(disk.MkdirAll(dir, 0o700), syncDir(disk, disk.PathDir(dir))); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel = cancel
	r := &engine.Resources{
		Node: id, Shards: testShards, Transport: link{n}, Clock: engine.SystemClock{}, Logger: slog.New(slog.DiscardHandler), Context: ctx,
		Limits: &engine.Limits{
			QueueOps: 4096, QueueBytes: 64 << 20, BatchOps: 1000, BatchBytes: 1 << 20, EntryBytes: 48 << 20,
			GrowthBytes: command.ValueBytesMax, TurnBytes: 64 << 20, LogBytes: 2 << 20, LogTrailing: 20,
		},
		Timing: engine.Timing{Heartbeat: 100 * time.Millisecond, ElectionMin: 300 * time.Millisecond, Timeout: 30 * time.Second, ClockDrift: 0.02, Started: engine.SystemClock{}.Boot()},
		Time:   new(engine.ClusterTime), State: new(engine.Conditions), Growing: new(engine.Growth),
	}
	if os.Getenv("PROA_TEST_LOG") != "" {
		r.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("node", id)
	}
	r.State.Set(engine.Upgraded)
	r.Time.Begin(r.Clock, 0)
	r.Time.Set(engine.OwnClock(r.Clock))
	n.Engine = New(r, n, Files{FS: disk, Dir: disk.PathJoin(testDir, "dragonboat")})
	n.watch = unconfirming{n.watch, c}
	if n.log, _, err = raftlog.Open(raftlog.Options{Dir: disk.PathJoin(testDir, "raft"), FS: disk, SegmentBytes: 1 << 20}); err != nil {
		return nil, err
	}
	n.store, err = storage.Open(storage.Options{
		Dir: disk.PathJoin(testDir, "state"), FS: disk, Shards: testShards + 1,
		RowCacheBytes: 1 << 20, BlockCacheBytes: 1 << 20, MemtableBytes: 512 << 10,
		OnFlush: n.CutLog, OnFatal: n.Fail,
	})
	if err != nil {
		return nil, errors.Join(err, n.log.Close())
	}
	r.Log, r.Store = n.log, n.store
	if err := n.Engine.Open(b); err != nil {
		n.end()
		return nil, err
	}
	n.opened.Store(true)
	n.driver.Go(n.drive)
	return n, nil
}

func syncDir(disk vfs.FS, path string) error {
	d, err := disk.OpenDir(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (n *node) drive() {
	tick := time.NewTicker(n.TickInterval())
	defer tick.Stop()
	for {
		select {
		case <-n.Context.Done():
			return
		case <-tick.C:
			n.Tick()
		case <-n.kick:
		}
		n.Drive()
	}
}

// end ends the node in order.
func (n *node) end() {
	n.State.Set(engine.Stopped)
	n.cancel()
	n.driver.Wait()
	if err := n.Engine.Close(context.Background()); err != nil {
		n.c.t.Error(err)
	}
	if err := errors.Join(n.WriteRest(), n.store.Close(), n.log.Close()); err != nil && n.failure.Load() == nil {
		n.c.t.Error(err)
	}
}

// stop stops a node.
func (c *cluster) stop(id uint64) {
	n := c.node(id)
	c.mu.Lock()
	delete(c.nodes, id)
	c.mu.Unlock()
	n.end()
	if err := n.failure.Load(); err != nil {
		c.t.Errorf("node %d failed: %v", id, *err)
	}
}

// crash has nodes lose power at one moment, and starts them again.
func (c *cluster) crash(ids ...uint64) {
	for _, id := range ids {
		c.setCut(id, true)
	}
	// What a node says from now on was not said: none has heard of what another has written
	// after the moment that this one's disk is left with.
	for _, id := range ids {
		c.disks[id] = c.node(id).disk.crashed()
	}
	for _, id := range ids {
		c.stop(id)
	}
	for _, id := range ids {
		c.setCut(id, false)
	}
	c.startAll(engine.Restarted)
}

// What the engine asks of the control plane.

func (n *node) Fail(err error) {
	if n.State.Set(engine.Failed) {
		n.failure.Store(&err)
		n.Kick()
	}
}
func (n *node) RolledBack() {}
func (n *node) Flush()      { _ = n.store.FlushAsync() }
func (n *node) Kick() {
	select {
	case n.kick <- struct{}{}:
	default:
	}
}
func (n *node) Drive() {
	if !n.opened.Load() {
		n.Kick() // the thread that opens it is the only one to run passes
		return
	}
	for n.Acquire() {
		n.Run()
	}
}
func (n *node) NoteFsync(time.Duration) {
	if !n.stall.TryRLock() {
		n.stalled.Add(1)
		n.stall.RLock()
	}
	defer n.stall.RUnlock()
}
func (n *node) Heard(uint64)                       {}
func (n *node) Lost(uint64)                        {}
func (n *node) KeepTime()                          {}
func (n *node) TickCluster()                       {}
func (n *node) MapApplied() error                  { return nil }
func (n *node) MarkApplied(int, uint64)            { n.marks.Add(1) }
func (n *node) ReplicaDown()                       {}
func (n *node) LeaderOf(int) uint64                { return 0 }
func (n *node) Reconcile(int)                      {}
func (n *node) ShardRow(shard int) placement.Shard { return n.c.row(shard) }
func (n *node) Wanted(shard int, replica uint64) bool {
	row := n.c.row(shard)
	r, ok := row.On(n.id)
	return ok && r.ID() == replica
}

// link is the connections of a node.
type link struct{ from *node }

func (l link) to(node uint64) *node {
	n := l.from.c.node(node)
	if n == nil || l.from.c.isCut(node) || l.from.c.isCut(l.from.id) {
		return nil
	}
	return n
}

func (l link) Connected(node uint64) error {
	if l.to(node) == nil {
		return errCut
	}
	return nil
}

func (l link) SendFrame(node uint64, frame []byte) error {
	n := l.to(node)
	if n == nil {
		return errCut
	}
	return n.ReceiveFrame(l.from.id, slices.Clone(frame))
}

func (l link) SendSnapshot(node uint64, s engine.OutgoingSnapshot) {
	n := l.to(node)
	if n == nil {
		s.Done(errCut)
		return
	}
	go func() {
		s.Done(func() error {
			in, token, err := n.BeginSnapshot(l.from.id, s.Header())
			if err != nil {
				return err
			}
			if err := s.Export(token, in.Write); err != nil {
				in.Abort()
				return err
			}
			return in.Finish()
		}())
	}()
}

func (l link) Send(uint64, uint32, *raftpb.Message) { panic("a message of another engine") }
func (l link) Transmit()                            {}
func (l link) Expel(uint64, error)                  {}

// unconfirming keeps the confirmations of reads out while the cluster demands it.
type unconfirming struct {
	transport.Watcher
	c *cluster
}

func (u unconfirming) Received(from uint64, ms []pb.Message) ([]pb.Message, error) {
	for i := range ms {
		if m := &ms[i]; m.Type == pb.HeartbeatResp && m.Hint != 0 && u.c.unconfirming.Load() {
			m.Hint, m.HintHigh = 0, 0
			u.c.unconfirmed.Add(1)
		}
	}
	return u.Watcher.Received(from, ms)
}

// What tests do.

// settled waits until nothing is expected to be carried out, unless the node has failed or
// a replica is damaged.
func (c *cluster) settled(n *node) {
	c.t.Helper()
	c.until("all that was committed is carried out", func() bool {
		n.replies.mu.Lock()
		defer n.replies.mu.Unlock()
		return n.replies.shards == 0 || n.failed()
	})
}

// members returns the configuration of a shard as its leader knows it; empty if it is not
// known.
func (c *cluster) members(shard int) engine.Configuration {
	n := c.leader(shard)
	conf := make(chan engine.Configuration, 1)
	n.Post(func() {
		if s := n.shards[shard]; s.confKnown {
			conf <- s.conf
			return
		}
		conf <- engine.Configuration{}
	})
	return <-conf
}

// change has the leader of a shard change the configuration, until it is changed.
func (c *cluster) change(shard int, cs engine.Changes) {
	c.t.Helper()
	c.until("a change: "+cs.String(), func() bool {
		conf := c.members(shard)
		ready := len(conf.Voters) > 0
		for _, ch := range cs {
			switch ch.To {
			case engine.Voter:
				ready = ready && conf.Votes(ch.Replica)
			case engine.Learner:
				ready = ready && slices.Equal(conf.Learners, []uint64{ch.Replica})
			default:
				ready = ready && !slices.Contains(conf.Members(), ch.Replica)
			}
		}
		if n := c.leader(shard); !ready {
			n.Post(func() {
				n.shards[shard].endChange()
				_ = n.ChangeConfiguration(shard, cs)
			})
		}
		return ready
	})
}

func (c *cluster) until(what string, holds func() bool) {
	c.t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); {
		if time.Now().After(deadline) {
			for _, id := range c.running() {
				if n := c.node(id); n != nil {
					for _, s := range n.shards {
						c.t.Logf("node %d, shard %d: held %v, leads %v, leader %d in term %d, no quorum %v, broken %v, applied %d of %d, fresh %v ago; engine: %v", id, s.number,
							s.Held.Load(), s.Leads.Load(), s.Leader.Load(), s.Term.Load(), s.NoQuorum.Load(), s.Broken.Load(), s.Applied.Load(), s.Committed.Load(),
							time.Duration(n.Clock.Boot()-s.Fresh.Load()), n.State.Unusable())
					}
				}
			}
			c.t.Fatalf("waited in vain for %s", what)
		}
		<-time.After(time.Millisecond)
	}
}

// leader returns the node that leads a shard and takes commands.
func (c *cluster) leader(shard int) (led *node) {
	c.t.Helper()
	c.until(fmt.Sprint("a leader of shard ", shard), func() bool {
		for _, id := range c.running() {
			if n := c.node(id); n != nil && !c.isCut(id) && n.shards[shard].Leads.Load() {
				led = n
				return true
			}
		}
		return false
	})
	return led
}

// outcome is what becomes of a command.
type outcome struct {
	outcome command.Outcome
	row     command.Result
}

type waiter chan outcome

func (w waiter) Complete(_ command.Tag, o command.Outcome, r *command.Result) {
	out := outcome{outcome: o}
	if r != nil {
		out.row = *r
	}
	w <- out
}

// do has a node carry a command out, if it leads the shard.
func (n *node) do(shard int, c *command.Command) outcome {
	w := make(waiter, 1)
	if !n.shards[shard].Leads.Load() {
		return outcome{outcome: command.Dropped}
	}
	if err := n.Propose(shard, c, w, command.Tag{}); err != nil {
		return outcome{outcome: command.Dropped}
	}
	n.Drive()
	return <-w
}

// put writes a row until that is acknowledged.
func (c *cluster) put(shard int, key, value string) {
	c.t.Helper()
	c.until("an acknowledged write", func() bool {
		return c.leader(shard).do(shard, &command.Command{Kind: command.Put, Key: []byte(key), Value: []byte(value)}).outcome == command.Applied
	})
}

// read reads a row of a node's state, "" where there is none.
func (n *node) read(shard int, key string) string {
	b := bufpool.Get(0)
	defer b.Release()
	if _, found, err := n.store.Append(b, shard, []byte(key), 0, 1<<20); err != nil || !found {
		return ""
	}
	return string(b.B)
}

// confirmed waits for a read index of a node.
func (n *node) confirmed(shard int) bool {
	w := make(waiter, 1)
	if n.ReadIndex(shard, w, command.Tag{}) != nil {
		return false
	}
	return (<-w).outcome == command.Applied
}
