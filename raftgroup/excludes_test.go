package raftgroup

import (
	"testing"

	"github.com/proa-kv/proa/raftgroup/engine"
)

// TestExcludes: a replica is removed only for what its group's leader has said since the
// replica came to be here, and with all that this node knows to be committed.
func TestExcludes(t *testing.T) {
	const shard, replica = 1, 7
	says := func(at int64, term, commit uint64, members ...uint64) picture {
		return picture{whole: at, shards: []shardReport{{}, {Role: engine.RoleLeader, Term: term, Commit: commit, Members: members}}}
	}
	for _, x := range []struct {
		name            string
		leaders         []picture
		term, committed uint64
		excluded        bool
	}{
		{"nobody leads", nil, 1, 1, false},
		{"it is a member", []picture{says(20, 5, 50, 6, 7)}, 1, 1, false},
		{"it is none", []picture{says(20, 5, 50, 6, 8)}, 1, 1, true},
		{"said before it came to be", []picture{says(10, 5, 50, 6, 8)}, 1, 1, false},
		{"in an earlier term", []picture{says(20, 5, 50, 6, 8)}, 6, 1, false},
		{"with less committed", []picture{says(20, 5, 50, 6, 8)}, 5, 51, false},
		{"members unknown", []picture{says(20, 5, 50)}, 5, 50, false},
		{"by an earlier leader as well", []picture{says(5, 4, 40, 6), says(20, 5, 50, 6, 8)}, 5, 50, true},
		{"by an earlier leader only", []picture{says(20, 4, 60, 6), says(5, 5, 50, 6, 8)}, 4, 50, false},
	} {
		var p pictures
		for i := range x.leaders {
			*p.of(uint64(i + 1)) = x.leaders[i]
		}
		if got := p.excludes(shard, replica, x.term, x.committed, 10); got != x.excluded {
			t.Errorf("%s: %v", x.name, got)
		}
	}
}
