package storage

// Benchmarks of the data path in process, most on a file system in memory: what
// the state machine itself costs, without the log and the network. Compare
// runs with benchstat; -benchtime 2s makes them steady.

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/proa-kv/proa/bufpool"
	"github.com/proa-kv/proa/command"
)

const benchKeys = 100_000

func benchStore(b *testing.B, o Options) *Store {
	b.Helper()
	o.BlockCacheBytes, o.MemtableBytes = BlockCacheBytesDefault, 0
	s := open(b, o)
	b.Cleanup(func() { closeStore(b, s) })
	return s
}

// benchEntry is an entry of n commands whose keys setKey changes in place.
type benchEntry struct {
	data []byte
	keys [][]byte
}

func newBenchEntry(b *testing.B, n int, c command.Command) *benchEntry {
	b.Helper()
	e := &benchEntry{data: command.AppendEntryHeader(nil)}
	c.Key = make([]byte, 16)
	for range n {
		e.data = c.AppendTo(e.data)
	}
	command.SealEntry(e.data, 1, n)
	r, err := command.NewReader(e.data)
	if err != nil {
		b.Fatal(err)
	}
	for range n {
		var got command.Command
		if _, err := r.Next(&got); err != nil {
			b.Fatal(err)
		}
		e.keys = append(e.keys, got.Key)
	}
	return e
}

func benchKey(key []byte, n int) {
	copy(key, "bench:key")
	binary.BigEndian.PutUint32(key[12:], uint32(n))
}

type discard struct{}

func (discard) Deliver(int, int, *command.Result) {}

// load puts all keys.
func benchLoad(b *testing.B, s *Store) {
	b.Helper()
	e := newBenchEntry(b, 1000, command.Command{Kind: command.Put, Value: make([]byte, 128)})
	for first := 0; first < benchKeys; first += len(e.keys) {
		for i, key := range e.keys {
			benchKey(key, first+i)
		}
		if err := s.Apply([]Entry{{Index: s.Applied(0) + 1, Data: e.data}}, discard{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkApply(b *testing.B) {
	for name, c := range map[string]command.Command{
		"put":    {Kind: command.Put, Value: make([]byte, 128)},
		"incr":   {Kind: command.Incr, Delta: 1},
		"delete": {Kind: command.Delete},
	} {
		for _, n := range []int{1, 16, 64} {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) { benchApply(b, c, n, benchKeys) })
		}
	}
}

// BenchmarkApplyKeys shows what the number of keys costs: fewer come again
// before they have to go to Pebble.
func BenchmarkApplyKeys(b *testing.B) {
	for _, keys := range []int{1_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprintf("put/64/keys=%d", keys), func(b *testing.B) {
			benchApply(b, command.Command{Kind: command.Put, Value: make([]byte, 128)}, 64, keys)
		})
	}
}

// benchApply applies passes of n commands c on random keys. ns/command is time
// as the caller sees it; cpu-ns/command is what the process used, so with what
// Pebble does in the background.
func benchApply(b *testing.B, c command.Command, n, keys int) {
	o := testOptions(vfs.NewMem())
	o.RowCacheBytes = 256 << 20
	s := benchStore(b, o)
	e := newBenchEntry(b, n, c)
	random := rand.New(rand.NewPCG(1, 2))
	entries := make([]Entry, 1)
	b.ReportAllocs()
	before := cpuTime(b)
	for b.Loop() {
		for _, key := range e.keys {
			benchKey(key, random.IntN(keys))
		}
		entries[0] = Entry{Index: s.Applied(0) + 1, Data: e.data}
		if err := s.Apply(entries, discard{}); err != nil {
			b.Fatal(err)
		}
	}
	commands := float64(b.N * n)
	b.ReportMetric(float64((cpuTime(b)-before).Nanoseconds())/commands, "cpu-ns/command")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/commands, "ns/command")
}

