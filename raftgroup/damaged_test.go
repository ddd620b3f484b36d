package raftgroup

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/proa-kv/proa/bufpool"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup/datadir"
	"github.com/proa-kv/proa/raftgroup/placement"
)

// flipIn flips a bit of the row with this value in the tables of a state, where
// values are not compressed.
func flipIn(t *testing.T, f vfs.FS, value string) {
	t.Helper()
	names, err := f.List(dir + "/" + datadir.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	flipped := false
	for _, name := range names {
		if !strings.HasSuffix(name, ".sst") {
			continue
		}
		path := f.PathJoin(dir, datadir.StateDir, name)
		at := bytes.Index(readAll(t, f, path), []byte(value))
		if at < 0 {
			continue
		}
		file, err := f.OpenReadWrite(path, vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := file.WriteAt([]byte{value[0] ^ 1}, int64(at)); err != nil {
			t.Fatal(err)
		}
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
		flipped = true
	}
	if !flipped {
		t.Fatalf("no table holds %.20q", value)
	}
}

// bulk is rows that fill several blocks in each shard of a node.
type bulk struct {
	n    int
	keys [][]string // by shard, in order
}

func (b *bulk) value(key string) string {
	return strings.Repeat(fmt.Sprintf("value of %s, ", key), 40)
}

func newBulk(n *Node, rows int) *bulk {
	b := &bulk{n: rows, keys: make([][]string, n.meta())}
	for i := range rows {
		key := fmt.Sprintf("key%04d", i)
		shard := shardFor(n, key)
		b.keys[shard] = append(b.keys[shard], key)
	}
	return b
}

// TestDamagedReplicaIsReplaced damages a block of one node's state, in a cluster
// of three: reads go elsewhere meanwhile, nobody reads anything wrong, and the
// node's replicas are made anew without anybody's doing.
func TestDamagedReplicaIsReplaced(t *testing.T) { slowlyOnEngines(t, testDamagedReplicaIsReplaced) }

func testDamagedReplicaIsReplaced(t *testing.T, e placement.Engine) {
	const shards = 2
	first := func(keys []string) string { return keys[0] }
	middle := func(keys []string) string { return keys[len(keys)/2] }
	for _, c := range []struct {
		name    string
		leads   bool // the damaged node leads the shard
		restart bool
		shard   int
		row     func(keys []string) string
	}{
		{"follower", false, true, 0, middle},
		{"leader", true, false, 0, middle},
		{"what a shard ends with", false, true, 1, first}, // it cannot be opened then
		{"the map", false, true, shards, nil},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) {
			k := newClusterOf(t, e, 3, shards)
			k.until("leaders", k.led)
			k.until("the map", func() bool { return k.settled(3) })
			rows := newBulk(k.any(), 500)
			for _, keys := range rows.keys {
				for _, key := range keys {
					k.put(key, rows.value(key))
				}
			}
			k.pass(500e6)
			for id := range k.disks { // everything in files, nothing in memory
				k.end(id)
				k.start(id)
			}
			k.until("leaders", k.led)
			id := k.leader(c.shard).id
			if !c.leads {
				id = id%3 + 1
			}
			bad := `{"replicas":3,` // the first row of the map
			if c.row != nil {
				bad = rows.value(c.row(rows.keys[c.shard]))
			}
			was := k.nodes[id].cmap.Load()
			if c.restart {
				k.end(id)
			}
			flipIn(t, k.disks[id], bad)
			if c.restart {
				k.start(id)
			}
			wrong := func(n *Node) (refused int) {
				for shard, keys := range rows.keys {
					if _, known := n.Age(shard); !known { // it has heard of no leader, or is new and has nothing
						refused++
						continue
					}
					for _, key := range keys {
						if got := local(n, key); got == fmt.Sprint("state ", command.ReadNotLeader) {
							refused++
						} else if got != rows.value(key) {
							t.Fatalf("node %d, %s: %.40q", n.id, key, got)
						}
					}
				}
				return refused
			}
			noticed, refused := false, 0
			k.until("the replica is replaced", func() bool {
				refused += wrong(k.nodes[id])
				for _, s := range k.any().ClusterStatus().Shards {
					noticed = noticed || slices.ContainsFunc(s.Replicas, func(r command.ReplicaInfo) bool { return r.Node == id && r.Damaged })
				}
				k.put("another", "row") // the shard goes on
				now, _ := k.any().cmap.Load().Replica(c.shard, id)
				before, _ := was.Replica(c.shard, id)
				return now.Incarnation > before.Incarnation && k.settled(3) && k.nodes[id].views[c.shard].Held.Load()
			})
			if !noticed || refused == 0 {
				t.Errorf("%d reads were refused; status has shown it: %v", refused, noticed)
			}
			k.until("everything is there", func() bool { return wrong(k.nodes[id]) == 0 })
			if d := k.nodes[id].Status().Damage; d != nil {
				t.Errorf("what is damaged still: %v", d)
			}
			k.pass(1e9)
			for shard := range shards {
				sums := make(map[uint64]bool)
				for _, n := range k.nodes {
					sum, _, err := n.Checksum(shard)
					if err != nil {
						t.Fatal(err)
					}
					sums[sum] = true
				}
				if len(sums) != 1 {
					t.Errorf("replicas of shard %d differ: %v", shard, sums)
				}
			}
			// And after another start.
			k.end(id)
			n := k.start(id)
			k.until("everything is there after a start", func() bool { return wrong(n) == 0 })
		})
	}
}

