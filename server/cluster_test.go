package server

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/proa-kv/proa/access"
	"github.com/proa-kv/proa/bufpool"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/protocol"
)

// fakeCluster is a cluster without Raft: the state of each shard, and for each
// node a server over a fakeNode whose replicas know only what they were told.
type fakeCluster struct {
	t      testing.TB
	shards int

	redirect bool // clients of the Redis protocol

	mu     sync.Mutex
	leader []uint64 // by shard
	state  []fakeShard
	nodes  map[uint64]*fakeNode
	epoch  uint64
	result *command.Result // of every write, which then changes nothing; nil: as it is
}

type fakeShard struct {
	version uint64
	rows    map[string]fakeRow
}

type fakeRow struct {
	version  uint64
	value    string
	expireAt uint64
}

func (s fakeShard) clone() fakeShard { return fakeShard{s.version, maps.Clone(s.rows)} }

// fakeNode is one node's Backend.
type fakeNode struct {
	cluster *fakeCluster
	id      uint64
	srv     *Server
	addr    net.Addr

	redisAddr net.Addr
	policy    atomic.Pointer[access.Policy]

	// Guarded by cluster.mu.
	replicas     map[int]fakeShard
	queue        []func()
	noLease      bool
	readIndexErr error
	readIndexEnd command.Outcome
	holdBack     bool // read indexes are not answered
	heldBack     []func()
	unsure       bool            // proposals end as TimedOut
	overdue      bool            // proposals end as Overdue
	patience     uint32          // of the last proposal, ms
	busy         bool            // proposals are refused
	age          uint32          // of the replicas here
	unknownAge   bool            //
	streams      []net.Conn      // this node's ends of streams to others
	dial         func() net.Conn // in place of a stream to a fakeNode; nil: cannot be reached
	dialSet      bool

	pending     atomic.Bool
	running     atomic.Bool
	kicks       sync.WaitGroup
	drive       func() // the server's
	dials       atomic.Int32
	readIndexes atomic.Int32
	refused     atomic.Int32 // proposals, since it was busy
	admin       atomic.Pointer[adminFunc]
}

type adminFunc func(ctx context.Context, verb string, args []byte) ([]byte, error)

// administers sets what becomes of administrative requests.
func (n *fakeNode) administers(f adminFunc) { n.admin.Store(&f) }

// newFakeCluster starts nodes 1 to n. Shard s is led by node s mod n + 1, and
// has replicas copies, on that node and on those after it. redirect says that clients
// of the Redis protocol are sent to leaders.
func newFakeCluster(t testing.TB, cfg Config, n, shards, copies int, redirect ...bool) *fakeCluster {
	t.Helper()
	fc := &fakeCluster{t: t, shards: shards, redirect: len(redirect) > 0 && redirect[0], nodes: make(map[uint64]*fakeNode), epoch: 7}
	for s := range shards {
		fc.leader = append(fc.leader, uint64(s%n+1))
		fc.state = append(fc.state, fakeShard{rows: map[string]fakeRow{}})
	}
	for id := uint64(1); id <= uint64(n); id++ {
		fn := &fakeNode{cluster: fc, id: id, replicas: map[int]fakeShard{}}
		for s := range shards {
			for k := range copies {
				if uint64((s+k)%n+1) == id {
					fn.replicas[s] = fakeShard{rows: map[string]fakeRow{}}
				}
			}
		}
		fc.nodes[id] = fn
	}
	for _, fn := range fc.nodes {
		fn.start(t, cfg)
	}
	return fc
}

func (n *fakeNode) start(t testing.TB, cfg Config) {
	t.Helper()
	cfg.Node, cfg.Cluster = n.id, 99
	s, err := newOver(t, cfg, n)
	if err != nil {
		t.Fatal(err)
	}
	n.drive = s.Drive
	n.cluster.with(func() { n.srv = s })
	if n.addr, err = listenOver(s, s.Listen); err != nil {
		t.Fatal(err)
	}
	redisAddr, err := listenRedis(s, n.cluster.redirect)
	if err != nil {
		t.Fatal(err)
	}
	n.cluster.with(func() { n.redisAddr = redisAddr })
	served := make(chan struct{})
	go func() { _ = s.Serve(); close(served) }()
	t.Cleanup(func() {
		_ = s.Close()
		<-served
		n.kicks.Wait()
	})
}

