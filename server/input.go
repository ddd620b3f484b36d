package server

import (
	"sync/atomic"
	"time"

	"github.com/proa-kv/proa/bufpool"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/protocol"
)

// readBytes is the size of a polling thread's read buffer. It stays in the L2
// cache, and holds some hundred small requests.
const readBytes = 64 << 10

// inputSize is the buffer for a partial frame: what it needs, but no more than
// four times what the peer has really sent, so that a length alone takes next to
// no memory.
func inputSize(have, need int) int {
	return max(min(need, max(4*have, readBytesIdle)), have+1)
}

// connInput is what the requests of a connection take: those that are not carried
// out yet, and those that wait for an outcome. What is not atomic belongs to the
// thread that reads the connection.
type connInput struct {
	admission *admission
	shares    *requestShares        // in which large requests are admitted
	share     atomic.Pointer[share] // of them, that of the claim; the reader stores it

	in      *bufpool.Buffer // bytes of a frame that is not complete, or not looked at yet; nil: none
	inAt    int             // bytes at the front of in that have been carried out
	counted int             // bytes of in that count in admission.inputBytes
	claim   claim           // memory that a large frame has been admitted for
	greeted bool            // a HELLO has been accepted, or a first command of RESP has come
	begun   uint32          // requests that were not answered at once; see begin

	inFlight      atomic.Int32 // requests that wait for an outcome
	inFlightBytes atomic.Int64
	awaits        atomic.Bool  // memory for the frame that has begun
	arrived       atomic.Int64 // bytes of frames that have been admitted
	admittedSince atomic.Int64 // Unix ms since a frame is admitted and not whole, 0: there is none
	frameSince    atomic.Int64 // Unix ms at which the partial frame began, 0: none
	arrival       progress     // of what has been admitted; of checkTimeouts

	expulsion atomic.Pointer[expulsion] // nil: none
}

func (c *connInput) init(a *admission) {
	c.admission, c.shares = a, &a.requests
	c.share.Store(&a.requests.large)
	c.frameSince.Store(time.Now().UnixMilli()) // see Greet
}

// Greet ends the wait for the HELLO, or for the first request of another
// protocol: that is awaited like the rest of a frame.
func (c *connInput) Greet() {
	c.greeted = true
	c.frameSince.Store(0)
}

// Greeted reports whether Greet has been called. For the reader.
func (c *connInput) Greeted() bool { return c.greeted }

// frameBegins notes that a frame is not whole yet. What comes before a greeting
// does not prolong the wait for it.
func (c *connInput) frameBegins(nowMillis uint64) {
	if c.greeted || c.frameSince.Load() == 0 {
		c.frameSince.Store(int64(nowMillis))
	}
}

// frameEnds notes that no frame has begun.
func (c *connInput) frameEnds() {
	if c.greeted {
		c.frameSince.Store(0)
	}
}

// begin counts a request that will be answered later. Only the reader calls it.
func (c *connInput) begin(bytes int) {
	c.begun++
	c.inFlight.Add(1)
	c.inFlightBytes.Add(int64(bytes))
	if bytes > largeCharge {
		c.shares.of(bytes).add(int64(bytes))
	}
}

// end counts it as answered.
func (c *connInput) end(bytes uint32) {
	c.inFlight.Add(-1)
	c.inFlightBytes.Add(-int64(bytes))
	if bytes > largeCharge {
		c.shares.of(int(bytes)).give(int64(bytes))
	}
}

// Begun counts the requests that were not answered at once. For the reader.
func (c *connInput) Begun() uint32 { return c.begun }

// InFlightBytes is the size of the requests that wait for an outcome.
func (c *connInput) InFlightBytes() int64 { return c.inFlightBytes.Load() }

// input is what has come and is not carried out yet.
func (c *connInput) input() []byte { return c.in.B[c.inAt:] }

// compactInput moves the input to the front of its buffer. Only a frame that is
// not whole may be left: so each byte moves once at most.
func (c *connInput) compactInput() {
	if c.inAt == 0 {
		return
	}
	c.in.B = c.in.B[:copy(c.in.B, c.in.B[c.inAt:])]
	c.inAt = 0
}

