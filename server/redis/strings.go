package redis

import (
	"math"

	"github.com/proa-kv/proa/protocol"
	"github.com/proa-kv/proa/server/resp"
)

// read plans a read of the row of argument i.
func (x *plan) read(i int, code protocol.Opcode, kind replyKind) {
	x.takeKey(i)
	x.kind = kind
	x.add(code, x.args[i])
}

func cmdGetRange(_ *processor, x *plan) {
	x.a, x.b = x.integer(2), x.integer(3)
	x.readPart(1, x.a, x.b, replyRange)
}

// readPart plans a read of what lies between two bytes of the row of argument i.
// Inside of a transaction nothing else is answered; by itself the row is looked at
// as a whole, where it may be in memory.
func (x *plan) readPart(i int, start, end int64, kind replyKind) {
	if x.part = x.inTxn; !x.part {
		x.read(i, protocol.OpGet, kind)
		return
	}
	x.takeKey(i)
	x.kind = kind
	m := protocol.GetRange{Start: start, End: end, Key: x.args[i]}
	x.request(protocol.OpGetRange, m.AppendTo(x.body))
}

// writes makes argument 1 the key of a write.
func (x *plan) writes(kind replyKind) {
	x.kind, x.write = kind, true
	x.takeKey(1)
}

// plainPut plans a PUT of argument value under the key in argument 1.
func (x *plan) plainPut(value int, flags protocol.WriteFlags, kind replyKind) {
	x.writes(kind)
	x.setPut(protocol.Put{Flags: flags, Key: x.args[1], Value: x.args[value]})
}

// setPut plans a PUT and nothing else.
func (x *plan) setPut(m protocol.Put) {
	if x.inTxn {
		x.request(protocol.OpPut, m.AppendTo(x.body))
		return
	}
	x.put, x.hasPut = m, !x.failed
}

func cmdSet(_ *processor, x *plan) {
	if len(x.args) == 3 {
		x.plainPut(2, 0, replyOK)
		return
	}
	o := x.setOptions(3, false)
	m := protocol.Put{Flags: o.flags, Key: x.args[1], Value: x.args[2]}
	if o.unit != 0 {
		x.setTTL(&m, x.expireTime(x.args[o.at], o.unit, o.absolute))
	}
	kind := replyOK
	if m.Flags&protocol.WriteReturnPrevious != 0 {
		kind = replyPrevious
	}
	x.writes(kind)
	x.setPut(m)
}

// setTTL has a PUT set when its row expires.
func (x *plan) setTTL(m *protocol.Put, e expiry) {
	m.TTLMillis = e.millis
	if e.absolute {
		m.Flags |= protocol.WriteExpireAt
	} else {
		m.Flags |= protocol.WriteTTL
	}
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
func (x *plan) setOptions(i int, getEX bool) (o setOptions) {
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
			return setOptions{}
		}
	}
	return o
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
func (x *plan) expireTime(arg []byte, unit int64, absolute bool) expiry {
	n, ok := resp.ParseInt(arg)
	if !ok {
		x.fail(resp.ErrNotInteger)
	}
	e, ok := x.expiryOf(n, unit, absolute)
	if !ok || n <= 0 {
		x.fail(resp.InvalidExpire(x.cmd.Name))
	}
	return e
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
	m := protocol.Put{Key: x.args[1], Value: x.args[3]}
	x.setTTL(&m, x.expireTime(x.args[2], unit, false))
	x.writes(replyOK)
	x.setPut(m)
}

func cmdGetDel(_ *processor, x *plan) {
	x.writes(replyPrevious)
	m := protocol.Delete{Flags: protocol.WriteReturnPrevious, Key: x.args[1]}
	x.request(protocol.OpDelete, m.AppendTo(x.body))
}

