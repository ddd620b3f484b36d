package redis

import (
	"bytes"
	"strings"
	"time"

	"github.com/proa-kv/proa/access"
	"github.com/proa-kv/proa/bufpool"
	"github.com/proa-kv/proa/internal/wrongport"
	"github.com/proa-kv/proa/protocol"
	"github.com/proa-kv/proa/server"
	"github.com/proa-kv/proa/server/resp"
)

// processor carries out commands for one thread. It is the Scratch of the
// server's Processor.
type processor struct {
	*server.Processor
	l       *Listener
	plan    plan           // of the present command
	nothing bufpool.Buffer // where reads without a value do not put it
}

// Consume carries out the whole commands in b.
func (c *conn) Consume(sp *server.Processor, b []byte) (taken, need int) {
	p, _ := sp.Scratch.(*processor)
	if p == nil || p.l != c.l {
		p = &processor{Processor: sp, l: c.l}
		sp.Scratch = p
	}
	taken, need = c.consumeCommands(p, b)
	c.parser.Trim()
	c.countParser()
	return taken, need
}

// countParser counts what the parser holds among the input of all connections.
func (c *conn) countParser() {
	if held := c.parser.Held(); held != c.parsing {
		c.l.srv.CountInput(held - c.parsing)
		c.parsing = held
	}
}

// DropInput drops what is known of a command that is not whole.
func (c *conn) DropInput() {
	c.parser.Reset()
	c.parser.Trim()
	c.countParser()
}

// Forget drops what is known of the last command.
func (c *conn) Forget() { c.parser.Forget() }

// Continues reports whether a walk is under way.
func (c *conn) Continues() bool { return c.walk != nil }

// Sized reports whether the size of the command at the front is known.
func (c *conn) Sized() bool { return c.parser.Sized() }

// wrongProtocol refuses c if its first bytes, b, are of another protocol. Nearly any
// bytes are the beginning of a command. more says that more of b is needed to
// decide; none of it must be carried out before.
func (c *conn) wrongProtocol(b []byte) (refused, more bool) {
	caller, more := wrongport.Recognize(b)
	switch caller {
	case wrongport.Unknown:
		// A line is a command, however short.
		return false, more && bytes.IndexByte(b, '\n') < 0
	case wrongport.RESP:
		return false, false
	case wrongport.HTTP:
		if yes, more := wrongport.RequestLine(b); !yes {
			return false, more
		}
	}
	c.RefuseProtocol(caller, b)
	return true, false
}

func (c *conn) consumeCommands(p *processor, b []byte) (taken, need int) {
	c.awaited.Store(0)
	for !c.Paused() && !c.Stopped() && p.Credit() > 0 {
		if c.Dropped() {
			c.dropWalk()
			return len(b), 0
		}
		if c.walk != nil {
			if !p.continueWalk(c) {
				break
			}
			continue
		}
		if taken == len(b) {
			break
		}
		if c.full() {
			c.SendOutput()
			if c.full() && c.awaitAnswer(c.tail.Load()-pendingMax/2) {
				continue
			}
		}
		if !c.Greeted() {
			switch refused, more := c.wrongProtocol(b[taken:]); {
			case refused:
				return len(b), 0
			case more:
				return taken, len(b) - taken + 1
			}
		}
		n, want, err := c.parser.Next(b[taken:])
		if err != nil {
			c.Refuse(0, err)
			return len(b), 0
		}
		if n == 0 {
			return taken, max(want, len(b)-taken+1)
		}
		if len(c.parser.Args) > 0 {
			if !c.Greeted() {
				c.Greet()
				_, _ = c.Login("", "") // where it needs no password
				c.noteLogin()
			}
			p.Spend(1 + len(c.parser.Args)/wordsPerCredit)
			if p.command(c, c.parser.Args, n) {
				continue // held: what it waits for may be there by now
			}
			if c.last {
				c.lastIsAnswered()
			}
		}
		taken += n
		c.PauseIfOverloaded(p.Processor)
	}
	return taken, 0
}

// handler carries out a command. One of the two is set; if both are, translate is for
// transactions.
type handler struct {
	// translate makes a plan of the command, which may stand in a transaction.
	translate func(p *processor, x *plan)
	// control acts on the connection, and leaves a reply of its own in the plan. It
	// returns true, with nothing changed, if the command has to wait for others.
	control func(p *processor, c *conn, x *plan) (held bool)

	immediate bool                            // carried out at once between MULTI and EXEC
	weigh     func(p *processor, r *conn) int // beyond the request itself; nil: nothing
	need      access.Rights                   // of the cluster
}

