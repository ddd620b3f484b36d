package server

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/proa-kv/proa/bufpool"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/protocol"
)

const (
	// waitingBytes is what a waiting request counts for beside its body.
	waitingBytes = 1 << 10
)

// hold accounts for n bytes held by requests that wait for read indexes or for other
// nodes, over all connections: the requests themselves, and the rows that other
// nodes have sent for them. It returns false where there is no room for them.
func (s *Server) hold(n int) bool {
	if s.held.Add(int64(n)) > s.admission.heldMax {
		s.held.Add(-int64(n))
		return false
	}
	return true
}

// waiting is a read that waits for read indexes of shards here, for parts that
// other nodes read, or for both. Nothing runs while it waits: whoever delivers
// the last of what it waits for has it go on.
type waiting struct {
	srv   *Server
	job   job
	timer *time.Timer

	left     atomic.Int32 // read indexes and parts outstanding, and one for whoever asks for them
	answered atomic.Bool  // by the deadline, or about to be by resume

	mu      sync.Mutex
	failure *refusal // the first
}

// await makes j wait; the caller asks for read indexes and parts next, and then
// calls release. It returns nil if j was refused for want of room.
func (p *processor) await(j job) *waiting {
	s := p.srv
	j.dropClaim()
	if !s.hold(waitingBytes + len(j.body.B)) {
		p.failJob(&j, &refusal{status: protocol.StatusBusy, retryMillis: retryBusyMillis, message: "too many reads are waiting for other nodes"})
		return nil
	}
	w := &waiting{srv: s, job: j}
	w.left.Store(1)
	w.timer = time.AfterFunc(time.Until(time.UnixMilli(j.deadline)), w.expire)
	return w
}

// readIndex has w wait until the replica of shard here has caught up.
func (w *waiting) readIndex(shard int) error {
	w.left.Add(1)
	err := w.srv.backend.ReadIndex(shard, w, command.Tag{ID: uint64(shard)})
	if err != nil {
		w.left.Add(-1)
	}
	return err
}

// Complete hears the end of one read index. The request goes on after the pass.
func (w *waiting) Complete(tag command.Tag, outcome command.Outcome, _ *command.Result) {
	if outcome != command.Applied {
		w.fail(w.srv.notLeader(int(tag.ID)))
	}
	if w.left.Add(-1) == 0 {
		s := w.srv
		s.mu.Lock()
		s.ready = append(s.ready, w)
		s.mu.Unlock()
	}
}

// fail notes why w cannot be answered.
func (w *waiting) fail(r *refusal) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failure == nil {
		w.failure = r
	}
}

// failed returns what fail has noted first.
func (w *waiting) failed() *refusal {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failure
}

// release ends the asking. If nothing is outstanding w goes on at once.
func (p *processor) release(w *waiting) {
	if w.left.Add(-1) == 0 {
		w.resume(&p.touched)
	}
}

// resume answers w from memory if that is possible, and has it become a job
// otherwise. It does not block.
func (w *waiting) resume(t *touched) {
	s := w.srv
	w.timer.Stop()
	s.held.Add(-int64(waitingBytes + len(w.job.body.B)))
	j := w.job
	if w.answered.Swap(true) {
		j.release() // the deadline was faster
		return
	}
	j.local = true
	switch r := w.failed(); {
	case r != nil:
		s.failJob(&j, r, t)
	case s.answerLocal(&j, t):
	default:
		if !s.jobs.push(j) {
			s.failJob(&j, &refusal{status: protocol.StatusBusy, retryMillis: retryBusyMillis, message: errTooManyReads}, t)
		}
	}
}

// expire answers w when its deadline has passed. What it holds is let go when
// nothing is outstanding any more.
func (w *waiting) expire() {
	if w.answered.Swap(true) {
		return
	}
	var t touched
	w.srv.refuse(w.job.c, w.job.id, w.job.charge, &protocol.Extensions{Epoch: w.job.epoch},
		&refusal{status: protocol.StatusDeadlineExceeded, message: "the deadline passed while the read waited for a majority of the shard's replicas or for another node"}, &t)
	t.flush()
}

