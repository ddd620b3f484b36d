package raftgroup

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/proa-kv/proa/bufpool"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup/call"
	"github.com/proa-kv/proa/raftgroup/datadir"
	"github.com/proa-kv/proa/raftgroup/engine"
	"github.com/proa-kv/proa/raftgroup/placement"
)

// cluster is several nodes in one goroutine: the test moves messages and time. With
// dragonboat, which has threads and a clock of its own, time goes by itself, and messages of
// Raft go their own way.
type cluster struct {
	t      testing.TB
	engine placement.Engine
	clock  *manualClock
	disks  map[uint64]*vfs.MemFS
	links  map[uint64]*link
	box    []parcel
	walls  map[uint64]*wrongClock // each node's clock
	mute   bool                   // reports are lost
	log    int64                  // LogBytesMax of nodes that are started; 0: the default

	expelled []string

	mu    sync.Mutex // held where nodes and cut change, and by whoever reads them beside the test's goroutine
	nodes map[uint64]*Node
	cut   map[[2]uint64]bool
}

type parcel struct {
	from, to uint64
	shard    uint32
	m        raftpb.Message
	report   []byte
}

// link is one node's transport.
type link struct {
	c    *cluster
	self uint64
}

func (l *link) Send(node uint64, shard uint32, m *raftpb.Message) {
	b, err := m.Marshal()
	if err != nil {
		panic(err)
	}
	p := parcel{from: l.self, to: node, shard: shard}
	if err := p.m.Unmarshal(b); err != nil {
		panic(err)
	}
	l.c.box = append(l.c.box, p)
}
func (l *link) Transmit() {}

func (l *link) Connected(node uint64) error {
	if l.c.reach(l.self, node) == nil {
		return io.ErrClosedPipe
	}
	return nil
}

func (l *link) SendFrame(node uint64, frame []byte) error {
	n := l.c.reach(l.self, node)
	if n == nil {
		return io.ErrClosedPipe
	}
	return n.ReceiveFrame(l.self, frame)
}

func (l *link) Report(node uint64, body []byte) bool {
	l.c.box = append(l.c.box, parcel{from: l.self, to: node, report: body})
	return true
}
func (l *link) Version(uint64) uint16 { return reportsFromVersion }

func (l *link) SendSnapshot(node uint64, s engine.OutgoingSnapshot) {
	go func() { s.Done(l.c.transfer(l.self, node, s)) }()
}

func (c *cluster) transfer(from, to uint64, s engine.OutgoingSnapshot) error {
	n := c.reach(from, to)
	if n == nil {
		return io.ErrClosedPipe
	}
	in, token, err := n.BeginSnapshot(from, s.Header())
	if err != nil {
		return err
	}
	if err := s.Export(token, in.Write); err != nil {
		in.Abort()
		return err
	}
	return in.Finish()
}

// reach returns a node, nil where there is none or the way to it is cut. From any
// goroutine.
func (c *cluster) reach(from, to uint64) *Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut[[2]uint64{from, to}] {
		return nil
	}
	return c.nodes[to]
}

// take removes a node that the test has closed, or is about to.
func (c *cluster) take(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.nodes, id)
}

// sever cuts the way from one node to another, or mends it.
func (c *cluster) sever(from, to uint64, cut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut[[2]uint64{from, to}] = cut
}

func (l *link) Call(ctx context.Context, node uint64, verb string, body []byte) ([]byte, error) {
	n := l.c.reach(l.self, node)
	if n == nil {
		return nil, call.ErrNotAsked
	}
	return n.Call(ctx, l.self, verb, body)
}
func (l *link) Forward(context.Context, uint64) (net.Conn, error) { return nil, io.ErrClosedPipe }
func (l *link) SetPeer(uint64, string)                            {}
func (l *link) RemovePeer(uint64)                                 {}
func (l *link) Expel(node uint64, err error) {
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	l.c.expelled = append(l.c.expelled, fmt.Sprintf("node %d expels node %d: %v", l.self, node, err))
}

