package server

import (
	"encoding/binary"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/proa-kv/proa/bufpool"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/protocol"
)

// splitter is the scratch with which a batch is cut up by shard.
type splitter struct {
	shards []int // of each operation
	parts  []int // shards that occur, in order of first occurrence
}

func (p *processor) writeBatch(c *conn, f *protocol.Frame) {
	if err := p.batch.Decode(f.Body); err != nil {
		p.refuse(c, f.ID, err)
		return
	}
	p.cmd = command.Command{Kind: command.Batch, Flags: command.Counted, Ops: p.cmd.Ops[:0], Else: p.cmd.Else[:0], Compares: p.cmd.Compares[:0], Session: p.session()}
	sp := &p.split
	sp.shards, sp.parts = sp.shards[:0], sp.parts[:0]
	apart := false // one operation has keys of two shards
	for _, op := range p.batch.Ops {
		shard, err := p.appendOp(&p.cmd.Ops, op)
		if err != nil {
			p.refuse(c, f.ID, err)
			return
		}
		apart = apart || shard == acrossShards
		sp.shards = append(sp.shards, shard)
		if len(sp.parts) == 0 || (shard != sp.parts[0] && !contains(sp.parts, shard)) {
			sp.parts = append(sp.parts, shard)
		}
	}
	if len(sp.parts) == 1 && !apart {
		p.propose(c, f, protocol.OpBatch, sp.parts[0])
		return
	}
	divisible := p.batch.Flags&protocol.BatchNonAtomic != 0 && !apart
	// The parts of a non-atomic batch go on within a session where some of them
	// have been done, and keep their places behind what is queued.
	if (!divisible || p.cmd.Session.ID == 0 && !p.options.InOrder) && p.proposeAcross(c, f, protocol.OpBatch) == nil {
		return
	}
	switch {
	case apart:
		p.refuse(c, f.ID, errKeysApart)
	case !divisible:
		p.fail(c, f.ID, protocol.StatusCrossShard, 0, "the batch's keys are in different shards, so it cannot be atomic; give the keys a common {tag}, or send a non-atomic batch")
	default:
		p.scatter(c, f)
	}
}

func contains(s []int, v int) bool {
	for _, x := range s {
		if x == v {
			return true
		}
	}
	return false
}

// appendOp decodes one operation of a BATCH or TXN into ops, whose elements it
// reuses, and returns the shard of its keys, or acrossShards.
func (p *processor) appendOp(ops *[]command.Command, op protocol.Op) (shard int, err error) {
	if len(*ops) < cap(*ops) {
		*ops = (*ops)[:len(*ops)+1]
	} else {
		*ops = append(*ops, command.Command{})
	}
	cmd := &(*ops)[len(*ops)-1]
	if err := p.decodeWrite(op.Code, op.Body, cmd); err != nil {
		return 0, err
	}
	return p.shardOf(cmd), nil
}

func (p *processor) writeTxn(c *conn, f *protocol.Frame) {
	if err := p.txn.Decode(f.Body); err != nil {
		p.refuse(c, f.ID, err)
		return
	}
	p.cmd = command.Command{Kind: command.Txn, Flags: command.Whole, Ops: p.cmd.Ops[:0], Else: p.cmd.Else[:0], Compares: p.cmd.Compares[:0], Session: p.session()}
	const none = -2
	home := none
	place := func(shard int) {
		if home != none && home != shard {
			shard = acrossShards
		}
		home = shard
	}
	for i := range p.txn.Compares {
		x := &p.txn.Compares[i]
		p.cmd.Compares = append(p.cmd.Compares, command.Compare{
			Target: command.Target(x.Target), Relation: command.Relation(x.Relation), Key: x.Key, Version: x.Version, Value: x.Value,
		})
		place(p.srv.shardOf(x.Key))
	}
	for _, branch := range [...]struct {
		ops protocol.Ops
		to  *[]command.Command
	}{{p.txn.Then, &p.cmd.Ops}, {p.txn.Else, &p.cmd.Else}} {
		for _, op := range branch.ops {
			shard, err := p.appendOp(branch.to, op)
			if err != nil {
				p.refuse(c, f.ID, err)
				return
			}
			place(shard)
		}
	}
	if home != acrossShards {
		p.propose(c, f, protocol.OpTxn, home)
		return
	}
	if err := p.proposeAcross(c, f, protocol.OpTxn); err != nil {
		p.fail(c, f.ID, protocol.StatusCrossShard, 0, "the transaction's keys are in different shards; give the keys a common {tag}")
	}
}

