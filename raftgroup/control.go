package raftgroup

import (
	"cmp"
	"slices"
	"time"

	"github.com/proa-kv/proa/command"
)

// tickCluster does what concerns the cluster and is due with this tick. For the
// pass.
func (n *Node) tickCluster() {
	cm := n.cmap.Load()
	for _, g := range n.groups {
		if err := g.considerRetiring(n, cm); err != nil {
			n.fail(err)
			return
		}
	}
	now := n.clock.Boot()
	if n.greetDue.Swap(false) || now >= n.reportDue {
		n.reportDue = now + int64(reportEvery)
		n.sendReports()
	}
	if now < n.tendDue {
		return
	}
	n.tendDue = now + int64(tendEvery)
	n.balance()
	if n.groups[n.meta()].leads.Load() {
		n.control(cm)
	} else {
		n.announce(cm)
	}
}

// movesMax bounds the shards whose replicas are on their way at one time.
const movesMax = 4

// control is what the leader of the meta group does: it decides where replicas
// shall be. The groups' own leaders carry it out.
func (n *Node) control(cm *clusterMap) {
	if n.controlling.Load() {
		return // the last change is still on its way
	}
	var writes []metaWrite
	switch {
	case !cm.begun():
		if !n.identity.Founder || n.store.Damaged(n.meta()) {
			return
		}
		cm, writes = n.firstRows()
	default:
		p := n.plan(cm)
		writes = p.writes()
	}
	if row, ok := cm.node(n.id); ok && n.addressChanged(&row, n.id) && len(writes) == 0 {
		writes = append(writes, metaWrite{nodeKey(n.id), n.withAddresses(row)})
	}
	if len(writes) == 0 && cm.begun() {
		writes = n.newRuns(cm)
	}
	if len(writes) == 0 && cm.needsToken() {
		row := cm.cluster
		row.Token = newToken()
		writes = append(writes, metaWrite{clusterKey, row})
	}
	if len(writes) == 0 {
		return
	}
	n.controlling.Store(true)
	if err := n.proposeMeta(cm, writes, nil, (*controller)(n)); err != nil {
		n.controlling.Store(false)
	}
}

// controller hears that a change of the map has been decided.
type controller Node

// Complete allows the next change.
func (c *controller) Complete(command.Tag, command.Outcome, *command.Result) {
	c.controlling.Store(false)
}

// needsToken reports whether the cluster was founded by a version without join
// tokens, and all of its nodes know of them by now.
func (m *clusterMap) needsToken() bool {
	return m.begun() && m.cluster.Token == "" && m.keyed()
}

// firstRows returns the rows that a new cluster begins with.
func (n *Node) firstRows() (*clusterMap, []metaWrite) {
	token := n.opt.JoinToken
	if token == "" {
		token = newToken()
	}
	writes := []metaWrite{{clusterKey, clusterRow{Replicas: n.identity.Replicas, Token: token}}}
	var nodes []uint64
	for _, m := range n.identity.Members {
		writes = append(writes, metaWrite{nodeKey(m.ID), nodeRow{ID: m.ID, UID: m.UID, Key: m.Key, Peer: m.Peer, Client: m.Client, Redis: m.Redis, Version: n.opt.Version}})
		nodes = append(nodes, m.ID)
	}
	for i, row := range initialShards(nodes, n.meta(), n.identity.Replicas) {
		writes = append(writes, metaWrite{shardKey(i, n.meta()), row})
	}
	return &clusterMap{}, writes
}

// addressChanged reports whether this node's row is behind what the node says
// of itself, and leader, that of the meta group, would put it right: one of an
// earlier version leaves the key out.
func (n *Node) addressChanged(row *nodeRow, leader uint64) bool {
	keyless := row.Key == nil && (leader == n.id || n.transport.Version(leader) >= keysSince)
	return keyless || row.Peer != n.opt.PeerAddress || row.Client != n.opt.ClientAddress || row.Redis != n.opt.RedisAddress || row.Version != n.opt.Version
}

// keysSince is the version of the peer protocol since which nodes have keys.
const keysSince = 3

func (n *Node) withAddresses(row nodeRow) nodeRow {
	row.Key = n.identity.Key.public()
	row.Peer, row.Client, row.Redis, row.Version = n.opt.PeerAddress, n.opt.ClientAddress, n.opt.RedisAddress, n.opt.Version
	return row
}

// plan is a placement being worked out.
type plan struct {
	node     *Node
	cm       *clusterMap
	eligible []uint64       // nodes that may get replicas
	load     map[uint64]int // replicas of users' shards for each node
	moving   int
	changed  map[int]shardRow
	leaving  map[uint64]bool // nodes whose replicas have to go
	rows     []nodeRow       // nodes that can go, and nodes that are to
}

