//go:build linux

package main

import (
	"github.com/proa-kv/proa/bench/report"
)

// charts returns latency by percentile for each row, of all rounds together.
func (c *comparison) charts() (charts []report.Chart) {
	for _, r := range rows {
		var lines []report.Line
		for _, p := range peers {
			lines = append(lines, c.cells[cell{r, p.name()}].Line(p.name()))
		}
		charts = append(charts, report.LatencyChart(r.String()+": latency by percentile", report.WithPoints(lines...)...))
	}
	for _, nodes := range sizes {
		charts = append(charts, report.LatencyChart("Floors beside "+size(nodes)+": latency by percentile",
			report.WithPoints(c.sync[nodes].Line("fdatasync"), c.loop[nodes].Line("loopback echo"))...))
	}
	return charts
}
