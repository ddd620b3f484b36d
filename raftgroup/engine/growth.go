package engine

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
//
// Growth counts them. Its methods are safe for concurrent use.
type Growth struct {
	admitted atomic.Int64 // bytes that count
	landed   atomic.Int64 // of commands among them that have an outcome
}

// count counts bytes more, unless that is too much.
func (g *Growth) count(bytes int64, lim *Limits) bool {
	if sum := g.admitted.Add(bytes); sum > bytes && sum > lim.GrowthBytes {
		g.admitted.Add(-bytes)
		return false
	}
	return true
}

// grower is who waits for a command that has been admitted.
type grower struct {
	of    *Growth
	bytes int64
	done  Completion
}

// Complete passes the outcome on.
func (g *grower) Complete(tag command.Tag, o command.Outcome, r *command.Result) {
	g.of.landed.Add(g.bytes)
	g.done.Sink.Complete(tag, o, r)
}

// Admit admits a command that makes much of little, and returns who is to get
// its outcome in place of done. It returns false where the command is Busy. To
// commands of the kinds that make nothing it costs no more than looking at that.
func (g *Growth) Admit(store *storage.Store, lim *Limits, shard int, c *command.Command, done Completion) (Completion, bool) {
	bytes := growthOf(store, shard, c)
	if bytes <= LargeBytes {
		return done, true
	}
	if !g.count(bytes, lim) {
		return done, false
	}
	return Completion{&grower{g, bytes, done}, done.Tag}, true
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

// Withdraw takes back that a command was admitted which then was not queued.
func (g *Growth) Withdraw(waiting Completion) {
	if w, ok := waiting.Sink.(*grower); ok {
		g.admitted.Add(-w.bytes)
	}
}

// Readmit lets others follow those that have been carried out, once the state
// machine has room; where it has none it hurries to make some, and calls flushed.
func (g *Growth) Readmit(store *storage.Store) {
	landed := g.landed.Load()
	if landed == 0 || !store.Room(int(landed)) {
		return
	}
	g.landed.Add(-landed)
	g.admitted.Add(-landed)
}
