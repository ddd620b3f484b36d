package ledger

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/protocol"
)

func TestNext(t *testing.T) {
	r, value := Record{Tried: 8}, make([]byte, NumberBytes+1)
	for want := 9; want < 12; want++ {
		if r.Next(value); string(value) != fmt.Sprintf("%-*d", len(value), want) || !r.Allows(value, true) {
			t.Errorf("%q is not %d", value, want)
		}
	}
}

// What may be under a key is what was acknowledged, or anything sent since.
func TestAllows(t *testing.T) {
	r := Record{Acked: 5, Tried: 7}
	for value, want := range map[string]bool{"0": false, "4": false, "5": true, "6   ": true, "7": true, "8": false, "": false, "x": false, "-6": false} {
		if r.Allows([]byte(value), true) != want {
			t.Errorf("%q: %v", value, !want)
		}
	}
	if r.Allows(nil, false) {
		t.Error("an acknowledged key may be absent")
	}
	if r = (Record{Tried: 1}); !r.Allows(nil, false) {
		t.Error("a key that was never acknowledged must be there")
	}
}

// A write shows what became of those before it.
func TestReplaced(t *testing.T) {
	for _, tc := range []struct {
		previous string // "" for an absent key
		lost     bool
	}{{"4", true}, {"5", false}, {"6", false}, {"7", true}, {"x", true}, {"", true}} {
		// 5 is acknowledged, 6 failed, 7 is being acknowledged.
		r := Record{Acked: 5, Tried: 7}
		if lost := r.Replaced([]byte(tc.previous), tc.previous != ""); lost != tc.lost || r.Acked != 7 || r.Tried != 7 {
			t.Errorf("in place of %q: lost %v, then %+v", tc.previous, lost, r)
		}
	}
	first := Record{Tried: 1}
	if first.Replaced(nil, false) {
		t.Error("the first write to a key shows a loss")
	}
}

func TestMissing(t *testing.T) {
	var records []*Record
	for i := range uint64(5) {
		records = append(records, &Record{Key: fmt.Append(nil, i), Acked: i, Tried: i})
	}
	get := func(_ context.Context, key []byte) ([]byte, bool, error) {
		switch string(key) {
		case "1", "4":
			return key, true, nil
		case "2":
			return []byte("1"), true, nil
		}
		return nil, false, nil
	}
	if n, err := Missing(t.Context(), records, get); n != 2 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	failed := errors.New("failed")
	if _, err := Missing(t.Context(), records, func(context.Context, []byte) ([]byte, bool, error) { return nil, false, failed }); !errors.Is(err, failed) {
		t.Error(err)
	}
}

func TestTags(t *testing.T) {
	shards := []client.Shard{{ID: 4, Slots: []client.SlotRange{{First: 0, Last: 99}, {First: 16383, Last: 16383}}}, {ID: 9, Slots: []client.SlotRange{{First: 100, Last: 16382}}}}
	tags, err := Tags(shards)
	if err != nil {
		t.Fatal(err)
	}
	slot := func(id uint16) uint16 { return protocol.Slot(fmt.Appendf(nil, "{%s}:kill:0:1", tags[id])) }
	if s := slot(4); s > 99 && s != 16383 {
		t.Errorf("shard 4 got slot %d", s)
	}
	if s := slot(9); s < 100 || s == 16383 {
		t.Errorf("shard 9 got slot %d", s)
	}
	if _, err := Tags(append(shards, client.Shard{ID: 1})); err == nil {
		t.Error("a shard without slots has keys")
	}
}
