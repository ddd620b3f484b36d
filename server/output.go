package server

import (
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/proa-kv/proa/bufpool"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/protocol"
)

// connOutput is what a connection has to send, and what that takes. What is not
// atomic is guarded by mu, which is never held across a system call.
type connOutput struct {
	admission *admission // of whose memory granted is a part
	max       int        // unsent bytes

	mu      sync.Mutex
	out     *bufpool.Buffer // replies to be written; nil: none
	sending *bufpool.Buffer // replies being written
	sent    int             // bytes of sending that have gone
	marked  bool            // on a list of connections whose output is to be sent
	closing bool            // close once everything is written
	closed  bool            // the descriptor is, or is about to be, gone
	parked  []job           // wait until the peer has taken more of its replies
	took    int64           // bytes of replies that the socket has taken
	granted int64           // bytes of replies that count among those of all connections
	claimed int64           // bytes of large replies that wait for memory, or are being made

	parkedJobs   atomic.Int32 // len(parked)
	dropped      atomic.Bool  // replies have been thrown away: nobody takes them
	kept         atomic.Int64 // bytes of replies that the translator keeps until their turn
	walked       atomic.Int64 // bytes that a walk of the translator's holds: they count among the replies, and pause nothing
	blockedSince atomic.Int64 // Unix ms since the peer takes no replies, 0: it does
	departure    progress     // of replies; of checkTimeouts
}

func (c *connOutput) init(a *admission, max int) { c.admission, c.max = a, max }

// outputSize is the smallest output buffer: several small replies, or one row
// of ordinary size.
const outputSize = 1 << 10

// writeBudget is how much of one connection's output is written before the others
// have their turn, in bytes, and writeBytes how much in one system call.
const (
	writeBudget = 1 << 20
	writeBytes  = 256 << 10
)

// output returns the buffer that replies are appended to. c.mu must be held.
func (c *connOutput) output() *bufpool.Buffer {
	if c.out == nil {
		c.out = bufpool.Get(outputSize)
	}
	return c.out
}

// unsent is how many bytes wait to be written. c.mu must be held.
func (c *connOutput) unsent() int {
	n := c.outputLen()
	if c.sending != nil {
		n += len(c.sending.B) - c.sent
	}
	if kept := c.kept.Load(); kept != 0 && !c.dropped.Load() {
		n += int(kept)
	}
	return n
}

// Backlog is how many bytes of replies are not sent.
func (c *connOutput) Backlog() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.unsent()
}

// outputBytes is how many bytes of replies nobody has begun to write.
func (c *connOutput) outputBytes() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.outputLen()
}

// outputLen is outputBytes for who holds c.mu. A read that missed the cache may have
// left an empty buffer, which nobody is going to write.
func (c *connOutput) outputLen() int {
	if c.out == nil {
		return 0
	}
	return len(c.out.B)
}

// Dropped reports whether replies are thrown away, since nobody takes them.
func (c *connOutput) Dropped() bool { return c.dropped.Load() }

// Keep counts n bytes of replies that the Translator keeps until their turn.
func (c *connOutput) Keep(n int) { c.kept.Add(int64(n)) }

// Walk counts n bytes that a walk over keys holds. They are accounted for by
// the next AccountWalk.
func (c *connOutput) Walk(n int) { c.walked.Add(int64(n)) }

// AccountWalk has what Walk has counted accounted for among all replies.
func (c *connOutput) AccountWalk() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unaccount()
	c.account(c.unsent())
}

// nextOutput begins to send what is in the output, translated. It returns false if
// there is nothing to send. c.mu must be held; it is released meanwhile. Only the
// thread that writes c calls it.
func (c *conn) nextOutput() bool {
	for c.out != nil {
		native := c.out
		c.sending, c.out, c.sent = native, nil, 0
		if !c.translated {
			return true
		}
		c.mu.Unlock()
		rendered := c.translator.Render(native)
		c.mu.Lock()
		c.sending = rendered
		native.Release()
		if rendered == nil {
			continue
		}
		if len(rendered.B) > LargeBytes { // it may be larger than what it was made of
			c.account(c.unsent())
		}
		return true
	}
	return false
}

