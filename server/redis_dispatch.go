package server

import (
	"encoding/binary"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/protocol"
	"github.com/proa-kv/proa/server/resp"
)

// consumeRedis is consume for a connection that speaks RESP.
func (c *conn) consumeRedis(p *processor, b []byte) (taken, need int) {
	taken, need = c.consumeCommands(p, b)
	c.redis.parser.Trim()
	c.countParser()
	return taken, need
}

// countParser counts what the parser holds among the input of all connections.
func (c *conn) countParser() {
	r := c.redis
	if held := r.parser.Held(); held != r.parsing {
		c.srv.inputBytes.Add(int64(held - r.parsing))
		r.parsing = held
	}
}

// dropParser lets go of a command that is not whole. The reader calls it.
func (c *conn) dropParser() {
	c.redis.parser.Reset()
	c.redis.parser.Trim()
	c.countParser()
}

func (c *conn) consumeCommands(p *processor, b []byte) (taken, need int) {
	r := c.redis
	r.hold.Store(0)
	for !c.paused.Load() && !c.refused && p.credit > 0 {
		if r.gone.Load() {
			c.dropWalk()
			return len(b), 0
		}
		if r.walk != nil {
			if !p.goOn(c) {
				break
			}
			continue
		}
		if taken == len(b) {
			break
		}
		if r.crowded() {
			c.flush()
			if r.crowded() && c.holdFor(r.tail.Load()-slotsMax/2) {
				continue
			}
		}
		if !c.greeted {
			switch misled, more := c.misledRedis(b[taken:]); {
			case misled:
				return len(b), 0
			case more:
				return taken, len(b) - taken + 1
			}
		}
		n, want, err := r.parser.Next(b[taken:])
		if err != nil {
			c.refuse(0, err)
			return len(b), 0
		}
		if n == 0 {
			return taken, max(want, len(b)-taken+1)
		}
		if len(r.parser.Args) > 0 {
			if !c.greeted {
				c.greet()
			}
			p.credit -= 1 + len(r.parser.Args)/wordsPerCredit
			if p.redisCommand(c, r.parser.Args, n) {
				continue // held: what it waits for may be there by now
			}
			if r.last {
				c.lastIsAnswered()
			}
		}
		taken += n
		if c.overloaded(p.backlog) {
			c.pause()
		}
	}
	return taken, 0
}

// redisHandler carries out a command. One of the two is set.
type redisHandler struct {
	// translate makes a plan of the command, which may stand in a transaction.
	translate func(p *processor, x *redisPlan)
	// control acts on the connection. It returns true, with nothing changed, if
	// the command has to wait for others.
	control func(p *processor, c *conn, x *redisPlan) (held bool)

	immediate bool                                 // carried out at once between MULTI and EXEC
	weigh     func(p *processor, r *redisConn) int // beyond the request itself; nil: nothing
}

// redisPlan is what a command comes to: native requests, and how their answers
// become its reply; or a reply at once.
type redisPlan struct {
	c     *conn
	cmd   *resp.Command
	args  [][]byte
	inTxn bool // a MULTI's: each request becomes an operation of a TXN

	kind  replyKind
	write bool
	many  bool // of several outcomes
	a, b  int64
	keys  [][]byte // all that are touched
	ops   []redisOp
	body  []byte // what ops are encoded in
	reply []byte // where there are no ops

	unbounded bool // the rows it writes may be larger than they are and the request together
	inOrder   bool // it reads, and goes through the log
	yields    int  // bytes of the reply that are not in the request: of the rows that it then reads, at most, or of an EXEC's ready replies

	// A lone PUT is proposed from here, so that its value is not copied once
	// more.
	put    protocol.Put
	hasPut bool
}

// redisOp is a native request.
type redisOp struct {
	code protocol.Opcode
	body []byte
}

// redisScratchMax is how much memory a plan keeps for the next one, in bytes.
const redisScratchMax = 64 << 10

