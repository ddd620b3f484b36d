package server

import (
	"crypto/tls"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/proa-kv/proa/protocol"
)

// TestTLSAtClose: a server that closes while clients are connected over TLS does not take
// their connections for some of its epoll's, and closes no descriptor of others.
func TestTLSAtClose(t *testing.T) {
	if _, err := unix.FcntlInt(0, unix.F_GETFD, 0); err != nil {
		t.Skip("descriptor 0 is not open")
	}
	for range 20 {
		s, native, _ := liveTLS(t, Config{}, &TLS{Config: authority.server()})
		nc, err := tls.Dial("tcp", native.String(), authority.client(""))
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		want(t, speak(t, nc).put("k", "v"), protocol.StatusOK)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := unix.FcntlInt(0, unix.F_GETFD, 0); err != nil {
			t.Fatalf("descriptor 0: %v", err)
		}
	}
}
