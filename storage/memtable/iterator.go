package memtable

import (
	"bytes"
	"slices"
	"unsafe"

	"github.com/proa-kv/proa/internal/prefetch"
)

// Iterator walks the keys of a range in one direction, as they are in snapshots
// of several tables. Of each key it has the newest record: a later run of a table
// goes before an earlier one, a newer table before an older one.
type Iterator struct {
	reverse bool
	runs    []run    // what is left of them, the newest first
	ranges  []Ranges // of each table, the newest first

	key     []byte
	record  Record
	deleted bool
	hidden  bool
}

// run is what is left of a sorted run.
type run struct {
	snapshot *Snapshot
	level    int      // number of the snapshot among the tables
	places   []uint32 // the next one is at the front, or at the back in reverse
	place    uint32   // of the next record
	key      []byte   // its key
}

// NewIterator returns an iterator on a list of snapshots, the newest table first,
// within [lower, upper). It stands before the first record.
func NewIterator(snapshots []Snapshot, l List, lower, upper []byte, reverse bool) Iterator {
	it := Iterator{reverse: reverse}
	for level := range snapshots {
		s := &snapshots[level]
		it.ranges = append(it.ranges, s.ranges)
		for _, places := range slices.Backward(s.runs(l)) {
			first, last := s.table.search(places, lower), s.table.search(places, upper)
			if first >= last {
				continue
			}
			if r := (run{snapshot: s, level: level, places: places[first:last]}); r.settle(reverse) {
				it.runs = append(it.runs, r)
			}
		}
	}
	return it
}

// search returns the number of places of a run whose keys are below key.
func (t *Table) search(places []uint32, key []byte) int {
	n, _ := slices.BinarySearchFunc(places, key, func(place uint32, key []byte) int {
		return bytes.Compare(t.at(place).Key(), key)
	})
	return n
}

// lookahead is how far ahead of the record at hand others are fetched.
const lookahead = 8

// settle finds the next record that the snapshot has, and reports whether there
// is one.
func (r *run) settle(reverse bool) bool {
	t := r.snapshot.table
	for len(r.places) > 0 {
		place := r.places[0]
		if reverse {
			place = r.places[len(r.places)-1]
		} else if len(r.places) > lookahead {
			t.prefetch(r.places[lookahead])
		}
		if r.place = t.before(r.snapshot.end, place); r.place != 0 {
			r.key = t.at(r.place).Key()
			return true
		}
		r.step(reverse)
	}
	return false
}

func (r *run) step(reverse bool) {
	if reverse {
		r.places = r.places[:len(r.places)-1]
	} else {
		r.places = r.places[1:]
	}
}

// prefetch fetches the beginning of the record at place, all of it if it is
// small.
func (t *Table) prefetch(place uint32) {
	at := int(place) * unit
	for end := min(at+256, len(t.arena)); at < end; at += 64 {
		prefetch.Line(unsafe.Pointer(&t.arena[at]))
	}
}

// Next moves to the next key, and reports whether there is one.
func (it *Iterator) Next() bool {
	newest := -1
	if it.record != nil {
		it.pass()
	}
	for i := range it.runs {
		if newest < 0 || it.before(it.runs[i].key, it.key) {
			newest, it.key = i, it.runs[i].key
		}
	}
	if newest < 0 {
		it.key, it.record = nil, nil
		return false
	}
	r := &it.runs[newest]
	it.record = r.snapshot.table.at(r.place)
	it.hidden = it.hiding(r.level, r.place, it.key) != nil
	it.deleted = it.hidden || it.record.Deleted()
	return true
}

// pass moves every run that stands on key.
func (it *Iterator) pass() {
	left := it.runs[:0]
	for i := range it.runs {
		r := it.runs[i]
		if bytes.Equal(r.key, it.key) {
			if r.step(it.reverse); !r.settle(it.reverse) {
				continue
			}
		}
		left = append(left, r)
	}
	it.runs = left
}

func (it *Iterator) before(a, b []byte) bool {
	order := bytes.Compare(a, b)
	return order != 0 && (order < 0) != it.reverse
}

// Key returns the key that the iterator stands on, nil if it is on none. It is
// valid as long as the snapshots.
func (it *Iterator) Key() []byte { return it.key }

// Value returns the newest value of the key.
func (it *Iterator) Value() []byte { return it.record.Value() }

// Deleted reports whether the key is deleted.
func (it *Iterator) Deleted() bool { return it.deleted }

// Hidden reports whether that is so because of a range.
func (it *Iterator) Hidden() bool { return it.hidden }

// Deletes returns the range whose deletion concerns what is older than all tables
// under a key, nil if none does.
func (it *Iterator) Deletes(key []byte) *Range { return it.hiding(len(it.ranges), 0, key) }

// hiding returns the range that hides a record of key that is in the table of that
// level, at place, or below all of them.
func (it *Iterator) hiding(level int, place uint32, key []byte) *Range {
	for i, d := range it.ranges[:min(level+1, len(it.ranges))] {
		if len(d) == 0 {
			continue
		}
		if r := d.find(key); r != nil && (i < level || r.place > place) {
			return r
		}
	}
	return nil
}