// command carries out one command of size bytes, or returns true if it has
// to wait, for the answers of others or for a thread that has the time: then it
// is to be called again.
func (p *processor) command(c *conn, args [][]byte, size int) (held bool) {
	cmd, problem := resp.Resolve(args)
	if problem != "" {
		p.Count(0, 1)
		p.refuseCommand(c, args, problem)
		return false
	}
	if !p.Affords(c.Conn, p.weigh(c, cmd, args, size)) {
		return true
	}
	if !p.authorized(c, cmd, args) {
		p.Count(uint8(cmd.ID), 1)
		return false
	}
	p.Count(uint8(cmd.ID), 1)
	if held = p.carryOutKnown(c, cmd, args); held { // it comes again
		p.Count(uint8(cmd.ID), ^uint64(0))
	}
	return held
}

const (
	wordsPerCredit = 16 // that are parsed
	narrowWords    = 16 // a command of no more words counts for one
)

// weigh says for how much a command counts, beside one: args are its
// words, of size bytes.
func (p *processor) weigh(c *conn, cmd *resp.Command, args [][]byte, size int) int {
	w := size / server.BytesPerCredit
	if len(args) > narrowWords {
		w += len(args)
	}
	if f := handlers[cmd.ID].weigh; f != nil {
		w += f(p, c)
	}
	return w
}

// weighExec counts the commands of a transaction, and the keys it watches.
func weighExec(_ *processor, r *conn) (w int) {
	if t := r.txn; t != nil {
		w = len(t.queue) + t.words + t.bytes/server.BytesPerCredit
	}
	for _, x := range r.watches {
		w += len(x.keys)
	}
	return w
}

// refuseCommand answers what cannot be carried out.
func (p *processor) refuseCommand(c *conn, args [][]byte, problem string) {
	if p.mistaken(c, args, problem) {
		return
	}
	if t := c.txn; t != nil {
		t.broken = true
	}
	p.answerError(c, problem)
}

// carryOutKnown is command for a command that there is, with words enough.
func (p *processor) carryOutKnown(c *conn, cmd *resp.Command, args [][]byte) (held bool) {
	if c.info.last.Load() != cmd {
		c.info.last.Store(cmd)
	}
	h := &handlers[cmd.ID]
	x := &p.plan
	x.reset(c, cmd, args, false)
	switch {
	case c.txn != nil && !h.immediate:
		p.queue(c, x, h)
		return false
	case h.control != nil:
		if held = h.control(p, c, x); !held && len(x.reply) > 0 {
			p.answer(c, x.reply)
		}
		return held
	}
	h.translate(p, x)
	return p.carryOut(c, x)
}

// mistaken deals with requests that cannot be carried out and are no ordinary
// mistakes.
func (p *processor) mistaken(c *conn, args [][]byte, problem string) bool {
	switch {
	case isWord(args[0], "post"), isWord(args[0], "host:"):
		// A browser has been made to talk to this port. Nothing that it sends
		// must be carried out or answered.
		c.l.foreigner.Warn(c.l.cfg.Logger, "closed an HTTP connection on the Redis port", "peer", c.Remote())
		c.Stop()
		c.HangUp()
		return true
	case isWord(args[0], "exec"):
		c.endTransaction()
		p.answerError(c, "EXECABORT Transaction discarded because of: "+strings.TrimPrefix(problem, "ERR "))
		return true
	}
	return false
}

// carryOut sends the requests of a plan on their way, or answers it. It returns
// true if the plan has to wait.
func (p *processor) carryOut(c *conn, x *plan) (held bool) {
	if len(x.ops) == 0 && !x.hasPut {
		p.answer(c, x.reply)
		return false
	}
	stale := false
	if c.readOnly || p.l.redirect {
		var to string
		if to, stale = p.redirect(c, x.keys, x.write); to != "" {
			p.answerError(c, to)
			return false
		}
	}
	switch {
	case c.retrying != 0 && c.retryInOrder:
		x.throughLog(c.retryBytes)
	case !x.write && !stale && c.retrying == 0 && c.meetsWrite(x.keys) && p.readsInOrder(c, x):
	case p.mustWait(c, x.keys, x.write):
		return true
	}
	return p.launch(c, x, nil, stale)
}

