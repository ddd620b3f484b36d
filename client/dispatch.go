package client

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// dispatcher finds a connection for each call, holds the calls for which there is
// none, and decides about another attempt when one has failed (see retry.go).
type dispatcher struct {
	c    *Client
	turn atomic.Uint32 // spreads the reads that any replica may answer

	mu         sync.Mutex
	closed     bool
	order      uint64                // of the newest call in a list
	waiting    callList              // calls for which no connection had room
	unnumbered callList              // the same, and writes of the session that have no number yet
	delayed    map[*call]*time.Timer // calls that pause before another attempt
}

func (d *dispatcher) init(c *Client) {
	d.c = c
	d.delayed = make(map[*call]*time.Timer)
}

// each gives every call that waits to check, and removes those that it has ended.
func (d *dispatcher) each(check func(*call)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, l := range []*callList{&d.waiting, &d.unnumbered} {
		for ca := l.front; ca != nil; {
			following := ca.next
			if check(ca); ca.state.Load() == callDone {
				l.remove(ca)
			}
			ca = following
		}
	}
	for ca := range d.delayed {
		check(ca)
	}
}

// close accepts no more calls, and returns those that wait.
func (d *dispatcher) close() (calls []*call) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	calls = d.takeWaiting()
	for ca, t := range d.delayed {
		if t.Stop() {
			delete(d.delayed, ca)
			calls = append(calls, ca)
		}
	}
	return calls
}

// takeWaiting takes the calls that wait for a connection. d.mu is held.
func (d *dispatcher) takeWaiting() (calls []*call) {
	for _, l := range []*callList{&d.waiting, &d.unnumbered} {
		for ca := l.front; ca != nil; ca = l.front {
			l.remove(ca)
			calls = append(calls, ca)
		}
	}
	return calls
}

// failRefused fails the calls that wait, if no server accepts the client's
// credentials. Calls that come afterwards see that themselves.
func (d *dispatcher) failRefused() {
	d.mu.Lock()
	cause := d.c.pool.refused()
	if cause == nil {
		d.mu.Unlock()
		return
	}
	calls := d.takeWaiting()
	d.mu.Unlock()
	for _, ca := range calls {
		d.fail(ca, cause)
	}
}

// submit hands a call to a connection, or lets it wait for one. After an error
// (ErrClosed, ErrBusy, ErrTooLarge) the call is the caller's again; otherwise
// it may be completed at any time.
func (d *dispatcher) submit(ca *call) error {
	ca.seal()
	// Once it is queued anywhere the call may be completed and reused.
	code, deadline := ca.code, ca.enforced()
	if !d.due() {
		if done, err := d.trySend(ca); done {
			d.c.janitor.enforce(deadline)
			return err
		}
	}
	d.mu.Lock()
	switch {
	case d.closed:
		d.mu.Unlock()
		return &Error{Op: code.String(), Outcome: NotDone, Err: ErrClosed}
	case int(d.waiting.n.Load()+d.unnumbered.n.Load()) >= d.c.cfg.MaxQueued:
		d.mu.Unlock()
		return &Error{Op: code.String(), Outcome: NotDone, Err: fmt.Errorf("%w: %d calls are already waiting in this client", ErrBusy, d.c.cfg.MaxQueued)}
	}
	if err := d.c.pool.refused(); err != nil {
		d.mu.Unlock()
		return &Error{Op: code.String(), Outcome: NotDone, Err: err}
	}
	d.wait(ca)
	d.mu.Unlock()
	d.c.janitor.enforce(deadline)
	d.sendWaiting()
	return nil
}

// trySend offers a call to the connections. It reports false if it has to wait.
func (d *dispatcher) trySend(ca *call) (bool, error) {
	async := ca.handler != nil || ca.sink != nil
	cn, r := d.offer(ca)
	switch r {
	case enqueuedWrite:
		cn.send(async)
		return true, nil
	case enqueuedOK:
		return true, nil
	case enqueuedLarge:
		return true, tooLarge(ca, cn)
	}
	return false, nil
}

