package etcd

import (
	"encoding/binary"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup/engine"
	"github.com/proa-kv/proa/raftgroup/placement"
)

// # Reads that are not older than anything acknowledged
//
// A round asks a majority whether this replica's leader still leads. It gives
// the commit index as of its beginning; a replica that has applied that much
// may answer every read that came before the round began (Raft dissertation,
// section 6.4: ReadIndex). On a leader the round also renews the lease: until
// the lease ends no other leader can be elected, and reads are answered at
// once, without asking anybody.
//
// Why the lease is safe. A voter that answers a round, at any moment after the
// round was sent, grants no vote for the shortest election timeout. So no
// leader is elected earlier than that timeout after the round was *sent*, if
// clocks run at the same speed. The lease is shorter by the drift that is
// allowed for, and by two ticks: a voter counts its timeout in ticks, and the
// first may come at once and the last early. A voter that restarts has
// forgotten its promise, so it grants no vote for as long as a lease can last
// (timing.votesFrom). A leader that hands its leadership over makes the next one
// ask for votes in spite of the promise; so it has no lease from then on,
// in this term: the message may arrive late.
//
// The lease is looked at after the value has been read: at the moment of that
// look nobody else can have acknowledged anything.

// leaseState says until when a group's reads may be answered here, and what is asked
// for those that may not.
type leaseState struct {
	group *group

	rounds roundList // belongs to the pass
}

// round is one question to a majority.
type round struct {
	seq      uint64
	sent     int64 // Clock.Boot
	tick     uint64
	barriers []engine.Completion
	// known from the answer on:
	confirmed bool
	index     uint64
}

// roundList holds a group's rounds, oldest first.
type roundList struct {
	list    []round
	waiting []engine.Completion // for the next round
	due     uint64              // tick of the next round that only renews the lease
	voided  bool                // no lease in this term any more

	// What the leader last said it had committed, and since when that is all
	// there was, on Clock.Boot; zero once it has been applied here.
	leaderCommit uint64
	leaderTime   int64
	// On a leader, by replica: the stamp of its last answer.
	stamps map[uint64]uint64
}

const roundContextBytes = 24

// roundContext names a round among those of all replicas and restarts. A
// leader's has its commit index: a heartbeat's own does not, where the
// follower is behind. It does so only while it has a lease: without one
// another may lead already, and have committed more.
func (ls *leaseState) roundContext(e *Engine, seq uint64) []byte {
	b := make([]byte, 0, roundContextBytes)
	b = binary.LittleEndian.AppendUint64(b, ls.group.id^e.roundSalt)
	b = binary.LittleEndian.AppendUint64(b, seq)
	commit := uint64(0)
	if ls.group.state == raft.StateLeader && ls.group.Leased(e.Clock) {
		commit = ls.group.Committed.Load()
	}
	return binary.LittleEndian.AppendUint64(b, commit)
}

// # How old a replica's state may be
//
// What a leader says it has committed was so when it said it; how long the
// message took is not known, since clocks are not compared. So a follower
// puts its own time, a stamp, behind the context of each heartbeat that it
// answers, and the leader sends the last stamp back with the next heartbeat:
// that was made after the stamp, and so what it says was still all there was
// then.

const stampBytes = 8

// addStamp adds to a heartbeat or its answer what the receiver's takeStamp
// takes off.
func (ls *leaseState) addStamp(e *Engine, m *raftpb.Message) {
	if len(m.Context) != roundContextBytes {
		return
	}
	switch m.Type {
	case raftpb.MsgHeartbeat:
		m.Context = binary.LittleEndian.AppendUint64(slices.Clip(m.Context), ls.rounds.stamps[m.To])
	case raftpb.MsgHeartbeatResp:
		m.Context = binary.LittleEndian.AppendUint64(slices.Clip(m.Context), e.stamp(e.Clock.Boot()))
	}
}

// takeStamp takes a stamp off a message's context; it returns 0 where there is
// none.
func takeStamp(m *raftpb.Message) uint64 {
	if len(m.Context) != roundContextBytes+stampBytes {
		return 0
	}
	stamp := binary.LittleEndian.Uint64(m.Context[roundContextBytes:])
	m.Context = m.Context[:roundContextBytes]
	return stamp
}

// noteStamp keeps the stamp of a follower's answer.
func (ls *leaseState) noteStamp(m *raftpb.Message) {
	stamp := takeStamp(m)
	if stamp == 0 || ls.group.state != raft.StateLeader {
		return
	}
	if ls.rounds.stamps == nil {
		ls.rounds.stamps = make(map[uint64]uint64)
	}
	ls.rounds.stamps[m.From] = stamp
}

// noteCommit notes what a leader's heartbeat says has been committed: once that
// is applied, this replica is as the shard was at the time of the stamp, or
// newer.
func (ls *leaseState) noteCommit(e *Engine, m *raftpb.Message) {
	at, ours := e.stampTime(takeStamp(m), e.Clock.Boot())
	if !ours || len(m.Context) != roundContextBytes || m.Term < ls.group.Term.Load() {
		return
	}
	if commit := binary.LittleEndian.Uint64(m.Context[16:]); commit != 0 {
		ls.rounds.leaderCommit, ls.rounds.leaderTime = commit, at
		ls.noteFresh()
	}
}

func (ls *leaseState) noteFresh() {
	if r := &ls.rounds; r.leaderTime != 0 && ls.group.at.index >= r.leaderCommit {
		ls.group.Fresh.Store(max(ls.group.Fresh.Load(), r.leaderTime))
		r.leaderTime = 0
	}
}

