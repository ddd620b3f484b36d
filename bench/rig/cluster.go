//go:build linux

package rig

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/proa-kv/proa/bench"
	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/internal/certtest"
	"github.com/proa-kv/proa/internal/spawn"
)

// Kind is a kind of server.
type Kind struct {
	Name string // for files and messages
	// Command returns the command line of one node.
	Command func(c *Cluster, n *Node) []string
	// Ready returns nil if the cluster serves.
	Ready func(ctx context.Context, c *Cluster) error
	// Secure, if not nil, returns the address at which a node speaks TLS, and how to
	// trust it. It serves without TLS as well.
	Secure func(n *Node) (address string, trust *tls.Config)
}

// Cluster is one or more servers of a kind on loopback, with all their data in
// one directory. Its methods are called by one goroutine at a time.
type Cluster struct {
	Kind
	*spawn.Cluster

	dir      string
	balanced time.Time // when it was last asked to spread its leaders
}

// Node is one server.
type Node = spawn.Node

// StartCluster starts so many nodes with their data in a new directory in dir,
// and waits until they serve.
func StartCluster(ctx context.Context, dir string, nodes int, k Kind) (*Cluster, error) {
	var c *Cluster
	err := onFreePorts(2*nodes, func(ports []string) error {
		dir, err := os.MkdirTemp(dir, k.Name+"-*")
		if err != nil {
			return err
		}
		c = &Cluster{Kind: k, dir: dir}
		c.Cluster = spawn.NewCluster(k.Name+"-", dir+string(filepath.Separator), ports, func(n *Node) *exec.Cmd { return commandOf(k.Command(c, n)...) })
		for _, n := range c.Nodes {
			err = errors.Join(err, c.Start(n))
		}
		if err == nil {
			err = c.Await(ctx)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("%s: %w", k.Name, err), c.Stop())
		}
		return nil
	})
	return c, err
}

// readyTimeout is also how long a node that was killed may take to catch up
// under load.
const readyTimeout = time.Minute

// Await waits until the cluster serves. The error is spawn.ErrExited where a
// node has ended instead.
func (c *Cluster) Await(ctx context.Context) error {
	return await(ctx, readyTimeout, func(ctx context.Context) error { return c.Ready(ctx, c) }, c.Running()...)
}

// Terminate ends a node with SIGTERM and returns when it is gone.
func (c *Cluster) Terminate(n *Node) error {
	p := n.Process
	n.Process = nil
	return p.Stop(stopTimeout)
}

// Stop ends all nodes. It may be called again.
func (c *Cluster) Stop() error { return c.StopWithin(stopTimeout) }

// Remove ends all nodes and removes their data.
func (c *Cluster) Remove() error { return errors.Join(c.Stop(), os.RemoveAll(c.dir)) }

// CPU returns the CPU time of all nodes together.
func (c *Cluster) CPU() (time.Duration, error) { return CPU(c.Running()...) }

// Server is a cluster of one node, and how a load reaches it.
type Server struct {
	*Cluster
	Target bench.Target
}

func newServer(c *Cluster, codec bench.Codec) *Server {
	t := bench.Target{Address: c.Nodes[0].Client, Codec: codec}
	if c.Secure != nil {
		t.Address, t.TLS = c.Secure(c.Nodes[0])
	}
	return &Server{c, t}
}

// FindProa returns an error that says what to do where there is no such program.
func FindProa(program string) error {
	if _, err := exec.LookPath(program); err != nil {
		return fmt.Errorf("%w; build it first, with make build", err)
	}
	return nil
}

// Proa is Proa with default settings but for the arguments, and with warnings
// alone in its log. It is ready when all nodes are up and lead as many shards.
func Proa(name, program string, args ...string) Kind {
	return Kind{Name: name, Ready: balanced, Command: func(c *Cluster, n *Node) []string {
		line := []string{program, "serve", "--data", n.Data, "--listen", n.Client, "--admin-listen", "off", "--log-level", "warn"}
		if len(c.Nodes) == 1 {
			line = append(line, "--peer-listen", "off")
		} else {
			var peers []string
			for _, p := range c.Nodes {
				peers = append(peers, p.Peer)
			}
			line = append(line, "--node-id", strconv.Itoa(n.ID), "--peer-listen", n.Peer, "--join", strings.Join(peers, ","))
		}
		return slices.Concat(line, args)
	}}
}

// greets returns the Ready of a server that speaks a protocol.
func greets(codec bench.Codec) func(context.Context, *Cluster) error {
	return func(ctx context.Context, c *Cluster) error {
		idle, err := bench.OpenIdle(ctx, newServer(c, codec).Target, 1)
		if err != nil {
			return err
		}
		return idle.Close()
	}
}

const (
	askTimeout   = 2 * time.Second
	balanceEvery = time.Second
)

