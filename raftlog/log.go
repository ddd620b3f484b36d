// Package raftlog keeps the Raft logs of all groups of a node in one sequence
// of segment files.
//
// A worker pass gathers what all its groups have to write into one Write and
// saves it: one pwrite, one fdatasync, whatever the number of groups. While
// one thread saves, another may fill the next Write, so the thread that steps
// Raft never waits for the disk. Segments are written full of zeros, or
// recycled, before they are needed, so that the fdatasync finds no change of
// size or allocation to journal.
//
// What must hold:
//
//   - A block that holds a run is never written again while its segment is part
//     of the log; a torn write can only damage data that was not acknowledged.
//   - Runs are numbered without gaps, and each says up to which number the runs
//     were synced when it was written. This distinguishes a damaged run that
//     had been acknowledged (ErrCorrupt) from a tail that had not (dropped),
//     even if several unsynced runs were in flight. It cannot be known for the
//     last runs, which nothing follows. Therefore Close writes an empty run
//     after them, and a file next to the segments records up to where the log
//     was synced: see RecordSynced.
//   - Nothing is written to a segment before everything in the segments before
//     it is durable, and each segment's first run repeats what must be known
//     about all groups. Whole segments can therefore be removed, the oldest
//     first, once no group needs an entry in them and a synced run records
//     that.
//   - A failed write or sync is never retried. Every later Save returns its
//     error.
//   - Readers see only what was written, and synced where its Save was to
//     sync. What a Write is filled with is checked against what the one before
//     it will have made of the group, in Group.pending, which no Save touches.
//
// Lock order: Log.saving, Log.groupsMu, Group.mu, segment.inUse; Log.mu and
// Log.truncMu are innermost.
package raftlog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/proa-kv/proa/internal/durable"
)

// Options configures a Log. The zero value of every field but Dir is usable.
type Options struct {
	// Dir holds the log's files and nothing else. It is created, with its
	// parents, where it does not exist.
	Dir string

	// FS is the file system; nil is the operating system's.
	FS vfs.FS

	// SegmentBytes is the size of new segments, from SegmentBytesMin to
	// SegmentBytesMax, a multiple of BlockBytes; 0 means 64 MiB. It may differ
	// from the size of segments that exist.
	SegmentBytes int64

	// CacheBytes bounds the entries that are kept in memory over all groups,
	// the newest of each; 0 means 64 MiB, less than 0 none at all. Others are
	// read from the files.
	CacheBytes int64

	// SpareSegments is how many files that are no longer needed are kept for
	// recycling; 0 means 4, less than 0 none.
	SpareSegments int

	// Buffered has the log written by way of the page cache also where direct
	// writes are possible.
	Buffered bool

	// Owner is who the log belongs to, a number of the caller's that is recorded
	// with it: a log of another owner is not opened. 0 means anybody.
	Owner uint64

	// Begun says that the log has been opened here before, so that one that is
	// gone is not begun anew. It must not be set for a log that was opened only
	// by versions that knew no file SYNCED.
	Begun bool

	// CutDamage has Open cut the log off before the first damage, whatever was
	// synced behind it. Acknowledged writes may be lost by that.
	CutDamage bool

	// KeepFree is how many bytes of the disk a segment that is prepared leaves to
	// others, unless a Save could not go on otherwise; 0 means none.
	KeepFree int64

	// OnNoSpace is called when the next segment could not be prepared for want
	// of space. Entries should be truncated then: the segments that this frees
	// are used again. It must not block. nil: nobody is told.
	OnNoSpace func()

	// MakeRoom is called by a Save that needs a segment for which there is no
	// space. It should truncate what can be, and may take its time, but must not
	// wait for a Save. nil: nothing more is done.
	MakeRoom func()

	// Logger receives what happens in the background; nil discards it.
	Logger *slog.Logger
}

const (
	// SegmentBytesDefault is Options.SegmentBytes where nothing is said.
	SegmentBytesDefault  = 64 << 20
	defaultCacheBytes    = 64 << 20
	defaultSpareSegments = 4
)

