package raftgroup

import (
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/tracker"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup/placement"
)

// transfer is a leadership on its way to another replica. Commands stay in the
// queue until it is done, and what was proposed before is carried out first,
// so that nothing that was begun here ends without an outcome.
type transfer struct {
	to    uint64 // replica; 0: none under way
	until uint64 // tick at which it is given up
	asked bool   // Raft has been asked to
}

// holds reports whether commands have to wait.
func (t *transfer) holds() bool { return t.to != 0 }

// beginTransfer starts to hand the leadership over to a replica.
func (g *group) beginTransfer(n *Node, to uint64) {
	if g.state != raft.StateLeader || g.transfer.holds() || to == g.id {
		return
	}
	g.logger.Debug("leadership transfer begins", "to", placement.NodeOf(to))
	g.voidLease()
	g.transfer = transfer{to: to, until: n.ticks + uint64(n.electionTicks)}
	g.continueTransfer(n)
}

// continueTransfer takes the next step of a transfer, if one is under way.
func (g *group) continueTransfer(n *Node) {
	t := &g.transfer
	switch {
	case !t.holds():
	case n.ticks >= t.until:
		g.logger.Debug("leadership transfer failed", "to", placement.NodeOf(t.to))
		*t = transfer{}
		g.requeue(n)
	case !t.asked && (len(g.inflight) == 0 || n.state.is(slow)):
		t.asked = true
		g.node.TransferLeader(t.to)
	}
}

// requeue has the next pass look at commands that a transfer has held up: the
// group is off the node's list, and who adds a command takes it to be on it.
func (g *group) requeue(n *Node) {
	if g.queue.isListed() {
		n.schedule.addCommands(g)
	}
}

// successors returns the voters that could lead at once: they are caught up, and
// their state is not damaged.
func (g *group) successors(n *Node) (voters []uint64) {
	g.node.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) {
		if id != g.id && !pr.IsLearner && pr.State == tracker.StateReplicate && isVoter(&g.conf, id) && !n.known.damagedAt(g.shard, placement.NodeOf(id), id) {
			voters = append(voters, id)
		}
	})
	return voters
}

// candidates is what is known of the nodes of replicas that could lead.
func (co *controller) candidates(successors []uint64) map[uint64]placement.Candidate {
	nodes := make(map[uint64]placement.Candidate)
	for _, replica := range successors {
		node := placement.NodeOf(replica)
		leaders, able := co.mayLead(node, false)
		_, well := co.mayLead(node, true)
		nodes[node] = placement.Candidate{Leaders: leaders, Able: able == "", Well: well == ""}
	}
	return nodes
}

// removedSuccessor returns a voter that the map wants and whose node is to be
// removed from the cluster. Nobody hands over to such a node, but for a leader
// that the map does not want and that has nobody else: otherwise two nodes that
// are removed at a time, and each of which holds a shard up for the other, would
// never go.
func (g *group) removedSuccessor(n *Node, want *placement.Shard) uint64 {
	cm := n.cmap.Load()
	for _, r := range want.Replicas {
		row, ok := cm.Node(r.Node)
		if !ok || !row.Removing || r.Learner || r.ID() == g.id || !isVoter(&g.conf, r.ID()) || !g.caughtUp(n, r.ID()) {
			continue
		}
		if _, reason := n.known.mayLead(r.Node, n.clock.Boot(), false); reason == "" {
			return r.ID()
		}
	}
	return 0
}

// balance hands leaderships over: all of them where this node must lead nothing,
// those of damaged replicas, and those that a failed transfer has left without a
// lease for the rest of the term; where the configuration says so also those that
// the node has in excess.
func (co *controller) balance() { co.handOver(co.node.opt.BalanceLeaders) }

// handOver is balance; with spread it hands over what this node leads in excess
// whatever the configuration says.
func (co *controller) handOver(spread bool) {
	own := placement.Own{Leaves: co.goes(), Unwell: co.node.state.is(slow) || co.node.state.is(clockOff), Spread: spread}
	var led []placement.Led
	var successors []uint64
	for _, g := range co.node.groups {
		if g.state == raft.StateLeader {
			l := placement.Led{Shard: g.shard, MustGo: g.rounds.voided || g.broken.Load(), Busy: g.transfer.holds(), Successors: g.successors(co.node)}
			led, successors = append(led, l), append(successors, l.Successors...)
		}
	}
	for _, t := range placement.Handover(led, co.candidates(successors), own) {
		co.node.groups[t.Shard].beginTransfer(co.node, t.To)
		if t.Spread {
			co.node.known.countLeader(placement.NodeOf(t.To)) // until its next report says so
		}
	}
}

// goes reports whether this node is on its way out and must lead nothing.
func (co *controller) goes() bool {
	if co.node.state.is(leaving) {
		return true
	}
	m := co.node.cmap.Load()
	row, _ := m.Node(co.node.id)
	return row.Draining || row.Removing
}

// mayLead returns how many shards another node leads. Where it may not be given
// more, reason says why; without well, a stalling disk or a clock that is off is
// no reason.
func (co *controller) mayLead(node uint64, well bool) (leaders int, reason string) {
	if reason := co.barredByMap(node); reason != "" {
		return 0, reason
	}
	return co.node.known.mayLead(node, co.node.clock.Boot(), well)
}

// barredByMap returns why the map has a node lead nothing, "" if it may. A node
// that could not read the map, because it is damaged, has nothing against others: only
// they can give it a copy.
func (co *controller) barredByMap(node uint64) string {
	m := co.node.cmap.Load()
	if !m.Begun() && co.node.groups[co.node.meta()].broken.Load() {
		return ""
	}
	switch row, ok := m.Node(node); {
	case !ok:
		return "it is not a member"
	case row.Removing:
		return "it is being removed"
	case row.Draining:
		return "it is being drained"
	}
	return ""
}

// leadsNone reports whether this node leads no group any more.
func (co *controller) leadsNone() bool {
	for _, g := range co.node.groups {
		if g.leads.Load() {
			return false
		}
	}
	return true
}

// canHandOver reports whether another node could lead some of the shards that
// this one leads.
func (co *controller) canHandOver() bool {
	m := co.node.cmap.Load()
	for _, g := range co.node.groups {
		if !g.leads.Load() || !m.Begun() {
			continue
		}
		for _, r := range m.Shards[g.shard].Replicas {
			if r.Node == co.node.id || r.Learner {
				continue
			}
			if _, why := co.mayLead(r.Node, false); why == "" {
				return true
			}
		}
	}
	return false
}

// requestTransfer asks the pass to hand a shard's leadership to a node.
func (co *controller) requestTransfer(shard int, node uint64) error {
	g := co.node.groups[shard]
	if !g.leads.Load() {
		return command.ErrNotLeader
	}
	co.node.post(func() {
		for _, id := range confMembers(&g.conf) {
			if placement.NodeOf(id) == node && isVoter(&g.conf, id) {
				g.beginTransfer(co.node, id)
			}
		}
	})
	return nil
}
