package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/proa-kv/proa/bench"
	"github.com/proa-kv/proa/bench/report"
	"github.com/proa-kv/proa/internal/render"
)

func benchCleanupCommand(a *app) *cobra.Command {
	cmd := newCommand("bench cleanup", cobra.NoArgs, func(cmd *cobra.Command, _ []string) error {
		rows := &report.Rows{Prefix: bench.Prefix}
		if err := deleteBenchRows(cmd.Context(), a, rows); err != nil {
			return err
		}
		return a.Show(rows, "%s\n", rows.Sentence())
	})
	return cmd
}

// cleanupCommand returns the command line that deletes the rows of load tests in
// the cluster that the flags of cmd name.
func cleanupCommand(cmd *cobra.Command) string {
	words := []string{"proa", "bench", "cleanup"}
	for _, name := range []string{"endpoints", "context"} {
		if f := cmd.Flag(name); f.Changed {
			words = append(words, flagWords(f)...)
		}
	}
	return strings.Join(shellQuoted(words), " ")
}

// deleteBenchRows deletes what load tests have left, and notes in rows how many
// there were.
func deleteBenchRows(ctx context.Context, a *app, rows *report.Rows) error {
	c, err := a.connect(ctx)
	if err != nil {
		return err
	}
	if rows.Deleted, err = bench.DeleteRows(ctx, c); err != nil {
		return err
	}
	rows.Remaining, rows.Cleanup = 0, ""
	return nil
}

// noteRows notes in rows why they could not be counted or deleted, if err is not
// nil. What the bench refuses to delete, its cleanup does not delete either.
func noteRows(rows *report.Rows, err error) {
	rows.Failed(err)
	if isType[*bench.ForeignRowsError](err) {
		rows.Cleanup = ""
	}
}

// benchRows returns what is left of a bench that has claimed its rows. It deletes
// them if the flags ask for it, also where ctx has ended; only that can fail. A
// second interruption kills the process.
func benchRows(ctx context.Context, a *app, f *benchFlags) (*report.Rows, error) {
	rows := &report.Rows{Prefix: bench.Prefix, Cleanup: f.cleanupCommand}
	if f.cleanup {
		err := deleteBenchRows(context.WithoutCancel(ctx), a, rows)
		noteRows(rows, err)
		return rows, err
	}
	if ctx.Err() != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), a.timeout)
		defer cancel()
	}
	c, err := a.connect(ctx)
	if err == nil {
		rows.Remaining, err = bench.CountRows(ctx, c)
	}
	noteRows(rows, err)
	return rows, nil
}

// offerCleanup asks on a terminal whether the rows that remain are to be deleted.
func offerCleanup(ctx context.Context, a *app, rows *report.Rows) error {
	if rows.Remaining == 0 || rows.Error != "" || !canAsk(a) || !a.confirm(ctx, "Delete these rows now?") {
		return nil
	}
	if err := deleteBenchRows(ctx, a, rows); err != nil {
		return err
	}
	return a.Printf("%s\n", rows.Sentence())
}

// canAsk reports whether a person sits at the terminal and reads the report
// there.
func canAsk(a *app) bool {
	_, in := render.Terminal(a.in)
	_, out := render.Terminal(a.Out)
	_, errs := render.Terminal(a.Err)
	return in && out && errs && a.Form == render.AsTable
}
