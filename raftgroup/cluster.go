package raftgroup

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/storage"
)

// The meta group is a shard like any other, behind the last of the users', to
// which no slot leads. Its rows say what the cluster shall be; JSON, so that
// an operator can read them and a later version can add fields.
//
//	cluster      clusterRow
//	node/<n>     nodeRow
//	shard/<n>    shardRow; shard/meta is the meta group's own
const (
	clusterKey     = "cluster"
	nodeKeyPrefix  = "node/"
	shardKeyPrefix = "shard/"
	metaKeyName    = "meta"
)

// clusterRow holds what concerns the whole cluster.
type clusterRow struct {
	Replicas int    `json:"replicas"`        // replicas a shard shall have, where there are that many nodes
	Token    string `json:"token,omitempty"` // what a node must know to join; clusters of earlier versions have none at first
}

// nodeRow is a member. A row without UID stands for a node that may join and
// has not.
type nodeRow struct {
	ID       uint64    `json:"id"`
	UID      uint64    `json:"uid,string"`
	Key      publicKey `json:"key,omitempty"` // nil: the node has run earlier versions only
	Run      nodeRun   `json:"start"`         // the last that the meta group knows of
	Peer     string    `json:"peer"`
	Client   string    `json:"client"`
	Redis    string    `json:"redis,omitempty"` // for clients of the Redis protocol; rows of older versions have none
	Version  string    `json:"version"`
	Draining bool      `json:"draining,omitempty"`
	Removing bool      `json:"removing,omitempty"`
	// Removed rows stay, so that the number is never given out again.
	Removed bool `json:"removed,omitempty"`
}

// member reports whether the node is part of the cluster.
func (r *nodeRow) member() bool { return r.UID != 0 && !r.Removed }

// shardRow says where a shard's replicas shall be. Its leader brings the
// group's configuration there, step by step.
type shardRow struct {
	Replicas []replicaRow `json:"replicas"`
	// Incarnation is the highest that any replica of this shard has had on any
	// node.
	Incarnation uint32 `json:"incarnation"`
}

type replicaRow struct {
	Node        uint64 `json:"node"`
	Incarnation uint32 `json:"incarnation"`
	Learner     bool   `json:"learner,omitempty"` // keeps up, does not vote
}

func (r replicaRow) id() uint64 { return replicaID(r.Node, r.Incarnation) }

// on returns the replica on a node.
func (s *shardRow) on(node uint64) (replicaRow, bool) {
	for _, r := range s.Replicas {
		if r.Node == node {
			return r, true
		}
	}
	return replicaRow{}, false
}

func (s *shardRow) nodes() []uint64 {
	var nodes []uint64
	for _, r := range s.Replicas {
		nodes = append(nodes, r.Node)
	}
	slices.Sort(nodes)
	return nodes
}

// replace returns s with a replica on to instead of the one on from; zero
// nodes stand for none.
func (s shardRow) replace(from, to uint64, learner bool) shardRow {
	n := shardRow{Incarnation: s.Incarnation}
	for _, r := range s.Replicas {
		if r.Node != from {
			n.Replicas = append(n.Replicas, r)
		}
	}
	if to != 0 {
		n.Incarnation++
		n.Replicas = append(n.Replicas, replicaRow{Node: to, Incarnation: n.Incarnation, Learner: learner})
	}
	return n
}

// # Who votes
//
// An even number of voters survives no more than one less, and is stopped by the
// loss of one more node: a lone node that takes in a second voter is stopped by
// the loss of either. So replicas that are added keep up without a vote until two
// of them can get one together, in one joint change, or until the shard has as
// many replicas as the cluster was founded to have, which somebody has asked for.

// enfranchise returns s with votes for those of its learners that shall have one,
// and whose nodes are up. factor is how many replicas the shard is to have, most
// bounds who votes.
func (s shardRow) enfranchise(factor, most int, up func(node uint64) bool) shardRow {
	n := shardRow{Incarnation: s.Incarnation, Replicas: slices.Clone(s.Replicas)}
	vote, learn := 0, []*replicaRow(nil)
	for i := range n.Replicas {
		switch r := &n.Replicas[i]; {
		case !r.Learner:
			vote++
		case up(r.Node):
			learn = append(learn, r)
		}
	}
	for len(learn) > 0 {
		more := 2
		if vote%2 == 0 || vote+1 == factor {
			more = 1
		}
		if more > len(learn) || vote+more > most {
			break
		}
		for _, r := range learn[:more] {
			r.Learner = false
		}
		vote, learn = vote+more, learn[more:]
	}
	return n
}

