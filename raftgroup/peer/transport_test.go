package peer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what a test waits for; reaching it is a failure.
const patience = 20 * time.Second

// testHandler records what comes. Fields that are functions replace a method.
type testHandler struct {
	token       string
	tokens      func() string // instead of token, if not nil
	refused     func(by Identity, code Code, reason string)
	messages    chan got
	reports     chan string
	unreachable chan uint64

	recognize  func(Identity) error
	admit      func(Identity) error
	onMessages func(from uint64, batch []Message)
	frame      func(from uint64, payload []byte) error
	call       func(ctx context.Context, from Identity, verb string, body []byte) ([]byte, error)
	snapshot   func(from uint64, header []byte, s *Incoming) error
	client     func(from uint64, c net.Conn)
}

type got struct {
	from uint64
	Message
}

func newTestHandler() *testHandler {
	return &testHandler{messages: make(chan got, 1<<16), reports: make(chan string, 1024), unreachable: make(chan uint64, 1024)}
}

func (h *testHandler) Recognize(id Identity) error {
	if h.recognize != nil {
		return h.recognize(id)
	}
	return nil
}

func (h *testHandler) Admit(id Identity) error {
	if h.admit != nil {
		return h.admit(id)
	}
	return nil
}

func (h *testHandler) JoinToken() string {
	if h.tokens != nil {
		return h.tokens()
	}
	return h.token
}

func (h *testHandler) Refused(by Identity, code Code, reason string) {
	if h.refused != nil {
		h.refused(by, code, reason)
	}
}

func (h *testHandler) Messages(from uint64, batch []Message) {
	if h.onMessages != nil {
		h.onMessages(from, batch)
		return
	}
	for _, m := range batch {
		h.messages <- got{from, m}
	}
}

func (h *testHandler) Frame(from uint64, payload []byte) error { return h.frame(from, payload) }

func (h *testHandler) Report(_ uint64, body []byte) { h.reports <- string(body) }
func (h *testHandler) Unreachable(node uint64)      { h.unreachable <- node }

func (h *testHandler) Call(ctx context.Context, from Identity, verb string, body []byte) ([]byte, error) {
	if h.call == nil {
		return nil, errors.New("no calls here")
	}
	return h.call(ctx, from, verb, body)
}

func (h *testHandler) Snapshot(from uint64, header []byte, s *Incoming) error {
	return h.snapshot(from, header, s)
}

func (h *testHandler) ServeClient(from uint64, c net.Conn) { h.client(from, c) }

// logBuffer is a log that tests wait for.
type logBuffer struct {
	mu    sync.Mutex
	lines []string
	more  chan struct{}
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, string(p))
	close(l.more)
	l.more = make(chan struct{})
	return len(p), nil
}

func (l *logBuffer) count(text string) (n int, more <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n, l.more
}

// wait returns when a line with the text has been logged.
func (l *logBuffer) wait(t *testing.T, text string) {
	t.Helper()
	timeout := time.After(patience)
	for {
		n, more := l.count(text)
		if n > 0 {
			return
		}
		select {
		case <-more:
		case <-timeout:
			l.mu.Lock()
			defer l.mu.Unlock()
			t.Fatalf("no line with %q in the log:\n%s", text, strings.Join(l.lines, ""))
		}
	}
}

// testNode is a transport with its handler and log.
type testNode struct {
	*Transport
	h   *testHandler
	log *logBuffer
	id  uint64
}

func (n *testNode) address() string { return n.Addr().String() }

func identityOf(node uint64) Identity {
	return Identity{Cluster: 77, Node: node, UID: 1000 + node, Peer: fmt.Sprintf("n%d:7401", node), Client: fmt.Sprintf("n%d:7400", node), Version: "test", Engine: engineEtcd}
}

// startNode opens and starts a transport of a cluster's node. setup may change
// its configuration and handler.
func startNode(t testing.TB, node uint64, setup func(*Config, *testHandler)) *testNode {
	t.Helper()
	n := &testNode{h: newTestHandler(), log: &logBuffer{more: make(chan struct{})}, id: node}
	cfg := Config{Listen: "127.0.0.1:0", Logger: slog.New(slog.NewTextHandler(n.log, nil))}
	if setup != nil {
		setup(&cfg, n.h)
	}
	tr, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tr.Close() })
	n.Transport = tr
	tr.SetIdentity(earlierIdentity(identityOf(node)))
	tr.Start(n.h)
	return n
}

