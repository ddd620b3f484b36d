package dragonboat

import (
	"sync"

	pb "github.com/lni/dragonboat/v4/raftpb"
)

// backlogBytesMax bounds the commands of a node's followers that have been received and are
// not carried out. dragonboat keeps them in memory, however many they are: a follower whose
// store cannot keep up would need as much as its leader writes meanwhile.
const backlogBytesMax = 128 << 20

// backlogs counts the commands that have been received, and not been carried out. Beyond a
// bound entries with more are not taken, unless the replica has none: its leader sends them
// again.
type backlogs struct {
	engine *Engine

	mu     sync.Mutex
	max    int
	bytes  int       // of all shards
	shards []backlog // by number
}

// backlog is that of one shard.
type backlog struct {
	batches []batch // in the order of their indexes
	bytes   int     // of their commands
}

// batch is entries that have come in one message.
type batch struct {
	last  uint64 // index
	bytes int
}

// admit takes those entries out of a message that a replica may not be given, and reports
// whether anything is left of it. Some of the first entries make a message as well.
func (b *backlogs) admit(s *shard, m *pb.Message) bool {
	if m.Type != pb.Replicate || len(m.Entries) == 0 {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.settle(s)
	if n := b.take(s, m.Entries); n < len(m.Entries) {
		for _, other := range b.engine.shards {
			b.settle(other)
		}
		n += b.take(s, m.Entries[n:])
		m.Entries = m.Entries[:n]
	}
	return len(m.Entries) > 0
}

// take counts entries until there are too many, and returns how many there are before.
func (b *backlogs) take(s *shard, entries []pb.Entry) int {
	own := &b.shards[s.number]
	known := uint64(0)
	if n := len(own.batches); n > 0 {
		known = own.batches[n-1].last
	}
	next := batch{}
	n := 0
	for ; n < len(entries); n++ {
		e := &entries[n]
		if e.Type != pb.EncodedEntry || e.Index <= known {
			continue // it has no command, or has been counted
		}
		if own.bytes+next.bytes > 0 && b.bytes+next.bytes+len(e.Cmd) > b.max {
			break
		}
		next.last = e.Index
		next.bytes += len(e.Cmd)
	}
	if next.bytes > 0 {
		own.batches = append(own.batches, next)
		own.bytes += next.bytes
		b.bytes += next.bytes
	}
	return n
}

// settle takes out what has been carried out. b.mu must be held.
func (b *backlogs) settle(s *shard) {
	own, applied := &b.shards[s.number], b.engine.Store.Applied(s.number)
	done := 0
	for ; done < len(own.batches) && own.batches[done].last <= applied; done++ {
		own.bytes -= own.batches[done].bytes
		b.bytes -= own.batches[done].bytes
	}
	own.batches = append(own.batches[:0], own.batches[done:]...)
}

// forget takes out what an earlier replica of the shard has left.
func (b *backlogs) forget(s *shard) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.bytes -= b.shards[s.number].bytes
	b.shards[s.number] = backlog{}
}
