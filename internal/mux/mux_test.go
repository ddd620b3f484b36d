package mux

import (
	"net"
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
