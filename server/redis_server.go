package server

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"runtime/metrics"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/proa-kv/proa/protocol"
	"github.com/proa-kv/proa/server/resp"
)

// redisVersion is the version of Redis whose commands, replies and errors the
// door has; clients choose by it what they use.
const redisVersion = "7.0.15"

// redisHandlers says what becomes of each command.
var redisHandlers [256]redisHandler

var loadRedisHandlers = sync.OnceFunc(func() {
	handler := func(name string) *redisHandler { return &redisHandlers[resp.LookupFull([]byte(name)).ID] }
	for name, f := range map[string]func(*processor, *redisPlan){
		"get": redisGet, "set": redisSet, "setnx": redisSetNX, "setex": redisSetEX,
		"psetex": redisPSetEX, "getset": redisGetSet, "getdel": redisGetDel, "getex": redisGetEX,
		"mget": redisMGet, "mset": redisMSet, "msetnx": redisMSetNX, "strlen": redisStrlen,
		"append": redisAppend, "getrange": redisGetRange, "substr": redisGetRange, "setrange": redisSetRange,
		"incr": redisIncr, "incrby": redisIncrBy, "decr": redisDecr, "decrby": redisDecrBy,
		"incrbyfloat": redisIncrByFloat,

		"del": redisDel, "unlink": redisDel, "exists": redisExists, "touch": redisExists,
		"type": redisType, "ttl": redisTTL, "pttl": redisPTTL, "expiretime": redisExpireTime,
		"pexpiretime": redisPExpireTime, "expire": redisExpire, "pexpire": redisPExpire,
		"expireat": redisExpireAt, "pexpireat": redisPExpireAt, "persist": redisPersist,
		"rename": redisRename, "renamenx": redisRenameNX, "copy": redisCopy,
		"object|encoding": redisObjectEncoding, "object|help": redisHelp,
		"object|freq": redisObjectFreq, "object|idletime": redisObjectIdleTime, "object|refcount": redisObjectRefCount,

		"unwatch": redisUnwatch,

		"ping": redisPing, "echo": redisEcho, "hello": redisHello, "auth": redisAuth,
		"select": redisSelect, "time": redisTime, "info": redisInfo,
		"client|id": redisClientID, "client|getname": redisClientGetName, "client|setname": redisClientSetName,
		"client|setinfo": redisClientSetInfo, "client|info": redisClientSelf, "client|list": redisClientList,
		"client|kill": redisClientKill, "client|no-evict": redisClientSwitch, "client|no-touch": redisClientSwitch,
		"client|help": redisHelp,
		"command":     redisCommandAll, "command|count": redisCommandCount, "command|docs": redisCommandDocs,
		"command|info": redisCommandInfo, "command|getkeys": redisCommandGetKeys, "command|help": redisHelp,
		"command|list": redisCommandList, "command|getkeysandflags": redisCommandGetKeysAndFlags,
		"config|get": redisConfigGet, "config|set": redisConfigSet, "config|help": redisHelp, "config|resetstat": redisConfigResetStat,
		"role": redisRole, "memory|usage": redisMemoryUsage, "memory|help": redisHelp,

		"cluster|slots": redisClusterSlots, "cluster|shards": redisClusterShards, "cluster|nodes": redisClusterNodes,
		"cluster|info": redisClusterInfo, "cluster|keyslot": redisClusterKeySlot, "cluster|myid": redisClusterMyID,
		"cluster|help": redisHelp, "cluster|replicas": redisClusterReplicas, "cluster|slaves": redisClusterReplicas,
		"cluster|links": redisClusterLinks,
		"readonly":      redisReadOnly, "readwrite": redisReadWrite, "asking": redisAsking,
	} {
		handler(name).translate = f
	}
	for name, f := range map[string]func(*processor, *conn, *redisPlan) bool{
		"multi": redisMulti, "exec": redisExec, "discard": redisDiscard, "watch": redisWatchKeys,
		"quit": redisQuit, "reset": redisReset, "wait": redisWait,
		"scan": redisScan, "keys": redisKeys, "dbsize": redisDBSize, "randomkey": redisRandomKey,
		"flushall": redisFlush, "flushdb": redisFlush,
		"cluster|countkeysinslot": redisClusterCountKeysInSlot, "cluster|getkeysinslot": redisClusterGetKeysInSlot,
	} {
		handler(name).control = f
	}
	for _, name := range []string{"exec", "discard", "multi", "watch", "quit", "reset"} {
		handler(name).immediate = true
	}
	conns := func(p *processor, _ *redisConn) int { return p.srv.conns.len() }
	shards := func(p *processor, _ *redisConn) int { return p.srv.backend.Shards() }
	for name, f := range map[string]func(*processor, *redisConn) int{
		"exec": weighExec, "client|list": conns, "client|kill": conns,
		"cluster|slots": shards, "cluster|shards": shards, "cluster|nodes": shards,
	} {
		handler(name).weigh = f
	}
})

