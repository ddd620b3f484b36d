package raftlog

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"pgregory.net/rapid"
)

// step is what one record will do to a group of the model.
type step struct {
	id    uint64
	apply func(*modelGroup)
	// behind is the lowest index the step replaces, or makes the log begin
	// after: what is to be truncated must be below it.
	behind uint64
	reset  bool // the log begins anew
}

// filled is a Write and what it holds.
type filled struct {
	w     *Write
	steps []step
}

// overlap fills one Write while another waits to be saved, as if its disk
// took its time.
type overlap struct {
	l         *Log
	m         model // what is published
	filling   *filled
	handed    *filled // to be saved; nil where there is none
	spare     *filled
	truncated bool // readers see a truncation that m does not yet
}

func newOverlap(l *Log, m model) *overlap {
	return &overlap{l: l, m: m, filling: &filled{w: l.NewWrite()}, spare: &filled{w: l.NewWrite()}}
}

// hand makes the Write being filled the one to be saved. False means that
// there is nothing to hand on, or still one to be saved.
func (o *overlap) hand() bool {
	if o.handed != nil || o.filling.w.Empty() {
		return false
	}
	o.handed, o.filling, o.spare = o.filling, o.spare, nil
	return true
}

// publish does to the model what the Save of the handed Write does, and
// returns the Write.
func (o *overlap) publish() *Write {
	for _, s := range o.handed.steps {
		s.apply(o.m.group(s.id))
	}
	o.m.recordTruncations()
	o.truncated = false
	o.spare, o.handed = o.handed, nil
	o.spare.steps = o.spare.steps[:0]
	return o.spare.w
}

// pending calls f with every step that is not published.
func (o *overlap) pending(f func(step)) {
	if o.handed != nil {
		for _, s := range o.handed.steps {
			f(s)
		}
	}
	for _, s := range o.filling.steps {
		f(s)
	}
}

// ahead returns the group as it will be when all is published.
func (o *overlap) ahead(id uint64) *modelGroup {
	g := *o.m.group(id)
	o.pending(func(s step) {
		if s.id == id {
			s.apply(&g)
		}
	})
	return &g
}

// record adds a random record for a random group, or truncates it.
func (o *overlap) record(r *rand.Rand) {
	id := uint64(1 + r.IntN(3))
	if r.IntN(10) == 0 {
		o.truncate(r, o.l.Group(id))
		return
	}
	o.fill(r, id)
}

func (o *overlap) fill(r *rand.Rand, id uint64) {
	g, ag := o.l.Group(id), o.ahead(id)
	w := o.filling.w
	s := step{id: id, behind: math.MaxUint64}
	switch n := r.IntN(21); {
	case n == 20:
		index, term := ag.start.index+uint64(r.IntN(12)), uint64(1+r.IntN(5))
		s.reset = true
		s.apply = func(g *modelGroup) { g.restart(index, term) }
		w.Restart(g, index, term)
	case n > 17:
		meta := fmt.Sprint("metadata ", r.IntN(100))
		s.apply = func(g *modelGroup) { g.meta = meta }
		w.SetMetadata(g, []byte(meta))
	case n < 12:
		// What is truncated, or will be, is not to be replaced.
		first, lowest := ag.last()+1, max(ag.start.index, ag.trunc)
		if back := uint64(r.IntN(5)); r.IntN(3) == 0 && first > lowest+back+1 {
			first -= back
		}
		data := strings.Repeat(string(rune('a'+r.IntN(26))), []int{0, 3, 200, 3000, 9000}[r.IntN(5)])
		es := entries(first, 1+r.IntN(3), uint64(1+r.IntN(5)), data)
		hs := hardState{uint64(1 + r.IntN(5)), uint64(r.IntN(3)), first}
		s.behind = first
		s.apply = func(g *modelGroup) { g.append(es); g.hs = hs }
		w.Append(g, raftpb.HardState{Term: hs.term, Vote: hs.vote, Commit: hs.commit}, es)
	case n < 15:
		index, term := ag.start.index+uint64(r.IntN(12)), uint64(1+r.IntN(5))
		if index < ag.trunc {
			return
		}
		at, ok := ag.term(index)
		if ok && r.IntN(2) == 0 {
			term = at
		}
		conf := confState(index)
		s.behind, s.reset = index, !ok || at != term
		s.apply = func(g *modelGroup) { g.setStart(index, term); g.conf = conf }
		w.SetStart(g, index, term, conf)
	case n < 17:
		s.reset = true
		s.apply = func(g *modelGroup) { *g = modelGroup{reset: true} }
		w.Remove(g)
	default:
		conf := confState(uint64(r.IntN(9)), 1)
		s.apply = func(g *modelGroup) { g.conf = conf }
		w.SetConfState(g, conf)
	}
	o.filling.steps = append(o.filling.steps, s)
}

