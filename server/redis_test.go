package server

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/internal/resptest"
	"github.com/proa-kv/proa/protocol"
	"github.com/proa-kv/proa/server/resp"
)

// redisClient is a test's connection over RESP.
type redisClient struct {
	t testing.TB
	*resptest.Conn
}

func dialRedis(t testing.TB, addr net.Addr) *redisClient {
	t.Helper()
	nc, err := connect(addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	return &redisClient{t, &resptest.Conn{Reader: resptest.NewReader(nc), Conn: nc}}
}

// liveRedis starts a server over a real node, and connects to it.
func liveRedis(t testing.TB, cfg Config) (*Server, *redisClient) {
	t.Helper()
	s, _ := live(t, cfg)
	return s, dialRedis(t, redisAddr(s))
}

// next returns the next reply as it came.
func (c *redisClient) next() string {
	c.t.Helper()
	if _, err := c.Read(); err != nil {
		c.t.Fatalf("%v, after %q", err, c.Raw())
	}
	return string(c.Raw())
}

// do sends a command, given in words, and returns the reply as it came.
func (c *redisClient) do(words string) string {
	c.t.Helper()
	return c.call(strings.Fields(words)...)
}

func (c *redisClient) call(args ...string) string {
	c.t.Helper()
	if err := c.Send(args...); err != nil {
		c.t.Fatal(err)
	}
	return c.next()
}

// want fails unless the command is answered with this, where | stands for the
// end of a line.
func (c *redisClient) want(words, reply string) {
	c.t.Helper()
	if got := strings.ReplaceAll(c.do(words), "\r\n", "|"); got != reply {
		c.t.Errorf("%s: %q, want %q", words, got, reply)
	}
}

func (c *redisClient) write(b []byte) {
	c.t.Helper()
	if _, err := c.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

// atEnd fails unless the server has closed the connection.
func (c *redisClient) atEnd() {
	c.t.Helper()
	if v, err := c.Read(); err != io.EOF {
		c.t.Fatalf("%v, %v; want the end", v, err)
	}
}

// TestRedisCommands has every command answer as Redis does, in the form of a
// script. (test/redis compares hundreds of cases with a real one.)
func TestRedisCommands(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		_, c := liveRedis(t, cfg)
		for _, x := range []struct{ command, reply string }{
			{"PING", "+PONG|"}, {"PING hi", "$2|hi|"}, {"ECHO hi", "$2|hi|"},
			{"PING a b", "-ERR wrong number of arguments for 'ping' command|"},
			{"SET s v", "+OK|"}, {"GET s", "$1|v|"}, {"GET none", "$-1|"}, {"get s", "$1|v|"},
			{"SET s w NX", "$-1|"}, {"SET s w XX GET", "$1|v|"}, {"SET new w XX", "$-1|"}, {"SET s w NX GET", "$1|w|"},
			{"SET s w EX 0", "-ERR invalid expire time in 'set' command|"},
			{"SET s w EX x", "-ERR value is not an integer or out of range|"},
			{"SET s w EX 10 KEEPTTL", "-ERR syntax error|"}, {"SET s w NX XX", "-ERR syntax error|"}, {"SET s w EX", "-ERR syntax error|"},
			{"SET s w EX 9223372036854775807", "-ERR invalid expire time in 'set' command|"},
			{"SET s w EX 100", "+OK|"}, {"TTL s", ":100|"}, {"SET s x KEEPTTL", "+OK|"}, {"TTL s", ":100|"},
			{"SET s w PXAT 1", "+OK|"}, {"GET s", "$-1|"},
			{"SET s w EXAT 9999999999", "+OK|"}, {"EXPIRETIME s", ":9999999999|"}, {"PEXPIRETIME s", ":9999999999000|"},
			{"SET s w EX 9223370000000000", "+OK|"}, {"PERSIST s", ":1|"}, {"PERSIST s", ":0|"}, {"TTL s", ":-1|"}, {"TTL none", ":-2|"}, {"PTTL none", ":-2|"},
			{"EXPIRETIME s", ":-1|"}, {"PEXPIRETIME none", ":-2|"},
			{"SETNX s a", ":0|"}, {"SETNX n1 a", ":1|"}, {"SETEX n1 100 b", "+OK|"}, {"TTL n1", ":100|"}, {"PSETEX n1 100000 b", "+OK|"}, {"TTL n1", ":100|"},
			{"SETEX n1 0 b", "-ERR invalid expire time in 'setex' command|"},
			{"GETSET n1 c", "$1|b|"}, {"TTL n1", ":-1|"}, {"GETSET absent c", "$-1|"}, {"GETDEL absent", "$1|c|"}, {"GETDEL absent", "$-1|"},
			{"GETEX n1 EX 100", "$1|c|"}, {"TTL n1", ":100|"}, {"GETEX n1 PERSIST", "$1|c|"}, {"TTL n1", ":-1|"}, {"GETEX n1", "$1|c|"}, {"GETEX none", "$-1|"},
			{"GETEX n1 PXAT 1", "$1|c|"}, {"EXISTS n1", ":0|"}, {"GETEX n1 EX 1 PERSIST", "-ERR syntax error|"},
			{"MSET {t}a 1 {t}b 2", "+OK|"}, {"MGET {t}a none {t}b {t}a", "*4|$1|1|$-1|$1|2|$1|1|"}, {"MGET a b c d e", "*5|$-1|$-1|$-1|$-1|$-1|"},
			{"MSET {t}a", "-ERR wrong number of arguments for 'mset' command|"}, {"MSET a 1 b 2 c 3 d 4 e 5", "+OK|"}, {"MGET a b c d e", "*5|$1|1|$1|2|$1|3|$1|4|$1|5|"}, {"DEL a b c d", ":4|"},
			{"MSETNX {t}b 3 {t}c 3", ":0|"}, {"MSETNX {t}c 3 {t}d 4", ":1|"}, {"MGET {t}b {t}c {t}d", "*3|$1|2|$1|3|$1|4|"}, {"MSETNX {t}x 1", ":1|"},
			{"MSETNX a 1 b 2 c 3 d 4 e 5", ":0|"}, {"EXISTS a b c d e", ":1|"}, {"DEL e", ":1|"}, {"MSETNX a 1 b 2 c 3 d 4 e 5", ":1|"}, {"UNLINK a b c d e", ":5|"},
			{"EXISTS {t}a none {t}b {t}a", ":3|"}, {"TOUCH {t}a none", ":1|"},
			{"DEL {t}a none {t}b", ":2|"}, {"DEL {t}c", ":1|"}, {"DEL {t}c", ":0|"}, {"UNLINK {t}d {t}d", ":1|"},
			{"APPEND ap ab", ":2|"}, {"APPEND ap cd", ":4|"}, {"STRLEN ap", ":4|"}, {"STRLEN none", ":0|"},
			{"GETRANGE ap 1 2", "$2|bc|"}, {"GETRANGE ap -2 -1", "$2|cd|"}, {"GETRANGE ap 0 -1", "$4|abcd|"}, {"GETRANGE ap 3 1", "$0||"}, {"GETRANGE ap 9 10", "$0||"},
			{"GETRANGE ap -9 0", "$1|a|"}, {"GETRANGE ap -1 -2", "$0||"}, {"SUBSTR ap 0 0", "$1|a|"}, {"GETRANGE none 0 -1", "$0||"}, {"GETRANGE ap x 1", "-ERR value is not an integer or out of range|"},
			{"SETRANGE ap 5 X", ":6|"}, {"GET ap", "$6|abcd\x00X|"}, {"SETRANGE ap -1 X", "-ERR offset is out of range|"},
			{"SETRANGE ap 99999999 X", "-ERR string exceeds maximum allowed size (proto-max-bulk-len)|"},
			{"INCR i", ":1|"}, {"INCRBY i 10", ":11|"}, {"DECR i", ":10|"}, {"DECRBY i 3", ":7|"}, {"INCR ap", "-ERR value is not an integer or out of range|"},
			{"INCRBY i 9223372036854775807", "-ERR increment or decrement would overflow|"}, {"DECRBY i -9223372036854775808", "-ERR decrement would overflow|"},
			{"INCRBY i 1x", "-ERR value is not an integer or out of range|"},
			{"INCRBYFLOAT f 1.5", "$3|1.5|"}, {"INCRBYFLOAT f 1e2", "$5|101.5|"}, {"INCRBYFLOAT f x", "-ERR value is not a valid float|"}, {"INCRBYFLOAT ap 1", "-ERR value is not a valid float|"},
			{"INCRBYFLOAT f inf", "-ERR increment would produce NaN or Infinity|"},
			{"TYPE f", "+string|"}, {"TYPE none", "+none|"}, {"OBJECT ENCODING i", "$3|int|"}, {"OBJECT ENCODING f", "$6|embstr|"}, {"OBJECT ENCODING none", "$-1|"},
			{"EXPIRE f 100", ":1|"}, {"EXPIRE f 100 NX", ":0|"}, {"EXPIRE f 50 GT", ":0|"}, {"EXPIRE f 50 LT", ":1|"}, {"TTL f", ":50|"}, {"EXPIRE f 60 XX GT", ":1|"},
			{"PEXPIRE f 200000", ":1|"}, {"TTL f", ":200|"}, {"EXPIREAT f 9999999999", ":1|"}, {"PEXPIREAT f 9999999999999", ":1|"}, {"PEXPIRETIME f", ":9999999999999|"},
			{"EXPIRE f 1 NX GT", "-ERR NX and XX, GT or LT options at the same time are not compatible|"}, {"EXPIRE f 1 GT LT", "-ERR GT and LT options at the same time are not compatible|"},
			{"EXPIRE f 1 zz", "-ERR Unsupported option zz|"}, {"EXPIRE f 9223372036854775807", "-ERR invalid expire time in 'expire' command|"}, {"EXPIRE none 1", ":0|"},
			{"EXPIRE f -1", ":1|"}, {"EXISTS f", ":0|"}, {"EXPIRE i 0", ":1|"}, {"EXISTS i", ":0|"},
			{"SET {r}a 1 EX 100", "+OK|"}, {"RENAME {r}a {r}b", "+OK|"}, {"TTL {r}b", ":100|"}, {"RENAME {r}a {r}b", "-ERR no such key|"}, {"RENAMENX {r}b {r}b", ":0|"},
			{"COPY {r}b {r}c", ":1|"}, {"COPY {r}b {r}c", ":0|"}, {"COPY {r}b {r}c REPLACE", ":1|"}, {"COPY {r}b {r}b", "-ERR source and destination objects are the same|"}, {"COPY {r}none {r}c", ":0|"},
			{"COPY {r}b {r}c DB 1", "-ERR DB index is out of range|"}, {"COPY {r}b {r}d DB 0", ":1|"}, {"RENAMENX {r}none {r}x", "-ERR no such key|"}, {"RENAMENX {r}b {r}c", ":0|"}, {"RENAMENX {r}b {r}e", ":1|"},
			{"SET a 1 EX 100", "+OK|"}, {"RENAME a b", "+OK|"}, {"TTL b", ":100|"}, {"RENAME a b", "-ERR no such key|"}, {"COPY b c", ":1|"}, {"COPY b c", ":0|"}, {"RENAMENX b c", ":0|"}, {"DEL a b c", ":2|"},
			{"SELECT 0", "+OK|"}, {"SELECT 16", "-ERR DB index is out of range|"}, {"SELECT x", "-ERR value is not an integer or out of range|"},
			{"AUTH x", "-ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?|"},
			{"AUTH default x", "+OK|"}, {"AUTH other x", "-WRONGPASS invalid username-password pair or user is disabled.|"},
			{"CLIENT GETNAME", "$-1|"}, {"CLIENT SETNAME me", "+OK|"}, {"CLIENT GETNAME", "$2|me|"}, {"CLIENT SETINFO lib-name x", "+OK|"}, {"CLIENT SETINFO foo x", "-ERR Unrecognized option 'foo'|"},
			{"CLIENT NO-EVICT on", "+OK|"}, {"CLIENT NO-TOUCH off", "+OK|"}, {"CLIENT NO-EVICT x", "-ERR syntax error|"}, {"CLIENT KILL 1.2.3.4:5", "-ERR No such client|"}, {"CLIENT KILL ID 99999", ":0|"},
			{"CLIENT KILL ID x", "-ERR client-id should be greater than 0|"}, {"CLIENT KILL TYPE pubsub", ":0|"}, {"CLIENT LIST TYPE replica", "$0||"}, {"CLIENT LIST TYPE foo", "-ERR Unknown client type 'foo'|"},
			{"CONFIG GET appendonly", "*2|$10|appendonly|$3|yes|"}, {"CONFIG SET appendonly yes", "+OK|"}, {"CONFIG SET foo 1", "-ERR Unknown option or number of arguments for CONFIG SET - 'foo'|"},
			{"COMMAND GETKEYS MGET a b", "*2|$1|a|$1|b|"}, {"COMMAND GETKEYS PING", "-ERR wrong number of arguments for 'command|getkeys' command|"}, {"COMMAND COUNT", ":" + strconv.Itoa(len(resp.Commands())) + "|"},
			{"WAIT 1 0", ":0|"}, {"WAIT 1 x", "-ERR timeout is not an integer or out of range|"}, {"WAIT 1 -1", "-ERR timeout is negative|"}, {"WAIT x 1", "-ERR value is not an integer or out of range|"},
			{"CLUSTER KEYSLOT foo", ":12182|"}, {"CLUSTER KEYSLOT {foo}bar", ":12182|"}, {"CLUSTER COUNTKEYSINSLOT 16384", "-ERR Invalid slot|"}, {"CLUSTER COUNTKEYSINSLOT 12182", ":0|"},
			{"READONLY", "+OK|"}, {"READWRITE", "+OK|"}, {"ASKING", "+OK|"},
			{"LPUSH a b", "-ERR unknown command 'LPUSH', with args beginning with: 'a' 'b' |"}, {"CLIENT FOO", "-ERR unknown subcommand 'FOO'. Try CLIENT HELP.|"}, {"GET", "-ERR wrong number of arguments for 'get' command|"},
			{"MULTI", "+OK|"}, {"MULTI", "-ERR MULTI calls can not be nested|"}, {"WATCH a", "-ERR WATCH inside MULTI is not allowed|"}, {"DISCARD", "+OK|"},
			{"EXEC", "-ERR EXEC without MULTI|"}, {"DISCARD", "-ERR DISCARD without MULTI|"}, {"UNWATCH", "+OK|"},
			{"HELLO 4", "-NOPROTO unsupported protocol version|"}, {"HELLO x", "-ERR Protocol version is not an integer or out of range|"}, {"HELLO 3 foo", "-ERR Syntax error in HELLO option 'foo'|"},
			{"RESET", "+RESET|"}, {"CLIENT GETNAME", "$-1|"},
		} {
			c.want(x.command, x.reply)
		}
	})
}

