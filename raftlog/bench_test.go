package raftlog

import (
	"encoding/binary"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"go.etcd.io/raft/v3/raftpb"
)

// BenchmarkSave writes and syncs the same entries three ways on the disk of
// the test's temporary directory: through the log, as a bare pwrite+fdatasync
// of whole blocks into a file of zeros, and as a synced Pebble batch with one
// key per entry. Put the directory on the disk in question with TMPDIR, and
// compare the three within one run.
func BenchmarkSave(b *testing.B) {
	for _, c := range []struct{ entries, bytes int }{{1, 128}, {64, 128}, {1, 64 << 10}} {
		name := fmt.Sprintf("%dx%d", c.entries, c.bytes)
		b.Run(name+"/raftlog", func(b *testing.B) { measure(b, c.entries*c.bytes, logWriter(b, c.entries, c.bytes, false)) })
		b.Run(name+"/buffered", func(b *testing.B) { measure(b, c.entries*c.bytes, logWriter(b, c.entries, c.bytes, true)) })
		b.Run(name+"/pwrite", func(b *testing.B) { measure(b, c.entries*c.bytes, rawWriter(b, c.entries*c.bytes)) })
		b.Run(name+"/pebble", func(b *testing.B) { measure(b, c.entries*c.bytes, pebbleWriter(b, c.entries, c.bytes)) })
	}
}

// BenchmarkSideBySide does the same as BenchmarkSave, but takes turns, one
// write each way, and reports medians: on a machine with other things to do,
// only these can be compared.
func BenchmarkSideBySide(b *testing.B) {
	for _, c := range []struct{ entries, bytes int }{{1, 128}, {64, 128}, {1, 64 << 10}} {
		b.Run(fmt.Sprintf("%dx%d", c.entries, c.bytes), func(b *testing.B) { sideBySide(b, c.entries, c.bytes) })
	}
}

func sideBySide(b *testing.B, n, bytes int) {
	ways := []struct {
		name  string
		write func()
		took  []time.Duration
	}{
		{name: "raftlog", write: logWriter(b, n, bytes, false)},
		{name: "buffered", write: logWriter(b, n, bytes, true)},
		{name: "pwrite", write: rawWriter(b, n*bytes)},
		{name: "pebble", write: pebbleWriter(b, n, bytes)},
	}
	for b.Loop() {
		for i := range ways {
			start := time.Now()
			ways[i].write()
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

// measure runs write as a benchmark of its own.
func measure(b *testing.B, bytes int, write func()) {
	b.ReportAllocs()
	b.SetBytes(int64(bytes))
	for b.Loop() {
		write()
	}
}

func logWriter(b *testing.B, n, bytes int, buffered bool) func() {
	l, _ := mustOpen(b, Options{Dir: b.TempDir(), Buffered: buffered})
	b.Cleanup(func() { l.Close() })
	awaitDead(l)
	g, w := l.Group(1), l.NewWrite()
	hs := raftpb.HardState{Term: 1, Vote: 1, Commit: 0}
	es := entries(1, n, 1, string(make([]byte, bytes)))
	next, writes := uint64(1), 0
	return func() {
		for i := range es {
			es[i].Index = next
			next++
		}
		hs.Commit = next - 1
		w.Append(g, hs, es)
		if writes++; writes%256 == 0 {
			l.Truncate(g, next-1-uint64(n))
		}
		if err := l.Save(w, true); err != nil {
			b.Fatal(err)
		}
	}
}

func rawWriter(b *testing.B, bytes int) func() {
	path := filepath.Join(b.TempDir(), "raw")
	if err := zeroFill(vfs.Default, path, SegmentBytesDefault, true); err != nil {
		b.Fatal(err)
	}
	f, err := vfs.Default.OpenReadWrite(path, writeCategory)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { f.Close() })
	buf := make([]byte, blocks(int64(bytes+runHeaderBytes)))
	off := int64(0)
	return func() {
		if off+int64(len(buf)) > SegmentBytesDefault {
			off = 0
		}
		if _, err := f.WriteAt(buf, off); err != nil {
			b.Fatal(err)
		}
		off += int64(len(buf))
		if err := f.SyncData(); err != nil {
			b.Fatal(err)
		}
	}
}

func pebbleWriter(b *testing.B, n, bytes int) func() {
	db, err := pebble.Open(b.TempDir(), &pebble.Options{Logger: silent{}, MemTableSize: 64 << 20})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { db.Close() })
	value := make([]byte, bytes)
	var key [8]byte
	next := uint64(1)
	return func() {
		batch := db.NewBatch()
		for range n {
			binary.BigEndian.PutUint64(key[:], next)
			next++
			if err := batch.Set(key[:], value, nil); err != nil {
				b.Fatal(err)
			}
		}
		if err := batch.Commit(pebble.Sync); err != nil {
			b.Fatal(err)
		}
		if err := batch.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

type silent struct{}

func (silent) Infof(string, ...any)  {}
func (silent) Errorf(string, ...any) {}
func (silent) Fatalf(format string, args ...any) {
	panic(fmt.Sprintf(format, args...))
}

// BenchmarkReplay replays a log of 20 000 entries of 128 B in runs of 20, and
// searches the rest of its segment and the prepared one for leftovers.
func BenchmarkReplay(b *testing.B) {
	o := Options{Dir: b.TempDir()}
	l, _, err := Open(o)
	if err != nil {
		b.Fatal(err)
	}
	g, w := l.Group(1), l.NewWrite()
	for i := range uint64(1000) {
		w.Append(g, raftpb.HardState{}, entries(20*i+1, 20, 1, string(make([]byte, 128))))
		if err := l.Save(w, false); err != nil {
			b.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := Verify(o, func(string) {}); err != nil {
			b.Fatal(err)
		}
	}
}
