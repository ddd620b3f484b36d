package bench

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/proa-kv/proa/protocol"
)

// call is one of the requests a worker keeps in flight. It is not bound to a
// connection: each operation goes to the node that leads its row's shard.
type call struct {
	Operation
	conn    int32 // the connection it is or was on; none: any will do
	active  bool
	waiting bool // to be sent again at the time again
	second  bool // of a read-modify-write, the write is under way
	counted bool // the operation belongs to the measured part

	due   time.Duration // the latency counts from here; 0 until it is sent
	sent  time.Duration // the operation's first request
	wrote time.Duration // the request that is under way, or 0
	again time.Duration
	found uint64 // rows of a scan so far
}

const none = -1

// reads reports whether the next request of a call is a GET, or the one under way.
func (c *call) reads() bool { return c.Kind == KindRead || c.Kind == KindModify && !c.second }

// writes reports whether that request can have an effect.
func (c *call) writes() bool { return c.Kind.writes() && !c.reads() }

// peer is what a worker knows of one of its connections.
type peer struct {
	member   int16
	inFlight int
	out      []byte // requests to be written together
	dirty    bool
}

// dialect is how a worker talks to its servers: what its requests are on the
// wire, and what it finds in the replies.
type dialect interface {
	// appendRequest appends the next request of a call, whose key is in the
	// worker's key unless it needs none.
	appendRequest(dst []byte, at int32) []byte
	// takeReplies takes the whole replies at the start of b, which have arrived on
	// connection i, and returns the rest, the start of a reply. An error ends the
	// run.
	takeReplies(i int, b []byte, now time.Duration) (rest []byte, err error)
}

// worker makes one thread's part of a load. All of it belongs to that thread
// but for what is marked.
//
// Its calls are either free, in flight, or waiting to be sent again. A free one
// is taken as soon as an operation is due, which in a closed loop is at once.
// Requests are gathered by connection and written when the replies that one
// read has brought are dealt with.
type worker struct {
	wire
	load    *Load
	cluster *cluster
	src     *Generator
	track   tracker // nil without verification
	dialect dialect

	loading   bool   // the rows are loaded, and nothing is measured
	toLoad    uint64 // rows loaded so far
	peers     []peer // by their number in wire
	byMember  [][]int32
	turn      []int // by member, the connection to take next
	anyTurn   int
	down      int
	reconnect *reconnector

	calls   []call
	free    []int32
	queued  []int32 // encoded and not yet written
	dirty   []int32 // connections with something to write
	waiting []int32
	key     []byte

	epoch time.Time // of the clock
	plan
	meter
	unanswered int
	progress   time.Duration // when there was a reply, or nothing to wait for
	timer      int           // timerfd, for an open loop
	timerSet   time.Duration

	cancelled atomic.Bool // set by others
}

// clock returns the time since the Harness was made, never 0.
func (w *worker) clock() time.Duration { return time.Since(w.epoch) + 1 }

// run makes the load. It returns when no request is unanswered, unless it
// fails.
func (w *worker) run() (err error) {
	defer func() { err = errors.Join(err, w.meter.stop(w.measuring)) }()
	w.progress = w.clock()
	for {
		now := w.clock()
		if err := w.startDue(now); err != nil {
			return err
		}
		if err := w.checkProgress(now); err != nil {
			return err
		}
		if w.ended && w.unanswered == 0 {
			return nil
		}
		n, err := w.wait(w.waitTime(now))
		if err != nil {
			return err
		}
		for _, ev := range w.events[:n] {
			if err := w.handle(int(ev.Fd), ev.Events); err != nil {
				return err
			}
		}
	}
}

// checkProgress does what is due at a time: the run ends, a step of the series is
// over, a lost connection is open again. It fails if there was no progress for the
// timeout.
func (w *worker) checkProgress(now time.Duration) error {
	if !w.ended && (w.cancelled.Load() || now >= w.end || w.budget == 0) {
		w.stop(now)
	}
	if w.cancelled.Load() {
		w.dropWaiting(now)
	}
	w.handOver(int64((now - w.origin) / seriesStep))
	if w.down > 0 {
		if err := w.takeReopened(); err != nil {
			return err
		}
	}
	allDown := w.down == len(w.peers)
	switch {
	case w.unanswered == 0 && !allDown:
		w.progress = now
	case now-w.progress <= w.load.Timeout:
	case allDown:
		return fmt.Errorf("%w, and did not take a new one for %v", ErrClosed, w.load.Timeout)
	default:
		return fmt.Errorf("%w: %d requests unanswered for %v", ErrStalled, w.unanswered, w.load.Timeout)
	}
	return nil
}