// truncate truncates g's published log at random, up to what no Write replaces.
func (o *overlap) truncate(r *rand.Rand, g *Group) {
	mg := o.m.group(g.id)
	index, anew := mg.start.index+uint64(r.IntN(8)), false
	o.pending(func(s step) {
		if s.id != g.id || anew {
			return
		}
		if anew = s.reset; !anew && s.behind <= index {
			index = max(s.behind, 1) - 1
		}
	})
	index = min(index, mg.last())
	o.l.Truncate(g, index)
	if index > max(mg.trunc, mg.start.index) {
		mg.trunc, o.truncated = index, true
	}
}

// check compares what readers and what the next record will see with the model.
func (o *overlap) check(t testing.TB) {
	t.Helper()
	if got := stateOf(t, o.l); !o.truncated && !got.equal(o.m.state()) {
		t.Fatalf("published is %v,\nwant %v", got, o.m.state())
	}
	cached := int64(0)
	for id := range uint64(4) {
		cached += o.l.Group(id).bytes
	}
	if got := o.l.cached.Load(); got != cached {
		t.Fatalf("%d bytes are said to be cached, the groups have %d", got, cached)
	}
	for id := range uint64(4) {
		g, ag := o.l.Group(id), o.ahead(id)
		p := o.filling.w.view(g)
		if p.last != ag.last() {
			t.Fatalf("group %d is taken to end at %d, want %d", id, p.last, ag.last())
		}
		for i := max(ag.start.index, ag.trunc) + 1; i <= ag.last()+1; i++ {
			got, gotOK := p.term(i, g)
			if want, wantOK := ag.term(i); got != want || gotOK != wantOK {
				t.Fatalf("group %d: term of %d is taken to be %d, %v, want %d, %v", id, i, got, gotOK, want, wantOK)
			}
		}
	}
}

// TestOverlapModel fills and saves at random, with random crashes and
// reopens, against the model.
func TestOverlapModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.Uint64().Draw(t, "seed")
		r, loss := rand.New(rand.NewPCG(seed, 1)), rand.New(rand.NewPCG(seed, 2))
		fs := vfs.NewCrashableMem()
		h := history{states: []logState{{}}}
		for range rapid.IntRange(1, 4).Draw(t, "crashes") {
			opt := testOptions(fs)
			opt.SegmentBytes = 4 * BlockBytes << r.IntN(2)
			opt.CacheBytes = int64(r.IntN(3)) * 4000
			l, _, err := Open(opt)
			if err != nil {
				t.Fatalf("Open: %v", err)
			}
			l.Prepare()
			got := stateOf(failer{t: t}, l)
			if h.find(got) < 0 {
				t.Fatalf("recovered %v,\nallowed are %v", got, h.states[h.synced:])
			}
			h = history{states: []logState{got}}
			o := newOverlap(l, rebuild(t, l))
			for range 20 + r.IntN(100) {
				switch r.IntN(5) {
				case 0:
					o.hand()
				case 1:
					if o.handed != nil {
						o.save(t, r.IntN(3) > 0, &h)
					}
				default:
					o.record(r)
				}
				o.check(failer{t: t})
			}
			crashed := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: []int{0, 30, 70, 100}[r.IntN(4)], RNG: loss})
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			if fs = crashed; r.IntN(3) == 0 {
				spans(t, fs, h)
			}
		}
	})
}

func (o *overlap) save(t *rapid.T, sync bool, h *history) {
	w := o.publish()
	if err := o.l.Save(w, sync); err != nil {
		t.Fatal(err)
	}
	h.states = append(h.states, o.m.state())
	if sync {
		h.synced = len(h.states) - 1
	}
}

