package client

import (
	"context"
	"errors"
	"time"
)

// Batch collects operations that are sent in one frame. They are carried out in
// order and atomically if their keys are in one shard (see NonAtomic); a write
// whose condition fails has no effect and does not stop the others. The zero
// value is an empty batch. A Batch may be sent again; it must not be used by
// several goroutines at once.
type Batch struct {
	ops       []Operation
	nonAtomic bool
}

// NewBatch returns an empty batch.
func NewBatch() *Batch { return &Batch{} }

// Put adds a Put.
func (b *Batch) Put(key, value []byte, opts ...PutOption) *Batch {
	return b.Add(OpPut(key, value, opts...))
}

// Delete adds a Delete.
func (b *Batch) Delete(key []byte, opts ...DeleteOption) *Batch { return b.Add(OpDelete(key, opts...)) }

// Incr adds an Incr.
func (b *Batch) Incr(key []byte, delta int64) *Batch { return b.Add(OpIncr(key, delta)) }

// Expire adds an Expire.
func (b *Batch) Expire(key []byte, ttl time.Duration) *Batch { return b.Add(OpExpire(key, ttl)) }

// Persist adds a Persist.
func (b *Batch) Persist(key []byte) *Batch { return b.Add(OpPersist(key)) }

// Add adds operations; an OpPing is refused when the batch is sent.
func (b *Batch) Add(ops ...Operation) *Batch {
	b.ops = append(b.ops, ops...)
	return b
}

// NonAtomic allows keys of several shards; the batch is then atomic within
// each shard only. Without it such a batch fails with ErrCrossShard.
func (b *Batch) NonAtomic() *Batch {
	b.nonAtomic = true
	return b
}

// Len returns the number of operations.
func (b *Batch) Len() int { return len(b.ops) }

// Reset empties the batch and keeps its memory.
func (b *Batch) Reset() *Batch {
	clear(b.ops)
	b.ops, b.nonAtomic = b.ops[:0], false
	return b
}

// rest is what is left to be done of a non-atomic batch.
type rest struct {
	batch Batch
	at    []int         // where its operations stand in the whole
	asked time.Duration // by the servers, to wait before another attempt
}

// rest returns the operations that had no effect and may have one if they
// are sent again. Those of one shard share their fate, so their order stays.
func (b *Batch) rest(results []Result) (r rest) {
	r.batch.nonAtomic = true
	for i := range results {
		var e *Error
		if errors.As(results[i].Err, &e) && e.Outcome == NotDone && e.Status.Retry() {
			r.batch.ops = append(r.batch.ops, b.ops[i])
			r.at = append(r.at, i)
			r.asked = max(r.asked, e.RetryAfter)
		}
	}
	return r
}

// pause waits before another attempt, and returns false if there is no
// time for one.
func (k *caller) pause(ctx context.Context, attempts int, asked time.Duration, until int64) bool {
	pause := retryPause(attempts, asked)
	if until != 0 && k.c.now()+int64(pause) >= until {
		return false
	}
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
		return !k.c.dispatcher.isClosed()
	case <-ctx.Done():
		return false
	}
}

// bounded returns a context that ends at until, on the client's clock; 0: with ctx.
func (k *caller) bounded(ctx context.Context, until int64) (context.Context, context.CancelFunc) {
	if until == 0 {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, time.Duration(until-k.c.now()))
}
