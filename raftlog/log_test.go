package raftlog

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/proa-kv/proa/internal/alloctest"
)

// TestStorage holds a group against what raft.Storage documents.
func TestStorage(t *testing.T) {
	l, _ := mustOpen(t, testOptions(vfs.NewMem()))
	defer mustClose(t, l)
	g, w := l.Group(7), l.NewWrite()
	if _, err := g.Snapshot(); err != raft.ErrSnapshotTemporarilyUnavailable {
		t.Fatalf("snapshot of an empty log: %v", err)
	}
	if hs, cs, err := g.InitialState(); hs != (raftpb.HardState{}) || len(cs.Voters) != 0 || err != nil {
		t.Fatalf("initial state of an empty log: %v, %v, %v", hs, cs, err)
	}
	if _, err := g.Entries(1, 1, math.MaxUint64); err != raft.ErrUnavailable {
		t.Fatalf("entries of an empty log: %v", err)
	}
	w.SetStart(g, 3, 3, confState(1, 2))
	w.Append(g, raftpb.HardState{Term: 5, Vote: 2, Commit: 1}, []raftpb.Entry{entry(4, 4, "four"), entry(5, 5, "five"), entry(6, 5, "")})
	mustSave(t, l, w, true)

	for _, c := range []struct {
		index, term uint64
		err         error
	}{{2, 0, raft.ErrCompacted}, {3, 3, nil}, {4, 4, nil}, {5, 5, nil}, {6, 5, nil}, {7, 0, raft.ErrUnavailable}} {
		if term, err := g.Term(c.index); term != c.term || err != c.err {
			t.Errorf("Term(%d) = %d, %v", c.index, term, err)
		}
	}
	e4, e5, e6 := encoded(entry(4, 4, "four")), encoded(entry(5, 5, "five")), encoded(entry(6, 5, ""))
	for _, c := range []struct {
		lo, hi, max uint64
		n           int
		err         error
	}{
		{2, 7, math.MaxUint64, 0, raft.ErrCompacted},
		{3, 4, math.MaxUint64, 0, raft.ErrCompacted},
		{4, 5, math.MaxUint64, 1, nil},
		{4, 7, math.MaxUint64, 3, nil},
		{4, 8, math.MaxUint64, 0, raft.ErrUnavailable},
		{5, 5, math.MaxUint64, 0, nil},
		{4, 7, 0, 1, nil},
		{4, 7, e4 + e5 - 1, 1, nil},
		{4, 7, e4 + e5, 2, nil},
		{4, 7, e4 + e5 + e6 - 1, 2, nil},
		{4, 7, e4 + e5 + e6, 3, nil},
	} {
		es, err := g.Entries(c.lo, c.hi, c.max)
		if len(es) != c.n || err != c.err || (c.n > 0 && es[0].Index != c.lo) {
			t.Errorf("Entries(%d, %d, %d) = %v, %v", c.lo, c.hi, c.max, es, err)
		}
	}
	hs, cs, _ := g.InitialState()
	if hs.Term != 5 || hs.Vote != 2 || hs.Commit != 3 || len(cs.Voters) != 2 {
		t.Errorf("initial state %v, %v; want the commit index raised to the start", hs, cs)
	}
	snap, err := g.Snapshot()
	if m := snap.Metadata; err != nil || m.Index != 3 || m.Term != 3 || len(m.ConfState.Voters) != 2 || snap.Data != nil {
		t.Errorf("snapshot %v, %v", snap, err)
	}
}

