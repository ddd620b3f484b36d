//go:build unix

package peer

import (
	"net"
	"syscall"
)

// direct writes to a socket without ever waiting, so that the thread that made
// a frame can send it.
type direct struct {
	raw   syscall.RawConn
	bytes []byte
	n     int
	err   error
	try   func(fd uintptr) bool // made once, so that a write allocates nothing
}

// newDirect returns nil where c is no plain socket.
func newDirect(c net.Conn) *direct {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	d := &direct{raw: raw}
	d.try = func(fd uintptr) bool {
		for {
			d.n, d.err = syscall.Write(int(fd), d.bytes)
			if d.err != syscall.EINTR {
				return true
			}
		}
	}
	return d
}

// write writes as much of b as the socket takes at once, which may be nothing.
// An error is left to be found by whoever writes the rest. It must not be
// called while anyone else writes: it would wait for them.
func (d *direct) write(b []byte) int {
	d.bytes = b
	err := d.raw.Write(d.try)
	d.bytes = nil
	if err != nil || d.err != nil {
		return 0
	}
	return d.n
}
