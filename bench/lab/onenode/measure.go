//go:build linux

package onenode

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"

	"github.com/proa-kv/proa/bench"
	"github.com/proa-kv/proa/bench/report"
	"github.com/proa-kv/proa/bench/rig"
)

// variant is a server in one configuration.
type variant string

const (
	proa        variant = "proa"
	redisMemory variant = "redis"        // no persistence: for GET and PING
	redisAlways variant = "redis-always" // appendfsync always: for PUT
)

// variantNames are what tables call those that are compared under load.
var variantNames = map[variant]string{proa: "Proa", redisMemory: "Redis", redisAlways: "Redis, fsync always"}

// redisFor returns the Redis that op is compared with.
func redisFor(op bench.Op) variant {
	if op == bench.Put {
		return redisAlways
	}
	return redisMemory
}

// load is one line of the comparison under load.
type load struct {
	op    bench.Op
	depth int // requests in flight on each connection
}

// deep is the number of requests in flight on each connection where there are
// several.
const deep = 16

var loads = []load{{bench.Ping, 1}, {bench.Get, 1}, {bench.Put, 1}, {bench.Ping, deep}, {bench.Get, deep}, {bench.Put, deep}}

// key names a series under load.
type key struct {
	load
	variant
}

// measurement makes the figures and holds them.
type measurement struct {
	options
	*rig.Lab

	certificate *rig.Certificate // nil: no TLS

	disk    *rig.Disk
	echo    *rig.Server
	servers map[variant]*rig.Server
	// redisMissing says why there is no Redis, "" if there is.
	redisMissing string
	redisPath    string

	sync, loop rig.Series // floors: disk and loopback, one at a time
	single     map[variant]rig.Series
	loaded     map[key]rig.Series
	open       openLoop
	large      largeValues

	ycsbFigures ycsb

	idleOpened int   // idle connections that could be opened
	idleBytes  int64 // memory of all of them together
	crowded    map[crowd]rig.Series
}

func newMeasurement(o options, lab *rig.Lab) (*measurement, error) {
	m := &measurement{
		options: o, Lab: lab,
		servers: map[variant]*rig.Server{}, single: map[variant]rig.Series{}, loaded: map[key]rig.Series{}, crowded: map[crowd]rig.Series{},
		open: newOpenLoop(), large: largeValues{proa: map[bench.Op]rig.Series{}},
	}
	if !o.ycsb {
		m.findRedis()
	}
	return m, rig.FindProa(o.Proa)
}

func (m *measurement) findRedis() {
	if m.redis == "" {
		m.redisMissing = "It was left out on request."
		return
	}
	path, err := exec.LookPath(m.redis)
	if err != nil {
		m.redisMissing = "There is no redis-server on this machine."
		m.Progress("%v: the comparison with Redis is left out. On Debian and Ubuntu: apt-get install redis-server", err)
		return
	}
	m.redisPath = path
}

// measure measures YCSB, or everything else.
func (m *measurement) measure(ctx context.Context) error {
	if m.ycsb {
		return m.measureYCSB(ctx)
	}
	for _, part := range []func(context.Context) error{m.startAll, m.measureSingle, m.measureLoads, m.measureOpen, m.measureLarge, m.measureCrowd} {
		if err := part(ctx); err != nil {
			return err
		}
	}
	return nil
}

// eachRound measures all rounds of a part.
func (m *measurement) eachRound(what string, measure func(round int) error) error {
	for round := range m.Rounds {
		m.Progress("round %d of %d: %s", round+1, m.Rounds, what)
		if err := measure(round); err != nil {
			return err
		}
	}
	return nil
}

