package server

import (
	"sync"
	"sync/atomic"
)

// connTable holds every connection in a slot of fixed number, so that an epoll
// event can name one in 64 bits: the slot and the slot's generation, which
// distinguishes a late event of a closed connection from one of its successor.
type connTable struct {
	slots []atomic.Pointer[conn]

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
	slot     uint32
	gen      uint32
}

// addListener returns the number of a further listener, or of whatever else
// connections come through. Where there are several, each has a share of the slots
// that is kept for it, so that whoever fills one does not close the others.
func (t *connTable) addListener() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.byListener = append(t.byListener, 0)
	return len(t.byListener) - 1
}

// share is how many slots are kept for each listener. t.mu must be held.
func (t *connTable) share() int {
	listeners, slots := len(t.byListener), len(t.slots)
	if listeners < 2 || slots < 2*listeners {
		return 0
	}
	return max(slots/max(8, 2*listeners), 1)
}

// vacant reports whether a listener may take one more slot. t.mu must be held.
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
	t.slots = make([]atomic.Pointer[conn], n)
	t.gens = make([]uint32, n)
	t.free = make([]uint32, n)
	for i := range t.free {
		t.free[i] = uint32(n - 1 - i)
	}
}

// add gives c a slot, or returns false where there is none left for its listener.
func (t *connTable) add(c *conn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.vacant(c.listener) {
		return false
	}
	c.slot = t.free[len(t.free)-1]
	t.free = t.free[:len(t.free)-1]
	t.gens[c.slot]++
	c.gen = t.gens[c.slot]
	t.slots[c.slot].Store(c)
	t.open++
	t.byListener[c.listener]++
	return true
}

func (t *connTable) remove(c *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.slots[c.slot].CompareAndSwap(c, nil) {
		t.free = append(t.free, c.slot)
		t.open--
		t.byListener[c.listener]--
	}
}

// get returns the connection in slot if it still is of generation gen.
func (t *connTable) get(slot, gen uint32) *conn {
	if slot >= uint32(len(t.slots)) {
		return nil
	}
	if c := t.slots[slot].Load(); c != nil && c.gen == gen {
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
	for i := range t.slots {
		if c := t.slots[i].Load(); c != nil {
			f(c)
		}
	}
}
