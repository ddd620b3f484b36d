package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/proa-kv/proa/internal/wrongport"
)

// rawPeer shakes hands as a node would and leaves the rest to the test.
func rawPeer(t *testing.T, to *testNode, kind connKind, id Identity) net.Conn {
	t.Helper()
	c, a := rawHello(t, to, hello{kind: kind, versionMin: 1, versionMax: 2, identity: id})
	if a.refusal != "" {
		t.Fatal(a.refusal)
	}
	if err := writeRecord(c, (&verdict{}).encode()); err != nil {
		t.Fatal(err)
	}
	return c
}

func rawHello(t *testing.T, to *testNode, h hello) (net.Conn, answer) {
	t.Helper()
	c, err := net.Dial("tcp", to.address())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	if err := writeRecord(c, h.encode()); err != nil {
		t.Fatal(err)
	}
	body, err := readRecord(c)
	if err != nil {
		t.Fatal(err)
	}
	a, _, err := decodeAnswer(body)
	if err != nil {
		t.Fatal(err)
	}
	return c, a
}

// closedByPeer returns when the other side has closed a connection.
func closedByPeer(t *testing.T, c net.Conn) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.Copy(io.Discard, c); isTimeout(err) {
		t.Fatal("the connection is still open")
	}
}

// tamper is a connection whose writes a test may change. It hides the socket,
// so that everything passes through Write.
type tamper struct {
	net.Conn
	write func(c net.Conn, p []byte) (int, error)
}

func (c *tamper) Write(p []byte) (int, error) { return c.write(c.Conn, p) }

// tampered dials connections whose writes go through f.
func tampered(f func(c net.Conn, p []byte) (int, error)) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, address string) (net.Conn, error) {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", address)
		if err != nil {
			return nil, err
		}
		return &tamper{c, f}, nil
	}
}

func TestThreeNodes(t *testing.T) {
	nodes := []*testNode{startNode(t, 1, nil), startNode(t, 2, nil), startNode(t, 3, nil)}
	join(t, nodes...)
	for _, a := range nodes {
		for _, b := range nodes {
			if a != b {
				a.Send(b.id, uint32(a.id), heartbeat(b.id))
			}
		}
		a.Transmit()
		for _, b := range nodes {
			if a != b && !a.Report(b.id, []byte(`{"node":1}`)) {
				t.Fatalf("a report from %d to %d was dropped", a.id, b.id)
			}
		}
	}
	for _, b := range nodes {
		seen := map[uint64]bool{}
		for range 2 {
			m := receive(t, b.h.messages)
			if m.Raft.Term != b.id || m.Shard != uint32(m.from) || seen[m.from] {
				t.Fatalf("%+v", m)
			}
			seen[m.from] = true
			if r := receive(t, b.h.reports); r != `{"node":1}` {
				t.Fatal(r)
			}
			if b.peerStatus(t, m.from).BytesIn == 0 {
				t.Fatal("received, but not counted")
			}
		}
	}
	nodes[0].RemovePeer(2)
	nodes[0].Send(2, 0, heartbeat(1)) // to nobody
	if n := receive(t, nodes[0].h.unreachable); n != 2 {
		t.Fatal(n)
	}
	if peers := nodes[0].Peers(); len(peers) != 1 || peers[0].Node != 3 {
		t.Fatalf("%+v", peers)
	}
}

func TestReportOverItsLimitIsNotSent(t *testing.T) {
	a, b := startNode(t, 1, nil), startNode(t, 2, nil)
	join(t, a, b)
	if a.Report(b.id, make([]byte, ReportBytesMax+1)) || !a.Report(b.id, make([]byte, ReportBytesMax)) || a.Report(9, nil) {
		t.Fatal("a report was dropped that is not too large, or the other way round")
	}
	if r := receive(t, b.h.reports); len(r) != ReportBytesMax {
		t.Fatal(len(r))
	}
	a.log.wait(t, "too large")
	if s := a.peerStatus(t, b.id); s.DroppedReports != 1 {
		t.Fatalf("%d reports count as dropped", s.DroppedReports)
	}
}

