//go:build linux

package onenode

import (
	"fmt"
	"strings"

	"github.com/proa-kv/proa/bench"
	"github.com/proa-kv/proa/bench/report"
)

// charts returns latency by percentile for all that was measured, of all rounds
// together.
func (m *measurement) charts() []report.Chart {
	if m.ycsb {
		return m.ycsbFigures.charts()
	}
	charts := []report.Chart{latencyChart("fsynced PUT, 1 × 1", m.single[proa].Line("Proa"), m.single[redisAlways].Line("Redis, fsync always"),
		m.sync.Line("floor: write and fdatasync"), m.loop.Line("floor: loopback echo"))}
	for _, l := range loads {
		charts = append(charts, latencyChart(fmt.Sprintf("%s, %d × %d", described(l.op), m.busy, l.depth),
			m.loaded[key{l, proa}].Line("Proa"), m.loaded[key{l, redisFor(l.op)}].Line(variantNames[redisFor(l.op)])))
	}
	return append(charts, m.open.chart(), m.crowdChart(), m.large.chart())
}

// latencyChart shows those lines that were measured.
func latencyChart(what string, lines ...report.Line) report.Chart {
	return report.LatencyChart(what+": latency by percentile", report.WithPoints(lines...)...)
}

func (o *openLoop) chart() report.Chart {
	return latencyChart("Open loop at half of the highest rate", o.half[bench.Get].Line("GET"), o.half[bench.Put].Line("fsynced PUT"), o.half[bench.Ping].Line("PING at the rate of the GETs"),
		o.loop.Line("floor: loopback echo, 1 × 1"), o.sync.Line("floor: write and fdatasync, one at a time"))
}

func (m *measurement) crowdChart() report.Chart {
	var lines []report.Line
	for _, l := range m.crowdLines() {
		if l.busy != m.crowd {
			continue
		}
		for _, c := range []crowd{{l.op, l.busy, 0}, l} {
			lines = append(lines, m.crowded[c].Line(fmt.Sprintf("%s, %d busy and %d idle", described(c.op), c.busy, c.idle)))
		}
	}
	return latencyChart("A crowd of connections", lines...)
}

func (l *largeValues) chart() report.Chart {
	return latencyChart("Values of 256 KiB", l.proa[bench.Put].Line("fsynced PUT"), l.proa[bench.Get].Line("GET"), l.loopback.Line("floor of GET: the same bytes over loopback"))
}

// charts show each workload on both stores, reads and updates apart.
func (y *ycsb) charts() (charts []report.Chart) {
	for _, w := range ycsbWorkloads {
		var lines []report.Line
		for _, st := range []store{ycsbProa, ycsbPebble} {
			s := y.series[ycsbKey{w, st}]
			lines = append(lines, s.read.Line(string(st)+": read"), s.update.Line(string(st)+": update"))
		}
		charts = append(charts, latencyChart(strings.ToUpper(w), lines...))
	}
	return charts
}