// offer enqueues a call at the node it should go to or, if that cannot take it,
// at any, which forwards it. Of the connections that will do the one with the
// fewest requests under way is taken, but not where the call has failed just
// now if there is another.
func (d *dispatcher) offer(ca *call) (*conn, enqueued) {
	start := uint32(ca.attempts.Load())
	if ca.weak {
		start = d.turn.Add(1)
	} else if n := d.c.router.target(ca); n != nil && n != ca.avoid {
		ready := *n.ready.Load()
		if len(ready) == 0 {
			d.c.router.want(n)
		}
		ca.offLeader = false
		if cn, r := offerTo(ready, ca, 0, false); r.settled() {
			return cn, r
		}
	}
	ca.offLeader = ca.write && ca.routed
	ready := *d.c.pool.ready.Load()
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
		if cn := at(i); !cn.avoided(ca) && (best == nil || cn.inFlight.Load() < best.inFlight.Load()) {
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
			if cn == best || !anywhere && cn.avoided(ca) || anywhere && !all {
				continue
			}
			if r := cn.enqueue(ca); r.settled() {
				return cn, r
			}
		}
	}
	return nil, enqueuedFull
}

// wait lets a call wait. d.mu is held.
func (d *dispatcher) wait(ca *call) {
	d.order++
	ca.order = d.order
	if ca.once && ca.sequence == 0 {
		d.unnumbered.pushBack(ca)
	} else {
		d.waiting.pushBack(ca)
	}
	if len(*d.c.pool.ready.Load()) == 0 {
		d.c.pool.hurry()
	}
}

// due reports whether a call waits for nothing but room on a connection.
func (d *dispatcher) due() bool {
	return d.waiting.n.Load() > 0 || d.unnumbered.n.Load() > 0 && !d.c.session.full()
}

// next returns the list whose front is to be sent next, nil if there is none.
// That is the older of the two, except that calls without a number stand back
// while the session has none to give. d.mu is held.
func (d *dispatcher) next() *callList {
	w, u := d.waiting.front, d.unnumbered.front
	if u != nil && (w == nil || u.order < w.order) && !d.c.session.full() {
		return &d.unnumbered
	}
	if w != nil {
		return &d.waiting
	}
	return nil
}

// refill sends what waits, if anything can be sent. It must be called when a
// connection got room or the session's watermark may have risen, after that
// has taken effect: who begins to wait does so first and looks for room then,
// so that one of the two sees the other.
func (d *dispatcher) refill() {
	if d.due() {
		d.sendWaiting()
	}
}

// sendWaiting sends waiting calls, oldest first, as long as there is room.
func (d *dispatcher) sendWaiting() {
	var write []*conn
	var failed []*call
	d.mu.Lock()
	for l := d.next(); l != nil; l = d.next() {
		// Out of the list first: enqueued, it may be completed at any time. It
		// is still counted, so that refill cannot miss it.
		ca := l.front
		l.unlink(ca)
		if ca.state.Load() == callDone {
			l.n.Add(-1)
			continue
		}
		cn, r := d.offer(ca)
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
		case enqueuedWrite:
			write = append(write, cn)
		case enqueuedLarge:
			ca.failure = tooLarge(ca, cn)
			failed = append(failed, ca)
		case enqueuedLate:
			ca.failure = forgotten(ca)
			failed = append(failed, ca)
		}
	}
	d.mu.Unlock()
	for _, cn := range write {
		cn.write()
	}
	for _, ca := range failed {
		if ca.state.Swap(callDone) != callDone {
			d.c.caller.complete(ca)
		}
	}
	if len(failed) > 0 {
		d.refill()
	}
}

// unlist takes a call that was given up out of the list it waits in.
func (d *dispatcher) unlist(ca *call) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if ca.list != nil {
		ca.list.remove(ca)
	}
}

func (d *dispatcher) isClosed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.closed
}

// callList is a doubly linked list of calls, so that one can leave it anywhere,
// the oldest at the front. dispatcher.mu guards it; n may be read without.
type callList struct {
	front, back *call
	n           atomic.Int32 // calls in the list, and the one that drain is offering
}

// join makes b follow a; nil stands for an end of the list.
func (l *callList) join(a, b *call) {
	if a == nil {
		l.front = b
	} else {
		a.next = b
	}
	if b == nil {
		l.back = a
	} else {
		b.prev = a
	}
}

func (l *callList) pushBack(ca *call) {
	ca.list = l
	l.join(l.back, ca)
	l.join(ca, nil)
	l.n.Add(1)
}

func (l *callList) remove(ca *call) {
	l.unlink(ca)
	l.n.Add(-1)
}

// unlink takes ca out and goes on counting it.
func (l *callList) unlink(ca *call) {
	l.join(ca.prev, ca.next)
	ca.prev, ca.next, ca.list = nil, nil, nil
}

// linkFront puts an unlinked call back at the front.
func (l *callList) linkFront(ca *call) {
	ca.list = l
	l.join(ca, l.front)
	l.join(nil, ca)
}
