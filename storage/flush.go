package storage

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/sstable"

	"github.com/proa-kv/proa/storage/memtable"
)

// flusher has Pebble take over immutable memtables, in a goroutine of its own.
type flusher struct {
	store  *Store
	queue  chan *table   // capacity 1: the immutable memtable
	asked  chan struct{} // capacity 1: FlushAsync was called since the last look
	ended  chan struct{} // capacity 1: OnFlush is to be called
	before func() error  // for tests; may be nil

	options     sstable.WriterOptions
	number      uint64        // of the file made last
	recordFiles atomic.Uint64 // of writeRecords, so far
	fileBytes   int           // flushFileBytes, but for tests
	cutBytes    int           // flushCutBytes, but for tests
	level0Max   int           // the constant, but for tests
	compacted   chan struct{} // capacity 1: a compaction ended since the last look

	ingestions atomic.Uint64 // raised when one begins and when it ends
}

func (f *flusher) init(s *Store) {
	f.store = s
	f.queue = make(chan *table, 1)
	f.asked, f.ended, f.compacted = make(chan struct{}, 1), make(chan struct{}, 1), make(chan struct{}, 1)
	f.fileBytes, f.cutBytes, f.level0Max = flushFileBytes, flushCutBytes, level0Max
}

// Room reports whether Apply could take in n bytes more without waiting for a
// flush. If not, OnFlush is called when that may have changed. Only who calls Apply
// may call it.
func (s *Store) Room(n int) bool {
	x := &s.memtables
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.immutable == nil || x.mutable.takes(memtable.Bytes(0, n), deletedRangesMax)
}

// rotate has the mutable memtable flushed, with the state of all shards as it is
// now, and begins another with room for need bytes. The caller holds publishing,
// and there is no immutable one.
func (s *Store) rotate(need int) {
	var metas []shardMeta
	for i := range s.shards {
		sh := &s.shards[i]
		applied, conf := sh.applied.Load(), sh.installed.Load()
		if applied == sh.rotated && conf == sh.rotatedConf {
			continue
		}
		sh.rotated = applied
		m := shardMeta{shard: i, meta: sh.meta()}
		if conf != sh.rotatedConf {
			m.conf, sh.rotatedConf = conf, conf
		}
		metas = append(metas, m)
	}
	if t := s.memtables.rotate(metas, need); t != nil {
		s.flusher.queue <- t // has room: nothing else is immutable
	}
}

// Flush makes everything applied so far durable and returns when Durable says
// so. It fails with ErrFailed after a fatal error, and with ErrClosed.
func (s *Store) Flush() error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	return s.flush()
}

// flush does what Flush does, within a call that keeps the store open.
func (s *Store) flush() error {
	if err := s.fatal.get(); err != nil {
		return err
	}
	return s.flushAll()
}

// flushAll is flush that succeeds, even after a fatal error, if everything was
// durable.
func (s *Store) flushAll() error {
	s.publishing.Lock()
	target := s.memtables.mutable.flushed
	for {
		flushing := s.memtables.flushing()
		if flushing == nil && s.memtables.mutable.flushed == target {
			s.rotate(0)
			flushing = s.memtables.flushing()
		}
		s.publishing.Unlock()
		if flushing == nil {
			return nil // there was nothing, or it has been flushed by now
		}
		if err := s.flusher.await(flushing); err != nil || flushing == target {
			return err
		}
		s.publishing.Lock()
	}
}

// await waits until a memtable is flushed.
func (f *flusher) await(flushed <-chan struct{}) error {
	s := f.store
	select {
	case <-flushed:
		return nil
	case <-s.fatal.raised:
		return s.fatal.get()
	case <-s.closing:
		return ErrClosed
	}
}

// FlushAsync begins what Flush does and returns at once; OnFlush tells when it
// is done, even if there was nothing to do. It fails as Flush does.
func (s *Store) FlushAsync() error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	if err := s.fatal.get(); err != nil {
		return err
	}
	notify(s.flusher.asked)
	return nil
}

// run flushes immutable memtables until the store is closed. After a fatal error
// the memtable stays, so that readers still find its rows.
func (f *flusher) run() {
	s := f.store
	defer s.background.Done()
	lowerPriority()
	for {
		select {
		case <-s.closing:
			return
		case <-f.asked:
			f.rotate()
		case t := <-f.queue:
			s.removeHeld()
			if err := f.flush(t); err != nil {
				s.fatal.failed("cannot write a memtable to disk", err)
				return // nothing can be flushed any more
			}
			for _, m := range t.metas {
				s.shards[m.shard].durable.Store(m.meta.applied)
			}
			s.memtables.release()
			notify(f.ended)
		}
	}
}

// rotate does what FlushAsync asks for.
func (f *flusher) rotate() {
	s := f.store
	s.publishing.Lock()
	defer s.publishing.Unlock()
	if s.memtables.flushing() != nil { // it is in the queue; what was applied since is not in it
		notify(f.asked)
		return
	}
	if s.rotate(0); s.memtables.flushing() == nil {
		notify(f.ended)
	}
}

