package client

import (
	"time"

	"github.com/proa-kv/proa/protocol"
)

// Consistency of a read.
type Consistency = protocol.Consistency

// The consistencies a read can ask for.
const (
	// Linearizable: the newest acknowledged value. The default.
	Linearizable = protocol.Linearizable
	// SessionReads: not older than anything this client has seen. It has nothing
	// to do with the session of Config.ExactlyOnce.
	SessionReads = protocol.SessionReads
	// Stale: any replica's value; Item.Age says how old it may be.
	Stale = protocol.Stale
)

// Item is one key and what is stored under it. Its slices belong to the
// caller.
type Item struct {
	Key   []byte
	Value []byte // not nil, where the operation reads values
	// Version grows with every change of the key; an absent key has version 0.
	Version uint64
	// TTL is the time left until the key expires, in whole milliseconds; 0
	// where it does not expire.
	TTL time.Duration
	// Stale is set where a replica answered without making sure that it is up
	// to date, which only a Stale read allows; Age bounds how old the answer
	// may be. A server may answer a Stale read with a stronger consistency.
	Stale bool
	Age   time.Duration
}

// Lookup is one key's answer from MGet.
type Lookup struct {
	Item  // only Key is set where the key was not found
	Found bool
}

// WriteResult is what a write answers.
type WriteResult struct {
	// Version is the key's version after the write. After a Delete it is the
	// version of the deletion.
	Version uint64
	// Previous is what the key held before the write, if ReturnPrevious asked
	// for it and the key existed.
	Previous *Item
}

// Result is the answer to one [Operation], in a batch, in a transaction or
// through [Client.Do]. Which fields count depends on the operation.
type Result struct {
	// Err is nil, or an *Error: ErrNotFound, ErrConditionFailed, ….
	Err error
	// Version of the key after the operation.
	Version uint64
	// Value read by a Get or GetRange, or the number that an IncrFloat has
	// stored, as text; nil where there is none, not where it is empty.
	Value []byte
	// TTL left to a key read by Get or Exists; 0 where it does not expire.
	TTL time.Duration
	// ExpiresAt is when a key read by Expiry expires; zero where it does not.
	ExpiresAt time.Time
	// Stale and Age are those of an Item.
	Stale bool
	Age   time.Duration
	// Integer is the new value after an Incr, and the length of the whole value
	// after an Append, a SetRange or a GetRange. HasInteger tells it from none.
	Integer    int64
	HasInteger bool
	// Previous is the row before a write that asked for ReturnPrevious. It is
	// also set after ErrConditionFailed, to the row that was found.
	Previous *Item
}

// TxnResult is the answer to a transaction.
type TxnResult struct {
	Succeeded bool     // every condition held, and Then was carried out
	Results   []Result // of the branch that was carried out, in its order
}

// Routes says which node serves which hash slots.
type Routes struct {
	Epoch  uint64 // of the slot map; it grows with every change
	Nodes  []Node
	Shards []Shard
}

// Node is one server.
type Node struct {
	ID      uint64
	Address string // host:port for clients
}

// Shard is one shard: the slots it owns and the node that leads it.
type Shard struct {
	ID     uint16
	Leader uint64 // 0 if unknown
	Slots  []SlotRange
}

// SlotRange is an inclusive range of hash slots, 0..16383.
type SlotRange struct{ First, Last uint16 }
