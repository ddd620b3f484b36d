//go:build linux

package growth

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/proa-kv/proa/bench"
	"github.com/proa-kv/proa/bench/rig"
)

// kinds of requests that are measured at each point.
var kinds = []string{"get", "put"}

// samples of one point by kind, over the rounds.
type samples [2]rig.Series

// measurement is one run of the program.
type measurement struct {
	options
	*rig.Lab
	curves  []curve
	figures [][]samples // by curve and point
}

func newMeasurement(o options, lab *rig.Lab) *measurement {
	m := &measurement{options: o, Lab: lab, curves: curvesOf(&o)}
	for _, c := range m.curves {
		m.figures = append(m.figures, make([]samples, len(c.points)))
	}
	return m
}

func (m *measurement) measure(ctx context.Context) error {
	for i := range m.curves {
		c := &m.curves[i]
		for round := range m.Rounds {
			m.Say("%s, round %d of %d", c.name, round+1, m.Rounds)
			for k, p := range c.points {
				if err := m.at(ctx, p, &m.figures[i][k]); err != nil {
					return fmt.Errorf("%s %s: %w", c.show(c.x(p)), c.axis, err)
				}
			}
		}
	}
	return nil
}

// at measures one point.
func (m *measurement) at(ctx context.Context, p point, s *samples) (err error) {
	c, err := rig.StartCluster(ctx, m.Data, p.nodes, rig.Proa("proa", m.Proa,
		"--shards", strconv.Itoa(p.shards), "--set", fmt.Sprintf("concurrency.max_connections=%d", p.connections+1000)))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Remove()) }()
	for k, kind := range kinds {
		w, err := bench.FindWorkload(kind)
		if err != nil {
			return err
		}
		w.ValueBytes = bench.FixedSize(p.value)
		h, err := bench.Open(ctx, bench.Load{
			Addresses: c.Endpoints(), Workload: w, Keys: p.keys, Seed: 1, Connections: p.connections,
			Duration: m.Step, Warmup: m.Step / 4,
		})
		if err != nil {
			return err
		}
		if k == 0 {
			if _, err := h.Preload(ctx); err != nil {
				return err
			}
		}
		if err := rig.Rest(ctx, c); err != nil {
			return err
		}
		r, err := h.Run(ctx, 0)
		if err != nil {
			return err
		}
		if r.Interrupted {
			return context.Cause(ctx)
		}
		s[k] = append(s[k], rig.SampleOf(r))
	}
	return nil
}