// callOnFlush calls OnFlush, once for all that became durable since the last call
// began, until the store is closed.
func (f *flusher) callOnFlush() {
	s := f.store
	defer s.background.Done()
	for {
		select {
		case <-s.closing:
			return
		case <-f.ended:
		}
		if s.opts.OnFlush != nil {
			s.opts.OnFlush()
		}
	}
}

// flush has Pebble take over the immutable memtable t as files of its own. Then
// all of it is durable.
func (f *flusher) flush(t *table) error {
	if f.before != nil {
		if err := f.before(); err != nil {
			return err
		}
	}
	if err := f.awaitLevel0(f.layersFor(t)); err != nil {
		return err
	}
	err := f.writeAndIngest(t, false)
	if isDamage(err) {
		err = f.writeAndIngest(t, true)
	}
	return err
}

// writeAndIngest writes the files of a flush and has Pebble take them over. Pebble
// looks whether files of its own have records in the range of a new one, unless
// it is wide enough to leave no doubt; what it would have to read may be damaged.
func (f *flusher) writeAndIngest(t *table, wide bool) error {
	files := f.newFiles(wide)
	defer files.abandon()
	if err := files.write(t); err != nil {
		return err
	}
	return f.ingest(files.paths)
}

// layersFor is how many layers level 0 may have, with which the flush of t waits:
// as many as reads can bear. Rows larger than a usual memtable are to be in no more
// than begin a compaction, which holds one of every layer at a time.
func (f *flusher) layersFor(t *table) int {
	if f.store.memtables.oversized(t) {
		return min(f.level0Max, compactionLayers)
	}
	return f.level0Max
}

// awaitLevel0 waits while level 0 has so many layers. Pebble makes its own writers
// wait then, but ingests without end.
func (f *flusher) awaitLevel0(most int) error {
	s := f.store
	for warned := false; ; warned = true {
		if err := s.fatal.get(); err != nil {
			return err
		}
		layers := s.db.Metrics().Levels[0].Sublevels
		if int(layers) < most || len(s.Damage()) > 0 { // which may keep compactions from it for good
			return nil
		}
		if !warned {
			s.opts.Logger.Warn("storage stalls writes", "reason", "compactions are behind")
		}
		select {
		case <-f.compacted:
		case <-s.fatal.raised:
		case <-s.closing:
			return ErrClosed
		}
	}
}

// ingest makes the tables at paths part of the database, durably and all at
// once, unless the store has failed meanwhile.
//
// Pebble changes its manifest a moment before it publishes the new records. In
// between it may already compact them with older ones, and drops what they
// replace: its readers find neither. All that may be missed is in the immutable
// memtable. So a reader that pins the memtables before it opens an iterator misses
// nothing, nor does one that looks into them before Pebble, with the same count of
// ingestions before both and after.
func (f *flusher) ingest(paths []string) error {
	s := f.store
	if err := s.fatal.get(); err != nil {
		return err
	}
	f.ingestions.Add(1)
	defer f.ingestions.Add(1)
	if err := s.db.Ingest(context.Background(), paths); err != nil {
		return err
	}
	return s.fatal.get() // a sync has failed somewhere: nothing is certain any more
}

// write writes the newest records of the immutable memtable t and the states of
// its shards, in the order of their keys.
func (d *flushFiles) write(t *table) error {
	snapshots := []memtable.Snapshot{t.Snapshot()}
	left := 0
	for l := range memtable.Lists {
		left += snapshots[0].Sort(l)
	}
	for _, m := range t.metas { // every shard with records has one
		if err := d.cut(); err != nil {
			return err
		}
		d.ranges = append(d.ranges, snapshots[0].Ranges(shardBounds(m.shard))...)
		for l := range memtable.Lists {
			if l == memtable.Sessions { // 'm' is before 's'
				if err := d.setMeta(m); err != nil {
					return err
				}
			}
			n, err := d.writeList(snapshots, l, m.shard)
			if left -= n; err != nil {
				return err
			}
		}
	}
	if left > 0 {
		return fmt.Errorf("%w: records of a shard that applied nothing", ErrCorrupt)
	}
	return d.complete()
}

// writeList writes the records of one shard, and returns how many there are.
func (d *flushFiles) writeList(snapshots []memtable.Snapshot, l memtable.List, shard int) (n int, err error) {
	lower, upper := shardBounds(shard)
	for it := memtable.NewIterator(snapshots, l, lower, upper, false); err == nil && it.Next(); n++ {
		switch {
		case it.Hidden():
		case it.Deleted():
			err = d.delete(it.Key())
		default:
			err = d.set(it.Key(), it.Value())
		}
	}
	return n, err
}

func (d *flushFiles) setMeta(m shardMeta) error {
	if m.conf != nil { // 'i' is before 'm'
		if err := d.set(appendPrefix(nil, m.shard, kindInstall), appendInstallMeta(nil, *m.conf)); err != nil {
			return err
		}
	}
	var b [metaBytes]byte
	m.meta.put(b[:])
	return d.set(appendPrefix(nil, m.shard, kindMeta), b[:])
}
