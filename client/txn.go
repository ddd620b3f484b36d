package client

import "github.com/proa-kv/proa/protocol"

// Relation is how a row must relate to the operand of a [Condition]: row
// RELATION operand.
type Relation = protocol.CompareRelation

// The relations of a condition.
const (
	Equal    = protocol.Equal
	NotEqual = protocol.NotEqual
	Less     = protocol.Less
	Greater  = protocol.Greater
)

// Condition is one comparison of a transaction.
type Condition struct{ compare protocol.Compare }

// Version compares the key's version; an absent key has version 0.
func Version(key []byte, relation Relation, version uint64) Condition {
	return Condition{protocol.Compare{Target: protocol.CompareVersion, Relation: relation, Key: key, Version: version}}
}

// Value compares the key's value bytewise; an absent key fails every
// comparison.
func Value(key []byte, relation Relation, value []byte) Condition {
	return Condition{protocol.Compare{Target: protocol.CompareValue, Relation: relation, Key: key, Value: value}}
}

// Absent holds if the key does not exist.
func Absent(key []byte) Condition { return Version(key, Equal, 0) }

// Present holds if the key exists.
func Present(key []byte) Condition { return Version(key, Greater, 0) }

// Txn is: if every condition holds, carry out Then, otherwise Else, in one
// atomic step. All keys must lie in one shard, which keys with the same {tag}
// do. The zero value has no condition, so that Then is carried out. A Txn may
// be sent again; it must not be used by several goroutines at once.
type Txn struct {
	conditions []Condition
	then, els  []Operation
}

// NewTxn returns an empty transaction.
func NewTxn() *Txn { return &Txn{} }

// If adds conditions; all of them must hold.
func (t *Txn) If(conditions ...Condition) *Txn {
	t.conditions = append(t.conditions, conditions...)
	return t
}

// anyKey returns a key of the transaction: all lie in one shard, or it will be
// refused. It returns nil if there is none.
func (t *Txn) anyKey() []byte {
	switch {
	case len(t.conditions) > 0:
		return t.conditions[0].compare.Key
	case len(t.then) > 0:
		return t.then[0].key
	case len(t.els) > 0:
		return t.els[0].key
	}
	return nil
}

// Then adds operations for the case that all conditions hold.
func (t *Txn) Then(ops ...Operation) *Txn {
	t.then = append(t.then, ops...)
	return t
}

// Else adds operations for the case that a condition does not hold.
func (t *Txn) Else(ops ...Operation) *Txn {
	t.els = append(t.els, ops...)
	return t
}
