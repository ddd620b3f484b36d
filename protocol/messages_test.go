package protocol

import (
	"bytes"
	"math"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

// message is what all codecs have in common.
type message interface {
	AppendTo(dst []byte) []byte
	Decode(b []byte) error
}

// kind describes one codec to the tests that go over all of them.
type kind struct {
	name string
	new  func() message
	draw func(t *rapid.T) message // a valid message
	// tail: the last field is the rest of the body, so that a shorter or
	// longer body may be valid too.
	tail bool
}

var kinds = []kind{
	{"Key", func() message { return new(Key) }, drawKey, true},
	{"RowReply", func() message { return new(RowReply) }, drawRowReply, true},
	{"Put", func() message { return new(Put) }, drawPut, true},
	{"Delete", func() message { return new(Delete) }, drawDelete, true},
	{"WriteReply", func() message { return new(WriteReply) }, drawWriteReply, true},
	{"Incr", func() message { return new(Incr) }, drawIncr, true},
	{"IncrReply", func() message { return new(IncrReply) }, drawIncrReply, false},
	{"Expire", func() message { return new(Expire) }, drawExpire, true},
	{"Append", func() message { return new(Append) }, drawAppend, true},
	{"SetRange", func() message { return new(SetRange) }, drawSetRange, true},
	{"IncrFloat", func() message { return new(IncrFloat) }, drawIncrFloat, true},
	{"FloatReply", func() message { return new(FloatReply) }, drawFloatReply, true},
	{"SetExpiry", func() message { return new(SetExpiry) }, drawSetExpiry, true},
	{"ExpiryReply", func() message { return new(ExpiryReply) }, drawExpiryReply, false},
	{"GetRange", func() message { return new(GetRange) }, drawGetRange, true},
	{"DeleteRange", func() message { return new(DeleteRange) }, drawDeleteRange, false},
	{"RangeReply", func() message { return new(RangeReply) }, drawRangeReply, true},
	{"WatchReply", func() message { return new(WatchReply) }, drawWatchReply, false},
	{"Rename", func() message { return new(Rename) }, drawRename, true},
	{"MGet", func() message { return new(MGet) }, drawMGet, false},
	{"MGetReply", func() message { return new(MGetReply) }, drawMGetReply, true},
	{"Batch", func() message { return new(Batch) }, drawBatch, false},
	{"BatchReply", func() message { return new(BatchReply) }, drawBatchReply, false},
	{"Txn", func() message { return new(Txn) }, drawTxn, false},
	{"TxnReply", func() message { return new(TxnReply) }, drawTxnReply, false},
	{"Scan", func() message { return new(Scan) }, drawScan, false},
	{"ScanReply", func() message { return new(ScanReply) }, drawScanReply, true},
	{"Hello", func() message { return new(Hello) }, drawHello, false},
	{"HelloReply", func() message { return new(HelloReply) }, drawHelloReply, false},
	{"RoutesReply", func() message { return new(RoutesReply) }, drawRoutesReply, false},
	{"ErrorReply", func() message { return new(ErrorReply) }, drawErrorReply, false},
	{"Admin", func() message { return new(Admin) }, drawAdmin, true},
}

var (
	anyBytes = rapid.SliceOfN(rapid.Byte(), 0, 40)
	anyKey   = rapid.SliceOfN(rapid.Byte(), 1, 40)
	anyName  = rapid.SliceOfN(rapid.Byte(), 0, NameBytesMax)
	anyTTL   = rapid.Uint64Range(1, TTLMillisMax)
	anyTime  = rapid.Uint64Range(0, ExpireAtMillisMax)
)

func drawAdmin(t *rapid.T) message {
	return &Admin{rapid.SliceOfN(rapid.Byte(), 1, VerbBytesMax).Draw(t, "verb"), anyBytes.Draw(t, "args")}
}

func drawKey(t *rapid.T) message { return &Key{anyKey.Draw(t, "key")} }

func drawRowReply(t *rapid.T) message {
	return &RowReply{rapid.Uint64().Draw(t, "version"), rapid.Uint64().Draw(t, "ttl"), anyBytes.Draw(t, "value")}
}

func drawWriteFlags(t *rapid.T, ttl bool) (f WriteFlags) {
	conditions := []WriteFlags{0, WriteIfVersion}
	if ttl {
		f |= rapid.SampledFrom([]WriteFlags{0, WriteTTL, WriteKeepTTL, WriteExpireAt}).Draw(t, "ttl option")
		conditions = append(conditions, WriteIfAbsent, WriteIfPresent)
	}
	f |= rapid.SampledFrom(conditions).Draw(t, "condition")
	return f | rapid.SampledFrom([]WriteFlags{0, WriteReturnPrevious}).Draw(t, "previous")
}

func drawPut(t *rapid.T) message {
	m := &Put{Flags: drawWriteFlags(t, true), Key: anyKey.Draw(t, "key"), Value: anyBytes.Draw(t, "value")}
	switch {
	case m.Flags&WriteTTL != 0:
		m.TTLMillis = anyTTL.Draw(t, "ttl")
	case m.Flags&WriteExpireAt != 0:
		m.TTLMillis = anyTime.Draw(t, "time")
	}
	if m.Flags&WriteIfVersion != 0 {
		m.Version = rapid.Uint64().Draw(t, "version")
	}
	return m
}

func drawDelete(t *rapid.T) message {
	m := &Delete{Flags: drawWriteFlags(t, false), Key: anyKey.Draw(t, "key")}
	if m.Flags&WriteIfVersion != 0 {
		m.Version = rapid.Uint64().Draw(t, "version")
	}
	return m
}

func drawWriteReply(t *rapid.T) message {
	m := &WriteReply{Version: rapid.Uint64().Draw(t, "version"), HasPrevious: rapid.Bool().Draw(t, "previous")}
	if m.HasPrevious {
		m.PreviousVersion = rapid.Uint64().Draw(t, "previous version")
		m.PreviousTTLMillis = rapid.Uint64().Draw(t, "previous ttl")
		m.PreviousOmitted = rapid.Bool().Draw(t, "omitted")
		if !m.PreviousOmitted {
			m.PreviousValue = anyBytes.Draw(t, "previous value")
		}
	}
	return m
}

func drawIncr(t *rapid.T) message {
	return &Incr{rapid.Int64().Draw(t, "delta"), anyKey.Draw(t, "key")}
}

func drawIncrReply(t *rapid.T) message {
	return &IncrReply{rapid.Uint64().Draw(t, "version"), rapid.Int64().Draw(t, "value")}
}

func drawExpire(t *rapid.T) message {
	return &Expire{anyTTL.Draw(t, "ttl"), anyKey.Draw(t, "key")}
}

func drawAppend(t *rapid.T) message {
	return &Append{anyKey.Draw(t, "key"), anyBytes.Draw(t, "value")}
}

func drawSetRange(t *rapid.T) message {
	return &SetRange{rapid.Uint32().Draw(t, "offset"), anyKey.Draw(t, "key"), anyBytes.Draw(t, "value")}
}

func drawIncrFloat(t *rapid.T) message {
	return &IncrFloat{anyKey.Draw(t, "key"), anyBytes.Draw(t, "increment")}
}

func drawFloatReply(t *rapid.T) message {
	return &FloatReply{rapid.Uint64().Draw(t, "version"), anyBytes.Draw(t, "text")}
}

func drawSetExpiry(t *rapid.T) message {
	conditions := []ExpiryFlags{
		0, ExpiryIfNone, ExpiryIfSome, ExpiryIfLater, ExpiryIfEarlier, ExpiryIfSome | ExpiryIfLater, ExpiryIfSome | ExpiryIfEarlier,
	}
	m := &SetExpiry{Key: anyKey.Draw(t, "key"), Flags: rapid.SampledFrom(conditions).Draw(t, "condition")}
	m.Flags |= rapid.SampledFrom([]ExpiryFlags{0, ExpiryReturnRow}).Draw(t, "row")
	switch time := rapid.SampledFrom([]ExpiryFlags{0, ExpiryAt, ExpiryRemove}).Draw(t, "time option"); time {
	case 0:
		m.Millis = anyTTL.Draw(t, "ttl")
	case ExpiryAt:
		m.Flags |= time
		m.Millis = anyTime.Draw(t, "time")
	case ExpiryRemove:
		m.Flags |= time
	}
	return m
}

func drawGetRange(t *rapid.T) message {
	return &GetRange{rapid.Int64().Draw(t, "start"), rapid.Int64().Draw(t, "end"), anyKey.Draw(t, "key")}
}

func drawDeleteRange(t *rapid.T) message {
	m := &DeleteRange{Start: anyBytes.Draw(t, "start")}
	switch rapid.IntRange(0, 2).Draw(t, "form") {
	case 0:
		m.Flags = DeleteRangePrefix
		m.Start = append(m.Start, 'p')
	case 1:
		m.End = anyKey.Draw(t, "end")
	default:
		m.Flags, m.Start = DeleteRangeAll, nil
	}
	return m
}

func drawRangeReply(t *rapid.T) message {
	return &RangeReply{rapid.Uint64().Draw(t, "version"), rapid.Uint32().Draw(t, "length"), anyBytes.Draw(t, "part")}
}

func drawWatchReply(t *rapid.T) message {
	return &WatchReply{rapid.Uint64().Draw(t, "version"), rapid.Uint64().Draw(t, "revision")}
}

func drawExpiryReply(t *rapid.T) message {
	return &ExpiryReply{rapid.Uint64().Draw(t, "version"), rapid.Uint64().Draw(t, "time")}
}

func drawRename(t *rapid.T) message {
	return &Rename{RenameFlags(rapid.Uint8Range(0, 3).Draw(t, "flags")), anyKey.Draw(t, "source"), anyKey.Draw(t, "destination")}
}

func drawMGet(t *rapid.T) message {
	return &MGet{rapid.SliceOfN(anyKey, 1, 20).Draw(t, "keys")}
}

func drawMGetReply(t *rapid.T) message {
	return &MGetReply{rapid.SliceOfN(rapid.Custom(func(t *rapid.T) MGetRow {
		if rapid.Bool().Draw(t, "absent") {
			return MGetRow{Status: StatusNotFound}
		}
		return MGetRow{StatusOK, rapid.Uint64().Draw(t, "version"), rapid.Uint64().Draw(t, "ttl"), anyBytes.Draw(t, "value")}
	}), 0, 20).Draw(t, "rows")}
}

func drawOps(reads bool, countMin int) *rapid.Generator[Ops] {
	codes := []Opcode{OpPut, OpDelete, OpIncr, OpExpire, OpPersist}
	if reads {
		codes = append(codes, OpGet, OpExists)
	}
	return rapid.Custom(func(t *rapid.T) Ops {
		return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Op {
			return Op{rapid.SampledFrom(codes).Draw(t, "opcode"), anyBytes.Draw(t, "body")}
		}), countMin, 10).Draw(t, "ops")
	})
}

