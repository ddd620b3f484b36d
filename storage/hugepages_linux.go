package storage

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

const hugePageBytes = 2 << 20

// adviseHuge has the kernel use large pages for memory, where the system lets
// programs choose: what is touched at random then misses the processor's cache
// of page addresses less often, and what is filled in order faults less often.
// Memory that is filled in order becomes resident as it is used all the same.
func adviseHuge(memory []byte) {
	at := uintptr(unsafe.Pointer(unsafe.SliceData(memory)))
	from := (hugePageBytes - at%hugePageBytes) % hugePageBytes
	if whole := (uintptr(len(memory)) - min(from, uintptr(len(memory)))) &^ (hugePageBytes - 1); whole > 0 {
		_ = unix.Madvise(memory[from:from+whole], unix.MADV_HUGEPAGE)
	}
}
