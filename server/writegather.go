package server

import (
	"encoding/binary"
	"errors"
	"sync"
	"time"

	"github.com/proa-kv/proa/bufpool"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/protocol"
)

// Scatter and gather.
//
// A request over several shards is scattered: it becomes parts, each of which is
// carried out here or by the node that leads its shards. What comes of them is
// gathered into one reply: the outcomes of writes by a writeGather, and what reads
// wait for by a readGather (readgather.go). Both count the parts without an answer,
// and one for the scatter itself, so that the last to answer makes the reply.

// sendPart sends a part of a request to a node. Its answer comes to the sink.
func (e *executor) sendPart(to sink, node uint64, op protocol.Opcode, x *protocol.Extensions, deadline int64, body func([]byte) []byte) {
	left := time.Until(time.UnixMilli(deadline))
	x.DeadlineMillis = uint32(max(left.Milliseconds(), 1))
	write := writes(op)
	k := &call{sink: to, write: write, bulk: !write, frame: bufpool.Get(256)}
	k.frame.B = protocol.End(body(beginFrame(k.frame.B, uint8(op), 0, 0, x)), 0)
	if r := e.send(k, node, left); r != nil {
		to.lost(r, &e.touched)
	}
}

// scatter begins a write of so many parts and operations, which counts for size
// bytes among those in flight.
func (p *processor) scatter(c *conn, f *protocol.Frame, parts, ops, size int) *writeGather {
	c.begin(size)
	return &writeGather{
		c: c, id: f.ID, size: uint32(size), epoch: p.marks.Epoch, left: parts + 1,
		parts: make([][]int32, parts), bodies: make([][]byte, ops), codes: make([]protocol.Opcode, ops),
	}
}

// propose proposes the command of part k, or returns the node that leads its
// shard.
func (g *writeGather) propose(p *processor, k, shard int, cmd *command.Command) (node uint64) {
	err := p.srv.backend.Propose(shard, cmd, g, command.Tag{ID: uint64(k)})
	if err == nil {
		p.proposed = true
		return 0
	}
	if errors.Is(err, command.ErrNotLeader) {
		if node = p.srv.elsewhere(g.c, shard); node != 0 {
			return node
		}
	}
	g.fail(g.parts[k], refusalOf(err).status)
	g.finish(&p.touched)
	return 0
}

// scattered ends the scatter: all parts are on their way, or answered.
func (g *writeGather) scattered(p *processor) {
	g.finish(&p.touched)
	p.backlog = g.c.Backlog()
}

// writePart is the part of a write that another node carries out.
type writePart struct {
	g    *writeGather
	node uint64
	ops  []int32 // positions of its operations in the request
}

// send sends a part on, with the extensions of the request.
func (b *writePart) send(p *processor, op protocol.Opcode, x protocol.Extensions, body func([]byte) []byte) {
	b.g.mu.Lock()
	b.g.epoch = p.srv.backend.Epoch()
	b.g.mu.Unlock()
	x.Epoch = 0
	p.sendPart(b, b.node, op, &x, p.deadline(), body)
}

// frame takes in the outcomes of the part.
func (b *writePart) frame(f *protocol.Frame, x *protocol.Extensions, t *touched) {
	if protocol.Status(f.Code) != protocol.StatusOK {
		b.lost(refusalIn(f, x, true), t)
		return
	}
	var m protocol.BatchReply
	if err := m.Decode(f.Body); err != nil || len(m.Results) != len(b.ops) || f.Flags&protocol.FlagMore != 0 {
		b.lost(&refusal{status: protocol.StatusInternal}, t)
		return
	}
	b.g.mu.Lock()
	for j, i := range b.ops {
		b.g.keepReply(i, m.Results[j])
	}
	b.g.mu.Unlock()
	b.g.finish(t)
}

// lost answers every operation of the part with r.
func (b *writePart) lost(r *refusal, t *touched) {
	b.g.fail(b.ops, r.status)
	b.g.finish(t)
}

// writeGather collects the outcomes of the parts of a write into one reply.
type writeGather struct {
	c    *conn
	id   uint64
	size uint32

	mu     sync.Mutex
	epoch  uint64            // sent with the reply; 0: none
	parts  [][]int32         // positions of each part's operations in the request
	bodies [][]byte          // of each operation: status byte, u32 length, body
	codes  []protocol.Opcode // of the operations
	bytes  int               // of rows kept in bodies
	held   int               // of those, counted in Server.held
	left   int               // parts without an outcome, and one for the scatter itself
}

