//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/proa-kv/proa/bench"
	"github.com/proa-kv/proa/bench/report"
	"github.com/proa-kv/proa/bench/rig"
)

// row is one kind of load, under which peers are compared.
type row struct {
	op                   bench.Op
	nodes                int
	callers, connections int
}

// rows are all of them, clusters of one size together.
var rows = []row{
	{bench.Put, 1, 1, 1}, {bench.Put, 1, 64, 16}, {bench.Put, 1, 512, 16}, {bench.Get, 1, 256, 16},
	{bench.Put, 3, 1, 1}, {bench.Put, 3, 256, 16}, {bench.Get, 3, 256, 16},
}

// sizes are the numbers of nodes in rows.
var sizes = []int{1, 3}

// String returns, for example, "PUT, 3 nodes, 256 callers, 16 connections".
func (r row) String() string {
	plural := func(n int, what string) string {
		if n != 1 {
			what += "s"
		}
		return fmt.Sprintf("%d %s", n, what)
	}
	return fmt.Sprintf("%v, %s, %s, %s", r.op, plural(r.nodes, "node"), plural(r.callers, "caller"), plural(r.connections, "connection"))
}

// cell is a row with one peer.
type cell struct {
	row
	peer string
}

// String is what the flag -only is matched with.
func (c cell) String() string { return c.row.String() + ", " + c.peer }

// sample is one measurement of one round. Times are in nanoseconds.
type sample struct {
	Rate         float64           `json:"rate"` // calls per second
	P50          float64           `json:"p50_ns"`
	P99          float64           `json:"p99_ns"`
	P999         float64           `json:"p999_ns"`
	Slowest      float64           `json:"max_ns"`
	ServerCPU    float64           `json:"server_cpu_per_op_ns"`
	GeneratorCPU float64           `json:"generator_cpu_per_op_ns"`
	Ops          uint64            `json:"ops"`
	Failures     map[string]uint64 `json:"failures,omitempty"` // by class

	latency *hdrhistogram.Histogram // in nanoseconds; nil in figures that were made up
}

func sampleOf(r *result) sample {
	return sample{
		Rate: r.Rate(), P50: float64(r.Quantile(0.5)), P99: float64(r.Quantile(0.99)), P999: float64(r.Quantile(0.999)),
		Slowest: float64(r.Slowest), ServerCPU: float64(r.PerOp(r.ServerCPU)), GeneratorCPU: float64(r.PerOp(r.GeneratorCPU)),
		Ops: r.Ops, Failures: r.failures, latency: r.Latency,
	}
}

// series holds one sample for each round.
type series []sample

// figure is one of the numbers of a sample.
type figure func(sample) float64

func rateOf(s sample) float64      { return s.Rate }
func p50Of(s sample) float64       { return s.P50 }
func p99Of(s sample) float64       { return s.P99 }
func p999Of(s sample) float64      { return s.P999 }
func slowestOf(s sample) float64   { return s.Slowest }
func opsOf(s sample) float64       { return float64(s.Ops) }
func serverOf(s sample) float64    { return s.ServerCPU }
func generatorOf(s sample) float64 { return s.GeneratorCPU }

func (s series) each(of figure) []float64 {
	v := make([]float64, len(s))
	for i := range s {
		v[i] = of(s[i])
	}
	return v
}

func (s series) median(of figure) float64 { return report.Median(s.each(of)) }

// failures adds up the failures of all rounds, by class.
func (s series) failures() (byClass map[string]uint64, share float64) {
	byClass = map[string]uint64{}
	var failed, all uint64
	for i := range s {
		all += s[i].Ops
		for class, n := range s[i].Failures {
			byClass[class] += n
			failed += n
		}
	}
	return byClass, report.Quotient(float64(failed), float64(failed+all))
}

// server is a peer as it was found on this machine.
type server struct {
	peer
	path, version string
	absent        string // why it is left out, "" if it is not
}

// comparison makes the figures and holds them.
type comparison struct {
	options
	match    *regexp.Regexp
	progress io.Writer
	started  time.Time
	took     time.Duration

	dir     string // holds everything, removed at the end
	servers []*server
	disk    *rig.Disk
	echo    *rig.Process
	echoAt  bench.Target

	memory *rig.Memory

	sync, loop, copies map[int]series // floors in the rounds with so many nodes
	cells              map[cell]series
	doors              map[doorCell]series
	notes              []string
	failed             []error // what is missing in the figures
}

func newComparison(o options, progress io.Writer) (*comparison, error) {
	c := &comparison{
		options: o, progress: progress, started: time.Now(),
		sync: map[int]series{}, loop: map[int]series{}, copies: map[int]series{}, cells: map[cell]series{},
		doors: map[doorCell]series{},
	}
	var err error
	if c.match, err = regexp.Compile("(?i)" + o.only); err != nil {
		return nil, fmt.Errorf("-only: %w", err)
	}
	dir, err := rig.DataDirectory(o.dir)
	if err != nil {
		return nil, err
	}
	if c.dir, err = os.MkdirTemp(dir, "proa-compare-*"); err != nil {
		return nil, err
	}
	if rig.InMemory(c.dir) {
		c.notes = append(c.notes, "The data directory is on a file system in memory: nothing here is durable, and no figure of a PUT means anything.")
	}
	return c, nil
}

