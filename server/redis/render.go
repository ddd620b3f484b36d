package redis

import (
	"bytes"
	"fmt"
	"math"
	"strconv"

	"github.com/proa-kv/proa/bufpool"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/protocol"
	"github.com/proa-kv/proa/server/resp"
)

// replyKind says how the answer of a command becomes RESP.
type replyKind uint8

const (
	replyVerbatim    replyKind = iota // the listener's own answer, as it stands
	replyOK                           // SET: OK, or null where the condition did not hold
	replyValue                        // the value of a row, or null
	replyPrevious                     // the row before a write, or null
	replyBool                         // 1 if carried out, 0 if not
	replyRenamed                      // OK, or an error where there is no such key
	replyRenamedNX                    // 1 or 0, or that error
	replyInteger                      // an IncrReply's
	replyFloat                        // a FloatReply's
	replyLength                       // length of a row's value
	replyRange                        // its bytes a to b
	replyEncoding                     // what Redis would store it as
	replyUsage                        // MEMORY USAGE: a and the length of the value
	replyFrequency                    // OBJECT FREQ: an error where there is a row
	replyIdleTime                     // OBJECT IDLETIME: 0
	replyRefCount                     // OBJECT REFCOUNT: 1
	replyType                         // "string" or "none"
	replyTTL                          // seconds left
	replyPTTL                         // milliseconds left
	replyExpireTime                   // Unix time in seconds
	replyPExpireTime                  // and in milliseconds
	replyCount                        // of several: how many were there
	replyArray                        // of several: their values
	replyAllOK                        // of several: OK if none has failed
	replySucceeded                    // of a TXN: 1 if its comparisons held, else 0
	replyWatch                        // of several: OK; their versions are noted
	replyExec                         // of a TXN: the replies of its commands
	replyWalk                         // pages of a SCAN, and then an answer as it stands
)

// verbatimCode stands in the place of a status in a frame whose body is RESP
// already. No native connection ever sees one.
const verbatimCode = 0xff

// Render turns native frames into RESP, in the order of the commands.
func (c *conn) Render(native *bufpool.Buffer) *bufpool.Buffer {
	out := bufpool.Get(len(native.B))
	head := c.head.Load()
	for b := native.B; len(b) > 0; {
		id, size, whole := answerAt(b)
		frames := b[:size]
		b = b[size:]
		number := id >> partBits
		if number < head || number >= c.tail.Load() {
			continue // a notice, which Redis's clients do not know
		}
		s := c.pending(number)
		switch {
		case s.kind == replyWalk && !isVerbatim(frames):
			c.keep(s, frames)
			if whole {
				c.page.Store(true)
			}
			continue
		case whole:
			s.left--
		}
		if number != head || s.left > 0 || s.kept != nil {
			c.keep(s, frames)
		} else {
			s.reply(out, frames)
			head = c.pop(head)
		}
		for head < c.tail.Load() {
			if s = c.pending(head); s.left > 0 {
				break
			}
			s.reply(out, s.kept.B)
			head = c.pop(head)
		}
	}
	c.head.Store(head)
	if len(out.B) == 0 {
		out.Release()
		return nil
	}
	return out
}

// isVerbatim reports whether an answer is RESP already.
func isVerbatim(frames []byte) bool {
	f, _ := ownFrame(frames)
	return f.Code == verbatimCode
}

// answerAt returns the extent of the frames at the front of b that belong to
// one answer, and whether the last of them ends it.
func answerAt(b []byte) (id uint64, size int, whole bool) {
	for size < len(b) {
		f, n := ownFrame(b[size:])
		if size > 0 && f.ID != id {
			break
		}
		id = f.ID
		size += n
		if f.Flags&protocol.FlagMore == 0 {
			return id, size, true
		}
	}
	return id, size, false
}

// ownFrame returns the frame at the front of b, which the server has made, and
// its size.
func ownFrame(b []byte) (f protocol.Frame, size int) {
	f, size, _, err := protocol.Next(b, math.MaxUint32)
	if err != nil || size == 0 {
		panic(fmt.Sprintf("redis: a frame of the server's own is malformed: %v", err))
	}
	return f, size
}

// frameAt returns the status and the body of the first frame of frames, and the
// rest.
func frameAt(frames []byte) (status protocol.Status, body, rest []byte) {
	f, n := ownFrame(frames)
	return protocol.Status(f.Code), f.Body, frames[n:]
}

