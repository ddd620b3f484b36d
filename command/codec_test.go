package command

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

// same compares commands; an empty slice is as good as none.
func same(t rapid.TB, got, want Command) {
	t.Helper()
	if equal(got, want) {
		return
	}
	t.Fatalf("(-want +got):\n%s", cmp.Diff(want, got, cmpopts.EquateEmpty()))
}

// equal is much faster than cmp, on large keys above all.
func equal(a, b Command) bool {
	return a.Kind == b.Kind && a.Flags == b.Flags && bytes.Equal(a.Key, b.Key) && bytes.Equal(a.Value, b.Value) &&
		a.TTLMillis == b.TTLMillis && a.Version == b.Version && a.Delta == b.Delta && a.Limit == b.Limit && a.Offset == b.Offset && a.Session == b.Session &&
		slices.EqualFunc(a.Ops, b.Ops, equal) && slices.EqualFunc(a.Else, b.Else, equal) &&
		slices.EqualFunc(a.Compares, b.Compares, func(a, b Compare) bool {
			return a.Target == b.Target && a.Relation == b.Relation && a.Version == b.Version &&
				bytes.Equal(a.Key, b.Key) && bytes.Equal(a.Value, b.Value)
		})
}

var (
	genBytes = rapid.SliceOfN(rapid.Byte(), 0, 40)
	genKey   = rapid.Custom(func(t *rapid.T) []byte {
		n := rapid.SampledFrom([]int{1, 2, 16, 255, 256, 8 << 10, math.MaxUint16}).Draw(t, "key bytes")
		return bytes.Repeat([]byte{rapid.Byte().Draw(t, "byte")}, n)
	})
	simpleKinds = []Kind{Put, Delete, Incr, Expire, Persist, Get, Exists, Append, SetRange, IncrFloat, SetExpiry, Expiry, Rename, Watch, GetRange}
)

func genCommand(kinds []Kind, withSession bool) *rapid.Generator[Command] {
	return rapid.Custom(func(t *rapid.T) Command {
		c := Command{Kind: rapid.SampledFrom(kinds).Draw(t, "kind")}
		if withSession && rapid.Bool().Draw(t, "session") {
			c.Session = Session{
				ID:           rapid.Uint64Min(1).Draw(t, "id"),
				Sequence:     rapid.Uint64().Draw(t, "sequence"),
				Acknowledged: rapid.Uint64().Draw(t, "acknowledged"),
			}
		}
		genOps := rapid.SliceOfN(genCommand(simpleKinds, false), 0, 4)
		switch c.Kind {
		case Sweep:
			c.Limit, c.TTLMillis = rapid.Uint32().Draw(t, "limit"), rapid.Uint64().Draw(t, "ttl")
			return c
		case Mark:
			return c
		case DeleteRange:
			bound := rapid.OneOf(genKey, rapid.Just[[]byte](nil))
			c.Key, c.Value = bound.Draw(t, "from"), bound.Draw(t, "to")
			return c
		case Txn:
			c.Flags = rapid.SampledFrom([]Flags{0, Part, Part | Refuted}).Draw(t, "flags")
			if c.Flags == 0 {
				c.Compares = rapid.SliceOfN(genCompare, 0, 4).Draw(t, "compares")
			}
			c.Ops, c.Else = genOps.Draw(t, "then"), genOps.Draw(t, "else")
			return c
		case Batch:
			c.Flags = rapid.SampledFrom([]Flags{0, Part}).Draw(t, "flags")
			c.Ops = genOps.Draw(t, "ops")
			return c
		}
		c.Key = genKey.Draw(t, "key")
		switch c.Kind {
		case Put:
			c.Flags = Flags(rapid.Byte().Draw(t, "flags")) & Put.known()
			c.Value = genBytes.Draw(t, "value")
			if c.Flags&(SetTTL|SetExpireAt) != 0 {
				c.TTLMillis = rapid.Uint64().Draw(t, "ttl")
			}
		case Delete:
			c.Flags = Flags(rapid.Byte().Draw(t, "flags")) & (IfVersion | IfPresent | ReturnPrevious)
		case GetRange:
			c.Delta, c.Until = rapid.Int64().Draw(t, "start"), rapid.Int64().Draw(t, "end")
		case Incr:
			c.Delta = rapid.Int64().Draw(t, "delta")
		case Expire:
			c.TTLMillis = rapid.Uint64().Draw(t, "ttl")
		case Append, IncrFloat:
			c.Value = genBytes.Draw(t, "value")
		case SetRange:
			c.Offset, c.Value = rapid.Uint32().Draw(t, "offset"), genBytes.Draw(t, "value")
		case SetExpiry:
			c.Flags = Flags(rapid.Byte().Draw(t, "flags")) & SetExpiry.known()
			c.TTLMillis = rapid.Uint64().Draw(t, "millis")
		case Rename:
			c.Flags = Flags(rapid.Byte().Draw(t, "flags")) & Rename.known()
			c.Value = genKey.Draw(t, "destination")
		}
		if (c.Kind == Put || c.Kind == Delete) && c.Flags&IfVersion != 0 {
			c.Version = rapid.Uint64().Draw(t, "version")
		}
		return c
	})
}

