//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/proa-kv/proa/bench"
)

// process is a server that was started here.
type process struct {
	name   string
	target bench.Target
	cmd    *exec.Cmd
	log    string        // file with its output
	exited chan struct{} // closed after Wait
}

const (
	startTimeout = 20 * time.Second
	stopTimeout  = 20 * time.Second
)

// startServer starts a server on a free port and waits until it greets. args
// gets the port and returns the command line.
func startServer(ctx context.Context, name, dir string, codec bench.Codec, args func(port string) []string) (*process, error) {
	var failed error
	// Between finding a free port and using it, somebody else may take it.
	for range 3 {
		port, err := freePort()
		if err != nil {
			return nil, err
		}
		p := &process{
			name: name, log: filepath.Join(dir, name+".log"),
			target: bench.Target{Address: net.JoinHostPort("127.0.0.1", port), Codec: codec},
		}
		if err := p.start(args(port)); err != nil {
			return nil, err
		}
		err = p.awaitGreeting(ctx)
		if err == nil {
			return p, nil
		}
		failed = errors.Join(err, p.stop())
		if !errors.Is(err, errExited) {
			break
		}
	}
	return nil, failed
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, errors.Join(err, l.Close())
}

func (p *process) start(args []string) error {
	out, err := os.Create(p.log)
	if err != nil {
		return err
	}
	defer out.Close() // the child has its own
	p.cmd = exec.Command(args[0], args[1:]...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	return p.launch()
}

// launch starts p.cmd so that it can not outlive this process.
func (p *process) launch() error {
	p.cmd.Env = plainEnvironment(os.Environ())
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("starting %s: %w", p.name, err)
	}
	p.exited = make(chan struct{})
	go func() {
		_ = p.cmd.Wait() // its state says it all
		close(p.exited)
	}()
	return nil
}

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

var errExited = errors.New("ended instead of serving")

// awaitGreeting waits until the server greets.
func (p *process) awaitGreeting(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		idle, err := bench.OpenIdle(ctx, p.target, 1)
		if err == nil {
			return idle.Close()
		}
		select {
		case <-p.exited:
			return fmt.Errorf("%s %w (%v): %s", p.name, errExited, p.cmd.ProcessState, p.lastWords())
		case <-ctx.Done():
			return fmt.Errorf("%s does not serve: %w; %s", p.name, err, p.lastWords())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// lastWords returns the end of the server's log.
func (p *process) lastWords() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(bytes.TrimSpace(b[max(0, len(b)-500):]))
}

// stop ends the process, at once if it does not end by itself in time.
func (p *process) stop() error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // fails only if it has ended
	select {
	case <-p.exited:
		return nil
	case <-time.After(stopTimeout):
	}
	_ = p.cmd.Process.Kill()
	<-p.exited
	return fmt.Errorf("%s did not end within %v of SIGTERM and was killed", p.name, stopTimeout)
}

// alive returns an error where the process has ended.
func (p *process) alive() error {
	select {
	case <-p.exited:
		return fmt.Errorf("%s ended (%v): %s", p.name, p.cmd.ProcessState, p.lastWords())
	default:
		return nil
	}
}

// cpu returns the CPU time of all threads of the process so far.
func (p *process) cpu() (time.Duration, error) {
	var t unix.Timespec
	if err := unix.ClockGettime(cpuClock(p.cmd.Process.Pid), &t); err != nil {
		return 0, fmt.Errorf("CPU clock of %s: %w", p.name, errors.Join(err, p.alive()))
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

// resident returns the bytes of memory the process has.
func (p *process) resident() (int64, error) {
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

// rest waits until the processes hardly use any CPU, for two seconds at most.
func rest(ctx context.Context, ps ...*process) error {
	used := func() (sum time.Duration, err error) {
		for _, p := range ps {
			t, err := p.cpu()
			if err != nil {
				return 0, err
			}
			sum += t
		}
		return sum, nil
	}
	before, err := used()
	for deadline := time.Now().Add(restTimeout); err == nil && time.Now().Before(deadline); {
		if err := pause(ctx, restStep); err != nil {
			return err
		}
		var now time.Duration
		now, err = used()
		if now-before < time.Duration(restShare*float64(restStep)) {
			break
		}
		before = now
	}
	return err
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

// residentAtRest returns the memory of p when it no longer changes much.
func residentAtRest(ctx context.Context, p *process) (int64, error) {
	const (
		step    = 250 * time.Millisecond
		unrest  = 64 << 10 // bytes
		needed  = 3        // steps in a row
		timeout = 5 * time.Second
	)
	last, err := p.resident()
	for quiet, deadline := 0, time.Now().Add(timeout); err == nil && quiet < needed && time.Now().Before(deadline); {
		if err := pause(ctx, step); err != nil {
			return 0, err
		}
		var now int64
		now, err = p.resident()
		if quiet++; now-last > unrest || last-now > unrest {
			quiet = 0
		}
		last = now
	}
	return last, err
}
