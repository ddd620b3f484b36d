package raftlog

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/google/go-cmp/cmp"
	"go.etcd.io/raft/v3/raftpb"
)

func exampleSynced() syncedRecord {
	return syncedRecord{closed: true, serial: 0x0102, owner: 0x1112131415161718, run: 7, segment: 3, offset: 12288, at: 1764446400000,
		groups: []groupEnd{{0, 5}, {300, 1 << 40}}}
}

// TestSyncedLayout fixes the bytes on disk. A change here needs a new
// syncedVersion.
func TestSyncedLayout(t *testing.T) {
	r := exampleSynced()
	p := r.encode([]byte("before"))
	p = p[len("before"):]
	const want = "50726f6153796e3101000100" + "0a000000" + "0201000000000000" + "1817161514131211" + "0700000000000000" + "0300000000000000" + "0030000000000000" + "006e33d19a010000" + "28a3f09e" + "00000000" + "0005ac02808080808020"
	if got := hex.EncodeToString(p[:syncedHeaderBytes+10]); got != want {
		t.Errorf("%s, want\n%s", got, want)
	}
	if len(p) != BlockBytes {
		t.Errorf("%d bytes", len(p))
	}
	got, ok := decodeSynced(p)
	if diff := cmp.Diff(r, got, cmp.AllowUnexported(syncedRecord{}, groupEnd{})); diff != "" || !ok {
		t.Error(diff)
	}
	for i := range 1025 { // every index as long as can be
		r.groups = append(r.groups, groupEnd{uint64(i), 1<<64 - 1})
	}
	if got, ok := decodeSynced(r.encode(nil)); !ok || len(got.groups) != len(r.groups) {
		t.Errorf("of all shards a node may have, %d have room", len(got.groups))
	}
	r.groups = append(r.groups, r.groups...)
	if p := r.encode(nil); len(p) != BlockBytes {
		t.Errorf("%d bytes where the ends have no room", len(p))
	}
}

func FuzzSynced(f *testing.F) {
	r := exampleSynced()
	f.Add(r.encode(nil))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, p []byte) {
		r, ok := decodeSynced(p)
		if !ok {
			return
		}
		again, ok := decodeSynced(r.encode(nil))
		if !ok || again.run != r.run || again.serial != r.serial {
			t.Fatalf("%+v, then %+v", r, again)
		}
	})
}

// longLog returns a log of several segments after a crash, a record of how far
// it was synced among its runs, and what it held after each run.
func longLog(t *testing.T) (fs *vfs.MemFS, recorded uint64, states map[uint64]logState) {
	t.Helper()
	fs = vfs.NewCrashableMem()
	o := testOptions(fs)
	o.SegmentBytes = SegmentBytesMin
	o.Owner = 5
	l, _ := mustOpen(t, o)
	states = map[uint64]logState{0: {}}
	w := l.NewWrite()
	for i := range uint64(8) {
		g := l.Group(1 + i%2)
		last, _ := g.LastIndex()
		w.Append(g, raftpb.HardState{Term: 1, Commit: last}, entries(last+1, 1, 1, fmt.Sprint("data of ", i)))
		before := stateOf(t, l)
		mustSave(t, l, w, true)
		for run := uint64(len(states)); run < l.run; run++ {
			states[run] = before // checkpoints
		}
		states[l.run] = stateOf(t, l)
		awaitDead(l)
		if i == 5 {
			if err := l.RecordSynced(); err != nil {
				t.Fatal(err)
			}
			recorded = l.run
		}
	}
	clone := fs.CrashClone(vfs.CrashCloneCfg{})
	mustClose(t, l)
	return clone, recorded, states
}