func BenchmarkAppendCached(b *testing.B) {
	o := testOptions(vfs.NewMem())
	o.RowCacheBytes = 64 << 20
	s := benchStore(b, o)
	benchLoad(b, s)
	dst := bufpool.Get(1 << 10)
	defer dst.Release()
	key := make([]byte, 16)
	random := rand.New(rand.NewPCG(1, 2))
	b.ReportAllocs()
	for b.Loop() {
		benchKey(key, random.IntN(benchKeys))
		dst.B = dst.B[:0]
		if _, hit := s.AppendCached(dst, 0, key, 1, true); hit != command.ReadFound {
			b.Fatal(hit)
		}
	}
}

// BenchmarkCommit compares what Pebble's own log would cost, on the machine's
// file system. See docs/adr/0004.
func BenchmarkCommit(b *testing.B) {
	for _, n := range []int{1, 64} {
		for _, log := range []string{"none", "unsynced", "synced"} {
			b.Run(fmt.Sprintf("log=%s/%d", log, n), func(b *testing.B) {
				o, err := Options{Dir: b.TempDir(), Shards: 1}.withDefaults()
				if err != nil {
					b.Fatal(err)
				}
				po := basePebbleOptions(o)
				po.DisableWAL = log == "none"
				po.Logger = verifyLogger{}
				po.EnsureDefaults()
				db, err := pebble.Open(o.Dir, po)
				if err != nil {
					b.Fatal(err)
				}
				batch := db.NewBatch()
				key, value := make([]byte, 16), make([]byte, rowHeaderBytes+128)
				random := rand.New(rand.NewPCG(1, 2))
				for b.Loop() {
					for range n {
						benchKey(key, random.IntN(benchKeys))
						_ = batch.Set(key, value, nil) // fails for indexed batches only
					}
					if err := db.Apply(batch, &pebble.WriteOptions{Sync: log == "synced"}); err != nil {
						b.Fatal(err)
					}
					batch.Reset()
				}
				if err := db.Close(); err != nil {
					b.Fatal(err)
				}
			})
		}
	}
}

// BenchmarkAppend reads from Pebble: the tables are in the block cache.
func BenchmarkAppend(b *testing.B) {
	o := testOptions(vfs.NewMem())
	o.RowCacheBytes = -1
	s := benchStore(b, o)
	benchLoad(b, s)
	if err := s.Flush(); err != nil {
		b.Fatal(err)
	}
	dst := bufpool.Get(1 << 10)
	defer dst.Release()
	key := make([]byte, 16)
	random := rand.New(rand.NewPCG(1, 2))
	b.ReportAllocs()
	for b.Loop() {
		benchKey(key, random.IntN(benchKeys))
		dst.B = dst.B[:0]
		if _, found, err := s.Append(dst, 0, key, 1, command.AnyValue); err != nil || !found {
			b.Fatal(found, err)
		}
	}
}

func BenchmarkScan(b *testing.B) {
	s := benchStore(b, testOptions(vfs.NewMem()))
	benchLoad(b, s)
	b.ReportAllocs()
	for b.Loop() {
		benchScan(b, s, nil, 1000)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(1000*b.N), "ns/row")
}

// BenchmarkScanAmongWrites scans 100 rows from a random key after each pass of
// writes; only the scans count.
func BenchmarkScanAmongWrites(b *testing.B) {
	for _, n := range []int{1, 64} {
		b.Run(fmt.Sprintf("puts=%d", n), func(b *testing.B) {
			s := benchStore(b, testOptions(vfs.NewMem()))
			benchLoad(b, s)
			e := newBenchEntry(b, n, command.Command{Kind: command.Put, Value: make([]byte, 128)})
			random := rand.New(rand.NewPCG(1, 2))
			start := make([]byte, 16)
			var spent time.Duration
			for b.Loop() {
				for _, key := range e.keys {
					benchKey(key, random.IntN(benchKeys))
				}
				if err := s.Apply([]Entry{{Index: s.Applied(0) + 1, Data: e.data}}, discard{}); err != nil {
					b.Fatal(err)
				}
				benchKey(start, random.IntN(benchKeys-100))
				before := time.Now()
				benchScan(b, s, start, 100)
				spent += time.Since(before)
			}
			b.ReportMetric(float64(spent.Nanoseconds())/float64(b.N), "ns/scan")
		})
	}
}

