package raftgroup

import (
	"context"
	"math"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup/placement"
)

// engine runs the Raft groups of a node's shards: it orders commands, makes them
// durable on a majority, has the state machine carry them out, and delivers their
// outcomes. What the cluster looks like, and should look like, is the control plane's:
// the engine asks it by way of engineHost and tells it what has happened.
//
// Who owns what: all Raft state is the engine's and is changed by one thread at a time,
// the conductor: whoever runs the pass. Methods of conductor, and those of engineHost
// where nothing else is said, are called by it alone. Everything else is safe for
// concurrent use. What any thread may know of a replica without asking is its view.
// Log, state machine, transport and clock are the node's (resources) and are shared.
type engine interface {
	committer
	receiver
	conductor

	// Open opens the replicas that log and state machine hold, elects this node where
	// it is the only voter, and carries out what the state machine lacks. restarted
	// says that the node has run before, and may have made promises.
	Open(restarted bool) error
	// Close ends everything that waits. It fails with ErrUnwritten when ctx ends before a
	// commit under way has.
	Close(ctx context.Context) error

	// Propose queues a command of a shard that is led here; it is copied. done gets its
	// outcome, once, unless an error is returned: ErrBusy or ErrTooLarge. A commit must
	// then be run: by Acquire, or by the node's driver.
	Propose(shard int, c *command.Command, done command.Completer, tag command.Tag) error
	// ProposeAcross is Propose for a command over several shards, and returns ErrApart
	// where it cannot be carried out at once.
	ProposeAcross(shardOf func(key []byte) int, c *command.Command, done command.Completer, tag command.Tag) error
	// ReadIndex completes done with Applied once the replica here has applied everything
	// that was acknowledged before the call, or with Dropped if that cannot be known now.
	// It fails with ErrNotLeader where no replica is held here, ErrNoQuorum, ErrStopped
	// and ErrFailed; done is not called then. Like Propose it needs a group commit.
	ReadIndex(shard int, done command.Completer, tag command.Tag) error

	// Tick has the next pass advance Raft's clock by one, every tickInterval.
	Tick()
	tickInterval() time.Duration
	// post has f called by the conductor, soon.
	post(f func())
	// wake has a pass run, soon, although nothing is due.
	wake()
	// cutLog has the log cut, soon, behind what the state machine holds durably.
	cutLog()
	// makeRoom has the log cut now, for a Save that cannot go on for want of room.
	makeRoom()

	// writeRest writes what Close has left for the log, which need not be durable.
	writeRest() error

	counters() engineCounters
	shardCounters(shard int) shardCounters
}

// committer is the engine as the driver of a group commit sees it; server.Backend
// says in which order.
type committer interface {
	Pending() bool
	Acquire() bool
	Prepare() command.Write
	Deliver(w command.Write) bool
	Release()
	Run()
	runAll()
}

// receiver is the engine as the transport sees it.
type receiver interface {
	Receive(from uint64, shard uint32, m raftpb.Message)
	ReceiveDone(from uint64)
	Unreachable(node uint64)
	BeginSnapshot(from uint64, header []byte) (*IncomingSnapshot, []byte, error)
}

// conductor is what the control plane has a group's replica do. None of it waits: a
// later tick sees what has come of it, and asks again.
type conductor interface {
	// replica describes the replica of a shard. Its configuration must not be changed
	// and is valid until the engine goes on.
	replica(shard int) replicaState
	// successors returns the voters that could lead a shard at once, and caughtUp
	// whether a replica lacks few entries. Both ask the shard's leader: this node.
	successors(shard int) []uint64
	caughtUp(shard int, replica uint64) bool
	// transferLeadership begins to hand the leadership of a shard over.
	transferLeadership(shard int, to uint64)
	// changeConfiguration proposes a change of a shard's configuration.
	changeConfiguration(shard int, c raftpb.ConfChangeV2) error
	// retire removes the replica of a shard, which its group knows no more, and all that
	// it holds, as far as that is possible now.
	retire(shard int) error
	// breakDown puts the replica of a shard out of use if its state is damaged and
	// there are others.
	breakDown(shard int)
	// applying returns, during the call of a Completer, the index of the entry with the
	// command.
	applying(shard int) uint64
}

