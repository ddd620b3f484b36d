package command

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestShardListJSON: the meta group has its name.
func TestShardListJSON(t *testing.T) {
	h := Health{State: Degraded, UnderReplicated: ShardList{MetaShard, 0, 7}}
	b, err := json.Marshal(&h)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"state":"degraded","failures_tolerated":0,"next_failure":{"shards_lost":0},"under_replicated":["meta",0,7]}`
	if diff := cmp.Diff(want, string(b)); diff != "" {
		t.Error(diff)
	}
	var back Health
	if err := json.Unmarshal(b, &back); err != nil || !cmp.Equal(h, back) {
		t.Errorf("%v: %+v", err, back)
	}
	for _, bad := range []string{`{"under_replicated":["x"]}`, `{"under_replicated":5}`} {
		if json.Unmarshal([]byte(bad), &back) == nil {
			t.Errorf("%s is read", bad)
		}
	}
}

// TestAssess: the loss of one more node, where shards lie on different nodes.
func TestAssess(t *testing.T) {
	s := ClusterStatus{ReplicationFactor: 3}
	for id := uint64(1); id <= 5; id++ {
		s.Nodes = append(s.Nodes, NodeInfo{ID: id, State: NodeUp})
	}
	for shard, on := range [][]uint64{{1, 2, 3}, {2, 3, 4}, {3, 4, 5}} {
		sh := ShardInfo{Shard: shard, State: ShardLed, Leader: 3, Desired: on, Voters: on}
		for _, id := range on {
			sh.Replicas = append(sh.Replicas, ReplicaInfo{Node: id, Follows: 3})
		}
		s.Shards = append(s.Shards, sh)
	}
	if h := s.Assess(); h.State != Healthy || h.FailuresTolerated != 1 || h.NextFailure.Shards != 0 {
		t.Errorf("%+v", h)
	}
	s.Shards[2].Replicas[1].Behind = true // node 4 votes in shard 2, and cannot stand in for another yet
	want := Health{State: Degraded, NextFailure: NextFailure{1, []uint64{3, 5}}, UnderReplicated: ShardList{2}, Behind: ShardList{2}}
	if diff := cmp.Diff(want, s.Assess()); diff != "" {
		t.Error(diff)
	}
	s.Shards[2].Replicas[1].Behind = false
	s.Nodes[1].State = NodeDown // shards 0 and 1 have one voter less
	want = Health{State: Degraded, NextFailure: NextFailure{2, []uint64{3}}, UnderReplicated: ShardList{0, 1}, Troubled: []uint64{2}}
	if diff := cmp.Diff(want, s.Assess()); diff != "" {
		t.Error(diff)
	}
}

// TestNodeJSON: figures of a node that is away are null, and zero when read back.
func TestNodeJSON(t *testing.T) {
	n := NodeInfo{ID: 3, State: NodeUp, Leaders: 2, Replicas: 9, FsyncMicros: 100, LogBytes: 1, DiskUsedBytes: 2, DiskFreeBytes: 3, UptimeSeconds: 4, AgeMillis: 70}
	read := func() (all map[string]any, back NodeInfo) {
		t.Helper()
		b, err := json.Marshal([]NodeInfo{n})
		if err != nil {
			t.Fatal(err)
		}
		var list []map[string]any
		var nodes []NodeInfo
		if json.Unmarshal(b, &list) != nil || json.Unmarshal(b, &nodes) != nil {
			t.Fatalf("%s", b)
		}
		return list[0], nodes[0]
	}
	if _, back := read(); !cmp.Equal(n, back) {
		t.Errorf("%+v", back)
	}
	n.State = NodeDown
	all, back := read()
	for _, name := range []string{"leaders", "replicas", "fsync_us", "log_bytes", "disk_used_bytes", "disk_free_bytes", "uptime_s"} {
		if v, there := all[name]; v != nil || !there {
			t.Errorf("%s: %v", name, v)
		}
	}
	if want := (NodeInfo{ID: 3, State: NodeDown, AgeMillis: 70}); !cmp.Equal(want, back) {
		t.Errorf("%+v", back)
	}
}
