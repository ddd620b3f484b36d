package test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/internal/testcluster"
)

// faults is a cluster whose clients record a history while it is disturbed.
type faults struct {
	t   *testing.T
	c   *testcluster.Cluster
	h   *history
	rng *rand.Rand
	// idle are clients, of one server each, for cross.
	idle     []*client.Client
	crossing []atomic.Bool // by key: cross is at it
}

// fault disturbs the cluster and brings it back to health.
type fault struct {
	name string
	run  func(*faults)
}

// TestClusterLinearizable records a history of clients of all kinds while
// servers are killed, stopped and cut off, and has porcupine look for an order
// of all requests that explains every answer.
func TestClusterLinearizable(t *testing.T) {
	t.Parallel()
	all := []fault{
		{"leader killed", func(f *faults) { f.kill(f.leader()) }},
		{"leader stopped", func(f *faults) { f.pause(f.leader(), 2*electionTimeoutMax) }},
		{"leader stopped until others lead", func(f *faults) {
			for range 3 {
				n := f.leader()
				n.Pause()
				awaitLedWithout(f.t, f.c, n)
				f.cross(n, settleTimeout)
				f.lasts(electionTimeoutMax / 20)
				n.Resume() // and finds that it has been asked meanwhile
			}
		}},
		{"leader cut off", func(f *faults) { f.isolate(f.leader()) }},
		{"leader not heard", func(f *faults) { f.mute(f.leader()) }},
		{"leader deaf", func(f *faults) { f.deafen(f.leader()) }},
		{"leader stopped for about an election timeout", func(f *faults) {
			for range 4 {
				f.pause(f.leader(), electionTimeoutMax/4+f.upTo(electionTimeoutMax))
			}
		}},
		{"meta leader killed", func(f *faults) { f.kill(f.c.AwaitLeaders()[command.MetaShard]) }},
		{"links slow", (*faults).slow},
		{"leaders transferred", (*faults).transfer},
		{"follower killed", func(f *faults) { f.kill(f.follower()) }},
		{"all killed", (*faults).killAll},
		{"leader stopped, then killed", func(f *faults) {
			n := f.leader()
			n.Pause()
			awaitLedWithout(f.t, f.c, n)
			f.kill(n)
		}},
		{"no majority for a while", (*faults).scatter},
		{"leader's clock an hour ahead, then behind", (*faults).clocks},
	}
	t.Run("three", func(t *testing.T) {
		list := all
		if testing.Short() {
			list = all[:6]
		}
		runFaults(t, 3, list)
	})
	t.Run("five", func(t *testing.T) {
		if testing.Short() {
			t.Skip("takes many seconds, which -short leaves out")
		}
		runFaults(t, 5, []fault{
			{"two leaders killed", func(f *faults) { f.killTwo() }},
			{"minority of leaders cut off", (*faults).minority},
			{"leader stopped", func(f *faults) { f.pause(f.leader(), 2*electionTimeoutMax) }},
			{"one cut off, one killed", (*faults).cutAndKill},
			{"leader deaf", func(f *faults) { f.deafen(f.leader()) }},
		})
	})
}

