package server

import (
	"context"
	"errors"
	"time"

	"github.com/proa-kv/proa/access"
	"github.com/proa-kv/proa/bufpool"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/internal/wrongport"
	"github.com/proa-kv/proa/protocol"
)

// Protocol is what the clients of a listener speak, where that is not the native
// protocol.
type Protocol interface {
	// Scheme stands before the protocol's addresses in a STATUS.
	Scheme() string
	// Port is the protocol's in the answers to callers at the wrong port.
	Port() wrongport.Port
	// Attach returns the Translator of a new connection.
	Attach(c *Conn) Translator
}

// Translator turns the input of one connection into native requests, which
// Processor.Dispatch carries out, and the native replies into output. The
// protocol has no request ids: replies are sent in the order of the requests.
// native is the exception, and the only Translator to which that does not apply.
//
// A connection is read by one thread at a time, the reader, and written by one,
// the writer, which may be another.
type Translator interface {
	// Consume carries out the whole requests in b and returns how many bytes they
	// took. It stops at a partial request, of which need then says the size as far
	// as known, where reading must pause or end, and where the processor's credit
	// is spent. The reader calls it, as it does the next five.
	Consume(p *Processor, b []byte) (taken, need int)
	// Continues reports whether Consume has work to do without further input.
	Continues() bool
	// Sized reports whether need, as Consume has returned it, is final.
	Sized() bool
	// Forget drops every view of requests that have been carried out.
	Forget()
	// DropInput drops what is known of a request that is not whole.
	DropInput()
	// Leave releases what the reader holds; nothing more will be read.
	Leave()
	// Last returns the native frames that send answer, as it stands, as the last
	// reply.
	Last(answer []byte) []byte

	// Waits reports whether the reader has to wait for a reply. From any thread.
	Waits() bool
	// AllAnswered reports whether every request has been answered. From any thread.
	AllAnswered() bool
	// Next reports whether the reply to a native request is part of the next to
	// be sent. Such a reply must not wait for room: others may wait for it. From
	// any thread.
	Next(id uint64) bool

	// Render makes output of native frames, which are all whole, or returns nil
	// where there is nothing to send yet. The caller keeps frames. The writer
	// calls it.
	Render(frames *bufpool.Buffer) *bufpool.Buffer
	// Error is the protocol's form of an error that ends the connection. It counts
	// the error where Last does not.
	Error(id uint64, s protocol.Status, retryMillis uint32, message string) []byte
	// Release releases the rest, when nobody reads or writes any more.
	Release()
}

// Conn is a connection, as a Translator has it.
type Conn = conn

// Processor carries out native requests for one thread.
type Processor = processor

// Options are what a Translator asks for beside a request.
type Options struct {
	// RetryFull: where a queue is full the request is not refused. It was not
	// answered then, and Effects says so.
	RetryFull bool
	// RetryNoLeader: likewise where its shard has no leader.
	RetryNoLeader bool
	// InOrder: reads go through the log, behind the connection's writes.
	InOrder bool
	// ReplyBytes is how many bytes of the reply are not in the request, at most.
	ReplyBytes int
}

// Effects are what became of a request.
type Effects struct {
	SentOn bool // to another node, or parts of it to several
	Retry  bool // not carried out, as Options allow; it may be tried again
}

// Dispatch carries out a native request of c. The reply is a frame in c's output,
// now or later, which Translator.Render gets.
func (p *processor) Dispatch(c *conn, f *protocol.Frame, o Options) Effects {
	return p.dispatch(c, f, o)
}

// putBytes is what a PUT takes beside its key and value, at most.
const putBytes = 64

// Put is Dispatch for a PUT that is not encoded yet, whose value is not copied
// once more unless another node has to have it.
func (p *processor) Put(c *conn, id uint64, m *protocol.Put, o Options) Effects {
	shard := p.srv.shardOf(m.Key)
	need := access.Write
	if m.Flags&protocol.WriteReturnPrevious != 0 {
		need = access.ReadWrite
	}
	if !p.srv.draining.Load() && p.srv.otherLeader(shard) == 0 && c.grant.Load().permit.May(m.Key, need) {
		if p.extended {
			p.clearExtensions()
		}
		p.cmd = command.Command{
			Kind: command.Put, Flags: command.Flags(m.Flags), Key: m.Key, Value: m.Value, TTLMillis: m.TTLMillis,
			Ops: p.cmd.Ops[:0], Else: p.cmd.Else[:0], Compares: p.cmd.Compares[:0],
		}
		err := p.enqueue(c, id, protocol.OpPut, shard, o)
		if err == nil || !errors.Is(err, command.ErrNotLeader) {
			p.counts.add(protocol.OpPut)
			if err != nil {
				return p.refuseOrRetry(c, id, err, o)
			}
			return Effects{}
		}
	}
	body := bufpool.Get(len(m.Key) + len(m.Value) + putBytes)
	defer body.Release()
	f := protocol.Frame{Header: protocol.Header{Code: uint8(protocol.OpPut), ID: id}, Body: m.AppendTo(body.B)}
	return p.Dispatch(c, &f, o)
}