// engineHost is the control plane as the engine sees it.
type engineHost interface {
	// fail stops the node. For any thread.
	fail(err error)
	// Flush has the state machine begin to make durable what it holds. For any thread.
	Flush()
	// Kick has the node's driver run a group commit, Drive runs all that is due. For any thread.
	Kick()
	Drive()

	// noteFsync takes in how long a write of the log has taken. For any thread.
	noteFsync(took time.Duration)
	// heard notes a sign of life of a node, and lost that messages to it may have been
	// lost. For any thread.
	heard(node uint64)
	lost(node uint64)

	// keepTime moves the cluster's time; it begins a tick, and tickCluster ends it.
	keepTime()
	tickCluster()
	// mapApplied takes in that rows of the meta group have changed.
	mapApplied() error
	// markApplied takes in that a replica has applied a mark, at an index.
	markApplied(shard int, index uint64)
	// replicaDown takes in that a replica here has been put out of use.
	replicaDown()

	// wanted reports whether the map wants this very replica here.
	wanted(shard int, replica uint64) bool
	// shardRow returns where the replicas of a shard must be.
	shardRow(shard int) placement.Shard
	// leaderOf returns the node that says that it leads a shard, 0 if none does.
	leaderOf(shard int) uint64
	// reconcile brings the configuration of a shard that is led here one step nearer to
	// what the map says, if a step is possible.
	reconcile(shard int)
}

// replicaState is a shard's replica on this node as the conductor finds it.
type replicaState struct {
	id      uint64 // 0: none is open
	lost    uint64 // the replica whose state is lost, and which is not open for that; 0: none
	role    string // roleLeader …
	applied uint64
	conf    *raftpb.ConfState
	durable bool // it is durable here that conf is committed
	down    bool // it is out of use, because its state is damaged
	handing bool // its leadership is on its way to another
	noLease bool // it has no lease for the rest of its term
}

// engineCounters count since the start.
type engineCounters struct {
	passes, fsyncs, fsyncNanos uint64
	entries                    uint64 // that Open carried out
	damaged                    uint64 // operations of them that damage kept from being carried out
}

// shardCounters are about one shard.
type shardCounters struct {
	first, last uint64 // of the log
	queued      int    // commands
}

// view is what any thread may know of a shard's replica on this node. The conductor
// writes it; condemn is for any thread.
type view struct {
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
	Lease     atomic.Int64  // reads may be answered here until then, on Clock.Boot; leaseForever: by the only voter
	Fresh     atomic.Int64  // the last moment as of which this replica is known to have applied everything acknowledged, on Clock.Boot

	shardTime
}

// leaseForever is the lease of the only voter, which begins when it has applied
// the first entry of its term; see leaseAlone.
const leaseForever = math.MaxInt64

// leased reports whether reads may be answered here now.
func (v *view) leased(c Clock) bool {
	l := v.Lease.Load()
	return l == leaseForever || (l != 0 && c.Boot() < l)
}

// resign ends leadership and lease as far as other threads see.
func (v *view) resign() {
	v.Leads.Store(false)
	v.Lease.Store(0)
}

// condemn has the replica read no more. For any thread; conductor.breakDown follows.
func (v *view) condemn() {
	v.Broken.Store(true)
	v.Held.Store(false)
	v.resign()
}

// refusal is why a shard without leadership here does nothing.
func (v *view) refusal() error {
	switch {
	case v.Broken.Load() && v.Sole.Load():
		return command.ErrDamaged
	case v.NoQuorum.Load():
		return command.ErrNoQuorum
	}
	return command.ErrNotLeader
}

// shardTime is the time of one shard, in Unix milliseconds; see clusterTime.
type shardTime struct {
	LastStamp atomic.Uint64 // time never goes back behind it
	Ahead     atomic.Uint64 // that the shard's time is ahead of the node's
	aheadAt   uint64        // the node's time when Ahead was last looked at; belongs to the conductor
}

// now is the shard's time: the node's, unless what was applied here bears a later
// stamp.
func (t *shardTime) now(node uint64) uint64 { return max(node+t.Ahead.Load(), t.LastStamp.Load()) }

// keep works out how far the shard's time is ahead of the node's; stamp is the newest
// that was applied. What it was ahead shrinks by slewShare of the time that has elapsed
// since the last call. For the conductor.
func (t *shardTime) keep(stamp, node uint64) {
	stamp = max(stamp, t.LastStamp.Load())
	ahead := uint64(0)
	if stamp > node {
		ahead = stamp - node
	}
	lead := t.Ahead.Load()
	t.aheadAt = min(t.aheadAt, node) // the time may have been set back
	if elapsed := node - min(node, t.aheadAt); elapsed >= slewShare {
		lead -= min(lead, elapsed/slewShare)
		t.aheadAt = node
	}
	if lead = max(lead, ahead); lead != t.Ahead.Load() {
		t.Ahead.Store(lead)
	}
}
