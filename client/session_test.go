package client

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/proa-kv/proa/protocol"
)

// sessionCall is a write that has only what a session looks at.
func sessionCall() *call {
	return &call{once: true, frame: make([]byte, sequenceAt+16)}
}

// end finishes a call as its owner would.
func (s *session) end(ca *call) {
	ca.state.Store(callDone)
	s.finish(ca)
}

func TestSessionWatermark(t *testing.T) {
	s := newSession()
	var calls []*call
	for want := uint64(1); want <= 5; want++ {
		ca := sessionCall()
		if !s.number(ca) || ca.sequence != want || s.low != 0 {
			t.Fatalf("number %d, watermark %d", ca.sequence, s.low)
		}
		calls = append(calls, ca)
	}
	for _, step := range []struct{ finish, low uint64 }{{2, 0}, {4, 0}, {1, 2}, {3, 4}, {5, 5}} {
		s.end(calls[step.finish-1])
		if s.low != step.low {
			t.Fatalf("after finishing %d: watermark %d, want %d", step.finish, s.low, step.low)
		}
	}
	if s.finished != [sessionWindow]bool{} {
		t.Error("numbers up to the watermark are kept")
	}
}

func TestSessionWindow(t *testing.T) {
	s := newSession()
	var calls []*call
	take := func(want bool) *call {
		t.Helper()
		ca := sessionCall()
		if s.full() == want || s.number(ca) != want || (ca.sequence != 0) != want {
			t.Fatalf("number %d at watermark %d, room %v wanted", ca.sequence, s.low, want)
		}
		return ca
	}
	for range sessionWindow {
		calls = append(calls, take(true))
	}
	take(false)
	if first := calls[0]; !s.number(first) || first.sequence != 1 {
		t.Fatalf("another attempt of the first call: number %d", first.sequence)
	}
	for _, ca := range calls[1:] {
		s.end(ca)
	}
	take(false) // the first number alone holds the watermark
	s.end(calls[0])
	if s.low != sessionWindow {
		t.Fatalf("watermark %d", s.low)
	}
	// The window goes round several times.
	for range 3*sessionWindow + 1 {
		a, b := take(true), take(true)
		s.end(b)
		s.end(a)
	}
	if s.low != s.last {
		t.Errorf("watermark %d of %d", s.low, s.last)
	}
}

// A call that is given up before it has a number gets none, and one that had
// none leaves no trace.
func TestSessionGivenUp(t *testing.T) {
	s := newSession()
	ca := sessionCall()
	s.end(ca)
	if !s.number(ca) || ca.sequence != 0 || s.last != 0 || s.low != 0 {
		t.Errorf("number %d of %d, watermark %d", ca.sequence, s.last, s.low)
	}
}

// checkSessionIdle checks that no call waits and every number is finished.
func checkSessionIdle(t *testing.T, c *Client) {
	t.Helper()
	c.dispatcher.mu.Lock()
	waiting, unnumbered := c.dispatcher.waiting.n.Load(), c.dispatcher.unnumbered.n.Load()
	if waiting != 0 || unnumbered != 0 || c.dispatcher.waiting.front != nil || c.dispatcher.unnumbered.front != nil {
		t.Errorf("%d and %d calls still wait", waiting, unnumbered)
	}
	c.dispatcher.mu.Unlock()
	c.session.mu.Lock()
	defer c.session.mu.Unlock()
	if c.session.low != c.session.last || c.session.finished != [sessionWindow]bool{} {
		t.Errorf("watermark %d of %d", c.session.low, c.session.last)
	}
}

// holdIncrs lets f keep back its answers to INCR, after carrying it out or
// instead. release lets all later ones through and drops the connections, so
// that what was kept back is sent again.
func holdIncrs(f *fake, v verdict) (release func()) {
	f.intercept = func(_ *fakeConn, fr *protocol.Frame, _ *protocol.Extensions) verdict {
		if protocol.Opcode(fr.Code) == protocol.OpIncr {
			return v
		}
		return verdict{}
	}
	return func() {
		f.set(func() { f.intercept = nil })
		f.dropAll()
	}
}

// checkWindow checks of every request seen so far that its number was within
// the window of its own watermark, and returns the highest number.
func checkWindow(t *testing.T, f *fake) (last uint64) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.requests {
		if r.x.Sequence > r.x.Acknowledged+sessionWindow || r.x.Sequence != 0 && r.x.Acknowledged >= r.x.Sequence {
			t.Fatalf("number %d with watermark %d", r.x.Sequence, r.x.Acknowledged)
		}
		last = max(last, r.x.Sequence)
	}
	return last
}

