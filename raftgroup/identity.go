package raftgroup

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/proa-kv/proa/raftlog"
)

// Names inside a data directory.
const (
	identityFile = "proa.json"
	lockFile     = "LOCK"
	logDir       = "raft"
	stateDir     = "state"

	dataFormat = 2
)

// Errors of opening a data directory. Each is wrapped with what was found and
// what to do.
var (
	ErrOtherNode    = errors.New("the data directory belongs to another node")
	ErrOtherShards  = errors.New("the data directory has another number of shards")
	ErrDataFormat   = errors.New("the data directory has a format this version cannot read")
	ErrLogMissing   = errors.New("the data directory has lost its log")
	ErrInUse        = errors.New("the data directory is in use")
	ErrNotDataDir   = errors.New("not a data directory")
	ErrBadDirectory = errors.New("cannot use the data directory")
)

// Identity is what a data directory remembers about its node.
type Identity struct {
	Format      int      `json:"format"`
	Cluster     uint64   `json:"cluster_id,string"` // 0: not part of one yet
	Node        uint64   `json:"node_id"`           // 0: not known yet
	UID         uint64   `json:"uid,string"`        // of the directory, random
	Shards      int      `json:"shards"`
	Replicas    int      `json:"replicas"`    // of each shard, as the cluster was founded
	Founder     bool     `json:"founder"`     // one of those that the cluster was founded with
	Members     []Member `json:"members"`     // founders: all of them; others: whom they found when they joined
	Initialized bool     `json:"initialized"` // the groups' logs have been begun
}

// Member is a node as a directory remembers it, to find the others again.
type Member struct {
	ID     uint64 `json:"id"`
	UID    uint64 `json:"uid,string"`
	Peer   string `json:"peer"`
	Client string `json:"client"`
	Redis  string `json:"redis,omitempty"` // for clients of the Redis protocol
}

// founders are the members a cluster was founded with, where this node knows.
func (id *Identity) founders() []Member {
	if !id.Founder {
		return nil
	}
	return id.Members
}

// lockDir takes the directory's lock, which the kernel drops when the process
// ends.
func lockDir(f vfs.FS, dir string) (io.Closer, error) {
	l, err := f.Lock(f.PathJoin(dir, lockFile))
	if err == nil {
		return l, nil
	}
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("%w %s: %v; give the server's user write permission there, or choose another with --data", ErrBadDirectory, dir, err)
	}
	return nil, fmt.Errorf("%w: %s (%v); is another server running on it? stop that one, or choose another directory with --data", ErrInUse, dir, err)
}

// readIdentity returns the directory's identity, or ok = false where the
// directory has none yet.
func readIdentity(f vfs.FS, dir string) (id Identity, ok bool, err error) {
	path := f.PathJoin(dir, identityFile)
	file, err := f.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return id, false, nil
	}
	if err != nil {
		return id, false, fmt.Errorf("%w: %w", ErrBadDirectory, err)
	}
	defer file.Close()
	b, err := io.ReadAll(file)
	if err != nil {
		return id, false, fmt.Errorf("%w: %w", ErrBadDirectory, err)
	}
	if err := json.Unmarshal(b, &id); err != nil {
		return id, false, fmt.Errorf("%w: %s: %v; restore it from a backup", ErrBadDirectory, path, err)
	}
	if id.Format != dataFormat {
		return id, false, fmt.Errorf("%w: %s says format %d, this version reads %d; run the version of proa that wrote it", ErrDataFormat, path, id.Format, dataFormat)
	}
	return id, true, nil
}

// writeIdentity replaces the identity durably and atomically.
func writeIdentity(f vfs.FS, dir string, id Identity) error {
	b, err := json.MarshalIndent(id, "", "  ")
	if err != nil {
		return err
	}
	tmp := f.PathJoin(dir, identityFile+".tmp")
	file, err := f.Create(tmp, "proa-identity")
	if err != nil {
		return err
	}
	if _, err := file.Write(append(b, '\n')); err != nil {
		return errors.Join(err, file.Close())
	}
	if err := file.Sync(); err != nil {
		return errors.Join(err, file.Close())
	}
	if err := file.Close(); err != nil {
		return err
	}
	if err := f.Rename(tmp, f.PathJoin(dir, identityFile)); err != nil {
		return err
	}
	return syncDir(f, dir)
}

