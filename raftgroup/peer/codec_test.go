package peer

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/proa-kv/proa/bufpool"
)

// Every field, at values that take one byte and at values that take all.
func sampleMessages() []raftpb.Message {
	return []raftpb.Message{
		{},
		*heartbeat(3),
		{Type: raftpb.MsgHeartbeat, To: math.MaxUint64, From: math.MaxUint64, Term: math.MaxUint64, Commit: math.MaxUint64, Context: bytes.Repeat([]byte{7}, compactContextBytes)},
		{Type: raftpb.MsgHeartbeat, Context: bytes.Repeat([]byte{7}, compactContextBytes+1)},
		{Type: raftpb.MsgHeartbeatResp, To: 1, From: 2, Term: 3, Context: []byte("read 1")},
		{Type: raftpb.MsgHeartbeatResp, Reject: true},
		{Type: raftpb.MsgHeartbeat, Vote: 1}, {Type: raftpb.MsgHeartbeat, LogTerm: 1}, {Type: raftpb.MsgHeartbeat, Index: 1},
		{Type: raftpb.MsgHeartbeat, RejectHint: 1}, {Type: raftpb.MsgHeartbeat, Entries: []raftpb.Entry{{Index: 1}}},
		{Type: raftpb.MsgHeartbeat, Snapshot: &raftpb.Snapshot{}},
		*appendEntries(9, []byte("a"), nil, bytes.Repeat([]byte("b"), 1000)),
		{Type: raftpb.MsgApp, Entries: []raftpb.Entry{{Type: raftpb.EntryConfChangeV2, Term: math.MaxUint64, Index: math.MaxUint64, Data: []byte{0}}}},
		{Type: raftpb.MsgAppResp, To: 1, From: 2, Term: 3, LogTerm: 4, Index: 5, Commit: 6, Vote: 7, Reject: true, RejectHint: 8, Context: []byte("c")},
		{Type: raftpb.MsgSnap, Snapshot: &raftpb.Snapshot{Data: []byte("s"), Metadata: raftpb.SnapshotMetadata{Index: 1, Term: 2, ConfState: raftpb.ConfState{Voters: []uint64{1, 2}, AutoLeave: true}}}},
		{Type: raftpb.MsgForgetLeader},
	}
}

func encodeMessages(t testing.TB, version uint16, batch []Message) []byte {
	t.Helper()
	b := bufpool.Get(0)
	defer b.Release()
	for i := range batch {
		r := newRecord(version, batch[i].Shard, &batch[i].Raft)
		before := len(b.B)
		b.Grow(r.bytesMax())
		if err := r.appendTo(b); err != nil {
			t.Fatal(err)
		}
		if n := len(b.B) - before; n > r.bytesMax() {
			t.Fatalf("%d bytes; at most %d were announced", n, r.bytesMax())
		}
	}
	return bytes.Clone(b.B)
}

func TestMessagesRoundTrip(t *testing.T) {
	var batch []Message
	for i, m := range sampleMessages() {
		batch = append(batch, Message{Shard: uint32(i), Raft: m}, Message{Shard: math.MaxUint32 - uint32(i), Raft: m})
	}
	for _, version := range []uint16{1, 2} {
		p := encodeMessages(t, version, batch)
		var d decoder
		for range 2 { // the second time with what the first left behind
			out, err := d.decode(version, p)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(batch, out); diff != "" {
				t.Fatalf("version %d: %s", version, diff)
			}
		}
		for cut := range len(p) {
			if out, err := d.decode(version, p[:cut]); err == nil && len(out) == len(batch) {
				t.Fatalf("version %d: all messages out of %d bytes of %d", version, cut, len(p))
			} else if err != nil && !errors.Is(err, ErrDamaged) {
				t.Fatal(err)
			}
		}
	}
}

