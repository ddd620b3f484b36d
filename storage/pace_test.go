package storage

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

func TestPace(t *testing.T) {
	for _, c := range []struct {
		worked time.Duration
		hurry  bool
		quiet  bool
		pause  time.Duration
	}{
		{worked: 0, pause: 0},
		{worked: paceWork - 1, pause: 0},
		{worked: paceWork, pause: pacePause * paceWork},
		{worked: paceWork, hurry: true, pause: 0},
		{worked: paceWork, quiet: true, pause: 0},
		{worked: pacePauseMax / pacePause, pause: pacePauseMax / pacePause * pacePause},
		{worked: pacePauseMax/pacePause + 1, pause: pacePauseMax},
		{worked: time.Minute, pause: pacePauseMax},
	} {
		synctest.Test(t, func(t *testing.T) {
			var passes atomic.Uint64
			p := pacing{func() bool { return c.hurry }, &passes}.begin()
			for range 3 { // a pause does not count as work
				time.Sleep(c.worked)
				if !c.quiet {
					passes.Add(1)
				}
				before := time.Now()
				p.rest()
				if got := time.Since(before); got != c.pause {
					t.Errorf("after %v, hurry %v, quiet %v: a pause of %v, want %v", c.worked, c.hurry, c.quiet, got, c.pause)
				}
				if c.worked < paceWork {
					return // works on
				}
			}
		})
	}
}

// TestSortRests has a sort call rest, and find the same order.
func TestSortRests(t *testing.T) {
	table := newRecentTable(1 << 20)
	for i := range 8 * restEvery {
		table.put(fmt.Sprintf("key:%08d", i*7919%(8*restEvery)), "", false)
	}
	table.commit()
	order := table.lists[recentRows].order
	rests := 0
	rested := table.sort(order, func() { rests++ })
	if !slices.Equal(rested, table.sort(order, nil)) {
		t.Error("a sort that rests finds another order")
	}
	if rests < 16 { // the records are looked at once, and compared
		t.Errorf("%d rests in a sort of %d records", rests, len(order))
	}
}

// createdFS notes as what files were created.
type createdFS struct {
	vfs.FS
	mu         sync.Mutex
	categories []vfs.DiskWriteCategory
}

func (f *createdFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f.mu.Lock()
	f.categories = append(f.categories, category)
	f.mu.Unlock()
	return f.FS.Create(name, category)
}

// TestCompactionsArePaced has a compaction write, and a flush, of which only
// the first is paced.
func TestCompactionsArePaced(t *testing.T) {
	created := &createdFS{FS: vfs.NewMem()}
	paced := &pacedFS{created, pacing{func() bool { return true }, new(atomic.Uint64)}, new(atomic.Bool)}
	db, err := pebble.Open("db", &pebble.Options{FS: paced, Logger: quiet{}})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		for k := range 100 {
			if err := db.Set(fmt.Appendf(nil, "%03d", k), fmt.Appendf(nil, "%d", i), nil); err != nil {
				t.Fatal(err)
			}
		}
		if slices.Contains(created.categories, compactionCategory) {
			t.Fatal("what is not a compaction is called one")
		}
		if err := db.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Compact(t.Context(), []byte("0"), []byte("9"), false); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(created.categories, compactionCategory) {
		t.Errorf("a compaction is none of %q", created.categories)
	}
	for _, category := range []vfs.DiskWriteCategory{compactionCategory, vfs.WriteCategoryUnspecified} {
		f, err := paced.Create("x", category)
		if err != nil {
			t.Fatal(err)
		}
		if _, is := f.(pacedFile); is != (category == compactionCategory) {
			t.Errorf("a file of category %q: paced %v", category, is)
		}
		f.Close()
	}
}

// heldFS holds compactions at their first write until it is released.
type heldFS struct {
	vfs.FS
	reached  chan struct{} // capacity 1
	released chan struct{}
	writes   atomic.Int32
}

func (f *heldFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := f.FS.Create(name, category)
	if err != nil || category != compactionCategory {
		return file, err
	}
	return heldFile{file, f}, nil
}

type heldFile struct {
	vfs.File
	fs *heldFS
}

func (f heldFile) Write(p []byte) (int, error) {
	f.fs.writes.Add(1)
	notify(f.fs.reached)
	<-f.fs.released
	return f.File.Write(p)
}

