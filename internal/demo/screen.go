package demo

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/internal/render"
)

// view is all there is to see at one moment.
type view struct {
	past  time.Duration // since the start
	load  figures
	nodes []nodeView
}

// nodeView is one line of the table of nodes.
type nodeView struct {
	id      int
	state   string
	leaders int
	meta    bool // leads the meta group
	address string
}

// nodeViews makes the table of nodes. dead is a node that was killed, which the
// others may not have noticed yet.
func nodeViews(c *command.ClusterStatus, addresses []string, dead int) []nodeView {
	out := make([]nodeView, len(addresses))
	for i := range out {
		out[i] = nodeView{id: i + 1, state: "starting", address: addresses[i]}
	}
	at := func(id uint64) *nodeView {
		if id == 0 || id > uint64(len(out)) {
			return &nodeView{} // not one of ours: nobody looks at it
		}
		return &out[id-1]
	}
	for i := range c.Nodes {
		at(c.Nodes[i].ID).state = c.Nodes[i].State
	}
	for i := range c.Shards {
		n := at(c.Shards[i].Leader)
		if c.Shards[i].Shard == command.MetaShard {
			n.meta = true
		} else {
			n.leaders++
		}
	}
	if dead > 0 && dead <= len(out) {
		out[dead-1] = nodeView{id: dead, state: "KILLED", address: addresses[dead-1]}
	}
	return out
}

// Terminal sequences.
const (
	erase  = "\x1b[K" // to the end of the line
	upward = "\x1b[%dA"
)

// screen shows events and views: on a terminal the events scroll by above a
// table that is drawn in place; elsewhere each is a line.
type screen struct {
	render.Look
	title string

	total time.Duration // that the curve spans, if the load does not take longer

	mu      sync.Mutex
	w       io.Writer
	titled  bool
	drawn   int    // lines of the table that stand on the terminal
	last    *view  // drawn last
	history []rate // of writes, newest last
	marks   []mark // on the curve, newest last
}

// rate is how many writes a second there were at a moment.
type rate struct {
	at     time.Duration // since the start
	writes float64
}

// mark is something that happened.
type mark struct {
	at   time.Duration // since the start
	sign rune
	text string
}

func newScreen(w io.Writer, columns int, colour bool) *screen {
	return &screen{w: w, Look: render.Look{Columns: columns, Colour: colour && columns > 0}}
}

// interval is the time between two views.
func (s *screen) interval() time.Duration {
	if s.Columns > 0 {
		return 250 * time.Millisecond
	}
	return time.Second
}

// say shows an event.
func (s *screen) say(past time.Duration, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b bytes.Buffer
	s.head(&b)
	s.clear(&b)
	for i, l := range strings.Split(render.Look{Columns: max(s.Columns-len(stamp(past))-2, 0)}.Wrap(text, ""), "\n") {
		at := stamp(past)
		if i > 0 {
			at = strings.Repeat(" ", len(at))
		}
		fmt.Fprintf(&b, "%s  %s\n", s.Paint(render.Dim, at), s.Paint(render.Bold, l))
	}
	if s.last != nil && s.Columns > 0 {
		s.table(&b, s.last)
	}
	s.write(&b)
}

// show shows a view.
func (s *screen) show(v view) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b bytes.Buffer
	s.head(&b)
	s.history = append(s.history, rate{v.past, v.load.writeRate})
	if extra := len(s.history) - historyMax; extra > 0 {
		s.history = s.history[extra:]
	}
	if s.Columns == 0 {
		b.WriteString(line(&v) + "\n")
	} else {
		s.clear(&b)
		s.table(&b, &v)
		s.last = &v
	}
	s.write(&b)
}

// mark marks a moment on the curve.
func (s *screen) mark(at time.Duration, sign rune, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.marks = append(s.marks, mark{at, sign, text})
}

// advise says what to try next, with the program called as command.
func (s *screen) advise(command string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.write(bytes.NewBufferString(strings.ReplaceAll(`
Now try this:
  proa serve                  # in one terminal
  proa put greeting hello     # in another one
  proa get greeting
  proa bench                  # throughput and latency
  proa demo --nodes 5
`, "  proa ", "  "+cmp.Or(command, "proa")+" ")))
}

// finish leaves the last table where it is, with the totals of the load, which has
// ended.
func (s *screen) finish(acked, missed, failed int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last != nil && s.Columns > 0 {
		var b bytes.Buffer
		s.clear(&b)
		s.last.load.acked, s.last.load.missed, s.last.load.failed = acked, missed, failed
		s.table(&b, s.last)
		s.write(&b)
	}
	s.drawn, s.last = 0, nil
	if s.Columns > 0 {
		s.write(bytes.NewBufferString("\n"))
	}
}

// write writes at once, so that nothing flickers. A terminal that has gone is
// nobody's loss.
func (s *screen) write(b *bytes.Buffer) { _, _ = s.w.Write(b.Bytes()) }

func (s *screen) head(b *bytes.Buffer) {
	if !s.titled && s.title != "" {
		fmt.Fprintf(b, "%s\n\n", s.title)
		s.titled = true
	}
}

// clear removes the table.
func (s *screen) clear(b *bytes.Buffer) {
	if s.drawn > 0 {
		fmt.Fprintf(b, upward+"\r\x1b[J", s.drawn)
		s.drawn = 0
	}
}