// TestRedisKeyLimits holds every command to the keys that Proa can have.
func TestRedisKeyLimits(t *testing.T) {
	_, c := liveRedis(t, Config{})
	long := strings.Repeat("k", protocol.KeyBytesMax)
	if got := c.call("SET", long, "v"); got != "+OK\r\n" {
		t.Errorf("the longest key: %q", got)
	}
	for _, args := range [][]string{{"SET", long + "k", "v"}, {"GET", ""}, {"DEL", "a", ""}, {"MGET", "a", long + "k"}, {"INCR", ""}, {"RENAME", "a", ""}, {"WATCH", ""}, {"EXISTS", "a", ""}} {
		if got := c.call(args...); !strings.HasPrefix(got, "-ERR a key must have 1 to 8192 bytes, and this one has ") {
			t.Errorf("%s: %q", args[0], got)
		}
	}
	many := []string{"DEL"}
	for i := range protocol.OpsMax {
		many = append(many, strconv.Itoa(i))
	}
	if got := c.call(many...); got != ":0\r\n" {
		t.Errorf("as many keys as are allowed: %q", got)
	}
	if got := c.call(append(many, "one more")...); got != "-"+tooManyKeys+"\r\n" {
		t.Errorf("one key more: %q", got)
	}
	many[0] = "EXISTS"
	if got := c.call(many...); got != ":0\r\n" {
		t.Errorf("EXISTS of as many keys as are allowed: %q", got)
	}
}

