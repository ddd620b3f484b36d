package raftgroup

import (
	"errors"
	"slices"
	"testing"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup/engine"
)

// While a member's key is not known, it may be of a version that would take the
// latest additions to commands for something else.
func TestCommandsForEarlierVersions(t *testing.T) {
	c := newCluster(t, 3, 1)
	c.until("leaders", c.led)
	n := c.nodes[1]
	c.until("a map", func() bool { return n.cmap.Load().Begun() })
	for _, x := range c.nodes {
		if x.views[0].Leads.Load() {
			n = x
		}
	}
	if !n.state.Is(engine.Upgraded) {
		t.Error("the keys of all members are known, and it is not said so")
	}
	m := *n.cmap.Load()
	m.Nodes = slices.Clone(m.Nodes)
	m.Nodes[2].Key = nil
	n.state.Put(engine.Upgraded, n.knowsKeys(&m))

	done := &hearing{}
	watch := command.Command{Kind: command.Watch, Key: []byte("k")}
	if err := n.Propose(0, &watch, done, command.Tag{}); !errors.Is(err, command.ErrEarlierVersion) {
		t.Errorf("a WATCH: %v", err)
	}
	txn := command.Command{Kind: command.Txn, Flags: command.Whole, Ops: []command.Command{{Kind: command.Get, Key: []byte("k")}}}
	heard := &proposalKeeper{Engine: n.engine}
	n.engine = heard
	if err := n.Propose(0, &txn, done, command.Tag{}); err != nil || heard.flags&command.Whole != 0 {
		t.Errorf("proposed with flags %#x, error %v", heard.flags, err)
	}
	n.engine = heard.Engine
}

// proposalKeeper keeps the flags of the last command proposed.
type proposalKeeper struct {
	engine.Engine
	flags command.Flags
}

func (k *proposalKeeper) Propose(shard int, c *command.Command, done command.Completer, tag command.Tag) error {
	k.flags = c.Flags
	return k.Engine.Propose(shard, c, done, tag)
}
