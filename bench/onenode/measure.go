//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

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
	progress io.Writer
	started  time.Time
	took     time.Duration

	data    string // the directory that holds everything, removed at the end
	disk    *rig.Disk
	echo    *process
	blobs   *process // floor of large values; nil until it is needed
	servers map[variant]*process
	// redisMissing says why there is no Redis, "" if there is.
	redisMissing string
	redisPath    string

	sync, loop series // floors: disk and loopback, one at a time
	single     map[variant]series
	loaded     map[key]series
	open       openLoop
	large      largeValues

	ycsbFigures ycsb

	idleOpened int   // idle connections that could be opened
	idleBytes  int64 // memory of all of them together
	crowded    map[crowd]series
	notes      []string
}

func newMeasurement(o options, progress io.Writer) (*measurement, error) {
	m := &measurement{
		options: o, progress: progress, started: time.Now(),
		servers: map[variant]*process{}, single: map[variant]series{}, loaded: map[key]series{}, crowded: map[crowd]series{},
		open: newOpenLoop(), large: largeValues{proa: map[bench.Op]series{}},
	}
	if _, err := exec.LookPath(o.proa); err != nil {
		return nil, fmt.Errorf("%w; build it first, with make build", err)
	}
	if !o.ycsb {
		m.findRedis()
	}
	dir, err := rig.DataDirectory(o.dir)
	if err != nil {
		return nil, err
	}
	if m.data, err = os.MkdirTemp(dir, "proa-bench-*"); err != nil {
		return nil, err
	}
	if rig.InMemory(m.data) {
		m.note("The data directory is on a file system in memory: nothing here is durable, and no figure of a PUT means anything.")
	}
	return m, nil
}

func (m *measurement) findRedis() {
	if m.redis == "" {
		m.redisMissing = "It was left out on request."
		return
	}
	path, err := exec.LookPath(m.redis)
	if err != nil {
		m.redisMissing = "There is no redis-server on this machine."
		fmt.Fprintf(m.progress, "%v: the comparison with Redis is left out. On Debian and Ubuntu: apt-get install redis-server\n", err)
		return
	}
	m.redisPath = path
}

func (m *measurement) note(format string, args ...any) {
	m.notes = append(m.notes, fmt.Sprintf(format, args...))
}

// close ends all servers and removes all data.
func (m *measurement) close() error {
	var err error
	for _, p := range m.servers {
		err = errors.Join(err, p.Stop())
	}
	for _, p := range []*process{m.echo, m.blobs} {
		if p != nil {
			err = errors.Join(err, p.Stop())
		}
	}
	if m.disk != nil {
		err = errors.Join(err, m.disk.Close())
	}
	return errors.Join(err, os.RemoveAll(m.data))
}

func (m *measurement) measure(ctx context.Context) error {
	measure := m.measureTable
	if m.ycsb {
		measure = m.measureYCSB
	}
	err := measure(ctx)
	m.took = time.Since(m.started)
	return err
}

