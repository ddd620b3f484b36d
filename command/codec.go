package command

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/cespare/xxhash/v2"

	"github.com/proa-kv/proa/internal/fields"
)

// Errors of decoding. An entry that does not decode was damaged or written by
// a version this one does not know; applying it would break determinism, so
// the node must stop.
var (
	ErrMalformed = errors.New("malformed command")
	ErrFormat    = errors.New("unknown entry format")
)

const (
	entryFormat = 1

	// EntryHeaderBytes is the size of an entry's header: format, stamp, count.
	EntryHeaderBytes = 1 + 8 + 4

	sessionBytes = 3 * 8 // in a command: session, sequence, acknowledged

	opsMax = 10_000 // of a Batch or Txn
)

// AppendEntryHeader begins an entry; SealEntry fills it in.
func AppendEntryHeader(dst []byte) []byte {
	return append(dst, entryFormat, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
}

// SealEntry writes stamp (Unix time in milliseconds, chosen by the leader) and
// the number of commands into the header of entry.
func SealEntry(entry []byte, stampMillis uint64, count int) {
	binary.LittleEndian.PutUint64(entry[1:], stampMillis)
	binary.LittleEndian.PutUint32(entry[9:], uint32(count))
}

// IsMark reports whether entry begins with a Mark.
func IsMark(entry []byte) bool {
	const first = EntryHeaderBytes + 4 // behind the command's length
	return len(entry) > first && entry[0] == entryFormat && Kind(entry[first]) == Mark
}

// IsPart reports whether entry holds parts of commands over several shards. Such
// an entry holds nothing else.
func IsPart(entry []byte) bool {
	const first = EntryHeaderBytes + 4
	if len(entry) <= first+1 || entry[0] != entryFormat {
		return false
	}
	kind := Kind(entry[first])
	return (kind == Batch || kind == Txn) && Flags(entry[first+1])&Part != 0
}

// AppendTo appends c with its length prefix.
func (c *Command) AppendTo(dst []byte) []byte {
	start := len(dst)
	dst = c.appendBody(append(dst, 0, 0, 0, 0))
	binary.LittleEndian.PutUint32(dst[start:], uint32(len(dst)-start-4))
	return dst
}

// EncodedBytesMax is an upper bound of what AppendTo appends.
func (c *Command) EncodedBytesMax() int {
	n := 4 + 2 + sessionBytes + 4 + 8 + 8 + len(c.Key) + len(c.Value) + 12
	for i := range c.Compares {
		n += 16 + len(c.Compares[i].Key) + len(c.Compares[i].Value)
	}
	for i := range c.Ops {
		n += c.Ops[i].EncodedBytesMax()
	}
	for i := range c.Else {
		n += c.Else[i].EncodedBytesMax()
	}
	return n
}

func (c *Command) appendBody(dst []byte) []byte {
	flags := c.Flags
	if c.Session.ID != 0 {
		flags |= hasSession
	}
	dst = append(dst, byte(c.Kind), byte(flags))
	if c.Session.ID != 0 {
		dst = binary.LittleEndian.AppendUint64(dst, c.Session.ID)
		dst = binary.LittleEndian.AppendUint64(dst, c.Session.Sequence)
		dst = binary.LittleEndian.AppendUint64(dst, c.Session.Acknowledged)
	}
	switch c.Kind {
	case Put:
		dst = binary.LittleEndian.AppendUint16(dst, uint16(len(c.Key)))
		if c.Flags&(SetTTL|SetExpireAt) != 0 {
			dst = binary.LittleEndian.AppendUint64(dst, c.TTLMillis)
		}
		if c.Flags&IfVersion != 0 {
			dst = binary.LittleEndian.AppendUint64(dst, c.Version)
		}
		dst = append(dst, c.Key...)
		dst = append(dst, c.Value...)
	case Delete:
		if c.Flags&IfVersion != 0 {
			dst = binary.LittleEndian.AppendUint64(dst, c.Version)
		}
		dst = append(dst, c.Key...)
	case Incr:
		dst = binary.LittleEndian.AppendUint64(dst, uint64(c.Delta))
		dst = append(dst, c.Key...)
	case Expire, SetExpiry:
		dst = binary.LittleEndian.AppendUint64(dst, c.TTLMillis)
		dst = append(dst, c.Key...)
	case Persist, Get, Exists, Expiry, Watch:
		dst = append(dst, c.Key...)
	case GetRange:
		dst = binary.LittleEndian.AppendUint64(dst, uint64(c.Delta))
		dst = binary.LittleEndian.AppendUint64(dst, uint64(c.Until))
		dst = append(dst, c.Key...)
	case Append, IncrFloat, Rename, DeleteRange:
		dst = appendKeyAndValue(dst, c)
	case SetRange:
		dst = appendKeyAndValue(binary.LittleEndian.AppendUint32(dst, c.Offset), c)
	case Batch:
		dst = appendOps(dst, c.Ops)
	case Txn:
		dst = binary.LittleEndian.AppendUint32(dst, uint32(len(c.Compares)))
		for i := range c.Compares {
			x := &c.Compares[i]
			dst = append(dst, byte(x.Target), byte(x.Relation))
			dst = binary.LittleEndian.AppendUint16(dst, uint16(len(x.Key)))
			dst = binary.LittleEndian.AppendUint64(dst, x.Version)
			dst = binary.LittleEndian.AppendUint32(dst, uint32(len(x.Value)))
			dst = append(dst, x.Key...)
			dst = append(dst, x.Value...)
		}
		dst = appendOps(appendOps(dst, c.Ops), c.Else)
	case Sweep:
		dst = binary.LittleEndian.AppendUint32(dst, c.Limit)
		dst = binary.LittleEndian.AppendUint64(dst, c.TTLMillis)
	case Mark:
	default:
		panic(fmt.Sprintf("command: encoding of kind %d", c.Kind))
	}
	return dst
}

func appendKeyAndValue(dst []byte, c *Command) []byte {
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(c.Key)))
	dst = append(dst, c.Key...)
	return append(dst, c.Value...)
}

