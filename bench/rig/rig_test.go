//go:build linux

package rig

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/proa-kv/proa/bench"
	"github.com/proa-kv/proa/bench/report"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/internal/spawn"
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

func sleeper(t *testing.T, name, dir, script string) *spawn.Process {
	t.Helper()
	p, err := spawn.Launch(name, filepath.Join(dir, name+".log"), commandOf("/bin/sh", "-c", script))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return p
}

func TestAwait(t *testing.T) {
	dir := t.TempDir()
	p := sleeper(t, "sleeper", dir, "echo started; exec sleep 60")
	notYet := errors.New("not yet")
	if err := await(t.Context(), time.Minute, func(context.Context) error {
		if p.Tail() != "started" {
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
	err := await(cancelled, time.Minute, func(context.Context) error { cancel(); return notYet }, p)
	if !errors.Is(err, notYet) || !errors.Is(err, context.Canceled) || errors.Is(err, spawn.ErrExited) || !strings.Contains(err.Error(), "sleeper: started") {
		t.Error(err)
	}
	ended := sleeper(t, "ended", dir, "echo 'no such disk' >&2; exit 3")
	err = await(t.Context(), time.Minute, func(context.Context) error { return notYet }, p, ended)
	if !errors.Is(err, spawn.ErrExited) || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "no such disk") {
		t.Error(err)
	}
	if err := p.Stop(stopTimeout); err != nil {
		t.Error(err)
	}
	if err := p.Alive(); err == nil || !strings.Contains(err.Error(), "sleeper has ended") {
		t.Error(err)
	}
	if _, err := CPU(p); err == nil {
		t.Error("a process that ended has a CPU clock")
	}
}

// A server that ends instead of serving is an error that says why, and nothing
// of it is left running. One that serves can be killed, started again and
// stopped.
func TestCluster(t *testing.T) {
	k := Kind{Name: "broken", Command: func(*Cluster, *Node) []string {
		return []string{"/bin/sh", "-c", "echo 'no such disk' >&2; exit 3"}
	}, Ready: func(context.Context, *Cluster) error { return os.ErrDeadlineExceeded }}
	if _, err := StartCluster(t.Context(), t.TempDir(), 1, k); !errors.Is(err, spawn.ErrExited) || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "no such disk") {
		t.Error(err)
	}
	k = Kind{Name: "sleeper", Command: func(*Cluster, *Node) []string { return []string{"sleep", "60"} }, Ready: func(context.Context, *Cluster) error { return nil }}
	c, err := StartCluster(t.Context(), t.TempDir(), 3, k)
	if err != nil {
		t.Fatal(err)
	}
	c.Kill(c.Nodes[0])
	if n := len(c.Running()); n != 2 || c.Alive() != nil {
		t.Errorf("%d processes, %v", n, c.Alive())
	}
	if err := errors.Join(c.Terminate(c.Nodes[1]), c.Start(c.Nodes[0]), c.Await(t.Context()), Rest(t.Context(), c), c.Stop(), c.Remove()); err != nil {
		t.Error(err)
	}
	if left, err := filepath.Glob(c.dir); err != nil || len(left) > 0 || len(c.Running()) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestCommands(t *testing.T) {
	c := &Cluster{Cluster: &spawn.Cluster{Nodes: []*Node{{ID: 1, Client: "h:1", Peer: "h:2", Data: "/d/1"}}}}
	line := func(k Kind) string { return strings.Join(k.Command(c, c.Nodes[len(c.Nodes)-1]), " ") }
	if got, want := line(Proa("", "proa", "--shards", "4")), "proa serve --data /d/1 --listen h:1 --admin-listen off --log-level warn --peer-listen off --shards 4"; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	if got, want := line(Redis("", "redis-server", FsyncAlways...)), "redis-server --port 1 --bind 127.0.0.1 --daemonize no --dir /d --save  --auto-aof-rewrite-percentage 0 --appendonly yes --appendfsync always"; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	c.Nodes = append(c.Nodes, &Node{ID: 2, Client: "h:3", Peer: "h:4", Data: "/d/2"})
	if got, want := line(Proa("", "proa")), "proa serve --data /d/2 --listen h:3 --admin-listen off --log-level warn --node-id 2 --peer-listen h:4 --join h:2,h:4"; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}

// healthy returns the status of a cluster whose groups have the given leaders,
// the meta group first.
func healthy(leaders ...uint64) *command.ClusterStatus {
	s := &command.ClusterStatus{}
	for id := range uint64(3) {
		s.Nodes = append(s.Nodes, command.NodeInfo{ID: id + 1, State: command.NodeUp})
	}
	for i, leader := range leaders {
		s.Shards = append(s.Shards, command.ShardInfo{Shard: i - 1, Leader: leader, Replicas: make([]command.ReplicaInfo, 3)})
	}
	return s
}

func TestBalanced(t *testing.T) {
	problem := func(s *command.ClusterStatus) error {
		return errors.Join(unhealthy(s, 3), unbalanced(s, 3))
	}
	if err := problem(healthy(1, 2, 3, 1)); err != nil {
		t.Error(err)
	}
	for want, change := range map[string]func(*command.ClusterStatus){
		"2 nodes":         func(s *command.ClusterStatus) { s.Nodes = s.Nodes[:2] },
		"node 3 is down":  func(s *command.ClusterStatus) { s.Nodes[2].State = command.NodeDown },
		"no leader":       func(s *command.ClusterStatus) { s.Shards[1].Leader = 0 },
		"on the move":     func(s *command.ClusterStatus) { s.Shards[1].Moving = true },
		"has 2 replicas":  func(s *command.ClusterStatus) { s.Shards[1].Replicas = s.Shards[1].Replicas[:2] },
		"leads 2 groups":  func(s *command.ClusterStatus) { s.Shards[1].Leader = 1; s.Shards = s.Shards[:2] },
		"and another 0":   func(s *command.ClusterStatus) { s.Shards[1].Leader = 1; s.Shards = s.Shards[:2] },
		"node 1 is suspe": func(s *command.ClusterStatus) { s.Nodes[0].State = command.NodeSuspect },
	} {
		s := healthy(1, 2, 3, 1)
		change(s)
		if err := problem(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}

// The curves are of all rounds together.
func TestLine(t *testing.T) {
	var s Series
	for round := range 2 {
		var k bench.KindResult
		for range 50 {
			k.Record(time.Duration(round+1) * time.Millisecond)
		}
		s = append(s, SampleOfKind(&k), Sample{})
	}
	line := s.Line("both")
	first, last := line.Points[0], line.Points[len(line.Points)-1]
	if first.Y < 999 || first.Y > 1001 || last.Y < 1999 || last.Y > 2001 || last.X != 200 {
		t.Errorf("from %v to %v", first, last)
	}
	if n := s[0].Latencies.Latency.TotalCount(); n != 50 {
		t.Errorf("a round has %d latencies of 50 now", n)
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
	}{{0, spawn.ErrExited, 1, nil}, {2, spawn.ErrExited, 3, nil}, {3, spawn.ErrExited, 3, spawn.ErrExited}, {1, os.ErrPermission, 1, os.ErrPermission}} {
		calls := 0
		err := onFreePorts(4, func(ports []string) error {
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
	if err != nil || h.Ops == 0 || h.Latency.Min() <= 0 {
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

	l := newTestLab(t)
	e, err := l.StartEcho(163)
	if err != nil {
		t.Fatal(err)
	}
	r, err := bench.Run(t.Context(), bench.Load{Target: e.Target, Op: bench.Put, Connections: 3, InFlight: 2, Count: 1000, ServerCPU: e.CPU})
	if err != nil || r.All.Ops != 1000 || r.ServerCPU() <= 0 {
		t.Errorf("echo: %v, %v", r, err)
	}
	p := e.Nodes[0].Process
	if err := e.Stop(); err != nil {
		t.Error(err)
	}
	if err := p.Result(); err == nil || err.Error() != "signal: terminated" {
		t.Errorf("the echo server ended with %v", err)
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
	l := newTestLab(t)
	p, err := l.StartBlobs(1)
	if err != nil {
		t.Fatal(err)
	}
	address := p.Target.Address
	for _, size := range []int{1, 256 << 10, bench.ValueBytesMax} {
		c := bench.Load{Target: bench.Target{Address: address, Codec: Blob{size}}, Op: bench.Get, ValueBytes: size, Connections: 3, InFlight: 2, Count: 100}
		if r, err := bench.Run(t.Context(), c); err != nil || r.All.Ops != 100 || r.Failed() > 0 {
			t.Errorf("blobs of %d bytes: %v, %v", size, r, err)
		}
	}
	c := bench.Load{Target: bench.Target{Address: address, Codec: Blob{bench.ValueBytesMax + 1}}, Op: bench.Get, Count: 1}
	if _, err := bench.Run(t.Context(), c); !errors.Is(err, bench.ErrClosed) {
		t.Errorf("a blob that is too large: %v", err)
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

func newTestLab(t *testing.T) *Lab {
	t.Helper()
	l, err := (&Options{Dir: t.TempDir()}).newLab(io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// A run that takes too long says so, and any other error stays what it is. All
// that was to be cleaned up is, the newest first, and nothing is left.
func TestRun(t *testing.T) {
	failed := errors.New("failed")
	outcome := &Outcome{Page: &report.Comparison{Title: "nothing"}}
	for _, tc := range []struct {
		limit   time.Duration
		outcome *Outcome
		err     error
		want    string
	}{
		{time.Hour, nil, failed, "failed"},
		{time.Hour, outcome, nil, ""},
		{time.Hour, &Outcome{Page: outcome.Page, Err: failed}, nil, "failed"},
		{time.Millisecond, nil, failed, "not finished within 1ms; -limit"},
		{time.Millisecond, outcome, nil, ""},
	} {
		o := Options{Limit: tc.limit, Dir: t.TempDir()}
		var done []int
		err := o.Run(t.Context(), io.Discard, io.Discard, func(ctx context.Context, l *Lab) (*Outcome, error) {
			for i := range 2 {
				l.Cleanup(func() error { done = append(done, i); return nil })
			}
			if tc.limit < time.Hour {
				<-ctx.Done()
			}
			return tc.outcome, tc.err
		})
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%+v: %v", tc, err)
		}
		if left, err := os.ReadDir(o.Dir); len(left) > 0 || err != nil || len(done) != 2 || done[0] != 1 {
			t.Errorf("left behind: %v, %v; cleaned up: %v", left, err, done)
		}
	}
}

func TestMemory(t *testing.T) {
	m := NewMemory()
	p50 := func(bytes int) int64 {
		t.Helper()
		h, err := m.Measure(t.Context(), bytes, 10*time.Millisecond)
		if err != nil || h.Ops == 0 {
			t.Fatal(h, err)
		}
		return int64(h.Quantile(0.5))
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
