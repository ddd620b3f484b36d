package server

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/proa-kv/proa/protocol"
)

const (
	// readBudget is how much one connection may be read in one iteration before
	// the others have their turn.
	readBudget = 256 << 10

	// fullTurnsMax is how many connections may use up their turn in an iteration,
	// among those with events and among those that go on. Others wait for the
	// next iteration, so that none takes much longer than its share.
	fullTurnsMax = 2

	// eventsMax is how many connections one iteration looks at.
	eventsMax = 256

	// acceptBudget is how many connections one iteration accepts.
	acceptBudget = 64

	// Tokens in the upper half of an event's data that are no connection
	// generation.
	tokenListener = 0 // generations count from 1
	indexWake     = ^uint32(0)

	connEvents = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET
)

// epollTransport moves bytes over edge-triggered epoll.
type epollTransport struct {
	srv   *Server
	outer int // epoll instance in which idle threads wait for loops that nobody polls
	stopW int // eventfd in outer that ends all threads
	loops []*loop

	idle     atomic.Int32 // threads waiting in outer
	armed    atomic.Int32 // loops that nobody polls
	stopping atomic.Bool
	threads  sync.WaitGroup

	accept4 func(fd int) (int, error) // as the system call

	mu        sync.Mutex
	listeners []*epollListener
}

type epollListener struct {
	listener
	file *os.File
	fd   int // -1: closed
	tcp  bool

	pause time.Duration // the last, after an error; 0: the last accept gave a connection
}

// loop is one event loop: an epoll instance and the connections in it.
type loop struct {
	transport *epollTransport
	index     int
	epfd      int
	wakeW     int // eventfd in epfd
	timer     int // timerfd in the outer epoll: fires when a group commit takes long

	polled atomic.Bool  // a thread polls it
	conns  atomic.Int32 // for balancing

	// Belong to the polling thread.
	unfinished []*conn // went over their read budget
	lastRead   uint64  // Unix ms of the last iteration with something else than writes
	timed      bool    // given up by the timer, not by arming

	asleep atomic.Bool // its thread blocks in epoll_wait, or is about to
	posted atomic.Bool // outbox holds something

	mu      sync.Mutex
	resumed []*conn  // may be read again
	outbox  connList // have output that a group commit left for the polling thread to write
}

func newEpollTransport(s *Server) (transport, error) {
	cores := runtime.NumCPU()
	loops := s.cfg.Loops
	if loops <= 0 {
		loops = max(1, cores/2)
	}
	e := &epollTransport{srv: s, accept4: accept4}
	var err error
	if e.outer, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	if e.stopW, err = newEvent(e.outer, unix.EpollEvent{Events: unix.EPOLLIN, Fd: -1}); err != nil {
		return nil, err
	}
	runtime.AddCleanup(e, closeDescriptor, e.stopW)
	for i := range loops {
		l := &loop{transport: e, index: i}
		if l.epfd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
			return nil, fmt.Errorf("epoll_create1: %w", err)
		}
		ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET}
		setData(&ev, indexWake, 0)
		if l.wakeW, err = newEvent(l.epfd, ev); err != nil {
			return nil, err
		}
		runtime.AddCleanup(l, closeDescriptor, l.wakeW)
		if l.timer, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC); err != nil {
			return nil, fmt.Errorf("timerfd_create: %w", err)
		}
		ev = unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: int32(i)}
		if err := epollAdd(e.outer, l.timer, ev); err != nil {
			return nil, err
		}
		e.loops = append(e.loops, l)
	}
	return e, nil
}

// newEvent makes an eventfd and registers it. It is closed with closeDescriptor
// when nobody can signal it any more: until then its number must not become
// another file's, and a backend may have outcomes for connections that are gone.
func newEvent(epfd int, ev unix.EpollEvent) (int, error) {
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("eventfd: %w", err)
	}
	return fd, epollAdd(epfd, fd, ev)
}