// spans makes sure that Verify and Spans see what Open will.
func spans(t *rapid.T, fs vfs.FS, h history) {
	if err := Verify(testOptions(fs), func(string) {}); err != nil {
		t.Fatal(err)
	}
	got, err := Spans(testOptions(fs))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range h.states[h.synced:] {
		same := len(got) == len(s)
		for id, g := range s {
			x := got[id]
			same = same && x.First == g.start.index+1 && x.Last == g.start.index+uint64(strings.Count(g.terms, " ")) && string(x.Metadata) == g.meta
		}
		if same {
			return
		}
	}
	t.Fatalf("spans %v,\nallowed are those of %v", got, h.states[h.synced:])
}

// TestOverlapCrashEverywhere crashes before each operation while one Write is
// filled and another saved, with groups that are removed and begin anew.
func TestOverlapCrashEverywhere(t *testing.T) {
	r, m := rand.New(rand.NewPCG(5, 6)), make(model)
	crashEverywhere(t, m, func(l *Log, save func(w *Write, sync bool)) {
		o := newOverlap(l, m)
		for i := range 30 {
			for o.record(r); !o.hand(); o.record(r) {
			}
			for range r.IntN(4) {
				o.record(r)
			}
			o.check(t)
			save(o.publish(), i%3 != 0)
			o.check(t)
		}
	})
}

// slowDisk holds back every sync of data while it is armed.
type slowDisk struct {
	mu      sync.Mutex
	release chan struct{} // nil while not armed
	entered chan struct{}
}

func (d *slowDisk) String() string { return "slow disk" }

func (d *slowDisk) MaybeError(op errorfs.Op) error {
	if op.Kind != errorfs.OpFileSyncData {
		return nil
	}
	d.mu.Lock()
	release, entered := d.release, d.entered
	d.entered = nil
	d.mu.Unlock()
	if release == nil {
		return nil
	}
	if entered != nil {
		close(entered)
	}
	<-release
	return nil
}

// arm makes the next sync hang. It returns what is closed when it does, and
// what lets it go.
func (d *slowDisk) arm() (entered <-chan struct{}, release func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	e, r := make(chan struct{}), make(chan struct{})
	d.entered, d.release = e, r
	return e, func() {
		d.mu.Lock()
		d.release = nil
		d.mu.Unlock()
		close(r)
	}
}

// hanging opens a log, fills it with base, and hangs in the Save of what
// first says. done waits for it when the disk has been let go.
func hanging(t *testing.T, base, first func(l *Log, w *Write)) (l *Log, w *Write, done func()) {
	t.Helper()
	var disk slowDisk
	o := testOptions(errorfs.Wrap(vfs.NewMem(), &disk))
	l, _ = mustOpen(t, o)
	t.Cleanup(func() {
		want := stateOf(t, l)
		mustClose(t, l)
		l, _ := mustOpen(t, o)
		defer mustClose(t, l)
		if got := stateOf(t, l); !got.equal(want) {
			t.Errorf("reopened: %v, want %v", got, want)
		}
	})
	awaitDead(l)
	a := l.NewWrite()
	base(l, a)
	mustSave(t, l, a, true)
	entered, release := disk.arm()
	first(l, a)
	saved := make(chan error)
	go func() { saved <- l.Save(a, true) }()
	<-entered
	return l, l.NewWrite(), func() {
		t.Helper()
		release()
		if err := <-saved; err != nil {
			t.Fatal(err)
		}
	}
}

