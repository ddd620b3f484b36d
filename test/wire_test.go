package test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/proa-kv/proa/internal/testcluster"
	"github.com/proa-kv/proa/protocol"
	"github.com/proa-kv/proa/raftgroup"
	"github.com/proa-kv/proa/raftgroup/placement"
	"github.com/proa-kv/proa/server"
)

// wire is a client that may misbehave: it sends any bytes and shows any frame.
type wire struct {
	t  testing.TB
	nc net.Conn
	r  *bufio.Reader
	id uint64
}

// answerTimeout bounds the wait for a reply.
const answerTimeout = 20 * time.Second

func dialWire(t testing.TB, node *testcluster.Node) *wire {
	t.Helper()
	nc, err := net.Dial("tcp", node.Address())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	return &wire{t: t, nc: nc, r: bufio.NewReaderSize(nc, 64<<10)}
}

// greetWire is dialWire and a HELLO.
func greetWire(t testing.TB, node *testcluster.Node) *wire {
	t.Helper()
	w := dialWire(t, node)
	if f := w.call(protocol.OpHello, helloBody()); protocol.Status(f.Code) != protocol.StatusOK {
		t.Fatalf("HELLO was answered with %v", protocol.Status(f.Code))
	}
	return w
}

func helloBody() []byte {
	m := protocol.Hello{VersionMin: 1, VersionMax: 1, Features: protocol.FeatureSessions, Name: []byte("wire test")}
	return m.AppendTo(nil)
}

func putBody(key, value string) []byte {
	m := protocol.Put{Key: []byte(key), Value: []byte(value)}
	return m.AppendTo(nil)
}

func scanBody(prefix string, count uint32, cursor []byte) []byte {
	m := protocol.Scan{Flags: protocol.ScanPrefix, CountMax: count, Start: []byte(prefix), Cursor: cursor}
	return m.AppendTo(nil)
}

func batchBody(flags uint8, keys ...string) []byte {
	m := protocol.Batch{Flags: flags}
	for _, k := range keys {
		m.Ops = append(m.Ops, protocol.Op{Code: protocol.OpPut, Body: putBody(k, "v")})
	}
	return m.AppendTo(nil)
}

// rawFrame builds a frame of any code, flags and body, with a correct length.
func rawFrame(code uint8, flags protocol.Flags, id uint64, body []byte) []byte {
	return protocol.End(append(protocol.Begin(nil, code, flags, id), body...), 0)
}

func request(op protocol.Opcode, id uint64, body []byte) []byte {
	return rawFrame(uint8(op), 0, id, body)
}

// patched returns b with some bytes replaced.
func patched(b []byte, at int, with ...byte) []byte {
	b = bytes.Clone(b)
	copy(b[at:], with)
	return b
}

func (w *wire) write(b []byte) {
	w.t.Helper()
	if _, err := w.nc.Write(b); err != nil {
		w.t.Fatalf("sending %d bytes: %v", len(b), err)
	}
}

// next reads one frame. io.EOF means that the server closed in good order.
func (w *wire) next() (protocol.Frame, error) {
	_ = w.nc.SetReadDeadline(time.Now().Add(answerTimeout))
	head, err := w.r.Peek(4)
	if err != nil {
		return protocol.Frame{}, err
	}
	b := make([]byte, binary.LittleEndian.Uint32(head))
	if _, err := io.ReadFull(w.r, b); err != nil {
		return protocol.Frame{}, err
	}
	f, _, _, err := protocol.Next(b, protocol.FrameBytesMax)
	return f, err
}

func (w *wire) receive() protocol.Frame {
	w.t.Helper()
	f, err := w.next()
	if err != nil {
		w.t.Fatalf("waiting for a reply: %v", err)
	}
	return f
}

func (w *wire) call(op protocol.Opcode, body []byte) protocol.Frame {
	w.t.Helper()
	w.id++
	w.write(request(op, w.id, body))
	f := w.receive()
	if f.ID != w.id {
		w.t.Fatalf("the reply has id %d, want %d (status %v)", f.ID, w.id, protocol.Status(f.Code))
	}
	return f
}

// expectError checks an error frame: its status, and that it has a message.
func (w *wire) expectError(f protocol.Frame, want protocol.Status) {
	w.t.Helper()
	var e protocol.ErrorReply
	if got := protocol.Status(f.Code); got != want {
		w.t.Fatalf("answered with %v (%q), want %v", got, f.Body, want)
	}
	if err := e.Decode(f.Body); err != nil || len(e.Message) == 0 {
		w.t.Errorf("the error body is %q: %v", f.Body, err)
	}
}