// model is what a Redis of one client would answer.
type model map[string]string

func bulk(s string, ok bool) string {
	if !ok {
		return "$-1\r\n"
	}
	return fmt.Sprintf("$%d\r\n%s\r\n", len(s), s)
}

func (m model) do(args ...string) string {
	key := ""
	if len(args) > 1 {
		key = args[1]
	}
	old, ok := m[key]
	switch args[0] {
	case "PING":
		return "+PONG\r\n"
	case "SET":
		m[key] = args[2]
		return "+OK\r\n"
	case "SETNX":
		if ok {
			return ":0\r\n"
		}
		m[key] = args[2]
		return ":1\r\n"
	case "GET":
		return bulk(old, ok)
	case "GETSET":
		m[key] = args[2]
		return bulk(old, ok)
	case "GETDEL":
		delete(m, key)
		return bulk(old, ok)
	case "STRLEN":
		return fmt.Sprintf(":%d\r\n", len(old))
	case "APPEND":
		m[key] += args[2]
		return fmt.Sprintf(":%d\r\n", len(m[key]))
	case "INCR":
		n, err := strconv.ParseInt(old, 10, 64)
		if ok && (err != nil || strconv.FormatInt(n, 10) != old) {
			return "-ERR value is not an integer or out of range\r\n"
		}
		m[key] = strconv.FormatInt(n+1, 10)
		return ":" + m[key] + "\r\n"
	case "MGET":
		reply := fmt.Sprintf("*%d\r\n", len(args)-1)
		for _, k := range args[1:] {
			v, ok := m[k]
			reply += bulk(v, ok)
		}
		return reply
	case "DEL", "EXISTS":
		n := 0
		for _, k := range args[1:] {
			if _, ok := m[k]; ok {
				n++
				if args[0] == "DEL" {
					delete(m, k)
				}
			}
		}
		return fmt.Sprintf(":%d\r\n", n)
	case "DBSIZE":
		return fmt.Sprintf(":%d\r\n", len(m))
	}
	panic(args[0])
}

// randomCommand draws one among these names, over a few keys.
func randomCommand(r *rand.Rand, names ...string) []string {
	key := func() string { return fmt.Sprintf("key%d", r.IntN(12)) }
	args := []string{names[r.IntN(len(names))]}
	switch args[0] {
	case "PING", "DBSIZE":
	case "MGET", "DEL", "EXISTS":
		for range 1 + r.IntN(4) {
			args = append(args, key())
		}
	case "SET", "SETNX", "GETSET", "APPEND":
		value := strconv.Itoa(r.IntN(100))
		if r.IntN(8) == 0 {
			value = strings.Repeat("v", r.IntN(20_000))
		}
		args = append(args, key(), value)
	default:
		args = append(args, key())
	}
	return args
}

// pipeline sends commands in pieces of random size and compares the replies, in
// order, with what the model answers.
func (c *redisClient) pipeline(r *rand.Rand, m model, count int, names ...string) {
	c.t.Helper()
	var stream []byte
	var all [][]string
	var replies []string
	for range count {
		args := randomCommand(r, names...)
		all = append(all, args)
		replies = append(replies, m.do(args...))
		stream = resptest.AppendRequest(stream, args...)
	}
	go func() {
		for len(stream) > 0 {
			n := min(len(stream), 1+r.IntN(40_000))
			if _, err := c.Write(stream[:n]); err != nil {
				return
			}
			stream = stream[n:]
		}
	}()
	for i, want := range replies {
		if got := c.next(); got != want {
			c.t.Fatalf("command %d, %.60q: %.60q, want %.60q", i, all[i], got, want)
		}
	}
}

// TestRedisPipelines: what a connection has written it sees, and replies come in
// order, although the shards work in parallel.
func TestRedisPipelines(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		_, c := liveRedis(t, cfg)
		m := model{}
		for seed := range uint64(4) {
			c.pipeline(rand.New(rand.NewPCG(seed, 1)), m, 3000,
				"SET", "SET", "SETNX", "GET", "GET", "GETSET", "GETDEL", "STRLEN", "APPEND", "INCR", "MGET", "DEL", "EXISTS", "PING")
		}
		c.pipeline(rand.New(rand.NewPCG(9, 1)), m, 200, "SET", "DEL", "DBSIZE", "GET", "PING")
	})
}

// TestRedisPipelinesForwarded is the same over three nodes, where some shards
// are led here, some are followed and some are not here at all.
func TestRedisPipelinesForwarded(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		for _, copies := range []int{1, 2} {
			fc := newFakeCluster(t, cfg, 3, 6, copies)
			for seed, n := range fc.nodes {
				m := model{}
				fc.with(func() {
					for shard := range fc.shards {
						for k, row := range fc.state[shard].rows {
							m[k] = row.value
						}
					}
				})
				dialRedis(t, n.redisAddr).pipeline(rand.New(rand.NewPCG(seed, 2)), m, 1500, "SET", "GET", "MGET", "EXISTS", "STRLEN", "PING")
			}
		}
	})
}

