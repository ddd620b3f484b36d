package raftgroup

import (
	"github.com/proa-kv/proa/bufpool"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/storage"
)

// Shards returns the number of shards.
func (n *Node) Shards() int { return len(n.groups) }

// ShardOf returns the shard that owns a slot (0..16383): equal, contiguous
// ranges in order.
func (n *Node) ShardOf(slot uint16) int { return int(slot) * len(n.groups) / slots }

// NowMillis is the node's wall clock, for the now of reads.
func (n *Node) NowMillis() uint64 { return n.clock.NowMillis() }

// ReadCached reads a row without touching the disk: it appends the value to
// dst (not with withValue false) and returns what is known of the row, or
// ReadMiss. now is a recent NowMillis.
func (n *Node) ReadCached(dst *bufpool.Buffer, shard int, key []byte, now uint64, withValue bool) (command.Row, command.ReadState) {
	g := n.groups[shard]
	if !g.serving.Load() {
		return command.Row{}, n.refusal()
	}
	row, hit := n.store.AppendCached(dst, shard, key, max(now, g.lastStamp.Load()), withValue)
	switch hit {
	case storage.Found:
		return command.Row(row), command.ReadFound
	case storage.Absent:
		return command.Row{}, command.ReadAbsent
	}
	return command.Row{}, command.ReadMiss
}

// Read is ReadCached for threads that may wait for the disk.
func (n *Node) Read(dst *bufpool.Buffer, shard int, key []byte, now uint64, withValue bool) (command.Row, command.ReadState) {
	g := n.groups[shard]
	if !g.serving.Load() {
		return command.Row{}, n.refusal()
	}
	row, found, err := n.store.Append(dst, shard, key, max(now, g.lastStamp.Load()), withValue)
	switch {
	case err != nil:
		n.logger.Error("reading a row", "shard", shard, "error", err)
		return command.Row{}, command.ReadFailed
	case !found:
		return command.Row{}, command.ReadAbsent
	}
	return command.Row(row), command.ReadFound
}

func (n *Node) refusal() command.ReadState {
	if n.failed.Load() {
		return command.ReadFailed
	}
	return command.ReadNotLeader
}

// Scan visits the rows of a range in key order over all shards, as of one
// moment, until visit returns false. Key and value are views, valid during the
// call of visit. It may wait for the disk.
func (n *Node) Scan(s *command.Scan, visit func(key, value []byte, row command.Row) bool) error {
	o := storage.ScanOptions{Start: s.Start, End: s.End, Reverse: s.Reverse, KeysOnly: s.KeysOnly, NowMillis: n.clock.NowMillis()}
	for _, g := range n.groups {
		if !g.serving.Load() {
			if n.failed.Load() {
				return command.ErrFailed
			}
			return command.ErrNotLeader
		}
		o.Shards = append(o.Shards, g.shard)
		o.NowMillis = max(o.NowMillis, g.lastStamp.Load())
	}
	return n.store.Scan(o, func(key, value []byte, row storage.Row) bool {
		return visit(key, value, command.Row(row))
	})
}
