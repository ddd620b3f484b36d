package server

import (
	"encoding/binary"

	"github.com/proa-kv/proa/bufpool"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/protocol"
)

// statusOf translates the outcome of a command into the protocol's terms.
func statusOf(s command.Status) protocol.Status {
	switch s {
	case command.OK:
		return protocol.StatusOK
	case command.NotFound:
		return protocol.StatusNotFound
	case command.ConditionFailed:
		return protocol.StatusConditionFailed
	case command.NotInteger:
		return protocol.StatusNotInteger
	case command.Overflow:
		return protocol.StatusOverflow
	case command.SessionExpired:
		return protocol.StatusSessionExpired
	}
	return protocol.StatusInternal
}

// bodyBytesMax bounds the outcomes of one BATCH or TXN, so that the reply fits
// in a frame whatever the rows it was asked to return.
const bodyBytesMax = protocol.FrameBytesMax - protocol.HeaderBytes - 16

// appendResult appends the whole reply frame of a command that was carried
// out.
func appendResult(out *bufpool.Buffer, id uint64, op protocol.Opcode, r *command.Result) {
	status := statusOf(r.Status)
	if !status.CarriesResult() {
		out.B = protocol.AppendError(out.B, id, status, 0, status.Text())
		return
	}
	size := resultBytesMax(r)
	out.Grow(protocol.HeaderBytes + size)
	start := len(out.B)
	b := protocol.Begin(out.B, uint8(status), protocol.FlagReply, id)
	switch op {
	case protocol.OpBatch:
		b = appendResults(b, r.Results, size > bodyBytesMax)
	case protocol.OpTxn:
		var branch byte
		if r.Succeeded {
			branch = 1
		}
		b = appendResults(append(b, branch), r.Results, size > bodyBytesMax)
	default:
		b = appendBody(b, r)
	}
	out.B = protocol.End(b, start)
}

// resultBytesMax is an upper bound of a result's body.
func resultBytesMax(r *command.Result) int {
	n := 32 + len(r.Value)
	for i := range r.Results {
		n += 5 + resultBytesMax(&r.Results[i])
	}
	return n
}

// appendResults appends the outcomes inside a BATCH or TXN, in the wire form
// of protocol.OpResults. With omit, rows that would not fit in the frame any
// more are left out and marked so: what was changed stays changed, and its
// outcome must be told.
func appendResults(b []byte, rs []command.Result, omit bool) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(rs)))
	room := bodyBytesMax - len(rs)*(5+32)
	for i := range rs {
		r := &rs[i]
		if omit && len(r.Value) > 0 {
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
	if r.RowOmitted && (r.Kind == command.Get || r.Kind == command.Exists) {
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
	case command.Incr:
		m := protocol.IncrReply{Version: r.Version, Value: r.Integer}
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
