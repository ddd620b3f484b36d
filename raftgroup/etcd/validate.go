package etcd

import (
	"errors"
	"fmt"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/confchange"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup/datadir"
	"github.com/proa-kv/proa/raftgroup/placement"
)

// # What is believed of a message
//
// Raft takes its peers' word for everything: it panics where a message does not
// fit its log, since for a correct peer that means a lost disk. A peer may be
// damaged, of another program or of ill will, so no message comes to Raft before
// it has passed here. What no correct node can have sent costs its sender the
// connection, and nobody else anything. checkForm looks at the message alone;
// checkPlace compares it with where the replica is.
//
// What passes is a message that a correct node could have sent. A member that
// lies within these bounds is not found out: Raft tolerates crashes, not lies.

// Bounds of what a message may claim. No log gets near them: a position of 2^62
// takes a hundred thousand years at a million entries a second, and an election
// takes a good part of a second.
const (
	positionMax = 1 << 62
	termStepMax = 1 << 32 // how far a term may be ahead of this replica's

	confMembersMax = 1024
)

// errNonsense is wrapped by every error about a message that no correct node
// sends.
var errNonsense = errors.New("invalid message from a peer")

// errBehind is about a leader that believes this replica to hold more than it
// does: one of the two has lost something, or lies.
var errBehind = errors.New("the local log ends before the entries that the leader has recorded as confirmed")

func nonsense(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{errNonsense}, args...)...)
}

// entriesOf says how many entries a message of a type has.
type entriesOf uint8

const (
	neverTravels entriesOf = iota
	noEntries
	oneContext
	anyEntries
)

// forms says it of each type.
var forms = [...]entriesOf{
	raftpb.MsgForgetLeader: neverTravels, // the highest type
	raftpb.MsgApp:          anyEntries, raftpb.MsgAppResp: noEntries,
	raftpb.MsgVote: noEntries, raftpb.MsgVoteResp: noEntries, raftpb.MsgPreVote: noEntries, raftpb.MsgPreVoteResp: noEntries,
	raftpb.MsgHeartbeat: noEntries, raftpb.MsgHeartbeatResp: noEntries,
	raftpb.MsgSnap: noEntries, raftpb.MsgTimeoutNow: noEntries,
	raftpb.MsgReadIndex: oneContext, raftpb.MsgReadIndexResp: oneContext,
}

// checkForm returns why no correct node sends m, whatever the state of its
// group; nil where one may.
func checkForm(m *raftpb.Message) error {
	entries := neverTravels
	if m.Type >= 0 && int(m.Type) < len(forms) {
		entries = forms[m.Type]
	}
	switch {
	case entries == neverTravels:
		return nonsense("a message of type %v, which never leaves a node", m.Type)
	case m.From == m.To || placement.IncarnationOf(m.From) == 0 || placement.IncarnationOf(m.To) == 0 || raft.IsLocalMsgTarget(m.From):
		return nonsense("%v from replica %x to replica %x", m.Type, m.From, m.To)
	case (m.Term == 0) != (m.Type == raftpb.MsgReadIndex):
		return nonsense("%v of term %d", m.Type, m.Term)
	case max(m.Term, m.Index, m.LogTerm, m.Commit, m.RejectHint) > positionMax:
		return nonsense("%v of term %d, index %d, log term %d, commit %d, hint %d", m.Type, m.Term, m.Index, m.LogTerm, m.Commit, m.RejectHint)
	case m.Type != raftpb.MsgAppResp && m.LogTerm > m.Term:
		return nonsense("%v of term %d after an entry of term %d", m.Type, m.Term, m.LogTerm)
	case (m.Snapshot != nil) != (m.Type == raftpb.MsgSnap):
		return nonsense("%v with or without a snapshot", m.Type)
	case len(m.Responses) > 0:
		return nonsense("%v with a node's messages to itself", m.Type)
	}
	switch {
	case m.Snapshot != nil:
		return checkSnapshot(m)
	case entries == anyEntries:
		return checkEntries(m)
	case entries == oneContext:
		if len(m.Entries) != 1 || len(m.Entries[0].Data) != roundContextBytes {
			return nonsense("%v without the context of a round", m.Type)
		}
	case len(m.Entries) > 0:
		return nonsense("%v with %d entries", m.Type, len(m.Entries))
	}
	return nil
}