// filledAlone returns the disk of a node alone that has been stopped, and the rows
// that its two shards hold.
func filledAlone(t *testing.T, e placement.Engine) (*vfs.MemFS, *bulk) {
	t.Helper()
	f := vfs.NewMem()
	n := memNode(t, f, Options{Shards: 2, Engine: e.String()})
	rows := newBulk(n, 300)
	for _, keys := range rows.keys {
		for _, key := range keys {
			mustPut(t, n, key, rows.value(key))
		}
	}
	closeNode(t, n)
	return f, rows
}

// TestDamagedNodeAlone damages a block of a node alone: the rows concerned are
// refused, the others served; what does not need them is carried out.
func TestDamagedNodeAlone(t *testing.T) { onEngines(t, testDamagedNodeAlone) }

func testDamagedNodeAlone(t *testing.T, e placement.Engine) {
	f, rows := filledAlone(t, e)
	bad := rows.keys[0][len(rows.keys[0])/2]
	flipIn(t, f, rows.value(bad))
	n := memNode(t, f, Options{})
	reads := func() (found, refused int) {
		for _, keys := range rows.keys {
			for _, key := range keys {
				b := bufpool.Get(64)
				_, state := n.Read(b, shardFor(n, key), []byte(key), n.NowMillis(), command.AnyValue)
				switch {
				case state == command.ReadDamaged:
					refused++
				case state == command.ReadFound && string(b.B) == rows.value(key):
					found++
				default:
					t.Fatalf("%s: state %d", key, state)
				}
				b.Release()
			}
		}
		return found, refused
	}
	found, refused := reads()
	if found == 0 || refused == 0 {
		t.Fatalf("%d rows read, %d refused", found, refused)
	}
	status := n.Status()
	if len(status.Damage) != 1 || !slices.Equal(status.Damage[0].Shards, []int{0}) || status.Damage[0].Blocks != 1 || !status.Shards[0].Damaged || status.Shards[1].Damaged {
		t.Errorf("status: %+v, %+v", status.Damage, status.Shards)
	}
	ask := func(c *command.Command) command.Status {
		e := newEar()
		if err := n.Propose(0, c, e, command.Tag{}); err != nil {
			t.Fatal(err)
		}
		runUntil(t, n, "outcome", func() bool { return e.heard() > 0 })
		return e.results[0].Status
	}
	if s := ask(&command.Command{Kind: command.Incr, Key: []byte(bad), Delta: 1}); s != command.Damaged {
		t.Errorf("INCR: status %d", s)
	}
	if s := ask(put(bad, "whole again")); s != command.OK {
		t.Errorf("PUT: status %d", s)
	}
	if v, _ := read(t, n, bad); v != "whole again" {
		t.Errorf("read %q", v)
	}
	if err := n.Scan(&command.Scan{}, func(_, _ []byte, _ command.Row) bool { return true }); err != command.ErrDamaged {
		t.Errorf("scan: %v", err)
	}
	closeNode(t, n)
	n = memNode(t, f, Options{})
	if v, _ := read(t, n, bad); v != "whole again" {
		t.Errorf("after a restart: %q", v)
	}
	select {
	case err := <-n.Failure():
		t.Errorf("the node stopped: %v", err)
	default:
	}
}

// TestLostShardAlone damages what a shard of a node alone ends with: it is not
// served, the other is.
func TestLostShardAlone(t *testing.T) { onEngines(t, testLostShardAlone) }