var (
	allKinds   = append([]Kind{Batch, Txn, Sweep, Mark, DeleteRange}, simpleKinds...)
	genCompare = rapid.Custom(func(t *rapid.T) Compare {
		return Compare{
			Target:   Target(rapid.IntRange(int(OnVersion), int(OnAbsence)).Draw(t, "target")),
			Relation: Relation(rapid.IntRange(int(Equal), int(NotEqual)).Draw(t, "relation")),
			Key:      genKey.Draw(t, "key"),
			Version:  rapid.Uint64().Draw(t, "version"),
			Value:    genBytes.Draw(t, "value"),
		}
	})
)

func encode(stamp uint64, commands ...Command) []byte {
	entry := AppendEntryHeader(nil)
	for i := range commands {
		entry = commands[i].AppendTo(entry)
	}
	SealEntry(entry, stamp, len(commands))
	return entry
}

func TestRoundTrip(t *testing.T) {
	var c Command // reused: nothing of one command may show in the next
	rapid.Check(t, func(t *rapid.T) {
		commands := rapid.SliceOfN(genCommand(allKinds, true), 0, 6).Draw(t, "commands")
		stamp := rapid.Uint64Max(math.MaxInt64).Draw(t, "stamp")
		entry := AppendEntryHeader([]byte("before"))
		for i := range commands {
			had := len(entry)
			entry = commands[i].AppendTo(entry)
			if n, limit := len(entry)-had, commands[i].EncodedBytesMax(); n > limit {
				t.Fatalf("%v takes %d bytes, more than the bound %d", commands[i].Kind, n, limit)
			}
		}
		entry = bytes.TrimPrefix(entry, []byte("before"))
		SealEntry(entry, stamp, len(commands))

		r, err := NewReader(entry)
		if err != nil {
			t.Fatal(err)
		}
		if r.StampMillis != stamp || r.Count != len(commands) {
			t.Fatalf("stamp %d, count %d", r.StampMillis, r.Count)
		}
		for i := range commands {
			if more, err := r.Next(&c); !more || err != nil {
				t.Fatalf("command %d: %v, %v", i, more, err)
			}
			same(t, c, commands[i])
		}
		if more, err := r.Next(&c); more || err != nil {
			t.Fatalf("at the end: %v, %v", more, err)
		}
	})
}

// A decoded command's slices end where they seem to: appending to one must not
// write into the entry.
func TestViewsAreClipped(t *testing.T) {
	entry := encode(1,
		Command{Kind: Put, Key: []byte("k"), Value: []byte("v")},
		Command{Kind: Txn, Compares: []Compare{{Target: OnValue, Relation: Equal, Key: []byte("k"), Value: []byte("v")}}, Ops: []Command{{Kind: Get, Key: []byte("k")}}},
		Command{Kind: Delete, Key: []byte("k")})
	before := bytes.Clone(entry)
	r, err := NewReader(entry)
	if err != nil {
		t.Fatal(err)
	}
	spoil := func(b []byte) { _ = append(b, 0xff) }
	for {
		var c Command
		more, err := r.Next(&c)
		if err != nil {
			t.Fatal(err)
		}
		if !more {
			break
		}
		spoil(c.Key)
		spoil(c.Value)
		for _, x := range c.Compares {
			spoil(x.Key)
			spoil(x.Value)
		}
		for _, op := range c.Ops {
			spoil(op.Key)
		}
	}
	if !bytes.Equal(entry, before) {
		t.Error("the entry was written to")
	}
}

