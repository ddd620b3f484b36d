// Package transport carries dragonboat's messages and snapshots over the connections that
// a node has to its peers anyway (Links): one port, one handshake, one protocol.
//
// Two kinds of frames do it. One has messages, see appendMessage; the other a chunk of a
// snapshot, see encodeChunk, and has a stream of its own, so that messages do not wait for
// snapshots. Who sends, to which deployment and in which version, the connection's
// handshake has said; that is in no frame of messages.
//
// dragonboat's targets are numbers of nodes. Addresses are the business of Links.
//
// What must hold: dragonboat's handlers are not called before Start, and none runs or is
// called after Close has returned; and they get nothing that makes dragonboat panic.
//
// # What dragonboat's users have met
//
// Most of it is a log that has lost what its replica had confirmed, at which dragonboat
// ends the process, with a stack and no sentence:
//
//	issue 254, 256, pull request 354
//	        a follower's log is gone, or its end ("invalid commitTo index"); it was asked
//	        for no panic, and declined. A replica must not go on in any case: it
//	        would vote anew. Place.Check finds it first, ErrBehind, and the engine stops
//	        the node in order: TestReplicaThatLostItsLog
//	issue 393
//	        the same after a restart, for want of one entry. What SaveRaftState has saved is
//	        durable: TestCrashEverywhere and TestNodeHosts of package logdb
//	issue 410
//	        a commit index beyond the log at a start ("got out of range state"). Entries and
//	        state of a step are written as one: TestCrashEverywhere; and a snapshot's
//	        index is the lower bound: TestCommitCoversSnapshot
//	issue 381
//	        an error of a state machine ends the process. The engine's returns none, and
//	        stops the node in order: TestStateFails
package transport

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"

	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/raftio"
	pb "github.com/lni/dragonboat/v4/raftpb"
)

// Links are a node's connections to its peers. Their methods may be called from any
// goroutine.
type Links interface {
	// Connected returns nil if messages can be sent to a node now.
	Connected(node uint64) error
	// Send sends a frame of messages to a node, and may keep it. Frames arrive in
	// order or not at all; after an error this one does not.
	Send(node uint64, frame []byte) error
	// Stream opens a stream for the chunks of a snapshot.
	Stream(ctx context.Context, node uint64) (Stream, error)
}

// Stream brings a snapshot's chunks to a node.
type Stream interface {
	// Send sends a frame with a chunk, and waits until there is room for another.
	// It fails when the other side wants no more.
	Send(frame []byte) error
	// Close ends the stream.
	Close()
}

var (
	// ErrDamaged says that a frame is none that a correct node sends. The connection
	// must end.
	ErrDamaged = errors.New("damaged frame")

	// ErrTarget says that a target is no number of a node.
	ErrTarget = errors.New("not the number of a node")

	// ErrRefused says that dragonboat could not keep a chunk of a snapshot.
	ErrRefused = errors.New("the snapshot cannot be kept")

	// ErrTooLarge says that a message has too many entries for a frame.
	ErrTooLarge = errors.New("message too large")
)

// Target returns the target that is a node.
func Target(node uint64) string { return strconv.FormatUint(node, 10) }

func parseTarget(target string) (uint64, error) {
	node, err := strconv.ParseUint(target, 10, 64)
	if err != nil || node == 0 {
		return 0, fmt.Errorf("%w: %q", ErrTarget, target)
	}
	return node, nil
}

// Transport is the transport of one NodeHost, for whose configuration it is the factory.
// Its methods may be called from any goroutine.
type Transport struct {
	links       Links
	watch       Watcher
	sources     sources
	unconfirmed unconfirmed

	// inUse is held for reading while a handler runs, and taken for writing before
	// running changes.
	inUse      sync.RWMutex
	running    bool
	deployment uint64
	messages   raftio.MessageHandler
	chunks     raftio.ChunkHandler
}

var (
	_ config.TransportFactory = (*Transport)(nil)
	_ raftio.ITransport       = (*Transport)(nil)
)

// New returns a transport over links. watch sees what goes through it; nil: nobody does.
func New(links Links, watch Watcher) *Transport { return &Transport{links: links, watch: watch} }

// Watcher sees the messages between nodes on their way. Its methods may be called at the
// same time.
type Watcher interface {
	// Received returns those of the messages of a node that dragonboat is to get, in the
	// same slice. After an error it gets none, and Receive returns the error.
	Received(from uint64, messages []pb.Message) ([]pb.Message, error)
	// Sending sees messages before they are sent to a node.
	Sending(node uint64, messages []pb.Message)
}

// Create implements config.TransportFactory.
func (t *Transport) Create(c config.NodeHostConfig, messages raftio.MessageHandler, chunks raftio.ChunkHandler) raftio.ITransport {
	t.deployment, t.messages, t.chunks = c.GetDeploymentID(), messages, chunks
	return t
}

// Validate implements config.TransportFactory: addresses are numbers of nodes.
func (t *Transport) Validate(address string) bool {
	_, err := parseTarget(address)
	return err == nil
}

// Name implements raftio.ITransport.
func (t *Transport) Name() string { return "proa" }

// Start implements raftio.ITransport.
func (t *Transport) Start() error {
	t.inUse.Lock()
	defer t.inUse.Unlock()
	t.running = true
	return nil
}

