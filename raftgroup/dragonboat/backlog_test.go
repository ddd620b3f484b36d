package dragonboat

import (
	"fmt"
	"strings"
	"testing"

	pb "github.com/lni/dragonboat/v4/raftpb"
)

// TestBacklog: a follower that carries nothing out takes no more entries than are bounded, and
// has all of them when it goes on.
func TestBacklog(t *testing.T) {
	c := newCluster(t, 1, 2, 3)
	n := c.node(c.leader(0).id%3 + 1)
	c.put(0, "k", "before")
	c.until("the row", func() bool { return n.read(0, "k") == "before" })
	const bound = 256 << 10
	n.backlogs.mu.Lock()
	n.backlogs.max = bound
	n.backlogs.mu.Unlock()
	last := func(n *node) uint64 {
		_, last := n.db.Range(n.shards[0].id, n.shards[0].replicaID.Load())
		return last
	}
	n.applying.Lock()
	value := strings.Repeat("v", 16<<10)
	const rows = 64 // 1 MiB
	for i := range rows {
		c.put(0, fmt.Sprint("k", i), value)
	}
	var waits int
	c.until("a full backlog", func() bool {
		n.backlogs.mu.Lock()
		defer n.backlogs.mu.Unlock()
		waits = n.backlogs.bytes
		return waits > bound-len(value)-1024
	})
	if waits > bound || last(n) == last(c.leader(0)) {
		t.Errorf("%d bytes wait to be carried out, %d may; the log is at %d, the leader's at %d", waits, bound, last(n), last(c.leader(0)))
	}
	n.applying.Unlock()
	c.until("all rows", func() bool { return n.read(0, fmt.Sprint("k", rows-1)) == value })
	for i := range rows {
		if n.read(0, fmt.Sprint("k", i)) != value {
			t.Errorf("row %d is missing", i)
		}
	}
	n.backlogs.mu.Lock()
	defer n.backlogs.mu.Unlock()
	if n.backlogs.settle(n.shards[0]); n.backlogs.shards[0].bytes != 0 {
		t.Errorf("%d bytes wait, of what has been carried out", n.backlogs.shards[0].bytes)
	}
}

// TestBacklogs: entries count once, those of other shards as well, and a replica without any
// gets some.
func TestBacklogs(t *testing.T) {
	n := newCluster(t, 1).leader(0)
	b := &backlogs{engine: n.Engine, max: 100, shards: make([]backlog, testShards+1)}
	far := n.store.Applied(0) + n.store.Applied(1) + 1
	message := func(from, to uint64, bytes int) *pb.Message {
		m := &pb.Message{Type: pb.Replicate}
		for i := from; i <= to; i++ {
			m.Entries = append(m.Entries, pb.Entry{Index: far + i, Type: pb.EncodedEntry, Cmd: make([]byte, bytes)})
		}
		return m
	}
	admit := func(shard int, m *pb.Message, taken, bytes int) {
		t.Helper()
		if got := b.admit(n.shards[shard], m); got != (taken > 0) || len(m.Entries) != taken || b.bytes != bytes {
			t.Errorf("admitted %v, %d entries, %d bytes; want %d, %d", got, len(m.Entries), b.bytes, taken, bytes)
		}
	}
	admit(0, message(1, 2, 20), 2, 40)
	admit(0, message(1, 2, 20), 2, 40)
	admit(0, message(2, 4, 20), 3, 80)
	admit(1, message(1, 3, 50), 1, 130) // its first one
	admit(1, message(2, 2, 1), 0, 130)
	admit(0, message(3, 6, 1), 2, 130)
	admit(0, message(5, 6, 1), 0, 130)
	admit(0, message(1, 4, 20), 4, 130)
	admit(0, &pb.Message{Type: pb.Replicate, Entries: []pb.Entry{{Index: far + 5}, {Index: far + 6, Type: pb.ConfigChangeEntry, Cmd: make([]byte, 90)}}}, 2, 130)
	if !b.admit(n.shards[0], &pb.Message{Type: pb.Heartbeat}) || !b.admit(n.shards[0], &pb.Message{Type: pb.Replicate}) {
		t.Error("messages without entries are not admitted")
	}
	b.forget(n.shards[1])
	admit(0, message(5, 6, 20), 1, 100)
	admit(0, message(6, 6, 1), 0, 100)
}