func appendOps(dst []byte, ops []Command) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(ops)))
	for i := range ops {
		dst = ops[i].AppendTo(dst)
	}
	return dst
}

// Reader reads the commands of one entry.
type Reader struct {
	StampMillis uint64
	Count       int // commands not read yet
	rest        []byte
	last        []byte // the command that Next returned last
}

// NewReader reads the header of entry.
func NewReader(entry []byte) (Reader, error) {
	if len(entry) < EntryHeaderBytes {
		return Reader{}, fmt.Errorf("%w: entry of %d bytes", ErrMalformed, len(entry))
	}
	if entry[0] != entryFormat {
		return Reader{}, fmt.Errorf("%w %d", ErrFormat, entry[0])
	}
	r := Reader{
		StampMillis: binary.LittleEndian.Uint64(entry[1:]),
		Count:       int(binary.LittleEndian.Uint32(entry[9:])),
		rest:        entry[EntryHeaderBytes:],
	}
	if r.StampMillis > math.MaxInt64 {
		return Reader{}, fmt.Errorf("%w: stamp out of range", ErrMalformed)
	}
	return r, nil
}

// Next decodes the next command into c and reports whether there was one.
func (r *Reader) Next(c *Command) (bool, error) {
	if r.Count == 0 {
		if len(r.rest) != 0 {
			return false, fmt.Errorf("%w: %d bytes after the last command", ErrMalformed, len(r.rest))
		}
		return false, nil
	}
	f := fields.Reader{B: r.rest}
	body := f.Bytes(int(f.U32()))
	if f.Short {
		return false, fmt.Errorf("%w: command is cut off", ErrMalformed)
	}
	if err := c.decode(body, false); err != nil {
		return false, err
	}
	r.rest, r.last = f.B, body
	r.Count--
	return true, nil
}

// Digest returns a hash of the command that Next returned last, which must have
// a session, without that session. It is never 0. Repetitions of a request have
// the same digest, whoever proposes them and when, so the encoding of a command
// must hold nothing but what the client asked for, and must stay as it is:
// digests are kept in the state (A1).
func (r *Reader) Digest() uint64 {
	kind, flags := r.last[0], Flags(r.last[1])&^hasSession
	flags &^= Kind(kind).proposers()
	head := uint64(kind) | uint64(flags)<<8
	sum := xxhash.Sum64(r.last[2+sessionBytes:]) + head*0x9e3779b97f4a7c15 // 2^64 divided by the golden ratio: spreads the two bytes
	return max(sum, 1)
}

