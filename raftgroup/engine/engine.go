package engine

import (
	"context"
	"errors"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup/placement"
)

// Engine runs the Raft groups of a node's shards: it orders commands, makes them
// durable on a majority, has the state machine carry them out, and delivers their
// outcomes. What the cluster looks like, and should look like, is the control plane's:
// the engine asks it by way of Host and tells it what has happened.
//
// Shards are numbered from 0; the meta group comes after the last.
type Engine interface {
	Committer
	Receiver
	Conductor

	// Open opens the replicas that log and state machine hold, elects this node where
	// it is the only voter, and carries out what the state machine lacks. An engine that
	// is not etcd's begins the first replicas of a founder (Host.ShardRow); those of
	// etcd's are in the log.
	Open(b Beginning) error
	// Close ends everything that waits. It fails with ErrUnwritten when ctx ends before a
	// commit under way has.
	Close(ctx context.Context) error
	// WriteRest writes what Close has left for the log, which need not be durable.
	WriteRest() error

	// Propose queues a command of a shard that is led here; it is copied. done gets its
	// outcome, once, unless an error is returned: ErrBusy or ErrTooLarge. A commit must
	// then be run: by Acquire, or by the node's driver.
	Propose(shard int, c *command.Command, done command.Completer, tag command.Tag) error
	// ProposeAcross hands over a Batch or Txn whose keys may lie in several shards,
	// which is carried out all at once, a Rename between two shards, or a DeleteRange
	// of all of them that is of no session and has a result for each. shardOf
	// says to which shard a key belongs. It is otherwise like Propose.
	//
	// It returns ErrApart, or done gets Apart, where this cannot be done (only a node that
	// is alone can): nothing happened, nor by an earlier attempt of the session. If one was
	// carried out, done gets its outcome. After ErrNotLeader only a node with a
	// replica of the shard of the first key (command.FirstKey) can tell. A Rename
	// between two shards cannot be within a session: what it was to find is not
	// remembered.
	ProposeAcross(shardOf func(key []byte) int, c *command.Command, done command.Completer, tag command.Tag) error
	// ReadIndex completes done with Applied once the replica here has applied everything
	// that was acknowledged before the call, or with Dropped if that cannot be known now.
	// It fails with ErrNotLeader where no replica is held here, ErrNoQuorum, ErrStopped
	// and ErrFailed; done is not called then. Like Propose it needs a group commit.
	ReadIndex(shard int, done command.Completer, tag command.Tag) error

	// Tick has the next pass advance Raft's clock by one, every TickInterval.
	Tick()
	TickInterval() time.Duration
	// Post has f called by the conductor, soon.
	Post(f func())
	// Wake has a pass run, soon, although nothing is due.
	Wake()
	// CutLog has the log cut, soon, behind what the state machine holds durably.
	CutLog()
	// MakeRoom has the log cut now, for a Save that cannot go on for want of room.
	MakeRoom()

	// Views returns what any thread may know of each shard, for the engine's life.
	Views() []*View
	Counters() Counters
	ShardCounters(shard int) ShardCounters
}

// Beginning is how a node comes to be opened.
type Beginning byte

// The beginnings.
const (
	Founds    Beginning = iota // for the first time, as one of those that found the cluster
	Joins                      // for the first time, in a cluster that has been founded
	Restarted                  // again: it may have made promises
)

// ErrUnwritten says that a node was closed before all of its state was written:
// the log has what was acknowledged. The directory stays locked until the
// process ends.
var ErrUnwritten = errors.New("the shutdown timeout expired before the state was written")

// Committer is the engine as the driver of a group commit sees it; server.Backend
// says in which order.
type Committer interface {
	// Pending reports whether a pass has something to do.
	Pending() bool
	// Acquire makes the caller the one thread that runs the pass, if there is
	// something to do and no other thread does it. While the log is written commands
	// wait, to join one next entry; messages do not. After true the caller must call
	// Prepare, as in Run. After false nothing need be done: the thread that runs the
	// pass, or writes the log, will see what is due.
	Acquire() bool
	// Prepare takes in messages, ticks and finished writes, applies what has been
	// committed, makes log entries of the queued commands, and sends messages to other
	// nodes. It returns the write of the log that must be made durable, having given up
	// the pass; or nil, and the caller still runs the pass.
	Prepare() command.Write
	// Deliver applies what Raft has committed since the write is durable, and passes
	// outcomes to those who wait for them. It returns true if the caller runs the pass,
	// also without a write, and must call Release: commands that arrive while replies
	// are written then join one next entry, instead of several small ones. Otherwise
	// another thread runs the pass, and delivers.
	Deliver(w command.Write) bool
	// Release gives up the pass.
	Release()
	// Run runs one group commit, which the caller has acquired, for a node whose outcomes
	// need no further step; a server puts its own steps between (server.Server.groupCommit).
	// The caller should then try Acquire again: what became due meanwhile found nobody to
	// run it.
	Run()
}

