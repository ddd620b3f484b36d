package main

import (
	"context"
	"os"

	"github.com/spf13/cobra"

	"github.com/proa-kv/proa/client"
)

func batchCommand(a *app) *cobra.Command {
	var nonAtomic bool
	cmd := newCommand("batch", cobra.MaximumNArgs(1), func(cmd *cobra.Command, args []string) error {
		ops, err := readOperations(a, args)
		if err != nil {
			return err
		}
		if len(ops) == 0 {
			return usagef("the batch is empty")
		}
		b := client.NewBatch().Add(ops...)
		if nonAtomic {
			b.NonAtomic()
		}
		return a.call(cmd.Context(), func(ctx context.Context, c *client.Client) error {
			results, err := c.Batch(ctx, b)
			if err != nil {
				return err
			}
			return showResults(a, results)
		})
	})
	cmd.Flags().BoolVar(&nonAtomic, "non-atomic", false, "allow keys of several shards; one atomic step per shard")
	return cmd
}

// readOperations reads one operation a line.
func readOperations(a *app, args []string) ([]client.Operation, error) {
	in := a.in
	switch {
	case len(args) == 1 && args[0] != "-":
		f, err := os.Open(args[0])
		if err != nil {
			return nil, notDonef("%w", err)
		}
		defer f.Close()
		in = f
	case a.shell:
		return nil, usagef("standard input belongs to the shell; name a file")
	}
	var ops []client.Operation
	lines := newLineReader(in)
	for line, err := range lines.all() {
		if err != nil {
			return nil, err
		}
		op, ok, err := parseOperation(string(line), false)
		if err != nil {
			return nil, usagef("line %d: %w", lines.number, err)
		}
		if ok {
			ops = append(ops, op)
		}
	}
	return ops, nil
}