// More writes than the window wait in the client, without a number; reads go
// on, deadlines hold, and after a crash every write takes effect once.
func TestWritesAboveTheWindow(t *testing.T) {
	for name, v := range map[string]verdict{"lost requests": {skip: true}, "lost replies": {mute: true}} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.record = true
			release := holdIncrs(f, v)
			c := dial(t, func(cfg *Config) { cfg.ExactlyOnce, cfg.Connections, cfg.MaxInFlight = true, 1, 4096 }, f)
			const calls = 3*sessionWindow + 7
			futures := make([]*Future[int64], calls)
			for i := range futures {
				futures[i] = c.IncrAsync([]byte("n"), 1)
			}
			// One connection: what was sent before this read has been seen.
			if _, err := c.Get(t.Context(), []byte("other")); !errors.Is(err, ErrNotFound) {
				t.Fatalf("a read beside writes that wait: %v", err)
			}
			if last := checkWindow(t, f); last != sessionWindow {
				t.Errorf("number %d was sent", last)
			}
			if n := c.dispatcher.unnumbered.n.Load(); n != calls-sessionWindow {
				t.Errorf("%d calls are held back", n)
			}

			ctx, cancel := context.WithCancel(t.Context())
			cancelled := make(chan error)
			go func() {
				_, err := c.Put(ctx, []byte("k"), nil)
				cancelled <- err
			}()
			for c.dispatcher.unnumbered.n.Load() == calls-sessionWindow {
				runtime.Gosched()
			}
			cancel()
			late, stop := context.WithTimeout(t.Context(), time.Millisecond)
			defer stop()
			_, err := c.Put(late, []byte("k"), nil)
			for want, err := range map[error]error{
				context.Canceled:         <-cancelled,
				context.DeadlineExceeded: err,
				ErrDeadlineExceeded: func() error {
					_, err := c.PutAsync([]byte("k"), nil, WithTimeout(3*time.Millisecond)).Wait(t.Context())
					return err
				}(),
			} {
				if !errors.Is(err, want) || !SafeToRetry(err) {
					t.Errorf("held back: %v, want %v", err, want)
				}
			}
			if n := c.dispatcher.unnumbered.n.Load(); n != calls-sessionWindow {
				t.Errorf("%d calls are held back", n)
			}

			release()
			for i, p := range futures {
				if _, err := p.Wait(t.Context()); err != nil {
					t.Fatalf("call %d: %v", i, err)
				}
			}
			if last := checkWindow(t, f); last != calls || f.applied != calls {
				t.Errorf("%d numbers for %d calls, %d took effect", last, calls, f.applied)
			}
			checkSessionIdle(t, c)
		})
	}
}

// Whoever ends the call that holds the watermark lets the held ones go, even if
// no reply arrives that could.
func TestWatermarkRises(t *testing.T) {
	for _, how := range []string{"cancelled", "timed out"} {
		t.Run(how, func(t *testing.T) {
			f := newFake(t)
			holdIncrs(f, verdict{skip: true})
			c := dial(t, func(cfg *Config) { cfg.ExactlyOnce, cfg.KeepAlive = true, -1 }, f)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			first := make(chan error, 1)
			release := cancel
			if how == "cancelled" {
				go func() {
					_, err := c.Incr(ctx, []byte("n"), 1)
					first <- err
				}()
			} else {
				// Its time is up when the test says so.
				o := OpIncr([]byte("n"), 1, WithTimeout(time.Hour))
				ca, err := c.caller.encode(t.Context(), &o)
				if err != nil {
					t.Fatal(err)
				}
				ca.sink = sinkFunc(func(ca *call) { first <- ca.statusError() })
				if err := c.dispatcher.submit(ca); err != nil {
					t.Fatal(err)
				}
				release = func() {
					for cn := range c.pool.conns {
						cn.mu.Lock()
						ca.deadline = 1
						cn.mu.Unlock()
					}
					c.janitor.expire()
				}
			}
			for {
				c.session.mu.Lock()
				last := c.session.last
				c.session.mu.Unlock()
				if last == 1 {
					break
				}
				runtime.Gosched()
			}
			for range sessionWindow - 1 {
				if _, err := c.Put(t.Context(), []byte("k"), nil); err != nil {
					t.Fatal(err)
				}
			}
			held := c.PutAsync([]byte("held"), nil)
			if _, err := c.Get(t.Context(), []byte("held")); !errors.Is(err, ErrNotFound) || c.dispatcher.unnumbered.n.Load() != 1 {
				t.Fatalf("%v with %d calls held back", err, c.dispatcher.unnumbered.n.Load())
			}
			release()
			if err := <-first; !errors.Is(err, ErrOutcomeUnknown) {
				t.Error(err)
			}
			if _, err := held.Wait(t.Context()); err != nil {
				t.Error(err)
			}
			checkSessionIdle(t, c)
		})
	}
}