// key returns the i-th key of a shard.
func (fc *fakeCluster) key(shard, i int) string {
	for k := 0; ; k++ {
		key := fmt.Sprintf("key%04d-%d", i, k)
		if fc.shardOf(protocol.Slot([]byte(key))) == shard {
			return key
		}
	}
}

func (fc *fakeCluster) shardOf(slot uint16) int { return int(slot) * fc.shards / protocol.Slots }

// set changes a row behind the servers' backs: in the shard's state and on its
// leader, not on other replicas.
func (fc *fakeCluster) set(key, value string) {
	fc.mu.Lock()
	defer fc.mu.Unlock()
	fc.apply(fc.shardOf(protocol.Slot([]byte(key))), key, value)
}

// apply is set with fc.mu held.
func (fc *fakeCluster) apply(shard int, key, value string) uint64 {
	s := &fc.state[shard]
	s.version++
	s.rows[key] = fakeRow{version: s.version, value: value}
	if n := fc.nodes[fc.leader[shard]]; n != nil {
		n.replicas[shard] = s.clone()
	}
	return s.version
}

// deleteRange deletes rows, also where replicas lag. fc.mu must be held.
func (fc *fakeCluster) deleteRange(shard int, from, to string) uint64 {
	s := &fc.state[shard]
	s.version++
	for key := range s.rows {
		if key >= from && (to == "" || key < to) {
			delete(s.rows, key)
		}
	}
	if n := fc.nodes[fc.leader[shard]]; n != nil {
		n.replicas[shard] = s.clone()
	}
	return s.version
}

// carryOut carries out an operation that was proposed: a read, or a write, which
// is taken for a PUT. fc.mu must be held.
func (fc *fakeCluster) carryOut(shard int, kind command.Kind, key, value string) command.Result {
	row, there := fc.state[shard].rows[key]
	switch kind {
	case command.Get, command.Exists:
	case command.Watch:
		return command.Result{Kind: kind, Version: row.version, Integer: int64(fc.state[shard].version)}
	default:
		return command.Result{Kind: command.Put, Version: fc.apply(shard, key, value)}
	}
	if !there {
		return command.Result{Kind: kind, Status: command.NotFound}
	}
	r := command.Result{Kind: kind, Version: row.version, HasRow: true, RowVersion: row.version}
	if kind == command.Get {
		r.Value = []byte(row.value)
	}
	return r
}

// answer has every write answered with r.
func (fc *fakeCluster) answer(r command.Result) { fc.with(func() { fc.result = &r }) }

// expire puts a row that expires into the shard's state and all its replicas.
func (fc *fakeCluster) expire(key string, at uint64) {
	fc.mu.Lock()
	defer fc.mu.Unlock()
	shard := fc.shardOf(protocol.Slot([]byte(key)))
	s := &fc.state[shard]
	s.version++
	s.rows[key] = fakeRow{version: s.version, expireAt: at}
	for _, n := range fc.nodes {
		if _, held := n.replicas[shard]; held {
			n.replicas[shard] = s.clone()
		}
	}
}

func (fc *fakeCluster) with(f func()) {
	fc.mu.Lock()
	defer fc.mu.Unlock()
	f()
}

func (n *fakeNode) ShardOf(slot uint16) int { return n.cluster.shardOf(slot) }
func (n *fakeNode) Shards() int             { return n.cluster.shards }
func (n *fakeNode) NowMillis() uint64       { return uint64(time.Now().UnixMilli()) }

func (n *fakeNode) leads(shard int) bool { return n.cluster.leader[shard] == n.id && !n.noLease }

func (n *fakeNode) Read(dst *bufpool.Buffer, shard int, key []byte, now uint64, valueMax int) (command.Row, command.ReadState) {
	n.cluster.mu.Lock()
	leads := n.leads(shard)
	n.cluster.mu.Unlock()
	if !leads {
		return command.Row{}, command.ReadNotLeader
	}
	return n.ReadLocal(dst, shard, key, now, valueMax)
}

// uncached keys are not in memory.
func uncached(key []byte) bool { return bytes.HasPrefix(key, []byte("cold")) }

