// Package report shows what was measured. The figures of a comparison become
// tables, on a terminal and in a Markdown page of which a part is generated, and
// a page of curves ([Comparison]). Those of a load ([Load]) become a table, CSV,
// JSON, or such a page, which can be read anywhere ([Chart]).
package report

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"unicode/utf8"
)

// Table is one table. Cells are plain text.
type Table struct {
	Title  string
	Header []string
	Rows   [][]string
	Notes  []string // a sentence or more each, below the table
}

// Add appends a row.
func (t *Table) Add(cells ...string) { t.Rows = append(t.Rows, cells) }

// Print writes the table for a terminal: title, aligned columns, notes.
func (t *Table) Print(out io.Writer) error {
	fmt.Fprintf(out, "\n%s\n\n", t.Title)
	w := tabwriter.NewWriter(out, 0, 0, columnGap, ' ', 0)
	fmt.Fprintln(w, strings.Join(t.Header, "\t"))
	for _, row := range t.Rows {
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, n := range t.Notes {
		if _, err := fmt.Fprintf(out, "\n%s\n", n); err != nil {
			return err
		}
	}
	return nil
}

// fit returns the table as far as it fits in so many columns of a terminal, 0 for
// any number: the columns that spare names are left out, in this order, until it
// does. A note says which were.
func (t *Table) fit(columns int, spare ...string) *Table {
	out := *t
	var left []string
	for _, name := range spare {
		if columns == 0 || out.width() <= columns {
			break
		}
		if i := slices.Index(out.Header, name); i >= 0 {
			out.drop(i)
			left = append(left, name)
		}
	}
	if len(left) > 0 {
		out.Notes = append(slices.Clone(t.Notes), fmt.Sprintf("(without %s: the terminal has %d columns; -o csv shows all)", strings.Join(left, ", "), columns))
	}
	return &out
}

// drop leaves a column out. The rows of the table that t is a copy of stay.
func (t *Table) drop(column int) {
	without := func(row []string) []string { return slices.Delete(slices.Clone(row), column, column+1) }
	t.Header = without(t.Header)
	rows := make([][]string, len(t.Rows))
	for i, row := range t.Rows {
		rows[i] = without(row)
	}
	t.Rows = rows
}

// columnGap is the number of blanks between two columns.
const columnGap = 2

// width is how many columns of a terminal the table takes.
func (t *Table) width() int {
	sum := -columnGap
	for i, name := range t.Header {
		widest := utf8.RuneCountInString(name)
		for _, row := range t.Rows {
			widest = max(widest, utf8.RuneCountInString(row[i]))
		}
		sum += widest + columnGap
	}
	return sum
}

// Markdown returns the table with its title as a heading of the given level,
// 1..6.
func (t *Table) Markdown(level int) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("%s %s\n", strings.Repeat("#", level), t.Title)
	line("| %s |", strings.Join(t.Header, " | "))
	line("|%s", strings.Repeat("---|", len(t.Header)))
	for _, row := range t.Rows {
		line("| %s |", strings.Join(row, " | "))
	}
	for _, n := range t.Notes {
		line("\n%s", n)
	}
	return b.String()
}

// Micros prints nanoseconds as microseconds.
func Micros(ns float64) string {
	if ns < 100e3 {
		return fmt.Sprintf("%.1f", ns/1e3)
	}
	return Thousands(ns / 1e3)
}

// Hundredths prints nanoseconds as microseconds with two digits behind the
// point.
func Hundredths(ns float64) string { return fmt.Sprintf("%.2f", ns/1e3) }

// Thousands prints a number without fraction, its digits in groups.
func Thousands(v float64) string {
	s := fmt.Sprintf("%.0f", v)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// Bound is a target: what a figure may be at most or must be at least.
type Bound struct {
	Value  float64
	AtMost bool
}

// AtMost returns the bound that a figure must not exceed.
func AtMost(v float64) Bound { return Bound{v, true} }

// AtLeast returns the bound that a figure must reach.
func AtLeast(v float64) Bound { return Bound{v, false} }

// String returns "≤ x" or "≥ x".
func (b Bound) String() string {
	if b.AtMost {
		return fmt.Sprintf("≤ %.4g", b.Value)
	}
	return fmt.Sprintf("≥ %.4g", b.Value)
}

// Verdict returns "met" or "MISSED".
func (b Bound) Verdict(v float64) string {
	if b.AtMost && v <= b.Value || !b.AtMost && v >= b.Value {
		return "met"
	}
	return missed
}

const missed = "MISSED"

// NotMeasured stands where there is no figure.
const NotMeasured = "not measured"

// AddTarget appends a row that holds a ratio against a bound; one of nothing is
// not measured.
func (t *Table) AddTarget(what string, b Bound, r Ratio) {
	if r == (Ratio{}) {
		t.Add(what, b.String(), NotMeasured, "–")
		return
	}
	t.Add(what, b.String(), r.String(), b.Verdict(r.Median))
}
