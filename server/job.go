package server

import (
	"sync"
	"time"

	"github.com/proa-kv/proa/bufpool"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/protocol"
)

// job is a request that may wait for the disk: a read of a row that is not
// cached, a scan. It holds a copy of the request's body.
type job struct {
	c        *conn
	op       protocol.Opcode
	id       uint64
	body     *bufpool.Buffer
	deadline int64 // Unix ms
}

// replyReserve is what a request whose reply may be large counts for among a
// connection's bytes in flight, beside its own size.
const replyReserve = 32 << 10

// size is what the job counts for among its connection's bytes in flight.
func (j *job) size() uint32 { return uint32(len(j.body.B)) + replyReserve }

// jobQueue holds the jobs that no thread could take on at once.
type jobQueue struct {
	max  int
	mu   sync.Mutex
	list []job
}

func (q *jobQueue) push(j job) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.list) >= q.max {
		return false
	}
	q.list = append(q.list, j)
	return true
}

// pop takes the oldest job.
func (q *jobQueue) pop() (j job, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.list) == 0 {
		return job{}, false
	}
	j = q.list[0]
	q.list[0] = job{}
	q.list = q.list[1:]
	if len(q.list) == 0 {
		q.list = nil
	}
	return j, true
}

func (q *jobQueue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.list)
}

// later makes the request a job.
func (p *processor) later(c *conn, f *protocol.Frame, op protocol.Opcode) {
	j := job{c: c, op: op, id: f.ID, body: bufpool.Get(len(f.Body))}
	j.body.B = append(j.body.B, f.Body...)
	j.deadline = time.Now().UnixMilli() + p.srv.cfg.RequestTimeout.Milliseconds()
	if p.ext.DeadlineMillis != 0 {
		j.deadline = time.Now().UnixMilli() + int64(p.ext.DeadlineMillis)
	}
	c.begin(int(j.size()))
	p.jobs = append(p.jobs, j)
}

// queueJobs puts the round's jobs on the queue for other threads. What does
// not fit is answered BUSY.
func (p *processor) queueJobs() {
	for i, j := range p.jobs {
		if !p.srv.jobs.push(j) {
			j.c.end(j.size())
			j.body.Release()
			p.fail(j.c, j.id, protocol.StatusBusy, retryBusyMillis, "too many reads wait for the disk")
		}
		p.jobs[i] = job{}
	}
	p.jobs = p.jobs[:0]
}

// runJobs carries out the round's jobs on this thread.
func (p *processor) runJobs() {
	for i := range p.jobs {
		p.run(p.jobs[i])
		p.jobs[i] = job{}
	}
	p.jobs = p.jobs[:0]
}

// park sets a job aside if its connection has all the unsent output it may
// have: the reply, whose size nobody knows yet, would only add to it. The jobs
// that one connection has parked are bounded by its requests in flight.
func (c *conn) park(j job) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.unsent() < c.srv.cfg.OutputBytesMax {
		return false
	}
	c.parked = append(c.parked, j)
	c.parkedJobs.Add(1)
	return true
}

// unpark makes c's parked jobs jobs of this round if there is room for their
// replies again. It returns false if the connection is closed.
func (p *processor) unpark(c *conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.parked) > 0 && c.unsent() <= c.srv.cfg.OutputBytesMax/2 {
		p.jobs = append(p.jobs, c.parked...)
		clear(c.parked)
		c.parked = c.parked[:0]
		c.parkedJobs.Store(0)
	}
	return !c.closed
}

// run carries out one job; its output is written at the next flush.
func (p *processor) run(j job) {
	if j.c.park(j) {
		return
	}
	out := bufpool.Get(outputSize)
	switch now := time.Now().UnixMilli(); {
	case now > j.deadline:
		out.B = protocol.AppendError(out.B, j.id, protocol.StatusDeadlineExceeded, 0, "the deadline passed while the request waited for the disk")
	default:
		p.now = p.srv.backend.NowMillis()
		switch j.op {
		case protocol.OpGet, protocol.OpExists:
			p.runGet(&j, out)
		case protocol.OpMGet:
			p.runMGet(&j, out)
		case protocol.OpScan:
			p.runScan(&j, out)
		case protocol.OpStatus:
			p.runStatus(&j, out)
		}
	}
	p.deliver(j.c, out)
	j.c.end(j.size())
	j.body.Release()
}

// deliver appends out to the connection's output and takes it over.
func (p *processor) deliver(c *conn, out *bufpool.Buffer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer p.touch(c)
	switch {
	case c.closed:
		out.Release()
	case c.out == nil:
		c.out = out
	default:
		c.out.Append(out.B)
		out.Release()
	}
}

