package server

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/proa-kv/proa/access"
	"github.com/proa-kv/proa/protocol"
	"github.com/proa-kv/proa/server/resp"
)

// redisRows are commands with keys, each as a test sends it: KEY stands for the key of which
// the rights matter, OTHER for one that may be read and written. A command of the table that
// has keys and no row fails the test.
var redisRows = map[string][]struct {
	line string
	need access.Rights
}{
	"get": {{"GET KEY", access.Read}}, "strlen": {{"STRLEN KEY", access.Read}}, "type": {{"TYPE KEY", access.Read}},
	"ttl": {{"TTL KEY", access.Read}}, "pttl": {{"PTTL KEY", access.Read}}, "expiretime": {{"EXPIRETIME KEY", access.Read}}, "pexpiretime": {{"PEXPIRETIME KEY", access.Read}},
	"exists": {{"EXISTS KEY", access.Read}, {"EXISTS OTHER KEY", access.Read}}, "touch": {{"TOUCH KEY", access.Read}},
	"mget": {{"MGET OTHER KEY", access.Read}}, "getrange": {{"GETRANGE KEY 0 1", access.Read}}, "substr": {{"SUBSTR KEY 0 1", access.Read}},
	"object|encoding": {{"OBJECT ENCODING KEY", access.Read}}, "object|idletime": {{"OBJECT IDLETIME KEY", access.Read}}, "object|refcount": {{"OBJECT REFCOUNT KEY", access.Read}},
	"object|freq": {{"OBJECT FREQ KEY", access.Read}}, "memory|usage": {{"MEMORY USAGE KEY", access.Read}},
	"watch": {{"WATCH KEY", access.Read}},
	"set":   {{"SET KEY v", access.Write}, {"SET KEY v EX 100", access.Write}, {"SET KEY v NX", access.Write}, {"SET KEY v GET", access.ReadWrite}},
	"setnx": {{"SETNX KEY v", access.Write}}, "setex": {{"SETEX KEY 100 v", access.Write}}, "psetex": {{"PSETEX KEY 100000 v", access.Write}},
	"getset": {{"GETSET KEY v", access.ReadWrite}}, "getdel": {{"GETDEL KEY", access.ReadWrite}}, "getex": {{"GETEX KEY EX 100", access.ReadWrite}, {"GETEX KEY", access.Read}},
	"mset": {{"MSET OTHER v KEY v", access.Write}}, "msetnx": {{"MSETNX KEY v", access.Write}},
	"append": {{"APPEND KEY v", access.Write}}, "setrange": {{"SETRANGE KEY 0 v", access.Write}},
	"incr": {{"INCR KEY", access.ReadWrite}}, "decr": {{"DECR KEY", access.ReadWrite}}, "incrby": {{"INCRBY KEY 1", access.ReadWrite}}, "decrby": {{"DECRBY KEY 1", access.ReadWrite}},
	"incrbyfloat": {{"INCRBYFLOAT KEY 1", access.ReadWrite}},
	"del":         {{"DEL KEY", access.Write}, {"DEL OTHER KEY", access.Write}}, "unlink": {{"UNLINK KEY", access.Write}},
	"expire": {{"EXPIRE KEY 100", access.Write}}, "pexpire": {{"PEXPIRE KEY 100000", access.Write}}, "expireat": {{"EXPIREAT KEY 9999999999", access.Write}}, "pexpireat": {{"PEXPIREAT KEY 9999999999999", access.Write}},
	"persist": {{"PERSIST KEY", access.Write}},
	"rename":  {{"RENAME KEY OTHER", access.ReadWrite}, {"RENAME OTHER KEY", access.Write}}, "renamenx": {{"RENAMENX KEY OTHER", access.ReadWrite}, {"RENAMENX OTHER KEY", access.Write}},
	"copy": {{"COPY KEY OTHER", access.Read}, {"COPY OTHER KEY", access.Write}},
}

func redisLogin(t *testing.T, n *fakeNode, user string) *redisClient {
	t.Helper()
	c := dialRedis(t, n.redisAddr)
	if got := c.call("AUTH", user, testPassword); got != "+OK\r\n" {
		t.Fatalf("AUTH of %s: %q", user, got)
	}
	return c
}

