package client

import (
	"bytes"
	"math"
	"sync/atomic"
	"time"

	"github.com/proa-kv/proa/protocol"
)

// Bounds of what the client does to know the cluster.
const (
	// routesTimeout bounds one ROUTES request.
	routesTimeout = 5 * time.Second
	// routesPauseMin and routesPauseMax bound the pause between two ROUTES
	// requests: the first after a success, doubling up to the other with each
	// failure.
	routesPauseMin = 100 * time.Millisecond
	routesPauseMax = 10 * time.Second
	// advertisedMax bounds the nodes that are connected to by their advertised
	// address. Requests for shards led elsewhere are forwarded by servers.
	advertisedMax = 256
)

// routesInterval is how often ROUTES is asked for although nothing calls for
// it: a leader that has moved while its old node still answers reads is noticed
// then at the latest. Tests that wait for other reasons to ask raise it.
var routesInterval = 15 * time.Second

// noShard stands for a slot that no shard owns.
const noShard = math.MaxUint16

// router knows which node leads the shard of each key. It asks for the table when
// something calls for it, and takes hints from the replies to all calls.
type router struct {
	c        *Client
	table    atomic.Pointer[routeTable] // never nil
	outdated atomic.Bool                // a new table is to be fetched
	wake     chan struct{}              // there is something to do
}

func (r *router) init(c *Client) {
	r.c, r.wake = c, make(chan struct{}, 1)
	r.table.Store(emptyRoutes)
}

// routeTable says which node leads the shard of each slot. Only the leaders
// change in place; they are hints, and a wrong one costs a forwarded request.
type routeTable struct {
	epoch   uint64
	several bool // more than one node: it matters where a request goes
	nodes   map[uint64]*node
	shards  []shardRoute
	of      [protocol.Slots]uint16 // index in shards, or noShard
}

type shardRoute struct {
	id     uint16
	leader atomic.Pointer[node] // nil: unknown
}

// emptyRoutes stands for knowing nothing.
var emptyRoutes = newRouteTable(0, 0)

func newRouteTable(epoch uint64, shards int) *routeTable {
	t := &routeTable{epoch: epoch, nodes: make(map[uint64]*node), shards: make([]shardRoute, shards)}
	for i := range t.of {
		t.of[i] = noShard
	}
	return t
}

// shard returns the shard that owns a slot, nil if that is not known.
func (t *routeTable) shard(slot uint16) *shardRoute {
	if i := int(t.of[slot]); i < len(t.shards) {
		return &t.shards[i]
	}
	return nil
}

// leader returns the node that leads the shard of a slot, nil if unknown.
func (t *routeTable) leader(slot uint16) *node {
	if s := t.shard(slot); s != nil {
		return s.leader.Load()
	}
	return nil
}

// leaderOf returns the node that leads the shard of a key, nil if unknown.
func (t *routeTable) leaderOf(key []byte) *node { return t.leader(protocol.Slot(key)) }

// majority returns the node that leads the shards of most keys, nil where it
// does not matter or is not known.
func (t *routeTable) majority(n int, key func(int) []byte) *node {
	if !t.several {
		return nil
	}
	var best *node
	counts := make(map[*node]int)
	for i := range n {
		leader := t.leaderOf(key(i))
		if counts[leader]++; leader != nil && counts[leader] > counts[best] {
			best = leader
		}
	}
	return best
}

// target returns the node that a call should go to, nil for any.
func (r *router) target(ca *call) *node {
	if ca.routed {
		return r.table.Load().leader(ca.slot)
	}
	return ca.to
}

// routeBy lets a call that is made by hand go to the leader of a key's shard.
func (r *router) routeBy(ca *call, key []byte) {
	if r.table.Load().several && len(key) > 0 {
		ca.slot, ca.routed = protocol.Slot(key), true
	}
}

// want asks for connections to a node. It is called on the hot path while
// there are none, so it does something only the first time.
func (r *router) want(n *node) {
	if !n.wanted.Load() && n.wanted.CompareAndSwap(false, true) {
		r.kick()
	}
}

// refreshSoon asks for a new route table.
func (r *router) refreshSoon() {
	if !r.c.cfg.ForwardOnly && r.outdated.CompareAndSwap(false, true) {
		r.kick()
	}
}

func (r *router) kick() { signal(r.wake) }

// learn takes what a reply to ca says about the cluster: the leader of its
// shard, a newer slot map.
func (r *router) learn(ca *call, x *protocol.Extensions) {
	t := r.table.Load()
	if x.Epoch > t.epoch {
		r.refreshSoon()
	}
	if x.Leader == 0 || ca.weak || !ca.routed {
		return
	}
	n, s := t.nodes[x.Leader], t.shard(ca.slot)
	if n == nil || s == nil {
		r.refreshSoon()
		return
	}
	if s.leader.Swap(n) != n {
		r.hint(n)
	}
}

