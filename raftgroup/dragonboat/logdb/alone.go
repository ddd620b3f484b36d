package logdb

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	pb "github.com/lni/dragonboat/v4/raftpb"

	"github.com/proa-kv/proa/raftlog"
)

// ErrGap says that a replica's log does not go on where its state ends.
var ErrGap = errors.New("the log does not begin where the state ends")

// Found is what a log has of a shard.
type Found struct {
	Replica uint64   // 0: none
	Last    uint64   // the index of its last entry
	Voters  []uint64 // replicas; none where the log does not know
	Member  bool     // the replica is a voter, or a learner
	Staged  string   // the file with a state that came from another replica, and is not installed; "": none
}

// Find looks for the replica of a shard, whose state has applied so much durably. One that
// is being removed does not count.
func (d *DB) Find(shard, applied uint64) (f Found, err error) {
	infos, err := d.ListNodeInfo()
	if err != nil {
		return f, err
	}
	for _, info := range infos {
		if info.ShardID == shard && !d.Departing(shard, info.ReplicaID) {
			f.Replica = max(f.Replica, info.ReplicaID)
		}
	}
	if f.Replica == 0 {
		return f, nil
	}
	s, err := d.GetSnapshot(shard, f.Replica)
	if err != nil {
		return f, err
	}
	if staged(&s, applied) {
		f.Staged = s.Filepath
	}
	_, f.Last = d.span(shard, f.Replica)
	m, err := d.members(shard, f.Replica)
	f.Voters = slices.Sorted(maps.Keys(m.Addresses))
	_, learns := m.NonVotings[f.Replica]
	f.Member = learns || slices.Contains(f.Voters, f.Replica)
	return f, err
}

// staged reports whether a snapshot came from another replica, and is in a file yet.
func staged(s *pb.Snapshot, applied uint64) bool { return !s.Dummy && s.OnDiskIndex > applied }

// members returns the membership of a replica's shard as far as the replica knows it to be
// committed.
func (d *DB) members(shard, id uint64) (pb.Membership, error) {
	s, err := d.GetSnapshot(shard, id)
	if err != nil {
		return s.Membership, err
	}
	m := copyOf(s.Membership)
	_, last := d.span(shard, id)
	last = min(last, max(d.State(shard, id).Commit, s.Index))
	err = d.entriesOf(shard, id, s.Index+1, last, func(e *pb.Entry) error {
		if e.Type != pb.ConfigChangeEntry {
			return nil
		}
		var c pb.ConfigChange
		if err := c.Unmarshal(e.Cmd); err != nil {
			return fmt.Errorf("%w: entry %d of shard %d, replica %d: %w", raftlog.ErrCorrupt, e.Index, shard, id, err)
		}
		change(&m, &c)
		return nil
	})
	return m, err
}

func copyOf(m pb.Membership) pb.Membership {
	out := pb.Membership{Addresses: make(map[uint64]string), NonVotings: make(map[uint64]string), Removed: make(map[uint64]bool)}
	maps.Copy(out.Addresses, m.Addresses)
	maps.Copy(out.NonVotings, m.NonVotings)
	maps.Copy(out.Removed, m.Removed)
	return out
}

// change carries out a change of a membership, unless dragonboat refuses it.
func change(m *pb.Membership, c *pb.ConfigChange) {
	id := c.ReplicaID
	_, votes := m.Addresses[id]
	switch {
	case c.Type == pb.RemoveNode:
		if votes && len(m.Addresses) == 1 {
			return
		}
		delete(m.Addresses, id)
		delete(m.NonVotings, id)
		m.Removed[id] = true
	case votes, m.Removed[id]:
	case c.Type == pb.AddNode:
		delete(m.NonVotings, id)
		m.Addresses[id] = c.Address
	case c.Type == pb.AddNonVoting:
		m.NonVotings[id] = c.Address
	}
}

// StandAlone makes a replica the only member of its shard, once SaveAlone is called: one on
// a node that is a target, and whose state has applied so much durably. Its log gets a record
// of a snapshot, which says so; the entries behind it stay, and become committed, but for
// changes of the configuration, which would bring others back. Where the state is ahead of
// the log, which has lost its end, the log begins behind the state. What the log has of other
// replicas of the shard goes.
//
// The error is ErrGap where the log begins too late for the state, and raftlog.ErrCorrupt
// where it makes no sense. After an error nothing more can be saved. No NodeHost may use the
// DB.
func (d *DB) StandAlone(shard, id uint64, target string, applied uint64) error {
	d.saving.Lock()
	defer d.saving.Unlock()
	if d.err == nil {
		d.err = d.fillAlone(shard, id, target, applied)
	}
	return d.err
}

