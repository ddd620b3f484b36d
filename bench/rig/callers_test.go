//go:build linux

package rig

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/proa-kv/proa/bench"
)

var errRefused = errors.New("refused for a reason")

// fake is a driver of a server that answers after a while.
type fake struct {
	after time.Duration
	fail  func(call int, key string) error // nil: never
	value int                              // bytes that a get finds

	mu      sync.Mutex
	calls   int
	callers map[int]int
	keys    map[string]int // that succeeded
}

func newFake(after time.Duration) *fake {
	return &fake{after: after, value: 8, callers: map[int]int{}, keys: map[string]int{}}
}

func (f *fake) call(ctx context.Context, caller int, key []byte) error {
	if err := Pause(ctx, f.after); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	f.callers[caller]++
	if f.fail != nil {
		if err := f.fail(f.calls, string(key)); err != nil {
			return err
		}
	}
	f.keys[string(key)]++
	return nil
}

func (f *fake) Put(ctx context.Context, caller int, key, value []byte) error {
	if len(value) != 8 {
		return errors.New("a value of another length")
	}
	return f.call(ctx, caller, key)
}

func (f *fake) Get(ctx context.Context, caller int, key []byte) (int, error) {
	return f.value, f.call(ctx, caller, key)
}

func (*fake) Class(err error) string {
	if err == errRefused {
		return "refused"
	}
	return ""
}

func TestClasses(t *testing.T) {
	for err, want := range map[error]string{
		errRefused:                               "refused",
		ErrAbsent:                                "key not found",
		fmt.Errorf("key 5: %w", errWrongValue):   "a value of another length than was written",
		fmt.Errorf("call: %w", context.Canceled): "context canceled",
		fmt.Errorf("host:1: %w", io.EOF):         "EOF",
		&net.OpError{Op: "dial", Net: "tcp", Addr: &net.TCPAddr{Port: 1}, Err: errRefused}: "network",
		errors.New("something at 127.0.0.1:1"):                                             "other",
	} {
		if got := classOf(&fake{})(err); got != want {
			t.Errorf("%v is of class %q, want %q", err, got, want)
		}
	}
}

func (*fake) Close() error { return nil }

// testLoad has ten callers, which measure for two seconds.
func testLoad(op bench.Op) Callers {
	var cpu time.Duration
	return Callers{
		Op: op, Keys: 50, Seed: 1, Value: bench.NewValue(8, 1),
		Loop: Loop{
			Callers: 10, Warmup: time.Second, Duration: 2 * time.Second, Timeout: 30 * time.Second,
			ServerCPU: func() (time.Duration, error) { cpu += 3 * time.Second; return cpu, nil },
		},
	}
}

// Ten callers, whose calls take 4 ms each, make 2,500 calls a second.
func TestLoad(t *testing.T) {
	for _, op := range []bench.Op{bench.Get, bench.Put} {
		synctest.Test(t, func(t *testing.T) {
			f, l := newFake(4*time.Millisecond), testLoad(op)
			r, err := l.run(t.Context(), l.caller(f), classOf(f))
			if err != nil {
				t.Fatal(err)
			}
			// What ends at the very moment of a change may count or not.
			if r.Ops < 4990 || r.Ops > 5010 || r.elapsed != 2*time.Second || r.Slowest != 4*time.Millisecond || r.serverCPU != 3*time.Second {
				t.Errorf("%v: %v, server %v", op, r, r.serverCPU)
			}
			if p := r.Quantile(0.01); p < 3990*time.Microsecond || p > 4*time.Millisecond {
				t.Errorf("%v: one in a hundred took %v", op, p)
			}
			if len(r.failures) > 0 || len(f.callers) != 10 || len(f.keys) != 50 || f.keys["_bench/k0000001i"] > 0 {
				t.Errorf("%v: failures %v, callers %v, keys %v", op, r.failures, f.callers, f.keys)
			}
		})
	}
}

// The same seed makes the same calls, so that all servers get the same load.
func TestLoadRepeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var keys [2]map[string]int
		for i := range keys {
			f, l := newFake(4100*time.Microsecond), testLoad(bench.Put) // no call ends with the run
			l.Callers = 1
			if _, err := l.run(t.Context(), l.caller(f), classOf(f)); err != nil {
				t.Fatal(err)
			}
			keys[i] = f.keys
		}
		if diff := cmp.Diff(keys[0], keys[1]); diff != "" {
			t.Error(diff)
		}
	})
}

