package raftlog

import (
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"go.etcd.io/raft/v3/raftpb"
)

// TestFailureIsFinal makes one write or sync of a Save fail: that Save
// fails and shows nothing, every later one returns the same error though the
// disk works again, and what was acknowledged before is there after reopening.
func TestFailureIsFinal(t *testing.T) {
	for name, kind := range map[string]errorfs.OpKind{
		"write": errorfs.OpFileWriteAt,
		"sync":  errorfs.OpFileSyncData,
	} {
		t.Run(name, func(t *testing.T) {
			var armed atomic.Bool
			mem := vfs.NewCrashableMem()
			o := testOptions(errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
				if op.Kind == kind && armed.Swap(false) {
					return syscall.EIO
				}
				return nil
			})))
			l, _ := mustOpen(t, o)
			awaitDead(l)
			g, w := l.Group(1), l.NewWrite()
			w.Append(g, raftpb.HardState{}, entries(1, 1, 1, "safe"))
			mustSave(t, l, w, true)
			want := stateOf(t, l)
			armed.Store(true)
			w.Append(g, raftpb.HardState{}, entries(2, 1, 1, "unknown"))
			first := l.Save(w, true)
			if !errors.Is(first, syscall.EIO) {
				t.Fatalf("Save: %v", first)
			}
			if got := stateOf(t, l); !got.equal(want) {
				t.Errorf("a failed Save shows: %v", got)
			}
			for range 2 {
				if err := l.Save(l.NewWrite(), true); err != first || l.Err() != first {
					t.Errorf("later Save: %v, Err: %v, want %v", err, l.Err(), first)
				}
			}
			if err := l.Close(); !errors.Is(err, syscall.EIO) {
				t.Errorf("Close: %v", err)
			}
			l, _ = mustOpen(t, testOptions(mem.CrashClone(vfs.CrashCloneCfg{})))
			defer mustClose(t, l)
			if got := stateOf(t, l); !got.equal(want) {
				t.Errorf("reopened: %v, want %v", got, want)
			}
		})
	}
}

// fullDisk refuses new files once it is full.
type fullDisk struct{ full atomic.Bool }

func (d *fullDisk) String() string { return "full disk" }

func (d *fullDisk) MaybeError(op errorfs.Op) error {
	if d.full.Load() && op.Kind == errorfs.OpFilePreallocate {
		return syscall.ENOSPC
	}
	return nil
}

// TestNoSpace fills the disk. What is prepared is still used; then the log
// stops, with an error that says why, and nothing is lost.
func TestNoSpace(t *testing.T) {
	var disk fullDisk
	mem := vfs.NewCrashableMem()
	l, _ := mustOpen(t, testOptions(errorfs.Wrap(mem, &disk)))
	awaitDead(l)
	disk.full.Store(true)
	g, w := l.Group(1), l.NewWrite()
	var failure error
	var want logState
	saves := uint64(0)
	for failure == nil {
		want = stateOf(t, l)
		saves++
		w.Append(g, raftpb.HardState{}, entries(saves, 1, 1, "x"))
		failure = l.Save(w, true)
	}
	if !errors.Is(failure, ErrNoSpace) || !errors.Is(failure, syscall.ENOSPC) || !strings.Contains(failure.Error(), testDir) {
		t.Errorf("Save: %v", failure)
	}
	if saves < 7 {
		t.Errorf("the log failed at Save %d, with space left in its segment", saves)
	}
	disk.full.Store(false)
	if err := l.Save(w, true); err != failure {
		t.Errorf("later Save: %v", err)
	}
	if err := l.Close(); !errors.Is(err, ErrNoSpace) {
		t.Errorf("Close: %v", err)
	}
	l, _ = mustOpen(t, testOptions(mem.CrashClone(vfs.CrashCloneCfg{})))
	defer mustClose(t, l)
	if got := stateOf(t, l); !got.equal(want) {
		t.Errorf("reopened: %v, want %v", got, want)
	}
}

// TestNoSpaceThenTruncate frees space in time: the files of the log's own past
// are enough to go on.
func TestNoSpaceThenTruncate(t *testing.T) {
	var disk fullDisk
	l, _ := mustOpen(t, testOptions(errorfs.Wrap(vfs.NewMem(), &disk)))
	defer mustClose(t, l)
	g, w := l.Group(1), l.NewWrite()
	for i := uint64(1); i <= 20; i++ {
		w.Append(g, raftpb.HardState{}, entries(i, 1, 1, "x"))
		mustSave(t, l, w, true)
	}
	awaitDead(l)
	disk.full.Store(true)
	for i := uint64(21); i <= 100; i++ {
		w.Append(g, raftpb.HardState{}, entries(i, 1, 1, "x"))
		l.Truncate(g, i-2)
		mustSave(t, l, w, true)
	}
}

// TestNoSpaceMakesRoom fills the disk while the log holds much that could be
// truncated. Whoever owns it is told, or asked at last by the Save that cannot
// go on; the segments of the past are used again and nothing fails.
func TestNoSpaceMakesRoom(t *testing.T) {
	for name, late := range map[string]bool{"when told": false, "when asked": true} {
		t.Run(name, func(t *testing.T) {
			var disk fullDisk
			var l *Log
			var applied atomic.Uint64
			truncate := func() { l.Truncate(l.Group(1), applied.Load()) }
			o := testOptions(errorfs.Wrap(vfs.NewMem(), &disk))
			o.OnNoSpace, o.MakeRoom = func() {}, truncate
			if !late {
				o.OnNoSpace, o.MakeRoom = truncate, func() {}
			}
			l, _ = mustOpen(t, o)
			defer mustClose(t, l)
			g, w := l.Group(1), l.NewWrite()
			index := uint64(0)
			add := func() {
				index++
				w.Append(g, raftpb.HardState{}, entries(index, 1, 1, "x"))
				mustSave(t, l, w, true)
				applied.Store(index)
			}
			for range 40 { // several segments
				add()
			}
			awaitDead(l)
			disk.full.Store(true)
			for range 200 {
				add()
			}
			if l.SizeBytes() > 6*o.SegmentBytes {
				t.Errorf("the log has %d bytes", l.SizeBytes())
			}
		})
	}
}

