package peer

import (
	"context"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/proa-kv/proa/bufpool"
)

// A call is
//
//	u64 id, u32 timeout in milliseconds, u8 length, verb of that length, body
//
// and its reply
//
//	u64 id, u8 status, body or the text of an error
const (
	callHeadBytes  = 8 + 4 + 1
	replyHeadBytes = 8 + 1

	replyOK    = 0
	replyError = 1 // the handler's
	replyBusy  = 2
)

type call struct {
	id      uint64
	timeout time.Duration
	verb    string
	body    []byte
}

type callResult struct {
	body []byte
	err  error
}

func checkCall(verb string, body []byte) error {
	if len(verb) == 0 || len(verb) > VerbBytesMax {
		return fmt.Errorf("%w: the name of a call has %d bytes, 1 to %d are allowed", ErrTooLarge, len(verb), VerbBytesMax)
	}
	if len(body) > CallBytesMax {
		return fmt.Errorf("%w: a call of %d bytes; the limit is %d", ErrTooLarge, len(body), CallBytesMax)
	}
	return nil
}

func encodeCall(c *call) *bufpool.Buffer {
	b := newFrame(callHeadBytes + len(c.verb) + len(c.body))
	b.B = le.AppendUint64(b.B, c.id)
	b.B = le.AppendUint32(b.B, uint32(max(c.timeout.Milliseconds(), 1)))
	b.B = append(b.B, byte(len(c.verb)))
	b.B = append(b.B, c.verb...)
	b.B = append(b.B, c.body...)
	seal(b, frameCall)
	return b
}

// decodeCall returns a call whose body is a view of p.
func decodeCall(p []byte) (call, error) {
	c := fieldsOf(p)
	out := call{id: c.U64(), timeout: time.Duration(c.U32()) * time.Millisecond}
	out.verb = string(c.Bytes(int(c.U8())))
	if c.Short || len(out.verb) == 0 || len(out.verb) > VerbBytesMax {
		return out, damaged("a call without a valid name")
	}
	out.body = c.Rest()
	if out.timeout <= 0 || out.timeout > CallTimeoutMax {
		out.timeout = CallTimeoutMax
	}
	return out, nil
}

func encodeReply(id uint64, status byte, body []byte) *bufpool.Buffer {
	b := newFrame(replyHeadBytes + len(body))
	b.B = le.AppendUint64(b.B, id)
	b.B = append(b.B, status)
	b.B = append(b.B, body...)
	seal(b, frameReply)
	return b
}

// decodeReply returns the outcome of a call; its body is a copy.
func decodeReply(p []byte) (id uint64, r callResult, err error) {
	c := fieldsOf(p)
	id = c.U64()
	status := c.U8()
	if err := c.whole("reply"); err != nil {
		return 0, r, err
	}
	switch status {
	case replyOK:
		r.body = append([]byte{}, c.B...)
	case replyError:
		r.err = &RemoteError{Text: clip(string(c.B), errorBytesMax)}
	case replyBusy:
		r.err = fmt.Errorf("%w: the other node already runs too many calls; try again", ErrBusy)
	default:
		return 0, r, damaged("unknown reply status %d", status)
	}
	return id, r, nil
}

// timeoutOf returns how long a call may take by its context.
func timeoutOf(ctx context.Context) time.Duration {
	if deadline, ok := ctx.Deadline(); ok {
		return min(time.Until(deadline), CallTimeoutMax)
	}
	return CallTimeoutMax
}

// Call asks a node and waits for the answer, at most until ctx ends, at most
// CallTimeoutMax. The error wraps ErrUnknownPeer, ErrNotConnected, ErrBusy or
// ErrTooLarge where nothing was done, is a *RemoteError where the node's
// handler failed, and otherwise (ErrConnectionLost, ctx's error) leaves open
// whether the call was carried out. body is not kept.
func (t *Transport) Call(ctx context.Context, node uint64, verb string, body []byte) ([]byte, error) {
	if err := checkCall(verb, body); err != nil {
		return nil, err
	}
	p := t.peer(node)
	if p == nil {
		return nil, unknownPeer(node)
	}
	ctx, cancel := context.WithTimeout(ctx, timeoutOf(ctx))
	defer cancel()
	select {
	case p.callSlots <- struct{}{}:
		defer func() { <-p.callSlots }()
	case <-ctx.Done():
		return nil, fmt.Errorf("node %d: %w: %d calls are unanswered", node, ErrBusy, CallsPerPeerMax)
	}
	id, result, err := p.ask(call{timeout: timeoutOf(ctx), verb: verb, body: body})
	if err != nil {
		return nil, fmt.Errorf("node %d: %w", node, err)
	}
	select {
	case r := <-result:
		return r.body, r.err
	case <-ctx.Done():
		p.mu.Lock()
		p.calls.Remove(id)
		p.mu.Unlock()
		return nil, fmt.Errorf("no answer from node %d to %s: %w", node, verb, ctx.Err())
	}
}

// ask sends a call and returns where the result will come.
func (p *peer) ask(c call) (uint64, <-chan callResult, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.link == nil {
		return 0, nil, ErrNotConnected
	}
	if !p.room(headerBytes + callHeadBytes + len(c.verb) + len(c.body)) {
		return 0, nil, fmt.Errorf("%w: too much data is waiting to be sent", ErrBusy)
	}
	result := make(chan callResult, 1)
	c.id = p.calls.Add(result)
	p.frames.append(encodeCall(&c))
	p.push()
	return c.id, result, nil
}

// answered delivers a reply. One that nobody waits for any more is dropped.
func (p *peer) answered(payload []byte) error {
	id, r, err := decodeReply(payload)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if result := p.calls.Get(id); result != nil {
		*result <- r // there is room for one
		p.calls.Remove(id)
	}
	return nil
}

