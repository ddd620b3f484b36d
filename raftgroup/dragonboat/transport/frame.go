package transport

import (
	"encoding/binary"
	"fmt"

	pb "github.com/lni/dragonboat/v4/raftpb"

	"github.com/proa-kv/proa/internal/fields"
)

// Bounds of a frame of messages: of what it makes the receiver allocate beyond its own
// length, and of what the sender puts into one if there is more than one message.
const (
	MessagesPerFrameMax = 16 << 10
	EntriesPerFrameMax  = 1 << 20

	frameBytesTarget = 256 << 10
)

// The fewest bytes of a message and of an entry.
const (
	messageBytesMin = 2 + 10
	entryBytesMin   = 8
)

const flagReject = 1

// remote says which messages a node sends to others. dragonboat panics at others, or takes
// them for its own word. Those of quiescence are not among them: it is not used.
var remote = [...]bool{
	pb.NoOP: true, pb.Propose: true,
	pb.Replicate: true, pb.ReplicateResp: true, pb.Heartbeat: true, pb.HeartbeatResp: true,
	pb.RequestVote: true, pb.RequestVoteResp: true, pb.RequestPreVote: true, pb.RequestPreVoteResp: true,
	pb.ReadIndex: true, pb.ReadIndexResp: true, pb.SnapshotReceived: true,
	pb.LeaderTransfer: true, pb.TimeoutNow: true, pb.RateLimit: true,
}

func isRemote(t pb.MessageType) bool { return t >= 0 && int(t) < len(remote) && remote[t] }

// encodeMessages makes a frame of the first messages, and says of how many.
func encodeMessages(ms []pb.Message) (frame []byte, n int, err error) {
	size, entries := 0, 0
	for n < len(ms) && n < MessagesPerFrameMax {
		m := &ms[n]
		bytes := messageBytesMax(m)
		if n > 0 && (size+bytes > frameBytesTarget || entries+len(m.Entries) > EntriesPerFrameMax) {
			break
		}
		size += bytes
		entries += len(m.Entries)
		n++
	}
	if entries > EntriesPerFrameMax {
		return nil, 0, fmt.Errorf("%w: %d entries", ErrTooLarge, entries)
	}
	frame = make([]byte, 0, size)
	for i := range ms[:n] {
		frame = appendMessage(frame, &ms[i])
	}
	return frame, n, nil
}

// messageBytesMax bounds what appendMessage appends.
func messageBytesMax(m *pb.Message) int {
	size := 2 + 10*binary.MaxVarintLen64
	for i := range m.Entries {
		size += 1 + 7*binary.MaxVarintLen64 + len(m.Entries[i].Cmd)
	}
	return size
}

// appendMessage appends a message:
//
//	type, flags       1 byte each; flag 1: reject
//	shard, to, from, term, log term, log index, commit, hint, hint high
//	                  uvarints
//	entries           their number as uvarint, then of each
//	  index, term     uvarints
//	  type            1 byte
//	  key, client, series, responded to
//	                  uvarints
//	  command         length as uvarint, and that many bytes
//
// A snapshot is in no message between nodes; it goes in chunks.
func appendMessage(dst []byte, m *pb.Message) []byte {
	flags := byte(0)
	if m.Reject {
		flags = flagReject
	}
	dst = append(dst, byte(m.Type), flags)
	for _, v := range [...]uint64{m.ShardID, m.To, m.From, m.Term, m.LogTerm, m.LogIndex, m.Commit, m.Hint, m.HintHigh, uint64(len(m.Entries))} {
		dst = binary.AppendUvarint(dst, v)
	}
	for i := range m.Entries {
		e := &m.Entries[i]
		dst = binary.AppendUvarint(dst, e.Index)
		dst = binary.AppendUvarint(dst, e.Term)
		dst = append(dst, byte(e.Type))
		for _, v := range [...]uint64{e.Key, e.ClientID, e.SeriesID, e.RespondedTo, uint64(len(e.Cmd))} {
			dst = binary.AppendUvarint(dst, v)
		}
		dst = append(dst, e.Cmd...)
	}
	return dst
}

// decodeMessages reads a frame of messages. Commands are views of p.
func decodeMessages(p []byte) ([]pb.Message, error) {
	r := fields.Reader{B: p}
	ms := make([]pb.Message, 0, min(len(p)/messageBytesMin, 16))
	entries := uint64(0)
	for len(r.B) > 0 {
		m := pb.Message{Type: pb.MessageType(r.U8())}
		flags := r.U8()
		m.Reject = flags == flagReject
		m.ShardID, m.To, m.From = r.Uvarint(), r.Uvarint(), r.Uvarint()
		m.Term, m.LogTerm, m.LogIndex, m.Commit = r.Uvarint(), r.Uvarint(), r.Uvarint(), r.Uvarint()
		m.Hint, m.HintHigh = r.Uvarint(), r.Uvarint()
		n := r.Uvarint()
		// As many entries as can be in what is left.
		if r.Short || n > uint64(len(r.B)/entryBytesMin) || n > EntriesPerFrameMax-entries {
			return nil, fmt.Errorf("%w: message %d", ErrDamaged, len(ms))
		}
		if entries += n; n > 0 {
			m.Entries = make([]pb.Entry, n)
		}
		for i := range m.Entries {
			decodeEntry(&r, &m.Entries[i])
			if m.Entries[i].Type > pb.MetadataEntry {
				return nil, fmt.Errorf("%w: message %d has an entry of type %d", ErrDamaged, len(ms), m.Entries[i].Type)
			}
		}
		switch {
		case r.Short, flags > flagReject, len(ms) == MessagesPerFrameMax:
			return nil, fmt.Errorf("%w: message %d", ErrDamaged, len(ms))
		case !isRemote(m.Type), m.To == 0, m.From == 0:
			return nil, fmt.Errorf("%w: message %d, from replica %d to %d, has type %d", ErrDamaged, len(ms), m.From, m.To, m.Type)
		}
		ms = append(ms, m)
	}
	return ms, nil
}

func decodeEntry(r *fields.Reader, e *pb.Entry) {
	e.Index, e.Term, e.Type = r.Uvarint(), r.Uvarint(), pb.EntryType(r.U8())
	e.Key, e.ClientID, e.SeriesID, e.RespondedTo = r.Uvarint(), r.Uvarint(), r.Uvarint(), r.Uvarint()
	if cmd := r.Counted(); len(cmd) > 0 {
		e.Cmd = cmd
	}
}

// encodeChunk makes a frame of a chunk, which is protobuf, as dragonboat has it.
func encodeChunk(c *pb.Chunk) []byte { return pb.MustMarshal(c) }

// decodeChunk reads a frame with a chunk. It shares nothing with p.
func decodeChunk(p []byte) (c pb.Chunk, err error) {
	if err := c.Unmarshal(p); err != nil {
		return c, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	// A poison chunk is how dragonboat ends its own goroutines.
	if c.IsPoisonChunk() || c.From == 0 || c.ReplicaID == 0 {
		return c, fmt.Errorf("%w: chunk %d of %d, from replica %d to %d", ErrDamaged, c.ChunkId, c.ChunkCount, c.From, c.ReplicaID)
	}
	return c, nil
}