// consumeBuffered carries out what is whole in c.in and keeps the rest. It
// returns false where the connection must not be read on.
func (p *processor) consumeBuffered(c *conn) bool {
	for {
		taken, need := c.consume(p, c.input())
		if c.claim.held > 0 && taken > 0 {
			p.Forget()
			c.translator.Forget()
		}
		if c.inAt += taken; c.refused || c.inAt == len(c.in.B) {
			c.dropInput()
			return !c.refused
		}
		if taken > 0 {
			c.frameBegins(p.now)
			c.releaseClaim()
		}
		switch {
		case c.paused.Load():
			return false
		case p.credit <= 0:
			return c.countInput(cap(c.in.B))
		case need > 0:
			c.compactInput()
			return c.roomForRest(need, p.now)
		}
		// A pause has ended meanwhile. The end of the input must not be read before
		// what is here is carried out: it would be dropped, and owed for ever.
	}
}

// consumeInPlace carries out what is whole in b, before which nothing of c is
// buffered, and keeps the rest. It returns false where the connection must not be
// read on.
func (p *processor) consumeInPlace(c *conn, b []byte) bool {
	taken, need := c.consume(p, b)
	rest := b[taken:]
	if len(rest) == 0 || c.refused {
		return !c.refused
	}
	size := len(rest) // until it is admitted
	if need <= LargeBytes {
		size = inputSize(len(rest), need)
	}
	c.in = bufpool.Get(size)
	c.in.B = append(c.in.B, rest...)
	return c.roomForRest(need, p.now)
}

// Forget drops every view of the requests that were carried out last. For those
// whose buffer is large and belongs to no pool: while one view of it is left, the
// memory stays, and nothing counts it any more.
func (p *processor) Forget() {
	p.clearExtensions()
	p.cmd = command.Command{}
	p.decoder = decoder{}
	p.mget, p.batch, p.txn, p.split = protocol.MGet{}, protocol.Batch{}, protocol.Txn{}, splitter{}
	p.Scratch = nil
}

// roomForRest makes room in c.in for the rest of a frame of which it holds the
// beginning, and which takes need bytes as far as is known. It returns false
// where the connection must not be read on: it has to wait for memory, or would
// go beyond what all may hold together. The reader calls it.
func (c *conn) roomForRest(need int, now uint64) bool {
	if c.frameSince.Load() == 0 {
		c.frameBegins(now)
	}
	if need > LargeBytes {
		return c.roomForLarge(need)
	}
	if want := inputSize(len(c.in.B), need); want > cap(c.in.B) {
		c.in.Grow(want - len(c.in.B))
	}
	return c.countInput(cap(c.in.B))
}

// roomForLarge is roomForRest for a frame that has to be admitted; see admission.go.
// Its beginning is input as that of any other.
func (c *conn) roomForLarge(need int) bool {
	have := len(c.in.B)
	most := need
	if !c.translator.Sized() { // more is known to come
		most = int(c.srv.cfg.FrameBytesMax)
		need = min(2*need, most)
	}
	size := inputSize(have, need)
	if begun := c.srv.admission.readSize(); c.claim.held == 0 && have < begun {
		if have == cap(c.in.B) {
			c.in.Grow(min(size, begun) - have)
		}
		return c.countInput(cap(c.in.B))
	}
	if c.claim.held == 0 {
		c.share.Store(c.shares.of(most))
		if !c.countInput(cap(c.in.B)) {
			return false
		}
	}
	if int(c.claim.held) <= have && !c.claimInput(min(max(size, partMin), need), most) {
		return false
	}
	if c.admittedSince.Load() == 0 {
		c.arrived.Store(0)
		c.admittedSince.Store(time.Now().UnixMilli())
	}
	if held := int(c.claim.held); cap(c.in.B) < held {
		c.in.Grow(held - have)
	}
	return c.countInput(0) // the claim counts it
}

// claimInput has c's claim hold n bytes, of at most most. It returns false with the
// connection paused if that has to be waited for.
func (c *conn) claimInput(n, most int) bool {
	if c.claim.granted == nil {
		c.claim.granted = func() {
			c.awaits.Store(false)
			c.unpause()
		}
	}
	c.awaits.Store(true)
	if c.share.Load().ask(&c.claim, int64(n), int64(most)) {
		c.awaits.Store(false)
		return true
	}
	c.pause()
	return !c.paused.Load()
}

// countInput has n bytes of c's input counted among those of all connections,
// and refuses c where that is too much: it then returns false, and c has no
// input buffer any more. A stream of another node is counted and not refused:
// it carries many clients' requests, and there are few of them.
func (c *conn) countInput(n int) bool {
	if c.recount(n) || c.forwarded {
		return true
	}
	c.closeWith(0, protocol.StatusBusy, 0, "the memory for requests that have not arrived completely is used up (a part of memory.max_memory_usage); the request was not carried out: send it again later")
	c.dropInput()
	return false
}

