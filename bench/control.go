package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/protocol"
)

// control is a connection for one question at a time, beside those that make
// the load. It is not safe for concurrent use.
type control struct {
	conn    net.Conn
	timeout time.Duration
	hello   protocol.HelloReply
	id      uint64
	buf     []byte
}

// dialControl connects and greets.
func dialControl(ctx context.Context, address string, timeout time.Duration) (*control, error) {
	network, at := "tcp", address
	if path, ok := strings.CutPrefix(address, "unix://"); ok {
		network, at = "unix", path
	}
	d := net.Dialer{Timeout: timeout}
	conn, err := d.DialContext(ctx, network, at)
	if err != nil {
		return nil, err
	}
	c := &control{conn: conn, timeout: timeout}
	m := protocol.Hello{VersionMin: protocol.Version, VersionMax: protocol.Version, Name: []byte(clientName)}
	body, err := c.ask(protocol.OpHello, m.AppendTo(nil))
	if err == nil {
		err = c.hello.Decode(body)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", address, err), conn.Close())
	}
	c.hello.ServerVersion = []byte(string(c.hello.ServerVersion)) // it outlives the buffer
	return c, nil
}

func (c *control) close() error { return c.conn.Close() }

// ask sends a request and returns the body of its reply, which is valid until
// the next one.
func (c *control) ask(op protocol.Opcode, body []byte) ([]byte, error) {
	c.id++
	frame := protocol.End(append(protocol.Begin(nil, uint8(op), 0, c.id), body...), 0)
	if err := c.conn.SetDeadline(time.Now().Add(c.timeout)); err != nil {
		return nil, err
	}
	if _, err := c.conn.Write(frame); err != nil {
		return nil, err
	}
	for {
		f, err := c.receive()
		if err != nil {
			return nil, fmt.Errorf("waiting for the reply to %v: %w", op, err)
		}
		s := protocol.Status(f.Code)
		switch {
		case f.ID != c.id && f.ID != 0:
			return nil, fmt.Errorf("%w: the reply to %v has another id", ErrProtocol, op)
		case s == protocol.StatusOK:
			return f.Body, nil
		case f.ID == 0 && s.Outcome() == protocol.Done:
			continue // a notice
		}
		message, err := errorMessage(&f)
		if err != nil {
			return nil, err
		}
		if s == protocol.StatusHandshake {
			return nil, fmt.Errorf("%w: %s", client.ErrHandshake, message)
		}
		return nil, fmt.Errorf("%v answered with %v: %s", op, s, message)
	}
}

// receive reads one frame.
func (c *control) receive() (f protocol.Frame, err error) {
	have := 0
	for need := protocol.HeaderBytes; ; {
		if cap(c.buf) < need {
			c.buf = append(make([]byte, 0, need), c.buf[:have]...)
		}
		c.buf = c.buf[:need]
		if _, err := io.ReadFull(c.conn, c.buf[have:]); err != nil {
			if errors.Is(err, io.EOF) {
				err = ErrClosed
			}
			return f, err
		}
		have = need
		var n int
		f, n, need, err = protocol.Next(c.buf, protocol.FrameBytesMax)
		if err != nil {
			return f, fmt.Errorf("%w: %w", ErrProtocol, err)
		}
		if n > 0 {
			return f, nil
		}
	}
}

// routes asks who serves what.
func (c *control) routes() (*protocol.RoutesReply, error) {
	body, err := c.ask(protocol.OpRoutes, nil)
	if err != nil {
		return nil, err
	}
	m := new(protocol.RoutesReply)
	if err := m.Decode(append([]byte(nil), body...)); err != nil {
		return nil, fmt.Errorf("%w: ROUTES: %w", ErrProtocol, err)
	}
	return m, nil
}

// serverStatus is what of a STATUS is of use here. A server of another version
// may leave out any of it.
type serverStatus struct {
	Server struct {
		UptimeMillis int64 `json:"uptime_ms"`
		CPUMicros    int64 `json:"cpu_us"`
	} `json:"server"`
	Node struct {
		Fsyncs      uint64  `json:"fsyncs"`
		FsyncMicros float64 `json:"fsync_mean_us"`
	} `json:"node"`
}

func (c *control) status() (s serverStatus, err error) {
	body, err := c.ask(protocol.OpStatus, nil)
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal(body, &s)
}
