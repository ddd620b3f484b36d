//go:build linux

// Command peers compares Proa with other databases in one run on one machine:
// one node with etcd and Redis, three nodes with etcd; and, called through
// Redis's protocol by redis-benchmark, with Redis. It builds or finds the servers, starts them on loopback in a temporary directory, and ends what it
// started.
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
	proa, etcd, redis string // programs; see the flags
	redisBenchmark    string // program
	dir               string // for data; "" for the system's temporary directory
	write, json, html string // files to write; "" for none
	only              string // regular expression

	rounds   int
	duration time.Duration // of one measurement
	keys     uint64
	doorKeys uint64 // for redis-benchmark
	value    int    // bytes
	limit    time.Duration
	quick    bool
}

func parseFlags(args []string, output io.Writer) (options, error) {
	var o options
	set := flag.NewFlagSet("peers", flag.ContinueOnError)
	set.SetOutput(output)
	set.StringVar(&o.proa, "proa", "", "the proa `program` (default: build it)")
	set.StringVar(&o.etcd, "etcd", "", "the etcd `program` (default: build the version in etcd/go.mod)")
	set.StringVar(&o.redis, "redis", "redis-server", "the redis-server `program`, looked for in PATH; empty leaves Redis out")
	set.StringVar(&o.redisBenchmark, "redis-benchmark", "redis-benchmark", "the redis-benchmark `program`, looked for in PATH; empty leaves its rows out")
	set.StringVar(&o.dir, "dir", "", "`directory` on the disk to measure (default: a temporary one)")
	set.StringVar(&o.write, "write", "", "regenerate the section of this Markdown `page`")
	set.StringVar(&o.json, "json", "", "write all figures as JSON to this `file`")
	set.StringVar(&o.html, "html", "", "write tables and latency curves to this HTML `file`, which needs nothing else")
	set.StringVar(&o.only, "only", "", "measure only what matches this regular `expression`, such as 'PUT, 3 nodes' or '512.*(Proa|etcd)$'")
	set.IntVar(&o.rounds, "rounds", 5, "rounds of measurements")
	set.DurationVar(&o.duration, "duration", 2*time.Second, "duration of one measurement")
	set.Uint64Var(&o.keys, "keys", 100_000, "number of keys")
	set.Uint64Var(&o.doorKeys, "benchmark-keys", 1_000_000, "number of keys for redis-benchmark")
	set.IntVar(&o.value, "value", 128, "`bytes` of a value")
	set.DurationVar(&o.limit, "limit", 30*time.Minute, "give up after this long")
	set.BoolVar(&o.quick, "quick", false, "a smoke run of seconds, whose figures mean nothing")
	if err := set.Parse(args); err != nil {
		return o, err
	}
	if o.quick {
		o.rounds, o.duration, o.keys, o.doorKeys = 1, 100*time.Millisecond, 2_000, 2_000
	}
	if o.rounds < 1 || o.duration < time.Millisecond || o.keys < 1 || o.doorKeys < 1 || o.doorKeys > doorKeysMax || o.value < 1 || o.value > bench.ValueBytesMax || o.limit <= 0 || set.NArg() > 0 {
		return o, fmt.Errorf("rounds, keys and limit must be positive, the keys for redis-benchmark at most %d, the duration at least 1ms, the value 1 to %d bytes, and there are no arguments", doorKeysMax, bench.ValueBytesMax)
	}
	return o, nil
}

// command returns how to make the figures again.
func (o *options) command() string {
	s := fmt.Sprintf("peers -rounds %d -duration %v -keys %d -benchmark-keys %d -value %d", o.rounds, o.duration, o.keys, o.doorKeys, o.value)
	if o.only != "" {
		s += fmt.Sprintf(" -only '%s'", o.only)
	}
	return s
}

func main() {
	rig.Main("peers", func() (func(context.Context) error, error) {
		o, err := parseFlags(os.Args[1:], os.Stderr)
		return func(ctx context.Context) error { return run(ctx, o, os.Stdout, os.Stderr) }, err
	})
}

// run measures everything, prints the tables to out and how far it is to
// progress.
func run(ctx context.Context, o options, out, progress io.Writer) error {
	return rig.Within(ctx, o.limit, func(ctx context.Context) (err error) {
		c, err := newComparison(o, progress)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, c.close()) }()
		if err := c.run(ctx); err != nil {
			return err
		}
		if err := newOutcome(c).publish(o, out, progress); err != nil {
			return err
		}
		if len(c.failed) > 0 {
			return fmt.Errorf("some figures are missing: %w", errors.Join(c.failed...))
		}
		return nil
	})
}

// publish prints the tables and writes the files that were asked for.
func (r *outcome) publish(o options, out, progress io.Writer) error {
	if err := r.print(out); err != nil {
		return err
	}
	if o.json != "" {
		if err := r.writeJSON(o.json); err != nil {
			return err
		}
		fmt.Fprintf(progress, "wrote %s\n", o.json)
	}
	if o.html != "" {
		if err := r.page().WriteHTML(o.html); err != nil {
			return err
		}
		fmt.Fprintf(progress, "wrote %s\n", o.html)
	}
	if o.write != "" {
		if err := section.Write(o.write, r.markdown()); err != nil {
			return err
		}
		fmt.Fprintf(progress, "wrote %s\n", o.write)
	}
	return nil
}
