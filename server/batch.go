package server

import (
	"slices"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/protocol"
)

// splitter is the scratch with which a BATCH is cut up by shard.
type splitter struct {
	shards []int // of each operation
	parts  []int // shards that occur, in order of first occurrence
}

func (p *processor) writeBatch(c *conn, f *protocol.Frame, o Options) Effects {
	if err := p.batch.Decode(f.Body); err != nil {
		p.refuse(c, f.ID, err)
		return Effects{}
	}
	p.cmd = command.Command{Kind: command.Batch, Flags: command.Counted, Ops: p.cmd.Ops[:0], Else: p.cmd.Else[:0], Compares: p.cmd.Compares[:0], Session: p.session()}
	sp := &p.split
	sp.shards, sp.parts = sp.shards[:0], sp.parts[:0]
	apart := false // one operation has keys of two shards
	for _, op := range p.batch.Ops {
		shard, err := p.appendOp(&p.cmd.Ops, op)
		if err != nil {
			p.refuse(c, f.ID, err)
			return Effects{}
		}
		apart = apart || shard == acrossShards
		sp.shards = append(sp.shards, shard)
		if len(sp.parts) == 0 || shard != sp.parts[0] && !slices.Contains(sp.parts, shard) {
			sp.parts = append(sp.parts, shard)
		}
	}
	if len(sp.parts) == 1 && !apart {
		return p.propose(c, f, sp.parts[0], o)
	}
	divisible := p.batch.Flags&protocol.BatchNonAtomic != 0 && !apart
	// The parts of a non-atomic BATCH go on within a session where some of them
	// have been done, and keep their places behind what is queued.
	if !divisible || p.cmd.Session.ID == 0 && !o.InOrder {
		if done, err := p.proposeAcross(c, f, o); err == nil {
			return done
		}
	}
	switch {
	case apart:
		p.refuse(c, f.ID, errKeysApart)
	case !divisible:
		p.fail(c, f.ID, protocol.StatusCrossShard, 0, "the batch's keys are in different shards, so it cannot be atomic; give the keys a common {tag}, or send a non-atomic batch")
	default:
		return p.scatterBatch(c, f, o)
	}
	return Effects{}
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

func (p *processor) writeTxn(c *conn, f *protocol.Frame, o Options) Effects {
	if err := p.txn.Decode(f.Body); err != nil {
		p.refuse(c, f.ID, err)
		return Effects{}
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
				return Effects{}
			}
			place(shard)
		}
	}
	if home != acrossShards {
		return p.propose(c, f, home, o)
	}
	done, err := p.proposeAcross(c, f, o)
	if err != nil {
		p.fail(c, f.ID, protocol.StatusCrossShard, 0, "the transaction's keys are in different shards; give the keys a common {tag}")
	}
	return done
}

// scatterBatch proposes a non-atomic BATCH as one atomic BATCH for each shard, and
// sends what is led elsewhere on, as one BATCH for each node. With a session
// each part is remembered by its own shard, so a retry of the whole still
// takes effect once.
func (p *processor) scatterBatch(c *conn, f *protocol.Frame, o Options) Effects {
	sp := &p.split
	size := o.ReplyBytes
	for i := range p.cmd.Ops {
		size += len(p.cmd.Ops[i].Key) + len(p.cmd.Ops[i].Value)
	}
	g := p.scatter(c, f, len(sp.parts), len(sp.shards), size)
	for i, op := range p.batch.Ops {
		g.codes[i] = op.Code
	}
	part := command.Command{Kind: command.Batch, Flags: command.Counted, Session: p.cmd.Session, PatienceMillis: p.timeoutMillis()}
	var remote []*writePart
	for k, shard := range sp.parts {
		part.Ops = part.Ops[:0]
		for i, s := range sp.shards {
			if s == shard {
				part.Ops = append(part.Ops, p.cmd.Ops[i])
				g.parts[k] = append(g.parts[k], int32(i))
			}
		}
		node := g.propose(p, k, shard, &part)
		if node == 0 {
			continue
		}
		if i := slices.IndexFunc(remote, func(b *writePart) bool { return b.node == node }); i >= 0 {
			remote[i].ops = append(remote[i].ops, g.parts[k]...)
			g.finish(&p.touched) // the shard's part is one of that node's
			continue
		}
		remote = append(remote, &writePart{g: g, node: node, ops: slices.Clone(g.parts[k])})
	}
	x := p.ext
	for _, b := range remote {
		m := protocol.Batch{Flags: protocol.BatchNonAtomic}
		for _, i := range b.ops {
			m.Ops = append(m.Ops, p.batch.Ops[i])
		}
		b.send(p, protocol.OpBatch, x, m.AppendTo)
	}
	g.scattered(p)
	return Effects{SentOn: len(remote) > 0}
}
