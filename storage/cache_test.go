package storage

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/proa-kv/proa/bufpool"
	"github.com/proa-kv/proa/command"
)

func newTestCache(t rapid.TB, size int64) *rowCache {
	t.Helper()
	c, err := newRowCache(size, heapMemory)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func cacheRow(shard int, key string, version uint64, value string) *row {
	return &row{
		hash: hashKey(shard, []byte(key)), shard: uint16(shard), key: []byte(key),
		value: []byte(value), version: version, exists: true, hasValue: true, loaded: true,
	}
}

// set changes a row as Apply does.
func (c *rowCache) set(r *row) {
	c.begin(r)
	c.publish(r)
}

func (c *rowCache) find(shard int, key string, now uint64) (string, command.Row, command.ReadState, fillTicket) {
	b := bufpool.Get(0)
	defer b.Release()
	row, hit, ticket := c.lookup(b, hashKey(shard, []byte(key)), shard, []byte(key), now, command.AnyValue)
	return string(b.B), row, hit, ticket
}

// check walks the ring and the index and fails if they do not fit together.
func (s *segment) check(t rapid.TB) {
	t.Helper()
	live, used := 0, 0
	for at := s.tail; used < s.used; {
		e := s.entry(at)
		if e.size() <= 0 || at+e.size() > len(s.ring) {
			t.Fatalf("entry of %d bytes at %d of %d", e.size(), at, len(s.ring))
		}
		if e.head()&flagLive != 0 {
			live++
			if _, found := s.search(uint64(e.tag()), e.shard(), e.key()); found != at {
				t.Fatalf("the entry at %d is found at %d", at, found)
			}
		}
		used += e.size()
		if at += e.size(); at == len(s.ring) {
			at = 0
		}
	}
	cells := 0
	for _, cell := range s.index {
		if cell != 0 {
			cells++
		}
	}
	if used != s.used || live != s.rows || cells != s.rows {
		t.Fatalf("%d bytes of %d, %d live entries, %d cells, %d rows", used, s.used, live, cells, s.rows)
	}
}

// What the cache says is what was put last; it may only forget.
func TestCacheAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := newTestCache(t, segmentBytesMin)
		seed := rapid.Uint64().Draw(t, "seed")
		random := rand.New(rand.NewPCG(seed, 0))
		sizeMax := rapid.SampledFrom([]int{8, 100, 2000, 40_000}).Draw(t, "value bytes")
		keys := rapid.SampledFrom([]int{10, 1000, 20_000}).Draw(t, "keys")
		type value struct {
			version uint64
			value   string
			absent  bool
		}
		want := map[string]value{}
		found := 0
		for i := range 5000 {
			key := fmt.Sprintf("k%d", random.IntN(keys))
			shard := len(key) & 1
			switch random.IntN(10) {
			case 0:
				r := cacheRow(shard, key, 0, "")
				r.exists = false
				c.set(r)
				want[key] = value{absent: true}
			case 1, 2, 3, 4:
				v := value{version: uint64(i), value: strings.Repeat(string(rune('a'+i%26)), random.IntN(sizeMax))}
				c.set(cacheRow(shard, key, v.version, v.value))
				want[key] = v
			default:
				got, row, hit, _ := c.find(shard, key, 1)
				w, known := want[key]
				if hit == command.ReadMiss {
					continue
				}
				found++
				if !known || w.absent != (hit == command.ReadAbsent) || got != w.value || row.Version != w.version {
					t.Fatalf("key %s: %v, version %d, %d bytes; put %+v", key, hit, row.Version, len(got), w)
				}
			}
		}
		if found == 0 && keys <= 1000 && sizeMax <= 2000 {
			t.Fatal("nothing was ever found")
		}
		for i := range c.segments {
			c.segments[i].check(t)
		}
		st := c.stats()
		if st.Bytes > st.BytesMax || st.BytesMax > segmentBytesMin {
			t.Fatalf("%d bytes of %d", st.Bytes, st.BytesMax)
		}
	})
}

