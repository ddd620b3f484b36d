package peer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/proa-kv/proa/bufpool"
	"github.com/proa-kv/proa/internal/lograte"
	"github.com/proa-kv/proa/internal/mux"
)

// peer is a node of the address book: the connection this node dials to it, and
// what waits to be sent on that.
type peer struct {
	t         *Transport
	node      uint64
	ctx       context.Context
	cancel    context.CancelFunc
	kick      chan struct{} // capacity 1: try to connect now
	wake      chan struct{} // capacity 1: the writer goroutine has work
	callSlots chan struct{} // one for each unanswered call

	bytesIn, bytesOut atomic.Uint64

	mu         sync.Mutex
	address    string
	cancelDial context.CancelFunc // not nil while a connection is being opened
	link       *link              // nil without a connection
	frames     frameQueue
	writing    bool // the writer goroutine owns the socket
	dirty      bool // Transmit knows
	dropping   bool // the handler has heard of this burst
	calls      mux.Pending[chan callResult]

	lastError  string // why there is no connection
	connects   uint64 // so far
	dropped    uint64
	failureLog lograte.Line // of attempts to connect
	sizeLog    lograte.Line // of messages that are too large

	droppedReports uint64
	reportLog      lograte.Line
}

// link is the connection dialled to a peer.
type link struct {
	conn    net.Conn
	direct  *mux.Direct // nil: only the writer goroutine writes
	version uint16
	done    chan struct{} // closed when the connection has ended
	err     error         // why; valid after done

	obsolete bool // the address has changed; guarded by peer.mu
}

func newPeer(t *Transport, node uint64, address string) *peer {
	p := &peer{
		t: t, node: node, address: address,
		kick:       make(chan struct{}, 1),
		wake:       make(chan struct{}, 1),
		callSlots:  make(chan struct{}, CallsPerPeerMax),
		failureLog: lograte.Line{Interval: failureLogInterval},
		sizeLog:    lograte.Line{Interval: failureLogInterval},
		reportLog:  lograte.Line{Interval: failureLogInterval},
	}
	p.ctx, p.cancel = context.WithCancel(t.ctx)
	return p
}

func (p *peer) addressNow() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.address
}

// connected returns why nothing can be sent, or nil.
func (p *peer) connected() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.link != nil {
		return nil
	}
	if p.lastError == "" {
		return fmt.Errorf("node %d: %w", p.node, ErrNotConnected)
	}
	return fmt.Errorf("node %d: %w: %s", p.node, ErrNotConnected, p.lastError)
}

// version returns the protocol version of the connection, 0 without one.
func (p *peer) version() uint16 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.link == nil {
		return 0
	}
	return p.link.version
}

// setAddress connects anew if the address has changed, and otherwise tries at
// once if there is no connection.
func (p *peer) setAddress(address string) {
	p.mu.Lock()
	changed := address != p.address
	p.address = address
	if changed {
		p.failureLog.Reset()
		if p.link != nil {
			p.link.obsolete = true
			p.link.conn.Close()
		}
	}
	p.mu.Unlock()
	p.retry()
}

// retry ends the wait for the next attempt to connect. An attempt that still
// waits for the other side's first packet is begun again: the packet may have
// been lost before the peer came up.
func (p *peer) retry() {
	p.mu.Lock()
	if p.cancelDial != nil {
		p.cancelDial()
	}
	p.mu.Unlock()
	notify(p.kick) // last: the attempt that it brings about must not be the one that ends
}

func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// run keeps the connection until the peer is retired.
func (p *peer) run() {
	select {
	case <-p.t.ready:
	case <-p.ctx.Done():
		return
	}
	failures := 0
	for p.ctx.Err() == nil {
		if id := p.t.identity(); !id.member() {
			p.pause(-1)
			continue
		}
		if p.session() >= p.t.cfg.ReconnectMin {
			failures = 0
			continue // it was sound; a restart of the peer must not cost a wait
		}
		if kicked := p.pause(p.t.cfg.reconnectDelay(failures, rand.Float64())); kicked {
			failures = 0
		} else {
			failures++
		}
	}
}

// reconnectDelay returns how long to wait after so many failures before;
// random is in [0, 1).
func (c *Config) reconnectDelay(failures int, random float64) time.Duration {
	d := c.ReconnectMin
	for range failures {
		if d >= c.ReconnectMax/2 {
			d = c.ReconnectMax
			break
		}
		d *= 2
	}
	return d - time.Duration(random*float64(d)/2)
}

