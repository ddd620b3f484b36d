package protocol

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
	f := fields{b: b}
	m.Offset = f.u32()
	m.Key = f.bytes(int(f.u16()))
	m.Value = f.rest()
	if err := f.end(); err != nil {
		return err
	}
	if err := CheckKey(m.Key); err != nil {
		return err
	}
	return CheckValue(m.Value)
}