// scatter proposes a non-atomic batch as one atomic batch for each shard, and
// sends what is led elsewhere on, as one batch for each node. With a session
// each part is remembered by its own shard, so a retry of the whole still
// takes effect once.
func (p *processor) scatter(c *conn, f *protocol.Frame) {
	sp := &p.split
	g := &gather{c: c, id: f.ID, epoch: p.marks.Epoch, bodies: make([][]byte, len(sp.shards)), left: len(sp.parts) + 1, parts: make([][]int32, len(sp.parts))}
	size := 0
	part := command.Command{Kind: command.Batch, Flags: command.Counted, Session: p.cmd.Session, PatienceMillis: p.patienceMillis()}
	for i := range p.cmd.Ops {
		size += len(p.cmd.Ops[i].Key) + len(p.cmd.Ops[i].Value)
	}
	size += p.options.Yields
	g.size = uint32(size)
	for _, op := range p.batch.Ops {
		g.codes = append(g.codes, op.Code)
	}
	c.begin(size)
	var far []*farBatch
	for k, shard := range sp.parts {
		part.Ops = part.Ops[:0]
		for i, s := range sp.shards {
			if s == shard {
				part.Ops = append(part.Ops, p.cmd.Ops[i])
				g.parts[k] = append(g.parts[k], int32(i))
			}
		}
		err := p.srv.backend.Propose(shard, &part, g, command.Tag{ID: uint64(k)})
		if err == nil {
			p.proposed = true
			continue
		}
		if errors.Is(err, command.ErrNotLeader) {
			if node := p.srv.elsewhere(c, shard); node != 0 {
				far = g.sendLater(far, node, g.parts[k])
				continue
			}
		}
		s, _ := refusalOf(err)
		g.fail(g.parts[k], s)
		g.finish()
	}
	if len(far) > 0 {
		p.effects.SentOn = true
		p.sendParts(g, far)
	}
	if g.finish() {
		c.mu.Lock()
		p.touch(c)
		c.mu.Unlock()
	}
}

// farBatch is the part of a batch that another node carries out.
type farBatch struct {
	g    *gather
	node uint64
	ops  []int32 // positions of its operations in the batch
}

// sendLater adds operations to what goes to a node. The shard's part counts
// as answered, and that of the node does not.
func (g *gather) sendLater(far []*farBatch, node uint64, ops []int32) []*farBatch {
	for _, b := range far {
		if b.node == node {
			b.ops = append(b.ops, ops...)
			g.finish()
			return far
		}
	}
	return append(far, &farBatch{g: g, node: node, ops: slices.Clone(ops)})
}

// sendParts sends the parts of p.batch on that are led elsewhere.
func (p *processor) sendParts(g *gather, far []*farBatch) {
	g.mu.Lock()
	g.epoch = p.srv.backend.Epoch()
	g.mu.Unlock()
	x := p.ext
	x.Epoch = 0
	left := time.Until(time.UnixMilli(p.deadline()))
	x.DeadlineMillis = uint32(max(left.Milliseconds(), 1))
	for _, b := range far {
		m := protocol.Batch{Flags: protocol.BatchNonAtomic}
		for _, i := range b.ops {
			m.Ops = append(m.Ops, p.batch.Ops[i])
		}
		k := &call{sink: b, write: true, frame: bufpool.Get(256)}
		k.frame.B = protocol.End(m.AppendTo(beginFrame(k.frame.B, uint8(protocol.OpBatch), 0, 0, &x)), 0)
		if r := p.send(k, b.node, left); r != nil {
			b.lost(r, &p.touched)
		}
	}
}

