package server

import (
	"sync"
	"sync/atomic"
)

// connTable holds every connection in a slot of fixed number, so that an epoll
// event can name one in 64 bits: the slot and the slot's generation, which
// tells a late event of a closed connection from one of its successor.
type connTable struct {
	slots []atomic.Pointer[conn]

	mu    sync.Mutex
	free  []uint32
	gens  []uint32
	open  int
	doors []int // open connections by door
}

// A door is a listener, or whatever else connections come through. Where there
// are several, each has a share of the slots that is kept for it, so that
// whoever fills one door does not close the others.

// addDoor returns the number of a further door.
func (t *connTable) addDoor() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.doors = append(t.doors, 0)
	return len(t.doors) - 1
}

// share is how many slots are kept for each door. t.mu must be held.
func (t *connTable) share() int {
	doors := len(t.doors)
	switch n := len(t.slots); {
	case doors < 2:
		return 0
	case n < 2*doors:
		return 0
	default:
		return max(n/max(8, 2*doors), 1)
	}
}

// vacant reports whether a door may take one more slot. t.mu must be held.
func (t *connTable) vacant(door int) bool {
	kept, share := 0, t.share()
	for other, n := range t.doors {
		if other != door {
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

// add gives c a slot, or returns false where there is none left for its door.
func (t *connTable) add(c *conn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.vacant(c.door) {
		return false
	}
	c.slot = t.free[len(t.free)-1]
	t.free = t.free[:len(t.free)-1]
	t.gens[c.slot]++
	c.gen = t.gens[c.slot]
	t.slots[c.slot].Store(c)
	t.open++
	t.doors[c.door]++
	return true
}

func (t *connTable) remove(c *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.slots[c.slot].CompareAndSwap(c, nil) {
		t.free = append(t.free, c.slot)
		t.open--
		t.doors[c.door]--
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
