package spawn

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Process is a process that was started here. Its methods may be called from
// any goroutine.
type Process struct {
	name   string
	cmd    *exec.Cmd
	log    string        // file with its output, "" if there is none
	exited chan struct{} // closed after Wait
	result error         // of Wait, once exited is closed
}

// Launch starts cmd as Start does. Its output is appended to the file log,
// unless that is "". The name is for messages.
func Launch(name, log string, cmd *exec.Cmd) (*Process, error) {
	if log != "" {
		out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return nil, err
		}
		defer out.Close() // the child has its own
		cmd.Stdout, cmd.Stderr = out, out
	}
	if err := Start(cmd); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	p := &Process{name: name, cmd: cmd, log: log, exited: make(chan struct{})}
	go func() {
		p.result = cmd.Wait()
		close(p.exited)
	}()
	return p, nil
}

// Name returns the name given at the start.
func (p *Process) Name() string { return p.name }

// PID returns the number of the process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Exited returns a channel that is closed when the process has ended.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Result waits for the end of the process and returns what exec.Cmd.Wait did.
func (p *Process) Result() error {
	<-p.exited
	return p.result
}

// ErrExited is in the error of Alive.
var ErrExited = errors.New("has ended")

// Alive returns ErrExited, with the end of the process's log, where the process
// has ended.
func (p *Process) Alive() error {
	select {
	case <-p.exited:
		return fmt.Errorf("%s %w (%v): %s", p.name, ErrExited, p.cmd.ProcessState, p.Tail())
	default:
		return nil
	}
}

// Alive returns ErrExited where one of the processes has ended.
func Alive(ps ...*Process) (err error) {
	for _, p := range ps {
		err = errors.Join(err, p.Alive())
	}
	return err
}

// Signal sends a signal. That the process has ended is no error.
func (p *Process) Signal(s os.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("sending %v to %s: %w", s, p.name, err)
	}
	return nil
}

// Kill ends the process at once and returns when it is gone, and with it each of
// its sockets.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // fails only if it has ended
	<-p.exited
}

// Stop ends the process with SIGTERM, or kills it if it has not ended in time,
// which is an error.
func (p *Process) Stop(timeout time.Duration) error {
	_ = p.Signal(syscall.SIGTERM) // the timeout shows whether it had an effect
	select {
	case <-p.exited:
		return nil
	case <-time.After(timeout):
	}
	p.Kill()
	return fmt.Errorf("%s did not end within %v of SIGTERM and was killed", p.name, timeout)
}

// StopAll stops processes at the same time: the last nodes of a cluster could
// not hand over what they lead.
func StopAll(timeout time.Duration, ps ...*Process) error {
	errs := make([]error, len(ps))
	var stopping sync.WaitGroup
	for i, p := range ps {
		stopping.Go(func() { errs[i] = p.Stop(timeout) })
	}
	stopping.Wait()
	return errors.Join(errs...)
}

// tailBytes bounds how much of a log is shown.
const tailBytes = 2 << 10

// Tail returns the last lines of the process's log.
func (p *Process) Tail() string {
	if p.log == "" {
		return "there is no log"
	}
	file, err := os.Open(p.log)
	if err != nil {
		return err.Error()
	}
	defer file.Close()
	_, _ = file.Seek(-tailBytes, io.SeekEnd) // a shorter file is read from its start
	b, err := io.ReadAll(io.LimitReader(file, tailBytes))
	if err != nil {
		return err.Error()
	}
	if _, whole, ok := bytes.Cut(b, []byte("\n")); ok && len(b) == tailBytes {
		b = whole
	}
	return string(bytes.TrimSpace(b))
}

// PartSettings are the settings that say of which parts a server is made. They hold for
// the servers that a process starts as well.
var PartSettings = []string{"PROA_NETWORK_TRANSPORT", "PROA_RAFT_ENGINE"}

// Environment returns the environment of this process without the settings of a
// server of Proa, but for PartSettings, and without the variables named.
func Environment(without ...string) (env []string) {
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		keep := !strings.HasPrefix(name, "PROA_") || slices.Contains(PartSettings, name)
		for _, w := range without {
			keep = keep && name != w
		}
		if keep {
			env = append(env, v)
		}
	}
	return env
}

// claims are the UDP sockets that keep the ports FreePorts has returned: open as long
// as this process lives, also while the server of a port is down.
var claims struct {
	sync.Mutex
	held []net.PacketConn
}

// claim takes a port. It fails where somebody listens on it, and where a call in any
// process that lives has taken it before.
func claim(port string) error {
	c, err := net.ListenPacket("udp", Loopback(port))
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", Loopback(port))
	if err != nil {
		return errors.Join(err, c.Close())
	}
	claims.Lock()
	defer claims.Unlock()
	claims.held = append(claims.held, c)
	return l.Close()
}

// FreePorts returns TCP ports of the loopback interface on which nobody listens.
// None is returned twice, nor by two processes at the same time. They lie below the
// ports that systems give to outgoing connections: nobody takes the port of a server
// while that is down, least of all a client that connects to it and reaches itself.
func FreePorts(n int) (ports []string, err error) {
	const first, count, triesMax = 20_000, 10_000, 1_000
	for tries := 0; len(ports) < n; tries++ {
		if tries == triesMax {
			return nil, fmt.Errorf("looking for free ports: %w", err)
		}
		port := strconv.Itoa(first + rand.IntN(count))
		if err = claim(port); err == nil {
			ports = append(ports, port)
		}
	}
	return ports, err
}

// Loopback returns the address of a port of the loopback interface.
func Loopback(port string) string { return net.JoinHostPort("127.0.0.1", port) }
