package protocol

import "fmt"

// MGet reads several keys, of any shards.
type MGet struct{ Keys [][]byte }

// AppendTo appends the message body.
func (m *MGet) AppendTo(dst []byte) []byte {
	dst = appendU32(dst, uint32(len(m.Keys)))
	for _, k := range m.Keys {
		dst = appendString(dst, k)
	}
	return dst
}

// Decode reads the message body, reusing the capacity of m.Keys.
func (m *MGet) Decode(b []byte) error {
	f := read(b)
	m.Keys = m.Keys[:0]
	n, err := f.count("keys")
	switch {
	case f.Short:
		return ErrTruncated
	case n == 0 && err == nil:
		err = fmt.Errorf("%w: no keys", ErrOutOfRange)
	}
	if err != nil {
		return err
	}
	for ; n > 0; n-- {
		k := f.text()
		if f.Short {
			return ErrTruncated
		}
		if err := CheckKey(k); err != nil {
			return err
		}
		m.Keys = append(m.Keys, k)
	}
	return f.end()
}

// MGetReply is one frame of the answer to MGET: the rows of the next keys, in
// the order asked for. FlagMore says that further frames carry the rest.
type MGetReply struct{ Rows []MGetRow }

// MGetRow is one key's answer. Only with StatusOK do the other fields count.
type MGetRow struct {
	Status    Status // StatusOK, StatusNotFound
	Version   uint64
	TTLMillis uint64
	Value     []byte
}

// AppendTo appends one row.
func (r *MGetRow) AppendTo(dst []byte) []byte {
	dst = append(dst, byte(r.Status))
	if r.Status != StatusOK {
		return dst
	}
	dst = appendU64(dst, r.Version)
	dst = appendU64(dst, r.TTLMillis)
	return appendBlob(dst, r.Value)
}

// AppendTo appends the message body: rows until the end of the frame.
func (m *MGetReply) AppendTo(dst []byte) []byte {
	for i := range m.Rows {
		dst = m.Rows[i].AppendTo(dst)
	}
	return dst
}

// Decode reads the message body, reusing the capacity of m.Rows.
func (m *MGetReply) Decode(b []byte) error {
	m.Rows = m.Rows[:0]
	for len(b) > 0 {
		var r MGetRow
		var err error
		if b, err = r.Next(b); err != nil {
			return err
		}
		m.Rows = append(m.Rows, r)
	}
	return nil
}

// Next reads the row at the front of a message body and returns the rest.
func (r *MGetRow) Next(b []byte) (rest []byte, err error) {
	f := read(b)
	*r = MGetRow{Status: Status(f.U8())}
	if r.Status == StatusOK {
		r.Version, r.TTLMillis, r.Value = f.U64(), f.U64(), f.blob()
	}
	if f.Short {
		return nil, ErrTruncated
	}
	return f.B, nil
}
