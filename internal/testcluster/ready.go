package testcluster

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/proa-kv/proa/protocol"
)

// freePort returns a TCP port of the loopback interface that nobody listens
// on. It lies below the ports that systems give to outgoing connections, so
// that while a killed server is down nobody can take its port by chance, least
// of all a client that connects to it and reaches itself.
//
// No port is returned twice: those of a cluster are all drawn before anything
// listens on them.
func freePort() (int, error) {
	var err error
	for range 100 {
		port := 20_000 + rand.IntN(10_000)
		if _, taken := drawn.LoadOrStore(port, true); taken {
			continue
		}
		var ln net.Listener
		if ln, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			return port, ln.Close()
		}
	}
	return 0, err
}

// drawn are the ports that freePort has looked at.
var drawn sync.Map

// FreeAddress returns a loopback address that nobody listens on and that no
// other call returns.
func FreeAddress(t testing.TB) string { t.Helper(); return freeAddress(t) }

const loopback = "127.0.0.1"

// freeAddress returns a loopback address with a free port.
func freeAddress(t testing.TB) string { t.Helper(); return freeAddressOf(t, loopback) }

// freeAddressOf returns an address of host. Only that of the loopback interface
// is known to be free.
func freeAddressOf(t testing.TB, host string) string {
	t.Helper()
	port, err := freePort()
	if err != nil {
		t.Fatalf("looking for a free port: %v", err)
	}
	return fmt.Sprintf("%s:%d", host, port)
}

// greet connects to address (host:port or unix:///path) and says HELLO.
func greet(ctx context.Context, address string) error {
	nc, err := dial(ctx, address)
	if err != nil {
		return err
	}
	return nc.Close()
}

// dial connects to address and says HELLO.
func dial(ctx context.Context, address string) (net.Conn, error) {
	network := "tcp"
	if path, ok := strings.CutPrefix(address, "unix://"); ok {
		network, address = "unix", path
	}
	var d net.Dialer
	nc, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		if err := nc.SetDeadline(deadline); err != nil {
			return nil, errors.Join(err, nc.Close())
		}
	}
	hello := protocol.Hello{VersionMin: protocol.Version, VersionMax: protocol.Version, Name: []byte("testcluster")}
	request := protocol.End(hello.AppendTo(protocol.Begin(nil, uint8(protocol.OpHello), 0, 1)), 0)
	if _, err := exchange(nc, request); err != nil {
		return nil, errors.Join(fmt.Errorf("HELLO: %w", err), nc.Close())
	}
	return nc, nil
}

// exchange sends one request and returns the body of its reply, or the error
// that it carries.
func exchange(nc net.Conn, request []byte) (body []byte, err error) {
	if _, err := nc.Write(request); err != nil {
		return nil, err
	}
	for {
		b := make([]byte, protocol.HeaderBytes)
		if _, err := io.ReadFull(nc, b); err != nil {
			return nil, err
		}
		length := binary.LittleEndian.Uint32(b)
		if length < protocol.HeaderBytes || length > protocol.FrameBytesMax {
			return nil, fmt.Errorf("a frame of %d bytes", length)
		}
		b = append(b, make([]byte, length-protocol.HeaderBytes)...)
		if _, err := io.ReadFull(nc, b[protocol.HeaderBytes:]); err != nil {
			return nil, err
		}
		f, _, _, err := protocol.Next(b, protocol.FrameBytesMax)
		if err != nil {
			return nil, err
		}
		if status := protocol.Status(f.Code); status != protocol.StatusOK {
			var e protocol.ErrorReply
			if err := e.Decode(f.Body); err != nil {
				return nil, fmt.Errorf("answered with status %d", f.Code)
			}
			return nil, fmt.Errorf("answered with status %d: %s", f.Code, e.Message)
		}
		body = append(body, f.Body...)
		if f.Flags&protocol.FlagMore == 0 {
			return body, nil
		}
	}
}

// opAdmin is the opcode of administrative requests. Their body is the name,
// with a u16 length, and the arguments.
const opAdmin = 16

// administer has the server at address carry out an administrative request.
func administer(ctx context.Context, address, verb string, args any) ([]byte, error) {
	var arguments []byte
	if args != nil {
		var err error
		if arguments, err = json.Marshal(args); err != nil {
			return nil, err
		}
	}
	nc, err := dial(ctx, address)
	if err != nil {
		return nil, err
	}
	defer nc.Close()
	request := protocol.Begin(nil, opAdmin, 0, 2)
	request = binary.LittleEndian.AppendUint16(request, uint16(len(verb)))
	request = append(append(request, verb...), arguments...)
	return exchange(nc, protocol.End(request, 0))
}

// pollInterval is the pause between two looks at something that this process
// cannot wait for: whether another process listens.
const pollInterval = 5 * time.Millisecond
