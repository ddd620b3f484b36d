package raftgroup

import (
	"sync/atomic"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/storage"
)

// # Small commands that make large rows
//
// A copy, a SetRange or a change of an expiry may read and make a row of many
// megabytes and takes a few bytes in a queue. Storage bounds what an entry may make
// of such commands, but a client that sends them without a pause fills entry after
// entry, and everybody waits while the memtables are flushed.
//
// So a command that is known to touch a large row (storage.Store.LargeRow) is
// admitted to its queue only while those admitted before come to less than one
// large value; they count until they have been carried out and the state machine
// has room for as much again. Otherwise it is Busy: a client of the Redis protocol
// is not read until there is room, others get BUSY. Commands keep
// their order, small ones go on, and nothing of this is in the log: whoever leads
// decides for itself.
//
// Rejected: to queue them with the large commands. Small commands of the same
// connection that depend on them would go past.
type growth struct {
	admitted atomic.Int64 // bytes that count
	landed   atomic.Int64 // of commands among them that have an outcome
}

// admit counts bytes more, unless that is too much.
func (g *growth) admit(bytes int64, lim *limits) bool {
	if sum := g.admitted.Add(bytes); sum > bytes && sum > lim.growthBytes {
		g.admitted.Add(-bytes)
		return false
	}
	return true
}

// grower is who waits for a command that has been admitted.
type grower struct {
	of    *growth
	bytes int64
	done  completion
}

// Complete passes the outcome on.
func (g *grower) Complete(tag command.Tag, o command.Outcome, r *command.Result) {
	g.of.landed.Add(g.bytes)
	g.done.sink.Complete(tag, o, r)
}

// admitCommand admits a command that makes much of little, and returns who is to get
// its outcome in place of done. It returns false where the command is Busy. To
// commands of the kinds that make nothing it costs no more than looking at that.
func (g *growth) admitCommand(r *resources, shard int, c *command.Command, done completion) (completion, bool) {
	bytes := growthOf(r.store, shard, c)
	if bytes <= LargeBytes {
		return done, true
	}
	if !g.admit(bytes, &r.lim) {
		return done, false
	}
	return completion{&grower{g, bytes, done}, done.tag}, true
}

// growthOf returns about how many bytes of large rows c makes of a small request, as
// far as is known before it is carried out.
func growthOf(store *storage.Store, shard int, c *command.Command) (bytes int64) {
	switch c.Kind {
	case command.Append, command.IncrFloat, command.SetExpiry, command.Rename, command.Expire, command.Persist:
		return int64(store.LargeRow(shard, c.Key))
	case command.SetRange:
		bytes = int64(store.LargeRow(shard, c.Key))
		if end := int64(c.Offset) + int64(len(c.Value)); len(c.Value) > 0 && end <= command.ValueBytesMax {
			bytes = max(bytes, end)
		}
	case command.Batch, command.Txn:
		for i := range c.Ops {
			bytes += growthOf(store, shard, &c.Ops[i])
		}
		for i := range c.Else {
			bytes += growthOf(store, shard, &c.Else[i])
		}
	}
	return bytes
}

// withdraw takes back that a command was admitted which then was not queued.
func (g *growth) withdraw(waiting completion) {
	if w, ok := waiting.sink.(*grower); ok {
		g.admitted.Add(-w.bytes)
	}
}

// readmit lets others follow those that have been carried out, once the state
// machine has room; where it has none it hurries to make some, and calls flushed.
func (g *growth) readmit(store *storage.Store) {
	landed := g.landed.Load()
	if landed == 0 || !store.Room(int(landed)) {
		return
	}
	g.landed.Add(-landed)
	g.admitted.Add(-landed)
}
