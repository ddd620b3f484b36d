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
	replica, voters := survivor(&found, applied, &r.rows.Shards[shard], r.id.Node)
	if replica == 0 {
		return nil, nil
	}
	if found.Staged != "" {
		if _, err := r.fs.Stat(found.Staged); err != nil {
			return nil, fmt.Errorf("%w: a snapshot was received and not installed yet, and its file cannot be read: %w; "+RejoinOrRestore, ErrLogMissing, err)
		}
	}
	err = r.db.StandAlone(number, replica, transport.Target(r.id.Node), applied)
	if errors.Is(err, logdb.ErrGap) {
		err = fmt.Errorf("%w: %w; "+RejoinOrRestore, ErrLogMissing, err)
	}
	return &RecoveredShard{Index: max(found.Last, applied), Voters: voters}, err
}

// survivor returns the replica of a shard that is to stand alone, 0 where there is none, and
// the nodes with votes before. Where the log has lost its end it may know an earlier replica,
// or none; the map, which is as old as the state, then tells.
func survivor(found *logdb.Found, applied uint64, row *placement.Shard, node uint64) (replica uint64, voters []uint64) {
	own, wanted := row.On(node)
	cut := found.Last < applied || len(found.Voters) == 0 || own.ID() > found.Replica
	switch {
	case cut && wanted && own.ID() >= found.Replica && applied > 0 && found.Last <= applied && found.Staged == "":
		return own.ID(), row.VotingNodes()
	case !found.Member: // it has heard nothing yet, or is to be removed
		return 0, nil
	}
	for _, voter := range found.Voters {
		voters = append(voters, placement.NodeOf(voter))
	}
	return found.Replica, voters
}

func (r *dragonboatRecovery) save() error { return r.db.SaveAlone() }