// TestRedisLongPipeline has more commands in one stream than a connection may
// have unanswered.
func TestRedisLongPipeline(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		_, c := liveRedis(t, cfg)
		const count = 3 * commandsMax
		go func() { _, _ = c.Write(bytes.Repeat([]byte("PING\r\n"), count)) }()
		for range count {
			if got := c.next(); got != "+PONG\r\n" {
				t.Fatal(got)
			}
		}
		var b []byte
		for i := range count {
			b = resptest.AppendRequest(b, "INCR", fmt.Sprint("counter", i%3))
		}
		go func() { _, _ = c.Write(b) }()
		for i := range count {
			if got, want := c.next(), fmt.Sprintf(":%d\r\n", i/3+1); got != want {
				t.Fatalf("%q, want %q", got, want)
			}
		}
	})
}

// TestRedisCutAtEveryByte sends a stream a byte at a time.
func TestRedisCutAtEveryByte(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		_, c := liveRedis(t, cfg)
		stream := resptest.AppendRequest(nil, "SET", "k", "value")
		stream = append(stream, "\r\nGET k\r\n*0\r\nPING 'a b'\r\n"...)
		stream = resptest.AppendRequest(stream, "DEL", "k", "none")
		for i := range stream {
			c.write(stream[i : i+1])
		}
		for _, want := range []string{"+OK\r\n", "$5\r\nvalue\r\n", "$3\r\na b\r\n", ":1\r\n"} {
			if got := c.next(); got != want {
				t.Errorf("%q, want %q", got, want)
			}
		}
	})
}

// TestRedisProtocolErrors: what came before is answered, then the error, then
// the connection is closed.
func TestRedisProtocolErrors(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		s, _ := live(t, cfg)
		for bad, want := range map[string]string{
			"*x\r\n":                             "invalid multibulk length",
			"*99999999999\r\n":                   "invalid multibulk length",
			"*1\r\n$-5\r\n":                      "invalid bulk length",
			"*1\r\n$15728641\r\n":                "invalid bulk length",
			"*1\r\n!3\r\n":                       "expected '$', got '!'",
			"GET 'a\r\n":                         "unbalanced quotes in request",
			strings.Repeat("x", 70_000):          "too big inline request",
			"*3\r\n$15728640\r\n":                "", // to be waited for
			"*2\r\n$3\r\nGET\r\n$1\r\nk??*1\r\n": "", // Redis looks at nothing of what ends a bulk
		} {
			c := dialRedis(t, redisAddr(s))
			c.write(resptest.AppendRequest(resptest.AppendRequest(nil, "SET", "k", "v"), "GET", "k"))
			c.write([]byte(bad))
			if a, b := c.next(), c.next(); a != "+OK\r\n" || b != "$1\r\nv\r\n" {
				t.Errorf("%.20q: %q, %q before it", bad, a, b)
			}
			if want == "" {
				c.Close()
				continue
			}
			if got := c.next(); got != "-ERR Protocol error: "+want+"\r\n" {
				t.Errorf("%.20q: %q", bad, got)
			}
			c.atEnd()
			c.Close()
		}
		eventually(t, "no connection left", func() bool { return s.conns.len() == 0 && s.admission.inputBytes.Load() == 0 })
	})
}

// TestRedisHalfClose answers everything that was asked before the client closed
// its side.
func TestRedisHalfClose(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		s, c := liveRedis(t, cfg)
		var b []byte
		const count = 500
		for range count {
			b = resptest.AppendRequest(resptest.AppendRequest(b, "INCR", "k"), "GET", "k")
		}
		c.write(resptest.AppendRequest(b, "DBSIZE"))
		if err := halfClose(c.Conn.Conn); err != nil {
			t.Fatal(err)
		}
		for i := range count {
			if got, want := c.next()+c.next(), fmt.Sprintf(":%d\r\n", i+1)+bulk(strconv.Itoa(i+1), true); got != want {
				t.Fatalf("%q, want %q", got, want)
			}
		}
		if got := c.next(); got != ":1\r\n" {
			t.Error(got)
		}
		c.atEnd()
		eventually(t, "no connection left", func() bool { return s.conns.len() == 0 })
	}, HalfClose)
}

// TestRedisSlowReader: a client that asks for much and takes nothing is not
// read; when it reads it gets everything, in order.
func TestRedisSlowReader(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		cfg.OutputBytesMax = 1 << 20
		s, c := liveRedis(t, cfg)
		value := strings.Repeat("v", 200_000)
		if got := c.call("SET", "big", value); got != "+OK\r\n" {
			t.Fatal(got)
		}
		const count = 300
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			for i := range count {
				b := resptest.AppendRequest(nil, "SET", "n", strconv.Itoa(i))
				b = resptest.AppendRequest(b, "MGET", "big", "n")
				if _, err := c.Write(resptest.AppendRequest(b, "ECHO", strings.Repeat("e", 10_000))); err != nil {
					return
				}
			}
		}()
		eventually(t, "the connection is not read, and takes nothing", func() (stuck bool) {
			s.conns.each(func(c *conn) { stuck = c.paused.Load() && c.blockedSince.Load() != 0 })
			return stuck
		})
		s.conns.each(func(c *conn) {
			if n := c.Backlog(); n > 8<<20 {
				t.Errorf("%d bytes are held for one client", n)
			}
		})
		for i := range count {
			if got := c.next(); got != "+OK\r\n" {
				t.Fatalf("%.40q", got)
			}
			n := strconv.Itoa(i)
			if got, want := c.next(), "*2\r\n"+bulk(value, true)+bulk(n, true); got != want {
				t.Fatalf("MGET %d: %.40q…%.20q", i, got, got[max(0, len(got)-20):])
			}
			c.next()
		}
		<-sent
	})
}

// TestRedisLargeValues are neither cut nor mixed up.
func TestRedisLargeValues(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		_, c := liveRedis(t, cfg)
		for _, size := range []int{0, 1, 64 << 10, 1 << 20, protocol.ValueBytesMax} {
			value := strings.Repeat(string(rune('a'+size%26)), size)
			if got := c.call("SET", "k", value); got != "+OK\r\n" {
				t.Fatalf("%d bytes: %.60q", size, got)
			}
			if got := c.call("GET", "k"); got != bulk(value, true) {
				t.Errorf("%d bytes: got %d", size, len(got))
			}
		}
		if got := c.call("APPEND", "k", "x"); got != "-ERR string exceeds maximum allowed size (proto-max-bulk-len)\r\n" {
			t.Error(got)
		}
	})
}

