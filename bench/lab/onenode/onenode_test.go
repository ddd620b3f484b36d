//go:build linux

package onenode

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/proa-kv/proa/bench"
	"github.com/proa-kv/proa/bench/report"
	"github.com/proa-kv/proa/bench/rig"
)

// The test program is the server of a floor where the program would be one.
func TestMain(m *testing.M) {
	if served, err := rig.ServeFloor(os.Args[1:]); served {
		if err != nil {
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
	out, err := exec.Command("go", "build", "-o", path, "../../../cmd/proa").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return path
}

// The smoke run goes through everything there is, against real servers, and
// leaves nothing behind.
func TestQuick(t *testing.T) {
	dir, file := t.TempDir(), filepath.Join(t.TempDir(), "performance.md")
	o, err := parseFlags([]string{"-quick", "-proa", buildProa(t), "-dir", dir, "-write", file, "-html", file + ".html", "-limit", "10m"}, io.Discard)
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
		"# Performance", "<!-- bench: begin", "## Targets", "fdatasync + loopback echo", "Proa, fsynced PUT", "| GET, 64 × 1 | Proa |", "| PUT, 64 × 16 | Proa |",
		"| floor: loopback echo, 1 × 1 |", "| floor of GET: the same bytes", "| fsynced PUT, 16 × 1 |", "## 200 connections, most of them idle", "| GET, 64 × 1 | 200 |", "| PUT, 100 × 1 | 100 |", "smoke run", "**Machine:**", "**Versions:** proa ", "**Date:**", "make bench", "## How it was measured", "<!-- bench: end -->",
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
	if n := strings.Count(string(text), report.NotMeasured); missing == nil && n > 0 {
		t.Errorf("%d targets were not measured", n)
	}
	if !strings.Contains(out.String(), "fsynced PUT, 1 × 1") {
		t.Errorf("printed: %s", out.String())
	}
	charts := []string{
		"fsynced PUT, 1 × 1", "PING, 64 × 1", "GET, 64 × 1", "fsynced PUT, 64 × 1", "PING, 64 × 16", "GET, 64 × 16", "fsynced PUT, 64 × 16",
		"Open loop at half of the highest rate", "A crowd of connections", "Values of 256 KiB",
	}
	checkCharts(t, file+".html", charts)
	checkNothingLeft(t, dir)
}

// checkCharts checks that a page has just these charts.
func checkCharts(t *testing.T, path string, charts []string) {
	t.Helper()
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range charts {
		if !strings.Contains(string(page), "<h2>"+c+": latency by percentile</h2>") {
			t.Errorf("%s lacks the chart %q", path, c)
		}
	}
	if n := strings.Count(string(page), "<figure"); n != len(charts) {
		t.Errorf("%s has %d charts, want %d", path, n, len(charts))
	}
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

// With -tls all servers are asked over TLS.
func TestQuickTLS(t *testing.T) {
	dir := t.TempDir()
	o, err := parseFlags([]string{"-quick", "-tls", "-proa", buildProa(t), "-dir", dir}, io.Discard)
	if err != nil || !strings.HasSuffix(o.command(), " -tls") {
		t.Fatal(o.command(), err)
	}
	done := errors.New("done")
	err = o.Run(t.Context(), io.Discard, io.Discard, func(ctx context.Context, lab *rig.Lab) (*rig.Outcome, error) {
		m, err := newMeasurement(o, lab)
		if err == nil {
			err = m.startAll(ctx)
		}
		if err == nil {
			err = m.loadRound(ctx)
		}
		for v, p := range m.servers {
			target := p.Target
			if target.TLS = new(tls.Config); p.Target.TLS == nil {
				t.Errorf("%s is asked without TLS", v)
			}
			var untrusted x509.UnknownAuthorityError
			if _, err := bench.OpenIdle(ctx, target, 1); !errors.As(err, &untrusted) {
				t.Errorf("%s, which nobody trusts: %v", v, err)
			}
		}
		if len(m.loaded[key{load{bench.Get, deep}, proa}]) != 1 || m.redisMissing == "" && len(m.loaded[key{load{bench.Put, 1}, redisAlways}]) != 1 {
			t.Errorf("measured: %v", m.loaded)
		}
		return nil, errors.Join(err, done)
	})
	if !errors.Is(err, done) || err.Error() != done.Error() {
		t.Error(err)
	}
	checkNothingLeft(t, dir)
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
	for _, args := range [][]string{{"-rounds", "0"}, {"-step", "0s"}, {"-keys", "0"}, {"-idle", "-1"}, {"-connections", "0"}, {"-crowd", "64"}, {"argument"}, {"-nonsense"},
		{"-limit", "-1s"}, {"-ycsb-data", "0"}, {"-ycsb-data", "16777217"}, {"-ycsb-cache", "7"}, {"-ycsb-cache", "16777217"}, {"-ycsb-step", "0s"},
		{"-tls", "-ycsb"}, {"-tls", "-write", "page.md"}} {
		if _, err := parseFlags(args, io.Discard); err == nil {
			t.Errorf("%q were accepted", args)
		}
	}
	o, err := parseFlags(nil, io.Discard)
	if want := "lab onenode -rounds 5 -step 1.5s -keys 1000000 -value 128 -connections 64 -idle 10000 -crowd 500"; err != nil || o.command() != want || o.Limit != 30*time.Minute {
		t.Errorf("%v within %v, %v", o.command(), o.Limit, err)
	}
	o, err = parseFlags([]string{"-ycsb", "-ycsb-cache", "8"}, io.Discard)
	if want := "lab onenode -ycsb -rounds 5 -ycsb-step 20s -ycsb-data 10240 -ycsb-cache 8 -connections 64"; err != nil || o.command() != want || o.Limit != 3*time.Hour {
		t.Errorf("%v within %v, %v", o.command(), o.Limit, err)
	}
	// 1000 bytes each.
	if got := o.ycsbKeys(); got != 10_737_418 {
		t.Errorf("%d rows make up 10 GiB", got)
	}
}

func TestNoProa(t *testing.T) {
	o, _ := parseFlags([]string{"-proa", filepath.Join(t.TempDir(), "none")}, io.Discard)
	if err := run(t.Context(), o, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), "make build") {
		t.Error(err)
	}
}

func TestIdleMemory(t *testing.T) {
	if got := idleMemory([3]int64{100, 120, 200}, 5); got != 200 {
		t.Errorf("a second half of 2 that took 80 makes %d for 5", got)
	}
	if got := idleMemory([3]int64{100, 180, 200}, 4); got != 100 {
		t.Errorf("a second half that took less makes %d", got)
	}
}

// synthetic returns a measurement with figures that were made up: Proa's p50
// and rate as given, everybody else's 100 µs and 1000/s.
func synthetic(p50, rate float64) *measurement {
	other := rig.Sample{Rate: 1000, P50: 100e3, P99: 200e3, P999: 300e3, Server: 7e3, Ops: 10}
	own := other
	own.P50, own.Rate, own.Busy = p50, rate, 1
	m := &measurement{
		Lab:     new(rig.Lab),
		options: options{busy: 64, crowd: 500, keys: 100_000, value: 128, Options: rig.Options{Rounds: 1, Step: time.Second}},
		sync:    rig.Series{other}, loop: rig.Series{other},
		single: map[variant]rig.Series{proa: {own}, redisAlways: {other}},
		loaded: map[key]rig.Series{}, crowded: map[crowd]rig.Series{},
		idleOpened: 10_000, idleBytes: 10_000 * 5000,
	}
	for _, l := range loads {
		m.loaded[key{l, proa}], m.loaded[key{l, redisFor(l.op)}] = rig.Series{own}, rig.Series{other}
	}
	m.large = largeValues{write: []float64{1000 * largeBytes}, loopback: rig.Series{other}, proa: map[bench.Op]rig.Series{bench.Get: {own}, bench.Put: {own}}}
	m.open = newOpenLoop()
	m.open.sync, m.open.loop = rig.Series{other}, rig.Series{other}
	for op := range workloads {
		half := own
		half.Planned, half.P99, half.P999 = rate/2, p50, 2*p50
		m.open.half[op], m.open.highest[op] = rig.Series{half}, rig.Series{own}
	}
	for _, op := range []bench.Op{bench.Get, bench.Put} {
		for busy, idle := range map[int]int{64: 10_000, 500: 9_500} {
			m.crowded[crowd{op, busy, idle}], m.crowded[crowd{op, busy, 0}] = rig.Series{own}, rig.Series{other}
		}
	}
	return m
}

func verdicts(t report.Table) (v []string) {
	for _, row := range t.Rows {
		v = append(v, row[len(row)-1])
	}
	return v
}

// held finds the one target whose name contains what.
func held(t *testing.T, table report.Table, what string) (target, verdict string) {
	t.Helper()
	for _, row := range table.Rows {
		if !strings.Contains(row[0], what) {
			continue
		}
		if target != "" {
			t.Fatalf("two targets are called %q", what)
		}
		target, verdict = row[1], row[3]
	}
	if target == "" {
		t.Fatalf("no target is called %q: %v", what, table.Rows)
	}
	return target, verdict
}

// edge is a target and what changes a measurement so that its figure is v
// times that of what it is held against.
type edge struct {
	what, target string
	bound        float64
	atMost       bool
	set          func(m *measurement, v float64)
}

func millisecond(v float64) float64 { return v * 1e6 }

// Each target is held against the right figure: met at the bound, missed just
// past it.
func TestTargets(t *testing.T) {
	rate := func(l load) func(*measurement, float64) {
		return func(m *measurement, v float64) { m.loaded[key{l, proa}][0].Rate = v * 1000 }
	}
	cpu := func(l load) func(*measurement, float64) {
		return func(m *measurement, v float64) {
			m.loaded[key{l, proa}][0].Server = v * 7e3
		}
	}
	single := func(base float64) func(*measurement, float64) {
		return func(m *measurement, v float64) {
			m.single[proa][0].P50 = v * base
		}
	}
	crowdRate := func(op bench.Op, busy, idle int) func(*measurement, float64) {
		return func(m *measurement, v float64) { m.crowded[crowd{op, busy, idle}][0].Rate = v * 1000 }
	}
	large := func(op bench.Op) func(*measurement, float64) {
		return func(m *measurement, v float64) { m.large.proa[op][0] = rig.Sample{Rate: v * 1000, Ops: 10} }
	}
	for _, e := range []edge{
		{"median latency / (fdatasync", "≤ 1.2", 1.2, true, single(200e3)},
		{"median latency / Redis", "≤ 1.1", 1.1, true, single(100e3)},
		{"GET, 64 × 1: rate / Redis", "≥ 1", 1, false, rate(load{bench.Get, 1})},
		{"GET, 64 × 1: server CPU/op / Redis", "≤ 1", 1, true, cpu(load{bench.Get, 1})},
		{"GET, 64 × 16: rate / Redis", "≥ 0.8", 0.8, false, rate(load{bench.Get, 16})},
		{"PUT, 64 × 1: rate / Redis, appendfsync always", "≥ 1.4", 1.4, false, rate(load{bench.Put, 1})},
		{"PUT, 64 × 1: server CPU/op / Redis, appendfsync always", "≤ 0.9", 0.9, true, cpu(load{bench.Put, 1})},
		{"PUT, 64 × 16: rate / Redis, appendfsync always", "≥ 1.5", 1.5, false, rate(load{bench.Put, 16})},
		{"GET at half of its highest rate, open loop: p99, ms", "≤ 0.5", 0.5, true, func(m *measurement, v float64) { m.open.half[bench.Get][0].P99 = millisecond(v) }},
		{"GET at half of its highest rate, open loop: p99.9, ms", "≤ 2", 2, true, func(m *measurement, v float64) { m.open.half[bench.Get][0].P999 = millisecond(v) }},
		{"PUT at half of its highest rate, open loop: p99, ms", "≤ 2", 2, true, func(m *measurement, v float64) { m.open.half[bench.Put][0].P99 = millisecond(v) }},
		{"GET, 64 × 1: rate with / without 10000 idle", "≥ 0.9", 0.9, false, crowdRate(bench.Get, 64, 10_000)},
		{"PUT, 64 × 1: rate with / without 10000 idle", "≥ 0.9", 0.9, false, crowdRate(bench.Put, 64, 10_000)},
		{"GET: rate of 10000 connections of which 500 are busy / of 500", "≥ 0.9", 0.9, false, crowdRate(bench.Get, 500, 9_500)},
		{"PUT: rate of 10000 connections of which 500 are busy / of 500", "≥ 0.9", 0.9, false, crowdRate(bench.Put, 500, 9_500)},
		{"PUT of 256 KiB: bytes/s / the disk's", "≥ 0.4", 0.4, false, large(bench.Put)},
		{"GET of 256 KiB: bytes/s / loopback", "≥ 0.6", 0.6, false, large(bench.Get)},
		{"memory for each of 10000 idle", "≤ 4096", 4096, true, func(m *measurement, v float64) { m.idleBytes = int64(v * 10_000) }},
	} {
		worse := 0.999
		if e.atMost {
			worse = 1.001
		}
		for factor, want := range map[float64]string{1: "met", worse: "MISSED"} {
			m := synthetic(100e3, 1000)
			e.set(m, e.bound*factor)
			if target, verdict := held(t, m.targetTable(), e.what); target != e.target || verdict != want {
				t.Errorf("%s: %v times the bound %s is %s, want %s %s", e.what, factor, target, verdict, e.target, want)
			}
		}
	}
}

// What was not measured is said not to be.
func TestNothingToCompareWith(t *testing.T) {
	m := synthetic(100e3, 1200)
	m.redisMissing = "It is not there."
	delete(m.single, redisAlways)
	for k := range m.loaded {
		if k.variant != proa {
			delete(m.loaded, k)
		}
	}
	m.idleOpened, m.crowded, m.open, m.large = 0, nil, newOpenLoop(), largeValues{}
	want := []string{"met"}
	for range len(m.targetTable().Rows) - 1 {
		want = append(want, "–")
	}
	if diff := cmp.Diff(want, verdicts(m.targetTable())); diff != "" {
		t.Errorf("nothing to compare with: %s", diff)
	}
	page := m.outcome().Markdown
	for _, want := range []string{"Redis was not measured. It is not there.", "| PUT, 64 × 1 | Proa | 1,200 |", "Proa refused 10.00 % of the requests of PING, 64 × 1"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q: %s", want, page)
		}
	}
	if strings.Contains(page, "| Redis") {
		t.Errorf("the page has figures of Redis: %s", page)
	}
}

// A figure of a run in which operations failed is refused, but not for those
// that the server was too busy for.
func TestCheckedLoad(t *testing.T) {
	result := func() *bench.LoadResult {
		r := &bench.LoadResult{Elapsed: time.Second, Errors: map[string]uint64{}, Rate: 50}
		r.All.Ops = 100
		r.All.Latency = bench.NewLatencies()
		return r
	}
	r := result()
	r.Errors["BUSY"], r.Unsent, r.LateMax = 25, 7, time.Millisecond
	s, err := checkedLoad("get", r)
	if err != nil || s.Ops != 125 || s.Busy != 25 || s.Rate != 100 || s.Planned != 50 || s.Unsent != 7 || s.Late != 1e6 {
		t.Errorf("%+v, %v", s, err)
	}
	for name, spoil := range map[string]func(*bench.LoadResult){
		"1 failed":   func(r *bench.LoadResult) { r.Errors["CONNECTION_LOST"]++ },
		"1 found no": func(r *bench.LoadResult) { r.All.NotFound++ },
		"not one":    func(r *bench.LoadResult) { r.All.Ops = 0 },
	} {
		r := result()
		spoil(r)
		if _, err := checkedLoad("get", r); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The notes of an open loop say what is not as planned.
func TestOpenNotes(t *testing.T) {
	if notes := openNotes(bench.Get, rig.Series{{Ops: 10}}); len(notes) > 0 {
		t.Error(notes)
	}
	notes := strings.Join(openNotes(bench.Put, rig.Series{{Ops: 10, Unsent: 1000}, {Ops: 10, Busy: 5, Unsent: 234}}), "\n")
	for _, want := range []string{"PUT was not reached: 1,234 operations", "refused 25.00 % of the PUTs"} {
		if !strings.Contains(notes, want) {
			t.Errorf("%q lacks %q", notes, want)
		}
	}
}

// A crowd that is no larger than its busy part is not measured, and no line of
// it is shown.
func TestCrowdPossible(t *testing.T) {
	for idle, want := range map[int]int{499: 2, 500: 2, 501: 4} {
		m := synthetic(100e3, 1000)
		m.idleOpened = idle
		if got := len(m.crowdLines()); got != want {
			t.Errorf("%d lines of a crowd of %d", got, idle)
		}
	}
}

// Refused requests have carried no bytes.
func TestLargeRate(t *testing.T) {
	if got := largeRate.Of(rig.Sample{Rate: 100, Ops: 10, Busy: 4}); got != 60*largeBytes {
		t.Errorf("%v bytes per second of 60 values", got)
	}
}
