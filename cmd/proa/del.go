package main

import (
	"cmp"
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/internal/render"
)

func delCommand(a *app) *cobra.Command {
	var w writeFlags
	var r delRange
	cmd := newCommand("del", nil, func(cmd *cobra.Command, args []string) error {
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
		if cmd.Flags().Changed("if-version") && len(keys) > 1 {
			return usagef("--if-version needs a single key")
		}
		return a.call(cmd.Context(), func(ctx context.Context, c *client.Client) error {
			return deleteAll(ctx, a, c, keys, &w)
		})
	})
	cmd.Aliases, cmd.ValidArgsFunction = []string{"delete"}, a.completeKeys
	w.addIfVersion(cmd.Flags())
	w.addReturnPrevious(cmd.Flags())
	r.add(cmd)
	return cmd
}

// deleteAll deletes all keys at once and reports in their order.
func deleteAll(ctx context.Context, a *app, c *client.Client, keys [][]byte, w *writeFlags) error {
	futures := make([]*client.Future[client.WriteResult], len(keys))
	for i, k := range keys {
		futures[i] = c.DeleteAsync(k, w.deleteOptions()...)
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
		err = writeOutcome(a, verb, r, err, w.returnPrevious)
		if err != nil && len(keys) > 1 {
			err = fmt.Errorf("%s: %w", render.Escape(keys[i]), err)
		}
		if first == nil {
			first = err
		} else if err != nil {
			a.showError(err)
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
	return cmp.Or(list.End(), silently(exitStatus(worst)))
}

// worse returns the error with the higher exit status.
func worse(x, y error) error {
	if exitStatus(y) > exitStatus(x) {
		return y
	}
	return x
}

// delRange is the range of keys that del deletes where no keys are given.
type delRange struct {
	keyRange
	all, yes, dryRun bool
	set              *pflag.FlagSet
}

func (r *delRange) add(cmd *cobra.Command) {
	f := cmd.Flags()
	r.set = f
	f.StringVarP(&r.prefix, "prefix", "p", "", "delete all keys with this `prefix`")
	f.StringVar(&r.start, "start", "", "delete all keys from this `key` on, inclusive")
	f.StringVar(&r.end, "end", "", "delete all keys before this `key`, exclusive")
	f.BoolVar(&r.all, "all", false, "delete all keys")
	f.BoolVar(&r.yes, "yes", false, "do not ask for confirmation")
	f.BoolVar(&r.dryRun, "dry-run", false, "count the keys, delete nothing")
}

// asked reports whether a range is to be deleted.
func (r *delRange) asked() bool {
	return r.all || r.set.Changed("prefix") || r.set.Changed("start") || r.set.Changed("end")
}

// check refuses flags that make no sense together, with keys or without.
func (r *delRange) check(keys []string) error {
	bounds := r.start != "" || r.end != ""
	switch {
	case !r.asked() && (r.yes || r.dryRun):
		return usagef("--yes and --dry-run go with --prefix, --start, --end or --all")
	case !r.asked() && len(keys) == 0:
		return usagef("the keys are missing: name them, or give --prefix, --start, --end or --all")
	case !r.asked():
		return nil
	case len(keys) > 0:
		return usagef("keys and a range cannot be used together")
	case r.set.Changed("if-version"), r.set.Changed("return-previous"):
		return usagef("--if-version and --return-previous are for single keys")
	case r.all && (r.set.Changed("prefix") || bounds), r.set.Changed("prefix") && bounds:
		return usagef("--prefix, --all, and --start with --end cannot be used together")
	case !r.all && r.prefix == "" && !bounds:
		return usagef("a range without bounds means all keys; to delete all keys, use --all")
	}
	return nil
}

// deleteRange deletes or counts the keys of a range.
func deleteRange(ctx context.Context, a *app, r *delRange) error {
	bounds, err := r.bounds(a)
	if err != nil {
		return err
	}
	if r.dryRun {
		return countKeys(ctx, a, scope(bounds))
	}
	if err := confirmDelete(ctx, a, r, bounds); err != nil {
		return err
	}
	return a.call(ctx, func(ctx context.Context, c *client.Client) error {
		switch {
		case r.all:
			err = c.DeleteAll(ctx)
		case r.prefix != "":
			err = c.DeletePrefix(ctx, bounds[0])
		default:
			err = c.DeleteRange(ctx, bounds[1], bounds[2])
		}
		if err != nil {
			return err
		}
		return a.ShowForms(map[string]bool{"deleted": true}, "", fmt.Sprintf("deleted %s\n", r.words(bounds)))
	})
}

// words describes the range.
func (r *delRange) words(bounds [][]byte) string {
	switch prefix, start, end := render.Escape(bounds[0]), render.Escape(bounds[1]), render.Escape(bounds[2]); {
	case r.all:
		return "all keys of the cluster"
	case r.prefix != "":
		return "all keys with prefix " + prefix
	case r.end == "":
		return "all keys from " + start + " on"
	case r.start == "":
		return "all keys before " + end
	default:
		return "all keys from " + start + " on and before " + end
	}
}

// confirmDelete asks for confirmation, unless --yes is given.
func confirmDelete(ctx context.Context, a *app, r *delRange, bounds [][]byte) error {
	if r.yes {
		return nil
	}
	if _, ok := render.Terminal(a.in); !ok || a.shell {
		return usagef("nothing was deleted: standard input is not a terminal, so there is no confirmation; add --yes to delete, or --dry-run to count the keys")
	}
	if !a.confirm(ctx, fmt.Sprintf("Delete %s?", r.words(bounds))) {
		return notDonef("nothing was deleted")
	}
	return nil
}

// countKeys counts the keys of a range.
func countKeys(ctx context.Context, a *app, scope client.ScanOption) error {
	c, err := a.connect(ctx)
	if err != nil {
		return err
	}
	n := 0
	for _, err := range c.Scan(ctx, scope, client.KeysOnly(), client.PageSize(10_000), a.consistent(), client.WithTimeout(a.timeout)) {
		if err != nil {
			return err
		}
		n++
	}
	return a.ShowForms(map[string]int{"keys": n}, fmt.Sprintln(n), render.Plural(n, "key")+" would be deleted\n")
}
