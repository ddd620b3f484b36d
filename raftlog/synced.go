package raftlog

import (
	"errors"
	"fmt"
	"hash/crc32"
	iofs "io/fs"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/proa-kv/proa/internal/durable"
)

// A file beside the segments says how far the log had been synced. Each run
// says that of the runs before it, which is no help where the end of the log is
// gone as a whole: there nothing follows that could say so. What the file says
// is a lower bound, some time old while the log is written (RecordSynced) and
// exact once it is closed.
//
// The file has two copies, written in turn, so that one of them is whole at any
// time. All integers are little-endian. A copy begins with a header and goes on
// with the last index of each group, as pairs of uvarints; they tell what is
// lost, and are left out where they do not fit or are not known.
const (
	syncedName = "SYNCED"
	syncedTemp = syncedName + ".tmp"

	syncedCopyBytes   = 4 * BlockBytes        // room for the shards of a node
	syncedMagic       = 0x316e_7953_616f_7250 // "ProaSyn1"
	syncedVersion     = 1
	syncedHeaderBytes = 72

	// syncedClosed says that nothing was written after this run.
	syncedClosed = 1
)

// syncedRecord is what one copy says.
type syncedRecord struct {
	closed  bool
	serial  uint64 // the higher one of two copies counts
	owner   uint64 // Options.Owner
	run     uint64 // every run up to this one is synced
	segment uint64 // where run ends; 0: nowhere yet, or not known
	offset  int64
	at      int64 // Unix milliseconds
	groups  []groupEnd
}

// groupEnd is the last index of a group's log.
type groupEnd struct{ group, last uint64 }

// encode appends the copy to dst, in whole blocks.
func (r *syncedRecord) encode(dst []byte) []byte {
	from := len(dst)
	dst = append(dst, make([]byte, syncedHeaderBytes)...)
	for _, g := range r.groups {
		dst = appendUvarints(dst, g.group, g.last)
	}
	if len(dst)-from > syncedCopyBytes {
		dst = dst[:from+syncedHeaderBytes]
	}
	p := dst[from:]
	le.PutUint64(p[0:], syncedMagic)
	le.PutUint16(p[8:], syncedVersion)
	if r.closed {
		le.PutUint16(p[10:], syncedClosed)
	}
	le.PutUint32(p[12:], uint32(len(p)-syncedHeaderBytes))
	le.PutUint64(p[16:], r.serial)
	le.PutUint64(p[24:], r.owner)
	le.PutUint64(p[32:], r.run)
	le.PutUint64(p[40:], r.segment)
	le.PutUint64(p[48:], uint64(r.offset))
	le.PutUint64(p[56:], uint64(r.at))
	le.PutUint32(p[64:], crc32.Update(checksum(p[:64]), castagnoli, p[syncedHeaderBytes:]))
	return append(dst, zeroBlock[:blocks(int64(len(p)))-int64(len(p))]...)
}

// decodeSynced reads a copy. ok says that it is whole.
func decodeSynced(p []byte) (r syncedRecord, ok bool) {
	if len(p) < syncedHeaderBytes || le.Uint64(p) != syncedMagic || le.Uint16(p[8:]) != syncedVersion {
		return r, false
	}
	n := int64(le.Uint32(p[12:]))
	if n > int64(len(p)-syncedHeaderBytes) {
		return r, false
	}
	ends := p[syncedHeaderBytes:][:n]
	if crc32.Update(checksum(p[:64]), castagnoli, ends) != le.Uint32(p[64:]) {
		return r, false
	}
	r = syncedRecord{
		closed: le.Uint16(p[10:])&syncedClosed != 0, serial: le.Uint64(p[16:]), owner: le.Uint64(p[24:]),
		run: le.Uint64(p[32:]), segment: le.Uint64(p[40:]), offset: int64(le.Uint64(p[48:])), at: int64(le.Uint64(p[56:])),
	}
	for d := (decoder{buf: ends}); d.pos < len(ends); {
		r.groups = append(r.groups, groupEnd{d.uvarint(), d.uvarint()})
		if d.bad {
			return r, false
		}
	}
	return r, true
}

// syncedFile is the file, open for writing.
type syncedFile struct {
	run  atomic.Uint64 // of last, for those who must not wait for the disk
	mu   sync.Mutex
	file vfs.File     // nil: closed
	last syncedRecord // that was written
	buf  []byte
}

