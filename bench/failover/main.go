//go:build linux

// Command failover measures what users of a cluster notice of its changes: a
// leader that is killed, leaderships that are handed over, a node that is
// stopped and started again, and what many shards cost. It starts every server
// itself, three nodes on loopback in a temporary directory, and ends what it
// started.
//
// # Method
//
// Each shard has two callers, which write without a pause to keys of that shard
// alone: one through a client with a session (client.Config.ExactlyOnce), one
// through a client with default settings. They are the load, and they are the
// measure: a pause is the longest time between two acknowledgements that one
// caller got in a row, the last one before the event included. Since a caller
// has one write under way, a pause is never shorter than the latency of a
// write; windows without an event, of the same callers, say how long it is
// without.
//
// After a SIGKILL, service is back for all shards when each has acknowledged a
// write that began after the signal. The callers with a session count there:
// one without must be told that the outcome of its write is unknown.
//
// Each write carries a number and asks for the value it replaces, so a lost
// write is seen by the next one to the same key; at the end of each part every
// key is read back. A caller that met an unknown outcome goes on with a fresh
// key, so that no late write can be taken for a lost one.
//
// Throughput with few and with many shards is measured on two clusters in turn,
// A B A B, when all servers have come to rest, with the CPU time of the servers
// beside it.
//
// A missed target is reported as missed and is no error. A lost write is one,
// and so is a cluster that does not recover.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/proa-kv/proa/bench"
	"github.com/proa-kv/proa/bench/rig"
)

// options are the flags.
type options struct {
	proa  string // program
	dir   string // for data; "" for the system's temporary directory
	write string // page to regenerate; "" for none

	kills, transfers, stops, rounds int
	calm                            time.Duration // around each event
	step                            time.Duration // one measurement of throughput
	keys                            uint64
	value                           int // bytes
	limit                           time.Duration
	quick                           bool
}

func parseFlags(args []string, output io.Writer) (options, error) {
	var o options
	set := flag.NewFlagSet("failover", flag.ContinueOnError)
	set.SetOutput(output)
	set.StringVar(&o.proa, "proa", "./proa", "the proa `program`")
	set.StringVar(&o.dir, "dir", "", "`directory` on the disk to use (default: a temporary one)")
	set.StringVar(&o.write, "write", "", "regenerate the section of this Markdown `page`")
	set.IntVar(&o.kills, "kills", 10, "how often to kill a leader")
	set.IntVar(&o.transfers, "transfers", 5, "how often to transfer every shard")
	set.IntVar(&o.stops, "stops", 5, "how often to stop a node with SIGTERM")
	set.IntVar(&o.rounds, "rounds", 5, "rounds of measurements of throughput")
	set.DurationVar(&o.calm, "calm", 300*time.Millisecond, "how long to watch before and after an event, so that two do not overlap")
	set.DurationVar(&o.step, "step", 2*time.Second, "duration of one measurement of throughput")
	set.Uint64Var(&o.keys, "keys", 100_000, "number of keys for throughput")
	set.IntVar(&o.value, "value", 128, "`bytes` of a value, at least 20")
	set.DurationVar(&o.limit, "limit", 15*time.Minute, "give up after this long")
	set.BoolVar(&o.quick, "quick", false, "a smoke run of seconds, whose figures mean nothing")
	if err := set.Parse(args); err != nil {
		return o, err
	}
	if o.quick {
		o.kills, o.transfers, o.stops, o.rounds, o.calm, o.step, o.keys = 1, 1, 1, 1, 50*time.Millisecond, 200*time.Millisecond, 2_000
	}
	positive := o.kills >= 1 && o.transfers >= 1 && o.stops >= 1 && o.rounds >= 1 && o.calm > 0 && o.step > 0 && o.keys >= 1 && o.limit > 0
	if !positive || o.value < numberBytes || o.value > bench.ValueBytesMax || set.NArg() > 0 {
		return o, fmt.Errorf("kills, transfers, stops, rounds, calm, step, keys and limit must be positive, the value %d to %d bytes, and there are no arguments", numberBytes, bench.ValueBytesMax)
	}
	return o, nil
}

// command returns how to make the figures again.
func (o *options) command() string {
	return fmt.Sprintf("failover -kills %d -transfers %d -stops %d -rounds %d -calm %v -step %v -keys %d -value %d", o.kills, o.transfers, o.stops, o.rounds, o.calm, o.step, o.keys, o.value)
}

func main() {
	rig.Main("failover", func() (func(context.Context) error, error) {
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
		if err := newOutcome(m).publish(out, progress); err != nil {
			return err
		}
		if m.lost > 0 {
			return fmt.Errorf("%d acknowledged writes are lost", m.lost)
		}
		return nil
	})
}
