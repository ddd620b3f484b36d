//go:build linux

package rig

import (
	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/proa-kv/proa/bench"
	"github.com/proa-kv/proa/bench/report"
	"github.com/proa-kv/proa/protocol"
)

// Sample is one measurement of one round. Times are in nanoseconds. What was not
// measured is 0.
type Sample struct {
	Rate      float64 `json:"rate"` // per second
	P50       float64 `json:"p50"`
	P99       float64 `json:"p99"`
	P999      float64 `json:"p99.9,omitempty"`
	Slowest   float64 `json:"-"`
	Server    float64 `json:"server_cpu"` // for an operation
	Generator float64 `json:"generator_cpu"`
	Ops       uint64  `json:"-"`
	Busy      uint64  `json:"-"` // refused for the moment, of Ops
	Failed    uint64  `json:"failed"`

	// Of an open loop: how many operations per second were planned, by how
	// much the generator was behind the plan at most, and how many operations
	// were due and not sent.
	Planned float64 `json:"-"`
	Late    float64 `json:"-"`
	Unsent  uint64  `json:"-"`

	Failures map[string]uint64       `json:"-"` // of Failed, by class
	Latency  *hdrhistogram.Histogram `json:"-"` // nil in figures that were made up
}

// SampleOf returns the figures of a run.
func SampleOf(r *bench.Result) Sample {
	return Sample{
		Rate: r.Rate(), P50: float64(r.Quantile(0.5)), P99: float64(r.Quantile(0.99)), P999: float64(r.Quantile(0.999)), Slowest: float64(r.Slowest),
		Server: float64(r.PerOp(r.ServerCPU)), Generator: float64(r.PerOp(r.GeneratorCPU)),
		Ops: r.Ops, Busy: r.Busy, Failed: r.Failed, Latency: r.Latency,
	}
}

// BusyClass is how a LoadResult names requests that were refused for the
// moment.
var BusyClass = protocol.StatusBusy.String()

// SampleOfLoad returns the figures of a run of a Harness.
func SampleOfLoad(r *bench.LoadResult) Sample {
	return Sample{
		Rate: r.Throughput(), P50: float64(r.All.Quantile(0.5)), P99: float64(r.All.Quantile(0.99)), P999: float64(r.All.Quantile(0.999)), Slowest: float64(r.All.Slowest),
		Server: float64(r.ServerPerOp()), Generator: float64(r.GeneratorPerOp()),
		Ops: r.All.Ops + r.Errors[BusyClass], Busy: r.Errors[BusyClass], Failed: r.Failed(),
		Planned: r.Rate, Late: float64(r.LateMax), Unsent: r.Unsent, Latency: r.All.Latency,
	}
}

// SampleOfLatencies returns what latencies show by themselves.
func SampleOfLatencies(h *hdrhistogram.Histogram) Sample {
	at := func(q float64) float64 { return float64(h.ValueAtQuantile(q)) }
	return Sample{P50: at(50), P99: at(99), P999: at(99.9), Slowest: float64(h.Max()), Ops: uint64(h.TotalCount()), Latency: h}
}

// Figure is one of the numbers of a Sample.
type Figure func(Sample) float64

// RateOf returns operations per second.
func RateOf(s Sample) float64 { return s.Rate }

// P50Of returns the median latency.
func P50Of(s Sample) float64 { return s.P50 }

// P99Of returns the 99th percentile of the latency.
func P99Of(s Sample) float64 { return s.P99 }

// P999Of returns the 99.9th percentile of the latency.
func P999Of(s Sample) float64 { return s.P999 }

// SlowestOf returns the longest latency.
func SlowestOf(s Sample) float64 { return s.Slowest }

// ServerOf returns the CPU time of the servers for an operation.
func ServerOf(s Sample) float64 { return s.Server }

// GeneratorOf returns the CPU time of the generator for an operation.
func GeneratorOf(s Sample) float64 { return s.Generator }

// PlannedOf returns the planned rate of an open loop.
func PlannedOf(s Sample) float64 { return s.Planned }

// LateOf returns how far an open loop was behind its plan.
func LateOf(s Sample) float64 { return s.Late }

// OpsOf returns how many operations were made.
func OpsOf(s Sample) float64 { return float64(s.Ops) }

// Series holds one sample for each round.
type Series []Sample

// Each returns a figure of each round.
func (s Series) Each(of Figure) []float64 {
	v := make([]float64, len(s))
	for i := range s {
		v[i] = of(s[i])
	}
	return v
}

// Median returns the median of a figure over the rounds.
func (s Series) Median(of Figure) float64 { return report.Median(s.Each(of)) }

// Busy returns the share of requests that were refused for the moment.
func (s Series) Busy() float64 {
	var busy, ops uint64
	for i := range s {
		busy += s[i].Busy
		ops += s[i].Ops
	}
	return report.Quotient(float64(busy), float64(ops))
}

// Failed returns how many operations of all rounds failed.
func (s Series) Failed() (n uint64) {
	for i := range s {
		n += s[i].Failed
	}
	return n
}

// Line is the distribution of all rounds together.
func (s Series) Line(name string) report.Line {
	latencies := make([]*hdrhistogram.Histogram, len(s))
	for i := range s {
		latencies[i] = s[i].Latency
	}
	return report.LatencyLine(name, latencies...)
}
