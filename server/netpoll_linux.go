package server

import "golang.org/x/sys/unix"

// undelivered is how many bytes written to a socket its peer has not acknowledged,
// the end of the output included.
func undelivered(fd int) int {
	n, _ := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
	return n
}
