package client

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/proa-kv/proa/protocol"
)

// Pauses between two attempts of one call, where the server named none. They
// fit elections, which take some hundred milliseconds: short at first, for a
// leader that has only moved, and never so long that the new leader waits for
// its clients.
const (
	retryPauseMin = 5 * time.Millisecond
	retryPauseMax = 250 * time.Millisecond
)

// internalRetries bounds how often a read is sent again after INTERNAL. A node
// that forwards answers so when it loses the leader, and the next one does not;
// where all do, no time mends it, and nothing is lost by saying so at once.
const internalRetries = 3

// Client is a connection to a Proa server or cluster. It is safe for use by
// any number of goroutines, which share its connections; one Client per
// process is the rule.
type Client struct {
	cfg       Config
	endpoints []*endpointState
	session   *session // nil without ExactlyOnce
	seen      *seen    // nil without SessionReads
	epoch     time.Time
	ctx       context.Context // ends with Close
	stop      context.CancelFunc
	wg        sync.WaitGroup // every goroutine of the client
	calls     sync.Pool      // of *call. Its own: their channels belong to the bubble, if any, of testing/synctest that it was made in

	ready    atomic.Pointer[[]*conn]          // connections that take requests; never modified in place
	routes   atomic.Pointer[routeTable]       // never nil
	links    atomic.Pointer[[]*endpointState] // advertised addresses that connections are kept to; changes under mu, never in place
	outdated atomic.Bool                      // a new route table is to be fetched
	turn     atomic.Uint32                    // spreads the reads that any replica may answer
	tick     atomic.Uint32                    // time in parts of AttemptTimeout (see attempt.go)

	routeKick chan struct{} // tells route that there is something to do

	wakeAt atomic.Int64  // when the janitor looks at deadlines next
	kick   chan struct{} // tells it that wakeAt was lowered

	mu         sync.Mutex
	closed     bool
	order      uint64                // of the newest call in a list
	waiting    callList              // calls for which no connection had room
	unnumbered callList              // the same, and writes of the session that have no number yet
	delayed    map[*call]*time.Timer // calls that pause before another attempt
	conns      map[*conn]struct{}    // all that are open, draining ones too
	nodes      map[uint64]*node      // in the route table or connected
	cluster    uint64                // that the connections belong to, 0: not known
}

// endpointState is one address that connections are kept to, and how it fared:
// an endpoint of the configuration, or the advertised address of a node.
type endpointState struct {
	endpoint
	node    *node         // that must answer at an advertised address, nil: whoever does
	ended   chan struct{} // closed when an advertised address is given up; nil: never
	wanted  chan struct{} // ends the rest of a supervisor that has nothing to do
	nudged  chan struct{} // cuts a pause short
	reached atomic.Uint64 // the node that answered last
	up      atomic.Int32  // connections that stand

	mu    sync.Mutex
	err   error // of the last attempt to connect, or why the last connection ended; nil: one stands, or none was tried
	tries int   // to connect since the last success
	at    int64 // when the last one ended, on the client's clock
}

func (c *Client) newEndpoint(ep endpoint) *endpointState {
	n := c.cfg.Connections
	return &endpointState{endpoint: ep, wanted: make(chan struct{}, n), nudged: make(chan struct{}, n)}
}

// tried notes how an attempt to connect ended, and returns the number of those
// that failed since the last success.
func (ep *endpointState) tried(now int64, err error) int {
	ep.mu.Lock()
	defer ep.mu.Unlock()
	ep.err, ep.at = err, now
	if ep.tries++; err == nil {
		ep.tries = 0
	}
	return ep.tries
}

// lost notes why a connection has ended.
func (ep *endpointState) lost(cause error) {
	ep.mu.Lock()
	defer ep.mu.Unlock()
	if ep.up.Add(-1) == 0 && ep.err == nil {
		ep.err = cause
	}
}

