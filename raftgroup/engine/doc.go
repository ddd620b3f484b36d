// Package engine has the interface between the two halves of a node, and what every
// engine shares.
//
// The engine runs the Raft groups of a node's shards (raftgroup/etcd). The control plane
// knows the cluster and what it should look like (raftgroup). Each knows the other by one
// interface: Engine and Host.
//
// # Who owns what
//
// All Raft state is the engine's and is changed by one thread at a time, the conductor:
// whoever runs the pass. Methods of Conductor, and those of Host where nothing else is
// said, are called by it alone. Everything else is safe for concurrent use. What any thread
// may know of a replica without asking is its View. Log, state machine, transport and clock
// are the node's (Resources) and are shared; the cluster's time (ClusterTime) and the
// node's conditions (Conditions) are moved by the control plane.
//
// # What engines share
//
//	configuration.go  who belongs to a group, and changes of it
//	view.go, time.go  what any thread may know; the time that decides expiry
//	queue.go          commands that wait to become entries, and who waits for them
//	applier.go        committed entries go to the state machine, outcomes to who waits
//	growth.go         bounds of small commands that make large rows
//	conditions.go     facts about the node
//	ticks.go          times in ticks, for engines that count so
//
// # What is left of etcd's raft
//
// Messages between nodes are raftpb.Message (Receiver.Receive, Transport.Send), as the
// log's entries and hard states are (raftlog): what an engine of another library writes is
// converted to it; what it sends goes in frames of its own (Receiver.ReceiveFrame,
// Transport.SendFrame). Nothing else here names a library.
package engine
