package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/proa-kv/proa/internal/certtest"
	"github.com/proa-kv/proa/protocol"
)

func TestTLS(t *testing.T) {
	f := newFake(t)
	config := f.secureLocal()
	c := dial(t, func(cfg *Config) { cfg.TLS = config }, f)
	for i := range 20 {
		value := make([]byte, i*10_000) // the larger ones are written by themselves
		if _, err := c.Put(t.Context(), key(i), value); err != nil {
			t.Fatal(err)
		}
		if item, err := c.Get(t.Context(), key(i)); err != nil || len(item.Value) != len(value) {
			t.Fatal(err)
		}
	}
	if config.ServerName != "" {
		t.Errorf("Config.TLS was changed: %q", config.ServerName)
	}
}

// Each connection is checked for the name or address that it was made to: that of the
// configuration, or that which the cluster advertises for a node.
func TestTLSServerNames(t *testing.T) {
	cl := newFakeCluster(t, 2)
	a := testAuthority()
	_, port, err := net.SplitHostPort(cl.address[0])
	if err != nil {
		t.Fatal(err)
	}
	cl.nodes[0].secure(&tls.Config{Certificates: []tls.Certificate{a.Server("localhost")}})
	cl.nodes[1].secure(&tls.Config{Certificates: []tls.Certificate{a.Server("127.0.0.1")}})
	c := cl.dial(true, func(cfg *Config) {
		cfg.ForwardOnly, cfg.Endpoints = false, []string{"localhost:" + port}
		cfg.TLS = &tls.Config{RootCAs: a.Pool()}
	}, 1)
	eventually(t, func() bool {
		if _, err := c.Get(t.Context(), keyIn(1, 0)); !errors.Is(err, ErrNotFound) { // led by node 2
			t.Fatal(err)
		}
		return len(*c.pool.ready.Load()) == 2
	})

	// A name that is given is that of all.
	cl.nodes[0].secure(&tls.Config{Certificates: []tls.Certificate{a.Server("proa.internal")}})
	config := &tls.Config{RootCAs: a.Pool(), ServerName: "proa.internal"}
	dial(t, func(cfg *Config) { cfg.TLS = config }, cl.nodes[0])

	for endpoint, want := range map[string]string{
		"n1.example:1": "n1.example", "n1.example.:1": "n1.example.", "10.0.0.1": "10.0.0.1", "[::1]:1": "::1",
		"[fe80::1%eth0]:7400": "fe80::1",
	} {
		c, err := newClient(Config{Endpoints: []string{endpoint}, TLS: &tls.Config{}})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if got := c.pool.endpoints[0].tls().ServerName; got != want {
			t.Errorf("%s: %q", endpoint, got)
		}
	}
}

// Servers speak no TLS on unix sockets.
func TestUnixSocketWithoutTLS(t *testing.T) {
	path := filepath.Join(t.TempDir(), "p.sock")
	newFakeOn(t, "unix", path)
	c := dial(t, func(cfg *Config) { cfg.Endpoints, cfg.TLS = []string{"unix://" + path}, &tls.Config{} })
	if _, err := c.Put(t.Context(), []byte("k"), nil); err != nil {
		t.Fatal(err)
	}
}