// hint notes that somebody has just named n as a leader. If it cannot be
// reached, a pause before the next try is cut short.
func (r *router) hint(n *node) {
	if len(*n.ready.Load()) == 0 {
		n.hinted.Store(true)
		r.kick()
	}
}

// disown notes that a node does not lead the shard it was thought to lead.
func (r *router) disown(ca *call, n *node) {
	if !ca.routed || ca.weak {
		return
	}
	if s := r.table.Load().shard(ca.slot); s != nil && s.leader.CompareAndSwap(n, nil) {
		r.refreshSoon()
	}
}

// confirm notes that a node carried out a write by itself, which only the
// shard's leader does. It is of use only for calls that did not go where the table says.
func (r *router) confirm(ca *call, n *node) {
	t := r.table.Load()
	if s := t.shard(ca.slot); s != nil && t.nodes[n.id] == n {
		s.leader.Store(n)
	}
}

// run keeps the route table and the connections it calls for, until Close.
func (r *router) run() {
	defer r.c.wg.Done()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var pending *Future[*protocol.RoutesReply]
	var answered <-chan struct{}
	var earliest int64 // of the next request
	failures := 0      // in a row
	periodic := r.c.now() + int64(jitter(routesInterval))
	r.outdated.Store(true)
	for {
		r.c.pool.connectWanted()
		wake := r.c.now() + int64(time.Hour)
		if pending == nil {
			if wake = periodic; r.outdated.Load() {
				wake = min(periodic, earliest)
			}
			if now := r.c.now(); now >= wake {
				r.outdated.Store(false)
				periodic = now + int64(jitter(routesInterval))
				pending = r.askRoutes()
				answered = pending.Done()
			}
		}
		timer.Reset(time.Duration(max(wake-r.c.now(), 0)))
		select {
		case <-r.c.ctx.Done():
			return
		case <-r.wake:
		case <-timer.C:
		case <-answered:
			if pending.err == nil {
				r.adopt(pending.value)
				failures = 0
			} else {
				r.outdated.Store(true)
				failures++
			}
			pending, answered = nil, nil
			earliest = r.c.now() + int64(jitter(doubled(routesPauseMin, routesPauseMax, failures)))
		}
	}
}

// askRoutes begins a ROUTES request.
func (r *router) askRoutes() *Future[*protocol.RoutesReply] {
	o := Operation{code: protocol.OpRoutes, timeout: routesTimeout}
	return startFuture(r.c, o, func(ca *call) (*protocol.RoutesReply, error) {
		if err := ca.statusError(); err != nil {
			return nil, err
		}
		m := new(protocol.RoutesReply)
		return m, m.Decode(bytes.Join(append(ca.parts, ca.body), nil))
	})
}

// adopt makes a ROUTES reply the route table, unless a newer one is known.
func (r *router) adopt(m *protocol.RoutesReply) {
	r.c.pool.mu.Lock()
	defer r.c.pool.mu.Unlock()
	old := r.table.Load()
	if r.c.pool.closed || m.Epoch < old.epoch {
		return
	}
	t := newRouteTable(m.Epoch, len(m.Shards))
	for i := range m.Nodes {
		if id := m.Nodes[i].ID; id != 0 {
			n := r.c.pool.node(id)
			if address := string(m.Nodes[i].Address); address != n.address {
				r.c.pool.disconnect(n)
				n.address = address
			}
			t.nodes[id] = n
		}
	}
	t.several = len(t.nodes) > 1
	known := make(map[uint16]*node, len(old.shards))
	for i := range old.shards {
		known[old.shards[i].id] = old.shards[i].leader.Load()
	}
	for i := range m.Shards {
		t.addShard(i, &m.Shards[i], known[m.Shards[i].ID])
	}
	r.table.Store(t)
	for i := range t.shards {
		if n := t.shards[i].leader.Load(); n != nil && n != known[t.shards[i].id] {
			r.hint(n)
		}
	}
	for id, n := range r.c.pool.nodes {
		if t.nodes[id] == nil {
			r.c.pool.disconnect(n)
			r.c.pool.dropNode(n)
		}
	}
}

// addShard fills in shard i. A node that does not know the leader does not
// make the client forget the one it knows.
func (t *routeTable) addShard(i int, m *protocol.RouteShard, known *node) {
	t.shards[i].id = m.ID
	leader := t.nodes[m.Leader]
	if m.Leader == 0 && known != nil {
		leader = t.nodes[known.id]
	}
	t.shards[i].leader.Store(leader)
	for _, r := range m.Slots {
		for slot := int(r.First); slot <= int(r.Last); slot++ {
			t.of[slot] = uint16(i)
		}
	}
}
