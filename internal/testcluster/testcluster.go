// Package testcluster runs proa servers as processes of their own, for tests
// that kill, stop and restart them.
//
// A package that uses it has a TestMain that calls [Main]. Nothing in here
// waits for a fixed time: a server is ready when it answers HELLO, and gone
// when its process has been collected.
//
// A [Cluster] is several servers that form one cluster, with means to kill,
// pause and restart each of them and to disturb the links between them.
//
// A [Node] or [Cluster] belongs to the test that made it: its methods report
// failures through that test and may be called from the test's own goroutine
// only. Address, Dir and PID of a Node and all methods of a [Link] may be
// called from any.
package testcluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/proa-kv/proa/internal/spawn"
)

// Deadlines of what a server does. They are far above what it takes, so that a
// busy machine does not fail a test.
const (
	readyTimeout = 60 * time.Second
	stopTimeout  = 60 * time.Second
)

// Config says how to run a server. The zero value is a server of one node on a
// free loopback port, in a new directory of the test.
type Config struct {
	// Dir is the data directory; empty means a new one that goes away with
	// the test.
	Dir string
	// Address is host:port or unix:///path to listen on; empty means a free
	// port of 127.0.0.1.
	Address string
	// Peer is host:port to listen on for other nodes. Empty means off: nodes
	// of tests that run side by side must not all listen on the default port.
	Peer string
	// Args are further arguments of "proa serve", such as --shards=3.
	Args []string
	// Settings are configuration keys, each as "key=value".
	Settings []string
	// Env is added to the environment.
	Env []string
	// User and Password are the credentials with which the test looks at the server.
	User, Password string
	// Command, if not empty, is a program with arguments that becomes the one
	// named by its further arguments, such as "ip netns exec NAME".
	Command []string
	// SysProcAttr is how the process is started; nil means as usual.
	SysProcAttr *syscall.SysProcAttr
}

// Node is one server: a data directory, an address, and at most one process.
type Node struct {
	t      testing.TB
	cfg    Config
	binary string
	log    string // path of everything its processes wrote
	paused bool   // by Pause
	// process is nil while none runs. The test's goroutine alone replaces it.
	process atomic.Pointer[spawn.Process]
	last    *spawn.Process // the newest, which may have ended
}

// Start starts a server and returns when it answers. When the test ends the
// server is killed, and what it wrote is shown if the test failed.
func Start(t testing.TB, cfg Config) *Node {
	t.Helper()
	n := New(t, cfg)
	n.Start()
	return n
}

// New prepares a server without starting it.
func New(t testing.TB, cfg Config) *Node {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = filepath.Join(t.TempDir(), "data")
	}
	if cfg.Address == "" {
		cfg.Address = FreeAddress(t)
	}
	n := &Node{t: t, cfg: cfg, binary: Binary(t), log: filepath.Join(t.TempDir(), "server.log")}
	t.Cleanup(n.cleanUp)
	return n
}

// Address returns the endpoint a client connects to.
func (n *Node) Address() string { return n.cfg.Address }

// Dir returns the data directory.
func (n *Node) Dir() string { return n.cfg.Dir }

// PID returns the number of the running process, 0 if none runs.
func (n *Node) PID() int {
	if p := n.process.Load(); p != nil {
		return p.PID()
	}
	return 0
}

// Configure has change alter how the server is started from the next start on.
// Address must stay: clients know it.
func (n *Node) Configure(change func(*Config)) { change(&n.cfg) }

// args are the arguments of the server.
func (n *Node) args() []string {
	args := []string{"serve", "--data", n.cfg.Dir, "--log-format", "text", "--listen", n.cfg.Address}
	if path, ok := strings.CutPrefix(n.cfg.Address, "unix://"); ok {
		args = append(args[:len(args)-1], "off", "--unix", path)
	}
	peer := n.cfg.Peer
	if peer == "" {
		peer = "off"
	}
	args = append(args, "--peer-listen", peer)
	for _, s := range n.cfg.Settings {
		args = append(args, "--set", s)
	}
	return append(args, n.cfg.Args...)
}

