package storage

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/proa-kv/proa/bufpool"
	"github.com/proa-kv/proa/command"
)

func deleteRangeOf(from, to string) command.Command {
	return command.Command{Kind: command.DeleteRange, Key: []byte(from), Value: []byte(to)}
}

func applyAll(t *testing.T, s *Store, entries ...Entry) []command.Result {
	t.Helper()
	var d delivered
	if err := s.Apply(entries, &d); err != nil {
		t.Fatal(err)
	}
	return d.results
}

// Rows of a range are neither believed nor put into the cache while its deletion
// is committed; afterwards what readers find is, and the rest is in the end
// dropped.
func TestDeletedRangeInTheCache(t *testing.T) {
	c := newTestCache(t, 1<<20) // several segments
	const rows = 500
	key := func(i int) string { return fmt.Sprintf("key%03d", i) }
	for i := range rows {
		c.set(cacheRow(1, key(i), 5, "old"))
		c.set(cacheRow(2, key(i), 5, "other"))
	}
	const from, to = 100, 400
	fill := func(ticket fillTicket, key string, version uint64) {
		c.fill(ticket, hashKey(1, []byte(key)), 1, []byte(key), cachedRow{version: version}, []byte("filled"))
	}
	_, _, _, before := c.find(1, "key300x", 1)
	ranges := []deletedRange{{1, []byte(key(from)), []byte(key(to)), 6}}
	c.beginRanges(ranges)
	fill(before, "key300x", 5)
	_, _, _, during := c.find(1, "key300x", 1)
	fill(during, "key300x", 5)
	if !c.endRanges(ranges) {
		t.Error("nobody tidies up")
	}
	_, _, _, after := c.find(1, key(150), 1)
	c.fill(after, hashKey(1, []byte(key(150))), 1, []byte(key(150)), cachedRow{absent: true}, nil)
	c.set(cacheRow(1, key(160), 7, "new"))
	for range 2 {
		for i := range rows {
			value, _, hit, _ := c.find(1, key(i), 1)
			want, wantValue := command.ReadFound, "old"
			switch {
			case i == 150:
				want, wantValue = command.ReadAbsent, ""
			case i == 160:
				wantValue = "new"
			case i >= from && i < to:
				want, wantValue = command.ReadMiss, ""
			}
			if hit != want || value != wantValue {
				t.Errorf("%s: %v, %q", key(i), hit, value)
			}
			if c.load(cacheRow(1, key(i), 0, ""), false, &arena{}) != (want != command.ReadMiss) {
				t.Errorf("%s: Apply finds something else", key(i))
			}
			if value, _, hit, _ := c.find(2, key(i), 1); hit != command.ReadFound || value != "other" {
				t.Errorf("%s of the other shard: %q, %v", key(i), value, hit)
			}
		}
		c.tidy()
	}
	if c.exclusions.Load() != nil {
		t.Error("exclusions are left")
	}
	fill(before, "key300x", 5)
	fill(during, "key300x", 5)
	if _, _, hit, _ := c.find(1, "key300x", 1); hit != command.ReadMiss {
		t.Error("a row that was read before the deletion comes back")
	}
	for i := range c.segments {
		c.segments[i].check(t)
	}
	diff(t, "rows", c.stats().Rows, int64(2*rows-(to-from)+2))
}

// Whoever has seen a row of the range gone sees all of them gone, and nobody sees
// one after the deletion has been delivered, wherever rows lie.
func TestRangeIsDeletedAtOnce(t *testing.T) {
	o := testOptions(nil)
	o.RowCacheBytes = 64 << 20 // exclusions end in the background
	s := open(t, o)
	defer closeStore(t, s)
	const keys = 8
	var generations, deleted atomic.Uint64 // that were written, or deleted
	var index uint64
	put := func(generation uint64) {
		batch := command.Command{Kind: command.Batch}
		for i := range keys {
			batch.Ops = append(batch.Ops, command.Command{Kind: command.Put, Key: fmt.Appendf(nil, "key%d", i), Value: []byte{byte(generation)}})
		}
		index++
		applyAll(t, s, Entry{Index: index, Data: entryOf(1, batch)})
	}
	stop := make(chan struct{})
	var readers sync.WaitGroup
	read := func(b *bufpool.Buffer, i int) uint64 {
		b.B = b.B[:0]
		_, found, err := s.Append(b, 0, fmt.Appendf(nil, "key%d", i), 1, command.AnyValue)
		if err != nil {
			t.Error(err)
		}
		if !found {
			return 0
		}
		return uint64(b.B[0])
	}
	for n := range 2 {
		readers.Go(func() {
			b := bufpool.Get(16)
			defer b.Release()
			for i := n; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				written, gone := generations.Load(), deleted.Load()
				first, second := read(b, i%keys), read(b, (i+3)%keys)
				if first == 0 && second != 0 && second <= written || first != 0 && first <= gone || second != 0 && second <= gone {
					t.Errorf("generation %d was written before, %d deleted; read %d, then %d", written, gone, first, second)
					return
				}
			}
		})
	}
	for g := uint64(1); g <= 200; g++ {
		put(g)
		generations.Store(g)
		if g%3 == 0 {
			rotateTable(s)
		}
		index++
		applyAll(t, s, Entry{Index: index, Data: entryOf(1, deleteRangeOf("key", "kez"))})
		deleted.Store(g)
		diff(t, "rows after the deletion", len(scan(t, s, ScanOptions{Shards: []int{0}})), 0)
	}
	close(stop)
	readers.Wait()
}

