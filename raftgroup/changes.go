package raftgroup

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/proa-kv/proa/internal/fields"
	"github.com/proa-kv/proa/raftgroup/engine"
)

// The form of reports between nodes, see docs/peer-protocol.md. Integers that
// are not of fixed width are uvarints; a later version may add to the end of the
// node's part and of each shard's.
const (
	changesFormat    = 2
	changesHeadBytes = 1 + 6*8

	// changesBytes is where a report ends and the next one begins. It is half
	// of what the transport takes: one shard's part, with hundreds of members,
	// may pass it.
	changesBytes = 32 << 10

	flagLeaving  = 1
	flagSlow     = 2
	flagClockOff = 4
	flagExposed  = 8

	shardSettled = 1 // in the flags of a shard's part
	shardMembers = 2
	shardDamaged = 4
	shardBehind  = 8
)

// errBadReport is wrapped by what decodeChanges finds wrong.
var errBadReport = errors.New("malformed report")

// roles are the roles by their number in a report; the first is that of no
// replica.
var roles = [...]string{"", engine.RoleLeader, engine.RoleFollower, engine.RoleLearner, engine.RoleCandidate}

// changes is one report: what has changed from one version of a node's state to
// another.
type changes struct {
	run         uint64 // of the sender
	ackRun, ack uint64 // the version that the sender has of the receiver's reports
	newest      uint64 // version of the sender's state
	from, to    uint64 // versions: has the changes of (from, to]
	about       nodeReport
	shards      []shardReport
}

// encoded is a report that brings its receiver to a version.
type encoded struct {
	body []byte
	to   uint64
}

// encode returns reports that bring a receiver from version from to c.newest: at
// least one, with nothing in it where nothing has changed. shards are the changed
// ones in the order of their changes; changed and state are by shard.
func (c *changes) encode(from uint64, shards []int, changed []uint64, state []shardReport) []encoded {
	var out []encoded
	b, to := c.appendHead(nil, from), from
	for _, shard := range shards {
		if len(b) >= changesBytes {
			out = append(out, seal(b, to))
			b = c.appendHead(nil, to)
		}
		b, to = appendShard(b, shard, &state[shard]), changed[shard]
	}
	return append(out, seal(b, c.newest))
}

// seal puts in up to which version the report goes.
func seal(b []byte, to uint64) encoded {
	binary.LittleEndian.PutUint64(b[changesHeadBytes-8:], to)
	return encoded{b, to}
}

func (c *changes) appendHead(b []byte, from uint64) []byte {
	b = append(b, changesFormat)
	for _, v := range []uint64{c.run, c.ackRun, c.ack, c.newest, from, 0} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	a := &c.about
	var node []byte
	node = append(node, flagByte(a.Leaving, a.Slow, a.ClockOff, a.Exposed))
	for _, v := range []int64{int64(a.FsyncMicros * 1000), a.LogBytes, a.DiskUsed, a.DiskFree, a.Uptime} {
		node = binary.AppendUvarint(node, uint64(max(v, 0)))
	}
	node = binary.AppendUvarint(node, a.Wall)
	node = binary.AppendUvarint(node, a.Time)
	node = binary.AppendVarint(node, a.Offset)
	node = binary.AppendUvarint(node, a.Position)
	node = binary.AppendUvarint(node, a.Damaged)
	return appendPart(b, node)
}

// flagByte returns a byte of which the first flag is the lowest bit.
func flagByte(flags ...bool) (b byte) {
	for i, set := range flags {
		if set {
			b |= 1 << i
		}
	}
	return b
}

// appendPart appends a part behind its length.
func appendPart(b, part []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(part))), part...)
}

func appendShard(b []byte, shard int, s *shardReport) []byte {
	var scratch [128]byte
	p := binary.AppendUvarint(scratch[:0], uint64(shard))
	p = binary.AppendUvarint(p, s.Replica)
	if s.Replica != 0 {
		p = s.appendReplica(p)
	}
	return appendPart(b, p)
}

