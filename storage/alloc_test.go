package storage

import (
	"testing"

	"github.com/proa-kv/proa/bufpool"
	"github.com/proa-kv/proa/internal/alloctest"
)

func TestReadFromCacheAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	s := openTest(t)
	do(t, s, 1, put("k", "value"))
	b := bufpool.Get(64)
	defer b.Release()
	for name, key := range map[string][]byte{"found": []byte("k"), "missed": []byte("absent")} {
		if n := alloctest.Least(100, 0, func() {
			b.B = b.B[:0]
			s.AppendCached(b, 0, key, 1, true)
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// What is left is the growth of a new table's lists.
func TestApplyAllocatesLittle(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	s := openTest(t)
	var commands cmds
	for _, key := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
		commands = append(commands, put(key, "v"), incr("n"+key, 1), del(key))
	}
	data := entryOf(1, commands...)
	entries := make([]Entry, 1)
	var d Deliverer = discard{}
	n := alloctest.Least(100, 1, func() {
		entries[0] = Entry{Index: s.Applied(0) + 1, Data: data}
		if err := s.Apply(entries, d); err != nil {
			t.Fatal(err)
		}
	})
	if n > 1 {
		t.Errorf("%v allocations for %d commands", n, len(commands))
	}
}