// TestOverlap fills a Write while the disk hangs with another one, publishes
// both, and looks at each state. All of it happens to group 1.
func TestOverlap(t *testing.T) {
	type record func(l *Log, g *Group, w *Write)
	app := func(first uint64, n int, term uint64) record {
		return func(_ *Log, g *Group, w *Write) {
			w.Append(g, raftpb.HardState{Term: term, Commit: 1}, entries(first, n, term, fmt.Sprint("of term ", term)))
		}
	}
	start := func(index, term uint64) record {
		return func(_ *Log, g *Group, w *Write) { w.SetStart(g, index, term, confState(index)) }
	}
	trunc := func(index uint64) record {
		return func(l *Log, g *Group, w *Write) { l.Truncate(g, index) }
	}
	remove := func(_ *Log, g *Group, w *Write) { w.Remove(g) }
	type shown struct {
		start mark
		terms string
	}
	// The log is 1..4 of term 1 before.
	before := shown{mark{}, "1 1 1 1 "}
	for name, c := range map[string]struct {
		first, second []record
		mid, end      shown
		during        shown // zero: as before
	}{
		"goes on": {
			first: []record{app(5, 2, 1)}, second: []record{app(7, 1, 2)},
			mid: shown{mark{}, "1 1 1 1 1 1 "}, end: shown{mark{}, "1 1 1 1 1 1 2 "},
		},
		"conflict in the first": {
			first: []record{app(5, 4, 1)}, second: []record{app(6, 2, 2)},
			mid: shown{mark{}, "1 1 1 1 1 1 1 1 "}, end: shown{mark{}, "1 1 1 1 1 2 2 "},
		},
		"conflict below the first": {
			first: []record{app(5, 4, 1)}, second: []record{app(3, 1, 2)},
			mid: shown{mark{}, "1 1 1 1 1 1 1 1 "}, end: shown{mark{}, "1 1 2 "},
		},
		"conflict with a conflict": {
			first: []record{app(3, 4, 2)}, second: []record{app(5, 1, 3)},
			mid: shown{mark{}, "1 1 2 2 2 2 "}, end: shown{mark{}, "1 1 2 2 3 "},
		},
		"snapshot beyond the first": {
			first: []record{app(5, 4, 1)}, second: []record{start(1000, 3), app(1001, 2, 3)},
			mid: shown{mark{}, "1 1 1 1 1 1 1 1 "}, end: shown{mark{1000, 3}, "3 3 "},
		},
		"snapshot at the end of the first": {
			first: []record{app(5, 4, 2)}, second: []record{start(8, 2), app(9, 1, 2)},
			mid: shown{mark{}, "1 1 1 1 2 2 2 2 "}, end: shown{mark{8, 2}, "2 "},
		},
		"start within the first": {
			first: []record{app(5, 4, 2)}, second: []record{start(6, 2)},
			mid: shown{mark{}, "1 1 1 1 2 2 2 2 "}, end: shown{mark{6, 2}, "2 2 "},
		},
		"start within the first, of another term": {
			first: []record{app(5, 4, 2)}, second: []record{start(6, 3)},
			mid: shown{mark{}, "1 1 1 1 2 2 2 2 "}, end: shown{mark{6, 3}, ""},
		},
		"start in what the first replaced": {
			first: []record{app(2, 1, 2)}, second: []record{start(3, 1)},
			mid: shown{mark{}, "1 2 "}, end: shown{mark{3, 1}, ""},
		},
		"start below what the first replaced": {
			first: []record{app(3, 1, 2)}, second: []record{start(2, 1)},
			mid: shown{mark{}, "1 1 2 "}, end: shown{mark{2, 1}, "2 "},
		},
		"entries after a snapshot": {
			first: []record{start(100, 2)}, second: []record{app(99, 4, 2)},
			mid: shown{mark{100, 2}, ""}, end: shown{mark{100, 2}, "2 2 "},
		},
		"snapshot after a snapshot": {
			first: []record{start(100, 2), app(101, 3, 2)}, second: []record{start(102, 2)},
			mid: shown{mark{100, 2}, "2 2 2 "}, end: shown{mark{102, 2}, "2 "},
		},
		"removed": {
			first: []record{app(5, 4, 1)}, second: []record{remove},
			mid: shown{mark{}, "1 1 1 1 1 1 1 1 "}, end: shown{},
		},
		"removed and begun anew": {
			first: []record{app(5, 4, 1)}, second: []record{remove, app(1, 2, 9)},
			mid: shown{mark{}, "1 1 1 1 1 1 1 1 "}, end: shown{mark{}, "9 9 "},
		},
		"begun anew after removal": {
			first: []record{remove}, second: []record{start(3, 1), app(4, 1, 4)},
			mid: shown{}, end: shown{mark{3, 1}, "4 "},
		},
		"removed twice": {
			first: []record{remove, app(1, 3, 2)}, second: []record{remove, app(1, 1, 3)},
			mid: shown{mark{}, "2 2 2 "}, end: shown{mark{}, "3 "},
		},
		"truncated meanwhile": {
			first: []record{app(5, 2, 1)}, second: []record{trunc(5), app(7, 1, 1)},
			during: shown{mark{4, 1}, ""},
			mid:    shown{mark{4, 1}, "1 1 "}, end: shown{mark{4, 1}, "1 1 1 "},
		},
		"truncated, then a snapshot": {
			first: []record{app(5, 2, 1)}, second: []record{trunc(3), start(50, 2)},
			during: shown{mark{3, 1}, "1 "},
			mid:    shown{mark{3, 1}, "1 1 1 "}, end: shown{mark{50, 2}, ""},
		},
		"truncated while removed": {
			first: []record{remove, app(1, 5, 7)}, second: []record{trunc(3), app(6, 1, 7)},
			during: shown{mark{3, 1}, "1 "},
			mid:    shown{mark{}, "7 7 7 7 7 "}, end: shown{mark{}, "7 7 7 7 7 7 "},
		},
		"truncated while a snapshot goes in": {
			first: []record{start(50, 2)}, second: []record{trunc(3), app(51, 1, 7)},
			during: shown{mark{3, 1}, "1 "},
			mid:    shown{mark{50, 2}, ""}, end: shown{mark{50, 2}, "7 "},
		},
		// What follows is against what Truncate asks for.
		"truncated what the first replaces": {
			first: []record{app(2, 3, 2)}, second: []record{trunc(3), app(5, 1, 2)},
			during: shown{mark{3, 1}, "1 "},
			mid:    shown{mark{3, 2}, "2 "}, end: shown{mark{3, 2}, "2 2 "},
		},
		"truncated what the first drops": {
			first: []record{app(2, 1, 2)}, second: []record{trunc(3), app(3, 1, 2)},
			during: shown{mark{3, 1}, "1 "},
			mid:    shown{mark{}, "1 2 "}, end: shown{mark{}, "1 2 2 "},
		},
		"truncated what the second replaces": {
			first: []record{app(5, 2, 1)}, second: []record{app(2, 4, 2), trunc(3)},
			during: shown{mark{3, 1}, "1 "},
			mid:    shown{mark{3, 1}, "1 1 1 "}, end: shown{mark{3, 2}, "2 2 "},
		},
	} {
		t.Run(name, func(t *testing.T) {
			l, w, done := hanging(t,
				func(l *Log, w *Write) { app(1, 4, 1)(l, l.Group(1), w) },
				func(l *Log, w *Write) {
					for _, r := range c.first {
						r(l, l.Group(1), w)
					}
				})
			g := l.Group(1)
			check := func(when string, want shown) {
				t.Helper()
				if s := groupStateOf(t, g); s.start != want.start || s.terms != want.terms {
					t.Errorf("%s: the log starts after %v with terms %s, want %v", when, s.start, s.terms, want)
				}
			}
			check("hanging", before)
			for _, r := range c.second {
				r(l, g, w)
			}
			if c.during == (shown{}) {
				c.during = before
			}
			check("filled", c.during)
			done()
			check("first published", c.mid)
			mustSave(t, l, w, true)
			check("second published", c.end)
		})
	}
}

