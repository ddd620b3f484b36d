package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"

	"go.etcd.io/raft/v3/raftpb"
)

// Layout of a segment file. All integers are little-endian; the sizes and
// places of the fields are fixed by format_test.go.
//
//	block 0         segment header, the rest zero
//	block 1 ...     runs, each from the start of a block, padded with zeros to
//	                the end of its last block
//	rest            zeros, or what the file held in an earlier life
//
// A run is a header and a payload of records. Its checksum covers both. The
// header repeats the segment's sequence number and its salt, a random number
// drawn anew each time a file becomes a segment: bytes of an earlier life can
// not be taken for a run, and neither can bytes a client stored as a value.
const (
	// BlockBytes is the unit in which runs are laid out. It is the size of a
	// page and of the sectors of current disks, so that a write never touches
	// a page or a sector that holds an earlier run, and the kernel never reads
	// a page in order to change a part of it.
	BlockBytes = 4096

	// RunBytesMax bounds the records of one Save.
	RunBytesMax = 1 << 30

	// SegmentBytesMin and SegmentBytesMax bound Options.SegmentBytes. Together
	// with RunBytesMax the upper one keeps offsets below 2^32.
	SegmentBytesMin = 4 * BlockBytes
	SegmentBytesMax = 1 << 30

	formatVersion = 1

	segmentMagic       = 0x3167_6553_616f_7250 // "ProaSeg1"
	segmentHeaderBytes = 40

	runMagic       = 0x6e75_5250 // "PRun"
	runHeaderBytes = 48

	// flagCheckpoint marks the first run of a segment. It holds all that must
	// be known about every group when the segments before are gone.
	flagCheckpoint = 1
)

