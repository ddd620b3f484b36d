package etcd

import (
	"errors"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/storage"
)

// recall finds out what became of a command over several shards of a session
// where it cannot be carried out: an earlier attempt may have been when the node
// was alone.
//
// Whatever was carried out left a result in the shard of the command's first key
// ("home", see planner.choose), and was committed before the group of any of its
// shards had a second member. So a replica of home that has caught up knows
// whether it was: if not, it never will be. If so the results are put together
// from those of all the shards, as far as they have replicas here.
//
// It belongs to the pass, where read indexes are answered.
type recall struct {
	engine  *Engine
	q       acrossCommand
	left    int  // read indexes that are awaited
	dropped bool // one could not be answered
	found   bool // home has a result; the other shards are waited for
}

// recall has q, which is c, answered with what became of it. An error is that
// of ReadIndex; then q hears nothing.
func (cs *crossShard) recall(q *acrossCommand, c *command.Command) error {
	return cs.engine.ReadIndex(q.shardOf(c.FirstKey()), &recall{engine: cs.engine, q: *q, left: 1}, command.Tag{})
}

// recallQueued is recall for a command of the queue.
func (cs *crossShard) recallQueued(q *acrossCommand, c *command.Command) (verdict, error) {
	if err := cs.recall(q, c); err != nil {
		return cs.refuse(q, command.Dropped)
	}
	return refused, nil
}

// Complete goes on when the replicas have caught up.
func (r *recall) Complete(_ command.Tag, o command.Outcome, _ *command.Result) {
	r.dropped = r.dropped || o != command.Applied
	if r.left--; r.left > 0 {
		return
	}
	if r.dropped {
		r.answer(command.Dropped, nil)
		return
	}
	err := r.look()
	if errors.Is(err, storage.ErrDamaged) {
		r.answer(command.Applied, &command.Result{Status: command.SessionExpired}) // what became of it cannot be read
		return
	}
	if err != nil {
		r.engine.host.Fail(err)
		r.answer(command.Lost, nil)
	}
}

func (r *recall) answer(o command.Outcome, result *command.Result) {
	r.q.done.Sink.Complete(r.q.done.Tag, o, result)
}

// look answers from what the replicas here have, or waits for more of them.
func (r *recall) look() error {
	e := r.engine
	var c command.Command
	if err := r.q.decode(&c); err != nil {
		return err
	}
	p := planner{crossing: &crossing{}, shardOf: r.q.shardOf, cmd: &c, ops: c.Ops}
	p.addParts(&c, p.shardOf)
	var err error
	if p.rehearsal, err = e.Store.Rehearse(e.Time.Now(), c.Kind); err != nil {
		return err
	}
	defer p.rehearsal.End()
	switch done, expired, err := p.replays(p.parts[0].shard); {
	case err != nil:
		return err
	case !done:
		r.answer(command.Apart, nil)
		return nil
	case expired:
		r.answer(command.Applied, &command.Result{Kind: c.Kind, Status: command.SessionExpired})
		return nil
	case !r.found:
		r.found = true
		r.awaitAll(p.parts)
		return nil
	}
	out, err := e.recollect(&p)
	if err != nil {
		return err
	}
	r.answer(command.Applied, &out)
	return nil
}

// awaitAll waits until the replicas of all the parts' shards have caught up,
// those that there are.
func (r *recall) awaitAll(parts []acrossPart) {
	r.left = 1
	for i := range parts {
		if err := r.engine.ReadIndex(parts[i].shard, r, command.Tag{}); err == nil {
			r.left++
		} else if r.engine.groups[parts[i].shard].Held.Load() {
			r.dropped = true
		}
	}
	if r.left--; r.left == 0 {
		r.answer(command.Dropped, nil) // home has gone meanwhile
	}
}

// recollect returns the result of p's command, which was carried out, or
// SessionExpired if not all of it can be had here.
func (cs *crossShard) recollect(p *planner) (command.Result, error) {
	gone := command.Result{Kind: p.cmd.Kind, Status: command.SessionExpired}
	status, err := p.plan(cs.engine.Limits.EntryBytes)
	if err != nil || status != command.OK {
		return gone, err
	}
	a := &across{kind: p.cmd.Kind, succeeded: !p.refuted, ops: p.results}
	results := make([]command.Result, len(p.parts))
	for i := range p.parts {
		part := p.partCommand(i)
		if !cs.engine.groups[p.parts[i].shard].Held.Load() {
			return gone, nil
		}
		digest, err := digestOf(part)
		if err != nil {
			return gone, err
		}
		if done, err := p.rehearsal.Replay(p.parts[i].shard, part, digest, &results[i]); err != nil || !done {
			return gone, err
		}
		a.parts = append(a.parts, &results[i])
	}
	return a.result(), nil
}

// digestOf returns the digest of a command with a session.
func digestOf(c *command.Command) (uint64, error) {
	entry := c.AppendTo(command.AppendEntryHeader(make([]byte, 0, command.EntryHeaderBytes+c.EncodedBytesMax())))
	command.SealEntry(entry, 0, 1)
	r, err := command.NewReader(entry)
	if err == nil {
		_, err = r.Next(&command.Command{})
	}
	if err != nil {
		return 0, err
	}
	return r.Digest(), nil
}
