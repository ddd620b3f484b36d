package storage

import (
	"bytes"

	"github.com/proa-kv/proa/command"
)

// row is the state of one row as the commands of a write batch have left it.
type row struct {
	hash     uint64
	key      []byte
	value    []byte // valid if hasValue
	version  uint64
	expireAt uint64
	shard    uint16
	loaded   bool // the fields below and above are known
	exists   bool // as a record; it may have expired
	hasValue bool
	dirty    bool   // differs from the database
	joint    bool   // changed by a command that changes several rows at once
	fresh    bool   // read from the database in this write batch, not yet in the cache
	counted  uint32 // the entry of the write batch whose growth has its value counted in
}

// visible reports whether the loaded row exists and has not expired at now.
func (r *row) visible(now uint64) bool { return r.exists && visible(r.expireAt, now) }

// expiry returns when the loaded row expires, 0 if it does not or is not visible.
func (r *row) expiry(now uint64) uint64 {
	if !r.visible(now) {
		return 0
	}
	return r.expireAt
}

// indexed returns under which expiry the loaded row is in the expiry index, 0: none.
func (r *row) indexed() uint64 {
	if !r.exists {
		return 0
	}
	return r.expireAt
}

// present returns the value of the loaded row for a command that takes an absent row
// for an empty one.
func (r *row) present(now uint64) []byte {
	if !r.visible(now) {
		return nil
	}
	return r.value
}

// show puts the visible row into out.
func (r *row) show(out *command.Result, now uint64, withValue bool) {
	out.HasRow = true
	out.RowVersion = r.version
	out.RowTTL = ttlLeft(r.expireAt, now)
	if withValue {
		out.Value = r.value
	}
}

// rowSet is the table of the rows touched in a write batch: open addressing with
// linear probing over row numbers. A cell counts only if it carries the
// current generation, so that starting a write batch clears nothing.
type rowSet struct {
	cells      []rowSetCell
	generation uint32
	rows       []row
}

type rowSetCell struct {
	hash       uint64
	generation uint32
	row        uint32
}

const (
	rowSetCellsMin  = 1 << 10
	rowSetCellsKeep = 1 << 17 // a larger table is given back after the write batch
)

func (o *rowSet) reset() {
	if len(o.cells) == 0 || len(o.cells) > rowSetCellsKeep {
		*o = rowSet{cells: make([]rowSetCell, rowSetCellsMin)}
	}
	o.generation++
	if o.generation == 0 { // wrapped: old cells would look current
		clear(o.cells)
		o.generation = 1
	}
	clear(o.rows) // lets go of the last write batch's entries
	o.rows = o.rows[:0]
}

// find returns the row of key, which it adds, not loaded, if it is not there.
// The pointer is valid until the next find. key is kept.
func (o *rowSet) find(shard uint16, key []byte, hash uint64) *row {
	mask := uint64(len(o.cells) - 1)
	i := hash & mask
	for ; o.cells[i].generation == o.generation; i = (i + 1) & mask {
		if o.cells[i].hash != hash {
			continue
		}
		if r := &o.rows[o.cells[i].row]; r.shard == shard && bytes.Equal(r.key, key) {
			return r
		}
	}
	if 2*(len(o.rows)+1) > len(o.cells) {
		o.grow()
		return o.find(shard, key, hash)
	}
	o.cells[i] = rowSetCell{hash: hash, generation: o.generation, row: uint32(len(o.rows))}
	o.rows = append(o.rows, row{hash: hash, key: key, shard: shard})
	return &o.rows[len(o.rows)-1]
}

func (o *rowSet) grow() {
	o.cells = make([]rowSetCell, 2*len(o.cells))
	mask := uint64(len(o.cells) - 1)
	for n := range o.rows {
		i := o.rows[n].hash & mask
		for o.cells[i].generation == o.generation {
			i = (i + 1) & mask
		}
		o.cells[i] = rowSetCell{hash: o.rows[n].hash, generation: o.generation, row: uint32(n)}
	}
}

// arena holds bytes that must live until the end of a write batch. What it hands out
// is never moved or reused before reset.
type arena struct {
	chunk []byte
	taken int // bytes handed out since the last reset
}

const (
	arenaChunkMin = 64 << 10
	arenaChunkMax = 4 << 20
)

// alloc returns n bytes of undefined content.
func (a *arena) alloc(n int) []byte {
	a.taken += n
	if n > cap(a.chunk)-len(a.chunk) {
		if n > arenaChunkMax/4 {
			return make([]byte, n)
		}
		// The old chunk stays alive as long as views of it do.
		size := min(max(2*cap(a.chunk), arenaChunkMin), arenaChunkMax)
		a.chunk = make([]byte, 0, max(size, n))
	}
	start := len(a.chunk)
	a.chunk = a.chunk[:start+n]
	return a.chunk[start : start+n : start+n]
}

func (a *arena) copy(b []byte) []byte {
	c := a.alloc(len(b))
	copy(c, b)
	return c
}

func (a *arena) reset() { a.chunk, a.taken = a.chunk[:0], 0 }
