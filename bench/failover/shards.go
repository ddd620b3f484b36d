//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/proa-kv/proa/bench"
	"github.com/proa-kv/proa/bench/report"
	"github.com/proa-kv/proa/bench/rig"
	"github.com/proa-kv/proa/client"
)

// The load of throughput.
const (
	rateCallers = 256
	rateClients = 16
)

// sample is one measurement of throughput. Times are in nanoseconds.
type sample struct {
	rate              float64 // acknowledged writes per second
	p50, p99          float64
	server, generator float64 // CPU time for a write
	failed            uint64
}

func sampleOf(r *bench.Result) sample {
	return sample{
		rate: r.Rate(), p50: float64(r.Quantile(0.5)), p99: float64(r.Quantile(0.99)),
		server: float64(r.PerOp(r.ServerCPU)), generator: float64(r.PerOp(r.GeneratorCPU)), failed: r.Failed,
	}
}

// series holds one sample for each round.
type series []sample

func rateOf(s sample) float64      { return s.rate }
func p50Of(s sample) float64       { return s.p50 }
func p99Of(s sample) float64       { return s.p99 }
func serverOf(s sample) float64    { return s.server }
func generatorOf(s sample) float64 { return s.generator }

func (s series) each(of func(sample) float64) []float64 {
	v := make([]float64, len(s))
	for i := range s {
		v[i] = of(s[i])
	}
	return v
}

func (s series) median(of func(sample) float64) float64 { return report.Median(s.each(of)) }

func (s series) failed() (n uint64) {
	for i := range s {
		n += s[i].failed
	}
	return n
}

// ratioOfMedians compares a with b: the ratio of their medians, and the smallest
// and largest ratio within a round.
func ratioOfMedians(a, b []float64) report.Ratio {
	r := report.RatioOf(a, b)
	r.Median = report.Quotient(report.Median(a), report.Median(b))
	return r
}

// measureShards measures throughput with few and with many shards, in turn.
func (m *measurement) measureShards(ctx context.Context) error {
	few, err := m.startCluster(ctx, shardsFew)
	if err != nil {
		return err
	}
	many, err := m.startCluster(ctx, shardsMany)
	if err != nil {
		return err
	}
	both := []*cluster{few, many}
	into := []*series{&m.few, &m.many}
	m.say("filling both with %d keys", m.keys)
	for _, c := range both {
		if err := m.withWriters(ctx, c, (*writers).fill); err != nil {
			return err
		}
	}
	for round := range m.rounds {
		m.say("%d of %d: throughput with %d and with %d shards", round+1, m.rounds, shardsFew, shardsMany)
		for i, c := range both {
			if err := rig.Rest(ctx, append(few.processes(), many.processes()...)...); err != nil {
				return err
			}
			err := m.withWriters(ctx, c, func(w *writers, ctx context.Context) error {
				r, err := w.measure(ctx, m.step, c)
				*into[i] = append(*into[i], sampleOf(r))
				return err
			})
			if err != nil {
				return fmt.Errorf("throughput with %d shards: %w", c.shards, err)
			}
		}
	}
	return errors.Join(few.stop(), many.stop())
}

// writers is a closed loop of rateCallers goroutines over rateClients clients.
type writers struct {
	clients   []*client.Client
	recorders [rateClients]recorder
	keys      uint64
	value     []byte
	measuring atomic.Bool
}

// recorder holds what the callers of one client see.
type recorder struct {
	mu     sync.Mutex
	result *bench.Result
}

// withWriters connects writers to a cluster for as long as f takes.
func (m *measurement) withWriters(ctx context.Context, c *cluster, f func(*writers, context.Context) error) (err error) {
	w := &writers{keys: m.keys, value: bench.NewValue(m.value, 1)}
	defer func() {
		for _, c := range w.clients {
			err = errors.Join(err, c.Close())
		}
	}()
	for i := range w.recorders {
		w.recorders[i].result = bench.NewResult()
		c, err := client.New(ctx, client.Config{Endpoints: c.endpoints()})
		if err != nil {
			return err
		}
		w.clients = append(w.clients, c)
	}
	return f(w, ctx)
}

// fill writes every key once.
func (w *writers) fill(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Uint64
	var callers sync.WaitGroup
	for i := range rateCallers {
		callers.Go(func() {
			for n := next.Add(1) - 1; n < w.keys; n = next.Add(1) - 1 {
				if _, err := w.clients[i%rateClients].Put(ctx, bench.AppendKey(nil, n), w.value); err != nil {
					cancel(fmt.Errorf("filling: %w", err))
					return
				}
			}
		})
	}
	callers.Wait()
	return context.Cause(ctx)
}

// measure writes to keys chosen uniformly, warms up for a fifth of the step and
// measures for as long as the step.
func (w *writers) measure(ctx context.Context, step time.Duration, c *cluster) (*bench.Result, error) {
	runtime.GC() // what was left behind before is not to be paid for here
	halted := make(chan struct{})
	var callers sync.WaitGroup
	for i := range rateCallers {
		callers.Go(func() { w.write(ctx, i, halted) })
	}
	r, err := w.between(ctx, step, c)
	w.measuring.Store(false)
	close(halted)
	callers.Wait()
	for i := range w.recorders {
		r.Merge(w.recorders[i].result)
	}
	if err == nil && r.Ops == 0 {
		err = fmt.Errorf("not one write was acknowledged: %s", r.FirstFailure)
	}
	return r, err
}

// between returns what belongs to all callers: wall and CPU time.
func (w *writers) between(ctx context.Context, step time.Duration, c *cluster) (*bench.Result, error) {
	r := bench.NewResult()
	if err := pause(ctx, step/5); err != nil {
		return r, err
	}
	server, err := rig.CPU(c.processes()...)
	if err != nil {
		return r, err
	}
	own, begin := ownCPU(), time.Now()
	w.measuring.Store(true)
	if err := pause(ctx, step); err != nil {
		return r, err
	}
	w.measuring.Store(false)
	r.Elapsed, r.GeneratorCPU = time.Since(begin), ownCPU()-own
	now, err := rig.CPU(c.processes()...)
	r.ServerCPU = now - server
	return r, err
}

// write is the life of one caller.
func (w *writers) write(ctx context.Context, caller int, halted <-chan struct{}) {
	keys := bench.NewChooser(w.keys, 1, uint64(caller))
	into := &w.recorders[caller%rateClients]
	key := make([]byte, 0, bench.KeyBytes)
	for {
		select {
		case <-halted:
			return
		default:
		}
		key = bench.AppendKey(key[:0], keys.Next())
		begin := time.Now()
		_, err := w.clients[caller%rateClients].Put(ctx, key, w.value)
		if w.measuring.Load() {
			into.add(time.Since(begin), err)
		}
		if err != nil && pause(ctx, failurePause) != nil {
			return
		}
	}
}

// add records one write. Only those that were acknowledged count in the rate.
func (r *recorder) add(latency time.Duration, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		r.result.Record(latency)
		return
	}
	r.result.Failed++
	if r.result.FirstFailure == "" {
		r.result.FirstFailure = classOf(err)
	}
}

// ownCPU returns the CPU time of all threads of this process.
func ownCPU() time.Duration {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t) != nil {
		return 0
	}
	return time.Duration(t.Nano())
}