// Damage on the way ends the connection, with one line in the log; the sender
// hears that messages may be lost, and connects again.
func TestDamageEndsTheConnection(t *testing.T) {
	for name, damage := range map[string]func(p []byte) []byte{
		"a bit of the body":   func(p []byte) []byte { p[len(p)-1] ^= 1; return p },
		"a bit of the header": func(p []byte) []byte { p[5] ^= 1; return p },
		"a huge length":       func(p []byte) []byte { p[3] = 0xff; return p },
		"garbage":             func(p []byte) []byte { return bytes.Repeat([]byte("garbage"), 10) },
	} {
		t.Run(name, func(t *testing.T) {
			var armed atomic.Bool
			b := startNode(t, 2, nil)
			a := startNode(t, 1, func(c *Config, _ *testHandler) {
				c.ReconnectMin = time.Millisecond
				c.Dial = tampered(func(c net.Conn, p []byte) (int, error) {
					if armed.CompareAndSwap(true, false) {
						c.Write(damage(bytes.Clone(p)))
						return len(p), nil
					}
					return c.Write(p)
				})
			})
			join(t, a, b)
			armed.Store(true)
			a.Send(2, 1, heartbeat(1))
			a.Transmit()
			b.log.wait(t, "damaged or foreign data")
			if n := receive(t, a.h.unreachable); n != 2 {
				t.Fatal(n)
			}
			eventually(t, func() bool { s := a.peerStatus(t, 2); return s.Connected && a.connects(2) == 2 })
			a.Send(2, 1, heartbeat(2))
			a.Transmit()
			if m := receive(t, b.h.messages); m.Raft.Term != 2 {
				t.Fatalf("%+v", m)
			}
		})
	}
}

// A peer that sends half a frame, or nonsense after a good handshake, loses its
// connection and disturbs nobody else.
func TestBadPeerDisturbsNobody(t *testing.T) {
	b := startNode(t, 2, nil)
	a := startNode(t, 1, nil)
	join(t, a, b)
	frame := frameOf(frameMessages, encodeMessages(t, 2, []Message{{Raft: *heartbeat(1)}}))
	bad := frameOf(frameMessages, []byte("no records"))
	alien := frameOf(frameSnapshotEnd, nil)
	for name, p := range map[string][]byte{"half a frame": frame.B[:len(frame.B)/2], "no records": bad.B, "wrong type": alien.B} {
		c := rawPeer(t, b, kindRaft, identityOf(9))
		if _, err := c.Write(p); err != nil {
			t.Fatal(err)
		}
		c.(*net.TCPConn).CloseWrite()
		closedByPeer(t, c)
		a.Send(2, 0, heartbeat(7))
		a.Transmit()
		if m := receive(t, b.h.messages); m.from != 1 || m.Raft.Term != 7 {
			t.Fatalf("%s: %+v", name, m)
		}
	}
}

func TestForeignersAreTurnedAway(t *testing.T) {
	b := startNode(t, 2, nil)
	for _, p := range []string{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "*1\r\n$4\r\nPING\r\n", "\x20\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03", "ab\n"} {
		c, err := net.Dial("tcp", b.address())
		if err != nil {
			t.Fatal(err)
		}
		c.Write([]byte(p))
		c.(*net.TCPConn).CloseWrite()
		closedByPeer(t, c)
		c.Close()
	}
	b.log.wait(t, "looks like HTTP")
	if n, _ := b.log.count("non-peer connection"); n != 1 {
		t.Errorf("%d lines in the log, want 1", n)
	}
	// A length that no handshake has.
	c, err := net.Dial("tcp", b.address())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Write([]byte(magic + "\xff\xff"))
	closedByPeer(t, c)
}

