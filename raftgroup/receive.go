package raftgroup

import (
	"bytes"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// What waits for a pass in one group is bounded by messages and by the bytes of
// their entries; one message may always wait. Raft takes a lost message for
// what it is.
const (
	inboxMax      = 4096
	inboxBytesMax = 32 << 20
)

// campaignTransfer is what Raft writes into the votes it asks for after a
// leadership transfer: the leader itself wanted the election.
var campaignTransfer = []byte("CampaignTransfer")

// Receive hands over one message of another node for a shard; m and its
// entries belong to the node from then on. ReceiveDone must follow, once for
// any number of messages. Messages that make no sense are dropped.
func (n *Node) Receive(from uint64, shard uint32, m raftpb.Message) {
	if int(shard) >= len(n.groups) || nodeOf(m.From) != from || nodeOf(m.To) != n.id || m.Type == raftpb.MsgSnap || localOnly(m.Type) {
		return
	}
	n.put(n.groups[shard], inbound{m: m})
}

// localOnly reports whether messages of this type never travel.
func localOnly(t raftpb.MessageType) bool {
	switch t {
	case raftpb.MsgHup, raftpb.MsgBeat, raftpb.MsgProp, raftpb.MsgUnreachable, raftpb.MsgSnapStatus, raftpb.MsgCheckQuorum,
		raftpb.MsgTransferLeader, raftpb.MsgStorageAppend, raftpb.MsgStorageAppendResp, raftpb.MsgStorageApply, raftpb.MsgStorageApplyResp,
		raftpb.MsgForgetLeader:
		return true
	}
	return t < 0 || t > raftpb.MsgForgetLeader
}

// ReceiveDone says that the messages handed over may be worked on; the caller
// then tries Acquire and Run.
func (n *Node) ReceiveDone(from uint64) {
	if n.reports.heard(from, n.clock.Boot()) {
		n.greetDue.Store(true)
	}
	n.raise()
}

func (n *Node) put(g *group, in inbound) {
	size := 0
	for i := range in.m.Entries {
		size += len(in.m.Entries[i].Data)
	}
	g.mu.Lock()
	if in.staged == nil && (len(g.inbox) >= inboxMax || len(g.inbox) > 0 && g.inboxBytes+size > inboxBytesMax) {
		g.mu.Unlock()
		return
	}
	g.inbox = append(g.inbox, in)
	g.inboxBytes += size
	wake := !g.heard
	g.heard = true
	g.mu.Unlock()
	if wake {
		n.markHeard(g)
	}
}

// Unreachable says that messages to a node may have been lost.
func (n *Node) Unreachable(node uint64) {
	n.post(func() {
		for _, g := range n.groups {
			if g.state != raft.StateLeader {
				continue
			}
			for _, id := range confMembers(&g.conf) {
				if nodeOf(id) == node {
					g.node.ReportUnreachable(id)
				}
			}
		}
	})
}

// takeInbox gives Raft the messages that have come.
func (g *group) takeInbox(n *Node) error {
	g.mu.Lock()
	g.inbox, g.boxed = g.boxed[:0], g.inbox
	g.inboxBytes = 0
	g.heard = false
	g.mu.Unlock()
	for i := range g.boxed {
		if err := g.step(n, &g.boxed[i]); err != nil {
			return err
		}
	}
	clear(g.boxed)
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
		g.hearCommit(n, m)
	case raftpb.MsgHeartbeatResp:
		g.hearStamp(m)
	case raftpb.MsgReadIndex:
		if g.answerRound(n, m) {
			return nil
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
