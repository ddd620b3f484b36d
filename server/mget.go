package server

import (
	"encoding/binary"

	"github.com/proa-kv/proa/bufpool"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/protocol"
)

const (
	// mgetInline bounds the keys that are looked up on the polling thread.
	mgetInline = 64
	// replyBytesMax bounds the whole answer to one MGET or SCAN.
	replyBytesMax = 64 << 20
)

type readFunc func(dst *bufpool.Buffer, shard int, key []byte, now uint64, valueMax int) (command.Row, command.ReadState)

// multiGet answers an MGET of few, cached keys at once and makes a job of any
// other.
func (p *processor) multiGet(c *conn, f *protocol.Frame) {
	if err := p.mget.Decode(f.Body); err != nil {
		p.refuse(c, f.ID, err)
		return
	}
	stale := p.ext.Consistency == protocol.Stale
	if len(p.mget.Keys) > mgetInline {
		p.later(c, f, stale)
		return
	}
	read := p.srv.readCached
	if stale {
		read = p.srv.readLocalCached
		p.marks.AgeMillis, p.marks.HasAge = p.oldest(nil), true
	}
	out := bufpool.Get(outputSize)
	state, whole := p.appendMGet(out, c, f.ID, &p.marks, read, nil, LargeBytes)
	if c.gone.Load() {
		out.Release() // it may not be whole
		return
	}
	if !whole {
		state = command.ReadMiss // it is large: not for this thread
	}
	switch state {
	case command.ReadMiss:
		out.Release()
		p.later(c, f, stale)
	case command.ReadNotLeader:
		out.Release()
		p.gatherMGet(p.newJob(c, f))
	default:
		c.begin(0)
		c.put(out, 0, nil, &p.touched)
		p.backlog = c.Backlog()
	}
}

// oldest is how old the data that p.mget sees in the replicas here may be, in
// milliseconds. Rows that came from elsewhere do not count.
func (e *executor) oldest(remote []*protocol.MGetRow) (age uint32) {
	for i, key := range e.mget.Keys {
		if remote == nil || remote[i] == nil {
			age = max(age, e.srv.age(e.srv.backend.ShardOf(protocol.Slot(key))))
		}
	}
	return age
}

func (e *executor) runMGet(j job) {
	// The body decoded when the request came in.
	if err := e.mget.Decode(j.request()); err != nil {
		e.failJob(&j, &refusal{status: protocol.StatusBadRequest, message: err.Error()})
		return
	}
	read := e.srv.read
	if j.local {
		read = e.srv.readLocal
	}
	var remote []*protocol.MGetRow
	marks := protocol.Extensions{Epoch: j.epoch}
	if j.remote != nil {
		var r *refusal
		if remote, r = j.remote.mgetRows(len(e.mget.Keys)); r != nil {
			e.failJob(&j, r)
			return
		}
		marks.Epoch = e.srv.backend.Epoch()
	}
	if j.mode == protocol.Stale {
		marks.AgeMillis, marks.HasAge = e.oldest(remote), true
		if j.remote != nil {
			marks.AgeMillis = max(marks.AgeMillis, j.remote.oldest())
		}
	}
	out := bufpool.Get(outputSize)
	state, whole := e.appendMGet(out, j.c, j.id, &marks, read, remote, j.replyMax())
	switch {
	case j.c.gone.Load():
		out.Release()
		j.drop()
		return
	case !whole:
		out.Release()
		e.claimReply(j, min(mgetStep*j.replyMax(), mgetBytesMax))
		return
	}
	switch state {
	case command.ReadNotLeader:
		out.Release()
		if j.remote != nil || (j.local && j.mode != protocol.Stale) {
			e.failJob(&j, &refusal{status: protocol.StatusNotLeader, retryMillis: retryLeaderMillis, message: "a shard of these keys was moved during the read; try again"})
			return
		}
		e.gatherMGet(j)
	default:
		e.complete(&j, out)
	}
}

// appendMGet appends the reply to p.mget, in frames of about ChunkBytes.
// remote, where it is not nil, has the rows that were read elsewhere. It
// returns ReadMiss or ReadNotLeader, with out in any state, if a row cannot be
// read so; and whole is false, with out in any state, where the rows take more
// than bytesMax.
func (e *executor) appendMGet(out *bufpool.Buffer, c *conn, id uint64, marks *protocol.Extensions, read readFunc, remote []*protocol.MGetRow, bytesMax int) (_ command.ReadState, whole bool) {
	w := chunks{out: out, id: id, marks: marks}
	w.begin()
	for i, key := range e.mget.Keys {
		w.split()
		if i%goneEvery == goneEvery-1 && c.gone.Load() {
			return command.ReadFound, true // whatever is there, nobody reads it
		}
		state := command.ReadFound
		if len(out.B) > bytesMax {
			return state, false
		}
		if remote != nil && remote[i] != nil {
			out.Grow(mgetRowBytes + len(remote[i].Value))
			out.B = remote[i].AppendTo(out.B)
		} else {
			state, whole = e.appendMGetRow(out, key, read, bytesMax-len(out.B))
			if !whole {
				return state, false
			}
		}
		switch state {
		case command.ReadMiss, command.ReadNotLeader:
			return state, true
		case command.ReadFailed:
			return e.abort(&w, protocol.StatusStorageFailed, errReadFailed)
		case command.ReadDamaged:
			return e.abort(&w, protocol.StatusDamaged, command.ErrDamaged.Error())
		}
		if len(out.B) > replyBytesMax {
			return e.abort(&w, protocol.StatusTooLarge, "the requested rows exceed 64 MiB; request fewer keys at a time")
		}
	}
	w.end()
	return command.ReadFound, true
}

