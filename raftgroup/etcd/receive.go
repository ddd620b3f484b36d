package etcd

import (
	"bytes"
	"fmt"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/proa-kv/proa/raftgroup/engine"
	"github.com/proa-kv/proa/raftgroup/placement"
)

// campaignTransfer is what Raft writes into the votes it asks for after a
// leadership transfer: the leader itself wanted the election.
var campaignTransfer = []byte("CampaignTransfer")

// Receive takes one message of another node for a shard; see engine.Receiver. What is
// believed of it is in validate.go.
func (e *Engine) Receive(from uint64, shard uint32, m raftpb.Message) {
	if m.Type == raftpb.MsgReadIndex && placement.NodeOf(m.From) != from {
		return // earlier versions pass on what comes to a leader that is none any more
	}
	if err := e.checkWay(from, shard, &m); err != nil {
		e.Transport.Expel(from, err)
		return
	}
	if e.State.Is(engine.Stopped) {
		return // who sends without end must not keep the node from ending
	}
	e.schedule.addMessage(e.groups[shard], inbound{m: m})
}

// ReceiveFrame refuses: this engine has no frames of its own.
func (e *Engine) ReceiveFrame(from uint64, _ []byte) error {
	return fmt.Errorf("node %d runs another Raft engine; all nodes of a cluster must have the same raft.engine", from)
}

// checkWay checks what a message says without its group, and that it
// has come the right way.
func (e *Engine) checkWay(from uint64, shard uint32, m *raftpb.Message) error {
	switch {
	case int(shard) >= len(e.groups):
		return nonsense("a message for shard %d of %d", shard, e.Meta())
	case placement.NodeOf(m.From) != from || placement.NodeOf(m.To) != e.Node:
		return nonsense("a message from replica %x to replica %x between node %d and node %d", m.From, m.To, from, e.Node)
	case m.Type == raftpb.MsgSnap:
		return nonsense("a snapshot among messages")
	}
	return checkForm(m)
}

// ReceiveDone says that the messages handed over may be worked on.
func (e *Engine) ReceiveDone(from uint64) {
	e.host.Heard(from)
	e.schedule.request(messagesDue)
}

// addMessage adds a message to the inbox of g.
func (s *schedule) addMessage(g *group, in inbound) {
	if g.inbox.add(in) {
		s.addMessages(g)
	}
}

// Unreachable says that messages to a node may have been lost.
func (e *Engine) Unreachable(node uint64) {
	e.host.Lost(node)
	e.Post(func() {
		for _, g := range e.groups {
			if g.state != raft.StateLeader {
				continue
			}
			for _, id := range members(&g.conf) {
				if placement.NodeOf(id) == node {
					g.node.ReportUnreachable(id)
				}
			}
		}
	})
}

// takeInbox gives Raft the messages that have come.
func (g *group) takeInbox(e *Engine) error {
	messages := g.inbox.take()
	for i := range messages {
		if err := g.step(e, &messages[i]); err != nil {
			return err
		}
	}
	g.inbox.forget()
	return nil
}

// leadsNow reports whether Raft leads here. g.state may be older: it is of the time of
// the last collect, and messages that were stepped since may have ended the leadership.
func (g *group) leadsNow() bool {
	return g.node != nil && g.node.BasicStatus().RaftState == raft.StateLeader
}

func (g *group) step(e *Engine, in *inbound) error {
	m := &in.m
	if g.node == nil {
		if err := g.beget(e, m); err != nil {
			return err
		}
	}
	if g.node == nil || m.To != g.id {
		in.discard()
		return nil
	}
	if ok, err := g.vouched(e, m); !ok || err != nil {
		in.discard()
		return err
	}
	switch m.Type {
	case raftpb.MsgVote, raftpb.MsgPreVote:
		if !g.mayVote(e, m) {
			return nil
		}
	case raftpb.MsgApp:
		if g.receiving != nil && g.receiving.installing() {
			return nil // what it brings is replaced at once
		}
	case raftpb.MsgHeartbeat:
		g.noteCommit(e, m)
	case raftpb.MsgHeartbeatResp:
		g.noteStamp(m)
	case raftpb.MsgReadIndex:
		if !g.leadsNow() || g.answerRound(e, m) {
			return nil // Raft would pass it on, in the name of another node
		}
	case raftpb.MsgSnap:
		return g.stepSnapshot(e, in)
	}
	// Raft's errors say that it will not do what was asked: a proposal without
	// a leader, an answer of a peer it does not know. None of them is ours.
	_ = g.node.Step(*m)
	return nil
}

// mayVote reports whether this replica may take part in an election now. Before
// it holds any state it is asked by mistake; after a restart it may have
// promised a leader, before, not to.
func (g *group) mayVote(e *Engine, m *raftpb.Message) bool {
	if len(g.conf.Voters) == 0 {
		return false
	}
	return e.Clock.Boot() >= e.votesFrom || bytes.Equal(m.Context, campaignTransfer)
}
