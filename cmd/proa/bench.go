package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/proa-kv/proa/bench"
	"github.com/proa-kv/proa/bench/report"
	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/internal/render"
)

const outputCSV = "csv"

// benchFlags are the flags of proa bench.
type benchFlags struct {
	load bench.Load

	workload, values, keys, choice, scanRows string
	reads                                    float64
	batchRows                                int
	rates                                    []string
	sweep, noPreload, cleanup                bool
	html                                     string

	cleanupCommand string // that deletes the rows of this bench
}

func benchCommand(a *app) *cobra.Command {
	f := &benchFlags{}
	cmd := newCommand("bench", cobra.NoArgs, func(cmd *cobra.Command, _ []string) error {
		if err := f.prepare(a, cmd); err != nil {
			return err
		}
		return runBench(cmd.Context(), a, f)
	})
	f.add(cmd)
	cmd.AddCommand(benchMergeCommand(a), benchCleanupCommand(a))
	return cmd
}

const benchDuration = 10 * time.Second

func (f *benchFlags) add(cmd *cobra.Command) {
	p, l := cmd.Flags(), &f.load
	p.SortFlags = false
	p.StringVarP(&f.workload, "workload", "t", "get", "`name` of the workload, see above")
	p.IntVarP(&l.Connections, "connections", "c", 64, "`number` of connections, spread over the nodes")
	p.IntVarP(&l.InFlight, "in-flight", "P", 1, "`requests` in flight on each connection")
	p.Uint64VarP(&l.Count, "requests", "n", 0, "stop after this `number` of operations instead of after --duration")
	p.StringVarP(&f.values, "value-size", "d", "", "`bytes` per value: 128, 16..1024, or 90%:128,10%:4096 (default 128; ycsb: 1000)")
	p.Uint64VarP(&l.Keys, "keys", "k", 100_000, "`number` of rows")
	p.StringVar(&f.keys, "key-size", "", "`bytes` per key, like --value-size (default 16; ycsb: 24)")
	p.DurationVar(&l.Duration, "duration", benchDuration, "`time` that each run is measured")
	p.DurationVar(&l.Warmup, "warmup", time.Second, "`time` before the measurement begins (with -n: 0)")
	p.StringSliceVar(&f.rates, "rate", nil, "open loop: `rate` in operations per second, such as 20000 or 20k; several rates: one run each")
	p.BoolVar(&f.sweep, "rate-sweep", false, "open loop at 10 to 110 % of the highest throughput, which is measured first")
	p.BoolVar(&l.Poisson, "poisson", false, "open loop: random arrival times instead of constant intervals")
	p.IntVar(&l.Threads, "threads", 0, "`threads` of the load generator (default: one per four processors)")
	p.Uint64Var(&l.Seed, "seed", 1, "`number` that keys, values and order are derived from; the same one repeats the same operations")
	p.StringVar(&f.choice, "distribution", "", "`rule` by which rows are chosen: uniform, zipfian, latest or sequential (default uniform; ycsb: as specified)")
	p.Float64Var(&f.reads, "reads", 50, "mixed: `percent` of reads, the rest are writes")
	p.StringVar(&f.scanRows, "scan-rows", "", "scan, ycsb-e: `rows` per scan, like --value-size (default 100; ycsb-e: 1..100)")
	p.IntVar(&f.batchRows, "batch-rows", 10, "batch: `writes` per request")
	p.BoolVar(&l.AnyNode, "any-node", false, "send requests to the named servers in turn; these forward them to the leaders")
	p.BoolVar(&f.noPreload, "no-preload", false, "do not write the rows: an earlier run with the same --keys, sizes and --seed has")
	p.BoolVar(&l.Verify, "verify", false, "read back all rows at the end and compare them with what was written")
	p.BoolVar(&f.cleanup, "cleanup", false, "delete all rows of load tests at the end, including those of earlier runs")
	p.StringVar(&f.html, "html", "", "write an HTML page with charts to `file`")
	var workloads []string
	for _, w := range bench.Workloads() {
		workloads = append(workloads, w.Name)
	}
	completeFlag(cmd, "workload", workloads...)
	completeFlag(cmd, "distribution", "uniform", "zipfian", "latest", "sequential")
}

