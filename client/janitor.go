package client

import (
	"math"
	"time"

	"github.com/proa-kv/proa/protocol"
)

// janitorStep is the least time between two looks at the deadlines.
const janitorStep = int64(2 * time.Millisecond)

// janitor ends calls whose time is up where no context does, and watches the
// connections. It sleeps until the earliest deadline it has been told of: with
// one timeout for all calls that is one look per timeout, not per call.
func (c *Client) janitor() {
	defer c.wg.Done()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var watch <-chan time.Time
	if c.cfg.KeepAlive > 0 {
		t := time.NewTicker(c.cfg.KeepAlive)
		defer t.Stop()
		watch = t.C
	}
	var attempts <-chan time.Time
	if c.cfg.AttemptTimeout > 0 {
		t := time.NewTicker(max(c.cfg.AttemptTimeout/attemptTicks, time.Millisecond))
		defer t.Stop()
		attempts = t.C
	}
	for {
		timer.Reset(time.Duration(min(c.wakeAt.Load()-c.now(), int64(time.Hour))))
		select {
		case <-c.ctx.Done():
			return
		case <-c.kick:
		case <-watch:
			c.watchConnections()
		case <-attempts:
			c.watchAttempts()
		case <-timer.C:
			c.expire()
		}
	}
}

// enforce makes sure that the janitor looks at a call when its time is up. It
// must come after the call was put where the janitor finds it; deadline is 0
// for a call that it need not look at.
func (c *Client) enforce(deadline int64) {
	if deadline != 0 && deadline < c.wakeAt.Load() {
		c.wakeJanitor(deadline)
	}
}

// wakeJanitor lets the janitor look at the deadlines at time at or earlier.
func (c *Client) wakeJanitor(at int64) {
	for {
		old := c.wakeAt.Load()
		if at >= old {
			return
		}
		if c.wakeAt.CompareAndSwap(old, at) {
			break
		}
	}
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

// expire ends every call whose deadline has passed and sets the time of the
// next look. A deadline that is added meanwhile lowers that time itself.
func (c *Client) expire() {
	c.wakeAt.Store(math.MaxInt64)
	now := c.now()
	next := int64(math.MaxInt64)
	var late []*call
	check := func(ca *call) {
		switch {
		case !ca.expires || ca.state.Load() == callDone:
		case ca.deadline > now:
			next = min(next, ca.deadline)
		default:
			if c.giveUp(ca) {
				late = append(late, ca)
			}
		}
	}
	c.mu.Lock()
	for _, l := range []*callList{&c.waiting, &c.unnumbered} {
		for ca := l.front; ca != nil; {
			following := ca.next
			if check(ca); ca.state.Load() == callDone {
				l.remove(ca)
			}
			ca = following
		}
	}
	for ca := range c.delayed {
		check(ca)
	}
	c.mu.Unlock()
	for _, cn := range c.openConns() {
		cn.mu.Lock()
		for i := range cn.slots {
			if ca := cn.slots[i].call; ca != nil {
				check(ca)
			}
		}
		cn.mu.Unlock()
	}
	if next != math.MaxInt64 {
		c.wakeJanitor(max(next, now+janitorStep))
	}
	for _, ca := range late {
		c.complete(ca)
	}
	c.refill()
}

// giveUp moves a late call to callDone and writes its failure. It reports
// false if the answer came first. The lock of the place where the call was
// found is held, so that it cannot be answered and reused meanwhile; it stays
// in that place, which is why it is abandoned.
func (c *Client) giveUp(ca *call) bool {
	prev := ca.state.Swap(callDone)
	if prev == callDone {
		return false
	}
	ca.abandoned = true
	e := &Error{Op: ca.code.String(), Outcome: NotDone, Attempts: int(ca.attempts.Load()), Err: ErrDeadlineExceeded}
	if ca.write && (prev == callSent || ca.tainted.Load()) {
		e.Outcome = Unknown
	}
	if prev == callWaiting {
		e.Err = c.explainWait(ca, ErrDeadlineExceeded)
	} else {
		e.Err = ca.explainAttempts(ErrDeadlineExceeded)
	}
	ca.failure = e
	return true
}

// watchConnections sends a PING where nothing was heard for KeepAlive, and
// ends a connection that did not answer it.
func (c *Client) watchConnections() {
	for _, cn := range c.openConns() {
		if cn.heard.Swap(false) {
			cn.silent = 0
			continue
		}
		if cn.silent++; cn.silent > 1 {
			cn.log.Warn("no data received on the connection, closing it", "silence", time.Duration(cn.silent)*c.cfg.KeepAlive)
			cn.nc.Close()
			continue
		}
		c.probe(cn)
	}
}

// probe sends a PING on one connection; only the bytes of its reply matter.
func (c *Client) probe(cn *conn) {
	ca := c.newCall(c.ctx, &Operation{code: protocol.OpPing})
	ca.sink = ignore{}
	ca.expires = false
	ca.seal()
	switch cn.enqueue(ca) {
	case enqueuedFlush:
		cn.flush()
	case enqueuedOK:
	default:
		c.release(ca)
	}
}

// ignore drops an answer.
type ignore struct{}

func (ignore) finish(*call) {}