// copyOf returns a file system with the files of the log in fs, which change
// may change, or remove by returning nil.
func copyOf(t *testing.T, fs vfs.FS, change func(name string, content []byte) []byte) *vfs.MemFS {
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
		p := change(name, readFile(t, fs, name))
		if p == nil {
			continue
		}
		f, err := c.Create(testDir+"/"+name, writeCategory)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(p); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func readFile(t *testing.T, fs vfs.FS, name string) []byte {
	t.Helper()
	f, err := fs.Open(testDir + "/" + name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestLostTail loses the end of the log from each block of it on, in three ways.
// What was recorded as synced must be missed, by Open and by Verify; what came
// after that looks like what never was.
func TestLostTail(t *testing.T) {
	fs, recorded, states := longLog(t)
	o := testOptions(nil)
	o.SegmentBytes, o.Begun, o.Owner = SegmentBytesMin, true, 5
	// Of each block of a segment, the last run before it.
	type cut struct {
		seg uint64
		at  int
		run uint64
	}
	var cuts []cut
	run := uint64(0)
	for seg := uint64(1); ; seg++ {
		if _, err := fs.Stat(testDir + "/" + segmentName(seg)); err != nil {
			break
		}
		p := segmentFile(t, fs, seg)
		h, _ := decodeSegmentHeader(p)
		for at := BlockBytes; at < len(p); at += BlockBytes {
			cuts = append(cuts, cut{seg, at, run})
			if r, ok := decodeRunHeader(p[at:], h); ok {
				run = r.run
			}
		}
	}
	if run < recorded+2 || len(cuts) < 12 {
		t.Fatalf("%d runs, %d recorded, %d blocks", run, recorded, len(cuts))
	}
	for name, lose := range map[string]func(p []byte){
		"zeros":   func(p []byte) { clear(p) },
		"garbage": func(p []byte) { copy(p, bytes.Repeat([]byte{0xa5}, len(p))) },
		"bits": func(p []byte) {
			for i := range p {
				p[i] ^= 1
			}
		},
	} {
		for _, c := range cuts {
			what := fmt.Sprintf("%s from byte %d of segment %d, behind run %d of %d, %d recorded", name, c.at, c.seg, c.run, run, recorded)
			o := o
			o.FS = copyOf(t, fs, func(name string, p []byte) []byte {
				switch seq, ok := parseSegmentName(name); {
				case !ok || seq < c.seg:
				case seq > c.seg:
					lose(p[BlockBytes:])
				default:
					lose(p[c.at:])
				}
				return p
			})
			verr := Verify(o, func(string) {})
			l, rec, err := Open(o)
			if c.run < recorded {
				var damage *CorruptionError
				if !errors.As(err, &damage) || !errors.Is(verr, ErrCorrupt) {
					t.Fatalf("%s: Open: %v, Verify: %v", what, err, verr)
				}
				missing := uint64(0)
				for _, s := range damage.Lost {
					missing += s.Last - s.First + 1
				}
				if had, has := entriesIn(states[recorded]), entriesIn(states[c.run]); int(missing) != had-has {
					t.Fatalf("%s: %v are missing, %d entries of %d are there", what, damage.Lost, has, had)
				}
				o.CutDamage = true
				l, rec, err = Open(o)
			}
			if err != nil || rec.Closed {
				t.Fatalf("%s: %v, closed %v", what, err, rec.Closed)
			}
			if got := stateOf(t, l); !got.equal(states[c.run]) {
				t.Fatalf("%s: %v, want %v", what, got, states[c.run])
			}
			// It goes on from there, and nothing of the other past comes back.
			w := l.NewWrite()
			last, _ := l.Group(1).LastIndex()
			w.Append(l.Group(1), raftpb.HardState{}, entries(last+1, 1, 2, "after"))
			mustSave(t, l, w, true)
			want := stateOf(t, l)
			mustClose(t, l)
			o.CutDamage = false
			l, rec = mustOpen(t, o)
			if got := stateOf(t, l); !got.equal(want) || !rec.Closed || rec.TornBytes != 0 {
				t.Fatalf("%s, opened again: %v, want %v; %+v", what, got, want, rec)
			}
			mustClose(t, l)
		}
	}
}

func entriesIn(s logState) (n int) {
	for _, g := range s {
		n += len(strings.Fields(g.terms))
	}
	return n
}

// TestSyncedDamaged turns over each bit of the file, cuts it short everywhere
// and removes it: the log is opened whole, or not at all.
func TestSyncedDamaged(t *testing.T) {
	fs, _, states := longLog(t)
	whole := readFile(t, fs, syncedName)
	o := testOptions(nil)
	o.SegmentBytes, o.Begun = SegmentBytesMin, true
	check := func(what string, content []byte) (opened bool) {
		t.Helper()
		o := o
		o.FS = copyOf(t, fs, func(name string, p []byte) []byte {
			if name == syncedName {
				return content
			}
			return p
		})
		verr := Verify(o, func(string) {})
		l, _, err := Open(o)
		if (err == nil) != (verr == nil) {
			t.Fatalf("%s: Open: %v, Verify: %v", what, err, verr)
		}
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("%s: %v", what, err)
			}
			return false
		}
		defer mustClose(t, l)
		if got, want := stateOf(t, l), states[uint64(len(states)-1)]; !got.equal(want) {
			t.Fatalf("%s: %v, want %v", what, got, want)
		}
		return true
	}
	for at := range whole {
		if whole[at] == 0 && at%31 != 0 {
			continue
		}
		p := slices.Clone(whole)
		p[at] ^= 1 << (at % 8)
		if !check(fmt.Sprintf("bit of byte %d", at), p) {
			t.Errorf("byte %d: one copy out of two is whole, and the log is not opened", at)
		}
	}
	for at := 0; at <= len(whole); at += 512 {
		check(fmt.Sprintf("cut at byte %d", at), slices.Clone(whole[:at]))
	}
	if check("zeros", make([]byte, len(whole))) || check("removed", nil) {
		t.Error("the log is opened although nothing says how far it was synced")
	}
}

// TestSyncedBeforeItWasRecorded opens a log that was written before there was a
// file SYNCED.
func TestSyncedBeforeItWasRecorded(t *testing.T) {
	fs, _, states := longLog(t)
	o := testOptions(copyOf(t, fs, func(name string, p []byte) []byte {
		if name == syncedName {
			return nil
		}
		return p
	}))
	l, rec := mustOpen(t, o)
	if got, want := stateOf(t, l), states[uint64(len(states)-1)]; !got.equal(want) || rec.Closed || rec.SyncedRun != 0 {
		t.Errorf("%v, want %v; %+v", got, want, rec)
	}
	mustClose(t, l)
	o.Begun = true
	l, rec = mustOpen(t, o)
	if !rec.Closed {
		t.Errorf("%+v", rec)
	}
	mustClose(t, l)
}

func TestOwner(t *testing.T) {
	fs, _, _ := longLog(t)
	o := testOptions(fs)
	o.Owner = 6
	if _, _, err := Open(o); !errors.Is(err, ErrOwner) {
		t.Errorf("Open: %v", err)
	}
	if err := Verify(o, func(string) {}); !errors.Is(err, ErrOwner) {
		t.Errorf("Verify: %v", err)
	}
	for _, owner := range []uint64{0, 5} {
		o.Owner = owner
		l, _ := mustOpen(t, o)
		mustClose(t, l)
	}
}

// TestRecordingHoldsUpNobody has the disk hang while it is recorded how far the
// log is synced, and Saves meanwhile.
func TestRecordingHoldsUpNobody(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	var armed sync.Mutex // held until the file is to hang
	armed.Lock()
	o := testOptions(errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileSyncData && strings.HasPrefix(filepath.Base(op.Path), syncedName) && armed.TryLock() {
			armed.Unlock()
			once.Do(func() { close(entered) })
			<-release
		}
		return nil
	})))
	l, _ := mustOpen(t, o)
	w := l.NewWrite()
	save := func(index uint64) {
		w.Append(l.Group(1), raftpb.HardState{}, entries(index, 1, 1, "x"))
		mustSave(t, l, w, true)
	}
	save(1)
	armed.Unlock()
	recorded := make(chan error, 2)
	go func() { recorded <- l.RecordSynced() }()
	<-entered
	save(2)
	go func() { recorded <- l.RecordSynced() }() // another one waits, and still nobody else does
	for i := range uint64(10) {
		save(3 + i)
	}
	close(release)
	for range 2 {
		if err := <-recorded; err != nil {
			t.Error(err)
		}
	}
	mustClose(t, l)
	if err := l.RecordSynced(); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// TestRecordingFails has the disk refuse the record: that is a failure of the
