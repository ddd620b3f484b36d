package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/proa-kv/proa/protocol"
)

// From one endpoint the client finds all nodes, and each request goes straight
// to the leader of its shard.
func TestRequestsGoToLeaders(t *testing.T) {
	cl := newFakeCluster(t, 3)
	c := cl.dial(false, nil, 1)
	for shard := range fakeShards { // whoever leads it is connected to on demand
		n := c.router.table.Load().leaderOf(keyIn(shard, 0))
		eventually(t, func() bool {
			if _, err := c.Put(t.Context(), keyIn(shard, 0), nil); err != nil {
				t.Fatal(err)
			}
			return len(*n.ready.Load()) > 0
		})
	}
	cl.forgetRequests()
	ctx := t.Context()
	for shard, want := range [fakeShards][]int{{7, 0, 0}, {0, 7, 0}, {0, 0, 7}, {7, 0, 0}} {
		k := keyIn(shard, 1)
		c.Put(ctx, k, []byte("1"))
		c.Get(ctx, k)
		c.Incr(ctx, k, 1)
		c.Stat(ctx, k)
		c.Batch(ctx, NewBatch().Put(k, nil))
		c.Txn(ctx, NewTxn().If(Present(k)).Then(OpGet(k)))
		c.GetAsync(k).Wait(ctx)
		if got := cl.counts(); !slices.Equal(got, want) {
			t.Errorf("shard %d: requests %v, want %v", shard, got, want)
		}
	}
	// A request over several shards goes to the node that leads most of them.
	several := [][]byte{keyIn(0, 0), keyIn(1, 0), keyIn(1, 1), keyIn(2, 0)}
	c.MGet(ctx, several)
	b := NewBatch().NonAtomic()
	for _, k := range several {
		b.Put(k, nil)
	}
	c.Batch(ctx, b)
	if got := cl.counts(); !slices.Equal(got, []int{0, 2, 0}) {
		t.Errorf("requests over several shards: %v", got)
	}
}

// A leader that moved is learned from the first reply, which is good already.
func TestLeaderMoves(t *testing.T) {
	cl := newFakeCluster(t, 3)
	c := cl.dial(true, nil, 1)
	k := keyIn(1, 0)
	for i, test := range []struct {
		leader         uint64
		refuse, silent bool
		want           []int // requests of the first call
	}{
		{1, false, false, []int{0, 1, 0}}, // forwarded by node 2, the old leader
		{3, true, false, []int{1, 0, 1}},  // refused by node 1, which names node 3
		{2, false, false, []int{0, 0, 1}},
	} {
		cl.set(func() { cl.leaders[1], cl.refuse, cl.silent = test.leader, test.refuse, test.silent })
		if _, err := c.Put(t.Context(), k, nil); err != nil {
			t.Fatal(err)
		}
		if got := cl.counts(); !slices.Equal(got, test.want) {
			t.Errorf("%d: requests %v, want %v", i, got, test.want)
		}
		if n := c.router.table.Load().leaderOf(k); n == nil || n.id != test.leader {
			t.Errorf("%d: thinks %v leads, want %d", i, n, test.leader)
		}
		if _, err := c.Get(t.Context(), k); !errors.Is(err, nil) {
			t.Fatal(err)
		}
		if got := cl.counts(); got[test.leader-1] != 1 || got[0]+got[1]+got[2] != 1 {
			t.Errorf("%d: next request %v", i, got)
		}
	}
}

// A node that refuses without saying who leads: the others are asked, and the
// one that carries out the write by itself is the leader.
func TestNotLeaderWithoutHint(t *testing.T) {
	cl := newFakeCluster(t, 3)
	c := cl.dial(true, nil, 1)
	k := keyIn(1, 0)
	cl.set(func() {
		cl.leaders[1], cl.refuse, cl.silent = 3, true, true
		for _, f := range cl.nodes { // nor is it to be learned otherwise
			f.intercept = func(_ *fakeConn, fr *protocol.Frame, _ *protocol.Extensions) verdict {
				if protocol.Opcode(fr.Code) != protocol.OpRoutes {
					return verdict{}
				}
				return verdict{reply: errorFrame(protocol.StatusUnsupported, 0, "")}
			}
		}
	})
	if _, err := c.Put(t.Context(), k, nil); err != nil {
		t.Fatal(err)
	}
	if got := cl.counts(); got[1] == 0 || got[2] != 1 {
		t.Errorf("requests %v", got)
	}
	if n := c.router.table.Load().leaderOf(k); n == nil || n.id != 3 {
		t.Errorf("thinks that %v leads", n)
	}
}

