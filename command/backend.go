package command

import (
	"errors"
	"math"
)

// Errors with which a shard refuses a command before proposing it. After any
// of them the command definitely had no effect.
var (
	ErrBusy      = errors.New("the shard's queue is full")
	ErrNotLeader = errors.New("this node does not lead the shard")
	ErrStopped   = errors.New("the node is stopping")
	ErrFailed    = errors.New("the node's storage has failed")
	ErrTooLarge  = errors.New("the command is larger than a log entry may be")
	ErrNoQuorum  = errors.New("the shard has no quorum")
	ErrDamaged   = errors.New("the data is damaged on this node's disk and there is no other replica; see \"proa status\"")
	ErrApart     = errors.New("the keys are in different shards; only a cluster of one node can change them in one step")

	ErrEarlierVersion = errors.New("a node of the cluster has so far only run an earlier version that does not support this command; upgrade all nodes, then try again")
)

// Write is a log write that must become durable before the outcomes of its commands
// are known.
type Write interface {
	// Sync makes the write durable. It waits for the disk. It is called once, and
	// its write is then delivered, also if it has failed.
	Sync()
}

// Row is what is known of a key beside its value.
type Row struct {
	Version   uint64 // grows with every change of the key
	TTLMillis uint64 // left to live, 0: does not expire

	ExpireAtMillis uint64 // when it expires, Unix time; 0: it does not
	ValueBytes     uint32 // the value's length
}

// What the longest value that a read is to return may be, in bytes, beside any
// number of them.
const (
	NoValue  = -1
	AnyValue = math.MaxInt
)

// ReadState says how far a read came.
type ReadState uint8

const (
	ReadFound     ReadState = iota // the row exists
	ReadAbsent                     // it does not, or has expired
	ReadMiss                       // not known without touching the disk: ask again from a thread that may block
	ReadNotLeader                  // this replica may not answer by itself now: wait for a read index, or ask another node
	ReadFailed                     // storage failed
	ReadDamaged                    // the row lies in a damaged part of the data, of which there is no other copy
)

// Scan is an ordered read over several shards.
type Scan struct {
	Shards     []int  // each once; nil: all
	Local      bool   // read what the replicas here have, whatever it is: after a read index, or stale
	Start, End []byte // Start inclusive, End exclusive; empty: unbounded
	Reverse    bool
	KeysOnly   bool
}

// Topology says who serves what.
type Topology struct {
	Epoch  uint64 // of the slot map
	Nodes  []Member
	Shards []ShardRoute
}

// Member is a node of the cluster.
type Member struct {
	ID      uint64
	Address string // host:port for clients
	Redis   string // host:port for clients of the Redis protocol; empty: it does not serve them
}

// ShardRoute is one shard's leader (0 if unknown), the nodes that should hold a
// replica of it, the leader among them, and its slots, as inclusive ranges.
type ShardRoute struct {
	Leader   uint64
	Replicas []uint64
	Slots    [][2]uint16
}
