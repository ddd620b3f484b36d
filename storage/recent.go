package storage

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"
)

// Records on their way to Pebble lie in tables of recent records: Apply adds
// to the active one; when it is full it is frozen, drained into Pebble, and
// retired. See docs/adr/0004.
//
// A table is an arena of records, in the order in which they were added, and a
// hash index of their keys. A record never changes: a new state of a key is a
// new record, which takes the old one's place in the index and points back to
// it. Those before committed are there for readers, the others are not, so
// that all records of a pass appear at once, and the place in the arena tells
// which of two records is newer.
//
// One goroutine at a time adds (Apply, within the window); any number read,
// without locks. The arena has no pointers for the garbage collector.
//
// A record, little endian, padded to a multiple of 8:
//
//	0  next record of the bucket (4)
//	4  previous record of the same key, 0: none (4)
//	8  next record of the same key, 0: none (4)
//	12 length of the value, highest bit: the key is deleted (4)
//	16 length of the key (2)
//	18 key, value, as Pebble is to have them
//
// Places are in units of 8 bytes; 0 is none. The first and the third field are
// read while they are written, so only atomically.
const (
	recentHeaderBytes = 18
	recentUnit        = 8
	recentDeleted     = 1 << 31

	// A bucket for each recentBucketBytes of the arena: about one in three is
	// in use when the table is full of small rows.
	recentBucketBytes = 64
	recentBytesMin    = 1 << 10
)

// recentClass tells the lists of a table apart.
type recentClass uint8

const (
	recentRows recentClass = iota
	recentExpiries
	recentGone
	recentSessions
	recentClasses
)

type recentTable struct {
	arena     []byte
	buckets   []atomic.Uint32
	end       uint32        // where the next record goes; the writer's
	committed atomic.Uint32 // records before it are visible

	lists  [recentClasses]recentList
	ranges deletedRanges // changes within the window and under recentTables.mu
	metas  []shardMeta   // as of the freeze

	drained chan struct{} // closed when Pebble has it all
	pins    int           // views of it that are open; under recentTables.mu
	retired bool          // no longer among the tables; under recentTables.mu
}

// recentList is the records of a class.
type recentList struct {
	order []uint32 // as they were added; extended within the window
	// runs hold order[:covered]: each is in the order of the keys, each key
	// once, with the newest record that the run knows; later runs are newer.
	// A run never changes once it is made. For rows they are guarded by
	// Store.sorting, for expiries they are Apply's.
	runs    [][]uint32
	covered int
}

// shardMeta is the state of a shard to which the records of a table lead.
type shardMeta struct {
	shard int
	meta  meta
	conf  *InstallMeta // nil: Pebble has it
}

// newRecentTable makes a table whose records may take size bytes.
func newRecentTable(size int) *recentTable {
	size = (size + 2*recentUnit - 1) &^ (recentUnit - 1) // place 0 is not used
	arena, _, _ := heapMemory(size)
	buckets := 1 << bits.Len(uint(size/recentBucketBytes))
	t := &recentTable{arena: arena, buckets: make([]atomic.Uint32, buckets)}
	// The first records of a fresh table touch all of its index. Apply must not
	// be what waits for that memory.
	adviseHuge(unsafe.Slice((*byte)(unsafe.Pointer(&t.buckets[0])), len(t.buckets)*int(unsafe.Sizeof(t.buckets[0]))))
	clear(t.buckets)
	t.reset()
	return t
}

// reset empties a table that nobody reads.
func (t *recentTable) reset() {
	if t.end > 1 {
		clear(t.buckets)
	}
	t.end = 1
	t.committed.Store(1)
	for i := range t.lists {
		l := &t.lists[i]
		*l = recentList{order: l.order[:0]}
	}
	t.metas, t.ranges = t.metas[:0], nil
	t.drained = make(chan struct{})
	t.retired = false
}

func (t *recentTable) empty() bool     { return t.end == 1 }
func (t *recentTable) used() int       { return int(t.end-1) * recentUnit }
func (t *recentTable) room() int       { return len(t.arena) - int(t.end)*recentUnit }
func (t *recentTable) fits(n int) bool { return n <= t.room() }

// recentBytes is what a record of such a key and value takes.
func recentBytes(key, value int) int {
	return (recentHeaderBytes + key + value + recentUnit - 1) &^ (recentUnit - 1)
}

// recent is a view of a record in the arena.
type recent []byte

func (t *recentTable) at(place uint32) recent { return t.arena[int(place)*recentUnit:] }

