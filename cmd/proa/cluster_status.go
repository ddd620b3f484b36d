package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/command"
)

const defaultWatch = 2 * time.Second

func (a *app) statusCommand() *cobra.Command {
	var node, wide bool
	watch := time.Duration(0)
	cmd := &cobra.Command{
		Use:   "status [--watch [INTERVAL]] [--node]",
		Short: "Show the state of the cluster, its nodes and shards",
		Long: `Show the state of the whole cluster as one of its nodes sees it:

  - healthy, degraded, UNAVAILABLE or unknown; what the loss of one more node would
    mean; and what to do next
  - the nodes. Figures are at most one second old; for a node that has not reported
    for longer they are dashes, with the time since its last report. LEADS is the
    number of shards it leads. --wide shows more columns.
  - the shards: leader, term, and LAG, the log entries that the slowest replica is
    missing. The shard named meta stores the cluster's own data: nodes, replica
    placement, slot map. With more than 16 shards only those with problems are shown.

` + replicaHelp + `

-o json prints one object; its field "health" has the verdict and the shards
concerned. --watch repeats the status until Control-C, and waits for a cluster
that does not answer yet. --node shows what one server knows about itself only.

Exit status: 0 healthy; 1 degraded or unknown; 3 some shards are unavailable, or
no server answers. With --watch and --node: 0 if a server answered.`,
		Example: "  proa status\n  proa status --watch\n  proa status --watch 500ms\n  proa status -o json | jq .health",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
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
			case watching && a.output == outputJSON:
				return usagef("--watch prints one document after the other: use -o jsonl")
			case watching && a.shell:
				return usagef("--watch works outside the shell: proa status --watch")
			}
			show := a.showCluster
			if node {
				show = a.showNode
			}
			look := lookOf(a.out)
			look.wide = wide
			if watching {
				return a.watch(cmd.Context(), watch, look, show)
			}
			status, err := show(cmd.Context(), a.out, look)
			if err == nil && status != exitDone {
				err = &statusError{status, errSilent}
			}
			return err
		},
	}
	f := cmd.Flags()
	f.BoolVar(&node, "node", false, "what one server says about itself alone")
	f.BoolVar(&wide, "wide", false, "all columns and all shards, however wide the terminal is")
	f.DurationVarP(&watch, "watch", "w", 0, "repeat after each `interval` (2s if none is given)")
	f.Lookup("watch").NoOptDefVal = defaultWatch.String()
	return cmd
}

// showNode shows the status of one server.
func (a *app) showNode(ctx context.Context, w io.Writer, _ look) (status int, err error) {
	return exitDone, a.call(ctx, func(ctx context.Context, c *client.Client) error {
		raw, err := c.Status(ctx)
		if err != nil {
			return err
		}
		return a.to(w).showStatus(raw)
	})
}

// to returns a copy of a that writes to w.
func (a *app) to(w io.Writer) *app {
	b := *a
	b.out = w
	return &b
}

// showCluster shows the status of the cluster and returns the exit status that
// stands for how it fares.
func (a *app) showCluster(ctx context.Context, w io.Writer, l look) (status int, err error) {
	raw, err := a.administerRaw(ctx, command.AdminStatus, nil)
	if err != nil {
		return exitServer, unsupportedStatus(err)
	}
	s := new(command.ClusterStatus)
	err = json.Unmarshal(raw, s)
	if a.output != outputTable {
		// As it came: a newer server may say more than this program knows.
		if _, err := w.Write(append(printableJSON(nameMeta(bytes.TrimSpace(raw))), '\n')); err != nil {
			return exitServer, err
		}
	}
	if err != nil {
		return exitServer, fmt.Errorf("the server's status cannot be read: %w; -o json shows it as it is", err)
	}
	d := diagnose(s)
	if a.output != outputTable {
		return d.status, nil
	}
	return d.status, a.to(w).renderCluster(s, d, l)
}

// watchPatience is how long a picture that stands may wait for the next one before
// watch says that there is no answer.
const watchPatience = 2 * time.Second

// watch shows something again and again until the context ends. While no server
// can be reached, or answers in time, it says so and tries again; another failure is
// returned if nothing could be shown before, and shown later.
func (a *app) watch(ctx context.Context, interval time.Duration, l look, show func(context.Context, io.Writer, look) (int, error)) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	if l.columns > 0 {
		defer func() { _ = a.printf("\n") }() // the picture stays
	}
	for frames, shown := 0, false; ; frames++ {
		var b bytes.Buffer
		l = l.resized(a.out)
		err := attempt(ctx, shown, interval, func(ctx context.Context) error {
			_, err := show(ctx, &b, l)
			return err
		})
		if ctx.Err() != nil {
			return nil // Control-C is how one leaves
		}
		var unavailable *client.UnavailableError
		absent := errors.As(err, &unavailable) || errors.Is(err, errNoAnswer)
		switch {
		case err == nil:
			shown = true
		case !absent && !shown:
			return err
		case a.output != outputTable:
			a.complain(err)
		default:
			fmt.Fprintln(&b, l.wrapLines(describe(err, a)))
			if absent {
				fmt.Fprintf(&b, "Trying again every %v.\n", interval)
			}
		}
		if err := a.writeFrame(b.Bytes(), frames, interval, l); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

var errNoAnswer = errors.New("no answer")

// attempt calls show, and gives it a bounded time if a picture stands already.
func attempt(ctx context.Context, stands bool, interval time.Duration, show func(context.Context) error) error {
	if !stands {
		return show(ctx)
	}
	patience := max(interval, watchPatience)
	bounded, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := show(bounded)
	var unavailable *client.UnavailableError
	if err != nil && bounded.Err() != nil && !errors.As(err, &unavailable) {
		return fmt.Errorf("%w for %v", errNoAnswer, patience)
	}
	return err
}

// writeFrame shows one of several pictures: in place on a terminal, below a line
// with the time of day, and cut to its width; one behind the other elsewhere.
func (a *app) writeFrame(picture []byte, number int, interval time.Duration, l look) error {
	var b bytes.Buffer
	switch {
	case l.columns > 0:
		if number == 0 {
			b.WriteString("\x1b[2J")
		}
		clock := fmt.Sprintf("%s, every %v; Control-C ends", time.Now().Format(time.TimeOnly), interval)
		b.WriteString(l.frame(l.paint(dim, clock) + "\n" + string(picture)))
	case number > 0 && a.output == outputTable && len(picture) > 0:
		b.WriteByte('\n')
		fallthrough
	default:
		b.Write(picture)
	}
	_, err := a.out.Write(b.Bytes())
	return err
}

// renderCluster shows the verdict, the nodes and the shards.
func (a *app) renderCluster(s *command.ClusterStatus, d *diagnosis, l look) error {
	var b strings.Builder
	named := ""
	if a.link != nil && a.link.target != nil && a.link.target.context != "" {
		named = ", context " + a.link.target.context
	}
	fmt.Fprintf(&b, "cluster %s, epoch %d, seen by node %d%s\n", oneLine(s.Cluster), s.Epoch, s.Asked, named)
	for i, line := range d.lines() {
		switch {
		case i == 0:
			line = l.paint(d.colour(), l.wrap(line, "  "))
		default:
			line = "  " + l.wrap(line, "    ")
		}
		b.WriteString(line + "\n")
	}
	if err := a.printf("%s\n", b.String()); err != nil {
		return err
	}
	if len(s.Nodes) > 0 {
		if err := a.showNodes(s, l); err != nil {
			return err
		}
		if err := a.printf("\n"); err != nil {
			return err
		}
	}
	return a.showShards(s, l)
}
