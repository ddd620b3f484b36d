// Package placement decides where the replicas of a cluster's shards are: which
// nodes get them, which of them vote, which nodes may join or leave, and which
// leaderships move. The decisions are pure: they depend on the rows of the meta
// group (Map), on what nodes have reported (Reports) and on the time, all of which
// the caller passes in, and they return the rows to write (Change).
//
//	map.go       the rows of the meta group
//	engine.go    what runs the Raft groups
//	access.go    users and roles among those rows
//	replica.go   the numbers of replicas
//	voters.go    which replicas vote
//	plan.go      what the leader of the meta group changes by itself
//	members.go   what a node or an operator asks it to change
//	handover.go  which leaderships a node hands over
package placement

import (
	"cmp"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"

	"github.com/proa-kv/proa/access"
)

// The meta group is a shard like any other, numbered after the last shard of
// users; no slot belongs to it. Its rows say what the cluster must be. They are
// JSON, so that an operator can read them and a later version can add fields.
//
//	cluster      Cluster
//	node/<n>     Node
//	shard/<n>    Shard; shard/meta is the meta group's own
//
// and those of access.go.
const (
	clusterKey     = "cluster"
	nodeKeyPrefix  = "node/"
	shardKeyPrefix = "shard/"

	// MetaName stands for the number of the meta group in keys and outputs.
	MetaName = "meta"
)

// Cluster is the row about the whole cluster.
type Cluster struct {
	Replicas int    `json:"replicas"`        // the replication factor: replicas of each shard, where there are as many nodes
	Token    string `json:"token,omitempty"` // the join token; clusters founded by earlier versions have none at first
	// TokenEnds is when Token ends, in Unix ms of the cluster's time; 0: never, as tokens of
	// earlier versions.
	TokenEnds uint64 `json:"token_ends,omitempty"`
	Engine    Engine `json:"engine,omitempty"`
}

// Node is the row of a member. A row without UID stands for a node that may join
// and has not.
type Node struct {
	ID       uint64            `json:"id"`
	UID      uint64            `json:"uid,string"`
	Key      ed25519.PublicKey `json:"key,omitempty"` // nil: the node has run earlier versions only
	Run      Run               `json:"start"`         // the last that the meta group knows of
	Peer     string            `json:"peer"`
	Client   string            `json:"client"`
	Redis    string            `json:"redis,omitempty"` // for clients of the Redis protocol; rows of older versions have none
	Version  string            `json:"version"`
	Draining bool              `json:"draining,omitempty"`
	Removing bool              `json:"removing,omitempty"`
	// Removed rows stay, so that the number is never given out again.
	Removed bool `json:"removed,omitempty"`
}

// Member reports whether the node is part of the cluster.
func (r *Node) Member() bool { return r.UID != 0 && !r.Removed }

// Run is one start of a node.
type Run struct {
	Generation uint64 `json:"generation"` // one higher than that of the run before
	Number     uint64 `json:"run,string"` // random
	Began      uint64 `json:"began"`      // position of the log at the start
}

// Shard is the row of a shard: where its replicas must be. The shard's leader
// brings the Raft configuration there, step by step.
type Shard struct {
	Replicas []Replica `json:"replicas"`
	// Incarnation is the highest that any replica of this shard has had on any
	// node.
	Incarnation uint32 `json:"incarnation"`
}

// On returns the replica on a node.
func (s *Shard) On(node uint64) (Replica, bool) {
	i := slices.IndexFunc(s.Replicas, func(r Replica) bool { return r.Node == node })
	if i < 0 {
		return Replica{}, false
	}
	return s.Replicas[i], true
}

// Nodes returns the nodes of all replicas, in order.
func (s *Shard) Nodes() []uint64 { return s.nodes(func(Replica) bool { return true }) }

// VotingNodes returns the nodes whose replicas must vote, in order.
func (s *Shard) VotingNodes() []uint64 { return s.nodes(func(r Replica) bool { return !r.Learner }) }

func (s *Shard) nodes(of func(Replica) bool) (nodes []uint64) {
	for _, r := range s.Replicas {
		if of(r) {
			nodes = append(nodes, r.Node)
		}
	}
	slices.Sort(nodes)
	return nodes
}

// replace returns s with a replica on to instead of the one on from; zero nodes
// stand for none.
func (s Shard) replace(from, to uint64, learner bool) Shard {
	n := Shard{Incarnation: s.Incarnation}
	for _, r := range s.Replicas {
		if r.Node != from {
			n.Replicas = append(n.Replicas, r)
		}
	}
	if to != 0 {
		n.Incarnation++
		n.Replicas = append(n.Replicas, Replica{Node: to, Incarnation: n.Incarnation, Learner: learner})
	}
	return n
}

// Map is the meta group's state as one node has applied it. A Map in use is
// immutable.
type Map struct {
	Epoch    uint64 // grows with every change of a row
	Cluster  Cluster
	Nodes    []Node            // by number
	Shards   []Shard           // by number, the meta group's last
	Versions map[string]uint64 // of the rows, for conditional writes
	Access   access.Directory  // users and roles

	access accessRow
}

// NewMap returns a map without rows of a cluster with so many shards, the meta
// group not counted.
func NewMap(shards int) *Map {
	return &Map{Shards: make([]Shard, shards+1), Versions: make(map[string]uint64)}
}

