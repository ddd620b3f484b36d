//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"slices"
	"strconv"
	"time"

	"github.com/proa-kv/proa/bench"
	"github.com/proa-kv/proa/bench/report"
	"github.com/proa-kv/proa/bench/rig"
)

// Proa also speaks Redis's protocol. That listener is measured with the generator
// that comes with Redis, which Proa's authors did not write: the same command
// line for Proa and for Redis, in turns.

// proaRESP is one node of Proa, called through Redis's protocol.
type proaRESP struct{ proa }

// kind has the node speak Redis's protocol at the address for clients.
func (p proaRESP) kind(program string) rig.Kind {
	return rig.Kind{Name: "proa-resp", Command: func(_ *rig.Cluster, n *rig.Node) []string {
		return append([]string{
			program, "serve", "--data", n.Data, "--listen", n.Peer, "--peer-listen", "off", "--resp-listen", n.Client,
			"--admin-listen", "off", "--log-level", "warn",
		}, p.settings()...)
	}}
}

func (proaRESP) supports(nodes int) bool { return nodes == 1 }

// connect uses the client library of Redis's users.
func (proaRESP) connect(ctx context.Context, addresses []string, connections int) (rig.Driver, error) {
	return redis{}.connect(ctx, addresses, connections)
}

// meaning says what an answer vouches for: as much as one to Proa's own client.
func (proaRESP) meaning(op bench.Op, nodes int) meaning { return proa{}.meaning(op, nodes) }

// respPeers are compared in respRows, the first with the second.
var respPeers = []peer{proaRESP{}, redis{}}

// respRow is one load that redis-benchmark makes.
type respRow struct {
	op       bench.Op
	pipeline int     // commands in flight on each connection
	target   float64 // least ratio of Proa's rate to Redis's
}

var respRows = []respRow{
	{bench.Get, 1, 1}, {bench.Get, 16, 0.8}, {bench.Put, 1, 1}, {bench.Put, 16, 1}, {bench.Ping, 16, 0.85},
}

const respConnections = 64

// test returns the name that redis-benchmark has for a load.
func (r respRow) test() string {
	switch r.op {
	case bench.Get:
		return "get"
	case bench.Put:
		return "set"
	}
	return "ping_mbulk"
}

// command returns the name of what Redis does.
func (r respRow) command() string {
	if r.op == bench.Put {
		return "SET"
	}
	return r.op.String()
}

// String returns, for example, "SET, redis-benchmark -c 64 -P 16".
func (r respRow) String() string {
	return fmt.Sprintf("%s, redis-benchmark -c %d -P %d", r.command(), respConnections, r.pipeline)
}

// wantsRESP reports whether p has to run for the rows of redis-benchmark.
func (c *comparison) wantsRESP(p peer) bool {
	return slices.ContainsFunc(respPeers, func(d peer) bool { return d.name() == p.name() }) &&
		slices.ContainsFunc(respRows, func(r respRow) bool { return c.wanted(r, p) })
}

// Bounds of one run of redis-benchmark.
const (
	// respKeysMax is the most that its names, of twelve digits, and its
	// counters have room for.
	respKeysMax     = 1_000_000_000
	respRequestsMin = 1_000
	respRequestsMax = 20_000_000
	respTimeout     = 2 * time.Minute
)

// benchmarkProgram finds redis-benchmark.
func (c *comparison) benchmarkProgram() (string, error) {
	if c.redisBenchmark == "" {
		return "", fmt.Errorf("redis-benchmark is %w: it was left out on request", errMissing)
	}
	path, err := exec.LookPath(c.redisBenchmark)
	if err != nil {
		return "", fmt.Errorf("redis-benchmark is %w; on Debian and Ubuntu: apt-get install redis-tools", errMissing)
	}
	return path, nil
}

