package peer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// A snapshot's connection carries the sender's header; the receiver's token,
// which says from where to send; chunks and an end; and the receiver's word
// that it is done, or a text from whichever side fails. Both sides send
// frameAlive at an interval whenever they can, because each may be slow for a
// good reason: waiting for its turn, for the pacer, for a disk. So a side that
// is silent is dead.

// courier is one side of a transfer.
type courier struct {
	t       *Transport
	conn    net.Conn
	reader  *frameReader
	writeMu sync.Mutex // held while a frame is written
	gone    chan struct{}
	goneErr error // why; valid after gone
	once    sync.Once
}

func newCourier(t *Transport, c net.Conn) *courier {
	return &courier{
		t: t, conn: c, gone: make(chan struct{}),
		reader: newFrameReader(&deadlineReader{conn: c, timeout: t.cfg.SilenceTimeout}),
	}
}

// end breaks the connection off for a reason; the first counts.
func (c *courier) end(err error) {
	c.once.Do(func() {
		c.goneErr = err
		close(c.gone)
		c.conn.Close()
	})
}

// write sends one frame. The deadline is extended by whoever receives from the
// other side.
func (c *courier) write(t frameType, payload []byte) error {
	var h [headerBytes]byte
	putHeader(h[:], t, payload)
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	if err := c.extend(); err != nil {
		return err
	}
	pieces := net.Buffers{h[:], payload}
	_, err := pieces.WriteTo(c.conn)
	return err
}

func (c *courier) extend() error {
	return c.conn.SetWriteDeadline(time.Now().Add(c.t.cfg.WriteTimeout))
}

// breathe tells the other side that this one lives, until stop is closed.
func (c *courier) breathe(stop <-chan struct{}) {
	tick := time.NewTicker(c.t.cfg.SilenceTimeout / 4)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-stop:
			return
		case <-c.gone:
			return
		}
		if err := c.write(frameAlive, nil); err != nil {
			c.end(err)
			return
		}
	}
}

