package protocol

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/proa-kv/proa/internal/fields"
)

// body reads the fields of a message body in order. A decoder looks once, by end,
// whether they were all there.
type body struct{ fields.Reader }

func read(b []byte) body { return body{fields.Reader{B: b}} }

// text reads what appendString has written.
func (f *body) text() []byte { return f.Bytes(int(f.U16())) }

// blob reads what appendBlob has written.
func (f *body) blob() []byte { return f.Bytes(int(f.U32())) }

// count reads how many of what there are in a list.
func (f *body) count(what string) (uint32, error) {
	n := f.U32()
	if n > OpsMax {
		return 0, fmt.Errorf("%w: %d %s, at most %d are allowed", ErrTooManyOps, n, what, OpsMax)
	}
	return n, nil
}

// end returns ErrTruncated if a field did not fit, and ErrTrailingBytes if
// anything is left over.
func (f *body) end() error {
	if f.Short {
		return ErrTruncated
	}
	if len(f.B) != 0 {
		return fmt.Errorf("%w: %d", ErrTrailingBytes, len(f.B))
	}
	return nil
}

// endKey is end for a body with a key, whose length it checks, too.
func (f *body) endKey(key []byte) error {
	if err := f.end(); err != nil {
		return err
	}
	return CheckKey(key)
}

// first returns the first error.
func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
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

// appendBlob appends a u32 length and b.
func appendBlob(dst, b []byte) []byte { return append(appendU32(dst, uint32(len(b))), b...) }

func appendU16(dst []byte, v uint16) []byte { return binary.LittleEndian.AppendUint16(dst, v) }
func appendU32(dst []byte, v uint32) []byte { return binary.LittleEndian.AppendUint32(dst, v) }
func appendU64(dst []byte, v uint64) []byte { return binary.LittleEndian.AppendUint64(dst, v) }

// CheckKey returns an error unless key has an allowed length.
func CheckKey(key []byte) error {
	if len(key) < KeyBytesMin {
		return fmt.Errorf("%w: key is empty", ErrOutOfRange)
	}
	return checkSize("key", key, KeyBytesMax)
}

// CheckValue returns an error unless value has an allowed length.
func CheckValue(value []byte) error { return checkSize("value", value, ValueBytesMax) }

// checkSize returns an error if b, which is named, is longer than most.
func checkSize(name string, b []byte, most int) error {
	if len(b) > most {
		return tooLarge(name, len(b), most)
	}
	return nil
}

func tooLarge(name string, n, most int) error {
	return fmt.Errorf("%w: %s has %d bytes, at most %d are allowed", ErrTooLarge, name, n, most)
}

// checkFlags returns an error if there are flags that are not known.
func checkFlags[F ~uint8](flags, known F) error {
	if flags &^= known; flags != 0 {
		return fmt.Errorf("%w 0x%02x", ErrUnknownOption, uint8(flags))
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
