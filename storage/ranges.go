package storage

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/proa-kv/proa/command"
)

// Deletions of ranges.
//
// A DeleteRange is one record, however many rows it deletes: nothing looks for
// them. It hides what is older: rows of its table of recent records that were
// added before it, older tables, Pebble. A drain leaves out what is hidden in the
// table itself, and hands the range to Pebble as a deletion of a range, in the
// same files as the table's rows, so that both become part of the database at
// once. Within a file such a deletion does not concern the file's own records.
//
// In the row cache what it concerns is not looked for either: rows of the range
// up to the version of the deletion are not believed, until all of the cache has
// been looked through in the background.
//
// A DeleteRange of all rows takes the expiry index along, whose entries lie
// behind the rows. The entries of other ranges stay until a Sweep meets them, as
// those do that a plain Put leaves behind.

const (
	// tableRangesMax is how many ranges a table may have before it is drained.
	// Each deletion copies those there are.
	tableRangesMax = 1 << 10
	// passRangesMax is after how many a pass ends: each looks at all its rows.
	passRangesMax = 1 << 8
)

// deletedRange is a range of keys of the database, of which records before place
// are deleted.
type deletedRange struct {
	from, to []byte // inclusive, exclusive
	place    uint32
}

// deletedRanges do not overlap, and are in the order of their keys. They do not
// change once they are made.
type deletedRanges []deletedRange

// find returns the range that key is in, nil if there is none.
func (d deletedRanges) find(key []byte) *deletedRange {
	i, found := slices.BinarySearchFunc(d, key, func(r deletedRange, key []byte) int {
		return bytes.Compare(r.from, key)
	})
	if !found {
		if i--; i < 0 || bytes.Compare(key, d[i].to) >= 0 {
			return nil
		}
	}
	return &d[i]
}

// hides reports whether a record of key at place is deleted. 0 is the place of
// whatever is in an older table.
func (d deletedRanges) hides(key []byte, place uint32) bool {
	if len(d) == 0 {
		return false
	}
	r := d.find(key)
	return r != nil && r.place > place
}

// with returns the ranges with another one, which is newer than all of them.
func (d deletedRanges) with(n deletedRange) deletedRanges {
	all := make(deletedRanges, 0, len(d)+2)
	for _, r := range d {
		if bytes.Compare(r.from, n.from) < 0 {
			before := r
			if bytes.Compare(before.to, n.from) > 0 {
				before.to = n.from
			}
			all = append(all, before)
		}
	}
	all = append(all, n)
	for _, r := range d {
		if bytes.Compare(r.to, n.to) > 0 {
			if bytes.Compare(r.from, n.to) < 0 {
				r.from = n.to
			}
			all = append(all, r)
		}
	}
	return all
}

// ofShard returns the ranges of a shard. None spans two.
func (d deletedRanges) ofShard(shard int) deletedRanges {
	first := slices.IndexFunc(d, func(r deletedRange) bool { return int(binary.BigEndian.Uint16(r.from)) >= shard })
	if first < 0 {
		return nil
	}
	d = d[first:]
	if end := slices.IndexFunc(d, func(r deletedRange) bool { return int(binary.BigEndian.Uint16(r.from)) > shard }); end >= 0 {
		d = d[:end]
	}
	return d
}

// addRange adds the deletion of [from, to) to ranges, the table's and what the
// pass has added so far. Records that are added later are not concerned.
func (t *recentTable) addRange(ranges deletedRanges, from, to []byte) deletedRanges {
	r := t.reserve(len(from), len(to))
	copy(r.key(), from)
	copy(r.value(), to)
	t.end += uint32(recentBytes(len(from), len(to)) / recentUnit)
	return ranges.with(deletedRange{from: r.key(), to: r.value(), place: t.end})
}

// takes reports whether the table has room for n bytes, and for so many ranges.
func (t *recentTable) takes(n, ranges int) bool {
	return t.fits(n) && (ranges == 0 || len(t.ranges) == 0 || len(t.ranges)+ranges <= tableRangesMax)
}

// passRange is a range that the pass has deleted. from and to are those of the
// command, without the shard.
type passRange struct {
	shard    int
	from, to []byte // inclusive, exclusive; empty: unbounded
	revision uint64 // of the deletion
}

func (r *passRange) all() bool { return len(r.from) == 0 && len(r.to) == 0 }

func (r *passRange) contains(key []byte) bool { return contains(r.from, r.to, key) }

// contains reports whether key is in a range whose bounds may be empty: then it
// is unbounded there.
func contains(from, to, key []byte) bool {
	return bytes.Compare(key, from) >= 0 && (len(to) == 0 || bytes.Compare(key, to) < 0)
}

// bounds returns the range of keys of the database.
func (r *passRange) bounds() (from, to []byte) {
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
func (p *pass) deleteRange(c *command.Command, out *command.Result) {
	r := passRange{p.shard, c.Key, c.Value, p.state.revision + 1}
	empty := len(r.to) != 0 && bytes.Compare(r.from, r.to) >= 0
	if p.state.marked != 0 && !empty {
		// Of which keys rows went nobody knows. What was absent just before it was
		// left alone; what was absent earlier may have been there.
		p.state.marked = p.state.revision + 1
		p.mark(goneSince)
	}
	p.state.revision++
	out.Version = p.state.revision
	if empty {
		return
	}
	for i := range p.rows.rows {
		if row := &p.rows.rows[i]; int(row.shard) == p.shard && r.contains(row.key) {
			row.forget()
		}
	}
	if r.all() {
		p.emptied()
	}
	p.ranges = append(p.ranges, r)
}

// forget makes r a row that is not there, and of which the pass has nothing to
// write.
func (r *row) forget() {
	r.value, r.version, r.expireAt = nil, 0, 0
	r.loaded, r.exists, r.hasValue, r.dirty, r.fresh = true, false, false, false, false
}

// emptied takes note that the shard has no rows, and no expiry index.
func (p *pass) emptied() {
	p.state.emptied, p.state.newExpiry, p.state.swept = true, never, false
	p.staged = slices.DeleteFunc(p.staged, func(r stagedRecord) bool {
		return r.class == recentExpiries && int(binary.BigEndian.Uint16(r.key)) == p.shard
	})
}

// wentInRange reports whether the pass has deleted what there was of r.
func (p *pass) wentInRange(r *row) bool {
	for i := range p.ranges {
		if d := &p.ranges[i]; d.shard == int(r.shard) && d.contains(r.key) {
			return true
		}
	}
	return false
}

// addRanges adds the deletions of the pass to t, before its rows, and returns the
// ranges that t is to have from the commit on.
func (p *pass) addRanges(t *recentTable) deletedRanges {
	ranges := t.ranges
	for i := range p.ranges {
		from, to := p.ranges[i].bounds()
		ranges = t.addRange(ranges, from, to)
	}
	return ranges
}

// rangesBytes is what they take.
func (p *pass) rangesBytes() (n int) {
	for i := range p.ranges {
		from, to := p.ranges[i].bounds()
		n += recentBytes(len(from), len(to))
	}
	return n
}
