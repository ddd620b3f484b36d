package client

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/proa-kv/proa/internal/mux"
	"github.com/proa-kv/proa/protocol"
)

// Sizes of a connection's buffers.
const (
	writeBufferBytes = 64 << 10
	// dispatchMax is how many replies are taken from the table at a time.
	dispatchMax = 128
)

// conn is one connection: a table of the requests it has unanswered, a queue
// of calls to send, and a reader.
//
// Whoever finds the queue idle when it enqueues a call becomes the writer
// (writing is set): it gathers everything queued into one buffer and offers
// it to the socket once, without waiting. Only what is left over then, or has
// been queued meanwhile, goes to the connection's writer goroutine. So a lone
// request costs no goroutine switch, and under load requests travel together.
// While the reader hands out replies to handlers the queue is corked: what the
// handlers send is written once, when the reader is through.
//
// A call stands in the table from enqueue until its last reply frame has been
// read, even if its caller gave up: the server still counts it.
//
// Lock order: dispatcher.mu or pool.mu, before conn.mu, before session.mu; nobody
// holds the first two at once. None is held during I/O or while a handler runs.
type conn struct {
	c       *Client
	ep      *endpointState
	node    *node // set when the connection is taken into use
	nc      net.Conn
	direct  *mux.Direct // nil: everything goes through the writer goroutine
	info    ServerInfo
	log     *slog.Logger
	retired chan struct{} // closed when no more requests are taken
	gone    chan struct{} // closed when the writer goroutine must end
	wake    chan struct{} // hands writing to the writer goroutine
	since   int64

	inFlight atomic.Int32
	active   atomic.Bool   // bytes came since the janitor looked last
	silent   int           // janitor only: looks in a row without bytes
	lastTick atomic.Uint32 // when bytes came last
	stalled  atomic.Bool   // requests are out and nothing comes (see attempt.go)
	ghost    call          // stands in the table for calls that were moved elsewhere; callDone

	mu       sync.Mutex
	quiet    sync.Cond // writing became false
	pending  mux.Pending[request]
	limit    int     // requests that may be pending
	queue    []*call // to be sent, from head on
	head     int
	writing  bool
	corked   bool
	draining bool // no new requests; close when the last reply is there
	dead     bool
	cause    error // why it is retired, the first reason found

	// Owned by whoever holds writing.
	out     []byte
	outAt   int // bytes of out that are written
	large   []byte
	largeID uint64
	sent    []sentRef

	// Owned by the reader.
	in      *protocol.Reader
	arrived []arrival
}

// request is one that is queued or unanswered.
type request struct {
	call   *call
	tick   uint32 // when the call was enqueued
	partly bool   // some frames of the reply have come
}

// sentRef says where in out a request ends. It names the request by id, since
// the call itself may have been answered and reused by the time a write fails.
type sentRef struct {
	id  uint64
	end int
}

type arrival struct {
	call  *call // nil: a notice
	frame protocol.Frame
}

func (c *Client) newConn(ep *endpointState, nc net.Conn, info ServerInfo) *conn {
	n := c.cfg.MaxInFlight
	if info.InFlightMax > 0 {
		n = min(n, info.InFlightMax)
	}
	cn := &conn{
		c: c, ep: ep, nc: nc, direct: mux.NewDirect(nc), info: info, since: c.now(),
		log:     c.cfg.Logger.With("endpoint", ep.name, "connection", info.Connection),
		retired: make(chan struct{}), gone: make(chan struct{}), wake: make(chan struct{}, 1),
		limit: n, in: protocol.NewReader(nc),
	}
	cn.quiet.L = &cn.mu
	cn.active.Store(true)
	cn.lastTick.Store(c.janitor.tick.Load())
	cn.ghost.state.Store(callDone)
	return cn
}

// enqueued says what became of an attempt to enqueue a call.
type enqueued uint8

const (
	enqueuedOK    enqueued = iota // queued; someone else sends it
	enqueuedWrite                 // queued; the caller must call write
	enqueuedFull                  // the table is full
	enqueuedHeld                  // the session has no number to give
	enqueuedGone                  // the connection takes no requests any more
	enqueuedLarge                 // the server does not accept a frame of this size
	enqueuedLate                  // the session may have forgotten what became of it
)

// settled reports whether trying another connection would be of no use.
func (r enqueued) settled() bool { return r != enqueuedFull && r != enqueuedGone }

// avoided reports whether a call should rather go to another connection.
func (cn *conn) avoided(ca *call) bool {
	return cn.stalled.Load() || cn.node == ca.avoid
}

