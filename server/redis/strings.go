package redis

import (
	"math"

	"github.com/proa-kv/proa/protocol"
	"github.com/proa-kv/proa/server/resp"
)

// read plans a read of the row of argument 1.
func (x *plan) read(code protocol.Opcode, kind replyKind) {
	if x.takeKey(1) {
		x.kind = kind
		x.add(code, x.args[1])
	}
}

func cmdGetRange(_ *processor, x *plan) {
	start, ok := x.integer(2)
	if !ok {
		return
	}
	end, ok := x.integer(3)
	if !ok {
		return
	}
	x.a, x.b = start, end
	x.readPart(1, start, end, replyRange)
}

// readPart plans a read of what lies between two bytes of the row of argument i.
// Inside of a transaction nothing else is answered; by itself the row is looked at
// as a whole, where it may be in memory.
func (x *plan) readPart(i int, start, end int64, kind replyKind) {
	if !x.takeKey(i) {
		return
	}
	x.kind, x.part = kind, x.inTxn
	if !x.part {
		x.add(protocol.OpGet, x.args[i])
		return
	}
	m := protocol.GetRange{Start: start, End: end, Key: x.args[i]}
	x.body = m.AppendTo(x.body)
	x.encoded(protocol.OpGetRange)
}

// writes makes argument 1 the key of a write.
func (x *plan) writes(kind replyKind) bool {
	x.kind, x.write = kind, true
	return x.takeKey(1)
}

// plainPut plans a PUT of argument value under the key in argument 1.
func (x *plan) plainPut(value int, flags protocol.WriteFlags, kind replyKind) {
	if !x.writes(kind) {
		return
	}
	x.setPut(protocol.Put{Flags: flags, Key: x.args[1], Value: x.args[value]})
}

// setPut plans a PUT and nothing else.
func (x *plan) setPut(m protocol.Put) {
	if x.inTxn {
		x.body = m.AppendTo(x.body)
		x.encoded(protocol.OpPut)
		return
	}
	x.put, x.hasPut = m, true
}

func cmdSet(_ *processor, x *plan) {
	if len(x.args) == 3 {
		x.plainPut(2, 0, replyOK)
		return
	}
	o, ok := x.setOptions(3, false)
	if !ok {
		return
	}
	m := protocol.Put{Flags: o.flags, Key: x.args[1], Value: x.args[2]}
	if o.unit != 0 {
		at, ok := x.expireTime(x.args[o.at], o.unit, o.absolute)
		if !ok {
			return
		}
		m.TTLMillis = at.millis
		if at.absolute {
			m.Flags |= protocol.WriteExpireAt
		} else {
			m.Flags |= protocol.WriteTTL
		}
	}
	if !x.writes(replyOK) {
		return
	}
	if m.Flags&protocol.WriteReturnPrevious != 0 {
		x.kind = replyPrevious
	}
	x.setPut(m)
}

// setOptions are those of SET and GETEX.
type setOptions struct {
	flags    protocol.WriteFlags
	persist  bool
	unit     int64 // milliseconds of the unit of the expiry; 0: none
	absolute bool
	at       int // argument that holds the expiry
}

// setOptions reads the arguments from i on.
func (x *plan) setOptions(i int, getEX bool) (o setOptions, ok bool) {
	timed := func(i int, unit int64, absolute bool) bool {
		if (o.unit != 0 && (o.unit != unit || o.absolute != absolute)) || o.persist || o.flags&protocol.WriteKeepTTL != 0 || i+1 == len(x.args) {
			return false
		}
		o.unit, o.absolute, o.at = unit, absolute, i+1
		return true
	}
	for ; i < len(x.args); i++ {
		a := x.args[i]
		good := false
		switch {
		case !getEX && isWord(a, "nx"):
			good = o.flags&protocol.WriteIfPresent == 0
			o.flags |= protocol.WriteIfAbsent
		case !getEX && isWord(a, "xx"):
			good = o.flags&protocol.WriteIfAbsent == 0
			o.flags |= protocol.WriteIfPresent
		case !getEX && isWord(a, "get"):
			good = true
			o.flags |= protocol.WriteReturnPrevious
		case !getEX && isWord(a, "keepttl"):
			good = o.unit == 0
			o.flags |= protocol.WriteKeepTTL
		case getEX && isWord(a, "persist"):
			good = o.unit == 0
			o.persist = true
		case isWord(a, "ex"):
			good = timed(i, 1000, false)
			i++
		case isWord(a, "px"):
			good = timed(i, 1, false)
			i++
		case isWord(a, "exat"):
			good = timed(i, 1000, true)
			i++
		case isWord(a, "pxat"):
			good = timed(i, 1, true)
			i++
		}
		if !good {
			x.fail(resp.ErrSyntax)
			return o, false
		}
	}
	return o, true
}

