package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	inputBytes = 256 << 10
	// inputBytesMax bounds a single reply; larger ones are not asked for.
	inputBytesMax = ValueBytesMax + 128<<10

	// waitMillis bounds a wait for events, and so how late the end of a run is
	// noticed on connections that are silent.
	waitMillis = 10

	noBudget = math.MaxUint64
)

// slot is one of the requests a connection keeps in flight.
type slot struct {
	sent time.Duration // on the loop's clock; 0 while there is no request
	key  uint64
}

// conn is one connection of the loop.
type conn struct {
	fd      int
	slots   []slot
	oldest  int    // where replies are ordered, the slot whose turn it is
	partial []byte // the begin of a reply whose rest has not arrived
	unsent  []byte // requests the socket did not take
}

// phase is how far a run has come.
type phase uint8

const (
	warming phase = iota
	measuring
	draining
)

// loop makes the load of one run. All of it belongs to one thread.
type loop struct {
	cfg     *Config
	codec   Codec
	ordered bool
	// retry has refused requests made again, with the same key.
	retry bool

	epoll   int
	conns   []conn
	events  []unix.EpollEvent
	in, out []byte
	issued  []*slot // encoded in out; sent is not set yet
	key     []byte
	value   []byte
	order   order

	start      time.Time // of the clock
	phase      phase
	phaseBegin time.Duration
	lastReply  time.Duration
	budget     uint64 // requests still to be made
	unanswered int

	result    *Result
	cpu0      time.Duration
	server0   time.Duration
	cancelled atomic.Bool
	rawWait   bool
}

// Run makes the load that c describes and returns what it measured. A refused
// or failed request is counted and the run goes on; a connection that breaks,
// a reply that no request asked for, a silence of c.Timeout, and the end of
// ctx end it. When Run returns no request is unanswered, unless it failed.
//
// It occupies the calling thread and most of a processor.
func Run(ctx context.Context, c Config) (*Result, error) { return run(ctx, c, false) }

// Preload writes each of c.Keys keys once, in order, with at least 64 requests
// in flight in all, and checks that every one was acknowledged. Requests
// refused because the server was busy are made again. Operation, limits and
// warm-up of c are ignored.
func Preload(ctx context.Context, c Config) (*Result, error) {
	c.Op, c.Sequential, c.Warmup, c.Duration, c.Count = Put, true, 0, 0, max(c.Keys, 1)
	c.Connections = max(c.Connections, 1)
	c.InFlight = max(c.InFlight, (64+c.Connections-1)/c.Connections)
	r, err := run(ctx, c, true)
	if err == nil && r.Failed > 0 {
		err = fmt.Errorf("bench: %d of %d writes failed, the first with: %s", r.Failed, r.Ops, r.FirstFailure)
	}
	return r, err
}

func run(ctx context.Context, c Config, retry bool) (*Result, error) {
	if err := c.prepare(); err != nil {
		return nil, err
	}
	if c.Idle > 0 {
		idle, err := OpenIdle(ctx, c.Target, c.Idle)
		if err != nil {
			return nil, err
		}
		defer idle.Close()
	}
	l := newLoop(&c)
	l.retry = retry
	if err := l.open(ctx); err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, func() { l.cancelled.Store(true) })()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := errors.Join(l.run(), l.close())
	if err != nil && l.cancelled.Load() {
		err = ctx.Err()
	}
	return l.result, err
}

func newLoop(c *Config) *loop {
	return &loop{
		cfg: c, codec: c.Codec, ordered: c.Codec.Ordered(),
		epoll: -1, conns: make([]conn, c.Connections), events: make([]unix.EpollEvent, min(c.Connections, 1024)),
		in: make([]byte, inputBytes), issued: make([]*slot, 0, c.InFlight),
		out: make([]byte, 0, c.InFlight*(c.ValueBytes+KeyBytes+64)),
		key: make([]byte, 0, KeyBytes), value: NewValue(c.ValueBytes, c.Seed), order: newOrder(c),
		budget: noBudget, result: NewResult(),
		// With one processor for Go code, a wait that the scheduler does not
		// know of would keep the program's other goroutines waiting as well.
		rawWait: runtime.GOMAXPROCS(0) > 1,
	}
}

