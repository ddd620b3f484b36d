//go:build !unix

package client

import "net"

// direct is not available on this system: the writer goroutine sends
// everything.
type direct struct{}

func newDirect(net.Conn) *direct { return nil }

func (*direct) write([]byte) (int, error) { return 0, nil }
