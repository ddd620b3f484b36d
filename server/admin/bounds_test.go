package admin

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// start runs an admin server with these bounds.
func start(t *testing.T, connections int, limit timeouts) *Server {
	t.Helper()
	s, err := listen("127.0.0.1:0", Source{
		Status:         func() ([]byte, error) { return []byte(`{"node":1}`), nil },
		Ready:          func() error { return nil },
		ConnectionsMax: connections,
	}, limit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = s.Shutdown(ctx)
	})
	return s
}

// send connects and sends text.
func send(t *testing.T, s *Server, text string) net.Conn {
	t.Helper()
	nc, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(time.Minute)) // a guard
	if _, err := io.WriteString(nc, text); err != nil {
		t.Fatal(err)
	}
	return nc
}

// status reads a response to its end, and then waits for the end of the
// connection.
func status(t *testing.T, nc net.Conn) int {
	t.Helper()
	r := bufio.NewReader(nc)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	if _, err := r.ReadByte(); err == nil {
		t.Error("there is more behind the response")
	}
	return resp.StatusCode
}

// A body that is announced and does not come holds no connection.
func TestBodyIsRefused(t *testing.T) {
	s := start(t, 0, timeoutsUsual)
	for _, request := range []string{
		"POST /status HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n",
		"GET /status HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n",
		"POST /status HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
	} {
		if code := status(t, send(t, s, request)); code != http.StatusRequestEntityTooLarge {
			t.Errorf("%.40q was answered %d", request, code)
		}
	}
}

// Silent connections, and requests that come slowly, end by themselves.
func TestSlowClientsAreClosed(t *testing.T) {
	s := start(t, 0, timeouts{header: 50 * time.Millisecond, read: 50 * time.Millisecond, write: time.Second, idle: 50 * time.Millisecond})
	for _, text := range []string{
		"", "GET /stat",
		"POST /debug/pprof/symbol HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n0x",
		"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", // and nothing further
	} {
		// A busy machine may send the text when it is too late already.
		if _, err := io.Copy(io.Discard, send(t, s, text)); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("after %.30q: %v", text, err)
		}
	}
}

// A profile takes longer than a request may. A busy machine may send the request, or
// the end of the answer, too late for small timeouts.
func TestProfileOutlastsTimeouts(t *testing.T) {
	for limit := 50 * time.Millisecond; ; limit *= 2 {
		s := start(t, 0, timeouts{header: limit, read: limit, write: limit, idle: time.Second})
		began, profile := time.Now(), 6*limit
		err := trace(s, profile)
		if err == nil {
			if took := time.Since(began); took < profile {
				t.Errorf("a trace of %v was cut off after %v", profile, took)
			}
			return
		}
		if limit > 3*time.Second {
			t.Fatalf("a trace of %v: %v", profile, err)
		}
	}
}

// trace asks for a trace of so long, and fails where it does not come as a whole.
func trace(s *Server, profile time.Duration) error {
	r, err := http.Get(fmt.Sprintf("http://%s/debug/pprof/trace?seconds=%g", s.Addr(), profile.Seconds()))
	if err != nil {
		return err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err == nil && (r.StatusCode != http.StatusOK || len(b) == 0) {
		err = fmt.Errorf("answered %d, %d bytes", r.StatusCode, len(b))
	}
	return err
}

func TestHeaderIsBounded(t *testing.T) {
	s := start(t, 0, timeoutsUsual)
	nc := send(t, s, "GET /status HTTP/1.1\r\nHost: x\r\nX: "+strings.Repeat("x", 64<<10)+"\r\n\r\n")
	if code := status(t, nc); code != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("answered %d", code)
	}
}

// A crowd of silent connections keeps nobody out: each further one takes the
// place of the one that has been silent for longest.
func TestCrowdGivesWay(t *testing.T) {
	const most = 4
	s := start(t, most, timeoutsUsual)
	var silent []net.Conn
	for range 3 * most {
		silent = append(silent, send(t, s, ""))
	}
	for range 3 {
		if code := status(t, send(t, s, "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")); code != http.StatusOK {
			t.Errorf("behind the crowd: %d", code)
		}
	}
	for _, nc := range silent[:2*most] {
		if _, err := io.Copy(io.Discard, nc); err != nil && !strings.Contains(err.Error(), "reset") {
			t.Errorf("one of the crowd: %v", err)
		}
	}
}
