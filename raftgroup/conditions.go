package raftgroup

import "sync/atomic"

// condition is a fact about a node.
type condition uint32

// The conditions of a node.
const (
	stopped  condition = 1 << iota // Close has begun
	failed                         // nothing is acknowledged any more; see Node.Failure
	leaving                        // the node is about to stop, and leads nothing
	slow                           // the log's disk stalls, and the node leads nothing
	clockOff                       // the wall clock is too far from the others'
	alone                          // the cluster has no other member
	upgraded                       // all members know all commands, see knowsKeys
	damage                         // some of the state has been found damaged

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

// conditions is a set of them that any thread may look at and change.
type conditions struct{ word atomic.Uint32 }

// is reports whether c holds.
func (s *conditions) is(c condition) bool { return s.word.Load()&uint32(c) != 0 }

// set makes c hold, and reports whether it did not before.
func (s *conditions) set(c condition) (changed bool) { return s.word.Or(uint32(c))&uint32(c) == 0 }

// clear ends c, and reports whether it held before.
func (s *conditions) clear(c condition) (changed bool) {
	return s.word.And(^uint32(c))&uint32(c) != 0
}

// put sets or clears c, and reports whether that changed it.
func (s *conditions) put(c condition, holds bool) (changed bool) {
	if holds {
		return s.set(c)
	}
	return s.clear(c)
}
