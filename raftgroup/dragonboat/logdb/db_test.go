package logdb

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/raftio"
	pb "github.com/lni/dragonboat/v4/raftpb"
	lnivfs "github.com/lni/vfs"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/proa-kv/proa/internal/alloctest"
	"github.com/proa-kv/proa/raftlog"
)

func info(shard, id uint64) raftio.NodeInfo { return raftio.NodeInfo{ShardID: shard, ReplicaID: id} }

func entry(index uint64, command string) pb.Entry {
	return pb.Entry{Index: index, Term: 1, Key: index, Cmd: []byte(command)}
}

// update saves entries, with the state of a leader that has committed them.
func update(shard, id uint64, entries ...pb.Entry) pb.Update {
	return pb.Update{
		ShardID: shard, ReplicaID: id, EntriesToSave: entries,
		State: pb.State{Term: 1, Vote: id, Commit: entries[len(entries)-1].Index},
	}
}

// TestNothing reads what is not there.
func TestNothing(t *testing.T) {
	db := mustOpen(t, testOptions(vfs.NewMem()))
	defer db.mustClose(t)
	if infos, err := db.ListNodeInfo(); len(infos) > 0 || err != nil {
		t.Errorf("ListNodeInfo: %v, %v", infos, err)
	}
	if _, err := db.GetBootstrapInfo(1, 2); !errors.Is(err, raftio.ErrNoBootstrapInfo) {
		t.Errorf("GetBootstrapInfo: %v", err)
	}
	if s, err := db.GetSnapshot(1, 2); !pb.IsEmptySnapshot(s) || err != nil {
		t.Errorf("GetSnapshot: %v, %v", s, err)
	}
	if _, err := db.ReadRaftState(1, 2, 0); !errors.Is(err, raftio.ErrNoSavedLog) {
		t.Errorf("ReadRaftState: %v", err)
	}
	given := []pb.Entry{entry(7, "given")}
	if es, size, err := db.IterateEntries(given, 50, 1, 2, 8, 9, math.MaxUint64); len(es) != 1 || size != 50 || err != nil {
		t.Errorf("IterateEntries: %v, %d, %v", es, size, err)
	}
	must(t, db.RemoveEntriesTo(1, 2, 10))
	must(t, db.RemoveNodeData(1, 2))
	if c, err := db.CompactEntriesTo(1, 2, math.MaxUint64); err != nil {
		t.Errorf("CompactEntriesTo: %v", err)
	} else {
		<-c
	}
	must(t, db.SaveRaftState(nil, 1))
	must(t, db.SaveSnapshots([]pb.Update{{ShardID: 1, ReplicaID: 2}}))
	if ids := db.log.Groups(); len(ids) > 0 {
		t.Errorf("the log has groups %v", ids)
	}
}

// TestOldSnapshot ignores a snapshot that is older than the one that is known, also one
// that would have the log begin anew.
func TestOldSnapshot(t *testing.T) {
	db := mustOpen(t, testOptions(vfs.NewMem()))
	defer db.mustClose(t)
	u := update(1, 1, entry(1, "a"), entry(2, "b"), entry(3, "c"))
	must(t, db.SaveRaftState([]pb.Update{u}, 1))
	snapshot := func(index uint64) pb.Update {
		return pb.Update{ShardID: 1, ReplicaID: 1, Snapshot: pb.Snapshot{Index: index, Term: 1}}
	}
	must(t, db.SaveSnapshots([]pb.Update{snapshot(2)}))
	must(t, db.SaveSnapshots([]pb.Update{snapshot(1)}))
	must(t, db.SaveRaftState([]pb.Update{snapshot(2)}, 1))
	if s, err := db.GetSnapshot(1, 1); s.Index != 2 || err != nil {
		t.Errorf("snapshot %d, %v", s.Index, err)
	}
	if rs, err := db.ReadRaftState(1, 1, 2); rs.FirstIndex != 3 || rs.EntryCount != 1 || err != nil {
		t.Errorf("%+v, %v", rs, err)
	}
}

