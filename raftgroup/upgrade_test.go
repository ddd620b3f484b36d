package raftgroup

import (
	"errors"
	"slices"
	"testing"

	"github.com/proa-kv/proa/command"
)

// While a member's key is not known, it may be of a version that would take the
// latest additions to commands for something else.
func TestCommandsForEarlierVersions(t *testing.T) {
	c := newCluster(t, 3, 1)
	c.until("leaders", c.led)
	n := c.nodes[1]
	c.until("a map", func() bool { return n.cmap.Load().Begun() })
	for _, x := range c.nodes {
		if x.etcd().groups[0].Leads.Load() {
			n = x
		}
	}
	if !n.state.is(upgraded) {
		t.Error("the keys of all members are known, and it is not said so")
	}
	m := *n.cmap.Load()
	m.Nodes = slices.Clone(m.Nodes)
	m.Nodes[2].Key = nil
	n.state.put(upgraded, n.knowsKeys(&m))

	done := &hearing{}
	watch := command.Command{Kind: command.Watch, Key: []byte("k")}
	if err := n.Propose(0, &watch, done, command.Tag{}); !errors.Is(err, command.ErrEarlierVersion) {
		t.Errorf("a WATCH: %v", err)
	}
	txn := command.Command{Kind: command.Txn, Flags: command.Whole, Ops: []command.Command{{Kind: command.Get, Key: []byte("k")}}}
	must(t, n.Propose(0, &txn, done, command.Tag{}))
	r, err := command.NewReader(slices.Clone(n.etcd().groups[0].queue.open.data))
	must(t, err)
	r.Count = 1 // it is not sealed yet
	var got command.Command
	if _, err := r.Next(&got); err != nil || got.Flags&command.Whole != 0 {
		t.Errorf("proposed with flags %#x, error %v", got.Flags, err)
	}
}
