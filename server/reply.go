package server

import (
	"encoding/binary"

	"github.com/proa-kv/proa/bufpool"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/protocol"
)

// statuses are the outcomes of commands in the protocol's terms. Any other is an
// internal error.
var statuses = [...]protocol.Status{
	command.OK:              protocol.StatusOK,
	command.NotFound:        protocol.StatusNotFound,
	command.ConditionFailed: protocol.StatusConditionFailed,
	command.NotInteger:      protocol.StatusNotInteger,
	command.Overflow:        protocol.StatusOverflow,
	command.SessionExpired:  protocol.StatusSessionExpired,
	command.SessionMismatch: protocol.StatusBadRequest,
	command.TooLarge:        protocol.StatusTooLarge,
	command.NotFloat:        protocol.StatusNotFloat,
	command.Busy:            protocol.StatusBusy,
	command.Damaged:         protocol.StatusDamaged,
}

// statusOf translates the outcome of a command into the protocol's terms.
func statusOf(s command.Status) protocol.Status {
	if int(s) < len(statuses) {
		return statuses[s]
	}
	return protocol.StatusInternal
}

// textOf returns the sentence for people that goes with a status.
func textOf(s command.Status, status protocol.Status) string {
	switch s {
	case command.SessionMismatch:
		return "the session already used this sequence number for another request; nothing was done; give each write its own number"
	case command.Damaged:
		return "a required row cannot be read: " + command.ErrDamaged.Error()
	}
	return status.Text()
}

// unresolved are the outcomes without a result, in the protocol's terms.
var unresolved = [...]refusal{
	command.Dropped:  {status: protocol.StatusDropped, message: protocol.StatusDropped.Text()},
	command.Lost:     {status: protocol.StatusStorageFailed, message: "the node stopped while the write was in progress; its outcome is unknown"},
	command.TimedOut: {status: protocol.StatusTimeout, message: "a majority of the shard's replicas did not confirm the write in time; its outcome is unknown"},
	command.Apart:    {status: protocol.StatusCrossShard, message: "the keys are in different shards, and the cluster has more than one node; nothing was done; give the keys a common {tag}"},
	command.Overdue:  {status: protocol.StatusDeadlineExceeded, message: "the deadline passed while the write was queued; nothing was changed"},
}

// grown is the refusal of what is one command in each shard where the node is not
// alone: it need only be asked for again.
var grown = refusal{status: protocol.StatusBusy, retryMillis: retryLeaderMillis, message: "the cluster has just grown beyond one node; try again"}

// refusalOfOutcome translates why a command of an operation has no result.
func refusalOfOutcome(o command.Outcome, op protocol.Opcode) *refusal {
	if o == command.Apart && op == protocol.OpDeleteRange {
		return &grown
	}
	return &unresolved[o]
}

// bodyBytesMax bounds the outcomes of one BATCH or TXN, so that the reply fits
// in a frame whatever the rows it was asked to return, together with the
// extensions that it gets here and where it is passed on.
const bodyBytesMax = protocol.FrameBytesMax - protocol.HeaderBytes - 128

// marksBytesMax bounds the extensions of a reply: EPOCH, LEADER and AGE.
const marksBytesMax = 2 + (2 + 8) + (2 + 8) + (2 + 4)

// noMarks are the extensions of a reply without any.
var noMarks = new(protocol.Extensions)

// beginFrame is protocol.Begin with the extensions that are set in x.
func beginFrame(b []byte, code uint8, flags protocol.Flags, id uint64, x *protocol.Extensions) []byte {
	if x.Empty() {
		return protocol.Begin(b, code, flags, id)
	}
	return x.AppendTo(protocol.Begin(b, code, flags|protocol.FlagExtensions, id))
}

