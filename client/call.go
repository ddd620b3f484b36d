package client

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"github.com/proa-kv/proa/protocol"
)

// States of a call. Whoever moves it to callDone owns its completion; nobody
// else may touch the result after that.
const (
	callWaiting uint32 = iota // not on the wire; in a queue, or waiting to be sent again
	callSent                  // handed to the socket, wholly or in part
	callDone                  // completed, cancelled or timed out
)

// Offsets inside a request frame. The deadline is the first extension and the
// session the second, so that what is filled in later stands at a fixed place
// (TestExtensionOffsets).
const (
	idAt          = 8
	deadlineAt    = protocol.HeaderBytes + 2 + 2
	deadlineBytes = 2 + 4                            // type, length, payload
	sequenceAt    = protocol.HeaderBytes + 2 + 2 + 8 // behind the session, without a deadline
)

// frameKeptBytes is the largest frame buffer that stays with a pooled call. A
// larger frame is written without being gathered with others.
const frameKeptBytes = 16 << 10

// call is one request on its way. Calls are pooled: only the one who completed
// a call may release it, and only if nothing else can still refer to it
// (abandoned is not set).
type call struct {
	state atomic.Uint32

	code      protocol.Opcode
	write     bool
	slot      uint16 // hash slot, where track or routed is set
	track     bool   // note the versions seen
	routed    bool   // to the leader of the slot's shard
	weak      bool   // a read that any replica may answer
	to        *node  // where it should go if it is not routed, nil: anywhere
	avoid     *node  // where the last attempt failed, nil: nowhere
	split     bool   // a batch whose shards answer each for its own part
	offLeader bool   // a write that was not sent to the leader the table names
	frame     []byte // the whole request frame
	keyAt     int    // of the key inside frame
	keyLen    int
	deadline  int64        // on the client's clock, in ns; 0: none
	expires   bool         // the janitor enforces the deadline, not a context
	attempts  atomic.Int32 // given to a connection

	// once says that the call is a write of the session. sequence is its
	// number there, 0 until it first goes to a connection; session.number
	// writes it, under session.mu.
	once      bool
	sequence  uint64
	sentFirst int64 // when the first attempt was sent, on the client's clock

	// tainted says that an earlier attempt may have taken effect. It is
	// written before a change from callSent to callWaiting and read after a
	// change from callWaiting. Atomic, because a caller may give up meanwhile.
	tainted atomic.Bool
	// abandoned says that a queue or a connection may still refer to the call.
	abandoned bool

	internal int // INTERNAL answers to a read

	refusal atomic.Uint32 // the Status that made it wait for another attempt, 0: none

	// The list the call waits in (dispatcher.mu).
	next, prev *call
	list       *callList // nil: none
	order      uint64    // among the calls of all lists; lower is older

	// The answer. body is a view of the read buffer while a sink or handler
	// runs, and the call's own memory in a synchronous call.
	status  Status
	body    []byte
	parts   [][]byte // bodies of the frames before the last one; own memory
	partsN  int      // bytes in parts
	age     time.Duration
	stale   bool   // the reply carries its age
	failure *Error // found on this side; status and body do not count
	spare   []byte // reused for short bodies

	// Who wants the answer: handler, else sink, else ready.
	handler Handler
	sink    sink
	ready   chan struct{}
	scratch Result // for handler
}

// sink receives a completed call on the goroutine that completed it. It must
// copy what it keeps.
type sink interface{ finish(*call) }

// key returns the call's key as a view of the frame.
func (ca *call) key() []byte { return ca.frame[ca.keyAt : ca.keyAt+ca.keyLen] }

func (ca *call) setID(id uint64) { binary.LittleEndian.PutUint64(ca.frame[idAt:], id) }
func (ca *call) id() uint64      { return binary.LittleEndian.Uint64(ca.frame[idAt:]) }
func (ca *call) seal()           { protocol.End(ca.frame, 0) }

// setRemaining writes how many milliseconds are left at time now, at least 1.
func (ca *call) setRemaining(now int64) {
	if ca.deadline != 0 {
		ms := min(max((ca.deadline-now)/int64(time.Millisecond), 1), math.MaxUint32)
		binary.LittleEndian.PutUint32(ca.frame[deadlineAt:], uint32(ms))
	}
}

// setSequence gives the call its number in the session.
func (ca *call) setSequence(sequence, acknowledged uint64) {
	ca.sequence = sequence
	at := sequenceAt
	if ca.deadline != 0 {
		at += deadlineBytes
	}
	binary.LittleEndian.PutUint64(ca.frame[at:], sequence)
	binary.LittleEndian.PutUint64(ca.frame[at+8:], acknowledged)
}

// enforced returns the deadline if the janitor has to enforce it, else 0.
func (ca *call) enforced() int64 {
	if ca.expires {
		return ca.deadline
	}
	return 0
}

// own copies the body out of the read buffer. Bodies that a user will get
// slices of get memory of their own; the others share the call's.
func (ca *call) own() {
	switch {
	case ca.failure != nil:
		ca.body = nil
	case ca.status == protocol.StatusOK && sharesBody(ca.code):
		ca.body = append(make([]byte, 0, len(ca.body)), ca.body...)
	default:
		if len(ca.body) > frameKeptBytes {
			ca.spare = nil
		}
		ca.body = append(ca.spare[:0], ca.body...)
		if cap(ca.body) <= frameKeptBytes {
			ca.spare = ca.body[:0]
		}
	}
}