func benchScan(b *testing.B, s *Store, start []byte, rows int) {
	left := rows
	err := s.Scan(ScanOptions{Shards: []int{0, 1}, Start: start}, func(_, _ []byte, _ command.Row) bool {
		left--
		return left > 0
	})
	if err != nil || left != 0 {
		b.Fatal(left, err)
	}
}

func benchSnapshotStore(b *testing.B) *Store {
	b.Helper()
	o := testOptions(nil)
	o.Dir, o.FS = b.TempDir(), vfs.Default
	s := benchStore(b, o)
	e := newBenchEntry(b, 1000, command.Command{Kind: command.Put, Value: make([]byte, 128)})
	random := rand.NewChaCha8([32]byte{})
	for first := 0; first < 400_000; first += len(e.keys) { // 64 MB
		for i, key := range e.keys {
			benchKey(key, first+i)
		}
		_, _ = random.Read(e.data[len(e.data)-128:])
		if err := s.Apply([]Entry{{Index: s.Applied(0) + 1, Data: e.data}}, discard{}); err != nil {
			b.Fatal(err)
		}
	}
	return s
}

// Opening and closing a view, with full memtables.
func BenchmarkOpenView(b *testing.B) {
	s := benchSnapshotStore(b)
	b.ReportAllocs()
	for b.Loop() {
		v, err := s.OpenView(0)
		if err != nil {
			b.Fatal(err)
		}
		v.Close()
	}
}

// Exporting a shard of 64 MB, from memory and disk as it comes.
func BenchmarkExport(b *testing.B) {
	s := benchSnapshotStore(b)
	b.ReportAllocs()
	for b.Loop() {
		v, err := s.OpenView(0)
		if err != nil {
			b.Fatal(err)
		}
		n := 0
		if err := v.Export(func(c []byte) error { n += len(c); return nil }, nil); err != nil {
			b.Fatal(err)
		}
		v.Close()
		b.SetBytes(int64(n))
	}
}

// Staging and installing 64 MB: what the thread that calls Apply is held for,
// beside the whole.
func BenchmarkInstall(b *testing.B) {
	s := benchSnapshotStore(b)
	v, err := s.OpenView(0)
	if err != nil {
		b.Fatal(err)
	}
	var chunks [][]byte
	n := 0
	if err := v.Export(func(c []byte) error { chunks = append(chunks, bytes.Clone(c)); n += len(c); return nil }, nil); err != nil {
		b.Fatal(err)
	}
	o := testOptions(nil)
	o.Dir, o.FS, o.RowCacheBytes = b.TempDir(), vfs.Default, RowCacheBytesDefault
	to := benchStore(b, o)
	var install, finish time.Duration
	b.SetBytes(int64(n))
	for b.Loop() {
		if err := to.RemoveShard(0); err != nil {
			b.Fatal(err)
		}
		in, err := to.BeginInstall(0, v.ID(), InstallMeta{Index: v.Applied()})
		if err != nil {
			b.Fatal(err)
		}
		for _, c := range chunks {
			if err := in.Write(c); err != nil {
				b.Fatal(err)
			}
		}
		start := time.Now()
		if err := in.Finish(); err != nil {
			b.Fatal(err)
		}
		finish += time.Since(start)
		start = time.Now()
		if err := to.Install(in); err != nil {
			b.Fatal(err)
		}
		install += time.Since(start)
	}
	b.ReportMetric(float64(finish.Microseconds())/1000/float64(b.N), "ms-finish")
	b.ReportMetric(float64(install.Microseconds())/1000/float64(b.N), "ms-install")
}