// pause waits for d, for ever if it is negative, and reports whether it was
// ended by retry.
func (p *peer) pause(d time.Duration) (kicked bool) {
	var expired <-chan time.Time
	if d >= 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		expired = timer.C
	}
	select {
	case <-p.kick:
		return true
	case <-expired:
	case <-p.ctx.Done():
	}
	return false
}

// session connects and serves the connection until it ends. It returns how
// long there was one.
func (p *peer) session() time.Duration {
	conn, address, version, err := p.open()
	if err != nil {
		p.failed(err)
		return 0
	}
	l := &link{conn: conn, direct: mux.NewDirect(conn), version: version, done: make(chan struct{})}
	if !p.attach(l, address) {
		p.t.drop(conn)
		return 0
	}
	p.t.log.Info("connected to a peer", "node", p.node, "addr", address, "version", version)
	began := time.Now()
	stop := context.AfterFunc(p.ctx, func() { conn.Close() })
	p.t.wg.Go(func() { p.readReplies(l) }) // this goroutine is counted, so Close still waits
	err = p.write(l)
	stop()
	p.t.drop(conn)
	<-l.done
	p.detach(l, err)
	return time.Since(began)
}

func (p *peer) open() (conn net.Conn, address string, version uint16, err error) {
	ctx, cancel := context.WithCancel(p.ctx)
	defer cancel()
	p.mu.Lock()
	address, p.cancelDial = p.address, cancel
	p.mu.Unlock()
	conn, err = p.t.connect(ctx, address)
	p.mu.Lock()
	p.cancelDial = nil
	p.mu.Unlock()
	if err != nil {
		return nil, address, 0, err
	}
	a, err := p.t.introduce(p.ctx, conn, address, kindRaft, p.node)
	return conn, address, a.version, err
}

// attach makes the link the one to send on, unless the address has changed.
func (p *peer) attach(l *link, address string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.address != address {
		return false
	}
	select {
	case <-p.kick: // what it asked for is there
	default:
	}
	p.link, p.lastError = l, ""
	p.connects++
	p.failureLog.Reset()
	return true
}

// detach forgets the link and all that waited for it.
func (p *peer) detach(l *link, err error) {
	if l.err != nil && !errors.Is(l.err, net.ErrClosed) {
		err = l.err // what the other side did, rather than what we saw of it
	}
	p.mu.Lock()
	if l.obsolete {
		err = errMoved
	}
	p.link, p.writing, p.dropping = nil, false, true
	p.lastError = err.Error()
	p.frames.clear()
	for id, result := range p.calls.All() {
		*result <- callResult{err: fmt.Errorf("node %d: %w", p.node, ErrConnectionLost)} // there is room for one
		p.calls.Remove(id)
	}
	p.mu.Unlock()
	p.t.alarms.raise(p.node)
	if p.ctx.Err() == nil {
		p.t.log.Warn("connection to a peer ended", "node", p.node, "err", err)
	}
}

// errMoved ends a connection to an address that is the peer's no more.
var errMoved = errors.New("peer: the address has changed")

// failed notes an attempt that led to no connection.
func (p *peer) failed(err error) {
	p.mu.Lock()
	if text := err.Error(); text != p.lastError {
		p.lastError = text
		p.failureLog.Reset()
	}
	p.mu.Unlock()
	if p.ctx.Err() != nil || errors.Is(err, context.Canceled) {
		return
	}
	p.failureLog.Log(p.t.log, level(err), "cannot connect to a peer", "node", p.node, "err", err)
}

// send puts a message into the open frame. It reports true if Transmit does not
// know yet that there is something to do.
func (p *peer) send(shard uint32, m *raftpb.Message) (first bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.put(shard, m) {
		p.drop()
		return false
	}
	first = !p.dirty
	p.dirty, p.dropping = true, false
	return first
}

