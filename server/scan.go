package server

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"sync/atomic"

	"github.com/bytedance/gopkg/util/xxhash3"

	"github.com/proa-kv/proa/access"
	"github.com/proa-kv/proa/bufpool"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/protocol"
)

// scanBytesMax bounds one page of a scan, whatever the client asks for: a page
// is built in memory before it is sent, and the cursor goes on from there.
const scanBytesMax = 4 << 20

// scan checks the request and makes a job of it: an ordered read always may
// wait for the disk.
func (p *processor) scan(c *conn, f *protocol.Frame) {
	var m protocol.Scan
	if err := m.Decode(f.Body); err != nil {
		p.refuse(c, f.ID, err)
		return
	}
	if _, err := resolveScan(p.srv.cfg.Cluster, &m, p.onlyShard()); err != nil {
		p.fail(c, f.ID, protocol.StatusBadCursor, 0, err.Error())
		return
	}
	p.later(c, f, false)
}

// allShards stands for a SCAN that is not of one shard only.
const allShards = -1

// cursorFormat is the first byte of a cursor. After it come a checksum of
// everything that makes the scan what it is, and the last key returned.
const (
	cursorFormat = 1
	cursorHead   = 1 + 8
)

var errBadCursor = errors.New("the cursor does not belong to this scan; start again without a cursor")

func cursorSum(cluster uint64, m *protocol.Scan, shard int, key []byte) uint64 {
	b := bufpool.Get(64 + len(m.Start) + len(m.End) + len(key))
	defer b.Release()
	b.B = binary.LittleEndian.AppendUint64(b.B, cluster)
	b.B = append(b.B, byte(m.Flags&^protocol.ScanKeysOnly))
	for _, part := range [...][]byte{m.Start, m.End, key} {
		b.B = binary.LittleEndian.AppendUint32(b.B, uint32(len(part)))
		b.B = append(b.B, part...)
	}
	if shard != allShards {
		b.B = binary.LittleEndian.AppendUint16(b.B, uint16(shard))
	}
	return xxhash3.Hash(b.B)
}

func appendCursor(dst []byte, cluster uint64, m *protocol.Scan, shard int, last []byte) []byte {
	dst = append(dst, cursorFormat)
	dst = binary.LittleEndian.AppendUint64(dst, cursorSum(cluster, m, shard, last))
	return append(dst, last...)
}

// resolveScan returns the range that is left to read.
func resolveScan(cluster uint64, m *protocol.Scan, shard int) (command.Scan, error) {
	r := command.Scan{Start: m.Start, End: m.End, Reverse: m.Flags&protocol.ScanReverse != 0, KeysOnly: m.Flags&protocol.ScanKeysOnly != 0}
	if m.Flags&protocol.ScanPrefix != 0 {
		r.End = protocol.PrefixEnd(m.Start)
	}
	if len(m.Cursor) == 0 {
		return r, nil
	}
	if len(m.Cursor) <= cursorHead || m.Cursor[0] != cursorFormat {
		return r, errBadCursor
	}
	last := m.Cursor[cursorHead:]
	if binary.LittleEndian.Uint64(m.Cursor[1:]) != cursorSum(cluster, m, shard, last) {
		return r, errBadCursor
	}
	if r.Reverse {
		r.End = last
	} else {
		r.Start = append(bytes.Clone(last), 0)
	}
	return r, nil
}

// visible is what may be shown of the range of a scan: its first part, if there are several.
type visible struct {
	cut  bool // it is not all of the range
	more bool // there is another part
	none bool
}

// cutScan cuts a range down to the first part that may be read.
func cutScan(permit *access.Permit, r *command.Scan) (v visible) {
	if permit.Reads.All() {
		return v
	}
	end := r.End
	if len(end) == 0 {
		end = nil
	}
	part, more, ok := permit.Reads.First(r.Start, end, r.Reverse)
	r.Start, r.End = part.Start, part.End
	return visible{cut: true, more: more, none: !ok}
}

