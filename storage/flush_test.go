package storage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// inFlush reports whether a file is one that a flush writes.
func inFlush(path string) bool { return strings.Contains(path, "/"+flushDirName+"/") }

// upsetAll applies to both shards an entry that changes every kind of record.
func upsetAll(t *testing.T, s *Store, n uint64) {
	t.Helper()
	c := cmds{
		in(n%5+1, n, 0, putTTL("ttl", strings.Repeat("t", 100), 1e6)),
		put("counter", fmt.Sprint(n)),
		put(fmt.Sprintf("row%03d", n%40), strings.Repeat("r", 300)),
		del(fmt.Sprintf("row%03d", (n+20)%40)),
	}
	for shard := range 2 {
		if err := s.Apply([]Entry{{Shard: shard, Index: n, Data: entryOf(n, c...)}}, &delivered{}); err != nil {
			t.Fatal(err)
		}
	}
}

func flushFilesIn(t *testing.T, fs vfs.FS) []string {
	t.Helper()
	names, err := fs.List(fs.PathJoin("data", flushDirName))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// Wherever a flush is cut off, the store is what it was before the flush or
// what it is after it, all files and both shards of it, and nothing is left of
// the files that were written.
func TestCrashAtEveryWriteOfAFlush(t *testing.T) {
	mem := vfs.NewCrashableMem()
	var mu sync.Mutex
	var cuts []*vfs.MemFS
	seed := uint64(0)
	watch := &errorfs.Toggle{Injector: errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() != errorfs.OpIsWrite {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		for _, survives := range []int{0, 50, 100} {
			seed++
			cuts = append(cuts, mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: survives, RNG: rand.New(rand.NewPCG(seed, 3))}))
		}
		return nil
	})}
	s := open(t, testOptions(errorfs.Wrap(mem, watch)))
	s.flusher.fileBytes = 2000
	for n := range uint64(60) {
		upsetAll(t, s, n+1)
	}
	states := map[uint64][]uint64{60: checksums(t, s)}
	for n := range uint64(30) {
		upsetAll(t, s, n+61)
	}
	files := s.flusher.number
	watch.On()
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	watch.Off()
	if s.Durable(0) != 90 || s.Durable(1) != 90 {
		t.Errorf("durable %d and %d after the flush", s.Durable(0), s.Durable(1))
	}
	if n := s.flusher.number - files; n < 5 {
		t.Errorf("%d files were written", n)
	}
	states[90] = checksums(t, s)
	closeStore(t, s)

	leftovers, found := 0, map[uint64]int{}
	for _, fs := range cuts {
		leftovers += len(flushFilesIn(t, fs))
		after := open(t, testOptions(fs))
		index := after.Applied(0)
		found[index]++
		if want, ok := states[index]; !ok || after.Applied(1) != index || !slices.Equal(checksums(t, after), want) {
			t.Fatalf("applied %d and %d after a crash, checksums %x, allowed are %x", index, after.Applied(1), checksums(t, after), states)
		}
		if names := flushFilesIn(t, fs); len(names) > 0 {
			t.Fatalf("left of a flush: %q", names)
		}
		closeStore(t, after)
	}
	if leftovers == 0 || found[60] == 0 || found[90] == 0 {
		t.Errorf("%d cuts, %d leftovers, indexes found: %v", len(cuts), leftovers, found)
	}
}

