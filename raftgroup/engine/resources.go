package engine

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/proa-kv/proa/raftgroup/placement"
	"github.com/proa-kv/proa/raftlog"
	"github.com/proa-kv/proa/storage"
)

// Resources are what a node lends its engine. They are the node's, which opens them
// before and closes them after.
type Resources struct {
	Node   uint64 // its number
	Shards int    // without the meta group
	Limits *Limits
	Timing Timing

	Log       *raftlog.Log
	Store     *storage.Store
	Transport Transport
	Clock     Clock
	Logger    *slog.Logger

	Time    *ClusterTime
	State   *Conditions
	Growing *Growth
	Context context.Context // ends when the node is closed
}

// Meta is the number of the meta group.
func (r *Resources) Meta() int { return r.Shards }

// ShardName is how errors name a shard.
func (r *Resources) ShardName(shard int) string { return placement.ShardName(shard, r.Shards) }

// ShardLogger logs about a shard.
func (r *Resources) ShardLogger(shard int) *slog.Logger {
	return ShardLogger(r.Logger, shard, r.Shards)
}

// ShardLogger has l log about a shard of so many.
func ShardLogger(l *slog.Logger, shard, shards int) *slog.Logger {
	if shard == shards {
		return l.With("shard", placement.MetaName)
	}
	return l.With("shard", shard)
}

// Limits bound what an engine takes in.
type Limits struct {
	QueueOps    int // commands queued in one shard
	QueueBytes  int
	BatchOps    int // commands in one entry
	BatchBytes  int
	EntryBytes  int    // of one command
	GrowthBytes int64  // that commands of one shard make of little at a time; see Growth
	TurnBytes   int    // that commands over several shards read and make at a time
	LogBytes    int64  // of the log, past which it is cut without regard to those that are behind
	LogTrailing uint64 // entries that are kept for them
}

// Timing is what an engine's times are made of.
type Timing struct {
	Heartbeat   time.Duration // between heartbeats
	ElectionMin time.Duration // the shortest election timeout
	Timeout     time.Duration // a command that is not decided after it is TimedOut
	ClockDrift  float64       // how much faster one node's clock may run than another's
	Started     int64         // when the node was, on Clock.Boot
}

// Transport carries what engines send each other. Its methods must not block, and but for
// those of Frames they are called by one thread at a time.
type Transport interface {
	Frames
	// Send takes a message on its way to a node; it may go no earlier than
	// Transmit. What cannot be delivered is dropped, and reported by Unreachable.
	// The message and its entries are the caller's again afterwards.
	Send(node uint64, shard uint32, m *raftpb.Message)
	Transmit()
	// SendSnapshot begins to send s and returns; it calls s.Done in the end.
	SendSnapshot(node uint64, s OutgoingSnapshot)
	// Expel ends the connection from a node, which has sent what err says; it
	// may come back.
	Expel(node uint64, err error)
}

// Frames carries messages between engines that encode them themselves. Its methods may be
// called from any goroutine.
type Frames interface {
	// SendFrame takes a frame on its way to a node, whose engine's ReceiveFrame gets
	// it. The frame is the transport's from then on. Frames from one goroutine arrive
	// in order or not at all; after an error this one does not, and Unreachable
	// tells it too.
	SendFrame(node uint64, frame []byte) error
	// Connected returns nil if frames can be sent to a node now.
	Connected(node uint64) error
}

// OutgoingSnapshot is a snapshot on its way to a follower.
type OutgoingSnapshot interface {
	// Context ends when the transfer has lost its sense.
	Context() context.Context
	// Header returns what the receiver's BeginSnapshot takes.
	Header() []byte
	// Export writes the snapshot from where token says that the receiver has it.
	Export(token []byte, write func([]byte) error) error
	// Done says how the transfer has ended. It must be called once Export is not
	// running any more.
	Done(err error)
}

// IncomingSnapshot is a snapshot that is being received. Its methods are for
// one goroutine.
type IncomingSnapshot interface {
	// Write takes in a chunk.
	Write(chunk []byte) error
	// Finish checks that all has come, and hands the snapshot to the group. It
	// does not wait for the group to put it in place.
	Finish() error
	// Abort ends a transfer that broke off. What has been staged is kept for the
	// next attempt.
	Abort()
}

// ErrSnapshotUnwanted refuses a snapshot.
var ErrSnapshotUnwanted = errors.New("the snapshot was refused")
