package raftgroup

import (
	"time"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup/datadir"
	"github.com/proa-kv/proa/raftgroup/placement"
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
	if n.state.clear(greetDue) || now >= n.reportDue {
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

// control is what the leader of the meta group does: it decides where replicas
// must be. The groups' own leaders carry it out.
func (n *Node) control(cm *placement.Map) {
	if n.state.is(controlling) {
		return // the last change is still on its way
	}
	changes := n.changes(cm)
	if len(changes) == 0 {
		return
	}
	n.state.set(controlling)
	if err := n.proposeMeta(cm, changes, (*controller)(n)); err != nil {
		n.state.clear(controlling)
	}
}

// changes returns what the map lacks: first its first rows, then what placement
// asks for, then what the rows should say of nodes and cluster.
func (n *Node) changes(cm *placement.Map) []placement.Change {
	if !cm.Begun() {
		return n.firstRows()
	}
	now := n.clock.Boot()
	policy := placement.Policy{ReplaceAfter: n.opt.ReplaceAfter, Lost: n.dir.Lost}
	if changes := placement.Plan(cm, n.reports(now), time.Duration(now), policy); len(changes) > 0 {
		return changes
	}
	if row, ok := cm.Node(n.id); ok && n.addressChanged(&row, n.id) {
		return []placement.Change{n.withAddresses(row).Put()}
	}
	if changes := n.newRuns(cm); len(changes) > 0 || !cm.NeedsToken() {
		return changes
	}
	return []placement.Change{placement.SetToken(cm, datadir.NewToken())}
}

// reports is what is known of the cluster's nodes and shards.
func (n *Node) reports(now int64) *placement.Reports {
	return n.known.placement(n.id, len(n.groups), now, n.startedAt)
}

// controller takes the outcome of a change of the map.
type controller Node

// Complete allows the next change.
func (c *controller) Complete(command.Tag, command.Outcome, *command.Result) {
	c.state.clear(controlling)
}

// firstRows returns the rows of a new cluster, where this node may write them.
func (n *Node) firstRows() []placement.Change {
	if !n.dir.Founder || n.store.Damaged(n.meta()) {
		return nil
	}
	token := n.opt.JoinToken
	if token == "" {
		token = datadir.NewToken()
	}
	var nodes []placement.Node
	for _, m := range n.dir.Members {
		nodes = append(nodes, placement.Node{ID: m.ID, UID: m.UID, Key: m.Key, Peer: m.Peer, Client: m.Client, Redis: m.Redis, Version: n.opt.Version})
	}
	return placement.Found(placement.Cluster{Replicas: n.dir.Replicas, Token: token}, nodes, n.meta())
}

// addressChanged reports whether this node's row is behind what the node says
// of itself, and leader, that of the meta group, would put it right: one of an
// earlier version leaves the key out.
func (n *Node) addressChanged(row *placement.Node, leader uint64) bool {
	keyless := row.Key == nil && (leader == n.id || n.transport.Version(leader) >= keysSince)
	return keyless || row.Peer != n.opt.PeerAddress || row.Client != n.opt.ClientAddress || row.Redis != n.opt.RedisAddress || row.Version != n.opt.Version
}

// keysSince is the version of the peer protocol since which nodes have keys.
const keysSince = 3

func (n *Node) withAddresses(row placement.Node) placement.Node {
	row.Key = n.dir.Key.Public()
	row.Peer, row.Client, row.Redis, row.Version = n.opt.PeerAddress, n.opt.ClientAddress, n.opt.RedisAddress, n.opt.Version
	return row
}
