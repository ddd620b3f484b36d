package server

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/proa-kv/proa/bufpool"
	"github.com/proa-kv/proa/internal/mux"
	"github.com/proa-kv/proa/protocol"
)

// Bounds of what is sent on to one other node.
const (
	// upstreamRequestsMax bounds the requests that are queued or unanswered.
	upstreamRequestsMax = 16 << 10
	// upstreamBytesMax bounds their frames together, unless one alone is larger.
	upstreamBytesMax = 64 << 20

	// openTimeout bounds the making of a connection, handshake included.
	openTimeout = 2 * time.Second
	// reopenDelay is how long requests are refused after an attempt failed, so
	// that a node that is down is not dialled once for each of them.
	reopenDelay = 100 * time.Millisecond
	// silenceCheck is how often a connection with unanswered calls checks whether
	// it must give them up; see upstreamConn.leadsNothing.
	silenceCheck = 100 * time.Millisecond
	// upstreamIdle is how long a connection without requests is kept.
	upstreamIdle = time.Minute

	upstreamWriteBytes = 64 << 10
)

// Each node gets a connection for small requests and one for those whose
// frames may be large, so that the former need not wait behind the latter.
// Where there may be no more connections, one serves for both.
const (
	laneSmall = iota
	laneBulk
	lanes
)

// bulkBytes is the size from which on a frame goes on the lane for large ones.
const bulkBytes = 32 << 10

// refusal is an error reply to be sent.
type refusal struct {
	status      protocol.Status
	retryMillis uint32
	message     string
	leader      uint64 // named in the reply; 0: none
}

// sink receives the answer to a call: its frames in order, of which the last is
// without MORE, or in place of those that are missing that they will not come.
// Connections that got output are added to t, whose owner sends them. The
// frame and its extensions are valid during the call only. Calls of one sink
// do not overlap.
type sink interface {
	frame(f *protocol.Frame, x *protocol.Extensions, t *touched)
	lost(r *refusal, t *touched)
}

// call is a request on its way to another node.
type call struct {
	up    *upstream
	sink  sink
	write bool // if it is lost on its way, its outcome is unknown
	bulk  bool
	timer *time.Timer

	// Guarded by up.mu.
	id      uint64        // on its connection
	conn    *upstreamConn // that holds it among its calls; nil: answered or given up
	bytes   int
	written bool // has been handed to the connection, or is about to be

	frame *bufpool.Buffer // belongs to whoever has taken the call off the queue; nil once written

	mu   sync.Mutex
	done bool // the sink has received the end
}

// upstreams are the connections to other nodes.
type upstreams struct {
	srv    *Server
	ctx    context.Context
	cancel context.CancelFunc

	mu      sync.RWMutex
	nodes   map[uint64]*upstream
	closed  bool
	running sync.WaitGroup
	open    atomic.Int32 // connections
}

func (us *upstreams) init(s *Server) {
	us.srv = s
	us.nodes = make(map[uint64]*upstream)
	us.ctx, us.cancel = context.WithCancel(context.Background())
}

// close breaks all connections. Their goroutines end then; running counts them.
func (us *upstreams) close() {
	us.mu.Lock()
	us.closed = true
	us.mu.Unlock()
	us.cancel()
}

// begin counts a goroutine that is about to start, unless all have to end.
func (us *upstreams) begin(goroutines int) bool {
	us.mu.RLock()
	defer us.mu.RUnlock()
	if us.closed {
		return false
	}
	us.running.Add(goroutines)
	return true
}

// to returns what leads to a node.
func (us *upstreams) to(node uint64) *upstream {
	us.mu.RLock()
	u := us.nodes[node]
	us.mu.RUnlock()
	if u != nil {
		return u
	}
	us.mu.Lock()
	defer us.mu.Unlock()
	if u = us.nodes[node]; u == nil {
		u = &upstream{all: us, node: node}
		us.nodes[node] = u
	}
	return u
}

