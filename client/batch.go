package client

import "time"

// Batch collects writes that travel in one frame. All are carried out in
// order, in one step, if their keys share a shard (see NonAtomic); one whose
// condition fails has no effect and does not stop the others. The zero value
// is an empty batch. A Batch may be sent again; it must not be used by several
// goroutines at once.
type Batch struct {
	ops       []Operation
	nonAtomic bool
}

// NewBatch returns an empty batch.
func NewBatch() *Batch { return &Batch{} }

// Put adds a Put.
func (b *Batch) Put(key, value []byte, opts ...PutOption) *Batch {
	return b.Add(Put(key, value, opts...))
}

// Delete adds a Delete.
func (b *Batch) Delete(key []byte, opts ...DeleteOption) *Batch { return b.Add(Delete(key, opts...)) }

// Incr adds an Incr.
func (b *Batch) Incr(key []byte, delta int64) *Batch { return b.Add(Incr(key, delta)) }

// Expire adds an Expire.
func (b *Batch) Expire(key []byte, ttl time.Duration) *Batch { return b.Add(Expire(key, ttl)) }

// Persist adds a Persist.
func (b *Batch) Persist(key []byte) *Batch { return b.Add(Persist(key)) }

// Add adds operations. Reads and Ping are refused when the batch is sent.
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
