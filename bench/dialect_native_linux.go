package bench

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/proa-kv/proa/protocol"
)

// native is the dialect of Proa's own protocol, with all kinds of operations.
type native struct {
	*worker
	tokens  []uint64 // for session reads: by slot, the newest version seen
	value   []byte
	body    []byte
	rowsIn  protocol.ScanReply
	batchIn protocol.BatchReply
}

// scanPageBytes is how much a scan asks for at most: all that a server gives.
const scanPageBytes = 4 << 20

// appendRequest appends a request frame. Its id is the call's number, from 1.
func (n *native) appendRequest(dst []byte, at int32) []byte {
	c, id, start := &n.calls[at], uint64(at)+1, len(dst)
	switch {
	case c.Kind == KindPing:
		dst = protocol.Begin(dst, uint8(protocol.OpPing), 0, id)
	case c.reads():
		m := protocol.Key{Key: n.key}
		dst = m.AppendTo(n.beginRead(dst, protocol.OpGet, id))
	case c.Kind == KindScan:
		n.key = n.src.AppendKey(n.key[:0], c.Row)
		m := protocol.Scan{CountMax: uint32(c.count), BytesMax: scanPageBytes, Start: n.key, End: n.src.endKey}
		dst = m.AppendTo(n.beginRead(dst, protocol.OpScan, id))
	case c.Kind == KindIncr:
		m := protocol.Incr{Delta: 1, Key: n.key}
		dst = m.AppendTo(protocol.Begin(dst, uint8(protocol.OpIncr), 0, id))
	case c.Kind == KindBatch:
		dst = n.appendBatch(protocol.Begin(dst, uint8(protocol.OpBatch), 0, id), c)
	default:
		n.value = n.src.AppendValue(n.value[:0], c.Row, c.Version)
		m := protocol.Put{Key: n.key, Value: n.value}
		dst = m.AppendTo(protocol.Begin(dst, uint8(protocol.OpPut), 0, id))
	}
	return protocol.End(dst, start)
}

// beginRead begins a request that carries the consistency asked for.
func (n *native) beginRead(dst []byte, op protocol.Opcode, id uint64) []byte {
	if n.load.Consistency == protocol.Linearizable {
		return protocol.Begin(dst, uint8(op), 0, id)
	}
	x := protocol.Extensions{Consistency: n.load.Consistency}
	if n.tokens != nil && op == protocol.OpGet {
		x.Token = n.tokens[protocol.Slot(n.key)]
	}
	return x.AppendTo(protocol.Begin(dst, uint8(op), protocol.FlagExtensions, id))
}

// appendBatch appends the body of a BATCH as protocol.Batch lays it down,
// without an intermediate list.
func (n *native) appendBatch(dst []byte, c *call) []byte {
	dst = append(dst, protocol.BatchNonAtomic)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(c.batch)))
	for i, row := range c.batch {
		n.body = n.src.AppendKey(n.body[:0], row)
		n.value = n.src.AppendValue(n.value[:0], row, c.Version+uint64(i)*n.src.threads)
		m := protocol.Put{Key: n.body, Value: n.value}
		dst = append(dst, byte(protocol.OpPut), 0, 0, 0, 0)
		start := len(dst)
		dst = m.AppendTo(dst)
		binary.LittleEndian.PutUint32(dst[start-4:], uint32(len(dst)-start))
	}
	return dst
}

// takeReplies takes frames.
func (n *native) takeReplies(i int, b []byte, now time.Duration) ([]byte, error) {
	for len(b) > 0 {
		f, size, _, err := protocol.Next(b, protocol.FrameBytesMax)
		if err != nil {
			return b, fmt.Errorf("%w: %w", ErrProtocol, err)
		}
		if size == 0 {
			break
		}
		b = b[size:]
		if err := n.reply(i, &f, now); err != nil {
			return b, err
		}
	}
	return b, nil
}

// reply deals with one frame.
func (n *native) reply(i int, f *protocol.Frame, now time.Duration) error {
	if f.ID == 0 {
		return nil // a notice; if the server closes, the connection is replaced
	}
	if f.ID > uint64(len(n.calls)) || f.Flags&protocol.FlagReply == 0 {
		return fmt.Errorf("%w: a frame with id %d, which no request has", ErrProtocol, f.ID)
	}
	at := int32(f.ID - 1)
	c := &n.calls[at]
	if !c.active || c.waiting || c.conn != int32(i) {
		return fmt.Errorf("%w: a reply with id %d, which no request has", ErrProtocol, f.ID)
	}
	if c.counted {
		n.tally.BytesIn += uint64(f.Length)
	}
	if f.Flags&protocol.FlagExtensions != 0 {
		if err := n.readExtensions(c, f); err != nil {
			return err
		}
	}
	if f.Flags&protocol.FlagMore != 0 {
		return n.rows(c, f)
	}
	n.peers[i].inFlight--
	status := protocol.Status(f.Code)
	if status == protocol.StatusOK || status == protocol.StatusNotFound && c.reads() {
		return n.result(at, f, now)
	}
	var m protocol.ErrorReply
	if status.CarriesResult() {
		return fmt.Errorf("%w: %v answered with %v", ErrProtocol, c.Kind, status)
	}
	if err := m.Decode(f.Body); err != nil {
		return fmt.Errorf("%w: error reply: %w", ErrProtocol, err)
	}
	n.refused(at, status, &m, now)
	return nil
}

