package bench

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/proa-kv/proa/protocol"
)

// Merging the threads' histograms loses nothing: the sum equals what one thread
// would have recorded.
func TestTalliesMerge(t *testing.T) {
	w, _ := FindWorkload("mixed")
	whole, sum := newTally(&w, false), &tally{}
	random := rand.New(rand.NewPCG(1, 2))
	for range 4 {
		part := newTally(&w, false)
		for range 5000 {
			d := time.Duration(random.ExpFloat64() * float64(time.Millisecond))
			kind := []Kind{KindRead, KindUpdate}[random.IntN(2)]
			part.kinds[kind].Record(d)
			whole.kinds[kind].Record(d)
		}
		for _, x := range []*tally{part, whole} {
			x.fail(int(protocol.StatusBusy), []byte("later"))
			x.Unknown++
			x.BytesIn += 10
			x.kinds[KindRead].NotFound++
			x.kinds[KindRead].Rows += 3
		}
		sum.merge(part)
	}
	for _, k := range []Kind{KindRead, KindUpdate} {
		a, b := &sum.kinds[k], &whole.kinds[k]
		if !a.Latency.Equals(b.Latency) || a.Ops != b.Ops || a.Slowest != b.Slowest || a.NotFound != b.NotFound || a.Rows != b.Rows {
			t.Errorf("%v: %+v, want %+v", k, a, b)
		}
		for _, q := range []float64{0.5, 0.99, 0.9999, 1} {
			if a.Quantile(q) != b.Quantile(q) {
				t.Errorf("%v: quantile %v", k, q)
			}
		}
	}
	if sum.classes != whole.classes || sum.Unknown != 4 || sum.BytesIn != 40 || sum.FirstError != "BUSY: later" {
		t.Errorf("%+v", sum)
	}
	var r LoadResult
	r.fill(sum)
	if r.All.Ops != 20_000 || r.Failed() != 4 || r.Errors["BUSY"] != 4 || r.All.Latency.TotalCount() != 20_000 {
		t.Errorf("%+v", r)
	}
	var none KindResult
	if none.Quantile(0.5) != 0 || none.Mean() != 0 {
		t.Error("nothing has a latency")
	}
}

func TestClassNames(t *testing.T) {
	for class, want := range map[int]string{int(protocol.StatusTimeout): "TIMEOUT", classLost: "CONNECTION_LOST", classWrong: "WRONG_VALUE", 200: "STATUS_200"} {
		if got := className(class); got != want {
			t.Errorf("%d is %s", class, got)
		}
	}
}

// Steps become points when all threads are past them, in order and with those
// in which nothing happened.
func TestSeries(t *testing.T) {
	var live []Point
	returned := 0
	s := newSeries(2, func(p Point) { live = append(live, p) }, func(*recorder) { returned++ })
	give := func(thread int, step int64, latencies ...time.Duration) {
		r := newRecorder(thread)
		r.step = step
		for _, d := range latencies {
			r.Record(d)
		}
		s.take(r)
	}
	give(0, 0, time.Millisecond, time.Millisecond)
	give(0, 1, 2*time.Millisecond)
	if len(s.points) != 0 {
		t.Fatal("a point before both threads are past its step")
	}
	give(1, 0, 9*time.Millisecond)
	give(1, 3, time.Millisecond)
	give(0, 3, time.Millisecond)
	give(0, 4)
	s.finish(5*seriesStep - seriesStep/2)
	var ops []uint64
	for i, p := range s.points {
		if p.At != time.Duration(i+1)*seriesStep && i < 4 {
			t.Errorf("point %d is at %v", i, p.At)
		}
		ops = append(ops, p.Ops)
	}
	if diff := cmp.Diff([]uint64{3, 1, 0, 2, 0}, ops); diff != "" {
		t.Error(diff)
	}
	if p := s.points[0]; p.P50 > 1010*time.Microsecond || p.Max < 9*time.Millisecond || p.Rate() != 12 {
		t.Errorf("%+v", p)
	}
	if p := s.points[4]; p.Step != seriesStep/2 || p.At != 5*seriesStep-seriesStep/2 {
		t.Errorf("the last step is %+v", p)
	}
	if len(live) != 1 || live[0].Ops != 6 || live[0].Step != time.Second {
		t.Errorf("live: %+v", live)
	}
	if returned != 6 {
		t.Errorf("%d of 6 recorders came back", returned)
	}
}

func TestSeriesIsBounded(t *testing.T) {
	s := newSeries(1, nil, func(*recorder) {})
	const steps = 3*seriesMax + 1
	for step := range int64(steps) {
		r := newRecorder(0)
		r.step = step
		r.Record(time.Duration(step+1) * time.Microsecond)
		s.take(r)
	}
	s.finish(steps*seriesStep - seriesStep*9/10)
	var ops uint64
	var length, at time.Duration
	for _, p := range s.points {
		if at += p.Step; p.At != at {
			t.Fatalf("a point at %v, want %v", p.At, at)
		}
		ops += p.Ops
		length += p.Step
	}
	if len(s.points) > seriesMax || ops != steps || length != steps*seriesStep-seriesStep*9/10 {
		t.Errorf("%d points, %d operations, %v", len(s.points), ops, length)
	}
}

func TestUses(t *testing.T) {
	answer := func(uptime, cpu time.Duration, fsyncs uint64) []ServerUse {
		return []ServerUse{{uptime: uptime, CPU: cpu, Fsyncs: fsyncs, FsyncMean: 5}}
	}
	for name, tc := range map[string]struct {
		before, after []ServerUse
		cpu           time.Duration
		fsyncs        uint64
	}{
		"as usual":      {answer(10, 100, 7), answer(20, 150, 9), 50, 2},
		"nothing done":  {answer(10, 100, 7), answer(20, 100, 7), 0, 0},
		"silent before": {answer(0, 0, 0), answer(20, 150, 9), 0, 0},
		"silent after":  {answer(10, 100, 7), answer(0, 0, 0), 0, 0},
		"started again": {answer(10, 100, 7), answer(5, 150, 9), 0, 0},
	} {
		if got := uses(tc.before, tc.after)[0]; got.CPU != tc.cpu || got.Fsyncs != tc.fsyncs || got.FsyncMean != 5 && name != "silent after" {
			t.Errorf("%s: %+v", name, got)
		}
	}
	r := LoadResult{Servers: []ServerUse{{CPU: time.Second}, {CPU: 2 * time.Second}}, ServerOps: 3000}
	if r.ServerPerOp() != time.Millisecond {
		t.Errorf("%v", r.ServerPerOp())
	}
	r.Servers[1].CPU = 0
	if r.ServerCPU() != 0 || r.ServerPerOp() != 0 {
		t.Error("the CPU time of some servers is taken for that of all")
	}
}