// upstream leads to one other node. Nothing that holds mu waits for anything.
type upstream struct {
	all  *upstreams
	node uint64

	mu       sync.Mutex
	conns    [lanes]*upstreamConn // take new calls; nil: none open
	requests int                  // queued or unanswered
	bytes    int                  // of their frames
	notUntil time.Time            // nothing is dialled before
}

// upstreamConn is one connection of an upstream: a goroutine that opens it and writes,
// and one that reads. Its fields are guarded by the upstream's mu where nothing
// else is said.
type upstreamConn struct {
	up      *upstream
	lane    int
	nc      net.Conn         // belongs to the goroutines
	in      *protocol.Reader // of nc; belongs to the reader
	queue   []*call          // to be written
	calls   mux.Pending[*call]
	retired bool          // takes no more calls
	over    bool          // broken or closed
	wake    chan struct{} // there is something in queue
	ended   chan struct{} // closed with over
	limit   uint32        // bytes of a frame; belongs to the writer
	active  atomic.Bool   // something has come since leadsNothing looked last
}

// send queues k, whose timer starts now. It does not block. The writer of
// the connection returned must be woken; nil comes with the reason, and the sink
// receives nothing then.
func (u *upstream) send(k *call, timeout time.Duration) (*upstreamConn, *refusal) {
	u.mu.Lock()
	defer u.mu.Unlock()
	size := len(k.frame.B)
	if u.requests >= upstreamRequestsMax || (u.requests > 0 && u.bytes+size > upstreamBytesMax) {
		return nil, &refusal{status: protocol.StatusBusy, retryMillis: retryBusyMillis, message: fmt.Sprintf("too many requests are waiting for node %d", u.node)}
	}
	l, r := u.connFor(k)
	if r != nil {
		return nil, r
	}
	u.requests++
	u.bytes += size
	k.up, k.conn, k.id, k.bytes = u, l, l.calls.Add(k), size
	binary.LittleEndian.PutUint64(k.frame.B[8:], k.id)
	l.queue = append(l.queue, k)
	k.timer = time.AfterFunc(timeout, k.expire)
	return l, nil
}

// connFor returns the connection that k goes over, and begins to open one where
// there is none. u.mu must be held.
func (u *upstream) connFor(k *call) (*upstreamConn, *refusal) {
	lane := laneSmall
	if k.bulk || len(k.frame.B) >= bulkBytes {
		lane = laneBulk
	}
	if l := u.conns[lane]; l != nil {
		return l, nil
	}
	if u.all.open.Load() >= int32(u.all.srv.cfg.ForwardConnections) {
		if l := u.conns[lanes-1-lane]; l != nil {
			return l, nil
		}
		return nil, &refusal{status: protocol.StatusBusy, retryMillis: retryLeaderMillis, message: fmt.Sprintf("all %d connections to other nodes are in use (network.connection_pool_size)", u.all.srv.cfg.ForwardConnections)}
	}
	if time.Now().Before(u.notUntil) {
		return nil, &refusal{status: protocol.StatusNotLeader, retryMillis: retryLeaderMillis, message: fmt.Sprintf("node %d leads the shard and is unreachable from this node", u.node)}
	}
	if !u.all.begin(1) {
		return nil, &refusal{status: protocol.StatusShuttingDown, message: "the server is shutting down; connect to another node"}
	}
	l := &upstreamConn{up: u, lane: lane, wake: make(chan struct{}, 1), ended: make(chan struct{})}
	u.conns[lane] = l
	u.all.open.Add(1)
	go l.run()
	return l, nil
}

// forget ends the upstream's count of k. u.mu must be held.
func (u *upstream) forget(k *call) {
	u.requests--
	u.bytes -= k.bytes
}

// wakeWriter makes l's writer look at its queue.
func (l *upstreamConn) wakeWriter() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// retire has new calls go elsewhere. u.mu must be held.
func (l *upstreamConn) retire() {
	l.retired = true
	if l.up.conns[l.lane] == l {
		l.up.conns[l.lane] = nil
	}
}

