package protocol

import "fmt"

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
		return fmt.Errorf("%w 0x%02x", ErrUnknownOption, uint8(x&^expiryFlags))
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
	f := fields{b: b}
	m.Flags = ExpiryFlags(f.u8())
	m.Millis = f.u64()
	m.Key = f.rest()
	if err := f.end(); err != nil {
		return err
	}
	if err := m.Flags.check(); err != nil {
		return err
	}
	if err := m.checkMillis(); err != nil {
		return err
	}
	return CheckKey(m.Key)
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