// answerLocal answers a GET, EXISTS or EXPIRY whose row is in memory.
func (s *Server) answerLocal(j *job, t *touched) bool {
	switch j.op {
	case protocol.OpGet, protocol.OpExists, protocol.OpExpiry:
	default:
		return false
	}
	key := j.request()
	shard := s.backend.ShardOf(protocol.Slot(key))
	x := j.marks(s, shard)
	c := j.c
	c.mu.Lock()
	if !c.closed {
		out := c.output()
		now := s.backend.NowMillis()
		r := s.counters.errors.beginRow(out, j.id, j.op, now, &x)
		valueMax := command.NoValue
		if j.op == protocol.OpGet {
			valueMax = command.AnyValue
		}
		row, state := s.readLocalCached(out, shard, key, now, valueMax)
		if state == command.ReadMiss || !r.end(out, row, state) {
			r.undo(out)
			c.mu.Unlock()
			return false
		}
	}
	c.end(j.charge)
	t.add(c)
	c.mu.Unlock()
	j.release()
	return true
}

// part is what another node reads for a request over several shards.
type part struct {
	w      *waiting
	keys   []int32 // MGET: positions of its keys in the request
	shard  int     // SCAN: the shard it covers
	bodies []*bufpool.Buffer
	bytes  int
	age    uint32 // of the oldest data it saw, ms
	ended  bool   // counted as in
}

// frame keeps one frame of the part's rows.
func (t *part) frame(f *protocol.Frame, x *protocol.Extensions, out *touched) {
	if t.ended {
		return
	}
	if s := protocol.Status(f.Code); s != protocol.StatusOK {
		t.lost(refusalIn(f, x, false), out)
		return
	}
	if !t.w.srv.hold(len(f.Body)) {
		t.lost(&refusal{status: protocol.StatusBusy, retryMillis: retryBusyMillis, message: "too much memory is used by reads across nodes"}, out)
		return
	}
	t.bytes += len(f.Body)
	b := bufpool.Get(len(f.Body))
	b.B = append(b.B, f.Body...)
	t.bodies = append(t.bodies, b)
	if x.HasAge {
		t.age = max(t.age, x.AgeMillis)
	}
	if f.Flags&protocol.FlagMore == 0 {
		t.end(out)
	}
}

// lost fails the whole request.
func (t *part) lost(r *refusal, out *touched) {
	if t.ended {
		return
	}
	if r.status.Outcome() == protocol.Unknown {
		// Nobody knows what became of a read, and it does not matter.
		r = &refusal{status: protocol.StatusNotLeader, retryMillis: retryLeaderMillis, message: r.message}
	}
	t.w.fail(r)
	t.end(out)
}

func (t *part) end(out *touched) {
	t.ended = true
	if t.w.left.Add(-1) == 0 {
		t.w.resume(out)
	}
}

// release lets go of the part's rows.
func (t *part) release(s *Server) {
	s.held.Add(-int64(t.bytes))
	t.bytes = 0
	for _, b := range t.bodies {
		b.Release()
	}
	t.bodies = nil
}

// place finds out who reads a shard for w: 0 stands for the replica here, for
// which w then waits if it has to catch up.
func (p *processor) place(w *waiting, shard int) (node uint64, r *refusal) {
	be := p.srv.backend
	if be.Holds(shard) {
		if w.job.mode == protocol.Stale {
			return 0, nil
		}
		err := w.readIndex(shard)
		if err == nil {
			p.proposed = true
			return 0, nil
		}
		if s, retry := refusalOf(err); s != protocol.StatusNotLeader {
			return 0, &refusal{status: s, retryMillis: retry, message: err.Error()}
		}
	}
	if node = p.srv.elsewhere(w.job.c, shard); node == 0 {
		return 0, p.srv.notLeader(shard)
	}
	return node, nil
}

// ask sends a part's request to a node.
func (p *processor) ask(t *part, node uint64, op protocol.Opcode, x *protocol.Extensions, body func([]byte) []byte) {
	j := &t.w.job
	left := time.Until(time.UnixMilli(j.deadline))
	x.DeadlineMillis = uint32(max(left.Milliseconds(), 1))
	t.w.left.Add(1)
	k := &call{sink: t, bulk: true, frame: bufpool.Get(256)}
	b := beginFrame(k.frame.B, uint8(op), 0, 0, x)
	k.frame.B = protocol.End(body(b), 0)
	if r := p.send(k, node, left); r != nil {
		t.lost(r, &p.touched)
	}
}

// cancel ends w, which nothing outstanding will make go on, and gives its job
// back to the caller. It returns false if the deadline was answered meanwhile.
func (w *waiting) cancel() bool {
	w.timer.Stop()
	w.srv.held.Add(-int64(waitingBytes + len(w.job.body.B)))
	if w.answered.Swap(true) {
		w.job.release()
		return false
	}
	return true
}
