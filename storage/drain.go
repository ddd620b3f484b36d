package storage

import (
	"context"
	"fmt"
	"unsafe"
)

// lockWindow takes the window when the active table has room for n bytes, and
// so many deletions of ranges, which it makes if need be. It waits while both
// tables are full.
func (s *Store) lockWindow(n, ranges int) error {
	for {
		s.window.Lock()
		if s.recent.active.takes(n, ranges) {
			return nil
		}
		draining := s.recent.draining()
		if draining == nil {
			s.freeze(n)
			return nil
		}
		s.window.Unlock()
		if err := s.await(draining); err != nil {
			return err
		}
	}
}

// Room reports whether Apply could take in n bytes more without waiting for a
// drain. If it says no, drains hurry, and OnFlush is called when that may have
// changed. Only who calls Apply may call it.
func (s *Store) Room(n int) bool {
	s.recent.mu.RLock()
	room := s.recent.frozen == nil || s.recent.active.takes(recentBytes(0, n), passRangesMax)
	s.recent.mu.RUnlock()
	if !room {
		s.wanted.Store(true)
	}
	return room
}

// freeze has the active table drained, with the state of all shards
// as it is now, and begins another with room for need bytes. The caller holds
// the window, and nothing is frozen.
func (s *Store) freeze(need int) {
	var metas []shardMeta
	for i := range s.shards {
		st := &s.shards[i]
		applied, conf := st.applied.Load(), st.installed.Load()
		if applied == st.frozen && conf == st.frozenConf {
			continue
		}
		st.frozen = applied
		m := shardMeta{shard: i, meta: st.meta()}
		if conf != st.frozenConf {
			m.conf, st.frozenConf = conf, conf
		}
		metas = append(metas, m)
	}
	if t := s.recent.freeze(metas, need); t != nil {
		s.toDrain <- t // has room: nothing else is frozen
	}
}

// drain makes everything applied so far durable, and waits for it.
func (s *Store) drain() error {
	s.window.Lock()
	target := s.recent.active.drained
	for {
		draining := s.recent.draining()
		if draining == nil && s.recent.active.drained == target {
			s.freeze(0)
			draining = s.recent.draining()
		}
		s.window.Unlock()
		if draining == nil {
			return nil // there was nothing, or it has been drained by now
		}
		if err := s.await(draining); err != nil || draining == target {
			return err
		}
		s.window.Lock()
	}
}

func (s *Store) await(drained <-chan struct{}) error {
	s.waiting.Add(1)
	defer s.waiting.Add(-1)
	select {
	case <-drained:
		return nil
	case <-s.fatal.raised:
		return s.fatal.get()
	case <-s.closing:
		return ErrClosed
	}
}

// drainTables gives frozen tables to Pebble until the store is closed. After
// a fatal error the table stays, so that readers still find its rows.
func (s *Store) drainTables() {
	defer s.background.Done()
	standBack()
	for {
		select {
		case <-s.closing:
			return
		case t := <-s.toDrain:
			if err := s.drainTable(t); err != nil {
				s.failed("cannot write recent records to disk", err)
				continue
			}
			for _, m := range t.metas {
				s.shards[m.shard].durable.Store(m.meta.applied)
			}
			s.drained.rushed.Store(s.recent.fill() > rushedFill)
			s.wanted.Store(false)
			s.recent.release()
			s.tellFlushed()
		}
	}
}

// drainTable has Pebble take over the frozen table t as files of its own. Then
// all of it is durable.
func (s *Store) drainTable(t *recentTable) error {
	if s.beforeDrain != nil {
		if err := s.beforeDrain(); err != nil {
			return err
		}
	}
	if err := s.awaitLevel0(s.layersFor(t)); err != nil {
		return err
	}
	err := s.drainFiles(t, false)
	if isDamage(err) {
		err = s.drainFiles(t, true)
	}
	return err
}

// drainFiles writes the files of a drain and has Pebble take them over. Pebble
// looks whether files of its own have records in the range of a new one, unless
// it is wide enough to leave no doubt; what it would have to read may be damaged.
func (s *Store) drainFiles(t *recentTable, wide bool) error {
	s.drained.begin()
	files := s.newDrainFiles()
	defer files.abandon()
	if wide {
		files.widen()
	}
	if err := s.writeTable(files, t); err != nil {
		return err
	}
	return s.ingest(files.paths)
}

// layersFor is how many layers level 0 may have, with which the drain of t waits:
// as many as reads can bear. Rows larger than a usual table are to be in no more
// than begin a compaction, which holds one of every layer at a time.
func (s *Store) layersFor(t *recentTable) int {
	if s.recent.oversized(t) {
		return min(s.level0Max, compactionLayers)
	}
	return s.level0Max
}

