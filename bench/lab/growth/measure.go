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

// measurement is one run of the program.
type measurement struct {
	options
	*rig.Lab
	curves []curve
}

func (m *measurement) measure(ctx context.Context) error {
	for _, c := range m.curves {
		for round := range m.Rounds {
			m.Progress("%s, round %d of %d", c.name, round+1, m.Rounds)
			for i := range c.points {
				p := &c.points[i]
				if err := m.at(ctx, p); err != nil {
					return fmt.Errorf("%s %s: %w", c.show(c.x(p)), c.axis, err)
				}
			}
		}
	}
	return nil
}

// at measures one point.
func (m *measurement) at(ctx context.Context, p *point) (err error) {
	c, err := rig.StartCluster(ctx, m.Data, p.Nodes, rig.Proa("proa", m.Proa,
		"--shards", strconv.Itoa(p.Shards), "--set", fmt.Sprintf("concurrency.max_connections=%d", p.Connections+1000)))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Remove()) }()
	for k, kind := range kinds {
		w, err := bench.FindWorkload(kind)
		if err != nil {
			return err
		}
		w.ValueBytes = bench.FixedSize(p.Value)
		h, err := bench.Open(ctx, bench.Load{
			Addresses: c.Endpoints(), Workload: w, Keys: uint64(p.Keys), Seed: 1, Connections: p.Connections,
			Duration: m.Step, Warmup: m.Warmup(m.Step),
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
		s := p.series()[k]
		*s = append(*s, rig.SampleOf(r))
	}
	return nil
}
