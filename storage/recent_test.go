package storage

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"
)

// put adds a record as Apply does.
func (t *recentTable) put(key, value string, deleted bool) {
	var r recent
	if deleted {
		r = t.reserveDeletion(len(key))
	} else {
		r = t.reserve(len(key), len(value))
		copy(r.value(), value)
	}
	copy(r.key(), key)
	t.link(recentRows, hashRecord([]byte(key)), r)
}

func (t *recentTable) find(key string) (value string, deleted, found bool) {
	r, found := t.get(hashRecord([]byte(key)), []byte(key))
	if !found {
		return "", false, false
	}
	return string(r.value()), r.deleted(), true
}

// A table says of each key what was committed last; runs taken at any time
// keep saying in order what was there then.
func TestRecentTableAgainstModel(t *testing.T) {
	type record struct {
		value   string
		deleted bool
	}
	type view struct {
		runs [][]uint32
		want map[string]record
	}
	rapid.Check(t, func(t *rapid.T) {
		random := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		keys := rapid.SampledFrom([]int{1, 5, 100, 2000}).Draw(t, "keys")
		prefix := rapid.SampledFrom([]string{"", "0123456", "a rather long common beginning "}).Draw(t, "prefix")
		table := newRecentTable(200 << 10)
		for range 2 { // the second time as it comes from recycle
			table.reset()
			list := &table.lists[recentRows]
			committed, pending := map[string]record{}, map[string]record{}
			var views []view
			var opening *view // its rows are fixed, but not yet sorted
			var rows []uint32
			for range 2000 {
				key := prefix + strings.Repeat("\x00", random.IntN(3)) + fmt.Sprint(random.IntN(keys))
				switch random.IntN(20) {
				case 0:
					table.commit()
					maps.Copy(committed, pending)
				case 1:
					if opening != nil {
						opening.runs = table.sorted(list, rows)
						views, opening = append(views, *opening), nil
					} else if random.IntN(3) == 0 {
						table.commit()
						maps.Copy(committed, pending)
						rows, opening = list.order, &view{want: maps.Clone(committed)}
					}
				default:
					r := record{deleted: random.IntN(4) == 0}
					if !r.deleted {
						r.value = strings.Repeat("v", random.IntN(40))
					}
					table.put(key, r.value, r.deleted)
					pending[key] = r
				}
				value, deleted, found := table.find(key)
				if want, there := committed[key]; found != there || value != want.value || deleted != want.deleted {
					t.Fatalf("key %q: %q %v %v, committed %+v %v", key, value, deleted, found, want, there)
				}
			}
			if opening != nil {
				opening.runs = table.sorted(list, rows)
				views = append(views, *opening)
			}
			table.commit()
			views = append(views, view{table.sorted(list, list.order), pending})
			if n := len(views[len(views)-1].runs); n > 8 {
				t.Fatalf("%d runs", n)
			}
			for _, v := range views {
				run := table.mergeAll(v.runs)
				got := map[string]record{}
				for i, place := range run {
					r := table.at(place)
					got[string(r.key())] = record{string(r.value()), r.deleted()}
					if i > 0 && bytes.Compare(table.at(run[i-1]).key(), r.key()) >= 0 {
						t.Fatalf("key %q after %q", r.key(), table.at(run[i-1]).key())
					}
				}
				if !maps.Equal(got, v.want) {
					t.Fatalf("run of %d records is %v, want %v", len(run), got, v.want)
				}
			}
		}
	})
}

func TestPiecesAreInTheOrderOfKeys(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		gen := rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 'a', 0xff}), 1, 20)
		a, b := gen.Draw(t, "a"), gen.Draw(t, "b")
		order := 0
		for from := 0; order == 0 && (from < len(a) || from < len(b)); from += pieceBytes {
			x, y := pieceOf(a, from), pieceOf(b, from)
			switch {
			case x < y:
				order = -1
			case x > y:
				order = 1
			}
			if order == 0 && x&0xff <= pieceBytes {
				break // the end of both
			}
		}
		if want := bytes.Compare(a, b); order != want {
			t.Fatalf("%q, %q: %d, want %d", a, b, order, want)
		}
	})
}

func TestRecentTablesAreUsedAgain(t *testing.T) {
	x := &recentTables{size: 4 << 10}
	x.active = newRecentTable(x.size)
	one := x.active
	one.put("k", "1", false)
	one.commit()
	if x.freeze(nil, 0) != one || x.active == one {
		t.Fatal("not frozen")
	}
	two, p := x.active, x.pin() // as a scan does
	drained := x.draining()
	x.release()
	if _, open := <-drained; open || x.draining() != nil || x.spare != nil {
		t.Error("a pinned table is taken for free, or those who wait are not told")
	}
	if value, _, _ := p[1].find("k"); value != "1" {
		t.Error("the pinned table has lost its record")
	}
	x.unpin(p)
	if x.spare != one || !one.empty() {
		t.Error("a table that nobody needs is not kept")
	}
	if x.freeze(nil, 0) != nil || x.active != two {
		t.Error("an empty table is frozen")
	}
	if x.freeze(nil, x.size+1) != nil || x.active.room() < x.size+1 || x.active == two {
		t.Error("no room for a large pass")
	}
	large := x.active
	large.put("k", "2", false)
	large.commit()
	if x.freeze(nil, 0) != large || x.active != one {
		t.Error("the spare table is not used")
	}
	x.release()
	if x.spare == large || large.retired == false {
		t.Error("a large table is kept")
	}
}

