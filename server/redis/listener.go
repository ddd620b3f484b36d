// Package redis serves the Redis protocol, RESP2 and RESP3, on a listener of
// package server. What clients send becomes native requests, and the native replies
// become those of Redis; package resp is the wire format. The comment at the top of
// conn.go says how.
package redis

import (
	"net"
	"sync"

	"github.com/proa-kv/proa/internal/lograte"
	"github.com/proa-kv/proa/internal/wrongport"
	"github.com/proa-kv/proa/protocol"
	"github.com/proa-kv/proa/server"
)

// scheme stands before the addresses of the protocol in a STATUS.
const scheme = "redis"

// Config configures the Redis protocol of a server.
type Config struct {
	// Redirect sends clients to the node that leads a key's shard.
	Redirect bool
	// TLS encrypts the connections; nil: it does not.
	TLS *server.TLS
}

// Listener serves the Redis protocol on a listener of a server.
type Listener struct {
	srv      *server.Server
	cfg      *server.Config // the server's
	backend  server.Backend
	redirect bool

	cursors cursorTable // of SCANs
	counter keyCounter

	foreigner lograte.Line // in the log, of strangers

	mu      sync.Mutex
	ignored [256]uint64 // calls of each command that CONFIG RESETSTAT has taken off
}

// Listen adds a listener of the Redis protocol to a server. It may be called several
// times before Serve.
func Listen(s *server.Server, address string, cfg Config) (net.Addr, error) {
	return s.ListenFor(New(s, cfg), address, "--resp-listen", server.WithTLS(cfg.TLS))
}

// New returns the Redis protocol of a server.
func New(s *server.Server, cfg Config) *Listener {
	loadHandlers()
	return &Listener{srv: s, cfg: s.Config(), backend: s.Backend(), redirect: cfg.Redirect}
}

// shardOf is the shard of a key.
func (l *Listener) shardOf(key []byte) int { return l.backend.ShardOf(protocol.Slot(key)) }

// Addrs returns the addresses of Listen.
func Addrs(s *server.Server) []net.Addr { return s.AddrsOf(scheme) }

// Scheme stands before the addresses of the protocol.
func (l *Listener) Scheme() string { return scheme }

// Port is the Redis port.
func (l *Listener) Port() wrongport.Port { return wrongport.Redis }

// Attach returns the Translator of a new connection.
func (l *Listener) Attach(c *server.Conn) server.Translator { return newConn(l, c) }
