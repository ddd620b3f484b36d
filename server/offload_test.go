package server

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/proa-kv/proa/bufpool"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/internal/resptest"
	"github.com/proa-kv/proa/protocol"
)

// stepCounter counts what is asked of a backend: each key of a request costs one
// step at least.
type stepCounter struct {
	Backend
	steps atomic.Int64
}

func (n *stepCounter) ShardOf(slot uint16) int {
	n.steps.Add(1)
	return n.Backend.ShardOf(slot)
}

func (n *stepCounter) ReadCached(dst *bufpool.Buffer, shard int, key []byte, now uint64, valueMax int) (command.Row, command.ReadState) {
	n.steps.Add(1)
	return n.Backend.ReadCached(dst, shard, key, now, valueMax)
}

// manyKeys is a request of so many keys.
func manyKeys(name string, n int, value ...string) []byte {
	words := []string{name}
	for i := range n {
		words = append(append(words, fmt.Sprintf("{t}%05d", i)), value...)
	}
	return resptest.AppendRequest(nil, words...)
}

// TestTurnsOfWideRequests: whatever a request asks for, a turn of a thread that
// polls takes a bounded number of steps; what needs more is done aside, and
// answered as if it were not.
func TestTurnsOfWideRequests(t *testing.T) {
	var backend *stepCounter
	s, _ := live(t, Config{}, func(s *Server) {
		backend = &stepCounter{Backend: s.backend}
		s.backend = backend
		s.shardOf = func(key []byte) int { return backend.ShardOf(protocol.Slot(key)) }
	})
	const n = protocol.OpsMax
	multi := resptest.AppendRequest(nil, "MULTI")
	for i := range n {
		multi = resptest.AppendRequest(multi, "INCR", fmt.Sprintf("{t}x%05d", i))
	}
	ops := make(protocol.Ops, n)
	keys := make([][]byte, n)
	for i := range ops {
		keys[i] = fmt.Appendf(nil, "{t}%05d", i)
		ops[i] = protocol.Op{Code: protocol.OpExists, Body: keys[i]}
	}
	batch, txn, mget := protocol.Batch{Ops: ops}, protocol.Txn{Then: ops}, protocol.MGet{Keys: keys}
	for _, tt := range []struct {
		name  string
		input []byte
		aside int    // turns that are taken aside
		reply string // the last one begins so; "": it is native
	}{
		{"MSET", manyKeys("MSET", n, "v"), 1, "+OK"},
		{"MSETNX", manyKeys("MSETNX", n/2, "v"), 1, ":0"},
		{"MGET", manyKeys("MGET", n), 1, "*10000\r\n$1\r\nv"},
		{"EXISTS", manyKeys("EXISTS", n), 1, ":10000"},
		{"TOUCH", manyKeys("TOUCH", n), 1, ":10000"},
		{"EXISTS of some", manyKeys("EXISTS", 1000), 0, ":1000"},
		{"WATCH", manyKeys("WATCH", n), 1, "+OK"},
		{"UNWATCH", manyKeys("UNWATCH", 0), 0, "+OK"},
		{"EXEC", append(bytes.Clone(multi), manyKeys("EXEC", 0)...), 1, "*10000\r\n:1"},
		{"a large value", resptest.AppendRequest(nil, "SET", "k", strings.Repeat("v", 2<<20)), 1, "+OK"},
		{"DEL", manyKeys("DEL", n), 1, ":10000"},
		{"UNLINK", manyKeys("UNLINK", n), 1, ":0"},
		{"BATCH", frame(protocol.OpBatch, 1, batch.AppendTo(nil)), 1, ""},
		{"TXN", frame(protocol.OpTxn, 2, txn.AppendTo(nil)), 1, ""},
		{"MGET, native", frame(protocol.OpMGet, 3, mget.AppendTo(nil)), 0, ""},
		{"PUT of a large value", frame(protocol.OpPut, 4, putBody("k", strings.Repeat("v", 2<<20))), 1, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newProcessor(s)
			defer s.counters.unregister(&p.counts)
			var speaks Protocol
			if tt.reply != "" {
				speaks = NewRedis(s, false)
			}
			c := s.newConn(deaf{}, speaks)
			if speaks == nil {
				c.Greet()
			}
			c.in = bufpool.Get(len(tt.input))
			c.in.Append(tt.input)
			defer c.dropInput()
			defer c.translator.Leave()
			var reply []byte
			aside := 0
			take := func() { // what has been answered
				c.mu.Lock()
				native := c.out
				c.out, c.marked = nil, false
				c.mu.Unlock()
				if native == nil {
					return
				}
				if !c.translated {
					reply = append(reply, native.B...)
				} else if out := c.translator.Render(native); out != nil {
					reply = append(reply[:0], out.B...)
					out.Release()
				}
				native.Release()
				c.unpause()
			}
			for c.in != nil {
				p.now, p.credit = s.backend.NowMillis(), turnCredit
				before := backend.steps.Load()
				p.consumeBuffered(c)
				// Each of what fits in two turns may take a few steps.
				if steps := backend.steps.Load() - before; steps > 8*turnCredit {
					t.Errorf("a turn took %d steps", steps)
				}
				for i := range p.jobs {
					if p.jobs[i].kind == jobTurn {
						aside++
					}
				}
				p.runJobs()
				p.kickIfProposed()
				p.touched.conns = p.touched.conns[:0]
				eventually(t, "the reader can go on", func() bool { take(); return !c.paused.Load() })
			}
			eventually(t, "everything is answered", func() bool { take(); return !c.outstanding() })
			if aside != tt.aside {
				t.Errorf("%d turns were taken aside, want %d", aside, tt.aside)
			}
			if tt.reply == "" {
				f, _, _, err := protocol.Next(reply, protocol.FrameBytesMax)
				if err != nil || protocol.Status(f.Code) != protocol.StatusOK {
					t.Errorf("answered %v, %v", protocol.Status(f.Code), err)
				}
			} else if !bytes.HasPrefix(reply, []byte(tt.reply)) {
				t.Errorf("answered %.60q", reply)
			}
		})
	}
	if n := s.admission.inputBytes.Load(); n != 0 {
		t.Errorf("%d bytes are held by nobody", n)
	}
}