// compareRESP compares Proa's Redis listener with Redis in all rounds.
func (c *comparison) compareRESP(ctx context.Context) error {
	if !c.wantsRESP(proaRESP{}) && !c.wantsRESP(redis{}) {
		return nil
	}
	program, err := c.benchmarkProgram()
	if err != nil {
		c.Note("Nothing was measured with redis-benchmark: %v.", err)
		c.Progress("%v", err)
		return nil
	}
	var wanted []*server
	for _, p := range respPeers {
		for _, s := range c.servers {
			if s.name() == p.name() && s.absent == "" && c.wantsRESP(p) {
				wanted = append(wanted, &server{peer: p, path: s.path})
			}
		}
	}
	return c.compareOn(ctx, "redis-benchmark", wanted, 1, rig.Callers{Keys: c.respKeys, Key: respKey}, func(clusters []*cluster) error {
		for _, r := range respRows {
			if err := c.measureEach(ctx, r, clusters, func(cl *cluster) (rig.Sample, error) { return c.measureRESP(ctx, program, r, cl, clusters) }); err != nil {
				return err
			}
		}
		return nil
	})
}

// respKey appends the name that redis-benchmark has for a key.
func respKey(dst []byte, n uint64) []byte { return fmt.Appendf(dst, "key:%012d", n) }

// measureRESP makes a load twice: the first time a short one, which warms up and
// says how many requests the second has to make.
func (c *comparison) measureRESP(ctx context.Context, program string, r respRow, cl *cluster, all []*cluster) (rig.Sample, error) {
	if err := rest(ctx, all); err != nil {
		return rig.Sample{}, err
	}
	const first = 50 // requests in flight one after the other
	warm, err := c.benchmark(ctx, program, r, cl, max(respRequestsMin, first*respConnections*r.pipeline))
	if err != nil {
		return rig.Sample{}, err
	}
	requests := min(max(respRequestsMin, warm.Rate*c.Step.Seconds()), respRequestsMax)
	return c.benchmark(ctx, program, r, cl, int(requests))
}

// benchmark runs redis-benchmark once.
func (c *comparison) benchmark(ctx context.Context, program string, r respRow, cl *cluster, requests int) (rig.Sample, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, respTimeout, fmt.Errorf("redis-benchmark did not end within %v", respTimeout))
	defer cancel()
	host, port, err := net.SplitHostPort(cl.Nodes[0].Client)
	if err != nil {
		return rig.Sample{}, err
	}
	cmd := exec.CommandContext(ctx, program, "-h", host, "-p", port, "-t", r.test(), "-c", strconv.Itoa(respConnections),
		"-P", strconv.Itoa(r.pipeline), "-d", strconv.Itoa(c.value), "-r", strconv.FormatUint(c.respKeys, 10), "-n", strconv.Itoa(requests), "--csv")
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	before, err := cl.CPU()
	if err != nil {
		return rig.Sample{}, err
	}
	out, err := cmd.Output()
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	if err != nil {
		return rig.Sample{}, fmt.Errorf("redis-benchmark: %w: %s", err, bytes.TrimSpace(complaints.Bytes()))
	}
	after, err := cl.CPU()
	if err != nil {
		return rig.Sample{}, err
	}
	s, err := parseBenchmark(bytes.NewReader(out))
	if err != nil {
		return rig.Sample{}, fmt.Errorf("redis-benchmark: %w: %q %q", err, out, complaints.Bytes())
	}
	generator := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	s.Ops = uint64(requests)
	s.Server = float64(after-before) / float64(requests)
	s.Generator = float64(generator) / float64(requests)
	return s, nil
}

