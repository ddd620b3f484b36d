package raftlog

import (
	"errors"
	"io"
	"log"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// reopen closes l and opens the log again, and makes sure that it is the same
// and that Verify and Spans agree.
func reopen(t *testing.T, l *Log, o Options) *Log {
	t.Helper()
	want := stateOf(t, l)
	ids := l.Groups()
	mustClose(t, l)
	if err := Verify(o, func(string) {}); err != nil {
		t.Error(err)
	}
	spans, err := Spans(o)
	if err != nil || len(spans) != len(ids) {
		t.Errorf("spans %v, %v; the log had groups %v", spans, err, ids)
	}
	l, rec := mustOpen(t, o)
	if got := stateOf(t, l); !got.equal(want) || rec.Groups != len(ids) {
		t.Errorf("reopened: %v, want %v; recovery %+v", got, want, rec)
	}
	return l
}

// grow saves n runs of one entry each to g, with a configuration and a vote.
func grow(t *testing.T, l *Log, g *Group, n int) {
	t.Helper()
	w := l.NewWrite()
	for range n {
		last, _ := g.LastIndex()
		w.SetConfState(g, confState(1, 2, 3))
		w.Append(g, raftpb.HardState{Term: 5, Vote: 2, Commit: last}, entries(last+1, 1, 5, "of the group"))
		mustSave(t, l, w, true)
	}
}

// TestRemove removes a group whose records are all over segments that stay
// because of another group, and begins it anew. It never comes back.
func TestRemove(t *testing.T) {
	o := testOptions(vfs.NewMem())
	o.SegmentBytes = SegmentBytesMin
	l, _ := mustOpen(t, o)
	grow(t, l, l.Group(1), 1)
	grow(t, l, l.Group(2), 1)
	grow(t, l, l.Group(1), 8)
	w := l.NewWrite()
	g := l.Group(1)
	w.Remove(g)
	mustSave(t, l, w, true)
	empty := func(l *Log) {
		t.Helper()
		g := l.Group(1)
		hs, cs, err := g.InitialState()
		if !raft.IsEmptyHardState(hs) || len(cs.Voters) != 0 || err != nil {
			t.Errorf("initial state %v, %v, %v", hs, cs, err)
		}
		first, _ := g.FirstIndex()
		last, _ := g.LastIndex()
		term, err := g.Term(0)
		if first != 1 || last != 0 || term != 0 || err != nil {
			t.Errorf("from %d to %d, term at the start %d, %v", first, last, term, err)
		}
		if _, err := g.Snapshot(); err != raft.ErrSnapshotTemporarilyUnavailable {
			t.Errorf("snapshot: %v", err)
		}
		if _, err := g.Entries(1, 2, math.MaxUint64); err != raft.ErrUnavailable {
			t.Errorf("entries: %v", err)
		}
		if ids := l.Groups(); slices.Contains(ids, 1) {
			t.Errorf("groups %v", ids)
		}
	}
	empty(l)
	if g.bytes != 0 || l.cached.Load() != l.Group(2).bytes || cap(g.cached.items) != 0 || cap(g.refs.items) != 0 {
		t.Errorf("the removed group takes memory: %d bytes cached, room for %d entries", g.bytes, cap(g.refs.items))
	}
	l = reopen(t, l, o)
	empty(l)
	// Over more checkpoints, which do not know the group, while the segments
	// that do are still there.
	grow(t, l, l.Group(2), 10)
	l = reopen(t, l, o)
	empty(l)
	if l.live[0].seq > 1 {
		t.Fatalf("the oldest segment is %d; the test wants one with records of the removed group", l.live[0].seq)
	}
	grow(t, l, l.Group(1), 2)
	l = reopen(t, l, o)
	if s := groupStateOf(t, l.Group(1)); s.terms != "5 5 " || s.start != (mark{}) {
		t.Errorf("begun anew: %+v", s)
	}
	w = l.NewWrite()
	w.Remove(l.Group(1))
	w.SetStart(l.Group(1), 70, 6, confState(9))
	mustSave(t, l, w, true)
	l = reopen(t, l, o)
	s := groupStateOf(t, l.Group(1))
	if s.start != (mark{70, 6}) || s.terms != "" || s.hs != (hardState{}) || s.conf != "false [9]" {
		t.Errorf("begun anew with a snapshot: %+v", s)
	}
	// And when those segments go.
	w = l.NewWrite()
	w.Remove(l.Group(1))
	mustSave(t, l, w, true)
	last, _ := l.Group(2).LastIndex()
	l.Truncate(l.Group(2), last)
	mustSave(t, l, w, true)
	awaitDead(l)
	l = reopen(t, l, o)
	defer mustClose(t, l)
	empty(l)
}

// TestRemoveReclaims removes the only group that needs old segments: they go
// with the first synced Save, and not before.
func TestRemoveReclaims(t *testing.T) {
	fs := vfs.NewCrashableMem()
	o := testOptions(fs)
	o.SegmentBytes = SegmentBytesMin
	l, _ := mustOpen(t, o)
	grow(t, l, l.Group(1), 11) // so that the removal need not turn
	awaitDead(l)
	before, segments := stateOf(t, l), len(l.live)
	if segments < 5 {
		t.Fatalf("%d segments", segments)
	}
	w := l.NewWrite()
	w.Remove(l.Group(1))
	mustSave(t, l, w, false)
	if len(l.live) < segments {
		t.Errorf("%d segments of %d left by a removal that was not synced", len(l.live), segments)
	}
	lost := o
	lost.FS = fs.CrashClone(vfs.CrashCloneCfg{})
	back, _ := mustOpen(t, lost)
	if got := stateOf(t, back); !got.equal(before) {
		t.Errorf("after a crash before the sync: %v, want %v", got, before)
	}
	mustClose(t, back)
	mustSave(t, l, w, true)
	if len(l.live) > 1 || l.SizeBytes() > o.SegmentBytes {
		t.Errorf("%d segments of %d bytes left", len(l.live), l.SizeBytes())
	}
	l = reopen(t, l, o)
	defer mustClose(t, l)
	if ids := l.Groups(); len(ids) != 0 {
		t.Errorf("groups %v", ids)
	}
}

// TestSnapshotReclaims does the same with a snapshot.
func TestSnapshotReclaims(t *testing.T) {
	o := testOptions(vfs.NewMem())
	o.SegmentBytes = SegmentBytesMin
	l, _ := mustOpen(t, o)
	defer mustClose(t, l)
	grow(t, l, l.Group(1), 11)
	w := l.NewWrite()
	w.SetStart(l.Group(1), 1000, 6, nil)
	mustSave(t, l, w, true)
	if len(l.live) > 1 {
		t.Errorf("%d segments left", len(l.live))
	}
}

func TestRemoveNothing(t *testing.T) {
	o := testOptions(vfs.NewMem())
	l, _ := mustOpen(t, o)
	w := l.NewWrite()
	w.Remove(l.Group(1))
	w.Remove(l.Group(1))
	mustSave(t, l, w, true)
	l = reopen(t, l, o)
	mustClose(t, l)
}

// TestCheckpointLeavesOut forges a checkpoint that says nothing of a group that
// the segment before tells of.
func TestCheckpointLeavesOut(t *testing.T) {
	fs := vfs.NewMem()
	o := testOptions(fs)
	o.SegmentBytes = SegmentBytesMin
	l, _ := mustOpen(t, o)
	grow(t, l, l.Group(1), 2)
	grow(t, l, l.Group(2), 1)
	mustClose(t, l)
	p := segmentFile(t, fs, 2)
	s, err := decodeSegmentHeader(p)
	if err != nil {
		t.Fatal(err)
	}
	run := p[BlockBytes:]
	h, _ := decodeRunHeader(run, s)
	rs, err := decodeAll(run[runHeaderBytes : runHeaderBytes+h.payload])
	if err != nil || len(rs) != 1 || rs[0].kind != kindCheckpoint {
		t.Fatalf("the second segment begins with %+v, %v", rs, err)
	}
	h.sealRun(run[:runHeaderBytes])
	_, _, err = Open(testOptions(withSegment(t, fs, 2, p)))
	if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "has 0 groups") {
		t.Errorf("Open: %v", err)
	}
}

