package storage

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cespare/xxhash/v2"
	"github.com/cockroachdb/pebble/v2"
)

// Checksum returns a checksum of everything that shard's entries have made,
// and the applied index that it stands for: rows, expiry index, session
// records, last stamp and revision, in the order of their keys. Replicas of a
// shard at the same applied index have the same checksum, however their files
// are laid out (A1). It has what was applied written to Pebble and reads the
// whole shard, from disk where need be; Apply goes on meanwhile. After a fatal
// error it fails with ErrFailed unless Pebble had everything.
func (s *Store) Checksum(shard int) (sum uint64, applied uint64, err error) {
	if err := s.enter(); err != nil {
		return 0, 0, err
	}
	defer s.leave()
	if shard < 0 || shard >= len(s.shards) {
		return 0, 0, fmt.Errorf("storage: checksum of shard %d of %d", shard, len(s.shards))
	}
	if err := s.drain(); err != nil {
		return 0, 0, err
	}
	it, err := s.db.NewIter(&pebble.IterOptions{
		LowerBound: appendPrefix(nil, shard, 0),
		UpperBound: appendPrefix(nil, shard+1, 0),
	})
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	h := shardHash{digest: xxhash.New()}
	for it.First(); it.Valid(); it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return 0, 0, err
		}
		key := it.Key()[2:] // without the shard's number
		if key[0] == kindMeta {
			m, err := decodeMeta(value)
			if err != nil {
				return 0, 0, err
			}
			applied = m.applied
			h.number(m.stamp)
			h.number(m.revision)
			continue
		}
		h.bytes(key)
		h.bytes(value)
	}
	return h.digest.Sum64(), applied, it.Error()
}

// shardHash hashes items so that their borders count.
type shardHash struct {
	digest *xxhash.Digest
	buf    [8]byte
}

func (h *shardHash) number(n uint64) {
	binary.LittleEndian.PutUint64(h.buf[:], n)
	_, _ = h.digest.Write(h.buf[:]) // never fails
}

func (h *shardHash) bytes(b []byte) {
	h.number(uint64(len(b)))
	_, _ = h.digest.Write(b)
}
