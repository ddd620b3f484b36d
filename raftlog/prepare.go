package raftlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/proa-kv/proa/internal/durable"
)

// maintain keeps one segment prepared and recycles what is no longer needed,
// until the log is closed or has failed.
func (l *Log) maintain() {
	defer close(l.done)
	for l.awaitWork() {
		if s := l.takeDead(); s != nil {
			if err := l.recycle(s); err != nil {
				l.fail(err)
			}
			continue
		}
		s, err := l.prepare()
		l.prepareDone(s, err)
	}
}

// awaitWork waits until there is something to recycle or to prepare. False
// means that there never will be again.
func (l *Log) awaitWork() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		if l.closing || l.Err() != nil {
			return false
		}
		if len(l.dead) > 0 || (len(l.prepared) == 0 && l.noSpace == nil && !l.held) {
			return true
		}
		l.changed.Wait()
	}
}

func (l *Log) takeDead() *segment {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.dead) == 0 {
		return nil
	}
	s := l.dead[0]
	l.dead = slices.Delete(l.dead, 0, 1)
	return s
}

// prepareDone hands a prepared segment on. A full disk is not fatal before a
// Save needs the segment; until then space may be freed.
func (l *Log) prepareDone(s *segment, err error) {
	if err != nil && !errors.Is(err, ErrNoSpace) {
		l.fail(err)
		return
	}
	if err != nil {
		l.opt.Logger.LogAttrs(context.Background(), slog.LevelWarn, "raft log: cannot prepare the next segment", slog.Any("error", err))
	}
	l.short.Store(err != nil)
	if err != nil && l.opt.OnNoSpace != nil {
		l.opt.OnNoSpace()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.noSpace = err
	if s != nil {
		l.prepared = append(l.prepared, s)
		l.needed = false
		l.bare.Store(false)
	}
	l.changed.Broadcast()
}

// Short reports whether the disk had no room for the next segment, and none has
// come by since. It never blocks.
func (l *Log) Short() bool { return l.short.Load() }

// Prepare has the next segment prepared from now on. Before, only a Save that needs
// one does: what others have to write at a start goes first.
func (l *Log) Prepare() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = false
	l.changed.Broadcast()
}

