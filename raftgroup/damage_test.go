package raftgroup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/proa-kv/proa/internal/leaktest"
	"github.com/proa-kv/proa/raftgroup/datadir"
	"github.com/proa-kv/proa/raftgroup/placement"
	"github.com/proa-kv/proa/raftlog"
)

// loseTail overwrites the log in f with zeros, from the write on that holds
// value to the end of that segment: as if nothing had been written there.
func loseTail(t *testing.T, f vfs.FS, value string) {
	t.Helper()
	names, err := f.List(dir + "/" + datadir.LogDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		path := f.PathJoin(dir, datadir.LogDir, name)
		if !strings.HasSuffix(name, ".seg") {
			continue
		}
		p := readAll(t, f, path)
		at := bytes.Index(p, []byte(value))
		if at < 0 {
			continue
		}
		clear(p[at&^(raftlog.BlockBytes-1):])
		writeAll(t, f, path, p)
		return
	}
	t.Fatalf("no log segment holds %q", value)
}

// TestLostTail loses the end of the log of a node alone, which held
// acknowledged writes: the node must not start as if they had never been, and
// must say what is gone. When its operator gives them up, it goes on with what
// its log and its state still have.
func TestLostTail(t *testing.T) { onEngines(t, testLostTail) }

func testLostTail(t *testing.T, e placement.Engine) {
	for _, c := range []struct {
		name   string
		close  bool // the node is stopped in order, else it crashes
		flush  int  // the state is durable with so many of the rows
		wantOK int  // rows that are there when the rest is given up
	}{
		{"crash", false, 0, 3},
		{"state knows a part", false, 5, 5},
		{"state is behind", false, 2, 3},
		{"stopped", true, 10, 10},
	} {
		if testing.Short() && c.flush != 0 && !c.close {
			continue
		}
		t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) {
			f := vfs.NewCrashableMem()
			n := memNode(t, f, Options{Engine: e.String(), Shards: 2})
			for i := range 10 {
				mustPut(t, n, fmt.Sprint("k", i), fmt.Sprint("value ", i))
				if i+1 == c.flush {
					if err := n.store.Flush(); err != nil {
						t.Fatal(err)
					}
				}
			}
			if err := n.log.RecordSynced(); err != nil {
				t.Fatal(err)
			}
			if c.close {
				closeNode(t, n)
			}
			f = f.CrashClone(vfs.CrashCloneCfg{})
			loseTail(t, f, "value 3")
			for range 2 {
				_, err := openMem(f, Options{Engine: e.String()})
				if !errors.Is(err, raftlog.ErrCorrupt) {
					t.Fatalf("Open: %v", err)
				}
				for _, part := range []string{"of shard 0", "of shard 1", "proa verify", "backup", "--cut-log", "join again", ".seg at byte"} {
					if !strings.Contains(err.Error(), part) {
						t.Errorf("%q is missing in %v", part, err)
					}
				}
			}
			if err := datadir.Verify(f, dir, func(string) {}); !errors.Is(err, raftlog.ErrCorrupt) {
				t.Errorf("verify: %v", err)
			}
			if _, err := datadir.Recover(datadir.RecoverOptions{FS: f, Dir: dir}); !errors.Is(err, raftlog.ErrCorrupt) {
				t.Errorf("recovered without the word: %v", err)
			}
			if _, err := datadir.Recover(datadir.RecoverOptions{FS: f, Dir: dir, CutLog: true}); err != nil {
				t.Fatal(err)
			}
			again := memNode(t, f, Options{Engine: e.String()})
			for i := range 10 {
				want := fmt.Sprint("value ", i)
				if v, ok := read(t, again, fmt.Sprint("k", i)); ok != (i < c.wantOK) || (ok && v != want) {
					t.Errorf("row %d: %q, %v", i, v, ok)
				}
			}
			mustPut(t, again, "new", "row")
			closeNode(t, again)
			if err := datadir.Verify(f, dir, func(string) {}); err != nil {
				t.Errorf("verify afterwards: %v", err)
			}
			again = memNode(t, f, Options{Engine: e.String()})
			if v, _ := read(t, again, "new"); v != "row" {
				t.Errorf("found %q", v)
			}
		})
	}
}

// TestTornTail loses the same, but for the record of it: a write that nobody
// can know to have been acknowledged is dropped, as a crash would have it.
func TestTornTail(t *testing.T) { onEngines(t, testTornTail) }

func testTornTail(t *testing.T, e placement.Engine) {
	f := vfs.NewCrashableMem()
	n := memNode(t, f, Options{Engine: e.String(), Shards: 2})
	for i := range 4 {
		mustPut(t, n, fmt.Sprint("k", i), fmt.Sprint("value ", i))
		if i == 2 {
			if err := n.log.RecordSynced(); err != nil {
				t.Fatal(err)
			}
		}
	}
	f = f.CrashClone(vfs.CrashCloneCfg{})
	loseTail(t, f, "value 3")
	if err := datadir.Verify(f, dir, func(string) {}); err != nil {
		t.Errorf("verify: %v", err)
	}
	again := memNode(t, f, Options{Engine: e.String()})
	for i := range 4 {
		if _, ok := read(t, again, fmt.Sprint("k", i)); ok != (i < 3) {
			t.Errorf("row %d: %v", i, ok)
		}
	}
}

