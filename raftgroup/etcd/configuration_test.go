package etcd

import (
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/proa-kv/proa/raftgroup/engine"
)

// TestConfChange: Raft gets of changes what they say, and the log the same text of both.
func TestConfChange(t *testing.T) {
	c := engine.Changes{{Replica: r1, To: engine.Voter}, {Replica: r2, To: engine.Learner}, {Replica: r3, To: engine.Removed}}
	cc := confChange(c)
	if want := raftpb.ConfChangesToString(cc.Changes); c.String() != want || len(cc.Changes) != len(c) {
		t.Errorf("%q became %q", c, want)
	}
	if _, joint := cc.EnterJoint(); !joint {
		t.Error("several changes at once are not joint")
	}
	cc = confChange(c[:1])
	if _, joint := cc.EnterJoint(); joint {
		t.Error("a single change is joint")
	}
}
