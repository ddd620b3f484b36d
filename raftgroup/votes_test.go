package raftgroup

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup/placement"
)

// votesText shows who votes: "1 2 (3)" where node 3 learns.
func votesText(row *placement.Shard) string {
	var parts []string
	for _, r := range row.Replicas {
		text := fmt.Sprint(r.Node)
		if r.Learner {
			text = "(" + text + ")"
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, " ")
}

// A node that joins a lone one and dies stops nothing; with a third node all
// three vote.
func TestJoinerOfALoneNodeDies(t *testing.T) { slowlyOnEngines(t, testJoinerOfALoneNodeDies) }

func testJoinerOfALoneNodeDies(t *testing.T, e placement.Engine) {
	c := newClusterOf(t, e, 1, 4)
	c.until("leaders", c.led)
	c.join(2)
	c.until("copies on both", func() bool { return c.settled(2) })
	for shard, row := range c.nodes[1].cmap.Load().Shards {
		if got := votesText(&row); got != "1 (2)" {
			t.Errorf("shard %d: %s", shard, got)
		}
	}
	c.until("word of how far the copies are, also of idle shards", func() bool {
		for _, shard := range c.nodes[1].ClusterStatus().Shards {
			for _, r := range shard.Replicas {
				if len(shard.Replicas) != 2 || r.Lag != 0 {
					return false
				}
			}
		}
		return true
	})
	c.isolate(2, true)
	c.pass(30 * time.Second)
	c.put("k", "without it")
	if n := c.nodes[1]; !c.led() {
		b, _ := n.StatusJSON()
		t.Fatalf("not all shards have leaders: %s", b)
	}
	if _, err := c.nodes[1].Admin(t.Context(), command.AdminMemberDrain, []byte(`{"node":1}`)); err == nil {
		t.Error("the only node that votes can be drained")
	}
	c.isolate(2, false)
	c.join(3)
	c.until("copies on all", func() bool { return c.settled(3) })
	for shard, row := range c.nodes[1].cmap.Load().Shards {
		if got := votesText(&row); got != "1 2 3" {
			t.Errorf("shard %d: %s", shard, got)
		}
	}
	c.isolate(2, true)
	c.pass(5 * time.Second)
	c.until("leaders with one node down", c.led)
	c.put("k", "again")
}

// isolate cuts a node off from all others, or ends that.
func (c *cluster) isolate(node uint64, cut bool) {
	for id := range c.nodes {
		c.sever(node, id, cut)
		c.sever(id, node, cut)
	}
}

// A replica that does not hear its leader, and is heard, is no successor: it would not hear
// that either, and the leader would try again and again, without taking writes meanwhile.
func TestDeafReplicaIsNoSuccessor(t *testing.T) { onEngines(t, testDeafReplicaIsNoSuccessor) }

func testDeafReplicaIsNoSuccessor(t *testing.T, e placement.Engine) {
	c := newClusterOf(t, e, 3, 1)
	c.until("three replicas", func() bool { return c.settled(3) })
	n := c.leader(0)
	deaf, other := placement.ReplicaID(n.id%3+1, 1), placement.ReplicaID((n.id+1)%3+1, 1)
	successors := func(want ...uint64) func() bool {
		return func() bool {
			if leader := c.leader(0); leader != n {
				if leader != nil {
					_ = leader.requestTransfer(0, n.id)
				}
				return false
			}
			got := make(chan []uint64, 1)
			n.engine.Post(func() { got <- n.soundSuccessors(0) })
			c.settle()
			select {
			case ids := <-got:
				slices.Sort(ids)
				slices.Sort(want)
				return slices.Equal(ids, want)
			default:
				return false
			}
		}
	}
	c.until("two successors", successors(deaf, other))
	for id := range c.nodes {
		c.sever(id, placement.NodeOf(deaf), true)
	}
	c.until("one successor", successors(other))
	c.put("k", "v")
	for id := range c.nodes {
		c.sever(id, placement.NodeOf(deaf), false)
	}
	c.until("two successors again", successors(deaf, other))
}

// A leader that the map does not want hands over to the only replica that it
// wants, also where that one's node is to be removed, too, or drained: of two nodes that
// are removed at a time neither must wait for the other.
func TestLeaderLeavesToANodeThatLeaves(t *testing.T) { onEngines(t, testLeaderLeavesToANodeThatLeaves) }

func testLeaderLeavesToANodeThatLeaves(t *testing.T, e placement.Engine) {
	c := newClusterOf(t, e, 3, 1)
	c.until("three replicas", func() bool { return c.settled(3) })
	n := c.leader(0)
	other := n.opt.ID%3 + 1
	leaving := func(drained bool, nodes ...uint64) uint64 {
		m := *n.cmap.Load()
		m.Nodes, m.Shards = slices.Clone(m.Nodes), slices.Clone(m.Shards)
		for i := range m.Nodes {
			goes := slices.Contains(nodes, m.Nodes[i].ID)
			m.Nodes[i].Draining = goes && drained
			m.Nodes[i].Removing = goes && !drained
		}
		r, _ := m.Replica(0, other)
		m.Shards[0].Replicas = []placement.Replica{r}
		n.cmap.Store(&m)
		s := n.engine.Replica(0)
		if got := n.leavingSuccessor(0, &s, &m.Shards[0]); got != 0 {
			return placement.NodeOf(got)
		}
		return 0
	}
	for _, drained := range []bool{false, true} {
		if got := leaving(drained, n.opt.ID, other); got != other {
			t.Errorf("node %d hands over to node %d, want %d (drained: %v)", n.opt.ID, got, other, drained)
		}
	}
	if got := leaving(false, n.opt.ID); got != 0 {
		t.Errorf("node %d, which stays, is chosen as one that goes", got)
	}
}
