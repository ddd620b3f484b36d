//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"time"

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

// cell is a load, a row, a respRow, a start or a rest, on one peer.
type cell struct {
	load fmt.Stringer
	peer string
}

// String is what the flag -only is matched with.
func (c cell) String() string { return c.load.String() + ", " + c.peer }

// failures adds up the failures of all rounds, by class.
func failures(s rig.Series) (byClass map[string]uint64, share float64) {
	byClass = map[string]uint64{}
	var all uint64
	for i := range s {
		all += s[i].Ops
		for class, n := range s[i].Failures {
			byClass[class] += n
		}
	}
	failed := s.Failed()
	return byClass, report.Quotient(float64(failed), float64(failed+all))
}

// server is a peer as it was found on this machine.
type server struct {
	peer
	path, version string
	bytes         int64  // of the program
	absent        string // why it is left out, "" if it is not
}

// comparison makes the figures and holds them.
type comparison struct {
	options
	*rig.Lab
	match *regexp.Regexp

	servers []*server
	disk    *rig.Disk
	echo    *rig.Server
	memory  *rig.Memory

	sync, loop, copies map[int]rig.Series // floors in the rounds with so many nodes
	cells              map[cell]rig.Series
	failed             []error // what is missing in the figures
}

func newComparison(o options, lab *rig.Lab) (*comparison, error) {
	match, err := regexp.Compile("(?i)" + o.only)
	if err != nil {
		return nil, fmt.Errorf("-only: %w", err)
	}
	return &comparison{
		options: o, Lab: lab, match: match,
		sync: map[int]rig.Series{}, loop: map[int]rig.Series{}, copies: map[int]rig.Series{}, cells: map[cell]rig.Series{},
	}, nil
}

// wanted reports whether a load on a peer was asked for.
func (c *comparison) wanted(load fmt.Stringer, p peer) bool {
	chosen := len(c.chosen) == 0 || slices.Contains(c.chosen, p.short())
	return chosen && c.match.MatchString(cell{load, p.name()}.String())
}

// wantedIn reports whether a peer has to run in clusters of so many nodes.
func (c *comparison) wantedIn(p peer, nodes int) bool {
	return p.supports(nodes) && slices.ContainsFunc(rows, func(r row) bool { return r.nodes == nodes && c.wanted(r, p) })
}

// run measures everything there is: starts, then clusters of one size after the other.
func (c *comparison) run(ctx context.Context) error {
	if err := c.prepare(ctx); err != nil {
		return err
	}
	if err := c.compareStarts(ctx); err != nil {
		return err
	}
	for _, nodes := range sizes {
		if err := c.compareSize(ctx, nodes); err != nil {
			return err
		}
	}
	if err := c.compareRESP(ctx); err != nil {
		return err
	}
	if len(c.cells) == 0 {
		return errors.Join(fmt.Errorf("nothing was measured; do -only %q and -servers %q match anything?", c.only, c.chosen.String()), errors.Join(c.failed...))
	}
	return nil
}

// prepare finds the servers that are wanted and sets up the floors.
func (c *comparison) prepare(ctx context.Context) error {
	for _, p := range peers {
		if !c.wantsRESP(p) && !c.wantsStart(p) && !slices.ContainsFunc(sizes, func(nodes int) bool { return c.wantedIn(p, nodes) }) {
			continue
		}
		c.Progress("%s: looking for the program, or building it", p.name())
		s := &server{peer: p}
		var err error
		s.path, s.version, err = p.program(ctx, &c.options, c.Data)
		if errors.Is(err, errMissing) {
			s.absent = fmt.Sprintf("%s is %v.", p.name(), err)
			c.Progress("%s", s.absent)
		} else if err != nil {
			return err
		}
		s.bytes = programBytes(s.path)
		c.servers = append(c.servers, s)
	}
	var err error
	if c.disk, err = rig.NewDisk(filepath.Join(c.Data, "floor")); err != nil {
		return fmt.Errorf("floor of the disk: %w", err)
	}
	c.Cleanup(c.disk.Close)
	c.memory = rig.NewMemory()
	c.echo, err = c.StartEcho(c.requestBytes())
	return err
}

// requestBytes is the length of a PUT of Proa, which the echo sends.
func (c *comparison) requestBytes() int {
	return len(bench.Proa{}.AppendRequest(nil, bench.Put, 1, bench.AppendKey(nil, 0), make([]byte, c.value)))
}

// compareSize compares clusters of so many nodes, in all rounds.
func (c *comparison) compareSize(ctx context.Context, nodes int) error {
	var wanted []*server
	for _, s := range c.servers {
		if s.absent == "" && c.wantedIn(s.peer, nodes) {
			wanted = append(wanted, s)
		}
	}
	return c.compareOn(ctx, size(nodes), wanted, nodes, rig.Callers{Keys: c.keys}, func(clusters []*cluster) error {
		return c.round(ctx, nodes, clusters)
	})
}