// raw makes an entry of one command out of bytes.
func raw(body ...byte) []byte {
	entry := AppendEntryHeader(nil)
	entry = binary.LittleEndian.AppendUint32(entry, uint32(len(body)))
	entry = append(entry, body...)
	SealEntry(entry, 1, 1)
	return entry
}

func cat(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func le16(n uint16) []byte { return binary.LittleEndian.AppendUint16(nil, n) }
func le32(n uint32) []byte { return binary.LittleEndian.AppendUint32(nil, n) }
func le64(n uint64) []byte { return binary.LittleEndian.AppendUint64(nil, n) }

// sized prefixes a body with its length.
func sized(body []byte) []byte { return cat(le32(uint32(len(body))), body) }

// Of commands over several shards a part may delete a range.
func TestRangeInPart(t *testing.T) {
	in := Command{Kind: Batch, Flags: Part, Ops: []Command{{Kind: DeleteRange, Key: []byte("a"), Value: []byte("b")}}}
	r, err := NewReader(encode(1, in))
	if err != nil {
		t.Fatal(err)
	}
	var out Command
	if more, err := r.Next(&out); err != nil || !more || len(out.Ops) != 1 || out.Ops[0].Kind != DeleteRange || string(out.Ops[0].Key)+string(out.Ops[0].Value) != "ab" {
		t.Errorf("%+v, %v", out, err)
	}
}

func TestMalformed(t *testing.T) {
	header := func(count uint32, body []byte) []byte {
		return cat([]byte{entryFormat}, le64(1), le32(count), body)
	}
	kf := func(k Kind, f Flags) []byte { return []byte{byte(k), byte(f)} }
	get := sized(cat(kf(Get, 0), []byte("k")))
	compare := func(target, relation byte, keyBytes uint16, valueBytes uint32, rest string) []byte {
		return cat([]byte{target, relation}, le16(keyBytes), le64(0), le32(valueBytes), []byte(rest))
	}
	txn := func(compares ...[]byte) []byte {
		return raw(cat(kf(Txn, 0), le32(uint32(len(compares))), cat(compares...), le32(0), le32(0))...)
	}
	session := cat(le64(1), le64(2), le64(3))

	tests := map[string][]byte{
		"header cut off":              encode(1)[:EntryHeaderBytes-1],
		"stamp negative as an int64":  cat([]byte{entryFormat}, le64(1<<63), le32(0)),
		"fewer commands than counted": header(2, get),
		"more bytes than counted":     header(0, get),
		"trailing byte":               append(header(1, get), 0),
		"length cut off":              header(1, []byte{1, 0, 0}),
		"length beyond the end":       header(1, cat(le32(4), kf(Get, 0), []byte("k"))),
		"length that overflows":       header(1, cat(le32(math.MaxUint32), kf(Get, 0), []byte("k"))),
		"empty body":                  raw(),
		"one byte":                    raw(byte(Get)),
		"kind 0":                      raw(0, 0, 'k'),
		"kind unknown":                raw(byte(kindEnd), 0, 'k'),
		"kind 255":                    raw(255, 0, 'k'),
		"flag unknown":                raw(byte(Get), 1<<6, 'k'),
		"session cut off":             raw(cat(kf(Get, hasSession), session[:23])...),
		"session 0":                   raw(cat(kf(Get, hasSession), le64(0), session[8:], []byte("k"))...),
		"put without key length":      raw(byte(Put), 0, 1),
		"put with a key cut off":      raw(cat(kf(Put, 0), le16(3), []byte("ab"))...),
		"put with an empty key":       raw(cat(kf(Put, 0), le16(0), []byte("value"))...),
		"put without its TTL":         raw(cat(kf(Put, SetTTL), le16(1), []byte("k"))...),
		"put without its version":     raw(cat(kf(Put, IfVersion), le16(1), le32(0), []byte("k"))...),
		"delete without a key":        raw(byte(Delete), 0),
		"delete without its version":  raw(cat(kf(Delete, IfVersion), le32(0))...),
		"delete, version and no key":  raw(cat(kf(Delete, IfVersion), le64(1))...),
		"incr without a key":          raw(cat(kf(Incr, 0), le64(1))...),
		"incr cut off":                raw(cat(kf(Incr, 0), le32(1))...),
		"expire without a key":        raw(cat(kf(Expire, 0), le64(1))...),
		"persist without a key":       raw(byte(Persist), 0),
		"get without a key":           raw(byte(Get), 0),
		"exists without a key":        raw(byte(Exists), 0),
		"put without its time":        raw(cat(kf(Put, SetExpireAt), le16(1), le32(0), []byte("k"))...),
		"delete, time of expiry":      raw(byte(Delete), byte(SetExpireAt), 'k'),
		"append without a key length": raw(byte(Append), 0, 1),
		"append with a key cut off":   raw(cat(kf(Append, 0), le16(3), []byte("ab"))...),
		"append with an empty key":    raw(cat(kf(Append, 0), le16(0), []byte("value"))...),
		"append, flag unknown":        raw(cat(kf(Append, 1<<6), le16(1), []byte("kv"))...),
		"setrange without an offset":  raw(cat(kf(SetRange, 0), le16(1))...),
		"setrange with a key cut off": raw(cat(kf(SetRange, 0), le32(1), le16(3), []byte("ab"))...),
		"setrange with an empty key":  raw(cat(kf(SetRange, 0), le32(1), le16(0), []byte("v"))...),
		"incrfloat, key cut off":      raw(cat(kf(IncrFloat, 0), le16(2), []byte("k"))...),
		"incrfloat, key empty":        raw(cat(kf(IncrFloat, 0), le16(0), []byte("1"))...),
		"setexpiry cut off":           raw(cat(kf(SetExpiry, 0), le32(1))...),
		"setexpiry without a key":     raw(cat(kf(SetExpiry, 0), le64(1))...),
		"expiry without a key":        raw(byte(Expiry), 0),
		"rename without a key length": raw(byte(Rename), 0, 1),
		"range without a length":      raw(byte(DeleteRange), 0, 1),
		"range, start cut off":        raw(cat(kf(DeleteRange, 0), le16(3), []byte("ab"))...),
		"range in a batch":            encode(1, Command{Kind: Batch, Ops: []Command{{Kind: DeleteRange}}}),
		"range in a transaction":      encode(1, Command{Kind: Txn, Ops: []Command{{Kind: DeleteRange}}}),
		"range in part of one":        encode(1, Command{Kind: Txn, Flags: Part, Else: []Command{{Kind: DeleteRange}}}),
		"rename, source cut off":      raw(cat(kf(Rename, 0), le16(3), []byte("ab"))...),
		"rename, source empty":        raw(cat(kf(Rename, 0), le16(0), []byte("b"))...),
		"rename, destination empty":   raw(cat(kf(Rename, 0), le16(1), []byte("a"))...),
		"rename, flag unknown":        raw(cat(kf(Rename, 1<<2), le16(1), []byte("ab"))...),
		"session in an expiry":        raw(cat(kf(Batch, 0), le32(1), sized(cat(kf(SetExpiry, hasSession), session, le64(1), []byte("k"))))...),
		"sweep cut off":               raw(cat(kf(Sweep, 0), le32(1), le32(1))...),
		"sweep with a tail":           raw(cat(kf(Sweep, 0), le32(1), le64(1), []byte{0})...),
		"batch without count":         raw(byte(Batch), 0, 1),
		"batch with too few":          raw(cat(kf(Batch, 0), le32(2), get)...),
		"batch with a tail":           raw(cat(kf(Batch, 0), le32(1), get, []byte{0})...),
		"batch of too many":           raw(cat(kf(Batch, 0), le32(opsMax+1), bytes.Repeat(get, opsMax+1))...),
		"batch of 2^32-1":             raw(cat(kf(Batch, 0), le32(math.MaxUint32))...),
		"batch in a batch":            raw(cat(kf(Batch, 0), le32(1), sized(cat(kf(Batch, 0), le32(0))))...),
		"transaction in a batch":      raw(cat(kf(Batch, 0), le32(1), sized(cat(kf(Txn, 0), le32(0), le32(0), le32(0))))...),
		"mark with a tail":            raw(cat(kf(Mark, 0), []byte{0})...),
		"mark in a batch":             raw(cat(kf(Batch, 0), le32(1), sized(kf(Mark, 0)))...),
		"sweep in a batch":            raw(cat(kf(Batch, 0), le32(1), sized(cat(kf(Sweep, 0), le32(1), le64(1))))...),
		"session in a batch":          raw(cat(kf(Batch, 0), le32(1), sized(cat(kf(Get, hasSession), session, []byte("k"))))...),
		"bad operation in a batch":    raw(cat(kf(Batch, 0), le32(1), sized([]byte{0, 0, 'k'}))...),
		"transaction without else":    raw(cat(kf(Txn, 0), le32(0), le32(0))...),
		"bad operation in an else":    raw(cat(kf(Txn, 0), le32(0), le32(0), le32(1), sized([]byte{0, 0, 'k'}))...),
		"too many comparisons":        raw(cat(kf(Txn, 0), le32(opsMax+1), bytes.Repeat(compare(1, 1, 1, 0, "k"), opsMax+1), le32(0), le32(0))...),
		"comparison cut off":          raw(cat(kf(Txn, 0), le32(1), []byte{1})...),
		"comparison, fields cut off":  raw(cat(kf(Txn, 0), le32(1), []byte{1, 1, 1, 0, 0})...),
		"comparison, key too long":    txn(compare(1, 1, 100, 0, "k")),
		"comparison, value too long":  txn(compare(2, 1, 1, 100, "kv")),
		"comparison, value 2^32-1":    txn(compare(2, 1, 1, math.MaxUint32, "kv")),
		"comparison without a key":    txn(compare(1, 1, 0, 0, "")),
		"comparison of nothing":       txn(compare(0, 1, 1, 0, "k")),
		"comparison of target 4":      txn(compare(4, 1, 1, 0, "k")),
		"absence that is less":        txn(compare(3, 3, 1, 0, "k")),
		"comparison without relation": txn(compare(1, 0, 1, 0, "k")),
		"comparison with relation 5":  txn(compare(1, 5, 1, 0, "k")),
	}
	for name, entry := range tests {
		if err := readAll(entry); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, format := range []byte{0, entryFormat + 1, 255} {
		entry := encode(1)
		entry[0] = format
		if err := readAll(entry); !errors.Is(err, ErrFormat) {
			t.Errorf("format %d: %v", format, err)
		}
	}
	// The building blocks are right: with one comparison that is, it decodes.
	if err := readAll(txn(compare(2, 4, 1, 1, "kv"))); err != nil {
		t.Error(err)
	}
}

// Every cut of a sound entry is noticed.
func TestTruncated(t *testing.T) {
	op := Command{Kind: Put, Flags: SetTTL | IfVersion, Key: []byte("key"), Value: []byte("value")}
	entry := encode(1, op,
		Command{Kind: Txn, Session: Session{ID: 1}, Ops: []Command{op}, Else: []Command{op},
			Compares: []Compare{{Target: OnValue, Relation: Less, Key: []byte("k"), Value: []byte("v")}}},
		Command{Kind: Sweep})
	for n := range entry {
		if err := readAll(entry[:n]); err == nil {
			t.Errorf("cut to %d of %d bytes it still decodes", n, len(entry))
		}
	}
}

func readAll(entry []byte) error {
	r, err := NewReader(entry)
	if err != nil {
		return err
	}
	var c Command
	for {
		if more, err := r.Next(&c); err != nil || !more {
			return err
		}
	}
}

func TestEncodingOfAnUnknownKindPanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("it does not")
		}
	}()
	c := Command{Kind: kindEnd}
	c.AppendTo(nil)
}

