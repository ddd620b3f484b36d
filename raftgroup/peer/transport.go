package peer

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/proa-kv/proa/internal/lograte"
)

// Handler is what a node does with what its peers send. Its methods may be
// called at the same time, for different peers and for one.
type Handler interface {
	// Recognize decides whether a peer, whose identity a handshake brought, is
	// the node that it says it is: for every connection in either direction but
	// those of strangers (see Call), before anything is done for the peer's
	// sake. An error refuses the peer; its text is the sentence that the other
	// side gets to see, at most 512 bytes of it.
	Recognize(id Identity) error

	// Admit decides about a peer that has been recognized, and whose node does
	// not run elsewhere as far as can be told; so does its error.
	Admit(id Identity) error

	// JoinToken returns the join token of the cluster, or the one that this
	// node was given to join or to found one; empty: none.
	JoinToken() string

	// Refused tells that a node, which has proven its key, refuses this one for
	// the reason of code.
	Refused(by Identity, code Code, reason string)

	// Messages hands over the messages of one frame, in order. It is called on
	// the connection's goroutine, which may then do the work itself; further
	// messages of that peer wait meanwhile. The slice is valid during the
	// call; entries, their data and contexts belong to the handler afterwards.
	Messages(from uint64, messages []Message)

	// Frame hands over a frame of SendFrame, in order with messages; it is called
	// as Messages is. payload belongs to the handler. An error ends the connection,
	// and the log has its text.
	Frame(from uint64, payload []byte) error

	// Report hands over what a peer said of itself; body is valid during the
	// call.
	Report(from uint64, body []byte)

	// Unreachable tells that messages to a node were dropped, or may have been
	// lost with a connection. It comes once for a burst, on a goroutine of the
	// transport, never from inside Send or Transmit.
	Unreachable(node uint64)

	// Call answers a request, at most CallBytesMax bytes; more is an error for
	// the caller. It runs on its own goroutine, and at most CallsRunningMax do
	// for one peer. body belongs to it. ctx ends with the caller's deadline or
	// connection. An error's text is sent to the caller. If from.Cluster is 0
	// the caller is a stranger: a node without a cluster that nobody has
	// admitted; the handler refuses what strangers may not ask.
	Call(ctx context.Context, from Identity, verb string, body []byte) ([]byte, error)

	// Snapshot receives one transfer, on a goroutine of its own. It must call
	// s.Resume first, and then s.Next until io.EOF. When it returns nil the
	// sender learns that the snapshot is installed, else the error's text.
	// header belongs to it.
	Snapshot(from uint64, header []byte, s *Incoming) error

	// ServeClient takes over a forwarded client stream, and closes it. It may
	// serve it before it returns or go on afterwards.
	ServeClient(from uint64, c net.Conn)
}

// Config configures a Transport. The zero value of a field stands for its
// default.
type Config struct {
	// Listen is the address to accept peers on, host:port. Default ":7401".
	Listen string
	// Logger gets what operators should know. Default: nothing is logged.
	Logger *slog.Logger

	// HandshakeTimeout bounds connecting and shaking hands. Default 5 s.
	HandshakeTimeout time.Duration
	// ReconnectMin and ReconnectMax bound the time between two attempts to
	// connect to a peer. It doubles with each, and a random part of up to half
	// is taken off, so that nodes do not come all at once. Defaults 1 s, 60 s.
	ReconnectMin, ReconnectMax time.Duration
	// WriteTimeout is how long a connection may accept no byte of what is to
	// be sent before it counts as dead. Default 10 s.
	WriteTimeout time.Duration
	// SilenceTimeout is how long a peer that has sent a report may send
	// nothing before its connection counts as dead; the same holds for
	// snapshots. Default 10 s.
	SilenceTimeout time.Duration

	// QueueBytesMax bounds the bytes that wait for one peer; a single message
	// may exceed it where nothing else waits. Their buffers take up to twice
	// as much. Default 64 MiB.
	QueueBytesMax int
	// SnapshotBytesPerSecond bounds all outgoing snapshots together; they take
	// turns. Default 0: not bounded.
	SnapshotBytesPerSecond int64
	// SnapshotsIn is how many snapshots are received at a time; others wait
	// for their turn. Default 2.
	SnapshotsIn int
	// StrangerCallsMax is how many calls on connections of their own run at a
	// time; others wait for HandshakeTimeout at most. Default 16.
	StrangerCallsMax int

	// InboundMax bounds the accepted connections of all kinds that the transport
	// serves; one more is closed at once. Default 512.
	InboundMax int

	// Foreign is asked what to answer to a connection that is no peer's, whose
	// first bytes are these; nil for nothing. more says that it could tell from
	// more of them. It may be called concurrently. Default: nothing is answered.
	Foreign func(first []byte) (answer []byte, more bool)

	// VersionMax is the highest peer protocol version to speak, for the time
	// of a rolling upgrade. Default 0: all this program knows.
	VersionMax uint16

	// Secret is the cluster secret, at least SecretBytesMin bytes: nodes that do not prove
	// to know it are refused. With SecretOptional they are not, and the log says so: for the
	// time in which nodes are given the secret. Default: none.
	Secret         string
	SecretOptional bool

	// Engine is the name of the node's Raft engine, at most 32 bytes, while its
	// identity does not name one: nodes with another refuse it. Default "etcd".
	Engine string

	// Dial opens a connection to an address. Default: a net.Dialer's. Where
	// the connection is a syscall.Conn, Transmit writes to the socket itself.
	Dial func(ctx context.Context, address string) (net.Conn, error)
}

