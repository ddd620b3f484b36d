// Package dragonboat is the Raft engine made of lni/dragonboat (see raftgroup/engine): one
// NodeHost for the groups of a node, with one step worker and one apply worker.
//
// Where to look:
//
//	engine.go          the engine; its beginning and its end
//	host.go            the NodeHost: its configuration, what it tells, how it fails
//	pass.go            the conductor's work, and who does it
//	shard.go           one shard: commands, queued and in flight
//	statemachine.go    dragonboat's on-disk state machine over the node's store
//	reads.go, lease.go read indexes, and leases made of them
//	messages.go        what is seen, and kept out, of messages between nodes
//	stream.go          snapshots on their way to another node
//	replicas.go        the replica of a shard, from its beginning to its end
//	membership.go      configurations, changes of them, leaderships handed over
//	cut.go             the log is cut
//
// Packages below: logdb, the log database over the node's raft log; transport, the
// encoding of messages; hostfs, what a NodeHost does with files.
//
// # A write
//
// The thread that has read requests runs a pass (Acquire, Prepare), which makes one
// proposal of all that is queued in a shard. The step worker takes the proposals of all
// shards, sends them, and saves them with one fdatasync. The apply worker carries out what
// is committed, delivers the outcomes, and has a pass write the replies. A proposal is
// known again by a number at its end: which start of which node made it, and which of its
// proposals it was; so no channel waits for it.
//
// # Threads
//
// Raft's state belongs to dragonboat's workers. What the engine keeps belongs to the
// conductor, whoever runs the pass, if nothing else is said. Workers never wait for a pass
// but for the rare entries that the control plane must see at once (rows of the meta group,
// marks); a pass never waits for a worker. Whatever of dragonboat waits for its own workers
// or for the disk, starting and ending replicas, is done by one goroutine, the keeper.
package dragonboat
