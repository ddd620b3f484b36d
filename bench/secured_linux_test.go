package bench

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"strings"
	"testing"

	"github.com/proa-kv/proa/client"
)

// Each dialect logs in, and a server that refuses is named without the password.
func TestCredentials(t *testing.T) {
	both(t, func(t *testing.T, s *fake) {
		s.login = "ann correct horse"
		target := s.start(t, "tcp", "127.0.0.1:0")
		as := func(user, secret string) Target {
			if target.Codec = (Proa{user, secret}); s.resp {
				target.Codec = RESP{user, secret}
			}
			return target
		}
		if r := mustRun(t, Load{Target: as("ann", "correct horse"), Connections: 3, InFlight: 4, Op: Put, Count: 500}); r.All.Ops != 500 {
			t.Error(r)
		}
		for _, wrong := range []Target{as("ann", "wrong horse"), as("", "")} {
			if r, err := Run(t.Context(), Load{Target: wrong, Count: 1}); !errors.Is(err, ErrGreeting) || strings.Contains(err.Error(), "horse") {
				t.Errorf("%v, %v", r, err)
			}
		}
	})
}

// RESP's AUTH has a user or not, and both replies must have come.
func TestAuthGreeting(t *testing.T) {
	for _, tt := range []struct {
		codec RESP
		want  string
	}{
		{RESP{}, "*1\r\n$4\r\nPING\r\n"},
		{RESP{Secret: "x"}, "*2\r\n$4\r\nAUTH\r\n$1\r\nx\r\n*1\r\n$4\r\nPING\r\n"},
		{RESP{"ann", "x y"}, "*3\r\n$4\r\nAUTH\r\n$3\r\nann\r\n$3\r\nx y\r\n*1\r\n$4\r\nPING\r\n"},
	} {
		if got := string(tt.codec.AppendGreeting(nil)); got != tt.want {
			t.Errorf("%q, want %q", got, tt.want)
		}
	}
	const answer = "+OK\r\n+PONG\r\n"
	for i := range answer {
		if n, err := (RESP{Secret: "x"}).ParseGreeting([]byte(answer[:i])); n != 0 || err != nil {
			t.Errorf("%q: %d, %v", answer[:i], n, err)
		}
	}
	if n, err := (RESP{Secret: "x"}).ParseGreeting([]byte(answer)); n != len(answer) || err != nil {
		t.Error(n, err)
	}
	for answer, want := range map[string]error{"-WRONGPASS no\r\n": ErrGreeting, "+OK\r\n-NOPERM no\r\n": ErrGreeting, "+PONG\r\n": ErrProtocol} {
		if n, err := (RESP{Secret: "x"}).ParseGreeting([]byte(answer)); n != 0 || !errors.Is(err, want) {
			t.Errorf("%q: %d, %v", answer, n, err)
		}
	}
}

// A load of all kinds goes over TLS, with a login, from the search for the servers to the
// verification, and goes on when connections break.
func TestSecureWorkload(t *testing.T) {
	s := &fake{secure: true, login: "ann correct horse"}
	n := 0
	s.answer = func(request) []byte {
		if n++; n == 700 {
			for c := range s.conns {
				c.Close()
			}
		}
		return nil
	}
	l := loadOf(t, s, "ycsb-a")
	l.TLS, l.User, l.Secret = &tls.Config{RootCAs: authority().Pool()}, "ann", "correct horse"
	l.Count, l.Connections, l.InFlight = 1000, 4, 3
	h := mustOpen(t, l)
	lease, err := h.Claim(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer lease.End(t.Context())
	r := mustMeasure(t, mustLoad(t, h), 0)
	if r.All.Ops+r.Failed() != 1000 || r.Errors["CONNECTION_LOST"] != r.Failed() || r.Failed() == 0 || r.Failed() > 100 {
		t.Errorf("%+v, %v", r, r.Errors)
	}
	if v := mustVerify(t, h); !v.OK() || v.Rows != 300 {
		t.Errorf("%+v", v)
	}
	l.Secret = "wrong horse"
	if _, err := Open(t.Context(), l); !errors.Is(err, client.ErrUnauthenticated) || strings.Contains(err.Error(), "horse") {
		t.Error(err)
	}
}

// What TLS refuses ends a run with its reason.
func TestSecureFailures(t *testing.T) {
	s := &fake{secure: true}
	target := s.start(t, "tcp", "127.0.0.1:0")
	target.TLS = &tls.Config{RootCAs: x509.NewCertPool()}
	var untrusted x509.UnknownAuthorityError
	if _, err := Run(t.Context(), Load{Target: target, Count: 1}); !errors.As(err, &untrusted) || !strings.Contains(err.Error(), "TLS handshake to "+target.Address) {
		t.Error(err)
	}
	target.TLS = nil
	if _, err := Run(t.Context(), Load{Target: target, Count: 1}); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	plain := &fake{}
	target = plain.start(t, "tcp", "127.0.0.1:0")
	target.TLS = &tls.Config{RootCAs: authority().Pool()}
	if _, err := Run(t.Context(), Load{Target: target, Count: 1}); err == nil || !strings.Contains(err.Error(), "TLS handshake") {
		t.Error(err)
	}
	hangsUp := &fake{secure: true, hangUp: 50}
	if _, err := Run(t.Context(), Load{Target: hangsUp.start(t, "tcp", "127.0.0.1:0"), Count: 1000}); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}
