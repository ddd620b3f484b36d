//go:build linux || darwin

package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cloudwego/netpoll"
	"golang.org/x/sys/unix"

	"github.com/proa-kv/proa/bufpool"
	"github.com/proa-kv/proa/protocol"
)

// netpollTransport moves bytes over the pollers of the module netpoll. A poller
// reads a socket into netpoll's buffer and calls netpollConn.received, which sees
// the frames there and answers on the spot what can be. A poller never waits: what
// it proposes is left to the node's own driver, reads that miss the cache
// are jobs, and a connection whose input is more than a turn goes on in a goroutine
// (netpollConn.turn) until it is used up.
//
// What netpoll cannot do is in Transports. Two things follow from how it works:
//
//   - A poller must neither close a connection nor wait for one to be written:
//     netpoll's Close waits until the poller is done with the connection, and its
//     Flush until the poller has written. So a connection is shut down, and
//     netpoll, which then sees the end of its input, closes it; and Flush is called
//     by a goroutine.
//   - netpoll's listener does not get over a second failure of accept (it goes on
//     polling then, and each iteration starts a goroutine). Sockets are accepted here
//     and handed over, see handoff.
type netpollTransport struct {
	*acceptor
	handoff *handoff
	yielded atomic.Uint64 // Unix ms of a poller's last visit to the Go scheduler

	mu         sync.Mutex
	processors []*processor // that nobody uses
}

// configureNetpoll sets up what netpoll has once for a process, by the first server
// that uses it: the pollers, which run from then on until the process ends.
var configureNetpoll sync.Once

func newNetpollTransport(s *Server) (transport, error) {
	var err error
	configureNetpoll.Do(func() {
		loops := s.cfg.Loops
		if loops <= 0 {
			loops = max(1, runtime.NumCPU()/2)
		}
		err = netpoll.Configure(netpoll.Config{
			PollerNum:    loops,
			Runner:       func(_ context.Context, task func()) { task() },
			LoggerOutput: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug).Writer(), // strangers can have it say much
		})
	})
	if err != nil {
		return nil, fmt.Errorf("netpoll: %w", err)
	}
	n := &netpollTransport{acceptor: newAcceptor(s)}
	if n.handoff, err = newHandoff(); err != nil {
		return nil, err
	}
	n.open = func(nc net.Conn) acceptedSocket {
		return &netpollConn{transport: n, accepted: nc, fd: -1, idle: make(chan struct{}, 1), written: make(chan struct{}, 1)}
	}
	return n, nil
}

func (n *netpollTransport) run() {
	var polling sync.WaitGroup
	polling.Go(n.handoff.serve)
	n.accept()
	<-n.stopped
	n.srv.conns.each((*conn).HangUp) // those that were accepted last
	n.running.Wait()
	n.handoff.end()
	polling.Wait()
	n.handoff.Close()
	for _, p := range n.processors {
		n.srv.counters.unregister(&p.counts)
	}
}

// send writes the output of conns, which a group commit has answered.
func (n *netpollTransport) send(conns []*conn, _ bool) {
	for _, c := range conns {
		c.SendOutput()
	}
}

// processorsMax is how many processors are kept that nobody uses.
const processorsMax = 64

// processor returns a processor for a turn, to be given back.
func (n *netpollTransport) processor() (p *processor) {
	n.mu.Lock()
	if last := len(n.processors) - 1; last >= 0 {
		p, n.processors = n.processors[last], n.processors[:last]
	}
	n.mu.Unlock()
	if p == nil {
		p = newProcessor(n.srv)
	}
	p.now = n.srv.backend.NowMillis()
	p.credit = turnCredit
	return p
}

func (n *netpollTransport) giveBack(p *processor) {
	p.dedicated = false
	n.mu.Lock()
	kept := len(n.processors) < processorsMax
	if kept {
		n.processors = append(n.processors, p)
	}
	n.mu.Unlock()
	if !kept {
		n.srv.counters.unregister(&p.counts)
	}
}

// handoff is the listener from which netpoll gets sockets: one that is readable
// when a socket has been accepted, and whose Accept never fails.
type handoff struct {
	r, w     *os.File // a pipe, with one byte for each socket in accepted
	accepted chan *netpollConn
	ending   atomic.Bool
	next     *netpollConn // from Accept to prepare, which netpoll calls one after the other
}

