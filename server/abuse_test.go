package server

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/proa-kv/proa/protocol"
)

// eventually waits until ok returns true.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(90 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("still not: %s", what)
		}
		<-time.After(2 * time.Millisecond)
	}
}

// ended reports whether the server closes the connection, and the last error
// frame before it.
func ended(t testing.TB, d *dialer) (last protocol.Frame) {
	t.Helper()
	for {
		f, err := d.tryReceive()
		if err != nil {
			var ne net.Error
			if errors.As(err, &ne) && ne.Timeout() {
				t.Fatal("the connection was not closed")
			}
			return last
		}
		last = f
	}
}

func errorText(t testing.TB, f protocol.Frame) string {
	t.Helper()
	var e protocol.ErrorReply
	if err := e.Decode(f.Body); err != nil {
		t.Fatalf("not an error reply: %v", err)
	}
	return string(e.Message)
}

// TestOneByteAtATime cuts a stream of requests at every byte.
func TestOneByteAtATime(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		_, addr := live(t, cfg)
		d := dial(t, addr)
		m := protocol.Put{Key: []byte("key"), Value: []byte("value")}
		var stream []byte
		stream = append(stream, frame(protocol.OpPut, 100, m.AppendTo(nil))...)
		stream = append(stream, frame(protocol.OpGet, 101, []byte("key"))...)
		for i := range stream {
			if _, err := d.nc.Write(stream[i : i+1]); err != nil {
				t.Fatal(err)
			}
		}
		if f := d.receive(); f.ID != 100 && f.ID != 101 {
			t.Fatalf("reply to %d", f.ID)
		}
		d.receive()
	})
}

func TestUntrustworthyStreams(t *testing.T) {
	raw := func(length uint32, version, code uint8, flags uint16, id uint64) []byte {
		b := binary.LittleEndian.AppendUint32(nil, length)
		b = append(b, version, code)
		b = binary.LittleEndian.AppendUint16(b, flags)
		return binary.LittleEndian.AppendUint64(b, id)
	}
	cases := map[string][]byte{
		"zero length":       raw(0, 1, 3, 0, 7),
		"length below head": raw(15, 1, 3, 0, 7),
		"huge length":       raw(1<<31, 1, 3, 0, 7),
		"all ones":          raw(0xffffffff, 1, 3, 0, 7),
		"unknown version":   raw(16, 9, 3, 0, 7),
		"unknown flag":      raw(16, 1, 3, 0x8000, 7),
		"reply flag":        raw(16, 1, 3, 1, 7),
		"more flag":         raw(16, 1, 3, 4, 7),
		"id zero":           raw(16, 1, 3, 0, 0),
		"no room for ext":   raw(16, 1, 3, 2, 7),
		"lying ext length":  append(raw(18, 1, 3, 2, 7), 0xff, 0x03),
		"HTTP":              []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
	}
	transports(t, func(t *testing.T, cfg Config) {
		s, addr := live(t, cfg)
		for name, bad := range cases {
			d := dial(t, addr)
			// What came before the bad bytes is still answered.
			d.send(protocol.OpPing, nil)
			if _, err := d.nc.Write(bad); err != nil {
				t.Fatal(err)
			}
			if f := d.receive(); protocol.Status(f.Code) != protocol.StatusOK {
				t.Errorf("%s: PING answered %v", name, protocol.Status(f.Code))
			}
			f := d.receive()
			if protocol.Status(f.Code) != protocol.StatusProtocol || errorText(t, f) == "" {
				t.Errorf("%s: answered %v", name, protocol.Status(f.Code))
			}
			_ = halfClose(d.nc)
			ended(t, d)
		}
		eventually(t, "no connection left", func() bool { return s.conns.len() == 0 })
		if f := dial(t, addr).put("k", "v"); protocol.Status(f.Code) != protocol.StatusOK {
			t.Fatalf("afterwards PUT answered %v", protocol.Status(f.Code))
		}
	})
}