func (n *Node) plan(cm *clusterMap) *plan {
	p := &plan{node: n, cm: cm, load: make(map[uint64]int), changed: make(map[int]shardRow), leaving: make(map[uint64]bool)}
	now := n.clock.Boot()
	for i := range cm.nodes {
		row := &cm.nodes[i]
		if !row.member() {
			continue
		}
		silent := time.Duration(now - n.lastHeard(row.ID))
		switch {
		case n.identity.gaveUp(row.ID):
			p.leaving[row.ID] = true
			if !row.Removing {
				p.giveUp(*row)
			}
		case row.Removing, n.opt.ReplaceAfter > 0 && silent > n.opt.ReplaceAfter:
			p.leaving[row.ID] = true
		case row.ID == n.id || silent <= downAfter:
			p.eligible = append(p.eligible, row.ID)
		}
	}
	for i := range cm.shards {
		if i != n.meta() {
			for _, r := range cm.shards[i].Replicas {
				p.load[r.Node]++
			}
		}
		if !n.settledShard(i) {
			p.moving++
		}
	}
	p.placeMeta()
	for i := range cm.shards[:n.meta()] {
		p.place(i)
	}
	p.level()
	p.dismiss()
	return p
}

// lastHeard returns when a node was last heard of: at the earliest when this
// node started to listen.
func (n *Node) lastHeard(node uint64) int64 {
	if node == n.id {
		return n.clock.Boot()
	}
	return max(n.known.lastHeard(node), n.startedAt)
}

// settledShard reports whether a shard's leader says that its configuration is
// what the map wants, as the map is now: what it said of an earlier row does
// not count.
func (n *Node) settledShard(shard int) bool {
	s, ok := n.known.leading(shard)
	return ok && s.Settled && s.Row == n.cmap.Load().rowVersion(shard)
}

// mayHold reports whether a node may have a replica in a shard's configuration.
func (n *Node) mayHold(shard int, node uint64) bool {
	s, ok := n.known.leading(shard)
	return !ok || len(s.Members) == 0 || slices.ContainsFunc(s.Members, func(id uint64) bool { return nodeOf(id) == node })
}

// free reports whether shard may be changed now: one change after the other,
// unless the one under way waits for a node that is not to be waited for.
func (p *plan) free(shard int) bool {
	if _, changed := p.changed[shard]; changed {
		return false
	}
	if p.node.settledShard(shard) {
		return p.moving < movesMax
	}
	return slices.ContainsFunc(p.cm.shards[shard].Replicas, func(r replicaRow) bool { return p.replaceable(shard, r) })
}

// replaceable reports whether a replica has to go and may go now: where a
// change is under way, only one that the change waits for, because it does not
// vote yet. One that votes goes afterwards: the nodes that the change takes
// replicas from can take new ones only then.
func (p *plan) replaceable(shard int, r replicaRow) bool {
	goes := p.leaving[r.Node] || p.damaged(shard, r)
	if !goes || p.node.settledShard(shard) {
		return goes
	}
	s, ok := p.node.known.leading(shard)
	return ok && len(s.Members) > 0 && !r.Learner && (!slices.Contains(s.Members, r.id()) || slices.Contains(s.Learners, r.id()))
}

func (p *plan) change(shard int, row shardRow) {
	p.changed[shard] = row
	if p.node.settledShard(shard) {
		p.moving++
	}
}

// target returns the eligible node with the fewest replicas that holds none of
// shard and shall hold none, 0 if there is none.
func (p *plan) target(shard int) uint64 {
	best := uint64(0)
	row := &p.cm.shards[shard]
	for _, node := range p.eligible {
		if _, has := row.on(node); !has && !p.node.mayHold(shard, node) && (best == 0 || p.load[node] < p.load[best]) {
			best = node
		}
	}
	return best
}

// place replaces a shard's replica on a node that leaves, or adds one that is
// missing.
func (p *plan) place(shard int) {
	row := &p.cm.shards[shard]
	if !p.free(shard) {
		return
	}
	for _, r := range row.Replicas {
		if !p.replaceable(shard, r) {
			continue
		}
		to := p.target(shard)
		node, _ := p.cm.node(r.Node)
		next := p.enfranchised(row.replace(r.Node, to, true))
		switch {
		case to == 0 && p.damaged(shard, r) && p.bearable(shard, &next):
			// The node gets another one as soon as it has none.
		case to == 0 && (!node.Removing || len(row.Replicas) <= 1):
			continue // no room: better a replica that may come back than none
		}
		if next.voters() == 0 {
			continue // the learners that are left are not up
		}
		p.change(shard, next)
		p.load[to]++
		return
	}
	if !p.node.settledShard(shard) {
		return
	}
	next := *row
	if len(row.Replicas) < p.cm.cluster.Replicas {
		if to := p.target(shard); to != 0 {
			next = row.replace(0, to, true)
			p.load[to]++
		}
	}
	if next = p.enfranchised(next); !slices.Equal(next.Replicas, row.Replicas) {
		p.change(shard, next)
	}
}