// failure tells how it went.
func (ep *endpointState) failure(now int64) EndpointError {
	ep.mu.Lock()
	defer ep.mu.Unlock()
	e := EndpointError{Endpoint: ep.name, Err: ep.err, Tries: ep.tries}
	if ep.tries > 0 {
		e.Ago = time.Duration(now - ep.at)
	}
	return e
}

// New connects to the configured endpoints and returns when the first
// connection is established; the others follow in the background. It fails with
// ErrUnavailable if no endpoint can be reached, with the context's error if ctx
// ends first, and with a plain error if the configuration is wrong. ctx limits
// New only, not the life of the client.
func New(ctx context.Context, config Config) (*Client, error) {
	c, err := newClient(config)
	if err != nil {
		return nil, err
	}
	first := make(chan error, len(c.endpoints)*c.cfg.Connections)
	c.wg.Add(1)
	go c.janitor()
	for _, ep := range c.endpoints {
		for range c.cfg.Connections {
			c.wg.Add(1)
			go c.supervise(ep, first)
		}
	}
	for range cap(first) {
		select {
		case err = <-first:
			if err == nil {
				if !c.cfg.ForwardOnly {
					c.wg.Add(1)
					go c.route()
				}
				return c, nil
			}
		case <-ctx.Done():
			err := &Error{Op: "HELLO", Outcome: NotDone, Err: c.explainWait(nil, ctx.Err())}
			c.Close()
			return nil, err
		}
	}
	err = &Error{Op: "HELLO", Outcome: NotDone, Err: c.unavailable()}
	c.Close()
	return nil, err
}

// newClient returns a client that does not connect yet and has no goroutines.
func newClient(config Config) (*Client, error) {
	cfg, err := config.withDefaults()
	if err != nil {
		return nil, err
	}
	c := &Client{
		calls: sync.Pool{New: makeCall},
		cfg:   cfg, epoch: time.Now(), kick: make(chan struct{}, 1), routeKick: make(chan struct{}, 1),
		delayed: make(map[*call]*time.Timer), conns: make(map[*conn]struct{}), nodes: make(map[uint64]*node),
	}
	for _, s := range cfg.Endpoints {
		ep, err := parseEndpoint(s)
		if err != nil {
			return nil, err
		}
		c.endpoints = append(c.endpoints, c.newEndpoint(ep))
	}
	if cfg.ExactlyOnce {
		c.session = newSession()
	}
	if cfg.SessionReads {
		c.seen = new(seen)
	}
	c.ready.Store(new([]*conn))
	c.links.Store(new([]*endpointState))
	c.routes.Store(emptyRoutes)
	c.wakeAt.Store(math.MaxInt64)
	c.ctx, c.stop = context.WithCancel(context.Background())
	return c, nil
}

// Close ends the client. Calls in flight fail: with ErrClosed if they
// definitely had no effect, otherwise with ErrOutcomeUnknown, whose cause is
// ErrClosed. Close waits for the client's goroutines, so it must not be called
// by a Handler. Closing again does nothing. It always returns nil.
func (c *Client) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		c.wg.Wait()
		return nil
	}
	c.closed = true
	var calls []*call
	for _, l := range []*callList{&c.waiting, &c.unnumbered} {
		for ca := l.front; ca != nil; ca = l.front {
			l.remove(ca)
			calls = append(calls, ca)
		}
	}
	for ca, t := range c.delayed {
		if t.Stop() {
			delete(c.delayed, ca)
			calls = append(calls, ca)
		}
	}
	conns := make([]*conn, 0, len(c.conns))
	for cn := range c.conns {
		conns = append(conns, cn)
	}
	c.mu.Unlock()
	c.stop()
	for _, cn := range conns {
		cn.nc.Close()
	}
	for _, ca := range calls {
		c.fail(ca, ErrClosed)
	}
	c.wg.Wait()
	return nil
}

// ServerInfo is what a server told about itself and its limits.
type ServerInfo struct {
	Endpoint      string // as configured, with the port
	Version       string // of the server program
	Node          uint64
	Cluster       uint64
	Connection    uint64 // the server's number for this connection
	Shards        int
	FrameBytesMax int
	KeyBytesMax   int
	ValueBytesMax int
	InFlightMax   int // requests one connection may have unanswered; 0: not said
}