// TestForeignersAreAnswered: what is answered to other protocols reaches the other
// side, even if its bytes come one by one and it goes on sending.
func TestForeignersAreAnswered(t *testing.T) {
	ports := new(wrongport.Ports)
	ports.Set(wrongport.Addresses{wrongport.Client: "10.1.1.1:7400", wrongport.Redis: "10.1.1.1:7403", wrongport.Admin: "10.1.1.1:7402"})
	b := startNode(t, 2, func(c *Config, _ *testHandler) { c.Foreign = ports.Foreign })
	if p, _ := wrongport.Recognize([]byte(magic)); p != wrongport.Node {
		t.Errorf("a node is taken for %v", p)
	}
	const here = "this is Proa's peer port; "
	for _, tt := range []struct{ sent, want string }{
		{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", here + "health, status and metrics over HTTP are at 10.1.1.1:7402\n"},
		{"*1\r\n$4\r\nPING\r\n", "-ERR " + here + "Redis clients use 10.1.1.1:7403\r\n"},
		{"PING\r\n", "-ERR " + here + "Redis clients use 10.1.1.1:7403\r\n"},
		{"\x24\x00\x00\x00\x01\x01\x00\x00\x07\x00\x00\x00\x00\x00\x00\x00\x01\x01", "\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x38\x00" + here + "Proa clients use 10.1.1.1:7400"},
		{"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + strings.Repeat("r", 100), here + "connect without TLS\n"},
		{"\xff\xfe\xfd\xfc", ""},
	} {
		for _, slowly := range []bool{false, true} {
			c, err := net.Dial("tcp", b.address())
			if err != nil {
				t.Fatal(err)
			}
			c.SetDeadline(time.Now().Add(time.Minute)) // a guard
			step := len(tt.sent)
			if slowly {
				step = 1
			}
			for i := 0; i < len(tt.sent) && err == nil; i += step {
				_, err = c.Write([]byte(tt.sent[i : i+step]))
			}
			answer, err := io.ReadAll(c)
			if c.Close(); !strings.HasSuffix(string(answer), tt.want) || err != nil && tt.want != "" {
				t.Errorf("%.20q, slowly: %v: answered %q, %v; want %q", tt.sent, slowly, answer, err, tt.want)
			}
		}
	}
	b.log.wait(t, "looks like HTTP")
}

func TestGuess(t *testing.T) {
	for p, want := range map[string]string{
		"GET / HTTP": "admin port", "HTTP/1.1 4": "HTTP server", "*1\r\n$4\r\nPI": "Redis port", "\x16\x03\x01\x02\x00": "TLS",
		"\x20\x00\x00\x00\x01\x00\x00\x00": "client port", "a\x1bbcdefghij": `"a\x1bbcdefg"`, "x": `"x"`,
		"": "nothing", "-ERR this is Proa's Redis port; other nodes use 10.1.1.1:7401\r\n": "it says: this is Proa's Redis port; other nodes use 10.1.1.1:7401", "-ERR wrong": "Redis server", "\x20\x00\x00\x00\x01\x13\x01\x00": "another port of a Proa server",
	} {
		if got := guess([]byte(p)); !strings.Contains(got, want) {
			t.Errorf("%q: %s", p, got)
		}
	}
}

// A dialler that reaches another port of Proa passes on what that says.
func TestDialOfAnotherPort(t *testing.T) {
	ports := new(wrongport.Ports)
	ports.Set(wrongport.Addresses{wrongport.Peer: "10.1.1.1:7401"})
	for _, port := range []wrongport.Port{wrongport.Client, wrongport.Redis, wrongport.Admin} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			c, err := l.Accept()
			if err != nil {
				return
			}
			answer, _ := ports.Answer(port, wrongport.Node, []byte(magic))
			wrongport.Dismiss(c, answer)
		}()
		_, _, err = startNode(t, 1, nil).CallAddress(t.Context(), l.Addr().String(), "join", nil)
		want := "(it says: this is Proa's " + port.String() + "; other nodes use 10.1.1.1:7401)"
		if !errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %s", err, want)
		}
	}
}

// A dialler that reaches something else says so.
func TestDialOfAForeigner(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var served sync.WaitGroup
	defer served.Wait()
	served.Go(func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
		io.Copy(io.Discard, c)
	})
	a := startNode(t, 1, nil)
	_, _, err = a.CallAddress(t.Context(), l.Addr().String(), "join", nil)
	if !errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), "HTTP server") {
		t.Fatal(err)
	}
}

