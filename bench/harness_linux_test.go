package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/internal/alloctest"
	"github.com/proa-kv/proa/protocol"
)

// loadOf returns a small load of a workload for a fake.
func loadOf(t testing.TB, s *fake, workload string) Load {
	t.Helper()
	w, err := FindWorkload(workload)
	if err != nil {
		t.Fatal(err)
	}
	return Load{Addresses: []string{s.start(t, "tcp", "127.0.0.1:0").Address}, Workload: w, Keys: 300, Seed: 1, Connections: 4, Count: 400, Verify: true}
}

func mustOpen(t *testing.T, l Load) *Harness {
	t.Helper()
	h, err := Open(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func mustLoad(t *testing.T, h *Harness) *Harness {
	t.Helper()
	if r, err := h.Preload(t.Context()); err != nil || r.All.Ops != h.load.Keys {
		t.Fatal(r, err)
	}
	return h
}

func mustMeasure(t *testing.T, h *Harness, rate float64) *LoadResult {
	t.Helper()
	r, err := h.Run(t.Context(), rate)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// inTime calls try with longer and longer times until it reports that they were
// long enough: on a busy machine anything may take any time.
func inTime(t *testing.T, try func(d time.Duration) bool) {
	t.Helper()
	for d := 100 * time.Millisecond; !try(d); d *= 3 {
		if d > time.Minute {
			t.Fatalf("%v were not long enough", d)
		}
	}
}

func mustVerify(t *testing.T, h *Harness) *Verification {
	t.Helper()
	v, err := h.Verify(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// Every workload makes exactly the operations asked for, in the kinds it is to
// have, and what it wrote is there afterwards.
func TestHarnessWorkloads(t *testing.T) {
	for _, w := range Workloads() {
		t.Run(w.Name, func(t *testing.T) {
			s := &fake{}
			l := loadOf(t, s, w.Name)
			l.Threads, l.InFlight = 2, 3
			h := mustLoad(t, mustOpen(t, l))
			if n := len(s.rows()); n != 300 {
				t.Fatalf("%d rows were loaded", n)
			}
			before := s.count("PUT")
			r := mustMeasure(t, h, 0)
			if r.All.Ops != l.Count || r.Failed() != 0 || uint64(r.All.Latency.TotalCount()) != l.Count || r.Elapsed <= 0 || r.Throughput() <= 0 {
				t.Fatalf("%+v", r)
			}
			var sum uint64
			for k := range kindEnd {
				if sum += r.Kinds[k].Ops; (r.Kinds[k].Ops > 0) != w.has(k) || r.Kinds[k].NotFound != 0 {
					t.Errorf("%v: %+v", k, r.Kinds[k])
				}
			}
			seen := map[string]uint64{
				"PING": r.Kinds[KindPing].Ops, "GET": r.Kinds[KindRead].Ops + r.Kinds[KindModify].Ops, "SCAN": r.Kinds[KindScan].Ops, "INCR": r.Kinds[KindIncr].Ops,
				"BATCH": r.Kinds[KindBatch].Ops, "PUT": r.Kinds[KindUpdate].Ops + r.Kinds[KindInsert].Ops + r.Kinds[KindModify].Ops + uint64(before),
			}
			for op, want := range seen {
				if got := s.count(op); uint64(got) != want {
					t.Errorf("the server saw %d %s, want %d", got, op, want)
				}
			}
			if scans := r.Kinds[KindScan]; scans.Ops > 0 && scans.Rows < scans.Ops {
				t.Errorf("%d rows in %d scans", scans.Rows, scans.Ops)
			}
			if b := r.Kinds[KindBatch]; b.Rows != 10*b.Ops {
				t.Errorf("%d rows in %d batches", b.Rows, b.Ops)
			}
			if r.BytesIn == 0 || r.BytesOut == 0 || sum != l.Count || r.GeneratorCPU <= 0 || r.ServerOps != l.Count || r.ServerCPU() != time.Millisecond || r.Servers[0].Fsyncs != 10 {
				t.Errorf("%+v", r)
			}
			if v := mustVerify(t, h); !v.OK() || v.Rows != 300+r.Kinds[KindInsert].Ops {
				t.Errorf("%+v", v)
			}
		})
	}
}

// Two runs with one seed ask for the same, in the same order.
func TestSameSeedSameRequests(t *testing.T) {
	requests := func(seed uint64) string {
		var all strings.Builder
		s := &fake{}
		s.answer = func(r request) []byte {
			fmt.Fprintf(&all, "%s %s %x\n", r.op, r.key, r.value)
			return nil
		}
		l := loadOf(t, s, "ycsb-f")
		l.Connections, l.Seed, l.Workload.ValueBytes = 1, seed, Sizes{[]sizePart{{share: 1, low: 10, high: 90}}}
		mustMeasure(t, mustLoad(t, mustOpen(t, l)), 0)
		return all.String()
	}
	first, again, other := requests(5), requests(5), requests(6)
	if first != again {
		t.Error("the same seed asks for other things")
	}
	if first == other {
		t.Error("another seed asks for the same")
	}
}

// A stall of S seconds at a rate of R delays R×S operations, and an open loop
// shows all of them, where a closed one shows one for each connection.
func TestStallShowsInOpenLoop(t *testing.T) {
	const rate, stall = 1000, 400 * time.Millisecond
	slow := func(rate float64, by time.Duration) (slow int64, r *LoadResult) {
		s := &fake{}
		n := 0
		s.answer = func(request) []byte {
			if n++; n == 200 {
				<-time.After(stall) // with the lock held: all connections stall
			}
			return nil
		}
		l := loadOf(t, s, "ping")
		l.Count, l.Connections, l.InFlight = 1000, 2, 1
		r = mustMeasure(t, mustOpen(t, l), rate)
		for _, bar := range r.All.Latency.Distribution() {
			if bar.From > int64(by) {
				slow += bar.Count
			}
		}
		return slow, r
	}
	n, r := slow(rate, stall/10)
	// The last tenth of the stall delays by less than a tenth of it. A busy
	// machine delays more of them, but never fewer.
	if want := int64(rate * stall.Seconds() * 0.9); n < want-5 {
		t.Errorf("%d slow operations in the open loop, want about %d", n, want)
	}
	if r.LateMax < stall/2 || r.Unsent != 0 || r.All.Ops != 1000 || r.All.Slowest < stall {
		t.Errorf("behind by %v at most, %d not sent, %d done, slowest %v", r.LateMax, r.Unsent, r.All.Ops, r.All.Slowest)
	}
	// What a busy machine delays in the closed loop is not delayed for as long.
	if n, r := slow(0, stall*9/10); n < 1 || n > 40 || r.LateMax != 0 {
		t.Errorf("%d slow operations in the closed loop", n)
	}
}

// What was due when the time was over and could not be sent is counted.
func TestUnsent(t *testing.T) {
	for _, poisson := range []bool{false, true} {
		s := &fake{}
		s.answer = func(request) []byte {
			<-time.After(20 * time.Millisecond)
			return nil
		}
		l := loadOf(t, s, "ping")
		l.Connections, l.Count, l.Duration, l.Poisson = 1, 0, 300*time.Millisecond, poisson
		const rate = 1000
		r := mustMeasure(t, mustOpen(t, l), rate)
		planned, tolerance := 300.0, 1.0
		if poisson {
			tolerance = 6 * math.Sqrt(planned)
		}
		if got := float64(r.All.Ops + r.Unsent); math.Abs(got-planned) > tolerance {
			t.Errorf("poisson %v: %v of %v planned operations are accounted for", poisson, got, planned)
		}
		if r.Unsent < 250 || r.LateEnd < 200*time.Millisecond || r.LateMax < r.LateEnd {
			t.Errorf("poisson %v: %d not sent, late by %v at the end, %v at most", poisson, r.Unsent, r.LateEnd, r.LateMax)
		}
	}
}

// The plan of an open loop is kept: so many operations in so much time, also
// with several threads, and random arrivals differ from constant ones.
func TestPace(t *testing.T) {
	p := pace{gap: 1e6, next: 5e6}
	for _, want := range []time.Duration{5, 6, 7} {
		if p.due() != want*time.Millisecond {
			t.Errorf("due at %v", p.due())
		}
		p.step()
	}
	s := &fake{}
	l := loadOf(t, s, "ping")
	l.Threads, l.Count, l.Duration = 2, 0, 500*time.Millisecond
	for _, l.Poisson = range []bool{false, true} {
		r := mustMeasure(t, mustOpen(t, l), 2000)
		if got := float64(r.All.Ops + r.Unsent); math.Abs(got-1000) > 250 || !l.Poisson && math.Abs(got-1000) > 2 { // each thread may count one more at the end
			t.Errorf("poisson %v: %v operations, want 1000", l.Poisson, got)
		}
	}
}

func TestWarmupIsNotCounted(t *testing.T) {
	s := &fake{}
	l := loadOf(t, s, "ping")
	l.Count, l.Duration, l.Warmup = 0, 200*time.Millisecond, 300*time.Millisecond
	r := mustMeasure(t, mustOpen(t, l), 1000)
	all := 500 - r.Unsent
	if r.All.Ops+r.Unsent != 200 || uint64(s.count("PING")) != all || r.ServerOps != all {
		t.Errorf("%d counted, the server saw %d", r.All.Ops, s.count("PING"))
	}
	var shown uint64
	for _, p := range r.Series {
		shown += p.Ops
	}
	if shown != all {
		t.Errorf("%d operations in the series", shown)
	}
	began := time.Now()
	r = mustMeasure(t, mustOpen(t, l), 0)
	if whole := time.Since(began); r.Elapsed < l.Duration || r.Elapsed > whole-l.Warmup {
		t.Errorf("took %v of %v", r.Elapsed, whole)
	}
}

// A count with a warm-up is that of the measured part, in either loop.
func TestCountAfterWarmup(t *testing.T) {
	for _, rate := range []float64{0, 2000} {
		s := &fake{}
		l := loadOf(t, s, "ping")
		l.Threads = 2
		inTime(t, func(d time.Duration) bool {
			l.Warmup = d
			before := s.count("PING")
			if r := mustMeasure(t, mustOpen(t, l), rate); r.All.Ops != l.Count {
				t.Fatalf("rate %v: %d counted", rate, r.All.Ops)
			}
			return s.count("PING")-before > int(l.Count)
		})
	}
}

func TestProgress(t *testing.T) {
	s := &fake{}
	l := loadOf(t, s, "ping")
	var seen []Point
	l.Count, l.Duration, l.Progress = 0, 1300*time.Millisecond, func(p Point) { seen = append(seen, p) }
	r := mustMeasure(t, mustOpen(t, l), 500)
	if len(seen) == 0 || len(r.Series) < 5 {
		t.Fatalf("%d points, and %d for people", len(r.Series), len(seen))
	}
	var all, first uint64 // operations in the points, and of the first second
	for _, p := range r.Series {
		if all += p.Ops; p.At <= time.Second {
			first += p.Ops
		}
	}
	for i, p := range seen {
		if p.At != time.Duration(i+1)*time.Second || p.Step != time.Second || (p.P50 > 0) != (p.Ops > 0) {
			t.Errorf("%+v", p)
		}
	}
	if all == 0 || all != r.All.Ops || seen[0].Ops != first || math.Abs(float64(all+r.Unsent)-650) > 2 {
		t.Errorf("%d operations in the points, %d of them in the first second; %d counted, %d not sent; for people %+v", all, first, r.All.Ops, r.Unsent, seen)
	}
}

// Errors are counted by class; those after which a write may have had an effect
// count as unknown, and are no reason for the verification to complain.
func TestErrorClasses(t *testing.T) {
	s := &fake{}
	n := 0
	s.answer = func(r request) []byte {
		if r.op != "PUT" || !strings.HasPrefix(r.key, Prefix) || len(s.data) < 300 {
			return nil
		}
		switch n++; {
		case n%10 == 0:
			return protocol.AppendError(nil, r.id, protocol.StatusBusy, 1, "later")
		case n%10 == 1:
			s.data[r.key] = r.value // it was carried out all the same
			return protocol.AppendError(nil, r.id, protocol.StatusTimeout, 0, "not heard of")
		}
		return nil
	}
	l := loadOf(t, s, "put")
	h := mustLoad(t, mustOpen(t, l))
	r := mustMeasure(t, h, 0)
	if r.Errors["BUSY"] != 40 || r.Errors["TIMEOUT"] != 40 || r.Failed() != 80 || r.All.Ops != 320 || r.Unknown != 40 || r.FirstError == "" {
		t.Errorf("%+v", r)
	}
	if v := mustVerify(t, h); !v.OK() {
		t.Errorf("%+v", v)
	}
}

// Whatever happens to what was written is found: a changed byte, a row that is
// gone, a write that was refused and had an effect, an old value.
func TestVerifyFinds(t *testing.T) {
	for name, tc := range map[string]struct {
		spoil          func(data map[string]string, key string)
		missing, wrong uint64
	}{
		"nothing":      {func(map[string]string, string) {}, 0, 0},
		"changed byte": {func(d map[string]string, k string) { d[k] = flipped(d[k], 50) }, 0, 1},
		"missing":      {func(d map[string]string, k string) { delete(d, k) }, 1, 0},
		"other row":    {func(d map[string]string, k string) { d[k] = d["_bench/k00000008"] }, 0, 1},
		"short":        {func(d map[string]string, k string) { d[k] = d[k][:127] }, 0, 1},
	} {
		s := &fake{}
		h := mustLoad(t, mustOpen(t, loadOf(t, s, "put")))
		mustMeasure(t, h, 0)
		s.mu.Lock()
		tc.spoil(s.data, "_bench/k00000007")
		s.mu.Unlock()
		v := mustVerify(t, h)
		if v.Missing != tc.missing || v.Wrong != tc.wrong || v.OK() != (name == "nothing") || v.Rows != 300 {
			t.Errorf("%s: %+v", name, v)
		}
		if !v.OK() && (len(v.Problems) != 1 || !strings.HasPrefix(v.Problems[0], "_bench/k00000007: ")) {
			t.Errorf("%s: %q", name, v.Problems)
		}
	}
	s := &fake{}
	h := mustLoad(t, mustOpen(t, loadOf(t, s, "put")))
	s.mu.Lock()
	clear(s.data)
	s.mu.Unlock()
	if v := mustVerify(t, h); v.Missing != 300 || len(v.Problems) != ProblemsMax {
		t.Errorf("all are gone: %d missing, %d named", v.Missing, len(v.Problems))
	}
	s = &fake{}
	l := loadOf(t, s, "put")
	l.Verify = false
	if _, err := mustOpen(t, l).Verify(t.Context()); !errors.Is(err, ErrConfig) {
		t.Errorf("nothing was remembered: %v", err)
	}
}

// flipped returns s with one bit of a byte changed.
func flipped(s string, at int) string {
	b := []byte(s)
	b[at] ^= 1
	return string(b)
}

// A lost update is found: the server acknowledges a write and keeps the old.
func TestVerifyFindsLostWrites(t *testing.T) {
	s := &fake{}
	n := 0
	s.answer = func(r request) []byte {
		if n++; r.op == "PUT" && n > 350 && n%100 == 0 {
			return proaReply(r.id, protocol.StatusOK, written())
		}
		return nil
	}
	l := loadOf(t, s, "put")
	l.Connections, l.Keys = 1, 300
	l.Workload.Choice = InOrder
	h := mustLoad(t, mustOpen(t, l))
	mustMeasure(t, h, 0)
	if v := mustVerify(t, h); v.Wrong == 0 || v.Missing != 0 || !strings.Contains(v.Problems[0], "version") {
		t.Errorf("%+v", v)
	}
}

// A value that was never written to its row is noticed when it is read.
func TestWrongValues(t *testing.T) {
	for _, verify := range []bool{false, true} {
		s := &fake{}
		l := loadOf(t, s, "get")
		l.Verify = verify
		h := mustLoad(t, mustOpen(t, l))
		s.mu.Lock()
		for k, v := range s.data {
			s.data[k] = "x" + v[1:] // the row's number
			if verify {
				s.data[k] = flipped(v, 100)
			}
		}
		s.mu.Unlock()
		if r := mustMeasure(t, h, 0); r.Errors["WRONG_VALUE"] != l.Count || r.All.Ops != 0 || !strings.Contains(r.FirstError, "never written") {
			t.Errorf("verify %v: %+v", verify, r.Errors)
		}
	}
}

func TestRowsThatAreMissing(t *testing.T) {
	s := &fake{}
	l := loadOf(t, s, "ycsb-a")
	r := mustMeasure(t, mustOpen(t, l), 0)
	if r.Kinds[KindRead].NotFound == 0 || r.Failed() != 0 {
		t.Errorf("%+v", r.Kinds[KindRead])
	}
}

// A connection that breaks costs what was under way on it; it is opened again
// and the run goes on.
func TestLostConnections(t *testing.T) {
	s := &fake{hangUp: 100}
	l := loadOf(t, s, "put")
	l.Connections, l.InFlight, l.Keys, l.Count = 2, 4, 10, 1000
	h := mustOpen(t, l)
	r := mustMeasure(t, h, 0)
	if lost := r.Errors["CONNECTION_LOST"]; lost == 0 || r.All.Ops+lost != l.Count || r.Unknown != lost || !strings.Contains(r.FirstError, "closed") {
		t.Errorf("%+v", r)
	}
	if v := mustVerify(t, h); !v.OK() {
		t.Errorf("%+v", v)
	}
}

func TestServerGoesForGood(t *testing.T) {
	s := &fake{}
	n := 0
	s.ask = func(c net.Conn, r request) []byte {
		s.mu.Lock()
		defer s.mu.Unlock()
		if n++; n == 100 {
			s.ln.Close()
			for c := range s.conns {
				c.Close()
			}
		}
		return nil
	}
	h := mustOpen(t, loadOf(t, s, "ping"))
	h.load.Timeout = 2 * time.Second // until then there must be some progress
	r, err := h.Run(t.Context(), 0)
	if !errors.Is(err, ErrClosed) || r == nil || r.All.Ops == 0 || r.Errors["CONNECTION_LOST"] == 0 {
		t.Errorf("%v, %v", r, err)
	}
}

func TestSilentServer(t *testing.T) {
	s := &fake{}
	s.ask = func(_ net.Conn, r request) []byte {
		if r.op == "PING" {
			return []byte{}
		}
		return nil
	}
	h := mustOpen(t, loadOf(t, s, "ping"))
	h.load.Timeout = 200 * time.Millisecond
	if _, err := h.Run(t.Context(), 0); !errors.Is(err, ErrStalled) {
		t.Error(err)
	}
}

func TestNonsense(t *testing.T) {
	for name, answer := range map[string]func(request) []byte{
		"unknown id":      func(r request) []byte { return proaReply(r.id+1000, 0, nil) },
		"answered twice":  func(r request) []byte { b := proaReply(r.id, 0, row("")); return append(b, b...) },
		"no reply":        func(r request) []byte { return protocol.End(protocol.Begin(nil, 0, 0, r.id), 0) },
		"result expected": func(r request) []byte { return proaReply(r.id, protocol.StatusConditionFailed, written()) },
		"cut off":         func(r request) []byte { return proaReply(r.id, 0, []byte{1}) },
		"more of a GET": func(r request) []byte {
			return protocol.End(protocol.Begin(nil, 0, protocol.FlagReply|protocol.FlagMore, r.id), 0)
		},
		"not found with a body": func(r request) []byte { return proaReply(r.id, protocol.StatusNotFound, []byte{1}) },
		"garbage":               func(request) []byte { return []byte("HTTP/1.1 400 Bad Request\r\n") },
		"bad extensions": func(r request) []byte {
			return protocol.End(append(protocol.Begin(nil, 0, protocol.FlagReply|protocol.FlagExtensions, r.id), 2, 0, 6, 9), 0)
		},
	} {
		s := &fake{answer: func(r request) []byte {
			if r.op != "GET" {
				return nil
			}
			return answer(r)
		}}
		l := loadOf(t, s, "get")
		l.Connections = 1
		if _, err := mustOpen(t, l).Run(t.Context(), 0); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNotices(t *testing.T) {
	s := &fake{}
	n := 0
	s.answer = func(r request) []byte {
		if n++; n != 50 {
			return nil
		}
		return append(protocol.AppendError(nil, 0, protocol.StatusGoAway, 0, "leaving"), proaReply(r.id, 0, nil)...)
	}
	if r := mustMeasure(t, mustOpen(t, loadOf(t, s, "ping")), 0); r.All.Ops != 400 || r.Failed() != 0 {
		t.Errorf("%+v", r)
	}
}

func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := &fake{}
	s.answer = func(request) []byte {
		if s.seen["PING"] == 100 {
			cancel()
		}
		return nil
	}
	l := loadOf(t, s, "ping")
	l.Count, l.Duration = 0, time.Hour
	h := mustOpen(t, l)
	r, err := h.Run(ctx, 0)
	if err != nil || !r.Interrupted || r.All.Ops < 100 || r.All.Ops != uint64(s.count("PING")) {
		t.Errorf("%+v, %v; the server saw %d", r, err, s.count("PING"))
	}
	if r, err := h.Run(ctx, 100); err == nil && !r.Interrupted {
		t.Errorf("interrupted before it began: %+v", r)
	}
}

func TestPreloadInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := &fake{}
	s.answer = func(request) []byte {
		if s.seen["PUT"] == 100 {
			cancel()
		}
		return nil
	}
	l := loadOf(t, s, "get")
	l.Keys = KeysMax // more than can be written before the interruption is noticed
	h := mustOpen(t, l)
	if r, err := h.Preload(ctx); !errors.Is(err, context.Canceled) || r.All.Ops == 0 || r.All.Ops >= l.Keys || h.preloaded {
		t.Errorf("%v, %v", r, err)
	}
}

// A preload repeats what is refused for the moment, and fails if a row cannot
// be written at all.
func TestPreloadAgainstRefusals(t *testing.T) {
	s := &fake{}
	n := 0
	s.answer = func(r request) []byte {
		if n++; r.op == "PUT" && n%3 == 0 {
			return protocol.AppendError(nil, r.id, protocol.StatusBusy, 1, "later")
		}
		return nil
	}
	h := mustLoad(t, mustOpen(t, loadOf(t, s, "get")))
	if len(s.rows()) != 300 || s.count("PUT") <= 300 {
		t.Errorf("%d rows after %d requests", len(s.rows()), s.count("PUT"))
	}
	s.mu.Lock()
	s.answer = func(r request) []byte {
		return protocol.AppendError(nil, r.id, protocol.StatusStorageFailed, 0, "disk")
	}
	s.mu.Unlock()
	if _, err := h.Preload(t.Context()); err == nil || !strings.Contains(err.Error(), "disk") {
		t.Error(err)
	}
}

// pair is two fakes that are nodes of one cluster. Which leads what is changed
// by lead.
type pair struct {
	nodes [2]*fake
	epoch atomic.Uint64
	first atomic.Uint64 // node that leads the lower half of the slots
	mu    sync.Mutex
	got   map[uint64]int // data requests by node
}

func newPair(t *testing.T) *pair {
	p := &pair{got: map[uint64]int{}}
	p.first.Store(1)
	p.epoch.Store(1)
	data := map[string]string{}
	for i := range p.nodes {
		s := &fake{id: uint64(i + 1)}
		p.nodes[i] = s
		s.routes = p.routes
		s.start(t, "tcp", "127.0.0.1:0")
		s.data = data
		s.ask = func(_ net.Conn, r request) []byte { return p.ask(s, r) }
	}
	return p
}

func (p *pair) leader(slot uint16) uint64 {
	if slot < 8192 {
		return p.first.Load()
	}
	return 3 - p.first.Load()
}

func (p *pair) routes() *protocol.RoutesReply {
	m := &protocol.RoutesReply{Epoch: p.epoch.Load()}
	for _, s := range p.nodes {
		m.Nodes = append(m.Nodes, protocol.RouteNode{ID: s.id, Address: []byte(s.ln.Addr().String())})
	}
	for i, first := range []uint16{0, 8192} {
		m.Shards = append(m.Shards, protocol.RouteShard{ID: uint16(i), Leader: p.leader(first), Slots: []protocol.SlotRange{{First: first, Last: first + 8191}}})
	}
	return m
}

// ask answers what needs no lock of one fake, since two share their data.
func (p *pair) ask(s *fake, r request) []byte {
	if r.key == "" {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.got[s.id]++
	leader := p.leader(protocol.Slot([]byte(r.key)))
	if leader != s.id && len(r.extensions) == 0 {
		x := protocol.Extensions{Leader: leader}
		b := x.AppendTo(protocol.Begin(nil, uint8(protocol.StatusNotLeader), protocol.FlagReply|protocol.FlagExtensions, r.id))
		m := protocol.ErrorReply{RetryAfterMillis: 1, Message: []byte("elsewhere")}
		return protocol.End(m.AppendTo(b), 0)
	}
	if r.op == "PUT" {
		p.nodes[0].data[r.key] = r.value
		return proaReply(r.id, protocol.StatusOK, written())
	}
	v, ok := p.nodes[0].data[r.key]
	if !ok {
		return proaReply(r.id, protocol.StatusNotFound, nil)
	}
	return proaReply(r.id, protocol.StatusOK, row(v))
}

func pairLoad(t *testing.T, p *pair, workload string) Load {
	w, err := FindWorkload(workload)
	if err != nil {
		t.Fatal(err)
	}
	return Load{Addresses: []string{p.nodes[0].ln.Addr().String()}, Workload: w, Keys: 200, Seed: 1, Connections: 6, Count: 2000, Timeout: 5 * time.Second}
}

// Requests go to the leaders, of which only one node was named; and they follow
// when the leaders change.
func TestLeaders(t *testing.T) {
	p := newPair(t)
	h := mustLoad(t, mustOpen(t, pairLoad(t, p, "mixed")))
	if len(h.Members()) != 2 || h.Shards() != 2 {
		t.Fatalf("%+v", h.Members())
	}
	r := mustMeasure(t, h, 0)
	if r.Repeated != 0 || r.Failed() != 0 || p.got[1] == 0 || p.got[2] == 0 || r.Connections != 6 {
		t.Errorf("%+v, %v", r, p.got)
	}
	p.first.Store(2)
	p.epoch.Add(1)
	r = mustMeasure(t, h, 0)
	if r.Repeated == 0 || r.Failed() != 0 || r.All.Ops != 2000 {
		t.Errorf("after a move: %d repeated, %d failed, %d done", r.Repeated, r.Failed(), r.All.Ops)
	}
	if again := mustMeasure(t, h, 0); again.Repeated != 0 {
		t.Errorf("the new leaders were forgotten: %d repeated", again.Repeated)
	}
}

// One connection is not enough for two nodes, so there are two, with one
// request in flight.
func TestOneCallerTwoNodes(t *testing.T) {
	p := newPair(t)
	l := pairLoad(t, p, "mixed")
	l.Connections, l.Count = 1, 100
	if r := mustMeasure(t, mustLoad(t, mustOpen(t, l)), 0); r.Connections != 2 || r.All.Ops != 100 || r.Repeated != 0 {
		t.Errorf("%d connections, %d repeated", r.Connections, r.Repeated)
	}
}

func TestAnyNode(t *testing.T) {
	p := newPair(t)
	l := pairLoad(t, p, "get")
	l.AnyNode, l.Count = true, 20
	h := mustOpen(t, l)
	h.load.Timeout = 500 * time.Millisecond
	if len(h.Members()) != 1 {
		t.Fatalf("%+v", h.Members())
	}
	if r := mustMeasure(t, h, 0); p.got[2] != 0 || r.Errors["NOT_LEADER"] == 0 {
		t.Errorf("%v, %v", p.got, r.Errors)
	}
}

// Weak reads carry their consistency and go to all nodes, and the age of the
// answers is told.
func TestWeakReads(t *testing.T) {
	for _, c := range []protocol.Consistency{protocol.SessionReads, protocol.Stale} {
		p := newPair(t)
		l := pairLoad(t, p, "get")
		mustLoad(t, mustOpen(t, l))
		p.got = map[uint64]int{}
		var bad atomic.Int64
		for _, s := range p.nodes {
			s.ask = func(_ net.Conn, r request) []byte {
				if r.op != "GET" {
					return p.ask(s, r)
				}
				var x protocol.Extensions
				if x.Decode(r.extensions) != nil || x.Consistency != c {
					bad.Add(1)
				}
				p.mu.Lock()
				defer p.mu.Unlock()
				p.got[s.id]++
				reply := protocol.Extensions{HasAge: true, AgeMillis: 40 + uint32(s.id)}
				b := reply.AppendTo(protocol.Begin(nil, 0, protocol.FlagReply|protocol.FlagExtensions, r.id))
				return protocol.End(append(b, row(p.nodes[0].data[r.key])...), 0)
			}
		}
		l.Consistency = c
		r := mustMeasure(t, mustOpen(t, l), 0)
		if bad.Load() != 0 || r.Weak != 2000 || r.AgeMax != 42*time.Millisecond || r.Failed() != 0 || p.got[1] == 0 || p.got[2] == 0 {
			t.Errorf("%v: %+v, %v, %d without", c, r, p.got, bad.Load())
		}
	}
}

func TestUnreachable(t *testing.T) {
	s := &fake{}
	l := loadOf(t, s, "get")
	s.ln.Close()
	_, err := Open(t.Context(), l)
	var unavailable *client.UnavailableError
	if !errors.As(err, &unavailable) || !errors.Is(err, unix.ECONNREFUSED) || unavailable.Endpoints[0].Endpoint != l.Addresses[0] {
		t.Error(err)
	}
}

// A leader that has died is waited for until another node leads: it is no reason
// to give up, nor to ask for an address that was named.
func TestLeaderDiesBeforeLoad(t *testing.T) {
	p := newPair(t)
	l := pairLoad(t, p, "get")
	l.Addresses = append(l.Addresses, p.nodes[1].ln.Addr().String())
	p.nodes[1].ln.Close()
	l.Timeout = time.Second // within which node 1 must answer
	if _, err := Open(t.Context(), l); err == nil || !strings.Contains(err.Error(), "node 2 leads shards and cannot be reached") || strings.Contains(err.Error(), "add its address") {
		t.Errorf("an address that was named: %v", err)
	}
	l.Addresses = l.Addresses[:1]
	if _, err := Open(t.Context(), l); err == nil || !strings.Contains(err.Error(), "add its address") {
		t.Errorf("an address that was not named: %v", err)
	}
	l.Timeout = time.Minute
	var asked atomic.Int64
	p.nodes[0].routes = func() *protocol.RoutesReply {
		m := p.routes()
		if asked.Add(1) > 2 { // node 1 has been elected
			for i := range m.Shards {
				m.Shards[i].Leader = 1
			}
		}
		return m
	}
	if h, err := Open(t.Context(), l); err != nil || len(h.Members()) != 1 {
		t.Errorf("after an election: %v", err)
	}
}

// The timeout of a load also bounds what precedes it.
func TestClaimKeepsTimeout(t *testing.T) {
	s := &fake{}
	h := mustOpen(t, loadOf(t, s, "get"))
	h.load.Timeout = 100 * time.Millisecond
	s.ask = func(net.Conn, request) []byte { return []byte{} } // no reply
	began := time.Now()
	if _, err := h.Claim(t.Context()); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) >= client.DefaultRequestTimeout {
		t.Errorf("after %v: %v", time.Since(began), err)
	}
}

// A load keeps to one cluster: to the one that is named, or to that of the first
// server. Servers of another one are no servers to it.
func TestOneCluster(t *testing.T) {
	one, other := &fake{}, &fake{id: 2, cluster: 8}
	l, o := loadOf(t, one, "put"), loadOf(t, other, "put")
	for name, tc := range map[string]struct {
		addresses []string
		only      uint64
		want      uint64 // node, 0: none
	}{
		"the first":    {append(l.Addresses, o.Addresses...), 0, 1},
		"the other":    {append(l.Addresses, o.Addresses...), 8, 2},
		"another only": {o.Addresses, 7, 0},
	} {
		l.Addresses, l.Cluster = tc.addresses, tc.only
		h, err := Open(t.Context(), l)
		wrong, refused := errors.AsType[*client.WrongClusterError](err)
		switch {
		case tc.want == 0 && (!refused || wrong.Want != 7 || wrong.Got != 8):
			t.Errorf("%s: %v", name, err)
		case tc.want > 0 && err != nil:
			t.Errorf("%s: %v", name, err)
		case tc.want > 0 && (len(h.Members()) != 1 || h.Members()[0].ID != tc.want):
			t.Errorf("%s: %+v", name, h.Members())
		}
	}
}

func TestLoadIsChecked(t *testing.T) {
	w, _ := FindWorkload("get")
	good := Load{Addresses: []string{"127.0.0.1:1"}, Workload: w, Count: 1}
	if l := good; l.prepare() != nil || l.Connections != 64 || l.InFlight != 1 || l.Keys != 100_000 || l.Threads < 1 || l.Timeout != timeoutDefault {
		t.Errorf("defaults: %+v", l)
	}
	for name, tc := range map[string]struct {
		change func(*Load)
		ok     bool
	}{
		"no address":              {func(l *Load) { l.Addresses = nil }, false},
		"too many addresses":      {func(l *Load) { l.Addresses = make([]string, nodesMax+1) }, false},
		"negative timeout":        {func(l *Load) { l.Timeout = -1 }, false},
		"most keys":               {func(l *Load) { l.Keys = KeysMax }, true},
		"too many keys":           {func(l *Load) { l.Keys = KeysMax + 1 }, false},
		"most connections":        {func(l *Load) { l.Connections = ConnectionsMax }, true},
		"too many connections":    {func(l *Load) { l.Connections = ConnectionsMax + 1 }, false},
		"negative connections":    {func(l *Load) { l.Connections = -1 }, false},
		"most in flight":          {func(l *Load) { l.InFlight = InFlightMax }, true},
		"too many in flight":      {func(l *Load) { l.InFlight = InFlightMax + 1 }, false},
		"too many callers":        {func(l *Load) { l.InFlight, l.Connections = 1025, 1024 }, false},
		"as many threads":         {func(l *Load) { l.Threads, l.Connections = 3, 3 }, true},
		"more threads":            {func(l *Load) { l.Threads, l.Connections = 4, 3 }, false},
		"too many threads":        {func(l *Load) { l.Threads, l.Connections = ThreadsMax+1, 2000 }, false},
		"no end":                  {func(l *Load) { l.Count = 0 }, false},
		"duration alone":          {func(l *Load) { l.Count, l.Duration = 0, 1 }, true},
		"negative duration":       {func(l *Load) { l.Duration = -1 }, false},
		"negative warm-up":        {func(l *Load) { l.Warmup = -1 }, false},
		"unknown consistency":     {func(l *Load) { l.Consistency = protocol.Stale + 1 }, false},
		"workload without shares": {func(l *Load) { l.Workload = Workload{} }, false},
	} {
		l := good
		tc.change(&l)
		if err := l.prepare(); (err == nil) != tc.ok || err != nil && !errors.Is(err, ErrConfig) {
			t.Errorf("%s: %v", name, err)
		}
	}
	s := &fake{}
	h := mustOpen(t, loadOf(t, s, "ping"))
	for _, rate := range []float64{-1, math.NaN(), rateMax + 1} {
		if _, err := h.Run(t.Context(), rate); !errors.Is(err, ErrConfig) {
			t.Errorf("rate %v: %v", rate, err)
		}
	}
	l := h.Load()
	l.InFlight, l.Connections, l.Threads = 1025, 1, 1
	if _, err := Open(t.Context(), l); !errors.Is(err, ErrConfig) {
		t.Errorf("more in flight than the server takes: %v", err)
	}
}

// A running worker allocates nothing, whatever it asks for.
func TestWorkerDoesNotAllocate(t *testing.T) {
	for _, w := range Workloads() {
		for _, rate := range []float64{0, 1e6} {
			t.Run(fmt.Sprintf("%s/%v", w.Name, rate > 0), func(t *testing.T) {
				step := workerSteps(t, w, rate, nil)
				for range 300 { // buffers grow to their size
					step()
				}
				if n := alloctest.Least(1000, 0, step); n != 0 {
					t.Errorf("%v allocations for each request", n)
				}
			})
		}
	}
}

// Nor does one with a codec.
func TestCodecDoesNotAllocate(t *testing.T) {
	for _, codec := range []Codec{Proa{}, RESP{}} {
		for _, op := range []Op{Ping, Get, Put} {
			t.Run(fmt.Sprintf("%T/%v", codec, op), func(t *testing.T) {
				step := codecSteps(t, codec, op)
				for range 300 {
					step()
				}
				if n := alloctest.Least(1000, 0, step); n != 0 {
					t.Errorf("%v allocations for each request", n)
				}
			})
		}
	}
}

// codecSteps is workerSteps with a codec.
func codecSteps(t testing.TB, codec Codec, op Op) func() {
	l := Load{Target: Target{Address: "none", Codec: codec}, Op: op, ValueBytes: 128, Count: 1}
	if err := l.prepare(); err != nil {
		t.Fatal(err)
	}
	return workerSteps(t, l.Workload, 0, &codecLoad{codec, op, NewValue(128, 1)})
}

// workerSteps returns a function that has a worker make one round with a server
// that costs nothing.
func workerSteps(t testing.TB, workload Workload, rate float64, one *codecLoad) func() {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	l := Load{Addresses: []string{"none"}, Workload: workload, Keys: 1000, Connections: 1, Threads: 1, Duration: time.Hour}
	if err := l.prepare(); err != nil {
		t.Fatal(err)
	}
	h := &Harness{load: l, cluster: &cluster{members: []Member{{ID: 1}}}, epoch: time.Now()}
	h.rows = newRows(&h.load.Workload, 1)
	w := &worker{
		wire: newWire(), load: &h.load, cluster: h.cluster, epoch: h.epoch, meter: meter{tally: newTally(&l.Workload, false)}, timer: -1,
		src:   newGenerator(h.rows, newPicker(l.Workload.Choice, l.Keys, 1, 0, 1, 1)),
		peers: make([]peer, 1), byMember: [][]int32{{0}}, turn: make([]int, 1), reconnect: newReconnector(nil, make([]peer, 1)), calls: make([]call, 1), free: []int32{0},
	}
	w.dialect = &native{worker: w}
	if one != nil {
		w.dialect = newCodecDialect(w, one)
	}
	if l.Workload.has(KindBatch) {
		w.calls[0].batch = make([]uint64, 0, l.Workload.BatchRows)
	}
	if err := errors.Join(w.wire.open([]socket{{fd: pair[0]}}), w.openTimer()); err != nil {
		t.Fatal(err)
	}
	full := make(chan *recorder)
	w.full = full
	r := &runner{harness: h, rate: rate}
	r.schedule(w, w.clock())
	w.measuring, w.budget = true, w.perThread
	if err := w.meter.start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(w.closeAll(), unix.Close(pair[1])); err != nil {
			t.Error(err)
		}
		if w.tally.classes != [classEnd]uint64{} || w.doneLocal == 0 {
			t.Errorf("%d done, failed: %s", w.doneLocal, w.tally.FirstError)
		}
	})
	asked, value, answer := make([]byte, 1<<20), make([]byte, 0, 2048), make([]byte, 0, 64<<10)
	var results protocol.OpResults
	for range l.Workload.BatchRows {
		results = append(results, protocol.OpResult{Body: written()})
	}
	ordered := map[Op][]byte{Ping: []byte("+PONG\r\n"), Put: []byte("+OK\r\n"), Get: appendBulk(nil, make([]byte, 128))}
	return func() {
		if err := w.startDue(w.clock()); err != nil {
			t.Fatal(err)
		}
		for n := 0; n == 0; {
			if n, err = readRaw(pair[1], asked); err != nil && err != unix.EAGAIN {
				t.Fatal(err)
			}
			if n == 0 || err != nil { // an open loop waits for its time
				n = 0
				if err := w.startDue(w.clock()); err != nil {
					t.Fatal(err)
				}
			}
		}
		c := &w.calls[0]
		value = h.rows.AppendValue(value[:0], c.Row, 0)
		answer = protocol.Begin(answer[:0], 0, protocol.FlagReply, binary.LittleEndian.Uint64(asked[8:]))
		switch protocol.Opcode(asked[5]) {
		case protocol.OpGet:
			m := protocol.RowReply{Version: 1, Value: value}
			answer = m.AppendTo(answer)
		case protocol.OpPut:
			m := protocol.WriteReply{Version: 1}
			answer = m.AppendTo(answer)
		case protocol.OpIncr:
			m := protocol.IncrReply{Version: 1}
			answer = m.AppendTo(answer)
		case protocol.OpBatch:
			answer = results.AppendTo(answer)
		case protocol.OpScan:
			row := protocol.ScanRow{Version: 1, Key: value, Value: value}
			answer = append(answer, 0, 0)
			for range 10 {
				answer = row.AppendTo(answer)
			}
		}
		answer = protocol.End(answer, 0)
		if one != nil && one.codec.Ordered() {
			answer = append(answer[:0], ordered[one.op]...)
		}
		if n, err := writeRaw(pair[1], answer); n != len(answer) || err != nil {
			t.Fatal(n, err)
		}
		n, err := w.wait(waitMillis)
		if err != nil {
			t.Fatal(err)
		}
		for _, ev := range w.events[:n] {
			if err := w.handle(int(ev.Fd), ev.Events); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// BenchmarkWorker is what one operation costs the generator: an epoll_wait, a
// read and a write of its own, and as much for the peer.
func BenchmarkWorker(b *testing.B) {
	for _, w := range Workloads() {
		b.Run(w.Name, func(b *testing.B) {
			step := workerSteps(b, w, 0, nil)
			b.ReportAllocs()
			for b.Loop() {
				step()
			}
		})
	}
	for _, codec := range []Codec{Proa{}, RESP{}} {
		for _, op := range []Op{Ping, Get, Put} {
			b.Run(fmt.Sprintf("%T/%v", codec, op), func(b *testing.B) {
				step := codecSteps(b, codec, op)
				b.ReportAllocs()
				for b.Loop() {
					step()
				}
			})
		}
	}
}