// TestReadBack reads entries from the files, the cache, and across both.
func TestReadBack(t *testing.T) {
	o := testOptions(vfs.NewMem())
	o.CacheBytes = 4 * (entryOverheadBytes + 100)
	l, _ := mustOpen(t, o)
	g, h, w := l.Group(1), l.Group(2), l.NewWrite()
	data := func(i uint64) string { return strings.Repeat(fmt.Sprint(i%10), 100) }
	for i := uint64(1); i <= 40; i++ {
		w.Append(g, raftpb.HardState{}, []raftpb.Entry{entry(i, i, data(i))})
		w.Append(h, raftpb.HardState{}, []raftpb.Entry{entry(i, 2*i, "")})
		mustSave(t, l, w, i%3 == 0)
		if c := l.cached.Load(); c > o.CacheBytes {
			t.Fatalf("%d bytes cached, allowed are %d", c, o.CacheBytes)
		}
	}
	check := func(when string) {
		t.Helper()
		for lo := uint64(1); lo <= 40; lo++ {
			for _, hi := range []uint64{lo + 1, lo + 3, 41} {
				hi = min(hi, 41)
				es, err := g.Entries(lo, hi, math.MaxUint64)
				if err != nil || uint64(len(es)) != hi-lo {
					t.Fatalf("%s: Entries(%d, %d) = %d entries, %v", when, lo, hi, len(es), err)
				}
				for i, e := range es {
					if n := lo + uint64(i); e.Index != n || e.Term != n || string(e.Data) != data(n) {
						t.Fatalf("%s: entry %d is %v", when, n, e)
					}
				}
			}
		}
		if es, err := h.Entries(1, 2, 0); err != nil || es[0].Data != nil || es[0].Term != 2 {
			t.Fatalf("%s: empty entry: %v, %v", when, es, err)
		}
	}
	if g.cached.len() == 0 || g.cached.len() == 40 {
		t.Fatalf("%d entries are cached, the test wants a part", g.cached.len())
	}
	check("before")
	mustClose(t, l)
	l, rec := mustOpen(t, o)
	g, h = l.Group(1), l.Group(2)
	if rec.Entries != 80 || rec.Groups != 2 || rec.TornBytes != 0 {
		t.Errorf("recovery %+v", rec)
	}
	check("reopened")
	mustClose(t, l)
	if _, err := g.Entries(1, 2, 0); err != ErrClosed {
		t.Errorf("Entries after Close: %v", err)
	}
	if err := l.Save(w, true); err != ErrClosed {
		t.Errorf("Save after Close: %v", err)
	}
	if err := l.Close(); err != ErrClosed {
		t.Errorf("second Close: %v", err)
	}
}

// TestConflict replaces suffixes, within one Write and across several.
func TestConflict(t *testing.T) {
	o := testOptions(vfs.NewMem())
	l, _ := mustOpen(t, o)
	g, w := l.Group(1), l.NewWrite()
	w.Append(g, raftpb.HardState{}, entries(1, 10, 1, "a"))
	w.Append(g, raftpb.HardState{}, entries(4, 2, 2, "b"))
	mustSave(t, l, w, true)
	w.Append(g, raftpb.HardState{}, entries(5, 3, 3, "c"))
	mustSave(t, l, w, true)
	want := "1 1 1 2 3 3 3 "
	if s := groupStateOf(t, g); s.terms != want {
		t.Errorf("terms %s, want %s", s.terms, want)
	}
	mustClose(t, l)
	l, _ = mustOpen(t, o)
	defer mustClose(t, l)
	if s := groupStateOf(t, l.Group(1)); s.terms != want {
		t.Errorf("reopened: terms %s, want %s", s.terms, want)
	}
	if c, sum := l.cached.Load(), l.Group(1).bytes; c != sum {
		t.Errorf("%d bytes cached, the group has %d", c, sum)
	}
}

func TestSetStart(t *testing.T) {
	base := func(w *Write, g *Group) {
		w.SetStart(g, 10, 1, confState(1))
		w.Append(g, raftpb.HardState{}, entries(11, 5, 2, "x"))
	}
	for name, c := range map[string]struct {
		index, term uint64
		start       mark
		terms       string
	}{
		"inside, same term":  {13, 2, mark{13, 2}, "2 2 "},
		"inside, other term": {13, 3, mark{13, 3}, ""},
		"at the last":        {15, 2, mark{15, 2}, ""},
		"behind":             {20, 2, mark{20, 2}, ""},
		"at the start":       {10, 1, mark{10, 1}, "2 2 2 2 2 "},
		"start, other term":  {10, 2, mark{10, 2}, ""},
		"before":             {5, 1, mark{5, 1}, ""},
	} {
		for _, together := range []bool{false, true} {
			t.Run(fmt.Sprint(name, together), func(t *testing.T) {
				o := testOptions(vfs.NewMem())
				l, _ := mustOpen(t, o)
				g, w := l.Group(1), l.NewWrite()
				base(w, g)
				if !together {
					mustSave(t, l, w, true)
				}
				w.SetStart(g, c.index, c.term, nil)
				mustSave(t, l, w, true)
				want := groupStateOf(t, g)
				if want.start != c.start || want.terms != c.terms {
					t.Errorf("got %+v", want)
				}
				last, _ := g.LastIndex()
				w.Append(g, raftpb.HardState{}, entries(last+1, 1, 9, "next"))
				mustSave(t, l, w, true)
				want = groupStateOf(t, g)
				mustClose(t, l)
				l, _ = mustOpen(t, o)
				defer mustClose(t, l)
				if got := groupStateOf(t, l.Group(1)); got != want {
					t.Errorf("reopened: %+v, want %+v", got, want)
				}
			})
		}
	}
}