// run opens the connection and writes what is queued until the connection
// ends.
func (l *upstreamConn) run() {
	us := l.up.all
	defer us.running.Done()
	defer us.open.Add(-1)
	nc, err := l.open()
	if err != nil {
		us.srv.log.Debug("cannot forward requests to a node", "node", l.up.node, "error", err)
		l.fail(true)
		return
	}
	defer nc.Close()
	l.nc = nc
	if !us.begin(1) {
		l.fail(true)
		return
	}
	go l.read()
	if err := l.writeAll(); err != nil {
		us.srv.log.Debug("connection for forwarded requests ended", "node", l.up.node, "error", err)
	}
	l.fail(false)
}

// open makes the connection and introduces this node.
func (l *upstreamConn) open() (net.Conn, error) {
	us := l.up.all
	ctx, cancel := context.WithTimeout(us.ctx, openTimeout)
	defer cancel()
	nc, err := us.srv.backend.Forward(ctx, l.up.node)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(us.ctx, func() { nc.Close() })
	defer stop()
	if err := l.greet(nc); err != nil {
		return nil, errors.Join(err, nc.Close())
	}
	return nc, nil
}

var errRefusedHello = errors.New("the handshake was refused")

func (l *upstreamConn) greet(nc net.Conn) error {
	_ = nc.SetDeadline(time.Now().Add(openTimeout))
	cfg := &l.up.all.srv.cfg
	hello := protocol.Hello{VersionMin: protocol.Version, VersionMax: protocol.Version, Features: protocol.FeaturesKnown, Name: fmt.Appendf(nil, "node %d", cfg.Node)}
	if _, err := nc.Write(protocol.End(hello.AppendTo(protocol.Begin(nil, uint8(protocol.OpHello), 0, 1)), 0)); err != nil {
		return err
	}
	const helloReplyMax = 4 << 10
	l.in = protocol.NewReader(nc)
	f, err := l.in.Wait(helloReplyMax)
	if err != nil {
		return err
	}
	var r protocol.HelloReply
	switch {
	case protocol.Status(f.Code) != protocol.StatusOK:
		return fmt.Errorf("%w: %v", errRefusedHello, protocol.Status(f.Code))
	case r.Decode(f.Body) != nil:
		return fmt.Errorf("%w: its reply is malformed", errRefusedHello)
	case r.Cluster != cfg.Cluster || r.Node != l.up.node:
		return fmt.Errorf("%w: node %d of cluster %016x answered", errRefusedHello, r.Node, r.Cluster)
	}
	l.limit = r.FrameBytesMax
	return nc.SetDeadline(time.Time{})
}

// writeAll writes what is queued, as often as the writer is woken.
func (l *upstreamConn) writeAll() error {
	idle := time.NewTimer(upstreamIdle)
	defer idle.Stop()
	silence := time.NewTimer(silenceCheck)
	defer silence.Stop()
	waits := false // silence is running
	buf := bufpool.Get(upstreamWriteBytes)
	defer buf.Release()
	var calls []*call
	for {
		if calls = l.take(calls[:0]); len(calls) > 0 {
			idle.Reset(upstreamIdle)
			if err := l.write(calls, buf); err != nil {
				return err
			}
			if !waits {
				waits = true
				l.active.Store(true)
				silence.Reset(silenceCheck)
			}
			continue
		}
		select {
		case <-l.wake:
		case <-l.ended:
			return nil
		case <-l.up.all.ctx.Done():
			return nil
		case <-silence.C:
			if waits = l.unanswered(); !waits {
				continue
			}
			if l.leadsNothing() {
				return errLeadsNothing
			}
			silence.Reset(silenceCheck)
		case <-idle.C:
			if l.leaveIfIdle() {
				return nil
			}
			idle.Reset(upstreamIdle)
		}
	}
}

var errLeadsNothing = errors.New("the node does not answer and no longer leads a shard")

func (l *upstreamConn) unanswered() bool {
	l.up.mu.Lock()
	defer l.up.mu.Unlock()
	return l.calls.Len() > 0
}

