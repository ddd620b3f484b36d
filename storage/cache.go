package storage

import (
	"bytes"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/proa-kv/proa/bufpool"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/internal/prefetch"
)

// The row cache is an array of segments, chosen by the top bits of a row's
// hash. A segment has a mutex, a ring of entries, and an index of the ring;
// both are plain bytes outside the Go heap, without pointers.
//
// Entries are added at the head of the ring. When there is no room the entry
// at the tail goes, unless it was used since it was last there: then it moves
// to the head (second chance). An entry is overwritten in place where the new
// value fits. An entry may say that the key is absent.
//
// An entry, little endian, padded to a multiple of 8:
//
//	0  size of the entry (4), its lowest bits are flags
//	4  tag (4)
//	8  length of the value (4)
//	12 length of the key (2)
//	14 shard (2)
//	16 version (8)
//	24 expire-at (8)
//	32 key, value
//
// An entry without flagLive is garbage; only its size counts.
//
// The index is open addressing with linear probing. A cell is tag<<32 plus the
// entry's offset in units of 8 bytes plus one; 0 is an empty cell. The tag is
// the low half of the hash, its low bits are the cell's home.
const (
	entryHeaderBytes = 32

	flagLive   = 1
	flagUsed   = 2
	flagAbsent = 4
	entryFlags = 7

	// rowBytesMax bounds key and value of a cached row, and a segment's eighth
	// does: one large row must not push out thousands of small ones, nor hold
	// the segment's lock for long while it is copied.
	rowBytesMax = 64 << 10

	segmentsMax     = 256
	segmentBytesMin = 256 << 10 // more segments only above that
	indexCellsMin   = 512

	// Moving used entries out of the way of one new entry stops at these
	// bounds; then even a used one goes.
	chancesMax     = 16
	chanceBytesMax = 64 << 10

	stripes = 64 // of a segment, for the coherence of fills
)

// rowCache is safe for use from any goroutine. begin, publish, add and load
// are for Apply.
type rowCache struct {
	segments []segment
	shift    uint // hash >> shift is the segment
	release  func() error

	// exclusions are what of the cache is not valid; nil: all is. Segments
	// are locked where they are looked at.
	exclusions   atomic.Pointer[exclusions]
	exclusionsMu sync.Mutex // who changes them
	tidying      bool       // somebody looks for deleted rows; under exclusionsMu
}

type segment struct {
	mu      sync.Mutex
	ring    []byte
	cells   []uint64 // all there may be
	index   []uint64 // cells[:a power of two]
	rowMax  int
	head    int // where the next entry goes
	tail    int // the oldest entry
	used    int // bytes from tail to head
	rows    int // cells in use
	stripes [stripes]stripe

	hits, misses, evictions uint64

	_ [64]byte // keeps the next segment's mutex off this one's cache line
}

// stripe orders the fills by readers with Apply. A reader that missed
// remembers changes, reads Pebble, and fills only if changes is the same and
// no change is pending: otherwise what it read may be older than what the
// cache had, or than what other readers already saw.
type stripe struct {
	changes uint32
	pending uint32 // rows between begin and publish
}

// fillTicket is a reader's permission to fill; the zero value permits nothing.
type fillTicket struct {
	changes uint32
	valid   bool
}

// cachedRow is the fixed part of an entry.
type cachedRow struct {
	version  uint64
	expireAt uint64
	absent   bool
}

// allocate returns n zero bytes and what gives them back.
type allocate func(n int) (memory []byte, release func() error, err error)

// heapMemory takes the bytes from the Go heap, where the race detector sees
// them.
func heapMemory(n int) ([]byte, func() error, error) {
	words := make([]uint64, (n+7)/8)
	memory := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), n)
	return memory, func() error { return nil }, nil
}

