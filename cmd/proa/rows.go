package main

import (
	"strconv"
	"time"

	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/internal/render"
)

// row is one key in JSON output, in export files, and in tables.
type row struct {
	Key       render.Text `json:"key"`
	Value     render.Text `json:"value,omitzero"`
	Version   uint64      `json:"version,omitempty"`
	TTLMillis int64       `json:"ttl_ms,omitempty"`
	Found     *bool       `json:"found,omitempty"`
}

func rowOf(i *client.Item) row {
	return row{Key: i.Key, Value: i.Value, Version: i.Version, TTLMillis: i.TTL.Milliseconds()}
}

// previousRow is the row that a write replaced, nil if there was none.
func previousRow(i *client.Item) *row {
	if i == nil {
		return nil
	}
	r := rowOf(i)
	r.Value = present(i.Value)
	return &r
}

// present makes sure an empty value is shown as one.
func present(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// showValue shows what get found. A value that is all the output there is goes to
// a file or pipe as it is. On a terminal, and among the results of other lines of a
// shell, it is a line of text.
func showValue(a *app, i *client.Item) error {
	_, people := render.Terminal(a.Out)
	switch {
	case a.JSON():
		r := rowOf(i)
		r.Value = present(i.Value)
		return a.WriteJSON(r)
	case a.Form == render.AsRaw, !people && !a.shell && !a.formChosen:
		_, err := a.Out.Write(i.Value)
		return err
	}
	return a.Printf("%s\n", render.Escape(i.Value))
}

type writeRow struct {
	Key      render.Text `json:"key,omitzero"`
	Version  *uint64     `json:"version,omitempty"` // nil: not known
	Previous *row        `json:"previous,omitempty"`
	Error    *problem    `json:"error,omitempty"`
}

func writeRowOf(r *client.WriteResult) writeRow {
	return writeRow{Version: &r.Version, Previous: previousRow(r.Previous)}
}

// showWrite shows what a write answered. verb is what was done, in the past
// tense.
func showWrite(a *app, verb string, r client.WriteResult, previousAsked bool) error {
	switch a.Form {
	case render.AsJSON, render.AsJSONL:
		return a.WriteJSON(writeRowOf(&r))
	case render.AsRaw:
		if !previousAsked {
			return a.Printf("%d\n", r.Version)
		}
		if r.Previous == nil {
			return nil
		}
		_, err := a.Out.Write(r.Previous.Value)
		return err
	}
	if err := a.Printf("%s, version %d\n", verb, r.Version); err != nil || !previousAsked {
		return err
	}
	if r.Previous == nil {
		return a.Printf("previous: none\n")
	}
	return a.Printf("previous: %s (version %d%s)\n", render.Escape(r.Previous.Value), r.Previous.Version, ttlNote(r.Previous.TTL))
}

func ttlNote(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return ", expires in " + render.TTL(d)
}

// keyRows shows keys one after the other in the chosen form.
type keyRows struct {
	*render.Results
	form       string
	withValues bool
	missing    bool // a key was not found
}

func newKeyRows(a *app, withValues bool) *keyRows {
	header := []string{"KEY", "VERSION", "EXPIRES IN"}
	if withValues {
		header = append(header, "VALUE")
	}
	return &keyRows{Results: a.Results(header...), form: a.Form, withValues: withValues}
}

// show shows one key; a key that was not found has version 0. Values may be large:
// only what the form needs is made of them.
func (w *keyRows) show(i *client.Item, found bool) error {
	w.missing = w.missing || !found
	r := rowOf(i)
	switch w.form {
	case render.AsTable:
		cells, size := []string{render.Escape(i.Key), strconv.FormatUint(i.Version, 10), ""}, -1
		if i.TTL > 0 {
			cells[2] = render.TTL(i.TTL)
		}
		if !found {
			cells[1] = "not found"
		}
		if w.withValues {
			cells, size = append(cells, render.Escape(i.Value)), len(i.Value)
		}
		return w.AddValue(nil, "", size, cells...)
	case render.AsRaw:
		switch {
		case !found:
			return nil
		case w.withValues:
			return w.Add(nil, string(i.Key)+"\t"+string(i.Value)+"\n")
		}
		return w.Add(nil, string(i.Key)+"\n")
	}
	if w.withValues && found {
		r.Value = present(i.Value)
	}
	if !found {
		r.Found = new(bool)
	}
	return w.AddJSON(r)
}

// endLookup ends the rows of keys some of which may be missing. They say which, so the
// exit status is all that is left to say.
func (w *keyRows) endLookup() error {
	if err := w.End(); err != nil || !w.missing {
		return err
	}
	return &statusError{exitFailed, errSilent}
}
