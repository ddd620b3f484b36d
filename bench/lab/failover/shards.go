//go:build linux

package failover

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/proa-kv/proa/bench"
	"github.com/proa-kv/proa/bench/report"
	"github.com/proa-kv/proa/bench/rig"
)

// The load of throughput.
const (
	rateCallers = 256
	rateClients = 16
)

// ratioOfMedians compares a figure of a with that of b: the ratio of their
// medians, and the smallest and largest ratio within a round.
func ratioOfMedians(a, b rig.Series, of rig.Figure) report.Ratio {
	r := report.RatioOf(a.Each(of), b.Each(of))
	r.Median = report.Quotient(a.Median(of), b.Median(of))
	return r
}

// measureShards measures throughput with few and with many shards, in turn.
func (m *measurement) measureShards(ctx context.Context) error {
	few, err := m.startCluster(ctx, shardsFew)
	if err != nil {
		return err
	}
	many, err := m.startCluster(ctx, shardsMany)
	if err != nil {
		return err
	}
	m.Progress("filling both with %d keys", m.keys)
	for _, c := range []*rig.Cluster{few, many} {
		if err := m.withCallers(ctx, c, (*rig.Callers).Preload); err != nil {
			return fmt.Errorf("filling: %w", err)
		}
	}
	for round := range m.Rounds {
		m.Progress("%d of %d: throughput with %d and with %d shards", round+1, m.Rounds, shardsFew, shardsMany)
		for _, v := range []struct {
			*rig.Cluster
			into *rig.Series
		}{{few, &m.few}, {many, &m.many}} {
			if err := rig.Rest(ctx, few, many); err != nil {
				return err
			}
			err := m.withCallers(ctx, v.Cluster, func(callers *rig.Callers, ctx context.Context, d rig.Driver) error {
				s, err := callers.Run(ctx, d)
				*v.into = append(*v.into, s)
				return err
			})
			if err != nil {
				return fmt.Errorf("throughput of %s: %w", v.Name, err)
			}
		}
	}
	return errors.Join(few.Stop(), many.Stop())
}

// withCallers connects callers to a cluster for as long as f takes.
func (m *measurement) withCallers(ctx context.Context, c *rig.Cluster, f func(*rig.Callers, context.Context, rig.Driver) error) error {
	d, err := rig.ConnectProa(ctx, c.Endpoints(), rateClients)
	if err != nil {
		return err
	}
	callers := &rig.Callers{
		Loop: rig.Loop{Callers: rateCallers, Warmup: m.Warmup(m.Step), Duration: m.Step, Timeout: 30 * time.Second, ServerCPU: c.CPU},
		Op:   bench.Put, Keys: m.keys, Seed: 1, Value: bench.NewValue(m.value, 1),
	}
	return errors.Join(f(callers, ctx, d), d.Close())
}