// restart begins anew after a change of role: rounds under way will not be
// answered, so those who wait for them wait for another.
func (r *roundList) restart() {
	for i := range r.list {
		r.waiting = append(r.waiting, r.list[i].barriers...)
	}
	clear(r.list)
	r.list = r.list[:0]
	r.due = 0
	r.voided = false
	clear(r.stamps)
}

// takeReads takes in the reads that have come since the last pass.
func (ls *leaseState) takeReads() { ls.rounds.waiting = ls.group.inbox.takeReads(ls.rounds.waiting) }

// ask begins a round if somebody waits for one or the lease is to be renewed.
// One at a time is under way for reads; those that come meanwhile share the
// next.
func (ls *leaseState) ask(e *Engine) {
	r := &ls.rounds
	if ls.group.node == nil {
		e.applier.Finish(r.waiting, command.Dropped)
		r.waiting = nil
		return
	}
	if ls.group.down {
		return // it is not read; Raft's own heartbeats have to do
	}
	leads := ls.group.state == raft.StateLeader
	if len(r.waiting) > 0 && ls.group.Leader.Load() == 0 {
		e.applier.Finish(r.waiting, command.Dropped)
		r.waiting = nil
	}
	renew := leads && !ls.group.onlyVoter() && e.ticks >= r.due
	open := len(r.list)
	if open > 0 && e.ticks-r.list[open-1].tick > 2*e.heartbeatTicks {
		// The answer should have come. The question may be lost.
		renew, open = renew || leads, 0
		for i := range r.list {
			r.waiting = append(r.waiting, r.list[i].barriers...)
			r.list[i].barriers = nil
		}
		if !leads {
			r.list = r.list[:0]
		}
	}
	if !renew && (len(r.waiting) == 0 || open > 0) {
		return
	}
	if leads && len(r.waiting) > 0 && ls.group.Leased(e.Clock) && ls.group.at.index >= ls.group.Committed.Load() {
		// Applied is what counts: everything acknowledged is.
		e.applier.Finish(r.waiting, command.Applied)
		r.waiting = nil
		if !renew {
			return
		}
	}
	e.roundSeq++
	if leads {
		r.due = e.ticks + e.heartbeatTicks
	}
	r.list = append(r.list, round{seq: e.roundSeq, sent: e.Clock.Boot(), tick: e.ticks, barriers: r.waiting})
	r.waiting = nil
	ls.group.node.ReadIndex(ls.roundContext(e, e.roundSeq))
}

// confirmRound takes in the answer to a round, which answers the earlier ones
// as well.
func (ls *leaseState) confirmRound(e *Engine, rs *raft.ReadState) {
	if len(rs.RequestCtx) != roundContextBytes || binary.LittleEndian.Uint64(rs.RequestCtx) != ls.group.id^e.roundSalt {
		return
	}
	seq := binary.LittleEndian.Uint64(rs.RequestCtx[8:])
	for i := range ls.rounds.list {
		if r := &ls.rounds.list[i]; r.seq <= seq && !r.confirmed {
			r.confirmed, r.index = true, rs.Index
		}
	}
}

// closeRounds ends the rounds that are confirmed and whose index has been
// applied.
func (ls *leaseState) closeRounds(e *Engine) {
	r := &ls.rounds
	closed := 0
	for closed < len(r.list) && r.list[closed].confirmed && ls.group.at.index >= r.list[closed].index {
		e.applier.Finish(r.list[closed].barriers, command.Applied)
		if ls.group.state == raft.StateLeader && !ls.group.onlyVoter() && !r.voided {
			ls.group.Lease.Store(r.list[closed].sent + e.leaseNanos)
			ls.group.Fresh.Store(max(ls.group.Fresh.Load(), r.list[closed].sent))
		}
		closed++
	}
	if closed > 0 {
		k := copy(r.list, r.list[closed:])
		clear(r.list[k:])
		r.list = r.list[:k]
	}
}

// voidLease ends the lease for the rest of the term.
func (ls *leaseState) voidLease() {
	ls.rounds.voided = true
	if ls.group.Lease.Load() != engine.LeaseForever {
		ls.group.Lease.Store(0)
	}
}

// answerRound answers another replica's question from the lease, if there is
// one, without a round of our own. It returns false where Raft must do it.
func (ls *leaseState) answerRound(e *Engine, m *raftpb.Message) bool {
	if ls.group.state != raft.StateLeader || ls.group.onlyVoter() || len(m.Entries) != 1 {
		return false
	}
	index := ls.group.node.BasicStatus().Commit
	if !ls.group.Leased(e.Clock) {
		return false
	}
	e.Transport.Send(placement.NodeOf(m.From), uint32(ls.group.shard), &raftpb.Message{
		Type: raftpb.MsgReadIndexResp, To: m.From, From: ls.group.id, Term: ls.group.Term.Load(), Index: index, Entries: m.Entries,
	})
	return true
}

// ReadIndex has the next pass ask, or answer; see engine.Engine.
func (e *Engine) ReadIndex(shard int, done command.Completer, tag command.Tag) error {
	if err := e.State.Unusable(); err != nil {
		return err
	}
	g := e.groups[shard]
	switch {
	case g.Broken.Load() && g.Sole.Load():
		return command.ErrDamaged
	case !g.Held.Load():
		return command.ErrNotLeader
	case g.NoQuorum.Load():
		return command.ErrNoQuorum
	}
	wake, err := g.inbox.addRead(engine.Completion{Sink: done, Tag: tag}, e.Limits.QueueOps)
	if err != nil {
		return err
	}
	if wake {
		e.schedule.addMessages(g)
	}
	e.schedule.request(messagesDue)
	return nil
}
