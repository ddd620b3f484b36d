package storage

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/storage/memtable"
)

// put adds a row as Apply does.
func (t *table) put(key, value string) {
	r := t.Reserve(len(key), len(value))
	copy(r.Key(), key)
	copy(r.Value(), value)
	t.Add(memtable.Rows, hashRecord([]byte(key)), r)
}

func (t *table) find(key string) (value string, found bool) {
	r, found := t.Get(hashRecord([]byte(key)), []byte(key))
	if !found {
		return "", false
	}
	return string(r.Value()), true
}

func TestMemtablesAreUsedAgain(t *testing.T) {
	x := &memtables{size: 4 << 10}
	x.mutable = newTable(x.size)
	one := x.mutable
	one.put("k", "1")
	one.Publish()
	if x.rotate(nil, 0) != one || x.mutable == one {
		t.Fatal("not rotated")
	}
	two, p := x.mutable, x.pin() // as a scan does
	flushed := x.flushing()
	x.release()
	if _, open := <-flushed; open || x.flushing() != nil || x.spare != nil {
		t.Error("a pinned table is taken for free, or those who wait are not told")
	}
	if value, _ := p[1].find("k"); value != "1" {
		t.Error("the pinned table has lost its record")
	}
	x.unpin(p)
	if x.spare == nil || x.spare.Table != one.Table || !one.Empty() {
		t.Error("a table that nobody needs is not kept")
	}
	if x.rotate(nil, 0) != nil || x.mutable != two {
		t.Error("an empty memtable is rotated")
	}
	if x.rotate(nil, x.size+1) != nil || x.mutable.Size() < x.size+1 || x.mutable == two {
		t.Error("no room for a large pass")
	}
	large := x.mutable
	large.put("k", "2")
	large.Publish()
	if x.rotate(nil, 0) != large || x.mutable.Table != one.Table {
		t.Error("the spare table is not used")
	}
	x.release()
	if x.spare != nil || !large.retired {
		t.Error("a large table is kept")
	}
}

// While Pebble is slow, Apply fills one table more and then waits; reads and
// scans go on, and see everything.
func TestApplyWaitsWhenBothMemtablesAreFull(t *testing.T) {
	o := testOptions(nil)
	o.MemtableBytes = 32 << 10
	s := open(t, o)
	defer closeStore(t, s)
	s.cache.segments = nil // reads go to the tables
	g := newGate(s)
	var open atomic.Bool
	g.Lock()
	value := strings.Repeat("v", 1000)
	const rows = 100 // more than two tables hold
	applied := make(chan error)
	go func() {
		var err error
		for i := uint64(1); i <= rows && err == nil; i++ {
			c := put(fmt.Sprintf("key%03d", i), value)
			err = s.Apply([]Entry{{Index: i, Data: entryOf(1, c)}}, &delivered{})
		}
		if !open.Load() {
			t.Error("Apply did not wait")
		}
		applied <- err
	}()
	<-g.waits
	for full := false; !full; runtime.Gosched() {
		s.publishing.Lock()
		full = !s.memtables.mutable.Fits(memtable.Bytes(prefixBytes+6, rowHeaderBytes+len(value)))
		s.publishing.Unlock()
	}
	n := int(s.Applied(0))
	if n < 50 || n > 64 {
		t.Errorf("%d rows applied", n)
	}
	for i := 1; i <= n; i++ {
		if got := get(t, s, 0, fmt.Sprintf("key%03d", i), 1); got.Version != uint64(i) {
			t.Errorf("row %d: %+v", i, got)
		}
	}
	if got := scan(t, s, ScanOptions{Shards: []int{0}}); len(got) != n || got[n-1].Row.Version != uint64(n) {
		t.Errorf("scan: %d rows of %d", len(got), n)
	}
	open.Store(true)
	g.Unlock()
	if err := <-applied; err != nil {
		t.Fatal(err)
	}
	if got := scan(t, s, ScanOptions{Shards: []int{0}}); len(got) != rows {
		t.Errorf("scan: %d rows of %d", len(got), rows)
	}
}

