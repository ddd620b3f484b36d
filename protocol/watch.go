package protocol

// WatchReply answers WATCH, whose body is a Key, with StatusOK whether the key
// exists or not. Version, or Revision where that is 0, is the operand of a
// comparison that holds as long as nobody has changed the key.
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
	f := fields{b: b}
	m.Version, m.Revision = f.u64(), f.u64()
	return f.end()
}
