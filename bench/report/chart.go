package report

import (
	"fmt"
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

// Title is what stands beside the axis.
func (a *Axis) Title() string {
	if a.Log {
		return a.Label + " (log scale)"
	}
	return a.Label
}

// show writes a value.
func (a *Axis) show(v float64) string {
	if a.Show != nil {
		return a.Show(v)
	}
	return strconv.FormatFloat(v, 'g', 6, 64)
}

// XY is one point of a Line.
type XY struct{ X, Y float64 }

// Line is one line of a Chart.
type Line struct {
	Name   string
	Points []XY
	Marks  bool     // a dot at each point, with its values
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

// Chart draws lines as SVG that needs nothing else (see chart.html): its colours come from the
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
// class by which the style sheet shows or hides it: text is not to shrink with
// the page.
type canvas struct {
	Class         string
	Width, Height float64
}

var canvases = []canvas{{"wide", 760, 340}, {"narrow", 380, 290}}

// Measures of text and margins, in the same units. Text is as wide as the widest
// of common fonts makes it.
const (
	charWidth   = 8.0
	labelGap    = 6.0 // between two values of X
	tickGap     = 8.0 // between a tick and its value
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

// drawings returns the chart for wide pages and for narrow ones.
func (c *Chart) drawings() (out []*drawing) {
	for _, v := range canvases {
		out = append(out, c.drawing(v))
	}
	return out
}

// drawing is a chart on one canvas, as chart.html draws it: all coordinates are
// those of the canvas.
type drawing struct {
	*Chart
	canvas
	x, y                     scale
	Left, Right, Top, Bottom float64 // of the plot
	XTicks, YTicks           []tick
	Fine                     string  // the lines between those of YTicks, a path
	Shade, ShadeText         float64 // the width of the shaded part, and where its name stands, 0: none
	GuideAt                  float64 // 0: none
	Paths                    []path
}

// tick is a value beside an axis. Its text is empty where it would run into that of
// the tick before.
type tick struct {
	At   float64
	Text string
}

// path is one line.
type path struct {
	Class, Name  string
	Points, Area string // Area is empty if the ground below is not coloured
	Dots         []dot
}

type dot struct {
	XY
	Text string
}

// Inner is the height of the plot.
func (d *drawing) Inner() float64 { return d.Bottom - d.Top }

// Middle is the middle of the plot.
func (d *drawing) Middle() float64 { return (d.Left + d.Right) / 2 }

// drawing lays the chart out: the values beside the axes can be read whole.
func (c *Chart) drawing(v canvas) *drawing {
	d := &drawing{Chart: c, canvas: v, Top: plotTop, Bottom: v.Height - plotBelow, Right: v.Width - marginRight}
	var xs, ys []float64
	marks := false
	for i := range c.Lines {
		for _, p := range c.shown(&c.Lines[i]) {
			xs, ys = append(xs, p.X), append(ys, p.Y)
		}
		marks = marks || c.Lines[i].Marks
	}
	d.y, d.x = newScale(c.Y.Log, ys, d.Bottom, d.Top).rounded(), newScale(c.X.Log, xs, 0, 0)
	for _, t := range c.Y.ticks(&d.y) {
		d.YTicks = append(d.YTicks, tick{d.y.at(t), c.Y.show(t)})
		d.Left = max(d.Left, textWidth(c.Y.show(t))+tickGap)
	}
	ticks := c.X.ticks(&d.x)
	if n := len(ticks); n > 0 {
		last, first := textWidth(c.X.show(ticks[n-1])), textWidth(c.X.show(ticks[0]))
		d.Left, d.Right = max(d.Left, first/2), min(d.Right, v.Width-last/2)
	}
	d.x.from, d.x.to = d.Left, d.Right
	if space := dotSpace * (d.Right - d.Left); marks {
		d.x.to -= space
		if c.X.Log {
			d.x.from += space
		}
	}
	end := math.Inf(-1)
	for _, t := range ticks {
		k := tick{At: d.x.at(t)}
		if half := textWidth(c.X.show(t)) / 2; k.At-half > end {
			k.Text, end = c.X.show(t), k.At+half+labelGap
		}
		d.XTicks = append(d.XTicks, k)
	}
	d.mark()
	for i := range c.Lines {
		d.draw(i)
	}
	return d
}

// ticks returns the values that stand beside the axis.
func (a *Axis) ticks(s *scale) []float64 {
	if a.Ticks != nil {
		return a.Ticks
	}
	return s.ticks()
}

// mark lays out what is behind the lines.
func (d *drawing) mark() {
	if d.Y.Log && d.y.top-d.y.low < 5 {
		for _, v := range d.y.decades(2, 3, 4, 5, 6, 7, 8, 9) {
			d.Fine += fmt.Sprintf("M%.1f %.1fH%.1f", d.Left, d.y.at(v), d.Right)
		}
	}
	within := func(x float64) bool { return x > d.Left && x < d.Right }
	if at := d.x.at(d.Shaded); d.ShadedName != "" && within(at) {
		d.Shade = at - d.Left
		if d.Shade > textWidth(d.ShadedName) {
			d.ShadeText = (d.Left + at) / 2
		}
	}
	if d.Guide > 0 && within(d.x.at(d.Guide)) {
		d.GuideAt = d.x.at(d.Guide)
	}
}

// draw lays out one line, with dots if it has marks or nothing else could be seen.
func (d *drawing) draw(i int) {
	l := &d.Lines[i]
	points := d.shown(l)
	if len(points) == 0 {
		return
	}
	p := path{Class: d.colour(i), Name: l.Name}
	var words []string
	for _, at := range points {
		words = append(words, fmt.Sprintf("%.1f,%.1f", d.x.at(at.X), d.y.at(at.Y)))
		if l.Marks || len(points) == 1 || math.Abs(at.X-d.Guide) < 1e-6*d.Guide {
			p.Dots = append(p.Dots, dot{XY{d.x.at(at.X), d.y.at(at.Y)}, l.Name + ": " + d.X.show(at.X) + ", " + d.Y.show(at.Y)})
		}
	}
	p.Points = strings.Join(words, " ")
	if len(d.Lines) == 1 && !d.Y.Log {
		p.Area = fmt.Sprintf("%.1f,%.1f %s %.1f,%.1f", d.x.at(points[0].X), d.Bottom, p.Points, d.x.at(points[len(points)-1].X), d.Bottom)
	}
	d.Paths = append(d.Paths, p)
}
