package memtable

import (
	"bytes"
	"slices"
	"unsafe"

	"github.com/proa-kv/proa/internal/prefetch"
)

// Snapshot is a table as of one Publish. It reads the table, which must not be
// reset before the snapshot's last use.
type Snapshot struct {
	table  *Table
	end    uint32 // records from here on are younger
	ranges Ranges
	orders [Lists][]uint32
}

// Snapshot returns a snapshot of what was published. The writer must not add
// anything meanwhile, and nothing may be added that was not published.
func (t *Table) Snapshot() Snapshot {
	s := Snapshot{table: t, end: t.end, ranges: t.ranges}
	for i := range t.lists {
		s.orders[i] = t.lists[i].order
	}
	return s
}

// Ranges returns the ranges of deleted keys that begin in [lower, upper).
func (s *Snapshot) Ranges(lower, upper []byte) Ranges { return s.ranges.within(lower, upper) }

// runs returns sorted runs that hold all records of the snapshot's list, the
// oldest first, and perhaps younger ones.
func (s *Snapshot) runs(name List) [][]uint32 {
	l := &s.table.lists[name]
	l.mu.Lock()
	defer l.mu.Unlock()
	if order := s.orders[name]; len(order) > l.covered {
		l.runs = append(l.runs, s.table.sort(order[l.covered:]))
		l.covered = len(order)
	}
	for k := len(l.runs); k > 1 && len(l.runs[k-2]) < runRatio*len(l.runs[k-1]); k-- {
		l.runs[k-2] = s.table.merge(l.runs[k-2], l.runs[k-1])
		l.runs = l.runs[:k-1]
	}
	return slices.Clone(l.runs)
}

// Sort makes one run of a list, and returns how many records that has. It is for
// a table that nobody writes to any more, and does not keep other readers waiting.
func (s *Snapshot) Sort(name List) int {
	l, order := &s.table.lists[name], s.orders[name]
	l.mu.Lock()
	runs, covered := slices.Clone(l.runs), l.covered
	l.mu.Unlock()
	if covered < len(order) {
		runs = append(runs, s.table.sort(order[covered:]))
	}
	all := s.table.mergeAll(runs)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.runs, l.covered = [][]uint32{all}, len(order)
	return len(all)
}

// Copy returns a snapshot, of a table of its own, of the records and ranges whose
// keys begin with prefix. All of its records are in the list Rows, the newest of
// each key; those that a range hides are left out.
func (s *Snapshot) Copy(prefix []byte) Snapshot {
	var run []uint32
	for l := range s.orders { // the lists are in the order of the keys
		run = append(run, s.table.sort(s.withPrefix(List(l), prefix))...)
	}
	size := 0
	run = slices.DeleteFunc(run, func(place uint32) bool {
		r := s.table.at(place)
		if s.ranges.hides(r.Key(), place) {
			return true
		}
		size += r.size()
		return false
	})
	t := &Table{arena: makeArena(size), end: 1}
	for i, place := range run {
		r := s.table.at(place)
		copy(t.at(t.end)[12:], r[12:headerBytes+r.keyBytes()+r.valueBytes()])
		run[i] = t.end
		t.end += uint32(r.size() / unit)
	}
	t.lists[Rows] = list{order: run, runs: [][]uint32{run}, covered: len(run)}
	for _, r := range s.ranges {
		if bytes.HasPrefix(r.From, prefix) {
			t.ranges = append(t.ranges, Range{From: bytes.Clone(r.From), To: bytes.Clone(r.To)})
		}
	}
	return t.Snapshot()
}

func (s *Snapshot) withPrefix(l List, prefix []byte) (places []uint32) {
	order := s.orders[l]
	for i, place := range order {
		if ahead := i + lookahead; ahead < len(order) {
			prefetch.Line(unsafe.Pointer(&s.table.arena[int(order[ahead])*unit]))
		}
		if bytes.HasPrefix(s.table.at(place).Key(), prefix) {
			places = append(places, place)
		}
	}
	return places
}
