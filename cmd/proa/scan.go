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
	keyRange
	reverse, keysOnly bool
	limit, pageSize   int
	cursor            string
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
	switch {
	case s.prefix != "" && (s.start != "" || s.end != ""):
		return nil, usagef("a prefix and --start or --end cannot be used together")
	case s.limit < 0:
		return nil, usagef("--limit %d: must not be negative", s.limit)
	}
	bounds, err := s.bounds(a)
	if err != nil {
		return nil, err
	}
	out := []client.ScanOption{a.consistent(), client.WithTimeout(a.timeout), scope(bounds)}
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

// keyRange is a range of keys as flags name it: by a prefix, or by bounds.
type keyRange struct{ prefix, start, end string }

// bounds returns prefix, start and end. It refuses bounds between which no key can
// be. An empty one is none.
func (r *keyRange) bounds(a *app) ([][]byte, error) {
	bounds, err := a.allBytes([]string{r.prefix, r.start, r.end})
	if err == nil && len(r.end) > 0 && bytes.Compare(bounds[1], bounds[2]) >= 0 {
		err = usagef("the range is empty: start %s is not before end %s", render.Escape(bounds[1]), render.Escape(bounds[2]))
	}
	return bounds, err
}

// scope limits a scan to bounds.
func scope(bounds [][]byte) client.ScanOption {
	if len(bounds[0]) > 0 {
		return client.Prefix(bounds[0])
	}
	return client.Range(bounds[1], bounds[2])
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
