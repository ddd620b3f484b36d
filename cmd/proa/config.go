package main

import (
	"github.com/spf13/cobra"

	"github.com/proa-kv/proa/config"
)

func configCommand(a *app) *cobra.Command {
	var secrets bool
	show := newCommand("config show", cobra.NoArgs, func(cmd *cobra.Command, _ []string) error {
		c, err := config.Load(config.Options{Flags: cmd.Flags()})
		if err != nil {
			return &usageError{err}
		}
		if a.JSON() {
			return listSettings(a, c, secrets)
		}
		return c.WriteYAML(a.Out, secrets)
	})
	config.AddFlags(show.Flags())
	show.Flags().BoolVar(&secrets, "show-secrets", false, "show the join token as well")
	docs := newCommand("config docs", cobra.NoArgs, func(*cobra.Command, []string) error { return config.WriteReference(a.Out) })
	return commandGroup("config", show, docs)
}

// listSettings shows a configuration as JSON.
func listSettings(a *app, c *config.Config, secrets bool) error {
	type setting struct {
		Name   string `json:"name"`
		Value  string `json:"value"`
		Source string `json:"source"`
		Hidden bool   `json:"hidden,omitempty"` // it is set to something that is not shown
	}
	list := a.Results()
	for _, s := range c.Settings() {
		row := setting{Name: s.Name, Value: s.Value, Source: s.Source.String()}
		if s.Secret && !secrets && s.Value != "" {
			row.Value, row.Hidden = "", true
		}
		if err := list.AddJSON(row); err != nil {
			return err
		}
	}
	return list.End()
}