// usage says how much of a disk is free.
type usage struct {
	vfs.FS
	free atomic.Uint64
}

func (u *usage) GetDiskUsage(string) (vfs.DiskUsage, error) {
	return vfs.DiskUsage{AvailBytes: u.free.Load()}, nil
}

// TestKeepFree has a disk with little room left: nothing is prepared before its
// time, and what is kept free is touched only by a Save that needs it.
func TestKeepFree(t *testing.T) {
	fs := &usage{FS: vfs.NewMem()}
	o := testOptions(fs)
	fs.free.Store(uint64(o.SegmentBytes))
	told := make(chan struct{}, 100)
	o.KeepFree, o.OnNoSpace = 1, func() { told <- struct{}{} }
	l, _, err := Open(o) // with a first segment
	if err != nil {
		t.Fatal(err)
	}
	defer mustClose(t, l)
	g, w := l.Group(1), l.NewWrite()
	add := func(index uint64) {
		w.Append(g, raftpb.HardState{}, entries(index, 1, 1, "x"))
		mustSave(t, l, w, true)
	}
	add(1)
	if names, err := fs.List(testDir); err != nil || len(segmentNames(names)) != 1 || l.Short() {
		t.Errorf("a segment was prepared before its time: %v, %v", names, err)
	}
	l.Prepare()
	<-told
	for i := uint64(2); i <= 20; i++ {
		add(i)
	}
}

func segmentNames(names []string) (segments []string) {
	for _, name := range names {
		if _, ok := parseSegmentName(name); ok {
			segments = append(segments, name)
		}
	}
	return segments
}

func TestNoSpaceAtFirstStart(t *testing.T) {
	var disk fullDisk
	disk.full.Store(true)
	fs := vfs.NewMem()
	_, _, err := Open(testOptions(errorfs.Wrap(fs, &disk)))
	if !errors.Is(err, ErrNoSpace) {
		t.Errorf("Open: %v", err)
	}
	names, _ := fs.List(testDir)
	slices.Sort(names)
	if !slices.Equal(names, []string{lockName, syncedName}) {
		t.Errorf("left behind: %v", names)
	}
	disk.full.Store(false)
	l, _ := mustOpen(t, testOptions(fs))
	mustClose(t, l)
}

// TestFailingMaintenance lets each operation of the background fail in turn:
// the log fails, or gets by without, but never hangs or loses anything.
func TestFailingMaintenance(t *testing.T) {
	for n := int32(0); n < 60; n++ {
		mem := vfs.NewCrashableMem()
		var opened atomic.Bool
		nth := errorfs.OnIndex(n)
		o := testOptions(errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if !opened.Load() || op.Kind.ReadOrWrite() == errorfs.OpIsRead {
				return nil
			}
			return nth.MaybeError(op)
		})))
		o.SegmentBytes = SegmentBytesMin
		o.SpareSegments = 1
		l, _ := mustOpen(t, o)
		opened.Store(true)
		g, w := l.Group(1), l.NewWrite()
		acknowledged := uint64(0)
		for i := uint64(1); i <= 30; i++ {
			w.Append(g, raftpb.HardState{}, entries(i, 1, 1, "x"))
			if i > 3 && i%3 == 0 {
				l.Truncate(g, i-3)
			}
			if l.Save(w, true) != nil {
				break
			}
			acknowledged = i
			if i%5 == 0 && l.RecordSynced() != nil {
				break
			}
		}
		failed := l.Err() != nil
		if err := l.Close(); failed && !errors.Is(err, errorfs.ErrInjected) {
			t.Errorf("operation %d: Close: %v", n, err)
		}
		l, _, err := Open(testOptions(mem.CrashClone(vfs.CrashCloneCfg{})))
		if err != nil {
			t.Fatalf("operation %d: %v", n, err)
		}
		if last, _ := l.Group(1).LastIndex(); last < acknowledged {
			t.Errorf("operation %d: last index %d, acknowledged %d", n, last, acknowledged)
		}
		mustClose(t, l)
	}
}

// TestDamagedRead damages an entry while the log is open: the read reports it
// and the log stops.
func TestDamagedRead(t *testing.T) {
	fs := vfs.NewMem()
	o := testOptions(fs)
	o.CacheBytes = -1
	l, _ := mustOpen(t, o)
	defer l.Close()
	g, w := l.Group(1), l.NewWrite()
	w.Append(g, raftpb.HardState{}, entries(1, 2, 1, "data of the entry"))
	mustSave(t, l, w, true)
	r := g.ref(2)
	f, err := fs.OpenReadWrite(r.seg.path, writeCategory)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte{'D'}, int64(r.off)); err != nil {
		t.Fatal(err)
	}
	if es, err := g.Entries(1, 2, 0); err != nil || string(es[0].Data) != "data of the entry" {
		t.Errorf("intact entry: %v, %v", es, err)
	}
	var where *CorruptionError
	if _, err := g.Entries(2, 3, 0); !errors.Is(err, ErrCorrupt) || !errors.As(err, &where) || where.Offset != int64(r.off) {
		t.Errorf("damaged entry: %v", err)
	}
	if err := l.Save(w, true); !errors.Is(err, ErrCorrupt) {
		t.Errorf("Save afterwards: %v", err)
	}
}