// close ends what runs and removes all data.
func (c *comparison) close() error {
	var err error
	if c.echo != nil {
		err = c.echo.Stop()
	}
	if c.disk != nil {
		err = errors.Join(err, c.disk.Close())
	}
	return errors.Join(err, os.RemoveAll(c.dir))
}

func (c *comparison) say(format string, args ...any) {
	fmt.Fprintf(c.progress, "%5.0f s  %s\n", time.Since(c.started).Seconds(), fmt.Sprintf(format, args...))
}

// wanted reports whether a cell was asked for and can be.
func (c *comparison) wanted(r row, p peer) bool {
	return p.supports(r.nodes) && c.match.MatchString(cell{r, p.name()}.String())
}

// run measures everything there is, clusters of one size after the other.
func (c *comparison) run(ctx context.Context) error {
	if err := c.prepare(ctx); err != nil {
		return err
	}
	for _, nodes := range sizes {
		if err := c.compareSize(ctx, nodes); err != nil {
			return err
		}
	}
	if err := c.compareDoor(ctx); err != nil {
		return err
	}
	c.took = time.Since(c.started)
	if len(c.cells)+len(c.doors) == 0 {
		return errors.Join(fmt.Errorf("nothing was measured; does -only %q match anything?", c.only), errors.Join(c.failed...))
	}
	return nil
}

// prepare finds the servers that are wanted and sets up the floors.
func (c *comparison) prepare(ctx context.Context) error {
	for _, p := range peers {
		if !c.wantedAnywhere(p) {
			continue
		}
		c.say("%s: looking for the program, or building it", p.name())
		s := &server{peer: p}
		var err error
		s.path, s.version, err = p.program(ctx, &c.options, c.dir)
		if errors.Is(err, errMissing) {
			s.absent = fmt.Sprintf("%s is %v.", p.name(), err)
			c.say("%s", s.absent)
		} else if err != nil {
			return err
		}
		c.servers = append(c.servers, s)
	}
	var err error
	if c.disk, err = rig.NewDisk(filepath.Join(c.dir, "floor")); err != nil {
		return fmt.Errorf("floor of the disk: %w", err)
	}
	var address string
	c.memory = rig.NewMemory()
	if c.echo, address, err = rig.StartEcho(); err != nil {
		return err
	}
	c.echoAt = bench.Target{Address: address, Codec: rig.Echo{Bytes: c.requestBytes()}}
	return nil
}

func (c *comparison) wantedAnywhere(p peer) bool {
	for _, r := range rows {
		if c.wanted(r, p) {
			return true
		}
	}
	return c.wantsDoor(p)
}

// requestBytes is the length of a PUT of Proa, which the echo sends.
func (c *comparison) requestBytes() int {
	return len(bench.Proa{}.AppendRequest(nil, bench.Put, 1, bench.AppendKey(nil, 0), make([]byte, c.value)))
}

// compareSize compares clusters of so many nodes, in all rounds.
func (c *comparison) compareSize(ctx context.Context, nodes int) (err error) {
	clusters, err := c.startClusters(ctx, nodes)
	defer func() {
		for _, cl := range clusters {
			err = errors.Join(err, cl.stop())
		}
	}()
	if err != nil || len(clusters) == 0 {
		return err
	}
	for round := range c.rounds {
		c.say("%s, round %d of %d", size(nodes), round+1, c.rounds)
		if err := c.round(ctx, nodes, clusters); err != nil {
			return err
		}
	}
	return nil
}

func size(nodes int) string {
	if nodes == 1 {
		return "one node"
	}
	return fmt.Sprintf("%d nodes", nodes)
}

// startClusters starts and fills what is wanted of a size. What does not start
// is left out, so that the other figures are not lost for it.
func (c *comparison) startClusters(ctx context.Context, nodes int) (clusters []*cluster, err error) {
	for _, s := range c.servers {
		if s.absent != "" || !c.wantedInSize(s.peer, nodes) {
			continue
		}
		c.say("%s, %s: starting, %s keys of %d bytes each", s.name(), size(nodes), report.Thousands(float64(c.keys)), c.value)
		cl, err := startCluster(ctx, s.peer, s.path, c.dir, nodes)
		if err == nil {
			clusters = append(clusters, cl)
			err = c.preload(ctx, cl)
		}
		switch {
		case ctx.Err() != nil:
			return clusters, context.Cause(ctx)
		case err != nil:
			c.fail(fmt.Errorf("%s, %s: %w", s.name(), size(nodes), err))
		default:
			cl.usable = true
		}
	}
	return clusters, nil
}

func (c *comparison) wantedInSize(p peer, nodes int) bool {
	for _, r := range rows {
		if r.nodes == nodes && c.wanted(r, p) {
			return true
		}
	}
	return false
}

