package client

import (
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/proa-kv/proa/protocol"
)

// fakeShards is how many shards a fake cluster has. Each owns an equal part of
// the slots.
const fakeShards = 4

// fakeCluster is several fakes over one store. Node numbers count from 1. Each
// node forwards requests for shards that others lead, or refuses them.
type fakeCluster struct {
	*fakeStore
	t       testing.TB
	nodes   []*fake
	epoch   uint64
	leaders [fakeShards]uint64 // 0: none; requests are then refused with NO_QUORUM
	address []string           // that ROUTES tells of each node

	advice uint32 // retry delay in ms with NO_QUORUM

	refuse bool               // answer NOT_LEADER instead of forwarding …
	silent bool               // … without naming the leader
	claims [fakeShards]uint64 // what NOT_LEADER names instead of the leader, if not 0
}

func newFakeCluster(t testing.TB, n int) *fakeCluster {
	t.Helper()
	cl := &fakeCluster{fakeStore: newFakeStore(), t: t, epoch: 1}
	for i := range n {
		cl.add()
		cl.leaders[i%fakeShards] = uint64(i + 1)
	}
	for i := range cl.leaders {
		cl.leaders[i] = uint64(i%n + 1)
	}
	return cl
}

// add starts a further node.
func (cl *fakeCluster) add() *fake {
	f := cl.listen(len(cl.nodes)+1, "127.0.0.1:0")
	cl.mu.Lock()
	cl.nodes = append(cl.nodes, f)
	cl.address = append(cl.address, f.address())
	cl.mu.Unlock()
	f.start()
	return f
}

func (cl *fakeCluster) listen(node int, address string) *fake {
	cl.t.Helper()
	f, err := listenFake("tcp", address)
	if err != nil {
		cl.t.Fatal(err)
	}
	f.fakeStore, f.node, f.cluster, f.record = cl.fakeStore, uint64(node), cl, true
	cl.t.Cleanup(f.close)
	return f
}

// restart starts a node again that was closed, at its old address.
func (cl *fakeCluster) restart(node int) {
	f := cl.listen(node, cl.nodes[node-1].address())
	cl.set(func() { cl.nodes[node-1] = f })
	f.start()
}

func (s *fakeStore) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

// redirect answers what this node does not carry out as it is. mu is held.
func (cl *fakeCluster) redirect(cn *fakeConn, fr *protocol.Frame, x *protocol.Extensions) bool {
	code := protocol.Opcode(fr.Code)
	if code == protocol.OpRoutes {
		body := cl.routes().AppendTo(protocol.Begin(nil, 0, protocol.FlagReply, fr.ID))
		cn.out = append(cn.out, protocol.End(body, 0)...)
		return true
	}
	k := keyOf(code, fr.Body)
	if k == nil || x.Consistency != Linearizable {
		return false
	}
	shard := int(protocol.Slot(k)) / (protocol.Slots / fakeShards)
	leader := cl.leaders[shard]
	told := protocol.Extensions{Leader: leader, Epoch: cl.epoch}
	if cl.claims[shard] != 0 {
		told.Leader = cl.claims[shard]
	}
	switch {
	case leader == cn.f.node:
		return false
	case leader == 0:
		cn.out = protocol.AppendError(cn.out, fr.ID, protocol.StatusNoQuorum, cl.advice, "")
	case cl.refuse || cl.nodes[leader-1].closed:
		start := len(cn.out)
		cn.out = protocol.AppendError(cn.out, fr.ID, protocol.StatusNotLeader, 0, "")
		if !cl.silent && cn.f.node != told.Leader {
			cn.extend(start, told)
		}
	default:
		start := len(cn.out)
		cn.execute(fr, x)
		cn.extend(start, told)
	}
	return true
}

// extend adds extensions to the one frame of out that begins at start.
func (cn *fakeConn) extend(start int, x protocol.Extensions) {
	frame := slices.Clone(cn.out[start:])
	cn.out = append(cn.out[:start], frame[:protocol.HeaderBytes]...)
	cn.out[start+6] |= byte(protocol.FlagExtensions)
	cn.out = x.AppendTo(cn.out)
	cn.out = protocol.End(append(cn.out, frame[protocol.HeaderBytes:]...), start)
}

