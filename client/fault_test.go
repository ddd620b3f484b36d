package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/proa-kv/proa/protocol"
)

// once returns an intercept that gives v to the first request of code and
// serves everything else.
func once(code protocol.Opcode, v verdict) func(*fakeConn, *protocol.Frame, *protocol.Extensions) verdict {
	used := false
	return func(_ *fakeConn, f *protocol.Frame, _ *protocol.Extensions) verdict {
		if used || protocol.Opcode(f.Code) != code {
			return verdict{}
		}
		used = true
		return v
	}
}

func TestConnectionLostUnderRead(t *testing.T) {
	for name, v := range map[string]verdict{"before": {drop: true}, "after": {drop: true, after: true}} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.intercept = once(protocol.OpGet, v)
			c := dial(t, nil, f)
			c.Put(t.Context(), []byte("k"), []byte("v"))
			if item, err := c.Get(t.Context(), []byte("k")); err != nil || string(item.Value) != "v" {
				t.Fatalf("%+v, %v", item, err)
			}
		})
	}
}

func TestConnectionLostUnderWrite(t *testing.T) {
	for name, v := range map[string]verdict{"before": {drop: true}, "after": {drop: true, after: true}} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.intercept = once(protocol.OpIncr, v)
			c := dial(t, nil, f)
			_, err := c.Incr(t.Context(), []byte("n"), 1)
			if !errors.Is(err, ErrOutcomeUnknown) || !errors.Is(err, ErrConnectionLost) || SafeToRetry(err) {
				t.Fatal(err)
			}
			want := int64(1)
			if v.after {
				want = 2
			}
			if n, err := c.Incr(t.Context(), []byte("n"), 1); n != want || err != nil {
				t.Fatalf("%d, %v", n, err)
			}
		})
		t.Run(name+", exactly once", func(t *testing.T) {
			f := newFake(t)
			f.record = true
			f.intercept = once(protocol.OpIncr, v)
			c := dial(t, func(cfg *Config) { cfg.ExactlyOnce = true }, f)
			for want := int64(1); want <= 3; want++ {
				if n, err := c.Incr(t.Context(), []byte("n"), 1); n != want || err != nil {
					t.Fatalf("%d, %v", n, err)
				}
			}
			f.mu.Lock()
			defer f.mu.Unlock()
			if f.applied != 3 {
				t.Errorf("applied %d times", f.applied)
			}
			var got [][2]uint64
			for _, r := range f.requests {
				if r.x.Session != c.session.id || r.x.Session == 0 {
					t.Errorf("session %d", r.x.Session)
				}
				got = append(got, [2]uint64{r.x.Sequence, r.x.Acknowledged})
			}
			want := [][2]uint64{{1, 0}, {1, 0}, {2, 1}, {3, 2}}
			if len(got) != 4 || got[0] != want[0] || got[1] != want[1] || got[2] != want[2] || got[3] != want[3] {
				t.Errorf("sequence and acknowledged: %v, want %v", got, want)
			}
		})
	}
}

// Under a session, a connection that breaks again and again neither loses nor
// repeats a write.
func TestExactlyOnceUnderStorm(t *testing.T) {
	for name, secure := range map[string]bool{"plain": false, "TLS": true} {
		t.Run(name, func(t *testing.T) { exactlyOnceUnderStorm(t, secure) })
	}
}

