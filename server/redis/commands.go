package redis

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/proa-kv/proa/protocol"
	"github.com/proa-kv/proa/server/resp"
)

// version is the version of Redis whose commands, replies and errors the
// listener has; clients choose by it what they use.
const version = "7.0.15"

// handlers says what becomes of each command.
var handlers [256]handler

var loadHandlers = sync.OnceFunc(func() {
	handler := func(name string) *handler { return &handlers[resp.LookupFull([]byte(name)).ID] }
	for name, f := range map[string]func(*processor, *plan){
		"set": cmdSet, "getdel": cmdGetDel, "getex": cmdGetEX, "mget": cmdMGet, "mset": cmdMSet, "msetnx": cmdMSetNX,
		"append": cmdAppend, "getrange": cmdGetRange, "substr": cmdGetRange, "setrange": cmdSetRange,
		"incrbyfloat": cmdIncrByFloat, "del": cmdDel, "unlink": cmdDel, "exists": cmdExists, "touch": cmdExists, "copy": cmdCopy,
		"object|help": cmdHelp, "unwatch": cmdUnwatch, "ping": cmdPing,
		"select": cmdSelect, "time": cmdTime, "info": cmdInfo, "client|getname": cmdClientGetName,
		"client|setname": cmdClientSetName, "client|setinfo": cmdClientSetInfo, "client|info": cmdClientSelf,
		"client|list": cmdClientList, "client|kill": cmdClientKill, "client|no-evict": cmdClientSwitch,
		"client|no-touch": cmdClientSwitch, "client|help": cmdHelp, "command": cmdCommandAll,
		"command|docs": cmdCommandDocs, "command|info": cmdCommandInfo, "command|getkeys": cmdCommandGetKeys,
		"command|help": cmdHelp, "command|list": cmdCommandList, "command|getkeysandflags": cmdCommandGetKeysAndFlags,
		"config|get": cmdConfigGet, "config|set": cmdConfigSet, "config|help": cmdHelp, "config|resetstat": cmdConfigResetStat,
		"role": cmdRole, "memory|usage": cmdMemoryUsage, "memory|help": cmdHelp, "cluster|slots": cmdClusterSlots,
		"cluster|shards": cmdClusterShards, "cluster|nodes": cmdClusterNodes, "cluster|info": cmdClusterInfo,
		"cluster|help": cmdHelp, "cluster|replicas": cmdClusterReplicas, "cluster|slaves": cmdClusterReplicas,
	} {
		handler(name).translate = f
	}
	for name, f := range map[string]func(*plan){
		"get":         func(x *plan) { x.read(1, protocol.OpGet, replyValue) },
		"setnx":       func(x *plan) { x.plainPut(2, protocol.WriteIfAbsent, replyBool) },
		"setex":       func(x *plan) { x.putFor(1000) },
		"psetex":      func(x *plan) { x.putFor(1) },
		"getset":      func(x *plan) { x.plainPut(2, protocol.WriteReturnPrevious, replyPrevious) },
		"strlen":      func(x *plan) { x.readPart(1, 1, 0, replyLength) },
		"incr":        func(x *plan) { x.incr(1) },
		"decr":        func(x *plan) { x.incr(-1) },
		"incrby":      func(x *plan) { x.incrBy(1) },
		"decrby":      func(x *plan) { x.incrBy(-1) },
		"type":        func(x *plan) { x.read(1, protocol.OpExists, replyType) },
		"ttl":         func(x *plan) { x.read(1, protocol.OpExists, replyTTL) },
		"pttl":        func(x *plan) { x.read(1, protocol.OpExists, replyPTTL) },
		"expiretime":  func(x *plan) { x.read(1, protocol.OpExpiry, replyExpireTime) },
		"pexpiretime": func(x *plan) { x.read(1, protocol.OpExpiry, replyPExpireTime) },
		"expire":      func(x *plan) { x.expire(1000, false) },
		"pexpire":     func(x *plan) { x.expire(1, false) },
		"expireat":    func(x *plan) { x.expire(1000, true) },
		"pexpireat":   func(x *plan) { x.expire(1, true) },
		"persist": func(x *plan) {
			x.setExpiry(protocol.SetExpiry{Flags: protocol.ExpiryRemove | protocol.ExpiryIfSome}, replyBool)
		},
		"rename":          func(x *plan) { x.rename(0, replyRenamed) },
		"renamenx":        func(x *plan) { x.rename(protocol.RenameIfAbsent, replyRenamedNX) },
		"object|encoding": func(x *plan) { x.readPart(2, 0, embeddedBytesMax, replyEncoding) }, // one byte more than is embedded
		"object|freq":     func(x *plan) { x.read(2, protocol.OpExists, replyFrequency) },      // as in a Redis that evicts nothing
		"object|idletime": func(x *plan) { x.read(2, protocol.OpExists, replyIdleTime) },       // Proa keeps no time of access
		"object|refcount": func(x *plan) { x.read(2, protocol.OpExists, replyRefCount) },
		"echo":            func(x *plan) { x.reply = resp.AppendBulk(x.reply, x.args[1]) },
		"client|id":       func(x *plan) { x.reply = resp.AppendInt(x.reply, int64(x.c.ID())) },
		"command|count":   func(x *plan) { x.reply = resp.AppendInt(x.reply, int64(len(resp.Commands()))) },
		"cluster|keyslot": func(x *plan) { x.reply = resp.AppendInt(x.reply, int64(protocol.Slot(x.args[2]))) },
		"cluster|myid":    func(x *plan) { x.reply = resp.AppendBulk(x.reply, x.c.l.nodeID(x.c.l.cfg.Node)) },
		"readonly":        func(x *plan) { x.c.readOnly = true; x.ok() },
		"readwrite":       func(x *plan) { x.c.readOnly = false; x.ok() },
		"cluster|links":   func(x *plan) { x.reply = resp.AppendArray(x.reply, 0) }, // there is no bus between nodes
		"asking":          func(x *plan) { x.ok() },                                 // ASK is never sent: one node serves a shard at any time
	} {
		handler(name).translate = func(_ *processor, x *plan) { f(x) }
	}
	for name, f := range map[string]func(*processor, *conn, *plan) bool{
		"hello": cmdHello, "auth": cmdAuth, "acl|whoami": cmdACLWhoAmI,
		"multi": cmdMulti, "exec": cmdExec, "discard": cmdDiscard, "watch": cmdWatch,
		"quit": cmdQuit, "reset": cmdReset, "wait": cmdWait,
		"scan": cmdScan, "keys": cmdKeys, "dbsize": cmdDBSize, "randomkey": cmdRandomKey,
		"flushall": cmdFlush, "flushdb": cmdFlush,
		"cluster|countkeysinslot": cmdClusterCountKeysInSlot, "cluster|getkeysinslot": cmdClusterGetKeysInSlot,
	} {
		handler(name).control = f
	}
	handler("hello").translate = cmdHelloInTxn
	for _, name := range []string{"exec", "discard", "multi", "watch", "quit", "reset"} {
		handler(name).immediate = true
	}
	conns := func(p *processor, _ *conn) int { return p.l.srv.Conns() }
	shards := func(p *processor, _ *conn) int { return p.l.backend.Shards() }
	for name, need := range clusterRights {
		handler(name).need = need
	}
	for name, f := range map[string]func(*processor, *conn) int{
		"exec": weighExec, "client|list": conns, "client|kill": conns,
		"cluster|slots": shards, "cluster|shards": shards, "cluster|nodes": shards,
	} {
		handler(name).weigh = f
	}
})

