package report

import (
	"fmt"
	"html/template"
	"io"
	"math"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/proa-kv/proa/bench"
)

// HTML writes the report as one page that needs nothing else: no script, no
// font, no picture from anywhere.
func (l *Load) HTML(out io.Writer) error {
	return loadPage.Execute(out, struct {
		*Load
		Style  template.CSS
		Charts []Chart
		Tables []*Table
		When   string
	}{l, chartStyle, l.Charts(), l.tables(), l.Started.Format(time.RFC1123)})
}

// pageParts are what pages have in common.
var pageParts = template.Must(template.New("parts").Funcs(template.FuncMap{
	"svg":    func(c Chart) template.HTML { return template.HTML(c.SVG()) },
	"legend": func(c Chart) template.HTML { return template.HTML(c.Legend()) },
	"missed": func(cell string) bool { return cell == missed },
}).Parse(`{{define "head"}}<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"/>
<meta name="viewport" content="width=device-width, initial-scale=1"/>
{{end}}
{{- define "tables"}}{{range $i, $t := .}}<h2>{{$t.Title}}</h2>
<div class="scroll"><table>
<thead><tr>{{range $t.Header}}<th>{{.}}</th>{{end}}</tr></thead>
<tbody>{{range $t.Rows}}<tr>{{range .}}<td{{if missed .}} class="bad"{{end}}>{{.}}</td>{{end}}</tr>
{{end}}</tbody>
</table></div>
{{range $t.Notes}}<p class="soft">{{.}}</p>
{{end}}{{end}}{{end}}
{{- define "charts"}}{{range .}}<h2>{{.Title}}</h2>
<figure>{{legend .}}
{{svg .}}</figure>
{{end}}{{end}}`))

var loadPage = template.Must(template.Must(pageParts.Clone()).New("load").Parse(`{{template "head"}}<title>{{.Workload}} – {{.Program}}</title>
<style>{{.Style}}</style>
</head>
<body>
<h1>{{.Workload}}</h1>
<p class="soft">{{.Program}}, {{.When}}</p>
{{range .Lines}}<p>{{.}}</p>
{{end}}
{{- if .Verification}}<p{{if or .Verification.Missing .Verification.Wrong}} class="bad"{{end}}>{{.Verification.Sentence}}</p>
{{if .Verification.Problems}}<ul>{{range .Verification.Problems}}<li>{{.}}</li>{{end}}</ul>{{end}}
{{end}}
{{- template "tables" .Tables}}
{{- template "charts" .Charts}}
</body>
</html>
`))

// tables returns the tables of the page: rates, if there are several, then
// runs.
func (l *Load) tables() []*Table {
	var out []*Table
	if len(l.Runs) > 1 {
		out = append(out, l.rates())
	}
	for i := range l.Runs {
		t := l.Runs[i].table()
		t.Notes = l.Runs[i].notes()
		out = append(out, t)
	}
	return out
}

// Charts returns the curves of the report: latency by percentile, rate against
// tail if there were several rates, and what happened over time.
func (l *Load) Charts() []Chart {
	if len(l.Runs) == 0 {
		return nil
	}
	out := []Chart{l.percentileChart()}
	if c, ok := l.rateChart(); ok {
		out = append(out, c)
	}
	return append(out, l.timeCharts()...)
}

var latencyAxis = Axis{Label: "latency (logarithmic)", Log: true, Show: Duration}

// LatencyChart returns a chart of latency over 1/(1-q), where each step to the
// right is ten times rarer. Its lines are made by LatencyLine.
func LatencyChart(title string, lines ...Line) Chart {
	return Chart{
		Title: title, Y: latencyAxis, Lines: lines,
		X: Axis{Label: "percentile of the operations, by 1/(1−p) (logarithmic)", Log: true, Show: percentileName},
	}
}

// LatencyLine returns the line of latencies in nanoseconds, those of all
// histograms together, which have one range and are left as they are. It has no
// points where all are nil or empty.
func LatencyLine(name string, hs ...*hdrhistogram.Histogram) Line {
	var sum *hdrhistogram.Histogram
	for _, h := range hs {
		switch {
		case h == nil:
		case sum == nil:
			sum = hdrhistogram.Import(h.Export())
		default:
			sum.Merge(h)
		}
	}
	if sum == nil {
		return Line{Name: name}
	}
	k := bench.KindResult{Ops: uint64(sum.TotalCount()), Latency: sum, Slowest: time.Duration(sum.Max())}
	return percentileLine(name, percentiles(&k), k.Ops)
}

