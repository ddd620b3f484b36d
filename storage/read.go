package storage

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/proa-kv/proa/bufpool"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/storage/memtable"
)

// AppendCached looks the row of key up in the row cache, at nowMillis (Unix
// milliseconds; a time before LastStamp counts as LastStamp, so that a row
// which expired for a command does not come back for a reader). It returns
// command.ReadMiss where the row is not there: ask Append; command.ReadAbsent where
// it is known not to exist; and command.ReadFound. Then it appends the value to
// dst.B, if withValue; else it leaves dst, which may then be nil, as it is. It touches neither Pebble nor
// the disk, allocates nothing but what dst.Grow may need, and keeps no view of
// key. What it finds reflects every entry that Applied covers.
func (s *Store) AppendCached(dst *bufpool.Buffer, shard int, key []byte, nowMillis uint64, withValue bool) (command.Row, command.ReadState) {
	now := s.readTime(shard, nowMillis)
	valueMax := command.NoValue
	if withValue {
		valueMax = command.AnyValue
	}
	row, hit, _ := s.cache.lookup(dst, hashKey(shard, key), shard, key, now, valueMax)
	return row, hit
}

func (s *Store) readTime(shard int, nowMillis uint64) uint64 {
	return max(nowMillis, s.shards[shard].stamp.Load())
}

// Append is AppendCached for a caller that can wait: a row that is not in the
// cache is taken from a memtable, else read from Pebble, perhaps from
// disk, and put into the cache. It reports whether the row exists. A value of more
// than valueMax bytes (see command.AnyValue) is left out. dst must not be nil: its
// free room holds the key meanwhile. After an error dst.B is unchanged.
func (s *Store) Append(dst *bufpool.Buffer, shard int, key []byte, nowMillis uint64, valueMax int) (command.Row, bool, error) {
	if err := s.enter(); err != nil {
		return command.Row{}, false, err
	}
	defer s.leave()
	replaced := &s.shards[shard].generation
	for {
		before, ingestions := replaced.Load(), s.flusher.ingestions.Load()
		l := lookup{store: s, hash: hashKey(shard, key), shard: shard, key: key, now: s.readTime(shard, nowMillis), valueMax: valueMax}
		row, found, err := l.append(dst)
		if found || err != nil {
			return row, found, err
		}
		if s.flusher.ingestions.Load() != ingestions {
			continue // see ingest
		}
		if settled(before) && replaced.Load() == before {
			return row, found, err
		}
		// Until Pebble publishes a replacement, who reads it finds neither the
		// old rows nor the new ones. publishing is held for so long.
		s.publishing.Lock()
		abandoned := !settled(replaced.Load())
		s.publishing.Unlock()
		if abandoned {
			return command.Row{}, false, s.fatal.get()
		}
	}
}

// lookup is a read of one row.
type lookup struct {
	store    *Store
	ticket   fillTicket
	hash     uint64
	shard    int
	key      []byte
	now      uint64
	valueMax int
}

// append is Append within enter, but that it may miss a row while its shard is
// replaced or an ingestion begins.
func (l *lookup) append(dst *bufpool.Buffer) (row command.Row, found bool, err error) {
	var hit command.ReadState
	row, hit, l.ticket = l.store.cache.lookup(dst, l.hash, l.shard, l.key, l.now, l.valueMax)
	if hit != command.ReadMiss {
		return row, hit == command.ReadFound, nil
	}
	dst.Grow(prefixBytes + len(l.key))
	full := appendDataKey(dst.B[len(dst.B):], l.shard, l.key)
	if row, found, recent, err := l.appendRecent(dst, full); recent || err != nil {
		return row, found, err
	}
	stored, closer, err := l.store.db.Get(full)
	if errors.Is(err, pebble.ErrNotFound) {
		l.fill(cachedRow{absent: true}, nil)
		return command.Row{}, false, nil
	}
	if err != nil {
		return command.Row{}, false, l.store.damaged(l.shard, fmt.Errorf("storage: read a row of shard %d: %w", l.shard, err))
	}
	row, found, err = l.appendRecord(dst, stored)
	return row, found, errors.Join(err, closer.Close())
}

// appendRecent does what append does for a row that is in a memtable, and reports
// whether it is. The memtables stay while it copies.
func (l *lookup) appendRecent(dst *bufpool.Buffer, full []byte) (row command.Row, found, recent bool, err error) {
	x := &l.store.memtables
	x.mu.RLock()
	defer x.mu.RUnlock()
	r, recent := x.get(l.hash, full)
	if !recent {
		return command.Row{}, false, false, nil
	}
	if r.Deleted() {
		l.fill(cachedRow{absent: true}, nil)
		return command.Row{}, false, true, nil
	}
	row, found, err = l.appendRecord(dst, r.Value())
	return row, found, true, err
}

// appendRecord puts the row into the cache, and its value into dst if it is visible.
func (l *lookup) appendRecord(dst *bufpool.Buffer, stored []byte) (command.Row, bool, error) {
	version, expireAt, value, err := decodeRow(stored)
	if err != nil {
		return command.Row{}, false, err
	}
	l.fill(cachedRow{version: version, expireAt: expireAt}, value)
	if !visible(expireAt, l.now) {
		return command.Row{}, false, nil
	}
	if len(value) <= l.valueMax {
		dst.Grow(len(value))
		dst.B = append(dst.B, value...)
	}
	return rowAt(l.now, version, expireAt, len(value)), true, nil
}

func (l *lookup) fill(r cachedRow, value []byte) {
	l.store.cache.fill(l.ticket, l.hash, l.shard, l.key, r, value)
}

