package testcluster

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"time"

	"github.com/proa-kv/proa/protocol"
)

// freePort returns a TCP port of the loopback interface that nobody listens
// on. It lies below the ports that systems give to outgoing connections, so
// that while a killed server is down nobody can take its port by chance, least
// of all a client that connects to it and reaches itself.
func freePort() (int, error) {
	var err error
	for range 100 {
		port := 20_000 + rand.IntN(10_000)
		var ln net.Listener
		if ln, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			return port, ln.Close()
		}
	}
	return 0, err
}

// greet connects to address (host:port or unix:///path) and says HELLO.
func greet(ctx context.Context, address string) error {
	network := "tcp"
	if path, ok := strings.CutPrefix(address, "unix://"); ok {
		network, address = "unix", path
	}
	var d net.Dialer
	nc, err := d.DialContext(ctx, network, address)
	if err != nil {
		return err
	}
	defer nc.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := nc.SetDeadline(deadline); err != nil {
			return err
		}
	}
	hello := protocol.Hello{VersionMin: protocol.Version, VersionMax: protocol.Version, Name: []byte("testcluster")}
	request := protocol.End(hello.AppendTo(protocol.Begin(nil, uint8(protocol.OpHello), 0, 1)), 0)
	if _, err := nc.Write(request); err != nil {
		return err
	}
	head := make([]byte, protocol.HeaderBytes)
	if _, err := io.ReadFull(nc, head); err != nil {
		return err
	}
	if status := protocol.Status(head[5]); status != protocol.StatusOK {
		return fmt.Errorf("HELLO was answered with %v", status)
	}
	_, err = io.CopyN(io.Discard, nc, int64(binary.LittleEndian.Uint32(head))-protocol.HeaderBytes)
	return err
}

// pollInterval is the pause between two looks at something that this process
// cannot wait for: whether another process listens.
const pollInterval = 5 * time.Millisecond
