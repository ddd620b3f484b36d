//go:build linux

package main

import (
	"fmt"
	"io"
	"time"

	"github.com/proa-kv/proa/bench/report"
	"github.com/proa-kv/proa/bench/rig"
)

func rateOf(s sample) float64      { return s.rate }
func p50Of(s sample) float64       { return s.p50 }
func p99Of(s sample) float64       { return s.p99 }
func serverOf(s sample) float64    { return s.server }
func generatorOf(s sample) float64 { return s.generator }

// median returns the median of one figure over the rounds.
func median(s []sample, figure func(sample) float64) float64 {
	var v []float64
	for _, x := range s {
		v = append(v, figure(x))
	}
	return report.Median(v)
}

// table shows one curve.
func (c *curve) table(figures []samples) report.Table {
	t := report.Table{Title: c.title, Header: []string{
		c.axis, "GET/s", "p50, µs", "p99, µs", "server CPU, µs/op", "PUT/s", "p50, µs", "p99, µs", "server CPU, µs/op", "failed",
	}}
	for i, p := range c.points {
		row, failed := []string{c.show(c.x(p))}, uint64(0)
		for k := range kinds {
			s := figures[i][k]
			row = append(row, report.Thousands(median(s, rateOf)), report.Micros(median(s, p50Of)), report.Micros(median(s, p99Of)), report.Hundredths(median(s, serverOf)))
			for _, x := range s {
				failed += x.failed
			}
		}
		t.Add(append(row, fmt.Sprint(failed))...)
	}
	if c.note != "" {
		t.Notes = []string{c.note}
	}
	return t
}

// charts draw one curve.
func (c *curve) charts(figures []samples) []report.Chart {
	line := func(name string, k int, figure func(sample) float64, unit float64) report.Line {
		l := report.Line{Name: name, Marks: true}
		for i, p := range c.points {
			l.Points = append(l.Points, report.XY{X: c.x(p), Y: median(figures[i][k], figure) / unit})
		}
		return l
	}
	x := report.Axis{Label: c.axis, Log: true, Show: c.show}
	return []report.Chart{
		{
			Title: c.title + ": rate", X: x, Y: report.Axis{Label: "requests per second", Show: report.Thousands},
			Lines: []report.Line{line("GET", 0, rateOf, 1), line("PUT", 1, rateOf, 1)},
		},
		{
			Title: c.title + ": latency", X: x, Y: report.Axis{Label: "µs", Log: true, Show: report.Thousands},
			Lines: []report.Line{line("GET, median", 0, p50Of, 1e3), line("GET, p99", 0, p99Of, 1e3), line("PUT, median", 1, p50Of, 1e3), line("PUT, p99", 1, p99Of, 1e3)},
		},
		{
			Title: c.title + ": CPU time of a request", X: x, Y: report.Axis{Label: "µs"},
			Lines: []report.Line{
				line("GET, servers", 0, serverOf, 1e3), line("GET, generator", 0, generatorOf, 1e3),
				line("PUT, servers", 1, serverOf, 1e3), line("PUT, generator", 1, generatorOf, 1e3),
			},
		},
	}
}

func (m *measurement) roundsText() string {
	if m.rounds == 1 {
		return "one round"
	}
	return fmt.Sprintf("medians of %d rounds", m.rounds)
}

// comparison is the whole outcome.
func (m *measurement) comparison() *report.Comparison {
	machine := rig.Describe(m.data)
	c := &report.Comparison{Title: "How cost grows", Lines: []string{
		fmt.Sprintf("Machine: %v", machine),
		fmt.Sprintf("Versions: %s; generator built with %s", rig.VersionLine(m.proa, "version"), machine.GoVersion),
		fmt.Sprintf("Date: %s; the run took %v", m.started.UTC().Format("2006-01-02 15:04 UTC"), m.took.Round(time.Second)),
		"Command: make growth, which runs " + m.command(),
		fmt.Sprintf("Where nothing else is said: one node, %d shards, %d connections with one request in flight each, %s keys chosen uniformly, values of %d bytes; %s of %v. A PUT is acknowledged when it is fsynced on a majority, a GET is linearizable.",
			usual.shards, usual.connections, report.Thousands(float64(usual.keys)), usual.value, m.roundsText(), m.step),
	}}
	if m.quick {
		c.Notes = []string{"This was a smoke run. Its figures mean nothing."}
	}
	for i := range m.curves {
		c.Tables = append(c.Tables, m.curves[i].table(m.figures[i]))
		c.Charts = append(c.Charts, m.curves[i].charts(m.figures[i])...)
	}
	return c
}

// section is the part of the page that is generated here.
const section = report.Section("growth")

// publish prints the tables and writes the pages that were asked for.
func (m *measurement) publish(out, progress io.Writer) error {
	c := m.comparison()
	if err := c.Print(out); err != nil {
		return err
	}
	if m.write != "" {
		if err := section.Write(m.write, c.Markdown(2, "")); err != nil {
			return err
		}
		fmt.Fprintf(progress, "wrote %s\n", m.write)
	}
	if m.html == "" {
		return nil
	}
	if err := c.WriteHTML(m.html); err != nil {
		return err
	}
	fmt.Fprintf(progress, "wrote %s\n", m.html)
	return nil
}