func runFaults(t *testing.T, nodes int, list []fault) {
	f := &faults{t: t, rng: seeded(t)}
	f.c = testcluster.NewCluster(t, testcluster.ClusterConfig{Nodes: nodes, Shards: 3, Proxied: true, Settings: []string{fmt.Sprint("cluster.replication_factor=", nodes)}})
	for _, n := range f.c.Nodes() {
		n.Configure(func(cfg *testcluster.Config) {
			cfg.Env = append(slices.Clone(cfg.Env), "PROATEST_CLOCK_FILE="+clockFile(n))
		})
	}
	f.c.Start()
	f.h = newHistory(12)
	f.crossing = make([]atomic.Bool, f.h.keys)
	f.h.pace = 8 * time.Millisecond
	if testcluster.Instrumented() {
		f.h.pace *= 4
	}
	for i := range 12 {
		f.h.clients = append(f.h.clients, connectAll(t, f.c, func(cfg *client.Config) {
			if cfg.ExactlyOnce = i%2 == 0; cfg.ExactlyOnce {
				cfg.AttemptTimeout = electionTimeoutMax / 4 // goes to others soon
			}
			if i%4 >= 2 { // knows one server only, which forwards
				cfg.Endpoints, cfg.ForwardOnly = []string{f.c.Endpoints()[i%nodes]}, true
			}
		}))
		f.h.begin(f.rng, f.h.clients[i])
	}
	for i := range nodes {
		f.idle = append(f.idle, connectAll(t, f.c, func(cfg *client.Config) {
			cfg.Endpoints, cfg.ForwardOnly = []string{f.c.Endpoints()[i]}, true
		}))
	}
	defer f.h.finish()
	f.rng.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	for _, fault := range list {
		f.progress()
		begin := time.Now()
		fault.run(f)
		f.c.AwaitLeaders()
		t.Logf("%s: %v", fault.name, time.Since(begin).Round(time.Millisecond))
	}
	f.progress()
	f.h.finish()
	f.h.check(t, 0)
	awaitSettled(t, f.c)
	checkEqual(t, f.c)
}

// progress returns when every client has had time for some operations, at least
// those that can be answered.
func (f *faults) progress() {
	f.t.Helper()
	begin := f.h.count.Load()
	eventually(f.t, "operations to be answered", func() error {
		if n := f.h.count.Load() - begin; n < 200 {
			return fmt.Errorf("%d so far", n)
		}
		return nil
	})
}

// upTo returns a random time below d.
func (f *faults) upTo(d time.Duration) time.Duration { return time.Duration(f.rng.Int64N(int64(d))) }

// lasts is how long a fault lasts that ends by the clock.
func (f *faults) lasts(d time.Duration) { <-time.After(d) }

func (f *faults) leader() *testcluster.Node { return f.c.AwaitLeaders().Most() }

// follower returns a server that does not lead most shards.
func (f *faults) follower() *testcluster.Node {
	most := f.leader()
	nodes := f.c.Nodes()
	for {
		if n := nodes[f.rng.IntN(len(nodes))]; n != most {
			return n
		}
	}
}

func (f *faults) kill(n *testcluster.Node) {
	n.Kill()
	awaitLedWithout(f.t, f.c, n)
	f.progress()
	n.Start()
}

func (f *faults) pause(n *testcluster.Node, d time.Duration) {
	n.Pause()
	f.lasts(d)
	n.Resume()
}

func (f *faults) isolate(n *testcluster.Node) {
	f.c.Isolate(n)
	for until := time.Now().Add(2 * electionTimeoutMax); time.Now().Before(until); {
		f.cross(n, electionTimeoutMax/4)
		f.lasts(electionTimeoutMax / 20)
	}
	awaitLedWithout(f.t, f.c, n)
	f.progress()
	f.c.Heal()
}

// cross writes keys through another server than n, and reads at n those whose
// write has been acknowledged. Clients that go about their own business cannot
// see what n has missed: each has one operation under way, and those that matter
// wait for n since before it was disturbed. It returns when all is written, or
// after some time.
func (f *faults) cross(n *testcluster.Node, atMost time.Duration) {
	at := f.c.ID(n)
	through := at%len(f.idle) + 1
	written := make(chan struct{}, f.h.keys)
	begun := 0
	for i := range f.h.keys {
		// One at a time for each key: what is under way at once makes the
		// history hard to check.
		if !f.crossing[i].CompareAndSwap(false, true) {
			continue
		}
		begun++
		key, value := registerKey(i), strconv.Itoa(f.rng.IntN(1000))
		w, r := f.h.historian(f.rng, f.idle[through-1]), f.h.historian(f.rng, f.idle[at-1])
		f.h.wg.Go(func() {
			defer f.crossing[i].Store(false)
			if w.do(registerInput{kind: opPut, key: key, value: value}) {
				written <- struct{}{}
				r.do(registerInput{kind: opGet, key: key})
			}
		})
	}
	enough := time.After(atMost)
	for range begun {
		select {
		case <-written:
		case <-enough:
			return
		}
	}
}

// mute cuts off what n sends; it still hears the others.
func (f *faults) mute(n *testcluster.Node) {
	f.oneWay(n, func(o *testcluster.Node) *testcluster.Link { return f.c.Link(n, o) })
}

