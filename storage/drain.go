package storage

import (
	"fmt"
	"unsafe"

	"github.com/cockroachdb/pebble/v2"
)

// drainBatchKeep is up to which size the batch of a drain is kept for the next.
const drainBatchKeep = 4 << 20

// lockWindow takes the window when the active table has room for n bytes,
// which it makes if need be. It waits while both tables are full.
func (s *Store) lockWindow(n int) error {
	for {
		s.window.Lock()
		if s.recent.active.fits(n) {
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

// freeze has the active table written to Pebble, with the state of all shards
// as it is now, and begins another with room for need bytes. The caller holds
// the window, and nothing is frozen.
func (s *Store) freeze(need int) {
	var metas []shardMeta
	for i := range s.shards {
		st := &s.shards[i]
		applied := st.applied.Load()
		if applied == st.frozen {
			continue
		}
		st.frozen = applied
		m := shardMeta{shard: i, meta: st.meta()}
		if conf := st.installed.Load(); conf != st.frozenConf {
			m.conf, st.frozenConf = conf, conf
		}
		metas = append(metas, m)
	}
	if t := s.recent.freeze(metas, need); t != nil {
		s.toDrain <- t // has room: nothing else is frozen
	}
}

// drain gets everything applied so far into Pebble, and waits for it.
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
	select {
	case <-drained:
		return nil
	case <-s.fatal.raised:
		return s.fatal.get()
	case <-s.closing:
		return ErrClosed
	}
}

// drainTables writes frozen tables to Pebble until the store is closed. After
// a fatal error the table stays, so that readers still find its rows.
func (s *Store) drainTables() {
	defer s.background.Done()
	for {
		select {
		case <-s.closing:
			return
		case t := <-s.toDrain:
			if err := s.drainTable(t); err == nil {
				s.recent.release()
			} else {
				s.failed("recent records cannot be written", err)
			}
		}
	}
}

// drainTable writes t to Pebble as one batch. When as much has been written as
// a memtable holds, it has that flushed: of rows that are overwritten again
// and again Pebble gets few, and the log would grow without end.
func (s *Store) drainTable(t *recentTable) error {
	if s.beforeDrain != nil {
		if err := s.beforeDrain(); err != nil {
			return err
		}
	}
	batch, err := s.drainBatch(t)
	if err != nil {
		return err
	}
	defer batch.Close()
	if err := s.commit(batch); err != nil {
		return err
	}
	if s.unflushed += int64(t.used()); s.unflushed < s.opts.MemTableBytes {
		return nil
	}
	s.unflushed = 0
	_, err = s.flushPebble()
	return err
}

// commit writes batch to Pebble, unless the store has failed meanwhile.
func (s *Store) commit(batch *pebble.Batch) error {
	s.committing.Lock()
	defer s.committing.Unlock()
	if err := s.fatal.get(); err != nil {
		return err
	}
	return s.db.Apply(batch, pebble.NoSync)
}

// flushPebble begins a flush of Pebble's memtable. It keeps out of a commit:
// Pebble may flush a batch that is in the memtable but not yet published, and
// drops what the batch overwrites, so that until it is published readers of
// Pebble find neither.
func (s *Store) flushPebble() (<-chan struct{}, error) {
	s.committing.Lock()
	defer s.committing.Unlock()
	return s.db.AsyncFlush()
}

// drainBatch returns the newest records of the frozen table t and the states
// of its shards, in the order of their keys.
func (s *Store) drainBatch(t *recentTable) (*pebble.Batch, error) {
	lists := [recentClasses][]uint32{
		recentRows:     s.allRows(t),
		recentExpiries: t.sort(t.lists[recentExpiries].order),
		recentSessions: t.sort(t.lists[recentSessions].order),
	}
	batch := s.db.NewBatch(pebble.WithInitialSizeBytes(t.batchBytes(&lists)), pebble.WithMaxRetainedSizeBytes(drainBatchKeep))
	for _, m := range t.metas { // every shard with records has one
		for class := range lists {
			var err error
			if recentClass(class) == recentSessions { // 'm' is before 's'
				err = addMeta(batch, m)
			}
			if err == nil {
				lists[class], err = t.addShard(batch, lists[class], m.shard)
			}
			if err != nil {
				return nil, err
			}
		}
	}
	for _, left := range lists {
		if len(left) > 0 {
			return nil, fmt.Errorf("%w: records of a shard that applied nothing", ErrCorrupt)
		}
	}
	return batch, nil
}

// allRows returns the rows of the frozen table t as one run. It works on what
// scans have sorted, and leaves them its result, but does not keep them out
// meanwhile.
func (s *Store) allRows(t *recentTable) []uint32 {
	l := &t.lists[recentRows]
	s.sorting.Lock()
	runs, covered := append([][]uint32(nil), l.runs...), l.covered
	s.sorting.Unlock()
	if covered < len(l.order) {
		runs = append(runs, t.sort(l.order[covered:]))
	}
	all := t.mergeAll(runs)
	s.sorting.Lock()
	defer s.sorting.Unlock()
	l.runs, l.covered = [][]uint32{all}, len(l.order)
	return all
}

// batchBytes guesses how large the batch of the records in lists will be, from
// their share in all records, since looking at each would cost as much as
// copying it.
func (t *recentTable) batchBytes(lists *[recentClasses][]uint32) int {
	all, kept := 0, 0
	for i := range lists {
		all += len(t.lists[i].order)
		kept += len(lists[i])
	}
	const metaRecordBytes = prefixBytes + metaBytes + 8
	return int(float64(t.used())*float64(kept)/float64(max(all, 1))) + len(t.metas)*metaRecordBytes + 1<<10
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

// addShard adds the records at the beginning of places that belong to shard,
// and returns the others.
func (t *recentTable) addShard(batch *pebble.Batch, places []uint32, shard int) ([]uint32, error) {
	for i, place := range places {
		if ahead := i + prefetchRecords; ahead < len(places) {
			t.prefetch(places[ahead])
		}
		r := t.at(place)
		key := r.key()
		if int(key[0])<<8|int(key[1]) != shard {
			return places[i:], nil
		}
		var err error
		if r.deleted() {
			err = batch.Delete(key, nil)
		} else {
			err = batch.Set(key, r.value(), nil)
		}
		if err != nil {
			return nil, err
		}
	}
	return nil, nil
}

func addMeta(batch *pebble.Batch, m shardMeta) error {
	if m.conf != nil { // 'i' is before 'm'
		if err := batch.Set(appendPrefix(nil, m.shard, kindInstall), appendInstallMeta(nil, *m.conf), nil); err != nil {
			return err
		}
	}
	op := batch.SetDeferred(prefixBytes, metaBytes)
	putPrefix(op.Key, m.shard, kindMeta)
	m.meta.put(op.Value)
	return op.Finish()
}
