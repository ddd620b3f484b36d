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
	Connections int `json:"connections"`
	Shards      int `json:"shards"`
	Value       int `json:"value_bytes"`
	Keys        int `json:"keys"`
	Nodes       int `json:"nodes"`
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
	name, title string
	axis        string
	of          func(*conditions) *int // the condition
	values      []int
	show        func(float64) string
	linear      bool // the axis of the charts
	note        string

	points []point
}

// x returns where a point stands.
func (c *curve) x(p *point) float64 { return float64(*c.of(&p.conditions)) }

// dataMax bounds the bytes of values of a point whose values are large.
const dataMax = 128 << 20

// curves returns all of them.
func curves() []curve {
	all := []curve{
		{
			name: "connections", title: "Connections", axis: "connections", of: func(c *conditions) *int { return &c.Connections },
			values: []int{1, 4, 16, 64, 256, 1024, 4096, 10_000}, show: report.Thousands,
			note: "One request is in flight on each connection.",
		},
		{
			name: "shards", title: "Shards", axis: "shards", of: func(c *conditions) *int { return &c.Shards },
			values: []int{1, 4, 16, 64, 256}, show: report.Thousands,
			note: "All shards are on one node.",
		},
		{
			name: "value", title: "Value size", axis: "value size", of: func(c *conditions) *int { return &c.Value },
			values: []int{16, 128, 1 << 10, 8 << 10, 64 << 10, 1 << 20}, show: report.ShortBytes,
			note: fmt.Sprintf("Large values have fewer keys, so that all together hold %s at most.", report.ShortBytes(dataMax)),
		},
		{
			name: "keys", title: "Keys", axis: "keys", of: func(c *conditions) *int { return &c.Keys },
			values: []int{10_000, 100_000, 1_000_000, 10_000_000}, show: report.Thousands,
		},
		{
			name: "nodes", title: "Nodes", axis: "nodes", of: func(c *conditions) *int { return &c.Nodes },
			values: []int{1, 3, 5}, show: report.Thousands, linear: true,
			note: "All nodes run on one machine and share its processors and disk. With three nodes or more each shard has three replicas.",
		},
	}
	for i := range all {
		c := &all[i]
		for _, v := range c.values {
			p := point{conditions: usual}
			if *c.of(&p.conditions) = v; p.Value > usual.Value {
				p.Keys = min(p.Keys, dataMax/p.Value)
			}
			c.points = append(c.points, p)
		}
	}
	return all
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
