package server

import (
	"bytes"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/proa-kv/proa/internal/wrongport"
	"github.com/proa-kv/proa/protocol"
)

const (
	httpRequest  = "GET /status HTTP/1.1\r\nHost: localhost:7400\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n"
	redisRequest = "*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n"
	peerRequest  = "\xf1ProaPee\x20\x00 and more"
)

// tlsRequest is the front of a ClientHello that is n bytes long.
func tlsRequest(n int) string {
	return "\x16\x03\x01" + string([]byte{byte(n >> 8), byte(n)}) + "\x01\x00\x00\xfc\x03\x03" + strings.Repeat("r", n-6)
}

func helloFrame(name string) string {
	m := protocol.Hello{VersionMin: 1, VersionMax: 1, Name: []byte(name)}
	return string(frame(protocol.OpHello, 77, m.AppendTo(nil)))
}

// nativeError is the error that a client of Proa reads.
func nativeError(text string) string {
	return string(protocol.AppendError(nil, 0, protocol.StatusHandshake, 0, text))
}

func httpError(text string) string {
	return "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: " + strconv.Itoa(len(text)+1) + "\r\nConnection: close\r\n\r\n" + text + "\n"
}

// TestWrongPort: who speaks another port's protocol is answered at once, in that
// protocol, even if the bytes come one by one; and then the connection ends.
func TestWrongPort(t *testing.T) {
	ports := new(wrongport.Ports)
	ports.Set(wrongport.Addresses{wrongport.Client: "10.1.1.1:7400", wrongport.Redis: "10.1.1.1:7403", wrongport.Admin: "127.0.0.1:7402", wrongport.Peer: "10.1.1.1:7401"})
	const (
		client = "this is Proa's client port; "
		redis  = "this is Proa's Redis port; "
		noTLS  = ", which does not speak TLS (tls.cert is not set); connect without TLS"
	)
	tests := []struct {
		name  string
		redis bool
		sent  string
		want  string
	}{
		{"RESP", false, redisRequest, "-ERR " + client + "Redis clients use 10.1.1.1:7403\r\n"},
		{"RESP in one line", false, "PING\r\n", "-ERR " + client + "Redis clients use 10.1.1.1:7403\r\n"},
		{"HTTP", false, httpRequest, httpError(client + "health, status and metrics over HTTP are at 127.0.0.1:7402")},
		{"HTTP/2", false, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", httpError(client + "health, status and metrics over HTTP are at 127.0.0.1:7402")},
		{"TLS", false, tlsRequest(512), nativeError("this is Proa's client port" + noTLS)},
		{"short TLS", false, tlsRequest(200), nativeError("this is Proa's client port" + noTLS)},
		{"peer", false, peerRequest, nativeError(client + "other nodes use 10.1.1.1:7401")},

		{"native", true, helloFrame("proa"), string(protocol.AppendError(nil, 77, protocol.StatusHandshake, 0, redis+"Proa clients use 10.1.1.1:7400"))},
		{"native like RESP", true, helloFrame(strings.Repeat("n", 10)), string(protocol.AppendError(nil, 77, protocol.StatusHandshake, 0, redis+"Proa clients use 10.1.1.1:7400"))},
		{"HTTP", true, httpRequest, httpError(redis + "health, status and metrics over HTTP are at 127.0.0.1:7402")},
		{"POST", true, "POST / HTTP/1.0\r\n\r\nFLUSHALL\r\n", httpError(redis + "health, status and metrics over HTTP are at 127.0.0.1:7402")},
		{"TLS", true, tlsRequest(512), "-ERR this is Proa's Redis port" + noTLS + "\r\n"},
		{"peer", true, peerRequest, "-ERR " + redis + "other nodes use 10.1.1.1:7401\r\n"},
	}
	transports(t, func(t *testing.T, cfg Config) {
		cfg.Ports = ports
		var log lines
		cfg.Logger = log.logger()
		s, addr := live(t, cfg)
		for _, tt := range tests {
			at := addr
			port := "client"
			if tt.redis {
				at, port = redisAddr(s), "Redis"
			}
			for _, slowly := range []bool{false, true} {
				if got := converse(t, at, tt.sent, slowly); got != tt.want {
					t.Errorf("%s to the %s port, slowly: %v: answered\n%q, want\n%q", tt.name, port, slowly, got, tt.want)
				}
			}
		}
		if n := log.count("another protocol than the port"); n == 0 || n > 3 {
			t.Errorf("%d lines in the log for %d connections", n, 2*len(tests))
		}
		eventually(t, "no connection left", func() bool { return s.conns.len() == 0 })
	})
}

// converse sends text, byte by byte if slowly, and returns all that is answered.
func converse(t *testing.T, to net.Addr, text string, slowly bool) string {
	t.Helper()
	nc, err := connect(to)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(30 * time.Second)) // a guard
	step := len(text)
	if slowly {
		step = 1
	}
	for i := 0; i < len(text); i += step {
		if _, err := io.WriteString(nc, text[i:i+step]); err != nil {
			break // answered already
		}
	}
	answer, err := io.ReadAll(nc)
	if err != nil {
		t.Errorf("after %.20q: %v", text, err)
	}
	return string(answer)
}

// TestRightPort: first bytes that could be of another protocol are carried out all
// the same.
func TestRightPort(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		s, _ := live(t, cfg)
		for _, tt := range []struct{ sent, want string }{
			{"\nPING\r\nQUIT\r\n", "+PONG\r\n+OK\r\n"},
			{"GET HTTP/1.\r\nQUIT\r\n", "$-1\r\n+OK\r\n"},
			{"GET nothing\r\nQUIT\r\n", "$-1\r\n+OK\r\n"},
			{"*3\r\n$3\r\nGET\r\n$1\r\n/\r\n$8\r\nHTTP/1.1\r\n*1\r\n$4\r\nQUIT\r\n", "-ERR wrong number of arguments for 'get' command\r\n+OK\r\n"},
			{"PING\r\nGET / HTTP/1.1\r\nQUIT\r\n", "+PONG\r\n-ERR wrong number of arguments for 'get' command\r\n+OK\r\n"},
			{"A\nQUIT\r\n", "-ERR unknown command 'A', with args beginning with: \r\n+OK\r\n"},
		} {
			for _, slowly := range []bool{false, true} {
				if got := converse(t, redisAddr(s), tt.sent, slowly); got != tt.want {
					t.Errorf("%q, slowly: %v: answered %q, want %q", tt.sent, slowly, got, tt.want)
				}
			}
		}
		got := []byte(converse(t, s.Addrs()[0], helloFrame("*1\r\n")+string(frame(protocol.OpExists, 0, nil)), true))
		if f, _, _, err := protocol.Next(got, protocol.FrameBytesMax); err != nil || protocol.Status(f.Code) != protocol.StatusOK || !bytes.Contains(got, []byte("id other than 0")) {
			t.Errorf("a client of Proa was answered %q", got)
		}
	})
}
