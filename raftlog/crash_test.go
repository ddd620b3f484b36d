package raftlog

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"go.etcd.io/raft/v3/raftpb"
	"pgregory.net/rapid"
)

// history is what a log was told, Save by Save. After a crash it must be
// in one of the states from the last synced Save on.
type history struct {
	states []logState // after each Save that was begun; the first is the state at opening
	synced int        // index into states
}

// find returns the newest state equal to got, or -1 if none that is allowed is.
func (h *history) find(got logState) int {
	for i := len(h.states) - 1; i >= h.synced; i-- {
		if h.states[i].equal(got) {
			return i
		}
	}
	return -1
}

// randomOp makes w and m do the same.
func randomOp(r *rand.Rand, l *Log, w *Write, m model) {
	id := uint64(1 + r.IntN(3))
	g, mg := l.Group(id), m.group(id)
	switch n := r.IntN(24); {
	case n == 23:
		index, term := mg.start.index+uint64(r.IntN(10)), uint64(1+r.IntN(5))
		mg.restart(index, term)
		w.Restart(g, index, term)
	case n > 20:
		mg.meta = fmt.Sprint("metadata ", r.IntN(100))
		w.SetMetadata(g, []byte(mg.meta))
	case n == 20:
		*mg = modelGroup{reset: true}
		w.Remove(g)
	case n < 12:
		first := mg.last() + 1
		if back := uint64(r.IntN(4)); r.IntN(4) == 0 && first > mg.start.index+back+1 && first-back > mg.trunc {
			first -= back
		}
		data := strings.Repeat(string(rune('a'+r.IntN(26))), []int{0, 3, 200, 3000, 9000}[r.IntN(5)])
		es := entries(first, 1+r.IntN(3), uint64(1+r.IntN(5)), data)
		mg.append(es)
		mg.hs = hardState{uint64(1 + r.IntN(5)), uint64(r.IntN(3)), first}
		w.Append(g, raftpb.HardState{Term: mg.hs.term, Vote: mg.hs.vote, Commit: first}, es)
	case n < 15:
		index := mg.start.index + uint64(r.IntN(6))
		if mg.last() > mg.start.index {
			index = min(index, mg.last())
		}
		l.Truncate(g, index)
		// What w already holds is not in the log yet, and may not be truncated.
		if last, _ := g.LastIndex(); index <= last {
			mg.trunc = max(mg.trunc, index)
		} else {
			mg.trunc = max(mg.trunc, last)
		}
	case n < 17:
		index, term := mg.start.index+uint64(r.IntN(10)), uint64(1+r.IntN(5))
		if at, ok := mg.term(index); ok && r.IntN(2) == 0 {
			term = at
		}
		if index < mg.trunc {
			return
		}
		mg.setStart(index, term)
		mg.conf = confState(index)
		w.SetStart(g, index, term, mg.conf)
	default:
		mg.conf = confState(uint64(r.IntN(9)), 1)
		w.SetConfState(g, mg.conf)
	}
}

// TestModelCrash runs random operations with random crashes and reopens
// against the model. Blocks and directory entries that were not synced survive
// at random.
func TestModelCrash(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		fs := vfs.NewCrashableMem()
		m := make(model)
		h := history{states: []logState{m.state()}}
		for range rapid.IntRange(1, 6).Draw(t, "crashes") {
			o := testOptions(fs)
			o.SegmentBytes = 4 * BlockBytes << r.IntN(2)
			o.CacheBytes = int64(r.IntN(3)) * 4000
			l, _, err := Open(o)
			if err != nil {
				t.Fatalf("Open: %v", err)
			}
			l.Prepare()
			got := stateOf(failer{t: t}, l)
			if h.find(got) < 0 {
				t.Fatalf("recovered %v,\nallowed are %v", got, h.states[h.synced:])
			}
			m = rebuild(t, l)
			h = history{states: []logState{got}}
			run(t, r, l, m, &h)
			if r.IntN(4) == 0 {
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
				m.recordTruncations()
				h = history{states: []logState{m.state()}}
				continue
			}
			crashed := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: []int{0, 30, 70, 100}[r.IntN(4)], RNG: r})
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			fs = crashed
		}
	})
}

