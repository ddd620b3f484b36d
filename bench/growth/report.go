//go:build linux

package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/proa-kv/proa/bench/report"
	"github.com/proa-kv/proa/bench/rig"
)

func rateOf(s sample) float64      { return s.Rate }
func p50Of(s sample) float64       { return s.P50 }
func p99Of(s sample) float64       { return s.P99 }
func p999Of(s sample) float64      { return s.P999 }
func serverOf(s sample) float64    { return s.Server }
func generatorOf(s sample) float64 { return s.Generator }

// median returns the median of one figure over the rounds.
func median(s []sample, figure func(sample) float64) float64 {
	var v []float64
	for _, x := range s {
		v = append(v, figure(x))
	}
	return report.Median(v)
}

// column is one figure of a table.
type column struct {
	name   string // %s stands for the kind of request
	figure func(sample) float64
	show   func(float64) string
}

var columns = []column{
	{"%s/s", rateOf, report.Thousands}, {"p50, µs", p50Of, report.Micros}, {"p99, µs", p99Of, report.Micros},
	{"p99.9, µs", p999Of, report.Micros}, {"server CPU, µs/op", serverOf, report.Hundredths},
}

// knows reports whether a figure was measured.
func knows(figures []samples, figure func(sample) float64) bool {
	for i := range figures {
		for _, s := range figures[i] {
			if median(s, figure) > 0 {
				return true
			}
		}
	}
	return false
}

// table shows one curve.
func (c *curve) table(figures []samples) report.Table {
	t := report.Table{Title: c.title, Header: []string{c.axis}}
	known := columns
	if !knows(figures, p999Of) {
		known = slices.DeleteFunc(slices.Clone(columns), func(c column) bool { return strings.HasPrefix(c.name, "p99.9") })
	}
	for _, kind := range kinds {
		for _, col := range known {
			t.Header = append(t.Header, strings.Replace(col.name, "%s", strings.ToUpper(kind), 1))
		}
	}
	t.Header = append(t.Header, "failed")
	for i, p := range c.points {
		row, failed := []string{c.show(c.x(p))}, uint64(0)
		for k := range kinds {
			for _, col := range known {
				row = append(row, col.show(median(figures[i][k], col.figure)))
			}
			for _, x := range figures[i][k] {
				failed += x.Failed
			}
		}
		t.Add(append(row, fmt.Sprint(failed))...)
	}
	if c.note != "" {
		t.Notes = []string{c.note}
	}
	return t
}

// charts draw one curve: throughput, latency and CPU time.
func (c *curve) charts(figures []samples) []report.Chart {
	line := func(name string, k int, figure func(sample) float64, unit float64) report.Line {
		l := report.Line{Name: name, Marks: true}
		for i, p := range c.points {
			if y := median(figures[i][k], figure); y > 0 {
				l.Points = append(l.Points, report.XY{X: c.x(p), Y: y / unit})
			}
		}
		return l
	}
	x := report.Axis{Label: c.axis, Log: !c.linear, Show: c.show}
	for _, p := range c.points {
		x.Ticks = append(x.Ticks, c.x(p))
	}
	charts := []report.Chart{
		{
			Title: c.title + ": throughput", X: x, Y: report.Axis{Label: "requests per second", Show: report.Thousands},
			Lines: []report.Line{line("GET", 0, rateOf, 1), line("PUT", 1, rateOf, 1)},
		},
		{
			Title: c.title + ": latency", X: x, Y: report.Axis{Label: "latency", Log: true, Show: report.ShortDuration},
			Lines: report.WithPoints(
				line("GET p50", 0, p50Of, 1e3), line("PUT p50", 1, p50Of, 1e3), line("GET p99", 0, p99Of, 1e3), line("PUT p99", 1, p99Of, 1e3),
				line("GET p99.9", 0, p999Of, 1e3), line("PUT p99.9", 1, p999Of, 1e3)),
		},
		{
			Title: c.title + ": CPU time", X: x, Y: report.Axis{Label: "CPU time per request", Show: report.ShortDuration},
			Lines: []report.Line{
				line("GET server", 0, serverOf, 1e3), line("PUT server", 1, serverOf, 1e3),
				line("GET client", 0, generatorOf, 1e3), line("PUT client", 1, generatorOf, 1e3),
			},
		},
	}
	for i := range charts {
		charts[i].Y.Log = charts[i].Y.Log || spread(charts[i].Lines) > linearSpread
	}
	return charts
}

// linearSpread is how many times the least value the largest may be on a linear
// axis: beyond that the least could not be told from 0.
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
	if m.rounds == 1 {
		return "one round"
	}
	return fmt.Sprintf("medians of %d rounds", m.rounds)
}

// record is the outcome of a run: what the figures depend on, and the figures.
func (m *measurement) record() *record {
	machine := rig.Describe(m.data)
	r := &record{Conditions: []string{
		fmt.Sprintf("Machine: %v", machine),
		fmt.Sprintf("Versions: %s; generator built with %s", rig.VersionLine(m.proa, "version"), machine.GoVersion),
		fmt.Sprintf("Date: %s; the run took %v", m.started.UTC().Format("2006-01-02 15:04 UTC"), m.took.Round(time.Second)),
		"Command: make growth, which runs " + m.command(),
		fmt.Sprintf("Defaults: one node, %d shards, %d connections with one request in flight each, %s keys chosen uniformly, values of %d bytes; %s of %v. A PUT is acknowledged when it is fsynced on a majority, a GET is linearizable.",
			usual.shards, usual.connections, report.Thousands(float64(usual.keys)), usual.value, m.roundsText(), m.step),
	}}
	if m.quick {
		r.Notes = []string{"This was a smoke run. Its figures mean nothing."}
	}
	for i := range m.curves {
		r.add(&m.curves[i], m.figures[i])
	}
	return r
}

// headlines are the figures under the usual conditions, if they were measured.
func headlines(c *curve, figures []samples) (out []report.Headline) {
	at := slices.Index(c.points, usual)
	if at < 0 {
		return nil
	}
	tail, percentile := p99Of, "p99"
	if knows(figures, p999Of) {
		tail, percentile = p999Of, "p99.9"
	}
	note := fmt.Sprintf("%d connections", usual.connections)
	for k, name := range []string{"GET", "PUT"} {
		s := figures[at][k]
		out = append(out,
			report.Headline{Value: report.Thousands(median(s, rateOf)), Name: name + "s per second", Note: note},
			report.Headline{Value: report.Duration(median(s, tail) / 1e3), Name: percentile + " latency of " + name, Note: note},
			report.Headline{Value: report.Duration(median(s, serverOf) / 1e3), Name: "server CPU per " + name, Note: note})
	}
	return out
}

// section is the part of the page that is generated here.
const section = report.Section("growth")

// publish prints the tables and writes the files that were asked for.
func (o *options) publish(r *record, out, progress io.Writer) error {
	c := r.comparison()
	if err := c.Print(out); err != nil {
		return err
	}
	for _, f := range []struct {
		path  string
		write func(path string) error
	}{
		{o.json, r.write},
		{o.write, func(path string) error { return section.Write(path, c.Markdown(2, "")) }},
		{o.html, c.WriteHTML},
	} {
		if f.path == "" {
			continue
		}
		if err := f.write(f.path); err != nil {
			return err
		}
		fmt.Fprintf(progress, "wrote %s\n", f.path)
	}
	return nil
}
