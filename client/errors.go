package client

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/proa-kv/proa/protocol"
)

// Status is the server's answer to a request (see docs/protocol.md).
type Status = protocol.Status

// Outcome is what is known about the effect of a call. There are exactly
// three: Done, NotDone and Unknown.
type Outcome = protocol.Outcome

// The outcomes of a call.
const (
	// Done: the call was carried out.
	Done = protocol.Done
	// NotDone: the call definitely had no effect and never will.
	NotDone = protocol.NotDone
	// Unknown: the call may or may not have taken effect, now or later.
	Unknown = protocol.Unknown
)

// Errors that calls return, always inside an [*Error]: compare with errors.Is.
var (
	// ErrNotFound: the key does not exist, or has expired.
	ErrNotFound = sentinel(protocol.StatusNotFound, "key not found")
	// ErrConditionFailed: a condition of the write did not hold. Error.Version
	// is the version the key has.
	ErrConditionFailed = sentinel(protocol.StatusConditionFailed, "condition failed")
	// ErrNotInteger: Incr on a value that is not a decimal 64-bit integer.
	ErrNotInteger = sentinel(protocol.StatusNotInteger, "value is not a decimal 64-bit integer")
	// ErrOverflow: Incr would leave the range of an int64, or IncrFloat that of
	// finite numbers.
	ErrOverflow = sentinel(protocol.StatusOverflow, "result would overflow a 64-bit integer")
	// ErrNotFloat: IncrFloat on or by something that is not a number.
	ErrNotFloat = sentinel(protocol.StatusNotFloat, "value or increment is not a valid number")
	// ErrBadRequest: the request is malformed or a field is out of range.
	ErrBadRequest = sentinel(protocol.StatusBadRequest, "malformed request")
	// ErrTooLarge: a key, value, request or reply exceeds a limit.
	ErrTooLarge = sentinel(protocol.StatusTooLarge, "a size limit is exceeded")
	// ErrUnsupported: this server does not support the operation.
	ErrUnsupported = sentinel(protocol.StatusUnsupported, "not supported by this server")
	// ErrCrossShard: an atomic batch or a transaction whose keys are in
	// different shards.
	ErrCrossShard = sentinel(protocol.StatusCrossShard, "keys are in different shards")
	// ErrBadCursor: the cursor belongs to another scan or is damaged.
	ErrBadCursor = sentinel(protocol.StatusBadCursor, "cursor does not belong to this scan")
	// ErrSessionExpired: the server no longer keeps the result of this write.
	// It also is ErrOutcomeUnknown.
	ErrSessionExpired = sentinel(protocol.StatusSessionExpired, "the result of this sequence number is no longer kept")
	// ErrBusy: a queue of the server, or the client's own, is full.
	ErrBusy = sentinel(protocol.StatusBusy, "too busy")
	// ErrNotLeader: another node leads the shard.
	ErrNotLeader = sentinel(protocol.StatusNotLeader, "another node leads this shard")
	// ErrNoQuorum: a majority of the shard's replicas is unavailable.
	ErrNoQuorum = sentinel(protocol.StatusNoQuorum, "the shard has no quorum")
	// ErrDropped: the shard's leader changed, or the node stopped, before the request
	// took effect. Nothing was changed, and it can be sent again.
	ErrDropped = sentinel(protocol.StatusDropped, protocol.StatusDropped.Text())
	// ErrShuttingDown: the server is shutting down.
	ErrShuttingDown = sentinel(protocol.StatusShuttingDown, "server is shutting down")
	// ErrTooManyConnections: the server's connection limit is reached.
	ErrTooManyConnections = sentinel(protocol.StatusTooManyConns, "the server's connection limit is reached")
	// ErrHandshake: the server refused the handshake, or is not a Proa
	// server.
	ErrHandshake = sentinel(protocol.StatusHandshake, "handshake refused")
	// ErrWrongCluster: the server belongs to another cluster than Config.Cluster;
	// nothing was sent to it. See also [WrongClusterError].
	ErrWrongCluster = errors.New("the server belongs to another cluster")
	// ErrNotProa: what answers does not speak Proa's protocol. It also is
	// ErrHandshake. (Another port of a Proa server says which it is: that is
	// ErrHandshake alone.)
	ErrNotProa = errors.New("the server does not speak Proa's protocol")
	// ErrTLS: the encryption of a connection did not come about; see [TLSError].
	ErrTLS = errors.New("TLS handshake failed")
	// ErrNoTLS: Config.TLS is set, and the server speaks without TLS. It also is
	// ErrTLS.
	ErrNoTLS = errors.New("the server does not speak TLS; connect without it")
	// ErrTLSRequired: Config.TLS is nil, and the server speaks TLS alone. It also
	// is ErrTLS.
	ErrTLSRequired = errors.New("the server requires TLS")
	// ErrUnauthenticated: credentials are missing or wrong. While no server
	// accepts them, this is the error of every call, together with
	// ErrUnavailable.
	ErrUnauthenticated = sentinel(protocol.StatusUnauthenticated, "credentials missing or wrong")
	// ErrPermission: the credentials do not allow this.
	ErrPermission = sentinel(protocol.StatusPermission, "not permitted")
	// ErrProtocol: one side sent bytes the other cannot read.
	ErrProtocol = sentinel(protocol.StatusProtocol, "protocol error")
	// ErrInternal: the server failed in a way that no other error
	// describes.
	ErrInternal = sentinel(protocol.StatusInternal, "internal server error")
	// ErrStorageFailed: the node's disk failed; the node stops.
	ErrStorageFailed = sentinel(protocol.StatusStorageFailed, "storage failed")
	// ErrDamaged: the requested data cannot be read, because its file is
	// damaged and there is no other replica. Nothing was done. All other
	// data is still served; a Put without conditions repairs the row.
	ErrDamaged = sentinel(protocol.StatusDamaged, "the data is damaged")
	// ErrRefused: the cluster's state does not allow what Admin asked for; the
	// message says why.
	ErrRefused = sentinel(protocol.StatusRefused, "refused")
	// ErrOutcomeUnknown: the write may or may not have taken effect.
	ErrOutcomeUnknown = errors.New("outcome unknown")
	// ErrDeadlineExceeded: the call's time ran out. It also is
	// context.DeadlineExceeded.
	ErrDeadlineExceeded error = deadlineError{}
	// ErrUnavailable: no endpoint could be reached, or none accepted the
	// credentials. The message says which were tried and how each failed; see
	// also [UnavailableError].
	ErrUnavailable = errors.New("no server could be reached")
	// ErrConnectionLost: the connection was lost while the request was in
	// flight.
	ErrConnectionLost = errors.New("connection lost")
	// ErrClosed: the client was closed.
	ErrClosed = errors.New("client is closed")
)

