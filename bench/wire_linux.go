package bench

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	inputBytes = 256 << 10
	// inputBytesMax bounds a single reply; larger ones are not asked for.
	inputBytesMax = ValueBytesMax + 128<<10

	// waitMillis bounds a wait for events, and so how late the end of a run is
	// noticed on connections that are silent.
	waitMillis = 10
)

// link is one connection of a wire.
type link struct {
	socket         // its fd is -1 where it is closed
	partial []byte // the begin of a reply whose rest has not arrived
	unsent  []byte // requests the socket did not take
	filled  bool   // with TLS: the input was filled, and there may be more that epoll does not know of
}

// wire is the connections of one thread and the epoll that watches them. Its
// buffers grow to what is needed and are then used again.
type wire struct {
	epoll  int
	links  []link
	events []unix.EpollEvent
	in     []byte
}

// newWire returns a wire without connections.
func newWire() wire { return wire{epoll: -1, in: make([]byte, inputBytes)} }

// open takes connections that have been greeted and watches them. It closes
// them if it fails.
func (w *wire) open(sockets []socket) error {
	w.links = make([]link, len(sockets))
	for i, s := range sockets {
		w.links[i].socket = s
	}
	w.events = make([]unix.EpollEvent, min(len(sockets)+1, 1024))
	var err error
	if w.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return errors.Join(fmt.Errorf("bench: epoll: %w", err), w.close())
	}
	for i := range w.links {
		if err := w.watch(i, unix.EPOLL_CTL_ADD, unix.EPOLLIN); err != nil {
			return errors.Join(err, w.close())
		}
	}
	return nil
}

// watch sets what epoll reports of connection i. Level triggering suits a
// client: one read takes all there is, and a second one, which would have to
// find nothing, is not needed.
func (w *wire) watch(i, operation int, events uint32) error {
	ev := unix.EpollEvent{Events: events, Fd: int32(i)}
	if err := unix.EpollCtl(w.epoll, operation, w.links[i].fd, &ev); err != nil {
		return fmt.Errorf("bench: epoll: %w", err)
	}
	return nil
}

// close closes everything that is open.
func (w *wire) close() error {
	var err error
	for i := range w.links {
		err = errors.Join(err, w.closeSocket(i))
	}
	if w.epoll >= 0 {
		err = errors.Join(err, unix.Close(w.epoll))
		w.epoll = -1
	}
	return err
}

// closeSocket closes connection i, if it is open, and forgets what was on its way.
func (w *wire) closeSocket(i int) error {
	k := &w.links[i]
	if k.fd < 0 {
		return nil
	}
	fd := k.fd
	*k = link{socket: socket{fd: -1}, partial: k.partial[:0], unsent: k.unsent[:0]}
	return unix.Close(fd)
}

// replace puts a greeted connection in the place of one that was closed.
func (w *wire) replace(i int, s socket) error {
	w.links[i].socket = s
	return w.watch(i, unix.EPOLL_CTL_ADD, unix.EPOLLIN)
}

// wait waits for events, at most so many milliseconds, and returns how many of
// w.events have been filled in. Go's scheduler does not know of the wait; it would
// take the thread's processor away during each wait and have to find another one
// afterwards, so the rest of the program needs a processor beside. The scheduler's
// signals still end the wait, so that a garbage collection is not held up.
func (w *wire) wait(millis int) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(w.epoll), uintptr(unsafe.Pointer(&w.events[0])), uintptr(len(w.events)), uintptr(millis), 0, 0)
	switch errno {
	case 0:
		return int(n), nil
	case unix.EINTR:
		return 0, nil
	}
	return 0, fmt.Errorf("bench: epoll: %w", errno)
}

// read returns what has arrived on connection i, behind the part that was kept.
// It is empty where nothing has. The bytes are valid until the next read.
func (w *wire) read(i int) ([]byte, error) {
	k := &w.links[i]
	have := copy(w.in, k.partial)
	if k.tls != nil {
		n, err := k.readSecured(w.in[have:])
		k.filled = have+n == len(w.in)
		if n == 0 {
			have = 0 // nothing has come
		}
		return w.in[:have+n], err
	}
	n, err := readRaw(k.fd, w.in[have:])
	switch {
	case err == unix.EAGAIN || err == unix.EINTR:
		return nil, nil
	case n == 0 && (err == nil || err == unix.ECONNRESET):
		return nil, ErrClosed
	case err != nil:
		return nil, fmt.Errorf("bench: reading: %w", err)
	}
	return w.in[:have+n], nil
}

// keepPartial keeps the rest of what read has returned, the begin of a reply.
func (w *wire) keepPartial(i int, rest []byte) error {
	k := &w.links[i]
	k.partial = append(k.partial[:0], rest...)
	if len(rest) == len(w.in) {
		return w.growInput()
	}
	return nil
}

// growInput makes room for a reply that is larger than the input buffer.
func (w *wire) growInput() error {
	if len(w.in) >= inputBytesMax {
		return fmt.Errorf("%w: a reply of more than %d bytes", ErrProtocol, len(w.in))
	}
	w.in = make([]byte, inputBytesMax)
	return nil
}

// write sends b on connection i, behind what was not taken before, and keeps
// what the socket does not take.
func (w *wire) write(i int, b []byte) error {
	k := &w.links[i]
	if k.tls != nil {
		waits := len(k.carrier.unsent) > 0
		if _, err := k.tls.Write(b); err != nil || waits || len(k.carrier.unsent) == 0 {
			return err
		}
		return w.watch(i, unix.EPOLL_CTL_MOD, unix.EPOLLIN|unix.EPOLLOUT)
	}
	if len(k.unsent) > 0 {
		k.unsent = append(k.unsent, b...)
		return nil
	}
	n, err := writeRaw(k.fd, b)
	if err != nil || n == len(b) {
		return err
	}
	k.unsent = append(k.unsent, b[n:]...)
	return w.watch(i, unix.EPOLL_CTL_MOD, unix.EPOLLIN|unix.EPOLLOUT)
}

// resume writes what the socket did not take before.
func (w *wire) resume(i int) error {
	k := &w.links[i]
	unsent := &k.unsent
	if k.tls != nil {
		unsent = &k.carrier.unsent
	}
	n, err := writeRaw(k.fd, *unsent)
	if err != nil {
		return err
	}
	*unsent = append((*unsent)[:0], (*unsent)[n:]...)
	if len(*unsent) > 0 {
		return nil
	}
	return w.watch(i, unix.EPOLL_CTL_MOD, unix.EPOLLIN)
}

// readRaw and writeRaw never block, so the scheduler need not know.

func readRaw(fd int, b []byte) (int, error) {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// writeRaw returns how much of b the socket took, which may be nothing.
func writeRaw(fd int, b []byte) (int, error) {
	n, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	switch errno {
	case 0:
		return int(n), nil
	case unix.EAGAIN, unix.EINTR:
		return 0, nil
	case unix.EPIPE, unix.ECONNRESET:
		return 0, ErrClosed
	}
	return 0, fmt.Errorf("bench: writing: %w", errno)
}
