//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/proa-kv/proa/bench"
)

// load is a closed loop: each caller is a goroutine that makes its next call
// when it has the answer to the one before.
type load struct {
	op               bench.Op // bench.Get or bench.Put
	callers          int
	keys, seed       uint64
	value            []byte
	warmup, duration time.Duration
	// patience bounds the wait for the last answers, and for a write while
	// the cluster is being filled.
	patience  time.Duration
	serverCPU func() (time.Duration, error)
}

// result is what a load measured. Only calls that were answered well while it
// was measuring are in Result.
type result struct {
	*bench.Result
	failures map[string]uint64 // calls that failed meanwhile, by class
}

func (r *result) merge(o *result) {
	r.Result.Merge(o.Result)
	for class, n := range o.failures {
		r.failures[class] += n
	}
}

func newResult() *result {
	return &result{bench.NewResult(), map[string]uint64{}}
}

// failurePause is how long a caller waits after a failure: a server that refuses
// at once is not to be kept busy with refusing.
const failurePause = time.Millisecond

// recorder is the result of some of the callers: a histogram for each would
// cost more cache than the locks of a few cost time.
type recorder struct {
	mu sync.Mutex
	*result
}

const recorders = 16

// phase is how far a load has come.
type phase = int32

const (
	warming phase = iota
	measuring
	done
)

// run makes the load through d. A call that fails is counted; without any
// answer at all, or when the end of ctx or of the patience breaks off calls, it
// fails itself.
func (l *load) run(ctx context.Context, d driver) (*result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w := work{load: l, driver: d}
	for i := range w.recorders {
		w.recorders[i].result = newResult()
	}
	// What an earlier measurement left behind is not to be paid for here.
	runtime.GC()
	var callers sync.WaitGroup
	for i := range l.callers {
		callers.Go(func() { w.call(ctx, i) })
	}
	total, err := w.measure(ctx)
	w.phase.Store(done)
	if err != nil {
		cancel(err)
	}
	late := time.AfterFunc(l.patience, func() { cancel(errLate) })
	callers.Wait()
	late.Stop()
	if cause := context.Cause(ctx); cause != nil {
		return nil, cause
	}
	for i := range w.recorders {
		total.merge(w.recorders[i].result)
	}
	if total.Ops == 0 {
		return nil, fmt.Errorf("not one call was answered: %v", total.failures)
	}
	return total, nil
}

var errLate = errors.New("calls stayed unanswered")

// work is a load that is being made.
type work struct {
	*load
	driver    driver
	phase     atomic.Int32
	recorders [recorders]recorder
}

// measure lets the callers warm up, measures, and returns what belongs to all
// of them: wall and CPU time.
func (w *work) measure(ctx context.Context) (*result, error) {
	if err := pause(ctx, w.warmup); err != nil {
		return nil, err
	}
	r := newResult()
	server, err := w.serverCPU()
	if err != nil {
		return nil, err
	}
	own := ownCPU()
	begin := time.Now()
	w.phase.Store(measuring)
	if err := pause(ctx, w.duration); err != nil {
		return nil, err
	}
	w.phase.Store(done)
	r.Elapsed = time.Since(begin)
	r.GeneratorCPU = ownCPU() - own
	now, err := w.serverCPU()
	r.ServerCPU = now - server
	return r, err
}

// call is the life of one caller.
func (w *work) call(ctx context.Context, caller int) {
	keys := bench.NewChooser(w.keys, w.seed, uint64(caller))
	key := make([]byte, 0, bench.KeyBytes)
	into := &w.recorders[caller%recorders]
	for w.phase.Load() != done {
		key = bench.AppendKey(key[:0], keys.Next())
		begin := time.Now()
		err := w.once(ctx, caller, key)
		latency := time.Since(begin)
		if w.phase.Load() == measuring {
			into.add(latency, err, w.driver)
		}
		if err != nil && pause(ctx, failurePause) != nil {
			return
		}
	}
}

func (w *work) once(ctx context.Context, caller int, key []byte) error {
	if w.op == bench.Put {
		return w.driver.put(ctx, caller, key, w.value)
	}
	n, err := w.driver.get(ctx, caller, key)
	if err == nil && n != len(w.value) {
		err = errWrongValue
	}
	return err
}

var errWrongValue = errors.New("a value of another length than was written")

func (r *recorder) add(latency time.Duration, err error, d driver) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		r.Record(latency)
		return
	}
	r.failures[classOf(err, d)]++
}

// classOf names the kind of an error. There are few kinds, whatever addresses
// and numbers the errors contain.
func classOf(err error, d driver) string {
	if class := d.class(err); class != "" {
		return class
	}
	for _, kind := range []error{errAbsent, errWrongValue, context.Canceled, context.DeadlineExceeded, io.EOF} {
		if errors.Is(err, kind) {
			return kind.Error()
		}
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return "network"
	}
	return "other"
}

// preload writes every key once. A write that fails is made again until the
// patience is over.
func (l *load) preload(ctx context.Context, d driver) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Uint64
	var callers sync.WaitGroup
	for i := range l.callers {
		callers.Go(func() {
			for n := next.Add(1) - 1; n < l.keys; n = next.Add(1) - 1 {
				if err := l.insist(ctx, d, i, bench.AppendKey(nil, n)); err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	callers.Wait()
	return context.Cause(ctx)
}

// insist writes a key, again and again within the patience.
func (l *load) insist(ctx context.Context, d driver, caller int, key []byte) error {
	limited, cancel := context.WithTimeout(ctx, l.patience)
	defer cancel()
	var failure error
	for {
		err := d.put(limited, caller, key, l.value)
		if err == nil {
			return nil
		}
		if failure == nil || limited.Err() == nil {
			failure = err // says more than that the time was over
		}
		if pause(limited, failurePause) != nil {
			return fmt.Errorf("a write failed for %v: %w", l.patience, failure)
		}
	}
}

// pause waits for d.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// ownCPU returns the CPU time of all threads of this process.
func ownCPU() time.Duration {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t) != nil {
		return 0
	}
	return time.Duration(t.Nano())
}