// expectClosed expects the end of the stream. The message before it must have
// arrived, so a reset is not accepted.
func (w *wire) expectClosed() {
	w.t.Helper()
	if f, err := w.next(); err == nil {
		w.t.Errorf("the connection goes on with a %v", protocol.Status(f.Code))
	} else if !errors.Is(err, io.EOF) {
		w.t.Errorf("the connection ended with %v, want a close in good order", err)
	}
}

// wellBehaved is what must work whatever others do.
func wellBehaved(t testing.TB, node *testcluster.Node) {
	t.Helper()
	w := greetWire(t, node)
	defer w.nc.Close()
	value := fmt.Sprint(rand.Uint64())
	if f := w.call(protocol.OpPut, putBody("well-behaved", value)); protocol.Status(f.Code) != protocol.StatusOK {
		t.Fatalf("a well-behaved PUT was answered with %v", protocol.Status(f.Code))
	}
	var row protocol.RowReply
	f := w.call(protocol.OpGet, []byte("well-behaved"))
	if err := row.Decode(f.Body); err != nil || string(row.Value) != value {
		t.Fatalf("a well-behaved GET was answered with %v, %q", protocol.Status(f.Code), row.Value)
	}
}

// onTransports runs a test against a server on each way to drive sockets.
func onTransports(t *testing.T, test func(t *testing.T, node *testcluster.Node), settings ...string) {
	onTransportsWith(t, nil, func(t *testing.T, node *testcluster.Node, _ server.Transport) { test(t, node) }, settings...)
}

// onTransportsWith is onTransports for those that have what a test needs.
func onTransportsWith(t *testing.T, needs []server.Capability, test func(*testing.T, *testcluster.Node, server.Transport), settings ...string) {
	for _, transport := range server.Transports {
		t.Run(transport.Name, func(t *testing.T) {
			skipWithout(t, transport, needs)
			node := testcluster.Start(t, testcluster.Config{Settings: append([]string{"network.transport=" + transport.Name}, settings...)})
			test(t, node, transport)
		})
	}
}

// skipWithout skips a test on a transport that lacks what the test needs.
func skipWithout(t *testing.T, transport server.Transport, needs []server.Capability) {
	t.Helper()
	for _, need := range needs {
		if instead, lacks := transport.Lacks[need]; lacks {
			t.Skipf("needs %s: %s", need, instead)
		}
	}
}

// needs skips a test that needs what the transport lacks which the environment sets
// for all servers.
func needs(t *testing.T, needs ...server.Capability) {
	t.Helper()
	for _, transport := range server.Transports {
		if transport.Name == os.Getenv("PROA_NETWORK_TRANSPORT") {
			skipWithout(t, transport, needs)
		}
	}
}

// engineUnderTest is the Raft engine that the environment sets for all servers.
func engineUnderTest() placement.Engine {
	e, _ := placement.ParseEngine(os.Getenv("PROA_RAFT_ENGINE")) // servers refuse another
	return e
}

// needsOfEngine skips a test that needs what the engine under test lacks.
func needsOfEngine(t *testing.T, needs ...raftgroup.Capability) {
	t.Helper()
	for _, need := range needs {
		if instead, lacks := engineLacks(need); lacks {
			t.Skipf("needs %s: %s", need, instead)
		}
	}
}

// engineLacks reports whether the engine under test lacks something, and what happens instead.
func engineLacks(c raftgroup.Capability) (instead string, lacks bool) {
	for _, e := range raftgroup.Engines {
		if e.Name == engineUnderTest() {
			instead, lacks = e.Lacks[c]
		}
	}
	return instead, lacks
}

// TestBadInput sends what must not be sent. The server answers with an error,
// closes where the stream cannot be trusted, keeps the connection where it can,
// and goes on serving others.
func TestBadInput(t *testing.T) {
	onTransports(t, func(t *testing.T, node *testcluster.Node) {
		seed := greetWire(t, node)
		for _, k := range []string{"scan/a/1", "scan/a/2", "scan/b/1", "scan/b/2"} {
			seed.call(protocol.OpPut, putBody(k, "v"))
		}
		var page protocol.ScanReply
		if err := page.Decode(seed.call(protocol.OpScan, scanBody("scan/a/", 1, nil)).Body); err != nil || len(page.Cursor) == 0 {
			t.Fatalf("no cursor for half a scan: %v", err)
		}
		for _, tt := range badInputs(page.Cursor) {
			t.Run(strings.ReplaceAll(tt.name, " ", "-"), func(t *testing.T) {
				tt.run(t, node)
				wellBehaved(t, node)
			})
		}
	})
}

