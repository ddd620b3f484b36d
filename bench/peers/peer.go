//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/proa-kv/proa/bench"
	"github.com/proa-kv/proa/bench/rig"
)

// peer is a kind of server. Another one is a file with its methods, and its
// place in peers.
type peer interface {
	// name is what the tables call it.
	name() string

	// program returns the path of the server and what it says of its version.
	// It may build the server into the directory dir. errMissing leaves the
	// server out.
	program(ctx context.Context, o *options, dir string) (path, version string, err error)

	// supports reports whether it runs as a cluster of so many nodes.
	supports(nodes int) bool

	// command returns the command line of one node, which fsyncs every write.
	command(s *site, n *node) []string

	// connect returns a driver with so many connections to a cluster: never
	// more, unless there are more nodes that a client has to reach.
	connect(ctx context.Context, addresses []string, connections int) (driver, error)

	// meaning says what an answer to op vouches for.
	meaning(op bench.Op, nodes int) meaning
}

// meaning is what an answer vouches for.
type meaning struct {
	words string
	// unlike says that Proa's answer vouches for something else, so that the
	// figures do not compare like with like.
	unlike bool
}

// peers are all kinds. The first is compared with each of the others.
var peers = []peer{proa{}, etcd{}, redis{}}

// errMissing says that a server is not on this machine.
var errMissing = errors.New("not on this machine")

// driver calls one cluster through the client library that its users have. Its
// methods are called by many goroutines.
type driver interface {
	// put writes, and returns when the cluster has acknowledged. caller is the
	// number of the goroutine, which spreads them over the connections.
	put(ctx context.Context, caller int, key, value []byte) error

	// get reads as strictly as the server can by default and returns the
	// length of the value. An absent key is errAbsent.
	get(ctx context.Context, caller int, key []byte) (valueBytes int, err error)

	// class names the kind of an error in a few words that are the same for
	// all of its kind, "" if it is none of the server's or the library's.
	class(err error) string

	// close ends all connections.
	close() error
}

var errAbsent = errors.New("key not found")

// site is where the nodes of a cluster are to run.
type site struct {
	program string
	nodes   []node
}

// node is one server process to be.
type node struct {
	id           int    // from 1
	client, peer string // addresses, host:port
	data         string // directory that does not exist yet
}

// cluster is one or more servers that run.
type cluster struct {
	peer
	nodes     int
	addresses []string // for clients
	processes []*rig.Process
	usable    bool // it holds all keys and has not failed
}

// title names the cluster in tables and messages.
func (c *cluster) title() string {
	if c.nodes == 1 {
		return c.name()
	}
	return fmt.Sprintf("%s, %d nodes", c.name(), c.nodes)
}

// startCluster starts a cluster with all its data in a new directory in dir,
// and waits until it answers.
func startCluster(ctx context.Context, p peer, program, dir string, nodes int) (*cluster, error) {
	c := &cluster{peer: p, nodes: nodes}
	err := rig.OnFreePorts(2*nodes, func(ports []string) error {
		s, err := newSite(p, program, dir, ports)
		if err != nil {
			return err
		}
		c.addresses, c.processes = nil, nil
		if err := c.start(ctx, s); err != nil {
			return errors.Join(fmt.Errorf("%s: %w", c.title(), err), c.stop())
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return c, nil
}

// newSite gives each node two of the ports.
func newSite(p peer, program, dir string, ports []string) (*site, error) {
	dir, err := os.MkdirTemp(dir, p.name()+"-*")
	if err != nil {
		return nil, err
	}
	s := &site{program: program}
	for pair := range slices.Chunk(ports, 2) {
		id := len(s.nodes) + 1
		s.nodes = append(s.nodes, node{
			id: id, client: net.JoinHostPort("127.0.0.1", pair[0]), peer: net.JoinHostPort("127.0.0.1", pair[1]),
			data: filepath.Join(dir, strconv.Itoa(id)),
		})
	}
	return s, nil
}

func (c *cluster) start(ctx context.Context, s *site) error {
	for i := range s.nodes {
		n := &s.nodes[i]
		name := fmt.Sprintf("%s-%d", c.name(), n.id)
		p, err := rig.Start(name, filepath.Dir(n.data), c.command(s, n))
		if err != nil {
			return err
		}
		c.processes = append(c.processes, p)
		c.addresses = append(c.addresses, n.client)
	}
	return rig.Await(ctx, c.answers, c.processes...)
}

// answers returns nil if the cluster reads a key.
func (c *cluster) answers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	d, err := c.connect(ctx, c.addresses, 1)
	if err != nil {
		return err
	}
	_, err = d.get(ctx, 0, bench.AppendKey(nil, 0))
	if errors.Is(err, errAbsent) {
		err = nil
	}
	return errors.Join(err, d.close())
}

// stop ends all servers.
func (c *cluster) stop() error { return rig.StopAll(c.processes...) }

// alive returns an error if a server has ended.
func (c *cluster) alive() error {
	var err error
	for _, p := range c.processes {
		err = errors.Join(err, p.Alive())
	}
	return err
}

// cpu returns the CPU time of all servers together.
func (c *cluster) cpu() (time.Duration, error) { return rig.CPU(c.processes...) }

// closeAll closes what close closes of each client.
func closeAll[T any](clients []T, close func(T) error) error {
	var err error
	for _, c := range clients {
		err = errors.Join(err, close(c))
	}
	return err
}
