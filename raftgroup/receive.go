package raftgroup

import (
	"bytes"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/proa-kv/proa/raftgroup/placement"
)

// campaignTransfer is what Raft writes into the votes it asks for after a
// leadership transfer: the leader itself wanted the election.
var campaignTransfer = []byte("CampaignTransfer")

// Receive hands over one message of another node for a shard; m and its
// entries belong to the node from then on. ReceiveDone must follow, once for
// any number of messages. A message that no correct node sends costs its sender
// the connection; see validate.go.
func (n *Node) Receive(from uint64, shard uint32, m raftpb.Message) {
	if err := n.checkWay(from, shard, &m); err != nil {
		n.transport.Expel(from, err)
		return
	}
	if m.Type == raftpb.MsgReadIndex && placement.NodeOf(m.From) != from {
		return // earlier versions pass on what comes to a leader that is none any more
	}
	n.schedule.addMessage(n.groups[shard], inbound{m: m})
}

// checkWay checks what a message says without its group, and that it
// has come the right way.
func (n *Node) checkWay(from uint64, shard uint32, m *raftpb.Message) error {
	switch {
	case int(shard) >= len(n.groups):
		return nonsense("a message for shard %d of %d", shard, n.meta())
	case placement.NodeOf(m.From) != from && m.Type != raftpb.MsgReadIndex || placement.NodeOf(m.To) != n.id:
		return nonsense("a message from replica %x to replica %x between node %d and node %d", m.From, m.To, from, n.id)
	case m.Type == raftpb.MsgSnap:
		return nonsense("a snapshot among messages")
	}
	return checkForm(m)
}

// ReceiveDone says that the messages handed over may be worked on; the caller
// then tries Acquire and Run.
func (n *Node) ReceiveDone(from uint64) {
	if n.known.noteAlive(from, n.clock.Boot()) {
		n.state.set(greetDue)
	}
	n.schedule.request(messagesDue)
}

// addMessage adds a message to the inbox of g.
func (s *schedule) addMessage(g *group, in inbound) {
	if g.inbox.add(in) {
		s.addMessages(g)
	}
}

// Unreachable says that messages to a node may have been lost.
func (n *Node) Unreachable(node uint64) {
	n.known.lose(node)
	n.state.set(peerLost)
	n.post(func() {
		for _, g := range n.groups {
			if g.state != raft.StateLeader {
				continue
			}
			for _, id := range confMembers(&g.conf) {
				if placement.NodeOf(id) == node {
					g.node.ReportUnreachable(id)
				}
			}
		}
	})
}

// takeInbox gives Raft the messages that have come.
func (g *group) takeInbox(n *Node) error {
	messages := g.inbox.take()
	for i := range messages {
		if err := g.step(n, &messages[i]); err != nil {
			return err
		}
	}
	g.inbox.forget()
	return nil
}

func (g *group) step(n *Node, in *inbound) error {
	m := &in.m
	if g.node == nil {
		if err := g.beget(n, m); err != nil {
			return err
		}
	}
	if g.node == nil || m.To != g.id {
		in.discard()
		return nil
	}
	if ok, err := g.vouched(n, m); !ok || err != nil {
		in.discard()
		return err
	}
	switch m.Type {
	case raftpb.MsgVote, raftpb.MsgPreVote:
		if !g.mayVote(n, m) {
			return nil
		}
	case raftpb.MsgApp:
		if g.receiving != nil && g.receiving.installing() {
			return nil // what it brings is replaced at once
		}
	case raftpb.MsgHeartbeat:
		g.noteCommit(n, m)
	case raftpb.MsgHeartbeatResp:
		g.noteStamp(m)
	case raftpb.MsgReadIndex:
		if g.state != raft.StateLeader || g.answerRound(n, m) {
			return nil // Raft would pass it on, in the name of another node
		}
	case raftpb.MsgSnap:
		return g.stepSnapshot(n, in)
	}
	// Raft's errors say that it will not do what was asked: a proposal without
	// a leader, an answer of a peer it does not know. None of them is ours.
	_ = g.node.Step(*m)
	return nil
}

// mayVote reports whether this replica may take part in an election now. Before
// it holds any state it is asked by mistake; after a restart it may have
// promised a leader, before, not to.
func (g *group) mayVote(n *Node, m *raftpb.Message) bool {
	if len(g.conf.Voters) == 0 {
		return false
	}
	return n.clock.Boot() >= n.votesFrom || bytes.Equal(m.Context, campaignTransfer)
}
