package redis

import (
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/proa-kv/proa/server"
	"github.com/proa-kv/proa/server/resp"
)

func cmdClientGetName(_ *processor, x *plan) {
	if name := textOf(&x.c.info.name); name != "" {
		x.reply = resp.AppendBulk(x.reply, name)
	} else {
		x.reply = resp.AppendNull(x.reply, x.proto())
	}
}

// textOf is the string in v, or "".
func textOf(v *atomic.Value) string {
	text, _ := v.Load().(string)
	return text
}

// printable reports whether a name can stand in a line of CLIENT LIST.
func printable(name []byte) bool {
	for _, c := range name {
		if c < '!' || c > '~' {
			return false
		}
	}
	return true
}

// nameBytesMax bounds the names that a connection may be given.
const nameBytesMax = 1 << 10

func cmdClientSetName(_ *processor, x *plan) {
	x.setName(x.args[2])
	x.ok()
}

// setName names the connection.
func (x *plan) setName(name []byte) {
	switch {
	case !printable(name):
		x.fail(resp.ErrClientName)
	case len(name) > nameBytesMax:
		x.fail("ERR the name is longer than 1024 bytes")
	default:
		x.c.info.name.Store(string(name))
	}
}

func cmdClientSetInfo(_ *processor, x *plan) {
	value := x.args[3]
	i := &x.c.info
	library := isWord(x.args[2], "lib-name")
	switch {
	case !library && !isWord(x.args[2], "lib-ver"):
		x.fail("ERR Unrecognized option '" + string(x.args[2]) + "'")
	case !printable(value) || len(value) > nameBytesMax:
		x.fail("ERR " + strings.ToLower(string(x.args[2])) + " cannot contain spaces, newlines or special characters.")
	case library:
		i.lib.Store(string(value))
	default:
		i.version.Store(string(value))
	}
	x.ok()
}

func cmdClientSelf(_ *processor, x *plan) {
	x.reply = resp.AppendVerbatim(x.reply, x.proto(), "txt", x.c.appendInfo(nil))
}

func cmdClientList(p *processor, x *plan) {
	var ids map[uint64]bool
	switch {
	case len(x.args) == 2:
	case len(x.args) == 4 && isWord(x.args[2], "type"):
		if !x.clientType(x.args[3]) {
			ids = map[uint64]bool{}
		}
	case len(x.args) > 3 && isWord(x.args[2], "id"):
		ids = make(map[uint64]bool)
		for _, a := range x.args[3:] {
			ids[x.clientID(a, resp.ErrClientID)] = true
		}
	default:
		x.fail(resp.ErrSyntax)
	}
	if x.failed {
		return
	}
	var text []byte
	p.l.srv.EachConn(func(sc *server.Conn) {
		if c, ok := sc.Translator().(*conn); ok && (ids == nil || ids[c.ID()]) {
			text = c.appendInfo(text)
		}
	})
	x.reply = resp.AppendVerbatim(x.reply, x.proto(), "txt", text)
}

// clientType reports whether there can be clients of a type here. The command fails
// where Redis does not know it.
func (x *plan) clientType(name []byte) bool {
	switch {
	case isWord(name, "normal"):
		return true
	case isWord(name, "master"), isWord(name, "slave"), isWord(name, "replica"), isWord(name, "pubsub"):
	default:
		x.fail(resp.UnknownClientType(name))
	}
	return false
}

// clientID reads the number of a connection. The command fails with problem where
// it is none.
func (x *plan) clientID(arg []byte, problem string) uint64 {
	n, ok := resp.ParseInt(arg)
	if !ok || n < 1 {
		x.fail(problem)
	}
	return uint64(n)
}

