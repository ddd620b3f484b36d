package protocol

import "fmt"

// WriteFlags are the options of PUT and DELETE.
type WriteFlags uint8

const (
	WriteTTL            WriteFlags = 1 << 0 // PUT: a TTL field follows
	WriteKeepTTL        WriteFlags = 1 << 1 // PUT: keep the expiry the key has
	WriteIfAbsent       WriteFlags = 1 << 2 // PUT: only if the key does not exist
	WriteIfPresent      WriteFlags = 1 << 3 // PUT: only if the key exists
	WriteIfVersion      WriteFlags = 1 << 4 // only if the key has the version that follows
	WriteReturnPrevious WriteFlags = 1 << 5 // answer with the value the key had
	WriteExpireAt       WriteFlags = 1 << 6 // PUT: a time of expiry follows in place of a TTL

	putFlags    = WriteTTL | WriteKeepTTL | WriteIfAbsent | WriteIfPresent | WriteIfVersion | WriteReturnPrevious | WriteExpireAt
	deleteFlags = WriteIfVersion | WriteReturnPrevious
)

func (w WriteFlags) check(known WriteFlags) error {
	if w&^known != 0 {
		return checkFlags(w, known)
	}
	if !atMostOne(w & (WriteTTL | WriteKeepTTL | WriteExpireAt)) {
		return fmt.Errorf("%w: a TTL, a time of expiry and keep-TTL cannot be used together", ErrOutOfRange)
	}
	if !atMostOne(w & (WriteIfAbsent | WriteIfPresent | WriteIfVersion)) {
		return fmt.Errorf("%w: more than one condition", ErrOutOfRange)
	}
	return nil
}

// atMostOne reports whether no two of the bits are set.
func atMostOne(w WriteFlags) bool { return w&(w-1) == 0 }

// Put stores a value. A time of expiry that has passed already deletes the key,
// with StatusOK and the version of the deletion.
type Put struct {
	Flags     WriteFlags
	TTLMillis uint64 // with WriteTTL, 1..TTLMillisMax; with WriteExpireAt a Unix time, 0..ExpireAtMillisMax
	Version   uint64 // with WriteIfVersion; 0 stands for "absent"
	Key       []byte
	Value     []byte
}

// AppendTo appends the message body.
func (m *Put) AppendTo(dst []byte) []byte {
	dst = append(dst, byte(m.Flags))
	dst = appendU16(dst, saturated(len(m.Key)))
	if m.Flags&(WriteTTL|WriteExpireAt) != 0 {
		dst = appendU64(dst, m.TTLMillis)
	}
	if m.Flags&WriteIfVersion != 0 {
		dst = appendU64(dst, m.Version)
	}
	dst = append(dst, m.Key...)
	return append(dst, m.Value...)
}

// Decode reads the message body.
func (m *Put) Decode(b []byte) error {
	f := read(b)
	m.Flags = WriteFlags(f.U8())
	n := int(f.U16())
	m.TTLMillis, m.Version = 0, 0
	if m.Flags&(WriteTTL|WriteExpireAt) != 0 {
		m.TTLMillis = f.U64()
	}
	if m.Flags&WriteIfVersion != 0 {
		m.Version = f.U64()
	}
	m.Key = f.Bytes(n)
	m.Value = f.Rest()
	if err := f.end(); err != nil {
		return err
	}
	if err := m.Flags.check(putFlags); err != nil {
		return err
	}
	if err := m.checkTime(); err != nil {
		return err
	}
	if err := CheckKey(m.Key); err != nil {
		return err
	}
	return CheckValue(m.Value)
}

func (m *Put) checkTime() error {
	switch {
	case m.Flags&WriteTTL != 0:
		return checkTTL(m.TTLMillis)
	case m.Flags&WriteExpireAt != 0:
		return checkExpireAt(m.TTLMillis)
	}
	return nil
}

// Delete removes a key. A key that does not exist answers StatusNotFound, or
// StatusConditionFailed where a version was asked for.
type Delete struct {
	Flags   WriteFlags
	Version uint64 // with WriteIfVersion
	Key     []byte
}

// AppendTo appends the message body.
func (m *Delete) AppendTo(dst []byte) []byte {
	dst = append(dst, byte(m.Flags))
	if m.Flags&WriteIfVersion != 0 {
		dst = appendU64(dst, m.Version)
	}
	return append(dst, m.Key...)
}

// Decode reads the message body.
func (m *Delete) Decode(b []byte) error {
	f := read(b)
	m.Flags = WriteFlags(f.U8())
	m.Version = 0
	if m.Flags&WriteIfVersion != 0 {
		m.Version = f.U64()
	}
	m.Key = f.Rest()
	if err := f.endKey(m.Key); err != nil {
		return err
	}
	return m.Flags.check(deleteFlags)
}

// WriteReply answers PUT, DELETE, EXPIRE, PERSIST, SETEXPIRY and RENAME, with
// StatusOK, StatusNotFound or StatusConditionFailed alike.
type WriteReply struct {
	// Version is the key's version after the request: the new one after a
	// write, the one found after StatusConditionFailed, 0 for an absent key.
	// After a DELETE it is the version of the deletion, after a RENAME that of
	// the destination.
	Version uint64
	// Previous is the row before the request, if it was asked for and existed.
	// PreviousOmitted says that it did but its value is not delivered: the
	// answers of a BATCH or TXN did not fit in a frame, or this answers the
	// retry of a write whose full answer was too large to keep. PreviousValue
	// is empty then. It implies HasPrevious.
	HasPrevious       bool
	PreviousOmitted   bool
	PreviousVersion   uint64
	PreviousTTLMillis uint64
	PreviousValue     []byte
}

// Presence bytes of a WriteReply.
const (
	previousNone    = 0
	previousValue   = 1
	previousOmitted = 2
)

// AppendTo appends the message body.
func (m *WriteReply) AppendTo(dst []byte) []byte {
	dst = appendU64(dst, m.Version)
	if !m.HasPrevious && !m.PreviousOmitted {
		return append(dst, previousNone)
	}
	presence, value := byte(previousValue), m.PreviousValue
	if m.PreviousOmitted {
		presence, value = previousOmitted, nil
	}
	dst = append(dst, presence)
	dst = appendU64(dst, m.PreviousVersion)
	dst = appendU64(dst, m.PreviousTTLMillis)
	return append(dst, value...)
}

// Decode reads the message body.
func (m *WriteReply) Decode(b []byte) error {
	f := read(b)
	*m = WriteReply{Version: f.U64()}
	switch presence := f.U8(); presence {
	case previousNone:
	case previousValue:
		m.HasPrevious = true
		m.PreviousVersion, m.PreviousTTLMillis = f.U64(), f.U64()
		m.PreviousValue = f.Rest()
	case previousOmitted:
		m.HasPrevious, m.PreviousOmitted = true, true
		m.PreviousVersion, m.PreviousTTLMillis = f.U64(), f.U64()
	default:
		return fmt.Errorf("%w: presence byte %d", ErrOutOfRange, presence)
	}
	return f.end()
}
