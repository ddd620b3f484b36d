package storage

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

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

// TestCompactionsCanBeEnded has a compaction write, and a flush, of which only
// the first can be ended.
func TestCompactionsCanBeEnded(t *testing.T) {
	created := &createdFS{FS: vfs.NewMem()}
	ending := &pebbleFS{created, &Store{}}
	db, err := pebble.Open("db", &pebble.Options{FS: ending, Logger: quiet{}})
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
		f, err := ending.Create("x", category)
		if err != nil {
			t.Fatal(err)
		}
		if _, is := f.(compactionFile); is != (category == compactionCategory) {
			t.Errorf("a file of category %q: can be ended %v", category, is)
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
	o.MemtableBytes = 8 << 20
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
