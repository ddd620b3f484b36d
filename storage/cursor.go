package storage

import (
	"bytes"
	"errors"

	"github.com/cockroachdb/pebble/v2"

	"github.com/proa-kv/proa/storage/memtable"
)

// A cursor walks the records of a range of keys, as they are in snapshots of the
// memtables and in Pebble, in one direction. What memtables have of a key goes
// before what Pebble has. Deleted keys are left out.
//
// Pebble may already have what the immutable memtable holds, or some of it: the
// record is the same.
type cursor struct {
	recent  memtable.Iterator
	it      *pebble.Iterator
	reverse bool
	stored  bool // it stands on a record

	key    []byte // of the record the cursor stands on, valid until next
	newest bool   // the record is a memtable's
	err    error
}

// expiryCursor returns a cursor on shard's expiry index from the time from to
// before the time to. tables are pinned. Only Apply uses it, or Open.
func expiryCursor(db pebble.Reader, tables pinned, shard int, from, to uint64) (*cursor, error) {
	lower, upper := appendExpiryBound(nil, shard, from), appendExpiryBound(nil, shard, to)
	recent := memtable.NewIterator(tables.snapshots(), memtable.Expiries, lower, upper, false)
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	return &cursor{recent: recent, it: it}, err
}

// firstExpiry returns the earliest time at or above from in shard's expiry
// index, never if there is none.
func firstExpiry(db pebble.Reader, tables pinned, shard int, from uint64) (at uint64, err error) {
	c, err := expiryCursor(db, tables, shard, from, never)
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

// first moves to the first record, and reports whether there is one.
func (c *cursor) first() bool {
	if c.recent.Next(); c.reverse {
		c.stored = c.it.Last()
	} else {
		c.stored = c.it.First()
	}
	return c.settle()
}

// next moves to the next record, and reports whether there is one.
func (c *cursor) next() bool {
	c.step()
	return c.settle()
}

// settle finds the next record that is not deleted.
func (c *cursor) settle() bool {
	for {
		if !c.stored && c.err == nil {
			c.err = c.it.Error()
		}
		if c.err != nil || !c.stored && c.recent.Key() == nil {
			return false
		}
		if c.newest = c.recentIsNext(); c.newest {
			if c.key = c.recent.Key(); !c.recent.Deleted() {
				return true
			}
			c.step()
			continue
		}
		c.key = c.it.Key()
		switch r := c.recent.Deletes(c.key); { // then over all that is deleted at once
		case r == nil:
			return true
		case c.reverse:
			c.stored = c.it.SeekLT(r.From)
		default:
			c.stored = c.it.SeekGE(r.To)
		}
	}
}

// recentIsNext reports whether the next key in the direction is one that memtables
// have.
func (c *cursor) recentIsNext() bool {
	if c.recent.Key() == nil || !c.stored {
		return c.recent.Key() != nil
	}
	order := bytes.Compare(c.recent.Key(), c.it.Key())
	return order == 0 || (order < 0) != c.reverse
}

// step moves everything that stands on key.
func (c *cursor) step() {
	if c.stored && (!c.newest || bytes.Equal(c.it.Key(), c.key)) {
		if c.reverse {
			c.stored = c.it.Prev()
		} else {
			c.stored = c.it.Next()
		}
	}
	if c.newest {
		c.recent.Next()
	}
}

// value returns the record that the cursor stands on, valid until next.
func (c *cursor) value() ([]byte, error) {
	if c.newest {
		return c.recent.Value(), nil
	}
	return c.it.ValueAndErr()
}

func (c *cursor) close() error { return c.it.Close() }
