package redis

import (
	"bytes"

	"github.com/proa-kv/proa/access"
	"github.com/proa-kv/proa/bufpool"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/protocol"
	"github.com/proa-kv/proa/server"
	"github.com/proa-kv/proa/server/resp"
)

// txn holds the commands between MULTI and EXEC.
type txn struct {
	queue  []queuedCommand
	words  int
	bytes  int  // of the words, counted among the input of all connections
	broken bool // a command could not be queued
}

type queuedCommand struct {
	cmd  *resp.Command
	args [][]byte
}

// queuedOverhead is what an argument that is kept counts for beside its bytes.
const queuedOverhead = 32

// cloneArgs copies arguments into memory of their own.
func cloneArgs(args [][]byte) [][]byte {
	size := 0
	for _, a := range args {
		size += len(a)
	}
	all := make([]byte, 0, size)
	clone := make([][]byte, len(args))
	for i, a := range args {
		start := len(all)
		all = append(all, a...)
		clone[i] = all[start:len(all):len(all)]
	}
	return clone
}

// keepArgs accounts for arguments that are kept beyond their command, or
// returns false where there is no room for them.
func (l *Listener) keepArgs(args [][]byte) (size int, ok bool) {
	for _, a := range args {
		size += len(a) + queuedOverhead
	}
	return size, l.srv.ClaimInput(size)
}

// queue keeps a command until EXEC.
func (p *processor) queue(c *conn, x *plan, h *handler) {
	t := c.txn
	if text := p.queueError(c, x, h); text != "" {
		t.broken = true
		p.answerError(c, text)
		return
	}
	size, ok := p.l.keepArgs(x.args)
	if !ok {
		t.broken = true
		p.answerError(c, "ERR too much memory is used by unfinished transactions; try again")
		return
	}
	t.bytes += size
	t.words += len(x.args)
	t.queue = append(t.queue, queuedCommand{x.cmd, cloneArgs(x.args)})
	c.info.multi.Store(int32(len(t.queue)))
	c.info.queued.Store(int64(t.bytes))
	p.answer(c, append(x.reply, "+QUEUED\r\n"...))
}

func (p *processor) queueError(c *conn, x *plan, h *handler) string {
	t := c.txn
	if h.translate == nil {
		return "ERR " + x.cmd.Name + " is not available inside MULTI"
	}
	if !c.mayTouch(x.cmd, x.args) {
		return resp.ErrNoPermissionKey
	}
	if x.cmd.Name == "select" {
		cmdSelect(p, x)
		if x.c.Stopped() {
			return string(x.reply[1 : len(x.reply)-2])
		}
		x.reply = x.reply[:0]
	}
	if len(t.queue) == protocol.OpsMax {
		return "ERR too many commands in one transaction, at most 10000 are allowed"
	}
	if t.bytes+len(x.args)*queuedOverhead > 2*int(p.l.cfg.FrameBytesMax) {
		return "ERR the transaction is too large"
	}
	if p.l.redirect {
		keys := appendKeys(x.keys, x.cmd, x.args)
		x.keys = keys[:0]
		text, _ := p.redirect(c, keys, true)
		return text
	}
	return ""
}

// appendKeys appends the keys of a command.
func appendKeys(dst [][]byte, cmd *resp.Command, args [][]byte) [][]byte {
	first, last, step := cmd.Keys(args)
	for i := first; step > 0 && i <= last && i < len(args); i += step {
		dst = append(dst, args[i])
	}
	return dst
}

func cmdMulti(p *processor, c *conn, x *plan) bool {
	if c.txn != nil {
		return x.fail(resp.ErrNestedMulti)
	}
	c.txn = &txn{}
	c.info.multi.Store(0)
	x.ok()
	return false
}

func cmdDiscard(p *processor, c *conn, x *plan) bool {
	if c.txn == nil {
		return x.fail(resp.ErrDiscardWithoutMulti)
	}
	c.endTransaction()
	x.ok()
	return false
}

// endTransaction forgets the queue and the watched keys. Only the reader calls
// it.
func (c *conn) endTransaction() {
	if c.txn != nil {
		c.l.srv.CountInput(-c.txn.bytes)
		c.txn = nil
		c.info.multi.Store(-1)
		c.info.queued.Store(0)
	}
	for _, w := range c.watches {
		c.l.srv.CountInput(-w.bytes)
	}
	c.watches = nil
}