// badInput is bytes on a fresh connection and the answer to them.
type badInput struct {
	name     string
	noHello  bool
	bytes    []byte
	status   protocol.Status
	anyID    bool // the error need not name a request
	goesOn   bool // the connection can be used afterwards
	halfOpen bool // nothing can be answered: the bytes end in the middle
}

func (b *badInput) run(t *testing.T, node *testcluster.Node) {
	w := dialWire(t, node)
	if !b.noHello {
		w = greetWire(t, node)
	}
	w.write(b.bytes)
	if b.halfOpen {
		_ = w.nc.(*net.TCPConn).CloseWrite()
		w.expectClosed()
		return
	}
	f := w.receive()
	w.expectError(f, b.status)
	if f.ID != 77 && !b.anyID {
		t.Errorf("the error is for request %d, want 77", f.ID)
	}
	if b.goesOn {
		w.id = 100
		if f := w.call(protocol.OpPing, []byte("still here")); string(f.Body) != "still here" {
			t.Errorf("PING was answered with %v %q", protocol.Status(f.Code), f.Body)
		}
		return
	}
	w.expectClosed()
}

func badInputs(cursor []byte) []badInput {
	const id = 77
	ping := request(protocol.OpPing, id, nil)
	length := func(n uint32) []byte { return patched(ping, 0, byte(n), byte(n>>8), byte(n>>16), byte(n>>24)) }
	extended := func(op protocol.Opcode, list, body []byte) []byte {
		b := binary.LittleEndian.AppendUint16(nil, uint16(len(list)))
		return rawFrame(uint8(op), protocol.FlagExtensions, id, append(append(b, list...), body...))
	}
	long := func(n int) string { return strings.Repeat("x", n) }
	hello := func(change func(*protocol.Hello)) []byte {
		m := protocol.Hello{VersionMin: 1, VersionMax: 1}
		change(&m)
		return request(protocol.OpHello, id, m.AppendTo(nil))
	}
	stream := func(name string, b []byte) badInput {
		return badInput{name: name, bytes: b, status: protocol.StatusProtocol}
	}
	message := func(name string, status protocol.Status, b []byte) badInput {
		return badInput{name: name, bytes: b, status: status, goesOn: true}
	}
	return []badInput{
		// The stream cannot be trusted any more.
		stream("length 0", length(0)),
		stream("length below a header", length(15)),
		stream("length just above the limit", length(protocol.FrameBytesMax+1)),
		stream("length of two gigabytes", length(1<<31)),
		stream("length of minus one", length(1<<32-1)),
		{name: "a length and no more", bytes: []byte{0xff, 0xff, 0xff, 0xff}, status: protocol.StatusProtocol, anyID: true},
		stream("version 0", patched(ping, 4, 0)),
		stream("version 2", patched(ping, 4, 2)),
		stream("unknown flag", patched(ping, 6, 8)),
		stream("unknown high flag", patched(ping, 7, 0x80)),
		stream("reply flag", patched(ping, 6, byte(protocol.FlagReply))),
		stream("more flag", patched(ping, 6, byte(protocol.FlagMore))),
		{name: "id 0", bytes: request(protocol.OpPing, 0, nil), status: protocol.StatusProtocol, anyID: true},
		stream("extensions without a length", rawFrame(uint8(protocol.OpPing), protocol.FlagExtensions, id, []byte{1})),
		stream("extensions longer than the frame", rawFrame(uint8(protocol.OpPing), protocol.FlagExtensions, id, []byte{9, 0, 1, 4})),
		stream("extensions above the limit", extended(protocol.OpPing, make([]byte, protocol.ExtensionBytesMax+1), nil)),
		{name: "a frame that ends early", bytes: request(protocol.OpPut, id, putBody("lying", "value"))[:20], halfOpen: true},
		{name: "a header that ends early", bytes: ping[:7], halfOpen: true},

		// Before the handshake.
		{name: "no HELLO", noHello: true, bytes: ping, status: protocol.StatusHandshake},
		{name: "PUT before HELLO", noHello: true, bytes: request(protocol.OpPut, id, putBody("early", "v")), status: protocol.StatusHandshake},
		{name: "another version's HELLO", noHello: true, bytes: patched(hello(func(*protocol.Hello) {}), 4, 9), status: protocol.StatusHandshake},
		{name: "no version in common", noHello: true, bytes: hello(func(m *protocol.Hello) { m.VersionMin, m.VersionMax = 2, 200 }), status: protocol.StatusHandshake},
		{name: "empty range of versions", noHello: true, bytes: hello(func(m *protocol.Hello) { m.VersionMin = 0 }), status: protocol.StatusHandshake},
		{name: "HELLO with a long name", noHello: true, bytes: hello(func(m *protocol.Hello) { m.Name = make([]byte, 257) }), status: protocol.StatusHandshake},
		{name: "truncated HELLO", noHello: true, bytes: request(protocol.OpHello, id, helloBody()[:5]), status: protocol.StatusHandshake},
		{name: "TLS", noHello: true, bytes: append([]byte{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3}, make([]byte, 100)...), status: protocol.StatusHandshake, anyID: true},

		// The message is wrong and the stream is not.
		message("HELLO twice", protocol.StatusBadRequest, request(protocol.OpHello, id, helloBody())),
		message("opcode 0", protocol.StatusUnsupported, request(0, id, nil)),
		message("unknown opcode", protocol.StatusUnsupported, request(200, id, nil)),
		message("opcode 255", protocol.StatusUnsupported, request(255, id, []byte("body"))),
		message("truncated extension", protocol.StatusBadRequest, extended(protocol.OpPing, []byte{1, 4, 0}, nil)),
		message("extension of a wrong size", protocol.StatusBadRequest, extended(protocol.OpPing, []byte{1, 3, 0, 0, 0}, nil)),
		message("extension twice", protocol.StatusBadRequest, extended(protocol.OpPing, []byte{1, 4, 1, 0, 0, 0, 1, 4, 1, 0, 0, 0}, nil)),
		message("unknown critical extension", protocol.StatusUnsupported, extended(protocol.OpPing, []byte{0x80 | 99, 0}, nil)),
		message("session 0", protocol.StatusBadRequest, extended(protocol.OpPut, append([]byte{0x82, 24}, make([]byte, 24)...), putBody("k", "v"))),
		message("empty key", protocol.StatusBadRequest, request(protocol.OpPut, id, putBody("", "v"))),
		message("GET of an empty key", protocol.StatusBadRequest, request(protocol.OpGet, id, nil)),
		message("long key", protocol.StatusTooLarge, request(protocol.OpPut, id, putBody(long(protocol.KeyBytesMax+1), "v"))),
		message("GET of a long key", protocol.StatusTooLarge, request(protocol.OpGet, id, []byte(long(protocol.KeyBytesMax+1)))),
		message("long value", protocol.StatusTooLarge, request(protocol.OpPut, id, putBody("k", long(protocol.ValueBytesMax+1)))),
		message("key longer than the message", protocol.StatusBadRequest, request(protocol.OpPut, id, []byte{0, 200, 0, 'k'})),
		message("empty PUT", protocol.StatusBadRequest, request(protocol.OpPut, id, nil)),
		message("unknown option", protocol.StatusBadRequest, request(protocol.OpPut, id, patched(putBody("k", "v"), 0, 0x80))),
		message("two conditions", protocol.StatusBadRequest, request(protocol.OpPut, id, patched(putBody("k", "v"), 0, 0x0c))),
		message("TTL 0", protocol.StatusBadRequest, request(protocol.OpExpire, id, append(make([]byte, 8), 'k'))),
		message("truncated INCR", protocol.StatusBadRequest, request(protocol.OpIncr, id, []byte{1, 0})),
		message("empty batch", protocol.StatusBadRequest, request(protocol.OpBatch, id, batchBody(0))),
		message("batch with an unknown option", protocol.StatusBadRequest, request(protocol.OpBatch, id, batchBody(2, "a"))),
		message("batch that lies about its count", protocol.StatusBadRequest, request(protocol.OpBatch, id, []byte{0, 0xff, 0xff, 0xff, 0xff})),
		message("batch with a bad operation", protocol.StatusBadRequest, request(protocol.OpBatch, id, batchBody(0, "{a}1", "", "{a}2"))),
		message("batch in a batch", protocol.StatusBadRequest, request(protocol.OpBatch, id, []byte{0, 1, 0, 0, 0, byte(protocol.OpBatch), 0, 0, 0, 0})),
		message("empty transaction", protocol.StatusBadRequest, request(protocol.OpTxn, id, make([]byte, 12))),
		message("MGET that lies about its count", protocol.StatusBadRequest, request(protocol.OpMGet, id, []byte{0xff, 0xff, 0, 0, 1, 0, 'k'})),
		message("ROUTES with a body", protocol.StatusBadRequest, request(protocol.OpRoutes, id, []byte("x"))),
		message("STATUS with a body", protocol.StatusBadRequest, request(protocol.OpStatus, id, []byte{0})),
		message("long increment", protocol.StatusTooLarge, request(protocol.OpIncrFloat, id, append([]byte{1, 0, 'k'}, long(protocol.IncrementBytesMax+1)...))),
		message("long verb", protocol.StatusTooLarge, request(protocol.OpAdmin, id, append([]byte{protocol.VerbBytesMax + 1, 0}, long(protocol.VerbBytesMax+1)...))),
		message("long start of a scan", protocol.StatusTooLarge, request(protocol.OpScan, id, scanBody(long(protocol.KeyBytesMax+1), 1, nil))),
		message("scan of too many rows", protocol.StatusBadRequest, request(protocol.OpScan, id, scanBody("scan/", protocol.ScanCountMax+1, nil))),
		message("cursor of another scan", protocol.StatusBadCursor, request(protocol.OpScan, id, scanBody("scan/b/", 1, cursor))),
		message("damaged cursor", protocol.StatusBadCursor, request(protocol.OpScan, id, scanBody("scan/a/", 1, patched(cursor, len(cursor)-1, 'z')))),
		message("invented cursor", protocol.StatusBadCursor, request(protocol.OpScan, id, scanBody("scan/a/", 1, []byte("cursor")))),
		message("short cursor", protocol.StatusBadCursor, request(protocol.OpScan, id, scanBody("scan/a/", 1, cursor[:1]))),
	}
}