// Two nodes that each name the other cost a few requests, with pauses between
// them, until one leads.
func TestNotLeaderLoop(t *testing.T) {
	cl := newFakeCluster(t, 3)
	c := cl.dial(true, nil, 1)
	k := keyIn(1, 0)
	cl.set(func() {
		cl.refuse, cl.leaders[1] = true, 3
		for i, f := range cl.nodes {
			other := uint64(2 - i%2)
			f.intercept = func(_ *fakeConn, fr *protocol.Frame, _ *protocol.Extensions) verdict {
				if protocol.Opcode(fr.Code) != protocol.OpPut {
					return verdict{}
				}
				return verdict{reply: notLeader(other)}
			}
		}
	})
	start := time.Now()
	put := c.PutAsync(k, nil)
	eventually(t, func() bool {
		cl.mu.Lock()
		defer cl.mu.Unlock()
		return len(cl.nodes[0].requests)+len(cl.nodes[1].requests) >= 6
	})
	// Pauses of 0, 10, 20, 40, 80 ms, each shortened by up to a half.
	if d := time.Since(start); d < 75*time.Millisecond {
		t.Errorf("6 requests in %v", d)
	}
	if got := cl.counts(); got[2] != 0 {
		t.Errorf("requests %v", got)
	}
	cl.set(func() {
		for _, f := range cl.nodes {
			f.intercept = nil
		}
	})
	if _, err := put.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func notLeader(leader uint64) []byte {
	x := protocol.Extensions{Leader: leader}
	b := x.AppendTo(protocol.Begin(nil, uint8(protocol.StatusNotLeader), protocol.FlagReply|protocol.FlagExtensions, 0))
	return protocol.End((&protocol.ErrorReply{}).AppendTo(b), 0)
}

// Behind a load balancer, or where advertised addresses lead nowhere, the
// servers forward.
func TestUnreachableAddresses(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	for name, address := range map[string]func(*fakeCluster) string{
		"refused":     func(*fakeCluster) string { return closed.Addr().String() },
		"nowhere":     func(*fakeCluster) string { return "0.0.0.0:7400" },
		"nothing":     func(*fakeCluster) string { return "" },
		"other node":  func(cl *fakeCluster) string { return cl.nodes[2].address() },
		"unix socket": func(*fakeCluster) string { return "unix:///nowhere" },
	} {
		t.Run(name, func(t *testing.T) {
			cl := newFakeCluster(t, 3)
			cl.set(func() { cl.address[0], cl.address[1], cl.address[2] = address(cl), address(cl), address(cl) })
			if name == "other node" {
				cl.set(func() { cl.address[2] = "" })
			}
			c := cl.dial(false, nil, 1)
			for i := range 50 {
				if _, err := c.Put(t.Context(), keyIn(i%fakeShards, i), nil); err != nil {
					t.Fatal(err)
				}
			}
			if got := cl.counts(); !slices.Equal(got, []int{50, 0, 0}) {
				t.Errorf("requests %v", got)
			}
			if name == "other node" {
				n := c.router.table.Load().nodes[2]
				eventually(t, func() bool {
					c.pool.mu.Lock()
					defer c.pool.mu.Unlock()
					return n.endpoint != nil && errors.Is(n.endpoint.failure(0).Err, ErrHandshake)
				})
			}
		})
	}
}

// A load balancer may lead to any node: the connection counts as that node's.
func TestLoadBalancer(t *testing.T) {
	cl := newFakeCluster(t, 3)
	cl.set(func() { clear(cl.address) })
	balancer, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { balancer.Close(); wg.Wait() })
	var turn atomic.Int32
	wg.Go(func() {
		for {
			nc, err := balancer.Accept()
			if err != nil {
				return
			}
			there, err := net.Dial("tcp", cl.nodes[turn.Add(1)%3].address())
			if err != nil {
				nc.Close()
				continue
			}
			pipe := func(a, b net.Conn) { defer a.Close(); defer b.Close(); copyAll(a, b) }
			wg.Go(func() { pipe(nc, there) })
			wg.Go(func() { pipe(there, nc) })
		}
	})
	c := cl.dial(false, func(cfg *Config) { cfg.Endpoints, cfg.Connections = []string{balancer.Addr().String()}, 3 })
	cl.connect(c)
	for shard := range fakeShards {
		c.Put(t.Context(), keyIn(shard, 0), nil)
	}
	if got := cl.counts(); !slices.Equal(got, []int{2, 1, 1}) {
		t.Errorf("requests %v", got)
	}
	c.Close()
}

