package main

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/proa-kv/proa/bench"
	"github.com/proa-kv/proa/bench/report"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/internal/render"
)

// Mistakes are told before any server is asked.
func TestBenchUsage(t *testing.T) {
	for line, want := range map[string]string{
		"-t nonsense":                      "ycsb-f",
		"-c 0":                             "at least 1",
		"-c 65537":                         "at most 65536",
		"-P 0":                             "at least 1",
		"-P 4097":                          "4096",
		"-k 0":                             "at least 1",
		"-k 500000000001":                  "at most 500000000000",
		"-n 0":                             "at least one operation",
		"-n -1":                            "not a whole number",
		"-d x":                             "16..1024",
		"-d 1048577":                       "at most 1048576",
		"-d 50%:1,60%:2":                   "110%",
		"--key-size 15":                    "16 to 8192",
		"--key-size 23 -t ycsb-a":          "24 to 8192",
		"--threads 0":                      "at least one",
		"--threads 5 -c 4":                 "no more than connections",
		"--rate 0":                         "operations per second",
		"--rate 10q":                       "20k",
		"--rate 101M":                      "100M",
		"--rate 1k --rate-sweep":           "leave --rate out",
		"--poisson":                        "--rate",
		"--duration 0s":                    "above 0",
		"--duration -1s":                   "above 0",
		"--warmup -1s":                     "positive",
		"--distribution gauss":             "zipfian",
		"--reads 101 -t mixed":             "from 0 to 100",
		"--reads 50 -t get":                "mixed only",
		"--scan-rows 0 -t scan":            "1 to 10000",
		"--batch-rows 0 -t batch":          "1 to 1000",
		"--batch-rows 100 -d 1MB -t batch": "neither a size",
		"-t batch -d 1048576":              "does not fit",
		"-t incr --verify --no-preload":    "--no-preload",
		"-o raw":                           "table, json, jsonl or csv",
		"--consistency eventual":           "linearizable, session or stale",
		"extra":                            "unknown command",
	} {
		var out, errs bytes.Buffer
		a := &app{Output: render.Output{Out: &out, Err: &errs}}
		status := a.run(t.Context(), append([]string{"bench", "-e", "127.0.0.1:1"}, strings.Fields(line)...))
		if status != exitUsage || !strings.Contains(errs.String(), want) || out.Len() > 0 {
			t.Errorf("%s: status %d, %q", line, status, errs.String())
		}
	}
	var errs bytes.Buffer
	if status := (&app{Output: render.Output{Out: &errs, Err: &errs}}).run(t.Context(), []string{"-o", "csv", "-e", "127.0.0.1:1", "get", "k"}); status != exitUsage {
		t.Errorf("another command takes csv: %d", status)
	}
}

