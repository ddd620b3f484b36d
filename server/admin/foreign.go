package admin

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/proa-kv/proa/internal/wrongport"
)

// caller is an accepted connection. Before net/http sees its first bytes they are
// looked at: who speaks TLS is shaken hands with, if the server does, and who does not
// speak HTTP is answered in a protocol of its own. net/http does not learn of TLS.
type caller struct {
	net.Conn
	s     *Server
	known bool   // speaks HTTP, or what net/http can answer, or TLS
	first []byte // read, and not handed on yet

	mu       sync.Mutex
	tls      *tls.Conn // nil: plain
	deadline struct{ read, write time.Time }
}

// Read implements net.Conn. Only net/http reads, and one goroutine at a time.
func (c *caller) Read(b []byte) (int, error) {
	for !c.known {
		if err := c.look(); err != nil {
			return 0, err
		}
	}
	if len(c.first) > 0 {
		n := copy(b, c.first)
		c.first = c.first[n:]
		return n, nil
	}
	c.first = nil
	return c.carrier().Read(b)
}

// Write implements net.Conn.
func (c *caller) Write(b []byte) (int, error) { return c.carrier().Write(b) }

// carrier is what carries HTTP.
func (c *caller) carrier() net.Conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tls != nil {
		return c.tls
	}
	return c.Conn
}

// look reads some of the first bytes. Its error is the end for net/http.
func (c *caller) look() error {
	if c.first == nil {
		c.first = make([]byte, 0, wrongport.RecognizeBytes)
	}
	n, err := c.Conn.Read(c.first[len(c.first):cap(c.first)])
	c.first = c.first[:len(c.first)+n]
	speaks, more := wrongport.Recognize(c.first)
	switch {
	case n == 0 && err != nil && (len(c.first) == 0 || !c.s.plain):
		return err
	case n == 0 && err != nil:
		c.known = true // the error comes again, behind what there is
		return nil
	case more:
		return nil
	case speaks == wrongport.TLS && c.s.secure != nil:
		return c.encrypt()
	case !c.s.plain:
	case speaks == wrongport.HTTP, speaks == wrongport.Unknown, speaks == wrongport.RESP && c.first[0] != '*':
		c.known = true // a method that is not known here is text, too
		return nil
	}
	tell := c.s.ports.Answer
	if !c.s.plain {
		tell = c.s.ports.AnswerPlain
	}
	answer, why := tell(wrongport.Admin, speaks, c.first)
	c.s.wrongPort.Warn(c.s.log, "closed a connection that speaks another protocol than the port", "port", wrongport.Admin.String(), "speaks", speaks.String(), "remote", c.RemoteAddr().String(), "answer", why)
	wrongport.Dismiss(c.Conn, answer)
	return io.EOF
}

// encrypt begins TLS.
func (c *caller) encrypt() error {
	tc, err := c.s.secure(c.Conn, c.first)
	if err != nil {
		return io.EOF // which has been logged
	}
	c.known, c.first = true, nil
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tls = tc
	_ = c.Conn.SetReadDeadline(c.deadline.read)
	return c.Conn.SetWriteDeadline(c.deadline.write)
}

// SetReadDeadline implements net.Conn.
func (c *caller) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline.read = t
	return c.Conn.SetReadDeadline(t)
}

// SetWriteDeadline implements net.Conn.
func (c *caller) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline.write = t
	return c.Conn.SetWriteDeadline(t)
}

// SetDeadline implements net.Conn.
func (c *caller) SetDeadline(t time.Time) error {
	_ = c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

// farewellTime is how long the last word of TLS may take, to a client that does not
// read.
const farewellTime = 100 * time.Millisecond

// Close implements net.Conn. It ends a handshake at once.
func (c *caller) Close() error {
	tc, ok := c.carrier().(*tls.Conn)
	if !ok {
		return c.Conn.Close()
	}
	late := time.AfterFunc(farewellTime, func() { c.Conn.Close() })
	defer late.Stop()
	return tc.Close()
}

// CloseWrite has net/http half-close the connection before it lets go of it, as it
// does with a net.TCPConn.
func (c *caller) CloseWrite() error {
	if tc, ok := c.carrier().(*tls.Conn); ok {
		_ = tc.CloseWrite()
	}
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// callerKey is that of a request's caller in its context.
type callerKey struct{}

// withCaller is the server's ConnContext.
func withCaller(ctx context.Context, nc net.Conn) context.Context {
	return context.WithValue(ctx, callerKey{}, nc)
}

// PeerCertificate returns the certificate that the client of a request has presented
// and the server has verified, or nil.
func PeerCertificate(r *http.Request) *x509.Certificate {
	c, ok := r.Context().Value(callerKey{}).(*caller)
	if !ok {
		return nil
	}
	if tc, ok := c.carrier().(*tls.Conn); ok {
		if chains := tc.ConnectionState().VerifiedChains; len(chains) > 0 {
			return chains[0][0]
		}
	}
	return nil
}
