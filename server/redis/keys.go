package redis

import (
	"github.com/proa-kv/proa/protocol"
	"github.com/proa-kv/proa/server/resp"
)

// cmdDel plans DEL and UNLINK: Proa frees memory in the background anyway.
func cmdDel(_ *processor, x *plan) {
	x.takeKeys(1)
	x.kind, x.write = replyBool, true
	if len(x.keys) == 1 {
		m := protocol.Delete{Key: x.keys[0]}
		x.request(protocol.OpDelete, m.AppendTo(x.body))
		return
	}
	x.kind = replyCount
	x.several(protocol.OpDelete, protocol.BatchNonAtomic, deleteBody)
}

// cmdExists plans EXISTS and TOUCH: Proa keeps no time of access.
func cmdExists(_ *processor, x *plan) {
	x.takeKeys(1)
	x.kind = replyCount
	x.each(protocol.OpExists)
}

// expire plans EXPIRE and its kin.
func (x *plan) expire(unit int64, absolute bool) {
	m := protocol.SetExpiry{}
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
		}
	}
	const later, earlier = protocol.ExpiryIfLater, protocol.ExpiryIfEarlier
	switch {
	case m.Flags&protocol.ExpiryIfNone != 0 && m.Flags&(protocol.ExpiryIfSome|later|earlier) != 0:
		x.fail(resp.ErrExpireNX)
	case m.Flags&later != 0 && m.Flags&earlier != 0:
		x.fail(resp.ErrExpireGTLT)
	}
	e, ok := x.expiryOf(x.integer(2), unit, absolute)
	if !ok {
		x.fail(resp.InvalidExpire(x.cmd.Name))
	}
	m.Millis = e.millis
	if e.absolute {
		m.Flags |= protocol.ExpiryAt
	}
	x.setExpiry(m, replyBool)
}

// rename plans a RENAME of the key in argument 1 to that in argument 2.
func (x *plan) rename(flags protocol.RenameFlags, kind replyKind) {
	x.takeKey(1)
	x.takeKey(2)
	x.kind, x.write, x.unbounded = kind, true, true
	m := protocol.Rename{Flags: flags, Source: x.args[1], Destination: x.args[2]}
	x.request(protocol.OpRename, m.AppendTo(x.body))
}

func cmdCopy(_ *processor, x *plan) {
	flags := protocol.RenameKeepSource | protocol.RenameIfAbsent
	for i := 3; i < len(x.args); i++ {
		switch {
		case isWord(x.args[i], "replace"):
			flags &^= protocol.RenameIfAbsent
		case isWord(x.args[i], "db") && i+1 < len(x.args):
			i++
			if x.integer(i) != 0 {
				x.fail(resp.ErrDBIndex)
			}
		default:
			x.fail(resp.ErrSyntax)
		}
	}
	if string(x.args[1]) == string(x.args[2]) {
		x.fail(resp.ErrSameObject)
	}
	x.rename(flags, replyBool)
}
