package peer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// inbound is an accepted connection that carries frames.
type inbound struct {
	t       *Transport
	conn    net.Conn
	from    Identity
	version uint16
	ctx     context.Context // ends with the connection
	calls   chan struct{}   // one for each call that runs

	heard    atomic.Int64          // of the last frame, nanoseconds since Transport.began
	expelled atomic.Pointer[error] // why the connection was closed here; nil: it was not

	writeMu sync.Mutex // held while a reply is written
}

// acceptLoop accepts until the listener is closed.
func (t *Transport) acceptLoop() {
	pause := time.Duration(0)
	for {
		c, err := t.listener.Accept()
		if err == nil {
			pause = 0
			if !t.accept(c) {
				return
			}
			continue
		}
		if t.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			return
		}
		// Out of file descriptors, most likely: they will come back.
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		t.accepts.Log(t.log, slog.LevelError, "cannot accept a connection on the peer port", "err", err, "retry_in", pause)
		select {
		case <-time.After(pause):
		case <-t.ctx.Done():
			return
		}
	}
}

// accept serves a connection on a goroutine of its own. If too many have not
// introduced themselves yet the oldest of them gives way, so that silent ones
// keep nobody out.
func (t *Transport) accept(c net.Conn) bool {
	if !t.track(c) {
		c.Close()
		return false
	}
	t.mu.Lock()
	if t.accepted >= t.cfg.InboundMax {
		t.mu.Unlock()
		t.drop(c)
		t.foreigners.Warn(t.log, "too many connections on the peer port; closed a new one", "limit", t.cfg.InboundMax)
		return true
	}
	t.accepted++
	t.handshakes = append(t.handshakes, c)
	var evicted net.Conn
	if len(t.handshakes) > min(handshakesMax, (t.cfg.InboundMax+1)/2) {
		evicted = t.handshakes[0]
		t.handshakes = slices.Delete(t.handshakes, 0, 1)
	}
	t.mu.Unlock()
	if evicted != nil {
		evicted.Close()
	}
	return t.spawn(func() {
		t.serve(c)
		t.mu.Lock()
		t.accepted--
		t.mu.Unlock()
	})
}

func (t *Transport) serve(c net.Conn) {
	h, version, err := t.answerHello(c)
	if err != nil {
		answer := t.answerForeign(c, err)
		t.logHandshake(c, h, err)
		if answer != nil {
			dismiss(c, answer)
		}
		t.introduced(c)
		t.drop(c)
		return
	}
	if h.kind != kindCall { // that has to bring its call, first
		t.introduced(c)
	}
	t.setOptions(c, h.kind)
	switch h.kind {
	case kindRaft:
		t.serveRaft(c, h.identity, version)
	case kindCall:
		t.serveCall(c, h.identity, version)
	case kindSnapshot:
		t.serveSnapshot(c, h.identity)
	case kindClient:
		t.serveClient(c, h.identity)
	}
}

// answerForeign returns what to answer to a connection whose first bytes, which
// err holds, are no handshake; nil for nothing. It reads more of them, which err
// then holds too, until that is known.
func (t *Transport) answerForeign(c net.Conn, err error) []byte {
	var foreign *foreignError
	if t.cfg.Foreign == nil || !errors.As(err, &foreign) {
		return nil
	}
	for {
		answer, more := t.cfg.Foreign(foreign.first)
		if !more || len(foreign.first) >= foreignBytesMax {
			return answer
		}
		b := make([]byte, foreignBytesMax)
		n, err := c.Read(b[copy(b, foreign.first):])
		foreign.first = b[:len(foreign.first)+n]
		if err != nil {
			return nil
		}
	}
}

// dismiss sends a last answer and waits for the other side to close: closing at
// once would reset the connection where there is unread input, and the answer
// might be lost.
func dismiss(c net.Conn, answer []byte) {
	_ = c.SetDeadline(time.Now().Add(dismissTime))
	if _, err := c.Write(answer); err != nil {
		return
	}
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
		_, _ = io.CopyN(io.Discard, c, dismissBytes)
	}
}

