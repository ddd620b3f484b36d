package server

import "golang.org/x/sys/unix"

// peerUser returns the user id of the process at the other end of a unix socket; false for
// any other socket.
func peerUser(fd int) (uid uint32, ok bool) {
	cred, err := unix.GetsockoptXucred(fd, unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
	if err != nil {
		return 0, false
	}
	return cred.Uid, true
}
