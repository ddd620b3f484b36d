//go:build linux

package rig

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

	"github.com/proa-kv/proa/bench"
	"github.com/proa-kv/proa/client"
)

// Driver calls one cluster through the client library that its users have. Its
// methods are called by many goroutines.
type Driver interface {
	// Put writes, and returns when the cluster has acknowledged. caller is the
	// number of the goroutine, which spreads them over the connections.
	Put(ctx context.Context, caller int, key, value []byte) error

	// Get reads as strictly as the server can by default and returns the
	// length of the value. An absent key is ErrAbsent.
	Get(ctx context.Context, caller int, key []byte) (valueBytes int, err error)

	// Class names the kind of an error in a few words that are the same for
	// all of its kind, "" if it is none of the server's or the library's.
	Class(err error) string

	// Close ends all connections.
	Close() error
}

// ErrAbsent is the error of a Driver for a key that is not there.
var ErrAbsent = errors.New("key not found")

// Callers is a closed loop: each caller is a goroutine that makes its next call
// when it has the answer to the one before.
type Callers struct {
	Op               bench.Op // bench.Get or bench.Put
	Callers          int
	Keys, Seed       uint64
	Key              func(dst []byte, n uint64) []byte // appends key n; nil: bench.AppendKey
	Value            []byte
	Warmup, Duration time.Duration
	// Patience bounds the wait for the last answers, and for a write while
	// the cluster is being filled.
	Patience  time.Duration
	ServerCPU func() (time.Duration, error)
}

// result is what callers measured. Only calls that were answered well while they
// were measuring are in KindResult.
type result struct {
	bench.KindResult
	failures                map[string]uint64 // calls that failed meanwhile, by class
	elapsed                 time.Duration
	serverCPU, generatorCPU time.Duration
}

func newResult() *result { return &result{failures: map[string]uint64{}} }