// handoffMax is how many sockets wait for the poller that takes them over.
const handoffMax = 64

func newHandoff() (*handoff, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("pipe: %w", err)
	}
	return &handoff{r: r, w: w, accepted: make(chan *netpollConn, handoffMax)}, nil
}

// serve has netpoll poll what is given, until end.
func (h *handoff) serve() {
	events, err := netpoll.NewEventLoop(nil, netpoll.WithOnPrepare(h.prepare))
	if err == nil {
		err = events.Serve(h)
	}
	if !h.ending.Load() {
		panic(fmt.Sprintf("server: netpoll does not poll: %v", err))
	}
}

// give has netpoll poll x, and own its socket from now on.
func (h *handoff) give(x *netpollConn) {
	h.accepted <- x
	_, _ = h.w.Write([]byte{0})
}

// end ends serve. Nothing may be given any more.
func (h *handoff) end() {
	h.ending.Store(true)
	h.w.Close()
}

func (h *handoff) Close() error   { return h.r.Close() }
func (h *handoff) Fd() int        { return int(h.r.Fd()) }
func (h *handoff) Addr() net.Addr { return &net.UnixAddr{Net: "pipe"} }

// Accept implements netpoll.Listener.
func (h *handoff) Accept() (net.Conn, error) {
	if n, _ := h.r.Read(make([]byte, 1)); n == 0 {
		return nil, nil
	}
	h.next = <-h.accepted
	return handedSocket{h.next.accepted, h.next.fd}, nil
}

// handedSocket is a socket as netpoll wants it. The net.Conn is closed: it has the
// addresses.
type handedSocket struct {
	net.Conn
	fd int
}

func (s handedSocket) Fd() int { return s.fd }

// prepare connects what Accept has returned with netpoll's connection, which is
// not polled yet.
func (h *handoff) prepare(nc netpoll.Connection) context.Context {
	x := h.next
	h.next = nil
	x.c.mu.Lock()
	x.polled = nc
	x.c.mu.Unlock()
	_ = nc.AddCloseCallback(x.release)
	_ = nc.SetOnRequest(x.request)
	return context.Background()
}

// netpollConn is the socket of one connection.
type netpollConn struct {
	transport *netpollTransport
	c         *conn
	accepted  net.Conn // for the addresses; closed, fd is a duplicate

	idle    chan struct{} // a goroutine that reads has ended; see release
	written chan struct{} // likewise one that writes

	// Guarded by connOutput.mu.
	fd     int // -1: not handed over yet
	polled netpoll.Connection
	writer writer
	hung   bool // shut before there was fd

	// The requests that have arrived, in order: what is in connInput.in, in rest, in
	// pending. Who is the reader takes from the front; netpoll adds at the end.
	mu      sync.Mutex // a leaf
	reader  reader
	again   bool            // the reader has to look once more before it goes
	rest    *bufpool.Buffer // belongs to the reader
	pending *bufpool.Buffer // nil: none
	held    int             // bytes of rest and pending, counted in admission.inputBytes
	over    error           // why no more is taken
	ended   bool            // netpoll has closed the connection
	ignored int             // bytes thrown away since the peer has all replies. Belongs to the poller
}

// reader says who reads a connection's input.
type reader uint8

const (
	readsPoller reader = iota // the poller, when something arrives, unless the connection is paused or offloaded
	reading                   // somebody does just now; others leave it to him
)

// writer says who writes a connection's output.
type writer uint8

const (
	writesAnyone   writer = iota // whoever has something to send
	writing                      // a thread does just now
	writingBlocked               // a goroutine, by netpoll's Flush, since the socket took no more
)

// start hands the socket of c over to netpoll.
func (x *netpollConn) start(c *conn) {
	x.c = c
	defer x.accepted.Close()
	if !x.transport.begin(1) {
		c.table.remove(c)
		return
	}
	fd, err := duplicate(x.accepted)
	if err != nil {
		x.transport.srv.lines.register.Warn(x.transport.srv.log, "cannot register a connection", "error", err)
		c.table.remove(c)
		x.transport.running.Done()
		return
	}
	x.transport.srv.counters.accepted.Add(1)
	c.mu.Lock()
	x.fd = fd
	if x.hung {
		_ = unix.Shutdown(fd, unix.SHUT_RDWR)
	}
	c.mu.Unlock()
	x.transport.handoff.give(x)
	x.kick(c) // what somebody had to say meanwhile
}

