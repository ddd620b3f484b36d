package client

import (
	"fmt"
	"strconv"

	"github.com/proa-kv/proa/protocol"
)

// applyPart carries out what changes or reads a part of a row.
func (f *fake) applyPart(dst []byte, code protocol.Opcode, body []byte) ([]byte, Status) {
	row := func(key []byte) fakeRow { return f.rows[string(key)] }
	change := func(key []byte, r fakeRow) uint64 {
		f.revision++
		f.applied++
		r.version = f.revision
		f.rows[string(key)] = r
		return r.version
	}
	length := func(key []byte, r fakeRow) ([]byte, Status) {
		m := protocol.IncrReply{Version: change(key, r), Value: int64(len(r.value))}
		return m.AppendTo(dst), 0
	}
	written := func(status Status, version uint64) ([]byte, Status) {
		m := protocol.WriteReply{Version: version}
		return m.AppendTo(dst), status
	}
	switch code {
	case protocol.OpAppend:
		var m protocol.Append
		if m.Decode(body) == nil {
			r := row(m.Key)
			r.value = append(r.value[:len(r.value):len(r.value)], m.Value...)
			return length(m.Key, r)
		}
	case protocol.OpSetRange:
		var m protocol.SetRange
		if m.Decode(body) == nil {
			r := row(m.Key)
			value := make([]byte, max(len(r.value), int(m.Offset)+len(m.Value)))
			copy(value, r.value)
			copy(value[m.Offset:], m.Value)
			r.value = value
			return length(m.Key, r)
		}
	case protocol.OpIncrFloat:
		var m protocol.IncrFloat
		if m.Decode(body) == nil {
			r := row(m.Key)
			by, bad := strconv.ParseFloat(string(m.Increment), 64)
			old, err := strconv.ParseFloat(string(r.value), 64)
			if bad != nil || err != nil && len(r.value) > 0 {
				return fail(dst, protocol.StatusNotFloat, "")
			}
			r.value = fmt.Append(nil, old+by)
			reply := protocol.FloatReply{Version: change(m.Key, r), Text: r.value}
			return reply.AppendTo(dst), 0
		}
	case protocol.OpExpiry:
		r, found := f.rows[string(body)]
		if !found {
			return dst, protocol.StatusNotFound
		}
		m := protocol.ExpiryReply{Version: r.version, ExpireAtMillis: r.at}
		return m.AppendTo(dst), 0
	case protocol.OpGetRange:
		var m protocol.GetRange
		if m.Decode(body) == nil {
			r, found := f.rows[string(m.Key)]
			if !found {
				return dst, protocol.StatusNotFound
			}
			reply := protocol.RangeReply{Version: r.version, Length: uint32(len(r.value)), Part: r.value[m.Start : m.End+1]} // as tests ask
			return reply.AppendTo(dst), 0
		}
	case protocol.OpSetExpiry:
		var m protocol.SetExpiry
		if m.Decode(body) == nil {
			return f.setExpiry(dst, &m, change)
		}
	case protocol.OpRename:
		var m protocol.Rename
		if m.Decode(body) == nil {
			r, found := f.rows[string(m.Source)]
			there := row(m.Destination)
			switch {
			case !found:
				return written(protocol.StatusNotFound, 0)
			case m.Flags&protocol.RenameIfAbsent != 0 && there.version != 0:
				return written(protocol.StatusConditionFailed, there.version)
			case m.Flags&protocol.RenameKeepSource == 0:
				delete(f.rows, string(m.Source))
			}
			return written(0, change(m.Destination, r))
		}
	default:
		return fail(dst, protocol.StatusUnsupported, "")
	}
	return fail(dst, protocol.StatusBadRequest, "")
}

func (f *fake) setExpiry(dst []byte, m *protocol.SetExpiry, change func([]byte, fakeRow) uint64) ([]byte, Status) {
	old, found := f.rows[string(m.Key)]
	reply := protocol.WriteReply{Version: old.version}
	if m.Flags&protocol.ExpiryReturnRow != 0 {
		reply.HasPrevious, reply.PreviousVersion, reply.PreviousValue = true, old.version, old.value
	}
	expires := old.at != 0 || old.ttl != 0
	switch {
	case !found:
		return reply.AppendTo(dst), protocol.StatusNotFound
	case m.Flags&protocol.ExpiryIfNone != 0 && expires,
		m.Flags&protocol.ExpiryIfSome != 0 && !expires,
		m.Flags&protocol.ExpiryIfLater != 0 && (!expires || m.Millis <= old.at),
		m.Flags&protocol.ExpiryIfEarlier != 0 && expires && m.Millis >= old.at:
		return reply.AppendTo(dst), protocol.StatusConditionFailed
	}
	r := old
	r.ttl, r.at = m.Millis, 0
	if m.Flags&protocol.ExpiryAt != 0 {
		r.ttl, r.at = 0, m.Millis
	}
	reply.Version = change(m.Key, r)
	return reply.AppendTo(dst), 0
}
