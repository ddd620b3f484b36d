package raftgroup

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.etcd.io/raft/v3"

	"github.com/proa-kv/proa/bufpool"
	"github.com/proa-kv/proa/command"
)

// TestLeaseOfTheOnlyVoter: a leader that is the only voter answers reads once it
// has applied the entry with which its term begins, and not as soon as it is
// elected: its log may hold acknowledged entries that it has not applied yet.
func TestLeaseOfTheOnlyVoter(t *testing.T) {
	n := memNode(t, vfs.NewMem(), Options{})
	mustPut(t, n, "k", "v")
	shard := shardFor(n, "k")
	g := n.etcd().groups[shard]
	answers := func() bool {
		b := bufpool.Get(16)
		defer b.Release()
		_, s := n.Read(b, shard, []byte("k"), n.NowMillis(), command.AnyValue)
		_, known := n.Age(shard)
		if found := s == command.ReadFound; known != found || !found && s != command.ReadNotLeader {
			t.Errorf("state %d; an age is known: %v", s, known)
		}
		return known
	}
	if !answers() {
		t.Fatal("no answer after the start")
	}
	term := g.Term.Load()
	g.changeRole(n.etcd(), &raft.SoftState{RaftState: raft.StateFollower})
	g.Term.Store(term + 1)
	g.changeRole(n.etcd(), &raft.SoftState{Lead: g.id, RaftState: raft.StateLeader})
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