func TestRedisTransactions(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		s, c := liveRedis(t, cfg)
		other := dialRedis(t, redisAddr(s))
		for _, x := range []struct{ command, reply string }{
			{"MULTI", "+OK|"}, {"SET {t}a 1", "+QUEUED|"}, {"INCR {t}a", "+QUEUED|"}, {"PING", "+QUEUED|"}, {"GET {t}a", "+QUEUED|"},
			{"MGET {t}a {t}none", "+QUEUED|"}, {"MSET {t}b 1 {t}c 2", "+QUEUED|"}, {"DEL {t}b {t}c {t}none", "+QUEUED|"}, {"EXISTS {t}a {t}b {t}a", "+QUEUED|"},
			{"INCR {t}none x", "-ERR wrong number of arguments for 'incr' command|"}, {"EXEC", "-EXECABORT Transaction discarded because of previous errors.|"},
			{"MULTI", "+OK|"}, {"SET {t}a 1", "+QUEUED|"}, {"INCR {t}a", "+QUEUED|"}, {"PING", "+QUEUED|"}, {"GET {t}a", "+QUEUED|"},
			{"MGET {t}a {t}none", "+QUEUED|"}, {"MSET {t}b 1 {t}c x", "+QUEUED|"}, {"INCR {t}c", "+QUEUED|"}, {"DEL {t}b {t}c {t}none", "+QUEUED|"}, {"EXISTS {t}a {t}b {t}a", "+QUEUED|"},
			{"SET {t}a 3 EX x", "+QUEUED|"}, {"MSETNX {t}d 1 {t}e 2", "+QUEUED|"}, {"TTL {t}a", "+QUEUED|"}, {"EXPIRETIME {t}a", "+QUEUED|"}, {"INCRBYFLOAT {t}a 0.5", "+QUEUED|"}, {"SELECT 70", "+QUEUED|"},
			{"EXEC", "*15|+OK|:2|+PONG|$1|2|*2|$1|2|$-1|+OK|-ERR value is not an integer or out of range|:2|:2|" +
				"-ERR value is not an integer or out of range|-" + errMSetNXInMulti + "|:-1|:-1|$3|2.5|-ERR DB index is out of range|"},
			{"MULTI", "+OK|"}, {"EXEC", "*0|"}, {"MULTI", "+OK|"}, {"PING", "+QUEUED|"}, {"EXEC", "*1|+PONG|"},
			{"MULTI", "+OK|"}, {"SET a 1", "+QUEUED|"}, {"SET b 1", "+QUEUED|"}, {"SET c 1", "+QUEUED|"}, {"SET d 1", "+QUEUED|"}, {"EXEC", "*4|+OK|+OK|+OK|+OK|"}, {"EXISTS a b c d", ":4|"},
			{"WATCH a b c d", "+OK|"}, {"INCR c", ":2|"}, {"MULTI", "+OK|"}, {"SET a 2", "+QUEUED|"}, {"SET b 2", "+QUEUED|"}, {"EXEC", "*-1|"}, {"MGET a b", "*2|$1|1|$1|1|"},
			{"WATCH a b c d", "+OK|"}, {"MULTI", "+OK|"}, {"INCR a", "+QUEUED|"}, {"RENAME a e", "+QUEUED|"}, {"GET e", "+QUEUED|"}, {"MGET a b c", "+QUEUED|"}, {"DEL b c d e", "+QUEUED|"}, {"EXEC", "*5|:2|+OK|$1|2|*3|$-1|$1|1|$1|2|:4|"},
			{"MULTI", "+OK|"}, {"SCAN 0", "-ERR scan is not available inside MULTI|"}, {"EXEC", "-EXECABORT Transaction discarded because of previous errors.|"},
			{"WATCH {t}a {t}none", "+OK|"}, {"MULTI", "+OK|"}, {"SET {t}a 5", "+QUEUED|"}, {"EXEC", "*1|+OK|"},
			{"WATCH {t}a", "+OK|"}, {"SET {t}a 6", "+OK|"}, {"MULTI", "+OK|"}, {"SET {t}a 7", "+QUEUED|"}, {"EXEC", "*-1|"}, {"GET {t}a", "$1|6|"},
			{"WATCH {t}a", "+OK|"}, {"SET {t}a 6", "+OK|"}, {"UNWATCH", "+OK|"}, {"MULTI", "+OK|"}, {"SET {t}a 7", "+QUEUED|"}, {"EXEC", "*1|+OK|"},
			{"WATCH {t}a", "+OK|"}, {"SET {t}a 6", "+OK|"}, {"MULTI", "+OK|"}, {"DISCARD", "+OK|"}, {"MULTI", "+OK|"}, {"SET {t}a 7", "+QUEUED|"}, {"EXEC", "*1|+OK|"},
			{"WATCH {t}a", "+OK|"}, {"SET {t}a 6", "+OK|"}, {"MULTI", "+OK|"}, {"EXEC", "*-1|"},
			{"HELLO 3 SETNAME x", "%7|$6|server|$5|redis|$7|version|$6|" + redisVersion + "|$5|proto|:3|$2|id|:2|$4|mode|$10|standalone|$4|role|$6|master|$7|modules|*0|"},
			{"WATCH {t}a", "+OK|"}, {"DEL {t}a", ":1|"}, {"MULTI", "+OK|"}, {"GET {t}a", "+QUEUED|"}, {"EXEC", "_|"}, {"GET {t}a", "_|"},
		} {
			if strings.HasPrefix(x.command, "HELLO") {
				x.reply = strings.Replace(x.reply, ":2|$4|mode", fmt.Sprintf(":%s|$4|mode", strings.Trim(c.do("CLIENT ID"), ":\r\n")), 1)
			}
			c.want(x.command, x.reply)
		}
		c.want("WATCH {t}a", "+OK|")
		other.want("SET {t}a other", "+OK|")
		c.want("MULTI", "+OK|")
		c.want("SET {t}a mine", "+QUEUED|")
		c.want("EXEC", "_|")
		other.want("GET {t}a", "$5|other|")

		// All in one stream: EXEC waits for what WATCH has seen.
		other.write([]byte("SET {t}n 1\r\nWATCH {t}n\r\nMULTI\r\nINCR {t}n\r\nEXEC\r\nGET {t}n\r\nWATCH {t}n\r\nINCR {t}n\r\nMULTI\r\nEXEC\r\n"))
		for _, want := range []string{"+OK\r\n", "+OK\r\n", "+OK\r\n", "+QUEUED\r\n", "*1\r\n:2\r\n", "$1\r\n2\r\n", "+OK\r\n", ":3\r\n", "+OK\r\n", "*-1\r\n"} {
			if got := other.next(); got != want {
				t.Errorf("%q, want %q", got, want)
			}
		}
		c.write([]byte("MULTI\r\nSET {t}a 1\r\n"))
		c.next()
		c.next()
		c.Close()
		other.Close()
		eventually(t, "what the transaction held is let go", func() bool { return s.admission.inputBytes.Load() == 0 })
	})
}