type sinkFunc func(*call)

func (s sinkFunc) finish(ca *call) { s(ca) }

// Calls that only wait in the queue take no number, so giving them up leaves
// none open.
func TestNumbersAreTakenLate(t *testing.T) {
	f := newFake(t)
	f.record, f.inFlight = true, 1
	release := holdIncrs(f, verdict{mute: true})
	c := dial(t, func(cfg *Config) { cfg.ExactlyOnce, cfg.Connections = true, 1 }, f)
	first := c.IncrAsync([]byte("n"), 1)
	for range 3 {
		if _, err := c.PutAsync([]byte("k"), nil, WithTimeout(time.Millisecond)).Wait(t.Context()); !SafeToRetry(err) {
			t.Fatal(err)
		}
	}
	second := c.IncrAsync([]byte("n"), 1)
	release()
	for i, p := range []*Future[int64]{first, second} {
		if n, err := p.Wait(t.Context()); err != nil || n != int64(i+1) {
			t.Fatal(n, err)
		}
	}
	if last := checkWindow(t, f); last != 2 {
		t.Errorf("%d numbers for 2 calls", last)
	}
	checkSessionIdle(t, c)
}

// Reads and writes that wait for a connection leave in the order they came,
// although those without a number stand in a list of their own.
func TestOrderOfWaitingCalls(t *testing.T) {
	f := newFake(t)
	f.record, f.inFlight = true, 1
	release := holdIncrs(f, verdict{mute: true})
	c := dial(t, func(cfg *Config) { cfg.ExactlyOnce, cfg.Connections = true, 1 }, f)
	incr := c.IncrAsync([]byte("n"), 1)
	var puts []*Future[WriteResult]
	var gets []*Future[Item]
	for i := range 4 {
		puts = append(puts, c.PutAsync(key(i), nil))
		gets = append(gets, c.GetAsync(key(i)))
	}
	release()
	if _, err := incr.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i := range puts {
		if _, err := puts[i].Wait(t.Context()); err != nil {
			t.Error(err)
		}
		if _, err := gets[i].Wait(t.Context()); err != nil {
			t.Errorf("the read behind write %d overtook it: %v", i, err)
		}
	}
	var order []protocol.Opcode
	for _, r := range f.requests {
		if r.code != protocol.OpIncr {
			order = append(order, r.code)
		}
	}
	for i, code := range order {
		if want := []protocol.Opcode{protocol.OpPut, protocol.OpGet}[i%2]; code != want {
			t.Fatalf("sent in the order %v", order)
		}
	}
}

// Under breaking connections, short deadlines and little room no number is
// lost: the window would close for good.
func TestSessionUnderStorm(t *testing.T) {
	f := newFake(t)
	f.record, f.inFlight = true, 16
	n := 0
	f.intercept = func(*fakeConn, *protocol.Frame, *protocol.Extensions) verdict {
		switch n++; n % 300 {
		case 100:
			return verdict{drop: true}
		case 200:
			return verdict{drop: true, after: true}
		}
		return verdict{}
	}
	c := dial(t, func(cfg *Config) { cfg.ExactlyOnce, cfg.Connections, cfg.BackoffMin = true, 2, time.Millisecond }, f)
	var wg sync.WaitGroup
	for g := range 32 {
		wg.Go(func() {
			for i := range 100 {
				timeout := time.Duration(i*7+g) % 50 * 20 * time.Microsecond
				ctx, cancel := context.WithTimeout(t.Context(), timeout)
				switch g % 3 {
				case 0:
					c.Incr(ctx, []byte("n"), 1)
				case 1:
					c.PutAsync([]byte("k"), nil, WithTimeout(timeout+1)).Wait(t.Context())
				default:
					c.Get(ctx, []byte("k"))
				}
				cancel()
			}
		})
	}
	wg.Wait()
	checkWindow(t, f)
	f.set(func() { f.intercept = nil })
	if _, err := c.Incr(t.Context(), []byte("n"), 1); err != nil {
		t.Fatal(err)
	}
	checkSessionIdle(t, c)
}