func (r recent) next() *atomic.Uint32 { return (*atomic.Uint32)(unsafe.Pointer(&r[0])) }
func (r recent) previous() uint32     { return binary.LittleEndian.Uint32(r[4:]) }
func (r recent) newer() *atomic.Uint32 {
	return (*atomic.Uint32)(unsafe.Pointer(&r[8]))
}
func (r recent) deleted() bool   { return binary.LittleEndian.Uint32(r[12:])&recentDeleted != 0 }
func (r recent) valueBytes() int { return int(binary.LittleEndian.Uint32(r[12:]) &^ recentDeleted) }
func (r recent) shard() int      { return int(r[recentHeaderBytes])<<8 | int(r[recentHeaderBytes+1]) }
func (r recent) keyBytes() int   { return int(binary.LittleEndian.Uint16(r[16:])) }

func (r recent) key() []byte {
	end := recentHeaderBytes + r.keyBytes()
	return r[recentHeaderBytes:end:end]
}

func (r recent) value() []byte {
	start := recentHeaderBytes + r.keyBytes()
	end := start + r.valueBytes()
	return r[start:end:end]
}

// reserve begins the next record, for which there must be room. The caller
// writes key and value and then links it.
func (t *recentTable) reserve(key, value int) recent {
	r := t.at(t.end)
	binary.LittleEndian.PutUint32(r[12:], uint32(value))
	binary.LittleEndian.PutUint16(r[16:], uint16(key))
	return r
}

// reserveDeletion is reserve for a record that says that its key is deleted.
func (t *recentTable) reserveDeletion(key int) recent {
	r := t.reserve(key, 0)
	binary.LittleEndian.PutUint32(r[12:], recentDeleted)
	return r
}

// link adds the record that was reserved last, under the hash of its key. It
// is visible after commit.
//
// A reader may be on its way through the bucket. If it still meets the record
// replaced here it goes on from there as the bucket was: what that leaves out
// was added after the reader had looked how far committed is.
func (t *recentTable) link(class recentClass, hash uint64, r recent) {
	place, key := t.end, r.key()
	var previous, next uint32
	at := t.bucket(hash)
	for old := at.Load(); old != 0; old = at.Load() {
		o := t.at(old)
		if bytes.Equal(o.key(), key) {
			previous, next = old, o.next().Load()
			o.newer().Store(place)
			break
		}
		at = o.next()
	}
	r.next().Store(next)
	binary.LittleEndian.PutUint32(r[4:], previous)
	r.newer().Store(0)
	at.Store(place)
	t.lists[class].order = append(t.lists[class].order, place)
	t.end += uint32(recentBytes(len(key), r.valueBytes()) / recentUnit)
}

// append adds a copy of a record of another table, which no lookup finds.
func (t *recentTable) append(r recent) {
	to := t.reserve(r.keyBytes(), r.valueBytes())
	if r.deleted() {
		to = t.reserveDeletion(r.keyBytes())
	}
	copy(to.key(), r.key())
	copy(to.value(), r.value())
	t.end += uint32(recentBytes(r.keyBytes(), r.valueBytes()) / recentUnit)
}

// commit makes the records added so far visible, all at once.
func (t *recentTable) commit() { t.committed.Store(t.end) }

func (t *recentTable) bucket(hash uint64) *atomic.Uint32 {
	return &t.buckets[hash&uint64(len(t.buckets)-1)]
}

// prefetchBucket and then prefetchRecord fetch what link will look at first.
func (t *recentTable) prefetchBucket(hash uint64) { prefetch(unsafe.Pointer(t.bucket(hash))) }

func (t *recentTable) prefetchRecord(hash uint64) {
	if place := t.bucket(hash).Load(); place != 0 {
		prefetch(unsafe.Pointer(&t.arena[int(place)*recentUnit]))
	}
}

// deletion is a record that says that its key is deleted, whichever it is.
var deletion = recent(binary.LittleEndian.AppendUint32(make([]byte, 12, recentHeaderBytes), recentDeleted))[:recentHeaderBytes]

// get returns the newest visible record of key. The caller holds what
// recentTables.get says.
func (t *recentTable) get(hash uint64, key []byte) (recent, bool) {
	place := t.placeOf(hash, key)
	if t.ranges.hides(key, place) {
		return deletion, true
	}
	if place == 0 {
		return nil, false
	}
	return t.at(place), true
}

