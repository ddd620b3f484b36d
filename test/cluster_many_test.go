package test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/internal/testcluster"
	"github.com/proa-kv/proa/raftgroup"
)

// TestClusterManyShards runs as many shards as there may be: what the nodes tell
// each other of them is true on each, leaderships can be moved, drained and
// spread evenly, and the loss of a node, and of two, is told as it is.
func TestClusterManyShards(t *testing.T) {
	t.Parallel()
	shards := 1024
	if testing.Short() || testcluster.Instrumented() {
		shards = 64
	} else if _, dear := engineLacks(raftgroup.IdleShards); dear {
		shards = 128
	}
	c := testcluster.StartCluster(t, testcluster.ClusterConfig{Shards: shards, Settings: []string{"memory.max_memory_usage=512MiB", "cluster.balance_leaders=false"}})
	all := shards + 1 // with the meta group
	spread := func() {
		t.Helper()
		for _, n := range c.Nodes() {
			// Each node spreads what it leads by what it knows of the others,
			// while they do the same: once may not be enough.
			eventually(t, "all leaders, evenly spread", func() error {
				r := cli(t, c, "shard", "split-leaders")
				if r.Status == 0 {
					r = proaHealth(t, n)
				}
				if s, err := status(n); err != nil || r.Status != 0 || !balanced(s, all) {
					return fmt.Errorf("%v, exit status %d, %s%s", err, r.Status, head(r.Stdout), r.Stderr)
				}
				return nil
			})
		}
	}
	awaitSettled(t, c) // who has not been heard of is given no leadership
	spread()

	from := ledBy(t, c, 7)
	to := strconv.Itoa(from%3 + 1)
	awaitCLI(t, c, "shard", "transfer", "7", "--to", to)

	terms := map[int]uint64{}
	for _, sh := range c.View(c.Node(2)).Shards {
		terms[sh.Shard] = sh.Term
	}
	awaitCLI(t, c, "member", "drain", "2")
	for _, sh := range c.View(c.Node(2)).Shards { // at once: the command has said that it is done
		if r := sh.On(2); r != nil && r.Role == "leader" && sh.Term == terms[sh.Shard] { // not elected anew on a busy machine
			t.Fatalf("node 2 still leads shard %d after its draining was called done", sh.Shard)
		}
	}
	mustCLI(t, c, "member", "drain", "2", "--undo")
	spread()

	c.Node(3).Kill()
	awaitLedWithout(t, c, c.Node(3))
	for _, n := range c.Nodes()[:2] {
		c.AwaitStatus(n, "all leaders on two nodes", func(s *command.ClusterStatus) bool {
			return s.Nodes[0].Leaders+s.Nodes[1].Leaders == all && s.Nodes[2].Leaders == 0 && s.Nodes[2].Stale
		})
		eventually(t, "a degraded cluster", func() error { // for a moment a shard may have no leader
			r := proaHealth(t, n)
			if r.Status == 0 {
				t.Fatalf("node %d calls it healthy without node 3: %s", c.ID(n), head(r.Stdout))
			}
			if r.Status != 1 || !strings.Contains(r.Stdout, "degraded") {
				return fmt.Errorf("node %d: exit status %d, %s", c.ID(n), r.Status, head(r.Stdout))
			}
			return nil
		})
	}
	cl := connectAll(t, c, nil)
	for i := range 200 {
		if _, err := cl.Put(context.Background(), fmt.Appendf(nil, "key/%d", i), []byte("value")); err != nil {
			t.Fatal(err)
		}
	}
	c.Node(3).Start()
	for _, n := range c.Nodes() {
		eventually(t, "a healthy cluster with node 3", func() error {
			if r := proaHealth(t, n); r.Status != 0 {
				return fmt.Errorf("exit status %d, %s", r.Status, head(r.Stdout))
			}
			return nil
		})
	}

	c.Node(1).Kill()
	c.Node(2).Kill()
	eventually(t, "node 3 to say that nothing is led", func() error {
		r := proaHealth(t, c.Node(3))
		if want := fmt.Sprintf("UNAVAILABLE: none of the %d shards has a leader", all); r.Status != 3 || !strings.Contains(r.Stdout, want) {
			return fmt.Errorf("exit status %d, %s", r.Status, head(r.Stdout))
		}
		return nil
	})
}

