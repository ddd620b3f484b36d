package etcd

import (
	"slices"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/proa-kv/proa/raftgroup/engine"
)

// configuration returns what Raft has as a ConfState.
func configuration(cs *raftpb.ConfState) engine.Configuration {
	return engine.Configuration{Voters: cs.Voters, Outgoing: cs.VotersOutgoing, Learners: cs.Learners, LearnersNext: cs.LearnersNext}
}

// members returns all replicas of a configuration, each once.
func members(cs *raftpb.ConfState) []uint64 {
	c := configuration(cs)
	return c.Members()
}

// isVoter reports whether replica's vote counts in cs.
func isVoter(cs *raftpb.ConfState, replica uint64) bool {
	c := configuration(cs)
	return c.Votes(replica)
}

// without returns cs less one replica.
func without(cs *raftpb.ConfState, replica uint64) raftpb.ConfState {
	drop := func(set []uint64) []uint64 {
		return slices.DeleteFunc(slices.Clone(set), func(id uint64) bool { return id == replica })
	}
	return raftpb.ConfState{
		Voters: drop(cs.Voters), VotersOutgoing: drop(cs.VotersOutgoing),
		Learners: drop(cs.Learners), LearnersNext: drop(cs.LearnersNext), AutoLeave: cs.AutoLeave,
	}
}

// confChange returns what Raft makes of changes: a single one as it is, several by
// joint consensus.
func confChange(changes engine.Changes) (cc raftpb.ConfChangeV2) {
	for _, c := range changes {
		t := raftpb.ConfChangeRemoveNode
		switch c.To {
		case engine.Voter:
			t = raftpb.ConfChangeAddNode
		case engine.Learner:
			t = raftpb.ConfChangeAddLearnerNode
		}
		cc.Changes = append(cc.Changes, raftpb.ConfChangeSingle{Type: t, NodeID: c.Replica})
	}
	return cc
}
