package storage

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/storage/memtable"
)

// Marks of what is gone.
//
// An absent row has no version, so that a row which came and went between two
// looks leaves nothing to tell them apart by. A shard keeps marks for that: for
// each of goneBuckets hashes of keys, the revision at which a row of that hash
// was removed last. A row that is absent, and was at revision R, has been ever
// since if no mark of its hash is above R, and no record of it that has expired
// has a version above R. Another key of the same hash can make that look false,
// never true.
//
// Marks are kept from the shard's first Watch on, and are part of its state like
// rows: what entries from before leave behind stays what it was, on all replicas.

const (
	goneBuckets  = 1 << 12
	goneSince    = 1<<16 - 1 // in place of a bucket: marks are kept since the revision there
	goneKeyBytes = prefixBytes + 2

	goneFormat = 1
	goneBytes  = 1 + 8 // format, revision
)

// goneBucket is the bucket of the key with this hash.
func goneBucket(hash uint64) uint16 { return uint16(hash>>40) % goneBuckets }

func putGoneKey(dst []byte, shard int, bucket uint16) {
	putPrefix(dst, shard, kindGone)
	binary.BigEndian.PutUint16(dst[prefixBytes:], bucket)
}

func decodeGone(key, value []byte) (bucket uint16, revision uint64, err error) {
	if len(key) != goneKeyBytes || len(value) != goneBytes || value[0] != goneFormat {
		return 0, 0, fmt.Errorf("%w: mark of %d and %d bytes", ErrCorrupt, len(key), len(value))
	}
	bucket = binary.BigEndian.Uint16(key[prefixBytes:])
	if bucket >= goneBuckets && bucket != goneSince {
		return 0, 0, fmt.Errorf("%w: mark %d", ErrCorrupt, bucket)
	}
	return bucket, binary.LittleEndian.Uint64(value[1:]), nil
}

// readMarked returns what shardState.marked is.
func readMarked(r pebble.Reader, shard int) (marked uint64, err error) {
	var key [goneKeyBytes]byte
	putGoneKey(key[:], shard, goneSince)
	v, closer, err := r.Get(key[:])
	if errors.Is(err, pebble.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("storage: read the deletion marks of shard %d: %w", shard, err)
	}
	_, since, err := decodeGone(key[:], v)
	return since + 1, errors.Join(err, closer.Close())
}

// goneMark names a mark within a pass.
type goneMark struct{ shard, bucket uint16 }

// mark sets a mark to the shard's revision.
func (p *pass) mark(bucket uint16) {
	m := goneMark{uint16(p.shard), bucket}
	if p.gone == nil {
		p.gone = map[goneMark]uint64{}
	}
	if revision, ok := p.gone[m]; ok && revision == p.state.revision {
		return
	}
	p.gone[m] = p.state.revision
	b := p.bytes.alloc(goneKeyBytes + goneBytes)
	key, value := b[:goneKeyBytes:goneKeyBytes], b[goneKeyBytes:]
	putGoneKey(key, p.shard, bucket)
	value[0] = goneFormat
	binary.LittleEndian.PutUint64(value[1:], p.state.revision)
	p.stage(memtable.Marks, key, value)
}

// noteMark takes over a mark that the pass has staged.
func (p *pass) noteMark(key, value []byte) {
	bucket, revision, err := decodeGone(key, value)
	if err == nil { // the pass has made it
		p.gone[goneMark{binary.BigEndian.Uint16(key), bucket}] = revision
	}
}

// went marks that the row with this hash is gone, if marks are kept.
func (p *pass) went(hash uint64) {
	if p.state.marked != 0 {
		p.mark(goneBucket(hash))
	}
}

// goneAt returns the mark of the row with this hash, 0 where there is none.
func (p *pass) goneAt(hash uint64) (revision uint64, err error) {
	bucket := goneBucket(hash)
	if revision, ok := p.gone[goneMark{uint16(p.shard), bucket}]; ok {
		return revision, nil
	}
	var key [goneKeyBytes]byte
	putGoneKey(key[:], p.shard, bucket)
	record, found, closer, err := p.stored(hashRecord(key[:]), key[:])
	if err != nil || !found {
		return 0, err
	}
	_, revision, err = decodeGone(key[:], record)
	return revision, errors.Join(err, closer.Close())
}

// watch carries out a Watch.
func (p *pass) watch(c *command.Command, out *command.Result) error {
	r := p.find(c.Key)
	if err := p.load(r, false); err != nil {
		return err
	}
	if p.state.marked == 0 {
		p.state.marked = p.state.revision + 1
		p.mark(goneSince)
	}
	out.Integer = int64(p.state.revision)
	if p.visible(r) {
		out.Version = r.version
	}
	return nil
}

// absentSince reports whether the row of key is absent and has been since
// revision.
func (p *pass) absentSince(key []byte, revision uint64) (bool, error) {
	r := p.find(key)
	if err := p.load(r, false); err != nil {
		return false, err
	}
	switch {
	case r.exists && (p.visible(r) || r.version > revision):
		return false, nil
	case p.state.marked == 0 || p.state.marked-1 > revision:
		return false, nil // nobody knows
	}
	last, err := p.goneAt(r.hash)
	return last <= revision, err
}