// appendInfo appends c's line of CLIENT LIST. From any thread.
func (c *conn) appendInfo(dst []byte) []byte {
	i := &c.info
	command := "NULL"
	if cmd := i.last.Load(); cmd != nil {
		command = cmd.Name
	}
	now := time.Now()
	in, out, queued := c.InFlightBytes(), int64(c.Backlog()), i.queued.Load()
	dst = fmt.Appendf(dst, "id=%d addr=%s laddr=%s fd=%d name=%s age=%d idle=%d flags=N db=0 sub=0 psub=0 ssub=0 multi=%d",
		c.ID(), c.Remote(), c.l.address(), c.Descriptor(), textOf(&i.name), now.Sub(i.since)/time.Second, c.IdleMillis(now.UnixMilli())/1000, i.multi.Load())
	// Replies stand in one buffer, and in no list.
	dst = fmt.Appendf(dst, " qbuf=%d qbuf-free=0 argv-mem=%d multi-mem=%d rbs=%d rbp=%d obl=0 oll=0 omem=%d tot-mem=%d events=r",
		in, queued, queued, out, out, out, in+out+queued)
	return fmt.Appendf(dst, " cmd=%s user=%s redir=-1 resp=%d lib-name=%s lib-ver=%s\n", command, c.userName(), i.proto.Load(), textOf(&i.lib), textOf(&i.version))
}

// killFilter says which connections CLIENT KILL closes.
type killFilter struct {
	id       uint64
	addr     string
	local    string
	nobody   bool // a type that no connection has
	user     string
	skipSelf bool
}

func (k *killFilter) matches(c, self *conn) bool {
	switch {
	case k.nobody, k.skipSelf && c == self, k.user != "" && c.userName() != k.user:
		return false
	case k.id != 0 && c.ID() != k.id, k.addr != "" && c.Remote() != k.addr, k.local != "" && c.l.address() != k.local:
		return false
	}
	return true
}

func cmdClientKill(p *processor, x *plan) {
	k := killFilter{skipSelf: true}
	old := len(x.args) == 3
	if old {
		k.addr, k.skipSelf = string(x.args[2]), false
	} else if x.readKillFilter(&k); x.failed {
		return
	}
	killed := 0
	p.l.srv.EachConn(func(sc *server.Conn) {
		c, ok := sc.Translator().(*conn)
		if !ok || !k.matches(c, x.c) || c.killed.Swap(true) {
			return // or it is about to go
		}
		killed++
		if c != x.c {
			c.HangUp()
			return
		}
		c.endAfterReplies()
	})
	switch {
	case !old:
		x.reply = resp.AppendInt(x.reply, int64(killed))
	case killed == 0:
		x.fail(resp.ErrNoSuchClient)
	default:
		x.ok()
	}
}

// readKillFilter reads the options of CLIENT KILL.
func (x *plan) readKillFilter(k *killFilter) {
	for i := 2; i < len(x.args); i += 2 {
		if i+1 == len(x.args) {
			x.fail(resp.ErrSyntax)
			return
		}
		value := x.args[i+1]
		switch {
		case isWord(x.args[i], "id"):
			k.id = x.clientID(value, resp.ErrKillID)
		case isWord(x.args[i], "type"):
			k.nobody = !x.clientType(value) || k.nobody
		case isWord(x.args[i], "addr"):
			k.addr = string(value)
		case isWord(x.args[i], "laddr"):
			k.local = string(value)
		case isWord(x.args[i], "user"):
			if k.user = string(value); k.user != "default" && x.c.l.backend.Access().Account(k.user) == nil {
				x.fail("ERR No such user '" + k.user + "'")
			}
		case isWord(x.args[i], "skipme") && (isWord(value, "yes") || isWord(value, "no")):
			k.skipSelf = isWord(value, "yes")
		default:
			x.fail(resp.ErrSyntax)
		}
	}
}

// cmdClientSwitch answers CLIENT NO-EVICT and NO-TOUCH: Proa evicts no
// client, and keeps no time of access.
func cmdClientSwitch(_ *processor, x *plan) {
	if !isWord(x.args[2], "on") && !isWord(x.args[2], "off") {
		x.fail(resp.ErrSyntax)
	}
	x.ok()
}
