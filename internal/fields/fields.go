// Package fields reads the fields of a message in order: little-endian integers,
// varints, and bytes.
package fields

import (
	"encoding/binary"
	"math"
)

// Reader takes fields off the front of B. The first one that does not fit sets
// Short, and every later one reads as zero, so that a decoder checks once, at its
// end. Nothing is copied: bytes are views of B.
type Reader struct {
	B     []byte
	Short bool
}

// Bytes takes n bytes.
func (r *Reader) Bytes(n int) []byte {
	if uint(n) > uint(len(r.B)) {
		r.B, r.Short = nil, true
		return nil
	}
	v := r.B[:n:n]
	r.B = r.B[n:]
	return v
}

// Rest takes all that is left.
func (r *Reader) Rest() []byte {
	v := r.B
	r.B = nil
	return v
}

// U8 takes a byte.
func (r *Reader) U8() uint8 {
	if b := r.Bytes(1); b != nil {
		return b[0]
	}
	return 0
}

// U16 takes two bytes.
func (r *Reader) U16() uint16 {
	if b := r.Bytes(2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

// U32 takes four bytes.
func (r *Reader) U32() uint32 {
	if b := r.Bytes(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

// U64 takes eight bytes.
func (r *Reader) U64() uint64 {
	if b := r.Bytes(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

// Counted takes bytes behind their number, which is a varint.
func (r *Reader) Counted() []byte { return r.Bytes(int(min(r.Uvarint(), math.MaxInt))) }

// Uvarint takes an unsigned varint.
func (r *Reader) Uvarint() uint64 {
	v, n := binary.Uvarint(r.B)
	return took(r, v, n)
}

// Varint takes a signed varint.
func (r *Reader) Varint() int64 {
	v, n := binary.Varint(r.B)
	return took(r, v, n)
}

func took[T any](r *Reader, v T, n int) T {
	if n <= 0 {
		r.B, r.Short = nil, true
		return *new(T)
	}
	r.B = r.B[n:]
	return v
}