// awaitLevel0 waits while level 0 has so many layers. Pebble lets those wait then
// who write to it, but ingests without end.
func (s *Store) awaitLevel0(most int) error {
	for warned := false; ; warned = true {
		if err := s.fatal.get(); err != nil {
			return err
		}
		layers := s.db.Metrics().Levels[0].Sublevels
		s.layers.Store(layers)
		if int(layers) < most || len(s.Damage()) > 0 { // which may keep compactions from it for good
			return nil
		}
		if !warned {
			s.opts.Logger.Warn("storage stalls writes", "reason", "compactions are behind")
		}
		select {
		case <-s.compacted:
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
// replace: its readers find neither. All that may be missed is in the frozen
// table. So who pins the tables before opening an iterator misses nothing, nor
// who looks into them before Pebble, with the same count of ingestions before
// both and after. Who reads Pebble alone opens the iterator under ingesting.
func (s *Store) ingest(paths []string) error {
	s.ingesting.Lock()
	defer s.ingesting.Unlock()
	if err := s.fatal.get(); err != nil {
		return err
	}
	s.ingestions.Add(1)
	defer s.ingestions.Add(1)
	if err := s.db.Ingest(context.Background(), paths); err != nil {
		return err
	}
	return s.fatal.get() // a sync has failed somewhere: nothing is certain any more
}

// writeTable writes the newest records of the frozen table t and the states
// of its shards, in the order of their keys.
func (s *Store) writeTable(files *drainFiles, t *recentTable) error {
	rest := files.pace.rest
	lists := [recentClasses][]uint32{
		recentRows:     s.allRows(t, rest),
		recentExpiries: t.sort(t.lists[recentExpiries].order, rest),
		recentGone:     t.sort(t.lists[recentGone].order, rest),
		recentSessions: t.sort(t.lists[recentSessions].order, rest),
	}
	for _, l := range lists {
		s.drained.of.Add(int64(len(l)))
	}
	for _, m := range t.metas { // every shard with records has one
		if err := files.cut(); err != nil {
			return err
		}
		files.deleteRanges(t.ranges.ofShard(m.shard))
		for class := range lists {
			var err error
			if recentClass(class) == recentSessions { // 'm' is before 's'
				err = files.addMeta(m)
			}
			if err == nil {
				lists[class], err = t.writeShard(files, lists[class], m.shard)
			}
			if err != nil {
				return err
			}
		}
	}
	for _, left := range lists {
		if len(left) > 0 {
			return fmt.Errorf("%w: records of a shard that applied nothing", ErrCorrupt)
		}
	}
	return files.complete()
}

// allRows returns the rows of the frozen table t as one run. It works on what
// scans have sorted, and leaves them its result, but does not keep them out
// meanwhile. It calls rest as sort does.
func (s *Store) allRows(t *recentTable, rest func()) []uint32 {
	l := &t.lists[recentRows]
	s.sorting.Lock()
	runs, covered := append([][]uint32(nil), l.runs...), l.covered
	s.sorting.Unlock()
	if covered < len(l.order) {
		runs = append(runs, t.sort(l.order[covered:], rest))
	}
	all := t.mergeAll(runs)
	s.sorting.Lock()
	defer s.sorting.Unlock()
	l.runs, l.covered = [][]uint32{all}, len(l.order)
	return all
}

// prefetchRecords is how far ahead of a copy records are fetched.
const prefetchRecords = 8

// prefetch fetches the beginning of the record at place, all of it if it is
// small.
func (t *recentTable) prefetch(place uint32) {
	at := int(place) * recentUnit
	for end := min(at+256, len(t.arena)); at < end; at += 64 {
		prefetch(unsafe.Pointer(&t.arena[at]))
	}
}

// prefetchHeader fetches where the record's shard is.
func (t *recentTable) prefetchHeader(place uint32) {
	prefetch(unsafe.Pointer(&t.arena[int(place)*recentUnit]))
}

// writeShard writes the records at the beginning of places that belong to
// shard, and returns the others.
func (t *recentTable) writeShard(files *drainFiles, places []uint32, shard int) ([]uint32, error) {
	for i, place := range places {
		if ahead := i + prefetchRecords; ahead < len(places) {
			t.prefetch(places[ahead])
		}
		r := t.at(place)
		if r.shard() != shard {
			return places[i:], nil
		}
		if t.ranges.hides(r.key(), place) {
			files.written.Add(1)
			continue
		}
		var err error
		if r.deleted() {
			err = files.delete(r.key())
		} else {
			err = files.set(r.key(), r.value())
		}
		if err != nil {
			return nil, err
		}
	}
	return nil, nil
}

func (d *drainFiles) addMeta(m shardMeta) error {
	if m.conf != nil { // 'i' is before 'm'
		if err := d.set(appendPrefix(nil, m.shard, kindInstall), appendInstallMeta(nil, *m.conf)); err != nil {
			return err
		}
	}
	var b [metaBytes]byte
	m.meta.put(b[:])
	return d.set(appendPrefix(nil, m.shard, kindMeta), b[:])
}
