package report

import (
	"cmp"
	"embed"
	"fmt"
	"html/template"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/proa-kv/proa/bench"
)

// HTML writes the report as one page that needs nothing else: no script, no
// font, no picture from anywhere.
func (l *Load) HTML(out io.Writer) error {
	c := Comparison{
		Title: l.Workload + ": " + l.About, Subtitle: fmt.Sprintf("%s, %s", l.Program, l.Started.Format(time.RFC1123)),
		Headlines: l.Headlines(), PageNotes: l.pageNotes(), Charts: l.Charts(), Lines: l.details(), Tables: l.tables(),
	}
	return c.page(out)
}

// Note is a sentence that is to be seen on a page.
type Note struct {
	Text  string
	Bad   bool
	Items []string
}

// Headline is one figure at the top of a page.
type Headline struct {
	Value string // with its unit
	Name  string
	Note  string // "" for none
	Bad   bool
}

// chartStyle is the style sheet of pages with charts, for a light and a dark
// background: ten colours of lines (c0…), of which people who cannot distinguish
// red and green can distinguish the first eight, and ten steps of a ramp (r0…).
//
//go:embed style.css
var chartStyle string

//go:embed page.html chart.html
var pageHTML embed.FS

var pageTemplate = template.Must(template.New("page.html").Funcs(template.FuncMap{
	"drawings": func(c Chart) []*drawing { return c.drawings() },
	"colour":   func(c Chart, line int) string { return c.colour(line) },
	"f":        func(v float64) string { return strconv.FormatFloat(v, 'f', 1, 64) },
	"sum":      func(a, b float64) float64 { return a + b },
	"missed":   func(cell string) bool { return cell == missed },
	"topic":    func(line string) string { topic, _, _ := cutTopic(capital(line)); return topic },
	"rest":     func(line string) string { _, rest, _ := cutTopic(capital(line)); return rest },
}).ParseFS(pageHTML, "*.html"))

// cutTopic splits a line such as "Machine: an old one" at its first colon.
func cutTopic(line string) (topic, rest string, found bool) {
	topic, rest, found = strings.Cut(line, ": ")
	if !found {
		return "", line, false
	}
	return topic, rest, true
}

// capital returns a line that begins like a sentence.
func capital(line string) string {
	first, size := utf8.DecodeRuneInString(line)
	return string(unicode.ToUpper(first)) + line[size:]
}

// details says what the figures depend on and, of a single run, what they do not
// show.
func (l *Load) details() []string {
	out := l.Lines()[1:]
	if len(l.Runs) == 1 {
		out = append(out, slices.DeleteFunc(l.Runs[0].notes(), func(n string) bool { return n == generatorBound })...)
	}
	return out
}

// pageNotes says what a reader has to know before any figure: what has been
// verified, and what makes figures doubtful.
func (l *Load) pageNotes() (out []Note) {
	if v := l.Verification; v != nil {
		out = append(out, Note{Text: capital(verified(v)), Bad: v.Missing+v.Wrong > 0, Items: v.Problems})
	}
	if slices.ContainsFunc(l.Runs, func(r Run) bool { return r.Interrupted }) {
		out = append(out, Note{Text: "The test was interrupted before its end.", Bad: true})
	}
	if slices.ContainsFunc(l.Runs, func(r Run) bool { return r.GeneratorBound }) {
		out = append(out, Note{Text: generatorBound, Bad: true})
	}
	return out
}

