package demo

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
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
	nodes   []*process
}

// process is one server: addresses, and at most one process at a time.
type process struct {
	client, peer string
	cmd          *exec.Cmd
	exited       chan struct{} // closed when cmd has been collected
}

// newFleet draws addresses. It starts nothing.
func newFleet(program, dir string, nodes int) (*fleet, error) {
	ports, err := freePorts(2 * nodes)
	if err != nil {
		return nil, err
	}
	f := &fleet{program: program, dir: dir}
	for i := range nodes {
		f.nodes = append(f.nodes, &process{client: loopback(ports[2*i]), peer: loopback(ports[2*i+1])})
	}
	return f, nil
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// freePorts returns ports of the loopback interface that nobody listens on.
// They lie below those that systems give to outgoing connections, so that
// nobody takes the port of a server while that is down.
func freePorts(n int) (ports []int, err error) {
	for tries := 0; len(ports) < n; tries++ {
		port := 20_000 + rand.IntN(10_000)
		if slices.Contains(ports, port) {
			continue
		}
		ln, err := net.Listen("tcp", loopback(port))
		if err != nil {
			if tries > 100 {
				return nil, fmt.Errorf("looking for free ports: %w", err)
			}
			continue
		}
		if err := ln.Close(); err != nil {
			return nil, err
		}
		ports = append(ports, port)
	}
	return ports, nil
}

func (f *fleet) endpoints() []string {
	out := make([]string, len(f.nodes))
	for i, p := range f.nodes {
		out[i] = p.client
	}
	return out
}

func (f *fleet) addresses() []string { return f.endpoints() }

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
func (f *fleet) start(node int) error {
	p := f.nodes[node-1]
	log, err := os.OpenFile(f.logPath(node), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(f.program, f.args(node)...)
	cmd.Env = environment()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = ownGroup()
	if err := spawn.Start(cmd); err != nil {
		return fmt.Errorf("starting server %d: %w", node, err)
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait() // how it ended is in its log, or known
		close(exited)
	}()
	p.cmd, p.exited = cmd, exited
	return nil
}

// environment is this process's without the settings of a server.
func environment() (env []string) {
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "PROA_") {
			env = append(env, v)
		}
	}
	return env
}

// kill ends a server with SIGKILL and returns when it is gone.
func (f *fleet) kill(node int) error {
	p := f.nodes[node-1]
	if p.cmd == nil {
		return fmt.Errorf("server %d does not run", node)
	}
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("killing server %d: %w", node, err)
	}
	<-p.exited
	p.cmd = nil
	return nil
}

func (f *fleet) trouble() error {
	for i, p := range f.nodes {
		if p.cmd == nil {
			continue
		}
		select {
		case <-p.exited:
			p.cmd = nil
			return fmt.Errorf("server %d ended by itself; its last words:\n%s", i+1, tail(f.logPath(i+1)))
		default:
		}
	}
	return nil
}

// tailBytes is how much of a log is shown.
const tailBytes = 2 << 10

// tail returns the last lines of a file.
func tail(path string) string {
	file, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer file.Close()
	// A file that is shorter is read from its start.
	_, _ = file.Seek(-tailBytes, io.SeekEnd)
	b, err := io.ReadAll(io.LimitReader(file, tailBytes))
	if err != nil {
		return err.Error()
	}
	if _, whole, ok := bytes.Cut(b, []byte("\n")); ok && len(b) == tailBytes {
		b = whole
	}
	return string(bytes.TrimSpace(b))
}

// stop ends all servers, in order where they do so in time.
func (f *fleet) stop() {
	deadline := time.After(stopTimeout)
	for _, p := range f.nodes {
		if p.cmd != nil {
			_ = p.cmd.Process.Signal(syscall.SIGTERM) // an error says that it has ended
		}
	}
	for _, p := range f.nodes {
		if p.cmd == nil {
			continue
		}
		select {
		case <-p.exited:
		case <-deadline:
			deadline = closedTime
			_ = p.cmd.Process.Kill()
			<-p.exited
		}
		p.cmd = nil
	}
}

// closedTime is a deadline that has passed.
var closedTime = func() <-chan time.Time {
	c := make(chan time.Time)
	close(c)
	return c
}()
