package raftgroup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/proa-kv/proa/bufpool"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/internal/leaktest"
	"github.com/proa-kv/proa/raftgroup/datadir"
	"github.com/proa-kv/proa/raftgroup/engine"
	"github.com/proa-kv/proa/raftgroup/placement"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// ear hears outcomes.
type ear struct {
	mu       sync.Mutex
	outcomes map[uint64]command.Outcome
	results  map[uint64]command.Result
}

func newEar() *ear {
	return &ear{outcomes: make(map[uint64]command.Outcome), results: make(map[uint64]command.Result)}
}

func (e *ear) Complete(tag command.Tag, o command.Outcome, r *command.Result) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, twice := e.outcomes[tag.ID]; twice {
		panic(fmt.Sprintf("second outcome of %d", tag.ID))
	}
	e.outcomes[tag.ID] = o
	if r != nil {
		e.results[tag.ID] = *r
	}
}

// heard returns how many outcomes have come. Some engines deliver them on a thread of theirs.
func (e *ear) heard() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.outcomes)
}

// manualClock is set by hand.
type manualClock struct {
	ms    atomic.Uint64
	began time.Time // since then it runs by itself as well, unless it is zero
}

func (c *manualClock) NowMillis() uint64 { return uint64(c.Boot() / 1e6) }

func (c *manualClock) Boot() int64 {
	boot := int64(c.ms.Load()) * 1e6
	if !c.began.IsZero() {
		boot += int64(time.Since(c.began))
	}
	return boot
}

func (c *manualClock) Monotonic() int64 { return c.Boot() }

// wrongClock is a manualClock whose wall clock is off, in milliseconds.
type wrongClock struct {
	*manualClock
	off atomic.Int64
}

func (c *wrongClock) NowMillis() uint64 {
	return uint64(int64(c.manualClock.NowMillis()) + c.off.Load())
}

func (c *wrongClock) setOff(d time.Duration) { c.off.Store(d.Milliseconds()) }

const dir = "/proa"

// memNode opens a node in f that nobody drives: the test runs its passes.
func memNode(t testing.TB, f vfs.FS, o Options) *Node {
	t.Helper()
	n, err := openMem(f, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeNode(t, n) })
	return n
}

func openMem(f vfs.FS, o Options) (*Node, error) {
	o.FS, o.Dir = f, dir
	o.RowCacheBytes, o.BlockCacheBytes, o.MemtableBytes = 1<<20, 1<<20, 512<<10
	o.SegmentBytes = 1 << 20
	return Open(o)
}

func closeNode(t testing.TB, n *Node) {
	t.Helper()
	if n.log == nil {
		return // closed by the test
	}
	err := n.Close(context.Background())
	n.log = nil
	if err != nil && !n.state.Is(engine.Failed) {
		t.Error(err)
	}
}

func run(n *Node) {
	for n.Acquire() {
		n.Run()
	}
}

// runUntil runs commits until a condition holds: a command may wait for the flush of a
// memtable, which asks for another pass.
func runUntil(t testing.TB, n *Node, what string, holds func() bool) {
	t.Helper()
	run(n)
	for deadline := time.Now().Add(time.Minute); !holds(); run(n) {
		if time.Now().After(deadline) {
			t.Fatalf("no %s", what)
		}
		n.engine.Wake()
	}
}

