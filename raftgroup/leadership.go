package raftgroup

import (
	"slices"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup/engine"
	"github.com/proa-kv/proa/raftgroup/placement"
)

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

// soundSuccessors returns the voters that could lead a shard at once, and whose state
// is not damaged.
func (co *controller) soundSuccessors(shard int) []uint64 {
	return slices.DeleteFunc(co.node.engine.Successors(shard), func(id uint64) bool {
		return co.node.known.unfitAt(shard, placement.NodeOf(id), id)
	})
}

// balance hands leaderships over: all of them where this node must lead nothing,
// those of damaged replicas, and those that a failed transfer has left without a
// lease for the rest of the term; where the configuration says so also those that
// the node has in excess.
func (co *controller) balance() { co.handOver(co.node.opt.BalanceLeaders) }

// handOver is balance; with spread it hands over what this node leads in excess
// whatever the configuration says.
func (co *controller) handOver(spread bool) {
	own := placement.Own{Leaves: co.goes(), Unwell: co.node.state.Is(engine.Slow) || co.node.state.Is(clockOff), Spread: spread}
	var led []placement.Led
	var successors []uint64
	for shard, v := range co.node.views {
		if r := co.node.engine.Replica(shard); r.Role == engine.RoleLeader {
			l := placement.Led{Shard: shard, MustGo: r.NoLease || v.Broken.Load(), Busy: r.Handing, Successors: co.soundSuccessors(shard)}
			led, successors = append(led, l), append(successors, l.Successors...)
		}
	}
	for _, t := range placement.Handover(led, co.candidates(successors), own) {
		co.node.engine.TransferLeadership(t.Shard, t.To)
		if t.Spread {
			co.node.known.countLeader(placement.NodeOf(t.To)) // until its next report says so
		}
	}
}

// goes reports whether this node is on its way out and must lead nothing.
func (co *controller) goes() bool {
	if co.node.state.Is(leaving) {
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
	if !m.Begun() && co.node.views[co.node.meta()].Broken.Load() {
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
	return !slices.ContainsFunc(co.node.views, func(v *engine.View) bool { return v.Leads.Load() })
}

// canHandOver reports whether another node could lead some of the shards that
// this one leads.
func (co *controller) canHandOver() bool {
	m := co.node.cmap.Load()
	for shard, v := range co.node.views {
		if !v.Leads.Load() || !m.Begun() {
			continue
		}
		for _, r := range m.Shards[shard].Replicas {
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
	if !co.node.views[shard].Leads.Load() {
		return command.ErrNotLeader
	}
	co.node.engine.Post(func() {
		r := co.node.engine.Replica(shard)
		if r.ID == 0 {
			return
		}
		for _, id := range r.Conf.Members() {
			if placement.NodeOf(id) == node && r.Conf.Votes(id) {
				co.node.engine.TransferLeadership(shard, id)
			}
		}
	})
	return nil
}
