package server

import (
	"runtime"
	"testing"
)

// Memory that is reserved and has not been touched is not used.
func TestUsedMemoryIsResident(t *testing.T) {
	if instrumented {
		t.Skip("the race detector has memory of its own")
	}
	const reserved = 2 << 30 // more than the runtime has free in one piece, so fresh
	before := usedMemory()
	heap := make([]byte, reserved)
	used, held := usedMemory(), heldMemory()
	runtime.KeepAlive(heap)
	if before <= 0 || used-before > reserved/2 {
		t.Errorf("%d bytes are used, and %d before others were reserved", used, before)
	}
	if held < reserved {
		t.Errorf("the runtime holds %d bytes", held)
	}
}