func syncDir(f vfs.FS, dir string) error {
	d, err := f.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// claim makes dir this node's: it reads the identity and checks it against
// what was asked for, or writes a new one, which belongs to no cluster yet.
// Zero node or shards mean "whatever the directory says".
func claim(f vfs.FS, dir string, node uint64, shards int) (Identity, error) {
	id, ok, err := readIdentity(f, dir)
	if err != nil {
		return id, err
	}
	if ok {
		if id.Cluster == 0 {
			// Nothing has been promised to anybody under the old number.
			if node != 0 && node != id.Node {
				id.Node = node
				return id, writeIdentity(f, dir, id)
			}
			return id, nil
		}
		if node != 0 && node != id.Node {
			return id, fmt.Errorf("%w: %s was written by node %d, this is node %d; start with --node-id %d, or choose another directory with --data", ErrOtherNode, dir, id.Node, node, id.Node)
		}
		if shards != 0 && shards != id.Shards {
			return id, fmt.Errorf("%w: %s has %d, asked for were %d; the number is fixed at the first start, leave --shards out or say %d", ErrOtherShards, dir, id.Shards, shards, id.Shards)
		}
		return id, nil
	}
	// A directory with a log or a state but no identity is damaged, not new.
	for _, sub := range []string{logDir, stateDir} {
		if names, err := f.List(f.PathJoin(dir, sub)); err == nil && len(names) > 0 {
			return id, fmt.Errorf("%w: %s has %s/ but no %s; restore that file from a backup", ErrBadDirectory, dir, sub, identityFile)
		}
	}
	id = Identity{Format: dataFormat, Node: node, UID: newClusterID()}
	if err := writeIdentity(f, dir, id); err != nil {
		return id, fmt.Errorf("%w %s: %w", ErrBadDirectory, dir, err)
	}
	return id, nil
}

// newClusterID draws a number other than 0.
func newClusterID() uint64 {
	for {
		if id := rand.Uint64(); id != 0 {
			return id
		}
	}
}

// prepareDir creates the directory where it is missing, so that it is still
// there after a power failure, and says clearly why it cannot.
func prepareDir(f vfs.FS, dir string) error {
	// The directory itself may be left from a start that came no further.
	parents := []string{f.PathDir(dir)}
	for d := dir; d != f.PathDir(d); d = f.PathDir(d) {
		if _, err := f.Stat(d); err == nil {
			break
		}
		parents = append(parents, f.PathDir(d))
	}
	if err := f.MkdirAll(dir, 0o755); err != nil {
		if errors.Is(err, os.ErrPermission) {
			return fmt.Errorf("%w %s: %v; give the server's user write permission there, or choose another with --data", ErrBadDirectory, dir, err)
		}
		return fmt.Errorf("%w %s: %w; choose another with --data", ErrBadDirectory, dir, err)
	}
	for _, p := range parents {
		// A parent that may not be opened is not one of those made here.
		if err := syncDir(f, p); err != nil && !errors.Is(err, os.ErrPermission) {
			return fmt.Errorf("%w %s: %w; choose another with --data", ErrBadDirectory, dir, err)
		}
	}
	return nil
}

// advise adds what to do to an error of opening dir that says only what is
// wrong.
func advise(err error, dir string) error {
	switch {
	case errors.Is(err, raftlog.ErrNoSpace), errors.Is(err, syscall.ENOSPC):
		return fmt.Errorf("%w; free space on the file system of %s, or choose another directory with --data", err, dir)
	case errors.Is(err, raftlog.ErrCorrupt):
		return fmt.Errorf("%w; \"proa verify %s\" lists all damage; restore the directory from a backup", err, dir)
	}
	return err
}