// TestCloseEndsCompactions: a store closes without waiting until a compaction has
// written all it has to, and has all rows when it is opened again.
func TestCloseEndsCompactions(t *testing.T) {
	held := &heldFS{FS: vfs.NewMem(), reached: make(chan struct{}, 1), released: make(chan struct{})}
	o := testOptions(held)
	o.RecentBytes = 8 << 20
	s := open(t, o)
	const rows = 2000
	value := make([]byte, 1000) // that cannot be compressed
	_, _ = rand.NewChaCha8([32]byte{}).Read(value)
	for layer := range compactionLayers + 1 {
		for i := range rows {
			do(t, s, 1, put(fmt.Sprint(i), fmt.Sprint(layer, string(value))))
		}
		if err := s.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	<-held.reached
	closed := make(chan error)
	go func() { closed <- s.Close() }()
	for !s.over.Load() {
		runtime.Gosched()
	}
	close(held.released)
	if err := <-closed; err != nil {
		t.Fatal(err)
	}
	if n := held.writes.Load(); n > 16 { // of hundreds
		t.Errorf("compactions wrote %d times after the store had begun to close", n)
	}
	s = open(t, o)
	defer closeStore(t, s)
	for i := range rows {
		if got := get(t, s, 0, fmt.Sprint(i), 1).Value; got != fmt.Sprint(compactionLayers, string(value)) {
			t.Fatalf("row %d is %.20q", i, got)
		}
	}
}

type quiet struct{}

func (quiet) Infof(string, ...any)      {}
func (quiet) Errorf(string, ...any)     {}
func (quiet) Fatalf(f string, a ...any) { panic(fmt.Sprintf(f, a...)) }

// TestHurry says when background work must not stand back.
func TestHurry(t *testing.T) {
	s := openTest(t)
	if s.drainHurries() || s.compactionHurries() {
		t.Fatal("an empty store is in a hurry")
	}
	s.layers.Store(2*compactionLayers - 1)
	if s.compactionHurries() {
		t.Error("a compaction hurries before level 0 is deep")
	}
	s.layers.Store(2 * compactionLayers)
	if !s.compactionHurries() || s.drainHurries() {
		t.Error("with a deep level 0 compactions hurry, drains do not")
	}
	s.layers.Store(0)

	g := newGate(s)
	g.Lock()
	do(t, s, 1, put("k", "v"))
	flushed := make(chan error)
	go func() { flushed <- s.Flush() }()
	<-g.waits
	for !s.drainHurries() { // until the flush waits
		runtime.Gosched()
	}
	if !s.compactionHurries() {
		t.Error("a compaction does not hurry while a flush waits")
	}
	g.Unlock()
	if err := <-flushed; err != nil {
		t.Fatal(err)
	}
	if s.drainHurries() {
		t.Error("a drain hurries when nobody waits any more")
	}

	// A drain that has written nothing, then half of its records, then all.
	fill := func(part float64) {
		t.Helper()
		for i := 0; s.recent.fill() <= part; i++ {
			if s.drainHurries() {
				t.Fatalf("in a hurry with %.2f of the table in use, and %.2f written", s.recent.fill(), s.drained.part())
			}
			do(t, s, 1, put(fmt.Sprint(i), "v"))
		}
		if !s.drainHurries() {
			t.Errorf("no hurry with %.2f of the table in use, and %.2f written", s.recent.fill(), s.drained.part())
		}
	}
	s.drained.begin()
	fill(drainLag)
	s.drained.of.Store(10)
	s.drained.written.Store(5)
	fill(0.5 + drainLag)
	s.drained.rushed.Store(true) // this one must be ahead
	s.drained.written.Store(6 + 2)
	if !s.drainHurries() || !s.compactionHurries() {
		t.Error("no hurry after a drain that was hardly fast enough")
	}
	s.drained.written.Store(6 + 3)
	if s.drainHurries() {
		t.Error("in a hurry although ahead")
	}
}

// TestRushed says which drains were hardly fast enough: those at the end of which
// much of the other table is in use.
func TestRushed(t *testing.T) {
	s := openTest(t)
	g := newGate(s)
	for _, rushed := range []bool{false, true, false} {
		g.Lock()
		do(t, s, 1, put("k", "v"))
		freezeTable(s)
		<-g.waits
		draining := s.recent.draining()
		for i := 0; rushed && s.recent.fill() <= rushedFill; i++ {
			do(t, s, 1, put(fmt.Sprint(i), "v"))
		}
		g.Unlock()
		<-draining
		if got := s.drained.rushed.Load(); got != rushed {
			t.Errorf("rushed %v, want %v, with %.2f of the table in use", got, rushed, s.recent.fill())
		}
		if err := s.Flush(); err != nil {
			t.Fatal(err)
		}
		select {
		case <-g.waits: // of the flush
		default:
		}
	}
}
