package storage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/bytedance/gopkg/util/xxhash3"
	"github.com/cockroachdb/pebble/v2"

	"github.com/proa-kv/proa/command"
)

// The layout of the database. Every key begins with its shard (two bytes, big
// endian) and a kind, so that a shard is one contiguous range:
//
//	shard 'd' key                    a row
//	shard 'e' expire-at(8 BE) key    expiry index: the row may expire then
//	shard 'g' hash(2 BE)             when a row of this hash was removed last, see marks.go
//	shard 'i'                        what the last installation said; this node's
//	shard 'l'                        the shard was given up (see GiveUp), and has no other record; this node's
//	shard 'm'                        applied index, last stamp, revision
//	shard 's' session(8 BE) seq(8 BE) digest(8 BE)
//	                                 result of a session's write, and what was
//	                                 asked for (command.Reader.Digest); the
//	                                 digest is missing in records of versions
//	                                 before it was kept
//
//	0xffff 'n'                    whom the database belongs to, see Owner
//
// Values begin with a format byte, then fixed-width little-endian fields.
// Expiry index entries have no value.
const (
	kindData    = 'd'
	kindExpiry  = 'e'
	kindMark    = 'g'
	kindInstall = 'i'
	kindLost    = 'l'
	kindMeta    = 'm'
	kindSession = 's'

	shardBytes      = 2
	prefixBytes     = 3
	expiryKeyBytes  = prefixBytes + 8  // and the row's key
	sessionKeyBytes = prefixBytes + 16 // without the digest
	digestBytes     = 8

	rowFormat      = 1
	rowHeaderBytes = 1 + 8 + 8 // format, version, expire-at
	metaFormat     = 1
	metaBytes      = 1 + 8 + 8 + 8 // format, applied, stamp, revision

	lostFormat = 1 // all that the record has

	installFormat      = 1
	installHeaderBytes = 1 + 8 + 8 // format, index, term; then the configuration

	// ShardsMax bounds Options.Shards: a shard's number has two bytes, and the
	// last one is kept free so that every shard has an exclusive upper bound.
	ShardsMax = 1<<16 - 1
)

var le = binary.LittleEndian

// ErrFiles means that files without which the database cannot be opened are
// missing, are not as long as they were, or hold something else.
var ErrFiles = errors.New("files of the database are missing, cut or damaged")

// ErrOptionsFile means that Pebble's record of its options is damaged. It holds no
// data, and Pebble does without.
var ErrOptionsFile = errors.New("the database's record of its options is damaged")

// ErrCorrupt means that the database holds something that this package never
// wrote, or wrote in a later version.
var ErrCorrupt = errors.New("storage: corrupt or unknown record")

func putPrefix(dst []byte, shard int, kind byte) {
	binary.BigEndian.PutUint16(dst, uint16(shard))
	dst[2] = kind
}

func appendPrefix(dst []byte, shard int, kind byte) []byte {
	return append(dst, byte(shard>>8), byte(shard), kind)
}

func appendShard(dst []byte, shard int) []byte { return append(dst, byte(shard>>8), byte(shard)) }

// shardBounds returns the range of all keys of shard.
func shardBounds(shard int) (lower, upper []byte) {
	return appendPrefix(nil, shard, 0), appendPrefix(nil, shard+1, 0)
}

func appendDataKey(dst []byte, shard int, key []byte) []byte {
	return append(appendPrefix(dst, shard, kindData), key...)
}

func appendExpiryBound(dst []byte, shard int, at uint64) []byte {
	return binary.BigEndian.AppendUint64(appendPrefix(dst, shard, kindExpiry), at)
}

// appendSessionKey appends the key of a record, as older versions wrote it
// where digest is 0.
func appendSessionKey(dst []byte, shard int, id, sequence, digest uint64) []byte {
	dst = binary.BigEndian.AppendUint64(appendPrefix(dst, shard, kindSession), id)
	dst = binary.BigEndian.AppendUint64(dst, sequence)
	if digest == 0 {
		return dst
	}
	return binary.BigEndian.AppendUint64(dst, digest)
}

func splitSessionKey(key []byte) (id, sequence, digest uint64, err error) {
	switch len(key) {
	case sessionKeyBytes:
	case sessionKeyBytes + digestBytes:
		digest = binary.BigEndian.Uint64(key[sessionKeyBytes:])
	}
	if len(key) != sessionKeyBytes && digest == 0 {
		return 0, 0, 0, fmt.Errorf("%w: session key of %d bytes", ErrCorrupt, len(key))
	}
	return binary.BigEndian.Uint64(key[prefixBytes:]), binary.BigEndian.Uint64(key[prefixBytes+8:]), digest, nil
}

func putRowHeader(dst []byte, version, expireAt uint64) {
	dst[0] = rowFormat
	le.PutUint64(dst[1:], version)
	le.PutUint64(dst[9:], expireAt)
}