// open connects everything.
func (l *loop) open(ctx context.Context) error {
	d, err := newDialer(&l.cfg.Target)
	if err != nil {
		return err
	}
	fds, err := d.greeted(ctx.Err, len(l.conns))
	if err != nil {
		return err
	}
	slots := make([]slot, len(fds)*l.cfg.InFlight)
	for i, fd := range fds {
		l.conns[i].fd = fd
		l.conns[i].slots, slots = slots[:l.cfg.InFlight], slots[l.cfg.InFlight:]
	}
	if l.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return errors.Join(fmt.Errorf("bench: epoll: %w", err), l.close())
	}
	for i := range l.conns {
		if err := l.watch(i, unix.EPOLL_CTL_ADD, unix.EPOLLIN); err != nil {
			return errors.Join(err, l.close())
		}
	}
	return nil
}

// watch sets what epoll reports of connection i. Level triggering suits a
// client: one read takes all there is, and a second one, which would have to
// find nothing, is not needed.
func (l *loop) watch(i, operation int, events uint32) error {
	ev := unix.EpollEvent{Events: events, Fd: int32(i)}
	if err := unix.EpollCtl(l.epoll, operation, l.conns[i].fd, &ev); err != nil {
		return fmt.Errorf("bench: epoll: %w", err)
	}
	return nil
}

func (l *loop) close() error {
	var err error
	for i := range l.conns {
		err = errors.Join(err, unix.Close(l.conns[i].fd))
	}
	if l.epoll >= 0 {
		err = errors.Join(err, unix.Close(l.epoll))
	}
	return err
}

// clock returns the time since the begin of the run, never 0.
func (l *loop) clock() time.Duration { return time.Since(l.start) + 1 }

func (l *loop) run() error {
	l.start = time.Now()
	l.lastReply = l.clock()
	if err := l.nextPhase(l.clock()); err != nil {
		return err
	}
	for i := range l.conns {
		if err := l.begin(i); err != nil {
			return err
		}
	}
	for l.phase != draining || l.unanswered > 0 {
		n, err := l.wait()
		if err != nil {
			return err
		}
		for _, ev := range l.events[:n] {
			if err := l.handle(int(ev.Fd), ev.Events); err != nil {
				return err
			}
		}
		if err := l.nextPhase(l.clock()); err != nil {
			return err
		}
	}
	return nil
}

// nextPhase goes from warm-up to measuring to draining when it is time.
func (l *loop) nextPhase(now time.Duration) error {
	switch {
	case l.cancelled.Load():
		return context.Canceled
	case l.unanswered > 0 && now-l.lastReply > l.cfg.Timeout:
		return fmt.Errorf("%w: %d requests unanswered for %v", ErrStalled, l.unanswered, l.cfg.Timeout)
	case l.phase == warming && now >= l.cfg.Warmup:
		return l.beginMeasuring()
	case l.phase == measuring && l.measuredEnough(now):
		return l.endMeasuring()
	}
	return nil
}

func (l *loop) measuredEnough(now time.Duration) bool {
	return l.cfg.Count > 0 && l.result.Ops >= l.cfg.Count || l.cfg.Duration > 0 && now-l.phaseBegin >= l.cfg.Duration
}

func (l *loop) beginMeasuring() error {
	l.phase = measuring
	if l.cfg.Count > 0 {
		// What is on its way already will be counted.
		l.budget = l.cfg.Count - min(l.cfg.Count, uint64(l.unanswered))
	}
	var err error
	if l.cfg.ServerCPU != nil {
		l.server0, err = l.cfg.ServerCPU()
	}
	l.cpu0 = threadCPU()
	l.phaseBegin = l.clock()
	return err
}

