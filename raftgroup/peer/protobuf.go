package peer

import (
	"encoding/binary"

	"go.etcd.io/raft/v3/raftpb"
)

// The generated decoder of raftpb allocates for every entry and every context.
// This one leaves views, of which decoder.own makes one copy. It is as strict
// as it can be towards numbers that Raft uses as an index or would carry out
// blindly, and skips fields it does not know, as protobuf asks.

// Wire types of protobuf.
const (
	wireVarint  = 0
	wireFixed64 = 1
	wireBytes   = 2
	wireFixed32 = 5
)

// field is one field of a protobuf message.
type field struct {
	number uint64
	wire   uint8
	value  uint64 // of a varint
	bytes  []byte // of a length-delimited field; a view
}

func nextField(p []byte) (f field, rest []byte, err error) {
	tag, n := binary.Uvarint(p)
	if n <= 0 || tag>>3 == 0 {
		return f, nil, damaged("a Raft message has no field where one should be")
	}
	p = p[n:]
	f.number, f.wire = tag>>3, uint8(tag&7)
	switch f.wire {
	case wireVarint:
		if f.value, n = binary.Uvarint(p); n <= 0 {
			return f, nil, damaged("a number in a Raft message is cut short")
		}
		return f, p[n:], nil
	case wireBytes:
		length, n := binary.Uvarint(p)
		if n <= 0 || length > uint64(len(p)-n) {
			return f, nil, damaged("a field of a Raft message is longer than the message")
		}
		f.bytes = p[n : n+int(length)]
		return f, p[n+int(length):], nil
	case wireFixed64, wireFixed32:
		size := 8
		if f.wire == wireFixed32 {
			size = 4
		}
		if len(p) < size {
			return f, nil, damaged("a number in a Raft message is cut short")
		}
		return f, p[size:], nil
	}
	return f, nil, damaged("a field of a Raft message has wire type %d", f.wire)
}

// message decodes a raftpb.Message. Its entries go to d.entries.
func (d *decoder) message(p []byte, m *raftpb.Message) error {
	for len(p) > 0 {
		f, rest, err := nextField(p)
		if err != nil {
			return err
		}
		p = rest
		switch f.number {
		case 7, 9, 12, 14:
			err = d.messageBytes(f, m)
		default:
			err = messageNumber(f, m)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (d *decoder) messageBytes(f field, m *raftpb.Message) error {
	if f.wire != wireBytes {
		return damaged("field %d of a Raft message has wire type %d", f.number, f.wire)
	}
	switch f.number {
	case 7:
		d.views = true
		if len(d.entries) == EntriesPerFrameMax {
			return damaged("a frame of more than %d entries", EntriesPerFrameMax)
		}
		d.entries = append(d.entries, raftpb.Entry{})
		return d.entry(f.bytes, &d.entries[len(d.entries)-1])
	case 9:
		m.Snapshot = new(raftpb.Snapshot)
		if err := m.Snapshot.Unmarshal(f.bytes); err != nil { // copies
			return damaged("the snapshot in a Raft message: %v", err)
		}
	case 12:
		d.views = true
		d.bytes += len(f.bytes) - len(m.Context)
		m.Context = f.bytes
	case 14:
		return damaged("a Raft message of a node to its own storage")
	}
	return nil
}

func messageNumber(f field, m *raftpb.Message) error {
	var place *uint64
	switch f.number {
	case 1, 10:
	case 2:
		place = &m.To
	case 3:
		place = &m.From
	case 4:
		place = &m.Term
	case 5:
		place = &m.LogTerm
	case 6:
		place = &m.Index
	case 8:
		place = &m.Commit
	case 11:
		place = &m.RejectHint
	case 13:
		place = &m.Vote
	default:
		return nil
	}
	if f.wire != wireVarint {
		return damaged("field %d of a Raft message has wire type %d", f.number, f.wire)
	}
	switch {
	case place != nil:
		*place = f.value
	case f.number == 10:
		m.Reject = f.value != 0
	case f.value > uint64(raftpb.MsgForgetLeader):
		return damaged("no Raft message has type %d", f.value)
	default:
		m.Type = raftpb.MessageType(f.value)
	}
	return nil
}

func (d *decoder) entry(p []byte, e *raftpb.Entry) error {
	for len(p) > 0 {
		f, rest, err := nextField(p)
		if err != nil {
			return err
		}
		p = rest
		want := uint8(wireVarint)
		if f.number == 4 {
			want = wireBytes
		}
		if f.number <= 4 && f.wire != want {
			return damaged("field %d of an entry has wire type %d", f.number, f.wire)
		}
		switch f.number {
		case 1:
			if f.value > uint64(raftpb.EntryConfChangeV2) {
				return damaged("no entry has type %d", f.value)
			}
			e.Type = raftpb.EntryType(f.value)
		case 2:
			e.Term = f.value
		case 3:
			e.Index = f.value
		case 4:
			d.bytes += len(f.bytes) - len(e.Data)
			e.Data = f.bytes
		}
	}
	return nil
}
