package server

import (
	"bytes"
	"encoding/binary"
	"errors"

	"github.com/bytedance/gopkg/util/xxhash3"

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
	if _, err := p.srv.resolveScan(&m); err != nil {
		p.fail(c, f.ID, protocol.StatusBadCursor, 0, err.Error())
		return
	}
	p.later(c, f, protocol.OpScan)
}

// cursorFormat is the first byte of a cursor. After it come a checksum of
// everything that makes the scan what it is, and the last key returned.
const (
	cursorFormat = 1
	cursorHead   = 1 + 8
)

var errBadCursor = errors.New("the cursor does not belong to this scan; begin again without one")

func (s *Server) cursorSum(m *protocol.Scan, key []byte) uint64 {
	b := bufpool.Get(64 + len(m.Start) + len(m.End) + len(key))
	defer b.Release()
	b.B = binary.LittleEndian.AppendUint64(b.B, s.cfg.Cluster)
	b.B = append(b.B, byte(m.Flags&^protocol.ScanKeysOnly))
	for _, part := range [...][]byte{m.Start, m.End, key} {
		b.B = binary.LittleEndian.AppendUint32(b.B, uint32(len(part)))
		b.B = append(b.B, part...)
	}
	return xxhash3.Hash(b.B)
}

func (s *Server) appendCursor(dst []byte, m *protocol.Scan, last []byte) []byte {
	dst = append(dst, cursorFormat)
	dst = binary.LittleEndian.AppendUint64(dst, s.cursorSum(m, last))
	return append(dst, last...)
}

// resolveScan returns the range that is left to read.
func (s *Server) resolveScan(m *protocol.Scan) (command.Scan, error) {
	r := command.Scan{Start: m.Start, End: m.End, Reverse: m.Flags&protocol.ScanReverse != 0, KeysOnly: m.Flags&protocol.ScanKeysOnly != 0}
	if m.Flags&protocol.ScanPrefix != 0 {
		r.End = prefixEnd(m.Start)
	}
	if len(m.Cursor) == 0 {
		return r, nil
	}
	if len(m.Cursor) <= cursorHead || m.Cursor[0] != cursorFormat {
		return r, errBadCursor
	}
	last := m.Cursor[cursorHead:]
	if binary.LittleEndian.Uint64(m.Cursor[1:]) != s.cursorSum(m, last) {
		return r, errBadCursor
	}
	if r.Reverse {
		r.End = last
	} else {
		r.Start = append(bytes.Clone(last), 0)
	}
	return r, nil
}

// prefixEnd returns the first key after all keys that begin with prefix, or
// nil where there is none.
func prefixEnd(prefix []byte) []byte {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] != 0xff {
			end := bytes.Clone(prefix[:i+1])
			end[i]++
			return end
		}
	}
	return nil
}

func (p *processor) runScan(j *job, out *bufpool.Buffer) {
	var m protocol.Scan
	if err := m.Decode(j.body.B); err != nil {
		out.B = protocol.AppendError(out.B, j.id, protocol.StatusBadRequest, 0, err.Error())
		return
	}
	r, err := p.srv.resolveScan(&m)
	if err != nil {
		out.B = protocol.AppendError(out.B, j.id, protocol.StatusBadCursor, 0, err.Error())
		return
	}
	page := scanPage{
		chunks: chunks{out: out, id: j.id},
		rows:   int(m.CountMax), bytes: int(min(m.BytesMax, scanBytesMax)),
		last: bufpool.Get(256),
	}
	defer page.last.Release()
	page.begin()
	page.cursorAt = page.emptyCursor()
	if err := p.srv.backend.Scan(&r, page.visit); err != nil {
		s, retry := refusalOf(err)
		out.B = protocol.AppendError(out.B[:page.start], j.id, s, retry, err.Error())
		return
	}
	if page.more {
		page.insertCursor(p.srv.appendCursor(nil, &m, page.last.B))
	}
	page.end()
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
	g.out.Grow(len(cursor))
	b := g.out.B
	rows := g.cursorAt + 2
	b = b[:len(b)+len(cursor)]
	copy(b[rows+len(cursor):], b[rows:len(b)-len(cursor)])
	copy(b[rows:], cursor)
	binary.LittleEndian.PutUint16(b[g.cursorAt:], uint16(len(cursor)))
	g.out.B = b
}
