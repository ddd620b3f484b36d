package testcluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/internal/spawn"
)

const (
	// settleTimeout bounds how long a cluster may take to get where a test
	// waits for it to be.
	settleTimeout = 90 * time.Second

	// askTimeout bounds one look at one server, which may be paused.
	askTimeout = 2 * time.Second

	// adminTimeout bounds an administrative request to one server, after which
	// the next one is asked.
	adminTimeout = 10 * time.Second
)

// ClusterConfig says how to run a cluster. The zero value is three servers with
// direct links.
type ClusterConfig struct {
	// Nodes is the number of servers that found the cluster; 0 means 3.
	Nodes int
	// Shards is the number of shards; 0 means the server's default.
	Shards int
	// Proxied puts a proxy into each link between two servers, so that links
	// can be cut and delayed. It needs Linux; the test is skipped elsewhere.
	Proxied bool
	// Place, if not nil, says at which IP address a server listens, and by
	// which Config.Command it gets there.
	Place func(id int) (host string, command []string)
	// Args, Settings and Env are those of Config, for each server.
	Args, Settings, Env []string
	// User and Password are those of Config, for each server.
	User, Password string
}

// Cluster is several servers that form one cluster. They are numbered from 1,
// and that is their node number as well.
type Cluster struct {
	t       testing.TB
	cfg     ClusterConfig
	nodes   []*Node
	peers   []string // the peer address each node advertises
	network *network // nil unless Proxied
}

// StartCluster starts a cluster and returns when all its servers answer and all
// its shards have leaders.
func StartCluster(t testing.TB, cfg ClusterConfig) *Cluster {
	t.Helper()
	c := NewCluster(t, cfg)
	c.Start()
	return c
}

// NewCluster prepares a cluster without starting a server.
func NewCluster(t testing.TB, cfg ClusterConfig) *Cluster {
	t.Helper()
	if cfg.Nodes == 0 {
		cfg.Nodes = 3
	}
	c := &Cluster{t: t, cfg: cfg}
	if cfg.Proxied {
		c.network = newNetwork(t)
	}
	listen := make([]string, cfg.Nodes)
	for i := range listen {
		listen[i] = c.addPeer()
	}
	for i := range listen {
		c.addNode(listen[i], c.peers)
	}
	return c
}

// addPeer draws the address a further node listens on for its peers, and notes
// the one it advertises.
func (c *Cluster) addPeer() (listen string) {
	host, _ := c.place(len(c.peers) + 1)
	listen = freeAddressOf(c.t, host)
	advertised := listen
	if c.network != nil {
		advertised = c.network.front(len(c.peers)+1, listen)
	}
	c.peers = append(c.peers, advertised)
	return listen
}

// place returns where a server runs, and how it gets there.
func (c *Cluster) place(id int) (host string, command []string) {
	if c.cfg.Place == nil {
		return loopback, nil
	}
	return c.cfg.Place(id)
}

// addNode prepares the next server.
func (c *Cluster) addNode(listen string, join []string, more ...string) *Node {
	id := len(c.nodes) + 1
	args := []string{"--node-id", strconv.Itoa(id), "--advertise-peer", c.peers[id-1], "--join", strings.Join(join, ",")}
	if c.cfg.Shards > 0 {
		args = append(args, "--shards", strconv.Itoa(c.cfg.Shards))
	}
	args = append(args, more...)
	host, command := c.place(id)
	n := New(c.t, Config{
		Address: freeAddressOf(c.t, host), Command: command, Peer: listen, Args: append(args, c.cfg.Args...), Settings: c.cfg.Settings, Env: c.cfg.Env,
		User: c.cfg.User, Password: c.cfg.Password,
	})
	c.nodes = append(c.nodes, n)
	if c.network != nil {
		c.network.add(n)
	}
	return n
}

// Start starts every server that does not run, and returns when all of them
// answer and all shards have leaders.
func (c *Cluster) Start() {
	c.t.Helper()
	var started []*Node
	for _, n := range c.nodes {
		if n.process.Load() == nil {
			n.Spawn()
			started = append(started, n)
		}
	}
	// A majority may have to be there before the first of them answers.
	for _, n := range started {
		n.AwaitReady()
	}
	c.AwaitLeaders()
}

