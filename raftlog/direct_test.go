package raftlog

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.etcd.io/raft/v3/raftpb"
)

// Entries of sizes about whole blocks go through files of the operating system,
// directly and by way of the page cache in turn, and are read back from them.
func TestDirectWrites(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	var want [][]byte
	check := func(l *Log) {
		t.Helper()
		for i, data := range want {
			es, err := l.Group(1).Entries(uint64(i+1), uint64(i+2), math.MaxUint64)
			if err != nil || !bytes.Equal(es[0].Data, data) {
				t.Fatalf("entry %d of %d: %d bytes, %v", i+1, len(want), len(data), err)
			}
		}
	}
	for round := range 6 {
		l, _ := mustOpen(t, Options{Dir: dir, SegmentBytes: SegmentBytesMin, CacheBytes: -1, Buffered: round%2 == 1})
		check(l)
		g, w := l.Group(1), l.NewWrite()
		for k := range 40 {
			data := bytes.Repeat([]byte{byte(k + 1)}, max(0, k%5*BlockBytes-100+7*k))
			want = append(want, data)
			w.Append(g, raftpb.HardState{Term: 1}, []raftpb.Entry{{Index: uint64(len(want)), Term: 1, Data: data}})
			mustSave(t, l, w, k%3 > 0)
		}
		if direct := l.active().out.direct != nil; direct != (round%2 == 0 && directHere(t, dir)) {
			t.Errorf("round %d: direct writes %v", round, direct)
		}
		check(l)
		mustClose(t, l)
	}
}

// directHere reports whether the file system takes direct writes.
func directHere(t *testing.T, dir string) bool {
	path := filepath.Join(dir, "..", "probe")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	d := openDirect(vfs.Default, path)
	if d == nil {
		return false
	}
	defer d.Close()
	_, err := d.WriteAt(alignedBytes(BlockBytes), 0)
	return err == nil
}

// A file that refuses direct writes when they come, as some file systems' do,
// is written to by way of the page cache, with nothing lost.
func TestDirectWritesRefused(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("there are no direct writes")
	}
	path := filepath.Join(t.TempDir(), "file")
	f, err := vfs.Default.OpenReadWrite(path, writeCategory)
	if err != nil {
		t.Fatal(err)
	}
	out := blockFile{file: f, direct: openDirect(vfs.Default, path)}
	if out.direct == nil {
		t.Skip("the file system takes no direct writes")
	}
	odd := bytes.Repeat([]byte("x"), 100) // no whole block, which no device takes
	if err := out.writeAt(odd, 1); err != nil || out.direct != nil {
		t.Errorf("%v, still direct: %v", err, out.direct != nil)
	}
	if err := out.writeAt(odd, 101); err != nil {
		t.Error(err)
	}
	got, err := os.ReadFile(path)
	if err != nil || string(got) != "\x00"+string(odd)+string(odd) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if err := out.close(); err != nil {
		t.Error(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

func TestAlignedBytes(t *testing.T) {
	for _, n := range []int{0, 1, BlockBytes - 1, BlockBytes, BlockBytes + 1, 1 << 20} {
		if b := alignedBytes(n); len(b) != n || cap(b) != n || !aligned(b) {
			t.Errorf("%d bytes: %d of %d, aligned %v", n, len(b), cap(b), aligned(b))
		}
	}
}

// wrappedFS is the operating system's file system with something around it.
type wrappedFS struct{ vfs.FS }

func (w wrappedFS) Unwrap() vfs.FS { return w.FS }

// TestDirectThroughWrapper has a wrapper around the file system not cost the
// direct writes.
func TestDirectThroughWrapper(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	if !directHere(t, dir) {
		t.Skip("direct writes are not supported")
	}
	l, _, err := Open(Options{Dir: dir, FS: wrappedFS{vfs.Default}, SegmentBytes: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	w := l.NewWrite()
	w.Append(l.Group(1), raftpb.HardState{Term: 1}, []raftpb.Entry{{Term: 1, Index: 1}})
	if err := l.Save(w, true); err != nil {
		t.Fatal(err)
	}
	if l.active().out.direct == nil {
		t.Error("the log is written by way of the page cache")
	}
	mustClose(t, l)
}
