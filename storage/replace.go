package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
)

// A shard's state is replaced as a whole by one change of Pebble's manifest:
// the key range of the shard is cut out, and the tables of an installation take
// its place. Before that nothing of the shard may be left in the
// memtables, which go before Pebble. From before the change until what is in
// memory has followed, publishing is held, so that no scan or view begins, the
// row cache knows nothing of the shard, and readers that find no row look again. See docs/adr/0007.

// Install puts the snapshot that in has received in the place of shard's
// state, durably and all at once: a crash leaves the one or the other. Then
// Applied and Durable are the snapshot's index, Installed returns its
// InstallMeta, and in is over.
//
// Like Apply it is for one goroutine at a time, the one that calls Apply, and
// between two calls. It takes a few writes to the disk, none of which depends
// on the size of the snapshot; but where entries of the shard were applied since
// Finish, it first has everything flushed.
//
// It fails, with nothing changed, with ErrStaleIndex unless the snapshot's
// index is above Applied, wrapping ErrIncomplete before Finish, with
// ErrInstallOver, ErrClosed or ErrFailed, and with a DamageError that names the
// shard before or behind where that is damaged at the edge. Any other error is fatal, as of Apply.
func (s *Store) Install(in *Install) error {
	if in.store != s {
		return errors.New("storage: installation of another store")
	}
	if err := in.use(); err != nil {
		return err
	}
	defer in.leave()
	if !in.finished {
		return fmt.Errorf("%w: shard %d: call Finish first", ErrIncomplete, in.shard)
	}
	if err := s.checkNewer(in.shard, in.meta.Index); err != nil {
		return err
	}
	to := replacement{meta: in.stateAfter(), sessions: in.sessions, nextExpiry: in.nextExpiry, marked: in.marked, installed: &in.meta}
	if err := (shardRange{s, in.shard, in.shard}).replace(to, in.stage.paths()); err != nil {
		return err
	}
	in.sessions = sessionIndex{} // the shard has it
	err := errors.Join(in.release(), in.stage.remove())
	s.holders.removeInstall(in)
	if err != nil { // Open tries again
		s.opts.Logger.Warn("cannot remove staged tables", "shard", in.shard, "error", err)
	}
	return nil
}

// RemoveShard makes the store forget all about shard, durably and all at once:
// afterwards it is as if it had never applied anything, and Applied is 0. What
// an interrupted installation has staged for it is removed, one that is open is
// left alone. It is for the goroutine that calls Apply, between two calls. It is
// short if everything that the shard has applied is durable: call Flush before
// it, from elsewhere; else it waits for that. Errors are those of Apply; an
// index may be applied anew.
func (s *Store) RemoveShard(shard int) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	if shard < 0 || shard >= len(s.shards) {
		return fmt.Errorf("storage: removal of shard %d of %d", shard, len(s.shards))
	}
	if err := s.removeStaged(shard); err != nil {
		return err
	}
	if s.Applied(shard) == 0 && !s.Lost(shard) {
		return s.fatal.get()
	}
	return shardRange{s, shard, shard}.replace(replacement{nextExpiry: never}, nil)
}

// GiveUp removes all that there is of the shards from first to last, durably and
// at once, and leaves word that they are lost: until they are replaced or removed
// Lost says so, also after a restart. It is RemoveShard for neighbours that cannot
// be removed one by one, because the same block of both is damaged. Of the shards
// before and behind them the edge must be sound, else it fails with a DamageError.
func (s *Store) GiveUp(first, last int) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	if first < 0 || first > last || last >= len(s.shards) {
		return fmt.Errorf("storage: cannot give up shards %d to %d: out of range", first, last)
	}
	var lost []record
	for shard := first; shard <= last; shard++ {
		lost = append(lost, record{appendPrefix(nil, shard, kindLost), []byte{lostFormat}})
	}
	path, err := s.flusher.writeRecords("lost", lost)
	if err != nil {
		return err
	}
	return shardRange{s, first, last}.replace(replacement{nextExpiry: never, lost: true}, []string{path})
}

// Lost reports whether the store does not know any more what it had of shard:
// it was given up, or what says how far it had been applied is damaged. Applied is
// 0 then. It is for the goroutine that calls Apply.
func (s *Store) Lost(shard int) bool { return s.shards[shard].lost }

