package etcd

import (
	"bytes"
	"log/slog"
	"testing"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/proa-kv/proa/internal/lograte"
)

// Raft warns of each campaign that has to wait for a change of the configuration to
// be applied. After a start that is so as a rule, for each shard, and no alarm.
func TestRaftLoggerOfStart(t *testing.T) {
	storage := raft.NewMemoryStorage()
	must(t, storage.Append([]raftpb.Entry{{Index: 1, Term: 1, Type: raftpb.EntryConfChange}}))
	must(t, storage.SetHardState(raftpb.HardState{Term: 1, Commit: 1}))
	var log bytes.Buffer
	l := &raftLogger{slog.New(slog.NewTextHandler(&log, nil)), new(lograte.Line)}
	node, err := raft.NewRawNode(&raft.Config{
		ID: 1, ElectionTick: 10, HeartbeatTick: 9, Storage: confStorage{storage}, MaxSizePerMsg: 1 << 20, MaxInflightMsgs: 4, Logger: l,
	})
	must(t, err)
	must(t, node.Campaign())
	if s := node.BasicStatus().RaftState; s != raft.StateFollower || log.Len() > 0 {
		t.Errorf("%v; logged: %s", s, &log)
	}
	l.Warningf("%x is unpromotable", 1)
	if log.Len() == 0 {
		t.Error("another warning is lost")
	}
}

// confStorage is a storage of which node 1 is the only voter.
type confStorage struct{ *raft.MemoryStorage }

func (s confStorage) InitialState() (raftpb.HardState, raftpb.ConfState, error) {
	h, _, err := s.MemoryStorage.InitialState()
	return h, raftpb.ConfState{Voters: []uint64{1}}, err
}