// runScan reads one page, if what it takes is here: all the shards, or what
// other nodes have read of the rest. Otherwise the job waits for that. A page ends with the
// part of the range that may be read, and the cursor goes on at the next one.
func (e *executor) runScan(j job) {
	s := e.srv
	var m protocol.Scan
	if err := m.Decode(j.request()); err != nil {
		e.failJob(&j, &refusal{status: protocol.StatusBadRequest, message: err.Error()})
		return
	}
	r, err := resolveScan(s.cfg.Cluster, &m, j.shard)
	if err != nil {
		e.failJob(&j, &refusal{status: protocol.StatusBadCursor, message: err.Error()})
		return
	}
	v := cutScan(j.c.grant.Load().permit, &r)
	switch {
	case v.none:
		r.Shards = []int{}
		j.forgetRemote()
	case j.local: // has waited
		r.Shards = j.remote.here
	case j.shard != allShards && !s.backend.Holds(j.shard) && !v.cut:
		e.forwardJob(&j, j.shard, Options{})
		return
	case j.shard == allShards && !e.holdsAll(), j.shard != allShards && !s.backend.Holds(j.shard):
		e.gatherScan(j, &m, &r, v)
		return
	case j.shard != allShards:
		r.Shards = []int{j.shard}
	}
	if n := int(min(m.BytesMax, scanBytesMax)); j.large == nil && n > LargeBytes {
		e.claimReply(j, n)
		return
	}
	r.Local = j.local || j.mode == protocol.Stale
	out := bufpool.Get(outputSize)
	rows, bad := e.readPage(&j, &m, &r, v, out)
	switch {
	case j.c.gone.Load():
		out.Release()
		j.drop()
	case bad == nil && rows == 0 && v.more: // nothing is in this part
		out.Release()
		j.goOnBehind(s.cfg.Cluster, &m, &r)
		e.runScan(j)
	case bad == nil:
		e.complete(&j, out)
	case bad.status == protocol.StatusNotLeader && !j.local:
		out.Release()
		e.gatherScan(j, &m, &r, v)
	default:
		out.Release()
		e.failJob(&j, bad)
	}
}

// goOnBehind makes j a scan of what is left of its range behind a part of it.
func (j *job) goOnBehind(cluster uint64, m *protocol.Scan, part *command.Scan) {
	next := *m
	next.Cursor = appendCursor(nil, cluster, m, j.shard, endOf(part))
	body := bufpool.Get(len(j.body.B) + len(next.Cursor))
	body.B = next.AppendTo(append(body.B, j.body.B[:j.exts]...))
	j.body.Release()
	j.body, j.local = body, false
	j.forgetRemote()
}

// endOf is where a scan goes on behind a range, as the last key of a cursor.
func endOf(r *command.Scan) []byte {
	if r.Reverse {
		return r.Start
	}
	return r.End
}

// holdsAll reports whether every shard has a replica here.
func (e *executor) holdsAll() bool {
	for shard := range e.srv.backend.Shards() {
		if !e.srv.backend.Holds(shard) {
			return false
		}
	}
	return true
}

// readPage appends the reply to a SCAN: the rows of r, merged with those that
// came from elsewhere. v is what r is of the range that was asked for.
func (e *executor) readPage(j *job, m *protocol.Scan, r *command.Scan, v visible, out *bufpool.Buffer) (rows int, _ *refusal) {
	marks := e.scanMarks(j, r)
	page := scanPage{
		chunks: chunks{out: out, id: j.id, marks: &marks},
		rows:   int(m.CountMax), bytes: int(min(m.BytesMax, scanBytesMax)),
		last: bufpool.Get(256),
	}
	defer page.last.Release()
	merged := merge{page: &page, reverse: r.Reverse, gone: &j.c.gone}
	if j.remote != nil {
		if bad := merged.load(j.remote); bad != nil {
			return 0, bad
		}
	}
	page.begin()
	page.cursorAt = page.emptyCursor()
	if r.Shards == nil || len(r.Shards) > 0 {
		if err := e.srv.backend.Scan(r, merged.visit); err != nil {
			return 0, refusalOf(err)
		}
	}
	merged.finish()
	switch {
	case page.more && page.count == 0:
		page.last.Append(merged.horizon)
	case !page.more && v.more: // at the end of this part
		page.more, page.last.B = true, page.last.B[:0]
		page.last.Append(endOf(r))
	}
	if page.more {
		page.insertCursor(appendCursor(nil, e.srv.cfg.Cluster, m, j.shard, page.last.B))
	}
	page.end()
	return page.count, nil
}