func (o *Options) setDefaults() error {
	if o.Dir == "" {
		return errors.New("raftlog: Options.Dir is empty")
	}
	if o.FS == nil {
		o.FS = vfs.Default
	}
	o.SegmentBytes = cmp.Or(o.SegmentBytes, SegmentBytesDefault)
	o.CacheBytes = cmp.Or(o.CacheBytes, defaultCacheBytes)
	o.SpareSegments = cmp.Or(o.SpareSegments, defaultSpareSegments)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.SegmentBytes < SegmentBytesMin || o.SegmentBytes > SegmentBytesMax || o.SegmentBytes%BlockBytes != 0 {
		return fmt.Errorf("raftlog: segment size %d is not a multiple of %d from %d to %d", o.SegmentBytes, BlockBytes, SegmentBytesMin, SegmentBytesMax)
	}
	return nil
}

// Recovery is what Open found.
type Recovery struct {
	Groups    int   // with at least one record
	Entries   int   // retained, over all groups
	Segments  int   // that hold runs
	Bytes     int64 // of the runs that were replayed, padding included
	TornBytes int64 // of the runs at the end that were dropped, as far as their headers survived

	// Closed says that the log was closed in order, so that nothing can be
	// missing at its end. Otherwise nothing is missing up to SyncedRun, which
	// was recorded at SyncedAt; zero where no file SYNCED is.
	Closed    bool
	SyncedRun uint64
	SyncedAt  time.Time

	Elapsed time.Duration
}

// Log is the log of all groups. Its methods may be called from any goroutine;
// Save calls wait for one another.
type Log struct {
	opt  Options
	fs   vfs.FS
	lock io.Closer

	groupsMu sync.RWMutex
	groups   map[uint64]*Group
	sorted   []*Group // by id

	// saving serialises Save and Close, and guards the fields up to the
	// blank line.
	saving  sync.Mutex
	live    []*segment // that hold runs, oldest first; the last one is being written to
	pos     int64      // where in it the next run goes
	run     uint64     // number of the last run written
	reclaim bool       // there may be segments that are no longer needed
	refused uint64     // Writes up to this number build on one that was too large
	scratch []byte

	fills   atomic.Uint64 // number of the newest Write that got a record
	settled atomic.Uint64 // number of the newest Write that was published, or refused

	opened     time.Time
	inProgress atomic.Int64 // since when, in nanoseconds after opened, a Save or Close works; 0 if none does

	durable   atomic.Uint64 // number of the last run known to be synced; written under saving
	sizeBytes atomic.Int64
	cached    atomic.Int64 // bytes of the entries that the groups keep in memory
	failure   atomic.Pointer[error]
	synced    *syncedFile // has a lock of its own
	short     atomic.Bool // there was no space for the next segment, see Short
	bare      atomic.Bool // no segment is prepared

	truncMu   sync.Mutex
	truncated []*Group // with a truncation that no run has recorded

	mu       sync.Mutex
	changed  sync.Cond  // of everything below
	prepared []*segment // ready to be written to, in order
	dead     []*segment // no longer part of the log, oldest first
	spares   []string   // paths of files of opt.SegmentBytes for recycling
	spareSeq int        // names them
	nextSeq  uint64     // of the segment to prepare next
	noSpace  error      // why the last preparation failed, until it is worth trying again
	held     bool       // nothing is prepared yet, see Prepare
	needed   bool       // a Save cannot go on without a segment
	closing  bool
	done     chan struct{} // closed when the background goroutine has ended
}

