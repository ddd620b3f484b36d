// Package raftgroup runs the Raft groups (shards) of a node: it accepts
// commands, orders them, makes them durable on a majority, applies them and
// answers reads. It also manages the membership and placement of the cluster.
//
// A Node has two halves. The control plane knows the cluster and what it should look
// like. The engine (etcdEngine) runs the Raft groups. Each knows the other by one
// interface: engine and engineHost, in engine.go.
//
// Where to look:
//
//	node.go, engine.go    the node, and where its halves meet
//	read.go               reads, and when a replica may answer them
//
// The engine:
//
//	etcd.go, readyloop.go the engine, and the passes over its groups
//	group.go, proposals.go
//	                      one group: Raft; its commands, queued and in flight
//	lease.go              leases and read indexes
//	receive.go            messages from other nodes
//	snapshot.go           followers that lag behind the log
//	membership.go         the replica of a group, from its beginning to its end
//	transfer.go           a leadership on its way to another replica
//	damaged.go            replicas whose state is damaged on disk
//	across.go             commands over several shards
//
// The control plane:
//
//	placement             pure decisions: the map (the meta group's rows), who gets
//	                      replicas, votes and leaderships, who joins and leaves
//	cluster.go            reads the map, and proposes changes of it
//	control.go            the meta group's leader carries placement's decisions out
//	reconcile.go          configurations become what the map requires
//	leadership.go, disk.go
//	                      which leaderships are given away, and why
//	report.go, changes.go status reports between nodes, and their format
//	picture.go            what this node knows of others, and its age
//	status.go, cluster_status.go
//	                      status of this node and of the cluster
//	admin.go              administrative requests
//	admit.go, runs.go     which peers are let in: joining, proofs, old copies
//	checksum.go           checks that replicas are equal (A1)
//	clustertime.go        the time that decides expiry
//	datadir               the data directory: identity, forming or joining a
//	                      cluster, verification and recovery while stopped
//	call                  requests between nodes
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
// snapshots, membership and replicaDamage; the control plane of driver, members,
// reportExchange, controller, admin, timekeeper and diskWatch. Each part has a file, owns
// its fields, and knows the whole, of which its methods are a part.
//
// # Locks
//
// queue.mu guards a group's queue and is held for the copy of one command; inbox.mu its
// messages; schedule.mu the lists of groups with work. All Raft state belongs to whoever
// holds the pass. Order: pass, then queue.mu, inbox.mu or schedule.mu, of which none is
// held with another, then members.mu or crossShard.mu, then pictures.mu. None is held
// while the log is written.
package raftgroup
