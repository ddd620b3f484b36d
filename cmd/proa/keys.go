package main

import (
	"context"
	"errors"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/internal/render"
	"github.com/proa-kv/proa/protocol"
)

// keyCommand returns a command about one key, or about several: all its arguments
// are keys or, where check takes those behind the first one, that one is.
func keyCommand(a *app, name string, args cobra.PositionalArgs, check func(args []string) error, send func(ctx context.Context, c *client.Client, keys [][]byte) error) *cobra.Command {
	cmd := newCommand(name, args, func(cmd *cobra.Command, args []string) error {
		if check != nil {
			if err := check(args[1:]); err != nil {
				return err
			}
			args = args[:1]
		}
		keys, err := a.allBytes(args)
		if err != nil {
			return err
		}
		return a.call(cmd.Context(), func(ctx context.Context, c *client.Client) error { return send(ctx, c, keys) })
	})
	cmd.ValidArgsFunction = a.completeKeys
	if check != nil {
		cmd.ValidArgsFunction = a.completeFirstKey
	}
	return cmd
}

func getCommand(a *app) *cobra.Command {
	return keyCommand(a, "get", cobra.ExactArgs(1), nil, func(ctx context.Context, c *client.Client, keys [][]byte) error {
		item, err := c.Get(ctx, keys[0], a.consistent())
		if err != nil {
			return err
		}
		return showValue(a, &item)
	})
}

func putCommand(a *app) *cobra.Command {
	var f writeFlags
	var file string
	var value []byte
	var options []client.PutOption
	cmd := keyCommand(a, "put", cobra.RangeArgs(1, 2), func(args []string) (err error) {
		if options, err = f.putOptions(); err == nil {
			value, err = putValue(a, args, file)
		}
		return err
	}, func(ctx context.Context, c *client.Client, keys [][]byte) error {
		r, err := c.Put(ctx, keys[0], value, options...)
		return writeOutcome(a, "stored", r, err, f.returnPrevious)
	})
	f.addPut(cmd.Flags())
	cmd.Flags().StringVarP(&file, "file", "f", "", "read the value from this `file`")
	return cmd
}

func incrCommand(a *app) *cobra.Command {
	var f writeFlags
	cmd := keyCommand(a, "incr", cobra.RangeArgs(1, 2), f.delta, func(ctx context.Context, c *client.Client, keys [][]byte) error {
		n, err := c.Incr(ctx, keys[0], f.by)
		if err != nil {
			return err
		}
		return a.Show(map[string]int64{"value": n}, "%d\n", n)
	})
	f.addBy(cmd.Flags())
	return cmd
}

func expireCommand(a *app) *cobra.Command {
	var ttl time.Duration
	return keyCommand(a, "expire", cobra.ExactArgs(2), func(args []string) (err error) {
		ttl, err = parseTTL(args[0])
		return err
	}, func(ctx context.Context, c *client.Client, keys [][]byte) error {
		r, err := c.Expire(ctx, keys[0], ttl)
		return writeOutcome(a, "expires in "+render.TTL(ttl), r, err, false)
	})
}

func persistCommand(a *app) *cobra.Command {
	return keyCommand(a, "persist", cobra.ExactArgs(1), nil, func(ctx context.Context, c *client.Client, keys [][]byte) error {
		r, err := c.Persist(ctx, keys[0])
		return writeOutcome(a, "does not expire", r, err, false)
	})
}

func existsCommand(a *app) *cobra.Command {
	return keyCommand(a, "exists", cobra.MinimumNArgs(1), nil, func(ctx context.Context, c *client.Client, keys [][]byte) error {
		w := newKeyRows(a, false)
		for _, k := range keys {
			item, err := c.Stat(ctx, k, a.consistent())
			found := err == nil
			if err != nil && !errors.Is(err, client.ErrNotFound) {
				return errors.Join(w.End(), err)
			}
			if item.Key = k; a.Form == render.AsRaw {
				w.missing = w.missing || !found
				err = a.Printf("%t\n", found)
			} else {
				err = w.show(&item, found)
			}
			if err != nil {
				return err
			}
		}
		return w.endLookup()
	})
}

func mgetCommand(a *app) *cobra.Command {
	return keyCommand(a, "mget", cobra.MinimumNArgs(1), nil, func(ctx context.Context, c *client.Client, keys [][]byte) error {
		found, err := c.MGet(ctx, keys, a.consistent())
		if err != nil {
			return err
		}
		w := newKeyRows(a, true)
		for i := range found {
			if err := w.show(&found[i].Item, found[i].Found); err != nil {
				return err
			}
		}
		return w.endLookup()
	})
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

// putValue returns the value that a put stores.
func putValue(a *app, args []string, file string) ([]byte, error) {
	switch {
	case file != "" && len(args) > 0:
		return nil, usagef("a value and --file cannot be used together")
	case file != "":
		return readFile(file, readValue)
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
