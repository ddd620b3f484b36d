package access

import (
	"bytes"
	"slices"
)

// Span is the keys from Start on and before End; a nil End stands for no bound.
type Span struct{ Start, End []byte }

// prefixSpan is the keys that begin with prefix.
func prefixSpan(prefix []byte) Span {
	end := bytes.Clone(prefix)
	for len(end) > 0 && end[len(end)-1] == 0xff {
		end = end[:len(end)-1]
	}
	if len(end) == 0 {
		return Span{Start: prefix}
	}
	end[len(end)-1]++
	return Span{prefix, end}
}

// reaches reports whether s ends at key or behind it.
func (s *Span) reaches(key []byte) bool { return s.End == nil || bytes.Compare(s.End, key) >= 0 }

// contains reports whether key is not behind the end of s.
func (s *Span) before(key []byte) bool { return s.End != nil && bytes.Compare(s.End, key) <= 0 }

// Spans is a set of keys: disjoint spans in order, between any two of which there is a key.
type Spans []Span

// spansOf is the set of the keys that begin with one of some prefixes.
func spansOf(prefixes [][]byte) Spans {
	slices.SortFunc(prefixes, bytes.Compare)
	var all Spans
	for _, p := range prefixes {
		s := prefixSpan(p)
		if n := len(all); n > 0 && all[n-1].reaches(s.Start) {
			if last := &all[n-1]; last.End != nil && (s.End == nil || bytes.Compare(s.End, last.End) > 0) {
				last.End = s.End
			}
			continue
		}
		all = append(all, s)
	}
	return all
}

// All reports whether every key is in the set.
func (x Spans) All() bool { return len(x) == 1 && len(x[0].Start) == 0 && x[0].End == nil }

// at returns the index of the first span that does not end before key.
func (x Spans) at(key []byte) int {
	low, high := 0, len(x)
	for low < high {
		if mid := int(uint(low+high) >> 1); x[mid].before(key) {
			low = mid + 1
		} else {
			high = mid
		}
	}
	return low
}

// Has reports whether a key is in the set. It allocates nothing.
func (x Spans) Has(key []byte) bool {
	i := 0
	if len(x) > 1 {
		i = x.at(key)
	}
	return i < len(x) && bytes.Compare(x[i].Start, key) <= 0 && !x[i].before(key)
}

// Covers reports whether all keys from start on and before end, nil for no bound, are in the
// set.
func (x Spans) Covers(start, end []byte) bool {
	i := x.at(start)
	if i == len(x) || bytes.Compare(x[i].Start, start) > 0 {
		return false
	}
	return x[i].End == nil || end != nil && bytes.Compare(end, x[i].End) <= 0
}

// First returns the first part of the range from start to end, nil for no bound, whose keys
// are all in the set, or the last one where reverse is set. more says that there is another
// one. ok is false where there is none.
func (x Spans) First(start, end []byte, reverse bool) (part Span, more, ok bool) {
	from := x.at(start)
	to := len(x)
	if end != nil {
		to, _ = slices.BinarySearchFunc(x, end, func(s Span, end []byte) int { return bytes.Compare(s.Start, end) })
	}
	if from >= to {
		return Span{}, false, false
	}
	part = x[from]
	if reverse {
		part = x[to-1]
	}
	if bytes.Compare(part.Start, start) < 0 {
		part.Start = start
	}
	if end != nil && !part.before(end) {
		part.End = end
	}
	return part, to-from > 1, true
}
