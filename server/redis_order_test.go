package server

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/proa-kv/proa/internal/resptest"
)

// TestRedisReadsGoThroughLog: reads behind unanswered writes of the same keys do
// not wait for them, nor do the writes behind those reads, and each sees what
// stands before it.
func TestRedisReadsGoThroughLog(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		fc := newFakeCluster(t, cfg, 1, 3, 1)
		n := fc.nodes[1]
		a, b, other := fc.key(0, 0), fc.key(1, 0), fc.key(2, 0)
		fc.set(other, "there")
		c := dialRedis(t, n.redisAddr)
		n.running.Store(true) // nothing commits
		commands := []struct{ command, reply string }{
			{"SET A 1", "+OK|"}, {"GET A", "$1|1|"}, {"SET A two", "+OK|"}, {"GET A", "$3|two|"},
			{"STRLEN A", ":3|"}, {"TTL A", ":-1|"}, {"TYPE A", "+string|"}, {"GETRANGE A 0 0", "$1|t|"},
			{"SET B x", "+OK|"}, {"MGET A B O none", "*4|$3|two|$1|x|$5|there|$-1|"}, {"EXISTS A B O none", ":3|"},
			{"SET B y", "+OK|"}, {"MGET B", "*1|$1|y|"}, {"EXISTS B", ":1|"}, {"PING", "+PONG|"},
		}
		keys := strings.NewReplacer("A", a, "B", b, " O", " "+other)
		var stream strings.Builder
		for _, x := range commands {
			words := strings.SplitN(x.command, " ", 2)
			if len(words) == 2 {
				words[1] = " " + keys.Replace(words[1])
			}
			stream.WriteString(strings.Join(words, "") + "\r\n")
		}
		c.write([]byte(stream.String()))
		// MGET and EXISTS of keys of three shards are three operations each.
		const operations = 12 + 2*4 // none is of some shard, too
		eventually(t, "everything is proposed", func() bool {
			queued := 0
			fc.with(func() { queued = len(n.queue) })
			return queued >= operations-4
		})
		n.running.Store(false)
		n.Kick()
		for _, x := range commands {
			if got := strings.ReplaceAll(c.next(), "\r\n", "|"); got != x.reply {
				t.Errorf("%s: %q, want %q", x.command, got, x.reply)
			}
		}
	})
}

// TestRedisReadsOfLargeRowsWait: what a read through the log answers is bounded,
// whatever the rows behind it are.
func TestRedisReadsOfLargeRowsWait(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		cfg.OutputBytesMax = 1 << 20
		_, c := liveRedis(t, cfg)
		large := strings.Repeat("v", 300_000)
		var b []byte
		const rounds = 30
		for i := range rounds {
			b = resptest.AppendRequest(b, "SET", "large", large)
			b = resptest.AppendRequest(b, "APPEND", "large", fmt.Sprint(i))
			b = resptest.AppendRequest(b, "GET", "large")
			b = resptest.AppendRequest(b, "STRLEN", "large")
		}
		go c.write(b)
		for i := range rounds {
			for _, want := range []string{"+OK\r\n", fmt.Sprintf(":%d\r\n", len(large)+len(fmt.Sprint(i))), bulk(large+fmt.Sprint(i), true), fmt.Sprintf(":%d\r\n", len(large)+len(fmt.Sprint(i)))} {
				if got := c.next(); got != want {
					t.Fatalf("round %d: %.60q, want %.60q", i, got, want)
				}
			}
		}
	})
}

// TestRedisLargeReadsKeepTheirOrder: a large command may be overtaken in the log,
// so reads of very many keys do not go through it.
func TestRedisLargeReadsKeepTheirOrder(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		_, c := liveRedis(t, cfg)
		long := strings.Repeat("k", 4000)
		get := []string{"MGET", "k"}
		want := "*41\r\n" + "%s"
		for i := range 40 {
			get = append(get, fmt.Sprint(long, i))
			want += "$-1\r\n"
		}
		c.call(get...) // what is not there is known from now on
		var b []byte
		for i := range 50 {
			b = resptest.AppendRequest(b, "SET", "k", fmt.Sprint("before", i))
			b = resptest.AppendRequest(b, get...)
			b = resptest.AppendRequest(b, "SET", "k", fmt.Sprint("behind", i))
		}
		go c.write(b)
		for i := range 50 {
			for _, want := range []string{"+OK\r\n", fmt.Sprintf(want, bulk(fmt.Sprint("before", i), true)), "+OK\r\n"} {
				if got := c.next(); got != want {
					t.Fatalf("round %d: %.60q, want %.60q", i, got, want)
				}
			}
		}
	})
}

