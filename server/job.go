package server

import (
	"math"
	"sync"
	"time"

	"github.com/proa-kv/proa/bufpool"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/protocol"
)

// jobKind says what a job is.
type jobKind uint8

const (
	jobRequest jobKind = iota
	jobTurn            // of c; see affords. Only c counts
	jobSend            // of c's output; see thread.send. Only c counts
)

// job is a request that may wait for the disk: a read of a row that is not
// cached, a scan. It holds a copy of the request. Or it is something else that
// takes too long for a thread that polls.
type job struct {
	c        *conn
	kind     jobKind
	op       protocol.Opcode
	mode     protocol.Consistency
	local    bool // the replicas here may answer with whatever they have
	shard    int  // SCAN of one shard only; or allShards
	id       uint64
	body     *bufpool.Buffer // the request's extensions, without their length, then its body
	exts     int             // bytes of extensions in body
	charge   uint32          // counted among the connection's bytes in flight
	deadline int64           // Unix ms
	epoch    uint64          // sent with the reply; 0: none
	remote   *remoteRows     // what came from elsewhere; nil: nothing
	large    *largeReply     // its reply has to be admitted; nil: that is not known
}

// replyReserve is what a request whose reply may be large counts for among a
// connection's bytes in flight, beside its own size.
const replyReserve = 32 << 10

// errTooManyReads is the error where the queue of jobs is full.
const errTooManyReads = "too many reads are waiting for the disk"

// request returns the request's body.
func (j *job) request() []byte { return j.body.B[j.exts:] }

// extensions returns the request's, decoded.
func (j *job) extensions() (x protocol.Extensions) {
	_ = x.Decode(j.body.B[:j.exts]) // as when the request came in
	return x
}

// release releases what the job holds.
func (j *job) release() {
	j.body.Release()
	j.body = nil
	j.forgetRemote()
	j.dropClaim()
}

// forgetRemote releases what came from elsewhere.
func (j *job) forgetRemote() {
	if j.remote != nil {
		j.remote.release(j.c.srv)
		j.remote = nil
	}
}

// marks are the extensions of the reply to a read of one shard.
func (j *job) marks(s *Server, shard int) protocol.Extensions {
	x := protocol.Extensions{Epoch: j.epoch}
	switch {
	case j.mode == protocol.Stale:
		x.AgeMillis, x.HasAge = s.age(shard), true
	case j.local && j.mode == protocol.Linearizable && j.op != protocol.OpScan:
		// It took a read index. The leader may do without.
		x.Leader = s.otherLeader(shard)
	}
	return x
}

// jobQueue holds the jobs that no thread could take on at once. Polling
// threads take them between other work; workers, which are started as they are
// needed and then stay, do nothing else.
type jobQueue struct {
	max        int
	workersMax int
	start      func() // starts a worker

	mu      sync.Mutex
	some    sync.Cond // the list is not empty, or the end has come
	list    []job
	workers int
	idle    int // workers that wait
	closed  bool
}

func (q *jobQueue) init(max, workersMax int, start func()) {
	q.max, q.workersMax, q.start = max, workersMax, start
	q.some.L = &q.mu
}

// translatedJobs is how many times the queue's length jobs of translated connections
// may wait in it: their clients do not come again when the answer is that it is
// full.
const translatedJobs = 64

// push has some thread carry j out, or returns false where the queue is full.
func (q *jobQueue) push(j job) bool {
	if j.c.translated {
		return q.add(j, translatedJobs*q.max)
	}
	return q.add(j, q.max)
}

// add is push with a bound of its own.
func (q *jobQueue) add(j job, max int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.list) >= max || q.closed {
		return false
	}
	q.list = append(q.list, j)
	switch {
	case q.idle > 0:
		q.some.Signal()
	case q.workers < q.workersMax:
		q.workers++
		q.start()
	}
	return true
}

// pop takes the oldest job. If there is none and wait is set it waits for one; ok is
// false then when the queue is closed.
func (q *jobQueue) pop(wait bool) (j job, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for wait && len(q.list) == 0 && !q.closed {
		q.idle++
		q.some.Wait()
		q.idle--
	}
	if len(q.list) == 0 {
		return job{}, false
	}
	j = q.list[0]
	q.list[0] = job{}
	if q.list = q.list[1:]; len(q.list) == 0 {
		q.list = nil
	}
	return j, true
}

