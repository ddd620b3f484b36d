package raftgroup

import (
	"time"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup/datadir"
	"github.com/proa-kv/proa/raftgroup/placement"
)

// controller has placement's decisions carried out: changes of the map, and
// leaderships that this node hands over.
type controller struct {
	node *Node

	tendDue int64       // Clock.Boot
	here    []residence // by shard
}

// residence is since when a replica is here, on Clock.Boot.
type residence struct {
	replica uint64 // 0: there is none
	since   int64
}

// tickCluster does what concerns the cluster and is due with this tick. For the
// pass.
func (co *controller) tickCluster() {
	cm := co.node.cmap.Load()
	co.node.watchDisk()
	for shard := range co.node.views {
		if err := co.considerRetiring(shard, cm); err != nil {
			co.node.fail(err)
			return
		}
	}
	now := co.node.clock.Boot()
	if co.node.state.Clear(greetDue) || now >= co.node.reportDue {
		co.node.reportDue = now + int64(reportEvery)
		co.node.sendReports()
	}
	if now < co.tendDue {
		return
	}
	co.tendDue = now + int64(tendEvery)
	co.balance()
	if co.node.views[co.node.meta()].Leads.Load() {
		co.control(cm)
	} else {
		co.announce(cm)
	}
}

// control is what the leader of the meta group does: it decides where replicas
// must be. The groups' own leaders carry it out.
func (co *controller) control(cm *placement.Map) {
	if co.node.state.Is(controlling) {
		return // the last change is still on its way
	}
	changes := co.changes(cm)
	if len(changes) == 0 {
		return
	}
	co.node.state.Set(controlling)
	if err := co.proposeMeta(cm, changes, (*mapChange)(co.node)); err != nil {
		co.node.state.Clear(controlling)
	}
}

// changes returns what the map lacks: first its first rows, then what placement
// asks for, then what the rows should say of nodes and cluster.
func (co *controller) changes(cm *placement.Map) []placement.Change {
	if !cm.Begun() {
		return co.firstRows()
	}
	now := co.node.clock.Boot()
	policy := placement.Policy{ReplaceAfter: co.node.opt.ReplaceAfter, Lost: co.node.dir.Lost}
	if changes := placement.Plan(cm, co.node.reports(now), time.Duration(now), policy); len(changes) > 0 {
		return changes
	}
	if row, ok := cm.Node(co.node.id); ok && co.addressChanged(&row, co.node.id) {
		return []placement.Change{co.withAddresses(row).Put()}
	}
	if changes := co.node.newRuns(cm); len(changes) > 0 || !cm.NeedsToken() {
		return changes
	}
	return []placement.Change{placement.SetToken(cm, datadir.NewToken(), tokenOver)}
}

// reports is what is known of the cluster's nodes and shards.
func (rx *reportExchange) reports(now int64) *placement.Reports {
	return rx.known.placement(rx.node.id, len(rx.node.views), now, rx.node.startedAt)
}

// mapChange takes the outcome of a change of the map.
type mapChange Node

// Complete allows the next change.
func (c *mapChange) Complete(command.Tag, command.Outcome, *command.Result) {
	c.state.Clear(controlling)
}

// firstRows returns the rows of a new cluster, where this node may write them.
func (co *controller) firstRows() []placement.Change {
	if !co.node.dir.Founder || co.node.store.Damaged(co.node.meta()) {
		return nil
	}
	// Without a token that the founders were given nobody can join before an operator asks
	// for one; the row has one all the same, so that strangers are not taken for nodes of a
	// version without tokens.
	token, ends := co.node.opt.JoinToken, co.node.NowMillis()+uint64(foundingTokenTTL.Milliseconds())
	if token == "" {
		token, ends = datadir.NewToken(), tokenOver
	}
	var nodes []placement.Node
	for _, m := range co.node.dir.Members {
		nodes = append(nodes, placement.Node{ID: m.ID, UID: m.UID, Key: m.Key, Peer: m.Peer, Client: m.Client, Redis: m.Redis, Version: co.node.opt.Version})
	}
	return placement.Found(placement.Cluster{Replicas: co.node.dir.Replicas, Token: token, TokenEnds: ends, Engine: co.node.dir.Engine}, nodes, co.node.meta())
}

const (
	// foundingTokenTTL is how long a token with which the cluster is founded is good for
	// others to join.
	foundingTokenTTL = 24 * time.Hour
	// tokenOver is the end of a token that nobody is told.
	tokenOver = 1
)

// addressChanged reports whether this node's row is behind what the node says
// of itself, and leader, that of the meta group, would put it right: one of an
// earlier version leaves the key out.
func (co *controller) addressChanged(row *placement.Node, leader uint64) bool {
	keyless := row.Key == nil && (leader == co.node.id || co.node.transport.Version(leader) >= keysSince)
	return keyless || row.Peer != co.node.opt.PeerAddress || row.Client != co.node.opt.ClientAddress || row.Redis != co.node.opt.RedisAddress || row.Version != co.node.opt.Version
}

// keysSince is the version of the peer protocol since which nodes have keys.
const keysSince = 3

func (co *controller) withAddresses(row placement.Node) placement.Node {
	row.Key = co.node.dir.Key.Public()
	row.Peer, row.Client, row.Redis, row.Version = co.node.opt.PeerAddress, co.node.opt.ClientAddress, co.node.opt.RedisAddress, co.node.opt.Version
	return row
}