func TestAppendBelowStart(t *testing.T) {
	l, _ := mustOpen(t, testOptions(vfs.NewMem()))
	defer mustClose(t, l)
	g, w := l.Group(1), l.NewWrite()
	w.SetStart(g, 5, 1, nil)
	mustSave(t, l, w, true)
	w.Append(g, raftpb.HardState{}, entries(2, 3, 1, "gone"))
	if !w.Empty() {
		t.Error("entries below the start were recorded")
	}
	w.Append(g, raftpb.HardState{}, entries(4, 4, 1, "partly"))
	mustSave(t, l, w, true)
	if s := groupStateOf(t, g); s.terms != "1 1 " || s.start.index != 5 {
		t.Errorf("got %+v", s)
	}
}

func TestAppendGapPanics(t *testing.T) {
	for name, es := range map[string][]raftpb.Entry{
		"gap before": entries(2, 1, 1, ""),
		"gap inside": {entry(1, 1, ""), entry(3, 1, "")},
	} {
		t.Run(name, func(t *testing.T) {
			l, _ := mustOpen(t, testOptions(vfs.NewMem()))
			defer mustClose(t, l)
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			l.NewWrite().Append(l.Group(1), raftpb.HardState{}, es)
		})
	}
}

// TestTruncateReclaims fills many segments, and finds that they go, that some
// come back to be used again, and that nothing of their past shows up.
func TestTruncateReclaims(t *testing.T) {
	fs := vfs.NewMem()
	o := testOptions(fs)
	o.SpareSegments = 2
	l, _ := mustOpen(t, o)
	g, idle, w := l.Group(1), l.Group(2), l.NewWrite()
	w.SetStart(idle, 1, 1, confState(4, 5))
	w.Append(idle, raftpb.HardState{Term: 7, Vote: 4, Commit: 1}, nil)
	mustSave(t, l, w, true)
	next, largest := uint64(1), int64(0)
	for range 20 {
		for range 30 {
			w.Append(g, raftpb.HardState{}, []raftpb.Entry{entry(next, 1, strings.Repeat("x", 500))})
			mustSave(t, l, w, true)
			next++
		}
		largest = max(largest, l.SizeBytes())
		l.Truncate(g, next-3)
		if first, _ := g.FirstIndex(); first != next-2 {
			t.Fatalf("first index is %d right after Truncate(%d)", first, next-3)
		}
		mustSave(t, l, w, true)
	}
	if largest > 12*o.SegmentBytes || l.SizeBytes() > 2*o.SegmentBytes {
		t.Errorf("log grew to %d bytes and has %d at the end", largest, l.SizeBytes())
	}
	awaitDead(l)
	names, err := fs.List(testDir)
	if err != nil || len(names) > 1+2+1+2 {
		t.Errorf("files left: %v, %v", names, err)
	}
	want := stateOf(t, l)
	mustClose(t, l)
	if err := Verify(testOptions(fs), func(string) {}); err != nil {
		t.Error(err)
	}
	spans, err := Spans(testOptions(fs))
	if want := map[uint64]Span{1: {First: next - 2, Last: next - 1}, 2: {First: 2, Last: 1}}; err != nil || !reflect.DeepEqual(spans, want) {
		t.Errorf("spans %v, %v", spans, err)
	}
	l, rec := mustOpen(t, o)
	defer mustClose(t, l)
	if got := stateOf(t, l); !got.equal(want) {
		t.Errorf("reopened: %v, want %v", got, want)
	}
	if rec.TornBytes != 0 {
		t.Errorf("recovery found a torn tail in what earlier lives left: %+v", rec)
	}
}

// awaitDead waits until what was retired has been recycled.
func awaitDead(l *Log) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.dead) > 0 || len(l.prepared) == 0 {
		l.changed.Wait()
	}
}

// TestLarge writes runs larger than a segment between small ones.
func TestLarge(t *testing.T) {
	o := testOptions(vfs.NewMem())
	o.CacheBytes = -1
	l, _ := mustOpen(t, o)
	g, w := l.Group(1), l.NewWrite()
	for i := uint64(1); i <= 12; i++ {
		size := 10
		if i%3 == 0 {
			size = int(o.SegmentBytes) * int(i) / 4
		}
		w.Append(g, raftpb.HardState{}, []raftpb.Entry{entry(i, 1, strings.Repeat(string(rune('a'+i)), size))})
		mustSave(t, l, w, true)
	}
	want := stateOf(t, l)
	mustClose(t, l)
	l, rec := mustOpen(t, o)
	defer mustClose(t, l)
	if got := stateOf(t, l); !got.equal(want) {
		t.Error("large entries differ after reopening")
	}
	if rec.Entries != 12 {
		t.Errorf("recovery %+v", rec)
	}
	g = l.Group(1)
	l.Truncate(g, 12)
	w = l.NewWrite()
	mustSave(t, l, w, true)
	awaitDead(l)
	if n := l.SizeBytes(); n > 12*o.SegmentBytes/4+2*o.SegmentBytes {
		t.Errorf("%d bytes live after truncation", n)
	}
}

