package etcd

import (
	"testing"

	"go.etcd.io/raft/v3"
)

// TestLeaseOfTheOnlyVoter: a leader that is the only voter answers reads once it
// has applied the entry with which its term begins, and not as soon as it is
// elected: its log may hold acknowledged entries that it has not applied yet.
func TestLeaseOfTheOnlyVoter(t *testing.T) {
	l := newLone(t, 1)
	l.put("k", "v")
	g := l.groups[0]
	answers := func() bool { return g.Leads.Load() && g.Leased(l.clock) }
	if !answers() {
		t.Fatal("no answer after the start")
	}
	term := g.Term.Load()
	g.changeRole(l.Engine, &raft.SoftState{RaftState: raft.StateFollower})
	g.Term.Store(term + 1)
	g.changeRole(l.Engine, &raft.SoftState{Lead: g.id, RaftState: raft.StateLeader})
	g.leaseAlone()
	if answers() {
		t.Error("it answers when it is elected")
	}
	g.at.term = term + 1 // the first entry of the term is applied
	g.leaseAlone()
	if !answers() {
		t.Error("it does not answer when all is applied")
	}
	g.Term.Store(term)
}