// close ends the workers after what they do now. It returns the jobs that are
// left, which nobody waits for any more.
func (q *jobQueue) close() (left []job) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	left, q.list = q.list, nil
	q.some.Broadcast()
	return left
}

func (q *jobQueue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.list)
}

// work carries out queued jobs until the server closes.
func (s *Server) work() {
	defer s.working.Done()
	p := newProcessor(s)
	defer s.counters.unregister(&p.counts)
	for {
		j, ok := s.jobs.pop(true)
		if !ok {
			return
		}
		p.jobs = append(p.jobs, j)
		p.runJobs()
		p.sendAll()
		p.kickIfProposed()
	}
}

// kickIfProposed leaves what was proposed to the backend's own thread.
func (e *executor) kickIfProposed() {
	if e.proposed {
		e.proposed = false
		e.srv.backend.Kick()
	}
}

// timeoutMillis is how long the client waits for the request.
func (p *processor) timeoutMillis() uint32 {
	if p.ext.DeadlineMillis != 0 {
		return p.ext.DeadlineMillis
	}
	return uint32(min(p.srv.cfg.RequestTimeout.Milliseconds(), math.MaxUint32))
}

// deadline returns when the client gives the request up, in Unix ms.
func (p *processor) deadline() int64 {
	return time.Now().UnixMilli() + int64(p.timeoutMillis())
}

// newJob makes a job of the request, which counts as in flight from now on.
func (p *processor) newJob(c *conn, f *protocol.Frame) job {
	j := job{
		c: c, op: protocol.Opcode(f.Code), id: f.ID, mode: p.ext.Consistency, shard: p.onlyShard(),
		body: bufpool.Get(len(f.Extensions) + len(f.Body)), exts: len(f.Extensions),
		deadline: p.deadline(), epoch: p.marks.Epoch,
	}
	j.body.B = append(append(j.body.B, f.Extensions...), f.Body...)
	j.charge = uint32(len(j.body.B)) + replyReserve
	c.begin(int(j.charge))
	return j
}

// later makes the request a job. local says that the replicas here may answer it
// with whatever they have.
func (p *processor) later(c *conn, f *protocol.Frame, local bool) {
	j := p.newJob(c, f)
	j.local = local
	p.jobs = append(p.jobs, j)
}

// queueJobs puts the iteration's jobs on the queue for other threads. What does
// not fit is answered BUSY.
func (e *executor) queueJobs() {
	for i, j := range e.jobs {
		if j.kind != jobRequest {
			e.srv.requeue(j)
		} else if !e.srv.jobs.push(j) {
			e.failJob(&j, &refusal{status: protocol.StatusBusy, retryMillis: retryBusyMillis, message: errTooManyReads})
		}
		e.jobs[i] = job{}
	}
	e.jobs = e.jobs[:0]
}

// failJob answers a job with an error.
func (e *executor) failJob(j *job, r *refusal) {
	e.srv.failJob(j, r, &e.touched)
}

func (s *Server) failJob(j *job, r *refusal, t *touched) {
	s.refuse(j.c, j.id, j.charge, &protocol.Extensions{Epoch: j.epoch}, r, t)
	j.release()
}

// forwardJob sends a job on to the node that leads shard; see forward.
func (e *executor) forwardJob(j *job, shard int, o Options) (retry bool) {
	defer j.release()
	return e.forward(&request{
		c: j.c, op: j.op, id: j.id, extensions: j.body.B[:j.exts], body: j.request(),
		deadline: j.deadline, charge: j.charge, epoch: j.epoch,
	}, shard, o)
}

