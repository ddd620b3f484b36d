package redis

import (
	"time"

	"github.com/proa-kv/proa/protocol"
	"github.com/proa-kv/proa/server/resp"
)

// FLUSHALL and FLUSHDB, which are the same where there is one database, are a
// walk over shards that deletes instead of reading. Without resp.redirect that is
// one DELETE_RANGE of everything; with it one for each shard of which this node
// is the master.

// cmdFlush answers FLUSHALL and FLUSHDB. ASYNC and SYNC ask for what is so in
// any case: nothing waits for the rows, nor does the reply come before they are
// gone.
func cmdFlush(p *processor, c *conn, x *plan) (held bool) {
	if len(x.args) > 2 || len(x.args) == 2 && !isWord(x.args[1], "async") && !isWord(x.args[1], "sync") {
		return x.fail(resp.ErrSyntax)
	}
	// What came before must not see it, reads that are under way included.
	if c.awaitAnswer(c.tail.Load() - 1) {
		return true
	}
	w := &walk{flush: true, begun: time.Now(), at: p.beginWalk(nil)}
	w.take = func(*walk, [][]byte) walkStep { return walkOn }
	w.end = func(_ *walk, dst []byte, _ int) []byte { return append(dst, "+OK\r\n"...) }
	return p.walkOver(c, w)
}

// askFlush asks for the deletion of all rows of the walk's present shard, or of
// all shards.
func (p *processor) askFlush(c *conn) {
	w := c.walk
	m := protocol.DeleteRange{Flags: protocol.DeleteRangeAll}
	p.askNext(c, protocol.OpDeleteRange, m.AppendTo(p.plan.body[:0]))
	w.at.cursor = nil
}

// loadFlush takes in the answer to one DELETE_RANGE, and returns the error to
// answer where there is one. Shards that refuse it for the moment are asked again,
// as long as other commands would wait. What has been deleted in some shards is not
// reported as not done.
func (w *walk) loadFlush(frames []byte, timeout time.Duration) (problem string) {
	w.loaded = true
	status, body, _ := frameAt(frames)
	results := protocol.OpResults{{Status: status, Body: body}} // of all that was asked
	apart := status == protocol.StatusOK                        // of each shard by itself
	if apart {
		var m protocol.BatchReply
		if m.Decode(body) != nil {
			return errMalformedAnswer
		}
		results = m.Results
	}
	var left []uint16
	var failed *protocol.OpResult
	for i := range results {
		switch r := &results[i]; {
		case r.Status == protocol.StatusOK:
			w.count++
		case r.Status.Outcome() != protocol.NotDone:
			w.count++
			failed = r
		case r.Status.Retry() && time.Since(w.begun) < timeout:
			left = append(left, uint16(i))
		default:
			failed = r
		}
	}
	switch w.waits = failed == nil && len(left) > 0; {
	case failed != nil:
		return w.flushError(*failed)
	case w.waits && apart && !w.at.confined:
		w.at = position{confined: true, shards: left}
	}
	return ""
}

// flushError is the error to answer for what became of some shard.
func (w *walk) flushError(r protocol.OpResult) string {
	if w.count > 0 {
		r.Status = protocol.StatusTimeout // of part of it the outcome is known, of all it is not
	}
	return (&shape{kind: replyWalk, write: true}).errorOf(r.Status, r.Body)
}
