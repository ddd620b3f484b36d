package client

import (
	"fmt"
	"time"

	"github.com/proa-kv/proa/protocol"
)

// Options come in kinds, so that the compiler refuses one where it has no
// meaning: a TTL on a Delete, a condition on a Get.
type (
	// ReadOption tunes Get, Exists, Stat and MGet.
	ReadOption interface{ applyRead(Operation) Operation }
	// PutOption tunes Put.
	PutOption interface{ applyPut(Operation) Operation }
	// DeleteOption tunes Delete.
	DeleteOption interface{ applyDelete(Operation) Operation }
	// CallOption tunes any call.
	CallOption interface {
		ReadOption
		PutOption
		DeleteOption
		ScanOption
		applyCall(Operation) Operation
	}
	// ConditionOption tunes Put and Delete.
	ConditionOption interface {
		PutOption
		DeleteOption
	}
	// ConsistencyOption tunes reads and scans.
	ConsistencyOption interface {
		ReadOption
		ScanOption
	}
)

// Options take and return the Operation by value: a pointer handed to an
// interface method would move every Operation to the heap, with options or
// without.

type putOption func(*Operation)

func (f putOption) applyPut(o Operation) Operation { f(&o); return o }

type conditionOption func(*Operation)

func (f conditionOption) applyPut(o Operation) Operation    { f(&o); return o }
func (f conditionOption) applyDelete(o Operation) Operation { f(&o); return o }

type consistencyOption Consistency

func (c consistencyOption) applyRead(o Operation) Operation {
	o.consistency, o.hasConsistency = Consistency(c), true
	if Consistency(c) > Stale {
		o.invalid(fmt.Errorf("%w: consistency %d", ErrBadRequest, c))
	}
	return o
}
func (c consistencyOption) applyScan(s *Scanner) { s.call = c.applyRead(s.call) }

type timeoutOption time.Duration

func (t timeoutOption) applyCall(o Operation) Operation {
	o.timeout = time.Duration(t)
	if t <= 0 {
		o.invalid(fmt.Errorf("%w: timeout of %v", ErrBadRequest, time.Duration(t)))
	}
	return o
}
func (t timeoutOption) applyRead(o Operation) Operation   { return t.applyCall(o) }
func (t timeoutOption) applyPut(o Operation) Operation    { return t.applyCall(o) }
func (t timeoutOption) applyDelete(o Operation) Operation { return t.applyCall(o) }
func (t timeoutOption) applyScan(s *Scanner)              { s.call = t.applyCall(s.call) }

// WithTimeout limits this call, including retries, instead of
// Config.RequestTimeout. An earlier deadline of the context still applies. In a
// scan it limits each page. It must be positive. Inside a batch or transaction
// it has no effect; give it to the call that sends them.
func WithTimeout(d time.Duration) CallOption { return timeoutOption(d) }

// WithConsistency sets the consistency of this read instead of
// Config.Consistency. MGet and Scan, which read many shards, treat Session as
// Linearizable, which is stronger. Inside a transaction it has no effect.
func WithConsistency(c Consistency) ConsistencyOption { return consistencyOption(c) }

// WithTTL lets the key expire d after the write, rounded up to whole
// milliseconds; from 1 ms to about 292 years. A Put without WithTTL and
// KeepTTL removes an expiry the key had.
func WithTTL(d time.Duration) PutOption {
	return putOption(func(o *Operation) { o.setTTL(d) })
}

// KeepTTL keeps the expiry the key has.
func KeepTTL() PutOption { return putFlag(protocol.WriteKeepTTL) }

// IfAbsent writes only if the key does not exist.
func IfAbsent() PutOption { return putFlag(protocol.WriteIfAbsent) }

// IfPresent writes only if the key exists.
func IfPresent() PutOption { return putFlag(protocol.WriteIfPresent) }

func putFlag(f protocol.WriteFlags) PutOption {
	return putOption(func(o *Operation) { o.flags |= f })
}

// IfVersion writes or deletes only if the key has exactly this version, as
// returned in Item.Version or WriteResult.Version; 0 means "absent".
func IfVersion(version uint64) ConditionOption {
	return conditionOption(func(o *Operation) {
		o.flags |= protocol.WriteIfVersion
		o.version = version
	})
}

// ReturnPrevious asks for the row as it was before the write.
func ReturnPrevious() ConditionOption {
	return conditionOption(func(o *Operation) { o.flags |= protocol.WriteReturnPrevious })
}
