// Package bufpool provides byte buffers from size-classed pools. A buffer
// returns to its pool when its last reference is released.
//
// A Buffer carries a reference count, so that one read from a socket can be
// shared by the requests parsed out of it, and one encoded message by the
// connections it goes to. In the steady state Get, Grow within a buffer's
// class, Retain and Release allocate nothing.
//
// Memory comes from github.com/bytedance/gopkg/lang/mcache in powers of two
// from ClassBytesMin to ClassBytesMax. A larger buffer is allocated in its
// exact size and left to the garbage collector: a pool of large buffers would
// keep many megabytes for rare requests, and at that size copying the bytes
// costs more than the allocation.
//
// Memory is not zeroed. The bytes between len(B) and cap(B) are content of an
// earlier user: write them before you reslice, and never send them.
//
// With the build tag proadebug memory is filled with a pattern when it is
// freed and checked when it is handed out again, releasing or retaining a
// freed buffer panics with the places of allocation and of the first free,
// and Leaks lists the live buffers. Without the tag those checks cost nothing.
package bufpool

import (
	"fmt"
	"math/bits"
	"sync/atomic"

	"github.com/bytedance/gopkg/lang/dirtmake"
	"github.com/bytedance/gopkg/lang/mcache"
)

const (
	// ClassBytesMin is the size in bytes of the smallest class: one cache line,
	// so that two buffers never share one.
	ClassBytesMin = 1 << classShiftMin
	// ClassBytesMax is the size in bytes of the largest class that goes back
	// to the pool. It holds the read and write buffers of busy connections and
	// common values; a frame may be sixteen times as large, and those are rare
	// and dominated by the copying of their bytes.
	ClassBytesMax = 1 << classShiftMax

	classShiftMin = 6
	classShiftMax = 20
	classes       = classShiftMax - classShiftMin + 1
	unpooled      = classes // the class of buffers above ClassBytesMax
)

// Buffer is a reference-counted byte buffer. Get makes one; the zero value is
// not usable.
//
// Whoever holds a reference may read B. Writing, reslicing and Grow are for
// one holder at a time, and bytes that other holders look at must not be
// changed. Retain and Release are safe from any goroutine.
type Buffer struct {
	// B is the content; len(B) is what is in use. Append within cap(B) or
	// through Grow. B may be resliced, also at its front; Grow regains that
	// room. An append beyond cap(B) is harmless but moves the content to
	// memory that the pool never sees.
	B []byte

	// memory is the whole of what Get or Grow obtained, kept apart from B so
	// that Release returns the right array whatever became of B.
	memory []byte
	refs   atomic.Int32
	debug  debugState // not last: an empty last field would be padded
	class  int8
}

// Get returns an empty buffer, len(B) == 0, with cap(B) >= capacity bytes and
// one reference, which belongs to the caller. It panics if capacity is
// negative.
func Get(capacity int) *Buffer {
	b := takeHeader()
	b.memory, b.class = allocate(capacity)
	b.B = b.memory[:0]
	b.refs.Store(1)
	b.debug.opened(b)
	return b
}

// Retain adds a reference, to be matched by one more Release. The caller must
// hold a reference already. It panics if the buffer has none left.
func (b *Buffer) Retain() {
	if b.refs.Add(1) <= 1 {
		b.refs.Add(-1) // or the next mistake would not be noticed
		b.debug.misused("Retain")
	}
}

// Release drops a reference. With the last one the memory goes back to the
// pool, and b and every view of b.B are invalid. It panics if the buffer has
// no reference left; without the tag proadebug that is noticed only while the
// buffer has not been handed out again.
func (b *Buffer) Release() {
	switch n := b.refs.Add(-1); {
	case n > 0:
		return
	case n < 0:
		b.refs.Add(1)
		b.debug.misused("Release")
	}
	b.debug.closed(b)
	free(b.memory, b.class)
	b.B, b.memory = nil, nil
	putHeader(b)
}

// Grow makes room to append n bytes: cap(B)-len(B) >= n. Where the room after
// len(B) is too small it moves the content to the front of its memory, if B
// was resliced and that suffices, or else into a larger class, and gives the
// old memory back. Then views of B are invalid. Moving costs one copy of B.
//
// Grow panics if n is negative, and if it would have to move the content while
// others hold references.
func (b *Buffer) Grow(n int) {
	if n < 0 {
		panic(fmt.Sprintf("bufpool: Grow by %d bytes", n))
	}
	if cap(b.B)-len(b.B) < n {
		b.move(n)
	}
}

func (b *Buffer) move(n int) {
	if r := b.refs.Load(); r != 1 {
		if r <= 0 {
			b.debug.misused("Grow")
		}
		panic(fmt.Sprintf("bufpool: Grow would move a buffer that has %d references", r))
	}
	need := len(b.B) + n
	if need < 0 {
		panic("bufpool: Grow overflows the address space")
	}
	if need <= cap(b.memory) {
		b.B = b.memory[:copy(b.memory[:cap(b.memory)], b.B)]
		return
	}
	if need > ClassBytesMax {
		// Beyond the classes, which double, repeated appends must stay linear.
		need = max(need, cap(b.memory)+cap(b.memory)/4)
	}
	memory, class := allocate(need)
	memory = memory[:copy(memory[:cap(memory)], b.B)]
	free(b.memory, b.class)
	b.B, b.memory, b.class = memory, memory, class
}

// Append appends p to B, growing it as Grow does. p must not be a view of B
// unless the room suffices.
func (b *Buffer) Append(p []byte) {
	b.Grow(len(p))
	b.B = append(b.B, p...)
}

// classOf returns the class that serves capacity bytes.
func classOf(capacity int) int8 {
	if capacity <= ClassBytesMin {
		return 0
	}
	if capacity > ClassBytesMax {
		return unpooled
	}
	return int8(bits.Len(uint(capacity-1)) - classShiftMin)
}

func allocate(capacity int) ([]byte, int8) {
	if capacity < 0 {
		panic(fmt.Sprintf("bufpool: capacity of %d bytes", capacity))
	}
	class := classOf(capacity)
	if class == unpooled {
		return dirtmake.Bytes(0, capacity), class
	}
	if m := recycled(class); m != nil {
		return m, class
	}
	return mcache.Malloc(0, ClassBytesMin<<class), class
}

func free(memory []byte, class int8) {
	if quarantined(memory, class) || class == unpooled {
		return
	}
	mcache.Free(memory)
}