// ScanOptions say what Scan visits.
type ScanOptions struct {
	Shards    []int  // in any order, each once
	Start     []byte // first key, empty: from the first
	End       []byte // first key beyond, empty: to the last
	Reverse   bool   // from the last key to the first
	KeysOnly  bool   // values are not shown
	NowMillis uint64 // rows that have expired by then, or by LastStamp, are skipped
	// Opened is called when the state that the scan sees has been fixed, and
	// before visit; an error of it ends the scan. May be nil.
	Opened func() error
}

// Scan calls visit for each row of the shards with Start <= key < End in the
// order of the keys, all as of one moment, until visit returns false. key and
// value are views that end with the call of visit. What it sees includes
// everything that Applied covered when it was called. It begins only between
// two write batches of Apply, and reads the disk.
func (s *Store) Scan(o ScanOptions, visit func(key, value []byte, row command.Row) bool) (err error) {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	m := merge{store: s, reverse: o.Reverse}
	defer func() { err = errors.Join(err, m.close()) }()
	tables, err := m.open(o)
	defer s.memtables.unpin(tables)
	if err != nil {
		return err
	}
	if o.Opened != nil {
		if err := o.Opened(); err != nil {
			return err
		}
	}
	for m.begin(); len(m.heap) > 0; m.next() {
		c := m.heap[0]
		stored, err := c.value()
		if err != nil {
			return s.damaged(c.shard, err)
		}
		version, expireAt, value, err := decodeRow(stored)
		if err != nil {
			return err
		}
		if !visible(expireAt, c.now) {
			continue
		}
		row := rowAt(c.now, version, expireAt, len(value))
		if o.KeysOnly {
			value = nil
		}
		if !visit(c.row, value, row) {
			return nil
		}
	}
	return m.err
}

// open opens one cursor per shard, all on the same state, which the
// row cache is not behind and to which the last stamps belong. It returns the
// memtables that they need.
func (m *merge) open(o ScanOptions) (pinned, error) {
	tables, snapshots, err := m.openIterators(o)
	for i := range m.cursors {
		c := &m.cursors[i]
		c.recent = memtable.NewIterator(snapshots, memtable.Rows, c.lower, c.upper, o.Reverse)
	}
	return tables, err
}

// openIterators fixes the state: snapshots of the memtables, and an iterator of
// Pebble for each shard.
func (m *merge) openIterators(o ScanOptions) (tables pinned, snapshots []memtable.Snapshot, err error) {
	s := m.store
	s.publishing.Lock()
	defer s.publishing.Unlock()
	tables = s.memtables.pin() // before Pebble is looked at: what leaves them is there
	snapshots = tables.snapshots()
	var first *pebble.Iterator
	for _, shard := range o.Shards {
		if shard < 0 || shard >= len(s.shards) {
			return tables, nil, fmt.Errorf("storage: scan of shard %d of %d", shard, len(s.shards))
		}
		c := shardCursor{
			cursor: cursor{reverse: o.Reverse},
			shard:  shard,
			now:    s.readTime(shard, o.NowMillis),
			lower:  appendDataKey(nil, shard, o.Start),
			upper:  appendPrefix(nil, shard, kindData+1),
		}
		if len(o.End) > 0 {
			c.upper = appendDataKey(nil, shard, o.End)
		}
		if bytes.Compare(c.lower, c.upper) >= 0 {
			continue
		}
		bounds := &pebble.IterOptions{LowerBound: c.lower, UpperBound: c.upper}
		if first == nil {
			c.it, err = s.db.NewIter(bounds)
			first = c.it
		} else {
			c.it, err = first.Clone(pebble.CloneOptions{IterOptions: bounds})
		}
		if err != nil {
			return tables, nil, s.damaged(shard, err)
		}
		m.cursors = append(m.cursors, c)
	}
	return tables, snapshots, nil
}

// merge walks several shards in the order of their keys: a binary heap of the
// cursors that stand on a row, the next one first.
type merge struct {
	store   *Store
	reverse bool
	cursors []shardCursor
	heap    []*shardCursor
	err     error // of the cursor that failed first
}

type shardCursor struct {
	cursor
	shard        int
	now          uint64 // of its shard
	lower, upper []byte
	row          []byte // the key without the prefix
}

func (m *merge) begin() {
	for i := range m.cursors {
		c := &m.cursors[i]
		if m.settle(c, c.first()) {
			m.heap = append(m.heap, c)
		}
	}
	if m.err != nil {
		m.heap = nil
	}
	for i := len(m.heap)/2 - 1; i >= 0; i-- {
		m.down(i)
	}
}

// next moves the first cursor on.
func (m *merge) next() {
	c := m.heap[0]
	if !m.settle(c, c.next()) {
		last := len(m.heap) - 1
		m.heap[0] = m.heap[last]
		m.heap = m.heap[:last]
	}
	if m.err != nil {
		m.heap = nil
	}
	m.down(0)
}

func (m *merge) settle(c *shardCursor, there bool) bool {
	if !there {
		m.err = errors.Join(m.err, m.store.damaged(c.shard, c.err))
		return false
	}
	c.row = c.key[prefixBytes:]
	return true
}

func (m *merge) down(i int) {
	for {
		child := 2*i + 1
		if child >= len(m.heap) {
			return
		}
		if right := child + 1; right < len(m.heap) && m.before(right, child) {
			child = right
		}
		if !m.before(child, i) {
			return
		}
		m.heap[i], m.heap[child] = m.heap[child], m.heap[i]
		i = child
	}
}

func (m *merge) before(i, j int) bool {
	order := bytes.Compare(m.heap[i].row, m.heap[j].row)
	if m.reverse {
		return order > 0
	}
	return order < 0
}

func (m *merge) close() (err error) {
	for i := range m.cursors {
		err = errors.Join(err, m.cursors[i].close())
	}
	return err
}