// txnReply returns whether the comparisons of a TXN held, and the outcomes.
func txnReply(body []byte) (succeeded bool, o outcomes) {
	if len(body) == 0 {
		return false, outcomes{malformed: true}
	}
	return body[0]&1 != 0, listed(body[1:])
}

// reply appends the reply to a command of which frames is the whole answer.
func (s *pendingReply) reply(out *bufpool.Buffer, frames []byte) {
	status, body, _ := frameAt(frames)
	switch {
	case status == verbatimCode:
		out.Append(body)
	case s.kind == replyWalk:
		// Pages that nobody has looked at stand before the answer.
		for rest := frames; status != verbatimCode; {
			status, body, rest = frameAt(rest)
		}
		out.Append(body)
	case s.kind == replyCount || s.kind == replyAllOK:
		s.summarise(out, frames)
	case s.kind == replyArray:
		s.values(out, frames)
	case s.kind == replySucceeded:
		s.succeeded(out, status, body)
	case s.kind == replyWatch:
		s.more.(*watch).take(out, &s.shape, frames)
	case s.kind == replyExec:
		s.more.(*execution).reply(out, &s.shape, status, body)
	default:
		s.one(out, status, body)
	}
}

// shape says how the answer of a command becomes its reply.
type shape struct {
	kind    replyKind
	part    bool  // what was read is a RangeReply
	write   bool  // the command may have changed something
	version uint8 // of RESP, as the client had chosen when it sent the command
	a, b    int64 // operands of kind
}

// proto is the version of RESP.
func (x *shape) proto() int { return int(x.version) }

// replyBytes is what the replies of fixed size, and the frame of a value, take
// at most.
const replyBytes = 64

// one appends the reply that one native outcome makes.
func (x *shape) one(out *bufpool.Buffer, status protocol.Status, body []byte) {
	if !status.CarriesResult() {
		x.fail(out, status, body)
		return
	}
	out.Grow(len(body) + replyBytes)
	ok := false
	switch x.kind {
	case replyOK, replyBool, replyRenamed, replyRenamedNX:
		out.B, ok = x.outcome(out.B, status), true
	case replyPrevious:
		var m protocol.WriteReply
		ok = m.Decode(body) == nil
		switch {
		case m.PreviousOmitted:
			out.B = resp.AppendError(out.B, errOmitted)
		case m.HasPrevious:
			out.B = resp.AppendBulk(out.B, m.PreviousValue)
		default:
			out.B = resp.AppendNull(out.B, x.proto())
		}
	case replyInteger:
		var m protocol.IncrReply
		ok = m.Decode(body) == nil
		out.B = resp.AppendInt(out.B, m.Value)
	case replyFloat:
		var m protocol.FloatReply
		ok = m.Decode(body) == nil
		if len(m.Text) == 0 {
			out.B = resp.AppendError(out.B, errOmitted)
		} else {
			out.B = resp.AppendBulk(out.B, m.Text)
		}
	case replyExpireTime, replyPExpireTime:
		out.B, ok = x.expireTime(out.B, status, body)
	default:
		out.B, ok = x.row(out.B, status, body)
	}
	if !ok {
		out.B = resp.AppendError(out.B, errMalformedAnswer)
	}
}

const (
	errOmitted         = "ERR the command was carried out, but the replies to the transaction are too large together; read the value again"
	errTxnTooLarge     = "ERR the replies to the transaction would exceed 16 MiB; nothing was done"
	errMalformedAnswer = "ERR another node's answer is malformed; check that all nodes run compatible versions"
)

// outcome appends the reply to a write that returns no row.
func (x *shape) outcome(dst []byte, status protocol.Status) []byte {
	done := status == protocol.StatusOK
	number := x.kind == replyBool || x.kind == replyRenamedNX
	switch {
	case status == protocol.StatusNotFound && (x.kind == replyRenamed || x.kind == replyRenamedNX):
		return resp.AppendError(dst, resp.ErrNoSuchKey)
	case number && done:
		return append(dst, ":1\r\n"...)
	case number:
		return append(dst, ":0\r\n"...)
	case done:
		return append(dst, "+OK\r\n"...)
	}
	return resp.AppendNull(dst, x.proto())
}

