package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/protocol"
)

// Member is one server that a Harness sends requests to.
type Member struct {
	ID          uint64 `json:"node"`
	Address     string `json:"address"`
	Version     string `json:"version"`
	Cluster     uint64 `json:"-"`
	InFlightMax int    `json:"-"` // requests that the server takes on one connection; 0: any number
}

// login is how clients connect to servers.
func (l *Load) login() client.Config {
	return client.Config{TLS: l.TLS, User: l.User, Secret: l.Secret, DialTimeout: l.Timeout, RequestTimeout: l.Timeout, Name: clientName}
}

// nodesMax bounds the servers a Harness connects to.
const nodesMax = 64

// cluster is what a Harness knows of the servers.
type cluster struct {
	id      uint64 // 0: not known yet
	login   client.Config
	members []Member // at least one
	shards  int
	table   atomic.Pointer[leaders]
	refresh chan struct{} // the table was found outdated
}

// leaders is, for each slot, the member that leads its shard.
type leaders struct {
	epoch uint64
	of    [protocol.Slots]int16 // index in members, or nobody
}

const nobody = -1

// Bounds of the pauses between two requests for the slot map.
const (
	routesPauseMin = 50 * time.Millisecond
	routesPauseMax = time.Second
)

// discover finds the servers: those named and, unless anyNode is set, all
// others that lead shards. All belong to one cluster: to the one with the id
// only, or where that is 0 to that of the first that answers. A leader that cannot
// be reached may just have died, and the other nodes elect another one: discover
// tries again until there is a leader that can be reached, for at most the timeout of
// login.
func discover(ctx context.Context, addresses []string, anyNode bool, only uint64, login client.Config) (*cluster, error) {
	within, cancel := context.WithTimeout(ctx, login.DialTimeout)
	defer cancel()
	for delay := routesPauseMin; ; delay = min(2*delay, routesPauseMax) {
		c, err := discoverOnce(ctx, addresses, anyNode, only, login)
		gone, ok := errors.AsType[*leaderError](err)
		if !ok || !gone.dialled || !pause(within, delay) {
			return c, err
		}
	}
}

// leaderError says that a node leads shards and cannot be reached.
type leaderError struct {
	node    uint64
	err     error
	dialled bool // false: its address cannot be dialled from here
	named   bool // its address is one of those named
}

func (e *leaderError) Error() string {
	text := fmt.Sprintf("bench: node %d leads shards and cannot be reached: %v", e.node, e.err)
	if e.named {
		return text
	}
	return text + "; add its address to the endpoints, or let the named servers forward requests to it (--any-node)"
}

func (e *leaderError) Unwrap() error { return e.err }

// discoverOnce is discover without a second attempt.
func discoverOnce(ctx context.Context, addresses []string, anyNode bool, only uint64, login client.Config) (*cluster, error) {
	c := &cluster{id: only, login: login, refresh: make(chan struct{}, 1)}
	var routes client.Routes
	var failed []client.EndpointError
	for _, a := range addresses {
		m, r, err := c.identify(ctx, a)
		if err != nil {
			failed = append(failed, failureOf(a, err))
			continue
		}
		c.id = m.Cluster
		c.add(m)
		if r.Epoch > routes.Epoch || routes.Shards == nil {
			routes = r
		}
	}
	if len(c.members) == 0 || len(failed) > 0 && anyNode {
		return nil, &client.UnavailableError{Endpoints: failed}
	}
	c.shards = len(routes.Shards)
	if !anyNode {
		if err := c.addLeaders(ctx, routes, addresses); err != nil {
			return nil, err
		}
	}
	c.setRoutes(routes)
	return c, nil
}

// withServer connects to one server, and calls f with a client that talks to no other.
// A server of another cluster than the one with the id is refused with a
// *client.WrongClusterError, unless the id is 0.
func withServer(ctx context.Context, address string, cluster uint64, login client.Config, f func(*client.Client) error) error {
	login.Endpoints, login.Cluster, login.ForwardOnly, login.Connections = []string{address}, cluster, true, 1
	c, err := client.New(ctx, login)
	if err != nil {
		return err
	}
	return errors.Join(f(c), c.Close())
}

