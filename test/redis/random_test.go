package redis

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	seedFlag     = flag.Uint64("seed", 0, "seed of the random test; 0 draws one")
	commandsFlag = flag.Int("commands", 4000, "commands of the random test")
)

// TestRandom sends random commands, in pipelines of random length on several
// connections, to Redis and to Proa. Every reply has to be the same: where Proa
// is one node; where it is three, each connection to another one, and the keys
// are in one shard; and where the keys are in several.
func TestRandom(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d (again with: go test -run TestRandom -seed=%d)", seed, seed)
	r := startRedis(t)
	t.Run("one node", func(t *testing.T) {
		a := startProa(t).address
		compareRandom(t, generator{Rand: rand.New(rand.NewPCG(seed, 0))}, r, a, a, a)
	})
	_, nodes := startCluster(t, false)
	t.Run("one shard", func(t *testing.T) {
		compareRandom(t, generator{Rand: rand.New(rand.NewPCG(seed, 1)), prefix: "{tag}"}, r, nodes...)
	})
	t.Run("several shards", func(t *testing.T) {
		compareRandom(t, generator{Rand: rand.New(rand.NewPCG(seed, 2)), prefix: "spread ", spread: true}, r, nodes...)
	})
}

// compareRandom sends random commands to Redis and to Proa. A cluster may not be
// available for a moment, on a busy machine: then what it has done may be unknown, and
// it begins anew with other keys.
func compareRandom(t *testing.T, g generator, r *target, proa ...string) {
	const interruptionsMax = 20
	prefix := g.prefix
	for sent, n := 0, 0; sent < *commandsFlag; n++ {
		if n > 0 {
			t.Logf("the cluster was not available after %d commands", sent)
			g.prefix = fmt.Sprint(prefix, n, " ")
		}
		if n > interruptionsMax || n > 0 && proa[0] == proa[1] {
			t.Fatal("that must not be")
		}
		sent += compareOn(t, g, r, *commandsFlag-sent, proa...)
	}
}

// unavailable are the errors that only a cluster answers with.
var unavailable = regexp.MustCompile("^-(CLUSTERDOWN|TRYAGAIN|UNKNOWN) ")

// compareOn has a connection to each of the addresses of Proa, and beside it one to
// Redis. It returns how many commands were answered the same: at least the limit, or
// fewer where the cluster was not available.
func compareOn(t *testing.T, g generator, r *target, limit int, proa ...string) (sent int) {
	t.Helper()
	r.wipe(t)
	var connections [][2]*connection
	for i, a := range proa {
		both := [2]*connection{connectTo(t, r.address), connectTo(t, a)}
		connections = append(connections, both)
		for _, c := range both {
			defer c.close()
			if i > 0 {
				c.ask(t, "HELLO", "3")
			}
		}
	}
	var history []string
	for sent < limit {
		i := g.IntN(len(connections))
		commands := g.pipeline()
		for _, words := range commands {
			history = append(history, fmt.Sprintf("%d> %q", i, words))
		}
		want, got := exchange(t, connections[i][0], commands), exchange(t, connections[i][1], commands)
		at := firstDifference(want, got)
		if at >= 0 && unavailable.Match(got[at]) {
			return sent
		}
		if at >= 0 {
			upTo := len(history) - len(commands) + at + 1
			t.Fatalf("after\n%s\nRedis answered %q and Proa %q", strings.Join(history[max(0, upTo-historyShown):upTo], "\n"), want[at], got[at])
		}
		sent += len(commands)
	}
	return sent
}

// historyShown is how many commands before a difference are shown.
const historyShown = 60

// exchange sends commands in one write and returns the replies. Those of KEYS
// are sorted.
func exchange(t *testing.T, c *connection, commands [][]string) (replies [][]byte) {
	t.Helper()
	var b []byte
	for _, words := range commands {
		b = appendCommand(b, words...)
	}
	if err := c.send(b); err != nil {
		t.Fatal(err)
	}
	for _, words := range commands {
		r, err := c.read()
		if err != nil {
			t.Fatalf("%q: %v", words, err)
		}
		raw := r.raw
		if words[0] == "KEYS" {
			raw = r.sorted()
		}
		replies = append(replies, raw)
	}
	return replies
}