// A disk that is full or does not sync while a flush writes its files, or while
// Pebble takes them over: the store fails, readers still find everything, and
// what was durable stays.
func TestDiskFailsDuringAFlush(t *testing.T) {
	isSync := func(op errorfs.Op) bool { return op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData }
	for name, fails := range map[string]func(op errorfs.Op, n int) bool{
		"first file":  func(op errorfs.Op, n int) bool { return op.Kind == errorfs.OpCreate && inFlush(op.Path) },
		"later file":  func(op errorfs.Op, n int) bool { return op.Kind == errorfs.OpCreate && inFlush(op.Path) && n > 2 },
		"write":       func(op errorfs.Op, n int) bool { return op.Kind == errorfs.OpFileWrite && inFlush(op.Path) },
		"later write": func(op errorfs.Op, n int) bool { return op.Kind == errorfs.OpFileWrite && inFlush(op.Path) && n > 2 },
		"sync":        func(op errorfs.Op, n int) bool { return isSync(op) && inFlush(op.Path) },
		"last sync":   func(op errorfs.Op, n int) bool { return isSync(op) && inFlush(op.Path) && n > 3 },
		"read again":  func(op errorfs.Op, n int) bool { return op.Kind == errorfs.OpFileReadAt && inFlush(op.Path) },
		"link": func(op errorfs.Op, n int) bool {
			return op.Kind == errorfs.OpLink || op.Kind == errorfs.OpCreate && strings.HasSuffix(op.Path, ".sst") && !inFlush(op.Path)
		},
		"sync of the directory": func(op errorfs.Op, n int) bool { return isSync(op) && op.Path == "data" },
	} {
		t.Run(name, func(t *testing.T) {
			mem := vfs.NewCrashableMem()
			var files atomic.Int32 // that the flush has begun
			faults := &errorfs.Toggle{Injector: errorfs.InjectorFunc(func(op errorfs.Op) error {
				if op.Kind == errorfs.OpCreate && inFlush(op.Path) {
					files.Add(1)
				}
				if fails(op, int(files.Load())) {
					return syscall.ENOSPC
				}
				return nil
			})}
			o := testOptions(errorfs.Wrap(mem, faults))
			o.RowCacheBytes = -1
			fatal := make(chan error, 10)
			o.OnFatal = func(err error) { fatal <- err }
			s := open(t, o)
			s.flusher.fileBytes = 2000
			for n := range uint64(30) {
				upsetAll(t, s, n+1)
			}
			sums := checksums(t, s)
			for n := range uint64(30) {
				upsetAll(t, s, n+31)
			}
			want := scan(t, s, ScanOptions{Shards: []int{0, 1}})
			files.Store(0)
			faults.On()
			if err := s.Flush(); !errors.Is(err, ErrFailed) || !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("flush: %v", err)
			}
			if err := <-fatal; !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("told %v", err)
			}
			if err := s.Flush(); !errors.Is(err, ErrFailed) {
				t.Errorf("flush again: %v", err)
			}
			if s.Durable(0) != 30 || s.Durable(1) != 30 {
				t.Errorf("durable %d and %d", s.Durable(0), s.Durable(1))
			}
			diff(t, "scan", scan(t, s, ScanOptions{Shards: []int{0, 1}}), want)
			diff(t, "counter", get(t, s, 1, "counter", 1).Value, "60")
			if err := s.Close(); !errors.Is(err, ErrFailed) {
				t.Errorf("close: %v", err)
			}
			faults.Off() // only now: what has failed may have been a compaction, beside the flush
			after := open(t, testOptions(mem.CrashClone(vfs.CrashCloneCfg{})))
			defer closeStore(t, after)
			diff(t, "applied after a crash", []uint64{after.Applied(0), after.Applied(1)}, []uint64{30, 30})
			diff(t, "checksums after a crash", checksums(t, after), sums)
		})
	}
}

// What a flush has left is removed when the store is opened, whatever it is.
func TestOpenRemovesLeftoversOfDrains(t *testing.T) {
	mem := vfs.NewMem()
	s := open(t, testOptions(mem))
	do(t, s, 1, put("k", "v"))
	closeStore(t, s)
	if names := flushFilesIn(t, mem); len(names) != 0 {
		t.Errorf("a flush leaves %q", names)
	}
	path := mem.PathJoin("data", flushDirName, "000001.sst")
	writeFile(t, mem, path, []byte("half a table"))
	s = open(t, testOptions(mem))
	defer closeStore(t, s)
	if names := flushFilesIn(t, mem); len(names) != 0 {
		t.Errorf("left: %q", names)
	}
	do(t, s, 1, put("k", "w"))
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	diff(t, "applied", s.Durable(0), uint64(2))
}

