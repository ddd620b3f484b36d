package report

import (
	"bytes"
	"compress/zlib"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/proa-kv/proa/bench"
)

// ErrMerge is the error of reports that cannot be merged.
var ErrMerge = errors.New("reports of different loads")

// loadBytesMax bounds a report that is read.
const loadBytesMax = 256 << 20

// ReadLoad reads a report as JSON.
func ReadLoad(in io.Reader) (*Load, error) {
	b, err := io.ReadAll(io.LimitReader(in, loadBytesMax+1))
	if err != nil {
		return nil, err
	}
	if len(b) > loadBytesMax {
		return nil, fmt.Errorf("a report of more than %d MiB", loadBytesMax>>20)
	}
	l := new(Load)
	if err := json.Unmarshal(b, l); err != nil {
		return nil, fmt.Errorf("not a report in JSON: %w", err)
	}
	if err := checkNumbers(b); err != nil {
		return nil, err
	}
	if l.Workload == "" || len(l.Runs) == 0 {
		return nil, errors.New("not the report of a load, or it holds no run")
	}
	return l, nil
}

// numberMax is more than any figure of a load, and less than what would make a
// sum of them infinite.
const numberMax = 1e18

// checkNumbers looks for numbers that are no figures.
func checkNumbers(b []byte) error {
	for d := json.NewDecoder(bytes.NewReader(b)); ; {
		t, err := d.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if v, ok := t.(float64); ok && !(v >= 0 && v <= numberMax) {
			return fmt.Errorf("%g is no figure of a load", v)
		}
	}
}

// Merge adds a report of a load that another process made at the same time, on
// the same servers and at the same planned rates. Counts, rates and connections
// are summed, histograms are merged without loss. Of what cannot be summed (the
// steps of time, how late, the slowest fsync) the worse counts.
// The servers' CPU time and fsyncs were seen by every process: they count once.
// It returns ErrMerge where the loads differ, and then l is as it was.
func (l *Load) Merge(o *Load) error {
	for _, c := range []struct {
		what string
		a, b any
	}{
		{"workload", l.Workload, o.Workload}, {"keys", l.Keys, o.Keys}, {"key sizes", l.KeyBytes, o.KeyBytes}, {"value sizes", l.ValueBytes, o.ValueBytes},
		{"distribution", l.Choice, o.Choice}, {"consistency", l.Consistency, o.Consistency}, {"arrivals", l.Arrivals, o.Arrivals},
		{"TLS", l.TLS, o.TLS}, {"requests in flight", l.InFlight, o.InFlight}, {"shards", l.Shards, o.Shards}, {"number of runs", len(l.Runs), len(o.Runs)},
	} {
		if c.a != c.b {
			return fmt.Errorf("%w: %s %v and %v", ErrMerge, c.what, c.a, c.b)
		}
	}
	runs := make([]Run, len(l.Runs))
	for i := range runs {
		var err error
		if runs[i], err = mergeRuns(&l.Runs[i], &o.Runs[i]); err != nil {
			return err
		}
	}
	l.Runs = runs
	l.Connections += o.Connections
	l.Threads += o.Threads
	l.LoadSeconds, l.WarmupSeconds = max(l.LoadSeconds, o.LoadSeconds), max(l.WarmupSeconds, o.WarmupSeconds)
	if o.Started.Before(l.Started) {
		l.Started = o.Started
	}
	switch {
	case l.Verification == nil:
		l.Verification = o.Verification
	case o.Verification != nil:
		a, b := l.Verification, o.Verification
		l.Verification = &bench.Verification{Rows: a.Rows + b.Rows, Missing: a.Missing + b.Missing, Wrong: a.Wrong + b.Wrong, Problems: slices.Concat(a.Problems, b.Problems)}
	}
	return nil
}

func mergeRuns(a, b *Run) (Run, error) {
	if (a.Rate == 0) != (b.Rate == 0) {
		return Run{}, fmt.Errorf("%w: an open loop and a closed one", ErrMerge)
	}
	out := *a
	var all bench.KindResult
	out.Kinds = nil
	for _, name := range kindNames(a, b) {
		var sum bench.KindResult
		for _, k := range slices.Concat(a.Kinds, b.Kinds) {
			if k.Name != name {
				continue
			}
			r, err := k.result()
			if err != nil {
				return Run{}, fmt.Errorf("%s: %w", name, err)
			}
			sum.Merge(r)
		}
		kind, err := newKind(name, &sum)
		if err != nil {
			return Run{}, err
		}
		out.Kinds = append(out.Kinds, kind)
		all.Merge(&sum)
	}
	out.Latency, out.Percentiles = latencyOf(&all), percentiles(&all)
	out.Rate += b.Rate
	out.Throughput += b.Throughput
	out.Ops += b.Ops
	out.Failed += b.Failed
	out.Add(&b.Counts)
	out.Seconds = max(a.Seconds, b.Seconds)
	out.Interrupted = a.Interrupted || b.Interrupted
	out.Errors = maps.Clone(a.Errors)
	for class, n := range b.Errors {
		if out.Errors == nil {
			out.Errors = map[string]uint64{}
		}
		out.Errors[class] += n
	}
	out.AgeMax = max(a.AgeMax, b.AgeMax)
	out.LateMax, out.LateEnd = max(a.LateMax, b.LateMax), max(a.LateEnd, b.LateEnd)
	out.Opened += b.Opened
	out.Busiest = max(a.Busiest, b.Busiest)
	out.GeneratorBound = a.GeneratorBound || b.GeneratorBound
	out.Fsyncs, out.FsyncMean = max(a.Fsyncs, b.Fsyncs), max(a.FsyncMean, b.FsyncMean)
	done := func(r *Run) float64 { return float64(r.Ops + r.Failed) }
	if total := done(a) + done(b); total > 0 {
		out.GeneratorPerOp = (a.GeneratorPerOp*done(a) + b.GeneratorPerOp*done(b)) / total
		out.ServerPerOp = 0
		if a.ServerPerOp > 0 && b.ServerPerOp > 0 {
			out.ServerPerOp = max(a.ServerPerOp*done(a), b.ServerPerOp*done(b)) / total
		}
	}
	out.Series = mergeSeries(a.Series, b.Series)
	return out, nil
}