func firstDifference(a, b [][]byte) int {
	for i := range a {
		if !bytes.Equal(a[i], b[i]) {
			return i
		}
	}
	return -1
}

// generator makes commands. Their replies do not depend on the time, and they
// are none of those that Proa is known to answer otherwise.
type generator struct {
	*rand.Rand
	prefix string // of each key
	spread bool   // leave out what keys of several shards cannot be together in
}

// oneShard are the commands whose keys have to be in one shard.
var oneShard = []string{"MSET", "MSETNX", "RENAME", "RENAMENX", "COPY", "MULTI", "EXEC", "DISCARD", "WATCH", "UNWATCH"}

// pipeline returns commands to be sent in one write.
func (g generator) pipeline() [][]string {
	commands := g.anyPipeline()
	if !g.spread || !slices.ContainsFunc(commands, func(words []string) bool { return slices.Contains(oneShard, words[0]) }) {
		return commands
	}
	return g.pipeline()
}

// anyPipeline returns any commands. A transaction begins and ends in it.
func (g generator) anyPipeline() (commands [][]string) {
	const lengthMax = 12
	for range 1 + g.IntN(lengthMax) {
		switch g.IntN(25) {
		case 0:
			commands = append(commands, []string{"WATCH", g.key(), g.lasting()})
		case 1:
			commands = append(commands, []string{pick(g, "UNWATCH", "EXEC", "DISCARD")})
		case 2:
			commands = append(commands, g.transaction()...)
		case 3:
			commands = append(commands, []string{"KEYS", g.prefix + pick(g, "*", "k?", "[kl]1", "?[^1-3]", "nothing")})
		case 4, 5:
			commands = append(commands, g.lastingCommand())
		default: // not DBSIZE: Redis counts what has run out until it comes across it
			commands = append(commands, g.command())
		}
	}
	return commands
}

func (g generator) transaction() [][]string {
	commands := [][]string{{"MULTI"}}
	for range g.IntN(6) {
		c := g.command()
		if c[0] == "MSETNX" {
			continue // not available inside
		}
		commands = append(commands, c)
	}
	return append(commands, []string{pick(g, "EXEC", "EXEC", "EXEC", "DISCARD")})
}

func pick(g generator, choices ...string) string { return choices[g.IntN(len(choices))] }

// key returns one of a few keys, so that commands meet.
func (g generator) key() string { return g.prefix + pick(g, "k1", "k2", "k3", "k4", "l1", "l2", "l3") }

// lasting returns a key that stays once it is there.
func (g generator) lasting() string { return g.prefix + pick(g, "w1", "w2") }

// lastingCommand returns a command on such keys.
func (g generator) lastingCommand() []string {
	k := g.lasting()
	switch g.IntN(8) {
	case 0:
		return []string{"SET", k, g.value()}
	case 1:
		return []string{"SETNX", k, g.value()}
	case 2:
		return []string{"APPEND", k, g.value()}
	case 3:
		return []string{"INCRBY", k, g.integer()}
	case 4:
		return []string{"SETRANGE", k, g.index(), g.value()}
	case 5:
		return []string{"PEXPIREAT", k, pick(g, "4102444800000", "4102444800001"), pick(g, "NX", "XX", "GT", "LT")}
	case 6:
		return []string{"GETEX", k, "PERSIST"}
	}
	return []string{"MSETNX", k, g.value(), g.lasting(), g.value()}
}

func (g generator) value() string {
	return pick(g, "", "1", "-7", "3.25", "text", "9223372036854775807", "0", " 5", "1e3", "two words", strings.Repeat("long", 30), "\x00\r\n\xff")
}

func (g generator) integer() string {
	return pick(g, "0", "1", "-1", "5", "-13", "100", "9223372036854775807", "-9223372036854775807", "x", "", "1.5", "007")
}

func (g generator) float() string {
	return pick(g, "0.1", "-0.1", "3", "1e2", "0.333333333333", "-2.5e-3", "inf", "nan", "x", "")
}

// index returns a place in a value, which may lie outside of it.
func (g generator) index() string {
	return pick(g, "0", "1", "2", "-1", "-2", "5", "-5", "100", "-100", "x")
}

