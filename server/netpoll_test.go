//go:build linux || darwin

package server

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/proa-kv/proa/protocol"
)

// TestInputBeyondTheBound: netpoll cannot pause reading. A connection that is to
// pause may send some more, which is carried out when it has caught up; past the
// bound it is told why and closed, and what was kept for it is given back.
func TestInputBeyondTheBound(t *testing.T) {
	const keep, size = 1 << 20, 128 << 10
	get := frame(protocol.OpGet, 7, []byte("large"))
	m := protocol.Put{Key: []byte("k"), Value: make([]byte, 4<<10)}
	put := frame(protocol.OpPut, 7, m.AppendTo(nil))
	for _, tt := range []struct {
		name  string
		bytes int // sent while the replies to it are not read
		total int // memory of all connections; 0: enough
		ends  string
	}{
		{"less", keep / 2, 0, ""},
		{"more", 2 * keep, 0, "more than 1048576 bytes of requests arrived"},
		{"more than all may have", keep / 2, 1 << 20, "the memory for requests that have not arrived completely is used up"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := Config{Transport: "netpoll", InFlightBytesMax: keep, OutputBytesMax: 256 << 10, MemoryBytesMax: int64(tt.total)}
			s, addr := live(t, cfg)
			d := dial(t, addr)
			want(t, d.put("large", strings.Repeat("v", size)), protocol.StatusOK)
			// The replies to these fill what the system and the server keep for a peer
			// that does not read.
			first := 64 << 20 / size
			if _, err := d.nc.Write(bytes.Repeat(get, first)); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the connection is paused", func() (paused bool) {
				s.conns.each(func(c *conn) { paused = c.paused.Load() })
				return paused
			})
			more := tt.bytes / len(put)
			_, _ = d.nc.Write(bytes.Repeat(put, more)) // fails where the connection is reset
			replies, reason := 0, protocol.ErrorReply{}
		replies:
			for replies < first+more {
				f, err := d.tryReceive()
				switch {
				case err != nil:
				case f.ID != 0:
					replies++
					continue
				case protocol.Status(f.Code) == protocol.StatusBusy && reason.Decode(f.Body) == nil:
					continue // and then what had been asked before
				}
				break replies
			}
			if (tt.ends == "") != (replies == first+more) || (tt.ends == "") != (reason.Message == nil) || !strings.Contains(string(reason.Message), tt.ends) {
				t.Errorf("%d replies of %d, and %q", replies, first+more, reason.Message)
			}
			d.nc.Close()
			eventually(t, "all memory is given back", func() bool {
				return s.conns.len() == 0 && s.admission.inputBytes.Load() == 0
			})
		})
	}
}

// TestReasonIsDelivered: a connection that is refused stays until its peer has all
// that it was told, however much the peer sends before it reads.
func TestReasonIsDelivered(t *testing.T) {
	s, addr := live(t, Config{Transport: "netpoll"})
	// Much less fits in the client's socket than in the server's.
	small := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		failed := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<10) })
		return errors.Join(failed, err)
	}}
	nc, err := small.Dial(addr.Network(), addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	d := speak(t, nc)
	value := strings.Repeat("v", 64<<10)
	want(t, d.put("large", value), protocol.StatusOK)
	var c *conn
	s.conns.each(func(x *conn) { c = x })
	c.lingerSince.Store(time.Now().Add(time.Hour).UnixMilli()) // no time-out ends it
	if _, err := nc.Write(append(frame(protocol.OpGet, 7, []byte("large")), bytes.Repeat([]byte{0xff}, 64)...)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the server has written everything", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.finished() && c.socket.(*netpollConn).writer == writesAnyone
	})
	const junk = 4 * lingerBytes
	before := s.counters.bytesIn.Load()
	if _, err := nc.Write(make([]byte, junk)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the server has read what still came", func() bool { return s.counters.bytesIn.Load()-before >= junk || s.conns.len() == 0 })
	for range 2 {
		if f := d.receive(); f.ID == 7 && !bytes.HasSuffix(f.Body, []byte(value)) || f.ID != 7 && protocol.Status(f.Code) != protocol.StatusProtocol {
			t.Errorf("request %d was answered %v with %d bytes", f.ID, protocol.Status(f.Code), len(f.Body))
		}
	}
	if _, err := d.tryReceive(); !errors.Is(err, io.EOF) {
		t.Errorf("after the reason: %v, want EOF", err)
	}
	nc.Close()
	eventually(t, "no connection is left", func() bool { return s.conns.len() == 0 })
}

// TestLeavesWhilePaused: what is kept of a client that leaves is given back.
func TestLeavesWhilePaused(t *testing.T) {
	s, addr := live(t, Config{Transport: "netpoll", OutputBytesMax: 64 << 10})
	d := dial(t, addr)
	want(t, d.put("large", strings.Repeat("v", 128<<10)), protocol.StatusOK)
	get := frame(protocol.OpGet, 7, []byte("large"))
	_, _ = d.nc.Write(bytes.Repeat(get, 10_000))
	eventually(t, "some requests are kept", func() bool { return s.admission.inputBytes.Load() > 0 })
	d.nc.Close()
	eventually(t, "all memory is given back", func() bool {
		return s.conns.len() == 0 && s.admission.inputBytes.Load() == 0
	})
}

// TestEnginesPage: the page about the transports has what they lack from Transports.
func TestEnginesPage(t *testing.T) {
	b, err := os.ReadFile("../docs/engines.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)
	for _, tr := range Transports {
		for capability, instead := range tr.Lacks {
			if row := fmt.Sprintf("| `%s` | %s | %s |\n", tr.Name, capability, instead); !strings.Contains(page, row) {
				t.Errorf("docs/engines.md has no row\n%s", row)
			}
		}
	}
	if n := strings.Count(page, "| pauses |") + strings.Count(page, "| half-close |"); n != 2 {
		t.Errorf("docs/engines.md has %d rows of what transports lack", n)
	}
}
