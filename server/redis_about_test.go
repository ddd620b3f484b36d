package server

import (
	"fmt"
	"strings"
	"testing"

	"github.com/proa-kv/proa/internal/resptest"
	"github.com/proa-kv/proa/protocol"
)

// TestRedisSelectEndsTheConnection: whoever asks for a database that a Redis has
// must not go on in another one, whatever it has sent already.
func TestRedisSelectEndsTheConnection(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		s, other := liveRedis(t, cfg)
		for _, stream := range []string{"SELECT 1\r\nSET k v\r\n", "MULTI\r\nSELECT 15\r\nSET k v\r\nEXEC\r\n"} {
			c := dialRedis(t, redisAddr(s))
			c.write([]byte(stream))
			if strings.HasPrefix(stream, "MULTI") {
				c.next()
			}
			if got := c.next(); !strings.HasPrefix(got, "-ERR DB index is out of range: ") {
				t.Errorf("%q: %q", stream, got)
			}
			c.atEnd()
		}
		other.want("EXISTS k", ":0|")
		other.want("MULTI", "+OK|")
		other.want("SELECT 0", "+QUEUED|")
		other.want("SELECT 16", "+QUEUED|")
		other.want("EXEC", "*2|+OK|-ERR DB index is out of range|")
	})
}

// TestRedisClusterAnswers: the keys of a slot, and what there is none of.
func TestRedisClusterAnswers(t *testing.T) {
	_, c := liveRedis(t, Config{})
	for i := range 5 {
		c.want(fmt.Sprintf("SET {foo}%d v", i), "+OK|")
		c.want(fmt.Sprintf("SET bar%d v", i), "+OK|")
	}
	slot := protocol.Slot([]byte("foo"))
	c.want(fmt.Sprintf("CLUSTER GETKEYSINSLOT %d 2", slot), "*2|$6|{foo}0|$6|{foo}1|")
	c.want(fmt.Sprintf("CLUSTER GETKEYSINSLOT %d 0", slot), "*0|")
	if got := c.do(fmt.Sprintf("CLUSTER GETKEYSINSLOT %d 100", slot)); !strings.HasPrefix(got, "*5\r\n") {
		t.Errorf("%q", got)
	}
	c.want("CLUSTER GETKEYSINSLOT 16384 1", "-ERR Invalid slot or number of keys|")
	c.want("CLUSTER GETKEYSINSLOT 1 -1", "-ERR Invalid slot or number of keys|")
	c.want("CLUSTER GETKEYSINSLOT x 1", "-ERR value is not an integer or out of range|")
	c.want("CLUSTER LINKS", "*0|")
	c.want("CLUSTER REPLICAS none", "-ERR Unknown node none|")
	id := strings.Split(c.do("CLUSTER MYID"), "\r\n")[1]
	c.want("CLUSTER REPLICAS "+id, "*0|")
	c.want("CLUSTER SLAVES "+id, "*0|")
}

// TestRedisClientFields: CLIENT INFO has every field of Redis 7.0.
func TestRedisClientFields(t *testing.T) {
	_, c := liveRedis(t, Config{})
	line := c.do("CLIENT INFO")
	for _, field := range strings.Fields("id addr laddr fd name age idle flags db sub psub ssub multi qbuf qbuf-free argv-mem multi-mem rbs rbp obl oll omem tot-mem events cmd user redir resp") {
		if !strings.Contains(" "+strings.ReplaceAll(line, "\n", " "), " "+field+"=") {
			t.Errorf("no %s in %q", field, line)
		}
	}
}

// TestHeldCommandsCountOnce: a command that waits for earlier ones of its
// connection, and is looked at again when they are answered, is one call.
func TestHeldCommandsCountOnce(t *testing.T) {
	s, c := liveRedis(t, Config{})
	const n = 50
	var b []byte
	for range n { // reads of several keys wait for the write before them
		b = resptest.AppendRequest(b, "SET", "k", "v")
		b = resptest.AppendRequest(b, "DBSIZE")
	}
	c.write(b)
	for range n {
		c.next()
		c.next()
	}
	c.do("CONFIG RESETSTAT") // until here every command has been answered
	if got := s.RedisCommands(); got != 2*n+1 {
		t.Errorf("%d commands were counted, %d were sent", got, 2*n+1)
	}
}

// TestRedisCommandStats counts calls, until they begin again.
func TestRedisCommandStats(t *testing.T) {
	_, c := liveRedis(t, Config{})
	for range 3 {
		c.want("GET none", "$-1|")
	}
	c.do("CLIENT ID")
	if got := c.do("INFO commandstats"); strings.Contains(got, "failed_calls") {
		t.Errorf("failed calls are told, which nobody counts: %q", got)
	}
	for section, want := range map[string]bool{"commandstats": true, "all": true, "": false, "default": false} {
		got := c.do("INFO " + section)
		if strings.Contains(got, "cmdstat_get:calls=3,") != want || strings.Contains(got, "cmdstat_client|id:calls=1,") != want {
			t.Errorf("INFO %s: %q", section, got)
		}
	}
	c.want("CONFIG RESETSTAT", "+OK|")
	if got := c.do("INFO commandstats"); strings.Contains(got, "cmdstat_get:") || !strings.Contains(got, "cmdstat_info:calls=1,") {
		t.Errorf("%q", got)
	}
}
