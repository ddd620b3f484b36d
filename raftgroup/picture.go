package raftgroup

import (
	"slices"
	"sync"
	"time"

	"github.com/proa-kv/proa/raftgroup/engine"
	"github.com/proa-kv/proa/raftgroup/placement"
)

// What is known of the cluster's nodes, and how old it is. Every decision and
// every answer that depends on what a node has said asks here whether that may
// still be so.
const (
	// staleAfter is the age past which what a node said of itself does not
	// count as the present state: four reports are missing by then.
	staleAfter = time.Second

	// A node that has not reported for three heartbeats, at least
	// staleAfter, or whose connection has broken, is suspect, and for
	// placement.DownAfter down. Groups beat more often than nodes report.
	suspectHeartbeats = 3
)

// picture is what is known of one node. The node's own is one like any other.
type picture struct {
	about  nodeReport
	shards []shardReport // by shard; Replica is 0 where the node holds none

	heard int64 // last sign of life, on Clock.Boot; 0: none
	// whole is when the picture last was all that the node had to say; 0: it
	// never was, since the node's last start as far as that is known.
	whole int64
	lost  bool // the connection has broken and nothing has come since

	run  uint64 // of the reports that the picture is made of; 0: of none
	have uint64 // version up to which it has their changes

	leaders int // groups it leads, and those on their way to it
	clocks  clockHistory

	peerProgress // what the node has of this one's reports
}

// age returns how long ago the picture was the node's own word; false if it
// never was.
func (p *picture) age(now int64) (time.Duration, bool) {
	return time.Duration(now - p.whole), p.whole != 0
}

// fresh reports whether the picture counts as the node's present state.
func (p *picture) fresh(now int64) bool {
	age, ok := p.age(now)
	return ok && !p.lost && age <= staleAfter
}

// leads reports whether the node says that it leads shard.
func (p *picture) leads(shard int) bool {
	return shard < len(p.shards) && p.shards[shard].Role == engine.RoleLeader
}

// set takes in what the node says of a replica.
func (p *picture) set(s shardReport, now int64) {
	was := &p.shards[s.Shard]
	s.since = now
	if s.Role == was.Role && s.Leader == was.Leader && s.Term == was.Term {
		s.since = was.since
	}
	*was = s
}

func (p *picture) countLeaders() {
	p.leaders = 0
	for shard := range p.shards {
		if p.leads(shard) {
			p.leaders++
		}
	}
}

// pictures is what is known of all nodes.
type pictures struct {
	mu      sync.Mutex
	nodes   map[uint64]*picture
	suspect int64 // ns without a sign of life after which a node is that
}

// of returns the picture of a node, an empty one if there was none. The caller
// holds mu.
func (t *pictures) of(node uint64) *picture {
	p := t.nodes[node]
	if p == nil {
		if t.nodes == nil {
			t.nodes = make(map[uint64]*picture)
		}
		p = &picture{}
		t.nodes[node] = p
	}
	return p
}

func (t *pictures) lock() func() {
	t.mu.Lock()
	return t.mu.Unlock
}

// noteAlive notes a sign of life. It reports whether the node had been silent for
// long, or was not known.
func (t *pictures) noteAlive(node uint64, now int64) (back bool) {
	defer t.lock()()
	return t.noteAliveLocked(t.of(node), now)
}

func (t *pictures) noteAliveLocked(p *picture, now int64) (back bool) {
	back = p.heard == 0 || now-p.heard > t.suspect
	p.heard, p.lost = now, false
	return back
}

// lose notes that a connection has broken: what is known of the node does not
// count until the node sends again.
func (t *pictures) lose(node uint64) {
	defer t.lock()()
	p := t.of(node)
	p.lost = true
	p.sent = p.acked
}

func (t *pictures) forget(node uint64) {
	defer t.lock()()
	delete(t.nodes, node)
}

// get returns a copy of what is known of a node. Its shards must not be changed.
func (t *pictures) get(node uint64) picture {
	defer t.lock()()
	p := t.nodes[node]
	if p == nil {
		return picture{}
	}
	q := *p
	q.shards = slices.Clone(p.shards)
	return q
}

func (t *pictures) aliveLocked(node uint64, now int64) bool {
	p := t.nodes[node]
	return p != nil && p.heard != 0 && !p.lost && now-p.heard <= t.suspect
}

