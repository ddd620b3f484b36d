package raftgroup

import (
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup/placement"
	"github.com/proa-kv/proa/raftlog"
)

// group is one shard's Raft group on this node. It exists for every shard of
// the cluster; node is nil where no replica is held here. Its parts own what they need
// for themselves; each knows the group, of which its methods are a part.
type group struct {
	shard  int
	logger *slog.Logger
	inbox  inbox

	proposals
	leaseState
	snapshots
	membership
	replicaDamage

	// Read by any thread, written by the pass.
	held      atomic.Bool   // a replica is here
	leads     atomic.Bool   // and leads the shard, and takes commands
	sole      atomic.Bool   // there is no other replica
	noQuorum  atomic.Bool   // there has been no leader for too long
	lastStamp atomic.Uint64 // time never goes back behind it
	ahead     atomic.Uint64 // ms that the shard's time is ahead of the node's
	aheadAt   uint64        // the node's time when ahead was last looked at; belongs to the pass
	term      atomic.Uint64
	leader    atomic.Uint64 // node
	committed atomic.Uint64

	// Belongs to the pass.
	node     *raft.RawNode
	id       uint64 // of this replica
	state    raft.StateType
	log      *raftlog.Group
	storage  *groupStorage
	at       applyPoint // what the state machine holds
	vote     uint64     // as last written to the log
	voteTerm uint64
	answers  []raftpb.Message

	commits []raftpb.Message // that carry nothing but a commit index, kept back; see send

	transfer   transfer
	leaderless int // ticks
	marks      marks
	doubt      contradiction
	applying   uint64 // index of the entry being carried out
}

func newGroup(shard int) *group {
	g := &group{shard: shard}
	g.proposals.group, g.leaseState.group, g.snapshots.group, g.membership.group, g.replicaDamage.group = g, g, g, g, g
	return g
}

// applyPoint is a place in a group's log.
type applyPoint struct {
	index, term uint64
	conf        *raftpb.ConfState
}

// collect takes everything Raft has ready: entries and hard state into the
// node's write, committed entries into its apply list, messages to others to
// the transport. What Raft must be given after the write is kept with the
// write, what it must be given after the apply in g.answers.
func (g *group) collect(n *Node) error {
	for g.node != nil && g.node.HasReady() {
		rd := g.node.Ready()
		if !raft.IsEmptyHardState(rd.HardState) {
			g.term.Store(rd.HardState.Term)
			g.committed.Store(rd.HardState.Commit)
		}
		if rd.SoftState != nil {
			g.changeRole(n, rd.SoftState)
		}
		for i := range rd.ReadStates {
			g.confirmRound(n, &rd.ReadStates[i])
		}
		for i := range rd.Messages {
			m := &rd.Messages[i]
			switch m.To {
			case raft.LocalAppendThread:
				if err := g.collectAppend(n, m); err != nil {
					return err
				}
			case raft.LocalApplyThread:
				if err := g.collectApply(n, m); err != nil {
					return err
				}
			default:
				g.send(n, m)
			}
		}
	}
	return nil
}

// send hands a message to the transport.
func (g *group) send(n *Node, m *raftpb.Message) {
	switch {
	case m.Type == raftpb.MsgSnap:
		g.sendSnapshot(n, m)
		return
	case m.Type == raftpb.MsgApp && len(m.Entries) == 0:
		// It says how far entries are committed. The next entries do so as
		// well, and under load they go in this very pass.
		if len(g.commits) == 0 {
			n.withCommits = append(n.withCommits, g)
		}
		g.dropCommit(m.To)
		g.commits = append(g.commits, *m)
		return
	case m.Type == raftpb.MsgApp && len(g.commits) > 0:
		g.dropCommit(m.To)
	}
	g.transmit(n, m)
}

// transmit gives a message to the transport.
func (g *group) transmit(n *Node, m *raftpb.Message) {
	if (m.Type == raftpb.MsgApp || m.Type == raftpb.MsgHeartbeat) && m.Commit > g.announced.Load() {
		g.announced.Store(m.Commit) // before anybody can act on it; see leaseState.current
	}
	g.addStamp(n, m)
	n.transport.Send(placement.NodeOf(m.To), uint32(g.shard), m)
}

func (g *group) dropCommit(to uint64) {
	g.commits = slices.DeleteFunc(g.commits, func(m raftpb.Message) bool { return m.To == to })
}

// sendCommits sends what send has kept back.
func (l *readyLoop) sendCommits() {
	for _, g := range l.withCommits {
		for i := range g.commits {
			g.transmit(l.node, &g.commits[i])
		}
		clear(g.commits)
		g.commits = g.commits[:0]
	}
	l.withCommits = l.withCommits[:0]
	l.node.transport.Flush()
}

