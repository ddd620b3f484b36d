package storage

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/storage/memtable"
)

// Deletions of ranges.
//
// A DeleteRange is one record, however many rows it deletes: nothing looks for
// them. It hides what is older: rows of its memtable that were
// added before it, older memtables, Pebble. A flush leaves out what is hidden in the
// memtable itself, and hands the range to Pebble as a deletion of a range, in the
// same files as the memtable's rows, so that both become part of the database at
// once. Within a file such a deletion does not concern the file's own records.
//
// In the row cache what it concerns is not looked for either: rows of the range
// up to the version of the deletion are excluded, until all of the cache has
// been looked through in the background.
//
// A DeleteRange of all rows takes the expiry index along, whose entries lie
// behind the rows. The entries of other ranges stay until a Sweep meets them, as
// those do that a plain Put leaves behind.

// deletedRangesMax is after how many ranges a write batch ends: each looks at all its rows.
const deletedRangesMax = 1 << 8

// deletedRange is a range that the write batch has deleted. from and to are those of the
// command, without the shard.
type deletedRange struct {
	shard    int
	from, to []byte // inclusive, exclusive; empty: unbounded
	revision uint64 // of the deletion
}

func (r *deletedRange) all() bool { return len(r.from) == 0 && len(r.to) == 0 }

func (r *deletedRange) contains(key []byte) bool { return contains(r.from, r.to, key) }

// contains reports whether key is in a range whose bounds may be empty: then it
// is unbounded there.
func contains(from, to, key []byte) bool {
	return bytes.Compare(key, from) >= 0 && (len(to) == 0 || bytes.Compare(key, to) < 0)
}

// bounds returns the range of keys of the database.
func (r *deletedRange) bounds() (from, to []byte) {
	from = appendDataKey(nil, r.shard, r.from)
	switch {
	case r.all():
		return from, appendPrefix(nil, r.shard, kindExpiry+1)
	case len(r.to) == 0:
		return from, appendPrefix(nil, r.shard, kindData+1)
	}
	return from, appendDataKey(nil, r.shard, r.to)
}

// deleteRange carries out a DeleteRange. It always has a version of its own: who
// has seen it must not be shown what was before.
func (ex *executor) deleteRange(c *command.Command, out *command.Result) {
	r := deletedRange{ex.shard, c.Key, c.Value, ex.state.revision + 1}
	empty := len(r.to) != 0 && bytes.Compare(r.from, r.to) >= 0
	if ex.state.marked != 0 && !empty {
		// Of which keys rows went nobody knows. What was absent just before it was
		// left alone; what was absent earlier may have been there.
		ex.state.marked = ex.state.revision + 1
		ex.mark(markedSince)
	}
	ex.state.revision++
	out.Version = ex.state.revision
	if empty {
		return
	}
	for i := range ex.rows.rows {
		if row := &ex.rows.rows[i]; int(row.shard) == ex.shard && r.contains(row.key) {
			row.forget()
		}
	}
	if r.all() {
		ex.emptied()
	}
	ex.ranges = append(ex.ranges, r)
}

// forget makes r a row that is not there, and of which the write batch has nothing to
// write.
func (r *row) forget() {
	r.value, r.version, r.expireAt = nil, 0, 0
	r.loaded, r.exists, r.hasValue, r.dirty, r.fresh = true, false, false, false, false
}

// emptied takes note that the shard has no rows, and no expiry index.
func (ex *executor) emptied() {
	ex.state.emptied, ex.state.newExpiry, ex.state.swept = true, never, false
	ex.staged = slices.DeleteFunc(ex.staged, func(r stagedRecord) bool {
		return r.list == memtable.Expiries && int(binary.BigEndian.Uint16(r.key)) == ex.shard
	})
}

// wentInRange reports whether the write batch has deleted what there was of r.
func (b *writeBatch) wentInRange(r *row) bool {
	for i := range b.ranges {
		if d := &b.ranges[i]; d.shard == int(r.shard) && d.contains(r.key) {
			return true
		}
	}
	return false
}

// rangesBytes is what they take.
func (b *writeBatch) rangesBytes() (n int) {
	for i := range b.ranges {
		from, to := b.ranges[i].bounds()
		n += memtable.Bytes(len(from), len(to))
	}
	return n
}
