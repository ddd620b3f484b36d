package client

import (
	"bytes"
	"math"
	"net"
	"slices"
	"strings"
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
	// linksMax bounds the nodes that are connected to by their advertised
	// address. Requests for shards led elsewhere are forwarded by servers.
	linksMax = 256
)

// routesInterval is how often ROUTES is asked for although nothing calls for
// it: a leader that has moved while its old node still answers reads is noticed
// then at the latest. Tests that wait for other reasons to ask raise it.
var routesInterval = 15 * time.Second

// noShard stands for a slot that no shard owns.
const noShard = math.MaxUint16

// node is one server of the cluster, whatever address it was reached by.
type node struct {
	id     uint64
	ready  atomic.Pointer[[]*conn] // its part of Client.ready; never modified in place
	wanted atomic.Bool             // a call for it found no connection, and route has been told
	hinted atomic.Bool             // it was named as a leader anew: it is up, try it now

	address string         // as ROUTES tells it, empty if unknown (Client.mu)
	link    *endpointState // keeps connections to address, nil: none (Client.mu)
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
func (c *Client) target(ca *call) *node {
	if ca.routed {
		return c.routes.Load().leader(ca.slot)
	}
	return ca.to
}

// routeBy lets a call that is made by hand go to the leader of a key's shard.
func (c *Client) routeBy(ca *call, key []byte) {
	if c.routes.Load().several && len(key) > 0 {
		ca.slot, ca.routed = protocol.Slot(key), true
	}
}

// want asks for connections to a node. It is called on the hot path while
// there are none, so it does something only the first time.
func (c *Client) want(n *node) {
	if !n.wanted.Load() && n.wanted.CompareAndSwap(false, true) {
		c.kickRouter()
	}
}

// refreshSoon asks for a new route table.
func (c *Client) refreshSoon() {
	if !c.cfg.ForwardOnly && c.outdated.CompareAndSwap(false, true) {
		c.kickRouter()
	}
}

func (c *Client) kickRouter() {
	select {
	case c.routeKick <- struct{}{}:
	default:
	}
}

// learn takes what a reply to ca says about the cluster: the leader of its
// shard, a newer slot map.
func (c *Client) learn(ca *call, x *protocol.Extensions) {
	t := c.routes.Load()
	if x.Epoch > t.epoch {
		c.refreshSoon()
	}
	if x.Leader == 0 || ca.weak || !ca.routed {
		return
	}
	n, s := t.nodes[x.Leader], t.shard(ca.slot)
	if n == nil || s == nil {
		c.refreshSoon()
		return
	}
	if s.leader.Swap(n) != n {
		c.hint(n)
	}
}

// hint notes that somebody has just named n as a leader. If it cannot be
// reached, a pause before the next try is cut short.
func (c *Client) hint(n *node) {
	if len(*n.ready.Load()) == 0 {
		n.hinted.Store(true)
		c.kickRouter()
	}
}

// disown notes that a node does not lead the shard it was thought to lead.
func (c *Client) disown(ca *call, n *node) {
	if !ca.routed || ca.weak {
		return
	}
	if s := c.routes.Load().shard(ca.slot); s != nil && s.leader.CompareAndSwap(n, nil) {
		c.refreshSoon()
	}
}

// confirm notes that a node carried out a write by itself, which only the
// shard's leader does. Calls that went where the table says need not tell.
func (c *Client) confirm(ca *call, n *node) {
	t := c.routes.Load()
	if s := t.shard(ca.slot); s != nil && t.nodes[n.id] == n {
		s.leader.Store(n)
	}
}

// route keeps the route table and the connections it calls for, until Close.
func (c *Client) route() {
	defer c.wg.Done()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var pending *Future[*protocol.RoutesReply]
	var answered <-chan struct{}
	var earliest int64 // of the next request
	pause := routesPauseMin
	periodic := c.now() + int64(jitter(routesInterval))
	c.outdated.Store(true)
	for {
		c.openLinks()
		wake := c.now() + int64(time.Hour)
		if pending == nil {
			if wake = periodic; c.outdated.Load() {
				wake = min(periodic, earliest)
			}
			if now := c.now(); now >= wake {
				c.outdated.Store(false)
				periodic = now + int64(jitter(routesInterval))
				pending = c.askRoutes()
				answered = pending.Done()
			}
		}
		timer.Reset(time.Duration(max(wake-c.now(), 0)))
		select {
		case <-c.ctx.Done():
			return
		case <-c.routeKick:
		case <-timer.C:
		case <-answered:
			if pending.err == nil {
				c.adopt(pending.value)
				pause = routesPauseMin
			} else {
				c.outdated.Store(true)
				pause = min(2*pause, routesPauseMax)
			}
			pending, answered = nil, nil
			earliest = c.now() + int64(jitter(pause))
		}
	}
}

// askRoutes begins a ROUTES request.
func (c *Client) askRoutes() *Future[*protocol.RoutesReply] {
	o := Operation{code: protocol.OpRoutes, timeout: routesTimeout}
	return startFuture(c, o, func(ca *call) (*protocol.RoutesReply, error) {
		if err := ca.statusError(); err != nil {
			return nil, err
		}
		m := new(protocol.RoutesReply)
		return m, m.Decode(bytes.Join(append(ca.parts, ca.body), nil))
	})
}

// adopt makes a ROUTES reply the route table, unless a newer one is known.
func (c *Client) adopt(m *protocol.RoutesReply) {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.routes.Load()
	if c.closed || m.Epoch < old.epoch {
		return
	}
	t := newRouteTable(m.Epoch, len(m.Shards))
	for i := range m.Nodes {
		if id := m.Nodes[i].ID; id != 0 {
			n := c.node(id)
			if address := string(m.Nodes[i].Address); address != n.address {
				c.unlink(n)
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
	c.routes.Store(t)
	for i := range t.shards {
		if n := t.shards[i].leader.Load(); n != nil && n != known[t.shards[i].id] {
			c.hint(n)
		}
	}
	for id, n := range c.nodes {
		if t.nodes[id] == nil {
			c.unlink(n)
			c.dropNode(n)
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

// node returns the node of a number. c.mu is held.
func (c *Client) node(id uint64) *node {
	n := c.nodes[id]
	if n == nil {
		n = &node{id: id}
		n.ready.Store(new([]*conn))
		c.nodes[id] = n
	}
	return n
}

// dropNode forgets a node that is neither in the route table nor connected.
// c.mu is held.
func (c *Client) dropNode(n *node) {
	if len(*n.ready.Load()) == 0 && c.routes.Load().nodes[n.id] == nil && c.nodes[n.id] == n {
		delete(c.nodes, n.id)
	}
}

// openLinks connects to the nodes that calls ask for, and, while there is no
// connection at all, to every node that is known.
func (c *Client) openLinks() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	alone := len(*c.ready.Load()) == 0
	for _, n := range c.routes.Load().nodes {
		if n.hinted.Swap(false) {
			c.nudge(n)
		}
		if (alone || n.wanted.Load()) && len(*n.ready.Load()) == 0 {
			c.openLink(n)
		}
	}
}

// openLink begins to keep connections to a node's advertised address. Where
// that already goes on but rests, it is resumed. c.mu is held.
func (c *Client) openLink(n *node) {
	if n.link != nil {
		signal(n.link.wanted)
		return
	}
	ep, ok := advertised(n.address)
	if !ok || len(*c.links.Load()) >= linksMax {
		return
	}
	for _, configured := range c.endpoints {
		if configured.address == ep.address {
			return // its own supervisors are at it
		}
	}
	n.link = c.newEndpoint(ep)
	n.link.node, n.link.ended = n, make(chan struct{})
	links := append(slices.Clone(*c.links.Load()), n.link)
	c.links.Store(&links)
	for range c.cfg.Connections {
		c.wg.Add(1)
		go c.supervise(n.link, nil)
	}
}

// unlink ends the connections to a node's advertised address. c.mu is held.
func (c *Client) unlink(n *node) {
	if n.link != nil {
		links := slices.DeleteFunc(slices.Clone(*c.links.Load()), func(ep *endpointState) bool { return ep == n.link })
		c.links.Store(&links)
		close(n.link.ended)
		n.link = nil
	}
	n.wanted.Store(false)
}

// nudge cuts the pause short before the next try to reach a node. c.mu is held.
func (c *Client) nudge(n *node) {
	if n.link != nil {
		signal(n.link.nudged)
	}
	for _, ep := range c.endpoints {
		if ep.reached.Load() == n.id {
			signal(ep.nudged)
		}
	}
}

// signal fills a channel of tokens, one for each supervisor.
func signal(tokens chan struct{}) {
	for range cap(tokens) {
		select {
		case tokens <- struct{}{}:
		default:
			return
		}
	}
}

// advertised reads a node's address as ROUTES tells it. It reports false for
// one that means nothing outside that node's machine.
func advertised(address string) (endpoint, bool) {
	host, _, err := net.SplitHostPort(address)
	if err != nil || host == "" || strings.HasPrefix(address, "unix:") {
		return endpoint{}, false
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		return endpoint{}, false
	}
	ep, err := parseEndpoint(address)
	return ep, err == nil
}