func drawBatch(t *rapid.T) message {
	return &Batch{rapid.Uint8Range(0, BatchNonAtomic).Draw(t, "flags"), drawOps(false, 1).Draw(t, "ops")}
}

func drawResults(t *rapid.T) OpResults {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) OpResult {
		return OpResult{Status(rapid.Byte().Draw(t, "status")), anyBytes.Draw(t, "body")}
	}), 0, 10).Draw(t, "results")
}

func drawBatchReply(t *rapid.T) message { return &BatchReply{drawResults(t)} }

func drawTxn(t *rapid.T) message {
	return &Txn{
		rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Compare {
			c := Compare{
				Target:   CompareTarget(rapid.Uint8Range(1, 2).Draw(t, "target")),
				Relation: CompareRelation(rapid.Uint8Range(1, 4).Draw(t, "relation")),
				Key:      anyKey.Draw(t, "key"),
			}
			if c.Target == CompareVersion {
				c.Version = rapid.Uint64().Draw(t, "version")
			} else {
				c.Value = anyBytes.Draw(t, "value")
			}
			return c
		}), 0, 5).Draw(t, "compares"),
		drawOps(true, 1).Draw(t, "then"), drawOps(true, 0).Draw(t, "else"),
	}
}

func drawTxnReply(t *rapid.T) message {
	return &TxnReply{rapid.Bool().Draw(t, "succeeded"), drawResults(t)}
}

