package logdb

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/lni/dragonboat/v4"
	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/raftio"
	pb "github.com/lni/dragonboat/v4/raftpb"
	"github.com/lni/dragonboat/v4/statemachine"

	"github.com/proa-kv/proa/raftgroup/dragonboat/environment"
	"github.com/proa-kv/proa/raftgroup/dragonboat/transport"
)

// TestNodeHosts has dragonboat keep its logs in a DB, and talk by our transport, while one node after the other loses
// power or is killed, and catches up with entries or, where they are compacted, with a
// snapshot. Nothing acknowledged is lost.
func TestNodeHosts(t *testing.T) {
	environment.SetLogger(slog.New(slog.DiscardHandler))
	rounds := 8
	if testing.Short() {
		rounds = 3
	}
	for _, nodes := range []uint64{1, 3} {
		t.Run(fmt.Sprint(nodes, " nodes"), func(t *testing.T) {
			c := &hosts{
				t: t, network: network{nodes: make(map[uint64]*transport.Transport)}, rand: rand.New(rand.NewPCG(nodes, 0)),
				members: make(map[uint64]string), want: make(map[string]uint64),
			}
			for id := uint64(1); id <= nodes; id++ {
				c.members[id] = transport.Target(id)
			}
			for id := uint64(1); id <= nodes; id++ {
				c.add(id)
			}
			defer func() {
				for _, n := range c.nodes {
					n.close()
				}
			}()
			for round := range rounds {
				for shard := uint64(1); shard <= 2; shard++ {
					for i := range 10 {
						c.propose(shard, fmt.Sprintf("%d/%d/%d", round, shard, i))
					}
				}
				n := c.nodes[round%len(c.nodes)]
				// What it has applied is in a snapshot, its log behind it is gone;
				// the commit index may be lost.
				if round%2 == 0 {
					n.snapshot(1)
				}
				n.crash([]int{0, 50, 100}[round%3])
				if len(c.nodes) > 1 {
					for i := range 10 {
						c.propose(1, fmt.Sprintf("%d/1/%d without one", round, i))
					}
					for _, other := range c.nodes {
						if other != n {
							other.snapshot(1)
						}
					}
				}
				n.start()
				c.awaitAll()
			}
			if len(c.nodes) > 1 {
				n := c.nodes[2]
				n.replace(13)
				c.awaitAll()
				n.crash(0)
				n.start()
				c.awaitAll()
				if infos, err := n.db.ListNodeInfo(); err != nil || !slices.Equal(infos, []raftio.NodeInfo{info(1, 13), info(2, 13)}) {
					t.Errorf("replicas %v, %v", infos, err)
				}
				c.standAlone(c.nodes[1], c.nodes[2])
			}
		})
	}
}

// standAlone has each of some nodes go on without all others, one after the other, with what
// of the states was durable.
func (c *hosts) standAlone(nodes ...*host) {
	c.t.Helper()
	for shard := uint64(1); shard <= 2; shard++ {
		c.propose(shard, "the last one")
	}
	c.awaitAll()
	for _, n := range c.nodes {
		n.close()
		n.network.put(n.id, nil)
	}
	all, want := c.nodes, maps.Clone(c.want)
	for _, n := range nodes {
		c.nodes, c.want = []*host{n}, maps.Clone(want)
		db := mustOpen(c.t, testOptions(n.fs))
		for shard, d := range n.disks {
			n.disks[shard] = d.survivor()
			must(c.t, db.StandAlone(shard, n.replica, transport.Target(n.id), n.disks[shard].contents().Index))
		}
		must(c.t, db.SaveAlone())
		db.mustClose(c.t)
		n.start()
		c.awaitAll()
		c.propose(1, "alone")
		n.snapshot(2)
		n.crash(0)
		n.start()
		c.awaitAll()
		c.retry(func(ctx context.Context) error {
			m, err := n.nh.SyncGetShardMembership(ctx, 1)
			if err == nil && (len(m.Nodes) != 1 || m.Nodes[n.replica] != transport.Target(n.id)) {
				c.t.Errorf("members %v", m)
			}
			return err
		})
		n.close()
		n.network.put(n.id, nil)
	}
	for _, n := range all {
		if !slices.Contains(nodes, n) {
			c.nodes = []*host{n}
		}
	}
	for _, n := range c.nodes { // as it was found
		n.start()
	}
}

// hosts are the nodes of a cluster with two shards.
type hosts struct {
	t       *testing.T
	network network
	rand    *rand.Rand
	members map[uint64]string
	nodes   []*host
	want    map[string]uint64 // commands acknowledged, with their shards

	mu     sync.Mutex
	frozen bool // what is acknowledged does not count
}

