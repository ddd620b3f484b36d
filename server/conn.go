package server

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/proa-kv/proa/bufpool"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/protocol"
)

// transport is what a connection needs from the way its bytes travel.
type transport interface {
	// kick sees to it that the connection's output is written soon. It must
	// not block and is called without locks held, from any thread.
	kick(c *conn)
	// resume sees to it that a connection that stopped reading reads again.
	// It must not block; from any thread.
	resume(c *conn)
	// shut closes the connection in both directions, which its reader then
	// notices. From any thread; the descriptor stays valid.
	shut(c *conn)
	// remote names the peer.
	remote(c *conn) string
}

// conn is one client connection, whatever carries it.
type conn struct {
	srv  *Server
	tr   transport
	id   uint64
	fd   int // epoll only
	loop int // epoll only
	door int // of its table
	slot uint32
	gen  uint32

	translator Translator
	protocol   Protocol   // nil: the native one
	translated bool       // protocol is another
	table      *connTable // that it is in
	forwarded  bool       // from another node: nothing of it is sent on

	// Belongs to the thread that reads the connection.
	in      *bufpool.Buffer // bytes of a frame that is not complete, or not looked at yet; nil: none
	inAt    int             // bytes at the front of in that have been carried out
	greeted bool            // a HELLO has been accepted, or a first command of RESP has come
	counted int             // bytes of in that count in Server.inputBytes
	claim   claim           // memory that a large frame has been admitted for
	refused bool            // the stream cannot be trusted: nothing is read any more
	queued  bool            // epoll only: on its loop's list of connections to go on reading
	hup     bool            // epoll only: the end of the peer's input has been reported
	ignored int             // epoll only: bytes read and thrown away
	begun   uint32          // requests that were not answered at once; see begin

	// Read by any thread.
	inFlight      atomic.Int32 // requests that wait for an outcome
	inFlightBytes atomic.Int64
	paused        atomic.Bool  // not read until it has caught up
	awaits        atomic.Bool  // memory for the frame that has begun
	aside         atomic.Bool  // its turn is a job: no thread that polls reads it
	arrived       atomic.Int64 // bytes of frames that have been admitted
	admittedSince atomic.Int64 // Unix ms since a frame is admitted and not whole, 0: there is none
	gone          atomic.Bool  // nobody hears an answer any more: closed, or about to be
	active        atomic.Int64 // Unix ms of the last byte from the peer
	frameSince    atomic.Int64 // Unix ms at which the partial frame began, 0: none
	blockedSince  atomic.Int64 // Unix ms since the peer takes no replies, 0: it does
	lingerSince   atomic.Int64 // Unix ms since everything is said and the peer's end is awaited, 0: that is not so
	parkedJobs    atomic.Int32 // len(parked)
	dropped       atomic.Bool  // replies have been thrown away: nobody takes them
	kept          atomic.Int64 // bytes of replies that the translator keeps until their turn
	walked        atomic.Int64 // bytes that a walk of the translator's holds: they count among the replies, and pause nothing
	roomless      atomic.Bool  // not read until a queue that was full may have room

	arrival   progress // of what has been admitted; the housekeeper's
	departure progress // of replies; the housekeeper's

	reading sync.Mutex // held by whoever takes its turn aside

	listed bool // in Server.roomless; guarded by Server.mu

	mu        sync.Mutex
	out       *bufpool.Buffer // replies to be written; nil: none
	sending   *bufpool.Buffer // replies being written
	sent      int             // bytes of sending that have gone
	writing   bool            // a thread is in a write
	writable  bool            // epoll only: writability was reported since the last attempt
	blocked   bool            // the socket's buffer is full
	marked    bool            // on a list of connections to flush
	closing   bool            // close once everything is written
	ended     bool            // the peer has sent all it will (half-close)
	closed    bool            // the descriptor is, or is about to be, gone
	closeLast bool            // whoever ends the running write closes the descriptor
	parked    []job           // wait until the peer has taken more of its replies
	took      int64           // bytes of replies that the socket has taken
	granted   int64           // bytes of replies that count among those of all connections
	claimed   int64           // bytes of large replies that wait for memory, or are being made
}

// newConn makes a connection that speaks p, or the native protocol where that is
// nil.
func (s *Server) newConn(tr transport, p Protocol) *conn {
	c := &conn{srv: s, tr: tr, id: s.nextConn.Add(1), table: &s.conns}
	c.translator = native{c}
	if p != nil {
		c.protocol, c.translator, c.translated = p, p.Attach(c), true
	}
	now := time.Now().UnixMilli()
	c.active.Store(now)
	c.frameSince.Store(now) // see Greet
	return c
}

// Greet ends the wait for the HELLO, or for the first request of another
// protocol: that is awaited like the rest of a frame.
func (c *conn) Greet() {
	c.greeted = true
	c.frameSince.Store(0)
}

// frameBegins notes that a frame is not whole yet. What comes before a greeting
// does not prolong the wait for it.
func (c *conn) frameBegins(nowMillis uint64) {
	if c.greeted || c.frameSince.Load() == 0 {
		c.frameSince.Store(int64(nowMillis))
	}
}