// duplicate returns a descriptor of the socket of nc that Go's net does not poll.
func duplicate(nc net.Conn) (fd int, err error) {
	raw, err := nc.(syscall.Conn).SyscallConn()
	if err != nil {
		return -1, err
	}
	if failed := raw.Control(func(s uintptr) { fd, err = unix.FcntlInt(s, unix.F_DUPFD_CLOEXEC, 0) }); failed != nil {
		return -1, failed
	}
	return fd, err
}

func (x *netpollConn) local(*conn) bool { return isLocalPeer(x.fd) }

func (x *netpollConn) remote(*conn) string { return x.accepted.RemoteAddr().String() }

// shut closes both directions; netpoll finds the end and closes the connection.
func (x *netpollConn) shut(c *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
	case x.fd < 0:
		x.hung = true
	default:
		_ = unix.Shutdown(x.fd, unix.SHUT_RDWR)
	}
}

// request is called by a poller when something has been read, and again as long as
// it leaves something of it.
func (x *netpollConn) request(_ context.Context, nc netpoll.Connection) error {
	r := nc.Reader()
	b, err := r.Next(r.Len())
	x.received(b)
	_ = r.Release()
	return err
}

// received carries out what is whole of b, which has arrived, unless the
// connection is not to be read or what arrived before it comes first.
func (x *netpollConn) received(b []byte) {
	c, s := x.c, x.transport.srv
	s.counters.bytesIn.Add(uint64(len(b)))
	x.mu.Lock()
	if x.reader == reading || c.offloaded.Load() {
		x.hold(b)
		x.mu.Unlock()
		return
	}
	if c.refused {
		x.mu.Unlock()
		x.ignore(len(b))
		return
	}
	if c.paused.Load() || x.rest != nil || x.pending != nil {
		x.hold(b)
		full := x.over != nil
		if full {
			x.reader = reading
		}
		x.mu.Unlock()
		if full {
			go x.turn(c)
		}
		return
	}
	x.reader = reading
	x.mu.Unlock()

	p := x.transport.processor()
	now := p.now
	c.active.Store(int64(now))
	b = b[x.feed(p, b):]
	p.leaveToOthers()
	spent := p.credit <= 0
	x.transport.giveBack(p)
	if len(b) > 0 {
		x.mu.Lock()
		x.hold(b)
		x.mu.Unlock()
	}
	if !x.leave(c, spent) {
		go x.turn(c)
	}
	x.transport.yieldIfDue(now)
}

// yieldIfDue yields if it is time, as thread.yieldIfDue does: a poller under load
// does not block.
func (n *netpollTransport) yieldIfDue(now uint64) {
	if last := n.yielded.Load(); now-last >= yieldMillis && n.yielded.CompareAndSwap(last, now) {
		runtime.Gosched()
	}
}

// feed carries out what is whole of b and returns how many bytes of it are not
// needed any more: all, unless the connection must not be read on. It belongs to
// the reader.
func (x *netpollConn) feed(p *processor, b []byte) (n int) {
	c := x.c
	for on := true; on && n < len(b) && p.credit > 0 && !c.paused.Load(); {
		if c.in == nil {
			part := b[n:min(n+readBytes, len(b))]
			n += len(part)
			on = p.consumeInPlace(c, part)
			continue
		}
		k := min(len(b)-n, cap(c.in.B)-len(c.in.B))
		if k == 0 { // kept as it was when a pause began
			c.in.Grow(readBytesIdle)
			continue
		}
		c.in.B = append(c.in.B, b[n:n+k]...)
		n += k
		if c.claim.held > 0 {
			c.arrived.Add(int64(k))
		}
		on = p.consumeBuffered(c)
	}
	return n
}

// turn is the life of a goroutine that reads a connection in the poller's place, who
// has made it the reader: until nothing is left of what has arrived, or the connection pauses.
func (x *netpollConn) turn(c *conn) {
	for {
		p := x.transport.processor()
		p.dedicated = true
		x.advance(c, p)
		p.leaveToOthers()
		spent := p.credit <= 0
		x.transport.giveBack(p)
		if x.leave(c, spent) {
			return
		}
	}
}