// host is a node: what is left of it when it is down, and what runs.
type host struct {
	*hosts
	id      uint64
	replica uint64
	joins   bool // its replicas came later
	fs      *vfs.MemFS
	disks   map[uint64]*disk

	db opened
	nh *dragonboat.NodeHost
}

func (c *hosts) add(id uint64) {
	n := &host{hosts: c, id: id, replica: id, fs: vfs.NewCrashableMem(), disks: map[uint64]*disk{1: newDisk(), 2: newDisk()}}
	c.nodes = append(c.nodes, n)
	n.start()
}

func (n *host) start() {
	n.db = mustOpen(n.t, testOptions(n.fs))
	cfg := config.NodeHostConfig{NodeHostDir: "/host", RTTMillisecond: 5, RaftAddress: transport.Target(n.id)}
	cfg.Expert.LogDBFactory = Factory{Log: n.db.log}
	t := transport.New(link{&n.network, n.id}, nil)
	cfg.Expert.TransportFactory = t
	cfg.Expert.Engine = config.EngineConfig{ExecShards: 1, CommitShards: 1, ApplyShards: 1, SnapshotShards: 2, CloseShards: 1}
	cfg.Expert.LogDB = config.GetTinyMemLogDBConfig()
	must(n.t, environment.Prepare(&cfg, n.fs, Format))
	var err error
	n.nh, err = dragonboat.NewNodeHost(cfg)
	must(n.t, err)
	n.network.put(n.id, t)
	n.startReplicas()
}

func (n *host) startReplicas() {
	members := n.members
	if n.joins {
		members = nil
	}
	for shard, d := range n.disks {
		must(n.t, n.nh.StartOnDiskReplica(members, n.joins, func(uint64, uint64) statemachine.IOnDiskStateMachine { return d }, config.Config{
			ShardID: shard, ReplicaID: n.replica, ElectionRTT: 10, HeartbeatRTT: 1, CheckQuorum: true, PreVote: true,
		}))
	}
}

// replace has other replicas take the place of the node's.
func (n *host) replace(replica uint64) {
	other := n.nodes[0]
	for shard := uint64(1); shard <= 2; shard++ {
		n.retry(func(ctx context.Context) error { return other.nh.SyncRequestDeleteReplica(ctx, shard, n.replica, 0) })
		if err := n.nh.StopReplica(shard, n.replica); err != nil && !errors.Is(err, dragonboat.ErrShardNotFound) {
			n.t.Fatal(err)
		}
		n.retry(func(ctx context.Context) error { return n.nh.SyncRemoveData(ctx, shard, n.replica) })
		n.retry(func(ctx context.Context) error {
			return other.nh.SyncRequestAddReplica(ctx, shard, replica, transport.Target(n.id), 0)
		})
	}
	n.replica, n.joins = replica, true
	n.disks = map[uint64]*disk{1: newDisk(), 2: newDisk()}
	n.startReplicas()
}

func (n *host) close() {
	n.nh.Close()
	must(n.t, n.db.log.Close())
}

// crash stops the node and takes back what was not durable at a moment before that, in the
// midst of writes, but for some blocks.
func (n *host) crash(percent int) {
	command := fmt.Sprint("amid load ", len(n.want))
	stop := n.load()
	n.propose(1, command)
	n.freeze(true)
	n.network.put(n.id, nil) // from here on nobody hears what is going to be lost
	disks := make(map[uint64]*disk)
	for shard, d := range n.disks {
		disks[shard] = d.survivor()
	}
	survivor := n.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: n.rand})
	stop()
	n.close()
	n.fs, n.disks = survivor, disks
	n.freeze(false)
}

func (c *hosts) freeze(frozen bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.frozen = frozen
}

// load proposes commands of both shards, at each node, until stop is called.
func (c *hosts) load() (stop func()) {
	ctx, cancel := context.WithCancel(c.t.Context())
	var running sync.WaitGroup
	for _, n := range c.nodes {
		for shard := uint64(1); shard <= 2; shard++ {
			session := n.nh.GetNoOPSession(shard)
			running.Go(func() {
				for i := 0; ctx.Err() == nil; i++ {
					once, cancel := context.WithTimeout(ctx, time.Second)
					command := fmt.Sprintf("%d by %d, %p", i, n.id, session)
					if _, err := n.nh.SyncPropose(once, session, []byte(command)); err == nil {
						c.acknowledged(shard, command)
					}
					cancel()
				}
			})
		}
	}
	return func() {
		cancel()
		running.Wait()
	}
}

func (c *hosts) acknowledged(shard uint64, command string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.frozen {
		c.want[command] = shard
	}
}

// snapshot takes one and has the log cut behind it.
func (n *host) snapshot(shard uint64) {
	n.t.Helper()
	n.retry(func(ctx context.Context) error {
		_, err := n.nh.SyncRequestSnapshot(ctx, shard, dragonboat.SnapshotOption{OverrideCompactionOverhead: true, CompactionOverhead: 1})
		return err
	})
}

