package logdb

import (
	"errors"
	"reflect"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	pb "github.com/lni/dragonboat/v4/raftpb"

	"github.com/proa-kv/proa/raftlog"
)

func changeEntry(index uint64, typ pb.ConfigChangeType, replica uint64) pb.Entry {
	c := pb.ConfigChange{Type: typ, ReplicaID: replica, Address: "9"}
	return pb.Entry{Index: index, Term: 1, Type: pb.ConfigChangeEntry, Cmd: pb.MustMarshal(&c)}
}

func commandEntry(index uint64) pb.Entry {
	return pb.Entry{Index: index, Term: 2, Type: pb.EncodedEntry, ClientID: 7, SeriesID: 0, Key: index, Cmd: []byte{byte(index)}}
}

func emptyEntry(index uint64) pb.Entry { return pb.Entry{Index: index, Term: 2} }

// founded is the log of replica 2 of 1, 2 and 3.
func founded(rest ...pb.Entry) []pb.Entry {
	return append([]pb.Entry{changeEntry(1, pb.AddNode, 1), changeEntry(2, pb.AddNode, 2), changeEntry(3, pb.AddNode, 3)}, rest...)
}

func TestStandAlone(t *testing.T) {
	record := func(index, term, onDisk uint64, removed ...uint64) pb.Snapshot {
		s := pb.Snapshot{Index: index, Term: term, ShardID: 1, Type: pb.OnDiskStateMachine, OnDiskIndex: onDisk, Dummy: true}
		s.Membership = pb.Membership{ConfigChangeId: index, Addresses: map[uint64]string{2: "2"}}
		for _, id := range removed {
			if s.Membership.Removed == nil {
				s.Membership.Removed = make(map[uint64]bool)
			}
			s.Membership.Removed[id] = true
		}
		return s
	}
	before := func(index, onDisk uint64, dummy bool) pb.Snapshot {
		return pb.Snapshot{Index: index, Term: 2, ShardID: 1, Type: pb.OnDiskStateMachine, OnDiskIndex: onDisk, Dummy: dummy, Filepath: "file",
			Membership: pb.Membership{ConfigChangeId: 3, Addresses: map[uint64]string{1: "1", 2: "2"}, NonVotings: map[uint64]string{5: "5"}, Removed: map[uint64]bool{3: true}}}
	}
	staged := before(6, 6, false)
	staged.Membership = record(6, 2, 0, 1, 3, 5).Membership
	cases := map[string]struct {
		entries  []pb.Entry
		commit   uint64
		snapshot pb.Snapshot // taken of it, or received
		applied  uint64
		voters   []uint64

		want  pb.Snapshot
		rest  []pb.Entry
		after uint64 // the commit index
		err   error
	}{
		"nothing applied": {
			entries: founded(commandEntry(4)), commit: 3, voters: []uint64{1, 2, 3},
			want: record(3, 1, 0, 1, 3), rest: []pb.Entry{commandEntry(4)}, after: 3,
		},
		"some applied": {
			entries: founded(commandEntry(4), commandEntry(5), commandEntry(6)), commit: 5, applied: 4, voters: []uint64{1, 2, 3},
			want: record(4, 2, 4, 1, 3), rest: []pb.Entry{commandEntry(5), commandEntry(6)}, after: 5,
		},
		"what is not for the state follows": {
			entries: founded(commandEntry(4), emptyEntry(5), changeEntry(6, pb.AddNonVoting, 4), commandEntry(7)), commit: 4, applied: 4, voters: []uint64{1, 2, 3},
			want: record(6, 1, 4, 1, 3), rest: []pb.Entry{commandEntry(7)}, after: 6,
		},
		"a committed change behind": {
			entries: founded(commandEntry(4), commandEntry(5), changeEntry(6, pb.RemoveNode, 3), commandEntry(7)), commit: 7, applied: 4, voters: []uint64{1, 2},
			want: record(4, 2, 4, 1, 3), rest: []pb.Entry{commandEntry(5), {Index: 6, Term: 1}, commandEntry(7)}, after: 7,
		},
		"a change that is not committed": {
			entries: founded(commandEntry(4), changeEntry(5, pb.AddNonVoting, 4), commandEntry(6), changeEntry(7, pb.AddNode, 4)), commit: 4, applied: 4, voters: []uint64{1, 2, 3},
			want: record(5, 1, 4, 1, 3), rest: []pb.Entry{commandEntry(6), {Index: 7, Term: 1}}, after: 5,
		},
		"behind a snapshot": {
			entries: founded(commandEntry(4), commandEntry(5), emptyEntry(6), commandEntry(7)), commit: 7, snapshot: before(5, 5, true), applied: 6, voters: []uint64{1, 2},
			want: record(6, 2, 6, 1, 3, 5), rest: []pb.Entry{commandEntry(7)}, after: 7,
		},
		"the log has lost its end": {
			entries: founded(commandEntry(4)), commit: 4, applied: 9, voters: []uint64{1, 2, 3},
			want: record(9, 2, 9, 1, 3), after: 9,
		},
		"the log has lost all": {
			applied: 9, want: record(9, 1, 9), after: 9,
		},
		"a snapshot that is not installed": {
			entries: founded(), commit: 3, snapshot: before(6, 6, false), applied: 0, voters: []uint64{1, 2},
			want: staged, after: 6,
		},
		"the state has lost what was durable": {
			entries: founded(commandEntry(4), commandEntry(5)), commit: 5, snapshot: before(5, 5, true), applied: 4, voters: []uint64{1, 2}, err: ErrGap,
		},
		"nothing": {err: ErrGap},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			fs := vfs.NewMem()
			db := mustOpen(t, testOptions(fs))
			if c.entries != nil {
				must(t, db.SaveBootstrapInfo(1, 2, pb.Bootstrap{Type: pb.OnDiskStateMachine, Addresses: map[uint64]string{2: "2"}}))
				u := update(1, 2, c.entries...)
				u.State = pb.State{Term: 2, Vote: 3, Commit: c.commit}
				must(t, db.SaveRaftState([]pb.Update{u}, 1))
			}
			if c.snapshot.Dummy {
				must(t, db.SaveSnapshots([]pb.Update{{ShardID: 1, ReplicaID: 2, Snapshot: c.snapshot}}))
			} else if c.snapshot.Index > 0 {
				must(t, db.SaveRaftState([]pb.Update{{ShardID: 1, ReplicaID: 2, Snapshot: c.snapshot}}, 1))
			}
			f, err := db.Find(1, c.applied)
			if err != nil || len(c.voters) > 0 && (f.Replica != 2 || !f.Member || !reflect.DeepEqual(f.Voters, c.voters)) || (f.Staged != "") != (c.snapshot.Index > 0 && !c.snapshot.Dummy) {
				t.Errorf("%+v, %v", f, err)
			}
			err = db.StandAlone(1, 2, "2", c.applied)
			if !errors.Is(err, c.err) {
				t.Fatalf("%v, want %v", err, c.err)
			}
			if c.err != nil {
				if err := db.SaveAlone(); !errors.Is(err, c.err) {
					t.Errorf("saved all the same: %v", err)
				}
			} else {
				must(t, db.SaveAlone())
			}
			db.mustClose(t)
			db = mustOpen(t, testOptions(fs))
			defer db.mustClose(t)
			s, err := db.GetSnapshot(1, 2)
			must(t, err)
			if c.err != nil {
				if s.Index != c.snapshot.Index || len(s.Membership.Addresses) == 1 {
					t.Errorf("changed: %+v", s)
				}
				return
			}
			if !reflect.DeepEqual(s, c.want) {
				t.Errorf("snapshot %+v\nwant     %+v", s, c.want)
			}
			state, err := db.ReadRaftState(1, 2, s.Index)
			if err != nil || state.State.Commit != c.after || state.State.Term < 1 || state.EntryCount != uint64(len(c.rest)) {
				t.Errorf("state %+v, %v", state, err)
			}
			entries, _, err := db.IterateEntries(nil, 0, 1, 2, s.Index+1, s.Index+1+uint64(len(c.rest)), 1<<20)
			if err != nil || len(entries) != len(c.rest) || len(entries) > 0 && !reflect.DeepEqual(entries, c.rest) {
				t.Errorf("entries %v, %v\nwant %v", entries, err, c.rest)
			}
			if infos, err := db.ListNodeInfo(); err != nil || len(infos) != 1 || infos[0] != info(1, 2) {
				t.Errorf("replicas %v, %v", infos, err)
			}
		})
	}
}