// runJobs carries out the iteration's jobs on this thread, and those that come of
// them.
func (p *processor) runJobs() {
	for i := 0; i < len(p.jobs); i++ {
		if j := p.jobs[i]; j.kind == jobTurn {
			p.takeTurn(j.c)
		} else {
			p.run(j)
		}
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
	if c.closed || !c.parks(&j, c.srv.cfg.OutputBytesMax) {
		if l := j.large; l != nil && !l.taken {
			l.taken = true
			c.claimed += int64(l.bytes)
		}
		return false
	}
	if bufpool.Debug && j.large != nil && j.large.taken {
		panic("server: a job that has been taken up is parked")
	}
	c.parked = append(c.parked, j)
	c.parkedJobs.Add(1)
	return true
}

// unpark makes c's parked jobs jobs of this iteration if there is room for their
// replies again. It returns false if the connection is closed.
func (p *processor) unpark(c *conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	p.jobs = append(p.jobs, c.takeParked()...)
	return !c.closed
}

// requeueParked is unpark for a connection whose reader may be waiting for
// input: its jobs go back on the queue, which they may overfill since their
// connection's bounds hold for them already.
func (c *conn) requeueParked() {
	c.mu.Lock()
	list := c.takeParked()
	c.mu.Unlock()
	for _, j := range list {
		c.srv.requeue(j)
	}
}

// drop ends a job whose client has gone.
func (j *job) drop() {
	switch j.kind {
	case jobTurn:
		j.c.endOffload(true)
		return
	case jobSend:
		return
	}
	j.c.end(j.charge)
	j.release()
}

// goneEvery is how many rows a job reads before it looks again whether anybody
// waits for them.
const goneEvery = 64

// run carries out one job; its output is written at the next sendAll.
func (e *executor) run(j job) {
	if j.kind == jobSend {
		j.c.SendOutput()
		return
	}
	if j.c.gone.Load() {
		j.drop()
		return
	}
	if j.c.park(j) {
		return
	}
	if time.Now().UnixMilli() > j.deadline {
		e.failJob(&j, &refusal{status: protocol.StatusDeadlineExceeded, message: "the deadline passed while the request waited for the disk"})
		return
	}
	if !e.admitReply(&j) {
		return
	}
	e.now = e.srv.backend.NowMillis()
	switch j.op {
	case protocol.OpGet, protocol.OpExists, protocol.OpExpiry:
		e.runGet(j)
	case protocol.OpMGet:
		e.runMGet(j)
	case protocol.OpScan:
		e.runScan(j)
	case protocol.OpStatus:
		e.runStatus(j)
	}
}

// complete answers a job with out, which it takes over.
func (e *executor) complete(j *job, out *bufpool.Buffer) {
	j.c.put(out, j.charge, j.large, &e.touched)
	j.release()
}

// put appends out, which it takes over, to the connection's output as the
// answer to a request that counts for charge among those in flight. large is
// what it was admitted for, or nil.
func (c *conn) put(out *bufpool.Buffer, charge uint32, large *largeReply, t *touched) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if large != nil && !c.closed {
		large.pass(c)
	}
	switch {
	case c.closed:
		out.Release()
	case c.out == nil:
		c.out = out
	default:
		c.out.Append(out.B)
		out.Release()
	}
	c.end(charge)
	if large != nil {
		c.unaccount()
	}
	c.account(c.unsent())
	t.add(c)
}

func (e *executor) runGet(j job) {
	s := e.srv
	key := j.request()
	shard := s.backend.ShardOf(protocol.Slot(key))
	read := s.read
	if j.local {
		read = s.readLocal
	}
	marks := j.marks(s, shard)
	out := bufpool.Get(outputSize)
	row, state := appendRow(out, j.id, j.op, &marks, read, shard, key, e.now, j.replyMax())
	if state == command.ReadFound && j.op == protocol.OpGet && int(row.ValueBytes) > j.replyMax() {
		out.Release()
		e.claimReply(j, int(row.ValueBytes)+outputSize)
		return
	}
	if status, ok := statusOfRead(state); ok {
		s.counters.errors.add(status)
		e.complete(&j, out)
		return
	}
	out.Release()
	if j.local {
		// The replica went away meanwhile.
		e.forwardJob(&j, shard, Options{})
		return
	}
	e.fetch(j, shard, Options{})
}

func (e *executor) runStatus(j job) {
	b, err := e.srv.StatusJSON()
	if err != nil {
		e.failJob(&j, &refusal{status: protocol.StatusInternal, message: err.Error()})
		return
	}
	e.srv.succeed(&j, b, &e.touched)
}
