package demo

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/proa-kv/proa/internal/spawn"
)

// stopTimeout is how long servers may take to stop in order at the end.
const stopTimeout = 5 * time.Second

// fleet are server processes. Its methods are called by one goroutine at a
// time.
type fleet struct {
	program string
	dir     string
	nodes   []*node
}

// node is one server.
type node struct {
	client, peer   string // addresses
	*spawn.Process        // nil while there is none
}

// newFleet draws addresses. It starts nothing.
func newFleet(program, dir string, nodes int) (*fleet, error) {
	ports, err := spawn.FreePorts(2 * nodes)
	if err != nil {
		return nil, err
	}
	f := &fleet{program: program, dir: dir}
	for pair := range slices.Chunk(ports, 2) {
		f.nodes = append(f.nodes, &node{client: spawn.Loopback(pair[0]), peer: spawn.Loopback(pair[1])})
	}
	return f, nil
}

func (f *fleet) addresses() []string {
	out := make([]string, len(f.nodes))
	for i, p := range f.nodes {
		out[i] = p.client
	}
	return out
}

// args are those of one server.
func (f *fleet) args(node int) []string {
	peers := make([]string, len(f.nodes))
	for i, p := range f.nodes {
		peers[i] = p.peer
	}
	p := f.nodes[node-1]
	args := []string{
		"serve", "--data", filepath.Join(f.dir, fmt.Sprintf("node%d", node)), "--node-id", strconv.Itoa(node), "--shards", strconv.Itoa(shards),
		"--listen", p.client, "--peer-listen", p.peer, "--join", strings.Join(peers, ","), "--log-format", "text",
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

func (f *fleet) logPath(node int) string {
	return filepath.Join(f.dir, fmt.Sprintf("node%d.log", node))
}

// start starts a server and does not wait for it to answer.
func (f *fleet) start(node int) (err error) {
	cmd := exec.Command(f.program, f.args(node)...)
	cmd.Env = spawn.Environment()
	cmd.SysProcAttr = ownGroup()
	f.nodes[node-1].Process, err = spawn.Launch(fmt.Sprintf("server %d", node), f.logPath(node), cmd)
	return err
}

// kill ends a server with SIGKILL and returns when it is gone.
func (f *fleet) kill(node int) error {
	p := f.nodes[node-1]
	if p.Process == nil {
		return fmt.Errorf("server %d does not run", node)
	}
	p.Kill()
	p.Process = nil
	return nil
}

func (f *fleet) trouble() error {
	for _, p := range f.nodes {
		if p.Process == nil {
			continue
		}
		if err := p.Alive(); err != nil {
			p.Process = nil
			return err
		}
	}
	return nil
}

// stop ends all servers, in order where they do so in time.
func (f *fleet) stop() {
	var running []*spawn.Process
	for _, p := range f.nodes {
		if p.Process != nil {
			running = append(running, p.Process)
			p.Process = nil
		}
	}
	_ = spawn.StopAll(stopTimeout, running...) // what had to be killed is gone, too
}