// Ask has a node of Proa carry out an administrative request.
func Ask(ctx context.Context, n *Node, verb string, args, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	c, err := client.New(ctx, client.Config{Endpoints: []string{n.Client}, ForwardOnly: true})
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
		return fmt.Errorf("node %d: %w", n.ID, err)
	}
	return json.Unmarshal(reply, answer)
}

// Status returns the cluster as a node of Proa sees it.
func Status(ctx context.Context, n *Node) (*command.ClusterStatus, error) {
	s := new(command.ClusterStatus)
	return s, Ask(ctx, n, command.AdminStatus, struct{}{}, s)
}

// balanced returns nil if every node sees every other up, and leaders spread
// evenly. It asks the cluster to spread them, which would do so by itself a
// little later.
func balanced(ctx context.Context, c *Cluster) error {
	for _, n := range c.Nodes {
		s, err := Status(ctx, n)
		if err != nil {
			return err
		}
		if err = unhealthy(s, len(c.Nodes)); err != nil {
			return fmt.Errorf("as node %d sees it, %w", n.ID, err)
		}
		err = unbalanced(s, len(c.Nodes))
		if err == nil {
			continue
		}
		if time.Since(c.balanced) > balanceEvery {
			c.balanced = time.Now()
			err = errors.Join(err, Ask(ctx, c.Nodes[0], command.AdminSplitLeaders, struct{}{}, &command.Done{}))
		}
		return err
	}
	return nil
}

// unhealthy says what keeps a cluster of so many nodes from being healthy.
func unhealthy(s *command.ClusterStatus, nodes int) error {
	if len(s.Nodes) != nodes {
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
		case g.Moving || len(g.Replicas) != min(3, nodes):
			return fmt.Errorf("shard %d has %d replicas, which may be on the move", g.Shard, len(g.Replicas))
		}
	}
	return nil
}

// unbalanced says which nodes lead more groups than others, the meta group
// among them: nodes count it, too.
func unbalanced(s *command.ClusterStatus, nodes int) error {
	led := make([]int, nodes+1) // by node
	for _, g := range s.Shards {
		led[g.Leader]++
	}
	if most, least := slices.Max(led[1:]), slices.Min(led[1:]); most-least > 1 {
		return fmt.Errorf("one node leads %d groups and another %d", most, least)
	}
	return nil
}

// Redis is one Redis server with the settings, from which it does not turn away
// by saving or rewriting its log in the background.
func Redis(name, program string, settings ...string) Kind {
	return Kind{Name: name, Command: func(_ *Cluster, n *Node) []string {
		_, port, _ := strings.Cut(n.Client, ":")
		line := []string{program, "--port", port, "--bind", "127.0.0.1", "--daemonize", "no", "--dir", filepath.Dir(n.Data), "--save", "", "--auto-aof-rewrite-percentage", "0"}
		return slices.Concat(line, settings)
	}}
}

// Certificate is what servers speak TLS with.
type Certificate struct {
	cert, key, ca string // paths
	trust         *tls.Config
}

// NewCertificate makes a certificate for 127.0.0.1 in a directory.
func NewCertificate(dir string) (*Certificate, error) {
	ca := certtest.NewAuthority("bench")
	c := &Certificate{filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key"), filepath.Join(dir, "ca.crt"), &tls.Config{RootCAs: ca.Pool()}}
	return c, errors.Join(ca.Write(dir, "ca"), certtest.Write(dir, "server", ca.Server("127.0.0.1")))
}

// SecureProa has Proa speak TLS, on the port on which it serves without TLS.
func (c *Certificate) SecureProa(k Kind) Kind {
	k.Secure = func(n *Node) (string, *tls.Config) { return n.Client, c.trust }
	return k.with("--tls-cert", c.cert, "--tls-key", c.key, "--tls", "optional")
}

// SecureRedis has Redis speak TLS, on a port of its own.
func (c *Certificate) SecureRedis(k Kind) Kind {
	k.Secure = func(n *Node) (string, *tls.Config) { return n.Peer, c.trust }
	plain := k.with("--tls-cert-file", c.cert, "--tls-key-file", c.key, "--tls-ca-cert-file", c.ca, "--tls-auth-clients", "no").Command
	k.Command = func(cl *Cluster, n *Node) []string {
		_, port, _ := strings.Cut(n.Peer, ":")
		return append(plain(cl, n), "--tls-port", port)
	}
	return k
}

// with adds arguments.
func (k Kind) with(args ...string) Kind {
	plain := k.Command
	k.Command = func(c *Cluster, n *Node) []string { return append(plain(c, n), args...) }
	return k
}

// FsyncAlways are the settings of a Redis that fsyncs each write before it
// answers.
var FsyncAlways = []string{"--appendonly", "yes", "--appendfsync", "always"}