// onEngines runs a test for each engine that has what it needs.
func onEngines(t *testing.T, test func(*testing.T, placement.Engine), needs ...Capability) {
	for _, e := range Engines {
		t.Run(e.Name.String(), func(t *testing.T) {
			for _, need := range needs {
				if instead, lacks := e.Lacks[need]; lacks {
					t.Skipf("lacks %s: %s", need, instead)
				}
			}
			t.Parallel()
			test(t, e.Name)
		})
	}
}

// slowlyOnEngines is onEngines for a test that takes more than ten seconds where time goes by
// itself.
func slowlyOnEngines(t *testing.T, test func(*testing.T, placement.Engine)) {
	t.Parallel()
	onEngines(t, func(t *testing.T, e placement.Engine) {
		if e == placement.Dragonboat && testing.Short() {
			t.Skip("takes many seconds, which -short leaves out")
		}
		test(t, e)
	})
}

func newCluster(t testing.TB, nodes, shards int) *cluster {
	return newClusterOf(t, placement.Etcd, nodes, shards)
}

func newClusterOf(t testing.TB, e placement.Engine, nodes, shards int) *cluster {
	c := &cluster{t: t, engine: e, clock: &manualClock{}, nodes: make(map[uint64]*Node), disks: make(map[uint64]*vfs.MemFS),
		links: make(map[uint64]*link), cut: make(map[[2]uint64]bool), walls: make(map[uint64]*wrongClock)}
	c.clock.ms.Store(1_000_000)
	if c.runs() {
		c.clock.began = time.Now()
	}
	var addresses []string
	for id := range nodes {
		addresses = append(addresses, fmt.Sprint("n", id+1))
	}
	formers := make(map[string]*datadir.Former)
	for id := uint64(1); id <= uint64(nodes); id++ {
		c.disks[id] = vfs.NewMem()
		f, err := datadir.NewFormer(datadir.FormOptions{Dir: dir, FS: c.disks[id], ID: id, Shards: shards, Engine: e.String(), Join: addresses, PeerAddress: addresses[id-1],
			RedisAddress: fmt.Sprint("redis", id), RetryEvery: time.Millisecond,
			Call: func(_ context.Context, address, verb string, _ []byte) ([]byte, error) {
				return formers[address].Answer(verb)
			}})
		if err != nil {
			t.Fatal(err)
		}
		formers[addresses[id-1]] = f
	}
	for _, a := range addresses { // the founder is first
		f := formers[a]
		if _, err := f.Form(context.Background()); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for id := range c.disks {
		c.start(id)
	}
	t.Cleanup(func() {
		for _, n := range c.nodes {
			closeNode(t, n)
		}
	})
	return c
}

func (c *cluster) start(id uint64) *Node {
	l := &link{c, id}
	if c.walls[id] == nil {
		c.walls[id] = &wrongClock{manualClock: c.clock}
	}
	n, err := openMem(c.disks[id], Options{ID: id, Clock: c.walls[id], Transport: l, PeerAddress: fmt.Sprint("n", id),
		RedisAddress: fmt.Sprint("redis", id), BalanceLeaders: true, LogBytesMax: c.log})
	if err != nil {
		c.t.Fatal(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nodes[id], c.links[id] = n, l
	return n
}

// settle runs passes and delivers messages until nothing moves.
func (c *cluster) settle() {
	for moved := true; moved; {
		moved = false
		for _, n := range c.nodes {
			for n.Acquire() {
				n.Run()
				moved = true
			}
		}
		box := c.box
		c.box = nil
		for _, p := range box {
			n := c.nodes[p.to]
			if n == nil || c.cut[[2]uint64{p.from, p.to}] {
				continue
			}
			moved = true
			if p.report != nil && c.mute {
				continue
			}
			if p.report != nil {
				n.ReceiveReport(p.from, p.report)
				continue
			}
			n.Receive(p.from, p.shard, p.m)
			n.ReceiveDone(p.from)
		}
	}
}

// runs reports whether time goes by itself.
func (c *cluster) runs() bool { return c.engine == placement.Dragonboat }

// tick is that of the nodes.
const tick = 15 * time.Millisecond

// tick lets a tick of the nodes go by. Where time goes by itself, nodes have things to do
// meanwhile.
func (c *cluster) tick() {
	if !c.runs() {
		c.clock.ms.Add(uint64(tick / time.Millisecond))
		return
	}
	often := time.NewTicker(time.Millisecond)
	defer often.Stop()
	for begun := time.Now(); time.Since(begun) < tick; <-often.C {
		c.settle()
	}
}

// pass lets time go by.
func (c *cluster) pass(d time.Duration) {
	for t := time.Duration(0); t < d; t += tick {
		c.tick()
		for _, n := range c.nodes {
			n.Tick()
		}
		c.settle()
	}
}

// untilMax bounds in real time what takes no more than a second or two on a machine
// that has nothing else to do.
const untilMax = 90 * time.Second

// until lets time go by until ok. Snapshots travel in real time.
func (c *cluster) until(what string, ok func() bool) {
	c.t.Helper()
	for begun := time.Now(); time.Since(begun) < untilMax; {
		if ok() {
			return
		}
		c.pass(50 * time.Millisecond)
	}
	for id, n := range c.nodes {
		b, _ := n.StatusJSON()
		c.t.Logf("node %d: %s", id, b)
	}
	for id, n := range c.nodes {
		for shard, v := range n.views {
			if v.Leads.Load() {
				c.t.Logf("node %d, shard %d: %+v", id, shard, n.engine.Replica(shard))
			}
		}
		b, _ := json.Marshal(n.ClusterStatus())
		c.t.Logf("cluster as node %d sees it: %s", id, b)
	}
	c.t.Fatalf("in vain: %s", what)
}

func (c *cluster) led() bool {
	for shard := range c.any().views {
		if c.leader(shard) == nil {
			return false
		}
	}
	return true
}

func (c *cluster) any() *Node {
	for _, n := range c.nodes {
		return n
	}
	return nil
}

func (c *cluster) leader(shard int) *Node {
	for _, n := range c.nodes {
		if v := n.views[shard]; v.Leads.Load() && v.Leased(n.clock) {
			return n
		}
	}
	return nil
}

func (c *cluster) put(key, value string) {
	c.t.Helper()
	c.carryOut(key, put(key, value))
}

// carryOut has the leader of the key's shard carry a command out.
func (c *cluster) carryOut(key string, what *command.Command) {
	c.t.Helper()
	for range 100 {
		n := c.leader(shardFor(c.any(), key))
		if n == nil {
			c.pass(50 * time.Millisecond)
			continue
		}
		e := newEar()
		if err := n.Propose(shardFor(n, key), what, e, command.Tag{ID: 1}); err != nil {
			if errors.Is(err, command.ErrNotLeader) {
				c.pass(50 * time.Millisecond)
				continue
			}
			c.t.Fatal(err)
		}
		c.settle()
		c.hear(e)
		for range 100 {
			e.mu.Lock()
			o, ok := e.outcomes[1]
			e.mu.Unlock()
			if ok && o == command.Applied {
				return
			}
			if ok {
				break
			}
			c.pass(15 * time.Millisecond)
		}
	}
	c.t.Fatalf("no outcome for %q", key)
}

// hear lets time go by where it does so by itself, for a tick at most, until there is an
// outcome.
func (c *cluster) hear(e *ear) {
	if !c.runs() {
		return
	}
	often := time.NewTicker(100 * time.Microsecond)
	defer often.Stop()
	for begun := time.Now(); time.Since(begun) < tick && e.heard() == 0; <-often.C {
		c.settle()
	}
}

// local reads what a node's replica has.
func local(n *Node, key string) string {
	b := bufpool.Get(64)
	defer b.Release()
	if _, state := n.ReadLocal(b, shardFor(n, key), []byte(key), n.NowMillis(), command.AnyValue); state != command.ReadFound {
		return fmt.Sprint("state ", state)
	}
	return string(b.B)
}

func TestThreeNodes(t *testing.T) { onEngines(t, testThreeNodes) }

func testThreeNodes(t *testing.T, e placement.Engine) {
	c := newClusterOf(t, e, 3, 4)
	c.until("leaders", c.led)
	c.until("the map", func() bool { return c.nodes[1].cmap.Load().Begun() && c.nodes[3].cmap.Load().Begun() })
	for i := range 50 {
		c.put(fmt.Sprint("k", i), fmt.Sprint("v", i))
	}
	c.pass(500 * time.Millisecond)
	for id, n := range c.nodes {
		for i := range 50 {
			if got := local(n, fmt.Sprint("k", i)); got != fmt.Sprint("v", i) {
				t.Errorf("node %d, k%d: %q", id, i, got)
			}
		}
	}
	c.until("leaders spread evenly", func() bool {
		for _, n := range c.nodes {
			leads := 0
			for _, v := range n.views {
				if v.Leads.Load() {
					leads++
				}
			}
			if leads == 0 || leads > 2 {
				return false
			}
		}
		return true
	})
}

// TestRedisAddresses: every node knows where the others serve the Redis
// protocol, from the beginning, after one has joined, and after one has moved.
func TestRedisAddresses(t *testing.T) { onEngines(t, testRedisAddresses) }

func testRedisAddresses(t *testing.T, e placement.Engine) {
	c := newClusterOf(t, e, 3, 2)
	known := func(want ...string) func() bool {
		return func() bool {
			for _, n := range c.nodes {
				topology := n.Topology("")
				if len(topology.Nodes) != len(want) {
					return false
				}
				for i, m := range topology.Nodes {
					if m.Redis != want[i] {
						return false
					}
				}
				for _, s := range topology.Shards {
					if len(s.Replicas) != 3 {
						return false
					}
				}
			}
			return true
		}
	}
	c.until("the map", func() bool { return c.nodes[1].cmap.Load().Begun() })
	if topology := c.nodes[1].Topology(""); topology.Nodes[2].Redis != "redis3" {
		t.Errorf("the first map of all: %+v", topology.Nodes)
	}
	c.until("all addresses", known("redis1", "redis2", "redis3"))
	c.join(4)
	c.until("the joined node's", known("redis1", "redis2", "redis3", "redis4"))
	c.nodes[2].SetRedisAddress("elsewhere")
	c.nodes[3].SetRedisAddress("")
	c.until("the changed ones", known("redis1", "elsewhere", "", "redis4"))
}

func TestFailover(t *testing.T) { onEngines(t, testFailover) }

func testFailover(t *testing.T, e placement.Engine) {
	c := newClusterOf(t, e, 3, 4)
	c.until("leaders", c.led)
	for i := range 20 {
		c.put(fmt.Sprint("k", i), "1")
	}
	gone := c.leader(0)
	c.take(gone.id)
	c.until("leaders again", c.led)
	for i := range 20 {
		c.put(fmt.Sprint("k", i), "2")
	}
	closeNode(t, gone)
	n := c.start(gone.id)
	c.until("catching up", func() bool {
		for i := range 20 {
			if local(n, fmt.Sprint("k", i)) != "2" {
				return false
			}
		}
		return true
	})
}

func TestSnapshotAndGrowth(t *testing.T) { slowlyOnEngines(t, testSnapshotAndGrowth) }

func testSnapshotAndGrowth(t *testing.T, e placement.Engine) {
	c := newClusterOf(t, e, 1, 4)
	c.until("leaders", c.led)
	for i := range 200 {
		c.put(fmt.Sprint("k", i), "1")
	}
	for id := uint64(2); id <= 4; id++ {
		c.join(id)
		c.until(fmt.Sprintf("node %d takes part", id), func() bool { return c.settled(min(int(id), 3)) })
	}
	for i := range 200 {
		c.put(fmt.Sprint("k", i), "2")
	}
	// And away again.
	for _, id := range []uint64{1, 2} {
		err := command.ErrNotLeader
		for errors.Is(err, command.ErrNotLeader) { // the leadership may be on its way
			done := make(chan struct{})
			go func() {
				defer close(done)
				_, err = c.nodes[3].Admin(context.Background(), command.AdminMemberRemove, fmt.Appendf(nil, `{"node":%d}`, id))
			}()
			c.drive(done)
		}
		if err != nil {
			t.Fatal(err)
		}
		c.until(fmt.Sprintf("node %d has gone", id), func() bool {
			row, _ := c.nodes[3].cmap.Load().Node(id)
			return row.Removed
		})
		closeNode(t, c.nodes[id])
		c.take(id)
		c.until("settled", func() bool { return c.settled(min(len(c.nodes), 3)) })
	}
	for i := range 200 {
		c.put(fmt.Sprint("k", i), "3")
	}
}

// A number that a node has never joined with is free again once it is not
// expected any more, and one of a member is not.
func TestNumberThatNeverJoined(t *testing.T) { onEngines(t, testNumberThatNeverJoined) }

func testNumberThatNeverJoined(t *testing.T, e placement.Engine) {
	c := newClusterOf(t, e, 1, 1)
	c.until("leaders", c.led)
	c.until("a map", func() bool { return c.nodes[1].cmap.Load().Begun() })
	admin := func(verb string) {
		t.Helper()
		done := make(chan struct{})
		var err error
		go func() {
			defer close(done)
			_, err = c.nodes[1].Admin(context.Background(), verb, []byte(`{"node":2}`))
		}()
		c.drive(done)
		must(t, err)
	}
	for range 2 {
		admin(command.AdminMemberAdd)
		c.until("the number", func() bool { _, known := c.nodes[1].cmap.Load().Node(2); return known })
		admin(command.AdminMemberRemove)
		c.until("no number", func() bool { _, known := c.nodes[1].cmap.Load().Node(2); return !known })
	}
	c.join(2)
}

// admin has the leader of the meta group carry out a request.
func (c *cluster) admin(verb, args string) (answer []byte, err error) {
	c.t.Helper()
	err = command.ErrNotLeader
	for errors.Is(err, command.ErrNotLeader) { // the leadership may be on its way
		done := make(chan struct{})
		go func() {
			defer close(done)
			answer, err = c.any().Admin(context.Background(), verb, []byte(args))
		}()
		c.drive(done)
	}
	return answer, err
}

// The removal of a node that has just died leaves too few nodes as well as that of
// one that has been down for long. With force it begins, and can be cancelled once.
func TestRemovalOfNodeThatHasJustDied(t *testing.T) {
	slowlyOnEngines(t, testRemovalOfNodeThatHasJustDied)
}

func testRemovalOfNodeThatHasJustDied(t *testing.T, e placement.Engine) {
	c := newClusterOf(t, e, 3, 1)
	c.until("settled", func() bool { return c.settled(3) })
	if _, err := c.admin(command.AdminMemberRemove, `{"node":3,"undo":true}`); !errors.Is(err, command.ErrRefused) {
		t.Errorf("no removal was cancelled: %v", err)
	}
	c.end(3)
	for _, silence := range []time.Duration{2 * time.Second, placement.DownAfter} {
		c.pass(silence)
		if _, err := c.admin(command.AdminMemberRemove, `{"node":3}`); !errors.Is(err, command.ErrRefused) || !strings.Contains(fmt.Sprint(err), "node 3 has not reported for") {
			t.Errorf("after %v more: %v", silence, err)
		}
	}
}

// What a request tells of a node that is down is that, in few words.
func TestNotAsked(t *testing.T) { onEngines(t, testNotAsked) }

func testNotAsked(t *testing.T, e placement.Engine) {
	c := newClusterOf(t, e, 3, 1)
	c.until("leaders", c.led)
	c.sever(1, 2, true)
	_, err := c.nodes[1].call(t.Context(), 2, call.Checksum, nil)
	if !errors.Is(err, call.ErrNotAsked) || !errors.Is(err, command.ErrTimeout) || err.Error() != "cannot reach node 2: not connected to it" {
		t.Error(err)
	}
}

// What is for another node was not done if that node was certainly not asked.
func TestAdminNotAsked(t *testing.T) { onEngines(t, testAdminNotAsked) }

func testAdminNotAsked(t *testing.T, e placement.Engine) {
	c := newClusterOf(t, e, 3, 2)
	c.until("leaders", c.led)
	meta := c.leader(c.any().meta())
	for id, n := range c.nodes {
		if n == meta {
			continue
		}
		c.sever(id, meta.id, true)
		_, err := n.Admin(t.Context(), command.AdminMemberDrain, []byte(`{"node":1}`))
		if !errors.Is(err, command.ErrNotLeader) {
			t.Errorf("node %d: %v", id, err)
		}
		c.sever(id, meta.id, false)
	}
}

// drive lets time go by until done.
func (c *cluster) drive(done chan struct{}) {
	c.t.Helper()
	for begun := time.Now(); time.Since(begun) < untilMax; {
		select {
		case <-done:
			return
		default:
			c.pass(15 * time.Millisecond)
		}
	}
	c.t.Fatal("in vain")
}

func (c *cluster) settled(replicas int) bool {
	m := c.any().cmap.Load()
	if !m.Begun() || !c.led() {
		return false
	}
	for shard := range m.Shards {
		n := c.leader(shard)
		want := replicas
		if shard == n.meta() {
			want = len(c.nodes)
		}
		row := &n.cmap.Load().Shards[shard]
		if r := n.engine.Replica(shard); len(row.Replicas) != want || !settled(&r.Conf, row) {
			return false
		}
	}
	return true
}

func (c *cluster) join(id uint64) {
	c.t.Helper()
	c.disks[id] = vfs.NewMem()
	f, err := datadir.NewFormer(datadir.FormOptions{Dir: dir, FS: c.disks[id], Join: []string{"n1"}, PeerAddress: fmt.Sprint("n", id), RedisAddress: fmt.Sprint("redis", id), RetryEvery: time.Millisecond,
		Call: func(ctx context.Context, _, verb string, body []byte) ([]byte, error) {
			return c.nodes[1].CallStranger(ctx, true, verb, body)
		}})
	if err != nil {
		c.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, err = f.Form(context.Background())
	}()
	c.drive(done)
	if err = errors.Join(err, f.Close()); err != nil {
		c.t.Fatal(err)
	}
	if got := f.Identity().Node; got != id {
		c.t.Fatalf("number %d, want %d", got, id)
	}
	c.start(id)
}

// Arguments that are no JSON are the client's mistake, wherever they are found out.
func TestAdminArguments(t *testing.T) { onEngines(t, testAdminArguments) }

func testAdminArguments(t *testing.T, e placement.Engine) {
	c := newClusterOf(t, e, 3, 2)
	c.until("leaders", c.led)
	for _, n := range c.nodes {
		for _, verb := range []string{command.AdminMemberRemove, command.AdminShardMove, command.AdminStatus, "nothing"} {
			if _, err := n.Admin(t.Context(), verb, bytes.Repeat([]byte("["), 60_000)); !errors.Is(err, command.ErrInvalid) {
				t.Errorf("node %d, %s: %v", n.id, verb, err)
			}
		}
	}
}
