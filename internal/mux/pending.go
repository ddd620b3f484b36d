// Package mux has the parts of a connection that carries many requests at a
// time, whose replies come in any order: the table of unanswered requests
// (Pending) and writes that do not wait (Direct). The client, the forwarding
// between servers and the calls between nodes are made of them, and of a reader
// of their frames (protocol.Reader, where the frames are those of clients). What a
// request is, who waits for it and what becomes of it when the connection breaks
// is for them to say.
package mux

import "iter"

// Pending is the table of the requests that a connection has unanswered. The id
// of a request is its place in the table plus 1, with the number of earlier uses
// of that place in the upper half, so that a late reply never meets a newer
// request. A Pending that has grown to its size allocates nothing. It is not safe
// for concurrent use.
type Pending[T any] struct {
	entries []entry[T]
	free    []uint32
}

type entry[T any] struct {
	value T
	uses  uint32
	taken bool
}

// Add takes a place for a request and returns its id, which is never 0.
func (p *Pending[T]) Add(value T) (id uint64) {
	var i uint32
	if last := len(p.free) - 1; last >= 0 {
		i = p.free[last]
		p.free = p.free[:last]
	} else {
		i = uint32(len(p.entries))
		p.entries = append(p.entries, entry[T]{})
	}
	e := &p.entries[i]
	e.value, e.taken = value, true
	return e.id(int(i))
}

func (e *entry[T]) id(i int) uint64 { return uint64(e.uses)<<32 | uint64(i+1) }

// Get returns the request of an id, nil if there is none. The pointer is valid
// until the next Add or Remove.
func (p *Pending[T]) Get(id uint64) *T {
	i := uint32(id) - 1
	if i >= uint32(len(p.entries)) {
		return nil
	}
	e := &p.entries[i]
	if !e.taken || e.uses != uint32(id>>32) {
		return nil
	}
	return &e.value
}

// Remove frees the place of a request. It does nothing if there is none.
func (p *Pending[T]) Remove(id uint64) {
	if p.Get(id) == nil {
		return
	}
	i := uint32(id) - 1
	p.entries[i] = entry[T]{uses: p.entries[i].uses + 1}
	p.free = append(p.free, i)
}

// Len returns the number of requests.
func (p *Pending[T]) Len() int { return len(p.entries) - len(p.free) }

// All yields the requests, in no order that means anything. The one that has just
// been yielded may be removed.
func (p *Pending[T]) All() iter.Seq2[uint64, *T] {
	return func(yield func(uint64, *T) bool) {
		for i := range p.entries {
			if e := &p.entries[i]; e.taken && !yield(e.id(i), &e.value) {
				return
			}
		}
	}
}