// Open opens the log in o.Dir or begins it there. A torn tail is cut off. It
// returns ErrCorrupt where anything else is damaged or missing, ErrMissing and
// ErrOwner where the log is not the one that o tells of, ErrVersion
// where the format is unknown, ErrNoSpace where there is no room for the first
// segment, and what the file system says.
func Open(o Options) (*Log, Recovery, error) {
	started := time.Now()
	if err := o.setDefaults(); err != nil {
		return nil, Recovery{}, err
	}
	if err := durable.MakeDir(o.FS, o.Dir, 0o700); err != nil {
		return nil, Recovery{}, err
	}
	lock, err := o.FS.Lock(o.FS.PathJoin(o.Dir, lockName))
	if err != nil {
		return nil, Recovery{}, fmt.Errorf("raft log %s is in use: %w", o.Dir, err)
	}
	l := newLog(o)
	l.lock = lock
	rec, err := l.open()
	if err != nil {
		return nil, Recovery{}, errors.Join(err, l.closeFiles())
	}
	rec.Elapsed = time.Since(started)
	go l.maintain()
	return l, rec, nil
}

func newLog(o Options) *Log {
	l := &Log{
		opt:     o,
		fs:      o.FS,
		groups:  make(map[uint64]*Group),
		nextSeq: 1,
		opened:  time.Now(),
		held:    true,
		done:    make(chan struct{}),
	}
	l.changed.L = &l.mu
	l.bare.Store(true)
	return l
}

func (l *Log) open() (Recovery, error) {
	names, err := l.fs.List(l.opt.Dir)
	if err != nil {
		return Recovery{}, err
	}
	if err := l.collectSpares(names); err != nil {
		return Recovery{}, err
	}
	r := replayer{log: l}
	if err := r.openSegments(names, true); err != nil {
		return Recovery{}, errors.Join(err, r.close())
	}
	l.live = r.segments // closed with the log from here on
	if err := r.replay(); err != nil {
		return Recovery{}, err
	}
	if err := r.repair(); err != nil {
		return Recovery{}, err
	}
	r.hand()
	if err := l.beginRecord(r.synced); err != nil {
		return Recovery{}, err
	}
	if len(l.live) == 0 && len(l.prepared) == 0 {
		l.needed = true
		s, err := l.prepare()
		if err != nil {
			return Recovery{}, err
		}
		l.prepared, l.needed = append(l.prepared, s), false
		l.bare.Store(false)
	}
	l.updateSize()
	return r.found, nil
}

// beginRecord records how far the log is synced, and that it is open. before is
// what was recorded last, nil if nothing was.
func (l *Log) beginRecord(before *syncedRecord) (err error) {
	r := l.syncedNow()
	if before != nil {
		r.serial = before.serial
	}
	l.synced, err = openSynced(l.fs, l.opt.Dir, r)
	return err
}

// Group returns the log of the group with the given number, which is empty
// where nothing was written to it yet.
func (l *Log) Group(id uint64) *Group {
	l.groupsMu.RLock()
	g := l.groups[id]
	l.groupsMu.RUnlock()
	if g != nil {
		return g
	}
	l.groupsMu.Lock()
	defer l.groupsMu.Unlock()
	if g := l.groups[id]; g != nil {
		return g
	}
	g = &Group{id: id, log: l}
	l.groups[id] = g
	at, _ := slices.BinarySearchFunc(l.sorted, id, func(g *Group, id uint64) int { return cmp.Compare(g.id, id) })
	l.sorted = slices.Insert(l.sorted, at, g)
	return g
}

// eachGroup calls f for every group for which something was written, in order,
// with the group locked.
func (l *Log) eachGroup(f func(*Group)) {
	l.groupsMu.RLock()
	defer l.groupsMu.RUnlock()
	for _, g := range l.sorted {
		g.mu.Lock()
		if !g.empty() {
			f(g)
		}
		g.mu.Unlock()
	}
}

// Groups returns the numbers of the groups for which something was written, in order.
func (l *Log) Groups() (ids []uint64) {
	l.eachGroup(func(g *Group) { ids = append(ids, g.id) })
	return ids
}

// Err returns the failure that has made the log unusable, or nil.
func (l *Log) Err() error {
	if p := l.failure.Load(); p != nil {
		return *p
	}
	return nil
}

