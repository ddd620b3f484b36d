package storage

import (
	"fmt"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// pebbleFS is the file system as Pebble sees it.
//
//   - What is known to be damaged is not read again.
//   - What Pebble does not need any more is kept until the owner has begun (remover).
//   - Compactions end when the store closes: one may have gigabytes to write.
//   - When Pebble has moved a marker, which says what is the manifest or the format,
//     and cannot sync the directory, it panics, on whatever goroutine that is. Here it
//     stops instead.
type pebbleFS struct {
	vfs.FS
	s *Store
}

// compactionCategory is what Pebble calls the files that compactions write.
const compactionCategory vfs.DiskWriteCategory = "pebble-compaction"

var (
	// errKnownDamage is what a read of a damaged block returns.
	errKnownDamage = fmt.Errorf("the block is marked as damaged: %w", pebble.ErrCorruption)
	// errOver ends a compaction. What it has written Pebble deletes; a later one
	// begins again.
	errOver = fmt.Errorf("the store is closing: %w", pebble.ErrCancelledCompaction)
)

func (f *pebbleFS) Unwrap() vfs.FS { return f.FS }

func (f *pebbleFS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	file, err := f.FS.Open(name, opts...)
	if err != nil || !strings.HasSuffix(name, ".sst") {
		return file, err
	}
	return &pebbleFile{file, name, f.s}, nil
}

func (f *pebbleFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := f.FS.Create(name, category)
	if err != nil || category != compactionCategory {
		return file, err
	}
	return compactionFile{file, f.s}, nil
}

func (f *pebbleFS) OpenDir(name string) (vfs.File, error) {
	dir, err := f.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return pebbleDir{dir, name, f.s}, nil
}

func (f *pebbleFS) Remove(name string) error {
	if f.s.remover.holds(name) {
		return nil
	}
	err := f.FS.Remove(name)
	if err == nil {
		f.s.damage.forget(name)
	}
	return err
}

// pebbleFile is a table that is read.
type pebbleFile struct {
	vfs.File
	path string
	s    *Store
}

func (f *pebbleFile) ReadAt(p []byte, offset int64) (int, error) {
	if d := &f.s.damage; d.any.Load() && d.covers(f.path, offset, int64(len(p))) {
		return 0, errKnownDamage
	}
	return f.File.ReadAt(p, offset)
}

// compactionFile is a table that a compaction writes.
type compactionFile struct {
	vfs.File
	s *Store
}

func (f compactionFile) Write(p []byte) (int, error) {
	if f.s.over.Load() {
		return 0, errOver
	}
	return f.File.Write(p)
}

type pebbleDir struct {
	vfs.File
	name string
	s    *Store
}

func (d pebbleDir) Sync() error {
	err := d.File.Sync()
	if err != nil && onStack(moveFunction) {
		d.s.fatal.stop(fmt.Errorf("syncing the directory %s: %w", d.name, err))
	}
	return err
}