func epollAdd(epfd, fd int, ev unix.EpollEvent) error {
	if err := unix.EpollCtl(epfd, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	return nil
}

func closeDescriptor(fd int) { unix.Close(fd) }

// setData and data use the 64 bits that epoll carries for us: the index in the
// lower half, the generation in the upper one.
func setData(ev *unix.EpollEvent, index, gen uint32) { ev.Fd, ev.Pad = int32(index), int32(gen) }
func data(ev *unix.EpollEvent) (index, gen uint32)   { return uint32(ev.Fd), uint32(ev.Pad) }

func signal(eventfd int) {
	one := [8]byte{1}
	_, _ = rawWrite(eventfd, one[:])
}

func (e *epollTransport) listen(ln listener) error {
	f, ok := ln.Listener.(interface{ File() (*os.File, error) })
	if !ok {
		return fmt.Errorf("cannot poll a %T", ln.Listener)
	}
	file, err := f.File()
	if err != nil {
		return err
	}
	x := &epollListener{listener: ln, file: file, fd: int(file.Fd()), tcp: ln.Addr().Network() == "tcp"}
	if err := unix.SetNonblock(x.fd, true); err != nil {
		return errors.Join(err, file.Close())
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	// One loop accepts for all and hands connections to the loop that has the
	// fewest: SO_REUSEPORT spreads by hash, which leaves a handful of
	// connections uneven.
	ev := unix.EpollEvent{Events: unix.EPOLLIN}
	setData(&ev, uint32(len(e.listeners)), tokenListener)
	if err := epollAdd(e.loops[0].epfd, x.fd, ev); err != nil {
		return errors.Join(err, file.Close())
	}
	e.listeners = append(e.listeners, x)
	return nil
}

func (e *epollTransport) stopAccepting() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, l := range e.listeners {
		if l.file != nil {
			_ = unix.EpollCtl(e.loops[0].epfd, unix.EPOLL_CTL_DEL, l.fd, nil)
			l.file.Close()
			l.Close()
			l.file = nil
			l.fd = -1
		}
	}
}

func (e *epollTransport) run() {
	threads := e.srv.cfg.Threads
	if threads <= 0 {
		threads = 2 * runtime.NumCPU()
	}
	threads = max(threads, 2*len(e.loops)+1)
	for _, l := range e.loops {
		ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT, Fd: int32(l.index)}
		if err := epollAdd(e.outer, l.epfd, ev); err != nil {
			panic(fmt.Sprintf("server: nesting epoll: %v", err))
		}
		e.armed.Add(1)
	}
	for range threads {
		e.threads.Go(newThread(e).run)
	}
	e.threads.Wait()
	e.srv.conns.each(func(c *conn) {
		if c.socket != socket(e) {
			return // over TLS: Go's net package has it
		}
		c.reading.Lock()
		defer c.reading.Unlock()
		e.close(c)
	})
	for _, l := range e.loops {
		unix.Close(l.timer)
		unix.Close(l.epfd)
	}
	unix.Close(e.outer)
}

func (e *epollTransport) stop() {
	e.stopping.Store(true)
	signal(e.stopW)
	for _, l := range e.loops {
		signal(l.wakeW)
	}
}

// thread polls loops, drives and waits for the disk, one thing at a time.
type thread struct {
	*processor
	transport *epollTransport
	buf       []byte
	reads     int // of buf, how much is read into in this iteration
	events    [eventsMax]unix.EpollEvent
	yielded   uint64 // Unix ms of the last visit to the Go scheduler

	fullTurns int // connections of this iteration that had more than one turn's worth
}

// yieldIfDue yields if it is time.
func (t *thread) yieldIfDue() {
	if t.now-t.yielded >= yieldMillis {
		t.yielded = t.now
		runtime.Gosched()
	}
}

func newThread(e *epollTransport) *thread {
	return &thread{processor: newProcessor(e.srv), transport: e, buf: make([]byte, readBytes)}
}

