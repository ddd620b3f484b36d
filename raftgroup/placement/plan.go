package placement

import (
	"cmp"
	"slices"
	"time"
)

// DownAfter is the silence after which a node counts as down.
const DownAfter = 10 * time.Second

// movesMax bounds the shards whose replicas are moved at one time.
const movesMax = 4

// Reports is what is known of nodes and shards at one moment.
type Reports struct {
	Started time.Duration // since then the deciding node has listened, on the clock that gives now
	Nodes   map[uint64]NodeReport
	Shards  []ShardReport // by number
}

// NodeReport is what is known of a node.
type NodeReport struct {
	Heard time.Duration // the last sign of life; 0: none
	Up    bool          // there has been one lately, and the connection holds
}

// ShardReport is what the newest known leader of a shard has said of it, and which
// of its replicas are damaged.
type ShardReport struct {
	Settled  bool     // the Raft configuration is what Row asked for
	Row      uint64   // a version of the shard's row
	Members  []uint64 // replicas; none: no leader is known
	Learners []uint64 // those of the members that do not vote
	Damaged  []uint64 // replicas whose state is damaged
}

// MayHold reports whether a node may have a replica in the shard's configuration.
func (s *ShardReport) MayHold(node uint64) bool {
	return len(s.Members) == 0 || slices.ContainsFunc(s.Members, func(id uint64) bool { return NodeOf(id) == node })
}

// Settled reports whether a shard's leader says that the configuration is what the
// present row asks for: a report about an earlier row does not count.
func (r *Reports) Settled(m *Map, shard int) bool {
	s := &r.Shards[shard]
	return s.Settled && s.Row == m.Version(shard)
}

// Silent returns how long ago the last sign of life of a node was, or the start of
// the deciding node where there was none.
func (r *Reports) Silent(node uint64, now time.Duration) time.Duration {
	return now - max(r.Nodes[node].Heard, r.Started)
}

// Policy is what the configuration and the deciding node's directory say.
type Policy struct {
	ReplaceAfter time.Duration // replicas of a node that is silent for longer are rebuilt elsewhere; 0: never
	Lost         []uint64      // nodes that the cluster was recovered without
}

// plan is a placement being worked out.
type plan struct {
	*Map
	reports   *Reports
	eligible  []uint64        // nodes that may get replicas, and votes
	departing []uint64        // nodes that are up and are being removed
	leaving   map[uint64]bool // nodes whose replicas have to go
	load      map[uint64]int  // replicas of users' shards for each node
	moving    int             // shards whose replicas are being moved
	shards    map[int]Shard   // changed rows
	nodes     []Node          // changed rows
}

// Plan returns how the leader of the meta group must change the map: replicas of
// nodes that leave, are down for too long, or are damaged move to other nodes,
// missing ones are added, loads are levelled. A shard's row changes once the change
// before it has been carried out.
func Plan(m *Map, r *Reports, now time.Duration, policy Policy) []Change {
	p := &plan{Map: m, reports: r, load: make(map[uint64]int), shards: make(map[int]Shard), leaving: make(map[uint64]bool)}
	for row := range m.Members() {
		silent := r.Silent(row.ID, now)
		switch {
		case slices.Contains(policy.Lost, row.ID):
			p.leaving[row.ID] = true
			if !row.Removing {
				lost := *row
				lost.Removing = true
				p.nodes = append(p.nodes, lost)
			}
		case row.Removing, policy.ReplaceAfter > 0 && silent > policy.ReplaceAfter:
			p.leaving[row.ID] = true
			if row.Removing && silent <= DownAfter {
				p.departing = append(p.departing, row.ID)
			}
		case silent <= DownAfter:
			p.eligible = append(p.eligible, row.ID)
		}
	}
	for shard := range m.Shards {
		if shard != m.Meta() {
			for _, r := range m.Shards[shard].Replicas {
				p.load[r.Node]++
			}
		}
		if !p.settled(shard) {
			p.moving++
		}
	}
	p.placeMeta()
	for shard := range m.Meta() {
		p.place(shard)
	}
	p.level()
	p.dismiss()
	return p.changes()
}

func (p *plan) changes() (changes []Change) {
	for shard := range p.Shards {
		if row, ok := p.shards[shard]; ok {
			changes = append(changes, Change{p.shardKey(shard), row})
		}
	}
	for _, row := range p.nodes {
		changes = append(changes, row.Put())
	}
	return changes
}

func (p *plan) settled(shard int) bool { return p.reports.Settled(p.Map, shard) }

func (p *plan) mayHold(shard int, node uint64) bool { return p.reports.Shards[shard].MayHold(node) }

// damaged reports whether a replica has to be replaced because its state is
// damaged.
func (p *plan) damaged(shard int, r Replica) bool {
	return slices.Contains(p.reports.Shards[shard].Damaged, r.ID())
}

// free reports whether a shard's row may be changed now: one change after the
// other, unless the one under way waits for a node that is not to be waited for.
func (p *plan) free(shard int) bool {
	if _, changed := p.shards[shard]; changed {
		return false
	}
	if p.settled(shard) {
		return p.moving < movesMax
	}
	return slices.ContainsFunc(p.Shards[shard].Replicas, func(r Replica) bool { return p.replaceable(shard, r) })
}

// replaceable reports whether a replica has to go and may go now: where a
// change is under way, only one that the change waits for, because it does not
// vote yet. One that votes goes afterwards: the nodes that the change takes
// replicas from can take new ones only then.
func (p *plan) replaceable(shard int, r Replica) bool {
	goes := p.leaving[r.Node] || p.damaged(shard, r)
	if !goes || p.settled(shard) {
		return goes
	}
	s := &p.reports.Shards[shard]
	return len(s.Members) > 0 && !r.Learner && (!slices.Contains(s.Members, r.ID()) || slices.Contains(s.Learners, r.ID()))
}

