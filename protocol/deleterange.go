package protocol

import (
	"bytes"
	"fmt"
)

// DeleteRangeFlags are the options of DELETE_RANGE.
type DeleteRangeFlags uint8

const (
	DeleteRangePrefix DeleteRangeFlags = 1 << 0 // Start is a prefix; End must be empty
	DeleteRangeAll    DeleteRangeFlags = 1 << 1 // there are no bounds; without it there must be one

	deleteRangeFlags = DeleteRangePrefix | DeleteRangeAll
)

// DeleteRange deletes the rows of a range of keys, in each shard all at once. A
// range without bounds has to be asked for by DeleteRangeAll, so that a bound
// that was forgotten costs nothing.
type DeleteRange struct {
	Flags      DeleteRangeFlags
	Start, End []byte // Start inclusive, End exclusive; empty means unbounded
}

// AppendTo appends the message body.
func (m *DeleteRange) AppendTo(dst []byte) []byte {
	dst = appendString(append(dst, byte(m.Flags)), m.Start)
	return appendString(dst, m.End)
}

// Decode reads the message body. Start and End are views of b.
func (m *DeleteRange) Decode(b []byte) error {
	f := read(b)
	m.Flags, m.Start, m.End = DeleteRangeFlags(f.U8()), f.text(), f.text()
	if err := first(f.end(), checkFlags(m.Flags, deleteRangeFlags), checkRange(m.Start, m.End, m.Flags&DeleteRangePrefix != 0)); err != nil {
		return err
	}
	switch unbounded := len(m.Start) == 0 && len(m.End) == 0; {
	case unbounded && m.Flags != DeleteRangeAll:
		return fmt.Errorf("%w: a range without bounds deletes all keys and requires the option ALL", ErrOutOfRange)
	case !unbounded && m.Flags&DeleteRangeAll != 0:
		return fmt.Errorf("%w: a range of all keys has no bounds", ErrOutOfRange)
	}
	return nil
}

// Bounds returns the first key of the range and the first one behind it, empty
// where there is none.
func (m *DeleteRange) Bounds() (start, end []byte) {
	if m.Flags&DeleteRangePrefix != 0 {
		return m.Start, PrefixEnd(m.Start)
	}
	return m.Start, m.End
}

// PrefixEnd returns the first key behind all keys that begin with prefix, nil
// where there is none.
func PrefixEnd(prefix []byte) []byte {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] != 0xff {
			end := bytes.Clone(prefix[:i+1])
			end[i]++
			return end
		}
	}
	return nil
}