// run is the life of a thread: wait until some loop needs to be polled, poll
// it until work for the disk comes up and somebody else has taken over.
func (t *thread) run() {
	defer t.srv.counters.unregister(&t.counts)
	for !t.transport.stopping.Load() {
		t.runDue()
		if l := t.await(); l != nil {
			t.poll(l)
		}
	}
	t.runJobs() // of clients that are gone
}

// await waits in the outer epoll for a loop that has events and nobody to poll
// it, and takes it.
func (t *thread) await() *loop {
	e := t.transport
	e.idle.Add(1)
	n, err := unix.EpollWait(e.outer, t.events[:1], -1)
	e.idle.Add(-1)
	if err != nil || n == 0 || t.events[0].Fd < 0 {
		return nil // interrupted, or stopping
	}
	l := e.loops[t.events[0].Fd]
	if !l.take() {
		return nil
	}
	return l
}

// take makes the caller the thread that polls l.
func (l *loop) take() bool {
	if !l.polled.CompareAndSwap(false, true) {
		return false
	}
	l.transport.armed.Add(-1)
	return true
}

const (
	// handOverDelay is how long a group commit may wait for the disk before another thread polls
	// in the place of the driver, where all that came lately were
	// writes: a write that is read during a group commit can only join the next one,
	// so reading it earlier gains nothing and costs a wake-up.
	handOverDelay = 300 * time.Microsecond

	// writesOnlyMillis is how long nothing but writes must have come for that.
	writesOnlyMillis = 10

	// readDelay is the same for rows that an iteration did not find in the cache. Most
	// lie in Pebble's cache of blocks or in the system's, and reading one there
	// takes less than a wake-up.
	readDelay = 200 * time.Microsecond
)

// release leaves l to the threads that wait in the outer epoll: at once, or when
// delay has passed.
func (l *loop) release(delay time.Duration) {
	if l.timed = delay > 0; !l.timed {
		l.arm()
		return
	}
	l.transport.armed.Add(1)
	l.polled.Store(false)
	setTimer(l.timer, delay)
}

// reclaim makes the caller poll l again, unless another thread does by now. It ends a
// release.
func (l *loop) reclaim() bool {
	if !l.take() {
		return false
	}
	if l.timed { // as whoever gave it up last did
		setTimer(l.timer, 0)
	} else {
		l.disarm()
	}
	return true
}

// arm leaves l to whoever waits in the outer epoll.
func (l *loop) arm() {
	l.transport.armed.Add(1)
	l.polled.Store(false)
	ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT, Fd: int32(l.index)}
	_ = rawEpollCtl(l.transport.outer, unix.EPOLL_CTL_MOD, l.epfd, &ev)
	if l.posted.Load() {
		signal(l.wakeW) // was posted while nobody was seen to be asleep
	}
}

// post leaves conns to the thread that polls l: it will write their output.
func (l *loop) post(conns []*conn) {
	l.mu.Lock()
	l.outbox.conns = append(l.outbox.conns, conns...)
	l.mu.Unlock()
	l.posted.Store(true)
	if l.asleep.Load() || !l.polled.Load() {
		signal(l.wakeW)
	}
}

// deliver writes what was posted.
func (t *thread) deliver(l *loop) {
	if !l.posted.Swap(false) {
		return
	}
	l.mu.Lock()
	list := l.outbox.take()
	l.mu.Unlock()
	for _, c := range list {
		t.send(c)
	}
	l.mu.Lock()
	l.outbox.giveBack(list)
	l.mu.Unlock()
}

// postMin is how many connections a group commit must have answered for it to be
// worth leaving their writes to another thread.
const postMin = 4

// send writes the output of conns, which a group commit has answered. With more
// commands waiting to be committed, the driver should not spend
// several microseconds of writing on each: their loops' threads do it, while
// it waits for the disk.
func (e *epollTransport) send(conns []*conn, more bool) {
	if !more || len(conns) < postMin {
		for _, c := range conns {
			c.SendOutput()
		}
		return
	}
	if len(e.loops) == 1 {
		e.loops[0].post(conns)
		return
	}
	slices.SortFunc(conns, func(a, b *conn) int { return a.loop - b.loop })
	for len(conns) > 0 {
		n := 1
		for n < len(conns) && conns[n].loop == conns[0].loop {
			n++
		}
		e.loops[conns[0].loop].post(conns[:n])
		conns = conns[n:]
	}
}

