package storage

import (
	"bytes"
	"errors"
	"slices"

	"github.com/cockroachdb/pebble/v2"
)

// A cursor walks the records of a range of keys, as they are in the tables of
// recent records and in Pebble, in one direction. Where several have a key the
// newest counts: a later run of a table goes before an earlier one, the active
// table before the frozen one, these before Pebble. Deleted keys are left out.
//
// Pebble may already have what the frozen table holds, or some of it: the
// record is the same.
type cursor struct {
	it      *pebble.Iterator
	reverse bool
	runs    []runCursor     // the newest first
	deleted []deletedRanges // of each table, the newest first

	key    []byte // of the record it stands on, valid until next
	recent recent // the record, nil: it is Pebble's
	stored bool   // it stands on a record
	passed bool   // which is the one of key
	err    error
}

// runCursor is what is left of a run.
type runCursor struct {
	table  *recentTable
	level  int // its number among the tables
	places []uint32
	key    []byte // of the next record in the direction
}

// add lets the cursor see the part of table's runs within [lower, upper), and
// what it has deleted.
func (c *cursor) add(table *recentTable, deleted deletedRanges, runs [][]uint32, lower, upper []byte) {
	level := len(c.deleted)
	c.deleted = append(c.deleted, deleted)
	for _, run := range slices.Backward(runs) {
		first, last := table.search(run, lower), table.search(run, upper)
		if first < last {
			r := runCursor{table: table, level: level, places: run[first:last]}
			r.aim(c.reverse)
			c.runs = append(c.runs, r)
		}
	}
}

// search returns the number of places of a run whose keys are below key.
func (t *recentTable) search(run []uint32, key []byte) int {
	n, _ := slices.BinarySearchFunc(run, key, func(place uint32, key []byte) int {
		return bytes.Compare(t.at(place).key(), key)
	})
	return n
}

func (r *runCursor) place(reverse bool) uint32 {
	if reverse {
		return r.places[len(r.places)-1]
	}
	return r.places[0]
}

// aim sets key.
func (r *runCursor) aim(reverse bool) { r.key = r.table.at(r.place(reverse)).key() }

// step moves on, and reports whether anything is left.
func (r *runCursor) step(reverse bool) bool {
	if reverse {
		r.places = r.places[:len(r.places)-1]
	} else {
		r.places = r.places[1:]
	}
	if len(r.places) == 0 {
		return false
	}
	r.aim(reverse)
	return true
}

// first moves to the first record, and reports whether there is one.
func (c *cursor) first() bool {
	if c.reverse {
		c.stored = c.it.Last()
	} else {
		c.stored = c.it.First()
	}
	return c.settle()
}

// next moves to the next record, and reports whether there is one.
func (c *cursor) next() bool {
	c.passKey()
	return c.settle()
}

// settle finds the next record that is not deleted.
func (c *cursor) settle() bool {
	for {
		if !c.stored && c.err == nil {
			c.err = c.it.Error()
		}
		if c.err != nil {
			return false
		}
		newest := c.nearest()
		if newest < 0 {
			c.recent = nil
			if !c.stored {
				return false
			}
			hiding := c.hiding(len(c.deleted), 0)
			if hiding == nil {
				return true
			}
			c.passRange(hiding)
			continue
		}
		r := &c.runs[newest]
		place := r.place(c.reverse)
		if c.recent = r.table.at(place); !c.recent.deleted() && c.hiding(r.level, place) == nil {
			return true
		}
		c.passKey()
	}
}

// hiding returns the range whose deletion hides a record of key that is in the
// table of that level, at place, or below all of them; nil: it is not deleted.
func (c *cursor) hiding(level int, place uint32) *deletedRange {
	for i, d := range c.deleted[:min(level+1, len(c.deleted))] {
		if len(d) == 0 {
			continue
		}
		if r := d.find(c.key); r != nil && (i < level || r.place > place) {
			return r
		}
	}
	return nil
}

// passRange moves Pebble's iterator over what is deleted at once.
func (c *cursor) passRange(r *deletedRange) {
	if c.reverse {
		c.stored = c.it.SeekLT(r.from)
	} else {
		c.stored = c.it.SeekGE(r.to)
	}
}

// nearest sets key to the next one in the direction, and returns the newest
// run that has it, -1 if only Pebble does or there is none.
func (c *cursor) nearest() int {
	newest := -1
	for i := range c.runs {
		if newest < 0 || c.before(c.runs[i].key, c.key) {
			newest, c.key = i, c.runs[i].key
		}
	}
	c.passed = false
	if !c.stored {
		return newest
	}
	if newest < 0 {
		c.key, c.passed = c.it.Key(), true
		return -1
	}
	switch order := bytes.Compare(c.it.Key(), c.key); {
	case order == 0:
		c.passed = true
	case (order < 0) != c.reverse:
		newest, c.key, c.passed = -1, c.it.Key(), true
	}
	return newest
}

// passKey moves everything that stands on key.
func (c *cursor) passKey() {
	left := c.runs[:0]
	for i := range c.runs {
		if r := c.runs[i]; !bytes.Equal(r.key, c.key) || r.step(c.reverse) {
			left = append(left, r)
		}
	}
	c.runs = left
	if c.passed {
		if c.reverse {
			c.stored = c.it.Prev()
		} else {
			c.stored = c.it.Next()
		}
	}
}

func (c *cursor) before(a, b []byte) bool {
	order := bytes.Compare(a, b)
	return order != 0 && (order < 0) != c.reverse
}

// value returns the record that the cursor stands on, valid until next.
func (c *cursor) value() ([]byte, error) {
	if c.recent != nil {
		return c.recent.value(), nil
	}
	return c.it.ValueAndErr()
}

func (c *cursor) close() error { return c.it.Close() }

// expiryCursor returns a cursor on shard's expiry index from the time from to
// before the time to, with the records of tables. Only Apply uses it, or Open.
func (s *Store) expiryCursor(tables pinned, shard int, from, to uint64) (*cursor, error) {
	lower, upper := appendExpiryBound(nil, shard, from), appendExpiryBound(nil, shard, to)
	c := &cursor{}
	for _, t := range tables {
		if t != nil {
			l := &t.lists[recentExpiries]
			c.add(t, t.ranges, t.sorted(l, l.order), lower, upper)
		}
	}
	var err error
	c.it, err = s.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	return c, err
}

// firstExpiry returns the earliest time at or above from in shard's expiry
// index, never if there is none.
func (s *Store) firstExpiry(tables pinned, shard int, from uint64) (at uint64, err error) {
	c, err := s.expiryCursor(tables, shard, from, never)
	if err != nil {
		return never, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	if !c.first() {
		return never, c.err
	}
	at, _, err = splitExpiryKey(c.key)
	return at, err
}
