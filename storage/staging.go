package storage

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/proa-kv/proa/internal/durable"
)

// What an installation has received lies in a directory of its shard, as
// tables that Pebble can take as they are, and a file that says which of them
// are complete and where the stream goes on after them. The file is replaced as
// a whole after each table, when the table is synced. So after a crash it names
// complete tables only, or misses some that it names, since a directory was not
// synced; then everything is received again.
const (
	stagingPrefix = "install-" // and the shard's number

	// tableBytesDefault is when a table is completed: what an interruption may cost,
	// and how much of the shard one compaction has to rewrite at least.
	tableBytesDefault = 32 << 20

	progressName   = "progress"
	progressFormat = 1
	// progressBytesMax allows for tables of 16 TiB in all.
	progressBytesMax = 8 << 20
)

// staging is the directory of an installation. It is used under Install.mu.
type staging struct {
	fs      vfs.FS
	parent  string
	dir     string
	options *pebble.Options
	format  sstable.TableFormat

	sizes    []uint64        // of the complete tables
	writer   *sstable.Writer // of the next one, nil: it is not begun
	size     int             // of what it was given
	hasState bool            // the records of kindInstall and kindMeta are staged
}

// pickUp makes in ready to receive, after what was staged before if that is
// sound and of the same snapshot.
func (in *Install) pickUp() error {
	s := in.store
	in.stage = staging{
		fs:      s.opts.FS,
		parent:  s.opts.Dir,
		dir:     stagingDir(s.opts, in.shard),
		options: basePebbleOptions(s.opts),
		format:  s.db.TableFormat(),
	}
	in.stage.options.EnsureDefaults()
	in.state = streamState{hash: newStateHash(meta{})}
	p, err := in.stage.readProgress()
	if err == nil && p.of(in) {
		state, _, err := decodeToken(p.token, p.source)
		if err == nil && in.stage.keepOnly(len(p.sizes)) == nil && in.stage.verify(p.sizes) == nil {
			in.stage.sizes, in.stage.hasState = p.sizes, p.hasState
			in.state, in.source = state, &p.source
			return nil
		}
	}
	return in.stage.create()
}

func stagingDir(o Options, shard int) string {
	return o.FS.PathJoin(o.Dir, fmt.Sprintf("%s%05d", stagingPrefix, shard))
}

// create makes an empty directory.
func (g *staging) create() error {
	if err := g.remove(); err != nil {
		return err
	}
	if err := g.fs.MkdirAll(g.dir, 0o700); err != nil {
		return err
	}
	return durable.SyncDir(g.fs, g.parent)
}

func (g *staging) remove() error { return g.fs.RemoveAll(g.dir) }

// path returns the name of table n, from 0.
func (g *staging) path(n int) string {
	return g.fs.PathJoin(g.dir, fmt.Sprintf("%06d.sst", n))
}

func (g *staging) paths() (paths []string) {
	for i := range g.sizes {
		paths = append(paths, g.path(i))
	}
	return paths
}

// keepOnly removes everything but the first n tables and progress.
func (g *staging) keepOnly(n int) error {
	names, err := g.fs.List(g.dir)
	if err != nil {
		return err
	}
	keep := map[string]bool{progressName: true}
	for i := range n {
		keep[g.fs.PathBase(g.path(i))] = true
	}
	for _, name := range names {
		if !keep[name] {
			err = errors.Join(err, g.fs.Remove(g.fs.PathJoin(g.dir, name)))
		}
	}
	return err
}

// verify checks the tables of the sizes.
func (g *staging) verify(sizes []uint64) error {
	for i, size := range sizes {
		info, err := g.fs.Stat(g.path(i))
		if err != nil {
			return err
		}
		if uint64(info.Size()) != size {
			return fmt.Errorf("%w: staged table of %d bytes, it had %d", ErrCorrupt, info.Size(), size)
		}
		if err := verifyTable(g.options, g.path(i), nil); err != nil {
			return err
		}
	}
	return nil
}

// add adds a record to the table at hand.
func (g *staging) add(key, value []byte) error {
	if g.writer == nil {
		options := g.options.MakeWriterOptions(len(g.options.Levels)-1, g.format)
		w, err := newTableWriter(g.fs, g.path(len(g.sizes)), options)
		if err != nil {
			return err
		}
		g.writer, g.size = w, 0
	}
	g.size += len(key) + len(value)
	return g.writer.Set(key, value)
}

// completeTable completes and syncs the table at hand, if there is one.
func (g *staging) completeTable() error {
	if g.writer == nil {
		return nil
	}
	w := g.writer
	g.writer = nil
	if err := w.Close(); err != nil {
		return err
	}
	info, err := w.Metadata()
	if err != nil {
		return err
	}
	g.sizes = append(g.sizes, info.Size)
	return nil
}

// close drops the table at hand.
func (g *staging) close() error {
	if g.writer == nil {
		return nil
	}
	_ = g.writer.Close() // it may have failed before
	g.writer = nil
	return g.fs.Remove(g.path(len(g.sizes)))
}