// Receiver is the engine as the transport sees it.
type Receiver interface {
	// Receive hands over one message of another node for a shard; m and its
	// entries belong to the engine from then on. ReceiveDone must follow, once for
	// any number of messages. A message that no correct node sends costs its sender
	// the connection.
	Receive(from uint64, shard uint32, m raftpb.Message)
	// ReceiveDone says that the messages handed over may be worked on; the caller
	// then tries Acquire and Run.
	ReceiveDone(from uint64)
	// ReceiveFrame takes in a frame of another node's SendFrame, which belongs to
	// the engine from then on. Nothing else need be called. An error ends the
	// connection from that node, which may come back.
	ReceiveFrame(from uint64, frame []byte) error
	// Unreachable says that messages to a node may have been lost.
	Unreachable(node uint64)
	// BeginSnapshot begins to receive a snapshot that another node sends, and
	// returns the token that says from where it is still needed. Errors wrap
	// ErrSnapshotUnwanted or ErrStopped, or are the store's.
	BeginSnapshot(from uint64, header []byte) (IncomingSnapshot, []byte, error)
}

// Conductor is what the control plane has a group's replica do. None of it waits: a
// later tick sees what has come of it, and asks again.
type Conductor interface {
	// Replica describes the replica of a shard, until the engine goes on.
	Replica(shard int) Replica
	// Successors returns the voters that could lead a shard at once, and CaughtUp
	// whether a replica lacks few entries. Both ask the shard's leader: this node.
	Successors(shard int) []uint64
	CaughtUp(shard int, replica uint64) bool
	// TransferLeadership begins to hand the leadership of a shard over.
	TransferLeadership(shard int, to uint64)
	// ChangeConfiguration proposes a change of a shard's configuration. It may be lost
	// without an error.
	ChangeConfiguration(shard int, c Changes) error
	// Retire removes the replica of a shard, which its group knows no more, and all that
	// it holds, as far as that is possible now.
	Retire(shard int) error
	// BreakDown puts the replica of a shard out of use if its state is damaged and
	// there are others.
	BreakDown(shard int)
	// Applying returns, during the call of a Completer, the index of the entry with the
	// command.
	Applying(shard int) uint64
}

// Host is the control plane as the engine sees it.
type Host interface {
	// Fail stops the node. For any thread.
	Fail(err error)
	// RolledBack marks the data directory as of no more use: a leader has shown that it
	// has lost what it had confirmed. The engine fails then.
	RolledBack()
	// Flush has the state machine begin to make durable what it holds. For any thread.
	Flush()
	// Kick has the node's driver run a group commit, Drive runs all that is due. For any thread.
	Kick()
	Drive()

	// NoteFsync takes in how long a write of the log has taken. For any thread.
	NoteFsync(took time.Duration)
	// Heard notes a sign of life of a node, and Lost that messages to it may have been
	// lost. For any thread.
	Heard(node uint64)
	Lost(node uint64)

	// KeepTime moves the cluster's time; it begins a tick, and TickCluster ends it.
	KeepTime()
	TickCluster()
	// MapApplied takes in that rows of the meta group have changed.
	MapApplied() error
	// MarkApplied takes in that a replica has applied a mark, at an index.
	MarkApplied(shard int, index uint64)
	// ReplicaDown takes in that a replica here has been put out of use.
	ReplicaDown()

	// Wanted reports whether the map wants this very replica here.
	Wanted(shard int, replica uint64) bool
	// ShardRow returns where the replicas of a shard must be.
	ShardRow(shard int) placement.Shard
	// LeaderOf returns the node that says that it leads a shard, 0 if none does.
	LeaderOf(shard int) uint64
	// Reconcile brings the configuration of a shard that is led here one step nearer to
	// what the map says, if a step is possible.
	Reconcile(shard int)
}

// What a replica does in its group.
const (
	RoleLeader    = "leader"
	RoleFollower  = "follower"
	RoleLearner   = "learner"
	RoleCandidate = "candidate"
)

// Replica is a shard's replica on this node as the conductor finds it.
type Replica struct {
	ID      uint64 // 0: none is open
	Lost    uint64 // the replica whose state is lost, and which is not open for that; 0: none
	Role    string // RoleLeader …
	Applied uint64
	Conf    Configuration
	Durable bool // it is durable here that Conf is committed
	Down    bool // it is out of use, because its state is damaged
	Handing bool // its leadership is on its way to another
	NoLease bool // it has no lease for the rest of its term
}

// Counters count since the start.
type Counters struct {
	Passes, Fsyncs, FsyncNanos uint64
	Entries                    uint64 // that Open carried out
	Damaged                    uint64 // operations of them that damage kept from being carried out
}

// ShardCounters are about one shard.
type ShardCounters struct {
	First, Last uint64 // of the log
	Queued      int    // commands
}