// join makes all nodes each other's peers and waits for the connections.
func join(t testing.TB, nodes ...*testNode) {
	t.Helper()
	for _, a := range nodes {
		for _, b := range nodes {
			if a != b {
				a.SetPeer(b.id, b.address())
			}
		}
	}
	for _, a := range nodes {
		for _, b := range nodes {
			if a != b {
				a.waitConnected(t, b.id)
			}
		}
	}
}

// waitConnected returns when messages can be sent to a node.
func (n *testNode) waitConnected(t testing.TB, node uint64) {
	t.Helper()
	eventually(t, func() bool { return n.peerStatus(t, node).Connected })
}

// connects returns how many connections to a node there have been.
func (n *testNode) connects(node uint64) uint64 {
	p := n.peer(node)
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.connects
}

// lastError returns why there is no connection to a node.
func (n *testNode) lastError(node uint64) string {
	p := n.peer(node)
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lastError
}

func (n *testNode) peerStatus(t testing.TB, node uint64) PeerStatus {
	t.Helper()
	all := n.Peers()
	i := slices.IndexFunc(all, func(s PeerStatus) bool { return s.Node == node })
	if i < 0 {
		t.Fatalf("node %d is not among the peers %v", node, all)
	}
	return all[i]
}

// eventually polls for what nothing announces.
func eventually(t testing.TB, f func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	timeout := time.After(patience)
	for !f() {
		select {
		case <-tick.C:
		case <-timeout:
			t.Fatal("waited in vain")
		}
	}
}

func receive[T any](t testing.TB, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatal("no message received")
		panic("unreachable")
	}
}

func heartbeat(term uint64) *raftpb.Message {
	return &raftpb.Message{Type: raftpb.MsgHeartbeat, To: 2<<24 | 1, From: 1<<24 | 1, Term: term, Commit: 1000 + term}
}

func appendEntries(index uint64, bodies ...[]byte) *raftpb.Message {
	m := &raftpb.Message{Type: raftpb.MsgApp, To: 2<<24 | 1, From: 1<<24 | 1, Term: 5, LogTerm: 5, Index: index, Commit: index}
	for i, b := range bodies {
		m.Entries = append(m.Entries, raftpb.Entry{Term: 5, Index: index + 1 + uint64(i), Data: b})
	}
	return m
}

func TestMessagesArriveInOrder(t *testing.T) {
	for _, version := range []uint16{1, 2} {
		t.Run(fmt.Sprint("version ", version), func(t *testing.T) {
			a := startNode(t, 1, func(c *Config, _ *testHandler) { c.VersionMax = version })
			b := startNode(t, 2, nil)
			join(t, a, b)
			if v := a.Version(2); v != version {
				t.Fatalf("version %d", v)
			}
			large := make([]byte, 3<<20)
			for i := range large {
				large[i] = byte(i * 7)
			}
			const rounds = 200
			for i := range uint64(rounds) {
				a.Send(2, uint32(i), heartbeat(i))
				a.Send(2, uint32(i), appendEntries(i, []byte("one"), nil, []byte("three")))
				if i%50 == 0 {
					a.Send(2, uint32(i), appendEntries(i, large))
				}
				a.Transmit()
			}
			for i := range uint64(rounds) {
				m := receive(t, b.h.messages)
				if m.from != 1 || m.Shard != uint32(i) || m.Raft.Term != i || m.Raft.Commit != 1000+i {
					t.Fatalf("round %d: %+v", i, m)
				}
				m = receive(t, b.h.messages)
				if len(m.Raft.Entries) != 3 || string(m.Raft.Entries[2].Data) != "three" || m.Raft.Entries[1].Data != nil || m.Raft.Index != i {
					t.Fatalf("round %d: %+v", i, m)
				}
				if i%50 == 0 {
					if m = receive(t, b.h.messages); !slices.Equal(m.Raft.Entries[0].Data, large) {
						t.Fatalf("round %d: the large entry was changed", i)
					}
				}
			}
			eventually(t, func() bool { // the sender counts after it has written
				s := a.peerStatus(t, 2)
				return s.QueuedBytes == 0 && s.Dropped == 0 && s.BytesOut != 0 && s.BytesOut == b.peerStatus(t, 1).BytesIn
			})
		})
	}
}
