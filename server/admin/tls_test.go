package admin

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// certificate returns one for servers and clients that has signed itself, and a pool that
// trusts it.
func certificate(t *testing.T, name string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// firstConn is a connection of which first has been read.
type firstConn struct {
	net.Conn
	first []byte
}

func (c *firstConn) Read(b []byte) (int, error) {
	if len(c.first) > 0 {
		n := copy(b, c.first)
		c.first = c.first[n:]
		return n, nil
	}
	return c.Conn.Read(b)
}

// securing is Source.Secure of a server with that configuration.
func securing(config *tls.Config) func(net.Conn, []byte) (*tls.Conn, error) {
	return func(nc net.Conn, first []byte) (*tls.Conn, error) {
		_ = nc.SetDeadline(time.Now().Add(time.Minute))
		tc := tls.Server(&firstConn{nc, first}, config)
		if err := tc.Handshake(); err != nil {
			nc.Close()
			return nil, err
		}
		return tc, nc.SetDeadline(time.Time{})
	}
}

// startTLS is start with TLS.
func startTLS(t *testing.T, config *tls.Config, plainToo bool, limit timeouts) *Server {
	t.Helper()
	s, err := listen("127.0.0.1:0", Source{Ready: func() error { return nil }, Secure: securing(config), PlainToo: plainToo}, limit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = s.Shutdown(ctx)
	})
	return s
}

// TestTLS: with TLS the server answers as without; who comes without is served where that
// is optional, and told what to do where it is not.
func TestTLS(t *testing.T) {
	leaf, pool := certificate(t, "server")
	for _, plainToo := range []bool{false, true} {
		s := startTLS(t, &tls.Config{Certificates: []tls.Certificate{leaf}}, plainToo, timeoutsUsual)
		secure := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}}
		for range 3 { // on one connection
			r, err := secure.Get("https://" + s.Addr().String() + "/healthz")
			if err != nil {
				t.Fatal(err)
			}
			if b, err := io.ReadAll(r.Body); string(b) != "ok\n" || err != nil {
				t.Errorf("answered %q, %v", b, err)
			}
			r.Body.Close()
		}
		secure.CloseIdleConnections()
		for _, sent := range []string{"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "PING\r\n", "\x00\x00\x00\x00\x00\x00\x00\x00"} {
			answer, err := io.ReadAll(send(t, s, sent))
			alone := bytes.Contains(answer, []byte("which speaks TLS alone")) || bytes.Contains(answer, []byte("this is Proa's admin HTTP port; "))
			if err != nil || alone == plainToo {
				t.Errorf("%q is answered %q, %v", sent, answer, err)
			}
		}
	}
}

// TestTLSTimeouts: a client of TLS has no more time than another, before its handshake,
// within a request and after one.
func TestTLSTimeouts(t *testing.T) {
	leaf, pool := certificate(t, "server")
	short := 50 * time.Millisecond
	s := startTLS(t, &tls.Config{Certificates: []tls.Certificate{leaf}}, false, timeouts{header: short, read: short, write: time.Second, idle: short})
	for _, text := range []string{"", "GET /stat", "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"} {
		nc := send(t, s, "")
		tc := tls.Client(nc, &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"})
		if text != "" {
			// A busy machine may get to it when it is too late already.
			if _, err := io.WriteString(tc, text); err != nil {
				continue
			}
		}
		if _, err := io.Copy(io.Discard, nc); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("after %q: %v", text, err)
		}
	}
}

// TestPeerCertificate: a request knows the certificate of its client, if that was verified.
func TestPeerCertificate(t *testing.T) {
	leaf, pool := certificate(t, "server")
	ada, _ := certificate(t, "ada")
	adas, err := x509.ParseCertificate(ada.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	pool.AddCert(adas)
	s := &Server{secure: securing(&tls.Config{Certificates: []tls.Certificate{leaf}, ClientCAs: pool, ClientAuth: tls.VerifyClientCertIfGiven}), plain: true}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	bounded := newBoundedListener(ln, 8, func(nc net.Conn) net.Conn { return &caller{Conn: nc, s: s} })
	server := http.Server{ConnContext: withCaller, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if cert := PeerCertificate(r); cert != nil {
			_, _ = io.WriteString(w, cert.Subject.CommonName)
		}
	})}
	go func() { _ = server.Serve(bounded) }()
	defer server.Close()
	for _, tt := range []struct {
		scheme string
		certs  []tls.Certificate
		want   string
	}{{"https", []tls.Certificate{ada}, "ada"}, {"https", nil, ""}, {"http", nil, ""}} {
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: tt.certs}}
		r, err := (&http.Client{Transport: transport}).Get(tt.scheme + "://" + ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(r.Body)
		r.Body.Close()
		transport.CloseIdleConnections()
		if string(b) != tt.want {
			t.Errorf("%s with %d certificates: the request knows %q, want %q", tt.scheme, len(tt.certs), b, tt.want)
		}
	}
	r, _ := http.NewRequest(http.MethodGet, "http://x", strings.NewReader(""))
	if PeerCertificate(r) != nil {
		t.Error("a request of another server has a certificate")
	}
}