// isWord compares an argument with a word in lower case.
func isWord(arg []byte, word string) bool {
	if len(arg) != len(word) {
		return false
	}
	for i, c := range arg {
		if c|0x20 != word[i] && c != word[i] {
			return false
		}
	}
	return true
}

// expiry is when a row expires.
type expiry struct {
	millis   uint64
	absolute bool // millis is a Unix time, and otherwise a time to live
}

// expireTime reads the positive expiry of SET, SETEX and GETEX.
func (x *plan) expireTime(arg []byte, unit int64, absolute bool) (expiry, bool) {
	n, ok := resp.ParseInt(arg)
	if !ok {
		x.fail(resp.ErrNotInteger)
		return expiry{}, false
	}
	e, ok := x.expiryOf(n, unit, absolute)
	if !ok || n <= 0 {
		x.fail(resp.InvalidExpire(x.cmd.Name))
		return expiry{}, false
	}
	return e, true
}

// expiryOf checks the range of an expiry as Redis does. What is not positive
// has passed.
func (x *plan) expiryOf(n, unit int64, absolute bool) (expiry, bool) {
	if n > math.MaxInt64/unit || n < math.MinInt64/unit {
		return expiry{}, false
	}
	n *= unit
	if absolute {
		return expiry{uint64(max(n, 0)), true}, true
	}
	now := int64(x.c.l.backend.NowMillis())
	switch {
	case n > math.MaxInt64-now:
		return expiry{}, false
	case n <= 0:
		return expiry{0, true}, true
	case n > protocol.TTLMillisMax:
		return expiry{uint64(n + now), true}, true
	}
	return expiry{uint64(n), false}, true
}

// putFor plans SETEX or PSETEX.
func (x *plan) putFor(unit int64) {
	e, ok := x.expireTime(x.args[2], unit, false)
	if !ok || !x.takeKey(1) {
		return
	}
	m := protocol.Put{Flags: protocol.WriteTTL, TTLMillis: e.millis, Key: x.args[1], Value: x.args[3]}
	if e.absolute {
		m.Flags = protocol.WriteExpireAt
	}
	x.kind, x.write = replyOK, true
	x.setPut(m)
}

func cmdGetDel(_ *processor, x *plan) {
	if !x.writes(replyPrevious) {
		return
	}
	m := protocol.Delete{Flags: protocol.WriteReturnPrevious, Key: x.args[1]}
	x.body = m.AppendTo(x.body)
	x.encoded(protocol.OpDelete)
}

func cmdGetEX(_ *processor, x *plan) {
	o, ok := x.setOptions(2, true)
	if !ok {
		return
	}
	m := protocol.SetExpiry{Flags: protocol.ExpiryReturnRow, Key: x.args[1]}
	switch {
	case o.persist:
		m.Flags |= protocol.ExpiryRemove
	case o.unit != 0:
		e, ok := x.expireTime(x.args[o.at], o.unit, o.absolute)
		if !ok {
			return
		}
		m.Millis = e.millis
		if e.absolute {
			m.Flags |= protocol.ExpiryAt
		}
	default:
		x.read(protocol.OpGet, replyValue)
		return
	}
	x.setExpiry(&m, replyPrevious)
}

// setExpiry plans a SETEXPIRY of the key in argument 1.
func (x *plan) setExpiry(m *protocol.SetExpiry, kind replyKind) {
	if !x.writes(kind) {
		return
	}
	x.body = m.AppendTo(x.body)
	x.encoded(protocol.OpSetExpiry)
}

// tooManyKeys is the error for a command of more keys than a native request
// may have.
const tooManyKeys = "ERR too many keys in one command, at most 10000 are allowed; send several commands"

// takeKeys makes every step-th argument from the first on a key.
func (x *plan) takeKeys(step int) bool {
	if (len(x.args)-1)/step > protocol.OpsMax {
		x.fail(tooManyKeys)
		return false
	}
	for i := 1; i < len(x.args); i += step {
		if !x.takeKey(i) {
			return false
		}
	}
	return true
}

func cmdMGet(_ *processor, x *plan) {
	if !x.takeKeys(1) {
		return
	}
	x.kind, x.a = replyArray, int64(len(x.keys))
	if x.inTxn {
		x.each(protocol.OpGet)
		return
	}
	m := protocol.MGet{Keys: x.keys}
	x.body = m.AppendTo(x.body)
	x.encoded(protocol.OpMGet)
}

// each plans one request for each key, of a kind whose body is the key.
func (x *plan) each(code protocol.Opcode) {
	x.many = true
	for _, key := range x.keys {
		x.add(code, key)
	}
}