// checkEntries checks that the entries of m follow on one another and on the
// one that m names as the one before them.
func checkEntries(m *raftpb.Message) error {
	if (m.Index == 0) != (m.LogTerm == 0) {
		return nonsense("entries after entry %d of term %d", m.Index, m.LogTerm)
	}
	term := max(m.LogTerm, 1)
	for i := range m.Entries {
		e := &m.Entries[i]
		if want := m.Index + 1 + uint64(i); e.Index != want || e.Index > positionMax {
			return nonsense("entry %d where entry %d was expected", e.Index, want)
		}
		if e.Term < term || e.Term > m.Term {
			return nonsense("entry %d of term %d, after term %d, in term %d", e.Index, e.Term, term, m.Term)
		}
		term = e.Term
		if err := checkEntry(e); err != nil {
			return err
		}
	}
	return nil
}

// checkEntry looks into an entry as far as that costs little: the commands are
// decoded when they are carried out.
func checkEntry(e *raftpb.Entry) error {
	if e.Type == raftpb.EntryNormal {
		if len(e.Data) == 0 {
			return nil // a leader's first
		}
		if _, err := command.NewReader(e.Data); err != nil {
			return nonsense("entry %d: %v", e.Index, err)
		}
		return nil
	}
	if _, err := decodeConfChange(e); err != nil {
		return nonsense("entry %d: %v", e.Index, err)
	}
	return nil
}

// decodeConfChange returns the change of the configuration that an entry holds.
func decodeConfChange(e *raftpb.Entry) (cc raftpb.ConfChangeV2, err error) {
	switch e.Type {
	case raftpb.EntryConfChange:
		var v1 raftpb.ConfChange
		if err = v1.Unmarshal(e.Data); err == nil {
			cc = v1.AsV2()
		}
	case raftpb.EntryConfChangeV2:
		err = cc.Unmarshal(e.Data)
	default:
		err = fmt.Errorf("unknown entry type %d", e.Type)
	}
	if err != nil {
		return cc, err
	}
	if len(cc.Changes) > confMembersMax {
		return cc, fmt.Errorf("%d changes at once", len(cc.Changes))
	}
	if cc.Transition < raftpb.ConfChangeTransitionAuto || cc.Transition > raftpb.ConfChangeTransitionJointExplicit {
		return cc, fmt.Errorf("unknown transition %d", cc.Transition)
	}
	return cc, nil
}

func checkSnapshot(m *raftpb.Message) error {
	meta := &m.Snapshot.Metadata
	switch {
	case len(m.Entries) > 0 || len(m.Snapshot.Data) > 0:
		return nonsense("a snapshot with data or entries in its message")
	case meta.Index == 0 || meta.Index > positionMax || meta.Term == 0 || meta.Term > m.Term:
		return nonsense("a snapshot of entry %d, term %d, in term %d", meta.Index, meta.Term, m.Term)
	}
	if _, err := restoreConf(&meta.ConfState); err != nil {
		return nonsense("a snapshot of configuration %v: %v", meta.ConfState, err)
	}
	return nil
}

// restoreConf returns what Raft makes of a configuration, or why it cannot.
func restoreConf(cs *raftpb.ConfState) (t tracker.ProgressTracker, err error) {
	if n := len(cs.Voters) + len(cs.VotersOutgoing) + len(cs.Learners) + len(cs.LearnersNext); n > confMembersMax {
		return t, fmt.Errorf("it has %d members, at most %d are allowed", n, confMembersMax)
	}
	for _, id := range members(cs) {
		if id == raft.None || raft.IsLocalMsgTarget(id) {
			return t, fmt.Errorf("invalid replica id %x", id)
		}
	}
	t = tracker.MakeProgressTracker(1, 0)
	t.Config, t.Progress, err = confchange.Restore(confchange.Changer{Tracker: t}, *cs)
	if err != nil {
		return t, err
	}
	if len(cs.Voters) == 0 {
		return t, errors.New("it has no voters")
	}
	return t, cs.Equivalent(t.ConfState())
}

// checkConfChange returns why Raft cannot carry out a change of the
// configuration, which would make it panic.
func checkConfChange(cs *raftpb.ConfState, cc raftpb.ConfChangeV2) error {
	t, err := restoreConf(cs)
	if err != nil {
		return err
	}
	c := confchange.Changer{Tracker: t}
	if cc.LeaveJoint() {
		_, _, err = c.LeaveJoint()
	} else if autoLeave, ok := cc.EnterJoint(); ok {
		_, _, err = c.EnterJoint(autoLeave, cc.Changes...)
	} else {
		_, _, err = c.Simple(cc.Changes...)
	}
	return err
}

