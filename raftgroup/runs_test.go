package raftgroup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup/call"
	"github.com/proa-kv/proa/raftgroup/datadir"
	"github.com/proa-kv/proa/raftgroup/engine"
	"github.com/proa-kv/proa/raftgroup/placement"
)

// proven is what a node shows in a handshake with another that knows its key.
func proven(n *Node) PeerIdentity {
	p := n.Self()
	copy(p.Key[:], n.dir.Key.Public())
	p.Signed, p.Token = true, true
	return p
}

// meet has every node let in every other.
func (c *cluster) meet() {
	c.t.Helper()
	for _, a := range c.nodes {
		for _, b := range c.nodes {
			if a != b {
				must(c.t.(*testing.T), a.Admit(proven(b)))
			}
		}
	}
}

// end closes a node; its disk is what it left.
func (c *cluster) end(id uint64) {
	c.t.Helper()
	closeNode(c.t, c.nodes[id])
	c.take(id)
}

// copyOf returns a copy of a disk.
func copyOf(t *testing.T, from *vfs.MemFS) *vfs.MemFS {
	t.Helper()
	to := vfs.NewMem()
	if ok, err := vfs.Clone(from, to, dir, dir); err != nil || !ok {
		t.Fatal(ok, err)
	}
	return to
}

// A node that comes back with an older directory is refused by everybody who
// has heard of it since, also after their own restart.
func TestOldCopyIsRefused(t *testing.T) { onEngines(t, testOldCopyIsRefused) }

func testOldCopyIsRefused(t *testing.T, e placement.Engine) {
	c := newClusterOf(t, e, 3, 2)
	c.until("leaders", c.led)
	c.meet()
	c.end(3)
	old := copyOf(t, c.disks[3])
	c.start(3)
	c.meet()
	c.until("leaders", c.led)
	for i := range 20 {
		c.put(fmt.Sprint("k", i), "v")
	}
	c.pass(2 * reportEvery)
	running := copyOf(t, c.disks[3]) // of a running node; complete up to here
	for i := range 20 {
		c.put(fmt.Sprint("k", i), "w")
	}
	c.pass(2 * reportEvery)
	c.end(3)
	present := c.disks[3]

	for name, disk := range map[string]*vfs.MemFS{"of before the last start": old, "made while it ran": running} {
		c.disks[3] = disk
		n := c.start(3)
		for _, id := range []uint64{1, 2} {
			if err := c.nodes[id].Admit(proven(n)); !errors.Is(err, datadir.ErrRolledBack) || !strings.Contains(err.Error(), "erase it") {
				t.Errorf("a copy %s is let in by node %d: %v", name, id, err)
			}
		}
		c.end(3)
	}
	// Node 1 remembers it over a restart of its own.
	c.end(1)
	c.start(1)
	c.disks[3] = running
	n := c.start(3)
	if err := c.nodes[1].Admit(proven(n)); !errors.Is(err, datadir.ErrRolledBack) {
		t.Errorf("after a restart: %v", err)
	}
	// Told so, the node stops, and its directory is marked.
	refusal := proven(c.nodes[1])
	stranger := refusal
	stranger.Key[0] ^= 1
	n.Refused(stranger, RefusedOlder, "no")
	if n.state.Is(engine.Failed) {
		t.Error("stopped by a stranger's word")
	}
	n.Refused(refusal, RefusedOlder, "this directory is older")
	if err := <-n.Failure(); !errors.Is(err, datadir.ErrRolledBack) {
		t.Error(err)
	}
	c.end(3)
	if _, err := openMem(running, Options{ID: 3, Clock: c.clock}); !errors.Is(err, datadir.ErrRolledBack) {
		t.Errorf("the marked directory is opened again: %v", err)
	}
	if err := datadir.Verify(running, dir, func(string) {}); !errors.Is(err, datadir.ErrRolledBack) {
		t.Errorf("Verify of the marked directory: %v", err)
	}
	forgetful, said := copyOf(t, running), ""
	must(t, forgetful.Remove(dir+"/"+datadir.RunsFile))
	_ = datadir.Verify(forgetful, dir, func(s string) { said += s })
	if !strings.Contains(said, "there is no "+datadir.RunsFile) {
		t.Errorf("Verify without it: %s", said)
	}
	_, err := datadir.Recover(datadir.RecoverOptions{Dir: dir, FS: running})
	must(t, err)
	closeNode(t, memNode(t, running, Options{Clock: c.clock})) // alone, since nothing newer is left

	c.disks[3] = present
	c.start(3)
	if err := c.nodes[1].Admit(proven(c.nodes[3])); err != nil {
		t.Errorf("the present directory is refused: %v", err)
	}
}