func run(t *rapid.T, r *rand.Rand, l *Log, m model, h *history) {
	w := l.NewWrite()
	for range 1 + r.IntN(40) {
		for range 1 + r.IntN(3) {
			randomOp(r, l, w, m)
		}
		sync := r.IntN(3) > 0
		if err := l.Save(w, sync); err != nil {
			t.Fatal(err)
		}
		m.recordTruncations()
		h.states = append(h.states, m.state())
		if sync {
			h.synced = len(h.states) - 1
		}
		if r.IntN(5) == 0 {
			if err := l.RecordSynced(); err != nil {
				t.Fatal(err)
			}
		}
		if got := stateOf(failer{t: t}, l); !got.equal(m.state()) {
			t.Fatalf("the log is %v,\nwant %v", got, m.state())
		}
	}
}

// failer lets a rapid.T stand in for a testing.TB.
type failer struct {
	testing.TB
	t *rapid.T
}

func (f failer) Helper()                           {}
func (f failer) Fatal(args ...any)                 { f.t.Fatal(args...) }
func (f failer) Fatalf(format string, args ...any) { f.t.Fatalf(format, args...) }

// rebuild makes a model of what l holds.
func rebuild(t *rapid.T, l *Log) model {
	m := make(model)
	for _, id := range l.Groups() {
		g := l.Group(id)
		mg := m.group(id)
		mg.hs, mg.start, mg.meta = g.hs, g.start, string(g.meta)
		if g.conf != nil {
			_, conf, _ := g.InitialState()
			mg.conf = &conf
		}
		if g.refs.len() > 0 {
			es, err := g.Entries(g.start.index+1, g.last()+1, 1<<40)
			if err != nil {
				t.Fatal(err)
			}
			mg.entries = es
		}
	}
	return m
}

