//go:build linux

package main

import (
	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/proa-kv/proa/bench/report"
)

// page returns the tables with the curves, for a file of its own.
func (o *outcome) page() *report.Comparison {
	return &report.Comparison{Title: "Proa beside other databases", Lines: o.circumstances(), Notes: o.remarks(), Tables: o.tables, First: 1, Charts: o.c.charts()}
}

// charts returns latency by percentile for each row, of all rounds together.
func (c *comparison) charts() (charts []report.Chart) {
	for _, r := range rows {
		var lines []report.Line
		for _, p := range peers {
			lines = append(lines, c.cells[cell{r, p.name()}].line(p.name()))
		}
		charts = append(charts, report.LatencyChart(r.String()+": latency by percentile", report.WithPoints(lines...)...))
	}
	for _, nodes := range sizes {
		charts = append(charts, report.LatencyChart("Floors beside "+size(nodes)+": latency by percentile",
			report.WithPoints(c.sync[nodes].line("fdatasync"), c.loop[nodes].line("loopback echo"))...))
	}
	return charts
}

// line is the distribution of all rounds together.
func (s series) line(name string) report.Line {
	latencies := make([]*hdrhistogram.Histogram, len(s))
	for i := range s {
		latencies[i] = s[i].latency
	}
	return report.LatencyLine(name, latencies...)
}