func (cl *fakeCluster) routes() *protocol.RoutesReply {
	m := &protocol.RoutesReply{Epoch: cl.epoch}
	for i, a := range cl.address {
		m.Nodes = append(m.Nodes, protocol.RouteNode{ID: uint64(i + 1), Address: []byte(a)})
	}
	const part = protocol.Slots / fakeShards
	for i, leader := range cl.leaders {
		m.Shards = append(m.Shards, protocol.RouteShard{ID: uint16(10 + i), Leader: leader,
			Slots: []protocol.SlotRange{{First: uint16(i * part), Last: uint16((i+1)*part - 1)}}})
	}
	return m
}

// keyOf returns the key that decides where a request belongs, nil for none.
func keyOf(code protocol.Opcode, body []byte) []byte {
	switch code {
	case protocol.OpGet, protocol.OpExists, protocol.OpExpiry, protocol.OpPersist:
		return body
	case protocol.OpRename:
		var m protocol.Rename
		m.Decode(body)
		return m.Source
	case protocol.OpPut:
		var m protocol.Put
		m.Decode(body)
		return m.Key
	case protocol.OpIncr:
		var m protocol.Incr
		m.Decode(body)
		return m.Key
	case protocol.OpDelete:
		var m protocol.Delete
		m.Decode(body)
		return m.Key
	case protocol.OpBatch:
		var m protocol.Batch
		m.Decode(body)
		return keyOf(m.Ops[0].Code, m.Ops[0].Body)
	case protocol.OpTxn:
		var m protocol.Txn
		m.Decode(body)
		return keyOf(m.Then[0].Code, m.Then[0].Body)
	}
	return nil
}

// seen returns the codes of the requests that a node got, without ROUTES and
// PING, and forgets them.
func (cl *fakeCluster) seen(node int) (codes []protocol.Opcode) {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	f := cl.nodes[node-1]
	for _, r := range f.requests {
		if r.code != protocol.OpRoutes && r.code != protocol.OpPing {
			codes = append(codes, r.code)
		}
	}
	f.requests = nil
	return codes
}

func (cl *fakeCluster) forgetRequests() {
	for i := range cl.nodes {
		cl.seen(i + 1)
	}
}

// counts returns how many requests each node got, and forgets them.
func (cl *fakeCluster) counts() (n []int) {
	for i := range cl.nodes {
		n = append(n, len(cl.seen(i+1)))
	}
	return n
}

// dial connects a client to some of the nodes and waits until it has the route
// table, and, where connected is set, until it has a connection to every node.
func (cl *fakeCluster) dial(connected bool, change func(*Config), nodes ...int) *Client {
	cl.t.Helper()
	c := dial(cl.t, func(cfg *Config) {
		cfg.ForwardOnly = false
		for _, n := range nodes {
			cfg.Endpoints = append(cfg.Endpoints, cl.nodes[n-1].address())
		}
		if change != nil {
			change(cfg)
		}
	})
	eventually(cl.t, func() bool { return c.router.table.Load().epoch != 0 })
	if connected {
		cl.connect(c)
	}
	return c
}

// connect waits until c has a connection to every node.
func (cl *fakeCluster) connect(c *Client) {
	cl.t.Helper()
	for i := range cl.nodes {
		n := c.router.table.Load().nodes[uint64(i+1)]
		c.router.want(n)
		eventually(cl.t, func() bool { return len(*n.ready.Load()) > 0 })
	}
	cl.forgetRequests()
}

// keyIn returns the i-th key of a shard.
func keyIn(shard, i int) []byte {
	for n := 0; ; n++ {
		k := fmt.Appendf(nil, "k%d-%d", i, n)
		if int(protocol.Slot(k))/(protocol.Slots/fakeShards) == shard {
			return k
		}
	}
}

// eventually waits until a condition holds that other goroutines bring about.
func eventually(t testing.TB, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(90 * time.Second); !holds(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatal("it never came about")
		}
	}
}