// Flushes by many, while Apply rotates tables itself: each makes durable at
// least what was applied before.
func TestFlushesAmongRotations(t *testing.T) {
	o := testOptions(nil)
	o.MemtableBytes = 4 << 10
	s := open(t, o)
	defer closeStore(t, s)
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for !stop.Load() {
				before := s.Applied(0)
				if err := s.Flush(); err != nil {
					t.Error(err)
					return
				}
				if d := s.Durable(0); d < before {
					t.Errorf("durable %d after a flush, %d was applied before", d, before)
				}
			}
		})
	}
	for i := range 300 {
		do(t, s, 1, put(fmt.Sprint("k", i%50), strings.Repeat("v", 100*(i%20))))
	}
	stop.Store(true)
	wg.Wait()
}

// A pass that fits no table, twice, and small ones after it.
func TestBatchLargerThanAMemtable(t *testing.T) {
	o := testOptions(nil)
	o.MemtableBytes = 4 << 10
	s := open(t, o)
	defer closeStore(t, s)
	for range 2 {
		do(t, s, 1, put("small", "v"), put("large", strings.Repeat("v", 100<<10)))
		do(t, s, 1, put("after", "v"))
	}
	diff(t, "versions", []uint64{get(t, s, 0, "small", 1).Version, get(t, s, 0, "large", 1).Version, get(t, s, 0, "after", 1).Version}, []uint64{4, 5, 6})
	if err := s.flushAll(); err != nil {
		t.Fatal(err)
	}
	if n := s.memtables.mutable.Size(); n > 5<<10 {
		t.Errorf("a table of %d bytes stays", n)
	}
}

// Where a reader looks, in every order in which its steps can be mixed with
// those of Apply and of a flush: cache, then tables, then Pebble, then the
// fill. Two rows change together; nobody sees the first new and the second
// old, nor a row go back, and the cache ends up with nothing old.
func TestCoherenceOfMemtablesInEveryOrder(t *testing.T) {
	orders := 0
	for _, reads := range [][2]string{{"x", "x"}, {"x", "y"}, {"y", "x"}} {
		var explore func(schedule []int, left [3]int)
		explore = func(schedule []int, left [3]int) {
			if left == [3]int{} {
				if orders++; !raceEnabled || orders%16 == 0 {
					runTablesSchedule(t, schedule, reads)
				}
				return
			}
			for who := range left {
				// A memtable is rotated under publishing only.
				inWindow := left[0] < 4 && left[0] > 0
				if left[who] == 0 || t.Failed() || who == 2 && left[2] == 3 && inWindow {
					continue
				}
				next := left
				next[who]--
				explore(append(slices.Clip(schedule), who), next)
			}
		}
		explore(nil, [3]int{4, 8, 3})
		if t.Failed() {
			t.Fatalf("reads: %v", reads)
		}
	}
	t.Logf("%d orders", orders)
}

var twoTables = [2]*table{newTable(memtableBytesMin), newTable(memtableBytesMin)}

// twoMemtables are never kept for another use, so they are emptied here.
func twoMemtables() *memtables {
	x := &memtables{}
	for i, t := range twoTables {
		t.Reset()
		twoTables[i] = &table{Table: t.Table, flushed: make(chan struct{})}
	}
	x.mutable, x.spare = twoTables[0], twoTables[1]
	return x
}

func runTablesSchedule(t *testing.T, schedule []int, reads [2]string) {
	x := twoMemtables()
	pebble := map[string]string{"x": "1", "y": "1"}
	c := newTestCacheTiny(t)
	write := tablesWriter(c, x)
	drain := tablesDrain(x, pebble)
	r := &tablesReader{cache: c, tables: x, pebble: pebble, keys: reads[:]}
	for _, who := range schedule {
		switch who {
		case 0:
			write()
		case 1:
			r.step()
		case 2:
			drain()
		}
	}
	if r.seen[1] < r.seen[0] {
		t.Errorf("schedule %v: read %s as of %s, then %s as of %s", schedule, reads[0], r.seen[0], reads[1], r.seen[1])
	}
	for _, key := range []string{"x", "y"} {
		if _, row, hit, _ := c.find(0, key, 1); hit != command.ReadMiss && row.Version != '2' {
			t.Errorf("schedule %v: the cache holds version %c of %s at the end", schedule, rune(row.Version), key)
		}
	}
}

func tablesWriter(c *rowCache, x *memtables) func() {
	rows := []*row{cacheRow(0, "x", '2', ""), cacheRow(0, "y", '2', "")}
	for _, r := range rows {
		r.joint = true
	}
	return inTurn(
		func() { c.begin(rows[0]); c.begin(rows[1]); x.mutable.put("x", "2") },
		func() { x.mutable.put("y", "2") },
		func() { x.mutable.Publish() },
		func() { c.publish(rows[0]); c.publish(rows[1]) },
	)
}