// TestConfStateAlone writes nothing but a configuration, to a group with and
// without anything else.
func TestConfStateAlone(t *testing.T) {
	o := testOptions(vfs.NewMem())
	l, _ := mustOpen(t, o)
	grow(t, l, l.Group(1), 3)
	before := groupStateOf(t, l.Group(1))
	w := l.NewWrite()
	w.SetConfState(l.Group(1), confState(7))
	w.SetConfState(l.Group(2), confState(8))
	mustSave(t, l, w, true)
	l = reopen(t, l, o)
	defer mustClose(t, l)
	before.conf = "false [7]"
	if got := groupStateOf(t, l.Group(1)); got != before {
		t.Errorf("%+v, want %+v", got, before)
	}
	if got := groupStateOf(t, l.Group(2)); got != (groupState{conf: "false [8]"}) {
		t.Errorf("%+v", got)
	}
}

// TestStartWithAnotherConfiguration rewrites the configuration at the start of
// a log that is open for nobody else, and drops nothing by it.
func TestStartWithAnotherConfiguration(t *testing.T) {
	for name, prepare := range map[string]func(l *Log, w *Write, g *Group){
		"at the beginning":   func(l *Log, w *Write, g *Group) {},
		"after a snapshot":   func(l *Log, w *Write, g *Group) { w.SetStart(g, 40, 5, confState(1)) },
		"after a truncation": func(l *Log, w *Write, g *Group) { l.Truncate(g, 3) },
	} {
		for _, recorded := range []bool{true, false} {
			o := testOptions(vfs.NewMem())
			l, _ := mustOpen(t, o)
			g := l.Group(1)
			grow(t, l, g, 4)
			w := l.NewWrite()
			prepare(l, w, g)
			if recorded {
				mustSave(t, l, w, true)
				grow(t, l, g, 4)
				l = reopen(t, l, o)
				g, w = l.Group(1), l.NewWrite()
			}
			p := w.view(g)
			last, start := p.last, p.start
			w.SetStart(g, start.index, start.term, confState(9))
			mustSave(t, l, w, true)
			l = reopen(t, l, o)
			s := groupStateOf(t, l.Group(1))
			if s.conf != "false [9]" || s.start != start || uint64(strings.Count(s.terms, " ")) != last-start.index {
				t.Errorf("%s: %+v, want start %v and last index %d", name, s, start, last)
			}
			mustClose(t, l)
		}
	}
}

