package admin

import (
	"io"
	"net"

	"github.com/proa-kv/proa/internal/wrongport"
)

// caller is an accepted connection. Before net/http sees its first bytes they are
// looked at: who does not speak HTTP is answered in a protocol of its own.
type caller struct {
	net.Conn
	s     *Server
	known bool   // speaks HTTP, or what net/http can answer
	first []byte // read, and not handed on yet
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
	return c.Conn.Read(b)
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
	case n == 0 && err != nil && len(c.first) == 0:
		return err
	case n == 0 && err != nil:
		c.known = true // the error comes again, behind what there is
		return nil
	case more:
		return nil
	case speaks == wrongport.HTTP, speaks == wrongport.Unknown, speaks == wrongport.RESP && c.first[0] != '*':
		c.known = true // a method that is not known here is text, too
		return nil
	}
	answer, why := c.s.ports.Answer(wrongport.Admin, speaks, c.first)
	c.s.wrongPort.Warn(c.s.log, "closed a connection that speaks another protocol than the port", "port", wrongport.Admin.String(), "speaks", speaks.String(), "remote", c.RemoteAddr().String(), "answer", why)
	wrongport.Dismiss(c.Conn, answer)
	return io.EOF
}

// CloseWrite has net/http half-close the connection before it lets go of it, as it
// does with a net.TCPConn.
func (c *caller) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}