// TestForeignLog puts the log of another node where a node's own was.
func TestForeignLog(t *testing.T) { onEngines(t, testForeignLog) }

func testForeignLog(t *testing.T, e placement.Engine) {
	mine, other := vfs.NewMem(), vfs.NewMem()
	for _, f := range []vfs.FS{mine, other} {
		n := memNode(t, f, Options{Engine: e.String(), Shards: 2})
		mustPut(t, n, "k", "v")
		closeNode(t, n)
	}
	if err := mine.RemoveAll(dir + "/" + datadir.LogDir); err != nil {
		t.Fatal(err)
	}
	if _, err := vfs.Clone(other, mine, dir+"/"+datadir.LogDir, dir+"/"+datadir.LogDir); err != nil {
		t.Fatal(err)
	}
	if _, err := openMem(mine, Options{Engine: e.String()}); !errors.Is(err, datadir.ErrBadDirectory) || !strings.Contains(err.Error(), "another node") {
		t.Errorf("Open: %v", err)
	}
	if err := datadir.Verify(mine, dir, func(string) {}); !errors.Is(err, datadir.ErrBadDirectory) {
		t.Errorf("verify: %v", err)
	}
}

// TestLogMissing removes the log of a directory that has begun one.
func TestLogMissing(t *testing.T) { onEngines(t, testLogMissing) }

func testLogMissing(t *testing.T, e placement.Engine) {
	for _, name := range []string{"SYNCED", ""} {
		f := vfs.NewMem()
		n := memNode(t, f, Options{Engine: e.String(), Shards: 2})
		mustPut(t, n, "k", "v")
		closeNode(t, n)
		if err := f.RemoveAll(f.PathJoin(dir, datadir.LogDir, name)); err != nil {
			t.Fatal(err)
		}
		if _, err := openMem(f, Options{Engine: e.String()}); !errors.Is(err, raftlog.ErrCorrupt) && !errors.Is(err, datadir.ErrLogMissing) {
			t.Errorf("without raft/%s: %v", name, err)
		}
	}
}

// TestSyncedIsRecorded has a node that runs record how far its log is synced,
// by itself.
func TestSyncedIsRecorded(t *testing.T) { onEngines(t, testSyncedIsRecorded) }

func testSyncedIsRecorded(t *testing.T, e placement.Engine) {
	recorded := make(chan struct{}, 100)
	var started atomic.Bool
	f := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileSyncData && strings.HasPrefix(path.Base(op.Path), "SYNCED") && started.Load() {
			recorded <- struct{}{}
		}
		return nil
	}))
	n := memNode(t, f, Options{Engine: e.String(), Shards: 2})
	mustPut(t, n, "k", "v")
	started.Store(true)
	n.Start(nil)
	<-recorded
}

// TestStartSurvivesEveryFailure lets each operation on the file system fail in
// turn while a directory is made, and while one with rows is opened again: the
// node does not start, or does without, but never panics; and when the disk is
// well again everything is there.
func TestStartSurvivesEveryFailure(t *testing.T) {
	onEngines(t, testStartSurvivesEveryFailure, StopsInOrder)
}

func testStartSurvivesEveryFailure(t *testing.T, e placement.Engine) {
	if !leaktest.InOwnProcess(t) {
		return
	}
	all := vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 2))}
	filled := vfs.NewCrashableMem()
	n := memNode(t, filled, Options{Engine: e.String(), Shards: 2})
	mustPut(t, n, "k", "v")
	if err := n.store.Flush(); err != nil {
		t.Fatal(err)
	}
	mustPut(t, n, "l", "w") // to be replayed
	killed := filled.CrashClone(all)
	closeNode(t, n)
	step := int32(3) // the packages below try each operation
	if testing.Short() {
		step = 17
	}
	for name, fs := range map[string]*vfs.MemFS{"new": vfs.NewCrashableMem(), "killed": killed} {
		for _, broken := range []error{syscall.EIO, syscall.ENOSPC} {
			refused := 0
			for at := int32(0); ; at += step {
				mem := fs.CrashClone(all)
				var count atomic.Int32
				n, err := openMem(errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
					full := errors.Is(broken, syscall.ENOSPC)
					if full && op.Kind.ReadOrWrite() == errorfs.OpIsRead {
						return nil
					}
					if i := count.Add(1) - 1; i == at || (i > at && full) {
						return broken
					}
					return nil
				})), Options{Engine: e.String(), Shards: 2})
				reached := count.Load() > at
				if err == nil {
					_ = n.Close(context.Background())
				} else if refused++; !errors.Is(err, broken) {
					t.Errorf("%s, %v of operation %d: %v", name, broken, at, err)
				} else if errors.Is(err, syscall.ENOSPC) && !strings.Contains(err.Error(), "is full") {
					t.Errorf("%s, operation %d: %v", name, at, err)
				}
				after, err := openMem(mem.CrashClone(all), Options{Engine: e.String()})
				if err != nil {
					t.Fatalf("%s, after %v of operation %d: %v", name, broken, at, err)
				}
				if fs == killed {
					for key, want := range map[string]string{"k": "v", "l": "w"} {
						if v, _ := read(t, after, key); v != want {
							t.Fatalf("after %v of operation %d, %q is %q", broken, at, key, v)
						}
					}
				}
				closeNode(t, after)
				if !reached {
					break
				}
			}
			if refused == 0 {
				t.Errorf("%s, %v: no start was refused", name, broken)
			}
		}
	}
}

