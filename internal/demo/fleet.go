package demo

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/proa-kv/proa/internal/spawn"
)

// stopTimeout is how long servers may take to stop in order at the end.
const stopTimeout = 5 * time.Second

// fleet are server processes. Its methods are called by one goroutine at a
// time.
type fleet struct{ *spawn.Cluster }

// newFleet draws addresses. It starts nothing.
func newFleet(program, dir string, nodes int) (f fleet, err error) {
	ports, err := spawn.FreePorts(2 * nodes)
	if err != nil {
		return f, err
	}
	f.Cluster = spawn.NewCluster("server ", filepath.Join(dir, "node"), ports, func(n *spawn.Node) *exec.Cmd {
		cmd := exec.Command(program, f.args(n)...)
		cmd.Env = spawn.Environment()
		cmd.SysProcAttr = ownGroup()
		return cmd
	})
	return f, nil
}

// args are those of one server.
func (f *fleet) args(n *spawn.Node) []string {
	var peers []string
	for _, p := range f.Nodes {
		peers = append(peers, p.Peer)
	}
	args := []string{
		"serve", "--data", n.Data, "--node-id", strconv.Itoa(n.ID), "--shards", strconv.Itoa(shards),
		"--listen", n.Client, "--peer-listen", n.Peer, "--join", strings.Join(peers, ","), "--log-format", "text",
	}
	// Several servers share a machine that may be small.
	for _, s := range []string{
		"memory.max_memory_usage=256MiB", "memory.cache_size=64MiB", "memory.prealloc_buffers=false",
		"raft.log_segment_size=16MiB", "raft.log_size_max=256MiB", "cluster.replace_after=never",
	} {
		args = append(args, "--set", s)
	}
	return args
}

// start starts a server and does not wait for it to answer.
func (f fleet) start(node int) error { return f.Start(f.Nodes[node-1]) }

// kill ends a server with SIGKILL and returns when it is gone.
func (f fleet) kill(node int) error {
	n := f.Nodes[node-1]
	if n.Process == nil {
		return fmt.Errorf("server %d does not run", node)
	}
	f.Kill(n)
	return nil
}

func (f fleet) addresses() []string { return f.Endpoints() }

func (f fleet) trouble() error { return f.Alive() }

// stop ends all servers, in order where they do so in time.
func (f fleet) stop() { _ = f.StopWithin(stopTimeout) } // what had to be killed is gone, too