// compareOn starts clusters, writes all keys of fill, and measures all rounds. What does
// not start is left out, so that the other figures are not lost for it.
func (c *comparison) compareOn(ctx context.Context, what string, wanted []*server, nodes int, fill rig.Callers, round func([]*cluster) error) (err error) {
	var clusters []*cluster
	defer func() {
		for _, cl := range clusters {
			err = errors.Join(err, cl.Stop())
		}
	}()
	for _, s := range wanted {
		c.Progress("%s, %s: starting, %s keys of %d bytes each", s.name(), what, report.Thousands(float64(fill.Keys)), c.value)
		cl, err := c.startCluster(ctx, s.peer, s.path, nodes)
		if err == nil {
			clusters = append(clusters, cl)
			err = c.preload(ctx, cl, fill)
		}
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			c.fail(fmt.Errorf("%s, %s: %w", s.name(), what, err))
		default:
			cl.usable = true
		}
	}
	for i := range c.Rounds {
		if len(clusters) == 0 {
			break
		}
		c.Progress("%s, round %d of %d", what, i+1, c.Rounds)
		if err := round(clusters); err != nil {
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

// fail notes what could not be measured.
func (c *comparison) fail(err error) {
	c.failed = append(c.failed, err)
	c.Progress("NOT MEASURED: %v", err)
}

// callers describes a measurement of a cluster.
func (c *comparison) callers(cl *cluster, r row) *rig.Callers {
	return &rig.Callers{
		Loop: rig.Loop{Callers: r.callers, Warmup: c.Warmup(c.Step), Duration: c.Step, Timeout: answerTimeout, ServerCPU: cl.CPU},
		Op:   r.op, Keys: c.keys, Seed: 1, Value: bench.NewValue(c.value, 1),
	}
}

// preload writes all keys. Of fill, Keys and Key are given.
func (c *comparison) preload(ctx context.Context, cl *cluster, fill rig.Callers) error {
	const callers, connections = 512, 16
	d, err := cl.connect(ctx, cl.Endpoints(), connections)
	if err != nil {
		return err
	}
	fill.Callers, fill.Value, fill.Timeout = callers, bench.NewValue(c.value, 1), answerTimeout
	if err = errors.Join(fill.Preload(ctx, d), d.Close()); err != nil {
		return errors.Join(fmt.Errorf("filling: %w", err), cl.Alive())
	}
	return nil
}

// answerTimeout is how long answers are waited for.
const answerTimeout = 30 * time.Second

// measureEach measures a load on one cluster after the other. A cluster that cannot
// be measured does not come back: rounds must stay in step.
func (c *comparison) measureEach(ctx context.Context, load fmt.Stringer, clusters []*cluster, measure func(*cluster) (rig.Sample, error)) error {
	for _, cl := range clusters {
		if !cl.usable || !c.wanted(load, cl.peer) {
			continue
		}
		k := cell{load, cl.name()}
		s, err := measure(cl)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			cl.usable = false
			c.fail(fmt.Errorf("%v, from round %d on: %w", k, len(c.cells[k])+1, errors.Join(err, cl.Alive())))
		default:
			c.cells[k] = append(c.cells[k], s)
		}
	}
	return nil
}

// round measures the floors and then each row of a size, peer after peer.
func (c *comparison) round(ctx context.Context, nodes int, clusters []*cluster) error {
	if err := c.measureFloors(ctx, nodes, clusters); err != nil {
		return err
	}
	for _, r := range rows {
		if r.nodes != nodes {
			continue
		}
		if err := c.measureEach(ctx, r, clusters, func(cl *cluster) (rig.Sample, error) { return c.measure(ctx, r, cl, clusters) }); err != nil {
			return err
		}
	}
	return nil
}

// measure measures one cluster when all are at rest.
func (c *comparison) measure(ctx context.Context, r row, cl *cluster, all []*cluster) (rig.Sample, error) {
	d, err := cl.connect(ctx, cl.Endpoints(), r.connections)
	if err != nil {
		return rig.Sample{}, err
	}
	if err := rest(ctx, all); err != nil {
		return rig.Sample{}, errors.Join(err, d.Close())
	}
	s, err := c.callers(cl, r).Run(ctx, d)
	return s, errors.Join(err, d.Close())
}

// rest waits until all servers that still run are at rest.
func rest(ctx context.Context, clusters []*cluster) error {
	var all []*rig.Cluster
	for _, cl := range clusters {
		if cl.Alive() == nil {
			all = append(all, cl.Cluster)
		}
	}
	return rig.Rest(ctx, all...)
}

// measureFloors measures disk, loopback and memory, one request at a time, and what the
// clusters use meanwhile.
func (c *comparison) measureFloors(ctx context.Context, nodes int, clusters []*cluster) error {
	if err := rest(ctx, clusters); err != nil {
		return err
	}
	defer c.measureRest(nodes, clusters)()
	pairs, err := c.disk.Measure(ctx, c.Step/2)
	if err != nil {
		return fmt.Errorf("floor of the disk: %w", err)
	}
	c.sync[nodes] = append(c.sync[nodes], rig.SampleOfKind(pairs))
	r, err := bench.Run(ctx, bench.Load{Target: c.echo.Target, Op: bench.Put, ValueBytes: c.value, Warmup: c.Warmup(c.Step / 2), Duration: c.Step / 2})
	if err != nil {
		return fmt.Errorf("floor of the loopback: %w", err)
	}
	c.loop[nodes] = append(c.loop[nodes], rig.SampleOfKind(&r.All))
	copies, err := c.memory.Measure(ctx, c.requestBytes(), c.Step/10)
	if err != nil {
		return fmt.Errorf("floor of memory: %w", err)
	}
	c.copies[nodes] = append(c.copies[nodes], rig.SampleOfKind(copies))
	return nil
}

// floor returns, for each round, the least a call of a row can take by what
// disk and loopback took in the same round: the way to the server and back, and
// for a write the fsync; in a cluster also the way to another node and back,
// whose fsync runs beside the leader's own.
func (c *comparison) floor(r row) []float64 {
	floor := c.loop[r.nodes].Each(rig.P50)
	if r.op != bench.Put {
		return floor
	}
	if r.nodes > 1 {
		floor = report.Sum(floor, floor)
	}
	return report.Sum(floor, c.sync[r.nodes].Each(rig.P50))
}

// against compares two peers under a load.
func (c *comparison) against(load fmt.Stringer, a, b string, of rig.Figure) report.Ratio {
	return report.RatioOf(c.cells[cell{load, a}].Each(of), c.cells[cell{load, b}].Each(of))
}