func testLostShardAlone(t *testing.T, e placement.Engine) {
	f, rows := filledAlone(t, e)
	flipIn(t, f, rows.value(rows.keys[1][0]))
	n := memNode(t, f, Options{})
	b := bufpool.Get(64)
	defer b.Release()
	key := rows.keys[0][0]
	if _, state := n.Read(b, 0, []byte(key), n.NowMillis(), command.AnyValue); state != command.ReadDamaged {
		t.Errorf("a row of the lost shard: state %d", state)
	}
	if err := n.Propose(0, put(key, "v"), newEar(), command.Tag{}); err != command.ErrDamaged {
		t.Errorf("a write to the lost shard: %v", err)
	}
	last := rows.keys[1][len(rows.keys[1])-1]
	if v, _ := read(t, n, last); v != rows.value(last) {
		t.Errorf("a row of the other: %.40q", v)
	}
	if !n.Status().Shards[0].Damaged {
		t.Error("status does not say so")
	}
}

// TestFlipsAreHealed flips a bit anywhere in the files of one node's state after
// the other: the cluster always comes back to what it was. Damage that nobody has met,
// in what nobody reads, is undone before that of the next node: found beside it later,
// it would leave one sound replica of three, which is no majority.
func TestFlipsAreHealed(t *testing.T) { slowlyOnEngines(t, testFlipsAreHealed) }

func testFlipsAreHealed(t *testing.T, e placement.Engine) {
	flips := 30
	if testing.Short() {
		flips = 4
	}
	k := newClusterOf(t, e, 3, 3)
	if k.runs() { // some seconds each
		flips = min(flips, 12)
	}
	k.until("leaders", k.led)
	k.until("the map", func() bool { return k.settled(3) })
	rows := newBulk(k.any(), 200)
	for _, keys := range rows.keys {
		for _, key := range keys {
			k.put(key, rows.value(key))
		}
	}
	k.pass(500e6)
	rng := rand.New(rand.NewPCG(1, 2))
	undo := func() {}
	for i := range flips {
		id := uint64(i%3 + 1)
		undo()
		k.end(id)
		f := k.disks[id]
		names, err := f.List(dir + "/" + datadir.StateDir)
		if err != nil {
			t.Fatal(err)
		}
		names = slices.DeleteFunc(names, func(name string) bool { return !strings.HasSuffix(name, ".sst") })
		slices.Sort(names)
		path := f.PathJoin(dir, datadir.StateDir, names[rng.IntN(len(names))])
		content := readAll(t, f, path)
		at, bit := rng.IntN(len(content)), byte(1)<<rng.IntN(8)
		content[at] ^= bit
		writeAll(t, f, path, bytes.Clone(content))
		n := k.start(id)
		undo = func() {
			if _, err := f.Stat(path); err != nil {
				return // replaced, or compacted
			}
			k.end(id)
			content[at] ^= bit
			writeAll(t, f, path, content)
			k.start(id)
			k.until(fmt.Sprintf("whole again after flip %d was undone", i), func() bool { return k.led() && k.settled(3) })
		}
		sound := func() bool {
			for shard, v := range n.views {
				if v.Broken.Load() || n.store.Damaged(shard) {
					return false
				}
				if shard == n.meta() {
					continue
				}
				if _, known := n.Age(shard); !known {
					return false // a new replica has nothing yet
				}
				for _, key := range rows.keys[shard] {
					if got := local(n, key); got == fmt.Sprint("state ", command.ReadNotLeader) {
						return false
					} else if got != rows.value(key) {
						t.Fatalf("flip %d, at %d of %s: %s is %.40q", i, at, path, key, got)
					}
				}
			}
			return k.settled(3)
		}
		k.until(fmt.Sprintf("sound again after flip %d, at %d of %d bytes of %s", i, at, len(content), path), sound)
		for key := range strings.FieldsSeq("key0001 key0100") {
			k.put(key, rows.value(key))
		}
		k.pass(500e6)
	}
}

// TestDamagedOnlyVoter damages the replica that alone has a vote, beside one that
// keeps up: that one takes over, and the first gets a new one.
func TestDamagedOnlyVoter(t *testing.T) { slowlyOnEngines(t, testDamagedOnlyVoter) }