// TestFillingNeverWaits does everything a pass does while the disk hangs.
func TestFillingNeverWaits(t *testing.T) {
	l, w, done := hanging(t,
		func(l *Log, w *Write) { w.Append(l.Group(1), raftpb.HardState{Term: 1}, entries(1, 3, 1, "x")) },
		func(l *Log, w *Write) { w.Append(l.Group(1), raftpb.HardState{}, entries(4, 3, 1, "x")) })
	if d := l.Stalled(); d <= 0 {
		t.Errorf("stalled for %v", d)
	}
	g := l.Group(1)
	for began := l.Stalled(); l.Stalled() == began; {
		// It grows.
	}
	if es, err := g.Entries(1, 4, math.MaxUint64); err != nil || len(es) != 3 {
		t.Errorf("%v, %v", es, err)
	}
	if _, err := g.Entries(1, 5, math.MaxUint64); err != raft.ErrUnavailable {
		t.Errorf("an entry that is not written yet: %v", err)
	}
	l.Truncate(g, 2)
	w.Append(g, raftpb.HardState{Term: 2, Vote: 3}, entries(7, 1, 2, "y"))
	w.SetStart(l.Group(2), 10, 2, confState(1, 2))
	w.Remove(l.Group(3))
	w.SetConfState(g, confState(3))
	if ids := l.Groups(); !slices.Equal(ids, []uint64{1}) || l.Err() != nil || l.SizeBytes() == 0 {
		t.Errorf("groups %v, failure %v, %d bytes", ids, l.Err(), l.SizeBytes())
	}
	done()
	mustSave(t, l, w, true)
	if d := l.Stalled(); d != 0 {
		t.Errorf("stalled for %v with nothing to do", d)
	}
	if s := groupStateOf(t, g); s.start != (mark{2, 1}) || s.terms != "1 1 1 1 2 " || s.hs != (hardState{2, 3, 0}) {
		t.Errorf("got %+v", s)
	}
}

