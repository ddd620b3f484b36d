package memtable

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"
)

// The records of a list in the order of their keys. Nothing is sorted until
// somebody asks; then what was added since becomes a new run, and runs are merged
// while they are not each much larger than the next. So a scan costs what was
// written since the last one, and a flush finds most of the work done.
//
// A run may have records that are younger than the snapshot it is read for: those
// point back to the record that the snapshot has.

// runRatio is how much larger a run is at least than the next newer one. More
// makes fewer runs to search and more merging.
const runRatio = 4

// mergeAll makes one run of runs.
func (t *Table) mergeAll(runs [][]uint32) []uint32 {
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
func (t *Table) merge(older, newer []uint32) []uint32 {
	all := make([]uint32, 0, len(older)+len(newer))
	for len(older) > 0 && len(newer) > 0 {
		order := bytes.Compare(t.at(older[0]).Key(), t.at(newer[0]).Key())
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

// sort makes a run of consecutive records of a list.
func (t *Table) sort(places []uint32) []uint32 {
	if len(places) == 0 {
		return nil
	}
	last := places[len(places)-1]
	items := make([]sortItem, 0, len(places))
	for _, place := range places {
		r := t.at(place)
		if newer := r.newer().Load(); newer == 0 || newer > last {
			items = append(items, sortItem{pieceOf(r.Key(), 0), place})
		}
	}
	t.sortFrom(items, pieceBytes)
	run := make([]uint32, len(items))
	for i := range items {
		run[i] = items[i].place
	}
	return run
}

// sortFrom sorts items, whose keys are different: by the pieces they hold,
// then, where these are equal, by the pieces from next on.
func (t *Table) sortFrom(items []sortItem, next int) {
	slices.SortFunc(items, func(a, b sortItem) int { return cmp.Compare(a.piece, b.piece) })
	for len(items) > 1 {
		n := 1
		for n < len(items) && items[n].piece == items[0].piece {
			n++
		}
		if n > 1 {
			for i := range items[:n] {
				items[i].piece = pieceOf(t.at(items[i].place).Key(), next)
			}
			t.sortFrom(items[:n], next+pieceBytes)
		}
		items = items[n:]
	}
}
