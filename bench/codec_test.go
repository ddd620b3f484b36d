package bench

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/proa-kv/proa/protocol"
)

// proaReply returns a whole reply frame.
func proaReply(id uint64, s protocol.Status, body []byte) []byte {
	return protocol.End(append(protocol.Begin(nil, uint8(s), protocol.FlagReply, id), body...), 0)
}

func row(value string) []byte {
	m := protocol.RowReply{Version: 7, Value: []byte(value)}
	return m.AppendTo(nil)
}

func written() []byte {
	m := protocol.WriteReply{Version: 8}
	return m.AppendTo(nil)
}

// replies are whole replies and what they mean.
var replies = []struct {
	name  string
	codec Codec
	op    Op
	bytes []byte
	want  Reply
}{
	{"PING", Proa{}, Ping, proaReply(3, protocol.StatusOK, nil), Reply{Tag: 3}},
	{"GET", Proa{}, Get, proaReply(4, protocol.StatusOK, row("value")), Reply{Tag: 4, ValueBytes: 5}},
	{"GET of an empty value", Proa{}, Get, proaReply(4, protocol.StatusOK, row("")), Reply{Tag: 4}},
	{"GET of nothing", Proa{}, Get, proaReply(5, protocol.StatusNotFound, nil), Reply{Tag: 5, Outcome: NotFound}},
	{"PUT", Proa{}, Put, proaReply(6, protocol.StatusOK, written()), Reply{Tag: 6}},
	{"PUT with extensions", Proa{}, Put, func() []byte {
		x := protocol.Extensions{Leader: 3}
		b := protocol.Begin(nil, 0, protocol.FlagReply|protocol.FlagExtensions, 6)
		return protocol.End(append(x.AppendTo(b), written()...), 0)
	}(), Reply{Tag: 6}},
	{"busy", Proa{}, Put, protocol.AppendError(nil, 7, protocol.StatusBusy, 5, "later"), Reply{Tag: 7, Outcome: Busy, Message: []byte("later")}},
	{"failed", Proa{}, Get, protocol.AppendError(nil, 8, protocol.StatusStorageFailed, 0, "disk"), Reply{Tag: 8, Outcome: Failed, Message: []byte("disk")}},
	{"PING", RESP{}, Ping, []byte("+PONG\r\n"), Reply{}},
	{"GET", RESP{}, Get, []byte("$5\r\nvalue\r\n"), Reply{ValueBytes: 5}},
	{"GET of line ends", RESP{}, Get, []byte("$4\r\n\r\n\r\n\r\n"), Reply{ValueBytes: 4}},
	{"GET of an empty value", RESP{}, Get, []byte("$0\r\n\r\n"), Reply{}},
	{"GET of nothing", RESP{}, Get, []byte("$-1\r\n"), Reply{Outcome: NotFound}},
	{"PUT", RESP{}, Put, []byte("+OK\r\n"), Reply{}},
	{"busy", RESP{}, Put, []byte("-BUSY a script runs\r\n"), Reply{Outcome: Busy, Message: []byte("BUSY a script runs")}},
	{"failed", RESP{}, Put, []byte("-OOM no memory\r\n"), Reply{Outcome: Failed, Message: []byte("OOM no memory")}},
}

// A reply is found wherever the input is cut, and what follows it is left
// alone.
func TestReplies(t *testing.T) {
	for _, tc := range replies {
		t.Run(fmt.Sprintf("%T/%s", tc.codec, tc.name), func(t *testing.T) {
			for cut := range tc.bytes {
				if r, n, err := tc.codec.ParseReply(tc.bytes[:cut:cut], tc.op); n != 0 || err != nil {
					t.Fatalf("%d of %d bytes: got %+v of %d bytes, %v", cut, len(tc.bytes), r, n, err)
				}
			}
			for _, more := range []string{"", "+", "x"} {
				r, n, err := tc.codec.ParseReply(append(bytes.Clone(tc.bytes), more...), tc.op)
				if err != nil || n != len(tc.bytes) {
					t.Fatalf("took %d of %d bytes, %v", n, len(tc.bytes), err)
				}
				if r.Outcome != tc.want.Outcome || r.Tag != tc.want.Tag || r.ValueBytes != tc.want.ValueBytes || !bytes.Equal(r.Message, tc.want.Message) {
					t.Errorf("got %+v, want %+v", r, tc.want)
				}
			}
		})
	}
}

