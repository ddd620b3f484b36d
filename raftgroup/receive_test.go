package raftgroup

import (
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/proa-kv/proa/raftgroup/placement"
)

func TestInboxBounds(t *testing.T) {
	c := newCluster(t, 3, 2)
	c.until("leaders", c.led)
	n := c.nodes[1]
	g := n.etcd().groups[0]
	message := func(bytes int) raftpb.Message {
		e := entry(1, 1)
		e.Data = append(e.Data, make([]byte, bytes)...)
		return raftpb.Message{Type: raftpb.MsgApp, Term: 1, From: placement.ReplicaID(2, 1), To: placement.ReplicaID(1, 1), Entries: []raftpb.Entry{e}}
	}
	waiting := func() int {
		g.inbox.mu.Lock()
		defer g.inbox.mu.Unlock()
		return len(g.inbox.messages)
	}
	// One message may be larger than the bound, none beside it.
	n.Receive(2, 0, message(inboxBytesMax+1))
	n.Receive(2, 0, message(1))
	if got := waiting(); got != 1 {
		t.Errorf("%d messages wait, want the large one", got)
	}
	g.inbox.messages, g.inbox.bytes = nil, 0
	for range 4 {
		n.Receive(2, 0, message(inboxBytesMax/4))
	}
	n.Receive(2, 0, message(1))
	if got := waiting(); got != 4 {
		t.Errorf("%d messages wait, want 4", got)
	}
	g.inbox.messages, g.inbox.bytes = nil, 0
	for range inboxMax + 1 {
		n.Receive(2, 0, message(0))
	}
	if got := waiting(); got != inboxMax {
		t.Errorf("%d messages wait, want %d", got, inboxMax)
	}
	g.inbox.messages = nil
}

func TestReceiveExpelsNonsense(t *testing.T) {
	c := newCluster(t, 3, 2)
	n := c.nodes[1]
	good := raftpb.Message{Type: raftpb.MsgHeartbeat, Term: 1, From: placement.ReplicaID(2, 1), To: placement.ReplicaID(1, 1)}
	for name, m := range map[string]struct {
		from  uint64
		shard uint32
		m     func(*raftpb.Message)
	}{
		"no such shard":        {2, 99, func(*raftpb.Message) {}},
		"another sender":       {3, 0, func(*raftpb.Message) {}},
		"another receiver":     {2, 0, func(m *raftpb.Message) { m.To = placement.ReplicaID(3, 1) }},
		"a proposal":           {2, 0, func(m *raftpb.Message) { m.Type = raftpb.MsgProp }},
		"a local message":      {2, 0, func(m *raftpb.Message) { m.Type = raftpb.MsgStorageAppendResp }},
		"a bare snapshot":      {2, 0, func(m *raftpb.Message) { m.Type = raftpb.MsgSnap }},
		"a type that is not":   {2, 0, func(m *raftpb.Message) { m.Type = 1000 }},
		"a type below nothing": {2, 0, func(m *raftpb.Message) { m.Type = -1 }},
	} {
		msg := good
		m.m(&msg)
		c.expelled = nil
		n.Receive(m.from, m.shard, msg)
		if len(c.expelled) != 1 {
			t.Errorf("%s: expelled %q", name, c.expelled)
		}
		for _, g := range n.etcd().groups {
			if len(g.inbox.messages) > 0 {
				t.Errorf("%s was taken in", name)
				g.inbox.messages = nil
			}
		}
	}
	n.Receive(2, 0, good)
	if len(n.etcd().groups[0].inbox.messages) != 1 {
		t.Error("a good message was dropped")
	}
	n.etcd().groups[0].inbox.messages = nil
}

// TestStoppedTakesNothingIn: others go on to send to a node that stops. Each log write
// would find the next messages due, and on a slow disk the node would not end in time.
func TestStoppedTakesNothingIn(t *testing.T) {
	c := newCluster(t, 3, 2)
	n := c.nodes[1]
	n.state.set(stopped)
	n.Receive(2, 0, raftpb.Message{Type: raftpb.MsgHeartbeat, Term: 1, From: placement.ReplicaID(2, 1), To: placement.ReplicaID(1, 1)})
	if got := len(n.etcd().groups[0].inbox.messages); got > 0 {
		t.Errorf("%d messages wait", got)
	}
}

// TestLeaderThatWas: what comes to a leader in the pass in which it learns of the next
// one must not be passed on, as Raft's followers do: the other node would find it in the
// name of a third, or of itself, and end the connection.
func TestLeaderThatWas(t *testing.T) {
	for name, late := range map[string]func(n *Node, follower uint64){
		"read index": func(n *Node, follower uint64) {
			n.Receive(follower, 0, raftpb.Message{Type: raftpb.MsgReadIndex, From: placement.ReplicaID(follower, 1), To: placement.ReplicaID(n.id, 1), Entries: []raftpb.Entry{{Data: make([]byte, roundContextBytes)}}})
		},
		"transfer": func(n *Node, follower uint64) {
			n.post(func() { n.transferLeadership(0, placement.ReplicaID(follower, 1)) })
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
	id, term, last := placement.ReplicaID(n.id, 1), n.views[0].Term.Load(), n.etcd().groups[0].last
	for range 10 { // the log has to say it first
		n.post(func() {
			if err := n.retire(0); err != nil {
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
	next := placement.ReplicaID(n.id, 2)
	if r := n.etcd().groups[0].retired; r != id || placement.IncarnationOf(next) <= placement.IncarnationOf(r) {
		t.Errorf("replica %x is remembered, want %x; its successor %x would not be created", r, id, next)
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
			n.post(func() {
				if err := n.retire(meta); err != nil {
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
