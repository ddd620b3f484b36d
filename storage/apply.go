package storage

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/storage/memtable"
)

// Entry is a committed entry of a shard's log. Data is an entry as package
// command writes it; empty Data only advances the applied index.
type Entry struct {
	Shard int
	Index uint64
	Data  []byte // commands; nil: none

	// Conf is the group's configuration from this entry on, nil where the
	// entry leaves it as it is; at most ConfBytesMax bytes, and not to be
	// changed afterwards. It becomes part of the shard's state, so that after
	// a crash the configuration found is the one as of Applied. Term, of the
	// entry, counts only with it.
	Conf []byte
	Term uint64

	// Together entries stand at the front of a call of Apply, and their effects
	// become visible all at once: they hold the parts of commands over several
	// shards.
	Together bool

	// Alone says that no other replica carries the entry out. Where a row that
	// a command needs is damaged, the command is then answered
	// command.Damaged, and the others are carried out. Otherwise replicas
	// would differ, and Apply stops the shard.
	Alone bool
}

// Deliverer receives the results of Apply: of entries[entry], of its command
// number cmd, both from 0. The Result and what it points to are valid until
// Apply returns.
type Deliverer interface {
	Deliver(entry, cmd int, r *command.Result)
}

// Apply carries out entries in order, all at once, or in several write batches where
// they make far more than they bring (see growthBytesMax). When it returns nil
// their effects are visible to readers, Applied has advanced, and each
// command's result has been delivered, in order; nothing is durable by it (see
// Durable). The entries' Data must not change until Apply returns, and is not
// kept. One goroutine at a time may call it; it waits while both memtables are full, and reads rows from disk where a command depends on
// them.
//
// Indexes of a shard must rise: otherwise Apply returns ErrStaleIndex and has
// done nothing. An error that wraps ErrDamaged says that some shards are
// stopped (see Stopped): of those nothing is applied from the entry on that
// could not be carried out, for which Applied is the measure, and nothing will be
// until they are replaced or removed; the entries of the others have been
// applied. Any other error means that the node must stop: the entries
// cannot be understood (command.ErrMalformed, command.ErrFormat, with nothing
// of their write batch applied or delivered) or Pebble failed. Every later call then returns
// ErrFailed.
func (s *Store) Apply(entries []Entry, d Deliverer) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	if err := s.fatal.get(); err != nil {
		return err
	}
	b := &s.writeBatch
	b.stop = nil
	for first := 0; ; {
		n, err := b.apply(entries[first:], first, d)
		if first += n; err != nil {
			return err
		}
		if first == len(entries) {
			return b.stop
		}
	}
}

// Stopped reports whether nothing of shard is applied any more because its data
// are damaged. It is for the goroutine that calls Apply.
func (s *Store) Stopped(shard int) bool { return s.shards[shard].stopped }

// apply carries out entries, of which the first has number first for d, as far
// as one write batch may go. It returns how many that were.
func (b *writeBatch) apply(entries []Entry, first int, d Deliverer) (int, error) {
	b.begin()
	defer b.end()
	if err := b.admit(entries); err != nil {
		return 0, err
	}
	n, err := b.run(entries)
	if err != nil {
		return 0, b.store.fatal.record(err)
	}
	if n < len(entries) {
		b.admitOnly(entries[:n])
	}
	if b.stop != nil {
		b.dropStopped()
	}
	if err := b.finish(); err != nil {
		return 0, b.store.fatal.record(err)
	}
	b.deliver(entries, first, d)
	return n, nil
}

// stopShard has nothing of shard be applied any more.
func (b *writeBatch) stopShard(shard int, err error) {
	b.store.shards[shard].stopped = true
	b.stop = errors.Join(b.stop, b.store.damaged(shard, err))
}

// dropStopped takes what the write batch has done to stopped shards out of it.
func (b *writeBatch) dropStopped() {
	for i := range b.rows.rows {
		if r := &b.rows.rows[i]; b.store.Stopped(int(r.shard)) {
			r.dirty, r.fresh = false, false
		}
	}
	b.staged = slices.DeleteFunc(b.staged, func(r stagedRecord) bool { return b.store.Stopped(shardOf(r.key)) })
	b.ranges = slices.DeleteFunc(b.ranges, func(r deletedRange) bool { return b.store.Stopped(r.shard) })
	b.touched = slices.DeleteFunc(b.touched, b.store.Stopped)
}

// writeBatch is the working state of one call of Apply, kept for the next one.
type writeBatch struct {
	store  *Store
	number uint64
	rows   rowSet
	staged []stagedRecord // changes of the expiry index and of session records
	bytes  arena
	ranges []deletedRange         // that the write batch has deleted, in order
	marks  map[removalMark]uint64 // the marks that the write batch has set; nil: none ever

	shards  []shardChanges
	touched []int // shards with entries in this write batch

	stop error // why shards are stopped that had entries in this call of Apply; nil: none is

	results []command.Result
	ends    []int            // per entry: the number of results so far
	nested  []command.Result // results of operations are cut from it
	pending [][]byte         // session records written in this write batch

	key    []byte
	record []byte
}

