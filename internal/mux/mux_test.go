package mux

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"net/http/httptest"
	"runtime"
	"testing"
	"time"
)

func TestPending(t *testing.T) {
	var p Pending[string]
	a, b := p.Add("a"), p.Add("b")
	if p.Len() != 2 || *p.Get(a) != "a" || *p.Get(b) != "b" || a == 0 || a == b {
		t.Fatalf("%d requests, ids %x and %x", p.Len(), a, b)
	}
	p.Remove(a)
	p.Remove(a)
	c := p.Add("c")
	if c == a || uint32(c) != uint32(a) || p.Get(a) != nil || *p.Get(c) != "c" || p.Len() != 2 {
		t.Errorf("the place of %x was taken by %x; the former finds %v", a, c, p.Get(a))
	}
	for _, id := range []uint64{0, 9, a, c + 1<<32, ^uint64(0)} {
		if p.Get(id) != nil {
			t.Errorf("id %x finds %q", id, *p.Get(id))
		}
		p.Remove(id)
	}
	found := map[uint64]string{}
	for id, v := range p.All() {
		found[id] = *v
		p.Remove(id)
	}
	if len(found) != 2 || found[b] != "b" || found[c] != "c" || p.Len() != 0 {
		t.Errorf("all requests: %v, %d left", found, p.Len())
	}
	if n := testing.AllocsPerRun(100, func() { p.Remove(p.Add("d")) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Write takes what fits and does not wait for the rest.
func TestDirect(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	d := NewDirect(c)
	if d == nil {
		t.Skip("not on this system")
	}
	b := make([]byte, 1<<20)
	for total := 0; ; {
		n, err := d.Write(b)
		if total += n; err != nil || total > 1<<30 {
			t.Fatalf("%d bytes, %v", total, err)
		}
		if n == 0 {
			break // nobody reads
		}
	}
	c.Close()
	if _, err := d.Write(b); err == nil {
		t.Error("a write to a closed connection succeeds")
	}
	if a, z := net.Pipe(); NewDirect(a) != nil || z.SetDeadline(time.Time{}) != nil {
		t.Error("a pipe is no socket")
	}
}

// secure returns both ends of a connection of TLS over loopback, the client's over a
// Socket.
func secure(t *testing.T) (here *tls.Conn, there net.Conn) {
	t.Helper()
	web := httptest.NewUnstartedServer(nil) // for its certificate
	web.StartTLS()
	t.Cleanup(web.Close)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		nc, err := ln.Accept()
		if err != nil {
			close(accepted)
			return
		}
		there := tls.Server(nc, &tls.Config{Certificates: web.TLS.Certificates})
		_ = there.Handshake()
		accepted <- there
	}()
	nc, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	here = tls.Client(NewSocket(nc), &tls.Config{InsecureSkipVerify: true, DynamicRecordSizingDisabled: true})
	if err := here.Handshake(); err != nil {
		t.Fatal(err)
	}
	if there = <-accepted; there == nil {
		t.Fatal("no connection")
	}
	t.Cleanup(func() { nc.Close(); there.Close() })
	return here, there
}

// With TLS, Write takes all and does not wait; what the socket has not taken leaves with
// WriteAll, in order.
func TestDirectTLS(t *testing.T) {
	c, there := secure(t)
	d := NewDirect(c)
	if d == nil {
		t.Skip("not on this system")
	}
	var want bytes.Buffer
	next := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(want.Len() + i)
		}
		want.Write(b)
		return b
	}
	write := func(n int) {
		if k, err := d.Write(next(n)); err != nil || k != n {
			t.Fatalf("%d of %d bytes, %v", k, n, err)
		}
	}
	write(1)
	if d.Keeps() {
		t.Fatal("an empty socket does not take a byte")
	}
	for !d.Keeps() { // nobody reads
		write(64 << 10)
	}
	write(100) // behind what is kept
	received := make(chan []byte)
	go func() {
		b, _ := io.ReadAll(there)
		received <- b
	}()
	for range 3 {
		if n, err := WriteAll(c, next(1<<20)); err != nil || n != 1<<20 || d.Keeps() {
			t.Fatalf("%d bytes, %v; kept: %v", n, err, d.Keeps())
		}
		write(10)
	}
	if _, err := WriteAll(c, nil); err != nil || d.Keeps() {
		t.Fatal(err)
	}
	c.Close()
	if b := <-received; !bytes.Equal(b, want.Bytes()) {
		t.Errorf("%d bytes arrive, %d were sent; or they differ", len(b), want.Len())
	}
	if _, err := d.Write([]byte("x")); err == nil {
		t.Error("a write to a closed connection succeeds")
	}
}

// Neither Close, with which TLS takes leave, nor a flush under way waits for a peer that
// does not read.
func TestCloseTLS(t *testing.T) {
	for name, flushing := range map[string]bool{"idle": false, "flushing": true} {
		t.Run(name, func(t *testing.T) {
			c, _ := secure(t)
			d := NewDirect(c)
			if d == nil {
				t.Skip("not on this system")
			}
			for !d.Keeps() {
				if _, err := d.Write(make([]byte, 64<<10)); err != nil {
					t.Fatal(err)
				}
			}
			flushed := make(chan error, 1)
			if flushing {
				go func() {
					_, err := WriteAll(c, nil)
					flushed <- err
				}()
				s := c.NetConn().(*Socket)
				for under := false; !under; runtime.Gosched() {
					s.mu.Lock()
					under = s.flushing
					s.mu.Unlock()
				}
			}
			start := time.Now()
			c.Close()
			if took := time.Since(start); took > 4*time.Second { // TLS would wait 5 s
				t.Errorf("Close took %v", took)
			}
			if flushing && <-flushed == nil {
				t.Error("all was flushed, although nobody reads")
			}
		})
	}
}

// A write allocates nothing.
func TestDirectTLSAllocates(t *testing.T) {
	c, there := secure(t)
	d := NewDirect(c)
	if d == nil {
		t.Skip("not on this system")
	}
	go func() { _, _ = io.Copy(io.Discard, there) }()
	b := make([]byte, 256)
	if n := testing.AllocsPerRun(200, func() {
		if _, err := d.Write(b); err != nil {
			t.Fatal(err)
		}
	}); n >= 1 {
		t.Errorf("%v allocations", n)
	}
}

// Without TLS, WriteAll is a write, and writes nothing where there is nothing.
func TestWriteAll(t *testing.T) {
	a, z := net.Pipe()
	defer a.Close()
	defer z.Close()
	if n, err := WriteAll(a, nil); n != 0 || err != nil { // a write would wait for a reader
		t.Fatal(n, err)
	}
	go func() { _, _ = WriteAll(a, []byte("x")) }()
	if n, err := z.Read(make([]byte, 8)); n != 1 || err != nil {
		t.Error(n, err)
	}
}
