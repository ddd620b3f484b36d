package client

import (
	"fmt"
	"time"

	"github.com/proa-kv/proa/protocol"
)

// Options come in kinds, so that the compiler refuses one where it has no
// meaning: a TTL on a Delete, a condition on a Get.
type (
	// ReadOption tunes Get, Exists, Stat, Expiry and MGet.
	ReadOption interface {
		applier
		read()
	}
	// PutOption tunes Put.
	PutOption interface {
		applier
		put()
	}
	// DeleteOption tunes Delete.
	DeleteOption interface {
		applier
		del()
	}
	// ExpiryOption tunes SetExpiry.
	ExpiryOption interface {
		applier
		expiry()
	}
	// RenameOption tunes Rename and Copy.
	RenameOption interface {
		applier
		rename()
	}
	// CallOption tunes any call.
	CallOption interface {
		ReadOption
		PutOption
		DeleteOption
		ExpiryOption
		RenameOption
		ScanOption
		call()
	}
	// ConditionOption tunes Put and Delete.
	ConditionOption interface {
		PutOption
		DeleteOption
	}
	// PreviousOption tunes Put, Delete and SetExpiry.
	PreviousOption interface {
		ConditionOption
		ExpiryOption
	}
	// WhenOption tunes Put and SetExpiry.
	WhenOption interface {
		PutOption
		ExpiryOption
	}
	// AbsenceOption tunes Put, Rename and Copy.
	AbsenceOption interface {
		PutOption
		RenameOption
	}
	// ConsistencyOption tunes reads and scans.
	ConsistencyOption interface {
		ReadOption
		ScanOption
	}
)

// applier is what all options for operations are. They take and return the
// Operation by value: a pointer handed to an interface method would move every
// Operation to the heap, with options or without.
type applier interface{ apply(Operation) Operation }

// option is every kind of option; the functions that make one return the kinds
// it is meant for.
type option func(*Operation)

func (f option) apply(o Operation) Operation { f(&o); return o }
func (f option) applyScan(s *Scanner)        { f(&s.call) }
func (option) read()                         {}
func (option) put()                          {}
func (option) del()                          {}
func (option) expiry()                       {}
func (option) rename()                       {}
func (option) call()                         {}

// WithTimeout limits this call, including retries, instead of
// Config.RequestTimeout. An earlier deadline of the context still applies. In a
// scan it limits each page. It must be positive. Inside a batch or transaction
// it has no effect; give it to the call that sends them.
func WithTimeout(d time.Duration) CallOption {
	return option(func(o *Operation) {
		if o.timeout = d; d <= 0 {
			o.invalid(fmt.Errorf("%w: timeout of %v", ErrBadRequest, d))
		}
	})
}

// WithConsistency sets the consistency of this read instead of
// Config.Consistency. MGet and Scan, which read many shards, treat SessionReads
// as Linearizable, which is stronger. Inside a transaction it has no effect.
func WithConsistency(c Consistency) ConsistencyOption {
	return option(func(o *Operation) {
		if o.consistency, o.hasConsistency = c, true; c > Stale {
			o.invalid(fmt.Errorf("%w: consistency %d", ErrBadRequest, c))
		}
	})
}

// WithTTL lets the key expire d after the write, rounded up to whole
// milliseconds; from 1 ms to about 292 years. A Put without WithTTL,
// WithExpiryAt and KeepTTL removes an expiry the key had.
func WithTTL(d time.Duration) WhenOption {
	return option(func(o *Operation) { o.setTTL(d) })
}

// WithExpiryAt lets the key expire at t, in whole milliseconds of the cluster's
// clock. If t has passed, the key is deleted.
func WithExpiryAt(t time.Time) WhenOption {
	return option(func(o *Operation) { o.setExpiryAt(t) })
}

// KeepTTL keeps the expiry the key has.
func KeepTTL() PutOption { return flag(protocol.WriteKeepTTL) }

// IfAbsent writes only if the key, or the destination of a Rename or Copy, does
// not exist.
func IfAbsent() AbsenceOption {
	return flagOf(protocol.OpRename, uint8(protocol.RenameIfAbsent), protocol.WriteIfAbsent)
}

// IfPresent writes only if the key exists.
func IfPresent() PutOption { return flag(protocol.WriteIfPresent) }

// IfVersion writes or deletes only if the key has exactly this version, as
// returned in Item.Version or WriteResult.Version; 0 means "absent".
func IfVersion(version uint64) ConditionOption {
	return option(func(o *Operation) {
		o.flags |= uint8(protocol.WriteIfVersion)
		o.version = version
	})
}

// ReturnPrevious asks for the row as it was before the write.
func ReturnPrevious() PreviousOption {
	return flagOf(protocol.OpSetExpiry, uint8(protocol.ExpiryReturnRow), protocol.WriteReturnPrevious)
}

// IfNoExpiry changes the expiry only of a key that does not expire. It excludes
// the three other conditions on the expiry.
func IfNoExpiry() ExpiryOption { return flag(protocol.ExpiryIfNone) }

// IfExpiry changes the expiry only of a key that expires.
func IfExpiry() ExpiryOption { return flag(protocol.ExpiryIfSome) }

// IfLater changes the expiry only if the key then expires later than before. A
// key that does not expire counts as expiring later than any that does.
func IfLater() ExpiryOption { return flag(protocol.ExpiryIfLater) }

// IfEarlier changes the expiry only if the key then expires earlier than before
// (see IfLater, which it excludes).
func IfEarlier() ExpiryOption { return flag(protocol.ExpiryIfEarlier) }

func flag[F protocol.WriteFlags | protocol.ExpiryFlags](f F) option {
	return func(o *Operation) { o.flags |= uint8(f) }
}

// flagOf sets the flag own in operations of a code, and write in others.
func flagOf(code protocol.Opcode, own uint8, write protocol.WriteFlags) option {
	return func(o *Operation) {
		if o.code == code {
			o.flags |= own
		} else {
			o.flags |= uint8(write)
		}
	}
}
