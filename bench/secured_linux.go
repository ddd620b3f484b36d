package bench

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"

	"golang.org/x/sys/unix"
)

// socket is a connection that has been greeted. Its descriptor is non-blocking.
type socket struct {
	fd int

	// With TLS, else nil.
	tls     *tls.Conn
	carrier *carrier
}

// carrier is the connection below one of TLS. Until take it is one of package net, for the
// handshake and the greeting; then it reads and writes a descriptor, without ever
// waiting: a read that finds nothing fails with errNothing, which TLS forgets, and what the
// socket does not take is kept.
type carrier struct {
	net.Conn
	fd      int
	drained bool   // the last read has left nothing
	unsent  []byte // sealed, and not taken by the socket
}

// take has c use the descriptor of its connection, which is to be closed then.
func (c *carrier) take(fd int) { c.fd, c.Conn = fd, nil }

// errNothing says that there is nothing to read yet. TLS takes it for an expired
// deadline, after which a connection goes on.
var errNothing = nothing{}

type nothing struct{}

func (nothing) Error() string   { return "nothing to read yet" }
func (nothing) Timeout() bool   { return true }
func (nothing) Temporary() bool { return true }

// Read implements net.Conn.
func (c *carrier) Read(b []byte) (int, error) {
	if c.Conn != nil {
		return c.Conn.Read(b)
	}
	if c.drained {
		return 0, errNothing
	}
	n, err := readRaw(c.fd, b)
	switch {
	case err == unix.EAGAIN || err == unix.EINTR:
		c.drained = true
		return 0, errNothing
	case n == 0 && (err == nil || err == unix.ECONNRESET):
		return 0, io.EOF
	case err != nil:
		return 0, err
	}
	c.drained = n < len(b)
	return n, nil
}

// Write implements net.Conn.
func (c *carrier) Write(b []byte) (int, error) {
	if c.Conn != nil {
		return c.Conn.Write(b)
	}
	n := 0
	if len(c.unsent) == 0 {
		var err error
		if n, err = writeRaw(c.fd, b); err != nil {
			return 0, err
		}
	}
	c.unsent = append(c.unsent, b[n:]...)
	return len(b), nil
}

// readSecured reads all that has arrived, as far as there is room for it in b. An error
// behind what was read comes with the next call.
func (k *link) readSecured(b []byte) (have int, err error) {
	k.carrier.drained = false
	for have < len(b) {
		n, err := k.tls.Read(b[have:])
		have += n
		switch {
		case err == nil:
		case errors.Is(err, errNothing), have > 0:
			return have, nil
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return 0, ErrClosed
		default:
			return 0, fmt.Errorf("bench: reading: %w", err)
		}
	}
	return have, nil
}
