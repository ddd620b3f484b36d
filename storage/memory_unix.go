//go:build unix

package storage

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// mapMemory returns n zero bytes outside the Go heap: the garbage collector
// neither scans nor counts them, and a page is resident only once it was
// written.
func mapMemory(n int) (memory []byte, release func() error, err error) {
	memory, err = unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, nil, fmt.Errorf("storage: map %d bytes for the row cache: %w", n, err)
	}
	return memory, func() error { return unix.Munmap(memory) }, nil
}
