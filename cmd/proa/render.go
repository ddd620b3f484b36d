package main

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/proa-kv/proa/client"
)

// Forms of output.
const (
	outputTable = "table" // for people: unprintable bytes escaped
	outputJSON  = "json"  // one JSON document; of several results, a list
	outputJSONL = "jsonl" // the same, each result a line
	outputRaw   = "raw"   // bytes as they are
)

// row is one key in JSON output, in export files, and in tables.
type row struct {
	Key       text   `json:"key"`
	Value     text   `json:"value,omitzero"`
	Version   uint64 `json:"version,omitempty"`
	TTLMillis int64  `json:"ttl_ms,omitempty"`
	Found     *bool  `json:"found,omitempty"`
}

func rowOf(i *client.Item) row {
	return row{Key: i.Key, Value: i.Value, Version: i.Version, TTLMillis: i.TTL.Milliseconds()}
}

// IsZero tells omitzero to leave a value out only where there is none: an
// empty value is a value.
func (t text) IsZero() bool { return t == nil }

// present makes sure an empty value is shown as one.
func present(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// json reports whether the output is JSON.
func (a *app) json() bool { return a.output == outputJSON || a.output == outputJSONL }

// writeJSON writes v, the only result of a command, on one line.
func (a *app) writeJSON(v any) error {
	b, err := marshalJSON(v)
	if err != nil {
		return err
	}
	_, err = a.out.Write(append(b, '\n'))
	return err
}

// jsonList writes the results of a command that may have several, as they come:
// a list with a line for each, or only the lines.
type jsonList struct {
	a   *app
	any bool
}

func (a *app) newJSONList() *jsonList { return &jsonList{a: a} }

// add writes one result.
func (l *jsonList) add(v any) error {
	line, err := marshalJSON(v)
	if err != nil {
		return err
	}
	before, behind := "[", ""
	switch {
	case l.a.output == outputJSONL:
		before, behind = "", "\n"
	case l.any:
		before = ",\n"
	}
	l.any = true
	return l.a.printf("%s%s%s", before, line, behind)
}

// end must be called when all results are written, also where that failed in
// between: what there is then is a list.
func (l *jsonList) end() error {
	if l.a.output == outputJSONL {
		return nil
	}
	text := "]\n"
	if !l.any {
		text = "[]\n"
	}
	return l.a.printf("%s", text)
}

// printf writes to the output.
func (a *app) printf(format string, args ...any) error {
	_, err := fmt.Fprintf(a.out, format, args...)
	return err
}

// showValue shows what get found. A value that is all the output there is goes to
// a file or pipe as it is. On a terminal, and among the results of other lines of a
// shell, it is a line of text.
func (a *app) showValue(i *client.Item) error {
	_, people := terminal(a.out)
	switch {
	case a.json():
		r := rowOf(i)
		r.Value = present(i.Value)
		return a.writeJSON(r)
	case a.output == outputRaw, !people && !a.shell && !a.formChosen:
		_, err := a.out.Write(i.Value)
		return err
	}
	return a.printf("%s\n", escape(i.Value))
}

type writeRow struct {
	Key      text     `json:"key,omitzero"`
	Version  *uint64  `json:"version,omitempty"` // nil: not known
	Previous *row     `json:"previous,omitempty"`
	Error    *problem `json:"error,omitempty"`
}

func writeRowOf(r *client.WriteResult) writeRow {
	out := writeRow{Version: &r.Version}
	if r.Previous != nil {
		p := rowOf(r.Previous)
		p.Value = present(r.Previous.Value)
		out.Previous = &p
	}
	return out
}

// showWrite shows what a write answered. verb is what was done, in the past
// tense.
func (a *app) showWrite(verb string, r client.WriteResult, previousAsked bool) error {
	switch a.output {
	case outputJSON, outputJSONL:
		return a.writeJSON(writeRowOf(&r))
	case outputRaw:
		if !previousAsked {
			return a.printf("%d\n", r.Version)
		}
		if r.Previous == nil {
			return nil
		}
		_, err := a.out.Write(r.Previous.Value)
		return err
	}
	if err := a.printf("%s, version %d\n", verb, r.Version); err != nil || !previousAsked {
		return err
	}
	if r.Previous == nil {
		return a.printf("previous: none\n")
	}
	return a.printf("previous: %s (version %d%s)\n", escape(r.Previous.Value), r.Previous.Version, ttlNote(r.Previous.TTL))
}

func ttlNote(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return ", expires in " + formatTTL(d)
}

// formatTTL shows milliseconds only where they matter.
func formatTTL(d time.Duration) string {
	if d >= 10*time.Second {
		d = d.Round(time.Second)
	} else {
		d = d.Round(time.Millisecond)
	}
	return d.String()
}

// table writes aligned columns as rows come: it gathers a page of rows, aligns
// them, and keeps the widths for the next page, growing where it must. The
// last column is cut to the terminal's width, if there is one.
type table struct {
	w       io.Writer
	columns int // of the terminal; 0: no cutting
	header  []string
	widths  []int
	rows    []tableRow
	any     bool // something was written
	// paint returns a cell in the colour that it has in a column; nil: none has any.
	paint func(column int, cell string) string
}

// tableRow is one row of a table.
type tableRow struct {
	cells []string
	bytes int // of the value that the last cell shows; -1: it shows none
}

// tablePageRows is how many rows are aligned together.
const tablePageRows = 200

func (a *app) newTable(header ...string) *table {
	columns, _ := terminal(a.out)
	return &table{w: a.out, columns: columns, header: header, widths: make([]int, len(header))}
}

// row adds a row.
func (t *table) row(cells ...string) error { return t.add(tableRow{cells, -1}) }

func (t *table) add(r tableRow) error {
	t.rows = append(t.rows, r)
	if len(t.rows) == tablePageRows {
		return t.flush()
	}
	return nil
}

// flush writes the rows gathered. A table without rows has no header either.
func (t *table) flush() error {
	if len(t.rows) == 0 {
		return nil
	}
	var b bytes.Buffer
	rows := t.rows
	if !t.any {
		rows = append([]tableRow{{t.header, -1}}, rows...)
	}
	for _, r := range rows {
		for i, cell := range r.cells {
			cell = oneLine(cell)
			r.cells[i] = cell
			t.widths[i] = max(t.widths[i], utf8.RuneCountInString(cell))
		}
	}
	for i, r := range rows {
		t.writeRow(&b, r, !t.any && i == 0)
	}
	t.any, t.rows = true, t.rows[:0]
	_, err := t.w.Write(b.Bytes())
	return err
}

func (t *table) writeRow(b *bytes.Buffer, r tableRow, header bool) {
	paint := t.paint
	if paint == nil || header {
		paint = func(_ int, cell string) string { return cell }
	}
	used := 0
	last := len(r.cells) - 1
	for i, cell := range r.cells {
		if i == last {
			b.WriteString(paint(i, cut(cell, r.bytes, t.columns, used)))
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

// oneShown measures the first character of what escape returned, which may be an
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

// rowWriter shows keys one after the other in the chosen form.
type rowWriter struct {
	a          *app
	table      *table
	list       *jsonList
	withValues bool
}

func (a *app) newRowWriter(withValues bool) *rowWriter {
	header := []string{"KEY", "VERSION", "EXPIRES IN"}
	if withValues {
		header = append(header, "VALUE")
	}
	return &rowWriter{a: a, table: a.newTable(header...), list: a.newJSONList(), withValues: withValues}
}

// write shows one key; a key that was not found has version 0.
func (w *rowWriter) write(i *client.Item, found bool) error {
	switch w.a.output {
	case outputJSON, outputJSONL:
		r := rowOf(i)
		if w.withValues && found {
			r.Value = present(i.Value)
		}
		if !found {
			r.Found = new(bool)
		}
		return w.list.add(r)
	case outputRaw:
		return w.writeRaw(i)
	}
	cells := []string{escape(i.Key), strconv.FormatUint(i.Version, 10), ""}
	if i.TTL > 0 {
		cells[2] = formatTTL(i.TTL)
	}
	if !found {
		cells[1] = "not found"
	}
	if !w.withValues {
		return w.table.row(cells...)
	}
	return w.table.add(tableRow{append(cells, escape(i.Value)), len(i.Value)})
}

// writeRaw writes key, tab, value, newline, the bytes as they are.
func (w *rowWriter) writeRaw(i *client.Item) error {
	line := append([]byte(nil), i.Key...)
	if w.withValues {
		line = append(append(line, '\t'), i.Value...)
	}
	_, err := w.a.out.Write(append(line, '\n'))
	return err
}

// flush ends the table or list.
func (w *rowWriter) flush() error {
	if w.a.json() {
		return w.list.end()
	}
	return w.table.flush()
}
