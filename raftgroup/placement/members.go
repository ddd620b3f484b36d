package placement

import (
	"crypto/ed25519"
	"fmt"
	"slices"
	"time"

	"github.com/proa-kv/proa/command"
)

// Request is what a node says of itself when it asks to join a cluster. Its zero
// ID asks for any number.
type Request struct {
	ID      uint64            `json:"id"`
	UID     uint64            `json:"uid,string"`
	Key     ed25519.PublicKey `json:"key,omitempty"`
	Peer    string            `json:"peer"`
	Client  string            `json:"client"`
	Redis   string            `json:"redis,omitempty"`
	Version string            `json:"version"`
	Engine  Engine            `json:"engine,omitempty"` // that it will have; earlier versions name none
}

// Join returns the row that a joining node gets.
func Join(m *Map, a *Request) (Node, error) {
	row := Node{ID: a.ID}
	if a.Engine != m.Cluster.Engine {
		return row, fmt.Errorf("%w: the engine of this cluster is %v, and that of the joining node is %v; give that node the version of proa that the other nodes have", command.ErrRefused, m.Cluster.Engine, a.Engine)
	}
	highest := uint64(0)
	for _, o := range m.Nodes {
		highest = max(highest, o.ID)
		if o.UID == a.UID && !o.Removed {
			row = o // it asked before, and did not receive the answer
		}
		if o.Peer == a.Peer && o.UID != a.UID && o.ID != a.ID && o.Member() {
			return row, fmt.Errorf("%w: node %d already has the peer address %s; give this node its own with --peer-listen or --advertise-peer, or, if node %d is lost and this node should take over its address, %s", command.ErrRefused, o.ID, a.Peer, o.ID, freeAddress(o.ID))
		}
	}
	if row.ID == 0 {
		row.ID = highest + 1
	}
	if old, ok := m.Node(row.ID); ok && old.UID != a.UID {
		switch {
		case old.Removed:
			return row, fmt.Errorf("%w: node %d has been removed from this cluster, and its number cannot be used again; start with another --node-id, or without --node-id", command.ErrRefused, row.ID)
		case old.UID != 0:
			return row, fmt.Errorf("%w: node %d is already a member of this cluster with another data directory; if that node has lost its disk, %s", command.ErrRefused, row.ID, replaceAdvice(&old, a.Peer))
		}
		row = old
	}
	row.UID, row.Key, row.Peer, row.Client, row.Redis, row.Version = a.UID, a.Key, a.Peer, a.Client, a.Redis, a.Version
	return row, nil
}

// freeAddress is how a new node gets the address of a lost node.
func freeAddress(lost uint64) string {
	return fmt.Sprintf("remove that node first: \"proa member remove %d --force\"; its shards then have one replica fewer until this node has joined", lost)
}

// replaceAdvice is how a node with an empty directory, at the address peer,
// replaces a lost one.
func replaceAdvice(lost *Node, peer string) string {
	if lost.Peer != peer {
		return fmt.Sprintf("start this one as a new node, without --node-id, and then remove the lost one: \"proa member remove %d\"", lost.ID)
	}
	return "start this one as a new node, without --node-id and at another address (--peer-listen or --advertise-peer), and then remove the lost one; or, to keep the address, " + freeAddress(lost.ID)
}

// Expect returns the change with which a node of that number may join.
func Expect(m *Map, node uint64, address string) (Change, error) {
	row, known := m.Node(node)
	switch {
	case row.Removed:
		return Change{}, fmt.Errorf("%w: node %d has been removed, and its number cannot be used again; give the new node another number", command.ErrRefused, node)
	case known:
		return Change{}, fmt.Errorf("%w: node %d is already a member", command.ErrRefused, node)
	}
	return Node{ID: node, Peer: address}.Put(), nil
}

// present returns the row of a node that an operator has named.
func (m *Map) present(node uint64, already string) (Node, error) {
	row, known := m.Node(node)
	switch {
	case row.Removed:
		return row, fmt.Errorf("%w: node %d has been removed%s", command.ErrRefused, node, already)
	case !known:
		return row, fmt.Errorf("%w: there is no node %d; \"proa member list\" shows the members", command.ErrRefused, node)
	}
	return row, nil
}

const rejoin = "; it is no member any more: erase its data directory, and start it again as a new node, without --node-id"

// Drain returns the change after which a node leads nothing, or with undo may lead
// again, and what to say to the operator.
func Drain(m *Map, node uint64, undo bool) (Change, string, error) {
	row, err := m.present(node, rejoin)
	if err != nil {
		return Change{}, "", err
	}
	was := row.Draining
	row.Draining = !undo
	switch {
	case undo && !was:
		return row.Put(), fmt.Sprintf("node %d is not being drained; it can lead shards", node), nil
	case undo:
		return row.Put(), fmt.Sprintf("node %d can lead shards again", node), nil
	}
	for shard := range m.Shards {
		if r, on := m.Shards[shard].On(node); on && !r.Learner && !m.othersVote(shard, node) {
			return Change{}, "", fmt.Errorf("%w: no other node can take over leadership of %s from node %d", command.ErrRefused, m.name(shard), node)
		}
	}
	return row.Put(), fmt.Sprintf("node %d hands its leaderships to other nodes and takes no new ones", node), nil
}