func TestRefusedRequestsKeepTheConnection(t *testing.T) {
	key := []byte("k")
	long := bytes.Repeat([]byte("x"), protocol.KeyBytesMax+1)
	cases := map[string]struct {
		op   protocol.Opcode
		body []byte
		want protocol.Status
	}{
		"unknown opcode": {200, key, protocol.StatusUnsupported},
		"second HELLO":   {protocol.OpHello, (&protocol.Hello{VersionMin: 1, VersionMax: 1}).AppendTo(nil), protocol.StatusBadRequest},
		"empty key":      {protocol.OpGet, nil, protocol.StatusBadRequest},
		"long key":       {protocol.OpGet, long, protocol.StatusTooLarge},
		"long value":     {protocol.OpPut, (&protocol.Put{Key: key, Value: make([]byte, protocol.ValueBytesMax+1)}).AppendTo(nil), protocol.StatusTooLarge},
		"cut off PUT":    {protocol.OpPut, []byte{0, 9, 0, 'a'}, protocol.StatusBadRequest},
		"PUT option":     {protocol.OpPut, []byte{0x80, 1, 0, 'a'}, protocol.StatusBadRequest},
		"empty batch":    {protocol.OpBatch, (&protocol.Batch{}).AppendTo(nil), protocol.StatusBadRequest},
		"foreign cursor": {protocol.OpScan, (&protocol.Scan{Cursor: []byte("\x01elsewhere")}).AppendTo(nil), protocol.StatusBadCursor},
		"short cursor":   {protocol.OpScan, (&protocol.Scan{Cursor: []byte("x")}).AppendTo(nil), protocol.StatusBadCursor},
	}
	transports(t, func(t *testing.T, cfg Config) {
		_, addr := live(t, cfg)
		d := dial(t, addr)
		for name, c := range cases {
			f := d.call(c.op, c.body)
			if got := protocol.Status(f.Code); got != c.want {
				t.Errorf("%s: answered %v, want %v", name, got, c.want)
			} else if errorText(t, f) == "" {
				t.Errorf("%s: no message", name)
			}
		}
		if f := d.put("k", "v"); protocol.Status(f.Code) != protocol.StatusOK {
			t.Fatalf("afterwards PUT answered %v", protocol.Status(f.Code))
		}
	})
}

func TestHandshakeComesFirst(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		_, addr := live(t, cfg)
		for name, first := range map[string][]byte{
			"no HELLO":      frame(protocol.OpGet, 1, []byte("k")),
			"too new":       frame(protocol.OpHello, 1, (&protocol.Hello{VersionMin: 8, VersionMax: 9}).AppendTo(nil)),
			"cut off HELLO": frame(protocol.OpHello, 1, []byte{1, 1}),
		} {
			nc, err := connect(addr)
			if err != nil {
				t.Fatal(err)
			}
			d := &dialer{t: t, nc: nc}
			if _, err := nc.Write(first); err != nil {
				t.Fatal(err)
			}
			if f := d.receive(); protocol.Status(f.Code) != protocol.StatusHandshake {
				t.Errorf("%s: answered %v", name, protocol.Status(f.Code))
			}
			_ = halfClose(nc)
			ended(t, d)
			nc.Close()
		}
	})
}

// TestHalfClose sends many writes, closes the sending direction at once and
// still gets every reply, then the end.
func TestHalfClose(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		s, addr := live(t, cfg)
		d := dial(t, addr)
		const n = 300
		var b []byte
		for i := range n {
			m := protocol.Incr{Delta: 1, Key: fmt.Appendf(nil, "c%d", i%7)}
			b = append(b, frame(protocol.OpIncr, uint64(i+10), m.AppendTo(nil))...)
		}
		if _, err := d.nc.Write(b); err != nil {
			t.Fatal(err)
		}
		if err := halfClose(d.nc); err != nil {
			t.Fatal(err)
		}
		for i := range n {
			if f := d.receive(); protocol.Status(f.Code) != protocol.StatusOK {
				t.Fatalf("reply %d: %v", i, protocol.Status(f.Code))
			}
		}
		if _, err := d.tryReceive(); !errors.Is(err, io.EOF) {
			t.Fatalf("after the last reply: %v, want EOF", err)
		}
		eventually(t, "no connection left", func() bool { return s.conns.len() == 0 })
	}, HalfClose)
}

