package render

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Table writes aligned columns as rows come: it gathers a page of rows, aligns
// them, and keeps the widths for the next page, growing where it must. The
// last column is cut to the terminal's width, if there is one.
type Table struct {
	w       io.Writer
	Columns int // of the terminal; 0: no cutting
	header  []string
	widths  []int
	rows    []tableRow
	any     bool  // something was written
	err     error // of writing
	// Paint returns a cell in the colour that it has in a column; nil: none has any.
	Paint func(column int, cell string) string
}

// tableRow is one row of a table.
type tableRow struct {
	cells []string
	bytes int // of the value that the last cell shows; -1: it shows none
}

// tablePageRows is how many rows are aligned together.
const tablePageRows = 200

// Table returns a table with a header on the output.
func (o *Output) Table(header ...string) *Table {
	columns, _ := Terminal(o.Out)
	return &Table{w: o.Out, Columns: columns, header: header, widths: make([]int, len(header))}
}

// Row adds a row. Flush returns the error of writing it.
func (t *Table) Row(cells ...string) { t.add(tableRow{cells, -1}) }

func (t *Table) add(r tableRow) {
	t.rows = append(t.rows, r)
	if len(t.rows) == tablePageRows {
		t.err = t.Flush()
	}
}

// Flush writes the rows gathered, and returns the first error of writing the table. A
// table without rows has no header either.
func (t *Table) Flush() error {
	if len(t.rows) == 0 || t.err != nil {
		t.rows = t.rows[:0]
		return t.err
	}
	var b bytes.Buffer
	rows := t.rows
	if !t.any {
		rows = append([]tableRow{{t.header, -1}}, rows...)
	}
	for _, r := range rows {
		for i, cell := range r.cells {
			cell = OneLine(cell)
			r.cells[i] = cell
			t.widths[i] = max(t.widths[i], utf8.RuneCountInString(cell))
		}
	}
	for i, r := range rows {
		t.writeRow(&b, r, !t.any && i == 0)
	}
	t.any, t.rows = true, t.rows[:0]
	_, t.err = t.w.Write(b.Bytes())
	return t.err
}

func (t *Table) writeRow(b *bytes.Buffer, r tableRow, header bool) {
	paint := t.Paint
	if paint == nil || header {
		paint = func(_ int, cell string) string { return cell }
	}
	used := 0
	last := len(r.cells) - 1
	for i, cell := range r.cells {
		if i == last {
			b.WriteString(paint(i, cut(cell, r.bytes, t.Columns, used)))
			break
		}
		b.WriteString(paint(i, cell))
		b.WriteString(strings.Repeat(" ", t.widths[i]-utf8.RuneCountInString(cell)+2))
		used += t.widths[i] + 2
	}
	b.WriteByte('\n')
}

// cellRunesMin is what is shown of a cell however narrow the terminal is.
const cellRunesMin = 20

// cut shortens a cell that would pass the terminal's edge, and says how long it is:
// size bytes, or so many characters where size is -1. An escape such as \x00 stays
// whole.
func cut(cell string, size, columns, used int) string {
	room := max(columns-used, cellRunesMin)
	length := utf8.RuneCountInString(cell)
	if columns == 0 || length <= room {
		return cell
	}
	note := fmt.Sprintf("… (%d characters)", length)
	if size >= 0 {
		note = fmt.Sprintf("… (%d bytes)", size)
	}
	keep, end := room-utf8.RuneCountInString(note), 0
	for end < len(cell) {
		runes, bytes := oneShown(cell[end:])
		if keep -= runes; keep < 0 {
			break
		}
		end += bytes
	}
	return cell[:end] + note
}

// oneShown measures the first character of what Escape returned, which may be an
// escape.
func oneShown(s string) (runes, bytes int) {
	switch {
	case len(s) >= 4 && s[0] == '\\' && s[1] == 'x':
		return 4, 4
	case len(s) >= 2 && s[0] == '\\':
		return 2, 2
	}
	_, bytes = utf8.DecodeRuneInString(s)
	return 1, bytes
}