// measureTable measures everything but YCSB.
func (m *measurement) measureTable(ctx context.Context) error {
	if err := m.startAll(ctx); err != nil {
		return err
	}
	for round := range m.rounds {
		m.say("round %d of %d: one request at a time", round+1, m.rounds)
		if err := m.measureSingle(ctx); err != nil {
			return err
		}
	}
	for round := range m.rounds {
		m.say("round %d of %d: %d connections", round+1, m.rounds, m.busy)
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

func (m *measurement) say(format string, args ...any) {
	fmt.Fprintf(m.progress, "%5.0f s  %s\n", time.Since(m.started).Seconds(), fmt.Sprintf(format, args...))
}

// startAll starts the servers and fills them.
func (m *measurement) startAll(ctx context.Context) error {
	m.say("starting servers, %d keys of %d bytes each", m.keys, m.value)
	var err error
	if m.disk, err = rig.NewDisk(filepath.Join(m.data, "floor")); err != nil {
		return fmt.Errorf("floor of the disk: %w", err)
	}
	if m.echo, err = startEcho(m.requestBytes()); err != nil {
		return err
	}
	if err := m.startProa(ctx, proa); err != nil {
		return err
	}
	if m.redisMissing == "" {
		err = errors.Join(
			m.startRedis(ctx, redisMemory, "--appendonly", "no"),
			m.startRedis(ctx, redisAlways, "--appendonly", "yes", "--appendfsync", "always", "--auto-aof-rewrite-percentage", "0"))
	}
	for _, p := range m.servers {
		if err == nil {
			err = m.preload(ctx, p)
		}
	}
	return err
}

// requestBytes is the length of a PUT request, which the echo sends.
func (m *measurement) requestBytes() int {
	return len(bench.Proa{}.AppendRequest(nil, bench.Put, 1, bench.AppendKey(nil, 0), make([]byte, m.value)))
}

// startProa starts Proa on a fresh directory, with extra settings.
func (m *measurement) startProa(ctx context.Context, v variant, settings ...string) error {
	p, err := startServer(ctx, string(v), m.data, bench.Proa{}, func(port string) []string {
		var set []string
		for _, s := range settings {
			set = append(set, "--set", s)
		}
		node := rig.Proa{Program: m.proa, Data: filepath.Join(m.data, string(v)), Client: "127.0.0.1:" + port}
		return node.Args(set...)
	})
	if err != nil {
		return err
	}
	m.servers[v] = p
	return nil
}

func (m *measurement) startRedis(ctx context.Context, v variant, settings ...string) error {
	dir := filepath.Join(m.data, string(v))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	p, err := startServer(ctx, string(v), m.data, bench.RESP{}, func(port string) []string {
		args := []string{m.redisPath, "--port", port, "--bind", "127.0.0.1", "--daemonize", "no", "--dir", dir, "--save", ""}
		return append(args, settings...)
	})
	if err != nil {
		return err
	}
	m.servers[v] = p
	return nil
}

func (m *measurement) preload(ctx context.Context, p *process) error {
	c := m.config(p, load{})
	c.Connections, c.InFlight = 8, 32
	if _, err := bench.Preload(ctx, c); err != nil {
		return fmt.Errorf("filling %s: %w", p.Name(), err)
	}
	return nil
}

// config describes a measurement of p.
func (m *measurement) config(p *process, l load) bench.Config {
	return bench.Config{
		Target: p.target, Op: l.op, Connections: m.busy, InFlight: l.depth,
		Keys: m.keys, ValueBytes: m.value, Seed: 1, Duration: m.step, Warmup: m.step / 5, ServerCPU: p.CPU,
	}
}

// take measures p when everybody is at rest, and refuses the figure where
// requests failed.
func (m *measurement) take(ctx context.Context, p *process, c bench.Config) (sample, error) {
	if err := m.rest(ctx); err != nil {
		return sample{}, err
	}
	r, err := bench.Run(ctx, c)
	if err != nil {
		return sample{}, fmt.Errorf("%v to %s: %w", c.Op, p.Name(), errors.Join(err, p.Alive()))
	}
	if bad := r.Failed + r.NotFound; bad > 0 {
		return sample{}, fmt.Errorf("%v to %s: %d of %d requests failed, %d keys were not found; the first failure: %s", c.Op, p.Name(), r.Failed, r.Ops, r.NotFound, r.FirstFailure)
	}
	if r.Ops == 0 {
		return sample{}, fmt.Errorf("%v to %s: not one reply within %v", c.Op, p.Name(), m.step)
	}
	return sampleOf(r), nil
}

// rest waits until all servers are at rest.
func (m *measurement) rest(ctx context.Context) error {
	ps := make([]*rig.Process, 0, len(m.servers))
	for _, p := range m.servers {
		ps = append(ps, p.Process)
	}
	return rig.Rest(ctx, ps...)
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
func (m *measurement) floors(ctx context.Context) (sync, loop sample, err error) {
	if err := m.rest(ctx); err != nil {
		return sync, loop, err
	}
	h, err := m.disk.Measure(ctx, m.step)
	if err != nil {
		return sync, loop, fmt.Errorf("floor of the disk: %w", err)
	}
	loop, err = m.takeSingle(ctx, m.echo)
	return latencies(h), loop, err
}

// takeSingle measures PUTs on one connection, one at a time.
func (m *measurement) takeSingle(ctx context.Context, p *process) (sample, error) {
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
