package report

import (
	"fmt"
	"html"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Axis is one axis of a Chart.
type Axis struct {
	Label string // what is shown, and its unit if ticks do not name it
	Log   bool   // logarithmic: only values above 0 are shown
	// Show writes a tick's value, with its unit if the label does not name it.
	// nil writes the number.
	Show func(float64) string
	// Ticks are where values stand beside the axis. nil puts them at round
	// numbers.
	Ticks []float64
}

// label is what stands beside the axis.
func (a *Axis) label() string {
	if a.Log {
		return html.EscapeString(a.Label + " (log scale)")
	}
	return html.EscapeString(a.Label)
}

// XY is one point of a Line.
type XY struct{ X, Y float64 }

// Line is one line of a Chart.
type Line struct {
	Name   string
	Points []XY
	Marks  bool     // a dot at each point, which tells its values
	Cells  []string // figures of the line in the legend, one for each of Chart.Columns
	Colour string   // class of the style sheet; "" takes the next of c0, c1, …
}

func (c *Chart) colour(i int) string {
	if own := c.Lines[i].Colour; own != "" {
		return own
	}
	return fmt.Sprintf("c%d", i%colours)
}

// neutral is the colour of a line that others are compared with.
const neutral = "c7"

// ramp returns the colour of step i of n that have an order.
func ramp(i, n int) string {
	return fmt.Sprintf("r%d", i*(colours-1)/max(n-1, 1))
}

// Chart draws lines as SVG that needs nothing else: its colours come from the
// page's style sheet (see chartStyle).
type Chart struct {
	Title string
	X, Y  Axis
	Lines []Line
	// Columns are the names of Line.Cells.
	Columns []string
	// Shaded is the value of X up to which the ground is shaded, if ShadedName
	// is not empty.
	Shaded     float64
	ShadedName string
	// Guide is where a vertical line stands, 0 for none.
	Guide float64
}

// colours is the number of colours of lines, and of the steps of a ramp.
const colours = 10

// canvas is the size of a chart in the units of its own coordinates, and the
// class that tells the style sheet when to show it: text is not to shrink with
// the page.
type canvas struct {
	class         string
	width, height float64
}

var canvases = []canvas{{"wide", 760, 340}, {"narrow", 380, 290}}

// Measures of text and margins, in the same units. Text is as wide as the widest
// of common fonts makes it.
const (
	charWidth   = 8.0
	labelGap    = 6.0  // between two values of X
	tickGap     = 8.0  // between a tick and its value
	labelBase   = 13.0 // of the label of Y, which stands above the plot
	plotTop     = 30.0
	plotBelow   = 48.0 // what is below the plot: values and label of X
	marginRight = 14.0
	dotSpace    = 0.03 // share of the width that is free beside the outermost dots
)

func textWidth(s string) float64 { return charWidth * float64(utf8.RuneCountInString(s)) }

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

// rounded returns the scale with round numbers at its ends, so that no line runs
// along the edge.
func (s scale) rounded() scale {
	if s.log {
		s.low, s.top = math.Log10(roundDown(math.Pow(10, s.low))), -math.Log10(roundDown(math.Pow(10, -s.top)))
		if s.top-s.low < 0.5 {
			s.low, s.top = math.Floor(s.low), math.Ceil(s.top)
		}
		return s
	}
	if t := s.ticks(); len(t) > 1 && t[len(t)-1] < s.top*(1-1e-9) {
		s.top = 2*t[len(t)-1] - t[len(t)-2]
	}
	return s
}

// roundDown returns the largest of 1, 2 and 5 times a power of ten that is not
// above v.
func roundDown(v float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(v)+1e-9))
	for _, part := range []float64{5, 2} {
		if part*power <= v*(1+1e-9) {
			return part * power
		}
	}
	return power
}

// ticks returns where to put them: powers of ten and parts of those, or the
// multiples of a round number.
func (s *scale) ticks() []float64 {
	if !s.log {
		return linearTicks(s.low, s.top)
	}
	if s.top-s.low < 2.5 {
		return s.decades(1, 2, 5)
	}
	return s.decades(1)
}

