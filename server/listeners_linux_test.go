package server

import (
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/proa-kv/proa/protocol"
)

// TestAcceptWithoutDescriptors: where accept fails for want of descriptors, the
// listener is left alone for a while; it is not asked over and over. Clients
// that wait are served once there are some again.
func TestAcceptWithoutDescriptors(t *testing.T) {
	var log lines
	var asked, failing atomic.Int32
	failing.Store(5)
	_, addr := live(t, Config{Transport: "epoll", Logger: log.logger()}, func(s *Server) {
		s.transport.(*epollTransport).accept4 = func(fd int) (int, error) {
			asked.Add(1)
			if failing.Add(-1) >= 0 {
				return -1, unix.EMFILE
			}
			return accept4(fd)
		}
	})
	if f := dial(t, addr).put("k", "v"); protocol.Status(f.Code) != protocol.StatusOK {
		t.Errorf("after descriptors came back: %v", protocol.Status(f.Code))
	}
	if n := asked.Load(); n > 20 {
		t.Errorf("accept was called %d times for five failures and one connection", n)
	}
	if n := log.count("cannot accept"); n != 1 {
		t.Errorf("%d lines about five failures, want 1", n)
	}
}

// TestWritesAreBounded: of a large output, one turn writes a part. The rest follows
// by itself.
func TestWritesAreBounded(t *testing.T) {
	s, addr := live(t, Config{Transport: "epoll"})
	d := dial(t, addr)
	want(t, d.put("k", "v"), protocol.StatusOK)
	eventually(t, "no thread is at the connection", func() bool {
		writing := false
		s.conns.each(func(c *conn) {
			c.mu.Lock()
			writing = writing || c.writing
			c.mu.Unlock()
		})
		if writing {
			return false
		}
		for _, l := range s.transport.(*epollTransport).loops {
			if l.polled.Load() && !l.asleep.Load() {
				return false
			}
		}
		return true
	})
	const n, size = 128, 64 << 10
	pong := frame(protocol.OpPing, 7, make([]byte, size))
	s.conns.each(func(c *conn) {
		const budget = 100_000
		c.mu.Lock()
		for range n {
			c.output().Append(pong)
		}
		c.mu.Unlock()
		more := c.socket.(*epollTransport).write(c, budget)
		c.mu.Lock()
		sent := c.sent
		c.mu.Unlock()
		if !more || sent > budget || sent == 0 {
			t.Errorf("a turn of %d bytes wrote %d; there is more: %v", budget, sent, more)
		}
		c.socket.kick(c)
	})
	for range n {
		if f := d.receive(); f.ID != 7 || len(f.Body) != size {
			t.Fatalf("frame %d of %d bytes", f.ID, len(f.Body))
		}
	}
}