// TestRedisScan visits each key once, whatever the pages.
func TestRedisScan(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		_, c := liveRedis(t, cfg)
		c.want("RANDOMKEY", "$-1|")
		c.want("SCAN 0", "*2|$1|0|*0|")
		var b []byte
		const count = 2500
		for i := range count {
			b = resptest.AppendRequest(b, "SET", fmt.Sprintf("key:%d", i), "v")
		}
		c.write(b)
		for range count {
			c.next()
		}
		c.want("SET other v", "+OK|")
		c.want("DBSIZE", fmt.Sprintf(":%d|", count+1))
		for _, options := range []string{"", " COUNT 100", " MATCH key:* COUNT 700", " MATCH key:?1* COUNT 1000 TYPE string"} {
			seen := map[string]int{}
			for cursor := "0"; ; {
				if err := c.Send(strings.Fields("SCAN " + cursor + options)...); err != nil {
					t.Fatal(err)
				}
				v, err := c.Read()
				if err != nil || len(v.Elements) != 2 {
					t.Fatalf("%v %v", v, err)
				}
				for _, k := range v.Elements[1].Elements {
					seen[k.Text]++
				}
				if cursor = v.Elements[0].Text; cursor == "0" {
					break
				}
			}
			want := count + 1
			switch {
			case strings.Contains(options, "?1"):
				want = 0
				for i := range count {
					if n := strconv.Itoa(i); len(n) > 1 && n[1] == '1' {
						want++
					}
				}
			case strings.Contains(options, "MATCH"):
				want = count
			}
			for k, n := range seen {
				if n != 1 {
					t.Errorf("SCAN%s: %s came %d times", options, k, n)
				}
			}
			if len(seen) != want {
				t.Errorf("SCAN%s: %d keys, want %d", options, len(seen), want)
			}
		}
		c.want("SCAN 0 TYPE list", "*2|$1|0|*0|")
		c.want("SCAN 12345", "-ERR this cursor has expired or belongs to another server; start again with cursor 0|")
		c.want("SCAN x", "-ERR invalid cursor|")
		c.want("SCAN 0 COUNT 0", "-ERR syntax error|")
		c.want("SCAN 0 MATCH", "-ERR syntax error|")
		c.want("KEYS key:1?", "*10|"+func() (all string) {
			for i := range 10 {
				all += fmt.Sprintf("$6|key:1%d|", i)
			}
			return all
		}())
		if v, err := c.Do("KEYS", "*"); err != nil || len(v.Elements) != count+1 {
			t.Errorf("KEYS: %d keys, %v", len(v.Elements), err)
		}
		drawn := map[string]bool{}
		for range 50 {
			if v, err := c.Do("RANDOMKEY"); err != nil || v.Null {
				t.Fatalf("%v %v", v, err)
			} else {
				drawn[v.Text] = true
			}
		}
		if len(drawn) < 10 {
			t.Errorf("50 random keys are %d different ones", len(drawn))
		}
		// A walk sees what was written before it in the same stream.
		c.write([]byte("SET one more\r\nDBSIZE\r\nDEL one\r\nDBSIZE\r\nGET one\r\n"))
		for _, want := range []string{"+OK\r\n", fmt.Sprintf(":%d\r\n", count+2), ":1\r\n", fmt.Sprintf(":%d\r\n", count+1), "$-1\r\n"} {
			if got := c.next(); got != want {
				t.Errorf("%q, want %q", got, want)
			}
		}
		slot := protocol.Slot([]byte("other"))
		c.want(fmt.Sprintf("CLUSTER COUNTKEYSINSLOT %d", slot), ":"+strconv.Itoa(1+func() (n int) {
			for i := range count {
				if protocol.Slot(fmt.Appendf(nil, "key:%d", i)) == slot {
					n++
				}
			}
			return n
		}())+"|")
	})
}

// TestKeysIsBounded answers an error where the keys take more than may wait to
// be sent.
func TestKeysIsBounded(t *testing.T) {
	_, c := liveRedis(t, Config{OutputBytesMax: 64 << 10})
	long := strings.Repeat("k", 8000)
	for i := range 6 {
		if got := c.call("SET", fmt.Sprint(long, i), "v"); got != "+OK\r\n" {
			t.Fatal(got)
		}
	}
	c.want("KEYS *", "-ERR the matching keys exceed 32768 bytes; use SCAN|")
	c.want("PING", "+PONG|")
}

// TestRedisUnknownOutcome: what may have been done is never told as failed.
func TestRedisUnknownOutcome(t *testing.T) {
	fc := newFakeCluster(t, Config{}, 3, 3, 1)
	fc.with(func() { fc.nodes[1].unsure = true })
	key := fc.key(0, 0)
	for id := uint64(1); id <= 2; id++ {
		c := dialRedis(t, fc.nodes[id].redisAddr)
		for _, cmd := range []string{"SET %s v", "INCR %s", "DEL %s", "APPEND %s x"} {
			if got := c.do(fmt.Sprintf(cmd, key)); !strings.HasPrefix(got, "-UNKNOWN the outcome of the write is unknown: ") {
				t.Errorf("node %d, %s: %q", id, cmd, got)
			}
		}
		c.want("MULTI", "+OK|")
		c.want("SET "+key+" v", "+QUEUED|")
		if got := c.do("EXEC"); !strings.HasPrefix(got, "-UNKNOWN ") {
			t.Errorf("node %d, EXEC: %q", id, got)
		}
	}
}

// TestRedisWithoutLeader tells clients to try again.
func TestRedisWithoutLeader(t *testing.T) {
	fc := newFakeCluster(t, Config{RequestTimeout: 100 * time.Millisecond}, 2, 2, 1)
	fc.with(func() { fc.leader[0] = 0 })
	key := fc.key(0, 0)
	c := dialRedis(t, fc.nodes[2].redisAddr)
	for _, cmd := range []string{"SET %s v", "GET %s", "MGET %s", "INCR %s"} {
		if got := c.do(fmt.Sprintf(cmd, key)); !strings.HasPrefix(got, "-CLUSTERDOWN ") {
			t.Errorf("%s: %q", cmd, got)
		}
	}
	if got := c.do("CLUSTER INFO"); !strings.Contains(got, "cluster_state:fail\r\n") {
		t.Error(got)
	}
}

// TestRedisRedirect sends clients that know the cluster to a shard's leader.
func TestRedisRedirect(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		fc := newFakeCluster(t, cfg, 3, 3, 2, true)
		key := fc.key(0, 0) // led by node 1, followed by node 2, not on node 3
		fc.set(key, "value")
		moved := fmt.Sprintf("-MOVED %d %s|", protocol.Slot([]byte(key)), fc.nodes[1].redisAddr)
		three := dialRedis(t, fc.nodes[3].redisAddr)
		if got := three.do("CLUSTER SLOTS"); !strings.HasPrefix(got, "*3\r\n*3\r\n:0\r\n:5461\r\n*4\r\n$9\r\n127.0.0.1\r\n") {
			t.Errorf("%q", got)
		}
		three.want("GET "+key, moved)
		three.want("SET "+key+" x", moved)
		three.want("MGET "+key+" {"+key+"}2", moved)
		three.want("MGET "+key+" "+fc.key(1, 0), "*2|$5|value|$-1|") // for two nodes: served here
		three.want("WATCH "+key, moved)
		three.want("MULTI", "+OK|")
		three.want("GET "+key, moved)
		three.want("EXEC", "-EXECABORT Transaction discarded because of previous errors.|")
		three.want("READONLY", "+OK|")
		three.want("GET "+key, moved) // no replica here
		three.want("RESET", "+RESET|")
		three.want("GET "+key, moved)

		two := dialRedis(t, fc.nodes[2].redisAddr)
		two.want("READONLY", "+OK|")
		two.want("GET "+key, "$-1|") // as far as the replica has heard
		two.want("SET "+key+" x", moved)
		two.want("READWRITE", "+OK|")
		two.want("GET "+key, moved)

		// Whoever asks every node meets each key once, and needs not have asked for
		// the cluster on the same connection.
		total := 0
		for _, n := range fc.nodes {
			c := dialRedis(t, n.redisAddr)
			v, err := c.Do("DBSIZE")
			if err != nil {
				t.Fatal(err)
			}
			total += int(v.Int())
			if got := c.do("CLUSTER NODES"); strings.Count(got, " connected ") != 3 || strings.Count(got, "myself,master") != 1 {
				t.Errorf("%q", got)
			}
		}
		if total != 1 {
			t.Errorf("the nodes have %d keys, want 1", total)
		}
	})
}