// SaveAlone saves what StandAlone has been called for, all or nothing.
func (d *DB) SaveAlone() error { return d.saved(func() error { return nil }) }

func (d *DB) fillAlone(shard, id uint64, target string, applied uint64) error {
	s, err := d.GetSnapshot(shard, id)
	if err != nil {
		return err
	}
	at := max(applied, s.Index)
	first, last := d.span(shard, id)
	if at+1 < first || s.Dummy && s.OnDiskIndex > applied {
		return fmt.Errorf("%w: the state is at entry %d, the log holds %d to %d", ErrGap, applied, first, last)
	}
	known, err := d.members(shard, id)
	if err != nil {
		return err
	}
	newest := d.removeOthers(shard, id)
	r, err := d.replicaFor(shard, id)
	if err != nil {
		return err
	}
	r.next.state.Term = max(r.next.state.Term, newest)
	term, err := r.group.Term(at)
	switch {
	case at == s.Index:
		term = s.Term
	case err != nil: // lost; it cannot be higher than the last that is known
		term = r.next.state.Term
	}
	rest := rest{at: at, term: term, behind: staged(&s, applied)}
	if err := d.entriesOf(shard, id, at+1, last, rest.add); err != nil {
		return err
	}
	if !staged(&s, applied) {
		at, term = rest.at, max(rest.term, 1)
		s = pb.Snapshot{Index: at, Term: term, ShardID: shard, Type: pb.OnDiskStateMachine, OnDiskIndex: applied, Dummy: true}
	}
	if at == 0 {
		return fmt.Errorf("%w: neither has anything", ErrGap)
	}
	if at > last {
		d.write.Restart(r.group, at, term)
	}
	s.Membership = pb.Membership{ConfigChangeId: at, Addresses: map[uint64]string{id: target}, Removed: known.Removed}
	for _, others := range []map[uint64]string{known.Addresses, known.NonVotings} {
		for other := range others {
			if other != id {
				s.Membership.Removed[other] = true
			}
		}
	}
	r.next.setSnapshot(&s)
	if r.next.bootstrap == nil { // the log has lost it
		r.next.bootstrap = pb.MustMarshal(&pb.Bootstrap{Join: true, Type: pb.OnDiskStateMachine})
	}
	d.fillMetadata(r)
	if len(rest.entries) > 0 {
		d.fillEntries(r, rest.entries)
	}
	r.next.state.Term = max(r.next.state.Term, rest.newest, term)
	r.next.state.Commit = max(r.next.state.Commit, at)
	d.fillState(r)
	return nil
}

// removeOthers removes the logs of a shard's other replicas, and returns the newest term that
// they know.
func (d *DB) removeOthers(shard, id uint64) (newest uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for info, r := range d.replicas {
		if info.ShardID == shard && info.ReplicaID != id {
			newest = max(newest, r.next.state.Term)
			d.remove(r)
		}
	}
	return newest
}

// rest is what a log has behind a state.
type rest struct {
	at, term uint64     // up to where there is nothing for the state; the term of the last entry there
	behind   bool       // an entry behind that has come
	entries  []pb.Entry // those to be written again: from the first change of the configuration behind on
	newest   uint64     // the last entry's term
}

func (r *rest) add(e *pb.Entry) error {
	r.newest = e.Term
	changes := e.IsConfigChange()
	r.behind = r.behind || !changes && !e.IsEmpty()
	switch {
	case !r.behind:
		r.at, r.term = e.Index, e.Term
	case changes:
		r.entries = append(r.entries, pb.Entry{Index: e.Index, Term: e.Term})
	case r.entries != nil:
		r.entries = append(r.entries, *e)
	}
	return nil
}

// entriesOf calls f with the entries of a replica from first to last.
func (d *DB) entriesOf(shard, id, first, last uint64, f func(*pb.Entry) error) error {
	for first <= last {
		entries, _, err := d.IterateEntries(nil, 0, shard, id, first, last+1, entriesAtOnce)
		if err != nil {
			return err
		}
		if len(entries) == 0 {
			return fmt.Errorf("%w: entry %d of shard %d, replica %d is missing", raftlog.ErrCorrupt, first, shard, id)
		}
		for i := range entries {
			if err := f(&entries[i]); err != nil {
				return err
			}
		}
		first += uint64(len(entries))
	}
	return nil
}

// entriesAtOnce is how many bytes of entries entriesOf reads at once.
const entriesAtOnce = 1 << 20
