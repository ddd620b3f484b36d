package redis

import (
	"github.com/proa-kv/proa/protocol"
	"github.com/proa-kv/proa/server/resp"
)

// cmdDel plans DEL and UNLINK: Proa frees memory in the background anyway.
func cmdDel(_ *processor, x *plan) {
	if !x.takeKeys(1) {
		return
	}
	x.kind, x.write = replyBool, true
	if len(x.keys) == 1 {
		m := protocol.Delete{Key: x.keys[0]}
		x.body = m.AppendTo(x.body)
		x.encoded(protocol.OpDelete)
		return
	}
	x.kind = replyCount
	if x.inTxn {
		x.many = true
		for _, key := range x.keys {
			m := protocol.Delete{Key: key}
			x.body = m.AppendTo(x.body)
			x.encoded(protocol.OpDelete)
		}
		return
	}
	x.b = inBatch
	x.body = append(x.body, protocol.BatchNonAtomic)
	at := x.beginOps()
	for _, key := range x.keys {
		op := x.beginOp(protocol.OpDelete)
		m := protocol.Delete{Key: key}
		x.body = m.AppendTo(x.body)
		protocol.EndOp(x.body, op)
	}
	protocol.EndOps(x.body, at, len(x.keys))
	x.encoded(protocol.OpBatch)
}

// cmdExists plans EXISTS and TOUCH: Proa keeps no time of access.
func cmdExists(_ *processor, x *plan) {
	if !x.takeKeys(1) {
		return
	}
	x.kind = replyCount
	x.each(protocol.OpExists)
}

// expire plans EXPIRE and its kin.
func (x *plan) expire(unit int64, absolute bool) {
	m := protocol.SetExpiry{Key: x.args[1]}
	for _, a := range x.args[3:] {
		switch {
		case isWord(a, "nx"):
			m.Flags |= protocol.ExpiryIfNone
		case isWord(a, "xx"):
			m.Flags |= protocol.ExpiryIfSome
		case isWord(a, "gt"):
			m.Flags |= protocol.ExpiryIfLater
		case isWord(a, "lt"):
			m.Flags |= protocol.ExpiryIfEarlier
		default:
			x.fail(resp.UnsupportedOption(a))
			return
		}
	}
	const later, earlier = protocol.ExpiryIfLater, protocol.ExpiryIfEarlier
	switch {
	case m.Flags&protocol.ExpiryIfNone != 0 && m.Flags&(protocol.ExpiryIfSome|later|earlier) != 0:
		x.fail(resp.ErrExpireNX)
		return
	case m.Flags&later != 0 && m.Flags&earlier != 0:
		x.fail(resp.ErrExpireGTLT)
		return
	}
	n, ok := x.integer(2)
	if !ok {
		return
	}
	e, ok := x.expiryOf(n, unit, absolute)
	if !ok {
		x.fail(resp.InvalidExpire(x.cmd.Name))
		return
	}
	m.Millis = e.millis
	if e.absolute {
		m.Flags |= protocol.ExpiryAt
	}
	x.setExpiry(&m, replyBool)
}

func cmdPersist(_ *processor, x *plan) {
	x.setExpiry(&protocol.SetExpiry{Flags: protocol.ExpiryRemove | protocol.ExpiryIfSome, Key: x.args[1]}, replyBool)
}

// rename plans a RENAME of the key in argument 1 to that in argument 2.
func (x *plan) rename(flags protocol.RenameFlags, kind replyKind) {
	if !x.takeKey(1) || !x.takeKey(2) {
		return
	}
	x.kind, x.write, x.unbounded = kind, true, true
	m := protocol.Rename{Flags: flags, Source: x.args[1], Destination: x.args[2]}
	x.body = m.AppendTo(x.body)
	x.encoded(protocol.OpRename)
}

func cmdCopy(_ *processor, x *plan) {
	flags := protocol.RenameKeepSource | protocol.RenameIfAbsent
	for i := 3; i < len(x.args); i++ {
		switch {
		case isWord(x.args[i], "replace"):
			flags &^= protocol.RenameIfAbsent
		case isWord(x.args[i], "db") && i+1 < len(x.args):
			i++
			n, ok := x.integer(i)
			if !ok {
				return
			}
			if n != 0 {
				x.fail(resp.ErrDBIndex)
				return
			}
		default:
			x.fail(resp.ErrSyntax)
			return
		}
	}
	if string(x.args[1]) == string(x.args[2]) {
		x.fail(resp.ErrSameObject)
		return
	}
	x.rename(flags, replyBool)
}

func cmdObjectEncoding(_ *processor, x *plan) {
	// One byte more than is embedded shows that the value is not.
	x.readPart(2, 0, embeddedBytesMax, replyEncoding)
}