// abort ends the reply with an error in place of the frame being written, and counts
// it.
func (e *executor) abort(w *chunks, s protocol.Status, message string) (_ command.ReadState, whole bool) {
	w.out.B = appendError(w.out.B[:w.start], w.id, w.marks, s, 0, message)
	e.srv.counters.errors.add(s)
	return command.ReadFound, true
}

// mgetStep is how many times as much memory an MGET asks for whose rows took
// more than it had: nobody knows how large they are before they are read.
const mgetStep = 16

// mgetBytesMax is what the rows of an MGET never exceed before it is refused
// for them.
const mgetBytesMax = replyBytesMax + protocol.ValueBytesMax + protocol.ChunkBytes

// mgetRowBytes is a row of an MGET reply without its value.
const mgetRowBytes = 1 + 8 + 8 + 4

// appendMGetRow reads one row into the reply, unless its value is longer than
// valueMax.
func (e *executor) appendMGetRow(out *bufpool.Buffer, key []byte, read readFunc, valueMax int) (_ command.ReadState, whole bool) {
	out.Grow(mgetRowBytes)
	at := len(out.B)
	out.B = out.B[:at+mgetRowBytes]
	row, state := read(out, e.srv.backend.ShardOf(protocol.Slot(key)), key, e.now, max(valueMax, 0))
	switch state {
	case command.ReadFound:
		if int(row.ValueBytes) > max(valueMax, 0) {
			return state, false
		}
		value := len(out.B) - at - mgetRowBytes
		head := protocol.MGetRow{Status: protocol.StatusOK, Version: row.Version, TTLMillis: row.TTLMillis}
		b := head.AppendTo(out.B[:at])
		binary.LittleEndian.PutUint32(b[at+17:], uint32(value))
		out.B = b[:at+mgetRowBytes+value]
	case command.ReadAbsent:
		out.B = append(out.B[:at], byte(protocol.StatusNotFound))
	default:
		out.B = out.B[:at]
	}
	return state, true
}

// gatherMGet has j, whose keys are in p.mget, wait until the replicas here have
// caught up and until other nodes have read what this one does not have.
func (e *executor) gatherMGet(j job) {
	w := e.await(j)
	if w == nil {
		return
	}
	// The keys are views of a buffer that may be another's before the parts
	// are sent.
	if err := e.mget.Decode(j.request()); err != nil {
		w.fail(&refusal{status: protocol.StatusBadRequest, message: err.Error()})
	}
	where := make(map[int]*readPart) // by shard; nil: read here
	byNode := make(map[uint64]*readPart)
	remote := &remoteRows{}
	for i, key := range e.mget.Keys {
		shard := e.srv.backend.ShardOf(protocol.Slot(key))
		t, seen := where[shard]
		if !seen {
			node, r := e.place(w, shard)
			if r != nil {
				w.fail(r)
				break
			}
			if t = byNode[node]; t == nil && node != 0 {
				t = &readPart{w: w, node: node}
				byNode[node] = t
				remote.parts = append(remote.parts, t)
			}
			where[shard] = t
		}
		if t != nil {
			t.keys = append(t.keys, int32(i))
		}
	}
	if w.failure.Load() == nil && len(remote.parts) > 0 {
		w.job.remote = remote
		x := w.job.subExtensions()
		for _, t := range remote.parts {
			var sub protocol.MGet
			for _, i := range t.keys {
				sub.Keys = append(sub.Keys, e.mget.Keys[i])
			}
			w.left.Add(1)
			e.sendPart(t, t.node, protocol.OpMGet, &x, w.job.deadline, sub.AppendTo)
		}
	}
	e.release(w)
}

// chunks writes a reply of several frames into one buffer.
type chunks struct {
	out   *bufpool.Buffer
	id    uint64
	marks *protocol.Extensions // of each frame
	start int                  // of the frame being written
}

func (w *chunks) begin() {
	w.out.Grow(protocol.HeaderBytes + marksBytesMax)
	w.start = len(w.out.B)
	w.out.B = beginFrame(w.out.B, uint8(protocol.StatusOK), protocol.FlagReply, w.id, w.marks)
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
