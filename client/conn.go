package client

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/proa-kv/proa/protocol"
)

// Sizes of a connection's buffers.
const (
	readBufferBytes  = 64 << 10
	writeBufferBytes = 64 << 10
	// readBufferIdle is how many reads in a row must leave an enlarged read
	// buffer mostly empty before it shrinks again.
	readBufferIdle = 32
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
// read, even if its caller gave up: the server still counts it. The id of a
// request is the table index plus 1, with the slot's generation in the upper
// half, so that a late reply can never meet a newer request.
//
// Lock order: dispatcher.mu or pool.mu, before conn.mu, before session.mu; nobody
// holds the first two at once. None is held during
// I/O or while a handler runs.
type conn struct {
	c       *Client
	ep      *endpointState
	node    *node // set when the connection is taken into use
	nc      net.Conn
	direct  *direct // nil: everything goes through the writer goroutine
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
	slots    []slot
	free     []uint32
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
	arrived []arrival
}

type slot struct {
	call       *call
	generation uint32
	tick       uint32 // when the call was enqueued
	partly     bool   // some frames of the reply have come
}

// id returns the id of the request in slot i.
func (s *slot) id(i int) uint64 { return uint64(s.generation)<<32 | uint64(i+1) }

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
		c: c, ep: ep, nc: nc, direct: newDirect(nc), info: info, since: c.now(),
		log:     c.cfg.Logger.With("endpoint", ep.name, "connection", info.Connection),
		retired: make(chan struct{}), gone: make(chan struct{}), wake: make(chan struct{}, 1),
		slots: make([]slot, n), free: make([]uint32, n),
	}
	cn.quiet.L = &cn.mu
	cn.active.Store(true)
	cn.lastTick.Store(c.janitor.tick.Load())
	cn.ghost.state.Store(callDone)
	for i := range cn.free {
		cn.free[i] = uint32(n - 1 - i)
	}
	return cn
}

// enqueued says what became of an attempt to enqueue a call.
type enqueued uint8

const (
	enqueuedOK    enqueued = iota // queued; someone else sends it
	enqueuedFlush                 // queued; the caller must call flush
	enqueuedFull                  // the table is full
	enqueuedHeld                  // the session has no number to give
	enqueuedGone                  // the connection takes no requests any more
	enqueuedLarge                 // the server does not accept a frame of this size
	enqueuedLate                  // the session may have forgotten what became of it
)

// settled reports whether trying another connection would be of no use.
func (r enqueued) settled() bool { return r != enqueuedFull && r != enqueuedGone }

// shunned reports whether a call should rather go to another connection.
func (cn *conn) shunned(ca *call) bool {
	return cn.stalled.Load() || cn.node == ca.avoid
}

// enqueue queues a call and, if it is one of the session, numbers it. After
// enqueuedOK and enqueuedFlush the call may be answered at any time and must
// not be touched.
func (cn *conn) enqueue(ca *call) enqueued {
	cn.mu.Lock()
	defer cn.mu.Unlock()
	switch {
	case cn.dead || cn.draining:
		return enqueuedGone
	case len(ca.frame) > cn.info.FrameBytesMax:
		return enqueuedLarge
	case len(cn.free) == 0:
		return enqueuedFull
	case ca.once && ca.tainted.Load() && cn.c.session.forgotten(ca, cn.c.now()):
		return enqueuedLate
	case ca.once && !cn.c.session.number(ca):
		return enqueuedHeld
	}
	i := cn.free[len(cn.free)-1]
	cn.free = cn.free[:len(cn.free)-1]
	s := &cn.slots[i]
	s.call, s.tick, s.partly = ca, cn.c.janitor.tick.Load(), false
	ca.attempts.Add(1)
	ca.setID(s.id(int(i)))
	cn.queue = append(cn.queue, ca)
	cn.inFlight.Add(1)
	if cn.writing || cn.corked {
		return enqueuedOK
	}
	cn.writing = true
	return enqueuedFlush
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
	cn.flush()
}