// disarm takes l's notice out of the outer epoll again.
func (l *loop) disarm() {
	ev := unix.EpollEvent{Fd: int32(l.index)}
	_ = rawEpollCtl(l.transport.outer, unix.EPOLL_CTL_MOD, l.epfd, &ev)
}

// covered reports whether there are idle threads enough to poll every loop
// that nobody polls, l included.
func (e *epollTransport) covered() bool { return e.idle.Load() > e.armed.Load() }

// poll polls l, which the caller has taken, and gives it up when it returns.
func (t *thread) poll(l *loop) {
	e := t.transport
	for !e.stopping.Load() {
		timeout := -1
		if len(l.unfinished) > 0 {
			timeout = 0
		}
		n := t.wait(l, timeout)
		t.now = t.srv.backend.NowMillis()
		t.yieldIfDue()
		t.proposed, t.others, t.fullTurns = false, false, 0
		t.reads = t.srv.admission.readSize()
		for i := range n {
			t.event(l, &t.events[i])
		}
		t.readUnfinished(l)
		t.deliver(l)
		t.sendAll()
		if t.others {
			l.lastRead = t.now
		}
		if (t.proposed || len(t.jobs) > 0) && !t.waitForDisk(l) {
			return
		}
	}
	l.arm()
}

// waitForDisk does the iteration's work that waits for the disk: reads that missed the
// cache, and the group commit of what was queued. It returns false if another thread
// has taken l over meanwhile.
func (t *thread) waitForDisk(l *loop) bool {
	be := t.srv.backend
	for (t.proposed || len(t.jobs) > 0) && !t.transport.stopping.Load() {
		if !t.transport.covered() {
			// No thread is left to poll for us. Others do the work.
			t.queueJobs()
			t.sendAll()
			if t.proposed {
				be.Kick()
			}
			return true
		}
		drives := t.proposed && be.Acquire()
		if !drives && len(t.jobs) == 0 {
			return true // a group commit is running and will see what was queued
		}
		if len(l.unfinished) > 0 {
			signal(l.wakeW) // whoever takes over must not wait for an event
		}
		l.release(t.delay(l, drives))
		reclaimed := false
		switch {
		case drives && len(t.jobs) == 0:
			reclaimed = t.srv.groupCommit(l)
		case drives:
			t.srv.groupCommit(nil)
			t.runJobs()
		default:
			small := t.readsRows()
			t.runJobs()
			reclaimed = small && l.reclaim() // what reads of many rows have found takes a while to be written
		}
		t.sendAll()
		if reclaimed {
			t.proposed = be.Pending() // nobody may have been there to commit it
			continue
		}
		t.runDue()
		return l.reclaim()
	}
	return true
}

// delay returns how long the loop that t polls may go without, while t drives or
// reads the rows of its iteration.
func (t *thread) delay(l *loop, drives bool) time.Duration {
	switch {
	case len(l.unfinished) > 0 || l.posted.Load():
		return 0 // reads and replies that nobody else would see
	case !drives && t.readsRows():
		return readDelay
	case drives && t.now-l.lastRead > writesOnlyMillis:
		return handOverDelay
	}
	return 0
}

// readsRows reports whether all the iteration's jobs are reads of single rows.
func (t *thread) readsRows() bool {
	for i := range t.jobs {
		switch t.jobs[i].op {
		case protocol.OpGet, protocol.OpExists, protocol.OpExpiry:
		default:
			return false
		}
	}
	return true
}

// runDue does disk work that others could not: group commits that became due while
// one ran, and queued jobs.
func (t *thread) runDue() {
	be := t.srv.backend
	for busy := true; busy && !t.transport.stopping.Load(); {
		if busy = be.Acquire(); busy {
			t.srv.groupCommit(nil)
			t.now = be.NowMillis()
			t.yieldIfDue()
		}
		if j, ok := t.srv.jobs.pop(false); ok {
			t.jobs = append(t.jobs, j)
			t.runJobs()
			t.sendAll()
			busy = true
		}
	}
}

