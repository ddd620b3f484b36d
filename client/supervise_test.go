package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/proa-kv/proa/protocol"
)

// idle is a configuration whose pauses between tries outlast any test.
func idle(cfg *Config) { cfg.BackoffMin, cfg.BackoffMax = time.Hour, time.Hour }

// down waits until no connection to an address stands and the client pauses.
func down(t *testing.T, ep *endpointState) {
	t.Helper()
	eventually(t, func() bool { return ep.up.Load() == 0 })
}

// A call that waits brings the client back with the server, however long that
// was away and the pauses have become.
func TestWaitingCallConnects(t *testing.T) {
	f := newFake(t)
	address := f.address()
	c := dial(t, idle, f)
	f.close()
	down(t, c.pool.endpoints[0])
	newFakeOn(t, "tcp", address)
	if _, err := c.Put(t.Context(), []byte("k"), nil); err != nil {
		t.Fatal(err)
	}
}

// The same where the call has begun to wait before the server is back.
func TestWaitingCallGoesOnTrying(t *testing.T) {
	f := newFake(t)
	address := f.address()
	c := dial(t, idle, f)
	f.close()
	down(t, c.pool.endpoints[0])
	waiting := c.PutAsync([]byte("k"), nil)
	eventually(t, func() bool { return c.pool.endpoints[0].failure(0).Tries > 3 })
	newFakeOn(t, "tcp", address)
	if _, err := waiting.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// Where those nodes that are reached cannot do what a call wants, the others are
// tried: a node without a majority, and one that has fallen silent.
func TestOtherNodesAreTried(t *testing.T) {
	for name, v := range map[string]verdict{
		"no majority": {reply: errorFrame(protocol.StatusNoQuorum, 0, "")},
		"silent":      {skip: true},
	} {
		t.Run(name, func(t *testing.T) {
			cl := newFakeCluster(t, 2)
			c := cl.dial(true, func(cfg *Config) {
				idle(cfg)
				cfg.ForwardOnly, cfg.AttemptTimeout = false, 20*time.Millisecond
			}, 1, 2)
			cl.nodes[1].close()
			down(t, c.pool.endpoints[1])
			cl.restart(2)
			cl.set(func() {
				cl.leaders = [fakeShards]uint64{2, 2, 2, 2}
				cl.nodes[0].intercept = func(*fakeConn, *protocol.Frame, *protocol.Extensions) verdict { return v }
			})
			if _, err := c.Get(t.Context(), keyIn(0, 0)); !errors.Is(err, ErrNotFound) {
				t.Fatal(err)
			}
		})
	}
}

// What no call needs is tried with growing pauses; what one waits for, at once
// and then every 50 to 100 ms, unless the server asks for more.
func TestPause(t *testing.T) {
	refusal := func(s Status, after time.Duration) error {
		e := replyError(protocol.OpHello, s)
		e.RetryAfter = after
		return fmt.Errorf("refused: %w", e)
	}
	for _, test := range []struct {
		name     string
		waits    bool
		err      error
		min, max time.Duration
	}{
		{"nobody waits", false, net.ErrClosed, time.Minute, time.Minute},
		{"a call waits", true, net.ErrClosed, 50 * time.Millisecond, 100 * time.Millisecond},
		{"a full server", true, refusal(protocol.StatusTooManyConns, 3*time.Second), 3 * time.Second, 3 * time.Second},
		{"refused for good", true, refusal(protocol.StatusHandshake, 0), time.Second, time.Second},
		{"the user is gone", true, fmt.Errorf("%w: %w", ErrConnectionLost, refusal(protocol.StatusUnauthenticated, 0)), 50 * time.Millisecond, 100 * time.Millisecond},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, err := newClient(Config{Endpoints: []string{"h"}})
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				if test.waits {
					c.PutAsync([]byte("k"), nil)
					<-c.pool.endpoints[0].nudged
				}
				start := time.Now()
				asked := c.pool.endpoints[0].pause(time.Minute, test.err)
				if took := time.Since(start); took < test.min || took > test.max || asked != test.waits {
					t.Errorf("%v, asked %v", took, asked)
				}
			})
		})
	}
}

// A call cuts the pause short during which it comes, and the errors of those
// that find nobody name every address, why each failed, and when.
func TestUnavailableMeanwhile(t *testing.T) {
	cl := newFakeCluster(t, 2)
	c := cl.dial(true, idle, 1)
	for _, f := range cl.nodes {
		f.close()
	}
	for _, ep := range c.pool.addresses() {
		down(t, ep)
	}
	_, err := c.Get(t.Context(), []byte("k"), WithTimeout(300*time.Millisecond))
	var u *UnavailableError
	if !errors.As(err, &u) || len(u.Endpoints) != 2 {
		t.Fatal(err)
	}
	for i, e := range u.Endpoints {
		if e.Endpoint != cl.address[i] || e.Err == nil {
			t.Errorf("%+v", e)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		c, err := newClient(Config{Endpoints: []string{"h"}})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		ep := c.pool.endpoints[0]
		for range 3 {
			ep.tried(c.now(), net.ErrClosed)
		}
		time.Sleep(2 * time.Second)
		want := "no server could be reached: h:7400: use of closed network connection (3 tries, the last 2s ago)"
		if got := c.pool.unavailable().Error(); got != want {
			t.Errorf("%s", got)
		}
	})
}

// A name is looked up anew for each try, so that a server may come back with
// another address.
func TestNamesAreLookedUpAgain(t *testing.T) {
	var address atomic.Pointer[net.IP]
	answer(t, &address)
	f := newFakeOn(t, "tcp", "127.0.0.1:0")
	_, port, err := net.SplitHostPort(f.address())
	if err != nil {
		t.Fatal(err)
	}
	moved, err := listenFake("tcp", "127.0.0.2:"+port)
	if err != nil {
		t.Skip(err) // loopback has one address here
	}
	t.Cleanup(moved.close)
	address.Store(&net.IP{127, 0, 0, 1})
	c := dial(t, func(cfg *Config) {
		idle(cfg)
		cfg.Endpoints = []string{"proa.test.:" + port}
	})
	f.close()
	down(t, c.pool.endpoints[0])
	address.Store(&net.IP{127, 0, 0, 2})
	moved.start()
	if _, err := c.Put(t.Context(), []byte("k"), nil); err != nil {
		t.Fatal(err)
	}
}

// answer makes the process look names up at a server that answers with address.
func answer(t *testing.T, address *atomic.Pointer[net.IP]) {
	t.Helper()
	names, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	old := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", names.LocalAddr().String())
	}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for b := make([]byte, 512); ; {
			n, from, err := names.ReadFrom(b)
			if err != nil {
				return
			}
			names.WriteTo(nameReply(b[:n], *address.Load()), from)
		}
	}()
	t.Cleanup(func() {
		net.DefaultResolver = old
		names.Close()
		<-done
	})
}

// nameReply answers a query of the DNS (RFC 1035, section 4) for an IPv4 address,
// and any other with nothing.
func nameReply(query []byte, address net.IP) []byte {
	question := query[12:]
	end := bytes.IndexByte(question, 0) + 5 // behind the name, its type and class
	reply := append(bytes.Clone(query[:2]), 0x84, 0, 0, 1, 0, 0, 0, 0, 0, 0)
	reply = append(reply, question[:end]...)
	if question[end-3] == 1 { // A
		reply[7] = 1
		reply = append(reply, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4)
		reply = append(reply, address...)
	}
	return reply
}
