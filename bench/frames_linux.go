package bench

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/proa-kv/proa/protocol"
)

// The requests a worker makes of its calls, and what it finds in the replies.

// scanPageBytes is how much a scan asks for at most: all that a server gives.
const scanPageBytes = 4 << 20

// encode appends the next request of a call, whose key is in w.key.
func (w *worker) encode(dst []byte, c *call, id uint64) []byte {
	start := len(dst)
	switch {
	case c.kind == KindPing:
		dst = protocol.Begin(dst, uint8(protocol.OpPing), 0, id)
	case c.kind == KindRead, c.kind == KindModify && !c.second:
		m := protocol.Key{Key: w.key}
		dst = m.AppendTo(w.beginRead(dst, protocol.OpGet, id))
	case c.kind == KindScan:
		w.key = w.src.rows.appendKey(w.key[:0], c.row)
		m := protocol.Scan{CountMax: uint32(c.count), BytesMax: scanPageBytes, Start: w.key, End: w.src.rows.endKey}
		dst = m.AppendTo(w.beginRead(dst, protocol.OpScan, id))
	case c.kind == KindIncr:
		m := protocol.Incr{Delta: 1, Key: w.key}
		dst = m.AppendTo(protocol.Begin(dst, uint8(protocol.OpIncr), 0, id))
	case c.kind == KindBatch:
		dst = w.appendBatch(protocol.Begin(dst, uint8(protocol.OpBatch), 0, id), c)
	default:
		w.value = w.src.rows.appendValue(w.value[:0], c.row, c.version)
		m := protocol.Put{Key: w.key, Value: w.value}
		dst = m.AppendTo(protocol.Begin(dst, uint8(protocol.OpPut), 0, id))
	}
	return protocol.End(dst, start)
}

// beginRead begins a request that carries the consistency asked for.
func (w *worker) beginRead(dst []byte, op protocol.Opcode, id uint64) []byte {
	if w.load.Consistency == protocol.Linearizable {
		return protocol.Begin(dst, uint8(op), 0, id)
	}
	x := protocol.Extensions{Consistency: w.load.Consistency}
	if w.tokens != nil && op == protocol.OpGet {
		x.Token = w.tokens[protocol.Slot(w.key)]
	}
	return x.AppendTo(protocol.Begin(dst, uint8(op), protocol.FlagExtensions, id))
}

// appendBatch appends the body of a BATCH as protocol.Batch lays it down,
// without an intermediate list.
func (w *worker) appendBatch(dst []byte, c *call) []byte {
	dst = append(dst, protocol.BatchNonAtomic)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(c.batch)))
	for i, row := range c.batch {
		w.body = w.src.rows.appendKey(w.body[:0], row)
		w.value = w.src.rows.appendValue(w.value[:0], row, c.version+uint64(i)*w.src.threads)
		m := protocol.Put{Key: w.body, Value: w.value}
		dst = append(dst, byte(protocol.OpPut), 0, 0, 0, 0)
		start := len(dst)
		dst = m.AppendTo(dst)
		binary.LittleEndian.PutUint32(dst[start-4:], uint32(len(dst)-start))
	}
	return dst
}

// rows counts the rows of a frame of a scan.
func (w *worker) rows(c *call, f *protocol.Frame) error {
	if c.kind != KindScan || protocol.Status(f.Code) != protocol.StatusOK {
		return fmt.Errorf("%w: %v answered with several frames, %v", ErrProtocol, c.kind, protocol.Status(f.Code))
	}
	if err := w.rowsIn.Decode(f.Body); err != nil {
		return fmt.Errorf("%w: rows of a scan: %w", ErrProtocol, err)
	}
	c.found += uint64(len(w.rowsIn.Rows))
	return nil
}

// result deals with a reply that carries a result.
func (w *worker) result(at int32, f *protocol.Frame, now time.Duration) error {
	c := &w.calls[at]
	found := true
	var err error
	switch {
	case c.kind == KindPing:
	case c.kind == KindRead || c.kind == KindModify && !c.second:
		return w.readResult(at, f, now)
	case c.kind == KindScan:
		if err := w.rows(c, f); err != nil {
			return err
		}
		found = c.found > 0
	case c.kind == KindIncr:
		var m protocol.IncrReply
		err = m.Decode(f.Body)
	case c.kind == KindBatch:
		return w.batchResult(at, f, now)
	default:
		var m protocol.WriteReply
		err = m.Decode(f.Body)
		w.saw(c.row, m.Version)
	}
	if err != nil {
		return fmt.Errorf("%w: %v: %w", ErrProtocol, c.kind, err)
	}
	w.succeed(at, found, now)
	return nil
}

// readResult deals with the answer to a GET.
func (w *worker) readResult(at int32, f *protocol.Frame, now time.Duration) error {
	c := &w.calls[at]
	found := protocol.Status(f.Code) == protocol.StatusOK
	if found {
		var m protocol.RowReply
		if err := m.Decode(f.Body); err != nil {
			return fmt.Errorf("%w: GET: %w", ErrProtocol, err)
		}
		w.saw(c.row, m.Version)
		if !w.src.rows.plausible(m.Value, c.row, w.load.Verify) {
			w.fail(at, classWrong, w.complaint(c.row, m.Value), false, now)
			return nil
		}
	} else if len(f.Body) != 0 {
		return fmt.Errorf("%w: a GET that found nothing has a body", ErrProtocol)
	}
	if c.kind == KindModify {
		// The write is made whether or not there was a row.
		c.second, c.wrote = true, 0
		w.send(at)
		return nil
	}
	w.succeed(at, found, now)
	return nil
}

// batchResult deals with the answer to a BATCH, which fails as a whole if any
// of its writes did.
func (w *worker) batchResult(at int32, f *protocol.Frame, now time.Duration) error {
	c := &w.calls[at]
	if err := w.batchIn.Decode(f.Body); err != nil {
		return fmt.Errorf("%w: BATCH: %w", ErrProtocol, err)
	}
	results := w.batchIn.Results
	if len(results) != len(c.batch) {
		return fmt.Errorf("%w: a BATCH of %d writes has %d results", ErrProtocol, len(c.batch), len(results))
	}
	for i := range results {
		if s := results[i].Status; s != protocol.StatusOK {
			// Some of the others may have been carried out.
			w.fail(at, int(s), []byte("a write in a batch"), true, now)
			return nil
		}
	}
	c.found = uint64(len(results))
	w.succeed(at, true, now)
	return nil
}

// saw notes the version of a row for session reads.
func (w *worker) saw(row, version uint64) {
	if w.tokens == nil {
		return
	}
	w.key = w.src.rows.appendKey(w.key[:0], row)
	token := &w.tokens[protocol.Slot(w.key)]
	*token = max(*token, version)
}

// complaint says what is wrong with a value, where anybody will read it.
func (w *worker) complaint(row uint64, value []byte) []byte {
	if w.tally.firstError != "" {
		return nil
	}
	return w.src.rows.complaint(row, value)
}
