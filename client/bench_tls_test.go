package client

import (
	"context"
	"sync/atomic"
	"testing"
)

// BenchmarkTLS compares TLS with plain connections. What TLS costs the server of the
// tests is in the figures; it allocates nothing for a request, as the client.
func BenchmarkTLS(b *testing.B) {
	for _, secure := range []bool{false, true} {
		name := "plain"
		if secure {
			name = "tls"
		}
		client := func(b *testing.B) *Client {
			f := newFake(b)
			c := dial(b, func(cfg *Config) {
				if cfg.ForwardOnly = false; secure {
					cfg.TLS = f.secureLocal()
				}
			}, f)
			if _, err := c.Put(context.Background(), key(7), make([]byte, 128)); err != nil {
				b.Fatal(err)
			}
			return c
		}
		b.Run("get/"+name, func(b *testing.B) {
			c, k := client(b), key(7)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Get(context.Background(), k); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("put/"+name, func(b *testing.B) {
			c, k, v := client(b), key(7), make([]byte, 128)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Put(context.Background(), k, v); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("get-64/"+name, func(b *testing.B) {
			c := client(b)
			b.SetParallelism(32)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				k := key(7)
				for pb.Next() {
					if _, err := c.Get(context.Background(), k); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
		for _, depth := range []int{1, 256} {
			b.Run(map[int]string{1: "do-1/", 256: "do-256/"}[depth]+name, func(b *testing.B) {
				c := client(b)
				b.ReportAllocs()
				b.ResetTimer()
				l := &loop{c: c, op: OpGet(key(7)), left: new(atomic.Int64), done: make(chan struct{}), b: b}
				l.left.Store(int64(b.N))
				for range depth {
					l.next()
				}
				<-l.done
			})
		}
	}
}