// balanced reports whether all shards have a leader, and three nodes about as
// many each, as they have said just now.
func balanced(s *command.ClusterStatus, all int) bool {
	sum, least, most := 0, all, 0
	for _, n := range s.Nodes {
		sum, least, most = sum+n.Leaders, min(least, n.Leaders), max(most, n.Leaders)
		if n.Stale || n.State != command.NodeUp {
			return false
		}
	}
	return len(s.Nodes) == 3 && sum == all && most-least <= 4
}

// ledBy returns the number of the server that leads a shard.
func ledBy(t *testing.T, c *testcluster.Cluster, shard int) (leader int) {
	t.Helper()
	c.AwaitStatus(c.Node(1), "a leader", func(s *command.ClusterStatus) bool {
		for _, sh := range s.Shards {
			if sh.Shard == shard {
				leader = int(sh.Leader)
			}
		}
		return leader != 0
	})
	return leader
}

// proaHealth is what proa status says when it asks one server.
func proaHealth(t *testing.T, n *testcluster.Node) testcluster.Result {
	t.Helper()
	return testcluster.Run(t, testcluster.Command{Args: []string{"status", "-e", n.Address()}})
}

// head is the beginning of a text.
func head(s string) string { return s[:min(len(s), 900)] }

// TestClusterStatusTellsWhatIsKnown kills nodes one after the other and looks at
// the status all the while: what it counts as led is led by a node that lives,
// and it says that the cluster is well only while it is.
func TestClusterStatusTellsWhatIsKnown(t *testing.T) {
	t.Parallel()
	c := testcluster.StartCluster(t, testcluster.ClusterConfig{})
	asked := c.Node(1)
	for _, n := range c.Nodes() {
		c.AwaitStatus(n, "leaders on each node", func(s *command.ClusterStatus) bool { return balanced(s, 9) })
		eventually(t, "a healthy cluster", func() error {
			if r := proaHealth(t, n); r.Status != 0 || !strings.HasPrefix(verdict(r.Stdout), "healthy: all 9 shards") {
				return fmt.Errorf("exit status %d, %s", r.Status, r.Stdout)
			}
			return nil
		})
	}
	for _, victim := range []int{3, 2} {
		c.Node(victim).Kill()
		// The end of its connections tells, not some seconds of silence.
		c.AwaitStatus(asked, "the node's end", func(s *command.ClusterStatus) bool {
			return s.Nodes[victim-1].State != command.NodeUp && s.Nodes[victim-1].Stale && s.Nodes[victim-1].Leaders == 0
		})
		want := map[int]struct {
			status int
			says   string
		}{3: {1, "degraded: all 9 shards"}, 2: {3, "UNAVAILABLE: none of the 9 shards has a leader"}}[victim]
		eventually(t, want.says, func() error {
			r := testcluster.Run(t, testcluster.Command{Args: []string{"status", "-e", asked.Address()}})
			if strings.HasPrefix(verdict(r.Stdout), "healthy") || r.Status == 0 {
				t.Fatalf("exit status %d, %s", r.Status, r.Stdout)
			}
			raw := testcluster.Run(t, testcluster.Command{Args: []string{"status", "-o", "json", "-e", asked.Address()}})
			s, err := asked.Status(t.Context())
			if err != nil {
				return err
			}
			led := 0
			for _, sh := range s.Shards {
				if sh.Leader != 0 {
					led++
				}
				if sh.Leader == uint64(victim) {
					t.Fatalf("shard %d is led by node %d, which is dead", sh.Shard, victim)
				}
			}
			sum := 0
			for _, n := range s.Nodes {
				sum += n.Leaders
			}
			if sum != led {
				t.Fatalf("%d shards are led, by the nodes' count %d", led, sum)
			}
			if r.Status != want.status || !strings.HasPrefix(verdict(r.Stdout), want.says) || raw.Status != want.status {
				return fmt.Errorf("exit status %d, with -o json %d, %s", r.Status, raw.Status, r.Stdout)
			}
			return nil
		})
	}
	r := proaHealth(t, asked)
	for _, line := range strings.Split(r.Stdout, "\n") {
		if strings.HasPrefix(line, "2 ") && strings.Contains(line, c.Node(2).Address()) && !strings.Contains(strings.Join(strings.Fields(line), " "), " - - - - "+c.Node(2).Address()) {
			t.Errorf("figures of a node that is dead: %s", line)
		}
	}
}

// verdict is the sentence of proa status on the cluster.
func verdict(stdout string) string {
	_, rest, _ := strings.Cut(stdout, "\n")
	line, _, _ := strings.Cut(rest, "\n")
	return line
}
