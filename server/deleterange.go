package server

import (
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/protocol"
)

// deleteRange carries out a DELETE_RANGE, which is one command in each shard,
// however many rows there are. Where this node is alone they take effect
// together, unless a session is to remember them: as with a non-atomic BATCH its
// retry has to complete what is missing.
func (p *processor) deleteRange(c *conn, f *protocol.Frame, o Options) Effects {
	var m protocol.DeleteRange
	if err := m.Decode(f.Body); err != nil {
		p.refuse(c, f.ID, err)
		return Effects{}
	}
	p.cmd = command.Command{Kind: command.DeleteRange, Ops: p.cmd.Ops[:0], Else: p.cmd.Else[:0], Compares: p.cmd.Compares[:0], Session: p.session()}
	p.cmd.Key, p.cmd.Value = m.Bounds()
	switch {
	case p.ext.HasShard:
		return p.propose(c, f, int(p.ext.Shard), o)
	case p.srv.backend.Shards() == 1:
		return p.propose(c, f, 0, o)
	case p.cmd.Session.ID == 0:
		if done, err := p.proposeAcross(c, f, o); err == nil {
			return done
		}
	}
	return p.scatterRange(c, f)
}

// scatterRange proposes p.cmd in every shard, and sends it on where another node
// leads one. The reply has the outcome of each, like that of a BATCH.
func (p *processor) scatterRange(c *conn, f *protocol.Frame) (done Effects) {
	n := p.srv.backend.Shards()
	g := p.scatter(c, f, n, n, n*(5+outcomeBytes))
	x := p.ext
	x.HasShard = true
	for shard := range n {
		g.codes[shard] = protocol.OpDeleteRange
		g.parts[shard] = []int32{int32(shard)}
		if node := g.propose(p, shard, shard, &p.cmd); node != 0 {
			done.SentOn = true
			x.Shard = uint16(shard)
			b := &writePart{g: g, node: node, ops: g.parts[shard]}
			b.send(p, protocol.OpDeleteRange, x, func(b []byte) []byte { return append(b, f.Body...) })
		}
	}
	g.scattered(p)
	return done
}
