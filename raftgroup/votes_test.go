package raftgroup

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/proa-kv/proa/command"
)

// votesText shows who votes: "1 2 (3)" where node 3 learns.
func votesText(row *shardRow) string {
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

func TestEnfranchise(t *testing.T) {
	row := func(text string) (s shardRow) {
		for _, part := range strings.Fields(text) {
			r := replicaRow{Learner: part[0] == '('}
			_, err := fmt.Sscan(strings.Trim(part, "()"), &r.Node)
			must(t, err)
			s.Replicas = append(s.Replicas, r)
		}
		return s
	}
	for _, tt := range []struct {
		row          string
		factor, most int
		want         string
	}{
		{"1", 3, 3, "1"},
		{"1 (2)", 3, 3, "1 (2)"}, // a joiner that dies stops nobody
		{"1 (2) (3)", 3, 3, "1 2 3"},
		{"1 2 (3)", 3, 3, "1 2 3"},
		{"1 (2)", 2, 2, "1 2"}, // asked for
		{"1 2 3 (4)", 4, 4, "1 2 3 4"},
		{"1 2 3 (4)", 5, 5, "1 2 3 (4)"},
		{"1 2 3 (4) (5)", 5, 5, "1 2 3 4 5"},
		{"(1)", 1, 1, "1"},
		{"(1) (2)", 3, 3, "1 (2)"},
		{"(1) (2) (3)", 3, 3, "1 2 3"},
		{"1 (9)", 2, 2, "1 (9)"}, // down
		{"1 (9) (2)", 3, 3, "1 (9) (2)"},
		{"1 (9) (2) (3)", 3, 5, "1 (9) 2 3"},
		{"1 2 3 (4)", 3, 5, "1 2 3 (4)"}, // the meta group of four nodes
		{"1 2 3 (4) (5)", 3, 5, "1 2 3 4 5"},
		{"1 2 3 4 5 (6) (7)", 3, 5, "1 2 3 4 5 (6) (7)"},
	} {
		got := row(tt.row).enfranchise(tt.factor, tt.most, func(node uint64) bool { return node < 9 })
		if votesText(&got) != tt.want {
			t.Errorf("%s, %d replicas, %d voters at most: %s, want %s", tt.row, tt.factor, tt.most, votesText(&got), tt.want)
		}
	}
}

// A node that joins a lone one and dies stops nothing; with a third node all
// three vote.
func TestJoinerOfALoneNodeDies(t *testing.T) {
	c := newCluster(t, 1, 4)
	c.until("leaders", c.led)
	c.join(2)
	c.until("copies on both", func() bool { return c.settled(2) })
	for shard, row := range c.nodes[1].cmap.Load().shards {
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
	for shard, row := range c.nodes[1].cmap.Load().shards {
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

// A leader that the map does not want hands over to the only replica that it
// wants, also where that one's node is to be removed, too: of two nodes that are
// removed at a time neither must wait for the other.
func TestLeaderLeavesToANodeThatLeaves(t *testing.T) {
	c := newCluster(t, 3, 1)
	c.until("three replicas", func() bool { return c.settled(3) })
	n := c.leader(0)
	other := n.opt.ID%3 + 1
	removing := func(nodes ...uint64) uint64 {
		m := *n.cmap.Load()
		m.nodes, m.shards = slices.Clone(m.nodes), slices.Clone(m.shards)
		for i := range m.nodes {
			m.nodes[i].Removing = slices.Contains(nodes, m.nodes[i].ID)
		}
		r, _ := m.replica(0, other)
		m.shards[0].Replicas = []replicaRow{r}
		n.cmap.Store(&m)
		g := n.groups[0]
		if got := g.removedSuccessor(n, &m.shards[0]); got != 0 {
			return nodeOf(got)
		}
		return 0
	}
	if got := removing(n.opt.ID, other); got != other {
		t.Errorf("node %d hands over to node %d, want %d", n.opt.ID, got, other)
	}
	if got := removing(n.opt.ID); got != 0 {
		t.Errorf("node %d, which stays, is chosen as one that goes", got)
	}
}
