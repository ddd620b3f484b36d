package config

import "fmt"

// FileBudget is how a limit of open files is divided: every user of
// descriptors that others can make grow has a bound of its own, so that what
// clients open never takes a file from log, state or peers.
type FileBudget struct {
	Process   int // listeners, event loops, files of the state that are being written; what Go needs
	Log       int // segments of the log
	Admin     int // connections of the administration HTTP server
	PeersIn   int // connections that other nodes, or strangers, make to the peer port
	PeersOut  int // connections to other nodes, of which Forwards carry clients' requests
	Forwards  int
	Forwarded int // streams of clients' requests from other nodes
	State     int // files of the state
	Shaking   int // connections in the handshake of TLS
	Clients   int // connections over all of listen.client, listen.unix and listen.resp
}

// Shares of a FileBudget. Those of connections are what is ever useful; where
// the limit is low, they shrink with it.
const (
	filesOfProcess   = 48
	filesOfAdmin     = 64
	filesOfPeersIn   = 512
	filesOfPeersOut  = 64 // beside Forwards
	filesOfForwarded = 1024
	filesOfShaking   = 4096
	filesOfState     = 1000 // at least, where the limit is not low
	filesOfStateMax  = 1 << 16
	clientsLeast     = 16 // fewer are not worth a start, unless fewer are wanted
)

// FileBudget divides a limit of open files; 0 stands for one that is not known,
// and is taken for high. Clients get concurrency.max_connections or, where that
// is less, what the others leave. The error says that the limit is too low to
// start.
func (c *Config) FileBudget(limit uint64) (FileBudget, error) {
	wanted := c.Concurrency.MaxConnections
	low := int(min(limit, 1<<30))
	if limit == 0 {
		low = 1 << 30
	}
	segments := int(min(c.Raft.LogSizeMax/c.Raft.LogSegmentSize, 1<<30))
	b := FileBudget{
		Process: filesOfProcess + 3*c.Network.EventLoops,
		Log:     segments + segments/2 + 8, // it outgrows its bound while the state is being written
		State:   min(filesOfState, low/4),
	}
	if c.Listen.Admin != "" {
		b.Admin = min(filesOfAdmin, low/32)
	}
	if c.Listen.Peer != "" {
		b.PeersIn = min(filesOfPeersIn, low/16)
		b.Forwards = min(c.Network.ConnectionPoolSize, max(low/32, 1))
		b.PeersOut = min(filesOfPeersOut, low/32) + b.Forwards
		b.Forwarded = min(filesOfForwarded, low/16)
	}
	if c.TLS.Mode != Off {
		b.Shaking = min(filesOfShaking, low/8)
	}
	left := low - b.taken()
	if least := min(wanted, clientsLeast); left < least {
		return b, fmt.Errorf("the limit of open files, %d, is too low: %d are needed in addition to client connections, and at least 1024 are recommended; raise it with ulimit -n or LimitNOFILE=", low, b.taken())
	}
	b.Clients = min(left, wanted)
	if limit > 0 {
		b.State = min(b.State+left-b.Clients, filesOfStateMax)
	}
	return b, nil
}

// taken is what is kept from clients.
func (b *FileBudget) taken() int {
	return b.Process + b.Log + b.Admin + b.PeersIn + b.PeersOut + b.Forwarded + b.Shaking + b.State
}

// Needed is the limit of open files at which clients get all the connections
// that are wanted.
func (b *FileBudget) Needed(wanted int) int {
	full := FileBudget{Process: b.Process, Log: b.Log, Admin: filesOfAdmin, PeersIn: filesOfPeersIn, PeersOut: filesOfPeersOut + b.Forwards, Forwarded: filesOfForwarded, State: filesOfState}
	if b.Shaking > 0 {
		full.Shaking = filesOfShaking
	}
	return full.taken() + wanted
}
