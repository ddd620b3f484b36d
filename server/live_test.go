package server

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/proa-kv/proa/protocol"
	"github.com/proa-kv/proa/raftgroup"
)

// dialer is a client of a few lines, independent of package client.
type dialer struct {
	t  testing.TB
	nc net.Conn
	id uint64
}

func dial(t testing.TB, addr net.Addr) *dialer {
	t.Helper()
	return speak(t, dialRaw(t, addr))
}

// dialRaw connects and says nothing.
func dialRaw(t testing.TB, addr net.Addr) net.Conn {
	t.Helper()
	nc, err := connect(addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	return nc
}

// speak begins to speak the native protocol.
func speak(t testing.TB, nc net.Conn) *dialer {
	t.Helper()
	d := &dialer{t: t, nc: nc}
	hello := protocol.Hello{VersionMin: 1, VersionMax: 1, Features: protocol.FeatureSessions, Name: []byte("test")}
	if f := d.call(protocol.OpHello, hello.AppendTo(nil)); protocol.Status(f.Code) != protocol.StatusOK {
		t.Fatalf("HELLO answered %v: %q", protocol.Status(f.Code), f.Body)
	}
	return d
}

func frame(op protocol.Opcode, id uint64, body []byte) []byte {
	return protocol.End(append(protocol.Begin(nil, uint8(op), 0, id), body...), 0)
}

func (d *dialer) send(op protocol.Opcode, body []byte) uint64 {
	d.t.Helper()
	d.id++
	if _, err := d.nc.Write(frame(op, d.id, body)); err != nil {
		d.t.Fatal(err)
	}
	return d.id
}

func (d *dialer) receive() protocol.Frame {
	d.t.Helper()
	f, err := d.tryReceive()
	if err != nil {
		d.t.Fatal(err)
	}
	return f
}

func (d *dialer) tryReceive() (protocol.Frame, error) {
	_ = d.nc.SetReadDeadline(time.Now().Add(90 * time.Second))
	b := make([]byte, 4)
	if _, err := io.ReadFull(d.nc, b); err != nil {
		return protocol.Frame{}, err
	}
	b = append(b, make([]byte, binary.LittleEndian.Uint32(b)-4)...)
	if _, err := io.ReadFull(d.nc, b[4:]); err != nil {
		return protocol.Frame{}, err
	}
	f, _, _, err := protocol.Next(b, protocol.FrameBytesMax)
	return f, err
}

func (d *dialer) call(op protocol.Opcode, body []byte) protocol.Frame {
	d.t.Helper()
	id := d.send(op, body)
	f := d.receive()
	if f.ID != id {
		d.t.Fatalf("reply to request %d, want %d", f.ID, id)
	}
	return f
}

func (d *dialer) put(key, value string) protocol.Frame {
	m := protocol.Put{Key: []byte(key), Value: []byte(value)}
	return d.call(protocol.OpPut, m.AppendTo(nil))
}

// NewRedis returns the Redis protocol of a server; see translated_test.go.
var NewRedis func(s *Server, redirect bool) Protocol

func listenRedis(s *Server, redirect bool) (net.Addr, error) {
	return listenOver(s, func(address string, options ...ListenOption) (net.Addr, error) {
		return s.ListenFor(NewRedis(s, redirect), address, "--resp-listen", options...)
	})
}

const (
	wordsMax    = 1 + 2*protocol.OpsMax // of one command of Redis
	commandsMax = 32 * 63               // unanswered ones of one connection
)

// What the Redis protocol answers, as it stands.
const (
	errNoReplyMemory = "TRYAGAIN " + NoReplyMemory
	tooManyKeys      = "ERR too many keys in one command, at most 10000 are allowed; send several commands"
	errMSetNXInMulti = "ERR MSETNX of several keys is not available inside MULTI; WATCH the keys instead"
	redisVersion     = "7.0.15"
)

// redisAddr is where s serves the Redis protocol.
func redisAddr(s *Server) net.Addr { return s.AddrsOf("redis")[0] }

// live starts a server over a real node. What is in prepare changes it before
// anything runs: the node's driver reads the server's fields too.
func live(t testing.TB, cfg Config, prepare ...func(*Server)) (*Server, net.Addr) {
	t.Helper()
	n, err := raftgroup.Open(raftgroup.Options{Dir: t.TempDir(), RowCacheBytes: 32 << 20})
	if err != nil {
		t.Fatal(err)
	}
	cfg.Node = 1 // as single says
	s, err := newOver(t, cfg, single{n})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range prepare {
		f(s)
	}
	n.Start(s.Drive)
	addr, err := listenOver(s, s.Listen)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := listenRedis(s, false); err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
		defer cancel()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		<-served
		if err := n.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return s, addr
}

// transports runs a test on each transport that has what the test needs, and on those
// that carry TLS with clients that speak it.
func transports(t *testing.T, f func(t *testing.T, cfg Config), needs ...Capability) {
	eachTransport(t, append(Transports[:len(Transports):len(Transports)], Transport{Name: "net" + overTLS}), f, needs...)
}

func eachTransport(t *testing.T, list []Transport, f func(t *testing.T, cfg Config), needs ...Capability) {
	for _, tr := range list {
		t.Run(tr.Name, func(t *testing.T) {
			for _, need := range needs {
				if instead, lacks := tr.Lacks[need]; lacks {
					t.Skipf("needs %s: %s", need, instead)
				}
			}
			f(t, Config{Transport: tr.Name})
		})
	}
}

func TestPutGet(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		_, addr := live(t, cfg)
		d := dial(t, addr)
		for i := range 200 {
			key, value := fmt.Sprintf("key%d", i), fmt.Sprintf("value%d", i)
			if f := d.put(key, value); protocol.Status(f.Code) != protocol.StatusOK {
				t.Fatalf("PUT answered %v", protocol.Status(f.Code))
			}
			f := d.call(protocol.OpGet, []byte(key))
			var r protocol.RowReply
			if err := r.Decode(f.Body); err != nil || !bytes.Equal(r.Value, []byte(value)) {
				t.Fatalf("GET answered %v %q %v", protocol.Status(f.Code), r.Value, err)
			}
		}
		if f := d.call(protocol.OpGet, []byte("none")); protocol.Status(f.Code) != protocol.StatusNotFound {
			t.Fatalf("GET of an absent key answered %v", protocol.Status(f.Code))
		}
	})
}