// sharesBody reports whether results of code are slices of the reply's body.
func sharesBody(code protocol.Opcode) bool {
	switch code {
	case protocol.OpGet, protocol.OpMGet, protocol.OpScan, protocol.OpBatch, protocol.OpTxn, protocol.OpStatus, protocol.OpDeleteRange:
		return true
	}
	return false
}

// statusError returns the call's failure as an *Error, nil if the server
// answered StatusOK.
func (ca *call) statusError() error {
	if ca.failure != nil {
		return ca.failure
	}
	if ca.status == protocol.StatusOK {
		return nil
	}
	e := replyError(ca.code, ca.status)
	e.Attempts = int(ca.attempts.Load())
	if !ca.status.CarriesResult() {
		e.addReply(ca.body)
	}
	ca.doubt(e)
	return e
}

// doubt corrects the error of an answer to a later attempt, for the call or a
// part of it: what that attempt did not do an earlier one may have done.
func (ca *call) doubt(e *Error) {
	if ca.tainted.Load() && e.Outcome == NotDone && !applied(e.Status) {
		e.Outcome = Unknown
	}
}

// applied reports whether a status comes from carrying the command out, so
// that with a session it is the outcome of all attempts.
func applied(s Status) bool {
	switch s {
	case protocol.StatusConditionFailed, protocol.StatusNotInteger, protocol.StatusOverflow, protocol.StatusNotFloat:
		return true
	}
	return false
}

func (e *Error) addReply(body []byte) {
	var m protocol.ErrorReply
	if m.Decode(body) == nil {
		e.Message = string(m.Message)
		e.RetryAfter = time.Duration(m.RetryAfterMillis) * time.Millisecond
	}
}

// result decodes the answer of a single operation into r, whose slices are
// views of the body, and returns the failure.
func (ca *call) result(r *Result) error {
	err := ca.statusError()
	if ca.failure != nil || !ca.status.CarriesResult() {
		return err
	}
	r.Age, r.Stale = ca.age, ca.stale
	if bad := r.decode(ca.code, ca.status, ca.key(), ca.body); bad != nil {
		e := malformed(ca.code, bad)
		e.Attempts = int(ca.attempts.Load())
		if isWrite(ca.code) {
			e.Outcome = ca.status.Outcome()
		}
		return e
	}
	if e, ok := err.(*Error); ok {
		e.Version = r.Version
	}
	return err
}

// decode reads the body of a reply that carries a result.
func (r *Result) decode(code protocol.Opcode, status Status, key, body []byte) (err error) {
	switch code {
	case protocol.OpGet, protocol.OpExists:
		if status != protocol.StatusOK {
			return nil
		}
		var m protocol.RowReply
		if err = m.Decode(body); err == nil {
			r.Version, r.TTL = m.Version, ttl(m.TTLMillis)
			if code == protocol.OpGet {
				r.Value = m.Value
			}
		}
	case protocol.OpPut, protocol.OpDelete, protocol.OpExpire, protocol.OpPersist, protocol.OpSetExpiry, protocol.OpRename:
		if len(body) == 0 && status == protocol.StatusNotFound {
			return nil
		}
		var m protocol.WriteReply
		if err = m.Decode(body); err == nil {
			r.Version = m.Version
			if m.HasPrevious {
				r.Previous = &Item{Key: key, Value: m.PreviousValue, Version: m.PreviousVersion, TTL: ttl(m.PreviousTTLMillis)}
			}
		}
	case protocol.OpIncr, protocol.OpAppend, protocol.OpSetRange:
		var m protocol.IncrReply
		if err = m.Decode(body); err == nil {
			r.Version, r.Integer, r.HasInteger = m.Version, m.Value, true
		}
	case protocol.OpIncrFloat:
		var m protocol.FloatReply
		if err = m.Decode(body); err == nil {
			r.Version, r.Value = m.Version, m.Text
		}
	case protocol.OpExpiry:
		if status != protocol.StatusOK {
			return nil
		}
		var m protocol.ExpiryReply
		if err = m.Decode(body); err == nil {
			if r.Version = m.Version; m.ExpireAtMillis != 0 {
				r.ExpiresAt = time.UnixMilli(int64(min(m.ExpireAtMillis, math.MaxInt64)))
			}
		}
	case protocol.OpWatch:
		var m protocol.WatchReply
		if err = m.Decode(body); err == nil {
			r.Version, r.Integer, r.HasInteger = m.Version, int64(m.Revision), true
		}
	case protocol.OpGetRange:
		if status != protocol.StatusOK {
			return nil
		}
		var m protocol.RangeReply
		if err = m.Decode(body); err == nil {
			r.Version, r.Value, r.Integer, r.HasInteger = m.Version, m.Part, int64(m.Length), true
		}
	}
	return err
}

// own replaces views by copies.
func (r *Result) own() {
	if r.Previous != nil {
		r.Previous.Key = bytes.Clone(r.Previous.Key)
		r.Previous.Value = cloneValue(r.Previous.Value)
	}
	if r.Value != nil {
		r.Value = cloneValue(r.Value)
	}
}

func ttl(ms uint64) time.Duration {
	return time.Duration(min(ms, math.MaxInt64/uint64(time.Millisecond))) * time.Millisecond
}

// refused is the error of a call that was never sent because of its arguments.
func refused(code protocol.Opcode, err error) *Error {
	return &Error{Op: code.String(), Outcome: NotDone, Err: err}
}

// malformed is the error of a reply that cannot be read.
func malformed(code protocol.Opcode, err error) *Error {
	return &Error{Op: code.String(), Outcome: NotDone, Err: fmt.Errorf("%w: reply: %w", ErrProtocol, err)}
}
