package server

import (
	"math"
	"slices"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/protocol"
)

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
func (p *processor) claimReply(j job, n int) {
	j.dropClaim()
	j.large = &largeReply{bytes: n}
	p.run(j)
}

// admitReply reports whether j may make its reply. Otherwise j has been taken
// over, and runs again when it may.
func (p *processor) admitReply(j *job) bool {
	l := j.large
	if l == nil || l.claim.held > 0 {
		return true
	}
	s, c := p.srv, j.c
	n := int64(l.bytes)
	if c.translated {
		n *= 2 // it is translated
	}
	l.claim.head = c.translated // see parks
	l.asked, l.job = true, *j
	l.claim.deadline = j.deadline
	l.claim.granted = func() { s.takeUp(l.job) }
	l.claim.expired = func() {
		var t touched
		s.failJob(&l.job, &refusal{status: protocol.StatusDeadlineExceeded, message: "the deadline passed while the reply waited for memory"}, &t)
		t.flush()
	}
	return s.admission.replies.ask(&l.claim, n, n)
}

// takeUp puts a job back on the queue, which it may overfill: it has been
// counted already.
func (s *Server) takeUp(j job) {
	if !s.jobs.add(j, math.MaxInt) {
		j.drop() // closing
	}
}

// drop gives back what l was admitted for. It takes the lock of c, under which
// c lets go of its parked jobs: a job that has been taken up is never parked.
func (l *largeReply) drop(c *conn) {
	if !l.taken {
		return
	}
	c.srv.admission.replies.drop(&l.claim)
	c.mu.Lock()
	l.taken = false
	c.claimed -= int64(l.bytes)
	c.mu.Unlock()
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
		return !c.translator.Next(j.id) || c.granted > 0 && (c.out != nil || c.sending != nil)
	case large:
		has := c.claimed + c.granted
		return has > 0 && has+int64(j.large.bytes) > c.srv.admission.fairReplies || c.unsent() >= unsentMax
	case c.translator.Next(j.id):
		return false
	}
	return c.unsent() >= unsentMax
}

// errRowsUntaken is what a client hears whose read in the log's order has found
// more than there is room for behind the replies that it has not taken.
const errRowsUntaken = "the client has not read earlier replies, which leaves no memory for this value; read the key again"

// rowRoom is how many bytes of rows the answer to a command of the log may
// have: bodyBytesMax, or less where the connection's unsent replies would
// become too many. A command of a few bytes may answer with 16 MiB, and a
// thousand of them are answered in one pass, which cannot wait until the peer
// has taken some. What the connection was charged for has its room. c.mu must
// be held.
func (c *conn) rowRoom(tag command.Tag, r *command.Result) int {
	n := rowBytes(r)
	if n <= int(tag.Aux) || n <= outcomeBytes {
		return bodyBytesMax
	}
	return c.roomFor(n)
}

// roomFor is rowRoom for an answer with n bytes of rows. c.mu must be held.
func (c *conn) roomFor(n int) int {
	unsent, most := c.unsent(), c.srv.cfg.OutputBytesMax
	if unsent == 0 || unsent+n <= most {
		return bodyBytesMax
	}
	if !c.srv.admission.replies.full() {
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
func (c *conn) account(unsent int) {
	if c.closed {
		return
	}
	if more := int64(unsent) + c.walks() - c.granted; more > int64(c.srv.admission.freeOutput) {
		c.granted += more
		c.srv.admission.replies.add(more)
	}
}

// accountRendered is account for what has just been rendered, which may be larger
// than the native frames it was made of. c.mu must be held.
func (c *conn) accountRendered() {
	if c.sending != nil && len(c.sending.B) > LargeBytes {
		c.account(c.unsent())
	}
}

// unaccount gives back what has been sent. c.mu must be held.
func (c *conn) unaccount() {
	keep := min(c.granted, int64(c.unsent())+c.walks())
	c.srv.admission.replies.give(c.granted - keep)
	c.granted = keep
}

// walks is how many bytes a walk of c holds that are no output yet. They count
// among the replies, but do not keep c from being read: the reader has to go on
// with the walk. c.mu must be held.
func (c *conn) walks() int64 {
	if c.dropped.Load() {
		return 0
	}
	return c.walked.Load()
}

// crowdsOut reports whether c, with so many bytes of unsent output, has to wait
// for others to take theirs.
func (s *Server) crowdsOut(unsent int) bool {
	return unsent > s.admission.freeOutput && s.admission.replies.full()
}

// tarries reports whether others wait for memory that replies to c take, and
// its peer does not take them. c.mu must be held.
func (c *conn) tarries(nowMillis int64) bool {
	since := c.blockedSince.Load()
	if c.granted == 0 || !c.srv.admission.replies.contended() {
		since = 0
	}
	return c.departure.slow(since, c.took, nowMillis)
}

// roomy reports whether a parked job can be taken up. c.mu must be held.
func (c *conn) roomy() bool {
	return slices.ContainsFunc(c.parked, func(j job) bool { return !c.parks(&j, c.srv.cfg.OutputBytesMax/2) })
}

// takeParked returns the parked jobs that can be taken up, in order. c.mu must
// be held.
func (c *conn) takeParked() (list []job) {
	kept := c.parked[:0]
	for _, j := range c.parked {
		if c.parks(&j, c.srv.cfg.OutputBytesMax/2) {
			kept = append(kept, j)
			continue
		}
		list = append(list, j)
	}
	clear(c.parked[len(kept):])
	c.parked = kept
	c.parkedJobs.Store(int32(len(kept)))
	return list
}