// stop has no further operation begin.
func (w *worker) stop(now time.Duration) {
	w.ended = true
	if w.budget > 0 {
		w.tally.ended = max(w.tally.ended, now)
	}
	w.tally.lateEnd, w.tally.Unsent = w.left(now)
	w.tally.lateMax = max(w.tally.lateMax, w.tally.lateEnd)
}

// waitTime returns for how many milliseconds to wait at most, and sets the
// timer where something is due before.
func (w *worker) waitTime(now time.Duration) int {
	due := time.Duration(math.MaxInt64)
	if w.pace.gap > 0 && !w.ended && len(w.free) > 0 && w.down < len(w.peers) {
		due = w.pace.due()
	}
	for _, c := range w.waiting {
		due = min(due, w.calls[c].again)
	}
	if w.timer < 0 || due-now > waitMillis*time.Millisecond {
		return waitMillis
	}
	if due <= now {
		return 0
	}
	if due != w.timerSet {
		w.timerSet = due
		spec := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(due - now))}
		if unix.TimerfdSettime(w.timer, 0, &spec, nil) != nil {
			return 1
		}
	}
	return waitMillis
}

// timerEvent marks what epoll reports of the timer. It is edge-triggered, so
// that nobody need read it.
const timerEvent = -1

func (w *worker) openTimer() error {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("bench: timer: %w", err)
	}
	w.timer = fd
	ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: timerEvent}
	if err := unix.EpollCtl(w.epoll, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
		return fmt.Errorf("bench: epoll: %w", err)
	}
	return nil
}

func (w *worker) closeAll() error {
	err := w.wire.close()
	if w.timer >= 0 {
		err = errors.Join(err, unix.Close(w.timer))
		w.timer = -1
	}
	return err
}

// handle does what epoll reports of connection i.
func (w *worker) handle(i int, events uint32) error {
	if i == timerEvent {
		w.timerSet = 0
		return w.startDue(w.clock())
	}
	if w.links[i].fd < 0 {
		return nil // it was lost while others of the same wait were handled
	}
	if events&unix.EPOLLOUT != 0 {
		if err := w.resume(i); err != nil {
			return w.connectionLost(i, err)
		}
	}
	if events&^unix.EPOLLOUT != 0 {
		return w.receive(i)
	}
	return nil
}

// startDue begins what is due and writes it.
func (w *worker) startDue(now time.Duration) error {
	if !w.measuring && !w.loading && now >= w.warm {
		w.measuring, w.budget = true, w.perThread
		if err := w.meter.start(); err != nil {
			return err
		}
	}
	if len(w.waiting) > 0 {
		w.resendDue(now)
	}
	for len(w.free) > 0 && w.isDue(now) {
		at := w.free[len(w.free)-1]
		w.free = w.free[:len(w.free)-1]
		w.begin(at)
	}
	return w.sendQueued()
}

// isDue reports whether another operation is to begin.
func (w *worker) isDue(now time.Duration) bool {
	switch {
	case w.ended || w.budget == 0 || w.down == len(w.peers):
		return false
	case w.pace.gap == 0:
		return now < w.end
	}
	due := w.pace.due()
	return due <= now && due < w.end
}

// begin begins an operation with a free call.
func (w *worker) begin(at int32) {
	c := &w.calls[at]
	if w.loading {
		w.src.load(&c.Operation, w.toLoad)
		w.toLoad++
	} else {
		w.src.draw(&c.Operation)
	}
	c.active, c.waiting, c.second, c.found = true, false, false, 0
	c.due, c.sent, c.wrote = 0, 0, 0
	if w.pace.gap > 0 {
		c.due = w.pace.due()
		c.counted = c.due >= w.warm
		c.conn = none // each takes the next connection, as separate users would
		w.pace.step()
	} else {
		c.counted = w.measuring || w.loading
	}
	if w.budget != noBudget && c.counted { // what was planned for the warm-up takes nothing from it
		w.budget--
	}
	w.unanswered++
	w.send(at)
}

