package datadir

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"

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
	r, err := id.recovery(fs, store, log)
	if err != nil {
		return done, Advise(id.Explain(err), fs, dir, 0)
	}
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
	if err := r.save(); err != nil {
		return done, err
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

// recovery works on the log of one directory, and what the store knows of it.
type recovery interface {
	// recover has a shard's replica stand alone, once save is called. It returns nil where
	// the directory has none.
	recover(shard int) (*RecoveredShard, error)
	save() error
}

// recovery returns that of the directory's engine.
func (id *Identity) recovery(fs vfs.FS, store *storage.Store, log *raftlog.Log) (recovery, error) {
	if id.Engine == placement.Dragonboat {
		return newDragonboatRecovery(id, fs, store, log)
	}
	return newEtcdRecovery(id, store, log)
}
