package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/internal/render"
	"github.com/proa-kv/proa/protocol"
)

func getCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "get KEY",
		Short: "Print the value of a key",
		Long: `Print the value of a key.

To a file or pipe the bytes of the value and nothing else are written, not even
a newline; -o raw does the same on a terminal. On a terminal, with -o table, and
in the shell, a line is written in which bytes that cannot be printed are
escapes such as \n and \x00. With -o json a value that is not valid UTF-8 is
{"base64": "…"}.`,
		Example:           "  proa get greeting\n  proa get photo > photo.jpg",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeKeys,
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := a.bytes(args[0])
			if err != nil {
				return err
			}
			return a.call(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				item, err := c.Get(ctx, key, a.consistent())
				if err != nil {
					return err
				}
				return showValue(a, &item)
			})
		},
	}
}

// putFlags are the options of put, on the command line and in operations.
type putFlags struct {
	ttl            time.Duration
	keepTTL        bool
	ifAbsent       bool
	ifPresent      bool
	ifVersion      uint64
	returnPrevious bool
	set            *pflag.FlagSet
}

func (p *putFlags) add(f *pflag.FlagSet) {
	p.set = f
	f.DurationVar(&p.ttl, "ttl", 0, "`time` to live, such as 10s or 24h")
	f.BoolVar(&p.keepTTL, "keep-ttl", false, "keep the time to live that the key has")
	f.BoolVar(&p.ifAbsent, "if-absent", false, "only if the key does not exist")
	f.BoolVar(&p.ifPresent, "if-present", false, "only if the key exists")
	addIfVersion(f, &p.ifVersion)
	f.BoolVar(&p.returnPrevious, "return-previous", false, "show the previous value")
}

func addIfVersion(f *pflag.FlagSet, version *uint64) {
	f.Uint64Var(version, "if-version", 0, "only if the key has this `version`; 0 means that it does not exist")
}

// options returns what the flags ask for.
func (p *putFlags) options() ([]client.PutOption, error) {
	var out []client.PutOption
	if p.set.Changed("ttl") {
		if p.ttl <= 0 {
			return nil, usagef("--ttl %v: must be above 0", p.ttl)
		}
		out = append(out, client.WithTTL(p.ttl))
	}
	conditions := 0
	for _, o := range []struct {
		set       bool
		condition bool
		option    client.PutOption
	}{
		{p.keepTTL, false, client.KeepTTL()},
		{p.ifAbsent, true, client.IfAbsent()},
		{p.ifPresent, true, client.IfPresent()},
		{p.set.Changed("if-version"), true, client.IfVersion(p.ifVersion)},
		{p.returnPrevious, false, client.ReturnPrevious()},
	} {
		if o.set {
			out = append(out, o.option)
			if o.condition {
				conditions++
			}
		}
	}
	switch {
	case conditions > 1:
		return nil, usagef("--if-absent, --if-present and --if-version cannot be used together")
	case p.keepTTL && p.set.Changed("ttl"):
		return nil, usagef("--ttl and --keep-ttl cannot be used together")
	}
	return out, nil
}

func putCommand(a *app) *cobra.Command {
	var p putFlags
	var file string
	cmd := &cobra.Command{
		Use:   "put KEY [VALUE|-]",
		Short: "Store a value under a key",
		Long: `Store a value under a key. The value is an argument, or comes from standard
input with -, or from a file with --file.

A key that had a time to live loses it, unless --keep-ttl is given.`,
		Example:           "  proa put greeting hello --ttl 1h\n  proa put photo --file photo.jpg\n  date | proa put now -\n  proa put lock me --if-absent",
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: a.completeFirstKey,
		RunE: func(cmd *cobra.Command, args []string) error {
			options, err := p.options()
			if err != nil {
				return err
			}
			key, err := a.bytes(args[0])
			if err != nil {
				return err
			}
			value, err := putValue(a, args[1:], file)
			if err != nil {
				return err
			}
			return a.call(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				r, err := c.Put(ctx, key, value, options...)
				return writeOutcome(a, "stored", r, err, p.returnPrevious)
			})
		},
	}
	p.add(cmd.Flags())
	cmd.Flags().StringVarP(&file, "file", "f", "", "read the value from this `file`")
	return cmd
}

// writeOutcome shows a write. Where a condition failed and the previous row
// was asked for, it is shown as well.
func writeOutcome(a *app, verb string, r client.WriteResult, err error, previousAsked bool) error {
	if err == nil {
		return showWrite(a, verb, r, previousAsked)
	}
	if errors.Is(err, client.ErrConditionFailed) && previousAsked && r.Previous != nil {
		if err := showWrite(a, "not "+verb, r, true); err != nil {
			return err
		}
	}
	return err
}

