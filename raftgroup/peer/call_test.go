package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// echo answers "echo", fails on "fail" and hangs on "hang" until its context
// ends, which it tells on ended.
func echo(started, ended chan string) func(context.Context, Identity, string, []byte) ([]byte, error) {
	return func(ctx context.Context, from Identity, verb string, body []byte) ([]byte, error) {
		switch verb {
		case "echo":
			return body, nil
		case "large":
			return make([]byte, CallBytesMax+len(body)), nil
		case "who":
			return fmt.Appendf(nil, "%d/%d/%d", from.Cluster, from.Node, from.UID), nil
		case "hang":
			started <- string(body)
			<-ctx.Done()
			ended <- string(body)
			return nil, ctx.Err()
		}
		return nil, errors.New("this node refuses " + verb)
	}
}

func echoNode(t testing.TB, id uint64, setup func(*Config)) (n *testNode, started, ended chan string) {
	started, ended = make(chan string, 1000), make(chan string, 1000)
	return startNode(t, id, func(c *Config, h *testHandler) {
		h.call = echo(started, ended)
		if setup != nil {
			setup(c)
		}
	}), started, ended
}

func TestCalls(t *testing.T) {
	a := startNode(t, 1, nil)
	b, _, _ := echoNode(t, 2, nil)
	if _, err := a.Call(t.Context(), 2, "echo", nil); !errors.Is(err, ErrUnknownPeer) {
		t.Fatal(err)
	}
	join(t, a, b)
	large := bytes.Repeat([]byte("x"), CallBytesMax)
	for _, body := range [][]byte{nil, []byte("hello"), large} {
		got, err := a.Call(t.Context(), 2, "echo", body)
		if err != nil || !bytes.Equal(got, body) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
		id, got, err := a.CallAddress(t.Context(), b.address(), "echo", body)
		if err != nil || !bytes.Equal(got, body) || id != identityOf(2) {
			t.Fatalf("%+v, %d bytes, %v", id, len(got), err)
		}
	}
	if got, err := a.Call(t.Context(), 2, "who", nil); err != nil || string(got) != "77/1/1001" {
		t.Fatal(string(got), err)
	}
	if got, err := a.Call(t.Context(), 2, "large", nil); err != nil || len(got) != CallBytesMax {
		t.Fatal(len(got), err)
	}
	var remote *RemoteError
	if _, err := a.Call(t.Context(), 2, "large", []byte("+")); !errors.As(err, &remote) || !strings.Contains(err.Error(), "limit") {
		t.Fatal(err)
	}
	if _, err := a.Call(t.Context(), 2, "fail", nil); !errors.As(err, &remote) || remote.Text != "this node refuses fail" {
		t.Fatal(err)
	}
	if _, _, err := a.CallAddress(t.Context(), b.address(), "fail", nil); !errors.As(err, &remote) {
		t.Fatal(err)
	}
	for _, tooLarge := range []struct {
		verb string
		body []byte
	}{{"", nil}, {strings.Repeat("v", VerbBytesMax+1), nil}, {"echo", append(large, 'x')}} {
		if _, err := a.Call(t.Context(), 2, tooLarge.verb, tooLarge.body); !errors.Is(err, ErrTooLarge) {
			t.Fatal(err)
		}
		if _, _, err := a.CallAddress(t.Context(), b.address(), tooLarge.verb, tooLarge.body); !errors.Is(err, ErrTooLarge) {
			t.Fatal(err)
		}
	}
}

// The handler's context ends with the caller's deadline.
func TestCallTimeout(t *testing.T) {
	a := startNode(t, 1, nil)
	b, started, ended := echoNode(t, 2, nil)
	join(t, a, b)
	for i, ask := range []func(context.Context) error{
		func(ctx context.Context) error { _, err := a.Call(ctx, 2, "hang", nil); return err },
		func(ctx context.Context) error {
			_, _, err := a.CallAddress(ctx, b.address(), "hang", nil)
			return err
		},
	} {
		inTime(t, func(timeout time.Duration) error {
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			err := ask(ctx)
			cancel()
			// The handler's context may end first; its error then comes back.
			var remote *RemoteError
			if !errors.Is(err, context.DeadlineExceeded) && !errors.As(err, &remote) {
				t.Fatal(i, err)
			}
			if len(started) == 0 {
				return errors.New("the handler was not called in time")
			}
			return nil
		})
		for len(started) > 0 {
			<-started
			receive(t, ended)
		}
	}
	a.peer(2).mu.Lock()
	defer a.peer(2).mu.Unlock()
	if n := a.peer(2).calls.Len(); n != 0 {
		t.Fatalf("%d calls are remembered", n)
	}
}

// A call whose connection breaks has an unknown outcome, and its handler's
// context ends.
func TestCallsEndWithTheConnection(t *testing.T) {
	a := startNode(t, 1, nil)
	b, started, ended := echoNode(t, 2, nil)
	join(t, a, b)
	result := make(chan error, 2)
	go func() { _, err := a.Call(t.Context(), 2, "hang", nil); result <- err }()
	receive(t, started)
	a.peer(2).mu.Lock()
	a.peer(2).link.conn.Close()
	a.peer(2).mu.Unlock()
	if err := receive(t, result); !errors.Is(err, ErrConnectionLost) {
		t.Fatal(err)
	}
	receive(t, ended)

	ctx, cancel := context.WithCancel(t.Context())
	go func() { _, _, err := a.CallAddress(ctx, b.address(), "hang", nil); result <- err }()
	receive(t, started)
	cancel()
	if err := receive(t, result); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	receive(t, ended)

	go func() { _, _, err := a.CallAddress(t.Context(), b.address(), "hang", nil); result <- err }()
	receive(t, started)
	b.Close()
	if err := receive(t, result); !errors.Is(err, ErrConnectionLost) {
		t.Fatal(err)
	}
}