// voters returns how many replicas shall vote.
func (s *shardRow) voters() int {
	n := 0
	for _, r := range s.Replicas {
		if !r.Learner {
			n++
		}
	}
	return n
}

// votingNodes returns the nodes whose replicas shall vote.
func (s *shardRow) votingNodes() (nodes []uint64) {
	for _, r := range s.Replicas {
		if !r.Learner {
			nodes = append(nodes, r.Node)
		}
	}
	slices.Sort(nodes)
	return nodes
}

// clusterMap is the meta group's state as one node has applied it. It is
// immutable.
type clusterMap struct {
	epoch   uint64 // grows with every change of a row
	cluster clusterRow
	nodes   []nodeRow  // by number
	shards  []shardRow // by number, the meta group's last
	// versions of the rows, for conditional writes
	versions map[string]uint64
}

// newClusterMap returns a map that holds nothing yet.
func newClusterMap(meta int) *clusterMap {
	return &clusterMap{shards: make([]shardRow, meta+1), versions: make(map[string]uint64)}
}

// begun reports whether the meta group holds anything yet.
func (m *clusterMap) begun() bool { return m != nil && m.cluster.Replicas > 0 }

// standalone reports whether no other node has ever been part of the cluster.
func (m *clusterMap) standalone() bool {
	joined := 0
	for i := range m.nodes {
		if m.nodes[i].UID != 0 {
			joined++
		}
	}
	return joined == 1
}

func (m *clusterMap) node(id uint64) (nodeRow, bool) {
	for i := range m.nodes {
		if m.nodes[i].ID == id {
			return m.nodes[i], true
		}
	}
	return nodeRow{}, false
}

// replica returns the replica of a shard that node shall hold.
func (m *clusterMap) replica(shard int, node uint64) (replicaRow, bool) {
	if shard >= len(m.shards) {
		return replicaRow{}, false
	}
	return m.shards[shard].on(node)
}

// rowVersion returns the version of a shard's row, which grows with each change
// of it.
func (m *clusterMap) rowVersion(shard int) uint64 {
	return m.versions[shardKey(shard, len(m.shards)-1)]
}

func nodeKey(id uint64) string { return nodeKeyPrefix + strconv.FormatUint(id, 10) }

func shardKey(shard, meta int) string {
	if shard == meta {
		return shardKeyPrefix + metaKeyName
	}
	return shardKeyPrefix + strconv.Itoa(shard)
}

// readMap reads the meta group's rows.
func readMap(store *storage.Store, meta int) (*clusterMap, error) {
	m := newClusterMap(meta)
	m.epoch = store.Revision(meta)
	var bad error
	err := store.Scan(storage.ScanOptions{Shards: []int{meta}}, func(key, value []byte, row storage.Row) bool {
		m.versions[string(key)] = row.Version
		bad = m.add(string(key), value, meta)
		return bad == nil
	})
	if err == nil {
		err = bad
	}
	if err != nil {
		return nil, fmt.Errorf("reading the meta group's rows: %w", err)
	}
	slices.SortFunc(m.nodes, func(a, b nodeRow) int { return int(int64(a.ID) - int64(b.ID)) })
	return m, nil
}

// add takes in one row. Rows of kinds it does not know are left to later
// versions.
func (m *clusterMap) add(key string, value []byte, meta int) error {
	var err error
	switch {
	case key == clusterKey:
		err = json.Unmarshal(value, &m.cluster)
	case strings.HasPrefix(key, nodeKeyPrefix):
		var n nodeRow
		if err = json.Unmarshal(value, &n); err == nil {
			m.nodes = append(m.nodes, n)
		}
	case strings.HasPrefix(key, shardKeyPrefix):
		shard := meta
		if name := key[len(shardKeyPrefix):]; name != metaKeyName {
			if shard, err = strconv.Atoi(name); err == nil && (shard < 0 || shard >= meta) {
				err = fmt.Errorf("no such shard")
			}
		}
		if err == nil {
			err = json.Unmarshal(value, &m.shards[shard])
		}
	}
	if err != nil {
		return fmt.Errorf("row %q: %w", key, err)
	}
	return nil
}

