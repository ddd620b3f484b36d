// Package bench makes loads, at as little cost as a client can, so that what is
// measured is the server. A [Harness] makes the workloads of proa bench: many
// kinds of operations, closed and open loops, on all nodes of a cluster, and
// checks afterwards what it has written. [Run] makes one kind of request to one
// server of any protocol, to compare servers. Both are one engine.
//
// # Method
//
// Each thread has its own connections, histograms and sequence of operations,
// which the seed determines, and one epoll loop over raw non-blocking sockets.
// Every reply is parsed whole and at once replaced by the next request; what one
// read brought is answered by one write. There is no timer, no goroutine hop and,
// once running, no allocation. Nothing is shared between threads but the slot map,
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
// ([Config].ServerCPU) does not depend on the generator.
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
// it. [Run] and [Preload] do not look: they are for servers that the measuring
// program has started itself.
//
// The generator needs Linux. Elsewhere runs and OpenIdle return [errors.ErrUnsupported].
package bench

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Op is the kind of request a run consists of.
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

	// Codec is the wire protocol of the server.
	Codec Codec

	// Sources are local addresses to connect from, taken in turn. An address
	// has no more than some 28,000 ports towards one server by default, so
	// tens of thousands of connections need several; on loopback all of
	// 127.0.0.0/8 will do. None lets the kernel choose.
	Sources []netip.Addr

	// Timeout bounds connecting and the greeting of one connection, and how
	// long a run waits without any reply. 0 means 10 seconds.
	Timeout time.Duration
}

// Config describes one run.
type Config struct {
	Target

	Op Op

	// Connections is the number of connections, 1..ConnectionsMax, and
	// InFlight the number of requests each keeps unanswered, 1..InFlightMax.
	// 0 means 1.
	Connections, InFlight int

	// Idle is the number of further connections that say their greeting
	// before the run starts and nothing more until it ends.
	Idle int

	// Keys is the number of keys to choose from, uniformly, as AppendKey makes
	// them. 0 means 1.
	Keys uint64

	// Sequential takes the keys in order instead, beginning again at the first
	// when all were taken.
	Sequential bool

	// Seed determines the choice of keys and the bytes of the value.
	Seed uint64

	// ValueBytes is the length of every value: what a PUT writes, and what a
	// GET must find, anything else being counted as failed.
	// 0..ValueBytesMax.
	ValueBytes int

	// Duration and Count end the run when the measured part has lasted as
	// long, or so many replies were counted. At least one must be given;
	// of both the first to be reached counts. With Count and no Warmup,
	// exactly Count requests are sent.
	Duration time.Duration
	Count    uint64

	// Warmup is how long requests are made before the measured part begins.
	Warmup time.Duration

	// ServerCPU, if not nil, returns the CPU time the server has used so far.
	// It is called at the begin and at the end of the measured part, from the
	// generator's thread.
	ServerCPU func() (time.Duration, error)
}

// Bounds of a Config.
const (
	ConnectionsMax = 1 << 16
	InFlightMax    = 1 << 12
	ValueBytesMax  = 1 << 20

	timeoutDefault = 10 * time.Second
)

// Result is what a run measured. Ops, NotFound, Latency and Slowest are those of
// all requests that were answered, but that failed ones have no latency.
type Result struct {
	KindResult

	// Busy and Failed are among Ops: the requests refused because the server was
	// busy, and those with any other error or a value of another length than
	// expected. FirstFailure describes the first of either.
	Busy, Failed uint64
	FirstFailure string

	// Elapsed is the time from the begin of the measured part to the last reply.
	Elapsed time.Duration

	// GeneratorCPU is the CPU time the generator's thread used, and ServerCPU
	// what Config.ServerCPU grew by.
	GeneratorCPU, ServerCPU time.Duration
}

// latencyMax is the longest latency a histogram holds.
const latencyMax = time.Minute

// NewResult returns a Result of nothing, for generators that make their own
// load.
func NewResult() *Result { return &Result{KindResult: KindResult{Latency: NewLatencies()}} }

// Merge adds what o counted to r, without loss: replies, kinds of failure and
// latencies. Elapsed and the CPU times stay as they are.
func (r *Result) Merge(o *Result) {
	r.KindResult.Merge(&o.KindResult)
	r.Busy += o.Busy
	r.Failed += o.Failed
	if r.FirstFailure == "" {
		r.FirstFailure = o.FirstFailure
	}
}

// Rate returns the replies per second, 0 where nothing was measured.
func (r *Result) Rate() float64 {
	if r.Elapsed <= 0 {
		return 0
	}
	return float64(r.Ops) / r.Elapsed.Seconds()
}

// PerOp returns the part of a total that falls to one reply, 0 where there
// was none.
func (r *Result) PerOp(total time.Duration) time.Duration { return per(total, r.Ops) }

// String returns the result in one line.
func (r *Result) String() string {
	return fmt.Sprintf("%d ops in %v, %.0f/s, p50 %v p99 %v p99.9 %v max %v, %d not found, %d busy, %d failed",
		r.Ops, r.Elapsed.Round(time.Millisecond), r.Rate(), r.Quantile(0.5), r.Quantile(0.99), r.Quantile(0.999), r.Slowest,
		r.NotFound, r.Busy, r.Failed)
}

// Errors that end a run.
var (
	// ErrConfig says that a Config makes no sense.
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

// prepare fills in defaults and checks c.
func (c *Config) prepare() error {
	if err := c.Target.prepare(); err != nil {
		return err
	}
	c.Connections, c.InFlight, c.Keys = max(c.Connections, 1), max(c.InFlight, 1), max(c.Keys, 1)
	switch {
	case c.Op >= opEnd:
		return fmt.Errorf("%w: operation %d", ErrConfig, c.Op)
	case c.Idle < 0 || c.Idle > ConnectionsMax:
		return fmt.Errorf("%w: %d idle connections; at most %d are allowed", ErrConfig, c.Idle, ConnectionsMax)
	case c.Keys > keysMax:
		return fmt.Errorf("%w: %d keys; at most %d are allowed", ErrConfig, c.Keys, uint64(keysMax))
	case c.ValueBytes < 0 || c.ValueBytes > ValueBytesMax:
		return fmt.Errorf("%w: values of %d bytes, 0 to %d are allowed", ErrConfig, c.ValueBytes, ValueBytesMax)
	case c.Duration < 0 || c.Warmup < 0 || c.Duration == 0 && c.Count == 0:
		return fmt.Errorf("%w: a positive duration or a count must be given", ErrConfig)
	}
	return checkInFlight(c.Connections, c.InFlight)
}