// send appends the next request of a call to its connection's.
func (w *worker) send(at int32) {
	c := &w.calls[at]
	if c.Kind != KindPing && c.Kind != KindScan {
		w.key = w.src.AppendKey(w.key[:0], c.Row)
	}
	i := w.chooseConnection(c)
	if i == none {
		w.resendLater(at, noConnectionPause)
		return
	}
	p := &w.peers[i]
	c.conn = i
	p.inFlight++
	before := len(p.out)
	p.out = w.dialect.appendRequest(p.out, at)
	if c.counted {
		w.tally.BytesOut += uint64(len(p.out) - before)
	}
	if !p.dirty {
		p.dirty = true
		w.dirty = append(w.dirty, i)
	}
	w.queued = append(w.queued, at)
}

// chooseConnection chooses the connection for a call whose key is in w.key: that of its
// last request if it leads to the right node, or else the next one that does.
func (w *worker) chooseConnection(c *call) int32 {
	target := w.target(c)
	if c.conn != none && w.links[c.conn].fd >= 0 && (target == nobody || w.peers[c.conn].member == target) {
		return c.conn
	}
	if target != nobody {
		if i := w.next(w.byMember[target], &w.turn[target]); i != none {
			return i
		}
	}
	for range w.peers {
		if w.anyTurn++; w.anyTurn >= len(w.peers) {
			w.anyTurn = 0
		}
		if w.hasRoom(int32(w.anyTurn)) {
			return int32(w.anyTurn)
		}
	}
	return none
}

// target returns the member that should get the request, or nobody where any
// will do.
func (w *worker) target(c *call) int16 {
	switch {
	case w.load.AnyNode || len(w.cluster.members) == 1 || c.Kind == KindPing || c.Kind == KindScan:
		return nobody
	case w.isWeak(c):
		return nobody
	}
	return w.cluster.table.Load().of[protocol.Slot(w.key)]
}

// isWeak reports whether the next request of a call is a read that any replica
// may answer.
func (w *worker) isWeak(c *call) bool {
	return w.load.Consistency != protocol.Linearizable && c.reads()
}

// next returns the next of some connections that has room.
func (w *worker) next(conns []int32, turn *int) int32 {
	for range conns {
		if *turn++; *turn >= len(conns) {
			*turn = 0
		}
		if w.hasRoom(conns[*turn]) {
			return conns[*turn]
		}
	}
	return none
}

// hasRoom reports whether the server takes another request on connection i.
func (w *worker) hasRoom(i int32) bool {
	most := w.cluster.members[w.peers[i].member].InFlightMax
	return w.links[i].fd >= 0 && (most == 0 || w.peers[i].inFlight < most)
}

// sendQueued writes what was encoded and notes the time for it.
func (w *worker) sendQueued() error {
	if len(w.queued) == 0 {
		return nil
	}
	now := w.clock()
	for _, at := range w.queued {
		c := &w.calls[at]
		if c.sent == 0 {
			c.sent = now
			if c.due == 0 {
				c.due = now
			} else if c.counted {
				w.tally.lateMax = max(w.tally.lateMax, now-c.due)
			}
		}
		if c.wrote == 0 {
			c.wrote = now
		}
	}
	w.queued = w.queued[:0]
	for len(w.dirty) > 0 {
		i := w.dirty[len(w.dirty)-1]
		w.dirty = w.dirty[:len(w.dirty)-1]
		p := &w.peers[i]
		out := p.out
		p.out, p.dirty = out[:0], false
		if w.links[i].fd < 0 {
			continue // lost, and so are its calls
		}
		if err := w.write(int(i), out); err != nil {
			if err := w.connectionLost(int(i), err); err != nil {
				return err
			}
		}
	}
	return nil
}

// receive takes the replies that have arrived on connection i.
func (w *worker) receive(i int) error {
	for more := true; more; more = w.links[i].filled {
		if err := w.receiveSome(i); err != nil {
			return err
		}
	}
	return nil
}

func (w *worker) receiveSome(i int) error {
	b, err := w.read(i)
	if err != nil {
		return w.connectionLost(i, err)
	}
	if len(b) == 0 {
		return nil
	}
	now := w.clock()
	w.progress = now
	b, err = w.dialect.takeReplies(i, b, now)
	if err != nil {
		return err
	}
	if err := w.keepPartial(i, b); err != nil {
		return err
	}
	return w.startDue(now)
}

// refused deals with a reply that carries no result.
func (w *worker) refused(at int32, s protocol.Status, m *protocol.ErrorReply, now time.Duration) {
	c := &w.calls[at]
	again := s == protocol.StatusNotLeader || w.loading && s.Retry()
	if again && !w.cancelled.Load() && now-c.sent < w.load.Timeout {
		if s == protocol.StatusNotLeader {
			w.cluster.requestRefresh()
			c.conn = none
		}
		if c.counted {
			w.tally.Repeated++
		}
		w.resendLater(at, max(time.Duration(m.RetryAfterMillis)*time.Millisecond, repeatPause))
		return
	}
	w.fail(at, int(s), m.Message, s.Outcome() == protocol.Unknown, now)
}

