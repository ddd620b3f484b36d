package raftgroup

import (
	"time"

	"github.com/proa-kv/proa/raftgroup/engine"
	"github.com/proa-kv/proa/raftgroup/placement"
)

// host is the node as its engine sees it; see engine.Host.
type host struct{ node *Node }

var _ engine.Host = host{}

// Fail stops the node.
func (h host) Fail(err error) { h.node.fail(err) }

// RolledBack marks the data directory as of no more use.
func (h host) RolledBack() { h.node.noteMark(h.node.dir.MarkRolledBack()) }

// Flush has the state machine begin to make durable what it holds.
func (h host) Flush() { h.node.Flush() }

// Kick has the node's driver run a group commit.
func (h host) Kick() { h.node.Kick() }

// Drive runs all group commits that are due.
func (h host) Drive() { h.node.Drive() }

// NoteFsync takes in how long a write of the log has taken.
func (h host) NoteFsync(took time.Duration) { h.node.noteFsync(took) }

// Heard notes a sign of life of another node.
func (h host) Heard(node uint64) {
	if h.node.known.noteAlive(node, h.node.clock.Boot()) {
		h.node.state.Set(greetDue)
	}
}

// Lost notes that messages to another node may have been lost.
func (h host) Lost(node uint64) {
	h.node.known.lose(node)
	h.node.state.Set(peerLost)
}

// KeepTime moves the cluster's time.
func (h host) KeepTime() { h.node.keepTime() }

// TickCluster does what concerns the cluster and is due with a tick.
func (h host) TickCluster() { h.node.tickCluster() }

// MapApplied takes over what the meta group's rows say now.
func (h host) MapApplied() error { return h.node.mapApplied() }

// MarkApplied takes in that a replica has applied a mark.
func (h host) MarkApplied(shard int, index uint64) { h.node.markApplied(shard, index) }

// ReplicaDown has it reported at once that a replica here is out of use, and its
// leadership given away.
func (h host) ReplicaDown() {
	h.node.engine.Post(func() {
		h.node.sendReports()
		h.node.balance()
	})
}

// Wanted reports whether the map wants this very replica here.
func (h host) Wanted(shard int, replica uint64) bool { return h.node.wanted(shard, replica) }

// ShardRow returns where the replicas of a shard must be.
func (h host) ShardRow(shard int) placement.Shard { return h.node.shardRow(shard) }

// LeaderOf returns the node that says that it leads a shard, 0 if none does.
func (h host) LeaderOf(shard int) uint64 { return h.node.known.leaderOf(shard, h.node.clock.Boot()) }

// Reconcile brings a shard's configuration one step nearer to what the map says.
func (h host) Reconcile(shard int) { h.node.reconcile(shard) }
