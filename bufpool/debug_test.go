//go:build proadebug

package bufpool

import (
	"fmt"
	"strings"
	"testing"
)

func allocateForTest() *Buffer { return Get(100) }

func TestDoubleFreeNamesBothPlaces(t *testing.T) {
	b := allocateForTest()
	func() { b.Release() }()
	for call, f := range map[string]func(){"Release": b.Release, "Retain": b.Retain, "Grow": func() { b.Grow(1 << 10) }} {
		message := mustPanic(t, call+" of a buffer already freed", f)
		for _, want := range []string{"allocated at", "allocateForTest", "debug_test.go", "first freed at", "TestDoubleFreeNamesBothPlaces.func1"} {
			if !strings.Contains(message, want) {
				t.Errorf("%s: %q does not name %q", call, message, want)
			}
		}
	}
}

func TestDoubleFreeAfterReuse(t *testing.T) {
	b := Get(100)
	b.Release()
	for range 100 { // whatever is handed out since must not hide the mistake
		c := Get(100)
		defer c.Release()
	}
	mustPanic(t, "already freed", b.Release)
}

func TestUseAfterFreeIsReported(t *testing.T) {
	const size = 32 << 10 // a class no other test leaves entries in
	drain(size)
	b := Get(size)
	b.B = b.B[:size]
	view := b.B
	b.Release()
	if view[0] != poisonByte || view[size-1] != poisonByte {
		t.Error("freed memory is not poisoned")
	}
	view[1234] = 7
	message := mustPanic(t, "use after free: byte 1234", func() { Get(size).Release() })
	if !strings.Contains(message, "TestUseAfterFreeIsReported") {
		t.Errorf("%q does not say where it was freed", message)
	}
}

func TestCheckLeaksFindsUseAfterFree(t *testing.T) {
	b := Get(64 << 10)
	view := b.B[:1]
	b.Release()
	view[0] = 7
	var r recorder
	CheckLeaks(&r)
	if len(r) != 1 || !strings.Contains(r[0], "use after free: byte 0") {
		t.Errorf("reported %q", r)
	}
	r = nil
	if CheckLeaks(&r); len(r) != 0 {
		t.Errorf("reported again: %q", r)
	}
}

func TestGrowPoisonsTheOldMemory(t *testing.T) {
	b := Get(64)
	b.Append([]byte("abc"))
	view := b.B
	b.Grow(1000)
	if view[0] != poisonByte {
		t.Error("a view from before Grow still shows the content")
	}
	b.Release()
}

func TestQuarantineIsBounded(t *testing.T) {
	const size = 512 << 10
	all := make([]*Buffer, 3*quarantineLength(classOf(size)))
	for i := range all {
		all[i] = Get(size)
	}
	for _, b := range all {
		b.Release()
	}
	if n := len(registry.freed[classOf(size)]); n != quarantineLength(classOf(size)) {
		t.Errorf("%d buffers kept back, want %d", n, quarantineLength(classOf(size)))
	}
}

func TestLeaks(t *testing.T) {
	if l := Leaks(); len(l) != 0 {
		t.Fatalf("leaks of earlier tests: %q", l)
	}
	a := allocateForTest()
	b := Get(2 << 20)
	l := Leaks()
	if len(l) != 2 || !strings.Contains(l[0], "allocateForTest") || !strings.HasPrefix(l[1], "github.com/proa-kv/proa/bufpool.TestLeaks ") {
		t.Errorf("Leaks() = %q", l)
	}
	var r recorder
	CheckLeaks(&r)
	if len(r) != 2 || !strings.Contains(r[0], "never released") {
		t.Errorf("CheckLeaks reported %q", r)
	}
	if code := CheckedMain(runner(0)).Run(); code != 1 {
		t.Errorf("CheckedMain with leaks: exit status %d, want 1", code)
	}
	a.Release()
	b.Release()
	if code := CheckedMain(runner(0)).Run(); code != 0 {
		t.Errorf("CheckedMain without leaks: exit status %d, want 0", code)
	}
	if code := CheckedMain(runner(2)).Run(); code != 2 {
		t.Errorf("CheckedMain of failed tests: exit status %d, want 2", code)
	}
}

// drain empties the freed queue of a class.
func drain(size int) {
	registry.Lock()
	defer registry.Unlock()
	registry.freed[classOf(size)] = nil
}

type recorder []string

func (r *recorder) Helper() {}
func (r *recorder) Errorf(format string, args ...any) {
	*r = append(*r, fmt.Sprintf(format, args...))
}

type runner int

func (r runner) Run() int { return int(r) }