// Both sides of a refusal get its sentence.
func TestRefusals(t *testing.T) {
	other := identityOf(1)
	other.Cluster = 78
	twin := identityOf(2)
	twin.UID++
	none := identityOf(1)
	none.Cluster = 0
	unwanted := func(text string) func(Identity) error {
		return func(Identity) error { return errors.New(text) }
	}
	for _, tt := range []struct {
		name  string
		id    Identity
		want  uint64
		admit [2]func(Identity) error // of the dialler, of the acceptor
		text  string
		here  bool
	}{
		{name: "another cluster", id: other, want: 2, text: "this node belongs to cluster 000000000000004d, the other to cluster 000000000000004e"},
		{name: "the same node id", id: twin, want: 2, text: "claim to be node 2"},
		{name: "itself", id: identityOf(2), want: 2, text: "connected to itself"},
		{name: "no cluster", id: none, want: 2, text: "has not joined a cluster"},
		{name: "wrong address", id: identityOf(1), want: 5, text: "node 5 was expected", here: true},
		{name: "not admitted there", id: identityOf(1), want: 2, admit: [2]func(Identity) error{1: unwanted("its disk was wiped")}, text: "its disk was wiped"},
		{name: "not admitted here", id: identityOf(1), want: 2, admit: [2]func(Identity) error{unwanted("it was removed"), nil}, text: "it was removed", here: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := startNode(t, 2, func(_ *Config, h *testHandler) { h.admit = tt.admit[1] })
			a := startNode(t, 1, func(_ *Config, h *testHandler) { h.admit = tt.admit[0] })
			a.SetIdentity(tt.id)
			for _, kind := range []connKind{kindRaft, kindSnapshot, kindClient} {
				_, _, err := a.dial(t.Context(), b.address(), kind, tt.want)
				var refused *RefusedError
				if !errors.As(err, &refused) || !strings.Contains(err.Error(), tt.text) || refused.Here != tt.here {
					t.Fatalf("%v", err)
				}
			}
			b.log.wait(t, tt.text)
			if tt.id.Cluster != 0 { // a stranger does not even try
				a.SetPeer(tt.want, b.address())
				a.log.wait(t, tt.text)
				eventually(t, func() bool { return strings.Contains(a.lastError(tt.want), tt.text) })
			}
		})
	}
}

func TestVersionsWithoutAnyInCommon(t *testing.T) {
	b := startNode(t, 2, nil)
	_, a := rawHello(t, b, hello{kind: kindRaft, versionMin: versionNewest + 1, versionMax: versionNewest + 2, identity: identityOf(1)})
	theirs := fmt.Sprintf("the other %d to %d", versionNewest+1, versionNewest+2)
	if !strings.Contains(a.refusal, fmt.Sprintf("this node speaks %d to %d, %s", versionOldest, versionNewest, theirs)) || !strings.Contains(a.refusal, "upgrade the older node") {
		t.Fatal(a.refusal)
	}
	b.log.wait(t, theirs)
	_, a = rawHello(t, b, hello{kind: kindRaft, versionMin: 2, versionMax: 9, identity: identityOf(1)})
	if a.refusal != "" || a.version != versionNewest {
		t.Fatalf("%+v", a)
	}
	_, a = rawHello(t, b, hello{kind: 99, versionMin: 1, versionMax: 2, identity: identityOf(1)})
	if !strings.Contains(a.refusal, "kind 99") {
		t.Fatalf("%+v", a)
	}
}

// Connections that say nothing must not keep a peer out.
func TestSilentConnectionsGiveWay(t *testing.T) {
	b := startNode(t, 2, func(c *Config, _ *testHandler) { c.HandshakeTimeout = 10 * patience })
	silent := make([]net.Conn, handshakesMax)
	for i := range silent {
		c, err := net.Dial("tcp", b.address())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		silent[i] = c
	}
	a := startNode(t, 1, nil)
	a.SetPeer(2, b.address())
	a.waitConnected(t, 2)
	closedByPeer(t, silent[0])
}