// prepare checks the flags and puts them into f.load.
func (f *benchFlags) prepare(a *app, cmd *cobra.Command) error {
	given := cmd.Flags().Changed
	w, err := bench.FindWorkload(f.workload)
	if err != nil {
		return err
	}
	if given("reads") {
		if w.Name != "mixed" || !(f.reads >= 0 && f.reads <= 100) {
			return usagef("--reads %g: a percentage from 0 to 100, for the workload mixed only", f.reads)
		}
		w = w.WithReads(f.reads / 100)
	}
	if f.choice != "" {
		var ok bool
		if w.Choice, ok = bench.ParseChoice(f.choice); !ok {
			return usagef("--distribution %s: choose uniform, zipfian, latest or sequential", f.choice)
		}
	}
	w.BatchRows = f.batchRows
	for _, s := range []struct {
		text string
		to   *bench.Sizes
	}{{f.values, &w.ValueBytes}, {f.keys, &w.KeyBytes}, {f.scanRows, &w.ScanRows}} {
		if s.text == "" {
			continue
		}
		if *s.to, err = bench.ParseSizes(s.text); err != nil {
			return err
		}
	}
	t, err := a.target()
	if err != nil {
		return err
	}
	s, err := a.security(cmd.Context(), t)
	if err != nil {
		return err
	}
	l := &f.load
	l.TLS, l.User = s.tls, s.user
	if l.Secret, err = s.secret(); err != nil {
		return err
	}
	l.Workload, l.Timeout, l.Addresses = w, a.timeout, benchAddresses(t.endpoints)
	l.Consistency = consistencies[a.consistency]
	switch {
	case l.Connections < 1 || l.InFlight < 1 || l.Keys < 1:
		return usagef("-c, -P and -k must be at least 1")
	case given("requests") && l.Count == 0:
		return usagef("-n 0: must be at least one operation")
	case given("threads") && l.Threads < 1:
		return usagef("--threads %d: must be at least one", l.Threads)
	case f.sweep && len(f.rates) > 0:
		return usagef("--rate-sweep chooses the rates itself; leave --rate out")
	case l.Poisson && !f.sweep && len(f.rates) == 0:
		return usagef("--poisson needs an open loop; add --rate or --rate-sweep")
	case l.Verify && f.noPreload && w.Name == "incr":
		return usagef("--verify of counters needs their initial values; leave --no-preload out")
	case l.Duration <= 0:
		return usagef("--duration %v: must be above 0", l.Duration)
	}
	if given("requests") {
		if !given("duration") {
			l.Duration = 0
		}
		if !given("warmup") {
			l.Warmup = 0
		}
	}
	f.cleanupCommand = cleanupCommand(cmd)
	_, err = parseRates(f.rates)
	return err
}

// benchAddresses gives the addresses that name no port the usual one.
func benchAddresses(endpoints []string) []string {
	out := slices.Clone(endpoints)
	for i, e := range out {
		e = strings.TrimSpace(e)
		if _, _, err := net.SplitHostPort(e); err != nil && !strings.HasPrefix(e, "unix:") {
			e = net.JoinHostPort(strings.Trim(e, "[]"), client.DefaultPort)
		}
		out[i] = e
	}
	return out
}

// parseRates reads rates such as 20000, 20k or 1.5M.
func parseRates(texts []string) ([]float64, error) {
	var rates []float64
	for _, text := range texts {
		digits, factor := strings.TrimSpace(text), 1.0
		for suffix, by := range map[string]float64{"k": 1e3, "K": 1e3, "m": 1e6, "M": 1e6} {
			if cut, ok := strings.CutSuffix(digits, suffix); ok {
				digits, factor = cut, by
				break
			}
		}
		v, err := strconv.ParseFloat(digits, 64)
		if err != nil || !(v > 0) || v*factor > benchRateMax {
			return nil, usagef("--rate %q: operations per second, such as 20000, 20k or 1.5M, up to 100M", text)
		}
		rates = append(rates, v*factor)
	}
	return rates, nil
}

