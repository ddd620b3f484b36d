package bench

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// dialer opens connections to one target.
type dialer struct {
	target           *Target
	network, address string
	tls              *tls.Config // nil: none
	next             int         // the source to take next
	buf              []byte
}

func newDialer(t *Target) (*dialer, error) {
	d := &dialer{target: t, buf: make([]byte, 4096)}
	if path, ok := strings.CutPrefix(t.Address, "unix://"); ok {
		d.network, d.address = "unix", path
		return d, nil
	}
	a, err := net.ResolveTCPAddr("tcp", t.Address)
	if err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	d.network, d.address = "tcp", a.String()
	if t.TLS != nil {
		host, _, _ := net.SplitHostPort(t.Address) // it has been resolved
		host, _, _ = strings.Cut(host, "%")
		d.tls = t.TLS.Clone()
		d.tls.ServerName = cmp.Or(d.tls.ServerName, host)
		d.tls.DynamicRecordSizingDisabled = true // what is written together shall leave together
	}
	for _, s := range t.Sources {
		if s.Unmap().Is6() != a.AddrPort().Addr().Unmap().Is6() {
			return nil, fmt.Errorf("%w: no connection from %v to %s", ErrConfig, s, t.Address)
		}
	}
	return d, nil
}

// dial returns a connection of which every step has the timeout as a deadline.
func (d *dialer) dial(ctx context.Context) (net.Conn, error) {
	to := net.Dialer{Timeout: d.target.Timeout, KeepAlive: -1}
	if n := len(d.target.Sources); n > 0 {
		to.LocalAddr, to.Control = &net.TCPAddr{IP: d.target.Sources[d.next%n].AsSlice()}, bindWithoutPort
		d.next++
	}
	c, err := to.DialContext(ctx, d.network, d.address)
	if err != nil {
		return nil, d.failed("connecting", err)
	}
	if err := c.SetDeadline(time.Now().Add(d.target.Timeout)); err != nil || d.tls == nil {
		return c, err
	}
	secured := tls.Client(&carrier{Conn: c}, d.tls)
	if err := secured.HandshakeContext(ctx); err != nil {
		return secured, d.failed("TLS handshake", err)
	}
	return secured, nil
}

// bindWithoutPort leaves the choice of the port to connect, which knows that the
// port only has to be free towards this server.
func bindWithoutPort(_, _ string, c syscall.RawConn) (err error) {
	failed := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1) })
	return errors.Join(err, failed)
}

func (d *dialer) failed(what string, err error) error {
	return fmt.Errorf("bench: %s to %s: %w", what, d.target.Address, err)
}

// sendGreeting sends the greeting on a fresh connection.
func (d *dialer) sendGreeting(c net.Conn) error {
	if _, err := c.Write(d.target.Codec.AppendGreeting(d.buf[:0])); err != nil {
		return d.failed("sending the greeting", err)
	}
	return nil
}

// awaitGreeting reads the reply to the greeting, behind which nothing may
// follow.
func (d *dialer) awaitGreeting(c net.Conn) error {
	for have := 0; ; {
		n, err := c.Read(d.buf[have:])
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return d.failed("waiting for the greeting", ErrStalled)
		case errors.Is(err, io.EOF):
			return d.failed("waiting for the greeting", ErrClosed)
		case err != nil:
			return d.failed("waiting for the greeting", err)
		}
		have += n
		used, err := d.target.Codec.ParseGreeting(d.buf[:have])
		switch {
		case err != nil:
			return d.failed("greeting", err)
		case used == have:
			return nil
		case used > 0, have == len(d.buf):
			return d.failed("greeting", fmt.Errorf("%w: %d bytes answer the greeting", ErrProtocol, have))
		}
	}
}

// greeted opens n connections that have been greeted. Several are on their way at a
// time, so that the server need not be woken for each.
func (d *dialer) greeted(ctx context.Context, n int) (sockets []socket, err error) {
	const together = 64 // well below any listener's backlog
	sockets = make([]socket, 0, n)
	for len(sockets) < n && err == nil {
		var conns []net.Conn
		for len(conns) < min(together, n-len(sockets)) && err == nil {
			var c net.Conn
			if c, err = d.dial(ctx); c != nil {
				conns = append(conns, c)
			}
			if err == nil {
				err = d.sendGreeting(c)
			}
		}
		for _, c := range conns {
			if err == nil {
				err = d.awaitGreeting(c)
			}
			s, failed := takeOver(c)
			sockets, err = append(sockets, s), errors.Join(err, failed)
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("connection %d of %d: %w", len(sockets), n, err), closeAll(sockets))
	}
	return sockets, nil
}

// takeOver closes a connection of package net and returns a copy of its
// descriptor, which keeps the connection open and which Go's poller does not
// watch. TLS goes on over the copy.
func takeOver(c net.Conn) (s socket, err error) {
	s.fd = -1
	if secured, ok := c.(*tls.Conn); ok {
		s.tls = secured
		s.carrier = secured.NetConn().(*carrier)
		c = s.carrier.Conn
	}
	raw, err := c.(syscall.Conn).SyscallConn()
	if err == nil {
		failed := raw.Control(func(fd uintptr) { s.fd, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) })
		err = errors.Join(err, failed)
	}
	if s.carrier != nil {
		s.carrier.take(s.fd)
	}
	return s, errors.Join(err, c.Close())
}

func closeAll(sockets []socket) (err error) {
	for _, s := range sockets {
		if s.fd >= 0 {
			err = errors.Join(err, unix.Close(s.fd))
		}
	}
	return err
}
