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

// Tags of the fields of raftpb.Message: number and wire type.
const (
	tagType       = 1<<3 | wireVarint
	tagTo         = 2<<3 | wireVarint
	tagFrom       = 3<<3 | wireVarint
	tagTerm       = 4<<3 | wireVarint
	tagLogTerm    = 5<<3 | wireVarint
	tagIndex      = 6<<3 | wireVarint
	tagEntries    = 7<<3 | wireBytes
	tagCommit     = 8<<3 | wireVarint
	tagSnapshot   = 9<<3 | wireBytes
	tagReject     = 10<<3 | wireVarint
	tagRejectHint = 11<<3 | wireVarint
	tagContext    = 12<<3 | wireBytes
	tagVote       = 13<<3 | wireVarint
	tagResponses  = 14<<3 | wireBytes

	messageFieldMax = 14
)

// Tags of the fields of raftpb.Entry.
const (
	tagEntryType  = 1<<3 | wireVarint
	tagEntryTerm  = 2<<3 | wireVarint
	tagEntryIndex = 3<<3 | wireVarint
	tagEntryData  = 4<<3 | wireBytes

	entryFieldMax = 4
)

// nextField returns the first field of p and how many bytes it has, or n == 0
// where there is no sound one. value is a varint's; bytes are a view of p.
func nextField(p []byte) (tag, value uint64, bytes []byte, n int) {
	if len(p) < 2 {
		return 0, 0, nil, 0
	}
	if tag, n = uint64(p[0]), 1; tag >= 0x80 {
		if tag, n = binary.Uvarint(p); n <= 0 {
			return 0, 0, nil, 0
		}
	}
	switch tag & 7 {
	case wireFixed64:
		n += 8
	case wireFixed32:
		n += 4
	case wireVarint, wireBytes:
		if n == len(p) {
			return 0, 0, nil, 0
		}
		if p[n] < 0x80 {
			value, n = uint64(p[n]), n+1
		} else {
			v, size := binary.Uvarint(p[n:])
			if size <= 0 {
				return 0, 0, nil, 0
			}
			value, n = v, n+size
		}
		if tag&7 == wireBytes {
			if value > uint64(len(p)-n) {
				return 0, 0, nil, 0
			}
			bytes = p[n : n+int(value)]
			n += int(value)
		}
	default:
		return 0, 0, nil, 0
	}
	if n > len(p) || tag>>3 == 0 {
		return 0, 0, nil, 0
	}
	return tag, value, bytes, n
}

// message decodes a raftpb.Message. Its entries go to d.entries.
func (d *decoder) message(p []byte, m *raftpb.Message) error {
	for len(p) > 0 {
		tag, value, bytes, n := nextField(p)
		if n == 0 {
			return damaged("truncated or invalid Raft message")
		}
		p = p[n:]
		switch tag {
		case tagType:
			if value > uint64(raftpb.MsgForgetLeader) {
				return damaged("unknown Raft message type %d", value)
			}
			m.Type = raftpb.MessageType(value)
		case tagTo:
			m.To = value
		case tagFrom:
			m.From = value
		case tagTerm:
			m.Term = value
		case tagLogTerm:
			m.LogTerm = value
		case tagIndex:
			m.Index = value
		case tagCommit:
			m.Commit = value
		case tagReject:
			m.Reject = value != 0
		case tagRejectHint:
			m.RejectHint = value
		case tagVote:
			m.Vote = value
		case tagEntries:
			if err := d.entry(bytes); err != nil {
				return err
			}
		case tagContext:
			d.bytes += len(bytes) - len(m.Context)
			d.views = true
			m.Context = bytes
		case tagSnapshot:
			m.Snapshot = new(raftpb.Snapshot)
			if err := m.Snapshot.Unmarshal(bytes); err != nil { // copies
				return damaged("invalid snapshot in a Raft message: %v", err)
			}
		case tagResponses:
			return damaged("a Raft message that a node sends only to its own storage")
		default:
			if tag>>3 <= messageFieldMax {
				return damaged("field %d of a Raft message has wire type %d", tag>>3, tag&7)
			}
		}
	}
	return nil
}

// entry decodes a raftpb.Entry and appends it to d.entries.
func (d *decoder) entry(p []byte) error {
	if len(d.entries) == EntriesPerFrameMax {
		return damaged("a frame of more than %d entries", EntriesPerFrameMax)
	}
	d.views = true
	var e raftpb.Entry
	for len(p) > 0 {
		tag, value, bytes, n := nextField(p)
		if n == 0 {
			return damaged("truncated or invalid entry")
		}
		p = p[n:]
		switch tag {
		case tagEntryType:
			if value > uint64(raftpb.EntryConfChangeV2) {
				return damaged("unknown entry type %d", value)
			}
			e.Type = raftpb.EntryType(value)
		case tagEntryTerm:
			e.Term = value
		case tagEntryIndex:
			e.Index = value
		case tagEntryData:
			d.bytes += len(bytes) - len(e.Data)
			e.Data = bytes
		default:
			if tag>>3 <= entryFieldMax {
				return damaged("field %d of an entry has wire type %d", tag>>3, tag&7)
			}
		}
	}
	d.entries = append(d.entries, e)
	return nil
}
