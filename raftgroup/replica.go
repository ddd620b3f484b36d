package raftgroup

import (
	"slices"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/proa-kv/proa/raftgroup/placement"
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

// onlyVoter reports whether nobody but replica can be elected.
func onlyVoter(cs *raftpb.ConfState, replica uint64) bool {
	return len(cs.Voters) == 1 && cs.Voters[0] == replica && !inJoint(cs)
}

// onlyMember reports whether there is no other replica, nor will be by what is
// committed.
func onlyMember(cs *raftpb.ConfState, replica uint64) bool {
	return onlyVoter(cs, replica) && len(cs.Learners) == 0 && len(cs.LearnersNext) == 0
}

// settled reports whether a configuration is what the map wants.
func settled(cs *raftpb.ConfState, want *placement.Shard) bool {
	if inJoint(cs) || len(want.Replicas) != len(confMembers(cs)) {
		return false
	}
	for _, r := range want.Replicas {
		if isVoter(cs, r.ID()) == r.Learner {
			return false
		}
	}
	return true
}