// Server describes the server of one open connection. It returns false while
// there is none.
func (c *Client) Server() (ServerInfo, bool) {
	ready := *c.ready.Load()
	if len(ready) == 0 {
		return ServerInfo{}, false
	}
	return ready[0].info, true
}

// now is the client's clock: nanoseconds since New, monotonic.
func (c *Client) now() int64 { return int64(time.Since(c.epoch)) + 1 }

// submit hands a call to a connection, or lets it wait for one. After an error
// (ErrClosed, ErrBusy, ErrTooLarge) the call is the caller's again; otherwise
// it may be completed at any time.
func (c *Client) submit(ca *call) error {
	ca.seal()
	// Once it is queued anywhere the call may be completed and reused.
	code, deadline := ca.code, ca.enforced()
	if !c.due() {
		if done, err := c.trySend(ca); done {
			c.enforce(deadline)
			return err
		}
	}
	c.mu.Lock()
	switch {
	case c.closed:
		c.mu.Unlock()
		return &Error{Op: code.String(), Outcome: NotDone, Err: ErrClosed}
	case int(c.waiting.n.Load()+c.unnumbered.n.Load()) >= c.cfg.MaxQueued:
		c.mu.Unlock()
		return &Error{Op: code.String(), Outcome: NotDone, Err: fmt.Errorf("%w: %d calls are already waiting in this client", ErrBusy, c.cfg.MaxQueued)}
	}
	c.queue(ca)
	c.mu.Unlock()
	c.enforce(deadline)
	c.drain()
	return nil
}

// trySend offers a call to the connections. It reports false if it has to wait.
func (c *Client) trySend(ca *call) (bool, error) {
	async := ca.handler != nil || ca.sink != nil
	cn, r := c.offer(ca)
	switch r {
	case enqueuedFlush:
		cn.send(async)
		return true, nil
	case enqueuedOK:
		return true, nil
	case enqueuedLarge:
		return true, tooLarge(ca, cn)
	}
	return false, nil
}

func tooLarge(ca *call, cn *conn) *Error {
	e := &Error{
		Op: ca.code.String(), Outcome: NotDone,
		Err: fmt.Errorf("%w: request of %d bytes, the server allows %d", ErrTooLarge, len(ca.frame), cn.info.FrameBytesMax),
	}
	ca.doubt(e)
	return e
}

// forgotten is the error of a write that cannot be asked for any more.
func forgotten(ca *call) *Error {
	return &Error{
		Op: ca.code.String(), Outcome: Unknown, Attempts: int(ca.attempts.Load()),
		Err: fmt.Errorf("%w: it was first sent more than %v ago", ErrSessionExpired, sessionRetryMax),
	}
}

// offer enqueues a call at the node it should go to or, if that cannot take it,
// at any, which forwards it. Of the connections that will do the one with the
// fewest requests under way is taken, but not where the call has failed just
// now if there is another.
func (c *Client) offer(ca *call) (*conn, enqueued) {
	start := uint32(ca.attempts.Load())
	if ca.weak {
		start = c.turn.Add(1)
	} else if n := c.target(ca); n != nil && n != ca.avoid {
		ready := *n.ready.Load()
		if len(ready) == 0 {
			c.want(n)
		}
		ca.strayed = false
		if cn, r := offerTo(ready, ca, 0, false); r.settled() {
			return cn, r
		}
	}
	ca.strayed = ca.write && ca.routed
	ready := *c.ready.Load()
	if len(ready) == 0 {
		return nil, enqueuedGone
	}
	return offerTo(ready, ca, start, true)
}

