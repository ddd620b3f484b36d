package dragonboat

import (
	"errors"
	"fmt"
	"time"

	pb "github.com/lni/dragonboat/v4/raftpb"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup/datadir"
	"github.com/proa-kv/proa/raftgroup/dragonboat/transport"
	"github.com/proa-kv/proa/raftgroup/engine"
	"github.com/proa-kv/proa/raftgroup/placement"
)

// ReceiveFrame hands messages of another node over; see engine.Receiver.
func (e *Engine) ReceiveFrame(from uint64, frame []byte) error {
	if e.State.Is(engine.Stopped) {
		return nil
	}
	e.host.Heard(from)
	return e.wire.Receive(from, frame)
}

// watcher sees the messages between nodes on their way; see transport.Watcher.
type watcher struct{ engine *Engine }

var _ transport.Watcher = watcher{}

// Received returns the messages that dragonboat is to get. One that no correct node sends
// keeps out those that came with it.
func (w watcher) Received(from uint64, ms []pb.Message) ([]pb.Message, error) {
	e := w.engine
	passed, strange := ms[:0], []pb.Message(nil)
	for i := range ms {
		m := &ms[i]
		s := e.shardOf(m.ShardID)
		if s == nil || placement.NodeOf(m.From) != from || placement.NodeOf(m.To) != e.Node {
			return nil, fmt.Errorf("%w: a message for shard %d, from replica %x to %x", transport.ErrDamaged, m.ShardID, m.From, m.To)
		}
		if s.replicaID.Load() != m.To {
			strange = append(strange, *m)
			continue
		}
		place := s.place()
		if err := check(place, from, m); err != nil {
			return nil, s.blame(from, err)
		}
		if place.Ignores(m) {
			s.logger.Debug("has two changes of the membership that are not committed: is not elected")
			continue
		}
		passed = append(passed, *m)
	}
	for i := range strange {
		e.shardOf(strange[i].ShardID).consider(&strange[i])
	}
	return w.take(passed), nil
}

// take takes in what messages say that have been checked, and returns those that dragonboat
// is to get.
func (w watcher) take(ms []pb.Message) []pb.Message {
	e := w.engine
	kept := ms[:0]
	for i := range ms {
		m := &ms[i]
		s := e.shardOf(m.ShardID)
		if !e.backlogs.admit(s, m) {
			s.logger.Debug("entries are not taken: too many wait to be carried out")
			continue
		}
		switch m.Type {
		case pb.RequestVote, pb.RequestPreVote:
			if e.Clock.Boot() < e.votesFrom {
				continue // before its restart this node may have promised not to vote
			}
		case pb.Replicate:
			if m.Term >= max(s.Term.Load(), e.db.State(s.id, m.To).Term) { // else Raft does not take it
				s.noteCommit(m.Commit)
			}
		case pb.LeaderTransfer:
			continue // a leader is asked by its own node, which gives its lease up first
		case pb.Propose:
			continue // commands go to the leader by way of the client
		case pb.ReplicateResp, pb.HeartbeatResp:
			if !m.Reject && m.Term <= max(s.Term.Load(), s.spoken.Load()) { // it answers this replica
				index := m.LogIndex
				if m.Type == pb.HeartbeatResp {
					index = 0 // it confirms no entry
				}
				s.noteMatch(m.Term, m.From, index, e.Clock.Boot())
			}
		}
		kept = append(kept, *m)
	}
	return kept
}

// Sending takes in what other replicas are told to be committed: from then on they may
// show it to somebody, so reads here must be as new.
func (w watcher) Sending(_ uint64, ms []pb.Message) {
	for i := range ms {
		m := &ms[i]
		s := w.engine.shardOf(m.ShardID)
		if s == nil {
			continue
		}
		s.sent.Note(m)
		if m.Type != pb.RequestPreVote && m.Type != pb.RequestPreVoteResp { // they are of a term that is not there yet
			s.noteTerm(m.Term)
		}
		commit := m.Commit
		if m.Type == pb.ReadIndexResp {
			commit = max(commit, m.LogIndex)
		}
		for {
			known := s.Announced.Load()
			if commit <= known || s.Announced.CompareAndSwap(known, commit) {
				break
			}
		}
		s.noteCommit(commit)
	}
}

// check returns why no correct node, and why not the node from, sends m to a replica.
func check(p *transport.Place, from uint64, m *pb.Message) error {
	if err := p.Check(from, m); err != nil {
		return err
	}
	for i := range m.Entries {
		if err := checkCommands(transport.Payload(&m.Entries[i])); err != nil {
			return fmt.Errorf("%w: entry %d: %w", transport.ErrDamaged, m.Entries[i].Index, err)
		}
	}
	return nil
}

// checkCommands returns why no engine has made a proposal. Each command is decoded: once it
// is in the log, one that cannot be would end every replica that carries it out.
func checkCommands(proposal []byte) error {
	if proposal == nil {
		return nil // an entry of dragonboat
	}
	entry, _, _, err := cutName(proposal)
	if err != nil || len(entry) == 0 {
		return err
	}
	r, err := command.NewReader(entry)
	if err != nil {
		return err
	}
	var c command.Command
	for {
		if more, err := r.Next(&c); err != nil || !more {
			return err
		}
	}
}

// place is where the replica here is, for what it may be sent. For any thread.
func (s *shard) place() *transport.Place {
	e, id := s.engine, s.replicaID.Load()
	p := &transport.Place{NodeOf: placement.NodeOf, Term: e.db.State(s.id, id).Term, Votes: s.votes.Load(), Sent: &s.sent, Changes: &s.changes, Pending: s.pending}
	_, p.Last = e.db.Range(s.id, id)
	if l := s.led.Load(); l != nil {
		p.Leader, p.LeaderTerm = l.LeaderID, l.Term
	}
	return p
}

// pendingChanges returns how many changes of the membership the log has that are not
// committed. For any thread.
func (s *shard) pendingChanges() int {
	n, _ := transport.Pending(s.engine.db, s.id, s.replicaID.Load()) // what cannot be read ends the node elsewhere
	return n
}

// rollbackProof is how long a leader must insist that this replica has confirmed what it
// does not hold. It may be that the leader is wrong once; see etcd's engine.
const rollbackProof = 5 * time.Second

// blame takes in that a node has sent what no correct one does, and returns what ends its
// connection.
func (s *shard) blame(from uint64, err error) error {
	if !errors.Is(err, transport.ErrBehind) {
		return err
	}
	e := s.engine
	now := e.Clock.Boot()
	since := s.behindSince.Load()
	switch {
	case since == 0 || now-s.behindLast.Load() > int64(2*rollbackProof):
		s.behindSince.Store(now)
	case now-since >= int64(rollbackProof) && s.Leader.Load() == from:
		e.host.RolledBack()
		e.host.Fail(fmt.Errorf("%w: %s: %w", datadir.ErrRolledBack, e.ShardName(s.number), err))
	}
	s.behindLast.Store(now)
	return err
}
