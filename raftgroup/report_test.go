package raftgroup

import "testing"

// TestStatusLeader: the leader of a shard, and whether its replicas move, is what
// the newest leader says, in whatever order the nodes' reports are looked through.
func TestStatusLeader(t *testing.T) {
	n := &Node{id: 1, groups: make([]*group, 2)}
	of := func(node uint64, s shardReport) reported {
		s.Replica = node
		return reported{report: report{Node: node, Shards: []shardReport{s}}}
	}
	all := map[uint64]reported{
		1: of(1, shardReport{Role: roleFollower, Term: 7}), // has heard of an election
		2: of(2, shardReport{Role: roleLeader, Term: 6, Settled: true}),
		3: of(3, shardReport{Role: roleLeader, Term: 5}), // has not heard of its end
	}
	row := &shardRow{Replicas: []replicaRow{{Node: 1}, {Node: 2}, {Node: 3}}}
	for range 200 { // each in another order, since Go shuffles maps
		if i := n.shardInfo(0, row, all, 0); i.Leader != 2 || i.Moving || i.Term != 7 {
			t.Fatalf("leader %d, moving %v, term %d; the newest known leader is node 2, settled, and the term 7", i.Leader, i.Moving, i.Term)
		}
	}
}
