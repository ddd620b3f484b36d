//go:build !proadebug

package bufpool

import (
	"testing"

	"github.com/proa-kv/proa/internal/alloctest"
)

func TestSteadyStateAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("under the race detector sync.Pool drops entries at random")
	}
	page := make([]byte, 4096)
	for name, f := range map[string]func(){
		"get and release": func() { Get(4096).Release() },
		"shared":          func() { b := Get(100); b.Retain(); b.Release(); b.Release() },
		"grow":            func() { b := Get(64); b.Append(page); b.Append(page); b.Release() },
	} {
		if n := alloctest.Least(500, 0, f); n != 0 {
			t.Errorf("%s: %v allocations, want 0", name, n)
		}
	}
}

func TestDoubleFreePanics(t *testing.T) {
	b := new(Buffer)
	b.memory, b.class = allocate(64)
	b.refs.Store(1)
	b.Release()
	// The header may be in the pool now; nothing else in this test takes it.
	mustPanic(t, "Release of a buffer already freed", b.Release)
	mustPanic(t, "Retain of a buffer already freed", b.Retain)
}

func TestDebugIsOff(t *testing.T) {
	b := Get(1)
	defer b.Release()
	if Debug || Leaks() != nil {
		t.Error("the checks of proadebug are on without the tag")
	}
}
