package redis

import (
	"bytes"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/proa-kv/proa/protocol"
	"github.com/proa-kv/proa/server"
	"github.com/proa-kv/proa/server/resp"
)

// SCAN, KEYS, DBSIZE and RANDOMKEY walk over keys page by page, with native
// SCANs. The reader stops until the walk is over, and takes up the walk where a
// page has come in. What a walk sees is decided when it begins, for every
// connection alike: see topology.go.

const (
	walkRows      = 2_000   // rows in a page at most
	walkBytes     = 1 << 20 // bytes of keys in a page
	scanRowsUsual = 10      // what SCAN asks for without COUNT
	cursorsMax    = 4096    // cursors that a server keeps for SCAN
)

// walk is a walk under way.
type walk struct {
	number  uint64 // of its pending reply
	at      position
	rows    uint32 // in a page
	reverse bool
	take    func(w *walk, keys [][]byte) walkStep       // looks at some keys of a page, in order
	whole   bool                                        // take wants all keys of a page at once
	flush   bool                                        // what there is is deleted
	begun   time.Time                                   // flush: for how long it may wait
	waits   bool                                        // flush: what was refused is to be asked for again in a while
	end     func(w *walk, dst []byte, proto int) []byte // appends the reply
	fail    string                                      // the error to answer instead
	counted bool                                        // it is that of a page, and has been counted

	// The page that is being looked at: its keys, and how many have been. They
	// lie in the walk's pending reply.
	keys   [][]byte
	next   int
	loaded bool

	pattern *resp.Pattern // nil: any key
	steps   int           // what patterns have cost; the turn's credit pays for it
	left    int64         // SCAN: rows that it still asks for
	count   int64
	out     []byte      // replies collected so far
	limit   int         // of out, in bytes
	full    func() bool // KEYS: there is no more memory for replies
	key     []byte      // RANDOMKEY: the one chosen so far
	scans   int         // RANDOMKEY: that have found something
}

// walkStep says how a walk goes on.
type walkStep uint8

const (
	walkOn    walkStep = iota // behind the page, if there is more
	walkEnd                   // not at all
	walkAgain                 // with another scan, which take has set up
)

// position is how far a walk has come.
type position struct {
	confined bool     // to shards
	shards   []uint16 // left, the present one first
	start    []byte   // where the walk begins, or the prefix of all keys
	prefix   bool
	cursor   []byte // of the native scan; empty: at its beginning
}

// over reports whether there is nothing left to read, the present scan having
// ended where cursor is empty.
func (a *position) over() bool {
	if len(a.cursor) > 0 {
		return false
	}
	return !a.confined || len(a.shards) <= 1
}

// nextShard goes on to the next shard where the present one is exhausted.
func (a *position) nextShard() {
	if a.confined && len(a.cursor) == 0 && len(a.shards) > 0 {
		a.shards = a.shards[1:]
	}
}

// beginWalk returns the position at which a walk over all keys begins.
func (p *processor) beginWalk(pattern []byte) position {
	var a position
	if prefix := literalPrefix(pattern); len(prefix) > 0 && len(prefix) <= protocol.KeyBytesMax {
		a.start, a.prefix = prefix, true
	}
	a.shards, a.confined = p.l.shards()
	return a
}

