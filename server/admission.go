package server

import (
	"math"
	"slices"
	"sync"
	"sync/atomic"
)

// Admission: who may take how much of the memory that requests and replies
// have together.
//
// Goal: the process stays within its memory whatever clients send, ask for and
// do not read; somebody always finishes; and small requests never wait for
// large ones.
//
// What is larger than LargeBytes is admitted before it takes memory: a request when
// its first LargeBytes have come, a reply by its size. Who finds no room waits in the
// order of arrival, and costs no more than the bytes that had been read by then: its
// connection is not read, its job lies in no queue.
//
// Guarantee: how long a client makes others wait depends on what it sends, not on what
// it announces or on how many connections it has.
//   - Who has not sent the beginning of a request has no place among those that wait.
//   - A request is granted memory as its bytes come, four times what it has sent; see
//     partMin for the least. Parts have half of the share together, so that one that
//     has all it needs has the other half.
//   - While others wait, who has been admitted must send sendMin in each sendTime, or
//     its memory is passed on. (A peer that does not take its reply: see takeMin.)
//   - What needs no more than middleBytes has a share of its own, and waits for nothing
//     larger.
//
// Who has been admitted with all it will need ends without waiting for anybody else
// who waits. Of those that hold a part, the first is granted all it will need where
// there is no room for a larger part: so somebody always ends.
//
// Everything smaller has a share that large things cannot take. It is not
// admitted one by one. What has not arrived whole is counted in inputBytes. What
// is not sent counts among the replies, but for a little of each connection, and
// a connection that has more is not read while all of their share is used.
//
// Requests of clients, requests of other nodes and replies have a share each,
// because they wait for one another: a client's request may be sent on to
// another node, which has to admit it while its own clients' requests wait for
// this one. What comes from another node is never sent on, so it always ends.
//
// Rejected: to refuse what finds no room (clients come again together, and
// nobody's request is read whole), to admit by the length that is announced (a thousand
// that announce 15 MB and send nothing are expelled two at a time), and to let all grow
// as bytes come (many that are half there wait for each other for ever).

// LargeBytes is the size from which on requests and replies are admitted one by
// one. What is no larger fits in a thread's read buffer.
const LargeBytes = readBytes

// largeCharge is what a request in flight counts for from which on it holds a
// share. Below it, the request was not admitted.
const largeCharge = LargeBytes + replyReserve

// middleBytes is what the largest requests of the share for middling ones take.
const middleBytes = 4 * LargeBytes

// partMin is the least part of a request that is granted memory. It was sent a half of
// it, or less where the input of all connections is large; see readSize.
const partMin = 2 * LargeBytes

// requestCopies is how many times a request that is carried out is in memory:
// in the entry of its shard's log, and in the buffer the log is written from.
const requestCopies = 2

// admission divides the memory of a server.
type admission struct {
	inputMax    int64         // partial requests that are not large, and what MULTI keeps
	heldMax     int64         // reads that wait for other nodes
	freeOutput  int           // unsent bytes of a connection that do not count among the replies
	fairReplies int64         // bytes of large replies that one connection may have at a time
	requests    requestShares // of clients
	forwards    requestShares // of other nodes
	replies     share         // large replies
	wake        chan struct{}

	inputBytes atomic.Int64 // of partial requests that are not large, and of what MULTI keeps
	held       atomic.Int64 // bytes of reads that wait for read indexes or other nodes
}

// requestShares are what the frames of requests above LargeBytes take.
type requestShares struct {
	middle share // up to middleBytes
	large  share // more
}

func (r *requestShares) init(max int64, wake chan<- struct{}) {
	r.middle = share{max: max / 4, wake: wake}
	r.large = share{max: max - max/4, wake: wake}
}

// of returns the share of a frame of n bytes.
func (r *requestShares) of(n int) *share {
	if n <= middleBytes {
		return &r.middle
	}
	return &r.large
}

// freeOutputMin is a few small replies.
const freeOutputMin = 4 << 10

