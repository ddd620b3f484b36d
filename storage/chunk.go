package storage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/bits"

	"github.com/proa-kv/proa/internal/fields"
)

// The stream of a snapshot is the records of a shard in the order of their
// keys, cut into chunks. It is the same for every replica of the shard at the
// same applied index, but for the number of the view. A chunk, little endian:
//
//	0  format, flags (1 each), shard (2)
//	4  length of the chunk (4)
//	8  number of the view (8)
//	16 number of the chunk, from 0 (8)
//	24 applied index, last stamp, revision of the shard (8 each)
//	48 records begun up to the end of the chunk (8)
//	56 checksum of the state up to the end of the chunk (8), see stateHash
//	64 records
//	   CRC32C of all before it (4)
//
// A record is the length of its key, the key without the shard's number, the
// length of its value (varints), the value. A value that finds no room goes on
// at the beginning of the next chunk. The last chunk has no records; its
// checksum is that of the whole state, as Checksum returns it.
const (
	// ChunkBytesMax bounds a chunk of Export.
	ChunkBytesMax = 256 << 10

	chunkFormat          = 1
	chunkFormatOfDigests = 2      // session records with digests are in it, which format 1 did not know
	chunkLast            = 1 << 0 // flag
	chunkHeaderBytes     = 64
	crcBytes             = 4

	// Longer keys and values than storage was ever given. The receiver holds
	// one value in memory.
	streamKeyBytesMax     = 1<<16 - 1 - shardBytes
	streamValueBytesMax   = 32 << 20
	streamSessionBytesMax = 1 << 20 // of a session record

	tokenFormat = 1
)