type deadlineError struct{}

func (deadlineError) Error() string        { return "deadline exceeded" }
func (deadlineError) Timeout() bool        { return true }
func (deadlineError) Is(target error) bool { return target == context.DeadlineExceeded }

// statusErrors has the sentinel of each status of the protocol, nil for a status
// that this client does not know.
var statusErrors [math.MaxUint8 + 1]error

// sentinel returns the error for what a status says.
func sentinel(status Status, text string) error {
	statusErrors[status] = errors.New(text)
	return statusErrors[status]
}

func init() {
	statusErrors[protocol.StatusDeadlineExceeded] = ErrDeadlineExceeded
	statusErrors[protocol.StatusTimeout] = ErrDeadlineExceeded
	statusErrors[protocol.StatusGoAway] = ErrShuttingDown
	statusErrors[protocol.StatusIdle] = ErrConnectionLost
}

// Error is what every failed call returns.
type Error struct {
	// Op is the operation as the protocol spells it, such as "PUT".
	Op string
	// Status is what the server answered; protocol.StatusOK where the failure
	// was found on this side (Err then says which).
	Status Status
	// Message is the server's sentence for people, empty if it sent none.
	Message string
	// Outcome says whether the call took effect. Reads have no effect and are
	// NotDone, or Done where the server answered that the key does not exist.
	Outcome Outcome
	// RetryAfter is how long the server asks to wait before another try; 0
	// where it gave no advice.
	RetryAfter time.Duration
	// Version is the version the key has, with ErrConditionFailed; 0 stands
	// for an absent key.
	Version uint64
	// Attempts counts how often the request was given to a connection.
	Attempts int
	// Err is the cause: one of this package's sentinels, a context's error, an
	// error of the network. Never nil.
	Err error
}

