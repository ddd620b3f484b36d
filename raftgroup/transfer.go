package raftgroup

import (
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/tracker"

	"github.com/proa-kv/proa/command"
)

// transfer is a leadership on its way to another replica. Commands stay in the
// queue until it is done, and what was proposed before is carried out first,
// so that nothing that was begun here ends without an outcome.
type transfer struct {
	to    uint64 // replica; 0: none under way
	until uint64 // tick at which it is given up
	told  bool   // Raft has been
}

// holds reports whether commands have to wait.
func (t *transfer) holds() bool { return t.to != 0 }

// beginTransfer starts to hand the leadership over to a replica.
func (g *group) beginTransfer(n *Node, to uint64) {
	if g.state != raft.StateLeader || g.transfer.holds() || to == g.id {
		return
	}
	g.logger.Debug("leadership transfer begins", "to", nodeOf(to))
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
		g.logger.Debug("leadership transfer failed", "to", nodeOf(t.to))
		*t = transfer{}
		g.requeue(n)
	case !t.told && (len(g.inflight) == 0 || n.slow.Load()):
		t.told = true
		g.node.TransferLeader(t.to)
	}
}

// requeue has the next pass look at commands that a transfer has held up: the
// group is off the node's list, and who adds a command takes it to be on it.
func (g *group) requeue(n *Node) {
	g.mu.Lock()
	queued := g.dirty
	g.mu.Unlock()
	if queued {
		n.markDirty(g)
	}
}

// bestSuccessor returns the voter that would make the best leader: one that is
// up, neither draining nor slow, and caught up; among those the one whose node
// leads least. It returns 0 if there is none.
func (g *group) bestSuccessor(n *Node) uint64 { return g.successor(n, true) }

// successor is bestSuccessor that, without well, also takes one whose disk
// stalls or whose clock is off.
func (g *group) successor(n *Node, well bool) uint64 {
	best, bestLeaders := uint64(0), 0
	g.node.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) {
		if id == g.id || pr.IsLearner || pr.State != tracker.StateReplicate || !isVoter(&g.conf, id) {
			return
		}
		leaders, reason := n.mayLead(nodeOf(id), well)
		if reason == "" && !n.known.damagedAt(g.shard, nodeOf(id), id) && (best == 0 || leaders < bestLeaders) {
			best, bestLeaders = id, leaders
		}
	})
	return best
}

// anySuccessor is bestSuccessor for a leader that has to go: where no voter is
// well, it is one whose disk stalls or whose clock is off.
func (g *group) anySuccessor(n *Node) uint64 {
	if to := g.bestSuccessor(n); to != 0 {
		return to
	}
	return g.successor(n, false)
}

// removedSuccessor returns a voter that the map wants and whose node is to be
// removed from the cluster. Nobody hands over to such a node, but for a leader
// that the map does not want and that has nobody else: otherwise two nodes that
// are removed at a time, and each of which holds a shard up for the other, would
// never go.
func (g *group) removedSuccessor(n *Node, want *shardRow) uint64 {
	cm := n.cmap.Load()
	for _, r := range want.Replicas {
		row, ok := cm.node(r.Node)
		if !ok || !row.Removing || r.Learner || r.id() == g.id || !isVoter(&g.conf, r.id()) || !g.caughtUp(n, r.id()) {
			continue
		}
		if _, reason := n.known.mayLead(r.Node, n.clock.Boot(), false); reason == "" {
			return r.id()
		}
	}
	return 0
}

// balance gives leaderships away: all of them where this node should lead
// nothing, those of damaged replicas, and those that a failed transfer has left without a lease for the rest
// of the term; where the configuration says so also those that it has too many of.
func (n *Node) balance() { n.shed(n.opt.BalanceLeaders) }

// shed is balance; with spread it gives away what this node has too many of
// whatever the configuration says.
func (n *Node) shed(spread bool) {
	mine := 0
	for _, g := range n.groups {
		if g.state == raft.StateLeader {
			mine++
		}
	}
	goes, unwell := n.goes(), n.slow.Load() || n.clockOff.Load()
	for _, g := range n.groups {
		if g.state != raft.StateLeader || g.transfer.holds() {
			continue
		}
		if goes || g.rounds.voided || g.broken.Load() {
			if to := g.anySuccessor(n); to != 0 {
				g.beginTransfer(n, to)
			}
			continue
		}
		to := g.bestSuccessor(n)
		if to == 0 {
			continue
		}
		if unwell {
			g.beginTransfer(n, to)
			continue
		}
		if leaders, _ := n.mayLead(nodeOf(to), true); spread && mine-leaders >= 2 {
			g.beginTransfer(n, to)
			n.known.countLeader(nodeOf(to)) // until its next report says so
			mine--
		}
	}
}

// goes reports whether this node is on its way out and must lead nothing.
func (n *Node) goes() bool {
	if n.leaving.Load() {
		return true
	}
	m := n.cmap.Load()
	if m == nil {
		return false
	}
	row, _ := m.node(n.id)
	return row.Draining || row.Removing
}

// mayLead returns how many shards another node leads. Where it may not be given
// more, reason says why; without well, a stalling disk or a clock that is off is
// no reason.
func (n *Node) mayLead(node uint64, well bool) (leaders int, reason string) {
	if reason := n.barredByMap(node); reason != "" {
		return 0, reason
	}
	return n.known.mayLead(node, n.clock.Boot(), well)
}

// barredByMap returns why the map has a node lead nothing, "" if it may. A node
// that could not read the map, because it is damaged, has nothing against others: only
// they can give it a copy.
func (n *Node) barredByMap(node uint64) string {
	m := n.cmap.Load()
	if !m.begun() && n.groups[n.meta()].broken.Load() {
		return ""
	}
	if m == nil {
		return "the cluster is still being created"
	}
	switch row, ok := m.node(node); {
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
func (n *Node) leadsNone() bool {
	for _, g := range n.groups {
		if g.leads.Load() {
			return false
		}
	}
	return true
}

// canHandOver reports whether another node could lead some of the shards that
// this one leads.
func (n *Node) canHandOver() bool {
	m := n.cmap.Load()
	for _, g := range n.groups {
		if !g.leads.Load() || !m.begun() {
			continue
		}
		for _, r := range m.shards[g.shard].Replicas {
			if r.Node == n.id || r.Learner {
				continue
			}
			if _, why := n.mayLead(r.Node, false); why == "" {
				return true
			}
		}
	}
	return false
}

// requestTransfer asks the pass to hand a shard's leadership to a node.
func (n *Node) requestTransfer(shard int, node uint64) error {
	g := n.groups[shard]
	if !g.leads.Load() {
		return command.ErrNotLeader
	}
	n.post(func() {
		for _, id := range confMembers(&g.conf) {
			if nodeOf(id) == node && isVoter(&g.conf, id) {
				g.beginTransfer(n, id)
			}
		}
	})
	return nil
}
