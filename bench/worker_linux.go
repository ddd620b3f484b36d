package bench

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/proa-kv/proa/protocol"
)

// call is one of the requests a worker keeps in flight. It is not bound to a
// connection: each operation goes to the node that leads its row's shard.
type call struct {
	ask
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

// peer is what a worker knows of one of its connections.
type peer struct {
	member   int16
	inFlight int
	out      []byte // requests to be written together
	dirty    bool
}

// pace plans when the requests of an open loop are due.
type pace struct {
	gap    float64 // nanoseconds, on average; 0: a closed loop
	next   float64
	random *rand.Rand // nil: constant gaps
}

// due returns when the next request is due.
func (p *pace) due() time.Duration { return time.Duration(p.next) }

// step plans the request after that.
func (p *pace) step() {
	if p.random == nil {
		p.next += p.gap
		return
	}
	p.next += p.gap * p.random.ExpFloat64()
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
	thread  int
	load    *Load
	cluster *cluster
	src     *source
	track   tracker  // nil without verification
	tokens  []uint64 // for session reads: by slot, the newest version seen

	loading  bool   // the rows are loaded, and nothing is measured
	toLoad   uint64 // rows loaded so far
	peers    []peer // by their number in wire
	byMember [][]int32
	turn     []int // by member, the connection to take next
	anyTurn  int
	down     int
	mender   *mender

	calls   []call
	free    []int32
	queued  []int32 // encoded and not yet written
	dirty   []int32 // connections with something to write
	waiting []int32
	key     []byte
	value   []byte
	body    []byte
	rowsIn  protocol.ScanReply
	batchIn protocol.BatchReply

	epoch      time.Time     // of the clock
	origin     time.Duration // on it, the begin of the run
	warm, end  time.Duration // on it, the begin of the measured part and the end
	pace       pace
	budget     uint64
	perThread  uint64 // budget of the measured part
	measuring  bool
	ended      bool
	unanswered int
	progress   time.Duration // when there was a reply, or nothing to wait for
	timer      int           // timerfd, for an open loop
	timerSet   time.Duration

	tally *tally
	rec   *recorder
	full  chan<- *recorder
	spare <-chan *recorder
	cpu0  time.Duration

	done      atomic.Uint64 // replies so far, for others to read
	doneLocal uint64
	cancelled atomic.Bool // set by others
}

// clock returns the time since the Harness was made, never 0.
func (w *worker) clock() time.Duration { return time.Since(w.epoch) + 1 }

// run makes the load. It returns when no request is unanswered, unless it
// fails.
func (w *worker) run() error {
	defer w.finish()
	w.progress = w.clock()
	for {
		now := w.clock()
		if err := w.advance(now); err != nil {
			return err
		}
		if err := w.turnOver(now); err != nil {
			return err
		}
		if w.ended && w.unanswered == 0 {
			return nil
		}
		n, err := w.wait(w.patience(now))
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

// turnOver does what is due at a time: the run ends, a step of the series is
// over, a lost connection is back. It fails where nothing moves any more.
func (w *worker) turnOver(now time.Duration) error {
	if !w.ended && (w.cancelled.Load() || now >= w.end || w.budget == 0) {
		w.stop(now)
	}
	if w.cancelled.Load() {
		w.dropWaiting(now)
	}
	w.handOver(now)
	w.done.Store(w.doneLocal)
	if w.down > 0 {
		if err := w.regain(); err != nil {
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
	w.countUnsent(now)
}

func (w *worker) beginMeasuring() {
	w.measuring = true
	w.budget = w.perThread
	w.cpu0 = threadCPU()
}

// countUnsent notes how far the plan of an open loop has not been carried out.
func (w *worker) countUnsent(now time.Duration) {
	if w.pace.gap == 0 || w.budget == 0 {
		return
	}
	stop := min(now, w.end)
	if w.pace.due() < stop {
		w.tally.lateEnd = stop - w.pace.due()
		w.tally.lateMax = max(w.tally.lateMax, w.tally.lateEnd)
	}
	for w.pace.due() < stop && w.tally.unsent < w.budget {
		if w.pace.random == nil {
			missed := uint64(math.Ceil(float64(stop-w.pace.due()) / w.pace.gap))
			w.tally.unsent = min(missed, w.budget)
			return
		}
		w.tally.unsent++
		w.pace.step()
	}
}

// finish closes the books.
func (w *worker) finish() {
	if w.measuring {
		w.tally.cpu = threadCPU() - w.cpu0
	}
	w.done.Store(w.doneLocal)
	if w.rec != nil {
		w.full <- w.rec // the reader goes on until all have ended
		w.rec = nil
	}
}

// handOver gives away what was recorded of a step that is over. Where nobody
// takes it, the step goes on.
func (w *worker) handOver(now time.Duration) {
	if w.rec == nil {
		return
	}
	step := int64((now - w.origin) / seriesStep)
	if step == w.rec.step {
		return
	}
	select {
	case w.full <- w.rec:
	default:
		return
	}
	select {
	case w.rec = <-w.spare:
	default:
		w.rec = newRecorder(w.thread)
	}
	w.rec.thread, w.rec.step = w.thread, step
}

// patience returns for how many milliseconds to wait at most, and sets the
// timer where something is due before.
func (w *worker) patience(now time.Duration) int {
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
		return w.advance(w.clock())
	}
	if w.links[i].fd < 0 {
		return nil // it was lost while others of the same wait were handled
	}
	if events&unix.EPOLLOUT != 0 {
		if err := w.resume(i); err != nil {
			return w.lose(i, err)
		}
	}
	if events&^unix.EPOLLOUT != 0 {
		return w.receive(i)
	}
	return nil
}

// advance begins what is due and writes it.
func (w *worker) advance(now time.Duration) error {
	if !w.measuring && !w.loading && now >= w.warm {
		w.beginMeasuring()
	}
	if len(w.waiting) > 0 {
		w.repeat(now)
	}
	for len(w.free) > 0 && w.isDue(now) {
		at := w.free[len(w.free)-1]
		w.free = w.free[:len(w.free)-1]
		w.begin(at)
	}
	return w.flush()
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
		w.src.load(&c.ask, w.toLoad)
		w.toLoad++
	} else {
		w.src.draw(&c.ask)
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
	if c.kind != KindPing && c.kind != KindScan {
		w.key = w.src.rows.appendKey(w.key[:0], c.row)
	}
	i := w.place(c)
	if i == none {
		w.postpone(at, noConnectionPause)
		return
	}
	p := &w.peers[i]
	c.conn = i
	p.inFlight++
	before := len(p.out)
	p.out = w.encode(p.out, c, uint64(at)+1)
	if c.counted {
		w.tally.bytesOut += uint64(len(p.out) - before)
	}
	if !p.dirty {
		p.dirty = true
		w.dirty = append(w.dirty, i)
	}
	w.queued = append(w.queued, at)
}

// place chooses the connection for a call whose key is in w.key: that of its
// last request if it leads to the right node, or else the next one that does.
func (w *worker) place(c *call) int32 {
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
	case w.load.AnyNode || len(w.cluster.members) == 1 || c.kind == KindPing || c.kind == KindScan:
		return nobody
	case w.isWeak(c):
		return nobody
	}
	return w.cluster.table.Load().of[protocol.Slot(w.key)]
}

// isWeak reports whether the next request of a call is a read that any replica
// may answer.
func (w *worker) isWeak(c *call) bool {
	return w.load.Consistency != protocol.Linearizable && (c.kind == KindRead || c.kind == KindModify && !c.second)
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
	most := w.cluster.members[w.peers[i].member].inFlightMax
	return w.links[i].fd >= 0 && (most == 0 || w.peers[i].inFlight < most)
}

// flush writes what was encoded and notes the time for it.
func (w *worker) flush() error {
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
			if err := w.lose(int(i), err); err != nil {
				return err
			}
		}
	}
	return nil
}

// receive takes the replies that have arrived on connection i.
func (w *worker) receive(i int) error {
	b, err := w.read(i)
	if err != nil {
		return w.lose(i, err)
	}
	if len(b) == 0 {
		return nil
	}
	now := w.clock()
	w.progress = now
	for len(b) > 0 {
		f, n, _, err := protocol.Next(b, protocol.FrameBytesMax)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrProtocol, err)
		}
		if n == 0 {
			break
		}
		b = b[n:]
		if err := w.reply(i, &f, now); err != nil {
			return err
		}
	}
	if err := w.keep(i, b); err != nil {
		return err
	}
	return w.advance(now)
}

