package datadir

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/proa-kv/proa/raftgroup/dragonboat/logdb"
	"github.com/proa-kv/proa/raftlog"
	"github.com/proa-kv/proa/storage"
)

// Explain puts the error of opening log or state into the words of this
// package, and says which entries are lost.
func (id *Identity) Explain(err error) error {
	var damage *raftlog.CorruptionError
	switch {
	case errors.Is(err, raftlog.ErrMissing):
		return fmt.Errorf("%w: %w; "+RejoinOrRestore, ErrLogMissing, err)
	case errors.Is(err, raftlog.ErrOwner):
		return fmt.Errorf("%w: %s/: %w; restore the one that belongs to this node. Otherwise, "+RejoinOrRestore, ErrBadDirectory, LogDir, err)
	case errors.Is(err, storage.ErrOwner):
		return fmt.Errorf("%w: %s and %s/ do not belong together: %w; restore the matching files. Otherwise, "+RejoinOrRestore, ErrBadDirectory, IdentityFile, StateDir, err)
	case errors.Is(err, raftlog.ErrForeign):
		return fmt.Errorf("%w: %s says that the engine is %v: %s/: %w; restore the matching files. Otherwise, "+RejoinOrRestore, ErrBadDirectory, IdentityFile, id.Engine, LogDir, err)
	case errors.As(err, &damage) && len(damage.Lost) > 0:
		return fmt.Errorf("%w; the missing entries may contain acknowledged writes: %s", err, id.lostText(damage.Lost))
	}
	return err
}

// lostShardsMax bounds how many shards an error names.
const lostShardsMax = 16

func (id *Identity) lostText(lost []raftlog.LostSpan) string {
	var b strings.Builder
	for i, s := range lost {
		switch {
		case i == lostShardsMax:
			fmt.Fprintf(&b, " and of %d other shards", len(lost)-i)
			return b.String()
		case i > 0:
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%d to %d of %s", s.First, s.Last, id.shardName(id.shardOfGroup(s.Group)))
	}
	return b.String()
}

// Advise adds what to do to an error of opening dir that says only what is
// wrong.
//
// room is what the node needs on its disk, 0 where that is not known.
func Advise(err error, f vfs.FS, dir string, room int64) error {
	f = fileSystem(f, dir)
	switch {
	case errors.Is(err, raftlog.ErrNoSpace), errors.Is(err, syscall.ENOSPC):
		return fmt.Errorf("the disk of %s is full%s; free space there, or choose another directory with --data: %w", dir, spaceText(f, dir, room), err)
	}
	id, _, _ := readIdentity(f, dir)
	if advice := id.damageAdvice(err); advice != "" {
		return fmt.Errorf("%w; no file was deleted; \"proa verify %s\" lists all damage; %s", err, dir, advice)
	}
	return err
}

// RejoinOrRestore is what to do about a directory that cannot be used any more.
// A node of a cluster may not come back with an older one.
const RejoinOrRestore = "in a cluster, erase the data directory and let the node join again as a new node (proa member remove ID --force, proa serve --join HOST:7401 --join-token TOKEN); for a single node, restore the directory from a backup"

// damageAdvice returns what to do about damage to log or state, or "" where err
// is about something else.
func (id *Identity) damageAdvice(err error) string {
	switch {
	case errors.Is(err, raftlog.ErrCorrupt) && !errors.Is(err, logdb.ErrMetadata):
		return RejoinOrRestore + ", or continue without the missing entries: see --cut-log in \"proa shard recover --help\""
	case errors.Is(err, storage.ErrOptionsFile):
		return "that file holds no data: delete it and start again"
	case errors.Is(err, raftlog.ErrCorrupt), errors.Is(err, storage.ErrCorrupt), errors.Is(err, storage.ErrFiles), pebble.IsCorruptionError(err):
		return RejoinOrRestore
	}
	return ""
}

// AdviseStopped adds what to do to the error after which a node that has run
// stops.
func AdviseStopped(err error, dir string) error {
	if errors.Is(err, raftlog.ErrNoSpace) || errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("%w; no acknowledged write is lost: free space on the disk of %s and start again", err, dir)
	}
	return err
}

// spaceText says how much of a disk is free, and how much should be.
func spaceText(f vfs.FS, dir string, room int64) string {
	var parts []string
	if u, err := f.GetDiskUsage(dir); err == nil {
		parts = append(parts, fmt.Sprintf("%.1f MiB are free", float64(u.AvailBytes)/(1<<20)))
	}
	if room > 0 {
		parts = append(parts, fmt.Sprintf("up to %d MiB are needed to start", (room+1<<20-1)>>20))
	}
	if parts == nil {
		return ""
	}
	return ": " + strings.Join(parts, ", ")
}