// readExtensions reads which node has answered a request, and how old the answer
// is.
func (n *native) readExtensions(c *call, f *protocol.Frame) error {
	var x protocol.Extensions
	if err := x.Decode(f.Extensions); err != nil {
		return fmt.Errorf("%w: extensions of a reply: %w", ErrProtocol, err)
	}
	if x.Leader != 0 && x.Leader != n.cluster.members[n.peers[c.conn].member].ID {
		if c.counted {
			n.tally.Forwarded++
		}
		if !n.load.AnyNode && !n.isWeak(c) {
			n.cluster.requestRefresh()
		}
	}
	if x.HasAge && c.counted {
		n.tally.Weak++
		if x.AgeMillis != protocol.AgeUnknown {
			n.tally.ageMax = max(n.tally.ageMax, x.AgeMillis)
		}
	}
	return nil
}

// rows counts the rows of a frame of a scan.
func (n *native) rows(c *call, f *protocol.Frame) error {
	if c.Kind != KindScan || protocol.Status(f.Code) != protocol.StatusOK {
		return fmt.Errorf("%w: %v answered with several frames, %v", ErrProtocol, c.Kind, protocol.Status(f.Code))
	}
	if err := n.rowsIn.Decode(f.Body); err != nil {
		return fmt.Errorf("%w: rows of a scan: %w", ErrProtocol, err)
	}
	c.found += uint64(len(n.rowsIn.Rows))
	return nil
}

// result deals with a reply that carries a result.
func (n *native) result(at int32, f *protocol.Frame, now time.Duration) error {
	c := &n.calls[at]
	found := true
	var err error
	switch {
	case c.Kind == KindPing:
	case c.reads():
		return n.readResult(at, f, now)
	case c.Kind == KindScan:
		if err := n.rows(c, f); err != nil {
			return err
		}
		found = c.found > 0
	case c.Kind == KindIncr:
		var m protocol.IncrReply
		err = m.Decode(f.Body)
	case c.Kind == KindBatch:
		return n.batchResult(at, f, now)
	default:
		var m protocol.WriteReply
		err = m.Decode(f.Body)
		n.noteVersion(c.Row, m.Version)
	}
	if err != nil {
		return fmt.Errorf("%w: %v: %w", ErrProtocol, c.Kind, err)
	}
	n.succeed(at, found, now)
	return nil
}

// readResult deals with the answer to a GET.
func (n *native) readResult(at int32, f *protocol.Frame, now time.Duration) error {
	c := &n.calls[at]
	found := protocol.Status(f.Code) == protocol.StatusOK
	if found {
		var m protocol.RowReply
		if err := m.Decode(f.Body); err != nil {
			return fmt.Errorf("%w: GET: %w", ErrProtocol, err)
		}
		n.noteVersion(c.Row, m.Version)
		if !n.src.Plausible(m.Value, c.Row, n.load.Verify) {
			n.fail(at, classWrong, n.describeWrong(c.Row, m.Value), false, now)
			return nil
		}
	} else if len(f.Body) != 0 {
		return fmt.Errorf("%w: a GET that found nothing has a body", ErrProtocol)
	}
	if c.Kind == KindModify {
		// The write is made whether or not there was a row.
		c.second, c.wrote = true, 0
		n.send(at)
		return nil
	}
	n.succeed(at, found, now)
	return nil
}

// batchResult deals with the answer to a BATCH, which fails as a whole if any
// of its writes did.
func (n *native) batchResult(at int32, f *protocol.Frame, now time.Duration) error {
	c := &n.calls[at]
	if err := n.batchIn.Decode(f.Body); err != nil {
		return fmt.Errorf("%w: BATCH: %w", ErrProtocol, err)
	}
	results := n.batchIn.Results
	if len(results) != len(c.batch) {
		return fmt.Errorf("%w: a BATCH of %d writes has %d results", ErrProtocol, len(c.batch), len(results))
	}
	for i := range results {
		if s := results[i].Status; s != protocol.StatusOK {
			// Some of the others may have been carried out.
			n.fail(at, int(s), []byte("a write in a batch"), true, now)
			return nil
		}
	}
	c.found = uint64(len(results))
	n.succeed(at, true, now)
	return nil
}

// noteVersion notes the version of a row for session reads.
func (n *native) noteVersion(row, version uint64) {
	if n.tokens == nil {
		return
	}
	n.key = n.src.AppendKey(n.key[:0], row)
	token := &n.tokens[protocol.Slot(n.key)]
	*token = max(*token, version)
}

// describeWrong says what is wrong with a value if that will be reported: only the
// first error is.
func (n *native) describeWrong(row uint64, value []byte) []byte {
	if n.tally.FirstError != "" {
		return nil
	}
	return n.src.describeWrong(row, value)
}