// What the handler keeps must not change when the connection reads on, and one
// message's slices must not reach into the next one's.
func TestDecodedMessagesOwnTheirMemory(t *testing.T) {
	batch := []Message{
		{Shard: 1, Raft: *appendEntries(1, []byte("first"), []byte("second"))},
		{Shard: 2, Raft: raftpb.Message{Type: raftpb.MsgHeartbeat, Context: []byte("context")}},
		{Shard: 3, Raft: *appendEntries(7, []byte("third"))},
	}
	for _, version := range []uint16{1, 2} {
		p := encodeMessages(t, version, batch)
		var d decoder
		out, err := d.decode(version, p)
		if err != nil {
			t.Fatal(err)
		}
		kept := append([]Message{}, out...)
		clear(p)
		if _, err := d.decode(version, encodeMessages(t, version, batch[1:2])); err != nil {
			t.Fatal(err)
		}
		first := kept[0].Raft.Entries
		_ = append(first, raftpb.Entry{Data: []byte("overwritten")})
		_ = append(first[0].Data, "overwritten"...)
		_ = append(kept[1].Raft.Context, "overwritten"...)
		if diff := cmp.Diff(batch, kept); diff != "" {
			t.Fatal(diff)
		}
	}
}

func TestDecodeAllocations(t *testing.T) {
	if testing.Short() || raceEnabled {
		t.Skip("allocations are counted without the race detector")
	}
	var many, beats []Message
	for i := range uint64(64) {
		many = append(many, Message{Raft: *appendEntries(i, []byte("one"), []byte("two"), []byte("three"))})
		beats = append(beats, Message{Raft: *heartbeat(i)})
	}
	var d decoder
	for _, version := range []uint16{1, 2} {
		for _, tt := range []struct {
			batch []Message
			want  float64
		}{{many, 2}, {beats, 0}} {
			p := encodeMessages(t, version, tt.batch)
			if n := testing.AllocsPerRun(100, func() { d.decode(version, p) }); n != tt.want {
				t.Errorf("version %d: %v allocations, want %v", version, n, tt.want)
			}
		}
	}
}

func TestBoundsOfAFrameOfMessages(t *testing.T) {
	var d decoder
	empty := make([]byte, 8) // shard 0, no bytes
	if _, err := d.decode(1, bytes.Repeat(empty, MessagesPerFrameMax)); err != nil {
		t.Fatal(err)
	}
	if _, err := d.decode(1, bytes.Repeat(empty, MessagesPerFrameMax+1)); !errors.Is(err, ErrDamaged) {
		t.Fatal(err)
	}
	record := func(entries int) []byte {
		body := bytes.Repeat([]byte{7<<3 | wireBytes, 0}, entries)
		return append(le.AppendUint32(make([]byte, 4), uint32(len(body))), body...)
	}
	if _, err := d.decode(1, record(EntriesPerFrameMax)); err != nil {
		t.Fatal(err)
	}
	if _, err := d.decode(1, append(record(EntriesPerFrameMax), record(1)...)); !errors.Is(err, ErrDamaged) {
		t.Fatal(err)
	}
}

// The sender keeps to the bounds that the receiver enforces.
func TestFramesAreClosedInTime(t *testing.T) {
	frames := func(version uint16, n int, m *raftpb.Message) (q frameQueue) {
		for range n {
			r := newRecord(version, 1, m)
			if err := q.put(&r); err != nil {
				t.Fatal(err)
			}
		}
		q.seal()
		return q
	}
	var d decoder
	for _, tt := range []struct {
		name string
		m    *raftpb.Message
		n    int
		want int // frames
	}{
		{"as many messages as fit", &raftpb.Message{Type: raftpb.MsgHeartbeat}, MessagesPerFrameMax, 1},
		{"one more", &raftpb.Message{Type: raftpb.MsgHeartbeat}, MessagesPerFrameMax + 1, 2},
		{"entries", &raftpb.Message{Type: raftpb.MsgApp, Entries: make([]raftpb.Entry, EntriesPerFrameMax/2+1)}, 2, 2},
		{"large messages", appendEntries(1, make([]byte, frameBytesTarget)), 3, 3},
		{"half as large", appendEntries(1, make([]byte, frameBytesTarget/2-200)), 4, 2},
	} {
		q := frames(2, tt.n, tt.m)
		total, messages := 0, 0
		for _, b := range q.closed {
			total += len(b.B)
			kind, payload, err := newFrameReader(bytes.NewReader(b.B)).next()
			if err != nil || kind != frameMessages {
				t.Fatal(tt.name, kind, err)
			}
			batch, err := d.decode(2, payload)
			if err != nil {
				t.Fatal(tt.name, err)
			}
			messages += len(batch)
		}
		if len(q.closed) != tt.want || messages != tt.n || total != q.bytes {
			t.Errorf("%s: %d frames, %d messages, %d bytes; want %d, %d, %d", tt.name, len(q.closed), messages, q.bytes, tt.want, tt.n, total)
		}
		q.clear()
		if q.bytes != 0 || !q.empty() {
			t.Errorf("%s: something is left", tt.name)
		}
	}
}

