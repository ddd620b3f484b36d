package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"

	"github.com/spf13/cobra"

	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/internal/render"
)

// scanFlags are the options of scan and export.
type scanFlags struct {
	prefix, start, end string
	reverse, keysOnly  bool
	limit, pageSize    int
	cursor             string
}

func scanCommand(a *app) *cobra.Command {
	var s scanFlags
	cmd := newCommand("scan", cobra.MaximumNArgs(1), func(cmd *cobra.Command, args []string) error {
		if len(args) == 1 {
			if s.prefix != "" {
				return usagef("PREFIX and --prefix cannot be used together")
			}
			s.prefix = args[0]
		}
		options, err := s.options(a)
		if err != nil {
			return err
		}
		onward := func(cursor string) string { return again(a, cmd, args, "--cursor", cursor) }
		return scanKeys(cmd.Context(), a, &s, options, onward)
	})
	f := cmd.Flags()
	s.addRange(cmd)
	f.BoolVarP(&s.reverse, "reverse", "r", false, "list in descending order")
	f.BoolVarP(&s.keysOnly, "keys-only", "k", false, "omit the values")
	f.IntVarP(&s.limit, "limit", "n", 0, "maximum `number` of keys; 0 means no limit")
	f.StringVar(&s.cursor, "cursor", "", "continue an earlier scan from its `cursor`")
	return cmd
}

func (s *scanFlags) addRange(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVarP(&s.prefix, "prefix", "p", "", "only keys with this `prefix`")
	f.StringVar(&s.start, "start", "", "first `key` of the range, inclusive")
	f.StringVar(&s.end, "end", "", "end of the range, a `key`, exclusive")
	f.IntVar(&s.pageSize, "page-size", 0, "`number` of keys per request; 0 means the default of the client")
}

func (s *scanFlags) options(a *app) ([]client.ScanOption, error) {
	out := []client.ScanOption{a.consistent(), client.WithTimeout(a.timeout)}
	switch {
	case s.prefix != "" && (s.start != "" || s.end != ""):
		return nil, usagef("a prefix and --start or --end cannot be used together")
	case s.limit < 0:
		return nil, usagef("--limit %d: must not be negative", s.limit)
	case s.prefix != "":
		p, err := a.bytes(s.prefix)
		if err != nil {
			return nil, err
		}
		out = append(out, client.Prefix(p))
	case s.start != "" || s.end != "":
		bounds, err := a.allBytes([]string{s.start, s.end})
		if err != nil {
			return nil, err
		}
		if err := checkRange(bounds[0], bounds[1]); err != nil {
			return nil, err
		}
		out = append(out, client.Range(bounds[0], bounds[1]))
	}
	for _, o := range []struct {
		set    bool
		option client.ScanOption
	}{
		{s.reverse, client.Reverse()}, {s.keysOnly, client.KeysOnly()}, {s.limit > 0, client.Limit(s.limit)}, {s.pageSize != 0, client.PageSize(s.pageSize)},
	} {
		if o.set {
			out = append(out, o.option)
		}
	}
	if s.cursor != "" {
		cursor, err := base64.RawURLEncoding.DecodeString(s.cursor)
		if err != nil {
			return nil, usagef("--cursor: not a cursor printed by scan")
		}
		out = append(out, client.FromCursor(cursor))
	}
	return out, nil
}

// checkRange refuses bounds between which no key can be. An empty one is none.
func checkRange(start, end []byte) error {
	if len(end) > 0 && bytes.Compare(start, end) >= 0 {
		return usagef("the range is empty: start %s is not before end %s", render.Escape(start), render.Escape(end))
	}
	return nil
}

// scanKeys lists keys; onward returns the command line that goes on from a cursor.
func scanKeys(ctx context.Context, a *app, s *scanFlags, options []client.ScanOption, onward func(cursor string) string) error {
	c, err := a.connect(ctx)
	if err != nil {
		return err
	}
	scanner := c.NewScanner(options...)
	w := newKeyRows(a, !s.keysOnly)
	n := 0
	for item, err := range scanner.All(ctx) {
		if err != nil {
			return errors.Join(w.End(), err)
		}
		if err := w.show(&item, true); err != nil {
			return err
		}
		n++
	}
	if err := w.End(); err != nil {
		return err
	}
	if n == 0 && !a.JSON() {
		a.Note("no keys found")
	}
	if cursor := scanner.Cursor(); s.limit > 0 && n == s.limit && cursor != nil {
		a.Note("There may be more keys; continue with: %s", onward(base64.RawURLEncoding.EncodeToString(cursor)))
	}
	return nil
}