func TestMalformedReplies(t *testing.T) {
	for _, tc := range []struct {
		name  string
		codec Codec
		op    Op
		bytes []byte
	}{
		{"length below the header", Proa{}, Ping, []byte{3, 0, 0, 0}},
		{"length beyond the limit", Proa{}, Ping, []byte{0, 0, 0, 0xff}},
		{"a request", Proa{}, Ping, protocol.End(protocol.Begin(nil, uint8(protocol.OpPing), 0, 1), 0)},
		{"more to come", Proa{}, Ping, protocol.End(protocol.Begin(nil, 0, protocol.FlagReply|protocol.FlagMore, 1), 0)},
		{"PING with a body", Proa{}, Ping, proaReply(1, protocol.StatusOK, []byte("x"))},
		{"GET without a row", Proa{}, Get, proaReply(1, protocol.StatusOK, nil)},
		{"GET of nothing with a body", Proa{}, Get, proaReply(1, protocol.StatusNotFound, []byte("x"))},
		{"PUT not found", Proa{}, Put, proaReply(1, protocol.StatusNotFound, written())},
		{"PUT with a condition", Proa{}, Put, proaReply(1, protocol.StatusConditionFailed, written())},
		{"PUT with a short body", Proa{}, Put, proaReply(1, protocol.StatusOK, written()[1:])},
		{"error without a body", Proa{}, Put, proaReply(1, protocol.StatusBusy, nil)},
		{"notice", Proa{}, Put, protocol.AppendError(nil, 0, protocol.StatusGoAway, 0, "bye")},
		{"empty line", RESP{}, Ping, []byte("\r\n")},
		{"carriage return in a line", RESP{}, Ping, []byte("+PO\rNG\r\n")},
		{"other word", RESP{}, Ping, []byte("+OK\r\n")},
		{"other type", RESP{}, Put, []byte(":1\r\n")},
		{"array", RESP{}, Get, []byte("*1\r\n")},
		{"null for a PUT", RESP{}, Put, []byte("$-1\r\n")},
		{"negative length", RESP{}, Get, []byte("$-2\r\n")},
		{"no length", RESP{}, Get, []byte("$\r\n")},
		{"length of letters", RESP{}, Get, []byte("$1x\r\n")},
		{"length beyond the limit", RESP{}, Get, []byte("$536870913\r\n")},
		{"length beyond all numbers", RESP{}, Get, []byte("$99999999999999999999\r\n")},
		{"length too small", RESP{}, Get, []byte("$2\r\nabcd")},
		{"endless line", RESP{}, Get, []byte(strings.Repeat("-", respLineBytesMax))},
	} {
		t.Run(fmt.Sprintf("%T/%s", tc.codec, tc.name), func(t *testing.T) {
			r, n, err := tc.codec.ParseReply(tc.bytes, tc.op)
			if !errors.Is(err, ErrProtocol) || n != 0 {
				t.Errorf("got %+v of %d bytes, %v", r, n, err)
			}
		})
	}
}

func TestRequests(t *testing.T) {
	key, value := AppendKey(nil, 42), []byte("va\r\nlue")
	for op, want := range map[Op]string{
		Ping: "*1\r\n$4\r\nPING\r\n",
		Get:  "*2\r\n$3\r\nGET\r\n$16\r\n_bench/k0000001a\r\n",
		Put:  "*3\r\n$3\r\nSET\r\n$16\r\n_bench/k0000001a\r\n$7\r\nva\r\nlue\r\n",
	} {
		if got := (RESP{}).AppendRequest([]byte("before"), op, 1, key, value); string(got) != "before"+want {
			t.Errorf("RESP %v is %q", op, got)
		}
	}
	for op, code := range map[Op]protocol.Opcode{Ping: protocol.OpPing, Get: protocol.OpGet, Put: protocol.OpPut} {
		b := (Proa{}).AppendRequest([]byte("before"), op, 9, key, value)
		f, n, _, err := protocol.Next(b[len("before"):], protocol.FrameBytesMax)
		if err != nil || n != len(b)-len("before") || protocol.Opcode(f.Code) != code || f.Flags != 0 || f.ID != 9 {
			t.Errorf("Proa %v is %+v, %v", op, f, err)
		}
		var m protocol.Put
		if op == Put && (m.Decode(f.Body) != nil || string(m.Key) != "_bench/k0000001a" || !bytes.Equal(m.Value, value) || m.Flags != 0) {
			t.Errorf("PUT is %+v", m)
		}
		if op == Get && string(f.Body) != "_bench/k0000001a" || op == Ping && len(f.Body) != 0 {
			t.Errorf("body of %v is %q", op, f.Body)
		}
	}
}