// expireAt returns a time to come or one that has passed, in seconds.
func (g generator) expireAt() string {
	return pick(g, "4102444800", "4102444801", "4102440000", "1", "x", "9223372036854775807", "-1", "0")
}

// expireAtMillis is expireAt in milliseconds.
func (g generator) expireAtMillis() string {
	return pick(g, "4102444800000", "4102444800001", "1", "4102440000500", "9223372036854775807", "x")
}

// command returns one that may stand in a transaction, too.
func (g generator) command() []string {
	k := g.key()
	switch g.IntN(34) {
	case 0, 1:
		return []string{"GET", k}
	case 2, 3:
		return g.set(k)
	case 4:
		return []string{"SETNX", k, g.value()}
	case 5:
		return []string{"GETSET", k, g.value()}
	case 6:
		return []string{"GETDEL", k}
	case 7:
		return g.several(pick(g, "MSET", "MSETNX"), true)
	case 8:
		return g.several("MGET", false)
	case 9:
		return g.several(pick(g, "DEL", "UNLINK"), false)
	case 10:
		return g.several(pick(g, "EXISTS", "TOUCH"), false)
	case 11:
		return []string{pick(g, "INCR", "DECR"), k}
	case 12:
		return []string{pick(g, "INCRBY", "DECRBY"), k, g.integer()}
	case 13, 14:
		return []string{"INCRBYFLOAT", k, g.float()}
	case 15:
		return []string{"APPEND", k, g.value()}
	case 16:
		return []string{"STRLEN", k}
	case 17:
		return []string{pick(g, "GETRANGE", "SUBSTR"), k, g.index(), g.index()}
	case 18:
		return []string{"SETRANGE", k, g.index(), g.value()}
	case 19:
		return []string{"EXPIREAT", k, g.expireAt()}
	case 20:
		return []string{"EXPIREAT", k, g.expireAt(), pick(g, "NX", "XX", "GT", "LT", "FOO")}
	case 21:
		return []string{"PEXPIREAT", k, g.expireAtMillis(), pick(g, "NX", "XX", "GT", "LT"), pick(g, "NX", "XX", "GT", "LT")}
	case 22:
		return []string{pick(g, "EXPIRETIME", "PEXPIRETIME"), k}
	case 23:
		return []string{"PERSIST", k}
	case 24:
		return []string{"TYPE", k}
	case 25:
		return []string{pick(g, "RENAME", "RENAMENX"), k, g.key()}
	case 26:
		return []string{"COPY", k, g.key()}
	case 27:
		return []string{"COPY", k, g.key(), pick(g, "REPLACE", "replace", "FOO")}
	case 28:
		return []string{"GETEX", k}
	case 29:
		return []string{"GETEX", k, "PERSIST"}
	case 30:
		return []string{"GETEX", k, "PXAT", pick(g, "4102444800000", "4102444800777", "1")}
	case 31:
		return []string{pick(g, "PING", "GET", "FOO", "SET", "ECHO"), g.prefix + "hello"}
	case 32:
		return []string{pick(g, "EXPIRE", "PEXPIRE"), k, pick(g, "0", "-1", "x", "-9223372036854775807")}
	}
	return []string{pick(g, "GET", "INCR", "SETEX", "APPEND", "STRLEN")} // too few arguments
}

// several returns a command with one to four keys, and values where it takes
// them.
func (g generator) several(name string, values bool) []string {
	words := []string{name}
	for range 1 + g.IntN(4) {
		words = append(words, g.key())
		if values {
			words = append(words, g.value())
		}
	}
	return words
}

// set returns SET with any options, also with those that exclude each other.
func (g generator) set(key string) []string {
	words := []string{"SET", key, g.value()}
	for range g.IntN(4) {
		switch g.IntN(6) {
		case 0:
			words = append(words, pick(g, "NX", "XX"))
		case 1:
			words = append(words, "GET")
		case 2:
			words = append(words, "KEEPTTL")
		case 3:
			words = append(words, "EXAT", g.expireAt())
		case 4:
			words = append(words, "PXAT", g.expireAtMillis())
		case 5:
			words = append(words, pick(g, "nx", "get", "keepttl", "FOO"))
		}
	}
	return slices.Clip(words)
}