const (
	// repeatPause is the least time after which a request is sent again that
	// was refused, and noConnectionPause that after which one is placed again
	// that had no connection.
	repeatPause       = 2 * time.Millisecond
	noConnectionPause = 5 * time.Millisecond
)

// resendLater has a request sent again after a while.
func (w *worker) resendLater(at int32, pause time.Duration) {
	c := &w.calls[at]
	c.waiting, c.again = true, w.clock()+pause
	w.waiting = append(w.waiting, at)
}

// resendDue sends what has waited for long enough.
func (w *worker) resendDue(now time.Duration) {
	waiting := w.waiting
	w.waiting = w.waiting[:0]
	for _, at := range waiting {
		c := &w.calls[at]
		if c.again > now {
			w.waiting = append(w.waiting, at)
			continue
		}
		if w.down == len(w.peers) {
			c.again = now + noConnectionPause
			w.waiting = append(w.waiting, at)
			continue
		}
		c.waiting = false
		w.send(at)
	}
}

// dropWaiting gives up what is not under way, for the run was interrupted.
func (w *worker) dropWaiting(now time.Duration) {
	for _, at := range w.waiting {
		c, class := &w.calls[at], int(protocol.StatusNotLeader)
		if c.sent == 0 {
			class = classLost // there was no connection to send it on
		}
		c.waiting = false
		w.fail(at, class, []byte("interrupted"), false, now)
	}
	w.waiting = w.waiting[:0]
}

// connectionLost deals with a connection that broke: what was under way on it is lost,
// and another connection is to take its place.
func (w *worker) connectionLost(i int, cause error) error {
	if w.reconnect == nil {
		return cause
	}
	if err := w.closeSocket(i); err != nil {
		return fmt.Errorf("bench: closing: %w", err)
	}
	w.down++
	p := &w.peers[i]
	p.inFlight, p.out = 0, p.out[:0]
	now := w.clock()
	message := []byte(strings.TrimPrefix(cause.Error(), "bench: "))
	for at := range w.calls {
		c := &w.calls[at]
		if c.active && !c.waiting && c.conn == int32(i) {
			c.conn = none
			w.fail(int32(at), classLost, message, c.writes(), now)
		}
	}
	w.reconnect.reopen(i)
	return nil
}

// takeReopened takes the connections that have been opened again.
func (w *worker) takeReopened() error {
	for {
		select {
		case r := <-w.reconnect.reopened:
			if err := w.replace(r.conn, r.socket); err != nil {
				return err
			}
			w.down--
		default:
			return nil
		}
	}
}

// fail ends an operation that was not done, or perhaps.
func (w *worker) fail(at int32, class int, message []byte, unknown bool, now time.Duration) {
	c := &w.calls[at]
	unknown = unknown && c.writes()
	if unknown && w.track != nil {
		w.track.record(&c.Operation, w.src.threads, int64(c.wrote), 0, false)
	}
	if c.counted {
		w.tally.fail(class, message)
		if unknown {
			w.tally.Unknown++
		}
		w.tally.ended = max(w.tally.ended, now)
	}
	if w.rec != nil {
		w.rec.errors++
	}
	w.release(at)
}

// succeed ends an operation that was done.
func (w *worker) succeed(at int32, found bool, now time.Duration) {
	c := &w.calls[at]
	if w.track != nil && c.Kind.writes() && !w.loading && found {
		w.track.record(&c.Operation, w.src.threads, int64(c.wrote), int64(now), true)
	}
	if c.Kind == KindInsert && !w.loading {
		w.src.acknowledged(c.Row)
	}
	latency := now - c.due
	if c.counted {
		k := &w.tally.kinds[c.Kind]
		k.Record(latency)
		k.Rows += c.found
		if !found {
			k.NotFound++
		}
		w.tally.ended = max(w.tally.ended, now)
	}
	if w.rec != nil {
		w.rec.Record(latency)
	}
	w.release(at)
}

// release makes a call free.
func (w *worker) release(at int32) {
	w.calls[at].active = false
	w.free = append(w.free, at)
	w.unanswered--
	w.doneLocal++
}
