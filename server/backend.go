package server

import (
	"context"
	"net"

	"github.com/proa-kv/proa/access"
	"github.com/proa-kv/proa/bufpool"
	"github.com/proa-kv/proa/command"
)

// Backend is what the network layer needs from the shards. *raftgroup.Node
// satisfies it. Every method is safe for concurrent use.
type Backend interface {
	// ShardOf returns the shard that owns a slot (0..16383).
	ShardOf(slot uint16) int
	// Shards returns how many there are.
	Shards() int
	// NowMillis is the clock that decides expiry.
	NowMillis() uint64
	// ReadCached reads a row without waiting for anything; see ReadMiss. The
	// answer is linearizable: it is given only under a lease, or by a shard's
	// only voter. After ReadNotLeader a read index or another node helps.
	ReadCached(dst *bufpool.Buffer, shard int, key []byte, now uint64, valueMax int) (command.Row, command.ReadState)
	// Read is ReadCached that may wait for the disk.
	Read(dst *bufpool.Buffer, shard int, key []byte, now uint64, valueMax int) (command.Row, command.ReadState)
	// ReadIndex completes done with Applied once the replica here has caught up with
	// everything acknowledged before the call, and Dropped if that cannot be
	// known now. After an error done is not called: ErrNotLeader says that
	// there is no replica of the shard here, ErrNoQuorum and ErrStopped what
	// they say. Like Propose it needs a pass to run.
	ReadIndex(shard int, done command.Completer, tag command.Tag) error
	// ReadLocal reads whatever the replica here has: after a read index, and for
	// session and stale reads. ReadNotLeader: there is no replica here. It may
	// wait for the disk.
	ReadLocal(dst *bufpool.Buffer, shard int, key []byte, now uint64, valueMax int) (command.Row, command.ReadState)
	// ReadLocalCached is ReadLocal that waits for nothing; see ReadMiss.
	ReadLocalCached(dst *bufpool.Buffer, shard int, key []byte, now uint64, valueMax int) (command.Row, command.ReadState)
	// Age bounds how old, in milliseconds, what ReadLocal sees may be. false:
	// there is no replica here, or its age is not known.
	Age(shard int) (millis uint32, ok bool)
	// Revision is the highest version the replica here has seen of its shard.
	Revision(shard int) uint64
	// Leader is the node that leads the shard as far as is known here, this one
	// included; 0: unknown.
	Leader(shard int) uint64
	// Holds reports whether this node has a replica of the shard.
	Holds(shard int) bool
	// Epoch is the slot map's.
	Epoch() uint64
	// Forward opens a stream to another node, which takes it for a client's
	// (Server.ServeForwarded) and forwards nothing from it. It may block until
	// ctx ends.
	Forward(ctx context.Context, node uint64) (net.Conn, error)
	// Admin carries out an administrative request (see command.AdminStatus and
	// its neighbours) and may block until ctx ends. Errors wrap ErrInvalid,
	// ErrRefused, ErrTimeout, ErrNotLeader or ErrNoQuorum of package command.
	Admin(ctx context.Context, verb string, args []byte) ([]byte, error)
	// Scan visits rows in key order and may wait for the disk. Without Local
	// it returns ErrNotLeader, possibly after visits, unless this node may
	// answer for all the shards by itself.
	Scan(s *command.Scan, visit func(key, value []byte, row command.Row) bool) error
	// Propose queues a command, of which it keeps a copy. After an error
	// nothing happened; otherwise done gets the outcome, once.
	Propose(shard int, c *command.Command, done command.Completer, tag command.Tag) error
	// ProposeAcross is Propose for a Batch, Txn or Rename whose keys lie in
	// several shards, or a DeleteRange of all; shardOf says in which. All of it takes effect at once, or
	// none. Unless this node is its cluster's only one it returns ErrApart, or
	// done gets Apart; of a session's command that was carried out before, done
	// gets the result. After ErrNotLeader only a node that has the shard of
	// c.FirstKey knows.
	ProposeAcross(shardOf func(key []byte) int, c *command.Command, done command.Completer, tag command.Tag) error
	// Acquire makes the caller the driver, the one thread that runs group commits,
	// if anything is queued. After true the steps of Server.groupCommit must follow,
	// and then another Acquire: what is queued during a group commit finds no driver.
	Acquire() bool
	// Prepare makes log entries of what is queued and sends them to the other
	// nodes. It returns the write that must become durable (Sync), or nil: then the
	// caller goes on as the driver. It may deliver outcomes.
	Prepare() command.Write
	// Deliver delivers outcomes, after the write's Sync. True: the caller is the
	// driver, until it calls Release.
	Deliver(command.Write) bool
	Release()
	// Pending reports whether commands wait to be committed.
	Pending() bool
	// Kick has the backend's own thread drive.
	Kick()
	// Access returns the users and what they may do at the moment; nil: there are none.
	Access() *access.Policy
	// Topology says who serves what, with address as this server's own.
	Topology(address string) command.Topology
	// StatusJSON describes the node for operators.
	StatusJSON() ([]byte, error)
}
