package dragonboat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/lni/dragonboat/v4/raftio"
	pb "github.com/lni/dragonboat/v4/raftpb"

	"github.com/proa-kv/proa/raftgroup/dragonboat/transport"
	"github.com/proa-kv/proa/raftgroup/engine"
	"github.com/proa-kv/proa/raftgroup/placement"
)

// follower returns a node that follows in a shard, and what its leader is.
func (c *cluster) follower(shard int) (n, leader *node) {
	leader = c.leader(shard)
	n = c.node(leader.id%3 + 1)
	c.until("a follower that knows its leader", func() bool {
		l := n.shards[shard].led.Load()
		return l != nil && l.LeaderID == leader.shards[shard].replicaID.Load() && n.shards[shard].place().Term == l.Term
	})
	return n, leader
}

// beginning is the first chunk of a snapshot that the leader of a shard might send.
func beginning(n, leader *node, shard int) pb.Chunk {
	s := n.shards[shard]
	header := pb.MustMarshal(&pb.SnapshotHeader{Version: 2})
	data := binary.LittleEndian.AppendUint64(make([]byte, 0, 2<<10), uint64(len(header)))
	data = append(append(data, header...), make([]byte, 1024-8-len(header))...)
	data = append(binary.LittleEndian.AppendUint64(data, 4096), make([]byte, 100)...)
	return pb.Chunk{
		ShardID: s.id, ReplicaID: s.replicaID.Load(), From: leader.shards[shard].replicaID.Load(),
		Index: 1 << 40, Term: s.place().Term, OnDiskIndex: 1 << 40, Filepath: "snapshot-0000010000000000.gbsnap",
		DeploymentId: 1, BinVer: raftio.TransportBinVersion, Data: data, ChunkSize: uint64(len(data)),
		Membership: pb.Membership{ConfigChangeId: 3, Addresses: map[uint64]string{s.replicaID.Load(): transport.Target(n.id), placement.ReplicaID(leader.id, 1): transport.Target(leader.id)}},
	}
}

// next is the chunk after c, of so many bytes.
func next(c pb.Chunk, size int) pb.Chunk {
	c.ChunkId++
	c.FileChunkId = c.ChunkId
	c.Data, c.ChunkSize = make([]byte, size), uint64(size)
	return c
}

// begin begins a stream with c.
func (n *node) begin(t *testing.T, from uint64, c pb.Chunk) (engine.IncomingSnapshot, error) {
	t.Helper()
	in, _, err := n.BeginSnapshot(from, streamHeader)
	if err != nil {
		t.Fatal(err)
	}
	return in, in.Write(pb.MustMarshal(&c))
}

// partial returns the files of snapshots that the node is receiving.
func (n *node) partial() (files []string) {
	var look func(dir string)
	look = func(dir string) {
		names, _ := n.disk.List(dir)
		for _, name := range names {
			if path := n.disk.PathJoin(dir, name); strings.HasSuffix(name, ".receiving") {
				files = append(files, path)
			} else {
				look(path)
			}
		}
	}
	look(testDir)
	return files
}

// TestChunksThatAreRefused: what is not the snapshot of a replica here, by its leader, does
// not reach dragonboat.
func TestChunksThatAreRefused(t *testing.T) {
	c := newCluster(t, 1, 2, 3)
	n, leader := c.follower(0)
	third := placement.ReplicaID(6-n.id-leader.id, 1)
	for name, x := range map[string]struct {
		change func(c *pb.Chunk)
		want   error
	}{
		"another shard":                   {func(c *pb.Chunk) { c.ShardID = 99 }, transport.ErrDamaged},
		"another node's replica":          {func(c *pb.Chunk) { c.ReplicaID = third }, transport.ErrDamaged},
		"by another node's replica":       {func(c *pb.Chunk) { c.From = third }, transport.ErrDamaged},
		"not the first":                   {func(c *pb.Chunk) { *c = next(*c, 10) }, transport.ErrDamaged},
		"a later term":                    {func(c *pb.Chunk) { c.Term++ }, transport.ErrDamaged},
		"a member that is somewhere else": {func(c *pb.Chunk) { c.Membership.Addresses[third] = transport.Target(n.id) }, transport.ErrDamaged},
		"a replica that is not here":      {func(c *pb.Chunk) { c.ReplicaID = placement.ReplicaID(n.id, 9) }, engine.ErrSnapshotUnwanted},
	} {
		chunk := beginning(n, leader, 0)
		x.change(&chunk)
		in, err := n.begin(t, leader.id, chunk)
		if !errors.Is(err, x.want) {
			t.Errorf("%s: %v, want %v", name, err, x.want)
		}
		t.Logf("%s: %v", name, err)
		in.Abort()
	}
	chunk := beginning(n, leader, 0)
	chunk.From = third
	in, err := n.begin(t, placement.NodeOf(third), chunk)
	if !errors.Is(err, engine.ErrSnapshotUnwanted) {
		t.Errorf("by a follower: %v", err)
	}
	in.Abort()
	if r := n.shards[0].replicaID.Load(); r != placement.ReplicaID(n.id, 1) {
		t.Errorf("replica %x is here now", r)
	}
	if left := n.partial(); len(left) > 0 {
		t.Errorf("dragonboat keeps %v", left)
	}
	c.put(0, "k", "v")
}