func (p *plan) change(shard int, row Shard) {
	p.shards[shard] = row
	if p.settled(shard) {
		p.moving++
	}
}

// target returns the eligible node with the fewest replicas that holds none of
// a shard and must hold none, 0 if there is none.
func (p *plan) target(shard int) uint64 {
	best := uint64(0)
	for _, node := range p.eligible {
		if _, has := p.Shards[shard].On(node); !has && !p.mayHold(shard, node) && (best == 0 || p.load[node] < p.load[best]) {
			best = node
		}
	}
	return best
}

// place replaces a shard's replica on a node that leaves, or adds one that is
// missing.
func (p *plan) place(shard int) {
	row := &p.Shards[shard]
	if !p.free(shard) {
		return
	}
	for _, r := range row.Replicas {
		if !p.replaceable(shard, r) {
			continue
		}
		to := p.target(shard)
		node, _ := p.Node(r.Node)
		next := p.promoted(row.replace(r.Node, to, true))
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
	if !p.settled(shard) {
		return
	}
	next := *row
	if len(row.Replicas) < p.Cluster.Replicas {
		if to := p.target(shard); to != 0 {
			next = row.replace(0, to, true)
			p.load[to]++
		}
	}
	if next = p.promoted(next); !slices.Equal(next.Replicas, row.Replicas) {
		p.change(shard, next)
	}
}

// bearable reports whether a shard can be brought from its row to next, which has
// no replica more, and is available then: a majority of its voters must be up, and
// one of them undamaged.
func (p *plan) bearable(shard int, next *Shard) bool {
	up, sound := 0, 0
	for _, r := range next.Replicas {
		if r.Learner || !p.up(r.Node) {
			continue
		}
		up++
		if !p.damaged(shard, r) {
			sound++
		}
	}
	return sound > 0 && 2*up > next.voters()
}

// promoted returns a row of a users' shard with the votes it must have.
func (p *plan) promoted(row Shard) Shard {
	return row.promote(p.Cluster.Replicas, len(row.Replicas), p.up)
}

// promotedMeta is promoted for the meta group, which has a replica on every node.
func (p *plan) promotedMeta(row Shard) Shard {
	return row.promote(min(p.Cluster.Replicas, metaVotersMax), metaVotersMax, p.up)
}

func (p *plan) up(node uint64) bool { return slices.Contains(p.eligible, node) }

// placeMeta gives every node a replica of the meta group, and makes voters of
// the first few.
func (p *plan) placeMeta() {
	meta := p.Meta()
	row := &p.Shards[meta]
	if !p.free(meta) {
		return
	}
	for _, r := range row.Replicas {
		if !p.replaceable(meta, r) {
			continue
		}
		next := p.promotedMeta(row.replace(r.Node, 0, false))
		if p.damaged(meta, r) && p.bearable(meta, &next) {
			p.change(meta, next)
			return
		}
		// Of a node that is being removed it is the last replica to go: the node
		// learns there what to give up.
		node, _ := p.Node(r.Node)
		last := node.Removing && len(row.Replicas) > 1 && p.load[r.Node] == 0 && !p.holdsShards(r.Node)
		lost := !node.Removing && p.leaving[r.Node] && (r.Learner || p.spareMeta(row))
		if last || lost {
			if next.voters() > 0 {
				p.change(meta, next)
			}
			return
		}
	}
	if !p.settled(meta) {
		return
	}
	next := *row
	for _, node := range slices.Concat(p.eligible, p.departing) {
		// A node that is to be removed may be wanted by a shard yet, and cannot take a
		// replica, to give it up, before it has the map.
		if _, has := row.On(node); !has && (!p.leaving[node] || p.load[node] > 0) {
			next = row.replace(0, node, true)
			break
		}
	}
	if next = p.promotedMeta(next); !slices.Equal(next.Replicas, row.Replicas) {
		p.change(meta, next)
	}
}

// holdsShards reports whether a users' shard may still have a replica on node.
func (p *plan) holdsShards(node uint64) bool {
	for shard := range p.Meta() {
		if p.mayHold(shard, node) {
			return true
		}
	}
	return false
}

// spareMeta reports whether some eligible node has no vote in the meta group yet,
// and so can stand in for one that is lost.
func (p *plan) spareMeta(row *Shard) bool {
	return slices.ContainsFunc(p.eligible, func(node uint64) bool {
		r, has := row.On(node)
		return !has || r.Learner
	})
}

// level moves a replica from the node that has most to the one that has least.
func (p *plan) level() {
	if len(p.eligible) < 2 || p.moving > 0 || len(p.shards) > 0 {
		return
	}
	byLoad := func(a, b uint64) int { return cmp.Or(cmp.Compare(p.load[a], p.load[b]), cmp.Compare(a, b)) }
	to, from := slices.MinFunc(p.eligible, byLoad), slices.MaxFunc(p.eligible, byLoad)
	if p.load[from]-p.load[to] < 2 {
		return
	}
	for shard := range p.Meta() {
		row := &p.Shards[shard]
		_, there := row.On(to)
		if _, here := row.On(from); here && !there && p.free(shard) {
			p.change(shard, p.promoted(row.replace(from, to, true)))
			return
		}
	}
}

// dismiss finds the nodes that are being removed and hold nothing any more.
func (p *plan) dismiss() {
	for _, row := range p.Nodes {
		if !row.Removing || row.Removed {
			continue
		}
		holds := false
		for shard := range p.Shards {
			_, has := p.Shards[shard].On(row.ID)
			holds = holds || has || p.mayHold(shard, row.ID)
		}
		if !holds {
			row.Removed, row.Removing = true, false
			p.nodes = append(p.nodes, row)
		}
	}
}
