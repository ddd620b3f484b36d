package storage

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"math"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/objstorage"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// What a drain writes lies in a directory of its own until Pebble has linked
// it into the store's. What a crash leaves there is of no use: the log has it.
const (
	drainDirName = "drain"

	// drainFileBytes is how many bytes of records go into one file of a drain.
	drainFileBytes = 64 << 20

	// drainCutBytes is how many make a file end with a shard. Compactions of
	// level 0 are then of a few shards each, and not of all of it at once.
	drainCutBytes = 4 << 20

	// drainBlockBytes is the size of a file's blocks. Pebble hands each block to
	// another goroutine, which costs a thread that stands back two wake-ups; a
	// read that finds its row here, and not among recent ones, reads more.
	drainBlockBytes = 32 << 10
)

// Files are written in pieces of writeBytes, and given to the disk whenever
// fileSyncBytes are there, so that neither the last sync takes long nor those
// of the Raft log meanwhile.
const (
	writeBytes    = 256 << 10
	fileSyncBytes = 1 << 20
)

// drainFiles are the files of one drain.
type drainFiles struct {
	fs      vfs.FS
	dir     string
	options sstable.WriterOptions
	pace    *pace
	written *atomic.Int64 // how many records, for whoever waits
	limit   int           // of the bytes of records in one file
	cutFrom int           // so many are worth a file between two shards

	wide bool

	number *uint64 // of the file made last; no name is used twice, since Pebble may still have the file
	paths  []string
	writer *sstable.Writer // of the last of paths, nil: it is complete
	size   int             // of what it was given
	ranges deletedRanges   // that are to be deleted, in it or in a later one
}

// cleanDrains makes an empty directory for drains.
func (s *Store) cleanDrains() error {
	dir := drainDir(s.opts)
	if err := s.opts.FS.RemoveAll(dir); err != nil {
		return fmt.Errorf("storage: cannot remove the files of an interrupted drain: %w", err)
	}
	return s.opts.FS.MkdirAll(dir, 0o700)
}

func drainDir(o Options) string { return o.FS.PathJoin(o.Dir, drainDirName) }

// initDrains prepares what all drains need.
func (s *Store) initDrains() error {
	o := basePebbleOptions(s.opts)
	o.EnsureDefaults()
	s.drainOptions = o.MakeWriterOptions(0, s.db.TableFormat())
	s.drainOptions.BlockSize = drainBlockBytes
	s.drainFileBytes, s.drainCutBytes = drainFileBytes, drainCutBytes
	return s.cleanDrains()
}

func (s *Store) newDrainFiles() *drainFiles {
	return &drainFiles{
		fs:      s.opts.FS,
		dir:     drainDir(s.opts),
		options: s.drainOptions,
		pace:    pacing{s.drainHurries, &s.passes}.begin(),
		written: &s.drained.written,
		limit:   s.drainFileBytes,
		cutFrom: s.drainCutBytes,
		number:  &s.drainNumber,
	}
}

// Keys before and behind all records. Their deletion means nothing.
var (
	beforeAll = []byte{0, 0}
	behindAll = []byte{0xff, 0xff, 0xff}
)

// widen has there be one file, with a range that all records are in.
func (d *drainFiles) widen() { d.wide, d.limit, d.cutFrom = true, math.MaxInt, math.MaxInt }

// cut begins another file, between two shards, if the last one is worth a
// compaction of its own.
func (d *drainFiles) cut() error {
	if d.size < d.cutFrom {
		return nil
	}
	return d.complete()
}

// deleteRanges adds deletions of ranges, which begin behind all keys so far.
func (d *drainFiles) deleteRanges(ranges deletedRanges) {
	d.ranges = append(d.ranges, ranges...)
}

// set adds a record. Keys come in ascending order, those of deletions too.
func (d *drainFiles) set(key, value []byte) error {
	if err := d.begin(key, len(key)+len(value)); err != nil {
		return err
	}
	return d.writer.Set(key, value)
}

// delete adds the deletion of a key.
func (d *drainFiles) delete(key []byte) error {
	if err := d.begin(key, len(key)); err != nil {
		return err
	}
	return d.writer.Delete(key)
}

// begin makes room for a record of key that takes n bytes.
func (d *drainFiles) begin(key []byte, n int) error {
	if d.writer != nil && d.size+n > d.limit {
		if err := d.completeBefore(key); err != nil {
			return err
		}
	}
	if d.writer == nil {
		*d.number++
		path := d.fs.PathJoin(d.dir, fmt.Sprintf("%06d.sst", *d.number))
		w, err := newTableWriter(d.fs, path, d.options, d.pace.rest)
		if err != nil {
			return err
		}
		d.paths, d.writer, d.size = append(d.paths, path), w, 0
		if d.wide {
			if err := w.Delete(beforeAll); err != nil {
				return err
			}
		}
	}
	d.size += n
	d.written.Add(1)
	return nil
}

// complete completes and syncs the last file.
func (d *drainFiles) complete() error { return d.completeBefore(nil) }

// completeBefore is complete where the next file begins with key; nil: there are
// no more ranges. What a range has of both goes into both, since files must not
// overlap.
func (d *drainFiles) completeBefore(key []byte) error {
	if d.writer == nil {
		return nil
	}
	w := d.writer
	d.writer = nil
	for len(d.ranges) > 0 && (key == nil || bytes.Compare(d.ranges[0].from, key) < 0) {
		r := &d.ranges[0]
		if key != nil && bytes.Compare(r.to, key) > 0 {
			err := w.DeleteRange(r.from, key)
			r.from = bytes.Clone(key)
			if err != nil {
				return errors.Join(err, w.Close())
			}
			break
		}
		if err := w.DeleteRange(r.from, r.to); err != nil {
			return errors.Join(err, w.Close())
		}
		d.ranges = d.ranges[1:]
	}
	if d.wide {
		if err := w.Delete(behindAll); err != nil {
			return errors.Join(err, w.Close())
		}
	}
	return w.Close()
}

// abandon drops the file that is not complete. What is on disk stays, until
// the store is opened again.
func (d *drainFiles) abandon() {
	if d.writer != nil {
		_ = d.writer.Close() // it has failed before
		d.writer = nil
	}
}

// newTableWriter begins a table outside of the database. Closing it syncs the
// file. It calls rest for each block, unless that is nil.
func newTableWriter(fs vfs.FS, path string, o sstable.WriterOptions, rest func()) (*sstable.Writer, error) {
	f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, err
	}
	return sstable.NewWriter(newTableOutput(f, rest), o), nil
}

// tableOutput is a file that a table is written to. What Pebble has for this
// writes each block by itself.
type tableOutput struct {
	file vfs.File
	w    *bufio.Writer
	rest func() // may be nil
}

var _ objstorage.Writable = (*tableOutput)(nil)

func newTableOutput(f vfs.File, rest func()) *tableOutput {
	f = vfs.NewSyncingFile(f, vfs.SyncingFileOptions{BytesPerSync: fileSyncBytes})
	return &tableOutput{file: f, w: bufio.NewWriterSize(f, writeBytes), rest: rest}
}

func (t *tableOutput) Write(p []byte) error {
	if t.rest != nil {
		t.rest()
	}
	_, err := t.w.Write(p)
	return err
}

func (t *tableOutput) Finish() error {
	err := t.w.Flush()
	if err == nil {
		err = t.file.Sync()
	}
	if closed := t.file.Close(); err == nil {
		err = closed
	}
	return err
}

func (t *tableOutput) Abort() { _ = t.file.Close() }
