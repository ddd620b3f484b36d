package engine

import (
	"math"
	"sync/atomic"

	"github.com/proa-kv/proa/command"
)

// View is what any thread may know of a shard's replica on this node. The conductor
// writes it; Condemn is for any thread.
type View struct {
	Held      atomic.Bool   // a replica is here
	Leads     atomic.Bool   // and leads the shard, and takes commands
	Sole      atomic.Bool   // there is no other replica
	NoQuorum  atomic.Bool   // there has been no leader for too long
	Broken    atomic.Bool   // its state is damaged, and the replica is out of use
	Leader    atomic.Uint64 // node
	Term      atomic.Uint64
	Committed atomic.Uint64
	Applied   atomic.Uint64 // index up to which entries have been applied, and marks taken
	Announced atomic.Uint64 // the highest commit index sent to other replicas
	Lease     atomic.Int64  // reads may be answered here until then, on Clock.Boot; LeaseForever: by the only voter
	Fresh     atomic.Int64  // the last moment as of which this replica is known to have applied everything acknowledged, on Clock.Boot
	Aged      atomic.Bool   // Fresh has been asked for; an engine that pays for it takes that back when it has looked

	ShardTime
}

// LeaseForever is the lease of the only voter, which begins when it has applied
// the first entry of its term.
const LeaseForever = math.MaxInt64

// Leased reports whether reads may be answered here now.
func (v *View) Leased(c Clock) bool {
	l := v.Lease.Load()
	return l == LeaseForever || (l != 0 && c.Boot() < l)
}

// Resign ends leadership and lease as far as other threads see.
func (v *View) Resign() {
	v.Leads.Store(false)
	v.Lease.Store(0)
}

// Condemn has the replica read no more. For any thread; Conductor.BreakDown follows.
func (v *View) Condemn() {
	v.Broken.Store(true)
	v.Held.Store(false)
	v.Resign()
}

// Refusal is why a shard without leadership here does nothing.
func (v *View) Refusal() error {
	switch {
	case v.Broken.Load() && v.Sole.Load():
		return command.ErrDamaged
	case v.NoQuorum.Load():
		return command.ErrNoQuorum
	}
	return command.ErrNotLeader
}