// A batch with one bad operation is refused as a whole.
func TestRefusedBatchHasNoEffect(t *testing.T) {
	onTransports(t, func(t *testing.T, node *testcluster.Node) {
		w := greetWire(t, node)
		w.expectError(w.call(protocol.OpBatch, batchBody(0, "{a}1", "{a}2", "")), protocol.StatusBadRequest)
		w.expectError(w.call(protocol.OpBatch, batchBody(0, "a", "b", "c", "d", "e", "f", "")), protocol.StatusBadRequest)
		for _, key := range []string{"{a}1", "{a}2", "a", "f"} {
			if f := w.call(protocol.OpGet, []byte(key)); protocol.Status(f.Code) != protocol.StatusNotFound {
				t.Errorf("GET %s was answered with %v", key, protocol.Status(f.Code))
			}
		}
	})
}

func TestOneByteAtATime(t *testing.T) {
	onTransports(t, func(t *testing.T, node *testcluster.Node) {
		w := dialWire(t, node)
		slowly := func(b []byte) protocol.Frame {
			for i := range b {
				w.write(b[i : i+1])
			}
			return w.receive()
		}
		slowly(request(protocol.OpHello, 1, helloBody()))
		if f := slowly(request(protocol.OpPut, 2, putBody("slow", "value"))); protocol.Status(f.Code) != protocol.StatusOK || f.ID != 2 {
			t.Fatalf("PUT was answered with %v", protocol.Status(f.Code))
		}
		var row protocol.RowReply
		if err := row.Decode(slowly(request(protocol.OpGet, 3, []byte("slow"))).Body); err != nil || string(row.Value) != "value" {
			t.Errorf("GET gives %q, %v", row.Value, err)
		}
	})
}

