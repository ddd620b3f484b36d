package report

import (
	"bytes"
	"fmt"
	"html/template"
	"io"
	"os"
	"slices"
	"strings"
)

// Comparison is what a page about several servers holds, for readers who want to
// see the curves.
type Comparison struct {
	Title  string
	Lines  []string // what the figures depend on
	Notes  []string // what a reader has to know about this run
	Tables []Table
	// Subtitle and PageNotes are for the page of curves alone.
	Subtitle  string
	PageNotes []Note
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
	shown := *c
	shown.Charts = slices.DeleteFunc(slices.Clone(c.Charts), func(c Chart) bool { return !c.hasPoints() })
	for _, n := range c.Notes {
		shown.PageNotes = append(shown.PageNotes, Note{Text: n, Bad: true})
	}
	return shown.page(out)
}

// page writes the page with all charts, and with PageNotes for notes.
func (c *Comparison) page(out io.Writer) error {
	return pageTemplate.Execute(out, struct {
		*Comparison
		Style template.CSS
	}{c, template.CSS(chartStyle)})
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
	return slices.ContainsFunc(c.Lines, func(l Line) bool { return len(c.shown(&l)) > 0 })
}

// WithPoints returns those lines that have points, so that a legend does not
// name what was not measured.
func WithPoints(lines ...Line) []Line {
	return slices.DeleteFunc(lines, func(l Line) bool { return len(l.Points) == 0 })
}
