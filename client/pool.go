package client

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// pool keeps the connections: those of the configured endpoints, and those to
// nodes that only the cluster has named. One supervisor per connection (see
// supervise.go) makes it, adds it, and makes the next one when it ends.
type pool struct {
	c          *Client
	endpoints  []*endpointState
	ready      atomic.Pointer[[]*conn]          // connections that take requests; never modified in place
	advertised atomic.Pointer[[]*endpointState] // advertised addresses that connections are kept to; changes under mu, never in place

	mu      sync.Mutex
	closed  bool
	conns   map[*conn]struct{} // all that are open, draining ones too
	nodes   map[uint64]*node   // in the route table or connected
	cluster uint64             // that the connections belong to, 0: not known
}

func (p *pool) init(c *Client) {
	p.c = c
	p.conns, p.nodes = make(map[*conn]struct{}), make(map[uint64]*node)
	p.ready.Store(new([]*conn))
	p.advertised.Store(new([]*endpointState))
}

// close lets no more connections in, and returns those that are open.
func (p *pool) close() []*conn {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	return p.open()
}

// node is one server of the cluster, whatever address it was reached by.
type node struct {
	id     uint64
	ready  atomic.Pointer[[]*conn] // its part of pool.ready; never modified in place
	wanted atomic.Bool             // a call for it found no connection, and the router knows
	hinted atomic.Bool             // it was named as a leader anew: it is up, try it now

	address  string         // as in ROUTES, empty if unknown (pool.mu)
	endpoint *endpointState // keeps connections to address, nil: none (pool.mu)
}

// endpointState is one address that connections are kept to, and the state of these connections:
// an endpoint of the configuration, or the advertised address of a node.
type endpointState struct {
	endpoint
	c       *Client
	node    *node         // that must answer at an advertised address, nil: whoever does
	ended   chan struct{} // closed when an advertised address is given up; nil: never
	wanted  chan struct{} // ends the rest of a supervisor that has nothing to do
	nudged  chan struct{} // cuts a pause short
	reached atomic.Uint64 // the node that answered last
	up      atomic.Int32  // connections that stand

	mu       sync.Mutex
	err      error // of the last attempt to connect, or why the last connection ended; nil: one stands, or none was tried
	tries    int   // to connect since the last success
	at       int64 // when the last one ended, on the client's clock
	refusals int   // of the credentials, in a row
	barred   int64 // until when the credentials are not to be presented again; 0: no limit
}

func (p *pool) newEndpoint(ep endpoint) *endpointState {
	n := p.c.cfg.Connections
	return &endpointState{endpoint: ep, c: p.c, wanted: make(chan struct{}, n), nudged: make(chan struct{}, n)}
}

// tried notes how an attempt to connect ended, and returns the number of those
// that failed since the last success.
func (ep *endpointState) tried(now int64, err error) int {
	ep.mu.Lock()
	defer ep.mu.Unlock()
	ep.err, ep.at = err, now
	if ep.tries++; err == nil {
		ep.tries = 0
	}
	switch {
	case !errors.Is(err, ErrUnauthenticated):
		ep.refusals, ep.barred = 0, 0
	case now >= ep.barred: // otherwise another connection was refused at the same time
		ep.refusals++
		var e *Error
		errors.As(err, &e)
		ep.barred = now + int64(max(ep.c.cfg.backoff(ep.refusals), e.RetryAfter))
	}
	return ep.tries
}

// bar returns for how long the server is not to be asked again to accept the
// credentials, 0 if it may be, and how it has refused them.
func (ep *endpointState) bar(now int64) (time.Duration, error) {
	ep.mu.Lock()
	defer ep.mu.Unlock()
	if now >= ep.barred {
		return 0, nil
	}
	return time.Duration(ep.barred - now), ep.err
}

// lost notes why a connection has ended.
func (ep *endpointState) lost(cause error) {
	ep.mu.Lock()
	defer ep.mu.Unlock()
	if ep.up.Add(-1) == 0 && ep.err == nil {
		ep.err = cause
	}
}

