package protocol

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
	f := fields{b: b}
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
