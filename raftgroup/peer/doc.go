// Package peer is the transport between the nodes of a cluster: Raft messages
// of all shards, small reports, calls, snapshots and forwarded client streams,
// over TCP. docs/peer-protocol.md describes the bytes.
//
// # Connections
//
// Each node dials every peer of its address book, and sends on the connection
// it dialled; on the one it accepted it receives. So there are two Raft
// connections between two nodes, one for each direction. The alternative, one
// connection for both, needs a tie-break when two nodes dial at once, and both
// sides must agree on which connection died; here the sender alone decides,
// with nothing to agree on, and a path that works in one direction only is used
// in that direction. The cost is a second, mostly idle socket. Only replies to
// calls are sent in the reverse direction, because a caller's connection is the
// one that is known to work.
//
// A snapshot has a separate connection, so that it never delays a heartbeat. So
// does each forwarded client stream, which after the handshake contains only
// the client's bytes, and each call to an address without a known node, which
// is how a node asks to join.
//
// # The way of a message
//
// [Transport.Send] encodes a message straight into the peer's open frame, under
// the peer's lock, and allocates nothing. [Transport.Transmit] closes the frame
// and writes it to the socket on the spot, without ever waiting: waking a
// goroutine to do it costs more than the write. What the socket does not take
// is the business of the peer's writer goroutine. While that is busy the open
// frame stays open and collects what comes, so that a slow peer costs fewer
// and larger frames rather than many small buffers.
//
// An engine with an encoding of its own makes its frames itself, on several
// goroutines. [Transport.SendFrame] copies such a frame behind its header and writes
// it on the spot in the same way, under one lock and with one system call; while the
// writer goroutine is busy frames gather in buffers of frameBytesTarget. The
// receiver copies the payload once, for the engine to keep.
//
// Nothing waits for a peer: beyond [Config.QueueBytesMax], or without a
// connection, messages are dropped and [Handler.Unreachable] is called. Raft
// repeats the messages that are needed.
//
// # Locks
//
// peer.mu guards a peer's frames and its link, and is held across a write(2)
// that cannot wait, never across anything else that might. Transport.mu guards
// the address book and the sets of connections. No one holds both, and under
// alarms.mu nobody takes another. None is held while the handler runs.
package peer
