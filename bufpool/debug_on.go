//go:build proadebug

package bufpool

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
)

// Debug tells whether the checks of the build tag proadebug are compiled in.
const Debug = true

const (
	poisonByte = 0xDB
	// quarantineBytes bounds the freed memory kept back per class, so that it
	// is reused late and a stale view meets the poison rather than new content.
	quarantineBytes = 4 << 20
	quarantineMax   = 256
)

// place is a call stack. Places are kept raw and formatted when reported.
type place struct {
	pcs [16]uintptr
	n   int
}

func here() (p place) {
	p.n = runtime.Callers(3, p.pcs[:])
	return p
}

func (p *place) String() string {
	if p.n == 0 {
		return "unknown"
	}
	var parts []string
	frames := runtime.CallersFrames(p.pcs[:p.n])
	for {
		f, more := frames.Next()
		inside := strings.Contains(f.Function, "/bufpool.") && !strings.HasSuffix(f.File, "_test.go")
		if f.Function != "" && !inside && !strings.HasPrefix(f.Function, "runtime.") {
			parts = append(parts, fmt.Sprintf("%s (%s:%d)", f.Function, f.File, f.Line))
		}
		if !more {
			return strings.Join(parts, " < ")
		}
	}
}

type debugState struct {
	serial    uint64
	allocated place
	freed     place
}

// freedMemory is a piece of poisoned memory waiting to be reused.
type freedMemory struct {
	memory []byte
	freed  place
}

// registry holds everything the debug mode knows. Its lock is a leaf: nothing
// is called with it held.
var registry struct {
	sync.Mutex
	serial uint64
	live   map[*Buffer]struct{}
	freed  [classes][]freedMemory // oldest first
}

// Headers are never reused in debug mode, so that a late Release always meets
// the buffer it was meant for.
func takeHeader() *Buffer { return new(Buffer) }
func putHeader(b *Buffer) {}

func (d *debugState) opened(b *Buffer) {
	d.allocated = here()
	registry.Lock()
	defer registry.Unlock()
	if registry.live == nil {
		registry.live = make(map[*Buffer]struct{})
	}
	registry.serial++
	d.serial = registry.serial
	registry.live[b] = struct{}{}
}

func (d *debugState) closed(b *Buffer) {
	registry.Lock()
	defer registry.Unlock()
	d.freed = here()
	delete(registry.live, b)
}

func (d *debugState) misused(call string) {
	registry.Lock()
	defer registry.Unlock()
	panic(fmt.Sprintf("bufpool: %s of a buffer already freed\n\tallocated at %s\n\tfirst freed at %s",
		call, &d.allocated, &d.freed))
}

// recycled returns the oldest freed memory of the class, checked, or nil.
func recycled(class int8) []byte {
	registry.Lock()
	defer registry.Unlock()
	queue := registry.freed[class]
	if len(queue) == 0 {
		return nil
	}
	m := queue[0]
	queue[0] = freedMemory{}
	registry.freed[class] = queue[1:]
	m.mustBeIntact()
	return m.memory[:0]
}

// quarantined poisons memory and keeps it back. It takes charge of all of it.
func quarantined(memory []byte, class int8) bool {
	memory = memory[:cap(memory)]
	poison(memory)
	if class == unpooled {
		return true
	}
	m := freedMemory{memory: memory, freed: here()}
	registry.Lock()
	defer registry.Unlock()
	queue := append(registry.freed[class], m)
	registry.freed[class] = queue
	if len(queue) > quarantineLength(class) {
		oldest := queue[0]
		queue[0] = freedMemory{}
		registry.freed[class] = queue[1:]
		oldest.mustBeIntact()
	}
	return true
}

func quarantineLength(class int8) int {
	return min(quarantineMax, quarantineBytes/(ClassBytesMin<<class))
}

func poison(p []byte) {
	for i := range p {
		p[i] = poisonByte
	}
}

// damage returns the offset of the first byte written after the free, or -1.
func (m *freedMemory) damage() int {
	for i, c := range m.memory {
		if c != poisonByte {
			return i
		}
	}
	return -1
}

func (m *freedMemory) mustBeIntact() {
	if i := m.damage(); i >= 0 {
		panic(m.report(i))
	}
}

func (m *freedMemory) report(offset int) string {
	return fmt.Sprintf("bufpool: use after free: byte %d of %d was changed to 0x%02x after the free at %s",
		offset, len(m.memory), m.memory[offset], &m.freed)
}

// corruptions returns a line for each piece of freed memory that was written
// to since it was freed, and poisons it anew so that it is reported once.
func corruptions() []string {
	registry.Lock()
	defer registry.Unlock()
	var all []string
	for _, queue := range registry.freed {
		for i := range queue {
			if at := queue[i].damage(); at >= 0 {
				all = append(all, strings.TrimPrefix(queue[i].report(at), "bufpool: "))
				poison(queue[i].memory)
			}
		}
	}
	return all
}

// Leaks returns the place of allocation of each live buffer, one line each,
// oldest first, innermost frame first. It is safe from any goroutine. Without
// the build tag proadebug it returns nil.
func Leaks() []string {
	registry.Lock()
	defer registry.Unlock()
	live := make([]*Buffer, 0, len(registry.live))
	for b := range registry.live {
		live = append(live, b)
	}
	slices.SortFunc(live, func(a, b *Buffer) int { return int(a.debug.serial) - int(b.debug.serial) })
	places := make([]string, len(live))
	for i, b := range live {
		places[i] = b.debug.allocated.String()
	}
	return places
}
