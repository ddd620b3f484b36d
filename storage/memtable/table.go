// Package memtable is the table in memory of an LSM tree: records wait in it, in
// no order but found by key, until it is full and is flushed to sorted files.
//
// # Use
//
// One writer at a time adds records and ranges of deleted keys; Publish makes all
// of them visible at once. Any number of readers look records up with Get, without
// locks. A Snapshot is the table as of one Publish; an Iterator merges snapshots
// of several tables in the order of the keys. A full table is no longer written to;
// when nobody reads it any more, Reset makes it empty for its next use.
//
// # Structure
//
// A table is an arena of records, in the order in which they were added, and a
// hash index of their keys. A record never changes: a new state of a key is a
// new record, which takes the old one's place in the index and points back to
// it. The place in the arena tells which of two records is newer, and whether
// one was published. The arena has no pointers for the garbage collector.
//
// A record, little endian, padded to a multiple of 8:
//
//	0  next record of the bucket (4)
//	4  previous record of the same key, 0: none (4)
//	8  next record of the same key, 0: none (4)
//	12 length of the value, highest bit: the key is deleted (4)
//	16 length of the key (2)
//	18 key, value
//
// Places are in units of 8 bytes; 0 is none. The first and the third field are
// read while they are written, so only atomically.
//
// Nothing is sorted until somebody asks for order; see sort.go.
package memtable

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/proa-kv/proa/internal/prefetch"
)

const (
	headerBytes = 18
	unit        = 8
	deletedFlag = 1 << 31

	// A bucket for each bucketBytes of the arena: about one in three is in use
	// when the table is full of small rows.
	bucketBytes = 64
)

// List names records that are sorted apart from others, by what they are.
type List uint8

// The lists of a table, in the order of the keys that a shard has in them.
const (
	Rows List = iota
	Expiries
	Marks
	Sessions
	Lists // how many there are
)

// Table holds records. Add, AddRange, Publish and what looks at sizes are for
// the writer.
type Table struct {
	arena     []byte
	buckets   []atomic.Uint32
	end       uint32        // where the next record goes; the writer's
	published atomic.Uint32 // records before it are visible
	lists     [Lists]list

	ranges      Ranges // published
	added       Ranges // those, and what the writer has added
	rangesAdded bool   // added is not ranges
}

// list is the records of a List.
type list struct {
	order []uint32 // as they were added; the writer's

	mu sync.Mutex // guards what follows
	// runs hold the first covered records of order: each run is in the order of
	// the keys, each key once, with the newest record that the run knows; later
	// runs are newer. A run never changes once it is made.
	runs    [][]uint32
	covered int
}

// New makes a table whose records may take size bytes. All of its index is
// touched, so that the first records need not wait for that memory.
func New(size int) *Table {
	t := &Table{arena: makeArena(size), buckets: make([]atomic.Uint32, 1<<bits.Len(uint(size/bucketBytes)))}
	clear(t.buckets)
	t.Reset()
	return t
}

// makeArena makes an arena for records of size bytes: zeros, aligned for atomic
// access.
func makeArena(size int) []byte {
	words := make([]uint64, (size+unit-1)/unit+1) // place 0 is not used
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), unit*len(words))
}

// Reset empties a table that nobody reads.
func (t *Table) Reset() {
	if t.end > 1 {
		clear(t.buckets)
	}
	t.end = 1
	t.published.Store(1)
	for i := range t.lists {
		l := &t.lists[i]
		l.order, l.runs, l.covered = l.order[:0], nil, 0
	}
	t.ranges, t.added, t.rangesAdded = nil, nil, false
}

// Size returns how many bytes records may take in all.
func (t *Table) Size() int { return len(t.arena) - unit }

// Empty reports whether nothing was added.
func (t *Table) Empty() bool { return t.end == 1 }

// Fits reports whether there is room for records of n bytes in all, see Bytes.
func (t *Table) Fits(n int) bool { return n <= t.Size()-int(t.end-1)*unit }

// Bytes returns how much room a record with a key and a value of these lengths
// takes.
func Bytes(key, value int) int {
	return (headerBytes + key + value + unit - 1) &^ (unit - 1)
}

// Record is a view of a record. It is valid until the table is reset.
type Record []byte