func cmdMSet(_ *processor, x *plan) {
	if len(x.args)%2 == 0 {
		x.fail(resp.WrongArity(x.cmd.Name))
		return
	}
	if !x.takeKeys(2) {
		return
	}
	x.kind, x.write = replyAllOK, true
	x.putPairs(0)
}

// putPairs plans a PUT for each pair of arguments, all at once.
func (x *plan) putPairs(batchFlags byte) {
	if x.inTxn {
		x.many = true
		for i := 1; i < len(x.args); i += 2 {
			m := protocol.Put{Key: x.args[i], Value: x.args[i+1]}
			x.body = m.AppendTo(x.body)
			x.encoded(protocol.OpPut)
		}
		return
	}
	x.b = inBatch
	x.body = append(x.body, batchFlags)
	x.appendPuts()
	x.encoded(protocol.OpBatch)
}

// appendPuts appends the PUTs of all pairs of arguments as a list of operations.
func (x *plan) appendPuts() {
	at := x.beginOps()
	for i := 1; i < len(x.args); i += 2 {
		op := x.beginOp(protocol.OpPut)
		m := protocol.Put{Key: x.args[i], Value: x.args[i+1]}
		x.body = m.AppendTo(x.body)
		protocol.EndOp(x.body, op)
	}
	protocol.EndOps(x.body, at, len(x.args)/2)
}

// errMSetNXInMulti: a TXN has one list of comparisons, and those are the
// watched keys'.
const errMSetNXInMulti = "ERR MSETNX of several keys is not available inside MULTI; WATCH the keys instead"

// cmdMSetNX plans a TXN: if no key exists, all are put.
func cmdMSetNX(_ *processor, x *plan) {
	switch {
	case len(x.args)%2 == 0:
		x.fail(resp.WrongArity(x.cmd.Name))
		return
	case len(x.args) == 3:
		x.plainPut(2, protocol.WriteIfAbsent, replyBool)
		return
	case x.inTxn:
		x.fail(errMSetNXInMulti)
		return
	case len(x.args)-1 > protocol.OpsMax: // comparisons count as well
		x.fail(tooManyKeys)
		return
	}
	if !x.takeKeys(2) {
		return
	}
	x.kind, x.write = replySucceeded, true
	m := protocol.Txn{}
	for _, key := range x.keys {
		m.Compares = append(m.Compares, protocol.Compare{Target: protocol.CompareVersion, Relation: protocol.Equal, Key: key})
	}
	x.body = m.AppendCompares(x.body)
	x.appendPuts()
	x.beginOps() // of the alternative, which is empty
	x.encoded(protocol.OpTxn)
}

func cmdAppend(_ *processor, x *plan) {
	if !x.writes(replyInteger) {
		return
	}
	m := protocol.Append{Key: x.args[1], Value: x.args[2]}
	x.body = m.AppendTo(x.body)
	x.encoded(protocol.OpAppend)
}

func cmdSetRange(_ *processor, x *plan) {
	offset, ok := x.integer(2)
	if !ok {
		return
	}
	value := x.args[3]
	switch {
	case offset < 0:
		x.fail(resp.ErrOffset)
		return
	case len(value) == 0:
		offset = 0
	case offset > protocol.ValueBytesMax-int64(len(value)):
		x.fail(resp.ErrStringTooLong)
		return
	}
	if !x.writes(replyInteger) {
		return
	}
	x.unbounded = true
	m := protocol.SetRange{Offset: uint32(offset), Key: x.args[1], Value: value}
	x.body = m.AppendTo(x.body)
	x.encoded(protocol.OpSetRange)
}

func cmdIncrBy(_ *processor, x *plan) {
	if delta, ok := x.integer(2); ok {
		x.incr(delta)
	}
}

func cmdDecrBy(_ *processor, x *plan) {
	delta, ok := x.integer(2)
	switch {
	case !ok:
	case delta == math.MinInt64:
		x.fail(resp.ErrDecrementOverflow)
	default:
		x.incr(-delta)
	}
}

func (x *plan) incr(delta int64) {
	if !x.writes(replyInteger) {
		return
	}
	m := protocol.Incr{Delta: delta, Key: x.args[1]}
	x.body = m.AppendTo(x.body)
	x.encoded(protocol.OpIncr)
}

func cmdIncrByFloat(_ *processor, x *plan) {
	if len(x.args[2]) > protocol.IncrementBytesMax {
		x.fail(resp.ErrNotFloat)
		return
	}
	if !x.writes(replyFloat) {
		return
	}
	m := protocol.IncrFloat{Key: x.args[1], Increment: x.args[2]}
	x.body = m.AppendTo(x.body)
	x.encoded(protocol.OpIncrFloat)
}
