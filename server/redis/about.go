package redis

import (
	"fmt"

	"github.com/proa-kv/proa/server/resp"
)

// Commands that describe rows, commands and the server, for tools.

// rowOverheadBytes is about what a row takes beside its key and value, on disk
// and in the row cache.
const rowOverheadBytes = 64

// cmdMemoryUsage plans MEMORY USAGE: what a row takes, however many samples.
func cmdMemoryUsage(_ *processor, x *plan) {
	for i := 3; i < len(x.args); i += 2 {
		if !isWord(x.args[i], "samples") || i+1 == len(x.args) || x.integer(i+1) < 0 {
			x.fail(resp.ErrSyntax)
		}
	}
	x.a = int64(len(x.args[2]) + rowOverheadBytes)
	x.readPart(2, 1, 0, replyUsage)
}

// cmdRole answers as a master without replicas: what replicas have is for
// Proa to know.
func cmdRole(_ *processor, x *plan) {
	x.reply = resp.AppendArray(x.reply, 3)
	x.reply = resp.AppendBulk(x.reply, "master")
	x.reply = resp.AppendInt(x.reply, 0)
	x.reply = resp.AppendArray(x.reply, 0)
}

// cmdCommandList answers COMMAND LIST with the names that a filter lets
// through.
func cmdCommandList(_ *processor, x *plan) {
	lets := func(*resp.Command) bool { return true }
	if len(x.args) > 2 {
		if len(x.args) != 5 || !isWord(x.args[2], "filterby") {
			x.fail(resp.ErrSyntax)
			return
		}
		switch value := x.args[4]; {
		case isWord(x.args[3], "pattern"):
			lets = func(cmd *resp.Command) bool { return resp.Match(value, []byte(cmd.Name), true) }
		case isWord(x.args[3], "aclcat"):
			lets = func(cmd *resp.Command) bool { return cmd.InCategory(value) }
		case isWord(x.args[3], "module"): // there are none
			lets = func(*resp.Command) bool { return false }
		default:
			x.fail(resp.ErrSyntax)
			return
		}
	}
	var names []string
	for _, cmd := range resp.Commands() {
		for _, one := range append([]*resp.Command{cmd}, cmd.Subcommands...) {
			// Subcommands are listed where a filter is given.
			if (one == cmd || len(x.args) > 2) && lets(one) {
				names = append(names, one.Name)
			}
		}
	}
	x.reply = resp.AppendArray(x.reply, len(names))
	for _, name := range names {
		x.reply = resp.AppendBulk(x.reply, name)
	}
}

// commandWithKeys finds the command in args, which has to have keys.
func (x *plan) commandWithKeys(args [][]byte) *resp.Command {
	cmd := resp.Lookup(args[0])
	if cmd != nil && cmd.Subcommands != nil && len(args) > 1 {
		cmd = cmd.Subcommand(args[1])
	}
	switch {
	case cmd == nil:
		x.fail(resp.ErrCommandNotFound)
	case cmd.FirstKey == 0:
		x.fail(resp.ErrCommandNoKeys)
	case !cmd.CheckArity(len(args)):
		x.fail(resp.ErrCommandArguments)
	default:
		return cmd
	}
	return nil
}

func cmdCommandGetKeys(_ *processor, x *plan) {
	args := x.args[2:]
	cmd := x.commandWithKeys(args)
	if cmd == nil {
		return
	}
	keys := appendKeys(nil, cmd, args)
	x.reply = resp.AppendArray(x.reply, len(keys))
	for _, key := range keys {
		x.reply = resp.AppendBulk(x.reply, key)
	}
}

func cmdCommandGetKeysAndFlags(_ *processor, x *plan) {
	args := x.args[2:]
	cmd := x.commandWithKeys(args)
	if cmd == nil {
		return
	}
	list := cmd.KeysAndFlags(args)
	x.reply = resp.AppendArray(x.reply, len(list))
	for _, k := range list {
		x.reply = resp.AppendArray(x.reply, 2)
		x.reply = resp.AppendBulk(x.reply, k.Key)
		x.reply = resp.AppendSet(x.reply, x.proto(), len(k.Flags))
		for _, flag := range k.Flags {
			x.reply = resp.AppendSimple(x.reply, flag)
		}
	}
}

func cmdConfigResetStat(p *processor, x *plan) {
	sum := p.l.srv.Calls()
	p.l.mu.Lock()
	p.l.ignored = sum
	p.l.mu.Unlock()
	x.ok()
}

// commandStats writes a line for each command that was called. How long they
// took is in the metrics, and not by command; which failed is not counted by
// command, so the line is that of a Redis before 6.2.
func (l *Listener) commandStats(i *info) {
	sum := l.srv.Calls()
	l.mu.Lock()
	for id := range sum {
		sum[id] -= l.ignored[id]
	}
	l.mu.Unlock()
	for _, cmd := range resp.Commands() {
		for _, one := range append([]*resp.Command{cmd}, cmd.Subcommands...) {
			if n := sum[one.ID]; n > 0 {
				i.line("cmdstat_"+one.Name, fmt.Sprintf("calls=%d,usec=0,usec_per_call=0.00", n))
			}
		}
	}
}
