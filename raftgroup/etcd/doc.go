// Package etcd is the Raft engine made of etcd's raft (see raftgroup/engine): it runs all
// groups of a node, pass by pass, with one write of the log for all of them.
//
// Where to look:
//
//	engine.go, readyloop.go
//	                      the engine, and the passes over its groups
//	schedule.go           the work that waits for a pass, and who runs it
//	group.go, proposals.go
//	                      one group: Raft; its commands, queued and in flight
//	large.go              large commands, one at a time
//	lease.go              leases and read indexes
//	receive.go, validate.go
//	                      messages from other nodes, and what is believed of them
//	snapshot.go           followers that lag behind the log
//	membership.go         the replica of a group, from its beginning to its end
//	transfer.go           a leadership on its way to another replica
//	damaged.go            replicas whose state is damaged on disk
//	across.go, recall.go  commands over several shards
//
// # One pass
//
// The unit of work is a pass over all groups that have something to do:
//
//	serve     messages from other nodes, ticks and finished log writes are taken
//	          in; what is committed goes to the state machine, in one call;
//	          each command's Completer gets its outcome
//	propose   each group's queued commands become entries: as a rule one, of all
//	          that is queued (natural batching: no timer, nothing added when idle)
//	send      messages to other nodes are sent
//	write     the entries and hard states of all groups: one log write, one
//	          fdatasync, without the pass: others may serve meanwhile
//
// Commands that arrive during a write join the next entry. A single client pays
// one fdatasync per write, and a thousand clients share one.
//
// # Who runs a pass
//
// The thread that submitted a command. Acquire makes the caller the one thread that
// runs a pass; then come Prepare, the write's Sync, Deliver and Release, between which a
// server does its own work (server.Server.groupCommit); Run is all of them for a node
// without a server. Whoever has run a pass tries Acquire again. Handing a command to
// another thread was measured at 30-60 µs per hop, half an fdatasync, and this design
// avoids it
// (docs/adr/0001-network-layer.md). The node's own driver goroutine runs passes
// for ticks, and for callers that must not block.
//
// # Parts
//
// The engine is made of readyLoop and crossShard, a group of proposals, leaseState,
// snapshots, membership and replicaDamage. Each part has a file, owns its fields, and
// knows the whole, of which its methods are a part.
//
// # Locks
//
// The queue's lock is held for the copy of one command; inbox.mu guards a group's
// messages; schedule.mu the lists of groups with work. All Raft state belongs to whoever
// holds the pass. Order: pass, then the queue's, inbox.mu or schedule.mu, of which none is
// held with another, then crossShard.mu or what the control plane locks. None is held
// while the log is written.
package etcd