// kindNames returns the kinds of operations of two runs, those of the first
// first.
func kindNames(runs ...*Run) (names []string) {
	for _, r := range runs {
		for i := range r.Kinds {
			if !slices.Contains(names, r.Kinds[i].Name) {
				names = append(names, r.Kinds[i].Name)
			}
		}
	}
	return names
}

func mergeSeries(a, b []Step) []Step {
	if len(a) < len(b) {
		a, b = b, a
	}
	out := slices.Clone(a)
	for i := range b {
		s, o := &out[i], &b[i]
		s.Rate += o.Rate
		s.Errors += o.Errors
		s.P50, s.P99, s.P999, s.Max = max(s.P50, o.P50), max(s.P99, o.P99), max(s.P999, o.P999), max(s.Max, o.Max)
	}
	return out
}

// newKind puts a result into the form of a report.
func newKind(name string, k *bench.KindResult) (Kind, error) {
	out := Kind{Name: name, Ops: k.Ops, NotFound: k.NotFound, Rows: k.Rows, Latency: latencyOf(k), Percentiles: percentiles(k)}
	if k.Latency == nil {
		return out, nil
	}
	b, err := k.Latency.Encode(hdrhistogram.V2CompressedEncodingCookieBase)
	if err != nil {
		return out, fmt.Errorf("encoding the latencies of %s: %w", name, err)
	}
	out.Histogram = string(b)
	return out, nil
}

// result is the opposite of newKind.
func (k *Kind) result() (r *bench.KindResult, err error) {
	r = &bench.KindResult{Ops: k.Ops, NotFound: k.NotFound, Rows: k.Rows, Slowest: time.Duration(math.Round(k.Latency.Max * float64(time.Microsecond)))}
	if k.Histogram == "" {
		if k.Ops > 0 {
			return nil, errors.New("the report holds no histogram; make it again with this version")
		}
		return r, nil
	}
	if err := checkHistogram(k.Histogram); err != nil {
		return nil, fmt.Errorf("the histogram is damaged: %w", err)
	}
	defer func() { // the decoder trusts what it reads
		if p := recover(); p != nil {
			err = fmt.Errorf("the histogram is damaged: %v", p)
		}
	}()
	if r.Latency, err = hdrhistogram.Decode([]byte(k.Histogram)); err != nil {
		return nil, fmt.Errorf("the histogram is damaged: %w", err)
	}
	if n := r.Latency.TotalCount(); n < 0 || uint64(n) != k.Ops {
		return nil, fmt.Errorf("the histogram is damaged: it counts %d operations of %d", n, k.Ops)
	}
	return r, nil
}

// histogramBytesMax bounds a histogram that is not compressed: its counts take
// nine bytes each at most.
const histogramBytesMax = 1 << 20

// checkHistogram looks whether text is an encoded histogram of the range that
// bench uses, for which alone the decoder can be trusted with memory and time.
func checkHistogram(text string) error {
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return err
	}
	const outerBytes, headerBytes = 8, 40
	if len(b) < outerBytes {
		return io.ErrUnexpectedEOF
	}
	z, err := zlib.NewReader(bytes.NewReader(b[outerBytes:]))
	if err != nil {
		return err
	}
	plain, err := io.ReadAll(io.LimitReader(z, histogramBytesMax+1))
	if err != nil {
		return err
	}
	if len(plain) < headerBytes || len(plain) > histogramBytesMax {
		return fmt.Errorf("%d bytes", len(plain))
	}
	be := binary.BigEndian
	digits, low, high := be.Uint32(plain[12:]), be.Uint64(plain[16:]), be.Uint64(plain[24:])
	if want := bench.NewLatencies(); int64(digits) != want.SignificantFigures() || int64(low) != want.LowestTrackableValue() || int64(high) != want.HighestTrackableValue() {
		return fmt.Errorf("its range is %d to %d with %d digits", low, high, digits)
	}
	if n := be.Uint32(plain[4:]); int64(n) != int64(len(plain)-headerBytes) {
		return fmt.Errorf("%d bytes of counts, its header says %d", len(plain)-headerBytes, n)
	}
	return nil
}