func TestOverlapMisuse(t *testing.T) {
	app := func(l *Log, w *Write, first uint64) {
		w.Append(l.Group(1), raftpb.HardState{}, entries(first, 1, 1, "x"))
	}
	for name, c := range map[string]struct {
		says string
		f    func(l *Log, a, b *Write)
	}{
		"gap after the first": {"ends at 1, cannot append at 3", func(l *Log, a, b *Write) {
			app(l, a, 1)
			app(l, b, 3)
		}},
		"gap after removal": {"ends at 0, cannot append at 2", func(l *Log, a, b *Write) {
			app(l, a, 1)
			b.Remove(l.Group(1))
			app(l, b, 2)
		}},
		"wrong order": {"before one that was filled earlier", func(l *Log, a, b *Write) {
			app(l, a, 1)
			app(l, b, 2)
			_ = l.Save(b, true)
		}},
		"back to the first": {"though a later one has been begun", func(l *Log, a, b *Write) {
			app(l, a, 1)
			app(l, b, 2)
			app(l, a, 3)
		}},
		"third": {"a third Write", func(l *Log, a, b *Write) {
			app(l, a, 1)
			app(l, b, 2)
			l.NewWrite().SetConfState(l.Group(2), confState(1))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			l, _ := mustOpen(t, testOptions(vfs.NewMem()))
			defer mustClose(t, l)
			defer func() {
				if p := recover(); p == nil || !strings.Contains(fmt.Sprint(p), c.says) {
					t.Errorf("panic: %v", p)
				}
			}()
			c.f(l, l.NewWrite(), l.NewWrite())
		})
	}
}

// TestOverlapTooLarge refuses a Write and what was filled on top of it, and
// goes on with what is filled after that.
func TestOverlapTooLarge(t *testing.T) {
	l, _ := mustOpen(t, testOptions(vfs.NewMem()))
	defer mustClose(t, l)
	g, a, b := l.Group(1), l.NewWrite(), l.NewWrite()
	a.Append(g, raftpb.HardState{}, entries(1, 2, 1, "safe"))
	mustSave(t, l, a, true)
	want := stateOf(t, l)
	a.Append(g, raftpb.HardState{}, entries(3, 2, 1, "large"))
	a.buf = make([]byte, RunBytesMax+1) // never touched, so it costs no memory
	b.Append(g, raftpb.HardState{}, entries(5, 2, 1, "on top"))
	for _, w := range []*Write{a, b} {
		if err := l.Save(w, true); !errors.Is(err, ErrTooLarge) || !w.Empty() {
			t.Fatalf("Save: %v", err)
		}
	}
	if got := stateOf(t, l); !got.equal(want) || l.Err() != nil {
		t.Errorf("%v, want %v; failure %v", got, want, l.Err())
	}
	b.Append(g, raftpb.HardState{}, entries(3, 1, 2, "instead"))
	a.Append(g, raftpb.HardState{}, entries(4, 1, 2, "and on"))
	mustSave(t, l, b, true)
	mustSave(t, l, a, true)
	if s := groupStateOf(t, g); s.terms != "1 1 2 2 " {
		t.Errorf("got %+v", s)
	}
}

// TestOverlapFailure lets the disk fail below the first of two Writes: neither
// shows, and filling goes on until somebody looks at the error.
func TestOverlapFailure(t *testing.T) {
	l, _ := mustOpen(t, testOptions(vfs.NewMem()))
	broken := errors.New("broken")
	g, a, b := l.Group(1), l.NewWrite(), l.NewWrite()
	a.Append(g, raftpb.HardState{}, entries(1, 2, 1, "x"))
	b.Append(g, raftpb.HardState{}, entries(3, 2, 2, "x"))
	l.fail(broken)
	for i := range uint64(3) {
		l.NewWrite().Append(g, raftpb.HardState{}, entries(5+i, 1, 2+i, "x"))
	}
	for _, w := range []*Write{a, b} {
		if err := l.Save(w, true); err != broken {
			t.Errorf("Save: %v", err)
		}
	}
	if ids := l.Groups(); len(ids) != 0 {
		t.Errorf("groups %v", ids)
	}
	if err := l.Close(); !errors.Is(err, broken) {
		t.Errorf("Close: %v", err)
	}
}