// TestRedisCommandsAreChecked sends each command for keys that may be read, written, both or
// neither, to a node that carries it out and to one that sends it on; alone, and in a
// transaction.
func TestRedisCommandsAreChecked(t *testing.T) {
	fc := newFakeCluster(t, Config{Authentication: true}, 2, 2, 1)
	fc.allow(access.User{Name: "root", Roles: []string{"admin"}},
		access.User{Name: "svc", Grants: grants("r/", access.Read, "w/", access.Write, "rw/", access.ReadWrite)})
	tags := map[int]string{}
	for i := 0; len(tags) < 2; i++ {
		tag := fmt.Sprint("t", i)
		tags[fc.shardOf(protocol.Slot([]byte("{"+tag+"}")))] = tag
	}
	root, svc := redisLogin(t, fc.nodes[1], "root"), redisLogin(t, fc.nodes[1], "svc")
	all := append([]*resp.Command{}, resp.Commands()...)
	for _, cmd := range resp.Commands() {
		all = append(all, cmd.Subcommands...)
	}
	for _, cmd := range all {
		rows, ok := redisRows[cmd.Name]
		if first, _, step := cmd.Keys(make([][]byte, 16)); step > 0 && first > 0 && !ok {
			t.Errorf("%s has keys, and no row: say which rights it takes", cmd.Name)
		}
		for _, row := range rows {
			for where, tag := range tags {
				for prefix, has := range map[string]access.Rights{"r/": access.Read, "w/": access.Write, "rw/": access.ReadWrite, "no/": 0} {
					line := strings.NewReplacer("KEY", prefix+"{"+tag+"}k", "OTHER", "rw/{"+tag+"}o").Replace(row.line)
					denied := func(reply string) bool { return strings.HasPrefix(reply, "-NOPERM") }
					if reply := svc.do(line); denied(reply) != (row.need&^has != 0) {
						t.Errorf("%s, shard %d: %q", line, where, reply)
					}
					if reply := root.do(line); denied(reply) {
						t.Errorf("%s, shard %d, by root: %q", line, where, reply)
					}
					if cmd.Name != "watch" && cmd.Name != "msetnx" { // which are not for transactions
						svc.do("MULTI")
						queued, got := svc.do(line), svc.do("EXEC")
						if denied(queued) && !strings.HasPrefix(got, "-EXECABORT") || !denied(queued) && queued != "+QUEUED\r\n" {
							t.Errorf("%s, shard %d, in a transaction: %q, %q", line, where, queued, got)
						}
						if is := denied(queued) || denied(got); is != (row.need&^has != 0) {
							t.Errorf("%s, shard %d, in a transaction: %q, %q", line, where, queued, got)
						}
					}
					svc.do("UNWATCH")
					root.do("UNWATCH")
				}
			}
		}
	}
}

// TestRedisClusterRights: what tells of the server or changes it takes rights of the cluster.
func TestRedisClusterRights(t *testing.T) {
	fc := newFakeCluster(t, Config{Authentication: true}, 1, 1, 1)
	fc.allow(access.User{Name: "root", Roles: []string{"admin"}}, access.User{Name: "svc", Roles: []string{"readonly"}}, access.User{Name: "watcher", Roles: []string{"monitor"}})
	may := map[string][]string{
		"INFO": {"root", "watcher"}, "ROLE": {"root", "watcher"}, "CONFIG GET maxmemory": {"root", "watcher"}, "CLIENT LIST": {"root", "watcher"},
		"CONFIG SET maxmemory 1": {"root"}, "CONFIG RESETSTAT": {"root"}, "CLIENT KILL ID 999999": {"root"},
		"FLUSHALL": {"root"}, "FLUSHDB": {"root"}, "KEYS *": {"root", "svc"}, "SCAN 0": {"root", "svc"}, "DBSIZE": {"root", "svc"}, "RANDOMKEY": {"root", "svc"},
		"CLIENT ID": {"root", "svc", "watcher"}, "CLUSTER SLOTS": {"root", "svc", "watcher"}, "PING": {"root", "svc", "watcher"}, "COMMAND COUNT": {"root", "svc", "watcher"},
	}
	for _, user := range []string{"root", "svc", "watcher"} {
		c := redisLogin(t, fc.nodes[1], user)
		if got := c.do("ACL WHOAMI"); got != fmt.Sprintf("$%d\r\n%s\r\n", len(user), user) {
			t.Errorf("%s is %q", user, got)
		}
		for line, who := range may {
			if reply := c.do(line); strings.HasPrefix(reply, "-NOPERM") == slices.Contains(who, user) {
				t.Errorf("%s by %s: %q", line, user, reply)
			}
		}
	}
}