// row appends the reply to a read of a row, or of a part of one.
func (x *shape) row(dst []byte, status protocol.Status, body []byte) (_ []byte, ok bool) {
	if status != protocol.StatusOK {
		return x.absent(dst), true
	}
	var m protocol.RowReply
	length := int64(0)
	if x.part {
		var part protocol.RangeReply
		if part.Decode(body) != nil {
			return dst, false
		}
		m.Value, length = part.Part, int64(part.Length)
	} else {
		if m.Decode(body) != nil {
			return dst, false
		}
		length = int64(len(m.Value))
	}
	switch x.kind {
	case replyValue:
		dst = resp.AppendBulk(dst, m.Value)
	case replyLength:
		dst = resp.AppendInt(dst, length)
	case replyRange:
		if !x.part {
			m.Value = command.Cut(m.Value, x.a, x.b)
		}
		dst = resp.AppendBulk(dst, m.Value)
	case replyEncoding:
		dst = resp.AppendBulk(dst, encodingOf(m.Value))
	case replyUsage:
		dst = resp.AppendInt(dst, x.a+length)
	case replyFrequency:
		dst = resp.AppendError(dst, resp.ErrNoFrequency)
	case replyIdleTime:
		dst = resp.AppendInt(dst, 0)
	case replyRefCount:
		dst = resp.AppendInt(dst, 1)
	case replyType:
		dst = resp.AppendSimple(dst, "string")
	case replyTTL:
		dst = resp.AppendInt(dst, timeLeft(m.TTLMillis, 1000))
	case replyPTTL:
		dst = resp.AppendInt(dst, timeLeft(m.TTLMillis, 1))
	default:
		return dst, false
	}
	return dst, true
}

// absent appends the reply to a read of a row that does not exist.
func (x *shape) absent(dst []byte) []byte {
	switch x.kind {
	case replyLength:
		return resp.AppendInt(dst, 0)
	case replyRange:
		return resp.AppendBulk(dst, "")
	case replyType:
		return resp.AppendSimple(dst, "none")
	case replyTTL, replyPTTL, replyExpireTime, replyPExpireTime:
		return resp.AppendInt(dst, -2)
	}
	return resp.AppendNull(dst, x.proto())
}

// expireTime appends when a row expires.
func (x *shape) expireTime(dst []byte, status protocol.Status, body []byte) (_ []byte, ok bool) {
	if status != protocol.StatusOK {
		return x.absent(dst), true
	}
	var m protocol.ExpiryReply
	if m.Decode(body) != nil {
		return dst, false
	}
	unit := uint64(1)
	if x.kind == replyExpireTime {
		unit = 1000
	}
	return resp.AppendInt(dst, timeLeft(m.ExpireAtMillis, unit)), true
}

// timeLeft is a time in milliseconds in units of unit milliseconds, rounded to
// the nearest; -1 where there is none.
func timeLeft(millis, unit uint64) int64 {
	if millis == 0 {
		return -1
	}
	return int64((millis + unit/2) / unit)
}

// embeddedBytesMax is the longest string that Redis stores together with its
// object.
const embeddedBytesMax = 44

// encodingOf is how Redis would store a value that was set at once.
func encodingOf(value []byte) string {
	if _, ok := resp.ParseInt(value); ok {
		return "int"
	}
	if len(value) <= embeddedBytesMax {
		return "embstr"
	}
	return "raw"
}

// outcomes are those of a command of several parts, whether they are answers of
// their own or stand in one of a BATCH or TXN.
type outcomes struct {
	frames    []byte // left
	list      []byte // left of the BATCH's
	malformed bool   // what follows makes no sense
}

// listed are the outcomes in the answer to a BATCH.
func listed(body []byte) outcomes {
	_, list, err := protocol.NextCount(body)
	return outcomes{list: list, malformed: err != nil}
}

// outcomes are those in the answer to a command.
func (x *shape) outcomes(frames []byte) outcomes {
	if status, body, _ := frameAt(frames); x.b == inBatch && status == protocol.StatusOK {
		return listed(body)
	}
	return outcomes{frames: frames}
}

// next returns the next outcome. ok is false at the end, and where what follows is
// malformed.
func (o *outcomes) next() (status protocol.Status, body []byte, ok bool) {
	switch {
	case o.malformed:
	case len(o.frames) > 0:
		status, body, o.frames = frameAt(o.frames)
		return status, body, true
	case len(o.list) > 0:
		var r protocol.OpResult
		rest, err := r.Next(o.list)
		o.list, o.malformed = rest, err != nil
		return r.Status, r.Body, err == nil
	}
	return 0, nil, false
}

