package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/proa-kv/proa/bufpool"
	"github.com/proa-kv/proa/command"
)

// damagedRows is how many rows each shard of a store has that damageable made.
const damagedRows = 200

func rowKey(i int) string   { return fmt.Sprintf("key%03d", i) }
func rowValue(i int) string { return strings.Repeat(fmt.Sprintf("value %d ", i), 40)[:256] }

// damageable makes a database of two shards in one table, with expiries and
// sessions, and returns the table.
func damageable(t *testing.T, mem vfs.FS) file {
	t.Helper()
	o := testOptions(mem)
	o.MemtableBytes = 1 << 20
	s := open(t, o)
	s.flusher.options.BlockSize = 4 << 10
	for shard := range 2 {
		commands := make([]command.Command, damagedRows)
		for i := range commands {
			commands[i] = in(uint64(i%3+1), uint64(i+1), 0, putTTL(rowKey(i), rowValue(i), 1e6))
		}
		var d delivered
		if err := s.Apply([]Entry{{Shard: shard, Index: 1, Data: entryOf(1, commands...)}}, &d); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.flushAll(); err != nil {
		t.Fatal(err)
	}
	if err := s.db.Compact(context.Background(), []byte{0}, []byte{0xff, 0xff, 0xff}, false); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	return tableFile(t, mem)
}

// blockWith returns where the data block begins that has the row of key.
func blockWith(t *testing.T, mem vfs.FS, table file, shard int, key string) int {
	t.Helper()
	o := basePebbleOptions(testOptions(mem))
	o.EnsureDefaults()
	r, err := openTable(o, table.path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	l, err := r.Layout()
	if err != nil {
		t.Fatal(err)
	}
	// A block of which a byte is wrong is the one that a read of key fails for.
	for _, b := range l.Data {
		at := int(b.Offset) + int(b.Length)/2
		flipByte(t, mem, table.path, at)
		err := func() error {
			r, err := openTable(o, table.path)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			it, err := r.NewIter(sstable.NoTransforms, nil, nil, sstable.AssertNoBlobHandles)
			if err != nil {
				t.Fatal(err)
			}
			defer it.Close()
			it.SeekGE(appendDataKey(nil, shard, []byte(key)), 0)
			return it.Error()
		}()
		flipByte(t, mem, table.path, at)
		if err != nil {
			return at
		}
	}
	t.Fatalf("no block has %q", key)
	return 0
}

// outcome of reading all rows of a shard one by one.
type readOutcome struct{ found, damaged int }

// readAll reads every row of shard, and fails where one is neither what was
// written nor said to be damaged.
func readAll(t *testing.T, s *Store, shard int) (o readOutcome) {
	t.Helper()
	for i := range damagedRows {
		b := bufpool.Get(0)
		_, found, err := s.Append(b, shard, []byte(rowKey(i)), 1, command.AnyValue)
		switch {
		case errors.Is(err, ErrDamaged):
			o.damaged++
		case err != nil || !found || string(b.B) != rowValue(i):
			t.Errorf("shard %d, row %d: %v, %v", shard, i, found, err)
		default:
			o.found++
		}
		b.Release()
	}
	return o
}

// TestFlippedBits flips a bit at many places of the only table of a database: it
// opens, and each row is either read as it was written or said to be damaged.
func TestFlippedBits(t *testing.T) {
	mem := vfs.NewMem()
	table := damageable(t, mem)
	flips := 40
	if testing.Short() {
		flips = 10
	}
	served, refused := 0, 0
	for at := 7; at < len(table.content); at += len(table.content) / flips {
		flipByte(t, mem, table.path, at)
		o := testOptions(mem)
		o.RowCacheBytes = -1
		s, err := Open(o)
		if err != nil {
			t.Fatalf("byte %d: %v", at, err)
		}
		for shard := range 2 {
			if s.Lost(shard) {
				refused += damagedRows
				continue
			}
			r := readAll(t, s, shard)
			served, refused = served+r.found, refused+r.damaged
			if r.damaged > 0 && (!s.Damaged(shard) || len(s.Damage()) != 1 || !slices.Contains(s.Damage()[0].Shards, shard)) {
				t.Errorf("byte %d: shard %d: damage is said to be %v", at, shard, s.Damage())
			}
		}
		if err := s.fatal.get(); err != nil {
			t.Errorf("byte %d: %v", at, err)
		}
		closeStore(t, s)
		flipByte(t, mem, table.path, at)
	}
	if served == 0 || refused == 0 {
		t.Errorf("%d rows read, %d refused", served, refused)
	}
}

// damagedStore opens a store with a damaged block in the middle of shard 0.
func damagedStore(t *testing.T, change func(*Options)) (*Store, readOutcome) {
	t.Helper()
	mem := vfs.NewMem()
	table := damageable(t, mem)
	flipByte(t, mem, table.path, blockWith(t, mem, table, 0, rowKey(damagedRows/2)))
	o := testOptions(mem)
	if change != nil {
		change(&o)
	}
	s := open(t, o)
	r := readAll(t, s, 0)
	if r.damaged == 0 || r.found == 0 {
		t.Fatalf("%+v", r)
	}
	return s, r
}

// TestDamagedRowsOfALoneReplica applies commands that need a damaged row where no
// other replica does: they are refused, and all others are carried out.
func TestDamagedRowsOfALoneReplica(t *testing.T) {
	s, _ := damagedStore(t, nil)
	bad, good := rowKey(damagedRows/2), rowKey(0)
	get := command.Command{Kind: command.Get, Key: []byte(good)}
	entry := entryOf(2,
		incr(bad, 1),
		put(good, "new"),
		in(9, 1, 0, incr(bad, 1)),
		command.Command{Kind: command.Batch, Ops: cmds{incr(bad, 1), get}},
		command.Command{Kind: command.Txn, Compares: []command.Compare{{Target: command.OnVersion, Relation: command.Equal, Key: []byte(bad)}}, Ops: cmds{put(good, "no")}},
		command.Command{Kind: command.Txn, Flags: command.Whole, Ops: cmds{put(good, "no"), incr(bad, 1)}},
		put(bad, "1"), // needs nothing of it
		in(9, 1, 0, incr(bad, 1)),
	)
	var d delivered
	if err := s.Apply([]Entry{{Index: 2, Data: entry, Alone: true}}, &d); err != nil {
		t.Fatal(err)
	}
	var statuses []command.Status
	for _, r := range d.results {
		statuses = append(statuses, r.Status)
	}
	want := []command.Status{command.Damaged, command.OK, command.Damaged, command.OK, command.Damaged, command.Damaged, command.OK, command.OK}
	diff(t, "statuses", statuses, want)
	diff(t, "batch", []command.Status{d.results[3].Results[0].Status, d.results[3].Results[1].Status}, []command.Status{command.Damaged, command.OK})
	diff(t, "written again and counted up", d.results[7].Integer, int64(2))
	for key, value := range map[string]string{good: "new", bad: "2"} {
		if r := get1(t, s, key); r != value {
			t.Errorf("%s is %q", key, r)
		}
	}
	closeStore(t, s)
}

func get1(t *testing.T, s *Store, key string) string {
	t.Helper()
	b := bufpool.Get(0)
	defer b.Release()
	if _, _, err := s.Append(b, 0, []byte(key), 2, command.AnyValue); err != nil {
		t.Fatal(err)
	}
	return string(b.B)
}

// TestDamagedReplicaStops applies the same where other replicas do: nothing of
// the shard is applied any more, while another goes on, until it is replaced.
func TestDamagedReplicaStops(t *testing.T) {
	told := make(chan int, 2)
	s, _ := damagedStore(t, func(o *Options) { o.OnDamage = func(shard int) { told <- shard } })
	if shard := <-told; shard != 0 {
		t.Errorf("told of shard %d", shard)
	}
	var d delivered
	err := s.Apply([]Entry{
		{Shard: 0, Index: 2, Data: entryOf(2, put("before", "1"))},
		{Shard: 1, Index: 2, Data: entryOf(2, put("other", "1"))},
		{Shard: 0, Index: 3, Data: entryOf(2, put(rowKey(0), "2"), incr(rowKey(damagedRows/2), 1))},
		{Shard: 0, Index: 4, Data: entryOf(2, put("behind", "3"))},
		{Shard: 1, Index: 3, Data: entryOf(2, put("other", "2"))},
	}, &d)
	var damage *DamageError
	if !errors.As(err, &damage) || damage.Shard != 0 || !s.Stopped(0) || s.Stopped(1) {
		t.Fatalf("apply: %v, stopped %v, %v", err, s.Stopped(0), s.Stopped(1))
	}
	diff(t, "applied", []uint64{s.Applied(0), s.Applied(1)}, []uint64{1, 3})
	diff(t, "delivered", len(d.results), 2)
	if err := s.Apply([]Entry{{Shard: 0, Index: 5, Data: entryOf(2, put("k", "v"))}}, &d); !errors.Is(err, ErrDamaged) || s.Applied(0) != 1 {
		t.Errorf("apply again: %v", err)
	}

	// A sound replica's state takes its place.
	sound := open(t, testOptions(nil))
	if err := sound.Apply([]Entry{{Index: 9, Data: entryOf(2, put(rowKey(damagedRows/2), "sound"))}}, &d); err != nil {
		t.Fatal(err)
	}
	send(t, sound, s, 0)
	if s.Stopped(0) || s.Damaged(0) || s.Damage() != nil || s.Applied(0) != 9 {
		t.Errorf("after the replacement: stopped %v, damaged %v, files %v, applied %d", s.Stopped(0), s.Damaged(0), s.Damage(), s.Applied(0))
	}
	if r := get1(t, s, rowKey(damagedRows/2)); r != "sound" {
		t.Errorf("found %q", r)
	}
	if o := readAll(t, s, 1); o.damaged > 0 {
		t.Errorf("shard 1: %+v", o)
	}
	closeStore(t, sound)
	closeStore(t, s)
}

// TestEdgeIsDamaged damages the block in which one shard ends and the next one
// begins: neither can be cut out by itself without harm to the other, so they go
// together, and the store remembers that.
func TestEdgeIsDamaged(t *testing.T) {
	mem := vfs.NewMem()
	table := damageable(t, mem)
	flipByte(t, mem, table.path, blockWith(t, mem, table, 1, rowKey(0)))
	o := testOptions(mem)
	s := open(t, o)
	if !s.Lost(0) {
		t.Fatal("the block was to have what shard 0 ends with")
	}
	before := readAll(t, s, 1)
	if before.damaged == 0 || before.found == 0 {
		t.Fatalf("shard 1: %+v", before)
	}
	var damage *DamageError
	for shard := range 2 {
		if err := s.RemoveShard(shard); !errors.As(err, &damage) || damage.Shard != 1-shard {
			t.Errorf("removal of shard %d: %v", shard, err)
		}
	}
	if after := readAll(t, s, 1); after.found != before.found {
		t.Errorf("shard 1 had %+v, has %+v", before, after)
	}
	if err := s.GiveUp(0, 1); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, s)
	diff(t, "lost", []bool{s.Lost(0), s.Lost(1)}, []bool{true, true})
	if err := s.RemoveShard(0); err != nil || s.Lost(0) {
		t.Errorf("removal: %v, lost %v", err, s.Lost(0))
	}
	sound := open(t, testOptions(nil))
	var d delivered
	if err := sound.Apply([]Entry{{Shard: 1, Index: 9, Data: entryOf(2, put("k", "sound"))}}, &d); err != nil {
		t.Fatal(err)
	}
	send(t, sound, s, 1)
	diff(t, "lost", []bool{s.Lost(0), s.Lost(1)}, []bool{false, false})
	closeStore(t, sound)
	closeStore(t, s)
	if _, err := Verify(Options{FS: mem, Dir: "data", Shards: 2}, nil); err != nil {
		t.Errorf("verify: %v", err)
	}
}

// countingReads counts reads of tables from a place on.
type countingReads struct {
	vfs.FS
	at    int64
	count *atomic.Int64
}

func (f countingReads) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	file, err := f.FS.Open(name, opts...)
	if err != nil {
		return nil, err
	}
	return countedFile{file, f}, nil
}

