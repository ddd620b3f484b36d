package etcd

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/proa-kv/proa/bufpool"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/internal/leaktest"
	"github.com/proa-kv/proa/raftgroup/datadir"
	"github.com/proa-kv/proa/raftgroup/engine"
	"github.com/proa-kv/proa/raftgroup/placement"
	"github.com/proa-kv/proa/raftlog"
	"github.com/proa-kv/proa/storage"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// lone is an engine that is its cluster's only one, and whose node is the test: it runs
// the passes, and there is no control plane.
type lone struct {
	*Engine
	t        testing.TB
	dir      *datadir.Dir
	clock    *manualClock
	expelled []string
	failure  error
}

// newLone opens an engine with so many shards, of which it leads each.
func newLone(t testing.TB, shards int) *lone {
	t.Helper()
	l := &lone{t: t, clock: &manualClock{}}
	l.clock.ms.Store(1_000_000)
	logger := slog.New(slog.DiscardHandler)
	dir, err := datadir.Open(vfs.NewMem(), "/proa", datadir.Asked{Shards: shards}, 0, logger)
	must(t, err)
	l.dir = dir
	must(t, dir.FoundAlone(datadir.Member{}, datadir.Asked{Shards: shards}, logger))
	r := &engine.Resources{
		Node: dir.Node, Shards: shards, Transport: l, Clock: l.clock, Logger: logger, Context: context.Background(),
		Limits: &engine.Limits{
			QueueOps: 4096, QueueBytes: 64 << 20, BatchOps: 1000, BatchBytes: 1 << 20, EntryBytes: 48 << 20,
			GrowthBytes: command.ValueBytesMax, TurnBytes: 64 << 20, LogBytes: 512 << 20, LogTrailing: 5000,
		},
		Timing: engine.Timing{Heartbeat: 150 * time.Millisecond, ElectionMin: 300 * time.Millisecond, Timeout: 30 * time.Second, Started: l.clock.Boot()},
		Time:   new(engine.ClusterTime), State: new(engine.Conditions), Growing: new(engine.Growth),
	}
	r.State.Set(engine.Alone)
	r.State.Set(engine.Upgraded)
	l.Engine = New(r, loneHost{l})
	lo := dir.LogOptions(dir.FS, dir.Path)
	lo.SegmentBytes = 1 << 20
	log, recovery, err := raftlog.Open(lo)
	must(t, err)
	so := dir.StateOptions(dir.FS, dir.Path)
	so.RowCacheBytes, so.BlockCacheBytes, so.MemtableBytes, so.OnFlush, so.OnFatal = 1<<20, 1<<20, 512<<10, l.CutLog, loneHost{l}.Fail
	store, err := storage.Open(so)
	must(t, err)
	r.Log, r.Store = log, store
	r.Time.Begin(l.clock, 0)
	r.Time.Set(engine.OwnClock(l.clock))
	must(t, dir.Begin(logger))
	must(t, dir.Bootstrap(log, recovery.Segments))
	must(t, l.Open(engine.Founds))
	t.Cleanup(func() {
		if !l.State.Is(engine.Stopped) {
			l.stop()
		}
		must(t, l.WriteRest())
		must(t, store.Close())
		must(t, log.Close())
		must(t, dir.Close())
		if l.failure != nil {
			t.Error(l.failure)
		}
	})
	return l
}

// stop closes the engine.
func (l *lone) stop() {
	l.State.Set(engine.Stopped)
	must(l.t, l.Close(context.Background()))
}

// run runs all commits that are due.
func (l *lone) run() {
	for l.Acquire() {
		l.Run()
	}
}

// runUntil runs commits until a condition holds: a command may wait for the flush of a
// memtable.
func (l *lone) runUntil(what string, holds func() bool) {
	l.t.Helper()
	l.run()
	for deadline := time.Now().Add(time.Minute); !holds(); l.run() {
		if time.Now().After(deadline) {
			l.t.Fatalf("no %s", what)
		}
		l.schedule.request(messagesDue | commandsDue)
	}
}

// propose queues a command of shard 0.
func (l *lone) propose(c *command.Command) *keeper {
	l.t.Helper()
	k := &keeper{}
	must(l.t, l.Propose(0, c, k, command.Tag{}))
	return k
}

// put has the shard of a key carry out a Put.
func (l *lone) put(key, value string) {
	l.t.Helper()
	k := &keeper{}
	must(l.t, l.Propose(l.shardOf([]byte(key)), put(key, value), k, command.Tag{}))
	l.runUntil("outcome of a Put", func() bool { return k.heard })
}

