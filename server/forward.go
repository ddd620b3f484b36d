package server

import (
	"fmt"
	"net"
	"time"

	"github.com/proa-kv/proa/bufpool"
	"github.com/proa-kv/proa/protocol"
)

// Forwarding: a request that this node may not answer by itself goes to the
// node that leads its shard, over an upstream, and the reply comes back with
// the request's own id and with the extensions LEADER and EPOCH. It is one hop
// at most: what comes from another node (ServeForwarded) is answered with
// NOT_LEADER where it would have to go on.
//
// A request is handed to an upstream's writer without waiting, and each writer
// is woken once an iteration (executor.sendAll). Replies are put into the
// connection's output by the upstream's reader.

// ServeForwarded takes over c, a stream that another node has opened with
// Backend.Forward, as a client connection that forwards nothing and does not
// count against ConnectionsMax. It returns at once; the server closes c.
func (s *Server) ServeForwarded(from uint64, c net.Conn) { s.side.admitForwarded(from, c) }

// elsewhere returns the node to which a request of c for shard can be sent on,
// or 0.
func (s *Server) elsewhere(c *conn, shard int) uint64 {
	if c.forwarded {
		return 0
	}
	return s.otherLeader(shard)
}

// otherLeader returns the node that leads shard if it is known and another
// one, else 0.
func (s *Server) otherLeader(shard int) uint64 {
	if node := s.backend.Leader(shard); node != s.cfg.Node {
		return node
	}
	return 0
}

// notLeader is the refusal of what only shard's leader can do.
func (s *Server) notLeader(shard int) *refusal {
	r := &refusal{status: protocol.StatusNotLeader, retryMillis: retryLeaderMillis, leader: s.otherLeader(shard)}
	if r.leader != 0 {
		r.message = fmt.Sprintf("node %d leads the shard", r.leader)
	} else {
		r.message = "the shard has no leader at the moment; try again"
	}
	return r
}

// request is what is needed to send a request on.
type request struct {
	c          *conn
	op         protocol.Opcode
	id         uint64
	extensions []byte // without their length
	body       []byte
	deadline   int64  // Unix ms
	charge     uint32 // counted among c's bytes in flight
	epoch      uint64 // goes with the reply; 0: none
}

// forward sends r to the node that leads shard, or refuses it. r has been
// counted as in flight. It reports whether r is to be tried again instead, as o
// allows, and then does not count any more.
func (e *executor) forward(r *request, shard int, o Options) (retry bool) {
	s := e.srv
	x := protocol.Extensions{Epoch: r.epoch}
	node := s.elsewhere(r.c, shard)
	if node == 0 && o.RetryNoLeader && s.backend.Leader(shard) == 0 {
		r.c.end(r.charge)
		return true
	}
	if node == 0 {
		s.refuse(r.c, r.id, r.charge, &x, s.notLeader(shard), &e.touched)
		return false
	}
	left := time.Until(time.UnixMilli(r.deadline))
	k := &call{write: writes(r.op), frame: bufpool.Get(protocol.HeaderBytes + 2 + len(r.extensions) + len(r.body))}
	k.sink = &relay{c: r.c, id: r.id, node: node, charge: r.charge, write: k.write, epoch: s.backend.Epoch()}
	k.frame.B = appendRequest(k.frame.B, r, uint32(max(left.Milliseconds(), 1)))
	if r.c.translated {
		k.sink.(*relay).keep(k.frame, shard, r.deadline)
	}
	if bad := e.send(k, node, left); bad != nil {
		k.sink.(*relay).forget()
		if bad.status == protocol.StatusBusy && o.RetryFull {
			r.c.end(r.charge)
			return true
		}
		s.refuse(r.c, r.id, r.charge, &x, bad, &e.touched)
	}
	return false
}