// watch is one WATCH command. What it has seen, and failed, are the
// renderer's until the command is answered, and the reader's after that.
type watch struct {
	keys   [][]byte
	bytes  int    // counted among the input of all connections
	number uint64 // of its pending reply; 0: it has none
	seen   []protocol.WatchReply
	failed bool // it was answered with an error
}

func cmdWatch(p *processor, c *conn, x *plan) bool {
	if c.txn != nil {
		return x.fail(resp.ErrWatchInsideMulti)
	}
	watched := 0
	for _, w := range c.watches {
		watched += len(w.keys)
	}
	if watched+len(x.args)-1 > protocol.OpsMax {
		return x.fail("ERR too many watched keys, at most 10000 are allowed")
	}
	x.kind = replyWatch
	if x.takeKeys(1); x.failed {
		return false
	}
	for _, key := range x.keys { // they may be looked at without a native request
		if !c.May(key, access.Read) {
			return x.fail(resp.ErrNoPermissionKey)
		}
	}
	if p.l.redirect {
		if to, _ := p.redirect(c, x.keys, true); to != "" {
			return x.fail(to)
		}
	}
	if p.mustWait(c, x.keys, false) {
		return true
	}
	if c.retrying != 0 { // it is among them already
		x.watchThroughLog()
		return p.launch(c, x, nil, false)
	}
	size, ok := p.l.keepArgs(x.keys)
	if !ok {
		return x.fail("ERR too much memory is used by unfinished transactions; try again")
	}
	w := &watch{keys: cloneArgs(x.keys), bytes: size, seen: make([]protocol.WatchReply, len(x.keys))}
	c.watches = append(c.watches, w)
	if p.watchHere(w) {
		x.ok()
		return false
	}
	w.number = c.tail.Load()
	x.watchThroughLog()
	return p.launch(c, x, w, false)
}

// watchHere notes the versions of the keys if all of them exist and can be
// looked at here and now.
func (p *processor) watchHere(w *watch) bool {
	if p.l.srv.Draining() {
		return false
	}
	for i, key := range w.keys {
		row, state := p.l.backend.ReadCached(&p.nothing, p.l.shardOf(key), key, p.Now(), command.NoValue)
		if state != command.ReadFound {
			return false
		}
		w.seen[i] = protocol.WatchReply{Version: row.Version}
	}
	return true
}

// watchThroughLog plans a WATCH for each key, behind the connection's writes: an
// absent key has no version, and what stands for it is kept from then on.
func (x *plan) watchThroughLog() {
	x.inOrder = true
	if len(x.keys) == 1 {
		x.add(protocol.OpWatch, x.keys[0])
		return
	}
	x.batchOfKeys(protocol.OpWatch)
}

// take notes what was seen of the keys and appends the reply.
func (w *watch) take(out *bufpool.Buffer, x *shape, frames []byte) {
	o := x.outcomes(frames)
	for i := range w.seen {
		status, body, ok := o.next()
		if !ok || status != protocol.StatusOK || w.seen[i].Decode(body) != nil {
			w.failed = true
			x.fail(out, status, body)
			return
		}
	}
	out.Append([]byte("+OK\r\n"))
}

func cmdUnwatch(_ *processor, x *plan) {
	if !x.inTxn {
		x.c.endTransaction()
	}
	x.ok()
}

// execution is a transaction under way: how the outcomes of the TXN become the
// replies of its commands.
type execution struct{ items []executionItem }

type executionItem struct {
	shape shape
	many  bool
	ops   int    // outcomes that belong to it
	reply []byte // where there are none
}

func cmdExec(p *processor, c *conn, x *plan) (held bool) {
	if c.txn == nil {
		return x.fail(resp.ErrExecWithoutMulti)
	}
	broken := c.txn.broken
	for _, w := range c.watches {
		if c.head.Load() <= w.number && c.awaitAnswer(w.number) {
			return true
		}
		broken = broken || w.failed
	}
	if broken {
		c.endTransaction()
		return x.fail(resp.ErrExecAbort)
	}
	var keys [][]byte // x's are overwritten by the commands' own
	for _, q := range c.txn.queue {
		keys = appendKeys(keys, q.cmd, q.args)
	}
	for _, w := range c.watches {
		keys = append(keys, w.keys...)
	}
	if p.mustWait(c, keys, true) {
		return true
	}
	if p.execute(c, x, keys) {
		return true
	}
	if c.txn.bytes > server.LargeBytes {
		p.Forget() // the request that was made of it
		p.plan = plan{reply: x.reply}
	}
	c.endTransaction()
	return false
}

