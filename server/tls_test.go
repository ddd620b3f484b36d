package server

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/proa-kv/proa/access"
	"github.com/proa-kv/proa/internal/wrongport"
	"github.com/proa-kv/proa/protocol"
)

// clientHello is the first message of a client of TLS, as it is sent.
func clientHello(t testing.TB) []byte {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	go func() { _ = tls.Client(a, authority.client("")).Handshake() }()
	hello := make([]byte, 5)
	if _, err := io.ReadFull(b, hello); err != nil {
		t.Fatal(err)
	}
	hello = append(hello, make([]byte, int(hello[3])<<8|int(hello[4]))...)
	if _, err := io.ReadFull(b, hello[5:]); err != nil {
		t.Fatal(err)
	}
	return hello
}

// liveTLS is live with further listeners, of the native protocol and of Redis, that
// speak TLS as t says. The server's own ones are plain.
func liveTLS(t testing.TB, cfg Config, secure *TLS) (s *Server, native, redis net.Addr) {
	t.Helper()
	s, _ = live(t, cfg, func(s *Server) {
		var err error
		if native, err = s.Listen("127.0.0.1:0", WithTLS(secure)); err != nil {
			t.Fatal(err)
		}
		if redis, err = s.ListenFor(NewRedis(s, false), "127.0.0.1:0", "--resp-listen", WithTLS(secure)); err != nil {
			t.Fatal(err)
		}
		secured.Delete(native.String()) // of servers that are gone
		secured.Delete(redis.String())
	})
	return s, native, redis
}

// TestPlainOnTLSPort: who comes without TLS to a port that speaks nothing else is told
// so at once, in a protocol of its own; the port serves those who come with it.
func TestPlainOnTLSPort(t *testing.T) {
	ports := new(wrongport.Ports)
	ports.Set(wrongport.Addresses{wrongport.Client: "10.1.1.1:7400", wrongport.Redis: "10.1.1.1:7403", wrongport.Admin: "127.0.0.1:7402", wrongport.Peer: "10.1.1.1:7401"})
	ports.SpeakTLS(true)
	const (
		client = "this is Proa's client port"
		redis  = "this is Proa's Redis port"
		alone  = ", which speaks TLS alone; "
	)
	hello := func(text string) string {
		return string(protocol.AppendError(nil, 77, protocol.StatusHandshake, 0, text))
	}
	eachTransport(t, Transports, func(t *testing.T, cfg Config) {
		var log lines
		cfg.Ports, cfg.Logger = ports, log.logger()
		s, native, redisPort := liveTLS(t, cfg, &TLS{Config: authority.server()})
		for _, tt := range []struct {
			to         net.Addr
			sent, want string
		}{
			{native, helloFrame("proa"), hello(client + alone + "connect with TLS (--tls, or --tls-ca with the authority's certificate)")},
			{native, redisRequest, "-ERR " + client + "; Redis clients use 10.1.1.1:7403 with TLS\r\n"},
			{native, httpRequest, httpError(client + "; health, status and metrics over HTTP are at 127.0.0.1:7402 with TLS")},
			{native, peerRequest, nativeError(client + "; other nodes use 10.1.1.1:7401")},
			{native, "\x00\x01\x02\x03\x04\x05\x06\x07", nativeError(client + alone + "connect with TLS")},
			{redisPort, redisRequest, "-ERR " + redis + alone + "connect with TLS (redis-cli --tls)\r\n"},
			{redisPort, "PING\r\n", "-ERR " + redis + alone + "connect with TLS (redis-cli --tls)\r\n"},
			{redisPort, helloFrame("proa"), hello(redis + "; Proa clients use 10.1.1.1:7400 with TLS")},
			{redisPort, httpRequest, httpError(redis + "; health, status and metrics over HTTP are at 127.0.0.1:7402 with TLS")},
		} {
			for _, slowly := range []bool{false, true} {
				if got := converse(t, tt.to, tt.sent, slowly); got != tt.want {
					t.Errorf("%.20q, slowly: %v: answered\n%q, want\n%q", tt.sent, slowly, got, tt.want)
				}
			}
		}
		if n := s.TLSStatus().Failed["plain"]; n != 18 {
			t.Errorf("%d connections without TLS are counted, want 18", n)
		}
		if n := log.count("closed a connection without TLS"); n == 0 || n > 3 {
			t.Errorf("%d lines in the log for 18 connections", n)
		}
		tlsPing(t, native, authority.client(""))
		eventually(t, "nothing is left", func() bool { return s.handshakes.underWay() == 0 && s.conns.len() == 0 })
	})
}

