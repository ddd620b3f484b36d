package bench

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strconv"

	"github.com/proa-kv/proa/protocol"
)

// rows makes the keys and values of a workload's rows. A row is a number. Each
// value of a row has a version; row, version and seed determine its length and
// bytes, so that what is read can be compared with what was written. It is not
// changed once made and may be shared.
type rows struct {
	workload *Workload
	seed     uint64
	endKey   []byte // behind all keys
	pool     []byte // random bytes that values are made of
}

// poolBytes is from how many bytes on the contents of values begin to repeat.
const poolBytes = 1 << 20

// valueHead is what stands at the begin of each value: row and version. Values
// that are shorter hold a part of it.
const valueHead = 16

func newRows(w *Workload, seed uint64) *rows {
	r := &rows{workload: w, seed: scatter(seed), endKey: protocol.PrefixEnd([]byte(w.Prefix))}
	r.pool = NewValue(poolBytes+w.ValueBytes.Max(), seed)
	return r
}

// AppendKey appends the key of a row.
func (r *rows) AppendKey(dst []byte, row uint64) []byte {
	w, start := r.workload, len(dst)
	number, digits := row, numberDigits
	if w.Hashed {
		number, digits = hashed(row), hashDigits
	}
	dst = append(dst, w.Prefix...)
	dst = appendDigits(dst, number, digits)
	if len(w.KeyBytes.parts) > 0 {
		for n := w.KeyBytes.At(scatter(row)) - (len(dst) - start); n > 0; n-- {
			dst = append(dst, keyPadding)
		}
	}
	return dst
}

// counters reports whether the rows hold numbers for INCR.
func (r *rows) counters() bool { return r.workload.has(KindIncr) }

// parts returns the head of a value, and the bytes behind it.
func (r *rows) parts(row, version uint64) (head [valueHead]byte, rest []byte) {
	h := scatter(r.seed ^ scatter(row+scatter(version)))
	size := r.workload.ValueBytes.At(h)
	binary.LittleEndian.PutUint64(head[:], row)
	binary.LittleEndian.PutUint64(head[8:], version)
	at := h % poolBytes
	return head, r.pool[at : at+uint64(size)]
}

// AppendValue appends the value of a row in a version. That of version 0 is what
// a Harness preloads. A counter's first is 0.
func (r *rows) AppendValue(dst []byte, row, version uint64) []byte {
	if r.counters() {
		return append(dst, '0')
	}
	head, value := r.parts(row, version)
	start := len(dst)
	dst = append(dst, value...)
	copy(dst[start:], head[:])
	return dst
}

// is reports whether a value is that of a row in a version.
func (r *rows) is(value []byte, row, version uint64) bool {
	head, want := r.parts(row, version)
	n := min(len(want), valueHead)
	return len(value) == len(want) && bytes.Equal(value[:n], head[:n]) && bytes.Equal(value[n:], want[n:])
}

// Plausible reports whether a value may be one of the row's: the head names
// the row and, if whole is set, all else is what goes with the version in it.
func (r *rows) Plausible(value []byte, row uint64, whole bool) bool {
	if r.counters() {
		_, err := strconv.ParseInt(string(value), 10, 64)
		return err == nil
	}
	if len(value) < 8 {
		return true
	}
	if found := binary.LittleEndian.Uint64(value); found != row {
		// Hashed keys of two rows may be the same.
		if !r.workload.Hashed || hashed(found) != hashed(row) {
			return false
		}
		row = found
	}
	return !whole || len(value) < valueHead || r.is(value, row, binary.LittleEndian.Uint64(value[8:]))
}

// describeWrong says what is wrong with a value that is not plausible.
func (r *rows) describeWrong(row uint64, value []byte) []byte {
	return fmt.Appendf(nil, "%s holds %d bytes that were never written there: %.24q", r.AppendKey(nil, row), len(value), value)
}