// scan calls visit for the records of all tables, but for rows, in order.
func (g *staging) scan(visit func(key, value []byte) error) error {
	for _, path := range g.paths() {
		if err := scanTable(g.options, path, visit); err != nil {
			return fmt.Errorf("staged table %s: %w", g.fs.PathBase(path), err)
		}
	}
	return nil
}

func scanTable(o *pebble.Options, path string, visit func(key, value []byte) error) error {
	return iterateTable(o, path, func(it sstable.Iterator) error {
		kv := it.First()
		if kv != nil && kv.K.UserKey[shardBytes] == kindData {
			kv = it.SeekGE(append(kv.K.UserKey[:shardBytes:shardBytes], kindData+1), 0)
		}
		for ; kv != nil; kv = it.Next() {
			value, _, err := kv.Value(nil)
			if err == nil {
				err = visit(kv.K.UserKey, value)
			}
			if err != nil {
				return err
			}
		}
		return it.Error()
	})
}

// iterateTable calls f with an iterator on a table outside of a database.
func iterateTable(o *pebble.Options, path string, f func(sstable.Iterator) error) (err error) {
	r, err := openTable(o, path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	it, err := r.NewIter(sstable.NoTransforms, nil, nil, sstable.AssertNoBlobHandles)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	return f(it)
}

// openTable opens a table outside of a database.
func openTable(o *pebble.Options, path string) (*sstable.Reader, error) {
	f, err := o.FS.Open(path)
	if err != nil {
		return nil, err
	}
	readable, err := sstable.NewSimpleReadable(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	r, err := sstable.NewReader(context.Background(), readable, o.MakeReaderOptions())
	if err != nil {
		return nil, errors.Join(err, readable.Close())
	}
	return r, nil
}

// progress is what an installation has staged.
type progress struct {
	shard    int
	id       uint64
	meta     InstallMeta
	source   meta
	hasState bool
	sizes    []uint64
	token    []byte
}

func (p *progress) of(in *Install) bool {
	return p.shard == in.shard && p.id == in.id && p.meta.equal(in.meta)
}

func (m InstallMeta) equal(o InstallMeta) bool {
	return m.Index == o.Index && m.Term == o.Term && string(m.Conf) == string(o.Conf)
}

// writeProgress replaces the file durably.
func (g *staging) writeProgress(p progress) error {
	return durable.ReplaceFile(g.fs, g.dir, progressName, p.appendTo(nil))
}

func (g *staging) readProgress() (progress, error) {
	f, err := g.fs.Open(g.fs.PathJoin(g.dir, progressName))
	if err != nil {
		return progress{}, err
	}
	b, err := io.ReadAll(io.LimitReader(f, progressBytesMax))
	if err = errors.Join(err, f.Close()); err != nil {
		return progress{}, err
	}
	return decodeProgress(b)
}

// Progress is its format, the shard (2), the numbers of the view, of the log's
// entry and its term, applied index, stamp and revision of the sender (8 each),
// whether the state is staged (1); then, each with its length before it (4),
// configuration, token, and the sizes of the tables (8 each); CRC32C.

func (p *progress) appendTo(b []byte) []byte {
	start := len(b)
	b = append(b, progressFormat)
	b = le.AppendUint16(b, uint16(p.shard))
	for _, n := range []uint64{p.id, p.meta.Index, p.meta.Term, p.source.applied, p.source.stamp, p.source.revision} {
		b = le.AppendUint64(b, n)
	}
	hasState := byte(0)
	if p.hasState {
		hasState = 1
	}
	b = appendParts(append(b, hasState), p.meta.Conf, p.token)
	b = le.AppendUint32(b, uint32(8*len(p.sizes)))
	for _, size := range p.sizes {
		b = le.AppendUint64(b, size)
	}
	return le.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
}

var errProgress = fmt.Errorf("%w: progress of an installation", ErrCorrupt)

// decodeProgress decodes b. What it returns has views of b.
func decodeProgress(b []byte) (progress, error) {
	r, sound := checkSum(b, progressFormat)
	p := progress{
		shard:  int(r.U16()),
		id:     r.U64(),
		meta:   InstallMeta{Index: r.U64(), Term: r.U64()},
		source: meta{applied: r.U64(), stamp: r.U64(), revision: r.U64()},
	}
	hasState := r.U8()
	p.hasState = hasState == 1
	p.meta.Conf, p.token = takePart(&r), takePart(&r)
	sizes := takePart(&r)
	if !sound || r.Short || len(r.B) != 0 || hasState > 1 || len(sizes)%8 != 0 || len(p.meta.Conf) > ConfBytesMax {
		return progress{}, errProgress
	}
	for ; len(sizes) > 0; sizes = sizes[8:] {
		p.sizes = append(p.sizes, le.Uint64(sizes))
	}
	return p, nil
}

// cleanStaging removes what interrupted installations have left that cannot be
// of use any more.
func (s *Store) cleanStaging() error {
	names, err := s.opts.FS.List(s.opts.Dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if !strings.HasPrefix(name, stagingPrefix) {
			continue
		}
		g := staging{fs: s.opts.FS, dir: s.opts.FS.PathJoin(s.opts.Dir, name)}
		p, err := g.readProgress()
		if err == nil && p.shard < len(s.shards) && p.meta.Index > s.Applied(p.shard) {
			continue
		}
		if err := g.remove(); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}