// summarise appends the reply to a command of several parts: how many
// were there, or that all is done.
func (x *shape) summarise(out *bufpool.Buffer, frames []byte) {
	o, t := x.outcomes(frames), total{}
	for status, body, ok := o.next(); ok; status, body, ok = o.next() {
		t.add(status, body)
	}
	t.malformed = o.malformed
	t.reply(out, x)
}

// inBatch in shape.b says that a command of several parts is one BATCH.
const inBatch = 1

// total sums up the outcomes of a command of several parts.
type total struct {
	there     int64
	failed    bool
	unknown   bool // the failure below leaves an outcome open
	status    protocol.Status
	body      []byte // of the first failure
	malformed bool
}

func (t *total) add(status protocol.Status, body []byte) {
	switch {
	case status == protocol.StatusOK:
		t.there++
	case !status.CarriesResult() && (!t.failed || (!t.unknown && status.Outcome() == protocol.Unknown)):
		t.failed, t.status, t.body = true, status, body
		t.unknown = status.Outcome() == protocol.Unknown
	}
}

func (t *total) reply(out *bufpool.Buffer, x *shape) {
	out.Grow(replyBytes)
	switch {
	case t.malformed:
		out.Append([]byte("-" + errMalformedAnswer + "\r\n"))
	case t.failed:
		x.fail(out, t.status, t.body)
	case x.kind == replyAllOK:
		out.B = append(out.B, "+OK\r\n"...)
	default:
		out.B = resp.AppendInt(out.B, t.there)
	}
}

// values appends the array that answers MGET.
func (x *shape) values(out *bufpool.Buffer, frames []byte) {
	start := len(out.B)
	out.Grow(replyBytes)
	out.B = resp.AppendArray(out.B, int(x.a))
	count := int64(0)
	for len(frames) > 0 {
		status, body, rest := frameAt(frames)
		frames = rest
		n := int64(-1)
		switch {
		case status != protocol.StatusOK:
		case x.b == inBatch:
			status, body, n = x.rowsOfBatch(out, body)
		default:
			n = x.rowsOfMGet(out, body)
		}
		if status != protocol.StatusOK {
			out.B = out.B[:start]
			x.fail(out, status, body)
			return
		}
		if n < 0 {
			count = -1
			break
		}
		count += n
	}
	if count != x.a {
		out.B = resp.AppendError(out.B[:start], errMalformedAnswer)
	}
}

// rowsOfMGet appends the values in a frame that answers MGET, and returns how
// many they are; -1 if it makes no sense.
func (x *shape) rowsOfMGet(out *bufpool.Buffer, body []byte) (count int64) {
	for len(body) > 0 {
		var row protocol.MGetRow
		rest, err := row.Next(body)
		if err != nil {
			return -1
		}
		body = rest
		x.value(out, row.Value, row.Status == protocol.StatusOK)
		count++
	}
	return count
}

// rowsOfBatch is rowsOfMGet for the outcomes of GETs in a BATCH. Where one has
// failed it returns its status and body.
func (x *shape) rowsOfBatch(out *bufpool.Buffer, body []byte) (_ protocol.Status, _ []byte, count int64) {
	o := listed(body)
	for status, body, ok := o.next(); ok; status, body, ok = o.next() {
		var m protocol.RowReply
		switch {
		case status == protocol.StatusTooLarge: // the rows have grown meanwhile
			return protocol.StatusBusy, nil, -1
		case status != protocol.StatusOK && status != protocol.StatusNotFound:
			return status, body, -1
		case status == protocol.StatusOK && m.Decode(body) != nil:
			return protocol.StatusOK, nil, -1
		}
		x.value(out, m.Value, status == protocol.StatusOK)
		count++
	}
	if o.malformed {
		return protocol.StatusOK, nil, -1
	}
	return protocol.StatusOK, nil, count
}

// value appends a value, or null where there is none.
func (x *shape) value(out *bufpool.Buffer, value []byte, found bool) {
	out.Grow(len(value) + replyBytes)
	if found {
		out.B = resp.AppendBulk(out.B, value)
	} else {
		out.B = resp.AppendNull(out.B, x.proto())
	}
}

