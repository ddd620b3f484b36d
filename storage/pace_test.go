package storage

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
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
		pause  time.Duration
	}{
		{worked: 0, pause: 0},
		{worked: paceWork - 1, pause: 0},
		{worked: paceWork, pause: pacePause * paceWork},
		{worked: paceWork, hurry: true, pause: 0},
		{worked: pacePauseMax / pacePause, pause: pacePauseMax / pacePause * pacePause},
		{worked: pacePauseMax/pacePause + 1, pause: pacePauseMax},
		{worked: time.Minute, pause: pacePauseMax},
	} {
		synctest.Test(t, func(t *testing.T) {
			p := newPace(func() bool { return c.hurry })
			for range 3 { // a pause does not count as work
				time.Sleep(c.worked)
				before := time.Now()
				p.rest()
				if got := time.Since(before); got != c.pause {
					t.Errorf("after %v, hurry %v: a pause of %v, want %v", c.worked, c.hurry, got, c.pause)
				}
				if c.pause == 0 && !c.hurry {
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
	paced := &pacedFS{created, func() bool { return true }}
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

	half := len(s.recent.active.arena) / 2
	for i := 0; s.recent.active.used() <= half; i++ {
		if s.drainHurries() {
			t.Fatalf("in a hurry with %d of %d bytes in use", s.recent.active.used(), 2*half)
		}
		do(t, s, 1, put(fmt.Sprint(i), "v"))
	}
	if !s.drainHurries() {
		t.Error("no hurry with half of the table in use")
	}
}
