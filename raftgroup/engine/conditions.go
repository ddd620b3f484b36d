package engine

import (
	"sync/atomic"

	"github.com/proa-kv/proa/command"
)

// Condition is a fact about a node.
type Condition uint32

// The conditions of a node that concern its engine too. The control plane sets all of
// them, and the engine Damaged as well.
const (
	Stopped  Condition = 1 << iota // the node's end has begun
	Failed                         // nothing is acknowledged any more
	Slow                           // the log's disk stalls, and the node leads nothing
	Alone                          // the cluster has no other member
	Upgraded                       // all members know all commands
	Damaged                        // some of the state has been found damaged

	// ControlPlane is the first of the conditions that concern the control plane only.
	ControlPlane
)

// Conditions is a set of them that any thread may look at and change.
type Conditions struct{ word atomic.Uint32 }

// Is reports whether c holds.
func (s *Conditions) Is(c Condition) bool { return s.word.Load()&uint32(c) != 0 }

// Set makes c hold, and reports whether it did not before.
func (s *Conditions) Set(c Condition) (changed bool) { return s.word.Or(uint32(c))&uint32(c) == 0 }

// Clear ends c, and reports whether it held before.
func (s *Conditions) Clear(c Condition) (changed bool) {
	return s.word.And(^uint32(c))&uint32(c) != 0
}

// Put sets or clears c, and reports whether that changed it.
func (s *Conditions) Put(c Condition, holds bool) (changed bool) {
	if holds {
		return s.Set(c)
	}
	return s.Clear(c)
}

// Unusable says why the node can do nothing, nil where it can: ErrFailed or ErrStopped.
func (s *Conditions) Unusable() error {
	switch {
	case s.Is(Failed):
		return command.ErrFailed
	case s.Is(Stopped):
		return command.ErrStopped
	}
	return nil
}
