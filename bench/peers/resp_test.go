//go:build linux

package main

import (
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/proa-kv/proa/bench/rig"
)

const benchmarkHeader = `"test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms","max_latency_ms"` + "\n"

func TestParseBenchmark(t *testing.T) {
	got, err := parseBenchmark(strings.NewReader(benchmarkHeader + `"GET","598802.44","1.441","0.296","1.335","2.487","3.767","4.439"` + "\n"))
	want := rig.Sample{Rate: 598802.44, P50: 1.335e6, P99: 3.767e6, Slowest: 4.439e6}
	if diff := cmp.Diff(want, got, cmpopts.EquateApprox(1e-12, 0)); err != nil || diff != "" {
		t.Error(err, diff)
	}
	for _, broken := range []string{
		"", benchmarkHeader, benchmarkHeader + `"GET","1"` + "\n", benchmarkHeader + `"GET","x","1","1","1","1","1","1"` + "\n",
		"\"test\",\"rps\"\n\"GET\",\"1\"\n", benchmarkHeader + `"GET","0.00","0","0","0","0","0","0"` + "\n",
		"ERROR: no server\n", benchmarkHeader + strings.Repeat(`"GET","1","1","1","1","1","1","1"`+"\n", 2),
	} {
		if s, err := parseBenchmark(strings.NewReader(broken)); err == nil {
			t.Errorf("%q is read as %+v", broken, s)
		}
	}
}

// Every key is there, by the name that redis-benchmark has for it.
func TestRESPKey(t *testing.T) {
	for n, want := range map[uint64]string{0: "key:000000000000", 2000: "key:000000002000", respKeysMax - 1: "key:000999999999"} {
		if got := string(respKey(nil, n)); got != want {
			t.Errorf("key %d is %s, want %s", n, got, want)
		}
	}
}

func TestRESPRows(t *testing.T) {
	var names []string
	for _, r := range respRows {
		names = append(names, cell{r, "Redis"}.String()+": "+r.test())
	}
	want := []string{
		"GET, redis-benchmark -c 64 -P 1, Redis: get", "GET, redis-benchmark -c 64 -P 16, Redis: get",
		"SET, redis-benchmark -c 64 -P 1, Redis: set", "SET, redis-benchmark -c 64 -P 16, Redis: set",
		"PING, redis-benchmark -c 64 -P 16, Redis: ping_mbulk",
	}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Error(diff)
	}
	n := &rig.Node{ID: 1, Client: "c:1", Peer: "p:1", Data: "/d/1"}
	const command = "server serve --data /d/1 --listen p:1 --peer-listen off --resp-listen c:1 --admin-listen off --log-level warn --set network.transport=auto --set raft.engine=etcd"
	if got := strings.Join((proaRESP{}).kind("server").Command(nil, n), " "); got != command {
		t.Errorf("%s, want %s", got, command)
	}
	for only, want := range map[string][2]bool{"": {true, true}, "SET, redis-benchmark.*Proa": {true, false}, "-P 16, Redis$": {false, true}, "nodes": {false, false}} {
		c, err := newComparison(options{only: only}, new(rig.Lab))
		if err != nil {
			t.Fatal(err)
		}
		if got := [2]bool{c.wantsRESP(proaRESP{}), c.wantsRESP(redis{})}; got != want {
			t.Errorf("%q wants %v, want %v", only, got, want)
		}
	}
}

// Each target is held against Redis in the same round, and the ratio of CPU
// times beside it.
func TestRESPTables(t *testing.T) {
	c := synthetic(100)
	if got := c.respTables(); got != nil {
		t.Errorf("tables of nothing: %v", got)
	}
	for _, r := range respRows {
		c.cells[cell{r, "Proa"}] = rig.Series{figures(r.target*1000, 100, 200), figures(r.target*500, 100, 200)}
		c.cells[cell{r, "Redis"}] = rig.Series{figures(1000, 100, 200), figures(500, 100, 200)}
	}
	verdicts := func() (v []string) {
		for _, row := range c.respTables()[0].Rows {
			v = append(v, row[len(row)-1])
		}
		return v
	}
	if diff := cmp.Diff([]string{"met", "met", "met", "met", "met"}, verdicts()); diff != "" {
		t.Error(diff)
	}
	for i, r := range respRows {
		s := c.cells[cell{r, "Proa"}]
		s[0].Rate, s[1].Rate = s[0].Rate-1, s[1].Rate-1
		if got := verdicts()[i]; got != "MISSED" {
			t.Errorf("%v just below its target: %s", r, got)
		}
	}
	want := []string{"GET -P 1", "Proa", "749", "0.998 (0.998–0.999)", "100", "200", "4.00", "1.000 (1.00–1.00)", "5.00", "linearizable: the only voter answers"}
	got := c.respTables()[1].Rows[0]
	got[3], want[3] = got[3][:5], want[3][:5]
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if d := c.documentRESPs(); len(d) != 10 || d[0].Rate == nil || d[1].Rate != nil || d[2].Pipeline != 16 || d[2].Command != "GET" {
		t.Errorf("%+v", d)
	}
}

func TestBenchmarkProgramMissing(t *testing.T) {
	for _, name := range []string{"", "/no/such/program"} {
		c := &comparison{options: options{redisBenchmark: name}}
		if _, err := c.benchmarkProgram(); !errors.Is(err, errMissing) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// The smoke run with redis-benchmark goes through real servers and leaves nothing behind.
func TestQuickRESP(t *testing.T) {
	o := quick(t, "-only", "redis-benchmark")
	for _, name := range []string{o.redisBenchmark, o.redis} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skip(err)
		}
	}
	o.JSON = filepath.Join(t.TempDir(), "figures.json")
	d, out := figuresOf(t, o)
	if len(d.RESP) != 2*len(respRows) || len(d.Rows) != 0 {
		t.Errorf("%d rows of redis-benchmark, %d others", len(d.RESP), len(d.Rows))
	}
	for _, r := range d.RESP {
		if s := r.Rounds[0]; len(r.Rounds) != 1 || s.Ops < respRequestsMin || s.Rate <= 0 || s.P50 <= 0 || s.P50 > s.P99 || s.ServerCPU <= 0 || s.ServerCPU > float64(time.Millisecond) || s.GeneratorCPU <= 0 {
			t.Errorf("%s -P %d, %s: %+v", r.Command, r.Pipeline, r.Server, r)
		}
	}
	if !strings.Contains(out.String(), "Targets beside Redis, by redis-benchmark") {
		t.Error(out.String())
	}
}
