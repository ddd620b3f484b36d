package raftgroup

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup/placement"
)

// TestHealthOfGrowingCluster: a node that has always been alone is short of
// nothing. As soon as there is another one, shards that have fewer voters than
// they shall have are under-replicated, although each has a leader.
func TestHealthOfGrowingCluster(t *testing.T) { slowlyOnEngines(t, testHealthOfGrowingCluster) }

func testHealthOfGrowingCluster(t *testing.T, e placement.Engine) {
	c := newClusterOf(t, e, 1, 2)
	c.until("leaders", c.led)
	await := func(when string, want command.Health) {
		t.Helper()
		c.until(when, func() bool { return cmp.Equal(&want, c.nodes[1].ClusterStatus().Health) })
	}
	await("a node alone", command.Health{State: command.Healthy, NextFailure: command.NextFailure{Shards: 3, Nodes: []uint64{1}}})
	all := []int{command.MetaShard, 0, 1}
	c.join(2)
	c.until("copies on both", func() bool { return c.settled(2) })
	await("one voter and a learner", command.Health{State: command.Degraded, NextFailure: command.NextFailure{Shards: 3, Nodes: []uint64{1}}, UnderReplicated: all})
	c.join(3)
	c.until("copies on all", func() bool { return c.settled(3) })
	await("three voters", command.Health{State: command.Healthy, FailuresTolerated: 1})
	c.isolate(3, true)
	c.pass(11 * time.Second)
	await("without the third", command.Health{State: command.Degraded, NextFailure: command.NextFailure{Shards: 3, Nodes: []uint64{1, 2}}, UnderReplicated: all, Troubled: []uint64{3}})
	if diff := cmp.Diff(&command.Replacement{Shards: 2, InMillis: -1}, replacementOf(c.nodes[1], 3)); diff != "" {
		t.Error("no node is free for its replicas: ", diff)
	}
}

// TestReplacement: the time that is told until a lost node's replicas are rebuilt
// is that after which they are.
func TestReplacement(t *testing.T) {
	const after = 30 * time.Second
	c := newCluster(t, 4, 4)
	for _, n := range c.nodes {
		n.opt.ReplaceAfter = after
	}
	c.until("leaders", c.led)
	c.until("all voters", func() bool { return c.nodes[1].ClusterStatus().Health.State == command.Healthy })
	if r := replacementOf(c.nodes[1], 4); r != nil {
		t.Errorf("of a node that is up: %+v", r)
	}
	c.isolate(4, true)
	now := func() int64 { return int64(c.clock.ms.Load()) }
	lost := now()
	c.pass(12 * time.Second)
	r := replacementOf(c.nodes[1], 4)
	if r == nil || r.Shards != 3 || r.Rebuildable != 3 {
		t.Fatalf("%+v", r)
	}
	due := now() + r.InMillis
	if d := time.Duration(due-lost) * time.Millisecond; d < after-2*time.Second || d > after+2*time.Second {
		t.Errorf("to be rebuilt %v after the loss, want %v", d, after)
	}
	c.pass(time.Duration(due-now())*time.Millisecond - 2*time.Second)
	if r := replacementOf(c.nodes[1], 4); r.Shards != 3 || r.InMillis <= 0 || r.InMillis > 3000 {
		t.Errorf("shortly before: %+v", r)
	}
	c.until("replicas elsewhere", func() bool { return replacementOf(c.nodes[1], 4).Shards == 0 })
	if d := time.Duration(now()-due) * time.Millisecond; d < -2*time.Second {
		t.Errorf("rebuilt %v early", -d)
	}
}

// replacementOf returns what a node tells of the replicas of another one.
func replacementOf(n *Node, id uint64) *command.Replacement {
	s := n.ClusterStatus()
	return s.Node(id).Replace
}
