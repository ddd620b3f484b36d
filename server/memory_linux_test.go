package server

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// Memory that is reserved and has not been touched is not used.
func TestUsedMemoryIsResident(t *testing.T) {
	if instrumented {
		t.Skip("the race detector has memory of its own")
	}
	const reserved = 1 << 30
	b, err := unix.Mmap(-1, 0, reserved, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Skip(err)
	}
	defer func() { _ = unix.Munmap(b) }()
	heap := make([]byte, reserved)
	defer runtime.KeepAlive(heap)
	if used := usedMemory(); used <= 0 || used > reserved {
		t.Errorf("%d bytes are used, most of which nobody has touched", used)
	}
	if held := heldMemory(); held < reserved {
		t.Errorf("the runtime holds %d bytes", held)
	}
}