// hear runs commits until e has heard so many outcomes.
func hear(t testing.TB, n *Node, e *ear, outcomes int) {
	t.Helper()
	runUntil(t, n, fmt.Sprint(outcomes, " outcomes"), func() bool { return e.heard() >= outcomes })
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func put(key, value string) *command.Command {
	return &command.Command{Kind: command.Put, Key: []byte(key), Value: []byte(value)}
}

// shardFor spreads test keys.
func shardFor(n *Node, key string) int {
	h := 0
	for _, b := range []byte(key) {
		h = h*31 + int(b)
	}
	return (h & 0xffffff) % n.Shards()
}

func read(t testing.TB, n *Node, key string) (string, bool) {
	t.Helper()
	b := bufpool.Get(64)
	defer b.Release()
	_, state := n.Read(b, shardFor(n, key), []byte(key), n.NowMillis(), command.AnyValue)
	switch state {
	case command.ReadFound:
		return string(b.B), true
	case command.ReadAbsent:
		return "", false
	}
	t.Fatalf("reading %q: state %d", key, state)
	return "", false
}

func TestOutcomeAfterApply(t *testing.T) { onEngines(t, testOutcomeAfterApply) }

func testOutcomeAfterApply(t *testing.T, kind placement.Engine) {
	n := memNode(t, vfs.NewMem(), Options{Engine: kind.String()})
	e := newEar()
	if err := n.Propose(shardFor(n, "a"), put("a", "1"), e, command.Tag{ID: 1}); err != nil {
		t.Fatal(err)
	}
	if len(e.outcomes) != 0 {
		t.Fatal("an outcome before the pass")
	}
	hear(t, n, e, 1)
	if o, ok := e.outcomes[1]; !ok || o != command.Applied {
		t.Fatalf("outcome %v, %v", o, ok)
	}
	if v, ok := read(t, n, "a"); !ok || v != "1" {
		t.Fatalf("read %q, %v", v, ok)
	}
}

// TestPendingAfterWrite runs passes and counts those that were asked for: one
// for a write, and one more for what came while the disk was waited for.
func TestPendingAfterWrite(t *testing.T) {
	n := memNode(t, vfs.NewMem(), Options{})
	run(n) // what a start leaves
	e := newEar()
	propose := func(id uint64) {
		t.Helper()
		if err := n.Propose(0, put("k", "v"), e, command.Tag{ID: id}); err != nil {
			t.Fatal(err)
		}
	}
	propose(1)
	if !n.Acquire() {
		t.Fatal("nothing to do after a proposal")
	}
	n.Run()
	if e.outcomes[1] != command.Applied || n.Pending() {
		t.Fatalf("after the write: outcome %v, pending %v", e.outcomes[1], n.Pending())
	}
	propose(2)
	if !n.Acquire() {
		t.Fatal("nothing to do after a proposal")
	}
	w := n.Prepare()
	w.Sync()
	propose(3)
	if !n.Deliver(w) {
		t.Fatal("another thread delivers")
	}
	n.Release()
	if _, early := e.outcomes[3]; early || e.outcomes[2] != command.Applied || !n.Acquire() {
		t.Fatalf("a command that came during the write: outcomes %v, pending %v", e.outcomes, n.Pending())
	}
	n.Run()
	if e.outcomes[3] != command.Applied || n.Pending() {
		t.Fatalf("after the second write: outcome %v, pending %v", e.outcomes[3], n.Pending())
	}
}

// TestCrash proposes, crashes with the loss of everything that was not synced
// (and of a random part of what is in between), and finds every acknowledged
// write: D1 and D2 with one node.
func TestCrash(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	f := vfs.NewCrashableMem()
	acknowledged := map[string]string{}
	for round := range 30 {
		n, err := openMem(f, Options{Shards: 3})
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		for k, want := range acknowledged {
			if got, ok := read(t, n, k); !ok || got != want {
				t.Fatalf("round %d: acknowledged %s = %q, found %q, %v", round, k, want, got, ok)
			}
		}
		e := newEar()
		writes := map[uint64][2]string{}
		var id uint64
		for range 1 + rng.IntN(8) {
			for range 1 + rng.IntN(40) {
				id++
				k, v := fmt.Sprintf("k%d", rng.IntN(200)), fmt.Sprintf("%d.%d", round, id)
				if err := n.Propose(shardFor(n, k), put(k, v), e, command.Tag{ID: id}); err != nil {
					t.Fatal(err)
				}
				writes[id] = [2]string{k, v}
			}
			run(n)
			if rng.IntN(3) == 0 {
				if err := n.store.Flush(); err != nil {
					t.Fatal(err)
				}
				n.engine.CutLog()
			}
		}
		for i := uint64(1); i <= id; i++ {
			if e.outcomes[i] != command.Applied {
				t.Fatalf("round %d: outcome of %d: %v", round, i, e.outcomes[i])
			}
			acknowledged[writes[i][0]] = writes[i][1]
		}
		crashed := f.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
		closeNode(t, n)
		f = crashed
	}
}

func TestFailedFsyncStopsTheNode(t *testing.T) { onEngines(t, testFailedFsyncStopsTheNode) }

func testFailedFsyncStopsTheNode(t *testing.T, kind placement.Engine) {
	var broken atomic.Bool
	f := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if broken.Load() && strings.Contains(op.Path, "/raft/") && (op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData || op.Kind == errorfs.OpFileSyncTo) {
			return errors.New("injected")
		}
		return nil
	}))
	n := memNode(t, f, Options{Engine: kind.String()})
	e := newEar()
	propose := func(id uint64) error {
		return n.Propose(0, put("k", "v"), e, command.Tag{ID: id})
	}
	if err := propose(1); err != nil {
		t.Fatal(err)
	}
	hear(t, n, e, 1)
	broken.Store(true)
	if err := propose(2); err != nil {
		t.Fatal(err)
	}
	hear(t, n, e, 2)
	if o := e.outcomes[2]; o != command.Lost {
		t.Fatalf("outcome %v after a failed fsync, want Lost", o)
	}
	if err := <-n.Failure(); err == nil {
		t.Fatal("no error")
	}
	broken.Store(false) // a later fsync would succeed; it must not be tried
	if err := propose(3); !errors.Is(err, command.ErrFailed) {
		t.Fatalf("proposal after the failure: %v", err)
	}
	b := bufpool.Get(8)
	defer b.Release()
	if _, state := n.Read(b, 0, []byte("k"), 0, command.AnyValue); state != command.ReadFailed {
		t.Fatalf("read after the failure: %v", state)
	}
}

