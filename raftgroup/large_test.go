package raftgroup

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup/engine"
)

// hearing notes in which order outcomes come.
type hearing struct{ order []uint64 }

func (h *hearing) Complete(tag command.Tag, o command.Outcome, _ *command.Result) {
	if o == command.Applied {
		h.order = append(h.order, tag.ID)
	}
}

// TestLargeCommandsGoOneAtATime queues large commands and then small ones. One
// pass carries out all the small ones, with one large one at most; no command
// is lost, and of one shard the large ones keep their order.
func TestLargeCommandsGoOneAtATime(t *testing.T) {
	n := memNode(t, vfs.NewMem(), Options{Shards: 2})
	var heard hearing
	large := strings.Repeat("v", 400<<10) // a memtable has 512 KiB
	propose := func(shard int, id uint64, key, value string) {
		t.Helper()
		if err := n.Propose(shard, put(key, value), &heard, command.Tag{ID: id}); err != nil {
			t.Fatal(err)
		}
	}
	const each = 5
	for i := range uint64(each) {
		propose(0, 100+i, fmt.Sprint("a", i), large)
		propose(1, 200+i, fmt.Sprint("b", i), large)
	}
	for i := range uint64(each) {
		propose(0, i, fmt.Sprint("s", i), "small")
		propose(1, 10+i, fmt.Sprint("s", i), "small")
	}
	if n.Acquire() {
		n.Run()
	}
	isLarge := func(id uint64) bool { return id >= 100 }
	small := slices.DeleteFunc(slices.Clone(heard.order), isLarge)
	if len(small) != 2*each || len(heard.order) > 2*each+1 {
		t.Fatalf("after one pass the outcomes are %v, want all small ones and one large one at most", heard.order)
	}
	for deadline := time.Now().Add(30 * time.Second); len(heard.order) < 4*each; {
		if time.Now().After(deadline) {
			t.Fatalf("the outcomes are %v", heard.order)
		}
		n.engine.Wake() // as each tick and each drain does
		run(n)
	}
	for _, first := range []uint64{100, 200} {
		of := slices.DeleteFunc(slices.Clone(heard.order), func(id uint64) bool { return id < first || id >= first+100 })
		if !slices.IsSorted(of) || len(of) != each {
			t.Errorf("the large commands of a shard came as %v", of)
		}
	}
	if turns := heard.order[2*each:]; isLarge(turns[0]) && turns[0]/100 == turns[1]/100 && turns[1]/100 == turns[2]/100 {
		t.Errorf("the shards do not take turns: %v", heard.order)
	}
}

// A queue of large commands is bounded, and takes nothing from the small ones.
func TestLargeQueueIsBounded(t *testing.T) {
	n := memNode(t, vfs.NewMem(), Options{})
	n.lim.QueueBytes = 1 << 20
	var heard hearing
	large := strings.Repeat("v", 400<<10)
	for i := range 2 {
		if err := n.Propose(0, put(fmt.Sprint(i), large), &heard, command.Tag{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.Propose(0, put("k", large), &heard, command.Tag{}); err != command.ErrBusy {
		t.Errorf("beyond the bound: %v", err)
	}
	if err := n.Propose(0, put("k", "small"), &heard, command.Tag{}); err != nil {
		t.Errorf("a small one: %v", err)
	}
	for deadline := time.Now().Add(30 * time.Second); len(heard.order) < 3; {
		if time.Now().After(deadline) {
			t.Fatalf("%d of 3 were carried out", len(heard.order))
		}
		n.engine.Wake()
		run(n)
	}
}

// TestLargeCommandBesideAPass queues a large command while a pass takes what is
// small. Whenever it comes, a pass carries it out: nobody else wakes one.
func TestLargeCommandBesideAPass(t *testing.T) {
	n := memNode(t, vfs.NewMem(), Options{})
	var heard hearing
	small := put("k", "v")
	large := put("k", strings.Repeat("v", engine.LargeBytes))
	large.Flags = command.IfAbsent // which it is not: nothing fills up
	rounds := 6000
	if testing.Short() {
		rounds = 1000
	}
	for i := range rounds {
		if err := n.Propose(0, small, &heard, command.Tag{}); err != nil {
			t.Fatal(err)
		}
		queued := make(chan error)
		go func() { queued <- n.Propose(0, large, &heard, command.Tag{}) }()
		for range i % 64 { // the pass begins a little later each time
			runtime.Gosched()
		}
		run(n)
		if err := <-queued; err != nil {
			t.Fatal(err)
		}
		run(n)
		if len(heard.order) != 2*(i+1) {
			t.Fatalf("round %d: %d commands carried out, want %d", i, len(heard.order), 2*(i+1))
		}
	}
}
