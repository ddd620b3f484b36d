package raftgroup

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup/placement"
)

func TestMedians(t *testing.T) {
	for _, tt := range []struct {
		times     []int64
		low, high int64
	}{
		{[]int64{7}, 7, 7},
		{[]int64{9, 4}, 4, 9},
		{[]int64{9, 4, 5}, 5, 5},
		{[]int64{3600, 0, 1, 2}, 1, 2},
	} {
		if low, high := medians(tt.times); low != tt.low || high != tt.high {
			t.Errorf("medians of %v: %d and %d, want %d and %d", tt.times, low, high, tt.low, tt.high)
		}
	}
}

// lives is a command that puts key for a time.
func lives(key string, ttl time.Duration) *command.Command {
	p := put(key, "v")
	p.Flags, p.TTLMillis = command.SetTTL, uint64(ttl.Milliseconds())
	return p
}

// lone is a node without others and its clock.
type lone struct {
	*Node
	t     *testing.T
	clock *wrongClock
}

func newLone(t *testing.T, fs vfs.FS, clock *wrongClock) *lone {
	t.Helper()
	n, err := openMem(fs, Options{Clock: clock, Shards: 1})
	if err != nil {
		t.Fatal(err)
	}
	return &lone{n, t, clock}
}

func (l *lone) do(c *command.Command) {
	l.t.Helper()
	e := newEar()
	if err := l.Propose(0, c, e, command.Tag{ID: 1}); err != nil {
		l.t.Fatal(err)
	}
	run(l.Node)
	if e.outcomes[1] != command.Applied {
		l.t.Fatalf("%v: %v", c.Kind, e.outcomes[1])
	}
}

// pass lets time go by, in ticks.
func (l *lone) pass(d time.Duration) {
	for ; d > 0; d -= 100 * time.Millisecond {
		l.clock.ms.Add(uint64(min(d, 100*time.Millisecond).Milliseconds()))
		l.Tick()
		run(l.Node)
	}
}

func (l *lone) expect(what, key string, want bool) {
	l.t.Helper()
	if _, ok := read(l.t, l.Node, key); ok != want {
		l.t.Fatalf("%s: the row exists: %v, want %v", what, ok, want)
	}
}

// TestClockJumpsAlone: the wall clock of a node without others is set forward
// for a moment. What has a time to live lives that long, before, during and
// after.
func TestClockJumpsAlone(t *testing.T) {
	clock := &wrongClock{manualClock: &manualClock{}}
	clock.ms.Store(1_700_000_000_000)
	l := newLone(t, vfs.NewMem(), clock)
	defer func() { closeNode(t, l.Node) }()
	l.do(lives("before", 3*time.Second))
	clock.setOff(time.Hour)
	l.pass(300 * time.Millisecond)
	l.do(lives("during", 3*time.Second))
	l.expect("an hour later by the wall clock", "before", true)
	clock.setOff(0)
	l.pass(time.Second)
	l.do(lives("after", 3*time.Second))
	l.pass(2 * time.Second)
	l.expect("3.3 s after it was put for 3 s", "before", false)
	l.expect("after 3 s, less what the clock was moved back", "during", true)
	l.pass(300 * time.Millisecond)
	l.expect("3.3 s after it was put for 3 s", "during", false)
	l.expect("after 2.3 s", "after", true)
	l.pass(900 * time.Millisecond)
	l.expect("3.2 s after it was put for 3 s", "after", false)
}

// TestClockSetBackAlone: a node starts with its wall clock an hour ahead, which
// it has to believe; then the clock is set right, and the node restarts. Time
// does not stand still for an hour.
func TestClockSetBackAlone(t *testing.T) {
	clock := &wrongClock{manualClock: &manualClock{}}
	clock.ms.Store(1_700_000_000_000)
	clock.setOff(time.Hour)
	disk := vfs.NewMem()
	l := newLone(t, disk, clock)
	l.do(put("k", "v"))
	clock.setOff(0)
	for _, restarts := range []bool{false, true, true} {
		if restarts {
			closeNode(t, l.Node)
			l = newLone(t, disk, clock)
		}
		l.do(lives("lock", 3*time.Second))
		l.pass(2800 * time.Millisecond)
		l.expect("after 2.8 s", "lock", true)
		l.pass(600 * time.Millisecond)
		l.expect("after 3.4 s", "lock", false)
	}
	closeNode(t, l.Node)
}

// exist counts the rows of a prefix that a leader shows.
func (c *cluster) exist(prefix string, rows int) (n int) {
	c.t.Helper()
	for i := range rows {
		if c.shows(fmt.Sprint(prefix, i)) {
			n++
		}
	}
	return n
}

// TestClockOffInACluster: one of three nodes has its wall clock an hour ahead,
// or behind, also while it leads. No row expires early or late, and the node
// gives its leaderships away until its clock is right again.
func TestClockOffInACluster(t *testing.T) { slowlyOnEngines(t, testClockOffInACluster) }

