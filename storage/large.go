package storage

import "sync/atomic"

// largeRows remembers which rows are large, so that who proposes a small command
// can tell that it will read or make one. It is a hint: rows are forgotten at a
// start and where others take their cells, and one that a plain Put or Delete has
// made small counts as large until a command of modify.go has looked at it. Any
// thread may read, Apply writes.
type largeRows [largeRowsCells]atomic.Uint64 // the upper half of the hash, and the length of the value

// largeRowsCells take half a MiB.
const largeRowsCells = 64 << 10

// A row counts as large where the row cache does not take its value.
const largeRowBytes = rowBytesMax

// note takes in that the value of a row has n bytes.
func (l *largeRows) note(hash uint64, n int) {
	cell := &l[hash%largeRowsCells]
	switch {
	case n > largeRowBytes:
		cell.Store(hash>>32<<32 | uint64(n))
	case cell.Load()>>32 == hash>>32:
		cell.Store(0)
	}
}

func (l *largeRows) bytes(hash uint64) int {
	if s := l[hash%largeRowsCells].Load(); s>>32 == hash>>32 {
		return int(uint32(s))
	}
	return 0
}

// LargeRow returns the length of the value of a row that is known to be large, 0
// of any other. It does not wait, and may be wrong; any thread may call it.
func (s *Store) LargeRow(shard int, key []byte) int { return s.large.bytes(hashKey(shard, key)) }