// stagedRecord is a change that the write batch makes beside its rows. Key and value
// are bytes of the write batch.
type stagedRecord struct {
	list    memtable.List
	deleted bool
	key     []byte // as in the database
	value   []byte
}

// shardChanges is the state of a shard as the write batch has left it.
type shardChanges struct {
	meta
	writeBatch uint64
	marked     uint64       // as in shardState
	conf       *InstallMeta // nil: unchanged
	newExpiry  uint64       // earliest expiry added
	emptied    bool         // what was in the expiry index before the write batch is not any more
	swept      bool
	sweptTo    uint64 // nothing below it is left in the expiry index
}

const (
	// What a write batch needed once is kept up to these sizes.
	writeBatchRowsKeep    = 64 << 10
	writeBatchResultsKeep = 64 << 10
	writeBatchStagedKeep  = 64 << 10
)

func (b *writeBatch) init(s *Store) {
	b.store = s
	b.shards = make([]shardChanges, len(s.shards))
}

func (b *writeBatch) begin() {
	b.number++
	b.rows.reset()
	b.bytes.reset()
	b.touched = b.touched[:0]
	b.results = b.results[:0]
	b.ends = b.ends[:0]
	b.nested = b.nested[:0]
	b.pending = b.pending[:0]
	b.staged = b.staged[:0]
	b.ranges = b.ranges[:0]
	clear(b.marks)
}

// end lets go of the entries and of what an unusually large write batch needed.
func (b *writeBatch) end() {
	clear(b.results)
	clear(b.nested)
	clear(b.pending)
	clear(b.staged)
	clear(b.ranges)
	if cap(b.staged) > writeBatchStagedKeep {
		b.staged = nil
	}
	if cap(b.results) > writeBatchResultsKeep {
		b.results = nil
	}
	if cap(b.nested) > writeBatchResultsKeep {
		b.nested = nil
	}
	if cap(b.rows.rows) > writeBatchRowsKeep {
		b.rows.rows = nil
	}
}

// admit checks and takes over the indexes of entries.
func (b *writeBatch) admit(entries []Entry) error {
	for i := range entries {
		e := &entries[i]
		if e.Shard < 0 || e.Shard >= len(b.shards) {
			return fmt.Errorf("storage: entry for shard %d of %d, which is out of range", e.Shard, len(b.shards))
		}
		sh := b.touch(e.Shard)
		if e.Index <= sh.applied {
			return fmt.Errorf("%w: shard %d, index %d, applied %d", ErrStaleIndex, e.Shard, e.Index, sh.applied)
		}
		if len(e.Conf) > ConfBytesMax {
			return fmt.Errorf("storage: configuration of %d bytes, at most %d are allowed", len(e.Conf), ConfBytesMax)
		}
		sh.take(e)
	}
	return nil
}

// touch returns the state of a shard as the write batch has left it so far.
func (b *writeBatch) touch(shard int) *shardChanges {
	sh := &b.shards[shard]
	if sh.writeBatch != b.number {
		st := &b.store.shards[shard]
		*sh = shardChanges{meta: st.meta(), writeBatch: b.number, marked: st.marked, newExpiry: never}
		b.touched = append(b.touched, shard)
	}
	return sh
}

// admitOnly takes over the indexes of entries where those of later ones were
// taken over as well.
func (b *writeBatch) admitOnly(entries []Entry) {
	for _, i := range b.touched {
		st := &b.store.shards[i]
		b.shards[i].applied, b.shards[i].conf = st.applied.Load(), nil
	}
	for i := range entries {
		b.shards[entries[i].Shard].take(&entries[i])
	}
	b.touched = slices.DeleteFunc(b.touched, func(i int) bool {
		return b.shards[i].applied == b.store.shards[i].applied.Load()
	})
}

// take takes over what e says beside its commands.
func (sh *shardChanges) take(e *Entry) {
	if e.Conf != nil {
		sh.conf = &InstallMeta{Index: e.Index, Term: e.Term, Conf: e.Conf}
	}
	sh.applied = e.Index
}

