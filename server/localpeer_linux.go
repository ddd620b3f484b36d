package server

import "golang.org/x/sys/unix"

// peerUser returns the user id of the process at the other end of a unix socket; false for
// any other socket.
func peerUser(fd int) (uid uint32, ok bool) {
	if domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN); err != nil || domain != unix.AF_UNIX {
		return 0, false
	}
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return 0, false
	}
	return cred.Uid, true
}
