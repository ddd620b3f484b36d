package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/proa-kv/proa/bench/report"
	"github.com/proa-kv/proa/internal/render"
)

func benchMergeCommand(a *app) *cobra.Command {
	var html string
	cmd := &cobra.Command{
		Use:   "merge FILE FILE...",
		Short: "Merge reports of load tests that ran at the same time",
		Long: `Read reports that "proa bench -o json" has written and show them as one: for a
load that one process, or one machine, cannot generate. All must have run the
same workload with the same options, at the same time. Histograms are merged
without loss. Let one run write the rows first, with -n 1, and start the others
with --no-preload.`,
		Example: `  proa bench -t get -n 1
  proa bench -t get --no-preload --duration 30s -o json > a.json &
  proa bench -t get --no-preload --duration 30s -o json > b.json; wait
  proa bench merge a.json b.json --html both.html`,
		Args:        cobra.MinimumNArgs(2),
		Annotations: map[string]string{outputForms: render.AsTable + " " + render.AsJSON + " " + render.AsJSONL + " " + outputCSV},
		RunE: func(cmd *cobra.Command, files []string) error {
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
		},
	}
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