// newRowCache makes a cache of at most size bytes. Below the size of a useful
// segment it has no segments, and every lookup misses.
func newRowCache(size int64, memory allocate) (*rowCache, error) {
	c := &rowCache{release: func() error { return nil }}
	if size < segmentBytesMin {
		return c, nil
	}
	n := 1
	for n < segmentsMax && size/int64(2*n) >= segmentBytesMin {
		n *= 2
	}
	each := int(min(size/int64(n), 8<<30)) &^ (4096 - 1)
	all, release, err := memory(each * n)
	if err != nil {
		return nil, err
	}
	c.release = release
	c.segments = make([]segment, n)
	c.shift = uint(64 - bits.TrailingZeros(uint(n)))
	for i := range c.segments {
		c.segments[i].init(all[i*each : (i+1)*each : (i+1)*each])
	}
	return c, nil
}

// init divides memory: an eighth, rounded down to a power of two, is index.
func (s *segment) init(memory []byte) {
	cells := 1 << (bits.Len(uint(len(memory)/8/8)) - 1)
	s.cells = unsafe.Slice((*uint64)(unsafe.Pointer(unsafe.SliceData(memory))), cells)
	s.index = s.cells[:min(cells, indexCellsMin)]
	s.ring = memory[8*cells:]
	s.rowMax = min(rowBytesMax, len(memory)/8)
}

// close gives the memory back. Lookups after it miss.
func (c *rowCache) close() error {
	c.eachSegment(func(s *segment) { s.ring, s.cells, s.index, s.rows = nil, nil, nil, 0 })
	return c.release()
}

// eachSegment calls f for each segment, with the segment locked.
func (c *rowCache) eachSegment(f func(*segment)) {
	for i := range c.segments {
		s := &c.segments[i]
		s.mu.Lock()
		f(s)
		s.mu.Unlock()
	}
}

func (c *rowCache) segment(hash uint64) *segment {
	if len(c.segments) == 0 {
		return nil
	}
	if len(c.segments) == 1 {
		return &c.segments[0]
	}
	return &c.segments[hash>>c.shift]
}

func (s *segment) stripe(hash uint64) *stripe { return &s.stripes[hash>>40%stripes] }

