package etcd

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup/engine"
)

// TestGrowthIsGivenBack: a command that was admitted and then refused does not count for
// ever.
func TestGrowthIsGivenBack(t *testing.T) {
	l := newLone(t, 1)
	large := &command.Command{Kind: command.SetRange, Key: []byte("k"), Offset: command.ValueBytesMax - 1, Value: []byte("x")}
	admit := func(k *keeper) (engine.Completion, bool) {
		return l.Growing.Admit(l.Store, l.Limits, 0, large, engine.Completion{Sink: k})
	}
	k := &keeper{}
	waiting, admitted := admit(k)
	if !admitted {
		t.Fatal("the first is not admitted")
	}
	must(t, l.Propose(0, large, waiting.Sink, waiting.Tag))
	g := l.groups[0]
	g.takeAll()
	g.refuseTaken(l.Engine)
	if !k.heard || k.outcome != command.Dropped {
		t.Fatalf("outcome %v", k.outcome)
	}
	if _, admitted := admit(&keeper{}); admitted {
		t.Fatal("it counts no more before the pass has looked for room")
	}
	l.schedule.request(messagesDue)
	l.run()
	if _, admitted := admit(&keeper{}); !admitted {
		t.Error("it still counts")
	}
}

// TestLargeCommandsAreNotPatientForEver: a large command whose time has passed in
// the queue is taken out before it is proposed, whatever it waits for, and those
// behind it go on.
func TestLargeCommandsAreNotPatientForEver(t *testing.T) {
	for name, held := range map[string]bool{"nothing in the way": false, "a transfer under way": true} {
		t.Run(name, func(t *testing.T) {
			l := newLone(t, 1)
			large := func(key string, patience uint32) *keeper {
				t.Helper()
				c := put(key, strings.Repeat("v", engine.LargeBytes))
				c.PatienceMillis = patience
				return l.propose(c)
			}
			overdue, patient, forEver := large("a", 50), large("b", 50_000), large("c", 0)
			if held {
				l.groups[0].transfer = transfer{to: 2, until: math.MaxUint64}
			}
			l.clock.ms.Add(51)
			l.Tick()
			l.run()
			if !overdue.heard || overdue.outcome != command.Overdue {
				t.Errorf("heard %v, outcome %v", overdue.heard, overdue.outcome)
			}
			l.groups[0].transfer = transfer{}
			l.runUntil("outcomes", func() bool { return patient.heard && forEver.heard })
			if patient.outcome != command.Applied || forEver.outcome != command.Applied {
				t.Errorf("outcomes %v and %v", patient.outcome, forEver.outcome)
			}
			if l.value("a") != "" {
				t.Error("what was overdue has been carried out")
			}
			if n := l.ShardCounters(0).Queued; n != 0 || l.groups[0].queue.HasLarge() {
				t.Errorf("%d commands are queued", n)
			}
		})
	}
}

// transferOf is a Txn that goes from one value of a key to the next, in two shards.
func transferOf(i byte) *command.Command {
	return &command.Command{
		Kind: command.Txn, Compares: []command.Compare{{Target: command.OnValue, Relation: command.Equal, Key: []byte("k0"), Value: []byte{'0' + i}}},
		Ops: puts("k0", string('0'+i+1), "k1", string('0'+i+1)),
	}
}

// TestAcrossQueueIsBounded: what a pass has taken over and cannot propose yet
// counts as queued.
func TestAcrossQueueIsBounded(t *testing.T) {
	l := newLone(t, 3)
	l.put("k0", "0")
	l.Limits.QueueOps = 3
	var kept [5]keeper
	propose := func(i int) error {
		return l.ProposeAcross(l.shardOf, transferOf(byte(i)), &kept[i], command.Tag{})
	}
	for i := range 3 {
		must(t, propose(i))
	}
	must(t, l.takeAcross()) // the first; the others wait for what it writes
	must(t, propose(3))
	if err := propose(4); !errors.Is(err, command.ErrBusy) {
		t.Errorf("a fourth that waits: %v", err)
	}
	l.run()
	for i := range 4 {
		if k := &kept[i]; !k.heard || k.outcome != command.Applied {
			t.Errorf("command %d: outcome %v", i, k.outcome)
		}
	}
	if q := &l.acrossQueue; q.ops != 0 || q.bytes != 0 {
		t.Errorf("an empty queue of %d commands, %d bytes", q.ops, q.bytes)
	}
}

// TestAcrossNeedsTheOnlyReplica: a group with a learner that has not left yet is not
// changed together with others.
func TestAcrossNeedsTheOnlyReplica(t *testing.T) {
	l := newLone(t, 3)
	c := &command.Command{Kind: command.Batch, Ops: puts("k0", "v", "k1", "v")}
	l.groups[1].conf.Learners = []uint64{r2}
	k := &keeper{}
	must(t, l.ProposeAcross(l.shardOf, c, k, command.Tag{}))
	l.run()
	if !k.heard || k.outcome != command.Apart {
		t.Errorf("outcome %v with a learner", k.outcome)
	}
	l.groups[1].conf.Learners = nil
	if got := l.value("k0") + l.value("k1"); got != "" {
		t.Errorf("found %q", got)
	}
}

// TestAcrossIsAnsweredAtTheEnd: what a pass has taken over, and no pass can propose any
// more, is answered when the engine is closed.
func TestAcrossIsAnsweredAtTheEnd(t *testing.T) {
	l := newLone(t, 3)
	k := &keeper{}
	must(t, l.ProposeAcross(l.shardOf, &command.Command{Kind: command.Batch, Ops: puts("k0", "v", "k1", "v")}, k, command.Tag{}))
	l.crossing.list, l.acrossQueue.list = l.acrossQueue.list, nil
	l.schedule.take(commandsDue)
	l.stop()
	if !k.heard || k.outcome != command.Dropped {
		t.Errorf("outcome %v of what was queued when the engine was closed", k.outcome)
	}
}