func (n *fakeNode) ReadCached(dst *bufpool.Buffer, shard int, key []byte, now uint64, valueMax int) (command.Row, command.ReadState) {
	row, state := n.Read(dst, shard, key, now, valueMax)
	if uncached(key) && state != command.ReadNotLeader {
		return command.Row{}, command.ReadMiss
	}
	return row, state
}

func (n *fakeNode) ReadLocal(dst *bufpool.Buffer, shard int, key []byte, now uint64, valueMax int) (command.Row, command.ReadState) {
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	s, ok := n.replicas[shard]
	if !ok {
		return command.Row{}, command.ReadNotLeader
	}
	r, ok := s.rows[string(key)]
	if !ok {
		return command.Row{}, command.ReadAbsent
	}
	if len(r.value) <= valueMax {
		dst.Append([]byte(r.value))
	}
	row := command.Row{Version: r.version, ValueBytes: uint32(len(r.value))}
	if r.expireAt != 0 {
		row.TTLMillis, row.ExpireAtMillis = r.expireAt-now, r.expireAt
	}
	return row, command.ReadFound
}

func (n *fakeNode) ReadLocalCached(dst *bufpool.Buffer, shard int, key []byte, now uint64, valueMax int) (command.Row, command.ReadState) {
	if uncached(key) && n.Holds(shard) {
		return command.Row{}, command.ReadMiss
	}
	return n.ReadLocal(dst, shard, key, now, valueMax)
}

func (n *fakeNode) Scan(s *command.Scan, visit func(key, value []byte, row command.Row) bool) error {
	type entry struct {
		key string
		row fakeRow
	}
	var all []entry
	n.cluster.mu.Lock()
	shards := s.Shards
	if shards == nil {
		for i := range n.cluster.shards {
			shards = append(shards, i)
		}
	}
	var err error
	for _, shard := range shards {
		r, held := n.replicas[shard]
		if !held || (!s.Local && !n.leads(shard)) {
			err = command.ErrNotLeader
		}
		for k, row := range r.rows {
			if k >= string(s.Start) && (len(s.End) == 0 || k < string(s.End)) {
				all = append(all, entry{k, row})
			}
		}
	}
	n.cluster.mu.Unlock()
	slices.SortFunc(all, func(a, b entry) int { return strings.Compare(a.key, b.key) })
	if s.Reverse {
		slices.Reverse(all)
	}
	for i, e := range all {
		if err != nil && i > 2 {
			return err // a lease may be found to have ended after visits
		}
		value := e.row.value
		if s.KeysOnly {
			value = ""
		}
		if !visit([]byte(e.key), []byte(value), command.Row{Version: e.row.version}) {
			return err
		}
	}
	return err
}

func (n *fakeNode) enqueue(f func()) {
	n.queue = append(n.queue, f)
	n.pending.Store(true)
}

func (n *fakeNode) Propose(shard int, c *command.Command, done command.Completer, tag command.Tag) error {
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	if n.cluster.leader[shard] != n.id {
		return command.ErrNotLeader
	}
	if n.busy {
		n.refused.Add(1)
		return command.ErrBusy
	}
	n.patience = c.PatienceMillis
	if n.overdue {
		n.enqueue(func() { done.Complete(tag, command.Overdue, nil) })
		return nil
	}
	if n.unsure {
		n.enqueue(func() { done.Complete(tag, command.TimedOut, nil) })
		return nil
	}
	if c.Kind == command.DeleteRange {
		from, to := string(c.Key), string(c.Value)
		n.enqueue(func() {
			n.cluster.mu.Lock()
			r := command.Result{Kind: command.DeleteRange, Version: n.cluster.deleteRange(shard, from, to)}
			n.cluster.mu.Unlock()
			done.Complete(tag, command.Applied, &r)
		})
		return nil
	}
	ops := []command.Command{*c}
	if c.Kind == command.Batch || c.Kind == command.Txn {
		ops = slices.Clone(c.Ops)
	}
	type operation struct {
		kind       command.Kind
		key, value string
	}
	var list []operation
	for _, op := range ops {
		if n.ShardOf(protocol.Slot(op.Key)) != shard {
			panic("a command at the wrong shard")
		}
		list = append(list, operation{op.Kind, string(op.Key), string(op.Value)})
	}
	kind := c.Kind
	if answer := n.cluster.result; answer != nil {
		r := *answer
		r.Kind = kind
		n.enqueue(func() { done.Complete(tag, command.Applied, &r) })
		return nil
	}
	n.enqueue(func() {
		r := command.Result{Kind: kind}
		n.cluster.mu.Lock()
		for _, op := range list {
			r.Results = append(r.Results, n.cluster.carryOut(shard, op.kind, op.key, op.value))
		}
		n.cluster.mu.Unlock()
		if kind != command.Batch && kind != command.Txn {
			r = r.Results[0]
			r.Kind = kind
		}
		done.Complete(tag, command.Applied, &r)
	})
	return nil
}