// lookup finds the row of key. If it is there and exists at now, its value is
// appended to dst unless it is longer than valueMax. On a miss the ticket permits to fill.
func (c *rowCache) lookup(dst *bufpool.Buffer, hash uint64, shard int, key []byte, now uint64, valueMax int) (command.Row, command.ReadState, fillTicket) {
	s := c.segment(hash)
	if s == nil {
		return command.Row{}, command.ReadMiss, fillTicket{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	d := c.exclusions.Load()
	if d.bars(uint16(shard)) {
		s.misses++
		return command.Row{}, command.ReadMiss, fillTicket{}
	}
	_, at := s.search(hash, uint16(shard), key)
	if at < 0 || d != nil && d.deletes(s.entry(at)) {
		s.misses++
		return command.Row{}, command.ReadMiss, fillTicket{changes: s.stripe(hash).changes, valid: s.ring != nil}
	}
	s.hits++
	e := s.entry(at)
	e.markUsed()
	r := e.row()
	if r.absent || !visible(r.expireAt, now) {
		return command.Row{}, command.ReadAbsent, fillTicket{}
	}
	if value := e.value(); len(value) <= valueMax {
		dst.Grow(len(value))
		dst.B = append(dst.B, value...)
	}
	return rowAt(now, r.version, r.expireAt, e.valueBytes()), command.ReadFound, fillTicket{}
}

// fill adds a row read from Pebble, if the ticket still permits it.
func (c *rowCache) fill(ticket fillTicket, hash uint64, shard int, key []byte, r cachedRow, value []byte) {
	if !ticket.valid {
		return
	}
	s := c.segment(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.stripe(hash); t.pending == 0 && t.changes == ticket.changes && c.exclusions.Load().permits(uint16(shard), key) {
		s.put(hash, uint16(shard), key, r, value)
	}
}

// load makes r known from the cache, with its value where withValue, and
// reports whether it could.
func (c *rowCache) load(r *row, withValue bool, bytes *arena) bool {
	s := c.segment(r.hash)
	if s == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	d := c.exclusions.Load()
	if d.bars(r.shard) {
		return false
	}
	_, at := s.search(r.hash, r.shard, r.key)
	if at < 0 || d != nil && d.deletes(s.entry(at)) {
		return false
	}
	e := s.entry(at)
	e.markUsed()
	found := e.row()
	r.loaded, r.exists = true, !found.absent
	r.version, r.expireAt = found.version, found.expireAt
	if r.exists && withValue {
		r.value, r.hasValue = bytes.copy(e.value()), true
	}
	return true
}

// begin announces that a change of r is about to be published: until publish,
// no reader fills. A row that changes together with others leaves the cache,
// so that no reader sees it as it was after it saw one of the others as it is.
func (c *rowCache) begin(r *row) {
	s := c.segment(r.hash)
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stripe(r.hash).pending++
	if r.joint {
		s.drop(r.hash, r.shard, r.key)
		return
	}
	if tag := uint32(r.hash); s.rows > 0 {
		// The entry that publish will look at, if it is in its home cell.
		if i := int(tag) & (len(s.index) - 1); s.index[i] != 0 {
			prefetch.Line(unsafe.Pointer(&s.ring[s.place(i)]))
		}
	}
}

// prefetch fetches what begin will look at.
func (c *rowCache) prefetch(hash uint64) {
	if s := c.segment(hash); s != nil {
		prefetch.Line(unsafe.Pointer(&s.mu))
		prefetch.Line(unsafe.Pointer(s.stripe(hash)))
	}
}

// publish puts the new state of r into the cache.
func (c *rowCache) publish(r *row) {
	s := c.segment(r.hash)
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.stripe(r.hash)
	t.pending--
	t.changes++
	if c.exclusions.Load().bars(r.shard) {
		return
	}
	s.put(r.hash, r.shard, r.key, r.cached(), r.value)
}

// add puts an unchanged row that Apply has read into the cache.
func (c *rowCache) add(r *row) {
	s := c.segment(r.hash)
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !c.exclusions.Load().bars(r.shard) {
		s.put(r.hash, r.shard, r.key, r.cached(), r.value)
	}
}

// bar makes the cache know nothing of shard until unbar. It may be called again
// before that, and then takes as many calls of unbar.
func (c *rowCache) bar(shard int) {
	c.change(func(d *exclusions) { d.barred = append(d.barred, uint16(shard)) })
}

// unbar drops all rows of shard, makes all fills under way void, and undoes
// bar. Of other shards no more than those fills are lost.
func (c *rowCache) unbar(shard int) {
	c.eachSegment(func(s *segment) {
		s.voidFills()
		s.forgetIf(func(e entry) bool { return e.shard() == uint16(shard) })
	})
	c.change(func(d *exclusions) {
		at := slices.Index(d.barred, uint16(shard))
		d.barred = slices.Delete(d.barred, at, at+1)
	})
}

// forgetIf drops the rows of which f says so.
func (s *segment) forgetIf(f func(entry) bool) {
	s.each(func(at int, e entry) {
		if f(e) {
			s.forget(s.cellOf(at), at)
		}
	})
}

// each calls visit for each live entry, with its place.
func (s *segment) each(visit func(at int, e entry)) {
	for at, left := s.tail, s.used; left > 0; {
		e := s.entry(at)
		size := e.size()
		if e.head()&flagLive != 0 {
			visit(at, e)
		}
		left -= size
		if at += size; at == len(s.ring) {
			at = 0
		}
	}
}

func (r *row) cached() cachedRow {
	return cachedRow{version: r.version, expireAt: r.expireAt, absent: !r.exists}
}

// entry is a view of an entry in the ring.
type entry []byte

func (s *segment) entry(at int) entry { return s.ring[at:] }

func (e entry) head() uint32    { return le.Uint32(e) }
func (e entry) size() int       { return int(e.head() &^ entryFlags) }
func (e entry) tag() uint32     { return le.Uint32(e[4:]) }
func (e entry) valueBytes() int { return int(le.Uint32(e[8:])) }
func (e entry) keyBytes() int   { return int(le.Uint16(e[12:])) }
func (e entry) shard() uint16   { return le.Uint16(e[14:]) }
func (e entry) key() []byte     { return e[entryHeaderBytes : entryHeaderBytes+e.keyBytes()] }
func (e entry) room() int       { return e.size() - entryHeaderBytes - e.keyBytes() }

func (e entry) value() []byte {
	start := entryHeaderBytes + e.keyBytes()
	return e[start : start+e.valueBytes()]
}

func (e entry) row() cachedRow {
	return cachedRow{
		version:  le.Uint64(e[16:]),
		expireAt: le.Uint64(e[24:]),
		absent:   e.head()&flagAbsent != 0,
	}
}

func (e entry) setHead(size int, flags uint32) {
	le.PutUint32(e, uint32(size)|flags)
}

func (e entry) markUsed() {
	if h := e.head(); h&flagUsed == 0 { // reading must not dirty the line each time
		le.PutUint32(e, h|flagUsed)
	}
}

// set writes what may change while an entry keeps its place.
func (e entry) set(size int, flags uint32, r cachedRow, value []byte) {
	flags |= flagLive
	if r.absent {
		flags |= flagAbsent
		r, value = cachedRow{}, nil
	}
	e.setHead(size, flags)
	le.PutUint32(e[8:], uint32(len(value)))
	le.PutUint64(e[16:], r.version)
	le.PutUint64(e[24:], r.expireAt)
	copy(e[entryHeaderBytes+e.keyBytes():], value)
}

// search returns the cell and the place of a row's entry, -1, -1 if it has
// none.
func (s *segment) search(hash uint64, shard uint16, key []byte) (cell, at int) {
	if s.rows == 0 {
		return -1, -1
	}
	tag := uint32(hash)
	mask := uint32(len(s.index) - 1)
	for i := tag & mask; s.index[i] != 0; i = (i + 1) & mask {
		if uint32(s.index[i]>>32) != tag {
			continue
		}
		at := s.place(int(i))
		if e := s.entry(at); e.shard() == shard && bytes.Equal(e.key(), key) {
			return int(i), at
		}
	}
	return -1, -1
}

func (s *segment) place(cell int) int { return int(uint32(s.index[cell])-1) * 8 }

// put makes the cache say r and value of the row, or nothing if they are too
// large.
func (s *segment) put(hash uint64, shard uint16, key []byte, r cachedRow, value []byte) {
	if s.ring == nil {
		return
	}
	if r.absent {
		value = nil
	}
	cell, at := s.search(hash, shard, key)
	if at >= 0 {
		// Keeping far more room than the value needs would waste the ring.
		if e := s.entry(at); len(value) <= e.room() && e.room() <= 2*len(value)+64 {
			e.set(e.size(), e.head()&flagUsed, r, value)
			return
		}
		s.forget(cell, at)
	}
	if len(key)+len(value) > s.rowMax {
		return
	}
	s.insert(uint32(hash), shard, key, r, value)
}

// drop removes the row's entry, if it has one.
func (s *segment) drop(hash uint64, shard uint16, key []byte) {
	if cell, at := s.search(hash, shard, key); at >= 0 {
		s.forget(cell, at)
	}
}

// insert adds an entry for a row that has none.
func (s *segment) insert(tag uint32, shard uint16, key []byte, r cachedRow, value []byte) {
	for 4*(s.rows+1) > 3*len(s.index) {
		if len(s.index) < len(s.cells) {
			s.growIndex()
		} else {
			s.evict()
		}
	}
	size := (entryHeaderBytes + len(key) + len(value) + 7) &^ 7
	at := s.reserve(size)
	e := s.entry(at)
	le.PutUint32(e[4:], tag)
	le.PutUint16(e[12:], uint16(len(key)))
	le.PutUint16(e[14:], shard)
	copy(e[entryHeaderBytes:], key)
	e.set(size, 0, r, value)
	s.link(tag, at)
}

// forget makes the entry at a cell garbage.
func (s *segment) forget(cell, at int) {
	e := s.entry(at)
	e.setHead(e.size(), 0)
	s.unlink(cell)
}

func (s *segment) link(tag uint32, at int) {
	mask := uint32(len(s.index) - 1)
	i := tag & mask
	for s.index[i] != 0 {
		i = (i + 1) & mask
	}
	s.index[i] = uint64(tag)<<32 | uint64(at/8+1)
	s.rows++
}

// unlink empties a cell and moves later cells of its run back, so that no
// search ends too early.
func (s *segment) unlink(cell int) {
	mask := len(s.index) - 1
	hole := cell
	for i := (hole + 1) & mask; s.index[i] != 0; i = (i + 1) & mask {
		home := int(s.index[i]>>32) & mask
		// The cell may move to the hole unless its home lies after the hole.
		if (i-home)&mask >= (i-hole)&mask {
			s.index[hole] = s.index[i]
			hole = i
		}
	}
	s.index[hole] = 0
	s.rows--
}

// cellOf returns the cell of the live entry at a place.
func (s *segment) cellOf(at int) int {
	tag := s.entry(at).tag()
	want := uint64(tag)<<32 | uint64(at/8+1)
	mask := uint32(len(s.index) - 1)
	i := tag & mask
	for s.index[i] != want {
		i = (i + 1) & mask
	}
	return int(i)
}

// growIndex doubles the index and fills it anew from the ring.
func (s *segment) growIndex() {
	s.index = s.cells[:2*len(s.index)]
	clear(s.index)
	s.rows = 0
	s.each(func(at int, e entry) { s.link(e.tag(), at) })
}

// reserve makes room for an entry of size bytes at the head and returns its
// place. The caller must fill it before anything else happens to the ring.
func (s *segment) reserve(size int) int {
	chances, chanceBytes := chancesMax, chanceBytesMax
	for {
		switch {
		case s.used == 0:
			s.head, s.tail = 0, 0
		case s.head == s.tail: // full
			s.pass(&chances, &chanceBytes)
			continue
		}
		if s.head >= s.tail && s.head+size > len(s.ring) {
			s.pad()
			continue
		}
		if s.head < s.tail && s.head+size > s.tail {
			s.pass(&chances, &chanceBytes)
			continue
		}
		at := s.head
		s.advanceHead(size)
		return at
	}
}

// pad fills the ring from the head to its end with garbage.
func (s *segment) pad() {
	size := len(s.ring) - s.head
	s.entry(s.head).setHead(size, 0)
	s.advanceHead(size)
}

func (s *segment) advanceHead(size int) {
	s.used += size
	if s.head += size; s.head == len(s.ring) {
		s.head = 0
	}
}

// pass frees the room of the entry at the tail, which it drops, or moves to
// the head while there are chances.
func (s *segment) pass(chances, chanceBytes *int) {
	e := s.entry(s.tail)
	size, flags := e.size(), e.head()&entryFlags
	if flags&flagLive == 0 || flags&flagUsed == 0 || *chances == 0 || *chanceBytes < size {
		s.evict()
		return
	}
	*chances--
	*chanceBytes -= size
	cell, old := s.cellOf(s.tail), s.tail
	e.setHead(size, flags&^flagUsed)
	s.used -= size
	s.tail += size
	// Between head and the new tail there is room for size bytes: the entry's
	// own. The tail comes round to 0 only after the copy.
	at := s.head
	copy(s.ring[at:at+size], s.ring[old:old+size])
	if s.tail == len(s.ring) {
		s.tail = 0
	}
	s.advanceHead(size)
	s.index[cell] = uint64(s.entry(at).tag())<<32 | uint64(at/8+1)
}

// evict drops the entry at the tail, garbage or not.
func (s *segment) evict() {
	e := s.entry(s.tail)
	size := e.size()
	if e.head()&flagLive != 0 {
		s.unlink(s.cellOf(s.tail))
		s.evictions++
	}
	s.used -= size
	if s.tail += size; s.tail == len(s.ring) {
		s.tail = 0
	}
}

// RowCacheStats is what the row cache holds and what became of lookups by
// readers since Open.
type RowCacheStats struct {
	Rows      int64 // absent keys that are known to be absent included
	Bytes     int64 // of the ring and the index in use
	BytesMax  int64
	Hits      uint64
	Misses    uint64
	Evictions uint64 // rows dropped for want of room
}

func (c *rowCache) stats() (total RowCacheStats) {
	c.eachSegment(func(s *segment) {
		total.Rows += int64(s.rows)
		total.Bytes += int64(s.used + 8*len(s.index))
		total.BytesMax += int64(len(s.ring) + 8*len(s.cells))
		total.Hits += s.hits
		total.Misses += s.misses
		total.Evictions += s.evictions
	})
	return total
}
