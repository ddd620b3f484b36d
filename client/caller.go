package client

import (
	"context"
	"encoding/binary"
	"math"
	"sync"
	"time"

	"github.com/proa-kv/proa/protocol"
)

// caller makes calls of operations, hands them to the dispatcher and completes
// them.
type caller struct {
	c     *Client
	calls sync.Pool // of *call. Its own: their channels belong to the bubble, if any, of testing/synctest that it was made in
}

func (k *caller) init(c *Client) {
	k.c = c
	k.calls.New = func() any { return &call{ready: make(chan struct{}, 1)} }
}

// newCall takes a call from the pool and encodes the header and extensions;
// the caller appends the body.
func (k *caller) newCall(ctx context.Context, o *Operation) *call {
	ca := k.calls.Get().(*call)
	ca.code, ca.write = o.code, isWrite(o.code)
	ca.deadline, ca.expires = k.deadline(ctx, o)
	x := protocol.Extensions{}
	if ca.deadline != 0 {
		x.DeadlineMillis = 1 // makes room; what is left is patched in when the frame goes
	}
	k.addConsistency(ca, o, &x)
	if k.c.session != nil && ca.write && o.code != protocol.OpAdmin {
		x.Session, ca.once = k.c.session.id, true
	}
	if o.code == protocol.OpDeleteRange && o.number != 0 {
		x.HasShard, x.Shard = true, uint16(o.number-1)
	}
	flags := protocol.Flags(0)
	if !x.Empty() {
		flags = protocol.FlagExtensions
	}
	ca.frame = protocol.Begin(ca.frame[:0], uint8(o.code), flags, 0)
	if flags != 0 {
		ca.frame = x.AppendTo(ca.frame)
	}
	return ca
}

// deadline returns when the call's time is up, 0 for never, and whether the
// janitor has to see to it because no context does.
func (k *caller) deadline(ctx context.Context, o *Operation) (at int64, expires bool) {
	d, ok := ctx.Deadline()
	timeout := o.timeout
	if timeout == 0 && !ok {
		timeout = k.c.cfg.RequestTimeout
	}
	now := k.c.now()
	if timeout > 0 {
		at, expires = after(now, timeout), true
	}
	if ok {
		if end := after(now, time.Until(d)); at == 0 || end < at {
			at, expires = end, false
		}
	}
	return at, expires
}

// after returns the time d after now, or the end of time where that comes first.
// now is not negative.
func after(now int64, d time.Duration) int64 {
	return now + min(int64(d), math.MaxInt64-now)
}

// addConsistency fills in what depends on the key and on the kind of read:
// the slot, the consistency, the token.
func (k *caller) addConsistency(ca *call, o *Operation, x *protocol.Extensions) {
	several := k.c.router.table.Load().several
	if (several || k.c.seen != nil) && len(o.key) > 0 {
		ca.slot, ca.routed, ca.track = protocol.Slot(o.key), several, k.c.seen != nil
	}
	if ca.write || inLogOrder(o.code) || o.code == protocol.OpPing {
		return
	}
	level := k.c.cfg.Consistency
	if o.hasConsistency {
		level = o.consistency
	}
	switch level {
	case Stale:
		x.Consistency, ca.weak = Stale, true
	case SessionReads:
		if ca.track {
			x.Consistency, x.Token = SessionReads, k.c.seen[ca.slot].Load()
			ca.weak = true
		}
	}
}

// encode makes the call of a single operation.
func (k *caller) encode(ctx context.Context, o *Operation) (*call, error) {
	if err := o.check(); err != nil {
		return nil, refused(o.code, err)
	}
	ca := k.newCall(ctx, o)
	ca.frame = o.appendBody(ca.frame)
	ca.keyLen = len(o.key)
	ca.keyAt = len(ca.frame) - len(o.value) - len(o.key)
	return ca, nil
}

// start sends an operation whose answer goes to h or s.
func (k *caller) start(o *Operation, s sink, h Handler) error {
	ca, err := k.encode(context.Background(), o)
	if err != nil {
		return err
	}
	ca.sink, ca.handler = s, h
	if err := k.c.dispatcher.submit(ca); err != nil {
		k.release(ca)
		return err
	}
	return nil
}