// TestRemovedNodeEnds: a node that was removed, while it ran or while it was down,
// learns it from any member, ends, and does not start again; a stranger's word
// counts nothing. It is not refused for good by a cluster that was recovered
// without it.
func TestRemovedNodeEnds(t *testing.T) { slowlyOnEngines(t, testRemovedNodeEnds) }

func testRemovedNodeEnds(t *testing.T, e placement.Engine) {
	c := newClusterOf(t, e, 5, 1)
	c.until("leaders", c.led)
	c.until("a map", func() bool { return c.nodes[1].cmap.Load().Begun() })
	c.meet()
	remove := func(id uint64) {
		t.Helper()
		err := command.ErrNotLeader
		for errors.Is(err, command.ErrNotLeader) { // the leadership may be on its way
			done := make(chan struct{})
			go func() {
				defer close(done)
				_, err = c.nodes[1].Admin(context.Background(), command.AdminMemberRemove, fmt.Appendf(nil, `{"node":%d,"force":true}`, id))
			}()
			c.drive(done)
		}
		must(t, err)
		c.until("its end", func() bool { row, _ := c.nodes[1].cmap.Load().Node(id); return row.Removed })
	}
	remove(5)
	for verb, want := range map[string]string{
		command.AdminMemberRemove: "node 5 has been removed already",
		command.AdminMemberDrain:  "start it again as a new node, without --node-id",
		command.AdminMemberAdd:    "give the new node another number",
	} {
		err := command.ErrNotLeader
		for errors.Is(err, command.ErrNotLeader) {
			done := make(chan struct{})
			go func() {
				defer close(done)
				_, err = c.nodes[1].Admin(context.Background(), verb, []byte(`{"node":5}`))
			}()
			c.drive(done)
		}
		if !errors.Is(err, command.ErrRefused) || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%s of a removed node: %v", verb, err)
		}
	}
	running := c.nodes[5]
	c.end(4)
	c.pass(placement.DownAfter + time.Second)
	remove(4)
	for _, n := range []*Node{running, c.start(4)} {
		err := c.nodes[1].Admit(proven(n))
		if !errors.Is(err, datadir.ErrRemoved) || !strings.Contains(err.Error(), "erase its data directory") {
			t.Errorf("node %d is let in: %v", n.id, err)
		}
		stranger := proven(c.nodes[1])
		stranger.Key[0] ^= 1
		n.Refused(stranger, RefusedRemoved, "no")
		if n.state.Is(engine.Failed) {
			t.Errorf("node %d: ended by a stranger's word", n.id)
		}
		n.Refused(proven(c.nodes[1]), RefusedRemoved, "no")
		want := fmt.Sprintf("node %d was removed from the cluster; erase its data directory %s and start it again, without --node-id, to join as a new node", n.id, dir)
		if err := <-n.Failure(); !errors.Is(err, datadir.ErrRemoved) || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
		c.end(n.id)
		if _, err := openMem(c.disks[n.id], Options{ID: n.id, Clock: c.clock}); err == nil || err.Error() != want {
			t.Errorf("node %d starts again: %v", n.id, err)
		}
		if err := datadir.Verify(c.disks[n.id], dir, func(string) {}); !errors.Is(err, datadir.ErrRemoved) {
			t.Errorf("Verify: %v", err)
		}
	}
	recovered := c.nodes[1]
	recovered.dir.Lost = []uint64{5}
	if err := recovered.Recognize(PeerIdentity{Cluster: recovered.dir.Cluster, Node: 5}); err == nil || errors.Is(err, datadir.ErrRemoved) {
		t.Errorf("by a cluster that was recovered without it: %v", err)
	}
}