// frameEnds notes that no frame has begun.
func (c *conn) frameEnds() {
	if c.greeted {
		c.frameSince.Store(0)
	}
}

// rejection is the error sent to a rejected connection.
func (s *Server) rejection(c *conn) []byte {
	if s.draining.Load() {
		return c.translator.Error(0, protocol.StatusShuttingDown, 1000, "the server is shutting down")
	}
	s.counters.rejected.Add(1)
	return c.translator.Error(0, protocol.StatusTooManyConns, 1000, fmt.Sprintf("the server has no connection left for this listener, out of %d (concurrency.max_connections, or fewer if the limit of open files is too low)", s.cfg.ConnectionsMax))
}

// outputSize is the smallest output buffer: several small replies, or one row
// of ordinary size.
const outputSize = 1 << 10

// output returns the buffer that replies are appended to. c.mu must be held.
func (c *conn) output() *bufpool.Buffer {
	if c.out == nil {
		c.out = bufpool.Get(outputSize)
	}
	return c.out
}

// unsent is how many bytes wait to be written. c.mu must be held.
func (c *conn) unsent() int {
	n := 0
	if c.out != nil {
		n += len(c.out.B)
	}
	if c.sending != nil {
		n += len(c.sending.B) - c.sent
	}
	if kept := c.kept.Load(); kept != 0 && !c.dropped.Load() {
		n += int(kept)
	}
	return n
}

// outputBytes is how many bytes of replies nobody has begun to write.
func (c *conn) outputBytes() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.out == nil {
		return 0
	}
	return len(c.out.B)
}

// owes reports whether the connection waits for an outcome or for its replies
// to be taken.
func (c *conn) owes() bool {
	if c.inFlight.Load() > 0 || c.aside.Load() || !c.quiet() {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.unsent() > 0
}

// quiet reports whether no request waits for its turn to be answered.
func (c *conn) quiet() bool { return c.dropped.Load() || c.translator.Quiet() }

// consume carries out the whole requests in b; see Translator.Consume.
func (c *conn) consume(p *processor, b []byte) (taken, need int) {
	c.mu.Lock()
	p.backlog = c.unsent()
	c.mu.Unlock()
	if c.overloaded(p.backlog) {
		c.pause()
	}
	return c.translator.Consume(p, b)
}

// overloaded reports whether the connection has reached a bound, with backlog
// bytes of output waiting.
func (c *conn) overloaded(backlog int) bool {
	cfg := &c.srv.cfg
	return c.inFlight.Load() >= int32(cfg.InFlightMax) || c.inFlightBytes.Load() >= cfg.InFlightBytesMax || backlog >= cfg.OutputBytesMax ||
		c.srv.crowdsOut(backlog)
}

// caughtUp is half of what overloaded allows, so that a connection does not
// stop and go with every request.
func (c *conn) caughtUp() bool {
	cfg := &c.srv.cfg
	if c.inFlight.Load() > int32(cfg.InFlightMax/2) || c.inFlightBytes.Load() > cfg.InFlightBytesMax/2 {
		return false
	}
	if c.awaits.Load() || c.aside.Load() || !c.dropped.Load() && (c.roomless.Load() || c.translator.Waits()) {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	unsent := c.unsent()
	return unsent <= cfg.OutputBytesMax/2 && !c.srv.crowdsOut(2*unsent)
}

// pause stops reading. What was overloaded may have caught up in between, and
// nobody else would notice then.
func (c *conn) pause() {
	c.paused.Store(true)
	c.srv.counters.pauses.Add(1)
	if c.caughtUp() {
		c.paused.Store(false)
	}
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
			c.tr.resume(c)
		}
	} else if c.parkedJobs.Load() > 0 {
		c.mu.Lock()
		roomy := c.roomy()
		c.mu.Unlock()
		if roomy {
			c.tr.resume(c)
		}
	}
}

// refuse answers a byte stream that cannot be trusted any more and closes the
// connection once the answer is written.
func (c *conn) refuse(id uint64, err error) {
	status := protocol.StatusProtocol
	if !c.greeted && errors.Is(err, protocol.ErrVersion) {
		status = protocol.StatusHandshake
	}
	c.closeWith(id, status, err.Error())
}

// closeWith sends a last error frame and closes the connection when it and
// everything before it is written. Nothing more is read.
func (c *conn) closeWith(id uint64, status protocol.Status, message string) {
	c.refused = true
	c.srv.counters.refused.Add(1)
	c.srv.log.Debug("connection refused", "connection", c.id, "peer", c.tr.remote(c), "status", status.String(), "reason", message)
	c.sendLast(c.translator.Error(id, status, 0, message))
}

// notice sends a frame that answers no request, where the peer's protocol has
// any.
func (c *conn) notice(status protocol.Status, message string) {
	c.mu.Lock()
	if !c.closed && !c.translated {
		out := c.output()
		out.B = c.srv.counters.errors.appendError(out.B, 0, noMarks, status, 0, message)
	}
	c.mu.Unlock()
	c.tr.kick(c)
}