// TestCommitCoversSnapshot loses a commit index that was not durable yet, but not the
// snapshot behind it: dragonboat does not start from a state behind its snapshot.
func TestCommitCoversSnapshot(t *testing.T) {
	fs := vfs.NewCrashableMem()
	db := mustOpen(t, testOptions(fs))
	u := update(1, 1, entry(1, "a"), entry(2, "b"))
	u.Commit = 0
	must(t, db.SaveRaftState([]pb.Update{u}, 1))
	u = pb.Update{ShardID: 1, ReplicaID: 1, State: pb.State{Term: 1, Vote: 1, Commit: 2}}
	must(t, db.SaveRaftState([]pb.Update{u}, 1))
	lost := fs.CrashClone(vfs.CrashCloneCfg{})
	must(t, db.SaveSnapshots([]pb.Update{{ShardID: 1, ReplicaID: 1, Snapshot: pb.Snapshot{Index: 1, Term: 1}}}))
	kept := fs.CrashClone(vfs.CrashCloneCfg{})
	db.mustClose(t)
	for _, c := range []struct {
		fs     *vfs.MemFS
		last   uint64
		commit uint64
	}{{lost, 0, 0}, {kept, 1, 2}} {
		db := mustOpen(t, testOptions(c.fs))
		if rs, err := db.ReadRaftState(1, 1, c.last); rs.State.Commit != c.commit || rs.State.Term != 1 || err != nil {
			t.Errorf("%+v, %v, want commit index %d", rs, err, c.commit)
		}
		db.mustClose(t)
	}
	// As an earlier state with a later snapshot would be found.
	db = mustOpen(t, testOptions(vfs.NewMem()))
	defer db.mustClose(t)
	u = update(1, 1, entry(1, "a"), entry(2, "b"))
	u.Commit, u.Snapshot = 0, pb.Snapshot{}
	must(t, db.SaveRaftState([]pb.Update{u}, 1))
	must(t, db.SaveSnapshots([]pb.Update{{ShardID: 1, ReplicaID: 1, Snapshot: pb.Snapshot{Index: 2, Term: 1}}}))
	if rs, err := db.ReadRaftState(1, 1, 2); rs.State.Commit != 2 || err != nil {
		t.Errorf("%+v, %v", rs, err)
	}
}

// TestReplicasOfAShard keeps several replicas of a shard apart, which a node has while an
// earlier one is being removed, and uses the groups of removed ones again.
func TestReplicasOfAShard(t *testing.T) {
	o := testOptions(vfs.NewMem())
	db := mustOpen(t, o)
	for id := uint64(1); id <= 3; id++ {
		must(t, db.SaveBootstrapInfo(4, id, pb.Bootstrap{Join: true}))
		must(t, db.SaveRaftState([]pb.Update{update(4, id, entry(1, fmt.Sprint("of replica ", id)))}, 1))
	}
	must(t, db.RemoveNodeData(4, 1))
	must(t, db.SaveRaftState([]pb.Update{update(4, 9, entry(1, "of replica 9"))}, 1))
	if got, want := db.log.Groups(), []uint64{4, 4 + groupRound, 4 + 2*groupRound}; !reflect.DeepEqual(got, want) {
		t.Errorf("groups %v, want %v", got, want)
	}
	db.mustClose(t)
	db = mustOpen(t, o)
	defer db.mustClose(t)
	for _, id := range []uint64{2, 3, 9} {
		es, _, err := db.IterateEntries(nil, 0, 4, id, 1, 2, math.MaxUint64)
		if err != nil || len(es) != 1 || string(es[0].Cmd) != fmt.Sprint("of replica ", id) {
			t.Errorf("replica %d: %v, %v", id, es, err)
		}
	}
	if infos, _ := db.ListNodeInfo(); !reflect.DeepEqual(infos, []raftio.NodeInfo{info(4, 2), info(4, 3)}) {
		t.Errorf("listed: %v", infos)
	}
	if err := db.SaveBootstrapInfo(groupRound, 1, pb.Bootstrap{}); !errors.Is(err, ErrShardNumber) {
		t.Errorf("a shard that has no group: %v", err)
	}
	must(t, db.SaveBootstrapInfo(groupRound-1, 1, pb.Bootstrap{Join: true}))
}