// A client that has sent all it will still gets every reply, and then the end.
func TestHalfClose(t *testing.T) {
	onTransportsWith(t, []server.Capability{server.HalfClose}, func(t *testing.T, node *testcluster.Node, _ server.Transport) {
		const n = 500
		w := greetWire(t, node)
		big := strings.Repeat("x", 100<<10)
		w.call(protocol.OpPut, putBody("big", big))
		var all []byte
		for i := range uint64(n) {
			switch i % 3 {
			case 0:
				all = append(all, request(protocol.OpPut, 1000+i, putBody(fmt.Sprint("half", i), "v"))...)
			case 1:
				all = append(all, request(protocol.OpGet, 1000+i, []byte("big"))...)
			default:
				all = append(all, request(protocol.OpScan, 1000+i, scanBody("half", 10, nil))...)
			}
		}
		w.write(all)
		if err := w.nc.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		seen := make(map[uint64]bool)
		for len(seen) < n {
			f := w.receive()
			if protocol.Status(f.Code) != protocol.StatusOK || f.ID < 1000 || f.ID >= 1000+n {
				t.Fatalf("request %d was answered with %v", f.ID, protocol.Status(f.Code))
			}
			if f.Flags&protocol.FlagMore == 0 {
				if seen[f.ID] {
					t.Fatalf("request %d was answered twice", f.ID)
				}
				seen[f.ID] = true
			}
		}
		w.expectClosed()
	})
}