// value finds the value of a put.
func putValue(a *app, args []string, file string) ([]byte, error) {
	switch {
	case file != "" && len(args) > 0:
		return nil, usagef("a value and --file cannot be used together")
	case file != "":
		f, err := os.Open(file)
		if err != nil {
			return nil, notDonef("%w", err)
		}
		defer f.Close()
		return readValue(f)
	case len(args) == 0:
		return nil, usagef("the value is missing: give it as an argument, - for standard input, or --file")
	case args[0] == "-" && a.shell:
		return nil, usagef(`- reads standard input, which the shell does itself; use --file, or "\x2d" with batch for the text -`)
	case args[0] == "-":
		return readValue(a.in)
	}
	return a.bytes(args[0])
}

// readValue reads all of r, and no more than a value may hold.
func readValue(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, protocol.ValueBytesMax+1))
	if err != nil {
		return nil, err
	}
	if len(b) > protocol.ValueBytesMax {
		return nil, usagef("the value is over %d bytes", protocol.ValueBytesMax)
	}
	return b, nil
}

func delCommand(a *app) *cobra.Command {
	var version uint64
	var previous bool
	var r delRange
	cmd := &cobra.Command{
		Use:     "del KEY…",
		Aliases: []string{"delete"},
		Short:   "Delete keys, or all keys of a range",
		Long: `Delete keys, each on its own. The exit status is 1 if one of them did not exist.

With --prefix, --start, --end or --all, delete all keys of a range, however
many, with one small write in each shard. The command asks for confirmation on a
terminal; elsewhere it needs --yes. It does not report how many keys it deleted:
--dry-run counts them beforehand. In a cluster of several nodes the shards are
emptied one after the other; if the command fails halfway, run it again to
delete the rest.`,
		Example:           "  proa del session:17\n  proa del --prefix session: --dry-run\n  proa del --prefix session: --yes\n  proa del --start log:2023 --end log:2024 --yes",
		ValidArgsFunction: a.completeKeys,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := r.check(args); err != nil {
				return err
			}
			if r.asked() {
				return deleteRange(cmd.Context(), a, &r)
			}
			keys, err := a.allBytes(args)
			if err != nil {
				return err
			}
			var options []client.DeleteOption
			if cmd.Flags().Changed("if-version") {
				if len(keys) > 1 {
					return usagef("--if-version needs a single key")
				}
				options = append(options, client.IfVersion(version))
			}
			if previous {
				options = append(options, client.ReturnPrevious())
			}
			return a.call(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				return deleteAll(ctx, a, c, keys, options, previous)
			})
		},
	}
	addIfVersion(cmd.Flags(), &version)
	cmd.Flags().BoolVar(&previous, "return-previous", false, "show the previous value")
	r.add(cmd)
	return cmd
}

// deleteAll deletes all keys at once and reports in their order.
func deleteAll(ctx context.Context, a *app, c *client.Client, keys [][]byte, options []client.DeleteOption, previous bool) error {
	futures := make([]*client.Future[client.WriteResult], len(keys))
	for i, k := range keys {
		futures[i] = c.DeleteAsync(k, options...)
	}
	if a.JSON() {
		return listDeleted(ctx, a, keys, futures)
	}
	var first error
	for i, f := range futures {
		r, err := f.Wait(ctx)
		verb := "deleted"
		if len(keys) > 1 {
			verb += " " + render.Escape(keys[i])
		}
		err = writeOutcome(a, verb, r, err, previous)
		if err != nil && len(keys) > 1 {
			err = fmt.Errorf("%s: %w", render.Escape(keys[i]), err)
		}
		if first == nil {
			first = err
		} else if err != nil {
			a.complain(err)
			first = worse(first, err)
		}
	}
	return first
}

// listDeleted waits for all deletions and shows them as JSON, with what went
// wrong beside each key.
func listDeleted(ctx context.Context, a *app, keys [][]byte, futures []*client.Future[client.WriteResult]) error {
	list := a.Results()
	var worst error
	for i, f := range futures {
		r, err := f.Wait(ctx)
		row := writeRowOf(&r)
		if err != nil {
			row.Error = explain(err, a)
			worst = worse(worst, err)
			if row.Previous == nil {
				row.Version = nil
			}
		}
		row.Key = keys[i]
		if err := list.AddJSON(row); err != nil {
			return err
		}
	}
	if err := list.End(); err != nil || worst == nil {
		return err
	}
	return &statusError{exitStatus(worst), errSilent}
}

// worse returns the error that has the graver exit status.
func worse(x, y error) error {
	if exitStatus(y) > exitStatus(x) {
		return y
	}
	return x
}

func incrCommand(a *app) *cobra.Command {
	var by int64
	cmd := &cobra.Command{
		Use:               "incr KEY [DELTA]",
		Short:             "Increment the integer stored under a key",
		Long:              "Increment the decimal 64-bit integer stored under a key by DELTA, by default 1. A key\nthat does not exist counts as 0. DELTA may be negative.",
		Example:           "  proa incr visits\n  proa incr stock -3",
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: a.completeFirstKey,
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := a.bytes(args[0])
			if err != nil {
				return err
			}
			if len(args) == 2 {
				if cmd.Flags().Changed("by") {
					return usagef("DELTA and --by cannot be used together")
				}
				if by, err = parseDelta(args[1]); err != nil {
					return err
				}
			}
			return a.call(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				n, err := c.Incr(ctx, key, by)
				if err != nil {
					return err
				}
				if a.JSON() {
					return a.WriteJSON(map[string]int64{"value": n})
				}
				return a.Printf("%d\n", n)
			})
		},
	}
	cmd.Flags().Int64Var(&by, "by", 1, "the `delta`")
	return cmd
}

