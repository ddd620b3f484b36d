package protocol

import (
	"encoding/binary"
	"fmt"
	"math"
)

// fields reads fixed-width fields from a message body in order. The first
// field that does not fit sets short, and every later one reads as zero, so a
// decoder checks once, at its end.
type fields struct {
	b     []byte
	short bool
}

func (f *fields) bytes(n int) []byte {
	if n < 0 || n > len(f.b) {
		f.short = true
		f.b = nil
		return nil
	}
	v := f.b[:n:n]
	f.b = f.b[n:]
	return v
}

func (f *fields) rest() []byte {
	v := f.b
	f.b = nil
	return v
}

func (f *fields) u8() uint8 {
	if len(f.b) < 1 {
		f.short = true
		f.b = nil
		return 0
	}
	v := f.b[0]
	f.b = f.b[1:]
	return v
}

func (f *fields) u16() uint16 {
	if len(f.b) < 2 {
		f.short = true
		f.b = nil
		return 0
	}
	v := binary.LittleEndian.Uint16(f.b)
	f.b = f.b[2:]
	return v
}

func (f *fields) u32() uint32 {
	if len(f.b) < 4 {
		f.short = true
		f.b = nil
		return 0
	}
	v := binary.LittleEndian.Uint32(f.b)
	f.b = f.b[4:]
	return v
}

func (f *fields) u64() uint64 {
	if len(f.b) < 8 {
		f.short = true
		f.b = nil
		return 0
	}
	v := binary.LittleEndian.Uint64(f.b)
	f.b = f.b[8:]
	return v
}

// end returns ErrTruncated if a field did not fit, and ErrTrailingBytes if
// anything is left over.
func (f *fields) end() error {
	if f.short {
		return ErrTruncated
	}
	if len(f.b) != 0 {
		return fmt.Errorf("%w: %d", ErrTrailingBytes, len(f.b))
	}
	return nil
}

// appendString appends a u16 length and s. The length saturates: a string
// longer than a u16 can say is announced with 65535 bytes, over every limit
// of this protocol, so it is refused and never read as a shorter one.
func appendString(dst, s []byte) []byte {
	dst = appendU16(dst, saturated(len(s)))
	return append(dst, s...)
}

func saturated(n int) uint16 { return uint16(min(n, math.MaxUint16)) }

func appendU16(dst []byte, v uint16) []byte { return binary.LittleEndian.AppendUint16(dst, v) }
func appendU32(dst []byte, v uint32) []byte { return binary.LittleEndian.AppendUint32(dst, v) }
func appendU64(dst []byte, v uint64) []byte { return binary.LittleEndian.AppendUint64(dst, v) }

// CheckKey returns an error unless key has an allowed length.
func CheckKey(key []byte) error {
	switch {
	case len(key) < KeyBytesMin:
		return fmt.Errorf("%w: key is empty", ErrOutOfRange)
	case len(key) > KeyBytesMax:
		return fmt.Errorf("%w: key has %d bytes, at most %d are allowed", ErrTooLarge, len(key), KeyBytesMax)
	}
	return nil
}

// CheckValue returns an error unless value has an allowed length.
func CheckValue(value []byte) error {
	if len(value) > ValueBytesMax {
		return fmt.Errorf("%w: value has %d bytes, at most %d are allowed", ErrTooLarge, len(value), ValueBytesMax)
	}
	return nil
}

func checkExpireAt(ms uint64) error {
	if ms > ExpireAtMillisMax {
		return fmt.Errorf("%w: time of expiry %d ms, 0 to %d are allowed", ErrOutOfRange, ms, uint64(ExpireAtMillisMax))
	}
	return nil
}

func checkTTL(ms uint64) error {
	if ms == 0 || ms > TTLMillisMax {
		return fmt.Errorf("%w: time to live of %d ms, 1 to %d are allowed", ErrOutOfRange, ms, uint64(TTLMillisMax))
	}
	return nil
}