// TestClientThatNeverReads asks for far more than the output bound and reads
// nothing: the server must stop reading it, stay within the bound, serve
// others, and go on when the client reads at last.
func TestClientThatNeverReads(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		cfg.OutputBytesMax = 1 << 20
		cfg.InFlightMax = 8 // reads that wait for a thread when the bound is reached
		s, addr := live(t, cfg)
		value := strings.Repeat("v", 64<<10)
		d := dial(t, addr)
		if f := d.put("big", value); protocol.Status(f.Code) != protocol.StatusOK {
			t.Fatal(protocol.Status(f.Code))
		}
		const n = 500 // 32 MiB of replies
		sent := make(chan error, 1)
		go func() {
			var err error
			for i := range n {
				if _, err = d.nc.Write(frame(protocol.OpGet, uint64(i+10), []byte("big"))); err != nil {
					break
				}
			}
			sent <- err
		}()
		eventually(t, "paused", func() bool { return s.counters.pauses.Load() > 0 })
		unsent := 0
		s.conns.each(func(c *conn) {
			c.mu.Lock()
			unsent += c.unsent()
			c.mu.Unlock()
		})
		if limit := cfg.OutputBytesMax + (cfg.InFlightMax+2)*len(value); unsent > limit {
			t.Errorf("%d bytes unsent, the bound is %d", unsent, limit)
		}
		if f := dial(t, addr).put("other", "x"); protocol.Status(f.Code) != protocol.StatusOK {
			t.Errorf("another client: %v", protocol.Status(f.Code))
		}
		for i := range n {
			f := d.receive()
			if protocol.Status(f.Code) != protocol.StatusOK || len(f.Body) != len(value)+protocol.RowReplyBytes {
				t.Fatalf("reply %d: %v, %d bytes", i, protocol.Status(f.Code), len(f.Body))
			}
		}
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
	})
}

// TestInFlightBound pipelines more than a connection may have unanswered.
func TestInFlightBound(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		cfg.InFlightMax = 4
		_, addr := live(t, cfg)
		d := dial(t, addr)
		const n = 200
		var b []byte
		for i := range n {
			m := protocol.Put{Key: []byte("k"), Value: fmt.Appendf(nil, "%d", i)}
			b = append(b, frame(protocol.OpPut, uint64(i+10), m.AppendTo(nil))...)
		}
		if _, err := d.nc.Write(b); err != nil {
			t.Fatal(err)
		}
		for i := range n {
			if f := d.receive(); protocol.Status(f.Code) != protocol.StatusOK {
				t.Fatalf("reply %d: %v", i, protocol.Status(f.Code))
			}
		}
	})
}

func TestConnectionLimit(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		cfg.ConnectionsMax = 3
		s, addr := live(t, cfg)
		var held []*dialer
		for range 3 {
			held = append(held, dial(t, addr))
		}
		nc, err := connect(addr)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		d := &dialer{t: t, nc: nc}
		f := d.receive()
		if protocol.Status(f.Code) != protocol.StatusTooManyConns || !strings.Contains(errorText(t, f), "max_connections") {
			t.Errorf("answered %v", protocol.Status(f.Code))
		}
		ended(t, d)
		held[0].nc.Close()
		eventually(t, "a place is free", func() bool { return s.conns.len() == 2 })
		dial(t, addr)
	})
}