func cmdGetEX(_ *processor, x *plan) {
	o := x.setOptions(2, true)
	m := protocol.SetExpiry{Flags: protocol.ExpiryReturnRow}
	switch {
	case o.persist:
		m.Flags |= protocol.ExpiryRemove
	case o.unit != 0:
		e := x.expireTime(x.args[o.at], o.unit, o.absolute)
		m.Millis = e.millis
		if e.absolute {
			m.Flags |= protocol.ExpiryAt
		}
	default:
		x.read(1, protocol.OpGet, replyValue)
		return
	}
	x.setExpiry(m, replyPrevious)
}

// setExpiry plans a SETEXPIRY of the key in argument 1.
func (x *plan) setExpiry(m protocol.SetExpiry, kind replyKind) {
	x.writes(kind)
	m.Key = x.args[1]
	x.request(protocol.OpSetExpiry, m.AppendTo(x.body))
}

// tooManyKeys is the error for a command of more keys than a native request
// may have.
const tooManyKeys = "ERR too many keys in one command, at most 10000 are allowed; send several commands"

// takeKeys makes every step-th argument from the first on a key.
func (x *plan) takeKeys(step int) {
	if (len(x.args)-1)/step > protocol.OpsMax {
		x.fail(tooManyKeys)
	}
	for i := 1; i < len(x.args) && !x.failed; i += step {
		x.takeKey(i)
	}
}

func cmdMGet(_ *processor, x *plan) {
	x.takeKeys(1)
	x.kind, x.a = replyArray, int64(len(x.keys))
	if x.inTxn {
		x.each(protocol.OpGet)
		return
	}
	m := protocol.MGet{Keys: x.keys}
	x.request(protocol.OpMGet, m.AppendTo(x.body))
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
		return // there is a key without a value
	}
	x.takeKeys(2)
	x.kind, x.write = replyAllOK, true
	x.several(protocol.OpPut, 0, putBody)
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
	x.takeKeys(2)
	x.kind, x.write = replySucceeded, true
	m := protocol.Txn{}
	for _, key := range x.keys {
		m.Compares = append(m.Compares, protocol.Compare{Target: protocol.CompareVersion, Relation: protocol.Equal, Key: key})
	}
	x.body = m.AppendCompares(x.body)
	x.appendOps(protocol.OpPut, putBody)
	body, _ := protocol.BeginOps(x.body) // of the alternative, which is empty
	x.request(protocol.OpTxn, body)
}

func cmdAppend(_ *processor, x *plan) {
	x.writes(replyInteger)
	m := protocol.Append{Key: x.args[1], Value: x.args[2]}
	x.request(protocol.OpAppend, m.AppendTo(x.body))
}

func cmdSetRange(_ *processor, x *plan) {
	offset, value := x.integer(2), x.args[3]
	switch {
	case offset < 0:
		x.fail(resp.ErrOffset)
	case len(value) == 0:
		offset = 0
	case offset > protocol.ValueBytesMax-int64(len(value)):
		x.fail(resp.ErrStringTooLong)
	}
	x.writes(replyInteger)
	x.unbounded = true
	m := protocol.SetRange{Offset: uint32(offset), Key: x.args[1], Value: value}
	x.request(protocol.OpSetRange, m.AppendTo(x.body))
}

// incrBy plans an INCR by argument 2, or down by it.
func (x *plan) incrBy(sign int64) {
	delta := x.integer(2)
	if sign < 0 && delta == math.MinInt64 {
		x.fail(resp.ErrDecrementOverflow)
	}
	x.incr(sign * delta)
}

func (x *plan) incr(delta int64) {
	x.writes(replyInteger)
	m := protocol.Incr{Delta: delta, Key: x.args[1]}
	x.request(protocol.OpIncr, m.AppendTo(x.body))
}

func cmdIncrByFloat(_ *processor, x *plan) {
	if len(x.args[2]) > protocol.IncrementBytesMax {
		x.fail(resp.ErrNotFloat)
	}
	x.writes(replyFloat)
	m := protocol.IncrFloat{Key: x.args[1], Increment: x.args[2]}
	x.request(protocol.OpIncrFloat, m.AppendTo(x.body))
}
