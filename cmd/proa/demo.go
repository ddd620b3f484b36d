package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/proa-kv/proa/internal/demo"
	"github.com/proa-kv/proa/internal/render"
)

func demoCommand(a *app) *cobra.Command {
	o := demo.Options{}
	cmd := newCommand("demo", cobra.NoArgs, func(cmd *cobra.Command, _ []string) error {
		switch {
		case o.Nodes < demo.NodesMin || o.Nodes > demo.NodesMax:
			return usagef("--nodes %d: choose %d to %d%s", o.Nodes, demo.NodesMin, demo.NodesMax, map[bool]string{true: "; fewer have no majority left when one is killed"}[o.Nodes < demo.NodesMin])
		case o.Duration < demo.DurationMin || o.Duration > demo.DurationMax:
			return usagef("--duration %v: choose %v to %v", o.Duration, demo.DurationMin, demo.DurationMax)
		}
		executable, err := os.Executable()
		if err != nil {
			return fmt.Errorf("finding this program, which is the server too: %w", err)
		}
		o.Program, o.Command, o.Out = executable, program, a.Out
		o.Columns, _ = render.Terminal(a.Out)
		o.Colour = render.Colours()
		err = demo.Run(cmd.Context(), o)
		if errors.Is(err, demo.ErrBroken) {
			return &statusError{exitFailed, err}
		}
		return err
	})
	f := cmd.Flags()
	f.DurationVar(&o.Duration, "duration", demo.DefaultDuration, "`time` that the load runs: one third before the kill, one third without the node, one third after its return")
	f.IntVar(&o.Nodes, "nodes", demo.NodesMin, "`number` of servers")
	f.BoolVar(&o.Keep, "keep", false, "leave data and logs behind")
	return cmd
}
