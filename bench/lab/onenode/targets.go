//go:build linux

package onenode

import (
	"fmt"

	"github.com/proa-kv/proa/bench"
	"github.com/proa-kv/proa/bench/report"
	"github.com/proa-kv/proa/bench/rig"
)

// targetTable lists every target with what was measured.
func (m *measurement) targetTable() report.Table {
	t := report.Table{Title: "Targets", Header: []string{"what", "target", "measured", "verdict"}}
	m.addSingleTargets(&t)
	m.addLoadTargets(&t)
	m.open.addTargets(&t)
	m.addCrowdTargets(&t)
	m.large.addTargets(&t)
	return t
}

// addSingleTargets adds those of one request at a time.
func (m *measurement) addSingleTargets(t *report.Table) {
	put := m.single[proa].Each(rig.P50)
	t.AddTarget("fsynced PUT, 1 × 1: median latency / (fdatasync + loopback echo)", report.AtMost(1.2), report.RatioOf(put, report.Sum(m.sync.Each(rig.P50), m.loop.Each(rig.P50))))
	t.AddTarget("fsynced PUT, 1 × 1: median latency / Redis, appendfsync always", report.AtMost(1.1), report.RatioOf(put, m.single[redisAlways].Each(rig.P50)))
}

// loadTarget is a bound on the ratio of Proa's figure to that of Redis.
type loadTarget struct {
	load
	what string
	of   rig.Figure
	report.Bound
}

func loadTargets() []loadTarget {
	const rate, cpu = "rate", "server CPU/op"
	return []loadTarget{
		{load{bench.Get, 1}, rate, rig.Rate, report.AtLeast(1.0)},
		{load{bench.Get, 1}, cpu, rig.ServerCPU, report.AtMost(1.0)},
		{load{bench.Get, deep}, rate, rig.Rate, report.AtLeast(0.8)},
		{load{bench.Put, 1}, rate, rig.Rate, report.AtLeast(1.4)},
		{load{bench.Put, 1}, cpu, rig.ServerCPU, report.AtMost(0.9)},
		{load{bench.Put, deep}, rate, rig.Rate, report.AtLeast(1.5)},
	}
}

// addLoadTargets adds those of many connections.
func (m *measurement) addLoadTargets(t *report.Table) {
	for _, g := range loadTargets() {
		redis := "Redis"
		if g.op == bench.Put {
			redis = "Redis, appendfsync always"
		}
		t.AddTarget(fmt.Sprintf("%s, %d × %d: %s / %s", described(g.op), m.busy, g.depth, g.what, redis), g.Bound, m.against(g.load, g.of))
	}
}

// described names an operation in a target.
func described(op bench.Op) string {
	if op == bench.Put {
		return "fsynced PUT"
	}
	return op.String()
}

// against compares a figure of Proa with that of Redis.
func (m *measurement) against(l load, of rig.Figure) report.Ratio {
	return report.RatioOf(m.loaded[key{l, proa}].Each(of), m.loaded[key{l, redisFor(l.op)}].Each(of))
}
