package server

import (
	"errors"
	"time"

	"github.com/proa-kv/proa/bufpool"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/protocol"
)

// deleteRange carries out a DELETE_RANGE, which is one command in each shard,
// however many rows there are. Where this node is alone they take effect
// together, unless a session is to remember them: as with a non-atomic batch its
// retry has to complete what is missing.
func (p *processor) deleteRange(c *conn, f *protocol.Frame) {
	var m protocol.DeleteRange
	if err := m.Decode(f.Body); err != nil {
		p.refuse(c, f.ID, err)
		return
	}
	p.cmd = command.Command{Kind: command.DeleteRange, Ops: p.cmd.Ops[:0], Else: p.cmd.Else[:0], Compares: p.cmd.Compares[:0], Session: p.session()}
	p.cmd.Key, p.cmd.Value = m.Bounds()
	switch {
	case p.ext.HasShard:
		p.propose(c, f, protocol.OpDeleteRange, int(p.ext.Shard))
	case p.srv.backend.Shards() == 1:
		p.propose(c, f, protocol.OpDeleteRange, 0)
	case p.cmd.Session.ID == 0 && p.proposeAcross(c, f, protocol.OpDeleteRange) == nil:
	default:
		p.scatterRange(c, f)
	}
}

// scatterRange proposes p.cmd in every shard, and sends it on where another node
// leads one. The reply has the outcome of each, like that of a batch.
func (p *processor) scatterRange(c *conn, f *protocol.Frame) {
	n := p.srv.backend.Shards()
	size := n * (5 + outcomeBytes)
	g := &gather{
		c: c, id: f.ID, epoch: p.marks.Epoch, size: uint32(size), left: n + 1,
		bodies: make([][]byte, n), parts: make([][]int32, n), codes: make([]protocol.Opcode, n),
	}
	c.begin(size)
	for shard := range n {
		g.codes[shard] = protocol.OpDeleteRange
		g.parts[shard] = []int32{int32(shard)}
		err := p.srv.backend.Propose(shard, &p.cmd, g, command.Tag{ID: uint64(shard)})
		if err == nil {
			p.proposed = true
			continue
		}
		if errors.Is(err, command.ErrNotLeader) {
			if node := p.srv.elsewhere(c, shard); node != 0 {
				p.effects.SentOn = true
				p.sendRange(g, f, shard, node)
				continue
			}
		}
		s, _ := refusalOf(err)
		g.fail(g.parts[shard], s)
		g.finish()
	}
	if g.finish() {
		c.mu.Lock()
		p.touch(c)
		c.mu.Unlock()
	}
}

// sendRange sends the part of a shard to the node that leads it.
func (p *processor) sendRange(g *gather, f *protocol.Frame, shard int, node uint64) {
	g.mu.Lock()
	g.epoch = p.srv.backend.Epoch()
	g.mu.Unlock()
	x := p.ext
	x.Epoch, x.HasShard, x.Shard = 0, true, uint16(shard)
	left := time.Until(time.UnixMilli(p.deadline()))
	x.DeadlineMillis = uint32(max(left.Milliseconds(), 1))
	b := &farBatch{g: g, node: node, ops: g.parts[shard]}
	k := &call{sink: b, write: true, frame: bufpool.Get(256)}
	k.frame.B = protocol.End(append(beginFrame(k.frame.B, uint8(protocol.OpDeleteRange), 0, 0, &x), f.Body...), 0)
	if r := p.send(k, node, left); r != nil {
		b.lost(r, &p.touched)
	}
}