// A node that the cluster was recovered without says so in its status, and goes
// on: others of the old cluster may count on it. A stranger is not believed.
func TestLeftOutNodeSaysSo(t *testing.T) { onEngines(t, testLeftOutNodeSaysSo) }

func testLeftOutNodeSaysSo(t *testing.T, e placement.Engine) {
	c := newClusterOf(t, e, 3, 1)
	c.until("leaders", c.led)
	c.meet()
	recovered, n := c.nodes[1], c.nodes[2]
	recovered.dir.Lost = []uint64{2}
	if err := recovered.Recognize(proven(n)); !errors.Is(err, datadir.ErrLeftOut) || !strings.Contains(err.Error(), "without --node-id") {
		t.Errorf("the refusal: %v", err)
	}
	stranger := proven(recovered)
	stranger.Signed = false
	n.Refused(stranger, RefusedLeftOut, "no")
	if s := n.ClusterStatus(); s.LeftOutBy != 0 {
		t.Errorf("a stranger is believed: left out by node %d", s.LeftOutBy)
	}
	n.Refused(proven(recovered), RefusedLeftOut, "no")
	if s := n.ClusterStatus(); s.LeftOutBy != 1 {
		t.Errorf("left out by node %d, want 1", s.LeftOutBy)
	}
	select {
	case err := <-n.Failure():
		t.Errorf("the node ends: %v", err)
	default:
	}
}

// The meta group remembers the last run of a node for those that have no memory
// of it.
func TestMetaGroupRemembersRuns(t *testing.T) { onEngines(t, testMetaGroupRemembersRuns) }

func testMetaGroupRemembersRuns(t *testing.T, e placement.Engine) {
	c := newClusterOf(t, e, 3, 1)
	c.until("leaders", c.led)
	c.meet()
	c.end(3)
	old := copyOf(t, c.disks[3])
	c.start(3)
	c.meet()
	run := c.nodes[3].run
	c.until("the row to tell of the run", func() bool {
		row, ok := c.nodes[1].cmap.Load().Node(3)
		return ok && row.Run == run
	})
	c.end(3)
	c.end(1)
	must(t, c.disks[1].Remove(c.disks[1].PathJoin(dir, datadir.RunsFile)))
	c.start(1)
	c.disks[3] = old
	n := c.start(3)
	if err := c.nodes[1].Admit(proven(n)); !errors.Is(err, datadir.ErrRolledBack) {
		t.Errorf("let in: %v", err)
	}
}

// What a removed member says of others counts no more, though it has its key.
func TestRemovedMemberStopsNobody(t *testing.T) { onEngines(t, testRemovedMemberStopsNobody) }

func testRemovedMemberStopsNobody(t *testing.T, e placement.Engine) {
	c := newClusterOf(t, e, 3, 1)
	c.until("leaders", c.led)
	n := c.nodes[1]
	c.until("a map", func() bool { return n.cmap.Load().Begun() })
	m := *n.cmap.Load()
	m.Nodes = slices.Clone(m.Nodes)
	m.Nodes[1].Removed = true
	n.cmap.Store(&m)
	n.Refused(proven(c.nodes[2]), RefusedOlder, "this directory is older")
	if n.state.Is(engine.Failed) {
		t.Error("stopped")
	}
}

// A node that is told for long that it runs already stops.
func TestTwinStops(t *testing.T) { onEngines(t, testTwinStops) }