func TestSilentHandshakeTimesOut(t *testing.T) {
	b := startNode(t, 2, func(c *Config, _ *testHandler) { c.HandshakeTimeout = 10 * time.Millisecond })
	c, err := net.Dial("tcp", b.address())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	closedByPeer(t, c)
}

// Silence counts only once a report has come.
func TestSilentPeerIsDropped(t *testing.T) {
	b := startNode(t, 2, func(c *Config, _ *testHandler) { c.SilenceTimeout = 10 * time.Millisecond })
	c := rawPeer(t, b, kindRaft, identityOf(9))
	report := frameOf(frameReport, []byte("{}"))
	defer report.Release()
	c.Write(report.B)
	receive(t, b.h.reports)
	closedByPeer(t, c)
	b.log.wait(t, "no message received for too long")
}

// A newer connection of a node takes the place of the older one.
func TestNewerConnectionReplacesTheOlder(t *testing.T) {
	b := startNode(t, 2, nil)
	older := rawPeer(t, b, kindRaft, identityOf(9))
	eventually(t, func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.inbound[9] != nil
	})
	newer := rawPeer(t, b, kindRaft, identityOf(9))
	closedByPeer(t, older)
	frame := frameOf(frameMessages, encodeMessages(t, 2, []Message{{Raft: *heartbeat(1)}}))
	defer frame.Release()
	newer.Write(frame.B)
	if m := receive(t, b.h.messages); m.from != 9 {
		t.Fatalf("%+v", m)
	}
}

func TestReconnectDelay(t *testing.T) {
	c := Config{ReconnectMin: time.Second, ReconnectMax: time.Minute}
	for failures, want := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60} {
		want *= time.Second
		if d := c.reconnectDelay(failures, 0); d != want {
			t.Errorf("%d failures: %v, want %v", failures, d, want)
		}
		if d := c.reconnectDelay(failures, 0.999999); d < want/2 || d > want*51/100 {
			t.Errorf("%d failures: %v, want about half of %v", failures, d, want)
		}
	}
	if d := c.reconnectDelay(1<<20, 0); d != time.Minute {
		t.Error(d)
	}
	odd := Config{ReconnectMin: time.Second, ReconnectMax: 1500 * time.Millisecond}
	if d := odd.reconnectDelay(1, 0); d != odd.ReconnectMax {
		t.Error(d)
	}
}

// gate is a dialler that fails until it is opened, and says when it is asked.
type gate struct {
	open  atomic.Bool
	asked chan string
}