// enqueue queues a call and, if it is one of the session, numbers it. After
// enqueuedOK and enqueuedWrite the call may be answered at any time and must
// not be touched.
func (cn *conn) enqueue(ca *call) enqueued {
	cn.mu.Lock()
	defer cn.mu.Unlock()
	switch {
	case cn.dead || cn.draining:
		return enqueuedGone
	case len(ca.frame) > cn.info.FrameBytesMax:
		return enqueuedLarge
	case cn.pending.Len() >= cn.limit:
		return enqueuedFull
	case ca.once && ca.tainted.Load() && cn.c.session.forgotten(ca, cn.c.now()):
		return enqueuedLate
	case ca.once && !cn.c.session.number(ca):
		return enqueuedHeld
	}
	ca.attempts.Add(1)
	ca.setID(cn.pending.Add(request{call: ca, tick: cn.c.janitor.tick.Load()}))
	cn.queue = append(cn.queue, ca)
	cn.inFlight.Add(1)
	if cn.writing || cn.corked {
		return enqueuedOK
	}
	cn.writing = true
	return enqueuedWrite
}

// asyncDirectMax is how many requests may be under way for an asynchronous
// caller still to write by itself.
const asyncDirectMax = 4

// send sees to it that what is queued is sent; the caller holds writing. With
// others under way it lets more requests gather first, without a timer: a
// synchronous caller, who must wait anyway, lets the goroutines run that are
// ready to (measured with 64 of them: 2.5 to 4 times the rate); an
// asynchronous one, who has probably more to send, leaves the writing to the
// writer goroutine.
func (cn *conn) send(async bool) {
	n := cn.inFlight.Load()
	switch {
	case async && n > asyncDirectMax:
		cn.wake <- struct{}{}
		return
	case !async && n > 1:
		runtime.Gosched()
	}
	cn.write()
}

// write sends what is queued; the caller holds writing. It never waits.
func (cn *conn) write() {
	cn.mu.Lock()
	cn.gather()
	if cn.outAt == len(cn.out) && cn.large == nil {
		cn.stopWriting()
		cn.mu.Unlock()
		cn.c.dispatcher.refill() // all that was queued had been given up
		return
	}
	cn.mu.Unlock()
	var n int
	var err error
	if cn.direct != nil && cn.large == nil {
		n, err = cn.direct.Write(cn.out)
	}
	kept := cn.direct != nil && cn.direct.Keeps()
	cn.mu.Lock()
	cn.outAt = n
	if err != nil {
		cn.writeFailed(err)
		cn.mu.Unlock()
		return
	}
	if n == len(cn.out) && !kept && cn.large == nil && cn.head == len(cn.queue) {
		cn.stopWriting()
		cn.mu.Unlock()
		return
	}
	cn.mu.Unlock()
	cn.wake <- struct{}{} // never blocks: one token for the one who holds writing
}

// writeLoop is the writer goroutine.
func (cn *conn) writeLoop() {
	defer cn.c.wg.Done()
	for {
		select {
		case <-cn.gone:
			return
		case <-cn.wake:
		}
		for cn.writeSome() {
		}
		cn.c.dispatcher.refill() // what was given up in the queue made room
	}
}

// writeSome writes the rest of out, then what has been queued since. It
// reports whether the writer still holds writing.
func (cn *conn) writeSome() bool {
	err := cn.writeOut()
	cn.mu.Lock()
	defer cn.mu.Unlock()
	if err != nil {
		cn.writeFailed(err)
		return false
	}
	cn.gather()
	if len(cn.out) == 0 && cn.large == nil {
		cn.stopWriting()
		return false
	}
	return true
}

// writeOut writes what gather has found, and waits as long as that takes.
func (cn *conn) writeOut() error {
	n, err := mux.WriteAll(cn.nc, cn.out[cn.outAt:])
	cn.outAt += n
	if err != nil || cn.large == nil {
		return err
	}
	n, err = mux.WriteAll(cn.nc, cn.large)
	if err == nil || n == len(cn.large) {
		cn.large = nil
	}
	return err
}

// gather moves queued calls into out, up to its size, or up to and including
// one large frame, which is written from where it stands. Calls that were
// cancelled while they were queued leave the table. cn.mu is held.
func (cn *conn) gather() {
	cn.out, cn.outAt, cn.sent = cn.out[:0], 0, cn.sent[:0]
	if cn.head == len(cn.queue) {
		return
	}
	now := cn.c.now()
	for cn.head < len(cn.queue) && cn.large == nil {
		ca := cn.queue[cn.head]
		if len(cn.out) > 0 && len(cn.out)+len(ca.frame) > writeBufferBytes {
			break
		}
		cn.queue[cn.head] = nil
		cn.head++
		id := ca.id()
		if !ca.state.CompareAndSwap(callWaiting, callSent) {
			cn.vacate(id)
			continue
		}
		ca.setRemaining(now)
		if ca.once && ca.sentFirst == 0 {
			ca.sentFirst = now
		}
		if len(ca.frame) > frameKeptBytes {
			cn.large, cn.largeID = ca.frame, id
			break
		}
		cn.out = append(cn.out, ca.frame...)
		cn.sent = append(cn.sent, sentRef{id, len(cn.out)})
	}
	if cn.head*2 >= len(cn.queue) { // keep a queue that never empties from growing
		n := copy(cn.queue, cn.queue[cn.head:])
		clear(cn.queue[n:])
		cn.queue, cn.head = cn.queue[:n], 0
	}
}

