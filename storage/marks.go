package storage

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/storage/memtable"
)

// Marks of what is gone.
//
// An absent row has no version, so that a row which came and went between two
// looks leaves nothing to tell them apart by. A shard keeps marks for that: for
// each of markBuckets hashes of keys, the revision at which a row of that hash
// was removed last. A row that is absent, and was at revision R, has been ever
// since if no mark of its hash is above R, and no record of it that has expired
// has a version above R. Another key of the same hash can make that look false,
// never true.
//
// Marks are kept from the shard's first Watch on, and are part of its state like
// rows: what entries from before leave behind stays what it was, on all replicas.

const (
	markBuckets  = 1 << 12
	markedSince  = 1<<16 - 1 // in place of a bucket: marks are kept since the revision there
	markKeyBytes = prefixBytes + 2

	markFormat = 1
	markBytes  = 1 + 8 // format, revision
)

// markBucket is the bucket of the key with this hash.
func markBucket(hash uint64) uint16 { return uint16(hash>>40) % markBuckets }

func putMarkKey(dst []byte, shard int, bucket uint16) {
	putPrefix(dst, shard, kindMark)
	binary.BigEndian.PutUint16(dst[prefixBytes:], bucket)
}

func decodeMark(key, value []byte) (bucket uint16, revision uint64, err error) {
	if len(key) != markKeyBytes || len(value) != markBytes || value[0] != markFormat {
		return 0, 0, fmt.Errorf("%w: mark of %d and %d bytes", ErrCorrupt, len(key), len(value))
	}
	bucket = binary.BigEndian.Uint16(key[prefixBytes:])
	if bucket >= markBuckets && bucket != markedSince {
		return 0, 0, fmt.Errorf("%w: mark %d", ErrCorrupt, bucket)
	}
	return bucket, le.Uint64(value[1:]), nil
}

// removalMark names a mark within a write batch.
type removalMark struct{ shard, bucket uint16 }

// mark sets a mark to the shard's revision.
func (ex *executor) mark(bucket uint16) {
	m := removalMark{uint16(ex.shard), bucket}
	if ex.marks == nil {
		ex.marks = map[removalMark]uint64{}
	}
	if revision, ok := ex.marks[m]; ok && revision == ex.state.revision {
		return
	}
	ex.marks[m] = ex.state.revision
	b := ex.bytes.alloc(markKeyBytes + markBytes)
	key, value := b[:markKeyBytes:markKeyBytes], b[markKeyBytes:]
	putMarkKey(key, ex.shard, bucket)
	value[0] = markFormat
	le.PutUint64(value[1:], ex.state.revision)
	ex.stage(memtable.Marks, key, value)
}

// noteMark takes over a mark that the write batch has staged.
func (b *writeBatch) noteMark(key, value []byte) {
	bucket, revision, err := decodeMark(key, value)
	if err == nil { // the write batch has made it
		b.marks[removalMark{binary.BigEndian.Uint16(key), bucket}] = revision
	}
}

// went marks that the row with this hash is gone, if marks are kept.
func (ex *executor) went(hash uint64) {
	if ex.state.marked != 0 {
		ex.mark(markBucket(hash))
	}
}

// markOf returns the mark of the row with this hash, 0 where there is none.
func (ex *executor) markOf(hash uint64) (revision uint64, err error) {
	bucket := markBucket(hash)
	if revision, ok := ex.marks[removalMark{uint16(ex.shard), bucket}]; ok {
		return revision, nil
	}
	var key [markKeyBytes]byte
	putMarkKey(key[:], ex.shard, bucket)
	record, found, closer, err := ex.stored(hashRecord(key[:]), key[:])
	if err != nil || !found {
		return 0, err
	}
	_, revision, err = decodeMark(key[:], record)
	return revision, errors.Join(err, closer.Close())
}

// watch carries out a Watch.
func (ex *executor) watch(c *command.Command, out *command.Result) error {
	r := ex.find(c.Key)
	if err := ex.load(r, false); err != nil {
		return err
	}
	if ex.state.marked == 0 {
		ex.state.marked = ex.state.revision + 1
		ex.mark(markedSince)
	}
	out.Integer = int64(ex.state.revision)
	if r.visible(ex.now) {
		out.Version = r.version
	}
	return nil
}

// absentSince reports whether the row of key is absent and has been since
// revision.
func (ex *executor) absentSince(key []byte, revision uint64) (bool, error) {
	r := ex.find(key)
	if err := ex.load(r, false); err != nil {
		return false, err
	}
	switch {
	case r.exists && (r.visible(ex.now) || r.version > revision):
		return false, nil
	case ex.state.marked == 0 || ex.state.marked-1 > revision:
		return false, nil // nobody knows
	}
	last, err := ex.markOf(r.hash)
	return last <= revision, err
}
