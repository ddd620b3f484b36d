//go:build linux

// Package growth measures how cost grows: rate, latency and server CPU of reads
// and fsynced writes with the number of connections, shards, bytes of a value,
// keys and nodes, one of them at a time. It starts every server itself, on
// loopback in temporary directories, and ends what it started. With -from it makes
// the pages again from the figures of an earlier run.
//
// # Method
//
// Each point has fresh servers with default settings, into which all rows are
// written first. Then reads and writes are measured one after the other, each
// in a closed loop over uniformly chosen keys, in rounds over all points of a
// curve, so that what else the machine does meets all of them alike. Figures
// are medians over the rounds.
//
// Servers and generator share the machine, so rates say as much about it as
// about the servers; the CPU time of the servers, all nodes together, does not
// depend on the generator.
package growth

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/proa-kv/proa/bench/rig"
)

// options are the flags.
type options struct {
	rig.Options
	from string // file to take the figures from instead of measuring; "" for none
	only string // name of the one curve to measure; "" for all
}

func parseFlags(args []string, output io.Writer) (options, error) {
	o := options{Options: rig.Options{Proa: "./proa", Rounds: 3, Limit: 30 * time.Minute}}
	set := o.FlagSet("lab growth", output)
	set.StringVar(&o.JSON, "json", "", "write all figures as JSON to this `file`")
	set.StringVar(&o.from, "from", "", "measure nothing, take the figures from this `file`, which -json has written")
	set.StringVar(&o.only, "only", "", "measure this `curve` only: connections, shards, value, keys or nodes")
	set.DurationVar(&o.Step, "step", 2*time.Second, "duration of one measurement")
	if err := set.Parse(args); err != nil {
		return o, err
	}
	if o.Quick {
		o.Rounds, o.Step = 1, 100*time.Millisecond
	}
	if o.only != "" && len(curvesOf(&o)) == 0 {
		return o, fmt.Errorf("there is no curve %q; there are connections, shards, value, keys and nodes", o.only)
	}
	return o, o.Check(set)
}

// command returns how to make the figures again.
func (o *options) command() string {
	s := fmt.Sprintf("lab growth -rounds %d -step %v", o.Rounds, o.Step)
	if o.only != "" {
		s += " -only " + o.only
	}
	return s
}

// Prepare reads the flags.
var Prepare = rig.Command(parseFlags, run)

// run measures everything.
func run(ctx context.Context, o options, out, progress io.Writer) error {
	if o.from != "" {
		r, err := readRecord(o.from)
		if err != nil {
			return err
		}
		return r.outcome().Publish(&o.Options, out, progress)
	}
	return o.Run(ctx, out, progress, func(ctx context.Context, lab *rig.Lab) (*rig.Outcome, error) {
		m := &measurement{options: o, Lab: lab, curves: curvesOf(&o)}
		if err := m.measure(ctx); err != nil {
			return nil, err
		}
		return m.record().outcome(), nil
	})
}