// stopWriting gives up writing. cn.mu is held.
func (cn *conn) stopWriting() {
	cn.writing = false
	cn.quiet.Broadcast()
}

// writeFailed marks the requests that did not leave as a whole as not sent,
// for no server can have carried out half a frame, and lets the reader tear
// the connection down. cn.mu and writing are held.
func (cn *conn) writeFailed(err error) {
	for _, s := range cn.sent {
		if s.end > cn.outAt {
			cn.unsend(s.id)
		}
	}
	if cn.large != nil {
		cn.unsend(cn.largeID)
		cn.large = nil
	}
	cn.setCause(fmt.Errorf("%w: %w", ErrConnectionLost, err))
	cn.stopWriting()
	cn.nc.Close()
}

func (cn *conn) unsend(id uint64) {
	if r := cn.pending.Get(id); r != nil {
		r.call.state.CompareAndSwap(callSent, callWaiting)
	}
}

// vacate takes a request out of the table. cn.mu is held.
func (cn *conn) vacate(id uint64) {
	cn.pending.Remove(id)
	cn.inFlight.Add(-1)
	if cn.draining && cn.pending.Len() == 0 {
		cn.nc.Close() // the last reply of a connection that is to end
	}
}

func (cn *conn) setCause(err error) {
	if cn.cause == nil {
		cn.cause = err
	}
}

// readLoop reads replies until the connection ends, then tears it down.
func (cn *conn) readLoop() {
	defer cn.c.wg.Done()
	cn.tearDown(cn.read())
}

func (cn *conn) read() error {
	for {
		if err := cn.in.Fill(); err != nil {
			return fmt.Errorf("%w: %w", ErrConnectionLost, err)
		}
		cn.noteReceived()
		if err := cn.dispatch(); err != nil {
			return err
		}
	}
}

// noteReceived notes that bytes have come.
func (cn *conn) noteReceived() {
	cn.active.Store(true)
	cn.lastTick.Store(cn.c.janitor.tick.Load())
	if cn.stalled.Load() {
		cn.stalled.Store(false)
	}
}

// dispatch hands out every whole frame that has been read. After an error the
// stream cannot be trusted.
func (cn *conn) dispatch() (err error) {
	for more := true; more && err == nil; {
		err = cn.take()
		for i := range cn.arrived {
			cn.deliver(&cn.arrived[i])
		}
		more = len(cn.arrived) == dispatchMax
		clear(cn.arrived)
		cn.arrived = cn.arrived[:0]
	}
	cn.c.dispatcher.refill()
	cn.uncork()
	return err
}

// take looks up the calls of up to dispatchMax frames.
func (cn *conn) take() error {
	cn.mu.Lock()
	defer cn.mu.Unlock()
	for len(cn.arrived) < dispatchMax {
		f, ok, err := cn.in.Next(uint32(cn.info.FrameBytesMax))
		if err != nil {
			return fmt.Errorf("%w: %w", ErrProtocol, err)
		}
		if !ok {
			return nil
		}
		if f.Flags&protocol.FlagReply == 0 {
			return fmt.Errorf("%w: the server sent a request", ErrProtocol)
		}
		if f.ID == 0 {
			cn.arrived = append(cn.arrived, arrival{frame: f})
			continue
		}
		r := cn.pending.Get(f.ID)
		if r == nil || r.call.state.Load() == callWaiting {
			return fmt.Errorf("%w: reply to an unknown request", ErrProtocol)
		}
		ca := r.call
		if f.Flags&protocol.FlagMore == 0 {
			cn.vacate(f.ID)
			if ca.handler != nil || ca.sink != nil {
				cn.corked = true
			}
		} else {
			r.partly = true
		}
		cn.arrived = append(cn.arrived, arrival{ca, f})
	}
	return nil
}

// uncork sends what was queued while the reader handed out replies.
func (cn *conn) uncork() {
	cn.mu.Lock()
	if !cn.corked {
		cn.mu.Unlock()
		return
	}
	cn.corked = false
	write := !cn.writing && cn.head < len(cn.queue)
	if write {
		cn.writing = true
	}
	cn.mu.Unlock()
	if write {
		cn.write()
	}
}

