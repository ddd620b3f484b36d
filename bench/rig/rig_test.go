//go:build linux

package rig

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/proa-kv/proa/bench"
)

// The test program is the server of a floor where the program would be one.
func TestMain(m *testing.M) {
	if served, err := ServeFloor(os.Args[1:]); served {
		if err != nil {
			panic(err)
		}
		return
	}
	os.Exit(m.Run())
}

// lockThread keeps the thread that starts children: they end with it.
func lockThread(t *testing.T) {
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
}

func TestAwait(t *testing.T) {
	lockThread(t)
	dir := t.TempDir()
	p, err := Start("sleeper", dir, []string{"/bin/sh", "-c", "echo started; exec sleep 60"})
	if err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(dir, "sleeper.log")
	notYet := errors.New("not yet")
	if err := Await(t.Context(), func(context.Context) error {
		if b, _ := os.ReadFile(log); string(b) != "started\n" {
			return notYet
		}
		return nil
	}, p); err != nil {
		t.Error(err)
	}
	if err := p.Alive(); err != nil {
		t.Error(err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	err = Await(cancelled, func(context.Context) error { cancel(); return notYet }, p)
	if !errors.Is(err, notYet) || errors.Is(err, ErrExited) || !strings.Contains(err.Error(), "sleeper: started") {
		t.Error(err)
	}
	ended, err := Start("ended", dir, []string{"/bin/sh", "-c", "echo 'no such disk' >&2; exit 3"})
	if err != nil {
		t.Fatal(err)
	}
	err = Await(t.Context(), func(context.Context) error { return notYet }, p, ended)
	if !errors.Is(err, ErrExited) || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "no such disk") {
		t.Error(err)
	}
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
	if err := p.Alive(); err == nil || !strings.Contains(err.Error(), "sleeper ended") {
		t.Error(err)
	}
	if _, err := p.CPU(); err == nil {
		t.Error("a process that ended has a CPU clock")
	}
}

// A process that is killed is gone when Kill returns, and may be killed again.
func TestKill(t *testing.T) {
	runtime.LockOSThread() // the kernel ends children with their thread
	defer runtime.UnlockOSThread()
	p, err := Start("sleeper", t.TempDir(), []string{"sleep", "60"})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		p.Kill()
		if err := p.Alive(); err == nil || !strings.Contains(err.Error(), "signal: killed") {
			t.Error(err)
		}
	}
}

func TestStopAll(t *testing.T) {
	runtime.LockOSThread() // the kernel ends children with their thread
	defer runtime.UnlockOSThread()
	var ps []*Process
	for _, name := range []string{"one", "two"} {
		p, err := Start(name, t.TempDir(), []string{"sleep", "60"})
		if err != nil {
			t.Fatal(err)
		}
		ps = append(ps, p)
	}
	if err := StopAll(ps...); err != nil {
		t.Error(err)
	}
	for _, p := range ps {
		if p.Alive() == nil {
			t.Errorf("%s is still alive", p.Name())
		}
	}
}

func TestProaArgs(t *testing.T) {
	alone := Proa{Program: "proa", Data: "d", Client: "h:1", Peers: []string{"h:2"}, ID: 1}
	if got, want := strings.Join(alone.Args("--shards", "4"), " "), "proa serve --data d --listen h:1 --admin-listen off --log-level warn --peer-listen off --shards 4"; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	second := Proa{Program: "proa", Data: "d", Client: "h:1", Peers: []string{"h:2", "h:3"}, ID: 2}
	if got, want := strings.Join(second.Args(), " "), "proa serve --data d --listen h:1 --admin-listen off --log-level warn --node-id 2 --peer-listen h:3 --join h:2,h:3"; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}

// A server that loses its port to somebody else is started again, one that is
// broken otherwise is not.
func TestOnFreePorts(t *testing.T) {
	for _, tc := range []struct {
		failures int
		err      error
		calls    int
		want     error
	}{{0, ErrExited, 1, nil}, {2, ErrExited, 3, nil}, {3, ErrExited, 3, ErrExited}, {1, os.ErrPermission, 1, os.ErrPermission}} {
		calls := 0
		err := OnFreePorts(4, func(ports []string) error {
			for i, p := range ports {
				if len(ports) != 4 || len(p) != 5 || p[0] != '2' || p == ports[(i+1)%4] {
					t.Errorf("ports %q", ports)
				}
			}
			if calls++; calls <= tc.failures {
				return tc.err
			}
			return nil
		})
		if calls != tc.calls || !errors.Is(err, tc.want) {
			t.Errorf("%d failures with %v: %d calls, %v", tc.failures, tc.err, calls, err)
		}
	}
}

