package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const noBudget = math.MaxUint64

// slot is one of the requests a connection keeps in flight.
type slot struct {
	sent time.Duration // on the loop's clock; 0 while there is no request
	key  uint64
}

// conn is what the loop knows of one connection.
type conn struct {
	slots  []slot
	oldest int // where replies are ordered, the slot whose turn it is
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

	wire
	conns  []conn // by their number in wire
	out    []byte
	issued []*slot // encoded in out; sent is not set yet
	key    []byte
	value  []byte
	order  order

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
		wire: newWire(runtime.GOMAXPROCS(0) > 1), conns: make([]conn, c.Connections),
		issued: make([]*slot, 0, c.InFlight),
		out:    make([]byte, 0, c.InFlight*(c.ValueBytes+KeyBytes+64)),
		key:    make([]byte, 0, KeyBytes), value: NewValue(c.ValueBytes, c.Seed), order: newOrder(c),
		budget: noBudget, result: NewResult(),
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
	for i := range l.conns {
		l.conns[i].slots, slots = slots[:l.cfg.InFlight], slots[l.cfg.InFlight:]
	}
	return l.wire.open(fds)
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
		n, err := l.wait(waitMillis)
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
	b, err := l.read(i)
	if err != nil || len(b) == 0 {
		return err
	}
	now := l.clock()
	l.lastReply = now
	out := l.out[:0]
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
	if err := l.keep(i, b); err != nil {
		return err
	}
	return l.send(i, out)
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
	return l.write(i, out)
}
