package testcluster

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/proa-kv/proa/command"
)

func TestClusterLifeCycle(t *testing.T) {
	c := fakeCluster(t, ClusterConfig{Shards: 3, Settings: []string{"log.level=debug"}})
	c.Start()
	leaders := c.AwaitLeaders()
	for shard, want := range map[int]int{command.MetaShard: 1, 0: 2, 1: 2, 2: 1} {
		if got := c.ID(leaders[shard]); got != want {
			t.Errorf("shard %d is led by %d, want %d", shard, got, want)
		}
	}
	if got := c.ID(leaders.Most()); got != 2 {
		t.Errorf("node %d leads most shards, want 2", got)
	}
	for _, want := range []string{"--node-id 3", "--shards 3", "--set log.level=debug", "--join " + strings.Join(c.peers, ",")} {
		if log := c.Node(3).Log(); !strings.Contains(log, want) {
			t.Errorf("the server was not given %q but %s", want, log)
		}
	}
	for _, pair := range [][2]int{{1, 2}, {2, 1}, {3, 1}} {
		awaitCalls(t, c, pair[0], pair[1], 5)
	}

	c.Node(3).Pause()
	if c.Node(3).Running() || len(c.running()) != 2 {
		t.Error("a paused server counts as running")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Node(3).Status(ctx); err == nil {
		t.Error("a paused server answers")
	}
	c.Node(3).Resume()
	awaitCalls(t, c, 3, 1, 5)

	pid := c.Node(1).PID()
	c.Node(1).Restart()
	if c.Node(1).PID() == pid {
		t.Error("Restart kept the process")
	}
	awaitCalls(t, c, 2, 1, 5)
	c.Node(2).Pause()
	c.Node(2).Kill()
	if c.Node(2).PID() != 0 || c.Node(2).Running() {
		t.Error("a killed server counts as running")
	}
	c.Start()

	c.Admin(command.AdminMemberAdd, command.MemberArgs{Node: 4})
	c.AwaitStatus(c.Node(1), "node 4 to be expected", func(s *command.ClusterStatus) bool {
		for _, n := range s.Nodes {
			if n.ID == 4 {
				return true
			}
		}
		return false
	})
}

// A claim counts only with the highest term, and a shard that nobody claims has
// no leader.
func TestClaims(t *testing.T) {
	old, current := &Node{}, &Node{}
	claims := map[int]claim{}
	status := func(asked, leader, term uint64) *command.ClusterStatus {
		return &command.ClusterStatus{Asked: asked, Shards: []command.ShardInfo{{Shard: 0, Leader: leader, Term: term}}}
	}
	addClaims(claims, old, status(1, 2, 9)) // hearsay
	if claims[0].node != nil {
		t.Error("what a server says of another counts")
	}
	addClaims(claims, current, status(2, 2, 8))
	addClaims(claims, old, status(1, 1, 7))
	if claims[0].node != current {
		t.Error("an older term won")
	}
	addClaims(claims, old, status(1, 0, 9))
	if claims[0].node != current {
		t.Error("no leader counts as a leader")
	}
}

func TestLinks(t *testing.T) {
	c := fakeCluster(t, ClusterConfig{Proxied: true})
	c.Start()
	for _, pair := range [][2]int{{1, 2}, {2, 1}, {3, 2}} {
		awaitCalls(t, c, pair[0], pair[1], 5)
	}

	// One way only.
	c.Link(c.Node(1), c.Node(2)).Cut()
	awaitSilence(t, c, 1, 2, 3, 2)
	awaitCalls(t, c, 2, 1, 5)
	// What was sent meanwhile arrives.
	c.Heal()
	awaitCalls(t, c, 1, 2, 100)

	c.Isolate(c.Node(3))
	awaitSilence(t, c, 3, 1, 1, 2)
	awaitSilence(t, c, 1, 3, 1, 2)
	// A server that is restarted while it is cut off stays cut off.
	out := called(t, c, 3, 1)
	c.Node(3).Restart()
	awaitCalls(t, c, 1, 2, 200)
	if n := called(t, c, 3, 1) - out; n != 0 {
		t.Errorf("%d calls came from an isolated server after its restart", n)
	}
	c.Partition([]*Node{c.Node(1)}, []*Node{c.Node(2), c.Node(3)})
	awaitCalls(t, c, 2, 3, 5)
	c.Heal()
	awaitCalls(t, c, 3, 1, 5)
	awaitCalls(t, c, 1, 3, 5)
}

// What a link passes it passes no earlier than it should, and a change is
// noticed at once.
func TestLinkPass(t *testing.T) {
	l := newLink()
	never := make(chan struct{})
	if !l.pass(time.Now(), never) {
		t.Fatal("a whole link does not pass")
	}
	l.Delay(30 * time.Millisecond)
	sent := time.Now()
	if !l.pass(sent, never) || time.Since(sent) < 30*time.Millisecond {
		t.Error("passed early")
	}
	l.Delay(time.Hour)
	passed := make(chan bool)
	go func() { passed <- l.pass(time.Now(), never) }()
	l.Heal()
	if !<-passed {
		t.Error("healed, and did not pass")
	}
	l.Cut()
	done := make(chan struct{})
	go func() { passed <- l.pass(sent, done) }()
	close(done)
	if <-passed {
		t.Error("a cut link passed")
	}
}

// TestRealCluster has real servers fail over and come back.
func TestRealCluster(t *testing.T) {
	c := StartCluster(t, ClusterConfig{Shards: 2, Proxied: canIdentify})
	leaders := c.AwaitLeaders()
	if len(leaders) != 3 {
		t.Errorf("%d shards have leaders, want 2 and the meta group", len(leaders))
	}
	victim := leaders.Most()
	victim.Kill()
	for shard, n := range c.AwaitLeaders() {
		if n == victim {
			t.Errorf("shard %d is led by a server that was killed", shard)
		}
	}
	victim.Start()
	if canIdentify {
		cut := c.AwaitLeaders().Most()
		c.Isolate(cut)
		c.AwaitStatus(otherThan(c, cut), "the isolated server to lead nothing", func(s *command.ClusterStatus) bool {
			for _, sh := range s.Shards {
				if sh.Leader == 0 || sh.Leader == uint64(c.ID(cut)) {
					return false
				}
			}
			return len(s.Shards) == 3
		})
		c.Heal()
	}
	c.AwaitLeaders()
	for _, n := range c.Nodes() {
		n.Stop()
		n.Verify()
	}
}

func otherThan(c *Cluster, n *Node) *Node { return c.Node(c.ID(n)%len(c.Nodes()) + 1) }
