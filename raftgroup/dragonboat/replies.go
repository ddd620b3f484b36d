package dragonboat

import (
	"sync"

	pb "github.com/lni/dragonboat/v4/raftpb"
)

// replies says when replies are to be written. The apply worker carries out what a step has
// committed shard by shard, and a connection may wait for outcomes of several: its replies
// are written once, after the last shard.
type replies struct {
	engine *Engine
	mu     sync.Mutex
	upTo   []uint64 // by shard: index up to which committed commands are to be carried out; 0: none are
	shards int      // of which some are
}

// committed takes in what a step has committed.
func (r *replies) committed(updates []pb.Update) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range updates {
		s := r.engine.shardOf(updates[i].ShardID)
		if s != nil {
			s.noteCommit(updates[i].State.Commit)
		}
		index := lastCommand(updates[i].CommittedEntries)
		if s == nil || index <= s.Applied.Load() || s.down.Load() || r.engine.failed() {
			continue // some of a step are carried out before it ends
		}
		if r.upTo[s.number] == 0 {
			r.shards++
		}
		r.upTo[s.number] = index
	}
}

// lastCommand returns the index of the last entry that the state machine gets; 0 if there
// is none.
func lastCommand(entries []pb.Entry) uint64 {
	for i := len(entries) - 1; i >= 0; i-- {
		if entries[i].Type == pb.EncodedEntry {
			return entries[i].Index
		}
	}
	return 0
}

// applied takes in that a shard's commands have been carried out up to an index, and reports
// whether none of other shards are about to be.
func (r *replies) applied(shard int, index uint64) (last bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if upTo := r.upTo[shard]; upTo != 0 && upTo <= index {
		r.upTo[shard] = 0
		r.shards--
	}
	return r.shards == 0 || r.shards == 1 && r.upTo[shard] != 0
}