// advance carries out a turn's worth of what has arrived. It belongs to the reader.
func (x *netpollConn) advance(c *conn, p *processor) {
	if c.offloaded.Load() {
		return
	}
	if c.expel(); c.refused || c.paused.Load() {
		return
	}
	switch {
	case c.in != nil:
		if !p.consumeBuffered(c) {
			return
		}
	case c.translator.Continues():
		c.consume(p, nil)
	}
	for p.credit > 0 && !c.paused.Load() && !c.refused && x.takePending() {
		n := x.feed(p, x.rest.B)
		x.unhold(n)
	}
}

// hold keeps b, which has arrived, until it is its turn, unless that is too much.
// x.mu must be held.
func (x *netpollConn) hold(b []byte) {
	if x.over != nil || x.ended {
		return
	}
	cfg := &x.transport.srv.cfg
	switch {
	case int64(x.held+len(b)) > cfg.InFlightBytesMax:
		x.over = fmt.Errorf("more than %d bytes of requests arrived while earlier ones were not answered or their replies not read; send fewer at a time", cfg.InFlightBytesMax)
		return
	case !x.transport.srv.admission.addInput(len(b)):
		x.transport.srv.admission.addInput(-len(b))
		x.over = errors.New("the memory for requests that have not arrived completely is used up (a part of memory.max_memory_usage); the request was not carried out: send it again later")
		return
	}
	x.held += len(b)
	if x.pending == nil {
		x.pending = bufpool.Get(len(b))
	}
	x.pending.Append(b)
}

// takePending makes what netpoll has added the reader's, where nothing is left of
// what was. It returns false where there is nothing.
func (x *netpollConn) takePending() bool {
	if x.rest != nil {
		return true
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.rest, x.pending = x.pending, nil
	return x.rest != nil
}

// unhold drops n bytes of rest.
func (x *netpollConn) unhold(n int) {
	x.rest.B = x.rest.B[n:]
	if len(x.rest.B) == 0 {
		x.rest.Release()
		x.rest = nil
	}
	x.mu.Lock()
	x.held -= n
	x.mu.Unlock()
	x.transport.srv.admission.addInput(-n)
}

// drop drops what has arrived. It belongs to the reader; x.mu must be held.
func (x *netpollConn) drop() {
	for _, b := range []*bufpool.Buffer{x.rest, x.pending} {
		if b != nil {
			b.Release()
		}
	}
	x.transport.srv.admission.addInput(-x.held)
	x.rest, x.pending, x.held = nil, nil, 0
}

// leave ends the reader's time where there is nothing to do for it, and returns
// false where it must go on. spent says that its turn has ended before its work.
func (x *netpollConn) leave(c *conn, spent bool) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	waits := c.offloaded.Load()
	if !waits && x.over != nil && !c.refused {
		x.mu.Unlock()
		c.closeWith(0, protocol.StatusBusy, 0, x.over.Error())
		c.dropInput()
		x.mu.Lock()
	}
	if !waits && c.refused {
		x.drop()
	}
	waits = waits || c.refused || c.paused.Load()
	if !x.ended && (x.again || !waits && (spent || x.rest != nil || x.pending != nil || c.translator.Continues())) {
		x.again = false
		return false
	}
	x.reader, x.again = readsPoller, false
	if x.ended {
		x.idle <- struct{}{}
	}
	return true
}

// resume has a goroutine read what has arrived, after a pause.
func (x *netpollConn) resume(c *conn) {
	if c.parkedJobs.Load() > 0 {
		c.requeueParked()
	}
	x.mu.Lock()
	on := x.reader == readsPoller && !x.ended
	if on {
		x.reader = reading
	} else {
		x.again = true
	}
	x.mu.Unlock()
	if on {
		go x.turn(c)
	}
}

// interrupt is resume: advance calls expel.
func (x *netpollConn) interrupt(c *conn) { x.resume(c) }

