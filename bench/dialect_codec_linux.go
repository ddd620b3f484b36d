package bench

import (
	"fmt"
	"time"

	"github.com/proa-kv/proa/protocol"
)

// codecDialect is the dialect of a Codec: one operation, and one value for all rows.
type codecDialect struct {
	*worker
	codecLoad
	sent []fifo // by connection, where replies are ordered: the calls unanswered
}

// fifo is a queue that keeps its memory.
type fifo struct {
	items []int32
	head  int
}

func (q *fifo) push(v int32) {
	if len(q.items) == cap(q.items) && q.head > 0 {
		q.items, q.head = q.items[:copy(q.items, q.items[q.head:])], 0
	}
	q.items = append(q.items, v)
}

func (q *fifo) pop() (v int32, ok bool) {
	if q.head == len(q.items) {
		return 0, false
	}
	v = q.items[q.head]
	if q.head++; q.head == len(q.items) {
		q.items, q.head = q.items[:0], 0
	}
	return v, true
}

func newCodecDialect(w *worker, load *codecLoad) *codecDialect {
	d := &codecDialect{worker: w, codecLoad: *load}
	if w.loading {
		d.op = Put
	}
	if load.codec.Ordered() {
		d.sent = make([]fifo, len(w.peers))
	}
	return d
}

func (d *codecDialect) appendRequest(dst []byte, at int32) []byte {
	var key, value []byte
	if d.op != Ping {
		key = d.key
	}
	if d.op == Put {
		value = d.value
	}
	if d.sent != nil {
		d.sent[d.calls[at].conn].push(at)
	}
	return d.codec.AppendRequest(dst, d.op, uint32(at+1), key, value)
}

func (d *codecDialect) takeReplies(i int, b []byte, now time.Duration) ([]byte, error) {
	for len(b) > 0 {
		r, size, err := d.codec.ParseReply(b, d.op)
		if err != nil {
			return b, err
		}
		if size == 0 {
			break
		}
		b = b[size:]
		at, ok := d.answered(i, r.Tag)
		if !ok {
			return b, fmt.Errorf("%w: a reply with tag %d, which no request has", ErrProtocol, r.Tag)
		}
		d.peers[i].inFlight--
		if d.calls[at].counted {
			d.tally.BytesIn += uint64(size)
		}
		d.take(at, &r, now)
	}
	return b, nil
}

// answered returns the call that a reply on connection i belongs to.
func (d *codecDialect) answered(i int, tag uint64) (at int32, ok bool) {
	if d.sent != nil {
		return d.sent[i].pop()
	}
	if tag-1 >= uint64(len(d.calls)) {
		return 0, false
	}
	c := &d.calls[tag-1]
	return int32(tag - 1), c.active && !c.waiting && c.conn == int32(i)
}

// take ends a call, or repeats it, as its reply says.
func (d *codecDialect) take(at int32, r *Reply, now time.Duration) {
	switch {
	case r.Outcome == Busy:
		m := protocol.ErrorReply{Message: r.Message}
		d.refused(at, protocol.StatusBusy, &m, now)
	case r.Outcome == Failed:
		d.fail(at, classFailed, r.Message, false, now)
	case r.Outcome == OK && d.op == Get && r.ValueBytes != len(d.value):
		d.fail(at, classWrong, d.wrongLength(r.ValueBytes), false, now)
	default:
		d.succeed(at, r.Outcome == OK, now)
	}
}

// wrongLength describes a value of another length than was written if that will be
// reported: only the first error is.
func (d *codecDialect) wrongLength(n int) []byte {
	if d.tally.FirstError != "" {
		return nil
	}
	return fmt.Appendf(nil, "a value of %d bytes, %d were expected", n, len(d.value))
}
