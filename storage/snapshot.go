package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/cockroachdb/pebble/v2"

	"github.com/proa-kv/proa/storage/memtable"
)

// ErrViewGone is returned by a View whose shard was installed anew or removed since
// it was opened, or that is closed.
var ErrViewGone = errors.New("storage: view of a shard that was closed or replaced; open another")

// View is the state of a shard at one applied index, for sending it to another
// replica. It is safe for use from any goroutine, while Apply goes on.
//
// Until its first use it holds the memtables that there were;
// then a copy of the shard's part of them. Pebble keeps on disk what has been
// overwritten or deleted since. So it should be used soon and closed when it
// has been sent. Store.Close closes it, too.
type View struct {
	exclusive
	shard      int
	id         uint64
	chunkBytes int // ChunkBytesMax, but for tests
	generation uint64
	meta       meta

	snapshot *pebble.Snapshot
	tables   pinned              // until copied
	recent   []memtable.Snapshot // of them, then copies of the shard's part; the newest first
}

// OpenView opens a view of shard as of the last call of Apply that has ended,
// the one under way included if it has begun to publish. It costs a few
// microseconds: no disk, no waiting for a flush. It fails after Close.
func (s *Store) OpenView(shard int) (*View, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.leave()
	if shard < 0 || shard >= len(s.shards) {
		return nil, fmt.Errorf("storage: view of shard %d of %d", shard, len(s.shards))
	}
	v := &View{exclusive: exclusive{store: s}, shard: shard, id: rand.Uint64(), chunkBytes: ChunkBytesMax}
	v.fix()
	s.holders.mu.Lock()
	defer s.holders.mu.Unlock()
	s.holders.views[v] = struct{}{}
	return v, nil
}

// fix fixes the state.
func (v *View) fix() {
	s := v.store
	s.publishing.Lock()
	defer s.publishing.Unlock()
	sh := &s.shards[v.shard]
	v.meta, v.generation = sh.meta(), sh.generation.Load()
	v.tables = s.memtables.pin() // before Pebble is looked at: what leaves them is there
	v.recent = v.tables.snapshots()
	v.snapshot = s.db.NewSnapshot()
}

// Applied returns the index of the last entry that the view has the effects
// of, 0 if the shard has applied none.
func (v *View) Applied() uint64 { return v.meta.applied }

// ID returns a number that tells this view from others, to be given to
// BeginInstall at the receiver. It is random, and used for nothing but that.
func (v *View) ID() uint64 { return v.id }

// Close lets go of what the view holds. An Export under way fails with
// ErrViewGone. Closing again does nothing.
func (v *View) Close() {
	s := v.store
	if s.enter() != nil {
		return // the store has closed it, or is about to
	}
	defer s.leave()
	s.holders.mu.Lock()
	delete(s.holders.views, v)
	s.holders.mu.Unlock()
	v.release()
}

func (v *View) release() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.err != nil {
		return
	}
	v.err = ErrViewGone
	v.store.memtables.unpin(v.tables)
	v.tables, v.recent = nil, nil
	_ = v.snapshot.Close() // never fails
}

// Checksum returns the checksum of the view's state, the same that
// Store.Checksum returns at that index. It reads the whole shard, as Export does.
// When ctx ends it gives up with the context's error.
func (v *View) Checksum(ctx context.Context) (uint64, error) {
	e := newExporter(v)
	for !e.done {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		if _, err := e.next(); err != nil {
			return 0, err
		}
	}
	return e.state.hash.finish(), nil
}

// scan calls visit for the records that entries have made with keys, without the
// shard's number, at or above from, in order, until it returns false. What visit
// gets is valid until it returns.
func (v *View) scan(from []byte, visit func(key, value []byte) (bool, error)) (err error) {
	if err := v.use(); err != nil {
		return err
	}
	defer v.leave()
	v.copyRecent()
	c, err := v.cursor(from)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	for there, more := c.first(), true; there && more; there = more && c.next() {
		if kind := c.key[shardBytes]; kind == kindMeta || kind == kindInstall {
			continue // the one is v.meta, the other is this node's
		}
		value, err := c.value()
		if err == nil {
			err = checkRecord(c.key, value, v.meta)
		}
		if err == nil {
			more, err = visit(c.key[shardBytes:], value)
		}
		if err != nil {
			return err
		}
	}
	return c.err
}

// Export writes the state as a stream of chunks, each one call of write and at
// most ChunkBytesMax bytes, which are valid until write returns. from is what
// Install.Token returned at the receiver: the stream begins with the chunk
// after it; empty: with the first. Nothing is held while write waits, but what
// the View holds itself.
//
// An error of write is returned as it is. Others are ErrToken, with nothing
// written; ErrViewGone; ErrClosed; ErrCorrupt, wrapped, for a record that does
// not decode; and what reading the disk returns. Without an error the stream
// has ended with its last chunk; before that the receiver never takes it for
// whole.
func (v *View) Export(write func(chunk []byte) error, from []byte) error {
	e := newExporter(v)
	if len(from) > 0 {
		if err := e.resume(from); err != nil {
			return err
		}
	}
	for !e.done {
		b, err := e.next()
		if err != nil {
			return err
		}
		if err := write(b); err != nil {
			return err
		}
	}
	return nil
}

