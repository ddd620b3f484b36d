//go:build linux

package growth

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/proa-kv/proa/bench/report"
	"github.com/proa-kv/proa/bench/rig"
)

// column is one figure of a table.
type column struct {
	name string // %s stands for the kind of request
	rig.Figure
}

var columns = []column{{"%s/s", rig.Rate}, {"p50, µs", rig.P50}, {"p99, µs", rig.P99}, {"p99.9, µs", rig.P999}, {"server CPU, µs/op", rig.ServerCPU}}

// knows reports whether a figure was measured.
func (c *curve) knows(figure rig.Figure) bool {
	return slices.ContainsFunc(c.points, func(p point) bool { return p.Get.Median(figure) > 0 || p.Put.Median(figure) > 0 })
}

// table shows one curve.
func (c *curve) table() report.Table {
	t := report.Table{Title: c.title, Header: []string{c.axis}}
	known := columns
	if !c.knows(rig.P999) {
		known = slices.DeleteFunc(slices.Clone(columns), func(c column) bool { return strings.HasPrefix(c.name, "p99.9") })
	}
	for _, kind := range kinds {
		for _, col := range known {
			t.Header = append(t.Header, strings.Replace(col.name, "%s", strings.ToUpper(kind), 1))
		}
	}
	t.Header = append(t.Header, "failed")
	for i := range c.points {
		p := &c.points[i]
		row, failed := []string{c.show(c.x(p))}, uint64(0)
		for _, s := range p.series() {
			for _, col := range known {
				row = append(row, s.Cells(col.Figure)...)
			}
			failed += s.Failed()
		}
		t.Add(append(row, fmt.Sprint(failed))...)
	}
	if c.note != "" {
		t.Notes = []string{c.note}
	}
	return t
}

// charts draw one curve: throughput, latency and CPU time.
func (c *curve) charts() []report.Chart {
	line := func(name string, k int, figure rig.Figure, unit float64) report.Line {
		l := report.Line{Name: name, Marks: true}
		for i := range c.points {
			p := &c.points[i]
			if y := p.series()[k].Median(figure); y > 0 {
				l.Points = append(l.Points, report.XY{X: c.x(p), Y: y / unit})
			}
		}
		return l
	}
	x := report.Axis{Label: c.axis, Log: !c.linear, Show: c.show}
	for i := range c.points {
		x.Ticks = append(x.Ticks, c.x(&c.points[i]))
	}
	charts := []report.Chart{
		{
			Title: c.title + ": throughput", X: x, Y: report.Axis{Label: "requests per second", Show: report.Thousands},
			Lines: []report.Line{line("GET", 0, rig.Rate, 1), line("PUT", 1, rig.Rate, 1)},
		},
		{
			Title: c.title + ": latency", X: x, Y: report.Axis{Label: "latency", Log: true, Show: report.ShortDuration},
			Lines: report.WithPoints(
				line("GET p50", 0, rig.P50, 1e3), line("PUT p50", 1, rig.P50, 1e3), line("GET p99", 0, rig.P99, 1e3), line("PUT p99", 1, rig.P99, 1e3),
				line("GET p99.9", 0, rig.P999, 1e3), line("PUT p99.9", 1, rig.P999, 1e3)),
		},
		{
			Title: c.title + ": CPU time", X: x, Y: report.Axis{Label: "CPU time per request", Show: report.ShortDuration},
			Lines: []report.Line{
				line("GET server", 0, rig.ServerCPU, 1e3), line("PUT server", 1, rig.ServerCPU, 1e3),
				line("GET client", 0, rig.GeneratorCPU, 1e3), line("PUT client", 1, rig.GeneratorCPU, 1e3),
			},
		},
	}
	for i := range charts {
		charts[i].Y.Log = charts[i].Y.Log || spread(charts[i].Lines) > linearSpread
	}
	return charts
}

// linearSpread is how many times the least value the largest may be on a linear
// axis: beyond that the least could not be distinguished from 0.
const linearSpread = 30

// spread returns how many times the least value of all lines the largest is.
func spread(lines []report.Line) float64 {
	least, largest := math.Inf(1), 0.0
	for _, l := range lines {
		for _, p := range l.Points {
			least, largest = min(least, p.Y), max(largest, p.Y)
		}
	}
	return largest / least
}

func (m *measurement) roundsText() string {
	if m.Rounds == 1 {
		return "one round"
	}
	return fmt.Sprintf("medians of %d rounds", m.Rounds)
}

// record is the outcome of a run: what the figures depend on, and the figures.
func (m *measurement) record() *record {
	r := &record{Notes: m.Notes, Conditions: append(
		m.Conditions("growth", m.command(), rig.VersionLine(m.Proa, "version")),
		fmt.Sprintf("Defaults: one node, %d shards, %d connections with one request in flight each, %s keys chosen uniformly, values of %d bytes; %s of %v. A PUT is acknowledged when it is fsynced on a majority, a GET is linearizable.",
			usual.Shards, usual.Connections, report.Thousands(float64(usual.Keys)), usual.Value, m.roundsText(), m.Step))}
	for _, c := range m.curves {
		r.Curves = append(r.Curves, recordedCurve{c.name, c.points})
	}
	return r
}

// headlines are the figures under the usual conditions, if they were measured.
func (c *curve) headlines() (out []report.Headline) {
	at := slices.IndexFunc(c.points, func(p point) bool { return p.conditions == usual })
	if at < 0 {
		return nil
	}
	tail, percentile := rig.P99, "p99"
	if c.knows(rig.P999) {
		tail, percentile = rig.P999, "p99.9"
	}
	note := fmt.Sprintf("%d connections", usual.Connections)
	for k, name := range []string{"GET", "PUT"} {
		s := c.points[at].series()[k]
		out = append(out,
			report.Headline{Value: report.Thousands(s.Median(rig.Rate)), Name: name + "s per second", Note: note},
			report.Headline{Value: report.Duration(s.Median(tail) / 1e3), Name: percentile + " latency of " + name, Note: note},
			report.Headline{Value: report.Duration(s.Median(rig.ServerCPU) / 1e3), Name: "server CPU per " + name, Note: note})
	}
	return out
}
