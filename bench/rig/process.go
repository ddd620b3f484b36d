//go:build linux

package rig

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/proa-kv/proa/internal/spawn"
)

const (
	stopTimeout = 20 * time.Second
	pollStep    = 20 * time.Millisecond
)

// commandOf returns the command of a program and its arguments without what would
// change how it is configured: what is compared are defaults.
func commandOf(line ...string) *exec.Cmd {
	cmd := exec.Command(line[0], line[1:]...)
	cmd.Env = spawn.Environment("GOGC", "GOMEMLIMIT", "GOMAXPROCS", "GODEBUG")
	return cmd
}

// onFreePorts calls f with n free ports, and again with others, up to three
// times in all, where its error is spawn.ErrExited: between finding a free port
// and using it, somebody else may take it.
func onFreePorts(n int, f func(ports []string) error) error {
	var failed error
	for range 3 {
		ports, err := spawn.FreePorts(n)
		if err != nil {
			return err
		}
		if failed = f(ports); !errors.Is(failed, spawn.ErrExited) {
			return failed
		}
	}
	return failed
}

// await calls ready again and again until it returns nil, until the timeout, or
// until one of the processes has ended.
func await(ctx context.Context, timeout time.Duration, ready func(context.Context) error, ps ...*spawn.Process) error {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("not ready within %v", timeout))
	defer cancel()
	err := spawn.Await(ctx, pollStep, ready, func() error { return spawn.Alive(ps...) })
	if err != nil && !errors.Is(err, spawn.ErrExited) {
		for _, p := range ps {
			err = fmt.Errorf("%w; %s: %s", err, p.Name(), p.Tail())
		}
	}
	return err
}

// CPU returns the CPU time of all threads of all processes so far.
func CPU(ps ...*spawn.Process) (sum time.Duration, err error) {
	for _, p := range ps {
		var t unix.Timespec
		if err := unix.ClockGettime(cpuClock(p.PID()), &t); err != nil {
			return 0, fmt.Errorf("CPU clock of %s: %w", p.Name(), errors.Join(err, p.Alive()))
		}
		sum += time.Duration(t.Nano())
	}
	return sum, nil
}

// OwnCPU returns the CPU time of all threads of this process.
func OwnCPU() time.Duration {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t) != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// cpuClock returns the number of the clock that counts the CPU time of a
// process: what clock_getcpuclockid(3) returns on Linux, the complement of the
// process number above three bits that say "scheduler's count, whole process".
func cpuClock(pid int) int32 {
	const cpuClockSched = 2
	return int32(^pid<<3 | cpuClockSched)
}

// resident returns the bytes of memory a process has.
func resident(p *spawn.Process) (int64, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", p.PID()))
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

// Rest waits until the clusters hardly use any CPU, for two seconds at most.
func Rest(ctx context.Context, clusters ...*Cluster) error {
	_, err := Settle(ctx, restTimeout, func() (sum time.Duration, err error) {
		for _, c := range clusters {
			used, err := c.CPU()
			if err != nil {
				return 0, err
			}
			sum += used
		}
		return sum, nil
	})
	return err
}

// Settle waits until the CPU time that cpu returns hardly grows any more, for so
// long at most, and reports whether it does.
func Settle(ctx context.Context, limit time.Duration, cpu func() (time.Duration, error)) (bool, error) {
	_, settled, err := steady(ctx, restStep, limit, 1, time.Duration(restShare*float64(restStep)), cpu)
	return settled, err
}

// ResidentAtRest returns the memory of a process when it no longer changes much,
// or after five seconds.
func ResidentAtRest(ctx context.Context, p *spawn.Process) (int64, error) {
	n, _, err := steady(ctx, 250*time.Millisecond, 5*time.Second, 3, 64<<10, func() (int64, error) { return resident(p) })
	return n, err
}

// steady waits until what read returns changes by less than unrest in a step, in so
// many steps in a row, for the limit at most. It returns the last of it, and whether
// it does.
func steady[T ~int64](ctx context.Context, step, limit time.Duration, steps int, unrest T, read func() (T, error)) (last T, reached bool, err error) {
	last, err = read()
	for quiet, deadline := 0, time.Now().Add(limit); err == nil && quiet < steps; {
		if !time.Now().Before(deadline) {
			return last, false, nil
		}
		if err := Pause(ctx, step); err != nil {
			return last, false, err
		}
		before := last
		last, err = read()
		if quiet++; last-before >= unrest || before-last >= unrest {
			quiet = 0
		}
	}
	return last, err == nil, err
}

// Pause waits for d. It returns the cause if ctx ends first.
func Pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
