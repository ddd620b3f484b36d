package report

import (
	"fmt"
	"html"
	"math"
	"strconv"
	"strings"
)

// Axis is one axis of a Chart.
type Axis struct {
	Label string // what is shown, with its unit
	Log   bool   // logarithmic: only values above 0 are shown
	// Show writes a tick's value. nil writes the number.
	Show func(float64) string
}

// XY is one point of a Line.
type XY struct{ X, Y float64 }

// Line is one line of a Chart.
type Line struct {
	Name   string
	Points []XY
	Marks  bool // a dot at each point, which tells its values
}

// Chart draws lines as SVG that needs nothing else: its colours come from the
// page's style sheet (see chartStyle).
type Chart struct {
	Title string
	X, Y  Axis
	Lines []Line
	// Mark is where a vertical line stands, if MarkName is not empty.
	Mark     float64
	MarkName string
}

// Measures of a chart, in the units of its own coordinates.
const (
	chartWidth  = 860.0
	chartHeight = 360.0
	plotLeft    = 78.0
	plotRight   = 842.0
	plotTop     = 14.0
	plotBottom  = 308.0
	colours     = 8
)

// scale maps values to coordinates.
type scale struct {
	log      bool
	low, top float64 // of the values, or their logarithms
	from, to float64 // coordinates
}

func (s *scale) at(v float64) float64 {
	if s.log {
		v = math.Log10(v)
	}
	return s.from + (v-s.low)/(s.top-s.low)*(s.to-s.from)
}

// newScale covers the values. A linear scale begins at 0.
func newScale(log bool, values []float64, from, to float64) scale {
	s := scale{log: log, from: from, to: to}
	low, top := math.Inf(1), math.Inf(-1)
	for _, v := range values {
		low, top = min(low, v), max(top, v)
	}
	switch {
	case len(values) == 0:
		s.top = 1
	case log:
		s.low, s.top = math.Log10(low), math.Log10(top)
	default:
		s.low, s.top = min(low, 0), top
	}
	if s.top <= s.low {
		s.top = s.low + 1
	}
	return s
}

// ticks returns where to put them: powers of ten and parts of those, or the
// multiples of a round number.
func (s *scale) ticks() []float64 {
	if !s.log {
		return linearTicks(s.low, s.top)
	}
	parts := []float64{1}
	if s.top-s.low < 3 {
		parts = []float64{1, 2, 5}
	}
	var out []float64
	for decade := math.Floor(s.low); decade <= s.top && len(out) < 1000; decade++ {
		for _, p := range parts {
			v := p * math.Pow(10, decade)
			if l := math.Log10(v); l >= s.low-1e-9 && l <= s.top+1e-9 {
				out = append(out, v)
			}
		}
	}
	return out
}

func linearTicks(low, top float64) []float64 {
	const wanted = 6
	step := math.Pow(10, math.Floor(math.Log10((top-low)/wanted)))
	for _, factor := range []float64{2, 2.5, 2} {
		if (top-low)/step > wanted {
			step *= factor
		}
	}
	var out []float64
	for i := math.Ceil(low / step); i*step <= top*(1+1e-9) && len(out) < 4*wanted; i++ { // steps may vanish
		out = append(out, i*step)
	}
	return out
}

// shown returns the points that the axes can show.
func (c *Chart) shown(l *Line) []XY {
	var out []XY
	for _, p := range l.Points {
		if (!c.X.Log || p.X > 0) && (!c.Y.Log || p.Y > 0) && !math.IsInf(p.X, 0) && !math.IsNaN(p.X) && !math.IsInf(p.Y, 0) && !math.IsNaN(p.Y) {
			out = append(out, p)
		}
	}
	return out
}

// SVG draws the chart.
func (c *Chart) SVG() string {
	var xs, ys []float64
	for i := range c.Lines {
		for _, p := range c.shown(&c.Lines[i]) {
			xs, ys = append(xs, p.X), append(ys, p.Y)
		}
	}
	x := newScale(c.X.Log, xs, plotLeft, plotRight)
	y := newScale(c.Y.Log, ys, plotBottom, plotTop)
	var b strings.Builder
	fmt.Fprintf(&b, `<svg class="chart" viewBox="0 0 %g %g" role="img" aria-label="%s">`, chartWidth, chartHeight, html.EscapeString(c.Title))
	for _, v := range y.ticks() {
		at := y.at(v)
		fmt.Fprintf(&b, `<line class="grid" x1="%g" y1="%.1f" x2="%g" y2="%.1f"/><text class="tick" text-anchor="end" x="%g" y="%.1f">%s</text>`,
			plotLeft, at, plotRight, at, plotLeft-8, at+4, c.Y.show(v))
	}
	for _, v := range x.ticks() {
		at := x.at(v)
		fmt.Fprintf(&b, `<line class="grid" x1="%.1f" y1="%g" x2="%.1f" y2="%g"/><text class="tick" text-anchor="middle" x="%.1f" y="%g">%s</text>`,
			at, plotTop, at, plotBottom, at, plotBottom+18, c.X.show(v))
	}
	fmt.Fprintf(&b, `<text class="label" text-anchor="middle" x="%g" y="%g">%s</text>`, (plotLeft+plotRight)/2, chartHeight-12, html.EscapeString(c.X.Label))
	fmt.Fprintf(&b, `<text class="label" text-anchor="middle" transform="translate(14 %g) rotate(-90)">%s</text>`, (plotTop+plotBottom)/2, html.EscapeString(c.Y.Label))
	if at := x.at(c.Mark); c.MarkName != "" && at > plotLeft && at < plotRight {
		fmt.Fprintf(&b, `<line class="mark" x1="%.1f" y1="%g" x2="%.1f" y2="%g"/><text class="tick" x="%.1f" y="%g">%s</text>`,
			at, plotTop, at, plotBottom, at+5, plotTop+10, html.EscapeString(c.MarkName))
	}
	for i := range c.Lines {
		c.draw(&b, i, &x, &y)
	}
	b.WriteString("</svg>")
	return b.String()
}