func testTwinStops(t *testing.T, e placement.Engine) {
	c := newClusterOf(t, e, 3, 1)
	c.until("leaders", c.led)
	n, by := c.nodes[1], proven(c.nodes[2])
	now := c.clock.ms.Swap(12_000) // since the machine has started
	n.Refused(by, RefusedTwin, "node 1 is already running")
	if n.state.Is(engine.Failed) {
		t.Fatal("stopped by the first refusal after the machine's start")
	}
	c.clock.ms.Store(now)
	n.Refused(by, RefusedTwin, "node 1 is already running")
	if n.state.Is(engine.Failed) {
		t.Fatal("stopped at once: it may be a remnant")
	}
	c.clock.ms.Add(uint64(time.Minute.Milliseconds()))
	n.Refused(by, RefusedTwin, "node 1 is already running")
	if n.state.Is(engine.Failed) {
		t.Fatal("stopped by two refusals with a minute between them")
	}
	for range 4 {
		c.clock.ms.Add(uint64((4 * time.Second).Milliseconds()))
		n.Refused(by, RefusedTwin, "node 1 is already running")
	}
	select {
	case err := <-n.Failure():
		if !errors.Is(err, ErrTwin) {
			t.Error(err)
		}
	default:
		t.Error("the node goes on")
	}
}

func TestAdmission(t *testing.T) { onEngines(t, testAdmission) }

