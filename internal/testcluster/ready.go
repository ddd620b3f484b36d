package testcluster

import (
	"context"
	"encoding/json"
	"net"
	"testing"
	"time"

	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/internal/spawn"
)

const loopback = "127.0.0.1"

// FreeAddress returns a loopback address that nobody listens on and that no
// other call returns.
func FreeAddress(t testing.TB) string { t.Helper(); return freeAddressOf(t, loopback) }

// freeAddressOf returns an address of host. Only that of the loopback interface
// is known to be free.
func freeAddressOf(t testing.TB, host string) string {
	t.Helper()
	ports, err := spawn.FreePorts(1)
	if err != nil {
		t.Fatalf("looking for a free port: %v", err)
	}
	return net.JoinHostPort(host, ports[0])
}

// connect opens a client that knows one server alone, at address (host:port or
// unix:///path).
func connect(ctx context.Context, address string) (*client.Client, error) {
	return client.New(ctx, client.Config{Endpoints: []string{address}, ForwardOnly: true, Name: "testcluster"})
}

// greet says HELLO to the server at address.
func greet(ctx context.Context, address string) error {
	c, err := connect(ctx, address)
	if err != nil {
		return err
	}
	return c.Close()
}

// administer has the server at address carry out an administrative request.
func administer(ctx context.Context, address, verb string, args any) ([]byte, error) {
	var arguments []byte
	if args != nil {
		var err error
		if arguments, err = json.Marshal(args); err != nil {
			return nil, err
		}
	}
	c, err := connect(ctx, address)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.Admin(ctx, verb, arguments)
}

// pollInterval is the pause between two looks at something that this process
// cannot wait for: whether another process listens.
const pollInterval = 5 * time.Millisecond
