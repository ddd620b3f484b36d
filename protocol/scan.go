package protocol

import "fmt"

// ScanFlags are the options of SCAN.
type ScanFlags uint8

const (
	ScanReverse  ScanFlags = 1 << 0 // from the end of the range to its start
	ScanKeysOnly ScanFlags = 1 << 1 // answer with empty values
	ScanPrefix   ScanFlags = 1 << 2 // Start is a prefix; End must be empty

	scanFlags = ScanReverse | ScanKeysOnly | ScanPrefix
)

// Scan reads a range of keys in bytewise order, across all shards.
type Scan struct {
	Flags      ScanFlags
	CountMax   uint32 // rows, 0 means ScanCountDefault
	BytesMax   uint32 // keys and values together, 0 means ScanBytesDefault; at least one row is returned
	Start, End []byte // Start inclusive, End exclusive; empty means unbounded
	Cursor     []byte // empty to begin; else the cursor of the previous reply to the same range
}

// AppendTo appends the message body.
func (m *Scan) AppendTo(dst []byte) []byte {
	dst = append(dst, byte(m.Flags))
	dst = appendU32(dst, m.CountMax)
	dst = appendU32(dst, m.BytesMax)
	dst = appendString(dst, m.Start)
	dst = appendString(dst, m.End)
	return appendString(dst, m.Cursor)
}

// Decode reads the message body. Zero bounds are replaced by their defaults
// and larger ones than allowed refused.
func (m *Scan) Decode(b []byte) error {
	f := read(b)
	m.Flags = ScanFlags(f.U8())
	m.CountMax, m.BytesMax = f.U32(), f.U32()
	m.Start, m.End, m.Cursor = f.text(), f.text(), f.text()
	if m.CountMax == 0 {
		m.CountMax = ScanCountDefault
	}
	if m.BytesMax == 0 {
		m.BytesMax = ScanBytesDefault
	}
	if err := first(f.end(), checkFlags(m.Flags, scanFlags)); err != nil {
		return err
	}
	switch {
	case m.CountMax > ScanCountMax:
		return fmt.Errorf("%w: scan of %d rows, at most %d", ErrOutOfRange, m.CountMax, ScanCountMax)
	case m.BytesMax > ScanBytesMax:
		return fmt.Errorf("%w: scan of %d bytes, at most %d", ErrOutOfRange, m.BytesMax, ScanBytesMax)
	}
	return first(checkRange(m.Start, m.End, m.Flags&ScanPrefix != 0), checkSize("cursor", m.Cursor, CursorBytesMax))
}

// checkRange checks the bounds of a range of keys, or the prefix that start is.
func checkRange(start, end []byte, prefix bool) error {
	if prefix && len(end) != 0 {
		return fmt.Errorf("%w: a prefix has no end", ErrOutOfRange)
	}
	// The end may have one byte more: the first key behind the longest.
	return first(checkSize("the start of the range", start, KeyBytesMax), checkSize("the end of the range", end, KeyBytesMax+1))
}

// ScanReply is one frame of the answer to SCAN. FlagMore says that further
// frames follow; only the last carries a cursor.
type ScanReply struct {
	Cursor []byte // empty: the range is exhausted
	Rows   []ScanRow
}

// ScanRow is one row of a scan.
type ScanRow struct {
	Version   uint64
	TTLMillis uint64
	Key       []byte
	Value     []byte
}

// AppendTo appends one row.
func (r *ScanRow) AppendTo(dst []byte) []byte {
	dst = appendU64(dst, r.Version)
	dst = appendU64(dst, r.TTLMillis)
	dst = appendU16(dst, saturated(len(r.Key)))
	dst = appendU32(dst, uint32(len(r.Value)))
	dst = append(dst, r.Key...)
	return append(dst, r.Value...)
}

// AppendTo appends the message body: the cursor, then rows until the end of
// the frame.
func (m *ScanReply) AppendTo(dst []byte) []byte {
	dst = appendString(dst, m.Cursor)
	for i := range m.Rows {
		dst = m.Rows[i].AppendTo(dst)
	}
	return dst
}

// Decode reads the message body, reusing the capacity of m.Rows.
func (m *ScanReply) Decode(b []byte) error {
	f := read(b)
	m.Rows = m.Rows[:0]
	m.Cursor = f.text()
	if err := checkSize("cursor", m.Cursor, CursorBytesMax); err != nil {
		return err
	}
	for len(f.B) > 0 && !f.Short {
		r := ScanRow{Version: f.U64(), TTLMillis: f.U64()}
		k, v := int(f.U16()), int(f.U32())
		r.Key, r.Value = f.Bytes(k), f.Bytes(v)
		if f.Short {
			return ErrTruncated
		}
		if err := CheckKey(r.Key); err != nil {
			return err
		}
		m.Rows = append(m.Rows, r)
	}
	return f.end()
}
