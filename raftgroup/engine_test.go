package raftgroup

import (
	"errors"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/proa-kv/proa/raftgroup/datadir"
	"github.com/proa-kv/proa/raftgroup/placement"
	"github.com/proa-kv/proa/raftlog"
)

// A node opens the engine of its directory, and no other one.
func TestEngineIsTheDirectorys(t *testing.T) {
	f := vfs.NewMem()
	n := memNode(t, f, Options{Shards: 2})
	mustPut(t, n, "k", "v")
	if s, c := n.Status(), n.ClusterStatus(); s.Engine != "etcd" || c.Engine != "etcd" {
		t.Errorf("engine %q in the node's status, %q in the cluster's", s.Engine, c.Engine)
	}
	closeNode(t, n)
	if _, err := openMem(f, Options{Engine: "dragonboat"}); !errors.Is(err, datadir.ErrOtherEngine) || !strings.Contains(err.Error(), "leave raft.engine out or set it to etcd") {
		t.Errorf("another engine: %v", err)
	}
	if _, err := openMem(vfs.NewMem(), Options{Engine: "etcdraft"}); err == nil || !strings.Contains(err.Error(), `no engine "etcdraft"`) {
		t.Errorf("an unknown engine: %v", err)
	}
	again := memNode(t, f, Options{Engine: "etcd"})
	if v, _ := read(t, again, "k"); v != "v" {
		t.Errorf("found %q", v)
	}
}

// TestLogOfAnotherEngine starts on a log in which another engine has written groups: what is in
// them cannot be told.
func TestLogOfAnotherEngine(t *testing.T) {
	f := vfs.NewMem()
	n := memNode(t, f, Options{Shards: 2})
	mustPut(t, n, "k", "v")
	id := n.Identity()
	closeNode(t, n)
	l, _, err := raftlog.Open(id.LogOptions(f, dir))
	must(t, err)
	w := l.NewWrite()
	w.SetMetadata(l.Group(1), []byte{1, 1, 0, 0})
	must(t, l.Save(w, true))
	must(t, l.Close())
	_, err = openMem(f, Options{})
	if !errors.Is(err, raftlog.ErrForeign) || !errors.Is(err, datadir.ErrBadDirectory) {
		t.Fatalf("the node starts: %v", err)
	}
	for _, says := range []string{"the engine is etcd", "group 1 has metadata", "restore the matching files", "join again as a new node"} {
		if !strings.Contains(err.Error(), says) {
			t.Errorf("%v; want %q in it", err, says)
		}
	}
}

// TestDirectoryOfDragonboat has the directory of a node with dragonboat verified, damaged in
// each of its parts that are dragonboat's, and opened again.
func TestDirectoryOfDragonboat(t *testing.T) {
	f := vfs.NewCrashableMem()
	n := memNode(t, f, Options{Shards: 2, Engine: "dragonboat"})
	mustPut(t, n, "k", "v")
	if s, c := n.Status(), n.ClusterStatus(); s.Engine != "dragonboat" || c.Engine != "dragonboat" {
		t.Errorf("engine %q in the node's status, %q in the cluster's", s.Engine, c.Engine)
	}
	id := n.Identity()
	closeNode(t, n)
	verify := func() (string, error) {
		var report []string
		err := datadir.Verify(f, dir, func(line string) { report = append(report, line) })
		return strings.Join(report, "\n"), err
	}
	report, err := verify()
	must(t, err)
	for _, says := range []string{"2 shards, engine dragonboat", "shard 0: state at entry", "shard 1: state at entry", "shard meta: state at entry", ", 0 to replay"} {
		if !strings.Contains(report, says) {
			t.Errorf("%q is missing in\n%s", says, report)
		}
	}
	if _, err := openMem(f, Options{Engine: "etcd"}); !errors.Is(err, datadir.ErrOtherEngine) || !strings.Contains(err.Error(), "leave raft.engine out or set it to dragonboat") {
		t.Errorf("another engine: %v", err)
	}
	for _, name := range []string{"dragonboat.ds", "NODEHOST.ID"} {
		path := f.PathJoin(dir, datadir.EngineDir, name)
		intact := readAll(t, f, path)
		writeAll(t, f, path, append([]byte("x"), intact...))
		for doing, err := range map[string]error{"start": openError(f), "verify": second(verify())} {
			if err == nil || !strings.Contains(err.Error(), "damaged file: "+path) || !strings.Contains(err.Error(), "remove it, and start again") {
				t.Errorf("%s with a damaged %s: %v", doing, name, err)
			}
		}
		must(t, f.Remove(path))
		closeNode(t, memNode(t, f, Options{})) // makes it again
		must(t, second(verify()))
	}
	for name, c := range map[string]struct {
		write func(*raftlog.Log, *raftlog.Write)
		err   error
		says  string
	}{
		"damaged": {func(l *raftlog.Log, w *raftlog.Write) { w.SetMetadata(l.Group(1), []byte{9}) }, raftlog.ErrCorrupt, "metadata of group 1"},
		"deleted": {func(l *raftlog.Log, w *raftlog.Write) {
			w.Remove(l.Group(1))
			w.Append(l.Group(1), raftpb.HardState{Term: 1}, nil)
		}, raftlog.ErrForeign, "group 1 has no metadata"},
		"gone with the group": {func(l *raftlog.Log, w *raftlog.Write) { w.Remove(l.Group(1)) }, nil, "the state is at entry"},
	} {
		intact := f.CrashClone(vfs.CrashCloneCfg{})
		l, _, err := raftlog.Open(id.LogOptions(f, dir))
		must(t, err)
		w := l.NewWrite()
		c.write(l, w)
		must(t, l.Save(w, true))
		must(t, l.Close())
		for doing, err := range map[string]error{"start": openError(f), "verify": second(verify())} {
			if err == nil || c.err != nil && !errors.Is(err, c.err) || !strings.Contains(err.Error(), "join again as a new node") || strings.Contains(err.Error(), "--cut-log") || doing == "verify" && !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s, metadata %s: %v", doing, name, err)
			}
		}
		f = intact
	}
	again := memNode(t, f, Options{})
	if v, _ := read(t, again, "k"); v != "v" {
		t.Errorf("found %q", v)
	}
}

func openError(f vfs.FS) error { return second(openMem(f, Options{})) }

func second[T any](_ T, err error) error { return err }

// A map that says another engine than the directory is another cluster's.
func TestMapOfAnotherEngine(t *testing.T) {
	n := memNode(t, vfs.NewMem(), Options{Shards: 2})
	n.Start(nil)
	must(t, n.await(t.Context(), func() bool { return n.cmap.Load().Begun() }))
	_ = n.changeMeta(t.Context(), func(m *placement.Map) (placement.Change, error) {
		row := m.Cluster
		row.Engine = placement.Dragonboat
		return placement.Change{Key: "cluster", Row: row}, nil
	}) // the node ends while the change is carried out
	if err := <-n.Failure(); !errors.Is(err, datadir.ErrBadDirectory) || !strings.Contains(err.Error(), "its engine is etcd, but the cluster map in state/ says dragonboat; restore the matching files") {
		t.Errorf("the node stopped: %v", err)
	}
}
