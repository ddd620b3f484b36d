package main

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/proa-kv/proa/bench/report"
)

func benchMergeCommand(a *app) *cobra.Command {
	var html string
	cmd := newCommand("bench merge", cobra.MinimumNArgs(2), func(cmd *cobra.Command, files []string) error {
		var all *report.Load
		for _, path := range files {
			l, err := readFile(path, func(r io.Reader) (*report.Load, error) {
				l, err := report.ReadLoad(r)
				if err != nil {
					err = notDonef("%s: %w", path, err)
				}
				return l, err
			})
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
