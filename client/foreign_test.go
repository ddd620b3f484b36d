package client

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/proa-kv/proa/protocol"
)

// TestForeignServers: what a server of another protocol answers is an error at once
// that says what it looks like, even where it waits for the end of a line and its
// answer comes byte by byte.
func TestForeignServers(t *testing.T) {
	for name, tt := range map[string]struct {
		answer string // to the first line
		want   string
	}{
		"Redis":               {"-ERR unknown command '$', with args beginning with: \r\n", "answers, but does not speak Proa's protocol (it looks like Redis)"},
		"HTTP":                {"HTTP/1.1 400 Bad Request\r\n\r\n", "(it looks like an HTTP server)"},
		"HTTP without a head": {"<!DOCTYPE HTML>\n<html lang=\"en\">\n", "(it looks like an HTTP server)"}, // of Python, for a request that it cannot read
		"gRPC":                {"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x05\x00\x00\x40\x00", "(it looks like an HTTP/2 server, as of gRPC)"},
		"MySQL":               {"\x4a\x00\x00\x00\x0a8.0.36-and-so-on", "(it looks like MySQL)"},
		"SSH":                 {"SSH-2.0-OpenSSH_9.6\r\n", "(it looks like an SSH server)"},
		"TLS":                 {"\x15\x03\x01\x00\x02\x02\x46", "the server requires TLS"},
		"something":           {"who are you?", `(its answer begins with "who`},
		"short":               {"?\n", `(its answer begins with "?\n")`},
		"hangs up":            {"", "closed the connection without an answer"},
		"other version":       {"\x10\x00\x00\x00\x02\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00", "the server speaks another version of Proa's protocol"},
		"sends requests":      {"\x10\x00\x00\x00\x01\x02\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00", "the server sent a request"},
		"four bytes":          {"<!DO", "(it looks like an HTTP server)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address := lineServer(t, func(nc net.Conn) {
				for i := range len(tt.answer) {
					_, _ = io.WriteString(nc, tt.answer[i:i+1])
				}
			})
			_, err := New(t.Context(), Config{Endpoints: []string{address}, Connections: 1, DialTimeout: time.Hour})
			if !errors.Is(err, ErrUnavailable) || !errors.Is(err, ErrHandshake) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v; want %s", err, tt.want)
			}
			if foreign := strings.Contains(tt.want, "("); errors.Is(err, ErrNotProa) != foreign {
				t.Errorf("%v: ErrNotProa: %v", err, !foreign)
			}
		})
	}
}

// lineServer serves connections: it answers the first line of each and closes it.
func lineServer(t *testing.T, answer func(net.Conn)) (address string) {
	t.Helper()
	return serveEach(t, func(nc net.Conn) {
		r := bufio.NewReader(nc)
		if _, err := r.ReadString('\n'); err == nil {
			_, _ = r.Discard(r.Buffered())
			answer(nc)
		}
	})
}

// serveEach has handle serve each connection, which is closed afterwards.
func serveEach(t *testing.T, handle func(net.Conn)) (address string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer nc.Close()
				handle(nc)
			}()
		}
	}()
	return ln.Addr().String()
}

// TestWrongPortOfProa: what a port of a Proa server says that is not for clients
// reaches the user.
func TestWrongPortOfProa(t *testing.T) {
	const text = "this is Proa's Redis port; Proa clients use 127.0.0.1:7400"
	f := newFake(t)
	f.hello = func(*fakeConn, *protocol.Hello) []byte { return errorFrame(protocol.StatusHandshake, 0, text) }
	_, err := New(t.Context(), Config{Endpoints: []string{f.address()}, Connections: 1, DialTimeout: time.Hour})
	if !errors.Is(err, ErrHandshake) || errors.Is(err, ErrNotProa) || !strings.Contains(err.Error(), text) {
		t.Error(err)
	}
	// The operation is that of the call: the text of an endpoint does not repeat it.
	e, ok := errors.AsType[*UnavailableError](err)
	if want := "proa: handshake refused: " + text; !ok || e.Endpoints[0].Err.Error() != want {
		t.Errorf("%v; want %s", err, want)
	}
}

// TestRedisThatWaits: Redis reads up to the first NUL, and does not see the end of a
// line behind it. So it leaves a HELLO unanswered, and is found out all the same.
func TestRedisThatWaits(t *testing.T) {
	address := serveEach(t, func(nc net.Conn) {
		b := make([]byte, 64)
		n, _ := nc.Read(b)
		if line, _, _ := strings.Cut(string(b[:n]), "\x00"); strings.Contains(line, "\n") {
			_, _ = io.WriteString(nc, "+PONG\r\n")
		}
		_, _ = io.Copy(io.Discard, nc)
	})
	for _, config := range []*tls.Config{nil, {}} {
		_, err := New(t.Context(), Config{Endpoints: []string{address}, DialTimeout: time.Hour, TLS: config})
		if !errors.Is(err, ErrNotProa) || !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "(it looks like Redis)") {
			t.Error(err)
		}
	}
}

// TestSoundingOutProa: a server of Proa that is slow to answer the HELLO answers a
// line of text, and that does not end the handshake.
func TestSoundingOutProa(t *testing.T) {
	for _, answer := range []string{
		"-ERR this is Proa's client port; Redis clients use 127.0.0.1:7403\r\n",
		string(protocol.AppendError(nil, 0, protocol.StatusProtocol, 0, "frame length exceeds the limit")), // as older ones do
	} {
		address := lineServer(t, func(nc net.Conn) { _, _ = io.WriteString(nc, answer) })
		c, err := newClient(Config{Endpoints: []string{address}})
		if err != nil {
			t.Fatal(err)
		}
		ended := false
		c.wg.Add(1)
		c.pool.endpoints[0].soundOut(t.Context(), func(error) { ended = true })
		if c.Close(); ended {
			t.Errorf("%q ends the handshake", answer)
		}
	}
}

// TestSilentServer: a server that accepts and says nothing is no more than that.
func TestSilentServer(t *testing.T) {
	f := newFake(t)
	f.hello = func(cn *fakeConn, m *protocol.Hello) []byte { _, _ = io.Copy(io.Discard, cn.nc); return nil }
	for timeout := 20 * time.Millisecond; ; timeout *= 2 { // in which a busy machine may not get to connect
		_, err := New(t.Context(), Config{Endpoints: []string{f.address()}, Connections: 1, DialTimeout: timeout})
		if !errors.Is(err, context.DeadlineExceeded) || timeout > 10*time.Second {
			t.Fatal(err)
		}
		if strings.Contains(err.Error(), "there was no answer to the handshake within "+timeout.String()) {
			return
		}
	}
}
