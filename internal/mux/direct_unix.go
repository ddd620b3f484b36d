//go:build unix

package mux

import (
	"crypto/tls"
	"net"
	"syscall"
)

// Direct writes to a socket without ever waiting, so that a caller can send
// its own request and still keep to its deadline.
type Direct struct {
	raw   syscall.RawConn
	bytes []byte
	n     int
	err   error
	try   func(fd uintptr) bool // made once, so that a write allocates nothing

	// With TLS instead.
	tls    *tls.Conn
	socket *Socket
}

// NewDirect returns nil where nc is neither a plain socket nor TLS over a Socket (a
// test's pipe). The handshake of TLS must be over.
func NewDirect(nc net.Conn) *Direct {
	if tc, s := secured(nc); s != nil {
		s.ready.Store(true)
		return &Direct{tls: tc, socket: s}
	}
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	d := &Direct{raw: raw}
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

// Write writes as much of b as the socket takes at once. It is not safe for
// concurrent use, and waits for a write of anybody else. TLS takes all of b; see Keeps.
func (d *Direct) Write(b []byte) (int, error) {
	if d.tls != nil {
		return d.tls.Write(b)
	}
	d.bytes = b
	err := d.raw.Write(d.try)
	d.bytes = nil
	switch {
	case err != nil:
		return 0, err
	case d.err == syscall.EAGAIN:
		return 0, nil
	case d.err != nil:
		return 0, d.err
	}
	return d.n, nil
}

// Keeps reports whether the socket has not taken all that was written: WriteAll must be
// called then, and nothing be written with d before. Without TLS nothing is kept.
func (d *Direct) Keeps() bool { return d.socket != nil && d.socket.keeps() }