func percentileLine(name string, points []Percentile, ops uint64) Line {
	line := Line{Name: name}
	least := 0.5 / float64(max(ops, 1)) // where the slowest one stands
	for _, p := range points {
		line.Points = append(line.Points, XY{1 / max(1-p.Percent/100, least), p.Micros})
	}
	return line
}

// percentileChart shows the distribution of each run, or of each kind of
// operations of the only one.
func (l *Load) percentileChart() Chart {
	c := LatencyChart("Latency by percentile")
	add := func(name string, points []Percentile, ops uint64) {
		c.Lines = append(c.Lines, percentileLine(name, points, ops))
	}
	for i := range l.Runs {
		r := &l.Runs[i]
		if len(l.Runs) > 1 {
			add(r.name(), r.Percentiles, r.Ops)
			continue
		}
		for _, k := range r.Kinds {
			add(k.Name, k.Percentiles, k.Ops)
		}
		if len(r.Kinds) > 1 {
			add("all", r.Percentiles, r.Ops)
		}
	}
	return c
}

// percentileName names the percentile at 1/(1-p).
func percentileName(v float64) string {
	p := 100 * (1 - 1/v)
	switch {
	case v <= 100:
		return fmt.Sprintf("%.0f %%", p)
	default:
		return fmt.Sprintf("%.*f %%", int(math.Round(math.Log10(v)))-2, p)
	}
}

func (r *Run) name() string {
	if r.Rate == 0 {
		return "closed loop"
	}
	return Thousands(r.Rate) + "/s"
}

// rateChart shows percentiles over the planned rate.
func (l *Load) rateChart() (Chart, bool) {
	c := Chart{
		Title: "Latency by planned rate", Y: latencyAxis,
		X:     Axis{Label: "planned rate (operations per second)", Show: Thousands},
		Lines: []Line{{Name: "p50", Marks: true}, {Name: "p99", Marks: true}, {Name: "p99.9", Marks: true}, {Name: "max", Marks: true}},
	}
	n := 0
	for i := range l.Runs {
		r := &l.Runs[i]
		if r.Rate == 0 {
			continue
		}
		n++
		for at, y := range []float64{r.Latency.P50, r.Latency.P99, r.Latency.P999, r.Latency.Max} {
			c.Lines[at].Points = append(c.Lines[at].Points, XY{r.Rate, y})
		}
	}
	return c, n > 1
}

// timeCharts show throughput and latency over time. Of several runs one
// percentile each is shown.
func (l *Load) timeCharts() []Chart {
	seconds := Axis{Label: "time since the begin of the run (seconds)"}
	rate := Chart{Title: "Throughput over time", X: seconds, Y: Axis{Label: "operations per second", Show: Thousands}}
	latency := Chart{Title: "Latency over time", X: seconds, Y: latencyAxis}
	if l.WarmupSeconds > 0 {
		for _, c := range []*Chart{&rate, &latency} {
			c.Mark, c.MarkName = l.WarmupSeconds, "measured from here"
		}
	}
	series := func(r *Run, name string, y func(*Step) float64) Line {
		line := Line{Name: name}
		for i := range r.Series {
			line.Points = append(line.Points, XY{r.Series[i].At, y(&r.Series[i])})
		}
		return line
	}
	for i := range l.Runs {
		r := &l.Runs[i]
		rate.Lines = append(rate.Lines, series(r, r.name(), func(s *Step) float64 { return s.Rate }))
		if len(l.Runs) > 1 {
			latency.Title = "99th percentile of the latency over time"
			latency.Lines = append(latency.Lines, series(r, r.name(), func(s *Step) float64 { return s.P99 }))
			continue
		}
		latency.Lines = append(latency.Lines,
			series(r, "p50", func(s *Step) float64 { return s.P50 }), series(r, "p99", func(s *Step) float64 { return s.P99 }),
			series(r, "p99.9", func(s *Step) float64 { return s.P999 }), series(r, "max", func(s *Step) float64 { return s.Max }))
	}
	return []Chart{rate, latency}
}
