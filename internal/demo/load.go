package demo

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/proa-kv/proa/internal/ledger"
)

const (
	workersPerShard = 2
	keysPerWorker   = 32
	valueBytes      = 128

	// callTimeout bounds one call of the load. It spans a failover.
	callTimeout = 10 * time.Second

	// failurePause keeps callers that fail at once from spinning.
	failurePause = 10 * time.Millisecond
)

// load is a bounded number of callers, each with keys of its own, all of one
// shard. A caller writes growing numbers to its keys in turn. It reads each key
// twice for each write: after it, where a stale replica would show, and before
// the next, where a write that was lost meanwhile would show. What is written
// over unread could be lost unseen.
type load struct {
	store   store
	workers []*worker
	running sync.WaitGroup

	acked, missed, failed atomic.Int64

	mu            sync.Mutex
	sampled       time.Time                // begin of the interval
	writes, reads *hdrhistogram.Histogram  // of the interval, in µs
	acks          map[int]*acknowledgement // by shard
	marked        time.Time                // by mark
}

// acknowledgement is when writes to a shard were acknowledged since the mark.
type acknowledgement struct {
	last    time.Time     // or the mark
	longest time.Duration // between two
	any     bool          // since the mark
}

// worker is one caller.
type worker struct {
	shard int
	keys  []*ledger.Record
}

func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, int64(10*callTimeout/time.Microsecond), 3)
}

// newLoad makes callers for each shard, of which tags are hash tags.
func newLoad(s store, tags map[uint16]string) *load {
	l := &load{store: s, writes: newHistogram(), reads: newHistogram(), acks: make(map[int]*acknowledgement, len(tags))}
	for shard, tag := range tags {
		l.acks[int(shard)] = &acknowledgement{}
		for i := range workersPerShard {
			w := &worker{shard: int(shard)}
			for k := range keysPerWorker {
				w.keys = append(w.keys, &ledger.Record{Key: fmt.Appendf(nil, "demo:{%s}:%d", tag, i*keysPerWorker+k)})
			}
			l.workers = append(l.workers, w)
		}
	}
	return l
}

// start lets the callers begin. They end with the context.
func (l *load) start(ctx context.Context) {
	l.mark()
	l.mu.Lock()
	l.sampled = time.Now()
	l.mu.Unlock()
	for _, w := range l.workers {
		l.running.Go(func() { l.work(ctx, w) })
	}
}

// wait returns when all callers have ended.
func (l *load) wait() { l.running.Wait() }

func (l *load) work(ctx context.Context, w *worker) {
	value := make([]byte, valueBytes)
	for i := 0; ctx.Err() == nil; i++ {
		r := w.keys[i%len(w.keys)]
		if !l.read(ctx, r) || !l.write(ctx, w.shard, r, value) || !l.read(ctx, r) {
			pause(ctx, failurePause)
		}
	}
}

// write stores the next number. A call that fails may or may not have stored
// it.
func (l *load) write(ctx context.Context, shard int, r *ledger.Record, value []byte) (ok bool) {
	r.Next(value)
	// The load's end must not cut writes off: their outcome would be unknown.
	call, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	begin := time.Now()
	if err := l.store.put(call, r.Key, value); err != nil {
		l.failed.Add(1)
		return false
	}
	now := time.Now()
	r.Acknowledge()
	l.acked.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	observe(l.writes, now.Sub(begin))
	l.acks[shard].note(now)
	return true
}

// note notes an acknowledgement.
func (a *acknowledgement) note(now time.Time) {
	a.longest = max(a.longest, now.Sub(a.last))
	a.last, a.any = now, true
}

// read checks that nothing older than what was acknowledged comes back.
func (l *load) read(ctx context.Context, r *ledger.Record) (ok bool) {
	call, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	begin := time.Now()
	value, found, err := l.store.get(call, r.Key)
	if err != nil {
		l.failed.Add(1)
		return false
	}
	if !r.Allows(value, found) {
		l.missed.Add(1)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	observe(l.reads, time.Since(begin))
	return true
}

// observe records one duration, the largest there is room for at most.
func observe(h *hdrhistogram.Histogram, d time.Duration) {
	_ = h.RecordValue(min(d.Microseconds(), h.HighestTrackableValue()))
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// mark begins to measure pauses.
func (l *load) mark() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.marked = time.Now()
	for _, a := range l.acks {
		*a = acknowledgement{last: l.marked}
	}
}

// serveWithin is how recent the last acknowledgement of a shard that serves is.
const serveWithin = 250 * time.Millisecond

// allServe says which shard has acknowledged nothing lately. A reply that was
// on its way when a leader was killed does not count: that shard falls silent
// right after.
func (l *load) allServe(context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if now.Sub(l.marked) < 2*serveWithin {
		return errors.New("it is too early to tell")
	}
	for shard, a := range l.acks {
		if !a.any || now.Sub(a.last) > serveWithin {
			return fmt.Errorf("shard %d acknowledges nothing", shard)
		}
	}
	return nil
}

// pauses returns the longest times without an acknowledgement since the mark:
// of the shards given, and of the others.
func (l *load) pauses(of []int) (hit, others time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	in := map[int]bool{}
	for _, shard := range of {
		in[shard] = true
	}
	for shard, a := range l.acks {
		if in[shard] {
			hit = max(hit, a.longest)
		} else {
			others = max(others, a.longest)
		}
	}
	return hit, others
}

// figures are the load's, of one interval or of all.
type figures struct {
	writeRate, readRate   float64 // per second
	write50, write99      time.Duration
	read50, read99        time.Duration
	acked, missed, failed int64 // since the start
}

// sample returns the figures since the last sample.
func (l *load) sample() figures {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	seconds := max(now.Sub(l.sampled).Seconds(), 1e-3)
	quantile := func(h *hdrhistogram.Histogram, q float64) time.Duration {
		return time.Duration(h.ValueAtQuantile(q)) * time.Microsecond
	}
	f := figures{
		writeRate: float64(l.writes.TotalCount()) / seconds, readRate: float64(l.reads.TotalCount()) / seconds,
		write50: quantile(l.writes, 50), write99: quantile(l.writes, 99),
		read50: quantile(l.reads, 50), read99: quantile(l.reads, 99),
		acked: l.acked.Load(), missed: l.missed.Load(), failed: l.failed.Load(),
	}
	l.writes.Reset()
	l.reads.Reset()
	l.sampled = now
	return f
}

func (l *load) totals() (acked, missed, failed int64) {
	return l.acked.Load(), l.missed.Load(), l.failed.Load()
}

func (l *load) keys() int { return len(l.workers) * keysPerWorker }

// verify reads every key back and returns how many hold something older than
// what was acknowledged, or something that was never written. The load must
// have ended.
func (l *load) verify(ctx context.Context) (missing int, err error) {
	for _, w := range l.workers {
		n, err := ledger.Missing(ctx, w.keys, func(ctx context.Context, key []byte) ([]byte, bool, error) {
			call, cancel := context.WithTimeout(ctx, verifyTimeout)
			defer cancel()
			return l.store.get(call, key)
		})
		if missing += n; err != nil {
			return missing, err
		}
	}
	return missing, nil
}
