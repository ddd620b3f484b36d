package test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/proa-kv/proa/internal/testcluster"
	"github.com/proa-kv/proa/protocol"
)

// TestSpecification holds a running server against sentences of
// docs/protocol.md that no codec can check.
func TestSpecification(t *testing.T) {
	onTransports(t, func(t *testing.T, node *testcluster.Node) {
		w := greetWire(t, node)
		write := func(f protocol.Frame) protocol.WriteReply {
			t.Helper()
			var m protocol.WriteReply
			if err := m.Decode(f.Body); err != nil {
				t.Fatalf("status %v, body %q: %v", protocol.Status(f.Code), f.Body, err)
			}
			m.PreviousValue = bytes.Clone(m.PreviousValue)
			return m
		}
		call := func(want protocol.Status, op protocol.Opcode, body []byte) protocol.WriteReply {
			t.Helper()
			f := w.call(op, body)
			if got := protocol.Status(f.Code); got != want {
				t.Fatalf("%v was answered with %v, want %v", op, got, want)
			}
			return write(f)
		}
		put := func(m protocol.Put) []byte { return m.AppendTo(nil) }
		del := func(m protocol.Delete) []byte { return m.AppendTo(nil) }
		rename := func(m protocol.Rename) []byte { return m.AppendTo(nil) }

		// DELETE with version 0.
		call(protocol.StatusNotFound, protocol.OpDelete, del(protocol.Delete{Flags: protocol.WriteIfVersion, Key: []byte("absent")}))
		call(protocol.StatusConditionFailed, protocol.OpDelete, del(protocol.Delete{Flags: protocol.WriteIfVersion, Version: 1, Key: []byte("absent")}))

		// RETURN_PREVIOUS with CONDITION_FAILED.
		stored := call(protocol.StatusOK, protocol.OpPut, put(protocol.Put{Key: []byte("{a}x"), Value: []byte("hello")}))
		got := call(protocol.StatusConditionFailed, protocol.OpPut, put(protocol.Put{Flags: protocol.WriteIfAbsent | protocol.WriteReturnPrevious, Key: []byte("{a}x"), Value: []byte("bye")}))
		if got.Version != stored.Version || !got.HasPrevious || got.PreviousVersion != stored.Version || string(got.PreviousValue) != "hello" {
			t.Errorf("the row that made a condition fail is told as %+v", got)
		}

		// RENAME.
		if got := call(protocol.StatusNotFound, protocol.OpRename, rename(protocol.Rename{Source: []byte("{a}absent"), Destination: []byte("{a}x")})); got.Version != 0 {
			t.Errorf("RENAME of an absent key: %+v", got)
		}
		other := call(protocol.StatusOK, protocol.OpPut, put(protocol.Put{Key: []byte("{a}y"), Value: []byte("v")}))
		if got := call(protocol.StatusConditionFailed, protocol.OpRename, rename(protocol.Rename{Flags: protocol.RenameIfAbsent, Source: []byte("{a}x"), Destination: []byte("{a}y")})); got.Version != other.Version {
			t.Errorf("RENAME to a key that exists: %+v, want version %d", got, other.Version)
		}
		if got := call(protocol.StatusOK, protocol.OpRename, rename(protocol.Rename{Source: []byte("{a}x"), Destination: []byte("{a}x")})); got.Version != stored.Version {
			t.Errorf("RENAME of a key to itself: %+v, want version %d", got, stored.Version)
		}

		// The end of a scan may be one byte longer than a key, and the error
		// says so.
		scan := func(end int) protocol.Frame {
			m := protocol.Scan{End: bytes.Repeat([]byte{'z'}, end)}
			return w.call(protocol.OpScan, m.AppendTo(nil))
		}
		if f := scan(protocol.KeyBytesMax + 1); protocol.Status(f.Code) != protocol.StatusOK {
			t.Errorf("a scan to an end of %d bytes: %v", protocol.KeyBytesMax+1, protocol.Status(f.Code))
		}
		f := scan(protocol.KeyBytesMax + 2)
		w.expectError(f, protocol.StatusTooLarge)
		if !strings.Contains(string(f.Body), "8194 bytes, at most 8193") {
			t.Errorf("the error says %q", f.Body)
		}

		// Two requests with one id are both carried out.
		w.write(append(request(protocol.OpPut, 9, putBody("twice", "1")), request(protocol.OpPut, 9, putBody("twice too", "2"))...))
		for range 2 {
			if f := w.receive(); f.ID != 9 || protocol.Status(f.Code) != protocol.StatusOK {
				t.Errorf("id %d, status %v", f.ID, protocol.Status(f.Code))
			}
		}
	})
}

// TestRepliesPastTheFrameLimit: the frame limit of the HELLO reply binds
// requests, not replies.
func TestRepliesPastTheFrameLimit(t *testing.T) {
	const part = 12 << 10
	node := testcluster.Start(t, testcluster.Config{Settings: []string{"network.max_frame_size=16KiB"}})
	w := greetWire(t, node)
	value := strings.Repeat("v", part)
	for range 3 {
		m := protocol.Append{Key: []byte("k"), Value: []byte(value)}
		if f := w.call(protocol.OpAppend, m.AppendTo(nil)); protocol.Status(f.Code) != protocol.StatusOK {
			t.Fatalf("APPEND: %v", protocol.Status(f.Code))
		}
	}
	f := w.call(protocol.OpGet, []byte("k"))
	var m protocol.RowReply
	if err := m.Decode(f.Body); err != nil || len(m.Value) != 3*part {
		t.Errorf("status %v, %d bytes, %v", protocol.Status(f.Code), len(m.Value), err)
	}
	w.write(request(protocol.OpPut, 99, putBody("k", strings.Repeat(value, 2))))
	w.expectError(w.receive(), protocol.StatusProtocol)
	w.expectClosed()
}

// TestRepliesHaveTheirOwnExtensions: the reply to a request without extensions
// has none, whatever the request before it on the same loop had, and so have
// HELLO's.
func TestRepliesHaveTheirOwnExtensions(t *testing.T) {
	onTransports(t, func(t *testing.T, node *testcluster.Node) {
		old := protocol.Extensions{Epoch: 1}
		w, other := greetWire(t, node), dialWire(t, node)
		b := old.AppendTo(protocol.Begin(nil, uint8(protocol.OpPing), protocol.FlagExtensions, 5))
		w.write(append(protocol.End(b, 0), request(protocol.OpHello, 6, helloBody())...))
		w.receive()
		f := w.receive()
		w.expectError(f, protocol.StatusBadRequest)
		if len(f.Extensions) != 0 {
			t.Errorf("the reply to a second HELLO has extensions % x", f.Extensions)
		}
		if f := other.call(protocol.OpHello, helloBody()); len(f.Extensions) != 0 {
			t.Errorf("the reply to a HELLO has extensions % x", f.Extensions)
		}
	})
}