// Error is the text of an error in the words of Redis.
func (c *conn) Error(_ uint64, s protocol.Status, _ uint32, message string) []byte {
	switch s {
	case protocol.StatusShuttingDown:
		return resp.AppendError(nil, "CLUSTERDOWN "+message)
	case protocol.StatusBusy:
		return resp.AppendError(nil, "TRYAGAIN "+message)
	case protocol.StatusTooManyConns:
		return resp.AppendError(nil, resp.ErrMaxClients)
	case protocol.StatusUnauthenticated:
		return resp.AppendError(nil, "NOAUTH "+message)
	}
	return resp.AppendError(nil, "ERR "+message)
}

// Last answers what is under way, and a command that was not carried out.
func (c *conn) Last(answer []byte) (frames []byte) {
	add := func(number uint64) {
		c.l.countError(answer)
		frames = appendVerbatim(frames, requestID(number, 0), answer)
	}
	if w := c.walk; w != nil {
		c.dropWalk()
		add(w.number)
	}
	if c.retrying != 0 {
		add(c.retrying)
		c.retrying = 0
	}
	c.newPending()
	add(c.push())
	return frames
}

// endAfterReplies reads nothing more and closes the connection once everything
// is answered, the command that is being carried out as well. The reader calls
// it.
func (c *conn) endAfterReplies() {
	c.Stop()
	c.last = true
}