func drawScan(t *rapid.T) message {
	m := &Scan{
		Flags:    ScanFlags(rapid.Uint8Range(0, uint8(scanFlags)).Draw(t, "flags")),
		CountMax: rapid.Uint32Range(1, ScanCountMax).Draw(t, "count"),
		BytesMax: rapid.Uint32Range(1, ScanBytesMax).Draw(t, "bytes"),
		Start:    anyBytes.Draw(t, "start"),
		Cursor:   anyBytes.Draw(t, "cursor"),
	}
	if m.Flags&ScanPrefix == 0 {
		m.End = anyBytes.Draw(t, "end")
	}
	return m
}

func drawScanReply(t *rapid.T) message {
	return &ScanReply{anyBytes.Draw(t, "cursor"), rapid.SliceOfN(rapid.Custom(func(t *rapid.T) ScanRow {
		return ScanRow{rapid.Uint64().Draw(t, "version"), rapid.Uint64().Draw(t, "ttl"), anyKey.Draw(t, "key"), anyBytes.Draw(t, "value")}
	}), 0, 10).Draw(t, "rows")}
}

func drawHello(t *rapid.T) message {
	low := rapid.Uint8Range(1, math.MaxUint8).Draw(t, "version min")
	return &Hello{
		low, rapid.Uint8Range(low, math.MaxUint8).Draw(t, "version max"), rapid.Uint64().Draw(t, "features"),
		anyName.Draw(t, "name"), anyName.Draw(t, "user"), anyName.Draw(t, "secret"),
	}
}

