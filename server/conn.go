package server

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/protocol"
)

// socket is what a connection needs from the way its bytes travel.
type socket interface {
	// kick sees to it that the connection's output is written soon. It must
	// not block and is called without locks held, from any thread.
	kick(c *conn)
	// resume sees to it that a connection that stopped reading reads again.
	// It must not block; from any thread.
	resume(c *conn)
	// interrupt has the reader of the connection call expel soon. It must not
	// block; from any thread.
	interrupt(c *conn)
	// shut closes the connection in both directions, which its reader then
	// notices. From any thread; the descriptor stays valid.
	shut(c *conn)
	// remote names the peer.
	remote(c *conn) string
	// local reports whether the peer is a process of this one's user, or of root, on a unix
	// socket.
	local(c *conn) bool
}

// conn is one client connection, whatever carries it.
type conn struct {
	srv    *Server
	socket socket
	id     uint64
	tableEntry

	translator Translator
	protocol   Protocol // nil: the native one
	translated bool     // protocol is another
	forwarded  bool     // from another node: nothing of it is sent on

	connInput
	connOutput
	connSecurity
	epollConn
	identity
	background

	refused bool       // nothing is read any more. Belongs to the thread that reads
	reading sync.Mutex // held by the thread that carries out an offloaded turn
	listed  bool       // in delivery.retry; guarded by delivery.mu

	paused      atomic.Bool  // not read until it has caught up
	offloaded   atomic.Bool  // its turn is a job: no thread that polls reads it
	awaitsQueue atomic.Bool  // not read until a queue that was full may have room
	gone        atomic.Bool  // closed, or about to be: nobody reads an answer any more
	active      atomic.Int64 // Unix ms of the last byte from the peer
	lingerSince atomic.Int64 // Unix ms since everything is said and the peer's end is awaited, 0: that is not so
}

// epollConn is the part of a connection that only the epoll transport has.
type epollConn struct {
	fd   int // the socket; 0: Go's net package has it
	loop int // index of its event loop

	// Belong to the thread that polls the loop.
	queued  bool // on the loop's list of connections to go on reading
	hup     bool // the end of the peer's input has been reported
	ignored int  // bytes read and thrown away

	// Guarded by connOutput.mu.
	writing   bool // a thread is in a write
	writable  bool // writability was reported since the last attempt
	blocked   bool // the socket's buffer is full
	ended     bool // the peer has sent all it will (half-close)
	closeLast bool // whoever ends the running write closes the descriptor
}

// newConn makes a connection that speaks p, or the native protocol where that is
// nil.
func (s *Server) newConn(sk socket, p Protocol) *conn {
	c := &conn{srv: s, socket: sk, id: s.nextConn.Add(1), tableEntry: tableEntry{table: &s.conns}}
	c.connInput.init(&s.admission)
	c.identity.init(c)
	c.background.c = c
	c.connOutput.init(&s.admission, s.cfg.OutputBytesMax)
	c.translator = native{c}
	if p != nil {
		c.protocol, c.translator, c.translated = p, p.Attach(c), true
	}
	c.active.Store(c.frameSince.Load())
	return c
}

// rejection is the error sent to a rejected connection.
func (s *Server) rejection(c *conn) []byte {
	if s.draining.Load() {
		return c.translator.Error(0, protocol.StatusShuttingDown, 1000, "the server is shutting down")
	}
	s.counters.rejected.Add(1)
	return c.translator.Error(0, protocol.StatusTooManyConns, 1000, fmt.Sprintf("the server has no connection left for this listener, out of %d (concurrency.max_connections, or fewer if the limit of open files is too low)", s.cfg.ConnectionsMax))
}

// outstanding reports whether the connection waits for an outcome or for its replies
// to be taken.
func (c *conn) outstanding() bool {
	if c.inFlight.Load() > 0 || c.offloaded.Load() || !c.allAnswered() {
		return true
	}
	return c.Backlog() > 0
}

// allAnswered reports whether no request waits for its turn to be answered.
func (c *conn) allAnswered() bool { return c.dropped.Load() || c.translator.AllAnswered() }

// consume carries out the whole requests in b; see Translator.Consume.
func (c *conn) consume(p *processor, b []byte) (taken, need int) {
	p.backlog = c.Backlog()
	c.PauseIfOverloaded(p)
	return c.translator.Consume(p, b)
}