// TestStateKnowsItsOwner has proa.json, whose checksum is right, say other
// things than the state, and the state be another node's or gone: neither a
// start nor verify may go by either of them.
func TestStateKnowsItsOwner(t *testing.T) { onEngines(t, testStateKnowsItsOwner) }

func testStateKnowsItsOwner(t *testing.T, e placement.Engine) {
	for name, spoil := range map[string]func(t *testing.T, f vfs.FS, id datadir.Identity){
		"more shards":     func(t *testing.T, f vfs.FS, id datadir.Identity) { id.Shards++; rewrite(t, f, id) },
		"fewer shards":    func(t *testing.T, f vfs.FS, id datadir.Identity) { id.Shards--; rewrite(t, f, id) },
		"another node":    func(t *testing.T, f vfs.FS, id datadir.Identity) { id.Node++; rewrite(t, f, id) },
		"another cluster": func(t *testing.T, f vfs.FS, id datadir.Identity) { id.Cluster++; rewrite(t, f, id) },
		"another uid":     func(t *testing.T, f vfs.FS, id datadir.Identity) { id.UID++; rewrite(t, f, id) },
		"another state": func(t *testing.T, f vfs.FS, _ datadir.Identity) {
			other := vfs.NewMem()
			closeNode(t, memNode(t, other, Options{Engine: e.String(), Shards: 4}))
			if err := f.RemoveAll(dir + "/" + datadir.StateDir); err != nil {
				t.Fatal(err)
			}
			if _, err := vfs.Clone(other, f, dir+"/"+datadir.StateDir, dir+"/"+datadir.StateDir); err != nil {
				t.Fatal(err)
			}
		},
		"no state": func(t *testing.T, f vfs.FS, _ datadir.Identity) {
			if err := f.RemoveAll(dir + "/" + datadir.StateDir); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			f := vfs.NewMem()
			n := memNode(t, f, Options{Engine: e.String(), Shards: 4})
			mustPut(t, n, "k", "v")
			id := n.Identity()
			closeNode(t, n)
			spoil(t, f, id)
			if err := datadir.Verify(f, dir, func(string) {}); err == nil {
				t.Error("verify finds nothing")
			}
			if _, err := openMem(f, Options{Engine: e.String()}); err == nil || !strings.Contains(err.Error(), "backup") {
				t.Errorf("Open: %v", err)
			}
		})
	}
}

func rewrite(t *testing.T, f vfs.FS, id datadir.Identity) {
	t.Helper()
	if err := id.Write(f, dir); err != nil {
		t.Fatal(err)
	}
}

// TestUnreadableEntries opens a node whose disk fails when the entries that are to
// be carried out again are read: Raft panics then, and the node says why it does
// not start.
func TestUnreadableEntries(t *testing.T) { onEngines(t, testUnreadableEntries, StopsInOrder) }

func testUnreadableEntries(t *testing.T, e placement.Engine) {
	mem := vfs.NewCrashableMem()
	n := memNode(t, mem, Options{Engine: e.String(), Shards: 2})
	mustPut(t, n, "k", "v")
	killed := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 2))})
	closeNode(t, n)
	reads := 0
	for at := 0; ; at++ { // the first of them look for where the log ends
		count := 0
		n, err := openMem(errorfs.Wrap(killed.CrashClone(vfs.CrashCloneCfg{}), errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind != errorfs.OpFileReadAt || path.Ext(op.Path) != ".seg" {
				return nil
			}
			if count++; count > at {
				return syscall.EIO
			}
			return nil
		})), Options{Engine: e.String(), Shards: 2, LogCacheBytes: 1})
		if count <= at {
			closeNode(t, n)
			break
		}
		if reads++; !errors.Is(err, syscall.EIO) {
			t.Errorf("read %d fails: %v", at, err)
		}
	}
	t.Logf("%d reads", reads)
}
