// Package bench makes loads, at as little cost as a client can, so that what is
// measured is the server. A [Harness] makes the workloads of proa bench: many
// kinds of operations, closed and open loops, on all nodes of a cluster, and
// checks afterwards what it has written. With a [Target] it makes one kind of
// request to one server of any protocol instead, to compare servers.
//
// # Method
//
// Each thread has its own connections, histograms and sequence of operations,
// which the seed determines, and one epoll loop over raw non-blocking sockets.
// Every reply is parsed whole and at once replaced by the next request; what one
// read brought is answered by one write. There is no timer, no goroutine hop and,
// once running, no allocation (with TLS, what crypto/tls allocates for a read). Nothing is shared between threads but the slot map,
// which is replaced as a whole, so what they measured is merged without loss at
// the end.
//
// A call is one of the requests in flight. It is not bound to a connection: each
// operation goes to the node that leads its row's shard, so the number in flight
// is constant however the shards are spread. A dialect puts a call's request into
// the words of a protocol and takes the replies: Proa's own with all kinds of
// operations, or a [Codec] ([Proa], [RESP]) with one. Everything else is shared,
// so two servers can be compared under exactly the same load.
//
// The latency of a request is the time from just before the write that sends
// it to just after the read that brings its reply. A closed loop sends less
// while the server stalls, so its high percentiles are those of the requests
// that were made, not of requests that users would have made meanwhile. In an open
// loop each operation has a planned time, from which its latency counts.
// Operations that are due while all calls are taken wait for their turn and keep
// their planned time. So a stall delays all that was planned for it, as it would
// delay users, and does not thin out the sample (what Gil Tene calls coordinated
// omission).
//
// Generator and server usually share a machine. A rate then says as much about
// the machine as about the server; the CPU time the server spent per request
// ([Load].ServerCPU) does not depend on the generator.
//
// Every value that a Harness writes names its row and version, and its bytes
// follow from these and the seed. What a row may hold in the end follows from when
// its writes were sent and acknowledged (see [Harness.Verify]); nothing of that is
// asked of the server that is checked.
//
// # Rows
//
// All rows lie under [Prefix]. A marker among them says that this package has
// written them, and [Harness.Claim] refuses to write where there are rows without
// it. Preload and Run do not look: a program that has started the servers itself
// need not claim them.
//
// The generator needs Linux. Elsewhere runs and OpenIdle return [errors.ErrUnsupported].
package bench

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Op is the kind of request that a load on a Target consists of.
type Op uint8

// The operations.
const (
	Ping Op = iota // no key, no value
	Get            // read of one key
	Put            // unconditional write of one key
	opEnd
)

// String returns "PING", "GET" or "PUT".
func (o Op) String() string {
	if o >= opEnd {
		return "UNKNOWN"
	}
	return [...]string{"PING", "GET", "PUT"}[o]
}

// Target says where to connect and how to talk. Its zero value is not usable.
type Target struct {
	// Address is host:port, or unix:///path for a unix socket.
	Address string

	// Codec is the wire protocol of the server, with the credentials.
	Codec Codec

	// TLS, if not nil, encrypts the connections, but not to a unix socket. An empty
	// ServerName is filled in from Address. It is not modified.
	TLS *tls.Config

	// Sources are local addresses to connect from, taken in turn. An address
	// has no more than some 28,000 ports towards one server by default, so
	// tens of thousands of connections need several; on loopback all of
	// 127.0.0.0/8 will do. None lets the kernel choose.
	Sources []netip.Addr

	// Timeout bounds connecting and the greeting of one connection, and how
	// long a run waits without any reply. 0 means 10 seconds.
	Timeout time.Duration
}

// Bounds of a Load.
const (
	ConnectionsMax = 1 << 16
	InFlightMax    = 1 << 12
	ValueBytesMax  = 1 << 20

	timeoutDefault = 10 * time.Second
)

// latencyMax is the longest latency a histogram holds.
const latencyMax = time.Minute

// Errors that end a run.
var (
	// ErrConfig says that a Load makes no sense.
	ErrConfig = errors.New("bench: invalid options")
	// ErrProtocol says that a server sent what its protocol does not allow, or
	// what answers no request.
	ErrProtocol = errors.New("bench: unexpected reply from the server")
	// ErrClosed says that a server closed a connection.
	ErrClosed = errors.New("bench: the server closed the connection")
	// ErrStalled says that no reply came within Target.Timeout.
	ErrStalled = errors.New("bench: no reply before the timeout")
	// ErrGreeting says that a server refused the greeting of a connection.
	ErrGreeting = errors.New("bench: the server refused the connection")
)

// prepare fills in defaults and checks t.
func (t *Target) prepare() error {
	if t.Timeout == 0 {
		t.Timeout = timeoutDefault
	}
	if t.Codec == nil || t.Address == "" || t.Timeout < 0 {
		return fmt.Errorf("%w: address and codec must be given, the timeout must not be negative", ErrConfig)
	}
	return nil
}
