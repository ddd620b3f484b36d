package raftgroup

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/proa-kv/proa/raftgroup/datadir"
	"github.com/proa-kv/proa/raftgroup/engine"
	"github.com/proa-kv/proa/raftgroup/placement"
)

// TestLeaderThatWas: what comes to a leader in the pass in which it learns of the next
// one must not be passed on, as Raft's followers do: the other node would find it in the
// name of a third, or of itself, and end the connection.
func TestLeaderThatWas(t *testing.T) {
	for name, late := range map[string]func(n *Node, follower uint64){
		"read index": func(n *Node, follower uint64) {
			n.Receive(follower, 0, raftpb.Message{Type: raftpb.MsgReadIndex, From: placement.ReplicaID(follower, 1), To: placement.ReplicaID(n.id, 1), Entries: []raftpb.Entry{{Data: make([]byte, 24)}}})
		},
		"transfer": func(n *Node, follower uint64) {
			n.engine.Post(func() { n.engine.TransferLeadership(0, placement.ReplicaID(follower, 1)) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, 3, 1)
			c.until("a leader", c.led)
			n := c.leader(0)
			next, follower := n.id%3+1, (n.id+1)%3+1
			c.box = nil
			n.views[0].Lease.Store(0)
			term := n.views[0].Term.Load() + 1
			n.Receive(next, 0, raftpb.Message{Type: raftpb.MsgHeartbeat, Term: term, From: placement.ReplicaID(next, 1), To: placement.ReplicaID(n.id, 1)})
			late(n, follower)
			n.ReceiveDone(next)
			n.runAll()
			if got := n.views[0].Term.Load(); got != term {
				t.Fatalf("term %d, want %d", got, term)
			}
			for _, p := range c.box {
				if p.m.Type == raftpb.MsgReadIndex || p.m.Type == raftpb.MsgTransferLeader {
					t.Errorf("sends %v of replica %x to node %d", p.m.Type, p.m.From, p.to)
				}
			}
		})
	}
}

// TestRetiredReplicaStaysAway: messages to a replica that has been removed here may come
// late, and the map may not say yet that it is wanted no more. They must not bring an
// empty one of the same number about: its leader would end the connection for what that
// one has forgotten, and its successor would never be created beside it.
func TestRetiredReplicaStaysAway(t *testing.T) {
	c := newCluster(t, 3, 1)
	c.until("three replicas", func() bool { return c.settled(3) })
	leader := c.leader(0).id
	n := c.nodes[leader%3+1]
	id, term, last := placement.ReplicaID(n.id, 1), n.views[0].Term.Load(), n.engine.ShardCounters(0).Last
	for range 10 { // the log has to say it first
		n.engine.Post(func() {
			if err := n.engine.Retire(0); err != nil {
				t.Error(err)
			}
		})
		n.runAll()
	}
	if n.views[0].Held.Load() {
		t.Fatal("the replica is still here")
	}
	n.Receive(leader, 0, raftpb.Message{Type: raftpb.MsgApp, Term: term, From: placement.ReplicaID(leader, 1), To: id, Index: last, LogTerm: term, Commit: last})
	n.ReceiveDone(leader)
	n.runAll()
	if n.views[0].Held.Load() {
		t.Error("a replica of the same number is here")
	}
	// Its successor is created.
	m := *n.cmap.Load()
	m.Shards = slices.Clone(m.Shards)
	row := &m.Shards[0]
	row.Replicas = slices.Clone(row.Replicas)
	for i := range row.Replicas {
		if row.Replicas[i].Node == n.id {
			row.Replicas[i].Incarnation = 2
		}
	}
	n.cmap.Store(&m)
	n.Receive(leader, 0, raftpb.Message{Type: raftpb.MsgApp, Term: term, From: placement.ReplicaID(leader, 1), To: placement.ReplicaID(n.id, 2), Index: last, LogTerm: term, Commit: last})
	n.ReceiveDone(leader)
	n.runAll()
	if r := n.engine.Replica(0); r.ID != placement.ReplicaID(n.id, 2) {
		t.Errorf("replica %x is here, want the successor", r.ID)
	}
}