// log, for who knows what else the disk has lost.
func TestRecordingFails(t *testing.T) {
	for _, kind := range []errorfs.OpKind{errorfs.OpFileWriteAt, errorfs.OpFileSyncData} {
		var mu sync.Mutex
		broken := false
		o := testOptions(errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
			mu.Lock()
			defer mu.Unlock()
			if broken && op.Kind == kind && strings.HasPrefix(filepath.Base(op.Path), syncedName) {
				return errorfs.ErrInjected
			}
			return nil
		})))
		l, _ := mustOpen(t, o)
		w := l.NewWrite()
		w.Append(l.Group(1), raftpb.HardState{}, entries(1, 1, 1, "x"))
		mustSave(t, l, w, true)
		mu.Lock()
		broken = true
		mu.Unlock()
		if err := l.RecordSynced(); !errors.Is(err, errorfs.ErrInjected) {
			t.Errorf("%v: %v", kind, err)
		}
		w.Append(l.Group(1), raftpb.HardState{}, entries(2, 1, 1, "x"))
		if err := l.Save(w, true); !errors.Is(err, errorfs.ErrInjected) {
			t.Errorf("%v, then Save: %v", kind, err)
		}
		if err := l.Close(); !errors.Is(err, errorfs.ErrInjected) {
			t.Errorf("%v, then Close: %v", kind, err)
		}
	}
}
