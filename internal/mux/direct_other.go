//go:build !unix

package mux

import "net"

// Direct is not available on this system: the writer goroutine sends
// everything.
type Direct struct{}

// NewDirect returns nil.
func NewDirect(net.Conn) *Direct { return nil }

// Write is never called.
func (*Direct) Write([]byte) (int, error) { return 0, nil }

// Keeps is never called.
func (*Direct) Keeps() bool { return false }