// decodeRow splits a row's record. The value is a view into b.
func decodeRow(b []byte) (version, expireAt uint64, value []byte, err error) {
	if len(b) < rowHeaderBytes || b[0] != rowFormat {
		return 0, 0, nil, fmt.Errorf("%w: row of %d bytes", ErrCorrupt, len(b))
	}
	return le.Uint64(b[1:]), le.Uint64(b[9:]), b[rowHeaderBytes:], nil
}

// meta is what a shard keeps beside its rows.
type meta struct {
	applied  uint64 // index of the last entry applied
	stamp    uint64 // highest stamp applied, Unix milliseconds
	revision uint64 // version given last
}

func (m meta) put(dst []byte) {
	dst[0] = metaFormat
	le.PutUint64(dst[1:], m.applied)
	le.PutUint64(dst[9:], m.stamp)
	le.PutUint64(dst[17:], m.revision)
}

func decodeMeta(b []byte) (meta, error) {
	if len(b) != metaBytes || b[0] != metaFormat {
		return meta{}, fmt.Errorf("%w: shard state of %d bytes", ErrCorrupt, len(b))
	}
	return meta{
		applied:  le.Uint64(b[1:]),
		stamp:    le.Uint64(b[9:]),
		revision: le.Uint64(b[17:]),
	}, nil
}

// appendInstallMeta appends the record of an installation.
func appendInstallMeta(dst []byte, m InstallMeta) []byte {
	dst = append(dst, installFormat)
	dst = le.AppendUint64(dst, m.Index)
	dst = le.AppendUint64(dst, m.Term)
	return append(dst, m.Conf...)
}

// decodeInstallMeta decodes the record of an installation. Conf is a copy.
func decodeInstallMeta(b []byte) (InstallMeta, error) {
	if len(b) < installHeaderBytes || len(b) > installHeaderBytes+ConfBytesMax || b[0] != installFormat {
		return InstallMeta{}, fmt.Errorf("%w: installation record of %d bytes", ErrCorrupt, len(b))
	}
	m := InstallMeta{
		Index: le.Uint64(b[1:]),
		Term:  le.Uint64(b[9:]),
		Conf:  bytes.Clone(b[installHeaderBytes:]),
	}
	if m.Index == 0 {
		return InstallMeta{}, fmt.Errorf("%w: installation at index 0", ErrCorrupt)
	}
	return m, nil
}

// visible reports whether a row that expires at expireAt (0: never) exists at
// now. At the very millisecond of its expiry it is gone.
func visible(expireAt, now uint64) bool { return expireAt == 0 || expireAt > now }

// rowAt is what is known of a visible row at now, beside its value.
func rowAt(now, version, expireAt uint64, valueBytes int) command.Row {
	return command.Row{Version: version, TTLMillis: ttlLeft(expireAt, now), ExpireAtMillis: expireAt, ValueBytes: uint32(valueBytes)}
}

// ttlLeft is the time to live that a visible row has left, 0 if it does not
// expire.
func ttlLeft(expireAt, now uint64) uint64 {
	if expireAt == 0 {
		return 0
	}
	return expireAt - now
}

// hashKey is the hash that finds a row in a row set, in the row cache and
// in a memtable.
// The shard goes in as well: the multiplier spreads it over all bits.
func hashKey(shard int, key []byte) uint64 {
	return xxhash3.Hash(key) ^ uint64(shard)*0x9e3779b97f4a7c15
}

// hashRecord is the hash that finds another record in a memtable. key
// is the record's in the database.
func hashRecord(key []byte) uint64 { return xxhash3.Hash(key) }

// readRecord returns a copy of the record of key, nil if there is none.
func readRecord(r pebble.Reader, key []byte) ([]byte, error) {
	v, closer, err := r.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return bytes.Clone(v), closer.Close()
}

// readMeta returns the state of shard beside its records, zero if it has none.
func readMeta(r pebble.Reader, shard int) (meta, error) {
	v, err := readRecord(r, appendPrefix(nil, shard, kindMeta))
	if err != nil || v == nil {
		return meta{}, err
	}
	return decodeMeta(v)
}

// readLost reports whether shard was given up.
func readLost(r pebble.Reader, shard int) (bool, error) {
	v, err := readRecord(r, appendPrefix(nil, shard, kindLost))
	return v != nil, err
}

// readInstallMeta returns the record of shard's last installation, nil if
// there is none.
func readInstallMeta(r pebble.Reader, shard int) (*InstallMeta, error) {
	v, err := readRecord(r, appendPrefix(nil, shard, kindInstall))
	if err != nil || v == nil {
		return nil, err
	}
	m, err := decodeInstallMeta(v)
	return &m, err
}

// readMarked returns what shardState.marked is.
func readMarked(r pebble.Reader, shard int) (marked uint64, err error) {
	var key [markKeyBytes]byte
	putMarkKey(key[:], shard, markedSince)
	v, err := readRecord(r, key[:])
	if err != nil || v == nil {
		return 0, err
	}
	_, since, err := decodeMark(key[:], v)
	return since + 1, err
}