// ProposeAcross knows of every session's command that it was carried out, if it
// has the shard of its first key.
func (n *fakeNode) ProposeAcross(shardOf func([]byte) int, c *command.Command, done command.Completer, tag command.Tag) error {
	switch {
	case c.Session.ID == 0:
		return command.ErrApart
	case !n.Holds(shardOf(c.FirstKey())):
		return command.ErrNotLeader
	}
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	r := command.Result{Kind: c.Kind, Succeeded: true}
	for range c.Ops {
		r.Results = append(r.Results, command.Result{Kind: command.Put, Version: n.id})
	}
	n.enqueue(func() { done.Complete(tag, command.Applied, &r) })
	return nil
}

func (n *fakeNode) ReadIndex(shard int, done command.Completer, tag command.Tag) error {
	n.readIndexes.Add(1)
	fc := n.cluster
	fc.mu.Lock()
	defer fc.mu.Unlock()
	if _, held := n.replicas[shard]; !held {
		return command.ErrNotLeader
	}
	if n.readIndexErr != nil {
		return n.readIndexErr
	}
	end := n.readIndexEnd
	f := func() {
		fc.mu.Lock()
		if end == command.Applied {
			n.replicas[shard] = fc.state[shard].clone()
		}
		fc.mu.Unlock()
		done.Complete(tag, end, nil)
	}
	if n.holdBack {
		n.heldBack = append(n.heldBack, f)
	} else {
		n.enqueue(f)
	}
	return nil
}

// letGo answers the read indexes that were held back.
func (n *fakeNode) letGo() {
	n.cluster.mu.Lock()
	n.holdBack = false
	n.queue = append(n.queue, n.heldBack...)
	n.heldBack = nil
	n.pending.Store(true)
	n.cluster.mu.Unlock()
	n.Kick()
}

func (n *fakeNode) Acquire() bool { return n.pending.Load() && n.running.CompareAndSwap(false, true) }
func (n *fakeNode) Pending() bool { return n.pending.Load() }

func (n *fakeNode) Prepare() command.Write {
	n.pending.Store(false)
	n.cluster.mu.Lock()
	q := n.queue
	n.queue = nil
	n.cluster.mu.Unlock()
	for _, f := range q {
		f()
	}
	return nil
}

func (n *fakeNode) Deliver(command.Write) bool { return true }
func (n *fakeNode) Release()                   { n.running.Store(false) }

func (n *fakeNode) Kick() {
	n.kicks.Add(1)
	go func() {
		defer n.kicks.Done()
		n.drive()
	}()
}

func (n *fakeNode) Age(shard int) (uint32, bool) {
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	_, held := n.replicas[shard]
	return n.age, held && !n.unknownAge
}

func (n *fakeNode) Revision(shard int) uint64 {
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	return n.replicas[shard].version
}

func (n *fakeNode) Leader(shard int) uint64 {
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	return n.cluster.leader[shard]
}

func (n *fakeNode) Holds(shard int) bool {
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	_, held := n.replicas[shard]
	return held
}

func (n *fakeNode) Access() *access.Policy { return n.policy.Load() }

func (n *fakeNode) Epoch() uint64 {
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	return n.cluster.epoch
}