// Headlines returns the figures that a reader looks for first: throughput and
// latency of the closed loop or, of several rates, of the highest one that was
// sustained.
func (l *Load) Headlines() []Headline {
	if len(l.Runs) == 0 {
		return nil
	}
	fastest := slices.MaxFunc(l.Runs, func(a, b Run) int { return cmp.Compare(a.Throughput, b.Throughput) })
	out := []Headline{{Value: Thousands(fastest.Throughput), Name: "operations per second"}}
	shown, at := &l.Runs[0], ""
	if len(l.Runs) > 1 {
		out[0].Note = "highest throughput, " + fastest.name()
		sustained := l.sustained()
		if sustained == nil {
			out = append(out, Headline{Value: "none", Name: "sustained rate", Note: "every planned rate left a backlog", Bad: true})
			sustained = &l.Runs[0]
		} else {
			out = append(out, Headline{Value: Thousands(sustained.Rate) + "/s", Name: "sustained rate", Note: "highest planned rate without a backlog"})
		}
		shown, at = sustained, "at "+sustained.name()
	}
	if len(l.Runs) == 1 {
		out = append(out, Headline{Value: Duration(shown.Latency.P50), Name: "p50 latency"})
	}
	out = append(out,
		Headline{Value: Duration(shown.Latency.P99), Name: "p99 latency", Note: at},
		Headline{Value: Duration(shown.Latency.P999), Name: "p99.9 latency", Note: at})
	if shown.ServerPerOp > 0 {
		out = append(out, Headline{Value: Duration(shown.ServerPerOp), Name: "server CPU per operation", Note: at})
	}
	return append(out, l.errorHeadline())
}

// sustained returns the run with the highest planned rate of which nothing was left
// to be sent at the end, nil if there is none.
func (l *Load) sustained() (best *Run) {
	for i := range l.Runs {
		if r := &l.Runs[i]; r.Rate > 0 && r.Unsent == 0 && (best == nil || r.Rate > best.Rate) {
			best = r
		}
	}
	return best
}

func (l *Load) errorHeadline() Headline {
	var failed, all float64
	for i := range l.Runs {
		failed += float64(l.Runs[i].Failed)
		all += float64(l.Runs[i].Failed + l.Runs[i].Ops)
	}
	if failed == 0 {
		return Headline{Value: "0", Name: "errors"}
	}
	return Headline{Value: Thousands(failed), Name: "errors", Note: fmt.Sprintf("%.2g %% of all operations", 100*failed/all), Bad: true}
}

