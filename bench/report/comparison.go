package report

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
)

// Comparison is what a page about several servers holds, for readers who want to
// see the curves.
type Comparison struct {
	Title  string
	Lines  []string // what the figures depend on
	Notes  []string // what a reader has to know about this run
	Tables []Table
	// Headlines and First are for the page of curves, on which the charts are
	// shown before the tables: the figures above all else, and how many of the
	// tables are shown before the charts, of which a wide screen shows 2 or 3 side
	// by side. Charts without any point are left out.
	Headlines []Headline
	First     int
	Charts    []Chart
	Columns   int // 0 means 2
}

// Print writes lines, tables and notes for a terminal.
func (c *Comparison) Print(out io.Writer) error {
	for _, line := range c.Lines {
		fmt.Fprintln(out, line)
	}
	for i := range c.Tables {
		if err := c.Tables[i].Print(out); err != nil {
			return err
		}
	}
	for _, n := range c.Notes {
		fmt.Fprintf(out, "\n%s\n", n)
	}
	return nil
}

// Markdown returns the lines as a list, with what stands before a colon in
// bold, the notes, intro unless it is empty, and the tables with headings of the
// given level.
func (c *Comparison) Markdown(level int, intro string) string {
	var b strings.Builder
	for _, line := range c.Lines {
		if topic, rest, found := cutTopic(line); found {
			line = "**" + topic + ":** " + rest
		}
		fmt.Fprintf(&b, "- %s\n", line)
	}
	for _, n := range c.Notes {
		fmt.Fprintf(&b, "\n**Note:** %s\n", n)
	}
	if intro != "" {
		fmt.Fprintf(&b, "\n%s\n", intro)
	}
	for i := range c.Tables {
		fmt.Fprintf(&b, "\n%s\n", strings.TrimSpace(c.Tables[i].Markdown(level)))
	}
	return b.String()
}

// HTML writes the comparison as one page that needs nothing else: no script, no
// font, no picture from anywhere.
func (c *Comparison) HTML(out io.Writer) error {
	p := page{Title: c.Title, Headlines: c.Headlines, Columns: c.Columns, Details: c.Lines}
	for _, n := range c.Notes {
		p.Notes = append(p.Notes, note{Text: n, Bad: true})
	}
	for _, chart := range c.Charts {
		if chart.hasPoints() {
			p.Charts = append(p.Charts, chart)
		}
	}
	for i := range c.Tables {
		if t := &c.Tables[i]; i < c.First {
			p.First = append(p.First, t)
		} else {
			p.Tables = append(p.Tables, t)
		}
	}
	return writePage(out, p)
}

// WriteHTML writes the page to a file.
func (c *Comparison) WriteHTML(path string) error {
	var b bytes.Buffer
	if err := c.HTML(&b); err != nil {
		return err
	}
	return os.WriteFile(path, b.Bytes(), 0o644)
}

// hasPoints reports whether there is anything to see.
func (c *Chart) hasPoints() bool {
	for i := range c.Lines {
		if len(c.shown(&c.Lines[i])) > 0 {
			return true
		}
	}
	return false
}

// WithPoints returns those lines that have points, so that a legend does not
// name what was not measured.
func WithPoints(lines ...Line) []Line {
	var out []Line
	for _, l := range lines {
		if len(l.Points) > 0 {
			out = append(out, l)
		}
	}
	return out
}