// run carries out the commands of entries until they have grown as far as a
// write batch may; their effects are in b alone. It returns how many entries it has
// carried out, at least one if there is one.
func (b *writeBatch) run(entries []Entry) (int, error) {
	ex, grown := &b.store.executor, 0
	ex.entry = 0
	for i := range entries {
		e := &entries[i]
		switch {
		case b.store.shards[e.Shard].stopped:
			b.stop = cmp.Or[error](b.stop, &DamageError{Shard: e.Shard, Err: errStopped})
		case len(e.Data) != 0:
			if err := ex.runEntry(e); isDamage(err) {
				b.stopShard(e.Shard, fmt.Errorf("index %d: %w", e.Index, err))
			} else if err != nil {
				return 0, fmt.Errorf("shard %d, index %d: %w", e.Shard, e.Index, err)
			}
			grown += ex.grown
		}
		b.ends = append(b.ends, len(b.results))
		if (grown > writeBatchGrowthMax || len(b.ranges) > deletedRangesMax) && !e.Together {
			return i + 1, nil
		}
	}
	return len(entries), nil
}

// errStopped is why nothing is applied to a shard that was stopped before.
var errStopped = errors.New("the shard is stopped")

// load makes the state of r known, and its value where withValue.
func (b *writeBatch) load(r *row, withValue bool) (err error) {
	if r.loaded && (!withValue || r.hasValue || !r.exists) {
		return nil
	}
	if len(b.ranges) > 0 && b.wentInRange(r) {
		r.loaded, r.exists = true, false
		return nil
	}
	if b.store.cache.load(r, withValue, &b.bytes) {
		return nil
	}
	b.key = appendDataKey(b.key[:0], int(r.shard), r.key)
	record, found, closer, err := b.stored(r.hash, b.key)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closer.Close()) }()
	if !found {
		r.loaded, r.exists, r.fresh = true, false, true
		return nil
	}
	version, expireAt, value, err := decodeRow(record)
	if err != nil {
		return err
	}
	r.version, r.expireAt = version, expireAt
	r.loaded, r.exists = true, true
	if withValue {
		r.value, r.hasValue, r.fresh = b.bytes.copy(value), true, true
	}
	return nil
}

// stored returns the record of a key of the database as the last write batch left it,
// which is valid until closer is closed.
func (b *writeBatch) stored(hash uint64, key []byte) (record []byte, found bool, closer io.Closer, err error) {
	x := &b.store.memtables
	x.mu.RLock()
	if r, ok := x.get(hash, key); ok && !r.Deleted() {
		return r.Value(), true, (*memtablesCloser)(x), nil
	} else if x.mu.RUnlock(); ok {
		return nil, false, noCloser{}, nil
	}
	record, closer, err = b.store.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, false, noCloser{}, nil
	}
	return record, err == nil, closer, err
}

// memtablesCloser lets the memtables go that a record was found in.
type memtablesCloser memtables

func (x *memtablesCloser) Close() error {
	x.mu.RUnlock()
	return nil
}

type noCloser struct{}

func (noCloser) Close() error { return nil }

func (b *writeBatch) stage(l memtable.List, key, value []byte) {
	b.staged = append(b.staged, stagedRecord{list: l, key: key, value: value})
}

func (b *writeBatch) stageDeletion(l memtable.List, key []byte) {
	b.staged = append(b.staged, stagedRecord{list: l, deleted: true, key: key})
}

// finish makes the write batch visible: in the memtable, then row by
// row in the cache, see the package comment for why nobody notices the
// difference.
func (b *writeBatch) finish() error {
	if len(b.touched) == 0 {
		return nil
	}
	if err := b.publish(); err != nil {
		return err
	}
	for _, i := range b.touched {
		if err := b.finishShard(i); err != nil {
			return err
		}
	}
	return nil
}

// lockPublishing takes publishing when the mutable memtable has room for the write batch,
// which it makes if need be. It waits while both memtables are full.
func (b *writeBatch) lockPublishing() error {
	s, need := b.store, b.bytesNeeded()
	for {
		s.publishing.Lock()
		if s.memtables.mutable.takes(need, len(b.ranges)) {
			return nil
		}
		flushing := s.memtables.flushing()
		if flushing == nil {
			s.rotate(need)
			return nil
		}
		s.publishing.Unlock()
		if err := s.flusher.await(flushing); err != nil {
			return err
		}
	}
}

func (b *writeBatch) publish() error {
	s := b.store
	if err := b.lockPublishing(); err != nil {
		return err
	}
	defer s.publishing.Unlock()
	t := s.memtables.mutable
	if len(b.ranges) > 0 {
		s.cache.beginRanges(b.ranges)
		defer b.endRanges()
	}
	for i := range b.ranges { // before the rows
		t.AddRange(b.ranges[i].bounds())
	}
	for rows := range slices.Chunk(b.rows.rows, prefetchRows) {
		b.addRows(t, rows)
	}
	for i := range b.staged {
		b.staged[i].addTo(t)
	}
	s.memtables.publish(len(b.ranges) > 0)
	for i := range b.rows.rows {
		if r := &b.rows.rows[i]; r.dirty {
			s.cache.publish(r)
		} else if r.fresh {
			s.cache.add(r)
		}
		if r := &b.rows.rows[i]; len(r.value) > largeRowBytes || r.counted != 0 {
			s.large.note(r.hash, len(r.value))
		}
	}
	for _, i := range b.touched {
		sh, st := &b.shards[i], &s.shards[i]
		st.revision.Store(sh.revision)
		st.stamp.Store(sh.stamp)
		st.marked = sh.marked
		if sh.conf != nil {
			st.installed.Store(sh.conf)
		}
		st.applied.Store(sh.applied)
	}
	return nil
}