// A call given up in the queue of a connection makes room there without any
// reply, for the one that waits behind it.
func TestRoomWithoutReply(t *testing.T) {
	f := newFake(t)
	f.inFlight = 1
	c := dial(t, func(cfg *Config) { cfg.ExactlyOnce, cfg.Connections, cfg.KeepAlive = true, 1, -1 }, f)
	o := OpPut([]byte("given up"), nil)
	ca, err := c.caller.encode(t.Context(), &o)
	if err != nil {
		t.Fatal(err)
	}
	ca.seal()
	cn := (*c.pool.ready.Load())[0]
	if r := cn.enqueue(ca); r != enqueuedWrite {
		t.Fatal(r)
	}
	waits := c.PutAsync([]byte("waits"), nil)
	if err := c.caller.cancel(ca, context.Canceled); !SafeToRetry(err) {
		t.Fatal(err)
	}
	cn.write()
	if _, err := waits.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	checkSessionIdle(t, c)
}

// What single shards refuse of a batch is sent again, and nothing else.
func TestRefusedPartsOfBatch(t *testing.T) {
	for _, exactly := range []bool{false, true} {
		f := newFake(t)
		f.record = true
		refuse := protocol.OpResult{Status: protocol.StatusNotLeader, Body: (&protocol.ErrorReply{}).AppendTo(nil)}
		done := func(n int64) protocol.OpResult {
			return protocol.OpResult{Body: (&protocol.IncrReply{Version: 7, Value: n}).AppendTo(nil)}
		}
		var script []protocol.OpResults
		f.intercept = func(*fakeConn, *protocol.Frame, *protocol.Extensions) verdict {
			m := protocol.BatchReply{Results: script[0]}
			script = script[1:]
			return verdict{reply: protocol.End(m.AppendTo(protocol.Begin(nil, 0, protocol.FlagReply, 0)), 0)}
		}
		unknown := protocol.OpResult{Status: protocol.StatusTimeout, Body: (&protocol.ErrorReply{}).AppendTo(nil)}
		c := dial(t, func(cfg *Config) { cfg.ExactlyOnce = exactly }, f)
		batch := NewBatch().NonAtomic()
		for _, k := range []string{"a", "b", "c", "d"} {
			batch.Incr([]byte(k), 1)
		}
		if exactly { // see TestSessionRetriesLostParts
			unknown.Status = protocol.StatusSessionExpired
		}
		script = []protocol.OpResults{{refuse, done(1), refuse, unknown}, {refuse, done(3)}, {done(2)}}
		results, err := c.Batch(t.Context(), batch)
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range []int64{2, 1, 3} {
			if results[i].Err != nil || results[i].Integer != want {
				t.Errorf("operation %d: %d, %v, want %d", i, results[i].Integer, results[i].Err, want)
			}
		}
		if err := results[3].Err; !errors.Is(err, ErrOutcomeUnknown) {
			t.Errorf("a part with an unknown outcome: %v", err)
		}
		var sent []string
		for _, r := range f.requests {
			var m protocol.Batch
			if err := m.Decode(r.body); err != nil || m.Flags&protocol.BatchNonAtomic == 0 {
				t.Fatal(m, err)
			}
			keys := ""
			for _, op := range m.Ops {
				var in protocol.Incr
				if err := in.Decode(op.Body); err != nil {
					t.Fatal(err)
				}
				keys += string(in.Key)
			}
			sent = append(sent, keys)
		}
		if !slices.Equal(sent, []string{"abcd", "ac", "a"}) {
			t.Errorf("sent %q", sent)
		}
		// An atomic batch is refused as a whole, and RetryMax binds.
		c = dial(t, func(cfg *Config) { cfg.ExactlyOnce, cfg.RetryMax = exactly, -1 }, f)
		script = []protocol.OpResults{{refuse, done(1), refuse, unknown}}
		if results, err = c.Batch(t.Context(), batch); err != nil || !errors.Is(results[0].Err, ErrNotLeader) {
			t.Errorf("without retries: %v, %v", results, err)
		}
	}
}

