package storage

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2/objstorage"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/proa-kv/proa/storage/memtable"
)

// What a flush writes lies in a directory of its own until Pebble has linked
// it into the store's. What a crash leaves there is of no use: the log has it.
const (
	flushDirName = "drain" // as it was called first

	// flushFileBytes is how many bytes of records go into one file of a flush.
	flushFileBytes = 64 << 20

	// flushCutBytes is how many make a file end with a shard. Compactions of
	// level 0 are then of a few shards each, and not of all of it at once.
	flushCutBytes = 4 << 20

	// flushBlockBytes is the size of a file's blocks. Pebble hands each block to
	// another goroutine, which costs a thread of low priority two wake-ups; a read
	// that finds its row here, and not in a memtable, reads more.
	flushBlockBytes = 32 << 10
)

// Files are written in pieces of writeBytes, and given to the disk whenever
// fileSyncBytes are there, so that neither the last sync takes long nor those
// of the Raft log meanwhile.
const (
	writeBytes    = 256 << 10
	fileSyncBytes = 1 << 20
)

// flushFiles are the files of one flush.
type flushFiles struct {
	*flusher
	wide bool // one file, with a range that all records are in

	paths  []string
	writer *sstable.Writer // of the last of paths, nil: it is complete
	size   int             // of what it was given
	ranges memtable.Ranges // that are to be deleted, in it or in a later one
}

// open prepares what all flushes need, and makes an empty directory for them.
func (f *flusher) open() error {
	o := f.store.opts
	base := basePebbleOptions(o)
	base.EnsureDefaults()
	f.options = base.MakeWriterOptions(0, f.store.db.TableFormat())
	f.options.BlockSize = flushBlockBytes
	if err := o.FS.RemoveAll(flushDir(o)); err != nil {
		return fmt.Errorf("storage: cannot remove the files of an interrupted flush: %w", err)
	}
	return o.FS.MkdirAll(flushDir(o), 0o700)
}

func flushDir(o Options) string { return o.FS.PathJoin(o.Dir, flushDirName) }

func (f *flusher) newFiles(wide bool) *flushFiles { return &flushFiles{flusher: f, wide: wide} }

// Keys before and behind all records. Their deletion means nothing.
var (
	beforeAll = []byte{0, 0}
	behindAll = []byte{0xff, 0xff, 0xff}
)

// cut begins another file, between two shards, if the last one is worth a
// compaction of its own.
func (d *flushFiles) cut() error {
	if d.wide || d.size < d.cutBytes {
		return nil
	}
	return d.complete()
}

// set adds a record. Keys come in ascending order, those of deletions too.
func (d *flushFiles) set(key, value []byte) error {
	if err := d.begin(key, len(key)+len(value)); err != nil {
		return err
	}
	return d.writer.Set(key, value)
}

// delete adds the deletion of a key.
func (d *flushFiles) delete(key []byte) error {
	if err := d.begin(key, len(key)); err != nil {
		return err
	}
	return d.writer.Delete(key)
}

// begin makes room for a record of key that takes n bytes.
func (d *flushFiles) begin(key []byte, n int) error {
	if d.writer != nil && !d.wide && d.size+n > d.fileBytes {
		if err := d.completeBefore(key); err != nil {
			return err
		}
	}
	if d.writer == nil {
		d.number++ // no name is used twice, since Pebble may still have the file
		o := d.store.opts
		path := o.FS.PathJoin(flushDir(o), fmt.Sprintf("%06d.sst", d.number))
		w, err := newTableWriter(o.FS, path, d.options)
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
	return nil
}

// complete completes and syncs the last file.
func (d *flushFiles) complete() error { return d.completeBefore(nil) }

// completeBefore is complete where the next file begins with key; nil: there are
// no more ranges. What a range has of both goes into both, since files must not
// overlap.
func (d *flushFiles) completeBefore(key []byte) error {
	if d.writer == nil {
		return nil
	}
	w := d.writer
	d.writer = nil
	for len(d.ranges) > 0 && (key == nil || bytes.Compare(d.ranges[0].From, key) < 0) {
		r := &d.ranges[0]
		if key != nil && bytes.Compare(r.To, key) > 0 {
			err := w.DeleteRange(r.From, key)
			r.From = bytes.Clone(key)
			if err != nil {
				return errors.Join(err, w.Close())
			}
			break
		}
		if err := w.DeleteRange(r.From, r.To); err != nil {
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
func (d *flushFiles) abandon() {
	if d.writer != nil {
		_ = d.writer.Close() // it has failed before
		d.writer = nil
	}
}

// newTableWriter begins a table outside of the database. Closing it syncs the
// file.
func newTableWriter(fs vfs.FS, path string, o sstable.WriterOptions) (*sstable.Writer, error) {
	f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, err
	}
	f = vfs.NewSyncingFile(f, vfs.SyncingFileOptions{BytesPerSync: fileSyncBytes})
	return sstable.NewWriter(&tableOutput{f, bufio.NewWriterSize(f, writeBytes)}, o), nil
}

// tableOutput is a file that a table is written to. What Pebble has for this
// writes each block by itself.
type tableOutput struct {
	file vfs.File
	w    *bufio.Writer
}

var _ objstorage.Writable = (*tableOutput)(nil)

func (t *tableOutput) Write(p []byte) error {
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

// writeRecords writes a table with records, which are in order.
func (f *flusher) writeRecords(name string, records []record) (path string, err error) {
	fs := f.store.opts.FS
	path = fs.PathJoin(flushDir(f.store.opts), fmt.Sprintf("%s-%d.sst", name, f.recordFiles.Add(1)))
	w, err := newTableWriter(fs, path, f.options)
	if err != nil {
		return "", err
	}
	for i := 0; i < len(records) && err == nil; i++ {
		err = w.Set(records[i].key, records[i].value)
	}
	return path, errors.Join(err, w.Close())
}
