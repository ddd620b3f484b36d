package redis

import (
	"bufio"
	"errors"
	"flag"
	"io"
	"net"
	"syscall"
	"testing"
	"time"
)

// replyTimeout bounds the wait for one reply.
var replyTimeout = flag.Duration("reply-timeout", 10*time.Second, "longest wait for one reply")

// connection is one connection to a server of the Redis protocol.
type connection struct {
	*net.TCPConn
	in *bufio.Reader
}

func dial(address string) (*connection, error) {
	nc, err := net.DialTimeout("tcp", address, *replyTimeout)
	if err != nil {
		return nil, err
	}
	return &connection{nc.(*net.TCPConn), bufio.NewReader(nc)}, nil
}

func connectTo(t testing.TB, address string) *connection {
	t.Helper()
	c, err := dial(address)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *connection) close() { _ = c.TCPConn.Close() }

func (c *connection) send(b []byte) error {
	if err := c.SetDeadline(time.Now().Add(*replyTimeout)); err != nil {
		return err
	}
	_, err := c.Write(b)
	return err
}

func (c *connection) read() (reply, error) {
	if err := c.SetDeadline(time.Now().Add(*replyTimeout)); err != nil {
		return reply{}, err
	}
	return readReply(c.in)
}

// rest returns all bytes until the server closes the connection, in whichever
// way it does.
func (c *connection) rest() ([]byte, error) {
	if err := c.SetDeadline(time.Now().Add(*replyTimeout)); err != nil {
		return nil, err
	}
	b, err := io.ReadAll(c.in)
	if errors.Is(err, syscall.ECONNRESET) {
		err = nil
	}
	return b, err
}

// ask returns the bytes of the reply to one command.
func (c *connection) ask(t testing.TB, words ...string) string {
	t.Helper()
	if err := c.send(appendCommand(nil, words...)); err != nil {
		t.Fatal(err)
	}
	p, err := c.read()
	if err != nil {
		t.Fatalf("%q: %v", words, err)
	}
	return string(p.raw)
}