// propose proposes a command until it is acknowledged.
func (c *hosts) propose(shard uint64, command string) {
	c.t.Helper()
	c.retry(func(ctx context.Context) error {
		n := c.nodes[c.rand.IntN(len(c.nodes))]
		_, err := n.nh.SyncPropose(ctx, n.nh.GetNoOPSession(shard), []byte(command))
		return err
	})
	c.acknowledged(shard, command)
}

// awaitAll waits until each node has applied all that was acknowledged.
func (c *hosts) awaitAll() {
	c.t.Helper()
	for _, n := range c.nodes {
		for shard, d := range n.disks {
			c.retry(func(ctx context.Context) error {
				_, err := n.nh.SyncRead(ctx, shard, nil)
				return err
			})
			applied := d.applied()
			for command, of := range c.want {
				if of == shard && !applied[command] {
					c.t.Fatalf("node %d has lost %q", n.id, command)
				}
			}
		}
	}
}

// retry calls f until it succeeds. That a leader is missing for a while is no failure.
func (c *hosts) retry(f func(ctx context.Context) error) {
	c.t.Helper()
	for {
		ctx, cancel := context.WithTimeout(c.t.Context(), time.Second)
		err := f(ctx)
		cancel()
		switch {
		case err == nil:
			return
		case errors.Is(err, dragonboat.ErrRejected):
			return // there is such a snapshot already
		case !errors.Is(err, dragonboat.ErrTimeout) && !dragonboat.IsTempError(err):
			c.t.Fatal(err)
		}
		runtime.Gosched()
	}
}

// disk is a state machine, and what of it is durable.
type disk struct {
	mu               sync.Mutex
	current, durable contents
}

type contents struct {
	Index    uint64
	Commands map[string]bool
}

func (c contents) clone() contents { return contents{c.Index, maps.Clone(c.Commands)} }

func newDisk() *disk {
	return &disk{current: contents{Commands: map[string]bool{}}, durable: contents{Commands: map[string]bool{}}}
}

func (d *disk) survivor() *disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	return &disk{current: d.durable.clone(), durable: d.durable.clone()}
}

func (d *disk) applied() map[string]bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.current.Commands)
}

func (d *disk) Open(<-chan struct{}) (uint64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.current.Index, nil
}

func (d *disk) Update(entries []statemachine.Entry) ([]statemachine.Entry, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range entries {
		if e.Index <= d.current.Index {
			return nil, fmt.Errorf("entry %d again, after %d", e.Index, d.current.Index)
		}
		d.current.Index = e.Index
		d.current.Commands[string(e.Cmd)] = true
	}
	return entries, nil
}

func (d *disk) Sync() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.durable = d.current.clone()
	return nil
}

func (d *disk) Lookup(any) (any, error)       { return nil, nil }
func (d *disk) PrepareSnapshot() (any, error) { return d.contents(), nil }
func (d *disk) Close() error                  { return nil }

func (d *disk) contents() contents {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.current.clone()
}

func (d *disk) SaveSnapshot(prepared any, w io.Writer, _ <-chan struct{}) error {
	return json.NewEncoder(w).Encode(prepared)
}

func (d *disk) RecoverFromSnapshot(r io.Reader, _ <-chan struct{}) error {
	var c contents
	if err := json.NewDecoder(r).Decode(&c); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.current, d.durable = c, c.clone()
	return nil
}

// network are the links between the nodes of a process.
type network struct {
	mu    sync.RWMutex
	nodes map[uint64]*transport.Transport
}

var errDown = errors.New("the node is down")

func (n *network) put(node uint64, t *transport.Transport) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.nodes[node] = t
}

// between returns the transport of a node if it and another one are connected.
func (n *network) between(from, node uint64) (*transport.Transport, error) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if t := n.nodes[node]; t != nil && n.nodes[from] != nil {
		return t, nil
	}
	return nil, errDown
}

// link is a node's end of the network.
type link struct {
	*network
	from uint64
}

func (l link) Connected(node uint64) error {
	_, err := l.between(l.from, node)
	return err
}

func (l link) Send(node uint64, frame []byte) error {
	t, err := l.between(l.from, node)
	if err != nil {
		return err
	}
	return t.Receive(l.from, frame)
}

func (l link) Stream(_ context.Context, node uint64) (transport.Stream, error) {
	return stream{l, node}, l.Connected(node)
}

type stream struct {
	link
	node uint64
}

func (s stream) Send(frame []byte) error {
	t, err := s.between(s.from, s.node)
	if err != nil {
		return err
	}
	if wanted, err := t.ReceiveChunk(frame, func(*pb.Chunk) error { return nil }); !wanted {
		return errors.Join(errDown, err)
	}
	return nil
}

func (s stream) Close() {}
