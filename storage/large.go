package storage

import "sync/atomic"

// largeRows remembers which rows are large, so that who proposes a small command
// can tell that it will read or make one. It is a hint: rows are forgotten at a
// start and where others take their slots, and one that a plain Put or Delete has
// made small counts as large until a command of modify.go has looked at it. Any
// thread may read, Apply writes.
type largeRows [largeRowsSlots]atomic.Uint64 // the upper half of the hash, and the length of the value

// largeRowsSlots take half a MiB.
const largeRowsSlots = 64 << 10

// A row counts as large where the row cache does not take its value.
const largeRowBytes = rowBytesMax

// note takes in that the value of a row has n bytes.
func (l *largeRows) note(hash uint64, n int) {
	slot := &l[hash%largeRowsSlots]
	switch {
	case n > largeRowBytes:
		slot.Store(hash>>32<<32 | uint64(n))
	case slot.Load()>>32 == hash>>32:
		slot.Store(0)
	}
}

func (l *largeRows) bytes(hash uint64) int {
	if s := l[hash%largeRowsSlots].Load(); s>>32 == hash>>32 {
		return int(uint32(s))
	}
	return 0
}

// LargeRow returns the length of the value of a row that is known to be large, 0
// of any other. It does not wait, and may be wrong; any thread may call it.
func (s *Store) LargeRow(shard int, key []byte) int { return s.large.bytes(hashKey(shard, key)) }