// Start starts the process and returns when it answers.
func (n *Node) Start() {
	n.t.Helper()
	n.Spawn()
	n.AwaitReady()
}

// Spawn starts the process and does not wait for it to answer.
func (n *Node) Spawn() {
	n.t.Helper()
	if n.process.Load() != nil {
		n.t.Fatal("the server runs already")
	}
	command := slices.Concat(n.cfg.Command, []string{n.binary}, n.args())
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env = append(spawn.Environment(), n.cfg.Env...)
	if n.cfg.SysProcAttr != nil {
		attr := *n.cfg.SysProcAttr
		cmd.SysProcAttr = &attr
	}
	p, err := spawn.Launch("the server on "+n.cfg.Address, n.log, cmd)
	if err != nil {
		n.t.Fatal(err)
	}
	n.last = p
	n.process.Store(p)
}

// AwaitReady returns when the server answers, and fails the test if it exits
// instead.
func (n *Node) AwaitReady() {
	n.t.Helper()
	ctx, cancel := context.WithTimeoutCause(context.Background(), readyTimeout, fmt.Errorf("the server did not answer within %v", readyTimeout))
	defer cancel()
	if err := spawn.Await(ctx, pollInterval, n.greet, n.last.Alive); err != nil {
		n.t.Fatal(err)
	}
}

// Exited returns a channel that is closed when the process started last has
// ended.
func (n *Node) Exited() <-chan struct{} { return n.last.Exited() }

// Kill ends the process with SIGKILL: nothing in it gets a chance to finish.
// It returns when the process is gone, and with it every one of its sockets.
func (n *Node) Kill() {
	n.t.Helper()
	p := n.running()
	p.Kill()
	// Whatever else ended it is a failure that must not pass for the kill.
	var exit *exec.ExitError
	if !errors.As(p.Result(), &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		n.t.Errorf("the server had ended by itself: %v", p.Result())
	}
	n.forget()
}

// forget notes that no process runs any more.
func (n *Node) forget() {
	n.paused = false
	n.process.Store(nil)
}

// running returns the process that runs, and fails the test if none does.
func (n *Node) running() *spawn.Process {
	n.t.Helper()
	p := n.process.Load()
	if p == nil {
		n.t.Fatal("no server runs")
	}
	return p
}

// Pause stops the process with SIGSTOP: it keeps its sockets and answers
// nothing. Kill ends a paused process as well.
func (n *Node) Pause() {
	n.t.Helper()
	n.signal(syscall.SIGSTOP)
	n.paused = true
	for deadline := time.Now().Add(10 * time.Second); !allStopped(n.PID()); {
		if time.Now().After(deadline) {
			n.t.Fatal("the server does not stop on SIGSTOP")
		}
		runtime.Gosched()
	}
}

// allStopped reports whether every thread of a process has stopped, which a
// signal brings about a moment later. Where that cannot be seen it says yes.
func allStopped(pid int) bool {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		// The state follows the command's name, in parentheses.
		if at := bytes.LastIndexByte(b, ')'); at < 0 || at+2 >= len(b) || b[at+2] != 'T' {
			return false
		}
	}
	return true
}

// Resume lets a paused process go on.
func (n *Node) Resume() {
	n.t.Helper()
	n.signal(syscall.SIGCONT)
	n.paused = false
}

func (n *Node) signal(s syscall.Signal) {
	n.t.Helper()
	if err := n.running().Signal(s); err != nil {
		n.t.Fatal(err)
	}
}

// Running reports whether a process was started and neither stopped nor paused
// by the test.
func (n *Node) Running() bool { return n.process.Load() != nil && !n.paused }

// Terminate sends SIGTERM and does not wait. A process that has just ended by
// itself is not an error here; AwaitExit returns how it ended.
func (n *Node) Terminate() {
	n.t.Helper()
	n.signal(syscall.SIGTERM)
}

