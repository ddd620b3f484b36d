package test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/internal/testcluster"
	"github.com/proa-kv/proa/raftgroup"
)

// TestEnginesAgree plays the same operations, kills and restarts against a cluster of each
// Raft engine, and compares every reply and what is there in the end.
//
// There is one client. What it asks at the same time concerns different shards, each write
// belongs to a session, and whatever is not answered is sent again. So what came before
// determines each reply, wherever a kill fell, but for what player.render leaves out.
// Versions are compared as they are: a shard counts its changes, not its log entries. The
// faults are the same ones too, but which node leads is up to the engine; so they are aimed
// at "the leader of shard 2" or "another node".
//
// The checksum of a shard covers the stamp of the last entry, which is a time of day, so it
// differs between two clusters. It is compared between the replicas of each; between the
// clusters what else it covers is read: each shard's rows with their versions and expiry,
// its revision, and the results that its sessions keep.
func TestEnginesAgree(t *testing.T) {
	if os.Getenv("PROA_RAFT_ENGINE") != "" {
		t.Skip("the engine is chosen for all servers")
	}
	rng := seeded(t)
	for _, d := range []differential{
		{nodes: 1, steps: 180, shortSteps: 60, faults: oneNodeFaults},
		{nodes: 3, steps: 260, shortSteps: 50, faults: clusterFaults},
	} {
		d.seed = rng.Uint64()
		if testing.Short() {
			d.steps = d.shortSteps
		}
		t.Run(fmt.Sprintf("nodes=%d", d.nodes), d.run)
	}
}

// differential is one sequence for clusters of all engines.
type differential struct {
	nodes, steps, shortSteps int
	faults                   []blow
	seed                     uint64
}

func (d differential) run(t *testing.T) {
	transcripts := make([]transcript, len(raftgroup.Engines))
	t.Run("engine", func(t *testing.T) {
		for i, e := range raftgroup.Engines {
			t.Run(e.Name.String(), func(t *testing.T) {
				t.Parallel()
				d.play(t, e.Name.String(), &transcripts[i])
			})
		}
	})
	for i, e := range raftgroup.Engines {
		t.Logf("%s: %s", e.Name, transcripts[i].summary())
		if i > 0 {
			transcripts[0].compare(t, &transcripts[i], raftgroup.Engines[0].Name.String(), e.Name.String())
		}
	}
}

// play plays the sequence to a cluster of an engine.
func (d differential) play(t *testing.T, engine string, events *transcript) {
	c := testcluster.StartCluster(t, testcluster.ClusterConfig{
		Nodes: d.nodes, Shards: differentialShards, Settings: append([]string{"raft.engine=" + engine}, smallStores...),
	})
	p := newPlayer(t, c, d.seed, events)
	p.dealer.across = d.nodes > 1 || !slices.ContainsFunc(raftgroup.Engines, func(e raftgroup.Engine) bool { return e.Lacks[raftgroup.AcrossShards] != "" })
	p.perform(d)
	p.repeatAll()
	p.contents()
	checkEqual(t, c)
	killAll(c)
	p.contents()
	checkEqual(t, c)
	for _, n := range c.Nodes() {
		n.Stop()
	}
	for _, n := range c.Nodes() {
		n.Verify()
		events.snapshots += strings.Count(n.Log(), "snapshot installed")
	}
}

// perform plays operations and faults. Only one fault is there at a time, so that a
// majority always is. When it is over, the node that was struck is asked for what was
// written meanwhile.
func (p *player) perform(d differential) {
	rng := rand.New(rand.NewPCG(d.seed, 1)) // of the faults
	faults := deck[blow]{rng: rng, all: d.faults}
	next, back := rng.IntN(8), 0
	var victim *testcluster.Node // of the fault that is there
	var mend func()
	over := func() {
		if victim != nil {
			mend()
			p.turnTo(victim)
			p.ask(nil, p.dealer.allRows())
			victim = nil
		}
	}
	for step := range d.steps {
		if step >= min(back, next) {
			over()
		}
		requests := p.dealer.deal()
		if step < next {
			p.ask(nil, requests...)
			continue
		}
		f, inFlight, absence, pick := faults.next(), rng.IntN(3) > 0, rng.IntN(12), rng.IntN(8)
		next, back = step+5+rng.IntN(12), step+1+absence
		shard := max(requests[0].shard, 0)
		victim = p.victim(f.whom, shard, pick)
		strike := func() { mend = f.strike(p, shard, victim) }
		if inFlight = inFlight && !f.asks; inFlight {
			p.events.note("%s of shard %d, with requests in flight, for %d steps", f.name, shard, absence)
			p.ask(strike, requests...)
			continue
		}
		p.events.note("%s of shard %d, for %d steps", f.name, shard, absence)
		if f.asks {
			p.ask(nil, requests...) // what it asks acknowledges results that these may ask for
			strike()
			continue
		}
		strike()
		p.ask(nil, requests...)
	}
	over()
}