// wait returns how many events are in t.events. It asks without blocking
// first: under load there is always something, and a call that cannot block
// need not tell the Go scheduler.
func (t *thread) wait(l *loop, timeout int) int {
	n := rawEpollWait(l.epfd, t.events[:], 0)
	if n > 0 || timeout == 0 {
		return n
	}
	l.asleep.Store(true)
	if !l.posted.Load() {
		n, _ = unix.EpollWait(l.epfd, t.events[:], timeout)
	}
	l.asleep.Store(false)
	return max(n, 0)
}

func (t *thread) event(l *loop, ev *unix.EpollEvent) {
	index, gen := data(ev)
	switch {
	case index == indexWake:
		l.drainWake(t)
		return
	case gen == tokenListener:
		t.accept(int(index))
		return
	}
	c := t.srv.conns.get(index, gen)
	if c == nil {
		return
	}
	if ev.Events&unix.EPOLLOUT != 0 {
		t.writable(c)
	}
	if ev.Events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		c.hup = true
	}
	switch {
	case ev.Events&unix.EPOLLIN == 0 && !c.hup, c.queued: // or it has its turn yet
	case t.fullTurns < fullTurnsMax:
		t.read(l, c)
	default:
		l.enlist(c)
	}
}

// drainWake takes over connections that may be read again.
func (l *loop) drainWake(t *thread) {
	var b [8]byte
	_, _ = rawRead(l.wakeW, b[:])
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, c := range l.resumed {
		l.enlist(c)
		l.resumed[i] = nil
	}
	l.resumed = l.resumed[:0]
}

// enlist has c read again at the end of the iteration.
func (l *loop) enlist(c *conn) {
	if !c.queued {
		c.queued = true
		l.unfinished = append(l.unfinished, c)
	}
}

// readUnfinished goes on with connections that went over their budget, the longest
// waiting first.
func (t *thread) readUnfinished(l *loop) {
	limit := t.fullTurns + fullTurnsMax
	for n := len(l.unfinished); n > 0 && t.fullTurns < limit; n-- {
		c := l.unfinished[0]
		l.unfinished[0] = nil
		l.unfinished = l.unfinished[1:]
		c.queued = false
		// It may have been closed since it was enlisted, and its descriptor
		// may be another connection's by now.
		if t.unpark(c) {
			if !c.offloaded.Load() {
				c.expel()
			}
			t.read(l, c)
		}
	}
	if len(l.unfinished) == 0 {
		l.unfinished = nil
	}
}

func (t *thread) accept(index int) {
	e := t.transport
	e.mu.Lock()
	ln := e.listeners[index]
	fd := ln.fd
	e.mu.Unlock()
	for range acceptBudget {
		if fd < 0 {
			return
		}
		nfd, err := e.accept4(fd)
		switch {
		case err == unix.EAGAIN:
			return
		case err == unix.EINTR || err == unix.ECONNABORTED:
			continue
		case err != nil:
			e.pauseListener(index, err)
			return
		}
		ln.pause = 0
		t.admit(nfd, ln)
	}
}

func accept4(fd int) (int, error) {
	nfd, _, err := unix.Accept4(fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
	return nfd, err
}

// pauseListener stops polling a listener for a while after an error: it would be
// reported ready again at once.
func (e *epollTransport) pauseListener(index int, err error) {
	e.mu.Lock()
	ln := e.listeners[index]
	closed := ln.fd < 0
	e.mu.Unlock()
	if closed || e.stopping.Load() || e.srv.draining.Load() {
		return
	}
	ln.pause = e.srv.acceptPause(err, ln.pause)
	e.pollListener(index, 0)
	time.AfterFunc(ln.pause, func() { e.pollListener(index, unix.EPOLLIN) })
}

// pollListener has events of a listener reported, or none.
func (e *epollTransport) pollListener(index int, events uint32) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if ln := e.listeners[index]; ln.fd >= 0 {
		ev := unix.EpollEvent{Events: events}
		setData(&ev, uint32(index), tokenListener)
		_ = unix.EpollCtl(e.loops[0].epfd, unix.EPOLL_CTL_MOD, ln.fd, &ev)
	}
}