func (x *redisPlan) reset(c *conn, cmd *resp.Command, args [][]byte, inTxn bool) {
	clear(x.ops)
	clear(x.keys)
	if cap(x.body) > redisScratchMax {
		x.body = nil
	}
	if cap(x.reply) > redisScratchMax {
		x.reply = nil
	}
	if cap(x.keys) > redisScratchMax/16 {
		x.keys, x.ops = nil, nil
	}
	*x = redisPlan{
		c: c, cmd: cmd, args: args, inTxn: inTxn,
		keys: x.keys[:0], ops: x.ops[:0], body: x.body[:0], reply: x.reply[:0],
	}
}

// add plans a native request with this body.
func (x *redisPlan) add(code protocol.Opcode, body []byte) {
	x.ops = append(x.ops, redisOp{code, body})
}

// fail has the command answered with an error, and nothing done.
func (x *redisPlan) fail(text string) {
	x.ops, x.keys, x.hasPut, x.write = x.ops[:0], x.keys[:0], false, false
	x.reply = resp.AppendError(x.reply[:0], text)
}

// ok has the command answered with OK.
func (x *redisPlan) ok() { x.reply = append(x.reply, "+OK\r\n"...) }

// proto is the version of RESP the client has chosen.
func (x *redisPlan) proto() int { return int(x.c.redis.proto) }

// takeKey makes argument i a key of the command. It returns false, the command
// having failed, if it can be none.
func (x *redisPlan) takeKey(i int) bool {
	if n := len(x.args[i]); n < protocol.KeyBytesMin || n > protocol.KeyBytesMax {
		x.fail("ERR a key must have 1 to 8192 bytes, and this one has " + strconv.Itoa(n))
		return false
	}
	x.keys = append(x.keys, x.args[i])
	return true
}

// integer reads argument i.
func (x *redisPlan) integer(i int) (n int64, ok bool) {
	if n, ok = resp.ParseInt(x.args[i]); !ok {
		x.fail(resp.ErrNotInteger)
	}
	return n, ok
}

// redisCommand carries out one command of size bytes, or returns true if it has
// to wait, for the answers of others or for a thread that has the time: then it
// is to be called again.
func (p *processor) redisCommand(c *conn, args [][]byte, size int) (held bool) {
	cmd, problem := resp.Resolve(args)
	if problem != "" {
		p.counts.redis.Add(1)
		p.refuseCommand(c, args, problem)
		return false
	}
	if !p.affords(c, p.weighRedis(c, cmd, args, size)) {
		return true
	}
	p.counts.redis.Add(1)
	p.counts.calls[cmd.ID].Add(1)
	if held = p.redisKnown(c, cmd, args); held { // it comes again
		p.counts.redis.Add(^uint64(0))
		p.counts.calls[cmd.ID].Add(^uint64(0))
	}
	return held
}

// refuseCommand answers what cannot be carried out.
func (p *processor) refuseCommand(c *conn, args [][]byte, problem string) {
	if p.mistaken(c, args, problem) {
		return
	}
	if t := c.redis.txn; t != nil {
		t.broken = true
	}
	p.answerError(c, problem)
}