func TestRedisAuth(t *testing.T) {
	const noAuth, wrongPass = "-NOAUTH", "-WRONGPASS"
	users := []access.User{{Name: "root", Roles: []string{"admin"}}, {Name: "svc", Roles: []string{"readwrite"}}}
	fallback := access.User{Name: "default", Roles: []string{"readonly"}}
	for _, x := range []struct {
		name           string
		authentication bool
		users          []access.User
		lines          [][2]string // a command, and how its answer begins
	}{
		{"required", true, users, [][2]string{
			{"PING", noAuth}, {"GET k", noAuth}, {"NOTHING", "-ERR unknown command"}, {"GET", "-ERR wrong number"}, {"HELLO 3", noAuth}, {"MULTI", noAuth},
			{"AUTH " + "password", wrongPass}, {"AUTH svc wrong-password", wrongPass}, {"AUTH nobody password", wrongPass}, {"GET k", noAuth},
			{"AUTH svc PASSWORD", "+OK"}, {"PING", "+PONG"}, {"SET k v", "+OK"}, {"AUTH root wrong-password", wrongPass}, {"SET k v", "+OK"},
			{"RESET", "+RESET"}, {"PING", noAuth}, {"HELLO 2 AUTH svc PASSWORD", "*14"}, {"PING", "+PONG"}, {"HELLO 2 AUTH svc wrong-password", wrongPass}, {"PING", "+PONG"},
			{"AUTH svc PASSWORD more", "-ERR syntax"},
		}},
		{"required, with a user default", true, append(users, fallback), [][2]string{
			{"AUTH wrong-password", wrongPass}, {"AUTH PASSWORD", "+OK"}, {"ACL WHOAMI", "$7"}, {"GET k", "$-1"}, {"SET k v", "-NOPERM"},
			{"AUTH svc PASSWORD", "+OK"}, {"SET k v", "+OK"}, {"ACL WHOAMI", "$3"},
		}},
		{"off, without users", false, nil, [][2]string{
			{"PING", "+PONG"}, {"AUTH password", "-ERR AUTH <password> called without"}, {"AUTH default password", "+OK"}, {"AUTH other password", wrongPass}, {"SET k v", "+OK"}, {"ACL WHOAMI", "$7"},
		}},
		{"off, with users", false, append(users, fallback), [][2]string{
			{"SET k v", "+OK"}, {"AUTH default wrong-password", wrongPass}, {"AUTH PASSWORD", "+OK"}, {"SET k v", "-NOPERM"}, {"RESET", "+RESET"}, {"SET k v", "+OK"},
		}},
	} {
		t.Run(x.name, func(t *testing.T) {
			transports(t, func(t *testing.T, cfg Config) {
				cfg.Authentication = x.authentication
				fc := newFakeCluster(t, cfg, 1, 1, 1)
				fc.allow(x.users...)
				c := dialRedis(t, fc.nodes[1].redisAddr)
				for _, line := range x.lines {
					words := strings.Fields(line[0])
					for i, w := range words {
						if w == "PASSWORD" {
							words[i] = testPassword
						}
					}
					if got := c.call(words...); !strings.HasPrefix(got, line[1]) {
						t.Errorf("%s: %q, want %s", line[0], got, line[1])
					}
				}
			})
		})
	}
}
