// Package logdb keeps the logs of dragonboat's replicas in a raftlog.Log: it is the
// database that dragonboat has its log, state and metadata written to (raftio.ILogDB).
//
// What of a replica is where:
//
//	entries    of the replica's group; their data begin with what an entry of dragonboat
//	           has more than one of the log, see appendEntry
//	state      the group's hard state
//	bootstrap  the group's metadata, and so is the newest snapshot; see metadata
//
// One call of SaveRaftState is one Write of the log, for whatever number of replicas: one
// run, there as a whole after a crash or not at all, and one fdatasync. A commit index
// that has changed alone costs neither. It need not be durable, because Raft finds it
// again; it goes along with the next Write.
//
// What must hold:
//
//   - What a call was told to save is durable when it returns, but for commit indexes.
//   - Readers see it from then on, and never wait for who saves.
//   - A commit index that is read is at least the newest snapshot's index: what is in a
//     snapshot is committed. dragonboat refuses to start from less, and may have written
//     the snapshot after the last state that survived.
//   - Damage is an error, raftlog.ErrCorrupt, and never taken for a missing entry. The log
//     finds that of its files; metadata are decoded when a DB is made, entries when they
//     are read.
//   - A commit index that a change of the configuration is behind is durable when
//     SaveRaftState returns, as an entry is. Who has left is not asked for a vote any more
//     then: without the commit index those that stay might not be a majority of the
//     configuration before.
//   - After an error nothing more can be saved. dragonboat panics with what SaveRaftState
//     returns.
//
// The log belongs to whoever has opened it, and so do preparing segments, recording how
// far it is synced, watching for a disk that hangs, and closing. Nobody else may write to it.
//
// Lock order: DB.saving, DB.mu.
package logdb

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/raftio"
	pb "github.com/lni/dragonboat/v4/raftpb"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/proa-kv/proa/raftlog"
)

// name is what dragonboat records in its directory. With another one there it refuses to
// start.
const name = "proa-raftlog"

// Format is recorded as well. It is the version of what entries and metadata look
// like.
const Format = 1

// ErrShardNumber says that the number of a shard is too large.
var ErrShardNumber = errors.New("shard number too large")

// ErrMetadata says that the metadata of a group make no sense. It is a raftlog.ErrCorrupt that
// no cutting of the log mends.
var ErrMetadata = fmt.Errorf("%w: metadata", raftlog.ErrCorrupt)

// Factory gives dragonboat a DB over Log.
type Factory struct{ Log *raftlog.Log }

var _ config.LogDBFactory = Factory{}

// Create implements config.LogDBFactory.
func (f Factory) Create(config.NodeHostConfig, config.LogDBCallback, []string, []string) (raftio.ILogDB, error) {
	return New(f.Log)
}

// Name implements config.LogDBFactory.
func (Factory) Name() string { return name }

// DB is a raftlog.Log as dragonboat sees it. Its methods may be called from any goroutine;
// those that save wait for one another.
type DB struct {
	log *raftlog.Log

	// saving guards the fields up to the blank line, and replica.next.
	saving    sync.Mutex
	err       error // that saving has come to
	write     *raftlog.Write
	entries   []raftpb.Entry // room for those of an update
	changed   []*replica     // whose next is not shown yet
	unwritten []*replica     // with a commit index that no Write holds

	mu       sync.RWMutex // of replicas, replica.shown
	replicas map[raftio.NodeInfo]*replica
	groups   map[uint64]bool // the numbers that are in use
}

var _ raftio.ILogDB = (*DB)(nil)

// replica is one dragonboat has a log of.
type replica struct {
	raftio.NodeInfo
	number uint64 // of its group
	group  *raftlog.Group

	next      record // what has been saved, or is about to be
	unwritten bool   // next.state.Commit is in no Write
	shown     record // what readers see
}

// record is what is known of a replica beside its entries.
type record struct {
	metadata
	state pb.State
}