func (p *peer) put(shard uint32, m *raftpb.Message) bool {
	if p.link == nil {
		return false
	}
	r := newRecord(p.link.version, shard, m)
	if r.size > MessageBytesMax || len(m.Entries) > EntriesPerFrameMax {
		// Raft will try again and again.
		p.sizeLog.Log(p.t.log, slog.LevelError, "Raft message is too large to send", "node", p.node, "shard", shard,
			"bytes", r.size, "entries", len(m.Entries), "limit", MessageBytesMax)
		return false
	}
	if !p.room(r.bytesMax()) {
		return false
	}
	return p.frames.put(&r) == nil
}

// drop counts what is not sent; the handler hears of the first of a burst.
func (p *peer) drop() {
	p.dropped++
	if !p.dropping {
		p.dropping = true
		p.t.alarms.raise(p.node)
	}
}

// sendFrame sends a frame of the engine's, or drops it.
func (p *peer) sendFrame(frame []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.putFrame(frame); err != nil {
		p.drop()
		return err
	}
	p.dropping = false
	p.push()
	return nil
}

func (p *peer) putFrame(frame []byte) error {
	switch {
	case len(frame) > frameBytesMax:
		return fmt.Errorf("node %d: %w: a frame of %d bytes; the limit is %d", p.node, ErrTooLarge, len(frame), frameBytesMax)
	case p.link == nil:
		return fmt.Errorf("node %d: %w", p.node, ErrNotConnected)
	case !p.room(headerBytes + len(frame)):
		return fmt.Errorf("node %d: %w: too much data is waiting to be sent", p.node, ErrBusy)
	}
	p.frames.add(frameEngine, frame)
	return nil
}

// room reports whether n more bytes may wait.
func (p *peer) room(n int) bool {
	return p.frames.bytes == 0 || p.frames.bytes+n <= p.t.cfg.QueueBytesMax
}

// report sends a report, or counts it as dropped.
func (p *peer) report(body []byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	reason := ""
	switch {
	case len(body) > ReportBytesMax:
		reason = "it is too large"
	case p.link == nil:
		reason = "not connected"
	case !p.room(headerBytes + len(body)):
		reason = "too much data is waiting to be sent to the peer"
	default:
		p.frames.append(frameOf(frameReport, body))
		p.push()
		return true
	}
	p.droppedReports++
	p.reportLog.Log(p.t.log, slog.LevelWarn, "dropped a status report to a peer", "node", p.node, "reason", reason, "bytes", len(body), "so_far", p.droppedReports)
	return false
}

func (p *peer) transmit() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dirty = false
	p.push()
}

// push writes what the socket takes and leaves the rest to the writer
// goroutine. While that writes, the open frame stays open.
func (p *peer) push() {
	if p.link == nil || p.writing {
		return
	}
	p.frames.seal()
	if p.link.direct != nil {
		p.bytesOut.Add(uint64(p.frames.writeTo(p.link.direct)))
	}
	if !p.frames.empty() {
		p.writing = true
		notify(p.wake)
	}
}

// write is the writer goroutine: it returns when the connection has ended.
func (p *peer) write(l *link) error {
	for {
		select {
		case <-p.wake:
			if err := p.drain(l); err != nil {
				return err
			}
		case <-l.done:
			return l.err
		}
	}
}

// drain writes, waiting for the socket, until nothing is left.
func (p *peer) drain(l *link) error {
	for {
		p.mu.Lock()
		if !p.writing {
			p.mu.Unlock()
			return nil
		}
		p.frames.seal()
		b, sent := p.frames.take()
		if b == nil {
			err := l.conn.SetWriteDeadline(time.Time{}) // for push
			p.writing = false
			p.mu.Unlock()
			return err
		}
		p.mu.Unlock()
		err := p.writeFrame(l, b.B[sent:])
		p.mu.Lock()
		p.frames.written(b)
		p.mu.Unlock()
		if err != nil {
			return err
		}
	}
}