func TestTLSFailures(t *testing.T) {
	a, stranger := testAuthority(), certtest.NewAuthority("somebody else")
	expired := a.Sign(&x509.Certificate{
		IPAddresses: []net.IP{{127, 0, 0, 1}}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour),
	})
	good := []tls.Certificate{a.Server("127.0.0.1")}
	trusting := func() *tls.Config { return &tls.Config{RootCAs: a.Pool()} }
	mutual := &tls.Config{Certificates: good, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: a.Pool()}
	mutual12 := mutual.Clone()
	mutual12.MaxVersion = tls.VersionTLS12
	as := func(c tls.Certificate) *tls.Config {
		return &tls.Config{RootCAs: a.Pool(), Certificates: []tls.Certificate{c}}
	}
	const alert = "\x15\x03\x01\x00\x02\x02\x46"
	plain := string(errorFrame(protocol.StatusHandshake, 0, "TLS is not supported"))
	var untrusted x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	for name, tt := range map[string]struct {
		server, client *tls.Config
		answer         string   // of a server without TLS
		as             any      // errors.As finds it
		is             error    // errors.Is does
		want           []string // one of them is in the text
	}{
		"unknown authority": {&tls.Config{Certificates: good}, &tls.Config{RootCAs: stranger.Pool()}, "", &untrusted, nil, []string{"unknown authority"}},
		"other name":        {&tls.Config{Certificates: []tls.Certificate{a.Server("n1.example")}}, trusting(), "", &host, nil, []string{"127.0.0.1"}},
		"expired":           {&tls.Config{Certificates: []tls.Certificate{expired}}, trusting(), "", &invalid, nil, []string{"has expired"}},
		"too old":           {&tls.Config{Certificates: good, MaxVersion: tls.VersionTLS12}, &tls.Config{RootCAs: a.Pool(), MinVersion: tls.VersionTLS13}, "", nil, nil, []string{"protocol version"}},
		"plain server":      {nil, trusting(), plain, nil, ErrNoTLS, []string{"does not speak TLS; connect without it"}},
		"plain client":      {nil, nil, alert, nil, ErrTLSRequired, []string{"the server requires TLS"}},
		// Where the server closes the connection with the HELLO unread, the reason is
		// lost with some luck.
		"no client certificate":     {mutual, trusting(), "", nil, nil, []string{"certificate required", "does it require a client certificate?"}},
		"no client certificate 1.2": {mutual12, trusting(), "", nil, nil, []string{"bad certificate", "handshake failure"}},
		"client of somebody else":   {mutual, as(stranger.Client("ann")), "", nil, nil, []string{"certificate required", "does it require a client certificate?"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			if tt.server != nil {
				f.secure(tt.server)
			} else {
				f.set(func() {
					f.wrap = func(nc net.Conn) net.Conn {
						_, _ = io.WriteString(nc, tt.answer)
						return nc
					}
				})
			}
			_, err := New(t.Context(), Config{Endpoints: []string{f.address()}, DialTimeout: time.Hour, TLS: tt.client, User: "ann", Secret: "very secret"})
			var e *TLSError
			if !errors.Is(err, ErrUnavailable) || !errors.Is(err, ErrTLS) || !errors.Is(err, ErrHandshake) || !errors.As(err, &e) || e.Endpoint != f.address() {
				t.Fatal(err)
			}
			if tt.as != nil && !errors.As(err, tt.as) || tt.is != nil && !errors.Is(err, tt.is) || strings.Contains(err.Error(), "very secret") {
				t.Error(err)
			}
			found := false
			for _, want := range tt.want {
				found = found || strings.Contains(err.Error(), want)
			}
			if !found {
				t.Errorf("%v; want %q", err, tt.want)
			}
			if tt.client != nil && e.ServerName != "127.0.0.1" {
				t.Errorf("server name %q", e.ServerName)
			}
		})
	}

	// And one that is welcome.
	f := newFake(t)
	f.secure(mutual)
	dial(t, func(cfg *Config) { cfg.TLS = as(a.Client("ann")) }, f)
}

// A port of Proa that speaks TLS alone says so; that reaches the user.
func TestTLSRequiredByProa(t *testing.T) {
	const text = "this is Proa's client port, which speaks TLS alone; connect with TLS"
	f := newFake(t)
	f.hello = func(*fakeConn, *protocol.Hello) []byte { return errorFrame(protocol.StatusHandshake, 0, text) }
	_, err := New(t.Context(), Config{Endpoints: []string{f.address()}, DialTimeout: time.Hour})
	if !errors.Is(err, ErrTLSRequired) || !strings.Contains(err.Error(), text) {
		t.Error(err)
	}
}