// value returns the value of a key, "" where there is none.
func (l *lone) value(key string) string {
	b := bufpool.Get(64)
	defer b.Release()
	_, _, err := l.Store.Append(b, l.shardOf([]byte(key)), []byte(key), l.Time.Now(), command.AnyValue)
	must(l.t, err)
	return string(b.B)
}

// shardOf says to which shard a key belongs: its last byte does.
func (l *lone) shardOf(key []byte) int { return int(key[len(key)-1]) % l.Shards }

// Send, Transmit, SendFrame, Connected, SendSnapshot and Expel are the transport's.
func (l *lone) Send(uint64, uint32, *raftpb.Message) {}

func (l *lone) Transmit() {}

func (l *lone) SendFrame(uint64, []byte) error { return context.Canceled }

func (l *lone) Connected(uint64) error { return context.Canceled }

func (l *lone) SendSnapshot(_ uint64, s engine.OutgoingSnapshot) { s.Done(context.Canceled) }

func (l *lone) Expel(node uint64, err error) {
	l.expelled = append(l.expelled, fmt.Sprintf("node %d: %v", node, err))
}

// loneHost is the control plane of a lone engine.
type loneHost struct{ l *lone }

func (h loneHost) Fail(err error) {
	h.l.failure = err
	h.l.State.Set(engine.Failed)
}

func (h loneHost) Flush() {
	if err := h.l.Store.FlushAsync(); err != nil {
		h.Fail(err)
	}
}

func (h loneHost) Drive() { h.l.run() }

func (h loneHost) ShardRow(shard int) placement.Shard { return h.l.dir.FirstShards()[shard] }

func (loneHost) RolledBack()             {}
func (loneHost) Kick()                   {}
func (loneHost) NoteFsync(time.Duration) {}
func (loneHost) Heard(uint64)            {}
func (loneHost) Lost(uint64)             {}
func (loneHost) KeepTime()               {}
func (loneHost) TickCluster()            {}
func (loneHost) MapApplied() error       { return nil }
func (loneHost) MarkApplied(int, uint64) {}
func (loneHost) ReplicaDown()            {}
func (loneHost) Wanted(int, uint64) bool { return false }
func (loneHost) LeaderOf(int) uint64     { return 0 }
func (loneHost) Reconcile(int)           {}

// manualClock is set by hand.
type manualClock struct{ ms atomic.Uint64 }

func (c *manualClock) NowMillis() uint64 { return c.ms.Load() }
func (c *manualClock) Boot() int64       { return int64(c.ms.Load()) * 1e6 }
func (c *manualClock) Monotonic() int64  { return c.Boot() }

// keeper keeps the outcome of one command, and the status of its result.
type keeper struct {
	heard   bool
	outcome command.Outcome
	status  command.Status
}

func (k *keeper) Complete(_ command.Tag, o command.Outcome, r *command.Result) {
	if k.heard {
		panic("a second outcome")
	}
	k.heard, k.outcome = true, o
	if r != nil {
		k.status = r.Status
	}
}

func put(key, value string) *command.Command {
	return &command.Command{Kind: command.Put, Key: []byte(key), Value: []byte(value)}
}

func puts(pairs ...string) (ops []command.Command) {
	for i := 0; i < len(pairs); i += 2 {
		ops = append(ops, *put(pairs[i], pairs[i+1]))
	}
	return ops
}

// TestLoneEngine: an engine needs of its node what Resources and Host say, and no more.
func TestLoneEngine(t *testing.T) {
	l := newLone(t, 3)
	for _, v := range l.Views() {
		if !v.Leads.Load() || !v.Leased(l.clock) || v.Leader.Load() != l.Node {
			t.Fatalf("it does not lead: %+v", v)
		}
	}
	l.put("k0", "v")
	c := &command.Command{Kind: command.Batch, Ops: puts("k1", "a", "k2", "b")}
	k := &keeper{}
	must(t, l.ProposeAcross(l.shardOf, c, k, command.Tag{}))
	l.run()
	read := &keeper{}
	must(t, l.ReadIndex(0, read, command.Tag{}))
	l.run()
	if !k.heard || k.outcome != command.Applied || !read.heard || read.outcome != command.Applied {
		t.Errorf("outcomes %+v and %+v", k, read)
	}
	if got := strings.Join([]string{l.value("k0"), l.value("k1"), l.value("k2")}, " "); got != "v a b" {
		t.Errorf("found %q", got)
	}
}