// TestForeign refuses logs that are not dragonboat's, or contradict themselves.
func TestForeign(t *testing.T) {
	of := func(shard, id uint64) []byte { return appendMetadata(nil, info(shard, id), &metadata{}) }
	for name, c := range map[string]struct {
		metadata map[uint64][]byte
		err      error
		says     string
	}{
		"another engine's": {map[uint64][]byte{1: of(1, 1), 2: nil}, raftlog.ErrForeign, "group 2"},
		"malformed":        {map[uint64][]byte{1: {1, 1, 9}}, raftlog.ErrCorrupt, "group 1"},
		"another shard's":  {map[uint64][]byte{1: of(2, 1)}, raftlog.ErrCorrupt, "shard 2"},
		"twice":            {map[uint64][]byte{1: of(1, 1), 1 + groupRound: of(1, 1)}, raftlog.ErrCorrupt, "shard 1, replica 1"},
	} {
		l, _, err := raftlog.Open(testOptions(vfs.NewMem()))
		must(t, err)
		w := l.NewWrite()
		for number, m := range c.metadata {
			w.Append(l.Group(number), raftpb.HardState{Term: 1}, nil)
			if m != nil {
				w.SetMetadata(l.Group(number), m)
			}
		}
		must(t, l.Save(w, true))
		if _, err := New(l); !errors.Is(err, c.err) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
		must(t, l.Close())
	}
}

// TestImportUnknown refuses what Pebble's LogDB panics at.
func TestImportUnknown(t *testing.T) {
	db := mustOpen(t, testOptions(vfs.NewMem()))
	defer db.mustClose(t)
	if err := db.ImportSnapshot(pb.Snapshot{ShardID: 1, Index: 5}, 1); err == nil {
		t.Error("no error")
	}
	must(t, db.SaveRaftState([]pb.Update{update(1, 1, entry(1, "x"))}, 1))
}

// TestFactory has dragonboat's view of the names, and a LogDB that is closed.
func TestFactory(t *testing.T) {
	l, _, err := raftlog.Open(testOptions(vfs.NewMem()))
	must(t, err)
	defer l.Close()
	f := Factory{Log: l}
	db, err := f.Create(config.NodeHostConfig{}, nil, nil, nil)
	must(t, err)
	if db.Name() != f.Name() || db.BinaryFormat() != Format {
		t.Errorf("names %q and %q, format %d", db.Name(), f.Name(), db.BinaryFormat())
	}
	must(t, db.SaveBootstrapInfo(1, 1, pb.Bootstrap{Join: true}))
	must(t, db.Close())
	must(t, db.Close())
	if err := db.SaveBootstrapInfo(1, 2, pb.Bootstrap{}); !errors.Is(err, raftlog.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// TestOneSync counts: a step of all shards is one write and one fdatasync, and commit
// indexes alone are none.
func TestOneSync(t *testing.T) {
	var writes, syncs atomic.Int64
	o := testOptions(errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		switch op.Kind {
		case errorfs.OpFileWriteAt:
			writes.Add(1)
		case errorfs.OpFileSyncData:
			syncs.Add(1)
		}
		return nil
	})))
	o.SegmentBytes = 1 << 20
	db := openIdle(t, o)
	step := func(name string, wantWrites, wantSyncs int64, index uint64, change func(u *pb.Update)) {
		t.Helper()
		var updates []pb.Update
		for shard := uint64(1); shard <= 9; shard++ {
			u := update(shard, 1, entry(index, "command"))
			change(&u)
			updates = append(updates, u)
		}
		w, s := writes.Load(), syncs.Load()
		must(t, db.SaveRaftState(updates, 1))
		if w, s = writes.Load()-w, syncs.Load()-s; w != wantWrites || s != wantSyncs {
			t.Errorf("%s: %d writes and %d syncs, want %d and %d", name, w, s, wantWrites, wantSyncs)
		}
	}
	// The first run of a segment comes after a checkpoint.
	step("the first entries", 2, 1, 1, func(u *pb.Update) {})
	step("entries", 1, 1, 2, func(u *pb.Update) { u.Commit = 1 })
	step("commit indexes", 0, 0, 2, func(u *pb.Update) { u.EntriesToSave = nil })
	step("nothing new", 0, 0, 2, func(u *pb.Update) { u.EntriesToSave = nil })
	step("messages", 0, 0, 2, func(u *pb.Update) { u.EntriesToSave, u.State = nil, pb.State{} })
	step("votes", 1, 1, 2, func(u *pb.Update) { u.EntriesToSave, u.Vote = nil, 5 })
	step("terms", 1, 1, 2, func(u *pb.Update) { u.EntriesToSave, u.Term = nil, 2 })
	step("a snapshot", 1, 1, 2, func(u *pb.Update) {
		u.EntriesToSave, u.Term, u.Commit = nil, 2, 7
		u.Snapshot = pb.Snapshot{Index: 7, Term: 2}
	})
	db.mustClose(t)
}