// fail makes err the log's failure unless there is one, and returns the one
// that stands.
func (l *Log) fail(err error) error {
	if l.failure.CompareAndSwap(nil, &err) {
		l.opt.Logger.LogAttrs(context.Background(), slog.LevelError, "raft log failed", slog.Any("error", err))
	}
	l.mu.Lock()
	l.changed.Broadcast()
	l.mu.Unlock()
	return l.Err()
}

// Position returns how far the log is known to be synced: the number of the last
// such run. It grows with every synced write of any group, over restarts as
// well: Open finds everything up to it, or the log has lost something. It never
// blocks.
func (l *Log) Position() uint64 { return l.durable.Load() }

// SizeBytes returns the bytes of the segments that hold entries somebody may
// still need; of the newest one, what is written of it.
func (l *Log) SizeBytes() int64 { return l.sizeBytes.Load() }

func (l *Log) updateSize() {
	n := int64(0)
	if len(l.live) > 0 {
		for _, s := range l.live[:len(l.live)-1] {
			n += s.bytes
		}
		n += l.pos
	}
	l.sizeBytes.Store(n)
}

// Save writes all records of w at once, syncs them if sync is set, then
// makes the groups show them, and empties w. With nothing in w it syncs what
// earlier calls left unsynced. After a crash either all of w is there or
// nothing, and nothing only if no later Save was synced.
//
// It panics unless w is the oldest Write that holds records; see Write.
//
// With ErrTooLarge nothing was written and w is empty. What was filled on top
// of it before that error came is refused in the same way; what is filled from
// then on is good. Any other error is final: what of w is on disk is unknown,
// and every later Save returns it.
func (l *Log) Save(w *Write, sync bool) error {
	l.saving.Lock()
	defer l.saving.Unlock()
	l.inProgress.Store(max(int64(time.Since(l.opened)), 1))
	defer l.inProgress.Store(0)
	if err := l.Err(); err != nil {
		return err
	}
	if w.fill != 0 && w.fill != l.settled.Load()+1 {
		panic("raftlog: a Write is saved before one that was filled earlier")
	}
	if len(w.buf) > RunBytesMax || (w.fill != 0 && w.fill <= l.refused) {
		return l.refuse(w)
	}
	for _, g := range l.takeTruncated() {
		w.addTruncation(g)
		l.reclaim = true
	}
	if err := l.save(w, sync); err != nil {
		return l.fail(err)
	}
	return nil
}

// Stalled returns how long the Save in progress has taken so far, or the
// Close, and 0 if there is none. What a Save waits for another one does not
// count. It never blocks; a watchdog can tell by it that the disk hangs.
func (l *Log) Stalled() time.Duration {
	since := l.inProgress.Load()
	if since == 0 {
		return 0
	}
	return max(time.Since(l.opened)-time.Duration(since), 1)
}

// refuse empties w, which is too large or builds on a Write that was. A Write
// that took the refused one for granted got its number before settled said
// that it will never be.
func (l *Log) refuse(w *Write) error {
	err := fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrTooLarge, len(w.buf), RunBytesMax)
	if len(w.buf) <= RunBytesMax {
		err = fmt.Errorf("%w: an earlier Write that this one builds on was refused", ErrTooLarge)
	}
	l.settle(w)
	l.refused = l.fills.Load()
	w.reset()
	return err
}

// settle says that there is nothing pending of w any more.
func (l *Log) settle(w *Write) {
	if w.fill != 0 {
		l.settled.Store(w.fill)
	}
}

func (l *Log) save(w *Write, sync bool) error {
	if !w.Empty() {
		offset, err := l.writeRun(w)
		if err != nil {
			return err
		}
		if sync {
			if err := l.sync(); err != nil {
				return err
			}
		}
		w.publish(l.active(), offset)
		l.settle(w)
		w.reset()
		l.shed()
	} else if sync {
		if err := l.sync(); err != nil {
			return err
		}
	}
	if sync && l.reclaim {
		l.reclaim = false
		l.retire()
	}
	l.updateSize()
	return nil
}