// decode decodes a command, or an operation within one.
func (c *Command) decode(b []byte, within bool) error {
	if len(b) < 2 {
		return fmt.Errorf("%w: %d bytes", ErrMalformed, len(b))
	}
	*c = Command{Kind: Kind(b[0]), Flags: Flags(b[1]), Compares: c.Compares[:0], Ops: c.Ops[:0], Else: c.Else[:0]}
	t := fields.Reader{B: b[2:]}
	if c.Flags&hasSession != 0 {
		c.Flags &^= hasSession
		c.Session = Session{ID: t.U64(), Sequence: t.U64(), Acknowledged: t.U64()}
		if !t.Short && (c.Session.ID == 0 || within) {
			return fmt.Errorf("%w: session", ErrMalformed)
		}
	}
	if c.Flags&^c.Kind.known() != 0 {
		return fmt.Errorf("%w: flags 0x%02x", ErrMalformed, c.Flags)
	}
	if within && c.Kind.outermost() {
		return fmt.Errorf("%w: %v inside another command", ErrMalformed, c.Kind)
	}
	switch c.Kind {
	case Put:
		n := int(t.U16())
		if c.Flags&(SetTTL|SetExpireAt) != 0 {
			c.TTLMillis = t.U64()
		}
		if c.Flags&IfVersion != 0 {
			c.Version = t.U64()
		}
		c.Key, c.Value = t.Bytes(n), t.Rest()
	case Delete:
		if c.Flags&IfVersion != 0 {
			c.Version = t.U64()
		}
		c.Key = t.Rest()
	case Incr:
		c.Delta = int64(t.U64())
		c.Key = t.Rest()
	case Expire, SetExpiry:
		c.TTLMillis = t.U64()
		c.Key = t.Rest()
	case Persist, Get, Exists, Expiry, Watch:
		c.Key = t.Rest()
	case GetRange:
		c.Delta, c.Until = int64(t.U64()), int64(t.U64())
		c.Key = t.Rest()
	case Append, IncrFloat, Rename, DeleteRange:
		c.takeKeyAndValue(&t)
	case SetRange:
		c.Offset = t.U32()
		c.takeKeyAndValue(&t)
	case Batch, Txn:
		if err := c.decodeParts(&t); err != nil {
			return err
		}
		if (c.Kind == Txn || c.Flags&Part == 0) && (slices.ContainsFunc(c.Ops, deletesRange) || slices.ContainsFunc(c.Else, deletesRange)) {
			return fmt.Errorf("%w: range deletion inside another command", ErrMalformed)
		}
		if part := c.Flags&Part != 0; part && len(c.Compares) > 0 || c.Flags&Refuted != 0 && (!part || c.Kind != Txn) {
			return fmt.Errorf("%w: part of a command over several shards", ErrMalformed)
		}
	case Sweep:
		c.Limit, c.TTLMillis = t.U32(), t.U64()
	case Mark:
	default:
		return fmt.Errorf("%w: kind %d", ErrMalformed, b[0])
	}
	if t.Short || len(t.B) != 0 {
		return fmt.Errorf("%w: %v of %d bytes", ErrMalformed, c.Kind, len(b))
	}
	if len(c.Key) == 0 && !c.Kind.outermost() && c.Kind != DeleteRange {
		return fmt.Errorf("%w: %v without a key", ErrMalformed, c.Kind)
	}
	if c.Kind == Rename && len(c.Value) == 0 {
		return fmt.Errorf("%w: %v without a destination", ErrMalformed, c.Kind)
	}
	return nil
}

// outermost reports whether commands of the kind are never among the operations of
// another.
func (k Kind) outermost() bool { return k == Batch || k == Txn || k == Sweep || k == Mark }

// deletesRange reports whether op is what only a part of a command over several
// shards may have among its operations.
func deletesRange(op Command) bool { return op.Kind == DeleteRange }

func (c *Command) takeKeyAndValue(t *fields.Reader) {
	c.Key, c.Value = t.Bytes(int(t.U16())), t.Rest()
}

// decodeParts decodes what a Batch or Txn consists of.
func (c *Command) decodeParts(t *fields.Reader) (err error) {
	if c.Kind == Txn {
		err = c.decodeCompares(t)
	}
	if err == nil {
		c.Ops, err = decodeOps(c.Ops, t)
	}
	if err == nil && c.Kind == Txn {
		c.Else, err = decodeOps(c.Else, t)
	}
	return err
}

func (c *Command) decodeCompares(t *fields.Reader) error {
	n := t.U32()
	if n > opsMax {
		return fmt.Errorf("%w: %d comparisons", ErrMalformed, n)
	}
	for ; n > 0; n-- {
		x := Compare{Target: Target(t.U8()), Relation: Relation(t.U8())}
		k := int(t.U16())
		x.Version = t.U64()
		v := int(t.U32())
		x.Key, x.Value = t.Bytes(k), t.Bytes(v)
		if t.Short || len(x.Key) == 0 || x.Target < OnVersion || x.Target > OnAbsence || x.Target == OnAbsence && x.Relation > NotEqual || x.Relation < Equal || x.Relation > Greater {
			return fmt.Errorf("%w: comparison", ErrMalformed)
		}
		c.Compares = append(c.Compares, x)
	}
	return nil
}

func decodeOps(ops []Command, t *fields.Reader) ([]Command, error) {
	n := t.U32()
	if n > opsMax {
		return ops, fmt.Errorf("%w: %d operations", ErrMalformed, n)
	}
	for ; n > 0; n-- {
		body := t.Bytes(int(t.U32()))
		if t.Short {
			return ops, fmt.Errorf("%w: operation is cut off", ErrMalformed)
		}
		if len(ops) < cap(ops) {
			ops = ops[:len(ops)+1] // keeps the capacity of its own slices
		} else {
			ops = append(ops, Command{})
		}
		if err := ops[len(ops)-1].decode(body, true); err != nil {
			return ops, err
		}
	}
	return ops, nil
}
