//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/proa-kv/proa/bench/rig"
	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/command"
)

// size is the number of nodes of a cluster.
const size = 3

// cluster is three servers on loopback, with default settings but for the
// number of shards. Its methods are called by the goroutine that started it.
type cluster struct {
	program string
	shards  int
	dir     string
	nodes   []*node
	prodded time.Time // when it was last asked to spread its leaders
}

// node is one server. Its process is nil while there is none.
type node struct {
	id           uint64
	client, peer string // addresses, host:port
	process      *rig.Process
}

// startCluster starts a cluster with all its data in a new directory in dir,
// and waits until it has settled.
func startCluster(ctx context.Context, program, dir string, shards int) (*cluster, error) {
	var c *cluster
	err := rig.OnFreePorts(2*size, func(ports []string) error {
		own, err := os.MkdirTemp(dir, fmt.Sprintf("shards-%d-*", shards))
		if err != nil {
			return err
		}
		c = newCluster(program, own, shards, ports)
		for _, n := range c.nodes {
			err = errors.Join(err, c.start(n))
		}
		if err == nil {
			err = c.settle(ctx)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("cluster of %d shards: %w", shards, err), c.stop())
		}
		return nil
	})
	return c, err
}

// newCluster gives each node two of the ports.
func newCluster(program, dir string, shards int, ports []string) *cluster {
	c := &cluster{program: program, shards: shards, dir: dir}
	for pair := range slices.Chunk(ports, 2) {
		c.nodes = append(c.nodes, &node{id: uint64(len(c.nodes) + 1), client: net.JoinHostPort("127.0.0.1", pair[0]), peer: net.JoinHostPort("127.0.0.1", pair[1])})
	}
	return c
}

// start starts a node, the first time or again. It does not wait for it.
func (c *cluster) start(n *node) error {
	var peers []string
	for _, p := range c.nodes {
		peers = append(peers, p.peer)
	}
	id := strconv.FormatUint(n.id, 10)
	p := rig.Proa{Program: c.program, Data: filepath.Join(c.dir, id), Client: n.client, Peers: peers, ID: int(n.id)}
	var err error
	n.process, err = rig.Start("proa-"+id, c.dir, p.Args("--shards", strconv.Itoa(c.shards)))
	return err
}

// kill ends a node with SIGKILL. It returns when the process is gone.
func (c *cluster) kill(n *node) {
	n.process.Kill()
	n.process = nil
}

// terminate ends a node with SIGTERM and returns when it is gone.
func (c *cluster) terminate(n *node) error {
	p := n.process
	n.process = nil
	return p.Stop()
}

// stop ends all nodes.
func (c *cluster) stop() error {
	ps := c.processes()
	for _, n := range c.nodes {
		n.process = nil
	}
	return rig.StopAll(ps...)
}

// processes returns those that run.
func (c *cluster) processes() (ps []*rig.Process) {
	for _, n := range c.nodes {
		if n.process != nil {
			ps = append(ps, n.process)
		}
	}
	return ps
}

func (c *cluster) endpoints() (addresses []string) {
	for _, n := range c.nodes {
		addresses = append(addresses, n.client)
	}
	return addresses
}

const (
	askTimeout = 2 * time.Second
	askEvery   = 100 * time.Millisecond
	prodEvery  = time.Second
	// settleTimeout is also how long a node that was killed may take to catch
	// up under load.
	settleTimeout = time.Minute
)

// ask carries out an administrative request at one node.
func (n *node) ask(ctx context.Context, verb string, args any, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	c, err := client.New(ctx, client.Config{Endpoints: []string{n.client}, ForwardOnly: true})
	if err != nil {
		return err
	}
	defer c.Close()
	body, err := json.Marshal(args)
	if err != nil {
		return err
	}
	reply, err := c.Admin(ctx, verb, body)
	if err != nil {
		return fmt.Errorf("node %d: %w", n.id, err)
	}
	return json.Unmarshal(reply, answer)
}

// status returns the cluster as a node sees it.
func (n *node) status(ctx context.Context) (*command.ClusterStatus, error) {
	s := new(command.ClusterStatus)
	return s, n.ask(ctx, command.AdminStatus, struct{}{}, s)
}

// settle waits until every node is up and sees every other up, and leaders are
// spread evenly.
func (c *cluster) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, settleTimeout, fmt.Errorf("the cluster has not settled within %v", settleTimeout))
	defer cancel()
	for {
		err := c.settled(ctx)
		if err == nil {
			return nil
		}
		for _, p := range c.processes() {
			if ended := p.Alive(); ended != nil {
				return fmt.Errorf("%w: %w", rig.ErrExited, ended)
			}
		}
		if cause := pause(ctx, askEvery); cause != nil {
			return fmt.Errorf("%w: %w", cause, err)
		}
	}
}

