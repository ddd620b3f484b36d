package memtable

import (
	"bytes"
	"slices"
)

// Range is a range of keys of which the records before place are deleted.
type Range struct {
	From, To []byte // inclusive, exclusive
	place    uint32
}

// Ranges do not overlap, and are in the order of their keys. They do not change
// once they are made.
type Ranges []Range

// find returns the range that key is in, nil if there is none.
func (d Ranges) find(key []byte) *Range {
	i := d.search(key)
	if i == len(d) || !bytes.Equal(d[i].From, key) {
		i--
	}
	if i < 0 || bytes.Compare(key, d[i].To) >= 0 {
		return nil
	}
	return &d[i]
}

// hides reports whether a record of key at place is deleted. 0 is the place of
// whatever is in an older table.
func (d Ranges) hides(key []byte, place uint32) bool {
	if len(d) == 0 {
		return false
	}
	r := d.find(key)
	return r != nil && r.place > place
}

// with returns the ranges with another one, which is newer than all of them.
func (d Ranges) with(n Range) Ranges {
	all := make(Ranges, 0, len(d)+2)
	for _, r := range d {
		if bytes.Compare(r.From, n.From) < 0 {
			before := r
			if bytes.Compare(before.To, n.From) > 0 {
				before.To = n.From
			}
			all = append(all, before)
		}
	}
	all = append(all, n)
	for _, r := range d {
		if bytes.Compare(r.To, n.To) > 0 {
			if bytes.Compare(r.From, n.To) < 0 {
				r.From = n.To
			}
			all = append(all, r)
		}
	}
	return all
}

// within returns the ranges that begin in [lower, upper).
func (d Ranges) within(lower, upper []byte) Ranges {
	first := d.search(lower)
	return d[first:max(first, d.search(upper))]
}

// search returns the number of ranges that begin below key.
func (d Ranges) search(key []byte) int {
	i, _ := slices.BinarySearchFunc(d, key, func(r Range, key []byte) int { return bytes.Compare(r.From, key) })
	return i
}

// AddRange deletes the keys in [from, to): older records of this table, and of
// older ones. Records that are added later are not concerned. It takes as much
// room as a record of from and to.
func (t *Table) AddRange(from, to []byte) {
	r := t.Reserve(len(from), len(to))
	copy(r.Key(), from)
	copy(r.Value(), to)
	t.end += uint32(r.size() / unit)
	t.added = t.added.with(Range{From: r.Key(), To: r.Value(), place: t.end})
	t.rangesAdded = true
}

// RangeCount returns how many ranges were published. Adding another costs a copy
// of them.
func (t *Table) RangeCount() int { return len(t.ranges) }