// SendSnapshot sends a snapshot to a node over a connection of its own, and
// returns nil when the node's handler has installed it.
//
// header goes first, at most SnapshotHeaderBytesMax bytes. export is called
// once, with the token from which the receiver wants to resume (valid during
// the call); it calls write for each chunk, of at most SnapshotChunkBytesMax
// bytes, which arrives as that chunk. write waits for its share of
// Config.SnapshotBytesPerSecond and for the receiver, keeps nothing of the
// chunk, and fails when the transfer has come to an end; export then returns
// that error.
//
// The error is a *RemoteError where the receiver's handler failed, export's own
// where that did, and otherwise tells of the connection or of ctx. A transfer
// that broke off can be sent again: the receiver may resume.
func (t *Transport) SendSnapshot(ctx context.Context, node uint64, header []byte,
	export func(token []byte, write func(chunk []byte) error) error) error {
	p := t.peer(node)
	if p == nil {
		return unknownPeer(node)
	}
	if len(header) > SnapshotHeaderBytesMax {
		return fmt.Errorf("%w: a snapshot header of %d bytes; the limit is %d", ErrTooLarge, len(header), SnapshotHeaderBytesMax)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(p.ctx, func() { cancel(errRetired) })() // RemovePeer and Close
	conn, _, err := t.dial(ctx, p.addressNow(), kindSnapshot, node)
	if err != nil {
		return err
	}
	defer t.drop(conn)
	s := &sender{courier: newCourier(t, conn), token: make(chan []byte, 1)}
	defer context.AfterFunc(ctx, func() { s.end(context.Cause(ctx)) })()
	if err := s.run(ctx, header, export); err != nil {
		return fmt.Errorf("snapshot to node %d: %w", node, err)
	}
	return nil
}

// errRetired ends a transfer to a node that was taken out of the address book.
var errRetired = errors.New("the node was removed, or the transport closed")

// sender is the sending side of a transfer.
type sender struct {
	*courier
	token chan []byte
}

// errDone ends a transfer that went well.
var errDone = errors.New("done")

func (s *sender) run(ctx context.Context, header []byte, export func([]byte, func([]byte) error) error) error {
	stop := make(chan struct{})
	var helpers sync.WaitGroup
	helpers.Go(s.listen)
	helpers.Go(func() { s.breathe(stop) })
	err := s.transfer(ctx, header, export)
	close(stop)
	if err != nil {
		s.end(err)
	}
	<-s.gone // by listen, at the latest when the receiver falls silent
	helpers.Wait()
	if err == nil {
		err = s.goneErr
	}
	if err == errDone {
		return nil
	}
	return err
}

// transfer sends everything. Where the connection failed under it, listen gets
// a chance to say why.
func (s *sender) transfer(ctx context.Context, header []byte, export func([]byte, func([]byte) error) error) error {
	if err := s.write(frameSnapshotHeader, header); err != nil {
		return s.reason(err)
	}
	var token []byte
	select {
	case token = <-s.token:
	case <-s.gone:
		return s.goneErr
	}
	var failed error // of the transfer, while export may wrap it as it likes
	err := export(token, func(chunk []byte) error {
		if failed == nil {
			failed = s.chunk(ctx, chunk)
		}
		return failed
	})
	if failed != nil {
		return failed
	}
	if err != nil {
		s.write(frameSnapshotError, []byte(clip(err.Error(), errorBytesMax)))
		return err
	}
	if err := s.write(frameSnapshotEnd, nil); err != nil {
		return s.reason(err)
	}
	return nil
}

func (s *sender) chunk(ctx context.Context, chunk []byte) error {
	if len(chunk) > SnapshotChunkBytesMax {
		return fmt.Errorf("%w: a chunk of %d bytes; the limit is %d", ErrTooLarge, len(chunk), SnapshotChunkBytesMax)
	}
	if err := s.t.pacer.wait(ctx, len(chunk)); err != nil {
		return context.Cause(ctx)
	}
	select {
	case <-s.gone:
		return s.goneErr
	default:
	}
	if err := s.write(frameSnapshotChunk, chunk); err != nil {
		return s.reason(err)
	}
	return nil
}

// reason returns why a write failed: what the receiver said, if it said
// something, or else the failure itself. The wait is short, since a broken
// connection ends listen.
func (s *sender) reason(err error) error {
	timer := time.NewTimer(time.Second)
	defer timer.Stop()
	select {
	case <-s.gone:
		return s.goneErr
	case <-timer.C:
		return err
	}
}

// listen reads what the receiver says until the transfer is over.
func (s *sender) listen() {
	defer s.reader.close()
	for resumed := false; ; {
		t, payload, err := s.reader.next()
		switch {
		case err != nil:
			s.end(fmt.Errorf("connection lost: %w", noEOF(err)))
			return
		case t == frameAlive:
			err = s.extend()
		case t == frameSnapshotResume && !resumed:
			resumed = true
			s.token <- append([]byte{}, payload...)
		case t == frameSnapshotDone && resumed:
			s.end(errDone)
			return
		case t == frameSnapshotError:
			err = &RemoteError{Text: string(payload)}
		default:
			err = damaged("a frame of type %d from the receiver of a snapshot", t)
		}
		if err != nil {
			s.end(err)
			return
		}
	}
}

// Incoming is a snapshot that is being received. It is for one goroutine, and
// of no use after the handler has returned.
type Incoming struct {
	c       *courier
	resumed bool
	err     error // of Next, once there was one
}

// Resume asks the sender to begin, at a token of the handler's that the
// sender's export understands; nil: at the beginning. It must be called once,
// before Next. token has at most SnapshotHeaderBytesMax bytes and is not kept.
func (s *Incoming) Resume(token []byte) error {
	if s.resumed {
		return errors.New("peer: Resume was called twice")
	}
	if len(token) > SnapshotHeaderBytesMax {
		return fmt.Errorf("%w: a resume token of %d bytes; the limit is %d", ErrTooLarge, len(token), SnapshotHeaderBytesMax)
	}
	s.resumed = true
	return s.c.write(frameSnapshotResume, token)
}

// Next returns the next chunk, just as the sender's export wrote it; it is
// valid until the following call. After the last one the error is io.EOF. Any
// other means that the snapshot is not whole; that the sender gave up
// (*RemoteError), or the connection broke.
func (s *Incoming) Next() ([]byte, error) {
	if !s.resumed {
		return nil, errors.New("peer: Next was called before Resume")
	}
	for s.err == nil {
		t, payload, err := s.c.reader.next()
		switch {
		case err != nil:
			s.err = fmt.Errorf("peer: snapshot transfer was interrupted: %w", noEOF(err))
		case t == frameSnapshotChunk:
			return payload, nil
		case t == frameSnapshotEnd:
			s.err = io.EOF
		case t == frameSnapshotError:
			s.err = &RemoteError{Text: printable(string(payload))}
		case t != frameAlive:
			s.err = damaged("a frame of type %d from the sender of a snapshot", t)
		}
	}
	return nil, s.err
}

// serveSnapshot receives one transfer.
func (t *Transport) serveSnapshot(conn net.Conn, from Identity) {
	defer t.drop(conn)
	c := newCourier(t, conn)
	defer c.reader.close()
	stop := make(chan struct{})
	t.wg.Go(func() { c.breathe(stop) }) // this goroutine is counted, so Close still waits
	err := c.receiveSnapshot(t, from)
	close(stop)
	if t.ctx.Err() != nil {
		return
	}
	if err == nil {
		err = c.write(frameSnapshotDone, nil)
	} else if c.write(frameSnapshotError, []byte(clip(err.Error(), errorBytesMax))) == nil {
		c.linger()
	}
	if err != nil {
		t.transfers.Warn(t.log, "snapshot was not received", "node", from.Node, "err", err)
	}
}

func (c *courier) receiveSnapshot(t *Transport, from Identity) error {
	payload, err := c.reader.expect(frameSnapshotHeader, "a snapshot's header")
	if err != nil {
		return err
	}
	header := append([]byte{}, payload...)
	select {
	case t.snapshotsHeld <- struct{}{}:
		defer func() { <-t.snapshotsHeld }()
	default:
		return fmt.Errorf("%w: %d snapshots are already waiting to be received by this node; try again later", ErrBusy, snapshotsWaitingMax)
	}
	select {
	case t.snapshots <- struct{}{}:
		defer func() { <-t.snapshots }()
	case <-c.gone:
		return c.goneErr
	case <-t.ctx.Done():
		return ErrClosed
	}
	return t.handler().Snapshot(from.Node, header, &Incoming{c: c})
}

// linger reads on for a moment after an error was sent: closing while bytes
// wait to be read would reset the connection, and might take the error's text
// from the sender.
func (c *courier) linger() {
	if w, ok := c.conn.(interface{ CloseWrite() error }); ok && w.CloseWrite() == nil {
		c.conn.SetReadDeadline(time.Now().Add(c.t.cfg.HandshakeTimeout))
		io.Copy(io.Discard, c.conn)
	}
}

// DialClient opens a stream on which a client's bytes can be forwarded to a
// node, whose handler serves it as a client's connection. The caller closes it.
// The error wraps ErrUnknownPeer, or is one of connecting or of the handshake.
func (t *Transport) DialClient(ctx context.Context, node uint64) (net.Conn, error) {
	p := t.peer(node)
	if p == nil {
		return nil, unknownPeer(node)
	}
	c, _, err := t.dial(ctx, p.addressNow(), kindClient, node)
	if err != nil {
		return nil, err
	}
	t.release(c) // the caller's from now on
	return c, nil
}