// reply deals with one frame.
func (w *worker) reply(i int, f *protocol.Frame, now time.Duration) error {
	if f.ID == 0 {
		return nil // a notice; if the server closes, the connection is replaced
	}
	if f.ID > uint64(len(w.calls)) || f.Flags&protocol.FlagReply == 0 {
		return fmt.Errorf("%w: a frame with id %d, which no request has", ErrProtocol, f.ID)
	}
	at := int32(f.ID - 1)
	c := &w.calls[at]
	if !c.active || c.waiting || c.conn != int32(i) {
		return fmt.Errorf("%w: a reply with id %d, which no request has", ErrProtocol, f.ID)
	}
	if c.counted {
		w.tally.bytesIn += uint64(f.Length)
	}
	if f.Flags&protocol.FlagExtensions != 0 {
		if err := w.learn(c, f); err != nil {
			return err
		}
	}
	if f.Flags&protocol.FlagMore != 0 {
		return w.rows(c, f)
	}
	w.peers[i].inFlight--
	status := protocol.Status(f.Code)
	if status == protocol.StatusOK || status == protocol.StatusNotFound && c.kind == KindRead || status == protocol.StatusNotFound && c.kind == KindModify && !c.second {
		return w.result(at, f, now)
	}
	var m protocol.ErrorReply
	if status.CarriesResult() {
		return fmt.Errorf("%w: %v answered with %v", ErrProtocol, c.kind, status)
	}
	if err := m.Decode(f.Body); err != nil {
		return fmt.Errorf("%w: error reply: %w", ErrProtocol, err)
	}
	w.refused(at, status, &m, now)
	return nil
}