func copyAll(dst, src net.Conn) {
	b := make([]byte, 32<<10)
	for {
		n, err := src.Read(b)
		if n > 0 {
			if _, err := dst.Write(b[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// A node that joined after the client began is found by the hint of a reply.
func TestNewEpoch(t *testing.T) {
	cl := newFakeCluster(t, 3)
	c := cl.dial(true, nil, 1)
	cl.add()
	cl.set(func() { cl.epoch, cl.leaders[0] = 2, 4 })
	k := keyIn(0, 0)
	if _, err := c.Put(t.Context(), k, nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return c.router.table.Load().epoch == 2 })
	cl.connect(c)
	c.Put(t.Context(), k, nil)
	if got := cl.counts(); !slices.Equal(got, []int{0, 0, 0, 1}) {
		t.Errorf("requests %v", got)
	}
	// An epoch alone is reason enough to ask again.
	cl.set(func() { cl.epoch, cl.leaders[0] = 3, 1 })
	if _, err := c.Put(t.Context(), k, nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return c.router.table.Load().epoch == 3 })
	// A node that has left is forgotten, with its connections.
	gone := c.router.table.Load().nodes[2]
	cl.set(func() {
		cl.epoch, cl.address[1] = 4, "elsewhere.invalid:1"
		cl.leaders = [fakeShards]uint64{4, 1, 4, 1}
	})
	c.router.refreshSoon()
	eventually(t, func() bool { return c.router.table.Load().epoch == 4 && len(*gone.ready.Load()) == 0 })
	for i := range 20 {
		if _, err := c.Put(t.Context(), keyIn(i%fakeShards, i), nil); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAdoptRoutes(t *testing.T) {
	c, err := newClient(Config{Endpoints: []string{"h"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	reply := func(epoch, leader uint64, nodes ...uint64) *protocol.RoutesReply {
		m := &protocol.RoutesReply{Epoch: epoch, Shards: []protocol.RouteShard{
			{ID: 7, Leader: leader, Slots: []protocol.SlotRange{{First: 0, Last: 99}, {First: 200, Last: 299}}},
			{ID: 8, Leader: 99, Slots: []protocol.SlotRange{{First: 100, Last: 199}}},
		}}
		for _, id := range nodes {
			m.Nodes = append(m.Nodes, protocol.RouteNode{ID: id})
		}
		return m
	}
	leads := func(slot uint16) uint64 {
		if n := c.router.table.Load().leader(slot); n != nil {
			return n.id
		}
		return 0
	}
	for i, step := range []struct {
		m     *protocol.RoutesReply
		epoch uint64
		want  uint64
	}{
		{reply(5, 1, 1, 2, 3), 5, 1},
		{reply(4, 2, 1, 2, 3), 5, 1},    // older
		{reply(5, 2, 1, 2, 3), 5, 2},    // the leader moved
		{reply(5, 0, 1, 2, 3), 5, 2},    // a node that does not know
		{reply(6, 0, 1, 3), 6, 0},       // the leader left
		{reply(7, 3, 0, 1, 3), 7, 3},    // no node has number 0
		{reply(7, 0, 1, 3, 4), 7, 3},    // still known
		{reply(8, 3, 3), 8, 3},          // one node alone
		{reply(9, 12, 1, 2, 3), 9, 0},   // a leader that is not listed
		{&protocol.RoutesReply{}, 9, 0}, // epoch 0
	} {
		c.router.adopt(step.m)
		tab := c.router.table.Load()
		if tab.epoch != step.epoch || leads(0) != step.want || leads(99) != step.want || leads(299) != step.want {
			t.Errorf("%d: epoch %d, leader %d", i, tab.epoch, leads(0))
		}
		if leads(100) != 0 || leads(300) != 0 || leads(protocol.Slots-1) != 0 || tab.nodes[0] != nil {
			t.Errorf("%d: leaders %d, %d for slots that have none", i, leads(100), leads(300))
		}
		if tab.several != (len(tab.nodes) > 1) || len(c.pool.nodes) != len(tab.nodes) {
			t.Errorf("%d: %d nodes kept for %d", i, len(c.pool.nodes), len(tab.nodes))
		}
	}
}

func TestAdvertisedAddresses(t *testing.T) {
	for address, want := range map[string]string{
		"h:1": "h:1", "10.0.0.1:7400": "10.0.0.1:7400", "[2001:db8::1]:5": "[2001:db8::1]:5",
		"": "", ":7400": "", "h": "", "0.0.0.0:7400": "", "[::]:7400": "", "unix:///s": "", "h/x:1": "",
	} {
		ep, ok := parseAdvertised(address)
		if ok != (want != "") || ep.address != want {
			t.Errorf("%q: %q, %v", address, ep.address, ok)
		}
	}
}

// The only endpoint dies. The client knows the other nodes by ROUTES, although
// it has not been connected to them.
func TestEndpointDies(t *testing.T) {
	cl := newFakeCluster(t, 3)
	cl.set(func() { cl.leaders = [fakeShards]uint64{1, 1, 1, 1} })
	c := cl.dial(false, nil, 1)
	if _, err := c.Put(t.Context(), keyIn(0, 0), nil); err != nil {
		t.Fatal(err)
	}
	if n := len(*c.pool.ready.Load()); n != 1 {
		t.Fatalf("%d connections for one leader", n)
	}
	cl.nodes[0].close()
	cl.set(func() { cl.leaders = [fakeShards]uint64{2, 3, 2, 3} })
	for i := range 8 {
		if _, err := c.Put(t.Context(), keyIn(i%fakeShards, i), nil); err != nil && !errors.Is(err, ErrOutcomeUnknown) {
			t.Fatal(err)
		}
	}
	// When it is back it is used again, in place of its advertised address.
	cl.restart(1)
	cl.set(func() { cl.leaders = [fakeShards]uint64{1, 1, 1, 1} })
	n := c.router.table.Load().nodes[1]
	eventually(t, func() bool {
		if _, err := c.Put(t.Context(), keyIn(0, 0), nil); err != nil {
			t.Fatal(err)
		}
		return len(*n.ready.Load()) == 1
	})
}

// A connection by an advertised address gives way to a configured endpoint of
// the same node, without an error.
func TestEndpointSupersedesLink(t *testing.T) {
	cl := newFakeCluster(t, 2)
	behind, err := net.Listen("tcp", "127.0.0.1:0") // another way to node 2, not open yet
	if err != nil {
		t.Fatal(err)
	}
	address := behind.Addr().String()
	behind.Close()
	c := cl.dial(true, func(cfg *Config) { cfg.Endpoints = append(cfg.Endpoints, address) }, 1)
	n := c.router.table.Load().nodes[2]
	first := (*n.ready.Load())[0]
	if first.ep.node != n {
		t.Fatal("not connected by the advertised address")
	}
	f := cl.listen(2, address)
	f.start()
	eventually(t, func() bool {
		if _, err := c.Put(t.Context(), keyIn(1, 0), nil); err != nil {
			t.Fatal(err)
		}
		ready := *n.ready.Load()
		return len(ready) == 1 && ready[0].ep.node == nil
	})
	<-first.gone
	// And back, when that way is closed.
	f.close()
	eventually(t, func() bool {
		if _, err := c.Get(t.Context(), keyIn(1, 0)); err != nil {
			t.Fatal(err)
		}
		ready := *n.ready.Load()
		return len(ready) == 1 && ready[0].ep.node == n
	})
}

func TestForwardOnly(t *testing.T) {
	cl := newFakeCluster(t, 3)
	c := dial(t, nil, cl.nodes[0])
	for i := range 20 {
		if _, err := c.Put(t.Context(), keyIn(i%fakeShards, i), nil); err != nil {
			t.Fatal(err)
		}
	}
	cl.set(func() {
		for i, want := range []int{20, 0, 0} {
			if got := cl.nodes[i].requests; len(got) != want {
				t.Errorf("node %d: %d requests", i+1, len(got))
			}
		}
	})
}

// An endpoint of another cluster is not mixed in. When all connections are
// gone, a cluster that was made anew is taken for what it is.
func TestOtherCluster(t *testing.T) {
	f, g := newFake(t), newFake(t)
	hello := func(cluster uint64) func(*fakeConn, *protocol.Hello) []byte {
		return func(*fakeConn, *protocol.Hello) []byte {
			r := protocol.HelloReply{Version: 1, Node: 1, Cluster: cluster}
			return protocol.End(r.AppendTo(protocol.Begin(nil, 0, protocol.FlagReply, 0)), 0)
		}
	}
	f.hello, g.hello = hello(7), hello(7)
	c := dial(t, func(cfg *Config) { cfg.SessionReads = true }, f, g)
	eventually(t, func() bool { return len(*c.pool.ready.Load()) == 2 })
	c.Put(t.Context(), []byte("k"), nil)
	g.set(func() { g.hello = hello(8) })
	g.dropAll()
	eventually(t, func() bool { return errors.Is(c.pool.endpoints[1].failure(0).Err, ErrHandshake) })
	if n := len(*c.pool.ready.Load()); n != 1 {
		t.Errorf("%d connections", n)
	}
	f.close()
	eventually(t, func() bool { info, ok := c.Server(); return ok && info.Cluster == 8 })
	if v := c.seen[protocol.Slot([]byte("k"))].Load(); v != 0 {
		t.Errorf("a token of the old cluster is kept: %d", v)
	}
	if _, err := c.Put(t.Context(), []byte("k"), nil); err != nil {
		t.Fatal(err)
	}
}

// A client that is told its cluster sends nothing to a server of another one:
// neither when it begins, nor when the cluster behind an address is made anew.
func TestPinnedCluster(t *testing.T) {
	hello := func(cluster uint64) func(*fakeConn, *protocol.Hello) []byte {
		return func(*fakeConn, *protocol.Hello) []byte {
			r := protocol.HelloReply{Version: 1, Node: 1, Cluster: cluster}
			return protocol.End(r.AppendTo(protocol.Begin(nil, 0, protocol.FlagReply, 0)), 0)
		}
	}
	f, g := newFake(t), newFake(t)
	f.record, g.record = true, true
	f.hello, g.hello = hello(7), hello(8)
	_, err := New(t.Context(), Config{Endpoints: []string{g.address()}, Cluster: 7})
	var wrong *WrongClusterError
	if !errors.Is(err, ErrWrongCluster) || !errors.As(err, &wrong) {
		t.Fatalf("New: %v", err)
	}
	if diff := cmp.Diff(WrongClusterError{Endpoint: g.address(), Want: 7, Got: 8}, *wrong); diff != "" {
		t.Error(diff)
	}
	if !strings.Contains(err.Error(), "0000000000000008, not 0000000000000007") || !SafeToRetry(err) {
		t.Errorf("%v", err)
	}

	c := dial(t, func(cfg *Config) { cfg.Cluster = 7 }, f, g)
	if _, err := c.Put(t.Context(), []byte("k"), nil); err != nil {
		t.Fatal(err)
	}
	f.set(func() { f.hello = hello(9) })
	f.dropAll()
	for _, ep := range c.pool.endpoints {
		eventually(t, func() bool { return errors.Is(ep.failure(0).Err, ErrWrongCluster) })
	}
	if _, err := c.Put(t.Context(), []byte("k"), nil, WithTimeout(50*time.Millisecond)); !errors.Is(err, ErrWrongCluster) {
		t.Errorf("after the cluster was made anew: %v", err)
	}
	g.set(func() {
		if len(g.requests) != 0 {
			t.Errorf("%d requests to a server of another cluster", len(g.requests))
		}
	})
}

// An advertised address may lead to a node of the same number in a cluster that
// has nothing to do with this one. It is not taken, whatever happens.
func TestAdvertisedAddressOfOtherCluster(t *testing.T) {
	cl := newFakeCluster(t, 2)
	other := newFake(t)
	other.set(func() {
		other.node = 2
		other.hello = func(*fakeConn, *protocol.Hello) []byte {
			r := protocol.HelloReply{Version: 1, Node: 2, Cluster: 77}
			return protocol.End(r.AppendTo(protocol.Begin(nil, 0, protocol.FlagReply, 0)), 0)
		}
	})
	cl.set(func() { cl.address[1] = other.address() })
	c := cl.dial(false, nil, 1)
	cl.nodes[0].close() // no connection is left
	n := c.router.table.Load().nodes[2]
	eventually(t, func() bool {
		c.pool.mu.Lock()
		defer c.pool.mu.Unlock()
		return n.endpoint != nil && errors.Is(n.endpoint.failure(0).Err, ErrHandshake)
	})
	if _, err := c.Get(t.Context(), []byte("k"), WithTimeout(20*time.Millisecond)); !errors.Is(err, ErrUnavailable) {
		t.Error(err)
	}
}

// Leaders are killed under load, one after the other, and elections take a
// while. Nobody with a session sees an error, nor does a reader, and every
// write takes effect once.
func TestFailover(t *testing.T) {
	cl := newFakeCluster(t, 3)
	c := cl.dial(true, func(cfg *Config) { cfg.ExactlyOnce = true }, 1, 2, 3)
	var wg sync.WaitGroup
	stop := make(chan struct{})
	var writes, reads atomic.Int64
	for g := range 8 {
		k := keyIn(g%fakeShards, g)
		wg.Go(func() {
			for n := int64(1); ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				if got, err := c.Incr(t.Context(), k, 1); err != nil || got != n {
					t.Errorf("write %d: %d, %v", n, got, err)
					return
				}
				writes.Add(1)
			}
		})
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := c.Get(t.Context(), k); err != nil && !errors.Is(err, ErrNotFound) {
					t.Error(err)
					return
				}
				reads.Add(1)
			}
		})
	}
	progress := func() {
		t.Helper()
		w, r := writes.Load(), reads.Load()
		eventually(t, func() bool { return t.Failed() || writes.Load() > w+100 && reads.Load() > r+100 })
	}
	for round := range 6 {
		victim := round%3 + 1
		progress()
		cl.set(func() {
			for i := range cl.leaders {
				if cl.leaders[i] == uint64(victim) {
					cl.leaders[i] = 0
				}
			}
		})
		cl.nodes[victim-1].close()
		elected := make(chan struct{})
		time.AfterFunc(20*time.Millisecond, func() {
			cl.set(func() {
				for i := range cl.leaders {
					if cl.leaders[i] == 0 {
						cl.leaders[i] = uint64(victim%3 + 1)
					}
				}
			})
			close(elected)
		})
		<-elected
		progress()
		cl.restart(victim)
	}
	close(stop)
	wg.Wait()
	cl.set(func() {
		if cl.applied != int(writes.Load()) {
			t.Errorf("%d writes acknowledged, %d took effect", writes.Load(), cl.applied)
		}
	})
	checkSessionIdle(t, c)
}

// A node announces its end while requests stream to it, and hands its shards
// over: what was sent is answered, the rest goes to the new leader, no session
// is needed.
func TestGoAwayUnderLoad(t *testing.T) {
	cl := newFakeCluster(t, 3)
	c := cl.dial(true, nil, 1, 2, 3)
	var futures []*Future[WriteResult]
	for i := range 2000 {
		if i == 1000 {
			cl.set(func() {
				for cn := range cl.nodes[1].conns {
					cn.send(errorFrameFor(0, protocol.StatusGoAway))
				}
				cl.leaders[1] = 3
				cl.nodes[1].intercept = func(_ *fakeConn, fr *protocol.Frame, _ *protocol.Extensions) verdict {
					return verdict{reply: errorFrame(protocol.StatusShuttingDown, 0, "")}
				}
			})
		}
		futures = append(futures, c.PutAsync(keyIn(1, i%8), nil))
	}
	for i, p := range futures {
		if _, err := p.Wait(t.Context()); err != nil {
			t.Fatalf("write %d: %v", i, err)
		}
	}
	cl.set(func() {
		if cl.applied != len(futures) {
			t.Errorf("%d took effect", cl.applied)
		}
	})
}

// A node that refuses is avoided by the next attempt, unless any other would
// only forward the request there.
func TestNextAttempt(t *testing.T) {
	for _, test := range []struct {
		status Status
		want   []int // requests by the leader and by the others
	}{
		{protocol.StatusShuttingDown, []int{1, 1}},
		{protocol.StatusNoQuorum, []int{1, 1}},
		{protocol.StatusBusy, []int{2, 0}},
	} {
		cl := newFakeCluster(t, 3)
		c := cl.dial(true, nil, 1)
		cl.set(func() {
			cl.nodes[1].intercept = once(protocol.OpPut, verdict{reply: errorFrame(test.status, 0, "")})
		})
		if _, err := c.Put(t.Context(), keyIn(1, 0), nil); err != nil {
			t.Fatal(err)
		}
		if got := cl.counts(); got[1] != test.want[0] || got[0]+got[2] != test.want[1] {
			t.Errorf("%v: requests %v, want %v", test.status, got, test.want)
		}
	}
}

// Whether the next attempt may begin without a pause.
func TestMoved(t *testing.T) {
	cl := newFakeCluster(t, 2)
	c := cl.dial(true, nil, 1)
	cn := (*c.router.table.Load().nodes[2].ready.Load())[0]
	for _, test := range []struct {
		status Status
		leader uint64
		want   bool
	}{
		{protocol.StatusNotLeader, 1, true}, {protocol.StatusNotLeader, 2, false}, {protocol.StatusNotLeader, 0, false},
		{protocol.StatusShuttingDown, 0, true}, {protocol.StatusNoQuorum, 1, false}, {protocol.StatusBusy, 1, false},
	} {
		if got := c.dispatcher.moved(cn, test.status, test.leader); got != test.want {
			t.Errorf("%v naming %d: %v", test.status, test.leader, got)
		}
	}
}

// Every answer after which a session makes another attempt safe leads to one, as
// long as the deadline lasts, whatever came before; the write takes effect once.
func TestSessionRetriesUntilTheDeadline(t *testing.T) {
	answers := []Status{
		protocol.StatusNoQuorum, protocol.StatusNotLeader, protocol.StatusBusy, protocol.StatusDropped,
		protocol.StatusShuttingDown, protocol.StatusDeadlineExceeded,
		protocol.StatusInternal, protocol.StatusTimeout, protocol.StatusStorageFailed, protocol.StatusInternal, protocol.StatusTimeout,
	}
	f := newFake(t)
	f.record = true
	n := 0
	f.intercept = func(cn *fakeConn, fr *protocol.Frame, x *protocol.Extensions) verdict {
		if n++; n > len(answers) {
			return verdict{}
		}
		status := answers[n-1]
		if status.Outcome() == Unknown { // it took effect
			start := len(cn.out)
			cn.execute(fr, x)
			cn.out = cn.out[:start]
		}
		if n%4 == 0 {
			return verdict{drop: true}
		}
		return verdict{reply: errorFrame(status, 0, "")}
	}
	c := dial(t, func(cfg *Config) {
		cfg.ExactlyOnce, cfg.BackoffMin, cfg.RequestTimeout = true, time.Millisecond, time.Minute
	}, f)
	if got, err := c.Incr(t.Context(), []byte("n"), 1); got != 1 || err != nil {
		t.Fatalf("%d, %v", got, err)
	}
	f.set(func() {
		if f.applied != 1 || len(f.requests) != len(answers)+1 {
			t.Errorf("%d attempts, %d writes took effect", len(f.requests), f.applied)
		}
	})
	checkSessionIdle(t, c)
}

// At the deadline the outcome of a write is unknown, and not before: advice to
// wait longer does not end the search. What ends it early is that the session
// is gone.
func TestSessionGivesUpAtTheDeadline(t *testing.T) {
	f := newFake(t)
	f.record = true
	status, wait := protocol.StatusInternal, uint32(0)
	f.intercept = func(*fakeConn, *protocol.Frame, *protocol.Extensions) verdict {
		return verdict{reply: errorFrame(status, wait, "")}
	}
	c := dial(t, func(cfg *Config) { cfg.ExactlyOnce = true }, f)
	const timeout = 600 * time.Millisecond
	for _, wait = range []uint32{0, 60_000} {
		f.set(func() { f.requests = nil })
		start := c.now()
		_, err := c.Incr(t.Context(), []byte("n"), 1, WithTimeout(timeout))
		if !errors.Is(err, ErrOutcomeUnknown) {
			t.Errorf("%+v", err)
		}
		if took := time.Duration(c.now() - start); took < timeout-2*retryPauseMin {
			t.Errorf("given up after %v", took)
		}
	}
	// Nor does silence after an answer make that answer unheard. An attempt of before may
	// still be on its way.
	ctx, cancel := context.WithCancel(t.Context())
	f.set(func() {
		f.intercept = func(_ *fakeConn, fr *protocol.Frame, _ *protocol.Extensions) verdict {
			if !bytes.Contains(fr.Body, []byte("heard")) {
				return verdict{}
			}
			if status == 0 {
				cancel()
				return verdict{skip: true}
			}
			defer func() { status = 0 }()
			return verdict{reply: errorFrame(status, 0, "")}
		}
	})
	if _, err := c.Incr(ctx, []byte("heard"), 1); !errors.Is(err, ErrOutcomeUnknown) || !errors.Is(err, context.Canceled) || !errors.Is(err, ErrInternal) {
		t.Errorf("%+v", err)
	}
	f.set(func() {
		f.intercept = func(*fakeConn, *protocol.Frame, *protocol.Extensions) verdict {
			return verdict{reply: errorFrame(protocol.StatusSessionExpired, 0, "")}
		}
	})
	var e *Error
	if _, err := c.Incr(t.Context(), []byte("n"), 1); !errors.Is(err, ErrSessionExpired) || !errors.Is(err, ErrOutcomeUnknown) || !errors.As(err, &e) || e.Attempts != 1 {
		t.Errorf("%+v", err)
	}
	checkSessionIdle(t, c)
}

// A part of a batch whose outcome got lost is asked for again, together with the
// rest, which the session keeps from being done twice.
func TestSessionRetriesLostParts(t *testing.T) {
	f := newFake(t)
	f.record = true
	lost := 6
	f.intercept = func(cn *fakeConn, fr *protocol.Frame, x *protocol.Extensions) verdict {
		if lost--; lost < 0 {
			return verdict{}
		}
		start := len(cn.out)
		cn.execute(fr, x)
		cn.out = cn.out[:start]
		m := protocol.BatchReply{Results: protocol.OpResults{{Status: protocol.StatusNoQuorum}, {Status: protocol.StatusTimeout}}}
		if lost%2 == 0 { // what was refused now may have been done before
			m.Results[1].Status = protocol.StatusNoQuorum
		}
		return verdict{reply: protocol.End(m.AppendTo(protocol.Begin(nil, 0, protocol.FlagReply, 0)), 0)}
	}
	session := dial(t, func(cfg *Config) { cfg.ExactlyOnce = true }, f)
	b := NewBatch().Incr([]byte("a"), 1).Incr([]byte("b"), 1).NonAtomic()
	results, err := session.Batch(t.Context(), b)
	if err != nil || results[0].Err != nil || results[1].Err != nil || results[0].Integer != 1 || results[1].Integer != 1 {
		t.Fatalf("%+v, %v", results, err)
	}
	f.set(func() {
		for _, r := range f.requests {
			if r.x.Sequence != 1 {
				t.Errorf("sequence %d", r.x.Sequence)
			}
		}
	})
	checkSessionIdle(t, session)
}

// Without a session the outcome of a write remains unknown, and a read is
// repeated; not for ever where every attempt ends in INTERNAL, and others do
// not count against that.
func TestUnknownOutcomeWithoutSession(t *testing.T) {
	f := newFake(t)
	f.record = true
	status, failures := protocol.StatusInternal, 0
	f.intercept = func(*fakeConn, *protocol.Frame, *protocol.Extensions) verdict {
		if failures--; failures < 0 {
			return verdict{}
		}
		return verdict{reply: errorFrame(status, 0, "")}
	}
	c := dial(t, nil, f)
	fail := func(s Status, n int) { f.set(func() { status, failures, f.requests = s, n, nil }) }
	for _, s := range []Status{protocol.StatusInternal, protocol.StatusTimeout} {
		fail(s, 1)
		if _, err := c.Incr(t.Context(), []byte("n"), 1); !errors.Is(err, ErrOutcomeUnknown) {
			t.Errorf("%v: %v", s, err)
		}
	}
	fail(protocol.StatusNoQuorum, internalRetries+2)
	if _, err := c.Get(t.Context(), []byte("n")); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	fail(protocol.StatusInternal, internalRetries)
	if _, err := c.Get(t.Context(), []byte("n")); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	fail(protocol.StatusInternal, 100)
	var e *Error
	if _, err := c.Get(t.Context(), []byte("n")); !errors.Is(err, ErrInternal) || !errors.As(err, &e) || e.Attempts != internalRetries+1 {
		t.Error(err)
	}
}

// While no node has a majority, calls try again, and say so when their time is
// up.
func TestNoQuorum(t *testing.T) {
	cl := newFakeCluster(t, 3)
	c := cl.dial(true, nil, 1)
	cl.set(func() { cl.leaders[2], cl.advice = 0, 60_000 })
	k := keyIn(2, 0)
	if _, err := c.Put(t.Context(), k, nil); !errors.Is(err, ErrNoQuorum) || !SafeToRetry(err) {
		t.Fatal(err) // no time is left for another attempt
	}
	cl.set(func() { cl.advice = 0 })
	ctx, cancel := context.WithCancel(t.Context())
	waiting := make(chan error, 1)
	go func() {
		_, err := c.Put(ctx, k, nil)
		waiting <- err
	}()
	eventually(t, func() bool {
		c.dispatcher.mu.Lock()
		defer c.dispatcher.mu.Unlock()
		for ca := range c.dispatcher.delayed {
			if ca.attempts.Load() > 2 {
				return true
			}
		}
		return false
	})
	cancel()
	if err := <-waiting; !errors.Is(err, ErrNoQuorum) || !errors.Is(err, context.Canceled) || !SafeToRetry(err) {
		t.Error(err)
	}
	put := c.PutAsync(k, nil)
	cl.set(func() { cl.leaders[2] = 3 })
	if _, err := put.Wait(t.Context()); err != nil {
		t.Error(err)
	}
}

// Reads that any replica may answer go to all of them; their age is told.
func TestWeakReadsAreSpread(t *testing.T) {
	cl := newFakeCluster(t, 3)
	c := cl.dial(true, func(cfg *Config) { cfg.SessionReads = true }, 1)
	k := keyIn(1, 0)
	w, err := c.Put(t.Context(), k, []byte("v"))
	if err != nil {
		t.Fatal(err)
	}
	cl.forgetRequests()
	for _, level := range []Consistency{Stale, SessionReads, Linearizable} {
		for range 30 {
			item, err := c.Get(t.Context(), k, WithConsistency(level))
			if err != nil || item.Stale != (level == Stale) || item.Stale && item.Age != 7*time.Millisecond {
				t.Fatalf("%v: %+v, %v", level, item, err)
			}
		}
		cl.set(func() {
			for _, f := range cl.nodes {
				for _, r := range f.requests {
					if token := r.x.Token; r.code == protocol.OpGet && (token == w.Version) != (level == SessionReads) {
						t.Errorf("%v with token %d", level, token)
					}
				}
			}
		})
		want := []int{10, 10, 10}
		if level == Linearizable {
			want = []int{0, 30, 0}
		}
		if got := cl.counts(); !slices.Equal(got, want) {
			t.Errorf("%v: requests %v, want %v", level, got, want)
		}
	}
	// Who answers a weak read need not be the leader.
	row := protocol.RowReply{Version: 1}
	told := protocol.Extensions{Leader: 3}
	reply := protocol.End(row.AppendTo(told.AppendTo(protocol.Begin(nil, 0, protocol.FlagReply|protocol.FlagExtensions, 0))), 0)
	cl.set(func() {
		for _, f := range cl.nodes {
			f.intercept = once(protocol.OpGet, verdict{reply: reply})
		}
	})
	if _, err := c.Get(t.Context(), k, WithConsistency(Stale)); err != nil {
		t.Error(err)
	}
	if n := c.router.table.Load().leaderOf(k); n.id != 2 {
		t.Errorf("a weak read moved the leader to %d", n.id)
	}
}

// Rows of MGET and SCAN are seen, too.
func TestTokensOfRows(t *testing.T) {
	f := newFake(t)
	writer := dial(t, nil, f)
	for i := range 6 {
		if _, err := writer.Put(t.Context(), key(i), nil); err != nil {
			t.Fatal(err)
		}
	}
	c := dial(t, func(cfg *Config) { cfg.SessionReads = true }, f)
	token := func(i int) uint64 { return c.seen[protocol.Slot(key(i))].Load() }
	if _, err := c.MGet(t.Context(), [][]byte{key(0), key(1), []byte("absent")}); err != nil {
		t.Fatal(err)
	}
	for range c.Scan(t.Context(), Range(key(2), key(4))) {
	}
	for i, want := range []uint64{1, 2, 3, 4, 0, 0} {
		if got := token(i); got != want {
			t.Errorf("key %d: token %d, want %d", i, got, want)
		}
	}
}

func TestAdmin(t *testing.T) {
	f := newFake(t)
	f.record = true
	c := dial(t, func(cfg *Config) { cfg.ExactlyOnce = true }, f)
	ctx := t.Context()
	if b, err := c.Admin(ctx, "echo", []byte(`{"a":1}`)); string(b) != `{"a":1}` || err != nil {
		t.Fatalf("%s, %v", b, err)
	}
	if b, err := c.Admin(ctx, "echo", nil); len(b) != 0 || err != nil {
		t.Fatalf("%s, %v", b, err)
	}
	var e *Error
	if _, err := c.Admin(ctx, "other", nil); !errors.Is(err, ErrRefused) || !SafeToRetry(err) || !errors.As(err, &e) || e.Message != "not now" || e.Op != "ADMIN" {
		t.Fatal(err)
	}
	count := func() (n int) {
		f.set(func() { n = len(f.requests) })
		return n
	}
	sent := count()
	for name, test := range map[string]struct {
		verb string
		args int
		want error
	}{
		"none":      {"", 0, ErrBadRequest},
		"long verb": {fmt.Sprintf("%065d", 0), 0, ErrTooLarge},
		"long args": {"echo", protocol.AdminBytesMax + 1, ErrTooLarge},
	} {
		if _, err := c.Admin(ctx, test.verb, make([]byte, test.args)); !errors.Is(err, test.want) || !SafeToRetry(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if count() != sent {
		t.Error("an invalid request was sent")
	}
	if b, err := c.Admin(ctx, "echo", make([]byte, protocol.AdminBytesMax)); len(b) != protocol.AdminBytesMax || err != nil {
		t.Errorf("the longest arguments: %d bytes, %v", len(b), err)
	}
	// Its effect may not be repeated, and no session protects it.
	f.set(func() { f.applied, f.intercept = 0, once(protocol.OpAdmin, verdict{drop: true, after: true}) })
	if _, err := c.Admin(ctx, "echo", nil); !errors.Is(err, ErrOutcomeUnknown) {
		t.Error(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.applied != 1 {
		t.Errorf("carried out %d times", f.applied)
	}
	for _, r := range f.requests {
		if r.x.Session != 0 {
			t.Error("sent with a session")
		}
	}
}
