package server

import (
	"net"
	"os"
	"syscall"
)

// isLocalPeer reports whether the process at the other end of a socket is one of this
// process's user, or of root, on this machine: whoever is that can read the data directory
// anyway.
func isLocalPeer(fd int) bool {
	uid, ok := peerUser(fd)
	return ok && (uid == 0 || int(uid) == os.Geteuid())
}

// localPeer is isLocalPeer of a connection of package net.
func localPeer(nc net.Conn) (is bool) {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	return raw.Control(func(fd uintptr) { is = isLocalPeer(int(fd)) }) == nil && is
}