// offerTo enqueues a call at one of the connections, looked at from start on;
// if all is set, as a last resort also at one that is better avoided.
func offerTo(ready []*conn, ca *call, start uint32, all bool) (*conn, enqueued) {
	at := func(i int) *conn { return ready[(start+uint32(i))%uint32(len(ready))] }
	var best *conn
	for i := range ready {
		if cn := at(i); !cn.shunned(ca) && (best == nil || cn.inFlight.Load() < best.inFlight.Load()) {
			best = cn
		}
	}
	if best != nil {
		if r := best.enqueue(ca); r.settled() {
			return best, r
		}
	}
	for _, anywhere := range [...]bool{false, true} {
		for i := range ready {
			cn := at(i)
			if cn == best || !anywhere && cn.shunned(ca) || anywhere && !all {
				continue
			}
			if r := cn.enqueue(ca); r.settled() {
				return cn, r
			}
		}
	}
	return nil, enqueuedFull
}

// queue lets a call wait. c.mu is held.
func (c *Client) queue(ca *call) {
	c.order++
	ca.order = c.order
	if ca.once && ca.sequence == 0 {
		c.unnumbered.pushBack(ca)
	} else {
		c.waiting.pushBack(ca)
	}
	if len(*c.ready.Load()) == 0 {
		c.widen()
	}
}

// due reports whether a call waits for nothing but room on a connection.
func (c *Client) due() bool {
	return c.waiting.n.Load() > 0 || c.unnumbered.n.Load() > 0 && !c.session.full()
}

// next returns the list whose front is to be sent next, nil if there is none.
// That is the older of the two, except that calls without a number stand back
// while the session has none to give. c.mu is held.
func (c *Client) next() *callList {
	w, u := c.waiting.front, c.unnumbered.front
	if u != nil && (w == nil || u.order < w.order) && !c.session.full() {
		return &c.unnumbered
	}
	if w != nil {
		return &c.waiting
	}
	return nil
}

// refill sends what waits, if anything can be sent. It must be called when a
// connection got room or the session's watermark may have risen, after that
// has taken effect: who begins to wait does so first and looks for room then,
// so that one of the two sees the other.
func (c *Client) refill() {
	if c.due() {
		c.drain()
	}
}

// drain sends waiting calls, oldest first, as long as there is room.
func (c *Client) drain() {
	var flush []*conn
	var failed []*call
	c.mu.Lock()
	for l := c.next(); l != nil; l = c.next() {
		// Out of the list first: enqueued, it may be completed at any time. It
		// is still counted, so that refill cannot miss it.
		ca := l.front
		l.unlink(ca)
		if ca.state.Load() == callDone {
			l.n.Add(-1)
			continue
		}
		cn, r := c.offer(ca)
		if r == enqueuedHeld {
			l.linkFront(ca)
			continue
		}
		if r == enqueuedFull || r == enqueuedGone {
			l.linkFront(ca)
			break
		}
		l.n.Add(-1)
		switch r {
		case enqueuedFlush:
			flush = append(flush, cn)
		case enqueuedLarge:
			ca.failure = tooLarge(ca, cn)
			failed = append(failed, ca)
		case enqueuedLate:
			ca.failure = forgotten(ca)
			failed = append(failed, ca)
		}
	}
	c.mu.Unlock()
	for _, cn := range flush {
		cn.flush()
	}
	for _, ca := range failed {
		if ca.state.Swap(callDone) != callDone {
			c.complete(ca)
		}
	}
	if len(failed) > 0 {
		c.refill()
	}
}

// resubmit sends a call again that was sent before or queued elsewhere, its
// state being callWaiting. It does nothing if the caller has given up.
func (c *Client) resubmit(ca *call) {
	if ca.state.Load() == callDone {
		return
	}
	deadline := ca.enforced()
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		c.fail(ca, ErrClosed)
		return
	}
	c.queue(ca)
	c.mu.Unlock()
	c.enforce(deadline)
	c.drain()
}

// fail completes a call that is in no list and no table.
func (c *Client) fail(ca *call, cause error) {
	prev := ca.state.Swap(callDone)
	if prev == callDone {
		return
	}
	e := &Error{Op: ca.code.String(), Outcome: NotDone, Attempts: int(ca.attempts.Load()), Err: cause}
	if ca.write && (prev == callSent || ca.tainted.Load()) {
		e.Outcome = Unknown
	}
	ca.failure = e
	c.complete(ca)
	c.refill()
}