// Meta is the number of the meta group.
func (m *Map) Meta() int { return len(m.Shards) - 1 }

// Begun reports whether the meta group holds anything yet.
func (m *Map) Begun() bool { return m != nil && m.Cluster.Replicas > 0 }

// Standalone reports whether no other node has ever been part of the cluster.
func (m *Map) Standalone() bool {
	joined := 0
	for i := range m.Nodes {
		if m.Nodes[i].UID != 0 {
			joined++
		}
	}
	return joined == 1
}

// Node returns the row of a node.
func (m *Map) Node(id uint64) (Node, bool) {
	i := slices.IndexFunc(m.Nodes, func(r Node) bool { return r.ID == id })
	if i < 0 {
		return Node{}, false
	}
	return m.Nodes[i], true
}

// Members yields the rows of the nodes that are part of the cluster.
func (m *Map) Members() iter.Seq[*Node] {
	return func(yield func(*Node) bool) {
		for i := range m.Nodes {
			if r := &m.Nodes[i]; r.Member() && !yield(r) {
				return
			}
		}
	}
}

// Replica returns the replica of a shard that a node must hold.
func (m *Map) Replica(shard int, node uint64) (Replica, bool) {
	if shard >= len(m.Shards) {
		return Replica{}, false
	}
	return m.Shards[shard].On(node)
}

// Version returns the version of a shard's row, which grows with each change of
// it.
func (m *Map) Version(shard int) uint64 { return m.Versions[m.shardKey(shard)] }

// Keyed reports whether the keys of all members are known.
func (m *Map) Keyed() bool {
	return !slices.ContainsFunc(m.Nodes, func(r Node) bool { return r.Member() && r.Key == nil })
}

func nodeKey(id uint64) string { return nodeKeyPrefix + strconv.FormatUint(id, 10) }

func (m *Map) shardKey(shard int) string {
	if shard == m.Meta() {
		return shardKeyPrefix + MetaName
	}
	return shardKeyPrefix + strconv.Itoa(shard)
}

// name is what an operator calls a shard.
func (m *Map) name(shard int) string { return ShardName(shard, m.Meta()) }

// ShardName is what an operator calls a shard of a cluster whose meta group has
// the number meta.
func ShardName(shard, meta int) string {
	if shard == meta {
		return "the meta group"
	}
	return fmt.Sprintf("shard %d", shard)
}

// Add takes in a row and its version. Rows of unknown kinds are left to later
// versions of the program.
func (m *Map) Add(key string, value []byte, version uint64) (err error) {
	m.Versions[key] = version
	known := false
	switch known, err = m.addAccess(key, value); {
	case known:
	case key == clusterKey:
		err = json.Unmarshal(value, &m.Cluster)
	case strings.HasPrefix(key, nodeKeyPrefix):
		var r Node
		if err = json.Unmarshal(value, &r); err == nil {
			at, _ := slices.BinarySearchFunc(m.Nodes, r.ID, func(o Node, id uint64) int { return cmp.Compare(o.ID, id) })
			m.Nodes = slices.Insert(m.Nodes, at, r)
		}
	case strings.HasPrefix(key, shardKeyPrefix):
		shard := m.Meta()
		if name := key[len(shardKeyPrefix):]; name != MetaName {
			if shard, err = strconv.Atoi(name); err == nil && (shard < 0 || shard >= m.Meta()) {
				err = errors.New("no such shard")
			}
		}
		if err == nil {
			err = json.Unmarshal(value, &m.Shards[shard])
		}
	}
	if err != nil {
		return fmt.Errorf("row %q: %w", key, err)
	}
	return nil
}

// Change is a change of a row of the map. It takes effect on condition that the
// row is still at the version that was read.
type Change struct {
	Key string
	Row any // nil: the row is deleted
}

// Put is the change that writes the row of a node.
func (r Node) Put() Change { return Change{nodeKey(r.ID), r} }

// Found returns the first rows of a cluster.
func Found(c Cluster, nodes []Node, shards int) []Change {
	m := NewMap(shards)
	changes := []Change{{clusterKey, c}}
	var ids []uint64
	for _, r := range nodes {
		changes = append(changes, r.Put())
		ids = append(ids, r.ID)
	}
	for shard, row := range Initial(ids, shards, c.Replicas) {
		changes = append(changes, Change{m.shardKey(shard), row})
	}
	return changes
}

// Initial places the replicas of a new cluster: shard i on the nodes from the i-th
// on, the meta group on all nodes, the first five of them voters.
func Initial(nodes []uint64, shards, replicas int) []Shard {
	rows := make([]Shard, shards+1)
	for i := range shards {
		row := Shard{Incarnation: 1}
		for k := range min(replicas, len(nodes)) {
			row.Replicas = append(row.Replicas, Replica{Node: nodes[(i+k)%len(nodes)], Incarnation: 1})
		}
		rows[i] = row
	}
	meta := Shard{Incarnation: 1}
	for k, node := range nodes {
		meta.Replicas = append(meta.Replicas, Replica{Node: node, Incarnation: 1, Learner: k >= metaVotersMax})
	}
	rows[shards] = meta
	return rows
}