// placeOf returns the place of the newest visible record of key, 0 if there is none.
func (t *recentTable) placeOf(hash uint64, key []byte) uint32 {
	committed := t.committed.Load()
	for place := t.bucket(hash).Load(); place != 0; {
		r := t.at(place)
		if !bytes.Equal(r.key(), key) {
			place = r.next().Load()
			continue
		}
		for place >= committed {
			if place = r.previous(); place == 0 {
				return 0
			}
			r = t.at(place)
		}
		return place
	}
	return 0
}

// recentTables are the tables there are. active and frozen change within the
// window and under mu, but for a frozen one that has been drained: it goes
// under mu alone. So whoever holds either may read active, and whoever holds
// the window knows that no table will be frozen.
type recentTables struct {
	mu     sync.RWMutex
	active *recentTable
	frozen *recentTable // nil: none
	spare  *recentTable // empty, for the next freeze; may be nil
	size   int          // of a table's arena
}

// get returns the newest visible record of key, of which it is a view. The
// caller holds mu, or is sure in another way that the tables stay.
func (x *recentTables) get(hash uint64, key []byte) (recent, bool) {
	if r, ok := x.active.get(hash, key); ok {
		return r, true
	}
	if x.frozen != nil {
		return x.frozen.get(hash, key)
	}
	return nil, false
}

// commit makes what the pass has added to the active table visible, all at once.
// Where it has deleted ranges, ranges are those of the table from now on. The
// caller holds the window.
func (x *recentTables) commit(ranges deletedRanges, changed bool) {
	if !changed {
		x.active.commit()
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.active.ranges = ranges
	x.active.commit()
}

// pinned are the tables as of a moment, the newest first. Until unpin their
// records stay where they are.
type pinned [2]*recentTable

func (x *recentTables) pin() pinned {
	x.mu.Lock()
	defer x.mu.Unlock()
	p := pinned{x.active, x.frozen}
	for _, t := range p {
		if t != nil {
			t.pins++
		}
	}
	return p
}

func (x *recentTables) unpin(p pinned) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, t := range p {
		if t == nil {
			continue
		}
		if t.pins--; t.pins == 0 && t.retired {
			x.recycle(t)
		}
	}
}

// retire lets go of a table that is no longer among the tables.
func (x *recentTables) retire(t *recentTable) {
	t.retired = true
	if t.pins == 0 {
		x.recycle(t)
	}
}

// oversized reports whether t was made for a pass that is larger than usual tables.
func (x *recentTables) oversized(t *recentTable) bool { return t.room()+t.used() > x.size }

// recycle keeps one table of the usual size; larger ones go back to the heap.
func (x *recentTables) recycle(t *recentTable) {
	if x.spare == nil && !x.oversized(t) {
		t.reset()
		x.spare = t
	}
}

// draining returns a channel that is closed when the frozen table has been
// drained, nil if nothing is frozen.
func (x *recentTables) draining() <-chan struct{} {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if x.frozen == nil {
		return nil
	}
	return x.frozen.drained
}

// fill returns how much of the active table is in use, from 0 to 1.
func (x *recentTables) fill() float64 {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return float64(x.active.committed.Load()-1) * recentUnit / float64(len(x.active.arena))
}

// drains reports whether there is a frozen table with something of shard.
func (x *recentTables) drains(shard int) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.frozen != nil && slices.ContainsFunc(x.frozen.metas, func(m shardMeta) bool { return m.shard == shard })
}

// freeze makes the active table the frozen one, of which there must be none,
// and begins another with room for need bytes. An empty table without metas is
// only replaced, by a larger one if need be; then there is nothing to drain.
// The caller holds the window.
func (x *recentTables) freeze(metas []shardMeta, need int) (frozen *recentTable) {
	x.mu.Lock()
	defer x.mu.Unlock()
	old := x.active
	nothing := old.empty() && len(metas) == 0
	switch {
	case nothing && old.fits(need):
		return nil
	case need > x.size:
		x.active = newRecentTable(need + x.size/2) // what comes next must not wait for the drain
	case x.spare != nil:
		x.active, x.spare = x.spare, nil
	default:
		x.active = newRecentTable(x.size)
	}
	if nothing {
		x.retire(old)
		return nil
	}
	old.metas = append(old.metas, metas...)
	x.frozen = old
	return old
}

// release retires the frozen table, which Pebble now has.
func (x *recentTables) release() {
	x.mu.Lock()
	defer x.mu.Unlock()
	t := x.frozen
	x.frozen = nil
	close(t.drained)
	x.retire(t)
}