// TestRedisWhole: without resp.redirect each node is one Redis with all keys, on
// every connection, also for clients that ask for the cluster.
func TestRedisWhole(t *testing.T) {
	fc := newFakeCluster(t, Config{}, 3, 3, 1)
	key := fc.key(0, 0)
	fc.set(key, "value")
	for id, n := range fc.nodes {
		c := dialRedis(t, n.redisAddr)
		if got := c.do("CLUSTER SLOTS"); !strings.HasPrefix(got, "*1\r\n*5\r\n:0\r\n:16383\r\n*4\r\n$9\r\n127.0.0.1\r\n:"+portOf(t, n.redisAddr.String())+"\r\n") {
			t.Errorf("node %d: %q", id, got)
		}
		if got := c.do("CLUSTER NODES"); strings.Count(got, "myself,master - 0 0 7 connected 0-16383\n") != 1 || strings.Count(got, " slave ") != 2 {
			t.Errorf("node %d: %q", id, got)
		}
		if got := c.do("CLUSTER REPLICAS " + fmt.Sprintf("%016x%024x", 99, n.id)); !strings.HasPrefix(got, "*2\r\n") || strings.Count(got, " slave ") != 2 {
			t.Errorf("node %d: %q", id, got)
		}
		c.want("GET "+key, "$5|value|")
		c.want("DBSIZE", ":1|")
		c.want("KEYS *", fmt.Sprintf("*1|$%d|%s|", len(key), key))
		c.want("READONLY", "+OK|")
		c.want("DBSIZE", ":1|")
		c.want("SET "+key+" value", "+OK|") // forwarded
	}
}

// TestRedisReadOnlyWithoutMajority: after READONLY a replica answers, also where
// its shard has no leader. Without it, and for writes, there is an error.
func TestRedisReadOnlyWithoutMajority(t *testing.T) {
	for _, redirect := range []bool{false, true} {
		fc := newFakeCluster(t, Config{}, 3, 3, 2, redirect)
		key := fc.key(0, 0) // node 2 follows
		n := fc.nodes[2]
		fc.with(func() { fc.leader[0] = 0; n.readIndexErr = command.ErrNoQuorum })
		c := dialRedis(t, n.redisAddr)
		const lost = "-CLUSTERDOWN"
		if got := c.do("GET " + key); !strings.HasPrefix(got, lost) {
			t.Errorf("redirect %v: GET: %q", redirect, got)
		}
		c.want("READONLY", "+OK|")
		c.want("GET "+key, "$-1|") // as far as the replica has heard
		c.want("READWRITE", "+OK|")
		if got := c.do("GET " + key); !strings.HasPrefix(got, lost) {
			t.Errorf("redirect %v: GET after READWRITE: %q", redirect, got)
		}
	}
}

func portOf(t *testing.T, address string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// TestRedisExecForwarded carries a transaction out at another node.
func TestRedisExecForwarded(t *testing.T) {
	fc := newFakeCluster(t, Config{}, 3, 3, 1)
	key := fc.key(0, 0)
	c := dialRedis(t, fc.nodes[2].redisAddr)
	fc.answer(command.Result{Succeeded: true, Results: []command.Result{
		{Kind: command.Put, Version: 3}, {Kind: command.Incr, Integer: 7}, {Kind: command.Get, Value: []byte("x"), RowVersion: 3},
	}})
	c.want("MULTI", "+OK|")
	for _, cmd := range []string{"SET %s 6", "INCR %s", "PING", "GET %s"} {
		if strings.Contains(cmd, "%") {
			cmd = fmt.Sprintf(cmd, key)
		}
		c.want(cmd, "+QUEUED|")
	}
	c.want("EXEC", "*4|+OK|:7|+PONG|$1|x|")
	fc.answer(command.Result{})
	c.want("WATCH "+key, "+OK|")
	c.want("MULTI", "+OK|")
	c.want("EXEC", "*-1|")
}

// TestRedisShutdown answers what is under way and closes.
func TestRedisShutdown(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		s, c := liveRedis(t, cfg)
		c.want("SET k 0", "+OK|")
		const count = 2000
		var b []byte
		for range count {
			b = resptest.AppendRequest(b, "INCR", "k")
		}
		c.write(b)
		c.next()
		done := make(chan error, 1)
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			done <- s.Shutdown(ctx)
		}()
		replies := 1
		for {
			v, err := c.Read()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if v.Kind == ':' && v.Int() != int64(replies+1) || v.Kind == '-' && !strings.HasPrefix(v.Text, "CLUSTERDOWN") {
				t.Fatalf("reply %d: %v", replies, v)
			}
			replies++
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		if replies != count {
			t.Errorf("%d of %d are answered", replies, count)
		}
	})
}

func TestRedisClients(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		s, c := liveRedis(t, cfg)
		other := dialRedis(t, redisAddr(s))
		other.want("CLIENT SETNAME other", "+OK|")
		id := strings.Trim(other.do("CLIENT ID"), ":\r\n")
		if got := c.do("CLIENT LIST"); strings.Count(got, "\n") != 4 || !strings.Contains(got, "id="+id+" addr="+other.LocalAddr().String()+" ") || !strings.Contains(got, "name=other") {
			t.Errorf("%q", got)
		}
		if got := c.do("CLIENT LIST ID " + id); !strings.Contains(got, "name=other") || strings.Contains(got, "cmd=client|list") {
			t.Errorf("%q", got)
		}
		c.want("CLIENT KILL ID "+id, ":1|")
		if _, err := other.Read(); err == nil {
			t.Error("the connection is still open")
		}
		c.want("CLIENT KILL SKIPME yes TYPE normal", ":0|")
		c.want("CLIENT KILL "+c.LocalAddr().String(), "+OK|")
		c.atEnd()
		quits := dialRedis(t, redisAddr(s))
		quits.write([]byte("SET k v\r\nGET k\r\nQUIT\r\nPING\r\n"))
		for _, want := range []string{"+OK\r\n", "$1\r\nv\r\n", "+OK\r\n"} {
			if got := quits.next(); got != want {
				t.Errorf("%q, want %q", got, want)
			}
		}
		quits.atEnd()
	})
}