func testDamagedOnlyVoter(t *testing.T, e placement.Engine) {
	k := newClusterOf(t, e, 1, 2)
	k.until("leaders", k.led)
	rows := newBulk(k.any(), 300)
	for _, keys := range rows.keys {
		for _, key := range keys {
			k.put(key, rows.value(key))
		}
	}
	k.join(2)
	k.until("two nodes", func() bool { return k.settled(2) })
	k.until("copies", func() bool { return local(k.nodes[2], rows.keys[0][0]) == rows.value(rows.keys[0][0]) })
	k.end(1)
	bad := rows.keys[0][len(rows.keys[0])/2]
	flipIn(t, k.disks[1], rows.value(bad))
	n := k.start(1)
	before, _ := n.cmap.Load().Replica(0, 1)
	k.until("the copy leads", func() bool {
		local(n, bad)
		return k.nodes[2].views[0].Leads.Load()
	})
	k.until("both have all rows", func() bool {
		for _, n := range k.nodes {
			for _, key := range rows.keys[0] {
				if local(n, key) != rows.value(key) {
					return false
				}
			}
		}
		now, _ := n.cmap.Load().Replica(0, 1)
		return now.Incarnation > before.Incarnation && k.settled(2)
	})
	k.put(bad, "goes on")
}

// TestDamagedMapLeads has the map damaged on the node that alone has the whole log of
// the meta group: it has to lead until another has the log too, and then lets that
// one lead, although it knows no map.
func TestDamagedMapLeads(t *testing.T) { slowlyOnEngines(t, testDamagedMapLeads) }

func testDamagedMapLeads(t *testing.T, e placement.Engine) {
	k := newClusterOf(t, e, 3, 1)
	k.until("leaders", k.led)
	k.until("the map", func() bool { return k.settled(3) })
	const hurt, behind, away = 1, 2, 3
	k.end(behind)
	k.until("leaders of two nodes", k.led)
	k.nodes[hurt].SetRedisAddress("elsewhere")
	k.until("what the stopped node does not know", func() bool {
		row, _ := k.nodes[away].cmap.Load().Node(hurt)
		return row.Redis == "elsewhere"
	})
	before, _ := k.nodes[hurt].cmap.Load().Replica(1, hurt)
	k.end(away)
	k.end(hurt)
	n := k.start(hurt)
	n.cmap.Store(placement.NewMap(n.meta())) // as where refreshMap comes to a damaged block
	n.refuseDamaged(n.meta())
	k.start(behind)
	k.until("the other leads", func() bool { return k.nodes[behind].views[n.meta()].Leads.Load() })
	k.start(away)
	k.until("the replica is replaced", func() bool {
		now, _ := k.nodes[behind].cmap.Load().Replica(1, hurt)
		return now.Incarnation > before.Incarnation && k.settled(3) && n.views[n.meta()].Held.Load() && n.cmap.Load().Begun()
	})
}

// TestDamagedReplicaThatIsNeeded damages a replica while another node is down: it
// is not removed, since its vote is needed, and does not hold on to the log either.
// When the third node is back it is replaced.
func TestDamagedReplicaThatIsNeeded(t *testing.T) { slowlyOnEngines(t, testDamagedReplicaThatIsNeeded) }

func testDamagedReplicaThatIsNeeded(t *testing.T, e placement.Engine) {
	k := newClusterOf(t, e, 3, 1)
	k.until("leaders", k.led)
	k.until("the map", func() bool { return k.settled(3) })
	rows := newBulk(k.any(), 300)
	for _, key := range rows.keys[0] {
		k.put(key, rows.value(key))
	}
	k.pass(500e6)
	leads := k.leader(0).id
	hurt, away := leads%3+1, (leads+1)%3+1
	k.end(away)
	bad := rows.keys[0][150]
	k.end(hurt)
	flipIn(t, k.disks[hurt], rows.value(bad))
	k.log = 1 << 20
	n := k.start(hurt)
	first := func() uint64 { return n.engine.ShardCounters(0).First }
	begun := first()
	k.until("it is down", func() bool {
		local(n, bad)
		return n.engine.Replica(0).Down
	})
	for i := 0; first() == begun || i < 50; i++ { // goes on by its vote
		if i == 2000 {
			t.Fatal("the log is not cut")
		}
		k.put(fmt.Sprint("more", i), rows.value("more"))
		if i%50 == 0 {
			n.Flush()
			k.pass(15e6)
		}
	}
	if _, has := k.nodes[leads].cmap.Load().Replica(0, hurt); !has || !n.engine.Replica(0).Down {
		t.Error("the replica was removed although its vote was needed")
	}
	k.start(away)
	k.until("it has been replaced", func() bool {
		return !n.engine.Replica(0).Down && k.settled(3) && local(n, bad) == rows.value(bad) && local(n, "more49") == rows.value("more")
	})
}