// Errors of snapshots.
var (
	// ErrChunk is wrapped by the errors of Install.Write for what is no chunk,
	// damaged, not of this snapshot, or not the next one. The installation is
	// as it was before; it goes on with what the sender exports from its Token.
	ErrChunk = errors.New("storage: snapshot chunk was refused")
	// ErrToken is wrapped by the error of View.Export for a token that is not
	// of this view. The transfer has to begin anew, with another installation.
	ErrToken = errors.New("storage: resume token does not belong to this snapshot")
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// streamState is how far a stream has got: what sender and receiver agree on
// between two chunks.
type streamState struct {
	sequence uint64 // of the next chunk
	records  uint64 // begun
	hash     stateHash
	key      []byte // of the record begun last, without the shard's number; nil: none
	value    int    // length of its value
	left     int    // of that, what the next chunk begins with
}

// begin goes on to the next record.
func (s *streamState) begin(key []byte, value int) {
	s.records++
	s.key = append(s.key[:0], key...)
	s.value, s.left = value, value
	s.hash.begin(key, value)
}

// add takes a part of the value.
func (s *streamState) add(part []byte) {
	s.left -= len(part)
	s.hash.write(part)
}

// clone returns a copy that shares nothing with s.
func (s *streamState) clone() streamState {
	c := *s
	c.key = bytes.Clone(s.key)
	return c
}

// chunk is a decoded chunk, or the frame of one to be sealed.
type chunk struct {
	last     bool
	digests  bool // session records have digests
	shard    int
	id       uint64
	sequence uint64
	meta     meta
	records  uint64
	sum      uint64
	payload  []byte // a view
}

// seal fills in the header of b, which has chunkHeaderBytes of room for it and
// the payload behind, and appends the CRC.
func (c *chunk) seal(b []byte) []byte {
	b[0], b[1] = chunkFormat, 0
	if c.digests {
		b[0] = chunkFormatOfDigests
	}
	if c.last {
		b[1] = chunkLast
	}
	le.PutUint16(b[2:], uint16(c.shard))
	le.PutUint32(b[4:], uint32(len(b)+crcBytes))
	le.PutUint64(b[8:], c.id)
	le.PutUint64(b[16:], c.sequence)
	le.PutUint64(b[24:], c.meta.applied)
	le.PutUint64(b[32:], c.meta.stamp)
	le.PutUint64(b[40:], c.meta.revision)
	le.PutUint64(b[48:], c.records)
	le.PutUint64(b[56:], c.sum)
	return le.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// decodeChunk decodes b, which must be one chunk. The payload is a view of b.
func decodeChunk(b []byte) (chunk, error) {
	switch {
	case len(b) < chunkHeaderBytes+crcBytes || len(b) > ChunkBytesMax:
		return chunk{}, fmt.Errorf("%d bytes, must be %d to %d", len(b), chunkHeaderBytes+crcBytes, ChunkBytesMax)
	case b[0] != chunkFormat && b[0] != chunkFormatOfDigests:
		return chunk{}, fmt.Errorf("unknown format %d; the sender may run a newer version", b[0])
	case int64(le.Uint32(b[4:])) != int64(len(b)):
		return chunk{}, fmt.Errorf("%d bytes, but its header says %d", len(b), le.Uint32(b[4:]))
	}
	body := b[:len(b)-crcBytes]
	if crc32.Checksum(body, castagnoli) != le.Uint32(b[len(body):]) {
		return chunk{}, errors.New("damaged in transit: CRC mismatch")
	}
	c := chunk{
		last:     b[1] == chunkLast,
		digests:  b[0] == chunkFormatOfDigests,
		shard:    int(le.Uint16(b[2:])),
		id:       le.Uint64(b[8:]),
		sequence: le.Uint64(b[16:]),
		meta:     meta{applied: le.Uint64(b[24:]), stamp: le.Uint64(b[32:]), revision: le.Uint64(b[40:])},
		records:  le.Uint64(b[48:]),
		sum:      le.Uint64(b[56:]),
		payload:  body[chunkHeaderBytes:],
	}
	if b[1]&^chunkLast != 0 || c.last != (len(c.payload) == 0) {
		return chunk{}, fmt.Errorf("flags 0x%02x with %d bytes of records", b[1], len(c.payload))
	}
	return c, nil
}

// advance moves s over the payload of the next chunk. visit is called for each
// part of a record: s.key and s.left are then as of after the part.
func (s *streamState) advance(payload []byte, visit func(part []byte) error) error {
	for rest := payload; len(rest) > 0; {
		if s.left == 0 {
			key, value, n, err := decodeRecordHeader(rest)
			if err != nil {
				return err
			}
			if bytes.Compare(key, s.key) <= 0 {
				return errors.New("records are not in key order")
			}
			s.begin(key, value)
			rest = rest[n:]
		}
		part := rest[:min(s.left, len(rest))]
		s.add(part)
		if err := visit(part); err != nil {
			return err
		}
		rest = rest[len(part):]
	}
	return nil
}

func appendRecordHeader(b, key []byte, value int) []byte {
	b = binary.AppendUvarint(b, uint64(len(key)))
	b = append(b, key...)
	return binary.AppendUvarint(b, uint64(value))
}

// recordHeaderBytes is what appendRecordHeader appends.
func recordHeaderBytes(key []byte, value int) int {
	return uvarintBytes(len(key)) + len(key) + uvarintBytes(value)
}

func uvarintBytes(n int) int { return (bits.Len(uint(n)|1) + 6) / 7 }

// decodeRecordHeader returns what appendRecordHeader was given, and its length.
// The key is a view of b.
func decodeRecordHeader(b []byte) (key []byte, value, n int, err error) {
	t := fields.Reader{B: b}
	key = t.Counted()
	length := t.Uvarint()
	if t.Short || len(key) == 0 {
		return nil, 0, 0, errors.New("truncated record")
	}
	if err := checkRecordSize(key, length); err != nil {
		return nil, 0, 0, err
	}
	return key, int(length), len(b) - len(t.B), nil
}

// checkRecordSize checks what a record of a stream must not exceed.
func checkRecordSize(key []byte, value uint64) error {
	limit := uint64(streamValueBytesMax)
	if key[0] == kindSession {
		limit = streamSessionBytesMax
	}
	if len(key) > streamKeyBytesMax || value > limit {
		return fmt.Errorf("record of kind %q with a key of %d and a value of %d bytes", key[0], len(key), value)
	}
	return nil
}

// A token is its format, the numbers of the view and of the next chunk, the
// number of records, the lengths of the last record's value and of what is left
// of it, the state of the checksum and the key, both with their length before
// them, and a CRC32C of all that. Lengths have four bytes, numbers eight, little
// endian.

// appendTo appends s as a token.
func (s *streamState) appendTo(b []byte, id uint64) []byte {
	start := len(b)
	b = append(b, tokenFormat)
	b = le.AppendUint64(b, id)
	b = le.AppendUint64(b, s.sequence)
	b = le.AppendUint64(b, s.records)
	b = le.AppendUint32(b, uint32(s.value))
	b = le.AppendUint32(b, uint32(s.left))
	digest, _ := s.hash.digest.MarshalBinary() // never fails
	b = appendParts(b, digest, s.key)
	return le.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
}

var errTokenFormat = errors.New("malformed, damaged, or of another version")

// decodeToken decodes a token of a stream that m belongs to.
func decodeToken(b []byte, m meta) (s streamState, id uint64, err error) {
	t, sound := checkSum(b, tokenFormat)
	id = t.U64()
	s = streamState{sequence: t.U64(), records: t.U64(), hash: newStateHash(m)}
	value, left := t.U32(), t.U32()
	digest, key := takePart(&t), takePart(&t)
	if !sound || t.Short || len(t.B) != 0 || left > value || s.hash.digest.UnmarshalBinary(digest) != nil {
		return streamState{}, 0, errTokenFormat
	}
	if len(key) > 0 {
		if checkRecordSize(key, uint64(value)) != nil {
			return streamState{}, 0, errTokenFormat
		}
		s.key = bytes.Clone(key)
		s.hash.met = key[0] > kindMeta
	} else if value != 0 || s.records != 0 {
		return streamState{}, 0, errTokenFormat
	}
	s.value, s.left = int(value), int(left)
	return s, id, nil
}

// checkSum returns a reader of what is between the format and the CRC of b, and
// whether both are right.
func checkSum(b []byte, format byte) (r fields.Reader, sound bool) {
	if len(b) < 1+crcBytes || b[0] != format {
		return r, false
	}
	body := b[:len(b)-crcBytes]
	return fields.Reader{B: body[1:]}, crc32.Checksum(body, castagnoli) == le.Uint32(b[len(body):])
}

// appendParts appends parts with their length before them.
func appendParts(b []byte, parts ...[]byte) []byte {
	for _, part := range parts {
		b = le.AppendUint32(b, uint32(len(part)))
		b = append(b, part...)
	}
	return b
}

// takePart takes bytes with their length before them.
func takePart(r *fields.Reader) []byte { return r.Bytes(int(r.U32())) }
