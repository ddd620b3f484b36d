//go:build linux

// Command peers compares Proa with other databases in one run on one machine: one
// node with etcd and Redis, three nodes with etcd, both with Proa on other engines for
// network and Raft; and, called through Redis's protocol by redis-benchmark, with Redis.
// It builds or finds the servers, starts them on loopback in a temporary directory, and
// ends what it started. How long they take to start, and how large their programs are,
// is measured first.
//
// # Method
//
// Absolute figures say little on a machine whose neighbours are noisy. So each
// round measures every server in turn, A B A B, for a few seconds each; the
// figures are medians over the rounds, and a ratio is the median of the ratios
// within each round. Beside them stand the floors of the same rounds, fdatasync
// and a loopback echo, and the CPU time that all processes of a cluster used
// for a call.
//
// The load is a closed loop of goroutines, which call each server through the
// Go client that its users have. That is what users get; it also means that a
// client which costs much takes processor time from its server, here where all
// share one machine. The generator's CPU time for a call is therefore in the
// tables. Package bench measures servers without a client library in the way.
//
// A missed target is reported as missed and is no error. A server that does not
// start, or cannot be measured, is one.
//
// A further database is one more file: a type with the methods of peer, and its
// name in the list peers.
package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/proa-kv/proa/bench"
	"github.com/proa-kv/proa/bench/rig"
)

// options are the flags.
type options struct {
	rig.Options
	etcd, redis, redisBenchmark string // programs; see the flags
	only                        string // regular expression
	chosen                      list   // short names of peers, empty for all
	keys                        uint64
	respKeys                    uint64 // for redis-benchmark
	value                       int    // bytes
}

func parseFlags(args []string, output io.Writer) (options, error) {
	o := options{Options: rig.Options{Rounds: 5, Limit: 30 * time.Minute}}
	set := o.FlagSet("peers", output)
	set.StringVar(&o.etcd, "etcd", "", "the etcd `program` (default: build the version in etcd/go.mod)")
	set.StringVar(&o.redis, "redis", "redis-server", "the redis-server `program`, looked for in PATH; empty leaves Redis out")
	set.StringVar(&o.redisBenchmark, "redis-benchmark", "redis-benchmark", "the redis-benchmark `program`, looked for in PATH; empty leaves its rows out")
	set.StringVar(&o.JSON, "json", "", "write all figures as JSON to this `file`")
	set.StringVar(&o.only, "only", "", "measure only what matches this regular `expression`, such as 'PUT, 3 nodes' or '512.*(Proa|etcd)$'")
	set.Var(&o.chosen, "servers", "measure only these `servers`, separated by commas, such as proa,proa-dragonboat,etcd (default: "+strings.Join(shortNames(), ",")+")")
	set.DurationVar(&o.Step, "duration", 2*time.Second, "duration of one measurement")
	set.Uint64Var(&o.keys, "keys", 100_000, "number of keys")
	set.Uint64Var(&o.respKeys, "benchmark-keys", 1_000_000, "number of keys for redis-benchmark")
	set.IntVar(&o.value, "value", 128, "`bytes` of a value")
	if err := set.Parse(args); err != nil {
		return o, err
	}
	if o.Quick {
		o.Rounds, o.Step, o.keys, o.respKeys = 1, 100*time.Millisecond, 2_000, 2_000
	}
	if o.keys < 1 || o.respKeys < 1 || o.respKeys > respKeysMax || o.value < 1 || o.value > bench.ValueBytesMax {
		return o, fmt.Errorf("keys must be positive, those for redis-benchmark at most %d, and the value 1 to %d bytes", respKeysMax, bench.ValueBytesMax)
	}
	return o, o.Check(set)
}

// command returns how to make the figures again.
func (o *options) command() string {
	s := fmt.Sprintf("peers -rounds %d -duration %v -keys %d -benchmark-keys %d -value %d", o.Rounds, o.Step, o.keys, o.respKeys, o.value)
	if o.only != "" {
		s += fmt.Sprintf(" -only '%s'", o.only)
	}
	if len(o.chosen) > 0 {
		s += " -servers " + o.chosen.String()
	}
	return s
}

// list is the value of -servers.
type list []string

func (l *list) String() string { return strings.Join(*l, ",") }

func (l *list) Set(names string) error {
	*l = strings.Split(names, ",")
	for _, name := range *l {
		if !slices.Contains(shortNames(), name) {
			return fmt.Errorf("there is no server %q; there are %s", name, strings.Join(shortNames(), ", "))
		}
	}
	return nil
}

func main() {
	rig.Main("peers", map[string]rig.Prepare{"": rig.Command(parseFlags, run)})
}

// run measures everything.
func run(ctx context.Context, o options, out, progress io.Writer) error {
	return o.Run(ctx, out, progress, func(ctx context.Context, lab *rig.Lab) (*rig.Outcome, error) {
		c, err := newComparison(o, lab)
		if err != nil {
			return nil, err
		}
		if err := c.run(ctx); err != nil {
			return nil, err
		}
		return c.outcome(), nil
	})
}
