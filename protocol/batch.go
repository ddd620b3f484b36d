package protocol

import (
	"encoding/binary"
	"fmt"
)

// Op is one operation inside a BATCH or TXN, as it stands on the wire: the
// opcode and the body that the single request would have.
type Op struct {
	Code Opcode
	Body []byte
}

// Ops lists operations. The wire form is a u32 count, then for each operation
// an opcode byte, a u32 length and the body.
type Ops []Op

// AppendTo appends the list.
func (o Ops) AppendTo(dst []byte) []byte {
	dst = appendU32(dst, uint32(len(o)))
	for i := range o {
		dst = appendBlob(append(dst, byte(o[i].Code)), o[i].Body)
	}
	return dst
}

// BeginOps begins a list of operations that is written in place. at is for EndOps.
func BeginOps(dst []byte) (_ []byte, at int) {
	dst = appendU32(dst, 0)
	return dst, len(dst)
}

// EndOps ends a list of count operations.
func EndOps(b []byte, at, count int) { binary.LittleEndian.PutUint32(b[at-4:], uint32(count)) }

// BeginOp begins an operation of a list, whose body follows. at is for EndOp.
func BeginOp(dst []byte, code Opcode) (_ []byte, at int) {
	dst = appendU32(append(dst, byte(code)), 0)
	return dst, len(dst)
}

// EndOp ends an operation.
func EndOp(b []byte, at int) { binary.LittleEndian.PutUint32(b[at-4:], uint32(len(b)-at)) }

func (o *Ops) decode(f *body) error {
	*o = (*o)[:0]
	n, err := f.count("operations")
	if err != nil {
		return err
	}
	for ; n > 0; n-- {
		op := Op{Code: Opcode(f.U8()), Body: f.blob()}
		if f.Short {
			return ErrTruncated
		}
		switch op.Code {
		case OpPut, OpDelete, OpIncr, OpExpire, OpPersist,
			OpAppend, OpSetRange, OpIncrFloat, OpSetExpiry, OpRename,
			OpGet, OpExists, OpExpiry, OpWatch, OpGetRange:
		default:
			return fmt.Errorf("%w: opcode %d", ErrOpcodeInBatch, op.Code)
		}
		*o = append(*o, op)
	}
	return nil
}

// BatchNonAtomic allows a BATCH whose keys lie in several shards; it is then
// atomic within each shard only.
const BatchNonAtomic = 1 << 0

// Batch carries several operations in one frame: any write but BATCH and TXN, and
// GET, GETRANGE, EXISTS, EXPIRY and WATCH, which see what those before them have written. Every
// operation is carried out; one whose condition fails has no
// effect and does not stop the others.
type Batch struct {
	Flags uint8
	Ops   Ops
}

// AppendTo appends the message body.
func (m *Batch) AppendTo(dst []byte) []byte { return m.Ops.AppendTo(append(dst, m.Flags)) }

// Decode reads the message body. It reuses the capacity of m.Ops; the bodies
// are views and are not decoded themselves.
func (m *Batch) Decode(b []byte) error {
	f := read(b)
	m.Flags = f.U8()
	if err := checkFlags(m.Flags, BatchNonAtomic); err != nil {
		return err
	}
	if err := m.Ops.decode(&f); err != nil {
		return err
	}
	if err := f.end(); err != nil {
		return err
	}
	if len(m.Ops) == 0 {
		return fmt.Errorf("%w: a batch needs at least one operation", ErrOutOfRange)
	}
	return nil
}

// OpResult is the outcome of one operation inside a BATCH or TXN: the status
// and the body the single reply would have.
type OpResult struct {
	Status Status
	Body   []byte
}

// OpResults lists outcomes in the order of the operations. The wire form is a
// u32 count, then for each a status byte, a u32 length and the body.
type OpResults []OpResult

// AppendTo appends the list.
func (o OpResults) AppendTo(dst []byte) []byte {
	dst = appendU32(dst, uint32(len(o)))
	for i := range o {
		dst = appendBlob(append(dst, byte(o[i].Status)), o[i].Body)
	}
	return dst
}

func (o *OpResults) decode(f *body) error {
	*o = (*o)[:0]
	n, err := f.count("operations")
	if err != nil {
		return err
	}
	for ; n > 0; n-- {
		var r OpResult
		if err := r.decode(f); err != nil {
			return err
		}
		*o = append(*o, r)
	}
	return nil
}

func (r *OpResult) decode(f *body) error {
	r.Status, r.Body = Status(f.U8()), f.blob()
	if f.Short {
		return ErrTruncated
	}
	return nil
}

// Next reads the outcome at the front of a list, behind the list's count, and
// returns the rest.
func (r *OpResult) Next(b []byte) (rest []byte, err error) {
	f := read(b)
	if err := r.decode(&f); err != nil {
		return nil, err
	}
	return f.B, nil
}

// NextCount reads the count at the front of a list.
func NextCount(b []byte) (n int, rest []byte, err error) {
	f := read(b)
	n = int(f.U32())
	if f.Short {
		return 0, nil, ErrTruncated
	}
	return n, f.B, nil
}

// BatchReply answers BATCH.
type BatchReply struct{ Results OpResults }

// AppendTo appends the message body.
func (m *BatchReply) AppendTo(dst []byte) []byte { return m.Results.AppendTo(dst) }

// Decode reads the message body, reusing the capacity of m.Results.
func (m *BatchReply) Decode(b []byte) error {
	f := read(b)
	if err := m.Results.decode(&f); err != nil {
		return err
	}
	return f.end()
}