// removeStaged removes what is staged for shard, unless it is in use.
func (s *Store) removeStaged(shard int) error {
	s.holders.mu.Lock()
	defer s.holders.mu.Unlock()
	if s.holders.installs[shard] != nil {
		return nil
	}
	return s.opts.FS.RemoveAll(stagingDir(s.opts, shard))
}

// Installed returns the configuration of shard's group as of Applied, with the
// entry that made it or the snapshot that brought it, and whether there has
// been either since the shard was removed last. It survives restarts with the
// shard's state: where the log ends before Index, it missed an installation and
// must begin behind it. Conf must not be changed.
func (s *Store) Installed(shard int) (InstallMeta, bool) {
	m := s.shards[shard].installed.Load()
	if m == nil {
		return InstallMeta{}, false
	}
	return *m, true
}

// SetConf replaces the configuration that Installed returns, durably, where no
// entry does: for tools that work on a store that nobody else uses. The shard
// must have applied something, m.Index must not be above Applied.
func (s *Store) SetConf(shard int, m InstallMeta) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	if shard < 0 || shard >= len(s.shards) || m.Index == 0 || m.Index > s.Applied(shard) || len(m.Conf) > ConfBytesMax {
		return fmt.Errorf("storage: invalid configuration of %d bytes at index %d for shard %d", len(m.Conf), m.Index, shard)
	}
	s.publishing.Lock()
	s.shards[shard].installed.Store(&m)
	s.publishing.Unlock()
	return s.flush()
}

// replacement is what a shard has in memory after its state was replaced.
type replacement struct {
	meta       meta
	sessions   sessionIndex
	nextExpiry uint64
	marked     uint64
	installed  *InstallMeta
	lost       bool
}

// become takes over what Pebble has now.
func (sh *shardState) become(to replacement) {
	sh.stopped, sh.lost = false, to.lost
	sh.rotated = to.meta.applied
	sh.revision.Store(to.meta.revision)
	sh.stamp.Store(to.meta.stamp)
	sh.nextExpiry.Store(to.nextExpiry)
	sh.marked = to.marked
	sh.sessions = to.sessions
	sh.publishSessions()
	sh.installed.Store(to.installed)
	sh.rotatedConf = to.installed
	sh.durable.Store(to.meta.applied)
	sh.applied.Store(to.meta.applied)
}

// settled reports whether no replacement was under way at a generation, nor has
// been abandoned because the store failed.
func settled(generation uint64) bool { return generation%2 == 0 }

// unlessFailed makes a change of Pebble and waits for it, but not if the store
// fails meanwhile: then it may never end. An error of it is fatal.
func (r shardRange) unlessFailed(change func() error) error {
	s := r.store
	done := make(chan error, 1)
	s.background.Go(func() { done <- change() })
	select {
	case err := <-done:
		if err != nil {
			return s.fatal.record(err)
		}
		return nil
	case <-s.fatal.raised:
		return s.fatal.get()
	}
}

// cachePurgeInlineBytes is up to which size of a row cache its rows are looked
// through at once.
const cachePurgeInlineBytes = 4 << 20

// unbar lets rows of shard into the cache again, when those from before are
// gone.
func (r shardRange) unbar(shard int) {
	s := r.store
	if s.opts.RowCacheBytes <= cachePurgeInlineBytes {
		s.cache.unbar(shard)
		return
	}
	s.background.Go(func() { s.cache.unbar(shard) })
}

// shardRange is the shards from first to last, to be replaced or removed at once.
type shardRange struct {
	store       *Store
	first, last int
}

// keys returns the range of all keys of the shards, and of whatever is behind the
// last of all.
func (r shardRange) keys() pebble.KeyRange {
	lower, upper := appendShard(nil, r.first), appendShard(nil, r.last+1)
	if r.last == len(r.store.shards)-1 {
		upper = append(bytes.Clone(behindAll), 0xff)
	}
	return pebble.KeyRange{Start: lower, End: upper}
}