type countedFile struct {
	vfs.File
	f countingReads
}

func (c countedFile) ReadAt(p []byte, offset int64) (int, error) {
	if offset <= c.f.at && c.f.at < offset+int64(len(p)) && len(p) < 64<<10 {
		c.f.count.Add(1)
	}
	return c.File.ReadAt(p, offset)
}

// TestDamageHoldsNoReader damages what a table needs to be opened. A compaction that
// comes to it waits, and nobody waits for that.
func TestDamageHoldsNoReader(t *testing.T) {
	mem := vfs.NewMem()
	table := damageable(t, mem)
	info, err := mem.Stat(table.path)
	if err != nil {
		t.Fatal(err)
	}
	flipByte(t, mem, table.path, int(info.Size())-100) // the footer is shorter, and the index of blocks before it longer
	s := open(t, testOptions(mem))
	s.damage.rest = time.Hour
	if !s.Damaged(0) || !s.Damaged(1) {
		t.Fatal("the table can be opened")
	}
	key := appendDataKey(nil, 0, []byte(rowKey(damagedRows/2)))
	if err := s.db.Set(key, nil, pebble.NoSync); err != nil {
		t.Fatal(err)
	}
	if err := s.db.Flush(); err != nil {
		t.Fatal(err)
	}
	compacted, read := make(chan error, 1), make(chan error, 1)
	go func() {
		compacted <- s.db.Compact(context.Background(), []byte{0}, []byte{0xff, 0xff, 0xff}, false)
	}()
	for s.damage.held.Load() == 0 {
		runtime.Gosched()
	}
	go func() {
		_, _, err := s.db.Get(append(key, 'x'))
		read <- err
	}()
	select {
	case err := <-read:
		if !pebble.IsCorruptionError(err) {
			t.Errorf("read: %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("a read waits for the compaction")
	}
	closeStore(t, s)
	if err := <-compacted; err == nil {
		t.Error("the compaction read everything")
	}
}

// TestDamagedBlockIsReadOnce reads a damaged row again and again, scans it, and
// has compactions meet it: Pebble reads the block, and looks for a flipped bit in
// it, only once, nothing stops the store, and flushes go on.
func TestDamagedBlockIsReadOnce(t *testing.T) {
	mem := vfs.NewMem()
	table := damageable(t, mem)
	at := blockWith(t, mem, table, 0, rowKey(damagedRows/2))
	flipByte(t, mem, table.path, at)
	var reads atomic.Int64
	o := testOptions(countingReads{mem, int64(at), &reads})
	o.RowCacheBytes = -1
	var log logBuffer
	o.Logger = slog.New(slog.NewTextHandler(io.MultiWriter(&log), nil))
	s := open(t, o)
	s.damage.rest = time.Millisecond
	for range 3 {
		if r := readAll(t, s, 0); r.damaged == 0 {
			t.Fatalf("%+v", r)
		}
		err := s.Scan(ScanOptions{Shards: []int{0, 1}, NowMillis: 1}, func(_, _ []byte, _ command.Row) bool { return true })
		if !errors.Is(err, ErrDamaged) {
			t.Errorf("scan: %v", err)
		}
		v := openView(t, s, 0)
		if err := v.Export(func([]byte) error { return nil }, nil); !errors.Is(err, ErrDamaged) {
			t.Errorf("export: %v", err)
		}
		v.Close()
	}
	// Flushes whose rows lie within the damaged block alone, and compactions.
	for i := range uint64(8) {
		var d delivered
		if err := s.Apply([]Entry{{Index: 2 + i, Data: entryOf(2, put(rowKey(damagedRows/2)+"x", fmt.Sprint(i))), Alone: true}}, &d); err != nil {
			t.Fatal(err)
		}
		if err := s.flushAll(); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.db.Compact(context.Background(), []byte{0}, []byte{0xff, 0xff, 0xff}, false); !pebble.IsCorruptionError(err) {
		t.Errorf("compaction: %v", err)
	}
	if err := s.fatal.get(); err != nil {
		t.Errorf("the store has failed: %v", err)
	}
	if !s.Damaged(0) || len(s.Damage()) != 1 {
		t.Errorf("damage is said to be %v", s.Damage())
	}
	s.damage.forget(table.path) // as when compactions need it no more
	if s.Damaged(0) || s.Damage() != nil {
		t.Errorf("of a file that is no more: %v", s.Damage())
	}
	if got := get1(t, s, rowKey(damagedRows/2)+"x"); got != "7" {
		t.Errorf("read %q", got)
	}
	closeStore(t, s)
	if n := reads.Load(); n > 2 {
		t.Errorf("the block was read %d times", n)
	}
	if n := strings.Count(log.String(), "level=ERROR"); n != 1 {
		t.Errorf("%d lines in the log:\n%s", n, log.String())
	}
}