func TestMessagesThatRaftMustNotSee(t *testing.T) {
	for name, body := range map[string][]byte{
		"unknown type":      {1 << 3, byte(raftpb.MsgForgetLeader) + 1},
		"negative type":     append([]byte{1 << 3}, bytes.Repeat([]byte{0xff}, 9)...),
		"unknown entry":     {7<<3 | 2, 2, 1 << 3, 3},
		"for its storage":   {14<<3 | 2, 0},
		"field number zero": {0, 0},
		"wrong wire type":   {2<<3 | 2, 0},
		"entry as a number": {7 << 3, 1},
		"data as a number":  {7<<3 | 2, 2, 4 << 3, 1},
		"group":             {20<<3 | 3},
		"long field":        {12<<3 | 2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f},
		"bad snapshot":      {9<<3 | 2, 1, 0xff},
	} {
		var m raftpb.Message
		if err := new(decoder).message(body, &m); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
	var m raftpb.Message // fields of the future are skipped
	future := []byte{0xa0, 0x01, 1, 0xa9, 0x01, 1, 2, 3, 4, 5, 6, 7, 8, 0xb2, 0x01, 1, 0, 0xbd, 0x01, 1, 2, 3, 4, 2 << 3, 9}
	if err := new(decoder).message(future, &m); err != nil || m.To != 9 {
		t.Fatal(err, m)
	}
}

// The bytes of version 2 as they are on the wire.
func TestWireFormatIsFixed(t *testing.T) {
	frame := func(t frameType, p []byte) string {
		b := frameOf(t, p)
		defer b.Release()
		return hex.EncodeToString(b.B)
	}
	beat := []Message{{Shard: 300, Raft: raftpb.Message{Type: raftpb.MsgHeartbeatResp, To: 1, From: 2, Term: 3, Commit: 4, Context: []byte("x")}}}
	vote := []Message{{Shard: 5, Raft: raftpb.Message{Type: raftpb.MsgVote, To: 1, From: 2, Term: 3}}}
	h := hello{kind: kindRaft, versionMin: 1, versionMax: 2, identity: Identity{Cluster: 1, Node: 2, UID: 3, Peer: "p", Client: "c", Version: "v"}}
	var record bytes.Buffer
	if err := writeRecord(&record, h.encode()); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, got, want string }{
		{"alive", frame(frameAlive, nil), "00000000" + "09000000" + "d47b29a7"},
		{"frame of an engine", frame(frameEngine, []byte("x")), "01000000" + "0c000000" + "0807b891" + "78"},
		{"heartbeat response", hex.EncodeToString(encodeMessages(t, 2, beat)), "02" + "ac02" + "01020304" + "0178"},
		{"vote", hex.EncodeToString(encodeMessages(t, 2, vote)), "00" + "05000000" + "14000000" + "0805100118022003280030004000500058006800"},
		{"vote, version 1", hex.EncodeToString(encodeMessages(t, 1, vote)), "05000000" + "14000000" + "0805100118022003280030004000500058006800"},
		{"hello", hex.EncodeToString(record.Bytes()), hex.EncodeToString([]byte(magic)) + "2600" + "0101000200" +
			"0100000000000000" + "0200000000000000" + "0300000000000000" + "010070" + "010063" + "010076" + "4be7ba7b"},
	} {
		if tt.got != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", tt.name, tt.got, tt.want)
		}
	}
}