// redisKnown is redisCommand for a command that there is, with words enough.
func (p *processor) redisKnown(c *conn, cmd *resp.Command, args [][]byte) (held bool) {
	r := c.redis
	if r.info.last.Load() != cmd {
		r.info.last.Store(cmd)
	}
	h := &redisHandlers[cmd.ID]
	x := &p.plan
	x.reset(c, cmd, args, false)
	switch {
	case r.txn != nil && !h.immediate:
		p.queue(c, x, h)
		return false
	case h.control != nil:
		return h.control(p, c, x)
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
		// must be carried out, and nothing is told.
		c.srv.lines.foreigner.Warn(c.srv.log, "closed an HTTP connection on the Redis port", "peer", c.tr.remote(c))
		c.refused = true
		c.hangUp()
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
func (p *processor) carryOut(c *conn, x *redisPlan) (held bool) {
	if len(x.ops) == 0 && !x.hasPut {
		p.answer(c, x.reply)
		return false
	}
	r := c.redis
	stale := false
	if r.readOnly || p.srv.cfg.RedisRedirect {
		var to string
		if to, stale = p.redirect(c, x.keys, x.write); to != "" {
			p.answerError(c, to)
			return false
		}
	}
	switch {
	case r.again != 0 && r.againInOrder:
		x.throughLog(r.againYields)
	case !x.write && !stale && r.again == 0 && r.meetsWrite(x.keys) && p.readsInOrder(c, x):
	case p.mustWait(c, x.keys, x.write):
		return true
	}
	return p.launch(c, x, nil, stale)
}

// launch pushes a slot, which holds more, and dispatches the requests of a
// plan. stale says that a replica here may answer with whatever it has. Where a
// queue is full that the only request has to go into, launch returns true: the
// command keeps its slot and is to be tried again.
func (p *processor) launch(c *conn, x *redisPlan, more any, stale bool) (held bool) {
	r := c.redis
	number := r.again
	if r.again = 0; number == 0 {
		s := r.fresh()
		s.kind, s.write, s.a, s.b, s.more = x.kind, x.write, x.a, x.b, more
		s.left = int32(max(len(x.ops), 1))
		number = r.push()
	}
	begun := r.begun
	p.sentOn, p.full = false, false
	if len(x.ops) <= 1 {
		waited := r.waited()
		p.patient = waited < p.srv.cfg.RequestTimeout
		p.hopeful = waited < min(leaderPatience, p.srv.cfg.RequestTimeout)
	}
	p.inOrder, p.yields = x.inOrder, x.yields
	if x.hasPut {
		p.putDirectly(c, x, requestID(number, 0))
	}
	for i := range x.ops {
		f := protocol.Frame{Header: protocol.Header{Code: uint8(x.ops[i].code), ID: requestID(number, i)}, Body: x.ops[i].body}
		if stale {
			f.Flags, f.Extensions = protocol.FlagExtensions, staleExtensions
		}
		p.dispatch(c, &f)
	}
	p.patient, p.hopeful, p.inOrder, p.yields = false, false, false, 0
	switch {
	case p.full:
		r.again, r.againInOrder, r.againYields = number, x.inOrder, x.yields
		if r.againSince.IsZero() {
			r.againSince = time.Now()
		}
		c.awaitRoom()
		return true
	case x.write:
		r.noteWrite(number, x, p.sentOn || x.mayBeOvertaken() || p.spans(x.keys))
	case x.inOrder && !p.sentOn && !x.mayBeOvertaken(): // in the order of the writes
		r.lastInOrder = number
	case r.begun != begun:
		r.noteRead(number, x.keys)
	}
	r.againSince = time.Time{}
	return false
}

// waited is how long the command at the front of the input has waited for room
// in a queue, or for a leader.
func (r *redisConn) waited() time.Duration {
	if r.againSince.IsZero() {
		return 0
	}
	return time.Since(r.againSince)
}

// staleExtensions are those of a read that any replica may answer.
var staleExtensions = func() []byte {
	x := protocol.Extensions{Consistency: protocol.Stale}
	return x.AppendTo(nil)[2:]
}()

// putDirectly proposes a plan's PUT.
func (p *processor) putDirectly(c *conn, x *redisPlan, id uint64) {
	f := protocol.Frame{Header: protocol.Header{Code: uint8(protocol.OpPut), ID: id}}
	m := &x.put
	if p.srv.draining.Load() || p.srv.otherLeader(p.srv.backend.ShardOf(protocol.Slot(m.Key))) != 0 {
		f.Body = m.AppendTo(x.body[:0])
		x.body = f.Body[:0]
		p.dispatch(c, &f)
		return
	}
	p.counts.add(protocol.OpPut)
	if p.extended {
		p.clearExtensions()
	}
	p.cmd = command.Command{
		Kind: command.Put, Flags: command.Flags(m.Flags), Key: m.Key, Value: m.Value, TTLMillis: m.TTLMillis,
		Ops: p.cmd.Ops[:0], Else: p.cmd.Else[:0], Compares: p.cmd.Compares[:0],
	}
	shard := p.srv.backend.ShardOf(protocol.Slot(m.Key))
	err := p.enqueue(c, id, protocol.OpPut, shard)
	if errors.Is(err, command.ErrNotLeader) {
		f.Body = m.AppendTo(x.body[:0])
		x.body = f.Body[:0]
		p.sendOn(c, &f, shard)
		return
	}
	switch {
	case err == nil:
	case errors.Is(err, command.ErrBusy) && p.patient:
		p.full = true
	default:
		p.refuseProposal(c, id, err)
	}
}

// answer is the door's own reply to the command being carried out. A large one
// finds room among the replies, or there is an error in its place: it has been
// made, and cannot wait.
func (p *processor) answer(c *conn, reply []byte) {
	r := c.redis
	if p.crowded(c, len(reply)) {
		reply = resp.AppendError(nil, errCrowded)
	}
	number := r.again
	r.againSince = time.Time{}
	if r.again = 0; number == 0 {
		r.fresh()
		number = r.push()
	}
	c.mu.Lock()
	c.appendVerbatim(requestID(number, 0), reply)
	p.touch(c)
	c.mu.Unlock()
}

// errCrowded is what a client hears for whose large reply there is no room.
const errCrowded = "TRYAGAIN " + errNoReplyMemory

// crowded reports whether there is no room for a reply of n bytes that cannot
// wait.
func (p *processor) crowded(c *conn, n int) bool {
	return n > largeBytes && p.srv.crowdsOut(c.backlog()+n)
}

// answerError is answer with an error.
func (p *processor) answerError(c *conn, text string) {
	p.plan.reply = resp.AppendError(p.plan.reply[:0], text)
	p.answer(c, p.plan.reply)
}

// redirect returns the error that sends a client to the
// node that leads the shard of keys, or "" if the request is to be served here.
// stale says that it is to be answered by the replica here.
func (p *processor) redirect(c *conn, keys [][]byte, write bool) (text string, stale bool) {
	s := p.srv
	if len(keys) == 0 {
		return "", false
	}
	slot := protocol.Slot(keys[0])
	shard := s.backend.ShardOf(slot)
	for _, key := range keys[1:] {
		if s.backend.ShardOf(protocol.Slot(key)) != shard {
			return "", false // for several nodes: served from here
		}
	}
	leader := s.backend.Leader(shard)
	if leader == s.cfg.Node {
		return "", false
	}
	if c.redis.readOnly && !write && s.backend.Holds(shard) {
		return "", true // also where no leader is known, as without a majority
	}
	if leader == 0 || !s.cfg.RedisRedirect {
		return "", false
	}
	if address := s.redisAddressOf(leader); address != "" {
		return resp.Moved(slot, address), false
	}
	return "", false
}

// beginOps begins the list of operations of a BATCH or TXN in x.body; the count
// is for endOps to fill in.
func (x *redisPlan) beginOps() (at int) {
	x.body = append(x.body, 0, 0, 0, 0)
	return len(x.body)
}

func (x *redisPlan) endOps(at, count int) {
	binary.LittleEndian.PutUint32(x.body[at-4:], uint32(count))
}

// beginOp begins one operation, whose body follows.
func (x *redisPlan) beginOp(code protocol.Opcode) (at int) {
	x.body = append(x.body, byte(code), 0, 0, 0, 0)
	return len(x.body)
}

func (x *redisPlan) endOp(at int) {
	binary.LittleEndian.PutUint32(x.body[at-4:], uint32(len(x.body)-at))
}
