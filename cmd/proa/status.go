package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/internal/render"
)

const defaultWatch = 2 * time.Second

func statusCommand(a *app) *cobra.Command {
	var node, wide bool
	watch := time.Duration(0)
	cmd := newCommand("status", cobra.MaximumNArgs(1), func(cmd *cobra.Command, args []string) error {
		watching := cmd.Flags().Changed("watch")
		if len(args) == 1 {
			d, err := time.ParseDuration(args[0])
			if err != nil || !watching {
				return usagef("%q: the only argument is an interval such as 500ms, after --watch", args[0])
			}
			watch = d
		}
		switch {
		case watching && watch < 100*time.Millisecond:
			return usagef("--watch %v: the interval must be at least 100ms", watch)
		case watching && a.Form == render.AsJSON:
			return usagef("--watch prints one document after the other: use -o jsonl")
		case watching && a.shell:
			return usagef("--watch works outside the shell: proa status --watch")
		}
		show := showCluster
		if node {
			show = showNode
		}
		look := render.LookOf(a.Out)
		look.Wide = wide
		if watching {
			return watchStatus(cmd.Context(), a, watch, look, show)
		}
		status, err := show(cmd.Context(), a, a.Out, look)
		return cmp.Or(err, silently(status))
	})
	f := cmd.Flags()
	f.BoolVar(&node, "node", false, "what one server says about itself alone")
	f.BoolVar(&wide, "wide", false, "all columns and all shards, however wide the terminal is")
	f.DurationVarP(&watch, "watch", "w", 0, "repeat after each `interval` (2s if none is given)")
	f.Lookup("watch").NoOptDefVal = defaultWatch.String()
	return cmd
}

// showNode shows the status of one server.
func showNode(ctx context.Context, a *app, w io.Writer, _ render.Look) (status int, err error) {
	return exitDone, a.call(ctx, func(ctx context.Context, c *client.Client) error {
		raw, err := c.Status(ctx)
		if err != nil {
			return err
		}
		return (&render.Output{Out: w, Form: a.Form}).Object(raw)
	})
}

// showCluster shows the status of the cluster and returns the exit status that
// stands for its health.
func showCluster(ctx context.Context, a *app, w io.Writer, l render.Look) (status int, err error) {
	raw, err := a.administerRaw(ctx, command.AdminStatus, nil)
	if err != nil {
		return exitServer, unsupportedStatus(err)
	}
	s := new(command.ClusterStatus)
	err = json.Unmarshal(raw, s)
	o := &render.Output{Out: w, Form: a.Form}
	if o.Form != render.AsTable {
		if err := o.WriteRawJSON(nameMeta(raw)); err != nil {
			return exitServer, err
		}
	}
	if err != nil {
		return exitServer, fmt.Errorf("the server's status cannot be read: %w; -o json shows it as it is", err)
	}
	status = diagnose(s).status
	if o.Form != render.AsTable {
		return status, nil
	}
	name := ""
	if t := a.link.target; t != nil {
		name = t.context
	}
	return status, renderCluster(o, s, name, l)
}

// renderCluster shows the verdict, the nodes and the shards.
func renderCluster(o *render.Output, s *command.ClusterStatus, context string, l render.Look) error {
	if context != "" {
		context = ", context " + context
	}
	engine := ""
	if s.Engine != "" {
		engine = ", engine " + render.OneLine(s.Engine)
	}
	err := o.Printf("cluster %s%s, epoch %d, seen by node %d%s\n%s\n", render.OneLine(s.Cluster), engine, s.Epoch, s.Asked, context, diagnose(s).text(l))
	if len(s.Nodes) > 0 {
		err = errors.Join(err, showNodes(o, s, l), o.Printf("\n"))
	}
	return errors.Join(err, showShards(o, s, l))
}
