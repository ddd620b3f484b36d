package storage

import (
	"slices"
	"sync"

	"github.com/proa-kv/proa/storage/memtable"
)

// Records on their way to Pebble are in memtables: Apply adds to the mutable one.
// When that is full it is rotated: it becomes the immutable one and another takes
// its place. The immutable one is flushed to Pebble and retired. See
// docs/adr/0004-apply-durability.md.

const (
	memtableBytesMin = 1 << 10

	// memtableRangesMax is how many ranges a memtable may have before it is
	// rotated. Each deletion copies those there are.
	memtableRangesMax = 1 << 10
)

// table is a memtable with its place among the others.
type table struct {
	*memtable.Table
	metas   []shardMeta   // as of the rotation
	flushed chan struct{} // closed when Pebble has it all
	pins    int           // its readers that hold no lock; under memtables.mu
	retired bool          // no longer among the memtables; under memtables.mu
}

// shardMeta is the state of a shard to which the records of a memtable lead.
type shardMeta struct {
	shard int
	meta  meta
	conf  *InstallMeta // nil: Pebble has it
}

func newTable(size int) *table {
	return &table{Table: memtable.New(size), flushed: make(chan struct{})}
}

// takes reports whether the memtable has room for n bytes, and for so many ranges.
func (t *table) takes(n, ranges int) bool {
	return t.Fits(n) && (ranges == 0 || t.RangeCount() == 0 || t.RangeCount()+ranges <= memtableRangesMax)
}

// memtables are the memtables there are. mutable and immutable change under
// Store.publishing and under mu, but for an immutable one that has been flushed:
// it goes under mu alone. So the holder of either may read mutable, and the
// holder of publishing knows that nothing is rotated.
type memtables struct {
	mu        sync.RWMutex
	mutable   *table
	immutable *table // nil: none
	spare     *table // empty, for the next rotation; may be nil
	size      int    // of a memtable
}

func (x *memtables) init(size int) {
	x.size, x.mutable, x.spare = size, newTable(size), newTable(size)
}

// get returns the newest published record of key, of which it is a view. The
// caller holds mu, or is sure in another way that the memtables stay.
func (x *memtables) get(hash uint64, key []byte) (memtable.Record, bool) {
	if r, ok := x.mutable.Get(hash, key); ok {
		return r, true
	}
	if x.immutable != nil {
		return x.immutable.Get(hash, key)
	}
	return nil, false
}

// publish makes what was added to the mutable memtable visible, all at once. The
// caller holds Store.publishing.
func (x *memtables) publish(ranges bool) {
	if ranges {
		x.mu.Lock()
		defer x.mu.Unlock()
	}
	x.mutable.Publish()
}

// pinned are the memtables as of a moment, the newest first. Until unpin their
// records stay where they are.
type pinned []*table

func (x *memtables) pin() pinned {
	x.mu.Lock()
	defer x.mu.Unlock()
	p := pinned{x.mutable}
	if x.immutable != nil {
		p = append(p, x.immutable)
	}
	for _, t := range p {
		t.pins++
	}
	return p
}

// snapshots returns a snapshot of each. The caller holds Store.publishing, or is
// Apply.
func (p pinned) snapshots() (all []memtable.Snapshot) {
	for _, t := range p {
		all = append(all, t.Snapshot())
	}
	return all
}

func (x *memtables) unpin(p pinned) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, t := range p {
		if t.pins--; t.pins == 0 && t.retired {
			x.recycle(t)
		}
	}
}

// retire lets go of a memtable that is no longer among the others.
func (x *memtables) retire(t *table) {
	t.retired = true
	if t.pins == 0 {
		x.recycle(t)
	}
}

// oversized reports whether t was made for a write batch that is larger than usual
// memtables.
func (x *memtables) oversized(t *table) bool { return t.Size() > x.size+x.size/2 }

// recycle keeps one memtable of the usual size; larger ones go back to the heap.
func (x *memtables) recycle(t *table) {
	if x.spare == nil && !x.oversized(t) {
		t.Reset()
		x.spare = &table{Table: t.Table, metas: t.metas[:0], flushed: make(chan struct{})}
	}
}

// flushing returns a channel that is closed when the immutable memtable has been
// flushed, nil if there is none.
func (x *memtables) flushing() <-chan struct{} {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if x.immutable == nil {
		return nil
	}
	return x.immutable.flushed
}

// flushes reports whether there is an immutable memtable with something of shard.
func (x *memtables) flushes(shard int) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.immutable != nil && slices.ContainsFunc(x.immutable.metas, func(m shardMeta) bool { return m.shard == shard })
}

// rotate makes the mutable memtable the immutable one, of which there must be
// none, and begins another with room for need bytes. An empty one without metas
// is only replaced, by a larger one if need be; then there is nothing to flush.
// The caller holds Store.publishing.
func (x *memtables) rotate(metas []shardMeta, need int) (immutable *table) {
	x.mu.Lock()
	defer x.mu.Unlock()
	old := x.mutable
	nothing := old.Empty() && len(metas) == 0
	switch {
	case nothing && old.Fits(need):
		return nil
	case need > x.size:
		x.mutable = newTable(need + x.size/2) // what comes next must not wait for the flush
	case x.spare != nil:
		x.mutable, x.spare = x.spare, nil
	default:
		x.mutable = newTable(x.size)
	}
	if nothing {
		x.retire(old)
		return nil
	}
	old.metas = append(old.metas, metas...)
	x.immutable = old
	return old
}

// release retires the immutable memtable, which Pebble now has.
func (x *memtables) release() {
	x.mu.Lock()
	defer x.mu.Unlock()
	t := x.immutable
	x.immutable = nil
	close(t.flushed)
	x.retire(t)
}
