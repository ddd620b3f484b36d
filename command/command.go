// Package command defines the replicated operations: what they mean, how they
// are written inside a Raft entry, and what they answer.
//
// An entry holds a batch: a header with the leader's time stamp, then
// commands in the order in which they take effect. Carrying out a command
// depends on nothing but the entry and the state before it (invariant A1):
// time is the stamp, and there is no randomness and no map order.
//
// Decoding yields views into the entry; encoding appends and is the one copy
// that a command makes on its way from the network into the log.
package command

// Kind is what a command does.
type Kind uint8

const (
	Put     Kind = 1
	Delete  Kind = 2
	Incr    Kind = 3
	Expire  Kind = 4
	Persist Kind = 5
	Get     Kind = 6 // inside a Txn only
	Exists  Kind = 7 // inside a Txn only
	Batch   Kind = 8
	Txn     Kind = 9
	Sweep   Kind = 10 // removes rows that have expired and sessions long unused; proposed by the leader itself
	Mark    Kind = 11 // does nothing; replicas compare their states there

	kindEnd Kind = 12
)

// String returns the kind's name.
func (k Kind) String() string {
	if k == 0 || k >= kindEnd {
		return "unknown"
	}
	return [...]string{"", "put", "delete", "incr", "expire", "persist", "get", "exists", "batch", "txn", "sweep", "mark"}[k]
}

// Flags are the options of Put and Delete.
type Flags uint8

const (
	SetTTL         Flags = 1 << 0 // Put: expire TTLMillis after the entry's stamp
	KeepTTL        Flags = 1 << 1 // Put: keep the expiry the row has
	IfAbsent       Flags = 1 << 2
	IfPresent      Flags = 1 << 3
	IfVersion      Flags = 1 << 4 // Version 0 stands for "absent"
	ReturnPrevious Flags = 1 << 5

	hasSession Flags = 1 << 7 // wire only: session fields follow
	flagsKnown       = SetTTL | KeepTTL | IfAbsent | IfPresent | IfVersion | ReturnPrevious
)

// Session names a write, so that a retry of it takes effect once (D4). The
// zero value means that the write belongs to no session.
type Session struct {
	ID           uint64 // 0: none
	Sequence     uint64 // from 1, each write its own
	Acknowledged uint64 // the client will never again ask for sequences up to this one
}

// Command is one replicated operation. Which fields count depends on Kind:
//
//	Put      Flags Key Value TTLMillis Version
//	Delete   Flags Key Version
//	Incr     Key Delta (an absent row counts as 0; the expiry is kept)
//	Expire   Key TTLMillis
//	Persist  Key
//	Get      Key
//	Exists   Key
//	Batch    Ops: all are carried out, one whose condition fails has no effect
//	Txn      Compares Ops Else: if all hold Ops, otherwise Else
//	Sweep    Limit: at most that many rows. TTLMillis: how long a session may
//	         be unused before it is forgotten; part of the command, so that
//	         replicas with other settings do the same; 0: the store's own
//	         setting, which then must be the same on all replicas
//	Mark     nothing; it is the first command of its entry
//
// A decoded Command's byte slices are views into the entry. Decode reuses the
// capacity of Ops, Else and Compares.
type Command struct {
	Kind      Kind
	Flags     Flags
	Key       []byte
	Value     []byte
	TTLMillis uint64
	Version   uint64
	Delta     int64
	Limit     uint32
	Session   Session
	Compares  []Compare
	Ops       []Command
	Else      []Command
}

// Target is what a comparison looks at.
type Target uint8

const (
	OnVersion Target = 1 // an absent row has version 0
	OnValue   Target = 2 // bytewise; an absent row fails every comparison
)

// Relation is how the row must relate to the operand.
type Relation uint8

const (
	Equal    Relation = 1
	NotEqual Relation = 2
	Less     Relation = 3
	Greater  Relation = 4
)

// Compare is one condition of a Txn.
type Compare struct {
	Target   Target
	Relation Relation
	Key      []byte
	Version  uint64
	Value    []byte
}

// Status is the outcome of a command that was carried out.
type Status uint8

const (
	OK              Status = 0
	NotFound        Status = 1 // the key does not exist
	ConditionFailed Status = 2 // nothing was changed
	NotInteger      Status = 3 // Incr on something else; nothing was changed
	Overflow        Status = 4 // Incr beyond an int64; nothing was changed
	SessionExpired  Status = 5 // the result of this sequence number is no longer kept
)

// Result is what a command answers.
type Result struct {
	// Kind of the command that was carried out: readers of Results need it to
	// know which of the fields below count.
	Kind   Kind
	Status Status
	// Version of the row after the command: the new one after a change, the
	// one found after ConditionFailed or a read, 0 for an absent row. After a
	// Delete it is the version of the deletion.
	Version uint64
	Integer int64 // Incr: the new value; Sweep: rows removed
	// Row read (Get, Exists, ReturnPrevious), where there was one. Value is a
	// view, valid until the call that delivered the Result returns.
	HasRow     bool
	RowOmitted bool // there was a row, but Value is not known any more (a retry within a session)
	RowVersion uint64
	RowTTL     uint64 // milliseconds left at the entry's stamp, 0: does not expire
	Value      []byte
	// Batch and Txn: outcomes in the order of the operations.
	Succeeded bool // Txn: all comparisons held
	Results   []Result
}

// Completer receives the outcome of a proposed command. Complete is called
// exactly once for each proposal, from any thread; it must not block and must
// not keep the Result or what it points to.
type Completer interface {
	Complete(tag Tag, outcome Outcome, result *Result)
}

// Tag is whatever the proposer wants back with the outcome.
type Tag struct {
	ID   uint64
	Aux  uint32
	Code uint8
}

// Outcome says what became of a proposal.
type Outcome uint8

const (
	// Applied: the command is durable on a majority and was carried out;
	// result is valid.
	Applied Outcome = iota
	// Dropped: another leader's entry took its place. It never had and never
	// will have an effect.
	Dropped
	// Lost: the node stopped, or its storage failed, after the command was
	// proposed. Whether it takes effect is unknown.
	Lost
	// TimedOut: the command was proposed and not heard of in time. Whether it
	// took effect, or will, is unknown.
	TimedOut
)