func TestKindNames(t *testing.T) {
	names := map[string]bool{}
	for k := Kind(1); k < kindEnd; k++ {
		names[k.String()] = true
	}
	if len(names) != int(kindEnd)-1 || names["unknown"] || names[""] {
		t.Errorf("names %v", names)
	}
	if Kind(0).String() != "unknown" || kindEnd.String() != "unknown" || Kind(255).String() != "unknown" {
		t.Error("a kind that does not exist has a name")
	}
}

// Digests are kept in the state of shards, and compared with those of requests
// that come years and versions later: a change of one of these numbers refuses
// repetitions that are under way during an upgrade.
func TestDigests(t *testing.T) {
	session := Session{ID: 1, Sequence: 2, Acknowledged: 1}
	incr := Command{Kind: Incr, Key: []byte("k"), Delta: 1}
	for _, test := range []struct {
		c    Command
		want uint64
	}{
		{Command{Kind: Put, Key: []byte("k"), Value: []byte("v")}, 0xb116d2f08dbb5ba2},
		{Command{Kind: Put, Flags: SetTTL | IfVersion | ReturnPrevious, Key: []byte("k"), Value: []byte("v"), TTLMillis: 3, Version: 4}, 0x1474cc4b9622bfa0},
		{Command{Kind: Delete, Flags: IfVersion, Key: []byte("k"), Version: 4}, 0x824d8258c39dbdfd},
		{incr, 0xeb2f535e40e59e10},
		{Command{Kind: Expire, Key: []byte("k"), TTLMillis: 3}, 0x2751c755ed7dc749},
		{Command{Kind: Persist, Key: []byte("k")}, 0xdae879c2417f87cc},
		{Command{Kind: Batch, Ops: []Command{incr, incr}}, 0x6934a00c52524453},
		{Command{Kind: Txn, Compares: []Compare{{Target: OnValue, Relation: Equal, Key: []byte("k"), Value: []byte("v")}}, Ops: []Command{incr}, Else: []Command{{Kind: Get, Key: []byte("k")}}}, 0x82124b339cd0fc6f},
		{Command{Kind: Append, Key: []byte("k"), Value: []byte("v")}, 0x7d790de905eeb089},
		{Command{Kind: SetRange, Key: []byte("k"), Offset: 5, Value: []byte("v")}, 0xea49405f22aa1da2},
		{Command{Kind: IncrFloat, Key: []byte("k"), Value: []byte("0.5")}, 0x12a3a1f0302e9da9},
		{Command{Kind: SetExpiry, Flags: ExpiryAt, Key: []byte("k"), TTLMillis: 3}, 0x2b2dbbcdb02d3130},
		{Command{Kind: Rename, Flags: RenameIfAbsent, Key: []byte("k"), Value: []byte("v")}, 0x0381e187175b46f2},
	} {
		test.c.Session = session
		if got := digest(t, encode(1, test.c)); got != test.want {
			t.Errorf("%v: 0x%016x, was 0x%016x", test.c.Kind, got, test.want)
		}
	}
}