// TestRedisTooManyConnections tells the client why it is not taken on.
func TestRedisTooManyConnections(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		cfg.ConnectionsMax = 1
		s, c := liveRedis(t, cfg)
		c.want("PING", "+PONG|")
		over := dialRedis(t, redisAddr(s))
		if got := over.next(); got != "-ERR max number of clients reached\r\n" {
			t.Errorf("%q", got)
		}
		over.atEnd()
	})
}

// TestRedisTools asks what redis-cli, redis-benchmark and exporters ask.
func TestRedisTools(t *testing.T) {
	s, c := liveRedis(t, Config{Version: "v9"})
	got := c.do("INFO")
	for _, line := range []string{"redis_version:" + redisVersion, "proa_version:v9", "redis_mode:standalone", "connected_clients:1", "role:master", "cluster_enabled:1", "maxmemory_policy:noeviction"} {
		if !strings.Contains(got, "\r\n"+line+"\r\n") {
			t.Errorf("INFO does not tell %s: %q", line, got)
		}
	}
	if got := c.do("INFO stats"); !strings.Contains(got, fmt.Sprintf("total_commands_processed:%d\r\n", s.RedisCommands())) || strings.Contains(got, "# Server") {
		t.Errorf("%q", got)
	}
	for _, cmd := range []string{"COMMAND", "COMMAND DOCS", "COMMAND INFO get nosuch", "COMMAND HELP", "CLIENT HELP", "CONFIG HELP", "OBJECT HELP", "CLUSTER HELP", "CLUSTER SHARDS", "CLUSTER NODES", "CLUSTER MYID", "CONFIG GET *", "TIME"} {
		for _, proto := range []string{"2", "3"} {
			c.do("HELLO " + proto)
			if got := c.do(cmd); got[0] == '-' {
				t.Errorf("%s: %q", cmd, got)
			}
		}
	}
	st := s.Status()
	if st.Redis == 0 || !strings.Contains(strings.Join(st.Listening, " "), "redis://") {
		t.Errorf("status: %+v", st)
	}
}

// TestRedisPatience: a full queue and a change of leaders slow a client down and
// are not told to it, wherever they are met.
func TestRedisPatience(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		fc := newFakeCluster(t, cfg, 3, 3, 1)
		key := fc.key(0, 0)
		here, far := dialRedis(t, fc.nodes[1].redisAddr), dialRedis(t, fc.nodes[2].redisAddr)
		for name, trouble := range map[string]struct{ begin, end func() }{
			"a full queue": {func() { fc.nodes[1].busy = true }, func() { fc.nodes[1].busy = false }},
			"no leader":    {func() { fc.leader[0] = 0 }, func() { fc.leader[0] = 1 }},
		} {
			fc.with(trouble.begin)
			for _, c := range []*redisClient{here, far} {
				c.write([]byte("SET " + key + " " + fmt.Sprint(c == here) + "\r\nGET " + key + "\r\nPING\r\n"))
			}
			before := fc.nodes[1].refused.Load()
			if name == "a full queue" {
				eventually(t, "both clients have met the full queue", func() bool { return fc.nodes[1].refused.Load() >= before+4 })
			}
			fc.with(trouble.end)
			for _, c := range []*redisClient{here, far} {
				if got := c.next(); got != "+OK\r\n" {
					t.Errorf("%s: SET is answered %q", name, got)
				}
				if got := c.next(); got[0] != '$' {
					t.Errorf("%s: GET is answered %q", name, got)
				}
				if got := c.next(); got != "+PONG\r\n" {
					t.Errorf("%s: PING is answered %q", name, got)
				}
			}
		}
	})
}

// TestRedisGone: clients that vanish in the middle of everything leave nothing
// behind.
func TestRedisGone(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		cfg.OutputBytesMax = 1 << 20
		s, first := liveRedis(t, cfg)
		if got := first.call("SET", "big", strings.Repeat("v", 300_000)); got != "+OK\r\n" {
			t.Fatal(got)
		}
		first.Close()
		r := rand.New(rand.NewPCG(1, 2))
		for i := range 120 {
			c := dialRedis(t, redisAddr(s))
			var b []byte
			for range 60 {
				b = resptest.AppendRequest(b, randomCommand(r, "SET", "GET", "INCR", "MGET", "DEL", "DBSIZE")...)
				b = resptest.AppendRequest(b, "GET", "big")
			}
			b = append(b, "WATCH key1\r\nMULTI\r\nSET key1 x\r\n"...)
			if i%3 == 0 {
				c.write(b[:1+r.IntN(len(b))])
			} else {
				c.write(b)
				for range r.IntN(20) {
					c.next()
				}
			}
			if i%2 == 0 {
				reset(c.Conn.Conn)
			}
			c.Close()
		}
		eventually(t, "no connection left, and nothing that one has held", func() bool {
			return s.conns.len() == 0 && s.admission.inputBytes.Load() == 0 && s.admission.held.Load() == 0
		})
	})
}

// TestRedisHeadIsNotParked: answers that wait for their turn must not keep the
// one that they wait for from being made.
func TestRedisHeadIsNotParked(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		cfg.OutputBytesMax = 1 << 20
		fc := newFakeCluster(t, cfg, 2, 2, 1)
		value := strings.Repeat("v", 200_000)
		for _, node := range []int{1, 2} { // led here, and elsewhere
			cold, hot := "cold{"+fc.key(node-1, 0)+"}", fc.key(0, 1)
			fc.set(cold, value)
			fc.set(hot, value)
			c := dialRedis(t, fc.nodes[1].redisAddr)
			var b []byte
			const rounds = 12
			for range rounds {
				b = resptest.AppendRequest(b, "GET", cold)
				for range 8 {
					b = resptest.AppendRequest(b, "GET", hot)
				}
			}
			c.write(b)
			for i := range rounds * 9 {
				if got := c.next(); got != bulk(value, true) {
					t.Fatalf("node %d, reply %d: %.60q", node, i, got)
				}
			}
		}
	})
}

// TestRedisForwardedOrder: large and small requests go to other nodes on lanes
// of their own, and must not overtake each other where they write one key.
func TestRedisForwardedOrder(t *testing.T) {
	fc := newFakeCluster(t, Config{}, 2, 2, 1)
	key := fc.key(0, 0)
	c := dialRedis(t, fc.nodes[2].redisAddr)
	large := strings.Repeat("v", 1<<20)
	for i := range 30 {
		small := strconv.Itoa(i)
		b := resptest.AppendRequest(nil, "SET", key, large)
		b = resptest.AppendRequest(b, "SET", key, small)
		c.write(resptest.AppendRequest(b, "GET", key))
		for _, want := range []string{"+OK\r\n", "+OK\r\n", bulk(small, true)} {
			if got := c.next(); got != want {
				t.Fatalf("round %d: %.40q, want %q", i, got, want)
			}
		}
	}
}
