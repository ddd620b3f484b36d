//go:build linux

// Package onenode compares one Proa node with Redis, and both with what disk
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
package onenode

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/proa-kv/proa/bench/rig"
)

// options are the flags.
type options struct {
	rig.Options
	redis string // program; may be empty or missing

	keys  uint64
	value int // bytes
	busy  int // connections
	idle  int // connections
	crowd int // connections

	largeKeys uint64 // keys with large values

	tls bool // clients speak TLS

	ycsb                bool // measure YCSB instead of everything else
	ycsbData, ycsbCache uint // MiB
	ycsbStep            time.Duration
	// ycsbRest is how long work in the background is waited for, such as the
	// compactions that filling has left behind.
	ycsbRest time.Duration
}

// ycsbDataMax bounds data and cache of YCSB, in MiB.
const ycsbDataMax = 16 << 20

func parseFlags(args []string, output io.Writer) (options, error) {
	o := options{Options: rig.Options{Proa: "./proa", Rounds: 5}, largeKeys: 1024, ycsbRest: 2 * time.Minute}
	set := o.FlagSet("lab onenode", output)
	set.StringVar(&o.redis, "redis", "redis-server", "the redis-server `program`, looked for in PATH; empty leaves Redis out")
	set.DurationVar(&o.Step, "step", 1500*time.Millisecond, "duration of one measurement")
	set.Uint64Var(&o.keys, "keys", 1_000_000, "number of keys")
	set.IntVar(&o.value, "value", 128, "`bytes` of a value")
	set.IntVar(&o.busy, "connections", 64, "busy connections")
	set.IntVar(&o.idle, "idle", 10_000, "connections of which most are idle")
	set.IntVar(&o.crowd, "crowd", 500, "how many of those are busy, where some are")
	set.BoolVar(&o.tls, "tls", false, "compare over TLS, with one certificate for all servers; its figures do not go into the page")
	set.BoolVar(&o.ycsb, "ycsb", false, "measure YCSB A, B and C with more data than cache beside Pebble, instead of everything else; it takes long")
	set.UintVar(&o.ycsbData, "ycsb-data", 10<<10, "`MiB` of data for -ycsb; four times as much must be free on the disk")
	set.UintVar(&o.ycsbCache, "ycsb-cache", 1<<10, "`MiB` of cache for -ycsb, at least 8")
	set.DurationVar(&o.ycsbStep, "ycsb-step", 20*time.Second, "duration of one measurement of -ycsb")
	if err := set.Parse(args); err != nil {
		return o, err
	}
	if o.Quick {
		o.largeKeys = 32
		o.ycsbData, o.ycsbCache, o.ycsbStep, o.ycsbRest = 8, 8, 200*time.Millisecond, 2*time.Second
		o.Rounds, o.Step, o.keys, o.idle, o.crowd = 1, 100*time.Millisecond, 2_000, 200, 100
	}
	if o.keys < 1 || o.value < 0 || o.busy < 1 || o.idle < 0 {
		return o, errors.New("keys and connections must be positive, value and idle not negative")
	}
	if o.Limit == 0 {
		o.Limit = 30 * time.Minute
		if o.ycsb {
			o.Limit = 3 * time.Hour
		}
	}
	if o.ycsbData < 1 || o.ycsbData > ycsbDataMax || o.ycsbCache < 8 || o.ycsbCache > ycsbDataMax || o.ycsbStep <= 0 {
		return o, fmt.Errorf("-ycsb-data must be 1 to %d MiB, -ycsb-cache 8 to %d, and -ycsb-step positive", ycsbDataMax, ycsbDataMax)
	}
	if o.tls && (o.ycsb || o.Write != "") {
		return o, errors.New("-tls goes neither with -ycsb nor with -write")
	}
	if o.crowd <= o.busy {
		return o, fmt.Errorf("-crowd %d must be more than -connections %d: both are measured, and told apart by their number", o.crowd, o.busy)
	}
	return o, o.Check(set)
}

// command returns how to make the figures again.
func (o *options) command() string {
	if o.ycsb {
		return fmt.Sprintf("lab onenode -ycsb -rounds %d -ycsb-step %v -ycsb-data %d -ycsb-cache %d -connections %d", o.Rounds, o.ycsbStep, o.ycsbData, o.ycsbCache, o.busy)
	}
	command := fmt.Sprintf("lab onenode -rounds %d -step %v -keys %d -value %d -connections %d -idle %d -crowd %d", o.Rounds, o.Step, o.keys, o.value, o.busy, o.idle, o.crowd)
	if o.tls {
		command += " -tls"
	}
	return command
}

// Prepare reads the flags.
var Prepare = rig.Command(parseFlags, run)

// run measures everything.
func run(ctx context.Context, o options, out, progress io.Writer) error {
	return o.Run(ctx, out, progress, func(ctx context.Context, lab *rig.Lab) (*rig.Outcome, error) {
		m, err := newMeasurement(o, lab)
		if err != nil {
			return nil, err
		}
		if err := m.measure(ctx); err != nil {
			return nil, err
		}
		return m.outcome(), nil
	})
}
