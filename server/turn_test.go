package server

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/proa-kv/proa/bufpool"
	"github.com/proa-kv/proa/internal/resptest"
	"github.com/proa-kv/proa/protocol"
	"github.com/proa-kv/proa/server/resp"
)

// deaf is a socket that carries nothing.
type deaf struct{}

func (deaf) kick(*conn)          {}
func (deaf) resume(*conn)        {}
func (deaf) interrupt(*conn)     {}
func (deaf) shut(*conn)          {}
func (deaf) local(*conn) bool    { return false }
func (deaf) remote(*conn) string { return "nobody" }

// dialListener connects to the Redis listener.
func dialListener(t testing.TB, s *Server) (net.Conn, *bufio.Reader) {
	t.Helper()
	nc, err := connect(redisAddr(s))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(time.Minute)) // a guard
	return nc, bufio.NewReader(nc)
}

// TestTurnIsBounded: of a long pipeline, one turn carries out a bounded part, and
// the next goes on behind it without a byte being moved or read twice.
func TestTurnIsBounded(t *testing.T) {
	s, _ := live(t, Config{})
	for name, tt := range map[string]struct {
		request []byte
		redis   bool
		most    int // requests in a turn
	}{
		"native":        {frame(protocol.OpPing, 1, nil), false, turnCredit},
		"RESP":          {[]byte("*1\r\n$4\r\nPING\r\n"), true, turnCredit},
		"inline":        {[]byte("PING\r\n"), true, turnCredit},
		"of many words": {append([]byte("*1601\r\n$4\r\nECHO\r\n"), bytes.Repeat([]byte("$0\r\n\r\n"), 1600)...), true, turnCredit/100 + 1},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProcessor(s)
			defer s.counters.unregister(&p.counts)
			var speaks Protocol
			if tt.redis {
				speaks = NewRedis(s, false)
			}
			c := s.newConn(deaf{}, speaks)
			if speaks == nil {
				c.Greet()
			}
			const n = 3000
			c.in = bufpool.Get(n * len(tt.request))
			c.in.B = append(c.in.B, bytes.Repeat(tt.request, n)...)
			for turns := 0; c.inAt < len(c.in.B); turns++ {
				p.credit = turnCredit
				taken, _ := c.consume(p, c.input())
				if c.inAt += taken; taken > tt.most*len(tt.request) || taken == 0 {
					t.Fatalf("turn %d took %d of %d requests, at most %d are allowed", turns, taken/len(tt.request), n, tt.most)
				}
				c.mu.Lock()
				if c.out != nil { // the answers go
					native := c.out
					c.out = nil
					c.mu.Unlock()
					if c.translated {
						c.translator.Render(native).Release()
					}
					native.Release()
					c.mu.Lock()
				}
				c.mu.Unlock()
			}
			c.dropInput()
		})
	}
	if n := s.admission.inputBytes.Load(); n != 0 {
		t.Errorf("%d bytes are held by nobody", n)
	}
}

// TestUnfinishedCommands: what connections hold of commands that are not whole
// is counted, and others are served meanwhile.
func TestUnfinishedCommands(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		s, addr := live(t, cfg)
		before := s.admission.inputBytes.Load()
		half := fmt.Appendf(nil, "*%d\r\n", wordsMax)
		half = append(half, bytes.Repeat([]byte("$0\r\n\r\n"), wordsMax-1)...)
		const n = 20
		var held []net.Conn
		for range n {
			nc, _ := dialListener(t, s)
			if _, err := nc.Write(half); err != nil {
				t.Fatal(err)
			}
			held = append(held, nc)
		}
		const spans = 16 * wordsMax
		eventually(t, "the words of all are counted", func() bool { return s.admission.inputBytes.Load()-before >= n*spans })
		if f := dial(t, addr).put("k", "v"); protocol.Status(f.Code) != protocol.StatusOK {
			t.Errorf("another client: %v", protocol.Status(f.Code))
		}
		for _, nc := range held {
			nc.Close()
		}
		eventually(t, "nothing is held any more", func() bool { return s.conns.len() <= 1 && s.admission.inputBytes.Load() <= before })
	})
}

// TestTooManyWords: a command of more words than any needs is refused at its
// header.
func TestTooManyWords(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		s, _ := live(t, cfg)
		for _, words := range []int{wordsMax + 1, resp.MultibulkMaxDefault, resp.MultibulkMaxDefault + 1} {
			nc, r := dialListener(t, s)
			if _, err := fmt.Fprintf(nc, "*%d\r\n", words); err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(r)
			if err != nil || !strings.HasPrefix(string(b), "-ERR Protocol error: invalid multibulk length") {
				t.Errorf("%d words were answered %q, %v", words, b, err)
			}
		}
		// The largest command there is goes through.
		nc, r := dialListener(t, s)
		b := fmt.Appendf(nil, "*%d\r\n$4\r\nMSET\r\n", wordsMax)
		for i := range protocol.OpsMax {
			b = fmt.Appendf(b, "$8\r\n{t}%05d\r\n$1\r\nv\r\n", i)
		}
		if _, err := nc.Write(b); err != nil {
			t.Fatal(err)
		}
		if line, err := r.ReadString('\n'); line != "+OK\r\n" {
			t.Errorf("the largest MSET was answered %q, %v", line, err)
		}
	})
}

// TestKeysUnderHostilePattern: the answer of KEYS is right whatever the turns, and
// patterns beyond any use are refused.
func TestKeysUnderHostilePattern(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		s, addr := live(t, cfg)
		d := dial(t, addr)
		long := strings.Repeat("z", 2000)
		for i := range 40 {
			d.put(fmt.Sprintf("%s%02d", long, i), "v")
		}
		c := dialRedis(t, redisAddr(s))
		for _, tt := range []struct{ command, want string }{
			{"KEYS *" + strings.Repeat("?", 1000) + "z07*", "*1\r\n$2002\r\n" + long + "07\r\n"},
			{"KEYS *[" + strings.Repeat("x", 4000) + "]*", "*0\r\n"},
			{"KEYS " + strings.Repeat("x", resp.PatternBytesMax+1), "-" + resp.ErrPattern + "\r\n"},
			{"SCAN 0 MATCH *" + strings.Repeat("?", 2000) + "*", "-" + resp.ErrPattern + "\r\n"},
			{"SCAN 0 COUNT 1000000000 MATCH *z39", "*2\r\n$1\r\n0\r\n*1\r\n$2002\r\n" + long + "39\r\n"},
			{"CONFIG GET " + strings.Repeat("x", 4<<10), "-" + resp.ErrPattern + "\r\n"},
		} {
			if _, err := c.Write(resptest.AppendRequest(nil, strings.Fields(tt.command)...)); err != nil {
				t.Fatal(err)
			}
			if got := c.next(); got != tt.want {
				t.Errorf("%.20s... was answered %.60q, want %.60q", tt.command, got, tt.want)
			}
		}
	})
}
