package bench

import (
	"errors"
	"fmt"
	"net"
	"strings"

	"golang.org/x/sys/unix"
)

// dialer opens connections to one target.
type dialer struct {
	target  *Target
	family  int
	remote  unix.Sockaddr
	sources []unix.Sockaddr // of the family
	next    int             // the source to take next
	buf     []byte
}

func newDialer(t *Target) (*dialer, error) {
	d := &dialer{target: t, buf: make([]byte, 4096)}
	if path, ok := strings.CutPrefix(t.Address, "unix://"); ok {
		d.family, d.remote = unix.AF_UNIX, &unix.SockaddrUnix{Name: path}
		return d, nil
	}
	a, err := net.ResolveTCPAddr("tcp", t.Address)
	if err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	d.family, d.remote = sockaddr(a.AddrPort().Addr().Unmap().AsSlice(), a.Port)
	for _, s := range t.Sources {
		family, local := sockaddr(s.Unmap().AsSlice(), 0)
		if family != d.family {
			return nil, fmt.Errorf("%w: no connection from %v to %s", ErrConfig, s, t.Address)
		}
		d.sources = append(d.sources, local)
	}
	return d, nil
}

// sockaddr returns an address in the kernel's form. No address at all, as in
// ":7400", is this machine.
func sockaddr(ip []byte, port int) (family int, sa unix.Sockaddr) {
	if len(ip) == net.IPv6len {
		return unix.AF_INET6, &unix.SockaddrInet6{Port: port, Addr: [16]byte(ip)}
	}
	v4 := &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}
	copy(v4.Addr[:], ip)
	return unix.AF_INET, v4
}

// dial returns a connected socket. It still blocks, up to the timeout.
func (d *dialer) dial() (fd int, err error) {
	fd, err = unix.Socket(d.family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, d.failed("opening a socket", err)
	}
	if err := d.connect(fd); err != nil {
		return -1, d.failed("connecting", errors.Join(err, unix.Close(fd)))
	}
	return fd, nil
}

func (d *dialer) connect(fd int) error {
	limit := unix.NsecToTimeval(d.target.Timeout.Nanoseconds())
	err := errors.Join(
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit))
	if d.family != unix.AF_UNIX {
		err = errors.Join(err, unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1))
	}
	if len(d.sources) > 0 {
		// The port is chosen by connect, which knows that it only has to be
		// free towards this server.
		err = errors.Join(err,
			unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1),
			unix.Bind(fd, d.sources[d.next%len(d.sources)]))
		d.next++
	}
	if err != nil {
		return err
	}
	for {
		// A signal interrupts the call but not the connecting.
		if err := unix.Connect(fd, d.remote); err != unix.EINTR && err != unix.EALREADY {
			if err == unix.EISCONN {
				return nil
			}
			return err
		}
	}
}

func (d *dialer) failed(what string, err error) error {
	return fmt.Errorf("bench: %s to %s: %w", what, d.target.Address, err)
}

// sendGreeting sends the greeting on a fresh connection.
func (d *dialer) sendGreeting(fd int) error {
	for b := d.target.Codec.AppendGreeting(d.buf[:0]); len(b) > 0; {
		n, err := unix.Write(fd, b)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return d.failed("sending the greeting", err)
		default:
			b = b[n:]
		}
	}
	return nil
}

// awaitGreeting reads the reply to the greeting, behind which nothing may
// follow, and makes the socket non-blocking.
func (d *dialer) awaitGreeting(fd int) error {
	for have := 0; ; {
		n, err := unix.Read(fd, d.buf[have:])
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			return d.failed("waiting for the greeting", ErrStalled)
		case err != nil:
			return d.failed("waiting for the greeting", err)
		case n == 0:
			return d.failed("waiting for the greeting", ErrClosed)
		}
		have += n
		used, err := d.target.Codec.ParseGreeting(d.buf[:have])
		switch {
		case err != nil:
			return d.failed("greeting", err)
		case used == have:
			return unix.SetNonblock(fd, true)
		case used > 0, have == len(d.buf):
			return d.failed("greeting", fmt.Errorf("%w: %d bytes answer the greeting", ErrProtocol, have))
		}
	}
}

// greeted opens n connections that have been greeted, non-blocking. Several
// are on their way at a time, so that the server need not be woken for each.
func (d *dialer) greeted(stopped func() error, n int) (fds []int, err error) {
	const together = 64 // well below any listener's backlog
	fds = make([]int, 0, n)
	for len(fds) < n && err == nil {
		err = stopped()
		first := len(fds)
		for len(fds) < min(first+together, n) && err == nil {
			var fd int
			if fd, err = d.dial(); err == nil {
				fds = append(fds, fd)
				err = d.sendGreeting(fd)
			}
		}
		for i := first; i < len(fds) && err == nil; i++ {
			err = d.awaitGreeting(fds[i])
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("connection %d of %d: %w", len(fds), n, err), closeAll(fds))
	}
	return fds, nil
}

func closeAll(fds []int) error {
	var err error
	for _, fd := range fds {
		err = errors.Join(err, unix.Close(fd))
	}
	return err
}
