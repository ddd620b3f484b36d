package bench

import (
	"cmp"
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/proa-kv/proa/protocol"
)

// Classes of errors beside the statuses of the protocol, which are below 256.
const (
	classLost   = 256 + iota // the connection broke before the reply came
	classWrong               // a value that was never written to that row
	classFailed              // an error that is none of the protocol's statuses
	classEnd
)

// className returns how a report names a class.
func className(class int) string {
	switch class {
	case classLost:
		return "CONNECTION_LOST"
	case classWrong:
		return "WRONG_VALUE"
	case classFailed:
		return "FAILED"
	}
	if s := protocol.Status(class); s.Known() {
		return s.String()
	}
	return fmt.Sprintf("STATUS_%d", class)
}

// KindResult is what was measured of the operations of one kind.
type KindResult struct {
	// Ops is how many were done, and NotFound how many of those found no row.
	// Rows is the number of rows that scans returned and batches wrote.
	Ops, NotFound, Rows uint64

	// Latency holds the latencies of all Ops in nanoseconds, to three
	// significant digits, those beyond one minute as one minute; nil where
	// there were none. Slowest is the exact longest.
	Latency *hdrhistogram.Histogram
	Slowest time.Duration
}

// Record counts an operation that took the given time.
func (k *KindResult) Record(latency time.Duration) {
	k.Ops++
	k.Slowest = max(k.Slowest, latency)
	if k.Latency == nil {
		k.Latency = NewLatencies()
	}
	_ = k.Latency.RecordValue(int64(min(max(latency, 1), latencyMax))) // within its range
}

// Merge adds what o counts to k, without loss.
func (k *KindResult) Merge(o *KindResult) {
	k.Ops += o.Ops
	k.NotFound += o.NotFound
	k.Rows += o.Rows
	k.Slowest = max(k.Slowest, o.Slowest)
	if o.Latency != nil {
		if k.Latency == nil {
			k.Latency = NewLatencies()
		}
		k.Latency.Merge(o.Latency) // of the same range
	}
}

// Quantile returns the latency that the share q of the operations, 0..1, did
// not exceed. It is 0 where there were none.
func (k *KindResult) Quantile(q float64) time.Duration {
	if k.Ops == 0 {
		return 0
	}
	return min(time.Duration(k.Latency.ValueAtQuantile(q*100)), k.Slowest)
}

// Mean returns the mean latency, 0 where there were no operations.
func (k *KindResult) Mean() time.Duration {
	if k.Ops == 0 {
		return 0
	}
	return time.Duration(k.Latency.Mean())
}

// NewLatencies returns an empty histogram as KindResult has it.
func NewLatencies() *hdrhistogram.Histogram { return hdrhistogram.New(1, int64(latencyMax), 3) }

// Counts is what was counted in the measured part beside the operations done.
type Counts struct {
	// FirstError is the first of the operations that were not done or whose outcome
	// is unknown, with its message. Unknown is how many of these may have had an
	// effect.
	FirstError string `json:"first_error,omitempty"`
	Unknown    uint64 `json:"unknown_outcome"`

	// BytesOut and BytesIn count whole frames.
	BytesOut uint64 `json:"bytes_out"`
	BytesIn  uint64 `json:"bytes_in"`

	// Repeated is how many requests were sent again because the node asked did
	// not lead the shard any more, or was busy, Forwarded how many another node
	// than the one asked answered, and Weak how many reads a replica answered from
	// what it had.
	Repeated  uint64 `json:"repeated"`
	Forwarded uint64 `json:"forwarded"`
	Weak      uint64 `json:"weak_reads"`

	// Unsent is how many requests of an open loop were due and were not sent.
	Unsent uint64 `json:"unsent"`
}

// Add adds what o counts to c.
func (c *Counts) Add(o *Counts) {
	c.FirstError = cmp.Or(c.FirstError, o.FirstError)
	c.Unknown += o.Unknown
	c.BytesOut += o.BytesOut
	c.BytesIn += o.BytesIn
	c.Repeated += o.Repeated
	c.Forwarded += o.Forwarded
	c.Weak += o.Weak
	c.Unsent += o.Unsent
}

// tally is what one thread has counted of the measured part.
type tally struct {
	Counts
	kinds   [kindEnd]KindResult
	classes [classEnd]uint64
	ageMax  uint32        // of weak reads, in milliseconds
	lateMax time.Duration // of requests, behind their plan
	lateEnd time.Duration // of the request that was due next in the end
	cpu     time.Duration // of the thread
	server  time.Duration // of the server, if the worker measures it
	ended   time.Duration // when the last reply came
}

// newTally returns the tally of a workload, or of loading its rows.
func newTally(w *Workload, loading bool) *tally {
	t := &tally{}
	for k := range kindEnd {
		if w.has(k) || loading && k == KindInsert {
			t.kinds[k].Latency = NewLatencies()
		}
	}
	return t
}

// fail counts an error. Its message is kept if it is the first.
func (t *tally) fail(class int, message []byte) {
	t.classes[class]++
	if t.FirstError == "" {
		t.FirstError = className(class) + ": " + string(message)
	}
}

func (t *tally) merge(o *tally) {
	t.Add(&o.Counts)
	for k := range t.kinds {
		t.kinds[k].Merge(&o.kinds[k])
	}
	for c := range t.classes {
		t.classes[c] += o.classes[c]
	}
	t.ageMax = max(t.ageMax, o.ageMax)
	t.lateMax = max(t.lateMax, o.lateMax)
	t.lateEnd = max(t.lateEnd, o.lateEnd)
	t.cpu += o.cpu
	t.server += o.server
	t.ended = max(t.ended, o.ended)
}

