package engine

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Boot returns CLOCK_BOOTTIME in nanoseconds. The call never blocks, so the
// scheduler is not involved.
func (SystemClock) Boot() int64 {
	var ts unix.Timespec
	_, _, errno := syscall.RawSyscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_BOOTTIME, uintptr(unsafe.Pointer(&ts)), 0)
	if errno != 0 {
		panic("CLOCK_BOOTTIME: " + errno.Error())
	}
	return ts.Nano()
}
