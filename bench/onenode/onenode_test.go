//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
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

// The test program is an echo server where the program would be one.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == echoArgument {
		if err := serveEcho(); err != nil {
			panic(err)
		}
		return
	}
	os.Exit(m.Run())
}

// buildProa builds the server.
func buildProa(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("builds the server and runs it for some seconds")
	}
	path := filepath.Join(t.TempDir(), "proa")
	out, err := exec.Command("go", "build", "-o", path, "../../cmd/proa").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return path
}

// The smoke run goes through everything there is, against real servers, and
// leaves nothing behind.
func TestQuick(t *testing.T) {
	dir, file := t.TempDir(), filepath.Join(t.TempDir(), "performance.md")
	o, err := parseFlags([]string{"-quick", "-proa", buildProa(t), "-dir", dir, "-write", file, "-limit", "2m"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	var out, progress bytes.Buffer
	if err := run(t.Context(), o, &out, &progress); err != nil {
		t.Fatal(err, progress.String())
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, missing := exec.LookPath("redis-server")
	for _, want := range []string{
		"# Performance", pageBegin, "## Targets", "fdatasync + loopback echo", "Proa, fsynced PUT", "| GET, 64 × 1 | Proa |", "| PUT, 64 × 16 | Proa |",
		"200 idle connections", "smoke run", "**Machine:**", "**Versions:** proa ", "**Date:**", "make bench", "## How it was measured", pageEnd,
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if strings.Contains(string(text), dir) {
		t.Error("the page names a directory of this machine")
	}
	if got := strings.Contains(string(text), "| Redis, fsync always |"); got != (missing == nil) {
		t.Errorf("Redis measured: %v, present: %v", got, missing == nil)
	}
	if n := strings.Count(string(text), notMeasured); missing == nil && n > 0 {
		t.Errorf("%d targets were not measured", n)
	}
	if !strings.Contains(out.String(), "fsynced PUT, 1 × 1") {
		t.Errorf("printed: %s", out.String())
	}
	checkNothingLeft(t, dir)
}

// checkNothingLeft checks that no data and no child process is left.
func checkNothingLeft(t *testing.T, dir string) {
	t.Helper()
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if _, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); err != unix.ECHILD {
		t.Errorf("a child process is left: %v", err)
	}
}

// Cancelled anywhere, a run ends what it has started.
func TestCancelled(t *testing.T) {
	dir := t.TempDir()
	o, err := parseFlags([]string{"-quick", "-proa", buildProa(t), "-dir", dir}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	when := writerFunc(func(p []byte) {
		if bytes.Contains(p, []byte("64 connections")) {
			cancel()
		}
	})
	if err := run(ctx, o, io.Discard, when); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	checkNothingLeft(t, dir)
}

type writerFunc func([]byte)

func (f writerFunc) Write(p []byte) (int, error) {
	f(p)
	return len(p), nil
}

func TestFlags(t *testing.T) {
	for _, args := range [][]string{{"-rounds", "0"}, {"-step", "0s"}, {"-keys", "0"}, {"-idle", "-1"}, {"-connections", "0"}, {"argument"}, {"-nonsense"}} {
		if _, err := parseFlags(args, io.Discard); err == nil {
			t.Errorf("%q were accepted", args)
		}
	}
	o, err := parseFlags(nil, io.Discard)
	if want := "onenode -rounds 5 -step 1.5s -keys 100000 -value 128 -connections 64 -idle 10000"; err != nil || o.command() != want {
		t.Errorf("%v, %v", o.command(), err)
	}
}

func TestNoProa(t *testing.T) {
	o, _ := parseFlags([]string{"-proa", filepath.Join(t.TempDir(), "none")}, io.Discard)
	if err := run(t.Context(), o, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), "make build") {
		t.Error(err)
	}
}

func TestServerThatEnds(t *testing.T) {
	_, err := startServer(t.Context(), "broken", t.TempDir(), bench.RESP{}, func(string) []string {
		return []string{"/bin/sh", "-c", "echo 'no such disk' >&2; exit 3"}
	})
	if !errors.Is(err, errExited) || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "no such disk") {
		t.Error(err)
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
	d, err := newDisk(filepath.Join(t.TempDir(), "floor"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := d.measure(t.Context(), 20*time.Millisecond)
	if err != nil || s.ops == 0 || s.p50 <= 0 || s.p50 > s.p999 {
		t.Errorf("disk: %+v, %v", s, err)
	}
	if info, err := d.file.Stat(); err != nil || info.Size() != floorBytes {
		t.Errorf("the file is %d bytes long, %v", info.Size(), err)
	}
	written := make([]byte, blockBytes)
	if _, err := d.file.ReadAt(written, 0); err != nil || !bytes.Equal(written, d.block) {
		t.Errorf("the first block does not hold what was written: %v", err)
	}
	if err := d.close(); err != nil {
		t.Error(err)
	}

	runtime.LockOSThread() // as run does
	defer runtime.UnlockOSThread()
	e, err := startEcho(echoCodec{163})
	if err != nil {
		t.Fatal(err)
	}
	r, err := bench.Run(t.Context(), bench.Config{Target: e.target, Op: bench.Put, Connections: 3, InFlight: 2, Count: 1000, ServerCPU: e.cpu})
	if err != nil || r.Ops != 1000 || r.ServerCPU <= 0 {
		t.Errorf("echo: %v, %v", r, err)
	}
	if err := e.stop(); err != nil {
		t.Error(err)
	}
	if s, ok := e.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || s.Signal() != syscall.SIGTERM {
		t.Errorf("the echo server ended with %v", e.cmd.ProcessState)
	}
}

func TestStatistics(t *testing.T) {
	for _, tc := range []struct {
		v    []float64
		want float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{3, 1}, 2}, {[]float64{9, 1, 5}, 5}} {
		if got := median(tc.v); got != tc.want {
			t.Errorf("median of %v is %v", tc.v, got)
		}
	}
	// The median of the ratios, not the ratio of the medians (which is 1).
	if got, want := ratioOf([]float64{1, 2, 3}, []float64{2, 1, 2}), (ratio{1.5, 0.5, 2}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := ratioOf(nil, []float64{1}); got != (ratio{}) {
		t.Errorf("a ratio of nothing is %v", got)
	}
	if got := sum([]float64{1, 2}, []float64{10, 20, 30}); !cmp.Equal(got, []float64{11, 22}) {
		t.Errorf("got %v", got)
	}
	for v, want := range map[float64]string{0: "0", 999: "999", 1000: "1,000", 1234567.8: "1,234,568", -1234: "-1,234", -123: "-123"} {
		if got := thousands(v); got != want {
			t.Errorf("%v is %q", v, got)
		}
	}
	if got := idleMemory([3]int64{100, 120, 200}, 5); got != 200 {
		t.Errorf("a second half of 2 that took 80 makes %d for 5", got)
	}
	if got := idleMemory([3]int64{100, 180, 200}, 4); got != 100 {
		t.Errorf("a second half that took less makes %d", got)
	}
}

func TestVerdicts(t *testing.T) {
	for _, tc := range []struct {
		b    bound
		v    float64
		want string
	}{
		{bound{1.3, true}, 1.3, "met"}, {bound{1.3, true}, 1.301, "MISSED"},
		{bound{1.2, false}, 1.2, "met"}, {bound{1.2, false}, 1.199, "MISSED"},
	} {
		if got := tc.b.verdict(tc.v); got != tc.want {
			t.Errorf("%v with %v is %s", tc.b, tc.v, got)
		}
	}
}

// synthetic returns a measurement with figures that were made up: Proa's p50
// and rate as given, everybody else's 100 µs and 1000/s.
func synthetic(p50 time.Duration, rate float64) *measurement {
	other := sample{rate: 1000, p50: 100 * time.Microsecond, p99: 200 * time.Microsecond, p999: 300 * time.Microsecond, server: 7 * time.Microsecond, ops: 10}
	own := other
	own.p50, own.rate, own.busy = p50, rate, 1
	m := &measurement{
		options: options{busy: 64, keys: 100_000, value: 128, rounds: 1, step: time.Second},
		sync:    series{other}, loop: series{other},
		single: map[variant]series{proa: {own}, redisAlways: {other}},
		loaded: map[key]series{}, crowded: map[crowd]series{},
		idleOpened: 10_000, idleBytes: 10_000 * 5000,
	}
	for _, l := range loads {
		m.loaded[key{l, proa}], m.loaded[key{l, redisFor(l.op)}] = series{own}, series{other}
	}
	for _, op := range []bench.Op{bench.Get, bench.Put} {
		m.crowded[crowd{op, true}], m.crowded[crowd{op, false}] = series{own}, series{other}
	}
	return m
}

func verdicts(t table) (v []string) {
	for _, row := range t.rows {
		v = append(v, row[len(row)-1])
	}
	return v
}

// Each target is held against the right figure.
func TestTargets(t *testing.T) {
	for _, tc := range []struct {
		name string
		m    *measurement
		want []string
	}{
		{"slow", synthetic(300*time.Microsecond, 800), []string{"MISSED", "MISSED", "MISSED", "MISSED", "MISSED", "MISSED", "MISSED"}},
		{"fast", synthetic(100*time.Microsecond, 1200), []string{"met", "met", "met", "met", "MISSED", "met", "met"}},
		{"between", synthetic(150*time.Microsecond, 1100), []string{"met", "MISSED", "met", "MISSED", "MISSED", "met", "met"}},
	} {
		if diff := cmp.Diff(tc.want, verdicts(tc.m.targetTable())); diff != "" {
			t.Errorf("%s: %s", tc.name, diff)
		}
	}
	m := synthetic(100*time.Microsecond, 1200)
	m.redisMissing = "It is not there."
	delete(m.single, redisAlways)
	for k := range m.loaded {
		if k.variant != proa {
			delete(m.loaded, k)
		}
	}
	m.idleOpened, m.crowded = 0, nil
	if diff := cmp.Diff([]string{"met", "–", "–", "–", "–", "–", "–"}, verdicts(m.targetTable())); diff != "" {
		t.Errorf("nothing to compare with: %s", diff)
	}
	page := (&report{m: m, tables: []table{m.targetTable(), m.singleTable(), m.loadTable(), m.crowdTable()}}).markdown()
	for _, want := range []string{"Redis was not measured. It is not there.", "| PUT, 64 × 1 | Proa | 1,200 |", "Proa refused 10.00 % of the requests of PING, 64 × 1"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q: %s", want, page)
		}
	}
	if strings.Contains(page, "| Redis") {
		t.Errorf("the page has figures of Redis: %s", page)
	}
}

func TestPage(t *testing.T) {
	first, err := page("", pageBegin+"\none\n"+pageEnd+"\n")
	if err != nil || !strings.HasPrefix(first, "# Performance\n") || !strings.HasSuffix(first, "\none\n"+pageEnd+"\n") {
		t.Fatalf("%q, %v", first, err)
	}
	first = "before\n" + first + "after\n"
	second, err := page(first, pageBegin+"\ntwo\n"+pageEnd+"\n")
	if err != nil || second != strings.Replace(first, "one", "two", 1) {
		t.Errorf("%q, %v", second, err)
	}
	for _, old := range []string{pageBegin, pageEnd, pageEnd + pageBegin} {
		if _, err := page(old, "new"); err == nil {
			t.Errorf("%q was accepted", old)
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
	d := describe("", "", t.TempDir())
	if d.kernel == unknown || d.memory == 0 || d.fileSystem == unknown || d.cores == 0 || d.redis != "" {
		t.Errorf("this machine: %+v", d)
	}
}

func TestPlainEnvironment(t *testing.T) {
	got := plainEnvironment([]string{"PATH=/bin", "PROA_LISTEN_CLIENT=:1", "GOGC=1", "GOMAXPROCS=1", "HOME=/"})
	if diff := cmp.Diff([]string{"PATH=/bin", "HOME=/"}, got); diff != "" {
		t.Error(diff)
	}
}
