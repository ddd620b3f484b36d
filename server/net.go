package server

import (
	"crypto/tls"
	"io"
	"net"
	"time"

	"github.com/proa-kv/proa/bufpool"
)

// netTransport moves bytes over Go's net package: a goroutine that reads and one
// that writes for each connection. It serves where there is no epoll.
type netTransport struct{ *acceptor }

func newNetTransport(s *Server) *netTransport {
	n := &netTransport{newAcceptor(s)}
	n.open = func(nc net.Conn) acceptedSocket { return newNetConn(n, nc) }
	return n
}

func (n *netTransport) run() {
	n.accept()
	<-n.stopped
	n.running.Wait()
}

func (n *netTransport) send(conns []*conn, _ bool) {
	for _, c := range conns {
		c.SendOutput()
	}
}

// admitForwarded makes a connection of a stream that another node has opened.
func (n *netTransport) admitForwarded(from uint64, nc net.Conn) {
	s := n.srv
	x := newNetConn(n, nc)
	c := s.newConn(x, nil)
	c.forwarded, c.table, c.shares = true, &s.forwarded, &s.admission.forwards
	if s.draining.Load() || !s.forwarded.add(c) {
		s.lines.stream.Warn(s.log, "refused a stream from another node", "node", from, "streams", s.forwarded.len())
		nc.Close()
		return
	}
	x.start(c)
}

func newNetConn(n *netTransport, nc net.Conn) *netConn {
	x := &netConn{transport: n, nc: nc, wake: make(chan struct{}, 1), resumed: make(chan struct{}, 1), gone: make(chan struct{})}
	if tc, ok := nc.(*tls.Conn); ok {
		x.wire = tc.NetConn().(*wire)
	}
	return x
}

// start begins to serve c, which is in its table.
func (x *netConn) start(c *conn) {
	if !x.transport.begin(2) {
		x.nc.Close()
		c.table.remove(c)
		return
	}
	x.transport.srv.counters.accepted.Add(1)
	go x.readLoop(c)
	go x.writeLoop(c)
}

// netConn is the socket of one connection.
type netConn struct {
	transport *netTransport
	nc        net.Conn
	wire      *wire         // carries nc, where it speaks TLS; nil: it does not
	wake      chan struct{} // there is output
	resumed   chan struct{} // the pause is over
	gone      chan struct{} // closed when reading has ended for good
	cut       bool          // a write has failed, maybe in the middle; belongs to the writer
}

func (x *netConn) kick(c *conn) {
	c.mu.Lock()
	c.marked = false
	c.mu.Unlock()
	select {
	case x.wake <- struct{}{}:
	default:
	}
}

func (x *netConn) resume(c *conn) {
	if c.parkedJobs.Load() > 0 {
		c.requeueParked()
	}
	select {
	case x.resumed <- struct{}{}:
	default:
	}
}

// interrupt ends a read.
func (x *netConn) interrupt(*conn) { _ = x.nc.SetReadDeadline(time.Unix(1, 0)) }

func (x *netConn) shut(c *conn) {
	if x.wire == nil {
		x.nc.Close()
		return
	}
	x.wire.hangUp() // the writer takes leave
	x.kick(c)
}

func (x *netConn) local(*conn) bool { return localPeer(x.nc) }

func (x *netConn) remote(*conn) string { return x.nc.RemoteAddr().String() }

func (x *netConn) readLoop(c *conn) {
	n := x.transport
	p := newProcessor(n.srv)
	p.dedicated = true
	defer n.running.Done()
	defer n.srv.counters.unregister(&p.counts)
	x.serve(c, p)
	c.dropInput()
	c.translator.Leave()
	c.mu.Lock()
	c.closing = true
	c.mu.Unlock()
	close(x.gone)
	x.kick(c)
}

// serve reads until the peer's input ends or cannot be trusted.
func (x *netConn) serve(c *conn, p *processor) {
	s := x.transport.srv
	for {
		if c.in == nil {
			c.in = bufpool.Get(readBytesIdle)
		}
		k, err := x.nc.Read(c.in.B[len(c.in.B):cap(c.in.B)])
		p.now = s.backend.NowMillis()
		if k > 0 {
			s.counters.bytesIn.Add(uint64(k))
			c.active.Store(int64(p.now))
			c.in.B = c.in.B[:len(c.in.B)+k]
			if c.claim.held > 0 {
				c.arrived.Add(int64(k))
			}
			if !x.consume(c, p) {
				return
			}
		}
		if err != nil && !x.readsOn(c) {
			return
		}
	}
}

