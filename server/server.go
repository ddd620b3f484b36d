// Package server is Proa's network layer: it accepts connections, parses
// frames, dispatches requests to a [Backend] and writes the replies.
//
// # The way of a request
//
// A thread waits in epoll_wait for its event loop. For each connection that
// has something to read it reads into its own buffer and sees the frames in
// place ([conn.consume]). A read of a cached row is answered on the spot, into
// the connection's output buffer. A write is copied once, into its shard's
// queue. At the end of the iteration each touched connection is written to once. If
// commands were queued the thread then drives, that is, runs the group commit itself;
// see below. The outcome of each command is encoded straight into its connection's
// output buffer ([conn.Complete]) and written by the driver or, if more commands
// wait, by the thread that polls the connection's loop.
//
// # Leaders and followers
//
// Waking another thread costs 30-60 µs on the machines this was measured on,
// half an fdatasync. Requests are therefore not handed from a polling thread to
// a driving one. Instead the polling is handed over, and only if there is an
// event: before a thread waits for the disk it releases its loop by arming the
// loop's epoll descriptor, one-shot, in an outer epoll instance in which the
// idle threads wait. If an event arrives in the meantime, the kernel wakes one
// of them, and that thread polls the loop from then on. If none arrives, the
// first thread takes the loop back when it is done, and no thread was woken.
// Polling therefore never waits for a disk (invariant M3), and a single client
// pays for no wake-up but its own. docs/adr/0001-network-layer.md has the
// figures and the designs that were rejected.
//
// # Seams
//
// [Backend] is the server's only interface to the shards and the other nodes;
// see forward.go for requests that another node must answer, and readgather.go for
// requests that need an answer from the shard's majority. socket is a
// connection's only interface to network I/O: epoll, Go's net package where there
// is no epoll, or the module netpoll ([Transports]). [Translator] is what a connection speaks: the native protocol
// (native.go) or another, as server/redis, whose requests become native ones and
// whose replies are made of native ones; everything else is common to all.
//
// # Locks
//
// conn.mu guards a connection's output and is never held across a system call.
// share.mu is a leaf. Order: call.mu, writeGather.mu, then conn.mu, then loop.mu,
// delivery.mu, upstream.mu and jobQueue.mu, which are leaves.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/proa-kv/proa/bufpool"
	"github.com/proa-kv/proa/internal/audit"
	"github.com/proa-kv/proa/internal/lograte"
	"github.com/proa-kv/proa/internal/wrongport"
	"github.com/proa-kv/proa/protocol"
)

// ErrServerClosed is returned by Serve after Shutdown or Close.
var ErrServerClosed = errors.New("server closed")

// Config configures a Server. Zero values mean the defaults given.
type Config struct {
	Node    uint64 // this node's number in the cluster, sent to clients
	Cluster uint64 // sent to clients
	Version string // of the server, sent to clients

	// Transport names one of Transports; empty means the first that this system has.
	Transport string
	// Loops is the number of event loops; 0 means one for every two cores.
	Loops int
	// Threads is the number of threads that poll, drive and read from disk;
	// 0 means twice the cores. At least two for each loop, and one more.
	Threads int

	ConnectionsMax     int           // over all listeners, each of which has an eighth kept for it; 10000
	ForwardedMax       int           // connections of other nodes, beside those; 1024
	HandshakesMax      int           // connections in the handshake of TLS, beside those; 4096
	InFlightMax        int           // unanswered requests per connection; 1024
	InFlightBytesMax   int64         // of those, in bytes; 64 MiB
	OutputBytesMax     int           // unsent replies per connection; 32 MiB. A single reply may go beyond
	MemoryBytesMax     int64         // requests and replies of all connections together; 1 GiB
	FrameBytesMax      uint32        // protocol.FrameBytesMax
	QueueDepth         int           // reads and scans waiting for a thread; 1000
	IdleTimeout        time.Duration // a connection that asks nothing is closed; 10 min, negative: never
	FrameTimeout       time.Duration // from the first byte of a frame to its last; 30 s
	WriteTimeout       time.Duration // replies that the peer does not take; 30 s
	RequestTimeout     time.Duration // deadline of a request that waits for a thread, a majority or another node and names none itself; 30 s
	ForwardConnections int           // connections to other nodes on which requests are forwarded; 100
	Prealloc           int           // buffers allocated at start; 0: none
	KeepAlive          time.Duration // TCP keepalive; 60 s, negative: off
	Delay              bool          // leave Nagle's algorithm on

	// Authentication: who does not say who it is may do nothing. Otherwise it may do
	// everything.
	Authentication bool

	// Audit gets refused access and administrative requests; nil: nobody.
	Audit *audit.Log

	// Ports knows the node's ports, for callers who come to the wrong one; nil:
	// the answer then names the port without its address.
	Ports *wrongport.Ports

	Logger *slog.Logger
}

