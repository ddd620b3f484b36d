package storage

// Benchmarks of the data path in process, most on a file system in memory: what
// the state machine itself costs, without the log and the network. Compare
// runs with benchstat; -benchtime 2s makes them steady.

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/proa-kv/proa/bufpool"
	"github.com/proa-kv/proa/command"
)

const benchKeys = 100_000

func benchStore(b *testing.B, o Options) *Store {
	b.Helper()
	o.MemTableBytes, o.BlockCacheBytes = MemTableBytesDefault, BlockCacheBytesDefault
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
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				o := testOptions(vfs.NewMem())
				o.RowCacheBytes = 64 << 20
				s := benchStore(b, o)
				e := newBenchEntry(b, n, c)
				random := rand.New(rand.NewPCG(1, 2))
				entries := make([]Entry, 1)
				b.ReportAllocs()
				for b.Loop() {
					for _, key := range e.keys {
						benchKey(key, random.IntN(benchKeys))
					}
					entries[0] = Entry{Index: s.Applied(0) + 1, Data: e.data}
					if err := s.Apply(entries, discard{}); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/command")
			})
		}
	}
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
		if _, hit := s.AppendCached(dst, 0, key, 1, true); hit != Found {
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
		if _, found, err := s.Append(dst, 0, key, 1, true); err != nil || !found {
			b.Fatal(found, err)
		}
	}
}

func BenchmarkScan(b *testing.B) {
	o := testOptions(vfs.NewMem())
	s := benchStore(b, o)
	benchLoad(b, s)
	b.ReportAllocs()
	rows := 0
	for b.Loop() {
		left := 1000
		err := s.Scan(ScanOptions{Shards: []int{0, 1}}, func(_, _ []byte, _ Row) bool {
			rows++
			left--
			return left > 0
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(rows), "ns/row")
}
