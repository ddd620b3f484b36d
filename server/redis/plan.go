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

	unbounded bool // the rows it writes may be larger than they are and the request together
	inOrder   bool // it reads, and goes through the log
	yields    int  // bytes of the reply that are not in the request: of the rows that it then reads, at most, or of an EXEC's ready replies

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
	x.ops = append(x.ops, protocol.Op{Code: code, Body: body})
}

// encoded plans a native request of what has been appended to x.body since the
// last one.
func (x *plan) encoded(code protocol.Opcode) {
	x.add(code, x.body[x.at:])
	x.at = len(x.body)
}

// fail has the command answered with an error, and nothing done.
func (x *plan) fail(text string) (held bool) {
	x.ops, x.keys, x.hasPut, x.write = x.ops[:0], x.keys[:0], false, false
	x.reply = resp.AppendError(x.reply[:0], text)
	return false
}

// ok has the command answered with OK.
func (x *plan) ok() { x.reply = append(x.reply, "+OK\r\n"...) }

// takeKey makes argument i a key of the command. It returns false, the command
// having failed, if it can be none.
func (x *plan) takeKey(i int) bool {
	if n := len(x.args[i]); n < protocol.KeyBytesMin || n > protocol.KeyBytesMax {
		x.fail("ERR a key must have 1 to 8192 bytes, and this one has " + strconv.Itoa(n))
		return false
	}
	x.keys = append(x.keys, x.args[i])
	return true
}

// integer reads argument i.
func (x *plan) integer(i int) (n int64, ok bool) {
	if n, ok = resp.ParseInt(x.args[i]); !ok {
		x.fail(resp.ErrNotInteger)
	}
	return n, ok
}

// beginOps begins the list of operations of a BATCH or TXN in x.body.
func (x *plan) beginOps() (at int) {
	x.body, at = protocol.BeginOps(x.body)
	return at
}

// beginOp begins one operation, whose body follows.
func (x *plan) beginOp(code protocol.Opcode) (at int) {
	x.body, at = protocol.BeginOp(x.body, code)
	return at
}