// draw draws one line.
func (c *Chart) draw(b *strings.Builder, i int, x, y *scale) {
	l := &c.Lines[i]
	points := c.shown(l)
	if len(points) == 0 {
		return
	}
	var path strings.Builder
	for n, p := range points {
		if n > 0 {
			path.WriteByte(' ')
		}
		fmt.Fprintf(&path, "%.1f,%.1f", x.at(p.X), y.at(p.Y))
	}
	fmt.Fprintf(b, `<polyline class="line c%d" points="%s"><title>%s</title></polyline>`, i%colours, path.String(), html.EscapeString(l.Name))
	if !l.Marks && len(points) > 1 {
		return
	}
	for _, p := range points {
		fmt.Fprintf(b, `<circle class="dot c%d" cx="%.1f" cy="%.1f" r="3.2"><title>%s: %s, %s</title></circle>`,
			i%colours, x.at(p.X), y.at(p.Y), html.EscapeString(l.Name), c.X.show(p.X), c.Y.show(p.Y))
	}
}

// show writes a value for HTML.
func (a *Axis) show(v float64) string {
	if a.Show != nil {
		return html.EscapeString(a.Show(v))
	}
	return strconv.FormatFloat(v, 'g', 6, 64)
}

// Legend names the lines in their colours.
func (c *Chart) Legend() string {
	var b strings.Builder
	b.WriteString(`<p class="legend">`)
	for i := range c.Lines {
		fmt.Fprintf(&b, `<span><i class="c%d"></i>%s</span>`, i%colours, html.EscapeString(c.Lines[i].Name))
	}
	b.WriteString("</p>")
	return b.String()
}

// chartStyle is the style sheet of pages with charts. The colours are told
// apart by people who see red and green alike, too.
const chartStyle = `
:root { color-scheme: light dark; --back: #ffffff; --text: #1c2024; --soft: #5f6b76; --rule: #e2e6ea; --card: #f7f8fa; --bad: #b3261e;
  --c0: #2563c9; --c1: #d9730d; --c2: #0f8a6c; --c3: #b0307f; --c4: #7a5cd6; --c5: #8a6d00; --c6: #3a8fb7; --c7: #6b7280; }
@media (prefers-color-scheme: dark) { :root { --back: #14171a; --text: #e6e9ec; --soft: #9aa5b1; --rule: #2b3138; --card: #1b1f24; --bad: #ff8a80;
  --c0: #6ea8ff; --c1: #ffa657; --c2: #4fd1a5; --c3: #f178b6; --c4: #b79cff; --c5: #e3c341; --c6: #7cc7e8; --c7: #a3adb8; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 62rem; background: var(--back); color: var(--text); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .5rem; }
p, ul { margin: .35rem 0; }
.soft { color: var(--soft); }
.bad { color: var(--bad); font-weight: 600; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .3rem .6rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--rule); }
th:first-child, td:first-child { text-align: left; }
th { color: var(--soft); font-weight: 600; font-size: .78rem; }
figure { margin: .5rem 0 0; padding: .75rem; background: var(--card); border: 1px solid var(--rule); border-radius: 10px; }
.chart { display: block; width: 100%; height: auto; font: 11.5px system-ui, sans-serif; }
.grid { stroke: var(--rule); stroke-width: 1; }
.mark { stroke: var(--soft); stroke-width: 1; stroke-dasharray: 4 4; }
.tick, .label { fill: var(--soft); }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; }
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1.1rem; font-size: .85rem; margin: 0 0 .35rem; }
.legend i { display: inline-block; width: 14px; height: 3px; margin: 0 .4rem .25rem 0; border-radius: 2px; }
.line.c0 { stroke: var(--c0); } .line.c1 { stroke: var(--c1); } .line.c2 { stroke: var(--c2); } .line.c3 { stroke: var(--c3); }
.line.c4 { stroke: var(--c4); } .line.c5 { stroke: var(--c5); } .line.c6 { stroke: var(--c6); } .line.c7 { stroke: var(--c7); }
.dot.c0 { fill: var(--c0); } .dot.c1 { fill: var(--c1); } .dot.c2 { fill: var(--c2); } .dot.c3 { fill: var(--c3); }
.dot.c4 { fill: var(--c4); } .dot.c5 { fill: var(--c5); } .dot.c6 { fill: var(--c6); } .dot.c7 { fill: var(--c7); }
i.c0 { background: var(--c0); } i.c1 { background: var(--c1); } i.c2 { background: var(--c2); } i.c3 { background: var(--c3); }
i.c4 { background: var(--c4); } i.c5 { background: var(--c5); } i.c6 { background: var(--c6); } i.c7 { background: var(--c7); }
`