// tables returns the tables of the page: rates, if there are several, then
// runs.
func (l *Load) tables() (out []Table) {
	if len(l.Runs) > 1 {
		out = append(out, *l.rates())
	}
	for i := range l.Runs {
		t := l.Runs[i].table()
		if len(l.Runs) > 1 {
			t.Notes = l.Runs[i].notes()
		}
		out = append(out, *t)
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

var latencyAxis = Axis{Label: "latency", Log: true, Show: ShortDuration}

// ShortDuration shows microseconds without digits that say nothing: 1 ms for
// 1.00 ms.
func ShortDuration(us float64) string { return trimDigits(Duration(us)) }

// trimDigits leaves out zeros behind the point of a number before a unit.
func trimDigits(text string) string {
	number, unit, _ := strings.Cut(text, " ")
	if strings.Contains(number, ".") {
		number = strings.TrimRight(strings.TrimRight(number, "0"), ".")
	}
	return strings.TrimSpace(number + " " + unit)
}

// ShortBytes shows bytes without digits that say nothing.
func ShortBytes(n float64) string { return trimDigits(Bytes(n)) }

// guidePercent is where all lines of latencies are marked.
const guidePercent = 99.9

// LatencyChart returns a chart of latency over 1/(1-q), where each step to the
// right is ten times rarer. Its lines are made by LatencyLine.
func LatencyChart(title string, lines ...Line) Chart {
	c := Chart{
		Title: title, Y: latencyAxis, Lines: lines, Columns: []string{"p50", "p99", "p99.9", "max"}, Guide: 1 / (1 - guidePercent/100),
		X: Axis{Label: "percentile of the operations", Log: true, Show: percentileName},
	}
	last := 1.0
	for _, l := range lines {
		for _, p := range l.Points {
			last = max(last, p.X)
		}
	}
	c.X.Ticks = []float64{1, 2}
	for at := 10.0; at <= last; at *= 10 {
		c.X.Ticks = append(c.X.Ticks, at)
	}
	return c
}

// LatencyLine returns the line of the latencies of all parts together, which are
// left as they are. It has no points where there are none.
func LatencyLine(name string, parts ...*bench.KindResult) Line {
	var sum bench.KindResult
	for _, p := range parts {
		sum.Merge(p)
	}
	y := latencyOf(&sum)
	return percentileLine(name, percentiles(&sum), sum.Ops, &y)
}

func percentileLine(name string, points []Percentile, ops uint64, y *Latency) Line {
	line := Line{Name: name, Cells: []string{Duration(y.P50), Duration(y.P99), Duration(y.P999), Duration(y.Max)}}
	least := 0.5 / float64(max(ops, 1)) // where the slowest one stands
	for _, p := range points {
		line.Points = append(line.Points, XY{1 / max(1-p.Percent/100, least), p.Micros})
	}
	return line
}

// percentileChart shows the distribution of each run, or of each kind of
// operations of the only one.
func (l *Load) percentileChart() Chart {
	var lines []Line
	add := func(name string, points []Percentile, ops uint64, y *Latency) {
		lines = append(lines, percentileLine(name, points, ops, y))
	}
	for i := range l.Runs {
		r := &l.Runs[i]
		if len(l.Runs) > 1 {
			add(r.name(), r.Percentiles, r.Ops, &r.Latency)
			lines[i].Colour = l.colour(i)
			continue
		}
		for k := range r.Kinds {
			add(r.Kinds[k].Name, r.Kinds[k].Percentiles, r.Kinds[k].Ops, &r.Kinds[k].Latency)
		}
		if len(r.Kinds) > 1 {
			add("all", r.Percentiles, r.Ops, &r.Latency)
		}
	}
	return LatencyChart("Latency by percentile", lines...)
}

// colour returns the colour of a run among several: the closed loop is what the
// planned rates are compared with, and these have an order.
func (l *Load) colour(i int) string {
	first := slices.IndexFunc(l.Runs, func(r Run) bool { return r.Rate > 0 })
	switch {
	case len(l.Runs) == 1:
		return ""
	case l.Runs[i].Rate == 0:
		return neutral
	}
	return ramp(i-first, len(l.Runs)-first)
}

// percentileName names the percentile at 1/(1-p).
func percentileName(v float64) string {
	p := 100 * (1 - 1/v)
	switch {
	case v <= 1:
		return "min"
	case v <= 100:
		return fmt.Sprintf("p%.0f", p)
	default:
		return fmt.Sprintf("p%.*f", int(math.Round(math.Log10(v)))-2, p)
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
		X:     Axis{Label: "planned rate, operations per second", Show: Thousands},
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
	seconds := Axis{Label: "time since the start of the run, seconds"}
	rate := Chart{Title: "Throughput over time", X: seconds, Y: Axis{Label: "operations per second", Show: Thousands}}
	latency := Chart{Title: "Latency over time", X: seconds, Y: latencyAxis}
	if l.WarmupSeconds > 0 {
		for _, c := range []*Chart{&rate, &latency} {
			c.Shaded, c.ShadedName = l.WarmupSeconds, "warm-up"
		}
	}
	series := func(r *Run, name, colour string, y func(*Step) float64) Line {
		line := Line{Name: name, Colour: colour}
		for i := range r.Series {
			line.Points = append(line.Points, XY{r.Series[i].At, y(&r.Series[i])})
		}
		return line
	}
	for i := range l.Runs {
		r := &l.Runs[i]
		rate.Lines = append(rate.Lines, series(r, r.name(), l.colour(i), func(s *Step) float64 { return s.Rate }))
		if len(l.Runs) > 1 {
			latency.Title = "p99 latency over time"
			latency.Lines = append(latency.Lines, series(r, r.name(), l.colour(i), func(s *Step) float64 { return s.P99 }))
			continue
		}
		latency.Lines = append(latency.Lines,
			series(r, "p50", "", func(s *Step) float64 { return s.P50 }), series(r, "p99", "", func(s *Step) float64 { return s.P99 }),
			series(r, "p99.9", "", func(s *Step) float64 { return s.P999 }), series(r, "max", "", func(s *Step) float64 { return s.Max }))
	}
	return []Chart{rate, latency}
}
