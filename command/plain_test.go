package command

import (
	"errors"
	"testing"
)

func TestPlain(t *testing.T) {
	read := []Command{{Kind: Get, Key: []byte("k")}}
	for _, tt := range []struct {
		name string
		c    Command
		ok   bool
	}{
		{"a put under a condition", Command{Kind: Put, Flags: IfVersion, Key: []byte("k")}, true},
		{"a transaction", Command{Kind: Txn, Ops: read}, true},
		{"a whole transaction", Command{Kind: Txn, Flags: Whole, Ops: read}, true},
		{"a counted batch", Command{Kind: Batch, Flags: Counted, Ops: read}, true},
		{"a watch", Command{Kind: Watch, Key: []byte("k")}, false},
		{"a range", Command{Kind: GetRange, Key: []byte("k")}, false},
		{"a range in a batch", Command{Kind: Batch, Ops: []Command{{Kind: GetRange, Key: []byte("k")}}}, false},
		{"a deletion of a range", Command{Kind: DeleteRange}, false},
		{"a watch in a transaction", Command{Kind: Txn, Else: []Command{{Kind: Watch, Key: []byte("k")}}}, false},
		{"a comparison of absence", Command{Kind: Txn, Compares: []Compare{{Target: OnAbsence, Relation: Equal, Key: []byte("k")}}}, false},
	} {
		before := tt.c.Flags
		got, err := tt.c.Plain()
		switch {
		case !tt.ok && !errors.Is(err, ErrEarlierVersion), tt.ok && err != nil:
			t.Errorf("%s: error %v", tt.name, err)
		case tt.ok && got.Flags&tt.c.Kind.proposers() != 0:
			t.Errorf("%s: flags of the proposer are left", tt.name)
		case tt.ok && got.Flags != before&^tt.c.Kind.proposers(), tt.c.Flags != before:
			t.Errorf("%s: flags have changed", tt.name)
		}
	}
}

// Kinds that a replica of an earlier version does not know, and those of the future, are
// not plain.
func TestPlainKinds(t *testing.T) {
	for k := range Kind(40) {
		want := k >= 1 && k <= 17 // as of the first version
		if _, err := (&Command{Kind: k}).Plain(); (err == nil) != want {
			t.Errorf("%v (%d): %v", k, k, err)
		}
	}
}

// A retry has the digest of the first try, whether all members knew Whole then
// or not.
func TestDigestOfPlain(t *testing.T) {
	c := Command{Kind: Txn, Flags: Whole, Session: Session{ID: 1, Sequence: 1}, Ops: []Command{{Kind: Put, Key: []byte("k")}}}
	plain, err := c.Plain()
	if err != nil {
		t.Fatal(err)
	}
	digest := func(c *Command) uint64 {
		entry := c.AppendTo(AppendEntryHeader(nil))
		SealEntry(entry, 1, 1)
		r, err := NewReader(entry)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Next(new(Command)); err != nil {
			t.Fatal(err)
		}
		return r.Digest()
	}
	if digest(&c) != digest(plain) {
		t.Error("the digests differ")
	}
}

// TestCut is GETRANGE at the edges of a value.
func TestCut(t *testing.T) {
	const v = "abcd"
	for _, x := range []struct {
		start, end int64
		want       string
	}{
		{0, 3, "abcd"}, {0, 4, "abcd"}, {3, 3, "d"}, {4, 4, ""}, {-4, -4, "a"}, {-5, -5, "a"}, {-5, -4, "a"}, {-1, -1, "d"}, {2, 1, ""}, {-1, -3, ""},
		{-9223372036854775808, 9223372036854775807, "abcd"}, {9223372036854775807, 9223372036854775807, ""},
	} {
		if got := Cut([]byte(v), x.start, x.end); string(got) != x.want {
			t.Errorf("%d to %d: %q, want %q", x.start, x.end, got, x.want)
		}
	}
	if Cut(nil, 0, -1) != nil {
		t.Error("of an empty value something is left")
	}
}