func (g *group) collectAppend(n *Node, m *raftpb.Message) error {
	w := n.filling
	if m.Snapshot != nil {
		if err := g.install(n, m.Snapshot); err != nil {
			return err
		}
	}
	hs := raftpb.HardState{Term: m.Term, Vote: m.Vote, Commit: m.Commit}
	if !raft.IsEmptyHardState(hs) && (hs.Term != g.voteTerm || hs.Vote != g.vote) {
		g.voteTerm, g.vote = hs.Term, hs.Vote
		w.mustSync = true
	}
	w.log.Append(g.log, hs, m.Entries)
	if k := len(m.Entries); k > 0 {
		g.last = m.Entries[k-1].Index
	}
	if len(m.Entries) > 0 || m.Snapshot != nil {
		// A commit index alone may ride on a later write: it is known again
		// after an election. Answers wait for what is being written, if
		// anything is.
		w.mustSync = true
	}
	for i := range m.Responses {
		w.answers = append(w.answers, answer{g, g.id, m.Responses[i]})
	}
	return nil
}

func (g *group) collectApply(n *Node, m *raftpb.Message) error {
	for i := range m.Entries {
		e := &m.Entries[i]
		a := applying{group: g, index: e.Index, term: e.Term, alone: g.onlyMember()}
		switch e.Type {
		case raftpb.EntryNormal:
			a.data = e.Data
			a.done = g.resolve(n, e.Index, e.Term)
			a.mark = command.IsMark(e.Data)
		case raftpb.EntryConfChange, raftpb.EntryConfChangeV2:
			if err := g.applyConfChange(n, e); err != nil {
				return err
			}
			conf := g.conf
			a.conf = &conf
			var err error
			if a.confBytes, err = conf.Marshal(); err != nil {
				return err
			}
		default:
			return fmt.Errorf("%s: entry %d has unknown type %v", n.shardName(g.shard), e.Index, e.Type)
		}
		if g.down {
			n.finish(a.done, command.TimedOut)
			g.skipped = e.Index
			continue
		}
		n.addApply(a)
	}
	g.answers = append(g.answers, m.Responses...)
	return nil
}

// leaseAlone gives a leader that is the only voter its lease: nobody else can be
// elected, and everything acknowledged has been applied here, once the entry with
// which its term begins has been. When it is elected its log may hold more than
// it has applied.
func (ls *leaseState) leaseAlone() {
	if ls.group.state == raft.StateLeader && ls.lease.Load() != leaseForever && ls.group.onlyVoter() && ls.group.at.term == ls.group.term.Load() {
		ls.lease.Store(leaseForever)
	}
}

// changeRole takes in that this replica leads, follows or is a candidate, or
// has another leader.
func (g *group) changeRole(n *Node, s *raft.SoftState) {
	was := g.state
	g.state = s.RaftState
	g.leader.Store(placement.NodeOf(s.Lead))
	if s.Lead != raft.None {
		g.leaderless = 0
		g.noQuorum.Store(false)
	}
	if s.RaftState == was {
		return
	}
	g.logger.Debug("role changed", "from", was, "to", s.RaftState, "term", g.term.Load())
	g.rounds.restart()
	g.transfer = transfer{}
	g.reconcileAt = 0
	if s.RaftState == raft.StateLeader {
		g.leads.Store(true)
		if g.broken.Load() {
			g.leads.Store(false)
		}
		return
	}
	g.leads.Store(false)
	g.lease.Store(0)
	g.dropSnapshots()
	// What is queued goes to the new leader, by way of the client.
	g.takeAll()
	g.refuseTaken(n)
}

// answer is a message that may go once a write is durable.
type answer struct {
	group   *group
	replica uint64 // of the group when it was collected
	m       raftpb.Message
}

// passOn passes an answer on: to Raft itself, or to another node.
func (g *group) passOn(n *Node, m *raftpb.Message) error {
	if m.To != g.id {
		g.send(n, m)
		return nil
	}
	if err := g.node.Step(*m); err != nil {
		return fmt.Errorf("%s: %w", n.shardName(g.shard), err)
	}
	return nil
}

// respond reports to Raft that what it wanted applied has been.
func (g *group) respond(n *Node) error {
	for i := range g.answers {
		if err := g.passOn(n, &g.answers[i]); err != nil {
			return err
		}
	}
	clear(g.answers)
	g.answers = g.answers[:0]
	return nil
}

// tick is one step of the group's time.
func (g *group) tick(n *Node, now uint64) {
	if g.node == nil {
		g.tickAbsent(n)
		return
	}
	g.node.Tick()
	if g.leader.Load() == 0 {
		if g.leaderless++; g.leaderless == 2*n.electionTicks {
			g.loseQuorum(n)
		}
	}
	if before := n.ticks - min(n.ticks, n.requestTicks); before > 0 {
		g.expireInflight(n, before)
	}
	g.dropOverdue(n)
	if g.leads.Load() {
		g.sweep(n, now)
	}
	if g.leads.Load() || g.leadsBroken() {
		g.reconcile(n)
	}
}
