package main

import (
	"context"
	"os"

	"github.com/spf13/cobra"

	"github.com/proa-kv/proa/client"
)

func batchCommand(a *app) *cobra.Command {
	var nonAtomic bool
	cmd := &cobra.Command{
		Use:   "batch [FILE|-]",
		Short: "Apply several writes in one step",
		Long: `Apply the writes in FILE or on standard input, one per line, in one atomic step.
All keys must be in the same shard, as keys with the same {tag} are, unless
--non-atomic is given or the cluster has one node only. A write whose condition
fails does not stop the others.

` + operationHelp + `

Empty lines and lines that start with # are skipped. The exit status is 1 if a
key was not found or a condition failed.`,
		Example: "  printf 'put {u1}name Ann\\nincr {u1}visits\\n' | proa batch",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
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
		},
	}
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