// orphan decides about a call whose connection broke. What never left is sent
// elsewhere; so is what has no effect, and what a session lets take effect
// once only. Any other write has an unknown outcome.
func (c *Client) orphan(cn *conn, ca *call, cause error) {
	if ca.state.Load() == callWaiting {
		ca.avoid = cn.node
		c.resubmit(ca)
		return
	}
	if c.isClosed() {
		c.fail(ca, ErrClosed)
		return
	}
	if ca.write && ca.sequence == 0 || !c.mayRetry(ca) {
		c.fail(ca, cause)
		return
	}
	pause := time.Duration(0)
	if ca.attempts.Load() > 1 {
		pause = retryPause(int(ca.attempts.Load()), 0)
	}
	if ca.state.Load() != callSent {
		return // the caller gave up
	}
	ca.tainted.Store(ca.write)
	if !ca.state.CompareAndSwap(callSent, callWaiting) {
		return // the caller gave up
	}
	ca.again(cn)
	c.later(ca, pause)
}

// again forgets what came of the attempt at cn. The call is callWaiting.
func (ca *call) again(cn *conn) {
	ca.parts, ca.partsN = nil, 0
	ca.avoid = cn.node
}

// retryReply takes over a call whose reply says that another attempt is safe
// and may succeed, if there is time for it. It also takes it over, doing
// nothing, if the caller has given up. leader is the node that the reply names
// as the shard's leader, 0 for none.
func (c *Client) retryReply(cn *conn, ca *call, status Status, body []byte, leader uint64) bool {
	if lost := ca.lostPart(status, body); lost != protocol.StatusOK {
		status, body = lost, nil
	}
	if status.CarriesResult() {
		return false
	}
	if status == protocol.StatusNotLeader && leader == 0 {
		c.disown(ca, cn.node)
	}
	if !ca.worthwhile(status) || !c.mayRetry(ca) {
		return false
	}
	var advice Error
	advice.addReply(body)
	pause := retryPause(int(ca.attempts.Load()), advice.RetryAfter)
	if ca.attempts.Load() == 1 && advice.RetryAfter == 0 && c.moved(cn, status, leader) {
		pause = 0
	}
	unsettled := ca.write && (status.Outcome() == Unknown || ca.tainted.Load())
	pause, inTime := c.fit(ca, pause, unsettled)
	if !inTime {
		return false
	}
	ca.tainted.Store(unsettled)
	if ca.state.CompareAndSwap(callSent, callWaiting) {
		ca.refusal.Store(uint32(status))
		ca.again(cn)
		if status == protocol.StatusBusy {
			ca.avoid = nil // other nodes would only forward it there
		} else if leader == 0 {
			c.widen()
		}
		c.later(ca, pause)
	}
	return true
}

// worthwhile reports whether another attempt after this answer is safe and may
// succeed. A session makes every attempt of a write safe, so that its deadline
// alone ends the search for the outcome.
func (ca *call) worthwhile(status Status) bool {
	switch {
	case status.Retry():
		return true
	case status == protocol.StatusDeadlineExceeded: // the server's own: nothing was done
		return true
	case status.Outcome() != Unknown || !status.Known() || status == protocol.StatusSessionExpired:
		return false
	case ca.write:
		return ca.sequence != 0
	case status == protocol.StatusInternal:
		ca.internal++
		return ca.internal <= internalRetries
	}
	return true
}

// lostPart returns the status of an operation in a batch of several shards of
// which it is unknown whether it took effect, by this attempt or an earlier one,
// and StatusOK if there is none. The batch as a whole is sent again then: each
// shard remembers what it has done of it.
func (ca *call) lostPart(status Status, body []byte) Status {
	if !ca.split || ca.sequence == 0 || status != protocol.StatusOK {
		return protocol.StatusOK
	}
	var reply protocol.BatchReply
	if reply.Decode(body) != nil {
		return protocol.StatusOK // told to the caller where the body is read
	}
	for i := range reply.Results {
		s := reply.Results[i].Status
		if (s.Outcome() == Unknown || ca.tainted.Load()) && ca.worthwhile(s) {
			return s
		}
	}
	return protocol.StatusOK
}