// One frame must not stop a node, whoever sends it.
func TestNonsenseCostsItsSenderTheConnection(t *testing.T) {
	c := newCluster(t, 3, 1)
	c.until("a leader", c.led)
	leader := c.leader(0).id
	follower := leader%3 + 1
	n, term := c.nodes[follower], c.nodes[leader].views[0].Term.Load()
	for name, m := range map[string]raftpb.Message{
		"a commit that nobody has": {Type: raftpb.MsgHeartbeat, Term: term, Commit: 1 << 40},
		"entries with a gap":       {Type: raftpb.MsgApp, Term: term, Index: 1, LogTerm: 1, Entries: []raftpb.Entry{{Index: 2, Term: 1}, {Index: 9, Term: 1}}},
		"an empty question":        {Type: raftpb.MsgReadIndex},
	} {
		m.From, m.To = placement.ReplicaID(leader, 1), placement.ReplicaID(follower, 1)
		c.expelled = nil
		n.Receive(leader, 0, m)
		n.ReceiveDone(leader)
		c.settle()
		if len(c.expelled) != 1 || n.state.Is(engine.Failed) {
			t.Errorf("%s: expelled %q, failed %v", name, c.expelled, n.state.Is(engine.Failed))
		}
	}
	// The same towards the leader.
	m := raftpb.Message{Type: raftpb.MsgAppResp, Term: term, Index: 1 << 40, From: placement.ReplicaID(follower, 1), To: placement.ReplicaID(leader, 1)}
	c.expelled = nil
	c.nodes[leader].Receive(follower, 0, m)
	c.nodes[leader].ReceiveDone(follower)
	c.settle()
	if len(c.expelled) != 1 || c.nodes[leader].state.Is(engine.Failed) {
		t.Errorf("a confirmation of what was never sent: expelled %q", c.expelled)
	}
	c.until("a leader", c.led)
}

// A leader that insists that this replica has confirmed what it does not hold
// is right in the end: the node must stop with a sentence.
func TestLeaderThatInsists(t *testing.T) {
	c := newCluster(t, 3, 1)
	c.until("a leader", c.led)
	leader := c.leader(0).id
	follower := leader%3 + 1
	n, term := c.nodes[follower], c.nodes[leader].views[0].Term.Load()
	for range 2 {
		if n.state.Is(engine.Failed) {
			t.Fatal("stopped by one message")
		}
		n.Receive(leader, 0, raftpb.Message{Type: raftpb.MsgHeartbeat, Term: term, Commit: 1 << 40, From: placement.ReplicaID(leader, 1), To: placement.ReplicaID(follower, 1)})
		n.ReceiveDone(leader)
		for n.Acquire() {
			n.Run()
		}
		c.clock.ms.Add(uint64((6 * time.Second).Milliseconds()))
	}
	select {
	case err := <-n.Failure():
		if !errors.Is(err, datadir.ErrRolledBack) || !strings.Contains(err.Error(), "erase it") {
			t.Error(err)
		}
	default:
		t.Error("the node goes on")
	}
	c.end(follower)
	if _, err := openMem(c.disks[follower], Options{ID: follower, Clock: c.clock}); !errors.Is(err, datadir.ErrRolledBack) {
		t.Errorf("the next start: %v", err)
	}
}

// TestRetiredBeforeItsTime: a report from before a replica was made a member excludes
// it, and removes it here where it holds nothing yet and the map of this node is old. It
// must come back with the next message, because its leader goes on to want it.
func TestRetiredBeforeItsTime(t *testing.T) {
	c := newCluster(t, 3, 1)
	c.until("three replicas", func() bool { return c.settled(3) })
	meta := c.nodes[1].meta()
	leader := c.leader(meta).id
	n := c.nodes[leader%3+1]
	retire := func() {
		t.Helper()
		for range 10 { // the log has to say it first
			n.engine.Post(func() {
				if err := n.engine.Retire(meta); err != nil {
					t.Error(err)
				}
			})
			n.runAll()
			if !n.views[meta].Held.Load() {
				return
			}
		}
		t.Fatal("the replica is still here")
	}
	term := n.views[meta].Term.Load()
	retire()
	for i := range 3 {
		n.Receive(leader, uint32(meta), raftpb.Message{Type: raftpb.MsgHeartbeat, Term: term, From: placement.ReplicaID(leader, 1), To: placement.ReplicaID(n.id, 2)})
		n.ReceiveDone(leader)
		n.runAll()
		if !n.views[meta].Held.Load() {
			t.Fatalf("the successor is not created the %d. time", i+1)
		}
		retire()
	}
}
