package raftgroup

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup/placement"
)

// TestGrowthIsAdmitted has a client propose small commands that make large rows,
// without a pause. About one large value is under way at a time, small commands of
// others are taken all the while, and each is admitted in the end.
func TestGrowthIsAdmitted(t *testing.T) { onEngines(t, testGrowthIsAdmitted) }

func testGrowthIsAdmitted(t *testing.T, kind placement.Engine) {
	const size = 128 << 10
	key, row := []byte("k"), strings.Repeat("v", size)
	nine := []byte("9")
	for name, c := range map[string]command.Command{
		"copy":         {Kind: command.Rename, Flags: command.RenameKeepSource, Key: key, Value: []byte("j")},
		"setrange":     {Kind: command.SetRange, Key: []byte("new"), Offset: size - 1, Value: nine},
		"append":       {Kind: command.Append, Key: key, Value: nine},
		"setexpiry":    {Kind: command.SetExpiry, Key: key, TTLMillis: 1 << 40},
		"expire":       {Kind: command.Expire, Key: key, TTLMillis: 1 << 40},
		"batch":        {Kind: command.Batch, Ops: []command.Command{{Kind: command.Append, Key: key, Value: nine}}},
		"txn, or else": {Kind: command.Txn, Else: []command.Command{{Kind: command.Append, Key: key, Value: nine}}},
	} {
		t.Run(name, func(t *testing.T) {
			n := memNode(t, vfs.NewMem(), Options{Engine: kind.String(), Shards: 1})
			n.lim.GrowthBytes = size + size/2
			mustPut(t, n, "k", row)
			mustPut(t, n, "small", "v")
			const times = 4
			e := newEar()
			deadline := time.Now().Add(time.Minute)
			for next := uint64(0); e.heard() < times; {
				queued := 0
				for ; next < times; next++ {
					err := n.Propose(0, &c, e, command.Tag{ID: next})
					if errors.Is(err, command.ErrBusy) {
						break
					}
					if err != nil {
						t.Fatal(err)
					}
					queued++
				}
				if queued > 1 {
					t.Fatalf("%d at a time", queued)
				}
				small := newEar()
				for i, c := range []*command.Command{put("other", "v"), {Kind: command.Append, Key: []byte("small"), Value: nine}} {
					if err := n.Propose(0, c, small, command.Tag{ID: uint64(i)}); err != nil {
						t.Fatalf("small command %d: %v", i, err)
					}
				}
				n.engine.Wake()
				run(n)
				if kind == placement.Etcd && small.heard() != 2 {
					t.Fatal("the small commands have waited")
				}
				hear(t, n, small, 2)
				if time.Now().After(deadline) {
					t.Fatalf("%d of %d have an outcome", e.heard(), times)
				}
			}
			for i := range uint64(times) {
				if o, s := e.outcomes[i], e.results[i].Status; o != command.Applied || s != command.OK {
					t.Errorf("command %d: outcome %v, %v", i, o, s)
				}
			}
		})
	}
}

// TestGrowthIsGivenBack: whatever becomes of a command that was admitted, it does
// not count for ever.
func TestGrowthIsGivenBack(t *testing.T) { onEngines(t, testGrowthIsGivenBack) }

func testGrowthIsGivenBack(t *testing.T, e placement.Engine) {
	n := memNode(t, vfs.NewMem(), Options{Engine: e.String(), Shards: 1})
	large := &command.Command{Kind: command.SetRange, Key: []byte("k"), Offset: command.ValueBytesMax - 1, Value: []byte("x")}
	n.lim.QueueOps = 0
	if err := n.Propose(0, large, newEar(), command.Tag{}); !errors.Is(err, command.ErrBusy) {
		t.Fatalf("with a full queue: %v", err)
	}
	n.lim.QueueOps = 1 << 10
	for range 2 { // not queued; carried out
		e := newEar()
		runUntil(t, n, "place: one of before still counts", func() bool {
			err := n.Propose(0, large, e, command.Tag{})
			if err != nil && !errors.Is(err, command.ErrBusy) {
				t.Fatal(err)
			}
			return err == nil
		})
		runUntil(t, n, "outcome", func() bool { return e.heard() == 1 })
	}
}