// redisFarewell is what a client hears that is not taken on.
func (s *Server) redisFarewell() []byte {
	if s.draining.Load() {
		return resp.AppendError(nil, "CLUSTERDOWN the server is shutting down")
	}
	s.counters.rejected.Add(1)
	return resp.AppendError(nil, resp.ErrMaxClients)
}

// sendLastRedis is sendLast for a connection that speaks RESP: what it sends is an
// answer of its own to what was not carried out.
func (c *conn) sendLastRedis(reply []byte) {
	r := c.redis
	if w := r.walk; w != nil {
		c.dropWalk()
		c.mu.Lock()
		c.appendVerbatim(requestID(w.number, 0), reply)
		c.mu.Unlock()
	}
	if r.again != 0 {
		c.mu.Lock()
		c.appendVerbatim(requestID(r.again, 0), reply)
		c.mu.Unlock()
		r.again = 0
	}
	r.fresh()
	id := requestID(r.push(), 0)
	c.mu.Lock()
	c.appendVerbatim(id, reply)
	c.closing = true
	c.mu.Unlock()
	c.tr.kick(c)
}

// endAfterReplies reads nothing more and closes the connection once everything
// is answered, the command that is being carried out as well. The reader calls
// it.
func (c *conn) endAfterReplies() {
	c.refused, c.redis.last = true, true
}

// lastIsAnswered goes on after endAfterReplies, when the last answer is in the
// output: whoever writes may close the connection from now on.
func (c *conn) lastIsAnswered() {
	c.redis.last = false
	c.mu.Lock()
	c.closing = true
	c.mu.Unlock()
	c.tr.kick(c)
}

// leave lets go of what the reader of a connection that is gone holds.
func (c *conn) leave() {
	if c.redis != nil {
		c.endTransaction()
		c.dropWalk()
	}
}

func redisPing(_ *processor, x *redisPlan) {
	switch len(x.args) {
	case 1:
		x.reply = append(x.reply, "+PONG\r\n"...)
	case 2:
		x.reply = resp.AppendBulk(x.reply, x.args[1])
	default:
		x.fail(resp.WrongArity(x.cmd.Name))
	}
}

func redisEcho(_ *processor, x *redisPlan) { x.reply = resp.AppendBulk(x.reply, x.args[1]) }

func redisTime(_ *processor, x *redisPlan) {
	now := time.Now()
	var text [20]byte
	x.reply = resp.AppendArray(x.reply, 2)
	x.reply = resp.AppendBulk(x.reply, itoa(text[:0], now.Unix()))
	x.reply = resp.AppendBulk(x.reply, itoa(text[:0], int64(now.Nanosecond()/1000)))
}

// redisDatabases is how many databases a Redis has where nobody says otherwise.
const redisDatabases = 16

func redisSelect(_ *processor, x *redisPlan) {
	switch n, ok := x.integer(1); {
	case !ok:
	case n != int64(int32(n)):
		x.fail("ERR value is out of range, value must between -2147483648 and 2147483647")
	case 0 < n && n < redisDatabases:
		// A Redis has it. Whoever does not look at the answer must not go on
		// in another database than it means.
		x.fail("ERR DB index is out of range: Proa only has database 0, and closes connections that select another")
		x.c.endAfterReplies()
	case n != 0:
		x.fail(resp.ErrDBIndex)
	default:
		x.ok()
	}
}