func TestFrameReader(t *testing.T) {
	sizes := []int{0, 1, readBufferBytes - headerBytes - 1, readBufferBytes - headerBytes, readBufferBytes - headerBytes + 1, readBufferBytes, trustBytes, trustBytes + 1, 3 * trustBytes}
	var stream bytes.Buffer
	for i, n := range sizes {
		b := frameOf(frameMessages, bytes.Repeat([]byte{byte(i)}, n))
		stream.Write(b.B)
		b.Release()
	}
	whole := bytes.Clone(stream.Bytes())
	for _, in := range []io.Reader{&stream, &trickle{whole}} {
		r := newFrameReader(in)
		for i, n := range sizes {
			kind, payload, err := r.next()
			if err != nil || kind != frameMessages || len(payload) != n || bytes.Count(payload, []byte{byte(i)}) != n {
				t.Fatalf("frame %d: type %d, %d bytes, %v", i, kind, len(payload), err)
			}
		}
		if _, _, err := r.next(); err != io.EOF {
			t.Fatal(err)
		}
	}
	for _, cut := range []int{1, headerBytes - 1, headerBytes + 1, len(whole) - 1} { // the first frame is empty
		r := newFrameReader(bytes.NewReader(whole[:cut]))
		var err error
		for err == nil {
			_, _, err = r.next()
		}
		if (err == io.EOF) || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut at %d: %v", cut, err)
		}
		r.close()
	}
}

// trickle reads an odd number of bytes at a time.
type trickle struct{ b []byte }

func (r *trickle) Read(p []byte) (int, error) {
	if len(r.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), 8191)], r.b)
	r.b = r.b[n:]
	return n, nil
}

func TestFrameReaderFindsDamage(t *testing.T) {
	b := frameOf(frameReport, []byte("a report of some length"))
	defer b.Release()
	for i := range b.B {
		p := bytes.Clone(b.B)
		p[i] ^= 0x10
		_, _, err := newFrameReader(bytes.NewReader(p)).next()
		if !errors.Is(err, ErrDamaged) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("byte %d: %v", i, err)
		}
	}
	for kind := frameMessages; kind <= frameEngine; kind++ {
		header := func(n int) []byte { return le.AppendUint32(le.AppendUint32(nil, uint32(n)), uint32(kind)) }
		if _, _, err := parseHeader(append(header(kind.payloadMax()), 0, 0, 0, 0)); err != nil {
			t.Errorf("type %d: %v", kind, err)
		}
		if _, _, err := parseHeader(append(header(kind.payloadMax()+1), 0, 0, 0, 0)); !errors.Is(err, ErrDamaged) {
			t.Errorf("type %d: %v", kind, err)
		}
	}
	if _, _, err := parseHeader(make([]byte, headerBytes)); !errors.Is(err, ErrDamaged) {
		t.Error(err)
	}
}

// A length that is a lie must not cost its memory.
func TestHugeLengthCostsLittle(t *testing.T) {
	h := make([]byte, headerBytes)
	le.PutUint32(h, frameBytesMax)
	h[4] = byte(frameMessages)
	r := newFrameReader(io.MultiReader(bytes.NewReader(h), strings.NewReader("not much")))
	if _, _, err := r.next(); err != io.ErrUnexpectedEOF {
		t.Fatal(err)
	}
	if cap(r.large.B) > trustBytes {
		t.Fatalf("%d bytes were made room for", cap(r.large.B))
	}
	r.close()
}