// scanMarks are the extensions of the reply to a SCAN.
func (e *executor) scanMarks(j *job, r *command.Scan) protocol.Extensions {
	marks := protocol.Extensions{Epoch: j.epoch}
	if j.remote != nil && len(j.remote.parts) > 0 {
		marks.Epoch = e.srv.backend.Epoch()
	}
	if j.mode != protocol.Stale {
		return marks
	}
	marks.HasAge = true
	if j.remote != nil {
		marks.AgeMillis = j.remote.oldest()
	}
	if r.Shards == nil {
		for shard := range e.srv.backend.Shards() {
			marks.AgeMillis = max(marks.AgeMillis, e.srv.age(shard))
		}
	}
	for _, shard := range r.Shards {
		marks.AgeMillis = max(marks.AgeMillis, e.srv.age(shard))
	}
	return marks
}

// gatherScan has j wait until the replicas here have caught up, and until other
// nodes have read the shards that have none. r is what may be read of the range now.
func (e *executor) gatherScan(j job, m *protocol.Scan, r *command.Scan, v visible) {
	w := e.await(j)
	if w == nil {
		return
	}
	remote := &remoteRows{here: make([]int, 0, 8)}
	w.job.remote = remote
	first, end := 0, e.srv.backend.Shards()
	if j.shard != allShards {
		first, end = j.shard, j.shard+1
	}
	for shard := first; shard < end; shard++ {
		node, r := e.place(w, shard)
		if r != nil {
			w.fail(r)
			break
		}
		if node == 0 {
			remote.here = append(remote.here, shard)
		} else {
			remote.parts = append(remote.parts, &readPart{w: w, node: node, shard: shard})
		}
	}
	if w.failure.Load() == nil {
		x := w.job.subExtensions()
		x.HasShard = true
		for _, t := range remote.parts {
			x.Shard = uint16(t.shard)
			sub := e.subScan(m, r, v, t.shard, end-first)
			w.left.Add(1)
			e.sendPart(t, t.node, protocol.OpScan, &x, w.job.deadline, sub.AppendTo)
		}
	}
	e.release(w)
}

// subScan is m for one of several shards. Keys spread evenly as a rule, so a
// shard is asked for its share of the page and half as much again; the page
// ends early where that was too little. Of a range that is cut down the node is told no more
// than r.
func (e *executor) subScan(m *protocol.Scan, r *command.Scan, v visible, shard, shards int) protocol.Scan {
	const rowsLeast, bytesLeast = 16, 16 << 10
	sub := *m
	size := min(m.BytesMax, scanBytesMax)
	n := uint32(shards)
	sub.CountMax = min(m.CountMax, m.CountMax/n*3/2+rowsLeast)
	sub.BytesMax = min(size, size/n*3/2+bytesLeast)
	switch {
	case v.cut:
		sub.Flags &^= protocol.ScanPrefix
		sub.Start, sub.End, sub.Cursor = r.Start, r.End, nil
		if len(sub.Start) > protocol.KeyBytesMax { // the longest key, and a zero behind it
			if sub.Start = protocol.PrefixEnd(sub.Start[:protocol.KeyBytesMax]); sub.Start == nil {
				sub.Start, sub.End = r.Start[:1], r.Start[:1] // no key comes behind that one
			}
		}
	case len(m.Cursor) > 0:
		sub.Cursor = appendCursor(nil, e.srv.cfg.Cluster, m, shard, m.Cursor[cursorHead:])
	}
	return sub
}

