//go:build linux

package failover

import (
	"context"
	"fmt"
	"time"

	"github.com/proa-kv/proa/bench/rig"
	"github.com/proa-kv/proa/command"
)

// size is the number of nodes of a cluster.
const size = 3

// busiestOf returns the node that leads most shards, and which these are. Of
// several it takes each in turn, by the number of the round.
func busiestOf(ctx context.Context, c *rig.Cluster, round int) (*rig.Node, map[int]bool, error) {
	s, err := rig.Status(ctx, c.Nodes[0])
	if err != nil {
		return nil, nil, err
	}
	id := busiest(s, round)
	led := map[int]bool{}
	for _, g := range s.Shards {
		if g.Leader == id && g.Shard != command.MetaShard {
			led[g.Shard] = true
		}
	}
	return c.Nodes[id-1], led, nil
}

// busiest returns the number of the node that leads most shards; of several,
// one after the other from round to round.
func busiest(s *command.ClusterStatus, round int) uint64 {
	led := map[uint64]int{}
	for _, g := range s.Shards {
		if g.Shard != command.MetaShard {
			led[g.Leader]++
		}
	}
	most := uint64(0)
	for i := range uint64(size) {
		if id := (uint64(round)+i)%size + 1; most == 0 || led[id] > led[most] {
			most = id
		}
	}
	return most
}

// successor returns the leader of a shard and the node that is to lead it next:
// the one with the next number.
func successor(s *command.ClusterStatus, shard int) (leader, next uint64, err error) {
	for _, g := range s.Shards {
		if g.Shard == shard && g.Leader != 0 {
			return g.Leader, g.Leader%size + 1, nil
		}
	}
	return 0, 0, fmt.Errorf("shard %d has no leader", shard)
}

// transferPatience is for how long a transfer is asked for: the cluster may move the
// same leader for reasons of its own, and a node leads nothing for ten seconds after
// its disk has stalled.
const (
	transferPatience = 30 * time.Second
	transferPause    = 100 * time.Millisecond
)

// transfer moves the leadership of a shard to the node with the next number.
func transfer(ctx context.Context, c *rig.Cluster, shard int) error {
	var refused error
	for begin := time.Now(); time.Since(begin) < transferPatience; {
		s, err := rig.Status(ctx, c.Nodes[0])
		if err != nil {
			return err
		}
		leader, next, err := successor(s, shard)
		if err == nil {
			err = rig.Ask(ctx, c.Nodes[leader-1], command.AdminTransfer, command.ShardArgs{Shard: shard, To: next}, &command.Done{})
		}
		if err == nil {
			return nil
		}
		refused = err
		if err := rig.Pause(ctx, transferPause); err != nil {
			return err
		}
	}
	return fmt.Errorf("shard %d cannot be transferred: %w", shard, refused)
}
