package spawn

import (
	"os/exec"
	"slices"
	"strconv"
	"time"
)

// Node is one server of a Cluster.
type Node struct {
	*Process            // nil while there is none
	ID           int    // from 1
	Client, Peer string // addresses, host:port
	Data         string // a path for its data; its output is in the file of that name with .log behind it
}

// Cluster is one or more servers on loopback. Its methods are called by one
// goroutine at a time.
type Cluster struct {
	Nodes   []*Node
	name    string // of a node in messages, before its ID
	command func(*Node) *exec.Cmd
}

// NewCluster gives each node two of the ports, and a path that begins with path. It
// starts nothing.
func NewCluster(name, path string, ports []string, command func(*Node) *exec.Cmd) *Cluster {
	c := &Cluster{name: name, command: command}
	for pair := range slices.Chunk(ports, 2) {
		id := len(c.Nodes) + 1
		c.Nodes = append(c.Nodes, &Node{ID: id, Client: Loopback(pair[0]), Peer: Loopback(pair[1]), Data: path + strconv.Itoa(id)})
	}
	return c
}

// Start starts a node, the first time or again. It does not wait for it.
func (c *Cluster) Start(n *Node) (err error) {
	n.Process, err = Launch(c.name+strconv.Itoa(n.ID), n.Data+".log", c.command(n))
	return err
}

// Kill ends a node with SIGKILL. It returns when the process is gone.
func (c *Cluster) Kill(n *Node) {
	n.Process.Kill()
	n.Process = nil
}

// StopWithin ends all nodes with SIGTERM, or kills those that do not end in time,
// which is an error. It may be called again.
func (c *Cluster) StopWithin(timeout time.Duration) error {
	ps := c.Running()
	for _, n := range c.Nodes {
		n.Process = nil
	}
	return StopAll(timeout, ps...)
}

// Running returns the processes of all nodes that have one.
func (c *Cluster) Running() (ps []*Process) {
	for _, n := range c.Nodes {
		if n.Process != nil {
			ps = append(ps, n.Process)
		}
	}
	return ps
}

// Alive returns an error if a node has ended by itself.
func (c *Cluster) Alive() error { return Alive(c.Running()...) }

// Endpoints returns the addresses for clients.
func (c *Cluster) Endpoints() (addresses []string) {
	for _, n := range c.Nodes {
		addresses = append(addresses, n.Client)
	}
	return addresses
}
