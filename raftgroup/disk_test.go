package raftgroup

import (
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/proa-kv/proa/raftgroup/engine"
	"github.com/proa-kv/proa/raftgroup/placement"
)

// TestLogGivesRoomUp fills the disk while the log holds many segments, and the
// state machine little: it is flushed, and the segments are used again, on a
// node that keeps entries for followers, too, and on one that is opened on the
// full disk.
func TestLogGivesRoomUp(t *testing.T) { onEngines(t, testLogGivesRoomUp, CutsWhenFull) }

func testLogGivesRoomUp(t *testing.T, e placement.Engine) {
	for _, name := range []string{"alone", "keeps entries for followers", "opened when full"} {
		t.Run(name, func(t *testing.T) {
			mem := vfs.NewCrashableMem()
			var full atomic.Bool
			wrap := func(fs vfs.FS) vfs.FS {
				return errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
					if full.Load() && op.Kind == errorfs.OpFilePreallocate {
						return syscall.ENOSPC
					}
					return nil
				}))
			}
			open := func(fs vfs.FS) *Node {
				n, err := Open(Options{Engine: e.String(), FS: wrap(fs), Dir: dir, Shards: 2, SegmentBytes: 1 << 20, MemtableBytes: 64 << 20,
					RowCacheBytes: 1 << 20, BlockCacheBytes: 1 << 20})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { closeNode(t, n) })
				drive := n.runAll // a write that is short of room needs a pass; nobody starts the node
				n.drive.Store(&drive)
				return n
			}
			rows := 0
			value := strings.Repeat("v", 20<<10)
			fill := func(n *Node, count int) {
				for range count {
					mustPut(t, n, fmt.Sprint("k", rows), fmt.Sprint(rows, value))
					rows++
				}
			}
			n := open(mem)
			fill(n, 200)
			if size := n.log.SizeBytes(); size < 3<<20 {
				t.Fatalf("the log has only %d bytes", size)
			}
			full.Store(true)
			switch name {
			case "keeps entries for followers":
				n.state.Clear(engine.Alone)
			case "opened when full":
				mem = mem.CrashClone(vfs.CrashCloneCfg{})
				closeNode(t, n)
				n = open(mem)
			}
			fill(n, 400)
			if n.state.Is(engine.Failed) {
				t.Fatal("the node has stopped")
			}
			if size := n.log.SizeBytes(); size > 6<<20 {
				t.Errorf("the log has %d bytes", size)
			}
			closeNode(t, n)
			n = open(mem)
			for i := range rows {
				if v, _ := read(t, n, fmt.Sprint("k", i)); v != fmt.Sprint(i, value) {
					t.Fatalf("row %d is lost", i)
				}
			}
		})
	}
}