// A drain of more than a file holds, of values larger than that among others.
func TestDrainInSeveralFiles(t *testing.T) {
	for _, limit := range []int{1, 1000, 30_000, flushFileBytes} {
		o := testOptions(nil)
		o.MemtableBytes = 1 << 20
		s := open(t, o)
		s.flusher.fileBytes = limit
		for n := range uint64(50) {
			upsetAll(t, s, n+1)
		}
		if err := s.Flush(); err != nil {
			t.Fatal(err)
		}
		files := s.flusher.number
		for n := range uint64(50) {
			upsetAll(t, s, n+51) // with deletions of what the first drain wrote
		}
		do(t, s, 200, put("large", strings.Repeat("l", 50_000)), put("large2", strings.Repeat("l", 50_000)))
		want := scan(t, s, ScanOptions{Shards: []int{0, 1}})
		if err := s.Flush(); err != nil {
			t.Fatal(err)
		}
		switch n := int(s.flusher.number - files); {
		case limit == 1 && n < len(want), limit == 1000 && n < 8, limit == 30_000 && n < 4, limit == flushFileBytes && n != 1:
			t.Errorf("limit %d: %d files", limit, n)
		}
		if n := s.Stats().Flushes; n != 2 {
			t.Errorf("%d flushes", n)
		}
		s = reopen(t, s)
		diff(t, "rows", scan(t, s, ScanOptions{Shards: []int{0, 1}}), want)
		closeStore(t, s)
	}
}

// A file ends with a shard if it is worth it, so that the compactions of one
// leave the other alone.
func TestFilesOfADrainEndWithAShard(t *testing.T) {
	for _, c := range []struct {
		cut, files int
		value      string
	}{
		{1000, 2, strings.Repeat("v", 1000)},
		{1000, 1, strings.Repeat("v", 500)},
		{0, 2, ""},
		{flushCutBytes, 1, strings.Repeat("v", 10_000)},
	} {
		s := open(t, testOptions(nil))
		s.flusher.cutBytes = c.cut
		var entries []Entry
		for shard := range 2 {
			entries = append(entries, Entry{Shard: shard, Index: 1, Data: entryOf(1, put("k", c.value))})
		}
		if err := s.Apply(entries, &delivered{}); err != nil {
			t.Fatal(err)
		}
		if err := s.Flush(); err != nil {
			t.Fatal(err)
		}
		levels, err := s.db.SSTables()
		if err != nil {
			t.Fatal(err)
		}
		var files []string
		for _, level := range levels {
			for _, file := range level {
				files = append(files, fmt.Sprintf("%x to %x", file.Smallest.UserKey[:shardBytes], file.Largest.UserKey[:shardBytes]))
			}
		}
		want := []string{"0000 to 0001"}
		if c.files == 2 {
			want = []string{"0000 to 0000", "0001 to 0001"}
		}
		diff(t, fmt.Sprintf("files cut from %d bytes", c.cut), files, want)
		diff(t, "other shard", get(t, s, 1, "k", 1).Value, c.value)
		closeStore(t, s)
	}
}

// A configuration that no entry brings is durable when SetConf returns.
func TestSetConf(t *testing.T) {
	mem := vfs.NewCrashableMem()
	s := open(t, testOptions(mem))
	defer closeStore(t, s)
	m := InstallMeta{Index: 1, Term: 7, Conf: []byte("conf")}
	if err := s.SetConf(0, m); err == nil {
		t.Error("an index that is not applied is taken")
	}
	do(t, s, 1, put("k", "v"))
	for _, conf := range []string{"conf", "another", ""} { // the first with rows, the others alone
		m.Conf = []byte(conf)
		if err := s.SetConf(0, m); err != nil {
			t.Fatal(err)
		}
		after := open(t, testOptions(mem.CrashClone(vfs.CrashCloneCfg{})))
		if got, ok := after.Installed(0); !ok || !got.equal(m) || after.Applied(0) != 1 {
			t.Errorf("after a crash: %+v %v, applied %d", got, ok, after.Applied(0))
		}
		closeStore(t, after)
	}
}

// FlushAsync is answered by OnFlush even if there is nothing to write.
func TestFlushAsyncOfNothing(t *testing.T) {
	o := testOptions(nil)
	told := make(chan struct{}, 10)
	o.OnFlush = func() { told <- struct{}{} }
	s := open(t, o)
	defer closeStore(t, s)
	for range 3 {
		if err := s.FlushAsync(); err != nil {
			t.Fatal(err)
		}
		<-told
	}
	if n := s.Stats().Flushes; n != 0 {
		t.Errorf("%d flushes", n)
	}
}

