package main

import (
	"context"
	"io"

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
	switch {
	case len(args) == 1 && args[0] != "-":
		return readFile(args[0], parseOperations)
	case a.shell:
		return nil, usagef("standard input belongs to the shell; name a file")
	}
	return parseOperations(a.in)
}

func parseOperations(in io.Reader) (ops []client.Operation, err error) {
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
