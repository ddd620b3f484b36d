package raftgroup

import (
	"slices"

	"go.etcd.io/raft/v3/raftpb"
)

// A replica's number within its group, Raft's peer id, is the number of its
// node and an incarnation. A replica that leaves a node and comes back is
// another one: what the first promised, votes above all, is not asked of the
// second, which has forgotten it.
const (
	incarnationBits = 24
	incarnationMax  = 1<<incarnationBits - 1

	// NodeMax is the highest number of a node.
	NodeMax = 1<<(64-incarnationBits) - 1
)

func replicaID(node uint64, incarnation uint32) uint64 {
	return node<<incarnationBits | uint64(incarnation)
}

func nodeOf(replica uint64) uint64 { return replica >> incarnationBits }

func incarnationOf(replica uint64) uint32 { return uint32(replica & incarnationMax) }

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

// confReplicaOf returns node's replica in cs: the newest, should there be more
// than one; 0 for none.
func confReplicaOf(cs *raftpb.ConfState, node uint64) uint64 {
	found := uint64(0)
	for _, id := range confMembers(cs) {
		if nodeOf(id) == node {
			found = max(found, id)
		}
	}
	return found
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
