package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/proa-kv/proa/bench/report"
)

func benchMergeCommand(a *app) *cobra.Command {
	var html string
	cmd := newCommand("bench merge", cobra.MinimumNArgs(2), func(cmd *cobra.Command, files []string) error {
		var all *report.Load
		for _, path := range files {
			l, err := readBench(path)
			switch {
			case err != nil:
				return err
			case all == nil:
				all = l
			default:
				if err := all.Merge(l); err != nil {
					return notDonef("%s: %w", path, err)
				}
			}
		}
		return showBench(cmd.Context(), a, all, html)
	})
	cmd.Flags().StringVar(&html, "html", "", "write an HTML page with charts to `file`")
	return cmd
}

func readBench(path string) (*report.Load, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, notDonef("%w", err)
	}
	defer f.Close()
	l, err := report.ReadLoad(f)
	if err != nil {
		return nil, notDonef("%s: %w", path, err)
	}
	return l, nil
}
