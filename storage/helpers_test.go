package storage

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/proa-kv/proa/bufpool"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// testOptions are small, so that flushes, flushes and evictions happen, in
// memory.
func testOptions(fs vfs.FS) Options {
	if fs == nil {
		fs = vfs.NewMem()
	}
	return Options{
		Dir: "data", FS: fs, Shards: 2,
		BlockCacheBytes: 1 << 20, RowCacheBytes: segmentBytesMin, MemtableBytes: 64 << 10,
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
}

func open(t rapid.TB, o Options) *Store {
	t.Helper()
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// openTest opens a store that is closed with the test.
func openTest(t testing.TB) *Store {
	t.Helper()
	s := open(t, testOptions(nil))
	t.Cleanup(func() { closeStore(t, s) })
	return s
}

// gate holds flushes back while it is locked, and makes them fail.
type gate struct {
	sync.Mutex
	err   error
	waits chan struct{} // capacity 1: a flush has come to the gate
}

// newGate puts a gate before the flushes of a store that has applied nothing
// since it was opened.
func newGate(s *Store) *gate {
	g := &gate{waits: make(chan struct{}, 1)}
	s.flusher.before = func() error {
		select {
		case g.waits <- struct{}{}:
		default:
		}
		g.Lock()
		defer g.Unlock()
		return g.err
	}
	return g
}

// rotateTable rotates the active table unless one is frozen.
func rotateTable(s *Store) {
	s.publishing.Lock()
	defer s.publishing.Unlock()
	if s.memtables.flushing() == nil {
		s.rotate(0)
	}
}

func closeStore(t rapid.TB, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// entryOf encodes an entry.
func entryOf(stamp uint64, commands ...command.Command) []byte {
	b := command.AppendEntryHeader(nil)
	for i := range commands {
		b = commands[i].AppendTo(b)
	}
	command.SealEntry(b, stamp, len(commands))
	return b
}

// delivered collects results, deeply copied.
type delivered struct {
	results []command.Result
	order   []string
}

func (d *delivered) Deliver(entry, cmd int, r *command.Result) {
	d.results = append(d.results, cloneResult(*r))
	d.order = append(d.order, fmt.Sprintf("%d.%d", entry, cmd))
}

func cloneResult(r command.Result) command.Result {
	r.Value = bytes.Clone(r.Value)
	if len(r.Value) == 0 {
		r.Value = nil
	}
	r.Results = slices.Clone(r.Results)
	for i := range r.Results {
		r.Results[i] = cloneResult(r.Results[i])
	}
	if len(r.Results) == 0 {
		r.Results = nil
	}
	return r
}

// plain takes the kinds out of results, which tests that spell the commands
// need not repeat; TestModel looks at them.
func plain(rs []command.Result) []command.Result {
	for i := range rs {
		rs[i].Kind = 0
		plain(rs[i].Results)
	}
	return rs
}

// do applies one entry of shard 0 and returns the results.
func do(t rapid.TB, s *Store, stamp uint64, commands ...command.Command) []command.Result {
	t.Helper()
	var d delivered
	if err := s.Apply([]Entry{{Index: s.Applied(0) + 1, Data: entryOf(stamp, commands...)}}, &d); err != nil {
		t.Fatal(err)
	}
	return plain(d.results)
}

// read is what a client sees of a row, by whatever way.
type read struct {
	Value   string
	Version uint64
	TTL     uint64
	Found   bool
}

func get(t rapid.TB, s *Store, shard int, key string, now uint64) read {
	t.Helper()
	b := bufpool.Get(0)
	defer b.Release()
	row, found, err := s.Append(b, shard, []byte(key), now, command.AnyValue)
	if err != nil {
		t.Fatal(err)
	}
	got := read{string(b.B), row.Version, row.TTLMillis, found}

	b.B = b.B[:0]
	if row, hit := s.AppendCached(b, shard, []byte(key), now, true); hit != command.ReadMiss {
		if again := (read{string(b.B), row.Version, row.TTLMillis, hit == command.ReadFound}); again != got {
			t.Fatalf("key %q: cache says %+v after %+v", key, again, got)
		}
	}
	return got
}

type scanned struct {
	Key string
	Row read
}

func scan(t rapid.TB, s *Store, o ScanOptions) (rows []scanned) {
	t.Helper()
	err := s.Scan(o, func(key, value []byte, row command.Row) bool {
		rows = append(rows, scanned{string(key), read{string(value), row.Version, row.TTLMillis, true}})
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

func checksums(t rapid.TB, s *Store) (sums []uint64) {
	t.Helper()
	for i := range s.shards {
		sum, applied, err := s.Checksum(i)
		if err != nil {
			t.Fatal(err)
		}
		if applied != s.Applied(i) {
			t.Fatalf("shard %d: checksum as of %d, applied %d", i, applied, s.Applied(i))
		}
		sums = append(sums, sum)
	}
	return sums
}

func diff(t rapid.TB, what string, got, want any) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Fatalf("%s (-want +got):\n%s", what, d)
	}
}

// skipRace skips a test where the race detector is on: nothing in it runs beside
// anything else, and it takes long.
func skipRace(t *testing.T) {
	t.Helper()
	if raceEnabled {
		t.Skip("has nothing for the race detector")
	}
}

// NextExpiry returns the earliest time at which a Sweep of shard may find a row to
// remove, and whether there is one.
func (s *Store) NextExpiry(shard int) (uint64, bool) {
	at := s.shards[shard].nextExpiry.Load()
	return at, at != never
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