// A digest depends on what is asked for, all of it, and on nothing else.
func TestDigestsDiffer(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		session := rapid.Custom(func(t *rapid.T) Session {
			return Session{ID: rapid.Uint64Min(1).Draw(t, "id"), Sequence: rapid.Uint64().Draw(t, "sequence"), Acknowledged: rapid.Uint64().Draw(t, "acknowledged")}
		})
		a, b := genCommand(allKinds, false).Draw(t, "a"), genCommand(allKinds, false).Draw(t, "b")
		a.Session, b.Session = Session{}, Session{}
		same := bytes.Equal(encode(0, a), encode(0, b))
		again := a
		a.Session, b.Session, again.Session = session.Draw(t, "session of a"), session.Draw(t, "session of b"), session.Draw(t, "session again")
		da, db, again2 := digest(t, encode(1, a)), digest(t, encode(2, b)), digest(t, encode(3, b, again))
		if (da == db) != same || da != again2 {
			t.Fatalf("%x, %x, again %x", da, db, again2)
		}
	})
}

// digest returns that of the last command of an entry.
func digest(t rapid.TB, entry []byte) (d uint64) {
	r, err := NewReader(entry)
	for more := err == nil; more; {
		var c Command
		if more, err = r.Next(&c); more {
			d = r.Digest()
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestZeroAllocations(t *testing.T) {
	commands := []Command{
		{Kind: Put, Flags: SetTTL | IfVersion | ReturnPrevious, Key: []byte("key"), Value: make([]byte, 128), Session: Session{ID: 1, Sequence: 2}},
		{Kind: Incr, Key: []byte("key"), Delta: 1},
		{Kind: Delete, Key: []byte("key")},
	}
	entry := encode(1, commands...)
	buf := make([]byte, 0, len(entry))
	if n := testing.AllocsPerRun(100, func() {
		buf = AppendEntryHeader(buf[:0])
		for i := range commands {
			buf = commands[i].AppendTo(buf)
		}
		SealEntry(buf, 1, len(commands))
	}); n != 0 {
		t.Errorf("encoding: %v allocations", n)
	}
	ops := encode(1, Command{Kind: Batch, Ops: commands[1:]})
	var c Command
	for name, entry := range map[string][]byte{"single commands": entry, "batch": ops} {
		if n := testing.AllocsPerRun(100, func() {
			r, err := NewReader(entry)
			if err != nil {
				t.Fatal(err)
			}
			for {
				if more, err := r.Next(&c); err != nil {
					t.Fatal(err)
				} else if !more {
					return
				}
			}
		}); n != 0 {
			t.Errorf("decoding of %s: %v allocations", name, n)
		}
	}
}

// FuzzReader: no entry makes the decoder panic, and what decodes means the
// same after being encoded again.
func FuzzReader(f *testing.F) {
	op := Command{Kind: Put, Flags: SetTTL | IfVersion, Key: []byte("key"), Value: []byte("value"), TTLMillis: 5, Version: 6}
	f.Add(encode(1))
	f.Add(encode(2, op, Command{Kind: Incr, Key: []byte("n"), Delta: -1, Session: Session{ID: 1, Sequence: 2, Acknowledged: 1}}))
	f.Add(encode(3, Command{Kind: Sweep, Limit: 4, TTLMillis: 5}))
	f.Fuzz(func(t *testing.T, entry []byte) {
		commands, stamp, err := decodeAll(entry)
		if err != nil {
			if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrFormat) {
				t.Fatalf("error of an unknown class: %v", err)
			}
			return
		}
		again := encode(stamp, commands...)
		got, gotStamp, err := decodeAll(again)
		if err != nil || gotStamp != stamp || len(got) != len(commands) {
			t.Fatalf("encoded again: stamp %d, %d commands, error %v", gotStamp, len(got), err)
		}
		for i := range commands {
			same(t, got[i], commands[i])
		}
	})
}

func decodeAll(entry []byte) (commands []Command, stamp uint64, err error) {
	r, err := NewReader(entry)
	if err != nil {
		return nil, 0, err
	}
	for {
		var c Command
		more, err := r.Next(&c)
		if err != nil || !more {
			return commands, r.StampMillis, err
		}
		commands = append(commands, c)
	}
}

func BenchmarkAppendTo(b *testing.B) {
	c := Command{Kind: Put, Key: make([]byte, 16), Value: make([]byte, 128)}
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = c.AppendTo(buf[:0])
	}
}

func BenchmarkNext(b *testing.B) {
	entry := encode(1, Command{Kind: Put, Key: make([]byte, 16), Value: make([]byte, 128)})
	var c Command
	b.ReportAllocs()
	for b.Loop() {
		r, err := NewReader(entry)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := r.Next(&c); err != nil {
			b.Fatal(err)
		}
	}
}

// TestPart: an entry is told to hold parts by its first command, and a part has
// been decided.
func TestPart(t *testing.T) {
	op := []Command{{Kind: Get, Key: []byte("k")}}
	for _, x := range []struct {
		command     Command
		part, valid bool
	}{
		{Command{Kind: Batch, Ops: op}, false, true},
		{Command{Kind: Batch, Flags: Part, Ops: op}, true, true},
		{Command{Kind: Batch, Flags: Refuted, Ops: op}, false, false},
		{Command{Kind: Txn, Flags: Part | Refuted, Else: op}, true, true},
		{Command{Kind: Txn, Flags: Refuted, Else: op}, false, false},
		{Command{Kind: Txn, Flags: Part, Compares: []Compare{{Target: OnVersion, Relation: Equal, Key: []byte("k")}}}, true, false},
		{Command{Kind: Put, Flags: SetExpireAt, Key: []byte("k")}, false, true},
	} {
		entry := encode(1, x.command)
		if got := IsPart(entry); got != x.part {
			t.Errorf("%+v: part %v", x.command, got)
		}
		r, err := NewReader(entry)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Next(new(Command)); (err == nil) != x.valid {
			t.Errorf("%+v: %v", x.command, err)
		}
		for cut := range EntryHeaderBytes + 6 {
			IsPart(entry[:cut])
		}
	}
}