// TestSnapshotFarAbove installs a snapshot far above the log, and asks what
// Raft asks then, before anything is appended and after a checkpoint too.
func TestSnapshotFarAbove(t *testing.T) {
	const at, term = uint64(1) << 40, 77
	o := testOptions(vfs.NewMem())
	o.SegmentBytes = SegmentBytesMin
	l, _ := mustOpen(t, o)
	g := l.Group(1)
	grow(t, l, g, 3)
	w := l.NewWrite()
	w.SetStart(g, at, term, confState(4, 5))
	mustSave(t, l, w, true)
	check := func(last uint64) {
		t.Helper()
		g := l.Group(1)
		first, _ := g.FirstIndex()
		got, _ := g.LastIndex()
		if first != at+1 || got != last {
			t.Errorf("from %d to %d, want %d to %d", first, got, at+1, last)
		}
		for _, c := range []struct {
			index, term uint64
			err         error
		}{{3, 0, raft.ErrCompacted}, {at - 1, 0, raft.ErrCompacted}, {at, term, nil}, {last + 1, 0, raft.ErrUnavailable}} {
			if term, err := g.Term(c.index); term != c.term || err != c.err {
				t.Errorf("Term(%d) = %d, %v", c.index, term, err)
			}
		}
		snap, err := g.Snapshot()
		if m := snap.Metadata; err != nil || m.Index != at || m.Term != term || !slices.Equal(m.ConfState.Voters, []uint64{4, 5}) {
			t.Errorf("snapshot %v, %v", snap, err)
		}
		// The commit index of the hard state was written before.
		hs, cs, err := g.InitialState()
		if hs.Commit < at || len(cs.Voters) != 2 || err != nil {
			t.Errorf("initial state %v, %v, %v", hs, cs, err)
		}
		if _, err := g.Entries(at, at+1, math.MaxUint64); err != raft.ErrCompacted {
			t.Errorf("entries from the start: %v", err)
		}
		if _, err := raft.NewRawNode(&raft.Config{
			ID: 4, ElectionTick: 10, HeartbeatTick: 1, Storage: g, Applied: at,
			MaxInflightMsgs: 1, Logger: &raft.DefaultLogger{Logger: log.New(io.Discard, "", 0)},
		}); err != nil {
			t.Errorf("raft: %v", err)
		}
	}
	check(at)
	l = reopen(t, l, o)
	check(at)
	grow(t, l, l.Group(2), 8) // turns
	l = reopen(t, l, o)
	check(at)
	w = l.NewWrite()
	w.Append(l.Group(1), raftpb.HardState{}, entries(at+1, 2, term, "x"))
	mustSave(t, l, w, true)
	check(at + 2)
	l = reopen(t, l, o)
	check(at + 2)
	mustClose(t, l)
}