// dismiss sends a notice and closes the connection once it is written. From
// any thread.
func (c *conn) dismiss(status protocol.Status, message string) {
	c.mu.Lock()
	c.closing = true
	c.mu.Unlock()
	c.notice(status, message)
}

// HangUp closes the connection without another word.
func (c *conn) HangUp() { c.tr.shut(c) }

// A connection that the server ends is half-closed first and closed when its
// peer has closed too: closing at once would reset it where input is unread, and
// the peer might not get to read why. The peer has that long for it, and so
// much of what it goes on sending is taken meanwhile.
const (
	lingerTimeout = time.Second
	lingerBytes   = 64 << 10
)

// checkTimeouts closes the connection where it is idle or stalled. Called by
// the housekeeper.
func (c *conn) checkTimeouts(nowMillis int64) {
	cfg := &c.srv.cfg
	over := func(since int64, limit time.Duration) bool {
		return limit > 0 && since != 0 && nowMillis-since > limit.Milliseconds()
	}
	c.mu.Lock()
	closing, tarries := c.closing, c.tarries(nowMillis)
	c.mu.Unlock()
	switch {
	case tarries, over(c.blockedSince.Load(), cfg.WriteTimeout), over(c.lingerSince.Load(), lingerTimeout):
		c.HangUp()
	case closing:
	case over(c.frameSince.Load(), cfg.FrameTimeout) && !c.paused.Load():
		c.dismiss(protocol.StatusIdle, fmt.Sprintf("a frame did not arrive completely within %v", cfg.FrameTimeout))
	case c.dawdles(nowMillis):
		c.dismiss(protocol.StatusBusy, "the request arrives too slowly, and other requests need its memory")
	case c.forwarded: // the other node closes it when it has no use for it
	case over(c.active.Load(), cfg.IdleTimeout) && !c.owes() && !c.awaits.Load():
		c.dismiss(protocol.StatusIdle, fmt.Sprintf("no request for %v", cfg.IdleTimeout))
	}
}

// begin counts a request that will be answered later. Only the thread that
// reads c calls it.
func (c *conn) begin(bytes int) {
	c.begun++
	c.inFlight.Add(1)
	c.inFlightBytes.Add(int64(bytes))
	if bytes > largeCharge {
		c.share().add(int64(bytes))
	}
}

// end counts it as answered.
func (c *conn) end(bytes uint32) {
	c.inFlight.Add(-1)
	c.inFlightBytes.Add(-int64(bytes))
	if bytes > largeCharge {
		c.share().give(int64(bytes))
	}
}

// flush writes what a commit or a job has left in the output.
func (c *conn) flush() {
	c.tr.kick(c)
	c.unpause()
}

// Complete encodes the outcome of a proposed command as its reply. It is
// called by the thread that committed it.
func (c *conn) Complete(tag command.Tag, outcome command.Outcome, r *command.Result) {
	c.mu.Lock()
	if !c.closed {
		var marks protocol.Extensions
		if tag.Code&tellEpoch != 0 {
			marks.Epoch = c.srv.backend.Epoch()
		}
		out := c.output()
		if outcome == command.Applied {
			c.appendResult(out, tag, &marks, r)
		} else {
			status, retry, message := refusalOfOutcome(outcome, protocol.Opcode(tag.Code&^tellEpoch))
			out.B = c.srv.counters.errors.appendError(out.B, tag.ID, &marks, status, retry, message)
		}
	}
	// Under the lock: whoever writes the reply must see it as answered.
	c.end(tag.Aux)
	mark := !c.marked
	c.marked = true
	c.mu.Unlock()
	if mark {
		c.srv.markDirty(c)
	}
}

// appendResult appends the answer to a command that was carried out to out,
// which is the output of c. c.mu must be held.
func (c *conn) appendResult(out *bufpool.Buffer, tag command.Tag, marks *protocol.Extensions, r *command.Result) {
	counts := &c.srv.counters.errors
	room := c.rowRoom(tag, r)
	if room < len(r.Value) && (r.Kind == command.Get || r.Kind == command.GetRange) {
		out.B = counts.appendError(out.B, tag.ID, marks, protocol.StatusBusy, retryBusyMillis, errRowsUntaken)
		return
	}
	counts.appendResult(out, tag.ID, marks, protocol.Opcode(tag.Code&^tellEpoch), r, room)
	if len(out.B) > LargeBytes {
		c.account(c.unsent())
	}
}

// finished reports whether c is to be closed, with everything asked answered
// and sent. c.mu must be held.
func (c *conn) finished() bool {
	return c.closing && c.sending == nil && c.out == nil && c.inFlight.Load() == 0 && c.quiet()
}

// dropOutput lets go of everything unsent, and of the jobs that wait to add to
// it. c.mu must be held.
func (c *conn) dropOutput() {
	if c.out != nil {
		c.out.Release()
		c.out = nil
	}
	if c.sending != nil {
		c.sending.Release()
		c.sending = nil
	}
	for i := range c.parked {
		c.end(c.parked[i].charge)
		c.parked[i].release()
	}
	c.parked = nil
	c.parkedJobs.Store(0)
	c.dropped.Store(true)
	c.unaccount()
}
