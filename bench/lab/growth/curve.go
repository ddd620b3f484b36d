//go:build linux

package growth

import (
	"fmt"
	"slices"

	"github.com/proa-kv/proa/bench/report"
)

// point is one set of conditions.
type point struct {
	connections, shards, value, nodes int
	keys                              uint64
}

// usual are the conditions of which a curve varies one.
var usual = point{connections: 64, shards: 8, value: 128, nodes: 1, keys: 100_000}

// curve varies one condition.
type curve struct {
	name, title, axis string
	points            []point
	x                 func(point) float64
	show              func(float64) string
	linear            bool // the axis of the charts
	note              string
}

// dataMax bounds the bytes of values of a point whose values are large.
const dataMax = 128 << 20

func vary[T any](values []T, set func(*point, T)) (out []point) {
	for _, v := range values {
		p := usual
		set(&p, v)
		out = append(out, p)
	}
	return out
}

// curves returns all of them.
func curves() []curve {
	return []curve{
		{
			name: "connections", title: "Connections", axis: "connections",
			points: vary([]int{1, 4, 16, 64, 256, 1024, 4096, 10_000}, func(p *point, n int) { p.connections = n }),
			x:      func(p point) float64 { return float64(p.connections) }, show: report.Thousands,
			note: "One request is in flight on each connection.",
		},
		{
			name: "shards", title: "Shards", axis: "shards",
			points: vary([]int{1, 4, 16, 64, 256}, func(p *point, n int) { p.shards = n }),
			x:      func(p point) float64 { return float64(p.shards) }, show: report.Thousands,
			note: "All shards are on one node.",
		},
		{
			name: "value", title: "Value size", axis: "value size",
			points: vary([]int{16, 128, 1 << 10, 8 << 10, 64 << 10, 1 << 20}, func(p *point, n int) {
				p.value, p.keys = n, min(p.keys, uint64(dataMax/n))
			}),
			x: func(p point) float64 { return float64(p.value) }, show: report.ShortBytes,
			note: fmt.Sprintf("Large values have fewer keys, so that all together hold %s at most.", report.ShortBytes(dataMax)),
		},
		{
			name: "keys", title: "Keys", axis: "keys",
			points: vary([]uint64{10_000, 100_000, 1_000_000, 10_000_000}, func(p *point, n uint64) { p.keys = n }),
			x:      func(p point) float64 { return float64(p.keys) }, show: report.Thousands,
		},
		{
			name: "nodes", title: "Nodes", axis: "nodes",
			points: vary([]int{1, 3, 5}, func(p *point, n int) { p.nodes = n }),
			x:      func(p point) float64 { return float64(p.nodes) }, show: report.Thousands, linear: true,
			note: "All nodes run on one machine and share its processors and disk. With three nodes or more each shard has three replicas.",
		},
	}
}

// curvesOf returns those that the options ask for. A smoke run has the first two
// points of each, and few keys.
func curvesOf(o *options) (out []curve) {
	for _, c := range curves() {
		if o.only != "" && o.only != c.name {
			continue
		}
		if o.Quick {
			c.points = slices.Clone(c.points[:2])
			for i := range c.points {
				c.points[i].keys = min(c.points[i].keys, 2_000)
			}
		}
		out = append(out, c)
	}
	return out
}