// introduced takes a connection out of those that may have to give way.
func (t *Transport) introduced(c net.Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := slices.Index(t.handshakes, c); i >= 0 {
		t.handshakes = slices.Delete(t.handshakes, i, i+1)
	}
}

// logHandshake logs why an accepted connection came to nothing. Whoever can
// reach the port can cause such lines, so they are limited.
func (t *Transport) logHandshake(c net.Conn, h hello, err error) {
	if t.ctx.Err() != nil || err == io.ErrUnexpectedEOF || errors.Is(err, net.ErrClosed) {
		return // a port scan, a health check, or the end
	}
	limit, text := &t.foreigners, "closed a non-peer connection on the peer port"
	if _, refused := errors.AsType[*RefusedError](err); refused {
		limit, text = &t.refusals, "refused a peer connection"
	}
	limit.Log(t.log, level(err), text, "remote", c.RemoteAddr().String(), "node", h.identity.Node, "err", err)
}

func newInbound(t *Transport, c net.Conn, from Identity, version uint16) (*inbound, context.CancelFunc) {
	ctx, cancel := context.WithCancel(t.ctx)
	in := &inbound{t: t, conn: c, from: from, version: version, ctx: ctx, calls: make(chan struct{}, CallsRunningMax)}
	return in, cancel
}

// serveRaft receives on a peer's Raft connection until it ends.
func (t *Transport) serveRaft(c net.Conn, from Identity, version uint16) {
	in, cancel := newInbound(t, c, from, version)
	defer cancel()
	node := from.Node
	t.mu.Lock()
	older := t.inbound[node]
	t.inbound[node] = in
	t.mu.Unlock()
	if older != nil {
		older.conn.Close() // the peer gave it up, or it would not have dialled
	}
	if p := t.peer(node); p != nil {
		p.retry()
	}
	err := in.receive()
	if reason := in.expelled.Load(); reason != nil {
		err = *reason
	}
	t.mu.Lock()
	replaced := t.inbound[node] != in
	if !replaced {
		delete(t.inbound, node)
	}
	t.mu.Unlock()
	if t.ctx.Err() == nil && !replaced {
		t.departures.Warn(t.log, "connection from a peer ended", "node", node, "remote", c.RemoteAddr().String(), "err", err)
	}
	t.drop(c) // last: the peer dials anew when it sees this
}

// receive hands frames to the handler until the connection ends.
func (in *inbound) receive() error {
	source := &deadlineReader{conn: in.conn}
	r := newFrameReader(source)
	defer r.close()
	var d decoder
	h := in.t.handler()
	for {
		kind, payload, err := r.next()
		if err != nil {
			if isTimeout(err) {
				err = errors.New("peer: no message received for too long")
			}
			return err
		}
		in.heard.Store(int64(time.Since(in.t.began)))
		if p := in.t.peer(in.from.Node); p != nil {
			p.bytesIn.Add(uint64(headerBytes + len(payload)))
		}
		switch kind {
		case frameMessages:
			messages, err := d.decode(in.version, payload)
			if err != nil {
				return err
			}
			h.Messages(in.from.Node, messages)
			d.reset()
		case frameEngine:
			if err := h.Frame(in.from.Node, bytes.Clone(payload)); err != nil {
				return err
			}
		case frameReport:
			source.timeout = in.t.cfg.SilenceTimeout // the next is due
			h.Report(in.from.Node, payload)
		case frameCall:
			if err := in.startCall(payload); err != nil {
				return err
			}
		default:
			return damaged("a frame of type %d on a Raft connection", kind)
		}
	}
}

// serveClient hands a client stream over.
func (t *Transport) serveClient(c net.Conn, from Identity) {
	select {
	case t.clientStreams <- struct{}{}:
		defer func() { <-t.clientStreams }()
	default:
		t.drop(c)
		return
	}
	defer t.release(c)
	t.handler().ServeClient(from.Node, c)
}
