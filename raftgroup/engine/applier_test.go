package engine

import (
	"fmt"
	"testing"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/storage"
)

// told notes who got which outcome.
type told []string

func (l *told) Complete(tag command.Tag, o command.Outcome, _ *command.Result) {
	*l = append(*l, fmt.Sprint(tag.ID, " ", o))
}

// TestApplierTellsOnce: whoever waits gets one outcome, that of its own command, whatever
// has been moved and whatever ends the wait.
func TestApplierTellsOnce(t *testing.T) {
	var l told
	waiting := func(tag uint64) Completion { return Completion{Sink: &l, Tag: command.Tag{ID: tag}} }
	a := NewApplier(2)
	a.Add(storage.Entry{Shard: 0, Index: 7}, []Completion{waiting(1), waiting(2)})
	a.Add(storage.Entry{Shard: 1, Index: 8}, nil)
	a.Add(storage.Entry{Shard: 1, Index: 9}, []Completion{waiting(3)})
	a.Advance(2, 0)
	if first := a.Entry(0).Index; first != 9 {
		t.Fatalf("entry %d is first, want the one that was moved", first)
	}
	d := (*deliverer)(a)
	d.Deliver(0, 0, &command.Result{})
	d.Deliver(1, 0, &command.Result{})
	d.Deliver(2, 0, &command.Result{}) // nobody waits
	if a.Index(0) != 7 || a.Index(1) != 9 {
		t.Errorf("indexes %d and %d, want those of the entries with the commands", a.Index(0), a.Index(1))
	}
	a.Settle(0, command.Lost)
	a.Reset(command.Lost)
	want := fmt.Sprint([]string{fmt.Sprint("3 ", command.Applied), fmt.Sprint("1 ", command.Applied), fmt.Sprint("2 ", command.Lost)})
	if got := fmt.Sprint([]string(l)); got != want {
		t.Errorf("told %s, want %s", got, want)
	}
	if d := a.Recycle(); len(d) != 0 || cap(d) == 0 {
		t.Errorf("a slice of %d completions, %d at most, want an empty one", len(d), cap(d))
	}
}