// The handshake of TLS is part of DialTimeout, and a server that hangs up in it is
// reported as one.
func TestTLSHandshakeEnds(t *testing.T) {
	silent := serveEach(t, func(nc net.Conn) { _, _ = io.Copy(io.Discard, nc) })
	for timeout := 20 * time.Millisecond; ; timeout *= 2 { // in which a busy machine may not get to connect
		_, err := New(t.Context(), Config{Endpoints: []string{silent}, DialTimeout: timeout, TLS: &tls.Config{}})
		if !errors.Is(err, context.DeadlineExceeded) || timeout > 10*time.Second {
			t.Fatal(err)
		}
		if strings.Contains(err.Error(), "there was no answer to the handshake within "+timeout.String()) {
			break
		}
	}
	rude := serveEach(t, func(nc net.Conn) { _, _ = nc.Read(make([]byte, 4096)) })
	_, err := New(t.Context(), Config{Endpoints: []string{rude}, DialTimeout: time.Hour, TLS: &tls.Config{}})
	if !errors.Is(err, ErrTLS) || !strings.Contains(err.Error(), "closed the connection; does it speak TLS?") {
		t.Error(err)
	}
}

// What will not change by itself is not tried again every 50 ms because a call waits.
func TestLastingFailures(t *testing.T) {
	alert := &net.OpError{Op: "remote error", Err: errors.New("tls: certificate required")}
	for _, tt := range []struct {
		err  error
		want bool
	}{
		{&TLSError{Err: ErrNoTLS}, true},
		{&TLSError{Err: ErrTLSRequired}, true},
		{&TLSError{Err: &tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}}, true},
		{&TLSError{Err: alert}, true},
		{&credentialsError{errors.New("no such file")}, true},
		{&foreignError{}, true},
		{&WrongClusterError{}, true},
		{&TLSError{Err: fmt.Errorf("%w (%w)", errHangUpTLS, io.EOF)}, false}, // as while the server stops
		{net.ErrClosed, false},
	} {
		if got := lasting(tt.err); got != tt.want {
			t.Errorf("%v: %v", tt.err, got)
		}
	}
}

// A server that accepts TLS slowly is sounded out without it, and its alert does not end
// the handshake; but it tells a client without TLS what is wrong.
func TestSoundingOutTLS(t *testing.T) {
	address := lineServer(t, func(nc net.Conn) { _, _ = io.WriteString(nc, "\x15\x03\x01\x00\x02\x02\x46") })
	for _, config := range []*tls.Config{{}, nil} {
		c, err := newClient(Config{Endpoints: []string{address}, TLS: config})
		if err != nil {
			t.Fatal(err)
		}
		var cause error
		c.wg.Add(1)
		c.pool.endpoints[0].soundOut(t.Context(), func(err error) { cause = err })
		if c.Close(); config != nil && cause != nil || config == nil && !errors.Is(cause, ErrTLSRequired) {
			t.Error(cause)
		}
	}
}

// A server that has stopped reading holds up neither the calls of others nor Close, with
// which TLS takes leave of it.
func TestTLSWritesDoNotWait(t *testing.T) {
	f := newFake(t)
	config := f.secureLocal()
	c := dial(t, func(cfg *Config) { cfg.TLS = config }, f)
	stop := make(chan struct{})
	var stopped atomic.Bool
	f.set(func() {
		f.intercept = func(*fakeConn, *protocol.Frame, *protocol.Extensions) verdict {
			stopped.Store(true)
			<-stop // with f.mu held; nothing is read any more
			return verdict{skip: true}
		}
	})
	value := make([]byte, 8<<10) // is gathered with others
	var pending []*Future[WriteResult]
	cn := (*c.pool.ready.Load())[0]
	full := func() bool {
		cn.mu.Lock()
		defer cn.mu.Unlock()
		return len(cn.queue)-cn.head > 100
	}
	for i := 0; !stopped.Load() || !full(); i++ {
		pending = append(pending, c.PutAsync(key(i), value))
	}
	_, err := c.Get(t.Context(), []byte("k"), WithTimeout(50*time.Millisecond))
	if !errors.Is(err, ErrDeadlineExceeded) {
		t.Error(err)
	}
	start := time.Now()
	c.Close()
	if took := time.Since(start); took > 4*time.Second { // TLS would wait 5 s
		t.Errorf("Close took %v", took)
	}
	close(stop)
	for _, p := range pending {
		if _, err := p.Wait(t.Context()); !errors.Is(err, ErrClosed) {
			t.Fatal(err)
		}
	}
}
