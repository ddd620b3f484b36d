package placement

import "slices"

// # Which replicas vote
//
// An even number of voters survives no more failures than one voter less, and one
// more node can stop the shard: a single node that takes in a second voter is
// stopped by the loss of either. So added replicas are learners until two of them
// can be promoted together, in one joint change, or until the shard has as many
// voters as the replication factor asks for.

// metaVotersMax bounds the voters of the meta group; further nodes are
// learners. Five survive two failures.
const metaVotersMax = 5

// promote returns s with votes for those of its learners that must have one and
// whose nodes are up. factor is the number of replicas that the shard must have,
// most bounds the voters.
func (s Shard) promote(factor, most int, up func(node uint64) bool) Shard {
	n := Shard{Incarnation: s.Incarnation, Replicas: slices.Clone(s.Replicas)}
	voters, learners := s.voters(), []*Replica(nil)
	for i := range n.Replicas {
		if r := &n.Replicas[i]; r.Learner && up(r.Node) {
			learners = append(learners, r)
		}
	}
	for len(learners) > 0 {
		more := 2
		if voters%2 == 0 || voters+1 == factor {
			more = 1
		}
		if more > len(learners) || voters+more > most {
			break
		}
		for _, r := range learners[:more] {
			r.Learner = false
		}
		voters, learners = voters+more, learners[more:]
	}
	return n
}

// voters returns how many replicas must vote.
func (s *Shard) voters() int { return len(s.VotingNodes()) }
