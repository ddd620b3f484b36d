package protocol

import "fmt"

// IncrFloat adds to a decimal number with a fraction; an absent key counts as
// 0. The key keeps its expiry. StatusNotFloat says that the value there is, or
// Increment, is no number, StatusOverflow that the sum would not be finite;
// nothing is changed then.
type IncrFloat struct {
	Key       []byte
	Increment []byte // as text, at most IncrementBytesMax
}

// AppendTo appends the message body.
func (m *IncrFloat) AppendTo(dst []byte) []byte {
	return append(appendString(dst, m.Key), m.Increment...)
}

// Decode reads the message body, but does not look at the number. Key and
// Increment are views of b.
func (m *IncrFloat) Decode(b []byte) error {
	f := fields{b: b}
	m.Key = f.bytes(int(f.u16()))
	m.Increment = f.rest()
	if err := f.end(); err != nil {
		return err
	}
	if len(m.Increment) > IncrementBytesMax {
		return fmt.Errorf("%w: increment has %d bytes, at most %d are allowed", ErrTooLarge, len(m.Increment), IncrementBytesMax)
	}
	return CheckKey(m.Key)
}

// FloatReply answers INCRFLOAT.
type FloatReply struct {
	Version uint64
	// Text is the new value, as it is stored, at most FloatBytesMax. It is
	// empty where it is not delivered, although the operation was carried out:
	// the answers of a BATCH or TXN did not fit in a frame, or this answers the
	// retry of a write whose full answer was too large to keep.
	Text []byte
}

// AppendTo appends the message body.
func (m *FloatReply) AppendTo(dst []byte) []byte {
	return append(appendU64(dst, m.Version), m.Text...)
}

// Decode reads the message body. Text is a view of b.
func (m *FloatReply) Decode(b []byte) error {
	f := fields{b: b}
	m.Version = f.u64()
	m.Text = f.rest()
	if err := f.end(); err != nil {
		return err
	}
	if len(m.Text) > FloatBytesMax {
		return fmt.Errorf("%w: number of %d bytes, at most %d are allowed", ErrTooLarge, len(m.Text), FloatBytesMax)
	}
	return nil
}
