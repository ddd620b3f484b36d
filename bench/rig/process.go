//go:build linux

package rig

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Process is a server that was started here. Its methods may be called from any
// goroutine.
type Process struct {
	name   string
	cmd    *exec.Cmd
	log    string        // file with its output, "" if there is none
	exited chan struct{} // closed after Wait
}

const (
	startTimeout = 20 * time.Second
	stopTimeout  = 20 * time.Second
	pollStep     = 20 * time.Millisecond
)

// OnFreePorts calls f with n ports of 127.0.0.1 that are free, and again with
// others, up to three times in all, where its error is ErrExited: between
// finding a free port and using it, somebody else may take it.
func OnFreePorts(n int, f func(ports []string) error) error {
	var failed error
	for range 3 {
		ports, err := freePorts(n)
		if err != nil {
			return err
		}
		if failed = f(ports); !errors.Is(failed, ErrExited) {
			return failed
		}
	}
	return failed
}

// freePorts returns n different ports. They lie below those that systems give to
// outgoing connections, so that nobody takes the port of a server that is down
// for a while.
func freePorts(n int) (ports []string, err error) {
	const first, count, triesMax = 20_000, 10_000, 1_000
	for tries := 0; len(ports) < n; tries++ {
		port := strconv.Itoa(first + rand.IntN(count))
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", port))
		if err != nil {
			if tries >= triesMax {
				return nil, fmt.Errorf("looking for free ports: %w", err)
			}
			continue
		}
		defer l.Close() // after the last was found, so that all differ
		ports = append(ports, port)
	}
	return ports, nil
}

// Start runs the command line args, a program and its arguments, with its
// output in the file dir/name.log. The name is for messages. For how long the
// process may live, see Launch.
func Start(name, dir string, args []string) (*Process, error) {
	log := filepath.Join(dir, name+".log")
	out, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer out.Close() // the child has its own
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = out, out
	p, err := Launch(name, cmd)
	if err == nil {
		p.log = log
	}
	return p, err
}

// Launch starts cmd with an environment that leaves its defaults alone, and so
// that it cannot outlive this program. The kernel ends it with the thread that
// started it, so the caller has to keep its thread (runtime.LockOSThread) for
// as long as the process may live.
func Launch(name string, cmd *exec.Cmd) (*Process, error) {
	cmd.Env = plainEnvironment(os.Environ())
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	p := &Process{name: name, cmd: cmd, exited: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // its state says it all
		close(p.exited)
	}()
	return p, nil
}

// Name returns the name given at the start.
func (p *Process) Name() string { return p.name }

// plainEnvironment leaves out what would change how a server is configured:
// what is compared are defaults.
func plainEnvironment(env []string) []string {
	var out []string
	for _, v := range env {
		name, _, _ := strings.Cut(v, "=")
		switch {
		case strings.HasPrefix(name, "PROA_"), name == "GOGC", name == "GOMEMLIMIT", name == "GOMAXPROCS", name == "GODEBUG":
		default:
			out = append(out, v)
		}
	}
	return out
}

// ErrExited is the error of Await where a process has ended instead.
var ErrExited = errors.New("ended instead of serving")

// Await calls ready again and again until it returns nil, for 20 seconds at
// most. It gives up earlier where one of the processes that are to become ready
// has ended; its last words are in the error.
func Await(ctx context.Context, ready func(context.Context) error, ps ...*Process) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		for _, p := range ps {
			if ended := p.Alive(); ended != nil {
				return fmt.Errorf("%w: %w", ErrExited, ended)
			}
		}
		if pause(ctx, pollStep) != nil {
			return notReady(err, ps)
		}
	}
}

// notReady says which processes are not ready, and what they last said.
func notReady(err error, ps []*Process) error {
	err = fmt.Errorf("no service: %w", err)
	for _, p := range ps {
		err = fmt.Errorf("%w; %s: %s", err, p.name, p.lastWords())
	}
	return err
}

// lastWords returns the end of the server's log.
func (p *Process) lastWords() string {
	if p.log == "" {
		return "it kept no log"
	}
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(bytes.TrimSpace(b[max(0, len(b)-500):]))
}

// Stop ends the process, at once if it does not end by itself in time.
func (p *Process) Stop() error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // fails only if it has ended
	select {
	case <-p.exited:
		return nil
	case <-time.After(stopTimeout):
	}
	p.Kill()
	return fmt.Errorf("%s did not end within %v of SIGTERM and was killed", p.name, stopTimeout)
}

