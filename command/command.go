// Package command defines the replicated operations: their meaning, their
// encoding inside a Raft entry, and their results.
//
// An entry holds a batch: a header with the leader's time stamp, then commands
// in the order in which they take effect. The result of a command depends only
// on the entry and the state before it (invariant A1): time is the stamp, and
// there is no randomness and no map order.
//
// Decoding yields views into the entry; encoding appends, and is the only copy
// of a command between the network and the log.
package command

// Kind is what a command does.
type Kind uint8

const (
	Put     Kind = 1
	Delete  Kind = 2
	Incr    Kind = 3
	Expire  Kind = 4
	Persist Kind = 5
	Get     Kind = 6 // a read in the order of the log, like Exists and Expiry
	Exists  Kind = 7
	Batch   Kind = 8
	Txn     Kind = 9
	Sweep   Kind = 10 // removes rows that have expired and sessions long unused; proposed by the leader itself
	Mark    Kind = 11 // does nothing; replicas compare their states there

	Append    Kind = 12
	SetRange  Kind = 13
	IncrFloat Kind = 14
	SetExpiry Kind = 15
	Expiry    Kind = 16
	Rename    Kind = 17

	Watch Kind = 18 // a read in the order of the log; see OnAbsence

	GetRange Kind = 19 // likewise

	DeleteRange Kind = 20

	kindEnd Kind = 21
)

var kindNames = [kindEnd]string{
	Put: "put", Delete: "delete", Incr: "incr", Expire: "expire", Persist: "persist", Get: "get", Exists: "exists",
	Batch: "batch", Txn: "txn", Sweep: "sweep", Mark: "mark",
	Append: "append", SetRange: "setrange", IncrFloat: "incrfloat", SetExpiry: "setexpiry", Expiry: "expiry", Rename: "rename", Watch: "watch", GetRange: "getrange", DeleteRange: "deleterange",
}

// String returns the kind's name.
func (k Kind) String() string {
	if k == 0 || k >= kindEnd {
		return "unknown"
	}
	return kindNames[k]
}

// Flags are the options of a command. What a bit means depends on the kind;
// these are those of Put and Delete.
type Flags uint8

const (
	SetTTL         Flags = 1 << 0 // Put: expire TTLMillis after the entry's stamp
	KeepTTL        Flags = 1 << 1 // Put: keep the expiry the row has
	IfAbsent       Flags = 1 << 2
	IfPresent      Flags = 1 << 3
	IfVersion      Flags = 1 << 4 // Version 0 stands for "absent"
	ReturnPrevious Flags = 1 << 5
	SetExpireAt    Flags = 1 << 6 // Put: expire at the Unix time TTLMillis

	hasSession Flags = 1 << 7 // wire only: session fields follow
	flagsKnown       = SetTTL | KeepTTL | IfAbsent | IfPresent | IfVersion | ReturnPrevious
)

// Flags of a SetExpiry. For ExpiryIfLater and ExpiryIfEarlier a row that does
// not expire counts as expiring later than any that does.
const (
	ExpiryAt        Flags = 1 << 0 // TTLMillis is a Unix time; otherwise counted from the entry's stamp
	ExpiryRemove    Flags = 1 << 1 // the row must not expire; takes precedence over ExpiryAt
	ExpiryIfNone    Flags = 1 << 2 // only if the row does not expire
	ExpiryIfSome    Flags = 1 << 3 // only if it does
	ExpiryIfLater   Flags = 1 << 4 // only if it is to expire later than it does
	ExpiryIfEarlier Flags = 1 << 5 // only if it is to expire earlier than it does
	ExpiryReturnRow Flags = 1 << 6 // show the row as it was before

	expiryFlagsKnown = ExpiryAt | ExpiryRemove | ExpiryIfNone | ExpiryIfSome | ExpiryIfLater | ExpiryIfEarlier | ExpiryReturnRow
)

// Whole is the flag of a Txn that is carried out only if the results of its
// operations fit in one reply and none of them is Busy: otherwise nothing is
// changed, and it ends as TooLarge or Busy. Replicas of earlier versions take it
// for nothing and carry the Txn out, so it may be there only once all replicas
// know it: see Command.Plain.
const Whole Flags = 1 << 4

// Counted is the flag of a Get or Batch whose Gets count among what their entry
// makes, and so may be Busy. Like Whole it is one for the proposer to set.
const Counted Flags = 1 << 4

// ResultBytesMax bounds what the results of such a Txn take, some 40 bytes for
// each and the values that they show.
const ResultBytesMax = 16<<20 - 1<<10

// Flags of a Rename.
const (
	RenameKeepSource Flags = 1 << 0 // copy
	RenameIfAbsent   Flags = 1 << 1 // only if the destination does not exist

	renameFlagsKnown = RenameKeepSource | RenameIfAbsent
)

// Flags of a Batch or Txn in an entry. A command over several shards is cut up
// into one Batch or Txn for each shard; see Command.
const (
	Refuted Flags = 1 << 5 // Txn, with Part: its comparisons were found not to hold
	Part    Flags = 1 << 6 // of a command over several shards
)

