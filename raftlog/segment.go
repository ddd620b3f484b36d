package raftlog

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"strconv"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/proa-kv/proa/internal/durable"
)

const (
	segmentSuffix = ".seg"
	spareSuffix   = ".spare"
	tempName      = "segment.tmp"
	lockName      = "LOCK"

	writeCategory vfs.DiskWriteCategory = "proa-raftlog"

	zeroChunkBytes = 1 << 20
	// zeroSyncBytes bounds what zero-filling leaves to one fdatasync, so that
	// Saves that run meanwhile queue behind a few megabytes at most.
	zeroSyncBytes = 4 << 20
)

// segment is one file of the log. Its header never changes while it is part of
// the log.
type segment struct {
	segmentHeader
	path  string
	file  vfs.File
	bytes int64 // size of the file; more than size where a run did not fit

	out blockFile // how the active segment is written; of who saves

	// inUse is held for reading while entries are read from the file, and
	// taken for writing before the file is closed.
	inUse  sync.RWMutex
	closed bool
}

// close waits for readers and closes the file.
func (s *segment) close() error {
	s.inUse.Lock()
	defer s.inUse.Unlock()
	s.closed = true
	return errors.Join(s.out.close(), s.file.Close())
}

// beginWrites makes s ready to be written to. The last one that was written to
// must not be any more: it hands its memory on.
func (s *segment) beginWrites(l *Log, last *segment) {
	s.out = blockFile{file: s.file}
	if !l.opt.Buffered {
		s.out.direct = openDirect(l.fs, s.path)
	}
	if last != nil {
		s.out.bounce = last.out.bounce
		_ = last.out.close() // nothing is left to be written
	}
}

func (s *segment) corrupt(offset int64, format string, args ...any) error {
	return &CorruptionError{File: s.path, Offset: offset, Reason: fmt.Sprintf(format, args...)}
}

func segmentName(seq uint64) string { return fmt.Sprintf("%016d%s", seq, segmentSuffix) }

// parseSegmentName returns the sequence number in a segment's name.
func parseSegmentName(name string) (seq uint64, ok bool) {
	digits, ok := strings.CutSuffix(name, segmentSuffix)
	if !ok {
		return 0, false
	}
	seq, err := strconv.ParseUint(digits, 10, 64)
	return seq, err == nil && seq > 0 && segmentName(seq) == name
}

// openSegment opens a segment and checks its header against name and size.
func openSegment(fs vfs.FS, dir string, seq uint64, write bool) (*segment, error) {
	s := &segment{path: fs.PathJoin(dir, segmentName(seq))}
	var err error
	if write {
		s.file, err = fs.OpenReadWrite(s.path, writeCategory)
	} else {
		s.file, err = fs.Open(s.path)
	}
	if err != nil {
		return nil, err
	}
	if err := s.readHeader(seq); err != nil {
		return nil, errors.Join(err, s.file.Close())
	}
	return s, nil
}

func (s *segment) readHeader(seq uint64) error {
	info, err := s.file.Stat()
	if err != nil {
		return err
	}
	s.bytes = info.Size()
	if s.bytes < BlockBytes {
		return s.corrupt(0, "the file is only %d bytes long", s.bytes)
	}
	var buf [segmentHeaderBytes]byte
	if err := readFull(s.file, buf[:], 0); err != nil {
		return fmt.Errorf("reading %s: %w", s.path, err)
	}
	s.segmentHeader, err = decodeSegmentHeader(buf[:])
	switch {
	case errors.Is(err, ErrVersion):
		return fmt.Errorf("%s: %w", s.path, err)
	case err != nil:
		return s.corrupt(0, "%v", err)
	case s.seq != seq:
		return s.corrupt(0, "the header belongs to segment %d", s.seq)
	case s.bytes < s.size:
		return s.corrupt(s.bytes, "the file is truncated here; it was %d bytes long", s.size)
	}
	return nil
}

// readFull fills p from off; a shorter file is io.ErrUnexpectedEOF.
func readFull(f io.ReaderAt, p []byte, off int64) error {
	n, err := f.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// formatSegment turns the file at from, which has the right size and no other
// use, into segment seq under its final name, all of it durable.
func formatSegment(fs vfs.FS, dir, from string, seq uint64, size int64) (*segment, error) {
	s := &segment{path: fs.PathJoin(dir, segmentName(seq)), bytes: size}
	s.segmentHeader = segmentHeader{seq: seq, salt: newSalt(), size: size}
	f, err := fs.OpenReadWrite(from, writeCategory)
	if err != nil {
		return nil, err
	}
	block := make([]byte, BlockBytes)
	s.encode(block)
	if _, err = f.WriteAt(block, 0); err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = fs.Rename(from, s.path)
	}
	if err == nil {
		err = durable.SyncDir(fs, dir)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	s.file = f
	return s, nil
}

func newSalt() uint64 {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return le.Uint64(b[:])
}

// zeroFill makes a file of size zero bytes. The bytes are really written: an
// extent that is only reserved would have to be converted, in the file
// system's journal, by the Save that first writes to it.
func zeroFill(fs vfs.FS, path string, size int64, buffered bool) error {
	if err := fs.Remove(path); err != nil && !errors.Is(err, iofs.ErrNotExist) {
		return err
	}
	f, err := fs.OpenReadWrite(path, writeCategory)
	if err != nil {
		return err
	}
	out := blockFile{file: f}
	if !buffered {
		out.direct = openDirect(fs, path)
	}
	err = out.writeZeros(size)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, out.close(), f.Close())
}

func (b *blockFile) writeZeros(size int64) error {
	// Learns early that the disk is full, and gets adjoining extents. Not
	// every file system can.
	if err := b.file.Preallocate(0, size); err != nil && vfs.IsNoSpaceError(err) {
		return err
	}
	zeros := alignedBytes(int(min(size, zeroChunkBytes)))
	unsynced := 0
	for off := int64(0); off < size; {
		n := min(len(zeros), int(size-off))
		if err := b.writeAt(zeros[:n], off); err != nil {
			return err
		}
		off += int64(n)
		if unsynced += n; unsynced >= zeroSyncBytes {
			unsynced = 0
			if err := b.file.SyncData(); err != nil {
				return err
			}
		}
	}
	return nil
}