// makeRoom has a Save for which there is no segment go on: the owner truncates
// what can be, and a run by itself records that, so that the segments this frees
// can be used again. The caller has synced everything. Without an error it is
// worth asking for a segment again; what is kept free for others counts no more.
func (l *Log) makeRoom() error {
	if l.opt.MakeRoom != nil {
		l.opt.MakeRoom()
	}
	if len(l.live) > 0 {
		if err := l.recordTruncations(); err != nil {
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.noSpace, l.needed = nil, true
	l.changed.Broadcast()
	return nil
}

// recordTruncations does what a Save does with truncations, those included
// that the Save under way has taken already, if the active segment has room.
func (l *Log) recordTruncations() error {
	w := l.NewWrite()
	l.groupsMu.RLock()
	groups := slices.Clone(l.sorted)
	l.groupsMu.RUnlock()
	for _, g := range groups {
		w.addTruncation(g)
	}
	if w.Empty() || l.pos+blocks(int64(len(w.buf))) > l.active().size {
		return nil
	}
	buf, offset, err := l.writeBlocks(w.buf, 0)
	if err != nil {
		return err
	}
	if err := l.sync(); err != nil {
		return err
	}
	w.buf = buf
	w.publish(l.active(), offset)
	l.retire()
	return nil
}

// takePrepared returns the next segment. It waits for it where the background
// is behind, and has a preparation that found no space tried once more.
func (l *Log) takePrepared() (*segment, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held && len(l.prepared) == 0 {
		l.held = false
		l.changed.Broadcast()
	}
	for retried := false; len(l.prepared) == 0; l.changed.Wait() {
		if err := l.Err(); err != nil {
			return nil, err
		}
		if l.noSpace != nil {
			if retried {
				return nil, l.noSpace
			}
			l.noSpace = nil
			l.changed.Broadcast()
		}
		retried = true
	}
	s := l.prepared[0]
	l.prepared = slices.Delete(l.prepared, 0, 1)
	l.bare.Store(len(l.prepared) == 0)
	l.changed.Broadcast()
	return s, nil
}

// prepare makes the next segment: durable under its name, its blocks allocated
// and written. Only a call before maintain starts may run beside it.
func (l *Log) prepare() (*segment, error) {
	l.mu.Lock()
	seq, size := l.nextSeq, l.opt.SegmentBytes
	keep := l.opt.KeepFree
	if l.needed {
		keep = 0
	}
	var from string
	if n := len(l.spares); n > 0 {
		from = l.spares[n-1]
		l.spares = l.spares[:n-1]
	}
	l.mu.Unlock()

	var err error
	if from == "" {
		from = l.fs.PathJoin(l.opt.Dir, tempName)
		if err = l.leaves(keep, size); err == nil {
			err = zeroFill(l.fs, from, size, l.opt.Buffered)
		}
		if err != nil {
			// What it holds of the disk is needed by others.
			_ = l.fs.Remove(from)
		}
	}
	var s *segment
	if err == nil {
		s, err = formatSegment(l.fs, l.opt.Dir, from, seq, size)
	}
	if err != nil {
		if vfs.IsNoSpaceError(err) {
			err = fmt.Errorf("%w: %w", ErrNoSpace, err)
		}
		return nil, fmt.Errorf("preparing raft log segment %d in %s: %w", seq, l.opt.Dir, err)
	}
	l.mu.Lock()
	l.nextSeq++
	l.mu.Unlock()
	return s, nil
}

// leaves refuses a file of size bytes that would leave less than keep of the disk
// free, where the file system says how much there is.
func (l *Log) leaves(keep, size int64) error {
	if keep <= 0 {
		return nil
	}
	if u, err := l.fs.GetDiskUsage(l.opt.Dir); err == nil && u.AvailBytes < uint64(size+keep) {
		return fmt.Errorf("%d MiB are free, of which %d MiB are reserved for other files: %w", u.AvailBytes>>20, keep>>20, syscall.ENOSPC)
	}
	return nil
}

// recycle takes s's file out of the log and keeps it for another life, or
// removes it. The directory is synced each time, so that what a crash leaves
// of the log is always an unbroken sequence.
func (l *Log) recycle(s *segment) error {
	if err := s.close(); err != nil {
		return fmt.Errorf("closing raft log %s: %w", s.path, err)
	}
	l.mu.Lock()
	l.spareSeq++
	spare := l.fs.PathJoin(l.opt.Dir, fmt.Sprintf("%06d%s", l.spareSeq, spareSuffix))
	keep := s.bytes == l.opt.SegmentBytes && len(l.spares) < l.opt.SpareSegments
	l.mu.Unlock()

	var err error
	if keep {
		err = l.fs.Rename(s.path, spare)
	} else {
		err = l.fs.Remove(s.path)
	}
	if err == nil {
		err = durable.SyncDir(l.fs, l.opt.Dir)
	}
	if err != nil {
		return fmt.Errorf("recycling raft log %s: %w", s.path, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if keep {
		l.spares = append(l.spares, spare)
	}
	l.noSpace = nil
	l.changed.Broadcast()
	return nil
}

// collectSpares finds the spare files an earlier process left, and removes
// what it did not finish or what can not be used.
func (l *Log) collectSpares(names []string) error {
	slices.Sort(names)
	for _, name := range names {
		path := l.fs.PathJoin(l.opt.Dir, name)
		if name == tempName {
			if err := l.fs.Remove(path); err != nil {
				return err
			}
			continue
		}
		if !strings.HasSuffix(name, spareSuffix) {
			continue
		}
		info, err := l.fs.Stat(path)
		if err != nil {
			return err
		}
		if info.Size() != l.opt.SegmentBytes || len(l.spares) >= l.opt.SpareSegments {
			if err := l.fs.Remove(path); err != nil {
				return err
			}
			continue
		}
		l.spares = append(l.spares, path)
		var n int
		if _, err := fmt.Sscanf(name, "%d", &n); err == nil {
			l.spareSeq = max(l.spareSeq, n)
		}
	}
	return nil
}