// execute turns the queued commands into one TXN, or returns true if that has
// to be tried again.
func (p *processor) execute(c *conn, x *plan, keys [][]byte) (held bool) {
	var m protocol.Txn
	for _, w := range c.watches {
		for i, key := range w.keys {
			x := protocol.Compare{Target: protocol.CompareVersion, Relation: protocol.Equal, Key: key, Version: w.seen[i].Version}
			if x.Version == 0 {
				x.Target, x.Version = protocol.CompareAbsent, w.seen[i].Revision
			}
			m.Compares = append(m.Compares, x)
		}
	}
	e := &execution{items: make([]executionItem, 0, len(c.txn.queue))}
	ready := 0 // bytes of replies that are there already
	body, at := protocol.BeginOps(m.AppendCompares(nil))
	count := 0
	for _, q := range c.txn.queue {
		x.reset(c, q.cmd, q.args, true)
		handlers[q.cmd.ID].translate(p, x)
		item := executionItem{shape: x.shape, many: x.many, ops: len(x.ops)}
		item.shape.write = true
		if len(x.ops) == 0 {
			item.reply = bytes.Clone(x.reply)
			ready += len(item.reply)
		}
		e.items = append(e.items, item)
		for _, op := range x.ops {
			var at int
			body, at = protocol.BeginOp(body, op.Code)
			body = append(body, op.Body...)
			protocol.EndOp(body, at)
			count++
		}
	}
	protocol.EndOps(body, at, count)
	body, _ = protocol.BeginOps(body) // of the alternative, which is empty
	x.reset(c, x.cmd, nil, false)
	if p.RepliesFull(c.Conn, ready) {
		x.fail(errNoReplyMemory) // nothing has been done
		return false
	}
	if count == 0 && len(m.Compares) == 0 {
		out := bufpool.Get(ready + replyBytes)
		e.replies(out, &outcomes{})
		p.answer(c, out.B)
		out.Release()
		return false
	}
	x.kind, x.write, x.unbounded, x.keys, x.extraBytes = replyExec, true, true, keys, ready
	x.add(protocol.OpTxn, body)
	return p.launch(c, x, e, false)
}

// reply appends the reply to EXEC.
func (e *execution) reply(out *bufpool.Buffer, x *shape, status protocol.Status, body []byte) {
	if status != protocol.StatusOK {
		x.fail(out, status, body)
		return
	}
	switch succeeded, o := txnReply(body); {
	case o.malformed:
		out.Append([]byte("-" + errMalformedAnswer + "\r\n"))
	case !succeeded:
		out.Grow(replyBytes)
		out.B = resp.AppendNullArray(out.B, x.proto())
	default:
		e.replies(out, &o)
	}
}

// replies appends the array of all replies.
func (e *execution) replies(out *bufpool.Buffer, o *outcomes) {
	start := len(out.B)
	out.Grow(replyBytes)
	out.B = resp.AppendArray(out.B, len(e.items))
	for i := range e.items {
		item := &e.items[i]
		if item.ops == 0 {
			out.Append(item.reply)
		} else if !item.append(out, o) {
			out.B = resp.AppendError(out.B[:start], errMalformedAnswer)
			return
		}
	}
}

// append appends the reply of one command, of the next outcomes.
func (item *executionItem) append(out *bufpool.Buffer, o *outcomes) bool {
	one, sum, t := item.shape, item.many, total{}
	if item.many && one.kind == replyArray {
		one.kind, sum = replyValue, false
		out.Grow(replyBytes)
		out.B = resp.AppendArray(out.B, item.ops)
	}
	for range item.ops {
		switch status, body, ok := o.next(); {
		case !ok:
			return false
		case sum:
			t.add(status, body)
		default:
			one.one(out, status, body)
		}
	}
	if sum {
		t.reply(out, &one)
	}
	return true
}