func TestStalledFrameAndIdleness(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		cfg.FrameTimeout = 50 * time.Millisecond
		_, addr := live(t, cfg)
		d := greet(t, addr)
		if _, err := d.nc.Write(frame(protocol.OpGet, 5, []byte("key"))[:10]); err != nil {
			t.Fatal(err)
		}
		if f := ended(t, d); protocol.Status(f.Code) != protocol.StatusIdle {
			t.Errorf("a stalled frame: %v", protocol.Status(f.Code))
		}
	})
	transports(t, func(t *testing.T, cfg Config) {
		cfg.IdleTimeout = 50 * time.Millisecond
		_, addr := live(t, cfg)
		if f := ended(t, greet(t, addr)); protocol.Status(f.Code) != protocol.StatusIdle {
			t.Errorf("an idle connection: %v", protocol.Status(f.Code))
		}
	})
}

// greet is dial that does not wait for the answer to HELLO: on a busy machine a
// connection may be closed for its silence before the server gets to read that.
func greet(t *testing.T, addr net.Addr) *dialer {
	t.Helper()
	nc, err := connect(addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	d := &dialer{t: t, nc: nc}
	hello := protocol.Hello{VersionMin: 1, VersionMax: 1, Name: []byte("test")}
	d.send(protocol.OpHello, hello.AppendTo(nil))
	return d
}

// TestLengthAloneTakesNoMemory announces large frames and sends little.
func TestLengthAloneTakesNoMemory(t *testing.T) {
	s, addr := live(t, Config{})
	for range 50 {
		d := dial(t, addr)
		b := protocol.Begin(nil, uint8(protocol.OpPut), 0, 5)
		binary.LittleEndian.PutUint32(b, protocol.FrameBytesMax)
		if _, err := d.nc.Write(append(b, make([]byte, 100)...)); err != nil {
			t.Fatal(err)
		}
	}
	partial := func() (n int) {
		s.conns.each(func(c *conn) {
			if c.frameSince.Load() != 0 {
				n++
			}
		})
		return n
	}
	eventually(t, "all have begun a frame", func() bool { return partial() == 50 })
	if held := s.admission.inputBytes.Load(); held > 50*readBytes {
		t.Errorf("%d bytes held for 50 frames of which 116 bytes each have come", held)
	}
}

// TestLargeValues sends values from just below to the limit.
func TestLargeValues(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		_, addr := live(t, cfg)
		d := dial(t, addr)
		for _, size := range []int{0, 1, readBytes - 100, readBytes, readBytes + 1, 1 << 20, protocol.ValueBytesMax} {
			value := bytes.Repeat([]byte{byte(size)}, size)
			m := protocol.Put{Key: []byte("k"), Value: value}
			if f := d.call(protocol.OpPut, m.AppendTo(nil)); protocol.Status(f.Code) != protocol.StatusOK {
				t.Fatalf("%d bytes: %v", size, protocol.Status(f.Code))
			}
			f := d.call(protocol.OpGet, []byte("k"))
			var r protocol.RowReply
			if err := r.Decode(f.Body); err != nil || !bytes.Equal(r.Value, value) {
				t.Fatalf("%d bytes came back as %d, %v", size, len(r.Value), err)
			}
		}
	})
}

// TestShutdown checks that what was asked is answered, that clients are told,
// and that Shutdown ends.
func TestShutdown(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		s, addr := live(t, cfg)
		d := dial(t, addr)
		const n = 100
		for i := range n {
			m := protocol.Put{Key: fmt.Appendf(nil, "k%d", i), Value: []byte("v")}
			d.send(protocol.OpPut, m.AppendTo(nil))
		}
		first := d.receive() // the server has begun
		done := make(chan error, 1)
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			done <- s.Shutdown(ctx)
		}()
		replies, told := 0, false
		count := func(f protocol.Frame) {
			switch st := protocol.Status(f.Code); {
			case f.ID == 0 && st == protocol.StatusGoAway:
				told = true
			case st == protocol.StatusOK || st == protocol.StatusShuttingDown:
				replies++
			default:
				t.Errorf("reply to %d: %v", f.ID, st)
			}
		}
		count(first)
		for {
			f, err := d.tryReceive()
			if err != nil {
				break
			}
			count(f)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		if replies != n || !told {
			t.Errorf("%d of %d requests answered, told to go away: %v", replies, n, told)
		}
	})
}