// admit makes a connection of an accepted socket.
func (t *thread) admit(fd int, ln *epollListener) {
	s := t.srv
	if ln.tcp {
		setSocketOptions(fd, &s.cfg)
	}
	c := s.newConn(t.transport, ln.protocol)
	c.fd, c.listener = fd, ln.number
	l := t.transport.loops[0]
	for _, x := range t.transport.loops[1:] {
		if x.conns.Load() < l.conns.Load() {
			l = x
		}
	}
	c.loop = l.index
	if s.draining.Load() || !s.conns.add(c) {
		_, _ = rawWrite(fd, s.rejection(c))
		// Closing with unread input would reset the connection and could
		// take the message with it.
		_ = unix.Shutdown(fd, unix.SHUT_WR)
		_, _ = rawRead(fd, t.buf)
		unix.Close(fd)
		return
	}
	s.counters.accepted.Add(1)
	l.conns.Add(1)
	ev := unix.EpollEvent{Events: connEvents}
	setData(&ev, c.index, c.gen)
	if err := unix.EpollCtl(l.epfd, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
		s.lines.register.Warn(s.log, "cannot register a connection", "error", err)
		t.transport.close(c)
	}
}

func setSocketOptions(fd int, cfg *Config) {
	if !cfg.Delay {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	}
	if cfg.KeepAlive > 0 {
		seconds := max(1, int(cfg.KeepAlive/time.Second))
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, seconds)
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, max(1, seconds/3))
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 3)
	}
}

// read reads c until it has no more, its budget is spent or it must pause, and
// carries out the requests it finds.
func (t *thread) read(l *loop, c *conn) {
	if c.offloaded.Load() {
		return // as in a pause
	}
	if c.gone.Load() {
		t.transport.close(c)
		return
	}
	if c.refused {
		t.discard(c)
		return
	}
	t.credit = turnCredit
	for budget := readBudget; budget > 0 && t.credit > 0; {
		if c.paused.Load() {
			// Whoever ends the pause puts c on the loop's list again. What is
			// buffered stays.
			return
		}
		switch {
		case c.in != nil:
			if !t.consumeBuffered(c) {
				return // paused, refused or closed
			}
		case c.translator.Continues():
			if c.consume(t.processor, nil); c.paused.Load() {
				return // what it waits for is not there yet
			}
		}
		if t.credit <= 0 {
			break
		}
		buf := t.buf[:t.reads]
		if c.in != nil {
			buf = c.in.B[len(c.in.B):min(cap(c.in.B), len(c.in.B)+budget)]
		}
		n, errno := rawRead(c.fd, buf)
		switch {
		case errno == unix.EAGAIN:
			return
		case errno == unix.EINTR:
			continue
		case errno != 0:
			t.transport.close(c)
			return
		case n == 0:
			t.endOfInput(c)
			return
		}
		budget -= n
		t.srv.counters.bytesIn.Add(uint64(n))
		c.active.Store(int64(t.now))
		if !t.received(c, n) {
			return
		}
		if n < len(buf) && !c.hup && t.credit > 0 {
			// Drained: an edge will report more. Not so if the peer's end has
			// been reported already: then the end itself is still to be read.
			// Where the credit is spent, input may be left in the buffer.
			return
		}
	}
	t.fullTurns++
	l.enlist(c)
}

// received takes n bytes that were read into c.in or, where there is none,
// into t.buf.
func (t *thread) received(c *conn, n int) bool {
	if c.in != nil {
		c.in.B = c.in.B[:len(c.in.B)+n]
		if c.claim.held > 0 {
			c.arrived.Add(int64(n))
		}
		return t.consumeBuffered(c)
	}
	return t.consumeInPlace(c, t.buf[:n])
}