// benchRateMax is the highest rate that package bench takes.
const benchRateMax = 100e6

// runBench runs the load test, shows its report, and counts or deletes its rows.
func runBench(ctx context.Context, a *app, f *benchFlags) error {
	// The first connection stores the context's cluster, and the load test keeps to it.
	if t := a.link.target; t.context != "" {
		if _, err := a.connect(ctx); err != nil {
			return err
		}
		f.load.Cluster = uint64(t.cluster)
	}
	live := &benchLive{Line: a.Line()}
	f.load.Progress = live.show
	h, err := bench.Open(ctx, f.load)
	if err != nil {
		return err
	}
	end := func(context.Context) {}
	if f.load.Workload.TouchesRows() && (!f.noPreload || f.load.Workload.Writes()) {
		live.say("checking the prefix %s", bench.Prefix)
		lease, err := h.Claim(ctx)
		if err != nil {
			live.End()
			return err
		}
		end = lease.End
	}
	out := report.NewLoad(h)
	out.Program, out.Started, out.Arrivals = "proa bench "+versionText(), time.Now().UTC().Truncate(time.Second), f.arrivals()
	if f.load.Workload.TouchesRows() {
		out.Durability = clusterDurability(ctx, a)
	}
	err = benchRuns(ctx, a, f, h, out, live)
	end(ctx)
	if f.load.Workload.TouchesRows() || f.cleanup {
		live.say("counting rows")
		var rowsErr error
		out.Rows, rowsErr = benchRows(ctx, a, f)
		err = errors.Join(err, rowsErr)
	}
	live.End()
	return errors.Join(err, endBench(ctx, a, f, out))
}

// endBench shows the report, if there is one, and what becomes of the rows.
func endBench(ctx context.Context, a *app, f *benchFlags, out *report.Load) error {
	var err error
	shown := len(out.Runs) > 0
	if shown {
		err = showBench(context.WithoutCancel(ctx), a, out, f.html)
	}
	if out.Rows == nil {
		return err
	}
	if !shown || a.Form == outputCSV {
		fmt.Fprintln(a.Err, out.Rows.Sentence())
	}
	if f.noPreload || ctx.Err() != nil {
		return err
	}
	return errors.Join(err, offerCleanup(ctx, a, out.Rows))
}

func (f *benchFlags) arrivals() string {
	switch {
	case len(f.rates) == 0 && !f.sweep:
		return "closed loop"
	case f.load.Poisson:
		return "open loop with random arrivals"
	}
	return "open loop with constant intervals"
}

// benchRuns loads the rows, makes one run for each rate, and verifies.
func benchRuns(ctx context.Context, a *app, f *benchFlags, h *bench.Harness, out *report.Load, live *benchLive) error {
	if !f.noPreload && f.load.Workload.TouchesRows() {
		live.say("writing %d rows", h.Load().Keys)
		began := time.Now()
		if _, err := h.Preload(ctx); err != nil {
			return err
		}
		out.LoadSeconds = time.Since(began).Seconds()
	}
	run := func(rate float64) (*bench.LoadResult, error) {
		live.begin(rate)
		r, err := h.Run(ctx, rate)
		if r != nil {
			out.Add(r)
		}
		return r, err
	}
	if err := f.eachRate(ctx, run); err != nil {
		return err
	}
	if !h.Load().Verify {
		return nil
	}
	if ctx.Err() != nil {
		return &statusError{exitServer, errors.New("interrupted before the rows were verified")}
	}
	live.say("verifying rows")
	v, err := h.Verify(ctx)
	if err != nil {
		return err
	}
	out.Verification = v
	if !v.OK() {
		return &statusError{exitFailed, errSilent}
	}
	return nil
}

// sweepShares are the rates of a sweep, as shares of the highest one.
var sweepShares = []float64{0.1, 0.25, 0.5, 0.7, 0.8, 0.9, 1, 1.1}