// resident returns the memory a process holds, in bytes.
func resident(t testing.TB, node *testcluster.Node) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", node.PID()))
	if errors.Is(err, os.ErrNotExist) {
		t.Skip("the memory of a process is read from /proc, which this system does not have")
	}
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(b), "VmRSS:")
	var kib int64
	if _, err := fmt.Sscan(after, &kib); err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

// allowed is the memory that a server may take where one without
// instrumentation may take so many bytes. The race detector keeps up to eight
// bytes of its own for each byte.
func allowed(bytes int64) int64 {
	if testcluster.Instrumented() {
		return 8 * bytes
	}
	return bytes
}

// lean are settings under which the process is small, so that what one client
// takes shows.
var lean = []string{"memory.cache_size=32MiB", fmt.Sprintf("memory.max_memory_usage=%d", memoryMax), "storage.memtable_size=4MiB", "memory.prealloc_buffers=false"}

// memoryMax is what a lean server aims to stay under.
const memoryMax = 256 << 20

// Clients that ask for much and read nothing are not read from any more, or cut off
// by a transport that cannot pause: what waits for them is bounded, whatever they
// ask for.
func TestNeverReads(t *testing.T) {
	const clients, outputMax = 40, 1 << 20
	onTransportsWith(t, nil, func(t *testing.T, node *testcluster.Node, transport server.Transport) {
		w := greetWire(t, node)
		w.call(protocol.OpPut, putBody("big", strings.Repeat("x", 256<<10)))
		ask := bytes.Repeat(request(protocol.OpGet, 1, []byte("big")), 1000)
		var wires []*wire
		for range clients {
			wires = append(wires, greetWire(t, node))
		}
		err := forEach(wires, clients, func(w *wire) error { return w.flood(ask, 256<<20) })
		if _, cutOff := transport.Lacks[server.Pauses]; err != nil && !cutOff {
			t.Error(err)
		}
		// Each may have its unsent output and one reply beyond it, in buffers
		// whose sizes are powers of two. The rest is what the garbage collector
		// leaves lying about within the memory the process may use.
		if needed, got := int64(2*clients*(outputMax+256<<10)), resident(t, node); needed > memoryMax/2 || got > allowed(memoryMax*5/4) {
			t.Errorf("with %d clients that never read the server has %d MiB, it needs %d and may use %d", clients, got>>20, needed>>20, memoryMax>>20)
		} else {
			t.Logf("with %d clients that never read the server has %d MiB", clients, got>>20)
		}
		wellBehaved(t, node)
	}, append(lean, fmt.Sprintf("network.output_bytes_max=%d", outputMax))...)
}

// A client that asks for far more than it may have unsent, and only then begins
// to read, gets every reply; whether or not it has said that it will ask no
// more.
func TestReadsLate(t *testing.T) {
	settings := append(lean, "network.output_bytes_max=1MiB", "memory.cache_size=8MiB")
	t.Run("open", func(t *testing.T) {
		onTransports(t, func(t *testing.T, node *testcluster.Node) { readLate(t, node, false) }, settings...)
	})
	t.Run("half-closed", func(t *testing.T) {
		onTransportsWith(t, []server.Capability{server.HalfClose}, func(t *testing.T, node *testcluster.Node, _ server.Transport) { readLate(t, node, true) }, settings...)
	})
}

