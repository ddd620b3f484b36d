package logdb

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/lni/dragonboat/v4/raftio"
	pb "github.com/lni/dragonboat/v4/raftpb"
	"go.etcd.io/raft/v3"

	"github.com/proa-kv/proa/raftlog"
)

// shown returns what is known of a replica; ok is false if nothing is.
func (d *DB) shown(shard, id uint64) (r record, ok bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if known := d.replicas[raftio.NodeInfo{ShardID: shard, ReplicaID: id}]; known != nil {
		return known.shown, true
	}
	return record{}, false
}

// ListNodeInfo implements raftio.ILogDB: the replicas with a bootstrap record.
func (d *DB) ListNodeInfo() ([]raftio.NodeInfo, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	var infos []raftio.NodeInfo
	for info, r := range d.replicas {
		if r.shown.bootstrap != nil {
			infos = append(infos, info)
		}
	}
	slices.SortFunc(infos, func(a, b raftio.NodeInfo) int {
		return cmp.Or(cmp.Compare(a.ShardID, b.ShardID), cmp.Compare(a.ReplicaID, b.ReplicaID))
	})
	return infos, nil
}

// GetBootstrapInfo implements raftio.ILogDB.
func (d *DB) GetBootstrapInfo(shard, id uint64) (b pb.Bootstrap, err error) {
	r, _ := d.shown(shard, id)
	if r.bootstrap == nil {
		return b, raftio.ErrNoBootstrapInfo
	}
	return b, b.Unmarshal(r.bootstrap)
}

// GetSnapshot implements raftio.ILogDB: the newest snapshot, empty where there is none.
func (d *DB) GetSnapshot(shard, id uint64) (s pb.Snapshot, err error) {
	r, _ := d.shown(shard, id)
	if r.snapshot == nil {
		return s, nil
	}
	return s, s.Unmarshal(r.snapshot)
}

// ReadRaftState implements raftio.ILogDB: the state, and the range of the entries behind
// lastIndex.
func (d *DB) ReadRaftState(shard, id, lastIndex uint64) (raftio.RaftState, error) {
	r, _ := d.shown(shard, id)
	if pb.IsEmptyState(r.state) {
		return raftio.RaftState{}, raftio.ErrNoSavedLog
	}
	state := raftio.RaftState{State: r.state, FirstIndex: lastIndex}
	state.State.Commit = max(state.State.Commit, r.snapshotIndex)
	first, last := d.span(shard, id)
	if first = max(first, lastIndex+1); first <= last {
		state.FirstIndex, state.EntryCount = first, last+1-first
	}
	return state, nil
}

// span returns the indexes of the first and the last entry of a replica.
func (d *DB) span(shard, id uint64) (first, last uint64) {
	r := d.replica(shard, id)
	if r == nil {
		return 1, 0
	}
	first, _ = r.group.FirstIndex()
	last, _ = r.group.LastIndex()
	return first, last
}

// IterateEntries implements raftio.ILogDB. It appends to entries those from low up to
// high, high excluded, until their size, which begins with the given one, is above
// maxSize; the one that takes it there is the last. Nothing is appended where the entry at
// low is not there.
func (d *DB) IterateEntries(entries []pb.Entry, size, shard, id, low, high, maxSize uint64) ([]pb.Entry, uint64, error) {
	r := d.replica(shard, id)
	if r == nil {
		return entries, size, nil
	}
	last, _ := r.group.LastIndex()
	for high = min(high, last+1); low < high; {
		// The log's measure of an entry is below dragonboat's, so that it returns
		// all that fit, or one.
		found, err := r.group.Entries(low, high, maxSize-min(size, maxSize))
		if errors.Is(err, raft.ErrCompacted) {
			return entries, size, nil
		}
		if err != nil {
			return nil, 0, fmt.Errorf("entries of shard %d, replica %d: %w", shard, id, err)
		}
		for i := range found {
			var e pb.Entry
			if err := decodeEntry(&e, &found[i]); err != nil {
				return nil, 0, fmt.Errorf("%w: entry %d of shard %d, replica %d: %w", raftlog.ErrCorrupt, found[i].Index, shard, id, err)
			}
			entries = append(entries, e)
			if size += uint64(e.SizeUpperLimit()); size > maxSize {
				return entries, size, nil
			}
		}
		low += uint64(len(found))
	}
	return entries, size, nil
}