// Join starts one more server, which joins the cluster under the next number,
// and returns it when it answers.
func (c *Cluster) Join() *Node {
	c.t.Helper()
	join := slices.Clone(c.peers)
	listen := c.addPeer()
	id := uint64(len(c.peers))
	c.Admin(command.AdminMemberAdd, command.MemberArgs{Node: id})
	n := c.addNode(listen, join, "--join-token", c.JoinToken())
	n.Start()
	return n
}

// JoinUnannounced starts one more server, which joins the cluster under a number
// that was not announced, or one that the cluster gives it if number is 0, and
// returns it when it answers. Node does not find it by that number.
func (c *Cluster) JoinUnannounced(number int) *Node {
	c.t.Helper()
	join := slices.Clone(c.peers)
	listen := c.addPeer()
	n := c.addNode(listen, join, "--join-token", c.JoinToken())
	n.cfg.Args = slices.Delete(slices.Clone(n.cfg.Args), 0, 2) // --node-id
	if number != 0 {
		n.cfg.Args = append(n.cfg.Args, "--node-id", strconv.Itoa(number))
	}
	n.Start()
	return n
}

// JoinToken returns what a further server must know to join the cluster.
func (c *Cluster) JoinToken() string {
	c.t.Helper()
	var token command.JoinToken
	if err := json.Unmarshal(c.Admin(command.AdminMemberToken, command.TokenArgs{}), &token); err != nil {
		c.t.Fatal(err)
	}
	return token.Token
}

// Peer returns the address that a server advertises to the others.
func (c *Cluster) Peer(id int) string { return c.peers[id-1] }

// Node returns a server by its number, 1 and up.
func (c *Cluster) Node(id int) *Node { return c.nodes[id-1] }

// Nodes returns all servers in the order of their numbers.
func (c *Cluster) Nodes() []*Node { return slices.Clone(c.nodes) }

// ID returns the number of a server.
func (c *Cluster) ID(n *Node) int { return slices.Index(c.nodes, n) + 1 }

// Endpoints returns the addresses clients connect to, in the order of the
// servers' numbers.
func (c *Cluster) Endpoints() []string {
	out := make([]string, len(c.nodes))
	for i, n := range c.nodes {
		out[i] = n.Address()
	}
	return out
}

// running returns the servers that can answer.
func (c *Cluster) running() []*Node {
	return slices.DeleteFunc(c.Nodes(), func(n *Node) bool { return !n.Running() })
}

// Status returns the cluster as one server sees it.
func (n *Node) Status(ctx context.Context) (*command.ClusterStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	b, err := n.administer(ctx, command.AdminStatus, nil)
	if err != nil {
		return nil, err
	}
	s := new(command.ClusterStatus)
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("status of %s: %w", n.cfg.Address, err)
	}
	return s, nil
}

// Admin has the first server that can answer carry out an administrative
// request, tries again until it does, and returns its answer.
func (c *Cluster) Admin(verb string, args any) []byte {
	c.t.Helper()
	var answer []byte
	c.await("the request "+verb, func(ctx context.Context) (err error) {
		err = fmt.Errorf("no server runs")
		for _, n := range c.running() {
			ctx, cancel := context.WithTimeout(ctx, adminTimeout)
			answer, err = n.administer(ctx, verb, args)
			cancel()
			if err == nil {
				return nil
			}
		}
		return err
	})
	return answer
}

// Leaders maps each shard, and command.MetaShard, to the server that leads it.
type Leaders map[int]*Node

// AwaitLeaders returns when each shard is led by a server that runs and says so
// itself. Where two servers claim a shard, the one with the higher term counts.
func (c *Cluster) AwaitLeaders() Leaders {
	c.t.Helper()
	var leaders Leaders
	c.await("leaders of all shards", func(ctx context.Context) (err error) {
		leaders, err = c.leaders(ctx)
		return err
	})
	return leaders
}

// leaders asks every server that can answer which shards it leads.
func (c *Cluster) leaders(ctx context.Context) (Leaders, error) {
	claims := map[int]claim{}
	var failed error
	for _, n := range c.running() {
		s, err := n.Status(ctx)
		if err != nil {
			failed = fmt.Errorf("node %d: %w", c.ID(n), err)
			continue
		}
		addClaims(claims, n, s)
	}
	leaders := Leaders{}
	for shard, claim := range claims {
		if claim.node == nil {
			return nil, fmt.Errorf("shard %d has no leader (%v)", shard, failed)
		}
		leaders[shard] = claim.node
	}
	if len(leaders) == 0 {
		return nil, fmt.Errorf("no server tells of shards (%v)", failed)
	}
	return leaders, nil
}

