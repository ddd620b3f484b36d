package protocol

// GetRange reads a part of a value: from byte Start to byte End, both inclusive;
// negative ones count from the end of the value, -1 being the last byte. What
// lies outside of the value is left out.
type GetRange struct {
	Start, End int64
	Key        []byte
}

// AppendTo appends the message body.
func (m *GetRange) AppendTo(dst []byte) []byte {
	dst = appendU64(appendU64(dst, uint64(m.Start)), uint64(m.End))
	return append(dst, m.Key...)
}

// Decode reads the message body. Key is a view of b.
func (m *GetRange) Decode(b []byte) error {
	f := fields{b: b}
	m.Start, m.End = int64(f.u64()), int64(f.u64())
	m.Key = f.rest()
	if err := f.end(); err != nil {
		return err
	}
	return CheckKey(m.Key)
}

// RangeReply answers GETRANGE. With StatusNotFound the body is empty.
type RangeReply struct {
	Version uint64
	Length  uint32 // of the whole value, in bytes
	Part    []byte
}

// AppendTo appends the message body.
func (m *RangeReply) AppendTo(dst []byte) []byte {
	return append(appendU32(appendU64(dst, m.Version), m.Length), m.Part...)
}

// Decode reads the message body. Part is a view of b.
func (m *RangeReply) Decode(b []byte) error {
	f := fields{b: b}
	m.Version, m.Length = f.u64(), f.u32()
	m.Part = f.rest()
	return f.end()
}