// TestAloneInsteadOfAnother: a log that has lost its end knows an earlier replica, whose place
// the one that the state is of takes, with a term that is not older.
func TestAloneInsteadOfAnother(t *testing.T) {
	fs := vfs.NewMem()
	db := mustOpen(t, testOptions(fs))
	must(t, db.SaveBootstrapInfo(1, 2, pb.Bootstrap{Type: pb.OnDiskStateMachine, Addresses: map[uint64]string{2: "2"}}))
	must(t, db.SaveBootstrapInfo(2, 2, pb.Bootstrap{Type: pb.OnDiskStateMachine, Addresses: map[uint64]string{2: "2"}}))
	u := update(1, 2, founded(commandEntry(4))...)
	u.State = pb.State{Term: 7, Vote: 3, Commit: 4}
	must(t, db.SaveRaftState([]pb.Update{u}, 1))
	must(t, db.StandAlone(1, 5, "2", 9))
	must(t, db.SaveAlone())
	db.mustClose(t)
	db = mustOpen(t, testOptions(fs))
	defer db.mustClose(t)
	if infos, err := db.ListNodeInfo(); err != nil || len(infos) != 2 || infos[0] != info(1, 5) || infos[1] != info(2, 2) {
		t.Errorf("replicas %v, %v", infos, err)
	}
	s, err := db.GetSnapshot(1, 5)
	must(t, err)
	if s.Index != 9 || s.Term != 7 || s.OnDiskIndex != 9 || len(s.Membership.Addresses) != 1 || s.Membership.Addresses[5] != "2" {
		t.Errorf("snapshot %+v", s)
	}
	if first, last := db.Range(1, 5); first != 10 || last != 9 {
		t.Errorf("entries %d to %d", first, last)
	}
	if state := db.State(1, 5); state.Term != 7 || state.Commit != 9 {
		t.Errorf("state %+v", state)
	}
}

// TestFind: a replica that is being removed does not count, and a damaged change is told.
func TestFind(t *testing.T) {
	db := mustOpen(t, testOptions(vfs.NewMem()))
	defer db.mustClose(t)
	must(t, db.SaveBootstrapInfo(1, 2, pb.Bootstrap{Type: pb.OnDiskStateMachine}))
	if f, err := db.Find(1, 0); f.Replica != 2 || f.Member || len(f.Voters) > 0 || err != nil {
		t.Errorf("%+v, %v", f, err)
	}
	must(t, db.Depart(1, 2))
	if f, err := db.Find(1, 0); f.Replica != 0 || err != nil {
		t.Errorf("departing: %+v, %v", f, err)
	}
	must(t, db.SaveBootstrapInfo(2, 2, pb.Bootstrap{Type: pb.OnDiskStateMachine}))
	must(t, db.SaveRaftState([]pb.Update{update(2, 2, pb.Entry{Index: 1, Term: 1, Type: pb.ConfigChangeEntry, Cmd: []byte{0xff}})}, 1))
	if _, err := db.Find(2, 0); !errors.Is(err, raftlog.ErrCorrupt) {
		t.Errorf("damaged: %v", err)
	}
}
