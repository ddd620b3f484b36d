package redis

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/proa-kv/proa/bufpool"
	"github.com/proa-kv/proa/protocol"
	"github.com/proa-kv/proa/server"
	"github.com/proa-kv/proa/server/resp"
)

// Connections that speak RESP.
//
// Goal: the clients and tools of Redis work, at the price of one translation
// in each direction, and everything in package server stays as it is: reads under lease,
// read indexes, jobs, forwarding, back-pressure and batching see native requests.
//
// A command becomes one or more native requests (plan.go) that go
// through Processor.Dispatch. Their ids carry the number of the command's
// pending reply, and of the part of the command. Everything in the server answers with
// native frames in the output, from any thread and in any order. Whoever is about
// to write the output takes it and renders it first (render.go): pending replies
// stand in the order of the commands, the answer of the first one is turned
// into RESP, and what comes before its turn waits in its pending reply.
//
// Redis clients expect a command to see what an earlier one of the same
// connection has written, and native pipelines do not promise that. Writes of
// one key follow each other without stopping as long as both are proposed here:
// one connection's proposals are queued in order. A read behind them is proposed
// like them, and answered as of its place in the log. Where that cannot be, the
// reader stops before the command until the earlier one is answered; what it has
// not looked at stays in the input buffer, as in a pause. See order.go.
//
// Rejected: translating in a goroutine of its own for each connection (a thread
// wake-up for each command, and a second path for back-pressure), and having
// every place that answers know of two formats (RESP everywhere).
//
// Invariants: a pending reply is written by the reader until it is pushed and by the
// renderer after that; head is moved by the renderer alone, tail by the reader
// alone; pending replies below head are answered, in order.

const (
	pendingPerChunk = 32
	pendingChunks   = 64
	// pendingMax bounds the commands of one connection that are not answered or
	// whose answers are not rendered. One chunk always stays free, so that the
	// reader never fills in a chunk that the renderer still uses.
	pendingMax = pendingPerChunk * (pendingChunks - 1)
)

// pendingChunk holds the pending replies of consecutive commands. Chunks wander between
// connections, so that a quiet connection has no more than one.
type pendingChunk [pendingPerChunk]pendingReply

var pendingChunkPool = sync.Pool{New: func() any { return new(pendingChunk) }}

// pendingReply is a command that has been taken on: what its reply will look like,
// and what of the answer is there.
type pendingReply struct {
	shape
	left int32           // parts of the answer that are not there yet
	kept *bufpool.Buffer // native frames that came before their turn; nil: none
	more any             // *watch, *execution, *walk; by kind
}

// conn is a connection that speaks RESP.
type conn struct {
	*server.Conn
	l *Listener

	tail    atomic.Uint64 // number of the next command, from 1; the reader's
	head    atomic.Uint64 // number of the oldest command that is not answered; the renderer's
	awaited atomic.Uint64 // the reader waits until head is past this one; 0: it does not
	killed  atomic.Bool   // by CLIENT KILL
	page    atomic.Bool   // a page of the walk is in the walk's pending reply: the reader goes on

	chunks [pendingChunks]*pendingChunk // by number; entries belong to whoever their pending replies belong to

	// The reader's.
	parser              resp.Parser
	parsing             int // bytes that parser holds, counted among the input of all connections
	proto               uint8
	readOnly            bool // READONLY: replicas here may answer
	last                bool // the command that is being carried out is the last
	txn                 *txn
	watches             []*watch
	walk                *walk
	order               *order
	retrying            uint64    // the command at the front of the input has this pending reply already; 0: it has none
	retryInOrder        bool      // and goes through the log: see readsInOrder
	retryBytes          int       // and yields so many bytes
	retrySince          time.Time // since when it waits to be tried again; zero: it does not
	lastWrite, lastWait uint64    // numbers of the latest commands in order
	lastInOrder         uint64    // number of the latest read that goes through the log

	info clientInfo
}

// wordsMax bounds the words of a command at what the largest one needs: an
// MSET of as many keys as a native BATCH takes.
const wordsMax = 1 + 2*protocol.OpsMax

func newConn(l *Listener, c *server.Conn) *conn {
	r := &conn{Conn: c, l: l, proto: resp.RESP2}
	r.tail.Store(1)
	r.head.Store(1)
	r.parser.MultibulkMax = wordsMax
	r.parser.BulkBytesMax = protocol.ValueBytesMax
	r.parser.RequestBytesMax = int(l.cfg.FrameBytesMax)
	r.parser.Unauthenticated = l.cfg.Authentication
	r.info.since = time.Now()
	r.info.proto.Store(resp.RESP2)
	r.info.multi.Store(-1)
	return r
}