func testAdmission(t *testing.T, e placement.Engine) {
	c := newClusterOf(t, e, 3, 1)
	n := c.nodes[1]
	founder := proven(c.nodes[2])
	stranger := PeerIdentity{Cluster: founder.Cluster, Node: 9, UID: 99, Peer: "elsewhere", Signed: true}
	if err := n.Admit(founder); err != nil {
		t.Errorf("a founder is refused before there is a map: %v", err)
	}
	if err := n.Admit(stranger); err == nil {
		t.Error("a node that is no founder is let in before there is a map")
	}
	c.until("leaders", c.led)
	c.until("a map", func() bool { return n.cmap.Load().Begun() })
	knows := stranger
	knows.Token = true
	unsigned, other, moved := founder, founder, founder
	unsigned.Signed = false
	other.Key[0] ^= 1
	moved.Peer = "elsewhere"
	imposter := unsigned
	imposter.Peer = "elsewhere"
	for _, tt := range []struct {
		name string
		p    PeerIdentity
		want string // "": admitted
	}{
		{"a member", founder, ""},
		{"a member without proof", unsigned, "has not proven it"},
		{"a member with another key", other, "has not proven it"},
		{"a member without proof, elsewhere", imposter, "has not proven it"},
		{"a stranger", stranger, "have the cluster's join token"},
		{"a stranger with the token", knows, ""},
		{"a member, elsewhere", moved, ""},
	} {
		err := n.Admit(tt.p)
		if (err == nil) != (tt.want == "") || err != nil && (!errors.Is(err, command.ErrRefused) || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
		row, _ := n.cmap.Load().Node(2)
		if got, want := n.peerAddress(&row), row.Peer; got != want && tt.name != "a member, elsewhere" {
			t.Errorf("%s: node 2 is now sought at %s", tt.name, got)
		}
	}
	row, _ := n.cmap.Load().Node(2)
	if got := n.peerAddress(&row); got != "elsewhere" {
		t.Errorf("a member that has moved is sought at %s", got)
	}
}

func TestJoiningTakesTheToken(t *testing.T) { onEngines(t, testJoiningTakesTheToken) }

func testJoiningTakesTheToken(t *testing.T, e placement.Engine) {
	c := newClusterOf(t, e, 1, 1)
	c.until("leaders", c.led)
	c.until("a map", func() bool { return c.nodes[1].cmap.Load().Begun() })
	n := c.nodes[1]
	if token := n.JoinToken(); token != "" || n.tokenless() {
		t.Fatalf("before anybody has asked for one the token is %q", token)
	}
	b, err := n.CallStranger(t.Context(), false, call.Join, fmt.Appendf(nil, `{"uid":"5","peer":"n9","engine":%q}`, string(e)))
	must(t, err)
	if _, err := call.Unpack(b); !errors.Is(err, command.ErrRefused) || !strings.Contains(err.Error(), "proa member token") {
		t.Errorf("without the token: %v", err)
	}
	if _, err := n.CallStranger(t.Context(), true, call.Admin, nil); !errors.Is(err, command.ErrRefused) {
		t.Errorf("a stranger administers: %v", err)
	}
	if _, ok := n.cmap.Load().Node(2); ok {
		t.Error("the stranger is a member")
	}
}

// TestTokenEnds: a join token is good for as long as was asked for, and no longer.
func TestTokenEnds(t *testing.T) {
	c := newCluster(t, 1, 1)
	c.until("leaders", c.led)
	c.until("a map", func() bool { return c.nodes[1].cmap.Load().Begun() })
	n := c.nodes[1]
	ends := func() uint64 { return n.cmap.Load().Cluster.TokenEnds }
	// ask asks for a token that ends in ttl at the earliest; anew: it is put off or made anew.
	ask := func(when, args string, ttl time.Duration, anew bool) (j command.JoinToken) {
		t.Helper()
		asked, before := n.NowMillis(), ends()
		b, err := c.admin(command.AdminMemberToken, args)
		must(t, err)
		must(t, json.Unmarshal(b, &j))
		earliest, latest := asked+uint64(ttl.Milliseconds()), n.NowMillis()+uint64(ttl.Milliseconds())
		switch {
		case anew && (ends() < earliest || ends() > latest):
			t.Errorf("%s: it ends at %d, want %d to %d", when, ends(), earliest, latest)
		case !anew && (ends() != before || before < earliest):
			t.Errorf("%s: it ends at %d, and before at %d", when, ends(), before)
		}
		if j.Token != n.JoinToken() || j.ForMillis == 0 || asked+j.ForMillis > ends() {
			t.Errorf("%s: %+v at %d, which ends at %d, and nodes must know %q", when, j, asked, ends(), n.JoinToken())
		}
		return j
	}
	first := ask("at first", "{}", time.Hour, true)
	if len(first.Token) < datadir.TokenBytesMin {
		t.Fatalf("token %q", first.Token)
	}
	c.pass(30 * time.Minute)
	same := ask("for less than is left", `{"ttl_ms":60000}`, time.Minute, false)
	longer := ask("for more", `{"ttl_ms":7200000}`, 2*time.Hour, true)
	if same.Token != first.Token || longer.Token != first.Token {
		t.Error("a token that is valid has been replaced")
	}
	if row := n.cmap.Load().Cluster; row.JoinToken(ends()-1) != first.Token || row.JoinToken(ends()) != "" {
		t.Error("it does not end at its end")
	}
	c.pass(2 * time.Hour)
	if n.JoinToken() != "" || n.tokenless() {
		t.Errorf("it is valid after its end: %q", n.JoinToken())
	}
	second := ask("after the end", `{"ttl_ms":3600000}`, time.Hour, true)
	third := ask("a new one", `{"new":true}`, time.Hour, true)
	if second.Token == first.Token || third.Token == second.Token {
		t.Error("a token has come back")
	}
	if _, err := c.admin(command.AdminMemberToken, `{"revoke":true}`); err != nil || n.JoinToken() != "" {
		t.Errorf("revoked: %v, %q", err, n.JoinToken())
	}
	for _, args := range []string{`{"ttl_ms":59999}`, `{"ttl_ms":2592000001}`, `{"ttl_ms":18446744073709551615}`} {
		if _, err := c.admin(command.AdminMemberToken, args); !errors.Is(err, command.ErrInvalid) {
			t.Errorf("%s: %v", args, err)
		}
	}
	n.engine.Post(func() { // as an earlier version has left it
		must(t, n.proposeMeta(n.cmap.Load(), []placement.Change{placement.SetToken(n.cmap.Load(), "A TOKEN THAT NEVER ENDS", 0)}, make(metaWaiter, 1)))
	})
	c.until("a token without an end", func() bool { return n.JoinToken() == "A TOKEN THAT NEVER ENDS" })
	ask("in place of one without an end", "{}", time.Hour, true)
}
