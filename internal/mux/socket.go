package mux

import (
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Socket is the connection below one of TLS, for Direct:
//
//	tc := tls.Client(mux.NewSocket(nc), config)
//	… // handshake
//	direct := mux.NewDirect(tc)
//
// From then on TLS never waits for the socket. What that does not take at once is kept
// until WriteAll. So Direct.Write does not wait, nor does Close, with which TLS takes
// leave of the peer.
type Socket struct {
	net.Conn
	direct *Direct     // of the socket itself; nil: writes wait
	ready  atomic.Bool // the handshake is over

	mu       sync.Mutex
	kept     []byte // sealed, and not taken by the socket
	flushing bool   // what was kept before is being written
	spare    []byte // its memory
}

// NewSocket returns the connection that TLS is to use instead of nc.
func NewSocket(nc net.Conn) *Socket { return &Socket{Conn: nc, direct: NewDirect(nc)} }

// farewellTime bounds how long TLS takes leave where writes wait: it would take 5 s
// itself.
const farewellTime = 100 * time.Millisecond

// SetWriteDeadline implements net.Conn. TLS sets one for its leave alone.
func (s *Socket) SetWriteDeadline(t time.Time) error {
	if soon := time.Now().Add(farewellTime); s.direct == nil && t.After(soon) {
		t = soon
	}
	return s.Conn.SetWriteDeadline(t)
}

// Write implements net.Conn. TLS calls it for one record at a time.
func (s *Socket) Write(b []byte) (int, error) {
	if !s.ready.Load() {
		return s.Conn.Write(b)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	if len(s.kept) == 0 && !s.flushing {
		var err error
		if n, err = s.direct.Write(b); err != nil {
			return n, err
		}
	}
	s.kept = append(s.kept, b[n:]...)
	return len(b), nil
}

// flush writes what is kept, and waits for the socket to take it. It is for one
// goroutine at a time.
func (s *Socket) flush() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.kept) > 0 {
		b := s.kept
		s.kept, s.flushing = s.spare[:0], true
		s.mu.Unlock()
		_, err := s.Conn.Write(b)
		s.mu.Lock()
		s.spare, s.flushing = b, false
		if err != nil {
			return err
		}
	}
	return nil
}

// keeps reports whether there is something to flush.
func (s *Socket) keeps() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.kept) > 0
}

// recordBytes is the most that TLS seals as one.
const recordBytes = 16 << 10

// writeAll writes b through the TLS of s, and waits for the socket to take it.
func (s *Socket) writeAll(tc *tls.Conn, b []byte) (n int, err error) {
	for err = s.flush(); err == nil && n < len(b); {
		var k int
		k, err = tc.Write(b[n:min(len(b), n+recordBytes)])
		if n += k; err == nil {
			err = s.flush()
		}
	}
	return n, err
}

// secured returns the Socket below a connection of TLS, nil where there is none whose
// writes do not wait.
func secured(nc net.Conn) (*tls.Conn, *Socket) {
	tc, ok := nc.(*tls.Conn)
	if !ok {
		return nil, nil
	}
	s, ok := tc.NetConn().(*Socket)
	if !ok || s.direct == nil {
		return nil, nil
	}
	return tc, s
}

// WriteAll writes what Direct.Write has kept, and then b, and waits as long as it takes.
// n may count bytes that have left in part. It is for one goroutine at a time, which does
// not use Direct meanwhile.
func WriteAll(nc net.Conn, b []byte) (n int, err error) {
	if tc, s := secured(nc); s != nil {
		return s.writeAll(tc, b)
	}
	if len(b) == 0 {
		return 0, nil
	}
	return nc.Write(b)
}