func (r Record) next() *atomic.Uint32  { return (*atomic.Uint32)(unsafe.Pointer(&r[0])) }
func (r Record) previous() uint32      { return binary.LittleEndian.Uint32(r[4:]) }
func (r Record) newer() *atomic.Uint32 { return (*atomic.Uint32)(unsafe.Pointer(&r[8])) }
func (r Record) valueBytes() int       { return int(binary.LittleEndian.Uint32(r[12:]) &^ deletedFlag) }
func (r Record) keyBytes() int         { return int(binary.LittleEndian.Uint16(r[16:])) }
func (r Record) size() int             { return Bytes(r.keyBytes(), r.valueBytes()) }

// Deleted reports whether the record says that its key is deleted.
func (r Record) Deleted() bool { return binary.LittleEndian.Uint32(r[12:])&deletedFlag != 0 }

// Key returns the key.
func (r Record) Key() []byte {
	end := headerBytes + r.keyBytes()
	return r[headerBytes:end:end]
}

// Value returns the value, which is empty if the key is deleted.
func (r Record) Value() []byte {
	start := headerBytes + r.keyBytes()
	end := start + r.valueBytes()
	return r[start:end:end]
}

func (t *Table) at(place uint32) Record { return t.arena[int(place)*unit:] }

// Reserve begins the next record, for which there must be room. The caller
// writes Key and Value of what it returns, and then adds it.
func (t *Table) Reserve(key, value int) Record {
	r := t.at(t.end)
	binary.LittleEndian.PutUint32(r[12:], uint32(value))
	binary.LittleEndian.PutUint16(r[16:], uint16(key))
	return r
}

// ReserveDeletion is Reserve for a record that says that its key is deleted.
func (t *Table) ReserveDeletion(key int) Record {
	r := t.Reserve(key, 0)
	binary.LittleEndian.PutUint32(r[12:], deletedFlag)
	return r
}

// Add adds the record that was reserved last to a list, under the hash of its
// key. A key is always in the same list.
//
// A reader may be on its way through the bucket. If it still meets the record
// replaced here it goes on from there as the bucket was: what that leaves out
// was added after the reader had looked how far published is.
func (t *Table) Add(l List, hash uint64, r Record) {
	place, key := t.end, r.Key()
	var previous, next uint32
	at := t.bucket(hash)
	for old := at.Load(); old != 0; old = at.Load() {
		o := t.at(old)
		if bytes.Equal(o.Key(), key) {
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
	t.lists[l].order = append(t.lists[l].order, place)
	t.end += uint32(r.size() / unit)
}

// Publish makes everything added so far visible, all at once. Where ranges were
// added the caller must keep readers out meanwhile.
func (t *Table) Publish() {
	if t.rangesAdded {
		t.ranges, t.rangesAdded = t.added, false
	}
	t.published.Store(t.end)
}

func (t *Table) bucket(hash uint64) *atomic.Uint32 {
	return &t.buckets[hash&uint64(len(t.buckets)-1)]
}

// PrefetchBucket, and then PrefetchRecord, fetch what Add will look at first.
func (t *Table) PrefetchBucket(hash uint64) { prefetch.Line(unsafe.Pointer(t.bucket(hash))) }

// PrefetchRecord fetches the first record of the bucket of hash.
func (t *Table) PrefetchRecord(hash uint64) {
	if place := t.bucket(hash).Load(); place != 0 {
		prefetch.Line(unsafe.Pointer(&t.arena[int(place)*unit]))
	}
}

// deletion is a record that says that its key is deleted, whichever it is.
var deletion = Record(binary.LittleEndian.AppendUint32(make([]byte, 12, headerBytes), deletedFlag))[:headerBytes]

// Get returns the newest published record of key, or one without a key that says
// that it is deleted.
func (t *Table) Get(hash uint64, key []byte) (Record, bool) {
	place := t.placeOf(hash, key)
	if t.ranges.hides(key, place) {
		return deletion, true
	}
	if place == 0 {
		return nil, false
	}
	return t.at(place), true
}

// placeOf returns the place of the newest published record of key, 0 if there is
// none.
func (t *Table) placeOf(hash uint64, key []byte) uint32 {
	published := t.published.Load()
	for place := t.bucket(hash).Load(); place != 0; {
		r := t.at(place)
		if bytes.Equal(r.Key(), key) {
			return t.before(published, place)
		}
		place = r.next().Load()
	}
	return 0
}

// before returns the place of the newest record before end of the key that the
// record at place has, 0 if there is none.
func (t *Table) before(end, place uint32) uint32 {
	for place >= end {
		place = t.at(place).previous()
	}
	return place
}