// place is where a replica is, as far as it matters to what it may be sent.
type place struct {
	id     uint64 // of the replica
	term   uint64
	leader uint64 // replica that leads the term, 0 where none is known
	leads  bool   // this replica does
	last   uint64 // index of the last entry, those not written yet included
}

// checkPlace returns why no correct node sends m, which has passed checkForm,
// to a replica at p. The error wraps errNonsense or errBehind.
func checkPlace(m *raftpb.Message, p *place) error {
	if m.Term > p.term+termStepMax {
		return nonsense("%v of term %d, %d elections ahead", m.Type, m.Term, m.Term-p.term)
	}
	switch m.Type {
	case raftpb.MsgApp, raftpb.MsgHeartbeat, raftpb.MsgSnap, raftpb.MsgTimeoutNow:
		// Only a term's leader sends them, and a term has one.
		if m.Term == p.term && p.leader != 0 && p.leader != m.From {
			return nonsense("%v of replica %x as the leader of term %d, which replica %x leads", m.Type, m.From, m.Term, p.leader)
		}
	}
	switch {
	case m.Term < p.term:
		return nil // Raft answers or ignores it
	case m.Type == raftpb.MsgHeartbeat && m.Commit > p.last:
		// A leader sends no replica a higher commit index than that has confirmed.
		return fmt.Errorf("%w: node %d says that entry %d is committed and stored here, but the last entry here is %d", errBehind, placement.NodeOf(m.From), m.Commit, p.last)
	case m.Type == raftpb.MsgAppResp && p.leads && m.Term == p.term && !m.Reject && m.Index > p.last:
		return nonsense("node %d confirms entry %d, but the log ends at %d", placement.NodeOf(m.From), m.Index, p.last)
	}
	return nil
}

// place returns where the replica is, for m.
func (g *group) place(e *Engine, m *raftpb.Message) (place, error) {
	s := g.node.BasicStatus()
	claimed := uint64(0)
	switch m.Type {
	case raftpb.MsgHeartbeat:
		claimed = m.Commit
	case raftpb.MsgAppResp:
		claimed = m.Index
	}
	// g.last does not know of what earlier messages of this pass have added or,
	// on a follower, cut off.
	if claimed > g.last || claimed > s.Commit && s.RaftState != raft.StateLeader {
		if err := g.collect(e); err != nil {
			return place{}, err
		}
	}
	return place{id: g.id, term: s.Term, leader: s.Lead, leads: s.RaftState == raft.StateLeader, last: g.last}, nil
}

// vouched reports whether m may come to Raft. Its sender loses the connection
// where it may not.
func (g *group) vouched(e *Engine, m *raftpb.Message) (bool, error) {
	p, err := g.place(e, m)
	if err != nil {
		return false, err
	}
	err = checkPlace(m, &p)
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, errBehind):
		return false, g.contradicted(e, m, err)
	}
	e.blame(placement.NodeOf(m.From), g.shard, err)
	return false, nil
}

// blame ends the connection from a node that has sent what no correct one
// sends.
func (e *Engine) blame(node uint64, shard int, err error) {
	e.Transport.Expel(node, fmt.Errorf("%s: %w", e.ShardName(shard), err))
}

// contradictionAfter is how long a leader has to insist that more is here than
// there is. One message stops no node.
const contradictionAfter = 5 * time.Second

// contradiction is a leader's claim that this replica holds more than it does.
type contradiction struct {
	leader      uint64 // replica
	since, last int64  // Clock.Boot
}

// contradicted takes in a claim that wraps errBehind. A leader that does not
// drop it, on one connection after the other, is right: this node's disk has
// lost what the node had confirmed. The error is the reason to stop.
func (g *group) contradicted(e *Engine, m *raftpb.Message, claim error) error {
	now, c := e.Clock.Boot(), &g.doubt
	if c.leader != m.From || time.Duration(now-c.last) > 2*contradictionAfter {
		*c = contradiction{leader: m.From, since: now}
	}
	c.last = now
	if !isVoter(&g.conf, m.From) || time.Duration(now-c.since) < contradictionAfter {
		e.blame(placement.NodeOf(m.From), g.shard, claim)
		return nil
	}
	e.host.RolledBack()
	return fmt.Errorf("%w: %s: %w", datadir.ErrRolledBack, e.ShardName(g.shard), claim)
}