func tablesDrain(x *memtables, pebble map[string]string) func() {
	var immutable *table
	return inTurn(
		func() { immutable = x.rotate(nil, 0) },
		func() {
			if immutable != nil {
				it := memtable.NewIterator(pinned{immutable}.snapshots(), memtable.Rows, nil, []byte{0xff}, false)
				for it.Next() {
					pebble[string(it.Key())] = string(it.Value())
				}
			}
		},
		func() {
			if immutable != nil {
				x.release()
			}
		},
	)
}

func inTurn(steps ...func()) func() {
	return func() {
		steps[0]()
		steps = steps[1:]
	}
}

// tablesReader does what Store.Append does, a step at a time.
type tablesReader struct {
	cache  *rowCache
	tables *memtables
	pebble map[string]string
	keys   []string
	seen   []string

	phase  int
	value  string
	ticket fillTicket
}

func (r *tablesReader) step() {
	key := r.keys[0]
	switch r.phase {
	case 0:
		var row command.Row
		var hit command.ReadState
		r.value = ""
		if _, row, hit, r.ticket = r.cache.find(0, key, 1); hit == command.ReadFound {
			r.value = string(rune(row.Version))
			r.ticket = fillTicket{}
		}
	case 1:
		if r.value == "" {
			if found, ok := r.tables.get(hashRecord([]byte(key)), []byte(key)); ok {
				r.value = string(found.Value())
			}
		}
	case 2:
		if r.value == "" {
			r.value = r.pebble[key]
		}
	case 3:
		row := cachedRow{version: uint64(r.value[0])}
		r.cache.fill(r.ticket, hashKey(0, []byte(key)), 0, []byte(key), row, nil)
		r.seen = append(r.seen, r.value)
		r.keys = r.keys[1:]
	}
	r.phase = (r.phase + 1) % 4
}

// In the middle of an ingestion Pebble may have neither the old row nor the new
// one. In whatever order a reader's steps are mixed with those of Apply and of a
// drain: it finds the one or the other.
func TestNoRowIsMissedDuringAnIngestion(t *testing.T) {
	orders := 0
	var explore func(schedule []int, left [3]int)
	explore = func(schedule []int, left [3]int) {
		if left == [3]int{} {
			orders++
			if found := runIngestionSchedule(schedule); found == "" {
				t.Fatalf("schedule %v: the row is not found", schedule)
			}
			return
		}
		for who := range left {
			if left[who] > 0 {
				next := left
				next[who]--
				explore(append(slices.Clip(schedule), who), next)
			}
		}
	}
	explore(nil, [3]int{1, 8, 5})
	t.Logf("%d orders", orders)
}

// runIngestionSchedule returns what the reader finds.
func runIngestionSchedule(schedule []int) (found string) {
	x := twoMemtables()
	pebble, ingestions := map[string]string{"x": "1"}, 0
	var immutable *table
	ingests := func() bool {
		if immutable == nil {
			return false
		}
		_, found := immutable.find("x")
		return found
	}
	drain := inTurn(
		func() { immutable = x.rotate(nil, 0) },
		func() { ingestions++ },
		func() {
			if ingests() {
				delete(pebble, "x") // compacted away, the new one is not yet published
			}
		},
		func() {
			if ingests() {
				pebble["x"] = "2"
			}
			ingestions++
		},
		func() {
			if immutable != nil {
				x.release()
			}
		},
	)
	phase, before, done := 0, 0, false
	read := func() { // as Store.Append does
		switch phase {
		case 0:
			before = ingestions
		case 1:
			if r, ok := x.get(hashRecord([]byte("x")), []byte("x")); ok {
				found = string(r.Value())
			}
		case 2:
			if found == "" {
				found = pebble["x"]
			}
		case 3:
			done = done || found != "" || ingestions == before
		}
		phase = (phase + 1) % 4
	}
	for _, who := range schedule {
		switch {
		case who == 0:
			x.mutable.put("x", "2")
			x.mutable.Publish()
		case who == 1 && !done:
			read()
		case who == 2:
			drain()
		}
	}
	for !done {
		read()
	}
	return found
}
