package raftlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
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
		if len(l.dead) > 0 || (len(l.prepared) == 0 && l.noSpace == nil) {
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
// Commit needs the segment; until then space may be freed.
func (l *Log) prepareDone(s *segment, err error) {
	if err != nil && !errors.Is(err, ErrNoSpace) {
		l.fail(err)
		return
	}
	if err != nil {
		l.opt.Logger.LogAttrs(context.Background(), slog.LevelWarn, "raft log: next segment could not be prepared", slog.Any("error", err))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.noSpace = err
	if s != nil {
		l.prepared = append(l.prepared, s)
	}
	l.changed.Broadcast()
}

// takePrepared returns the next segment. It waits for it where the background
// is behind, and has a preparation that found no space tried once more.
func (l *Log) takePrepared() (*segment, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
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
	l.changed.Broadcast()
	return s, nil
}

// prepare makes the next segment: durable under its name, its blocks allocated
// and written. Only a call before maintain starts may run beside it.
func (l *Log) prepare() (*segment, error) {
	l.mu.Lock()
	seq, size := l.nextSeq, l.opt.SegmentBytes
	var from string
	if n := len(l.spares); n > 0 {
		from = l.spares[n-1]
		l.spares = l.spares[:n-1]
	}
	l.mu.Unlock()

	var err error
	if from == "" {
		from = l.fs.PathJoin(l.opt.Dir, tempName)
		if err = zeroFill(l.fs, from, size, l.opt.Buffered); err != nil {
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
		err = syncDir(l.fs, l.opt.Dir)
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
