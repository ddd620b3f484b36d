package protocol

import "fmt"

// Incr adds to a decimal integer; an absent key counts as 0. The key keeps its
// expiry.
type Incr struct {
	Delta int64
	Key   []byte
}

// AppendTo appends the message body.
func (m *Incr) AppendTo(dst []byte) []byte {
	return append(appendU64(dst, uint64(m.Delta)), m.Key...)
}

// Decode reads the message body.
func (m *Incr) Decode(b []byte) error {
	f := read(b)
	m.Delta, m.Key = int64(f.U64()), f.Rest()
	return f.endKey(m.Key)
}

// IncrReply answers INCR, APPEND and SETRANGE. After one of the latter two
// Value is the length of the new value in bytes.
type IncrReply struct {
	Version uint64
	Value   int64
}

// AppendTo appends the message body.
func (m *IncrReply) AppendTo(dst []byte) []byte {
	return appendU64(appendU64(dst, m.Version), uint64(m.Value))
}

// Decode reads the message body.
func (m *IncrReply) Decode(b []byte) error {
	f := read(b)
	m.Version, m.Value = f.U64(), int64(f.U64())
	return f.end()
}

// Append adds bytes to the end of a value. An absent key counts as empty, so
// that an empty Value creates an empty row. The key keeps its expiry. The reply
// is an IncrReply with the new length in bytes, or StatusTooLarge where the
// result would exceed ValueBytesMax; nothing is changed then.
type Append struct {
	Key   []byte
	Value []byte // what is added, at most ValueBytesMax
}

// AppendTo appends the message body.
func (m *Append) AppendTo(dst []byte) []byte {
	return append(appendString(dst, m.Key), m.Value...)
}

// Decode reads the message body. Key and Value are views of b.
func (m *Append) Decode(b []byte) error {
	f := read(b)
	m.Key, m.Value = f.text(), f.Rest()
	if err := f.endKey(m.Key); err != nil {
		return err
	}
	return CheckValue(m.Value)
}

// SetRange overwrites a part of a value, from Offset on. An absent key counts
// as empty, and a gap before Offset is filled with zero bytes. The key keeps
// its expiry. The reply is an IncrReply with the new length in bytes, or
// StatusTooLarge where the result would exceed ValueBytesMax; nothing is
// changed then. With an empty Value nothing is changed or created, whatever
// Offset is, and the reply has the present version and length, both 0 for an
// absent key.
type SetRange struct {
	Offset uint32 // in bytes
	Key    []byte
	Value  []byte // at most ValueBytesMax
}

// AppendTo appends the message body.
func (m *SetRange) AppendTo(dst []byte) []byte {
	return append(appendString(appendU32(dst, m.Offset), m.Key), m.Value...)
}

// Decode reads the message body. Key and Value are views of b.
func (m *SetRange) Decode(b []byte) error {
	f := read(b)
	m.Offset, m.Key, m.Value = f.U32(), f.text(), f.Rest()
	if err := f.endKey(m.Key); err != nil {
		return err
	}
	return CheckValue(m.Value)
}

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
	f := read(b)
	m.Key, m.Increment = f.text(), f.Rest()
	return first(f.end(), checkSize("increment", m.Increment, IncrementBytesMax), CheckKey(m.Key))
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
	f := read(b)
	m.Version, m.Text = f.U64(), f.Rest()
	return first(f.end(), checkSize("number", m.Text, FloatBytesMax))
}

// Expire sets the time to live of an existing key. (PERSIST, whose body is a
// Key, removes it.)
type Expire struct {
	TTLMillis uint64 // 1..TTLMillisMax
	Key       []byte
}

// AppendTo appends the message body.
func (m *Expire) AppendTo(dst []byte) []byte {
	return append(appendU64(dst, m.TTLMillis), m.Key...)
}

// Decode reads the message body.
func (m *Expire) Decode(b []byte) error {
	f := read(b)
	m.TTLMillis, m.Key = f.U64(), f.Rest()
	return first(f.end(), checkTTL(m.TTLMillis), CheckKey(m.Key))
}

// ExpiryFlags are the options of SETEXPIRY. For IfLater and IfEarlier a key
// that does not expire counts as expiring later than any that does.
type ExpiryFlags uint8

