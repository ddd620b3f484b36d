package etcd

import (
	"fmt"
	"log/slog"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup/engine"
	"github.com/proa-kv/proa/raftgroup/placement"
	"github.com/proa-kv/proa/raftlog"
	"github.com/proa-kv/proa/storage"
)

// group is one shard's Raft group on this node. It exists for every shard of
// the cluster; node is nil where no replica is held here. Its parts own what they need
// for themselves; each knows the group, of which its methods are a part.
type group struct {
	shard       int
	logger      *slog.Logger
	inbox       inbox
	engine.View // for any thread; written by the pass

	proposals
	leaseState
	snapshots
	membership
	replicaDamage

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
	doubt      contradiction
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
func (g *group) collect(e *Engine) error {
	for g.node != nil && g.node.HasReady() {
		rd := g.node.Ready()
		if !raft.IsEmptyHardState(rd.HardState) {
			g.Term.Store(rd.HardState.Term)
			g.Committed.Store(rd.HardState.Commit)
		}
		if rd.SoftState != nil {
			g.changeRole(e, rd.SoftState)
		}
		for i := range rd.ReadStates {
			g.confirmRound(e, &rd.ReadStates[i])
		}
		for i := range rd.Messages {
			m := &rd.Messages[i]
			switch m.To {
			case raft.LocalAppendThread:
				if err := g.collectAppend(e, m); err != nil {
					return err
				}
			case raft.LocalApplyThread:
				if err := g.collectApply(e, m); err != nil {
					return err
				}
			default:
				g.send(e, m)
			}
		}
	}
	return nil
}

// send hands a message to the transport.
func (g *group) send(e *Engine, m *raftpb.Message) {
	switch {
	case m.Type == raftpb.MsgSnap:
		g.sendSnapshot(e, m)
		return
	case m.Type == raftpb.MsgApp && len(m.Entries) == 0:
		// It says how far entries are committed. The next entries do so as
		// well, and under load they go in this very pass.
		if len(g.commits) == 0 {
			e.withCommits = append(e.withCommits, g)
		}
		g.dropCommit(m.To)
		g.commits = append(g.commits, *m)
		return
	case m.Type == raftpb.MsgApp && len(g.commits) > 0:
		g.dropCommit(m.To)
	}
	g.transmit(e, m)
}

// transmit gives a message to the transport.
func (g *group) transmit(e *Engine, m *raftpb.Message) {
	if (m.Type == raftpb.MsgApp || m.Type == raftpb.MsgHeartbeat) && m.Commit > g.Announced.Load() {
		g.Announced.Store(m.Commit) // before anybody can act on it; see leaseState.current
	}
	g.addStamp(e, m)
	e.Transport.Send(placement.NodeOf(m.To), uint32(g.shard), m)
}

func (g *group) dropCommit(to uint64) {
	g.commits = slices.DeleteFunc(g.commits, func(m raftpb.Message) bool { return m.To == to })
}

// sendCommits sends what send has kept back.
func (l *readyLoop) sendCommits() {
	for _, g := range l.withCommits {
		for i := range g.commits {
			g.transmit(l.engine, &g.commits[i])
		}
		clear(g.commits)
		g.commits = g.commits[:0]
	}
	l.withCommits = l.withCommits[:0]
	l.engine.Transport.Transmit()
}

func (g *group) collectAppend(e *Engine, m *raftpb.Message) error {
	w := e.filling
	if m.Snapshot != nil {
		if err := g.install(e, m.Snapshot); err != nil {
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

func (g *group) collectApply(e *Engine, m *raftpb.Message) error {
	for i := range m.Entries {
		entry := &m.Entries[i]
		a := applying{group: g, index: entry.Index, term: entry.Term}
		to := storage.Entry{Shard: g.shard, Index: entry.Index, Term: entry.Term, Alone: g.onlyMember()}
		var done []engine.Completion
		switch entry.Type {
		case raftpb.EntryNormal:
			to.Data = entry.Data
			done = g.resolve(e, entry.Index, entry.Term)
			a.mark = command.IsMark(entry.Data)
		case raftpb.EntryConfChange, raftpb.EntryConfChangeV2:
			if err := g.applyConfChange(e, entry); err != nil {
				return err
			}
			conf := g.conf
			a.conf = &conf
			var err error
			if to.Conf, err = conf.Marshal(); err != nil {
				return err
			}
		default:
			return fmt.Errorf("%s: entry %d has unknown type %v", e.ShardName(g.shard), entry.Index, entry.Type)
		}
		if g.down {
			e.applier.Finish(done, command.TimedOut)
			g.skipped = entry.Index
			continue
		}
		e.applies = append(e.applies, a)
		e.applier.Add(to, done)
	}
	g.answers = append(g.answers, m.Responses...)
	return nil
}

// leaseAlone gives a leader that is the only voter its lease: nobody else can be
// elected, and everything acknowledged has been applied here, once the entry with
// which its term begins has been. When it is elected its log may hold more than
// it has applied.
func (ls *leaseState) leaseAlone() {
	if ls.group.state == raft.StateLeader && ls.group.Lease.Load() != engine.LeaseForever && ls.group.onlyVoter() && ls.group.at.term == ls.group.Term.Load() {
		ls.group.Lease.Store(engine.LeaseForever)
	}
}

// changeRole takes in that this replica leads, follows or is a candidate, or
// has another leader.
func (g *group) changeRole(e *Engine, s *raft.SoftState) {
	was := g.state
	g.state = s.RaftState
	g.Leader.Store(placement.NodeOf(s.Lead))
	if s.Lead != raft.None {
		g.leaderless = 0
		g.NoQuorum.Store(false)
	}
	if s.RaftState == was {
		return
	}
	g.logger.Debug("role changed", "from", was, "to", s.RaftState, "term", g.Term.Load())
	g.rounds.restart()
	g.transfer = transfer{}
	g.reconcileAt = 0
	if s.RaftState == raft.StateLeader {
		g.Leads.Store(true)
		if g.Broken.Load() {
			g.Leads.Store(false)
		}
		return
	}
	g.Resign()
	g.dropSnapshots()
	// What is queued goes to the new leader, by way of the client.
	g.takeAll()
	g.refuseTaken(e)
}

// answer is a message that may go once a write is durable.
type answer struct {
	group   *group
	replica uint64 // of the group when it was collected
	m       raftpb.Message
}

// passOn passes an answer on: to Raft itself, or to another node.
func (g *group) passOn(e *Engine, m *raftpb.Message) error {
	if m.To != g.id {
		g.send(e, m)
		return nil
	}
	if err := g.node.Step(*m); err != nil {
		return fmt.Errorf("%s: %w", e.ShardName(g.shard), err)
	}
	return nil
}

// respond reports to Raft that what it wanted applied has been.
func (g *group) respond(e *Engine) error {
	for i := range g.answers {
		if err := g.passOn(e, &g.answers[i]); err != nil {
			return err
		}
	}
	clear(g.answers)
	g.answers = g.answers[:0]
	return nil
}

// tick is one step of the group's time.
func (g *group) tick(e *Engine, now uint64) {
	if g.node == nil {
		g.tickAbsent(e)
		return
	}
	g.node.Tick()
	if g.Leader.Load() == 0 {
		if g.leaderless++; g.leaderless == 2*e.electionTicks {
			g.loseQuorum(e)
		}
	}
	if before := e.ticks - min(e.ticks, e.requestTicks); before > 0 {
		g.expireInflight(e, before)
	}
	g.dropOverdue(e)
	if g.Leads.Load() {
		g.sweep(e, now)
	}
	if g.Leads.Load() || g.leadsBroken() {
		g.reconcile(e)
	}
}