func TestHandshakeRecords(t *testing.T) {
	h := hello{kind: kindSnapshot, versionMin: 1, versionMax: 9, identity: identityOf(4)}
	for _, extra := range []string{"", "what a later version adds"} {
		out, err := decodeHello(append(h.encode(), extra...))
		if err != nil || out != h {
			t.Fatalf("%+v, %v", out, err)
		}
	}
	a := answer{version: 2, refusal: "no\x1b[31m", identity: identityOf(4)}
	out, _, err := decodeAnswer(a.encode())
	if a.refusal = "no?[31m"; err != nil || out != a {
		t.Fatalf("%+v, %v", out, err)
	}
	for cut := range len(h.encode()) {
		out, err := decodeHello(h.encode()[:cut])
		if earlier := cut == len(h.encode())-engineEtcdBytes; earlier != (err == nil && out.identity.Engine == "") || !earlier && !errors.Is(err, ErrDamaged) {
			t.Fatal(cut, err)
		}
	}
	for cut := range len(a.encode()) {
		out, _, err := decodeAnswer(a.encode()[:cut])
		if earlier := cut == len(a.encode())-engineEtcdBytes; earlier != (err == nil && out.identity.Engine == "") || !earlier && !errors.Is(err, ErrDamaged) {
			t.Fatal(cut, err)
		}
	}
	for _, v := range [][2]uint16{{0, 1}, {2, 1}} {
		if _, err := decodeHello((&hello{kind: 1, versionMin: v[0], versionMax: v[1]}).encode()); !errors.Is(err, ErrDamaged) {
			t.Error(v, err)
		}
	}
	long := Identity{Peer: strings.Repeat("p", stringBytesMax), Client: strings.Repeat("ä", stringBytesMax)}
	got := cursorIdentity(appendIdentity(nil, &long))
	if got.Peer != long.Peer || len(got.Client) != stringBytesMax {
		t.Error("long strings:", len(got.Peer), len(got.Client))
	}

	var b bytes.Buffer
	body := make([]byte, handshakeBytesMax+1)
	for _, n := range []int{0, handshakeBytesMax} {
		writeRecord(&b, body[:n])
		b.WriteString("rest")
		if got, err := readRecord(&b); err != nil || len(got) != n || b.String() != "rest" {
			t.Fatal(n, len(got), err)
		}
		b.Reset()
	}
	writeRecord(&b, body)
	if _, err := readRecord(&b); !errors.Is(err, ErrDamaged) {
		t.Error(err)
	}
	b.Reset()
	writeRecord(&b, body[:10])
	b.Bytes()[recordPrefixBytes] ^= 1
	if _, err := readRecord(&b); !errors.Is(err, ErrDamaged) {
		t.Error(err)
	}
}

// engineEtcdBytes are what a body ends with that nodes of earlier versions do not send.
const engineEtcdBytes = 2 + len(engineEtcd)

func cursorIdentity(p []byte) Identity {
	c := fieldsOf(p)
	return c.identity()
}

func TestNegotiate(t *testing.T) {
	for _, tt := range []struct{ ourMin, ourMax, theirMin, theirMax, want uint16 }{
		{1, 2, 1, 2, 2}, {1, 1, 1, 2, 1}, {1, 2, 1, 1, 1}, {1, 2, 2, 9, 2}, {2, 3, 1, 2, 2}, {1, 2, 3, 4, 0}, {3, 4, 1, 2, 0},
	} {
		got, refusal := negotiate(tt.ourMin, tt.ourMax, tt.theirMin, tt.theirMax)
		if got != tt.want || (refusal == "") != (got != 0) {
			t.Errorf("%+v: %d, %q", tt, got, refusal)
		}
	}
}

func TestCallsRoundTrip(t *testing.T) {
	b := encodeCall(&call{id: 7, timeout: 1, verb: strings.Repeat("v", VerbBytesMax), body: []byte("body")})
	defer b.Release()
	c, err := decodeCall(b.B[headerBytes:])
	if err != nil || c.id != 7 || c.timeout <= 0 || len(c.verb) != VerbBytesMax || string(c.body) != "body" {
		t.Fatalf("%+v, %v", c, err)
	}
	for cut := range callHeadBytes + VerbBytesMax {
		if _, err := decodeCall(b.B[headerBytes : headerBytes+cut]); !errors.Is(err, ErrDamaged) {
			t.Fatal(cut, err)
		}
	}
	forever := encodeCall(&call{id: 7, timeout: 1 << 50, verb: "v"})
	defer forever.Release()
	if c, err := decodeCall(forever.B[headerBytes:]); err != nil || c.timeout != CallTimeoutMax {
		t.Fatal(c, err)
	}
	if _, _, err := decodeReply(make([]byte, replyHeadBytes-1)); !errors.Is(err, ErrDamaged) {
		t.Fatal(err)
	}
	if _, _, err := decodeReply([]byte{1, 0, 0, 0, 0, 0, 0, 0, 3}); !errors.Is(err, ErrDamaged) {
		t.Fatal(err)
	}
}

