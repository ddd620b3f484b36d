package datadir

import (
	"fmt"
	"slices"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup/placement"
	"github.com/proa-kv/proa/raftlog"
	"github.com/proa-kv/proa/storage"
)

// Configuration returns a group's configuration as of what the state machine has
// applied. The state machine keeps it; the log has the first one.
func Configuration(store *storage.Store, log *raftlog.Group, shard int) (raftpb.ConfState, error) {
	meta, ok := store.Installed(shard)
	if !ok {
		_, conf, err := log.InitialState()
		return conf, err
	}
	var conf raftpb.ConfState
	if err := conf.Unmarshal(meta.Conf); err != nil {
		return conf, fmt.Errorf("%w: configuration of shard %d: %v", raftlog.ErrCorrupt, shard, err)
	}
	return conf, nil
}

// CheckEtcdLog refuses a log whose groups another engine than etcd has written. The error
// wraps raftlog.ErrForeign.
func CheckEtcdLog(log *raftlog.Log) error {
	for _, number := range log.Groups() {
		if err := checkEtcdGroup(number, log.Group(number).Metadata()); err != nil {
			return err
		}
	}
	return nil
}

func checkEtcdGroup(number uint64, metadata []byte) error {
	if metadata != nil {
		return fmt.Errorf("%w: group %d has metadata, of which the engine %v writes none", raftlog.ErrForeign, number, placement.Etcd)
	}
	return nil
}

// ReplicaOf returns node's replica in a configuration: the newest, should there be
// more than one; 0 for none.
func ReplicaOf(cs *raftpb.ConfState, node uint64) (found uint64) {
	for _, id := range slices.Concat(cs.Voters, cs.VotersOutgoing, cs.Learners, cs.LearnersNext) {
		if placement.NodeOf(id) == node {
			found = max(found, id)
		}
	}
	return found
}

// ReadMap reads the rows of the meta group, the shard of that number.
func ReadMap(store *storage.Store, meta int) (*placement.Map, error) {
	m := placement.NewMap(meta)
	m.Epoch = store.Revision(meta)
	var bad error
	err := store.Scan(storage.ScanOptions{Shards: []int{meta}}, func(key, value []byte, row command.Row) bool {
		bad = m.Add(string(key), value, row.Version)
		return bad == nil
	})
	if err == nil {
		err = bad
	}
	if err != nil {
		return nil, fmt.Errorf("reading the meta group's rows: %w", err)
	}
	return m, nil
}
