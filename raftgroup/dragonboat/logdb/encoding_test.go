package logdb

import (
	"bytes"
	"encoding/hex"
	"math"
	"reflect"
	"testing"

	"github.com/lni/dragonboat/v4/raftio"
	pb "github.com/lni/dragonboat/v4/raftpb"
	"go.etcd.io/raft/v3/raftpb"
)

// TestLayout fixes the bytes in the log. A change here needs a new Format.
func TestLayout(t *testing.T) {
	e := pb.Entry{Term: 3, Index: 4, Type: pb.EncodedEntry, Key: 300, ClientID: math.MaxUint64, SeriesID: 1, RespondedTo: 2, Cmd: []byte("cmd")}
	m := metadata{bootstrap: []byte{16, 1}}
	for name, c := range map[string]struct {
		got  []byte
		want string
	}{
		"entry":       {appendEntry(nil, &e), "02ac02ffffffffffffffffff010102636d64"},
		"empty entry": {appendEntry(nil, &pb.Entry{Term: 3, Index: 4}), "0000000000"},
		"metadata":    {appendMetadata(nil, raftio.NodeInfo{ShardID: 5, ReplicaID: 6}, &m), "05060310010000"},
	} {
		if got := hex.EncodeToString(c.got); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// FuzzEntry decodes an entry's data: what is accepted means the same when encoded again.
func FuzzEntry(f *testing.F) {
	f.Add(appendEntry(nil, &pb.Entry{Type: pb.EncodedEntry, Key: 300, ClientID: math.MaxUint64, SeriesID: 1, RespondedTo: 2, Cmd: []byte("cmd")}))
	f.Add(appendEntry(nil, &pb.Entry{}))
	f.Add([]byte{4, 0, 0, 0, 0})
	f.Add([]byte{0, 0, 0, 0})
	f.Add([]byte{0, 255, 255, 255, 255, 255, 255, 255, 255, 255, 2, 0, 0, 0})
	f.Fuzz(func(t *testing.T, p []byte) {
		var e, again pb.Entry
		if decodeEntry(&e, &raftpb.Entry{Term: 1, Index: 2, Data: p}) != nil {
			return
		}
		q := appendEntry(nil, &e)
		if len(q) != entryBytes(&e) {
			t.Fatalf("%d bytes, foretold were %d", len(q), entryBytes(&e))
		}
		if err := decodeEntry(&again, &raftpb.Entry{Term: 1, Index: 2, Data: q}); err != nil || !reflect.DeepEqual(e, again) {
			t.Fatalf("%+v, encoded again %+v, %v", e, again, err)
		}
	})
}

// FuzzMetadata decodes metadata.
func FuzzMetadata(f *testing.F) {
	var m metadata
	f.Add(appendMetadata(nil, raftio.NodeInfo{ShardID: 1, ReplicaID: 2}, &m))
	m.bootstrap = pb.MustMarshal(&pb.Bootstrap{Addresses: map[uint64]string{1: "a"}, Type: pb.OnDiskStateMachine})
	m.setSnapshot(&pb.Snapshot{
		Index: 7, Term: 1, Files: []*pb.SnapshotFile{{Filepath: "f", Metadata: []byte("m")}}, Checksum: []byte("c"),
		Membership: pb.Membership{Addresses: map[uint64]string{1: "a"}, Removed: map[uint64]bool{3: true}, NonVotings: map[uint64]string{4: "b"}, Witnesses: map[uint64]string{5: "c"}},
	})
	f.Add(appendMetadata(nil, raftio.NodeInfo{ShardID: 1 << 20, ReplicaID: math.MaxUint64}, &m))
	f.Add([]byte{1, 2, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1})
	f.Add([]byte{1, 2, 1, 1})
	f.Fuzz(func(t *testing.T, p []byte) {
		info, m, err := decodeMetadata(p)
		if err != nil {
			return
		}
		q := appendMetadata(nil, info, &m)
		info2, m2, err := decodeMetadata(q)
		if err != nil || info != info2 || !bytes.Equal(m.bootstrap, m2.bootstrap) || !bytes.Equal(m.snapshot, m2.snapshot) || m.snapshotIndex != m2.snapshotIndex {
			t.Fatalf("%v %+v, encoded again %v %+v, %v", info, m, info2, m2, err)
		}
	})
}
