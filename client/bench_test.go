package client

import (
	"context"
	"io"
	"net"
	"sync/atomic"
	"testing"

	"github.com/proa-kv/proa/protocol"
)

// The benchmarks run against the map-backed server of the tests in the same
// process, so time and allocations include its share: about none for a GET,
// a copy of the value for a PUT.

func benchClient(b *testing.B, connections int) *Client {
	c := dial(b, func(cfg *Config) { cfg.Connections, cfg.ForwardOnly = connections, false }, newFake(b))
	for i := range 1024 {
		if _, err := c.Put(context.Background(), key(i), make([]byte, 128)); err != nil {
			b.Fatal(err)
		}
	}
	return c
}

// BenchmarkLoopback is the floor: one request and one reply of the size of a
// GET over a socket, without a client.
func BenchmarkLoopback(b *testing.B) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer ln.Close()
	request, reply := make([]byte, 33), make([]byte, protocol.HeaderBytes+protocol.RowReplyBytes+128)
	done := make(chan struct{})
	go func() {
		defer close(done)
		nc, err := ln.Accept()
		if err != nil {
			return
		}
		defer nc.Close()
		in := make([]byte, len(request))
		for {
			if _, err := io.ReadFull(nc, in); err != nil {
				return
			}
			nc.Write(reply)
		}
	}()
	nc, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		nc.Write(request)
		if _, err := io.ReadFull(nc, reply); err != nil {
			b.Fatal(err)
		}
	}
	nc.Close()
	<-done
}

func BenchmarkGet(b *testing.B) {
	c := benchClient(b, 1)
	ctx, k := context.Background(), key(7)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Get(ctx, k); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGetCancellable(b *testing.B) {
	c := benchClient(b, 1)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	k := key(7)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Get(ctx, k); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPut(b *testing.B) {
	c := benchClient(b, 1)
	ctx, k, v := context.Background(), key(7), make([]byte, 128)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Put(ctx, k, v); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGetParallel(b *testing.B) {
	for _, test := range []struct {
		name                    string
		goroutines, connections int
	}{{"4x1", 4, 1}, {"64x1", 64, 1}, {"64x2", 64, 2}, {"1024x2", 1024, 2}} {
		b.Run(test.name, func(b *testing.B) {
			c := benchClient(b, test.connections)
			b.SetParallelism(test.goroutines / 2)
			b.ReportAllocs()
			var n atomic.Int64
			b.RunParallel(func(pb *testing.PB) {
				k := key(int(n.Add(1)) % 1024)
				for pb.Next() {
					if _, err := c.Get(context.Background(), k); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// loop sends one request for each reply, as a load generator does.
type loop struct {
	c    *Client
	op   Operation
	left *atomic.Int64 // to be sent
	done chan struct{}
	b    *testing.B

	finished int
}

func (l *loop) Complete(r *Result) {
	if r.Err != nil {
		l.b.Error(r.Err)
	}
	if l.finished++; l.finished == l.b.N { // one connection: one goroutine calls this
		close(l.done)
	}
	l.next()
}

func (l *loop) next() {
	if l.left.Add(-1) < 0 {
		return
	}
	if err := l.c.Do(l.op, l); err != nil {
		l.b.Error(err)
	}
}

func BenchmarkDo(b *testing.B) {
	for _, test := range []struct {
		name  string
		depth int
		op    Operation
	}{
		{"get/1", 1, OpGet(key(7))},
		{"get/16", 16, OpGet(key(7))},
		{"get/256", 256, OpGet(key(7))},
		{"ping/256", 256, OpPing()},
		{"put/256", 256, OpPut(key(7), make([]byte, 128))},
	} {
		b.Run(test.name, func(b *testing.B) {
			c := benchClient(b, 1)
			b.ReportAllocs()
			b.ResetTimer()
			l := &loop{c: c, op: test.op, left: new(atomic.Int64), done: make(chan struct{}), b: b}
			l.left.Store(int64(b.N))
			for range test.depth {
				l.next()
			}
			<-l.done
		})
	}
}

// BenchmarkPutAsync issues many writes from one goroutine and then waits for
// all of them, as an import does.
func BenchmarkPutAsync(b *testing.B) {
	c := benchClient(b, 1)
	ctx, k, v := context.Background(), key(7), make([]byte, 128)
	window := make([]*Future[WriteResult], 256)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		w := &window[i%len(window)]
		if *w != nil {
			if _, err := (*w).Wait(ctx); err != nil {
				b.Fatal(err)
			}
		}
		*w = c.PutAsync(k, v)
	}
}
