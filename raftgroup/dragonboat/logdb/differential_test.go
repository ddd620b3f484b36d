package logdb

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"testing"
	"unsafe"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/logger"
	"github.com/lni/dragonboat/v4/plugin/tee"
	"github.com/lni/dragonboat/v4/raftio"
	pb "github.com/lni/dragonboat/v4/raftpb"
	lnivfs "github.com/lni/vfs"
)

// openPebble opens dragonboat's LogDB over Pebble.
func openPebble(t testing.TB, fs lnivfs.FS) raftio.ILogDB {
	t.Helper()
	tan, pebble := openTheirs(t, fs, "/reference")
	must(t, tan.Close())
	return pebble
}

// openTheirs opens dragonboat's own LogDBs. Pebble's is public only as half of one that is
// made for comparisons.
func openTheirs(t testing.TB, fs lnivfs.FS, dir string) (tan, pebble raftio.ILogDB) {
	t.Helper()
	for _, name := range []string{"LogDB", "logdb", "pebblekv", "tan"} {
		logger.GetLogger(name).SetLevel(logger.ERROR)
	}
	var c config.NodeHostConfig
	c.Expert.FS = fs
	c.Expert.LogDB = config.GetTinyMemLogDBConfig()
	c.Expert.LogDB.Shards = 1
	c.Expert.LogDB.KVWriteBufferSize = 256 << 10
	c.Expert.Engine = config.EngineConfig{ExecShards: 1, CommitShards: 1, ApplyShards: 1, SnapshotShards: 1, CloseShards: 1}
	both, err := tee.CreateTanPebbleLogDB(c, nil, []string{dir}, []string{dir})
	must(t, err)
	half := func(name string) raftio.ILogDB {
		f := reflect.ValueOf(both).Elem().FieldByName(name)
		return reflect.NewAt(f.Type(), unsafe.Pointer(f.UnsafeAddr())).Elem().Interface().(raftio.ILogDB)
	}
	return half("odb"), half("ndb")
}

// TestLikePebble has our LogDB and dragonboat's own do the same, and compares every read.
func TestLikePebble(t *testing.T) {
	seeds := 30
	if testing.Short() {
		seeds = 4
	}
	for seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(uint64(seed), 0))
			theirFS := lnivfs.NewStrictMem()
			o := testOptions(vfs.NewMem())
			o.CacheBytes = int64(r.IntN(3)-1) * 4000
			ours, theirs := mustOpen(t, o), openPebble(t, theirFS)
			defer func() {
				ours.mustClose(t)
				must(t, theirs.Close())
			}()
			h := newHistory(r)
			for range 150 {
				c := h.next()
				must(t, c.do(ours))
				must(t, c.do(theirs))
				if c.reopen || r.IntN(25) == 0 {
					ours.mustClose(t)
					must(t, theirs.Close())
					ours, theirs = mustOpen(t, o), openPebble(t, theirFS)
				}
				check(t, theirs, h.m)
				check(t, ours, h.m)
				compareRange(t, r, ours, theirs, h.m)
			}
		})
	}
}

// compareRange compares the entries of a random range with a random bound on their size.
func compareRange(t *testing.T, r *rand.Rand, ours, theirs raftio.ILogDB, m model) {
	t.Helper()
	for info, replica := range m {
		first, last := replica.begins()+1, replica.last()
		if first > last {
			continue
		}
		low := first + uint64(r.IntN(int(last-first)+1))
		high := low + 1 + uint64(r.IntN(int(last-low)+1))
		maxSize := []uint64{0, 1, 500, 5000, math.MaxUint64}[r.IntN(5)]
		if r.IntN(3) == 0 { // exactly some of them
			some := low - replica.start - 1
			maxSize = pb.GetEntrySliceSize(replica.entries[some : some+1+uint64(r.IntN(int(high-low)))])
		}
		a, aSize, err := ours.IterateEntries(nil, 0, info.ShardID, info.ReplicaID, low, high, maxSize)
		must(t, err)
		b, bSize, err := theirs.IterateEntries(nil, 0, info.ShardID, info.ReplicaID, low, high, maxSize)
		must(t, err)
		if aSize != bSize || !reflect.DeepEqual(a, b) {
			t.Fatalf("%v [%d, %d) up to %d bytes: %d entries of %d bytes, want %d of %d", info, low, high, maxSize, len(a), aSize, len(b), bSize)
		}
	}
}