// claim is a server that says it leads a shard; its node is nil where none
// does.
type claim struct {
	node *Node
	term uint64
}

// addClaims notes the shards there are, and which of them n leads.
func addClaims(claims map[int]claim, n *Node, s *command.ClusterStatus) {
	for _, sh := range s.Shards {
		best := claims[sh.Shard]
		if sh.Leader == s.Asked && sh.Leader != 0 && (best.node == nil || sh.Term > best.term) {
			best = claim{n, sh.Term}
		}
		claims[sh.Shard] = best
	}
}

// Most returns the server that leads most shards, the meta group aside; the one
// with the lowest number among equals.
func (l Leaders) Most() *Node {
	led := map[*Node]int{}
	var most *Node
	shards := make([]int, 0, len(l))
	for shard := range l {
		shards = append(shards, shard)
	}
	slices.Sort(shards)
	for _, shard := range shards {
		if shard != command.MetaShard {
			led[l[shard]]++
		}
	}
	for n, count := range led {
		if most == nil || count > led[most] || count == led[most] && n.cfg.Address < most.cfg.Address {
			most = n
		}
	}
	return most
}

// View returns the cluster as the server sees it, once it answers.
func (c *Cluster) View(n *Node) *command.ClusterStatus {
	c.t.Helper()
	return c.AwaitStatus(n, "an answer", func(*command.ClusterStatus) bool { return true })
}

// AwaitStatus returns when ok accepts the cluster as the server sees it. what
// names the state waited for.
func (c *Cluster) AwaitStatus(n *Node, what string, ok func(*command.ClusterStatus) bool) *command.ClusterStatus {
	c.t.Helper()
	var last *command.ClusterStatus
	c.await(what, func(ctx context.Context) error {
		s, err := n.Status(ctx)
		if err != nil {
			return err
		}
		last = s
		if !ok(s) {
			text, _ := json.Marshal(s)
			return fmt.Errorf("node %d sees %s", c.ID(n), text)
		}
		return nil
	})
	return last
}

// await tries until look succeeds, and fails the test with its last error.
func (c *Cluster) await(what string, look func(context.Context) error) {
	c.t.Helper()
	ctx, cancel := context.WithTimeoutCause(context.Background(), settleTimeout, fmt.Errorf("it did not come within %v", settleTimeout))
	defer cancel()
	err := spawn.Await(ctx, 4*pollInterval, look, func() (err error) {
		for _, n := range c.nodes {
			if p := n.process.Load(); p != nil {
				err = errors.Join(err, p.Alive()) // it has ended by itself
			}
		}
		return err
	})
	if err != nil {
		c.t.Fatalf("waiting for %s: %v", what, err)
	}
}

// Link returns the link on which what one server sends reaches another. The
// cluster must be Proxied.
func (c *Cluster) Link(from, to *Node) *Link {
	c.t.Helper()
	if c.network == nil {
		c.t.Fatal("links can be disturbed only where ClusterConfig.Proxied is set")
	}
	return c.network.link(c.ID(from), c.ID(to))
}

// Partition cuts all links, in both directions, between servers of different
// groups, and heals those inside a group. Servers that no group names form one
// more group.
func (c *Cluster) Partition(groups ...[]*Node) {
	c.t.Helper()
	group := map[*Node]int{}
	for i, g := range groups {
		for _, n := range g {
			group[n] = i + 1
		}
	}
	for _, from := range c.nodes {
		for _, to := range c.nodes {
			if from != to {
				c.Link(from, to).setCut(group[from] != group[to])
			}
		}
	}
}

// Isolate cuts one server off from all others, in both directions.
func (c *Cluster) Isolate(n *Node) {
	c.t.Helper()
	c.Partition([]*Node{n})
}

// Heal makes all links whole and fast again.
func (c *Cluster) Heal() {
	c.t.Helper()
	for _, from := range c.nodes {
		for _, to := range c.nodes {
			if from != to {
				c.Link(from, to).Heal()
			}
		}
	}
}
