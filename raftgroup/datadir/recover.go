package datadir

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup/placement"
	"github.com/proa-kv/proa/raftlog"
	"github.com/proa-kv/proa/storage"
)

// RecoveredShard is what Recover has made of one shard.
type RecoveredShard struct {
	Shard  int      `json:"shard"`         // command.MetaShard: the meta group
	Index  uint64   `json:"index"`         // of the last entry the replica has; acknowledged ones behind it are lost
	Voters []uint64 `json:"voters_before"` // nodes
}

// RecoverOptions say what Recover does. Dir is required.
type RecoverOptions struct {
	Dir    string
	FS     vfs.FS // nil: the real file system
	Shards []int  // nil: all that the directory holds a replica of; command.MetaShard is the meta group
	// CutLog gives up what stands behind the first damage of the log, and what
	// is missing at its end, instead of refusing to go on without.
	CutLog bool
}

// Recovery is what Recover has done.
type Recovery struct {
	Shards []RecoveredShard `json:"shards"`
	// Lost are the nodes that the cluster goes on without, where all of its
	// shards were recovered. The node refuses them when it runs, and removes
	// them. Otherwise the other nodes may be the cluster's yet.
	Lost []uint64 `json:"lost,omitempty"`
}

// Recover makes the replicas in the directory of a node that is stopped
// the only voters of their shards: for a majority that is lost for good, or for
// a node alone whose log is damaged. Writes that the lost majority acknowledged
// and that had not come here are lost, and with CutLog those that the log has
// lost.
//
// Entries that are in the log and not known to be committed become so, except
// for changes of the configuration, which would bring lost voters back.
func Recover(o RecoverOptions) (Recovery, error) {
	dir, fs := o.Dir, fileSystem(o.FS, o.Dir)
	lock, err := lock(fs, dir)
	if err != nil {
		return Recovery{}, err
	}
	id, ok, err := readIdentity(fs, dir)
	if err == nil && (!ok || id.Cluster == 0) {
		err = fmt.Errorf("%w: %s does not belong to a node of a cluster", ErrNotDataDir, dir)
	}
	if err == nil {
		err = id.CheckRecoverable(dir)
	}
	var done Recovery
	if err == nil {
		done, err = recoverIn(fs, &o, &id)
	}
	if err == nil && (id.RolledBack || id.Removed || len(done.Lost) > 0) {
		id.RolledBack, id.Removed = false, false // nothing newer is left
		id.Lost = slices.Compact(slices.Sorted(slices.Values(slices.Concat(id.Lost, done.Lost))))
		err = id.Write(fs, dir)
	}
	return done, errors.Join(err, lock.Close())
}

// CheckRecoverable refuses a directory that Recover can do nothing with.
func (id *Identity) CheckRecoverable(dir string) error {
	if id.Engine != placement.Etcd {
		return fmt.Errorf("%s has the engine %v, and recovery without a majority works with %v only; nothing was changed; start a majority of the nodes again, or found a new cluster in an empty directory and import the last export (proa import)", dir, id.Engine, placement.Etcd)
	}
	return nil
}

func recoverIn(fs vfs.FS, o *RecoverOptions, id *Identity) (done Recovery, err error) {
	dir, shards := o.Dir, o.Shards
	s := id.StateOptions(fs, dir)
	s.RowCacheBytes = -1
	store, err := storage.Open(s)
	if err != nil {
		return done, Advise(id.Explain(err), fs, dir, 0)
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	l := id.LogOptions(fs, dir)
	l.CutDamage = o.CutLog
	log, _, err := raftlog.Open(l)
	if err != nil {
		return done, Advise(id.Explain(err), fs, dir, 0)
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	if err := CheckEtcdLog(log); err != nil {
		return done, id.Explain(err)
	}
	r := recovery{id: id, store: store, log: log, write: log.NewWrite(), confs: make(map[int]storage.InstallMeta)}
	for shard := range id.Shards + 1 {
		name := shard
		if shard == id.Shards {
			name = command.MetaShard
		}
		if shards != nil && !slices.Contains(shards, name) {
			continue
		}
		one, err := r.recover(shard)
		if err != nil {
			return done, fmt.Errorf("%s: %w", id.shardName(shard), err)
		}
		if one != nil {
			one.Shard = name
			done.Shards = append(done.Shards, *one)
		}
	}
	for _, shard := range shards {
		if !slices.ContainsFunc(done.Shards, func(d RecoveredShard) bool { return d.Shard == shard }) {
			return Recovery{}, fmt.Errorf("the directory has no replica of %s to recover; nothing was changed", id.shardName(shard))
		}
	}
	if err := log.Save(r.write, true); err != nil {
		return done, err
	}
	for shard, meta := range r.confs {
		if err := store.SetConf(shard, meta); err != nil {
			return done, err
		}
	}
	if len(done.Shards) == id.Shards+1 {
		done.Lost, err = others(store, id)
	}
	return done, err
}

// others returns the numbers of the cluster's other nodes.
func others(store *storage.Store, id *Identity) (nodes []uint64, err error) {
	m, err := ReadMap(store, id.Shards)
	if err != nil {
		return nil, err
	}
	for row := range m.Members() {
		if row.ID != id.Node {
			nodes = append(nodes, row.ID)
		}
	}
	for _, member := range id.Members {
		if row, _ := m.Node(member.ID); member.ID != id.Node && !row.Removed && !slices.Contains(nodes, member.ID) {
			nodes = append(nodes, member.ID)
		}
	}
	return nodes, nil
}

// recovery works on one directory.
type recovery struct {
	id    *Identity
	store *storage.Store
	log   *raftlog.Log
	write *raftlog.Write
	confs map[int]storage.InstallMeta // for the state machine, once the log is written
}

// recover has shard's replica stand alone. It returns nil where the directory
// has none.
func (r *recovery) recover(shard int) (*RecoveredShard, error) {
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
func (r *recovery) follow(log *raftlog.Group, applied uint64) error {
	term, err := r.term(log, applied)
	if err == nil {
		r.write.SetStart(log, applied, term, nil)
	}
	return err
}

// term returns the term of the entry that the state has applied last. Where the
// log has lost that, it is the last one the node knew of, which cannot be lower.
func (r *recovery) term(log *raftlog.Group, applied uint64) (uint64, error) {
	term, err := log.Term(applied)
	if !errors.Is(err, raft.ErrUnavailable) {
		return term, err
	}
	hs, _, err := log.InitialState()
	return max(hs.Term, StartTerm), err
}

// neutralise empties the changes of the configuration among the entries that
// have not been applied.
func (r *recovery) neutralise(log *raftlog.Group, applied, last uint64) error {
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