// largeReply is a job whose reply is larger than LargeBytes and has to be
// admitted before it is made.
type largeReply struct {
	job   job
	claim claim
	bytes int  // the reply may take
	taken bool // up, and counted in conn.claimed; never while it is parked
	asked bool // the claim waits or holds
}

// NoReplyMemory is the error for a reply that finds no room and cannot wait for it.
const NoReplyMemory = "too much memory is used by replies that clients have not read"

// replyMax is how large a reply j may make, or take its value from.
func (j *job) replyMax() int {
	if j.large == nil {
		return LargeBytes
	}
	return max(LargeBytes, j.large.bytes)
}

// claimReply makes j, whose reply would have taken more than it may, wait for
// n bytes, and then run again.
func (e *executor) claimReply(j job, n int) {
	j.dropClaim()
	j.large = &largeReply{bytes: n}
	e.run(j)
}

// admitReply reports whether j may make its reply. Otherwise j has been taken
// over, and runs again when it may.
func (e *executor) admitReply(j *job) bool {
	l := j.large
	if l == nil || l.claim.held > 0 {
		return true
	}
	s, c := e.srv, j.c
	n := int64(l.bytes)
	if c.translated {
		n *= 2 // it is translated
	}
	l.claim.head = c.translated // see parks
	l.asked, l.job = true, *j
	l.claim.deadline = j.deadline
	l.claim.granted = func() { s.requeue(l.job) }
	l.claim.expired = func() {
		var t touched
		s.failJob(&l.job, &refusal{status: protocol.StatusDeadlineExceeded, message: "the deadline passed while the reply waited for memory"}, &t)
		t.send()
	}
	return s.admission.replies.ask(&l.claim, n, n)
}

// requeue puts a job back on the queue, which it may overfill: it has been
// counted already.
func (s *Server) requeue(j job) {
	if !s.jobs.add(j, math.MaxInt) {
		j.drop() // closing
	}
}

// drop gives back what l was admitted for. It takes the lock of c, under which
// c drops its parked jobs: a job that has been taken up is never parked.
func (l *largeReply) drop(c *conn) {
	if !l.taken {
		return
	}
	c.srv.admission.replies.drop(&l.claim)
	c.mu.Lock()
	l.taken = false
	c.claimed -= int64(l.bytes)
	c.mu.Unlock()
	c.unpause() // its reply may be sent already: nobody else would take up what waits for this
}

// dropClaim gives back what j was admitted for. Who waits for other nodes must
// hold no memory here: they may wait for it in turn.
func (j *job) dropClaim() {
	if j.large != nil {
		j.large.drop(j.c)
		j.large = nil
	}
}

// pass has what l was admitted for counted with the output of c, which the
// reply is part of now. c.mu must be held.
func (l *largeReply) pass(c *conn) {
	c.granted += l.claim.held // put gives back what it did not take
	l.claim.held = 0
}

// parks reports whether j has to wait until the peer has taken more of its
// replies, if there may be so many bytes of them. A connection has no more of
// the memory for large replies than is fair, unless one alone takes more; if it
// is translated a large reply waits for its turn, since it could not be sent before.
// Whatever else waits for an answer that is next must not keep it. c.mu must be
// held.
func (c *conn) parks(j *job, unsentMax int) bool {
	large := j.large != nil && !c.forwarded
	switch {
	case j.large != nil && j.large.asked:
		return false // see largeReply.drop
	case large && c.translated:
		return !c.translator.Next(j.id) || c.granted > 0 && (c.outputLen() > 0 || c.sending != nil)
	case large:
		has := c.claimed + c.granted
		return has > 0 && has+int64(j.large.bytes) > c.srv.admission.fairReplies || c.unsent() >= unsentMax
	case c.translator.Next(j.id):
		return false
	}
	return c.unsent() >= unsentMax
}