func TestCacheIsBounded(t *testing.T) {
	skipRace(t)
	const size = 4 << 20
	c := newTestCache(t, size)
	if len(c.segments) != 16 {
		t.Fatalf("%d segments", len(c.segments))
	}
	// Tiny rows fill the index first, larger ones the ring.
	for _, value := range []string{"", strings.Repeat("v", 500)} {
		for i := range 200_000 {
			c.set(cacheRow(0, fmt.Sprint("key", i), uint64(i), value))
		}
		st := c.stats()
		if st.Bytes > size || st.BytesMax > size || st.Evictions == 0 {
			t.Errorf("value of %d bytes: %+v", len(value), st)
		}
		if least := int64(size / 8 * 6 / (entryHeaderBytes + 16 + len(value))); st.Rows < min(least, 16*16<<10*6/8/8) {
			t.Errorf("value of %d bytes: holds only %d rows, of %d", len(value), st.Rows, least)
		}
	}
	for i := range c.segments {
		c.segments[i].check(t)
	}
}

func TestCacheKeepsWhatIsUsed(t *testing.T) {
	c := newTestCache(t, segmentBytesMin)
	value := strings.Repeat("v", 200)
	c.set(cacheRow(0, "hot", 1, value))
	for i := range 20_000 { // some twenty times round the ring
		c.set(cacheRow(0, fmt.Sprint("cold", i), 1, value))
		if _, _, hit, _ := c.find(0, "hot", 1); hit != command.ReadFound {
			t.Fatalf("lost after %d others", i)
		}
	}
	if _, _, hit, _ := c.find(0, "cold0", 1); hit != command.ReadMiss {
		t.Error("what nobody used is still there")
	}
}

func TestCacheOfAllUsedRowsStillTakesNewOnes(t *testing.T) {
	skipRace(t)
	c := newTestCache(t, segmentBytesMin)
	value := strings.Repeat("v", 1000)
	for i := range 2000 {
		key := fmt.Sprint("key", i)
		c.set(cacheRow(0, key, 1, value))
		for j := max(0, i-400); j <= i; j++ {
			c.find(0, fmt.Sprint("key", j), 1)
		}
		if _, _, hit, _ := c.find(0, key, 1); hit != command.ReadFound {
			t.Fatalf("row %d did not get in", i)
		}
	}
	c.segments[0].check(t)
}

func TestCacheForgetsWhatBecomesTooLarge(t *testing.T) {
	c := newTestCache(t, segmentBytesMin)
	limit := c.segments[0].rowMax
	c.set(cacheRow(0, "k", 1, "small"))
	c.set(cacheRow(0, "k", 2, strings.Repeat("v", limit-1))) // with the key at the limit
	if got, _, hit, _ := c.find(0, "k", 1); hit != command.ReadFound || len(got) != limit-1 {
		t.Errorf("row at the limit: %v, %d bytes", hit, len(got))
	}
	c.set(cacheRow(0, "k", 3, strings.Repeat("v", limit)))
	if _, row, hit, _ := c.find(0, "k", 1); hit != command.ReadMiss {
		t.Errorf("row beyond the limit: %v, version %d", hit, row.Version)
	}
	c.segments[0].check(t)
}

func TestCacheTellsShardsAndTagsApart(t *testing.T) {
	c := newTestCache(t, segmentBytesMin)
	// Same hash, so same cell and tag; only key and shard differ.
	rows := []*row{cacheRow(0, "a", 1, "a0"), cacheRow(1, "a", 2, "a1"), cacheRow(0, "b", 3, "b0")}
	for _, r := range rows {
		r.hash = 42
		c.set(r)
	}
	b := bufpool.Get(0)
	defer b.Release()
	for _, r := range rows {
		b.B = b.B[:0]
		row, hit, _ := c.lookup(b, 42, int(r.shard), r.key, 1, command.AnyValue)
		if hit != command.ReadFound || row.Version != r.version || !bytes.Equal(b.B, r.value) {
			t.Errorf("shard %d key %s: %v %d %q", r.shard, r.key, hit, row.Version, b.B)
		}
	}
}