// merge puts the rows of other nodes between those that are read here.
type merge struct {
	page    *scanPage
	reverse bool
	gone    *atomic.Bool       // the client has: the page may end anywhere
	seen    int                // rows that were read here
	remote  []protocol.ScanRow // in the order of the scan, none behind horizon
	next    int                // the first of remote that is not on the page
	bounded bool               // some part ended early:
	horizon []byte             // nothing is known behind this key
}

// before reports whether a comes before b in the order of the scan.
func (g *merge) before(a, b []byte) bool {
	if g.reverse {
		a, b = b, a
	}
	return bytes.Compare(a, b) < 0
}

// load takes in the parts.
func (g *merge) load(remote *remoteRows) *refusal {
	for _, t := range remote.parts {
		var cursor []byte
		for _, b := range t.bodies {
			var m protocol.ScanReply
			if err := m.Decode(b.B); err != nil {
				return malformedPart
			}
			g.remote = append(g.remote, m.Rows...)
			cursor = m.Cursor
		}
		if len(cursor) == 0 {
			continue
		}
		if len(cursor) <= cursorHead {
			return malformedPart
		}
		if last := cursor[cursorHead:]; !g.bounded || g.before(last, g.horizon) {
			g.bounded, g.horizon = true, last
		}
	}
	if g.bounded {
		g.remote = slices.DeleteFunc(g.remote, func(r protocol.ScanRow) bool { return g.before(g.horizon, r.Key) })
	}
	slices.SortFunc(g.remote, func(a, b protocol.ScanRow) int {
		if g.reverse {
			a, b = b, a
		}
		return bytes.Compare(a.Key, b.Key)
	})
	return nil
}

// visit takes a row that was read here, after those from elsewhere that come
// before it.
func (g *merge) visit(key, value []byte, row command.Row) bool {
	if g.seen++; g.seen%goneEvery == 0 && g.gone.Load() || !g.advance(key) {
		return false
	}
	if g.bounded && g.before(g.horizon, key) {
		g.page.more = true
		return false
	}
	return g.page.visit(key, value, row)
}

// advance puts the remote rows before key on the page, all if key is nil. It
// returns false if the page is full.
func (g *merge) advance(key []byte) bool {
	for ; g.next < len(g.remote); g.next++ {
		r := &g.remote[g.next]
		if key != nil && !g.before(r.Key, key) {
			break
		}
		if !g.page.visit(r.Key, r.Value, command.Row{Version: r.Version, TTLMillis: r.TTLMillis}) {
			return false
		}
	}
	return true
}

// finish puts the rest on the page.
func (g *merge) finish() {
	if !g.page.more && g.advance(nil) && g.bounded {
		g.page.more = true
	}
}

// scanPage collects the rows of one SCAN reply.
type scanPage struct {
	chunks
	rows, bytes int // left to return
	count       int
	more        bool // the range goes on behind the page
	cursorAt    int  // where the present frame's cursor length stands
	last        *bufpool.Buffer
}

func (g *scanPage) emptyCursor() int {
	at := len(g.out.B)
	g.out.B = append(g.out.B, 0, 0)
	return at
}

func (g *scanPage) visit(key, value []byte, row command.Row) bool {
	if g.count > 0 && (g.rows == 0 || g.bytes < len(key)+len(value)) {
		g.more = true
		return false
	}
	if g.split() {
		g.cursorAt = g.emptyCursor()
	}
	r := protocol.ScanRow{Version: row.Version, TTLMillis: row.TTLMillis, Key: key, Value: value}
	g.out.Grow(8 + 8 + 2 + 4 + len(key) + len(value))
	g.out.B = r.AppendTo(g.out.B)
	g.last.B = g.last.B[:0]
	g.last.Append(key)
	g.count++
	g.rows--
	g.bytes -= len(key) + len(value)
	return true
}

// insertCursor puts the cursor into the last frame, before its rows.
func (g *scanPage) insertCursor(cursor []byte) {
	g.out.Grow(len(cursor)) // so that it stays in its buffer
	g.out.B = slices.Insert(g.out.B, g.cursorAt+2, cursor...)
	binary.LittleEndian.PutUint16(g.out.B[g.cursorAt:], uint16(len(cursor)))
}