// TestCrashEverywhere takes the power away before every single operation on
// the file system, background work included, and looks at each remainder.
func TestCrashEverywhere(t *testing.T) {
	rng, m := rand.New(rand.NewPCG(1, 2)), make(model)
	writes := 30
	if testing.Short() {
		writes = 10
	}
	crashEverywhere(t, m, func(l *Log, save func(w *Write, sync bool)) {
		w := l.NewWrite()
		for i := range writes {
			randomOp(rng, l, w, m)
			for id, g := range m {
				if g.last() > g.start.index+4 {
					l.Truncate(l.Group(id), g.last()-4)
					last, _ := l.Group(id).LastIndex()
					g.trunc = max(g.trunc, min(g.last()-4, last))
				}
			}
			m.recordTruncations()
			save(w, i%3 != 0)
			if i%4 == 0 {
				if err := l.RecordSynced(); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}

// crashEverywhere opens a log twice, lets script write to it, and closes it. It
// looks at what a crash would leave before each operation on the file system.
// script calls save for every Save, when m is what this is to make of the
// log.
func crashEverywhere(t *testing.T, m model, script func(l *Log, save func(w *Write, sync bool))) {
	type remainder struct {
		fs             *vfs.MemFS
		op             string
		synced, newest int
	}
	var (
		mu         sync.Mutex
		remainders []remainder
		h          = history{states: []logState{{}}}
	)
	fs := vfs.NewCrashableMem()
	loss := rand.New(rand.NewPCG(3, 4)) // guarded by mu
	inject := errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsRead {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		for _, percent := range []int{0, 50, 100} {
			remainders = append(remainders, remainder{
				fs:     fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: loss}),
				op:     fmt.Sprintf("%v %s %d, %d%%", op.Kind, op.Path, op.Offset, percent),
				synced: h.synced, newest: len(h.states) - 1,
			})
		}
		return nil
	})
	o := testOptions(errorfs.Wrap(fs, inject))
	o.SegmentBytes = SegmentBytesMin
	o.SpareSegments = 1
	begin := func() {
		mu.Lock()
		defer mu.Unlock()
		h.states = append(h.states, m.state())
	}
	for range 2 {
		l, _ := mustOpen(t, o)
		script(l, func(w *Write, sync bool) {
			begin()
			mustSave(t, l, w, sync)
			if got := stateOf(t, l); !got.equal(m.state()) {
				t.Fatalf("the log is %v,\nwant %v", got, m.state())
			}
			if sync {
				mu.Lock()
				h.synced = len(h.states) - 1
				mu.Unlock()
			}
		})
		begin()
		mustClose(t, l)
	}
	t.Logf("%d remainders", len(remainders))
	for _, r := range remainders {
		o.FS = r.fs
		l, _, err := Open(o)
		if err != nil {
			t.Fatalf("after a crash before %s: %v", r.op, err)
		}
		past := history{states: h.states[:r.newest+1], synced: r.synced}
		if got := stateOf(t, l); past.find(got) < 0 {
			t.Fatalf("after a crash before %s: recovered %v,\nallowed are %v", r.op, got, past.states[past.synced:])
		}
		g, w := l.Group(99), l.NewWrite()
		last, _ := g.LastIndex()
		w.Append(g, raftpb.HardState{}, entries(last+1, 1, 1, "goes on"))
		mustSave(t, l, w, true)
		mustClose(t, l)
	}
}

// segmentFile returns the whole content of a segment.
func segmentFile(t testing.TB, fs vfs.FS, seq uint64) []byte {
	t.Helper()
	path := fs.PathJoin(testDir, segmentName(seq))
	info, err := fs.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := fs.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := make([]byte, info.Size())
	if err := readFull(f, p, 0); err != nil {
		t.Fatal(err)
	}
	return p
}

// withSegment makes a file system that holds only segment seq with content p,
// and the other segments of fs, if any, as they are.
func withSegment(t testing.TB, fs vfs.FS, seq uint64, p []byte) *vfs.MemFS {
	t.Helper()
	c := vfs.NewMem()
	if err := c.MkdirAll(testDir, 0o755); err != nil {
		t.Fatal(err)
	}
	names, err := fs.List(testDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		n, ok := parseSegmentName(name)
		if !ok {
			continue
		}
		content := p
		if n != seq {
			content = segmentFile(t, fs, n)
		}
		f, err := c.Create(c.PathJoin(testDir, name), writeCategory)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(slices.Clone(content)); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// crashed makes a log of n Saves and takes the power away. It returns the
// file system, what the log held before the last Save and after it, and
// where in the segment the runs are.
func crashed(t testing.TB, n int) (fs *vfs.MemFS, before, after logState, offsets []int64) {
	t.Helper()
	fs = vfs.NewCrashableMem()
	l, _ := mustOpen(t, testOptions(fs))
	awaitDead(l)
	g, w := l.Group(1), l.NewWrite()
	for i := range uint64(n) {
		before = stateOf(t, l)
		w.Append(g, raftpb.HardState{Term: 1, Vote: i, Commit: i}, entries(i+1, 1, 1, fmt.Sprint("data of ", i)))
		if i == uint64(n)-1 {
			w.Append(l.Group(2), raftpb.HardState{}, entries(1, 1, 1, strings.Repeat("second block ", 320)))
		}
		mustSave(t, l, w, true)
		offsets = append(offsets, l.pos)
	}
	after = stateOf(t, l)
	clone := fs.CrashClone(vfs.CrashCloneCfg{})
	mustClose(t, l)
	return clone, before, after, offsets
}

// TestTornAnywhere cuts the last run off at every byte: the run is there as a
// whole or not at all, and the log goes on either way.
func TestTornAnywhere(t *testing.T) {
	fs, before, after, offsets := crashed(t, 3)
	whole := segmentFile(t, fs, 1)
	start, end := offsets[1], offsets[2]
	// The padding is not part of the run.
	used := start + runHeaderBytes + int64(whole[start+40]) + int64(whole[start+41])<<8
	for cut := start; cut <= end; cut++ {
		if cut > used && cut%97 != 0 {
			continue
		}
		if testing.Short() && cut > start+64 && cut < used-8 && cut%13 != 0 {
			continue
		}
		p := slices.Clone(whole)
		clear(p[cut:])
		torn := withSegment(t, fs, 1, p)
		l, rec, err := Open(testOptions(torn))
		if err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		want := before
		if cut >= used {
			want = after
		}
		if got := stateOf(t, l); !got.equal(want) {
			t.Fatalf("cut at %d of %d: %v, want %v", cut, used, got, want)
		}
		if wantTorn := cut >= start+44 && cut < used; (rec.TornBytes > 0) != wantTorn && cut >= start+48 {
			t.Fatalf("cut at %d of %d: %d bytes torn", cut, used, rec.TornBytes)
		}
		if cut%500 == 0 {
			w := l.NewWrite()
			last, _ := l.Group(1).LastIndex()
			w.Append(l.Group(1), raftpb.HardState{}, entries(last+1, 1, 2, "after"))
			mustSave(t, l, w, true)
			want = stateOf(t, l)
			mustClose(t, l)
			l, _ = mustOpen(t, testOptions(torn))
			if got := stateOf(t, l); !got.equal(want) {
				t.Fatalf("cut at %d, then reopened: %v, want %v", cut, got, want)
			}
		}
		mustClose(t, l)
	}
}

// TestFlipAnywhere turns over bits all over the file. In the header of the
// segment and in every run but the last this must be found; in the last it may
// look like a torn tail; in padding and behind the end it does no harm.
func TestFlipAnywhere(t *testing.T) {
	fs, before, after, offsets := crashed(t, 4)
	whole := segmentFile(t, fs, 1)
	covered := func(at int64) (run int, ok bool) {
		start := int64(BlockBytes) // the checkpoint
		for i := -1; i < len(offsets); i++ {
			if i == 0 {
				start += BlockBytes
			} else if i > 0 {
				start = offsets[i-1]
			}
			size := int64(whole[start+40]) | int64(whole[start+41])<<8
			if at >= start && at < start+runHeaderBytes+size {
				return i, true
			}
		}
		return 0, false
	}
	for at := int64(0); at < int64(len(whole)); at++ {
		run, inRun := covered(at)
		if !inRun && at >= segmentHeaderBytes && at%61 != 0 {
			continue
		}
		p := slices.Clone(whole)
		p[at] ^= 1 << (at % 8)
		flipped := withSegment(t, fs, 1, p)
		l, _, err := Open(testOptions(flipped))
		bad := errors.Is(err, ErrCorrupt) || errors.Is(err, ErrVersion)
		switch {
		case at < segmentHeaderBytes, inRun && run < len(offsets)-1:
			if !bad {
				t.Fatalf("bit flip at byte %d in run %d: %v", at, run, err)
			}
			if verr := Verify(testOptions(flipped), func(string) {}); verr == nil {
				t.Fatalf("bit flip at byte %d: Verify finds nothing", at)
			}
			continue
		case err != nil:
			t.Fatalf("harmless bit flip at byte %d: %v", at, err)
		}
		got := stateOf(t, l)
		if want := after; !got.equal(want) && (!inRun || !got.equal(before)) {
			t.Fatalf("bit flip at byte %d: %v, want %v", at, got, want)
		}
		mustClose(t, l)
	}
}

// TestFlipAfterClose damages the last acknowledged run of a log that was
// closed: it is no torn tail.
func TestFlipAfterClose(t *testing.T) {
	fs := vfs.NewMem()
	l, _ := mustOpen(t, testOptions(fs))
	w := l.NewWrite()
	w.Append(l.Group(1), raftpb.HardState{}, entries(1, 1, 1, "x"))
	mustSave(t, l, w, true)
	at := l.pos - BlockBytes + runHeaderBytes
	mustClose(t, l)
	p := segmentFile(t, fs, 1)
	p[at] ^= 1
	_, _, err := Open(testOptions(withSegment(t, fs, 1, p)))
	var where *CorruptionError
	if !errors.As(err, &where) || where.Offset != at-runHeaderBytes || !strings.HasSuffix(where.File, segmentName(1)) {
		t.Errorf("Open: %v", err)
	}
}

// TestReclaimWaitsForSync gives segments up with a truncation that is not
// durable yet: they must still be there after a crash.
func TestReclaimWaitsForSync(t *testing.T) {
	fs := vfs.NewCrashableMem()
	l, _ := mustOpen(t, testOptions(fs))
	g, w := l.Group(1), l.NewWrite()
	for i := range uint64(20) {
		w.Append(g, raftpb.HardState{}, entries(i+1, 1, 1, "x"))
		mustSave(t, l, w, true)
	}
	want := stateOf(t, l)
	l.Truncate(g, 20)
	mustSave(t, l, w, false)
	awaitDead(l)
	power := fs.CrashClone(vfs.CrashCloneCfg{})
	mustClose(t, l)
	l, _ = mustOpen(t, testOptions(power))
	defer mustClose(t, l)
	if got := stateOf(t, l); !got.equal(want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestOpenSyncs ends the process with a run that was not synced, and, when the
// next one has found it and treats it as safe, takes the power away.
func TestOpenSyncs(t *testing.T) {
	fs := vfs.NewCrashableMem()
	l, _ := mustOpen(t, testOptions(fs))
	w := l.NewWrite()
	w.Append(l.Group(1), raftpb.HardState{}, entries(1, 1, 1, "x"))
	mustSave(t, l, w, false)
	want := stateOf(t, l)
	killed := errors.New("killed")
	l.fail(killed)
	if err := l.Close(); !errors.Is(err, killed) {
		t.Fatal(err)
	}
	l, _ = mustOpen(t, testOptions(fs))
	power := fs.CrashClone(vfs.CrashCloneCfg{})
	if got := stateOf(t, l); !got.equal(want) {
		t.Errorf("reopened: %v, want %v", got, want)
	}
	mustClose(t, l)
	l, _ = mustOpen(t, testOptions(power))
	defer mustClose(t, l)
	if got := stateOf(t, l); !got.equal(want) {
		t.Errorf("after the crash: %v, want %v", got, want)
	}
}

// TestVerifyNamesAllDamage damages two runs of three.
func TestVerifyNamesAllDamage(t *testing.T) {
	fs, _, _, offsets := crashed(t, 4)
	p := segmentFile(t, fs, 1)
	p[offsets[0]+runHeaderBytes] ^= 1
	p[offsets[1]+runHeaderBytes] ^= 1
	var report []string
	err := Verify(testOptions(withSegment(t, fs, 1, p)), func(s string) { report = append(report, s) })
	if !errors.Is(err, ErrCorrupt) || len(report) != 3 {
		t.Fatalf("%v, %q", err, report)
	}
	for i, at := range offsets[:2] {
		if !strings.Contains(report[1+i], fmt.Sprintf("at byte %d: the checksum", at)) {
			t.Errorf("line %d: %s", 1+i, report[1+i])
		}
	}
}

// TestLeftoversStayDead loses the first of two unsynced runs, writes another
// in its place, and finds that the second does not follow on it.
func TestLeftoversStayDead(t *testing.T) {
	fs, _, _, offsets := crashed(t, 1)
	l, _ := mustOpen(t, testOptions(fs))
	g, w := l.Group(1), l.NewWrite()
	w.Append(g, raftpb.HardState{}, entries(2, 1, 1, "lost"))
	mustSave(t, l, w, false)
	w.Append(g, raftpb.HardState{}, entries(3, 1, 1, "left over"))
	mustSave(t, l, w, false)
	power := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(0, 0))})
	mustClose(t, l)
	p := segmentFile(t, power, 1)
	clear(p[offsets[0] : offsets[0]+BlockBytes])
	power = withSegment(t, power, 1, p)

	l, rec := mustOpen(t, testOptions(power))
	g, w = l.Group(1), l.NewWrite()
	if last, _ := g.LastIndex(); last != 1 || rec.TornBytes != BlockBytes {
		t.Fatalf("last index %d, recovery %+v", last, rec)
	}
	w.Append(g, raftpb.HardState{}, entries(2, 1, 2, "instead"))
	mustSave(t, l, w, true)
	want := stateOf(t, l)
	mustClose(t, l)
	l, rec = mustOpen(t, testOptions(power))
	defer mustClose(t, l)
	if got := stateOf(t, l); !got.equal(want) || rec.TornBytes != 0 {
		t.Errorf("%v, want %v; recovery %+v", got, want, rec)
	}
}

// TestForgedRun stores, as a value, bytes that look like a run of the segment
// in everything a client can know, and finds them ignored when they end up
// where a run could be.
func TestForgedRun(t *testing.T) {
	fs, before, _, offsets := crashed(t, 2)
	p := segmentFile(t, fs, 1)
	h, err := decodeSegmentHeader(p)
	if err != nil {
		t.Fatal(err)
	}
	forged := appendHardState(make([]byte, runHeaderBytes), 1, hardState{9, 9, 9})
	runHeader{seq: h.seq, salt: h.salt + 1, run: 3, durable: 2}.sealRun(forged)
	clear(p[offsets[0]:])
	copy(p[offsets[0]:], forged)
	l, rec, err := Open(testOptions(withSegment(t, fs, 1, p)))
	if err != nil {
		t.Fatal(err)
	}
	defer mustClose(t, l)
	if got := stateOf(t, l); !got.equal(before) || rec.TornBytes != 0 {
		t.Errorf("%v, want %v; recovery %+v", got, before, rec)
	}
}

// TestFiles damages the set of files instead of their content.
func TestFiles(t *testing.T) {
	build := func(t *testing.T) *vfs.MemFS {
		fs := vfs.NewMem()
		l, _ := mustOpen(t, testOptions(fs))
		w := l.NewWrite()
		for i := range uint64(40) {
			w.Append(l.Group(1), raftpb.HardState{}, entries(i+1, 1, 1, "x"))
			mustSave(t, l, w, true)
		}
		awaitDead(l)
		if len(l.live) < 4 {
			t.Fatalf("%d segments", len(l.live))
		}
		mustClose(t, l)
		return fs
	}
	path := func(seq uint64) string { return testDir + "/" + segmentName(seq) }
	for name, c := range map[string]struct {
		damage func(t *testing.T, fs *vfs.MemFS) *vfs.MemFS
		err    error
		says   string
	}{
		"middle segment gone": {func(t *testing.T, fs *vfs.MemFS) *vfs.MemFS {
			return without(t, fs, path(3))
		}, ErrCorrupt, segmentName(3) + " is missing"},
		"first segment gone": {func(t *testing.T, fs *vfs.MemFS) *vfs.MemFS {
			return without(t, fs, path(1))
		}, ErrCorrupt, "missing from the segments"},
		"shortened": {func(t *testing.T, fs *vfs.MemFS) *vfs.MemFS {
			p := segmentFile(t, fs, 2)
			return withSegment(t, fs, 2, p[:len(p)-BlockBytes])
		}, ErrCorrupt, "the file is truncated here"},
		"empty file": {func(t *testing.T, fs *vfs.MemFS) *vfs.MemFS {
			return withSegment(t, fs, 2, nil)
		}, ErrCorrupt, "only 0 bytes"},
		"no header": {func(t *testing.T, fs *vfs.MemFS) *vfs.MemFS {
			p := segmentFile(t, fs, 2)
			clear(p[:8])
			return withSegment(t, fs, 2, p)
		}, ErrCorrupt, "no segment header"},
		"another version": {func(t *testing.T, fs *vfs.MemFS) *vfs.MemFS {
			p := segmentFile(t, fs, 2)
			p[8] = 2
			return withSegment(t, fs, 2, p)
		}, ErrVersion, segmentName(2)},
		"segments swapped": {func(t *testing.T, fs *vfs.MemFS) *vfs.MemFS {
			return withSegment(t, fs, 2, segmentFile(t, fs, 3))
		}, ErrCorrupt, "the header belongs to segment 3"},
		"foreign names": {func(t *testing.T, fs *vfs.MemFS) *vfs.MemFS {
			for _, n := range []string{"1.seg", "README", "-000000000000001.seg", "0000000000000000.seg"} {
				f, err := fs.Create(testDir+"/"+n, writeCategory)
				if err != nil {
					t.Fatal(err)
				}
				if err := f.Close(); err != nil {
					t.Fatal(err)
				}
			}
			return fs
		}, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			fs := c.damage(t, build(t))
			var report []string
			verr := Verify(testOptions(fs), func(s string) { report = append(report, s) })
			l, _, err := Open(testOptions(fs))
			if c.err == nil {
				if err != nil || verr != nil {
					t.Fatalf("Open: %v, Verify: %v", err, verr)
				}
				mustClose(t, l)
				return
			}
			if !errors.Is(err, c.err) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("Open: %v", err)
			}
			if !errors.Is(verr, c.err) || len(report) == 0 || !strings.Contains(report[0], c.says) {
				t.Errorf("Verify: %v, %q", verr, report)
			}
		})
	}
}

func without(t *testing.T, fs *vfs.MemFS, path string) *vfs.MemFS {
	t.Helper()
	if err := fs.Remove(path); err != nil {
		t.Fatal(err)
	}
	return fs
}