// A caller waits past CallsPerPeerMax, and a peer refuses past CallsRunningMax.
func TestCallsAreBounded(t *testing.T) {
	a := startNode(t, 1, nil)
	b, started, ended := echoNode(t, 2, nil)
	join(t, a, b)
	for range CallsRunningMax / CallsPerPeerMax {
		ctx, cancel := context.WithCancel(t.Context())
		var callers sync.WaitGroup
		for range CallsPerPeerMax {
			callers.Go(func() { a.Call(ctx, 2, "hang", nil) })
		}
		for range CallsPerPeerMax {
			receive(t, started)
		}
		short, stop := context.WithTimeout(t.Context(), 10*time.Millisecond)
		if _, err := a.Call(short, 2, "echo", nil); !errors.Is(err, ErrBusy) {
			t.Fatal(err)
		}
		stop()
		// A caller that gives up has a free place again here, but not there.
		cancel()
		callers.Wait()
	}
	if _, err := a.Call(t.Context(), 2, "echo", nil); !errors.Is(err, ErrBusy) {
		t.Fatal(err)
	}
	b.RemovePeer(1) // ends the connection, and thereby the calls
	for range CallsRunningMax {
		receive(t, ended)
	}
}

// A node without a cluster can call, and be called, and nothing else.
func TestStrangers(t *testing.T) {
	b, started, _ := echoNode(t, 2, func(c *Config) { c.StrangerCallsMax, c.HandshakeTimeout = 1, time.Second })
	b.h.admit = func(id Identity) error {
		if id.Cluster == 0 {
			t.Errorf("asked to admit %+v", id)
		}
		return nil
	}
	stranger, _, _ := echoNode(t, 1, nil)
	stranger.SetIdentity(Identity{UID: 5, Peer: "x:1"})
	id, got, err := stranger.CallAddress(t.Context(), b.address(), "who", nil)
	if err != nil || string(got) != "0/0/5" || id != identityOf(2) {
		t.Fatalf("%+v, %s, %v", id, got, err)
	}
	if _, got, err = b.CallAddress(t.Context(), stranger.address(), "who", nil); err != nil || string(got) != "77/2/1002" {
		t.Fatal(string(got), err)
	}
	if _, _, err = stranger.CallAddress(t.Context(), b.address(), "echo", make([]byte, StrangerCallBytesMax)); err != nil {
		t.Fatal(err)
	}
	if _, _, err = stranger.CallAddress(t.Context(), b.address(), "echo", make([]byte, StrangerCallBytesMax+1)); !errors.Is(err, ErrTooLarge) {
		t.Fatal(err)
	}
	// One that does not keep to it loses its connection.
	c := rawPeer(t, b, kindCall, Identity{})
	request := encodeCall(&call{id: 1, verb: strings.Repeat("v", VerbBytesMax), body: make([]byte, StrangerCallBytesMax+1)})
	defer request.Release()
	c.Write(request.B)
	closedByPeer(t, c)

	go stranger.CallAddress(t.Context(), b.address(), "hang", nil)
	receive(t, started)
	if _, _, err = stranger.CallAddress(t.Context(), b.address(), "echo", nil); !errors.Is(err, ErrBusy) {
		t.Fatal(err)
	}
	if err = stranger.SendSnapshot(t.Context(), 2, nil, nil); !errors.Is(err, ErrUnknownPeer) {
		t.Fatal(err)
	}
	stranger.SetPeer(2, b.address())
	var refused *RefusedError
	if _, err = stranger.DialClient(t.Context(), 2); !errors.As(err, &refused) {
		t.Fatal(err)
	}
}

func TestForwardedClientStream(t *testing.T) {
	served := make(chan uint64, 1)
	b := startNode(t, 2, func(_ *Config, h *testHandler) {
		h.client = func(from uint64, c net.Conn) {
			defer c.Close()
			served <- from
			c.Write([]byte("hello before you speak "))
			io.Copy(c, c)
		}
	})
	a := startNode(t, 1, nil)
	if _, err := a.DialClient(t.Context(), 2); !errors.Is(err, ErrUnknownPeer) {
		t.Fatal(err)
	}
	a.SetPeer(2, b.address())
	c, err := a.DialClient(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	c.Write([]byte("client bytes"))
	c.(*net.TCPConn).CloseWrite()
	got, err := io.ReadAll(c)
	if err != nil || string(got) != "hello before you speak client bytes" {
		t.Fatalf("%q, %v", got, err)
	}
	if from := receive(t, served); from != 1 {
		t.Fatal(from)
	}
}

// Close ends a stream that the handler still serves.
func TestCloseEndsClientStreams(t *testing.T) {
	b := startNode(t, 2, func(_ *Config, h *testHandler) {
		h.client = func(_ uint64, c net.Conn) { defer c.Close(); io.Copy(io.Discard, c) }
	})
	a := startNode(t, 1, nil)
	a.SetPeer(2, b.address())
	c, err := a.DialClient(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b.Close()
	closedByPeer(t, c)
}
