package main

import (
	"github.com/spf13/cobra"

	"github.com/proa-kv/proa/config"
	"github.com/proa-kv/proa/internal/render"
)

func configCommand(a *app) *cobra.Command {
	var secrets bool
	show := &cobra.Command{
		Use:   "show",
		Short: "Print the effective configuration and the source of each value",
		Long: `Print the configuration that "proa serve" would use with the same flags,
environment and file, and the source of each value. The output is a valid
configuration file. The join token is omitted unless --show-secrets is given.`,
		Args:        cobra.NoArgs,
		Annotations: map[string]string{outputForms: render.AsTable + " " + render.AsJSON + " " + render.AsJSONL},
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := config.Load(config.Options{Flags: cmd.Flags()})
			if err != nil {
				return &usageError{err}
			}
			if a.JSON() {
				return listSettings(a, c, secrets)
			}
			return c.WriteYAML(a.Out, secrets)
		},
	}
	config.AddFlags(show.Flags())
	show.Flags().BoolVar(&secrets, "show-secrets", false, "show the join token as well")
	docs := &cobra.Command{
		Use:         "docs",
		Short:       "Print the reference of all keys, in Markdown",
		Args:        cobra.NoArgs,
		Annotations: map[string]string{outputForms: render.AsTable},
		RunE:        func(*cobra.Command, []string) error { return config.WriteReference(a.Out) },
	}
	return commandGroup("config", "Show or document the server's configuration", "", show, docs)
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
