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

// Member is one server that a Harness asks.
type Member struct {
	ID          uint64
	Address     string
	Version     string
	cluster     uint64
	inFlightMax int
}

// nodesMax bounds the servers a Harness connects to.
const nodesMax = 64

// cluster is what a Harness knows of the servers.
type cluster struct {
	id      uint64   // 0: not known yet
	members []Member // at least one
	shards  int
	table   atomic.Pointer[leaders]
	kick    chan struct{} // somebody has found the table outdated
}

// leaders tells for each slot which member leads its shard.
type leaders struct {
	epoch uint64
	of    [protocol.Slots]int16 // index in members, or nobody
}

const nobody = -1

// Bounds of asking who leads what.
const (
	routesPauseMin = 50 * time.Millisecond
	routesPauseMax = time.Second
)

// discover finds the servers: those named and, unless anyNode is set, all
// others that lead shards. All belong to one cluster: to the one with the id
// only, or where that is 0 to that of the first that answers. A leader that cannot
// be reached may just have died, and the other nodes elect another one: discover
// asks again until there is a leader that can be reached, for at most timeout.
func discover(ctx context.Context, addresses []string, anyNode bool, only uint64, timeout time.Duration) (*cluster, error) {
	within, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for pause := routesPauseMin; ; pause = min(2*pause, routesPauseMax) {
		c, err := discoverOnce(ctx, addresses, anyNode, only, timeout)
		gone, ok := errors.AsType[*leaderError](err)
		if !ok || !gone.dialled || !rest(within, pause) {
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
func discoverOnce(ctx context.Context, addresses []string, anyNode bool, only uint64, timeout time.Duration) (*cluster, error) {
	c := &cluster{id: only, kick: make(chan struct{}, 1)}
	var routes *protocol.RoutesReply
	var failed []Unreached
	for _, a := range addresses {
		m, r, err := c.meet(ctx, a, timeout)
		if err != nil {
			failed = append(failed, Unreached{a, err})
			continue
		}
		c.id = m.cluster
		c.add(m)
		routes = newer(routes, r)
	}
	if len(c.members) == 0 || len(failed) > 0 && anyNode {
		return nil, &UnreachableError{failed}
	}
	c.shards = len(routes.Shards)
	if !anyNode {
		if err := c.addLeaders(ctx, routes, addresses, timeout); err != nil {
			return nil, err
		}
	}
	c.adopt(routes)
	return c, nil
}

// UnreachableError says that no server could be reached, or not all that were
// to be asked.
type UnreachableError struct{ Failed []Unreached }

// Unreached is an address at which no server answers, and why.
type Unreached struct {
	Address string
	Err     error
}

// Error names each address and what was wrong.
func (e *UnreachableError) Error() string {
	words := make([]string, len(e.Failed))
	for i, f := range e.Failed {
		words[i] = fmt.Sprintf("%s: %v", f.Address, f.Err)
	}
	return "bench: no server could be reached: " + strings.Join(words, "; ")
}

// Unwrap returns the causes.
func (e *UnreachableError) Unwrap() []error {
	errs := make([]error, len(e.Failed))
	for i, f := range e.Failed {
		errs[i] = f.Err
	}
	return errs
}

// newer returns the reply of the higher epoch.
func newer(a, b *protocol.RoutesReply) *protocol.RoutesReply {
	if a == nil || b.Epoch > a.Epoch {
		return b
	}
	return a
}

// meet asks a server who it is and what it knows of the others. One of another
// cluster is refused with a *client.WrongClusterError.
func (c *cluster) meet(ctx context.Context, address string, timeout time.Duration) (Member, *protocol.RoutesReply, error) {
	k, err := dialControl(ctx, address, timeout)
	if err != nil {
		return Member{}, nil, err
	}
	if got := k.hello.Cluster; c.id != 0 && got != c.id {
		return Member{}, nil, errors.Join(&client.WrongClusterError{Endpoint: address, Want: c.id, Got: got}, k.close())
	}
	routes, err := k.routes()
	m := Member{ID: k.hello.Node, Address: address, Version: string(k.hello.ServerVersion), cluster: k.hello.Cluster, inFlightMax: int(k.hello.InFlightMax)}
	return m, routes, errors.Join(err, k.close())
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
func (c *cluster) addLeaders(ctx context.Context, routes *protocol.RoutesReply, named []string, timeout time.Duration) error {
	leads := map[uint64]bool{}
	for i := range routes.Shards {
		leads[routes.Shards[i].Leader] = true
	}
	for i := range routes.Nodes {
		n := &routes.Nodes[i]
		if c.member(n.ID) != nobody || len(c.members) == nodesMax {
			continue
		}
		address := string(n.Address)
		var m Member
		err := fmt.Errorf("its address %q is not reachable from other machines", address)
		dialled := reachable(address)
		if dialled {
			m, _, err = c.meet(ctx, address, timeout)
		}
		if err == nil && m.ID != n.ID {
			err = fmt.Errorf("node %d answers at %s", m.ID, address)
		}
		switch {
		case err == nil:
			c.add(m)
		case leads[n.ID]:
			return &leaderError{n.ID, err, dialled, slices.Contains(named, address)}
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

// adopt makes the reply the table.
func (c *cluster) adopt(routes *protocol.RoutesReply) {
	t := &leaders{epoch: routes.Epoch}
	for i := range t.of {
		t.of[i] = nobody
	}
	for i := range routes.Shards {
		s := &routes.Shards[i]
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

// outdated asks for a newer table. It never waits.
func (c *cluster) outdated() {
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

// follow asks for a new table whenever somebody finds the old one outdated,
// until ctx ends. Without an answer it asks the next member.
func (c *cluster) follow(ctx context.Context, timeout time.Duration) {
	pause := routesPauseMin
	for at := 0; ; at++ {
		select {
		case <-ctx.Done():
			return
		case <-c.kick:
		}
		_, routes, err := c.meet(ctx, c.members[at%len(c.members)].Address, timeout)
		if err == nil {
			if routes.Epoch >= c.table.Load().epoch {
				c.adopt(routes)
			}
			pause = routesPauseMin
		} else {
			pause = min(2*pause, routesPauseMax)
			c.outdated()
		}
		if !rest(ctx, pause) {
			return
		}
	}
}

// rest waits, and reports whether ctx has not ended.
func rest(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