// leadsNothing reports whether the node has been silent since the last time, and
// what it led has other leaders. It has stopped, or nothing of it comes
// through: without this, what it was asked would wait for its deadline.
func (l *upstreamConn) leadsNothing() bool {
	if l.active.Swap(false) {
		return false
	}
	be := l.up.all.srv.backend
	led := false
	for shard := range be.Shards() {
		switch be.Leader(shard) {
		case l.up.node:
			return false
		case 0:
		default:
			led = true
		}
	}
	return led
}

// take moves the queue into calls, without what was given up meanwhile, and
// with its frames as good as sent.
func (l *upstreamConn) take(calls []*call) []*call {
	u := l.up
	u.mu.Lock()
	defer u.mu.Unlock()
	for i, k := range l.queue {
		l.queue[i] = nil
		if k.conn == nil {
			u.forget(k)
			k.releaseFrame()
			continue
		}
		k.written = true
		calls = append(calls, k)
	}
	l.queue = l.queue[:0]
	return calls
}

// leaveIfIdle retires the connection if nothing is asked over it.
func (l *upstreamConn) leaveIfIdle() bool {
	l.up.mu.Lock()
	defer l.up.mu.Unlock()
	if l.calls.Len() > 0 || len(l.queue) > 0 {
		return false
	}
	l.retire()
	return true
}

// write writes the frames of calls and releases them. After an error those
// that were not handed over whole count as not written: a server never carries
// out a part of a frame.
func (l *upstreamConn) write(calls []*call, buf *bufpool.Buffer) error {
	calls = l.dropTooLarge(calls)
	for len(calls) > 0 {
		n := 1
		b := calls[0].frame.B
		if len(calls) > 1 && len(b) < upstreamWriteBytes {
			buf.B = append(buf.B[:0], b...)
			for n < len(calls) && len(buf.B)+len(calls[n].frame.B) <= upstreamWriteBytes {
				buf.B = append(buf.B, calls[n].frame.B...)
				n++
			}
			b = buf.B
		}
		_ = l.nc.SetWriteDeadline(time.Now().Add(l.up.all.srv.cfg.WriteTimeout))
		wrote, err := l.nc.Write(b)
		if err != nil {
			l.notWritten(calls, wrote)
			return err
		}
		for _, k := range calls[:n] {
			k.releaseFrame()
		}
		calls = calls[n:]
	}
	return nil
}

// notWritten takes back the frames of calls that lie beyond what was written.
func (l *upstreamConn) notWritten(calls []*call, wrote int) {
	l.up.mu.Lock()
	defer l.up.mu.Unlock()
	for _, k := range calls {
		if wrote -= len(k.frame.B); wrote < 0 {
			k.written = false
		}
		k.releaseFrame()
	}
}

// dropTooLarge refuses the frames that the other node would not take.
func (l *upstreamConn) dropTooLarge(calls []*call) []*call {
	keep := calls[:0]
	var t touched
	for _, k := range calls {
		if uint32(len(k.frame.B)) <= l.limit {
			keep = append(keep, k)
			continue
		}
		if k.giveUp() {
			k.end(&refusal{status: protocol.StatusTooLarge, message: fmt.Sprintf("node %d accepts frames of at most %d bytes (network.max_frame_size); set the same limit on all nodes", l.up.node, l.limit)}, &t)
		}
		k.releaseFrame()
	}
	t.send()
	return keep
}

// read delivers replies until the connection ends.
func (l *upstreamConn) read() {
	defer l.up.all.running.Done()
	defer l.fail(false)
	var t touched
	for l.receive(&t) {
		t.send()
		if l.in.Fill() != nil {
			return
		}
		if !l.active.Load() {
			l.active.Store(true)
		}
	}
	t.send()
}

// receive delivers the whole frames that have been read. It returns false if the
// stream cannot be trusted, or if the connection has no more to do.
func (l *upstreamConn) receive(t *touched) bool {
	for {
		f, ok, err := l.in.Next(protocol.FrameBytesMax)
		switch {
		case err != nil || ok && f.Flags&protocol.FlagReply == 0:
			return false
		case !ok:
			return true
		case f.ID != 0:
			if l.deliver(&f, t) {
				return false
			}
		case protocol.Status(f.Code) != protocol.StatusGoAway:
			return false
		default:
			l.up.mu.Lock()
			l.retire()
			l.up.mu.Unlock()
		}
	}
}