// roundTrip sends one operation, waits, and decodes the answer into r, whose
// slices are then the caller's. It returns nil or an *Error.
func (k *caller) roundTrip(ctx context.Context, o *Operation, r *Result) error {
	ca, err := k.encode(ctx, o)
	if err != nil {
		return err
	}
	if err := k.wait(ctx, ca); err != nil {
		return err
	}
	err = ca.result(r)
	if ca.code != protocol.OpGet {
		r.own()
	}
	k.release(ca)
	return err
}

// await sends ca, waits, and returns an error unless the status is OK. After
// an error ca is no longer the caller's.
func (k *caller) await(ctx context.Context, ca *call) error {
	if err := k.wait(ctx, ca); err != nil {
		return err
	}
	if err := ca.statusError(); err != nil {
		k.release(ca)
		return err
	}
	return nil
}

// wait sends ca and waits until it has been answered. If ctx ends first, ca is
// given up and an *Error returned; ca is no longer the caller's then.
func (k *caller) wait(ctx context.Context, ca *call) error {
	err := ctx.Err()
	if err != nil {
		err = &Error{Op: ca.code.String(), Outcome: NotDone, Err: err}
	} else {
		err = k.c.dispatcher.submit(ca)
	}
	if err != nil {
		k.release(ca)
		return err
	}
	if ctx.Done() == nil {
		<-ca.ready
		return nil
	}
	select {
	case <-ca.ready:
		return nil
	case <-ctx.Done():
	}
	if err := k.cancel(ca, ctx.Err()); err != nil {
		return err
	}
	<-ca.ready // the answer won the race
	return nil
}

// cancel gives up a call whose context ended. It returns nil if the answer
// came first.
func (k *caller) cancel(ca *call, cause error) error {
	prev := ca.state.Swap(callDone)
	if prev == callDone {
		return nil
	}
	e := k.c.dispatcher.unanswered(ca, prev, cause)
	if prev == callWaiting {
		k.c.dispatcher.unlist(ca)
	}
	k.finish(ca)
	k.c.dispatcher.refill()
	return e
}

// release returns a call to the pool, unless something may still refer to it.
func (k *caller) release(ca *call) {
	if ca.abandoned {
		return
	}
	frame, spare, ready := ca.frame[:0], ca.spare[:0], ca.ready
	if cap(frame) > frameKeptBytes {
		frame = nil
	}
	*ca = call{frame: frame, spare: spare, ready: ready}
	k.calls.Put(ca)
}

// finish notes that a call, which is callDone, will never be sent again. That
// may let calls go that wait for a sequence number: refill must follow.
func (k *caller) finish(ca *call) {
	if ca.once {
		k.c.session.finish(ca)
	}
}

// complete hands a call that the caller moved to callDone to whoever waits for
// it. ca.body must be a view that lives until complete returns, or own memory.
// The caller must not touch ca afterwards, and must call refill, once for all
// the calls it completes.
func (k *caller) complete(ca *call) {
	k.finish(ca)
	switch {
	case ca.handler != nil:
		r := &ca.scratch
		*r = Result{}
		if err := ca.result(r); err != nil {
			r.Err = err
		}
		k.observe(ca, r.Version)
		ca.handler.Complete(r)
		k.release(ca)
	case ca.sink != nil:
		k.observeBody(ca)
		ca.sink.finish(ca)
		k.release(ca)
	default:
		ca.own()
		k.observeBody(ca)
		ca.ready <- struct{}{}
	}
}

// observe notes the version an answer has shown. A RENAME shows that of its
// destination; both keys lie in one shard, whose versions are comparable.
func (k *caller) observe(ca *call, version uint64) {
	if !ca.track || version == 0 {
		return
	}
	k.c.seen.observe(ca.slot, version)
	if ca.code == protocol.OpRename {
		k.c.seen.observe(protocol.Slot(ca.frame[ca.keyAt+ca.keyLen:]), version)
	}
}

// observeRow notes the version of one row among several.
func (k *caller) observeRow(key []byte, version uint64) {
	if k.c.seen != nil && version != 0 {
		k.c.seen.observe(protocol.Slot(key), version)
	}
}

// observeBody does so before the body is decoded: every tracked reply with a
// body of its own begins with the version.
func (k *caller) observeBody(ca *call) {
	if ca.track && ca.failure == nil && ca.status.CarriesResult() && len(ca.body) >= 8 {
		k.observe(ca, binary.LittleEndian.Uint64(ca.body))
	}
}
