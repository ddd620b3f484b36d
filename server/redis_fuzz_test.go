package server

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/proa-kv/proa/internal/alloctest"
	"github.com/proa-kv/proa/internal/resptest"
	"github.com/proa-kv/proa/server/resp"
)

// FuzzRedis sends any bytes to a server, and expects one well-formed reply for
// each request that the parser finds in them, and the end of the connection
// where it finds an error.
func FuzzRedis(f *testing.F) {
	for _, seed := range []string{
		"PING\r\n", "SET k v\r\nGET k\r\n", "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", "MULTI\r\nSET a 1\r\nINCR a\r\nEXEC\r\n", "WATCH a\r\nMULTI\r\nGET a\r\nEXEC\r\nDBSIZE\r\n",
		"HELLO 3\r\nMGET a b\r\nSCAN 0 MATCH *\r\n", "MSET a 1 {a}b 2\r\nDEL a b {a}b\r\nQUIT\r\n", "*1\r\n$-1\r\n", "GET 'a\r\n", "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nab",
		"EXPIRE k 10 NX GT\r\nSETRANGE k 3 x\r\nGETRANGE k -1 0\r\nINCRBYFLOAT k 1e400\r\n", "CLIENT KILL SKIPME no\r\n", "CLUSTER SLOTS\r\nKEYS [a\r\nRANDOMKEY\r\nWAIT 1 1\r\n",
		"EXEC 1\r\nRESET\r\nCOPY a b REPLACE\r\nRENAME a a\r\nOBJECT ENCODING a\r\nCONFIG SET save x\r\nINFO all\r\nCOMMAND DOCS get\r\n",
	} {
		f.Add([]byte(seed), uint8(3))
	}
	s, _ := live(f, Config{})
	f.Fuzz(func(t *testing.T, stream []byte, cut uint8) {
		if len(stream) > 4<<10 {
			return
		}
		replies, ends := expectation(stream)
		c := dialRedis(t, redisAddr(s))
		go func() {
			at := len(stream) * int(cut) / 256
			_, _ = c.Write(stream[:at])
			_, _ = c.Write(stream[at:])
			_ = halfClose(c.Conn.Conn)
		}()
		got := 0
		for {
			_ = c.SetReadDeadline(time.Now().Add(90 * time.Second))
			_, err := c.Reader.Read()
			if err == io.EOF {
				break
			}
			if err != nil {
				if ends && got < replies {
					return // cut off, and told nothing
				}
				t.Fatalf("reply %d of %d: %v, after %q", got, replies, err, c.Raw())
			}
			got++
		}
		if got != replies && !ends {
			t.Fatalf("%d replies, want %d", got, replies)
		}
	})
}

// expectation is how many replies a stream gets, and whether the server may end
// the connection before that.
func expectation(stream []byte) (replies int, ends bool) {
	var p resp.Parser
	for len(stream) > 0 {
		n, _, err := p.Next(stream)
		if err != nil {
			return replies + 1, false
		}
		if n == 0 {
			return replies, ends
		}
		if len(p.Args) > 0 {
			replies++
			switch strings.ToLower(string(p.Args[0])) {
			case "quit", "client", "post", "host:":
				ends = true
			}
		}
		stream = stream[n:]
	}
	return replies, ends
}

// TestRedisSteadyState: ordinary commands allocate nothing.
func TestRedisSteadyState(t *testing.T) {
	if instrumented {
		t.Skip("what observes the program allocates")
	}
	_, c := liveRedis(t, Config{})
	c.want("SET {t}k 1", "+OK|")
	for _, x := range []struct {
		name    string
		request []byte
	}{
		{"PING", []byte("PING\r\n")},
		{"GET", resptest.AppendRequest(nil, "GET", "{t}k")},
		{"SET", resptest.AppendRequest(nil, "SET", "{t}k", "1")},
		{"INCR", resptest.AppendRequest(nil, "INCR", "{t}k")},
		{"EXISTS", resptest.AppendRequest(nil, "EXISTS", "{t}k", "{t}none")},
		{"MGET", resptest.AppendRequest(nil, "MGET", "{t}k", "{t}none")},
		{"DEL", resptest.AppendRequest(nil, "DEL", "{t}none")},
		{"TTL", resptest.AppendRequest(nil, "TTL", "{t}k")},
	} {
		c.write(x.request)
		size := len(c.next())
		buf := make([]byte, 256)
		most := 0.0
		if x.name == "SET" || x.name == "INCR" || x.name == "DEL" {
			most = 11 // a commit
		}
		n := alloctest.Least(100, most, func() {
			if _, err := c.Conn.Conn.Write(x.request); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadAtLeast(c.Conn.Conn, buf, size); err != nil {
				t.Fatal(err)
			}
		})
		t.Logf("%s: %v", x.name, n)
		if n > most {
			t.Errorf("%s: %v allocations", x.name, n)
		}
	}
}

func redisBench(b *testing.B, depth int, request []byte, replySize int) {
	_, c := liveRedis(b, Config{})
	for _, set := range [][]byte{resptest.AppendRequest(nil, "SET", "key000", string(make([]byte, 128))), resptest.AppendRequest(nil, "SET", "n", "1000000")} {
		c.write(set)
		c.next()
	}
	var stream []byte
	for range depth {
		stream = append(stream, request...)
	}
	buf := make([]byte, depth*replySize)
	b.ReportAllocs()
	b.ResetTimer()
	for i := 0; i < b.N; i += depth {
		if _, err := c.Conn.Conn.Write(stream); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(c.Conn.Conn, buf); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRedisPing(b *testing.B) { redisBench(b, 1, []byte("PING\r\n"), 7) }
func BenchmarkRedisPing16(b *testing.B) {
	redisBench(b, 16, resptest.AppendRequest(nil, "PING"), 7)
}
func BenchmarkRedisGet(b *testing.B) {
	redisBench(b, 1, resptest.AppendRequest(nil, "GET", "key000"), 136)
}
func BenchmarkRedisGet16(b *testing.B) {
	redisBench(b, 16, resptest.AppendRequest(nil, "GET", "key000"), 136)
}
func BenchmarkRedisSet16(b *testing.B) {
	redisBench(b, 16, resptest.AppendRequest(nil, "SET", "key000", string(make([]byte, 128))), 5)
}
func BenchmarkRedisIncr16(b *testing.B) {
	redisBench(b, 16, resptest.AppendRequest(nil, "INCR", "n"), 10)
}
