package raftgroup

import "github.com/proa-kv/proa/raftgroup/engine"

// The conditions of a node that do not concern its engine; see engine.Condition.
const (
	leaving  = engine.ControlPlane << iota // the node is about to stop, and leads nothing
	clockOff                               // the wall clock is too far from the others'

	// Under way, one at a time.
	flushing    // a flush of the state
	controlling // a change of the map
	announcing  // the announcement of this node's addresses
	summing     // a checksum, which has a view open
	remembering // writing what is known of other nodes' runs

	// Due.
	greetDue // another node has come up, and must get a report at once
	peerLost // a node has become unreachable since remember looked last
)
