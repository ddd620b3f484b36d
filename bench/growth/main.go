//go:build linux

// Command growth measures how cost grows: rate, latency and server CPU of reads
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
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/proa-kv/proa/bench/rig"
)

// options are the flags.
type options struct {
	proa  string // program
	dir   string // for data; "" for the system's temporary directory
	write string // page to regenerate; "" for none
	html  string // page with curves to write; "" for none
	json  string // file for all figures; "" for none
	from  string // file to take the figures from instead of measuring; "" for none
	only  string // name of the one curve to measure; "" for all

	rounds int
	step   time.Duration // one measurement
	limit  time.Duration
	quick  bool
}

func parseFlags(args []string, output io.Writer) (options, error) {
	var o options
	set := flag.NewFlagSet("growth", flag.ContinueOnError)
	set.SetOutput(output)
	set.StringVar(&o.proa, "proa", "./proa", "the proa `program`")
	set.StringVar(&o.dir, "dir", "", "`directory` on the disk to use (default: a temporary one)")
	set.StringVar(&o.write, "write", "", "regenerate the section of this Markdown `page`")
	set.StringVar(&o.html, "html", "", "write a page with charts to this `file`")
	set.StringVar(&o.json, "json", "", "write all figures as JSON to this `file`")
	set.StringVar(&o.from, "from", "", "measure nothing, take the figures from this `file`, which -json has written")
	set.StringVar(&o.only, "only", "", "measure this `curve` only: connections, shards, value, keys or nodes")
	set.IntVar(&o.rounds, "rounds", 3, "rounds of measurements")
	set.DurationVar(&o.step, "step", 2*time.Second, "duration of one measurement")
	set.DurationVar(&o.limit, "limit", 30*time.Minute, "give up after this long")
	set.BoolVar(&o.quick, "quick", false, "a smoke run, whose figures mean nothing")
	if err := set.Parse(args); err != nil {
		return o, err
	}
	if o.quick {
		o.rounds, o.step = 1, 100*time.Millisecond
	}
	if o.rounds < 1 || o.step <= 0 || o.limit <= 0 || set.NArg() > 0 {
		return o, errors.New("rounds, step and limit must be positive, and there are no arguments")
	}
	if o.only != "" && len(curvesOf(&o)) == 0 {
		return o, fmt.Errorf("there is no curve %q; there are connections, shards, value, keys and nodes", o.only)
	}
	return o, nil
}

// command returns how to make the figures again.
func (o *options) command() string {
	s := fmt.Sprintf("growth -rounds %d -step %v", o.rounds, o.step)
	if o.only != "" {
		s += " -only " + o.only
	}
	return s
}

func main() {
	rig.Main("growth", func() (func(context.Context) error, error) {
		o, err := parseFlags(os.Args[1:], os.Stderr)
		return func(ctx context.Context) error { return run(ctx, o, os.Stdout, os.Stderr) }, err
	})
}

// run measures everything, prints the tables to out and how far it is to
// progress.
func run(ctx context.Context, o options, out, progress io.Writer) error {
	if o.from != "" {
		r, err := readRecord(o.from)
		if err != nil {
			return err
		}
		return o.publish(r, out, progress)
	}
	return rig.Within(ctx, o.limit, func(ctx context.Context) (err error) {
		m, err := newMeasurement(o, progress)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, m.close()) }()
		if err := m.measure(ctx); err != nil {
			return err
		}
		return o.publish(m.record(), out, progress)
	})
}
