// Package raftgroup is a node: the Raft groups (shards) of a server, and their part in a
// cluster. It accepts commands, has them ordered, made durable on a majority and applied,
// and answers reads. It also manages the membership and placement of the cluster.
//
// A Node has two halves. The control plane, this package, knows the cluster and what it
// should look like. The engine (raftgroup/etcd) runs the Raft groups. Each knows the other
// by one interface: engine.Engine and engine.Host.
//
// Where to look:
//
//	node.go, host.go      the node, and what its engine sees of it
//	driver.go             ticks, and group commits that nobody else runs
//	read.go               reads, and when a replica may answer them
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
// # Parts
//
// The control plane is made of driver, members, reportExchange, controller, admin,
// timekeeper and diskWatch. Each part has a file, owns its fields, and knows the node, of
// which its methods are a part.
//
// # Locks
//
// members.mu, then pictures.mu; either may be taken by who holds the pass (see
// raftgroup/etcd), and neither is held while the log is written.
package raftgroup