// ignore throws n bytes away that come on a connection that is refused. It is cut
// off where the peer goes on sending when it has received what it had to be told: a
// reset drops what the system has not delivered, and a peer may send all it has
// before it reads.
func (x *netpollConn) ignore(n int) {
	if x.c.lingerSince.Load() == 0 || undelivered(x.fd) > 0 {
		return
	}
	if x.ignored += n; x.ignored <= lingerBytes {
		return
	}
	// It is reset: netpoll reads to the end before it closes, and a close with
	// nothing unread leaves a peer alone that waits for room to send.
	_ = unix.SetsockoptLinger(x.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	x.shut(x.c)
}

// kick writes c's output until it is gone or the socket takes no more: then a
// goroutine does the rest.
func (x *netpollConn) kick(c *conn) {
	c.mu.Lock()
	c.marked = false
	if x.writer != writesAnyone || c.closed || x.fd < 0 {
		c.mu.Unlock()
		return
	}
	x.writer = writing
	for budget := writeBudget; budget > 0 && x.hasOutput(c); {
		b := c.sending.B[c.sent:]
		c.mu.Unlock()
		n, errno := rawWrite(x.fd, b[:min(len(b), writeBytes)])
		c.mu.Lock()
		switch errno {
		case 0:
			budget -= n
			x.wrote(c, n)
		case unix.EAGAIN:
			budget = 0
		case unix.EINTR:
		default:
			x.lost(c)
		}
	}
	if !c.closed && !c.gone.Load() && (c.sending != nil || c.out != nil) {
		x.writer = writingBlocked
		c.mu.Unlock()
		go x.writeBlocked(c)
		return
	}
	x.endWrite(c)
}

// hasOutput makes c.sending what is to be written next. c.mu must be held.
func (x *netpollConn) hasOutput(c *conn) bool {
	return !c.closed && !c.gone.Load() && (c.sending != nil || c.nextOutput())
}

// writeBlocked writes c's output by way of netpoll, which waits until the socket takes it.
func (x *netpollConn) writeBlocked(c *conn) {
	c.mu.Lock()
	for x.hasOutput(c) {
		b := c.sending.B[c.sent:]
		b = b[:min(len(b), writeBytes)]
		w := x.polled.Writer()
		c.mu.Unlock()
		c.blockedSince.CompareAndSwap(0, time.Now().UnixMilli())
		_, err := w.WriteBinary(b)
		err = errors.Join(err, w.Flush())
		c.mu.Lock()
		if err == nil {
			x.wrote(c, len(b))
		} else {
			x.lost(c)
		}
		c.mu.Unlock()
		c.unpause()
		c.mu.Lock()
	}
	x.endWrite(c)
}

// lost notes that nobody takes c's output. c.mu must be held.
func (x *netpollConn) lost(c *conn) {
	c.dropOutput()
	c.gone.Store(true)
}

// wrote accounts for one write. c.mu must be held.
func (x *netpollConn) wrote(c *conn, n int) {
	x.transport.srv.counters.bytesOut.Add(uint64(n))
	c.sent += n
	c.took += int64(n)
	if c.sent == len(c.sending.B) {
		c.sending.Release()
		c.sending = nil
		c.blockedSince.Store(0)
		if c.granted > 0 {
			c.unaccount()
		}
	}
}

// endWrite ends what the writer has begun. c.mu must be held; it is released.
func (x *netpollConn) endWrite(c *conn) {
	x.writer = writesAnyone
	closed := c.closed
	switch {
	case closed:
	case c.gone.Load():
		_ = unix.Shutdown(x.fd, unix.SHUT_RDWR)
	case c.finished():
		// Everything asked has been answered: say so, and let netpoll find the end of
		// the peer's input.
		_ = unix.Shutdown(x.fd, unix.SHUT_WR)
		c.lingerSince.CompareAndSwap(0, time.Now().UnixMilli())
	}
	c.mu.Unlock()
	switch {
	case closed:
		x.written <- struct{}{}
	case c.translated:
		c.unpause() // what the reader waits for may have been rendered here
	}
}

// release is called by netpoll, not by a poller, when it is about to close the
// socket.
func (x *netpollConn) release(netpoll.Connection) error {
	c := x.c
	c.gone.Store(true)
	x.mu.Lock()
	x.ended = true
	waits := x.reader == reading
	x.mu.Unlock()
	if waits {
		<-x.idle
	}
	c.reading.Lock() // an offloaded turn
	c.dropInput()
	c.refused = true
	c.translator.Leave()
	c.reading.Unlock()
	x.mu.Lock()
	x.drop()
	x.mu.Unlock()

	c.mu.Lock()
	c.closed = true
	waits = x.writer != writesAnyone
	c.mu.Unlock()
	if waits {
		<-x.written
	}
	c.mu.Lock()
	c.dropOutput()
	c.mu.Unlock()
	c.translator.Release()
	c.table.remove(c)
	x.transport.running.Done()
	return nil
}
