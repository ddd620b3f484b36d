package bench

import (
	"context"
	"errors"
	"net/netip"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/proa-kv/proa/protocol"
)

// mustFill has a load write all its rows.
func mustFill(t *testing.T, l Load) *LoadResult {
	t.Helper()
	r, err := mustOpen(t, l).Preload(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// both runs a test with a fake server of either protocol, without and with TLS.
func both(t *testing.T, f func(t *testing.T, s *fake)) {
	for _, resp := range []bool{false, true} {
		name := map[bool]string{false: "Proa", true: "RESP"}[resp]
		t.Run(name, func(t *testing.T) { f(t, &fake{resp: resp}) })
		t.Run(name+" over TLS", func(t *testing.T) { f(t, &fake{resp: resp, secure: true}) })
	}
}

func mustRun(t *testing.T, l Load) *LoadResult {
	t.Helper()
	r, err := Run(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestPreloadThenGet(t *testing.T) {
	both(t, func(t *testing.T, s *fake) {
		const keys, size = 3000, 50
		c := Load{Target: s.start(t, "tcp", "127.0.0.1:0"), Connections: 3, Keys: keys, ValueBytes: size, Seed: 5, Count: 5000}
		if r := mustFill(t, c); r.All.Ops != keys {
			t.Fatalf("%d of %d rows were written", r.All.Ops, keys)
		}
		data := s.rows()
		if len(data) != keys || s.count("PUT") != keys {
			t.Fatalf("%d keys after %d writes", len(data), s.count("PUT"))
		}
		for k, v := range data {
			if v != string(NewValue(size, 5)) || len(k) != KeyBytes {
				t.Fatalf("%q is %q", k, v)
			}
		}
		c.Op, c.InFlight = Get, 7
		if r := mustRun(t, c); r.All.Ops != 5000 || r.All.NotFound+r.Failed() != 0 || s.count("GET") != 5000 {
			t.Errorf("%+v, the server saw %d", r, s.count("GET"))
		}
		c.ValueBytes++
		if r := mustRun(t, c); r.Failed() != 5000 || !strings.Contains(r.FirstError, "50 bytes") {
			t.Errorf("values of another length: %+v", r)
		}
		c.Keys *= 2
		if r := mustRun(t, c); r.All.NotFound == 0 || r.All.NotFound+r.Failed() != 5000 {
			t.Errorf("half of the keys are missing: %+v", r)
		}
	})
}

// Exactly as many requests as asked for are made, and each leaves one latency.
func TestCount(t *testing.T) {
	both(t, func(t *testing.T, s *fake) {
		c := Load{Target: s.start(t, "tcp", "127.0.0.1:0"), Connections: 4, InFlight: 16}
		for _, n := range []uint64{1, 3, 64, 1000} {
			before := s.count("PING")
			c.Count = n
			r := mustRun(t, c)
			if r.All.Ops != n || uint64(r.All.Latency.TotalCount()) != n || uint64(s.count("PING")-before) != n {
				t.Errorf("%d asked for: %+v, the server saw %d", n, r, s.count("PING")-before)
			}
			if r.Elapsed <= 0 || r.All.Slowest <= 0 || r.All.Slowest > r.Elapsed || r.All.Quantile(0.5) > r.All.Slowest {
				t.Errorf("times: %+v", r)
			}
		}
	})
}

func TestDurationAndWarmup(t *testing.T) {
	both(t, func(t *testing.T, s *fake) {
		target := s.start(t, "tcp", "127.0.0.1:0")
		var probes []time.Duration
		var r *LoadResult
		inTime(t, func(d time.Duration) bool {
			probes = nil
			before := s.count("PING")
			r = mustRun(t, Load{
				Target: target, Connections: 2, InFlight: 2, Warmup: d, Duration: 2 * d,
				ServerCPU: func() (time.Duration, error) {
					probes = append(probes, time.Duration(s.count("PING")-before))
					return probes[len(probes)-1], nil
				},
			})
			if r.Elapsed < 2*d {
				t.Errorf("measured for %v, not %v", r.Elapsed, 2*d)
			}
			return r.All.Ops > 0 && probes[0] > 0 // else there was no warm-up
		})
		if len(probes) != 2 || r.ServerCPU() != probes[1]-probes[0] {
			t.Errorf("%+v, probes %v", r, probes)
		}
		// What was on its way at either end may count on the one side only.
		if seen := uint64(r.ServerCPU()); r.All.Ops+8 < seen || r.All.Ops > seen+8 {
			t.Errorf("%d replies counted, the server saw %d requests meanwhile", r.All.Ops, seen)
		}
		if r.GeneratorCPU <= 0 || r.GeneratorCPU > r.Elapsed {
			t.Errorf("generator used %v in %v", r.GeneratorCPU, r.Elapsed)
		}
	})
}

// The latency is that of the server's answer: it can not be less than what the
// server waits for.
func TestLatency(t *testing.T) {
	const delay = 20 * time.Millisecond
	both(t, func(t *testing.T, s *fake) {
		s.answer = func(request) []byte {
			<-time.After(delay)
			return nil
		}
		r := mustRun(t, Load{Target: s.start(t, "tcp", "127.0.0.1:0"), Count: 3})
		if r.All.Quantile(0.01) < delay || r.Elapsed < 3*delay {
			t.Error(r)
		}
	})
}

func TestRefusalsAndFailures(t *testing.T) {
	both(t, func(t *testing.T, s *fake) {
		n := 0
		s.answer = func(r request) []byte {
			n++
			switch {
			case n%10 == 0 && s.resp:
				return []byte("-BUSY wait\r\n")
			case n%10 == 0:
				return protocol.AppendError(nil, r.id, protocol.StatusBusy, 1, "wait")
			case n%10 == 1 && s.resp:
				return []byte("-ERR broken\r\n")
			case n%10 == 1:
				return protocol.AppendError(nil, r.id, protocol.StatusInternal, 0, "ERR broken")
			}
			return nil
		}
		c := Load{Target: s.start(t, "tcp", "127.0.0.1:0"), Op: Put, Count: 1000, InFlight: 4}
		if r := mustRun(t, c); r.All.Ops != 800 || r.Errors["BUSY"] != 100 || r.Failed() != 200 || r.ServerOps != 1000 || r.FirstError != "FAILED: ERR broken" {
			t.Errorf("%+v", r)
		}
		c.Keys = 500
		h := mustOpen(t, c)
		if r, err := h.Preload(t.Context()); err == nil || !strings.Contains(err.Error(), "ERR broken") {
			t.Errorf("a preload with failures: %v, %v", r, err)
		}
	})
}

// A preload repeats what was refused, with the same key, until all are there.
func TestPreloadRepeatsRefused(t *testing.T) {
	both(t, func(t *testing.T, s *fake) {
		n := 0
		s.answer = func(r request) []byte {
			if n++; n%3 != 0 {
				return nil
			}
			if s.resp {
				return []byte("-BUSY wait\r\n")
			}
			return protocol.AppendError(nil, r.id, protocol.StatusBusy, 1, "wait")
		}
		r := mustFill(t, Load{Target: s.start(t, "tcp", "127.0.0.1:0"), Connections: 2, Keys: 700, ValueBytes: 3, Count: 1})
		if r.All.Ops != 700 || r.Failed() != 0 || len(s.rows()) != 700 || s.count("PUT") <= 700 {
			t.Errorf("%+v, %d keys, %d requests", r, len(s.rows()), s.count("PUT"))
		}
	})
}

// Replies may be cut anywhere, and large requests and replies do not fit into
// one read or write.
func TestChunks(t *testing.T) {
	both(t, func(t *testing.T, s *fake) {
		s.chunk = 1
		r := mustRun(t, Load{Target: s.start(t, "tcp", "127.0.0.1:0"), Connections: 2, InFlight: 8, Count: 200})
		if r.All.Ops != 200 || r.Failed() != 0 {
			t.Error(r)
		}
	})
	both(t, func(t *testing.T, s *fake) {
		c := Load{Target: s.start(t, "tcp", "127.0.0.1:0"), Connections: 2, InFlight: 32, Keys: 64, ValueBytes: 600 << 10, Op: Get, Count: 64}
		if r := mustFill(t, c); r.All.Ops != 64 {
			t.Fatalf("%+v", r)
		}
		if r := mustRun(t, c); r.All.Ops != 64 || r.Failed()+r.All.NotFound != 0 {
			t.Error(r, r.FirstError)
		}
	})
}

func TestRepliesOutOfOrder(t *testing.T) {
	s := &fake{reverse: true}
	r := mustRun(t, Load{Target: s.start(t, "tcp", "127.0.0.1:0"), Op: Put, Connections: 2, InFlight: 50, Count: 5000})
	if r.All.Ops != 5000 || r.Failed() != 0 {
		t.Error(r)
	}
}

func TestBrokenServers(t *testing.T) {
	for name, tc := range map[string]struct {
		server *fake
		want   error
	}{
		"hangs up":       {&fake{hangUp: 50}, ErrClosed},
		"hangs up early": {&fake{hangUp: 1}, ErrClosed},
		"silent":         {&fake{silent: true}, ErrStalled},
		"wrong tag":      {&fake{answer: func(r request) []byte { return proaReply(r.id+100, protocol.StatusOK, nil) }}, ErrProtocol},
		"notice": {&fake{answer: func(request) []byte {
			return protocol.AppendError(nil, 0, protocol.StatusGoAway, 0, "leaving")
		}}, ErrProtocol},
		"answers twice": {&fake{answer: func(r request) []byte {
			b := proaReply(r.id, protocol.StatusOK, nil)
			return append(b, b...)
		}}, ErrProtocol},
		"garbage":         {&fake{resp: true, answer: func(request) []byte { return []byte("?\r\n") }}, ErrProtocol},
		"more than asked": {&fake{resp: true, answer: func(request) []byte { return []byte("+PONG\r\n+PONG\r\n") }}, ErrProtocol},
	} {
		t.Run(name, func(t *testing.T) {
			s := tc.server
			target := s.start(t, "tcp", "127.0.0.1:0")
			if s.silent {
				target.Timeout = 200 * time.Millisecond
			}
			r, err := Run(t.Context(), Load{Target: target, Count: 1000})
			if !errors.Is(err, tc.want) {
				t.Errorf("%v, %v; want %v", r, err, tc.want)
			}
		})
	}
}

func TestNobodyListens(t *testing.T) {
	s := &fake{}
	target := s.start(t, "tcp", "127.0.0.1:0")
	s.ln.Close()
	if _, err := Run(t.Context(), Load{Target: target, Count: 1}); !errors.Is(err, unix.ECONNREFUSED) {
		t.Error(err)
	}
}

func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := &fake{}
	s.answer = func(request) []byte {
		if s.seen["PING"] == 100 {
			cancel()
		}
		return nil
	}
	target := s.start(t, "tcp", "127.0.0.1:0")
	if _, err := Run(ctx, Load{Target: target, Duration: time.Hour}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := Run(ctx, Load{Target: target, Duration: time.Hour}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled before it began: %v", err)
	}
}

// A run must not starve the program it runs in, however few processors it
// has.
func TestOneProcessor(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	s := &fake{}
	if r := mustRun(t, Load{Target: s.start(t, "tcp", "127.0.0.1:0"), Count: 500, InFlight: 3}); r.All.Ops != 500 {
		t.Error(r)
	}
}

func TestUnixSocket(t *testing.T) {
	both(t, func(t *testing.T, s *fake) {
		if r := mustRun(t, Load{Target: s.start(t, "unix", filepath.Join(t.TempDir(), "s")), Connections: 2, Count: 100}); r.All.Ops != 100 {
			t.Error(r)
		}
	})
}

func TestSources(t *testing.T) {
	s := &fake{}
	target := s.start(t, "tcp", "127.0.0.1:0")
	target.Sources = []netip.Addr{netip.MustParseAddr("127.0.0.7"), netip.MustParseAddr("127.0.0.8")}
	idle, err := OpenIdle(t.Context(), target, 4)
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	from := map[string]int{}
	s.mu.Lock()
	for c := range s.conns {
		from[netip.MustParseAddrPort(c.RemoteAddr().String()).Addr().String()]++
	}
	s.mu.Unlock()
	if from["127.0.0.7"] != 2 || from["127.0.0.8"] != 2 {
		t.Errorf("connections from %v", from)
	}
	target.Sources = []netip.Addr{netip.IPv6Loopback()}
	if _, err := OpenIdle(t.Context(), target, 1); !errors.Is(err, ErrConfig) {
		t.Errorf("another family: %v", err)
	}
}

func TestIdle(t *testing.T) {
	both(t, func(t *testing.T, s *fake) {
		target := s.start(t, "tcp", "127.0.0.1:0")
		idle, err := OpenIdle(t.Context(), target, 200)
		if err != nil || len(idle.sockets) != 200 || idle.Check() != nil {
			t.Fatal(err, idle.Check())
		}
		if r := mustRun(t, Load{Target: target, Count: 100}); r.All.Ops != 100 {
			t.Error(r)
		}
		if err := idle.Check(); err != nil {
			t.Error(err)
		}
		s.mu.Lock()
		for c := range s.conns {
			c.Close()
		}
		s.mu.Unlock()
		err = idle.Check()
		for end := time.Now().Add(time.Minute); err == nil && time.Now().Before(end); { // the system may be busy
			err = idle.Check()
		}
		if farewell := s.secure && errors.Is(err, ErrProtocol); !errors.Is(err, ErrClosed) && !farewell {
			t.Errorf("the server closed all: %v", err)
		}
		if err := idle.Close(); err != nil || len(idle.sockets) != 0 {
			t.Error(err)
		}
	})
}