// known returns the flags that a command of this kind may have in an entry.
func (k Kind) known() Flags {
	switch k {
	case Batch, Txn:
		return flagsKnown | Part
	case Put:
		return flagsKnown | SetExpireAt
	case SetExpiry:
		return expiryFlagsKnown
	case Rename:
		return renameFlagsKnown
	}
	return flagsKnown
}

// ValueBytesMax bounds a value that a command makes longer.
const ValueBytesMax = 15 << 20

// Session names a write, so that a retry of it takes effect once (D4). The
// zero value means that the write belongs to no session.
type Session struct {
	ID           uint64 // 0: none
	Sequence     uint64 // from 1, each write its own
	Acknowledged uint64 // the client will never again ask for sequences up to this one
}

// Command is one replicated operation. Which fields count depends on Kind:
//
//	Put      Flags Key Value TTLMillis Version (a time of expiry that has
//	         passed deletes the row)
//	Delete   Flags Key Version
//	Incr     Key Delta (an absent row counts as 0; the expiry is kept)
//	Expire   Key TTLMillis
//	Persist  Key
//	Get      Key
//	Exists   Key
//	Append   Key Value (added at the end; an absent row counts as empty; the
//	         expiry is kept)
//	SetRange Key Offset Value (written over the bytes from Offset on; a gap is
//	         filled with zeros; an empty Value changes and creates nothing; an
//	         absent row counts as empty; the expiry is kept)
//	IncrFloat Key Value (what is added, as text, see AddFloat; an absent row
//	         counts as 0; the expiry is kept)
//	SetExpiry Flags Key TTLMillis (a time that has passed deletes the row)
//	Expiry   Key
//	Rename   Flags Key Value: Key is the source, Value the destination, which
//	         gets the source's value and expiry; where both are the same nothing
//	         is changed
//	Watch    Key
//	GetRange Key Delta Until: the value from byte Delta to byte Until, see Cut
//	DeleteRange Key Value: all rows of the shard from Key on and before Value,
//	         as they are in the order of their keys; an empty bound is none
//	Batch    Ops: all are carried out, one whose condition fails has no effect
//	Txn      Compares Ops Else: if all hold Ops, otherwise Else. With Part the
//	         comparisons were made by whoever proposed it: there are none, and
//	         Refuted says that Else is to be carried out
//	Sweep    Limit: at most that many rows. TTLMillis: how long a session may
//	         be unused before it is forgotten; part of the command, so that
//	         replicas with other settings do the same; 0: the store's own
//	         setting, which then must be the same on all replicas
//	Mark     nothing; it is the first command of its entry
//
// A decoded Command's byte slices are views into the entry. Decode reuses the
// capacity of Ops, Else and Compares.
type Command struct {
	Kind  Kind
	Flags Flags
	// PatienceMillis is for how long whoever proposes the command may have it
	// wait to be proposed; 0: as long as it takes. It is no part of the encoding.
	PatienceMillis uint32

	Key       []byte
	Value     []byte
	TTLMillis uint64
	Version   uint64
	Delta     int64
	Until     int64
	Limit     uint32
	Offset    uint32
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
	OnAbsence Target = 3 // Equal: the row is absent and has been since Version, which a Watch of it has told; NotEqual: that is not certain
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
	NotFound        Status = 1  // the key does not exist
	ConditionFailed Status = 2  // nothing was changed
	NotInteger      Status = 3  // Incr on something else; nothing was changed
	Overflow        Status = 4  // Incr beyond an int64, IncrFloat beyond all finite numbers; nothing was changed
	SessionExpired  Status = 5  // the result of this sequence number is no longer kept
	TooLarge        Status = 6  // the value would be longer than ValueBytesMax; nothing was changed
	NotFloat        Status = 7  // IncrFloat on or by something else; nothing was changed
	Busy            Status = 8  // commands before it in the entry have made as much out of little as they may; nothing was changed
	SessionMismatch Status = 9  // the session has used this sequence number for another request; nothing was changed
	Damaged         Status = 10 // a row that the command needs cannot be read, its file is damaged; nothing was changed
)

// Result is what a command answers.
type Result struct {
	// Kind of the command that was carried out: readers of Results need it to
	// know which of the fields below count.
	Kind   Kind
	Status Status
	// Version of the row after the command: the new one after a change, the
	// one found after ConditionFailed or a read, 0 for an absent row. After a
	// deletion it is the version of that, also after a DeleteRange that has
	// found nothing, after a Rename that of the destination.
	Version uint64
	// Integer is of an Incr the new value, of an Append or SetRange the length
	// of the value in bytes, of an Expiry the Unix time in milliseconds (0: the
	// row does not expire), of a Sweep the number of rows removed, of a Watch
	// the shard's revision, of a GetRange the length of the whole value.
	Integer int64
	// Row read (Get, Exists, ReturnPrevious, ExpiryReturnRow), where there was
	// one; for an IncrFloat the row as it is now. Value is a view, valid until
	// the call that delivered the Result returns.
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
	// Apart: the command's keys lie in different shards, and this node is not
	// the cluster's only one. It never had and never will have an effect.
	Apart
	// Overdue: the command was not proposed while it was patient. It never had
	// and never will have an effect.
	Overdue
)