func (c Config) withDefaults() (Config, error) {
	if c.VersionMax > versionNewest {
		return c, fmt.Errorf("peer: protocol version %d is unknown; this program supports %d to %d", c.VersionMax, versionOldest, versionNewest)
	}
	if c.ReconnectMax != 0 && c.ReconnectMax < c.ReconnectMin {
		return c, fmt.Errorf("peer: the maximum reconnect interval, %v, is below the minimum, %v", c.ReconnectMax, c.ReconnectMin)
	}
	if min(c.HandshakeTimeout, c.ReconnectMin, c.ReconnectMax, c.WriteTimeout, c.SilenceTimeout) < 0 ||
		min(int64(c.QueueBytesMax), c.SnapshotBytesPerSecond, int64(c.SnapshotsIn), int64(c.StrangerCallsMax), int64(c.InboundMax)) < 0 {
		return c, errors.New("peer: times, sizes and numbers must not be negative")
	}
	if n := len(c.Secret); n > 0 && n < SecretBytesMin {
		return c, fmt.Errorf("peer: the cluster secret has %d bytes; at least %d are required", n, SecretBytesMin)
	}
	if len(c.Engine) > engineBytesMax {
		return c, fmt.Errorf("peer: the name of a Raft engine has %d bytes; the limit is %d", len(c.Engine), engineBytesMax)
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Dial == nil {
		var d net.Dialer
		c.Dial = func(ctx context.Context, address string) (net.Conn, error) {
			return d.DialContext(ctx, "tcp", address)
		}
	}
	c.Listen = cmp.Or(c.Listen, ":7401")
	c.HandshakeTimeout = cmp.Or(c.HandshakeTimeout, 5*time.Second)
	c.ReconnectMin = cmp.Or(c.ReconnectMin, time.Second)
	c.ReconnectMax = cmp.Or(c.ReconnectMax, max(c.ReconnectMin, time.Minute))
	c.WriteTimeout = cmp.Or(c.WriteTimeout, 10*time.Second)
	c.SilenceTimeout = cmp.Or(c.SilenceTimeout, 10*time.Second)
	c.QueueBytesMax = cmp.Or(c.QueueBytesMax, 64<<20)
	c.SnapshotsIn = cmp.Or(c.SnapshotsIn, 2)
	c.StrangerCallsMax = cmp.Or(c.StrangerCallsMax, 16)
	c.InboundMax = cmp.Or(c.InboundMax, 512)
	c.VersionMax = cmp.Or(c.VersionMax, versionNewest)
	c.Engine = cmp.Or(c.Engine, engineEtcd)
	return c, nil
}

// Transport is one node's end of the connections to its peers. All methods are
// safe for concurrent use, except that Send and Transmit are for one thread at a
// time.
type Transport struct {
	cfg      Config
	log      *slog.Logger
	listener net.Listener
	began    time.Time // what peers' times are counted from
	pacer    pacer

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	key     atomic.Pointer[ed25519.PrivateKey] // nil: none
	started atomic.Pointer[Handler]
	ready   chan struct{} // closed by Start

	self  atomic.Pointer[Identity]
	peers atomic.Pointer[map[uint64]*peer] // replaced, never changed

	dirty []*peer // what Transmit has to do; belongs to the thread of Send

	alarms alarms

	strangerCalls chan struct{}
	snapshots     chan struct{} // one for each transfer that runs
	snapshotsHeld chan struct{} // the same for those that wait, too
	clientStreams chan struct{}

	mu         sync.Mutex
	closed     bool
	accepted   int // connections that are being served
	conns      map[net.Conn]struct{}
	handshakes []net.Conn // accepted, in order
	inbound    map[uint64]*inbound
	runs       map[uint64]uint64 // by node: the run that was admitted last

	// What others can have logged.
	foreigners lograte.Line
	refusals   lograte.Line
	departures lograte.Line
	transfers  lograte.Line
	accepts    lograte.Line
	unproven   lograte.Line
}

// New opens a transport, which listens from now on. It answers nobody before
// Start. The error says what is wrong with the configuration or the address.
func New(cfg Config) (*Transport, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("peer: cannot listen on the peer address %s: %w", cfg.Listen, err)
	}
	t := &Transport{
		cfg: cfg, log: cfg.Logger, listener: l, began: time.Now(),
		pacer:         pacer{rate: cfg.SnapshotBytesPerSecond},
		ready:         make(chan struct{}),
		alarms:        newAlarms(),
		strangerCalls: make(chan struct{}, cfg.StrangerCallsMax),
		snapshots:     make(chan struct{}, cfg.SnapshotsIn),
		snapshotsHeld: make(chan struct{}, snapshotsWaitingMax),
		clientStreams: make(chan struct{}, clientStreamsMax),
		conns:         map[net.Conn]struct{}{},
		inbound:       map[uint64]*inbound{},
		runs:          map[uint64]uint64{},
		departures:    lograte.Line{Burst: linesOfPeers},
		transfers:     lograte.Line{Burst: linesOfPeers},
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.self.Store(&Identity{})
	t.peers.Store(&map[uint64]*peer{})
	return t, nil
}

// Start lets the transport answer and dial. It must be called once.
func (t *Transport) Start(h Handler) {
	if !t.started.CompareAndSwap(nil, &h) {
		panic("peer: Start was called twice")
	}
	close(t.ready)
	t.spawn(t.acceptLoop)
	t.spawn(func() { t.alarms.run(t.ctx, h.Unreachable) })
}

// Close ends all connections and returns when every goroutine has ended, those
// that are in the handler included; so it must not be called from there. What
// Transmit left to the writer goroutines may be lost.
func (t *Transport) Close() error {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		t.wg.Wait()
		return nil
	}
	t.closed = true
	conns := slices.Collect(maps.Keys(t.conns))
	t.mu.Unlock()

	t.cancel()
	err := t.listener.Close()
	for _, c := range conns {
		c.Close()
	}
	t.wg.Wait()
	return err
}

