//go:build linux

package onenode

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"

	"github.com/proa-kv/proa/bench"
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
		m.Say("%v: the comparison with Redis is left out. On Debian and Ubuntu: apt-get install redis-server", err)
		return
	}
	m.redisPath = path
}

func (m *measurement) measure(ctx context.Context) error {
	if m.ycsb {
		return m.measureYCSB(ctx)
	}
	return m.measureTable(ctx)
}

// measureTable measures everything but YCSB.
func (m *measurement) measureTable(ctx context.Context) error {
	if err := m.startAll(ctx); err != nil {
		return err
	}
	for round := range m.Rounds {
		m.Say("round %d of %d: one request at a time", round+1, m.Rounds)
		if err := m.measureSingle(ctx); err != nil {
			return err
		}
	}
	for round := range m.Rounds {
		m.Say("round %d of %d: %d connections", round+1, m.Rounds, m.busy)
		if err := m.measureLoads(ctx); err != nil {
			return err
		}
	}
	for _, measure := range []func(context.Context) error{m.measureOpen, m.measureLarge, m.measureCrowd} {
		if err := measure(ctx); err != nil {
			return err
		}
	}
	return nil
}

// startAll starts the servers and fills them.
func (m *measurement) startAll(ctx context.Context) error {
	m.Say("starting servers, %d keys of %d bytes each", m.keys, m.value)
	var err error
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
	return m.startServer(ctx, v, rig.Proa(string(v), m.Proa, set...), bench.Proa{})
}

func (m *measurement) startRedis(ctx context.Context, v variant, settings ...string) error {
	return m.startServer(ctx, v, rig.Redis(string(v), m.redisPath, settings...), bench.RESP{})
}

func (m *measurement) startServer(ctx context.Context, v variant, k rig.Kind, codec bench.Codec) error {
	p, err := m.StartServer(ctx, k, codec)
	if err == nil {
		m.servers[v] = p
	}
	return err
}

func (m *measurement) preload(ctx context.Context, p *rig.Server) error {
	c := m.config(p, load{})
	c.Connections, c.InFlight = 8, 32
	if _, err := bench.Preload(ctx, c); err != nil {
		return fmt.Errorf("filling %s: %w", p.Name, err)
	}
	return nil
}

// config describes a measurement of p.
func (m *measurement) config(p *rig.Server, l load) bench.Config {
	return bench.Config{
		Target: p.Target, Op: l.op, Connections: m.busy, InFlight: l.depth,
		Keys: m.keys, ValueBytes: m.value, Seed: 1, Duration: m.Step, Warmup: m.Step / 5, ServerCPU: p.CPU,
	}
}

// take measures p when everybody is at rest, and refuses the figure where
// requests failed.
func (m *measurement) take(ctx context.Context, p *rig.Server, c bench.Config) (rig.Sample, error) {
	if err := m.rest(ctx); err != nil {
		return rig.Sample{}, err
	}
	r, err := bench.Run(ctx, c)
	if err != nil {
		return rig.Sample{}, fmt.Errorf("%v to %s: %w", c.Op, p.Name, errors.Join(err, p.Alive()))
	}
	if bad := r.Failed + r.NotFound; bad > 0 {
		return rig.Sample{}, fmt.Errorf("%v to %s: %d of %d requests failed, %d keys were not found; the first failure: %s", c.Op, p.Name, r.Failed, r.Ops, r.NotFound, r.FirstFailure)
	}
	if r.Ops == 0 {
		return rig.Sample{}, fmt.Errorf("%v to %s: not one reply within %v", c.Op, p.Name, m.Step)
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

// measureSingle is one round of one connection with one request in flight.
func (m *measurement) measureSingle(ctx context.Context) error {
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
	h, err := m.disk.Measure(ctx, m.Step)
	if err != nil {
		return sync, loop, fmt.Errorf("floor of the disk: %w", err)
	}
	loop, err = m.takeSingle(ctx, m.echo)
	return rig.SampleOfLatencies(h), loop, err
}

// takeSingle measures PUTs on one connection, one at a time.
func (m *measurement) takeSingle(ctx context.Context, p *rig.Server) (rig.Sample, error) {
	c := m.config(p, load{bench.Put, 1})
	c.Connections = 1
	return m.take(ctx, p, c)
}

// measureLoads is one round of many connections.
func (m *measurement) measureLoads(ctx context.Context) error {
	for _, l := range loads {
		for _, v := range []variant{proa, redisFor(l.op)} {
			p := m.servers[v]
			if p == nil {
				continue
			}
			s, err := m.take(ctx, p, m.config(p, l))
			if err != nil {
				return err
			}
			k := key{l, v}
			m.loaded[k] = append(m.loaded[k], s)
		}
	}
	return nil
}
