package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/proa-kv/proa/protocol"
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
	keys  []record
}

// record is what is known of a key. Its worker alone uses it while the load
// runs.
type record struct {
	key   []byte
	acked uint64 // the newest number that was acknowledged
	tried uint64 // the newest number that was sent
}

func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, int64(10*callTimeout/time.Microsecond), 3)
}

// drawsMax is how many keys are looked at before a shard counts as one that no
// key belongs to. A shard that owns an eighth of the slots is full after a few
// hundred.
const drawsMax = 1_000_000

// newLoad draws keys for each shard.
func newLoad(s store, shardOf func(uint16) int) (*load, error) {
	const perShard = workersPerShard * keysPerWorker
	drawn := make(map[int][]record, shards)
	for n, full := 0, 0; full < shards; n++ {
		if n == drawsMax {
			return nil, fmt.Errorf("only %d of %d shards have keys", full, shards)
		}
		key := fmt.Appendf(nil, "demo:%d", n)
		shard := shardOf(protocol.Slot(key))
		if len(drawn[shard]) == perShard {
			continue
		}
		drawn[shard] = append(drawn[shard], record{key: key})
		if len(drawn[shard]) == perShard {
			full++
		}
	}
	l := &load{store: s, writes: newHistogram(), reads: newHistogram(), acks: make(map[int]*acknowledgement, shards)}
	for shard, records := range drawn {
		l.acks[shard] = &acknowledgement{}
		for keys := range slices.Chunk(records, keysPerWorker) {
			l.workers = append(l.workers, &worker{shard, keys})
		}
	}
	return l, nil
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
	value := bytes.Repeat([]byte{'.'}, valueBytes)
	for i := 0; ctx.Err() == nil; i++ {
		r := &w.keys[i%len(w.keys)]
		if !l.read(ctx, r) || !l.write(ctx, w.shard, r, value) || !l.read(ctx, r) {
			pause(ctx, failurePause)
		}
	}
}

// write stores the next number. A call that fails may or may not have stored
// it.
func (l *load) write(ctx context.Context, shard int, r *record, value []byte) (ok bool) {
	r.tried++
	number := strconv.AppendUint(value[:0], r.tried, 10)
	value[len(number)] = ' '
	// The load's end must not cut writes off: their outcome would be unknown.
	call, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	begin := time.Now()
	if err := l.store.put(call, r.key, value); err != nil {
		l.failed.Add(1)
		return false
	}
	now := time.Now()
	r.acked = r.tried
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
func (l *load) read(ctx context.Context, r *record) (ok bool) {
	call, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	begin := time.Now()
	n, err := l.number(call, r)
	if err != nil {
		l.failed.Add(1)
		return false
	}
	if n < r.acked || n > r.tried {
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

// errNoNumber is a value that no caller wrote.
var errNoNumber = errors.New("the value is not one that was written")

// number reads the number stored under a key; 0 where there is none.
func (l *load) number(ctx context.Context, r *record) (uint64, error) {
	value, err := l.store.get(ctx, r.key)
	if err != nil || value == nil {
		return 0, err
	}
	digits, _, _ := bytes.Cut(value, []byte{' '})
	n, err := strconv.ParseUint(string(digits), 10, 64)
	if err != nil {
		return 0, errNoNumber
	}
	return n, nil
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
		for i := range w.keys {
			r := &w.keys[i]
			call, cancel := context.WithTimeout(ctx, verifyTimeout)
			n, err := l.number(call, r)
			cancel()
			switch {
			case errors.Is(err, errNoNumber):
				missing++
			case err != nil:
				return missing, fmt.Errorf("reading the keys back: %w", err)
			case n < r.acked || n > r.tried:
				missing++
			}
		}
	}
	return missing, nil
}
