package server

import (
	"encoding/binary"

	"github.com/proa-kv/proa/protocol"
)

// Turns.
//
// A thread that polls carries out turnCredit of a connection's input, and then
// the others of its loop have their turn. It takes well below a millisecond.
//
// Each request counts for what it weighs: one for an ordinary one, one for each
// key or operation of a request with several, and some for the bytes that are copied. What
// weighs more than a whole turn is not for a thread that polls: the connection is
// offloaded, that is its turn becomes a job. The thread that runs the job reads the
// connection meanwhile, in the place of the one that polls its loop, so that
// requests keep their order; the loop has it back after that one request.
//
// Rejected: to have each such command go on where it has stopped (as walks over
// all keys do, which wait for pages anyhow). That is a state for each of a dozen
// commands, and a BATCH or EXEC must be proposed as a whole all the same.
const (
	turnCredit     = 1024
	BytesPerCredit = 1 << 10 // of a request
	narrowTxn      = 8 << 10 // a TXN of so many bytes has less than turnCredit operations
)

// turn is what a thread may carry out of a connection's input.
type turn struct {
	credit    int  // left
	dedicated bool // no event loop waits for this thread
}

// Credit is what the reader may still carry out in this turn.
func (t *turn) Credit() int { return t.credit }

// Spend takes from the credit.
func (t *turn) Spend(n int) { t.credit -= n }

// weigh says for how much a native request counts.
func (p *processor) weigh(f *protocol.Frame) int {
	w := 1 + len(f.Body)/BytesPerCredit
	switch protocol.Opcode(f.Code) {
	case protocol.OpMGet: // of more keys it becomes a job at once
		w += min(countAt(f.Body), mgetInline)
	case protocol.OpBatch:
		if len(f.Body) > 0 {
			w += countAt(f.Body[1:])
		}
	case protocol.OpTxn:
		if len(f.Body) > narrowTxn && p.txn.Decode(f.Body) == nil {
			w += len(p.txn.Compares) + len(p.txn.Then) + len(p.txn.Else)
		}
	case protocol.OpRoutes:
		w += p.srv.backend.Shards()
	}
	return w
}

// countAt reads the number at the front of a list, which may be any.
func countAt(b []byte) int {
	if len(b) < 4 {
		return 0
	}
	return int(min(binary.LittleEndian.Uint32(b), protocol.OpsMax))
}

// Affords takes weight from what is left of the turn. It returns false, the
// connection being offloaded, where that is more than this thread may carry
// out at once.
func (p *processor) Affords(c *conn, weight int) bool {
	if weight > turnCredit && !p.dedicated {
		c.offloaded.Store(true)
		c.paused.Store(true)
		p.jobs = append(p.jobs, job{c: c, kind: jobTurn})
		return false
	}
	p.credit -= weight
	return true
}

// takeTurn carries out what is at the front of the input of c, which is offloaded,
// and leaves c to its loop again.
func (p *processor) takeTurn(c *conn) {
	c.reading.Lock()
	if !c.gone.Load() && !c.refused {
		p.now = p.srv.backend.NowMillis()
		p.credit, p.dedicated = turnCredit, true
		c.paused.Store(false)
		p.consumeBuffered(c)
		p.dedicated = false
	}
	on := c.refused || !c.paused.Load()
	c.reading.Unlock()
	c.endOffload(on)
}

// endOffload ends what Affords has begun. Where c does not go on it waits as in any
// pause.
func (c *conn) endOffload(on bool) {
	c.offloaded.Store(false)
	if on || c.gone.Load() { // its loop has not looked at it meanwhile
		c.socket.resume(c)
		return
	}
	c.unpause()
}

// yieldMillis is how often a thread visits the Go scheduler. Threads here wait
// in the kernel and not in the scheduler, which takes one that it has not seen
// for 10 ms for a runaway: it interrupts it with signals, takes its processor
// away, and keeps its watchdog polling every 20 µs. Under load that cost an
// eighth of the server's CPU.
const yieldMillis = 4