func TestPipelined(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		_, addr := live(t, cfg)
		d := dial(t, addr)
		const n = 5000
		go func() {
			var b []byte
			for i := range n {
				m := protocol.Incr{Delta: 1, Key: fmt.Appendf(nil, "counter%d", i%10)}
				b = append(b, frame(protocol.OpIncr, uint64(i+100), m.AppendTo(nil))...)
			}
			_, _ = d.nc.Write(b)
		}()
		seen := make(map[uint64]bool)
		for range n {
			f := d.receive()
			if protocol.Status(f.Code) != protocol.StatusOK || seen[f.ID] {
				t.Fatalf("reply to %d: %v, seen before: %v", f.ID, protocol.Status(f.Code), seen[f.ID])
			}
			seen[f.ID] = true
		}
		for i := range 10 {
			f := d.call(protocol.OpGet, fmt.Appendf(nil, "counter%d", i))
			var r protocol.RowReply
			if err := r.Decode(f.Body); err != nil || string(r.Value) != "500" {
				t.Fatalf("counter%d is %q", i, r.Value)
			}
		}
	})
}

// TestCloseBeforeServe closes servers that have not begun to serve, or are
// about to.
func TestCloseBeforeServe(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		n, err := raftgroup.Open(raftgroup.Options{Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close(t.Context())
		for range 200 {
			cfg.Node = 1 // as single says
			s, err := newOver(t, cfg, single{n})
			if err != nil {
				t.Fatal(err)
			}
			addr, err := listenOver(s, s.Listen)
			if err != nil {
				t.Fatal(err)
			}
			served := make(chan error, 1)
			go func() { served <- s.Serve() }()
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if err := <-served; !errors.Is(err, ErrServerClosed) {
				t.Fatal(err)
			}
			if nc, err := net.Dial("tcp", addr.String()); err == nil {
				nc.Close()
				t.Fatal("it still listens")
			}
		}
	})
}