// eachRate makes the runs that the flags ask for, until one fails or ctx ends.
func (f *benchFlags) eachRate(ctx context.Context, run func(rate float64) (*bench.LoadResult, error)) error {
	rates, err := parseRates(f.rates)
	if err != nil {
		return err
	}
	if len(rates) == 0 {
		highest, err := run(0)
		if err != nil || !f.sweep {
			return err
		}
		for _, share := range sweepShares {
			rates = append(rates, math.Round(share*highest.Throughput()))
		}
	}
	for _, rate := range rates {
		if ctx.Err() != nil || rate == 0 {
			return nil
		}
		if _, err := run(rate); err != nil {
			return err
		}
	}
	return nil
}

// durabilityPatience is for how long a node that has just started may not know
// the cluster's state yet.
const durabilityPatience = 5 * time.Second

// clusterDurability describes on how many nodes an acknowledged write is, from the
// cluster's state.
func clusterDurability(ctx context.Context, a *app) string {
	for began := time.Now(); ; wait(ctx, 100*time.Millisecond) {
		s, err := a.clusterStatus(ctx)
		if err != nil {
			return "durability of acknowledged writes unknown: the server does not report the cluster's state"
		}
		if text := durabilityOf(s); text != "" || ctx.Err() != nil || time.Since(began) > durabilityPatience {
			return text
		}
	}
}

// durabilityOf is clusterDurability of one state, "" if it is not in it.
func durabilityOf(s *command.ClusterStatus) string {
	least, most, shards := math.MaxInt, 0, 0
	for i := range s.Shards {
		sh := &s.Shards[i]
		if sh.Shard == command.MetaShard {
			continue
		}
		voters := 0
		for _, r := range sh.Replicas {
			if r.Role != "learner" {
				voters++
			}
		}
		least, most = min(least, voters), max(most, voters)
		shards++
	}
	switch {
	case shards == 0 || least == 0:
		return ""
	case most == 1:
		return fmt.Sprintf("%d shards with one replica each: an acknowledged write is fsynced on that node only", shards)
	case least < most:
		return fmt.Sprintf("%d shards with %d to %d voting replicas each: an acknowledged write is fsynced on a majority of them", shards, least, most)
	}
	return fmt.Sprintf("%d shards with %d voting replicas each: an acknowledged write is fsynced on a majority of them", shards, most)
}

// showBench shows the report in the form asked for, and writes the page.
func showBench(ctx context.Context, a *app, out *report.Load, html string) error {
	var err error
	switch a.Form {
	case render.AsJSON, render.AsJSONL:
		err = a.WriteJSON(out)
	case outputCSV:
		err = out.CSV(a.Out)
	default:
		err = printBench(a.Out, out, render.LookOf(a.Out))
	}
	if html == "" {
		return err
	}
	return errors.Join(err, writeFile(ctx, html, 0o644, func(w io.Writer) error { return out.HTML(w) }))
}

// printBench writes the report so that no line passes the terminal's edge.
func printBench(w io.Writer, out *report.Load, l render.Look) error {
	var b strings.Builder
	if err := out.Print(&b, l.Columns); err != nil {
		return err
	}
	_, err := io.WriteString(w, l.WrapEach(b.String()))
	return err
}

// benchLive shows how a bench goes on, in one line of a terminal. Elsewhere it shows
// nothing.
type benchLive struct {
	*render.Line
	title string
}

func (l *benchLive) begin(rate float64) {
	l.title = "closed loop"
	if rate > 0 {
		l.title = report.Thousands(rate) + "/s planned"
	}
	l.say("%s", l.title)
}

// show shows one second.
func (l *benchLive) show(p bench.Point) {
	micros := func(d time.Duration) string { return report.Duration(float64(d) / float64(time.Microsecond)) }
	text := fmt.Sprintf("%s %4.0f s  %s/s  p50 %s  p99 %s  max %s", l.title, p.At.Seconds(), report.Thousands(p.Rate()), micros(p.P50), micros(p.P99), micros(p.Max))
	if p.Errors > 0 {
		text += fmt.Sprintf("  %d errors", p.Errors)
	}
	l.say("%s", text)
}

func (l *benchLive) say(format string, args ...any) {
	if l.OnTerminal {
		l.Show(fmt.Sprintf(format, args...))
	}
}