// copyRecent makes the view independent of the memtables.
func (v *View) copyRecent() {
	for i, t := range v.tables {
		v.recent[i] = v.recent[i].Copy(appendShard(nil, v.shard))
		v.store.memtables.unpin(pinned{t}) // not both copies beside both memtables
	}
	v.tables = nil
}

// exporter cuts a view into chunks.
type exporter struct {
	view  *View
	state streamState
	rest  []byte // of the value that is not yet exported in full
	buf   []byte
	done  bool // the last chunk was made

	digests bool // session records with digests begin in buf
}

func newExporter(v *View) *exporter {
	return &exporter{view: v, state: streamState{hash: newStateHash(v.meta)}}
}

// resume goes on behind a token.
func (e *exporter) resume(token []byte) error {
	s, id, err := decodeToken(token, e.view.meta)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrToken, err)
	}
	if id != e.view.id {
		return fmt.Errorf("%w: it is of view %x, this is %x", ErrToken, id, e.view.id)
	}
	e.state = s
	if s.left == 0 {
		return nil
	}
	return e.findRest()
}

// findRest finds what is left of the last value.
func (e *exporter) findRest() error {
	found := false
	err := e.view.scan(e.state.key, func(key, value []byte) (bool, error) {
		if found = bytes.Equal(key, e.state.key) && len(value) == e.state.value; found {
			e.rest = bytes.Clone(value[len(value)-e.state.left:])
		}
		return false, nil
	})
	if err == nil && !found {
		err = fmt.Errorf("%w: it has no record at the token's position", ErrToken)
	}
	return err
}

// next returns the next chunk, valid until the next call. It holds an iterator
// no longer than that takes: a slow receiver must not keep files alive.
func (e *exporter) next() ([]byte, error) {
	if e.buf == nil {
		e.buf = make([]byte, 0, ChunkBytesMax)
	}
	e.buf = e.buf[:chunkHeaderBytes]
	e.digests = false
	e.addPart(e.rest)
	if len(e.rest) == 0 {
		if err := e.addRecords(); err != nil {
			return nil, e.view.store.damaged(e.view.shard, fmt.Errorf("storage: reading shard %d: %w", e.view.shard, err))
		}
	}
	e.done = len(e.buf) == chunkHeaderBytes
	c := chunk{
		last:     e.done,
		digests:  e.digests,
		shard:    e.view.shard,
		id:       e.view.id,
		sequence: e.state.sequence,
		meta:     e.view.meta,
		records:  e.state.records,
	}
	if e.done {
		c.sum = e.state.hash.finish()
	} else {
		c.sum = e.state.hash.sum()
	}
	e.state.sequence++
	return c.seal(e.buf), nil
}

func (e *exporter) room() int { return e.view.chunkBytes - crcBytes - len(e.buf) }

// addPart adds as much of a value as there is room for, and keeps the rest,
// which must not be a view of what is not the exporter's.
func (e *exporter) addPart(value []byte) {
	n := min(len(value), e.room())
	e.buf = append(e.buf, value[:n]...)
	e.state.add(value[:n])
	e.rest = value[n:]
}

// addRecords adds the records after the last one, until the next does not fit
// whole.
func (e *exporter) addRecords() error {
	var from []byte
	if e.state.key != nil {
		from = append(append(from, e.state.key...), 0) // the next key there can be
	}
	return e.view.scan(from, e.addRecord)
}

// addRecord adds a record, or as much of it as fits if the chunk is still
// empty, and reports whether there may be room for another.
func (e *exporter) addRecord(key, value []byte) (more bool, err error) {
	if err := checkRecordSize(key, uint64(len(value))); err != nil {
		return false, err
	}
	if fits := recordHeaderBytes(key, len(value))+len(value) <= e.room(); !fits {
		if len(e.buf) > chunkHeaderBytes {
			return false, nil
		}
		value = bytes.Clone(value)
	}
	if key[0] == kindSession && len(key) > sessionKeyBytes-shardBytes {
		e.digests = true
	}
	e.state.begin(key, len(value))
	e.buf = appendRecordHeader(e.buf, key, len(value))
	e.addPart(value)
	return len(e.rest) == 0, nil
}

// cursor returns a cursor on the shard's records with keys, without the
// shard's number, at or above from. The caller uses the view.
func (v *View) cursor(from []byte) (*cursor, error) {
	lower, upper := shardBounds(v.shard)
	lower = append(lower[:shardBytes], from...)
	it, err := v.snapshot.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return nil, err
	}
	c := &cursor{it: it, recent: memtable.NewIterator(v.recent, memtable.Rows, lower, upper, false)}
	// A snapshot of Pebble, unlike an iterator, sees what replaces a shard.
	if v.store.shards[v.shard].generation.Load() != v.generation {
		return nil, errors.Join(ErrViewGone, c.close())
	}
	return c, nil
}
