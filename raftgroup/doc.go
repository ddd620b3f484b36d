// Package raftgroup runs the Raft groups (shards) of a node: it accepts
// commands, orders them, makes them durable on a majority, applies them and
// answers reads. It also manages the membership and placement of the cluster.
//
// Where to look:
//
//	node.go, pass.go      the node, and the pass over its groups
//	group.go              one group: its queue, Raft, what is in flight
//	lease.go, read.go     who may answer a read, and when
//	receive.go            messages of other nodes
//	snapshot.go           followers that are behind the log
//	replicas.go           configurations: towards what the map says
//	damaged.go            replicas whose state is damaged on disk
//	cluster.go            the map: the meta group's rows
//	control.go            what the map shall say
//	transfer.go, disk.go  leaderships: given away, and why
//	report.go, changes.go what nodes tell each other of themselves, and in which form
//	picture.go            what is known of the nodes, and how old it is
//	status.go, cluster_status.go
//	                      what this node, and the cluster, is told to be like
//	admin.go              what operators ask for
//	form.go, identity.go  coming into a cluster; what a directory is
//	checksum.go           that replicas are equal (A1)
//	recover.go, verify.go directories of nodes that are stopped
//
// # One pass
//
// The unit of work is a pass over all groups that have something to do:
//
//	serve     messages of other nodes, ticks and finished log writes are taken
//	          in; what is committed goes to the state machine, in one call;
//	          each command's Completer hears its outcome
//	propose   each group's queued commands become entries, all that is queued
//	          one entry (natural batching: no timer, nothing added when idle)
//	send      messages to other nodes leave
//	write     the entries and hard states of all groups: one log write, one
//	          fdatasync, without the pass: others may serve meanwhile
//
// Commands that arrive during a write join the next entry. A single client pays
// one fdatasync per write, and a thousand clients share one.
//
// # Who runs a pass
//
// The thread that submitted a command. [Node.Acquire] makes the caller the one
// thread that runs passes, and [Node.Run] then runs them until no command
// waits. Handing a command to another thread was measured at 30-60 µs per hop,
// half an fdatasync, and this design avoids it
// (docs/adr/0001-network-layer.md). The node's own driver goroutine runs passes
// for ticks, and for callers that must not block.
//
// # Locks
//
// group.mu guards a group's queue and is held for the copy of one command. All
// Raft state belongs to whoever holds the pass. Order: pass, then group.mu, then
// Node.mu, then pictures.mu. None is held while the log is written.
package raftgroup
