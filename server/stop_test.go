package server

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/protocol"
	"github.com/proa-kv/proa/raftgroup"
)

// endless is a backend that always has something to commit.
type endless struct {
	single
	endless atomic.Bool
	passes  atomic.Int64
}

func (e *endless) Pending() bool { return e.endless.Load() || e.single.Pending() }
func (e *endless) Acquire() bool { return e.endless.Load() || e.single.Acquire() }

// endlessWrite is the write of an endless backend, which nobody has acquired.
type endlessWrite struct{}

func (endlessWrite) Sync() { <-time.After(time.Millisecond) } // as long as the disk takes

func (e *endless) Prepare() command.Write {
	if !e.endless.Load() {
		return e.single.Prepare()
	}
	e.passes.Add(1)
	return endlessWrite{}
}

func (e *endless) Deliver(w command.Write) bool {
	if _, ok := w.(endlessWrite); ok {
		return false
	}
	return e.single.Deliver(w)
}

// TestCloseUnderEndlessWork: a server closes although there is always something
// to commit, and although reads are queued that would take for ever.
func TestCloseUnderEndlessWork(t *testing.T) {
	n, err := raftgroup.Open(raftgroup.Options{Dir: t.TempDir(), RowCacheBytes: 8 << 20})
	if err != nil {
		t.Fatal(err)
	}
	backend := &endless{single: single{n}}
	s, err := New(Config{}, backend)
	if err != nil {
		t.Fatal(err)
	}
	n.Start(s.Drive)
	addr, err := s.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	d := dial(t, addr)
	if f := d.put("k", "v"); protocol.Status(f.Code) != protocol.StatusOK {
		t.Fatal(protocol.Status(f.Code))
	}
	backend.endless.Store(true)
	m := protocol.Put{Key: []byte("k"), Value: []byte("v")}
	d.send(protocol.OpPut, m.AppendTo(nil)) // has threads commit from now on
	eventually(t, "a thread commits", func() bool { return backend.passes.Load() > 0 })
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(30 * time.Second): // a guard
		t.Fatal("Close does not end")
	}
	<-served
	backend.endless.Store(false)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := n.Close(ctx); err != nil {
		t.Error(err)
	}
}

// TestJobsOfClientsThatAreGone: nobody reads a row for a client that has left.
func TestJobsOfClientsThatAreGone(t *testing.T) {
	s, _ := live(t, Config{})
	p := newProcessor(s)
	defer s.counters.unregister(&p.counts)
	c := s.newConn(deaf{}, nil)
	m := protocol.Scan{CountMax: 10, BytesMax: 1 << 20}
	f := protocol.Frame{Header: protocol.Header{Code: uint8(protocol.OpScan), ID: 1}, Body: m.AppendTo(nil)}
	p.run(p.newJob(c, &f))
	if c.out == nil || c.inFlight.Load() != 0 {
		t.Fatal("a scan was not answered")
	}
	c.mu.Lock()
	c.dropOutput()
	c.mu.Unlock()
	p.touched.conns = nil
	c.gone.Store(true)
	p.run(p.newJob(c, &f))
	if c.out != nil || c.inFlight.Load() != 0 || c.inFlightBytes.Load() != 0 {
		t.Errorf("after the client has left: an answer %v, %d requests in flight", c.out != nil, c.inFlight.Load())
	}
}