// frame takes in the outcomes of the part.
func (b *farBatch) frame(f *protocol.Frame, x *protocol.Extensions, t *touched) {
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
	b.end(t)
}

// lost answers every operation of the part with r.
func (b *farBatch) lost(r *refusal, t *touched) {
	b.g.fail(b.ops, r.status)
	b.end(t)
}

func (b *farBatch) end(t *touched) {
	if b.g.finish() {
		c := b.g.c
		c.mu.Lock()
		t.add(c)
		c.mu.Unlock()
	}
}

// gather collects the outcomes of a batch's parts into one reply.
type gather struct {
	c    *conn
	id   uint64
	size uint32

	mu     sync.Mutex
	epoch  uint64            // to be told with the reply; 0: none
	parts  [][]int32         // positions of each part's operations in the batch
	bodies [][]byte          // of each operation: status byte, u32 length, body
	codes  []protocol.Opcode // of the operations
	bytes  int               // of rows kept in bodies
	held   int               // of those, counted in Server.held
	left   int               // parts without an outcome, and one for the scatter itself
}

// Complete takes in the outcome of one part.
func (g *gather) Complete(tag command.Tag, outcome command.Outcome, r *command.Result) {
	ops := g.parts[tag.ID]
	switch {
	case outcome != command.Applied:
		s, _ := statusOfOutcome(outcome)
		g.fail(ops, s)
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
	if g.finish() {
		g.c.mu.Lock()
		mark := !g.c.marked
		g.c.marked = true
		g.c.mu.Unlock()
		if mark {
			g.c.srv.markDirty(g.c)
		}
	}
}

// room is how many bytes of rows still fit in the reply's frame. g.mu must be
// held.
func (g *gather) room() int { return bodyBytesMax - len(g.bodies)*(5+outcomeBytes) - g.bytes }

// fits reports whether n bytes of a row may be kept, and counts them. g.mu must
// be held.
func (g *gather) fits(n int) bool {
	if n == 0 {
		return true
	}
	if n > g.room() || !g.c.srv.hold(n) {
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
func (g *gather) dropRows() {
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
func (g *gather) keepReply(i int32, r protocol.OpResult) {
	g.c.srv.counters.errors.add(r.Status)
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
func (g *gather) keep(i int32, r *command.Result) {
	if !g.fits(len(r.Value)) {
		short := *r
		short.Value, short.RowOmitted = nil, true
		r = &short
	}
	g.bodies[i] = g.c.srv.counters.errors.appendOutcome(nil, r)
}

// fail answers the operations at these positions with s.
func (g *gather) fail(ops []int32, s protocol.Status) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, i := range ops {
		g.c.srv.counters.errors.add(s)
		g.bodies[i] = []byte{byte(s), 0, 0, 0, 0}
	}
}

// finish counts one part as answered and, after the last, puts the reply into
// the connection's output; it then returns true.
func (g *gather) finish() bool {
	g.mu.Lock()
	g.left--
	last := g.left == 0
	marks := protocol.Extensions{Epoch: g.epoch}
	g.mu.Unlock()
	if !last {
		return false
	}
	c := g.c
	c.mu.Lock()
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
		b = binary.LittleEndian.AppendUint32(b, uint32(len(g.bodies)))
		for _, body := range g.bodies {
			b = append(b, body...)
		}
		out.B = protocol.End(b, start)
		if len(out.B) > LargeBytes {
			c.account(c.unsent())
		}
	}
	c.end(g.size)
	c.mu.Unlock()
	c.srv.held.Add(-int64(g.held))
	return true
}