// TestWideRequestsKeepTheirOrder over sockets, between others, and with clients
// that leave in the middle.
func TestWideRequestsKeepTheirOrder(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		s, _ := live(t, cfg)
		const n = 3000
		var wg sync.WaitGroup
		for range 4 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				for range 3 {
					nc, err := connect(redisAddr(s))
					if err != nil {
						t.Error(err)
						return
					}
					b := manyKeys("MSET", n, "gone")
					b = append(b, manyKeys("EXISTS", n)...)
					_, _ = nc.Write(append(b, b...))
					nc.Close()
				}
			}()
		}
		c := dialRedis(t, redisAddr(s))
		var b []byte
		for i := range 5 {
			value := fmt.Sprint("{t}", i)
			for _, r := range [][]byte{
				resptest.AppendRequest(nil, "SET", "{own}k", value),
				manyKeys("MSET", n, value),
				resptest.AppendRequest(nil, "GET", "{own}k"),
				manyKeys("EXISTS", n),
				resptest.AppendRequest(nil, "ECHO", value),
			} {
				b = append(b, r...)
			}
		}
		wrote := make(chan error, 1)
		go func() { _, err := c.Write(b); wrote <- err }()
		for i := range 5 {
			bulk := fmt.Sprintf("$4\r\n{t}%d\r\n", i)
			for _, want := range []string{"+OK\r\n", "+OK\r\n", bulk, fmt.Sprintf(":%d\r\n", n), bulk} {
				if got := c.next(); got != want {
					t.Errorf("round %d: %.60q, want %q", i, got, want)
				}
			}
		}
		if err := <-wrote; err != nil {
			t.Error(err)
		}
		wg.Wait()
		c.Close()
		eventually(t, "nothing is left of the clients", func() bool { return s.conns.len() == 0 && s.admission.inputBytes.Load() == 0 })
	})
}