// deafen cuts off what n is sent; the others still hear it.
func (f *faults) deafen(n *testcluster.Node) {
	f.oneWay(n, func(o *testcluster.Node) *testcluster.Link { return f.c.Link(o, n) })
}

func (f *faults) oneWay(n *testcluster.Node, link func(*testcluster.Node) *testcluster.Link) {
	for _, o := range f.c.Nodes() {
		if o != n {
			link(o).Cut()
		}
	}
	awaitLedWithout(f.t, f.c, n)
	f.progress()
	f.c.Heal()
}

func (f *faults) slow() {
	for _, a := range f.c.Nodes() {
		for _, b := range f.c.Nodes() {
			if a != b {
				f.c.Link(a, b).Delay(f.upTo(80 * time.Millisecond))
			}
		}
	}
	f.progress()
	f.c.Heal()
}

func (f *faults) transfer() { f.transferTo(func(int) bool { return true }) }

// transferTo moves every leadership to a node that may have it.
func (f *faults) transferTo(may func(node int) bool) {
	for shard := range 3 {
		to := f.rng.IntN(len(f.c.Nodes())) + 1
		for !may(to) {
			to = f.rng.IntN(len(f.c.Nodes())) + 1
		}
		f.c.Admin(command.AdminTransfer, command.ShardArgs{Shard: shard, To: uint64(to)})
	}
	f.progress()
}

func (f *faults) killAll() {
	for _, n := range f.c.Nodes() {
		n.Kill()
	}
	f.c.Start()
}

// clockFile is where a server reads by how much its clock is wrong.
func clockFile(n *testcluster.Node) string { return filepath.Join(filepath.Dir(n.Dir()), "clock") }

// setClock sets a running server's wall clock off.
func (f *faults) setClock(n *testcluster.Node, off time.Duration) {
	if err := os.WriteFile(clockFile(n), []byte(off.String()), 0o644); err != nil {
		f.t.Fatal(err)
	}
}

// clocks sets the wall clock of one server, which leads, forward and back.
// Expiry does not follow it.
func (f *faults) clocks() {
	key, value := []byte("lives for half an hour"), []byte("v")
	c := f.h.clients[0]
	if _, err := c.Put(context.Background(), key, value, client.WithTTL(30*time.Minute)); err != nil {
		f.t.Error(err)
	}
	n := f.leader()
	for _, off := range []time.Duration{time.Hour, -time.Hour, 0} {
		f.setClock(n, off)
		f.progress()
		f.transferTo(func(node int) bool { return off == 0 || node != f.c.ID(n) }) // one whose clock is off takes none
	}
	if item, err := c.Get(context.Background(), key); err != nil || string(item.Value) != string(value) {
		f.t.Errorf("a row that lives for half an hour is %q, an hour later by one clock: %v", item.Value, err)
	}
}

// scatter leaves no two servers together.
func (f *faults) scatter() {
	var groups [][]*testcluster.Node
	for _, n := range f.c.Nodes() {
		groups = append(groups, []*testcluster.Node{n})
	}
	f.c.Partition(groups...)
	f.lasts(2*electionTimeoutMax + f.upTo(electionTimeoutMax))
	f.c.Heal()
}

func (f *faults) killTwo() {
	a := f.leader()
	a.Kill()
	awaitLedWithout(f.t, f.c, a)
	b := f.leader()
	b.Kill()
	awaitLedWithout(f.t, f.c, b)
	f.progress()
	f.c.Start()
}

func (f *faults) minority() {
	a := f.leader()
	b := f.c.Node(f.c.ID(a)%5 + 1)
	f.c.Partition([]*testcluster.Node{a, b})
	awaitLedWithout(f.t, f.c, a, b)
	f.progress()
	f.c.Heal()
}

func (f *faults) cutAndKill() {
	a := f.leader()
	f.c.Isolate(a)
	b := f.c.Node(f.c.ID(a)%5 + 1)
	b.Kill()
	awaitLedWithout(f.t, f.c, a, b)
	f.progress()
	f.c.Heal()
	b.Start()
}