// enfranchised returns a row of a users' shard with the votes it shall have.
func (p *plan) enfranchised(row shardRow) shardRow {
	return row.enfranchise(p.cm.cluster.Replicas, len(row.Replicas), p.up)
}

// enfranchisedMeta is the same for the meta group, which has a replica on every
// node.
func (p *plan) enfranchisedMeta(row shardRow) shardRow {
	return row.enfranchise(min(p.cm.cluster.Replicas, metaVotersMax), metaVotersMax, p.up)
}

// up reports whether a node may get replicas, and so votes.
func (p *plan) up(node uint64) bool { return slices.Contains(p.eligible, node) }

// placeMeta gives every node a replica of the meta group, and makes voters of
// the first few.
func (p *plan) placeMeta() {
	meta := p.node.meta()
	row := &p.cm.shards[meta]
	if !p.free(meta) {
		return
	}
	for _, r := range row.Replicas {
		if !p.replaceable(meta, r) {
			continue
		}
		node, _ := p.cm.node(r.Node)
		// Of a node that is being removed it is the last to go: the node learns
		// there what to give up.
		if next := p.enfranchisedMeta(row.replace(r.Node, 0, false)); p.damaged(meta, r) && p.bearable(meta, &next) {
			p.change(meta, next)
			return
		}
		last := node.Removing && len(row.Replicas) > 1 && p.load[r.Node] == 0 && !p.holdsShards(r.Node)
		lost := !node.Removing && p.leaving[r.Node] && (r.Learner || p.spareMeta(row))
		if last || lost {
			if next := p.enfranchisedMeta(row.replace(r.Node, 0, false)); next.voters() > 0 {
				p.change(meta, next)
			}
			return
		}
	}
	if !p.node.settledShard(meta) {
		return
	}
	for _, node := range p.eligible {
		if _, has := row.on(node); !has {
			p.change(meta, p.enfranchisedMeta(row.replace(0, node, true)))
			return
		}
	}
	if better := p.enfranchisedMeta(*row); !slices.Equal(better.Replicas, row.Replicas) {
		p.change(meta, better)
	}
}

// holdsShards reports whether a users' shard may still have a replica on node.
func (p *plan) holdsShards(node uint64) bool {
	for shard := range p.node.meta() {
		if p.node.mayHold(shard, node) {
			return true
		}
	}
	return false
}

// spareMeta reports whether some eligible node votes in no place of the meta
// group yet, and so can stand in for one that is gone.
func (p *plan) spareMeta(row *shardRow) bool {
	for _, node := range p.eligible {
		if r, has := row.on(node); !has || r.Learner {
			return true
		}
	}
	return false
}

// level moves a replica from the node that has most to the one that has least.
func (p *plan) level() {
	if len(p.eligible) < 2 || p.moving > 0 || len(p.changed) > 0 {
		return
	}
	byLoad := slices.Clone(p.eligible)
	slices.SortFunc(byLoad, func(a, b uint64) int { return cmp.Or(cmp.Compare(p.load[a], p.load[b]), cmp.Compare(a, b)) })
	to, from := byLoad[0], byLoad[len(byLoad)-1]
	if p.load[from]-p.load[to] < 2 {
		return
	}
	for i := range p.cm.shards[:p.node.meta()] {
		row := &p.cm.shards[i]
		_, there := row.on(to)
		if _, here := row.on(from); here && !there && p.free(i) {
			p.change(i, p.enfranchised(row.replace(from, to, true)))
			return
		}
	}
}

// giveUp begins to remove a node that the cluster was recovered without.
func (p *plan) giveUp(row nodeRow) {
	row.Removing = true
	p.rows = append(p.rows, row)
}

// dismiss finds the nodes that are to be removed and hold nothing any more.
func (p *plan) dismiss() {
	for i := range p.cm.nodes {
		row := p.cm.nodes[i]
		if !row.Removing || row.Removed {
			continue
		}
		holds := false
		for s := range p.cm.shards {
			_, has := p.cm.shards[s].on(row.ID)
			holds = holds || has || p.node.mayHold(s, row.ID)
		}
		if !holds {
			row.Removed, row.Removing = true, false
			p.rows = append(p.rows, row)
		}
	}
}

func (p *plan) writes() []metaWrite {
	var w []metaWrite
	for shard := range p.cm.shards { // in order, not as the map has it
		if row, ok := p.changed[shard]; ok {
			w = append(w, metaWrite{shardKey(shard, p.node.meta()), row})
		}
	}
	for _, row := range p.rows {
		w = append(w, metaWrite{nodeKey(row.ID), row})
	}
	return w
}
