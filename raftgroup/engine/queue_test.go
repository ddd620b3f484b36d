package engine

import (
	"testing"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/internal/alloctest"
)

// TestReuse: batches are made of what was left to the queue, and hold what was added; what is
// too large to be kept, or too small for a batch, is not used.
func TestReuse(t *testing.T) {
	var q Queue
	lim := &Limits{QueueOps: 100, QueueBytes: 1 << 20, BatchOps: 100, BatchBytes: 1 << 20}
	add := func(key string) {
		t.Helper()
		c := command.Command{Kind: command.Delete, Key: []byte(key)}
		if _, err := q.Add(&c, c.EncodedBytesMax(), Completion{}, lim); err != nil {
			t.Fatal(err)
		}
	}
	take := func() Batch {
		t.Helper()
		batches := q.Take(nil, nil)
		if len(batches) != 1 {
			t.Fatalf("%d batches", len(batches))
		}
		return batches[0]
	}
	add("first")
	want := take()
	data, done := string(want.Data), len(want.Done)
	for _, room := range [][]byte{make([]byte, 0, 4096), nil, make([]byte, 7, 8), make([]byte, 0, 2*hintBytesMax), want.Data} {
		q.Reuse(room, nil)
		q.Reuse(nil, make([]Completion, 3, 8))
		add("first")
		b := take()
		if string(b.Data) != data || len(b.Done) != done || cap(b.Done) != 8 {
			t.Errorf("%q with %d completions, want %q with %d", b.Data, len(b.Done), data, done)
		}
		if keeps := cap(room) >= len(data) && cap(room) <= hintBytesMax; keeps != (cap(room) == cap(b.Data)) {
			t.Errorf("room for %d bytes was given, %d are used", cap(room), cap(b.Data))
		}
	}
	c := command.Command{Kind: command.Delete, Key: []byte("first")}
	size := c.EncodedBytesMax()
	b := want
	if n := alloctest.Least(100, 0, func() {
		q.Reuse(b.Data, b.Done)
		_, _ = q.Add(&c, size, Completion{}, lim)
		b = q.open
		q.open, q.ops, q.bytes = Batch{}, 0, 0
	}); n != 0 {
		t.Errorf("%v allocations for a batch", n)
	}
}
