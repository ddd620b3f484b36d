package storage

import (
	"errors"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

func TestOwner(t *testing.T) {
	mem := vfs.NewMem()
	o := testOptions(mem)
	s := open(t, o) // as an earlier version left it
	do(t, s, 1, put("a", "1"))
	closeStore(t, s)
	o.Owner = Owner{Cluster: 7, Node: 2, UID: 5}
	begun := o
	begun.Begun = true
	if _, err := Open(begun); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a database that should know its owner: %v", err)
	}
	for range 3 {
		s = open(t, o)
		diff(t, "a", get(t, s, 0, "a", 1), read{"1", 1, 0, true})
		closeStore(t, s)
		o = begun
	}
	for _, other := range []Owner{{7, 2, 6}, {7, 3, 5}, {8, 2, 5}} {
		o.Owner = other
		if _, err := Open(o); !errors.Is(err, ErrOwner) {
			t.Errorf("%+v: %v", other, err)
		}
		if _, err := Verify(o, func(string) {}); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%+v: verify: %v", other, err)
		}
	}
	o = begun
	o.Shards++
	if _, err := Open(o); !errors.Is(err, ErrOwner) {
		t.Errorf("another number of shards: %v", err)
	}
	if _, err := Verify(begun, func(s string) { t.Error(s) }); err != nil {
		t.Error(err)
	}
	o.Owner = Owner{}
	s = open(t, o) // nobody asks
	closeStore(t, s)
}
