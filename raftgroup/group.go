package raftgroup

import (
	"cmp"
	"errors"
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

// proposed is an entry on its way: appended to this leader's log at (index,
// term), not applied yet.
type proposed struct {
	index, term uint64
	tick        uint64 // when
	done        []completion
}

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
	lead      atomic.Uint64 // ms that the shard's time is ahead of the node's
	ledAt     uint64        // the node's time when lead was last looked at; belongs to the pass
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

	commits []raftpb.Message // that tell a replica of commits only, kept back; see send

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

// proposals has a group's commands on their way from the queue to the state machine.
type proposals struct {
	group *group
	queue queue

	// Belongs to the pass.
	prop        raftpb.Message // reused for every proposal
	taking      []batch
	part        batch // of commands over several shards, goes before what is queued
	inflight    []proposed
	last        uint64 // index of the last entry collected
	listedLarge bool   // on the loop's list of groups with large commands
	sweeping    bool   // a Sweep is queued or on its way
}

// applyPoint is a place in a group's log.
type applyPoint struct {
	index, term uint64
	conf        *raftpb.ConfState
}

// enqueue copies c into the group's queue. It returns whether the schedule has to be
// told that the group has commands.
func (ps *proposals) enqueue(n *Node, c *command.Command, done completion) (wake bool, err error) {
	size := c.EncodedBytesMax()
	switch {
	case size > n.lim.entryBytes:
		return false, command.ErrTooLarge
	case size > LargeBytes:
		return ps.enqueueLarge(n, c, done, size)
	}
	return ps.queue.add(c, size, done, &n.lim)
}

// take empties the queue into g.taking, behind the part of commands over several
// shards if there is one, and leaves spare to the queue.
func (ps *proposals) take(spare []completion) {
	ps.taking = ps.taking[:0]
	if len(ps.part.done) > 0 {
		ps.taking = append(ps.taking, ps.part)
		ps.part = batch{}
	}
	ps.taking = ps.queue.take(ps.taking, spare)
}

// propose turns the queue into entries. Everything Raft has ready must have
// been collected. Commands that Raft does not accept hear Dropped: they had no
// effect and never will. An error says that the part of a command over several
// shards is among them; the other parts must not be written.
func (ps *proposals) propose(n *Node) error {
	parts := len(ps.part.done) > 0
	if ps.group.transfer.holds() && !parts {
		return nil // the queue goes to the next leader, or goes on here
	}
	ps.take(n.recycle())
	if err := ps.proposeTaken(n); err != nil && parts {
		return fmt.Errorf("%s: its part of a command across shards was not accepted: %w", n.shardName(ps.group.shard), err)
	}
	return nil
}

// errNotLed is why proposeTaken refuses.
var errNotLed = errors.New("this node does not lead the shard")

// proposeTaken is propose for what has been taken from the queue. An error says
// why it was refused, which those who wait for it have been told.
func (ps *proposals) proposeTaken(n *Node) error {
	if len(ps.taking) == 0 {
		return nil
	}
	if ps.group.node == nil || ps.group.state != raft.StateLeader {
		ps.refuseTaken(n)
		return errNotLed
	}
	stamp := ps.group.now(n.time.now())
	ps.prop.Entries = ps.prop.Entries[:0]
	for i := range ps.taking {
		b := &ps.taking[i]
		command.SealEntry(b.data, cmp.Or(b.stamp, stamp), len(b.done))
		ps.prop.Entries = append(ps.prop.Entries, raftpb.Entry{Data: b.data})
	}
	err := ps.group.node.Step(ps.prop)
	if err != nil {
		ps.refuseTaken(n)
	} else {
		// Everything Raft had appended before has been collected, so the new
		// entries follow the last one seen.
		ps.group.lastStamp.Store(stamp)
		for i := range ps.taking {
			if len(ps.inflight) == 0 && !ps.group.onlyVoter() {
				n.replicating = append(n.replicating, ps.group)
			}
			ps.await(proposed{index: ps.last + 1 + uint64(i), term: ps.group.term.Load(), tick: n.ticks, done: ps.taking[i].done})
		}
	}
	clear(ps.taking)
	ps.taking = ps.taking[:0]
	clear(ps.prop.Entries)
	return err
}

// await adds p to what is in flight. That is in the order of the indexes, and
// there p may come before what this replica proposed when it led before: those
// entries may have been cut off its log since, but somebody else's may bring
// them back, until others are committed in their places.
func (ps *proposals) await(p proposed) {
	at := len(ps.inflight)
	for at > 0 && ps.inflight[at-1].index >= p.index {
		at--
	}
	ps.inflight = slices.Insert(ps.inflight, at, p)
}

func (ps *proposals) refuseTaken(n *Node) {
	for i := range ps.taking {
		n.finish(ps.taking[i].done, command.Dropped)
	}
	clear(ps.taking)
	ps.taking = ps.taking[:0]
}

// collect takes everything Raft has ready: entries and hard state into the
// node's write, committed entries into its apply list, messages to others to
// the transport. What must be told to Raft after the write defers with the
// write, what must be told after the apply in g.answers.
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
		// It tells how far entries are committed. The next entries do so as
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

// resolve returns the completions of the entry that was committed at (index,
// term), if this node proposed it. Proposals that another leader's entry has
// displaced at that place hear Dropped: only now, since until something else is
// committed there an entry that has gone from this log may come back.
func (ps *proposals) resolve(n *Node, index, term uint64) []completion {
	for len(ps.inflight) > 0 && ps.inflight[0].index <= index {
		p := ps.inflight[0]
		ps.inflight[0] = proposed{}
		ps.inflight = ps.inflight[1:]
		if p.index == index && p.term == term {
			return p.done
		}
		n.finish(p.done, command.Dropped)
	}
	if len(ps.inflight) == 0 {
		ps.inflight = ps.inflight[:0]
	}
	return nil
}

// drainInflight takes out all that was proposed and not heard of.
func (ps *proposals) drainInflight() []completion {
	var all []completion
	for _, p := range ps.inflight {
		all = append(all, p.done...)
	}
	ps.inflight = nil
	return all
}

// expireInflight gives up on proposals that nothing has been heard of since
// before the given tick: they may have had their effect, or may yet.
func (ps *proposals) expireInflight(n *Node, before uint64) {
	ps.inflight = slices.DeleteFunc(ps.inflight, func(p proposed) bool {
		if p.tick >= before {
			return false
		}
		n.finish(p.done, command.TimedOut)
		return true
	})
}

func (mb *membership) applyConfChange(n *Node, e *raftpb.Entry) error {
	cc, err := decodeConfChange(e)
	if err == nil {
		err = checkConfChange(&mb.conf, cc)
	}
	if err != nil {
		return fmt.Errorf("%s: configuration change at %d: %w", n.shardName(mb.group.shard), e.Index, err)
	}
	mb.conf = *mb.group.node.ApplyConfChange(cc)
	mb.reconcileAt = 0
	// That it is committed must not be forgotten once a replica that has left
	// is not asked for its vote any more: without it, those that stay might not
	// be a majority of the configuration before.
	hs := raftpb.HardState{Term: mb.group.voteTerm, Vote: mb.group.vote, Commit: max(mb.group.committed.Load(), e.Index)}
	n.filling.log.Append(mb.group.log, hs, nil)
	n.filling.mustSync = true
	mb.confWrite = n.filling.number
	mb.group.sole.Store(mb.onlyMember())
	if !mb.onlyVoter() && mb.group.lease.Load() == leaseForever {
		mb.group.lease.Store(0) // before anybody else can learn that it may be elected
	}
	mb.group.leaseAlone()
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

// onlyVoter reports whether nobody but this replica can be elected.
func (mb *membership) onlyVoter() bool {
	return len(mb.conf.Voters) == 1 && mb.conf.Voters[0] == mb.group.id && !inJoint(&mb.conf)
}

// onlyMember reports whether there is no other replica, nor will be by what is
// committed.
func (mb *membership) onlyMember() bool {
	return mb.onlyVoter() && len(mb.conf.Learners) == 0 && len(mb.conf.LearnersNext) == 0
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

// tell passes an answer on: to Raft itself, or to another node.
func (g *group) tell(n *Node, m *raftpb.Message) error {
	if m.To != g.id {
		g.send(n, m)
		return nil
	}
	if err := g.node.Step(*m); err != nil {
		return fmt.Errorf("%s: %w", n.shardName(g.shard), err)
	}
	return nil
}

// respond tells Raft that what it wanted applied has been.
func (g *group) respond(n *Node) error {
	for i := range g.answers {
		if err := g.tell(n, &g.answers[i]); err != nil {
			return err
		}
	}
	clear(g.answers)
	g.answers = g.answers[:0]
	return nil
}
