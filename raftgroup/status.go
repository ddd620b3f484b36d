package raftgroup

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup/datadir"
	"github.com/proa-kv/proa/raftgroup/engine"
	"github.com/proa-kv/proa/raftgroup/placement"
	"github.com/proa-kv/proa/storage"
)

// Status is what an operator wants to know of a node.
type Status struct {
	Node          uint64        `json:"node"`
	Cluster       string        `json:"cluster"`
	Engine        string        `json:"engine"` // that runs the cluster's Raft groups
	Failed        bool          `json:"failed"`
	Slow          bool          `json:"slow"`            // the log's disk stalls
	ClockOff      bool          `json:"clock_off"`       // the wall clock is too far from the other nodes'
	ClockOffset   int64         `json:"clock_offset_ms"` // by how much it is ahead of them, or of the time that has elapsed
	TimeBehind    int64         `json:"time_behind_ms"`  // what the cluster's time has still to be moved towards the wall clocks; negative: it is ahead
	Shards        []ShardStatus `json:"shards"`
	LogBytes      int64         `json:"log_bytes"`
	Fsyncs        uint64        `json:"fsyncs"`
	FsyncMicros   float64       `json:"fsync_mean_us"` // mean of log write and fdatasync
	Passes        uint64        `json:"passes"`
	ReplayEntries uint64        `json:"replay_entries"`
	ReplayMillis  int64         `json:"replay_ms"`
	Storage       storage.Stats `json:"storage"`

	// Damage is what files of the state are known to be damaged.
	Damage []storage.DamagedFile `json:"damage,omitempty"`
	// ReplayDamaged is how many operations of the log the start could not carry
	// out again for it.
	ReplayDamaged uint64 `json:"replay_damaged,omitempty"`
}

// ShardStatus is one shard's part of a Status.
type ShardStatus struct {
	Shard   int    `json:"shard"` // that of the meta group is Node.Shards; in JSON it is "meta"
	Leader  uint64 `json:"leader"`
	Term    uint64 `json:"term"`
	Commit  uint64 `json:"commit"`
	Applied uint64 `json:"applied"`
	Durable uint64 `json:"durable"` // applied and safe without the log
	First   uint64 `json:"log_first"`
	Last    uint64 `json:"log_last"`
	Queued  int    `json:"queued"`
	Serving bool   `json:"serving"` // led here
	Held    bool   `json:"held"`    // a replica is here
	Damaged bool   `json:"damaged,omitempty"`

	meta bool
}

// MarshalJSON calls the meta group by the name that operators know.
func (s ShardStatus) MarshalJSON() ([]byte, error) {
	type numbered ShardStatus
	if !s.meta {
		return json.Marshal(numbered(s))
	}
	return json.Marshal(struct {
		Shard string `json:"shard"`
		numbered
	}{placement.MetaName, numbered(s)})
}

// Status returns a snapshot of the node's state. Its parts are each read
// atomically, not all at one moment.
func (n *Node) Status() Status {
	counters := n.engine.Counters()
	s := Status{
		Node: n.id, Cluster: fmt.Sprintf("%016x", n.dir.Cluster), Engine: n.dir.Engine.String(), Failed: n.state.Is(engine.Failed), Slow: n.state.Is(engine.Slow),
		ClockOff: n.state.Is(clockOff), ClockOffset: n.clockOffset.Load(), TimeBehind: n.time.Behind.Load() / 1000,
		LogBytes: n.log.SizeBytes(), Fsyncs: counters.Fsyncs, Passes: counters.Passes,
		ReplayEntries: n.replay.Entries, ReplayMillis: n.replay.Elapsed.Milliseconds(),
		Storage: n.store.Stats(), Damage: n.store.Damage(), ReplayDamaged: n.replay.Damaged,
	}
	if s.Fsyncs > 0 {
		s.FsyncMicros = float64(counters.FsyncNanos) / float64(s.Fsyncs) / float64(time.Microsecond)
	}
	for shard, v := range n.views {
		c := n.engine.ShardCounters(shard)
		s.Shards = append(s.Shards, ShardStatus{
			Shard: shard, Leader: v.Leader.Load(), Term: v.Term.Load(), Commit: v.Committed.Load(),
			Applied: n.store.Applied(shard), Durable: n.store.Durable(shard),
			First: c.First, Last: c.Last, Queued: c.Queued, Serving: v.Leads.Load(), Held: v.Held.Load(),
			Damaged: v.Broken.Load() || n.store.Damaged(shard), meta: shard == n.meta(),
		})
	}
	return s
}

// StatusJSON is Status as JSON.
func (n *Node) StatusJSON() ([]byte, error) { return json.Marshal(n.Status()) }

// Identity returns what the data directory remembers about the node.
func (n *Node) Identity() datadir.Identity { return n.dir.Identity }

// Replay returns what opening the node had to catch up with.
func (n *Node) Replay() Replay { return n.replay }

// Checksum returns a shard's checksum and the applied index it holds at (A1).
func (n *Node) Checksum(shard int) (sum, applied uint64, err error) { return n.store.Checksum(shard) }

// Topology says who serves what. address is this node's own, where it has not
// been given one to send to others.
func (n *Node) Topology(address string) command.Topology {
	t := command.Topology{Epoch: max(n.Epoch(), 1)}
	m := n.cmap.Load()
	for row := range m.Members() {
		t.Nodes = append(t.Nodes, command.Member{ID: row.ID, Address: row.Client, Redis: row.Redis})
	}
	self := slices.IndexFunc(t.Nodes, func(m command.Member) bool { return m.ID == n.id })
	switch {
	case self < 0:
		t.Nodes = append(t.Nodes, command.Member{ID: n.id, Address: address})
	case t.Nodes[self].Address == "":
		t.Nodes[self].Address = address
	}
	for shard := range n.meta() {
		first, last := slotRange(shard, n.meta())
		route := command.ShardRoute{Leader: n.Leader(shard), Slots: [][2]uint16{{uint16(first), uint16(last)}}}
		if m.Begun() {
			route.Replicas = m.Shards[shard].Nodes()
		}
		t.Shards = append(t.Shards, route)
	}
	return t
}