// New makes a DB of what l holds. It returns raftlog.ErrForeign if another engine wrote to
// l, and raftlog.ErrCorrupt if what it holds of a replica makes no sense.
func New(l *raftlog.Log) (*DB, error) {
	d := &DB{
		log:      l,
		write:    l.NewWrite(),
		replicas: make(map[raftio.NodeInfo]*replica),
		groups:   make(map[uint64]bool),
	}
	for _, number := range l.Groups() {
		r, err := load(l.Group(number), number)
		if err == nil && d.replicas[r.NodeInfo] != nil {
			err = errTwice(r.NodeInfo)
		}
		if err != nil {
			return nil, err
		}
		d.replicas[r.NodeInfo], d.groups[number] = r, true
	}
	return d, nil
}

// load finds out whose log a group is.
func load(g *raftlog.Group, number uint64) (*replica, error) {
	r := &replica{number: number, group: g}
	var err error
	if r.NodeInfo, r.next.metadata, err = identify(number, g.Metadata()); err != nil {
		return nil, err
	}
	hs, _, err := g.InitialState()
	if err != nil {
		return nil, err
	}
	r.next.state = pb.State{Term: hs.Term, Vote: hs.Vote, Commit: hs.Commit}
	r.shown = r.next
	return r, nil
}

// identify decodes the metadata of a group, nil where it has none.
func identify(number uint64, data []byte) (info raftio.NodeInfo, m metadata, err error) {
	if data == nil {
		return info, m, fmt.Errorf("%w: group %d has no metadata", raftlog.ErrForeign, number)
	}
	if info, m, err = decodeMetadata(data); err != nil {
		return info, m, fmt.Errorf("%w of group %d: %w", ErrMetadata, number, err)
	}
	if ShardOf(number) != info.ShardID {
		return info, m, fmt.Errorf("%w of group %d say that it is of shard %d", ErrMetadata, number, info.ShardID)
	}
	return info, m, nil
}

// Verify checks the metadata of a log's groups, nil where there are none, as New does for a
// log that is open. The error joins all that is wrong.
func Verify(groups map[uint64][]byte) error {
	var errs []error
	known := make(map[raftio.NodeInfo]bool)
	for number, data := range groups {
		info, _, err := identify(number, data)
		if err == nil && known[info] {
			err = errTwice(info)
		}
		errs = append(errs, err)
		known[info] = known[info] || err == nil
	}
	return errors.Join(errs...)
}

// Covers returns the index of the snapshot in a group's metadata, 0 where there is none, or
// where a state at applied lacks something of it. What came from another replica it need not
// have yet: dragonboat has that in a file and installs it as it starts the replica. What was
// made here is a record without data; entries between the last one that the state machine
// was given (OnDiskIndex) and its index are none of the state's business.
func Covers(data []byte, applied uint64) uint64 {
	_, m, err := decodeMetadata(data)
	if err != nil || m.snapshot == nil {
		return 0
	}
	var s pb.Snapshot
	if err := s.Unmarshal(m.snapshot); err != nil || s.Dummy && s.OnDiskIndex > applied {
		return 0
	}
	return s.Index
}

func errTwice(r raftio.NodeInfo) error {
	return fmt.Errorf("%w of two groups say that they are of shard %d, replica %d", ErrMetadata, r.ShardID, r.ReplicaID)
}

// A group has the number of its shard; where that is taken by an earlier replica of the
// shard, the number of the next round.
const groupRound = 1 << 32

// ShardOf returns the shard of a group.
func ShardOf(group uint64) uint64 { return group % groupRound }

// Name implements raftio.ILogDB.
func (d *DB) Name() string { return name }

// BinaryFormat implements raftio.ILogDB.
func (d *DB) BinaryFormat() uint32 { return Format }

// Close implements raftio.ILogDB. It writes the commit indexes that no Write held so far.
// The log stays open.
func (d *DB) Close() error {
	d.saving.Lock()
	defer d.saving.Unlock()
	if d.err != nil {
		return nil // it was told when it happened
	}
	err := d.save()
	d.err = raftlog.ErrClosed
	return err
}