// alive reports whether a node has sent something lately and its connection
// holds.
func (t *pictures) alive(node uint64, now int64) bool {
	defer t.lock()()
	return t.aliveLocked(node, now)
}

// mayLead returns how many groups a node leads. Where it cannot be given more,
// reason says why; without well, a stalling disk or a clock that is off is none.
func (t *pictures) mayLead(node uint64, now int64, well bool) (leaders int, reason string) {
	defer t.lock()()
	return t.mayLeadLocked(node, now, well)
}

func (t *pictures) mayLeadLocked(node uint64, now int64, well bool) (leaders int, reason string) {
	p := t.nodes[node]
	switch {
	case !t.aliveLocked(node, now):
		return 0, "it has not reported recently"
	case p.whole == 0:
		return 0, "it has not yet reported its full state"
	case p.about.Leaving:
		return 0, "it is stopping"
	case well && p.about.Slow:
		return 0, "its disk is slow"
	case well && p.about.ClockOff:
		return 0, "its clock differs too much"
	}
	return p.leaders, ""
}

// countLeader counts a leadership that is on its way to node.
func (t *pictures) countLeader(node uint64) {
	defer t.lock()()
	if p := t.nodes[node]; p != nil {
		p.leaders++
	}
}

// leading returns the newest statement about shard by a node that leads it, of
// whatever age: for those who are to wait until a newer leader contradicts.
func (t *pictures) leading(shard int) (s shardReport, ok bool) {
	defer t.lock()()
	s, _, ok = t.leadingLocked(shard)
	return s, ok
}

// leadingLocked also returns when the statement was last all that the node had to say, on
// Clock.Boot.
func (t *pictures) leadingLocked(shard int) (s shardReport, said int64, ok bool) {
	for _, p := range t.nodes {
		if p.leads(shard) && (!ok || p.shards[shard].Term > s.Term) {
			s, said, ok = p.shards[shard], p.whole, true
		}
	}
	return s, said, ok
}

// leaderOf returns the node that says it leads shard, 0 if none of those that
// are alive does.
func (t *pictures) leaderOf(shard int, now int64) (leader uint64) {
	defer t.lock()()
	term := uint64(0)
	for node, p := range t.nodes {
		if p.leads(shard) && p.shards[shard].Term > term && t.aliveLocked(node, now) {
			leader, term = node, p.shards[shard].Term
		}
	}
	return leader
}

// excludes reports whether the leader of shard, in term or later, says that
// replica is no member. What it said when less was committed than this node knows of
// does not count, nor what it said up to since: the replica may have been added later.
func (t *pictures) excludes(shard int, replica, term, committed uint64, since int64) bool {
	defer t.lock()()
	s, said, ok := t.leadingLocked(shard)
	return ok && s.Term >= term && s.Commit >= committed && said > since && len(s.Members) > 0 && !slices.Contains(s.Members, replica)
}

// placement returns what decisions about placement need to know, on a node that
// has listened since started.
func (t *pictures) placement(self uint64, shards int, now, started int64) *placement.Reports {
	defer t.lock()()
	r := &placement.Reports{Started: time.Duration(started), Nodes: make(map[uint64]placement.NodeReport), Shards: make([]placement.ShardReport, shards)}
	for node, p := range t.nodes {
		r.Nodes[node] = placement.NodeReport{Heard: time.Duration(p.heard), Up: t.aliveLocked(node, now)}
		for i := range p.shards {
			if s := &p.shards[i]; s.Damaged && placement.NodeOf(s.Replica) == node {
				r.Shards[i].Damaged = append(r.Shards[i].Damaged, s.Replica)
			}
		}
	}
	r.Nodes[self] = placement.NodeReport{Heard: time.Duration(now), Up: true}
	for shard := range r.Shards {
		if s, _, ok := t.leadingLocked(shard); ok {
			o := &r.Shards[shard]
			o.Settled, o.Row, o.Members, o.Learners = s.Settled, s.Row, s.Members, s.Learners
		}
	}
	return r
}

// unfitAt reports whether a node says that its replica of a shard is damaged, or asks for
// votes: then it does not hear the leader, and would not hear that it is to lead.
func (t *pictures) unfitAt(shard int, node, replica uint64) bool {
	defer t.lock()()
	p := t.nodes[node]
	if p == nil || shard >= len(p.shards) || p.shards[shard].Replica != replica {
		return false
	}
	return p.shards[shard].Damaged || p.shards[shard].Role == engine.RoleCandidate
}