// lastIsAnswered goes on after endAfterReplies, when the last answer is in the
// output: whoever writes may close the connection from now on.
func (c *conn) lastIsAnswered() {
	c.last = false
	c.CloseAfterReplies()
}

// Leave releases the transaction and the walk.
func (c *conn) Leave() {
	c.endTransaction()
	c.dropWalk()
}

func cmdPing(_ *processor, x *plan) {
	switch len(x.args) {
	case 1:
		x.reply = append(x.reply, "+PONG\r\n"...)
	case 2:
		x.reply = resp.AppendBulk(x.reply, x.args[1])
	default:
		x.fail(resp.WrongArity(x.cmd.Name))
	}
}

func cmdTime(_ *processor, x *plan) {
	now := time.Now()
	var text [20]byte
	x.reply = resp.AppendArray(x.reply, 2)
	x.reply = resp.AppendBulk(x.reply, itoa(text[:0], now.Unix()))
	x.reply = resp.AppendBulk(x.reply, itoa(text[:0], int64(now.Nanosecond()/1000)))
}

// databases is how many databases a Redis has where nobody says otherwise.
const databases = 16

func cmdSelect(_ *processor, x *plan) {
	switch n := x.integer(1); {
	case n != int64(int32(n)):
		x.fail("ERR value is out of range, value must between -2147483648 and 2147483647")
	case 0 < n && n < databases:
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

func cmdQuit(p *processor, c *conn, x *plan) bool {
	c.endAfterReplies()
	x.ok()
	return false
}

func cmdReset(p *processor, c *conn, x *plan) bool {
	c.endTransaction()
	c.proto, c.readOnly = resp.RESP2, false
	c.info.proto.Store(resp.RESP2)
	c.info.name.Store("")
	c.Logout()
	c.noteLogin()
	x.reply = append(x.reply, "+RESET\r\n"...)
	return false
}

// cmdWait answers how many replicas are certain to have what this connection
// has written: an acknowledged write is on a majority, of which the leader is
// one. There is nothing to wait for but the acknowledgements themselves.
func cmdWait(p *processor, c *conn, x *plan) (held bool) {
	x.integer(1)
	timeout, ok := resp.ParseInt(x.args[2])
	switch {
	case x.failed:
		return false
	case !ok:
		return x.fail(resp.ErrTimeoutNotInteger)
	case timeout < 0:
		return x.fail(resp.ErrTimeoutNegative)
	}
	if c.head.Load() <= c.lastWrite && c.awaitAnswer(c.lastWrite) {
		return true
	}
	certain := -1
	for _, s := range p.l.topology().Shards {
		if n := len(s.Replicas) / 2; certain < 0 || n < certain {
			certain = n
		}
	}
	x.reply = resp.AppendInt(x.reply, int64(max(certain, 0)))
	return false
}

func cmdHelp(_ *processor, x *plan) {
	x.reply = resp.AppendHelp(x.reply, resp.Lookup(x.args[0]))
}

func cmdCommandAll(_ *processor, x *plan) {
	all := resp.Commands()
	x.reply = resp.AppendArray(x.reply, len(all))
	for _, cmd := range all {
		x.reply = resp.AppendCommandInfo(x.reply, x.proto(), cmd)
	}
}

func cmdCommandInfo(p *processor, x *plan) {
	if len(x.args) == 2 {
		cmdCommandAll(p, x)
		return
	}
	x.reply = resp.AppendArray(x.reply, len(x.args)-2)
	for _, name := range x.args[2:] {
		x.reply = resp.AppendCommandInfo(x.reply, x.proto(), resp.LookupFull(name))
	}
}

func cmdCommandDocs(_ *processor, x *plan) {
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

// settings are the settings of Redis that tools ask for, as they hold
// here.
func (l *Listener) settings() [][2]string {
	cfg := l.cfg
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

func cmdConfigGet(p *processor, x *plan) {
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
	for _, s := range p.l.settings() {
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

// cmdConfigSet accepts what holds already: the settings are made at start.
func cmdConfigSet(p *processor, x *plan) {
	if len(x.args)%2 != 0 {
		x.fail(resp.WrongArity(x.cmd.Name))
		return // there is a setting without a value
	}
	settings := p.l.settings()
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
		case !same:
			x.fail(resp.ConfigFailed(string(x.args[i]), "Proa settings cannot be changed at run time; see docs/configuration.md"))
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

// cmdInfo answers INFO with the fields of Redis that are true of Proa, under
// the names by which its tools look for it.
func cmdInfo(p *processor, x *plan) {
	i := &info{wanted: func(section string) bool {
		for _, a := range x.args[1:] {
			if isWord(a, section) || isWord(a, "all") || isWord(a, "default") || isWord(a, "everything") {
				return true
			}
		}
		return len(x.args) == 1
	}}
	l := p.l
	st := l.srv.Status()
	up := time.Duration(st.UptimeMS) * time.Millisecond
	i.section("server", "Server")
	i.line("redis_version", version)
	i.line("redis_mode", l.mode())
	i.line("proa_version", l.cfg.Version)
	i.line("os", runtime.GOOS+" "+runtime.GOARCH)
	i.number("arch_bits", strconv.IntSize)
	i.number("process_id", int64(os.Getpid()))
	i.line("run_id", l.nodeID(l.cfg.Node))
	i.line("tcp_port", l.port())
	i.number("server_time_usec", time.Now().UnixMicro())
	i.number("uptime_in_seconds", int64(up/time.Second))
	i.number("uptime_in_days", int64(up/(24*time.Hour)))
	i.section("clients", "Clients")
	i.number("connected_clients", int64(st.Connections))
	i.number("maxclients", int64(l.cfg.ConnectionsMax))
	i.number("blocked_clients", 0)
	i.section("memory", "Memory")
	i.number("used_memory", st.MemoryBytes)
	i.line("used_memory_human", strconv.FormatFloat(float64(st.MemoryBytes)/(1<<20), 'f', 2, 64)+"M")
	i.number("maxmemory", 0)
	i.line("maxmemory_policy", "noeviction")
	i.section("persistence", "Persistence")
	i.number("loading", 0)
	i.number("aof_enabled", 1)
	i.number("rdb_changes_since_last_save", 0)
	i.section("stats", "Stats")
	i.number("total_connections_received", int64(st.Accepted))
	i.number("total_commands_processed", int64(st.Redis))
	i.number("total_net_input_bytes", int64(st.BytesIn))
	i.number("total_net_output_bytes", int64(st.BytesOut))
	i.number("rejected_connections", int64(st.Rejected))
	i.number("total_error_replies", int64(st.Errors))
	i.section("replication", "Replication")
	i.line("role", "master")
	if i.on {
		i.number("connected_slaves", int64(max(0, len(l.topology().Nodes)-1)))
	}
	i.section("cpu", "CPU")
	i.line("used_cpu_user", strconv.FormatFloat(float64(st.CPUMicros)/1e6, 'f', 6, 64))
	i.line("used_cpu_sys", "0.000000")
	asked := func(a []byte) bool { return isWord(a, "commandstats") || isWord(a, "all") || isWord(a, "everything") }
	if slices.ContainsFunc(x.args[1:], asked) {
		i.section("commandstats", "Commandstats")
		l.commandStats(i)
	}
	i.section("cluster", "Cluster")
	i.number("cluster_enabled", 1) // the cluster commands answer, whatever the view
	i.section("keyspace", "Keyspace")
	if i.on {
		if n := l.keyCount(); n.keys > 0 {
			i.line("db0", fmt.Sprintf("keys=%d,expires=%d,avg_ttl=%.0f", n.keys, n.expires, n.ttl))
		}
	}
	x.reply = resp.AppendVerbatim(x.reply, x.proto(), "txt", i.text)
}