// TestBenchFits checks that no line of a report passes the terminal's edge.
func TestBenchFits(t *testing.T) {
	latency := report.Latency{Mean: 88_800, P50: 88_800, P90: 88_800, P99: 88_800, P999: 88_800, P9999: 88_800, Max: 88_800}
	run := report.Run{
		Rate: 100_000, Ops: 1_000_000, Seconds: 10, Latency: latency, ServerPerOp: 83.2, Fsyncs: 562, FsyncMean: 1150,
		Kinds: []report.Kind{{Name: "update", Ops: 1_000_000, Latency: latency}},
	}
	out := &report.Load{
		Workload: "put", About: "overwrite rows", Keys: 500, Threads: 1, Arrivals: "open loop with constant intervals", Consistency: "linearizable",
		Durability: durabilityOf(cluster()), Runs: []report.Run{run, run},
	}
	var b strings.Builder
	if err := printBench(&b, out, render.Look{Columns: 80}); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(b.String()) {
		if n := utf8.RuneCountInString(line) - 1; n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
}

func TestParseRates(t *testing.T) {
	got, err := parseRates([]string{"1", "20k", " 1.5M", "0.5", "100m", "3K"})
	if diff := cmp.Diff([]float64{1, 20_000, 1.5e6, 0.5, 100e6, 3000}, got); err != nil || diff != "" {
		t.Error(err, diff)
	}
}

func TestBenchAddresses(t *testing.T) {
	got := benchAddresses([]string{"a:1", "b", "unix:///run/s", "[::1]:5", "::1", "[::1]", " c "})
	if diff := cmp.Diff([]string{"a:1", "b:7400", "unix:///run/s", "[::1]:5", "[::1]:7400", "[::1]:7400", "c:7400"}, got); diff != "" {
		t.Error(diff)
	}
}

// A sweep measures the highest rate and then makes runs at shares of it; a run
// that fails is the last.
func TestEachRate(t *testing.T) {
	highest := &bench.LoadResult{Elapsed: time.Second}
	highest.All.Ops = 1000
	collect := func(f benchFlags, failAt int) (rates []float64, err error) {
		err = f.eachRate(t.Context(), func(rate float64) (*bench.LoadResult, error) {
			if rates = append(rates, rate); len(rates) == failAt {
				return nil, errors.New("lost")
			}
			return highest, nil
		})
		return rates, err
	}
	for name, tc := range map[string]struct {
		flags  benchFlags
		failAt int
		want   []float64
	}{
		"closed loop": {benchFlags{}, 0, []float64{0}},
		"rates":       {benchFlags{rates: []string{"5", "1k"}}, 0, []float64{5, 1000}},
		"sweep":       {benchFlags{sweep: true}, 0, []float64{0, 100, 250, 500, 700, 800, 900, 1000, 1100}},
		"failing":     {benchFlags{rates: []string{"5", "6", "7"}}, 2, []float64{5, 6}},
	} {
		got, err := collect(tc.flags, tc.failAt)
		if diff := cmp.Diff(tc.want, got); diff != "" || (err != nil) != (tc.failAt > 0) {
			t.Errorf("%s: %v, %s", name, err, diff)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	f := benchFlags{rates: []string{"1", "2", "3"}}
	if err := f.eachRate(ctx, func(float64) (*bench.LoadResult, error) {
		n++
		cancel()
		return highest, nil
	}); err != nil || n != 1 {
		t.Errorf("%d runs after the interruption, %v", n, err)
	}
}

// The live line is for terminals only.
func TestBenchLive(t *testing.T) {
	var errs bytes.Buffer
	a := &app{Output: render.Output{Err: &errs}}
	live := &benchLive{Line: a.Line()}
	live.begin(0)
	live.show(bench.Point{})
	live.End()
	if errs.Len() > 0 {
		t.Errorf("without a terminal: %q", errs.String())
	}
	live.OnTerminal = true
	live.begin(5000)
	live.show(bench.Point{At: 3 * time.Second, Step: time.Second, Ops: 4900, Errors: 2, P50: 90 * time.Microsecond, P99: time.Millisecond, Max: 20 * time.Millisecond})
	live.End()
	want := "\r5,000/s planned\x1b[K\r5,000/s planned    3 s  4,900/s  p50 90.0 µs  p99 1.00 ms  max 20.0 ms  2 errors\x1b[K\r\x1b[K"
	if diff := cmp.Diff(want, errs.String()); diff != "" {
		t.Error(diff)
	}
}

func TestDurability(t *testing.T) {
	s := cluster()
	if got := durabilityOf(s); !strings.Contains(got, "3 shards with") || !strings.Contains(got, "fsynced on a majority") {
		t.Errorf("got %q", got)
	}
	for i := range s.Shards {
		s.Shards[i].Replicas = s.Shards[i].Replicas[:1]
	}
	if got := durabilityOf(s); !strings.Contains(got, "one replica each") || !strings.Contains(got, "on that node only") {
		t.Errorf("got %q", got)
	}
	s.Shards[1].Replicas = nil
	if got := durabilityOf(s) + durabilityOf(&command.ClusterStatus{}); got != "" {
		t.Errorf("of nothing: %q", got)
	}
}
