//go:build linux

package main

import (
	"context"
	"errors"
	"time"

	"github.com/proa-kv/proa/bench"
	"github.com/proa-kv/proa/bench/rig"
)

// peer is a kind of server. Another one is a file with its methods, and its
// place in peers.
type peer interface {
	// name is what the tables call it.
	name() string

	// short is what -servers and files call it.
	short() string

	// program returns the path of the server and what it says of its version.
	// It may build the server into the directory dir. errMissing leaves the
	// server out.
	program(ctx context.Context, o *options, dir string) (path, version string, err error)

	// supports reports whether it runs as a cluster of so many nodes.
	supports(nodes int) bool

	// kind returns what to start, which fsyncs every write. Where it does not
	// say when a cluster is ready, that is when it reads a key.
	kind(program string) rig.Kind

	// connect returns a driver with so many connections to a cluster: never
	// more, unless there are more nodes that a client has to reach.
	connect(ctx context.Context, addresses []string, connections int) (rig.Driver, error)

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
var peers = []peer{
	proa{}, proa{transport: "netpoll"}, proa{engine: "dragonboat"}, proa{transport: "netpoll", engine: "dragonboat"},
	etcd{}, redis{},
}

// shortNames are those of all peers.
func shortNames() (names []string) {
	for _, p := range peers {
		names = append(names, p.short())
	}
	return names
}

// errMissing says that a server is not on this machine.
var errMissing = errors.New("not on this machine")

// cluster is one or more servers that run.
type cluster struct {
	peer
	*rig.Cluster
	usable bool // it holds all keys and has not failed
}

// startCluster starts a cluster that ends with the lab at the latest.
func (c *comparison) startCluster(ctx context.Context, p peer, program string, nodes int) (*cluster, error) {
	started, err := c.StartCluster(ctx, nodes, complete(p, program))
	if err != nil {
		return nil, err
	}
	return &cluster{peer: p, Cluster: started}, nil
}

// complete returns the kind of a peer, which says when it is ready.
func complete(p peer, program string) rig.Kind {
	k := p.kind(program)
	if k.Ready == nil {
		k.Ready = func(ctx context.Context, c *rig.Cluster) error { return answers(ctx, p, c) }
	}
	return k
}

// answers returns nil if a cluster reads a key.
func answers(ctx context.Context, p peer, c *rig.Cluster) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	d, err := p.connect(ctx, c.Endpoints(), 1)
	if err != nil {
		return err
	}
	_, err = d.Get(ctx, 0, bench.AppendKey(nil, 0))
	if errors.Is(err, rig.ErrAbsent) {
		err = nil
	}
	return errors.Join(err, d.Close())
}