// fit returns the pause before the next attempt, and whether the call's
// deadline leaves time for it. A call of which it is unknown whether it took
// effect has no better use for what is left of its time, so its pause is
// shortened to fit.
func (c *Client) fit(ca *call, pause time.Duration, unsettled bool) (time.Duration, bool) {
	if ca.deadline == 0 {
		return pause, true
	}
	left := time.Duration(ca.deadline - c.now())
	if unsettled && left > retryPauseMin {
		pause = min(pause, left/2)
	}
	return pause, pause < left
}

// moved reports whether there is an obvious other place for the next attempt,
// so that it need not wait.
func (c *Client) moved(cn *conn, status Status, leader uint64) bool {
	switch status {
	case protocol.StatusNotLeader:
		return leader != 0 && leader != cn.node.id
	case protocol.StatusShuttingDown, protocol.StatusStorageFailed:
		return c.elsewhere(cn)
	}
	return false
}

func (c *Client) mayRetry(ca *call) bool {
	return c.cfg.RetryMax == 0 || int(ca.attempts.Load()) <= c.cfg.RetryMax
}

// retryPause is how long a call waits after so many attempts, before the next:
// doubled with each one, shortened at random by up to a half, and never less
// than asked.
func retryPause(attempts int, asked time.Duration) time.Duration {
	d := min(retryPauseMin<<min(max(attempts-1, 0), 10), retryPauseMax)
	return max(jitter(d), asked)
}

// jitter shortens d at random by up to a half.
func jitter(d time.Duration) time.Duration { return d - rand.N(d/2+1) }

// later sends a call again after a pause. Its state is callWaiting.
func (c *Client) later(ca *call, pause time.Duration) {
	if pause == 0 {
		c.resubmit(ca)
		return
	}
	deadline := ca.enforced()
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		c.fail(ca, ErrClosed)
		return
	}
	c.delayed[ca] = time.AfterFunc(pause, func() {
		c.mu.Lock()
		_, mine := c.delayed[ca]
		delete(c.delayed, ca)
		c.mu.Unlock()
		if mine {
			c.resubmit(ca)
		}
	})
	c.mu.Unlock()
	c.enforce(deadline)
}

func (c *Client) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

// unlist takes a call that was given up out of the list it waits in.
func (c *Client) unlist(ca *call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if ca.list != nil {
		ca.list.remove(ca)
	}
}

// explainWait adds to the cause why a call was still waiting, if it is known:
// no server could be reached, or all that it heard were refusals. ca may be nil.
func (c *Client) explainWait(ca *call, cause error) error {
	if len(*c.ready.Load()) == 0 {
		return fmt.Errorf("%w: %w", cause, c.unavailable())
	}
	if ca == nil {
		return cause
	}
	return ca.explainAttempts(cause)
}

// explainAttempts adds to the cause what the last answer was after which the call
// was sent again.
func (ca *call) explainAttempts(cause error) error {
	if refusal := statusErrors[Status(ca.refusal.Load())]; refusal != nil {
		return fmt.Errorf("%w: %w", cause, refusal)
	}
	return cause
}

// addresses returns all that connections are kept to: the configuration's, then
// those that the cluster has told of.
func (c *Client) addresses() []*endpointState {
	return slices.Concat(c.endpoints, *c.links.Load())
}

func (c *Client) unavailable() *UnavailableError {
	e := &UnavailableError{}
	now := c.now()
	for _, ep := range c.addresses() {
		e.Endpoints = append(e.Endpoints, ep.failure(now))
	}
	return e
}

