// Package datadir is a node's data directory: its identity, its lock, what it
// remembers of other nodes, how a node with an empty one comes into a cluster, and
// what can be done with the directory of a stopped node.
//
//	dir.go       opening it, and what it says later
//	identity.go  proa.json: who the node is
//	key.go       the node's key, join tokens
//	private.go   permissions
//	advice.go    what to do about errors
//	form.go      forming a cluster, or joining one
//	runs.go      runs.json: the last runs of other nodes
//	verify.go    checking every checksum
//	recover.go   giving up a lost majority, recover_*.go the engines' part of it
package datadir

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/proa-kv/proa/raftgroup/placement"
	"github.com/proa-kv/proa/raftlog"
)

const (
	// DefaultShards is the number of shards of a new data directory.
	DefaultShards = 8
	// ShardsMax bounds the number of shards.
	ShardsMax = 1024
	// DefaultReplicas is how many replicas a shard has where nothing else is said.
	DefaultReplicas = 3

	// StartIndex and StartTerm are where every group's log begins: an index
	// above zero, so that "the first configuration" is a log position like
	// any other.
	StartIndex = 1
	StartTerm  = 1
)

// Dir is a data directory in use. It is locked until Close.
type Dir struct {
	Identity
	FS   vfs.FS
	Path string

	lock    io.Closer
	marking sync.Once
}

// Open locks a directory, which it creates if need be, and reads its identity, or
// gives it a new one that belongs to no cluster yet. fs nil is the real file system. A
// directory without a cluster is refused on a disk with less than roomMin bytes free.
//
// Errors wrap ErrInUse, ErrOtherNode, ErrOtherShards, ErrOtherEngine, ErrDataFormat,
// ErrBadDirectory, ErrRemoved, ErrRolledBack or what the file system said.
func Open(fs vfs.FS, path string, asked Asked, roomMin int64, logger *slog.Logger) (*Dir, error) {
	if err := asked.check(); err != nil {
		return nil, err
	}
	d := &Dir{FS: fileSystem(fs, path), Path: path}
	if err := prepare(d.FS, path); err != nil {
		return nil, err
	}
	var err error
	if d.lock, err = lock(d.FS, path); err != nil {
		return nil, err
	}
	tighten(d.FS, logger)
	if err = d.checkRoom(roomMin); err == nil {
		d.Identity, err = claim(d.FS, path, &asked)
	}
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// Close releases the lock.
func (d *Dir) Close() error { return d.lock.Close() }

// save makes the identity durable.
func (d *Dir) save() error { return d.Write(d.FS, d.Path) }

// Bootstrap gives the log of every group of which a founder holds a replica its
// first configuration, in the first start, and has the identity remember it. An engine
// other than etcd begins its groups by itself, with FirstShards; Begun follows then.
func (d *Dir) Bootstrap(log *raftlog.Log, segments int) error {
	switch {
	case d.Initialized:
		// A log without groups is another thing: all have left this node.
		if d.Founder && segments == 0 {
			return fmt.Errorf("%w: %s holds nothing; "+RejoinOrRestore, ErrLogMissing, d.FS.PathJoin(d.Path, LogDir))
		}
		return nil
	case d.Engine != placement.Etcd:
		return nil
	case d.Founder:
		if err := d.bootstrapGroups(log); err != nil {
			return err
		}
	}
	return d.Begun()
}

// Begun has the identity remember that the groups' logs have been begun, so that a log
// that has vanished later, without segments, is noticed instead of begun again.
func (d *Dir) Begun() error {
	if d.Initialized {
		return nil
	}
	d.Initialized = true
	return d.save()
}

func (d *Dir) bootstrapGroups(log *raftlog.Log) error {
	w := log.NewWrite()
	for shard, row := range d.FirstShards() {
		if _, here := row.On(d.Node); !here {
			continue
		}
		var conf raftpb.ConfState
		for _, r := range row.Replicas {
			if r.Learner {
				conf.Learners = append(conf.Learners, r.ID())
			} else {
				conf.Voters = append(conf.Voters, r.ID())
			}
		}
		g := log.Group(uint64(shard))
		w.SetStart(g, StartIndex, StartTerm, &conf)
		w.Append(g, raftpb.HardState{Term: StartTerm, Commit: StartIndex}, nil)
	}
	return log.Save(w, true)
}

// FirstShards returns where the founders have put the replicas, by shard.
func (id *Identity) FirstShards() []placement.Shard {
	var nodes []uint64
	for _, m := range id.Members {
		nodes = append(nodes, m.ID)
	}
	return placement.Initial(nodes, id.Shards, id.Replicas)
}

// Begin says that the directory has the present format, which log and state have by
// now, and counts this start, before another node can learn of it.
func (d *Dir) Begin(logger *slog.Logger) error {
	if present := d.format(); d.Format != present {
		logger.Info("upgrading the data directory to a new format; earlier versions of proa cannot read it any more", "from", d.Format, "to", present)
		d.Format = present
	}
	d.Generation++
	return d.save()
}

// MarkRolledBack has every later start refuse the directory at once, instead of
// writing to its log until it seems to have caught up. When it returns that is
// done, or has failed. For any thread.
func (d *Dir) MarkRolledBack() error { return d.mark(func(id *Identity) { id.RolledBack = true }) }

// MarkRemoved has every later start refuse the directory, whose node was removed
// from the cluster. For any thread.
func (d *Dir) MarkRemoved() error { return d.mark(func(id *Identity) { id.Removed = true }) }

// mark records, once, that the directory is of no more use.
func (d *Dir) mark(set func(*Identity)) (err error) {
	d.marking.Do(func() {
		id := d.Identity
		set(&id)
		err = id.Write(d.FS, d.Path)
	})
	return err
}

// checkRoom refuses a directory without a cluster on a disk that has no space for
// the begin of a log, where the file system says how much there is: other nodes
// must not count on a node that cannot start.
func (d *Dir) checkRoom(min int64) error {
	u, err := d.FS.GetDiskUsage(d.Path)
	if err != nil || u.TotalBytes == 0 || u.AvailBytes >= uint64(min) {
		return nil
	}
	if id, ok, err := readIdentity(d.FS, d.Path); err != nil || ok && id.Cluster != 0 {
		return nil // claim returns the error; with a cluster there may be a log already
	}
	return fmt.Errorf("the log needs %d MiB to begin: %w", (min+1<<20-1)>>20, syscall.ENOSPC)
}
