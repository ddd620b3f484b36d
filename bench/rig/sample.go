//go:build linux

package rig

import (
	"fmt"

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

	Failures  map[string]uint64 `json:"-"` // of Failed, by class
	Latencies bench.KindResult  `json:"-"` // empty in figures that were made up
}

// BusyClass is how a LoadResult names requests that were refused for the
// moment.
var BusyClass = protocol.StatusBusy.String()

// SampleOf returns the figures of a run.
func SampleOf(r *bench.LoadResult) Sample {
	s := SampleOfKind(&r.All)
	s.Rate, s.Server, s.Generator = r.Throughput(), float64(r.ServerPerOp()), float64(r.GeneratorPerOp())
	s.Busy, s.Failed = r.Errors[BusyClass], r.Failed()
	s.Ops += s.Busy
	s.Planned, s.Late, s.Unsent = r.Rate, float64(r.LateMax), r.Unsent
	return s
}

// SampleOfKind returns what latencies show by themselves.
func SampleOfKind(k *bench.KindResult) Sample {
	at := func(q float64) float64 { return float64(k.Quantile(q)) }
	return Sample{P50: at(0.5), P99: at(0.99), P999: at(0.999), Slowest: float64(k.Slowest), Ops: k.Ops, Latencies: *k}
}

// Figure is one of the numbers of a Sample, and how a table shows it.
type Figure struct {
	Of   func(Sample) float64
	Show func(float64) string
}

// The figures. Times are shown in microseconds.
var (
	Rate         = Figure{func(s Sample) float64 { return s.Rate }, report.Thousands}
	P50          = Figure{func(s Sample) float64 { return s.P50 }, report.Micros}
	P99          = Figure{func(s Sample) float64 { return s.P99 }, report.Micros}
	P999         = Figure{func(s Sample) float64 { return s.P999 }, report.Micros}
	Slowest      = Figure{func(s Sample) float64 { return s.Slowest }, report.Micros}
	ServerCPU    = Figure{func(s Sample) float64 { return s.Server }, report.Hundredths}
	GeneratorCPU = Figure{func(s Sample) float64 { return s.Generator }, report.Hundredths}
	Planned      = Figure{func(s Sample) float64 { return s.Planned }, report.Thousands}
	Late         = Figure{func(s Sample) float64 { return s.Late }, report.Micros}
	Ops          = Figure{func(s Sample) float64 { return float64(s.Ops) }, report.Thousands}
)

// Series holds one sample for each round.
type Series []Sample

// Each returns a figure of each round.
func (s Series) Each(f Figure) []float64 {
	v := make([]float64, len(s))
	for i := range s {
		v[i] = f.Of(s[i])
	}
	return v
}

// Median returns the median of a figure over the rounds.
func (s Series) Median(f Figure) float64 { return report.Median(s.Each(f)) }

// Cells returns a row of a table: for each Figure its median, for anything else
// how fmt.Sprint shows it.
func (s Series) Cells(parts ...any) (cells []string) {
	for _, p := range parts {
		if f, ok := p.(Figure); ok {
			p = f.Show(s.Median(f))
		}
		cells = append(cells, fmt.Sprint(p))
	}
	return cells
}

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
	latencies := make([]*bench.KindResult, len(s))
	for i := range s {
		latencies[i] = &s[i].Latencies
	}
	return report.LatencyLine(name, latencies...)
}