func (p *peer) writeFrame(l *link, b []byte) error {
	for len(b) > 0 {
		if err := l.conn.SetWriteDeadline(time.Now().Add(p.t.cfg.WriteTimeout)); err != nil {
			return err
		}
		n, err := l.conn.Write(b[:min(len(b), writeBytes)])
		p.bytesOut.Add(uint64(n))
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// readReplies reads what comes backwards: replies to calls. It ends with the
// connection, which it thereby watches.
func (p *peer) readReplies(l *link) {
	r := newFrameReader(l.conn)
	defer r.close()
	for l.err == nil {
		t, payload, err := r.next()
		switch {
		case err != nil:
			l.err = err
		case t != frameReply:
			l.err = damaged("a frame of type %d in the reply direction", t)
		default:
			p.bytesIn.Add(uint64(headerBytes + len(payload)))
			l.err = p.answered(payload)
		}
	}
	if l.err == io.EOF {
		l.err = errors.New("peer: the other side closed the connection")
	}
	l.conn.Close()
	close(l.done)
}

func (p *peer) status() PeerStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	return PeerStatus{
		Node: p.node, Connected: p.link != nil,
		BytesIn: p.bytesIn.Load(), BytesOut: p.bytesOut.Load(),
		QueuedBytes: p.frames.bytes, Dropped: p.dropped, DroppedReports: p.droppedReports,
	}
}

// frameQueue holds the frames that wait for one peer, and the one that is being
// filled. Its methods need the peer's lock.
type frameQueue struct {
	open     *bufpool.Buffer // nil: none
	messages int             // in open
	entries  int             // in open

	closed []*bufpool.Buffer
	sent   int // bytes of closed[0] that have been written
	bytes  int // of all frames, with one that has been taken
}

// put encodes a record into the open frame, or into a fresh one.
func (q *frameQueue) put(r *record) error {
	need := r.bytesMax()
	if q.open != nil && (len(q.open.B)+need > frameBytesTarget || q.messages == MessagesPerFrameMax ||
		q.entries+len(r.m.Entries) > EntriesPerFrameMax) {
		q.seal()
	}
	if q.open == nil {
		q.open = newFrame(max(need, frameBytesFirst-headerBytes))
		q.bytes += headerBytes
	}
	q.open.Grow(need)
	before := len(q.open.B)
	if err := r.appendTo(q.open); err != nil {
		return err
	}
	q.bytes += len(q.open.B) - before
	q.messages++
	q.entries += len(r.m.Entries)
	return nil
}

// seal closes the open frame, if there is one.
func (q *frameQueue) seal() {
	if q.open == nil {
		return
	}
	seal(q.open, frameMessages)
	q.closed = append(q.closed, q.open)
	q.open, q.messages, q.entries = nil, 0, 0
}

// add adds a frame with a copy of the payload. While much waits, small frames share a
// buffer, and so a system call.
func (q *frameQueue) add(t frameType, payload []byte) {
	need := headerBytes + len(payload)
	last := len(q.closed) - 1
	if last < 0 || len(q.closed[last].B)+need > frameBytesTarget {
		q.closed = append(q.closed, bufpool.Get(need))
		last++
	}
	b := q.closed[last]
	start := len(b.B)
	b.Grow(need)
	b.B = append(b.B[:start+headerBytes], payload...)
	putHeader(b.B[start:], t, payload)
	q.bytes += need
}

// append adds a whole frame in a buffer of its own.
func (q *frameQueue) append(b *bufpool.Buffer) {
	q.bytes += len(b.B)
	q.closed = append(q.closed, b)
}

// empty reports whether no closed frame waits.
func (q *frameQueue) empty() bool { return len(q.closed) == 0 }

// take hands out the first closed frame, of which sent bytes have been written,
// or nil. It is given back with written.
func (q *frameQueue) take() (b *bufpool.Buffer, sent int) {
	if q.empty() {
		return nil, 0
	}
	b, sent = q.closed[0], q.sent
	// At most a few hundred pointers move: frames are large when many wait.
	last := copy(q.closed, q.closed[1:])
	q.closed[last] = nil
	q.closed, q.sent = q.closed[:last], 0
	return b, sent
}

func (q *frameQueue) written(b *bufpool.Buffer) {
	q.bytes -= len(b.B)
	b.Release()
}

// writeTo writes what the socket takes at once and returns how much that was.
func (q *frameQueue) writeTo(d *mux.Direct) (total int) {
	for !q.empty() {
		n, _ := d.Write(q.closed[0].B[q.sent:]) // whoever writes the rest finds the error, too
		total += n
		q.sent += n
		if q.sent < len(q.closed[0].B) {
			return total
		}
		b, _ := q.take()
		q.written(b)
	}
	return total
}

// clear gives all frames back, those that were taken excepted.
func (q *frameQueue) clear() {
	q.seal()
	for !q.empty() {
		b, _ := q.take()
		b.Release()
	}
	q.bytes = 0
}
