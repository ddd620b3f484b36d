package server

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"sync/atomic"
	"time"
)

// TLS has the connections of a listener encrypted.
type TLS struct {
	// Config is the server's side of TLS. Its GetConfigForClient may return another
	// one for each connection, as after a reload of the certificates. Clients that
	// present a certificate need tls.VerifyClientCertIfGiven or more: what was not
	// verified is no identity.
	Config *tls.Config
	// Optional has connections without TLS served too.
	Optional bool
}

// ListenOption is an option of Listen and ListenFor.
type ListenOption func(*listener)

// WithTLS has a listener speak TLS; nil has no effect, and neither has it on unix
// sockets.
func WithTLS(t *TLS) ListenOption { return func(ln *listener) { ln.tls = t } }

// connSecurity is what a connection knows of its encryption.
type connSecurity struct {
	tls *tls.Conn // nil: plain
}

// Encrypted reports whether the connection speaks TLS.
func (s *connSecurity) Encrypted() bool { return s.tls != nil }

// PeerCertificate returns the certificate of the peer, which the listener's
// configuration has verified, or nil if it has presented none.
func (s *connSecurity) PeerCertificate() *x509.Certificate {
	if s.tls == nil {
		return nil
	}
	if chains := s.tls.ConnectionState().VerifiedChains; len(chains) > 0 {
		return chains[0][0]
	}
	return nil
}

// wire is a connection on its way to TLS: what has been read of it to find out that
// it speaks TLS comes first, and its reads count as steps of the handshake until
// that is over.
type wire struct {
	net.Conn
	first     []byte      // has been read
	handshake *handshake  // nil: over
	hung      atomic.Bool // nobody waits for the peer any more
}

// farewellTime is how long the last word of TLS may take on a connection that is
// hung up.
const farewellTime = 100 * time.Millisecond

// SetWriteDeadline implements net.Conn. A tls.Conn would wait for 5 s to take leave.
func (w *wire) SetWriteDeadline(t time.Time) error {
	if soon := time.Now().Add(farewellTime); w.hung.Load() && t.After(soon) {
		t = soon
	}
	return w.Conn.SetWriteDeadline(t)
}

// hangUp ends all reads and writes.
func (w *wire) hangUp() {
	w.hung.Store(true)
	_ = w.Conn.SetDeadline(time.Unix(1, 0))
}

// handOn ends the part of the handshake.
func (w *wire) handOn() {
	w.handshake = nil
	_ = w.Conn.SetDeadline(time.Time{})
}

// Read implements net.Conn.
func (w *wire) Read(b []byte) (int, error) {
	if len(w.first) > 0 {
		n := copy(b, w.first)
		w.first = w.first[n:]
		return n, nil
	}
	if w.handshake != nil {
		return w.handshake.read(b)
	}
	return w.Conn.Read(b)
}

// Write implements net.Conn.
func (w *wire) Write(b []byte) (int, error) {
	if w.handshake != nil {
		w.handshake.await() // the CPU is for others while the peer takes this
	}
	return w.Conn.Write(b)
}

// CloseWrite half-closes the connection.
func (w *wire) CloseWrite() error {
	if half, ok := w.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}