var (
	le         = binary.LittleEndian
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

func checksum(p []byte) uint32 { return crc32.Checksum(p, castagnoli) }

// blocks rounds n bytes up to whole blocks.
func blocks(n int64) int64 { return (n + BlockBytes - 1) &^ (BlockBytes - 1) }

// segmentHeader is what block 0 of a segment says.
type segmentHeader struct {
	seq  uint64 // place of the segment in the log, from 1
	salt uint64
	size int64 // bytes of the file when it was prepared; it may have grown since
}

func (h segmentHeader) encode(dst []byte) {
	le.PutUint64(dst[0:], segmentMagic)
	le.PutUint16(dst[8:], formatVersion)
	le.PutUint16(dst[10:], 0)
	le.PutUint64(dst[12:], h.seq)
	le.PutUint64(dst[20:], h.salt)
	le.PutUint64(dst[28:], uint64(h.size))
	le.PutUint32(dst[36:], checksum(dst[:36]))
}

var (
	errMagic    = errors.New("no segment header")
	errChecksum = errors.New("checksum mismatch")
)

// decodeSegmentHeader reads p, which has at least segmentHeaderBytes.
func decodeSegmentHeader(p []byte) (segmentHeader, error) {
	if le.Uint64(p) != segmentMagic {
		return segmentHeader{}, errMagic
	}
	if v := le.Uint16(p[8:]); v != formatVersion {
		return segmentHeader{}, fmt.Errorf("%w: %d, supported is %d", ErrVersion, v, formatVersion)
	}
	if le.Uint32(p[36:]) != checksum(p[:36]) {
		return segmentHeader{}, errChecksum
	}
	h := segmentHeader{seq: le.Uint64(p[12:]), salt: le.Uint64(p[20:]), size: int64(le.Uint64(p[28:]))}
	if h.seq == 0 || h.size < SegmentBytesMin || h.size > SegmentBytesMax || h.size%BlockBytes != 0 {
		return segmentHeader{}, errors.New("segment header out of range")
	}
	return h, nil
}

// runHeader precedes the payload of a run.
type runHeader struct {
	flags   uint16
	seq     uint64 // of the segment
	salt    uint64 // of the segment
	run     uint64 // number of the run in the log, from 1, without gaps
	durable uint64 // every run up to this one was synced before this one was written
	payload uint32 // bytes
}

// sealRun fills in the header at the front of buf, whose rest is the payload.
func (h runHeader) sealRun(buf []byte) {
	h.payload = uint32(len(buf) - runHeaderBytes)
	le.PutUint32(buf[0:], runMagic)
	le.PutUint16(buf[4:], formatVersion)
	le.PutUint16(buf[6:], h.flags)
	le.PutUint64(buf[8:], h.seq)
	le.PutUint64(buf[16:], h.salt)
	le.PutUint64(buf[24:], h.run)
	le.PutUint64(buf[32:], h.durable)
	le.PutUint32(buf[40:], h.payload)
	crc := checksum(buf[:44])
	le.PutUint32(buf[44:], crc32.Update(crc, castagnoli, buf[runHeaderBytes:]))
}

// decodeRunHeader reads p, which has at least runHeaderBytes. ok says that the
// bytes claim to be a run of this segment; only runIntact proves it.
func decodeRunHeader(p []byte, s segmentHeader) (h runHeader, ok bool) {
	h = runHeader{
		flags:   le.Uint16(p[6:]),
		seq:     le.Uint64(p[8:]),
		salt:    le.Uint64(p[16:]),
		run:     le.Uint64(p[24:]),
		durable: le.Uint64(p[32:]),
		payload: le.Uint32(p[40:]),
	}
	ok = le.Uint32(p) == runMagic && h.seq == s.seq && h.salt == s.salt
	return h, ok
}

// runIntact reports whether p, a whole run with its payload, is what sealRun
// made.
func runIntact(p []byte) bool {
	return le.Uint16(p[4:]) == formatVersion &&
		crc32.Update(checksum(p[:44]), castagnoli, p[runHeaderBytes:]) == le.Uint32(p[44:])
}

// The kinds of records. A record's meaning does not depend on what the reader
// already knows of the group, so that replay may begin at any checkpoint.
// Entries, starts and truncations that lie before the start of the log say
// nothing. Version 1 has all of these kinds; another kind needs another version.
const (
	kindEntries    = 1 // group, first index, count, then per entry: term, type, length, data
	kindHardState  = 2 // group, term, vote, commit
	kindStart      = 3 // group, index, term, reset
	kindConfState  = 4 // group, length, protobuf
	kindTruncate   = 5 // group, index, term
	kindCheckpoint = 6 // group, start index, start term, last index, hard state, conf state (length+1, or 0)
	kindRemove     = 7 // group
	kindMetadata   = 8 // group, length, data; in a checkpoint after the group's, where it has any
)

// mark is a point in a group's log.
type mark struct{ index, term uint64 }

// hardState is raftpb.HardState by value; all zero means that there is none.
type hardState struct{ term, vote, commit uint64 }

func appendUvarints(dst []byte, vs ...uint64) []byte {
	for _, v := range vs {
		dst = binary.AppendUvarint(dst, v)
	}
	return dst
}

func appendEntriesHeader(dst []byte, group, first uint64, count int) []byte {
	return appendUvarints(append(dst, kindEntries), group, first, uint64(count))
}

// appendEntry appends one entry after an entries header. The data are the last
// bytes of the result.
func appendEntry(dst []byte, term uint64, typ raftpb.EntryType, data []byte) []byte {
	dst = binary.AppendUvarint(dst, term)
	dst = append(dst, byte(typ))
	dst = binary.AppendUvarint(dst, uint64(len(data)))
	return append(dst, data...)
}

func appendHardState(dst []byte, group uint64, hs hardState) []byte {
	return appendUvarints(append(dst, kindHardState), group, hs.term, hs.vote, hs.commit)
}

func appendStart(dst []byte, group uint64, m mark, reset bool) []byte {
	flag := uint64(0)
	if reset {
		flag = 1
	}
	return appendUvarints(append(dst, kindStart), group, m.index, m.term, flag)
}

func appendConfState(dst []byte, group uint64, conf []byte) []byte {
	dst = appendUvarints(append(dst, kindConfState), group, uint64(len(conf)))
	return append(dst, conf...)
}

// truncateBytesMax bounds what appendTruncate appends.
const truncateBytesMax = 1 + 3*binary.MaxVarintLen64

func appendTruncate(dst []byte, group uint64, m mark) []byte {
	return appendUvarints(append(dst, kindTruncate), group, m.index, m.term)
}

func appendCheckpoint(dst []byte, group uint64, start mark, last uint64, hs hardState, conf []byte) []byte {
	dst = appendUvarints(append(dst, kindCheckpoint), group, start.index, start.term, last, hs.term, hs.vote, hs.commit)
	if conf == nil {
		return append(dst, 0)
	}
	dst = binary.AppendUvarint(dst, uint64(len(conf))+1)
	return append(dst, conf...)
}

func appendRemove(dst []byte, group uint64) []byte {
	return appendUvarints(append(dst, kindRemove), group)
}

func appendMetadata(dst []byte, group uint64, data []byte) []byte {
	dst = appendUvarints(append(dst, kindMetadata), group, uint64(len(data)))
	return append(dst, data...)
}

// record is one decoded record; an entries record yields one per entry.
type record struct {
	kind  byte
	group uint64
	mark  mark // of the entry, the start or the truncation
	reset bool
	last  uint64 // checkpoint: last index of the group's log
	hs    hardState

	typ    raftpb.EntryType
	data   []byte // entry data, conf state or metadata; a view into the payload. nil where a checkpoint has no conf state
	offset int    // of data in the payload
}

var errRecord = errors.New("malformed record")

// decoder reads the records of a payload. It never allocates in proportion to
// a length it has read.
type decoder struct {
	buf []byte
	pos int
	bad bool

	group, index, left uint64 // the entries record being read
}

// next returns the next record, or false at the end. After errRecord the
// decoder is of no further use.
func (d *decoder) next() (record, bool, error) {
	if d.left > 0 {
		return d.entry()
	}
	if d.pos == len(d.buf) {
		return record{}, false, nil
	}
	kind := d.byte()
	r := record{kind: kind, group: d.uvarint()}
	switch kind {
	case kindEntries:
		d.group, d.index, d.left = r.group, d.uvarint(), d.uvarint()
		// Each entry takes three bytes at least. An index runs up to, not
		// over, the last uint64.
		if d.bad || d.left == 0 || d.index == 0 || d.left > uint64(len(d.buf)-d.pos)/3 || d.index > math.MaxUint64-d.left {
			return record{}, false, errRecord
		}
		return d.entry()
	case kindHardState:
		r.hs = d.hardState()
	case kindStart:
		r.mark = mark{d.uvarint(), d.uvarint()}
		b := d.byte()
		r.reset, d.bad = b == 1, d.bad || b > 1
	case kindConfState, kindMetadata:
		r.offset, r.data = d.bytes(d.uvarint())
	case kindTruncate:
		r.mark = mark{d.uvarint(), d.uvarint()}
	case kindCheckpoint:
		r.mark = mark{d.uvarint(), d.uvarint()}
		r.last = d.uvarint()
		r.hs = d.hardState()
		if n := d.uvarint(); n > 0 {
			r.offset, r.data = d.bytes(n - 1)
		}
		d.bad = d.bad || r.last < r.mark.index
	case kindRemove:
	default:
		d.bad = true
	}
	// Wherever a log ends, there is a next index.
	if d.bad || max(r.mark.index, r.last) == math.MaxUint64 {
		return record{}, false, errRecord
	}
	return r, true, nil
}

func (d *decoder) entry() (record, bool, error) {
	r := record{kind: kindEntries, group: d.group}
	r.mark = mark{d.index, d.uvarint()}
	r.typ = raftpb.EntryType(d.byte())
	r.offset, r.data = d.bytes(d.uvarint())
	if d.bad || r.typ > raftpb.EntryConfChangeV2 {
		return record{}, false, errRecord
	}
	d.index++
	d.left--
	return r, true, nil
}

func (d *decoder) hardState() hardState {
	return hardState{d.uvarint(), d.uvarint(), d.uvarint()}
}

func (d *decoder) byte() byte {
	if d.pos == len(d.buf) {
		d.bad = true
		return 0
	}
	d.pos++
	return d.buf[d.pos-1]
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.buf[d.pos:])
	if n <= 0 {
		d.bad = true
		return 0
	}
	d.pos += n
	return v
}

func (d *decoder) bytes(n uint64) (offset int, p []byte) {
	if d.bad || n > uint64(len(d.buf)-d.pos) {
		d.bad = true
		return 0, nil
	}
	offset = d.pos
	d.pos += int(n)
	return offset, d.buf[offset:d.pos:d.pos]
}