// init divides total bytes among so many connections.
func (a *admission) init(total int64, connections int) {
	part := total / 16
	a.inputMax = 4 * part
	a.heldMax = max(2*part, replyBytesMax)
	a.freeOutput = int(min(max(2*part/int64(connections), freeOutputMin), LargeBytes))
	a.wake = make(chan struct{}, 1)
	a.requests.init(4*part/requestCopies, a.wake)
	a.forwards.init(2*part/requestCopies, a.wake)
	a.replies = share{max: 6 * part, wake: a.wake}
	a.fairReplies = a.replies.max / 8
}

// addInput counts n bytes more of input, and reports whether that is not too much.
func (a *admission) addInput(n int) bool {
	return a.inputBytes.Add(int64(n)) <= a.inputMax || n <= 0
}

// hold accounts for n bytes held by requests that wait for read indexes or for other
// nodes, over all connections: the requests themselves, and the rows that other
// nodes have sent for them. It returns false where there is no room for them.
func (a *admission) hold(n int) bool {
	if a.held.Add(int64(n)) > a.heldMax {
		a.held.Add(-int64(n))
		return false
	}
	return true
}

// repliesFull reports whether a connection with so many bytes of unsent output has to
// wait for others to take theirs.
func (a *admission) repliesFull(unsent int) bool {
	return unsent > a.freeOutput && a.replies.full()
}

// readSize is how much to read at a time of a connection that has no input
// buffer: little where those that wait for memory keep too much of what was
// read before it was known how large their requests are.
func (a *admission) readSize() int {
	if a.crowded() {
		return readBytesIdle
	}
	return readBytes
}

// crowded reports whether partial requests use more than half of what they may.
func (a *admission) crowded() bool { return a.inputBytes.Load() > a.inputMax/2 }

func (a *admission) shares() [5]*share {
	return [...]*share{&a.requests.middle, &a.requests.large, &a.forwards.middle, &a.forwards.large, &a.replies}
}

// share is an amount of memory that claims are granted parts of, first come
// first served. It is safe for concurrent use; granted runs without locks held.
type share struct {
	max  int64 // bytes
	wake chan<- struct{}

	mu      sync.Mutex
	used    int64    // may be above max, see next
	growing []*claim // are urgent; all come before fresh
	fresh   []*claim // wait and hold nothing

	waiting atomic.Int32 // claims in the lists
	spent   atomic.Bool  // used has reached max
}

// claim is somebody's part of a share. The zero claim holds nothing.
type claim struct {
	held int64 // bytes granted
	want int64 // bytes waited for in addition; 0: none
	most int64 // never holds more
	head bool  // others that are counted in the share cannot end before it does

	deadline int64  // Unix ms by which granted must have been called; 0: none
	granted  func() // has been granted what it waited for
	expired  func() // has waited until its deadline; the claim holds nothing
}

// urgent reports whether memory that others wait for can be given back only
// after k has been granted: what k holds, or what stands behind it.
func (k *claim) urgent() bool { return k.held > 0 || k.head }

// ask has k hold n bytes in all, and at most most at any later time. It returns
// false if k has to wait, for granted or expired to be called. A claim that
// holds all that it ever will need must say so in most: it is what keeps those
// that grow from waiting for each other.
func (s *share) ask(k *claim, n, most int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	k.want, k.most = n-k.held, max(n, most)
	if k.urgent() {
		s.growing = append(s.growing, k)
	} else {
		s.fresh = append(s.fresh, k)
	}
	if s.first() == k && s.grant(k) {
		return true
	}
	s.waiting.Add(1)
	return false
}

// first returns the claim that has to be granted next. s.mu must be held.
func (s *share) first() *claim {
	switch {
	case len(s.growing) > 0:
		return s.growing[0]
	case len(s.fresh) > 0:
		return s.fresh[0]
	}
	return nil
}

