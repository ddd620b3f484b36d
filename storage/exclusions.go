package storage

import (
	"bytes"
	"cmp"
	"slices"
)

// exclusions are what of the row cache is not valid, and why. They do not change
// once they are made. nil excludes nothing.
type exclusions struct {
	// barred are shards of which nothing is found in the cache nor put into it,
	// once for each bar without an unbar.
	barred []uint16
	// ranges were deleted, and their rows may still be in the cache. There is
	// one of a shard at most, in the order of the shards: what covers them all,
	// since a row that is excluded in vain is only looked up elsewhere.
	ranges []excludedRange
}

// excludedRange is a range of the keys of a shard, of which rows with a version up
// to revision are gone.
type excludedRange struct {
	shard    uint16
	from, to []byte // inclusive, exclusive; empty: unbounded
	revision uint64
	pending  bool // the deletion is being published: readers put nothing into it
}

func (d *exclusions) bars(shard uint16) bool { return d != nil && slices.Contains(d.barred, shard) }

// permits reports whether a reader may put the row of key into the cache.
func (d *exclusions) permits(shard uint16, key []byte) bool {
	if d == nil {
		return true
	}
	if slices.Contains(d.barred, shard) {
		return false
	}
	r := d.of(shard)
	return r == nil || !r.pending || !contains(r.from, r.to, key)
}

// deletes reports whether an entry's row is gone. An entry that says that there
// is none is right in any case.
func (d *exclusions) deletes(e entry) bool {
	r := d.of(e.shard())
	if r == nil {
		return false
	}
	row := e.row()
	return !row.absent && row.version <= r.revision && contains(r.from, r.to, e.key())
}

// of returns the range that is excluded of a shard, nil: none.
func (d *exclusions) of(shard uint16) *excludedRange {
	if d == nil {
		return nil
	}
	i, found := d.search(shard)
	if !found {
		return nil
	}
	return &d.ranges[i]
}

func (d *exclusions) search(shard uint16) (int, bool) {
	return slices.BinarySearchFunc(d.ranges, shard, func(r excludedRange, shard uint16) int { return cmp.Compare(r.shard, shard) })
}

// add adds a range. The bounds are copied.
func (d *exclusions) add(n excludedRange) {
	i, found := d.search(n.shard)
	if !found {
		n.from, n.to = bytes.Clone(n.from), bytes.Clone(n.to)
		d.ranges = slices.Insert(d.ranges, i, n)
		return
	}
	r := &d.ranges[i]
	if bytes.Compare(n.from, r.from) < 0 {
		r.from = bytes.Clone(n.from)
	}
	if len(n.to) == 0 || len(r.to) != 0 && bytes.Compare(n.to, r.to) > 0 {
		r.to = bytes.Clone(n.to)
	}
	r.revision, r.pending = max(r.revision, n.revision), true
}

// change makes f change a copy of the exclusions, which then are the cache's.
func (c *rowCache) change(f func(*exclusions)) {
	c.exclusionsMu.Lock()
	defer c.exclusionsMu.Unlock()
	c.changeLocked(f)
}

func (c *rowCache) changeLocked(f func(*exclusions)) {
	var d exclusions
	if old := c.exclusions.Load(); old != nil {
		d = exclusions{slices.Clone(old.barred), slices.Clone(old.ranges)}
	}
	f(&d)
	if len(d.barred) == 0 && len(d.ranges) == 0 {
		c.exclusions.Store(nil)
	} else {
		c.exclusions.Store(&d)
	}
}

// beginRanges announces that the deletion of ranges is about to be published:
// until endRanges no reader finds their rows or puts them into the cache.
func (c *rowCache) beginRanges(ranges []deletedRange) {
	c.change(func(d *exclusions) {
		for i := range ranges {
			r := &ranges[i]
			d.add(excludedRange{shard: uint16(r.shard), from: r.from, to: r.to, revision: r.revision, pending: true})
		}
	})
}

// endRanges says that it is published. It makes all fills under way void, and
// reports whether somebody should call tidy.
func (c *rowCache) endRanges(ranges []deletedRange) bool {
	c.eachSegment((*segment).voidFills)
	c.exclusionsMu.Lock()
	defer c.exclusionsMu.Unlock()
	c.changeLocked(func(d *exclusions) {
		for i := range ranges {
			d.of(uint16(ranges[i].shard)).pending = false
		}
	})
	tidying := c.tidying
	c.tidying = true
	return !tidying
}

// voidFills makes all fills under way void.
func (s *segment) voidFills() {
	for i := range s.stripes {
		s.stripes[i].changes++
	}
}

// tidy drops rows of deleted ranges, and ends their exclusion.
func (c *rowCache) tidy() {
	for {
		d := c.exclusions.Load()
		c.eachSegment(func(s *segment) { s.forgetIf(d.deletes) })
		if !c.settle(d) {
			return
		}
	}
}

// settle ends the exclusion of the ranges that all rows were held against, unless
// there have been others since. It reports whether any are left.
func (c *rowCache) settle(seen *exclusions) bool {
	c.exclusionsMu.Lock()
	defer c.exclusionsMu.Unlock()
	left := false
	c.changeLocked(func(d *exclusions) {
		d.ranges = slices.DeleteFunc(d.ranges, func(r excludedRange) bool {
			was := seen.of(r.shard)
			return !r.pending && was != nil && !was.pending && was.revision == r.revision
		})
		left = len(d.ranges) > 0
	})
	c.tidying = left
	return left
}

// endRanges lets the row cache follow the deletion of ranges.
func (b *writeBatch) endRanges() {
	s := b.store
	if !s.cache.endRanges(b.ranges) {
		return
	}
	if s.opts.RowCacheBytes <= cachePurgeInlineBytes {
		s.cache.tidy()
		return
	}
	s.background.Go(s.cache.tidy)
}
