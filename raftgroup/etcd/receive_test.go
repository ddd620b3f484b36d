package etcd

import (
	"strings"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/proa-kv/proa/raftgroup/engine"
	"github.com/proa-kv/proa/raftgroup/placement"
)

func TestInboxBounds(t *testing.T) {
	l := newLone(t, 1)
	b := &l.groups[0].inbox
	message := func(bytes int) raftpb.Message {
		e := entry(1, 1)
		e.Data = append(e.Data, make([]byte, bytes)...)
		return raftpb.Message{Type: raftpb.MsgApp, Term: 1, From: r2, To: r1, Entries: []raftpb.Entry{e}}
	}
	// One message may be larger than the bound, none beside it.
	l.Receive(2, 0, message(inboxBytesMax+1))
	l.Receive(2, 0, message(1))
	if got := len(b.messages); got != 1 {
		t.Errorf("%d messages wait, want the large one", got)
	}
	b.messages, b.bytes = nil, 0
	for range 4 {
		l.Receive(2, 0, message(inboxBytesMax/4))
	}
	l.Receive(2, 0, message(1))
	if got := len(b.messages); got != 4 {
		t.Errorf("%d messages wait, want 4", got)
	}
	b.messages, b.bytes = nil, 0
	for range inboxMax + 1 {
		l.Receive(2, 0, message(0))
	}
	if got := len(b.messages); got != inboxMax {
		t.Errorf("%d messages wait, want %d", got, inboxMax)
	}
	b.messages = nil
}

func TestReceiveExpelsNonsense(t *testing.T) {
	l := newLone(t, 2)
	good := raftpb.Message{Type: raftpb.MsgHeartbeat, Term: 1, From: r2, To: r1}
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
		l.expelled = nil
		l.Receive(m.from, m.shard, msg)
		if len(l.expelled) != 1 {
			t.Errorf("%s: expelled %q", name, l.expelled)
		}
		for _, g := range l.groups {
			if len(g.inbox.messages) > 0 {
				t.Errorf("%s was taken in", name)
				g.inbox.messages = nil
			}
		}
	}
	l.Receive(2, 0, good)
	if len(l.groups[0].inbox.messages) != 1 {
		t.Error("a good message was dropped")
	}
	l.groups[0].inbox.messages = nil
}

// TestReceiveFrameRefuses: frames are of another engine's: the connection from their sender must end.
func TestReceiveFrameRefuses(t *testing.T) {
	if err := newLone(t, 1).ReceiveFrame(3, nil); err == nil || !strings.Contains(err.Error(), "node 3 runs another Raft engine") {
		t.Error(err)
	}
}

// TestStoppedTakesNothingIn: others go on to send to a node that stops. Each log write
// would find the next messages due, and on a slow disk the node would not end in time.
func TestStoppedTakesNothingIn(t *testing.T) {
	l := newLone(t, 1)
	l.State.Set(engine.Stopped)
	l.Receive(2, 0, raftpb.Message{Type: raftpb.MsgHeartbeat, Term: 1, From: r2, To: r1})
	if got := len(l.groups[0].inbox.messages); got > 0 {
		t.Errorf("%d messages wait", got)
	}
	l.stop()
}