// recount is countInput that leaves a refusal to the caller.
func (c *connInput) recount(n int) bool {
	more := n - c.counted
	c.counted = n
	return more == 0 || c.admission.addInput(more)
}

// releaseClaim gives back what the frame at the front of the input was admitted
// for: it has been carried out, or counts as in flight by now. The reader calls
// it.
func (c *connInput) releaseClaim() {
	if c.claim.held > 0 {
		c.share.Load().drop(&c.claim)
		c.admittedSince.Store(0)
		c.trimInput()
	}
}

// trimInput moves what is left of the input out of a buffer that a large frame
// has needed: nothing counts that buffer any more.
func (c *connInput) trimInput() {
	rest := c.input()
	if cap(c.in.B) <= max(4*len(rest), LargeBytes) {
		return
	}
	in := bufpool.Get(max(len(rest), readBytesIdle))
	in.B = append(in.B, rest...)
	c.in.Release()
	c.in, c.inAt = in, 0
}

// A peer that has been admitted, while others wait for the memory, must get on: in any
// sendTime it must send sendMin of its request, and in any takeTime take takeMin of its
// replies. sendTime is a little less than the time between two checks.
const (
	sendTime = 900 * time.Millisecond
	sendMin  = 32 << 10
	takeTime = 3 * time.Second
	takeMin  = 128 << 10
)

// crowdedTimeout is how long a frame that is not admitted may take to arrive, or the
// beginning of one that will be, while the input of all connections is crowded.
const crowdedTimeout = 3 * time.Second

// progress is how far a connection was at the last check of time-outs.
type progress struct {
	at    int64 // Unix ms; 0: there was nothing to look at
	bytes int64
}

// slow notes how far something has got that began at since, in Unix ms, and
// reports whether that is less than least bytes in time. A since of 0 says that
// nothing has begun.
func (g *progress) slow(since, bytes, nowMillis int64, time time.Duration, least int64) bool {
	switch {
	case since == 0:
		g.at = 0
	case g.at < since:
		*g = progress{nowMillis, bytes}
	case nowMillis-g.at >= time.Milliseconds():
		slow := bytes-g.bytes < least
		*g = progress{nowMillis, bytes}
		return slow
	}
	return false
}

// sendsSlowly reports whether others wait for memory that c has been admitted for
// and whose peer does not send. What it has sent since it was admitted counts, also
// before others came to wait; while it is paused itself, it is not slow. The
// connection's mu must be held.
func (c *connInput) sendsSlowly(paused bool, nowMillis int64) bool {
	since := c.admittedSince.Load()
	if paused || !c.share.Load().contended() {
		since = 0
	}
	if c.arrival.at < since {
		c.arrival = progress{at: since}
	}
	return c.arrival.slow(since, c.arrived.Load(), nowMillis, sendTime, sendMin)
}

// expulsion is why a partial frame, and with it its connection, is to end.
type expulsion struct {
	frameSince int64 // of the frame: it may become whole meanwhile
	status     protocol.Status
	message    string
}

// endFrame has the reader refuse the partial frame, and with it c. From any thread.
func (c *conn) endFrame(status protocol.Status, message string) {
	c.expulsion.Store(&expulsion{c.frameSince.Load(), status, message})
	c.socket.interrupt(c)
}

// expel ends c where endFrame has said so and the frame is not whole yet. Its peer
// gets an error, in the order of the replies. It returns false where there is nothing
// to end. The reader calls it.
func (c *conn) expel() bool {
	x := c.expulsion.Swap(nil)
	switch {
	case x == nil || c.refused || x.frameSince == 0 || x.frameSince != c.frameSince.Load():
		return false
	case c.in == nil || len(c.input()) == 0: // a peer that has never sent anything, and holds nothing
		if x.status == protocol.StatusBusy {
			return false
		}
		c.closeWithNotice(x.status, x.message)
	default:
		c.closeWith(0, x.status, 0, x.message)
	}
	c.dropInput()
	return true
}

// dropInput drops the input buffer, and what is known of its beginning.
func (c *conn) dropInput() {
	c.countInput(0)
	if c.in != nil {
		c.in.Release()
		c.in, c.inAt = nil, 0
	}
	c.translator.DropInput()
	if c.claim.granted != nil {
		c.share.Load().drop(&c.claim)
		c.admittedSince.Store(0)
	}
	c.frameEnds()
}
