package server

import (
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

// readGather is a read that waits for read indexes of shards here, for parts that
// other nodes read, or for both. Nothing runs while it waits: whoever delivers
// the last of what it waits for has it go on.
type readGather struct {
	srv   *Server
	job   job
	timer *time.Timer

	left     atomic.Int32            // read indexes and parts outstanding, and one for whoever asks for them
	answered atomic.Bool             // by the deadline, or about to be by resume
	failure  atomic.Pointer[refusal] // the first
}

// await makes j wait; the caller asks for read indexes and parts next, and then
// calls release. It returns nil if j was refused for want of room.
func (e *executor) await(j job) *readGather {
	s := e.srv
	j.dropClaim()
	if !s.admission.hold(waitingBytes + len(j.body.B)) {
		e.failJob(&j, &refusal{status: protocol.StatusBusy, retryMillis: retryBusyMillis, message: "too many reads are waiting for other nodes"})
		return nil
	}
	w := &readGather{srv: s, job: j}
	w.left.Store(1)
	w.timer = time.AfterFunc(time.Until(time.UnixMilli(j.deadline)), w.expire)
	return w
}

// readIndex has w wait until the replica of shard here has caught up.
func (w *readGather) readIndex(shard int) error {
	w.left.Add(1)
	err := w.srv.backend.ReadIndex(shard, w, command.Tag{ID: uint64(shard)})
	if err != nil {
		w.left.Add(-1)
	}
	return err
}

// Complete takes in the end of one read index. The request goes on after the pass.
func (w *readGather) Complete(tag command.Tag, outcome command.Outcome, _ *command.Result) {
	if outcome != command.Applied {
		w.fail(w.srv.notLeader(int(tag.ID)))
	}
	if w.left.Add(-1) == 0 {
		w.srv.delivery.resumeLater(w)
	}
}

// fail notes why w cannot be answered. The first to say so counts.
func (w *readGather) fail(r *refusal) { w.failure.CompareAndSwap(nil, r) }

// release ends the asking. If nothing is outstanding w goes on at once.
func (e *executor) release(w *readGather) {
	if w.left.Add(-1) == 0 {
		w.resume(&e.touched)
	}
}

// stop ends the wait. It returns false if the deadline was answered meanwhile.
func (w *readGather) stop() bool {
	w.timer.Stop()
	w.srv.admission.held.Add(-int64(waitingBytes + len(w.job.body.B)))
	if w.answered.Swap(true) {
		w.job.release()
		return false
	}
	return true
}

// resume answers w from memory if that is possible, and has it become a job
// otherwise. It does not block.
func (w *readGather) resume(t *touched) {
	if !w.stop() {
		return
	}
	s, j := w.srv, w.job
	j.local = true
	switch r := w.failure.Load(); {
	case r != nil:
		s.failJob(&j, r, t)
	case s.answerLocal(&j, t):
		j.release()
	case !s.jobs.push(j):
		s.failJob(&j, &refusal{status: protocol.StatusBusy, retryMillis: retryBusyMillis, message: errTooManyReads}, t)
	}
}

// expire answers w when its deadline has passed. What it holds is released when
// nothing is outstanding any more.
func (w *readGather) expire() {
	if w.answered.Swap(true) {
		return
	}
	var t touched
	w.srv.refuse(w.job.c, w.job.id, w.job.charge, &protocol.Extensions{Epoch: w.job.epoch},
		&refusal{status: protocol.StatusDeadlineExceeded, message: "the deadline passed while the read waited for a majority of the shard's replicas or for another node"}, &t)
	t.send()
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
	defer c.mu.Unlock()
	if !c.closed {
		_, state := appendRow(c.output(), j.id, j.op, &x, s.readLocalCached, shard, key, s.backend.NowMillis(), command.AnyValue)
		status, ok := statusOfRead(state)
		if !ok {
			return false
		}
		s.counters.errors.add(status)
	}
	c.end(j.charge)
	t.add(c)
	return true
}

// readPart is what another node reads for a request over several shards.
type readPart struct {
	w      *readGather
	node   uint64
	keys   []int32 // MGET: positions of its keys in the request
	shard  int     // SCAN: the shard it covers
	bodies []*bufpool.Buffer
	bytes  int
	age    uint32 // of the oldest data it saw, ms
	ended  bool   // counted as in
}

// frame keeps one frame of the part's rows.
func (t *readPart) frame(f *protocol.Frame, x *protocol.Extensions, out *touched) {
	if t.ended {
		return
	}
	if s := protocol.Status(f.Code); s != protocol.StatusOK {
		t.lost(refusalIn(f, x, false), out)
		return
	}
	if !t.w.srv.admission.hold(len(f.Body)) {
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
func (t *readPart) lost(r *refusal, out *touched) {
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

func (t *readPart) end(out *touched) {
	t.ended = true
	if t.w.left.Add(-1) == 0 {
		t.w.resume(out)
	}
}

// release releases the part's rows.
func (t *readPart) release(s *Server) {
	s.admission.held.Add(-int64(t.bytes))
	t.bytes = 0
	for _, b := range t.bodies {
		b.Release()
	}
	t.bodies = nil
}

// place finds out who reads a shard for w: 0 stands for the replica here, for
// which w then waits if it has to catch up.
func (e *executor) place(w *readGather, shard int) (node uint64, r *refusal) {
	be := e.srv.backend
	if be.Holds(shard) {
		if w.job.mode == protocol.Stale {
			return 0, nil
		}
		err := w.readIndex(shard)
		if err == nil {
			e.proposed = true
			return 0, nil
		}
		if r = refusalOf(err); r.status != protocol.StatusNotLeader {
			return 0, r
		}
	}
	if node = e.srv.elsewhere(w.job.c, shard); node == 0 {
		return 0, e.srv.notLeader(shard)
	}
	return node, nil
}

// remoteRows is what other nodes have read for a request over several shards.
type remoteRows struct {
	parts []*readPart
	here  []int // SCAN: the shards that are read here
}

func (r *remoteRows) release(s *Server) {
	for _, t := range r.parts {
		t.release(s)
	}
}

// oldest is the age of the oldest data among the parts, in milliseconds.
func (r *remoteRows) oldest() (age uint32) {
	for _, t := range r.parts {
		age = max(age, t.age)
	}
	return age
}

// malformedPart is the refusal of a request of which another node answered a
// part with something else than was asked for.
var malformedPart = &refusal{status: protocol.StatusInternal, message: "another node's part of the reply is malformed; check that all nodes run compatible versions"}

// subExtensions are those of the requests into which j is cut.
func (j *job) subExtensions() protocol.Extensions {
	x := j.extensions()
	x.Epoch = 0
	if x.Consistency == protocol.SessionReads {
		x.Consistency, x.Token = protocol.Linearizable, 0
	}
	return x
}

// mgetRows returns the rows that came from elsewhere, by position among n keys.
func (r *remoteRows) mgetRows(n int) ([]*protocol.MGetRow, *refusal) {
	rows := make([]*protocol.MGetRow, n)
	for _, t := range r.parts {
		next := 0
		for _, b := range t.bodies {
			var m protocol.MGetReply
			if err := m.Decode(b.B); err != nil || next+len(m.Rows) > len(t.keys) {
				return nil, malformedPart
			}
			for i := range m.Rows {
				rows[t.keys[next]] = &m.Rows[i]
				next++
			}
		}
		if next != len(t.keys) {
			return nil, malformedPart
		}
	}
	return rows, nil
}