// failure returns the last failure to connect.
func (ep *endpointState) failure(now int64) EndpointError {
	ep.mu.Lock()
	defer ep.mu.Unlock()
	e := EndpointError{Endpoint: ep.name, Err: ep.err, Tries: ep.tries}
	if ep.tries > 0 {
		e.Ago = time.Duration(now - ep.at)
	}
	return e
}

// add lets a new connection take requests. It fails if the client is
// closed, or if the server belongs to another cluster than the other
// connections.
func (p *pool) add(cn *conn) error {
	p.mu.Lock()
	if err := p.admit(cn); err != nil {
		p.mu.Unlock()
		return err
	}
	n := p.node(cn.info.Node)
	cn.node = n
	cn.ep.reached.Store(n.id)
	p.conns[cn] = struct{}{}
	p.ready.Store(with(*p.ready.Load(), cn))
	if cn.ep.node == nil {
		// A configured endpoint leads to the node: its advertised address is
		// not needed.
		for _, other := range *n.ready.Load() {
			if other.ep.node != nil {
				other.end(errSuperseded)
			}
		}
	}
	n.ready.Store(with(*n.ready.Load(), cn))
	p.c.wg.Add(2)
	p.mu.Unlock()
	go cn.writeLoop()
	go cn.readLoop()
	p.c.dispatcher.sendWaiting()
	return nil
}

// admit checks that a connection may be used. One to another cluster is only
// taken if there is no other connection and the configuration names the
// address; what is known of the old cluster is void then. An advertised address
// may mean another machine here than there. p.mu is held.
func (p *pool) admit(cn *conn) error {
	cluster := cn.info.Cluster
	switch {
	case p.closed:
		return ErrClosed
	case cluster == 0 || cluster == p.cluster:
		return nil
	case p.cluster != 0 && (cn.ep.node != nil || len(*p.ready.Load()) > 0):
		return fmt.Errorf("%w: the server belongs to cluster %016x, but the other endpoints belong to %016x", ErrHandshake, cluster, p.cluster)
	}
	if p.cluster != 0 {
		p.c.router.table.Store(emptyRoutes)
		for _, n := range p.nodes {
			p.disconnect(n)
			p.dropNode(n)
		}
		if p.c.seen != nil {
			for i := range p.c.seen {
				p.c.seen[i].Store(0)
			}
		}
		p.c.router.refreshSoon()
	}
	p.cluster = cluster
	return nil
}

// remove lets a connection take no more requests.
func (p *pool) remove(cn *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ready.Store(without(*p.ready.Load(), cn))
	n := cn.node
	n.ready.Store(without(*n.ready.Load(), cn))
	if len(*n.ready.Load()) == 0 {
		n.wanted.Store(false)
		p.dropNode(n)
	}
	if len(*p.ready.Load()) == 0 {
		p.c.router.kick()
		p.hurry()
	}
}

// with and without return a new list.
func with(conns []*conn, cn *conn) *[]*conn {
	longer := append(slices.Clone(conns), cn)
	return &longer
}

func without(conns []*conn, cn *conn) *[]*conn {
	shorter := slices.DeleteFunc(slices.Clone(conns), func(other *conn) bool { return other == cn })
	return &shorter
}

// forget drops a connection that has ended.
func (p *pool) forget(cn *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, cn)
}

// open returns all connections, draining ones too.
func (p *pool) open() []*conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	conns := make([]*conn, 0, len(p.conns))
	for cn := range p.conns {
		conns = append(conns, cn)
	}
	return conns
}

// hasOther reports whether another node than cn's can take requests.
func (p *pool) hasOther(cn *conn) bool {
	for _, other := range *p.ready.Load() {
		if other.node != cn.node && !other.stalled.Load() {
			return true
		}
	}
	return false
}

// starved reports whether a call waits and there is no connection at all.
func (p *pool) starved() bool {
	return len(*p.ready.Load()) == 0 && p.c.dispatcher.waiting.n.Load()+p.c.dispatcher.unnumbered.n.Load() > 0
}

// refused returns an error if no server can be expected to accept the client's
// credentials: there is no connection, one server has refused them, and all others
// were tried in vain since they were reached last.
func (p *pool) refused() error {
	if len(*p.ready.Load()) > 0 {
		return nil
	}
	refused := false
	for _, ep := range p.addresses() {
		ep.mu.Lock()
		refused = refused || ep.refusals > 0
		untried := ep.tries == 0
		ep.mu.Unlock()
		if untried {
			return nil
		}
	}
	if !refused {
		return nil
	}
	return p.unavailable()
}