func drawHelloReply(t *rapid.T) message {
	u64, u32 := rapid.Uint64(), rapid.Uint32()
	return &HelloReply{
		rapid.Uint8().Draw(t, "version"), u64.Draw(t, "features"), u64.Draw(t, "node"), u64.Draw(t, "cluster"),
		u64.Draw(t, "connection"), u32.Draw(t, "frame"), u32.Draw(t, "key"), u32.Draw(t, "value"),
		u32.Draw(t, "in flight"), rapid.Uint16().Draw(t, "shards"), anyName.Draw(t, "server"),
	}
}

func drawRoutesReply(t *rapid.T) message {
	node := rapid.Custom(func(t *rapid.T) RouteNode {
		return RouteNode{rapid.Uint64().Draw(t, "id"), anyBytes.Draw(t, "address")}
	})
	slots := rapid.Custom(func(t *rapid.T) SlotRange {
		first := rapid.Uint16Range(0, Slots-1).Draw(t, "first")
		return SlotRange{first, rapid.Uint16Range(first, Slots-1).Draw(t, "last")}
	})
	shard := rapid.Custom(func(t *rapid.T) RouteShard {
		return RouteShard{rapid.Uint16().Draw(t, "id"), rapid.Uint64().Draw(t, "leader"), rapid.SliceOfN(slots, 0, 4).Draw(t, "slots")}
	})
	return &RoutesReply{
		rapid.Uint64().Draw(t, "epoch"), rapid.SliceOfN(node, 0, 4).Draw(t, "nodes"), rapid.SliceOfN(shard, 0, 4).Draw(t, "shards"),
	}
}

func drawErrorReply(t *rapid.T) message {
	return &ErrorReply{rapid.Uint32().Draw(t, "delay"), rapid.SliceOfN(rapid.Byte(), 0, MessageBytesMax).Draw(t, "message")}
}

