package report

import (
	"bytes"
	"fmt"
	"html/template"
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
	// Charts are shown behind the tables, those without any point left out.
	Charts []Chart
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
		if what, rest, found := strings.Cut(line, ": "); found {
			line = "**" + what + ":** " + rest
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
	shown := make([]Chart, 0, len(c.Charts))
	for _, chart := range c.Charts {
		if chart.hasPoints() {
			shown = append(shown, chart)
		}
	}
	return comparisonPage.Execute(out, struct {
		*Comparison
		Style  template.CSS
		Charts []Chart
	}{c, chartStyle, shown})
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

var comparisonPage = template.Must(template.Must(pageParts.Clone()).New("comparison").Parse(`{{template "head"}}<title>{{.Title}}</title>
<style>{{.Style}}</style>
</head>
<body>
<h1>{{.Title}}</h1>
{{range .Lines}}<p class="soft">{{.}}</p>
{{end}}
{{- range .Notes}}<p class="bad">{{.}}</p>
{{end}}
{{- template "tables" .Tables}}
{{- template "charts" .Charts}}
</body>
</html>
`))