// TestStreamOfChunks: a stream has one snapshot, a shard receives one at a time, and what
// broke off is forgotten.
func TestStreamOfChunks(t *testing.T) {
	c := newCluster(t, 1, 2, 3)
	n, leader := c.follower(0)
	chunk := beginning(n, leader, 0)
	for i, other := range []pb.Chunk{
		chunk, next(next(chunk, 10), 10),
		func() pb.Chunk { c := next(chunk, 10); c.ShardID++; return c }(),
		func() pb.Chunk {
			c := next(chunk, 10)
			c.Index++
			c.Filepath = "snapshot-0000010000000001.gbsnap"
			return c
		}(),
		func() pb.Chunk { c := next(chunk, 10); c.Term--; return c }(),
	} {
		in, err := n.begin(t, leader.id, chunk)
		if err != nil {
			t.Fatal(err)
		}
		if second, err := n.begin(t, leader.id, chunk); !errors.Is(err, engine.ErrSnapshotUnwanted) {
			t.Errorf("two at a time: %v", err)
		} else {
			second.Abort()
		}
		if err := in.Write(pb.MustMarshal(&other)); !errors.Is(err, transport.ErrDamaged) {
			t.Errorf("chunk %d follows: %v", i, err)
		}
		if len(n.partial()) != 1 {
			t.Errorf("dragonboat has %v, want one snapshot", n.partial())
		}
		in.Abort()
		if left := n.partial(); len(left) > 0 {
			t.Errorf("dragonboat keeps %v", left)
		}
	}
	in, err := n.begin(t, leader.id, chunk)
	if err != nil {
		t.Fatal(err)
	}
	if err := in.Finish(); !errors.Is(err, errState) {
		t.Errorf("a snapshot of one chunk: %v", err)
	}
	if left := n.partial(); len(left) > 0 {
		t.Errorf("dragonboat keeps %v", left)
	}
}

// TestSnapshotWithoutEnd: what does not end is refused before the disk is full, and its
// room is free again.
func TestSnapshotWithoutEnd(t *testing.T) {
	c := newCluster(t, 1, 2, 3)
	n, leader := c.follower(0)
	n.files.KeepFree = 1 << 20
	n.disk.free.Store(4 << 20)
	chunk := beginning(n, leader, 0)
	in, err := n.begin(t, leader.id, chunk)
	sent := 0
	for ; err == nil && sent < 100; sent++ {
		chunk = next(chunk, 512<<10)
		err = in.Write(pb.MustMarshal(&chunk))
	}
	// The fifth would leave less than the five have, and what is reserved.
	if !errors.Is(err, errNoRoom) || sent != 5 {
		t.Errorf("%d chunks were sent, %v", sent, err)
	}
	t.Log(err)
	in.Abort()
	if left := n.partial(); len(left) > 0 {
		t.Errorf("dragonboat keeps %v", left)
	}
	n.disk.free.Store(1 << 20)
	in, err = n.begin(t, leader.id, beginning(n, leader, 0))
	if !errors.Is(err, errNoRoom) {
		t.Errorf("on a full disk: %v", err)
	}
	in.Abort()
}

// TestFirstSnapshot: a replica that is new gets its state by a snapshot, where the log was
// cut before, and where a snapshot asks for it first.
func TestFirstSnapshot(t *testing.T) {
	c := newCluster(t, 1)
	n := c.leader(0)
	value := strings.Repeat("v", 32<<10)
	for i := 0; ; i++ {
		if first, _ := n.db.Range(n.shards[0].id, n.shards[0].replicaID.Load()); first >= 30 {
			break
		}
		c.put(0, fmt.Sprint("k", i%64), value)
	}
	replica := placement.ReplicaID(2, 2)
	c.setRow(0, placement.Shard{Incarnation: 2, Replicas: []placement.Replica{{Node: 1, Incarnation: 1}, {Node: 2, Incarnation: 2}}})
	c.disks[2] = newDisk()
	c.start(2, engine.Joins)
	to := c.node(2)
	chunk := beginning(n, n, 0)
	chunk.ReplicaID = replica
	in, err := to.begin(t, 1, chunk)
	if !errors.Is(err, engine.ErrSnapshotUnwanted) {
		t.Errorf("a snapshot for a replica that is not there yet: %v", err)
	}
	in.Abort()
	c.until("the replica", func() bool { return to.shards[0].replicaID.Load() == replica && to.shards[0].handle.Load() != nil })
	c.change(0, engine.Changes{{Replica: replica, To: engine.Learner}})
	c.until("the state", func() bool { return to.read(0, "k0") == value })
}
