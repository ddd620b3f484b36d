//go:build linux

package rig

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
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

// Loop is a closed loop: each caller is a goroutine that makes its next call when
// it has the answer to the one before.
type Loop struct {
	Callers          int
	Warmup, Duration time.Duration
	// Timeout bounds the wait for the first answer and for the last ones.
	Timeout   time.Duration
	ServerCPU func() (time.Duration, error)
}

// Call makes one call, and returns which of two kinds it was.
type Call func(ctx context.Context) (kind int, err error)

// Run lets callers make their calls and returns the samples of all of them and of
// each kind. A call that fails is counted by its class; without any answer at all, or
// when the end of ctx or of the timeout breaks off calls, Run fails itself.
func (l *Loop) Run(ctx context.Context, caller func(i int) Call, class func(error) string) (all Sample, kinds [2]Sample, err error) {
	r, err := l.run(ctx, caller, class)
	if err != nil {
		return all, kinds, err
	}
	ops := float64(r.Ops)
	all = SampleOfKind(&r.KindResult)
	all.Rate, all.Server, all.Generator = ops/r.elapsed.Seconds(), float64(r.serverCPU)/ops, float64(r.generatorCPU)/ops
	all.Failures = r.failures
	for _, n := range r.failures {
		all.Failed += n
	}
	for k := range kinds {
		kinds[k] = SampleOfKind(&r.kinds[k])
	}
	return all, kinds, nil
}

// result is what callers measured. Only calls that were answered well while they
// were measuring are in KindResult.
type result struct {
	bench.KindResult
	kinds                   [2]bench.KindResult
	failures                map[string]uint64 // calls that failed meanwhile, by class
	elapsed                 time.Duration
	serverCPU, generatorCPU time.Duration
}

// failurePause is how long a caller waits after a failure: a server that refuses
// at once is not to be kept busy with refusing.
const failurePause = time.Millisecond

// recorder is the result of some of the callers: a histogram for each would
// cost more cache than the locks of a few cost time.
type recorder struct {
	mu       sync.Mutex
	kinds    [2]bench.KindResult
	failures map[string]uint64
}

const recorders = 16

// phase is how far a load has come.
type phase = int32

const (
	warming phase = iota
	measuring
	done
)

func (l *Loop) run(ctx context.Context, caller func(i int) Call, class func(error) string) (*result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w := work{Loop: l, class: class}
	// What an earlier measurement left behind is not to be paid for here.
	runtime.GC()
	var callers sync.WaitGroup
	for i := range l.Callers {
		callers.Go(func() { w.call(ctx, caller(i), &w.recorders[i%recorders]) })
	}
	total, err := w.measure(ctx)
	w.phase.Store(done)
	if err != nil {
		cancel(err)
	}
	late := time.AfterFunc(l.Timeout, func() { cancel(errLate) })
	callers.Wait()
	late.Stop()
	if cause := context.Cause(ctx); cause != nil {
		return nil, cause
	}
	for i := range w.recorders {
		w.recorders[i].addTo(total)
	}
	if total.Ops == 0 {
		return nil, fmt.Errorf("not one call was answered: %v", total.failures)
	}
	return total, nil
}

var errLate = errors.New("calls stayed unanswered")

// work is a load that is being made.
type work struct {
	*Loop
	class     func(error) string
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
	r := &result{failures: map[string]uint64{}}
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
	for late := time.Now().Add(w.Timeout); !w.answered.Load(); {
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
func (w *work) call(ctx context.Context, call Call, into *recorder) {
	for w.phase.Load() != done {
		begin := time.Now()
		kind, err := call(ctx)
		latency := time.Since(begin)
		if w.phase.Load() == measuring {
			into.add(kind, latency, err, w.class)
			if !w.answered.Load() { // mostly read, so that the callers share it
				w.answered.Store(true)
			}
		}
		if err != nil && Pause(ctx, failurePause) != nil {
			return
		}
	}
}

func (r *recorder) add(kind int, latency time.Duration, err error, class func(error) string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		r.kinds[kind].Record(latency)
		return
	}
	if r.failures == nil {
		r.failures = map[string]uint64{}
	}
	r.failures[class(err)]++
}

func (r *recorder) addTo(sum *result) {
	for k := range r.kinds {
		sum.kinds[k].Merge(&r.kinds[k])
		sum.Merge(&r.kinds[k])
	}
	for class, n := range r.failures {
		sum.failures[class] += n
	}
}

// Callers is a load of one kind of request through a Driver.
type Callers struct {
	Loop                // its Timeout also bounds each write of Preload
	Op         bench.Op // bench.Get or bench.Put
	Keys, Seed uint64
	Key        func(dst []byte, n uint64) []byte // appends key n; nil: bench.AppendKey
	Value      []byte
}

// Run makes the load through d.
func (l *Callers) Run(ctx context.Context, d Driver) (Sample, error) {
	s, _, err := l.Loop.Run(ctx, l.caller(d), classOf(d))
	return s, err
}

// caller returns the callers that make the load through d.
func (l *Callers) caller(d Driver) func(int) Call {
	return func(i int) Call {
		keys := rand.New(rand.NewPCG(l.Seed, uint64(i)))
		key := make([]byte, 0, bench.KeyBytes)
		return func(ctx context.Context) (int, error) {
			key = l.appendKey(key[:0], keys.Uint64N(l.Keys))
			return 0, l.once(ctx, d, i, key)
		}
	}
}

func (l *Callers) appendKey(dst []byte, n uint64) []byte {
	if l.Key != nil {
		return l.Key(dst, n)
	}
	return bench.AppendKey(dst, n)
}

func (l *Callers) once(ctx context.Context, d Driver, caller int, key []byte) error {
	if l.Op == bench.Put {
		return d.Put(ctx, caller, key, l.Value)
	}
	n, err := d.Get(ctx, caller, key)
	if err == nil && n != len(l.Value) {
		err = errWrongValue
	}
	return err
}

var errWrongValue = errors.New("a value of another length than was written")

// classOf returns what names the kind of an error of a driver. There are few kinds,
// whatever addresses and numbers the errors contain.
func classOf(d Driver) func(error) string {
	return func(err error) string {
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
}

// Preload writes every key once. A write that fails is made again until the
// timeout is over.
func (l *Callers) Preload(ctx context.Context, d Driver) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Uint64
	var callers sync.WaitGroup
	for i := range l.Callers {
		callers.Go(func() {
			for n := next.Add(1) - 1; n < l.Keys; n = next.Add(1) - 1 {
				if err := l.putWithRetry(ctx, d, i, l.appendKey(nil, n)); err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	callers.Wait()
	return context.Cause(ctx)
}

// putWithRetry writes a key, again and again within the timeout.
func (l *Callers) putWithRetry(ctx context.Context, d Driver, caller int, key []byte) error {
	limited, cancel := context.WithTimeout(ctx, l.Timeout)
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
			return fmt.Errorf("a write failed for %v: %w", l.Timeout, failure)
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