// active is the segment that is being written to.
func (l *Log) active() *segment { return l.live[len(l.live)-1] }

// writeRun writes w's records as one run, to the next segment if this one has
// no room. A run too large for any segment goes into a fresh one, whose file
// grows.
func (l *Log) writeRun(w *Write) (offset int64, err error) {
	if len(l.live) == 0 || l.pos+blocks(int64(len(w.buf))) > l.usable() {
		if err := l.turn(); err != nil {
			return 0, err
		}
	}
	w.buf, offset, err = l.writeBlocks(w.buf, 0)
	return offset, err
}

// usable is where the active segment ends for what is not a truncation. While
// no other one is prepared, and perhaps never will be, the run that makes room
// must have some itself.
func (l *Log) usable() int64 {
	size := l.active().size
	if l.opt.MakeRoom != nil && l.bare.Load() {
		l.groupsMu.RLock()
		defer l.groupsMu.RUnlock()
		size -= blocks(int64(runHeaderBytes + len(l.sorted)*truncateBytesMax))
	}
	return size
}

// writeBlocks seals the run in buf, whose front is room for the header, and
// writes it in whole blocks. It returns buf, which may have grown, and where
// in the active segment it was written.
func (l *Log) writeBlocks(buf []byte, flags uint16) ([]byte, int64, error) {
	s, offset := l.active(), l.pos
	h := runHeader{flags: flags, seq: s.seq, salt: s.salt, run: l.run + 1, durable: l.durable.Load()}
	h.sealRun(buf)
	n := len(buf)
	buf = append(buf, zeroBlock[:blocks(int64(n))-int64(n)]...)
	if err := s.out.writeAt(buf, offset); err != nil {
		return buf, 0, fmt.Errorf("writing raft log %s: %w", s.path, err)
	}
	l.run++
	l.pos += int64(len(buf))
	s.bytes = max(s.bytes, l.pos)
	return buf, offset, nil
}

var zeroBlock [BlockBytes]byte

// sync makes everything written durable.
func (l *Log) sync() error {
	if l.durable.Load() == l.run {
		return nil
	}
	if err := l.active().file.SyncData(); err != nil {
		return fmt.Errorf("syncing raft log %s: %w", l.active().path, err)
	}
	l.durable.Store(l.run)
	return nil
}

// turn goes on to the next segment and begins it with a checkpoint.
func (l *Log) turn() error {
	if err := l.sync(); err != nil {
		return err
	}
	next, err := l.takePrepared()
	if errors.Is(err, ErrNoSpace) {
		if err := l.makeRoom(); err != nil {
			return err
		}
		next, err = l.takePrepared()
	}
	if err != nil {
		return err
	}
	var last *segment
	if len(l.live) > 0 {
		last = l.active()
	}
	next.beginWrites(l, last)
	l.live = append(l.live, next)
	l.pos = BlockBytes
	l.reclaim = true
	l.scratch = append(l.scratch[:0], make([]byte, runHeaderBytes)...)
	l.eachGroup(func(g *Group) {
		l.scratch = appendCheckpoint(l.scratch, g.id, g.start, g.last(), g.hs, g.conf)
		if g.meta != nil {
			l.scratch = appendMetadata(l.scratch, g.id, g.meta)
		}
	})
	l.scratch, _, err = l.writeBlocks(l.scratch, flagCheckpoint)
	return err
}

// retire takes the segments that no group needs any more out of the log.
// Everything written must be durable: the truncations that free them, and the
// checkpoint of the segment that becomes the oldest.
func (l *Log) retire() {
	if len(l.live) == 0 {
		return
	}
	oldest := l.active().seq
	l.eachGroup(func(g *Group) {
		if g.refs.len() > 0 {
			oldest = min(oldest, g.refs.at(0).seg.seq)
		}
	})
	n := 0
	for l.live[n].seq < oldest {
		n++
	}
	if n == 0 {
		return
	}
	l.mu.Lock()
	l.dead = append(l.dead, l.live[:n]...)
	l.changed.Broadcast()
	l.mu.Unlock()
	l.live = slices.Delete(l.live, 0, n)
}