// AwaitExit waits for the process to end and returns its exit status, -1 where
// a signal ended it.
func (n *Node) AwaitExit() int {
	n.t.Helper()
	p := n.running()
	deadline := time.NewTimer(stopTimeout)
	defer deadline.Stop()
	select {
	case <-p.Exited():
		n.forget()
	case <-deadline.C:
		// Its goroutines show what it waits for.
		_ = p.Signal(syscall.SIGQUIT)
		<-p.Exited()
		n.forget()
		n.t.Fatalf("the server did not end within %v", stopTimeout)
	}
	return exitStatus(p.Result())
}

// Stop ends the server with SIGTERM and fails the test unless it exits with
// status 0 in time.
func (n *Node) Stop() {
	n.t.Helper()
	n.Terminate()
	if status := n.AwaitExit(); status != 0 {
		n.t.Fatalf("after SIGTERM the server exited with status %d", status)
	}
}

// Restart kills the server with SIGKILL if it runs, and starts it on the same
// directory and address.
func (n *Node) Restart() {
	n.t.Helper()
	if n.process.Load() != nil {
		n.Kill()
	}
	n.Start()
}

// Verify runs "proa verify" on the directory of the stopped server and fails
// the test unless everything is sound.
func (n *Node) Verify() {
	n.t.Helper()
	if r := Run(n.t, Command{Args: []string{"verify", n.cfg.Dir}}); r.Status != 0 {
		n.t.Errorf("proa verify exited with status %d:\n%s%s", r.Status, r.Stdout, r.Stderr)
	}
}

// Log returns everything the server's processes have written so far.
func (n *Node) Log() string {
	b, err := os.ReadFile(n.log)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		n.t.Errorf("reading the server's log: %v", err)
	}
	return string(b)
}

// logBytesMax bounds how much of a log is shown with a failed test.
const logBytesMax = 32 << 10

// alarms are what a server writes only if it is broken.
var alarms = []string{"WARNING: DATA RACE", "panic: ", "fatal error: ", "bufpool: "}

func (n *Node) cleanUp() {
	if p := n.process.Load(); p != nil {
		p.Kill()
		n.forget()
	}
	log := n.Log()
	for _, a := range alarms {
		if strings.Contains(log, a) {
			n.t.Errorf("the server wrote %q", a)
		}
	}
	if n.t.Failed() {
		if len(log) > logBytesMax {
			log = "[...]" + log[len(log)-logBytesMax:]
		}
		n.t.Logf("log of the server on %s:\n%s", n.cfg.Address, log)
	}
}

// Command is one run of the proa binary to its end.
type Command struct {
	Args        []string
	Env         []string
	Stdin       string
	SysProcAttr *syscall.SysProcAttr
	// Timeout ends the process with SIGKILL; 0 means 60 s.
	Timeout time.Duration
}

// Result is how a Command ended.
type Result struct {
	Status         int // -1 where a signal ended it
	Stdout, Stderr string
}

// Run runs the proa binary to its end.
func Run(t testing.TB, c Command) Result {
	t.Helper()
	if c.Timeout == 0 {
		c.Timeout = stopTimeout
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(Binary(t), c.Args...)
	cmd.Env = append(spawn.Environment(), c.Env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(c.Stdin), &stdout, &stderr
	cmd.SysProcAttr = c.SysProcAttr
	if err := spawn.Start(cmd); err != nil {
		t.Fatalf("starting proa %s: %v", strings.Join(c.Args, " "), err)
	}
	kill := time.AfterFunc(c.Timeout, func() { _ = cmd.Process.Kill() })
	err := cmd.Wait()
	if !kill.Stop() {
		t.Errorf("proa %s did not end within %v", strings.Join(c.Args, " "), c.Timeout)
	}
	return Result{Status: exitStatus(err), Stdout: stdout.String(), Stderr: stderr.String()}
}
