package client

import (
	"math"
	"sync/atomic"
	"time"

	"github.com/proa-kv/proa/protocol"
)

// janitorStep is the least time between two looks at the deadlines.
const janitorStep = int64(2 * time.Millisecond)

// janitor is the goroutine that ends calls whose time is up where no context
// does, and watches the connections. It sleeps until the earliest deadline it
// knows: with one timeout for all calls that is one look per timeout, not per
// call.
type janitor struct {
	c      *Client
	wakeAt atomic.Int64  // when it looks at deadlines next
	wake   chan struct{} // wakeAt was lowered
	tick   atomic.Uint32 // time in parts of AttemptTimeout (see attempt.go)
}

func (j *janitor) init(c *Client) {
	j.c, j.wake = c, make(chan struct{}, 1)
	j.wakeAt.Store(math.MaxInt64)
}

// run is the goroutine, until Close.
func (j *janitor) run() {
	defer j.c.wg.Done()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var watch <-chan time.Time
	if j.c.cfg.KeepAlive > 0 {
		t := time.NewTicker(j.c.cfg.KeepAlive)
		defer t.Stop()
		watch = t.C
	}
	var attempts <-chan time.Time
	if j.c.cfg.AttemptTimeout > 0 {
		t := time.NewTicker(max(j.c.cfg.AttemptTimeout/attemptTicks, time.Millisecond))
		defer t.Stop()
		attempts = t.C
	}
	for {
		timer.Reset(time.Duration(min(j.wakeAt.Load()-j.c.now(), int64(time.Hour))))
		select {
		case <-j.c.ctx.Done():
			return
		case <-j.wake:
		case <-watch:
			j.watchConnections()
		case <-attempts:
			j.watchAttempts()
		case <-timer.C:
			j.expire()
		}
	}
}

// enforce makes sure that the janitor looks at a call when its time is up. It
// must come after the call was put where the janitor finds it; deadline is 0
// for a call that it need not look at.
func (j *janitor) enforce(deadline int64) {
	if deadline != 0 && deadline < j.wakeAt.Load() {
		j.wakeBy(deadline)
	}
}

// wakeBy lets the janitor look at the deadlines at time at or earlier.
func (j *janitor) wakeBy(at int64) {
	for {
		old := j.wakeAt.Load()
		if at >= old {
			return
		}
		if j.wakeAt.CompareAndSwap(old, at) {
			signal(j.wake)
			return
		}
	}
}

// expire ends every call whose deadline has passed and sets the time of the
// next look. A deadline that is added meanwhile lowers that time itself.
func (j *janitor) expire() {
	j.wakeAt.Store(math.MaxInt64)
	now := j.c.now()
	next := int64(math.MaxInt64)
	var late []*call
	check := func(ca *call) {
		switch {
		case !ca.expires || ca.state.Load() == callDone:
		case ca.deadline > now:
			next = min(next, ca.deadline)
		default:
			if j.giveUp(ca) {
				late = append(late, ca)
			}
		}
	}
	j.c.dispatcher.each(check)
	for _, cn := range j.c.pool.open() {
		cn.mu.Lock()
		for _, r := range cn.pending.All() {
			check(r.call)
		}
		cn.mu.Unlock()
	}
	if next != math.MaxInt64 {
		j.wakeBy(max(next, now+janitorStep))
	}
	for _, ca := range late {
		j.c.caller.complete(ca)
	}
	j.c.dispatcher.refill()
}

// giveUp moves a late call to callDone and writes its failure. It reports
// false if the answer came first. The lock of the place where the call was
// found is held, so that it cannot be answered and reused meanwhile; it stays
// in that place, which is why it is abandoned.
func (j *janitor) giveUp(ca *call) bool {
	prev := ca.state.Swap(callDone)
	if prev == callDone {
		return false
	}
	ca.abandoned = true
	ca.failure = j.c.dispatcher.unanswered(ca, prev, ErrDeadlineExceeded)
	return true
}

// watchConnections sends a PING where nothing was received for KeepAlive, and
// ends a connection that did not answer it.
func (j *janitor) watchConnections() {
	for _, cn := range j.c.pool.open() {
		if cn.active.Swap(false) {
			cn.silent = 0
			continue
		}
		if cn.silent++; cn.silent > 1 {
			cn.log.Warn("no data received on the connection, closing it", "silence", time.Duration(cn.silent)*j.c.cfg.KeepAlive)
			cn.nc.Close()
			continue
		}
		j.probe(cn)
	}
}

// probe sends a PING on one connection; only the bytes of its reply matter.
func (j *janitor) probe(cn *conn) {
	ca := j.c.caller.newCall(j.c.ctx, &Operation{code: protocol.OpPing})
	ca.sink = ignore{}
	ca.expires = false
	ca.seal()
	switch cn.enqueue(ca) {
	case enqueuedWrite:
		cn.write()
	case enqueuedOK:
	default:
		j.c.caller.release(ca)
	}
}

// ignore drops an answer.
type ignore struct{}

func (ignore) finish(*call) {}