// replace puts the tables at paths in the place of what Pebble has of the shards, and
// lets what is in memory follow. A replacement without sessions has none.
func (r shardRange) replace(to replacement, paths []string) error {
	if err := r.lockSettled(); err != nil {
		return err
	}
	s := r.store
	defer s.publishing.Unlock()
	if err := r.checkEdges(); err != nil {
		return err
	}
	for shard := r.first; shard <= r.last; shard++ {
		s.cache.bar(shard)
		s.shards[shard].generation.Add(1)
	}
	if err := r.unlessFailed(func() error { return r.exchange(paths) }); err != nil {
		return err
	}
	for shard := r.first; shard <= r.last; shard++ {
		if r.first < r.last || to.sessions.byID == nil {
			to.sessions.clear()
		}
		sh := &s.shards[shard]
		sh.become(to)
		s.damage.settle(shard)
		r.unbar(shard)
		sh.generation.Add(1)
	}
	return nil
}

// lockSettled takes publishing when Pebble has everything of the shards, which it waits for if need be, and nobody else has.
func (r shardRange) lockSettled() error {
	s := r.store
	for {
		if err := s.fatal.get(); err != nil {
			return err
		}
		s.publishing.Lock()
		settled := true
		for shard := r.first; shard <= r.last; shard++ {
			sh := &s.shards[shard]
			// What is durable may still be in a memtable for a moment.
			settled = settled && sh.durable.Load() == sh.applied.Load() && !s.memtables.flushes(shard)
		}
		if settled {
			return nil
		}
		s.publishing.Unlock()
		if err := s.flush(); err != nil {
			return err
		}
	}
}

// exchange puts the tables at paths in the place of what Pebble has of the
// shards. Behind the last shard of all lies the owner's record, which
// goes along and comes back: it may share a damaged block with the shard.
func (r shardRange) exchange(paths []string) error {
	s := r.store
	if r.last == len(s.shards)-1 && s.opts.Owner.UID != 0 {
		path, err := s.flusher.writeRecords("owner", []record{s.opts.ownerRecord()})
		if err != nil {
			return err
		}
		paths = append(slices.Clip(paths), path)
	}
	if len(paths) == 0 {
		return s.db.Excise(context.Background(), r.keys())
	}
	_, err := s.db.IngestAndExcise(context.Background(), paths, nil, nil, r.keys())
	return err
}

// checkEdges makes sure that Pebble can cut a range out. In each file that goes
// beyond the range it looks for the last record before and the first one behind, and
// takes an error there for the end of the file: it would drop what other shards have
// in it.
func (r shardRange) checkEdges() error {
	for missing := ""; ; {
		path, err := r.checkTables()
		if !errors.Is(err, fs.ErrNotExist) || path == missing {
			return err
		}
		missing = path // a compaction has replaced it since it was listed, unless it is lost
	}
}

// checkTables does that for the files that there are at first, and names the one
// that an error is about.
func (r shardRange) checkTables() (path string, err error) {
	s, cut := r.store, r.keys()
	levels, err := s.db.SSTables(pebble.WithKeyRangeFilter(cut.Start, cut.End))
	if err != nil {
		return "", err
	}
	for _, tables := range levels {
		for i := range tables {
			t := &tables[i]
			before := bytes.Compare(t.Smallest.UserKey, cut.Start) < 0
			behind := bytes.Compare(t.Largest.UserKey, cut.End) >= 0
			path = s.opts.FS.PathJoin(s.opts.Dir, t.BackingSSTNum.String()+".sst")
			if before {
				err = r.checkEdge(path, shardOf(cut.Start)-1, func(it sstable.Iterator) bool { return it.SeekLT(cut.Start, 0) != nil })
			}
			if err == nil && behind {
				err = r.checkEdge(path, shardOf(cut.End), func(it sstable.Iterator) bool { return it.SeekGE(cut.End, 0) != nil })
			}
			if err != nil {
				return path, err
			}
		}
	}
	return "", nil
}

// checkEdge looks for a record that a table has of shard, next to the range.
func (r shardRange) checkEdge(path string, shard int, seek func(sstable.Iterator) bool) error {
	s := r.store
	err := iterateTable(s.damage.options, path, func(it sstable.Iterator) error {
		if seek(it) {
			return nil
		}
		return it.Error()
	})
	if isDamage(err) {
		s.damage.concerns(path, shard, s.shards[shard].generation.Load())
		return &DamageError{shard, filepath.Base(path), err}
	}
	return err
}