// redisAuth answers as a Redis without a password: there is only the user
// default, who needs none.
func redisAuth(_ *processor, x *redisPlan) {
	switch {
	case len(x.args) > 3:
		x.fail(resp.ErrSyntax)
	case len(x.args) == 2:
		x.fail(resp.ErrNoPassword)
	case string(x.args[1]) != "default":
		x.fail(resp.ErrWrongPass)
	default:
		x.ok()
	}
}

func redisHello(p *processor, x *redisPlan) {
	r := x.c.redis
	proto := r.proto
	var name []byte
	named := false
	if len(x.args) > 1 {
		n, ok := resp.ParseInt(x.args[1])
		switch {
		case !ok:
			x.fail(resp.ErrProtoNumber)
			return
		case n != resp.RESP2 && n != resp.RESP3:
			x.fail(resp.ErrNoProto)
			return
		}
		proto = uint8(n)
	}
	for i := 2; i < len(x.args); i++ {
		switch {
		case isWord(x.args[i], "auth") && i+2 < len(x.args):
			if string(x.args[i+1]) != "default" {
				x.fail(resp.ErrWrongPass)
				return
			}
			i += 2
		case isWord(x.args[i], "setname") && i+1 < len(x.args):
			name, named = x.args[i+1], true
			i++
		default:
			x.fail(resp.HelloOption(x.args[i]))
			return
		}
	}
	if named && !x.setName(name) {
		return
	}
	r.proto = proto
	r.info.proto.Store(int32(proto))
	x.reply = resp.AppendMap(x.reply, int(proto), 7)
	pair := func(k, v string) { x.reply = resp.AppendBulk(resp.AppendBulk(x.reply, k), v) }
	pair("server", "redis")
	pair("version", redisVersion)
	x.reply = resp.AppendInt(resp.AppendBulk(x.reply, "proto"), int64(proto))
	x.reply = resp.AppendInt(resp.AppendBulk(x.reply, "id"), int64(x.c.id))
	pair("mode", p.srv.redisMode())
	pair("role", "master")
	x.reply = resp.AppendArray(resp.AppendBulk(x.reply, "modules"), 0)
}

func redisQuit(p *processor, c *conn, x *redisPlan) bool {
	x.ok()
	p.answer(c, x.reply)
	c.endAfterReplies()
	return false
}

func redisReset(p *processor, c *conn, x *redisPlan) bool {
	r := c.redis
	c.endTransaction()
	r.proto, r.readOnly = resp.RESP2, false
	r.info.proto.Store(resp.RESP2)
	r.info.mu.Lock()
	r.info.name = ""
	r.info.mu.Unlock()
	p.answer(c, append(x.reply, "+RESET\r\n"...))
	return false
}

// redisWait answers how many replicas are certain to have what this connection
// has written: an acknowledged write is on a majority, of which the leader is
// one. There is nothing to wait for but the acknowledgements themselves.
func redisWait(p *processor, c *conn, x *redisPlan) (held bool) {
	if _, ok := x.integer(1); !ok {
		p.answer(c, x.reply)
		return false
	}
	timeout, ok := resp.ParseInt(x.args[2])
	switch {
	case !ok:
		p.answerError(c, resp.ErrTimeoutNotInteger)
		return false
	case timeout < 0:
		p.answerError(c, resp.ErrTimeoutNegative)
		return false
	}
	if r := c.redis; r.head.Load() <= r.lastWrite && c.holdFor(r.lastWrite) {
		return true
	}
	certain := -1
	for _, s := range p.srv.topology().Shards {
		if n := len(s.Replicas) / 2; certain < 0 || n < certain {
			certain = n
		}
	}
	p.answer(c, resp.AppendInt(x.reply, int64(max(certain, 0))))
	return false
}

func redisHelp(_ *processor, x *redisPlan) {
	x.reply = resp.AppendHelp(x.reply, resp.Lookup(x.args[0]))
}

func redisCommandAll(_ *processor, x *redisPlan) {
	all := resp.Commands()
	x.reply = resp.AppendArray(x.reply, len(all))
	for _, cmd := range all {
		x.reply = resp.AppendCommandInfo(x.reply, x.proto(), cmd)
	}
}

func redisCommandCount(_ *processor, x *redisPlan) {
	x.reply = resp.AppendInt(x.reply, int64(len(resp.Commands())))
}