// What no longer uses CPU has settled; what never stops is waited for no longer
// than said.
func TestSettle(t *testing.T) {
	spent := func(steps ...time.Duration) func() (time.Duration, error) {
		sum := time.Duration(0)
		return func() (time.Duration, error) {
			if sum += steps[0]; len(steps) > 1 {
				steps = steps[1:]
			}
			return sum, nil
		}
	}
	quiet := restStep / 100
	if settled, err := Settle(t.Context(), time.Minute, spent(0, restStep, restStep, quiet)); !settled || err != nil {
		t.Error(settled, err)
	}
	if settled, err := Settle(t.Context(), 2*restStep, spent(restStep)); settled || err != nil {
		t.Error(settled, err)
	}
	broken := func() (time.Duration, error) { return 0, os.ErrClosed }
	if settled, err := Settle(t.Context(), time.Minute, broken); settled || !errors.Is(err, os.ErrClosed) {
		t.Error(settled, err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if settled, err := Settle(cancelled, time.Minute, spent(restStep)); settled || !errors.Is(err, context.Canceled) {
		t.Error(settled, err)
	}
}

// The clock counts what the whole process has used, as getrusage does.
func TestCPUClock(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for start, x := time.Now(), 0; time.Since(start) < 20*time.Millisecond; x++ {
		_ = x
	}
	usage := func() time.Duration {
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
			t.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	var clock unix.Timespec
	before := usage()
	if err := unix.ClockGettime(cpuClock(os.Getpid()), &clock); err != nil {
		t.Fatal(err)
	}
	const rounding = 10 * time.Millisecond
	if got, after := time.Duration(clock.Nano()), usage(); got < before-rounding || got > after+rounding {
		t.Errorf("the clock says %v, getrusage %v to %v", got, before, after)
	}
}

func TestFloors(t *testing.T) {
	d, err := NewDisk(filepath.Join(t.TempDir(), "floor"))
	if err != nil {
		t.Fatal(err)
	}
	h, err := d.Measure(t.Context(), 20*time.Millisecond)
	if err != nil || h.TotalCount() == 0 || h.Min() <= 0 {
		t.Errorf("disk: %+v, %v", h, err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.Measure(cancelled, time.Hour); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if info, err := d.file.Stat(); err != nil || info.Size() != floorBytes {
		t.Errorf("the file is %d bytes long, %v", info.Size(), err)
	}
	written := make([]byte, BlockBytes)
	if _, err := d.file.ReadAt(written, 0); err != nil || !bytes.Equal(written, d.block) {
		t.Errorf("the first block does not hold what was written: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}

	runtime.LockOSThread() // the kernel ends children with their thread
	defer runtime.UnlockOSThread()
	e, address, err := StartEcho()
	if err != nil {
		t.Fatal(err)
	}
	r, err := bench.Run(t.Context(), bench.Config{Target: bench.Target{Address: address, Codec: Echo{163}}, Op: bench.Put, Connections: 3, InFlight: 2, Count: 1000, ServerCPU: e.CPU})
	if err != nil || r.Ops != 1000 || r.ServerCPU <= 0 {
		t.Errorf("echo: %v, %v", r, err)
	}
	if err := e.Stop(); err != nil {
		t.Error(err)
	}
	if s, ok := e.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || s.Signal() != syscall.SIGTERM {
		t.Errorf("the echo server ended with %v", e.cmd.ProcessState)
	}
}

// The rate of the disk counts what was written, whole chunks each, and stays in
// the file.
func TestSequential(t *testing.T) {
	d, err := NewDisk(filepath.Join(t.TempDir(), "floor"))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for _, chunk := range []int{1, 5 << 20, floorBytes} {
		begin := time.Now()
		rate, err := d.MeasureSequential(t.Context(), chunk, 0)
		least := float64(chunk) / time.Since(begin).Seconds()
		if err != nil || rate < least {
			t.Errorf("one chunk of %d bytes: %v/s, at least %v/s were possible, %v", chunk, rate, least, err)
		}
	}
	if _, err := d.MeasureSequential(t.Context(), 20<<20, 100*time.Millisecond); err != nil {
		t.Error(err)
	}
	if info, err := d.file.Stat(); err != nil || info.Size() != floorBytes {
		t.Errorf("the file is %d bytes long, %v", info.Size(), err)
	}
	for _, chunk := range []int{0, floorBytes + 1} {
		if _, err := d.MeasureSequential(t.Context(), chunk, 0); err == nil {
			t.Errorf("chunks of %d bytes were written", chunk)
		}
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.MeasureSequential(cancelled, 4096, time.Hour); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// The server of blobs answers each request with the bytes asked for, several
// requests at a time, too, and refuses more than the largest.
func TestBlobs(t *testing.T) {
	lockThread(t)
	p, address, err := StartBlobs()
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{1, 256 << 10, bench.ValueBytesMax} {
		c := bench.Config{Target: bench.Target{Address: address, Codec: Blob{size}}, Op: bench.Get, ValueBytes: size, Connections: 3, InFlight: 2, Count: 100}
		if r, err := bench.Run(t.Context(), c); err != nil || r.Ops != 100 || r.Failed > 0 {
			t.Errorf("blobs of %d bytes: %v, %v", size, r, err)
		}
	}
	c := bench.Config{Target: bench.Target{Address: address, Codec: Blob{bench.ValueBytesMax + 1}}, Op: bench.Get, Count: 1}
	if _, err := bench.Run(t.Context(), c); !errors.Is(err, bench.ErrClosed) {
		t.Errorf("a blob that is too large: %v", err)
	}
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
}

// Blobs follow each other in the pool and begin anew where the rest of it is too
// short.
func TestBlobPool(t *testing.T) {
	s := blobs{pool: []byte("abcdefghij")}
	var got []string
	for _, size := range []int{4, 6, 3, 8, 0, 10} {
		got = append(got, string(s.take(size)))
	}
	if diff := cmp.Diff([]string{"abcd", "efghij", "abc", "abcdefgh", "", "abcdefghij"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestServeFloor(t *testing.T) {
	for _, args := range [][]string{nil, {"-rounds"}, {EchoArgument, BlobArgument}} {
		if served, err := ServeFloor(args); served || err != nil {
			t.Errorf("%q: %v, %v", args, served, err)
		}
	}
}

func TestMachine(t *testing.T) {
	if got := cpuModel(strings.NewReader("processor\t: 0\nmodel name\t: Some CPU @ 3 GHz\nmodel name\t: other\n")); got != "Some CPU @ 3 GHz" {
		t.Errorf("processor %q", got)
	}
	if got := cpuModel(strings.NewReader("processor: 0\n")); got != unknown {
		t.Errorf("processor %q", got)
	}
	if got, err := kilobytes(strings.NewReader("Rss:                1024 kB\nPss: 1 kB\n"), "Rss:"); got != 1<<20 || err != nil {
		t.Errorf("%d bytes, %v", got, err)
	}
	if _, err := kilobytes(strings.NewReader("Pss: 1 kB\n"), "Rss:"); err == nil {
		t.Error("a line that is not there was found")
	}
	mounts := `1 0 8:1 / / rw - ext4 /dev/a rw
2 1 8:2 / /data rw shared:1 - xfs /dev/b rw
3 1 8:3 / /data/inner rw master:1 propagate_from:2 - btrfs /dev/c rw
4 1 8:4 / /data rw - zfs pool rw
`
	for path, want := range map[string]string{"/": "ext4", "/dat": "ext4", "/database/x": "ext4", "/data": "zfs", "/data/x": "zfs", "/data/inner/y": "btrfs"} {
		if got := fileSystemOf(strings.NewReader(mounts), path); got != want {
			t.Errorf("%s is on %s, want %s", path, got, want)
		}
	}
	d := Describe(t.TempDir())
	if d.Kernel == unknown || d.MemoryBytes == 0 || d.FileSystem == unknown || d.Cores == 0 {
		t.Errorf("this machine: %+v", d)
	}
}

func TestPlainEnvironment(t *testing.T) {
	got := plainEnvironment([]string{"PATH=/bin", "PROA_LISTEN_CLIENT=:1", "GOGC=1", "GOMAXPROCS=1", "HOME=/"})
	if diff := cmp.Diff([]string{"PATH=/bin", "HOME=/"}, got); diff != "" {
		t.Error(diff)
	}
}

// A run that takes too long says so, and any other error stays what it is.
func TestWithin(t *testing.T) {
	failed := errors.New("failed")
	if err := Within(t.Context(), time.Hour, func(context.Context) error { return failed }); err != failed {
		t.Error(err)
	}
	if err := Within(t.Context(), time.Hour, func(context.Context) error { return nil }); err != nil {
		t.Error(err)
	}
	err := Within(t.Context(), time.Millisecond, func(ctx context.Context) error {
		<-ctx.Done()
		return failed
	})
	if err == nil || !strings.Contains(err.Error(), "not finished within 1ms; -limit") {
		t.Error(err)
	}
	if err := Within(t.Context(), time.Nanosecond, func(ctx context.Context) error { <-ctx.Done(); return nil }); err != nil {
		t.Errorf("it finished all the same: %v", err)
	}
}

func TestMemory(t *testing.T) {
	m := NewMemory()
	p50 := func(bytes int) int64 {
		t.Helper()
		h, err := m.Measure(t.Context(), bytes, 10*time.Millisecond)
		if err != nil || h.TotalCount() == 0 {
			t.Fatal(h, err)
		}
		return h.ValueAtQuantile(50)
	}
	if small, large := p50(1), p50(1<<20); small < 1 || large < 10*small {
		t.Errorf("a byte is copied in %d ns, 1 MiB in %d", small, large)
	}
	if _, err := m.Measure(t.Context(), 4096, 0); err != nil || !bytes.Equal(m.from, bench.NewValue(memoryBytes, 1)) {
		t.Errorf("what was copied from has changed, or %v", err)
	}
	for _, n := range []int{0, 1<<20 + 1} {
		if _, err := m.Measure(t.Context(), n, 0); err == nil {
			t.Errorf("copies of %d bytes were measured", n)
		}
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.Measure(cancelled, 64, time.Hour); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
