//go:build linux

package main

import (
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/proa-kv/proa/bench"
	"github.com/proa-kv/proa/bench/report"
	"github.com/proa-kv/proa/protocol"
)

// sample is one measurement of one round.
type sample struct {
	rate              float64       // per second; 0 for the disk
	p50, p99, p999    time.Duration // latencies
	slowest           time.Duration
	server, generator time.Duration // CPU time per operation
	busy              uint64        // refused for the moment, of ops
	ops               uint64

	// Of an open loop: how many operations per second were planned, by how
	// much the generator was behind the plan at most, and how many operations
	// were due and not sent.
	planned float64
	late    time.Duration
	unsent  uint64

	latency *hdrhistogram.Histogram // in nanoseconds; nil in figures that were made up
}

func sampleOf(r *bench.Result) sample {
	return sample{
		rate: r.Rate(), p50: r.Quantile(0.5), p99: r.Quantile(0.99), p999: r.Quantile(0.999), slowest: r.Slowest,
		server: r.PerOp(r.ServerCPU), generator: r.PerOp(r.GeneratorCPU), busy: r.Busy, ops: r.Ops, latency: r.Latency,
	}
}

// busyClass is how a LoadResult names requests that were refused for the
// moment.
var busyClass = protocol.StatusBusy.String()

func sampleOfLoad(r *bench.LoadResult) sample {
	return sample{
		rate: r.Throughput(), p50: r.All.Quantile(0.5), p99: r.All.Quantile(0.99), p999: r.All.Quantile(0.999), slowest: r.All.Slowest,
		server: r.ServerPerOp(), generator: r.GeneratorPerOp(), busy: r.Errors[busyClass], ops: r.All.Ops + r.Errors[busyClass],
		planned: r.Rate, late: r.LateMax, unsent: r.Unsent, latency: r.All.Latency,
	}
}

func latencies(h *hdrhistogram.Histogram) sample {
	at := func(q float64) time.Duration { return time.Duration(h.ValueAtQuantile(q)) }
	return sample{p50: at(50), p99: at(99), p999: at(99.9), slowest: time.Duration(h.Max()), ops: uint64(h.TotalCount()), latency: h}
}

// series holds one sample for each round.
type series []sample

func rateOf(s sample) float64 { return s.rate }
func p50Of(s sample) float64  { return float64(s.p50) }
func p99Of(s sample) float64  { return float64(s.p99) }
func p999Of(s sample) float64 { return float64(s.p999) }
func maxOf(s sample) float64  { return float64(s.slowest) }
func lateOf(s sample) float64 { return float64(s.late) }
func plannedOf(s sample) float64 {
	return s.planned
}
func serverOf(s sample) float64 {
	return float64(s.server)
}
func generatorOf(s sample) float64 { return float64(s.generator) }

// median returns the median over the rounds of one of the figures.
func (s series) median(of func(sample) float64) float64 {
	return report.Median(s.each(of))
}

func (s series) each(of func(sample) float64) []float64 {
	v := make([]float64, len(s))
	for i := range s {
		v[i] = of(s[i])
	}
	return v
}

// busy returns the share of requests that were refused.
func (s series) busy() float64 {
	var busy, ops uint64
	for i := range s {
		busy += s[i].busy
		ops += s[i].ops
	}
	return report.Quotient(float64(busy), float64(ops))
}
