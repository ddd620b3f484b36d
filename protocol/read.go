package protocol

// Key is the body of GET, EXISTS, EXPIRY, WATCH and PERSIST: the key and nothing else.
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
	f := read(b)
	m.Version, m.TTLMillis, m.Value = f.U64(), f.U64(), f.Rest()
	return f.end()
}

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
	f := read(b)
	m.Start, m.End, m.Key = int64(f.U64()), int64(f.U64()), f.Rest()
	return f.endKey(m.Key)
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
	f := read(b)
	m.Version, m.Length, m.Part = f.U64(), f.U32(), f.Rest()
	return f.end()
}

// ExpiryReply answers EXPIRY. With StatusNotFound the body is empty.
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
	f := read(b)
	m.Version, m.ExpireAtMillis = f.U64(), f.U64()
	return f.end()
}

// WatchReply answers WATCH with StatusOK whether the key exists or not. Version,
// or Revision where that is 0, is the operand of a comparison that holds as long
// as nobody has changed the key.
type WatchReply struct {
	Version  uint64 // of the key, for CompareVersion; 0: it does not exist
	Revision uint64 // of its shard, for CompareAbsent
}

// AppendTo appends the message body.
func (m *WatchReply) AppendTo(dst []byte) []byte {
	return appendU64(appendU64(dst, m.Version), m.Revision)
}

// Decode reads the message body.
func (m *WatchReply) Decode(b []byte) error {
	f := read(b)
	m.Version, m.Revision = f.U64(), f.U64()
	return f.end()
}