// discard reads and forgets a little of what still comes on a connection that
// is refused; whatever is beyond that stays in the socket, and the peer cannot
// send on. At the end of its input c is closed once what it has asked is
// answered.
func (t *thread) discard(c *conn) {
	for c.ignored < lingerBytes {
		n, errno := rawRead(c.fd, t.buf)
		switch {
		case errno == unix.EAGAIN:
			return
		case errno == 0 && n == 0:
			t.endOfInput(c)
			return
		case errno == unix.EINTR:
			continue
		case errno != 0:
			t.transport.close(c)
			return
		}
		c.ignored += n
		t.srv.counters.bytesIn.Add(uint64(n))
	}
	if c.hup {
		t.endOfInput(c)
	}
}

// endOfInput honours a half-close: what has been asked is still answered.
func (t *thread) endOfInput(c *conn) {
	c.dropInput()
	if !c.outstanding() {
		t.transport.close(c)
		return
	}
	c.mu.Lock()
	c.closing = true
	c.ended = true
	t.touch(c)
	c.mu.Unlock()
}

// writable goes on with output that the socket would not take.
func (t *thread) writable(c *conn) {
	c.mu.Lock()
	c.writable = true
	blocked := c.blocked
	c.blocked = false
	c.mu.Unlock()
	if blocked {
		t.send(c)
	}
}

// renderBytes is how much native output a thread that polls translates at a
// time, in bytes.
const renderBytes = 1 << 20

// send writes the output of c, but leaves what takes long to others.
func (t *thread) send(c *conn) {
	if c.translated && c.outputBytes() > renderBytes {
		t.jobs = append(t.jobs, job{c: c, kind: jobSend})
		return
	}
	c.SendOutput()
}

// kick writes c's output until it is gone or the socket takes no more. What is
// beyond a turn's worth is left to the thread that polls c's loop.
func (e *epollTransport) kick(c *conn) {
	if e.write(c, writeBudget) {
		e.loops[c.loop].post([]*conn{c})
	}
}

// write is kick for budget bytes at most. It reports whether there is more that
// the socket may take.
func (e *epollTransport) write(c *conn, budget int) (more bool) {
	c.mu.Lock()
	c.marked = false
	if c.writing || c.blocked || c.closed {
		c.mu.Unlock() // the writing thread will see what was added
		return false
	}
	c.writing = true
	for !c.closed && !c.blocked && budget > 0 {
		if c.sending == nil && !c.nextOutput() {
			break
		}
		c.writable = false
		b := c.sending.B[c.sent:]
		c.mu.Unlock()
		n, errno := rawWrite(c.fd, b[:min(len(b), budget, writeBytes)])
		budget -= max(n, 0)
		c.mu.Lock()
		e.wrote(c, n, errno)
	}
	c.writing = false
	more = !c.closed && !c.blocked && (c.sending != nil || c.out != nil)
	finished := c.finished()
	closeNow, gone := c.closeLast, c.gone.Load()
	c.mu.Unlock()
	switch {
	case closeNow:
		e.release(c)
	case gone:
		e.resume(c)
	case finished:
		// Everything asked has been answered: say so, and let the reader see
		// the end of its input.
		e.finish(c)
	case c.translated:
		c.unpause() // what the reader waits for may have been rendered here
	}
	return more
}

// wrote accounts for one write. c.mu must be held.
func (e *epollTransport) wrote(c *conn, n int, errno syscall.Errno) {
	switch {
	case errno == 0:
		e.srv.counters.bytesOut.Add(uint64(n))
		c.sent += n
		c.took += int64(n)
		if c.sent == len(c.sending.B) {
			c.sending.Release()
			c.sending = nil
			c.blockedSince.Store(0)
			if c.granted > 0 {
				c.unaccount()
			}
		}
	case errno == unix.EINTR:
	case errno == unix.EAGAIN:
		// If writability was reported since, the edge has gone by.
		c.blocked = !c.writable
		if c.blockedSince.Load() == 0 {
			c.blockedSince.Store(time.Now().UnixMilli())
		}
	default:
		// Whoever polls the loop closes: the end of the input may have been
		// read and reported before.
		c.dropOutput()
		c.gone.Store(true)
	}
}