func (r *result) merge(o *result) {
	r.Merge(&o.KindResult)
	for class, n := range o.failures {
		r.failures[class] += n
	}
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

// Run makes the load through d. A call that fails is counted; without any
// answer at all, or when the end of ctx or of the patience breaks off calls, it
// fails itself.
func (l *Callers) Run(ctx context.Context, d Driver) (Sample, error) {
	r, err := l.run(ctx, d)
	if err != nil {
		return Sample{}, err
	}
	s, ops := SampleOfKind(&r.KindResult), float64(r.Ops)
	s.Rate, s.Server, s.Generator = ops/r.elapsed.Seconds(), float64(r.serverCPU)/ops, float64(r.generatorCPU)/ops
	s.Failures = r.failures
	for _, n := range r.failures {
		s.Failed += n
	}
	return s, nil
}

func (l *Callers) run(ctx context.Context, d Driver) (*result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w := work{Callers: l, driver: d}
	for i := range w.recorders {
		w.recorders[i].result = newResult()
	}
	// What an earlier measurement left behind is not to be paid for here.
	runtime.GC()
	var callers sync.WaitGroup
	for i := range l.Callers {
		callers.Go(func() { w.call(ctx, i) })
	}
	total, err := w.measure(ctx)
	w.phase.Store(done)
	if err != nil {
		cancel(err)
	}
	late := time.AfterFunc(l.Patience, func() { cancel(errLate) })
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

func (l *Callers) appendKey(dst []byte, n uint64) []byte {
	if l.Key != nil {
		return l.Key(dst, n)
	}
	return bench.AppendKey(dst, n)
}

// work is a load that is being made.
type work struct {
	*Callers
	driver    Driver
	phase     atomic.Int32
	answered  atomic.Bool // a call has ended while measuring
	recorders [recorders]recorder
}

// measure lets the callers warm up, measures, and returns what belongs to all
// of them: wall and CPU time.
func (w *work) measure(ctx context.Context) (*result, error) {
	if err := Pause(ctx, w.Warmup); err != nil {
		return nil, err
	}
	r := newResult()
	server, err := w.ServerCPU()
	if err != nil {
		return nil, err
	}
	own := OwnCPU()
	begin := time.Now()
	w.phase.Store(measuring)
	if err := Pause(ctx, w.Duration); err != nil {
		return nil, err
	}
	// A slow cluster is measured until there is something to count.
	for late := time.Now().Add(w.Patience); !w.answered.Load(); {
		if err := Pause(ctx, failurePause); err != nil {
			return nil, err
		}
		if time.Now().After(late) {
			return nil, errLate
		}
	}
	w.phase.Store(done)
	r.elapsed = time.Since(begin)
	r.generatorCPU = OwnCPU() - own
	now, err := w.ServerCPU()
	r.serverCPU = now - server
	return r, err
}

// call is the life of one caller.
func (w *work) call(ctx context.Context, caller int) {
	keys := bench.NewChooser(w.Keys, w.Seed, uint64(caller))
	key := make([]byte, 0, bench.KeyBytes)
	into := &w.recorders[caller%recorders]
	for w.phase.Load() != done {
		key = w.appendKey(key[:0], keys.Next())
		begin := time.Now()
		err := w.once(ctx, caller, key)
		latency := time.Since(begin)
		if w.phase.Load() == measuring {
			into.add(latency, err, w.driver)
			if !w.answered.Load() { // mostly read, so that the callers share it
				w.answered.Store(true)
			}
		}
		if err != nil && Pause(ctx, failurePause) != nil {
			return
		}
	}
}

func (w *work) once(ctx context.Context, caller int, key []byte) error {
	if w.Op == bench.Put {
		return w.driver.Put(ctx, caller, key, w.Value)
	}
	n, err := w.driver.Get(ctx, caller, key)
	if err == nil && n != len(w.Value) {
		err = errWrongValue
	}
	return err
}

var errWrongValue = errors.New("a value of another length than was written")

func (r *recorder) add(latency time.Duration, err error, d Driver) {
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
func classOf(err error, d Driver) string {
	if class := d.Class(err); class != "" {
		return class
	}
	for _, kind := range []error{ErrAbsent, errWrongValue, context.Canceled, context.DeadlineExceeded, io.EOF} {
		if errors.Is(err, kind) {
			return kind.Error()
		}
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return "network"
	}
	return "other"
}

// Preload writes every key once. A write that fails is made again until the
// patience is over.
func (l *Callers) Preload(ctx context.Context, d Driver) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Uint64
	var callers sync.WaitGroup
	for i := range l.Callers {
		callers.Go(func() {
			for n := next.Add(1) - 1; n < l.Keys; n = next.Add(1) - 1 {
				if err := l.insist(ctx, d, i, l.appendKey(nil, n)); err != nil {
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
func (l *Callers) insist(ctx context.Context, d Driver, caller int, key []byte) error {
	limited, cancel := context.WithTimeout(ctx, l.Patience)
	defer cancel()
	var failure error
	for {
		err := d.Put(limited, caller, key, l.Value)
		if err == nil {
			return nil
		}
		if failure == nil || limited.Err() == nil {
			failure = err // says more than that the time was over
		}
		if Pause(limited, failurePause) != nil {
			return fmt.Errorf("a write failed for %v: %w", l.Patience, failure)
		}
	}
}

// proaDriver calls Proa through package client.
type proaDriver []*client.Client

// ConnectProa opens so many clients, each of which has a connection to each node.
func ConnectProa(ctx context.Context, endpoints []string, clients int) (Driver, error) {
	var d proaDriver
	for range clients {
		c, err := client.New(ctx, client.Config{Endpoints: endpoints})
		if err != nil {
			return nil, errors.Join(err, d.Close())
		}
		d = append(d, c)
	}
	return d, nil
}

func (d proaDriver) Put(ctx context.Context, caller int, key, value []byte) error {
	_, err := d[caller%len(d)].Put(ctx, key, value)
	return err
}

func (d proaDriver) Get(ctx context.Context, caller int, key []byte) (int, error) {
	item, err := d[caller%len(d)].Get(ctx, key)
	if errors.Is(err, client.ErrNotFound) {
		err = ErrAbsent
	}
	return len(item.Value), err
}

func (proaDriver) Class(err error) string { return ProaClass(err) }

func (d proaDriver) Close() error { return CloseAll(d, (*client.Client).Close) }

// proaFailures are the kinds of failure that a call may meet.
var proaFailures = []error{
	client.ErrBusy, client.ErrNoQuorum, client.ErrNotLeader, client.ErrDropped, client.ErrShuttingDown, client.ErrSessionExpired,
	client.ErrTooManyConnections, client.ErrUnavailable, client.ErrConnectionLost, client.ErrDeadlineExceeded, client.ErrStorageFailed, client.ErrInternal,
}

// ProaClass names the kind of an error of package client, "" if it is none.
func ProaClass(err error) string {
	for _, kind := range proaFailures {
		if !errors.Is(err, kind) {
			continue
		}
		if errors.Is(err, client.ErrOutcomeUnknown) {
			return kind.Error() + ", outcome unknown"
		}
		return kind.Error()
	}
	return ""
}

// CloseAll closes what close closes of each client.
func CloseAll[T any](clients []T, close func(T) error) (err error) {
	for _, c := range clients {
		err = errors.Join(err, close(c))
	}
	return err
}
