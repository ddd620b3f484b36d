// Package raftgroup runs the Raft groups (shards) of a node: it takes commands
// in, orders them, makes them durable, carries them out and answers reads.
//
// # One pass
//
// The unit of work is a pass over all groups that have something to do:
//
//	collect   each group's queued commands become entries, all that is queued
//	          one entry (natural batching: no timer, nothing added when idle)
//	send      messages to other nodes leave
//	write     the entries and hard states of all groups: one log write,
//	          one fdatasync
//	apply     what is committed goes to the state machine, in one call
//	complete  each command's Completer hears its outcome
//
// Commands that arrive during a pass join the next one. So a lone client pays
// one fdatasync per write, and a thousand clients share one.
//
// # Who runs a pass
//
// Nobody in particular: the thread that brought a command in. [Node.Acquire]
// makes the caller the one thread that runs passes, and [Node.Run] then runs
// them until nothing waits. Handing a command to a thread of its own was
// measured at 30-60 µs a hop, half an fdatasync, and is what this design
// avoids (docs/adr/0001-network-layer.md). The node's own driver goroutine
// runs passes for ticks, and for callers that must not block.
//
// # Locks
//
// group.mu guards a group's queue and is held for the copy of one command. All
// Raft state belongs to whoever holds the pass (Acquire to the end of Run).
// Order: pass, then group.mu, then Node.mu. None is held across I/O but the
// pass itself.
package raftgroup
