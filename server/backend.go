package server

import (
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
	// ReadCached reads a row without waiting for anything; see ReadMiss.
	ReadCached(dst *bufpool.Buffer, shard int, key []byte, now uint64, withValue bool) (command.Row, command.ReadState)
	// Read reads a row and may wait for the disk.
	Read(dst *bufpool.Buffer, shard int, key []byte, now uint64, withValue bool) (command.Row, command.ReadState)
	// Scan visits rows in key order and may wait for the disk.
	Scan(s *command.Scan, visit func(key, value []byte, row command.Row) bool) error
	// Propose queues a command, of which it keeps a copy. After an error
	// nothing happened; otherwise done hears the outcome, once.
	Propose(shard int, c *command.Command, done command.Completer, tag command.Tag) error
	// Acquire makes the caller the one thread that commits what is queued;
	// after true it must call Run, which commits what is queued, once. Run
	// waits for the disk, and calls what AfterPass was given when outcomes have
	// been delivered. Then the caller should try Acquire again.
	Acquire() bool
	// Pending reports whether commands wait to be committed.
	Pending() bool
	Run()
	AfterPass(func())
	// Kick has the backend's own thread commit what is queued.
	Kick()
	// Topology says who serves what, with address as this server's own.
	Topology(address string) command.Topology
	// StatusJSON describes the node for operators.
	StatusJSON() ([]byte, error)
}
