package raftgroup

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup/engine"
)

// TestAcrossIsRecalled: a command over several shards of a session that a lone
// node has carried out, and whose answer got lost, is answered with its result
// when it is repeated in the cluster that the node has grown into, by each of its
// nodes. One that was not carried out is refused, and does nothing.
func TestAcrossIsRecalled(t *testing.T) {
	c := newCluster(t, 1, 3)
	c.until("leaders", c.led)
	n := c.nodes[1]
	k := apart(n)
	txn := func(sequence uint64) *command.Command {
		return &command.Command{
			Kind: command.Txn, Session: command.Session{ID: 7, Sequence: sequence},
			Compares: []command.Compare{{Target: command.OnVersion, Relation: command.Equal, Key: []byte(k[0])}},
			Ops:      append(puts(k[0], "there"), command.Command{Kind: command.Incr, Key: []byte(k[1]), Delta: 1}),
			Else:     []command.Command{{Kind: command.Incr, Key: []byte(k[2]), Delta: 1}, {Kind: command.Get, Key: []byte(k[0])}},
		}
	}
	batch := &command.Command{Kind: command.Batch, Flags: command.Counted, Session: command.Session{ID: 7, Sequence: 3},
		Ops: append(puts(k[2], "5"), command.Command{Kind: command.Get, Key: []byte(k[1])})}
	done := []*command.Command{txn(1), txn(2), batch}
	var first []command.Result
	for _, cmd := range done {
		o, r := acrossNow(t, n, cmd)
		if o != command.Applied || r.Status != command.OK {
			t.Fatalf("outcome %v, %+v", o, r)
		}
		first = append(first, r)
	}
	if !first[0].Succeeded || first[1].Succeeded {
		t.Fatalf("%+v", first)
	}

	c.join(2)
	c.until("copies on both", func() bool {
		return c.settled(2) && c.nodes[2].Holds(0) && c.nodes[2].Holds(1) && c.nodes[2].Holds(2)
	})
	ask := func(n *Node, cmd *command.Command) (command.Outcome, command.Result) {
		t.Helper()
		e := &keeper{}
		if err := n.ProposeAcross(shardsOf(n), cmd, e, command.Tag{}); err != nil {
			t.Fatal(err)
		}
		c.until("an outcome", func() bool { return e.heard })
		return e.outcome, e.result
	}
	for id, n := range c.nodes {
		for i, cmd := range done {
			if o, r := ask(n, cmd); o != command.Applied || cmp.Diff(first[i], r, cmpopts.EquateEmpty()) != "" {
				t.Errorf("node %d, command %d: outcome %v\n%s", id, i, o, cmp.Diff(first[i], r, cmpopts.EquateEmpty()))
			}
		}
		if o, _ := ask(n, txn(4)); o != command.Apart {
			t.Errorf("node %d: outcome %v of what was never done", id, o)
		}
		other := *done[0]
		other.Ops = append(puts(k[0], "another"), other.Ops[1:]...)
		if _, r := ask(n, &other); r.Status != command.SessionMismatch {
			t.Errorf("node %d: another request under the number: %+v", id, r)
		}
		plain := *batch
		plain.Session = command.Session{}
		if err := n.ProposeAcross(shardsOf(n), &plain, &keeper{}, command.Tag{}); !errors.Is(err, command.ErrApart) {
			t.Errorf("node %d: without a session: %v", id, err)
		}
	}
	if got := local(c.nodes[2], k[1]) + local(c.nodes[2], k[2]); got != "15" {
		t.Errorf("the repetitions left %q", got)
	}

	// With the result gone from one shard nobody can tell it any more.
	c.carryOut(k[1], &command.Command{Kind: command.Incr, Key: []byte(k[1]), Delta: 1, Session: command.Session{ID: 7, Sequence: 9, Acknowledged: 8}})
	if _, r := ask(n, done[0]); r.Status != command.SessionExpired {
		t.Errorf("with a part forgotten: %+v", r)
	}
	// Nor where this node has no replica of the shard.
	c.nodes[2].views[shardFor(n, k[2])].Held.Store(false)
	if _, r := ask(c.nodes[2], done[1]); r.Status != command.SessionExpired {
		t.Errorf("with a part elsewhere: %+v", r)
	}
	if err := c.nodes[2].ProposeAcross(shardsOf(n), done[2], &keeper{}, command.Tag{}); !errors.Is(err, command.ErrNotLeader) {
		t.Errorf("with the first key elsewhere: %v", err)
	}
	c.nodes[2].views[shardFor(n, k[2])].Held.Store(true)
}

// TestAcrossIsRecalledFromTheQueue: what was queued when the node ceased to be
// alone is looked for as well.
func TestAcrossIsRecalledFromTheQueue(t *testing.T) {
	c := newCluster(t, 1, 3)
	c.until("leaders", c.led)
	n := c.nodes[1]
	k := apart(n)
	cmd := &command.Command{Kind: command.Batch, Ops: puts(k[0], "v", k[1], "v"), Session: command.Session{ID: 1, Sequence: 1}}
	_, first := acrossNow(t, n, cmd)
	again, fresh := &keeper{}, &keeper{}
	if err := n.ProposeAcross(shardsOf(n), cmd, again, command.Tag{}); err != nil {
		t.Fatal(err)
	}
	next := *cmd
	next.Session.Sequence = 2
	if err := n.ProposeAcross(shardsOf(n), &next, fresh, command.Tag{}); err != nil {
		t.Fatal(err)
	}
	n.state.Clear(engine.Alone)
	c.settle()
	if !again.heard || again.outcome != command.Applied || cmp.Diff(first, again.result, cmpopts.EquateEmpty()) != "" {
		t.Errorf("outcome %v\n%s", again.outcome, cmp.Diff(first, again.result, cmpopts.EquateEmpty()))
	}
	if !fresh.heard || fresh.outcome != command.Apart {
		t.Errorf("outcome %v of what was never done", fresh.outcome)
	}
	n.state.Set(engine.Alone)
}