// bytesNeeded is what the records of the write batch take in a memtable.
func (b *writeBatch) bytesNeeded() int {
	n := b.rangesBytes()
	for i := range b.rows.rows {
		r := &b.rows.rows[i]
		switch {
		case r.dirty && r.exists:
			n += memtable.Bytes(prefixBytes+len(r.key), rowHeaderBytes+len(r.value))
		case r.dirty:
			n += memtable.Bytes(prefixBytes+len(r.key), 0)
		}
	}
	for i := range b.staged {
		n += memtable.Bytes(len(b.staged[i].key), len(b.staged[i].value))
	}
	return n
}

// prefetchRows is how many rows are fetched before the first is worked on:
// enough to have the memory busy, few enough for the nearest cache.
const prefetchRows = 64

// addRows announces the changed ones of rows to the cache and adds them to t.
func (b *writeBatch) addRows(t *table, rows []row) {
	cache := b.store.cache
	for i := range rows {
		if r := &rows[i]; r.dirty {
			t.PrefetchBucket(r.hash)
			cache.prefetch(r.hash)
		}
	}
	for i := range rows {
		if r := &rows[i]; r.dirty {
			cache.begin(r)
			t.PrefetchRecord(r.hash)
		}
	}
	for i := range rows {
		if r := &rows[i]; r.dirty {
			r.addTo(t)
		}
	}
}

// addTo adds the row's state to a memtable.
func (r *row) addTo(t *table) {
	var to memtable.Record
	if r.exists {
		to = t.Reserve(prefixBytes+len(r.key), rowHeaderBytes+len(r.value))
	} else {
		to = t.ReserveDeletion(prefixBytes + len(r.key))
	}
	key := to.Key()
	putPrefix(key, int(r.shard), kindData)
	copy(key[prefixBytes:], r.key)
	if r.exists {
		value := to.Value()
		putRowHeader(value, r.version, r.expireAt)
		copy(value[rowHeaderBytes:], r.value)
	}
	t.Add(memtable.Rows, r.hash, to)
}

func (r *stagedRecord) addTo(t *table) {
	var to memtable.Record
	if r.deleted {
		to = t.ReserveDeletion(len(r.key))
	} else {
		to = t.Reserve(len(r.key), len(r.value))
	}
	copy(to.Key(), r.key)
	copy(to.Value(), r.value)
	t.Add(r.list, hashRecord(r.key), to)
}

// finishShard brings up to date when the shard needs its next Sweep.
func (b *writeBatch) finishShard(i int) error {
	sh, st := &b.shards[i], &b.store.shards[i]
	st.publishSessions()
	if sh.emptied && !sh.swept {
		st.nextExpiry.Store(sh.newExpiry)
	} else if sh.swept {
		next, err := b.firstExpiry(i, sh.sweptTo)
		if isDamage(err) {
			_ = b.store.damaged(i, err)
			next, err = never, nil // rows that expire stay, and are not seen
		}
		if err != nil {
			return err
		}
		st.nextExpiry.Store(next)
	} else if sh.newExpiry < st.nextExpiry.Load() {
		st.nextExpiry.Store(sh.newExpiry)
	}
	return nil
}

func (b *writeBatch) firstExpiry(shard int, from uint64) (uint64, error) {
	tables := b.store.memtables.pin()
	defer b.store.memtables.unpin(tables)
	return firstExpiry(b.store.db, tables, shard, from)
}

// deliver hands the results of entries over, those of the first as those of entry
// number entry.
func (b *writeBatch) deliver(entries []Entry, entry int, d Deliverer) {
	first := 0
	for i, end := range b.ends {
		if b.stop != nil && b.store.Stopped(entries[i].Shard) {
			first = end
			continue
		}
		for n := first; n < end; n++ {
			d.Deliver(entry+i, n-first, &b.results[n])
		}
		first = end
	}
}

// allocResults returns n zero Results that live until the end of the write batch.
func (b *writeBatch) allocResults(n int) []command.Result {
	if n > cap(b.nested)-len(b.nested) {
		// Results handed out before keep the old array alive.
		b.nested = make([]command.Result, 0, max(n, 2*cap(b.nested), 64))
	}
	start := len(b.nested)
	b.nested = b.nested[:start+n]
	return b.nested[start : start+n : start+n]
}
