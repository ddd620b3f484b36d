package redis

import (
	"slices"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/protocol"
)

// Who is who, for clients of the Redis protocol. There are two views, and every
// connection has the same:
//
//   - Without resp.redirect each node stands for the whole: one Redis with all
//     keys, which forwards. A client that asks for the cluster sees one
//     master, the node that it asks, and the others as its replicas.
//   - With resp.redirect there is a Redis Cluster. A node is the master of the
//     slots of the shards that it leads. It is nobody's replica then, though it
//     holds replicas: in Redis a node is one or the other, and client libraries
//     rely on it. Only nodes that lead nothing are listed as replicas.
//
// What concerns all keys (SCAN, KEYS, DBSIZE, RANDOMKEY, FLUSHALL) concerns those of the
// slots of which this node is the master. So a client that asks one node
// in the first view, or all masters in the second, meets each key once.
//
// Rejected: a view for each connection, by whether it has asked for the cluster.
// Client libraries ask on one connection and scan on others.

// slotRange is a range of slots with their master and its replicas.
type slotRange struct {
	first, last uint16
	master      *command.Member
	replicas    []*command.Member
}

// nodes are the master and then the replicas.
func (r *slotRange) nodes() []*command.Member {
	return append([]*command.Member{r.master}, r.replicas...)
}

// ranges are the ranges of all slots, in order. Neighbours differ.
func (l *Listener) ranges(t *command.Topology) []slotRange {
	if !l.redirect {
		self := member(t, l.cfg.Node)
		if self == nil || self.Redis == "" {
			return nil
		}
		all := slotRange{last: protocol.Slots - 1, master: self}
		for i := range t.Nodes {
			if n := &t.Nodes[i]; n != self && n.Redis != "" {
				all.replicas = append(all.replicas, n)
			}
		}
		return []slotRange{all}
	}
	masters := make([]*command.Member, len(t.Shards))
	for i := range t.Shards {
		masters[i] = masterOf(t, &t.Shards[i])
	}
	var ranges []slotRange
	for i := range t.Shards {
		if masters[i] == nil {
			continue
		}
		var replicas []*command.Member
		for _, id := range t.Shards[i].Replicas {
			if m := member(t, id); m != nil && m.Redis != "" && !slices.Contains(masters, m) {
				replicas = append(replicas, m)
			}
		}
		for _, slots := range t.Shards[i].Slots {
			ranges = append(ranges, slotRange{slots[0], slots[1], masters[i], replicas})
		}
	}
	slices.SortFunc(ranges, func(a, b slotRange) int { return int(a.first) - int(b.first) })
	return mergeRanges(ranges)
}

// masterOf is the node listed as the master of a shard's slots: its leader or, where
// that is not known or serves no Redis protocol, another node, the same
// whoever is asked. nil: no node serves it.
func masterOf(t *command.Topology, shard *command.ShardRoute) *command.Member {
	if m := member(t, shard.Leader); m != nil && m.Redis != "" {
		return m
	}
	var best *command.Member
	for i := range t.Nodes {
		n := &t.Nodes[i]
		holds := slices.Contains(shard.Replicas, n.ID)
		if n.Redis != "" && (best == nil || holds && !slices.Contains(shard.Replicas, best.ID)) {
			best = n
		}
	}
	return best
}

// mergeRanges makes one range of neighbours that have the same nodes.
func mergeRanges(ranges []slotRange) []slotRange {
	merged := ranges[:0]
	for _, r := range ranges {
		if n := len(merged); n > 0 {
			last := &merged[n-1]
			if int(last.last)+1 == int(r.first) && last.master == r.master && slices.Equal(last.replicas, r.replicas) {
				last.last = r.last
				continue
			}
		}
		merged = append(merged, r)
	}
	return merged
}

// shards are the shards whose keys this node answers for to clients that
// ask for all keys; false: those of all shards.
func (l *Listener) shards() (shards []uint16, confined bool) {
	if !l.redirect {
		return nil, false
	}
	t := l.topology()
	for i := range t.Shards {
		if m := masterOf(&t, &t.Shards[i]); m != nil && m.ID == l.cfg.Node {
			shards = append(shards, uint16(i))
		}
	}
	return shards, true
}