// TestPublishedAtOnce stops a Save in the middle of its publication. One group
// shows all its records then, though those of another, which shows none, stand
// between them; and what a Write is filled with still builds on the whole.
func TestPublishedAtOnce(t *testing.T) {
	l, _ := mustOpen(t, testOptions(vfs.NewMem()))
	defer mustClose(t, l)
	g, h, w := l.Group(1), l.Group(2), l.NewWrite()
	w.Append(h, raftpb.HardState{}, entries(1, 2, 1, ""))
	mustSave(t, l, w, true)
	settled := l.settled.Load()
	w.SetStart(g, 10, 3, nil)
	w.Append(h, raftpb.HardState{Term: 1}, entries(3, 1, 1, ""))
	w.SetConfState(g, confState(7))
	w.SetConfState(h, confState(8))
	w.Append(g, raftpb.HardState{Term: 3, Commit: 10}, entries(11, 1, 3, ""))

	h.mu.Lock()
	saved := make(chan error)
	go func() { saved <- l.Save(w, true) }()
	for first, _ := g.FirstIndex(); first != 11; first, _ = g.FirstIndex() {
		runtime.Gosched()
	}
	if s := groupStateOf(t, g); s.start != (mark{10, 3}) || s.terms != "3 " || s.hs != (hardState{3, 0, 10}) || s.conf != "false [7]" {
		t.Errorf("the first group shows %+v", s)
	}
	if h.last() != 2 || h.hs != (hardState{}) || h.conf != nil {
		t.Errorf("the second group shows last index %d, hard state %v, configuration %x", h.last(), h.hs, h.conf)
	}
	if l.settled.Load() != settled {
		t.Error("what is filled would look at the second group too early")
	}
	h.mu.Unlock()
	if err := <-saved; err != nil {
		t.Fatal(err)
	}
	if s := groupStateOf(t, h); s.terms != "1 1 1 " || s.hs != (hardState{1, 0, 0}) || s.conf != "false [8]" {
		t.Errorf("the second group shows %+v", s)
	}
}

// TestTruncatedBelowWrite records a truncation between two Writes, of which the
// second was filled before and goes back behind it.
func TestTruncatedBelowWrite(t *testing.T) {
	for name, c := range map[string]struct {
		second func(g *Group, w *Write)
		terms  string // after the truncation up to 3
	}{
		"replaces from below": {func(g *Group, w *Write) {
			w.Append(g, raftpb.HardState{}, entries(2, 4, 2, ""))
		}, "2 2 "},
		"replaces only below": {func(g *Group, w *Write) {
			w.Append(g, raftpb.HardState{}, entries(2, 2, 2, ""))
		}, "1 1 1 "},
		"starts below": {func(g *Group, w *Write) {
			w.SetStart(g, 2, 1, confState(4))
		}, "1 1 1 "},
		"starts and replaces below": {func(g *Group, w *Write) {
			w.SetStart(g, 1, 1, confState(4))
			w.Append(g, raftpb.HardState{}, entries(2, 3, 2, ""))
		}, "2 "},
	} {
		t.Run(name, func(t *testing.T) {
			o := testOptions(vfs.NewMem())
			l, _ := mustOpen(t, o)
			g, a, b := l.Group(1), l.NewWrite(), l.NewWrite()
			a.Append(g, raftpb.HardState{}, entries(1, 5, 1, ""))
			mustSave(t, l, a, true)
			a.Append(g, raftpb.HardState{}, entries(6, 1, 1, ""))
			c.second(g, b)
			l.Truncate(g, 3)
			mustSave(t, l, a, true)
			mustSave(t, l, b, true)
			if s := groupStateOf(t, g); s.start != (mark{3, 1}) || s.terms != c.terms {
				t.Errorf("got %+v", s)
			}
			l = reopen(t, l, o)
			mustClose(t, l)
		})
	}
}

// TestOverlapBounded keeps a Write in flight all the time, of a group whose
// terms change with each entry: what is kept for filling does not add up.
func TestOverlapBounded(t *testing.T) {
	l, _ := mustOpen(t, testOptions(vfs.NewMem()))
	defer mustClose(t, l)
	g := l.Group(1)
	ws := [2]*Write{l.NewWrite(), l.NewWrite()}
	for i := range uint64(100) {
		ws[i%2].Append(g, raftpb.HardState{}, entries(i+1, 1, i, ""))
		if i > 0 {
			mustSave(t, l, ws[(i+1)%2], false)
		}
		if n := len(g.pending.terms); n > 2 {
			t.Fatalf("terms of %d entries are kept at entry %d", n, i+1)
		}
	}
}