func (n *fakeNode) Forward(_ context.Context, node uint64) (net.Conn, error) {
	n.dials.Add(1)
	n.cluster.mu.Lock()
	to := n.cluster.nodes[node].srv
	dial, set := n.dial, n.dialSet
	n.cluster.mu.Unlock()
	if set {
		if dial == nil {
			return nil, io.ErrClosedPipe
		}
		return dial(), nil
	}
	here, there := socketPair(n.cluster.t)
	n.cluster.mu.Lock()
	n.streams = append(n.streams, here)
	n.cluster.mu.Unlock()
	to.ServeForwarded(n.id, there)
	return here, nil
}

// forwardTo has the node's streams to others end at what dial returns.
func (n *fakeNode) forwardTo(dial func() net.Conn) {
	n.cluster.with(func() { n.dial, n.dialSet = dial, true })
}

// socketPair returns both ends of a TCP connection.
func socketPair(t testing.TB) (a, b net.Conn) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if a, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if b, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	return a, b
}

func (n *fakeNode) Admin(ctx context.Context, verb string, args []byte) ([]byte, error) {
	return (*n.admin.Load())(ctx, verb, args)
}

// Topology tells of every node that has begun to listen.
func (n *fakeNode) Topology(string) command.Topology {
	fc := n.cluster
	t := command.Topology{Epoch: n.Epoch()}
	fc.mu.Lock()
	defer fc.mu.Unlock()
	for id := uint64(1); id <= uint64(len(fc.nodes)); id++ {
		m := command.Member{ID: id}
		if a := fc.nodes[id].redisAddr; a != nil {
			m.Redis = a.String()
		}
		t.Nodes = append(t.Nodes, m)
	}
	for shard := range fc.shards {
		r := command.ShardRoute{Leader: fc.leader[shard]}
		for id, fn := range fc.nodes {
			if _, held := fn.replicas[shard]; held {
				r.Replicas = append(r.Replicas, id)
			}
		}
		slices.Sort(r.Replicas)
		first, last := (shard*protocol.Slots+fc.shards-1)/fc.shards, ((shard+1)*protocol.Slots-1)/fc.shards
		r.Slots = [][2]uint16{{uint16(first), uint16(last)}}
		t.Shards = append(t.Shards, r)
	}
	return t
}

func (n *fakeNode) StatusJSON() ([]byte, error) { return []byte("{}"), nil }

// with sends a request with extensions.
func (d *dialer) sendWith(op protocol.Opcode, x protocol.Extensions, body []byte) uint64 {
	d.t.Helper()
	d.id++
	b := append(beginFrame(nil, uint8(op), 0, d.id, &x), body...)
	if _, err := d.nc.Write(protocol.End(b, 0)); err != nil {
		d.t.Fatal(err)
	}
	return d.id
}

// callWith returns the reply to a request with extensions, and the reply's own.
func (d *dialer) callWith(op protocol.Opcode, x protocol.Extensions, body []byte) (protocol.Frame, protocol.Extensions) {
	d.t.Helper()
	id := d.sendWith(op, x, body)
	f := d.receive()
	if f.ID != id {
		d.t.Fatalf("reply to request %d, want %d", f.ID, id)
	}
	return f, marksOf(d.t, f)
}

func marksOf(t testing.TB, f protocol.Frame) (x protocol.Extensions) {
	t.Helper()
	if err := x.Decode(f.Extensions); err != nil {
		t.Fatal(err)
	}
	return x
}

func (n *fakeNode) client() *dialer { return dial(n.cluster.t, n.addr) }

// want fails unless f has this status.
func want(t testing.TB, f protocol.Frame, s protocol.Status) {
	t.Helper()
	if got := protocol.Status(f.Code); got != s {
		text := ""
		if !got.CarriesResult() {
			text = errorText(t, f)
		}
		t.Fatalf("answered %v %q, want %v", got, text, s)
	}
}

func wantValue(t testing.TB, f protocol.Frame, value string) {
	t.Helper()
	want(t, f, protocol.StatusOK)
	var r protocol.RowReply
	if err := r.Decode(f.Body); err != nil || string(r.Value) != value {
		t.Fatalf("value is %q, want %q (%v)", r.Value, value, err)
	}
}

func putBody(key, value string) []byte {
	return (&protocol.Put{Key: []byte(key), Value: []byte(value)}).AppendTo(nil)
}