func TestCacheExpiry(t *testing.T) {
	c := newTestCache(t, segmentBytesMin)
	r := cacheRow(0, "k", 7, "v")
	r.expireAt = 100
	c.set(r)
	if got, row, hit, _ := c.find(0, "k", 99); hit != command.ReadFound || got != "v" || row != (command.Row{Version: 7, TTLMillis: 1, ExpireAtMillis: 100, ValueBytes: 1}) {
		t.Errorf("before: %v %+v", hit, row)
	}
	if got, row, hit, _ := c.find(0, "k", 100); hit != command.ReadAbsent || got != "" || row != (command.Row{}) {
		t.Errorf("at the time: %v %+v %q", hit, row, got)
	}
}

func TestCacheAfterCloseMisses(t *testing.T) {
	c, err := newRowCache(segmentBytesMin, mapMemory)
	if err != nil {
		t.Fatal(err)
	}
	c.set(cacheRow(0, "k", 1, "v"))
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
	_, _, hit, ticket := c.find(0, "k", 1)
	if hit != command.ReadMiss || ticket.valid {
		t.Errorf("%v, ticket %+v", hit, ticket)
	}
	c.set(cacheRow(0, "k", 1, "v"))
}

func TestCacheThatCannotGetMemory(t *testing.T) {
	broken := errors.New("no memory")
	_, err := newRowCache(1<<20, func(int) ([]byte, func() error, error) { return nil, nil, broken })
	if !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
}

// The coherence protocol, in every order in which its steps can be mixed, with
// one atomic database below (TestCoherenceOfMemtablesInEveryOrder takes it apart): a
// writer that changes two rows at once, a reader that reads both, or one
// twice, and another that reads, and may fill, what the first reads last. Every step is atomic in reality too:
// it holds the segment's lock, or is one read or commit of Pebble.
func TestCoherenceInEveryOrder(t *testing.T) {
	orders := 0
	for _, cached := range [][]string{nil, {"x", "y"}} {
		for _, reads := range [][2]string{{"x", "x"}, {"x", "y"}, {"y", "x"}} {
			orders += exploreOrders(t, cached, reads)
			if t.Failed() {
				t.Fatalf("cached at first: %v, reads: %v", cached, reads)
			}
		}
	}
	t.Logf("%d orders", orders)
}

// exploreOrders runs each interleaving (one of 32 under the race detector);
// a schedule says whose step is next.
func exploreOrders(t *testing.T, cached []string, reads [2]string) (orders int) {
	var explore func(schedule []int, left [3]int)
	explore = func(schedule []int, left [3]int) {
		if left == [3]int{} {
			if orders++; !raceEnabled || orders%32 == 0 {
				runSchedule(t, schedule, cached, reads)
			}
			return
		}
		for who := range left {
			if left[who] > 0 && !t.Failed() {
				next := left
				next[who]--
				explore(append(slices.Clip(schedule), who), next)
			}
		}
	}
	explore(nil, [3]int{writerSteps, 3, 6})
	return orders
}

const writerSteps = 5 // begin x, begin y, commit, publish x, publish y

func runSchedule(t *testing.T, schedule []int, cached []string, reads [2]string) {
	c := newTestCacheTiny(t)
	database := map[string]uint64{"x": 1, "y": 1}
	for _, key := range cached {
		c.set(cacheRow(0, key, 1, ""))
	}
	writer := coherenceWriter(c, database)
	one := &coherenceReader{cache: c, database: database, keys: reads[1:]}
	two := &coherenceReader{cache: c, database: database, keys: reads[:]}
	for _, who := range schedule {
		switch who {
		case 0:
			writer()
		case 1:
			one.step()
		case 2:
			two.step()
		}
	}
	if two.seen[1] < two.seen[0] {
		t.Errorf("schedule %v: read %s as of %d, then %s as of %d", schedule, reads[0], two.seen[0], reads[1], two.seen[1])
	}
	for _, key := range []string{"x", "y"} {
		if _, row, hit, _ := c.find(0, key, 1); hit != command.ReadMiss && row.Version != 2 {
			t.Errorf("schedule %v: the cache holds version %d of %s at the end", schedule, row.Version, key)
		}
	}
}