// decades returns those multiples of each power of ten that the scale shows.
func (s *scale) decades(parts ...float64) (out []float64) {
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

// SVG draws the chart, for wide pages and for narrow ones.
func (c *Chart) SVG() string {
	var b strings.Builder
	for _, v := range canvases {
		c.drawing(v).draw(&b)
	}
	return b.String()
}

// drawing is a chart on one canvas.
type drawing struct {
	*Chart
	canvas
	x, y                scale
	xTicks, yTicks      []float64
	left, right, bottom float64 // of the plot
}

// drawing lays the chart out: the values beside the axes are to be read whole.
func (c *Chart) drawing(v canvas) *drawing {
	d := &drawing{Chart: c, canvas: v, bottom: v.height - plotBelow}
	var xs, ys []float64
	marks := false
	for i := range c.Lines {
		for _, p := range c.shown(&c.Lines[i]) {
			xs, ys = append(xs, p.X), append(ys, p.Y)
		}
		marks = marks || c.Lines[i].Marks
	}
	d.y = newScale(c.Y.Log, ys, d.bottom, plotTop).rounded()
	if d.yTicks = c.Y.Ticks; d.yTicks == nil {
		d.yTicks = d.y.ticks()
	}
	for _, t := range d.yTicks {
		d.left = max(d.left, textWidth(c.Y.show(t))+tickGap)
	}
	d.x = newScale(c.X.Log, xs, 0, 0)
	if d.xTicks = c.X.Ticks; d.xTicks == nil {
		d.xTicks = d.x.ticks()
	}
	d.right = v.width - marginRight
	if n := len(d.xTicks); n > 0 {
		last, first := textWidth(c.X.show(d.xTicks[n-1])), textWidth(c.X.show(d.xTicks[0]))
		d.left, d.right = max(d.left, first/2), min(d.right, v.width-last/2)
	}
	d.x.from, d.x.to = d.left, d.right
	if space := dotSpace * (d.right - d.left); marks {
		d.x.to -= space
		if c.X.Log {
			d.x.from += space
		}
	}
	return d
}

func (d *drawing) draw(b *strings.Builder) {
	fmt.Fprintf(b, `<svg class="chart %s" viewBox="0 0 %g %g" role="img" aria-label="%s">`, d.class, d.width, d.height, html.EscapeString(d.Title))
	until := d.drawShade(b)
	d.drawY(b)
	d.drawX(b)
	if width := textWidth(d.ShadedName); until-d.left > width {
		fmt.Fprintf(b, `<text class="tick over" text-anchor="middle" x="%.1f" y="%g">%s</text>`, (d.left+until)/2, plotTop+15, html.EscapeString(d.ShadedName))
	}
	for i := range d.Lines {
		d.drawLine(b, i)
	}
	b.WriteString("</svg>")
}

// drawShade draws the shaded ground and returns where it ends; without any, that
// is where the plot begins.
func (d *drawing) drawShade(b *strings.Builder) float64 {
	at := d.x.at(d.Shaded)
	if d.ShadedName == "" || at <= d.left || at >= d.right {
		return d.left
	}
	fmt.Fprintf(b, `<rect class="shade" x="%.1f" y="%g" width="%.1f" height="%.1f"/>`, d.left, plotTop, at-d.left, d.bottom-plotTop)
	return at
}

// drawY draws the lines of the ground that belong to values of Y, finer ones in
// between where the scale is logarithmic, the values, and the label above.
func (d *drawing) drawY(b *strings.Builder) {
	if d.Y.Log && d.y.top-d.y.low < 5 {
		b.WriteString(`<path class="fine" d="`)
		for _, v := range d.y.decades(2, 3, 4, 5, 6, 7, 8, 9) {
			fmt.Fprintf(b, "M%.1f %.1fH%.1f", d.left, d.y.at(v), d.right)
		}
		b.WriteString(`"/>`)
	}
	for _, v := range d.yTicks {
		at := d.y.at(v)
		fmt.Fprintf(b, `<line class="grid" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/><text class="tick" text-anchor="end" x="%.1f" y="%.1f">%s</text>`,
			d.left, at, d.right, at, d.left-tickGap, at+4, d.Y.show(v))
	}
	fmt.Fprintf(b, `<text class="label" x="0" y="%g">%s</text>`, labelBase, d.Y.label())
}

// drawX does the same for X. Values that would run into the one before are left
// out.
func (d *drawing) drawX(b *strings.Builder) {
	end := math.Inf(-1)
	for _, v := range d.xTicks {
		at := d.x.at(v)
		fmt.Fprintf(b, `<line class="grid" x1="%.1f" y1="%g" x2="%.1f" y2="%.1f"/>`, at, plotTop, at, d.bottom)
		if half := textWidth(d.X.show(v)) / 2; at-half > end {
			end = at + half + labelGap
			fmt.Fprintf(b, `<text class="tick" text-anchor="middle" x="%.1f" y="%.1f">%s</text>`, at, d.bottom+18, d.X.show(v))
		}
	}
	if at := d.x.at(d.Guide); d.Guide > 0 && at > d.left && at < d.right {
		fmt.Fprintf(b, `<line class="guide" x1="%.1f" y1="%g" x2="%.1f" y2="%.1f"/>`, at, plotTop, at, d.bottom)
	}
	fmt.Fprintf(b, `<line class="base" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>`, d.left, d.bottom, d.right, d.bottom)
	fmt.Fprintf(b, `<text class="label" text-anchor="middle" x="%.1f" y="%.1f">%s</text>`, (d.left+d.right)/2, d.height-8, d.X.label())
}

// drawLine draws one line, with dots if it has marks or nothing else could be
// seen.
func (d *drawing) drawLine(b *strings.Builder, i int) {
	l := &d.Lines[i]
	points := d.shown(l)
	if len(points) == 0 {
		return
	}
	var path strings.Builder
	for n, p := range points {
		if n > 0 {
			path.WriteByte(' ')
		}
		fmt.Fprintf(&path, "%.1f,%.1f", d.x.at(p.X), d.y.at(p.Y))
	}
	if len(d.Lines) == 1 && !d.Y.Log {
		fmt.Fprintf(b, `<polygon class="area %s" points="%.1f,%.1f %s %.1f,%.1f"/>`,
			d.colour(i), d.x.at(points[0].X), d.bottom, path.String(), d.x.at(points[len(points)-1].X), d.bottom)
	}
	fmt.Fprintf(b, `<polyline class="line %s" points="%s"><title>%s</title></polyline>`, d.colour(i), path.String(), html.EscapeString(l.Name))
	for _, p := range points {
		if l.Marks || len(points) == 1 || math.Abs(p.X-d.Guide) < 1e-6*d.Guide {
			fmt.Fprintf(b, `<circle class="dot %s" cx="%.1f" cy="%.1f" r="3.4"><title>%s: %s, %s</title></circle>`,
				d.colour(i), d.x.at(p.X), d.y.at(p.Y), html.EscapeString(l.Name), d.X.show(p.X), d.Y.show(p.Y))
		}
	}
}

// show writes a value for HTML.
func (a *Axis) show(v float64) string {
	if a.Show != nil {
		return html.EscapeString(a.Show(v))
	}
	return strconv.FormatFloat(v, 'g', 6, 64)
}

// Legend names the lines in their colours, with their figures if there are any.
// The only line has its name in the title.
func (c *Chart) Legend() string {
	var b strings.Builder
	if len(c.Lines) == 1 && len(c.Columns) == 0 {
		return ""
	}
	if len(c.Columns) == 0 {
		b.WriteString(`<p class="legend">`)
		for i := range c.Lines {
			fmt.Fprintf(&b, `<span><i class="%s"></i>%s</span>`, c.colour(i), html.EscapeString(c.Lines[i].Name))
		}
		b.WriteString("</p>")
		return b.String()
	}
	b.WriteString(`<table class="legend"><tr><th></th>`)
	for _, name := range c.Columns {
		fmt.Fprintf(&b, "<th>%s</th>", html.EscapeString(name))
	}
	b.WriteString("</tr>")
	for i := range c.Lines {
		fmt.Fprintf(&b, `<tr><td><i class="%s"></i>%s</td>`, c.colour(i), html.EscapeString(c.Lines[i].Name))
		for _, cell := range c.Lines[i].Cells {
			fmt.Fprintf(&b, "<td>%s</td>", html.EscapeString(cell))
		}
		b.WriteString("</tr>")
	}
	b.WriteString("</table>")
	return b.String()
}
