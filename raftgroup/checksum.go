package raftgroup

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/proa-kv/proa/command"
)

// All replicas of a shard have the same state at the same index (A1). To prove
// it on a live cluster the leader proposes a mark. Each replica, when it has
// applied the mark, opens a view of its state, and says the view's checksum
// when it is asked.

// marksKept bounds the views that wait to be asked for.
const marksKept = 4

// markWait bounds how long a view is kept for that.
const markWait = time.Minute

// marks are the marks that a replica has come by.
type marks struct {
	passed atomic.Uint64 // index up to which the replica has applied, marks taken
	mu     sync.Mutex
	list   []mark
}

type mark struct {
	index uint64
	sum   chan checksumOutcome // capacity 1
}

type checksumOutcome struct {
	sum uint64
	err error
}

// takeMark opens a view of the state as the mark just applied found it.
func (g *group) takeMark(n *Node) {
	m := mark{g.at.index, make(chan checksumOutcome, 1)}
	view, err := n.store.OpenView(g.shard)
	if err != nil {
		m.sum <- checksumOutcome{0, err}
	} else {
		n.background.Add(1)
		go func() {
			defer n.background.Done()
			defer view.Close()
			sum, err := view.Checksum()
			m.sum <- checksumOutcome{sum, err}
		}()
	}
	g.marks.mu.Lock()
	defer g.marks.mu.Unlock()
	if len(g.marks.list) == marksKept {
		g.marks.list = append(g.marks.list[:0], g.marks.list[1:]...)
	}
	g.marks.list = append(g.marks.list, m)
}

// find returns the outcome of the mark at index. passed is true if it is not
// there and will not come any more.
func (m *marks) find(index uint64) (sum chan checksumOutcome, passed bool) {
	beyond := m.passed.Load() // before the look at the list
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.list {
		if m.list[i].index == index {
			return m.list[i].sum, false
		}
	}
	return nil, beyond >= index
}

func (n *Node) answerChecksum(ctx context.Context, body []byte) ([]byte, error) {
	var a checksumArgs
	if err := parseArgs(body, &a); err != nil {
		return nil, err
	}
	if a.Shard < 0 || a.Shard >= len(n.groups) {
		return nil, fmt.Errorf("%w: there is no shard %d", command.ErrInvalid, a.Shard)
	}
	sum, err := n.checksumAt(ctx, a.Shard, a.Index)
	if err != nil {
		return nil, err
	}
	return json.Marshal(command.ReplicaChecksum{Node: n.id, Checksum: sum})
}

// checksumAt waits until this replica has come by the mark at index.
func (n *Node) checksumAt(ctx context.Context, shard int, index uint64) (uint64, error) {
	g := n.groups[shard]
	ctx, cancel := context.WithTimeout(ctx, markWait)
	defer cancel()
	var found chan checksumOutcome
	passed := false
	err := n.await(ctx, func() bool {
		found, passed = g.marks.find(index)
		return found != nil || passed
	})
	switch {
	case err != nil:
		return 0, fmt.Errorf("%w: the replica has not come to entry %d", command.ErrTimeout, index)
	case found == nil:
		return 0, fmt.Errorf("%w: the replica got past entry %d by a snapshot; ask again", command.ErrRefused, index)
	}
	select {
	case o := <-found:
		found <- o // for who asks next
		return o.sum, o.err
	case <-ctx.Done():
		return 0, fmt.Errorf("%w: the replica is still reading", command.ErrTimeout)
	}
}

// indexed hears at which index a command was applied.
type indexed struct {
	g    *group
	done chan uint64 // 0: it was not
}

// Complete passes the index on; it is called before the group's own index
// moves on, from within the apply of this very entry.
func (i indexed) Complete(_ command.Tag, o command.Outcome, _ *command.Result) {
	if o != command.Applied {
		i.done <- 0
		return
	}
	i.done <- i.g.applying
}

// adminChecksum compares the replicas of a shard that this node leads.
func (n *Node) adminChecksum(ctx context.Context, shard int) (any, error) {
	g := n.groups[shard]
	done := make(chan uint64, 1)
	c := command.Command{Kind: command.Mark}
	if err := n.propose(shard, &c, indexed{g, done}, command.Tag{}); err != nil {
		return nil, err
	}
	n.Kick()
	var index uint64
	select {
	case index = <-done:
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %s has not answered", command.ErrTimeout, n.shardName(shard))
	}
	if index == 0 {
		return nil, fmt.Errorf("%w: %s changed its leader; try again", command.ErrNotLeader, n.shardName(shard))
	}
	out := command.ShardChecksum{Shard: shard, Index: index, Equal: true}
	if shard == n.meta() {
		out.Shard = command.MetaShard
	}
	nodes := n.cmap.Load().shards[shard].nodes()
	replies := make([]command.ReplicaChecksum, len(nodes))
	var wg sync.WaitGroup
	for i, node := range nodes {
		wg.Go(func() { replies[i] = n.checksumOf(ctx, node, shard, index) })
	}
	wg.Wait()
	first := ""
	for _, r := range replies {
		if r.Error != "" {
			continue
		}
		text := fmt.Sprint(r.Checksum)
		if first == "" {
			first = text
		}
		out.Equal = out.Equal && text == first
	}
	out.Replicas = replies
	return out, nil
}

func (n *Node) checksumOf(ctx context.Context, node uint64, shard int, index uint64) command.ReplicaChecksum {
	r := command.ReplicaChecksum{Node: node}
	var err error
	if node == n.id {
		r.Checksum, err = n.checksumAt(ctx, shard, index)
	} else {
		var body, reply []byte
		if body, err = json.Marshal(checksumArgs{shard, index}); err == nil {
			if reply, err = n.call(ctx, node, callChecksum, body); err == nil {
				err = json.Unmarshal(reply, &r)
			}
		}
	}
	if err != nil {
		r.Error = err.Error()
	}
	return r
}