// Flushes wait while compactions are behind, and go on after one, or end with
// the store.
func TestFlushesWaitForCompactions(t *testing.T) {
	for _, end := range []string{"compaction", "failure"} {
		var log logBuffer
		o := testOptions(nil)
		o.Logger = slog.New(slog.NewTextHandler(&log, nil))
		s := open(t, o)
		s.flusher.level0Max = 1
		for range 2 { // the first one goes below level 0
			do(t, s, 1, put("a", "1"), put("z", "1"))
			if err := s.Flush(); err != nil {
				t.Fatal(err)
			}
		}
		if n := s.Stats().L0Files; n != 1 || strings.Contains(log.String(), "stalls") {
			t.Fatalf("%d tables in level 0, log %s", n, log.String())
		}
		do(t, s, 1, put("a", "2"))
		rotateTable(s)
		flushing := s.memtables.flushing()
		for !strings.Contains(log.String(), "stalls writes") {
			select {
			case <-flushing:
				t.Fatal("the flush does not wait")
			default:
			}
		}
		if end == "failure" {
			s.fatal.raise("something failed", syscall.EIO)
			if err := s.Flush(); !errors.Is(err, syscall.EIO) {
				t.Errorf("flush: %v", err)
			}
			if err := s.Close(); !errors.Is(err, syscall.EIO) || errors.Is(err, errAbandoned) {
				t.Errorf("close: %v", err)
			}
			continue
		}
		lower, upper := shardBounds(0)
		if err := s.db.Compact(context.Background(), lower, upper, false); err != nil {
			t.Fatal(err)
		}
		<-flushing
		diff(t, "durable", s.Durable(0), uint64(3))
		closeStore(t, s)
	}
}

// Rows larger than a memtable come in few layers: a compaction
// holds one of each layer.
func TestLargeRowsInFewLayers(t *testing.T) {
	o := testOptions(nil)
	o.MemtableBytes = 4 << 10
	s := open(t, o)
	defer closeStore(t, s)
	for _, test := range []struct{ row, layers int }{{100, level0Max}, {10 << 10, compactionLayers}, {100, level0Max}} {
		if err := s.Flush(); err != nil {
			t.Fatal(err)
		}
		do(t, s, 1, put("a", strings.Repeat("x", test.row)))
		if got := s.flusher.layersFor(s.memtables.mutable); got != test.layers {
			t.Errorf("a row of %d bytes: %d layers, want %d", test.row, got, test.layers)
		}
	}
	s.flusher.level0Max = 2
	if got := s.flusher.layersFor(s.memtables.mutable); got != 2 {
		t.Errorf("%d layers, want no more than 2", got)
	}
}

// Rows that are there all the time are found by whoever asks, while they are
// written, flushed and compacted again and again, and none goes back in time.
func TestReadsDuringFlushes(t *testing.T) {
	const rows = 20
	o := testOptions(nil)
	o.RowCacheBytes = -1 // reads go to the tables and to Pebble
	o.MemtableBytes = 4 << 10
	s := open(t, o)
	defer closeStore(t, s)
	s.flusher.fileBytes = 1000
	name := func(i int) string { return fmt.Sprintf("row%02d", i) }
	var all cmds
	for i := range rows {
		all = append(all, put(name(i), "0"))
	}
	do(t, s, 1, all...)

	var stop atomic.Bool
	var wg sync.WaitGroup
	for r := range 3 {
		wg.Go(func() {
			var seen [rows]uint64
			random := rand.New(rand.NewPCG(uint64(r), 1))
			for !stop.Load() {
				i := random.IntN(rows)
				got := get(t, s, 0, name(i), 1)
				if !got.Found || got.Version < seen[i] {
					t.Errorf("%s: %+v after version %d", name(i), got, seen[i])
					return
				}
				seen[i] = got.Version
			}
		})
	}
	wg.Go(func() {
		for !stop.Load() {
			if got := scan(t, s, ScanOptions{Shards: []int{0}}); len(got) != rows {
				t.Errorf("a scan of %d rows", len(got))
				return
			}
		}
	})
	wg.Go(func() {
		for !stop.Load() {
			v := openView(t, s, 0)
			sum, err := v.Checksum(t.Context())
			if err == nil {
				sum, _, err = s.Checksum(0)
			}
			if err != nil {
				t.Errorf("checksum %x: %v", sum, err)
			}
			v.Close()
		}
	})
	random := rand.New(rand.NewPCG(9, 9))
	for range 1500 {
		do(t, s, 1, put(name(random.IntN(rows)), strings.Repeat("v", random.IntN(300))))
	}
	stop.Store(true)
	wg.Wait()
	if n := s.Stats().Flushes; n < 20 {
		t.Errorf("%d flushes", n)
	}
}
