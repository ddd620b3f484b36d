//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/proa-kv/proa/bench"
	"github.com/proa-kv/proa/bench/report"
	"github.com/proa-kv/proa/bench/rig"
)

// Proa also speaks Redis's protocol. That listener is measured with the generator
// that comes with Redis, which Proa's authors did not write: the same command
// line for Proa and for Redis, in turns.

// door is one node of Proa, called through Redis's protocol.
type door struct{ proa }

// kind has the node speak Redis's protocol at the address for clients.
func (door) kind(program string) rig.Kind {
	return rig.Kind{Name: "proa-resp", Command: func(_ *rig.Cluster, n *rig.Node) []string {
		return []string{
			program, "serve", "--data", n.Data, "--listen", n.Peer, "--peer-listen", "off", "--resp-listen", n.Client,
			"--admin-listen", "off", "--log-level", "warn",
		}
	}}
}

func (door) supports(nodes int) bool { return nodes == 1 }

// connect uses the client library of Redis's users.
func (door) connect(ctx context.Context, addresses []string, connections int) (rig.Driver, error) {
	return redis{}.connect(ctx, addresses, connections)
}

// meaning says what an answer vouches for: as much as one to Proa's own client.
func (door) meaning(op bench.Op, nodes int) meaning { return proa{}.meaning(op, nodes) }

// doorPeers are compared in doorRows, the first with the second.
var doorPeers = []peer{door{}, redis{}}

// doorRow is one load that redis-benchmark makes.
type doorRow struct {
	op       bench.Op
	pipeline int     // commands in flight on each connection
	target   float64 // least ratio of Proa's rate to Redis's
}

var doorRows = []doorRow{
	{bench.Get, 1, 1}, {bench.Get, 16, 0.8}, {bench.Put, 1, 1}, {bench.Put, 16, 1}, {bench.Ping, 16, 0.85},
}

const doorConnections = 64

// test returns the name that redis-benchmark has for a load.
func (r doorRow) test() string {
	switch r.op {
	case bench.Get:
		return "get"
	case bench.Put:
		return "set"
	}
	return "ping_mbulk"
}

// command returns the name of what Redis does.
func (r doorRow) command() string {
	if r.op == bench.Put {
		return "SET"
	}
	return r.op.String()
}

// String returns, for example, "SET, redis-benchmark -c 64 -P 16".
func (r doorRow) String() string {
	return fmt.Sprintf("%s, redis-benchmark -c %d -P %d", r.command(), doorConnections, r.pipeline)
}

// doorCell is a row with one server.
type doorCell struct {
	doorRow
	peer string
}

// String is what the flag -only is matched with.
func (c doorCell) String() string { return c.doorRow.String() + ", " + c.peer }

func (c *comparison) wantedAtDoor(r doorRow, p peer) bool {
	return c.match.MatchString(doorCell{r, p.name()}.String())
}

// wantsDoor reports whether p has to run for the rows of the door.
func (c *comparison) wantsDoor(p peer) bool {
	for _, d := range doorPeers {
		for _, r := range doorRows {
			if d.name() == p.name() && c.wantedAtDoor(r, d) {
				return true
			}
		}
	}
	return false
}

