package dragonboat

import (
	"errors"
	"fmt"

	pb "github.com/lni/dragonboat/v4/raftpb"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup/dragonboat/transport"
	"github.com/proa-kv/proa/raftgroup/engine"
	"github.com/proa-kv/proa/raftgroup/placement"
)

// BeginSnapshot begins to receive chunks of dragonboat; see engine.Receiver.
func (e *Engine) BeginSnapshot(from uint64, header []byte) (engine.IncomingSnapshot, []byte, error) {
	if string(header) != string(streamHeader) {
		return nil, nil, fmt.Errorf("%w: %w", engine.ErrSnapshotUnwanted, errOtherEngine)
	}
	if err := e.State.Unusable(); err != nil {
		return nil, nil, command.ErrStopped
	}
	return &incoming{engine: e, from: from}, nil, nil
}

// incoming is a stream of chunks that is being received; see engine.IncomingSnapshot. They
// are those of one snapshot, one after the other, for a replica that is here. dragonboat
// keeps what it is given for a while, on the disk and in one of its 128 places for all
// snapshots of a node; so it is given nothing else, and told when a stream has broken off.
type incoming struct {
	engine *Engine
	from   uint64 // node

	shard *shard   // whose snapshot it is; nil before the first chunk, and when all is over
	last  pb.Chunk // the last chunk that dragonboat was given, without its data
	bytes uint64   // of all chunks
}

// Write hands a chunk to dragonboat.
func (in *incoming) Write(frame []byte) error {
	wanted, err := in.engine.wire.ReceiveChunk(frame, in.accept)
	if err == nil && !wanted {
		err = fmt.Errorf("%w: chunk %d is damaged or does not fit those before it, or its replica has been removed", engine.ErrSnapshotUnwanted, in.last.ChunkId)
	}
	return err
}

// accept returns why dragonboat does not get a chunk.
func (in *incoming) accept(c *pb.Chunk) error {
	begins := in.last.ReplicaID == 0
	switch {
	case begins:
		if err := in.begin(c); err != nil {
			return err
		}
	case in.shard == nil || !in.continues(c):
		return fmt.Errorf("%w: chunk %d of a snapshot of entry %d for replica %x, after chunk %d of one of entry %d for replica %x", transport.ErrDamaged, c.ChunkId, c.Index, c.ReplicaID, in.last.ChunkId, in.last.Index, in.last.ReplicaID)
	}
	if err := in.shard.expects(c); err != nil {
		return err
	}
	if begins {
		if err := in.shard.checkSender(in.from, c); err != nil {
			return err
		}
	}
	if err := in.room(uint64(len(c.Data))); err != nil {
		return err
	}
	in.last, in.last.Data = *c, nil
	return nil
}

// begin finds the shard of a first chunk, which receives one snapshot at a time.
func (in *incoming) begin(c *pb.Chunk) error {
	e := in.engine
	s := e.shardOf(c.ShardID)
	if s == nil || c.ChunkId != 0 || placement.NodeOf(c.ReplicaID) != e.Node {
		return fmt.Errorf("%w: a snapshot that begins with chunk %d for shard %d, from replica %x to %x", transport.ErrDamaged, c.ChunkId, c.ShardID, c.From, c.ReplicaID)
	}
	if !s.receiving.CompareAndSwap(false, true) {
		return fmt.Errorf("%w: another snapshot of %s is being received; send it again later", engine.ErrSnapshotUnwanted, e.ShardName(s.number))
	}
	in.shard = s
	return nil
}

// continues reports whether a chunk is the next one of the snapshot.
func (in *incoming) continues(c *pb.Chunk) bool {
	l := &in.last
	return c.ChunkId == l.ChunkId+1 && c.ShardID == l.ShardID && c.ReplicaID == l.ReplicaID && c.From == l.From && c.Index == l.Index && c.Term == l.Term
}

// expects returns why a snapshot is of no use to the replica here; nil if it may be. One
// that the cluster's map wants here and that is not there yet is started. For any thread.
func (s *shard) expects(c *pb.Chunk) error {
	name := s.engine.ShardName(s.number)
	if s.replicaID.Load() != c.ReplicaID {
		s.consider(&pb.Message{Type: pb.InstallSnapshot, To: c.ReplicaID})
		return fmt.Errorf("%w: replica %x of %s is not on this node; if it is to be, send the snapshot again later", engine.ErrSnapshotUnwanted, c.ReplicaID, name)
	}
	if !s.runs.Load() {
		return fmt.Errorf("%w: replica %x of %s is being started or removed; send the snapshot again later", engine.ErrSnapshotUnwanted, c.ReplicaID, name)
	}
	return nil
}

// checkSender returns why a node may not send a snapshot to the replica here. For any thread.
func (s *shard) checkSender(from uint64, c *pb.Chunk) error {
	p := s.place()
	if err := p.CheckChunk(from, c); err != nil {
		return err
	}
	if p.Leader != 0 && p.Leader != c.From && p.LeaderTerm == p.Term { // its term may just have ended
		return fmt.Errorf("%w: replica %x leads %s, and not replica %x", engine.ErrSnapshotUnwanted, p.Leader, s.engine.ShardName(s.number), c.From)
	}
	return nil
}

// errNoRoom says that a snapshot is larger than the disk allows.
var errNoRoom = errors.New("the disk has no room for the snapshot; free space on it, or add some: the snapshot is sent again then")

// room counts what is received, and returns errNoRoom if there is too little of the disk
// left. What has been received is copied from dragonboat's file into the store, so there
// must be as much again as the file has; and what the log and the store need to go on is
// left to them. How large a snapshot will be nothing says before it ends.
func (in *incoming) room(size uint64) error {
	f := &in.engine.files
	in.bytes += size
	need := size + in.bytes + uint64(f.KeepFree)
	if u, err := f.FS.GetDiskUsage(f.Dir); err == nil && u.AvailBytes < need {
		return fmt.Errorf("%w (%d MiB received, %d MiB free, of which %d MiB are reserved)", errNoRoom, (in.bytes-size)>>20, u.AvailBytes>>20, f.KeepFree>>20)
	}
	return nil
}

// Finish checks that dragonboat has got the last chunk: it knows what to do then.
func (in *incoming) Finish() error {
	if !in.last.IsLastChunk() {
		in.Abort()
		return fmt.Errorf("%w: it ends with chunk %d, which is not the last", errState, in.last.ChunkId)
	}
	in.release()
	return nil
}

// Abort has dragonboat forget what it was given.
func (in *incoming) Abort() {
	if in.last.ReplicaID != 0 && !in.last.IsLastChunk() {
		in.engine.wire.DropSnapshot(in.last)
	}
	in.release()
}

// release lets the shard receive another snapshot.
func (in *incoming) release() {
	if in.shard != nil {
		in.shard.receiving.Store(false)
		in.shard = nil
	}
}
