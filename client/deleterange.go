package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/proa-kv/proa/protocol"
)

// DeleteRange deletes all keys with start <= key < end, bytewise. One of the
// bounds may be empty, which means unbounded; DeleteAll deletes everything.
//
// It is one write in each shard, regardless of the number of rows, because keys
// are distributed over all shards. Within a shard all rows are deleted
// atomically. Across shards the deletion is not atomic, except in a single-node
// cluster without ExactlyOnce. If a shard refuses it without having done
// anything, the client retries it there, like whole calls, and with ExactlyOnce
// also if the outcome is unknown. If it cannot be completed, DeleteRange fails
// with an error whose Outcome is NotDone only if no shard has deleted anything;
// calling it again deletes the remaining rows, and what was written since. The
// number of deleted rows is not known.
func (c *Client) DeleteRange(ctx context.Context, start, end []byte, opts ...CallOption) error {
	return c.deleteRange(ctx, protocol.DeleteRange{Start: start, End: end}, opts)
}

// DeletePrefix deletes all keys that begin with prefix, which must not be empty,
// as DeleteRange does.
func (c *Client) DeletePrefix(ctx context.Context, prefix []byte, opts ...CallOption) error {
	return c.deleteRange(ctx, protocol.DeleteRange{Flags: protocol.DeleteRangePrefix, Start: prefix}, opts)
}

// DeleteAll deletes all keys of the cluster, as DeleteRange does.
func (c *Client) DeleteAll(ctx context.Context, opts ...CallOption) error {
	return c.deleteRange(ctx, protocol.DeleteRange{Flags: protocol.DeleteRangeAll}, opts)
}

// rangeDeletion is a DELETE_RANGE under way.
type rangeDeletion struct {
	c     *Client
	call  Operation
	body  []byte
	until int64 // on the client's clock; 0: the context alone bounds it

	shards int
	done   int
	left   []rangePart // of shards that have not done it
}

// rangePart is what became of the part of a shard.
type rangePart struct {
	shard uint16
	err   *Error
}

func (c *Client) deleteRange(ctx context.Context, m protocol.DeleteRange, opts []CallOption) error {
	d := rangeDeletion{c: c, call: withOptions(Operation{code: protocol.OpDeleteRange}, opts), body: m.AppendTo(nil)}
	if err := d.check(); err != nil {
		return refused(d.call.code, err)
	}
	d.until, _ = c.caller.deadline(ctx, &d.call)
	ctx, cancel := c.caller.bounded(ctx, d.until)
	defer cancel()
	results, err := d.send(ctx)
	if err != nil {
		return err
	}
	d.shards = len(results)
	for shard := range results {
		d.take(uint16(shard), &results[shard])
	}
	for attempts := 1; c.cfg.RetryMax == 0 || attempts <= c.cfg.RetryMax; attempts++ {
		asked, again := d.worthwhile()
		if !again || !c.caller.pause(ctx, attempts, asked, d.until) {
			break
		}
		d.sendRest(ctx)
	}
	return d.failure()
}

// check refuses what the server would.
func (d *rangeDeletion) check() error {
	if d.call.err != nil {
		return d.call.err
	}
	return badArgument(new(protocol.DeleteRange).Decode(d.body))
}

// send asks for the deletion once, in all shards or in the one that the call
// names. The results are views of memory of their own.
func (d *rangeDeletion) send(ctx context.Context) (protocol.OpResults, error) {
	c := d.c
	ca := c.caller.newCall(ctx, &d.call)
	ca.split = true
	ca.frame = append(ca.frame, d.body...)
	if err := c.caller.await(ctx, ca); err != nil {
		return nil, err
	}
	defer c.caller.release(ca)
	var reply protocol.BatchReply
	if err := reply.Decode(ca.body); err != nil {
		return nil, malformedDone(d.call.code, err)
	}
	if len(reply.Results) == 0 {
		return nil, malformedDone(d.call.code, errors.New("no results"))
	}
	return reply.Results, nil
}

// take takes in what became of a shard's part.
func (d *rangeDeletion) take(shard uint16, r *protocol.OpResult) {
	if r.Status == protocol.StatusOK {
		var m protocol.WriteReply
		if err := m.Decode(r.Body); err != nil {
			d.left = append(d.left, rangePart{shard, malformedDone(d.call.code, err)})
			return
		}
		d.done++
		d.c.caller.observeShard(shard, m.Version)
		return
	}
	e := replyError(d.call.code, r.Status)
	e.addReply(r.Body)
	d.left = append(d.left, rangePart{shard, e})
}

// worthwhile reports whether a part that is left had no effect and may have one if
// it is sent again, and how long the servers ask to wait before.
func (d *rangeDeletion) worthwhile() (asked time.Duration, again bool) {
	for _, part := range d.left {
		if part.retries() {
			asked, again = max(asked, part.err.RetryAfter), true
		}
	}
	return asked, again
}

func (p *rangePart) retries() bool { return p.err.Outcome == NotDone && p.err.Status.Retry() }

// sendRest sends the parts again that are worth it, each to its shard.
func (d *rangeDeletion) sendRest(ctx context.Context) {
	parts := d.left
	d.left = nil
	for _, part := range parts {
		if !part.retries() {
			d.left = append(d.left, part)
			continue
		}
		d.call.number = onlyShard(part.shard)
		results, err := d.send(ctx)
		var e *Error
		switch {
		case err == nil:
			d.take(part.shard, &results[0])
		case errors.As(err, &e):
			d.left = append(d.left, rangePart{part.shard, e})
		default:
			d.left = append(d.left, part)
		}
	}
}

// onlyShard is the number of an Operation that is a DELETE_RANGE of one shard.
func onlyShard(shard uint16) uint64 { return uint64(shard) + 1 }

// failure is why the deletion is not complete, nil if it is.
func (d *rangeDeletion) failure() error {
	if len(d.left) == 0 {
		return nil
	}
	e := *d.left[0].err
	e.Message = fmt.Sprintf("%d of %d shards did not carry it out; %s", len(d.left), d.shards, e.Message)
	for _, part := range d.left {
		if part.err.Outcome != NotDone {
			e.Outcome = Unknown
		}
	}
	if d.done > 0 {
		e.Outcome = Unknown
	}
	return &e
}

// observeShard notes a version that a shard has shown, for all of its keys.
func (k *caller) observeShard(shard uint16, version uint64) {
	if k.c.seen == nil {
		return
	}
	routes := k.c.router.table.Load()
	for slot := range uint16(protocol.Slots) {
		// Where nothing is known of a slot the version may be too high for it:
		// then its reads are linearizable.
		if s := routes.shard(slot); s == nil || s.id == shard {
			k.c.seen.observe(slot, version)
		}
	}
}
