package test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/internal/testcluster"
)

// TestOperationsGrow does what docs/operations.md says of growing and shrinking:
// a node that started alone becomes four, under numbers that nobody announced, and
// nothing is moved by hand.
func TestOperationsGrow(t *testing.T) {
	if testing.Short() {
		t.Skip("takes many seconds, which -short leaves out")
	}
	t.Parallel()
	const shards = 8
	c := testcluster.StartCluster(t, testcluster.ClusterConfig{Nodes: 1, Shards: shards})
	mustCLI(t, c, "put", "key", "value")
	second, seventh, last := c.JoinUnannounced(0), c.JoinUnannounced(7), c.JoinUnannounced(0)
	for _, n := range []*testcluster.Node{c.Node(1), second, seventh, last} {
		c.AwaitStatus(n, "replicas and leaders spread evenly over nodes 1, 2, 7 and 8", func(s *command.ClusterStatus) bool {
			return spread(s, 3*shards, 1, 2, 7, 8)
		})
	}
	if out := mustCLI(t, c, "get", "key"); !strings.Contains(out, "value") {
		t.Errorf("%s", out)
	}

	// A number may be announced.
	mustCLI(t, c, "member", "add", "12")
	if out := mustCLI(t, c, "member", "list"); !strings.Contains(out, command.NodeExpected) {
		t.Errorf("node 12 is not expected:\n%s", out)
	}
	mustCLI(t, c, "member", "remove", "12")

	// A node that is drained stays so when it starts anew.
	awaitCLI(t, c, "member", "drain", "2")
	second.Restart()
	c.AwaitStatus(c.Node(1), "node 2 to be up, and to lead nothing", func(s *command.ClusterStatus) bool {
		i := slices.IndexFunc(s.Nodes, func(n command.NodeInfo) bool { return n.ID == 2 })
		return s.Nodes[i].Draining && !s.Nodes[i].Stale && s.Nodes[i].Leaders == 0
	})
	mustCLI(t, c, "member", "drain", "2", "--undo")

	// Down to two: the shards go on with fewer replicas than they should have.
	if r := cli(t, c, "member", "remove", "8"); r.Status != 0 || strings.Contains(r.Stderr, "warning") {
		t.Errorf("three nodes are left for three replicas: status %d\n%s", r.Status, r.Stderr)
	}
	eventually(t, "node 7 to be removed", func() error {
		r := cli(t, c, "member", "remove", "7")
		if r.Status == 1 && strings.Contains(r.Stderr, "node 7 has not reported for") { // a moment ago, on a busy machine
			return errors.New(r.Stderr)
		}
		if r.Status != 0 || !strings.Contains(r.Stderr, "warning: without node 7 there are 2 nodes for 3 replicas") {
			t.Errorf("two nodes are left for three replicas: status %d\n%s", r.Status, r.Stderr)
		}
		return nil
	})
	for _, n := range []*testcluster.Node{last, seventh} {
		if status := n.AwaitExit(); status != 3 {
			t.Errorf("a removed server exited with status %d", status)
		}
	}
	c.AwaitStatus(c.Node(1), "two replicas of each shard", func(s *command.ClusterStatus) bool { return spread(s, 2*shards, 1, 2) })
	eventually(t, "the status to tell what is missing", func() error { // for a moment a shard may have no leader
		r := cli(t, c, "status")
		for _, want := range []string{"degraded: all 9 shards have a leader, but\n", "  all 9 shards have 2 of 3 voting replicas\n", "  one more node lost: no quorum for all 9 shards", "  next: start 1 more node"} {
			if r.Status != 1 || !strings.Contains(r.Stdout, want) {
				return fmt.Errorf("status %d, without %q:\n%s", r.Status, want, r.Stdout)
			}
		}
		return nil
	})
	if out := mustCLI(t, c, "get", "key"); !strings.Contains(out, "value") {
		t.Errorf("%s", out)
	}
}

// spread reports whether so many replicas, those of the meta group aside, and all
// leaders are spread evenly over exactly these nodes.
func spread(s *command.ClusterStatus, replicas int, nodes ...uint64) bool {
	held, led := map[uint64]int{}, map[uint64]int{}
	sum := 0
	for _, sh := range s.Shards {
		if sh.Moving || sh.Leader == 0 {
			return false
		}
		led[sh.Leader]++
		if sh.Shard == command.MetaShard {
			continue
		}
		for _, r := range sh.Replicas {
			held[r.Node]++
			sum++
		}
	}
	for _, counts := range []map[uint64]int{held, led} {
		least, most := counts[nodes[0]], 0
		for _, n := range nodes {
			least, most = min(least, counts[n]), max(most, counts[n])
		}
		if most-least > 1 {
			return false
		}
	}
	return sum == replicas && len(s.Nodes) == len(nodes)
}
