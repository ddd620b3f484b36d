package server

import (
	"fmt"
	"strconv"
	"sync"

	"github.com/proa-kv/proa/protocol"
	"github.com/proa-kv/proa/server/resp"
)

// Commands that tell of rows, of commands and of the server what tools ask for.

// rowOverheadBytes is about what a row takes beside its key and value, on disk
// and in the row cache.
const rowOverheadBytes = 64

// redisMemoryUsage plans MEMORY USAGE: what a row takes, however many samples.
func redisMemoryUsage(_ *processor, x *redisPlan) {
	for i := 3; i < len(x.args); i += 2 {
		if !isWord(x.args[i], "samples") || i+1 == len(x.args) {
			x.fail(resp.ErrSyntax)
			return
		}
		n, ok := x.integer(i + 1)
		if !ok {
			return
		}
		if n < 0 {
			x.fail(resp.ErrSyntax)
			return
		}
	}
	x.a = int64(len(x.args[2]) + rowOverheadBytes)
	x.readPart(2, 1, 0, replyUsage, replyPartUsage)
}

// about plans a reply that depends only on whether the key in argument 2 is
// there.
func (x *redisPlan) about(kind replyKind) {
	if x.takeKey(2) {
		x.kind = kind
		x.add(protocol.OpExists, x.args[2])
	}
}

// redisObjectFreq plans OBJECT FREQ: as in a Redis that evicts nothing.
func redisObjectFreq(_ *processor, x *redisPlan) { x.about(replyFrequency) }

// redisObjectIdleTime plans OBJECT IDLETIME: Proa keeps no time of access.
func redisObjectIdleTime(_ *processor, x *redisPlan) { x.about(replyIdleTime) }

func redisObjectRefCount(_ *processor, x *redisPlan) { x.about(replyRefCount) }

// redisRole answers as a master without replicas: what replicas have is for
// Proa to know.
func redisRole(_ *processor, x *redisPlan) {
	x.reply = resp.AppendArray(x.reply, 3)
	x.reply = resp.AppendBulk(x.reply, "master")
	x.reply = resp.AppendInt(x.reply, 0)
	x.reply = resp.AppendArray(x.reply, 0)
}

// redisCommandList answers COMMAND LIST with the names that a filter lets
// through.
func redisCommandList(_ *processor, x *redisPlan) {
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
func (x *redisPlan) commandWithKeys(args [][]byte) *resp.Command {
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

func redisCommandGetKeys(_ *processor, x *redisPlan) {
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

func redisCommandGetKeysAndFlags(_ *processor, x *redisPlan) {
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

// redisClusterGetKeysInSlot answers the first keys of a slot, which it looks for
// among those of its shard.
func redisClusterGetKeysInSlot(p *processor, c *conn, x *redisPlan) (held bool) {
	n, ok := x.integer(2)
	if !ok {
		p.answer(c, x.reply)
		return false
	}
	count, ok := x.integer(3)
	if !ok {
		p.answer(c, x.reply)
		return false
	}
	if n < 0 || n >= protocol.Slots || count < 0 {
		p.answerError(c, "ERR Invalid slot or number of keys")
		return false
	}
	slot := uint16(n)
	w := &redisWalk{rows: walkRows, limit: p.srv.cfg.OutputBytesMax / 2, at: position{confined: true, shards: []uint16{uint16(p.srv.backend.ShardOf(slot))}}}
	w.take = func(w *redisWalk, keys [][]byte) walkStep {
		for _, key := range keys {
			if w.count == count {
				return walkEnd
			}
			if protocol.Slot(key) == slot {
				w.out = resp.AppendBulk(w.out, key)
				w.count++
			}
		}
		if len(w.out) > w.limit {
			w.fail = "ERR the keys exceed " + strconv.Itoa(w.limit) + " bytes; request fewer"
			return walkEnd
		}
		return walkOn
	}
	w.end = func(w *redisWalk, dst []byte, _ int) []byte {
		return append(resp.AppendArray(dst, int(w.count)), w.out...)
	}
	return p.walkOver(c, w)
}

// redisClusterLinks answers CLUSTER LINKS: there is no bus between nodes that
// speaks Redis's protocol.
func redisClusterLinks(_ *processor, x *redisPlan) { x.reply = resp.AppendArray(x.reply, 0) }

// redisCalls is how often each command was called, less what CONFIG RESETSTAT
// has taken off.
type redisCalls struct {
	mu   sync.Mutex
	past [256]uint64 // of threads that have ended
	off  [256]uint64
}

// sum returns the calls of each command since the server has started.
func (s *Server) sumCalls() (sum [256]uint64) {
	c := &s.counters
	c.mu.Lock()
	defer c.mu.Unlock()
	sum = c.calls.past
	for _, o := range c.counts {
		for id := range o.calls {
			sum[id] += o.calls[id].Load()
		}
	}
	return sum
}

func redisConfigResetStat(p *processor, x *redisPlan) {
	sum := p.srv.sumCalls()
	c := &p.srv.counters.calls
	c.mu.Lock()
	c.off = sum
	c.mu.Unlock()
	x.ok()
}

// commandStats writes a line for each command that was called. How long they
// took is told by the metrics, and not by command; which failed is not counted by
// command, so the line is that of a Redis before 6.2.
func (s *Server) commandStats(i *info) {
	sum := s.sumCalls()
	c := &s.counters.calls
	c.mu.Lock()
	for id := range sum {
		sum[id] -= c.off[id]
	}
	c.mu.Unlock()
	for _, cmd := range resp.Commands() {
		for _, one := range append([]*resp.Command{cmd}, cmd.Subcommands...) {
			if n := sum[one.ID]; n > 0 {
				i.line("cmdstat_"+one.Name, fmt.Sprintf("calls=%d,usec=0,usec_per_call=0.00", n))
			}
		}
	}
}