// appendRequest appends r as it came, but with a request id still to be filled
// in, and with what is left of its deadline.
func appendRequest(b []byte, r *request, leftMillis uint32) []byte {
	if len(r.extensions) == 0 {
		return protocol.End(append(protocol.Begin(b, uint8(r.op), 0, 0), r.body...), 0)
	}
	b = protocol.Begin(b, uint8(r.op), protocol.FlagExtensions, 0)
	b = append(b, byte(len(r.extensions)), byte(len(r.extensions)>>8))
	at := len(b)
	b = append(b, r.extensions...)
	protocol.SetDeadline(b[at:], leftMillis)
	return protocol.End(append(b, r.body...), 0)
}

// send queues k for a node, whose writer is woken at the next sendAll. On a
// refusal the sink receives nothing.
func (e *executor) send(k *call, node uint64, timeout time.Duration) *refusal {
	l, r := e.srv.upstreams.to(node).send(k, timeout)
	if r != nil {
		k.frame.Release()
		return r
	}
	e.srv.counters.forwarded.Add(1)
	for _, have := range e.writers {
		if have == l {
			return nil
		}
	}
	e.writers = append(e.writers, l)
	return nil
}

// relay passes the reply to one request on to its client.
type relay struct {
	c      *conn
	id     uint64
	node   uint64 // that answers
	charge uint32
	write  bool
	begun  bool // a part of the reply has been passed on
	ended  bool
	epoch  uint64 // of this node's slot map

	// Of a client that cannot be asked to retry: see retry.
	request         *bufpool.Buffer // its own reference; nil: none, or not needed any more
	shard           int
	deadline        int64         // Unix ms
	leaderWaitUntil int64         // Unix ms: how long to look for another leader
	delay           time.Duration // before the last attempt
}

// keep holds on to the request, to send it again.
func (r *relay) keep(request *bufpool.Buffer, shard int, deadline int64) {
	request.Retain()
	r.request, r.shard, r.deadline = request, shard, deadline
	r.leaderWaitUntil = min(deadline, time.Now().Add(LeaderWait).UnixMilli())
}

// forget releases the request.
func (r *relay) forget() {
	if r.request != nil {
		r.request.Release()
		r.request = nil
	}
}

// LeaderWait is how long a request of a client that cannot be asked to retry
// waits for a shard to get another leader.
const LeaderWait = 2 * time.Second

// retry sends the request again in a while, if there is time, where the other
// node has definitely not carried it out: it was too busy, or does not lead the
// shard any more. The clients of Redis do not know of that; until it is
// answered they are slowed down by the bounds of their connection.
func (r *relay) retry(s protocol.Status) bool {
	until := r.leaderWaitUntil
	if s == protocol.StatusBusy {
		until = r.deadline
	}
	if r.request == nil || !s.Retry() || s.Outcome() != protocol.NotDone || time.Now().UnixMilli() >= until {
		return false
	}
	r.delay = min(max(2*r.delay, retryBusyMillis*time.Millisecond), retryDelayMax)
	time.AfterFunc(r.delay, r.sendAgain)
	return true
}

// retryDelayMax bounds the time between two attempts, which doubles.
const retryDelayMax = 500 * time.Millisecond

func (r *relay) sendAgain() {
	s := r.c.srv
	switch leader := s.backend.Leader(r.shard); leader {
	case 0:
		if r.retry(protocol.StatusNotLeader) {
			return
		}
	case s.cfg.Node: // to be tried from the beginning, which only the client can do
		r.leaderWaitUntil = 0
	default:
		r.node = leader
	}
	k := &call{sink: r, write: r.write, frame: bufpool.Get(len(r.request.B))}
	k.frame.B = append(k.frame.B, r.request.B...)
	l, bad := s.upstreams.to(r.node).send(k, max(time.Until(time.UnixMilli(r.deadline)), time.Millisecond))
	if bad == nil {
		l.wakeWriter()
		return
	}
	k.frame.Release()
	if !r.retry(bad.status) {
		var t touched
		r.refuse(bad, &protocol.Extensions{Epoch: r.epoch}, &t)
		t.send()
	}
}