// Failures are counted by class, and are in neither rate nor latencies.
func TestLoadFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, l := newFake(4*time.Millisecond), testLoad(bench.Get)
		f.fail = func(call int, _ string) error {
			switch call % 10 {
			case 0, 1:
				return errRefused
			case 2:
				return ErrAbsent
			}
			return nil
		}
		r, err := l.run(t.Context(), l.caller(f), classOf(f))
		if err != nil {
			t.Fatal(err)
		}
		// A failure takes its caller a millisecond more: 4.3 on average.
		all := r.Ops + r.failures["refused"] + r.failures["key not found"]
		if all < 4600 || all > 4700 || len(r.failures) != 2 {
			t.Errorf("%d calls, failures %v", all, r.failures)
		}
		if share := float64(r.failures["refused"]) / float64(all); share < 0.19 || share > 0.21 {
			t.Errorf("%v of the calls were refused", share)
		}
		if uint64(r.Latency.TotalCount()) != r.Ops {
			t.Errorf("%d latencies of %d calls", r.Latency.TotalCount(), r.Ops)
		}
	})
}

func TestLoadEndsEarly(t *testing.T) {
	stalled := newFake(time.Hour)
	wrong := newFake(time.Millisecond)
	wrong.value = 7
	broken := testLoad(bench.Put)
	broken.ServerCPU = func() (time.Duration, error) { return 0, errRefused }
	cancelled := context.Canceled
	for _, tc := range []struct {
		name     string
		load     Callers
		driver   *fake
		cancelAt time.Duration
		want     error
		words    string
		took     time.Duration
	}{
		{"stalled", testLoad(bench.Put), stalled, 0, errLate, "unanswered", 33 * time.Second},
		{"nothing but failures", testLoad(bench.Get), wrong, 0, nil, "not one call was answered: map[a value of another length than was written:", 3 * time.Second},
		{"server gone", broken, stalled, 0, errRefused, "", time.Second},
		{"cancelled in the warm-up", testLoad(bench.Put), stalled, time.Second / 2, cancelled, "", time.Second / 2},
		{"cancelled while measuring", testLoad(bench.Put), newFake(time.Millisecond), 2 * time.Second, cancelled, "", 2 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if tc.cancelAt > 0 {
				time.AfterFunc(tc.cancelAt, cancel)
			}
			begin := time.Now()
			r, err := tc.load.run(ctx, tc.load.caller(tc.driver), classOf(tc.driver))
			if r != nil || err == nil || tc.want != nil && !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.words) {
				t.Errorf("%s: %v, %v", tc.name, r, err)
			}
			if took := time.Since(begin); took < tc.took || took > tc.took+10*time.Millisecond {
				t.Errorf("%s: ended after %v, want %v", tc.name, took, tc.took)
			}
		})
	}
}

// Every key is written, whatever is refused at first.
func TestPreload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, l := newFake(time.Millisecond), testLoad(bench.Put)
		refused := map[string]bool{}
		f.fail = func(_ int, key string) error {
			if strings.HasSuffix(key, "7") && !refused[key] {
				refused[key] = true
				return errRefused
			}
			return nil
		}
		if err := l.Preload(t.Context(), f); err != nil {
			t.Fatal(err)
		}
		if len(f.keys) != 50 || slices.Max(mapValues(f.keys)) != 1 || len(refused) != 2 || f.calls != 52 {
			t.Errorf("%d calls, refused %v, written %v", f.calls, refused, f.keys)
		}
	})
}

func mapValues(m map[string]int) (v []int) {
	for _, n := range m {
		v = append(v, n)
	}
	return v
}

func TestPreloadGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, l := newFake(time.Millisecond), testLoad(bench.Put)
		f.fail = func(_ int, key string) error {
			if key == "_bench/k0000000h" {
				return errRefused
			}
			return nil
		}
		begin := time.Now()
		err := l.Preload(t.Context(), f)
		if !errors.Is(err, errRefused) || time.Since(begin) < l.Timeout || time.Since(begin) > l.Timeout+time.Second {
			t.Errorf("after %v: %v", time.Since(begin), err)
		}
	})
}
