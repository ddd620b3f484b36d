package dragonboat

import (
	"testing"

	"github.com/lni/dragonboat/v4"
	pb "github.com/lni/dragonboat/v4/raftpb"

	"github.com/proa-kv/proa/command"
)

// TestProposalsUnderWay: while a shard's proposals are not carried out, so many are made and
// not more; what waits meanwhile goes afterwards, nothing is refused.
func TestProposalsUnderWay(t *testing.T) {
	n := newCluster(t, 1).leader(0)
	n.applying.Lock()
	const commands = 10 * inflightMax
	outcomes := make(waiter, commands)
	most := 0
	for i := range commands {
		c := command.Command{Kind: command.Incr, Key: []byte("n"), Delta: 1}
		if err := n.Propose(0, &c, outcomes, command.Tag{}); err != nil {
			t.Errorf("command %d: %v", i, err)
		}
		n.Drive()
		n.shards[0].proposals.mu.Lock()
		most = max(most, len(n.shards[0].inflight))
		n.shards[0].proposals.mu.Unlock()
	}
	n.applying.Unlock()
	for range commands {
		if o := <-outcomes; o.outcome != command.Applied {
			t.Fatalf("outcome %v", o.outcome)
		}
	}
	if most != inflightMax {
		t.Errorf("%d proposals were under way", most)
	}
}

// TestOutcomeOfAnEarlierTerm: what the next leader may have is waited for as long as an election
// takes, and a large value longer; nothing for ever.
func TestOutcomeOfAnEarlierTerm(t *testing.T) {
	n := newCluster(t, 1).leader(0)
	const term = 7
	outcome := func(bytes int, age, now uint64) command.Outcome {
		p := &proposed{tick: 100, term: term, bytes: bytes, state: new(dragonboat.RequestState)}
		return n.shards[0].outcome(p, 100+age, now)
	}
	for _, c := range []struct {
		bytes    int
		age, now uint64
		want     command.Outcome
	}{
		{0, n.electionTicks, term + 1, command.Applied},
		{0, n.electionTicks + 1, term + 1, command.TimedOut},
		{0, n.electionTicks + 1, term, command.Applied},
		{10 << 20, n.electionTicks + 10, term + 1, command.Applied},
		{10 << 20, n.electionTicks + 11, term + 1, command.TimedOut},
		{10 << 20, n.requestTicks, term, command.Applied},
		{10 << 20, n.requestTicks + 1, term, command.TimedOut},
	} {
		if got := outcome(c.bytes, c.age, c.now); got != c.want {
			t.Errorf("%d bytes, after %d ticks, in term %d: %v, want %v", c.bytes, c.age, c.now, got, c.want)
		}
	}
}

// TestRepliesOfAStep: replies are written after the last shard of a step, whatever else its
// entries are, and however the shards follow one another.
func TestRepliesOfAStep(t *testing.T) {
	n := newCluster(t, 1).leader(0)
	r := &replies{engine: n.Engine, upTo: make([]uint64, testShards+1)}
	const far = 1 << 40 // beyond what the shards here have carried out
	command := func(i uint64) pb.Entry { return pb.Entry{Type: pb.EncodedEntry, Index: far + i} }
	step := func(shard int, entries ...pb.Entry) pb.Update {
		return pb.Update{ShardID: shardID(shard), CommittedEntries: entries}
	}
	applied := func(shard int, i uint64, want bool) {
		t.Helper()
		if last := r.applied(shard, far+i); last != want {
			t.Errorf("shard %d carried out up to %d: last is %v", shard, i, last)
		}
	}
	applied(0, 1, true) // nothing is expected
	r.committed([]pb.Update{
		step(0, command(2), command(3)), step(1, command(7), pb.Entry{Index: far + 8}),
		step(2, pb.Entry{Type: pb.ConfigChangeEntry, Index: far + 1}), step(testShards), step(testShards+8, command(1)),
	})
	applied(0, 2, false)
	applied(0, 3, false)
	applied(1, 7, true)
	r.committed([]pb.Update{step(0, command(4), command(5)), step(1, command(9))})
	r.committed([]pb.Update{step(1, command(10))})
	applied(1, 9, false)
	applied(1, 10, false)
	applied(0, 4, true) // the rest of the same shard is no reason to wait
	applied(0, 5, true)
	r.committed([]pb.Update{step(0, pb.Entry{Type: pb.EncodedEntry, Index: n.shards[0].Applied.Load()})})
	applied(1, 11, true) // what was carried out before the step ended is not expected
	if r.shards != 0 {
		t.Errorf("%d shards are expected to go on", r.shards)
	}
}