// literalPrefix is what every string begins with that a pattern matches.
func literalPrefix(pattern []byte) []byte {
	if i := bytes.IndexAny(pattern, `*?[\`); i >= 0 {
		pattern = pattern[:i]
	}
	return bytes.Clone(pattern)
}

// walkOver has w walk, once everything that the client has written is done. It
// returns true if that is not so yet.
func (p *processor) walkOver(c *conn, w *walk) (held bool) {
	if c.head.Load() <= c.lastWrite && c.awaitAnswer(c.lastWrite) {
		return true
	}
	s := c.newPending()
	s.kind = replyWalk
	w.number = c.push()
	c.walk = w
	if w.at.confined && len(w.at.shards) == 0 {
		p.endWalk(c)
		return false
	}
	p.askPart(c)
	return false
}

// askPart asks for what c's walk needs next.
func (p *processor) askPart(c *conn) {
	if c.walk.flush {
		p.askFlush(c)
	} else {
		p.askPage(c)
	}
}

// askPage asks for the next page of c's walk.
func (p *processor) askPage(c *conn) {
	w := c.walk
	m := protocol.Scan{Flags: protocol.ScanKeysOnly, CountMax: w.rows, BytesMax: walkBytes, Start: w.at.start, Cursor: w.at.cursor}
	if w.at.prefix {
		m.Flags |= protocol.ScanPrefix
	}
	if w.reverse {
		m.Flags |= protocol.ScanReverse
	}
	p.askNext(c, protocol.OpScan, m.AppendTo(p.plan.body[:0]))
}

// askNext dispatches a request of c's walk, for its present shard if it is
// confined to some.
func (p *processor) askNext(c *conn, op protocol.Opcode, body []byte) {
	w := c.walk
	f := protocol.Frame{Header: protocol.Header{Code: uint8(op), ID: requestID(w.number, 0)}, Body: body}
	p.plan.body = body[:0]
	if w.at.confined {
		x := protocol.Extensions{HasShard: true, Shard: w.at.shards[0]}
		f.Flags, f.Extensions = protocol.FlagExtensions, x.AppendTo(nil)[2:]
	}
	c.page.Store(false)
	p.Dispatch(c.Conn, &f, server.Options{})
}

// continueWalk takes up c's walk. It returns false if the reader has to stop, since the
// page asked for is not there yet.
func (p *processor) continueWalk(c *conn) bool {
	w := c.walk
	if w.waits {
		w.waits = false
		p.askPart(c)
		return true
	}
	if !c.page.Load() {
		c.awaitAnswer(w.number)
		return !c.Paused()
	}
	s := c.pending(w.number)
	if !w.loaded {
		p.Spend(creditPerPage)
		if w.flush {
			w.fail = w.loadFlush(s.kept.B, min(server.LeaderWait, p.l.cfg.RequestTimeout))
		} else {
			w.fail = w.loadPage(s.kept.B)
		}
	}
	step, over := walkEnd, true
	if w.fail == "" {
		before := cap(w.out)
		step, over = w.takeSome(p)
		c.Walk(cap(w.out) - before)
	}
	if over {
		w.keys, w.next, w.loaded = nil, 0, false
		c.dropKept(s)
		c.page.Store(false)
	}
	c.AccountWalk()
	if !over {
		return true // goes on in the next turn
	}
	if w.fail == "" && w.waits {
		c.AwaitQueue()
		return false
	}
	if w.fail == "" && w.hasMore(step) {
		p.askPart(c)
	} else {
		p.endWalk(c)
	}
	return true
}

// dropWalk drops c's walk, and what it has collected. The reader calls it.
func (c *conn) dropWalk() {
	if c.walk != nil {
		c.Walk(-cap(c.walk.out))
		c.walk = nil
	}
}

const (
	keysAtATime    = 4   // that a walk looks at before it counts
	creditPerPage  = 64  // for reading a page, beside looking at its keys
	stepsPerCredit = 256 // of patterns
)

// takeSome looks at keys of the page until all have been looked at, or the credit
// of the turn is spent.
func (w *walk) takeSome(p *processor) (step walkStep, over bool) {
	for {
		n := min(len(w.keys)-w.next, keysAtATime)
		if w.whole {
			n = len(w.keys)
		}
		step = w.take(w, w.keys[w.next:w.next+n])
		w.next += n
		p.Spend(1 + n/wordsPerCredit + w.steps/stepsPerCredit)
		w.steps = 0
		if w.next == len(w.keys) || w.fail != "" {
			return step, true
		}
		if p.Credit() <= 0 {
			return step, false
		}
	}
}

// hasMore reports whether there is another page to ask for, step being what came
// of the one before.
func (w *walk) hasMore(step walkStep) bool {
	switch step {
	case walkEnd:
		return false
	case walkAgain:
		return true
	}
	if w.at.over() {
		return false
	}
	w.at.nextShard()
	return true
}

// loadPage takes in the answer to one native scan, and returns the error to
// answer where there is one.
func (w *walk) loadPage(frames []byte) (problem string) {
	var cursor []byte
	for len(frames) > 0 {
		status, body, rest := frameAt(frames)
		frames = rest
		if status != protocol.StatusOK {
			w.counted = true
			return (&shape{kind: replyWalk}).errorOf(status, body)
		}
		var m protocol.ScanReply
		if m.Decode(body) != nil {
			return errMalformedAnswer
		}
		for i := range m.Rows {
			w.keys = append(w.keys, m.Rows[i].Key)
		}
		cursor = m.Cursor
	}
	w.at.cursor = append(w.at.cursor[:0:0], cursor...)
	w.loaded = true
	return ""
}

// endWalk answers the command that walked.
func (p *processor) endWalk(c *conn) {
	w := c.walk
	reply := p.plan.reply[:0]
	if w.fail != "" {
		reply = resp.AppendError(reply, w.fail)
	} else {
		reply = w.end(w, reply, int(c.proto))
	}
	p.plan.reply = reply[:0]
	c.dropWalk()
	if !w.counted {
		p.l.countError(reply)
	}
	p.Append(c.Conn, verbatimCode, requestID(w.number, 0), reply)
}

func cmdScan(p *processor, c *conn, x *plan) (held bool) {
	number, ok := cursorNumber(x.args[1])
	if !ok {
		return x.fail(resp.ErrInvalidCursor)
	}
	count, pattern, others := int64(scanRowsUsual), []byte(nil), false
	for i := 2; i < len(x.args); i += 2 {
		a := x.args[i]
		switch {
		case i+1 == len(x.args):
			x.fail(resp.ErrSyntax)
		case isWord(a, "match"):
			pattern = x.args[i+1]
		case isWord(a, "count"):
			if count = x.integer(i + 1); count < 1 {
				x.fail(resp.ErrSyntax)
			}
		case isWord(a, "type"):
			others = !isWord(x.args[i+1], "string")
		default:
			x.fail(resp.ErrSyntax)
		}
		if x.failed {
			return false
		}
	}
	count = min(count, protocol.ScanCountMax)
	w := &walk{left: count, rows: uint32(min(count, walkRows)), take: takeScan, end: p.l.endScan}
	if pattern != nil {
		if w.pattern, ok = resp.CompilePattern(pattern, false); !ok {
			return x.fail(resp.ErrPattern)
		}
	}
	if others {
		// There is nothing of any other type.
		w.take = func(w *walk, _ [][]byte) walkStep { w.at = position{}; return walkEnd }
	}
	if number == 0 {
		w.at = p.beginWalk(pattern)
	} else if w.at, held = p.l.cursors.get(number); !held {
		return x.fail("ERR this cursor has expired or belongs to another server; start again with cursor 0")
	}
	return p.walkOver(c, w)
}

// cursorNumber reads a cursor as strtoul does, which takes nothing for 0 and
// knows of signs.
func cursorNumber(text []byte) (uint64, bool) {
	digits := text
	if len(text) > 0 && (text[0] == '-' || text[0] == '+') {
		digits = text[1:]
	}
	if len(text) == 0 {
		return 0, true
	}
	n, err := strconv.ParseUint(string(digits), 10, 64)
	if text[0] == '-' {
		n = -n
	}
	return n, err == nil
}

// takeScan collects what matches, until as many keys have been looked at as SCAN
// asks for, or the reply is large.
func takeScan(w *walk, keys [][]byte) walkStep {
	w.collect(keys)
	if w.left -= int64(len(keys)); w.left <= 0 || len(w.out) >= walkBytes {
		return walkEnd
	}
	w.rows = uint32(min(w.left, walkRows))
	return walkOn
}

// collect keeps the keys that match.
func (w *walk) collect(keys [][]byte) {
	for _, key := range keys {
		if w.pattern != nil {
			w.steps += w.pattern.Cost(len(key))
			if !w.pattern.Match(key) {
				continue
			}
		}
		w.out = resp.AppendBulk(w.out, key)
		w.count++
	}
}

// endScan appends the reply to SCAN.
func (l *Listener) endScan(w *walk, dst []byte, _ int) []byte {
	number := uint64(0)
	if !w.at.over() {
		w.at.nextShard()
		number = l.cursors.put(w.at)
	}
	var text [20]byte
	dst = resp.AppendArray(dst, 2)
	dst = resp.AppendBulk(dst, strconv.AppendUint(text[:0], number, 10))
	dst = resp.AppendArray(dst, int(w.count))
	return append(dst, w.out...)
}

func cmdKeys(p *processor, c *conn, x *plan) (held bool) {
	pattern, ok := resp.CompilePattern(x.args[1], false)
	if !ok {
		return x.fail(resp.ErrPattern)
	}
	w := &walk{rows: walkRows, pattern: pattern, limit: p.l.cfg.OutputBytesMax / 2, full: p.l.srv.RepliesFull, take: takeKeys, end: endKeys}
	w.at = p.beginWalk(x.args[1])
	return p.walkOver(c, w)
}

// endKeys replies with what a walk has collected, and endCount with its number.
func endKeys(w *walk, dst []byte, _ int) []byte {
	return append(resp.AppendArray(dst, int(w.count)), w.out...)
}

func endCount(w *walk, dst []byte, _ int) []byte { return resp.AppendInt(dst, w.count) }

// takeKeys collects what matches.
func takeKeys(w *walk, keys [][]byte) walkStep {
	w.collect(keys)
	if len(w.out) > w.limit {
		w.fail = "ERR the matching keys exceed " + strconv.Itoa(w.limit) + " bytes; use SCAN"
		return walkEnd
	}
	if len(w.out) > server.LargeBytes && w.full() {
		w.fail = "TRYAGAIN " + server.NoReplyMemory + ", and the matching keys need more; use SCAN"
		return walkEnd
	}
	return walkOn
}

func cmdDBSize(p *processor, c *conn, _ *plan) (held bool) {
	w := &walk{rows: walkRows, at: p.beginWalk(nil), end: endCount}
	w.take = func(w *walk, keys [][]byte) walkStep {
		w.count += int64(len(keys))
		return walkOn
	}
	return p.walkOver(c, w)
}

// cmdRandomKey looks up the first and the last key, and then some keys behind
// a place between the two that is drawn at random: a few short scans, whatever
// the number of keys. Among up to randomRows keys all are equally likely; among
// more, those behind large gaps are likelier than others.
func cmdRandomKey(p *processor, c *conn, _ *plan) (held bool) {
	w := &walk{rows: 1, at: p.beginWalk(nil), take: takeRandom, whole: true}
	if n := len(w.at.shards); n > 0 {
		i := rand.IntN(n)
		w.at.shards[0], w.at.shards[i] = w.at.shards[i], w.at.shards[0]
	}
	w.end = func(w *walk, dst []byte, proto int) []byte {
		if w.key == nil {
			return resp.AppendNull(dst, proto)
		}
		return resp.AppendBulk(dst, w.key)
	}
	return p.walkOver(c, w)
}

// randomRows is among how many neighbouring keys RANDOMKEY chooses.
const randomRows = 1000

func takeRandom(w *walk, keys [][]byte) walkStep {
	if len(keys) == 0 {
		w.at.cursor = nil
		if w.scans == 0 {
			return walkOn // there is nothing here; another shard may have keys
		}
		return walkEnd
	}
	w.scans++
	switch w.scans {
	case 1:
		w.key = bytes.Clone(keys[0])
		w.reverse = true
	case 2:
		w.reverse, w.rows = false, randomRows
		w.at.start = between(w.key, keys[0])
	case 3:
		w.key = bytes.Clone(keys[rand.IntN(len(keys))])
		if len(keys) == randomRows {
			return walkEnd
		}
		w.reverse, w.at.start = true, nil // too near to the last key
	default:
		w.key = bytes.Clone(keys[rand.IntN(len(keys))])
		return walkEnd
	}
	w.at.cursor = nil
	return walkAgain
}

// between returns a random key that is not behind last, and not far before
// first.
func between(first, last []byte) []byte {
	n := 0
	for n < len(first) && n < len(last) && first[n] == last[n] {
		n++
	}
	if n == len(last) {
		return bytes.Clone(first)
	}
	low := 0
	if n < len(first) {
		low = int(first[n])
	}
	key := append(bytes.Clone(first[:n]), byte(low+rand.IntN(int(last[n])-low+1)))
	for len(key) < min(n+8, protocol.KeyBytesMax) {
		key = append(key, byte(rand.IntN(256)))
	}
	if bytes.Compare(key, last) > 0 {
		return bytes.Clone(last)
	}
	return key
}

// cursorTable keeps the positions of SCANs that go on, for the numbers that
// clients know them by. The oldest gives way to the newest.
type cursorTable struct {
	mu        sync.Mutex
	positions map[uint64]position
	oldest    uint64
	next      uint64
}

// cursorStep bounds the numbers, which clients of every language must be able
// to hold: below 2^53 for as long as a server runs.
const cursorStep = 1 << 20

func (t *cursorTable) put(a position) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.positions == nil {
		t.positions = make(map[uint64]position)
		t.next = (1 + rand.Uint64N(1<<30)) * cursorStep
		t.oldest = t.next
	}
	n := t.next
	t.next++
	t.positions[n] = a
	for ; len(t.positions) > cursorsMax; t.oldest++ {
		delete(t.positions, t.oldest)
	}
	return n
}

func (t *cursorTable) get(n uint64) (position, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	a, ok := t.positions[n]
	return a, ok
}
