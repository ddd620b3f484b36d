package server

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// rawWrite is a write to a non-blocking descriptor.
func rawWrite(fd int, b []byte) (int, syscall.Errno) {
	n, err := unix.Write(fd, b)
	errno, _ := err.(syscall.Errno)
	return n, errno
}
