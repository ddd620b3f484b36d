package engine

import (
	"fmt"
	"slices"
	"strings"
)

// Configuration is which replicas belong to a group, and which of them vote. Its slices
// must not be changed.
type Configuration struct {
	Voters []uint64
	// Outgoing are the voters of before, while the group goes from one configuration to
	// another (joint consensus). LearnersNext are those of them that will be learners.
	Outgoing, LearnersNext []uint64
	Learners               []uint64
}

// Members returns all replicas of a configuration, each once.
func (c *Configuration) Members() []uint64 {
	var all []uint64
	for _, set := range [][]uint64{c.Voters, c.Outgoing, c.Learners, c.LearnersNext} {
		for _, id := range set {
			if !slices.Contains(all, id) {
				all = append(all, id)
			}
		}
	}
	return all
}

// Votes reports whether replica's vote counts, in either half of a joint configuration.
func (c *Configuration) Votes(replica uint64) bool {
	return slices.Contains(c.Voters, replica) || slices.Contains(c.Outgoing, replica)
}

// Joint reports whether c is on its way from one configuration to another.
func (c *Configuration) Joint() bool { return len(c.Outgoing) > 0 }

// OnlyVoter reports whether nobody but replica can be elected.
func (c *Configuration) OnlyVoter(replica uint64) bool {
	return len(c.Voters) == 1 && c.Voters[0] == replica && !c.Joint()
}

// OnlyMember reports whether there is no other replica, nor will be by what is
// committed.
func (c *Configuration) OnlyMember(replica uint64) bool {
	return c.OnlyVoter(replica) && len(c.Learners) == 0 && len(c.LearnersNext) == 0
}

// Membership is what a change makes of a replica.
type Membership byte

// What a change makes of a replica; the letters are those of Changes.String.
const (
	Voter   Membership = 'v'
	Learner Membership = 'l'
	Removed Membership = 'r'
)

// Change is what one replica is to become.
type Change struct {
	Replica uint64
	To      Membership
}

// Changes are a step from one configuration to another: all of it happens, or nothing.
type Changes []Change

// String returns such as "v16777217 r33554433", for the log.
func (cs Changes) String() string {
	var b strings.Builder
	for i, c := range cs {
		if i > 0 {
			b.WriteByte(' ')
		}
		fmt.Fprintf(&b, "%c%d", c.To, c.Replica)
	}
	return b.String()
}
