package render

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Object shows any JSON object: its single values first, then each object in it as
// a section, and each list of objects as a table.
func (o *Output) Object(raw json.RawMessage) error {
	if o.Form != AsTable {
		return o.WriteRawJSON(raw)
	}
	top, err := parseObject(raw)
	if err != nil {
		return fmt.Errorf("the server's status is not a JSON object: %w", err)
	}
	return o.section(top, "")
}

func (o *Output) section(fields object, indent string) error {
	width := 0
	for _, f := range fields {
		if f.kind() == kindScalar {
			width = max(width, len(f.name))
		}
	}
	for _, f := range fields {
		if f.kind() == kindScalar {
			if err := o.Printf("%s%-*s  %s\n", indent, width, f.name, f.scalar()); err != nil {
				return err
			}
		}
	}
	for _, f := range fields {
		if err := o.nested(&f, indent); err != nil {
			return err
		}
	}
	return nil
}

func (o *Output) nested(f *field, indent string) error {
	if f.kind() == kindScalar {
		return nil
	}
	title := fmt.Sprintf("\n%s%s\n", indent, f.name)
	if f.kind() == kindTable {
		return errors.Join(o.Printf("%s", title), o.Objects(f.raw))
	}
	inner, err := parseObject(f.raw)
	if err != nil || len(inner) == 0 {
		return err
	}
	return errors.Join(o.Printf("%s", title), o.section(inner, indent+"  "))
}

// Objects shows a list of JSON objects as tables: rows of another shape begin a
// table of their own.
func (o *Output) Objects(raw json.RawMessage) error {
	var list []json.RawMessage
	if err := json.Unmarshal(raw, &list); err != nil {
		return err
	}
	t := o.Table()
	for _, entry := range list {
		fields, err := parseObject(entry)
		if err != nil {
			return err
		}
		cells, header := make([]string, len(fields)), make([]string, len(fields))
		for i, f := range fields {
			header[i], cells[i] = strings.ToUpper(f.name), f.scalar()
		}
		if !slices.Equal(t.header, header) {
			if err := t.Flush(); err != nil {
				return err
			}
			t = o.Table(header...)
		}
		t.Row(cells...)
	}
	return t.Flush()
}

// object is a JSON object that keeps the order of its fields.
type object []field

type field struct {
	name string
	raw  json.RawMessage
}

func parseObject(raw json.RawMessage) (object, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, fmt.Errorf("no object: %.40s", raw)
	}
	var o object
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, err
		}
		f := field{name: Escape([]byte(name.(string)))} // the decoder has checked that it is a string
		if err := d.Decode(&f.raw); err != nil {
			return nil, err
		}
		o = append(o, f)
	}
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	return o, nil
}

type kind uint8

const (
	kindScalar kind = iota
	kindObject
	kindTable // a list whose first entry is an object
)

func (f *field) kind() kind {
	switch f.raw[0] {
	case '{':
		return kindObject
	case '[':
		if rest := bytes.TrimLeft(f.raw[1:], " \t\r\n"); len(rest) > 0 && rest[0] == '{' {
			return kindTable
		}
	}
	return kindScalar
}

// scalar shows a value on one line.
func (f *field) scalar() string {
	if f.raw[0] != '"' {
		return rounded(OneLine(string(f.raw)))
	}
	var s string
	if json.Unmarshal(f.raw, &s) != nil {
		return OneLine(string(f.raw))
	}
	return Escape([]byte(s))
}

// rounded returns a JSON value, with three decimals at most if it is a number.
func rounded(value string) string {
	n, err := strconv.ParseFloat(value, 64)
	if _, decimals, _ := strings.Cut(value, "."); err != nil || len(decimals) <= 3 {
		return value
	}
	return strconv.FormatFloat(math.Round(n*1000)/1000, 'f', -1, 64)
}