// Close implements raftio.ITransport.
func (t *Transport) Close() error {
	t.inUse.Lock()
	defer t.inUse.Unlock()
	t.running = false
	return nil
}

// Receive takes in a frame of messages from a node. The frame is dragonboat's from then on.
func (t *Transport) Receive(from uint64, frame []byte) error {
	requests, err := decodeMessages(frame)
	if err != nil {
		return err
	}
	kept := requests[:0]
	for i := range requests {
		m := &requests[i]
		if err := checkMessage(m); err != nil {
			return err
		}
		if m.Type != pb.SnapshotReceived || t.unconfirmed.take(from) {
			kept = append(kept, *m)
		}
	}
	requests = kept
	if t.watch != nil {
		if requests, err = t.watch.Received(from, requests); err != nil {
			return err
		}
	}
	t.deliver(from, requests)
	return nil
}

// Deliver hands over messages of this node to itself.
func (t *Transport) Deliver(node uint64, requests []pb.Message) { t.deliver(node, requests) }

func (t *Transport) deliver(from uint64, requests []pb.Message) {
	t.inUse.RLock()
	defer t.inUse.RUnlock()
	if t.running && len(requests) > 0 {
		t.messages(pb.MessageBatch{
			Requests: requests, DeploymentId: t.deployment,
			SourceAddress: t.sources.address(from, requests), BinVer: raftio.TransportBinVersion,
		})
	}
}

// Send sends messages to a node. They need not arrive.
func (t *Transport) Send(node uint64, ms []pb.Message) error {
	if t.watch != nil {
		t.watch.Sending(node, ms)
	}
	for len(ms) > 0 {
		frame, n, err := encodeMessages(ms)
		if err != nil {
			return err
		}
		if err := t.links.Send(node, frame); err != nil {
			return err
		}
		ms = ms[n:]
	}
	return nil
}

// ReceiveChunk takes in a frame with a chunk that accept has nothing against. wanted says
// whether the stream may go on.
//
// dragonboat keeps chunks in this goroutine. It panics where it cannot: because no such
// replica was ever started here, as on a node that was wiped while it was sent a
// snapshot, or because the disk fails. That ends the stream, with ErrRefused.
func (t *Transport) ReceiveChunk(frame []byte, accept func(*pb.Chunk) error) (wanted bool, err error) {
	defer func() {
		if reason := recover(); reason != nil {
			wanted, err = false, fmt.Errorf("%w: %v", ErrRefused, reason)
		}
	}()
	c, err := decodeChunk(frame)
	if err == nil {
		err = checkChunk(&c)
	}
	if err == nil {
		err = accept(&c)
	}
	if err != nil {
		return false, err
	}
	return t.keepChunk(c), nil
}

func (t *Transport) keepChunk(c pb.Chunk) bool {
	t.inUse.RLock()
	defer t.inUse.RUnlock()
	return t.running && t.chunks(c)
}

// DropSnapshot has dragonboat forget the chunks of a snapshot, of which last is the one
// that it was given last. It would keep them for ninety seconds or more, and one of its few
// places for snapshots with them. It knows no call for that, but it does so where a
// snapshot's end does not fit the rest: a byte that is none. Where that completes a block
// of data which is damaged itself, it is sent again.
func (t *Transport) DropSnapshot(last pb.Chunk) {
	defer func() { _ = recover() }() // see ReceiveChunk; then it is left to itself
	c := last
	c.ChunkCount, c.FileChunkCount = pb.LastChunkCount, pb.LastChunkCount
	c.Data, c.ChunkSize = []byte{0}, 1
	for range endsMax {
		c.ChunkId++
		c.FileChunkId = c.ChunkId
		t.keepChunk(c)
	}
}

// endsMax is one more than the blocks of data, of 2 MiB each, that dragonboat may have of a
// stream without having looked at them, after a chunk of less than two blocks.
const endsMax = 3

// GetConnection implements raftio.ITransport.
func (t *Transport) GetConnection(_ context.Context, target string) (raftio.IConnection, error) {
	node, err := parseTarget(target)
	if err != nil {
		return nil, err
	}
	return &connection{transport: t, node: node}, t.links.Connected(node)
}

// GetSnapshotConnection implements raftio.ITransport.
func (t *Transport) GetSnapshotConnection(ctx context.Context, target string) (raftio.ISnapshotConnection, error) {
	node, err := parseTarget(target)
	if err != nil {
		return nil, err
	}
	s, err := t.links.Stream(ctx, node)
	if err != nil {
		return nil, err
	}
	t.unconfirmed.add(node)
	return snapshotConnection{s}, nil
}

// connection sends messages to a node, from one goroutine at a time.
type connection struct {
	transport *Transport
	node      uint64
}

// Close implements raftio.IConnection. The connection that it is about stays.
func (c *connection) Close() {}

// SendMessageBatch implements raftio.IConnection.
func (c *connection) SendMessageBatch(b pb.MessageBatch) error {
	return c.transport.Send(c.node, b.Requests)
}

// snapshotConnection sends the chunks of a snapshot.
type snapshotConnection struct{ stream Stream }

// Close implements raftio.ISnapshotConnection.
func (c snapshotConnection) Close() { c.stream.Close() }

// SendChunk implements raftio.ISnapshotConnection.
func (c snapshotConnection) SendChunk(chunk pb.Chunk) error {
	return c.stream.Send(encodeChunk(&chunk))
}
