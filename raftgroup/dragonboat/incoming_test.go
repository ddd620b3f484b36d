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

// follower returns a node that follows in a shard and knows its leader.
func (c *cluster) follower(shard int) (n, leader *node) {
	c.until("a follower that knows its leader", func() bool {
		leader = c.leader(shard)
		n = c.node(leader.id%3 + 1)
		l := n.shards[shard].led.Load()
		return l != nil && l.LeaderID == leader.shards[shard].replicaID.Load() && n.shards[shard].place().Term == l.Term
	})
	return n, leader
}

// steadily calls f until the leader was the same before and after, and fails with the error
// of that call.
func (c *cluster) steadily(shard int, f func(n, leader *node) error) {
	c.t.Helper()
	var err error
	c.until("a leader that stays", func() bool {
		n, leader := c.follower(shard)
		s := n.shards[shard]
		before := *s.led.Load()
		err = f(n, leader)
		return *s.led.Load() == before && s.place().Term == before.Term
	})
	if err != nil {
		c.t.Error(err)
	}
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
	other := func(chunk *pb.Chunk) uint64 { // the replica of the third node
		return placement.ReplicaID(6-placement.NodeOf(chunk.ReplicaID)-placement.NodeOf(chunk.From), 1)
	}
	for name, x := range map[string]struct {
		change func(c *pb.Chunk)
		want   error
	}{
		"another shard":                   {func(c *pb.Chunk) { c.ShardID = 99 }, transport.ErrDamaged},
		"another node's replica":          {func(c *pb.Chunk) { c.ReplicaID = other(c) }, transport.ErrDamaged},
		"not the first":                   {func(c *pb.Chunk) { *c = next(*c, 10) }, transport.ErrDamaged},
		"a later term":                    {func(c *pb.Chunk) { c.Term++ }, transport.ErrDamaged},
		"a member that is somewhere else": {func(c *pb.Chunk) { c.Membership.Addresses[other(c)] = "99" }, transport.ErrDamaged},
		"a replica that is not here":      {func(c *pb.Chunk) { c.ReplicaID += 8 }, engine.ErrSnapshotUnwanted},
		"by a follower":                   {func(c *pb.Chunk) { c.From = other(c) }, engine.ErrSnapshotUnwanted},
		"by the leader":                   {func(*pb.Chunk) {}, nil},
	} {
		c.steadily(0, func(n, leader *node) error {
			chunk := beginning(n, leader, 0)
			x.change(&chunk)
			in, err := n.begin(t, placement.NodeOf(chunk.From), chunk)
			defer in.Abort()
			t.Logf("%s: %v", name, err)
			if !errors.Is(err, x.want) {
				return fmt.Errorf("%s: %w, want %w", name, err, x.want)
			}
			if kept := n.partial(); len(kept) > 0 != (x.want == nil) {
				return fmt.Errorf("%s: dragonboat has %v", name, kept)
			}
			in.Abort()
			if r := n.shards[0].replicaID.Load(); r != placement.ReplicaID(n.id, 1) {
				return fmt.Errorf("%s: replica %x is here now", name, r)
			}
			return nil
		})
	}
	c.steadily(0, func(n, leader *node) error {
		in, err := n.begin(t, 6-n.id-leader.id, beginning(n, leader, 0))
		defer in.Abort()
		if !errors.Is(err, transport.ErrDamaged) {
			return fmt.Errorf("by another node than its sender's: %w", err)
		}
		return nil
	})
	c.put(0, "k", "v")
}

// TestStreamOfChunks: a stream has one snapshot, a shard receives one at a time, and what
// broke off is forgotten.
func TestStreamOfChunks(t *testing.T) {
	c := newCluster(t, 1, 2, 3)
	for name, change := range map[string]func(c *pb.Chunk){
		"one before":               func(c *pb.Chunk) { c.ChunkId, c.FileChunkId = 0, 0 },
		"one that is not the next": func(c *pb.Chunk) { *c = next(*c, 10) },
		"one for another shard":    func(c *pb.Chunk) { c.ShardID++ },
		"one of another entry":     func(c *pb.Chunk) { c.Index++; c.Filepath = "snapshot-0000010000000001.gbsnap" },
		"one of another term":      func(c *pb.Chunk) { c.Term-- },
		"one by another replica":   func(c *pb.Chunk) { c.From++ },
	} {
		c.steadily(0, func(n, leader *node) error {
			chunk := beginning(n, leader, 0)
			in, err := n.begin(t, leader.id, chunk)
			defer in.Abort()
			if err != nil {
				return err
			}
			if second, err := n.begin(t, leader.id, chunk); !errors.Is(err, engine.ErrSnapshotUnwanted) {
				return fmt.Errorf("two at a time: %w", err)
			} else {
				second.Abort()
			}
			wrong := next(chunk, 10)
			change(&wrong)
			if err := in.Write(pb.MustMarshal(&wrong)); !errors.Is(err, transport.ErrDamaged) {
				return fmt.Errorf("%s follows: %w", name, err)
			}
			if kept := n.partial(); len(kept) != 1 {
				return fmt.Errorf("%s: dragonboat has %v, want one snapshot", name, kept)
			}
			in.Abort()
			if kept := n.partial(); len(kept) > 0 {
				return fmt.Errorf("%s: dragonboat keeps %v", name, kept)
			}
			return nil
		})
	}
	c.steadily(0, func(n, leader *node) error {
		in, err := n.begin(t, leader.id, beginning(n, leader, 0))
		defer in.Abort()
		if err != nil {
			return err
		}
		if err := in.Finish(); !errors.Is(err, errState) || len(n.partial()) > 0 {
			return fmt.Errorf("a snapshot of one chunk: %w, dragonboat has %v", err, n.partial())
		}
		return nil
	})
}

// TestSnapshotWithoutEnd: what does not end is refused before the disk is full, and its
// room is free again.
func TestSnapshotWithoutEnd(t *testing.T) {
	c := newCluster(t, 1, 2, 3)
	c.steadily(0, func(n, leader *node) error {
		n.files.KeepFree = 1 << 20
		n.disk.free.Store(4 << 20)
		defer n.disk.free.Store(0)
		chunk := beginning(n, leader, 0)
		in, err := n.begin(t, leader.id, chunk)
		defer in.Abort()
		sent := 0
		for ; err == nil && sent < 100; sent++ {
			chunk = next(chunk, 512<<10)
			err = in.Write(pb.MustMarshal(&chunk))
		}
		t.Log(err)
		// The fifth would leave less than the five have, and what is reserved.
		if !errors.Is(err, errNoRoom) || sent != 5 {
			return fmt.Errorf("%d chunks were sent, %w", sent, err)
		}
		in.Abort()
		if kept := n.partial(); len(kept) > 0 {
			return fmt.Errorf("dragonboat keeps %v", kept)
		}
		n.disk.free.Store(1 << 20)
		in, err = n.begin(t, leader.id, beginning(n, leader, 0))
		defer in.Abort()
		if !errors.Is(err, errNoRoom) {
			return fmt.Errorf("on a full disk: %w", err)
		}
		return nil
	})
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
	c.until("the replica", func() bool { return to.shards[0].replicaID.Load() == replica && to.shards[0].runs.Load() })
	c.change(0, engine.Changes{{Replica: replica, To: engine.Learner}})
	c.until("the state", func() bool { return to.read(0, "k0") == value })
}
