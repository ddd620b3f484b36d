package bench

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"
)

// Idle is a set of open connections that say nothing. It is not safe for
// concurrent use.
type Idle struct{ sockets []socket }

// OpenIdle opens n connections and says the greeting of the protocol on each.
// It fails if any is refused; none stays open then. Each takes a file
// descriptor of this process.
func OpenIdle(ctx context.Context, t Target, n int) (*Idle, error) {
	if err := t.prepare(); err != nil {
		return nil, err
	}
	d, err := newDialer(&t)
	if err != nil {
		return nil, err
	}
	sockets, err := d.greeted(ctx, n)
	if err != nil {
		return nil, err
	}
	return &Idle{sockets}, nil
}

// Check returns an error unless all connections are still open and the server
// has said nothing on them.
func (i *Idle) Check() error {
	var b [1]byte
	for at, s := range i.sockets {
		n, _, err := unix.Recvfrom(s.fd, b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		for err == unix.EINTR {
			n, _, err = unix.Recvfrom(s.fd, b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		}
		switch {
		case err == unix.EAGAIN:
		case err != nil:
			return fmt.Errorf("bench: idle connection %d of %d: %w", at+1, len(i.sockets), err)
		case n == 0:
			return fmt.Errorf("bench: idle connection %d of %d: %w", at+1, len(i.sockets), ErrClosed)
		default:
			return fmt.Errorf("bench: idle connection %d of %d: %w: it was not asked anything", at+1, len(i.sockets), ErrProtocol)
		}
	}
	return nil
}

// Close closes the connections.
func (i *Idle) Close() error {
	err := closeAll(i.sockets)
	i.sockets = nil
	return err
}