func readLate(t *testing.T, node *testcluster.Node, halfClose bool) {
	const requests, size = 400, 256 << 10
	greetWire(t, node).call(protocol.OpPut, putBody("big", strings.Repeat("x", size)))
	w := greetWire(t, node)
	var all []byte
	for i := range uint64(requests) {
		all = append(all, request(protocol.OpGet, 1000+i, []byte("big"))...)
	}
	w.write(all)
	if halfClose {
		_ = w.nc.(*net.TCPConn).CloseWrite()
	}
	for range 10 {
		wellBehaved(t, node) // the replies have time to pile up
	}
	seen := make(map[uint64]bool)
	for range requests {
		f := w.receive()
		if protocol.Status(f.Code) != protocol.StatusOK || len(f.Body) != protocol.RowReplyBytes+size || seen[f.ID] {
			t.Fatalf("after %d replies request %d is answered with %v, %d bytes", len(seen), f.ID, protocol.Status(f.Code), len(f.Body))
		}
		seen[f.ID] = true
	}
	if halfClose {
		w.expectClosed()
	}
}

// stall is how long a socket must take nothing to count as full.
const stall = 500 * time.Millisecond

// flood writes b again and again until the server takes no more. It is an
// error if the server ends the connection, or has taken bytesMax.
func (w *wire) flood(b []byte, bytesMax int) error {
	for sent := 0; sent < bytesMax; {
		_ = w.nc.SetWriteDeadline(time.Now().Add(stall))
		n, err := w.nc.Write(b)
		sent += n
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) && n == 0:
			return nil
		case err != nil && !errors.Is(err, os.ErrDeadlineExceeded):
			return fmt.Errorf("the server ended the connection of a client that does not read: %w", err)
		}
	}
	return fmt.Errorf("the server took %d MiB of requests whose replies nobody reads", bytesMax>>20)
}

// Clients that announce large frames and send little of them take no more
// memory than they send.
func TestAnnouncedFramesTakeNoMemory(t *testing.T) {
	onTransports(t, func(t *testing.T, node *testcluster.Node) {
		before := resident(t, node)
		const clients = 500
		head := request(protocol.OpPut, 1, putBody("k", ""))
		binary.LittleEndian.PutUint32(head, protocol.FrameBytesMax)
		for range clients {
			w := greetWire(t, node)
			w.write(head)
		}
		wellBehaved(t, node)
		grown := resident(t, node) - before
		if limit := allowed(clients * 128 << 10); grown > limit {
			t.Errorf("%d clients that announced 16 MiB each took %d MiB, at most %d are allowed", clients, grown>>20, limit>>20)
		}
		t.Logf("%d clients that announced 16 MiB each took %d MiB", clients, grown>>20)
	}, lean...)
}

func TestSilentConnections(t *testing.T) {
	onTransports(t, func(t *testing.T, node *testcluster.Node) {
		before := resident(t, node)
		const clients = 1000
		var silent []*wire
		for range clients {
			silent = append(silent, dialWire(t, node))
		}
		wellBehaved(t, node)
		grown := resident(t, node) - before
		if limit := allowed(clients * 32 << 10); grown > limit {
			t.Errorf("%d silent connections took %d MiB, at most %d are allowed", clients, grown>>20, limit>>20)
		}
		t.Logf("%d silent connections took %d KiB each", clients, grown>>10/clients)
		// They can still begin to talk.
		w := silent[clients/2]
		if f := w.call(protocol.OpHello, helloBody()); protocol.Status(f.Code) != protocol.StatusOK {
			t.Errorf("HELLO after a silence was answered with %v", protocol.Status(f.Code))
		}
	}, lean...)
}

// A connection that never says HELLO, and one that stops in the middle of a
// frame, are told and closed.
func TestStalledConnections(t *testing.T) {
	onTransports(t, func(t *testing.T, node *testcluster.Node) {
		silent := dialWire(t, node)
		stalled := greetWire(t, node)
		stalled.write(request(protocol.OpPut, 1, putBody("k", "value"))[:20])
		idle := greetWire(t, node)
		for _, w := range []*wire{silent, stalled} {
			w.expectError(w.receive(), protocol.StatusIdle)
			w.expectClosed()
		}
		// One that has nothing to ask is in its right.
		if f := idle.call(protocol.OpPing, nil); protocol.Status(f.Code) != protocol.StatusOK {
			t.Errorf("PING was answered with %v", protocol.Status(f.Code))
		}
		wellBehaved(t, node)
	}, "network.frame_timeout=1s")
}

