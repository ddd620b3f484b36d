package client

import (
	"errors"
	"io"
	"net"
	"testing"

	"github.com/proa-kv/proa/protocol"
)

// piped returns a client whose only connection is a pipe: nothing is buffered
// between the two ends, so a test knows to the byte what has been sent.
func piped(t *testing.T) (*Client, *conn, net.Conn) {
	t.Helper()
	c, err := newClient(Config{Endpoints: []string{"pipe"}, RequestTimeout: -1})
	if err != nil {
		t.Fatal(err)
	}
	here, there := net.Pipe()
	t.Cleanup(func() { there.Close(); c.Close() })
	cn := c.newConn(c.pool.endpoints[0], here, ServerInfo{FrameBytesMax: protocol.FrameBytesMax})
	if err := c.pool.add(cn); err != nil {
		t.Fatal(err)
	}
	return c, cn, there
}

func writeReply(id, version uint64) []byte {
	m := protocol.WriteReply{Version: version}
	return protocol.End(m.AppendTo(protocol.Begin(nil, 0, protocol.FlagReply, id)), 0)
}

// When a connection breaks, a write is unknown if its last byte was taken, and
// definitely not done if it was not.
func TestPartlySentFrames(t *testing.T) {
	for name, size := range map[string]int{"small": 10, "large": frameKeptBytes + 100} {
		t.Run(name, func(t *testing.T) {
			c, cn, there := piped(t)
			whole := c.PutAsync([]byte("whole"), make([]byte, size))
			if _, err := readRequest(there); err != nil {
				t.Fatal(err)
			}
			partly := c.PutAsync([]byte("partly"), make([]byte, size))
			if _, err := io.ReadFull(there, make([]byte, size)); err != nil {
				t.Fatal(err)
			}
			queued := c.PutAsync([]byte("queued"), make([]byte, size))
			there.Close()
			<-cn.gone
			c.Close()
			if _, err := whole.Wait(t.Context()); !errors.Is(err, ErrOutcomeUnknown) {
				t.Errorf("wholly sent: %v", err)
			}
			for _, f := range []*Future[WriteResult]{partly, queued} {
				if _, err := f.Wait(t.Context()); !SafeToRetry(err) || !errors.Is(err, ErrClosed) {
					t.Errorf("not wholly sent: %v", err)
				}
			}
		})
	}
}

// A reply to a request that has not left yet cannot be its answer.
func TestReplyBeforeRequest(t *testing.T) {
	c, cn, there := piped(t)
	c.PutAsync([]byte("first"), nil)
	// The writer now offers the first one, byte by byte.
	if _, err := io.ReadFull(there, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	second := c.PutAsync([]byte("second"), nil)
	if _, err := there.Write(writeReply(2, 99)); err != nil {
		t.Fatal(err)
	}
	<-cn.gone
	if !errors.Is(cn.reason(), ErrProtocol) {
		t.Error(cn.reason())
	}
	c.Close()
	if _, err := second.Wait(t.Context()); !SafeToRetry(err) {
		t.Error(err)
	}
}

// A second reply to the same request must not answer the next one, which
// stands in the same place of the table.
func TestRepeatedReply(t *testing.T) {
	c, cn, there := piped(t)
	first := c.PutAsync([]byte("first"), nil)
	r1, err := readRequest(there)
	if err != nil {
		t.Fatal(err)
	}
	there.Write(writeReply(r1.ID, 1))
	if w, err := first.Wait(t.Context()); err != nil || w.Version != 1 {
		t.Fatal(w, err)
	}
	second := c.PutAsync([]byte("second"), nil)
	r2, err := readRequest(there)
	if err != nil {
		t.Fatal(err)
	}
	if uint32(r1.ID) != uint32(r2.ID) {
		t.Fatalf("requests %x and %x stand in different places", r1.ID, r2.ID)
	}
	there.Write(writeReply(r1.ID, 1))
	<-cn.gone
	if _, err := second.Wait(t.Context()); !errors.Is(err, ErrOutcomeUnknown) || !errors.Is(err, ErrProtocol) {
		t.Error(err)
	}
}

// A queue that is never empty does not grow: what has been sent leaves it.
func TestQueueIsCompacted(t *testing.T) {
	c, cn, _ := piped(t)
	cn.mu.Lock()
	cn.writing = true // nobody else sends
	cn.mu.Unlock()
	o := OpPut([]byte("k"), make([]byte, 10<<10))
	enqueue := func(n int) {
		for range n {
			ca, err := c.caller.encode(t.Context(), &o)
			if err != nil {
				t.Fatal(err)
			}
			ca.seal()
			ca.sink = ignore{}
			if r := cn.enqueue(ca); r != enqueuedOK {
				t.Fatalf("enqueue: %d", r)
			}
		}
	}
	enqueue(10)
	for range 200 {
		enqueue(6)
		cn.mu.Lock()
		cn.gather()
		for _, s := range cn.sent {
			cn.vacate(s.id)
		}
		if n := len(cn.queue) - cn.head; len(cn.sent) != 6 || n != 10 || len(cn.queue) > 64 {
			t.Fatalf("%d sent, %d queued, the queue is %d long", len(cn.sent), n, len(cn.queue))
		}
		cn.mu.Unlock()
	}
	cn.mu.Lock()
	cn.stopWriting()
	cn.mu.Unlock()
}

// A call cancelled in the queue is dropped there, and its place is free again.
func TestCancelledInQueue(t *testing.T) {
	c, cn, there := piped(t)
	first := c.PutAsync([]byte("first"), nil)
	if _, err := io.ReadFull(there, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	o := OpPut([]byte("cancelled"), nil)
	ca, err := c.caller.encode(t.Context(), &o)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.dispatcher.submit(ca); err != nil {
		t.Fatal(err)
	}
	if err := c.caller.cancel(ca, errors.New("cause")); !SafeToRetry(err) {
		t.Fatal(err)
	}
	third := c.PutAsync([]byte("third"), nil)
	rest := make([]byte, protocol.HeaderBytes+3+len("first")-5)
	if _, err := io.ReadFull(there, rest); err != nil {
		t.Fatal(err)
	}
	f, err := readRequest(there)
	if err != nil || string(f.Body[3:]) != "third" {
		t.Fatalf("%q, %v", f.Body, err)
	}
	there.Write(append(writeReply(1, 1), writeReply(f.ID, 2)...))
	for _, p := range []*Future[WriteResult]{first, third} {
		if _, err := p.Wait(t.Context()); err != nil {
			t.Error(err)
		}
	}
	cn.mu.Lock()
	defer cn.mu.Unlock()
	if cn.pending.Len() != 0 || cn.inFlight.Load() != 0 {
		t.Errorf("%d requests pending, %d in flight", cn.pending.Len(), cn.inFlight.Load())
	}
}
