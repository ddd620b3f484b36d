package datadir

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/proa-kv/proa/raftgroup/dragonboat/logdb"
	"github.com/proa-kv/proa/raftgroup/dragonboat/transport"
	"github.com/proa-kv/proa/raftgroup/placement"
	"github.com/proa-kv/proa/raftlog"
	"github.com/proa-kv/proa/storage"
)

// dragonboatRecovery is the recovery of a directory of the engine dragonboat. Who the members
// of a shard are is in the log alone; where the log has lost that, the cluster's map tells.
type dragonboatRecovery struct {
	id    *Identity
	fs    vfs.FS
	store *storage.Store
	db    *logdb.DB
	rows  *placement.Map
}

func newDragonboatRecovery(id *Identity, fs vfs.FS, store *storage.Store, log *raftlog.Log) (*dragonboatRecovery, error) {
	db, err := logdb.New(log)
	if err != nil {
		return nil, err
	}
	rows, err := ReadMap(store, id.Shards)
	return &dragonboatRecovery{id: id, fs: fs, store: store, db: db, rows: rows}, err
}

func (r *dragonboatRecovery) recover(shard int) (*RecoveredShard, error) {
	applied, number := r.store.Applied(shard), uint64(shard)+1
	found, err := r.db.Find(number, applied)
	if err != nil || r.store.Lost(shard) {
		return nil, err
	}
	out := &RecoveredShard{Index: max(found.Last, applied)}
	for _, voter := range found.Voters {
		out.Voters = append(out.Voters, placement.NodeOf(voter))
	}
	switch {
	case found.Member:
	case applied == 0, len(found.Voters) > 0: // it has heard nothing yet, or is to be removed
		return nil, nil
	default:
		row := r.rows.Shards[shard]
		own, ok := row.On(r.id.Node)
		if !ok {
			return nil, nil
		}
		found.Replica = own.ID()
		out.Voters = row.VotingNodes()
	}
	if found.Staged != "" {
		if _, err := r.fs.Stat(found.Staged); err != nil {
			return nil, fmt.Errorf("%w: a snapshot was received and not installed yet, and its file cannot be read: %w; "+RejoinOrRestore, ErrLogMissing, err)
		}
	}
	err = r.db.StandAlone(number, found.Replica, transport.Target(r.id.Node), applied)
	if errors.Is(err, logdb.ErrGap) {
		err = fmt.Errorf("%w: %w; "+RejoinOrRestore, ErrLogMissing, err)
	}
	return out, err
}

func (r *dragonboatRecovery) save() error { return r.db.SaveAlone() }
