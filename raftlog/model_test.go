package raftlog

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/goleak"
)

const testDir = "/data/raft"

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func encoded(e raftpb.Entry) uint64 { return uint64(e.Size()) }

func entry(index, term uint64, data string) raftpb.Entry {
	e := raftpb.Entry{Index: index, Term: term, Type: raftpb.EntryNormal}
	if data != "" {
		e.Data = []byte(data)
	}
	return e
}

// entries makes n entries from first on.
func entries(first uint64, n int, term uint64, data string) []raftpb.Entry {
	var es []raftpb.Entry
	for i := range uint64(n) {
		es = append(es, entry(first+i, term, data))
	}
	return es
}

func confState(voters ...uint64) *raftpb.ConfState { return &raftpb.ConfState{Voters: voters} }

func testOptions(fs vfs.FS) Options {
	return Options{Dir: testDir, FS: fs, SegmentBytes: 32 << 10}
}

func mustOpen(t testing.TB, o Options) (*Log, Recovery) {
	t.Helper()
	l, rec, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	l.Prepare()
	return l, rec
}

func mustSave(t testing.TB, l *Log, w *Write, sync bool) {
	t.Helper()
	if err := l.Save(w, sync); err != nil {
		t.Fatal(err)
	}
}

func mustClose(t testing.TB, l *Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// groupState is what a group must answer, in comparable form.
type groupState struct {
	hs    hardState
	conf  string
	meta  string
	start mark
	terms string
	data  string // each entry's type, length and checksum
}

// logState maps group numbers to their state, groups without records left out.
type logState map[uint64]groupState

// stateOf reads everything back through the interface Raft uses.
func stateOf(t testing.TB, l *Log) logState {
	t.Helper()
	s := make(logState)
	for _, id := range l.Groups() {
		s[id] = groupStateOf(t, l.Group(id))
	}
	return s
}

func groupStateOf(t testing.TB, g *Group) groupState {
	t.Helper()
	first, _ := g.FirstIndex()
	last, _ := g.LastIndex()
	startTerm, err := g.Term(first - 1)
	if err != nil {
		t.Fatal(err)
	}
	_, conf, err := g.InitialState()
	if err != nil {
		t.Fatal(err)
	}
	s := groupState{hs: g.hs, conf: fmt.Sprint(g.conf == nil, conf.Voters), meta: string(g.Metadata()), start: mark{first - 1, startTerm}}
	if first > last {
		return s
	}
	es, err := g.Entries(first, last+1, math.MaxUint64)
	if err != nil {
		t.Fatal(err)
	}
	var terms, data strings.Builder
	for i, e := range es {
		if e.Index != first+uint64(i) {
			t.Fatalf("group %d: entry %d at index %d", g.id, e.Index, first+uint64(i))
		}
		if term, err := g.Term(e.Index); err != nil || term != e.Term {
			t.Fatalf("group %d: term of %d is %d, %v; the entry's is %d", g.id, e.Index, term, err, e.Term)
		}
		fmt.Fprintf(&terms, "%d ", e.Term)
		fmt.Fprintf(&data, "%d:%d:%08x ", e.Type, len(e.Data), checksum(e.Data))
	}
	s.terms, s.data = terms.String(), data.String()
	return s
}

// model is a Raft log as it is meant to be: without files, limits or caches.
type model map[uint64]*modelGroup

type modelGroup struct {
	hs      hardState
	conf    *raftpb.ConfState
	meta    string
	start   mark
	entries []raftpb.Entry // from start.index+1 on
	trunc   uint64         // truncation that no Save has recorded
	reset   bool           // the log begins anew in the Write under way
}

func (m model) group(id uint64) *modelGroup {
	if m[id] == nil {
		m[id] = &modelGroup{}
	}
	return m[id]
}

func (g *modelGroup) last() uint64 { return g.start.index + uint64(len(g.entries)) }

func (g *modelGroup) term(index uint64) (uint64, bool) {
	switch {
	case index == g.start.index:
		return g.start.term, true
	case index < g.start.index || index > g.last():
		return 0, false
	}
	return g.entries[index-g.start.index-1].Term, true
}

func (g *modelGroup) append(es []raftpb.Entry) {
	g.entries = append(slices.Clone(g.entries[:es[0].Index-g.start.index-1]), es...)
}

func (g *modelGroup) restart(index, term uint64) {
	g.entries, g.reset, g.start = nil, true, mark{index, term}
}

func (g *modelGroup) setStart(index, term uint64) {
	if at, ok := g.term(index); ok && at == term {
		g.entries = slices.Clone(g.entries[index-g.start.index:])
	} else {
		g.entries, g.reset = nil, true
	}
	g.start = mark{index, term}
}

// recordTruncations does what a Save does beside its own records. What was
// to be truncated of a log that begins anew is gone with it.
func (m model) recordTruncations() {
	for _, g := range m {
		if g.trunc > g.start.index && g.trunc <= g.last() && !g.reset {
			term, _ := g.term(g.trunc)
			g.setStart(g.trunc, term)
		}
		g.trunc, g.reset = 0, false
	}
}

func (m model) state() logState {
	s := make(logState)
	for id, g := range m {
		if g.hs == (hardState{}) && g.conf == nil && g.meta == "" && g.start == (mark{}) && g.last() == 0 {
			continue
		}
		gs := groupState{hs: g.hs, conf: fmt.Sprint(g.conf == nil, votersOf(g.conf)), meta: g.meta, start: g.start}
		for _, e := range g.entries {
			gs.terms += fmt.Sprintf("%d ", e.Term)
			gs.data += fmt.Sprintf("%d:%d:%08x ", e.Type, len(e.Data), checksum(e.Data))
		}
		s[id] = gs
	}
	return s
}

func (s logState) equal(o logState) bool { return maps.Equal(s, o) }

func votersOf(cs *raftpb.ConfState) []uint64 {
	if cs == nil {
		return nil
	}
	return cs.Voters
}
