package admin

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/proa-kv/proa/internal/wrongport"
	"github.com/proa-kv/proa/protocol"
)

// TestForeigners: who does not speak HTTP is answered at once in a protocol of its
// own, even if the bytes come one by one; what does is not changed.
func TestForeigners(t *testing.T) {
	hello := protocol.Hello{VersionMin: 1, VersionMax: 1, Name: []byte("proa")}
	native := protocol.End(hello.AppendTo(protocol.Begin(nil, uint8(protocol.OpHello), 0, 7)), 0)
	const here = "this is Proa's admin HTTP port; "
	ports := new(wrongport.Ports)
	ports.Set(wrongport.Addresses{wrongport.Client: "10.1.1.1:7400", wrongport.Redis: "10.1.1.1:7403"})
	s, err := Listen("127.0.0.1:0", Source{Ready: func() error { return nil }, Ports: ports})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = s.Shutdown(ctx)
	})
	for _, tt := range []struct{ sent, want string }{
		{string(native), string(protocol.AppendError(nil, 7, protocol.StatusHandshake, 0, here+"Proa clients use 10.1.1.1:7400"))},
		{"*1\r\n$4\r\nPING\r\n", "-ERR " + here + "Redis clients use 10.1.1.1:7403\r\n"},
		{"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + strings.Repeat("r", 100), "this is Proa's admin HTTP port, which does not speak TLS (tls.cert is not set); connect without TLS\n"},
		{"\xf1ProaPee\x10\x00 and more", here + "this node has no peer port (--peer-listen turns it on)\n"},
		{"PING\r\n", "400 Bad Request"},
		{"PROPFIND / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "HTTP/1.1 405 Method Not Allowed\r\n"},
		{"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "\r\n\r\nok\n"},
		{"GE", ""},
	} {
		for _, slowly := range []bool{false, true} {
			nc, err := net.Dial("tcp", s.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			_ = nc.SetDeadline(time.Now().Add(time.Minute)) // a guard
			step := len(tt.sent)
			if slowly {
				step = 1
			}
			for i := 0; i < len(tt.sent); i += step {
				if _, err := io.WriteString(nc, tt.sent[i:i+step]); err != nil {
					break // answered already
				}
			}
			if tt.want == "" {
				_ = nc.(*net.TCPConn).CloseWrite()
			}
			answer, err := io.ReadAll(nc)
			if nc.Close(); err != nil || !strings.Contains(string(answer), tt.want) {
				t.Errorf("%.20q, slowly: %v: answered %q, %v; want %q", tt.sent, slowly, answer, err, tt.want)
			}
		}
	}
	// Requests in a row on one connection.
	for range 2 {
		r, err := http.Get("http://" + s.Addr().String() + "/healthz")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, r.Body)
		r.Body.Close()
	}
}
