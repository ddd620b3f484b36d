package logdb

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	pb "github.com/lni/dragonboat/v4/raftpb"

	"github.com/proa-kv/proa/raftlog"
)

// past is what a DB was told, call by call. After a crash it must be in one of the states
// from the last one that was durable on.
type past struct {
	states  []model // as each call was to make it
	durable int     // index into states
}

// find returns the newest state that db is in, or why it is in none.
func (p past) find(t testing.TB, db *DB) (m model, difference string) {
	for i := len(p.states) - 1; i >= p.durable; i-- {
		found := survivor(p.states[i], db)
		if difference = compare(t, db, found); difference == "" {
			return found, ""
		}
	}
	return nil, difference
}

// survivor is m with the commit indexes that db has, as far as they may be lost: they are
// not above those of m, and not below what a snapshot covers.
func survivor(m model, db *DB) model {
	m = m.clone()
	for info, r := range m {
		found, _ := db.shown(info.ShardID, info.ReplicaID)
		if !pb.IsEmptyState(r.state) && found.state.Commit <= r.state.Commit {
			r.state.Commit = max(found.state.Commit, r.snapshot.Index)
		}
	}
	return m
}

// TestCrashEverywhere takes the power away before every single operation on the file
// system, and looks at each remainder.
func TestCrashEverywhere(t *testing.T) {
	type remainder struct {
		fs   *vfs.MemFS
		op   string
		past past
	}
	var (
		mu         sync.Mutex
		remainders []remainder
		p          past
	)
	calls := 50
	if testing.Short() {
		calls = 15
	}
	fs := vfs.NewCrashableMem()
	loss := rand.New(rand.NewPCG(3, 4)) // guarded by mu
	o := testOptions(errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsRead {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		for _, percent := range []int{0, 50, 100} {
			remainders = append(remainders, remainder{
				fs:   fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: loss}),
				op:   fmt.Sprintf("%v %s %d, %d%%", op.Kind, op.Path, op.Offset, percent),
				past: past{p.states[:len(p.states):len(p.states)], p.durable},
			})
		}
		return nil
	})))
	o.SegmentBytes = raftlog.SegmentBytesMin
	p.states = []model{{}}
	h := newHistory(rand.New(rand.NewPCG(1, 2)))
	for range 2 {
		db := mustOpen(t, o)
		for range calls {
			before := h.m.clone()
			c := h.next()
			mu.Lock()
			p.states = append(p.states, h.m.clone())
			mu.Unlock()
			due := !maps.Equal(before.withoutCommits().describe(), h.m.withoutCommits().describe())
			position := db.log.Position()
			must(t, c.do(db))
			if synced := db.log.Position() != position; synced != due {
				t.Fatalf("%s: synced is %v, want %v", c.name, synced, due)
			}
			if due {
				mu.Lock()
				p.durable = len(p.states) - 1
				mu.Unlock()
			}
			check(t, db, h.m)
		}
		db.mustClose(t)
	}
	t.Logf("%d remainders", len(remainders))
	for _, r := range remainders {
		o.FS = r.fs
		db := mustOpen(t, o)
		found, difference := r.past.find(t, db.DB)
		if difference != "" {
			t.Fatalf("after a crash before %s: %s", r.op, difference)
		}
		// It goes on.
		after := &history{rand: rand.New(rand.NewPCG(5, 6)), m: found.clone()}
		for info := range found {
			after.replicas[info.ShardID-1] = max(after.replicas[info.ShardID-1], info.ReplicaID)
		}
		for range 5 {
			must(t, after.next().do(db))
		}
		check(t, db, after.m)
		db.mustClose(t)
	}
}

// TestFlips turns bits over all over the log of a node that was stopped: what is damaged is
// said to be, or does not matter.
func TestFlips(t *testing.T) {
	fs := vfs.NewMem()
	o := testOptions(fs)
	db := mustOpen(t, o)
	h := newHistory(rand.New(rand.NewPCG(7, 8)))
	for range 25 {
		must(t, h.next().do(db))
	}
	db.mustClose(t)
	names, err := fs.List(testDir)
	must(t, err)
	flips, found := 0, 0
	for _, name := range names {
		path := testDir + "/" + name
		if !strings.HasSuffix(name, ".seg") {
			continue
		}
		content := contentOf(t, fs, path)
		for at := 0; at < len(content); at += 1499 {
			content[at] ^= 1 << (at % 8)
			damaged := vfs.NewMem()
			must(t, damaged.MkdirAll(testDir, 0o755))
			for _, other := range names {
				p := content
				if other != name {
					p = contentOf(t, fs, testDir+"/"+other)
				}
				write(t, damaged, testDir+"/"+other, p)
			}
			content[at] ^= 1 << (at % 8)
			flips++
			l, _, err := raftlog.Open(testOptions(damaged))
			if verr := raftlog.Verify(testOptions(damaged), func(string) {}); (err == nil) != (verr == nil) && err != nil {
				t.Fatalf("%s, byte %d: opening says %v, verification %v", name, at, err, verr)
			}
			if err != nil {
				if !errors.Is(err, raftlog.ErrCorrupt) && !errors.Is(err, raftlog.ErrVersion) {
					t.Fatalf("%s, byte %d: %v", name, at, err)
				}
				found++
				continue
			}
			d, err := New(l)
			must(t, err)
			check(t, d, h.m)
			must(t, l.Close())
		}
	}
	if t.Logf("%d bits turned over, %d found", flips, found); found < flips/10 {
		t.Error("too few matter")
	}
}