// readsOn reports whether a read has ended because of an interrupt that came too
// late.
func (x *netConn) readsOn(c *conn) bool {
	if c.expulsion.Load() == nil || c.expel() {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing { // the deadline is that of linger
		return false
	}
	return x.nc.SetReadDeadline(time.Time{}) == nil
}

// consume carries out what is whole of the input, waiting out pauses, and makes
// room for more. It returns false where the connection must not be read on.
func (x *netConn) consume(c *conn, p *processor) bool {
	for {
		p.credit = turnCredit
		ready := true
		if c.in != nil {
			ready = p.consumeBuffered(c)
		} else {
			c.consume(p, nil) // what goes on without further input
		}
		p.endIteration(c)
		switch parked := c.parkedJobs.Load() > 0; {
		case c.refused && !parked:
			return false
		case parked || c.paused.Load():
			select {
			case <-x.resumed:
			case <-x.transport.stopped:
				return false
			}
			if !p.unpark(c) {
				return false
			}
		case ready && p.credit > 0 && !c.translator.Continues():
			return true
		}
	}
}

// endIteration does what a polling thread does at the end of its iteration, where
// the thread may wait for the disk because it polls nobody else. A stream from
// another node carries many clients' requests: there it must not wait.
func (p *processor) endIteration(c *conn) {
	if c.forwarded {
		p.leaveToOthers()
		return
	}
	p.sendAll()
	if p.proposed {
		p.proposed = false
		if be := p.srv.backend; be.Acquire() {
			p.srv.groupCommit(nil)
			be.Kick() // what came in during the group commit is for the backend's own thread
		}
	}
	if len(p.jobs) > 0 {
		p.runJobs()
		p.sendAll()
		p.kickIfProposed()
	}
}

// leaveToOthers ends an iteration of a thread that must not wait for the disk.
func (p *processor) leaveToOthers() {
	p.sendAll()
	p.queueJobs()
	p.sendAll()
	p.kickIfProposed()
}

// writeLoop writes replies until the connection outstanding none and will get none.
func (x *netConn) writeLoop(c *conn) {
	defer x.transport.running.Done()
	defer x.release(c)
	gone := x.gone
	for {
		select {
		case <-x.wake:
		case <-gone:
			gone = nil
		case <-x.transport.stopped:
			return
		}
		switch {
		case x.wire != nil && x.wire.hung.Load(), !x.writeAll(c):
			return
		}
		c.mu.Lock()
		finished := c.finished()
		c.mu.Unlock()
		if finished {
			return
		}
	}
}

func (x *netConn) writeAll(c *conn) bool {
	for {
		c.mu.Lock()
		more := c.nextOutput()
		b := c.sending
		c.mu.Unlock()
		if !more {
			c.unpause() // what the reader waits for may have been translated
			return true
		}
		c.blockedSince.CompareAndSwap(0, time.Now().UnixMilli())
		n, err := x.write(c, b.B)
		c.blockedSince.Store(0)
		x.transport.srv.counters.bytesOut.Add(uint64(n))
		c.mu.Lock()
		c.sending = nil
		if c.granted > 0 {
			c.unaccount()
		}
		c.mu.Unlock()
		b.Release()
		if err != nil {
			x.cut = true
			return false
		}
		c.unpause()
	}
}

// write writes b in pieces, so that it shows whether the peer takes any.
func (x *netConn) write(c *conn, b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var k int
		k, err = x.nc.Write(b[n:min(n+writeBytes, len(b))])
		n += k
		c.mu.Lock()
		c.took += int64(k)
		c.mu.Unlock()
	}
	return n, err
}

func (x *netConn) release(c *conn) {
	x.leave(c)
	c.mu.Lock()
	c.closed = true
	c.gone.Store(true)
	c.dropOutput()
	c.mu.Unlock()
	x.resume(c) // a reader that waits out a pause
	if c.translated {
		<-x.gone
		c.translator.Release()
	}
	c.table.remove(c)
}

// leave closes the connection, and says so first.
func (x *netConn) leave(c *conn) {
	nc := x.nc
	if x.wire != nil {
		if !x.cut {
			_ = c.tls.CloseWrite()
		}
		nc = x.wire
	}
	defer nc.Close()
	if x.wire != nil && x.wire.hung.Load() {
		return
	}
	if half, ok := nc.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
		x.linger(nc)
	}
}

// linger waits for the end of the peer's input.
func (x *netConn) linger(nc net.Conn) {
	end := time.Now().Add(lingerTimeout)
	_ = nc.SetReadDeadline(end)
	if _, err := io.CopyN(io.Discard, nc, lingerBytes); err != nil {
		return // the end, or the deadline
	}
	select {
	case <-time.After(time.Until(end)):
	case <-x.transport.stopped:
	}
}

// readBytesIdle is the input buffer of a connection between frames. It does not
// count as input: nothing of a request is in it.
const readBytesIdle = 4 << 10