func exactlyOnceUnderStorm(t *testing.T, secure bool) {
	f := newFake(t)
	n := 0
	f.intercept = func(_ *fakeConn, fr *protocol.Frame, _ *protocol.Extensions) verdict {
		n++
		switch n % 40 {
		case 10:
			return verdict{drop: true}
		case 25:
			return verdict{drop: true, after: true}
		}
		return verdict{}
	}
	c := dial(t, func(cfg *Config) {
		if cfg.ExactlyOnce, cfg.Connections = true, 2; secure {
			cfg.TLS = f.secureLocal()
		}
	}, f)
	var wg sync.WaitGroup
	const goroutines, each = 8, 60
	for range goroutines {
		wg.Go(func() {
			for range each {
				if _, err := c.Incr(t.Context(), []byte("n"), 1); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	f.set(func() { f.intercept = nil })
	if n, err := c.Incr(t.Context(), []byte("n"), 0); n != goroutines*each || err != nil {
		t.Fatalf("%d increments, %v", n, err)
	}
	checkSessionIdle(t, c)
}

// A session write whose retry is refused may have taken effect at first.
func TestExactlyOnceOutcomeUnknown(t *testing.T) {
	f := newFake(t)
	attempts := 0
	f.intercept = func(_ *fakeConn, fr *protocol.Frame, _ *protocol.Extensions) verdict {
		if attempts++; attempts == 1 {
			return verdict{drop: true, after: true}
		}
		return verdict{reply: errorFrame(protocol.StatusPermission, 0, "no more")}
	}
	c := dial(t, func(cfg *Config) { cfg.ExactlyOnce = true }, f)
	_, err := c.Put(t.Context(), []byte("k"), nil)
	if !errors.Is(err, ErrOutcomeUnknown) || !errors.Is(err, ErrPermission) || SafeToRetry(err) {
		t.Fatal(err)
	}
}

// Each status becomes its sentinel, with the outcome of the protocol's table.
func TestStatuses(t *testing.T) {
	f := newFake(t)
	c := dial(t, func(cfg *Config) { cfg.RetryMax = -1 }, f)
	for s := Status(1); s.Known() || s == 99; s++ {
		if s == protocol.StatusNotFound || s == protocol.StatusConditionFailed {
			continue
		}
		if !(s + 1).Known() && s != 99 {
			s = 98
			continue
		}
		f.set(func() {
			f.intercept = func(*fakeConn, *protocol.Frame, *protocol.Extensions) verdict {
				return verdict{reply: errorFrame(s, 250, "because")}
			}
		})
		sentinel := statusErrors[s]
		if s == 99 {
			sentinel = ErrProtocol
		}
		_, err := c.Put(t.Context(), []byte("k"), nil)
		var e *Error
		if !errors.As(err, &e) || !errors.Is(err, sentinel) || e.Status != s || e.Message != "because" || e.RetryAfter != 250*time.Millisecond || e.Op != "PUT" || e.Attempts != 1 {
			t.Fatalf("%v: %+v", s, e)
		}
		if errors.Is(err, ErrOutcomeUnknown) != (s.Outcome() == Unknown) || SafeToRetry(err) != (s.Outcome() == NotDone) {
			t.Errorf("%v: outcome %v", s, e.Outcome)
		}
		if !strings.Contains(err.Error(), "because") || !strings.HasPrefix(err.Error(), "proa: PUT: ") {
			t.Errorf("%v: message %q", s, err)
		}
		if _, err := c.Get(t.Context(), []byte("k")); !errors.Is(err, sentinel) || errors.Is(err, ErrOutcomeUnknown) {
			t.Errorf("%v: read: %v", s, err)
		}
		if s == 99 {
			break
		}
	}
	for s, err := range statusErrors {
		if err != nil && !Status(s).Known() {
			t.Errorf("sentinel for unknown status %d", s)
		}
	}
	for s := Status(1); s.Known(); s++ {
		if statusErrors[s] == nil {
			t.Errorf("no sentinel for %v", s)
		}
	}
}

func TestTimeoutStatuses(t *testing.T) {
	for _, s := range []Status{protocol.StatusDeadlineExceeded, protocol.StatusTimeout} {
		err := error(replyError(protocol.OpPut, s))
		var timeout interface{ Timeout() bool }
		if !errors.Is(err, ErrDeadlineExceeded) || !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("%v: %v", s, err)
		}
	}
}

func TestBusyIsRetried(t *testing.T) {
	f := newFake(t)
	f.record = true
	f.intercept = once(protocol.OpPut, verdict{reply: errorFrame(protocol.StatusBusy, 30, "")})
	c := dial(t, nil, f)
	start := time.Now()
	if _, err := c.Put(t.Context(), []byte("k"), nil); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(start); d < 30*time.Millisecond {
		t.Errorf("sent again after %v", d)
	}
	if len(f.requests) != 2 {
		t.Errorf("%d requests", len(f.requests))
	}
	// With no time for another attempt the answer is the server's own.
	f.set(func() {
		f.intercept = func(*fakeConn, *protocol.Frame, *protocol.Extensions) verdict {
			return verdict{reply: errorFrame(protocol.StatusBusy, 60_000, "")}
		}
	})
	_, err := c.Put(t.Context(), []byte("k"), nil, WithTimeout(10*time.Second))
	var e *Error
	if !errors.Is(err, ErrBusy) || !SafeToRetry(err) || !errors.As(err, &e) || e.RetryAfter != time.Minute {
		t.Fatal(err)
	}
}

func TestRetryMax(t *testing.T) {
	f := newFake(t)
	f.record = true
	f.intercept = func(*fakeConn, *protocol.Frame, *protocol.Extensions) verdict {
		return verdict{reply: errorFrame(protocol.StatusNotLeader, 0, "")}
	}
	c := dial(t, func(cfg *Config) { cfg.RetryMax = 2 }, f)
	_, err := c.Put(t.Context(), []byte("k"), nil)
	var e *Error
	if !errors.Is(err, ErrNotLeader) || !errors.As(err, &e) || e.Attempts != 3 || len(f.requests) != 3 {
		t.Fatalf("%v after %d requests", err, len(f.requests))
	}
}

// A call cancelled while it waits was never sent, and never will be.
func TestCancelBeforeSending(t *testing.T) {
	f := newFake(t)
	f.record, f.inFlight = true, 1
	blocked := make(chan struct{}, 1)
	var waiting *fakeConn
	var id uint64
	f.intercept = func(cn *fakeConn, fr *protocol.Frame, _ *protocol.Extensions) verdict {
		if protocol.Opcode(fr.Code) == protocol.OpPing {
			waiting, id = cn, fr.ID
			blocked <- struct{}{}
			return verdict{skip: true}
		}
		return verdict{}
	}
	c := dial(t, nil, f)
	answered := make(chan error)
	go func() {
		_, err := c.Ping(t.Context())
		answered <- err
	}()
	<-blocked
	for _, cause := range []error{context.Canceled, context.DeadlineExceeded} {
		ctx, cancel := context.WithCancel(t.Context())
		if cause == context.DeadlineExceeded {
			ctx, cancel = context.WithTimeout(t.Context(), time.Millisecond)
		} else {
			time.AfterFunc(time.Millisecond, cancel)
		}
		_, err := c.Put(ctx, []byte("k"), nil)
		cancel()
		if !errors.Is(err, cause) || !SafeToRetry(err) || errors.Is(err, ErrOutcomeUnknown) {
			t.Fatal(err)
		}
	}
	if n := c.dispatcher.waiting.n.Load(); n != 0 || c.dispatcher.waiting.front != nil {
		t.Errorf("%d calls that were given up still wait", n)
	}
	if _, err := c.Put(t.Context(), []byte("k"), nil, WithTimeout(5*time.Millisecond)); !errors.Is(err, ErrDeadlineExceeded) || !SafeToRetry(err) {
		t.Fatal(err)
	}
	waiting.send(protocol.End(protocol.Begin(nil, 0, protocol.FlagReply, id), 0))
	if err := <-answered; err != nil {
		t.Fatal(err)
	}
	if _, err := c.Get(t.Context(), []byte("k")); !errors.Is(err, ErrNotFound) {
		t.Fatalf("the cancelled write arrived: %v", err)
	}
}

func TestCanceledContextSendsNothing(t *testing.T) {
	f := newFake(t)
	f.record = true
	c := dial(t, func(cfg *Config) { cfg.ExactlyOnce = true }, f)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Put(ctx, []byte("k"), nil); !errors.Is(err, context.Canceled) || !SafeToRetry(err) {
		t.Fatal(err)
	}
	if len(f.requests) != 0 || c.session.last != 0 {
		t.Errorf("%d requests, %d numbers given out", len(f.requests), c.session.last)
	}
}

// A call cancelled after it was sent leaves the connection usable; its late
// reply is dropped, whatever has been asked meanwhile.
func TestCancelAfterSending(t *testing.T) {
	f := newFake(t)
	arrived := make(chan func(), 4)
	f.intercept = func(cn *fakeConn, fr *protocol.Frame, _ *protocol.Extensions) verdict {
		if protocol.Opcode(fr.Code) != protocol.OpDelete && protocol.Opcode(fr.Code) != protocol.OpExists {
			return verdict{}
		}
		id := fr.ID
		arrived <- func() { cn.send(protocol.AppendError(nil, id, protocol.StatusInternal, 0, "late")) }
		return verdict{skip: true}
	}
	c := dial(t, nil, f)
	ctx, cancel := context.WithCancel(t.Context())
	var late []func()
	go func() { late = append(late, <-arrived); cancel() }()
	_, err := c.Delete(ctx, []byte("k"))
	if !errors.Is(err, ErrOutcomeUnknown) || !errors.Is(err, context.Canceled) || SafeToRetry(err) {
		t.Fatal(err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	go func() { late = append(late, <-arrived); cancel() }()
	if _, err := c.Stat(ctx, []byte("k")); !errors.Is(err, context.Canceled) || errors.Is(err, ErrOutcomeUnknown) {
		t.Fatal(err)
	}
	for i := range 10 {
		if i == 5 {
			late[0]()
			late[1]()
		}
		if _, err := c.Put(t.Context(), key(i), key(i)); err != nil {
			t.Fatal(err)
		}
	}
	f.set(func() {
		if f.accepted != 1 {
			t.Errorf("%d connections", f.accepted)
		}
	})
}

// Without a deadline of the context the client's own timeout holds.
func TestRequestTimeout(t *testing.T) {
	f := newFake(t)
	f.record = true
	f.intercept = func(*fakeConn, *protocol.Frame, *protocol.Extensions) verdict { return verdict{skip: true} }
	keyOf := func(timeout time.Duration) []byte { return key(int(timeout.Milliseconds())) }
	c := dial(t, func(cfg *Config) { cfg.RequestTimeout = 20 * time.Millisecond }, f)
	if _, err := c.Get(t.Context(), key(20)); !errors.Is(err, ErrDeadlineExceeded) || !errors.Is(err, context.DeadlineExceeded) || !SafeToRetry(err) {
		t.Fatal(err)
	}
	untilSent(t, 20*time.Millisecond, func(timeout time.Duration) error {
		c := dial(t, func(cfg *Config) { cfg.RequestTimeout = timeout }, f)
		_, err := c.Put(context.Background(), keyOf(timeout), nil)
		return err
	})
	untilSent(t, 5*time.Millisecond, func(timeout time.Duration) error {
		_, err := c.PutAsync(keyOf(timeout), nil, WithTimeout(timeout)).Wait(t.Context())
		return err
	})
	failed := make(chan error, 1)
	if err := c.Do(OpGet(key(5), WithTimeout(5*time.Millisecond)), HandlerFunc(func(r *Result) { failed <- r.Err })); err != nil {
		t.Fatal(err)
	}
	if err := <-failed; !errors.Is(err, ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	// The earlier deadline does not make the janitor forget the later one.
	later := c.GetAsync(key(40), WithTimeout(40*time.Millisecond))
	sooner := c.GetAsync(key(5), WithTimeout(5*time.Millisecond))
	for _, p := range []*Future[Item]{sooner, later} {
		if _, err := p.Wait(t.Context()); !errors.Is(err, ErrDeadlineExceeded) {
			t.Fatal(err)
		}
	}
	eventually(t, func() bool { // what was sent arrives, at some time
		puts := 0
		f.set(func() {
			for _, r := range f.requests {
				if r.code == protocol.OpPut {
					puts++
				}
			}
		})
		return puts == 2
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.requests {
		var limit uint32
		_, digits, _ := bytes.Cut(r.body, []byte("key-"))
		fmt.Sscanf(string(digits), "%05d", &limit)
		if ms := r.x.DeadlineMillis; ms == 0 || ms > limit {
			t.Errorf("%v: deadline of %d ms, at most %d expected", r.code, ms, limit)
		}
	}
}

// untilSent makes a write that nobody answers, whose outcome must be unknown at its
// deadline, with longer and longer timeouts until the machine finds the time to send
// it before.
func untilSent(t *testing.T, timeout time.Duration, write func(timeout time.Duration) error) {
	t.Helper()
	for ; ; timeout *= 2 {
		err := write(timeout)
		if errors.Is(err, ErrOutcomeUnknown) {
			return
		}
		if !errors.Is(err, ErrDeadlineExceeded) || timeout > 10*time.Second {
			t.Fatalf("within %v: %v", timeout, err)
		}
	}
}

func TestDeadlineIsSent(t *testing.T) {
	f := newFake(t)
	f.record = true
	c := dial(t, func(cfg *Config) { cfg.RequestTimeout = -1 }, f)
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	c.Get(ctx, []byte("k"))
	c.Get(context.Background(), []byte("k"))
	c.Get(ctx, []byte("k"), WithTimeout(time.Minute))
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, want := range []uint32{3600_000, 0, 60_000} {
		if ms := f.requests[i].x.DeadlineMillis; ms > want || want > 0 && ms < want-10_000 {
			t.Errorf("request %d: deadline of %d ms, want about %d", i, ms, want)
		}
	}
}

func TestGoAway(t *testing.T) {
	f, g := newFake(t), newFake(t)
	g.record = true
	c := dial(t, nil, f, g)
	// Wait for both connections.
	for _, s := range []*fake{f, g} {
		for accepted := 0; accepted == 0; {
			s.set(func() { accepted = s.accepted })
			c.Ping(t.Context())
		}
	}
	held := make(chan func(), 1)
	f.set(func() {
		f.intercept = func(cn *fakeConn, fr *protocol.Frame, _ *protocol.Extensions) verdict {
			id := fr.ID
			held <- func() {
				cn.send(protocol.AppendError(nil, 0, protocol.StatusGoAway, 0, "bye"))
				cn.send(protocol.End(protocol.Begin(nil, 0, protocol.FlagReply, id), 0))
			}
			return verdict{skip: true}
		}
	})
	g.set(func() { g.intercept = f.intercept })
	ping := make(chan error, 1)
	go func() {
		_, err := c.Ping(t.Context())
		ping <- err
	}()
	finish := <-held
	f.set(func() { f.intercept = nil })
	g.set(func() { g.intercept = nil })
	finish()
	if err := <-ping; err != nil {
		t.Fatalf("the request in flight: %v", err)
	}
	for range 20 {
		if _, err := c.Put(t.Context(), []byte("k"), nil); err != nil {
			t.Fatal(err)
		}
	}
}

// After GOAWAY a connection takes no request, and closes after the last reply.
func TestGoAwayDrains(t *testing.T) {
	f := newFake(t)
	var server *fakeConn
	var id uint64
	arrived := make(chan struct{})
	f.intercept = func(cn *fakeConn, fr *protocol.Frame, _ *protocol.Extensions) verdict {
		if server == nil {
			server, id = cn, fr.ID
			close(arrived)
			return verdict{skip: true}
		}
		if cn == server {
			t.Error("a request on the connection that drains")
		}
		return verdict{}
	}
	c := dial(t, nil, f)
	first := c.PutAsync([]byte("k"), nil)
	<-arrived
	cn := (*c.pool.ready.Load())[0]
	server.send(protocol.AppendError(nil, 0, protocol.StatusGoAway, 0, ""))
	<-cn.retired
	for i := range 10 {
		if _, err := c.Put(t.Context(), key(i), nil); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-first.Done():
		t.Fatal("answered too early")
	case <-cn.gone:
		t.Fatal("closed too early")
	default:
	}
	m := protocol.WriteReply{Version: 77}
	server.send(protocol.End(m.AppendTo(protocol.Begin(nil, 0, protocol.FlagReply, id)), 0))
	if w, err := first.Wait(t.Context()); err != nil || w.Version != 77 {
		t.Fatalf("%+v, %v", w, err)
	}
	<-cn.gone
}

// The server comes back on the same address; calls made meanwhile wait.
func TestServerRestart(t *testing.T) {
	f := newFake(t)
	address := f.address()
	c := dial(t, nil, f)
	if _, err := c.Put(t.Context(), []byte("k"), []byte("v")); err != nil {
		t.Fatal(err)
	}
	f.close()
	down(t, c.pool.endpoints[0])
	_, err := c.Get(t.Context(), []byte("k"), WithTimeout(50*time.Millisecond))
	if !errors.Is(err, ErrUnavailable) || !errors.Is(err, ErrDeadlineExceeded) || !strings.Contains(err.Error(), address) || !SafeToRetry(err) {
		t.Fatal(err)
	}
	waiting := c.PutAsync([]byte("k"), []byte("w"))
	newFakeOn(t, "tcp", address)
	if _, err := waiting.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if item, err := c.Get(t.Context(), []byte("k")); err != nil || string(item.Value) != "w" {
		t.Fatalf("%+v, %v", item, err)
	}
}

func TestUnavailable(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	missing := "unix://" + filepath.Join(t.TempDir(), "none.sock")
	_, err = New(t.Context(), Config{Endpoints: []string{ln.Addr().String(), missing}})
	var u *UnavailableError
	if !errors.Is(err, ErrUnavailable) || !errors.As(err, &u) || len(u.Endpoints) != 2 || u.Endpoints[1].Err == nil || !SafeToRetry(err) {
		t.Fatal(err)
	}
	for _, part := range []string{ln.Addr().String(), missing, "connection refused"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q lacks %q", err, part)
		}
	}
}

func TestHandshakeFailures(t *testing.T) {
	hello := func(m protocol.HelloReply) []byte {
		return protocol.End(m.AppendTo(protocol.Begin(nil, 0, protocol.FlagReply, 0)), 0)
	}
	for name, test := range map[string]struct {
		reply  []byte
		change func(*Config)
		want   error
	}{
		"unauthenticated": {errorFrame(protocol.StatusUnauthenticated, 0, "who?"), func(c *Config) { c.User, c.Secret = "u", "s" }, ErrUnauthenticated},
		"too many":        {errorFrame(protocol.StatusTooManyConns, 100, ""), nil, ErrTooManyConnections},
		"refused":         {errorFrame(protocol.StatusHandshake, 0, ""), nil, ErrHandshake},
		"other version":   {hello(protocol.HelloReply{Version: 9}), nil, ErrHandshake},
		"truncated":       {protocol.End(protocol.Begin(nil, 0, protocol.FlagReply, 0), 0), nil, ErrHandshake},
		"no sessions":     {hello(protocol.HelloReply{Version: 1}), func(c *Config) { c.ExactlyOnce = true }, ErrUnsupported},
		"another server":  {[]byte("HTTP/1.1 400 Bad Request\r\n\r\n"), nil, ErrHandshake},
		"hangs up":        {nil, nil, ErrHandshake},
		"says nothing":    {nil, func(c *Config) { c.DialTimeout = 20 * time.Millisecond }, context.DeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.hello = func(cn *fakeConn, m *protocol.Hello) []byte {
				if test.reply == nil && name == "says nothing" {
					io.Copy(io.Discard, cn.nc)
				}
				if name == "another server" {
					cn.send(test.reply)
					return nil
				}
				return test.reply
			}
			cfg := Config{Endpoints: []string{f.address()}, Connections: 1}
			if test.change != nil {
				test.change(&cfg)
			}
			_, err := New(t.Context(), cfg)
			if !errors.Is(err, ErrUnavailable) || !errors.Is(err, test.want) || !SafeToRetry(err) {
				t.Fatal(err)
			}
		})
	}
}

func TestNewEndsWithContext(t *testing.T) {
	f := newFake(t)
	f.hello = func(cn *fakeConn, m *protocol.Hello) []byte { io.Copy(io.Discard, cn.nc); return nil }
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err := New(ctx, Config{Endpoints: []string{f.address()}})
	if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, ErrUnavailable) {
		t.Fatal(err)
	}
}

func TestHelloCarriesCredentials(t *testing.T) {
	f := newFake(t)
	var got protocol.Hello
	f.hello = func(_ *fakeConn, m *protocol.Hello) []byte {
		b := m.AppendTo(nil)
		got.Decode(b)
		r := protocol.HelloReply{Version: 1, Features: protocol.FeatureSessions}
		return protocol.End(r.AppendTo(protocol.Begin(nil, 0, protocol.FlagReply, 0)), 0)
	}
	dial(t, func(c *Config) { c.Name, c.User, c.Secret, c.ExactlyOnce = "prog", "u", "s", true }, f)
	f.mu.Lock()
	defer f.mu.Unlock()
	if string(got.Name) != "prog" || string(got.User) != "u" || string(got.Secret) != "s" || got.Features != protocol.FeatureSessions|protocol.FeatureCredentials {
		t.Errorf("%+v", got)
	}
}

// Whatever breaks the stream ends the connection; reads go on over a new one.
func TestBrokenStreams(t *testing.T) {
	whole := protocol.End(protocol.Begin(nil, 0, protocol.FlagReply, 1<<40|1), 0)
	request := protocol.End(protocol.Begin(nil, uint8(protocol.OpPing), 0, 1), 0)
	for name, bytes := range map[string][]byte{
		"garbage":       []byte("\xff\xff\xff\x7fgarbage that is no frame at all"),
		"zero length":   make([]byte, 16),
		"half a frame":  whole[:9],
		"unknown id":    whole,
		"a request":     request,
		"notice":        protocol.AppendError(nil, 0, protocol.StatusProtocol, 0, "out of step"),
		"idle":          protocol.AppendError(nil, 0, protocol.StatusIdle, 0, ""),
		"lying length":  {0, 0, 0xff, 0, 1, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3},
		"other version": {16, 0, 0, 0, 9, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			first := true
			f.intercept = func(cn *fakeConn, fr *protocol.Frame, _ *protocol.Extensions) verdict {
				if !first {
					return verdict{}
				}
				first = false
				cn.send(bytes)
				return verdict{drop: true}
			}
			c := dial(t, nil, f)
			if _, err := c.Get(t.Context(), []byte("k")); !errors.Is(err, ErrNotFound) {
				t.Fatal(err)
			}
			f.set(func() { first = true })
			if _, err := c.Put(t.Context(), []byte("k"), nil); !errors.Is(err, ErrOutcomeUnknown) {
				t.Fatal(err)
			}
		})
	}
}

// Frames that never left as a whole cannot have been carried out: they are
// sent again, without a session too.
func TestUnsentWritesAreSentAgain(t *testing.T) {
	f := newFake(t)
	release := make(chan struct{})
	f.intercept = func(cn *fakeConn, fr *protocol.Frame, _ *protocol.Extensions) verdict {
		<-release // until then nothing more is read
		f.intercept = nil
		return verdict{drop: true}
	}
	c := dial(t, nil, f)
	first := c.PutAsync([]byte("first"), nil)
	value := make([]byte, 4<<20)
	var large []*Future[WriteResult]
	for i := range 16 { // far more than socket buffers hold
		large = append(large, c.PutAsync(key(i), value))
	}
	cn := (*c.pool.ready.Load())[0]
	for stuck := false; !stuck; { // until the writer is in the middle of them
		cn.mu.Lock()
		stuck = cn.writing && len(cn.queue)-cn.head >= 8
		cn.mu.Unlock()
	}
	close(release)
	if _, err := first.Wait(t.Context()); !errors.Is(err, ErrOutcomeUnknown) {
		t.Fatal(err)
	}
	done := 0
	for i, p := range large {
		_, err := p.Wait(t.Context())
		switch {
		case err == nil:
			done++
		case !errors.Is(err, ErrOutcomeUnknown):
			t.Error(err)
		case i > 12:
			t.Errorf("write %d, behind 50 MiB of others: %v", i, err)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.applied != done {
		t.Errorf("%d writes acknowledged, %d applied", done, f.applied)
	}
}

func TestQueueFull(t *testing.T) {
	f := newFake(t)
	f.inFlight = 1
	f.intercept = func(*fakeConn, *protocol.Frame, *protocol.Extensions) verdict { return verdict{skip: true} }
	c := dial(t, func(cfg *Config) { cfg.MaxQueued = 2 }, f)
	var accepted []*Future[Item]
	for range 3 {
		accepted = append(accepted, c.GetAsync([]byte("k")))
	}
	if _, err := c.GetAsync([]byte("k")).Wait(t.Context()); !errors.Is(err, ErrBusy) || !SafeToRetry(err) {
		t.Fatal(err)
	}
	c.Close()
	for _, a := range accepted {
		if _, err := a.Wait(t.Context()); !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	}
}

// A connection from which nothing comes is probed, and given up.
func TestKeepAlive(t *testing.T) {
	f := newFake(t)
	f.record = true
	f.intercept = func(*fakeConn, *protocol.Frame, *protocol.Extensions) verdict { return verdict{skip: true} }
	c := dial(t, func(cfg *Config) { cfg.KeepAlive = 10 * time.Millisecond }, f)
	eventually(t, func() (again bool) {
		f.set(func() { again = f.accepted > 1 })
		return again
	})
	f.set(func() {
		if len(f.requests) == 0 || f.requests[0].code != protocol.OpPing {
			t.Errorf("requests %v", f.requests)
		}
		f.intercept = nil
	})
	// A read: the connection may be given up under it where the machine is busy.
	if _, err := c.Get(t.Context(), []byte("k")); !errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
}

func TestSessionReads(t *testing.T) {
	f := newFake(t)
	f.record = true
	c := dial(t, func(cfg *Config) { cfg.Consistency = SessionReads }, f)
	ctx := t.Context()
	f.set(func() { f.revision = 1000 })
	w, err := c.Put(ctx, []byte("k"), nil)
	if err != nil {
		t.Fatal(err)
	}
	c.Get(ctx, []byte("k"))
	c.Get(ctx, []byte("elsewhere"))
	c.Get(ctx, []byte("k"), WithConsistency(Linearizable))
	c.MGet(ctx, [][]byte{[]byte("k")})
	c.Batch(ctx, NewBatch().Put([]byte("b"), nil))
	c.Stat(ctx, []byte("b"))
	c.PutAsync([]byte("d"), nil).Wait(ctx)
	c.Exists(ctx, []byte("d"))
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, want := range []protocol.Extensions{
		{}, {Consistency: SessionReads, Token: w.Version}, {Consistency: SessionReads}, {}, {}, {},
		{Consistency: SessionReads, Token: w.Version + 1}, {}, {Consistency: SessionReads, Token: w.Version + 2},
	} {
		if got := f.requests[i].x; got.Consistency != want.Consistency || got.Token != want.Token {
			t.Errorf("request %d (%v): %v with token %d, want %v with %d", i, f.requests[i].code, got.Consistency, got.Token, want.Consistency, want.Token)
		}
	}
}

// Without SessionReads nothing is known of what was seen: the read is sent in
// the stronger mode.
func TestSessionReadUpgraded(t *testing.T) {
	f := newFake(t)
	f.record = true
	c := dial(t, nil, f)
	c.Get(t.Context(), []byte("k"), WithConsistency(SessionReads))
	if x := f.requests[0].x; x.Consistency != Linearizable {
		t.Error(x.Consistency)
	}
}

func TestReplyTooLarge(t *testing.T) {
	f := newFake(t)
	c := dial(t, func(cfg *Config) { cfg.MaxReplyBytes = protocol.FrameBytesMax }, f)
	value := make([]byte, 4<<20)
	for i := range 9 {
		if _, err := c.Put(t.Context(), key(i), value); err != nil {
			t.Fatal(err)
		}
	}
	for _, err := range c.Scan(t.Context()) {
		if !errors.Is(err, ErrTooLarge) {
			t.Fatal(err)
		}
	}
	if items, err := c.MGet(t.Context(), [][]byte{key(1), key(2)}); err != nil || !items[1].Found {
		t.Fatal(err)
	}
}

func TestMalformedReplies(t *testing.T) {
	f := newFake(t)
	short := protocol.End(append(protocol.Begin(nil, 0, protocol.FlagReply, 0), 1, 2, 3), 0)
	f.intercept = func(*fakeConn, *protocol.Frame, *protocol.Extensions) verdict { return verdict{reply: short} }
	c := dial(t, nil, f)
	ctx := t.Context()
	for name, call := range map[string]func() error{
		"GET":    func() error { _, err := c.Get(ctx, []byte("k")); return err },
		"MGET":   func() error { _, err := c.MGet(ctx, [][]byte{[]byte("k")}); return err },
		"PUT":    func() error { _, err := c.Put(ctx, []byte("k"), nil); return err },
		"INCR":   func() error { _, err := c.Incr(ctx, []byte("k"), 1); return err },
		"BATCH":  func() error { _, err := c.Batch(ctx, NewBatch().Put([]byte("k"), nil)); return err },
		"TXN":    func() error { _, err := c.Txn(ctx, NewTxn().Then(OpGet([]byte("k")))); return err },
		"ROUTES": func() error { _, err := c.Routes(ctx); return err },
		"STATUS": func() error { _, err := c.Status(ctx); return err },
		"SCAN": func() error {
			for _, err := range c.Scan(ctx) {
				return err
			}
			return nil
		},
	} {
		err := call()
		var e *Error
		if !errors.Is(err, ErrProtocol) || !errors.As(err, &e) || e.Op != name {
			t.Errorf("%s: %v", name, err)
			continue
		}
		want := NotDone // reads have no effect
		switch name {
		case "PUT", "INCR", "BATCH", "TXN":
			want = Done // the status says so
		}
		if e.Outcome != want {
			t.Errorf("%s: outcome %v, want %v", name, e.Outcome, want)
		}
	}
	if f.accepted != 1 {
		t.Errorf("%d connections", f.accepted)
	}
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "p.sock")
	f := newFakeOn(t, "unix", path)
	c := dial(t, func(cfg *Config) { cfg.Endpoints = []string{"unix://" + path} })
	if _, err := c.Put(t.Context(), []byte("k"), nil); err != nil || len(f.rows) != 1 {
		t.Fatal(err)
	}
}

func TestBackoff(t *testing.T) {
	c, err := newClient(Config{Endpoints: []string{"h"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if d := c.cfg.backoff(0); d != 0 {
		t.Errorf("first try after %v", d)
	}
	for failures, want := range map[int]time.Duration{1: time.Second, 2: 2 * time.Second, 4: 8 * time.Second, 7: time.Minute, 1000: time.Minute} {
		for range 20 {
			if d := c.cfg.backoff(failures); d > want || d < want/2 {
				t.Errorf("after %d failures: %v, want %v to %v", failures, d, want/2, want)
			}
		}
	}
}
