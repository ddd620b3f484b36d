//go:build linux

package main

import (
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/proa-kv/proa/bench"
	"github.com/proa-kv/proa/bench/report"
)

// sample is one measurement of one round.
type sample struct {
	rate              float64       // per second; 0 for the disk
	p50, p99, p999    time.Duration // latencies
	server, generator time.Duration // CPU time per operation
	busy              uint64        // refused for the moment, of ops
	ops               uint64
}

func sampleOf(r *bench.Result) sample {
	return sample{
		rate: r.Rate(), p50: r.Quantile(0.5), p99: r.Quantile(0.99), p999: r.Quantile(0.999),
		server: r.PerOp(r.ServerCPU), generator: r.PerOp(r.GeneratorCPU), busy: r.Busy, ops: r.Ops,
	}
}

func latencies(h *hdrhistogram.Histogram) sample {
	at := func(q float64) time.Duration { return time.Duration(h.ValueAtQuantile(q)) }
	return sample{p50: at(50), p99: at(99), p999: at(99.9), ops: uint64(h.TotalCount())}
}

// series holds one sample for each round.
type series []sample

func rateOf(s sample) float64 { return s.rate }
func p50Of(s sample) float64  { return float64(s.p50) }
func p99Of(s sample) float64  { return float64(s.p99) }
func p999Of(s sample) float64 { return float64(s.p999) }
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
