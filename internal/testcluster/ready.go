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

// connect opens a client that knows the server alone.
func (n *Node) connect(ctx context.Context) (*client.Client, error) {
	return client.New(ctx, client.Config{Endpoints: []string{n.cfg.Address}, ForwardOnly: true, Name: "testcluster", User: n.cfg.User, Secret: n.cfg.Password})
}

// greet says HELLO to the server.
func (n *Node) greet(ctx context.Context) error {
	c, err := n.connect(ctx)
	if err != nil {
		return err
	}
	return c.Close()
}

// administer has the server carry out an administrative request.
func (n *Node) administer(ctx context.Context, verb string, args any) ([]byte, error) {
	var arguments []byte
	if args != nil {
		var err error
		if arguments, err = json.Marshal(args); err != nil {
			return nil, err
		}
	}
	c, err := n.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.Admin(ctx, verb, arguments)
}

// pollInterval is the pause between two looks at something that this process
// cannot wait for: whether another process listens.
const pollInterval = 5 * time.Millisecond
