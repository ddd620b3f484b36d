package server

import (
	"testing"

	"golang.org/x/sys/unix"
)

// Memory that is reserved and has not been touched is not used.
func TestUsedMemoryIsResident(t *testing.T) {
	const reserved = 2 << 30
	before := usedMemory()
	m, err := unix.Mmap(-1, 0, reserved, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_NORESERVE)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(m) }()
	if used := usedMemory(); before <= 0 || used-before > reserved/2 {
		t.Errorf("%d bytes are used, and %d before others were reserved", used, before)
	}
}