// Error describes the failure in one line.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("proa: ")
	if e.Op != "" {
		b.WriteString(e.Op)
		b.WriteString(": ")
	}
	if e.Outcome == Unknown {
		b.WriteString("outcome unknown: ")
	}
	b.WriteString(e.Err.Error())
	if e.Message != "" && e.Message != e.Err.Error() {
		b.WriteString(": ")
		b.WriteString(e.Message)
	}
	if e.Status == protocol.StatusConditionFailed {
		fmt.Fprintf(&b, " (the key has version %d)", e.Version)
	}
	if e.RetryAfter > 0 {
		fmt.Fprintf(&b, " (retry after %v)", e.RetryAfter)
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is reports whether target is ErrOutcomeUnknown and the outcome is unknown.
// The other sentinels are found through Unwrap.
func (e *Error) Is(target error) bool {
	return target == ErrOutcomeUnknown && e.Outcome == Unknown
}

// Timeout reports whether the call's time ran out.
func (e *Error) Timeout() bool { return errors.Is(e.Err, context.DeadlineExceeded) }

// UnavailableError says which endpoints were tried and how each failed last.
// It is ErrUnavailable, and each endpoint's error too.
type UnavailableError struct {
	Endpoints []EndpointError
}

// EndpointError is the last failure of one endpoint.
type EndpointError struct {
	Endpoint string        // with the port; as configured, or as the cluster advertises it
	Err      error         // nil if it was not tried to the end
	Tries    int           // in vain, since it was reached last
	Ago      time.Duration // since the last of them ended
}

// String says in one line which address it was, and what became of it.
func (e EndpointError) String() string {
	s := e.Endpoint + ": no answer yet"
	if e.Err != nil {
		s = e.Endpoint + ": " + strings.TrimPrefix(e.Err.Error(), "proa: ")
	}
	if e.Tries > 1 {
		s += fmt.Sprintf(" (%d tries, the last %v ago)", e.Tries, e.Ago.Round(time.Millisecond))
	}
	return s
}

// Error lists the endpoints.
func (e *UnavailableError) Error() string {
	var b strings.Builder
	if errors.Is(e, ErrUnauthenticated) {
		b.WriteString("no server accepts the connection")
	} else {
		b.WriteString(ErrUnavailable.Error())
	}
	for i, p := range e.Endpoints {
		b.WriteString([]string{": ", "; "}[min(i, 1)])
		b.WriteString(p.String())
	}
	return b.String()
}

// Is reports whether target is ErrUnavailable.
func (e *UnavailableError) Is(target error) bool { return target == ErrUnavailable }

// Unwrap returns the endpoints' errors.
func (e *UnavailableError) Unwrap() []error {
	errs := make([]error, 0, len(e.Endpoints))
	for _, p := range e.Endpoints {
		if p.Err != nil {
			errs = append(errs, p.Err)
		}
	}
	return errs
}

// WrongClusterError says which cluster answered in place of the one that
// Config.Cluster names. It is ErrWrongCluster.
type WrongClusterError struct {
	Endpoint string // with the port
	Want     uint64 // Config.Cluster
	Got      uint64 // the cluster that the server named
}

// Error names both clusters as "proa status" shows them.
func (e *WrongClusterError) Error() string {
	return fmt.Sprintf("%v: %016x, not %016x", ErrWrongCluster, e.Got, e.Want)
}

// Is reports whether target is ErrWrongCluster.
func (e *WrongClusterError) Is(target error) bool { return target == ErrWrongCluster }

// TLSError says why the encryption of a connection did not come about. It is ErrTLS
// and ErrHandshake.
type TLSError struct {
	Endpoint   string // with the port
	ServerName string // that the server's certificate must be for; "" without Config.TLS
	// Err is ErrNoTLS, ErrTLSRequired, or an error of crypto/tls, crypto/x509 or
	// the network: errors.As finds an x509.UnknownAuthorityError, for example.
	Err error
}

// Error gives the reason.
func (e *TLSError) Error() string {
	if errors.Is(e.Err, ErrTLSRequired) {
		return e.Err.Error()
	}
	return ErrTLS.Error() + ": " + strings.TrimPrefix(e.Err.Error(), "tls: ")
}

// Unwrap returns the cause.
func (e *TLSError) Unwrap() error { return e.Err }

// Is reports whether target is ErrTLS or ErrHandshake.
func (e *TLSError) Is(target error) bool { return target == ErrTLS || target == ErrHandshake }

// SafeToRetry reports whether err came from a call that definitely had no
// effect, so that making the call again cannot apply it twice. It says nothing
// about whether another try would succeed. It is false for nil and for errors
// of other origin.
func SafeToRetry(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Outcome == NotDone
}

// replyError builds the error of a reply, nil for StatusOK.
func replyError(code protocol.Opcode, status Status) *Error {
	cause := statusErrors[status]
	if cause == nil {
		cause = fmt.Errorf("%w: status %d is unknown to this client", ErrProtocol, uint8(status))
	}
	e := &Error{Op: code.String(), Status: status, Outcome: status.Outcome(), Err: cause}
	if e.Outcome == Unknown && !isWrite(code) {
		e.Outcome = NotDone
	}
	return e
}
