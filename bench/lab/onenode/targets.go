//go:build linux

package onenode

import (
	"fmt"
	"slices"

	"github.com/proa-kv/proa/bench"
	"github.com/proa-kv/proa/bench/report"
	"github.com/proa-kv/proa/bench/rig"
)

// targetTable lists every target with what was measured.
func (m *measurement) targetTable() report.Table {
	t := report.Table{Title: "Targets", Header: []string{"what", "target", "measured", "verdict"}}
	put := m.single[proa].Each(rig.P50)
	t.AddTarget("fsynced PUT, 1 × 1: median latency / (fdatasync + loopback echo)", report.AtMost(1.2), report.RatioOf(put, report.Sum(m.sync.Each(rig.P50), m.loop.Each(rig.P50))))
	t.AddTarget("fsynced PUT, 1 × 1: median latency / Redis, appendfsync always", report.AtMost(1.1), report.RatioOf(put, m.single[redisAlways].Each(rig.P50)))
	for _, g := range loadTargets() {
		redis := "Redis"
		if g.op == bench.Put {
			redis = "Redis, appendfsync always"
		}
		t.AddTarget(fmt.Sprintf("%s, %d × %d: %s / %s", described(g.op), m.busy, g.depth, g.what, redis), g.Bound, m.against(g.load, g.of))
	}
	for _, g := range []struct {
		op   bench.Op
		what string
		of   rig.Figure
		most float64 // milliseconds
	}{{bench.Get, "p99", rig.P99, 0.5}, {bench.Get, "p99.9", rig.P999, 2}, {bench.Put, "p99", rig.P99, 2}} {
		t.AddTarget(fmt.Sprintf("%s at half of its highest rate, open loop: %s, ms", described(g.op), g.what), report.AtMost(g.most), millis(m.open.half[g.op].Each(g.of)))
	}
	m.addIdleMemory(&t)
	for _, op := range []bench.Op{bench.Get, bench.Put} {
		t.AddTarget(fmt.Sprintf("%s, %d × 1: rate with / without %d idle connections", described(op), m.busy, m.idleOpened), report.AtLeast(0.9), m.crowdRatio(crowd{op, m.busy, m.idleOpened}))
	}
	for _, op := range []bench.Op{bench.Get, bench.Put} {
		t.AddTarget(fmt.Sprintf("%s: rate of %d connections of which %d are busy / of %d", described(op), m.idleOpened, m.crowd, m.crowd), report.AtLeast(0.9), m.crowdRatio(crowd{op, m.crowd, m.idleOpened - m.crowd}))
	}
	largePut, largeGet := m.large.ratios()
	t.AddTarget("fsynced PUT of 256 KiB: bytes/s / the disk's sequential writes with fdatasync", report.AtLeast(0.4), largePut)
	t.AddTarget("GET of 256 KiB: bytes/s / loopback copy", report.AtLeast(0.6), largeGet)
	return t
}

// addIdleMemory adds the target of the memory of an idle connection.
func (m *measurement) addIdleMemory(t *report.Table) {
	bound, measured, verdict := report.AtMost(4096), report.NotMeasured, "–"
	if m.idleOpened > 0 {
		each := float64(m.idleBytes) / float64(m.idleOpened)
		measured, verdict = fmt.Sprintf("%.0f", each), bound.Verdict(each)
	}
	t.Add(fmt.Sprintf("server memory for each of %d idle connections, bytes", m.idleOpened), bound.String(), measured, verdict)
}

// millis turns nanoseconds of each round into a figure in milliseconds.
func millis(ns []float64) report.Ratio {
	return report.RatioOf(ns, slices.Repeat([]float64{1e6}, len(ns)))
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
