package logdb

import (
	"encoding/binary"
	"errors"
	"math"
	"math/bits"

	"github.com/lni/dragonboat/v4/raftio"
	pb "github.com/lni/dragonboat/v4/raftpb"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/proa-kv/proa/internal/fields"
)

var errMalformed = errors.New("malformed encoding")

// appendEntry appends what the log keeps as the data of an entry: all that dragonboat
// knows of it but index and term, which the log itself knows.
//
//	type          1 byte
//	key           uvarint
//	client        uvarint
//	series        uvarint
//	responded to  uvarint
//	command       the rest
func appendEntry(dst []byte, e *pb.Entry) []byte {
	dst = append(dst, byte(e.Type))
	for _, v := range [...]uint64{e.Key, e.ClientID, e.SeriesID, e.RespondedTo} {
		dst = binary.AppendUvarint(dst, v)
	}
	return append(dst, e.Cmd...)
}

// entryBytes returns how much appendEntry appends.
func entryBytes(e *pb.Entry) int {
	return 1 + uvarintBytes(e.Key) + uvarintBytes(e.ClientID) + uvarintBytes(e.SeriesID) + uvarintBytes(e.RespondedTo) + len(e.Cmd)
}

func uvarintBytes(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }

// decodeEntry makes e what appendEntry was given. The command is a view of the data.
func decodeEntry(e *pb.Entry, from *raftpb.Entry) error {
	r := fields.Reader{B: from.Data}
	*e = pb.Entry{Term: from.Term, Index: from.Index, Type: pb.EntryType(r.U8())}
	e.Key, e.ClientID, e.SeriesID, e.RespondedTo = r.Uvarint(), r.Uvarint(), r.Uvarint(), r.Uvarint()
	if r.Short || e.Type > pb.MetadataEntry {
		return errMalformed
	}
	if len(r.B) > 0 {
		e.Cmd = r.B
	}
	return nil
}

// metadata are what the log keeps as a group's metadata, beside whose log it is. Bootstrap
// record and snapshot are encoded as dragonboat does it, so that nobody shares their maps.
type metadata struct {
	bootstrap     []byte // nil: none
	snapshot      []byte // the newest; nil: none
	snapshotIndex uint64
	departing     bool // the replica is being removed, see DB.Depart
}

func (m *metadata) setSnapshot(s *pb.Snapshot) {
	m.snapshot, m.snapshotIndex = pb.MustMarshal(s), s.Index
}

// appendMetadata appends the encoding of metadata:
//
//	shard      uvarint
//	replica    uvarint
//	bootstrap  0, or length + 1 as uvarint, and protobuf
//	snapshot   likewise
//	departing  0 or 1
func appendMetadata(dst []byte, info raftio.NodeInfo, m *metadata) []byte {
	dst = binary.AppendUvarint(dst, info.ShardID)
	dst = binary.AppendUvarint(dst, info.ReplicaID)
	for _, p := range [...][]byte{m.bootstrap, m.snapshot} {
		if p == nil {
			dst = append(dst, 0)
			continue
		}
		dst = binary.AppendUvarint(dst, uint64(len(p))+1)
		dst = append(dst, p...)
	}
	if m.departing {
		return append(dst, 1)
	}
	return append(dst, 0)
}

// decodeMetadata reads what appendMetadata made. The result shares nothing with p.
func decodeMetadata(p []byte) (info raftio.NodeInfo, m metadata, err error) {
	r := fields.Reader{B: p}
	info = raftio.NodeInfo{ShardID: r.Uvarint(), ReplicaID: r.Uvarint()}
	m = metadata{bootstrap: optional(&r), snapshot: optional(&r)}
	departing := r.U8()
	m.departing = departing == 1
	if r.Short || len(r.B) > 0 || departing > 1 {
		return info, m, errMalformed
	}
	if m.bootstrap != nil {
		if err := new(pb.Bootstrap).Unmarshal(m.bootstrap); err != nil {
			return info, m, err
		}
	}
	if m.snapshot != nil {
		var s pb.Snapshot
		if err := s.Unmarshal(m.snapshot); err != nil {
			return info, m, err
		}
		if m.snapshotIndex = s.Index; s.Index == 0 {
			return info, m, errMalformed
		}
	}
	return info, m, nil
}

// optional takes a copy of bytes that may be absent, and then are nil.
func optional(r *fields.Reader) []byte {
	n := r.Uvarint()
	if n == 0 {
		return nil
	}
	return append([]byte{}, r.Bytes(int(min(n-1, math.MaxInt)))...)
}