// Bounds of one run of redis-benchmark.
const (
	// doorKeysMax is the most that its names, of twelve digits, and its
	// counters have room for.
	doorKeysMax     = 1_000_000_000
	doorRequestsMin = 1_000
	doorRequestsMax = 20_000_000
	doorTimeout     = 2 * time.Minute
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

// compareDoor compares Proa's door with Redis in all rounds.
func (c *comparison) compareDoor(ctx context.Context) (err error) {
	if !c.wantsDoor(door{}) && !c.wantsDoor(redis{}) {
		return nil
	}
	program, err := c.benchmarkProgram()
	if err != nil {
		c.Note("Nothing was measured with redis-benchmark: %v.", err)
		c.Say("%v", err)
		return nil
	}
	clusters, err := c.startDoors(ctx)
	defer func() {
		for _, cl := range clusters {
			err = errors.Join(err, cl.Stop())
		}
	}()
	if err != nil {
		return err
	}
	for round := range c.Rounds {
		c.Say("redis-benchmark, round %d of %d", round+1, c.Rounds)
		if err := c.doorRound(ctx, program, clusters); err != nil {
			return err
		}
	}
	return nil
}

// startDoors starts and fills what is wanted. What does not start is left out.
func (c *comparison) startDoors(ctx context.Context) (clusters []*cluster, err error) {
	for _, p := range doorPeers {
		s := c.found(p)
		if s == nil || s.absent != "" || !c.wantsDoor(p) {
			continue
		}
		c.Say("%s for redis-benchmark: starting, %s keys of %d bytes each", p.name(), report.Thousands(float64(c.doorKeys)), c.value)
		cl, err := c.startCluster(ctx, p, s.path, 1)
		if err == nil {
			clusters = append(clusters, cl)
			err = c.fillDoor(ctx, cl)
		}
		switch {
		case ctx.Err() != nil:
			return clusters, context.Cause(ctx)
		case err != nil:
			c.fail(fmt.Errorf("%s, redis-benchmark: %w", p.name(), err))
		default:
			cl.usable = true
		}
	}
	return clusters, nil
}

// found returns the server of that name, nil if it was not looked for.
func (c *comparison) found(p peer) *server {
	for _, s := range c.servers {
		if s.name() == p.name() {
			return s
		}
	}
	return nil
}

// doorRound measures each row, server after server.
func (c *comparison) doorRound(ctx context.Context, program string, clusters []*cluster) error {
	for _, r := range doorRows {
		for _, cl := range clusters {
			if !cl.usable || !c.wantedAtDoor(r, cl.peer) {
				continue
			}
			s, err := c.measureDoor(ctx, program, r, cl, clusters)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			k := doorCell{r, cl.name()}
			if err != nil {
				// Rounds must stay in step, so it does not come back.
				cl.usable = false
				c.fail(fmt.Errorf("%v, from round %d on: %w", k, len(c.doors[k])+1, errors.Join(err, cl.Alive())))
				continue
			}
			c.doors[k] = append(c.doors[k], s)
		}
	}
	return nil
}

// measureDoor makes a load twice: the first time a short one, which warms up and
// says how many requests the second has to make.
func (c *comparison) measureDoor(ctx context.Context, program string, r doorRow, cl *cluster, all []*cluster) (rig.Sample, error) {
	if err := rest(ctx, all); err != nil {
		return rig.Sample{}, err
	}
	const first = 50 // requests in flight one after the other
	warm, err := c.benchmark(ctx, program, r, cl, max(doorRequestsMin, first*doorConnections*r.pipeline))
	if err != nil {
		return rig.Sample{}, err
	}
	requests := min(max(doorRequestsMin, warm.Rate*c.Step.Seconds()), doorRequestsMax)
	return c.benchmark(ctx, program, r, cl, int(requests))
}

// benchmark runs redis-benchmark once.
func (c *comparison) benchmark(ctx context.Context, program string, r doorRow, cl *cluster, requests int) (rig.Sample, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, doorTimeout, fmt.Errorf("redis-benchmark did not end within %v", doorTimeout))
	defer cancel()
	host, port, err := net.SplitHostPort(cl.Nodes[0].Client)
	if err != nil {
		return rig.Sample{}, err
	}
	cmd := exec.CommandContext(ctx, program, "-h", host, "-p", port, "-t", r.test(), "-c", strconv.Itoa(doorConnections),
		"-P", strconv.Itoa(r.pipeline), "-d", strconv.Itoa(c.value), "-r", strconv.FormatUint(c.doorKeys, 10), "-n", strconv.Itoa(requests), "--csv")
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

// parseBenchmark reads what redis-benchmark --csv prints for one test. It does
// not tell a p99.9.
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

// fillBatch is how many SET are sent at once while filling.
const fillBatch = 1000

// fillDoor writes every key that redis-benchmark may ask for.
func (c *comparison) fillDoor(ctx context.Context, cl *cluster) error {
	nc, err := (&net.Dialer{}).DialContext(ctx, "tcp", cl.Nodes[0].Client)
	if err != nil {
		return fmt.Errorf("filling: %w", err)
	}
	defer nc.Close()
	stop := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := fill(nc, c.doorKeys, bench.NewValue(c.value, 1)); err != nil {
		return errors.Join(fmt.Errorf("filling: %w", err), cl.Alive())
	}
	return nil
}

// fill sets keys number 0 and up, by the names that redis-benchmark gives them.
func fill(nc io.ReadWriter, keys uint64, value []byte) error {
	in := bufio.NewReader(nc)
	var out []byte
	for next := uint64(0); next < keys; {
		out = out[:0]
		begin := next
		for ; next < min(keys, begin+fillBatch); next++ {
			out = fmt.Appendf(out, "*3\r\n$3\r\nSET\r\n$16\r\nkey:%012d\r\n$%d\r\n%s\r\n", next, len(value), value)
		}
		if _, err := nc.Write(out); err != nil {
			return err
		}
		for range next - begin {
			line, err := in.ReadString('\n')
			if err != nil {
				return err
			}
			if line != "+OK\r\n" {
				return fmt.Errorf("SET was answered with %s", strings.TrimSpace(line))
			}
		}
	}
	return nil
}

// atDoor compares Proa with Redis in a row.
func (c *comparison) atDoor(r doorRow, of rig.Figure) report.Ratio {
	return report.RatioOf(c.doors[doorCell{r, door{}.name()}].Each(of), c.doors[doorCell{r, redis{}.name()}].Each(of))
}

// doorTables are the targets and the figures, nil if nothing was measured.
func (c *comparison) doorTables() []report.Table {
	targets := report.Table{Title: "Targets beside Redis, by redis-benchmark", Header: []string{"what", "target", "measured", "verdict"}}
	figures := report.Table{
		Title: "redis-benchmark",
		Header: []string{
			"load", "server", "rate, /s", "Proa's rate / Redis's", "p50, µs", "p99, µs", "server CPU, µs/op", "Proa's / Redis's",
			"generator CPU, µs/op", "an answer means",
		},
		Notes: []string{fmt.Sprintf("`redis-benchmark -c %d -d %d -r %d`, the same for both, in turns; every key is there before. Redis runs with `--appendonly yes --appendfsync always`.", doorConnections, c.value, c.doorKeys)},
	}
	for _, r := range doorRows {
		for _, p := range doorPeers {
			s := c.doors[doorCell{r, p.name()}]
			if len(s) == 0 {
				continue
			}
			rate, cpu := "", ""
			if ratio := c.atDoor(r, rig.RateOf); p == doorPeers[0] && ratio != (report.Ratio{}) {
				rate, cpu = ratio.String(), c.atDoor(r, rig.ServerOf).String()
			}
			figures.Add(fmt.Sprintf("%s -P %d", r.command(), r.pipeline), p.name(), report.Thousands(s.Median(rig.RateOf)), rate, report.Micros(s.Median(rig.P50Of)), report.Micros(s.Median(rig.P99Of)),
				report.Hundredths(s.Median(rig.ServerOf)), cpu, report.Hundredths(s.Median(rig.GeneratorOf)), doorMeaning(p, r.op))
		}
		targets.AddTarget(r.String()+": rate / Redis", report.AtLeast(r.target), c.atDoor(r, rig.RateOf))
	}
	if len(figures.Rows) == 0 {
		return nil
	}
	return []report.Table{targets, figures}
}

// doorMeaning says what an answer vouches for, in a table.
func doorMeaning(p peer, op bench.Op) string {
	if op == bench.Ping {
		return "that the server is there"
	}
	return p.meaning(op, 1).String()
}

// documentDoor is one row of redis-benchmark in JSON.
type documentDoor struct {
	Command  string           `json:"command"`
	Pipeline int              `json:"pipeline"`
	Server   string           `json:"server"`
	Rate     *report.Ratio    `json:"rate_to_redis,omitempty"`
	CPU      *report.Ratio    `json:"server_cpu_to_redis,omitempty"`
	Rounds   []documentSample `json:"rounds"`
}

func (c *comparison) documentDoors() (all []documentDoor) {
	for _, r := range doorRows {
		for _, p := range doorPeers {
			s := c.doors[doorCell{r, p.name()}]
			if len(s) == 0 {
				continue
			}
			d := documentDoor{Command: r.command(), Pipeline: r.pipeline, Server: p.name(), Rounds: documentSamples(s)}
			if rate, cpu := c.atDoor(r, rig.RateOf), c.atDoor(r, rig.ServerOf); p == doorPeers[0] && rate != (report.Ratio{}) {
				d.Rate, d.CPU = &rate, &cpu
			}
			all = append(all, d)
		}
	}
	return all
}

var _ peer = door{}