// StopAll ends processes at the same time: of a cluster the last ones could not
// hand over what they lead.
func StopAll(ps ...*Process) error {
	errs := make([]error, len(ps))
	var stopping sync.WaitGroup
	for i, p := range ps {
		stopping.Go(func() { errs[i] = p.Stop() })
	}
	stopping.Wait()
	return errors.Join(errs...)
}

// Kill ends the process at once and returns when it is gone.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // fails only if it has ended
	<-p.exited
}

// Alive returns an error where the process has ended.
func (p *Process) Alive() error {
	select {
	case <-p.exited:
		return fmt.Errorf("%s ended (%v): %s", p.name, p.cmd.ProcessState, p.lastWords())
	default:
		return nil
	}
}

// CPU returns the CPU time of all threads of the process so far.
func (p *Process) CPU() (time.Duration, error) {
	var t unix.Timespec
	if err := unix.ClockGettime(cpuClock(p.cmd.Process.Pid), &t); err != nil {
		return 0, fmt.Errorf("CPU clock of %s: %w", p.name, errors.Join(err, p.Alive()))
	}
	return time.Duration(t.Nano()), nil
}

// cpuClock returns the number of the clock that counts the CPU time of a
// process: what clock_getcpuclockid(3) returns on Linux, the complement of the
// process number above three bits that say "scheduler's count, whole process".
func cpuClock(pid int) int32 {
	const cpuClockSched = 2
	return int32(^pid<<3 | cpuClockSched)
}

// Resident returns the bytes of memory the process has.
func (p *Process) Resident() (int64, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return kilobytes(f, "Rss:")
}

// kilobytes finds the line that begins with name and returns its number of kB
// in bytes.
func kilobytes(r io.Reader, name string) (int64, error) {
	s := bufio.NewScanner(r)
	for s.Scan() {
		rest, ok := strings.CutPrefix(s.Text(), name)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(rest, "kB")), 10, 64)
		return n << 10, err
	}
	return 0, errors.Join(fmt.Errorf("no line %q", name), s.Err())
}

const (
	restStep    = 50 * time.Millisecond
	restTimeout = 2 * time.Second
	// restShare is the part of one processor that servers at rest may use in
	// all. Timers and metrics never stop.
	restShare = 0.04
)

// CPU returns the CPU time of all threads of all processes so far.
func CPU(ps ...*Process) (sum time.Duration, err error) {
	for _, p := range ps {
		t, err := p.CPU()
		if err != nil {
			return 0, err
		}
		sum += t
	}
	return sum, nil
}

// Rest waits until the processes hardly use any CPU, for two seconds at most.
func Rest(ctx context.Context, ps ...*Process) error {
	_, err := Settle(ctx, restTimeout, func() (time.Duration, error) { return CPU(ps...) })
	return err
}

// Settle waits until the CPU time that cpu returns hardly grows any more, for so
// long at most, and reports whether it does.
func Settle(ctx context.Context, limit time.Duration, cpu func() (time.Duration, error)) (bool, error) {
	before, err := cpu()
	for deadline := time.Now().Add(limit); err == nil && time.Now().Before(deadline); {
		if err := pause(ctx, restStep); err != nil {
			return false, err
		}
		var now time.Duration
		now, err = cpu()
		if now-before < time.Duration(restShare*float64(restStep)) {
			return err == nil, err
		}
		before = now
	}
	return false, err
}

// pause waits for d.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ResidentAtRest returns the memory of the process when it no longer changes
// much, or after five seconds.
func (p *Process) ResidentAtRest(ctx context.Context) (int64, error) {
	const (
		step    = 250 * time.Millisecond
		unrest  = 64 << 10 // bytes
		needed  = 3        // steps in a row
		timeout = 5 * time.Second
	)
	last, err := p.Resident()
	for quiet, deadline := 0, time.Now().Add(timeout); err == nil && quiet < needed && time.Now().Before(deadline); {
		if err := pause(ctx, step); err != nil {
			return 0, err
		}
		var now int64
		now, err = p.Resident()
		if quiet++; now-last > unrest || last-now > unrest {
			quiet = 0
		}
		last = now
	}
	return last, err
}
