package server

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/proa-kv/proa/protocol"
)

// lines collects what a server logs.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lines) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), text)
}

func (l *lines) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// TestShares: each listener has places that others cannot take.
func TestShares(t *testing.T) {
	for _, tt := range []struct{ places, listeners, share int }{
		{10, 1, 0}, {50, 2, 6}, {50, 3, 6}, {4, 2, 1}, {3, 2, 0}, {1, 3, 0}, {10_000, 2, 1250}, {80, 8, 5},
	} {
		var table connTable
		table.init(tt.places)
		for range tt.listeners {
			table.addListener()
		}
		// The last listener takes all that it gets, and then each other its share.
		took := make([]int, tt.listeners)
		for listener := tt.listeners - 1; listener >= 0; listener-- {
			for took[listener] <= tt.places && table.add(&conn{tableEntry: tableEntry{table: &table, listener: listener}}) {
				took[listener]++
				if listener < tt.listeners-1 && took[listener] == tt.share {
					break
				}
			}
			want := tt.share
			if listener == tt.listeners-1 {
				want = tt.places - tt.share*(tt.listeners-1)
			}
			if took[listener] != want {
				t.Errorf("%d places, %d listeners: listener %d took %d, want %d", tt.places, tt.listeners, listener, took[listener], want)
			}
		}
		if table.len() > tt.places {
			t.Errorf("%d connections in %d places", table.len(), tt.places)
		}
	}
}

// TestSilentRedisConnections: connections of the Redis listener that say nothing
// leave room to native ones, and are closed when a first command would have to
// be there.
func TestSilentRedisConnections(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		cfg.ConnectionsMax = 16
		s, addr := live(t, cfg)
		spoken, err := connect(redisAddr(s))
		if err != nil {
			t.Fatal(err)
		}
		defer spoken.Close()
		reply := make([]byte, 7)
		if _, err := spoken.Write([]byte("PING\r\n")); err != nil {
			t.Fatal(err)
		}
		if _, err := spoken.Read(reply); err != nil {
			t.Fatal(err)
		}
		var silent []net.Conn
		for i := range 60 {
			nc, err := connect(redisAddr(s))
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			if i%2 == 0 {
				_, _ = nc.Write([]byte("\r\n*2\r\n$4\r\n")) // no command either
			}
			silent = append(silent, nc)
		}
		if f := dial(t, addr).put("k", "v"); protocol.Status(f.Code) != protocol.StatusOK {
			t.Errorf("a native client: %v", protocol.Status(f.Code))
		}
		eventually(t, "no reply is being written", func() bool { // else it is late, as of the time below
			quiet := true
			s.eachConn(func(c *conn) { quiet = quiet && c.blockedSince.Load() == 0 })
			return quiet
		})
		eventually(t, "only those are left that have asked something", func() bool {
			s.eachConn(func(c *conn) { c.checkTimeouts(time.Now().Add(2 * s.cfg.FrameTimeout).UnixMilli()) })
			return s.counters.accepted.Load()+s.counters.rejected.Load() == uint64(2+len(silent)) && s.conns.len() == 2
		})
		for _, nc := range silent {
			_ = nc.SetReadDeadline(time.Now().Add(20 * time.Second))
			b := make([]byte, 256)
			for {
				if _, err := nc.Read(b); err != nil {
					if strings.Contains(err.Error(), "timeout") {
						t.Fatal("a silent connection was not closed")
					}
					break
				}
			}
		}
		// One that has asked something is in its right.
		if _, err := spoken.Write([]byte("PING\r\n")); err != nil {
			t.Fatal(err)
		}
		if _, err := spoken.Read(reply); err != nil {
			t.Errorf("a connection that has sent a command: %v", err)
		}
	})
}

// TestRefusedConnectionIsNotReadOn: after its last answer the server closes a
// connection soon, whatever the client goes on sending, and takes next to
// nothing of it.
func TestRefusedConnectionIsNotReadOn(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		cfg.WriteTimeout, cfg.IdleTimeout, cfg.FrameTimeout = time.Hour, time.Hour, time.Hour
		s, addr := live(t, cfg)
		for _, tt := range []struct {
			addr net.Addr
			bad  string
			want string
		}{
			{redisAddr(s), "*1\r\n+PING\r\n", "-ERR Protocol error: expected '$', got '+'\r\n"},
			{redisAddr(s), "QUIT\r\n", "+OK\r\n"},
			{addr, string(frame(protocol.OpPing, 1, nil)), ""},
		} {
			before := s.counters.bytesIn.Load()
			nc, err := connect(tt.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			_ = nc.SetDeadline(time.Now().Add(30 * time.Second)) // a guard
			if _, err := nc.Write([]byte(tt.bad)); err != nil {
				t.Fatal(err)
			}
			answer, err := io.ReadAll(nc) // up to the half-close
			if err != nil || !strings.Contains(string(answer), tt.want) || len(answer) == 0 {
				t.Errorf("%.10q was answered %q, %v", tt.bad, answer, err)
			}
			junk := make([]byte, 64<<10)
			for err == nil {
				_, err = nc.Write(junk)
			}
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("after %.10q the connection was not closed", tt.bad)
			}
			if n := s.counters.bytesIn.Load() - before; n > 1<<20 {
				t.Errorf("after %.10q, %d bytes were read", tt.bad, n)
			}
		}
		eventually(t, "no connection left", func() bool { return s.conns.len() == 0 })
	})
}