// A table takes in a bounded number of ranges, a pass does not go on without end,
// and what is in Pebble is passed over at once by scans in both directions.
func TestManyRanges(t *testing.T) {
	o := withoutRowCache()
	o.MemtableBytes = 16 << 20
	s := open(t, o)
	defer closeStore(t, s)
	var entries []Entry
	add := func(commands ...command.Command) {
		entries = append(entries, Entry{Index: uint64(len(entries) + 1), Data: entryOf(1, commands...)})
	}
	key := func(i int) string { return fmt.Sprintf("key%05d", i) }
	const rows = 3 * memtableRangesMax
	for i := range rows {
		add(command.Command{Kind: command.Put, Key: []byte(key(i))})
	}
	applyAll(t, s, entries...)
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	done := len(entries)
	passes := s.writeBatch.number
	for i := 0; i < rows; i += 2 {
		add(deleteRangeOf(key(i), key(i)+"x"))
	}
	applyAll(t, s, entries[done:]...)
	if n := s.memtables.mutable.RangeCount(); n > memtableRangesMax {
		t.Errorf("a table has %d ranges", n)
	}
	if n := s.writeBatch.number - passes; n < rows/2/(deletedRangesMax+1) {
		t.Errorf("%d passes", n)
	}
	got := scan(t, s, ScanOptions{Shards: []int{0}})
	backwards := scan(t, s, ScanOptions{Shards: []int{0}, Reverse: true})
	slices.Reverse(backwards)
	diff(t, "backwards", backwards, got)
	diff(t, "rows", len(got), rows/2)
	for i, r := range got {
		if r.Key != key(2*i+1) {
			t.Fatalf("row %d is %s", i, r.Key)
		}
	}
}

// A WATCHed key that a range has taken counts as changed, there or not.
func TestWatchOfDeletedRange(t *testing.T) {
	o := testOptions(nil)
	s := open(t, o)
	var index uint64
	do := func(c command.Command) command.Result {
		index++
		return applyAll(t, s, Entry{Index: index, Data: entryOf(1, c)})[0]
	}
	watch := func(key string) command.Result {
		return do(command.Command{Kind: command.Watch, Key: []byte(key)})
	}
	absent := func(key string, since command.Result) bool {
		return do(command.Command{Kind: command.Txn, Compares: []command.Compare{
			{Target: command.OnAbsence, Relation: command.Equal, Key: []byte(key), Version: uint64(since.Integer)},
		}}).Succeeded
	}
	do(command.Command{Kind: command.Put, Key: []byte("there")})
	there, before := watch("there"), watch("absent")
	if !absent("absent", before) {
		t.Fatal("it is absent")
	}
	if do(deleteRangeOf("a", "b")); !absent("absent", before) {
		t.Error("nothing was written before the deletion, and the key counts as changed")
	}
	do(command.Command{Kind: command.Put, Key: []byte("absent")})
	if r := do(deleteRangeOf("", "")); r.Version <= there.Version || r.Status != command.OK {
		t.Errorf("%+v after version %d", r, there.Version)
	}
	closeStore(t, s)
	s = open(t, o) // the mark is part of the state
	defer func() { closeStore(t, s) }()
	if r := watch("there"); r.Version != 0 {
		t.Errorf("version %d", r.Version)
	}
	if absent("absent", before) {
		t.Error("a key that came and went with a range counts as absent all the time")
	}
	if after := watch("absent"); !absent("absent", after) {
		t.Error("it has been absent since")
	}
}

// A view has what a range has left, in all the places where records may lie.
func TestViewOfDeletedRanges(t *testing.T) {
	s := open(t, testOptions(nil))
	defer closeStore(t, s)
	g := newGate(s)
	var index uint64
	put := func(keys ...string) {
		for _, key := range keys {
			index++
			applyAll(t, s, Entry{Index: index, Data: entryOf(1, command.Command{Kind: command.Put, Flags: command.SetTTL, TTLMillis: 1000, Key: []byte(key)})})
		}
	}
	remove := func(from, to string) {
		index++
		applyAll(t, s, Entry{Index: index, Data: entryOf(1, deleteRangeOf(from, to))})
	}
	put("a", "b", "c", "d", "e")
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	remove("b", "c")
	put("b2", "c2")
	g.Lock()
	rotateTable(s)
	put("c3", "d")
	remove("c", "d")
	remove("e", "")
	put("c4", "f")
	v, err := s.OpenView(0)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	sum, err := v.Checksum(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, r := range scan(t, s, ScanOptions{Shards: []int{0}}) {
		keys = append(keys, r.Key)
	}
	diff(t, "keys", keys, []string{"a", "b2", "c4", "d", "f"})
	g.Unlock()
	after, _, err := s.Checksum(0)
	if err != nil {
		t.Fatal(err)
	}
	diff(t, "checksum", sum, after)
	remove("", "")
	put("z")
	keys = nil
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	for _, r := range scan(t, s, ScanOptions{Shards: []int{0}}) {
		keys = append(keys, r.Key)
	}
	diff(t, "keys", keys, []string{"z"})
}