func TestFullDiskStopsTheNode(t *testing.T) { onEngines(t, testFullDiskStopsTheNode) }

func testFullDiskStopsTheNode(t *testing.T, kind placement.Engine) {
	var full atomic.Bool
	f := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if full.Load() && strings.Contains(op.Path, "/raft/") && (op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData || op.Kind == errorfs.OpFileSyncTo) {
			return syscall.ENOSPC
		}
		return nil
	}))
	n := memNode(t, f, Options{Engine: kind.String()})
	full.Store(true)
	must(t, n.Propose(0, put("k", "v"), newEar(), command.Tag{ID: 1}))
	run(n)
	if err := <-n.Failure(); !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "free space on the disk of "+dir+" and start again") {
		t.Error(err)
	}
}

func TestQueueIsBounded(t *testing.T) { onEngines(t, testQueueIsBounded) }

func testQueueIsBounded(t *testing.T, kind placement.Engine) {
	n := memNode(t, vfs.NewMem(), Options{Engine: kind.String(), QueueDepth: 10})
	e := newEar()
	for i := range 10 {
		if err := n.Propose(0, put("k", "v"), e, command.Tag{ID: uint64(i)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.Propose(0, put("k", "v"), e, command.Tag{ID: 99}); !errors.Is(err, command.ErrBusy) {
		t.Fatalf("the eleventh: %v", err)
	}
	if err := n.Propose(1, put("k", "v"), e, command.Tag{ID: 100}); err != nil {
		t.Fatalf("another shard: %v", err)
	}
	hear(t, n, e, 11)
	if err := n.Propose(0, put("k", "v"), e, command.Tag{ID: 101}); err != nil {
		t.Fatalf("after the pass: %v", err)
	}
}

func TestEntryBounds(t *testing.T) { onEngines(t, testEntryBounds) }

func testEntryBounds(t *testing.T, kind placement.Engine) {
	n := memNode(t, vfs.NewMem(), Options{Engine: kind.String(), BatchOpsMax: 3, BatchBytesMax: 1000})
	e := newEar()
	before := n.engine.ShardCounters(0).Last
	for i := range 7 {
		if err := n.Propose(0, put("k", fmt.Sprint(i)), e, command.Tag{ID: uint64(i)}); err != nil {
			t.Fatal(err)
		}
	}
	hear(t, n, e, 7)
	after := n.engine.ShardCounters(0).Last
	if after-before != 3 {
		t.Errorf("7 commands of at most 3 an entry made %d entries", after-before)
	}
	huge := &command.Command{Kind: command.Put, Key: []byte("k"), Value: make([]byte, n.lim.EntryBytes)}
	if err := n.Propose(0, huge, e, command.Tag{ID: 50}); !errors.Is(err, command.ErrTooLarge) {
		t.Errorf("a command beyond the bound: %v", err)
	}
	large := &command.Command{Kind: command.Put, Key: []byte("k"), Value: make([]byte, 15<<20)}
	if err := n.Propose(0, large, e, command.Tag{ID: 51}); err != nil {
		t.Errorf("the largest value: %v", err)
	}
	hear(t, n, e, 8)
	if e.outcomes[51] != command.Applied {
		t.Errorf("the largest value: %v", e.outcomes[51])
	}
}

// TestExpiry checks that an expired row is invisible at once, is removed
// through the log, and that time does not go back with the clock.
func TestExpiry(t *testing.T) {
	clock := &manualClock{}
	clock.ms.Store(1_000_000)
	n := memNode(t, vfs.NewMem(), Options{Clock: clock, Shards: 1})
	e := newEar()
	p := put("k", "v")
	p.Flags, p.TTLMillis = command.SetTTL, 1000
	if err := n.Propose(0, p, e, command.Tag{ID: 1}); err != nil {
		t.Fatal(err)
	}
	run(n)
	clock.ms.Add(999)
	if _, ok := read(t, n, "k"); !ok {
		t.Fatal("gone a millisecond early")
	}
	clock.ms.Add(1)
	if _, ok := read(t, n, "k"); ok {
		t.Fatal("visible after its time")
	}
	if err := n.Propose(0, put("other", "v"), e, command.Tag{ID: 2}); err != nil {
		t.Fatal(err)
	}
	run(n) // the log has seen this time now
	clock.ms.Add(^uint64(500 - 1))
	if _, ok := read(t, n, "k"); ok {
		t.Fatal("visible again when the clock went back")
	}
	clock.ms.Add(1000)
	last := n.engine.ShardCounters(0).Last
	n.Tick()
	run(n)
	if after := n.engine.ShardCounters(0).Last; after != last+1 {
		t.Fatalf("a sweep is one entry; the log went from %d to %d", last, after)
	}
	if n.store.SweepDue(0, math.MaxUint64-1) {
		t.Fatal("something is left to expire")
	}
	n.Tick()
	run(n)
	if after := n.engine.ShardCounters(0).Last; after != last+1 {
		t.Fatal("a sweep without work")
	}
}

func TestLogIsCutBehindTheState(t *testing.T) {
	n := memNode(t, vfs.NewMem(), Options{Shards: 1})
	e := newEar()
	for i := range 50 {
		if err := n.Propose(0, put("k", fmt.Sprint(i)), e, command.Tag{ID: uint64(i)}); err != nil {
			t.Fatal(err)
		}
		run(n)
	}
	if err := n.store.Flush(); err != nil {
		t.Fatal(err)
	}
	n.engine.CutLog()
	run(n)
	first := n.engine.ShardCounters(0).First
	last := n.engine.ShardCounters(0).Last
	if first != last+1 {
		t.Fatalf("the log still holds %d to %d", first, last)
	}
	closeNode(t, n)
	again := memNode(t, n.opt.FS, Options{})
	if again.Replay().Entries != 0 {
		t.Errorf("%d entries replayed after a clean stop", again.Replay().Entries)
	}
	if v, _ := read(t, again, "k"); v != "49" {
		t.Errorf("found %q", v)
	}
}

func TestDirectoryIdentity(t *testing.T) { onEngines(t, testDirectoryIdentity) }

func testDirectoryIdentity(t *testing.T, kind placement.Engine) {
	f := vfs.NewMem()
	n := memNode(t, f, Options{Engine: kind.String(), Shards: 4})
	if _, err := openMem(f, Options{Engine: kind.String()}); !errors.Is(err, datadir.ErrInUse) {
		t.Errorf("a second server: %v", err)
	}
	closeNode(t, n)
	if _, err := openMem(f, Options{Engine: kind.String(), Shards: 5}); !errors.Is(err, datadir.ErrOtherShards) {
		t.Errorf("another number of shards: %v", err)
	}
	if _, err := openMem(f, Options{Engine: kind.String(), ID: 7}); !errors.Is(err, datadir.ErrOtherNode) {
		t.Errorf("another node: %v", err)
	}
	again := memNode(t, f, Options{Engine: kind.String()})
	if again.Shards() != 4 {
		t.Errorf("%d shards, the directory has 4", again.Shards())
	}
	closeNode(t, again)
	if err := f.RemoveAll(dir + "/raft"); err != nil {
		t.Fatal(err)
	}
	if _, err := openMem(f, Options{Engine: kind.String()}); !errors.Is(err, datadir.ErrLogMissing) {
		t.Errorf("without its log: %v", err)
	}
}

func TestDirectoryDamage(t *testing.T) {
	for name, c := range map[string]struct {
		identity string
		want     error
	}{
		"another format": {`{"format":99,"node_id":1,"shards":8}`, datadir.ErrDataFormat},
		"not JSON":       {"hello", datadir.ErrBadDirectory},
	} {
		t.Run(name, func(t *testing.T) {
			d := t.TempDir()
			if err := os.WriteFile(filepath.Join(d, datadir.IdentityFile), []byte(c.identity), 0o644); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(Options{Dir: d}); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
	t.Run("below a file", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(file, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(Options{Dir: filepath.Join(file, "data")}); !errors.Is(err, datadir.ErrBadDirectory) {
			t.Errorf("%v", err)
		}
	})
	t.Run("log without identity", func(t *testing.T) {
		d := t.TempDir()
		if err := os.MkdirAll(filepath.Join(d, datadir.LogDir, "x"), 0o755); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(Options{Dir: d}); !errors.Is(err, datadir.ErrBadDirectory) {
			t.Errorf("%v", err)
		}
	})
}

func TestTopologyMatchesShardOf(t *testing.T) {
	for _, shards := range []int{1, 2, 3, 7, 8, 100, 1024} {
		n := &Node{}
		n.shards = shards
		for range shards + 1 {
			n.views = append(n.views, &engine.View{})
		}
		owned := 0
		n.cmap.Store(placement.NewMap(n.meta()))
		for i, s := range n.Topology("x").Shards {
			for _, r := range s.Slots {
				for slot := int(r[0]); slot <= int(r[1]); slot++ {
					owned++
					if got := n.ShardOf(uint16(slot)); got != i {
						t.Fatalf("%d shards: slot %d belongs to %d, the topology says %d", shards, slot, got, i)
					}
				}
			}
		}
		if owned != slots {
			t.Errorf("%d shards own %d slots", shards, owned)
		}
	}
}

// TestCloseLeavesTheStateToTheLog: where the state cannot be written in time, the
// node closes all the same, and the log has what was acknowledged.
func TestCloseLeavesTheStateToTheLog(t *testing.T) { onEngines(t, testCloseLeavesTheStateToTheLog) }

func testCloseLeavesTheStateToTheLog(t *testing.T, kind placement.Engine) {
	mem := vfs.NewCrashableMem()
	var slow atomic.Bool
	release := make(chan struct{})
	f := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if slow.Load() && strings.HasSuffix(op.Path, ".sst") {
			<-release
		}
		return nil
	}))
	n := memNode(t, f, Options{Engine: kind.String()})
	e := newEar()
	for i := range 10 {
		put := &command.Command{Kind: command.Put, Key: fmt.Appendf(nil, "k%d", i), Value: []byte("v")}
		if err := n.Propose(shardFor(n, string(put.Key)), put, e, command.Tag{ID: uint64(i)}); err != nil {
			t.Fatal(err)
		}
	}
	hear(t, n, e, 10)
	slow.Store(true)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	err := n.Close(ctx)
	n.log = nil
	if !errors.Is(err, engine.ErrUnwritten) {
		t.Errorf("Close returned %v, want engine.ErrUnwritten", err)
	}
	crashed := mem.CrashClone(vfs.CrashCloneCfg{}) // what a kill leaves
	close(release)
	again := memNode(t, crashed, Options{Engine: kind.String()})
	for i := range 10 {
		if v, _ := read(t, again, fmt.Sprintf("k%d", i)); v != "v" {
			t.Errorf("k%d is %q", i, v)
		}
	}
}

// TestManyThreads proposes and runs passes from many goroutines at once, as a
// server's threads do, with a driver beside them.
func TestManyThreads(t *testing.T) { onEngines(t, testManyThreads) }

func testManyThreads(t *testing.T, kind placement.Engine) {
	n := memNode(t, vfs.NewMem(), Options{Engine: kind.String()})
	n.Start(nil)
	const threads, each = 8, 500
	e := newEar()
	var wg sync.WaitGroup
	for w := range threads {
		wg.Add(1)
		go func() {
			defer wg.Done()
			incr := &command.Command{Kind: command.Incr, Delta: 1}
			for i := range each {
				incr.Key = fmt.Appendf(nil, "counter%d", i%16)
				for n.Propose(shardFor(n, string(incr.Key)), incr, e, command.Tag{ID: uint64(w*each + i)}) != nil {
				}
				if n.Acquire() {
					n.Run()
				}
			}
		}()
	}
	wg.Wait()
	hear(t, n, e, threads*each)
	ctx := context.Background()
	if err := n.Close(ctx); err != nil { // waits for a pass that still runs
		t.Fatal(err)
	}
	n.log = nil
	if len(e.outcomes) != threads*each {
		t.Fatalf("%d outcomes of %d proposals", len(e.outcomes), threads*each)
	}
	again := memNode(t, n.opt.FS, Options{Engine: kind.String()})
	sum := 0
	for i := range 16 {
		v, _ := read(t, again, fmt.Sprintf("counter%d", i))
		var x int
		fmt.Sscan(v, &x)
		sum += x
	}
	if sum != threads*each {
		t.Errorf("counted %d of %d", sum, threads*each)
	}
}

// mustPut writes a row on a node that is its own cluster.
func mustPut(t testing.TB, n *Node, key, value string) {
	t.Helper()
	e := newEar()
	if err := n.Propose(shardFor(n, key), put(key, value), e, command.Tag{}); err != nil {
		t.Fatal(err)
	}
	runUntil(t, n, "an outcome of putting "+key, func() bool { return e.heard() > 0 })
	e.mu.Lock()
	defer e.mu.Unlock()
	if o := e.outcomes[0]; o != command.Applied {
		t.Fatalf("putting %q: %v", key, o)
	}
}

func readAll(t testing.TB, f vfs.FS, path string) []byte {
	t.Helper()
	file, err := f.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	b, err := io.ReadAll(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func writeAll(t testing.TB, f vfs.FS, path string, b []byte) {
	t.Helper()
	file, err := f.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(file.Sync(), file.Close()); err != nil {
		t.Fatal(err)
	}
}
