package server

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// undelivered is how many bytes written to a socket its peer has not acknowledged.
func undelivered(fd int) int {
	n, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_NWRITE)
	return n
}

// rawWrite is a write to a non-blocking descriptor.
func rawWrite(fd int, b []byte) (int, syscall.Errno) {
	n, err := unix.Write(fd, b)
	errno, _ := err.(syscall.Errno)
	return n, errno
}