func parseDelta(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, usagef("DELTA %q is not a 64-bit integer", s)
	}
	return n, nil
}

func expireCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "expire KEY TIME",
		Short:             "Set a key's time to live",
		Example:           "  proa expire session:17 30m",
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: a.completeFirstKey,
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := a.bytes(args[0])
			if err != nil {
				return err
			}
			ttl, err := parseTTL(args[1])
			if err != nil {
				return err
			}
			return a.call(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				r, err := c.Expire(ctx, key, ttl)
				return writeOutcome(a, "expires in "+render.TTL(ttl), r, err, false)
			})
		},
	}
}

func parseTTL(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, usagef("TIME %w", timeError(s))
	}
	if d <= 0 {
		return 0, usagef("TIME %s: must be above 0", s)
	}
	return d, nil
}

func persistCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "persist KEY",
		Short:             "Remove a key's time to live",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeKeys,
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := a.bytes(args[0])
			if err != nil {
				return err
			}
			return a.call(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				r, err := c.Persist(ctx, key)
				return writeOutcome(a, "does not expire", r, err, false)
			})
		},
	}
}

func existsCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "exists KEY…",
		Short:             "Check whether keys exist; show version and time to live",
		Long:              "Check whether keys exist, and show their version and the time they have left to live.\nThe exit status is 1 if one of them does not exist.",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeKeys,
		RunE: func(cmd *cobra.Command, args []string) error {
			keys, err := a.allBytes(args)
			if err != nil {
				return err
			}
			return a.call(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				return existsAll(ctx, a, c, keys)
			})
		},
	}
}

func existsAll(ctx context.Context, a *app, c *client.Client, keys [][]byte) error {
	w := newKeyRows(a, false)
	missing := false
	for _, k := range keys {
		item, err := c.Stat(ctx, k, a.consistent())
		found := err == nil
		if err != nil && !errors.Is(err, client.ErrNotFound) {
			return errors.Join(w.End(), err)
		}
		missing = missing || !found
		if a.Form == render.AsRaw {
			err = a.Printf("%t\n", found)
		} else {
			item.Key = k
			err = w.show(&item, found)
		}
		if err != nil {
			return err
		}
	}
	return lookedUp(w, missing)
}

// lookedUp ends a table of keys some of which may be missing. The table says
// which, so the exit status is all that is left to say.
func lookedUp(w *keyRows, missing bool) error {
	if err := w.End(); err != nil {
		return err
	}
	if missing {
		return &statusError{exitFailed, errSilent}
	}
	return nil
}

func mgetCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "mget KEY…",
		Short:             "Print the values of several keys",
		Long:              "Print the values of several keys. The exit status is 1 if one of them does not exist.\nWith -o raw, each line is a key, a tab and the value; keys that do not exist are\nomitted.",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeKeys,
		RunE: func(cmd *cobra.Command, args []string) error {
			keys, err := a.allBytes(args)
			if err != nil {
				return err
			}
			return a.call(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				found, err := c.MGet(ctx, keys, a.consistent())
				if err != nil {
					return err
				}
				w := newKeyRows(a, true)
				missing := false
				for i := range found {
					missing = missing || !found[i].Found
					if a.Form == render.AsRaw && !found[i].Found {
						continue
					}
					if err := w.show(&found[i].Item, found[i].Found); err != nil {
						return err
					}
				}
				return lookedUp(w, missing)
			})
		},
	}
}

// keysOfferedMax bounds the keys a completion offers, completionTimeout its
// wait.
const (
	keysOfferedMax    = 50
	completionTimeout = 500 * time.Millisecond
)

// completeKeys offers the keys that begin with what was typed.
func (a *app) completeKeys(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(context.Background(), completionTimeout)
	defer cancel()
	a.timeout = completionTimeout
	var out []string
	for _, k := range keysWith(ctx, a, []byte(typed)) {
		// Command shells would take other characters apart.
		if s := string(k); render.Escape(k) == s && !strings.ContainsAny(s, " '\"$`\\") {
			out = append(out, s)
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) completeFirstKey(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	return a.completeKeys(cmd, args, typed)
}

// keysWith returns a few keys with a prefix, or none if that fails.
func keysWith(ctx context.Context, a *app, prefix []byte) [][]byte {
	c, err := a.connect(ctx)
	if err != nil {
		return nil
	}
	var out [][]byte
	for item, err := range c.Scan(ctx, client.Prefix(prefix), client.KeysOnly(), client.Limit(keysOfferedMax)) {
		if err != nil {
			break
		}
		out = append(out, item.Key)
	}
	return out
}
