package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/proa-kv/proa/bench"
)

// loadOf is a report of a run with these latencies of reads, and a second run.
func loadOf(t *testing.T, latencies []int64) *Load {
	t.Helper()
	var r bench.LoadResult
	k := &r.Kinds[bench.KindRead]
	k.Latency = bench.NewLatencies()
	for _, v := range latencies {
		k.Ops++
		k.Slowest = max(k.Slowest, time.Duration(v))
		if err := k.Latency.RecordValue(v); err != nil {
			t.Fatal(err)
		}
	}
	k.NotFound = 2
	u := &r.Kinds[bench.KindUpdate]
	u.Merge(k)
	u.NotFound = 0
	r.All.Merge(k)
	r.All.Merge(u)
	r.Elapsed = time.Second
	r.Errors = map[string]uint64{"BUSY": 1}
	r.GeneratorCPU = time.Duration(len(latencies)) * time.Microsecond
	r.Connections = 3
	l := &Load{Workload: "get", Keys: 10, Connections: 3, Threads: 1, InFlight: 2, Started: time.Unix(100, 0).UTC()}
	l.Add(&r)
	r.Rate = 500
	l.Add(&r)
	return l
}

func draw(n int, seed uint64) (out []int64) {
	r := rand.New(rand.NewPCG(seed, 1))
	for range n {
		out = append(out, 1+r.Int64N(5e6))
	}
	return out
}

// again is l as it is read from what was written.
func again(t *testing.T, l *Load) *Load {
	t.Helper()
	b, err := json.Marshal(l)
	if err != nil {
		t.Fatal(err)
	}
	out, err := ReadLoad(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Reports of two processes, read from files, tell together what one that had
// measured everything would.
func TestMerge(t *testing.T) {
	first, second := draw(3000, 1), draw(500, 2)
	sum := again(t, loadOf(t, first))
	if err := sum.Merge(again(t, loadOf(t, second))); err != nil {
		t.Fatal(err)
	}
	whole := loadOf(t, append(first, second...))
	for i := range sum.Runs {
		got, want := &sum.Runs[i], &whole.Runs[i]
		if diff := cmp.Diff(want.Latency, got.Latency); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(want.Percentiles, got.Percentiles); diff != "" {
			t.Error(diff)
		}
		if got.Ops != 7000 || got.Rate != []float64{0, 1000}[i] || got.Failed != 2 || got.Errors["BUSY"] != 2 || got.Throughput != 7000 || got.Opened != 6 || got.Seconds != 1 {
			t.Errorf("%+v", got)
		}
		if k := got.Kinds[0]; len(got.Kinds) != 2 || k.Name != "read" || k.Ops != 3500 || k.NotFound != 4 {
			t.Errorf("%+v", got.Kinds)
		}
	}
	if sum.Connections != 6 || sum.Threads != 2 {
		t.Errorf("%d connections, %d threads", sum.Connections, sum.Threads)
	}
	// What was merged can be merged again.
	if err := again(t, sum).Merge(again(t, loadOf(t, second))); err != nil {
		t.Error(err)
	}
}

// The servers' CPU was seen by both processes.
func TestMergeOfServerCPU(t *testing.T) {
	a, b := Run{Ops: 300, ServerPerOp: 4, GeneratorPerOp: 1, Fsyncs: 70}, Run{Ops: 100, ServerPerOp: 13, GeneratorPerOp: 3, Fsyncs: 75}
	m, err := mergeRuns(&a, &b)
	if err != nil || m.ServerPerOp != 1300.0/400 || m.GeneratorPerOp != 1.5 || m.Fsyncs != 75 {
		t.Errorf("%+v, %v", m, err)
	}
	b.ServerPerOp = 0
	if m, err = mergeRuns(&a, &b); err != nil || m.ServerPerOp != 0 {
		t.Errorf("one does not know: %+v, %v", m, err)
	}
}

func TestMergeRefuses(t *testing.T) {
	for what, change := range map[string]func(*Load){
		"workload": func(l *Load) { l.Workload = "put" }, "keys": func(l *Load) { l.Keys++ }, "number of runs": func(l *Load) { l.Runs = l.Runs[:1] },
		"requests in flight": func(l *Load) { l.InFlight++ }, "a closed one": func(l *Load) { l.Runs[1].Rate = 0 },
	} {
		l, o := loadOf(t, draw(10, 1)), loadOf(t, draw(10, 2))
		change(o)
		before := again(t, l)
		if err := l.Merge(o); !errors.Is(err, ErrMerge) || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
		if diff := cmp.Diff(before, again(t, l)); diff != "" {
			t.Errorf("%s: changed %s", what, diff)
		}
	}
	for what, change := range map[string]func(*Kind){
		"damaged": func(k *Kind) { k.Histogram = "HISTFAAAA" + k.Histogram }, "no histogram": func(k *Kind) { k.Histogram = "" }, "counts": func(k *Kind) { k.Ops++ },
	} {
		l, o := loadOf(t, draw(10, 1)), loadOf(t, draw(10, 2))
		change(&o.Runs[0].Kinds[0])
		if err := l.Merge(o); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, text := range []string{"", "[]", "{}", `{"workload":"get"}`, "PK"} {
		if _, err := ReadLoad(strings.NewReader(text)); err == nil {
			t.Errorf("%q is a report", text)
		}
	}
}

// FuzzReadLoad reads and merges whatever comes.
func FuzzReadLoad(f *testing.F) {
	b, err := json.Marshal(loadOf(&testing.T{}, draw(20, 1)))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"workload":"get","runs":[{"operations":[{"operation":"read","ops":1,"histogram":"HISTFAAAAB42k2"}]}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := ReadLoad(bytes.NewReader(b))
		if err != nil {
			return
		}
		o, _ := ReadLoad(bytes.NewReader(b))
		if l.Merge(o) != nil {
			return
		}
		if err := l.HTML(&bytes.Buffer{}); err != nil {
			t.Error(err)
		}
	})
}