// frame appends one frame of the reply to the client's output.
func (r *relay) frame(f *protocol.Frame, x *protocol.Extensions, t *touched) {
	if r.ended {
		return
	}
	marks := protocol.Extensions{Leader: r.node, Epoch: max(r.epoch, x.Epoch), AgeMillis: x.AgeMillis, HasAge: x.HasAge}
	status := protocol.Status(f.Code)
	if r.retry(status) {
		return
	}
	if status == protocol.StatusNotLeader || status == protocol.StatusShuttingDown {
		bad := refusalIn(f, x, r.write)
		marks.Leader = bad.leader
		r.refuse(bad, &marks, t)
		return
	}
	c := r.c
	c.mu.Lock()
	if bad := r.noRoom(len(f.Body)); bad != nil {
		c.mu.Unlock()
		if !r.retry(bad.status) {
			r.refuse(bad, &marks, t)
		}
		return
	}
	defer c.mu.Unlock()
	if !c.closed {
		out := c.output()
		start := len(out.B)
		out.Grow(protocol.HeaderBytes + marksBytesMax + len(f.Body))
		c.srv.counters.errors.add(status)
		b := beginFrame(out.B, f.Code, protocol.FlagReply|f.Flags&protocol.FlagMore, r.id, &marks)
		out.B = protocol.End(append(b, f.Body...), start)
		c.account(c.unsent())
	}
	r.begun = true
	r.forget() // what has begun cannot begin again
	if f.Flags&protocol.FlagMore == 0 {
		r.ended = true
		c.end(r.charge)
	}
	t.add(c)
}

// noRoom is the refusal of a frame with n bytes for which the client has no room: it
// cannot be held back where it is, since other clients' replies come behind it. Of a
// write the outcome is reported in any case. c.mu must be held.
func (r *relay) noRoom(n int) *refusal {
	c := r.c
	message := "the client does not read its replies fast enough"
	switch {
	case r.write, c.closed:
		return nil
	case n > LargeBytes && !r.begun && c.srv.admission.repliesFull(c.unsent()+n):
		message = NoReplyMemory
	case c.unsent() < c.max || c.translator.Next(r.id):
		return nil
	}
	return &refusal{status: protocol.StatusBusy, retryMillis: retryBusyMillis, message: message}
}

// lost reports to the client that no answer comes.
func (r *relay) lost(bad *refusal, t *touched) {
	if !r.ended && !r.retry(bad.status) {
		r.refuse(bad, &protocol.Extensions{Epoch: r.epoch}, t)
	}
}

// refuse ends the reply with an error.
func (r *relay) refuse(bad *refusal, x *protocol.Extensions, t *touched) {
	r.ended = true
	r.forget()
	r.c.srv.refuse(r.c, r.id, r.charge, x, bad, t)
}

// refusalIn reads an error reply of another node. That the other node is about
// to stop is not the client's concern: the shard gets another leader.
func refusalIn(f *protocol.Frame, x *protocol.Extensions, write bool) *refusal {
	var e protocol.ErrorReply
	if err := e.Decode(f.Body); err != nil {
		if write {
			return &refusal{status: protocol.StatusInternal, message: "another node's reply is malformed; the outcome of the write is unknown"}
		}
		return &refusal{status: protocol.StatusNotLeader, retryMillis: retryLeaderMillis, message: "another node's reply is malformed"}
	}
	r := &refusal{status: protocol.Status(f.Code), retryMillis: e.RetryAfterMillis, message: string(e.Message)}
	switch r.status {
	case protocol.StatusNotLeader:
		r.leader = x.Leader
	case protocol.StatusShuttingDown:
		r.status, r.retryMillis = protocol.StatusNotLeader, retryLeaderMillis
		r.message = "the node that led the shard is stopping; the shard gets another leader"
	}
	return r
}

// refuse answers a request that was counted as in flight with an error.
func (s *Server) refuse(c *conn, id uint64, charge uint32, x *protocol.Extensions, r *refusal, t *touched) {
	marks := *x
	if r.leader != 0 {
		marks.Leader = r.leader
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.appendError(id, &marks, r.status, r.retryMillis, r.message)
	}
	c.end(charge)
	t.add(c)
}
