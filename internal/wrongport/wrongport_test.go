package wrongport_test

import (
	"strings"
	"testing"

	"github.com/proa-kv/proa/internal/wrongport"
	"github.com/proa-kv/proa/protocol"
)

// hello is what a client of Proa begins with.
func hello(name string) string {
	m := protocol.Hello{VersionMin: 1, VersionMax: 1, Name: []byte(name)}
	return string(protocol.End(m.AppendTo(protocol.Begin(nil, uint8(protocol.OpHello), 0, 1)), 0))
}

// clientHello is the front of what OpenSSL sends, of so many bytes.
func clientHello(n int) string {
	return "\x16\x03\x01" + string([]byte{byte(n >> 8), byte(n)}) + "\x01\x00\x00\xfc\x03\x03" + strings.Repeat("r", 64)
}

// TestRecognize: callers are recognized, and as soon as the bytes allow: with each
// byte less, more are asked for.
func TestRecognize(t *testing.T) {
	for _, tt := range []struct {
		first string
		want  wrongport.Protocol
		bytes int // that decide
	}{
		{hello("proa"), wrongport.Native, 16},
		{hello(""), wrongport.Native, 16},
		{hello(strings.Repeat("n", 10)), wrongport.Native, 16}, // its first byte is that of an array of RESP
		{hello(strings.Repeat("n", 256)), wrongport.Native, 16},
		{"*1\r\n$4\r\nPING\r\n", wrongport.RESP, 2},
		{"*10\r\n", wrongport.RESP, 2},
		{"PING\r\n", wrongport.RESP, 4},
		{"hello, is anybody there?\n", wrongport.RESP, 4},
		{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", wrongport.HTTP, 4},
		{"POST /put HTTP/1.1\r\n", wrongport.HTTP, 4},
		{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", wrongport.HTTP, 4},
		{clientHello(512), wrongport.TLS, 6},
		{clientHello(200), wrongport.TLS, 6},
		{"\xf1ProaPee\x20\x00", wrongport.Node, 4},
		{"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", wrongport.Unknown, 5},
		{"\xff\xff\xff\xff", wrongport.Unknown, 3},
		{"*x", wrongport.RESP, 4},
		{"\x16\x03\x09", wrongport.Unknown, 3},
	} {
		for n := range len(tt.first) {
			b := []byte(tt.first[:n])
			if p, more := wrongport.Recognize(b); n < tt.bytes && (p != wrongport.Unknown || !more) {
				t.Errorf("%q: %v, more %v, want to see %d bytes", b, p, more, tt.bytes)
			} else if n >= tt.bytes && (p != tt.want || more) {
				t.Errorf("%q: %v, more %v, want %v", b, p, more, tt.want)
			}
		}
	}
}

func TestRequestLine(t *testing.T) {
	for _, tt := range []struct {
		b         string
		yes, more bool
	}{
		{"GET / HTTP/1.1\r\nHost: x\r\n", true, false},
		{"GET /\x00 HTTP/1.0\n", true, false},
		{"PRI * HTTP/2.0\r\n\r\n", true, false},
		{"GET / HTTP/1.1\r", false, true},
		{"GE", false, true},
		{"GET key\r\n", false, false},
		{"GET HTTP/1.1\r\n", true, false}, // no key of that name by hand
		{"GETDEL k HTTP/1.1\r\n", false, false},
		{"get / HTTP/1.1\r\n", false, false},
		{"*2\r\n$3\r\nGET\r\n", false, false},
		{"GET " + strings.Repeat("x", 10<<10), false, false},
		{"", false, true},
	} {
		if yes, more := wrongport.RequestLine([]byte(tt.b)); yes != tt.yes || more != tt.more {
			t.Errorf("%.40q: %v, more %v", tt.b, yes, more)
		}
	}
}

func FuzzRecognize(f *testing.F) {
	f.Add([]byte(hello("proa")))
	f.Add([]byte("GET / HTTP/1.1\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, more := wrongport.Recognize(b)
		switch {
		case more && (p != wrongport.Unknown || len(b) >= wrongport.RecognizeBytes):
			t.Fatalf("%q: %v, more", b, p)
		case !more && len(b) > 0:
			// What has been decided stays so.
			if q, still := wrongport.Recognize(append(b, 'x')); q != p || still {
				t.Fatalf("%q: first %v, then %v", b, p, q)
			}
		}
		wrongport.RequestLine(b)
	})
}

func TestAnswers(t *testing.T) {
	known := new(wrongport.Ports)
	known.Set(wrongport.Addresses{wrongport.Client: "127.0.0.1:7400", wrongport.Redis: "[::]:7403", wrongport.Admin: "10.0.0.1:7402"})
	secure := new(wrongport.Ports)
	secure.Set(wrongport.Addresses{wrongport.Client: ":7400", wrongport.Admin: "10.0.0.1:7402", wrongport.Peer: "10.0.0.1:7401"})
	secure.SpeakTLS(true)
	for _, tt := range []struct {
		ports  *wrongport.Ports
		at     wrongport.Port
		caller wrongport.Protocol
		begin  string
		text   string
	}{
		{known, wrongport.Redis, wrongport.HTTP, "HTTP/1.1 400 Bad Request\r\n", "this is Proa's Redis port; health, status and metrics over HTTP are at 10.0.0.1:7402"},
		{known, wrongport.Client, wrongport.RESP, "-ERR ", "this is Proa's client port; Redis clients use port 7403"},
		{nil, wrongport.Client, wrongport.RESP, "-ERR ", "this is Proa's client port; Redis clients use the Redis port"},
		{known, wrongport.Client, wrongport.Node, "", "this is Proa's client port; this node has no peer port (--peer-listen turns it on)"},
		{known, wrongport.Client, wrongport.TLS, "", "this is Proa's client port, which does not speak TLS (tls.cert is not set); connect without TLS"},
		{known, wrongport.Redis, wrongport.TLS, "-ERR ", "this is Proa's Redis port, which does not speak TLS (tls.cert is not set); connect without TLS"},
		{known, wrongport.Admin, wrongport.TLS, "HTTP/1.1 400", "this is Proa's admin HTTP port, which does not speak TLS (tls.cert is not set); connect without TLS"},
		{known, wrongport.Peer, wrongport.TLS, "HTTP/1.1 400", "this is Proa's peer port; connect without TLS"},
		{secure, wrongport.Client, wrongport.TLS, "", "this is Proa's client port, which does not speak TLS on a unix socket; connect without TLS"},
		{secure, wrongport.Redis, wrongport.HTTP, "HTTP/1.1 400", "this is Proa's Redis port; health, status and metrics over HTTP are at 10.0.0.1:7402 with TLS"},
		{secure, wrongport.Peer, wrongport.Native, "", "this is Proa's peer port; Proa clients use port 7400 with TLS"},
		{secure, wrongport.Client, wrongport.Node, "", "this is Proa's client port; other nodes use 10.0.0.1:7401"},
	} {
		answer, why := tt.ports.Answer(tt.at, tt.caller, nil)
		if why != tt.text || !strings.HasPrefix(string(answer), tt.begin) || !strings.Contains(string(answer), tt.text) {
			t.Errorf("%v at the %v: %q, %q", tt.caller, tt.at, answer, why)
		}
	}
	answer, _ := known.Answer(wrongport.Peer, wrongport.Native, []byte(hello("proa")))
	f, _, _, err := protocol.Next(answer, protocol.FrameBytesMax)
	if err != nil || f.ID != 1 || protocol.Status(f.Code) != protocol.StatusHandshake || !strings.Contains(string(f.Body), "this is Proa's peer port; Proa clients use 127.0.0.1:7400") {
		t.Errorf("a native client is answered %+v, %v", f, err)
	}
}

// A client finds in an answer which address to use.
func TestClientAddress(t *testing.T) {
	for client, want := range map[string]string{"127.0.0.1:7400": "127.0.0.1:7400", "[fe80::1]:7400": "[fe80::1]:7400", "[::]:7400": ":7400", ":7400": ":7400", "": ""} {
		s := new(wrongport.Ports)
		s.Set(wrongport.Addresses{wrongport.Client: client})
		_, why := s.Answer(wrongport.Redis, wrongport.Native, nil)
		if got, ok := wrongport.ClientAddress("handshake refused: " + why + " (2 tries)"); got != want || ok != (want != "") {
			t.Errorf("%q: %q, %v", why, got, ok)
		}
	}
	var none *wrongport.Ports
	_, unknown := none.Answer(wrongport.Redis, wrongport.Native, nil)
	_, http := none.Answer(wrongport.Redis, wrongport.HTTP, nil)
	for _, text := range []string{"", unknown, http, "; Proa clients use nothing"} {
		if got, ok := wrongport.ClientAddress(text); ok {
			t.Errorf("%q: %q", text, got)
		}
	}
}