// errRowsUntaken is the error to a client whose read in the log's order has found
// more than there is room for behind the replies that it has not taken.
const errRowsUntaken = "the client has not read earlier replies, which leaves no memory for this value; read the key again"

// rowRoom is how many bytes of rows the answer to a command of the log may
// have: bodyBytesMax, or less where the connection's unsent replies would
// become too many. A command of a few bytes may answer with 16 MiB, and a
// thousand of them are answered in one pass, which cannot wait until the peer
// has taken some. What the connection was charged for has its room. c.mu must
// be held.
func (c *connOutput) rowRoom(tag command.Tag, r *command.Result) int {
	n := rowBytes(r)
	if n <= int(tag.Aux) || n <= outcomeBytes {
		return bodyBytesMax
	}
	return c.roomFor(n)
}

// roomFor is rowRoom for an answer with n bytes of rows. c.mu must be held.
func (c *connOutput) roomFor(n int) int {
	unsent, most := c.unsent(), c.max
	if unsent == 0 || unsent+n <= most {
		return bodyBytesMax
	}
	if !c.admission.replies.full() {
		most = max(most, replyBytesMax)
	}
	return min(max(most-unsent, 0), bodyBytesMax)
}

// rowBytes is how many bytes of rows r has.
func rowBytes(r *command.Result) int {
	n := len(r.Value)
	for i := range r.Results {
		n += len(r.Results[i].Value)
	}
	return n
}

// account has the unsent output of c counted among the replies, beyond what
// each connection may have without. c.mu must be held.
func (c *connOutput) account(unsent int) {
	if c.closed {
		return
	}
	if more := int64(unsent) + c.walks() - c.granted; more > int64(c.admission.freeOutput) {
		c.granted += more
		c.admission.replies.add(more)
	}
}

// unaccount gives back what has been sent. c.mu must be held.
func (c *connOutput) unaccount() {
	keep := min(c.granted, int64(c.unsent())+c.walks())
	c.admission.replies.give(c.granted - keep)
	c.granted = keep
}

// walks is how many bytes a walk of c holds that are no output yet. They count
// among the replies, but do not keep c from being read: the reader has to go on
// with the walk. c.mu must be held.
func (c *connOutput) walks() int64 {
	if c.dropped.Load() {
		return 0
	}
	return c.walked.Load()
}

// receivesSlowly reports whether others wait for memory that replies to c take, and
// its peer does not take them. c.mu must be held.
func (c *connOutput) receivesSlowly(nowMillis int64) bool {
	since := c.blockedSince.Load()
	if c.granted == 0 || !c.admission.replies.contended() {
		since = 0
	}
	return c.departure.slow(since, c.took, nowMillis, takeTime, takeMin)
}

// canUnpark reports whether a parked job can be taken up. c.mu must be held.
func (c *conn) canUnpark() bool {
	return slices.ContainsFunc(c.parked, func(j job) bool { return !c.parks(&j, c.max/2) })
}

// takeParked returns the parked jobs that can be taken up, in order. c.mu must
// be held.
func (c *conn) takeParked() (list []job) {
	if len(c.parked) == 0 {
		return nil
	}
	kept := c.parked[:0]
	for _, j := range c.parked {
		if c.parks(&j, c.max/2) {
			kept = append(kept, j)
		} else {
			list = append(list, j)
		}
	}
	clear(c.parked[len(kept):])
	c.parked = kept
	c.parkedJobs.Store(int32(len(kept)))
	return list
}

// dropOutput drops everything unsent, and the jobs that wait to add to
// it. c.mu must be held.
func (c *conn) dropOutput() {
	if c.out != nil {
		c.out.Release()
		c.out = nil
	}
	if c.sending != nil {
		c.sending.Release()
		c.sending = nil
	}
	for i := range c.parked {
		c.end(c.parked[i].charge)
		c.parked[i].release()
	}
	c.parked = nil
	c.parkedJobs.Store(0)
	c.dropped.Store(true)
	c.unaccount()
}