// Now is the clock of expiry at the beginning of the iteration, in Unix ms.
func (p *processor) Now() uint64 { return p.now }

// Count adds to the counter of a command, which the protocol numbers.
func (p *processor) Count(command uint8, n uint64) { p.counts.calls[command].Add(n) }

// RepliesFull reports whether there is no room for a reply of n bytes that cannot
// wait.
func (p *processor) RepliesFull(c *conn, n int) bool {
	return n > LargeBytes && p.srv.admission.repliesFull(c.Backlog()+n)
}

// Append appends a frame to c's output.
func (p *processor) Append(c *conn, code uint8, id uint64, body []byte) {
	c.mu.Lock()
	out := c.output()
	out.Grow(protocol.HeaderBytes + len(body))
	start := len(out.B)
	out.B = protocol.End(append(protocol.Begin(out.B, code, protocol.FlagReply, id), body...), start)
	p.touch(c)
	c.mu.Unlock()
}

// ID is the connection's number.
func (c *conn) ID() uint64 { return c.id }

// Descriptor is that of its socket, or 0 where Go's net package has it.
func (c *conn) Descriptor() int { return c.fd }

// Remote names the peer.
func (c *conn) Remote() string { return c.socket.remote(c) }

// Translator is the connection's.
func (c *conn) Translator() Translator { return c.translator }

// IdleMillis is how long the peer has sent nothing by now, in Unix ms.
func (c *conn) IdleMillis(now int64) int64 { return max(0, now-c.active.Load()) }

// Paused reports whether nothing is read until the connection is within its bounds
// again.
func (c *conn) Paused() bool { return c.paused.Load() }

// Stopped reports whether nothing more may be read. For the reader.
func (c *conn) Stopped() bool { return c.refused }

// Stop has nothing more read. For the reader.
func (c *conn) Stop() { c.refused = true }

// Pause stops reading until Translator.Waits says false and all else allows it,
// which may be so already.
func (c *conn) Pause() {
	c.paused.Store(true)
	if c.caughtUp() {
		c.paused.Store(false) // nobody else would notice
	}
}

// PauseIfOverloaded stops reading where the connection has reached a bound.
func (c *conn) PauseIfOverloaded(p *processor) {
	if c.overloaded(p.backlog) {
		c.pause()
	}
}

// CloseAfterReplies closes the connection when everything asked is answered and
// sent. Nothing more must be read.
func (c *conn) CloseAfterReplies() {
	c.mu.Lock()
	c.closing = true
	c.mu.Unlock()
	c.SendOutput()
}

// AwaitQueue stops reading for a moment: a queue is full that the request at the
// front of the input has to go into.
func (c *conn) AwaitQueue() {
	// In this order: retryQueue, of an earlier wait, may come in between, and must not
	// end this one before it has begun.
	c.paused.Store(true)
	c.awaitsQueue.Store(true)
	c.srv.delivery.retryLater(c)
	// The queue may be another node's, or have been emptied just now.
	time.AfterFunc(retryBusyMillis*time.Millisecond, c.retryQueue)
}

// retryQueue ends what AwaitQueue has begun. From any thread.
func (c *conn) retryQueue() {
	if c.awaitsQueue.Swap(false) {
		c.unpause()
	}
}

// Config is the server's configuration, with defaults. It must not be changed.
func (s *Server) Config() *Config { return &s.cfg }

// Backend is what the server serves.
func (s *Server) Backend() Backend { return s.backend }

// Address is that of the first TCP listener of the native protocol, or "".
func (s *Server) Address() string {
	if a := s.address.Load(); a != nil {
		return *a
	}
	return ""
}

// Draining reports whether the server is shutting down.
func (s *Server) Draining() bool { return s.draining.Load() }

// Conns is how many connections of clients there are.
func (s *Server) Conns() int { return s.conns.len() }

// EachConn calls f for every connection of a client.
func (s *Server) EachConn(f func(*Conn)) { s.conns.each(f) }

// CountInput counts n bytes more of requests that are not carried out among the
// input of all connections.
func (s *Server) CountInput(n int) { s.admission.addInput(n) }

// ClaimInput is CountInput that returns false, with nothing counted, where there
// is too much already.
func (s *Server) ClaimInput(n int) bool {
	if s.admission.addInput(n) {
		return true
	}
	s.admission.addInput(-n)
	return false
}

// RepliesFull reports whether the memory for large replies is used up.
func (s *Server) RepliesFull() bool { return s.admission.replies.full() }

// CountError counts an error among those that clients were sent.
func (s *Server) CountError(status protocol.Status) { s.counters.errors.add(status) }

// Go runs f, which must return soon after its context has ended, unless the server
// is closing.
func (s *Server) Go(f func(context.Context)) bool {
	if !s.upstreams.begin(1) {
		return false
	}
	go func() {
		defer s.upstreams.running.Done()
		f(s.upstreams.ctx)
	}()
	return true
}