// Point is what happened in one step of a run.
type Point struct {
	// At is the end of the step, since the begin of the run, the warm-up
	// included.
	At time.Duration
	// Step is how long the step is.
	Step time.Duration
	// Ops and Errors count the replies of the step; latencies are of the
	// former, to two significant digits.
	Ops, Errors         uint64
	P50, P99, P999, Max time.Duration
}

// Rate returns the operations per second.
func (p *Point) Rate() float64 {
	if p.Step <= 0 {
		return 0
	}
	return float64(p.Ops) / p.Step.Seconds()
}

// recorder is what one thread has recorded of one step.
type recorder struct {
	KindResult
	thread int
	step   int64
	errors uint64
}

// The latencies of a step are recorded coarsely: from a microsecond on, to two
// digits. That takes some 30 KiB, which stay in the processor's cache.
const recorderUnit = 1000

func newRecorder(thread int) *recorder {
	return &recorder{thread: thread, KindResult: KindResult{Latency: hdrhistogram.New(recorderUnit, int64(latencyMax), 2)}}
}

func (r *recorder) reset() {
	r.Latency.Reset()
	r.KindResult, r.errors = KindResult{Latency: r.Latency}, 0
}

func (r *recorder) add(o *recorder) {
	r.Merge(&o.KindResult)
	r.errors += o.errors
}

// point returns what was recorded in a step that ended at the time given.
func (r *recorder) point(at, step time.Duration) Point {
	return Point{At: at, Step: step, Ops: r.Ops, Errors: r.errors, P50: r.Quantile(0.5), P99: r.Quantile(0.99), P999: r.Quantile(0.999), Max: r.Slowest}
}

const (
	// seriesStep is the length of a step, and seriesMax how many are kept:
	// beyond, two become one.
	seriesStep = 250 * time.Millisecond
	seriesMax  = 2400

	// liveSteps is how many steps one line for people sums up.
	liveSteps = int64(time.Second / seriesStep)
)

// series gathers the recorders of all threads and makes points of them. It
// belongs to one goroutine.
type series struct {
	points   []Point
	reached  []int64 // by thread: the step it has recorded last
	open     map[int64]*recorder
	emitted  int64 // steps that have become points
	live     *recorder
	progress func(Point)
	recycle  func(*recorder) // takes recorders back
}

func newSeries(threads int, show func(Point), give func(*recorder)) *series {
	s := &series{reached: make([]int64, threads), open: map[int64]*recorder{}, live: newRecorder(0), progress: show, recycle: give}
	for i := range s.reached {
		s.reached[i] = -1
	}
	return s
}

// take takes over what a thread has recorded of a step. Steps that it left out
// were empty.
func (s *series) take(r *recorder) {
	s.reached[r.thread] = r.step
	if o := s.open[r.step]; o != nil {
		o.add(r)
		s.recycle(r)
	} else {
		s.open[r.step] = r
	}
	done := s.reached[0]
	for _, n := range s.reached {
		done = min(done, n)
	}
	s.emit(done)
}

// emit makes points of the steps up to and including done.
func (s *series) emit(done int64) {
	for ; s.emitted <= done; s.emitted++ {
		p := Point{At: time.Duration(s.emitted+1) * seriesStep, Step: seriesStep}
		if r := s.open[s.emitted]; r != nil {
			p = r.point(p.At, seriesStep)
			s.live.add(r)
			delete(s.open, s.emitted)
			s.recycle(r)
		}
		s.points = append(s.points, p)
		if len(s.points) == seriesMax {
			s.points = halved(s.points)
		}
		if (s.emitted+1)%liveSteps == 0 {
			if s.progress != nil {
				s.progress(s.live.point(p.At, time.Duration(liveSteps)*seriesStep))
			}
			s.live.reset()
		}
	}
}

// finish makes points of all there is. The run has ended at the time given, and
// with it the last step; what is left of that is not shown by itself if it is
// too short for a rate.
func (s *series) finish(end time.Duration) {
	last := int64(-1)
	for step := range s.open {
		last = max(last, step)
	}
	s.emit(last)
	n := len(s.points)
	if n == 0 {
		return
	}
	p := &s.points[n-1]
	begin := p.At - p.Step
	p.At = min(max(end, begin+1), p.At)
	p.Step = p.At - begin
	if n > 1 && p.Step < seriesStep/2 {
		s.points = append(s.points[:n-2], combined(s.points[n-2], *p))
	}
}

// combined makes one point of two that follow each other. Of quantiles it takes
// the higher one, which is the most that can be said.
func combined(a, b Point) Point {
	return Point{
		At: b.At, Step: a.Step + b.Step, Ops: a.Ops + b.Ops, Errors: a.Errors + b.Errors,
		P50: max(a.P50, b.P50), P99: max(a.P99, b.P99), P999: max(a.P999, b.P999), Max: max(a.Max, b.Max),
	}
}

// halved makes one point of each two.
func halved(points []Point) []Point {
	out := points[:0]
	for i := 0; i+1 < len(points); i += 2 {
		out = append(out, combined(points[i], points[i+1]))
	}
	if len(points)%2 == 1 {
		out = append(out, points[len(points)-1])
	}
	return out
}