// flush sends what is queued; the caller holds writing. It never waits.
func (cn *conn) flush() {
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
		n, err = cn.direct.write(cn.out)
	}
	cn.mu.Lock()
	cn.outAt = n
	if err != nil {
		cn.writeFailed(err)
		cn.mu.Unlock()
		return
	}
	if n == len(cn.out) && cn.large == nil && cn.head == len(cn.queue) {
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

func (cn *conn) writeOut() error {
	for cn.outAt < len(cn.out) {
		n, err := cn.nc.Write(cn.out[cn.outAt:])
		cn.outAt += n
		if err != nil {
			return err
		}
	}
	if cn.large == nil {
		return nil
	}
	n, err := cn.nc.Write(cn.large)
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
	if s := cn.slot(id); s != nil {
		s.call.state.CompareAndSwap(callSent, callWaiting)
	}
}

// slot returns the slot of a request that has not been answered, nil if there
// is none. cn.mu is held.
func (cn *conn) slot(id uint64) *slot {
	i := uint32(id) - 1
	if i >= uint32(len(cn.slots)) {
		return nil
	}
	s := &cn.slots[i]
	if s.call == nil || s.generation != uint32(id>>32) {
		return nil
	}
	return s
}

// vacate frees the slot of id. cn.mu is held.
func (cn *conn) vacate(id uint64) {
	i := uint32(id) - 1
	cn.slots[i].call = nil
	cn.slots[i].generation++
	cn.free = append(cn.free, i)
	cn.inFlight.Add(-1)
	if cn.draining && len(cn.free) == len(cn.slots) {
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
	buf := make([]byte, readBufferBytes)
	from, to, idle := 0, 0, 0
	for {
		n, err := cn.nc.Read(buf[to:])
		if n > 0 {
			to += n
			cn.noteReceived()
			used, need, bad := cn.dispatch(buf[from:to])
			if bad != nil {
				return bad
			}
			from += used
			buf, from, to = arrange(buf, from, to, need)
			if len(buf) > readBufferBytes && to < readBufferBytes && need <= readBufferBytes {
				if idle++; idle >= readBufferIdle {
					buf, idle = append(make([]byte, 0, readBufferBytes), buf[:to]...)[:readBufferBytes], 0
				}
			} else {
				idle = 0
			}
		}
		if err != nil {
			if errors.Is(err, io.EOF) && to > 0 {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("%w: %w", ErrConnectionLost, err)
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

// arrange moves the unread bytes to the front and makes room for a frame of
// need bytes. It at most doubles the buffer at a time, so that a length alone,
// without the bytes, takes no memory.
func arrange(buf []byte, from, to, need int) ([]byte, int, int) {
	n := to - from
	if from > 0 {
		copy(buf, buf[from:to])
	}
	if n == len(buf) {
		larger := make([]byte, min(max(need, len(buf)+1), 2*len(buf)))
		copy(larger, buf)
		buf = larger
	}
	return buf, 0, n
}

// dispatch hands out every whole frame in b. It returns how many bytes they
// take and how long the frame that follows is. After an error the stream
// cannot be trusted.
func (cn *conn) dispatch(b []byte) (used, need int, err error) {
	for {
		var n int
		n, need, err = cn.take(b[used:])
		used += n
		for i := range cn.arrived {
			cn.deliver(&cn.arrived[i])
		}
		more := len(cn.arrived) == dispatchMax
		clear(cn.arrived)
		cn.arrived = cn.arrived[:0]
		if err != nil || !more {
			break
		}
	}
	cn.c.dispatcher.refill()
	cn.uncork()
	return used, need, err
}

// take parses up to dispatchMax frames from b and looks up their calls.
func (cn *conn) take(b []byte) (used, need int, err error) {
	cn.mu.Lock()
	defer cn.mu.Unlock()
	for len(cn.arrived) < dispatchMax {
		f, n, want, err := protocol.Next(b[used:], uint32(cn.info.FrameBytesMax))
		if err != nil {
			return used, 0, fmt.Errorf("%w: %w", ErrProtocol, err)
		}
		if n == 0 {
			return used, want, nil
		}
		used += n
		if f.Flags&protocol.FlagReply == 0 {
			return used, 0, fmt.Errorf("%w: the server sent a request", ErrProtocol)
		}
		if f.ID == 0 {
			cn.arrived = append(cn.arrived, arrival{frame: f})
			continue
		}
		s := cn.slot(f.ID)
		if s == nil || s.call.state.Load() == callWaiting {
			return used, 0, fmt.Errorf("%w: reply to an unknown request", ErrProtocol)
		}
		ca := s.call
		if f.Flags&protocol.FlagMore == 0 {
			cn.vacate(f.ID)
			if ca.handler != nil || ca.sink != nil {
				cn.corked = true
			}
		} else {
			s.partly = true
		}
		cn.arrived = append(cn.arrived, arrival{ca, f})
	}
	return used, 0, nil
}

// uncork sends what was queued while the reader handed out replies.
func (cn *conn) uncork() {
	cn.mu.Lock()
	if !cn.corked {
		cn.mu.Unlock()
		return
	}
	cn.corked = false
	flush := !cn.writing && cn.head < len(cn.queue)
	if flush {
		cn.writing = true
	}
	cn.mu.Unlock()
	if flush {
		cn.flush()
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
	if len(cn.free) == len(cn.slots) {
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
	} else if ca.strayed && status == protocol.StatusOK {
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
	for i := range cn.slots {
		if ca := cn.slots[i].call; ca != nil && ca != &cn.ghost {
			orphans = append(orphans, ca)
		}
	}
	cn.slots, cn.queue, cn.free = nil, nil, nil
	cn.inFlight.Store(0)
	cn.mu.Unlock()
	close(cn.gone)
	cn.c.pool.forget(cn)
	for _, ca := range orphans {
		cn.c.dispatcher.orphan(cn, ca, cause)
	}
}