// notice handles a frame that answers no request.
func (cn *conn) notice(f *protocol.Frame) {
	status := Status(f.Code)
	e := replyError(0, status)
	e.Op = ""
	e.addReply(f.Body)
	cn.end(fmt.Errorf("%w: %w", ErrConnectionLost, e))
	if status == protocol.StatusGoAway || status == protocol.StatusIdle {
		cn.log.Info("server closes the connection", "status", status.String())
	} else {
		cn.log.Warn("server reports a connection error", "status", status.String(), "message", e.Message)
	}
}

// end lets the connection finish what is under way, and take nothing more.
func (cn *conn) end(cause error) {
	cn.mu.Lock()
	defer cn.mu.Unlock()
	cn.setCause(cause)
	cn.retire()
}

// retire takes no more requests: what is queued goes elsewhere, what has been
// sent may still be answered. cn.mu is held.
func (cn *conn) retire() {
	if cn.draining || cn.dead {
		return
	}
	cn.draining = true
	close(cn.retired)
	unsent := cn.takeQueue()
	if cn.pending.Len() == 0 {
		cn.nc.Close()
	}
	// The pool's lock comes before this one.
	cn.c.wg.Add(1)
	go func() {
		defer cn.c.wg.Done()
		cn.c.pool.remove(cn)
		for _, ca := range unsent {
			cn.c.dispatcher.resubmit(ca)
		}
	}()
}

// deliver completes the call of one frame, or keeps the frame where more
// follow. The call is out of the table, unless FlagMore is set.
func (cn *conn) deliver(a *arrival) {
	ca, f := a.call, &a.frame
	if ca == nil {
		cn.notice(f)
		return
	}
	if ca.state.Load() == callDone {
		return // the caller gave up
	}
	if f.Flags&protocol.FlagMore != 0 {
		cn.keepPart(ca, f)
		return
	}
	var x protocol.Extensions
	if len(f.Extensions) > 0 && x.Decode(f.Extensions) != nil {
		x = protocol.Extensions{} // the frame itself is sound, its answer counts
	}
	status := Status(f.Code)
	if x.Leader != 0 || x.Epoch != 0 {
		cn.c.router.learn(ca, &x)
	} else if ca.offLeader && status == protocol.StatusOK {
		cn.c.router.confirm(ca, cn.node)
	}
	if cn.c.dispatcher.retryReply(cn, ca, status, f.Body, x.Leader) {
		return
	}
	if ca.state.Swap(callDone) == callDone {
		return // the caller gave up
	}
	ca.status, ca.body = status, f.Body
	if x.HasAge {
		ca.age, ca.stale = time.Duration(x.AgeMillis)*time.Millisecond, true
	}
	cn.c.caller.complete(ca)
}

// keepPart copies a frame that others continue.
func (cn *conn) keepPart(ca *call, f *protocol.Frame) {
	if ca.partsN += len(f.Body); ca.partsN <= cn.c.cfg.MaxReplyBytes {
		ca.parts = append(ca.parts, bytes.Clone(f.Body))
		return
	}
	if ca.state.Swap(callDone) != callDone {
		ca.abandoned = true // it stays in the table until its last frame
		ca.parts = nil
		ca.failure = &Error{
			Op: ca.code.String(), Outcome: NotDone, Attempts: int(ca.attempts.Load()),
			Err: fmt.Errorf("%w: reply of more than %d bytes", ErrTooLarge, cn.c.cfg.MaxReplyBytes),
		}
		cn.c.caller.complete(ca)
	}
}

// tearDown ends the connection and decides about every call it still had.
func (cn *conn) tearDown(cause error) {
	// The cause first: closing lets a write fail, which is only a consequence.
	cn.mu.Lock()
	cn.setCause(cause)
	cause = cn.cause
	cn.mu.Unlock()
	cn.nc.Close()
	cn.c.pool.remove(cn)
	cn.mu.Lock()
	cn.dead = true
	if !cn.draining {
		close(cn.retired)
	}
	for cn.writing {
		cn.quiet.Wait()
	}
	var orphans []*call
	for _, r := range cn.pending.All() {
		if r.call != &cn.ghost {
			orphans = append(orphans, r.call)
		}
	}
	cn.pending, cn.queue = mux.Pending[request]{}, nil
	cn.inFlight.Store(0)
	cn.mu.Unlock()
	close(cn.gone)
	cn.c.pool.forget(cn)
	for _, ca := range orphans {
		cn.c.dispatcher.orphan(cn, ca, cause)
	}
}