// stamp is the time an event has, in the width of all others.
func stamp(past time.Duration) string { return fmt.Sprintf("%6.1fs", past.Seconds()) }

// line is a view in one line.
func line(v *view) string {
	leaders := make([]string, len(v.nodes))
	for i, n := range v.nodes {
		leaders[i] = strconv.Itoa(n.leaders)
		if n.state != command.NodeUp {
			leaders[i] = n.state
		}
	}
	return fmt.Sprintf("%s  %7.0f writes/s p50 %s p99 %s  %7.0f reads/s p50 %s p99 %s  leaders %s", stamp(v.past),
		v.load.writeRate, millis(v.load.write50), millis(v.load.write99),
		v.load.readRate, millis(v.load.read50), millis(v.load.read99), strings.Join(leaders, "/"))
}

// millis shows a latency in a constant width.
func millis(d time.Duration) string {
	if d == 0 {
		return "      - ms"
	}
	return fmt.Sprintf("%7.2f ms", float64(d)/float64(time.Millisecond))
}

// table draws a view in several lines, none longer than the terminal is wide.
func (s *screen) table(b *bytes.Buffer, v *view) {
	lines := []string{
		"",
		"            per second         p50         p99",
		fmt.Sprintf("  writes    %10.0f  %s  %s", v.load.writeRate, millis(v.load.write50), millis(v.load.write99)),
		fmt.Sprintf("  reads     %10.0f  %s  %s", v.load.readRate, millis(v.load.read50), millis(v.load.read99)),
		fmt.Sprintf("  %d writes acknowledged, %d stale reads, %d calls failed", v.load.acked, v.load.missed, v.load.failed),
		"",
	}
	lines = append(lines, s.curve(v.past)...)
	lines = append(lines, "")
	for i := range lines {
		lines[i] = fit(lines[i], s.Columns)
	}
	for _, n := range v.nodes {
		lines = append(lines, s.nodeLine(&n))
	}
	lines = append(lines, s.Paint(render.Dim, fit("  ■ leads a shard   ◆ leads the cluster's own shard, meta", s.Columns)))
	for _, l := range lines {
		b.WriteString(l + erase + "\n")
	}
	s.drawn = len(lines)
}

// nodeLine shows a node: a square for each shard it leads, a diamond for the
// meta group.
func (s *screen) nodeLine(n *nodeView) string {
	leads := strings.Repeat("■", n.leaders)
	if n.meta {
		leads += "◆"
	}
	colour := render.Green
	if n.state != command.NodeUp {
		colour = render.Red
	}
	return s.Paint(colour, fit(fmt.Sprintf("  node %d    %-9s %-15s  %s", n.id, n.state, n.address, leads), s.Columns))
}

// fit cuts a line that is longer than a terminal is wide.
func fit(line string, columns int) string {
	if utf8.RuneCountInString(line) <= columns {
		return line
	}
	runes := []rune(line)
	return string(runes[:columns])
}

// historyMax bounds how many rates are kept: those of the longest demo.
const historyMax = int(DurationMax/(250*time.Millisecond)) + 1000

// curveColumnsMax bounds the width of the curve.
const curveColumnsMax = 100

// curve draws the rate of writes from the first one on, with marks below and what
// they mean.
func (s *screen) curve(past time.Duration) (lines []string) {
	width := min(curveColumnsMax, max(s.Columns-13, 10))
	begin := past
	if len(s.history) > 0 {
		begin = s.history[0].at
	}
	// One interval more has its place at the end.
	total := max(s.total, past-begin) + s.interval()
	column := func(at time.Duration) int {
		return min(int(max(at-begin, 0)*time.Duration(width)/total), width-1)
	}
	sum, count := make([]float64, width), make([]int, width)
	for _, r := range s.history {
		k := column(r.at)
		sum[k], count[k] = sum[k]+r.writes, count[k]+1
	}
	var rates []float64
	for k := range sum {
		switch {
		case count[k] > 0:
			rates = append(rates, sum[k]/float64(count[k]))
		case k < column(past) && len(rates) > 0:
			rates = append(rates, rates[len(rates)-1]) // fewer views than columns
		}
	}
	lines = append(lines, "  writes/s  "+sparkline(rates))
	signs := []rune(strings.Repeat(" ", width+len(s.marks)))
	for _, m := range s.marks {
		k := column(m.at)
		for signs[k] != ' ' {
			k++
		}
		signs[k] = m.sign
		lines = append(lines, fmt.Sprintf("  %c %5.1fs  %s", m.sign, m.at.Seconds(), m.text))
	}
	return slices.Insert(lines, 1, strings.TrimRight("            "+string(signs), " "))
}

var bars = []rune("▁▂▃▄▅▆▇█")

// sparkline draws rates as bars, the highest of them at full height. None at all
// is a blank, so that a pause is a gap.
func sparkline(rates []float64) string {
	top := 0.0
	for _, r := range rates {
		top = max(top, r)
	}
	var b strings.Builder
	for _, r := range rates {
		switch {
		case r <= 0:
			b.WriteByte(' ')
		default:
			b.WriteRune(bars[min(int(r/top*float64(len(bars))), len(bars)-1)])
		}
	}
	return b.String()
}
