//go:build linux

// Command onenode compares one Proa node with Redis, and both with what disk
// and loopback allow, in one run on one machine. It starts every server itself,
// on loopback and in a temporary directory, and ends what it started.
//
// # Method
//
// Absolute figures say little on a machine whose neighbours are noisy. So each
// round measures every variant in turn, A B A B, for a second or two each; the
// figures are medians over the rounds, and a ratio is the median of the ratios
// within each round. Before a measurement starts, all servers are given two
// seconds to come to rest. All load comes from package bench, the same
// generator for every server.
//
// The CPU time of a server is read from its process's CPU clock
// (clock_getcpuclockid), which counts nanoseconds over all threads, finished
// ones included. Its memory is the resident set size as /proc/PID/smaps_rollup
// adds it up, page by page. What the kernel holds for sockets is in neither.
//
// YCSB with more data than cache takes long, and has a run and a section of the
// page of its own (-ycsb). It is measured beside Pebble, the storage engine that
// Proa is built on, in this process.
//
// A missed target is reported as missed and is no error. A request that fails
// is: figures from a run with failures would not mean what they say.
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
	proa, redis string // programs; redis may be empty or missing
	dir         string // for data; "" for the system's temporary directory
	write       string // page to regenerate; "" for none
	html        string // page with curves to write; "" for none

	rounds int
	step   time.Duration // one measurement
	keys   uint64
	value  int // bytes
	busy   int // connections
	idle   int // connections
	crowd  int // connections
	limit  time.Duration
	quick  bool

	largeKeys uint64 // keys with large values

	ycsb                bool // measure YCSB instead of everything else
	ycsbData, ycsbCache uint // MiB
	ycsbStep            time.Duration
}

// ycsbDataMax bounds data and cache of YCSB, in MiB.
const ycsbDataMax = 16 << 20

func parseFlags(args []string, output io.Writer) (options, error) {
	var o options
	set := flag.NewFlagSet("onenode", flag.ContinueOnError)
	set.SetOutput(output)
	set.StringVar(&o.proa, "proa", "./proa", "the proa `program`")
	set.StringVar(&o.redis, "redis", "redis-server", "the redis-server `program`, looked for in PATH; empty leaves Redis out")
	set.StringVar(&o.dir, "dir", "", "`directory` on the disk to measure (default: a temporary one)")
	set.StringVar(&o.write, "write", "", "regenerate this Markdown `page`")
	set.StringVar(&o.html, "html", "", "write tables and latency curves to this HTML `file`, which needs nothing else")
	set.IntVar(&o.rounds, "rounds", 5, "rounds of measurements")
	set.DurationVar(&o.step, "step", 1500*time.Millisecond, "duration of one measurement")
	set.Uint64Var(&o.keys, "keys", 1_000_000, "number of keys")
	set.IntVar(&o.value, "value", 128, "`bytes` of a value")
	set.IntVar(&o.busy, "connections", 64, "busy connections")
	set.IntVar(&o.idle, "idle", 10_000, "connections of which most are idle")
	set.IntVar(&o.crowd, "crowd", 500, "how many of those are busy, where some are")
	set.BoolVar(&o.ycsb, "ycsb", false, "measure YCSB A, B and C with more data than cache beside Pebble, instead of everything else; it takes long")
	set.UintVar(&o.ycsbData, "ycsb-data", 10<<10, "`MiB` of data for -ycsb; four times as much must be free on the disk")
	set.UintVar(&o.ycsbCache, "ycsb-cache", 1<<10, "`MiB` of cache for -ycsb, at least 8")
	set.DurationVar(&o.ycsbStep, "ycsb-step", 20*time.Second, "duration of one measurement of -ycsb")
	set.DurationVar(&o.limit, "limit", 0, "give up after this long (default 30m, or 3h with -ycsb)")
	set.BoolVar(&o.quick, "quick", false, "a smoke run of seconds, whose figures mean nothing")
	if err := set.Parse(args); err != nil {
		return o, err
	}
	o.largeKeys = 1024
	if o.quick {
		o.largeKeys = 32
		o.ycsbData, o.ycsbCache, o.ycsbStep = 8, 8, 200*time.Millisecond
		o.rounds, o.step, o.keys, o.idle, o.crowd = 1, 100*time.Millisecond, 2_000, 200, 100
	}
	if o.rounds < 1 || o.step <= 0 || o.keys < 1 || o.value < 0 || o.busy < 1 || o.idle < 0 || set.NArg() > 0 {
		return o, errors.New("rounds, step, keys and connections must be positive, value and idle not negative, and there are no arguments")
	}
	if o.limit == 0 {
		o.limit = 30 * time.Minute
		if o.ycsb {
			o.limit = 3 * time.Hour
		}
	}
	if o.ycsbData < 1 || o.ycsbData > ycsbDataMax || o.ycsbCache < 8 || o.ycsbCache > ycsbDataMax || o.ycsbStep <= 0 || o.limit < 0 {
		return o, fmt.Errorf("-ycsb-data must be 1 to %d MiB, -ycsb-cache 8 to %d, and -ycsb-step and -limit positive", ycsbDataMax, ycsbDataMax)
	}
	if o.crowd <= o.busy {
		return o, fmt.Errorf("-crowd %d must be more than -connections %d: both are measured, and told apart by their number", o.crowd, o.busy)
	}
	return o, nil
}

// command returns how to make the figures again.
func (o *options) command() string {
	if o.ycsb {
		return fmt.Sprintf("onenode -ycsb -rounds %d -ycsb-step %v -ycsb-data %d -ycsb-cache %d -connections %d", o.rounds, o.ycsbStep, o.ycsbData, o.ycsbCache, o.busy)
	}
	return fmt.Sprintf("onenode -rounds %d -step %v -keys %d -value %d -connections %d -idle %d -crowd %d", o.rounds, o.step, o.keys, o.value, o.busy, o.idle, o.crowd)
}

func main() {
	rig.Main("onenode", func() (func(context.Context) error, error) {
		o, err := parseFlags(os.Args[1:], os.Stderr)
		return func(ctx context.Context) error { return run(ctx, o, os.Stdout, os.Stderr) }, err
	})
}

// run measures everything, prints the tables to out and how far it is to
// progress.
func run(ctx context.Context, o options, out, progress io.Writer) error {
	return rig.Within(ctx, o.limit, func(ctx context.Context) (err error) {
		m, err := newMeasurement(o, progress)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, m.close()) }()
		if err := m.measure(ctx); err != nil {
			return err
		}
		return newOutcome(m).publish(o, out, progress)
	})
}

// publish prints the tables and writes the files that were asked for.
func (r *outcome) publish(o options, out, progress io.Writer) error {
	if err := r.print(out); err != nil {
		return err
	}
	if o.html != "" {
		if err := r.page().WriteHTML(o.html); err != nil {
			return err
		}
		fmt.Fprintf(progress, "wrote %s\n", o.html)
	}
	if o.write != "" {
		if err := r.section.Write(o.write, r.markdown()); err != nil {
			return err
		}
		fmt.Fprintf(progress, "wrote %s\n", o.write)
	}
	return nil
}