// Complete takes in the outcome of one part.
func (g *writeGather) Complete(tag command.Tag, outcome command.Outcome, r *command.Result) {
	ops := g.parts[tag.ID]
	switch {
	case outcome != command.Applied:
		g.fail(ops, unresolved[outcome].status)
	case r.Kind == command.DeleteRange:
		g.mu.Lock()
		g.keep(ops[0], r)
		g.mu.Unlock()
	case r.Status != command.OK || len(r.Results) != len(ops):
		g.fail(ops, statusOf(r.Status))
	default:
		g.mu.Lock()
		for j, i := range ops {
			g.keep(i, &r.Results[j])
		}
		g.mu.Unlock()
	}
	g.finish(&g.c.srv.delivery)
}

// room is how many bytes of rows still fit in the reply's frame. g.mu must be
// held.
func (g *writeGather) room() int { return bodyBytesMax - len(g.bodies)*(5+outcomeBytes) - g.bytes }

// fits reports whether n bytes of a row may be kept, and counts them. g.mu must
// be held.
func (g *writeGather) fits(n int) bool {
	if n == 0 {
		return true
	}
	if n > g.room() || !g.c.srv.admission.hold(n) {
		return false
	}
	g.bytes, g.held = g.bytes+n, g.held+n
	return true
}

// withoutRow returns the outcome of an operation without the value in it.
func withoutRow(code protocol.Opcode, r protocol.OpResult) protocol.OpResult {
	switch code {
	case protocol.OpGet, protocol.OpGetRange:
		return protocol.OpResult{Status: protocol.StatusTooLarge}
	case protocol.OpIncrFloat:
		var f protocol.FloatReply
		if f.Decode(r.Body) == nil {
			f.Text = nil
			r.Body = f.AppendTo(nil)
		}
	default:
		var w protocol.WriteReply
		if w.Decode(r.Body) == nil {
			w.PreviousOmitted = w.HasPrevious
			w.PreviousValue = nil
			r.Body = w.AppendTo(nil)
		}
	}
	return r
}

// dropRows leaves the rows out of the reply, which is complete.
func (g *writeGather) dropRows() {
	for i, b := range g.bodies {
		if len(b) > 5+outcomeBytes {
			r := withoutRow(g.codes[i], protocol.OpResult{Status: protocol.Status(b[0]), Body: b[5:]})
			g.bodies[i] = appendOpResult(nil, r)
		}
	}
}

// appendOpResult appends an outcome: status byte, u32 length, body.
func appendOpResult(b []byte, r protocol.OpResult) []byte {
	return append(binary.LittleEndian.AppendUint32(append(b, byte(r.Status)), uint32(len(r.Body))), r.Body...)
}

// keepReply is keep for an outcome as another node has encoded it.
func (g *writeGather) keepReply(i int32, r protocol.OpResult) {
	if !r.Status.CarriesResult() {
		g.bodies[i] = []byte{byte(r.Status), 0, 0, 0, 0}
		return
	}
	if len(r.Body) > outcomeBytes && !g.fits(len(r.Body)) {
		r = withoutRow(g.codes[i], r)
	}
	g.bodies[i] = appendOpResult(make([]byte, 0, 5+len(r.Body)), r)
}

// keep encodes the outcome of operation i, without its row if that would not
// fit in the reply's frame. g.mu must be held.
func (g *writeGather) keep(i int32, r *command.Result) {
	if !g.fits(len(r.Value)) {
		short := *r
		short.Value, short.RowOmitted = nil, true
		r = &short
	}
	g.bodies[i] = appendOutcome(nil, r)
}

// fail answers the operations at these positions with s.
func (g *writeGather) fail(ops []int32, s protocol.Status) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, i := range ops {
		g.bodies[i] = []byte{byte(s), 0, 0, 0, 0}
	}
}

// finish counts one part as answered and, after the last, puts the reply into the
// output of the connection, which is added to t.
func (g *writeGather) finish(t interface{ add(*conn) }) {
	g.mu.Lock()
	g.left--
	last := g.left == 0
	marks := protocol.Extensions{Epoch: g.epoch}
	g.mu.Unlock()
	if !last {
		return
	}
	c := g.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		if g.bytes > int(g.size) && c.roomFor(g.bytes) < g.bytes {
			g.dropRows() // nobody else has g any more
		}
		n := protocol.HeaderBytes + marksBytesMax + 4
		for _, b := range g.bodies {
			n += len(b)
		}
		out := c.output()
		out.Grow(n)
		start := len(out.B)
		b := beginFrame(out.B, uint8(protocol.StatusOK), protocol.FlagReply, g.id, &marks)
		body := len(b)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(g.bodies)))
		for _, body := range g.bodies {
			b = append(b, body...)
		}
		c.srv.counters.errors.addResults(b[body:])
		out.B = protocol.End(b, start)
		c.account(c.unsent())
	}
	c.end(g.size)
	c.srv.admission.held.Add(-int64(g.held))
	t.add(c)
}