// refreshMap takes over what the meta group's rows say now.
func (n *Node) refreshMap() error {
	m, err := readMap(n.store, n.meta())
	if errors.Is(err, storage.ErrDamaged) {
		n.groups[n.meta()].breakDown(n)
		if n.cmap.Load() != nil {
			return nil // what is known has to do
		}
		n.logger.Error("cluster map is damaged; using the members recorded in the data directory until a copy of the map arrives from another node", "error", err)
		m, err = newClusterMap(n.meta()), nil
	}
	if err != nil {
		return err
	}
	n.cmap.Store(m)
	n.upgraded.Store(n.knowsKeys(m))
	if !m.begun() {
		return nil // what the directory remembers has to do
	}
	for i := range m.nodes {
		if r := &m.nodes[i]; n.hasPeer(r) {
			n.transport.SetPeer(r.ID, n.peerAddress(r))
		}
	}
	n.forgetRemoved(m)
	n.updateAlone(m)
	for _, g := range n.groups {
		g.reconcileAt = 0
	}
	return nil
}

// hasPeer reports whether a row is that of another member, which this node talks
// to.
func (n *Node) hasPeer(r *nodeRow) bool {
	return r.ID != n.id && r.member() && !n.identity.gaveUp(r.ID)
}

// forgetRemoved lets the transport forget nodes that are members no more.
func (n *Node) forgetRemoved(m *clusterMap) {
	for id := range n.peers {
		if r, _ := m.node(id); !n.hasPeer(&r) {
			n.transport.RemovePeer(id)
			n.runs.forget(id)
			delete(n.peers, id)
			n.known.forget(id)
		}
	}
	for i := range m.nodes {
		if r := &m.nodes[i]; n.hasPeer(r) {
			n.peers[r.ID] = true
		}
	}
}

// knowsKeys reports whether each member has run a version that has a key: then
// none can run a version of before any more, which does not open the directory.
func (n *Node) knowsKeys(m *clusterMap) bool {
	if m.begun() {
		return m.keyed()
	}
	founders := n.identity.Members
	return len(founders) > 0 && !slices.ContainsFunc(founders, func(r Member) bool { return r.Key == nil })
}

// keyed reports whether the keys of all members are known.
func (m *clusterMap) keyed() bool {
	return !slices.ContainsFunc(m.nodes, func(r nodeRow) bool { return r.member() && r.Key == nil })
}

// updateAlone notes whether there is anybody to beat for.
func (n *Node) updateAlone(m *clusterMap) {
	members := 0
	for i := range m.nodes {
		if m.nodes[i].member() {
			members++
		}
	}
	if n.alone.Swap(members <= 1) && members > 1 {
		n.logger.Info("the cluster now has more than one node: commands whose keys are in different shards are refused from now on (CROSS_SHARD; CROSSSLOT in the Redis protocol); give keys a common {tag} to keep them in one shard")
	}
}

// initialShards places the replicas of a new cluster: shard i on the nodes
// from the i-th on, the meta group on all, the first five of them voters.
func initialShards(nodes []uint64, shards, replicas int) []shardRow {
	rows := make([]shardRow, shards+1)
	for i := range shards {
		row := shardRow{Incarnation: 1}
		for k := range min(replicas, len(nodes)) {
			row.Replicas = append(row.Replicas, replicaRow{Node: nodes[(i+k)%len(nodes)], Incarnation: 1})
		}
		rows[i] = row
	}
	meta := shardRow{Incarnation: 1}
	for k, node := range nodes {
		meta.Replicas = append(meta.Replicas, replicaRow{Node: node, Incarnation: 1, Learner: k >= metaVotersMax})
	}
	rows[shards] = meta
	return rows
}

// metaVotersMax bounds the voters of the meta group; further nodes are
// learners. Five survive two failures.
const metaVotersMax = 5

// metaWrite is one change of a meta row, on condition that it is still at the
// version that was read.
type metaWrite struct {
	key   string
	value any // nil: the row goes
}

// proposeMeta proposes changes of meta rows, all or none, on condition that
// none of them has changed since m was read, and that no row that only guards
// the change has. done hears the result. The node must lead the meta group.
func (n *Node) proposeMeta(m *clusterMap, writes []metaWrite, guards []string, done command.Completer) error {
	c := command.Command{Kind: command.Txn}
	compare := func(key string) {
		c.Compares = append(c.Compares, command.Compare{Target: command.OnVersion, Relation: command.Equal, Key: []byte(key), Version: m.versions[key]})
	}
	for _, key := range guards {
		compare(key)
	}
	for _, w := range writes {
		compare(w.key)
		if w.value == nil {
			c.Ops = append(c.Ops, command.Command{Kind: command.Delete, Key: []byte(w.key)})
			continue
		}
		b, err := json.Marshal(w.value)
		if err != nil {
			return err
		}
		c.Ops = append(c.Ops, command.Command{Kind: command.Put, Key: []byte(w.key), Value: b})
	}
	return n.propose(n.meta(), &c, done, command.Tag{})
}
