//go:build linux

package growth

import (
	"fmt"
	"slices"

	"github.com/proa-kv/proa/bench/report"
	"github.com/proa-kv/proa/bench/rig"
)

// conditions are those of one point.
type conditions struct {
	Connections int    `json:"connections"`
	Shards      int    `json:"shards"`
	Value       int    `json:"value_bytes"`
	Keys        uint64 `json:"keys"`
	Nodes       int    `json:"nodes"`
}

// usual are the conditions of which a curve varies one.
var usual = conditions{Connections: 64, Shards: 8, Value: 128, Nodes: 1, Keys: 100_000}

// point is one point of a curve: conditions, and what was measured under them over
// the rounds.
type point struct {
	conditions
	Get rig.Series `json:"get"`
	Put rig.Series `json:"put"`
}

// kinds of requests that are measured at each point.
var kinds = []string{"get", "put"}

// series returns the samples of the kinds.
func (p *point) series() [2]*rig.Series { return [...]*rig.Series{&p.Get, &p.Put} }

// curve varies one condition.
type curve struct {
	name, title, axis string
	points            []point
	x                 func(*point) float64
	show              func(float64) string
	linear            bool // the axis of the charts
	note              string
}

// dataMax bounds the bytes of values of a point whose values are large.
const dataMax = 128 << 20

func vary[T any](values []T, set func(*point, T)) (out []point) {
	for _, v := range values {
		p := point{conditions: usual}
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
			points: vary([]int{1, 4, 16, 64, 256, 1024, 4096, 10_000}, func(p *point, n int) { p.Connections = n }),
			x:      func(p *point) float64 { return float64(p.Connections) }, show: report.Thousands,
			note: "One request is in flight on each connection.",
		},
		{
			name: "shards", title: "Shards", axis: "shards",
			points: vary([]int{1, 4, 16, 64, 256}, func(p *point, n int) { p.Shards = n }),
			x:      func(p *point) float64 { return float64(p.Shards) }, show: report.Thousands,
			note: "All shards are on one node.",
		},
		{
			name: "value", title: "Value size", axis: "value size",
			points: vary([]int{16, 128, 1 << 10, 8 << 10, 64 << 10, 1 << 20}, func(p *point, n int) {
				p.Value, p.Keys = n, min(p.Keys, uint64(dataMax/n))
			}),
			x: func(p *point) float64 { return float64(p.Value) }, show: report.ShortBytes,
			note: fmt.Sprintf("Large values have fewer keys, so that all together hold %s at most.", report.ShortBytes(dataMax)),
		},
		{
			name: "keys", title: "Keys", axis: "keys",
			points: vary([]uint64{10_000, 100_000, 1_000_000, 10_000_000}, func(p *point, n uint64) { p.Keys = n }),
			x:      func(p *point) float64 { return float64(p.Keys) }, show: report.Thousands,
		},
		{
			name: "nodes", title: "Nodes", axis: "nodes",
			points: vary([]int{1, 3, 5}, func(p *point, n int) { p.Nodes = n }),
			x:      func(p *point) float64 { return float64(p.Nodes) }, show: report.Thousands, linear: true,
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
				c.points[i].Keys = min(c.points[i].Keys, 2_000)
			}
		}
		out = append(out, c)
	}
	return out
}