// deliver hands a frame to the sink of its call. It returns true if that was
// all that a retired connection was kept for.
func (l *upstreamConn) deliver(f *protocol.Frame, t *touched) (finished bool) {
	u := l.up
	last := f.Flags&protocol.FlagMore == 0
	u.mu.Lock()
	var k *call
	if pending := l.calls.Get(f.ID); pending != nil && (*pending).written {
		k = *pending // any other frame answers what was not asked
	}
	if k != nil && last {
		l.calls.Remove(f.ID)
		k.conn = nil
		u.forget(k)
	}
	finished = l.retired && l.calls.Len() == 0 && len(l.queue) == 0
	u.mu.Unlock()
	if k == nil {
		return finished // its answer was given up
	}
	var x protocol.Extensions
	if err := x.Decode(f.Extensions); err != nil {
		x = protocol.Extensions{}
	}
	k.mu.Lock()
	if !k.done {
		k.done = last
		k.sink.frame(f, &x, t)
	}
	k.mu.Unlock()
	if last {
		k.timer.Stop()
	}
	return finished
}

// releaseFrame releases the frame, which is written or will not be.
func (k *call) releaseFrame() {
	k.frame.Release()
	k.frame = nil
}

// giveUp takes k from its connection, so that no reply finds it. It returns false if
// that was done already.
func (k *call) giveUp() bool {
	k.up.mu.Lock()
	defer k.up.mu.Unlock()
	l := k.conn
	if l == nil {
		return false
	}
	l.calls.Remove(k.id)
	k.conn = nil
	if k.written {
		k.up.forget(k) // otherwise once it is off the queue
	}
	return true
}

// end reports to the sink that no more comes.
func (k *call) end(r *refusal, t *touched) {
	k.timer.Stop()
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.done {
		k.done = true
		k.sink.lost(r, t)
	}
}

// expire answers a call that was not answered in time.
func (k *call) expire() {
	if !k.giveUp() {
		return
	}
	k.up.mu.Lock()
	unknown := k.write && k.written
	k.up.mu.Unlock()
	r := &refusal{status: protocol.StatusDeadlineExceeded, message: fmt.Sprintf("the deadline passed before node %d answered", k.up.node)}
	if unknown {
		r = &refusal{status: protocol.StatusTimeout, message: fmt.Sprintf("the deadline passed while the write was being forwarded to node %d; its outcome is unknown", k.up.node)}
	}
	var t touched
	k.end(r, &t)
	t.send()
}

// fail ends the connection and its calls: a write that was handed over has an
// unknown outcome, anything else may be tried again. hold keeps the node from
// being dialled again for a moment.
func (l *upstreamConn) fail(hold bool) {
	u := l.up
	u.mu.Lock()
	if l.over {
		u.mu.Unlock()
		return
	}
	l.over = true
	l.retire()
	if hold {
		u.notUntil = time.Now().Add(reopenDelay)
	}
	for _, k := range l.queue {
		if k.conn == nil {
			u.forget(k)
		}
		k.releaseFrame()
	}
	l.queue = nil
	var calls []*call
	for _, k := range l.calls.All() {
		(*k).conn = nil
		u.forget(*k)
		calls = append(calls, *k)
	}
	l.calls = mux.Pending[*call]{}
	u.mu.Unlock()
	close(l.ended)
	if l.nc != nil {
		l.nc.Close() // a writer may be waiting in it
	}
	var t touched
	for _, k := range calls {
		k.end(k.broken(), &t)
	}
	t.send()
}

// broken is the refusal of a call whose connection broke.
func (k *call) broken() *refusal {
	if k.write && k.written {
		return &refusal{status: protocol.StatusTimeout, message: fmt.Sprintf("the connection to node %d was lost while the write was being forwarded; its outcome is unknown", k.up.node)}
	}
	return &refusal{status: protocol.StatusNotLeader, retryMillis: retryLeaderMillis, message: fmt.Sprintf("the connection to node %d, which leads the shard, was lost", k.up.node)}
}