// Truncate says that g's entries up to index are no longer needed: FirstIndex
// becomes index+1 at once. An index before FirstIndex changes nothing, one above
// LastIndex counts as LastIndex; entries that a Write holds can not be truncated
// yet. The next Save to begin records it, and the next synced one gives up
// the segments that nobody needs any more; a crash before may bring the entries
// back.
//
// What is truncated must be committed, so that no Write replaces it. Where one
// that was already filled does, what it says of entries up to index is left out, or index is taken of what it put there.
func (l *Log) Truncate(g *Group, index uint64) {
	g.mu.Lock()
	index = min(index, g.last())
	due := index > g.visible().index
	if due {
		g.trunc = mark{index, g.ref(index).term}
	}
	g.mu.Unlock()
	if !due {
		return
	}
	l.truncMu.Lock()
	defer l.truncMu.Unlock()
	if !slices.Contains(l.truncated, g) {
		l.truncated = append(l.truncated, g)
	}
}

func (l *Log) takeTruncated() []*Group {
	l.truncMu.Lock()
	defer l.truncMu.Unlock()
	t := l.truncated
	l.truncated = nil
	return t
}

// shed drops cached entries until they are within the bound. It takes them
// from the group that has most, half of what it has, so that a busy group does
// not push out all others and its own newest stay.
func (l *Log) shed() {
	limit := max(l.opt.CacheBytes, 0)
	for l.cached.Load() > limit {
		var largest *Group
		most := int64(0)
		l.eachGroup(func(g *Group) {
			if g.bytes > most {
				largest, most = g, g.bytes
			}
		})
		if largest == nil {
			return
		}
		largest.shed()
	}
}

// Close records pending truncations, syncs, and closes the files. Calls that
// follow return ErrClosed. It returns the failure of the log, if there was one.
func (l *Log) Close() error {
	l.saving.Lock()
	defer l.saving.Unlock()
	l.inProgress.Store(max(int64(time.Since(l.opened)), 1))
	defer l.inProgress.Store(0)
	err := l.Err()
	if errors.Is(err, ErrClosed) {
		return err
	}
	if err == nil {
		err = l.finish()
	}
	closed := ErrClosed
	l.failure.Store(&closed)
	l.mu.Lock()
	l.closing = true
	l.changed.Broadcast()
	l.mu.Unlock()
	<-l.done
	return errors.Join(err, l.closeFiles())
}

// finish writes the last run: truncations, or nothing. It proves, when the log
// is opened again, that the runs before it were synced, and so that none of
// them may be taken for a torn tail.
func (l *Log) finish() error {
	w := l.NewWrite()
	for _, g := range l.takeTruncated() {
		w.addTruncation(g)
	}
	if err := l.sync(); err != nil {
		return err
	}
	if len(l.live) > 0 && l.pos+blocks(int64(len(w.buf))) <= l.active().size {
		if _, err := l.writeRun(w); err != nil {
			return err
		}
		if err := l.sync(); err != nil {
			return err
		}
	}
	r := l.syncedNow()
	r.closed = true
	return l.synced.write(r)
}

// closeFiles closes all files and gives up the lock.
func (l *Log) closeFiles() error {
	var errs []error
	for _, list := range [][]*segment{l.live, l.prepared, l.dead} {
		for _, s := range list {
			errs = append(errs, s.close())
		}
	}
	l.live, l.prepared, l.dead = nil, nil, nil
	if l.synced != nil {
		errs = append(errs, l.synced.close())
	}
	if l.lock != nil {
		errs = append(errs, l.lock.Close())
	}
	return errors.Join(errs...)
}