// grant gives the first claim what it waits for, if there is room. s.mu must be
// held.
//
// A part of what a claim will need is granted while half of the share is free of
// others, so that there is always room for all of one.
//
// What is larger than the share is granted when nobody else uses it. A claim
// that grows may hold what others wait for, who may grow as well; and a reply
// over RESP may have others behind it, which are made already and cannot be
// sent before it. So the first of these goes beyond the share: one that grows
// while no more is used than half, which parts alone can be, and a reply while no
// more is used than the share. Whoever goes beyond its room is granted all that it
// ever will need: then it ends without asking again, and at most one is beyond the
// share at a time.
func (s *share) grant(k *claim) bool {
	urgent, room, beyond := k.urgent(), s.max, s.max/2
	if k.held+k.want < k.most {
		room = s.max / 2
	}
	if k.head {
		beyond = s.max
	}
	switch all := k.most - k.held; {
	case s.used+k.want <= room:
	case s.used == k.held, urgent && (s.used+all <= s.max || s.used <= beyond):
		k.want = all
	default:
		return false
	}
	s.use(k.want)
	k.held, k.want = k.held+k.want, 0
	if urgent {
		s.growing = pop(s.growing)
	} else {
		s.fresh = pop(s.fresh)
	}
	return true
}

func pop(list []*claim) []*claim {
	list[0] = nil
	if len(list) == 1 {
		return nil
	}
	return list[1:]
}

// next grants the claim that has waited longest, if there is room for it. The
// caller calls its granted.
func (s *share) next() *claim {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.first()
	if k == nil || !s.grant(k) {
		return nil
	}
	s.waiting.Add(-1)
	return k
}

// full reports whether nothing is left. It takes no lock: each request of a
// connection with a backlog asks.
func (s *share) full() bool { return s.spent.Load() }

// use changes what is used by n bytes. s.mu must be held.
func (s *share) use(n int64) {
	s.used += n
	if spent := s.used >= s.max; spent != s.spent.Load() {
		s.spent.Store(spent)
	}
}

// add counts what is there already and cannot wait.
func (s *share) add(n int64) {
	s.mu.Lock()
	s.use(n)
	s.mu.Unlock()
}

// give returns memory. From any thread, with any lock held.
func (s *share) give(n int64) {
	s.mu.Lock()
	s.use(-n)
	some := s.first() != nil
	s.mu.Unlock()
	if some {
		s.wakeUp()
	}
}

// drop makes k the zero claim: it does not wait any more, and what it held goes
// back.
func (s *share) drop(k *claim) {
	s.mu.Lock()
	if k.want > 0 {
		s.growing, s.fresh = without(s.growing, k), without(s.fresh, k)
		s.waiting.Add(-1)
	}
	s.use(-k.held)
	k.held, k.want = 0, 0
	some := s.first() != nil
	s.mu.Unlock()
	if some {
		s.wakeUp()
	}
}

// wakeUp has the claims that wait looked at.
func (s *share) wakeUp() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func without(list []*claim, k *claim) []*claim {
	return slices.DeleteFunc(list, func(x *claim) bool { return x == k })
}

// overdue takes out a claim that has waited until its deadline. The caller
// calls its expired.
func (s *share) overdue(nowMillis int64) *claim {
	if s.waiting.Load() == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range slices.Concat(s.growing, s.fresh) {
		if k.held == 0 && k.deadline != 0 && k.deadline < nowMillis {
			s.growing, s.fresh = without(s.growing, k), without(s.fresh, k)
			s.waiting.Add(-1)
			k.want = 0
			s.wakeUp()
			return k
		}
	}
	return nil
}

// contended reports whether somebody waits.
func (s *share) contended() bool { return s.waiting.Load() > 0 }

// unlimit lets everybody have what they ask for, from now on.
func (s *share) unlimit() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.max = math.MaxInt64
	s.use(0)
}

// run grants what has become free, until the server closes. Then everything is
// granted: who waited finds out by itself that the end has come.
func (a *admission) run(stopped <-chan struct{}) {
	for closed := false; ; {
		for _, x := range a.shares() {
			for k := x.next(); k != nil; k = x.next() {
				k.granted()
			}
		}
		if closed {
			return
		}
		select {
		case <-a.wake:
		case <-stopped:
			closed = true
			for _, x := range a.shares() {
				x.unlimit()
			}
		}
	}
}

// expireClaims answers who has waited too long. Called once a second.
func (a *admission) expireClaims(nowMillis int64) {
	for _, x := range a.shares() {
		for k := x.overdue(nowMillis); k != nil; k = x.overdue(nowMillis) {
			k.expired()
		}
	}
}