func testClockOffInACluster(t *testing.T, e placement.Engine) {
	for _, off := range []time.Duration{time.Hour, -time.Hour} {
		t.Run(off.String(), func(t *testing.T) {
			c := newClusterOf(t, e, 3, 4)
			c.clock.ms.Add(1_700_000_000_000)
			c.until("leaders", c.led)
			c.until("the map", func() bool { return c.nodes[1].cmap.Load().Begun() && c.nodes[3].cmap.Load().Begun() })
			c.until("node 2 leads", func() bool { return leadsSome(c.nodes[2]) })
			const rows = 8
			putAll := func(prefix string) {
				for i := range rows {
					c.carryOut(fmt.Sprint(prefix, i), lives(fmt.Sprint(prefix, i), 3*time.Minute))
				}
			}
			putAll("before")
			c.walls[2].setOff(off)
			putAll("at once") // node 2 still leads
			c.until("node 2 gives its leaderships away", func() bool { return !leadsSome(c.nodes[2]) })
			exact := 0.0
			if c.runs() { // a report takes its time
				exact = float64(time.Minute.Milliseconds())
			}
			if info := nodeInfoOf(c.nodes[1], 2); !info.ClockOff || math.Abs(float64(info.ClockOffset-off.Milliseconds())) > exact {
				t.Errorf("node 1 says of node 2: %+v", info)
			}
			// Also where it leads in spite of that.
			c.end(2)
			c.start(2)
			c.until("node 2 knows the time", func() bool { return c.nodes[2].time.Agreed.Load() })
			for shard := range 4 {
				if n := c.leader(shard); n != nil && n != c.nodes[2] {
					if err := n.requestTransfer(shard, 2); err != nil {
						t.Fatal(err)
					}
				}
			}
			putAll("after")
			for _, prefix := range []string{"before", "at once", "after"} {
				if n := c.exist(prefix, rows); n != rows {
					t.Errorf("%d of %d rows %q that live for three minutes are there", n, rows, prefix)
				}
			}
			if c.runs() {
				c.clock.ms.Add(uint64((200 * time.Second).Milliseconds()))
				c.until("leaders afterwards", c.led)
			} else {
				c.pass(200 * time.Second)
			}
			for _, prefix := range []string{"before", "at once", "after"} {
				if n := c.exist(prefix, rows); n != 0 {
					t.Errorf("%d of %d rows %q that live for three minutes are there after 200 seconds", n, rows, prefix)
				}
			}
			c.walls[2].setOff(0)
			c.until("node 2 leads again", func() bool { return leadsSome(c.nodes[2]) })
		})
	}
}

// TestClockOfARestartedCluster: all nodes stop for an hour; one comes back with
// its wall clock a day ahead. What was to live for two hours is there, what was
// to live for half an hour is gone.
func TestClockOfARestartedCluster(t *testing.T) { onEngines(t, testClockOfARestartedCluster) }

func testClockOfARestartedCluster(t *testing.T, e placement.Engine) {
	c := newClusterOf(t, e, 3, 1)
	c.clock.ms.Add(1_700_000_000_000)
	c.until("leaders", c.led)
	c.carryOut("long", lives("long", 2*time.Hour))
	c.carryOut("short", lives("short", 30*time.Minute))
	for id := range c.disks {
		c.end(id)
	}
	c.clock.ms.Add(uint64(time.Hour.Milliseconds()))
	c.walls[1].setOff(24 * time.Hour)
	c.box = nil
	for id := range c.disks {
		c.start(id)
	}
	c.until("leaders", c.led)
	c.until("the time", func() bool {
		return c.nodes[1].time.Agreed.Load() && c.nodes[2].time.Agreed.Load() && c.nodes[3].time.Agreed.Load()
	})
	n := c.leader(0)
	if _, ok := read(t, n, "long"); !ok {
		t.Error("gone an hour early")
	}
	if _, ok := read(t, n, "short"); ok {
		t.Error("there half an hour late")
	}
}

// TestClockUnheard: a cluster whose nodes were down for an hour leads before the
// nodes hear of each other's clocks. What is put meanwhile lives as long as it
// should: it waits until the time is known, and no longer than timeWait.
func TestClockUnheard(t *testing.T) {
	for _, heard := range []bool{true, false} {
		t.Run(fmt.Sprint("heard in the end ", heard), func(t *testing.T) {
			c := newCluster(t, 3, 1)
			c.clock.ms.Add(1_700_000_000_000)
			c.until("leaders", c.led)
			c.put("old", "v")
			for id := range c.disks {
				c.end(id)
			}
			c.clock.ms.Add(uint64(time.Hour.Milliseconds()))
			c.box, c.mute = nil, true
			for id := range c.disks {
				c.start(id)
			}
			c.until("a leader", func() bool { return c.leader(0) != nil })
			n, e := c.leader(0), newEar()
			if err := n.Propose(0, lives("lock", 30*time.Second), e, command.Tag{ID: 1}); err != nil {
				t.Fatal(err)
			}
			c.settle()
			if _, done := e.outcomes[1]; done {
				t.Fatal("carried out at a time that nobody knows")
			}
			c.mute = !heard
			c.pass(timeWait + time.Second)
			if e.outcomes[1] != command.Applied {
				t.Fatalf("the outcome after %v is %v", timeWait+time.Second, e.outcomes[1])
			}
			c.mute = false
			c.pass(20 * time.Second)
			if !c.shows("lock") {
				t.Error("what lives for 30 s is gone after 24")
			}
			c.pass(10 * time.Second)
			if c.shows("lock") {
				t.Error("what lives for 30 s is there after 34")
			}
		})
	}
}

// shows reports whether the leader of a key's shard shows a row.
func (c *cluster) shows(key string) bool {
	c.t.Helper()
	c.until("a leader of "+key, func() bool { return c.leader(shardFor(c.any(), key)) != nil })
	_, ok := read(c.t, c.leader(shardFor(c.any(), key)), key)
	return ok
}

func leadsSome(n *Node) bool {
	for _, v := range n.views {
		if v.Leads.Load() {
			return true
		}
	}
	return false
}

// nodeInfoOf is what asked says of a node.
func nodeInfoOf(asked *Node, node uint64) command.NodeInfo {
	for _, i := range asked.ClusterStatus().Nodes {
		if i.ID == node {
			return i
		}
	}
	return command.NodeInfo{}
}