func TestGreetings(t *testing.T) {
	f, _, _, err := protocol.Next((Proa{}).AppendGreeting(nil), protocol.FrameBytesMax)
	var hello protocol.Hello
	if err != nil || protocol.Opcode(f.Code) != protocol.OpHello || hello.Decode(f.Body) != nil {
		t.Fatalf("HELLO is %+v, %v", f, err)
	}
	accepted := protocol.HelloReply{Version: protocol.Version, ServerVersion: []byte("v")}
	older := protocol.HelloReply{Version: protocol.Version + 1}
	for _, tc := range []struct {
		name  string
		codec Codec
		bytes []byte
		want  error
	}{
		{"accepted", Proa{}, proaReply(f.ID, protocol.StatusOK, accepted.AppendTo(nil)), nil},
		{"refused", Proa{}, protocol.AppendError(nil, f.ID, protocol.StatusHandshake, 0, "no"), ErrGreeting},
		{"full", Proa{}, protocol.AppendError(nil, 0, protocol.StatusTooManyConns, 0, "full"), ErrGreeting},
		{"other id", Proa{}, proaReply(f.ID+1, protocol.StatusOK, accepted.AppendTo(nil)), ErrProtocol},
		{"other version", Proa{}, proaReply(f.ID, protocol.StatusOK, older.AppendTo(nil)), ErrProtocol},
		{"no body", Proa{}, proaReply(f.ID, protocol.StatusOK, nil), ErrProtocol},
		{"accepted", RESP{}, []byte("+PONG\r\n"), nil},
		{"refused", RESP{}, []byte("-ERR max number of clients reached\r\n"), ErrGreeting},
		{"nonsense", RESP{}, []byte("HTTP/1.1 400 Bad Request\r\n"), ErrProtocol},
	} {
		t.Run(fmt.Sprintf("%T/%s", tc.codec, tc.name), func(t *testing.T) {
			for cut := range tc.bytes {
				if n, err := tc.codec.ParseGreeting(tc.bytes[:cut]); n != 0 || err != nil {
					t.Fatalf("%d of %d bytes: %d, %v", cut, len(tc.bytes), n, err)
				}
			}
			n, err := tc.codec.ParseGreeting(tc.bytes)
			if !errors.Is(err, tc.want) || err == nil && n != len(tc.bytes) {
				t.Errorf("got %d of %d, %v, want %v", n, len(tc.bytes), err, tc.want)
			}
		})
	}
}

// checkParser holds for every codec and any input: a reply lies within the
// input, does not depend on what follows it, and is not found in less.
func checkParser(t *testing.T, c Codec, op Op, b []byte) {
	r, n, err := c.ParseReply(b, op)
	switch {
	case n < 0 || n > len(b) || err != nil && n != 0:
		t.Fatalf("%d of %d bytes, %v", n, len(b), err)
	case err != nil && !errors.Is(err, ErrProtocol):
		t.Fatalf("error of another kind: %v", err)
	case r.ValueBytes > n || len(r.Message) > len(b):
		t.Fatalf("%+v in %d bytes", r, n)
	case n == 0:
		return
	}
	again, m, err := c.ParseReply(b[:n:n], op)
	if err != nil || m != n || again.Outcome != r.Outcome || again.Tag != r.Tag || again.ValueBytes != r.ValueBytes {
		t.Fatalf("alone: %+v of %d bytes, %v; before: %+v of %d", again, m, err, r, n)
	}
	for _, cut := range []int{n - 1, n / 2} {
		if _, m, err := c.ParseReply(b[:cut:cut], op); m != 0 || err != nil {
			t.Fatalf("%d of %d bytes: %d, %v", cut, n, m, err)
		}
	}
}

func fuzzParser(f *testing.F, c Codec) {
	for _, tc := range replies {
		if fmt.Sprintf("%T", tc.codec) == fmt.Sprintf("%T", c) {
			f.Add(uint8(tc.op), tc.bytes)
		}
	}
	f.Fuzz(func(t *testing.T, op uint8, b []byte) { checkParser(t, c, Op(op%uint8(opEnd)), b) })
}

func FuzzProaReply(f *testing.F) { fuzzParser(f, Proa{}) }
func FuzzRESPReply(f *testing.F) { fuzzParser(f, RESP{}) }
