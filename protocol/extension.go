package protocol

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Extension types. An extension is a type byte, a length byte and a payload.
// A receiver skips types it does not know, unless extCritical is set in the
// type: then it must refuse the request.
const (
	extDeadline    = 1 // u32: milliseconds from receipt until the client gives up
	extSession     = 2 // u64 session, u64 sequence, u64 acknowledged
	extConsistency = 3 // u8 Consistency, u64 token
	extTrace       = 4 // 16 bytes trace id, 8 bytes span id, 1 byte flags (W3C)
	extEpoch       = 5 // u64: slot map epoch the sender knows
	extLeader      = 6 // u64: node that leads the shard (replies)
	extAge         = 7 // u32: age in milliseconds of a stale read (replies)
	extShard       = 8 // u16: the SCAN concerns this shard only
	extEnd         = 9

	extCritical = 0x80
)

// Consistency of a read (invariant R1).
type Consistency uint8

const (
	Linearizable Consistency = 0 // the default
	SessionReads Consistency = 1 // not older than the token this client saw
	Stale        Consistency = 2 // any replica, marked with its age
)

// String returns "linearizable", "session" or "stale".
func (c Consistency) String() string {
	if c > Stale {
		return "unknown"
	}
	return [...]string{"linearizable", "session", "stale"}[c]
}

// Extensions are the optional fields of a frame. The zero value means none.
type Extensions struct {
	DeadlineMillis uint32 // from receipt until the client gives up; 0 means none
	Session        uint64 // 0 means none; else a random number that names the client session
	Sequence       uint64 // of this write within the session, from 1
	Acknowledged   uint64 // every sequence number up to and including this one is finished
	Consistency    Consistency
	Token          uint64 // with SessionReads only: the newest version seen
	Trace          Trace
	HasTrace       bool
	Epoch          uint64 // 0 means not given
	Leader         uint64 // 0 means not given
	AgeMillis      uint32 // replies to stale reads
	HasAge         bool
	Shard          uint16 // with HasShard: a SCAN of this shard only
	HasShard       bool
}

// AgeUnknown is the AgeMillis of a stale read whose replica cannot tell how old
// its data are.
const AgeUnknown = math.MaxUint32

// Trace is a W3C trace context.
type Trace struct {
	TraceID [16]byte
	SpanID  [8]byte
	Flags   uint8
}

// Empty reports whether no extension is set, so that FlagExtensions and the
// length prefix can be left out.
func (x *Extensions) Empty() bool { return *x == Extensions{} }

// AppendTo appends the length prefix and every extension that is set.
func (x *Extensions) AppendTo(dst []byte) []byte {
	start := len(dst)
	dst = append(dst, 0, 0)
	if x.DeadlineMillis != 0 {
		dst = appendU32(append(dst, extDeadline, 4), x.DeadlineMillis)
	}
	if x.Session != 0 {
		dst = appendU64(append(dst, extSession|extCritical, 24), x.Session)
		dst = appendU64(dst, x.Sequence)
		dst = appendU64(dst, x.Acknowledged)
	}
	if x.Consistency != Linearizable {
		token := x.Token
		if x.Consistency != SessionReads {
			token = 0
		}
		dst = appendU64(append(dst, extConsistency, 9, byte(x.Consistency)), token)
	}
	if x.HasTrace {
		dst = append(dst, extTrace, 25)
		dst = append(dst, x.Trace.TraceID[:]...)
		dst = append(dst, x.Trace.SpanID[:]...)
		dst = append(dst, x.Trace.Flags)
	}
	if x.Epoch != 0 {
		dst = appendU64(append(dst, extEpoch, 8), x.Epoch)
	}
	if x.Leader != 0 {
		dst = appendU64(append(dst, extLeader, 8), x.Leader)
	}
	if x.HasAge {
		dst = appendU32(append(dst, extAge, 4), x.AgeMillis)
	}
	if x.HasShard {
		dst = appendU16(append(dst, extShard|extCritical, 2), x.Shard)
	}
	n := len(dst) - start - 2
	dst[start], dst[start+1] = byte(n), byte(n>>8)
	return dst
}

// Decode reads the extensions of a frame (Frame.Extensions), in any order. It
// returns ErrBadExtension where the list is malformed or names a known type
// twice, and ErrUnknownExtension where a critical one is not known; in both
// cases the frame itself was sound, so the request can be refused and the
// connection kept.
func (x *Extensions) Decode(b []byte) error {
	*x = Extensions{}
	f := read(b)
	var seen uint32 // a bit for each type met
	for len(f.B) > 0 {
		typ := f.U8()
		payload := read(f.Bytes(int(f.U8())))
		if f.Short {
			return fmt.Errorf("%w: type %d is cut off", ErrBadExtension, typ)
		}
		known := typ &^ extCritical
		if known == 0 || known >= extEnd {
			if typ&extCritical != 0 {
				return fmt.Errorf("%w: type %d", ErrUnknownExtension, known)
			}
			continue
		}
		if seen&(1<<known) != 0 {
			return fmt.Errorf("%w: type %d appears twice", ErrBadExtension, known)
		}
		seen |= 1 << known
		x.decodeOne(known, &payload)
		if err := payload.end(); err != nil {
			return fmt.Errorf("%w: type %d: %v", ErrBadExtension, known, err)
		}
	}
	return x.check(seen)
}

func (x *Extensions) decodeOne(typ uint8, f *body) {
	switch typ {
	case extDeadline:
		x.DeadlineMillis = f.U32()
	case extSession:
		x.Session, x.Sequence, x.Acknowledged = f.U64(), f.U64(), f.U64()
	case extConsistency:
		x.Consistency, x.Token = Consistency(f.U8()), f.U64()
	case extTrace:
		x.HasTrace = true
		copy(x.Trace.TraceID[:], f.Bytes(len(x.Trace.TraceID)))
		copy(x.Trace.SpanID[:], f.Bytes(len(x.Trace.SpanID)))
		x.Trace.Flags = f.U8()
	case extEpoch:
		x.Epoch = f.U64()
	case extLeader:
		x.Leader = f.U64()
	case extAge:
		x.AgeMillis, x.HasAge = f.U32(), true
	case extShard:
		x.Shard, x.HasShard = f.U16(), true
	}
}

func (x *Extensions) check(seen uint32) error {
	switch {
	case x.Consistency > Stale:
		return fmt.Errorf("%w: consistency %d", ErrBadExtension, x.Consistency)
	case x.Token != 0 && x.Consistency != SessionReads:
		return fmt.Errorf("%w: a token with %v reads", ErrBadExtension, x.Consistency)
	case seen&(1<<extSession) != 0 && (x.Session == 0 || x.Sequence == 0 || x.Acknowledged >= x.Sequence):
		return fmt.Errorf("%w: session %d, sequence %d, acknowledged %d", ErrBadExtension, x.Session, x.Sequence, x.Acknowledged)
	}
	return nil
}

// SetDeadline overwrites the milliseconds of the DEADLINE in a list of
// extensions that has been decoded (Frame.Extensions), where there is one.
func SetDeadline(list []byte, millis uint32) {
	for len(list) >= 2 {
		n := int(list[1])
		if list[0]&^extCritical == extDeadline && n == 4 && len(list) >= 2+n {
			binary.LittleEndian.PutUint32(list[2:], millis)
			return
		}
		list = list[min(2+n, len(list)):]
	}
}
