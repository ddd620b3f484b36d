package peer

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Errors of the transport. Most are returned wrapped, with the node or address.
var (
	// ErrClosed: the transport is closed.
	ErrClosed = errors.New("peer: the transport is closed")
	// ErrUnknownPeer: the node is not in the address book.
	ErrUnknownPeer = errors.New("peer: the node's address is not known")
	// ErrNotConnected: nothing was sent, there is no connection.
	ErrNotConnected = errors.New("peer: no connection to the node")
	// ErrBusy: nothing was done, a bound was reached; try again later.
	ErrBusy = errors.New("peer: busy")
	// ErrConnectionLost: the connection broke after a request was sent. Whether
	// it was carried out is unknown.
	ErrConnectionLost = errors.New("peer: connection lost before the answer arrived; the outcome is unknown")
	// ErrTooLarge: a body, verb, header or chunk is over its limit.
	ErrTooLarge = errors.New("peer: too large")
	// ErrForeign: the other side does not speak the peer protocol at all.
	ErrForeign = errors.New("peer: the other side does not speak the peer protocol")
	// ErrDamaged: the other side sent what is no sound frame.
	ErrDamaged = errors.New("peer: damaged or foreign data")
)

// RefusedError is a handshake that one of the two sides ended.
type RefusedError struct {
	Address string // the other side's
	Here    bool   // refused by this side
	Reason  string // a sentence; says what to do
	Code    Code
}

func (e *RefusedError) Error() string {
	if e.Here {
		return fmt.Sprintf("peer: refused %s: %s", e.Address, e.Reason)
	}
	return fmt.Sprintf("peer: refused by %s: %s", e.Address, e.Reason)
}

// level is what an error of a handshake is logged as.
func level(err error) slog.Level {
	if refused, ok := errors.AsType[*RefusedError](err); ok && refused.Reason == refusalNotReady {
		return slog.LevelInfo
	}
	return slog.LevelWarn
}

// RemoteError is the error with which the other side's handler answered a call
// or ended a snapshot.
type RemoteError struct {
	Text string
}

func (e *RemoteError) Error() string { return e.Text }

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrDamaged}, args...)...)
}

// printable makes text of the other side fit for a log or a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == utf8.RuneError { // or bytes that are no UTF-8
			return '?'
		}
		return r
	}, s)
}

// clip shortens s to at most n bytes, at the boundary of a character.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "")
}

// foreignError is ErrForeign, with the bytes that show it.
type foreignError struct{ first []byte }

func (e *foreignError) Error() string { return ErrForeign.Error() + " (" + guess(e.first) + ")" }
func (e *foreignError) Unwrap() error { return ErrForeign }