// TestRedisManySmallOperationsAreLarge: what counts is the command in the log, in
// which each operation takes more than its bytes over the network.
func TestRedisManySmallOperationsAreLarge(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		_, c := liveRedis(t, cfg)
		mset := []string{"MSET"}
		for i := range 1000 {
			mset = append(mset, fmt.Sprintf("{k}%d", i), fmt.Sprint(i%10))
		}
		for round := range 20 {
			b := resptest.AppendRequest(nil, mset...)
			b = resptest.AppendRequest(b, "SET", "{k}7", fmt.Sprint("behind", round))
			b = resptest.AppendRequest(b, "GET", "{k}7")
			c.write(b)
			for _, want := range []string{"+OK\r\n", "+OK\r\n", bulk(fmt.Sprint("behind", round), true)} {
				if got := c.next(); got != want {
					t.Fatalf("round %d: %.60q, want %.60q", round, got, want)
				}
			}
		}
	})
}

// TestRedisPairs is the pipeline of a program that reads what it has just
// written, over and over, with few keys and with many.
func TestRedisPairs(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		_, c := liveRedis(t, cfg)
		for _, keys := range []int{1, 3, 5000} {
			m := model{}
			r := rand.New(rand.NewPCG(uint64(keys), 3))
			var b []byte
			var want []string
			for range 1500 {
				key := fmt.Sprintf("pair%d-%d", keys, r.IntN(keys))
				write := [][]string{{"SET", key, fmt.Sprint(r.Int())}, {"APPEND", key, "x"}, {"DEL", key}}[r.IntN(3)]
				read := [][]string{{"GET", key}, {"STRLEN", key}, {"EXISTS", key, key}, {"MGET", key, "pair1-0"}}[r.IntN(4)]
				for _, args := range [][]string{write, read} {
					b = resptest.AppendRequest(b, args...)
					want = append(want, m.do(args...))
				}
			}
			go c.write(b)
			for i := range want {
				got := c.next()
				if strings.Contains(got, "pair") || got != want[i] && !strings.HasPrefix(want[i], "*") {
					t.Fatalf("%d keys, reply %d: %q, want %q", keys, i, got, want[i])
				}
			}
		}
	})
}

// BenchmarkRedisPairs writes and reads a key, a thousand times in one pipeline.
func BenchmarkRedisPairs(b *testing.B) {
	for _, same := range []bool{true, false} {
		b.Run(fmt.Sprintf("same=%v", same), func(b *testing.B) {
			_, c := liveRedis(b, Config{})
			var stream []byte
			for i := range 1000 {
				key := "key"
				if !same {
					key = fmt.Sprint("key", i)
				}
				stream = resptest.AppendRequest(stream, "SET", key, "value")
				stream = resptest.AppendRequest(stream, "GET", key)
			}
			for b.Loop() {
				c.write(stream)
				for range 2000 {
					c.next()
				}
			}
		})
	}
}

// TestRedisTransactionReplies: a transaction counts what it answers, and one whose
// answers are too large does nothing.
func TestRedisTransactionReplies(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		_, c := liveRedis(t, cfg)
		large := strings.Repeat("v", 15<<20)
		if got := c.call("SET", "{t}large", large); got != "+OK\r\n" {
			t.Fatal(got)
		}
		c.want("MULTI", "+OK|")
		for _, cmd := range []string{"STRLEN {t}large", "STRLEN {t}large", "GETRANGE {t}large -3 -1", "OBJECT ENCODING {t}large", "SETRANGE {t}large 0 x", "GETRANGE {t}large 0 1", "STRLEN {t}none", "GETRANGE {t}none 0 1", "OBJECT ENCODING {t}none"} {
			c.want(cmd, "+QUEUED|")
		}
		c.want("EXEC", fmt.Sprintf("*9|:%d|:%d|$3|vvv|$3|raw|:%d|$2|xv|:0|$0||$-1|", len(large), len(large), len(large)))
		c.want("MULTI", "+OK|")
		for _, cmd := range []string{"SET {t}new 1", "GET {t}large", "INCR {t}new", "GETDEL {t}large"} {
			c.want(cmd, "+QUEUED|")
		}
		c.want("EXEC", "-"+"ERR the replies to the transaction would exceed 16 MiB; nothing was done"+"|")
		c.want("EXISTS {t}new {t}large", ":1|")
		c.want("STRLEN {t}large", fmt.Sprintf(":%d|", len(large)))
	})
}