func (c *cluster) settled(ctx context.Context) error {
	for _, n := range c.nodes {
		s, err := n.status(ctx)
		if err != nil {
			return err
		}
		if err := unsettled(s); err != nil {
			return errors.Join(fmt.Errorf("as node %d sees it, %w", n.id, err), c.prod(ctx, s))
		}
	}
	return nil
}

// prod asks the cluster to spread its leaders, which it would do by itself a
// little later.
func (c *cluster) prod(ctx context.Context, s *command.ClusterStatus) error {
	if unwell(s) != nil || time.Since(c.prodded) < prodEvery {
		return nil
	}
	c.prodded = time.Now()
	return c.nodes[0].ask(ctx, command.AdminSplitLeaders, struct{}{}, &command.Done{})
}

// unsettled says what keeps a cluster from being healthy and evenly led.
func unsettled(s *command.ClusterStatus) error {
	if err := unwell(s); err != nil {
		return err
	}
	led := leaders(s)
	least, most := led[s.Nodes[0].ID], led[s.Nodes[0].ID]
	for _, n := range s.Nodes {
		least, most = min(least, led[n.ID]), max(most, led[n.ID])
	}
	if most-least > 1 {
		return fmt.Errorf("one node leads %d groups and another %d", most, least)
	}
	return nil
}

// unwell says what keeps a cluster from being healthy.
func unwell(s *command.ClusterStatus) error {
	if len(s.Nodes) != size {
		return fmt.Errorf("there are %d nodes", len(s.Nodes))
	}
	for _, n := range s.Nodes {
		if n.State != command.NodeUp {
			return fmt.Errorf("node %d is %s", n.ID, n.State)
		}
	}
	for _, g := range s.Shards {
		switch {
		case g.Leader == 0:
			return fmt.Errorf("shard %d has no leader", g.Shard)
		case g.Moving || len(g.Replicas) != size:
			return fmt.Errorf("shard %d has %d replicas, which may be on the move", g.Shard, len(g.Replicas))
		}
	}
	return nil
}

// leaders counts the groups that each node leads, the meta group among them.
func leaders(s *command.ClusterStatus) map[uint64]int {
	led := map[uint64]int{}
	for _, g := range s.Shards {
		led[g.Leader]++
	}
	return led
}

// busiest returns the node that leads most shards, and which these are. Of
// several it takes each in turn, by the number of the round.
func (c *cluster) busiest(ctx context.Context, round int) (*node, map[int]bool, error) {
	s, err := c.nodes[0].status(ctx)
	if err != nil {
		return nil, nil, err
	}
	id := busiest(s, round)
	led := map[int]bool{}
	for _, g := range s.Shards {
		if g.Leader == id && g.Shard != command.MetaShard {
			led[g.Shard] = true
		}
	}
	return c.nodes[id-1], led, nil
}

// busiest returns the number of the node that leads most shards; of several,
// one after the other from round to round.
func busiest(s *command.ClusterStatus, round int) uint64 {
	led := map[uint64]int{}
	for _, g := range s.Shards {
		if g.Shard != command.MetaShard {
			led[g.Leader]++
		}
	}
	most := uint64(0)
	for i := range uint64(size) {
		if id := (uint64(round)+i)%size + 1; most == 0 || led[id] > led[most] {
			most = id
		}
	}
	return most
}

// successor returns the leader of a shard and the node that shall lead it next:
// the one with the next number.
func successor(s *command.ClusterStatus, shard int) (leader, next uint64, err error) {
	for _, g := range s.Shards {
		if g.Shard == shard && g.Leader != 0 {
			return g.Leader, g.Leader%size + 1, nil
		}
	}
	return 0, 0, fmt.Errorf("shard %d has no leader", shard)
}

// transferTries is how often a transfer is asked for: the cluster may move the
// same leader for reasons of its own.
const transferTries = 5

// transfer moves the leadership of a shard to the node with the next number.
func (c *cluster) transfer(ctx context.Context, shard int) error {
	var refused error
	for range transferTries {
		s, err := c.nodes[0].status(ctx)
		if err != nil {
			return err
		}
		leader, next, err := successor(s, shard)
		if err == nil {
			err = c.nodes[leader-1].ask(ctx, command.AdminTransfer, command.ShardArgs{Shard: shard, To: next}, &command.Done{})
		}
		if err == nil {
			return nil
		}
		refused = err
		if err := pause(ctx, askEvery); err != nil {
			return err
		}
	}
	return fmt.Errorf("shard %d cannot be transferred: %w", shard, refused)
}

// pause waits for d. It returns the cause if ctx ends first.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