func contentOf(t testing.TB, fs vfs.FS, path string) []byte {
	t.Helper()
	f, err := fs.Open(path)
	must(t, err)
	defer f.Close()
	info, err := f.Stat()
	must(t, err)
	p := make([]byte, info.Size())
	if len(p) > 0 {
		_, err = f.ReadAt(p, 0)
		must(t, err)
	}
	return p
}

func write(t testing.TB, fs vfs.FS, path string, p []byte) {
	t.Helper()
	f, err := fs.Create(path, "test")
	must(t, err)
	_, err = f.Write(slices.Clone(p))
	must(t, err)
	must(t, f.Close())
}

// TestDamagedRead damages an entry of a log that is open: who reads it is told, and nothing
// is saved any more.
func TestDamagedRead(t *testing.T) {
	fs := vfs.NewMem()
	o := testOptions(fs)
	o.CacheBytes = -1
	db := mustOpen(t, o)
	defer db.log.Close()
	must(t, db.SaveRaftState([]pb.Update{update(1, 1, entry(1, "first"), entry(2, "second, to be found in the file"))}, 1))
	names, err := fs.List(testDir)
	must(t, err)
	for _, name := range names {
		p := contentOf(t, fs, testDir+"/"+name)
		if at := strings.Index(string(p), "to be found"); at >= 0 {
			f, err := fs.OpenReadWrite(testDir+"/"+name, "test")
			must(t, err)
			_, err = f.WriteAt([]byte{'T'}, int64(at))
			must(t, err)
			must(t, f.Close())
		}
	}
	if es, _, err := db.IterateEntries(nil, 0, 1, 1, 1, 3, 1); err != nil || len(es) != 1 {
		t.Errorf("the intact entry: %v, %v", es, err)
	}
	if es, _, err := db.IterateEntries(nil, 0, 1, 1, 1, 3, 1000); !errors.Is(err, raftlog.ErrCorrupt) {
		t.Errorf("the damaged entry: %v, %v", es, err)
	}
	for range 2 {
		if err := db.SaveRaftState([]pb.Update{update(1, 1, entry(3, "third"))}, 1); !errors.Is(err, raftlog.ErrCorrupt) {
			t.Errorf("saving afterwards: %v", err)
		}
	}
	must(t, db.Close())
}

// TestFailedSync has an fdatasync fail: that call says so and shows nothing, and so does
// every later one, though the disk works again.
func TestFailedSync(t *testing.T) {
	var armed atomic.Bool
	fs := vfs.NewCrashableMem()
	db := openIdle(t, testOptions(errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileSyncData && armed.Load() {
			return syscall.EIO
		}
		return nil
	}))))
	must(t, db.SaveBootstrapInfo(1, 1, pb.Bootstrap{Join: true}))
	safe := update(1, 1, entry(1, "safe"))
	must(t, db.SaveRaftState([]pb.Update{safe}, 1))
	armed.Store(true)
	unknown := update(1, 1, entry(2, "unknown"))
	unknown.Term = 2
	if err := db.SaveRaftState([]pb.Update{unknown}, 1); !errors.Is(err, syscall.EIO) {
		t.Fatalf("SaveRaftState: %v", err)
	}
	armed.Store(false)
	if err := db.SaveSnapshots([]pb.Update{{ShardID: 1, ReplicaID: 1, Snapshot: pb.Snapshot{Index: 1}}}); !errors.Is(err, syscall.EIO) {
		t.Errorf("SaveSnapshots: %v", err)
	}
	m := model{info(1, 1): {bootstrap: &pb.Bootstrap{Join: true}, state: safe.State, entries: safe.EntriesToSave}}
	m[info(1, 1)].bootstrap.Addresses = map[uint64]string{}
	check(t, db, m)
	must(t, db.Close())
	if err := db.log.Close(); !errors.Is(err, syscall.EIO) {
		t.Errorf("closing the log: %v", err)
	}
	db = mustOpen(t, testOptions(fs.CrashClone(vfs.CrashCloneCfg{})))
	defer db.mustClose(t)
	check(t, db, m)
}