// While Pebble is slow, Apply fills one table more and then waits; reads and
// scans go on, and see everything.
func TestApplyWaitsWhenBothTablesAreFull(t *testing.T) {
	o := testOptions(nil)
	o.RecentBytes = 32 << 10
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
		s.window.Lock()
		full = !s.recent.active.fits(recentBytes(prefixBytes+6, rowHeaderBytes+len(value)))
		s.window.Unlock()
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

// Flushes by many, while Apply freezes tables itself: each makes durable at
// least what was applied before.
func TestFlushesAmongFreezes(t *testing.T) {
	o := testOptions(nil)
	o.RecentBytes = 4 << 10
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
func TestPassLargerThanATable(t *testing.T) {
	o := testOptions(nil)
	o.RecentBytes = 4 << 10
	s := open(t, o)
	defer closeStore(t, s)
	for range 2 {
		do(t, s, 1, put("small", "v"), put("large", strings.Repeat("v", 100<<10)))
		do(t, s, 1, put("after", "v"))
	}
	diff(t, "versions", []uint64{get(t, s, 0, "small", 1).Version, get(t, s, 0, "large", 1).Version, get(t, s, 0, "after", 1).Version}, []uint64{4, 5, 6})
	if err := s.drain(); err != nil {
		t.Fatal(err)
	}
	if n := s.recent.active.room() + s.recent.active.used(); n > 5<<10 {
		t.Errorf("a table of %d bytes stays", n)
	}
}

// Where a reader looks, in every order in which its steps can be mixed with
// those of Apply and of a drain: cache, then tables, then Pebble, then the
// fill. Two rows change together; nobody sees the first new and the second
// old, nor a row go back, and the cache ends up with nothing old.
func TestCoherenceOfTablesInEveryOrder(t *testing.T) {
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
				// A table is frozen within the window only.
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

var twoTables = [2]*recentTable{newRecentTable(recentBytesMin), newRecentTable(recentBytesMin)}

func runTablesSchedule(t *testing.T, schedule []int, reads [2]string) {
	x := &recentTables{active: twoTables[0], spare: twoTables[1], size: 0} // never kept, so reset here
	for _, table := range twoTables {
		table.reset()
	}
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
		if _, row, hit, _ := c.find(0, key, 1); hit != Miss && row.Version != '2' {
			t.Errorf("schedule %v: the cache holds version %c of %s at the end", schedule, rune(row.Version), key)
		}
	}
}

func tablesWriter(c *rowCache, x *recentTables) func() {
	rows := []*row{cacheRow(0, "x", '2', ""), cacheRow(0, "y", '2', "")}
	for _, r := range rows {
		r.joint = true
	}
	return inTurn(
		func() { c.begin(rows[0]); c.begin(rows[1]); x.active.put("x", "2", false) },
		func() { x.active.put("y", "2", false) },
		func() { x.active.commit() },
		func() { c.publish(rows[0]); c.publish(rows[1]) },
	)
}

func tablesDrain(x *recentTables, pebble map[string]string) func() {
	var frozen *recentTable
	return inTurn(
		func() { frozen = x.freeze(nil, 0) },
		func() {
			if frozen != nil {
				for _, place := range frozen.sort(frozen.lists[recentRows].order, nil) {
					r := frozen.at(place)
					pebble[string(r.key())] = string(r.value())
				}
			}
		},
		func() {
			if frozen != nil {
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
	tables *recentTables
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
		var row Row
		var hit Hit
		r.value = ""
		if _, row, hit, r.ticket = r.cache.find(0, key, 1); hit == Found {
			r.value = string(rune(row.Version))
			r.ticket = fillTicket{}
		}
	case 1:
		if r.value == "" {
			if found, ok := r.tables.get(hashRecord([]byte(key)), []byte(key)); ok {
				r.value = string(found.value())
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
	x := &recentTables{active: twoTables[0], spare: twoTables[1], size: 0}
	for _, table := range twoTables {
		table.reset()
	}
	pebble, ingestions := map[string]string{"x": "1"}, 0
	var frozen *recentTable
	ingests := func() bool {
		if frozen == nil {
			return false
		}
		_, _, found := frozen.find("x")
		return found
	}
	drain := inTurn(
		func() { frozen = x.freeze(nil, 0) },
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
			if frozen != nil {
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
				found = string(r.value())
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
			x.active.put("x", "2", false)
			x.active.commit()
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