func (s *shardReport) appendReplica(p []byte) []byte {
	role := max(slices.Index(roles[:], s.Role), 0)
	p = append(p, byte(role), flagByte(s.Settled, len(s.Members) > 0, s.Damaged, s.Behind))
	for _, v := range []uint64{s.Leader, s.Term, s.Commit, s.Applied} {
		p = binary.AppendUvarint(p, v)
	}
	if len(s.Members) == 0 {
		return p
	}
	for _, set := range [][]uint64{s.Members, s.Learners} {
		p = binary.AppendUvarint(p, uint64(len(set)))
		for _, id := range set {
			p = binary.AppendUvarint(p, id)
		}
	}
	return binary.AppendUvarint(p, s.Row)
}

// decodeChanges reads a report of a node of a cluster with so many shards, the
// meta group included. The error wraps errBadReport.
func decodeChanges(body []byte, shards int) (*changes, error) {
	if len(body) < changesHeadBytes || body[0] != changesFormat {
		return nil, fmt.Errorf("%w: unknown format, %d bytes", errBadReport, len(body))
	}
	c := &changes{}
	for i, field := range []*uint64{&c.run, &c.ackRun, &c.ack, &c.newest, &c.from, &c.to} {
		*field = binary.LittleEndian.Uint64(body[1+8*i:])
	}
	if c.run == 0 || c.from > c.to || c.to > c.newest {
		return nil, fmt.Errorf("%w: changes from version %d to %d of %d", errBadReport, c.from, c.to, c.newest)
	}
	r := reportReader{fields.Reader{B: body[changesHeadBytes:]}}
	node := r.part()
	c.readNode(node)
	r.Short = r.Short || node.Short
	for len(r.B) > 0 && !r.Short {
		part := r.part()
		c.shards = append(c.shards, part.shard(shards))
		r.Short = part.Short || len(c.shards) > shards
	}
	if r.Short {
		return nil, fmt.Errorf("%w: truncated, or from a cluster with another number of shards", errBadReport)
	}
	return c, nil
}

func (c *changes) readNode(r *reportReader) {
	flags := r.U8()
	a := &c.about
	a.Leaving, a.Slow, a.ClockOff, a.Exposed = flags&flagLeaving != 0, flags&flagSlow != 0, flags&flagClockOff != 0, flags&flagExposed != 0
	a.FsyncMicros = float64(r.natural()) / 1000
	for _, field := range []*int64{&a.LogBytes, &a.DiskUsed, &a.DiskFree, &a.Uptime} {
		*field = r.natural()
	}
	a.Wall, a.Time, a.Offset = r.Uvarint(), r.Uvarint(), r.Varint()
	a.Position = r.Uvarint()
	if len(r.B) > 0 { // earlier versions end here
		a.Damaged = r.Uvarint()
	}
}

// reportReader reads the parts of a report. After Short all it returns is zero.
type reportReader struct{ fields.Reader }

func (r *reportReader) fail() { r.B, r.Short = nil, true }

func (r *reportReader) natural() int64 { return int64(min(r.Uvarint(), math.MaxInt64)) }

// part returns a reader of the next part.
func (r *reportReader) part() *reportReader {
	p := r.Counted()
	return &reportReader{fields.Reader{B: p, Short: r.Short}}
}

func (r *reportReader) shard(shards int) shardReport {
	shard := r.Uvarint()
	if shard >= uint64(shards) {
		r.fail()
		return shardReport{}
	}
	s := shardReport{Shard: int(shard), Replica: r.Uvarint()}
	if s.Replica != 0 {
		r.replica(&s)
	}
	return s
}

func (r *reportReader) replica(s *shardReport) {
	role, flags := int(r.U8()), r.U8()
	if role == 0 || role >= len(roles) {
		r.fail()
		return
	}
	s.Role, s.Settled, s.Damaged, s.Behind = roles[role], flags&shardSettled != 0, flags&shardDamaged != 0, flags&shardBehind != 0
	for _, field := range []*uint64{&s.Leader, &s.Term, &s.Commit, &s.Applied} {
		*field = r.Uvarint()
	}
	if flags&shardMembers != 0 {
		s.Members, s.Learners = r.list(), r.list()
		s.Row = r.Uvarint()
	}
}

func (r *reportReader) list() []uint64 {
	n := r.Uvarint()
	if n > uint64(len(r.B)) { // each takes a byte at least
		r.fail()
		return nil
	}
	if n == 0 {
		return nil
	}
	l := make([]uint64, n)
	for i := range l {
		l[i] = r.Uvarint()
	}
	return l
}
