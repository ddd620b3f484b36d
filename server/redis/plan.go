package redis

import (
	"strconv"

	"github.com/proa-kv/proa/protocol"
	"github.com/proa-kv/proa/server/resp"
)

// plan is what a command comes to: native requests, and how their answers
// become its reply; or a reply at once.
type plan struct {
	c     *conn
	cmd   *resp.Command
	args  [][]byte
	inTxn bool // a MULTI's: each request becomes an operation of a TXN

	shape
	many  bool     // of several outcomes
	keys  [][]byte // all that are touched
	ops   []protocol.Op
	body  []byte // what ops are encoded in
	at    int    // in body, behind the last of ops
	reply []byte // where there are no ops

	failed bool // reply is an error

	unbounded  bool // the rows it writes may be larger than they are and the request together
	inOrder    bool // it reads, and goes through the log
	extraBytes int  // bytes of the reply that are not in the request: of the rows that it then reads, at most, or of an EXEC's ready replies

	// A lone PUT is proposed from here, so that its value is not copied once
	// more.
	put    protocol.Put
	hasPut bool
}

// scratchBytesMax is how much memory a plan keeps for the next one, in bytes.
const scratchBytesMax = 64 << 10

func (x *plan) reset(c *conn, cmd *resp.Command, args [][]byte, inTxn bool) {
	clear(x.ops)
	clear(x.keys)
	if cap(x.body) > scratchBytesMax {
		x.body = nil
	}
	if cap(x.reply) > scratchBytesMax {
		x.reply = nil
	}
	if cap(x.keys) > scratchBytesMax/16 {
		x.keys, x.ops = nil, nil
	}
	*x = plan{
		c: c, cmd: cmd, args: args, inTxn: inTxn, shape: shape{version: c.proto},
		keys: x.keys[:0], ops: x.ops[:0], body: x.body[:0], reply: x.reply[:0],
	}
}

// add plans a native request with this body.
func (x *plan) add(code protocol.Opcode, body []byte) {
	if !x.failed {
		x.ops = append(x.ops, protocol.Op{Code: code, Body: body})
	}
}

// request plans a native request whose body has been appended to x.body, which makes
// body.
func (x *plan) request(code protocol.Opcode, body []byte) {
	x.body = body
	x.add(code, body[x.at:])
	x.at = len(body)
}

// opBody appends the body of the operation on key i of a command.
type opBody func(x *plan, dst []byte, i int) []byte

func keyBody(x *plan, dst []byte, i int) []byte { return append(dst, x.keys[i]...) }

func deleteBody(x *plan, dst []byte, i int) []byte {
	m := protocol.Delete{Key: x.keys[i]}
	return m.AppendTo(dst)
}

// putBody is of a command of which each key is followed by its value.
func putBody(x *plan, dst []byte, i int) []byte {
	m := protocol.Put{Key: x.keys[i], Value: x.args[2*i+2]}
	return m.AppendTo(dst)
}

// several plans an operation for each key, all in one BATCH. In a transaction each
// is one of the TXN's.
func (x *plan) several(code protocol.Opcode, batchFlags byte, body opBody) {
	if x.inTxn {
		x.many = true
		for i := range x.keys {
			x.request(code, body(x, x.body, i))
		}
		return
	}
	x.b = inBatch
	x.body = append(x.body, batchFlags)
	x.appendOps(code, body)
	x.request(protocol.OpBatch, x.body)
}

// appendOps appends a list of operations, one for each key.
func (x *plan) appendOps(code protocol.Opcode, body opBody) {
	b, list := protocol.BeginOps(x.body)
	for i := range x.keys {
		var op int
		b, op = protocol.BeginOp(b, code)
		b = body(x, b, i)
		protocol.EndOp(b, op)
	}
	protocol.EndOps(b, list, len(x.keys))
	x.body = b
}

// fail has the command answered with an error, and nothing done. What is planned
// afterwards has no effect, nor has another error.
func (x *plan) fail(text string) (held bool) {
	if !x.failed {
		x.ops, x.keys, x.hasPut, x.write, x.failed = x.ops[:0], x.keys[:0], false, false, true
		x.reply = resp.AppendError(x.reply[:0], text)
	}
	return false
}

// ok has the command answered with OK.
func (x *plan) ok() {
	if !x.failed {
		x.reply = append(x.reply, "+OK\r\n"...)
	}
}

// takeKey makes argument i a key of the command, which fails if it can be none.
func (x *plan) takeKey(i int) {
	if n := len(x.args[i]); n < protocol.KeyBytesMin || n > protocol.KeyBytesMax {
		x.fail("ERR a key must have 1 to 8192 bytes, and this one has " + strconv.Itoa(n))
	}
	if !x.failed {
		x.keys = append(x.keys, x.args[i])
	}
}

// integer reads argument i, and returns 0 where the command fails for it.
func (x *plan) integer(i int) int64 {
	n, ok := resp.ParseInt(x.args[i])
	if !ok {
		x.fail(resp.ErrNotInteger)
		return 0
	}
	return n
}