// appendError is protocol.AppendError with the extensions that are set in x.
func appendError(b []byte, id uint64, x *protocol.Extensions, s protocol.Status, retryMillis uint32, message string) []byte {
	start := len(b)
	m := protocol.ErrorReply{RetryAfterMillis: retryMillis, Message: []byte(message)}
	return protocol.End(m.AppendTo(beginFrame(b, uint8(s), protocol.FlagReply, id, x)), start)
}

// statusOfRead is the status of the reply to a read that has come so far. ok is false
// where there is nothing to answer yet: the row is not known, or not for this
// replica to tell.
func statusOfRead(state command.ReadState) (s protocol.Status, ok bool) {
	switch state {
	case command.ReadFound:
		return protocol.StatusOK, true
	case command.ReadAbsent:
		return protocol.StatusNotFound, true
	case command.ReadMiss, command.ReadNotLeader:
		return 0, false
	case command.ReadDamaged:
		return protocol.StatusDamaged, true
	}
	return protocol.StatusStorageFailed, true
}

// appendRow appends the reply to op, a GET, EXISTS or EXPIRY, with the row that read
// yields, whose value has valueMax bytes at most. Where statusOfRead has no status for
// the state nothing is appended.
func appendRow(out *bufpool.Buffer, id uint64, op protocol.Opcode, marks *protocol.Extensions, read readFunc, shard int, key []byte, now uint64, valueMax int) (row command.Row, state command.ReadState) {
	out.Grow(protocol.HeaderBytes + marksBytesMax + protocol.RowReplyBytes)
	start := len(out.B)
	b := beginFrame(out.B, uint8(protocol.StatusOK), protocol.FlagReply, id, marks)
	body := len(b)
	out.B = b[:body+protocol.RowReplyBytes]
	if op != protocol.OpGet {
		valueMax = command.NoValue
	}
	switch row, state = read(out, shard, key, now, valueMax); state {
	case command.ReadFound:
		expiry := row.TTLMillis
		if op == protocol.OpExpiry {
			expiry = row.ExpireAtMillis
		}
		binary.LittleEndian.PutUint64(out.B[body:], row.Version)
		binary.LittleEndian.PutUint64(out.B[body+8:], expiry)
		protocol.End(out.B, start)
	case command.ReadAbsent:
		out.B = protocol.End(beginFrame(out.B[:start], uint8(protocol.StatusNotFound), protocol.FlagReply, id, marks), start)
	case command.ReadMiss, command.ReadNotLeader:
		out.B = out.B[:start]
	case command.ReadDamaged:
		out.B = appendError(out.B[:start], id, marks, protocol.StatusDamaged, 0, command.ErrDamaged.Error())
	default:
		out.B = appendError(out.B[:start], id, marks, protocol.StatusStorageFailed, 0, errReadFailed)
	}
	return row, state
}

const errReadFailed = "reading from disk failed; see the server's log"

// appendResult appends the whole reply frame of a command that was carried
// out, with no more than room bytes of rows: of a single write the previous row
// is left out, and a single read must fit. It returns the reply's status and, of
// several operations, their outcomes as they are encoded, which errorCounts.addResults
// takes.
func appendResult(out *bufpool.Buffer, id uint64, marks *protocol.Extensions, op protocol.Opcode, r *command.Result, room int) (status protocol.Status, outcomes []byte) {
	status = statusOf(r.Status)
	if !status.CarriesResult() {
		var retryMillis uint32
		if status == protocol.StatusBusy {
			retryMillis = retryBusyMillis
		}
		out.B = appendError(out.B, id, marks, status, retryMillis, textOf(r.Status, status))
		return status, nil
	}
	if len(r.Value) > room {
		short := *r
		short.Value, short.RowOmitted = nil, true
		r = &short
	}
	size := resultBytesMax(r)
	room = min(room, bodyBytesMax-len(r.Results)*(5+outcomeBytes))
	out.Grow(protocol.HeaderBytes + marksBytesMax + size - max(rowBytes(r)-room, 0))
	start := len(out.B)
	b := beginFrame(out.B, uint8(status), protocol.FlagReply, id, marks)
	body := len(b)
	switch op {
	case protocol.OpBatch:
		b = appendResults(b, r.Results, room)
		outcomes = b[body:]
	case protocol.OpTxn:
		var branch byte
		if r.Succeeded {
			branch = 1
		}
		b = appendResults(append(b, branch), r.Results, room)
		outcomes = b[body+1:]
	case protocol.OpDeleteRange:
		shards := r.Results
		if len(shards) == 0 { // of one shard
			shards = []command.Result{*r}
		}
		b = appendResults(b, shards, room)
		outcomes = b[body:]
	default:
		b = appendBody(b, r)
	}
	out.B = protocol.End(b, start)
	return status, outcomes
}

