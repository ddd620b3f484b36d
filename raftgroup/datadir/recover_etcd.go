package datadir

import (
	"errors"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/proa-kv/proa/raftgroup/placement"
	"github.com/proa-kv/proa/raftlog"
	"github.com/proa-kv/proa/storage"
)

// etcdRecovery is the recovery of a directory of the engine etcd.
type etcdRecovery struct {
	id    *Identity
	store *storage.Store
	log   *raftlog.Log
	write *raftlog.Write
	confs map[int]storage.InstallMeta // for the state machine, once the log is written
}

func newEtcdRecovery(id *Identity, store *storage.Store, log *raftlog.Log) (*etcdRecovery, error) {
	if err := CheckEtcdLog(log); err != nil {
		return nil, err
	}
	return &etcdRecovery{id: id, store: store, log: log, write: log.NewWrite(), confs: make(map[int]storage.InstallMeta)}, nil
}

func (r *etcdRecovery) save() error {
	if err := r.log.Save(r.write, true); err != nil {
		return err
	}
	for shard, meta := range r.confs {
		if err := r.store.SetConf(shard, meta); err != nil {
			return err
		}
	}
	return nil
}

func (r *etcdRecovery) recover(shard int) (*RecoveredShard, error) {
	if r.store.Lost(shard) {
		return nil, nil
	}
	log := r.log.Group(uint64(shard))
	conf, err := Configuration(r.store, log, shard)
	if err != nil {
		return nil, err
	}
	self := ReplicaOf(&conf, r.id.Node)
	if self == 0 {
		return nil, nil
	}
	out := &RecoveredShard{}
	for _, voter := range conf.Voters {
		out.Voters = append(out.Voters, placement.NodeOf(voter))
	}
	if out.Index, err = log.LastIndex(); err != nil {
		return nil, err
	}
	applied := r.store.Applied(shard)
	if applied > out.Index {
		if err := r.follow(log, applied); err != nil {
			return nil, err
		}
		out.Index = applied
	}
	if err := r.neutralise(log, max(applied, StartIndex), out.Index); err != nil {
		return nil, err
	}
	alone := raftpb.ConfState{Voters: []uint64{self}}
	if applied == 0 { // the state machine has no configuration yet, the log's counts
		r.write.SetConfState(log, &alone)
		return out, nil
	}
	term, err := r.term(log, applied)
	if err != nil {
		return nil, err
	}
	b, err := alone.Marshal()
	r.confs[shard] = storage.InstallMeta{Index: applied, Term: term, Conf: b}
	return out, err
}

// follow has the log begin where the state is, which holds what the log has
// lost from its end at last.
func (r *etcdRecovery) follow(log *raftlog.Group, applied uint64) error {
	term, err := r.term(log, applied)
	if err == nil {
		r.write.SetStart(log, applied, term, nil)
	}
	return err
}

// term returns the term of the entry that the state has applied last. Where the
// log has lost that, it is the last one the node knew of, which cannot be lower.
func (r *etcdRecovery) term(log *raftlog.Group, applied uint64) (uint64, error) {
	term, err := log.Term(applied)
	if !errors.Is(err, raft.ErrUnavailable) {
		return term, err
	}
	hs, _, err := log.InitialState()
	return max(hs.Term, StartTerm), err
}

// neutralise empties the changes of the configuration among the entries that
// have not been applied.
func (r *etcdRecovery) neutralise(log *raftlog.Group, applied, last uint64) error {
	if applied >= last {
		return nil
	}
	entries, err := log.Entries(applied+1, last+1, ^uint64(0))
	if err != nil {
		return err
	}
	changed := false
	for i := range entries {
		if e := &entries[i]; e.Type != raftpb.EntryNormal {
			*e = raftpb.Entry{Term: e.Term, Index: e.Index}
			changed = true
		}
	}
	if !changed {
		return nil
	}
	hs, _, err := log.InitialState()
	if err != nil {
		return err
	}
	if raft.IsEmptyHardState(hs) {
		hs.Term = entries[len(entries)-1].Term
	}
	r.write.Append(log, hs, entries)
	return nil
}