// launch pushes a pending reply, which holds more, and dispatches the requests of a
// plan. stale says that a replica here may answer with whatever it has. Where a
// queue is full that the only request has to go into, launch returns true: the
// command keeps its pending reply and is to be tried again.
func (p *processor) launch(c *conn, x *plan, more any, stale bool) (held bool) {
	number := c.retrying
	if c.retrying = 0; number == 0 {
		s := c.newPending()
		s.shape, s.more = x.shape, more
		s.left = int32(max(len(x.ops), 1))
		number = c.push()
	}
	begun := c.Begun()
	o := server.Options{InOrder: x.inOrder, ReplyBytes: x.extraBytes}
	if len(x.ops) <= 1 {
		waited := c.waited()
		o.RetryFull = waited < p.l.cfg.RequestTimeout
		o.RetryNoLeader = waited < min(server.LeaderWait, p.l.cfg.RequestTimeout)
	}
	var done server.Effects
	if x.hasPut {
		done = p.Put(c.Conn, requestID(number, 0), &x.put, o)
	}
	for i := range x.ops {
		f := protocol.Frame{Header: protocol.Header{Code: uint8(x.ops[i].Code), ID: requestID(number, i)}, Body: x.ops[i].Body}
		if stale {
			f.Flags, f.Extensions = protocol.FlagExtensions, staleExtensions
		}
		e := p.Dispatch(c.Conn, &f, o)
		done.SentOn, done.Retry = done.SentOn || e.SentOn, done.Retry || e.Retry
	}
	switch {
	case done.Retry:
		c.retrying, c.retryInOrder, c.retryBytes = number, x.inOrder, x.extraBytes
		if c.retrySince.IsZero() {
			c.retrySince = time.Now()
		}
		c.AwaitQueue()
		return true
	case x.write:
		c.noteWrite(number, x, done.SentOn || x.mayBeOvertaken() || p.spans(x.keys))
	case x.inOrder && !done.SentOn && !x.mayBeOvertaken(): // in the order of the writes
		c.lastInOrder = number
	case c.Begun() != begun:
		c.noteRead(number, x.keys)
	}
	c.retrySince = time.Time{}
	return false
}

// waited is how long the command at the front of the input has waited for room
// in a queue, or for a leader.
func (c *conn) waited() time.Duration {
	if c.retrySince.IsZero() {
		return 0
	}
	return time.Since(c.retrySince)
}

// staleExtensions are those of a read that any replica may answer.
var staleExtensions = func() []byte {
	x := protocol.Extensions{Consistency: protocol.Stale}
	return x.AppendTo(nil)[2:]
}()

// answer sends the listener's own reply to the command being carried out. A large one
// finds room among the replies, or there is an error in its place: it has been
// made, and cannot wait.
func (p *processor) answer(c *conn, reply []byte) {
	if p.RepliesFull(c.Conn, len(reply)) {
		reply = resp.AppendError(nil, errNoReplyMemory)
	}
	number := c.retrying
	c.retrySince = time.Time{}
	if c.retrying = 0; number == 0 {
		c.newPending()
		number = c.push()
	}
	p.l.countError(reply)
	p.Append(c.Conn, verbatimCode, requestID(number, 0), reply)
}

// errNoReplyMemory is the error for a large reply for which there is no room.
const errNoReplyMemory = "TRYAGAIN " + server.NoReplyMemory

// answerError is answer with an error.
func (p *processor) answerError(c *conn, text string) {
	p.plan.reply = resp.AppendError(p.plan.reply[:0], text)
	p.answer(c, p.plan.reply)
}

// redirect returns the error that sends a client to the
// node that leads the shard of keys, or "" if the request is to be served here.
// stale says that it is to be answered by the replica here.
func (p *processor) redirect(c *conn, keys [][]byte, write bool) (text string, stale bool) {
	l := p.l
	if len(keys) == 0 {
		return "", false
	}
	slot := protocol.Slot(keys[0])
	shard := l.backend.ShardOf(slot)
	for _, key := range keys[1:] {
		if l.shardOf(key) != shard {
			return "", false // for several nodes: served from here
		}
	}
	leader := l.backend.Leader(shard)
	if leader == l.cfg.Node {
		return "", false
	}
	if c.readOnly && !write && l.backend.Holds(shard) {
		return "", true // also where no leader is known, as without a majority
	}
	if leader == 0 || !l.redirect {
		return "", false
	}
	if address := l.addressOf(leader); address != "" {
		return resp.Moved(slot, address), false
	}
	return "", false
}