func TestTooLarge(t *testing.T) {
	l, _ := mustOpen(t, testOptions(vfs.NewMem()))
	defer mustClose(t, l)
	w := l.NewWrite()
	w.buf = make([]byte, RunBytesMax+1) // never touched, so it costs no memory
	w.ops = append(w.ops, op{g: l.Group(1), kind: kindHardState})
	if err := l.Save(w, true); !errors.Is(err, ErrTooLarge) || l.Err() != nil {
		t.Errorf("Save: %v, Err: %v", err, l.Err())
	}
}

// TestConcurrentReads reads old and new entries while Saves, truncations and
// recycling go on. The race detector and the checksums are the judges.
func TestConcurrentReads(t *testing.T) {
	o := testOptions(vfs.NewMem())
	o.CacheBytes = 2000
	l, _ := mustOpen(t, o)
	defer mustClose(t, l)
	g, w := l.Group(1), l.NewWrite()
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				first, _ := g.FirstIndex()
				last, _ := g.LastIndex()
				es, err := g.Entries(first, last+1, 20_000)
				switch err {
				case nil, raft.ErrCompacted, raft.ErrUnavailable:
				default:
					t.Errorf("Entries(%d, %d): %v", first, last+1, err)
					return
				}
				for _, e := range es {
					if !strings.HasPrefix(string(e.Data), fmt.Sprintf("%d,", e.Index)) {
						t.Errorf("entry %d holds %.20q", e.Index, e.Data)
						return
					}
				}
				if _, _, err := g.InitialState(); err != nil {
					t.Error(err)
				}
				l.Groups()
			}
		})
	}
	for i := uint64(1); i <= 600; i++ {
		w.Append(g, raftpb.HardState{}, []raftpb.Entry{entry(i, 1, fmt.Sprintf("%d,%s", i, strings.Repeat("x", 300)))})
		mustSave(t, l, w, i%4 != 0)
		if i > 20 && i%7 == 0 {
			l.Truncate(g, i-20)
		}
	}
	close(stop)
	readers.Wait()
}

// TestSaveAllocations holds the steady state to no allocation at all.
func TestSaveAllocations(t *testing.T) {
	o := testOptions(vfs.NewMem())
	o.SegmentBytes = 8 << 20
	l, _ := mustOpen(t, o)
	defer mustClose(t, l)
	awaitDead(l)
	g, w := l.Group(1), l.NewWrite()
	hs := raftpb.HardState{Term: 1, Vote: 1, Commit: 0}
	es := entries(1, 4, 1, "0123456789")
	save := func() {
		w.Append(g, hs, es)
		if err := l.Save(w, true); err != nil {
			t.Fatal(err)
		}
	}
	save()
	if n := alloctest.Least(100, 0, save); n != 0 {
		t.Errorf("%v allocations per Save", n)
	}
}

func TestInUse(t *testing.T) {
	for name, fs := range map[string]vfs.FS{"memory": vfs.NewMem(), "disk": vfs.Default} {
		t.Run(name, func(t *testing.T) {
			o := testOptions(fs)
			o.Dir = t.TempDir() + "/raft"
			l, _ := mustOpen(t, o)
			if _, _, err := Open(o); err == nil || !strings.Contains(err.Error(), "in use") {
				t.Errorf("second Open: %v", err)
			}
			mustClose(t, l)
			l, _ = mustOpen(t, o)
			mustClose(t, l)
		})
	}
}

func TestOptions(t *testing.T) {
	for name, o := range map[string]Options{
		"no directory": {},
		"small":        {Dir: "d", SegmentBytes: BlockBytes},
		"odd":          {Dir: "d", SegmentBytes: SegmentBytesMin + 1},
		"huge":         {Dir: "d", SegmentBytes: SegmentBytesMax + BlockBytes},
	} {
		o.FS = vfs.NewMem()
		if _, _, err := Open(o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestSegmentSizeChange opens a log with another segment size: old segments
// are read, and not recycled as new ones.
func TestSegmentSizeChange(t *testing.T) {
	fs := vfs.NewMem()
	var want logState
	for i, size := range []int64{32 << 10, 64 << 10, 16 << 10} {
		o := testOptions(fs)
		o.SegmentBytes = size
		l, _ := mustOpen(t, o)
		if i > 0 {
			if got := stateOf(t, l); !got.equal(want) {
				t.Fatalf("size %d: %v, want %v", size, got, want)
			}
		}
		g, w := l.Group(1), l.NewWrite()
		for range 40 {
			last, _ := g.LastIndex()
			w.Append(g, raftpb.HardState{}, entries(last+1, 1, 1, "x"))
			mustSave(t, l, w, true)
			l.Truncate(g, last)
		}
		mustSave(t, l, w, true)
		want = stateOf(t, l)
		mustClose(t, l)
	}
}
