//go:build linux

// Package failover measures what users of a cluster notice of its changes: a
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
// one without learns that the outcome of its write is unknown.
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
package failover

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/proa-kv/proa/bench"
	"github.com/proa-kv/proa/bench/rig"
	"github.com/proa-kv/proa/internal/ledger"
)

// options are the flags.
type options struct {
	rig.Options
	kills, transfers, stops int
	calm                    time.Duration // around each event
	keys                    uint64
	value                   int // bytes
}

func parseFlags(args []string, output io.Writer) (options, error) {
	o := options{Options: rig.Options{Proa: "./proa", Rounds: 5, Limit: 15 * time.Minute}}
	set := o.FlagSet("lab failover", output)
	set.IntVar(&o.kills, "kills", 10, "how often to kill a leader")
	set.IntVar(&o.transfers, "transfers", 5, "how often to transfer every shard")
	set.IntVar(&o.stops, "stops", 5, "how often to stop a node with SIGTERM")
	set.DurationVar(&o.calm, "calm", 300*time.Millisecond, "how long to watch before and after an event, so that two do not overlap")
	set.DurationVar(&o.Step, "step", 2*time.Second, "duration of one measurement of throughput")
	set.Uint64Var(&o.keys, "keys", 100_000, "number of keys for throughput")
	set.IntVar(&o.value, "value", 128, "`bytes` of a value, at least 20")
	if err := set.Parse(args); err != nil {
		return o, err
	}
	if o.Quick {
		o.kills, o.transfers, o.stops, o.Rounds, o.calm, o.Step, o.keys = 1, 1, 1, 1, 50*time.Millisecond, 200*time.Millisecond, 2_000
	}
	positive := o.kills >= 1 && o.transfers >= 1 && o.stops >= 1 && o.calm > 0 && o.keys >= 1
	if !positive || o.value < ledger.NumberBytes || o.value > bench.ValueBytesMax {
		return o, fmt.Errorf("kills, transfers, stops, calm and keys must be positive, and the value %d to %d bytes", ledger.NumberBytes, bench.ValueBytesMax)
	}
	return o, o.Check(set)
}

// command returns how to make the figures again.
func (o *options) command() string {
	return fmt.Sprintf("lab failover -kills %d -transfers %d -stops %d -rounds %d -calm %v -step %v -keys %d -value %d", o.kills, o.transfers, o.stops, o.Rounds, o.calm, o.Step, o.keys, o.value)
}

// Prepare reads the flags.
var Prepare = rig.Command(parseFlags, run)

// run measures everything.
func run(ctx context.Context, o options, out, progress io.Writer) error {
	return o.Run(ctx, out, progress, func(ctx context.Context, lab *rig.Lab) (*rig.Outcome, error) {
		m := &measurement{options: o, Lab: lab}
		if err := rig.FindProa(o.Proa); err != nil {
			return nil, err
		}
		if err := m.measureEvents(ctx); err != nil {
			return nil, err
		}
		if err := m.measureShards(ctx); err != nil {
			return nil, err
		}
		return m.outcome(), nil
	})
}