// tlsPing connects over TLS, sends a PING, and closes the connection.
func tlsPing(t testing.TB, to net.Addr, config *tls.Config) {
	t.Helper()
	nc, err := tls.Dial("tcp", to.String(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if f := speak(t, nc).call(protocol.OpPing, []byte("x")); protocol.Status(f.Code) != protocol.StatusOK {
		t.Errorf("PING over TLS: %v", protocol.Status(f.Code))
	}
}

// tlsServed reports whether a client that comes over TLS is answered.
func tlsServed(to net.Addr, config *tls.Config) bool {
	nc, err := tls.Dial("tcp", to.String(), config)
	if err != nil {
		return false
	}
	defer nc.Close()
	hello := protocol.Hello{VersionMin: 1, VersionMax: 1}
	if _, err := nc.Write(frame(protocol.OpHello, 1, hello.AppendTo(nil))); err != nil {
		return false
	}
	var head [protocol.HeaderBytes]byte
	_, err = io.ReadFull(nc, head[:])
	return err == nil && protocol.Status(head[5]) == protocol.StatusOK
}

// TestOptionalTLS: a port may speak both, and tells by the first bytes which it is, even
// of a HELLO that begins like a record of TLS.
func TestOptionalTLS(t *testing.T) {
	eachTransport(t, Transports, func(t *testing.T, cfg Config) {
		s, native, redis := liveTLS(t, cfg, &TLS{Config: authority.server(), Optional: true})
		tlsPing(t, native, authority.client(""))
		plain, err := net.Dial("tcp", native.String())
		if err != nil {
			t.Fatal(err)
		}
		defer plain.Close()
		want(t, speak(t, plain).put("k", "v"), protocol.StatusOK)
		for n := range 1200 { // lengths of the HELLO, 790 and 278 among them
			if b := helloFrame(strings.Repeat("n", n)); b[0] == 0x16 {
				if caller, more := wrongport.Recognize([]byte(b)); caller != wrongport.Native || more {
					t.Errorf("a HELLO of %d bytes is taken for %v", len(b), caller)
				}
			}
		}
		like := helloFrame(strings.Repeat("n", 278-len(helloFrame(""))))
		if like[0] != 0x16 {
			t.Fatalf("the HELLO begins with %x", like[0])
		}
		nc, err := net.Dial("tcp", native.String())
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		for i := range like {
			if _, err := io.WriteString(nc, like[i:i+1]); err != nil {
				t.Fatal(err)
			}
		}
		d := &dialer{t: t, nc: nc}
		if f := d.receive(); f.ID != 77 {
			t.Errorf("the HELLO was answered %+v", f)
		}
		if got := converse(t, redis, "\nPING\r\nQUIT\r\n", true); got != "+PONG\r\n+OK\r\n" {
			t.Errorf("a Redis client without TLS was answered %q", got)
		}
		secure, err := tls.Dial("tcp", redis.String(), authority.client(""))
		if err != nil {
			t.Fatal(err)
		}
		defer secure.Close()
		_, _ = io.WriteString(secure, "PING\r\nQUIT\r\n")
		if got, err := io.ReadAll(secure); string(got) != "+PONG\r\n+OK\r\n" || err != nil {
			t.Errorf("a Redis client with TLS was answered %q, %v", got, err)
		}
		if st := s.TLSStatus(); st.Accepted != 2 || st.Failed["plain"] != 0 {
			t.Errorf("%+v", st)
		}
	})
}

// TestUnixSocketsArePlain whatever the options.
func TestUnixSocketsArePlain(t *testing.T) {
	eachTransport(t, Transports, func(t *testing.T, cfg Config) {
		var unix net.Addr
		live(t, cfg, func(s *Server) {
			var err error
			if unix, err = s.Listen("unix://"+t.TempDir()+"/s", WithTLS(&TLS{Config: authority.server()})); err != nil {
				t.Fatal(err)
			}
		})
		nc, err := net.Dial("unix", unix.String())
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		want(t, speak(t, nc).put("k", "v"), protocol.StatusOK)
	})
}

// TestPeerCertificate: a connection knows the certificate of its client if, and only if,
// that was verified.
func TestPeerCertificate(t *testing.T) {
	lax := authority.server()
	lax.ClientAuth = tls.RequireAnyClientCert
	strict := authority.server()
	strict.ClientAuth = tls.RequireAndVerifyClientCert
	eachTransport(t, Transports, func(t *testing.T, cfg Config) {
		for _, tt := range []struct {
			name   string
			server *tls.Config
			client string
			want   string
		}{
			{"none", authority.server(), "", ""},
			{"optional", authority.server(), "ada", "ada"},
			{"required", strict, "ada", "ada"},
			{"not verified", lax, "ada", ""},
		} {
			s, native, _ := liveTLS(t, cfg, &TLS{Config: tt.server})
			nc, err := tls.Dial("tcp", native.String(), authority.client(tt.client))
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			speak(t, nc)
			s.EachConn(func(c *Conn) {
				name := ""
				if cert := c.PeerCertificate(); cert != nil {
					name = cert.Subject.CommonName
				}
				if name != tt.want || !c.Encrypted() {
					t.Errorf("%s: the connection knows %q, encrypted: %v", tt.name, name, c.Encrypted())
				}
			})
		}
	})
	if c := (&connSecurity{}); c.Encrypted() || c.PeerCertificate() != nil {
		t.Error("a plain connection is encrypted")
	}
}

// TestCertificateLogin: the certificate of a client is that of its user, if the user may
// log in by it.
func TestCertificateLogin(t *testing.T) {
	for _, transport := range []string{"net" + overTLS} {
		fc := newFakeCluster(t, Config{Transport: transport, Authentication: true}, 1, 1, 1)
		node := fc.nodes[1]
		fc.allow(access.User{Name: "ada", Certificate: true, Roles: []string{"readonly"}}, access.User{Name: "bob"})
		for _, tt := range []struct {
			certificate, user, password string
			want                        protocol.Status
			text                        string
		}{
			{"ada", "", "", protocol.StatusOK, ""},
			{"bob", "", "", protocol.StatusUnauthenticated, `the certificate is that of "bob"`},
			{"eve", "", "", protocol.StatusUnauthenticated, `the certificate is that of "eve"`},
			{"", "", "", protocol.StatusUnauthenticated, "a user and its password are required"},
			{"ada", "bob", testPassword, protocol.StatusOK, ""},
			{"ada", "bob", "wrong", protocol.StatusUnauthenticated, ""},
		} {
			nc, err := tls.Dial("tcp", node.addr.String(), authority.client(tt.certificate))
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			d := &dialer{t: t, nc: nc}
			m := protocol.Hello{VersionMin: 1, VersionMax: 1, Name: []byte("test"), User: []byte(tt.user), Secret: []byte(tt.password)}
			f := d.call(protocol.OpHello, m.AppendTo(nil))
			if got := protocol.Status(f.Code); got != tt.want || !bytes.Contains(f.Body, []byte(tt.text)) {
				t.Errorf("certificate %q, user %q: %v %q", tt.certificate, tt.user, got, f.Body)
			}
			if tt.certificate == "ada" && tt.user == "" { // with the rights of that user
				want(t, d.call(protocol.OpGet, []byte("k")), protocol.StatusNotFound)
				want(t, d.put("k", "v"), protocol.StatusPermission)
			}
		}
	}
}

// TestHandshakeFailures: each way to fail is counted by its reason, told in the log with
// what to do, and leaves nothing behind.
func TestHandshakeFailures(t *testing.T) {
	strict := authority.server()
	strict.ClientAuth = tls.RequireAndVerifyClientCert
	other := newAuthority()
	dialWith := func(change func(*tls.Config)) func(net.Addr) {
		return func(to net.Addr) {
			config := authority.client("ada")
			change(config)
			if nc, err := tls.Dial("tcp", to.String(), config); err == nil {
				_, _ = io.ReadAll(nc) // in TLS 1.3 a client learns of it afterwards
				nc.Close()
			}
		}
	}
	send := func(b []byte) func(net.Addr) {
		return func(to net.Addr) {
			nc, err := net.Dial("tcp", to.String())
			if err != nil {
				t.Error(err)
				return
			}
			defer nc.Close()
			_, _ = nc.Write(b)
			_ = halfClose(nc)
			_, _ = io.ReadAll(nc)
		}
	}
	hello := clientHello(t)
	tests := []struct {
		name, reason, advice string
		fail                 func(net.Addr)
	}{
		{"old version", "version", "tls.min_version", dialWith(func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 })},
		{"no certificate", "certificate", "tls.client_ca", dialWith(func(c *tls.Config) { c.Certificates = nil })},
		{"another authority's certificate", "certificate", "tls.client_ca", dialWith(func(c *tls.Config) { c.Certificates = []tls.Certificate{other.sign("eve", time.Hour)} })},
		{"expired certificate", "certificate", "tls.client_ca", dialWith(func(c *tls.Config) { c.Certificates = []tls.Certificate{authority.sign("ada", -time.Hour)} })},
		{"unknown server", "rejected", "authority", dialWith(func(c *tls.Config) { c.RootCAs = x509.NewCertPool() })},
		{"another name", "rejected", "name or address", dialWith(func(c *tls.Config) { c.ServerName = "elsewhere" })},
		{"an end in the ClientHello", "closed", "client closed", send(hello[:len(hello)/2])},
		{"an end behind the ClientHello", "closed", "client closed", send(hello)},
		{"an end in the first bytes", "closed", "client closed", send(hello[:3])},
		{"an alert that is not encrypted", "rejected", "authority", send(append(bytes.Clone(hello), 21, 3, 3, 0, 2, 2, 48))},
		{"garbage behind the first bytes", "protocol", "client of TLS", send(append(bytes.Clone(hello[:9]), bytes.Repeat([]byte{0xff}, len(hello)-9)...))},
		{"too much", "protocol", "client of TLS", send(append([]byte{22, 3, 1, 0x40, 0, 1, 0, 0xff, 0xff}, bytes.Repeat(append(make([]byte, 1<<14-4), 22, 3, 1, 0x40, 0), 5)...))},
	}
	eachTransport(t, Transports, func(t *testing.T, cfg Config) {
		for _, tt := range tests {
			var log lines
			cfg.Logger = log.logger()
			s, native, _ := liveTLS(t, cfg, &TLS{Config: strict})
			tt.fail(native)
			eventually(t, tt.name+": it has failed", func() bool { return s.TLSStatus().Failed[tt.reason] == 1 })
			for reason, n := range s.TLSStatus().Failed {
				if reason != tt.reason && n != 0 {
					t.Errorf("%s: %d failures by reason %s", tt.name, n, reason)
				}
			}
			eventually(t, tt.name+": it is in the log", func() bool { return log.count("a TLS handshake failed") == 1 })
			if log.count("reason="+tt.reason) != 1 || log.count(tt.advice) == 0 {
				t.Errorf("%s: logged %s", tt.name, &log.b)
			}
			eventually(t, tt.name+": another client is served", func() bool { return tlsServed(native, authority.client("ada")) })
			eventually(t, tt.name+": nothing is left", func() bool { return s.handshakes.underWay() == 0 && s.conns.len() == 0 })
		}
	})
}

// TestHandshakeTime: a handshake that stops half-way ends by itself.
func TestHandshakeTime(t *testing.T) {
	hello := clientHello(t)
	eachTransport(t, Transports, func(t *testing.T, cfg Config) {
		cfg.FrameTimeout = 100 * time.Millisecond
		s, native, _ := liveTLS(t, cfg, &TLS{Config: authority.server()})
		for i, b := range [][]byte{nil, hello[:1], hello[:7], hello} {
			nc, err := net.Dial("tcp", native.String())
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			if _, err := nc.Write(b); err != nil {
				t.Fatal(err)
			}
			_ = nc.SetDeadline(time.Now().Add(time.Minute)) // a guard
			if _, err := io.Copy(io.Discard, nc); err != nil {
				t.Errorf("after %d bytes: %v", len(b), err)
			}
			if n := s.TLSStatus().Failed["timeout"]; n != uint64(i+1) {
				t.Errorf("after %d bytes: %d timeouts, want %d", len(b), n, i+1)
			}
		}
	})
}

// TestFirstRequestWithFinished: a client may send its first requests together with the
// last message of the handshake.
func TestFirstRequestWithFinished(t *testing.T) {
	eachTransport(t, Transports, func(t *testing.T, cfg Config) {
		_, native, _ := liveTLS(t, cfg, &TLS{Config: authority.server()})
		nc, err := net.Dial("tcp", native.String())
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		held := &holdingConn{Conn: nc}
		tc := tls.Client(held, authority.client("ada"))
		if err := tc.Handshake(); err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(tc, helloFrame("x"))
		for i := range 100 {
			_, _ = tc.Write(frame(protocol.OpPing, uint64(i+1), nil))
		}
		held.release()
		d := &dialer{t: t, nc: tc}
		for range 101 {
			want(t, d.receive(), protocol.StatusOK)
		}
	})
}

// holdingConn keeps what comes after a ClientHello until release.
type holdingConn struct {
	net.Conn
	writes int
	held   []byte
	free   bool
}

func (h *holdingConn) Write(b []byte) (int, error) {
	if h.writes++; h.free || h.writes == 1 {
		return h.Conn.Write(b)
	}
	h.held = append(h.held, b...)
	return len(b), nil
}

func (h *holdingConn) release() {
	h.free = true
	_, _ = h.Conn.Write(h.held)
}

// TestTLSEndsInOrder: a client learns in TLS's own way that the server has said all it
// has to say, after a reply as after a refusal and at shutdown.
func TestTLSEndsInOrder(t *testing.T) {
	eachTransport(t, Transports, func(t *testing.T, cfg Config) {
		for name, end := range map[string]func(*Server, *dialer){
			"half-close": func(_ *Server, d *dialer) { _ = d.nc.(*tls.Conn).CloseWrite() },
			"refusal":    func(_ *Server, d *dialer) { _, _ = io.WriteString(d.nc, strings.Repeat("\xff", 64)) },
			"shutdown":   func(s *Server, _ *dialer) { go func() { _ = s.Shutdown(t.Context()) }() },
			"close":      func(s *Server, _ *dialer) { go func() { _ = s.Close() }() },
		} {
			s, native, _ := liveTLS(t, cfg, &TLS{Config: authority.server()})
			nc, err := net.Dial("tcp", native.String())
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			seen := &tailConn{Conn: nc}
			d := speak(t, tls.Client(seen, authority.client("")))
			want(t, d.put("k", "v"), protocol.StatusOK)
			end(s, d)
			if _, err := io.ReadAll(d.nc); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			// An alert of TLS 1.3 is a record of 19 bytes that looks like data.
			if n := len(seen.tail); n < 24 || !bytes.Equal(seen.tail[n-24:n-19], []byte{23, 3, 3, 0, 19}) {
				t.Errorf("%s: the last record is no alert: % x", name, seen.tail)
			}
		}
	})
}

// tailConn keeps the end of what is read.
type tailConn struct {
	net.Conn
	tail []byte
}

func (c *tailConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.tail = append(c.tail, b[:n]...)
	c.tail = c.tail[max(0, len(c.tail)-64):]
	return n, err
}

// TestFullTableOverTLS: who comes over TLS where there is no place is told why.
func TestFullTableOverTLS(t *testing.T) {
	eachTransport(t, Transports, func(t *testing.T, cfg Config) {
		cfg.ConnectionsMax = 1
		_, native, _ := liveTLS(t, cfg, &TLS{Config: authority.server()})
		nc, err := tls.Dial("tcp", native.String(), authority.client(""))
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		speak(t, nc)
		further, err := tls.Dial("tcp", native.String(), authority.client(""))
		if err != nil {
			t.Fatal(err)
		}
		defer further.Close()
		d := &dialer{t: t, nc: further}
		if f := d.receive(); protocol.Status(f.Code) != protocol.StatusTooManyConns || !strings.Contains(errorText(t, f), "max_connections") {
			t.Errorf("answered %v", protocol.Status(f.Code))
		}
		ended(t, d)
	})
}

// TestTenThousandHandshakes: ten thousand connections that stop half-way in their
// handshakes take bounded memory, and neither keep out a client nor delay the requests of
// another, from whatever address they come.
func TestTenThousandHandshakes(t *testing.T) {
	hello := clientHello(t)
	const crowd = 10_000
	var log lines
	const most = 512 // descriptors are rare where both ends are in one process
	s, native, _ := liveTLS(t, Config{Logger: log.logger(), HandshakesMax: most}, &TLS{Config: authority.server()})
	before := heap()

	served, err := tls.Dial("tcp", native.String(), authority.client(""))
	if err != nil {
		t.Fatal(err)
	}
	defer served.Close()
	d := speak(t, served)

	var begun atomic.Int64
	var all sync.WaitGroup
	open := make(chan net.Conn, crowd)
	for worker := range 8 {
		all.Go(func() {
			for i := range crowd / 8 {
				nc, err := net.Dial("tcp", native.String())
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = nc.Write(hello[:[]int{0, 3, len(hello) - 1, len(hello), len(hello)}[(i+worker)%5]])
				open <- nc
				if begun.Add(1) > crowd/2 { // their own descriptors have to suffice as well
					(<-open).Close()
				}
			}
		})
	}
	longest := time.Duration(0)
	honest := func(from string) {
		began := time.Now()
		for {
			dialer := tls.Dialer{NetDialer: &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}, Config: authority.client("")}
			nc, err := dialer.Dial("tcp", native.String())
			if err == nil {
				speak(t, nc)
				nc.Close()
				break
			}
			<-time.After(50 * time.Millisecond)
		}
		took := time.Since(began)
		longest = max(longest, took)
		if took > handshakeTime-2*time.Second { // sooner than those of the crowd end by themselves
			t.Errorf("a client from %s needed %v to connect", from, took)
		}
	}
	crowded := make(chan struct{})
	go func() { all.Wait(); close(crowded) }()
	eventually(t, "a crowd", func() bool { return begun.Load() > crowd/4 })
	slowest, asked := time.Duration(0), 0
	for done := false; !done; asked++ {
		select {
		case <-crowded:
			done = true
		default:
		}
		began := time.Now()
		want(t, d.call(protocol.OpPing, nil), protocol.StatusOK)
		slowest = max(slowest, time.Since(began))
		if asked%200 == 0 {
			honest("127.0.0.1")
			if runtime.GOOS == "linux" { // where all of 127/8 is loopback
				honest("127.0.0.2")
			}
		}
		if n := s.handshakes.underWay(); n > most {
			t.Fatalf("%d handshakes are under way, the bound is %d", n, most)
		}
	}
	honest("127.0.0.1")
	t.Logf("%d requests meanwhile, the slowest took %v; who connected took %v at most", asked, slowest, longest)
	if grown := heap() - before; grown > most*(handshakeBytes+32<<10) {
		t.Errorf("the heap has grown by %d bytes", grown)
	}
	if n := log.count("a TLS handshake failed"); n > 10 {
		t.Errorf("%d lines in the log", n)
	}
	close(open)
	for nc := range open {
		nc.Close()
	}
	eventually(t, "nothing is left", func() bool { return s.handshakes.underWay() == 0 })
	want(t, d.put("k", "v"), protocol.StatusOK)
	if n := s.TLSStatus().Failed; n["crowded"] == 0 {
		t.Errorf("nobody had to give way: %v", n)
	}
}

// heap is what is allocated, of what lives.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// FuzzTLS feeds bytes to a port that speaks TLS: whatever they are, the connection
// ends and the next client is served.
func FuzzTLS(f *testing.F) {
	hello := clientHello(f)
	f.Add(hello)
	f.Add(hello[:50])
	f.Add(append(bytes.Clone(hello), hello...))
	f.Add([]byte(helloFrame("proa")))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Add([]byte{22, 3, 1, 0xff, 0xff, 1})
	_, native, redis := liveTLS(f, Config{}, &TLS{Config: authority.server()})
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, to := range []net.Addr{native, redis} {
			nc, err := net.Dial("tcp", to.String())
			if err != nil {
				t.Fatal(err)
			}
			_ = nc.SetDeadline(time.Now().Add(30 * time.Second)) // a guard
			_, _ = nc.Write(data)
			_ = halfClose(nc)
			if _, err := io.ReadAll(nc); err != nil && strings.Contains(err.Error(), "timeout") {
				t.Fatal("the connection does not end")
			}
			nc.Close()
		}
		tlsPing(t, native, authority.client(""))
	})
}