// overloaded reports whether the connection has reached a bound, with backlog
// bytes of output waiting.
func (c *conn) overloaded(backlog int) bool {
	cfg := &c.srv.cfg
	return c.inFlight.Load() >= int32(cfg.InFlightMax) || c.inFlightBytes.Load() >= cfg.InFlightBytesMax || backlog >= cfg.OutputBytesMax ||
		c.srv.admission.repliesFull(backlog)
}

// caughtUp is half of what overloaded allows, so that a connection does not
// stop and go with every request.
func (c *conn) caughtUp() bool {
	cfg := &c.srv.cfg
	if c.inFlight.Load() > int32(cfg.InFlightMax/2) || c.inFlightBytes.Load() > cfg.InFlightBytesMax/2 {
		return false
	}
	if c.busy.Load() || c.awaits.Load() || c.offloaded.Load() || !c.dropped.Load() && (c.awaitsQueue.Load() || c.translator.Waits()) {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	unsent := c.unsent()
	return unsent <= cfg.OutputBytesMax/2 && !c.srv.admission.repliesFull(2*unsent)
}

// pause is Pause for a connection that has reached a bound, which is counted.
func (c *conn) pause() {
	c.srv.counters.pauses.Add(1)
	c.Pause()
}

// unpause lets a paused connection read on once it has caught up, and its
// parked jobs be taken up once there is room for their replies.
func (c *conn) unpause() {
	if c.paused.Load() && c.caughtUp() {
		if since := c.frameSince.Load(); since != 0 {
			// Nobody has read until now. The reader may have ended the frame.
			c.frameSince.CompareAndSwap(since, time.Now().UnixMilli())
		}
		if c.paused.CompareAndSwap(true, false) {
			c.socket.resume(c)
		}
	} else if c.parkedJobs.Load() > 0 {
		c.mu.Lock()
		canUnpark := c.canUnpark()
		c.mu.Unlock()
		if canUnpark {
			c.socket.resume(c)
		}
	}
}

// Refuse answers a byte stream that cannot be trusted any more and closes the
// connection once the answer is written.
func (c *conn) Refuse(id uint64, err error) {
	status := protocol.StatusProtocol
	if !c.greeted && errors.Is(err, protocol.ErrVersion) {
		status = protocol.StatusHandshake
	}
	c.closeWith(id, status, 0, err.Error())
}

// closeWith sends a last error frame and closes the connection when it and
// everything before it is written. Nothing more is read. retryMillis says when the client
// may come again, 0: nothing.
func (c *conn) closeWith(id uint64, status protocol.Status, retryMillis uint32, message string) {
	c.refused = true
	c.srv.counters.refused.Add(1)
	c.srv.log.Debug("connection refused", "connection", c.id, "peer", c.socket.remote(c), "status", status.String(), "reason", message)
	c.sendLast(c.translator.Error(id, status, retryMillis, message))
}

// notice sends a frame that answers no request, where the peer's protocol has
// any.
func (c *conn) notice(status protocol.Status, message string) {
	c.mu.Lock()
	if !c.closed && !c.translated {
		c.appendError(0, noMarks, status, 0, message)
	}
	c.mu.Unlock()
	c.SendOutput()
}

// closeWithNotice sends a notice and closes the connection once it is written. From
// any thread.
func (c *conn) closeWithNotice(status protocol.Status, message string) {
	c.mu.Lock()
	c.closing = true
	c.mu.Unlock()
	c.notice(status, message)
}

// HangUp closes the connection without another word.
func (c *conn) HangUp() { c.socket.shut(c) }

// A connection that the server ends is half-closed first and closed when its
// peer has closed too: closing at once would reset it where input is unread, and
// the peer might not get to read why. The peer has that long for it, and so
// much of what it goes on sending is taken meanwhile.
const (
	lingerTimeout = time.Second
	lingerBytes   = 64 << 10
)

// checkTimeouts closes the connection where it is idle or stalled. Called
// once a second.
func (c *conn) checkTimeouts(nowMillis int64) {
	cfg := &c.srv.cfg
	over := func(since int64, limit time.Duration) bool {
		return limit > 0 && since != 0 && nowMillis-since > limit.Milliseconds()
	}
	c.mu.Lock()
	closing, receivesSlowly, sendsSlowly := c.closing, c.receivesSlowly(nowMillis), c.sendsSlowly(c.paused.Load(), nowMillis)
	c.mu.Unlock()
	switch {
	case receivesSlowly, over(c.blockedSince.Load(), cfg.WriteTimeout), over(c.lingerSince.Load(), lingerTimeout):
		c.HangUp()
	case closing:
	case over(c.frameSince.Load(), cfg.FrameTimeout) && !c.paused.Load():
		c.endFrame(protocol.StatusIdle, fmt.Sprintf("a request did not arrive completely within %v (network.frame_timeout) and was not carried out; send it again, faster or in smaller parts", cfg.FrameTimeout))
	case over(c.frameSince.Load(), crowdedTimeout) && c.srv.admission.crowded() && c.admittedSince.Load() == 0 && !c.paused.Load() && !c.forwarded:
		c.endFrame(protocol.StatusBusy, fmt.Sprintf("a request did not arrive completely within %v while more than half of the memory for such requests was used (a part of memory.max_memory_usage); it was not carried out: send it again, faster or in smaller parts", crowdedTimeout))
	case sendsSlowly:
		c.endFrame(protocol.StatusBusy, fmt.Sprintf("less than %d KiB of a request arrived within %v while others waited for its memory (a part of memory.max_memory_usage); it was not carried out: send it again, faster or in smaller parts", sendMin>>10, time.Second))
	case c.forwarded: // the other node closes it when it has no use for it
	case over(c.active.Load(), cfg.IdleTimeout) && !c.outstanding() && !c.awaits.Load():
		c.closeWithNotice(protocol.StatusIdle, fmt.Sprintf("no request for %v", cfg.IdleTimeout))
	}
}

// SendOutput writes the output, and lets what has waited for that go on.
func (c *conn) SendOutput() {
	c.socket.kick(c)
	c.unpause()
}

// Complete encodes the outcome of a proposed command as its reply. It is
// called by the driver.
func (c *conn) Complete(tag command.Tag, outcome command.Outcome, r *command.Result) {
	c.mu.Lock()
	if !c.closed {
		var marks protocol.Extensions
		if tag.Code&withEpoch != 0 {
			marks.Epoch = c.srv.backend.Epoch()
		}
		if outcome == command.Applied {
			c.appendResult(tag, &marks, r)
		} else {
			r := refusalOfOutcome(outcome, protocol.Opcode(tag.Code&^withEpoch))
			c.appendError(tag.ID, &marks, r.status, r.retryMillis, r.message)
		}
	}
	// Under the lock: whoever writes the reply must see it as answered.
	c.end(tag.Aux)
	mark := !c.marked
	c.marked = true
	c.mu.Unlock()
	if mark {
		c.srv.delivery.addMarked(c)
	}
}

// appendError appends an error reply to the output, and counts it. c.mu must be held.
func (c *conn) appendError(id uint64, marks *protocol.Extensions, s protocol.Status, retryMillis uint32, message string) {
	out := c.output()
	out.B = appendError(out.B, id, marks, s, retryMillis, message)
	c.srv.counters.errors.add(s)
}

// appendResult appends the answer to a command that was carried out to the output,
// and counts its errors. c.mu must be held.
func (c *conn) appendResult(tag command.Tag, marks *protocol.Extensions, r *command.Result) {
	room := c.rowRoom(tag, r)
	if room < len(r.Value) && (r.Kind == command.Get || r.Kind == command.GetRange) {
		c.appendError(tag.ID, marks, protocol.StatusBusy, retryBusyMillis, errRowsUntaken)
		return
	}
	out, counts := c.output(), &c.srv.counters.errors
	status, outcomes := appendResult(out, tag.ID, marks, protocol.Opcode(tag.Code&^withEpoch), r, room)
	counts.add(status)
	if outcomes != nil {
		counts.addResults(outcomes)
	}
	if len(out.B) > LargeBytes {
		c.account(c.unsent())
	}
}

// finished reports whether c is to be closed, with everything asked answered
// and sent. c.mu must be held.
func (c *conn) finished() bool {
	return c.closing && c.sending == nil && c.out == nil && c.inFlight.Load() == 0 && c.allAnswered()
}