// readSynced returns what the file in dir says, or nil where there is none.
func readSynced(fs vfs.FS, dir string) (*syncedRecord, error) {
	path := fs.PathJoin(dir, syncedName)
	f, err := fs.Open(path)
	if errors.Is(err, iofs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	p := make([]byte, min(info.Size(), 2*syncedCopyBytes))
	if err := readFull(f, p, 0); err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	var best *syncedRecord
	for ; len(p) > 0; p = p[min(len(p), syncedCopyBytes):] {
		if r, ok := decodeSynced(p[:min(len(p), syncedCopyBytes)]); ok && (best == nil || r.serial > best.serial) {
			best = &r
		}
	}
	if best == nil {
		return nil, &CorruptionError{File: path, Reason: "both records of how far the log was synced are damaged"}
	}
	return best, nil
}

// openSynced makes r what the file in dir says, which it creates where need be.
func openSynced(fs vfs.FS, dir string, r syncedRecord) (*syncedFile, error) {
	path := fs.PathJoin(dir, syncedName)
	_, err := fs.Stat(path)
	switch {
	case errors.Is(err, iofs.ErrNotExist):
		return createSynced(fs, dir, r)
	case err != nil:
		return nil, err
	}
	f, err := fs.OpenReadWrite(path, writeCategory)
	if err != nil {
		return nil, err
	}
	s := &syncedFile{file: f, last: syncedRecord{serial: r.serial}}
	if err := s.put(r); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return s, nil
}

func createSynced(fs vfs.FS, dir string, r syncedRecord) (*syncedFile, error) {
	temp, path := fs.PathJoin(dir, syncedTemp), fs.PathJoin(dir, syncedName)
	f, err := fs.Create(temp, writeCategory)
	if err != nil {
		return nil, err
	}
	s := &syncedFile{file: f, last: syncedRecord{serial: r.serial}}
	// Its blocks exist before they are needed, as those of segments do.
	_, err = f.WriteAt(make([]byte, 2*syncedCopyBytes), 0)
	if err == nil {
		err = s.put(r)
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = fs.Rename(temp, path)
	}
	if err == nil {
		err = durable.SyncDir(fs, dir)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return s, nil
}

// write makes r what the file says, durably, unless it says more already.
func (s *syncedFile) write(r syncedRecord) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil || r.run < s.last.run || (r.run == s.last.run && !r.closed) {
		return nil
	}
	return s.put(r)
}

// put writes r to the copy whose turn it is.
func (s *syncedFile) put(r syncedRecord) error {
	r.serial = s.last.serial + 1
	s.buf = r.encode(s.buf[:0])
	if _, err := s.file.WriteAt(s.buf, int64(r.serial%2)*syncedCopyBytes); err != nil {
		return fmt.Errorf("recording how far the raft log is synced: %w", err)
	}
	if err := s.file.SyncData(); err != nil {
		return fmt.Errorf("syncing the record of how far the raft log is synced: %w", err)
	}
	s.last = r
	s.run.Store(r.run)
	return nil
}

func (s *syncedFile) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil {
		return nil
	}
	err := s.file.Close()
	s.file = nil
	return err
}

// RecordSynced makes it durable how far the log is synced, so that Open and
// Verify can tell a tail that was lost after that from one that was never
// there. It costs a write and an fdatasync where something was synced since the
// last call, and waits for the Save in progress, but no Save waits for its
// disk access. Close does the same. A failure is the log's, as one of Save is.
func (l *Log) RecordSynced() error {
	r, err := l.toRecord()
	if err != nil || r == nil {
		return err
	}
	if err := l.synced.write(*r); err != nil {
		return l.fail(err)
	}
	return nil
}

// toRecord returns what is to be recorded, nil where that has been done.
func (l *Log) toRecord() (*syncedRecord, error) {
	l.saving.Lock()
	defer l.saving.Unlock()
	if err := l.Err(); err != nil {
		return nil, err
	}
	if l.synced.run.Load() >= l.durable.Load() {
		return nil, nil
	}
	r := l.syncedNow()
	return &r, nil
}

// syncedNow returns how far the log is synced. The caller holds saving.
func (l *Log) syncedNow() syncedRecord {
	r := syncedRecord{owner: l.opt.Owner, run: l.durable.Load(), at: time.Now().UnixMilli()}
	if r.run == l.run && len(l.live) > 0 {
		r.segment, r.offset = l.active().seq, l.pos
		l.eachGroup(func(g *Group) { r.groups = append(r.groups, groupEnd{g.id, g.last()}) })
	}
	return r
}

// readSynced takes in how far the log was synced once. What it says of damage
// does not count where the damage is to be cut off.
func (r *replayer) readSynced() error {
	o := &r.log.opt
	var err error
	r.synced, err = readSynced(r.log.fs, o.Dir)
	switch {
	case err != nil && o.CutDamage && errors.Is(err, ErrCorrupt):
		return nil
	case err != nil:
		return err
	case r.synced == nil && o.Begun && len(r.segments) == 0:
		return fmt.Errorf("%w: %s", ErrMissing, o.Dir)
	case r.synced == nil && o.Begun && !o.CutDamage:
		return &CorruptionError{File: r.log.fs.PathJoin(o.Dir, syncedName), Reason: "the file, which records how far the log was synced, is missing"}
	case r.synced != nil && r.synced.owner != o.Owner && r.synced.owner != 0 && o.Owner != 0:
		return fmt.Errorf("%w: it was written by %016x, this is %016x", ErrOwner, r.synced.owner, o.Owner)
	}
	return nil
}

// checkSynced makes sure that all is there that was synced once.
func (r *replayer) checkSynced() error {
	s := r.synced
	if s == nil {
		return nil
	}
	r.found.Closed = s.closed && s.run == r.log.run
	r.found.SyncedRun, r.found.SyncedAt = s.run, time.UnixMilli(s.at)
	if s.run <= r.log.run || r.log.opt.CutDamage {
		return nil
	}
	return r.lost(fmt.Sprintf("the log ends at run %d, but had been synced up to run %d at %s%s",
		r.log.run, s.run, r.found.SyncedAt.UTC().Format(time.RFC3339), s.place()))
}

// place says where the run ended.
func (s *syncedRecord) place() string {
	if s.segment == 0 {
		return ""
	}
	return fmt.Sprintf(", to byte %d of %s", s.offset, segmentName(s.segment))
}

// lost is the damage that the log ends here although more was synced.
func (r *replayer) lost(reason string) *CorruptionError {
	e := &CorruptionError{File: r.log.opt.Dir, Reason: reason}
	if len(r.segments) > 0 {
		e.File, e.Offset = r.segments[max(r.end, 0)].path, r.pos
	}
	if r.synced == nil {
		return e
	}
	for _, end := range r.synced.groups {
		if last := r.log.Group(end.group).last(); last < end.last {
			e.Lost = append(e.Lost, LostSpan{end.group, last + 1, end.last})
		}
	}
	return e
}