func drawExtensions(t *rapid.T) *Extensions {
	u32, u64 := rapid.Uint32(), rapid.Uint64()
	x := &Extensions{
		DeadlineMillis: u32.Draw(t, "deadline"),
		Consistency:    Consistency(rapid.Uint8Range(0, uint8(Stale)).Draw(t, "consistency")),
		Epoch:          u64.Draw(t, "epoch"),
		Leader:         u64.Draw(t, "leader"),
	}
	if x.Consistency == SessionReads {
		x.Token = u64.Draw(t, "token")
	}
	if rapid.Bool().Draw(t, "has session") {
		x.Session = rapid.Uint64Min(1).Draw(t, "session")
		x.Sequence = rapid.Uint64Min(1).Draw(t, "sequence")
		x.Acknowledged = rapid.Uint64Range(0, x.Sequence-1).Draw(t, "acknowledged")
	}
	if x.HasTrace = rapid.Bool().Draw(t, "has trace"); x.HasTrace {
		copy(x.Trace.TraceID[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "trace id"))
		copy(x.Trace.SpanID[:], rapid.SliceOfN(rapid.Byte(), 8, 8).Draw(t, "span id"))
		x.Trace.Flags = rapid.Uint8().Draw(t, "trace flags")
	}
	if x.HasAge = rapid.Bool().Draw(t, "has age"); x.HasAge {
		x.AgeMillis = u32.Draw(t, "age")
	}
	if x.HasShard = rapid.Bool().Draw(t, "has shard"); x.HasShard {
		x.Shard = rapid.Uint16().Draw(t, "shard")
	}
	return x
}

// diff compares messages; an absent and an empty field are the same.
func diff(want, got any) string { return cmp.Diff(want, got, cmpopts.EquateEmpty()) }

func TestRoundTrip(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, rapid.MakeCheck(func(t *rapid.T) {
			// The decoder held another message before: nothing of it may show.
			got := k.new()
			if err := got.Decode(k.draw(t).AppendTo(nil)); err != nil {
				t.Fatal(err)
			}
			want := k.draw(t)
			prefix := anyBytes.Draw(t, "prefix")
			b := want.AppendTo(bytes.Clone(prefix))
			if !bytes.HasPrefix(b, prefix) {
				t.Fatal("AppendTo changed what was there before")
			}
			b = b[len(prefix):]
			if err := got.Decode(b); err != nil {
				t.Fatal(err)
			}
			if d := diff(want, got); d != "" {
				t.Fatal(d)
			}
		}))
	}
}

func TestTruncatedMessages(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, rapid.MakeCheck(func(t *rapid.T) {
			want := k.draw(t)
			b := want.AppendTo(nil)
			for n := range len(b) {
				got := k.new()
				err := got.Decode(b[:n:n])
				switch {
				case err == nil && !k.tail:
					t.Fatalf("the first %d of %d bytes decode", n, len(b))
				case err == nil && diff(want, got) == "":
					t.Fatalf("the first %d of %d bytes decode to the whole message", n, len(b))
				}
			}
			if err := k.new().Decode(append(b, 0)); err == nil && !k.tail {
				t.Fatal("a trailing byte is accepted")
			}
		}))
	}
}

func TestExtensionsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := drawExtensions(t)
		frame := Begin(nil, uint8(OpGet), FlagExtensions, 7)
		frame = End(append(want.AppendTo(frame), "body"...), 0)
		f, _, _, err := Next(frame, FrameBytesMax)
		if err != nil {
			t.Fatal(err)
		}
		got := Extensions{Session: 99, HasAge: true, Token: 5}
		if err := got.Decode(f.Extensions); err != nil {
			t.Fatal(err)
		}
		if d := diff(want, &got); d != "" {
			t.Fatal(d)
		}
		if string(f.Body) != "body" {
			t.Fatalf("body is %q", f.Body)
		}
		for n := range len(f.Extensions) {
			var cut Extensions
			if cut.Decode(f.Extensions[:n]) == nil && cut == *want {
				t.Fatalf("the first %d of %d bytes decode to the whole", n, len(f.Extensions))
			}
		}
	})
}

// newLike returns an empty message of m's type.
func newLike(m message) message {
	for _, k := range kinds {
		if n := k.new(); reflect.TypeOf(n) == reflect.TypeOf(m) {
			return n
		}
	}
	panic("a message that is not among kinds")
}