// finish ends a connection whose last reply is written.
func (e *epollTransport) finish(c *conn) {
	c.mu.Lock()
	ended, closed := c.ended, c.closed
	c.mu.Unlock()
	switch {
	case closed:
		return
	case ended:
		e.resume(c) // the reader finds the end again, and nothing owed
		return
	}
	_ = unix.Shutdown(c.fd, unix.SHUT_WR)
	c.lingerSince.CompareAndSwap(0, time.Now().UnixMilli())
}

// close closes c. Only the thread that polls c's loop calls it, or run after
// all threads have ended.
func (e *epollTransport) close(c *conn) {
	c.dropInput()
	c.refused = true
	c.translator.Leave()
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return
	}
	c.closed = true
	c.gone.Store(true)
	if c.writing {
		c.closeLast = true // the descriptor must not be reused under a write
		c.mu.Unlock()
		return
	}
	c.mu.Unlock()
	e.release(c)
}

// release frees what a closed connection held.
func (e *epollTransport) release(c *conn) {
	c.mu.Lock()
	c.dropOutput()
	c.mu.Unlock()
	c.translator.Release()
	e.loops[c.loop].conns.Add(-1)
	c.table.remove(c)
	unix.Close(c.fd)
}

// resume has c read again by whoever polls its loop.
func (e *epollTransport) resume(c *conn) {
	l := e.loops[c.loop]
	l.mu.Lock()
	l.resumed = append(l.resumed, c)
	l.mu.Unlock()
	signal(l.wakeW)
}

// interrupt is resume: readUnfinished calls expel.
func (e *epollTransport) interrupt(c *conn) { e.resume(c) }

// shut closes both directions; the polling thread sees a hang-up and closes.
func (e *epollTransport) shut(c *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		_ = unix.Shutdown(c.fd, unix.SHUT_RDWR)
	}
}

func (e *epollTransport) local(c *conn) bool { return isLocalPeer(c.fd) }

func (e *epollTransport) remote(c *conn) string {
	sa, err := unix.Getpeername(c.fd)
	if err != nil {
		return "unknown"
	}
	switch a := sa.(type) {
	case *unix.SockaddrInet4:
		return fmt.Sprintf("%s:%d", net.IP(a.Addr[:]), a.Port)
	case *unix.SockaddrInet6:
		return fmt.Sprintf("[%s]:%d", net.IP(a.Addr[:]), a.Port)
	}
	return "unix"
}

// The calls below are on the request path and never block: the descriptors are
// non-blocking and epoll_wait is asked with timeout 0. So they need not tell
// the Go scheduler, which saves about a tenth of their cost.

func rawRead(fd int, b []byte) (int, syscall.Errno) {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	return int(n), errno
}

func rawWrite(fd int, b []byte) (int, syscall.Errno) {
	n, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	return int(n), errno
}

func rawEpollWait(epfd int, events []unix.EpollEvent, timeout int) int {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(epfd), uintptr(unsafe.Pointer(unsafe.SliceData(events))), uintptr(len(events)), uintptr(timeout), 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}

// setTimer has a timerfd fire once after d; 0 stops it.
func setTimer(fd int, d time.Duration) {
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(d))}
	_, _, _ = unix.RawSyscall6(unix.SYS_TIMERFD_SETTIME, uintptr(fd), 0, uintptr(unsafe.Pointer(&spec)), 0, 0, 0)
}

func rawEpollCtl(epfd, op, fd int, ev *unix.EpollEvent) syscall.Errno {
	_, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(epfd), uintptr(op), uintptr(fd), uintptr(unsafe.Pointer(ev)), 0, 0)
	return errno
}
