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
	f := fields{b: b}
	m.Flags = ScanFlags(f.u8())
	m.CountMax, m.BytesMax = f.u32(), f.u32()
	m.Start = f.bytes(int(f.u16()))
	m.End = f.bytes(int(f.u16()))
	m.Cursor = f.bytes(int(f.u16()))
	if err := f.end(); err != nil {
		return err
	}
	if m.Flags&^scanFlags != 0 {
		return fmt.Errorf("%w 0x%02x", ErrUnknownOption, uint8(m.Flags&^scanFlags))
	}
	if m.CountMax == 0 {
		m.CountMax = ScanCountDefault
	}
	if m.BytesMax == 0 {
		m.BytesMax = ScanBytesDefault
	}
	switch {
	case m.CountMax > ScanCountMax:
		return fmt.Errorf("%w: scan of %d rows, at most %d", ErrOutOfRange, m.CountMax, ScanCountMax)
	case m.BytesMax > ScanBytesMax:
		return fmt.Errorf("%w: scan of %d bytes, at most %d", ErrOutOfRange, m.BytesMax, ScanBytesMax)
	case len(m.Start) > KeyBytesMax:
		return fmt.Errorf("%w: the start of the scan has %d bytes, at most %d are allowed", ErrTooLarge, len(m.Start), KeyBytesMax)
	case len(m.End) > KeyBytesMax+1: // one more: the first key behind the longest
		return fmt.Errorf("%w: the end of the scan has %d bytes, at most %d are allowed", ErrTooLarge, len(m.End), KeyBytesMax+1)
	case len(m.Cursor) > CursorBytesMax:
		return fmt.Errorf("%w: cursor over %d bytes", ErrTooLarge, CursorBytesMax)
	case m.Flags&ScanPrefix != 0 && len(m.End) != 0:
		return fmt.Errorf("%w: a prefix scan has no end", ErrOutOfRange)
	}
	return nil
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
	f := fields{b: b}
	m.Rows = m.Rows[:0]
	m.Cursor = f.bytes(int(f.u16()))
	if len(m.Cursor) > CursorBytesMax {
		return fmt.Errorf("%w: cursor over %d bytes", ErrTooLarge, CursorBytesMax)
	}
	for len(f.b) > 0 && !f.short {
		r := ScanRow{Version: f.u64(), TTLMillis: f.u64()}
		k, v := int(f.u16()), f.u32()
		if v > FrameBytesMax {
			return ErrTruncated
		}
		r.Key = f.bytes(k)
		r.Value = f.bytes(int(v))
		if f.short {
			return ErrTruncated
		}
		if err := CheckKey(r.Key); err != nil {
			return err
		}
		m.Rows = append(m.Rows, r)
	}
	return f.end()
}