// A batch over several shards is sent again as it was. Where a shard refuses
// its part of the second attempt, the first may have carried that part out.
func TestSpreadBatchIsRetried(t *testing.T) {
	f := newFake(t)
	f.record = true
	attempts := 0
	f.intercept = func(_ *fakeConn, fr *protocol.Frame, _ *protocol.Extensions) verdict {
		if attempts++; attempts == 1 {
			return verdict{drop: true, after: true}
		}
		var refusal protocol.ErrorReply
		m := protocol.BatchReply{Results: protocol.OpResults{
			{Body: (&protocol.IncrReply{Version: 7, Value: 1}).AppendTo(nil)},
			{Status: protocol.StatusNoQuorum, Body: refusal.AppendTo(nil)},
			{Status: protocol.StatusNotInteger, Body: refusal.AppendTo(nil)},
		}}
		return verdict{reply: protocol.End(m.AppendTo(protocol.Begin(nil, 0, protocol.FlagReply, 0)), 0)}
	}
	c := dial(t, func(cfg *Config) { cfg.ExactlyOnce, cfg.RetryMax = true, 1 }, f)
	spread := NewBatch().NonAtomic().Incr([]byte("a"), 1).Incr([]byte("b"), 1).Incr([]byte("c"), 1)
	results, err := c.Batch(t.Context(), spread)
	if err != nil || results[0].Err != nil || results[0].Integer != 1 {
		t.Fatalf("%+v, %v", results, err)
	}
	var e *Error
	if err := results[1].Err; !errors.Is(err, ErrNoQuorum) || !errors.Is(err, ErrOutcomeUnknown) || SafeToRetry(err) || !errors.As(err, &e) || e.Attempts != 2 {
		t.Errorf("refused at the second attempt: %v", err)
	}
	if err := results[2].Err; !errors.Is(err, ErrNotInteger) || !SafeToRetry(err) {
		t.Errorf("carried out without an effect: %v", err)
	}
	a, b := f.requests[0], f.requests[1]
	if a.x.Session != b.x.Session || a.x.Sequence != b.x.Sequence || string(a.body) != string(b.body) {
		t.Errorf("the second attempt differs: %+v, %+v", a, b)
	}
	refuse := verdict{reply: func() []byte {
		m := protocol.BatchReply{Results: protocol.OpResults{{Status: protocol.StatusNoQuorum, Body: (&protocol.ErrorReply{}).AppendTo(nil)}}}
		return protocol.End(m.AppendTo(protocol.Begin(nil, 0, protocol.FlagReply, 0)), 0)
	}()}
	f.intercept = func(*fakeConn, *protocol.Frame, *protocol.Extensions) verdict { return refuse }
	if results, err = c.Batch(t.Context(), NewBatch().NonAtomic().Incr([]byte("a"), 1)); err != nil || !errors.Is(results[0].Err, ErrNoQuorum) || !SafeToRetry(results[0].Err) {
		t.Errorf("refused at each attempt: %v, %v", results, err)
	}
	checkSessionIdle(t, c)
}

// A write of which it is unknown whether it took effect is not sent again when the
// server may have forgotten about it, though its caller would wait for ever.
func TestForgottenWriteIsNotSentAgain(t *testing.T) {
	f := newFake(t)
	f.record = true
	f.intercept = func(*fakeConn, *protocol.Frame, *protocol.Extensions) verdict {
		return verdict{reply: errorFrame(protocol.StatusTimeout, 0, "")}
	}
	c := dial(t, func(cfg *Config) { cfg.ExactlyOnce, cfg.RequestTimeout = true, -1 }, f)
	c.session.retryMax = 100 * time.Millisecond
	_, err := c.Incr(t.Context(), []byte("n"), 1)
	if !errors.Is(err, ErrSessionExpired) || !errors.Is(err, ErrOutcomeUnknown) || SafeToRetry(err) {
		t.Error(err)
	}
	// What was refused may be sent at any time.
	refusals := 8
	f.set(func() {
		f.intercept = func(*fakeConn, *protocol.Frame, *protocol.Extensions) verdict {
			if refusals--; refusals < 0 {
				return verdict{}
			}
			return verdict{reply: errorFrame(protocol.StatusNoQuorum, 0, "")}
		}
	})
	if n, err := c.Incr(t.Context(), []byte("n"), 1); n != 1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	checkSessionIdle(t, c)
}
