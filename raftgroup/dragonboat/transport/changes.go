package transport

import (
	"math"
	"sync"

	"github.com/lni/dragonboat/v4/raftio"
	pb "github.com/lni/dragonboat/v4/raftpb"
)

// Changes is the last change of the membership that a replica was sent by the leader of a
// term before it was committed. Its methods may be called from any goroutine.
//
// A leader's log has one change at most beyond its commit index, and each message says what
// that is. So of two changes in the messages of a term, the later one comes with a commit
// index that covers the earlier one, in whatever order they arrive.
type Changes struct {
	mu     sync.Mutex
	term   uint64
	index  uint64 // of the change
	commit uint64 // the lowest that it came with
}

// check returns why no leader has sent m, which has passed checkReplicate, and notes the
// change that it has.
func (c *Changes) check(m *pb.Message) error {
	index := uncommittedChange(m)
	if c == nil || index == 0 {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case m.Term > c.term:
		c.term, c.index, c.commit = m.Term, index, m.Commit
	case m.Term < c.term:
		// dragonboat does not take it
	case index > m.Commit && c.index > m.Commit && c.index < index, index < c.index && index > c.commit:
		return damaged("entries %d and %d are changes of the membership in term %d, of which none is committed", min(index, c.index), max(index, c.index), m.Term)
	case index == c.index:
		c.commit = min(c.commit, m.Commit)
	case index > c.index:
		c.index, c.commit = index, m.Commit
	}
	return nil
}

// uncommittedChange returns the index of the change of the membership in m that is not
// committed, 0 if there is none.
func uncommittedChange(m *pb.Message) uint64 {
	for i := range m.Entries {
		if e := &m.Entries[i]; e.Type == pb.ConfigChangeEntry && e.Index > m.Commit {
			return e.Index
		}
	}
	return 0
}

// pendingBytes is how much of a log is looked at at a time.
const pendingBytes = 1 << 20

// Pending counts the changes of the membership behind the commit index of a replica's log.
// It is a Place's Pending, but for the error.
func Pending(db raftio.ILogDB, shard, replica uint64) (n int, err error) {
	s, err := db.ReadRaftState(shard, replica, 0)
	if err != nil {
		return 0, err
	}
	var es []pb.Entry
	for next := max(s.State.Commit+1, s.FirstIndex); ; next = es[len(es)-1].Index + 1 {
		if es, _, err = db.IterateEntries(es[:0], 0, shard, replica, next, math.MaxUint64, pendingBytes); err != nil || len(es) == 0 {
			return n, err
		}
		for i := range es {
			if es[i].Type == pb.ConfigChangeEntry {
				n++
			}
		}
	}
}