// outcomeBytes is an upper bound of a single operation's body, but for the value
// in it.
const outcomeBytes = 32

// resultBytesMax is an upper bound of a result's body.
func resultBytesMax(r *command.Result) int {
	n := outcomeBytes + len(r.Value)
	for i := range r.Results {
		n += 5 + resultBytesMax(&r.Results[i])
	}
	return n
}

// appendResults appends the outcomes inside a BATCH or TXN, in the wire form
// of protocol.OpResults. Rows beyond room bytes are left out and marked so: what
// was changed stays changed, and its outcome must be reported.
func appendResults(b []byte, rs []command.Result, room int) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(rs)))
	for i := range rs {
		r := &rs[i]
		if len(r.Value) > 0 {
			if len(r.Value) > room {
				short := *r
				short.Value, short.RowOmitted = nil, true
				r = &short
			} else {
				room -= len(r.Value)
			}
		}
		b = appendOutcome(b, r)
	}
	return b
}

// appendOutcome appends one outcome inside a BATCH or TXN.
func appendOutcome(b []byte, r *command.Result) []byte {
	status := statusOf(r.Status)
	if r.RowOmitted && (r.Kind == command.Get || r.Kind == command.GetRange || r.Kind == command.Exists) {
		status = protocol.StatusTooLarge
	}
	b = append(b, byte(status), 0, 0, 0, 0)
	at := len(b)
	if status.CarriesResult() {
		b = appendBody(b, r)
	}
	binary.LittleEndian.PutUint32(b[at-4:], uint32(len(b)-at))
	return b
}

// appendBody appends the reply body of a single operation.
func appendBody(b []byte, r *command.Result) []byte {
	switch r.Kind {
	case command.Incr, command.Append, command.SetRange:
		m := protocol.IncrReply{Version: r.Version, Value: r.Integer}
		return m.AppendTo(b)
	case command.IncrFloat:
		m := protocol.FloatReply{Version: r.Version, Text: r.Value}
		return m.AppendTo(b)
	case command.Expiry:
		if r.Status != command.OK {
			return b
		}
		m := protocol.ExpiryReply{Version: r.Version, ExpireAtMillis: uint64(r.Integer)}
		return m.AppendTo(b)
	case command.GetRange:
		if r.Status != command.OK {
			return b
		}
		m := protocol.RangeReply{Version: r.Version, Length: uint32(r.Integer), Part: r.Value}
		return m.AppendTo(b)
	case command.Watch:
		m := protocol.WatchReply{Version: r.Version, Revision: uint64(r.Integer)}
		return m.AppendTo(b)
	case command.Get, command.Exists:
		if r.Status != command.OK {
			return b
		}
		m := protocol.RowReply{Version: r.RowVersion, TTLMillis: r.RowTTL, Value: r.Value}
		return m.AppendTo(b)
	}
	m := protocol.WriteReply{
		Version: r.Version, HasPrevious: r.HasRow, PreviousOmitted: r.RowOmitted,
		PreviousVersion: r.RowVersion, PreviousTTLMillis: r.RowTTL, PreviousValue: r.Value,
	}
	return m.AppendTo(b)
}