var tinyMemory = make([]byte, segmentBytesMin)

// newTestCacheTiny reuses memory, of which it clears what a few rows use: it
// is made a million times.
func newTestCacheTiny(t *testing.T) *rowCache {
	c, err := newRowCache(segmentBytesMin, func(n int) ([]byte, func() error, error) {
		return tinyMemory[:n], func() error { return nil }, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	clear(c.segments[0].index)
	return c
}

func coherenceWriter(c *rowCache, database map[string]uint64) (step func()) {
	x, y := cacheRow(0, "x", 2, ""), cacheRow(0, "y", 2, "")
	x.joint, y.joint = true, true
	steps := []func(){
		func() { c.begin(x) },
		func() { c.begin(y) },
		func() { database["x"], database["y"] = 2, 2 },
		func() { c.publish(x) },
		func() { c.publish(y) },
	}
	return func() {
		steps[0]()
		steps = steps[1:]
	}
}

// coherenceReader does what Store.Append does, a step at a time: look up, read
// the database, fill.
type coherenceReader struct {
	cache    *rowCache
	database map[string]uint64
	keys     []string
	seen     []uint64

	phase  int
	hit    bool
	ticket fillTicket
	read   uint64
}

func (r *coherenceReader) step() {
	key := r.keys[0]
	switch r.phase {
	case 0:
		var row command.Row
		var hit command.ReadState
		_, row, hit, r.ticket = r.cache.find(0, key, 1)
		r.hit, r.read = hit == command.ReadFound, row.Version
	case 1:
		if !r.hit {
			r.read = r.database[key]
		}
	case 2:
		if !r.hit {
			r.cache.fill(r.ticket, hashKey(0, []byte(key)), 0, []byte(key), cachedRow{version: r.read}, nil)
		}
		r.seen = append(r.seen, r.read)
		r.keys = r.keys[1:]
	}
	r.phase = (r.phase + 1) % 3
}

// A writer, readers and scanners on one store: nobody sees a row go back, two
// rows of one write batch out of step, or less than was applied.
func TestCoherenceUnderLoad(t *testing.T) {
	o := testOptions(nil)
	s := open(t, o)
	defer closeStore(t, s)
	// Under the race detector, memory that it watches.
	c, err := newRowCache(segmentBytesMin, heapMemory)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cache.close(); err != nil {
		t.Fatal(err)
	}
	s.cache = c

	const pairs, rounds = 50, 1500
	var stop atomic.Bool
	var wg sync.WaitGroup
	read := func(b *bufpool.Buffer, key string) uint64 {
		b.B = b.B[:0]
		row, hit := s.AppendCached(b, 0, []byte(key), 1, true)
		if hit == command.ReadMiss {
			var err error
			if row, _, err = s.Append(b, 0, []byte(key), 1, command.AnyValue); err != nil {
				t.Error(err)
			}
		}
		return row.Version
	}
	for range 3 {
		wg.Go(func() {
			b := bufpool.Get(0)
			defer b.Release()
			for i := 0; !stop.Load(); i++ {
				pair := i * 7 % pairs
				left, right := fmt.Sprintf("left%02d", pair), fmt.Sprintf("right%02d", pair)
				floor := s.Applied(0)
				// Versions of a pair differ by one: left is written first.
				l := read(b, left)
				r := read(b, right)
				l2 := read(b, left)
				if l != 0 && r < l+1 || l2 < l || l2+1 < r {
					t.Errorf("pair %d: left %d, right %d, left %d", pair, l, r, l2)
					return
				}
				if at := uint64(pair) + 1; floor >= at && l == 0 {
					t.Errorf("pair %d is not there at index %d", pair, floor)
					return
				}
			}
		})
	}
	wg.Go(func() {
		b := bufpool.Get(0)
		defer b.Release()
		for i := 0; !stop.Load(); i++ {
			seen := map[string]uint64{}
			err := s.Scan(ScanOptions{Shards: []int{0}}, func(key, _ []byte, row command.Row) bool {
				seen[string(key)] = row.Version
				return true
			})
			if err != nil {
				t.Error(err)
				return
			}
			for key, version := range seen {
				if strings.HasPrefix(key, "left") {
					if right := seen["right"+key[4:]]; right != version+1 {
						t.Errorf("scan: %s %d, right %d", key, version, right)
						return
					}
				}
				if now := read(b, key); now < version {
					t.Errorf("%s: version %d after a scan saw %d", key, now, version)
					return
				}
			}
		}
	})
	for i := range rounds {
		pair := i % pairs
		value := strings.Repeat("v", i%3000) // makes evictions
		do(t, s, 1, batchOf(put(fmt.Sprintf("left%02d", pair), value), put(fmt.Sprintf("right%02d", pair), value)))
		if i%100 == 0 {
			runtime.Gosched()
		}
		if i%500 == 499 {
			if err := s.Flush(); err != nil {
				t.Error(err)
			}
		}
	}
	stop.Store(true)
	wg.Wait()
	for i := range s.cache.segments {
		s.cache.segments[i].check(t)
	}
}

// Apply holds publishing before it publishes, and a scan waits for it.
func TestScansKeepOutOfTheWindow(t *testing.T) {
	s := openTest(t)
	do(t, s, 1, put("k", "old"))
	segment := s.cache.segment(hashKey(0, []byte("k")))
	segment.mu.Lock() // Apply gets as far as announcing its change
	applied := make(chan error)
	go func() {
		applied <- s.Apply([]Entry{{Index: 2, Data: entryOf(1, put("k", "new"))}}, &delivered{})
	}()
	held := false
	for deadline := time.Now().Add(time.Minute); !held && time.Now().Before(deadline); {
		if held = !s.publishing.TryLock(); !held {
			s.publishing.Unlock()
			runtime.Gosched()
		}
	}
	segment.mu.Unlock()
	if err := <-applied; err != nil || !held {
		t.Fatalf("publishing held: %v, error %v", held, err)
	}

	s.publishing.Lock()
	began, rows := make(chan struct{}), make(chan []scanned, 1)
	go func() {
		close(began)
		rows <- scan(t, s, ScanOptions{Shards: []int{0}})
	}()
	<-began
	for range 10_000 {
		runtime.Gosched()
	}
	select {
	case <-rows:
		t.Error("a scan began while a batch was published")
		s.publishing.Unlock()
	default:
		s.publishing.Unlock()
		diff(t, "scan", <-rows, []scanned{{"k", read{"new", 2, 0, true}}})
	}
}

// Keys and shards decide, not hashes.
func TestOverlayTellsRowsOfOneHashApart(t *testing.T) {
	var o rowSet
	for range 3 {
		o.reset()
		for i := range 1000 { // more than there are cells for at first
			key := []byte(fmt.Sprint("key", i%100))
			r := o.find(uint16(i/100%2), key, uint64(i%100%7))
			if seen := r.version != 0; seen != (i >= 200) {
				t.Fatalf("row %d was seen: %v", i, seen)
			}
			if r.version++; r.version != uint64(i/200+1) {
				t.Fatalf("row %d was seen %d times", i, r.version)
			}
		}
	}
}

func TestOverlayGrows(t *testing.T) {
	var o rowSet
	o.reset()
	for round := range 2 {
		for i := range 10 * rowSetCellsMin {
			key := []byte(fmt.Sprint("key", i))
			if r := o.find(0, key, hashKey(0, key)); int(r.version) != round {
				t.Fatalf("row %d was seen %d times", i, r.version)
			} else {
				r.version++
			}
		}
	}
	o.reset()
	if len(o.rows) != 0 || o.find(0, []byte("key1"), hashKey(0, []byte("key1"))).version != 0 {
		t.Error("a row survives the reset")
	}
	o.generation = 1<<32 - 1
	o.cells[5] = rowSetCell{generation: 0}
	o.reset()
	if o.generation == 0 {
		t.Error("generation 0 makes empty cells look full")
	}
}

func TestNegativeEntries(t *testing.T) {
	s := openTest(t)
	key := []byte("k")
	lookup := func() command.ReadState {
		_, hit := s.AppendCached(nil, 0, key, 1, false)
		return hit
	}
	if lookup() != command.ReadMiss {
		t.Fatal("not a miss at first")
	}
	diff(t, "row", get(t, s, 0, "k", 1), read{})
	if lookup() != command.ReadAbsent {
		t.Error("a key found absent is not remembered")
	}
	do(t, s, 1, put("k", "v"))
	if lookup() != command.ReadFound {
		t.Error("a row put is not found")
	}
	do(t, s, 1, command.Command{Kind: command.Delete, Key: key})
	if lookup() != command.ReadAbsent {
		t.Error("a deleted row is not known to be absent")
	}
	hash := hashKey(0, key)
	s.cache.segment(hash).drop(hash, 0, key) // as if it had been evicted
	diff(t, "deleted row", get(t, s, 0, "k", 1), read{})
	if lookup() != command.ReadAbsent {
		t.Error("a row found deleted in a memtable is not remembered")
	}
}

// While a shard is barred, and of what was there before it, readers and Apply
// find nothing; a fill of before is void afterwards; other shards keep theirs.
func TestBarredShard(t *testing.T) {
	c := newTestCache(t, 1<<20) // several segments
	const rows = 500
	key := func(i int) string { return fmt.Sprint("key", i) }
	for i := range rows {
		c.set(cacheRow(1, key(i), 1, "old"))
		c.set(cacheRow(2, key(i), 1, "other"))
		if i%3 == 0 { // garbage between
			c.segment(hashKey(1, []byte(key(i)))).drop(hashKey(1, []byte(key(i))), 1, []byte(key(i)))
		}
	}
	_, _, hit, before := c.find(1, "absent", 1)
	if hit != command.ReadMiss || !before.valid {
		t.Fatalf("%v, %+v", hit, before)
	}
	fill := func(ticket fillTicket) {
		c.fill(ticket, hashKey(1, []byte("absent")), 1, []byte("absent"), cachedRow{version: 1}, nil)
	}
	c.bar(1)
	c.bar(1)
	for range 2 { // bars count
		fill(before)
		c.set(cacheRow(1, key(1), 2, "meanwhile"))
		c.add(cacheRow(1, key(2), 2, "meanwhile"))
		for i := range rows {
			if _, _, hit, ticket := c.find(1, key(i), 1); hit != command.ReadMiss || ticket.valid {
				t.Fatalf("%s: %v, %+v", key(i), hit, ticket)
			}
			if c.load(cacheRow(1, key(i), 0, ""), false, &arena{}) {
				t.Fatal("Apply finds a row")
			}
		}
		c.unbar(1)
	}
	fill(before)
	if _, _, hit, _ := c.find(1, "absent", 1); hit != command.ReadMiss {
		t.Error("a fill from before")
	}
	for i := range rows {
		if _, _, hit, _ := c.find(1, key(i), 1); hit != command.ReadMiss {
			t.Errorf("%s: %v", key(i), hit)
		}
		if value, _, hit, _ := c.find(2, key(i), 1); hit != command.ReadFound || value != "other" {
			t.Errorf("%s of the other shard: %q, %v", key(i), value, hit)
		}
	}
	_, _, _, after := c.find(1, "absent", 1)
	fill(after)
	if _, _, hit, _ := c.find(1, "absent", 1); hit != command.ReadFound {
		t.Error("it stays barred")
	}
	for i := range c.segments {
		c.segments[i].check(t)
	}
}
