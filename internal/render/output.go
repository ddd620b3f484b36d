// Package render shows the results of commands: as tables and text for people, as
// JSON for programs, or as raw bytes, always in printable text where the bytes came
// from others.
package render

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
)

// Forms of output.
const (
	AsTable = "table" // for people: unprintable bytes escaped
	AsJSON  = "json"  // one JSON document; of several results, a list
	AsJSONL = "jsonl" // the same, each result a line
	AsRaw   = "raw"   // bytes as they are
)

// Output is where the results of a command go, and in which form.
type Output struct {
	Out, Err io.Writer
	Form     string
}

// JSON reports whether the output is JSON.
func (o *Output) JSON() bool { return o.Form == AsJSON || o.Form == AsJSONL }

// Printf writes to the output.
func (o *Output) Printf(format string, args ...any) error {
	_, err := fmt.Fprintf(o.Out, format, args...)
	return err
}

// WriteJSON writes v, the only result of a command, on one line.
func (o *Output) WriteJSON(v any) error {
	b, err := MarshalJSON(v)
	if err != nil {
		return err
	}
	_, err = o.Out.Write(append(b, '\n'))
	return err
}

// WriteRawJSON writes JSON as a server sent it: a newer one may say more than this
// program knows.
func (o *Output) WriteRawJSON(raw json.RawMessage) error {
	_, err := o.Out.Write(append(PrintableJSON(bytes.TrimSpace(raw)), '\n'))
	return err
}

// Show writes the only result of a command: v as JSON, otherwise text.
func (o *Output) Show(v any, format string, args ...any) error {
	if o.JSON() {
		return o.WriteJSON(v)
	}
	return o.Printf(format, args...)
}

// ShowForms writes the only result of a command where its raw form is not the text.
func (o *Output) ShowForms(v any, raw, text string) error {
	if o.Form == AsRaw {
		text = raw
	}
	return o.Show(v, "%s", text)
}

// Note writes a line beside the results, to standard error, in the form that the
// results have.
func (o *Output) Note(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if o.JSON() {
		o.WriteErrJSON(map[string]string{"note": text})
		return
	}
	fmt.Fprintln(o.Err, Printable(text))
}

// WriteErrJSON writes v to standard error on one line.
func (o *Output) WriteErrJSON(v any) {
	line, err := MarshalJSON(v)
	if err != nil { // of strings and numbers: cannot be
		line = []byte(err.Error())
	}
	fmt.Fprintf(o.Err, "%s\n", line)
}

// Results writes the results of a command that may have several, as they come: rows
// of a table, raw bytes, or a JSON list with a line for each.
type Results struct {
	o     *Output
	table *Table
	any   bool
}

// Results returns a list of results whose table has a header.
func (o *Output) Results(header ...string) *Results {
	return &Results{o: o, table: o.Table(header...)}
}

// Add writes one result: v as JSON, raw as it is, or the cells as a row.
func (r *Results) Add(v any, raw string, cells ...string) error {
	return r.AddValue(v, raw, -1, cells...)
}

// AddValue is Add where the last cell shows a value of so many bytes; -1: it shows
// none.
func (r *Results) AddValue(v any, raw string, bytes int, cells ...string) error {
	switch r.o.Form {
	case AsJSON, AsJSONL:
		return r.AddJSON(v)
	case AsRaw:
		return r.o.Printf("%s", raw)
	}
	r.table.add(tableRow{cells, bytes})
	return r.table.err
}

// AddJSON writes one result of a list in JSON.
func (r *Results) AddJSON(v any) error {
	line, err := MarshalJSON(v)
	if err != nil {
		return err
	}
	before, behind := "[", ""
	switch {
	case r.o.Form == AsJSONL:
		before, behind = "", "\n"
	case r.any:
		before = ",\n"
	}
	r.any = true
	return r.o.Printf("%s%s%s", before, line, behind)
}

// End must be called after the last result, also where one failed: what was written
// is complete then.
func (r *Results) End() error {
	switch {
	case r.o.Form == AsJSON && !r.any:
		return r.o.Printf("[]\n")
	case r.o.Form == AsJSON:
		return r.o.Printf("]\n")
	}
	return r.table.Flush()
}

// Line is a line of a terminal, on standard error, that shows how something goes on.
type Line struct {
	o          *Output
	OnTerminal bool // otherwise each text is a line of its own
	last       string
}

// Line returns a line that shows nothing yet.
func (o *Output) Line() *Line {
	_, onTerminal := Terminal(o.Err)
	return &Line{o: o, OnTerminal: onTerminal}
}

// Show replaces the text of the line, unless it is the same.
func (l *Line) Show(text string) {
	text = OneLine(text)
	switch {
	case text == l.last:
		return
	case l.OnTerminal:
		fmt.Fprintf(l.o.Err, "\r%s\x1b[K", text)
	default:
		fmt.Fprintln(l.o.Err, text)
	}
	l.last = text
}

// End clears the line.
func (l *Line) End() {
	if l.OnTerminal && l.last != "" {
		fmt.Fprint(l.o.Err, "\r\x1b[K")
	}
}