func TestScanPagesAndCursor(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		_, addr := live(t, cfg)
		d := dial(t, addr)
		var want []string
		for i := range 300 {
			k := fmt.Sprintf("row%04d", i)
			want = append(want, k)
			d.put(k, strings.Repeat("v", 5000)) // pages of several frames
		}
		for _, reverse := range []bool{false, true} {
			m := protocol.Scan{Flags: protocol.ScanPrefix, Start: []byte("row"), CountMax: 130, BytesMax: 1 << 30 >> 4}
			if reverse {
				m.Flags |= protocol.ScanReverse
			}
			var got []string
			pages := 0
			for {
				id := d.send(protocol.OpScan, m.AppendTo(nil))
				var cursor []byte
				for more := true; more; {
					f := d.receive()
					if f.ID != id || protocol.Status(f.Code) != protocol.StatusOK {
						t.Fatalf("%v", protocol.Status(f.Code))
					}
					var r protocol.ScanReply
					if err := r.Decode(f.Body); err != nil {
						t.Fatal(err)
					}
					for _, row := range r.Rows {
						got = append(got, string(row.Key))
					}
					more = f.Flags&protocol.FlagMore != 0
					cursor = r.Cursor
				}
				pages++
				if len(cursor) == 0 {
					break
				}
				m.Cursor = cursor
			}
			if len(got) != len(want) || pages != 3 {
				t.Fatalf("%d rows in %d pages", len(got), pages)
			}
			for i := range got {
				w := want[i]
				if reverse {
					w = want[len(want)-1-i]
				}
				if got[i] != w {
					t.Fatalf("row %d is %s, want %s", i, got[i], w)
				}
			}
			other := m
			other.Start = []byte("ro")
			if len(other.Cursor) > 0 {
				if f := d.call(protocol.OpScan, other.AppendTo(nil)); protocol.Status(f.Code) != protocol.StatusBadCursor {
					t.Errorf("the cursor of another range: %v", protocol.Status(f.Code))
				}
			}
		}
	})
}

// FuzzConnection feeds arbitrary bytes to a live connection after the
// handshake. Whatever they are, the server must not fall over, must answer or
// close, and must serve the next client.
func FuzzConnection(f *testing.F) {
	put := protocol.Put{Key: []byte("k"), Value: []byte("v")}
	f.Add(frame(protocol.OpPut, 1, put.AppendTo(nil)))
	f.Add(frame(protocol.OpGet, 2, []byte("k"))[:9])
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 1, 3, 0, 0})
	f.Add(frame(protocol.OpScan, 3, (&protocol.Scan{}).AppendTo(nil)))
	f.Add(frame(protocol.OpTxn, 4, (&protocol.Txn{Then: protocol.Ops{{Code: protocol.OpGet, Body: []byte("k")}}}).AppendTo(nil)))
	f.Add(frame(protocol.OpMGet, 5, (&protocol.MGet{Keys: [][]byte{[]byte("a"), []byte("b")}}).AppendTo(nil)))
	_, addr := live(f, Config{})
	f.Fuzz(func(t *testing.T, data []byte) {
		d := dial(t, addr)
		_, _ = d.nc.Write(data)
		_ = halfClose(d.nc)
		ended(t, d) // the end always comes
		d.nc.Close()
		if fr := dial(t, addr).call(protocol.OpPing, []byte("x")); protocol.Status(fr.Code) != protocol.StatusOK {
			t.Fatalf("the next client's PING: %v", protocol.Status(fr.Code))
		}
	})
}