// succeeded appends whether the comparisons of a TXN held and its writes, of
// which each then has to have been carried out, are done.
func (x *shape) succeeded(out *bufpool.Buffer, status protocol.Status, body []byte) {
	succeeded, o := txnReply(body)
	if status != protocol.StatusOK || o.malformed {
		x.fail(out, status, body)
		return
	}
	out.Grow(replyBytes)
	n := int64(0)
	if succeeded {
		n = 1
	}
	out.B = resp.AppendInt(out.B, n)
}

// fail appends the error for a command that has none of its results. body is an
// ErrorReply, or empty.
func (x *shape) fail(out *bufpool.Buffer, status protocol.Status, body []byte) {
	text := x.errorOf(status, body)
	out.Grow(replyBytes + len(text))
	out.B = resp.AppendError(out.B, text)
}

// errorOf is the text of that error.
func (x *shape) errorOf(status protocol.Status, body []byte) string {
	var m protocol.ErrorReply
	if len(body) > 0 && m.Decode(body) == nil && len(m.Message) > 0 {
		return x.errorText(status, string(m.Message))
	}
	return x.errorText(status, status.Text())
}

// errorText is a failure in Redis's words where Redis has any, and otherwise
// with the code that makes its clients do the right thing: TRYAGAIN and
// CLUSTERDOWN stand for what has definitely not been done and may be tried
// again. What may have been done is never reported as failed.
func (x *shape) errorText(status protocol.Status, message string) string {
	if x.write && status.Outcome() == protocol.Unknown {
		return "UNKNOWN the outcome of the write is unknown: " + message
	}
	if status.Outcome() == protocol.Unknown {
		return "CLUSTERDOWN a majority of the shard's replicas did not answer in time" // a read that went through the log
	}
	switch status {
	case protocol.StatusNotInteger:
		return resp.ErrNotInteger
	case protocol.StatusNotFloat:
		return resp.ErrNotFloat
	case protocol.StatusOverflow:
		if x.kind == replyFloat {
			return resp.ErrNotFinite
		}
		return resp.ErrOverflow
	case protocol.StatusTooLarge:
		if x.kind == replyExec {
			return errTxnTooLarge
		}
		if x.write {
			return resp.ErrStringTooLong
		}
	case protocol.StatusCrossShard:
		return resp.ErrCrossSlot
	case protocol.StatusPermission:
		return "NOPERM " + message
	case protocol.StatusBusy, protocol.StatusDeadlineExceeded, protocol.StatusDropped:
		return "TRYAGAIN " + message
	case protocol.StatusNotLeader, protocol.StatusNoQuorum, protocol.StatusShuttingDown:
		return "CLUSTERDOWN " + message
	}
	return "ERR " + message
}

// countError counts a reply of the listener's own, if it is an error.
func (l *Listener) countError(reply []byte) {
	if len(reply) > 0 && reply[0] == '-' {
		l.srv.CountError(statusOf(reply[1:]))
	}
}

// appendVerbatim appends a frame with a reply as it stands.
func appendVerbatim(dst []byte, id uint64, reply []byte) []byte {
	start := len(dst)
	b := protocol.Begin(dst, verbatimCode, protocol.FlagReply, id)
	return protocol.End(append(b, reply...), start)
}

// itoa appends a decimal number; short for the listener's own texts.
func itoa[T ~int | ~int64 | ~uint64 | ~uint32](dst []byte, n T) []byte {
	return strconv.AppendInt(dst, int64(n), 10)
}

// errorStatuses are the statuses under which errors of the listener's own are
// counted, by how they begin; any other is a BAD_REQUEST.
var errorStatuses = [...]struct {
	prefix string
	status protocol.Status
}{
	{"MOVED ", protocol.StatusNotLeader}, {"CROSSSLOT ", protocol.StatusCrossShard}, {"CLUSTERDOWN ", protocol.StatusNotLeader},
	{"TRYAGAIN ", protocol.StatusBusy}, {"ERR unknown command", protocol.StatusUnsupported},
}

func statusOf(text []byte) protocol.Status {
	for i := range errorStatuses {
		if d := &errorStatuses[i]; bytes.HasPrefix(text, []byte(d.prefix)) {
			return d.status
		}
	}
	return protocol.StatusBadRequest
}