// addReady lets a new connection take requests. It fails if the client is
// closed, or if the server belongs to another cluster than the other
// connections.
func (c *Client) addReady(cn *conn) error {
	c.mu.Lock()
	if err := c.admit(cn); err != nil {
		c.mu.Unlock()
		return err
	}
	n := c.node(cn.info.Node)
	cn.node = n
	cn.ep.reached.Store(n.id)
	c.conns[cn] = struct{}{}
	c.ready.Store(with(*c.ready.Load(), cn))
	if cn.ep.node == nil {
		// A configured endpoint leads to the node: its advertised address is
		// not needed.
		for _, other := range *n.ready.Load() {
			if other.ep.node != nil {
				other.end(errSuperseded)
			}
		}
	}
	n.ready.Store(with(*n.ready.Load(), cn))
	c.wg.Add(2)
	c.mu.Unlock()
	go cn.writeLoop()
	go cn.readLoop()
	c.drain()
	return nil
}

// admit checks that a connection may be used. One to another cluster is only
// taken if there is no other connection and the configuration names the
// address; what is known of the old cluster is void then. An advertised address
// may mean another machine here than there. c.mu is held.
func (c *Client) admit(cn *conn) error {
	cluster := cn.info.Cluster
	switch {
	case c.closed:
		return ErrClosed
	case cluster == 0 || cluster == c.cluster:
		return nil
	case c.cluster != 0 && (cn.ep.node != nil || len(*c.ready.Load()) > 0):
		return fmt.Errorf("%w: the server belongs to cluster %016x, but the other endpoints belong to %016x", ErrHandshake, cluster, c.cluster)
	}
	if c.cluster != 0 {
		c.routes.Store(emptyRoutes)
		for _, n := range c.nodes {
			c.unlink(n)
			c.dropNode(n)
		}
		if c.seen != nil {
			for i := range c.seen {
				c.seen[i].Store(0)
			}
		}
		c.refreshSoon()
	}
	c.cluster = cluster
	return nil
}

// removeReady lets a connection take no more requests.
func (c *Client) removeReady(cn *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ready.Store(without(*c.ready.Load(), cn))
	n := cn.node
	n.ready.Store(without(*n.ready.Load(), cn))
	if len(*n.ready.Load()) == 0 {
		n.wanted.Store(false)
		c.dropNode(n)
	}
	if len(*c.ready.Load()) == 0 {
		c.kickRouter()
		c.widen()
	}
}

// with and without return a new list.
func with(conns []*conn, cn *conn) *[]*conn {
	longer := append(slices.Clone(conns), cn)
	return &longer
}

func without(conns []*conn, cn *conn) *[]*conn {
	shorter := slices.DeleteFunc(slices.Clone(conns), func(other *conn) bool { return other == cn })
	return &shorter
}

// forget drops a connection that has ended.
func (c *Client) forget(cn *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.conns, cn)
}

// callList is a doubly linked list of calls, so that one can leave it anywhere,
// the oldest at the front. Client.mu guards it; n may be read without.
type callList struct {
	front, back *call
	n           atomic.Int32 // calls in the list, and the one that drain is offering
}

func (l *callList) pushBack(ca *call) {
	ca.prev, ca.next, ca.list = l.back, nil, l
	if l.back == nil {
		l.front = ca
	} else {
		l.back.next = ca
	}
	l.back = ca
	l.n.Add(1)
}

func (l *callList) remove(ca *call) {
	l.unlink(ca)
	l.n.Add(-1)
}

// unlink takes ca out and goes on counting it.
func (l *callList) unlink(ca *call) {
	if ca.prev == nil {
		l.front = ca.next
	} else {
		ca.prev.next = ca.next
	}
	if ca.next == nil {
		l.back = ca.prev
	} else {
		ca.next.prev = ca.prev
	}
	ca.prev, ca.next, ca.list = nil, nil, nil
}

// linkFront puts an unlinked call back at the front.
func (l *callList) linkFront(ca *call) {
	ca.next, ca.list = l.front, l
	if l.front == nil {
		l.back = ca
	} else {
		l.front.prev = ca
	}
	l.front = ca
}