// blow is something that befalls a cluster.
type blow struct {
	name   string
	whom   role
	strike func(p *player, shard int, victim *testcluster.Node) (mend func())
	asks   bool // something, so no requests may be in flight
}

// role says whom a fault strikes: for each engine that may be another node.
type role uint8

const (
	leader role = iota
	follower
)

var oneNodeFaults = []blow{
	{"kill", leader, kill, false},
	{"stop", leader, stopInOrder, false},
	{"pause", leader, pause, false},
}

var clusterFaults = []blow{
	{"kill the leader", leader, kill, false},
	{"kill a follower", follower, kill, false},
	{"kill all", leader, killEach, false},
	{"stop the leader", leader, stopInOrder, false},
	{"pause the leader", leader, pause, false},
	{"pause a follower", follower, pause, false},
	{"transfer the leadership", follower, transfer, false},
	{"long absence of a follower", follower, leaveBehind, true},
}

// victim returns the node that has a role in a shard, one of several as pick says.
func (p *player) victim(whom role, shard, pick int) *testcluster.Node {
	nodes := p.c.Nodes()
	led := p.c.AwaitLeaders()[shard]
	if whom == leader {
		return led
	}
	others := slices.DeleteFunc(nodes, func(n *testcluster.Node) bool { return n == led })
	return others[pick%len(others)]
}

// back has a node run again, at once where the others are no majority.
func (p *player) back(again func()) func() {
	if len(p.c.Nodes()) == 1 {
		again()
		return func() {}
	}
	return again
}

func kill(p *player, _ int, n *testcluster.Node) func() {
	n.Kill()
	return p.back(n.Start)
}

func stopInOrder(p *player, _ int, n *testcluster.Node) func() {
	n.Stop()
	return p.back(n.Start)
}

func pause(p *player, _ int, n *testcluster.Node) func() {
	n.Pause()
	return p.back(n.Resume)
}

func killEach(p *player, _ int, _ *testcluster.Node) func() {
	killAll(p.c)
	return func() {}
}

func killAll(c *testcluster.Cluster) {
	for _, n := range c.Nodes() {
		n.Kill()
	}
	c.Start()
}

func transfer(p *player, shard int, n *testcluster.Node) func() {
	p.c.Admin(command.AdminTransfer, command.ShardArgs{Shard: shard, To: uint64(p.c.ID(n))})
	return func() {}
}

// leaveBehind writes so much while a node is down that its leader has cut its log, and
// the node gets a snapshot.
func leaveBehind(p *player, shard int, n *testcluster.Node) func() {
	n.Kill()
	if testing.Short() {
		return n.Start
	}
	for range 12 {
		p.ask(nil, p.dealer.bulk(shard))
	}
	return n.Start
}

// transcript is what a client has asked, what it was answered, and what befell the cluster.
type transcript struct {
	events    []event
	repeated  int // requests that were sent more than once
	snapshots int // that nodes have got
}

type event struct{ what, reply string }

func (tr *transcript) add(what, reply string, sent int) {
	tr.events = append(tr.events, event{what, reply})
	if sent > 1 {
		tr.repeated++
	}
}

func (tr *transcript) note(format string, args ...any) {
	tr.events = append(tr.events, event{what: "FAULT: " + fmt.Sprintf(format, args...)})
}

func (tr *transcript) summary() string {
	return fmt.Sprintf("%d events, %d requests sent more than once, %d snapshots", len(tr.events), tr.repeated, tr.snapshots)
}

// compare fails the test with the first difference and what came before. Where the test has
// failed already, one may have ended early.
func (tr *transcript) compare(t *testing.T, other *transcript, name, otherName string) {
	t.Helper()
	length := max(len(tr.events), len(other.events))
	if t.Failed() {
		length = min(len(tr.events), len(other.events))
	}
	for i := range length {
		a, b := tr.at(i), other.at(i)
		if a == b {
			continue
		}
		var before strings.Builder
		for _, e := range tr.events[max(0, min(i, len(tr.events))-20):min(i, len(tr.events))] {
			fmt.Fprintf(&before, "  %s\n    → %s\n", e.what, e.reply)
		}
		t.Fatalf("event %d differs:\n%s: %s\n    → %s\n%s: %s\n    → %s\nbefore:\n%s", i, name, a.what, a.reply, otherName, b.what, b.reply, before.String())
	}
}

func (tr *transcript) at(i int) event {
	if i < len(tr.events) {
		return tr.events[i]
	}
	return event{what: "nothing more"}
}

// deck deals all its cards in a random order, then again in another one.
type deck[T any] struct {
	rng  *rand.Rand
	all  []T
	left []T
}

func (d *deck[T]) next() T {
	if len(d.left) == 0 {
		d.left = slices.Clone(d.all)
		d.rng.Shuffle(len(d.left), func(i, j int) { d.left[i], d.left[j] = d.left[j], d.left[i] })
	}
	card := d.left[0]
	d.left = d.left[1:]
	return card
}