// FuzzFrames feeds a stream to everything that decodes frames.
func FuzzFrames(f *testing.F) {
	var batch []Message
	for i, m := range sampleMessages() {
		batch = append(batch, Message{Shard: uint32(i), Raft: m})
	}
	request := encodeCall(&call{id: 1, verb: "join", body: []byte("x")})
	reply := encodeReply(1, replyOK, []byte("y"))
	messages := frameOf(frameMessages, encodeMessages(f, 2, batch))
	f.Add(append(append(bytes.Clone(messages.B), request.B...), reply.B...), true)
	f.Add(frameOf(frameMessages, encodeMessages(f, 1, batch)).B, false)
	f.Add(append(frameOf(frameEngine, []byte("opaque")).B, messages.B...), true)
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"), true)
	f.Fuzz(func(t *testing.T, p []byte, newer bool) {
		version := uint16(1)
		if newer {
			version = 2
		}
		r := newFrameReader(bytes.NewReader(p))
		defer r.close()
		var d decoder
		for {
			kind, payload, err := r.next()
			if err != nil {
				break
			}
			decodeAny(t, &d, version, kind, payload)
		}
		// A checksum stops a fuzzer, so payloads come without one as well.
		decodeAny(t, &d, version, frameMessages, p)
		decodeAny(t, &d, version, frameCall, p)
		decodeAny(t, &d, version, frameReply, p)
	})
}

func decodeAny(t *testing.T, d *decoder, version uint16, kind frameType, payload []byte) {
	switch kind {
	case frameMessages:
		batch, err := d.decode(version, payload)
		if err != nil {
			return
		}
		again := encodeMessages(t, version, batch)
		first := slices.Clone(batch)
		second, err := new(decoder).decode(version, again)
		if err != nil {
			t.Fatalf("what was decoded cannot be sent on: %v", err)
		}
		if len(first)+len(second) > 0 && !reflect.DeepEqual(first, second) {
			t.Fatal(cmp.Diff(first, second))
		}
	case frameCall:
		decodeCall(payload)
	case frameReply:
		decodeReply(payload)
	}
}

// FuzzRaftMessage compares the decoder with the generated one: what it accepts
// means the same there.
func FuzzRaftMessage(f *testing.F) {
	for _, m := range sampleMessages() {
		p, err := m.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		var d decoder
		record := append(le.AppendUint32(make([]byte, 4), uint32(len(p))), p...)
		batch, err := d.decode(1, record)
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Fatal(err)
			}
			return
		}
		var want raftpb.Message
		if err := want.Unmarshal(p); err != nil {
			// The generated decoder is stricter with unknown fields only.
			return
		}
		normalize(&want)
		if !reflect.DeepEqual(want, batch[0].Raft) {
			t.Fatal(cmp.Diff(want, batch[0].Raft))
		}
	})
}

// normalize makes empty and absent bytes the same.
func normalize(m *raftpb.Message) {
	if len(m.Context) == 0 {
		m.Context = nil
	}
	for i := range m.Entries {
		if len(m.Entries[i].Data) == 0 {
			m.Entries[i].Data = nil
		}
	}
}

func FuzzHandshake(f *testing.F) {
	h := hello{kind: kindRaft, versionMin: 1, versionMax: 2, identity: identityOf(1)}
	a := answer{version: 1, refusal: "no", identity: identityOf(2)}
	proven := answer{version: 1, identity: identityOf(2), credentials: credentials{present: true}}
	earlier := hello{kind: kindRaft, versionMin: 1, versionMax: 2, credentials: credentials{present: true}}
	for _, body := range [][]byte{h.encode(), a.encode(), appendProof(proven.encode(), &proof{}), earlier.encode(), (&verdict{refusal: "no"}).encode(), (&verdict{refusal: "no", proven: true}).encode(), (&welcome{refusal: "no"}).encode()} {
		var b bytes.Buffer
		writeRecord(&b, body)
		f.Add(b.Bytes())
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		body, err := readRecord(bytes.NewReader(p))
		if err != nil {
			body = p
		}
		if h, err := decodeHello(body); err == nil {
			if again, err := decodeHello(h.encode()); err != nil || again != h {
				t.Fatalf("%+v became %+v, %v", h, again, err)
			}
		}
		if a, _, err := decodeAnswer(body); err == nil {
			body := a.encode()
			if a.credentials.present {
				body = appendProof(body, &a.proof)
			}
			if again, _, err := decodeAnswer(body); err != nil || again != a {
				t.Fatalf("%+v became %+v, %v", a, again, err)
			}
		}
		decodeVerdict(body, false)
		decodeVerdict(body, true)
		decodeWelcome(body)
	})
}