// TestAllocations: a step allocates the data of each shard's entries and nothing else.
func TestAllocations(t *testing.T) {
	step, done := stepper(t, raftlog.Options{Dir: t.TempDir()}, 8, 4)
	defer done()
	for range 50 {
		step()
	}
	if n := alloctest.Least(100, 8, step); n > 8 {
		t.Errorf("%v allocations, want 8", n)
	}
}

// BenchmarkSaveRaftState saves a step of eight shards with one, four and 64 entries of
// 128 B each.
func BenchmarkSaveRaftState(b *testing.B) {
	for _, entries := range []int{1, 4, 64} {
		b.Run(fmt.Sprintf("8x%d", entries), func(b *testing.B) {
			step, done := stepper(b, raftlog.Options{Dir: b.TempDir()}, 8, entries)
			defer done()
			b.ReportAllocs()
			for b.Loop() {
				step()
			}
		})
	}
}

// BenchmarkSideBySide saves the same steps with our LogDB and dragonboat's own, in turns,
// and reports medians and 99th percentiles: on a machine with other things to do, only
// these can be compared.
func BenchmarkSideBySide(b *testing.B) {
	for _, entries := range []int{1, 16} {
		b.Run(fmt.Sprintf("8x%d", entries), func(b *testing.B) { sideBySide(b, entries) })
	}
}

func sideBySide(b *testing.B, entries int) {
	ours := mustOpen(b, raftlog.Options{Dir: b.TempDir()})
	defer ours.mustClose(b)
	tan, pebble := openTheirs(b, lnivfs.Default, b.TempDir())
	defer tan.Close()
	defer pebble.Close()
	ways := []struct {
		name string
		step func()
		took []time.Duration
	}{
		{name: "raftlog", step: steps(b, ours, 8, entries)},
		{name: "pebble", step: steps(b, pebble, 8, entries)},
		{name: "tan", step: steps(b, tan, 8, entries)},
	}
	for b.Loop() {
		for i := range ways {
			start := time.Now()
			ways[i].step()
			ways[i].took = append(ways[i].took, time.Since(start))
		}
	}
	b.ReportMetric(0, "ns/op")
	for _, w := range ways {
		slices.Sort(w.took)
		b.ReportMetric(float64(w.took[len(w.took)/2].Nanoseconds())/1000, w.name+"-p50-µs")
		b.ReportMetric(float64(w.took[len(w.took)*99/100].Nanoseconds())/1000, w.name+"-p99-µs")
	}
}

func stepper(t testing.TB, o raftlog.Options, shards, entries int) (step, done func()) {
	db := mustOpen(t, o)
	return steps(t, db, shards, entries), func() { db.mustClose(t) }
}

// steps returns what saves a step of some shards, with as many new entries each.
func steps(t testing.TB, db raftio.ILogDB, shards, entries int) func() {
	updates := make([]pb.Update, shards)
	for i := range updates {
		updates[i] = update(uint64(i+1), 1, make([]pb.Entry, entries)...)
		for j := range updates[i].EntriesToSave {
			updates[i].EntriesToSave[j] = entry(0, strings.Repeat("x", 128))
			updates[i].EntriesToSave[j].ClientID = math.MaxUint64
		}
	}
	index, saved := uint64(0), 0
	return func() {
		for i := range updates {
			u := &updates[i]
			for j := range u.EntriesToSave {
				u.EntriesToSave[j].Index = index + uint64(j) + 1
			}
			u.Commit = index
		}
		index += uint64(entries)
		if err := db.SaveRaftState(updates, 1); err != nil {
			t.Fatal(err)
		}
		if saved++; saved%64 == 0 {
			for i := range updates {
				if err := db.RemoveEntriesTo(uint64(i+1), 1, index-1); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}
