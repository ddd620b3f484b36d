package raftgroup

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup/datadir"
	"github.com/proa-kv/proa/raftgroup/engine"
	"github.com/proa-kv/proa/raftgroup/placement"
	"github.com/proa-kv/proa/storage"
)

// mapApplied takes over what the meta group's rows say now.
func (ms *members) mapApplied() error {
	m, err := datadir.ReadMap(ms.node.store, ms.node.meta())
	if errors.Is(err, storage.ErrDamaged) {
		ms.node.engine.BreakDown(ms.node.meta())
		if ms.cmap.Load() != nil {
			return nil // what is known has to do
		}
		ms.node.logger.Error("cluster map is damaged; using the members recorded in the data directory until a copy of the map arrives from another node", "error", err)
		m, err = placement.NewMap(ms.node.meta()), nil
	}
	if err != nil {
		return err
	}
	if own := ms.node.dir.Engine; m.Begun() && m.Cluster.Engine != own {
		return fmt.Errorf("%w: its engine is %v, but the cluster map in %s/ says %v; restore the matching files", datadir.ErrBadDirectory, own, datadir.StateDir, m.Cluster.Engine)
	}
	if was := ms.cmap.Load(); was == nil || was.AccessVersion() != m.AccessVersion() {
		ms.policy.Store(m.Access.Policy())
	}
	ms.cmap.Store(m)
	ms.node.state.Put(engine.Upgraded, ms.knowsKeys(m))
	if !m.Begun() {
		return nil // what the directory remembers has to do
	}
	for r := range m.Members() {
		if ms.hasPeer(r) {
			ms.node.transport.SetPeer(r.ID, ms.peerAddress(r))
		}
	}
	ms.forgetRemoved(m)
	ms.updateAlone(m)
	return nil
}

// hasPeer reports whether a row is that of another member, which this node talks
// to.
func (ms *members) hasPeer(r *placement.Node) bool {
	return r.ID != ms.node.id && r.Member() && !ms.node.dir.GaveUp(r.ID)
}

// forgetRemoved lets the transport forget nodes that are members no more.
func (ms *members) forgetRemoved(m *placement.Map) {
	for id := range ms.peers {
		if r, _ := m.Node(id); !ms.hasPeer(&r) {
			ms.node.transport.RemovePeer(id)
			ms.runs.Forget(id)
			delete(ms.peers, id)
			ms.node.known.forget(id)
		}
	}
	for r := range m.Members() {
		if ms.hasPeer(r) {
			ms.peers[r.ID] = true
		}
	}
}

// knowsKeys reports whether each member has run a version that has a key: then
// none can run a version of before any more, which does not open the directory.
func (ms *members) knowsKeys(m *placement.Map) bool {
	if m.Begun() {
		return m.Keyed()
	}
	founders := ms.node.dir.Members
	return len(founders) > 0 && !slices.ContainsFunc(founders, func(r datadir.Member) bool { return r.Key == nil })
}

// updateAlone notes whether there is anybody to beat for.
func (ms *members) updateAlone(m *placement.Map) {
	members := 0
	for range m.Members() {
		members++
	}
	if ms.node.state.Put(engine.Alone, members <= 1) && members > 1 {
		ms.node.logger.Info("the cluster now has more than one node: commands whose keys are in different shards are refused from now on (CROSS_SHARD; CROSSSLOT in the Redis protocol); give keys a common {tag} to keep them in one shard")
	}
}

// proposeMeta proposes changes of meta rows, all or none, on condition that
// none of them has changed since m was read. The outcome goes to done. The node
// must lead the meta group.
func (co *controller) proposeMeta(m *placement.Map, writes []placement.Change, done command.Completer) error {
	c := command.Command{Kind: command.Txn}
	for _, w := range writes {
		c.Compares = append(c.Compares, command.Compare{Target: command.OnVersion, Relation: command.Equal, Key: []byte(w.Key), Version: m.Versions[w.Key]})
		if w.Row == nil {
			c.Ops = append(c.Ops, command.Command{Kind: command.Delete, Key: []byte(w.Key)})
			continue
		}
		b, err := json.Marshal(w.Row)
		if err != nil {
			return err
		}
		c.Ops = append(c.Ops, command.Command{Kind: command.Put, Key: []byte(w.Key), Value: b})
	}
	return co.node.propose(co.node.meta(), &c, done, command.Tag{})
}
