package raftgroup

import (
	"slices"

	"go.etcd.io/raft/v3/raftpb"
)

// confMembers returns all replicas of a configuration, each once.
func confMembers(cs *raftpb.ConfState) []uint64 {
	var all []uint64
	for _, set := range [][]uint64{cs.Voters, cs.VotersOutgoing, cs.Learners, cs.LearnersNext} {
		for _, id := range set {
			if !slices.Contains(all, id) {
				all = append(all, id)
			}
		}
	}
	return all
}

// isVoter reports whether replica's vote counts in cs, in either half of a
// joint configuration.
func isVoter(cs *raftpb.ConfState, replica uint64) bool {
	return slices.Contains(cs.Voters, replica) || slices.Contains(cs.VotersOutgoing, replica)
}

// inJoint reports whether cs is on its way from one configuration to another.
func inJoint(cs *raftpb.ConfState) bool { return len(cs.VotersOutgoing) > 0 }

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