func (g *gate) dial(ctx context.Context, address string) (net.Conn, error) {
	select {
	case g.asked <- address:
	default:
	}
	if !g.open.Load() {
		return nil, errors.New("the gate is shut")
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", address)
}

// With hours between two attempts only the peer's own dial, a new address or a
// new identity can be what makes a connection.
func TestReconnectAtOnce(t *testing.T) {
	for name, event := range map[string]func(a, b *testNode){
		"when the peer dials in": func(a, b *testNode) { b.SetPeer(1, a.address()) },
		"on SetPeer":             func(a, b *testNode) { a.SetPeer(2, b.address()) },
		"on SetIdentity":         func(a, b *testNode) { a.SetIdentity(earlierIdentity(identityOf(1))) },
		"on Retry":               func(a, b *testNode) { a.Retry() },
	} {
		t.Run(name, func(t *testing.T) {
			g := gate{asked: make(chan string, 100)}
			b := startNode(t, 2, nil)
			a := startNode(t, 1, func(c *Config, _ *testHandler) { c.ReconnectMin, c.Dial = 100*time.Hour, g.dial })
			a.SetPeer(2, b.address())
			receive(t, g.asked)
			a.log.wait(t, "cannot connect") // it waits now, or is about to
			g.open.Store(true)
			event(a, b)
			a.waitConnected(t, 2)
		})
	}
}

// An attempt that hangs is given up when the peer dials in.
func TestDialInEndsAHangingAttempt(t *testing.T) {
	b := startNode(t, 2, nil)
	asked := make(chan struct{}, 1)
	var first atomic.Bool
	a := startNode(t, 1, func(c *Config, _ *testHandler) {
		c.ReconnectMin, c.HandshakeTimeout = 100*time.Hour, 100*time.Hour
		c.Dial = func(ctx context.Context, address string) (net.Conn, error) {
			if first.CompareAndSwap(false, true) {
				asked <- struct{}{}
				<-ctx.Done()
				return nil, ctx.Err()
			}
			var d net.Dialer
			return d.DialContext(ctx, "tcp", address)
		}
	})
	a.SetPeer(2, b.address())
	receive(t, asked)
	b.SetPeer(1, a.address())
	a.waitConnected(t, 2)
}

func TestChangedAddressRedials(t *testing.T) {
	b := startNode(t, 2, nil)
	moved := startNode(t, 2, nil)
	a := startNode(t, 1, func(c *Config, _ *testHandler) { c.ReconnectMin = 100 * time.Hour })
	a.SetPeer(2, b.address())
	a.waitConnected(t, 2)
	a.SetPeer(2, moved.address())
	eventually(t, func() bool {
		a.Send(2, 0, heartbeat(1))
		a.Transmit()
		return len(moved.h.messages) > 0
	})
	if address := a.peer(2).addressNow(); address != moved.address() || a.connects(2) != 2 {
		t.Fatalf("%s, %d connections", address, a.connects(2))
	}
}

// A node without a cluster does not dial its peers until it has one.
func TestIdentityComesLater(t *testing.T) {
	b := startNode(t, 2, nil)
	a := startNode(t, 1, nil)
	a.SetIdentity(Identity{UID: 1})
	a.SetPeer(2, b.address())
	if _, err := a.Call(t.Context(), 2, "x", nil); !errors.Is(err, ErrNotConnected) {
		t.Fatal(err)
	}
	a.SetIdentity(earlierIdentity(identityOf(1)))
	a.waitConnected(t, 2)
}

// A burst of drops raises one alarm. Before Start nobody takes it away.
func TestAlarmOncePerBurst(t *testing.T) {
	tr, err := New(Config{Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	tr.SetPeer(2, "127.0.0.1:1")
	for i, want := range []int{1, 0, 0} {
		tr.Send(2, 0, heartbeat(1))
		if n := len(tr.alarms.nodes); n != want {
			t.Fatalf("drop %d: %d alarms, want %d", i, n, want)
		}
		clear(tr.alarms.nodes)
	}
}

// Without a connection messages are dropped, and the handler hears of it.
func TestUnreachable(t *testing.T) {
	g := gate{asked: make(chan string, 1)}
	b := startNode(t, 2, nil)
	a := startNode(t, 1, func(c *Config, _ *testHandler) { c.ReconnectMin, c.Dial = 100*time.Hour, g.dial })
	a.SetPeer(2, b.address())
	for range 100 {
		a.Send(2, 0, heartbeat(1))
		a.Transmit()
	}
	if n := receive(t, a.h.unreachable); n != 2 {
		t.Fatal(n)
	}
	if s := a.peerStatus(t, 2); s.Dropped != 100 || s.QueuedBytes != 0 || s.Connected {
		t.Fatalf("%+v", s)
	}
	g.open.Store(true)
	a.SetPeer(2, b.address())
	a.waitConnected(t, 2)
	a.Send(2, 0, heartbeat(2))
	a.Transmit()
	receive(t, b.h.messages)
	b.Close()
	if n := receive(t, a.h.unreachable); n != 2 {
		t.Fatal(n)
	}
}

// A peer that does not read costs its queue and no more; nobody waits for it.
func TestQueueOverflow(t *testing.T) {
	const queue = 2 << 20
	block := make(chan struct{})
	release := sync.OnceFunc(func() { close(block) })
	defer release()
	b := startNode(t, 2, func(_ *Config, h *testHandler) {
		h.onMessages = func(from uint64, batch []Message) {
			<-block
			for _, m := range batch {
				h.messages <- got{from, m}
			}
		}
	})
	a := startNode(t, 1, func(c *Config, _ *testHandler) { c.QueueBytesMax = queue })
	join(t, a, b)
	body := make([]byte, 100<<10)
	sent := 0
	for a.peerStatus(t, 2).Dropped < 10 {
		if sent++; sent > 1<<14 {
			t.Fatal("there is no bound")
		}
		a.Send(2, 0, appendEntries(uint64(sent), body))
		if sent%3 == 0 {
			a.Transmit()
		}
		if q := a.peerStatus(t, 2).QueuedBytes; q > queue {
			t.Fatalf("%d bytes wait; the limit is %d", q, queue)
		}
	}
	if n := receive(t, a.h.unreachable); n != 2 {
		t.Fatal(n)
	}
	if _, err := a.Call(t.Context(), 2, "x", make([]byte, queue)); !errors.Is(err, ErrBusy) {
		t.Fatal(err)
	}
	release()
	a.Transmit()
	eventually(t, func() bool { return a.peerStatus(t, 2).QueuedBytes == 0 })
	a.Send(2, 7, heartbeat(1))
	a.Transmit()
	last := uint64(0)
	for {
		m := receive(t, b.h.messages)
		if m.Shard == 7 {
			break
		}
		if m.Raft.Index <= last {
			t.Fatalf("message %d after %d", m.Raft.Index, last)
		}
		last = m.Raft.Index
	}
}

func TestMessageOverItsLimitIsDropped(t *testing.T) {
	a, b := startNode(t, 1, nil), startNode(t, 2, nil)
	join(t, a, b)
	a.Send(2, 1, &raftpb.Message{Type: raftpb.MsgApp, Entries: make([]raftpb.Entry, EntriesPerFrameMax+1)})
	a.log.wait(t, "too large to send")
	a.Send(2, 2, heartbeat(1))
	a.Transmit()
	if m := receive(t, b.h.messages); m.Shard != 2 {
		t.Fatalf("%+v", m)
	}
	if a.peerStatus(t, 2).Dropped != 1 {
		t.Fatal("not counted")
	}
}

// A connection that takes no bytes is given up after the write timeout.
func TestWriteTimeout(t *testing.T) {
	block := make(chan struct{})
	defer close(block)
	b := startNode(t, 2, func(_ *Config, h *testHandler) {
		h.onMessages = func(uint64, []Message) { <-block }
	})
	a := startNode(t, 1, func(c *Config, _ *testHandler) {
		c.WriteTimeout, c.ReconnectMin = 20*time.Millisecond, 100*time.Hour
	})
	a.SetPeer(2, b.address())
	a.waitConnected(t, 2)
	body := make([]byte, 1<<20)
	for range 32 {
		a.Send(2, 0, appendEntries(1, body))
		a.Transmit()
	}
	eventually(t, func() bool { return !a.peerStatus(t, 2).Connected })
	if s := a.peerStatus(t, 2); s.QueuedBytes != 0 {
		t.Fatalf("%d bytes of the broken connection wait for the next", s.QueuedBytes)
	}
}

func TestConfigIsChecked(t *testing.T) {
	for _, c := range []Config{
		{VersionMax: versionNewest + 1}, {ReconnectMin: 2, ReconnectMax: 1}, {WriteTimeout: -1}, {QueueBytesMax: -1},
		{SnapshotBytesPerSecond: -1}, {Listen: "nowhere"}, {Engine: strings.Repeat("e", engineBytesMax+1)},
	} {
		if tr, err := New(c); err == nil {
			tr.Close()
			t.Errorf("%+v was accepted", c)
		}
	}
	tr, err := New(Config{Listen: "127.0.0.1:0", ReconnectMin: 2 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := tr.CallAddress(t.Context(), tr.Addr().String(), "x", nil); !errors.Is(err, ErrNotConnected) {
		t.Error(err)
	}
	tr.SetPeer(2, "127.0.0.1:1") // before Start
	tr.Send(2, 0, heartbeat(1))
	tr.Transmit()
	if err := tr.Close(); err != nil {
		t.Error(err)
	}
	if err := tr.Close(); err != nil {
		t.Error(err)
	}
	tr.SetPeer(3, "127.0.0.1:1")
	if _, err := tr.Call(t.Context(), 3, "x", nil); !errors.Is(err, ErrUnknownPeer) {
		t.Error(err)
	}
}
