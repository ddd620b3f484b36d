package storage

import (
	"context"
	"fmt"

	"github.com/cespare/xxhash/v2"
)

// Checksum returns a checksum of everything that shard's entries have made,
// and the applied index that it stands for: rows, expiry index, session
// records but for their digests, last stamp and revision, in the order of their
// keys. Replicas of a
// shard at the same applied index have the same checksum, however their files
// are laid out and whether they came to it by entries or by a snapshot (A1). It
// makes what was applied durable and reads the whole shard, from disk where need
// be; Apply goes on meanwhile. After a fatal error it fails with ErrFailed
// unless everything was durable.
func (s *Store) Checksum(shard int) (sum uint64, applied uint64, err error) {
	if err := s.enter(); err != nil {
		return 0, 0, err
	}
	defer s.leave()
	if shard < 0 || shard >= len(s.shards) {
		return 0, 0, fmt.Errorf("storage: checksum of shard %d of %d", shard, len(s.shards))
	}
	if err := s.flushAll(); err != nil {
		return 0, 0, err
	}
	v, err := s.OpenView(shard)
	if err != nil {
		return 0, 0, err
	}
	defer v.Close()
	sum, err = v.Checksum(context.Background())
	return sum, v.Applied(), err
}

// stateHash is the checksum of a shard's state while it is computed: of its
// records in the order of their keys, and of stamp and revision where the
// shard's state has its place among them. The shard's number is left out, and
// so is the applied index, which entries without effect move. It may be copied.
type stateHash struct {
	digest xxhash.Digest
	meta   meta // to be known before the first session record
	met    bool // meta is in the digest
	buf    [8]byte
}

func newStateHash(m meta) stateHash {
	h := stateHash{meta: m}
	h.digest.Reset()
	return h
}

// begin adds the key of the next record, without the shard's number, and the
// length of its value, which follows by write, in as many parts as it comes. The
// digest in the key of a session record is left out: replicas that run an older
// version have none, and it changes no state.
func (h *stateHash) begin(key []byte, valueBytes int) {
	if key[0] > kindMeta {
		h.addMeta()
	}
	if key[0] == kindSession {
		key = key[:min(len(key), sessionKeyBytes-shardBytes)]
	}
	h.number(uint64(len(key)))
	h.write(key)
	h.number(uint64(valueBytes))
}

func (h *stateHash) addMeta() {
	if !h.met {
		h.met = true
		h.number(h.meta.stamp)
		h.number(h.meta.revision)
	}
}

func (h *stateHash) number(n uint64) {
	le.PutUint64(h.buf[:], n)
	h.write(h.buf[:])
}

func (h *stateHash) write(b []byte) { _, _ = h.digest.Write(b) } // never fails

// sum returns the checksum of what was added so far.
func (h *stateHash) sum() uint64 { return h.digest.Sum64() }

// finish returns the checksum when all records were added.
func (h *stateHash) finish() uint64 {
	h.addMeta()
	return h.sum()
}