// hurry cuts the pauses of all addresses short that no connection leads to: a
// call waits for one, or for another server than those that have been reached.
func (p *pool) hurry() {
	for _, list := range [...][]*endpointState{p.endpoints, *p.advertised.Load()} {
		for _, ep := range list {
			if ep.up.Load() == 0 {
				signal(ep.nudged)
			}
		}
	}
}

// addresses returns all that connections are kept to: the configuration's, then
// those that the cluster advertises.
func (p *pool) addresses() []*endpointState {
	return slices.Concat(p.endpoints, *p.advertised.Load())
}

func (p *pool) unavailable() *UnavailableError {
	e := &UnavailableError{}
	now := p.c.now()
	for _, ep := range p.addresses() {
		e.Endpoints = append(e.Endpoints, ep.failure(now))
	}
	return e
}

// node returns the node of a number. p.mu is held.
func (p *pool) node(id uint64) *node {
	n := p.nodes[id]
	if n == nil {
		n = &node{id: id}
		n.ready.Store(new([]*conn))
		p.nodes[id] = n
	}
	return n
}

// dropNode forgets a node that is neither in the route table nor connected.
// p.mu is held.
func (p *pool) dropNode(n *node) {
	if len(*n.ready.Load()) == 0 && p.c.router.table.Load().nodes[n.id] == nil && p.nodes[n.id] == n {
		delete(p.nodes, n.id)
	}
}

// connectWanted connects to the nodes that calls ask for, and, while there is no
// connection at all, to every node that is known.
func (p *pool) connectWanted() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	alone := len(*p.ready.Load()) == 0
	for _, n := range p.c.router.table.Load().nodes {
		if n.hinted.Swap(false) {
			p.nudge(n)
		}
		if (alone || n.wanted.Load()) && len(*n.ready.Load()) == 0 {
			p.connectTo(n)
		}
	}
}

// connectTo begins to keep connections to a node's advertised address. Where
// that already goes on but rests, it is resumed. p.mu is held.
func (p *pool) connectTo(n *node) {
	if n.endpoint != nil {
		signal(n.endpoint.wanted)
		return
	}
	ep, ok := parseAdvertised(n.address)
	if !ok || len(*p.advertised.Load()) >= advertisedMax {
		return
	}
	for _, configured := range p.endpoints {
		if configured.address == ep.address {
			return // its own supervisors are at it
		}
	}
	n.endpoint = p.newEndpoint(ep)
	n.endpoint.node, n.endpoint.ended = n, make(chan struct{})
	list := append(slices.Clone(*p.advertised.Load()), n.endpoint)
	p.advertised.Store(&list)
	for range p.c.cfg.Connections {
		p.c.wg.Add(1)
		go n.endpoint.supervise(nil)
	}
}

// disconnect ends the connections to a node's advertised address. p.mu is held.
func (p *pool) disconnect(n *node) {
	if n.endpoint != nil {
		list := slices.DeleteFunc(slices.Clone(*p.advertised.Load()), func(ep *endpointState) bool { return ep == n.endpoint })
		p.advertised.Store(&list)
		close(n.endpoint.ended)
		n.endpoint = nil
	}
	n.wanted.Store(false)
}

// nudge cuts the pause short before the next try to reach a node. p.mu is held.
func (p *pool) nudge(n *node) {
	if n.endpoint != nil {
		signal(n.endpoint.nudged)
	}
	for _, ep := range p.endpoints {
		if ep.reached.Load() == n.id {
			signal(ep.nudged)
		}
	}
}

// signal fills a channel of tokens, one for each goroutine that waits for them.
func signal(tokens chan struct{}) {
	for range cap(tokens) {
		select {
		case tokens <- struct{}{}:
		default:
			return
		}
	}
}

// parseAdvertised reads the address of a node in ROUTES. It reports false for
// one that means nothing outside that node's machine.
func parseAdvertised(address string) (endpoint, bool) {
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