func redisCommandInfo(p *processor, x *redisPlan) {
	if len(x.args) == 2 {
		redisCommandAll(p, x)
		return
	}
	x.reply = resp.AppendArray(x.reply, len(x.args)-2)
	for _, name := range x.args[2:] {
		x.reply = resp.AppendCommandInfo(x.reply, x.proto(), resp.LookupFull(name))
	}
}

func redisCommandDocs(_ *processor, x *redisPlan) {
	list := resp.Commands()
	if len(x.args) > 2 {
		list = nil
		for _, name := range x.args[2:] {
			if cmd := resp.LookupFull(name); cmd != nil {
				list = append(list, cmd)
			}
		}
	}
	x.reply = resp.AppendMap(x.reply, x.proto(), len(list))
	for _, cmd := range list {
		x.reply = resp.AppendCommandDocs(x.reply, x.proto(), cmd)
	}
}

// redisSettings are the settings of Redis that tools ask for, as they hold
// here.
func (s *Server) redisSettings() [][2]string {
	cfg := &s.cfg
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	seconds := func(d time.Duration) string { return number(max(0, int64(d/time.Second))) }
	return [][2]string{
		{"save", ""},
		{"appendonly", "yes"},
		{"appendfsync", "always"},
		{"maxmemory", "0"},
		{"maxmemory-policy", "noeviction"},
		{"maxclients", number(int64(cfg.ConnectionsMax))},
		{"databases", "1"},
		{"timeout", seconds(cfg.IdleTimeout)},
		{"tcp-keepalive", seconds(cfg.KeepAlive)},
		{"proto-max-bulk-len", number(min(protocol.ValueBytesMax, int64(cfg.FrameBytesMax)))},
		{"client-query-buffer-limit", number(int64(cfg.FrameBytesMax))},
		{"cluster-enabled", "yes"},
		{"requirepass", ""},
		{"notify-keyspace-events", ""},
		{"replica-read-only", "yes"},
		{"slave-read-only", "yes"},
	}
}

// configPatternsMax bounds the patterns of one CONFIG GET together, in bytes, each
// of which is compared with each setting.
const configPatternsMax = 4 << 10

func redisConfigGet(p *processor, x *redisPlan) {
	size := 0
	for _, pattern := range x.args[2:] {
		size += len(pattern) + 1
	}
	if size > configPatternsMax {
		x.fail(resp.ErrPattern)
		return
	}
	patterns := make([]*resp.Pattern, len(x.args)-2)
	for i, pattern := range x.args[2:] {
		patterns[i], _ = resp.CompilePattern(pattern, true)
	}
	var found [][2]string
	for _, s := range p.srv.redisSettings() {
		for i, pattern := range x.args[2:] {
			if patterns[i].Match([]byte(s[0])) {
				if len(pattern) == len(s[0]) && !bytes.ContainsAny(pattern, "*?[") {
					s[0] = string(pattern) // as it was written
				}
				found = append(found, s)
				break
			}
		}
	}
	x.reply = resp.AppendMap(x.reply, x.proto(), len(found))
	for _, s := range found {
		x.reply = resp.AppendBulk(resp.AppendBulk(x.reply, s[0]), s[1])
	}
}

// redisConfigSet accepts what holds already: the settings are made at start.
func redisConfigSet(p *processor, x *redisPlan) {
	if len(x.args)%2 != 0 {
		x.fail(resp.WrongArity(x.cmd.Name))
		return
	}
	settings := p.srv.redisSettings()
	for i := 2; i < len(x.args); i += 2 {
		known, same := false, false
		for _, s := range settings {
			if isWord(x.args[i], s[0]) {
				known, same = true, s[1] == string(x.args[i+1])
			}
		}
		switch {
		case !known:
			x.fail(resp.UnknownConfig(x.args[i]))
			return
		case !same:
			x.fail(resp.ConfigFailed(string(x.args[i]), "Proa settings cannot be changed at run time; see docs/configuration.md"))
			return
		}
	}
	x.ok()
}

// info is INFO being written.
type info struct {
	text   []byte
	wanted func(section string) bool
	on     bool // in a section that is wanted
}