// parseBenchmark reads what redis-benchmark --csv prints for one test. There is
// no p99.9.
func parseBenchmark(in io.Reader) (rig.Sample, error) {
	lines, err := csv.NewReader(in).ReadAll()
	if err != nil {
		return rig.Sample{}, err
	}
	if len(lines) != 2 {
		return rig.Sample{}, fmt.Errorf("%d lines of CSV, not a header and one test", len(lines))
	}
	figures := map[string]float64{}
	for i, name := range lines[0] {
		if name == "test" {
			continue
		}
		if figures[name], err = strconv.ParseFloat(lines[1][i], 64); err != nil {
			return rig.Sample{}, err
		}
	}
	for _, name := range []string{"rps", "p50_latency_ms", "p99_latency_ms", "max_latency_ms"} {
		if _, ok := figures[name]; !ok {
			return rig.Sample{}, fmt.Errorf("there is no column %s", name)
		}
	}
	if figures["rps"] <= 0 {
		return rig.Sample{}, errors.New("no request was answered")
	}
	const millisecond = float64(time.Millisecond)
	return rig.Sample{
		Rate: figures["rps"], P50: figures["p50_latency_ms"] * millisecond, P99: figures["p99_latency_ms"] * millisecond,
		Slowest: figures["max_latency_ms"] * millisecond,
	}, nil
}

// ratioRESP compares Proa with Redis in a row.
func (c *comparison) ratioRESP(r respRow, of rig.Figure) report.Ratio {
	return c.against(r, respPeers[0].name(), respPeers[1].name(), of)
}

// respTables are the targets and the figures, nil if nothing was measured.
func (c *comparison) respTables() []report.Table {
	targets := report.Table{Title: "Targets beside Redis, by redis-benchmark", Header: []string{"what", "target", "measured", "verdict"}}
	figures := report.Table{
		Title: "redis-benchmark",
		Header: []string{
			"load", "server", "rate, /s", "Proa's rate / Redis's", "p50, µs", "p99, µs", "server CPU, µs/op", "Proa's / Redis's",
			"generator CPU, µs/op", "an answer means",
		},
		Notes: []string{fmt.Sprintf("`redis-benchmark -c %d -d %d -r %d`, the same for both, in turns; every key is there before. Redis runs with `--appendonly yes --appendfsync always`.", respConnections, c.value, c.respKeys)},
	}
	for _, r := range respRows {
		for _, p := range respPeers {
			s := c.cells[cell{r, p.name()}]
			if len(s) == 0 {
				continue
			}
			rate, cpu := "", ""
			if ratio := c.ratioRESP(r, rig.Rate); p == respPeers[0] && ratio != (report.Ratio{}) {
				rate, cpu = ratio.String(), c.ratioRESP(r, rig.ServerCPU).String()
			}
			figures.Add(s.Cells(fmt.Sprintf("%s -P %d", r.command(), r.pipeline), p.name(), rig.Rate, rate, rig.P50, rig.P99, rig.ServerCPU, cpu, rig.GeneratorCPU, respMeaning(p, r.op))...)
		}
		targets.AddTarget(r.String()+": rate / Redis", report.AtLeast(r.target), c.ratioRESP(r, rig.Rate))
	}
	if len(figures.Rows) == 0 {
		return nil
	}
	return []report.Table{targets, figures}
}

// respMeaning says what an answer vouches for, in a table.
func respMeaning(p peer, op bench.Op) string {
	if op == bench.Ping {
		return "that the server is there"
	}
	return p.meaning(op, 1).String()
}

// documentRESP is one row of redis-benchmark in JSON.
type documentRESP struct {
	Command  string           `json:"command"`
	Pipeline int              `json:"pipeline"`
	Server   string           `json:"server"`
	Rate     *report.Ratio    `json:"rate_to_redis,omitempty"`
	CPU      *report.Ratio    `json:"server_cpu_to_redis,omitempty"`
	Rounds   []documentSample `json:"rounds"`
}

func (c *comparison) documentRESPs() (all []documentRESP) {
	for _, r := range respRows {
		for _, p := range respPeers {
			s := c.cells[cell{r, p.name()}]
			if len(s) == 0 {
				continue
			}
			d := documentRESP{Command: r.command(), Pipeline: r.pipeline, Server: p.name(), Rounds: documentSamples(s)}
			if rate, cpu := c.ratioRESP(r, rig.Rate), c.ratioRESP(r, rig.ServerCPU); p == respPeers[0] && rate != (report.Ratio{}) {
				d.Rate, d.CPU = &rate, &cpu
			}
			all = append(all, d)
		}
	}
	return all
}

var _ peer = proaRESP{}