// startAll starts the servers and fills them.
func (m *measurement) startAll(ctx context.Context) error {
	m.Progress("starting servers, %d keys of %d bytes each", m.keys, m.value)
	var err error
	if m.tls {
		m.Note("Clients speak TLS 1.3, with an ECDSA certificate on P-256. The floors of disk and loopback are without.")
		if m.certificate, err = rig.NewCertificate(m.Data); err != nil {
			return err
		}
	}
	if m.disk, err = rig.NewDisk(filepath.Join(m.Data, "floor")); err != nil {
		return fmt.Errorf("floor of the disk: %w", err)
	}
	m.Cleanup(m.disk.Close)
	if m.echo, err = m.StartEcho(m.requestBytes()); err != nil {
		return err
	}
	if err := m.startProa(ctx, proa); err != nil {
		return err
	}
	if m.redisMissing == "" {
		err = errors.Join(
			m.startRedis(ctx, redisMemory, "--appendonly", "no"),
			m.startRedis(ctx, redisAlways, rig.FsyncAlways...))
	}
	for _, p := range m.servers {
		if err == nil {
			err = m.preload(ctx, p)
		}
	}
	return err
}

// requestBytes is the length of a PUT request, which the echo sends.
func (o *options) requestBytes() int {
	return len(bench.Proa{}.AppendRequest(nil, bench.Put, 1, bench.AppendKey(nil, 0), make([]byte, o.value)))
}

// startProa starts Proa on a fresh directory, with extra settings.
func (m *measurement) startProa(ctx context.Context, v variant, settings ...string) error {
	var set []string
	for _, s := range settings {
		set = append(set, "--set", s)
	}
	k := rig.Proa(string(v), m.Proa, set...)
	if m.certificate != nil {
		k = m.certificate.SecureProa(k)
	}
	return m.startServer(ctx, v, k, bench.Proa{})
}

func (m *measurement) startRedis(ctx context.Context, v variant, settings ...string) error {
	k := rig.Redis(string(v), m.redisPath, settings...)
	if m.certificate != nil {
		k = m.certificate.SecureRedis(k)
	}
	return m.startServer(ctx, v, k, bench.RESP{})
}

func (m *measurement) startServer(ctx context.Context, v variant, k rig.Kind, codec bench.Codec) error {
	p, err := m.StartServer(ctx, k, codec)
	if err == nil {
		m.servers[v] = p
	}
	return err
}

func (m *measurement) preload(ctx context.Context, p *rig.Server) error {
	l := m.describe(p, load{})
	l.Connections, l.InFlight = 8, 32
	return fill(ctx, p, l)
}

// fill writes all rows of a load.
func fill(ctx context.Context, p *rig.Server, l bench.Load) error {
	h, err := bench.Open(ctx, l)
	if err == nil {
		_, err = h.Preload(ctx)
	}
	if err != nil {
		return fmt.Errorf("filling %s: %w", p.Name, err)
	}
	return nil
}

// describe describes a measurement of p.
func (m *measurement) describe(p *rig.Server, l load) bench.Load {
	return bench.Load{
		Target: p.Target, Op: l.op, Connections: m.busy, InFlight: l.depth,
		Keys: m.keys, ValueBytes: m.value, Seed: 1, Duration: m.Step, Warmup: m.Warmup(m.Step), ServerCPU: p.CPU,
	}
}

// take measures p when everybody is at rest. The rate counts what was refused
// because the server was busy, too.
func (m *measurement) take(ctx context.Context, p *rig.Server, l bench.Load) (rig.Sample, error) {
	h, err := bench.Open(ctx, l)
	if err != nil {
		return rig.Sample{}, err
	}
	s, err := m.takeLoad(ctx, p, h, 0)
	s.Rate *= report.Quotient(float64(s.Ops), float64(s.Ops-s.Busy))
	return s, err
}

// takeLoad makes the load of a harness when everybody is at rest, with a rate
// of 0 in a closed loop.
func (m *measurement) takeLoad(ctx context.Context, p *rig.Server, h *bench.Harness, rate float64) (rig.Sample, error) {
	if err := m.rest(ctx); err != nil {
		return rig.Sample{}, err
	}
	_, s, err := runLoad(ctx, p, h, rate)
	return s, err
}

