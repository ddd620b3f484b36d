package protocol

// Key is the body of GET, EXISTS, EXPIRY and PERSIST: the key and nothing else.
type Key struct{ Key []byte }

// AppendTo appends the message body.
func (m *Key) AppendTo(dst []byte) []byte { return append(dst, m.Key...) }

// Decode reads the message body.
func (m *Key) Decode(b []byte) error {
	m.Key = b
	return CheckKey(b)
}

// RowReply answers GET and EXISTS (EXISTS with an empty value). With
// StatusNotFound the body is empty.
type RowReply struct {
	Version   uint64 // grows with every change of the key
	TTLMillis uint64 // time left to live, 0 where the key does not expire
	Value     []byte
}

// RowReplyBytes is the size of a RowReply without its value.
const RowReplyBytes = 16

// AppendTo appends the message body.
func (m *RowReply) AppendTo(dst []byte) []byte {
	dst = appendU64(dst, m.Version)
	dst = appendU64(dst, m.TTLMillis)
	return append(dst, m.Value...)
}

// Decode reads the message body.
func (m *RowReply) Decode(b []byte) error {
	f := fields{b: b}
	m.Version, m.TTLMillis = f.u64(), f.u64()
	m.Value = f.rest()
	return f.end()
}
