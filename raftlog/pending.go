package raftlog

import (
	"math"
	"slices"

	"go.etcd.io/raft/v3/raftpb"
)

// pendingState is a group's log as it will stand when every Write is published
// that holds records of it. It belongs to the goroutine that fills Writes; a
// Save neither reads nor changes it, so that filling never waits for a disk.
//
// There are at most two such Writes, the one being saved and the one being
// filled. The terms of what they append are kept here; of what stands before
// that, the published log knows.
type pendingState struct {
	fill  uint64 // number of the newest Write with records of the group; once it is settled, the rest means nothing
	tail  int    // index of the last of them in Write.ops
	start mark
	last  uint64

	// Entries at and after from are not to be looked up in the published log.
	// Each of terms holds from its index up to that of the next.
	from  uint64
	terms []mark
	// changed is what from would be if only the newest Write counted.
	changed uint64
}

// load takes over the published log.
func (p *pendingState) load(start mark, last uint64) {
	p.start, p.last = start, last
	p.from, p.changed = math.MaxUint64, math.MaxUint64
	p.terms = p.terms[:0]
}

// enter makes fill the newest Write. All but the one before it are published,
// so that their terms can go.
func (p *pendingState) enter(fill uint64) {
	p.fill = fill
	p.from, p.changed = p.changed, math.MaxUint64
	n := 0
	for n+1 < len(p.terms) && p.terms[n+1].index <= p.from {
		n++
	}
	p.terms = slices.Delete(p.terms, 0, n)
}

// replace puts entries in place of all that stood at the first one's index and
// after.
func (p *pendingState) replace(entries []raftpb.Entry) {
	first, n := entries[0].Index, len(p.terms)
	for n > 0 && p.terms[n-1].index >= first {
		n--
	}
	p.terms = p.terms[:n]
	p.from, p.changed = min(p.from, first), min(p.changed, first)
	for i := range entries {
		if n := len(p.terms); n == 0 || p.terms[n-1].term != entries[i].Term {
			p.terms = append(p.terms, mark{entries[i].Index, entries[i].Term})
		}
	}
	p.last = first + uint64(len(entries)) - 1
}

// begin makes the log begin after m; reset says that nothing it holds goes on
// from there. Terms that are kept may stay: what replaces their entries drops
// them, and nobody looks before the start.
func (p *pendingState) begin(m mark, reset bool) {
	p.start = m
	if reset {
		p.last = m.index
	}
}

// term returns the term at index; published is asked for what no Write has
// changed.
func (p *pendingState) term(index uint64, published *Group) (term uint64, ok bool) {
	switch {
	case index == p.start.index:
		return p.start.term, true
	case index < p.start.index || index > p.last:
		return 0, false
	case index < p.from:
		term, err := published.Term(index)
		return term, err == nil
	}
	n := len(p.terms) - 1
	for p.terms[n].index > index {
		n--
	}
	return p.terms[n].term, true
}