func (i *info) section(name, title string) {
	if i.on = i.wanted(name); !i.on {
		return
	}
	if len(i.text) > 0 {
		i.text = append(i.text, "\r\n"...)
	}
	i.text = append(append(append(i.text, "# "...), title...), "\r\n"...)
}

func (i *info) line(name, value string) {
	if i.on {
		i.text = append(append(append(append(i.text, name...), ':'), value...), "\r\n"...)
	}
}

func (i *info) number(name string, n int64) { i.line(name, strconv.FormatInt(n, 10)) }

// redisInfo answers INFO with what is true of Proa among what Redis tells, under
// the names by which its tools look for it.
func redisInfo(p *processor, x *redisPlan) {
	i := &info{wanted: func(section string) bool {
		for _, a := range x.args[1:] {
			if isWord(a, section) || isWord(a, "all") || isWord(a, "default") || isWord(a, "everything") {
				return true
			}
		}
		return len(x.args) == 1
	}}
	s := p.srv
	c := &s.counters
	up := time.Since(s.started)
	i.section("server", "Server")
	i.line("redis_version", redisVersion)
	i.line("redis_mode", s.redisMode())
	i.line("proa_version", s.cfg.Version)
	i.line("os", runtime.GOOS+" "+runtime.GOARCH)
	i.number("arch_bits", strconv.IntSize)
	i.number("process_id", int64(os.Getpid()))
	i.line("run_id", s.redisNodeID(s.cfg.Node))
	i.line("tcp_port", s.redisPort())
	i.number("server_time_usec", time.Now().UnixMicro())
	i.number("uptime_in_seconds", int64(up/time.Second))
	i.number("uptime_in_days", int64(up/(24*time.Hour)))
	i.section("clients", "Clients")
	i.number("connected_clients", int64(s.conns.len()))
	i.number("maxclients", int64(s.cfg.ConnectionsMax))
	i.number("blocked_clients", 0)
	i.section("memory", "Memory")
	if i.on {
		used := usedMemory()
		i.number("used_memory", used)
		i.line("used_memory_human", strconv.FormatFloat(float64(used)/(1<<20), 'f', 2, 64)+"M")
		i.number("maxmemory", 0)
		i.line("maxmemory_policy", "noeviction")
	}
	i.section("persistence", "Persistence")
	i.number("loading", 0)
	i.number("aof_enabled", 1)
	i.number("rdb_changes_since_last_save", 0)
	i.section("stats", "Stats")
	i.number("total_connections_received", int64(c.accepted.Load()))
	i.number("total_commands_processed", int64(s.RedisCommands()))
	i.number("total_net_input_bytes", int64(c.bytesIn.Load()))
	i.number("total_net_output_bytes", int64(c.bytesOut.Load()))
	i.number("rejected_connections", int64(c.rejected.Load()))
	if i.on {
		i.number("total_error_replies", int64(c.errors.sum()))
	}
	i.section("replication", "Replication")
	i.line("role", "master")
	if i.on {
		i.number("connected_slaves", int64(max(0, len(s.topology().Nodes)-1)))
	}
	i.section("cpu", "CPU")
	i.line("used_cpu_user", strconv.FormatFloat(processCPU().Seconds(), 'f', 6, 64))
	i.line("used_cpu_sys", "0.000000")
	asked := func(a []byte) bool { return isWord(a, "commandstats") || isWord(a, "all") || isWord(a, "everything") }
	if slices.ContainsFunc(x.args[1:], asked) {
		i.section("commandstats", "Commandstats")
		s.commandStats(i)
	}
	i.section("cluster", "Cluster")
	i.number("cluster_enabled", 1) // the cluster commands answer, whatever the view
	i.section("keyspace", "Keyspace")
	if i.on {
		if n := s.keyCount(); n.keys > 0 {
			i.line("db0", fmt.Sprintf("keys=%d,expires=%d,avg_ttl=%.0f", n.keys, n.expires, n.ttl))
		}
	}
	x.reply = resp.AppendVerbatim(x.reply, x.proto(), "txt", i.text)
}

// heldMemory is how much memory the Go runtime holds, in bytes, touched or not.
// The row cache lies outside of it.
func heldMemory() int64 {
	samples := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(samples)
	return int64(samples[0].Value.Uint64() - samples[1].Value.Uint64())
}