// fail notes what could not be measured.
func (c *comparison) fail(err error) {
	c.failed = append(c.failed, err)
	c.say("NOT MEASURED: %v", err)
}

// load describes a measurement of a cluster, or its filling.
func (c *comparison) load(cl *cluster, r row) load {
	return load{
		op: r.op, callers: r.callers, keys: c.keys, seed: 1, value: bench.NewValue(c.value, 1),
		warmup: c.duration / 5, duration: c.duration, patience: 30 * time.Second, serverCPU: cl.cpu,
	}
}

func (c *comparison) preload(ctx context.Context, cl *cluster) error {
	r := row{op: bench.Put, callers: 512, connections: 16}
	d, err := cl.connect(ctx, cl.addresses, r.connections)
	if err != nil {
		return err
	}
	l := c.load(cl, r)
	err = errors.Join(l.preload(ctx, d), d.close())
	if err != nil {
		return errors.Join(fmt.Errorf("filling: %w", err), cl.alive())
	}
	return nil
}

// round measures the floors and then each row of a size, peer after peer.
func (c *comparison) round(ctx context.Context, nodes int, clusters []*cluster) error {
	if err := c.measureFloors(ctx, nodes, clusters); err != nil {
		return err
	}
	for _, r := range rows {
		for _, cl := range clusters {
			if r.nodes != nodes || !cl.usable || !c.wanted(r, cl.peer) {
				continue
			}
			s, err := c.measure(ctx, r, cl, clusters)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err != nil {
				// Rounds must stay in step, so it does not come back.
				cl.usable = false
				c.fail(fmt.Errorf("%v, from round %d on: %w", cell{r, cl.name()}, len(c.sync[nodes]), err))
				continue
			}
			k := cell{r, cl.name()}
			c.cells[k] = append(c.cells[k], s)
		}
	}
	return nil
}

// measure measures one cluster when all are at rest.
func (c *comparison) measure(ctx context.Context, r row, cl *cluster, all []*cluster) (sample, error) {
	d, err := cl.connect(ctx, cl.addresses, r.connections)
	if err != nil {
		return sample{}, errors.Join(err, cl.alive())
	}
	if err := rest(ctx, all); err != nil {
		return sample{}, errors.Join(err, d.close())
	}
	l := c.load(cl, r)
	res, err := l.run(ctx, d)
	if err = errors.Join(err, d.close()); err != nil {
		return sample{}, errors.Join(err, cl.alive())
	}
	return sampleOf(res), nil
}

// rest waits until all servers are at rest.
func rest(ctx context.Context, clusters []*cluster) error {
	var ps []*rig.Process
	for _, cl := range clusters {
		ps = append(ps, cl.processes...)
	}
	return rig.Rest(ctx, ps...)
}

// measureFloors measures disk, loopback and memory, one request at a time.
func (c *comparison) measureFloors(ctx context.Context, nodes int, clusters []*cluster) error {
	if err := rest(ctx, clusters); err != nil {
		return err
	}
	h, err := c.disk.Measure(ctx, c.duration/2)
	if err != nil {
		return fmt.Errorf("floor of the disk: %w", err)
	}
	c.sync[nodes] = append(c.sync[nodes], latencies(h))
	r, err := bench.Run(ctx, bench.Config{Target: c.echoAt, Op: bench.Put, ValueBytes: c.value, Warmup: c.duration / 10, Duration: c.duration / 2})
	if err != nil {
		return fmt.Errorf("floor of the loopback: %w", err)
	}
	c.loop[nodes] = append(c.loop[nodes], latencies(r.Latency))
	if h, err = c.memory.Measure(ctx, c.requestBytes(), c.duration/10); err != nil {
		return fmt.Errorf("floor of memory: %w", err)
	}
	c.copies[nodes] = append(c.copies[nodes], latencies(h))
	return nil
}

func latencies(h *hdrhistogram.Histogram) sample {
	at := func(q float64) float64 { return float64(h.ValueAtQuantile(q)) }
	return sample{P50: at(50), P99: at(99), P999: at(99.9), Slowest: float64(h.Max()), Ops: uint64(h.TotalCount()), latency: h}
}

// floor returns, for each round, the least a call of a row can take by what
// disk and loopback took in the same round: the way to the server and back, and
// for a write the fsync; in a cluster also the way to another node and back,
// whose fsync runs beside the leader's own.
func (c *comparison) floor(r row) []float64 {
	floor := c.loop[r.nodes].each(p50Of)
	if r.op != bench.Put {
		return floor
	}
	if r.nodes > 1 {
		floor = report.Sum(floor, floor)
	}
	return report.Sum(floor, c.sync[r.nodes].each(p50Of))
}

// against compares two peers in a row.
func (c *comparison) against(r row, a, b string, of figure) report.Ratio {
	return report.RatioOf(c.cells[cell{r, a}].each(of), c.cells[cell{r, b}].each(of))
}
