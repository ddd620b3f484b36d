package protocol

import "fmt"

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
	f := fields{b: b}
	m.Flags = RenameFlags(f.u8())
	m.Source = f.bytes(int(f.u16()))
	m.Destination = f.rest()
	if err := f.end(); err != nil {
		return err
	}
	if m.Flags&^renameFlags != 0 {
		return fmt.Errorf("%w 0x%02x", ErrUnknownOption, uint8(m.Flags&^renameFlags))
	}
	if err := CheckKey(m.Source); err != nil {
		return err
	}
	return CheckKey(m.Destination)
}