func (c *Config) ensureDefaults() {
	setDefault(&c.ConnectionsMax, 10_000)
	setDefault(&c.ForwardedMax, 1024)
	setDefault(&c.HandshakesMax, handshakesMax)
	setDefault(&c.InFlightMax, 1024)
	setDefault(&c.InFlightBytesMax, 64<<20)
	setDefault(&c.OutputBytesMax, 32<<20)
	setDefault(&c.MemoryBytesMax, 1<<30)
	setDefault(&c.FrameBytesMax, protocol.FrameBytesMax)
	setDefault(&c.QueueDepth, 1000)
	setDefault(&c.IdleTimeout, 10*time.Minute)
	setDefault(&c.FrameTimeout, 30*time.Second)
	setDefault(&c.WriteTimeout, 30*time.Second)
	setDefault(&c.KeepAlive, 60*time.Second)
	setDefault(&c.RequestTimeout, 30*time.Second)
	setDefault(&c.ForwardConnections, 100)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

// logLines are the lines that strangers can have logged.
type logLines struct{ accept, register, wrongProtocol, stream lograte.Line }

func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// transport moves the bytes of connections; see Transports.
type transport interface {
	// listen adds a listener, which the transport owns from now on.
	listen(ln listener) error
	// run serves until stop.
	run()
	// send sees to it that the output of conns is written. more says that
	// the caller has other work waiting.
	send(conns []*conn, more bool)
	// stopAccepting closes the listeners.
	stopAccepting()
	// stop ends run; connections are closed.
	stop()
}

// listener accepts connections at one address.
type listener struct {
	net.Listener
	number   int      // in the table of connections
	protocol Protocol // of the connections; nil: the native one
	tls      *TLS     // nil: none
}

// Server serves one Backend over any number of listeners. Listen, then Serve,
// then Shutdown or Close.
type Server struct {
	gate

	tlsDoor

	cfg       Config
	backend   Backend
	log       *slog.Logger
	transport transport
	started   time.Time
	address   atomic.Pointer[string] // first TCP listener, sent to clients
	addrs     []net.Addr

	translated []translatedAddr // listeners of other protocols

	conns     connTable
	forwarded connTable     // connections from other nodes
	side      *netTransport // serves them, and those that speak TLS
	nextConn  atomic.Uint64
	admission admission
	draining  atomic.Bool
	begun     atomic.Bool // Serve has been called, or will not serve any more
	closed    atomic.Bool
	stopped   chan struct{}
	done      chan struct{}

	// Ways to read, kept because taking a method's value allocates.
	read, readCached, readLocal, readLocalCached readFunc
	shardOf                                      func(key []byte) int

	delivery  delivery
	upstreams upstreams
	jobs      jobQueue
	lines     logLines
	working   sync.WaitGroup // workers, and administrative requests under way
	admins    atomic.Int32   // administrative requests under way
	counters  counters
}

// New returns a server for backend, which must not have been started. The
// caller listens next.
func New(cfg Config, backend Backend) (*Server, error) {
	cfg.ensureDefaults()
	s := &Server{cfg: cfg, backend: backend, log: cfg.Logger, started: time.Now(), stopped: make(chan struct{}), done: make(chan struct{})}
	s.conns.init(cfg.ConnectionsMax)
	s.forwarded.init(cfg.ForwardedMax)
	s.forwarded.addListener()
	s.upstreams.init(s)
	s.tlsDoor.init(s)
	s.admission.init(cfg.MemoryBytesMax, cfg.ConnectionsMax)
	s.gate.init(s)
	s.read, s.readCached, s.readLocal, s.readLocalCached = backend.Read, backend.ReadCached, backend.ReadLocal, backend.ReadLocalCached
	s.jobs.init(cfg.QueueDepth, max(2, runtime.NumCPU()), func() {
		s.working.Add(1)
		go s.work()
	})
	s.shardOf = func(key []byte) int { return backend.ShardOf(protocol.Slot(key)) }
	prealloc(cfg.Prealloc)
	var err error
	if s.transport, err = s.newTransport(); err != nil {
		return nil, err
	}
	if n, ok := s.transport.(*netTransport); ok {
		s.side = n
	} else {
		s.side = newNetTransport(s)
	}
	return s, nil
}

// prealloc fills the pool with n output buffers, so that the first requests
// find memory that is already there.
func prealloc(n int) {
	buffers := make([]*bufpool.Buffer, n)
	for i := range buffers {
		buffers[i] = bufpool.Get(outputSize)
	}
	for _, b := range buffers {
		b.Release()
	}
}

// Listen adds a listener on address: host:port, or unix:///path. It may be
// called several times before Serve.
func (s *Server) Listen(address string, options ...ListenOption) (net.Addr, error) {
	flag := "--listen"
	if strings.HasPrefix(address, unixScheme) {
		flag = "--unix"
	}
	a, err := s.listen(address, flag, nil, options)
	if err != nil {
		return nil, err
	}
	s.addrs = append(s.addrs, a)
	if a.Network() == "tcp" && s.address.Load() == nil {
		text := a.String()
		s.address.Store(&text)
	}
	return a, nil
}

// ListenFor is Listen for clients that speak another protocol. flag is the option
// by which another address is given.
func (s *Server) ListenFor(p Protocol, address, flag string, options ...ListenOption) (net.Addr, error) {
	a, err := s.listen(address, flag, p, options)
	if err != nil {
		return nil, err
	}
	s.translated = append(s.translated, translatedAddr{a, p.Scheme()})
	return a, nil
}

// translatedAddr is the address of a listener of another protocol.
type translatedAddr struct {
	net.Addr
	scheme string
}

// AddrsOf returns the addresses of ListenFor at which a protocol of that scheme
// is served.
func (s *Server) AddrsOf(scheme string) (addrs []net.Addr) {
	for _, a := range s.translated {
		if a.scheme == scheme {
			addrs = append(addrs, a.Addr)
		}
	}
	return addrs
}

func (s *Server) listen(address, flag string, p Protocol, options []ListenOption) (net.Addr, error) {
	nl, err := listen(address, flag)
	if err != nil {
		return nil, err
	}
	ln := listener{Listener: nl, number: s.conns.addListener(), protocol: p}
	for _, option := range options {
		option(&ln)
	}
	by := s.transport
	switch {
	case nl.Addr().Network() == "unix":
		ln.tls = nil
	case ln.tls != nil:
		by = s.side
	}
	if err := by.listen(ln); err != nil {
		return nil, errors.Join(err, nl.Close())
	}
	return nl.Addr(), nil
}

// Addrs returns the addresses of Listen.
func (s *Server) Addrs() []net.Addr { return s.addrs }

// Serve serves until Shutdown or Close and then returns ErrServerClosed.
func (s *Server) Serve() error {
	if s.begun.Swap(true) {
		return ErrServerClosed
	}
	s.serve()
	return ErrServerClosed
}

func (s *Server) serve() {
	s.working.Go(func() { s.admission.run(s.stopped) })
	s.working.Go(s.gate.renewGrants)
	go s.enforceTimeouts()
	if s.side != s.transport {
		s.side.accept()
	}
	s.transport.run()
	s.side.running.Wait()
	s.upstreams.running.Wait()
	s.working.Wait()
	close(s.done)
}

// Shutdown stops accepting, asks every client to go away, answers what has
// been asked, and closes each connection once its client has left or has had
// nothing outstanding for a moment. When ctx ends, what is left is closed at
// once and ctx's error returned.
func (s *Server) Shutdown(ctx context.Context) error {
	if s.draining.Swap(true) {
		<-s.done
		return nil
	}
	s.stopAccepting()
	s.eachConn(func(c *conn) { c.notice(protocol.StatusGoAway, "the server is shutting down") })
	err := s.drain(ctx)
	return errors.Join(err, s.Close())
}

// stopAccepting closes the listeners, and the connections that are not served yet.
func (s *Server) stopAccepting() {
	s.transport.stopAccepting()
	if s.side != s.transport {
		s.side.stopAccepting()
	}
	s.handshakes.close()
}

// lingerDrain is how long a connection that outstanding nothing is left to a client
// that has been asked to go away, so that requests that crossed the notice are
// still answered.
const lingerDrain = 200 * time.Millisecond

func (s *Server) drain(ctx context.Context) error {
	const poll = 5 * time.Millisecond
	var quiet time.Duration
	for {
		busy := false
		open := 0
		s.eachConn(func(c *conn) {
			open++
			busy = busy || c.outstanding()
		})
		if open == 0 {
			return nil
		}
		if busy {
			quiet = 0
		} else if quiet += poll; quiet >= lingerDrain {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d connections were not drained in time: %w", open, ctx.Err())
		case <-time.After(poll):
		}
	}
}

// Close closes all listeners and connections at once. A Serve that comes later
// returns at once.
func (s *Server) Close() error {
	if s.closed.Swap(true) {
		<-s.done
		return nil
	}
	s.draining.Store(true)
	s.stopAccepting()
	s.eachConn(func(c *conn) {
		c.gone.Store(true)
		c.HangUp()
	})
	close(s.stopped)
	s.transport.stop()
	if s.side != s.transport {
		s.side.stop()
	}
	s.upstreams.close()
	for _, j := range s.jobs.close() {
		j.drop()
	}
	if !s.begun.Swap(true) {
		s.serve() // ends at once and closes what New and Listen have opened
	}
	<-s.done
	return nil
}

// eachConn calls f for every connection, those from other nodes included.
func (s *Server) eachConn(f func(*conn)) {
	s.conns.each(f)
	s.forwarded.each(f)
}

// enforceTimeouts closes connections that are idle, stalled in a frame, or do not
// take their replies.
func (s *Server) enforceTimeouts() {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-s.stopped:
			return
		case <-t.C:
			now := time.Now().UnixMilli()
			s.admission.expireClaims(now)
			s.eachConn(func(c *conn) { c.checkTimeouts(now) })
		}
	}
}