// Addr returns the address the transport listens on.
func (t *Transport) Addr() net.Addr { return t.listener.Addr() }

// SetIdentity sets what the node says of itself from the next handshake on.
// Without a cluster or a number it only calls, and is called, as a stranger.
func (t *Transport) SetIdentity(id Identity) {
	t.self.Store(&id)
	for _, p := range *t.peers.Load() {
		p.retry()
	}
}

// SetKey has the node prove itself with its key from the next handshake on. The
// key is not changed afterwards. Without one it is believed what nodes without
// proofs are believed.
func (t *Transport) SetKey(key ed25519.PrivateKey) { t.key.Store(&key) }

func (t *Transport) identity() Identity {
	id := *t.self.Load()
	id.Engine = cmp.Or(id.Engine, t.cfg.Engine)
	if key := t.key.Load(); key != nil {
		copy(id.Key[:], key.Public().(ed25519.PublicKey))
	}
	return id
}

// handler must be called after Start only.
func (t *Transport) handler() Handler { return *t.started.Load() }

func (t *Transport) peer(node uint64) *peer { return (*t.peers.Load())[node] }

func unknownPeer(node uint64) error { return fmt.Errorf("node %d: %w", node, ErrUnknownPeer) }

// SetPeer puts a node's address, host:port, into the address book, and keeps a
// connection to it from now on. If the address differs from before, the
// connection is made anew. If there is none, an attempt is made at once.
func (t *Transport) SetPeer(node uint64, address string) {
	if p := t.peer(node); p != nil {
		p.setAddress(address)
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	old := *t.peers.Load()
	if t.closed || old[node] != nil {
		return
	}
	p := newPeer(t, node, address)
	book := maps.Clone(old)
	book[node] = p
	t.peers.Store(&book)
	t.wg.Go(p.run)
}

// Retry has an attempt made at once to connect to each node without a
// connection: for a node that has begun to admit others, which then connect to
// it in turn.
func (t *Transport) Retry() {
	for _, p := range *t.peers.Load() {
		if p.version() == 0 {
			p.retry()
		}
	}
}

// RemovePeer takes a node out of the address book and ends the connections with
// it. Whether it may connect again is up to [Handler.Admit].
func (t *Transport) RemovePeer(node uint64) {
	t.mu.Lock()
	p, in := t.peer(node), t.inbound[node]
	if p != nil {
		book := maps.Clone(*t.peers.Load())
		delete(book, node)
		t.peers.Store(&book)
	}
	t.mu.Unlock()
	if p != nil {
		p.cancel() // ends its goroutines and its connection, soon
	}
	if in != nil {
		in.conn.Close()
	}
}

// Expel ends the Raft connection from a node, which has sent what err says. The
// log names both. The node may connect again.
func (t *Transport) Expel(node uint64, err error) {
	t.mu.Lock()
	in := t.inbound[node]
	t.mu.Unlock()
	if in != nil {
		in.expelled.CompareAndSwap(nil, &err)
		in.conn.Close()
	}
}

// Send encodes a message into the open frame of a node and never waits. m is
// not kept. Without a connection or past Config.QueueBytesMax the message is
// dropped, and the handler's Unreachable is called.
func (t *Transport) Send(node uint64, shard uint32, m *raftpb.Message) {
	p := t.peer(node)
	if p == nil {
		t.alarms.raise(node)
		return
	}
	if p.send(shard, m) {
		t.dirty = append(t.dirty, p)
	}
}

// Transmit gets on their way the messages sent since the last call. It never
// waits.
func (t *Transport) Transmit() {
	for i, p := range t.dirty {
		p.transmit()
		t.dirty[i] = nil
	}
	t.dirty = t.dirty[:0]
}

// SendFrame gets a frame of the engine's own encoding on its way to a node, whose
// handler's Frame gets its bytes, and never waits. Frames of one goroutine arrive in
// order or not at all. frame belongs to the transport from then on. The error wraps
// ErrUnknownPeer, ErrNotConnected, ErrTooLarge, or ErrBusy past
// Config.QueueBytesMax; the frame is dropped then, and the handler's Unreachable is
// called.
func (t *Transport) SendFrame(node uint64, frame []byte) error {
	p := t.peer(node)
	if p == nil {
		t.alarms.raise(node)
		return unknownPeer(node)
	}
	return p.sendFrame(frame)
}

// Connected returns nil if there is a connection on which to send to a node, and
// otherwise an error that wraps ErrUnknownPeer or ErrNotConnected.
func (t *Transport) Connected(node uint64) error {
	p := t.peer(node)
	if p == nil {
		return unknownPeer(node)
	}
	return p.connected()
}

// Report sends a report, at most ReportBytesMax bytes, to a peer, and reports
// whether it is on its way. One that is not counts as dropped, see PeerStatus,
// and the log says so now and then. Reports are to be sent every second or so: a
// peer that has had one takes silence for Config.SilenceTimeout as the end of the
// connection. Report never waits, and keeps nothing of body.
func (t *Transport) Report(node uint64, body []byte) bool {
	p := t.peer(node)
	return p != nil && p.report(body)
}

// Version returns the protocol version of the connection to a peer, 0 without
// one.
func (t *Transport) Version(node uint64) uint16 {
	if p := t.peer(node); p != nil {
		return p.version()
	}
	return 0
}

// PeerStatus describes the connections with one peer.
type PeerStatus struct {
	Node uint64
	// Connected: messages can be sent.
	Connected bool
	// BytesIn and BytesOut count frames, since the peer was set.
	BytesIn, BytesOut uint64
	// QueuedBytes is what waits to be written.
	QueuedBytes int
	// Dropped counts messages, and frames of SendFrame, that were dropped here.
	Dropped uint64
	// DroppedReports counts reports that were.
	DroppedReports uint64
}

// Peers describes all peers of the address book, by node number.
func (t *Transport) Peers() []PeerStatus {
	var out []PeerStatus
	for _, p := range *t.peers.Load() {
		out = append(out, p.status())
	}
	slices.SortFunc(out, func(a, b PeerStatus) int { return cmp.Compare(a.Node, b.Node) })
	return out
}

// spawn runs f on a goroutine that Close waits for, and reports false if the
// transport is closed.
func (t *Transport) spawn(f func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.wg.Go(f)
	return true
}

// track lets Close find a connection, and reports false if it is too late.
func (t *Transport) track(c net.Conn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed {
		t.conns[c] = struct{}{}
	}
	return !t.closed
}

// release forgets a connection without closing it.
func (t *Transport) release(c net.Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.conns, c)
}

// drop closes a connection and forgets it.
func (t *Transport) drop(c net.Conn) {
	c.Close()
	t.release(c)
}

// Keep-alive probes find a host that died while a connection was idle.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 2 * time.Second, Count: 3}

// setOptions prepares a TCP connection for its kind. Failure costs promptness
// only, so it is no error. The kernel may give up on unacknowledged data
// only where the receiver reads without pause: it counts a closed window, too.
func (t *Transport) setOptions(c net.Conn, kind connKind) {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	tcp.SetNoDelay(true)
	tcp.SetKeepAliveConfig(keepAlive)
	if kind != kindRaft {
		return
	}
	raw, err := tcp.SyscallConn()
	if err == nil {
		err = setUserTimeout(raw, t.cfg.WriteTimeout)
	}
	if err != nil {
		t.log.Debug("cannot set the user timeout of a peer connection", "err", err)
	}
}
