package server

import (
	"sync"
	"sync/atomic"
)

// connTable holds every connection at a fixed index, so that an epoll event can
// name one in 64 bits: the index and its generation, which
// distinguishes a late event of a closed connection from one of its successor.
type connTable struct {
	conns []atomic.Pointer[conn]

	mu         sync.Mutex
	free       []uint32
	gens       []uint32
	open       int
	byListener []int // open connections
}

// tableEntry is where a connection is in its table.
type tableEntry struct {
	table    *connTable
	listener int // that accepted it
	index    uint32
	gen      uint32
}

// addListener returns the number of a further listener, or of whatever else
// connections come through. Where there are several, each has a share of the places
// that is kept for it, so that whoever fills one does not close the others.
func (t *connTable) addListener() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.byListener = append(t.byListener, 0)
	return len(t.byListener) - 1
}

// share is how many places are kept for each listener. t.mu must be held.
func (t *connTable) share() int {
	listeners, places := len(t.byListener), len(t.conns)
	if listeners < 2 || places < 2*listeners {
		return 0
	}
	return max(places/max(8, 2*listeners), 1)
}

// vacant reports whether a listener may take one more place. t.mu must be held.
func (t *connTable) vacant(listener int) bool {
	kept, share := 0, t.share()
	for other, n := range t.byListener {
		if other != listener {
			kept += max(0, share-n)
		}
	}
	return len(t.free) > kept
}

func (t *connTable) init(n int) {
	t.conns = make([]atomic.Pointer[conn], n)
	t.gens = make([]uint32, n)
	t.free = make([]uint32, n)
	for i := range t.free {
		t.free[i] = uint32(n - 1 - i)
	}
}

// add gives c a place, or returns false where there is none left for its listener.
func (t *connTable) add(c *conn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.vacant(c.listener) {
		return false
	}
	c.index = t.free[len(t.free)-1]
	t.free = t.free[:len(t.free)-1]
	t.gens[c.index]++
	c.gen = t.gens[c.index]
	t.conns[c.index].Store(c)
	t.open++
	t.byListener[c.listener]++
	return true
}

func (t *connTable) remove(c *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conns[c.index].CompareAndSwap(c, nil) {
		t.free = append(t.free, c.index)
		t.open--
		t.byListener[c.listener]--
	}
}

// get returns the connection at index if it still is of generation gen.
func (t *connTable) get(index, gen uint32) *conn {
	if index >= uint32(len(t.conns)) {
		return nil
	}
	if c := t.conns[index].Load(); c != nil && c.gen == gen {
		return c
	}
	return nil
}

func (t *connTable) len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.open
}

// each calls f for every connection open at some moment during the call.
func (t *connTable) each(f func(*conn)) {
	for i := range t.conns {
		if c := t.conns[i].Load(); c != nil {
			f(c)
		}
	}
}