func (l *loop) endMeasuring() error {
	r := l.result
	r.Elapsed = l.clock() - l.phaseBegin
	r.GeneratorCPU = threadCPU() - l.cpu0
	l.phase = draining
	if l.cfg.ServerCPU == nil {
		return nil
	}
	now, err := l.cfg.ServerCPU()
	r.ServerCPU = now - l.server0
	return err
}

// threadCPU returns the CPU time of the calling thread.
func threadCPU() time.Duration {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t) != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// wait returns how many of l.events have been filled in.
func (l *loop) wait() (int, error) {
	n, err := l.epollWait()
	switch {
	case err == unix.EINTR:
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("bench: epoll: %w", err)
	}
	return n, nil
}

// epollWait waits without telling Go's scheduler, which would otherwise take
// the thread's processor away during each wait and have to find it another one
// afterwards. The scheduler's signals still end the wait, so that a garbage
// collection is not held up.
func (l *loop) epollWait() (int, error) {
	if !l.rawWait {
		return unix.EpollWait(l.epoll, l.events, waitMillis)
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(l.epoll), uintptr(unsafe.Pointer(&l.events[0])), uintptr(len(l.events)), waitMillis, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// begin makes the first requests of connection i.
func (l *loop) begin(i int) error {
	c := &l.conns[i]
	out := l.out[:0]
	for s := range c.slots {
		out = l.request(c, s, out, false)
	}
	return l.send(i, out)
}

// handle does what epoll reports of connection i.
func (l *loop) handle(i int, events uint32) error {
	if events&unix.EPOLLOUT != 0 {
		if err := l.resume(i); err != nil {
			return err
		}
	}
	if events&^unix.EPOLLOUT != 0 {
		return l.receive(i)
	}
	return nil
}

// receive takes the replies that have arrived and puts new requests in their
// place.
func (l *loop) receive(i int) error {
	c := &l.conns[i]
	have := copy(l.in, c.partial)
	n, err := readRaw(c.fd, l.in[have:])
	switch {
	case err == unix.EAGAIN || err == unix.EINTR:
		return nil
	case n == 0 && (err == nil || err == unix.ECONNRESET):
		return ErrClosed
	case err != nil:
		return fmt.Errorf("bench: reading: %w", err)
	}
	now := l.clock()
	l.lastReply = now
	b, out := l.in[:have+n], l.out[:0]
	for len(b) > 0 {
		r, used, err := l.codec.ParseReply(b, l.cfg.Op)
		if err != nil {
			return err
		}
		if used == 0 {
			break
		}
		b = b[used:]
		if out, err = l.answered(c, &r, now, out); err != nil {
			return err
		}
	}
	c.partial = append(c.partial[:0], b...)
	if len(b) == len(l.in) {
		if err := l.growInput(); err != nil {
			return err
		}
	}
	return l.send(i, out)
}

// growInput makes room for a reply that is larger than the input buffer.
func (l *loop) growInput() error {
	if len(l.in) >= inputBytesMax {
		return fmt.Errorf("%w: a reply of more than %d bytes", ErrProtocol, len(l.in))
	}
	l.in = make([]byte, inputBytesMax)
	return nil
}

// replied returns the slot of the request that r replies to, -1 if there is
// none. Slots are used again in the order in which their requests are answered,
// so where replies are ordered, they are answered in turn, but for those that
// have no request any more because the run is coming to its end.
func (c *conn) replied(r *Reply, ordered bool) int {
	if !ordered {
		if r.Tag-1 < uint64(len(c.slots)) && c.slots[r.Tag-1].sent != 0 {
			return int(r.Tag - 1)
		}
		return -1
	}
	for range c.slots {
		at := c.oldest
		if c.oldest++; c.oldest == len(c.slots) {
			c.oldest = 0
		}
		if c.slots[at].sent != 0 {
			return at
		}
	}
	return -1
}

// answered accounts for a reply and makes the next request in its place.
func (l *loop) answered(c *conn, r *Reply, now time.Duration, out []byte) ([]byte, error) {
	at := c.replied(r, l.ordered)
	if at < 0 {
		return out, fmt.Errorf("%w: a reply with tag %d, which no request has", ErrProtocol, r.Tag)
	}
	again := l.retry && r.Outcome == Busy
	if l.phase == measuring && !again && (l.cfg.Count == 0 || l.result.Ops < l.cfg.Count) {
		l.count(r, now-c.slots[at].sent)
	}
	c.slots[at].sent = 0
	l.unanswered--
	return l.request(c, at, out, again), nil
}

// count records a reply of the measured part.
func (l *loop) count(r *Reply, latency time.Duration) {
	l.result.Record(latency)
	switch {
	case r.Outcome == NotFound:
		l.result.NotFound++
	case r.Outcome == Busy:
		l.result.Busy++
	case r.Outcome != OK:
		l.fail(string(r.Message))
	case l.cfg.Op == Get && r.ValueBytes != l.cfg.ValueBytes:
		l.fail(fmt.Sprintf("a value of %d bytes, %d were expected", r.ValueBytes, l.cfg.ValueBytes))
	}
}

func (l *loop) fail(what string) {
	if l.result.Failed++; l.result.Failed == 1 {
		l.result.FirstFailure = what
	}
}

// request appends the next request of slot at to out, unless there is none:
// with again, the one it had before.
func (l *loop) request(c *conn, at int, out []byte, again bool) []byte {
	s := &c.slots[at]
	switch {
	case again:
	case l.phase == draining || l.budget == 0:
		return out
	default:
		if l.budget != noBudget {
			l.budget--
		}
		s.key = l.order.choose()
	}
	var key, value []byte
	if l.cfg.Op != Ping {
		key = AppendKey(l.key[:0], s.key)
	}
	if l.cfg.Op == Put {
		value = l.value
	}
	l.unanswered++
	l.issued = append(l.issued, s)
	return l.codec.AppendRequest(out, l.cfg.Op, uint32(at+1), key, value)
}

// send notes the time for the requests in out and writes them.
func (l *loop) send(i int, out []byte) error {
	l.out = out[:0] // may have grown
	if len(out) == 0 {
		return nil
	}
	now := l.clock()
	for _, s := range l.issued {
		s.sent = now
	}
	l.issued = l.issued[:0]
	c := &l.conns[i]
	if len(c.unsent) > 0 {
		c.unsent = append(c.unsent, out...)
		return nil
	}
	n, err := writeRaw(c.fd, out)
	if err != nil || n == len(out) {
		return err
	}
	c.unsent = append(c.unsent, out[n:]...)
	return l.watch(i, unix.EPOLL_CTL_MOD, unix.EPOLLIN|unix.EPOLLOUT)
}

// resume writes what the socket did not take before.
func (l *loop) resume(i int) error {
	c := &l.conns[i]
	n, err := writeRaw(c.fd, c.unsent)
	if err != nil {
		return err
	}
	c.unsent = append(c.unsent[:0], c.unsent[n:]...)
	if len(c.unsent) > 0 {
		return nil
	}
	return l.watch(i, unix.EPOLL_CTL_MOD, unix.EPOLLIN)
}

// readRaw and writeRaw never block, so the scheduler need not know.

func readRaw(fd int, b []byte) (int, error) {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// writeRaw returns how much of b the socket took, which may be nothing.
func writeRaw(fd int, b []byte) (int, error) {
	n, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	switch errno {
	case 0:
		return int(n), nil
	case unix.EAGAIN, unix.EINTR:
		return 0, nil
	case unix.EPIPE, unix.ECONNRESET:
		return 0, ErrClosed
	}
	return 0, fmt.Errorf("bench: writing: %w", errno)
}
