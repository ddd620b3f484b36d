package redis

import (
	"context"
	"errors"
	"slices"

	"github.com/proa-kv/proa/access"
	"github.com/proa-kv/proa/server/resp"
)

// Who a connection belongs to, in Redis's words. AUTH with a password alone is of the user
// `default`. What a command may do with keys is decided when its native requests are
// carried out; what it tells of the whole server or cluster, here.

// clusterRights are the rights that commands take, beside those on keys. The table's commands
// of the categories admin and dangerous are all here, or in harmless.
var clusterRights = map[string]access.Rights{
	"info": access.Monitor, "role": access.Monitor, "config|get": access.Monitor, "client|list": access.Monitor,
	"config|set": access.Admin, "config|resetstat": access.Admin, "client|kill": access.Admin,
}

// harmless are commands that Redis counts among the admin or dangerous ones, and that take no
// rights here, or those of their native requests: what they delete, and what they show of
// keys.
var harmless = []string{"flushall", "flushdb", "keys", "client|no-evict", "cluster|replicas", "cluster|slaves"}

// authorized reports whether a command may be carried out as far as it does not depend on
// keys, and answers it where it may not.
func (p *processor) authorized(c *conn, cmd *resp.Command, args [][]byte) bool {
	switch need := handlers[cmd.ID].need; {
	case cmd.Flags&resp.FlagNoAuth == 0 && !c.Authenticated():
		p.refuseCommand(c, args, resp.ErrNoAuth)
	case !c.Can(need):
		c.AuditDenied(cmd.Name, resp.NoPermission(cmd.Name))
		p.refuseCommand(c, args, resp.NoPermission(cmd.Name))
	default:
		return true
	}
	return false
}

// noteLogin has the parser take as much as of a client that has authenticated, or less.
func (c *conn) noteLogin() { c.parser.Unauthenticated = !c.Authenticated() }

// login makes c that of a user; problem is the error to answer. held says that the password
// is being verified, and the command is to come again.
func (c *conn) login(user, password string) (held bool, problem string) {
	if policy := c.l.backend.Access(); user == "default" && !c.l.cfg.Authentication && policy.Account(user) == nil {
		return false, "" // as in a Redis without a password: any is good
	}
	pending, err := c.Login(user, password)
	var slow *access.SlowDownError
	switch {
	case pending:
		return true, ""
	case err == nil:
		c.noteLogin()
		return false, ""
	}
	c.AuditLogin(user, "AUTH", err)
	switch {
	case errors.As(err, &slow):
		return false, "WRONGPASS " + err.Error()
	case errors.Is(err, access.ErrCrowded), errors.Is(err, access.ErrNoUsers) && c.l.cfg.Authentication, errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return false, "TRYAGAIN " + err.Error()
	}
	return false, resp.ErrWrongPass
}

func cmdAuth(_ *processor, c *conn, x *plan) (held bool) {
	user := "default"
	switch len(x.args) {
	case 2:
		if !c.l.cfg.Authentication && c.l.backend.Access().Account(user) == nil {
			return x.fail(resp.ErrNoPassword)
		}
	case 3:
		user = string(x.args[1])
	default:
		return x.fail(resp.ErrSyntax)
	}
	held, problem := c.login(user, string(x.args[len(x.args)-1]))
	switch {
	case held:
	case problem != "":
		x.fail(problem)
	default:
		x.ok()
	}
	return held
}

func cmdHello(p *processor, c *conn, x *plan) (held bool) {
	proto := c.proto
	if len(x.args) > 1 {
		n, ok := resp.ParseInt(x.args[1])
		switch {
		case !ok:
			x.fail(resp.ErrProtoNumber)
		case n != resp.RESP2 && n != resp.RESP3:
			x.fail(resp.ErrNoProto)
		}
		proto = uint8(n)
	}
	var name, user, password []byte
	named, auth := false, false
	for i := 2; i < len(x.args); i++ {
		switch {
		case isWord(x.args[i], "auth") && i+2 < len(x.args):
			user, password, auth = x.args[i+1], x.args[i+2], true
			i += 2
		case isWord(x.args[i], "setname") && i+1 < len(x.args):
			name, named = x.args[i+1], true
			i++
		default:
			x.fail(resp.HelloOption(x.args[i]))
		}
	}
	if auth && !x.failed {
		held, problem := c.login(string(user), string(password))
		if held {
			return true
		}
		if problem != "" {
			x.fail(problem)
		}
	}
	if !x.failed && !c.Authenticated() {
		x.fail(resp.ErrNoAuthHello)
	}
	if named && !x.failed {
		x.setName(name)
	}
	if x.failed {
		return false
	}
	c.proto = proto
	c.info.proto.Store(int32(proto))
	x.reply = resp.AppendMap(x.reply, int(proto), 7)
	pair := func(k, v string) { x.reply = resp.AppendBulk(resp.AppendBulk(x.reply, k), v) }
	pair("server", "redis")
	pair("version", version)
	x.reply = resp.AppendInt(resp.AppendBulk(x.reply, "proto"), int64(proto))
	x.reply = resp.AppendInt(resp.AppendBulk(x.reply, "id"), int64(c.ID()))
	pair("mode", p.l.mode())
	pair("role", "master")
	x.reply = resp.AppendArray(resp.AppendBulk(x.reply, "modules"), 0)
	return false
}

// cmdHelloInTxn is HELLO between MULTI and EXEC, where it cannot wait for a password.
func cmdHelloInTxn(p *processor, x *plan) {
	if slices.ContainsFunc(x.args[1:], func(a []byte) bool { return isWord(a, "auth") }) {
		x.fail("ERR AUTH is not available inside MULTI")
		return
	}
	cmdHello(p, x.c, x)
}

// userName is the name of c's user; nobody's is default, as in Redis.
func (c *conn) userName() string {
	if u := c.User(); u != "" {
		return u
	}
	return "default"
}

func cmdACLWhoAmI(_ *processor, c *conn, x *plan) (held bool) {
	x.reply = resp.AppendBulk(x.reply, c.userName())
	return false
}

// mayTouch reports whether c may use the keys of a command at all: read those that it only
// reads, write the others. So a transaction is refused when the command is queued. What else
// it takes is decided at EXEC.
func (c *conn) mayTouch(cmd *resp.Command, args [][]byte) bool {
	if c.User() == "" && c.Authenticated() {
		return true // nobody's rights are not limited
	}
	for _, k := range cmd.KeysAndFlags(args) {
		need := access.Write
		if slices.Contains(k.Flags, "RO") || cmd.Name == "getex" { // which may only read
			need = access.Read
		}
		if !c.May(k.Key, need) {
			return false
		}
	}
	return true
}