// learn takes from a reply who has answered it, and from when that is.
func (w *worker) learn(c *call, f *protocol.Frame) error {
	var x protocol.Extensions
	if err := x.Decode(f.Extensions); err != nil {
		return fmt.Errorf("%w: extensions of a reply: %w", ErrProtocol, err)
	}
	if x.Leader != 0 && x.Leader != w.cluster.members[w.peers[c.conn].member].ID {
		if c.counted {
			w.tally.forwarded++
		}
		if !w.load.AnyNode && !w.isWeak(c) {
			w.cluster.outdated()
		}
	}
	if x.HasAge && c.counted {
		w.tally.weak++
		if x.AgeMillis != protocol.AgeUnknown {
			w.tally.ageMax = max(w.tally.ageMax, x.AgeMillis)
		}
	}
	return nil
}

// refused deals with a reply that carries no result.
func (w *worker) refused(at int32, s protocol.Status, m *protocol.ErrorReply, now time.Duration) {
	c := &w.calls[at]
	again := s == protocol.StatusNotLeader || w.loading && s.Retry()
	if again && !w.cancelled.Load() && now-c.sent < w.load.Timeout {
		if s == protocol.StatusNotLeader {
			w.cluster.outdated()
			c.conn = none
		}
		if c.counted {
			w.tally.repeated++
		}
		w.postpone(at, max(time.Duration(m.RetryAfterMillis)*time.Millisecond, repeatPause))
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

// postpone has a request sent again after a while.
func (w *worker) postpone(at int32, pause time.Duration) {
	c := &w.calls[at]
	c.waiting, c.again = true, w.clock()+pause
	w.waiting = append(w.waiting, at)
}

// repeat sends what has waited for long enough.
func (w *worker) repeat(now time.Duration) {
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

// lose deals with a connection that broke: what was under way on it is lost,
// and another connection is to take its place.
func (w *worker) lose(i int, cause error) error {
	if w.mender == nil {
		return cause
	}
	if err := w.hangUp(i); err != nil {
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
			w.fail(int32(at), classLost, message, c.kind.writes() && (c.kind != KindModify || c.second), now)
		}
	}
	w.mender.mend(i)
	return nil
}

// regain takes the connections that have been opened again.
func (w *worker) regain() error {
	for {
		select {
		case r := <-w.mender.found:
			if err := w.replace(r.conn, r.fd); err != nil {
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
	writing := c.kind.writes() && (c.kind != KindModify || c.second)
	if unknown && writing && w.track != nil {
		w.track.follow(&c.ask, w.src.threads, int64(c.wrote), 0, false)
	}
	if c.counted {
		w.tally.fail(class, message)
		if unknown && writing {
			w.tally.unknown++
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
	if w.track != nil && c.kind.writes() && !w.loading && found {
		w.track.follow(&c.ask, w.src.threads, int64(c.wrote), int64(now), true)
	}
	if c.kind == KindInsert && !w.loading {
		w.src.acknowledged(c.row)
	}
	latency := now - c.due
	if c.counted {
		k := &w.tally.kinds[c.kind]
		k.record(latency)
		k.Rows += c.found
		if !found {
			k.NotFound++
		}
		w.tally.ended = max(w.tally.ended, now)
	}
	if w.rec != nil {
		w.rec.record(latency)
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
