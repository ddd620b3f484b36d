package storage

import (
	"strings"
	"testing"
)

// TestLargeRowsAreKnown: what a small command would read or make is known from the
// row's last write on, and again once a command has looked at a row that has become
// small.
func TestLargeRowsAreKnown(t *testing.T) {
	s := openTest(t)
	const size = largeRowBytes + 1
	check := func(after, key string, want int) {
		t.Helper()
		if got := s.LargeRow(0, []byte(key)); got != want {
			t.Errorf("%s: %q counts as %d bytes, want %d", after, key, got, want)
		}
	}
	do(t, s, 1, put("k", strings.Repeat("v", size)), put("small", "v"))
	check("after a put", "k", size)
	check("after a put", "small", 0)
	do(t, s, 1, rename("k", "j", keep))
	check("after a copy", "k", size)
	check("after a copy", "j", size)
	do(t, s, 1, extend("k", "v"))
	check("after an append", "k", size+1)
	do(t, s, 1, setRange("l", size, "v"))
	check("after a setrange", "l", size+1)
	do(t, s, 1, put("k", "small"), del("j"))
	do(t, s, 1, extend("k", "v"), extend("j", "v"))
	check("after it was made small", "k", 0)
	check("after it was deleted", "j", 0)
}
