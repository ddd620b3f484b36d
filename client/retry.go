package client

import (
	"fmt"
	"math/rand/v2"
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

// orphan decides about a call whose connection broke. What never left is sent
// elsewhere; so is what has no effect, and what a session lets take effect
// once only. Any other write has an unknown outcome.
func (d *dispatcher) orphan(cn *conn, ca *call, cause error) {
	if ca.state.Load() == callWaiting {
		ca.avoid = cn.node
		d.resubmit(ca)
		return
	}
	if d.isClosed() {
		d.fail(ca, ErrClosed)
		return
	}
	if ca.write && ca.sequence == 0 || !d.mayRetry(ca) {
		d.fail(ca, cause)
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
	d.later(ca, pause)
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
func (d *dispatcher) retryReply(cn *conn, ca *call, status Status, body []byte, leader uint64) bool {
	if lost := ca.lostPart(status, body); lost != protocol.StatusOK {
		status, body = lost, nil
	}
	if status.CarriesResult() {
		return false
	}
	if status == protocol.StatusNotLeader && leader == 0 {
		d.c.router.disown(ca, cn.node)
	}
	if !ca.worthwhile(status) || !d.mayRetry(ca) {
		return false
	}
	var advice Error
	advice.addReply(body)
	pause := retryPause(int(ca.attempts.Load()), advice.RetryAfter)
	if ca.attempts.Load() == 1 && advice.RetryAfter == 0 && d.moved(cn, status, leader) {
		pause = 0
	}
	unsettled := ca.write && (status.Outcome() == Unknown || ca.tainted.Load())
	pause, inTime := d.fit(ca, pause, unsettled)
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
			d.c.pool.hurry()
		}
		d.later(ca, pause)
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
		return protocol.StatusOK // the caller gets the error where the body is read
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
func (d *dispatcher) fit(ca *call, pause time.Duration, unsettled bool) (time.Duration, bool) {
	if ca.deadline == 0 {
		return pause, true
	}
	left := time.Duration(ca.deadline - d.c.now())
	if unsettled && left > retryPauseMin {
		pause = min(pause, left/2)
	}
	return pause, pause < left
}

// moved reports whether there is an obvious other place for the next attempt,
// so that it need not wait.
func (d *dispatcher) moved(cn *conn, status Status, leader uint64) bool {
	switch status {
	case protocol.StatusNotLeader:
		return leader != 0 && leader != cn.node.id
	case protocol.StatusShuttingDown, protocol.StatusStorageFailed:
		return d.c.pool.hasOther(cn)
	}
	return false
}

func (d *dispatcher) mayRetry(ca *call) bool {
	return d.c.cfg.RetryMax == 0 || int(ca.attempts.Load()) <= d.c.cfg.RetryMax
}

// retryPause is how long a call waits after so many attempts, before the next:
// doubled with each one, shortened at random by up to a half, and never less
// than asked.
func retryPause(attempts int, asked time.Duration) time.Duration {
	return max(jitter(doubled(retryPauseMin, retryPauseMax, attempts-1)), asked)
}

// doubled returns least, doubled so many times, and at most most.
func doubled(least, most time.Duration, times int) time.Duration {
	for ; times > 0 && least < most; times-- {
		least += min(least, most-least)
	}
	return least
}

// jitter shortens d at random by up to a half.
func jitter(d time.Duration) time.Duration { return d - rand.N(d/2+1) }

// later sends a call again after a pause. Its state is callWaiting.
func (d *dispatcher) later(ca *call, pause time.Duration) {
	if pause == 0 {
		d.resubmit(ca)
		return
	}
	deadline := ca.enforced()
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		d.fail(ca, ErrClosed)
		return
	}
	d.delayed[ca] = time.AfterFunc(pause, func() {
		d.mu.Lock()
		_, mine := d.delayed[ca]
		delete(d.delayed, ca)
		d.mu.Unlock()
		if mine {
			d.resubmit(ca)
		}
	})
	d.mu.Unlock()
	d.c.janitor.enforce(deadline)
}

// resubmit sends a call again that was sent before or queued elsewhere, its
// state being callWaiting. It does nothing if the caller has given up.
func (d *dispatcher) resubmit(ca *call) {
	if ca.state.Load() == callDone {
		return
	}
	deadline := ca.enforced()
	d.mu.Lock()
	cause := d.c.pool.refused()
	if d.closed {
		cause = ErrClosed
	}
	if cause != nil {
		d.mu.Unlock()
		d.fail(ca, cause)
		return
	}
	d.wait(ca)
	d.mu.Unlock()
	d.c.janitor.enforce(deadline)
	d.sendWaiting()
}

// fail completes a call that is in no list and no table.
func (d *dispatcher) fail(ca *call, cause error) {
	prev := ca.state.Swap(callDone)
	if prev == callDone {
		return
	}
	ca.failure = ca.ended(prev, cause)
	d.c.caller.complete(ca)
	d.refill()
}

// ended returns the error of a call that got no answer; before is the state that
// it had.
func (ca *call) ended(before uint32, cause error) *Error {
	e := &Error{Op: ca.code.String(), Outcome: NotDone, Attempts: int(ca.attempts.Load()), Err: cause}
	if ca.write && (before == callSent || ca.tainted.Load()) {
		e.Outcome = Unknown
	}
	return e
}

// unanswered is ended for a call whose time is up, with what is known of why.
func (d *dispatcher) unanswered(ca *call, before uint32, cause error) *Error {
	if before == callWaiting {
		return ca.ended(before, d.explainWait(ca, cause))
	}
	return ca.ended(before, ca.explainAttempts(cause))
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

// explainWait adds to the cause why a call was still waiting, if it is known:
// no server could be reached, or every attempt was refused. ca may be nil.
func (d *dispatcher) explainWait(ca *call, cause error) error {
	if len(*d.c.pool.ready.Load()) == 0 {
		return fmt.Errorf("%w: %w", cause, d.c.pool.unavailable())
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