const (
	ExpiryAt        ExpiryFlags = 1 << 0 // Millis is a Unix time; otherwise a time to live
	ExpiryRemove    ExpiryFlags = 1 << 1 // the key does not expire any more; Millis is 0
	ExpiryIfNone    ExpiryFlags = 1 << 2 // only if the key does not expire; excludes the three below
	ExpiryIfSome    ExpiryFlags = 1 << 3 // only if it does
	ExpiryIfLater   ExpiryFlags = 1 << 4 // only if it expires later than it did
	ExpiryIfEarlier ExpiryFlags = 1 << 5 // only if it expires earlier than it did; excludes ExpiryIfLater
	ExpiryReturnRow ExpiryFlags = 1 << 6 // answer with the row as it was before

	expiryFlags = ExpiryAt | ExpiryRemove | ExpiryIfNone | ExpiryIfSome | ExpiryIfLater | ExpiryIfEarlier | ExpiryReturnRow
)

func (x ExpiryFlags) check() error {
	switch {
	case x&^expiryFlags != 0:
		return checkFlags(x, expiryFlags)
	case x&ExpiryAt != 0 && x&ExpiryRemove != 0:
		return fmt.Errorf("%w: a time of expiry and its removal cannot be used together", ErrOutOfRange)
	case x&ExpiryIfNone != 0 && x&(ExpiryIfSome|ExpiryIfLater|ExpiryIfEarlier) != 0:
		return fmt.Errorf("%w: a condition on an existing expiry and one on its absence cannot be used together", ErrOutOfRange)
	case x&ExpiryIfLater != 0 && x&ExpiryIfEarlier != 0:
		return fmt.Errorf("%w: later and earlier cannot be used together", ErrOutOfRange)
	}
	return nil
}

// SetExpiry changes when an existing key expires. The reply is a WriteReply:
// StatusOK, StatusNotFound, or StatusConditionFailed where a condition did not
// hold. A time that has passed already deletes the key, with StatusOK and the
// version of the deletion. Removing an expiry that is not there leaves the
// version as it is.
type SetExpiry struct {
	Flags ExpiryFlags
	// Millis is a time to live, 1..TTLMillisMax; with ExpiryAt a Unix time,
	// 0..ExpireAtMillisMax; with ExpiryRemove 0.
	Millis uint64
	Key    []byte
}

// AppendTo appends the message body.
func (m *SetExpiry) AppendTo(dst []byte) []byte {
	return append(appendU64(append(dst, byte(m.Flags)), m.Millis), m.Key...)
}

// Decode reads the message body. Key is a view of b.
func (m *SetExpiry) Decode(b []byte) error {
	f := read(b)
	m.Flags, m.Millis, m.Key = ExpiryFlags(f.U8()), f.U64(), f.Rest()
	return first(f.end(), m.Flags.check(), m.checkMillis(), CheckKey(m.Key))
}

func (m *SetExpiry) checkMillis() error {
	switch {
	case m.Flags&ExpiryAt != 0:
		return checkExpireAt(m.Millis)
	case m.Flags&ExpiryRemove == 0:
		return checkTTL(m.Millis)
	case m.Millis != 0:
		return fmt.Errorf("%w: a time of %d ms, but it must be 0 where the expiry is removed", ErrOutOfRange, m.Millis)
	}
	return nil
}

// RenameFlags are the options of RENAME.
type RenameFlags uint8

const (
	RenameKeepSource RenameFlags = 1 << 0 // copy: the source stays
	RenameIfAbsent   RenameFlags = 1 << 1 // only if the destination does not exist

	renameFlags = RenameKeepSource | RenameIfAbsent
)

// Rename gives Destination the value and the expiry of Source, and removes
// Source. Both keys must lie in one shard. The reply is a WriteReply with the
// version of Destination: StatusOK, StatusNotFound where Source does not exist,
// or StatusConditionFailed with RenameIfAbsent where Destination does. Where
// both are the same key that exists, nothing is changed: StatusOK, or with
// RenameIfAbsent StatusConditionFailed.
type Rename struct {
	Flags       RenameFlags
	Source      []byte
	Destination []byte
}

// AppendTo appends the message body.
func (m *Rename) AppendTo(dst []byte) []byte {
	return append(appendString(append(dst, byte(m.Flags)), m.Source), m.Destination...)
}

// Decode reads the message body. Source and Destination are views of b.
func (m *Rename) Decode(b []byte) error {
	f := read(b)
	m.Flags, m.Source, m.Destination = RenameFlags(f.U8()), f.text(), f.Rest()
	return first(f.end(), checkFlags(m.Flags, renameFlags), CheckKey(m.Source), CheckKey(m.Destination))
}
