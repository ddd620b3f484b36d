package logdb

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/lni/dragonboat/v4"
	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/logger"
	"github.com/lni/dragonboat/v4/statemachine"
	lnivfs "github.com/lni/vfs"

	"github.com/proa-kv/proa/raftgroup/dragonboat/transport"
)

// TestNodeHosts has dragonboat keep its logs in a DB, and talk by our transport, while one node after the other loses
// power or is killed, and catches up with entries or, where they are compacted, with a
// snapshot. Nothing acknowledged is lost.
func TestNodeHosts(t *testing.T) {
	for _, name := range []string{"raft", "rsm", "transport", "grpc", "dragonboat", "logdb", "LogDB", "raftpb", "config", "settings", "registry", "tan", "pebblekv"} {
		logger.GetLogger(name).SetLevel(logger.CRITICAL)
	}
	rounds := 8
	if testing.Short() {
		rounds = 3
	}
	for _, nodes := range []uint64{1, 3} {
		t.Run(fmt.Sprint(nodes, " nodes"), func(t *testing.T) {
			c := &hosts{
				t: t, network: network{nodes: make(map[uint64]*transport.Transport)}, rand: rand.New(rand.NewPCG(nodes, 0)),
				members: make(map[uint64]string), want: make(map[string]bool),
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
				for _, n := range c.nodes {
					n.awaitAll(1)
					n.awaitAll(2)
				}
			}
		})
	}
}

// hosts are the nodes of a cluster with two shards.
type hosts struct {
	t       *testing.T
	network network
	rand    *rand.Rand
	members map[uint64]string
	nodes   []*host
	want    map[string]bool // commands acknowledged
}

// host is a node: what is left of it when it is down, and what runs.
type host struct {
	*hosts
	id    uint64
	logFS *vfs.MemFS
	fs    *lnivfs.MemFS
	disks map[uint64]*disk

	db opened
	nh *dragonboat.NodeHost
}

func (c *hosts) add(id uint64) {
	n := &host{hosts: c, id: id, logFS: vfs.NewCrashableMem(), fs: lnivfs.NewStrictMem(), disks: map[uint64]*disk{1: newDisk(), 2: newDisk()}}
	c.nodes = append(c.nodes, n)
	n.start()
}

func (n *host) start() {
	n.db = mustOpen(n.t, testOptions(n.logFS))
	cfg := config.NodeHostConfig{NodeHostDir: "/host", RTTMillisecond: 5, RaftAddress: transport.Target(n.id)}
	cfg.Expert.FS = n.fs
	cfg.Expert.LogDBFactory = Factory{Log: n.db.log}
	t := transport.New(link{&n.network, n.id})
	cfg.Expert.TransportFactory = t
	cfg.Expert.Engine = config.EngineConfig{ExecShards: 1, CommitShards: 1, ApplyShards: 1, SnapshotShards: 2, CloseShards: 1}
	cfg.Expert.LogDB = config.GetTinyMemLogDBConfig()
	var err error
	n.nh, err = dragonboat.NewNodeHost(cfg)
	must(n.t, err)
	n.network.put(n.id, t)
	for shard, d := range n.disks {
		must(n.t, n.nh.StartOnDiskReplica(n.members, false, func(uint64, uint64) statemachine.IOnDiskStateMachine { return d }, config.Config{
			ShardID: shard, ReplicaID: n.id, ElectionRTT: 10, HeartbeatRTT: 1, CheckQuorum: true, PreVote: true,
		}))
	}
}

func (n *host) close() {
	n.network.put(n.id, nil)
	n.nh.Close()
	must(n.t, n.db.log.Close())
}

// crash stops the node and takes back what was not durable at a moment before that, but
// for some of the log's blocks.
func (n *host) crash(percent int) {
	disks := make(map[uint64]*disk)
	for shard, d := range n.disks {
		disks[shard] = d.survivor()
	}
	log := n.logFS.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: n.rand})
	n.fs.SetIgnoreSyncs(true)
	n.close()
	n.fs.ResetToSyncedState()
	n.fs.SetIgnoreSyncs(false)
	n.logFS, n.disks = log, disks
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
	c.want[command] = true
}

// awaitAll waits until the node has applied all that was acknowledged.
func (n *host) awaitAll(shard uint64) {
	n.t.Helper()
	n.retry(func(ctx context.Context) error {
		_, err := n.nh.SyncRead(ctx, shard, nil)
		return err
	})
	applied := n.disks[shard].applied()
	for command := range n.want {
		if command[2] == byte('0'+shard) && !applied[command] {
			n.t.Fatalf("node %d has lost %q", n.id, command)
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

func (n *network) get(node uint64) (*transport.Transport, error) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if t := n.nodes[node]; t != nil {
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
	_, err := l.get(node)
	return err
}

func (l link) Send(node uint64, frame []byte) error {
	t, err := l.get(node)
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
	t, err := s.get(s.node)
	if err != nil {
		return err
	}
	if wanted, err := t.ReceiveChunk(frame); !wanted {
		return errors.Join(errDown, err)
	}
	return nil
}

func (s stream) Close() {}