func (p *processor) runGet(j *job, out *bufpool.Buffer) {
	key := j.body.B
	be := p.srv.backend
	start := beginRow(out, j.id)
	row, state := be.Read(out, be.ShardOf(protocol.Slot(key)), key, p.now, j.op == protocol.OpGet)
	endRow(out, start, j.id, row, state)
}

func (p *processor) runStatus(j *job, out *bufpool.Buffer) {
	b, err := p.srv.StatusJSON()
	if err != nil {
		out.B = protocol.AppendError(out.B, j.id, protocol.StatusInternal, 0, err.Error())
		return
	}
	out.B = protocol.End(append(protocol.Begin(out.B, uint8(protocol.StatusOK), protocol.FlagReply, j.id), b...), 0)
}

const (
	// mgetInline bounds the keys that are looked up on the polling thread.
	mgetInline = 64
	// replyBytesMax bounds the whole answer to one MGET or SCAN.
	replyBytesMax = 64 << 20
)

// multiGet answers an MGET of few, cached keys at once and makes a job of any
// other.
func (p *processor) multiGet(c *conn, f *protocol.Frame) {
	if err := p.mget.Decode(f.Body); err != nil {
		p.refuse(c, f.ID, err)
		return
	}
	if len(p.mget.Keys) > mgetInline {
		p.later(c, f, protocol.OpMGet)
		return
	}
	out := bufpool.Get(outputSize)
	if !p.appendMGet(out, f.ID, p.srv.backend.ReadCached) {
		out.Release()
		p.later(c, f, protocol.OpMGet)
		return
	}
	p.deliver(c, out)
}

func (p *processor) runMGet(j *job, out *bufpool.Buffer) {
	// The body decoded when the request came in.
	if err := p.mget.Decode(j.body.B); err != nil {
		out.B = protocol.AppendError(out.B, j.id, protocol.StatusBadRequest, 0, err.Error())
		return
	}
	p.appendMGet(out, j.id, p.srv.backend.Read)
}

type readFunc func(dst *bufpool.Buffer, shard int, key []byte, now uint64, withValue bool) (command.Row, command.ReadState)

// appendMGet appends the reply to p.mget, in frames of about ChunkBytes. It
// returns false, with out in any state, if a row is not known without waiting.
func (p *processor) appendMGet(out *bufpool.Buffer, id uint64, read readFunc) bool {
	be := p.srv.backend
	w := chunks{out: out, id: id}
	w.begin()
	for _, key := range p.mget.Keys {
		w.split()
		out.Grow(1 + 8 + 8 + 4)
		at := len(out.B)
		out.B = out.B[:at+1+8+8+4]
		row, state := read(out, be.ShardOf(protocol.Slot(key)), key, p.now, true)
		switch state {
		case command.ReadMiss:
			return false
		case command.ReadFound:
			value := len(out.B) - at - 21
			head := protocol.MGetRow{Status: protocol.StatusOK, Version: row.Version, TTLMillis: row.TTLMillis}
			b := head.AppendTo(out.B[:at])
			b[at+17], b[at+18], b[at+19], b[at+20] = byte(value), byte(value>>8), byte(value>>16), byte(value>>24)
			out.B = b[:at+21+value]
		case command.ReadAbsent:
			out.B = append(out.B[:at], byte(protocol.StatusNotFound))
		default:
			out.B = out.B[:at]
			w.abort(protocol.StatusNotLeader, "a shard of these keys cannot be read here")
			return true
		}
		if len(out.B) > replyBytesMax {
			w.abort(protocol.StatusTooLarge, "the rows asked for exceed 64 MiB; ask for fewer keys at a time")
			return true
		}
	}
	w.end()
	return true
}

// chunks writes a reply of several frames into one buffer.
type chunks struct {
	out   *bufpool.Buffer
	id    uint64
	start int // of the frame being written
}

func (w *chunks) begin() {
	w.out.Grow(protocol.HeaderBytes + 2)
	w.start = len(w.out.B)
	w.out.B = protocol.Begin(w.out.B, uint8(protocol.StatusOK), protocol.FlagReply, w.id)
}

// split begins a further frame if the present one is full.
func (w *chunks) split() bool {
	if len(w.out.B)-w.start < protocol.ChunkBytes {
		return false
	}
	w.out.B[w.start+6] |= byte(protocol.FlagMore)
	w.end()
	w.begin()
	return true
}

func (w *chunks) end() { w.out.B = protocol.End(w.out.B, w.start) }

// abort replaces the frame being written by an error, which ends the reply.
func (w *chunks) abort(s protocol.Status, message string) {
	w.out.B = protocol.AppendError(w.out.B[:w.start], w.id, s, 0, message)
}
