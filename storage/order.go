package storage

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"
)

// The records of a table in the order of their keys, for scans, sweeps and
// drains. Nothing is sorted until somebody asks; then what was added since
// becomes a new run, and runs are merged while they are not each much larger
// than the next. So a scan costs what was written since the last one, and the
// drain finds most of the work done.

// runRatio is how much larger a run is at least than the next newer one. More
// makes fewer runs to search and more merging.
const runRatio = 4

// sorted returns runs of order, which l.order is or was. The caller excludes
// others that do so, and whoever asked before must have asked for no more.
func (t *recentTable) sorted(l *recentList, order []uint32) [][]uint32 {
	if len(order) > l.covered {
		l.runs = append(l.runs, t.sort(order[l.covered:], nil))
		l.covered = len(order)
	}
	for k := len(l.runs); k > 1 && len(l.runs[k-2]) < runRatio*len(l.runs[k-1]); k-- {
		l.runs[k-2] = t.merge(l.runs[k-2], l.runs[k-1])
		l.runs = l.runs[:k-1]
	}
	return slices.Clone(l.runs)
}

// mergeAll makes one run of runs.
func (t *recentTable) mergeAll(runs [][]uint32) []uint32 {
	if len(runs) == 0 {
		return nil
	}
	all := runs[len(runs)-1]
	for i := len(runs) - 2; i >= 0; i-- { // the small ones first
		all = t.merge(runs[i], all)
	}
	return all
}

// merge merges an older and a newer run.
func (t *recentTable) merge(older, newer []uint32) []uint32 {
	all := make([]uint32, 0, len(older)+len(newer))
	for len(older) > 0 && len(newer) > 0 {
		order := bytes.Compare(t.at(older[0]).key(), t.at(newer[0]).key())
		if order < 0 {
			all = append(all, older[0])
		} else {
			all = append(all, newer[0])
			newer = newer[1:]
		}
		if order <= 0 {
			older = older[1:]
		}
	}
	return append(append(all, older...), newer...)
}

// sortItem is a record while it is sorted: a piece of its key, so that most
// comparisons do not touch the arena, and its place.
type sortItem struct {
	piece uint64
	place uint32
}

// pieceBytes of the key are in a piece, most significant first; the last byte
// says how many there were, pieceBytes+1: more follow.
const pieceBytes = 7

func pieceOf(key []byte, from int) uint64 {
	var b [8]byte
	if left := len(key) - from; left > pieceBytes {
		copy(b[:pieceBytes], key[from:])
		b[pieceBytes] = pieceBytes + 1
	} else {
		b[pieceBytes] = byte(copy(b[:pieceBytes], key[from:]))
	}
	return binary.BigEndian.Uint64(b[:])
}

// sorter sorts records of a table and rests meanwhile.
type sorter struct {
	*recentTable
	rest  func() // may be nil
	steps int    // since it was called
}

// restEvery is how many steps a sorter takes between two rests.
const restEvery = 1 << 11

func (s *sorter) step() {
	if s.steps++; s.steps == restEvery {
		s.steps = 0
		if s.rest != nil {
			s.rest()
		}
	}
}

// sort makes a run of consecutive records of a list. It calls rest often, unless
// that is nil.
func (t *recentTable) sort(places []uint32, rest func()) []uint32 {
	if len(places) == 0 {
		return nil
	}
	last := places[len(places)-1]
	items := make([]sortItem, 0, len(places))
	s := sorter{recentTable: t, rest: rest}
	for _, place := range places {
		s.step()
		r := t.at(place)
		if newer := r.newer().Load(); newer == 0 || newer > last {
			items = append(items, sortItem{pieceOf(r.key(), 0), place})
		}
	}
	s.sortFrom(items, pieceBytes)
	run := make([]uint32, len(items))
	for i := range items {
		run[i] = items[i].place
	}
	return run
}

// sortFrom sorts items, whose keys are different: by the pieces they hold,
// then, where these are equal, by the pieces from next on.
func (s *sorter) sortFrom(items []sortItem, next int) {
	slices.SortFunc(items, func(a, b sortItem) int {
		s.step()
		return cmp.Compare(a.piece, b.piece)
	})
	for len(items) > 1 {
		n := 1
		for n < len(items) && items[n].piece == items[0].piece {
			n++
		}
		if n > 1 {
			for i := range items[:n] {
				s.step()
				items[i].piece = pieceOf(s.at(items[i].place).key(), next)
			}
			s.sortFrom(items[:n], next+pieceBytes)
		}
		items = items[n:]
	}
}