// othersVote reports whether a node beside the given one votes in a shard and
// may lead it.
func (m *Map) othersVote(shard int, node uint64) bool {
	return slices.ContainsFunc(m.Shards[shard].Replicas, func(r Replica) bool {
		o, known := m.Node(r.Node)
		return r.Node != node && !r.Learner && known && o.Member() && !o.Draining && !o.Removing
	})
}

// Remove returns the change that begins the removal of a node, and what to say to
// the operator. Force accepts fewer replicas than the replication factor.
func Remove(m *Map, r *Reports, now time.Duration, node uint64, force bool) (Change, string, error) {
	row, err := m.present(node, " already")
	if err != nil {
		return Change{}, "", err
	}
	if row.UID == 0 {
		return Change{Key: nodeKey(node)}, fmt.Sprintf("node %d, which never joined, is no longer expected; its number can be used again", node), nil
	}
	others := 0
	for o := range m.Members() {
		if !o.Removing && o.ID != node {
			others++
		}
	}
	if others == 0 {
		return Change{}, "", fmt.Errorf("%w: node %d holds the last replicas; there is no node to move them to", command.ErrRefused, node)
	}
	if !r.Nodes[node].Up { // suspect is enough: it may be dead
		away := fmt.Sprintf("node %d has not reported for %v", node, r.Silent(node, now).Truncate(time.Millisecond))
		for shard := range m.Shards {
			if _, on := m.Shards[shard].On(node); on && len(m.Shards[shard].Replicas) == 1 {
				return Change{}, "", fmt.Errorf("%w: %s and holds the only replica of %s", command.ErrRefused, away, m.name(shard))
			}
		}
		if others < m.Cluster.Replicas && !force {
			return Change{}, "", fmt.Errorf("%w: %s, and without it only %s, but the replication factor is %d; start a new node first, at its own address (--peer-listen), or use --force to continue with fewer replicas until a new node joins", command.ErrRefused, away, remain(others), m.Cluster.Replicas)
		}
	}
	row.Removing = true
	return row.Put(), fmt.Sprintf("node %d is being removed: its replicas are moved first", node), nil
}

// Keep returns the change that cancels the removal of a node, and what to say to
// the operator.
func Keep(m *Map, node uint64) (Change, string, error) {
	row, err := m.present(node, rejoin)
	if err == nil && !row.Removing {
		err = fmt.Errorf("%w: node %d is not being removed", command.ErrRefused, node)
	}
	row.Removing = false
	return row.Put(), fmt.Sprintf("removal of node %d was cancelled", node), err
}

// remain says how many nodes are left.
func remain(nodes int) string {
	if nodes == 1 {
		return "1 node remains"
	}
	return fmt.Sprintf("%d nodes remain", nodes)
}

// Move returns the change that moves a shard's replica from one node to another.
func Move(m *Map, r *Reports, now time.Duration, shard int, from, to uint64) (Change, error) {
	row := m.Shards[shard]
	target, known := m.Node(to)
	old, held := row.On(from)
	_, there := row.On(to)
	refuse := func(format string, args ...any) (Change, error) {
		return Change{}, fmt.Errorf("%w: "+format, append([]any{command.ErrRefused}, args...)...)
	}
	switch {
	case shard == m.Meta():
		return Change{}, fmt.Errorf("%w: the meta group has a replica on every node", command.ErrInvalid)
	case !held:
		return refuse("node %d has no replica of %s; its replicas are on %v", from, m.name(shard), row.Nodes())
	case !known || !target.Member():
		return refuse("there is no node %d", to)
	case there:
		return refuse("node %d already has a replica of %s", to, m.name(shard))
	case target.Removing:
		return refuse("node %d is being removed", to)
	case !r.Nodes[to].Up:
		return refuse("node %d has not reported for %v; a replica can only move to a node that is up", to, r.Silent(to, now).Truncate(time.Millisecond))
	case !r.Settled(m, shard):
		return refuse("a replica of %s is already being moved; wait until \"proa shard list\" shows it settled", m.name(shard))
	}
	return Change{m.shardKey(shard), row.replace(from, to, old.Learner)}, nil
}

// Announced returns the change that takes over what a member says of its key,
// addresses and version; the zero Change where it is no member.
func Announced(m *Map, node uint64, said *Node) (Change, error) {
	row, ok := m.Node(node)
	if !ok || row.Removed {
		return Change{}, fmt.Errorf("%w: node %d is not a member of the cluster", command.ErrRefused, node)
	}
	if row.Key == nil {
		row.Key = said.Key
	}
	row.Peer, row.Client, row.Redis, row.Version = said.Peer, said.Client, said.Redis, said.Version
	return row.Put(), nil
}

// SetToken returns the change that makes token the join token, until ends (Unix ms).
func SetToken(m *Map, token string, ends uint64) Change {
	row := m.Cluster
	row.Token, row.TokenEnds = token, ends
	return Change{clusterKey, row}
}

// JoinToken returns what a node must know to join at a time (Unix ms); empty: nobody can
// join.
func (c *Cluster) JoinToken(now uint64) string {
	if c.TokenEnds != 0 && now >= c.TokenEnds {
		return ""
	}
	return c.Token
}

// NeedsToken reports whether the cluster was founded by a version without join
// tokens, and the versions of all nodes have them now.
func (m *Map) NeedsToken() bool { return m.Begun() && m.Cluster.Token == "" && m.Keyed() }