// SaveRaftState implements raftio.ILogDB.
func (d *DB) SaveRaftState(updates []pb.Update, _ uint64) error {
	return d.saved(func() error {
		for i := range updates {
			if err := d.fill(&updates[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

// SaveSnapshots implements raftio.ILogDB.
func (d *DB) SaveSnapshots(updates []pb.Update) error {
	return d.saved(func() error {
		for i := range updates {
			if _, err := d.fillSnapshot(&updates[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

// SaveBootstrapInfo implements raftio.ILogDB.
func (d *DB) SaveBootstrapInfo(shard, id uint64, b pb.Bootstrap) error {
	return d.saved(func() error {
		r, err := d.replicaFor(shard, id)
		if err != nil {
			return err
		}
		r.next.bootstrap = pb.MustMarshal(&b)
		d.fillMetadata(r)
		return nil
	})
}

// RemoveNodeData implements raftio.ILogDB.
func (d *DB) RemoveNodeData(shard, id uint64) error {
	return d.saved(func() error {
		r := d.replica(shard, id)
		if r == nil {
			return nil
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		d.remove(r)
		return nil
	})
}

// remove puts into the Write that a replica is gone. d.mu must be held.
func (d *DB) remove(r *replica) {
	r.unwritten = false
	d.write.Remove(r.group)
	delete(d.replicas, r.NodeInfo)
	delete(d.groups, r.number)
}

// Depart keeps in mind that a replica is being removed, durably: first its state goes, and
// RemoveNodeData follows. A replica that is not known is none that departs.
func (d *DB) Depart(shard, id uint64) error {
	return d.saved(func() error {
		if r := d.replica(shard, id); r != nil && !r.next.departing {
			r.next.departing = true
			d.fillMetadata(r)
		}
		return nil
	})
}

// Break has all further calls that save fail with err: for tests of whoever uses a DB.
func (d *DB) Break(err error) {
	d.saving.Lock()
	defer d.saving.Unlock()
	d.err = err
}

// Departing reports whether a replica is being removed.
func (d *DB) Departing(shard, id uint64) bool {
	r, _ := d.shown(shard, id)
	return r.departing
}

// State returns the durable state of a replica.
func (d *DB) State(shard, id uint64) pb.State {
	r, _ := d.shown(shard, id)
	return r.state
}

// Range returns the indexes of the first and the last entry of a replica that the log has;
// last is one less than first where it has none, and the snapshot's where one that came
// from another replica is behind them.
func (d *DB) Range(shard, id uint64) (first, last uint64) { return d.span(shard, id) }

// ImportSnapshot implements raftio.ILogDB: what was known of the replica is gone, and it
// begins with the snapshot.
func (d *DB) ImportSnapshot(s pb.Snapshot, id uint64) error {
	if s.Type == pb.UnknownStateMachine {
		return errors.New("a snapshot of no known type of state machine cannot be imported")
	}
	return d.saved(func() error {
		r, err := d.replicaFor(s.ShardID, id)
		if err != nil {
			return err
		}
		r.next = record{state: pb.State{Term: s.Term, Commit: s.Index}}
		r.next.bootstrap = pb.MustMarshal(&pb.Bootstrap{Join: true, Type: s.Type})
		r.next.setSnapshot(&s)
		d.write.Restart(r.group, s.Index, s.Term)
		d.fillMetadata(r)
		d.fillState(r)
		return nil
	})
}

// RemoveEntriesTo implements raftio.ILogDB. The next call that saves records it; after a
// crash before that entries may be there again.
func (d *DB) RemoveEntriesTo(shard, id, index uint64) error {
	if r := d.replica(shard, id); r != nil {
		d.log.Truncate(r.group, index)
	}
	return nil
}

// CompactEntriesTo implements raftio.ILogDB: nothing is left to be done. The log gives its
// segments up when nobody needs them.
func (d *DB) CompactEntriesTo(_, _, _ uint64) (<-chan struct{}, error) {
	done := make(chan struct{})
	close(done)
	return done, nil
}

// saved has fill put into the Write what is to be saved, and saves it, if there is
// anything.
func (d *DB) saved(fill func() error) error {
	d.saving.Lock()
	defer d.saving.Unlock()
	if d.err != nil {
		return d.err
	}
	if err := fill(); err != nil {
		return err
	}
	if !d.write.Empty() {
		d.err = d.save()
	}
	if d.err == nil {
		d.show()
	}
	return d.err
}

// save saves the Write, with the commit indexes that are in none.
func (d *DB) save() error {
	for _, r := range d.unwritten {
		if r.unwritten {
			d.fillState(r)
		}
	}
	d.unwritten = d.unwritten[:0]
	return d.log.Save(d.write, true)
}

// show has readers see what has changed.
func (d *DB) show() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range d.changed {
		r.shown = r.next
	}
	clear(d.changed)
	d.changed = d.changed[:0]
}

// fill puts into the Write what an update has for the log.
func (d *DB) fill(u *pb.Update) error {
	newer, err := d.fillSnapshot(u)
	if err != nil || pb.IsEmptyState(u.State) && len(u.EntriesToSave) == 0 && !newer {
		return err
	}
	r, err := d.replicaFor(u.ShardID, u.ReplicaID)
	if err != nil {
		return err
	}
	if newer {
		// It has come from another replica. dragonboat takes its log to end there.
		d.write.Restart(r.group, u.Snapshot.Index, u.Snapshot.Term)
	}
	if len(u.EntriesToSave) > 0 {
		d.fillEntries(r, u.EntriesToSave)
	}
	if pb.IsEmptyState(u.State) || pb.IsStateEqual(u.State, r.next.state) {
		return nil
	}
	before := r.next.state
	r.next.state = u.State
	d.changed = append(d.changed, r)
	switch {
	case u.Term != before.Term || u.Vote != before.Vote || slices.ContainsFunc(u.CommittedEntries, func(e pb.Entry) bool { return e.Type == pb.ConfigChangeEntry }):
		d.fillState(r)
	case !r.unwritten:
		r.unwritten = true
		d.unwritten = append(d.unwritten, r)
	}
	return nil
}

func (d *DB) fillState(r *replica) {
	s := r.next.state
	r.unwritten = false
	d.write.Append(r.group, raftpb.HardState{Term: s.Term, Vote: s.Vote, Commit: s.Commit}, nil)
}

// fillEntries appends entries. Their data stay in memory for readers as long as the log
// keeps them.
func (d *DB) fillEntries(r *replica, entries []pb.Entry) {
	size := 0
	for i := range entries {
		size += entryBytes(&entries[i])
	}
	data := make([]byte, 0, size)
	for i := range entries {
		e := &entries[i]
		from := len(data)
		data = appendEntry(data, e)
		d.entries = append(d.entries, raftpb.Entry{Term: e.Term, Index: e.Index, Data: data[from:len(data):len(data)]})
	}
	d.write.Append(r.group, raftpb.HardState{}, d.entries)
	clear(d.entries)
	d.entries = d.entries[:0]
}

// fillSnapshot puts an update's snapshot into the Write if it is newer than the one that
// is known.
func (d *DB) fillSnapshot(u *pb.Update) (newer bool, err error) {
	if pb.IsEmptySnapshot(u.Snapshot) {
		return false, nil
	}
	r, err := d.replicaFor(u.ShardID, u.ReplicaID)
	if err != nil || u.Snapshot.Index <= r.next.snapshotIndex {
		return false, err
	}
	r.next.setSnapshot(&u.Snapshot)
	d.fillMetadata(r)
	return true, nil
}

func (d *DB) fillMetadata(r *replica) {
	d.write.SetMetadata(r.group, appendMetadata(nil, r.NodeInfo, &r.next.metadata))
	d.changed = append(d.changed, r)
}

// replica returns a replica that is known, or nil.
func (d *DB) replica(shard, id uint64) *replica {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.replicas[raftio.NodeInfo{ShardID: shard, ReplicaID: id}]
}

// replicaFor returns a replica, which need not be known yet, for a call that saves.
func (d *DB) replicaFor(shard, id uint64) (*replica, error) {
	if r := d.replica(shard, id); r != nil {
		return r, nil
	}
	if shard >= groupRound {
		return nil, fmt.Errorf("%w: %d, at most %d is possible", ErrShardNumber, shard, uint64(groupRound-1))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	number := shard
	for d.groups[number] {
		number += groupRound
	}
	r := &replica{NodeInfo: raftio.NodeInfo{ShardID: shard, ReplicaID: id}, number: number, group: d.log.Group(number)}
	d.replicas[r.NodeInfo], d.groups[number] = r, true
	d.fillMetadata(r)
	return r, nil
}