// startCall runs a peer's call on a goroutine of its own.
func (in *inbound) startCall(payload []byte) error {
	c, err := decodeCall(payload)
	if err != nil {
		return err
	}
	select {
	case in.calls <- struct{}{}:
	default:
		return in.reply(c.id, replyBusy, nil)
	}
	c.body = append([]byte{}, c.body...)
	in.t.wg.Go(func() { // the connection's goroutine is counted, so Close still waits
		in.run(c)
		<-in.calls
	})
	return nil
}

// run carries a call out and replies.
func (in *inbound) run(c call) {
	ctx, cancel := context.WithTimeout(in.ctx, c.timeout)
	defer cancel()
	body, err := in.t.handler().Call(ctx, in.from, c.verb, c.body)
	status := byte(replyOK)
	if err == nil && len(body) > CallBytesMax {
		err = fmt.Errorf("%w: the answer has %d bytes; the limit is %d", ErrTooLarge, len(body), CallBytesMax)
	}
	if err != nil {
		status, body = replyError, []byte(clip(err.Error(), errorBytesMax))
	}
	if in.ctx.Err() == nil {
		in.reply(c.id, status, body)
	}
}

// reply writes a reply. If that fails the connection ends.
func (in *inbound) reply(id uint64, status byte, body []byte) error {
	b := encodeReply(id, status, body)
	defer b.Release()
	in.writeMu.Lock()
	defer in.writeMu.Unlock()
	err := in.conn.SetWriteDeadline(time.Now().Add(in.t.cfg.WriteTimeout))
	if err == nil {
		_, err = in.conn.Write(b.B)
	}
	if err != nil {
		in.conn.Close()
		return err
	}
	if p := in.t.peer(in.from.Node); p != nil {
		p.bytesOut.Add(uint64(len(b.B)))
	}
	return nil
}

// serveCall serves a connection that brings a single call.
func (t *Transport) serveCall(c net.Conn, from Identity, version uint16) {
	defer t.drop(c)
	in, cancel := newInbound(t, c, from, version)
	defer cancel()
	request, err := in.readSingleCall()
	if err != nil {
		t.introduced(c)
		t.logHandshake(c, hello{identity: from}, err)
		return
	}
	// While it waits for its turn it may still have to give way to others.
	turn := in.awaitTurn(min(t.cfg.HandshakeTimeout, request.timeout))
	t.introduced(c)
	if !turn {
		in.reply(request.id, replyBusy, nil)
		return
	}
	defer func() { <-t.strangerCalls }()
	t.wg.Go(func() { // this goroutine is counted, so Close still waits
		// The caller sends no more: a byte, or the end, means it is gone.
		io.ReadFull(c, make([]byte, 1))
		cancel()
	})
	in.run(request)
}

// awaitTurn waits for a place among the calls on connections of their own.
func (in *inbound) awaitTurn(d time.Duration) bool {
	t := in.t
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case t.strangerCalls <- struct{}{}:
		return true
	case <-timer.C:
	case <-t.ctx.Done():
	}
	return false
}

func (in *inbound) readSingleCall() (call, error) {
	r := newFrameReader(&deadlineReader{conn: in.conn, timeout: in.t.cfg.HandshakeTimeout})
	defer r.close()
	if in.from.Cluster == 0 {
		r.payloadMax = callHeadBytes + VerbBytesMax + StrangerCallBytesMax
	}
	payload, err := r.expect(frameCall, "a call")
	if err != nil {
		return call{}, err
	}
	out, err := decodeCall(payload)
	out.body = append([]byte{}, out.body...)
	in.conn.SetReadDeadline(time.Time{})
	return out, err
}

// CallAddress asks whatever node is at an address, over a connection of its
// own; where either side has no cluster yet this is the only way. It returns
// the identity of the node that answered, as far as the handshake brought it,
// also along with an error. Errors are those of Call, and *RefusedError. A
// stranger's body is limited to StrangerCallBytesMax.
func (t *Transport) CallAddress(ctx context.Context, address, verb string, body []byte) (Identity, []byte, error) {
	if err := checkCall(verb, body); err != nil {
		return Identity{}, nil, err
	}
	if id := t.identity(); id.Cluster == 0 && len(body) > StrangerCallBytesMax {
		return Identity{}, nil, fmt.Errorf("%w: a call of %d bytes from an unknown node; the limit is %d", ErrTooLarge, len(body), StrangerCallBytesMax)
	}
	ctx, cancel := context.WithTimeout(ctx, timeoutOf(ctx))
	defer cancel()
	c, a, err := t.dial(ctx, address, kindCall, 0)
	if err != nil {
		return a.identity, nil, err
	}
	defer t.drop(c)
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	r, err := exchange(c, call{id: 1, timeout: timeoutOf(ctx), verb: verb, body: body})
	if err == nil {
		return a.identity, r.body, r.err
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return a.identity, nil, fmt.Errorf("no answer from %s to %s: %w", address, verb, err)
}

// exchange sends one call and waits for its reply.
func exchange(c net.Conn, request call) (callResult, error) {
	b := encodeCall(&request)
	defer b.Release()
	if _, err := c.Write(b.B); err != nil {
		return callResult{}, fmt.Errorf("%w (%v)", ErrConnectionLost, err)
	}
	r := newFrameReader(c)
	defer r.close()
	t, payload, err := r.next()
	if err != nil {
		return callResult{}, fmt.Errorf("%w (%w)", ErrConnectionLost, err)
	}
	if t != frameReply {
		return callResult{}, damaged("a frame of type %d instead of a reply", t)
	}
	_, result, err := decodeReply(payload)
	return result, err
}