// TestSaver fills on one goroutine and saves on another, as a pass does,
// with readers and a watchdog beside them. The race detector and the model are
// the judges.
func TestSaver(t *testing.T) {
	o := testOptions(vfs.NewMem())
	o.SegmentBytes = SegmentBytesMin
	o.CacheBytes = 3000
	l, _ := mustOpen(t, o)
	work, back := make(chan *Write), make(chan error, 1)
	var others sync.WaitGroup
	others.Go(func() {
		for w := range work {
			back <- l.Save(w, true)
		}
	})
	stop := make(chan struct{})
	others.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			for id := range uint64(4) {
				g := l.Group(id)
				first, _ := g.FirstIndex()
				last, _ := g.LastIndex()
				switch _, err := g.Entries(first, last+1, 10_000); err {
				case nil, raft.ErrCompacted, raft.ErrUnavailable:
				default:
					t.Errorf("Entries(%d, %d): %v", first, last+1, err)
				}
				_, _, _ = g.InitialState()
				_, _ = g.Snapshot()
			}
			if d := l.Stalled(); d < 0 || d > time.Minute {
				t.Errorf("stalled for %v", d)
			}
		}
	})
	r := rand.New(rand.NewPCG(7, 8))
	c := newOverlap(l, make(model))
	for range 400 {
		for c.record(r); !c.hand(); c.record(r) {
		}
		work <- c.handed.w
		// No truncation: the model has no idea whether this Save has begun.
		for range r.IntN(5) {
			c.fill(r, uint64(1+r.IntN(3)))
		}
		if err := <-back; err != nil {
			t.Fatal(err)
		}
		c.publish()
		c.check(t)
	}
	close(work)
	close(stop)
	others.Wait()
	want := stateOf(t, l)
	mustClose(t, l)
	l, _ = mustOpen(t, o)
	defer mustClose(t, l)
	if got := stateOf(t, l); !got.equal(want) {
		t.Errorf("reopened: %v, want %v", got, want)
	}
}

// TestTruncateAnyTime truncates from a goroutine of its own, also what Writes
// are about to replace. Whatever comes of it, readers see it, and Open finds
// the same.
func TestTruncateAnyTime(t *testing.T) {
	o := testOptions(vfs.NewMem())
	o.SegmentBytes = SegmentBytesMin
	r := rand.New(rand.NewPCG(9, 10))
	for range 5 {
		l, _ := mustOpen(t, o)
		work, back := make(chan *Write), make(chan error, 1)
		stop := make(chan struct{})
		var others sync.WaitGroup
		others.Go(func() {
			for w := range work {
				back <- l.Save(w, true)
			}
		})
		others.Go(func() {
			for n := uint64(0); ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				g := l.Group(n % 2)
				last, _ := g.LastIndex()
				l.Truncate(g, last-min(last, n%5))
			}
		})
		writes := [2]*Write{l.NewWrite(), l.NewWrite()}
		back <- nil
		for i := range uint64(200) {
			w := writes[i%2]
			for id := range uint64(3) {
				g, p := l.Group(id), w.view(l.Group(id))
				back := min(uint64(r.IntN(4)), p.last-p.start.index)
				switch r.IntN(8) {
				case 0:
					w.SetStart(g, p.last-back, uint64(1+r.IntN(3)), nil)
				case 1:
					w.Remove(g)
				default:
					w.Append(g, raftpb.HardState{}, entries(p.last+1-back, 1+r.IntN(3), uint64(1+r.IntN(3)), "data"))
				}
			}
			if err := <-back; err != nil {
				t.Fatal(err)
			}
			work <- w
		}
		if err := <-back; err != nil {
			t.Fatal(err)
		}
		close(stop)
		close(work)
		others.Wait()
		mustSave(t, l, writes[0], true)
		want := stateOf(t, l)
		mustClose(t, l)
		l, _ = mustOpen(t, o)
		if got := stateOf(t, l); !got.equal(want) {
			t.Fatalf("reopened: %v, want %v", got, want)
		}
		mustClose(t, l)
	}
}
