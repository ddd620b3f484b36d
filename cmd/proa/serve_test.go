package main

import (
	"math"
	"testing"
)

// TestOpenFiles: the state's files may take what a limit leaves beside
// connections, within bounds.
func TestOpenFiles(t *testing.T) {
	for _, c := range []struct {
		limit       uint64
		connections int
		want        int
	}{
		{0, 10000, 1000}, // not known
		{1024, 10000, 512},
		{1999, 10000, 999},
		{2000, 10000, 1000},
		{10000 + otherFiles + 1000, 10000, 1000},
		{10000 + otherFiles + 1001, 10000, 1001},
		{20000, 10000, 8976},
		{10000 + otherFiles + 1<<16, 10000, 1 << 16},
		{1 << 20, 10000, 1 << 16},
		{math.MaxUint64, 1, 1 << 16}, // unlimited
	} {
		if got := openFiles(c.limit, c.connections); got != c.want {
			t.Errorf("limit %d, %d connections: %d files, want %d", c.limit, c.connections, got, c.want)
		}
	}
}