// runLoad makes the load of a harness, and refuses the figures where operations
// failed.
func runLoad(ctx context.Context, p *rig.Server, h *bench.Harness, rate float64) (*bench.LoadResult, rig.Sample, error) {
	what := h.Load().Workload.Name + " to " + p.Name
	r, err := h.Run(ctx, rate)
	if err = errors.Join(err, ctx.Err()); err != nil { // the end of ctx ends a run without an error
		return nil, rig.Sample{}, fmt.Errorf("%s: %w", what, errors.Join(err, p.Alive()))
	}
	s, err := checkedLoad(what, r)
	return r, s, err
}

// checkedLoad returns the figures of a run unless they mean nothing.
func checkedLoad(what string, r *bench.LoadResult) (rig.Sample, error) {
	if bad := r.Failed() - r.Errors[rig.BusyClass] + r.All.NotFound; bad > 0 {
		return rig.Sample{}, fmt.Errorf("%s: of %d operations %d failed and %d found no row; the first failure: %s",
			what, r.All.Ops+r.Failed(), r.Failed()-r.Errors[rig.BusyClass], r.All.NotFound, r.FirstError)
	}
	if r.All.Ops == 0 {
		return rig.Sample{}, fmt.Errorf("%s: not one operation was done; measure for longer, with -step or -ycsb-step", what)
	}
	return rig.SampleOf(r), nil
}

// rest waits until all servers are at rest.
func (m *measurement) rest(ctx context.Context) error {
	var all []*rig.Cluster
	for _, p := range m.servers {
		all = append(all, p.Cluster)
	}
	return rig.Rest(ctx, all...)
}

// measureSingle measures one connection with one request in flight.
func (m *measurement) measureSingle(ctx context.Context) error {
	return m.eachRound("one request at a time", func(int) error { return m.singleRound(ctx) })
}

func (m *measurement) singleRound(ctx context.Context) error {
	sync, loop, err := m.floors(ctx)
	if err != nil {
		return err
	}
	m.sync, m.loop = append(m.sync, sync), append(m.loop, loop)
	for _, v := range []variant{proa, redisAlways} {
		p := m.servers[v]
		if p == nil {
			continue
		}
		s, err := m.takeSingle(ctx, p)
		if err != nil {
			return err
		}
		m.single[v] = append(m.single[v], s)
	}
	return nil
}

// floors measures disk and loopback, one request at a time.
func (m *measurement) floors(ctx context.Context) (sync, loop rig.Sample, err error) {
	if err := m.rest(ctx); err != nil {
		return sync, loop, err
	}
	pairs, err := m.disk.Measure(ctx, m.Step)
	if err != nil {
		return sync, loop, fmt.Errorf("floor of the disk: %w", err)
	}
	loop, err = m.takeSingle(ctx, m.echo)
	return rig.SampleOfKind(pairs), loop, err
}

// takeSingle measures PUTs on one connection, one at a time.
func (m *measurement) takeSingle(ctx context.Context, p *rig.Server) (rig.Sample, error) {
	l := m.describe(p, load{bench.Put, 1})
	l.Connections = 1
	return m.take(ctx, p, l)
}

// measureLoads measures many connections.
func (m *measurement) measureLoads(ctx context.Context) error {
	return m.eachRound(fmt.Sprintf("%d connections", m.busy), func(int) error { return m.loadRound(ctx) })
}

func (m *measurement) loadRound(ctx context.Context) error {
	for _, l := range loads {
		for _, v := range []variant{proa, redisFor(l.op)} {
			p := m.servers[v]
			if p == nil {
				continue
			}
			s, err := m.take(ctx, p, m.describe(p, l))
			if err != nil {
				return err
			}
			k := key{l, v}
			m.loaded[k] = append(m.loaded[k], s)
		}
	}
	return nil
}