// failureOf returns why nothing came of a visit to a server.
func failureOf(address string, err error) client.EndpointError {
	if u, ok := errors.AsType[*client.UnavailableError](err); ok && len(u.Endpoints) == 1 {
		return u.Endpoints[0]
	}
	return client.EndpointError{Endpoint: address, Err: err}
}

// identify returns which server answers at an address, and its slot map.
func (c *cluster) identify(ctx context.Context, address string) (m Member, routes client.Routes, err error) {
	err = withServer(ctx, address, c.id, c.login, func(k *client.Client) (err error) {
		if routes, err = k.Routes(ctx); err != nil {
			return err
		}
		s, connected := k.Server()
		if !connected {
			return ErrClosed
		}
		m = Member{ID: s.Node, Address: address, Version: s.Version, Cluster: s.Cluster, InFlightMax: s.InFlightMax}
		return nil
	})
	return m, routes, err
}

// add adds a member unless it is known by another address.
func (c *cluster) add(m Member) {
	if c.member(m.ID) == nobody || m.ID == 0 {
		c.members = append(c.members, m)
	}
}

// member returns the index of a node.
func (c *cluster) member(id uint64) int16 {
	for i := range c.members {
		if c.members[i].ID == id {
			return int16(i)
		}
	}
	return nobody
}

// addLeaders adds the nodes that have not answered at one of the addresses named.
// One that cannot be reached is left out unless it leads something: that is a
// *leaderError.
func (c *cluster) addLeaders(ctx context.Context, routes client.Routes, named []string) error {
	leads := map[uint64]bool{}
	for _, s := range routes.Shards {
		leads[s.Leader] = true
	}
	for _, n := range routes.Nodes {
		if c.member(n.ID) != nobody || len(c.members) == nodesMax {
			continue
		}
		var m Member
		err := fmt.Errorf("its address %q is not reachable from other machines", n.Address)
		dialled := reachable(n.Address)
		if dialled {
			m, _, err = c.identify(ctx, n.Address)
		}
		if err == nil && m.ID != n.ID {
			err = fmt.Errorf("node %d answers at %s", m.ID, n.Address)
		}
		switch {
		case err == nil:
			c.add(m)
		case leads[n.ID]:
			return &leaderError{n.ID, failureOf(n.Address, err).Err, dialled, slices.Contains(named, n.Address)}
		}
	}
	return nil
}

// reachable reports whether an address means something on another machine.
func reachable(address string) bool {
	host, _, err := net.SplitHostPort(address)
	ip := net.ParseIP(host)
	return err == nil && host != "" && !strings.HasPrefix(address, "unix:") && (ip == nil || !ip.IsUnspecified())
}

// setRoutes makes a slot map the table.
func (c *cluster) setRoutes(routes client.Routes) {
	t := &leaders{epoch: routes.Epoch}
	for i := range t.of {
		t.of[i] = nobody
	}
	for _, s := range routes.Shards {
		leader := c.member(s.Leader)
		if s.Leader == 0 {
			leader = nobody
		}
		for _, r := range s.Slots {
			for slot := int(r.First); slot <= int(r.Last); slot++ {
				t.of[slot] = leader
			}
		}
	}
	c.table.Store(t)
}

// requestRefresh asks for a newer table. It never waits.
func (c *cluster) requestRefresh() {
	select {
	case c.refresh <- struct{}{}:
	default:
	}
}

// refreshRoutes reads the slot map whenever a refresh is requested, until ctx ends.
// If a member does not answer, the next one is asked.
func (c *cluster) refreshRoutes(ctx context.Context) {
	delay := routesPauseMin
	for at := 0; ; at++ {
		select {
		case <-ctx.Done():
			return
		case <-c.refresh:
		}
		_, routes, err := c.identify(ctx, c.members[at%len(c.members)].Address)
		if err == nil {
			if routes.Epoch >= c.table.Load().epoch {
				c.setRoutes(routes)
			}
			delay = routesPauseMin
		} else {
			delay = min(2*delay, routesPauseMax)
			c.requestRefresh()
		}
		if !pause(ctx, delay) {
			return
		}
	}
}

// pause waits, and reports whether ctx has not ended.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
