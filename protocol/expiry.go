package protocol

// ExpiryReply answers EXPIRY, whose body is a Key. With StatusNotFound the body
// is empty.
type ExpiryReply struct {
	Version        uint64
	ExpireAtMillis uint64 // Unix time; 0 where the key does not expire
}

// AppendTo appends the message body.
func (m *ExpiryReply) AppendTo(dst []byte) []byte {
	return appendU64(appendU64(dst, m.Version), m.ExpireAtMillis)
}

// Decode reads the message body.
func (m *ExpiryReply) Decode(b []byte) error {
	f := fields{b: b}
	m.Version, m.ExpireAtMillis = f.u64(), f.u64()
	return f.end()
}
