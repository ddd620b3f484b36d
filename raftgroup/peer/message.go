package peer

import (
	"encoding/binary"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/proa-kv/proa/bufpool"
)

// Message is a Raft message of one shard.
type Message struct {
	Shard uint32
	Raft  raftpb.Message
}

// A frame of messages is a sequence of records. In version 1 each is
//
//	u32 shard, u32 length, raftpb.Message of that length
//
// and in version 2 a byte stands before it: recordProtobuf, or else
// recordHeartbeat or recordHeartbeatResp, which are followed by
//
//	uvarint shard, to, from, term, commit; u8 length, context of that length
const (
	recordProtobuf      = 0
	recordHeartbeat     = 1
	recordHeartbeatResp = 2

	recordHeadBytes = 1 + 4 + 4
	// compactBytesMax is a compact record without its context.
	compactBytesMax     = 1 + binary.MaxVarintLen32 + 4*binary.MaxVarintLen64 + 1
	compactContextBytes = 255
)

// isCompact reports whether the compact form holds all of m.
func isCompact(m *raftpb.Message) bool {
	return (m.Type == raftpb.MsgHeartbeat || m.Type == raftpb.MsgHeartbeatResp) &&
		m.LogTerm == 0 && m.Index == 0 && m.Vote == 0 && !m.Reject && m.RejectHint == 0 &&
		len(m.Entries) == 0 && m.Snapshot == nil && len(m.Responses) == 0 &&
		len(m.Context) <= compactContextBytes
}

// record is a message about to be encoded.
type record struct {
	shard   uint32
	m       *raftpb.Message
	version uint16
	compact bool
	size    int // of the protobuf
}

func newRecord(version uint16, shard uint32, m *raftpb.Message) record {
	r := record{shard: shard, m: m, version: version}
	if version >= 2 && isCompact(m) {
		r.compact = true
	} else {
		r.size = m.Size()
	}
	return r
}

// bytesMax returns an upper bound of the encoded record.
func (r *record) bytesMax() int {
	if r.compact {
		return compactBytesMax + len(r.m.Context)
	}
	return recordHeadBytes + r.size
}

// appendTo encodes the record into a frame, which must have room for bytesMax.
func (r *record) appendTo(frame *bufpool.Buffer) error {
	if r.compact {
		frame.B = r.appendCompact(frame.B)
		return nil
	}
	b := frame.B
	if r.version >= 2 {
		b = append(b, recordProtobuf)
	}
	b = le.AppendUint32(b, r.shard)
	b = le.AppendUint32(b, uint32(r.size))
	b = b[:len(b)+r.size]
	if _, err := r.m.MarshalToSizedBuffer(b[len(b)-r.size:]); err != nil {
		return err
	}
	frame.B = b
	return nil
}

func (r *record) appendCompact(b []byte) []byte {
	kind := byte(recordHeartbeat)
	if r.m.Type == raftpb.MsgHeartbeatResp {
		kind = recordHeartbeatResp
	}
	b = append(b, kind)
	b = binary.AppendUvarint(b, uint64(r.shard))
	b = binary.AppendUvarint(b, r.m.To)
	b = binary.AppendUvarint(b, r.m.From)
	b = binary.AppendUvarint(b, r.m.Term)
	b = binary.AppendUvarint(b, r.m.Commit)
	b = append(b, byte(len(r.m.Context)))
	return append(b, r.m.Context...)
}

// decoder turns frames of messages into messages. Its slices are used again
// for the next frame.
type decoder struct {
	messages []Message
	entries  []raftpb.Entry // of all messages, in order; Data are views of the frame
	counts   []int          // entries of each message
	bytes    int            // of all entries' data and contexts
	views    bool           // some message has an entry or a context
}

// decode returns the messages of a frame. The slice is valid until the next
// call. Nothing in it is a view of p: the entries of all messages share one
// allocation, and so do their data and the contexts.
func (d *decoder) decode(version uint16, p []byte) ([]Message, error) {
	d.reset()
	for len(p) > 0 {
		if len(d.messages) == MessagesPerFrameMax {
			return nil, damaged("a frame of more than %d messages", MessagesPerFrameMax)
		}
		d.messages = append(d.messages, Message{})
		before := len(d.entries)
		rest, err := d.record(version, p, &d.messages[len(d.messages)-1])
		if err != nil {
			return nil, err
		}
		d.counts = append(d.counts, len(d.entries)-before)
		p = rest
	}
	d.own()
	return d.messages, nil
}

// reset drops what the last frame left, which the collector should not see as
// held by this decoder.
func (d *decoder) reset() {
	clear(d.messages)
	clear(d.entries)
	d.messages, d.entries, d.counts = d.messages[:0], d.entries[:0], d.counts[:0]
	d.bytes, d.views = 0, false
}

// own replaces the views of the frame by memory that belongs to the messages.
// Raft keeps slices of entries as they come and appends to them, so each ends
// where the next begins.
func (d *decoder) own() {
	if !d.views {
		return
	}
	data := make([]byte, 0, d.bytes)
	take := func(view []byte) []byte {
		if len(view) == 0 {
			return nil
		}
		start := len(data)
		data = append(data, view...)
		return data[start:len(data):len(data)]
	}
	entries := append(make([]raftpb.Entry, 0, len(d.entries)), d.entries...)
	for i := range entries {
		entries[i].Data = take(entries[i].Data)
	}
	for i := range d.messages {
		m := &d.messages[i].Raft
		m.Context = take(m.Context)
		if n := d.counts[i]; n > 0 {
			m.Entries, entries = entries[:n:n], entries[n:]
		}
	}
}

func (d *decoder) record(version uint16, p []byte, m *Message) (rest []byte, err error) {
	if version >= 2 {
		kind := p[0]
		p = p[1:]
		switch kind {
		case recordProtobuf:
		case recordHeartbeat:
			return d.compact(p, raftpb.MsgHeartbeat, m)
		case recordHeartbeatResp:
			return d.compact(p, raftpb.MsgHeartbeatResp, m)
		default:
			return nil, damaged("unknown message record kind %d", kind)
		}
	}
	if len(p) < 8 {
		return nil, damaged("truncated record of messages")
	}
	m.Shard = le.Uint32(p)
	n := le.Uint32(p[4:])
	p = p[8:]
	if uint64(n) > uint64(len(p)) {
		return nil, damaged("a Raft message claims %d bytes of %d", n, len(p))
	}
	return p[n:], d.message(p[:n], &m.Raft)
}

func (d *decoder) compact(p []byte, t raftpb.MessageType, m *Message) ([]byte, error) {
	m.Raft.Type = t
	var shard uint64
	for _, field := range []*uint64{&shard, &m.Raft.To, &m.Raft.From, &m.Raft.Term, &m.Raft.Commit} {
		v, n := binary.Uvarint(p)
		if n <= 0 {
			return nil, damaged("truncated heartbeat")
		}
		*field, p = v, p[n:]
	}
	if shard > 1<<32-1 {
		return nil, damaged("a heartbeat for shard %d, which is out of range", shard)
	}
	m.Shard = uint32(shard)
	if len(p) == 0 || len(p)-1 < int(p[0]) {
		return nil, damaged("truncated context of a heartbeat")
	}
	n := int(p[0])
	if n > 0 {
		m.Raft.Context = p[1 : 1+n]
		d.bytes += n
		d.views = true
	}
	return p[1+n:], nil
}
