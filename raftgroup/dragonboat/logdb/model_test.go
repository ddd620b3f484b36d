package logdb

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/lni/dragonboat/v4/raftio"
	pb "github.com/lni/dragonboat/v4/raftpb"
	"go.uber.org/goleak"

	"github.com/proa-kv/proa/raftlog"
)

const testDir = "/data/raft"

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func testOptions(fs vfs.FS) raftlog.Options {
	return raftlog.Options{Dir: testDir, FS: fs, SegmentBytes: 32 << 10}
}

// opened is a DB with its log.
type opened struct {
	*DB
	log *raftlog.Log
}

func mustOpen(t testing.TB, o raftlog.Options) opened {
	t.Helper()
	db := openIdle(t, o)
	db.log.Prepare()
	return db
}

// openIdle opens a DB whose log does nothing in the background while it has room.
func openIdle(t testing.TB, o raftlog.Options) opened {
	t.Helper()
	l, _, err := raftlog.Open(o)
	must(t, err)
	d, err := New(l)
	must(t, err)
	return opened{d, l}
}

func (o opened) mustClose(t testing.TB) {
	t.Helper()
	must(t, o.DB.Close())
	must(t, o.log.Close())
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// model is what a LogDB must hold, by replica.
type model map[raftio.NodeInfo]*modelReplica

type modelReplica struct {
	state     pb.State
	bootstrap *pb.Bootstrap
	snapshot  pb.Snapshot
	start     uint64     // the log begins after it
	entries   []pb.Entry // from start+1 on
}

func (r *modelReplica) last() uint64 { return r.start + uint64(len(r.entries)) }

// begins is the index behind which a reader may ask for entries.
func (r *modelReplica) begins() uint64 { return max(r.start, r.snapshot.Index) }

func (r *modelReplica) append(entries []pb.Entry) {
	r.entries = append(slices.Clone(r.entries[:entries[0].Index-r.start-1]), entries...)
}

// clone copies the model as far as calls change it.
func (m model) clone() model {
	c := make(model)
	for info, r := range m {
		copied := *r
		c[info] = &copied
	}
	return c
}

// withoutCommits is what of the model must be durable.
func (m model) withoutCommits() model {
	m = m.clone()
	for _, r := range m {
		r.state.Commit = 0
	}
	return m
}

// describe says what all reads of a replica must return.
func (r *modelReplica) describe() string {
	var b strings.Builder
	if r.bootstrap != nil {
		fmt.Fprintf(&b, "bootstrap %v, ", *r.bootstrap)
	}
	if !pb.IsEmptySnapshot(r.snapshot) {
		fmt.Fprintf(&b, "%s, ", describeSnapshot(r.snapshot))
	}
	if pb.IsEmptyState(r.state) {
		b.WriteString("no state")
	} else {
		fmt.Fprintf(&b, "state %v, %d entries behind %d", r.state, r.last()-r.begins(), r.begins())
	}
	for _, e := range r.entries[r.begins()-r.start:] {
		b.WriteString(describeEntry(e))
	}
	return b.String()
}

func describeEntry(e pb.Entry) string {
	return fmt.Sprintf("\n  %d/%d %v %d %d %d %d %d %q", e.Index, e.Term, e.Type, e.Key, e.ClientID, e.SeriesID, e.RespondedTo, len(e.Cmd), e.Cmd[:min(len(e.Cmd), 9)])
}

func describeSnapshot(s pb.Snapshot) string {
	files := ""
	for _, f := range s.Files {
		files += fmt.Sprint(*f)
	}
	return fmt.Sprintf("snapshot %d/%d %s %d %v [%s] %x %v %v %v %v %d %v", s.Index, s.Term, s.Filepath, s.FileSize, s.Membership, files, s.Checksum, s.Dummy, s.ShardID, s.Type, s.Imported, s.OnDiskIndex, s.Witness)
}

// describeAll makes the same of every replica.
func (m model) describe() map[raftio.NodeInfo]string {
	all := make(map[raftio.NodeInfo]string)
	for info, r := range m {
		all[info] = r.describe()
	}
	return all
}

// read says what reads of a LogDB return. Where the log begins, only the model knows:
// dragonboat does not ask for what it has compacted.
func read(t testing.TB, db raftio.ILogDB, info raftio.NodeInfo, begins uint64) string {
	t.Helper()
	var b strings.Builder
	bootstrap, err := db.GetBootstrapInfo(info.ShardID, info.ReplicaID)
	if err == nil {
		fmt.Fprintf(&b, "bootstrap %v, ", bootstrap)
	} else if !errors.Is(err, raftio.ErrNoBootstrapInfo) {
		t.Fatal(err)
	}
	snapshot, err := db.GetSnapshot(info.ShardID, info.ReplicaID)
	must(t, err)
	if !pb.IsEmptySnapshot(snapshot) {
		fmt.Fprintf(&b, "%s, ", describeSnapshot(snapshot))
	}
	rs, err := db.ReadRaftState(info.ShardID, info.ReplicaID, begins)
	if errors.Is(err, raftio.ErrNoSavedLog) {
		b.WriteString("no state")
		return b.String()
	}
	must(t, err)
	// As a LogReader does: what is not behind begins it drops.
	count := uint64(0)
	if last := rs.FirstIndex + rs.EntryCount; rs.EntryCount > 0 && last > begins {
		if rs.FirstIndex > begins+1 {
			return b.String() + fmt.Sprintf("entries begin at %d", rs.FirstIndex)
		}
		count = last - 1 - begins
	}
	fmt.Fprintf(&b, "state %v, %d entries behind %d", rs.State, count, begins)
	if count == 0 {
		return b.String()
	}
	entries, _, err := db.IterateEntries(nil, 0, info.ShardID, info.ReplicaID, begins+1, begins+1+count, math.MaxUint64)
	must(t, err)
	for _, e := range entries {
		b.WriteString(describeEntry(e))
	}
	return b.String()
}

// check compares all reads of db with the model.
func check(t testing.TB, db raftio.ILogDB, m model) {
	t.Helper()
	if difference := compare(t, db, m); difference != "" {
		t.Fatal(difference)
	}
}

// compare says what reads of db return that the model does not want, if anything.
func compare(t testing.TB, db raftio.ILogDB, m model) string {
	t.Helper()
	if got, want := readAll(t, db, m), m.describe(); !maps.Equal(got, want) {
		return fmt.Sprintf("%s holds\n%v,\nwant\n%v", db.Name(), got, want)
	}
	infos, err := db.ListNodeInfo()
	must(t, err)
	for _, info := range infos {
		if m[info] == nil {
			return fmt.Sprintf("%s lists %v", db.Name(), info)
		}
	}
	if len(infos) != len(m) {
		return fmt.Sprintf("%s lists %v, want %d", db.Name(), infos, len(m))
	}
	return ""
}

// readAll reads the replicas that the model knows.
func readAll(t testing.TB, db raftio.ILogDB, m model) map[raftio.NodeInfo]string {
	t.Helper()
	all := make(map[raftio.NodeInfo]string)
	for info, r := range m {
		all[info] = read(t, db, info, r.begins())
	}
	return all
}

// history makes calls that dragonboat could make, at random, of three shards.
type history struct {
	rand     *rand.Rand
	m        model
	replicas [3]uint64 // of each shard, the newest
}

// call is one call of a LogDB.
type call struct {
	name   string
	do     func(db raftio.ILogDB) error
	reopen bool // dragonboat opens the LogDB anew after it
}

func newHistory(r *rand.Rand) *history { return &history{rand: r, m: make(model)} }

// next makes the model do a call, and returns it.
func (h *history) next() call {
	n := h.rand.IntN(30)
	shard := uint64(1 + h.rand.IntN(len(h.replicas)))
	info := raftio.NodeInfo{ShardID: shard, ReplicaID: h.replicas[shard-1]}
	r := h.m[info]
	switch {
	case r == nil, n == 0:
		return h.begin(shard)
	case pb.IsEmptyState(r.state), n < 20:
		return h.update()
	case n < 23:
		return h.commits()
	case n < 25:
		return h.takeSnapshot(info, r)
	case n < 28:
		return h.compact(info, r)
	case n == 28:
		s := h.snapshot(info, r.last()-min(r.last()-1, uint64(h.rand.IntN(4))))
		s.Imported = true
		return h.importSnapshot(info, s)
	}
	delete(h.m, info)
	return call{name: fmt.Sprintf("remove %v", info), do: func(db raftio.ILogDB) error {
		return db.RemoveNodeData(info.ShardID, info.ReplicaID)
	}}
}

// begin makes a new replica of a shard. The one before may stay.
func (h *history) begin(shard uint64) call {
	h.replicas[shard-1]++
	info := raftio.NodeInfo{ShardID: shard, ReplicaID: h.replicas[shard-1]}
	b := pb.Bootstrap{Join: h.rand.IntN(2) == 0, Type: pb.OnDiskStateMachine, Addresses: map[uint64]string{}}
	if !b.Join {
		b.Addresses[info.ReplicaID] = fmt.Sprint("node ", h.rand.IntN(9))
	}
	h.m[info] = &modelReplica{bootstrap: &b}
	return call{name: fmt.Sprintf("begin %v", info), do: func(db raftio.ILogDB) error {
		return db.SaveBootstrapInfo(info.ShardID, info.ReplicaID, b)
	}}
}

// update saves entries, states and received snapshots of some of the replicas.
func (h *history) update() call {
	var updates []pb.Update
	for i, id := range h.replicas {
		info := raftio.NodeInfo{ShardID: uint64(i + 1), ReplicaID: id}
		if r := h.m[info]; r != nil && h.rand.IntN(4) > 0 {
			updates = append(updates, h.fill(info, r))
		}
	}
	return saveRaftState(updates)
}

func saveRaftState(updates []pb.Update) call {
	name := ""
	for _, u := range updates {
		name += fmt.Sprintf(" %d/%d: snapshot %d, %d entries, %v;", u.ShardID, u.ReplicaID, u.Snapshot.Index, len(u.EntriesToSave), u.State)
	}
	return call{name: "save" + name, do: func(db raftio.ILogDB) error { return db.SaveRaftState(updates, 1) }}
}

func (h *history) fill(info raftio.NodeInfo, r *modelReplica) pb.Update {
	u := pb.Update{ShardID: info.ShardID, ReplicaID: info.ReplicaID, State: r.state}
	u.Term = max(u.Term, 1) + uint64(h.rand.IntN(8)/7)
	if u.Term != r.state.Term || u.Vote == 0 {
		u.Vote = uint64(h.rand.IntN(3))
	}
	first := r.last() + 1
	switch h.rand.IntN(12) {
	case 0: // from another replica, inside what stands here or far behind it
		index := max(r.state.Commit, r.snapshot.Index) + 1 + uint64(h.rand.IntN(8))
		u.Snapshot = h.snapshot(info, index)
		r.snapshot, r.start, r.entries = u.Snapshot, index, nil
		u.Commit, first = index, index+1
		if h.rand.IntN(2) == 0 {
			r.state = u.State
			return u
		}
	case 1, 2: // in place of what was not committed
		lowest := max(r.state.Commit, r.begins()) + 1
		first = lowest + uint64(h.rand.IntN(int(first-lowest)+1))
	case 3: // a vote, or nothing
		r.state = u.State
		return u
	}
	for i := range 1 + uint64(h.rand.IntN(5)) {
		u.EntriesToSave = append(u.EntriesToSave, h.entry(first+i, u.Term))
	}
	r.append(u.EntriesToSave)
	u.Commit = max(u.Commit, min(r.last(), u.Commit+uint64(h.rand.IntN(6))))
	r.state = u.State
	return u
}

func (h *history) entry(index, term uint64) pb.Entry {
	e := pb.Entry{Index: index, Term: term}
	if h.rand.IntN(8) == 0 {
		return e // of a new leader
	}
	e.Type = pb.EntryType(h.rand.IntN(4))
	e.Key, e.ClientID = h.rand.Uint64(), h.rand.Uint64()
	e.SeriesID, e.RespondedTo = h.rand.Uint64()>>h.rand.IntN(64), uint64(h.rand.IntN(300))
	e.Cmd = []byte(strings.Repeat(string(rune('a'+h.rand.IntN(26))), []int{1, 20, 200, 3000, 9000}[h.rand.IntN(5)]))
	return e
}

// commits moves commit indexes and nothing else.
func (h *history) commits() call {
	var updates []pb.Update
	for info, r := range h.m {
		if pb.IsEmptyState(r.state) || h.replicas[info.ShardID-1] != info.ReplicaID {
			continue
		}
		r.state.Commit = max(r.state.Commit, min(r.last(), r.state.Commit+uint64(h.rand.IntN(4))))
		updates = append(updates, pb.Update{ShardID: info.ShardID, ReplicaID: info.ReplicaID, State: r.state})
	}
	return saveRaftState(updates)
}

func (h *history) snapshot(info raftio.NodeInfo, index uint64) pb.Snapshot {
	return pb.Snapshot{
		Filepath: fmt.Sprint("snapshot-", h.rand.IntN(1000)), FileSize: h.rand.Uint64(), Index: index, Term: 1 + uint64(h.rand.IntN(3)),
		Membership: pb.Membership{
			ConfigChangeId: index, Addresses: map[uint64]string{1: "a", 2: "b"}, NonVotings: map[uint64]string{3: "c"},
			Removed: map[uint64]bool{9: true}, Witnesses: map[uint64]string{},
		},
		Files:    []*pb.SnapshotFile{{Filepath: "further", FileSize: 7, FileId: 1, Metadata: []byte("m")}},
		Checksum: []byte{1, 2, 3}, ShardID: info.ShardID, Type: pb.OnDiskStateMachine, OnDiskIndex: index,
	}
}

// takeSnapshot records a snapshot of what is committed here.
func (h *history) takeSnapshot(info raftio.NodeInfo, r *modelReplica) call {
	index := r.state.Commit
	if index <= r.begins() {
		return h.update()
	}
	s := h.snapshot(info, index)
	r.snapshot = s
	return call{name: fmt.Sprintf("snapshot %v %d", info, index), do: func(db raftio.ILogDB) error {
		return db.SaveSnapshots([]pb.Update{{ShardID: info.ShardID, ReplicaID: info.ReplicaID, Snapshot: s}})
	}}
}

// compact removes entries that a snapshot covers.
func (h *history) compact(info raftio.NodeInfo, r *modelReplica) call {
	if r.snapshot.Index <= r.start+1 || r.snapshot.Index > r.last() {
		return h.update()
	}
	index := r.start + 1 + uint64(h.rand.IntN(int(r.snapshot.Index-r.start)))
	r.entries, r.start = r.entries[index-r.start:], index
	return call{name: fmt.Sprintf("compact %v %d", info, index), do: func(db raftio.ILogDB) error {
		if err := db.RemoveEntriesTo(info.ShardID, info.ReplicaID, index); err != nil {
			return err
		}
		done, err := db.CompactEntriesTo(info.ShardID, info.ReplicaID, index)
		if err == nil {
			<-done
		}
		return err
	}}
}

func (h *history) importSnapshot(info raftio.NodeInfo, s pb.Snapshot) call {
	*h.m[info] = modelReplica{
		bootstrap: &pb.Bootstrap{Join: true, Type: s.Type, Addresses: map[uint64]string{}},
		snapshot:  s, start: s.Index, state: pb.State{Term: s.Term, Commit: s.Index},
	}
	return call{name: fmt.Sprintf("import %v %d", info, s.Index), reopen: true, do: func(db raftio.ILogDB) error {
		return db.ImportSnapshot(s, info.ReplicaID)
	}}
}
