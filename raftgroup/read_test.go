package raftgroup

import (
	"slices"
	"testing"
	"time"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup/placement"
)

// TestAge: every replica knows how old it is at most, also after a start and while nothing is
// written, and tells no more than is true where it hears nothing.
func TestAge(t *testing.T) { onEngines(t, testAge) }

func testAge(t *testing.T, e placement.Engine) {
	const fresh = 2 * time.Second // what is certain on a machine that is busy
	c := newClusterOf(t, e, 3, 1)
	c.until("leaders", c.led)
	age := func(n *Node) time.Duration {
		ms, known := n.Age(0)
		if !known {
			return time.Hour
		}
		return time.Duration(ms) * time.Millisecond
	}
	allFresh := func() bool {
		for _, n := range c.nodes {
			if age(n) > fresh {
				return false
			}
		}
		return true
	}
	c.until("all are fresh", allFresh)
	c.put("k", "1")
	away := c.leader(0).id%3 + 1
	c.end(away)
	n := c.start(away)
	c.until("all are fresh after a start", allFresh)
	c.isolate(away, true)
	cut := c.clock.Boot()
	c.put("k", "2")
	written := c.clock.Boot()
	c.pass(fresh)
	if got := local(n, "k"); got != "1" {
		t.Fatalf("the replica that hears nothing has %q", got)
	}
	least := time.Duration(c.clock.Boot() - written)
	if got := age(n); got < least || got > time.Duration(c.clock.Boot()-cut)+fresh {
		t.Errorf("%v old; the row was written %v ago", got, least)
	}
	c.isolate(away, false)
	c.until("all are fresh again", func() bool { return allFresh() && local(n, "k") == "2" })
}

// TestBehind: a voter that is not known to have what was acknowledged some seconds ago says
// so, and the cluster is not healthy then, although all nodes are up.
func TestBehind(t *testing.T) {
	c := newCluster(t, 3, 1)
	c.until("leaders", c.led)
	n := c.leader(0)
	healthy := func() bool {
		h := n.ClusterStatus().Health
		return h.State == command.Healthy && len(h.Moving) == 0
	}
	c.until("the cluster is healthy", healthy)
	follower := c.nodes[n.id%3+1]
	for _, edge := range []struct {
		age    time.Duration
		behind bool
	}{{behindAfter, false}, {behindAfter + 1, true}} {
		follower.views[0].Fresh.Store(c.clock.Boot() - int64(edge.age))
		if got := follower.report(0, follower.cmap.Load()).Behind; got != edge.behind {
			t.Errorf("%v old: behind %v", edge.age, got)
		}
	}
	if n.report(0, n.cmap.Load()).Behind {
		t.Error("the leader is behind")
	}
	follower.sendReports()
	c.settle()
	if h := n.ClusterStatus().Health; h.State != command.Degraded || !slices.Equal(h.Behind, []int{0}) || !slices.Equal(h.UnderReplicated, []int{0}) || h.FailuresTolerated != 0 {
		t.Errorf("%+v", h)
	}
	c.until("the cluster is healthy again", healthy)
}