// pending returns the pending reply of a command that has been pushed and not answered.
func (c *conn) pending(number uint64) *pendingReply {
	return &c.chunks[number/pendingPerChunk%pendingChunks][number%pendingPerChunk]
}

// full reports whether no further command can be taken on.
func (c *conn) full() bool { return c.tail.Load()-c.head.Load() >= pendingMax }

// AllAnswered reports whether every command has been answered.
func (c *conn) AllAnswered() bool { return c.tail.Load() == c.head.Load() }

// newPending returns the pending reply of the next command, for the reader to fill in before
// it calls push.
func (c *conn) newPending() *pendingReply {
	n := c.tail.Load()
	chunk := &c.chunks[n/pendingPerChunk%pendingChunks]
	if *chunk == nil {
		*chunk = pendingChunkPool.Get().(*pendingChunk)
	}
	s := &(*chunk)[n%pendingPerChunk]
	s.version = c.proto
	s.left = 1
	return s
}

// push makes the pending reply that newPending returned a command that waits for its answer,
// and returns its number.
func (c *conn) push() uint64 {
	n := c.tail.Load()
	c.tail.Store(n + 1)
	return n
}

// pop takes the answered command at head out; the renderer stores the new head
// when it is done.
func (c *conn) pop(head uint64) uint64 {
	s := c.pending(head)
	c.dropKept(s)
	*s = pendingReply{}
	if head%pendingPerChunk == pendingPerChunk-1 {
		chunk := &c.chunks[head/pendingPerChunk%pendingChunks]
		pendingChunkPool.Put(*chunk)
		*chunk = nil
	}
	return head + 1
}

// keep stores frames of an answer until its turn comes. What a walk keeps is
// one page, which it does not wait for room to look at.
func (c *conn) keep(s *pendingReply, frames []byte) {
	if s.kept == nil {
		s.kept = bufpool.Get(len(frames))
	}
	before := cap(s.kept.B)
	if len(s.kept.B) == 0 {
		before = 0
	}
	s.kept.Append(frames)
	c.countKept(s, cap(s.kept.B)-before)
}

// countKept counts n bytes more that s keeps.
func (c *conn) countKept(s *pendingReply, n int) {
	if s.kind == replyWalk {
		c.Walk(n)
	} else {
		c.Keep(n)
	}
}

func (c *conn) dropKept(s *pendingReply) {
	if s.kept != nil {
		c.countKept(s, -cap(s.kept.B))
		s.kept.Release()
		s.kept = nil
	}
}

// Release releases what unanswered commands hold.
func (c *conn) Release() {
	for n := c.head.Load(); n < c.tail.Load(); n++ {
		c.dropKept(c.pending(n))
	}
	clear(c.chunks[:])
	c.head.Store(c.tail.Load())
}

// partBits is how much of a native request's id numbers the part of the
// command; the rest is the number of its pending reply.
const partBits = 16

// requestID is the native id of a part of a command.
func requestID(number uint64, part int) uint64 { return number<<partBits | uint64(part) }

// Next reports whether a request is part of the command whose answer is to be
// sent next.
func (c *conn) Next(id uint64) bool { return c.head.Load() == id>>partBits }

// Waits reports whether the reader waits for an answer.
func (c *conn) Waits() bool {
	h := c.awaited.Load()
	return h != 0 && c.head.Load() <= h && !c.page.Load()
}

// awaitAnswer stops the reader until a command is answered, all before it being
// answered then as well. It returns false if that is so already.
func (c *conn) awaitAnswer(number uint64) bool {
	if c.head.Load() > number {
		return false
	}
	c.awaited.Store(number)
	c.Pause()
	return true
}

// clientInfo is what CLIENT LIST says of a connection, from any thread.
type clientInfo struct {
	since time.Time

	last  atomic.Pointer[resp.Command]
	proto atomic.Int32
	multi atomic.Int32 // commands in the transaction, -1: there is none

	queued atomic.Int64 // bytes of them

	// Strings, "" or nothing where the client has not said.
	name    atomic.Value
	lib     atomic.Value // the client's library
	version atomic.Value // and its version
}
