//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/proa-kv/proa/bench"
	"github.com/proa-kv/proa/bench/rig"
	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/command"
)

// kinds of requests that are measured at each point.
var kinds = []string{"get", "put"}

// sample is one measurement. Times are in nanoseconds. P999 is 0 in records of
// runs that did not measure it.
type sample struct {
	Rate      float64 `json:"rate"`
	P50       float64 `json:"p50"`
	P99       float64 `json:"p99"`
	P999      float64 `json:"p99.9,omitempty"`
	Server    float64 `json:"server_cpu"`
	Generator float64 `json:"generator_cpu"`
	Failed    uint64  `json:"failed"`
}

// samples of one point by kind, over the rounds.
type samples [2][]sample

// measurement is one run of the program.
type measurement struct {
	options
	data     string // directory
	progress io.Writer
	started  time.Time
	took     time.Duration
	curves   []curve
	figures  [][]samples // by curve and point
}

func newMeasurement(o options, progress io.Writer) (*measurement, error) {
	dir, err := os.MkdirTemp(o.dir, "proa-growth-*")
	if err != nil {
		return nil, err
	}
	m := &measurement{options: o, data: dir, progress: progress, started: time.Now(), curves: curvesOf(&o)}
	for _, c := range m.curves {
		m.figures = append(m.figures, make([]samples, len(c.points)))
	}
	return m, nil
}

func (m *measurement) close() error { return os.RemoveAll(m.data) }

func (m *measurement) say(format string, args ...any) {
	fmt.Fprintf(m.progress, "%5.0f s  %s\n", time.Since(m.started).Seconds(), fmt.Sprintf(format, args...))
}

func (m *measurement) measure(ctx context.Context) error {
	for i := range m.curves {
		c := &m.curves[i]
		for round := range m.rounds {
			m.say("%s, round %d of %d", c.name, round+1, m.rounds)
			for k, p := range c.points {
				if err := m.at(ctx, p, &m.figures[i][k]); err != nil {
					return fmt.Errorf("%s %s: %w", c.show(c.x(p)), c.axis, err)
				}
			}
		}
	}
	m.took = time.Since(m.started)
	return nil
}

// at measures one point.
func (m *measurement) at(ctx context.Context, p point, s *samples) (err error) {
	dir, err := os.MkdirTemp(m.data, "point-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	servers, err := start(ctx, m.proa, dir, p)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, servers.stop()) }()
	for k, kind := range kinds {
		w, err := bench.FindWorkload(kind)
		if err != nil {
			return err
		}
		w.ValueBytes = bench.FixedSize(p.value)
		h, err := bench.Open(ctx, bench.Load{
			Addresses: servers.addresses, Workload: w, Keys: p.keys, Seed: 1, Connections: p.connections,
			Duration: m.step, Warmup: m.step / 4,
		})
		if err != nil {
			return err
		}
		if k == 0 {
			if _, err := h.Preload(ctx); err != nil {
				return err
			}
		}
		if err := rig.Rest(ctx, servers.processes...); err != nil {
			return err
		}
		r, err := h.Run(ctx, 0)
		if err != nil {
			return err
		}
		if r.Interrupted {
			return context.Cause(ctx)
		}
		s[k] = append(s[k], sample{
			Rate: r.Throughput(), P50: float64(r.All.Quantile(0.5)), P99: float64(r.All.Quantile(0.99)), P999: float64(r.All.Quantile(0.999)),
			Server: float64(r.ServerPerOp()), Generator: float64(r.GeneratorPerOp()), Failed: r.Failed(),
		})
	}
	return nil
}

// servers are the nodes of one cluster.
type servers struct {
	addresses []string // for clients
	processes []*rig.Process
}

// start starts a cluster and waits until every shard has all its replicas and
// leaders are spread.
func start(ctx context.Context, program, dir string, p point) (*servers, error) {
	s := &servers{}
	err := rig.OnFreePorts(2*p.nodes, func(ports []string) error {
		*s = servers{}
		var peers []string
		for i := range p.nodes {
			s.addresses = append(s.addresses, net.JoinHostPort("127.0.0.1", ports[i]))
			peers = append(peers, net.JoinHostPort("127.0.0.1", ports[p.nodes+i]))
		}
		for i := range p.nodes {
			node := rig.Proa{Program: program, Data: filepath.Join(dir, strconv.Itoa(i+1)), Client: s.addresses[i], Peers: peers, ID: i + 1}
			process, err := rig.Start(fmt.Sprintf("proa-%d", i+1), dir, node.Args(
				"--shards", strconv.Itoa(p.shards), "--set", fmt.Sprintf("concurrency.max_connections=%d", p.connections+1000)))
			if err != nil {
				return errors.Join(err, s.stop())
			}
			s.processes = append(s.processes, process)
		}
		if err := rig.Await(ctx, func(ctx context.Context) error { return s.settled(ctx, p) }, s.processes...); err != nil {
			return errors.Join(err, s.stop())
		}
		return nil
	})
	return s, err
}

// settled says what a cluster still waits for.
func (s *servers) settled(ctx context.Context, p point) error {
	c, err := client.New(ctx, client.Config{Endpoints: s.addresses[:1], ForwardOnly: true})
	if err != nil {
		return err
	}
	defer c.Close()
	reply, err := c.Admin(ctx, command.AdminStatus, []byte("{}"))
	if err != nil {
		return err
	}
	var status command.ClusterStatus
	if err := json.Unmarshal(reply, &status); err != nil {
		return err
	}
	led := make([]int, p.nodes+1)
	for _, sh := range status.Shards {
		if sh.Leader == 0 || sh.Moving || len(sh.Replicas) < min(3, p.nodes) {
			return fmt.Errorf("shard %d has not settled", sh.Shard)
		}
		led[sh.Leader]++ // that of the meta shard too: nodes count it when they spread leaders
	}
	if most, least := slices.Max(led[1:]), slices.Min(led[1:]); most-least > 1 {
		return fmt.Errorf("one node leads %d shards, another %d", most, least)
	}
	return nil
}

func (s *servers) stop() error { return rig.StopAll(s.processes...) }