func TestIdleConnection(t *testing.T) {
	onTransports(t, func(t *testing.T, node *testcluster.Node) {
		w := greetWire(t, node)
		w.expectError(w.receive(), protocol.StatusIdle)
		w.expectClosed()
		wellBehaved(t, node)
	}, "network.idle_timeout=1s")
}

// One connection more than allowed is told so and closed; when another leaves,
// there is room again.
func TestMaxConnections(t *testing.T) {
	const limit = 5
	onTransports(t, func(t *testing.T, node *testcluster.Node) {
		// The connection that asked whether the server is ready may not have
		// been forgotten yet.
		var held []*wire
		for len(held) < limit {
			if w, ok := tryWire(t, node); ok {
				held = append(held, w)
			}
		}
		for range 3 {
			w := dialWire(t, node)
			f := w.receive()
			w.expectError(f, protocol.StatusTooManyConns)
			if f.ID != 0 {
				t.Errorf("the notice has id %d", f.ID)
			}
			w.expectClosed()
		}
		for _, w := range held {
			if f := w.call(protocol.OpPing, []byte("x")); string(f.Body) != "x" {
				t.Errorf("a connection within the limit was answered with %v", protocol.Status(f.Code))
			}
		}
		held[0].nc.Close()
		deadline := time.Now().Add(answerTimeout)
		for {
			if _, ok := tryWire(t, node); ok {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("a connection that left has not made room")
			}
		}
	}, fmt.Sprintf("concurrency.max_connections=%d", limit))
}

// tryWire connects and says HELLO unless the server has too many connections.
func tryWire(t *testing.T, node *testcluster.Node) (*wire, bool) {
	t.Helper()
	w := dialWire(t, node)
	// The server may have closed already.
	_, err := w.nc.Write(request(protocol.OpHello, 1, helloBody()))
	if err != nil && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		t.Fatal(err)
	}
	f, err := w.next()
	if err == nil && protocol.Status(f.Code) == protocol.StatusOK {
		w.id = 1
		return w, true
	}
	w.nc.Close()
	if err == nil && protocol.Status(f.Code) != protocol.StatusTooManyConns {
		t.Fatalf("HELLO was answered with %v", protocol.Status(f.Code))
	}
	return nil, false
}

// TestGarbage sends random bytes, and random bodies in sound frames, after the
// handshake.
func TestGarbage(t *testing.T) {
	rng := seeded(t)
	connections := 300
	if testing.Short() {
		connections = 50
	}
	onTransports(t, func(t *testing.T, node *testcluster.Node) {
		for range connections {
			w := greetWire(t, node)
			// The server may hang up at any time.
			_, _ = w.nc.Write(garbage(rng))
			_ = w.nc.(*net.TCPConn).CloseWrite()
			for {
				if _, err := w.next(); err != nil {
					if errors.Is(err, os.ErrDeadlineExceeded) {
						t.Fatal("the server neither answers nor closes")
					}
					break
				}
			}
			w.nc.Close()
		}
		wellBehaved(t, node)
		node.Stop()
		node.Verify()
	})
}

func garbage(rng *rand.Rand) []byte {
	random := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return b
	}
	if rng.IntN(4) == 0 {
		return random(rng.IntN(10_000))
	}
	var out []byte
	for i := range 1 + rng.IntN(50) {
		var body []byte
		switch rng.IntN(3) {
		case 0:
			body = random(rng.IntN(200))
		case 1: // the bytes that lengths and counts are made of
			for range rng.IntN(40) {
				body = append(body, []byte{0, 1, 2, 0x80, 0xff}[rng.IntN(5)])
			}
		default: // a sound message with one byte changed
			body = [][]byte{putBody("key", "value"), batchBody(0, "{k}1", "{k}2"), scanBody("k", 10, nil), helloBody()}[rng.IntN(4)]
			body[rng.IntN(len(body))] = byte(rng.Uint32())
		}
		flags := protocol.Flags(0)
		if rng.IntN(4) == 0 {
			flags = protocol.FlagExtensions
		}
		frame := rawFrame(uint8(rng.IntN(18)), flags, uint64(i+1), body)
		if rng.IntN(30) == 0 {
			frame[rng.IntN(protocol.HeaderBytes)] = byte(rng.Uint32())
		}
		out = append(out, frame...)
	}
	return out
}
